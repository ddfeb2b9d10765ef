# SPDX-License-Identifier: Apache-2.0
"""How fast the emulated DSA is on this host, without a guest's CPU in the way.

    python -m tests.emulator.speed QEMU     prints the table of docs/device.md

What it measures is the emulator, in real time: how long tests have to wait. Nothing of it says
how fast hardware is; that is what ``timing`` is for.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

from tests.emulator.conftest import placed
from tests.emulator.descriptors import NO_FLAGS, Descriptor, batch, move
from tests.emulator.dsa import ARENA, LISTS, SLOT, Dsa, Queue

#: Descriptors of a list; each queue is given as many lists as it holds.
MEMBERS, DEPTH = 1024, 16
SIZES = (0, 4 << 10, 2 << 20)
DEVICES = (1, 4, 8)
SECONDS = 2.0


def speed(binary: str, devices: int, size: int) -> tuple[float, float]:
    """Return descriptors and bytes a second of moves of a size; 0 stands for a no-op."""
    with placed(binary, *[""] * devices) as machine:
        dsas = [Dsa.at(machine, SLOT + n, f"dsa{n}") for n in range(devices)]
        count = min(MEMBERS, (256 << 20) // max(size, 1))
        one = move(ARENA, ARENA + (8 << 20), size, NO_FLAGS) if size else Descriptor(0)
        machine.write(LISTS, one.encode() * count)
        for dsa in dsas:
            dsa.start([Queue(size=DEPTH)])
        begun, done = time.monotonic(), 0
        while time.monotonic() - begun < SECONDS:
            slots = [(dsa, dsa.post(batch(LISTS, count))) for dsa in dsas for _ in range(DEPTH)]
            for dsa, slot in slots:
                assert dsa.wait(slot, 300).status == 1
            done += count * len(slots)
        took = time.monotonic() - begun
    return done / took, done * size / took


def table(binary: str) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| devices | no-op | move of 4 KiB | move of 2 MiB |"
    yield "| --- | --- | --- | --- |"
    for devices in DEVICES:
        cells = []
        for size in SIZES:
            descriptors, rate = speed(binary, devices, size)
            cells.append(f"{descriptors:,.0f}/s" + (f", {rate / 1e9:.1f} GB/s" if size else ""))
        yield f"| {devices} | {' | '.join(cells)} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m tests.emulator.speed", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("qemu", help="what emulator/build prints")
    for line in table(parser.parse_args().qemu):
        print(line, flush=True)
