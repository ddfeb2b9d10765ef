# SPDX-License-Identifier: Apache-2.0
"""DSA devices with engines and queues, and DMA channels."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from dsatier.base.text import natural
from dsatier.facts.model import Channel, DsaDevice, Elsewhere, Unbound, WorkQueue
from dsatier.facts.observe import iommu, parse
from dsatier.facts.observe.read import optional
from dsatier.host.port import Host, Missing

BUS = "/sys/bus/dsa/devices"
CHANNELS = "/sys/class/dma"
EVENT_LOG = 0x3 << 13
"""Bits of gen_cap: the device has an event log."""

PCI_DRIVERS = "/sys/bus/pci/drivers"
OTHER_DRIVERS = ("vfio-pci", "uio_pci_generic", "igb_uio", "pci-stub")
"""Drivers that hold a PCI device for a program or a guest."""
DSA_IDS = frozenset({0x0B25, 0x11FB, 0x1212, 0x1216})
"""PCI device numbers of Intel's (0x8086) that idxd takes for a DSA."""

_TEXTS = ("state", "type", "mode", "name", "driver_name")
_NUMBERS = (
    *("group_id", "size", "priority", "threshold", "block_on_fault"),
    *("max_batch_size", "max_transfer_size", "clients"),
)


class _Queue:
    """A queue's files, and what they said last."""

    __slots__ = ("id", "names", "paths", "said", "value")

    def __init__(self, name: str, paths: tuple[str, ...], names: tuple[str, ...]) -> None:
        self.id = name
        self.paths = paths
        self.names = names
        self.said: tuple[str, ...] = ()
        self.value: WorkQueue | None = None


class _Device:
    """What does not change while a device is there, and what was seen last."""

    __slots__ = ("changing", "engines", "fixed", "link", "queues", "said", "value")

    def __init__(
        self,
        link: str,
        fixed: dict[str, Any],
        changing: tuple[str, ...],
        engines: tuple[str, ...],
        queues: tuple[_Queue, ...],
    ) -> None:
        self.link = link
        self.fixed = fixed
        self.changing = changing
        self.engines = engines
        self.queues = queues
        self.said: tuple[Any, ...] = ()
        self.value: DsaDevice | None = None


