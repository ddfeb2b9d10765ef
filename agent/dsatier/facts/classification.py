# SPDX-License-Identifier: Apache-2.0
"""What kind of memory each node of a host has, and which fast node a slow one is near. Pure.

The distances of ACPI's SLIT order the nodes of one kind, and are never a reason to take a node
for slow: firmware writes 255 there, or the same number everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from dsatier.facts.model import Facts, MemoryDevice, NumaNode

Kind = Literal["fast", "slow", "hbm", "empty", "unknown"]

HBM_BANDWIDTH = 1.5
SLOW_BANDWIDTH = 0.7
SLOW_LATENCY = 1.3
"""What tells other memory from DRAM, as a share of the DRAM's own number."""
FAR = 254
"""A distance from which on firmware only says that there is none."""


@dataclass(frozen=True, slots=True)
class Sort:
    """What a node was found to be."""

    node: int
    kind: Kind
    """empty: it has no memory. unknown: nothing tells, so a profile must."""
    why: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A slow node with the fast node that it is near."""

    slow: int
    near: int
    why: str
    guess: bool = False
    """Neither distances nor devices distinguish the two from others."""


@dataclass(frozen=True, slots=True)
class _Dram:
    """The DRAM of a host, which all other memory is compared with; 0: nobody says."""

    bandwidth: int
    latency: int
    tier: int | None


def sorts(facts: Facts) -> tuple[Sort, ...]:
    """Return what each node is."""
    dram = _dram(facts)
    devices = {d.target_node: d for d in facts.memory_devices if d.driver == "kmem"}
    return tuple(_sort(node, dram, devices.get(node.id)) for node in facts.nodes)


def of_kind(facts: Facts, *kinds: Kind) -> tuple[int, ...]:
    """Return the nodes of some kinds."""
    return tuple(sort.node for sort in sorts(facts) if sort.kind in kinds)


def _dram(facts: Facts) -> _Dram:
    """Return the DRAM's numbers: those of the slowest memory of a node with CPUs."""
    beside = [node for node in facts.nodes if node.cpus and node.mem_total]
    numbers = [node.speed for node in beside if node.speed]
    return _Dram(
        bandwidth=min((speed.bandwidth for speed in numbers if speed.bandwidth), default=0),
        latency=max((speed.latency for speed in numbers), default=0),
        tier=max((node.tier for node in beside if node.tier is not None), default=None),
    )


def _sort(node: NumaNode, dram: _Dram, device: MemoryDevice | None) -> Sort:
    for rule in _RULES:
        if (found := rule(node, dram, device)) is not None:
            return Sort(node.id, *found)
    return Sort(node.id, "unknown", "no CPUs, and neither kernel, device nor firmware tells")


Found = tuple[Kind, str] | None
Rule = Callable[[NumaNode, _Dram, MemoryDevice | None], Found]


def _no_memory(node: NumaNode, dram: _Dram, device: MemoryDevice | None) -> Found:
    return None if node.mem_total else ("empty", "no memory")


def _much_faster(node: NumaNode, dram: _Dram, device: MemoryDevice | None) -> Found:
    share = _bandwidth(node, dram)
    return ("hbm", f"{share:.1f} x the bandwidth of DRAM") if share >= HBM_BANDWIDTH else None


def _with_cpus(node: NumaNode, dram: _Dram, device: MemoryDevice | None) -> Found:
    return ("fast", "CPUs") if node.cpus else None


def _other_tier(node: NumaNode, dram: _Dram, device: MemoryDevice | None) -> Found:
    if node.tier is None or dram.tier is None or node.tier == dram.tier:
        return None
    lower = node.tier > dram.tier
    return "slow" if lower else "hbm", f"memory tier {node.tier}, and {dram.tier} for DRAM"


def _of_device(node: NumaNode, dram: _Dram, device: MemoryDevice | None) -> Found:
    return ("slow", f"{device.id}, {device.kind}") if device else None


def _much_slower(node: NumaNode, dram: _Dram, device: MemoryDevice | None) -> Found:
    share = _bandwidth(node, dram)
    if 0 < share < SLOW_BANDWIDTH:
        return "slow", f"{share:.1f} x the bandwidth of DRAM"
    latency = node.speed.latency / dram.latency if node.speed and dram.latency else 0.0
    return ("slow", f"{latency:.1f} x the latency of DRAM") if latency > SLOW_LATENCY else None


def _bandwidth(node: NumaNode, dram: _Dram) -> float:
    """Return a node's bandwidth as a share of the DRAM's, 0 where it is not known."""
    return node.speed.bandwidth / dram.bandwidth if node.speed and dram.bandwidth else 0.0


_RULES: tuple[Rule, ...] = (
    _no_memory,
    _much_faster,
    _with_cpus,
    _other_tier,
    _of_device,
    _much_slower,
)
"""In this order: the first that knows decides."""


def pairs(facts: Facts, fast: tuple[int, ...], slow: tuple[int, ...]) -> tuple[Pair, ...]:
    """Return the fast node that each slow node is near."""
    return tuple(_pair(facts, fast, number, place / len(slow)) for place, number in enumerate(slow))


def _pair(facts: Facts, fast: tuple[int, ...], slow: int, share: float) -> Pair:
    """Return the pair of a slow node that comes after that ``share`` of the slow ones."""
    far = {number: _distance(facts, number, slow) for number in fast}
    least = min(far.values())
    nearest = tuple(number for number in fast if far[number] == least)
    if len(nearest) == 1 and len(fast) > 1 and least < FAR:
        return Pair(slow, nearest[0], f"distance {least}")
    if len(fast) == 1:
        return Pair(slow, fast[0], "the only fast node")
    for device in facts.memory_devices:
        if device.target_node == slow and device.numa_node in nearest:
            return Pair(slow, device.numa_node, f"{device.id} hangs on it")
    guess = nearest[int(share * len(nearest))]
    return Pair(slow, guess, "the same place in the order of nodes", guess=True)


def _distance(facts: Facts, fast: int, slow: int) -> int:
    """Return the distance as the fast node has it; rows of nodes without CPUs are often bare."""
    numbers = [node.id for node in facts.nodes]
    row = next((node.distances for node in facts.nodes if node.id == fast), ())
    if slow not in numbers or len(row) != len(numbers):
        return FAR
    return min(row[numbers.index(slow)], FAR)
