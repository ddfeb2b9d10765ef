# SPDX-License-Identifier: Apache-2.0
"""The profile: what an operator declares, as frozen values.

pydantic validates them (see ``dsatier.profile.schema``). Kernel names stay verbatim.
Every field but ``version`` may be left out; what a profile does not name, the
agent does not touch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval, Len

from dsatier.base.fields import STRICT, FirstVersion, OrDefault, Tagged

Node = Annotated[int, Interval(ge=0, le=1023)]
Nodes = Annotated[tuple[Node, ...], Len(1, 64)]
Seconds = Annotated[float, Interval(ge=0.1, le=86400)]
Text = Annotated[str, Len(1, 256)]
Reason = Literal[
    "compaction",
    "memory_hotplug",
    "syscall_or_cpuset",
    "mempolicy_mbind",
    "contig_range",
    "longterm_pin",
    "demotion",
    "damon",
]
AnyReason = Literal[Reason, "memory_failure", "numa_misplaced", "hugetlb"]
Reasons = Annotated[tuple[Reason, ...], Len(0, 8)]
AnyReasons = Annotated[tuple[AnyReason, ...], Len(0, 11)]
DeviceName = Annotated[str, Len(4, 32)]


@dataclass(frozen=True, slots=True)
class NumaShape:
    """The NUMA shape that a host must have."""

    __pydantic_config__ = STRICT

    nodes: Annotated[int, Interval(ge=1, le=1024)] | None = None
    """Number of NUMA nodes."""
    cpuless_nodes: Annotated[int, Interval(ge=0, le=1024)] | None = None
    """Number of nodes that have no CPU, online or offline."""


@dataclass(frozen=True, slots=True)
class Match:
    """Which hosts the profile is for. All that is named must match."""

    __pydantic_config__ = STRICT

    hostname: Annotated[tuple[Text, ...], Len(1, 64)] | None = None
    """Shell globs; one of them must match the host's name."""
    release: Annotated[tuple[Text, ...], Len(1, 64)] | None = None
    """Shell globs; one of them must match the kernel release (``uname -r``)."""
    abi: Annotated[tuple[Literal["ours", "seed", "none"], ...], Len(1, 3)] | None = None
    """Kernel ABI families that the profile is for."""
    cpu_model: Annotated[tuple[Text, ...], Len(1, 64)] | None = None
    """Shell globs; one of them must match the CPU's model name."""
    numa: NumaShape | None = None
    """The NUMA shape that the host must have."""


@dataclass(frozen=True, slots=True)
class NodeTiers:
    """The nodes of each tier. ``nodes: auto`` leaves all of them to the host's facts."""

    __pydantic_config__ = STRICT

    fast: Literal["auto"] | Nodes | None = None
    """Nodes with CPUs and DRAM. auto: those that have both."""
    slow: Literal["auto"] | Nodes | None = None
    """Nodes to demote to. auto: those that kernel, device or firmware tell to be slower."""
    near: Nodes | None = None
    """For each slow node, in that order, its fast node; the nearest unless named."""
    hbm: Annotated[tuple[Node, ...], Len(0, 64)] | None = None
    """Nodes with memory faster than DRAM, which are left alone."""


@dataclass(frozen=True, slots=True)
class Online:
    """Memory that is to be there: what DAX devices (CXL, PMEM) bring through the kmem driver."""

    __pydantic_config__ = STRICT

    nodes: Literal["auto"] | Nodes | None = None
    """Nodes whose memory comes online and is waited for. auto: the slow nodes."""
    zone: Annotated[Literal["movable", "kernel"], OrDefault()] = "movable"
    """movable: for what can be moved, so the memory can go again. kernel: for anything."""


@dataclass(frozen=True, slots=True)
class Tiers:
    """The tiers of memory: ``nodes``, or one pair in short."""

    __pydantic_config__ = STRICT

    nodes: Literal["auto"] | NodeTiers | None = None
    """The nodes of each tier."""
    online: Online | None = None
    """Memory that is to be there. It is brought online, and never taken away again."""

    fast_node: Node | None = None
    """Node with CPUs and DRAM; 0 unless named."""
    slow_node: Node | None = None
    """Node with CXL memory or slow DRAM; 1 unless named."""
    cpuless: bool | None = None
    """true: the CPUs of the named slow nodes go offline. false: those that dsatier took offline
    come back."""


