# SPDX-License-Identifier: Apache-2.0
"""The description of a simulated host, as frozen values that a YAML file declares."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Annotated, Any, Literal

from annotated_types import Interval, Len

from dsatier.base.fields import STRICT, FirstVersion
from dsatier.sim.faults import Fault
from dsatier.sim.parse import cpu_list

Count = Annotated[int, Interval(ge=0, le=(1 << 63) - 1)]
Gibibytes = Annotated[int, Interval(ge=0, le=1 << 24)]
Parts = Annotated[int, Interval(ge=0, le=256)]
"""Of a device: the driver counts each kind in eight bits."""
Kind = Literal["ours", "tpp", "memtis", "stock"]
Load = Literal["thp", "lists", "mixed"]

LAST_SECOND = 253402300799
"""Of the year 9999."""
_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
LARGEST = 1 << 20
"""Bytes of a description."""
DEEPEST = 32
MOST_MISTAKES = 20


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """The kernel that runs."""

    __pydantic_config__ = STRICT
    release: str
    kind: Kind
    """ours; tpp and memtis: the two seed kernels; stock: Debian's, without the knobs."""
    evl_guard: bool | None = None
    """``idxd_device_evl_free()`` has its guard; unless named, all but a stock kernel."""
    abi: Annotated[int, Interval(ge=1, le=1000)] = 1
    """The version of the interface that our kernel says it has."""
    cmdline: str = "BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro quiet"
    config: dict[str, str] = field(
        default_factory=lambda: {
            "CONFIG_INTEL_IDXD": "m",
            "CONFIG_MEMORY_HOTPLUG": "y",
            "CONFIG_MIGRATION": "y",
            "CONFIG_NUMA_BALANCING": "y",
            "CONFIG_TRANSPARENT_HUGEPAGE": "y",
        }
    )
    """Lines of /boot/config."""
    boot: dict[str, int] = field(default_factory=dict)
    """Values of knobs at boot that differ from the kernel's defaults."""


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """A NUMA node; its number is its place in the list."""

    __pydantic_config__ = STRICT
    cpus: str = ""
    """CPUs as the kernel lists them: ``0-15,32``."""
    memory: Gibibytes = 64
    used: Gibibytes = 8
    tier: Count | None = None
    """Its memory tier, where the kernel shows tiers: then each node has one."""
    latency: Count = 0
    """Nanoseconds for the nearest CPUs, as firmware says; 0: it says nothing."""
    bandwidth: Count = 0
    """MB/s for the nearest CPUs, as firmware says; 0: it says nothing."""
    device: Literal["cxl", "pmem", "hmem"] | None = None
    """The DAX device that its memory is from."""
    driver: Literal["kmem", "device_dax", ""] = "kmem"
    """Who has that device: kmem makes memory of it; empty: nobody."""
    blocks: Literal["movable", "normal", "offline"] = "movable"
    """How kmem's memory blocks come: online in a zone, or not."""


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A queue that somebody else has configured before."""

    __pydantic_config__ = STRICT
    id: Count
    type: Literal["kernel", "user"] = "kernel"
    mode: Literal["dedicated", "shared"] = "dedicated"
    name: str = "other"
    size: Count = 16
    max_batch_size: Count = 1024
    max_transfer_size: Count = 2097152
    clients: Count = 0


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """A DSA device; its number is its place in the list."""

    __pydantic_config__ = STRICT
    pci: str | None = None
    numa_node: int = 0
    version: int = 0x100
    event_log: bool = False
    block_on_fault: bool = True
    queues: Parts = 8
    engines: Parts = 4
    groups: Parts = 4
    entries: Count = 128
    max_batch_size: Count = 1024
    max_transfer_size: Count = 2147483648
    configured: tuple[QueueSpec, ...] = ()
    """Queues that are on at boot, in group 0 with all engines."""


@dataclass(frozen=True, slots=True)
class OtherDma:
    """A provider of DMA channels that is no DSA."""

    __pydantic_config__ = STRICT
    driver: str = "ioatdma"
    pci: str = "0000:00:04.0"
    channels: Annotated[int, Interval(ge=1, le=256)] = 1
    in_use: bool = False


@dataclass(frozen=True, slots=True)
class SwapSpec:
    """A swap area that is active at boot."""

    __pydantic_config__ = STRICT
    path: str
    kind: Literal["partition", "file"] = "partition"
    size: Gibibytes = 8
    used: Count = 0
    """MiB."""
    priority: int = -2


@dataclass(frozen=True, slots=True)
class HostSpec:
    """A host. Devices start disabled and unconfigured."""

    __pydantic_config__ = STRICT
    version: FirstVersion
    kernel: KernelSpec
    nodes: Annotated[tuple[NodeSpec, ...], Len(1, 64)]
    hostname: str = "sim"
    cpu_model: str = "Intel(R) Xeon(R) Platinum 8480+"
    smt: bool = False
    """Each core has two threads: the second half of a node's CPUs are those of the first half."""
    waitpkg: bool = True
    """The CPU has UMWAIT."""
    distances: tuple[tuple[int, ...], ...] = ()
    """10 and 21 unless named."""
    iommu: Literal["off", "passthrough", "translated"] = "passthrough"
    iommu_group_of_all: bool = False
    """All DSA devices and other DMA devices are in one IOMMU group."""
    unit: Literal["shipped", "past-iommu"] | None = None
    """The rights of the daemon's unit, where the daemon runs in it: as shipped, or with the drop-in
    of that name."""
    scalable_mode: bool = True
    devices: Annotated[int, Interval(ge=0, le=64)] | tuple[DeviceSpec, ...] = 0
    """A number of devices of one kind, or each device."""
    other_dma: tuple[OtherDma, ...] = ()
    swap: tuple[SwapSpec, ...] = ()
    accel_config: str | None = "4.1.6"
    """Version of the installed accel-config."""
    swap_tools: bool = True
    """swapon and swapoff are installed."""
    load: tuple[Load, ...] = ("thp", "lists")
    """What migrates all the time: huge pages one by one, lists of base pages, and on memtis lists
    of 24 huge pages with some base pages."""
    settle: Annotated[float, Interval(ge=0, le=3600)] = 5.0
    """Seconds for which a copy may stay in flight on a seed kernel."""
    log_lines: Annotated[int, Interval(ge=1, le=1_000_000)] = 1000
    wall: Annotated[float, Interval(ge=0, le=LAST_SECOND)] = 1790000000.0
    """Seconds since the epoch at the first boot."""
    files: dict[str, str] = field(default_factory=dict)
    """More files, such as those of other tools."""
    faults: tuple[Fault, ...] = ()

    def cpus(self, node: int) -> tuple[int, ...]:
        """Return all CPUs of a node, online or not."""
        return cpu_list(self.nodes[node].cpus)

    def siblings(self) -> dict[int, tuple[int, int]]:
        """Return the two threads of the core of each CPU, the first one first."""
        found: dict[int, tuple[int, int]] = {}
        for node in range(len(self.nodes) if self.smt else 0):
            cpus = self.cpus(node)
            half = len(cpus) // 2
            for core in zip(cpus[:half], cpus[half : 2 * half], strict=True):
                found |= dict.fromkeys(core, core)
        return found

    def each_device(self) -> tuple[DeviceSpec, ...]:
        """Return the devices, written out."""
        if isinstance(self.devices, int):
            return tuple(DeviceSpec() for _ in range(self.devices))
        return self.devices


