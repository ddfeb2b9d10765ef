# SPDX-License-Identifier: Apache-2.0
"""The tiers of memory: one value, from the profile to guards and evidence. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Len

from dsatier.base.fields import STRICT, OneOrMore
from dsatier.base.text import ranges
from dsatier.facts.model import Facts, NumaNode
from dsatier.facts.readings import node

Numbers = Annotated[tuple[int, ...], OneOrMore()]
Some = Annotated[tuple[int, ...], Len(1), OneOrMore()]


@dataclass(frozen=True, slots=True)
class Tiers:
    """Which nodes are the fast tier of a host, and which the slow one."""

    __pydantic_config__ = STRICT

    fast: Some = (0,)
    slow: Numbers = (1,)
    near: Numbers = ()
    """The fast node that each slow node is near, in the order of ``slow``; empty: nobody says."""
    hbm: Numbers = ()
    """Nodes that are faster than the fast ones: nothing is demoted to or promoted from them."""
    unknown: Numbers = ()
    """Nodes that a profile leaves to dsatier to tell, and nothing tells."""

    def __str__(self) -> str:
        """Return the nodes of each tier.

        >>> str(Tiers((0, 1), (2,))), str(Tiers((0,), (1,), hbm=(2, 3)))
        ('fast nodes 0-1, slow node 2', 'fast node 0, slow node 1, hbm nodes 2-3')
        """
        tiers = {"fast": self.fast, "slow": self.slow, "hbm": self.hbm}
        return ", ".join(f"{name} {words(numbers)}" for name, numbers in tiers.items() if numbers)

    def fast_of(self, facts: Facts) -> tuple[NumaNode, ...]:
        """Return the fast nodes as they are now; one that the host lacks is not among them."""
        return _found(facts, self.fast)

    def slow_of(self, facts: Facts) -> tuple[NumaNode, ...]:
        """Return the slow nodes as they are now; one that the host lacks is not among them."""
        return _found(facts, self.slow)

    @property
    def home(self) -> int:
        """The node of a CPU that is offline: the kernel does not tell, so the first slow one."""
        return self.slow[0] if self.slow else -1


def pair(fast: int, slow: int) -> Tiers:
    """Return the tiers of a host with one fast node and one slow one."""
    return Tiers((fast,), (slow,))


USUAL = Tiers()
"""Node 0 is fast and node 1 slow, where a profile names neither."""


def _found(facts: Facts, numbers: Iterable[int]) -> tuple[NumaNode, ...]:
    nodes = (node(facts, number) for number in numbers)
    return tuple(one for one in nodes if one is not None)


def cpus(nodes: Iterable[NumaNode]) -> tuple[int, ...]:
    """Return the CPUs of some nodes that are online."""
    return tuple(cpu for one in nodes for cpu in one.cpus)


def words(numbers: tuple[int, ...]) -> str:
    """Return nodes in words.

    >>> words((1,)), words((2, 3)), words(())
    ('node 1', 'nodes 2-3', 'no node')
    """
    if not numbers:
        return "no node"
    return f"node {numbers[0]}" if len(numbers) == 1 else f"nodes {ranges(numbers)}"


def target(facts: Facts, tiers: Tiers) -> int | None:
    """Return the node that the fast ones demote to, -1 for none, None where none is shown.

    Only TPP shows one, and it has one fast node.
    """
    shown = (fast.demotion_target for fast in tiers.fast_of(facts))
    return next((found for found in shown if found is not None), None)


def untargeted(facts: Facts, tiers: Tiers) -> bool:
    """Tell whether the kernel says that the fast node demotes nowhere."""
    return target(facts, tiers) == -1


def stirrable(facts: Facts, tiers: Tiers) -> int | None:
    """Return the CPU of a fast node that can best go and come back, None where none can."""
    for fast in tiers.fast_of(facts):
        free = (c for c in reversed(fast.cpus) if c and c not in facts.pinned_cpus)
        if len(fast.cpus) > 1 and (cpu := next(free, None)) is not None:
            return cpu
    return None


def watermark(facts: Facts, tiers: Tiers) -> int | None:
    """Return the pages of the fast nodes' lowest demotion watermark, None where none is shown."""
    shown = [fast.demotion_watermark for fast in tiers.fast_of(facts)]
    return min((pages for pages in shown if pages is not None), default=None)
