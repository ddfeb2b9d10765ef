# SPDX-License-Identifier: Apache-2.0
"""What the DSA as copy engine needs of a host: devices, queues, channels, health. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dsatier.facts.knobs import CONCURRENT, SEED_BATCH_CHANS, KnobName
from dsatier.facts.model import DsaDevice, Facts
from dsatier.facts.readings import (
    SEED_BATCH,
    SEED_TRANSFER,
    down,
    engine_iommu,
    fixed_iommu,
    foreign,
    held,
    live,
    on,
    oopsed,
    others_hold,
    releasable,
    stranded,
    unfit,
    used,
)
from dsatier.plan.model import Desired, Finding
from dsatier.plan.outlook import (
    changing_devices,
    frees_dsa,
    reloaded,
    retyped,
    starts_dsa,
    wants_dsa,
)
from dsatier.plan.projection import project
from dsatier.plan.requests import LoadDevice, SetIommu, StopDevice
from dsatier.queues.config import NAME, QueueConfig, excess, recent

DROP_IN = "/usr/share/dsatier/past-iommu.conf"
ACCEL_CONFIG_AT_LEAST = (3, 5)
ACCEL_CONFIG_SETS_ALL = (4, 1)
"""The first that sets every key of ``queues.config.recent``."""


def devices_there(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """The devices to configure must be there, alive, and nobody else's."""
    found = {device.id: device for device in facts.devices}
    absent = [config.id for config in desired.queues if config.id not in found]
    if absent:
        yield Finding(
            "blocker",
            "devices-there",
            "DSA devices",
            f"{', '.join(absent)} besides {', '.join(found) or 'none'}",
            f"{len(found)} devices" + _elsewhere(facts),
            _fetch(facts),
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
                "reboot: neither `dsatier detach` nor a reset of the device takes it back from "
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
        elif others_hold(facts, device) and device in changing_devices(facts, desired):
            yield Finding(
                "blocker",
                "devices-there",
                config.id,
                "a device that nobody else uses",
                f"{device.clients or 'some'} clients",
                "stop its user (`accel-config list`), or name other devices",
            )


def _elsewhere(facts: Facts) -> str:
    """Return in words which DSA devices another driver has, empty where none has any."""
    names = ", ".join(f"{one.pci} at {one.driver}" for one in facts.elsewhere)
    return f", and {names}" if names else ""


def _fetch(facts: Facts) -> str:
    """Return how devices that are not there are to be had."""
    if facts.unbound:
        return (
            f"write {facts.unbound[0].pci}, which no driver has, to /sys/bus/pci/drivers/idxd/bind"
        )
    if not facts.elsewhere:
        return "enable the DSA in the BIOS and load idxd (CONFIG_INTEL_IDXD), or name fewer devices"
    one = facts.elsewhere[0]
    device = f"/sys/bus/pci/devices/{one.pci}"
    return (
        f"take them from {one.driver}, if their user can do without: write {one.pci} to "
        f"{device}/driver/unbind, idxd to {device}/driver_override and {one.pci} to "
        "/sys/bus/pci/drivers_probe; or name fewer devices"
    )


def queues_are_ours(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """Queues that somebody else has set up go away when their device is configured anew.

    That nobody has one open now does not say that nobody will.
    """
    wanted = {config.id: config for config in desired.queues}
    for device in changing_devices(facts, desired):
        config = wanted.get(device.id)
        kept = {(q.id, q.type, q.name) for q in config.queues} if config else set()
        others = [
            f"{queue.id} ({queue.type}, {queue.name or 'no name'})"
            for queue in device.queues
            if queue.state == "enabled"
            and (queue.type, queue.name) != ("kernel", NAME)
            and (queue.id, queue.type, queue.name) not in kept
        ]
        if others:
            yield Finding(
                "warning",
                "queues-are-ours",
                device.id,
                "no queue that somebody else has set up",
                f"{', '.join(others)}, which will be gone",
                "name other devices in engine.work_queues, if somebody needs them",
            )


def _reset(device: DsaDevice) -> str:
    """Return how a halted device that nobody holds comes back."""
    if not device.pci:
        return "reset the device (FLR) or reboot"
    return (
        f"reset it (unbind {device.pci} from idxd, write 1 to "
        f"/sys/bus/pci/devices/{device.pci}/reset, bind it again) or reboot"
    )


def devices_can_stop(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """A device without event log cannot be disabled on a kernel with the defect."""
    if facts.kernel.evl_guard:
        return
    for device in changing_devices(facts, desired):
        if device.state == "enabled" and not device.event_log:
            yield Finding(
                "reboot",
                "devices-can-stop",
                device.id,
                "a kernel on which it can be disabled",
                f"kernel {facts.kernel.release}, which then oopses",
                "reboot, so that it starts disabled; dsatier's kernel does not have that defect",
            )


def accel_config_there(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """Accel-config loads the queues."""
    if not changing_devices(facts, desired):
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
    elif version < ACCEL_CONFIG_SETS_ALL:
        changing = {device.id for device in changing_devices(facts, desired)}
        coming = [config for config in desired.queues if config.id in changing]
        asked = {key for config in coming for key in recent(config)}
        if asked:
            yield Finding(
                "blocker",
                "accel-config-there",
                "accel-config",
                f"version 4.1 or newer for {', '.join(sorted(asked))}",
                f"{facts.accel_config}, which ignores them",
                "install a newer accel-config, or remove these keys from the file",
            )


def queues_enough(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """The engine needs as many fit queues as it takes channels."""
    if not starts_dsa(facts, desired):
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
        detail = f" ({'; '.join(tuple(dict.fromkeys(why))[:3])})" if why else ""
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


def dsa_healthy(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """The DSA may start only on a kernel and devices that are whole."""
    if not wants_dsa(desired):
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
    for device in used(facts):
        if down(device) and device.id not in named:
            yield Finding(
                "reboot",
                "dsa-healthy",
                device.id,
                "no halted device among those that the engine uses",
                device.state,
                "reboot" if stranded(facts, device) else _reset(device),
            )


def addresses_untranslated(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """A seed kernel hands raw addresses to the device."""
    if not starts_dsa(facts, desired):
        return
    then = _when_typed(_when_starting(facts, desired), desired)
    found = engine_iommu(then)
    remedy = "boot with `intel_iommu=on,sm_on iommu=pt`"
    named = {config.id for config in desired.queues}
    if named and not any(fixed_iommu(facts, d.group) for d in facts.devices if d.id in named):
        remedy = (
            "set `iommu: identity` in the profile's engine.work_queues (the devices can then reach "
            f"all memory, and only the kernel's driver decides what they copy), or {remedy}"
        )
    if facts.kernel.family == "seed" and found not in ("off", "passthrough"):
        yield Finding(
            "blocker",
            "addresses-untranslated",
            "IOMMU",
            "passthrough",
            found,
            remedy,
        )
    elif found == "translated":
        yield Finding(
            "warning",
            "addresses-untranslated",
            "IOMMU",
            "passthrough",
            "translated: copies slow down when mappings miss",
            remedy,
        )
    elif found == "passthrough" and not facts.scalable_mode:
        yield Finding(
            "warning",
            "addresses-untranslated",
            "IOMMU",
            "scalable mode",
            "no sm_on among the boot parameters",
            "boot with `intel_iommu=on,sm_on`; a Sapphire Rapids may also need `no5lvl`",
        )


def _when_typed(facts: Facts, desired: Desired) -> Facts:
    """Return the facts when the IOMMU groups of devices have the types that they are to have."""
    for device in retyped(facts, desired):
        if device.group is not None:
            kind = (desired.iommu or {})[device.id]
            request = SetIommu(device.id, device.pci, device.group.id, kind)
            facts = project(facts, request, desired.tiers)
    return facts


def iommu_can_change(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """The IOMMU group of a device takes another type where the device is alone in it."""
    for device in retyped(facts, desired):
        why = fixed_iommu(facts, device.group)
        if why is not None and device.group is not None:
            yield Finding(
                "blocker",
                "iommu-can-change",
                f"IOMMU group {device.group.id} of {device.id}",
                "a type that can be written",
                f"{device.group.type}, and {why}",
                "boot with `intel_iommu=on,sm_on iommu=pt`, or remove `iommu` from "
                "engine.work_queues",
            )


def unit_rights(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """The daemon's unit ships without the right to change how addresses are translated."""
    if facts.unit_lacks and retyped(facts, desired):
        yield Finding(
            "blocker",
            "unit-rights",
            "dsatier.service",
            "the right to write types of IOMMU groups",
            f"it lacks {' and '.join(facts.unit_lacks)}",
            f"`install -D -t /etc/systemd/system/dsatier.service.d {DROP_IN}`, `systemctl "
            "daemon-reload` and `systemctl restart dsatier`, or remove `iommu` from "
            "engine.work_queues",
        )


def channels_ours_alone(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """A seed kernel takes any free memory-to-memory DMA channel for DSA's."""
    if facts.kernel.family != "seed" or not starts_dsa(facts, desired):
        return
    found = foreign(_when_starting(facts, desired))
    if found:
        halted = ", ".join(device.id for device in facts.devices if down(device))
        left = bool(halted) and not any(channel.queue for channel in found)
        yield Finding(
            "reboot" if left else "blocker",
            "channels-ours-alone",
            "/sys/class/dma",
            "no free channel but of queues that the engine can use",
            ", ".join(channel.queue or channel.id for channel in found[:4]),
            f"reset {halted}, whose halt may have left them behind, or reboot; "
            "if they stay, unload the other DMA device's driver (rmmod ioatdma)"
            if left
            else "unload the other DMA device's driver (rmmod ioatdma), disable queues that are "
            "shared or too small, or name their devices in engine.work_queues; where `dmesg` has "
            "a DSA device that halted, reset it or reboot",
        )


def _when_starting(facts: Facts, desired: Desired) -> Facts:
    """Return the facts when the queues will be as wanted and the DSA is about to start."""
    then = facts
    changing = changing_devices(facts, desired)
    for device in changing:
        if device.state == "enabled":
            then = project(then, StopDevice(device.id), desired.tiers)
    for config in (*desired.queues, *reloaded(facts, desired)):
        if any(device.id == config.id for device in changing):
            then = project(then, LoadDevice(config), desired.tiers)
    if not on(facts, "dsa_state"):
        return then
    # what the engine holds now it gives back first
    given = tuple(replace(c, in_use=0) if c.queue else c for c in then.channels)
    return replace(then, channels=given)


def concurrency_fits(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """Concurrent lists overrun the descriptors of few channels on a seed kernel."""
    if facts.kernel.family != "seed" or not wants_dsa(desired):
        return

    def after(knob: KnobName) -> int | None:
        wanted = desired.wants(knob)
        return live(facts, knob) if wanted is None else wanted

    concurrent = [knob for knob in CONCURRENT if after(knob)]
    if concurrent and after("limit_chans") != SEED_BATCH_CHANS:
        yield Finding(
            "blocker",
            "concurrency-fits",
            "limit_chans",
            f"{SEED_BATCH_CHANS} with concurrent migration on a seed kernel",
            str(after("limit_chans")),
            f"set limit_chans {SEED_BATCH_CHANS}, or {' and '.join(concurrent)} to false",
        )


def lists_fit(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """Memtis's own lists may need one descriptor more than a seed kernel has."""
    wanted = desired.wants("use_concur_for_htmm")
    if wanted is None:
        wanted = live(facts, "use_concur_for_htmm")
    if facts.kernel.family == "seed" and wants_dsa(desired) and wanted:
        yield Finding(
            "warning",
            "lists-fit",
            "use_concur_for_htmm",
            "0 with the DSA engine",
            "1: 24 huge pages with 8 to 15 base pages in a list use a descriptor too many",
            "set use_concur_for_htmm to false, or use another engine",
        )


def dsa_can_be_freed(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """A seed kernel frees a half-started DSA twice."""
    if facts.kernel.family != "seed" or not frees_dsa(facts, desired) or releasable(facts):
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