@cache
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(HostSpec)


def parse(text: str) -> HostSpec:
    """Return the host that YAML or JSON text describes. Raises ValueError with every mistake."""
    import json

    import yaml

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        _bound(yaml.parse(text, loader))
        loaded = yaml.load(text, loader)  # noqa: S506  both are safe ones
        # JSON mode: lists stand for tuples, all else stays strict.
        spec: HostSpec = _adapter().validate_json(json.dumps(loaded, allow_nan=False))
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"host description: {mistakes(error)}") from None
    check(spec)
    return spec


def _bound(events: Iterable[Any]) -> None:
    """Raise ValueError where a text would become much more than is written."""
    depth = 0
    for event in events:
        kind = type(event).__name__
        if kind == "AliasEvent":
            raise ValueError("expected values, found an alias: write them out")
        depth += kind.endswith("StartEvent")
        depth -= kind.endswith("EndEvent")
        if depth > DEEPEST:
            raise ValueError(f"expected at most {DEEPEST} levels, found more")


def mistakes(error: Exception) -> str:
    """Return what is wrong with a text by pydantic or another reader, in short."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    ask: Any = getattr(error, "errors", None)
    if ask is None:
        return str(error)
    found = ask(include_url=False, include_input=False, include_context=False)
    told = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found[:MOST_MISTAKES]]
    more = [f"and {len(found) - MOST_MISTAKES} more"] if len(found) > MOST_MISTAKES else []
    return "; ".join(one.removeprefix(": ") for one in told + more)


def check(spec: HostSpec) -> None:
    """Raise ValueError where the parts of a description contradict each other."""
    cpus = [cpu for node in range(len(spec.nodes)) for cpu in spec.cpus(node)]
    if len(cpus) != len(set(cpus)) or 0 not in cpus:
        raise ValueError("nodes: expected CPU 0 and every CPU in one node only")
    for node in spec.nodes:
        if (node.tier is None) != (spec.nodes[0].tier is None):
            raise ValueError("nodes: expected a tier for every node, or for none")
        if node.used > node.memory:
            raise ValueError(f"nodes: expected used <= memory, found {node.used} > {node.memory}")
        if (node.driver, node.blocks) != ("kmem", "movable") and not node.device:
            raise ValueError("nodes: expected driver and blocks only for a node with a device")
        if node.device and (node.cpus or node.memory < 2):
            raise ValueError("nodes: expected a device to bring 2 GiB or more, and no CPUs")
    if spec.distances and (
        len(spec.distances) != len(spec.nodes)
        or any(len(row) != len(spec.nodes) for row in spec.distances)
    ):
        raise ValueError("distances: expected one row and one column for each node")
    own = [device.pci for device in spec.each_device() if device.pci is not None]
    for address in (*own, *(other.pci for other in spec.other_dma)):
        if not _ADDRESS.fullmatch(address):
            raise ValueError(f"pci: expected an address like 0000:6a:01.0, found {address!r}")
    for path in spec.files:
        if not path.startswith("/") or path.startswith(("/proc/", "/sys/")):
            raise ValueError(f"files: expected an absolute path outside /proc and /sys: {path}")
    names = {f"dsa{i}" for i in range(len(spec.each_device()))}
    for fault in spec.faults:
        number = getattr(fault, "node", None)
        if number is not None and not any(
            number == n and one.device for n, one in enumerate(spec.nodes)
        ):
            raise ValueError(f"faults: expected a node with a device, found {number}")
        device = getattr(fault, "device", None)
        if device is not None and device not in names:
            raise ValueError(f"faults: expected a device of this host, found {device}")


def dump(spec: HostSpec) -> str:
    """Return the description as JSON text that ``parse`` takes."""
    text: bytes = _adapter().dump_json(spec)
    return text.decode()


def shipped() -> tuple[str, ...]:
    """Return the names of the host descriptions that come with dsatier."""
    folder = resources.files("dsatier") / "hosts"
    return tuple(
        sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))
    )


def shipped_text(name: str) -> str:
    """Return the text of a shipped host description."""
    return (resources.files("dsatier") / "hosts" / f"{name}.yaml").read_text(encoding="utf-8")
