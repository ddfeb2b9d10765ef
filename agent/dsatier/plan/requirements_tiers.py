# SPDX-License-Identifier: Apache-2.0
"""What tiers of memory need of a host: nodes, CPUs, swap, quiet. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from dsatier.facts.classification import of_kind, sorts
from dsatier.facts.knobs import KNOBS, MOST_MBPS, TIERING_MODES, KnobName
from dsatier.facts.model import Facts, MemoryDevice, NumaNode, Swap
from dsatier.facts.onlining import astray, bringing
from dsatier.facts.readings import demotes_to_disk, live, node, tiered, value_refusal
from dsatier.facts.tiers import USUAL, cpus, stirrable, untargeted, words
from dsatier.plan.model import Desired, Finding
from dsatier.plan.outlook import GIB, frees_dsa, with_cpus, with_swaps
from dsatier.plan.planner import descent

MOST_MOVABLE = 4
"""How many times as much memory as elsewhere zone Movable may have before page tables run short."""


def tiers_exist(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """Both tiers must be there, the fast one with CPUs and memory, the slow one with memory."""
    if not (desired.cpuless or _turns_tiering_on(desired)):
        return
    for number in desired.tiers.fast:
        yield from _fast_exists(number, node(facts, number))
    awaited = {one.node for one in desired.memory}
    for number in desired.tiers.slow:
        slow = node(facts, number)
        if number not in awaited and (slow is None or slow.mem_total == 0):
            yield Finding(
                "blocker",
                "tiers-exist",
                f"node {number}",
                "a node with memory",
                "no such node" if slow is None else "no memory",
                _bring(
                    facts,
                    number,
                    otherwise="expose the CXL memory as a node (BIOS: CXL, or daxctl "
                    "reconfigure-device --mode=system-ram), or name tiers.slow_node",
                ),
            )
    if not desired.tiers.slow and not any(_away(facts, number) for number in awaited):
        yield Finding(
            "blocker",
            "tiers-exist",
            "tiers.nodes",
            "a slow node",
            "; ".join(f"node {sort.node}: {sort.kind} ({sort.why})" for sort in sorts(facts)),
            _bring(
                facts,
                otherwise="bring the slow memory online as a node (daxctl reconfigure-device "
                "--mode=system-ram), or name its node in `tiers.nodes.slow`",
            ),
        )
    named = (desired.tiers.fast, desired.tiers.slow)
    if facts.kernel.family == "seed" and named != (USUAL.fast, USUAL.slow):
        yield Finding(
            "blocker",
            "tiers-exist",
            "tiers",
            "fast node 0 and slow node 1, which a seed kernel has built in",
            f"fast {words(desired.tiers.fast)} and slow {words(desired.tiers.slow)}",
            "boot dsatier's kernel",
        )


def _bring(facts: Facts, *numbers: int, otherwise: str) -> str:
    """Return what to do for slow memory: there may be some that waits to be brought online."""
    offline = {d.target_node for d in facts.memory_devices if d.blocks and d.blocks.offline}
    nodes = sorted(offline.intersection(numbers) if numbers else offline)
    if not nodes:
        return otherwise
    return f"write `tiers: {{online: {{nodes: {nodes}}}}}` in the profile: that memory is offline"


def _fast_exists(number: int, fast: NumaNode | None) -> Iterator[Finding]:
    if fast is None or not fast.cpus:
        yield Finding(
            "blocker",
            "tiers-exist",
            f"node {number}",
            "a node with CPUs",
            "no such node" if fast is None else "no CPU online",
            "name tiers.fast_node, or look at the BIOS's NUMA settings",
        )
    if fast is not None and fast.mem_total == 0:
        yield Finding(
            "blocker",
            "tiers-exist",
            f"node {number}",
            "a node with memory",
            "no memory",
            "name tiers.fast_node, or put memory into the empty channels of that node",
        )


def memory_there(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """The memory that is to come online must be the kernel's to bring: kmem must have it."""
    for wish in desired.memory:
        if not _away(facts, wish.node):
            continue
        devices = bringing(facts, wish.node)
        yield from map(_not_kmems, devices)
        if not devices:
            yield Finding(
                "blocker",
                "memory-there",
                f"node {wish.node}",
                "memory that a device brings",
                "not there yet: no device of that node, and no memory",
                "wait: dsatier goes on when the device comes. If none is to come, create its "
                "region (`cxl create-region`), or take the node out of the profile",
            )


def _away(facts: Facts, number: int) -> bool:
    """Tell whether a node has no memory, and kmem has none of which it would get some."""
    here = node(facts, number)
    there = here is not None and here.mem_total > 0
    return not there and not any(device.blocks for device in bringing(facts, number))


