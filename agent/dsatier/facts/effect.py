# SPDX-License-Identifier: Apache-2.0
"""The effect of tiering: whether pages move between the tiers, and why not. Pure.

That every knob is as written proves no page moved. Two counts of what the kernel has moved, and
the room that the nodes had at both, tell what happened in between.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from dsatier.base.fields import STRICT
from dsatier.facts.model import Facts
from dsatier.facts.readings import live, on, tiered
from dsatier.facts.tiers import Tiers, untargeted

Verdict = Literal["armed", "working", "not working", "unknown"]
VERDICTS: tuple[Verdict, ...] = ("armed", "working", "not working", "unknown")
Reason = Literal[
    "NoPressure",
    "Moved",
    "NotCounted",
    "NoLowerTier",
    "TargetFull",
    "DemotionOff",
    "SwapsOut",
    "FastFull",
    "RateLimit",
    "ScanningOff",
    "PingPong",
    "NothingMoves",
]
REASONS: dict[Reason, str] = {
    "NoPressure": "all is as written, and no page had to move yet",
    "Moved": "pages have moved between the tiers",
    "NotCounted": "this kernel does not count the pages that move",
    "NoLowerTier": "the kernel has no slow node in a lower tier than the fast ones: "
    "see `dsatier explain tiers.nodes`",
    "TargetFull": "the slow nodes are full: add memory to them, or run less on this host",
    "DemotionOff": "memory tiering is on and demotion is off, so the fast nodes are cleared to "
    "swap or to files: set tiering.demotion_enabled",
    "SwapsOut": "more goes to swap than to the slow nodes, which have room: look at vm.swappiness "
    "and at what binds programs to the fast nodes",
    "FastFull": "hot pages find no room on the fast nodes: set demotion_enabled, or a greater "
    "memory.watermark_scale_factor",
    "RateLimit": "hardly a hot page is promoted for tiering.promote_rate_limit_MBps: raise it",
    "ScanningOff": "pages are demoted, and none is looked for that should come back: look at "
    "/sys/kernel/debug/sched/numa_balancing",
    "PingPong": "as many pages are promoted as are demoted again: lower "
    "tiering.promote_rate_limit_MBps, or raise memory.watermark_scale_factor",
    "NothingMoves": "there is room, and what the kernel looks at does not move: look for cpusets "
    "and policies of memory that bind programs to their nodes",
}
"""Each reason in words, with what to do; docs/operations.md has them from here."""
TROUBLES: tuple[Reason, ...] = tuple(list(REASONS)[3:])
"""Those of tiering that does not work."""

DEMOTED = ("pgdemote_kswapd", "pgdemote_direct", "pgdemote_khugepaged", "pgdemote_proactive")
PROMOTED = ("pgpromote_success",)
SCANNED_FOR = ("pgscan_kswapd", "pgscan_direct")
"""Pages that the kernel looked at to free or to demote them. Being short alone is no reason for
it: programs get memory of a slow node that has room, and nobody wakes who would demote."""
COUNTERS = (
    *DEMOTED,
    *PROMOTED,
    *SCANNED_FOR,
    "pgpromote_candidate",
    "numa_hint_faults",
    "numa_pte_updates",
    "pswpout",
)
"""The names in vmstat. Only some are there on each kernel, and fewer for each node."""

BRIEF = 10.0
"""Seconds in which too little happens to speak of a rate."""
LASTING = 30.0
"""Seconds that a fast node must be short of memory before it is said that nothing moves."""
CALM = 60.0
"""Seconds that what did not work must go well before it is said to work."""
SCANNED = 120.0
"""Seconds in which the kernel must have scanned something: twice its longest period. It scans
programs as they run. Idle ones that were demoted once tell nothing, so it must have gone on."""
HIGH = 1024
"""A rate is high where this part of the fast nodes' memory moves in each second."""
HARDLY = 16
"""Fewer than this part of the hot pages are hardly any."""
_PAGE = 4096
_MIB = 256
"""Pages in a MiB."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What the kernel has counted since it booted, and which nodes have room."""

    __pydantic_config__ = STRICT

    boot_id: str
    at: float
    """Seconds of the monotonic clock of this boot."""
    whole: dict[str, int]
    """Pages or events by name, of all nodes together."""
    nodes: dict[int, dict[str, int]]
    """The same of each node; empty where a kernel counts none for it."""
    short: tuple[int, ...]
    """Nodes with less free memory than that at which the kernel begins to reclaim."""
    full: tuple[int, ...]
    """Nodes with less than that at which it stops: the short ones are among them."""

    def pages(self, names: tuple[str, ...], node: int | None = None) -> int | None:
        """Return the sum of some counters, of one node or of all; None where none is there."""
        table = self.whole if node is None else self.nodes.get(node, {})
        found = [table[name] for name in names if name in table]
        return sum(found) if found else None


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of tiering on a host, as outputs have it."""

    __pydantic_config__ = STRICT

    verdict: Verdict
    reason: Reason
    since: float
    """Seconds since the epoch at which verdict or reason last changed."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of the tiering that is armed now."""

    __pydantic_config__ = STRICT

    key: tuple[int, int, int]
    """Generation of the profile, numa_balancing, demotion_enabled: another is armed anew."""
    armed: Counts
    """When it was first seen as it is."""
    mark: Counts
    """The beginning of the time that is judged now."""
    newest: Counts
    verdict: Verdict
    reason: Reason

    def moved(self, names: tuple[str, ...]) -> int | None:
        """Return the pages that moved since it was armed, None where nothing counts them."""
        return _rise(self.armed, self.newest, names)


