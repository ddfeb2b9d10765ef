# SPDX-License-Identifier: Apache-2.0
"""A device and the model side by side: each example must leave the same record and memory."""

from __future__ import annotations

from tests.emulator import examples
from tests.emulator.descriptors import Record, Status
from tests.emulator.dsa import ARENA, Dsa, Queue
from tests.emulator.examples import Arena, Example

PAGE = 4096
KIB = 1024

#: Enough for a transfer of several of the pieces that a device works in.
SIZE = 256 * KIB


class Trial:
    """Runs examples on queue 0 of a device, which it starts.

    ``arena`` is the memory as descriptors name it; ``places`` says where each of its pages is in
    guest memory, by default where it is named. Pages that are in ``arena.holes`` have no place.
    """

    def __init__(
        self, dsa: Dsa, queue: Queue, arena: Arena, places: dict[int, int] | None = None
    ) -> None:
        self.dsa, self.arena = dsa, arena
        self.limits = dsa.limits(queue)
        self.noise = arena.noise()
        self._places = places
        self._now = bytearray(len(self.noise))
        self._restore(first=True)

    def _place(self, number: int) -> int | None:
        """Return where a page of the arena is in guest memory."""
        if self._places is None:
            return number * PAGE
        return self._places.get(number)

    def _restore(self, first: bool = False) -> None:
        """Bring the arena back to what it was at first."""
        for at in range(0, self.arena.size, PAGE):
            page = self.noise[at : at + PAGE]
            place = self._place((self.arena.base + at) // PAGE)
            if place is not None and (first or self._now[at : at + PAGE] != page):
                self.dsa.machine.write(place, page)
            self._now[at : at + PAGE] = page

    def write(self, address: int, data: bytes) -> None:
        """Write to the arena, as descriptors name it; what falls into a hole is lost."""
        at = address - self.arena.base
        self._now[at : at + len(data)] = data
        while data:
            part = min(len(data), PAGE - address % PAGE)
            place = self._place(address // PAGE)
            if place is not None:
                self.dsa.machine.write(place + address % PAGE, data[:part])
            address, data = address + part, data[part:]

    def read(self) -> bytes:
        """Return the arena as it is now; holes read as noise, which nothing can change."""
        if self._places is None:
            self._now[:] = self.dsa.machine.read(self.arena.base, self.arena.size)
        else:
            for at in range(0, self.arena.size, PAGE):
                place = self._place((self.arena.base + at) // PAGE)
                if place is not None:
                    self._now[at : at + PAGE] = self.dsa.machine.read(place, PAGE)
        return bytes(self._now)

    def run(self, example: Example) -> Record:
        """Execute an example and compare; returns the record."""
        self._restore()
        for address, data in example.before:
            self.write(address, data)
        slot = self.dsa.slot()
        descriptor = example.descriptor.but(completion=slot)
        self.dsa.submit(descriptor)
        record = self.dsa.wait(slot)
        wanted, memory = examples.expected(example, self.arena, self.limits, self.noise)
        assert wanted == record, f"expected {wanted}, found {record}"
        found = bytearray(self.read())
        for address, length in memory.loose:
            at = address - self.arena.base
            found[at : at + length] = memory.data[at : at + length]
        for number in self.arena.holes:
            at = number * PAGE - self.arena.base
            found[at : at + PAGE] = memory.data[at : at + PAGE]
        assert memory.data == found, self._first_difference(memory.data, found)
        return record

    def _first_difference(self, wanted: bytearray, found: bytearray) -> str:
        at = next(i for i, (a, b) in enumerate(zip(wanted, found, strict=True)) if a != b)
        return (
            f"memory differs at {self.arena.base + at:#x}: expected {wanted[at : at + 16].hex()}, "
            f"found {found[at : at + 16].hex()}"
        )


def physical(dsa: Dsa, queue: Queue) -> Trial:
    """Start a device whose addresses are those of guest memory, and return a trial on it."""
    dsa.start([queue])
    return Trial(dsa, queue, Arena(ARENA, SIZE))


__all__ = ["PAGE", "SIZE", "Status", "Trial", "physical"]
