# SPDX-License-Identifier: Apache-2.0
"""Suites that others wrote, on our kernel and beside it: ``python -m tests.kernel.suites``.

Boots a Debian on the kernel of the same configuration without our patches, and on ours, with every
knob off, with batches and threads on, and with batches that emulated DSA devices copy, and runs the
same there: the kernel's own self-tests of mm and damon, built from its source; stress-ng's
stressors that move pages; stressapptest, also while its memory is moved to and fro. Prints what
differs, a line of sums for each suite, and who copied. Ends with 1 where something that passes
without our patches does not pass with them, or where an engine that was on copied nothing. Results
of a report that is there stay, but for what is run again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.kernel.engine import EVERYBODY, TIMEOUT, value
from tests.kernel.ours import HERE, program
from vm import images
from vm.booting import guest
from vm.guest import Guest, GuestError
from vm.idxd import configuration, load, moved, moved_since
from vm.kernel import Kernel
from vm.machine import Dsa, Machine, Node
from vm.ours import counters, kernel, knob, since

MACHINE = Machine(
    nodes=(Node(cpus=3, memory=1536), Node(memory=1536)),  # with fewer mm's migration skips all
    append=("nosoftlockup",),  # a busy machine takes an emulated CPU away for longer
)
PACKAGES = ("stress-ng", "stressapptest", "libnuma1", "libcap2-bin", "bc", "sudo")
MM = (
    *("compaction", "cow", "gup_test", "hugetlb", "hugevm", "ksm", "ksm_numa", "madv_populate"),
    *("mdwe", "memfd_secret", "migration", "mkdirty", "mlock", "mmap", "mremap", "pagemap", "pkey"),
    *("process_mrelease", "soft_dirty", "thp", "userfaultfd"),
)
"""Categories of run_vmtests.sh; hmm and vmalloc want modules that this kernel is without."""
LEFT_OUT = {
    "hmm-tests": "wants the module test_hmm, which this kernel is without",
    "write_to_hugetlbfs": "is a part of charge_reserved_hugetlb.sh",
}
"""Programs of mm that run_vmtests.sh does not name, and that are no tests here."""
TOLD_TO = "page dumped because: gup_test: "
"""What the kernel says because a test tells it to."""
SECONDS = 30
"""How long a stressor works where nobody says otherwise."""
STRESSORS = ("numa", "mlock", "madvise", "mremap", "shm", "userfaultfd", "vm", "vm-splice", "brk")
STRESSORS_MOVED = ("vm", "shm")
"""Those that look at what they wrote, whose pages others move meanwhile."""
MOVED = """
while sleep 0.1; do
    for pid in $(pgrep ^stress); do pages short of "$pid" 1 >/dev/null; done
