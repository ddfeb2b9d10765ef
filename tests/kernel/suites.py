# SPDX-License-Identifier: Apache-2.0
"""Suites that others wrote, on our kernel and beside it: ``python -m tests.kernel.suites``.

Boots a Debian on the kernel of the same configuration without our patches, and on ours, with every
knob off and with batches and threads on, and runs the same there: the kernel's own self-tests of mm
and damon, built from its source; stress-ng's stressors that move pages; stressapptest. Prints what
differs, and a line of sums for each suite. Ends with 1 where something that passes without our
patches does not pass with them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.ours import HERE, kernel
from tests.vm import images
from tests.vm.booting import guest
from tests.vm.guest import Guest, GuestError
from tests.vm.kernel import Kernel
from tests.vm.machine import Machine, Node

MACHINE = Machine(
    nodes=(Node(cpus=2, memory=1536), Node(memory=1536)),
    append=("nosoftlockup",),  # a busy machine takes an emulated CPU away for longer
)
PACKAGES = ("stress-ng", "stressapptest", "libnuma1", "libcap2-bin", "bc")
MM = (
    *("compaction", "cow", "gup_test", "hugetlb", "hugevm", "ksm", "ksm_numa", "madv_populate"),
    *("mdwe", "memfd_secret", "migration", "mkdirty", "mlock", "mmap", "mremap", "pagemap", "pkey"),
    *("process_mrelease", "soft_dirty", "thp", "userfaultfd"),
)
"""Categories of run_vmtests.sh; hmm and vmalloc want modules that this kernel is without."""
SECONDS = 30
"""How long a stressor works."""
STRESSORS = ("numa", "mlock", "madvise", "mremap", "shm", "userfaultfd", "vm", "vm-splice", "brk")
PLAIN = "without patches"
COLUMNS = (PLAIN, "all off", "batches, threads")
ON = (
    ("migrate_batch_reasons", 989),
    ("migrate_batch_usecs", 0),
    ("cpu_multi_copy_threshold", 1),
    ("cpu_multi_copy_pages", 1),
)


@dataclass(frozen=True, slots=True)
class Item:
    """A command of a suite."""

    suite: str
    name: str
    words: tuple[str, ...]
    timeout: float


def items(damon: list[str]) -> Iterator[Item]:
    """Yield all that is run. ``damon`` names the tests of that suite."""
    for category in MM:
        run = f"cd /opt/kselftests/mm && exec ./run_vmtests.sh -t {category}"
        yield Item("kselftest mm", category, ("sh", "-c", run), 900)
    for name in damon:
        run = f"cd /opt/kselftests/damon && exec ./{name}"
        yield Item("kselftest damon", name, ("sh", "-c", run), 300)
    for name in STRESSORS:
        more = ("--timeout", str(SECONDS), "--verify", "--oomable")
        yield Item("stress-ng", name, ("stress-ng", f"--{name}", "2", *more), 10 * SECONDS)
    words = (
        "stressapptest",
        "-s",
        str(SECONDS),
        "-M",
        "512",
        "-m",
        "2",
        "-i",
        "1",
        "-c",
        "1",
        "-W",
    )
    yield Item("stressapptest", "memory", words, 10 * SECONDS)


def results(item: Item, code: int, out: str) -> dict[str, str]:
    """Return what a command says of its parts, or by its end where it has none.

    The same name twice is told apart by its number.
    """
    found: dict[str, str] = {}
    seen: Counter[str] = Counter()
    for line in out.splitlines() if item.suite == "kselftest mm" else ():
        match = re.match(r"(not )?ok \d+ (.*?)(?: # (.*))?$", line)
        if not match:
            continue
        seen[match[2]] += 1
        name = f"{match[2]} ({seen[match[2]]})" if seen[match[2]] > 1 else match[2]
        skipped = "SKIP" in (match[3] or "")
        found[name] = "skip" if skipped else "fail" if match[1] else "pass"
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
    complaints = vm.complaints()
    (folder / f"{item.suite}-{item.name}.log".replace(" ", "-")).write_text(said)
    if complaints:
        found["kernel log"] = "; ".join(
            sorted({str(one).splitlines()[0][:90] for one in complaints})
        )
    return found


def place(report: Path, name: str) -> Path:
    """Return the folder of a column: its results, and what each command said."""
    return report / name.replace(" ", "-").replace(",", "")


def column(
    name: str, found: Kernel, root: Path, tests: Path, wanted: re.Pattern[str], report: Path
) -> None:
    """Keep all results on one kernel."""
    folder = place(report, name)
    folder.mkdir(parents=True, exist_ok=True)
    told: dict[str, str] = {}
    with guest(MACHINE, kernel=found, root=root, timeout=600) as vm:
        for part in ("mm", "damon"):
            vm.copy_in(tests / part, "/opt/kselftests")
        vm.copy_in(tests / "kselftest", "/opt/kselftests")
        for knob, value in ON if name == COLUMNS[2] else ():
            vm.write(f"/proc/sys/vm/{knob}", str(value))
        damon = sorted(
            path.name
            for path in (tests / "damon").iterdir()
            if path.suffix in (".sh", ".py") and not path.name.startswith("_")
        )
        for item in items(damon):
            if not wanted.search(f"{item.suite} {item.name}"):
                continue
            began = time.monotonic()
            for part, result in run(vm, item, folder).items():
                told[" ".join(filter(None, (item.suite + ":", item.name, part)))] = result
            took = time.monotonic() - began
            print(f"suites: {name}: {item.suite} {item.name}: {took:.0f} s", file=sys.stderr)
            # a later column is told at once where one hangs or dies
            (folder / "results.json").write_text(json.dumps(told, indent=1))


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
                if name.startswith(f"{suite}:") and not name.endswith("kernel log")
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
        found += [n for n in other if n.endswith("kernel log") and n not in first]
    return sorted(set(found))


def main() -> int:
    """Run columns, and print the tables of all that the report has by then."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernel.suites", description=__doc__)
    for option in ("ours", "unpatched"):
        parser.add_argument(f"--{option}", type=Path, help="a folder that scripts/build made")
    parser.add_argument("--only", default="", metavar="REGEX", help="of suite and name")
    parser.add_argument("--report", type=Path, default=Path("suites-report"), metavar="DIR")
    parser.add_argument("--columns", default="/".join(COLUMNS), help="(default: %(default)s)")
    given = parser.parse_args()
    report: Path = given.report
    tests = Path(images.output(HERE / "kselftests").strip())
    root = images.debian_root(*PACKAGES)
    wanted = re.compile(given.only)
    for name in given.columns.split("/"):
        folder = given.unpatched if name == PLAIN else given.ours
        options = ("--unpatched",) if name == PLAIN else ()
        found = Kernel.built(folder) if folder else kernel(*options)
        column(name, found, root, tests, wanted, report)
    kept = {name: place(report, name) / "results.json" for name in COLUMNS}
    columns = {name: json.loads(file.read_text()) for name, file in kept.items() if file.exists()}
    text = f"{sums(columns)}\n\n{differences(columns) or 'All the same.'}\n"
    (report / "table.md").write_text(text)
    print(text)
    if bad := worse(columns):
        print("worse with our patches: " + "; ".join(bad))
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
