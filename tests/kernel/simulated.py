# SPDX-License-Identifier: Apache-2.0
"""What DSA devices gain, simulated: ``python -m tests.kernel.simulated``.

Guests whose time goes by instructions, a nanosecond each, with eight devices that take the time
that the emulator's model gives them (fitted to published figures, emulator/docs/device.md).
So a list takes what the kernel's instructions and the devices take, the same on every machine. A
core of a real host does several instructions in a nanosecond: its part is too long here.

Writes ``simulated.json``, and from it the picture docs/kernel-dsa.svg; prints the tables of
docs/kernel-measured.md. Nothing here was measured on hardware.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tests.emulator.timing import CPU
from tests.kernel.cost import COUNTED, LISTS, THP
from tests.kernel.engine import PARAMETERS, down, up
from tests.kernel.groups import retype
from tests.kernel.ours import program
from vm.booting import ACCEL_CONFIG, guest
from vm.guest import Guest
from vm.idxd import configuration, counters, load, names
from vm.kernel import Kernel
from vm.machine import Dsa, Iommu, Machine, Node
from vm.ours import kernel, knob, knobs

HERE = Path(__file__).resolve().parent
RECORD = HERE / "simulated.json"
PICTURE = HERE.parents[1] / "docs/kernel-dsa.svg"
CHANNELS = (1, 2, 4, 8)
Way = Iommu | Literal["identity"]
"""How the devices are translated; identity: not, since they were told so while the guest ran."""
PAGES = tuple(1 << n for n in range(11))
"""4 KiB pages in a list."""
PAGE = 4096
PATIENCE = 900.0


@contextmanager
def booted(
    ours: Kernel, cpus: int = 1, iommu: Way = "off", devices: int = 8, sockets: int = 2
) -> Iterator[Guest]:
    """Yield a guest with devices that take time, as many in each socket."""
    dsa = tuple(
        Dsa(properties={"timing": True, "timing-socket": n * sockets // devices})
        for n in range(devices)
    )
    machine = Machine(
        nodes=(Node(cpus=cpus, memory=512), Node(memory=512)),
        dsa=dsa,
        iommu="translated" if iommu == "identity" else iommu,
        icount=COUNTED,
    )
    with guest(
        machine,
        kernel=ours,
        load=["idxd", "idxd_migrate"],
        programs=[ACCEL_CONFIG],
        files={"/bin/moves": program("moves")},
        timeout=600,
    ) as vm:
        if iommu == "identity":
            for device in names(vm):
                retype(vm, device, iommu)
        load(vm, configuration(devices), timeout=PATIENCE)
        vm.write(f"{THP}/enabled", "madvise")
        knob(vm, "migrate_batch_reasons", 8)
        knob(vm, "migrate_batch_usecs", 0)
        knob(vm, "dsa_copy_threshold", 1)
        # such guests have no timer finer than 4 ms: what is not over in the 20 us in which the
        # engine spins has to be told by an interrupt
        vm.write(f"{PARAMETERS}/interrupt_us", "20")
        yield vm


def moved(vm: Guest, size: str, folios: int, mib: str) -> dict[str, Any]:
    """Move memory to and fro in lists, and return what that took, for each list and each page."""
    # the engine learns first how long to expect such lists to take
    vm.ok("moves", size, str(folios), mib, "0", timeout=PATIENCE)
    vm.write("/proc/timer", "1\n")
    before = [counters(vm, name)["device"] for name in names(vm).values()]
    found: dict[str, Any] = json.loads(
        vm.ok("moves", size, str(folios), mib, "0", timeout=PATIENCE)
    )
    after = [counters(vm, name)["device"] for name in names(vm).values()]
    told = vm.read("/proc/timer")
    vm.write("/proc/timer", "0\n")
    lists = [
        (engine, int(count), int(ns))
        for engine, count, ns in re.findall(
            r"^lists engine=(\w+) reason=syscall_or_cpuset count=(\d+) ns=(\d+)", told, re.MULTILINE
        )
    ]
    pages = found["bytes"] / PAGE
    count = sum(one[1] for one in lists)

    def each(key: str) -> float:
        done: int = sum(b[key] - a[key] for a, b in zip(before, after, strict=True))
        return done / max(count, 1)

    return {
        "by": sorted(one[0] for one in lists),
        "list_ns": sum(one[2] for one in lists) / max(count, 1),
        "list_bytes": found["bytes"] / max(count, 1),
        # the program's own and the kernel's on its behalf; not what an interrupt or idling takes
        "instructions": (found["user_ns"] + found["system_ns"]) / pages,
        "descriptors": each("descriptors"),
        "batches": each("batches"),
        "interrupts": each("interrupts"),
    }


class Cell(NamedTuple):
    """What is measured in one go: what moves, and how many channels copy; none is the CPU."""

    key: str
    channels: int
    size: str
    folios: int
    mib: str


def latencies() -> Iterator[Cell]:
    """Yield those of which it is told how long the engine has a list."""
    for channels in CHANNELS:
        yield Cell(f"huge-{channels}", channels, "2097152", 1, "16")
        yield Cell(f"mixed-{channels}", channels, "mixed", 1024, "104")
    for channels in (1, 8):
        for pages in PAGES:
            yield Cell(f"base-{channels}-{pages}", channels, "4096", pages, "16")


BEYOND = (
    ("1 x 2 MiB", "huge-8", "2097152", 1, "16"),
    ("24 x 2 MiB", "24 x 2 MiB/off", "2097152", 24, "104"),
    ("1,000 x 4 KiB + 24 x 2 MiB", "mixed-8", "mixed", 1024, "104"),
    ("1,024 x 4 KiB", "base-8-1024", "4096", 1024, "16"),
)
"""Lists that eight devices of two sockets copy sooner than one socket can, with the key of that.