done &
mover=$!
"$@"
code=$?
kill $mover
exit $code
"""
"""Runs a command, and moves all memory of its processes from node to node and back meanwhile."""
DEVICES = 2
QUEUES = 2
"""Of each device."""


@dataclass(frozen=True, slots=True)
class Column:
    """A kernel, and what is on in it."""

    engine: str = ""
    """Who is to copy, as /proc/vmstat has it."""
    patched: bool = True
    knobs: Mapping[str, int] | None = None
    """In the order in which they are written."""
    dsa: int = 0
    """How many devices."""


PLAIN = "without patches"
BATCHES = {"migrate_batch_reasons": EVERYBODY, "migrate_batch_usecs": 0}
COLUMNS = {
    PLAIN: Column(patched=False),
    "all off": Column(),
    "batches, threads": Column(
        "threads", knobs={**BATCHES, "cpu_multi_copy_threshold": 1, "cpu_multi_copy_pages": 1}
    ),
    "batches, DSA": Column(
        "dsa",
        knobs={
            **BATCHES,
            "dsa_copy_threshold": 1,
            "limit_chans": DEVICES * QUEUES,
            "dsa_state": 1,
            "use_dsa_copy_pages": 1,
        },
        dsa=DEVICES,
    ),
}
"""The first is what all others are held to."""
ASIDES = ("kernel log", "engine")
"""Results that no test gives by itself: what the kernel said, and an engine that failed."""
OF_COPIES = ("dsa", "threads", "cpu", "refused", "failed", "fault")
"""Counters that are kept: of pages, but for the last and "refused", of lists."""


@dataclass(frozen=True, slots=True)
class Item:
    """A command of a suite."""

    suite: str
    name: str
    words: tuple[str, ...]
    timeout: float

    @property
    def key(self) -> str:
        """Its name in a report."""
        return f"{self.suite}: {self.name}"


def scripts(tests: Path) -> tuple[list[str], list[str]]:
    """Return the tests of damon, and those programs of mm that run_vmtests.sh leaves out."""
    damon = [
        path.name
        for path in (tests / "damon").iterdir()
        if path.suffix in (".sh", ".py") and not path.name.startswith("_")
    ]
    named = set(re.findall(r"[\w-]+", (tests / "mm/run_vmtests.sh").read_text(encoding="utf-8")))
    alone = [
        path.name
        for path in (tests / "mm").iterdir()
        if path.suffix == "" and path.is_file() and os.access(path, os.X_OK)
    ]
    return sorted(damon), sorted(set(alone) - named - set(LEFT_OUT))


def items(damon: Sequence[str], alone: Sequence[str], seconds: int = SECONDS) -> Iterator[Item]:
    """Yield all that is run. ``damon`` and ``alone`` are as in ``scripts``."""
    patience = 10 * max(seconds, SECONDS)
    memory = tuple(f"stressapptest -M 512 -m 2 -i 1 -c 1 -W -s {seconds}".split())
    for category in MM:
        # -d: those that break memory as well, which all belong to that category
        more = " -d" if category == "hugetlb" else ""
        run = f"cd /opt/kselftests/mm && exec ./run_vmtests.sh{more} -t {category}"
        yield Item("kselftest mm", category, ("sh", "-c", run), 900)
    for name in alone:
        run = f"cd /opt/kselftests/mm && exec ./{name}"
        yield Item("kselftest mm", name, ("sh", "-c", run), 300)
    for name in damon:
        run = f"cd /opt/kselftests/damon && exec ./{name}"
        yield Item("kselftest damon", name, ("sh", "-c", run), 300)
    for name in STRESSORS:
        yield Item("stress-ng", name, _stress(name, seconds), patience)
    for name in STRESSORS_MOVED:
        words = ("sh", "-c", MOVED, "sh", *_stress(name, seconds))
        yield Item("stress-ng", f"{name}, moved", words, 900)
    yield Item("stressapptest", "memory", memory, patience)
    yield Item("stressapptest", "memory, moved", ("sh", "-c", MOVED, "sh", *memory), 900)


def _stress(name: str, seconds: int) -> tuple[str, ...]:
    more = ("--timeout", str(seconds), "--verify", "--oomable")
    return ("stress-ng", f"--{name}", "2", *more)


def results(item: Item, code: int, out: str) -> dict[str, str]:
    """Return what a command says of its parts, or by its end where it has none.

    The same name twice is told apart by its number. A part that passes with all of its own tests
    skipped is one that was skipped.
    """
    found: dict[str, str] = {}
    seen: Counter[str] = Counter()
    nothing = False
    for line in out.splitlines() if item.name in MM else ():
        if sums := re.match(
            r"# # Totals: pass:(\d+) fail:\d+ xfail:\d+ xpass:\d+ skip:(\d+)", line
        ):
            nothing = sums[1] == "0" != sums[2]
        match = re.match(r"(not )?ok \d+ (.*?)(?: # (.*))?$", line)
        if not match:
            continue
        seen[match[2]] += 1
        name = f"{match[2]} ({seen[match[2]]})" if seen[match[2]] > 1 else match[2]
        skipped = "SKIP" in (match[3] or "") or nothing
        nothing = False
        found[name] = "fail" if match[1] else "skip" if skipped else "pass"
    # stress-ng ends with 3 and self-tests with 4 for what is not there
    left_out = () if item.suite == "stressapptest" else (3, 4)
    return found or {"": "pass" if code == 0 else "skip" if code in left_out else "fail"}


def run(vm: Guest, item: Item, folder: Path) -> dict[str, str]:
    """Run a command, keep what it said, and return its results with those of the kernel's log."""
    started = vm.start(*item.words)
    try:
        ran = started.wait(item.timeout)
        found = results(item, ran.code, ran.out)
        said = ran.out + ran.err
    except GuestError as error:
        if vm.death():
            raise
        started.kill()
        found, said = {"": "time-out"}, str(error)
    complaints = [one for one in vm.complaints() if TOLD_TO not in one.line]
    (folder / f"{item.suite}-{item.name}.log".replace(" ", "-").replace(",", "")).write_text(said)
    if complaints:
        found["kernel log"] = "; ".join(
            sorted({str(one).splitlines()[0][:90] for one in complaints})
        )
    return found