@dataclass(frozen=True, slots=True)
class Concurrency:
    """Which migrations unmap a whole list, copy it at once and remap it."""

    __pydantic_config__ = STRICT

    use_concur_to_compact: bool | None = None
    """Compaction migrates its list concurrently."""
    use_concur_to_demote: bool | None = None
    """Demotion migrates its list concurrently."""
    use_concur_for_htmm: bool | None = None
    """Memtis promotes and demotes its lists concurrently; that kernel alone has it."""
    migrate_batch_reasons: Reasons | None = None
    """All migrations that do, by the kernel's reasons; in place of the first two above."""
    migrate_batch_pages: Annotated[int, Interval(ge=512, le=262144)] | None = None
    """Most 4 KiB pages in one list."""
    migrate_batch_usecs: Annotated[int, Interval(ge=0, le=1000000)] | None = None
    """Microseconds for which a page may wait for the others of its list; 0: no limit."""


@dataclass(frozen=True, slots=True)
class CpuEngine:
    """One CPU copies: what every kernel does by itself."""

    __pydantic_config__ = STRICT

    kind: Literal["cpu"]


@dataclass(frozen=True, slots=True)
class MultithreadEngine:
    """Several CPU threads copy."""

    __pydantic_config__ = STRICT

    kind: Literal["multithread"]
    limit_mt_num: Annotated[int, Interval(ge=1, le=32)] | None = None
    """Threads for one copy; on a seed kernel a power of two that the host's CPUs allow."""
    cpu_multi_copy_threshold: Annotated[int, Interval(ge=1, le=2147483647)] | None = None
    """Least number of 4 KiB pages in one list for threads to be used."""
    migrate_engine_reasons: AnyReasons | None = None
    """Which migrations ask the engine: any user may move own pages, and takes it from tiering."""
    migrate_copy_calibrate: bool | None = None
    """The engine gets lists only of sizes at which it has shown to be faster than one CPU."""


@dataclass(frozen=True, slots=True)
class QueueFile:
    """Work queues from an accel-config JSON file."""

    __pydantic_config__ = STRICT

    file: Annotated[str, Len(2, 4096)]
    """Absolute path of a file that ``accel-config load-config`` takes."""
    iommu: Literal["identity"] | None = None
    """identity: the IOMMU does not translate the addresses of these devices. Copies are faster, and
    nothing keeps the devices from any memory of the host."""


@dataclass(frozen=True, slots=True)
class QueueShape:
    """Work queues in short: the same dedicated kernel queues on every device."""

    __pydantic_config__ = STRICT

    devices: Annotated[int, Interval(ge=1, le=64)] | Annotated[tuple[DeviceName, ...], Len(1, 64)]
    """How many devices, counted from the first by name, or their names (``[dsa0, dsa2]``)."""
    engines: Annotated[int, Interval(ge=1, le=64), OrDefault()] = 4
    """Engines of each device, all in its group 0."""
    queues: Annotated[int, Interval(ge=1, le=64), OrDefault()] = 1
    """Dedicated kernel queues of each device, all in its group 0."""
    size: Annotated[int, Interval(ge=1, le=1024)] | None = None
    """Entries of each queue; the device's whole capacity shared evenly unless named."""
    iommu: Literal["identity"] | None = None
    """identity: the IOMMU does not translate the addresses of these devices. Copies are faster, and
    nothing keeps the devices from any memory of the host."""


