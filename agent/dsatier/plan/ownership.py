# SPDX-License-Identifier: Apache-2.0
"""Whose a thing is: dsatier's where it wrote it last and its value still stands. Pure.

A thing is a knob, a CPU, a DSA device or a swap area. All others on a host are other people's,
and so is one of dsatier's that somebody else has written since.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from dsatier.facts.knobs import spelt
from dsatier.facts.model import DsaDevice, Facts
from dsatier.facts.onlining import memory_device
from dsatier.facts.readings import (
    closed_iommu,
    device,
    down,
    live,
    loose,
    others_hold,
    serves,
    stranded,
)
from dsatier.facts.tiers import Tiers
from dsatier.plan.originals import Originals, originals
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
from dsatier.queues.config import DeviceConfig, captured, differences, renamed

Thing = tuple[str, str | int]


def thing(request: Request) -> Thing:
    """Return what a request is about."""
    match request:
        case SetKnob(knob, _):
            return "knob", knob
        case SetCpu(cpu, _) | StirCpu(cpu):
            return "cpu", cpu
        case LoadDevice(config):
            return "device", config.id
        case StopDevice(name):
            return "device", name
        case SetIommu(name):
            return "iommu", name
        case SwapOff(area) | SwapOn(area):
            return "swap", area.path
        case BindDevice(pci):
            return "bind", pci
        case OnlineMemory(name):
            return "memory", name
        case SetTimer():
            return "timer", ""


def stands(request: Request, facts: Facts) -> bool:
    """Tell whether a thing is still as ``request`` left it, also where that was cut short."""
    match request:
        case SetKnob(knob, value):
            return live(facts, knob) == value
        case SetCpu(cpu, online):
            return (cpu not in facts.offline_cpus) == online
        case StirCpu(cpu):  # cut short: when it is done, the CPU is online again
            return cpu in facts.offline_cpus
        case LoadDevice(config):
            return _loaded(config, facts)
        case StopDevice(name):
            found = device(facts, name)
            return found is not None and found.state == "disabled"
        case SwapOff(area):
            return all(other.path != area.path for other in facts.swaps)
        case SwapOn(area):
            return any(other.path == area.path for other in facts.swaps)
        case SetIommu(name, pci, _, kind):
            found = device(facts, name)
            half_way = loose(facts, pci) is not None
            return half_way or bool(found and found.group and found.group.type == kind)
        case OnlineMemory(name, _, blocks):
            now = memory_device(facts, name)
            there = now.blocks if now else None
            return there is not None and set(blocks).isdisjoint(there.offline)
        case BindDevice() | SetTimer():
            return False


def _loaded(config: DeviceConfig, facts: Facts) -> bool:
    """Tell whether a device is on with queues of ``config`` and no others."""
    found = device(facts, config.id)
    if found is None or found.state != "enabled":
        return False
    ours = {(queue.id, queue.type, queue.name) for queue in config.queues}
    serving = (queue for queue in found.queues if queue.state != "disabled")
    return {(queue.id, queue.type, queue.name) for queue in serving} <= ours


def owned(before: Originals, facts: Facts) -> Originals:
    """Return the originals of what is dsatier's, with the names that devices have now."""
    if before.boot_id != facts.kernel.boot_id:
        return _only(before, frozenset())
    before = _followed(before, facts)
    if before.written is None:
        return before
    return _only(before, {thing(request) for request in before.written if stands(request, facts)})


def taken_over(before: Originals, facts: Facts) -> tuple[str, ...]:
    """Return in words what dsatier wrote and others have written since, where that matters."""
    before = _followed(before, facts)
    if before.boot_id != facts.kernel.boot_id or before.written is None:
        return ()
    ours = owned(before, facts)
    wrote = _only(before, set(map(thing, before.written)))
    knobs = (
        f"{name} is left at {spelt(name, live(facts, name) or 0)} (was {spelt(name, value)}): "
        "somebody else has set it since"
        for name, value in wrote.knobs.items()
        if name not in ours.knobs and live(facts, name) not in (None, value)
    )
    found = {one.id: one for one in facts.devices}
    theirs = (
        *(c.id for c in wrote.devices if c not in ours.devices and _differs(c, found)),
        *(n for n in wrote.idle_devices if n not in ours.idle_devices and _enabled(n, found)),
    )
    devices = (f"{name} is left as it is: somebody else has configured it since" for name in theirs)
    groups = (
        f"the IOMMU group of {name} is left at {now.type} (was {kind}): "
        "somebody else has set it since"
        for name, kind in (wrote.iommu or {}).items()
        if name not in (ours.iommu or {})
        and name in found
        and (now := found[name].group) is not None
        and now.type != kind
    )
    return (*knobs, *devices, *groups)


