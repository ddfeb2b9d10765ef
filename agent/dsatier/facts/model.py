# SPDX-License-Identifier: Apache-2.0
"""Facts: what a host is, as frozen values that round-trip through JSON.

``dsatier.facts.observe.observer`` collects them; everything that decides takes them as an
argument, so that a fleet can be planned from captured facts without its hosts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dsatier.base.fields import STRICT, FirstVersion

Family = Literal["ours", "seed", "none", "unknown"]
Iommu = Literal["off", "passthrough", "translated", "unknown"]


@dataclass(frozen=True, slots=True)
class Kernel:
    """The running kernel."""

    __pydantic_config__ = STRICT

    release: str
    """As ``uname -r`` prints it."""
    family: Family
    """ours: our series; seed: the research kernels; none: no knobs; unknown: an ABI that this
    agent does not know."""
    abi: int | None
    """Version of our ABI, None on other kernels."""
    boot_id: str
    """Changes with every boot."""
    cmdline: tuple[str, ...]
    """Boot parameters."""
    config: dict[str, str] | None
    """The CONFIG_ options that matter, by name; None where the configuration cannot be read."""
    evl_guard: bool
    """False: disabling a DSA device without event log oopses this kernel, or may."""


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast the CPUs nearest to a node reach its memory, as firmware says (HMAT, access1)."""

    __pydantic_config__ = STRICT

    latency: int
    """Nanoseconds, read and write together; 0: firmware says nothing."""
    bandwidth: int
    """MB/s, read and write together; 0: firmware says nothing."""


@dataclass(frozen=True, slots=True)
class NumaNode:
    """A NUMA node."""

    __pydantic_config__ = STRICT

    id: int
    cpus: tuple[int, ...]
    """CPUs of the node that are online. The kernel does not tell an offline CPU's node."""
    distances: tuple[int, ...]
    mem_total: int
    """Bytes."""
    mem_free: int
    """Bytes."""
    tier: int | None = None
    """Its memory tier, as the kernel numbers them: more is slower, and memory is demoted to such
    a one only. None where the kernel shows none."""
    demotion_watermark: int | None = None
    """Pages, of its Normal zone in /proc/zoneinfo; None where it is not shown."""
    demotion_target: int | None = None
    """The node that its pages are demoted to, by /proc/zoneinfo; -1: none, so nothing is demoted.
    None where it is not shown: only TPP shows it."""
    speed: Speed | None = None
    """None where the kernel shows none."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A PCI device that is in one IOMMU group with a DSA device."""

    __pydantic_config__ = STRICT

    pci: str
    """PCI address."""
    driver: str
    """Empty where no driver has it."""


