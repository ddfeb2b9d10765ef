# SPDX-License-Identifier: Apache-2.0
"""What tiers of memory need of a host: nodes, CPUs, swap, quiet. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from dsatier.base.text import ranges
from dsatier.facts.knobs import TIERING_MODES, KnobName
from dsatier.facts.model import Facts, NumaNode, Swap
from dsatier.facts.readings import live, tiered
from dsatier.facts.tiers import USUAL, stirrable, untargeted
from dsatier.plan.model import Desired, Finding
from dsatier.plan.outlook import GIB, frees_dsa, with_cpus, with_swaps
from dsatier.plan.planner import descent


def tiers_exist(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """Both tiers must be there, the fast one with CPUs and memory, the slow one with memory."""
    if not (desired.cpuless or _turns_tiering_on(desired)):
        return
    fast, slow = desired.tiers.fast_of(facts), desired.tiers.slow_of(facts)
    if fast is None or not fast.cpus:
        yield Finding(
            "blocker",
            "tiers-exist",
            f"node {desired.tiers.fast}",
            "a node with CPUs",
            "no such node" if fast is None else "no CPU online",
            "name tiers.fast_node, or look at the BIOS's NUMA settings",
        )
    if fast is not None and fast.mem_total == 0:
        yield Finding(
            "blocker",
            "tiers-exist",
            f"node {desired.tiers.fast}",
            "a node with memory",
            "no memory",
            "name tiers.fast_node, or put memory into the empty channels of that node",
        )
    if slow is None or slow.mem_total == 0:
        yield Finding(
            "blocker",
            "tiers-exist",
            f"node {desired.tiers.slow}",
            "a node with memory",
            "no such node" if slow is None else "no memory",
            "expose the CXL memory as a node (BIOS: CXL, or daxctl reconfigure-device "
            "--mode=system-ram), or name tiers.slow_node",
        )
    if facts.kernel.family == "seed" and desired.tiers != USUAL:
        yield Finding(
            "blocker",
            "tiers-exist",
            "tiers",
            "fast node 0 and slow node 1, which a seed kernel has built in",
            f"fast node {desired.tiers.fast} and slow node {desired.tiers.slow}",
            "boot dsatier's kernel",
        )


def tiers_apart(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """The kernel must know the slow node as slower, or it demotes nothing, whatever is turned on.

    It settles that at boot: a node that had CPUs online then counts as DRAM for good. Where
    another node is slower and has no CPUs, the CPUs of this one must not go for nothing.
    """
    if not (desired.cpuless or _turns_tiering_on(desired)):
        return
    fast, slow = desired.tiers.fast_of(facts), desired.tiers.slow_of(facts)
    if fast is None or slow is None or None in (fast.tier, slow.tier):
        return
    if (slow.tier or 0) > (fast.tier or 0):
        return
    slower = [n.id for n in facts.nodes if (n.tier or 0) > (fast.tier or 0) and not n.cpus]
    remedy = (
        "boot with the slow node's CPUs off (`maxcpus=N`, where they are the last) on a host "
        "whose firmware has an HMAT: a node that boots with CPUs is a fast one for good"
    )
    if slower:
        words = f"node {slower[0]}" if len(slower) == 1 else f"nodes {ranges(slower)}"
        one = " or ".join(f"`tiers: {{slow_node: {number}}}`" for number in slower)
        remedy = f"name {one} in the profile: in a lower tier, without CPUs: {words}"
    if _turns_tiering_on(desired) or (slower and slow.cpus):
        yield Finding(
            "blocker",
            "tiers-apart",
            f"node {desired.tiers.slow}",
            f"a memory tier below that of node {desired.tiers.fast}, or nothing is demoted",
            f"tier {slow.tier} for it, and {fast.tier} for node {desired.tiers.fast}",
            remedy,
        )


def _turns_tiering_on(desired: Desired) -> bool:
    return (
        desired.wants("numa_balancing") in TIERING_MODES or desired.wants("demotion_enabled") == 1
    )


def tiering_conditions(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """Tiering needs a slow node without CPUs and a host without swap."""
    if not _turns_tiering_on(desired):
        return
    slow = desired.tiers.slow_of(with_cpus(facts, desired))
    if slow is not None and slow.cpus:
        yield Finding(
            "blocker",
            "tiering-conditions",
            f"node {desired.tiers.slow}",
            "no CPU online",
            _cpus_found(slow, facts),
            "set `tiers: {cpuless: true}` in the profile",
        )
    if swaps := with_swaps(facts, desired):
        yield Finding(
            "blocker",
            "tiering-conditions",
            "/proc/swaps",
            "no swap",
            _swap_found(swaps[0], facts),
            "set `swap: off` in the profile's tiering",
        )


def _cpus_found(then: NumaNode, facts: Facts) -> str:
    """Return in words which CPUs of the slow node are online, or are to be."""
    coming = len(set(then.cpus) & set(facts.offline_cpus))
    return f"{len(then.cpus)} CPUs online" + (f", {coming} of them to come back" if coming else "")


def _swap_found(area: Swap, facts: Facts) -> str:
    """Return in words which swap is on, or is to be."""
    there = any(found.path == area.path for found in facts.swaps)
    return f"swap on {area.path}" + ("" if there else ", which is to come back")


def watermark_order(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """The demotion watermark is computed only with memory tiering on."""
    wanted = desired.wants("numa_balancing")
    balancing = live(facts, "numa_balancing") if wanted is None else wanted
    factor = desired.wants("demote_scale_factor")
    if factor is None or factor == live(facts, "demote_scale_factor"):
        return
    if balancing not in TIERING_MODES and not tiered(facts):
        yield Finding(
            "blocker",
            "watermark-order",
            "demote_scale_factor",
            "numa_balancing 2 or 3",
            f"numa_balancing {balancing}",
            "name `numa_balancing: 2`, or 3, in the profile's tiering",
        )


def cpus_can_go(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """Every CPU of the slow node must be able to go offline."""
    slow = desired.tiers.slow_of(facts)
    if not desired.cpuless or slow is None:
        return
    stuck = tuple(c for c in slow.cpus if c in facts.pinned_cpus or c == 0)
    if stuck:
        yield Finding(
            "blocker",
            "cpus-can-go",
            f"node {desired.tiers.slow}",
            "CPUs that can go offline",
            f"cpu {stuck[0]} cannot",
            "name another tiers.slow_node, or boot with cpu0_hotplug where the kernel has it",
        )
    for writer in facts.others:
        if "cpus" in writer.items and slow.cpus:
            yield Finding(
                "warning",
                "cpus-can-go",
                writer.path,
                "no tool that pins work to CPUs of the slow node",
                f"{writer.tool} does",
                "drain the node, or take the slow node's CPUs from it first",
            )


_TIERING: dict[KnobName, frozenset[int]] = {
    "numa_balancing": TIERING_MODES,
    "demotion_enabled": frozenset({1}),
}
"""The values with which the kernel tiers."""


def quiet_can_be_had(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """What pauses tiering for the way down must be able to bring it back.

    The same for tiering that goes on: CPUs and swap that come back must not get in its way.
    """
    resumes = [
        knob
        for knob, values in _TIERING.items()
        if desired.wants(knob) is None and live(facts, knob) in values
    ]
    swaps = with_swaps(facts, desired)
    comes_back = any(area not in facts.swaps for area in swaps)
    if not resumes or not (comes_back or frees_dsa(facts, desired) or descent(facts, desired)):
        return
    slow = desired.tiers.slow_of(with_cpus(facts, desired))
    if slow is not None and slow.cpus:
        yield Finding(
            "blocker",
            "quiet-can-be-had",
            ", ".join(resumes),
            f"a slow node {desired.tiers.slow} without CPUs, so that tiering can resume",
            _cpus_found(slow, facts),
            "set `tiers: {cpuless: true}` in the profile, or turn tiering off in it",
        )
    if swaps:
        yield Finding(
            "blocker",
            "quiet-can-be-had",
            ", ".join(resumes),
            "no swap, so that tiering can resume",
            _swap_found(swaps[0], facts),
            "set `swap: off` in the profile's tiering, or turn tiering off in it",
        )


def target_in_reach(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """A kernel that finds its demotion targets when CPUs come and go needs one that can."""
    if desired.wants("demotion_enabled") != 1 or not untargeted(facts, desired.tiers):
        return
    if stirrable(facts, desired.tiers) is None:
        yield Finding(
            "blocker",
            "target-in-reach",
            f"node {desired.tiers.fast}",
            "a second CPU that can go offline and come back, so that its demotion target is found",
            "none",
            "bring one of its CPUs online, or boot with the slow node's CPUs off",
        )


def swap_fits(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """What is swapped out must fit in memory before swap goes off."""
    used = sum(area.used for area in facts.swaps)
    room = sum(n.mem_free for n in facts.nodes)
    if desired.swap_off and used > room:
        yield Finding(
            "blocker",
            "swap-fits",
            "/proc/swaps",
            f"at most {room / GIB:.1f} GiB swapped out, as much as is free",
            f"{used / GIB:.1f} GiB",
            "free memory first",
        )