def counted(vm: Guest, item: Item, folder: Path) -> tuple[dict[str, str], dict[str, int]]:
    """Run a command, and return its results, and by whom pages were copied meanwhile.

    ``devices`` is what devices say, in pages: they are asked last, so it is no less than what the
    kernel says of them. An engine that a fault took out of use is told as a result.
    """
    bytes_before = moved(vm) if vm.machine.dsa else {}
    before = counters(vm)
    found = run(vm, item, folder)
    after = since(vm, before)
    copies = {name: after[name] for name in ("pgmigrate_success", *OF_COPIES) if name in after}
    if bytes_before:
        copies["devices"] = sum(moved_since(vm, bytes_before)) // 4096
        if value(vm, "use_dsa_copy_pages") != "1" or after["fault"]:
            found["engine"] = "fault"
    return found, copies


def place(report: Path, name: str) -> Path:
    """Return the folder of a column: its results, and what each command said."""
    return report / name.replace(" ", "-").replace(",", "")


RESULTS = "results.json"
"""Of each command, the result of each of its parts."""
COPIES = "copies.json"
"""Of each command, by whom how many pages were copied."""


def kept(path: Path) -> dict[str, Any]:
    """Return what a file of a report has, nothing where it is not there."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


@contextmanager
def host(column: Column, found: Kernel, root: Path) -> Iterator[Guest]:
    """Yield a guest with what is on in a column."""
    machine = replace(MACHINE, dsa=tuple(Dsa(node=n % 2) for n in range(column.dsa)))
    with guest(
        machine,
        kernel=found,
        root=root,
        load=["idxd"] if column.dsa else [],
        carry=["idxd_migrate"] if column.dsa else [],
        files={"/usr/local/bin/pages": program("pages")},
        timeout=600,
    ) as vm:
        if column.dsa:
            vm.ok("depmod")
            vm.ok("modprobe", "idxd_migrate")
            load(vm, configuration(column.dsa, queues=QUEUES))
            vm.write(TIMEOUT, "60000")  # on a busy machine an emulated device takes its time
        for name, number in (column.knobs or {}).items():
            knob(vm, name, number)
        yield vm


def filled(
    name: str, found: Kernel, root: Path, tests: Path, wanted: Sequence[Item], report: Path
) -> None:
    """Fill in a column: run what is wanted on a kernel, and keep all results."""
    folder = place(report, name)
    folder.mkdir(parents=True, exist_ok=True)
    told, copied = kept(folder / RESULTS), kept(folder / COPIES)
    with host(COLUMNS[name], found, root) as vm:
        for part in ("mm", "damon"):
            vm.copy_in(tests / part, "/opt/kselftests")
        vm.copy_in(tests / "kselftest", "/opt/kselftests")
        for item in wanted:
            began = time.monotonic()
            told[item.key], copied[item.key] = counted(vm, item, folder)
            took = time.monotonic() - began
            print(f"suites: {name}: {item.key}: {took:.0f} s", file=sys.stderr, flush=True)
            # a later column is told at once where one hangs or dies
            (folder / RESULTS).write_text(json.dumps(told, indent=1))
            (folder / COPIES).write_text(json.dumps(copied, indent=1))


def flat(told: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return results by the names of a command and of its part."""
    return {
        f"{key} {part}".rstrip(): one for key, parts in told.items() for part, one in parts.items()
    }


