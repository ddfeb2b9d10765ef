# SPDX-License-Identifier: Apache-2.0
"""What our patches cost and save, counted in guests: ``python -m tests.kernel.cost``.

Boots the kernel of the same configuration without our patches and ours, and prints tables:
instructions for each page that moves, TLB flushes that one CPU asks another for, lists. Emulated
time goes by instructions (``icount``), so the first is exact and the same again. Nothing here says
how fast real hardware is; kernel-src/bench does, on real hardware.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kernel.ours import program
from vm.booting import guest
from vm.guest import Guest
from vm.kernel import Kernel
from vm.machine import Machine, Node
from vm.ours import counters, kernel

PAGE = 4096
THP = "/sys/kernel/mm/transparent_hugepage"
COUNTED = "shift=0,sleep=off"
"""A nanosecond of the guest is an instruction of its CPUs, idle time left out."""
List = tuple[str, str, int]
LISTS: tuple[List, ...] = (
    ("1 x 4 KiB", "4096", 1),
    ("512 x 4 KiB", "4096", 512),
    ("1 x 2 MiB", "2097152", 1),
    ("24 x 2 MiB", "2097152", 24),
    ("1,000 x 4 KiB + 24 x 2 MiB", "mixed", 1024),
)
BOUND = 0.01
"""By how much all off may be slower than without patches."""
MIB = "104"
"""Two mixed lists, as well as a whole number of all others."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a kernel is told to copy."""

    name: str
    patched: bool
    knobs: tuple[tuple[str, int], ...] = ()


BATCHED = (("migrate_batch_reasons", 8), ("migrate_batch_usecs", 0))
"""move_pages(2) in lists that no latency bounds: an emulated CPU is slow."""
PLAIN = Way("without patches", patched=False)
OFF = Way("all off", patched=True)
CPU = Way("cpu", patched=True, knobs=BATCHED)
THREADS = tuple(
    Way(
        f"{count} threads",
        patched=True,
        knobs=(
            *BATCHED,
            ("cpu_multi_copy_threshold", 1),
            ("limit_mt_num", count),
            ("cpu_multi_copy_pages", 1),
        ),
    )
    for count in (2, 4)
)


def turned(vm: Guest, way: Way) -> None:
    """Set the knobs of a way, all others at their defaults."""
    if not way.patched:
        return
    vm.write("/proc/sys/vm/cpu_multi_copy_pages", "0")
    vm.write("/proc/sys/vm/migrate_batch_reasons", "0")
    for name, value in way.knobs:
        vm.write(f"/proc/sys/vm/{name}", str(value))


def moved(vm: Guest, size: str, folios: int, touchers: int = 0) -> dict[str, Any]:
    """Move memory to and fro once, in lists of folios; return what that took and lists made."""
    before = counters(vm)
    words = (size, str(folios), MIB, "0", str(touchers))
    found: dict[str, Any] = json.loads(vm.ok("moves", *words, timeout=1800))
    after = counters(vm)
    if found["left"] or found["whole"] != found["folios"]:
        raise ValueError(f"{size}, {folios} folios: expected all to be whole and to move: {found}")
    names = ("migrate_copy_lists", "migrate_copy_cpu", "migrate_copy_threads")
    return found | {name: after.get(name, 0) - before.get(name, 0) for name in names}


def measured(
    machine: Machine,
    kernels: dict[bool, Kernel],
    ways: tuple[Way, ...],
    touchers: int,
    lists: tuple[List, ...] = LISTS,
) -> Iterator[tuple[str, Way, dict[str, Any]]]:
    """Yield list, way and what came out, each kernel booted once."""
    for patched in sorted({way.patched for way in ways}):
        files = {"/bin/moves": program("moves")}
        with guest(machine, kernel=kernels[patched], files=files, timeout=600) as vm:
            vm.write(f"{THP}/enabled", "madvise")
            for way in ways:
                if way.patched != patched:
                    continue
                turned(vm, way)
                for name, size, folios in lists:
                    print(f"cost: {vm.release}, {way.name}, {name}", file=sys.stderr)
                    yield name, way, moved(vm, size, folios, touchers)


