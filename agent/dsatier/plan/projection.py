# SPDX-License-Identifier: Apache-2.0
"""Projection: what the facts will be when a request has been carried out and all went well."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from dsatier.facts.knobs import BATCHED, KnobName
from dsatier.facts.model import Channel, DsaDevice, Facts, NumaNode, WorkQueue
from dsatier.facts.onlining import brought
from dsatier.facts.readings import free, held, live, tiered, worst
from dsatier.facts.tiers import Tiers
from dsatier.plan.model import NodeCpus
from dsatier.plan.requests import (
    BindDevice,
    LoadDevice,
    OnlineMemory,
    Request,
    SetCpu,
    SetIommu,
    SetKnob,
    SetTimer,
    StirCpu,
    StopDevice,
    SwapOff,
    SwapOn,
)
from dsatier.queues.config import DeviceConfig, QueueConfig, number_of

RECOMPUTE: tuple[KnobName, ...] = (
    "demote_scale_factor",
    "watermark_scale_factor",
    "thp_enabled",
)
"""The knobs with which the kernel works out all watermarks anew, whatever is written."""

SINGLE: dict[KnobName, str] = {
    "use_concur_to_compact": "compaction",
    "use_concur_to_demote": "demotion",
}
"""Reasons to copy lists that have a knob of their own: each is a bit of all reasons."""


def project(facts: Facts, request: Request, tiers: Tiers) -> Facts:
    """Return the facts after ``request``. A CPU that comes online is one of the slow node's.

    Unless the request says another.
    """
    match request:
        case SetKnob():
            return _knob(facts, request, tiers)
        case SetCpu(cpu, online, node):
            of = tiers.home if node is None else node
            # one of the slow node that goes is counted still
            return _retargeted(_cpu(facts, cpu, online, of), tiers, none=of in tiers.slow)
        case StirCpu():
            return _retargeted(facts, tiers, none=False)
        case LoadDevice(device):
            return _load(facts, device)
        case StopDevice(device):
            return _stop(facts, device)
        case SetIommu(device, _, _, kind):
            return _translated(facts, device, kind)
        case BindDevice(pci):
            return replace(facts, unbound=tuple(one for one in facts.unbound if one.pci != pci))
        case OnlineMemory(name, _, blocks, zone):
            return _with_memory(brought(facts, name, blocks, zone), tiers)
        case SwapOff(area):
            return replace(facts, swaps=tuple(s for s in facts.swaps if s.path != area.path))
        case SwapOn(area):
            return replace(facts, swaps=(*facts.swaps, replace(area, used=0)))
        case SetTimer():
            return facts


def switched(
    facts: Facts,
    *,
    offline: Iterable[int] = (),
    online: Iterable[NodeCpus] = (),
    tiers: Tiers,
) -> Facts:
    """Return the facts with CPUs switched: those that go offline are of the slow node."""
    for cpu in offline:
        facts = _cpu(facts, cpu, False, tiers.home)
    for one in online:
        for cpu in one.cpus:
            if cpu in facts.offline_cpus:
                facts = _cpu(facts, cpu, True, one.node)
    return facts


def _with_memory(facts: Facts, tiers: Tiers) -> Facts:
    """Return the facts when memory has come: the kernel works out watermarks and targets anew."""
    nodes = tuple(_remarked(one, facts, tiers) for one in facts.nodes)
    return _retargeted(replace(facts, nodes=nodes), tiers, none=False)


def _knob(facts: Facts, request: SetKnob, tiers: Tiers) -> Facts:
    before = live(facts, request.knob)
    knobs = {**facts.knobs, request.knob: str(request.value)}
    if "migrate_batch_reasons" in facts.knobs:
        knobs |= _reasons(knobs, request)
    channels, devices = facts.channels, facts.devices
    released = facts.dsa_released
    if request.knob == "dsa_state" and before != request.value:
        if request.value:
            taken = set(free(facts)[: live(facts, "limit_chans") or 0])
            channels = tuple(
                replace(c, in_use=1) if c.queue in taken and not c.in_use else c for c in channels
            )
            devices = _with_clients(devices, taken, 1)
        else:
            given = held(facts)[: live(facts, "limit_chans") or 0]
            ids = {c.id for c in given}
            channels = tuple(replace(c, in_use=0) if c.id in ids else c for c in channels)
            devices = _with_clients(devices, {c.queue for c in given}, 0)
            released = True
    nodes = facts.nodes
    if request.knob in RECOMPUTE:
        nodes = tuple(_remarked(n, facts, tiers) for n in facts.nodes)
    return replace(
        facts,
        knobs=knobs,
        devices=devices,
        channels=channels,
        dsa_released=released,
        nodes=nodes,
    )


def _reasons(knobs: dict[str, str], request: SetKnob) -> dict[str, str]:
    """Return two of the reasons to copy lists as they read by themselves, and all of them."""
    bits = int(knobs["migrate_batch_reasons"])
    for name, reason in SINGLE.items():
        bit = BATCHED[reason]
        if request.knob == name:
            bits = bits | bit if request.value else bits & ~bit
        knobs[name] = str(int(bool(bits & bit)))
    return knobs | {"migrate_batch_reasons": str(bits)}


def _remarked(node: NumaNode, facts: Facts, tiers: Tiers) -> NumaNode:
    """Return a node with the demotion watermark that is worked out now, where one is shown.

    How many pages it will be does not matter here. TPP keeps its mark without memory tiering, too.
    """
    if node.demotion_watermark is None:
        return node
    if tiered(facts):
        fresh = node.id in tiers.fast and node.demotion_watermark == 0
        return replace(node, demotion_watermark=1) if fresh else node
    return replace(node, demotion_watermark=0) if facts.kernel.family == "ours" else node


def _retargeted(facts: Facts, tiers: Tiers, *, none: bool) -> Facts:
    """Return the facts with the demotion target that a CPU event gives, where one is shown."""
    slow = next((n.id for n in tiers.slow_of(facts) if not n.cpus), -1)
    target = -1 if none else slow
    nodes = tuple(
        replace(n, demotion_target=target)
        if n.id in tiers.fast and n.demotion_target is not None
        else n
        for n in facts.nodes
    )
    return replace(facts, nodes=nodes)


def _with_clients(
    devices: tuple[DsaDevice, ...], queues: Collection[str | None], clients: int
) -> tuple[DsaDevice, ...]:
    """Return the devices with that many clients on each of ``queues``."""
    found = []
    for device in devices:
        if any(queue.id in queues for queue in device.queues):
            changed = tuple(
                replace(queue, clients=clients) if queue.id in queues else queue
                for queue in device.queues
            )
            total = sum(queue.clients for queue in changed)
            found.append(replace(device, queues=changed, clients=total))
        else:
            found.append(device)
    return tuple(found)


def _cpu(facts: Facts, cpu: int, online: bool, node: int) -> Facts:
    if not online:
        nodes = tuple(
            replace(n, cpus=tuple(c for c in n.cpus if c != cpu)) if cpu in n.cpus else n
            for n in facts.nodes
        )
        return replace(facts, nodes=nodes, offline_cpus=tuple(sorted({*facts.offline_cpus, cpu})))
    nodes = tuple(
        replace(n, cpus=tuple(sorted({*n.cpus, cpu}))) if n.id == node else n for n in facts.nodes
    )
    return replace(
        facts, nodes=nodes, offline_cpus=tuple(c for c in facts.offline_cpus if c != cpu)
    )


def _with_device(facts: Facts, device: DsaDevice, channels: tuple[Channel, ...]) -> Facts:
    devices = tuple(device if d.id == device.id else d for d in facts.devices)
    return replace(facts, devices=devices, channels=channels)


def _channels_without(facts: Facts, device: DsaDevice) -> tuple[Channel, ...]:
    gone = {queue.id for queue in device.queues}
    return tuple(c for c in facts.channels if c.queue not in gone)


def _load(facts: Facts, config: DeviceConfig) -> Facts:
    device = next((d for d in facts.devices if d.id == config.id), None)
    if device is None:
        return facts
    groups = {number_of(e.id): e.group for e in config.engines}
    queues = tuple(_queue(device, queue) for queue in config.queues)
    loaded = replace(
        device,
        state="enabled",
        engines=tuple(groups.get(n, -1) for n in range(len(device.engines))),
        queues=tuple(
            next((q for q in queues if q.id == old.id), replace(old, state="disabled"))
            for old in device.queues
        ),
    )
    channels = tuple(
        Channel(f"{device.id}chan{number}", queue.id, 0)
        for number, queue in enumerate(queues)
        if queue.type == "kernel" and queue.driver_name in (None, "dmaengine")
    )
    return _with_device(facts, loaded, (*_channels_without(facts, device), *channels))


def _queue(device: DsaDevice, config: QueueConfig) -> WorkQueue:
    old = next((q for q in device.queues if q.id == config.id), None)
    return WorkQueue(
        id=config.id,
        state="enabled",
        type=config.type,
        mode=config.mode,
        name=config.name,
        driver_name=config.driver_name,
        group=config.group,
        size=config.size,
        priority=config.priority,
        threshold=config.threshold or 0,
        block_on_fault=bool(config.block_on_fault),
        max_batch_size=config.max_batch_size or (old or device).max_batch_size,
        max_transfer_size=config.max_transfer_size or (old or device).max_transfer_size,
        clients=0,
    )


def _stop(facts: Facts, name: str) -> Facts:
    device = next((d for d in facts.devices if d.id == name), None)
    if device is None:
        return facts
    stopped = replace(
        device,
        state="disabled",
        engines=tuple(-1 for _ in device.engines),
        queues=tuple(replace(q, state="disabled", group=-1, clients=0) for q in device.queues),
    )
    return _with_device(facts, stopped, _channels_without(facts, device))


def _translated(facts: Facts, name: str, kind: str) -> Facts:
    devices = tuple(
        replace(d, group=replace(d.group, type=kind)) if d.id == name and d.group else d
        for d in facts.devices
    )
    return replace(facts, devices=devices, iommu=worst(d.group for d in devices))
