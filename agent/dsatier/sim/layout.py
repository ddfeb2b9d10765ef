# SPDX-License-Identifier: Apache-2.0
"""The tree of kernel files of a host: which there are, and the function behind each.

It is built once for a description and shared by all copies of a host; text is made when it is
read. What comes and goes (devices, DMA channels, driver links, own files) is asked of the state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from errno import EPERM
from functools import partial
from posixpath import dirname, join, normpath
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from dsatier.sim import (
    attributes,
    blocks,
    copying,
    cpus,
    idxd,
    iommu,
    machine,
    memory,
    sysctl,
    tiers,
    timer,
    unit,
)
from dsatier.sim.parse import Refused

if TYPE_CHECKING:
    from dsatier.sim.kernel import Kernel
    from dsatier.sim.spec import DeviceSpec, HostSpec

Show = Callable[["Kernel"], str]
Store = Callable[["Kernel", str], None]
Kind = Literal["dir", "file", "link"]

BUS = "/sys/bus/dsa/devices"
DRIVERS = "/sys/bus/dsa/drivers"
IDXD = "/sys/bus/pci/drivers/idxd"
CLASS = "/sys/class/dma"
CHANNEL: dict[str, Callable[[Kernel, str, int], str]] = {
    "in_use": lambda k, queue, own: f"{copying.in_use(k, queue, own)}\n",
    "memcpy_count": lambda _k, _queue, _own: "0\n",
    "bytes_transferred": lambda _k, _queue, _own: "0\n",
}


class File(NamedTuple):
    """A file. ``device`` is the DSA device that it needs, -1 for none."""

    show: Show | None
    store: Store | None = None
    device: int = -1


class Node(NamedTuple):
    """One thing in the tree: ``text`` is a file's content or a link's target, or None."""

    path: str
    kind: Kind
    text: str | None
    writable: bool = False


def _pci_folder(address: str) -> str:
    domain, bus, _ = address.split(":")
    return f"/sys/devices/pci{domain}:{bus}/{address}"


class Layout:
    """The files of a description."""

    spec: HostSpec
    cpus: tuple[tuple[int, ...], ...]
    """CPUs of each node, online or not."""
    devices: tuple[DeviceSpec, ...]
    pci: tuple[str, ...]
    """PCI address of each device."""
    knobs: tuple[sysctl.Row, ...]
    defaults: dict[str, int]
    files: dict[str, File]
    links: dict[str, tuple[str, int]]

    def __init__(self, spec: HostSpec) -> None:
        self.spec = spec
        self.cpus = tuple(spec.cpus(node) for node in range(len(spec.nodes)))
        self.devices = spec.each_device()
        self.pci = tuple(
            d.pci or f"0000:{0x6A + 5 * i & 0xFF:02x}:01.{i * 5 >> 8}"
            for i, d in enumerate(self.devices)
        )
        self.knobs = sysctl.rows(spec.kernel.kind)
        self.defaults = {row.name: row.default for row in self.knobs}
        self.files: dict[str, File] = {}
        self.links: dict[str, tuple[str, int]] = {}
        self._children: dict[str, dict[str, int]] = {"/": {}}
        self._comes = dict(tiers.there(spec))
        self._add_knobs()
        for path, show in machine.files(spec).items():
            self._file(path, File(show))
        self._add_cpus()
        self._add_memory()
        self._add_dsa()
        self._add_iommu()
        for path, text in (unit.files(spec) | spec.files).items():
            self._file(path, File(partial(_constant, text)))

    # building

    def _name(self, path: str, device: int) -> None:
        while path != "/":
            folder = dirname(path)
            names = self._children.setdefault(folder, {})
            name = path[len(folder.rstrip("/")) + 1 :]
            if name in names:
                if device < 0:
                    names[name] = -1
                return
            names[name] = device
            path, device = folder, device if "/dsa" in folder else -1

    def _dir(self, path: str, device: int = -1) -> None:
        self._name(path, device)
        self._children.setdefault(path, {})

    def _file(self, path: str, file: File) -> None:
        self.files[path] = file
        self._name(path, file.device)

    def _link(self, path: str, target: str, device: int = -1) -> None:
        self.links[path] = (target, device)
        self._name(path, device)

    def _add_knobs(self) -> None:
        for row in self.knobs:
            show, store = partial(_show_knob, row.name), partial(_store_knob, row)
            self._file(sysctl.path(row.name), File(show, store))
        if self.spec.kernel.kind != "stock":
            self._file("/proc/timer", File(timer.show, timer.store))
        self._file(memory.HUGE_PAGES, File(memory.show_huge, memory.store_huge))

    def _add_cpus(self) -> None:
        for cpu in sorted(cpu for node in self.cpus for cpu in node):
            folder = f"/sys/devices/system/cpu/cpu{cpu}"
            self._dir(folder)
            if cpu:
                show, store = partial(cpus.show, cpu), partial(cpus.store, cpu)
                self._file(f"{folder}/online", File(show, store))
        for cpu in self.spec.siblings():
            folder = f"/sys/devices/system/cpu/cpu{cpu}/topology"
            self._file(f"{folder}/thread_siblings_list", File(partial(cpus.show_siblings, cpu)))
        if self.spec.smt:
            self._file(cpus.SMT, File(cpus.show_smt, cpus.store_smt))
        for node, numbers in enumerate(self.cpus):
            folder = f"/sys/devices/system/node/node{node}"
            for cpu in numbers:
                # the kernel has the link only while the CPU is online
                self._link(f"{folder}/cpu{cpu}", f"../../cpu/cpu{cpu}")

    def _add_memory(self) -> None:
        for path, text in tiers.files(self.spec):
            self._file(path, File(partial(_constant, text)))
        for path, show in tiers.lists(self.spec):
            self._file(path, File(show))
        for path, target in tiers.links(self.spec):
            self._link(path, target)
            self._dir(f"{tiers.DRIVERS}/kmem")
            self._dir(f"{tiers.DRIVERS}/device_dax")
        for path, show, store in blocks.files(self.spec):
            self._file(path, File(show, store))

    def _add_dsa(self) -> None:
        if not self.devices and self.spec.kernel.config.get("CONFIG_INTEL_IDXD") is None:
            return
        self._dir("/sys/module/idxd")
        self._dir(BUS)
        for driver in ("idxd", "dmaengine", "user"):
            folder = f"{DRIVERS}/{driver}"
            self._file(f"{folder}/bind", File(None, partial(_bind, driver)))
            self._file(f"{folder}/unbind", File(None, partial(_unbind, driver)))
        if self.devices:
            self._file(f"{IDXD}/bind", File(None, iommu.bind))
            self._file(f"{IDXD}/unbind", File(None, iommu.unbind))
        self._dir(CLASS)
        for i, spec in enumerate(self.devices):
            folder = _pci_folder(self.pci[i])
            self._file(f"{folder}/numa_node", File(partial(_constant, f"{spec.numa_node}\n")))
            self._file(f"{folder}/vendor", File(partial(_constant, "0x8086\n")))
            self._file(f"{folder}/device", File(partial(_constant, "0x0b25\n")))
            self._link(f"/sys/bus/pci/devices/{self.pci[i]}", "../../.." + folder[4:])
            self._dir(folder)
            self._object(f"dsa{i}", f"{folder}/dsa{i}", "dsa", i, 0)
            for kind, count in (
                ("wq", spec.queues),
                ("engine", spec.engines),
                ("group", spec.groups),
            ):
                for n in range(count):
                    name = f"{kind}{i}.{n}"
                    self._object(name, f"{folder}/dsa{i}/{name}", kind, i, n)
        for other in self.spec.other_dma:
            folder = _pci_folder(other.pci)
            self._dir(folder)
            self._link(f"/sys/bus/pci/devices/{other.pci}", "../../.." + folder[4:])
            self._link(f"{folder}/driver", f"../../../bus/pci/drivers/{other.driver}")
            self._dir(f"/sys/bus/pci/drivers/{other.driver}")

    def _object(self, name: str, folder: str, kind: str, i: int, n: int) -> None:
        self._dir(folder, i)
        self._link(f"{BUS}/{name}", "../../.." + folder[4:], i)
        self._link(f"{folder}/subsystem", "../" * (folder.count("/") - 1) + "bus/dsa", i)
        old = self.spec.kernel.kind in ("tpp", "memtis")
        for attribute, row in attributes.KINDS[kind].items():
            if row.new and old:
                continue
            show = partial(_show_attribute, row, i, n)
            store = partial(_store_attribute, row, i, n) if row.store else None
            file = File(show, store, i)
            self._file(f"{folder}/{attribute}", file)
            # the same file by the bus's link, found without walking it
            self.files[f"{BUS}/{name}/{attribute}"] = file
        if kind == "dsa" and self.devices[i].event_log:
            self._file(f"{folder}/event_log_size", File(partial(_constant, "64\n"), None, i))

    def _add_iommu(self) -> None:
        self._dir("/sys/kernel/iommu_groups")
        self._dir("/sys/class/iommu")
        if self.spec.iommu == "off":
            return
        for n in range(max(1, len(self.spec.nodes))):
            folder = f"/sys/devices/virtual/iommu/dmar{n}"
            self._link(f"/sys/class/iommu/dmar{n}", f"../../devices/virtual/iommu/dmar{n}")
            self._file(f"{folder}/intel-iommu/version", File(partial(_constant, "6:0\n")))
            # bit 43 of the extended capabilities: scalable mode translation support
            ecap = "f0000f6eff\n" if not self.spec.scalable_mode else "8f0000f6eff\n"
            self._file(f"{folder}/intel-iommu/ecap", File(partial(_constant, ecap)))
        addresses = [*self.pci, *(d.pci for d in self.spec.other_dma)]
        writable = iommu.release(self.spec) >= iommu.WRITABLE
        for group, members in enumerate(iommu.groups(self.spec)):
            folder = f"/sys/kernel/iommu_groups/{group}"
            store = partial(iommu.store, group) if writable else None
            self._file(f"{folder}/type", File(partial(iommu.show, group), store))
            for address in (addresses[member] for member in members):
                self._link(f"{folder}/devices/{address}", "../../../.." + _pci_folder(address)[4:])
                self._link(
                    f"{_pci_folder(address)}/iommu_group", f"../../../kernel/iommu_groups/{group}"
                )

    # asking

    def file(self, k: Kernel, path: str) -> File | None:
        """Return the file at a path, through any links."""
        file = self.files.get(path)
        if file is None:
            file = self._file_of_device(path)
        if file is None:
            path = self.resolve(k, path)
            file = self.files.get(path) or self._channel_file(k, path)
        if file is None or (file.device >= 0 and not k.state.devices[file.device].present):
            return None
        return None if self._comes and self._absent(k, path) else file

    def _absent(self, k: Kernel, path: str) -> bool:
        """Tell whether a path is of something that is not there now."""
        while path != "/":
            there = self._comes.get(path)
            if there is not None and not there(k):
                return True
            path = dirname(path)
        return False

    def _file_of_device(self, path: str) -> File | None:
        """Return the file under a device's link on the bus: the short way, for most reads."""
        if not path.startswith(BUS + "/"):
            return None
        name, _, rest = path[len(BUS) + 1 :].partition("/")
        target, device = self.links.get(f"{BUS}/{name}", ("", -1))
        return None if device < 0 else self.files.get(normpath(f"{BUS}/{target}/{rest}"))

    def link(self, k: Kernel, path: str) -> str | None:
        """Return the target of a link as it is written, None where there is no link."""
        folder, _, name = path.rpartition("/")
        return self._own_link(k, join(self.resolve(k, folder or "/"), name))

    def _own_link(self, k: Kernel, path: str) -> str | None:
        known = self.links.get(path)
        if known is not None:
            target, device = known
            if device >= 0 and not k.state.devices[device].present:
                return None
            if self._comes and self._absent(k, path):
                return None
            if path.startswith("/sys/devices/system/node/"):
                cpu = int(path.rpartition("cpu")[2])
                return None if cpu in k.state.offline else target
            return target
        folder, _, name = path.rpartition("/")
        if name == "driver" and folder.rpartition("/")[2] in self.pci:
            loose = k.state.devices[self.pci.index(folder.rpartition("/")[2])].loose
            return None if loose else "../../../bus/pci/drivers/idxd"
        if name == "driver":
            driver = idxd.driver_of(k, folder.rpartition("/")[2])
            up = "../" * (folder.count("/") - 1)
            return f"{up}bus/dsa/drivers/{driver}" if driver else None
        if folder.startswith(DRIVERS + "/") and name in _bound(k, folder.rpartition("/")[2]):
            # as its link on the bus, one folder further down
            return "../" + self.links[f"{BUS}/{name}"][0]
        return self._channel_links(k).get(path) if "/dma" in path else None

    def resolve(self, k: Kernel, path: str) -> str:
        """Return a path with every link in it followed, its last part too."""
        done, rest, hops = "/", [p for p in path.split("/") if p and p != "."], 0
        while rest:
            part = rest.pop(0)
            here = normpath(join(done, part))
            target = self._own_link(k, here)
            if target is None:
                done = here
                continue
            hops += 1
            if hops > 40:
                return path
            there = normpath(join(dirname(here), target))
            done, rest = "/", [p for p in there.split("/") if p] + rest
        return done

    def is_dir(self, k: Kernel, path: str) -> bool:
        """Tell whether a path is a folder."""
        if self._comes and self._absent(k, path):
            return False
        return bool(self.entries(k, path)) or self.resolve(k, path) in self._children

    def entries(self, k: Kernel, path: str) -> tuple[str, ...]:
        """Return the sorted names in a folder, () where there is none."""
        path = self.resolve(k, path)
        names = {
            name
            for name, device in self._children.get(path, {}).items()
            if device < 0 or k.state.devices[device].present
        }
        if self._comes:
            names = {name for name in names if not self._absent(k, join(path, name))}
        if path.startswith("/sys/devices/system/node/node"):
            names = {n for n in names if n[:3] != "cpu" or not n[3:].isdigit() or self._on(k, n)}
        if path.startswith("/sys/devices/pci"):
            if self._own_link(k, f"{path}/driver") is not None:
                names.add("driver")
            names |= _under(path, self._channel_paths(k))
        if path == CLASS:
            names |= {chan for chan, _, _, _ in _channels(k)}
        if path.startswith(DRIVERS + "/"):
            names |= _bound(k, path.rpartition("/")[2])
        return tuple(sorted(names | _under(path, k.state.files)))

    @staticmethod
    def _on(k: Kernel, name: str) -> bool:
        return int(name[3:]) not in k.state.offline

    # DMA channels: folders under the PCI device of their provider

    def _channel_paths(self, k: Kernel) -> list[str]:
        return [
            f"{_pci_folder(pci)}/dma/{chan}/{name}"
            for chan, pci, _, _ in _channels(k)
            for name in (*CHANNEL, "device", "subsystem")
        ]

    def _channel_links(self, k: Kernel) -> dict[str, str]:
        links = {}
        for chan, pci, _, _ in _channels(k):
            folder = f"{_pci_folder(pci)}/dma/{chan}"
            links[f"{CLASS}/{chan}"] = "../.." + folder[4:]
            links[f"{folder}/device"] = f"../../../{pci}"
            links[f"{folder}/subsystem"] = "../../../../../class/dma"
        return links

    def _channel_file(self, k: Kernel, path: str) -> File | None:
        if "/dma/" not in path:
            return None
        folder, _, name = path.rpartition("/")
        show = CHANNEL.get(name)
        for chan, pci, queue, own in _channels(k):
            if show and folder == f"{_pci_folder(pci)}/dma/{chan}":
                return File(partial(_show_channel, show, queue, own))
        return None

    # all of it

    def walk(self, k: Kernel) -> Iterator[Node]:
        """Yield everything in the tree, folders before what is in them."""
        folders = ["/"]
        while folders:
            folder = folders.pop()
            for name in self.entries(k, folder):
                path = join(folder, name)
                target = self._own_link(k, path)
                if target is not None:
                    yield Node(path, "link", target)
                    continue
                file = self.file(k, path)
                if file is not None:
                    yield Node(path, "file", _text(k, file), file.store is not None)
                elif path in k.state.files:
                    yield Node(path, "file", k.state.files[path], writable=True)
                else:
                    yield Node(path, "dir", None)
                    folders.append(path)


