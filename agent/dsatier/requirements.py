# SPDX-License-Identifier: Apache-2.0
"""Requirements: what a host must have for a desired state, each with its remedy.

``doctor`` prints the findings, and no plan is made against a blocker: capacity
is checked before the first write, not after a failed start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dsatier.facts import DsaDevice, Facts, NumaNode, Swap
from dsatier.frozen import replace
from dsatier.knobs import KNOBS, SEED_BATCH_CHANS, live, thread_counts, value_refusal
from dsatier.planner import descent
from dsatier.plans import Desired, Finding
from dsatier.projection import project, switched
from dsatier.queuefile import QueueConfig, differences, excess
from dsatier.readings import (
    SEED_BATCH,
    SEED_TRANSFER,
    foreign,
    halted,
    held,
    initialised,
    node,
    on,
    oopsed,
    releasable,
    stranded,
    unfit,
)
from dsatier.requests import LoadDevice, StopDevice

GIB = 1 << 30
ACCEL_CONFIG_AT_LEAST = (3, 5)


def findings(
    facts: Facts,
    desired: Desired,
    requirements: tuple[Requirement, ...] | None = None,
) -> tuple[Finding, ...]:
    """Return what stands against ``desired`` on this host, blockers first."""
    order = ("blocker", "reboot", "warning")
    found = [
        finding
        for requirement in (REQUIREMENTS if requirements is None else requirements)
        for finding in requirement(facts, desired)
    ]
    return tuple(sorted(found, key=lambda finding: order.index(finding.level)))


Requirement = Callable[[Facts, Desired], Iterator[Finding]]


def _wants_dsa(desired: Desired) -> bool:
    return desired.wants("dsa_state") == 1 or desired.wants("use_dsa_copy_pages") == 1


def _starts_dsa(facts: Facts, desired: Desired) -> bool:
    """Tell whether the way to ``desired`` writes 1 to ``dsa_state``."""
    return _wants_dsa(desired) and not _stays_initialised(facts, desired)


def _stays_initialised(facts: Facts, desired: Desired) -> bool:
    wanted = desired.wants("limit_chans")
    return (
        initialised(facts)
        and wanted in (None, live(facts, "limit_chans"))
        and not _changing_devices(facts, desired)
    )


def _frees_dsa(facts: Facts, desired: Desired) -> bool:
    """Tell whether the way to ``desired`` writes 0 to ``dsa_state``."""
    if not on(facts, "dsa_state"):
        return False
    if desired.wants("dsa_state") == 0:
        return True
    if _wants_dsa(desired):
        return not _stays_initialised(facts, desired)
    wanted = desired.wants("limit_chans")
    return wanted not in (None, live(facts, "limit_chans")) or bool(
        _changing_devices(facts, desired)
    )


def _with_cpus(facts: Facts, desired: Desired) -> Facts:
    """Return the facts with the CPUs online that will be: threads are counted against those."""
    slow = node(facts, desired.slow_node)
    return switched(
        facts,
        offline=slow.cpus if desired.cpuless and slow is not None else (),
        online=desired.cpus_online,
        slow_node=desired.slow_node,
    )


def _with_swaps(facts: Facts, desired: Desired) -> tuple[Swap, ...]:
    """Return the swap areas that will be on."""
    staying = () if desired.swap_off else facts.swaps
    there = {area.path for area in facts.swaps}
    return (*staying, *(area for area in desired.swap_on if area.path not in there))


def _changing_devices(facts: Facts, desired: Desired) -> tuple[DsaDevice, ...]:
    wanted = {config.id: config for config in desired.queues}
    return tuple(
        device
        for device in facts.devices
        if (device.id in wanted and differences(wanted[device.id], device))
        or (device.id in desired.stopped and device.state == "enabled")
    )


def known_kernel(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """The kernel's ABI must be one that this agent knows."""
    if facts.kernel.family == "unknown":
        yield Finding(
            "blocker",
            "known-kernel",
            "/sys/kernel/mm/dsatier/abi",
            "ABI 1",
            f"ABI {facts.kernel.abi}",
            "install the dsatier that belongs to this kernel",
        )