def memory_kept(before: Originals, facts: Facts) -> tuple[str, ...]:
    """Return in words which memory dsatier has brought online: it takes none away."""
    if before.boot_id != facts.kernel.boot_id:
        return ()
    kept = {
        d.id: d.blocks.all.difference(d.blocks.offline) for d in facts.memory_devices if d.blocks
    }
    names = dict.fromkeys(
        r.device
        for r in before.written or ()
        if isinstance(r, OnlineMemory) and kept.get(r.device, frozenset()).intersection(r.blocks)
    )
    return tuple(f"the memory of {name} is left online" for name in names)


def remaining(before: Originals, facts: Facts) -> Originals | None:
    """Return the originals of what is dsatier's and not as it was found, None where nothing is."""
    ours = owned(before, facts)
    on = {area.path for area in facts.swaps}
    found = {one.id: one for one in facts.devices}
    left: set[Thing] = {("knob", n) for n, value in ours.knobs.items() if live(facts, n) != value}
    left |= {("cpu", cpu) for cpu in ours.online_cpus if cpu in facts.offline_cpus}
    left |= {("cpu", cpu) for cpu in ours.fast_cpus if cpu in facts.offline_cpus}
    left |= {("swap", area.path) for area in ours.swaps if area.path not in on}
    left |= {("device", c.id) for c in ours.devices if _differs(c, found)}
    left |= {("device", name) for name in ours.idle_devices if _enabled(name, found)}
    left |= {("iommu", name) for name in retypable(ours, facts)}
    loose_ones = cut_short(ours, facts)
    left |= {
        thing(r) for r in ours.written or () if isinstance(r, SetIommu) and r.pci in loose_ones
    }
    if not left:
        return None
    whole = replace(ours, written=_since(ours, facts))
    return replace(
        _only(whole, left), written=tuple(r for r in whole.written or () if thing(r) in left)
    )


def retypable(ours: Originals, facts: Facts) -> dict[str, str]:
    """Return the types that IOMMU groups had, by device, where they have another one now."""
    found = {one.id: one.group for one in facts.devices}
    return {
        name: kind
        for name, kind in (ours.iommu or {}).items()
        if (group := found.get(name)) is not None and group.type != kind
    }


def cut_short(before: Originals | None, facts: Facts) -> dict[str, str]:
    """Return the devices that dsatier has left without a driver, by PCI address.

    Of each the type that its IOMMU group is to have when it gets one: as it was found, where that
    can be written.
    """
    if before is None or before.boot_id != facts.kernel.boot_id:
        return {}
    ours = {r.pci: r.device for r in before.written or () if isinstance(r, SetIommu)}
    types = before.iommu or {}
    return {
        one.pci: types.get(ours[one.pci], one.group.type)
        if one.group and closed_iommu(facts, one.group) is None
        else ""
        for one in facts.unbound
        if one.pci in ours
    }


def staying(ours: Originals, facts: Facts) -> dict[str, str]:
    """Return why the types of IOMMU groups cannot go back now, by device."""
    back = retypable(ours, facts)
    found = ((one.id, _why_stays(facts, one)) for one in facts.devices if one.id in back)
    return {name: why for name, why in found if why}


def returning(ours: Originals, facts: Facts) -> dict[str, str]:
    """Return the types that IOMMU groups get back now, by device."""
    stay = staying(ours, facts)
    return {name: kind for name, kind in retypable(ours, facts).items() if name not in stay}


def _why_stays(facts: Facts, device: DsaDevice) -> str | None:
    if why := closed_iommu(facts, device.group):
        return why
    if others_hold(facts, device):
        return "somebody uses the device"
    halted = down(device) or stranded(facts, device)
    return f"the device has halted, and is {device.state}" if halted else None


def _differs(config: DeviceConfig, found: dict[str, DsaDevice]) -> bool:
    return config.id in found and bool(differences(config, found[config.id]))


def _enabled(name: str, found: dict[str, DsaDevice]) -> bool:
    return name in found and found[name].state == "enabled"


def claimed(
    before: Originals | None,
    facts: Facts,
    tiers: Tiers,
    requests: Iterable[Request],
    taken_at: float,
) -> Originals:
    """Return the originals with those of all that ``requests`` write, as found in ``facts``.

    What is dsatier's already keeps the original that it has.
    """
    now = originals(facts, tiers, taken_at)
    if before is None or before.boot_id != now.boot_id:
        before = replace(_only(now, frozenset()), written=())
    before = _followed(before, facts)
    written = _since(before, facts)
    asked = tuple(requests)
    known = set(map(thing, written))
    new = set(map(thing, asked)) - known
    old, fresh = _only(before, known), _only(now, new)
    stirred = {r.cpu for r in asked if isinstance(r, StirCpu) and thing(r) in new}
    cpus = {cpu for kind, cpu in new if kind == "cpu"} - {*facts.offline_cpus, *stirred}
    return replace(
        old,
        knobs=old.knobs | fresh.knobs,
        online_cpus=tuple(sorted({*old.online_cpus, *(int(cpu) for cpu in cpus)})),
        fast_cpus=tuple(sorted({*old.fast_cpus, *stirred})),
        swaps=(*old.swaps, *fresh.swaps),
        devices=(*old.devices, *fresh.devices),
        idle_devices=(*old.idle_devices, *fresh.idle_devices),
        written=_joined(written, asked),
        second_threads=tuple(sorted({*old.second_threads, *now.second_threads})),
        addresses=(before.addresses or {}) | (now.addresses or {}),
        iommu=(old.iommu or {}) | (fresh.iommu or {}),
    )