def _text(k: Kernel, file: File) -> str | None:
    try:
        return file.show(k) if file.show else None
    except Refused:
        return None


def _under(folder: str, paths: Any) -> set[str]:
    prefix = folder.rstrip("/") + "/"
    return {p[len(prefix) :].partition("/")[0] for p in paths if p.startswith(prefix)}


def _channels(k: Kernel) -> Iterator[tuple[str, str, str, int]]:
    """Yield name, PCI address, queue and own count of every DMA channel."""
    for dma in k.state.dma:
        for chan in dma.chans:
            yield f"dma{dma.id}chan{chan.id}", dma.pci, chan.queue, chan.in_use


def _bound(k: Kernel, driver: str) -> set[str]:
    if driver == "idxd":
        return {f"dsa{i}" for i, d in enumerate(k.state.devices) if d.bound and d.present}
    return {
        f"wq{i}.{n}"
        for i, d in enumerate(k.state.devices)
        for n, q in enumerate(d.queues)
        if q.driver == driver
    }


def _constant(text: str, _k: Kernel) -> str:
    return text


def _show_knob(name: str, k: Kernel) -> str:
    return sysctl.show(k, name)


def _store_knob(row: sysctl.Row, k: Kernel, text: str) -> None:
    sysctl.store(k, row, text)


def _bind(driver: str, k: Kernel, text: str) -> None:
    idxd.bind(k, driver, text)


def _unbind(driver: str, k: Kernel, text: str) -> None:
    idxd.unbind(k, driver, text)


def _show_attribute(row: attributes.Attribute, i: int, n: int, k: Kernel) -> str:
    return row.show(k, i, n)


def _store_attribute(row: attributes.Attribute, i: int, n: int, k: Kernel, text: str) -> None:
    if row.store is None:
        raise Refused(EPERM)
    row.store(k, i, n, text)


def _show_channel(show: Callable[[Kernel, str, int], str], queue: str, own: int, k: Kernel) -> str:
    return show(k, queue, own)