def sums(columns: dict[str, dict[str, str]]) -> str:
    """Return a table with a row for each suite."""
    suites = list(dict.fromkeys(name.partition(":")[0] for one in columns.values() for name in one))
    lines = [f"| suite | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    for suite in suites:
        cells = []
        for one in columns.values():
            mine = Counter(
                value
                for name, value in one.items()
                if name.startswith(f"{suite}:") and not name.endswith(ASIDES)
            )
            kinds = ("pass", "fail", "skip", "time-out")
            cells.append(", ".join(f"{mine[kind]} {kind}" for kind in kinds if mine[kind]))
        lines.append(f"| {suite} | {' | '.join(cells)} |")
    return "\n".join(lines)


def differences(columns: dict[str, dict[str, str]]) -> str:
    """Return a table of what isn't the same on all kernels, empty where all is."""
    names = list(dict.fromkeys(name for one in columns.values() for name in one))
    rows = []
    for name in names:
        cells = [one.get(name, "-") for one in columns.values()]
        if len(set(cells)) > 1:
            rows.append(f"| {name} | {' | '.join(cells)} |")
    head = [f"| differs | {' | '.join(columns)} |", f"| --- |{' --- |' * len(columns)}"]
    return "\n".join([*head, *rows]) if rows else ""


def worse(columns: dict[str, dict[str, str]]) -> list[str]:
    """Return what passes without our patches and not with them, or harms the kernel only there."""
    first, *others = columns.values()
    found = []
    for other in others:
        found += [n for n, value in first.items() if value == "pass" != other.get(n)]
        found += [n for n in other if n.endswith(ASIDES) and n not in first]
    return sorted(set(found))


def who(copies: Mapping[str, Mapping[str, Mapping[str, int]]]) -> str:
    """Return a table of how many pages were moved, and copied by whom, in each column."""
    lines = ["| pages | " + " | ".join(copies) + " |", f"| --- |{' ---: |' * len(copies)}"]
    for name in ("pgmigrate_success", *OF_COPIES, "devices"):
        cells = []
        for one in copies.values():
            found = [counts[name] for counts in one.values() if name in counts]
            cells.append(f"{sum(found):,}" if found else "-")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def idle(copies: Mapping[str, Mapping[str, Mapping[str, int]]]) -> list[str]:
    """Return the columns whose engine did not copy, or less than the kernel says it did."""
    found = []
    for name, one in copies.items():
        engine = COLUMNS[name].engine
        pages = sum(counts.get(engine, 0) for counts in one.values())
        devices = sum(counts.get("devices", 0) for counts in one.values())
        if engine and (not pages or (engine == "dsa" and devices < pages)):
            found.append(name)
    return found


def main() -> int:
    """Run columns, and print the tables of all that the report has by then."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernel.suites", description=__doc__)
    for option in ("ours", "unpatched"):
        parser.add_argument(f"--{option}", type=Path, help="a folder that scripts/build made")
    parser.add_argument("--only", default="", metavar="REGEX", help='as in "stress-ng: vm"')
    parser.add_argument("--report", type=Path, default=Path("suites-report"), metavar="DIR")
    parser.add_argument("--columns", default="/".join(COLUMNS), help="(default: %(default)s)")
    parser.add_argument(
        "--seconds", type=int, default=SECONDS, help="of each stressor (default: %(default)s)"
    )
    given = parser.parse_args()
    report: Path = given.report
    tests = Path(images.output(HERE / "kselftests").strip())
    root = images.debian_root(*PACKAGES)
    wanted = [
        item for item in items(*scripts(tests), given.seconds) if re.search(given.only, item.key)
    ]
    for name in given.columns.split("/"):
        patched = COLUMNS[name].patched
        folder = given.ours if patched else given.unpatched
        options = () if patched else ("--unpatched",)
        found = Kernel.built(folder) if folder else kernel(*options)
        filled(name, found, root, tests, wanted, report)
    there = {name: place(report, name) for name in COLUMNS if place(report, name).exists()}
    columns = {name: flat(kept(folder / RESULTS)) for name, folder in there.items()}
    copies = {name: kept(folder / COPIES) for name, folder in there.items()}
    text = "\n\n".join((sums(columns), differences(columns) or "All the same.", who(copies)))
    (report / "table.md").write_text(f"{text}\n")
    print(text)
    bad = worse(columns)
    if bad:
        print("worse with our patches: " + "; ".join(bad))
    for name in (lazy := idle(copies)):
        print(f"{name}: the engine did not copy")
    return int(bool(bad or lazy))


if __name__ == "__main__":
    sys.exit(main())