class DsaEyes:
    """Looks at the devices; reads their capabilities once and makes values only of news."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._known: dict[str, _Device] = {}
        self._dsa: dict[str, bool] = {}

    def devices(self, only: Collection[str] | None = None) -> tuple[DsaDevice, ...]:
        """Return the devices, or those of these names, in the order of their numbers."""
        names = [n for n in self._host.entries(BUS) if n[:3] == "dsa" and n[3:].isdecimal()]
        for gone in self._known.keys() - set(names):
            del self._known[gone]
        wanted = names if only is None else [name for name in names if name in only]
        found = (self._device(name) for name in sorted(wanted, key=natural))
        return tuple(device for device in found if device is not None)

    def unbound(self) -> tuple[Unbound, ...]:
        """Return the DSA devices that no driver has."""
        addresses = self._host.entries(iommu.PCI)
        self._dsa = {
            address: self._dsa[address]
            if address in self._dsa
            else _is_dsa(self._host, f"{iommu.PCI}/{address}")
            for address in addresses
        }
        return tuple(
            Unbound(address, iommu.group_of(self._host, address))
            for address in addresses
            if self._dsa[address] and not iommu.driver_of(self._host, address)
        )

    def _device(self, name: str) -> DsaDevice | None:
        try:
            link = self._host.link(f"{BUS}/{name}") or ""
            known = self._known.get(name)
            if known is None or known.link != link:
                known = self._known[name] = self._meet(name, link)
            return self._look(name, known)
        except Missing:
            self._known.pop(name, None)  # it went away meanwhile
            return None

    def _meet(self, name: str, link: str) -> _Device:
        folder = f"{BUS}/{name}"

        def number(attribute: str, base: int = 10) -> int:
            path = f"{folder}/{attribute}"
            found = optional(self._host, path)
            return 0 if found is None else parse.whole(found, path, base=base)

        parts = sorted(self._host.entries(folder), key=natural)
        numa = optional(self._host, f"{folder}/numa_node")
        fixed = {
            "id": name,
            "pci": parse.pci_address(link, above=name),
            "numa_node": -1 if numa is None else parse.whole(numa, f"{folder}/numa_node"),
            "version": number("version", 0),
            "event_log": bool(number("gen_cap", 0) & EVENT_LOG),
            "max_groups": number("max_groups"),
            "max_engines": number("max_engines"),
            "max_queues": number("max_work_queues"),
            "max_queue_entries": number("max_work_queues_size"),
            "max_batch_size": number("max_batch_size"),
            "max_transfer_size": number("max_transfer_size"),
        }
        return _Device(
            link=link,
            fixed=fixed,
            changing=tuple(f"{folder}/{a}" for a in ("state", "clients", "errors")),
            engines=tuple(
                f"{folder}/{part}/group_id" for part in parts if part.startswith("engine")
            ),
            queues=tuple(self._meet_queue(folder, p) for p in parts if p.startswith("wq")),
        )

    def _meet_queue(self, folder: str, name: str) -> _Queue:
        there = set(self._host.entries(f"{folder}/{name}"))
        names = tuple(attribute for attribute in (*_TEXTS, *_NUMBERS) if attribute in there)
        return _Queue(name, tuple(f"{folder}/{name}/{a}" for a in names), names)

    def _look(self, name: str, known: _Device) -> DsaDevice:
        read = self._host.read
        changing = tuple(map(read, known.changing))
        engines = tuple(map(read, known.engines))
        queues = tuple(self._queue(queue) for queue in known.queues)
        address = known.fixed["pci"]
        group = iommu.group_of(self._host, address) if address else None
        said = (changing, engines, queues, group)
        if known.value is None or said != known.said:
            state, clients, errors = changing
            known.value = DsaDevice(
                state=state.strip(),
                clients=parse.whole(clients, known.changing[1]),
                errors=errors.strip(),
                engines=tuple(map(parse.whole, engines, known.engines)),
                queues=queues,
                group=group,
                **known.fixed,
            )
            known.said = said
        return known.value

    def _queue(self, known: _Queue) -> WorkQueue:
        said = tuple(map(self._host.read, known.paths))
        if known.value is None or said != known.said:
            texts = dict.fromkeys(_TEXTS, "")
            numbers = dict.fromkeys(_NUMBERS, 0)
            for name, path, found in zip(known.names, known.paths, said, strict=True):
                if name in texts:
                    texts[name] = found.strip()
                else:
                    numbers[name] = parse.whole(found, path)
            if "driver_name" not in known.names:
                del texts["driver_name"]
            known.value = _queue(known.id, texts, numbers)
            known.said = said
        return known.value


def _queue(name: str, texts: dict[str, str], numbers: dict[str, int]) -> WorkQueue:
    return WorkQueue(
        id=name,
        state=texts["state"],
        type=texts["type"],
        mode=texts["mode"],
        name=texts["name"],
        driver_name=texts.get("driver_name"),
        group=numbers["group_id"],
        size=numbers["size"],
        priority=numbers["priority"],
        threshold=numbers["threshold"],
        block_on_fault=bool(numbers["block_on_fault"]),
        max_batch_size=numbers["max_batch_size"],
        max_transfer_size=numbers["max_transfer_size"],
        clients=numbers["clients"],
    )


def elsewhere(host: Host) -> tuple[Elsewhere, ...]:
    """Return the DSA devices that a driver other than idxd has."""
    return tuple(
        Elsewhere(address, driver)
        for driver in OTHER_DRIVERS
        for address in sorted(host.entries(f"{PCI_DRIVERS}/{driver}"))
        if ":" in address and _is_dsa(host, f"{PCI_DRIVERS}/{driver}/{address}")
    )


def _is_dsa(host: Host, folder: str) -> bool:
    def number(name: str) -> int:
        path = f"{folder}/{name}"
        found = optional(host, path)
        return 0 if found is None else parse.whole(found, path, base=0)

    return number("vendor") == 0x8086 and number("device") in DSA_IDS


def has_pasid(host: Host, name: str) -> bool:
    """Tell whether a device has its PASID enabled, which takes an IOMMU in scalable mode."""
    return (optional(host, f"{BUS}/{name}/pasid_enabled") or "").strip() == "1"


def channels(host: Host, devices: tuple[DsaDevice, ...]) -> tuple[Channel, ...]:
    """Return the DMA channels by number, those of DSA devices with their queue."""
    by_device: dict[str, list[tuple[str, int]]] = {}
    found: list[tuple[str, int]] = []
    for name in sorted(host.entries(CHANNELS), key=natural):
        path = f"{CHANNELS}/{name}/in_use"
        in_use = optional(host, path)
        if in_use is None:
            continue
        entry = (name, parse.whole(in_use, path))
        found.append(entry)
        address = parse.pci_address(host.link(f"{CHANNELS}/{name}") or "")
        by_device.setdefault(address, []).append(entry)
    queues: dict[str, str] = {}
    for device in devices:
        queues |= paired(by_device.get(device.pci, []) if device.pci else [], device.queues)
    return tuple(Channel(name, queues.get(name), in_use) for name, in_use in found)


def paired(held: list[tuple[str, int]], queues: tuple[WorkQueue, ...]) -> dict[str, str]:
    """Return the queue of each channel of one device.

    sysfs does not tell which queue a channel is: its number is the first that was free.
    But a channel's holder is a client of its queue, so channels that are held are put to
    queues with clients, and free ones to free ones, each in order. Within those two sets
    the choice makes no difference to the number that is free.
    """
    ready = [q for q in queues if q.state == "enabled" and q.type == "kernel"]
    ready.sort(key=lambda queue: not queue.clients)
    ordered = sorted(held, key=lambda channel: not channel[1])
    if len(ordered) != len(ready) or sum(1 for c in held if c[1]) == sum(
        1 for q in ready if q.clients
    ):
        return {c[0]: q.id for c, q in zip(ordered, ready, strict=False)}
    # the two do not agree, so something moved between the readings: by order alone
    plain = [q for q in queues if q in ready]
    return {c[0]: q.id for c, q in zip(held, plain, strict=True)}
