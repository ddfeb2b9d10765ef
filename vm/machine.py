# SPDX-License-Identifier: Apache-2.0
"""A guest as it is wanted, and the words that start the emulator for it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from vm.wire import PORT

DSA = "intel-dsa"
"""The emulated device, as the emulator names it."""
Iommu = Literal["off", "passthrough", "translated"]
Property = str | int | bool


@dataclass(frozen=True, slots=True)
class Node:
    """A NUMA node: a tier where it has memory and no CPUs."""

    cpus: int = 0
    memory: int = 1024
    """MiB."""
    latency: int = 0
    """Nanoseconds for an access from the nearest CPUs; 0: 80 for a node with CPUs, else 240."""
    bandwidth: int = 0
    """MiB/s from there; 0: 102400 for a node with CPUs, else 25600."""
    near: int | None = None
    """The node whose CPUs are the nearest to one without; None: the one with CPUs before it, and no
    distance tells."""


TIERS = (Node(cpus=2), Node())
"""A fast tier with two CPUs and a slow one without."""


@dataclass(frozen=True, slots=True)
class Dsa:
    """A DSA device."""

    node: int | None = None
    """Its NUMA node; None leaves it unsaid, as on a host whose firmware does."""
    removable: bool = False
    """It sits below a port that lets it be unplugged."""
    properties: Mapping[str, Property] = field(default_factory=dict)
    """As the emulated device has them."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A guest. Devices are named dsa0, dsa1, … in the order given, on the bus and to QMP."""

    nodes: tuple[Node, ...] = TIERS
    dsa: tuple[Dsa, ...] = ()
    iommu: Iommu = "off"
    iommu_properties: Mapping[str, Property] = field(default_factory=dict)
    cpu: str = "max,erms=off,fsrm=off"
    """TCG runs ``rep movsb`` byte by byte, so copies do better without ERMS and FSRM."""
    icount: str | None = None
    """As in ``shift=0,sleep=off``: virtual time by instructions. One thread, repeatable."""
    threads: Literal["single", "multi"] = "single"
    """Of the emulator's CPUs. "multi" is faster with several CPUs, and has a race: a CPU that
    stores while another changes the memory map may abort the emulator."""
    append: tuple[str, ...] = ()
    """More words for the kernel's command line."""
    extra: tuple[str, ...] = ()
    """More words for the emulator."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a guest's files and sockets are."""

    emulator: str
    kernel: str
    initrd: str
    folder: str
    root: str | None = None
    """The image of a root file system, ext4. It is not changed."""

    @property
    def console(self) -> str:
        """The file that gets all that the kernel prints."""
        return f"{self.folder}/console.log"

    @property
    def console_input(self) -> str:
        """The serial console's input, a pipe."""
        return f"{self.folder}/console"

    @property
    def agent(self) -> str:
        """The agent's channel."""
        return f"{self.folder}/agent"

    @property
    def qmp(self) -> str:
        """The emulator's monitor."""
        return f"{self.folder}/qmp"


def command(machine: Machine, places: Places) -> list[str]:
    """Return the words that start the emulator. Raises ValueError for what cannot be built."""
    _check(machine)
    return list(_words(machine, places))


def cmdline(machine: Machine, rooted: bool) -> str:
    """Return the kernel's command line."""
    # a serial line is slow in an emulator, so only warnings at first; the agent's start ends that
    words = ["console=ttyS0", "loglevel=5", "sysrq_always_enabled", "panic=0", "panic_on_warn=0"]
    # a kernel measures that timer against others; on a busy machine it is wrong by a factor, and
    # its CPUs stall. The HPET has a frequency by its own word
    words += ["nolapic_timer"]
    # it also counts the interrupts of a tenth of a second, and gives up where they are too few
    words += ["no_timer_check"]
    words += ["intel_iommu=off"] if machine.iommu == "off" else ["intel_iommu=on"]
    if machine.iommu != "off":
        words += [f"iommu.passthrough={int(machine.iommu == 'passthrough')}"]
    # one owner of the console: nothing but the kernel writes to it
    words += ["vm.root", "systemd.show_status=0", "systemd.log_target=journal"] if rooted else []
    return " ".join((*words, *machine.append))


def _check(machine: Machine) -> None:
    if not machine.nodes or not machine.nodes[0].cpus:
        raise ValueError("nodes: expected CPUs on node 0, found none")
    for number, node in enumerate(machine.nodes):
        if node.memory < 0 or node.cpus < 0:
            raise ValueError(f"nodes: node {number}: expected nothing negative, found {node}")
        if node.near is not None and (
            node.cpus
            or not 0 <= node.near < len(machine.nodes)
            or not machine.nodes[node.near].cpus
        ):
            expected = "a node with CPUs, for one without"
            raise ValueError(f"nodes: node {number}: near: expected {expected}, found {node.near}")
    for number, dsa in enumerate(machine.dsa):
        if dsa.node is not None and not 0 <= dsa.node < len(machine.nodes):
            expected = f"a node from 0 to {len(machine.nodes) - 1}"
            raise ValueError(f"dsa{number}: node: expected {expected}, found {dsa.node}")
    if machine.icount is not None and machine.threads == "multi":
        raise ValueError("icount: expected threads=single beside it, found multi")


def option(name: str, **properties: Property | None) -> str:
    """Return ``name,key=value,…`` as the emulator reads it. None is left out, _ stands for -."""
    return ",".join([name, *_pairs({k.replace("_", "-"): v for k, v in properties.items()})])