def flushes(kernels: dict[bool, Kernel]) -> str:
    """Return the table of TLB flushes, while two other CPUs read what moves."""
    three = Machine(nodes=(Node(cpus=3, memory=512), Node(memory=512)))
    ways, cells = (PLAIN, OFF, CPU), {}
    many = tuple(one for one in LISTS if one[2] > 1)  # single ones are flushed one by one, however
    for name, way, found in measured(three, kernels, ways, 2, many):
        cells[name, way.name] = f"{found['tlb_interrupts'] / found['moved']:.4f}"
    return table("TLB interrupts/folio, 2 CPUs read it", ways, cells, many)


def table(
    head: str,
    ways: tuple[Way, ...],
    cells: dict[tuple[str, str], str],
    lists: tuple[List, ...] = LISTS,
) -> str:
    """Return a table with a row for each list and a column for each way."""
    lines = [f"| {head} | {' | '.join(way.name for way in ways)} |"]
    lines.append(f"| --- |{' ---: |' * len(ways)}")
    for name, *_ in lists:
        row = (cells.get((name, way.name), "-") for way in ways)
        lines.append(f"| {name} | {' | '.join(row)} |")
    return "\n".join(lines)


def pages(found: dict[str, Any]) -> float:
    """Return how many 4 KiB pages have moved."""
    return float(found["bytes"]) / PAGE


def main() -> int:
    """Print the tables. 1: with all off our kernel is more than a hundredth slower; else 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.kernel.cost", description=__doc__)
    for name in ("ours", "unpatched"):
        parser.add_argument(
            f"--{name}", type=Path, help="a folder that kernel-src/scripts/build made"
        )
    given = parser.parse_args()
    kernels = {
        True: Kernel.built(given.ours) if given.ours else kernel(),
        False: Kernel.built(given.unpatched) if given.unpatched else kernel("--unpatched"),
    }
    ways: tuple[Way, ...] = (PLAIN, OFF, CPU)
    one = Machine(nodes=(Node(cpus=1, memory=512), Node(memory=512)), icount=COUNTED)
    cells: dict[tuple[str, str], str] = {}
    plain: dict[str, float] = {}
    late: list[str] = []
    for name, way, found in measured(one, kernels, ways, 0):
        each = found["ns"] / pages(found)
        plain.setdefault(name, each)  # the kernel without patches comes first
        change = "" if way == PLAIN else f" ({100 * (each / plain[name] - 1):+.2f} %)"
        cells[name, way.name] = f"{each:,.1f}{change}"
        if way == OFF and each > plain[name] * (1 + BOUND):
            late.append(f"{name}: {each:,.1f}, without patches {plain[name]:,.1f}")
    print(table("instructions/page, 1 CPU", ways, cells), flush=True)

    four = Machine(nodes=(Node(cpus=4, memory=512), Node(memory=512)), icount=COUNTED)
    cells = {}
    lists = {}
    for name, way, found in measured(four, kernels, (PLAIN, OFF, CPU, *THREADS), 0):
        cells[name, way.name] = f"{found['ns'] / pages(found):,.1f}"
        count = found["migrate_copy_lists"]
        share = 100 * found["migrate_copy_threads"] / pages(found)
        who = f", threads {share:.0f} %" if way in THREADS else ""
        lists[name, way.name] = f"{found['moved'] / count:,.1f}{who}" if count else "-"
    ways = (PLAIN, OFF, CPU, *THREADS)
    print("\n" + table("instructions/page, all of 4 CPUs", ways, cells), flush=True)
    print("\n" + table("folios/list", ways[2:], lists), flush=True)

    print("\n" + flushes(kernels), flush=True)
    for text in late:
        print(f"cost: all off, and yet more than {BOUND:.0%} slower: {text}", file=sys.stderr)
    return int(bool(late))


if __name__ == "__main__":
    sys.exit(main())
