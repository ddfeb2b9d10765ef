# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: ratios against a peer measured in the same run.

``python -m tests.bench [--json]``. Never part of the tests: machines are noisy.
The peer of a command is the bare interpreter, run in turn with it.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from dsatier.drive import Driver
from dsatier.facts import Facts
from dsatier.filehost import FileHost
from dsatier.loader import from_texts
from dsatier.observe import Observer
from dsatier.rehearsal import prepare
from dsatier.sim.host import SimHost
from dsatier.targets import target
from tests.contract.treehost import TreeHost

ROOT = Path(__file__).resolve().parents[2]
PROFILE = (ROOT / "profiles" / "dsa.yaml").read_text(encoding="utf-8")
RUNS = 40
Row = tuple[str, str, str, bool]


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


def host(cpus: int, devices: int) -> SimHost:
    """Return a simulated host of that size; the slow node has half of the CPUs."""
    half = cpus // 2
    return SimHost.load(
        f"version: 1\nhostname: bench\nkernel: {{release: 6.12.63-dsatier, kind: ours}}\n"
        f"nodes:\n  - {{cpus: 0-{half - 1}, memory: 64}}\n"
        f"  - {{cpus: {half}-{cpus - 1}, memory: 64}}\n"
        f"devices: {devices}\naccel_config: 4.1.6\n"
    )


def profile(devices: int) -> str:
    """Return the shipped DSA profile for that many devices."""
    chans = min(devices, 8)
    return PROFILE.replace("devices: 8", f"devices: {devices}").replace(
        "limit_chans: 8", f"limit_chans: {chans}"
    )


def commands() -> list[Row]:
    """Measure the two commands that people run most."""
    python, script = sys.executable, str(Path(sys.executable).with_name("dsatier"))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        sim = SimHost.host_for("dsa8")
        apply(sim, profile(8))
        status = Path(folder, "run", "dsatier", "status.json")
        status.parent.mkdir(parents=True)
        status.write_text(sim.read("/run/dsatier/status.json"), encoding="utf-8")
        for name, argv, limit in (
            ("status", ["status", "--root", folder], 1.5),
            ("check", ["check", str(ROOT / "profiles" / "dsa.yaml")], 4.0),
        ):
            found, mine, bare = ratio([script, *argv], [python, "-c", "pass"])
            rows.append(
                (
                    f"dsatier {name} / python -c pass",
                    f"{found:.2f} ({mine * 1e3:.1f} / {bare * 1e3:.1f} ms)",
                    f"≤ {limit}",
                    found <= limit,
                )
            )
    return rows


def apply(sim: SimHost, text: str) -> None:
    """Bring a simulated host to a profile."""
    driver = Driver(sim)
    facts = driver.look()
    outcome = driver.apply(target(sim.read, from_texts([("p.yaml", text)], facts), facts, None))
    if outcome.result != "changed":
        raise SystemExit(f"bench: {outcome.message}")


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
                (
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
            (f"plan, {cpus} CPUs, {devices} devices", f"{took:.1f} ms CPU", "≤ 100 ms", took <= 100)
        )
    return rows


def main() -> int:
    """Run all benchmarks and print a table."""
    rows = [*commands(), *reconcile(), *plans()]
    if "--json" in sys.argv[1:]:
        print(
            json.dumps(
                [dict(zip(("what", "found", "target", "met"), r, strict=True)) for r in rows]
            )
        )
        return 0
    width = max(len(row[0]) for row in rows)
    for what, found, limit, met in rows:
        print(f"{what:<{width}}  {found:<28}  {limit:<9}  {'met' if met else 'MISSED'}")
    return 0


sys.exit(main())
