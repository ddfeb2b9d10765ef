# SPDX-License-Identifier: Apache-2.0
"""Facts of made-up hosts, for tests of the pure core."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dsatier.facts.knobs import KNOBS
from dsatier.facts.model import (
    Blocks,
    Channel,
    DsaDevice,
    Facts,
    IommuGroup,
    Kernel,
    MemoryDevice,
    Neighbour,
    NumaNode,
    WorkQueue,
)
from dsatier.facts.readings import worst
from dsatier.facts.tiers import USUAL
from dsatier.plan.projection import project
from dsatier.plan.requests import LoadDevice, SetKnob
from dsatier.plan.short_form import expand
from dsatier.profile.model import QueueShape

GIB = 1 << 30


def queue(device: int, number: int = 0) -> WorkQueue:
    """An unconfigured work queue of device ``device``."""
    return WorkQueue(
        id=f"wq{device}.{number}",
        state="disabled",
        type="none",
        mode="shared",
        name="",
        driver_name="",
        group=-1,
        size=0,
        priority=0,
        threshold=0,
        block_on_fault=False,
        max_batch_size=1024,
        max_transfer_size=1 << 31,
        clients=0,
    )


def device(number: int, *, event_log: bool = False) -> DsaDevice:
    """A disabled DSA device."""
    return DsaDevice(
        id=f"dsa{number}",
        pci=f"0000:{0x6A + number:02x}:01.0",
        state="disabled",
        numa_node=0,
        version=0x200 if event_log else 0x100,
        event_log=event_log,
        clients=0,
        errors="",
        max_groups=4,
        max_engines=4,
        max_queues=8,
        max_queue_entries=128,
        max_batch_size=1024,
        max_transfer_size=1 << 31,
        engines=(-1, -1, -1, -1),
        queues=tuple(queue(number, n) for n in range(8)),
    )


def facts(family: str = "ours", devices: int = 8, **changes: Any) -> Facts:
    """A two-tier host of a kernel family, with everything off."""
    missing = {"use_concur_for_htmm"}  # memtis's alone
    if family == "seed":
        missing |= {"promote_rate_limit_MBps", "cpu_multi_copy_threshold"}
        missing |= {name for name in KNOBS if name.startswith("migrate_")}
    if family == "none":
        missing = {k.name for k in KNOBS.values() if not k.mainline}
    host = Facts(
        schema_version=1,
        hostname="host1",
        cpu_model="Intel(R) Xeon(R) Platinum 8480+",
        kernel=Kernel(
            release="6.12.117-dsatier1",
            family=family,  # type: ignore[arg-type]
            abi=1 if family == "ours" else None,
            boot_id="boot-1",
            cmdline=("intel_iommu=on,sm_on", "iommu=pt"),
            config=None,
            evl_guard=family in ("ours", "seed"),
        ),
        iommu="passthrough",
        scalable_mode=True,
        nodes=(
            NumaNode(0, tuple(range(16)), (10, 21), 64 * GIB, 60 * GIB, demotion_watermark=0),
            NumaNode(1, tuple(range(16, 24)), (21, 10), 64 * GIB, 63 * GIB, demotion_watermark=0),
        ),
        offline_cpus=(),
        pinned_cpus=(0,),
        knobs={k.name: str(k.default) for k in KNOBS.values() if k.name not in missing},
        timer={"dsa_copy_fail": 0} if family in ("ours", "seed") else {},
        devices=tuple(device(n) for n in range(devices)),
        channels=(),
        swaps=(),
        accel_config="3.5.3",
        others=(),
        dsa_released=False,
        boot_taint=0,
    )
    return replace(host, **changes)


def queued(host: Facts, devices: int = 8) -> Facts:
    """The host with the usual work queues enabled."""
    for config in expand(QueueShape(devices), host.devices, driver_names=True):
        host = project(host, LoadDevice(config), USUAL)
    return host


def grouped(host: Facts, kind: str = "DMA-FQ", *others: Neighbour) -> Facts:
    """The host with each device in an IOMMU group of that type, with these beside it."""
    devices = tuple(
        replace(d, group=IommuGroup(str(n), kind, others)) for n, d in enumerate(host.devices)
    )
    return replace(host, devices=devices, iommu=worst(d.group for d in devices))


def live(host: Facts, chans: int = 8) -> Facts:
    """The host with the usual queues, and the DSA copying."""
    host = queued(host)
    for request in (
        SetKnob("limit_chans", chans),
        SetKnob("dsa_state", 1),
        SetKnob("use_dsa_copy_pages", 1),
    ):
        host = project(host, request, USUAL)
    return host


def channel(name: str, queue_id: str | None, in_use: int = 0) -> Channel:
    """A DMA channel."""
    return Channel(name, queue_id, in_use)


def aimless(host: Facts) -> Facts:
    """The host as a TPP kernel shows it that booted with CPUs on both nodes."""
    return replace(host, nodes=tuple(replace(n, demotion_target=-1) for n in host.nodes))


def bringing(host: Facts, driver: str = "kmem", kind: str = "cxl", **blocks: Any) -> Facts:
    """The host with a device that becomes node 2: two memory blocks, which are offline."""
    there = Blocks(2 * GIB, **(blocks or {"offline": (64, 65)})) if driver == "kmem" else None
    device = MemoryDevice("dax2.0", kind, driver, 2, 0, there)  # type: ignore[arg-type]
    size = 2 * GIB * len(there.all - set(there.offline)) if there else 0
    nodes = (*host.nodes, NumaNode(2, (), (21, 21, 10), size, size)) if there else host.nodes
    return replace(host, nodes=nodes, memory_devices=(device,))


def marked(host: Facts, pages: int | None, number: int = 0) -> Facts:
    """Return the facts with that demotion watermark on a node."""
    nodes = (replace(n, demotion_watermark=pages) if n.id == number else n for n in host.nodes)
    return replace(host, nodes=tuple(nodes))
