# SPDX-License-Identifier: Apache-2.0
"""From what a profile says of tiers to the tiers of a host. Pure."""

from __future__ import annotations

from typing import Literal

from dsatier.facts.classification import of_kind, pairs
from dsatier.facts.model import Facts, MemoryDevice
from dsatier.facts.onlining import all_brought
from dsatier.facts.readings import node
from dsatier.facts.tiers import USUAL, Tiers
from dsatier.plan.model import NodeMemory
from dsatier.profile.model import NodeTiers, Profile
from dsatier.profile.model import Tiers as Section


def tiers_of(profile: Profile | None, facts: Facts) -> Tiers:
    """Return the tiers that a profile names on a host.

    ``fast_node`` and ``slow_node`` are short for one pair. Where a profile names no node, the
    tiers are as the host's facts tell, and the usual two where those tell of no slow node.
    """
    section = profile.tiers if profile else None
    facts = _when_online(section, facts)
    if section is not None and section.nodes is not None:
        return _listed(NodeTiers() if section.nodes == "auto" else section.nodes, facts)
    if section is None or (section.fast_node is None and section.slow_node is None):
        found = _listed(NodeTiers(), facts)
        return found if found.slow else USUAL
    return Tiers(
        USUAL.fast if section.fast_node is None else (section.fast_node,),
        USUAL.slow if section.slow_node is None else (section.slow_node,),
    )


def memory_of(profile: Profile, facts: Facts) -> tuple[NodeMemory, ...]:
    """Return the nodes whose memory a profile wants online."""
    online = profile.tiers.online if profile.tiers else None
    if online is None:
        return ()
    nodes = _named(online.nodes) or tiers_of(profile, facts).slow
    return tuple(NodeMemory(number, online.zone) for number in nodes)


def untold(device: MemoryDevice, facts: Facts) -> bool:
    """Tell whether nothing says what memory a device brings before it is there.

    Firmware sets aside fast memory and slow alike, and the kernel tells its speed once the node
    has memory.
    """
    here = node(facts, device.target_node)
    return device.kind in ("hmem", "other") and (here is None or here.mem_total == 0)


def _when_online(section: Section | None, facts: Facts) -> Facts:
    """Return the facts with the memory online that a profile wants, to tell the tiers by."""
    if section is None or section.online is None:
        return facts
    if named := _named(section.online.nodes):
        return all_brought(facts, named)
    told = (one.target_node for one in facts.memory_devices if not untold(one, facts))
    return all_brought(facts, tuple(told))


def _listed(nodes: NodeTiers, facts: Facts) -> Tiers:
    """Return the tiers of lists, with what is left to the facts as these tell."""
    named_fast, named_slow = _named(nodes.fast), _named(nodes.slow)
    told = {*named_fast, *named_slow, *(nodes.hbm or ())}
    fast = named_fast or _others(of_kind(facts, "fast"), told) or USUAL.fast
    slow = named_slow or _others(of_kind(facts, "slow"), told)
    left = () if named_slow else of_kind(facts, "unknown")
    return Tiers(
        fast=fast,
        slow=slow,
        near=nodes.near or tuple(pair.near for pair in pairs(facts, fast, slow)),
        hbm=nodes.hbm if nodes.hbm is not None else _others(of_kind(facts, "hbm"), told),
        unknown=_others(left, told),
    )


def _named(nodes: Literal["auto"] | tuple[int, ...] | None) -> tuple[int, ...]:
    return () if nodes is None or nodes == "auto" else nodes


def _others(numbers: tuple[int, ...], than: set[int]) -> tuple[int, ...]:
    return tuple(number for number in numbers if number not in than)
