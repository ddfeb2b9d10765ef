# SPDX-License-Identifier: Apache-2.0
"""Memory that a driver brings in, and how fast a node's memory is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from dsatier.base.text import natural
from dsatier.facts.model import Blocks, MemoryDevice, NumaNode, Speed
from dsatier.facts.observe import parse
from dsatier.facts.observe.read import optional, readable
from dsatier.facts.observe.topology import NODES
from dsatier.host.port import Host

DEVICES = "/sys/bus/dax/devices"
BLOCKS = "/sys/devices/system/memory"

Ranges = tuple[tuple[int, int], ...]
"""Physical addresses, of each range the first byte and the last."""
_Key = tuple[tuple[int, ...], int | None]
"""What a device's blocks are read anew by: their numbers, and the bytes of its node."""


class MemoryEyes:
    """Looks at the DAX devices of one host again and again.

    A device may have thousands of blocks. How they are is read anew only where there are others
    than before, or its node has another amount of memory: what comes online or goes changes that.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._known: dict[str, tuple[_Key, Blocks | None]] = {}

    def devices(self, nodes: Iterable[NumaNode]) -> tuple[MemoryDevice, ...]:
        """Return the DAX devices. ``nodes`` are those of the same look, read before."""
        totals = {node.id: node.mem_total for node in nodes}
        names = [name for name in self._host.entries(DEVICES) if name.startswith("dax")]
        there = _there(self._host) if names else frozenset()
        return tuple(self._device(name, totals, there) for name in sorted(names, key=natural))

    def _device(self, name: str, totals: dict[int, int], there: frozenset[int]) -> MemoryDevice:
        folder = f"{DEVICES}/{name}"
        driver = (self._host.link(f"{folder}/driver") or "").rpartition("/")[2]
        target = _number(self._host, f"{folder}/target_node")
        return MemoryDevice(
            id=name,
            kind=kind(self._host.link(folder) or ""),
            driver=driver,
            target_node=target,
            numa_node=_number(self._host, f"{folder}/numa_node"),
            blocks=self._blocks(name, totals.get(target), there) if driver == "kmem" else None,
        )

    def _blocks(self, name: str, total: int | None, there: frozenset[int]) -> Blocks | None:
        """Return a device's blocks; ``total`` is what its node has of memory."""
        path = f"{BLOCKS}/block_size_bytes"
        text = optional(self._host, path)
        if text is None:
            return None
        size = parse.whole(text.strip(), path, base=16)
        ranges = _ranges(self._host, f"{DEVICES}/{name}")
        own = tuple(sorted(number for number in there if _within(number, size, ranges)))
        known = self._known.get(name)
        if known is None or known[0] != (own, total):
            self._known[name] = known = (own, total), _blocks(self._host, size, own)
        return known[1]


def _there(host: Host) -> frozenset[int]:
    """Return the numbers of all memory blocks of the host."""
    names = (name.removeprefix("memory") for name in host.entries(BLOCKS))
    return frozenset(int(name) for name in names if name.isdecimal())


def _ranges(host: Host, folder: str) -> Ranges:
    """Return where a device's memory is, () where this process may not read that."""
    found = []
    for name in host.entries(folder):
        if name.removeprefix("mapping").isdecimal():
            path = f"{folder}/{name}"
            first, last = (readable(host, f"{path}/{end}") for end in ("start", "end"))
            if first is not None and last is not None:
                found.append((_address(first, path), _address(last, path)))
    return tuple(found)


def _address(text: str, path: str) -> int:
    return parse.whole(text.strip(), path, base=0)


def _blocks(host: Host, size: int, numbers: tuple[int, ...]) -> Blocks | None:
    """Return how some blocks are, None where there are none."""
    found: dict[str, list[int]] = {"offline": [], "movable": [], "others": []}
    for number in numbers:
        if how := _state(host, number):
            found[how].append(number)
    blocks = Blocks(size, **{how: tuple(numbers) for how, numbers in found.items()})
    return blocks if blocks.all else None


def _within(number: int, size: int, ranges: Ranges) -> bool:
    """Tell whether a block lies whole within one of ``ranges``.

    >>> [n for n in range(6) if _within(n, 0x1000, ((0x1800, 0x3FFF),))]
    [2, 3]
    """
    first, end = number * size, (number + 1) * size
    return any(begin <= first and end <= last + 1 for begin, last in ranges)


def _state(host: Host, number: int) -> str:
    """Return how a block is, empty where it is not there."""
    folder = f"{BLOCKS}/memory{number}"
    state = optional(host, f"{folder}/state")
    if state is None:
        return ""
    if state.strip() != "online":  # one that is going is still to be brought back
        return "offline"
    zone = optional(host, f"{folder}/valid_zones") or ""
    return "movable" if zone.split()[:1] == ["Movable"] else "others"


def kind(place: str) -> Literal["cxl", "pmem", "hmem", "other"]:
    """Return what a device hangs on, by where sysfs has it.

    >>> kind("../../../devices/platform/ACPI0017:00/root0/decoder0.0/region0/dax_region0/dax0.0")
    'cxl'
    """
    parts = place.split("/")
    if any(part.startswith("hmem") for part in parts):
        return "hmem"
    if any(part.startswith("ndbus") for part in parts):
        return "pmem"
    if any(part.startswith(("decoder", "cxl")) for part in parts):
        return "cxl"
    return "other"


def _number(host: Host, path: str) -> int:
    text = optional(host, path)
    return -1 if text is None else parse.whole(text.strip(), path)


def speed(host: Host, node: int) -> Speed | None:
    """Return how fast a node's memory is for the nearest CPUs, None where nothing tells.

    ``access0`` stands for the nearest initiator of any kind, a GPU too.
    """
    folder = f"{NODES}/node{node}/access1/initiators"
    if optional(host, f"{folder}/read_bandwidth") is None:
        return None
    sums = {
        what: sum(max(0, _number(host, f"{folder}/{way}_{what}")) for way in ("read", "write"))
        for what in ("latency", "bandwidth")
    }
    return Speed(**sums)