def memory_zone(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """Memory that is online should be in the zone that is named: it stays where it is."""
    for wish in desired.memory:
        for device in bringing(facts, wish.node):
            if device.blocks and (other := astray(device.blocks, wish.zone)):
                yield Finding(
                    "warning",
                    "memory-zone",
                    device.id,
                    f"its memory blocks online for zone {wish.zone}",
                    f"{len(other)} of {len(device.blocks.all)} online in another zone",
                    "boot with `memhp_default_state=offline`, so that nobody else brings them, or "
                    f"set `zone: {'kernel' if wish.zone == 'movable' else 'movable'}` in the "
                    "profile's tiers.online",
                )


def memory_mixed(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """Memory in zone Movable needs other memory for what the kernel keeps of it."""
    nodes = {one.node for one in desired.memory if one.zone == "movable"}
    movable, coming = 0, 0
    for device in facts.memory_devices:
        if device.blocks:
            movable += len(device.blocks.movable) * device.blocks.size
            if device.target_node in nodes:
                coming += len(device.blocks.offline) * device.blocks.size
    others = sum(one.mem_total for one in facts.nodes) - movable
    if coming and movable + coming > MOST_MOVABLE * others:
        yield Finding(
            "warning",
            "memory-mixed",
            "tiers.online.zone",
            f"at most {MOST_MOVABLE} times as much memory in zone Movable as in others",
            f"{(movable + coming) / GIB:.0f} GiB and {others / GIB:.0f} GiB: the kernel may run "
            "out of memory for itself",
            "set `zone: kernel` in the profile's tiers.online",
        )


def _not_kmems(device: MemoryDevice) -> Finding:
    """Return what stands against memory that kmem does not have, or has without blocks."""
    give = f"`daxctl reconfigure-device --mode=system-ram {device.id}`"
    match device.driver:
        case "kmem":
            found = "kmem has it, and no memory block of it can be seen"
            remedy = (
                "run this as root; where its file `state` reads unplugged, write online_movable "
                f"to it: /sys/bus/dax/devices/{device.id}/state"
            )
        case "":
            found = "no driver has it"
            remedy = "load kmem: `modprobe kmem`, and name it in modules-load.d for later boots"
        case other:
            found = f"{other} has it, for programs that map it"
            remedy = "stop the programs that use it, save what it holds, and give it to kmem: "
            remedy += give
    return Finding(
        "blocker",
        "memory-there",
        f"node {device.target_node}",
        f"{device.id}, as memory of the kernel's",
        f"not there yet: {found}",
        remedy,
    )


def nodes_known(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """A node that nothing tells the kind of must be named: it may be anything, a GPU's too."""
    if not _turns_tiering_on(desired):
        return
    for sort in sorts(facts):
        if sort.node in desired.tiers.unknown:
            yield Finding(
                "blocker",
                "nodes-known",
                f"node {sort.node}",
                "memory of a kind that is known, or named",
                sort.why,
                "name it in `tiers.nodes.slow` or `tiers.nodes.hbm`; a profile that lists the "
                "slow nodes leaves all others alone",
            )


def tiers_apart(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """The kernel must know each slow node as slower, or nothing is demoted there.

    It settles that at boot: a node that had CPUs online then counts as DRAM for good. Where
    another node is slower and has no CPUs, the CPUs of this one must not go for nothing.
    """
    if not (desired.cpuless or _turns_tiering_on(desired)):
        return
    tops = [n.tier for n in desired.tiers.fast_of(facts) if n.tier is not None]
    lower = _lower(facts, desired)
    for slow in desired.tiers.slow_of(facts):
        told = slow.tier is not None and bool(tops)
        if told and (slow.tier or 0) > max(tops):
            continue
        if (told and _turns_tiering_on(desired)) or (slow.cpus and lower):
            found = "CPUs online"
            if told:
                fast = words(desired.tiers.fast)
                found = f"tier {slow.tier} for it, and {max(tops)} for {fast}"
            yield Finding(
                "blocker",
                "tiers-apart",
                f"node {slow.id}",
                f"a memory tier below that of {words(desired.tiers.fast)}, or nothing is demoted",
                found,
                _to_be_apart(slow, lower),
            )


def _lower(facts: Facts, desired: Desired) -> tuple[int, ...]:
    """Return the nodes that are slow memory, have no CPUs and are not named as slow."""
    found = of_kind(facts, "slow")
    return tuple(n for n in found if n not in (*desired.tiers.slow, *desired.tiers.fast))


def _to_be_apart(slow: NumaNode, lower: tuple[int, ...]) -> str:
    """Return what to do for a slow node that is no lower tier."""
    if len(lower) == 1:
        one = f"`tiers: {{slow_node: {lower[0]}}}`"
        return f"name {one} in the profile: in a lower tier, without CPUs: {words(lower)}"
    if lower:
        every = "write `tiers: {nodes: auto}` in the profile"
        return f"{every}: in a lower tier, without CPUs: {words(lower)}"
    if not slow.cpus:
        return (
            "boot a kernel that asks the firmware's HMAT for the tier of such memory (6.12 or "
            "newer), or without `efi=nosoftreserve`, so that the kmem driver brings the node in"
        )
    return (
        "boot with the slow node's CPUs off (`maxcpus=N`, where they are the last) on a host "
        "whose firmware has an HMAT: a node that boots with CPUs is a fast one for good"
    )


def _turns_tiering_on(desired: Desired) -> bool:
    return (
        desired.wants("numa_balancing") in TIERING_MODES or desired.wants("demotion_enabled") == 1
    )


def tiering_conditions(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """Tiering needs a slow node without CPUs and, on a research kernel, a host without swap."""
    if not _turns_tiering_on(desired):
        return
    for slow in _with_cpus(facts, desired):
        yield Finding(
            "blocker",
            "tiering-conditions",
            f"node {slow.id}",
            "no CPU online",
            _cpus_found(slow, facts),
            f"write `tiers: {{slow_node: {slow.id}, cpuless: true}}` in the profile",
        )
    if demotes_to_disk(facts) and (swaps := with_swaps(facts, desired)):
        yield Finding(
            "blocker",
            "tiering-conditions",
            "/proc/swaps",
            "no swap",
            _swap_found(swaps[0], facts),
            "set `swap: off` in the profile's tiering",
        )


def _with_cpus(facts: Facts, desired: Desired) -> tuple[NumaNode, ...]:
    """Return the slow nodes that will have CPUs online."""
    return tuple(n for n in desired.tiers.slow_of(with_cpus(facts, desired)) if n.cpus)


def _cpus_found(then: NumaNode, facts: Facts) -> str:
    """Return in words which CPUs of the slow node are online, or are to be."""
    coming = len(set(then.cpus) & set(facts.offline_cpus))
    return f"{len(then.cpus)} CPUs online" + (f", {coming} of them to come back" if coming else "")


def _swap_found(area: Swap, facts: Facts) -> str:
    """Return in words which swap is on, or is to be."""
    there = any(found.path == area.path for found in facts.swaps)
    return f"swap on {area.path}" + ("" if there else ", which is to come back")


def promotion_can_go(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """Memory tiering must have a rate limit with which something is promoted."""
    wanted = desired.wants("promote_rate_limit_MBps")
    limit = live(facts, "promote_rate_limit_MBps") if wanted is None else wanted
    if limit is None or desired.wants("numa_balancing") not in TIERING_MODES:
        return
    if value_refusal("promote_rate_limit_MBps", limit, facts):
        yield Finding(
            "blocker",
            "promotion-can-go",
            KNOBS["promote_rate_limit_MBps"].path,
            f"1 to {MOST_MBPS}",
            f"{limit}, with which nothing is promoted",
            "name `promote_rate_limit_MBps: 65536`, which is the kernel's own, in the profile's "
            "tiering",
        )


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
    if not desired.cpuless:
        return
    slow = desired.tiers.slow_of(facts)
    stuck = tuple(c for c in cpus(slow) if c in facts.pinned_cpus or c == 0)
    if stuck:
        yield Finding(
            "blocker",
            "cpus-can-go",
            words(desired.tiers.slow),
            "CPUs that can go offline",
            f"cpu {stuck[0]} cannot",
            "name another tiers.slow_node, or boot with cpu0_hotplug where the kernel has it",
        )
    for writer in facts.others:
        if "cpus" in writer.items and cpus(slow):
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
    swaps = with_swaps(facts, desired) if demotes_to_disk(facts) else ()
    comes_back = any(area not in facts.swaps for area in swaps)
    if not resumes or not (comes_back or frees_dsa(facts, desired) or descent(facts, desired)):
        return
    for slow in _with_cpus(facts, desired):
        yield Finding(
            "blocker",
            "quiet-can-be-had",
            ", ".join(resumes),
            f"a slow node {slow.id} without CPUs, so that tiering can resume",
            _cpus_found(slow, facts),
            f"write `tiers: {{slow_node: {slow.id}, cpuless: true}}` in the profile, or turn "
            "tiering off in it",
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
            words(desired.tiers.fast),
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
