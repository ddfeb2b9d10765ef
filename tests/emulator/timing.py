# SPDX-License-Identifier: Apache-2.0
"""How long the emulated DSA takes, beside the published figures that its defaults are fitted to.

    python -m tests.emulator.timing QEMU     prints the table of docs/device.md

Nothing runs in the machine: work is submitted by qtest, the virtual clock is moved to the next
completion, and what it reads then is the time that the work took.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from tests.emulator.dsa import Dsa, Queue
from tests.emulator.qtest import Machine

#: Bytes a second that one CPU copies: 106 GB/s are published as 14.4 times it.
CPU = 106e9 / 14.4
#: What software adds to a synchronous copy, in seconds: building, submitting, seeing the end.
SOFTWARE = 0.8e-6
SOURCE, TARGET, LISTS, RECORDS = 0x0100_0000, 0x0200_0000, 0x0080_0000, 0x0090_0000
SLOTS = range(4, 12)
MOVE, BATCH = 3, 1
PORTAL = 0x1000


class Row(NamedTuple):
    """One line of the table."""

    what: str
    seconds: float
    size: int
    published: str

    @property
    def worth(self) -> float:
        """How many CPUs would take the time that software sees."""
        return self.size / CPU / (self.seconds + SOFTWARE)

    def __str__(self) -> str:
        """Return the line: time, bandwidth, how many CPUs that is worth."""
        speed = self.size / self.seconds
        return (
            f"| {self.what} | {self.seconds * 1e6:.1f} µs | {speed / 1e9:.1f} GB/s "
            f"| {self.worth:.1f} | {self.published} |"
        )


def descriptor(opcode: int, record: int, source: int, target: int, size: int) -> bytes:
    """Return the 64 bytes of a descriptor with a record."""
    words = (0, 0x0C | opcode << 24)
    head = b"".join(word.to_bytes(4, "little") for word in words)
    tail = b"".join(word.to_bytes(8, "little") for word in (record, source, target, size))
    return (head + tail).ljust(64, b"\0")


def machine(binary: str, devices: int, words: Sequence[str] = ()) -> Machine:
    """Return a machine with devices that take time, four to a socket."""
    all_words = [*words, "-m", "256M"]
    for number, slot in zip(range(devices), SLOTS, strict=False):
        text = f"intel-dsa,id=dsa{number},addr={slot:#x},timing=on,timing-socket={number // 4}"
        all_words += ["-device", text]
    return Machine(binary, *all_words)


def elapsed(
    there: Machine, work: Sequence[tuple[Dsa, bytes]], ends: Sequence[tuple[int, int]]
) -> float:
    """Submit all, and return the seconds of virtual time until the last is complete.

    ``ends`` are, for each, its record and an address that is not 0 once it has been executed.
    Work is dealt out evenly.
    """
    engines = sum({device.path: device.capabilities.engines for device, _ in work}.values())
    start = there.step(1)
    for device, raw in work:
        there.write(device.portals + PORTAL, raw)
    now = start
    waiting = list(ends)
    while waiting:
        # executed in real time first, or the clock would run ahead of the device
        there.until("engines", partial(_executed, there, waiting, min(engines, len(waiting))))
        there.qmp("stop")  # waits until engines have told when they will be done
        there.qmp("cont")
        now = there.step()
        waiting = [end for end in waiting if not there.read8(end[0])]
    return (now - start) / 1e9


def _executed(there: Machine, waiting: Sequence[tuple[int, int]], count: int) -> bool:
    return count <= sum(there.read8(mark) != 0 for _, mark in waiting)


def rows(binary: str, words: Sequence[str] = ()) -> Iterator[Row]:
    """Measure, and yield the lines of the table."""
    for size, published in (
        (4 << 10, "CPU is better"),
        (16 << 10, "break-even at 16 to 32 KiB"),
        (32 << 10, "break-even at 16 to 32 KiB"),
        (64 << 10, "device is better"),
        (2 << 20, ""),
    ):
        yield Row(f"one move of {size >> 10} KiB", moves(binary, words, 1, [size]), size, published)
    share = (2 << 20) // 8
    yield Row(
        "2 MiB, 8 channels", moves(binary, words, 8, [share] * 8), 2 << 20, "3 to 14 times a CPU"
    )
    yield Row(
        "128 pages of 4 KiB, 1 batch",
        batches(binary, words, 1, 128),
        128 << 12,
        "1.5 to 4 times a CPU",
    )
    big = 2 << 20
    yield Row(
        "16 moves of 2 MiB, 1 device",
        moves(binary, words, 1, [big] * 16),
        16 * big,
        "32 GB/s a device",
    )
    yield Row(
        "16 moves of 2 MiB, 4 devices of a socket",
        moves(binary, words, 4, [big] * 16),
        16 * big,
        "110 GB/s a socket",
    )


def moves(binary: str, words: Sequence[str], devices: int, sizes: Sequence[int]) -> float:
    """Return how long moves of these sizes take, dealt out to devices."""
    with machine(binary, devices, words) as there:
        dsas = _started(there, devices)
        there.clear(SOURCE, max(sizes), 1)
        there.clear(TARGET, sum(sizes))
        there.clear(RECORDS, 32 * len(sizes))
        work, ends, target = [], [], TARGET
        for number, size in enumerate(sizes):
            record = RECORDS + 32 * number
            work.append((dsas[number % devices], descriptor(MOVE, record, SOURCE, target, size)))
            ends.append((record, target + size - 1))
            target += size
        return elapsed(there, work, ends)


def batches(binary: str, words: Sequence[str], devices: int, pages: int) -> float:
    """Return how long a batch of 4 KiB pages takes on each device."""
    with machine(binary, devices, words) as there:
        dsas = _started(there, devices)
        there.clear(SOURCE, 4096, 1)
        there.clear(TARGET, pages * devices << 12)
        there.clear(RECORDS, 32 * (pages + 1) * devices)
        work, ends = [], []
        for number, device in enumerate(dsas):
            target = TARGET + (number * pages << 12)
            record, at = RECORDS + 32 * (pages + 1) * number, LISTS + (number << 16)
            for page in range(pages):
                own = record + 32 * (page + 1)
                to = target + (page << 12)
                there.write(at + 64 * page, descriptor(MOVE, own, SOURCE, to, 4096))
            work.append((device, descriptor(BATCH, record, at, 0, pages)))
            ends.append((record, target + (pages << 12) - 1))
        return elapsed(there, work, ends)


def _started(there: Machine, devices: int) -> list[Dsa]:
    dsas = [Dsa.at(there, slot, f"dsa{n}") for n, slot in zip(range(devices), SLOTS, strict=False)]
    for device in dsas:
        device.start((Queue(size=128),))
    return dsas


def table(binary: str, words: Sequence[str] = ()) -> str:
    """Return the table; ``words`` are more for QEMU."""
    head = ["| work | time | bandwidth | CPUs | published |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([*head, *map(str, rows(binary, words))])


if __name__ == "__main__":
    print(table(sys.argv[1]))
