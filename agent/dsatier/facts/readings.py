# SPDX-License-Identifier: Apache-2.0
"""Readings: what facts mean for page migration, as small questions with one answer each."""

from __future__ import annotations

from dsatier.facts.knobs import CONCURRENT, KNOBS, SEED_CHANS, TIERING_MODES, KnobName
from dsatier.facts.model import (
    Channel,
    DsaDevice,
    Facts,
    Iommu,
    IommuGroup,
    NumaNode,
    Unbound,
    WorkQueue,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from dsatier.facts.model import Facts


SEED_BATCH = 128
"""Least max_batch_size of a queue that a seed kernel may use, in descriptors."""
SEED_TRANSFER = 2 << 20
"""Least max_transfer_size of a queue that a seed kernel may use, in bytes."""
_BALANCES_AT_BOOT = "CONFIG_NUMA_BALANCING_DEFAULT_ENABLED"
_TYPES: dict[str, Iommu] = {
    "identity": "passthrough",
    "DMA": "translated",
    "DMA-FQ": "translated",
}
TYPES_WRITTEN = (5, 11)
"""The first kernel that lets the type of an IOMMU group be written."""
WHOLE_GROUPS = (6, 4)
"""The first that does so for a group of several devices."""
OOPSED = 1 << 7
"""The bit of /proc/sys/kernel/tainted that an oops sets."""


def node(facts: Facts, number: int) -> NumaNode | None:
    """Return the node of that number, None where the host has none."""
    return next((node for node in facts.nodes if node.id == number), None)


def device(facts: Facts, name: str) -> DsaDevice | None:
    """Return the DSA device of that name, None where the host has none."""
    return next((device for device in facts.devices if device.id == name), None)


def on(facts: Facts, knob: KnobName) -> bool:
    """Tell whether a knob is there and not 0."""
    return bool(live(facts, knob))


def concurrent(facts: Facts) -> bool:
    """Tell whether some lists of pages migrate concurrently."""
    return any(on(facts, knob) for knob in CONCURRENT)


def tiered(facts: Facts) -> bool:
    """Tell whether balancing is in one of the modes of memory tiering."""
    return live(facts, "numa_balancing") in TIERING_MODES


def demotes_to_disk(facts: Facts) -> bool:
    """Tell whether demotion goes to disk while swap is on.

    The research kernels reclaim to swap what they should demote. Kernels based on mainline demote
    first, ours too; what then goes to swap is what found no room on the slow node.
    """
    return facts.kernel.family == "seed"


def tiering_on(facts: Facts) -> bool:
    """Tell whether the kernel moves pages between the tiers by itself."""
    return tiered(facts) or on(facts, "demotion_enabled")


def may_balance_untold(facts: Facts) -> bool:
    """Tell whether balancing may be on though it reads 0: a TPP kernel that was booted with it.

    It does not tell before ``numa_balancing`` is first written.
    """
    if facts.kernel.family != "seed" or "demote_scale_factor" not in facts.knobs:
        return False
    config = facts.kernel.config
    told_off = config is not None and config.get(_BALANCES_AT_BOOT) != "y"
    return not told_off and live(facts, "numa_balancing") == 0


def migration_quiet(facts: Facts) -> bool:
    """Tell whether neither engine nor tiering starts new copies on a device, by their knobs."""
    return not (
        on(facts, "use_dsa_copy_pages")
        or on(facts, "numa_balancing")
        or on(facts, "demotion_enabled")
    )


def held(facts: Facts) -> tuple[Channel, ...]:
    """Return the DSA channels that somebody holds."""
    return tuple(c for c in facts.channels if c.queue is not None and c.in_use)


def unfit(queue: WorkQueue, device: DsaDevice, facts: Facts) -> str | None:
    """Return why the engine cannot use a queue, None where it can."""
    if device.state != "enabled":
        return f"{device.id} is {device.state}"
    if queue.state != "enabled":
        return f"{queue.id} is {queue.state}"
    if queue.type != "kernel":
        return f"{queue.id} is of type {queue.type}, not kernel"
    if queue.mode != "dedicated":
        return f"{queue.id} is {queue.mode}, not dedicated"
    if facts.kernel.family == "seed":
        if queue.max_batch_size < SEED_BATCH:
            return f"{queue.id} has max_batch_size {queue.max_batch_size}, not {SEED_BATCH} or more"
        if queue.max_transfer_size < SEED_TRANSFER:
            return (
                f"{queue.id} has max_transfer_size {queue.max_transfer_size}, "
                f"not {SEED_TRANSFER} or more"
            )
    return None


def usable(facts: Facts) -> tuple[str, ...]:
    """Return the names of the queues that the engine could take now, held ones included."""
    return tuple(
        queue.id
        for device in facts.devices
        for queue in device.queues
        if unfit(queue, device, facts) is None
    )


def free(facts: Facts) -> tuple[str, ...]:
    """Return the usable queues whose channel nobody holds."""
    fit = set(usable(facts))
    return tuple(c.queue for c in facts.channels if c.queue in fit and not c.in_use)


def foreign(facts: Facts) -> tuple[Channel, ...]:
    """Return the free channels that a seed kernel would take and could not use.

    It asks for any memory-to-memory channel, and takes the first that is free. That may be one of
    another DMA device, or of a work queue that is shared or too small.
    """
    fit = set(usable(facts))
    return tuple(c for c in facts.channels if not c.in_use and c.queue not in fit)


def initialised(facts: Facts) -> bool:
    """Tell whether the DSA is initialised: by the channels held, not by the knob alone.

    A seed kernel's ``dsa_state`` reads 1 after a failed init, too.
    """
    chans = live(facts, "limit_chans")
    return on(facts, "dsa_state") and chans is not None and 0 < chans <= len(held(facts))


def releasable(facts: Facts) -> bool:
    """Tell whether a seed kernel would give back exactly the channels that it holds.

    It gives back ``limit_chans`` of them, whatever it took: a start that failed frees some
    twice, a ``limit_chans`` that somebody has changed since leaves some behind for ever.
    """
    return initialised(facts) and live(facts, "limit_chans") == len(held(facts))


def used(facts: Facts, named: Collection[str] = ()) -> tuple[DsaDevice, ...]:
    """Return the devices that the engine uses.

    Those whose channels it holds, those that no longer serve the channels that it has of them,
    and those of the names ``named``. What others do with all others is no fault of the engine.
    """
    queues = {channel.queue for channel in held(facts)}
    return tuple(
        device
        for device in facts.devices
        if device.id in named
        or any(queue.id in queues for queue in device.queues)
        or stranded(facts, device)
    )


def halted(facts: Facts, named: Collection[str] = ()) -> tuple[str, ...]:
    """Return the devices that have halted among those that the engine uses."""
    return tuple(device.id for device in used(facts, named) if down(device))


def serves(device: DsaDevice) -> bool:
    """Tell whether a device has a queue that somebody could use."""
    return any(queue.state == "enabled" for queue in device.queues)


def down(device: DsaDevice) -> bool:
    """Tell whether a device has halted. An idle one may have, too, and not say so."""
    return device.state not in ("enabled", "disabled")


def stranded(facts: Facts, device: DsaDevice) -> bool:
    """Tell whether the kernel still holds channels that the device no longer serves.

    It halted, or a queue was taken from it, while they were held: what is off has clients,
    and there are channels in use that belong to no queue. A program that has such a queue
    open is a client, too, but of no channel; it can be stopped.
    """
    lost = any(queue.clients for queue in device.queues if queue.state != "enabled")
    if not (lost or (device.state != "enabled" and device.clients > 0)):
        return False
    return any(channel.in_use and channel.queue is None for channel in facts.channels)


def others_hold(facts: Facts, device: DsaDevice) -> bool:
    """Tell whether somebody but the engine holds a queue of the device.

    The engine holds exactly ``limit_chans`` channels when it is initialised; it
    gives them back before its devices change.
    """
    users = any(queue.clients for queue in device.queues if queue.type != "kernel")
    kernel_clients = any(queue.clients for queue in device.queues if queue.type == "kernel")
    return users or (kernel_clients and not on(facts, "dsa_state"))


def worst(groups: Iterable[IommuGroup | None]) -> Iommu:
    """Return how devices of these IOMMU groups are translated: the worst of them.

    A device in no group is behind no IOMMU.
    """
    kinds = {"off" if group is None else _TYPES.get(group.type, "unknown") for group in groups}
    order: tuple[Iommu, ...] = ("translated", "unknown", "passthrough", "off")
    return next((kind for kind in order if kind in kinds), "unknown")


def engine_iommu(facts: Facts) -> Iommu:
    """Return how the devices are translated that are on, and so may copy for the engine."""
    if not any(device.group for device in facts.devices):
        return facts.iommu
    enabled = [device.group for device in facts.devices if device.state == "enabled"]
    return worst(enabled) if enabled else facts.iommu


def release(facts: Facts) -> tuple[int, ...]:
    """Return major and minor number of the kernel's release."""
    words = facts.kernel.release.replace("-", ".").split(".")[:2]
    return tuple(number(word) or 0 for word in words)


def loose(facts: Facts, pci: str) -> Unbound | None:
    """Return the device at a PCI address that no driver has, None where one has it."""
    return next((one for one in facts.unbound if one.pci == pci), None)


def fixed_iommu(facts: Facts, group: IommuGroup | None) -> str | None:
    """Return why the type of a device's IOMMU group cannot be written, None where it can."""
    if group is None or not group.type:
        return "the kernel tells no type of it"
    if release(facts) < TYPES_WRITTEN:
        return f"kernel {facts.kernel.release} lets nobody write it; 5.11 and newer do"
    if held := [other for other in group.others if other.driver]:
        return f"{held[0].pci} is in it, too, and {held[0].driver} has that"
    if group.others and release(facts) < WHOLE_GROUPS:
        return f"{group.others[0].pci} is in it, too, which only kernel 6.4 and newer allow"
    return None


def closed_iommu(facts: Facts, group: IommuGroup | None) -> str | None:
    """Return why dsatier cannot write that type, None where it can: its unit must allow it, too."""
    lacks = " and ".join(facts.unit_lacks)
    return fixed_iommu(facts, group) or (f"dsatier.service lacks {lacks}" if lacks else None)


def oopsed(facts: Facts) -> bool:
    """Tell whether the kernel has oopsed since it booted."""
    return bool(facts.boot_taint & OOPSED)


def effective_threads_broken(facts: Facts) -> bool:
    """Tell whether a seed kernel's CPU threads would lose bytes with ``limit_mt_num`` as it is."""
    count = live(facts, "limit_mt_num")
    return facts.kernel.family == "seed" and count is not None and count not in thread_counts(facts)


def failed_copies(facts: Facts, mark: int) -> int:
    """Return how many copies by the DSA have failed since the kernel's counter stood at ``mark``.

    Starting the timer clears the counter: where it is lower, all that it counts is new.
    """
    found = facts.timer.get("dsa_copy_fail", mark)
    return found - mark if found >= mark else found


def number(text: str) -> int | None:
    """Return the number that a knob's text stands for, None where it is none.

    ``demotion_enabled`` reads true and false.
    """
    text = text.strip()
    if text in ("true", "false"):
        return int(text == "true")
    digits = text.removeprefix("-")
    return int(text) if digits.isdecimal() and digits.isascii() else None


def live(facts: Facts, name: KnobName) -> int | None:
    """Return a knob's live value, None where this kernel has no such knob or it reads nonsense."""
    text = facts.knobs.get(name)
    return None if text is None else number(text)


def thread_counts(facts: Facts) -> frozenset[int]:
    """Return the values of ``limit_mt_num`` that lose no byte on a seed kernel.

    A seed kernel clamps the value to the online CPUs of the node that it happens to run on, and
    the result must be a power of two. So the value must fit every node that has CPUs.
    """
    fewest = min((len(node.cpus) for node in facts.nodes if node.cpus), default=1)
    return frozenset(n for n in (1, 2, 4, 8, 16, 32) if n <= fewest)


def value_refusal(name: KnobName, value: int, facts: Facts) -> str | None:
    """Return why this kernel cannot take ``value``, None where it can."""
    knob = KNOBS[name]
    if not knob.low <= value <= knob.high:
        span = str(knob.low) if knob.low == knob.high else f"{knob.low} to {knob.high}"
        return f"{name}: expected {span}, found {value}"
    if odd := knob.flags and value & ~sum(knob.flags.values()):
        return f"{name}: expected bits of {', '.join(knob.flags)}, found {odd} in {value}"
    if facts.kernel.family != "seed":
        return None
    if name == "numa_balancing" and value > 1 and "demote_scale_factor" not in facts.knobs:
        return f"numa_balancing: expected 0 or 1 on this seed kernel (memtis), found {value}"
    if name == "limit_chans" and value not in SEED_CHANS:
        return (
            f"limit_chans: expected 1, 2, 4 or 8 on a seed kernel, found {value}: "
            "the last bytes of each huge page would be lost"
        )
    if name == "limit_mt_num" and value not in thread_counts(facts):
        allowed = ", ".join(map(str, sorted(thread_counts(facts))))
        return (
            f"limit_mt_num: expected one of {allowed} on this seed kernel, found {value}: "
            "the last bytes of pages would be lost"
        )
    return None
