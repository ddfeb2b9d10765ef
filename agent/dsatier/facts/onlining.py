# SPDX-License-Identifier: Apache-2.0
"""Memory that devices bring: what of it has yet to come online, and the host when it has. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Literal

from dsatier.facts.model import Blocks, Facts, MemoryDevice, NumaNode
from dsatier.facts.readings import node

Zone = Literal["movable", "kernel"]


def bringing(facts: Facts, number: int) -> tuple[MemoryDevice, ...]:
    """Return the devices that become a node, with any driver or none."""
    return tuple(device for device in facts.memory_devices if device.target_node == number)


def memory_device(facts: Facts, name: str) -> MemoryDevice | None:
    """Return the DAX device of that name, None where the host has none."""
    return next((device for device in facts.memory_devices if device.id == name), None)


def astray(blocks: Blocks, zone: Zone) -> tuple[int, ...]:
    """Return the blocks that are online in another zone than ``zone``."""
    return blocks.others if zone == "movable" else blocks.movable


def brought(facts: Facts, name: str, numbers: Collection[int], zone: Zone) -> Facts:
    """Return the facts with blocks of a device online; those that are online stay as they are."""
    device = memory_device(facts, name)
    if device is None or device.blocks is None:
        return facts
    now = device.blocks
    coming = tuple(number for number in now.offline if number in numbers)
    left = tuple(number for number in now.offline if number not in numbers)
    movable, others = (coming, ()) if zone == "movable" else ((), coming)
    then = replace(
        now,
        offline=left,
        movable=tuple(sorted((*now.movable, *movable))),
        others=tuple(sorted((*now.others, *others))),
    )
    return replace(
        facts,
        nodes=_grown(facts, device.target_node, len(coming) * now.size),
        memory_devices=tuple(
            replace(one, blocks=then) if one is device else one for one in facts.memory_devices
        ),
    )


def all_brought(facts: Facts, nodes: Collection[int] | None = None) -> Facts:
    """Return the facts with all memory online that devices bring to ``nodes``, None: to any."""
    for device in facts.memory_devices:
        if device.blocks and (nodes is None or device.target_node in nodes):
            facts = brought(facts, device.id, device.blocks.offline, "movable")
    return facts


def _grown(facts: Facts, number: int, size: int) -> tuple[NumaNode, ...]:
    """Return the nodes with one that has so many bytes more, all of them free."""
    if node(facts, number) is None:
        return (*facts.nodes, NumaNode(number, (), (), size, size)) if size else facts.nodes
    return tuple(
        replace(one, mem_total=one.mem_total + size, mem_free=one.mem_free + size)
        if one.id == number
        else one
        for one in facts.nodes
    )