def _pairs(properties: Mapping[str, Property | None]) -> Iterator[str]:
    for key, value in properties.items():
        if value is not None:
            text = ("off", "on")[value] if isinstance(value, bool) else str(value)
            yield f"{key}={text.replace(',', ',,')}"


def _words(machine: Machine, places: Places) -> Iterator[str]:
    cpus = sum(node.cpus for node in machine.nodes)
    yield from (places.emulator, "-nodefaults", "-no-user-config", "-display", "none")
    yield from ("-M", "q35,hmat=on", "-cpu", machine.cpu, "-smp", f"{cpus},{_sockets(machine)}")
    yield from ("-accel", f"tcg,thread={machine.threads}")
    if machine.icount is not None:
        yield from ("-icount", machine.icount)
    yield from ("-m", f"{sum(node.memory for node in machine.nodes)}M")
    yield from _memory(machine.nodes)
    yield from ("-kernel", places.kernel, "-initrd", places.initrd)
    yield from ("-append", cmdline(machine, places.root is not None))
    yield from _channels(places)
    if places.root is not None:
        yield from ("-drive", f"file={places.root},format=raw,if=none,id=root,snapshot=on")
        yield from ("-device", "virtio-blk-pci,drive=root")
    if machine.iommu != "off":
        yield from ("-device", ",".join(["intel-iommu", *_pairs(machine.iommu_properties)]))
    yield from _devices(machine)
    yield from machine.extra


def _sockets(machine: Machine) -> str:
    """Return sockets that lie within nodes: the kernel warns of caches that two nodes share."""
    counts = {node.cpus for node in machine.nodes if node.cpus}
    cores = counts.pop() if len(counts) == 1 else 1
    return f"sockets={sum(node.cpus for node in machine.nodes) // cores},cores={cores}"


def _memory(nodes: tuple[Node, ...]) -> Iterator[str]:
    first = 0
    last = 0
    for number, node in enumerate(nodes):
        backend = None
        if node.memory:
            backend = f"ram{number}"
            yield from ("-object", f"memory-backend-ram,id={backend},size={node.memory}M")
        cpus = f"{first}-{first + node.cpus - 1}" if node.cpus else None
        first += node.cpus
        last = number if node.cpus else last
        near = last if node.near is None else node.near
        yield from (
            "-numa",
            option("node", nodeid=number, cpus=cpus, memdev=backend, initiator=near),
        )
    for source in range(len(nodes)):
        for target in range(len(nodes)):
            if source != target:
                value = _distance(nodes, source, target)
                yield from ("-numa", f"dist,src={source},dst={target},val={value}")
    for source, here in enumerate(nodes):
        for target, there in enumerate(nodes):
            if here.cpus:
                yield from _hmat(source, target, there)


def _distance(nodes: tuple[Node, ...], source: int, target: int) -> int:
    """Return what firmware tells of two nodes, as hosts with CXL have it."""
    here, there = nodes[source], nodes[target]
    if here.cpus and there.cpus:
        return 21
    if here.cpus or there.cpus:
        near, other = (there.near, source) if here.cpus else (here.near, target)
        return 28 if near is None else 14 if near == other else 24
    return 28 if here.near is None or there.near is None else 26


def _hmat(source: int, target: int, there: Node) -> Iterator[str]:
    home = target if there.cpus else source if there.near is None else there.near
    far = 0 if source == home else 60
    latency = (there.latency or (80 if there.cpus else 240)) + far
    bandwidth = there.bandwidth or (102400 if there.cpus else 25600)
    where = f"hmat-lb,initiator={source},target={target},hierarchy=memory"
    yield from ("-numa", f"{where},data-type=access-latency,latency={latency}")
    yield from ("-numa", f"{where},data-type=access-bandwidth,bandwidth={bandwidth}M")


def _channels(places: Places) -> Iterator[str]:
    # straight into a file: a socket that is not read fast enough has characters come twice
    console = f"file,id=console,path={places.console},input-path={places.console_input}"
    yield from ("-chardev", console, "-serial", "chardev:console")
    yield from ("-chardev", f"socket,id=agent,path={places.agent},server=on,wait=off")
    yield from ("-device", "virtio-serial-pci", "-device")
    yield f"virtserialport,chardev=agent,name={PORT}"
    yield from ("-chardev", f"socket,id=qmp,path={places.qmp},server=on,wait=off")
    yield from ("-mon", "chardev=qmp,mode=control")


def _devices(machine: Machine) -> Iterator[str]:
    # a bridge tells the guest which node its devices are on; numbers leave room for ports.
    # the guest finds the bridge that came last first
    nodes = sorted({dsa.node for dsa in machine.dsa if dsa.node is not None}, reverse=True)
    for node in nodes:
        number = 32 + 32 * node
        yield "-device"
        yield f"pxb-pcie,id=pxb{node},bus=pcie.0,bus_nr={number},numa_node={node}"
    for number, dsa in enumerate(machine.dsa):
        bus = "pcie.0" if dsa.node is None else f"pxb{dsa.node}"
        if dsa.removable or dsa.node is not None:  # such a bridge takes ports only
            port = f"port{number}"
            yield "-device"
            yield f"pcie-root-port,id={port},bus={bus},chassis={number + 1},slot={number + 1}"
            bus = port
        yield "-device"
        yield ",".join([DSA, *_pairs({"id": f"dsa{number}", "bus": bus, **dsa.properties})])