def judged(
    before: Standing | None, now: Counts, facts: Facts, tiers: Tiers, generation: int
) -> Standing:
    """Return what is known with one more count.

    What was counted before a boot, or before something else was armed, tells nothing of now.
    """
    mode, demotion = live(facts, "numa_balancing") or 0, live(facts, "demotion_enabled") or 0
    key = generation, mode, demotion
    if before is None or before.key != key or _began_anew(before.newest, now):
        counted = now.pages(DEMOTED if demotion else PROMOTED) is not None
        first: tuple[Verdict, Reason] = ("armed", "NoPressure")
        if not counted:
            first = ("unknown", "NotCounted")
        return Standing(key, now, now, now, *first)
    found = _trouble(before, now, facts, tiers)
    seconds = now.at - before.mark.at
    standing = replace(before, newest=now)
    if found is not None:
        return replace(standing, mark=now, verdict="not working", reason=found)
    if _moved(before.mark, now):
        if before.verdict == "not working" and seconds < CALM:
            return standing
        mark = before.mark if seconds < BRIEF else now
        return replace(standing, mark=mark, verdict="working", reason="Moved")
    other = _pressed(now, tiers) != _pressed(before.mark, tiers)
    return replace(standing, mark=now) if other or seconds >= CALM else standing


def _trouble(before: Standing, now: Counts, facts: Facts, tiers: Tiers) -> Reason | None:
    """Return why tiering does not work, None where nothing says that it does not."""
    mark = before.mark
    seconds = now.at - mark.at
    if seconds < BRIEF:
        return None
    demoted, promoted = _rise(mark, now, DEMOTED), _rise(mark, now, PROMOTED)
    if demoted and promoted:
        high = sum(node.mem_total for node in tiers.fast_of(facts)) // _PAGE // HIGH * seconds
        less, more = sorted((demoted, promoted))
        if less >= high and 2 * less >= more:
            return "PingPong"
    if demoted is not None and (_rise(mark, now, ("pswpout",)) or 0) > demoted:
        return _undemoted(now, facts, tiers) or "SwapsOut"
    if seconds < LASTING:
        return None
    if demoted == 0 and _pressed(mark, tiers) and _pressed(now, tiers):
        in_vain = _rise(mark, now, SCANNED_FOR) != 0
        if (found := _undemoted(now, facts, tiers)) or in_vain:
            return found or "NothingMoves"
    if not tiered(facts):
        return None
    hot = _rise(mark, now, ("pgpromote_candidate",))
    if hot and promoted is not None and promoted * HARDLY < hot:
        return _unpromoted(hot / seconds, now, facts, tiers)
    scanned = _rise(before.armed, now, ("numa_pte_updates",))
    long = now.at - before.armed.at >= SCANNED and before.verdict != "armed"
    return "ScanningOff" if demoted and scanned == 0 and long else None


def _undemoted(now: Counts, facts: Facts, tiers: Tiers) -> Reason | None:
    """Return what keeps pages on the fast nodes, None where nothing is seen that does."""
    if not on(facts, "demotion_enabled"):
        return "DemotionOff"
    if _flat(facts, tiers):
        return "NoLowerTier"
    slow = tiers.slow_of(facts)
    return "TargetFull" if slow and all(node.id in now.full for node in slow) else None


def _unpromoted(rate: float, now: Counts, facts: Facts, tiers: Tiers) -> Reason:
    """Return what keeps hot pages on the slow nodes. ``rate`` is how many each second."""
    limit = live(facts, "promote_rate_limit_MBps")
    if limit is not None and rate > limit * _MIB:
        return "RateLimit"
    full = all(node.id in now.full for node in tiers.fast_of(facts))
    return (_undemoted(now, facts, tiers) or "FastFull") if full else "NothingMoves"


def _flat(facts: Facts, tiers: Tiers) -> bool:
    """Tell whether the kernel says that no slow node is a lower tier than some fast one."""
    if untargeted(facts, tiers):
        return True
    fast = [node.tier for node in tiers.fast_of(facts) if node.tier is not None]
    slow = [node.tier for node in tiers.slow_of(facts) if node.tier is not None]
    return bool(fast and slow) and max(slow) <= min(fast)


def _pressed(counts: Counts, tiers: Tiers) -> bool:
    """Tell whether a fast node was short of memory."""
    return any(node in counts.short for node in tiers.fast)


def _moved(then: Counts, now: Counts) -> bool:
    return bool(_rise(then, now, DEMOTED) or _rise(then, now, PROMOTED))


def _rise(then: Counts, now: Counts, names: tuple[str, ...]) -> int | None:
    """Return how much some counters rose together, None where none is there."""
    found = [now.whole[name] - then.whole[name] for name in names if name in _both(then, now)]
    return sum(found) if found else None


def _both(then: Counts, now: Counts) -> set[str]:
    return then.whole.keys() & now.whole.keys()


def _began_anew(then: Counts, now: Counts) -> bool:
    """Tell whether counters have begun anew: at a boot, or where a node has gone."""
    return (
        then.boot_id != now.boot_id
        or now.at < then.at
        or any(now.whole[name] < then.whole[name] for name in _both(then, now))
    )
