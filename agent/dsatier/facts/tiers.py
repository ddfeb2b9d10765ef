# SPDX-License-Identifier: Apache-2.0
"""The two tiers of memory: one value, from the profile to guards and evidence. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from dsatier.base.fields import STRICT
from dsatier.facts.model import Facts, NumaNode
from dsatier.facts.readings import node


@dataclass(frozen=True, slots=True)
class Tiers:
    """Which node is the fast tier of a host, and which the slow one."""

    __pydantic_config__ = STRICT

    fast: int = 0
    slow: int = 1

    def fast_of(self, facts: Facts) -> NumaNode | None:
        """Return the fast node as it is now, None where the host has none."""
        return node(facts, self.fast)

    def slow_of(self, facts: Facts) -> NumaNode | None:
        """Return the slow node as it is now, None where the host has none."""
        return node(facts, self.slow)


USUAL = Tiers()
"""Node 0 is fast and node 1 slow, where a profile names neither."""


def target(facts: Facts, tiers: Tiers) -> int | None:
    """Return the node that the fast node demotes to, -1 for none, None where none is shown."""
    fast = tiers.fast_of(facts)
    return None if fast is None else fast.demotion_target


def untargeted(facts: Facts, tiers: Tiers) -> bool:
    """Tell whether the kernel says that the fast node demotes nowhere."""
    return target(facts, tiers) == -1


def stirrable(facts: Facts, tiers: Tiers) -> int | None:
    """Return the CPU of the fast node that can best go and come back, None where none can."""
    fast = tiers.fast_of(facts)
    if fast is None or len(fast.cpus) < 2:
        return None
    return next((c for c in reversed(fast.cpus) if c and c not in facts.pinned_cpus), None)


def watermark(facts: Facts, tiers: Tiers) -> int | None:
    """Return the pages of the fast node's demotion watermark, None where none is shown."""
    fast = tiers.fast_of(facts)
    return None if fast is None else fast.demotion_watermark