@dataclass(frozen=True, slots=True)
class IommuGroup:
    """The IOMMU group of a DSA device: all of it is translated in one way."""

    __pydantic_config__ = STRICT

    id: str
    """Its number."""
    type: str
    """As the kernel tells: ``identity``, ``DMA``, ``DMA-FQ``; empty where it does not tell."""
    others: tuple[Neighbour, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkQueue:
    """A work queue of a DSA device, as sysfs tells it."""

    __pydantic_config__ = STRICT

    id: str
    """As in ``wq0.1``."""
    state: str
    type: str
    mode: str
    name: str
    driver_name: str | None
    """None where this idxd has no such attribute."""
    group: int
    """-1: in no group."""
    size: int
    priority: int
    threshold: int
    block_on_fault: bool
    max_batch_size: int
    max_transfer_size: int
    """Bytes."""
    clients: int


@dataclass(frozen=True, slots=True)
class DsaDevice:
    """A DSA device, as sysfs tells it."""

    __pydantic_config__ = STRICT

    id: str
    """As in ``dsa0``."""
    pci: str
    """PCI address, empty if it is not known."""
    state: str
    """enabled, disabled or halted."""
    numa_node: int
    version: int
    """256 (0x100) for DSA 1.0, 512 for 2.0."""
    event_log: bool
    """The hardware has an event log (gen_cap bits 13-14)."""
    clients: int
    errors: str
    max_groups: int
    max_engines: int
    max_queues: int
    max_queue_entries: int
    max_batch_size: int
    max_transfer_size: int
    """Bytes."""
    engines: tuple[int, ...]
    """The group of each engine, in order; -1: in none."""
    queues: tuple[WorkQueue, ...]
    group: IommuGroup | None = None
    """None where it is behind no IOMMU."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A DSA device that a driver other than idxd has."""

    __pydantic_config__ = STRICT

    pci: str
    """PCI address."""
    driver: str
    """As in ``vfio-pci``."""


@dataclass(frozen=True, slots=True)
class Unbound:
    """A DSA device that no driver has."""

    __pydantic_config__ = STRICT

    pci: str
    """PCI address."""
    group: IommuGroup | None = None
    """None where it is behind no IOMMU."""


@dataclass(frozen=True, slots=True)
class Channel:
    """A DMA channel that somebody could hold."""

    __pydantic_config__ = STRICT

    id: str
    """As in ``dma0chan0``."""
    queue: str | None
    """The work queue that it stands for (``wq0.0``), None for other DMA devices. sysfs does not
    tell: channels and queues of one device are paired by who holds them."""
    in_use: int
    """How many hold it."""


@dataclass(frozen=True, slots=True)
class Swap:
    """An active swap area."""

    __pydantic_config__ = STRICT

    path: str
    size: int
    """Bytes."""
    used: int
    """Bytes."""
    priority: int


@dataclass(frozen=True, slots=True)
class OtherWriter:
    """Another tool that is set up to write what dsatier may write."""

    __pydantic_config__ = STRICT

    tool: str
    """TuneD, sysctl.d, tmpfiles.d, sysfs.conf, saptune, kubelet or accel-config."""
    path: str
    """The file that says so."""
    items: tuple[str, ...]
    """Names of the knobs, ``cpus`` or ``queues``."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """The memory blocks of a DAX device that kmem has, by number and by how they are."""

    __pydantic_config__ = STRICT

    size: int
    """Bytes of each."""
    offline: tuple[int, ...] = ()
    movable: tuple[int, ...] = ()
    """Online in the zone Movable: they can go again."""
    others: tuple[int, ...] = ()
    """Online in another zone: the kernel keeps there what it cannot move."""

    @property
    def all(self) -> frozenset[int]:
        """All of them."""
        return frozenset((*self.offline, *self.movable, *self.others))


@dataclass(frozen=True, slots=True)
class MemoryDevice:
    """Memory that a driver can bring in as a node: a DAX device."""

    __pydantic_config__ = STRICT

    id: str
    """As in ``dax0.0``."""
    kind: Literal["cxl", "pmem", "hmem", "other"]
    """What it hangs on: a CXL region, persistent memory, memory that firmware has set aside."""
    driver: str
    """``kmem``: it is memory; ``device_dax``: programs map it; empty: nobody has it."""
    target_node: int
    """The node that it becomes."""
    numa_node: int
    """The nearest node with CPUs, -1 where that is not known."""
    blocks: Blocks | None = None
    """None where kmem does not have it, or this process may not read where its memory is."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything about a host that a plan depends on."""

    __pydantic_config__ = STRICT

    schema_version: FirstVersion
    hostname: str
    cpu_model: str
    kernel: Kernel
    iommu: Iommu
    scalable_mode: bool
    """The IOMMU is in scalable mode: asked for (``sm_on``), by the kernel's default, or by the
    evidence of a device that has its PASID enabled."""
    nodes: tuple[NumaNode, ...]
    offline_cpus: tuple[int, ...]
    pinned_cpus: tuple[int, ...]
    """CPUs that cannot go offline: no ``online`` file, as CPU 0 has none."""
    knobs: dict[str, str]
    """Live values of the knobs that this kernel has, by name, as text."""
    timer: dict[str, int]
    """The numbers of /proc/timer's first line; empty where it is missing."""
    devices: tuple[DsaDevice, ...]
    channels: tuple[Channel, ...]
    swaps: tuple[Swap, ...]
    accel_config: str | None
    """Version of accel-config, None where it is not installed or there are no devices for it."""
    others: tuple[OtherWriter, ...]
    dsa_released: bool | None
    """The seed has released DMA channels since boot, which it may point to still: by a release,
    or by a start that failed midway. The log says so; None where it cannot be read or no longer
    reaches back."""
    boot_taint: int
    """/proc/sys/kernel/tainted; bit 7 (128): the kernel has oopsed since boot."""
    kernel_log: bool = True
    """The kernel log can be read. Without it nothing is applied: it is evidence."""
    smt: str = ""
    """As ``smt/control`` reads: on, off, forceoff; empty where it is not there."""
    second_threads: tuple[int, ...] = ()
    """CPUs that are not the first thread of their core, of those that were online at a boot's
    first look: without SMT the kernel does not bring them online."""
    elsewhere: tuple[Elsewhere, ...] = ()
    """DSA devices that another driver has, which gives them to a program or to a guest."""
    unbound: tuple[Unbound, ...] = ()
    """DSA devices that no driver has."""
    unit_lacks: tuple[str, ...] = ()
    """What dsatier.service lacks for writing types of IOMMU groups, where it runs: a capability, a
    folder."""
    memory_devices: tuple[MemoryDevice, ...] = ()