def _joined(written: tuple[Request, ...], asked: tuple[Request, ...]) -> tuple[Request, ...]:
    """Return both by thing, of each what was asked last at the end, and once."""
    by_thing: dict[Thing, dict[Request, None]] = {}
    for request in (*written, *asked):
        requests = by_thing.setdefault(thing(request), {})
        requests.pop(request, None)
        requests[request] = None
    return tuple(request for requests in by_thing.values() for request in requests)


def barred(ours: Originals, facts: Facts) -> tuple[int, ...]:
    """Return the CPUs that cannot come back now: second threads while SMT is off."""
    if facts.smt not in ("off", "forceoff"):
        return ()
    seconds = {*ours.second_threads, *facts.second_threads}
    return tuple(c for c in ours.online_cpus if c in seconds and c in facts.offline_cpus)


def settled(before: Originals, done: Iterable[Request]) -> Originals:
    """Return the originals when all of ``done`` is: of each thing of it only the last request.

    What a change that was cut short may have left of other things is not known better now.
    """
    if before.written is None:
        return before
    last = {thing(request): request for request in done}
    kept = (r for r in before.written if thing(r) not in last or r == last[thing(r)])
    return replace(
        before,
        written=tuple(r for r in kept if not (isinstance(r, StirCpu) and thing(r) in last)),
    )


def _since(before: Originals, facts: Facts) -> tuple[Request, ...]:
    """Return what was written; where nobody noted that, all that is not as it was found."""
    if before.written is not None:
        return before.written
    found: list[Request] = []
    for name, value in before.knobs.items():
        now = live(facts, name)
        if now is not None and now != value:
            found.append(SetKnob(name, now))
    found += [SetCpu(cpu, False) for cpu in before.online_cpus if cpu in facts.offline_cpus]
    on = {area.path for area in facts.swaps}
    found += [SwapOff(area) for area in before.swaps if area.path not in on]
    were = {config.id: config for config in before.devices}
    for one in facts.devices:
        if one.id in were and differences(were[one.id], one):
            found.append(LoadDevice(captured(one)) if serves(one) else StopDevice(one.id))
        elif one.id in before.idle_devices and one.state == "enabled":
            found.append(LoadDevice(captured(one)))
    return tuple(found)


def _only(before: Originals, things: Iterable[Thing]) -> Originals:
    """Return the originals of ``things`` alone; what was written is left as it is."""
    kept = frozenset(things)
    return replace(
        before,
        knobs={name: value for name, value in before.knobs.items() if ("knob", name) in kept},
        online_cpus=tuple(cpu for cpu in before.online_cpus if ("cpu", cpu) in kept),
        fast_cpus=tuple(cpu for cpu in before.fast_cpus if ("cpu", cpu) in kept),
        swaps=tuple(area for area in before.swaps if ("swap", area.path) in kept),
        devices=tuple(c for c in before.devices if ("device", c.id) in kept),
        idle_devices=tuple(name for name in before.idle_devices if ("device", name) in kept),
        iommu={n: kind for n, kind in (before.iommu or {}).items() if ("iommu", n) in kept},
    )


def _followed(before: Originals, facts: Facts) -> Originals:
    """Return the originals with the names that the devices at their PCI addresses have now.

    One that is not there now makes room for one that has its name.
    """
    addresses = before.addresses or {}
    now = {one.pci: one.id for one in facts.devices if one.pci}
    taken = {one.id for one in facts.devices} | addresses.keys()
    names: dict[str, str] = {}
    for name, address in addresses.items():
        new = now.get(address, name)
        if address not in now and device(facts, name) is not None:
            new = next(free for n in range(1 << 16) if (free := f"dsa{n}") not in taken)
            taken.add(new)
        names[name] = new
    if all(name == new for name, new in names.items()):
        return before

    def moved(config: DeviceConfig) -> DeviceConfig:
        return renamed(config, names.get(config.id, config.id))

    def request(one: Request) -> Request:
        match one:
            case LoadDevice(config):
                return LoadDevice(moved(config))
            case StopDevice(name):
                return StopDevice(names.get(name, name))
            case SetIommu(name):
                return replace(one, device=names.get(name, name))
        return one

    return replace(
        before,
        devices=tuple(map(moved, before.devices)),
        idle_devices=tuple(names.get(name, name) for name in before.idle_devices),
        written=None if before.written is None else tuple(map(request, before.written)),
        addresses={names[name]: address for name, address in addresses.items()},
        iommu={names.get(name, name): kind for name, kind in (before.iommu or {}).items()},
    )