Published is no more than what one socket gives, 106 to 110 GB/s."""


def bounded() -> Iterator[Cell]:
    """Yield those lists, for eight devices that are all in one socket."""
    for name, _, size, folios, mib in BEYOND:
        yield Cell(f"{name}/socket", 8, size, folios, mib)


def instructions(iommu: Way) -> Iterator[Cell]:
    """Yield those of which it is told what a list costs the CPU where eight channels copy."""
    for way, channels in (("cpu", 0), (iommu, 8)):
        if way != "cpu" or iommu == "off":
            for name, size, folios in LISTS:
                yield Cell(f"{name}/{way}", channels, size, folios, "104")


def measured(
    ours: Kernel, iommu: Way, cells: Sequence[Cell], sockets: int = 2
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measure in one guest, and yield what came out."""
    if not cells:
        return
    with booted(ours, iommu=iommu, sockets=sockets) as vm:
        for channels, group in groupby(cells, key=lambda cell: cell.channels):
            if channels:
                up(vm, channels)
            for cell in group:
                yield cell.key, moved(vm, cell.size, cell.folios, cell.mib)
            if channels:
                down(vm)


def calibrated(ours: Kernel) -> dict[str, str]:
    """Return what the calibration chooses by the number of 4 KiB pages: the costs, as it tells."""
    with booted(ours) as vm:
        up(vm, 8)
        with knobs(vm, migrate_copy_calibrate=1):
            vm.write("/proc/timer", "1\n")
            for pages in PAGES:
                for _ in range(2):
                    vm.ok("moves", "4096", str(pages), "8", "0", timeout=PATIENCE)
            told = vm.read("/proc/timer")
            vm.write("/proc/timer", "0\n")
        down(vm)
    return dict(re.findall(r"^costs engine=(\w+) (.*)$", told, re.MULTILINE))


# -- tables ------------------------------------------------------------------------


def cpu_ns(size: float) -> float:
    """Return how long one CPU would take, by what is published."""
    return size / CPU * 1e9


