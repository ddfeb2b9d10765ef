# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: ratios against a peer measured in the same run.

``python -m bench [--json] [--quick] [--no-service | --only-service] [--picture FILE]``.
Never part of the tests: machines are noisy. The peer of a command is the bare interpreter, run
in turn with it; that of the daemon is TuneD, in a container, where there is root for one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench import service
from bench.hosts import apply, host, profile
from bench.report import Row, as_json, picture, table
from dsatier.apply.driver import Driver
from dsatier.apply.target import target
from dsatier.facts.model import Facts
from dsatier.facts.observe.observer import Observer
from dsatier.host.files import FileHost
from dsatier.plan.rehearsal import prepare
from dsatier.profile.load import from_texts
from dsatier.sim.host import SimHost
from tests.support.treehost import TreeHost

ROOT = Path(__file__).resolve().parent.parent
RUNS = 40


def cpu_of(argv: list[str]) -> float:
    """Return the CPU seconds of a whole process, by the kernel's accounting."""
    before = os.times()
    subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = os.times()
    return (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )


def wall_of(argv: list[str]) -> float:
    """Return the wall seconds of a whole process."""
    began = time.perf_counter()
    subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - began


def ratio(argv: list[str], peer: list[str]) -> tuple[float, float, float]:
    """Return the median of the pairwise ratios of wall time, and both medians in seconds."""
    pairs = []
    wall_of(argv), wall_of(peer)
    for _ in range(RUNS):
        pairs.append((wall_of(argv), wall_of(peer)))
    return (
        statistics.median(a / b for a, b in pairs),
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
    )


def commands() -> list[Row]:
    """Measure the commands that people run most: ``status`` in a loop, the others by hand."""
    python = sys.executable
    # as the package starts it; the script that pip makes may import re for itself
    start = "import sys; from dsatier.cli.main import main; sys.exit(main())"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        sim = SimHost.host_for("dsa8")
        apply(sim, profile(8))
        status = Path(folder, "run", "dsatier", "status.json")
        status.parent.mkdir(parents=True)
        status.write_text(sim.read("/run/dsatier/status.json"), encoding="utf-8")
        profile_file = str(ROOT / "profiles" / "dsa.yaml")
        for name, argv, most, seconds in (
            ("status", ["status", "--root", folder], 1.5, None),
            ("check", ["check", profile_file], None, 0.6),
            ("plan", ["plan", "-p", profile_file, "--host", "sim:dsa8"], None, 0.6),
        ):
            found, mine, bare = ratio([python, "-c", start, *argv], [python, "-c", "pass"])
            rows.append(
                Row(
                    f"dsatier {name} / python -c pass",
                    f"{found:.2f} ({mine * 1e3:.1f} / {bare * 1e3:.1f} ms)",
                    f"≤ {most}" if most else f"≤ {seconds} s",
                    found <= most if most else mine <= (seconds or 0.0),
                )
            )
    return rows


def cpu_ms(work: Callable[[], object], times: int) -> float:
    """Return the median CPU milliseconds of one call."""
    found = []
    for _ in range(times):
        began = time.process_time()
        work()
        found.append((time.process_time() - began) * 1e3)
    return statistics.median(found)


def reconcile() -> list[Row]:
    """Measure a reconcile that finds nothing to do, on real files and on the simulated host."""
    rows = []
    sim = host(128, 8)
    apply(sim, profile(8))
    with tempfile.TemporaryDirectory() as folder:
        tree = TreeHost(sim, Path(folder))
        for name, one in (("files", FileHost(folder)), ("simulated", sim)):
            driver = Driver(one)
            facts = driver.look()
            wanted = target(one.read, from_texts([("p.yaml", profile(8))], facts), facts, None)
            result = driver.reconcile(wanted).result
            if result != "unchanged":
                raise SystemExit(f"bench: reconcile on {name}: {result}")
            took = cpu_ms(lambda d=driver, w=wanted: d.reconcile(w), 50)  # type: ignore[misc]
            rows.append(
                Row(
                    f"no-op reconcile, 128 CPUs, 8 devices, {name}",
                    f"{took:.2f} ms CPU",
                    # the simulation makes its files up as they are read: its cost, not ours
                    "≤ 5 ms" if name == "files" else "-",
                    name != "files" or took <= 5,
                )
            )
        tree.close()
    return rows


def plans() -> list[Row]:
    """Measure planning, rehearsal included, by size."""
    rows = []
    for cpus, devices in ((8, 1), (64, 4), (128, 8), (512, 32), (1024, 64)):
        sim = host(cpus, devices)
        facts: Facts = Observer(sim).look()
        loaded = from_texts([("p.yaml", profile(devices))], facts)
        wanted = target(sim.read, loaded, facts, None).desired
        plan = prepare(facts, wanted)
        if plan.verdict != "ready":
            raise SystemExit(f"bench: {plan.findings[0]}")
        took = cpu_ms(lambda f=facts, w=wanted: prepare(f, w), 9)  # type: ignore[misc]
        rows.append(
            Row(
                f"plan, {cpus} CPUs, {devices} devices",
                f"{took:.1f} ms CPU",
                "≤ 100 ms",
                took <= 100,
            )
        )
    return rows


@contextmanager
def first_of_all() -> Iterator[None]:
    """Run before whatever else is at work here, and all that is started meanwhile, too.

    Niceness counts between sessions only while the kernel does not group processes by them: it
    would give each session as much, and each service is one.
    """
    with suppress(PermissionError):
        os.nice(-20)
    grouping = Path("/proc/sys/kernel/sched_autogroup_enabled")
    try:
        before = grouping.read_text(encoding="ascii")
        grouping.write_text("0", encoding="ascii")
    except OSError:  # not root, or a kernel that does not group
        yield
        return
    try:
        yield
    finally:
        grouping.write_text(before, encoding="ascii")


def main() -> int:
    """Run the benchmarks and print a table."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print a JSON array")
    parser.add_argument("--quick", action="store_true", help="try the daemon's: no figures to keep")
    parser.add_argument("--picture", type=Path, help="draw daemon and TuneD as SVG into this file")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--no-service", action="store_true", help="leave the daemon out")
    which.add_argument("--only-service", action="store_true", help="the daemon's only")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    lacking = service.lacking()
    if lacking and not options.no_service:
        print(f"bench: the daemon beside TuneD is left out: {lacking}", file=sys.stderr)
    with first_of_all():
        rows = [] if options.only_service else [*commands(), *reconcile(), *plans()]
        if not lacking and not options.no_service:
            rows += service.rows(service.QUICK if options.quick else service.Effort())
    if options.picture is not None and any(row.pair for row in rows):
        options.picture.write_text(picture(rows), encoding="utf-8")
    print(as_json(rows) if options.json else table(rows))
    words = f"load average {load:.1f} before and {os.getloadavg()[0]:.1f} after"
    print(f"bench: {os.cpu_count()} CPUs, {words}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