@dataclass(frozen=True, slots=True)
class DsaEngine:
    """The Data Streaming Accelerator copies."""

    __pydantic_config__ = STRICT

    kind: Literal["dsa"]
    limit_chans: Annotated[int, Interval(ge=1, le=8)] | None = None
    """DMA channels that share one large page; on a seed kernel 1, 2, 4 or 8."""
    dsa_copy_threshold: Annotated[int, Interval(ge=1, le=2147483647)] | None = None
    """Least number of 4 KiB pages in one list for the DSA to be used."""
    migrate_engine_reasons: AnyReasons | None = None
    """Which migrations ask the engine: any user may move own pages, and takes it from tiering."""
    migrate_copy_calibrate: bool | None = None
    """The engine gets lists only of sizes at which it has shown to be faster than one CPU."""
    work_queues: QueueFile | QueueShape | None = None
    """Queues to configure. Without it the queues must be ready, and are not touched."""
    on_fault: Annotated[Literal["cpu", "cpu-and-stop-tiering"], OrDefault()] = "cpu"
    """What to fall to, once and latched, when the engine faults."""


Engine = Annotated[CpuEngine | MultithreadEngine | DsaEngine, Tagged("kind")]


@dataclass(frozen=True, slots=True)
class Tiering:
    """Page placement between the tiers."""

    __pydantic_config__ = STRICT

    demotion_enabled: bool | None = None
    """Reclaim demotes pages to the slow tier."""
    numa_balancing: Annotated[int, Interval(ge=0, le=3)] | None = None
    """0 off, 1 balancing, 2 memory tiering, 3 both: for hosts with two sockets."""
    promote_rate_limit_MBps: Annotated[int, Interval(ge=1, le=16777215)] | None = None  # noqa: N815
    """Most MiB/s that are promoted to each node: a tenth of what the slow node can write, say."""
    demote_scale_factor: Annotated[int, Interval(ge=1, le=10000)] | None = None
    """Demotion watermark in 1/10000 of a node's managed pages; needs numa_balancing 2 or 3."""
    swap: Literal["off", "on"] | None = None
    """off: all swap is turned off. on: swap that dsatier turned off comes back."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Watermarks, compaction and huge pages, of all nodes at once."""

    __pydantic_config__ = STRICT

    watermark_scale_factor: Annotated[int, Interval(ge=1, le=3000)] | None = None
    """Distance of the watermarks in 1/10000 of a zone: with memory tiering three times it is kept
    free for new and promoted pages."""
    watermark_boost_factor: Annotated[int, Interval(ge=0, le=2147483647)] | None = None
    """How much reclaim, and so demotion, follows on fragmentation, in 1/10000; 0: none."""
    compaction_proactiveness: Annotated[int, Interval(ge=0, le=100)] | None = None
    """How eagerly memory is compacted in the background, that of the slow nodes too."""
    zone_reclaim_mode: Annotated[int, Interval(ge=0, le=7)] | None = None
    """1: a full node is reclaimed before another is used; 2: pages are written, 4: unmapped."""
    thp_enabled: Literal["always", "madvise", "never"] | None = None
    """Who gets huge pages."""
    thp_defrag: Literal["always", "defer", "defer+madvise", "madvise", "never"] | None = None
    """Who waits until memory is compacted for a huge page."""


@dataclass(frozen=True, slots=True)
class DriftPolicy:
    """What happens when the host leaves the profile."""

    __pydantic_config__ = STRICT

    policy: Annotated[Literal["repair", "report"], OrDefault()] = "repair"
    """repair: bring it back. report: only say so."""
    interval: Annotated[Seconds, OrDefault()] = 60.0
    """Seconds between two looks at the host."""
    fights: Annotated[int, Interval(ge=1, le=100), OrDefault()] = 3
    """Repairs of the same thing within ``window`` after which dsatier gives up and says so."""
    window: Annotated[Seconds, OrDefault()] = 600.0
    """Seconds in which repairs count as a fight."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile of dsatier: the declared state of one kind of host."""

    __pydantic_config__ = STRICT

    version: FirstVersion
    """Version of this schema."""
    match: Match | None = None
    """Which hosts the profile is for."""
    tiers: Tiers | None = None
    """The tiers of memory."""
    concurrency: Concurrency | None = None
    """Concurrent migration."""
    engine: Engine | None = None
    """Who copies pages."""
    tiering: Tiering | None = None
    """Page placement between the tiers."""
    memory: Memory | None = None
    """Watermarks, compaction and huge pages."""
    drift: DriftPolicy | None = None
    """What happens when the host leaves the profile."""