def tables(record: dict[str, dict[str, Any]]) -> str:
    """Return the tables of the document."""
    published = {
        "huge-8": "3 to 14 times",
        "mixed-8": "14.4 times, 106 GB/s",
        "base-1-128": "1.5 to 4 times",
    }
    out = ["| list | channels | simulated | bandwidth | one CPU | gain | published |"]
    out.append("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    rows = [(f"huge-{c}", "1 x 2 MiB", c) for c in CHANNELS]
    rows += [(f"mixed-{c}", "1,000 x 4 KiB + 24 x 2 MiB", c) for c in CHANNELS]
    rows += [(f"base-1-{n}", f"{n:,} x 4 KiB", 1) for n in PAGES]
    rows += [(f"base-8-{n}", f"{n:,} x 4 KiB", 8) for n in PAGES]
    for key, what, channels in rows:
        one = record[key]
        took, size = one["list_ns"], one["list_bytes"]
        out.append(
            f"| {what} | {channels} | {took / 1000:,.1f} µs | {size / took:.1f} GB/s "
            f"| {cpu_ns(size) / 1000:,.1f} µs | {cpu_ns(size) / took:.1f} "
            f"| {published.get(key, '')} |"
        )
    out += ["", "| list, 8 channels | of two sockets | bandwidth | of one | bandwidth |"]
    out.append("| --- | ---: | ---: | ---: | ---: |")
    for name, key, *_ in BEYOND:
        both = (record[key], record[f"{name}/socket"])
        told = (
            f"{one['list_ns'] / 1000:,.1f} µs | {one['list_bytes'] / one['list_ns']:.1f} GB/s"
            for one in both
        )
        out.append(f"| {name} | {' | '.join(told)} |")
    ways = ("cpu", "off", "passthrough", "translated")
    out += ["", "| instructions/page, 1 CPU | " + " | ".join(ways) + " |"]
    out.append("| --- |" + " ---: |" * len(ways))
    for name, *_ in LISTS:
        cells = (f"{record[f'{name}/{way}']['instructions']:,.0f}" for way in ways)
        out.append(f"| {name} | {' | '.join(cells)} |")
    out += ["", "| simulated, 8 channels | one CPU | " + " | ".join(ways[1:]) + " |"]
    out.append("| --- |" + " ---: |" * len(ways))
    for name, *_ in LISTS:
        took = [record[f"{name}/{way}"]["list_ns"] for way in ways[1:]]
        took.insert(0, cpu_ns(record[f"{name}/off"]["list_bytes"]))
        out.append(f"| {name} | {' | '.join(f'{ns / 1000:,.1f} µs' for ns in took)} |")
    out += ["", "| simulated, 8 channels | translated | `iommu: identity` |"]
    out.append("| --- | ---: | ---: |")
    for name, *_ in LISTS:
        took = [record[f"{name}/{way}"]["list_ns"] for way in ("translated", "identity")]
        out.append(f"| {name} | {' | '.join(f'{ns / 1000:,.1f} µs' for ns in took)} |")
    out += ["", "| a list of | descriptors | of these batches | interrupts |"]
    out.append("| --- | ---: | ---: | ---: |")
    for name, *_ in LISTS:
        one = record[f"{name}/off"]
        cells = (f"{one[key]:.1f}" for key in ("descriptors", "batches", "interrupts"))
        out.append(f"| {name} | {' | '.join(cells)} |")
    out += ["", "what the calibration has learnt, ns/page by pages of a list:"]
    out += [f"{engine}: {costs}" for engine, costs in record["calibrated"].items()]
    return "\n".join(out)


# -- picture -----------------------------------------------------------------------

WIDTH, HEIGHT, LEFT, TOP = 760, 420, 70, 50
TITLE = "Simulated: time of a 4 KiB page, in ns, by the number of pages in its list"


def picture(record: dict[str, dict[str, Any]]) -> str:
    """Return the time of a page by the length of its list, both by powers of two, as SVG."""
    lines: list[tuple[str, str, Sequence[float]]] = [
        ("one CPU, 7.4 GB/s", "#6b7280", [cpu_ns(PAGE)] * len(PAGES)),
        *(
            (
                f"{channels} channel{'s' if channels > 1 else ''}",
                colour,
                [record[f"base-{channels}-{n}"]["list_ns"] / n for n in PAGES],
            )
            for channels, colour in ((1, "#b45309"), (8, "#1d4ed8"))
        ),
    ]
    lowest = math.floor(math.log2(min(min(values) for *_, values in lines)))
    highest = math.ceil(math.log2(max(max(values) for *_, values in lines)))

    def x(number: int) -> float:
        return round(LEFT + number * (WIDTH - LEFT - 170) / (len(PAGES) - 1), 1)

    def y(value: float) -> float:
        part = (math.log2(value) - lowest) / (highest - lowest)
        return round(TOP + (1 - part) * (HEIGHT - TOP - 60), 1)

    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        "<!-- SPDX-License-Identifier: Apache-2.0 -->",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="24" font-weight="bold">{TITLE}</text>',
    ]
    for power in range(lowest, highest + 1):
        at = y(2.0**power)
        out.append(f'<path d="M{LEFT} {at}H{WIDTH - 170}" stroke="#e5e7eb"/>')
        out.append(f'<text x="{LEFT - 8}" y="{at + 4}" text-anchor="end">{1 << power:,}</text>')
    for number, pages in enumerate(PAGES):
        out.append(f'<text x="{x(number)}" y="{HEIGHT - 35}" text-anchor="middle">{pages:,}</text>')
    for number, (name, colour, values) in enumerate(lines):
        points = " ".join(f"{x(n)},{y(value)}" for n, value in enumerate(values))
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out.append(f'<text x="{WIDTH - 160}" y="{TOP + 20 * number}" fill="{colour}">{name}</text>')
    return "\n".join([*out, "</svg>", ""])


def main() -> int:
    """Measure, and print the tables; with ``--from-record`` nothing is measured."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.kernel.simulated", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--kernel", type=Path, help="a folder that kernel-src/scripts/build made")
    parser.add_argument("--from-record", action="store_true", help="read simulated.json")
    parser.add_argument(
        "--cells",
        type=re.compile,
        help="measure those only whose whole name this matches, as base-8-.*; nothing is written",
    )
    given = parser.parse_args()
    asked = given.cells.fullmatch if given.cells else bool
    record: dict[str, Any] = {}
    if given.from_record:
        record = json.loads(RECORD.read_text())
    else:
        ours = kernel(folder=given.kernel)
        ways: tuple[Way, ...] = ("off", "passthrough", "translated", "identity")
        guests: list[tuple[Way, int, Iterator[Cell]]] = [("off", 2, latencies())]
        guests += [(way, 2, instructions(way)) for way in ways]
        guests.append(("off", 1, bounded()))
        for iommu, sockets, all_cells in guests:
            cells = [cell for cell in all_cells if asked(cell.key)]
            for key, found in measured(ours, iommu, cells, sockets):
                print(f"simulated: {key}: {found}", file=sys.stderr)
                record[key] = found
        if given.cells:
            return 0
        record["calibrated"] = calibrated(ours)
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
    PICTURE.write_text(picture(record))
    print(tables(record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