def knobs_present(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """The kernel must have the knobs that are to be set."""
    absent = [name for name in desired.knobs or {} if name not in facts.knobs]
    for mainline, remedy in (
        (True, "boot a kernel with NUMA_BALANCING and MIGRATION"),
        (False, "install and boot dsatier's kernel package, or leave the fields out"),
    ):
        names = [name for name in absent if KNOBS[name].mainline == mainline]
        if names:
            yield Finding(
                "blocker",
                "knobs-present",
                f"kernel {facts.kernel.release}",
                f"the knobs {', '.join(names)}" if len(names) > 1 else f"the knob {names[0]}",
                "a kernel without them" if len(names) > 1 else "a kernel without it",
                remedy,
            )


def values_in_range(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """Every value must be one that this kernel takes without harm."""
    then = _with_cpus(facts, desired)
    for name, value in (desired.knobs or {}).items():
        refusal = value_refusal(name, value, then) if name in facts.knobs else None
        if refusal is not None:
            yield Finding(
                "blocker",
                "values-in-range",
                name,
                "a value that this kernel handles right",
                refusal,
                "choose another value, or dsatier's kernel, which handles all",
            )


def threads_whole(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """A seed kernel's CPU threads must not lose bytes with the value that is live."""
    if facts.kernel.family != "seed" or desired.wants("cpu_multi_copy_pages") != 1:
        return
    count = desired.wants("limit_mt_num")
    found = live(facts, "limit_mt_num") if count is None else None
    allowed = thread_counts(_with_cpus(facts, desired))
    if found is not None and found not in allowed:
        yield Finding(
            "blocker",
            "threads-whole",
            "limit_mt_num",
            f"one of {', '.join(map(str, sorted(allowed)))}",
            str(found),
            "name engine.limit_mt_num in the profile",
        )


def tiers_exist(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """Both tiers must be there, the fast one with CPUs, the slow one with memory."""
    if not (desired.cpuless or _turns_tiering_on(desired)):
        return
    fast, slow = node(facts, desired.fast_node), node(facts, desired.slow_node)
    if fast is None or not fast.cpus:
        yield Finding(
            "blocker",
            "tiers-exist",
            f"node {desired.fast_node}",
            "a node with CPUs",
            "no such node" if fast is None else "no CPU online",
            "name tiers.fast_node, or look at the BIOS's NUMA settings",
        )
    if slow is None or slow.mem_total == 0:
        yield Finding(
            "blocker",
            "tiers-exist",
            f"node {desired.slow_node}",
            "a node with memory",
            "no such node" if slow is None else "no memory",
            "expose the CXL memory as a node (BIOS: CXL, or daxctl reconfigure-device "
            "--mode=system-ram), or name tiers.slow_node",
        )
    if facts.kernel.family == "seed" and (desired.fast_node, desired.slow_node) != (0, 1):
        yield Finding(
            "blocker",
            "tiers-exist",
            "tiers",
            "fast node 0 and slow node 1, which a seed kernel has built in",
            f"fast node {desired.fast_node} and slow node {desired.slow_node}",
            "boot dsatier's kernel",
        )


def tiers_apart(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """The kernel must know the slow node as slower, or it demotes nothing, whatever is turned on.

    It settles that at boot: a node that had CPUs online then counts as DRAM for good.
    """
    if not _turns_tiering_on(desired):
        return
    fast, slow = node(facts, desired.fast_node), node(facts, desired.slow_node)
    if fast is None or slow is None or None in (fast.tier, slow.tier):
        return
    if (slow.tier or 0) <= (fast.tier or 0):
        yield Finding(
            "blocker",
            "tiers-apart",
            f"node {desired.slow_node}",
            f"a memory tier below that of node {desired.fast_node}, or nothing is demoted",
            f"tier {slow.tier} for it, and {fast.tier} for node {desired.fast_node}",
            "boot with the slow node's CPUs off (`maxcpus=N`, where they are the last) on a host "
            "whose firmware has an HMAT: a node that boots with CPUs is a fast one for good",
        )


def _turns_tiering_on(desired: Desired) -> bool:
    return desired.wants("numa_balancing") == 2 or desired.wants("demotion_enabled") == 1


def tiering_conditions(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """Tiering needs a slow node without CPUs and a host without swap."""
    if not _turns_tiering_on(desired):
        return
    slow = node(_with_cpus(facts, desired), desired.slow_node)
    if slow is not None and slow.cpus:
        yield Finding(
            "blocker",
            "tiering-conditions",
            f"node {desired.slow_node}",
            "no CPU online",
            _cpus_found(slow, facts),
            "set `tiers: {cpuless: true}` in the profile",
        )
    if swaps := _with_swaps(facts, desired):
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
    if 2 not in (balancing, live(facts, "numa_balancing")):
        yield Finding(
            "blocker",
            "watermark-order",
            "demote_scale_factor",
            "numa_balancing 2",
            f"numa_balancing {balancing}",
            "name `numa_balancing: 2` in the profile's tiering",
        )


def cpus_can_go(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """Every CPU of the slow node must be able to go offline."""
    slow = node(facts, desired.slow_node)
    if not desired.cpuless or slow is None:
        return
    stuck = tuple(c for c in slow.cpus if c in facts.pinned_cpus or c == 0)
    if stuck:
        yield Finding(
            "blocker",
            "cpus-can-go",
            f"node {desired.slow_node}",
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


def devices_there(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """The devices to configure must be there, alive, and nobody else's."""
    found = {device.id: device for device in facts.devices}
    absent = [config.id for config in desired.queues if config.id not in found]
    if absent:
        yield Finding(
            "blocker",
            "devices-there",
            "DSA devices",
            f"{', '.join(absent)} beside {', '.join(found) or 'none'}",
            f"{len(found)} devices",
            "enable the DSA in the BIOS and load idxd (CONFIG_INTEL_IDXD), or name fewer devices",
        )
    for config in desired.queues:
        device = found.get(config.id)
        if device is None:
            continue
        if stranded(facts, device):
            yield Finding(
                "reboot",
                "devices-there",
                config.id,
                "a device that serves who holds it",
                f"{device.state}, with {device.clients or 'some'} clients: it halted, or lost a "
                "queue, while they held it",
                "reboot: neither `dsatier release` nor a reset of the device takes it back from "
                "them; or name other devices; `dmesg` has the reason",
            )
        elif device.state not in ("enabled", "disabled"):
            yield Finding(
                "reboot",
                "devices-there",
                config.id,
                "enabled or disabled",
                device.state,
                f"{_reset(device)}; `dmesg` has the reason",
            )
        elif reasons := excess(config, device):
            yield Finding(
                "blocker",
                "devices-there",
                config.id,
                "a configuration that the device can take",
                "; ".join(reasons),
                "ask for fewer or smaller queues",
            )
        elif differences(config, device) and _others_hold(facts, device):
            yield Finding(
                "blocker",
                "devices-there",
                config.id,
                "a device that nobody else uses",
                f"{device.clients or 'some'} clients",
                "stop its user (`accel-config list`), or name other devices",
            )


def _reset(device: DsaDevice) -> str:
    """Return how a halted device that nobody holds comes back."""
    if not device.pci:
        return "reset the device (FLR) or reboot"
    return (
        f"reset it (unbind {device.pci} from idxd, write 1 to "
        f"/sys/bus/pci/devices/{device.pci}/reset, bind it again) or reboot"
    )


def _others_hold(facts: Facts, device: DsaDevice) -> bool:
    """Tell whether somebody but the engine holds a queue of the device.

    The engine holds exactly ``limit_chans`` channels when it is initialised; it
    gives them back before its devices change.
    """
    users = any(queue.clients for queue in device.queues if queue.type != "kernel")
    kernel_clients = any(queue.clients for queue in device.queues if queue.type == "kernel")
    return users or (kernel_clients and not on(facts, "dsa_state"))


def devices_can_stop(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """A device without event log cannot be disabled on a kernel with the defect."""
    if facts.kernel.evl_guard:
        return
    for device in _changing_devices(facts, desired):
        if device.state == "enabled" and not device.event_log:
            yield Finding(
                "reboot",
                "devices-can-stop",
                device.id,
                "a kernel on which it can be disabled",
                f"kernel {facts.kernel.release}, which then oopses",
                "reboot, so that it starts disabled; dsatier's kernel has the defect mended",
            )


def accel_config_there(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """Accel-config loads the queues."""
    if not _changing_devices(facts, desired):
        return
    words = (facts.accel_config or "0").split("+")[0].split(".")
    version = tuple(int(word) for word in words[:2] if word.isdigit())
    if version < ACCEL_CONFIG_AT_LEAST:
        yield Finding(
            "blocker",
            "accel-config-there",
            "accel-config",
            "version 3.5 or newer",
            facts.accel_config or "not installed",
            "apt install accel-config",
        )


def queues_enough(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """The engine needs as many fit queues as it takes channels."""
    if not _starts_dsa(facts, desired):
        return
    chans = desired.wants("limit_chans")
    if chans is None:
        chans = live(facts, "limit_chans") or 0
    coming = {config.id: config for config in desired.queues}
    fit, why = 0, []
    for device in facts.devices:
        if device.id in coming:
            count, reasons = _fit_configured(facts, device, coming[device.id].queues)
        elif device.id in desired.stopped:
            continue
        else:
            objections = [unfit(queue, device, facts) for queue in device.queues]
            count = sum(reason is None for reason in objections)
            reasons = [reason for reason in objections if reason]
        fit += count
        why += reasons
    taken = 0 if on(facts, "dsa_state") else len(held(facts))
    if fit - taken < chans:
        detail = f" ({'; '.join(why[:3])})" if why else ""
        yield Finding(
            "blocker",
            "queues-enough",
            "work queues",
            f"{chans} enabled dedicated kernel queues that are free",
            f"{max(fit - taken, 0)}{detail}",
            "name engine.work_queues with enough queues, or a smaller limit_chans",
        )


def _fit_configured(
    facts: Facts, device: DsaDevice, queues: tuple[QueueConfig, ...]
) -> tuple[int, list[str]]:
    """Count the queues of a configuration that the engine could use."""
    fit, why = 0, []
    for queue in queues:
        batch = device.max_batch_size if queue.max_batch_size is None else queue.max_batch_size
        transfer = (
            device.max_transfer_size if queue.max_transfer_size is None else queue.max_transfer_size
        )
        if queue.type != "kernel" or queue.mode != "dedicated":
            why.append(f"{queue.id} is {queue.mode} of type {queue.type}")
        elif facts.kernel.family == "seed" and (batch < SEED_BATCH or transfer < SEED_TRANSFER):
            why.append(f"{queue.id} has max_batch_size {batch}, max_transfer_size {transfer}")
        else:
            fit += 1
    return fit, why


def kernel_configured(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """The kernel must be built with what the desired state rests on, where that can be read."""
    config = facts.kernel.config
    if config is None:
        return
    needed: list[tuple[str, tuple[str, ...], str]] = []
    if desired.queues:
        needed.append(("CONFIG_INTEL_IDXD", ("y", "m"), "blocker"))
    if _turns_tiering_on(desired):
        # without hotplugged memory a seed kernel has no demotion targets
        level = "blocker" if facts.kernel.family == "seed" else "warning"
        needed.append(("CONFIG_MEMORY_HOTPLUG", ("y",), level))
        needed.append(("CONFIG_NUMA_BALANCING", ("y",), "blocker"))
    for option, values, level in needed:
        if config.get(option) not in values:
            yield Finding(
                "blocker" if level == "blocker" else "warning",
                "kernel-configured",
                f"kernel {facts.kernel.release}",
                f"{option}={values[0]}",
                config.get(option) or "not set",
                "install and boot dsatier's kernel package",
            )


def dsa_healthy(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """The DSA may start only on a kernel and devices that are whole."""
    if not _wants_dsa(desired):
        return
    if oopsed(facts):
        yield Finding(
            "reboot",
            "dsa-healthy",
            "kernel",
            "a kernel that has not oopsed",
            f"taint {facts.boot_taint}",
            "reboot; `dmesg` has the reason",
        )
    if on(facts, "dsa_async_mode"):
        yield Finding(
            "blocker",
            "dsa-healthy",
            "dsa_async_mode",
            "0",
            "1, which oopses at the first huge page",
            "write 0 to /proc/sys/vm/dsa_async_mode",
        )
    named = {config.id for config in desired.queues}
    for device in facts.devices:
        if device.id in halted(facts) and device.id not in named:
            yield Finding(
                "reboot",
                "dsa-healthy",
                device.id,
                "no halted device",
                device.state,
                "reboot" if stranded(facts, device) else _reset(device),
            )


def addresses_untranslated(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """A seed kernel hands raw addresses to the device."""
    if not _starts_dsa(facts, desired):
        return
    if facts.kernel.family == "seed" and facts.iommu not in ("off", "passthrough"):
        yield Finding(
            "blocker",
            "addresses-untranslated",
            "IOMMU",
            "passthrough",
            facts.iommu,
            "boot with `intel_iommu=on,sm_on iommu=pt`",
        )
    elif facts.iommu == "translated":
        yield Finding(
            "warning",
            "addresses-untranslated",
            "IOMMU",
            "passthrough",
            "translated: copies slow down when mappings miss",
            "boot with `intel_iommu=on,sm_on iommu=pt`",
        )
    elif facts.iommu == "passthrough" and not facts.scalable_mode:
        yield Finding(
            "warning",
            "addresses-untranslated",
            "IOMMU",
            "scalable mode",
            "no sm_on among the boot parameters",
            "boot with `intel_iommu=on,sm_on`; a Sapphire Rapids may also need `no5lvl`",
        )


def channels_ours_alone(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """A seed kernel takes any free memory-to-memory DMA channel for DSA's."""
    if facts.kernel.family != "seed" or not _starts_dsa(facts, desired):
        return
    found = foreign(_when_starting(facts, desired))
    if found:
        left = bool(halted(facts)) and not any(channel.queue for channel in found)
        yield Finding(
            "reboot" if left else "blocker",
            "channels-ours-alone",
            "/sys/class/dma",
            "no free channel but of queues that the engine can use",
            ", ".join(channel.queue or channel.id for channel in found[:4]),
            f"reset {', '.join(halted(facts))}, whose halt may have left them behind, or reboot; "
            "if they stay, unload the other DMA device's driver (rmmod ioatdma)"
            if left
            else "unload the other DMA device's driver (rmmod ioatdma), disable queues that are "
            "shared or too small, or name their devices in engine.work_queues; where `dmesg` has "
            "a DSA device that halted, reset it or reboot",
        )


def _when_starting(facts: Facts, desired: Desired) -> Facts:
    """Return the facts when the queues will be as wanted and the DSA is about to start."""
    then = facts
    changing = _changing_devices(facts, desired)
    for device in changing:
        if device.state == "enabled":
            then = project(then, StopDevice(device.id))
    for config in desired.queues:
        if any(device.id == config.id for device in changing):
            then = project(then, LoadDevice(config))
    if not on(facts, "dsa_state"):
        return then
    # what the engine holds now it gives back first
    given = tuple(replace(c, in_use=0) if c.queue else c for c in then.channels)
    return replace(then, channels=given)


def concurrency_fits(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """Concurrent lists overrun the descriptors of few channels on a seed kernel."""
    if facts.kernel.family != "seed" or not _wants_dsa(desired):
        return

    def after(knob: str) -> int | None:
        wanted = desired.wants(knob)
        return live(facts, knob) if wanted is None else wanted

    concurrent = after("use_concur_to_compact") or after("use_concur_to_demote")
    if concurrent and after("limit_chans") != SEED_BATCH_CHANS:
        yield Finding(
            "blocker",
            "concurrency-fits",
            "limit_chans",
            f"{SEED_BATCH_CHANS} with concurrent migration on a seed kernel",
            str(after("limit_chans")),
            "set limit_chans 8, or use_concur_to_compact and use_concur_to_demote to false",
        )


def dsa_can_be_freed(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """A seed kernel frees a half-started DSA twice."""
    if facts.kernel.family != "seed" or not _frees_dsa(facts, desired) or releasable(facts):
        return
    if not held(facts) and facts.dsa_released is False:
        return
    yield Finding(
        "reboot",
        "dsa-can-be-freed",
        "dsa_state",
        f"{live(facts, 'limit_chans')} DMA channels in use",
        f"{len(held(facts))}: a start had failed, channels are gone or limit_chans was changed",
        "reboot: a seed kernel would free some twice, or lose some",
    )


def quiet_can_be_had(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """What pauses tiering for the way down must be able to bring it back.

    The same for tiering that goes on: CPUs and swap that come back must not get in its way.
    """
    resumes = [
        knob
        for knob, values in (("numa_balancing", (2, 3)), ("demotion_enabled", (1,)))
        if desired.wants(knob) is None and live(facts, knob) in values
    ]
    swaps = _with_swaps(facts, desired)
    comes_back = any(area not in facts.swaps for area in swaps)
    if not resumes or not (comes_back or _frees_dsa(facts, desired) or descent(facts, desired)):
        return
    slow = node(_with_cpus(facts, desired), desired.slow_node)
    if slow is not None and slow.cpus:
        yield Finding(
            "blocker",
            "quiet-can-be-had",
            ", ".join(resumes),
            f"a slow node {desired.slow_node} without CPUs, so that tiering can resume",
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


def knobs_uncontested(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """No other tool should be set up to write the same knobs."""
    ours = set(desired.knobs or {}) | ({"queues"} if desired.queues else set())
    for writer in facts.others:
        shared = sorted(ours & set(writer.items))
        if shared:
            yield Finding(
                "warning",
                "knobs-uncontested",
                writer.path,
                "one writer for each knob",
                f"{writer.tool} sets {', '.join(shared)}",
                f"take {'them' if len(shared) > 1 else 'it'} out of {writer.path}",
            )


REQUIREMENTS: tuple[Requirement, ...] = (
    known_kernel,
    knobs_present,
    values_in_range,
    threads_whole,
    tiers_exist,
    tiers_apart,
    tiering_conditions,
    watermark_order,
    cpus_can_go,
    devices_there,
    devices_can_stop,
    accel_config_there,
    queues_enough,
    kernel_configured,
    dsa_healthy,
    addresses_untranslated,
    channels_ours_alone,
    concurrency_fits,
    dsa_can_be_freed,
    quiet_can_be_had,
    swap_fits,
    knobs_uncontested,
)
