# SPDX-License-Identifier: Apache-2.0
"""Requirements: for each, hosts that lack it and the neighbour that has it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from dsatier.facts.knobs import ENGINES, KnobName
from dsatier.facts.model import Elsewhere, Facts, OtherWriter, Swap
from dsatier.facts.tiers import USUAL, Tiers, pair
from dsatier.plan.model import Desired, NodeMemory, of_tiers
from dsatier.plan.requirements import REQUIREMENTS, Requirement, findings
from dsatier.plan.short_form import expand
from dsatier.profile.model import QueueShape
from dsatier.queues.config import DeviceConfig, QueueConfig
from tests.core.ladder_checks import named
from tests.support import build, scenarios
from tests.support.build import GIB
from tests.support.scenarios import (
    FOREIGN,
    LIVE,
    OURS,
    QUEUED,
    SEED,
    cpuless,
    initialised,
    knobs,
    memtis,
)

SWAP = Swap("/dev/sda3", 8 * GIB, 4 * GIB, -2)
SWAPPING = replace(OURS, swaps=(SWAP,))
DISK = replace(SEED, swaps=(SWAP,))
"""A research kernel demotes to it."""


@dataclass(frozen=True)
class Row:
    """A host that lacks what is required, and one, or a wish, to which nothing is lacking."""

    name: str
    level: str
    facts: Facts
    desired: Desired
    safe_facts: Facts
    safe_desired: Desired
    found: str
    """Words of the finding."""

    def __str__(self) -> str:
        return f"{self.name}: {self.level}: {self.found}"


def wish(wanted: dict[KnobName, int] | None = None, **kw: Any) -> Desired:
    """A desired state."""
    return Desired(knobs=wanted, **kw)


def dsa(*configs: DeviceConfig, stopped: tuple[str, ...] = (), **more: int) -> Desired:
    """The DSA engine."""
    return Desired(knobs={**ENGINES["dsa"], **named(more)}, queues=configs, stopped=stopped)


def untranslated(*configs: DeviceConfig) -> Desired:
    """The DSA engine, its devices past the IOMMU."""
    return replace(dsa(*configs), iommu=dict.fromkeys((c.id for c in configs), "identity"))


def shape(host: Facts, devices: int = 8, **kw: Any) -> tuple[DeviceConfig, ...]:
    """The usual queues on some devices."""
    return expand(QueueShape(devices, **kw), host.devices, driver_names=True)


def each_queue(config: DeviceConfig, **changes: Any) -> DeviceConfig:
    """A configuration with all its queues changed."""
    queues: tuple[QueueConfig, ...] = tuple(replace(q, **changes) for q in config.queues)
    return replace(config, queues=queues)


def kernel(host: Facts, **changes: Any) -> Facts:
    """The host with another kernel."""
    return replace(host, kernel=replace(host.kernel, **changes))


def node(host: Facts, number: int, **changes: Any) -> Facts:
    """The host with a node changed."""
    nodes = tuple(replace(n, **changes) if n.id == number else n for n in host.nodes)
    return replace(host, nodes=nodes)


def tiers(host: Facts, fast: int, slow: int) -> Facts:
    """The host whose nodes 0 and 1 are in those memory tiers."""
    return node(node(host, 0, tier=fast), 1, tier=slow)


def sockets(host: Facts) -> Facts:
    """The host whose two nodes are sockets of one tier, beside a node of CXL memory."""
    cxl = replace(host.nodes[1], id=2, cpus=(), tier=22)
    host = tiers(host, 4, 4)
    return replace(host, nodes=(*host.nodes, cxl))


def device(host: Facts, **changes: Any) -> Facts:
    """The host with its first device changed."""
    return replace(host, devices=(replace(host.devices[0], **changes), *host.devices[1:]))


def without(host: Facts, *names: str) -> Facts:
    """The host without some knobs."""
    return replace(host, knobs={k: v for k, v in host.knobs.items() if k not in names})


def _rows() -> tuple[Row, ...]:
    def row(
        name: str,
        facts: Facts,
        desired: Desired,
        safe: Facts | Desired,
        found: str,
        level: str = "blocker",
    ) -> Row:
        if isinstance(safe, Facts):
            return Row(name, level, facts, desired, safe, desired, found)
        return Row(name, level, facts, desired, facts, safe, found)

    tier = wish({"numa_balancing": 2, "demotion_enabled": 1})
    demote = wish({"demotion_enabled": 1})
    bring = wish(memory=(NodeMemory(2),))
    brought = build.bringing(OURS, movable=(64, 65))
    mapped = build.bringing(OURS, "device_dax")
    unseen = replace(mapped, memory_devices=(replace(mapped.memory_devices[0], driver="kmem"),))
    one = replace(SEED.nodes[0], cpus=(0,))
    alone = replace(cpuless(SEED), nodes=(one, cpuless(SEED).nodes[1]))
    release = wish({"use_dsa_copy_pages": 0, "dsa_state": 0})
    plenty = {"CONFIG_NUMA_BALANCING": "y", "CONFIG_MEMORY_HOTPLUG": "y", "CONFIG_INTEL_IDXD": "m"}
    pins = OtherWriter("kubelet", "/var/lib/kubelet/config.yaml", ("cpus",))
    sysctl = OtherWriter("sysctl.d", "/etc/sysctl.d/90-numa.conf", ("numa_balancing", "swappiness"))
    loader = OtherWriter("accel-config", "/etc/accel-config/accel-config.conf", ("queues",))
    guardless = kernel(QUEUED["ours"], evl_guard=False)
    narrow = shape(OURS, 8, size=64)
    twice = replace(initialised("seed"), dsa_released=True)
    resuming = knobs(initialised("ours"), demotion_enabled=1)
    usual = shape(OURS)
    seed_usual = shape(SEED)
    busy = device(
        build.queued(OURS),
        clients=1,
        queues=tuple(replace(q, clients=1) for q in QUEUED["ours"].devices[0].queues),
    )
    user = device(
        LIVE["ours"],
        queues=tuple(replace(q, type="user", clients=1) for q in LIVE["ours"].devices[0].queues),
    )
    idle_user = device(
        build.queued(OURS),
        queues=tuple(
            replace(q, type="user", name="app0") if q.id == "wq0.0" else q
            for q in build.queued(OURS).devices[0].queues
        ),
    )
    threads = wish({"cpu_multi_copy_pages": 1})
    return (
        row("known-kernel", kernel(OURS, family="unknown", abi=9), wish(), OURS, "ABI 9"),
        row("knobs-present", build.facts("none"), dsa(), OURS, "without them"),
        row(
            "knobs-present",
            build.facts("none"),
            wish({"limit_chans": 8}),
            wish({"numa_balancing": 1}),
            "without it",
        ),
        row("knobs-present", without(OURS, "numa_balancing"), tier, OURS, "without it"),
        row("values-in-range", OURS, wish({"limit_chans": 9}), wish({"limit_chans": 7}), "found 9"),
        row("values-in-range", SEED, wish({"limit_chans": 3}), OURS, "1, 2, 4 or 8"),
        row(
            "values-in-range",
            SEED,
            wish({"limit_mt_num": 16}),
            wish({"limit_mt_num": 16}, cpuless=True),
            "1, 2, 4, 8",
        ),
        row(
            "values-in-range",
            node(cpuless(SEED), 1, cpus=(16, 17)),
            wish({"limit_mt_num": 4}),
            wish({"limit_mt_num": 4}, cpus_online=of_tiers(USUAL, (18, 19))),
            "1, 2",
        ),
        row(
            "threads-whole",
            knobs(SEED, limit_mt_num=3),
            threads,
            wish({"cpu_multi_copy_pages": 1, "limit_mt_num": 4}),
            "3",
        ),
        row(
            "threads-whole",
            knobs(SEED, limit_mt_num=16),
            threads,
            wish({"cpu_multi_copy_pages": 1}, cpuless=True),
            "16",
        ),
        row(
            "threads-whole", knobs(SEED, limit_mt_num=3), threads, knobs(OURS, limit_mt_num=3), "3"
        ),
        row("tiers-exist", node(OURS, 0, cpus=()), tier, OURS, "no CPU online"),
        row("tiers-exist", OURS, replace(tier, tiers=pair(4, 1)), tier, "no such node"),
        row("tiers-exist", node(OURS, 1, mem_total=0), tier, OURS, "no memory"),
        row("tiers-exist", replace(OURS, nodes=OURS.nodes[:1]), tier, OURS, "no such node"),
        row(
            "tiers-exist",
            replace(OURS, nodes=OURS.nodes[:1]),
            wish(cpuless=True),
            wish(),
            "no such node",
        ),
        row("tiers-exist", SEED, replace(demote, tiers=pair(1, 0)), demote, "fast node 1"),
        row("tiers-exist", node(OURS, 0, mem_total=0), wish(cpuless=True), OURS, "no memory"),
        row("tiers-exist", OURS, replace(tier, tiers=Tiers(slow=())), tier, "node 0: fast (CPUs)"),
        row("memory-there", OURS, bring, build.bringing(OURS), "no device of that node"),
        row("memory-there", mapped, bring, brought, "device_dax has"),
        row("memory-there", build.bringing(OURS, ""), bring, brought, "no driver has it"),
        row("memory-there", unseen, bring, brought, "kmem has it, and no memory block"),
        row("memory-zone", build.bringing(OURS, others=(64,)), bring, brought, "1 of 1", "warning"),
        row(
            "memory-zone",
            brought,
            wish(memory=(NodeMemory(2, "kernel"),)),
            bring,
            "2 of 2",
            "warning",
        ),
        row(
            "memory-mixed",
            build.bringing(OURS, offline=tuple(range(64, 64 + 4 * 64 + 1))),
            bring,
            build.bringing(OURS, offline=tuple(range(64, 64 + 4 * 64))),
            "514 GiB and 128 GiB",
            "warning",
        ),
        row(
            "nodes-known",
            replace(sockets(OURS), nodes=(*OURS.nodes, replace(OURS.nodes[1], id=2, cpus=()))),
            replace(tier, tiers=Tiers(slow=(), unknown=(2,))),
            replace(tier, tiers=Tiers(slow=(2,))),
            "no CPUs, and neither kernel, device nor firmware tells",
        ),
        row("tiers-apart", cpuless(tiers(OURS, 4, 4)), tier, cpuless(tiers(OURS, 4, 7)), "tier 4"),
        # the second socket must not go where CXL memory is there to be the slow tier
        row("tiers-apart", sockets(OURS), wish(cpuless=True), tiers(OURS, 4, 4), "tier 4 for it"),
        row(
            "tiers-apart",
            sockets(OURS),
            wish(cpuless=True),
            wish(cpuless=True, tiers=pair(0, 2)),
            "tier 4 for it",
        ),
        row("tiers-apart", tiers(OURS, 4, 4), tier, tiers(OURS, 4, 7), "tier 4 for it, and 4 "),
        row("tiers-apart", tiers(OURS, 7, 4), demote, OURS, "tier 4 for it, and 7"),
        row("tiering-conditions", OURS, tier, replace(tier, cpuless=True), "8 CPUs online"),
        row("tiering-conditions", OURS, demote, cpuless(OURS), "8 CPUs online"),
        row("tiering-conditions", cpuless(DISK), demote, replace(demote, swap_off=True), "sda3"),
        row("tiering-conditions", cpuless(DISK), demote, cpuless(SWAPPING), "sda3"),
        row(
            "tiering-conditions",
            cpuless(OURS),
            replace(tier, cpus_online=of_tiers(USUAL, (16, 17))),
            tier,
            "2 CPUs online, 2 of them to come back",
        ),
        row(
            "tiering-conditions",
            cpuless(SEED),
            replace(tier, swap_on=(SWAP,)),
            replace(wish({"numa_balancing": 1}), swap_on=(SWAP,)),
            "swap on /dev/sda3, which is to come back",
        ),
        row(
            "promotion-can-go",
            knobs(cpuless(OURS), promote_rate_limit_MBps=0),
            tier,
            replace(tier, knobs={**(tier.knobs or {}), "promote_rate_limit_MBps": 2000}),
            "0, with which nothing is promoted",
        ),
        row(
            "watermark-order",
            OURS,
            wish({"demote_scale_factor": 300}),
            wish({"demote_scale_factor": 300, "numa_balancing": 2}),
            "numa_balancing 0",
        ),
        row(
            "watermark-order",
            OURS,
            wish({"demote_scale_factor": 300, "numa_balancing": 1}),
            knobs(OURS, numa_balancing=2),
            "numa_balancing 1",
        ),
        row(
            "target-in-reach",
            build.aimless(alone),
            demote,
            build.aimless(cpuless(SEED)),
            "none",
        ),
        row(
            "lists-fit",
            memtis(SEED),
            dsa(use_concur_for_htmm=1),
            dsa(use_concur_for_htmm=0),
            "a descriptor too many",
            "warning",
        ),
        row(
            "lists-fit",
            knobs(memtis(SEED), use_concur_for_htmm=1),
            dsa(),
            memtis(SEED),
            "a descriptor too many",
            "warning",
        ),
        row(
            "concurrency-fits",
            knobs(memtis(SEED), use_concur_for_htmm=1),
            dsa(limit_chans=4),
            dsa(limit_chans=8),
            "4",
        ),
        row(
            "watermark-order",
            OURS,
            wish({"demote_scale_factor": 300}),
            wish({"demote_scale_factor": 300, "numa_balancing": 3}),
            "numa_balancing 0",
        ),
        row("cpus-can-go", OURS, wish(cpuless=True, tiers=pair(2, 0)), wish(cpuless=True), "cpu 0"),
        row("cpus-can-go", replace(OURS, pinned_cpus=(0, 16)), wish(cpuless=True), OURS, "cpu 16"),
        row(
            "cpus-can-go",
            replace(OURS, others=(pins,)),
            wish(cpuless=True),
            cpuless(replace(OURS, others=(pins,))),
            "kubelet does",
            "warning",
        ),
        row("devices-there", build.facts("ours", 4), dsa(*usual), dsa(*usual[:4]), "4 devices"),
        row("devices-there", scenarios.halted(OURS), dsa(*usual), OURS, "halted", "reboot"),
        row(
            "devices-there",
            OURS,
            dsa(each_queue(usual[0], size=129)),
            dsa(each_queue(usual[0], size=128)),
            "at most 128 queue entries",
        ),
        row("devices-there", busy, dsa(*narrow), dsa(*usual), "1 clients"),
        row(
            "devices-there",
            scenarios.stranded(LIVE["ours"]),
            dsa(*usual),
            OURS,
            "1 clients",
            "reboot",
        ),
        row(
            "devices-there",
            scenarios.stranded(LIVE["seed"]),
            dsa(*usual),
            SEED,
            "clients",
            "reboot",
        ),
        row("devices-there", user, dsa(*narrow), LIVE["ours"], "clients"),
        row(
            "devices-there",
            replace(OURS, devices=(), elsewhere=(Elsewhere("0000:6a:01.0", "vfio-pci"),)),
            dsa(*usual),
            OURS,
            "0000:6a:01.0 at vfio-pci",
        ),
        row(
            "queues-are-ours",
            idle_user,
            dsa(*usual),
            dsa(*usual[1:]),
            "wq0.0 (user, app0), which will be gone",
            "warning",
        ),
        row("devices-can-stop", guardless, dsa(*narrow), dsa(*usual), "then oopses", "reboot"),
        row(
            "devices-can-stop",
            guardless,
            wish(stopped=("dsa0",)),
            device(guardless, event_log=True),
            "then oopses",
            "reboot",
        ),
        row("devices-can-stop", guardless, dsa(*narrow), QUEUED["ours"], "then oopses", "reboot"),
        row(
            "accel-config-there",
            replace(OURS, accel_config=None),
            dsa(*usual),
            OURS,
            "not installed",
        ),
        row("accel-config-there", replace(OURS, accel_config="3.4.8"), dsa(*usual), OURS, "3.4.8"),
        row(
            "accel-config-there",
            replace(QUEUED["ours"], accel_config=None),
            dsa(*narrow),
            dsa(*usual),
            "not installed",
        ),
        row(
            "accel-config-there",
            replace(OURS, accel_config="3.5.3"),
            dsa(*(each_queue(c, prs_disable=True) for c in usual)),
            replace(OURS, accel_config="4.1.6"),
            "3.5.3, which ignores them",
        ),
        row("queues-enough", OURS, dsa(), QUEUED["ours"], "dsa0 is disabled"),
        row("queues-enough", OURS, dsa(*usual[:4]), dsa(*usual[:4], limit_chans=4), "4"),
        row(
            "queues-enough",
            OURS,
            dsa(*(each_queue(c, mode="shared") for c in usual)),
            dsa(*usual),
            "wq0.0 is shared of type kernel",
        ),
        row(
            "queues-enough",
            SEED,
            dsa(*(each_queue(c, max_batch_size=64) for c in seed_usual)),
            OURS,
            "max_batch_size 64",
        ),
        row(
            "queues-enough",
            SEED,
            dsa(*(each_queue(c, max_transfer_size=1 << 20) for c in seed_usual)),
            dsa(*seed_usual),
            "max_transfer_size 1048576",
        ),
        row("queues-enough", QUEUED["ours"], dsa(stopped=("dsa0",)), dsa(), "7"),
        row(
            "queues-enough",
            knobs(LIVE["ours"], dsa_state=0, use_dsa_copy_pages=0),
            dsa(),
            LIVE["ours"],
            "0",
        ),
        row(
            "kernel-configured",
            kernel(OURS, config={**plenty, "CONFIG_INTEL_IDXD": "n"}),
            dsa(*usual),
            kernel(OURS, config=plenty),
            "n",
        ),
        row(
            "kernel-configured",
            kernel(SEED, config={"CONFIG_NUMA_BALANCING": "y"}),
            tier,
            kernel(SEED, config=plenty),
            "not set",
        ),
        row(
            "kernel-configured",
            kernel(OURS, config={"CONFIG_NUMA_BALANCING": "y"}),
            tier,
            kernel(OURS, config=None),
            "not set",
            "warning",
        ),
        row(
            "kernel-configured",
            kernel(OURS, config={"CONFIG_MEMORY_HOTPLUG": "y"}),
            demote,
            wish({"demotion_enabled": 0}),
            "not set",
        ),
        row("dsa-healthy", replace(OURS, boot_taint=128), dsa(), OURS, "taint 128", "reboot"),
        row("dsa-healthy", replace(OURS, boot_taint=128), dsa(), threads, "taint 128", "reboot"),
        row("dsa-healthy", knobs(SEED, dsa_async_mode=1), dsa(), SEED, "1, which oopses"),
        row(
            "dsa-healthy",
            scenarios.halted(initialised("ours")),
            dsa(),
            scenarios.halted(OURS),
            "halted",
            "reboot",
        ),
        row(
            "addresses-untranslated",
            replace(SEED, iommu="translated"),
            dsa(),
            replace(SEED, iommu="off"),
            "translated",
        ),
        row("addresses-untranslated", replace(SEED, iommu="unknown"), dsa(), SEED, "unknown"),
        row(
            "addresses-untranslated",
            replace(OURS, iommu="translated"),
            dsa(),
            OURS,
            "slow down",
            "warning",
        ),
        row(
            "addresses-untranslated",
            replace(OURS, scalable_mode=False),
            dsa(),
            OURS,
            "no sm_on",
            "warning",
        ),
        row(
            "addresses-untranslated",
            replace(SEED, iommu="translated"),
            dsa(),
            replace(LIVE["seed"], iommu="translated"),
            "translated",
        ),
        row(
            "addresses-untranslated",
            build.grouped(SEED),
            dsa(*seed_usual),
            untranslated(*seed_usual),
            "translated",
        ),
        row(
            "addresses-untranslated",
            build.grouped(OURS),
            dsa(*usual),
            untranslated(*usual),
            "slow down",
            "warning",
        ),
        row(
            "iommu-can-change",
            build.grouped(OURS, "DMA", scenarios.BRIDGE),
            untranslated(*usual),
            build.grouped(OURS),
            "pcieport has that",
        ),
        row(
            "iommu-can-change",
            kernel(build.grouped(OURS), release="5.10.0-9-amd64"),
            untranslated(*usual),
            dsa(*usual),
            "lets nobody write it",
        ),
        row(
            "iommu-can-change",
            build.grouped(OURS, ""),
            untranslated(*usual),
            build.grouped(OURS, "identity", scenarios.BRIDGE),
            "tells no type",
        ),
        row(
            "unit-rights",
            replace(build.grouped(OURS), unit_lacks=("CAP_SYS_RAWIO", "a folder")),
            untranslated(*usual),
            build.grouped(OURS),
            "it lacks CAP_SYS_RAWIO and a folder",
        ),
        row(
            "unit-rights",
            replace(build.grouped(OURS), unit_lacks=("CAP_SYS_RAWIO",)),
            untranslated(*usual),
            replace(build.grouped(OURS, "identity"), unit_lacks=("CAP_SYS_RAWIO",)),
            "it lacks CAP_SYS_RAWIO",
        ),
        row("channels-ours-alone", replace(SEED, channels=(FOREIGN,)), dsa(), SEED, "dma9chan0"),
        row(
            "channels-ours-alone",
            replace(SEED, channels=(FOREIGN,)),
            dsa(),
            replace(OURS, channels=(FOREIGN,)),
            "dma9chan0",
        ),
        row(
            "channels-ours-alone",
            scenarios.halted(replace(SEED, channels=(FOREIGN,))),
            dsa(),
            scenarios.halted(SEED),
            "dma9chan0",
            "reboot",
        ),
        row(
            "concurrency-fits",
            SEED,
            dsa(limit_chans=4, use_concur_to_demote=1),
            dsa(limit_chans=8, use_concur_to_demote=1),
            "4",
        ),
        row(
            "concurrency-fits",
            knobs(SEED, use_concur_to_compact=1),
            dsa(limit_chans=4),
            dsa(limit_chans=4, use_concur_to_compact=0),
            "4",
        ),
        row(
            "concurrency-fits",
            knobs(SEED, use_concur_to_compact=1, limit_chans=4),
            dsa(),
            knobs(OURS, use_concur_to_compact=1, limit_chans=4),
            "4",
        ),
        row(
            "dsa-can-be-freed",
            scenarios.unheld(twice),
            release,
            scenarios.unheld(initialised("seed")),
            "0: a start had failed",
            "reboot",
        ),
        row(
            "dsa-can-be-freed",
            replace(initialised("seed"), channels=initialised("seed").channels[:3]),
            release,
            wish({"use_dsa_copy_pages": 0}),
            "3: a start had failed",
            "reboot",
        ),
        row(
            "dsa-can-be-freed",
            knobs(LIVE["seed"], limit_chans=4),
            dsa(limit_chans=8),
            LIVE["seed"],
            "8: a start had failed",
            "reboot",
        ),
        row("quiet-can-be-had", resuming, release, cpuless(resuming), "8 CPUs online"),
        row(
            "quiet-can-be-had",
            knobs(initialised("ours"), numa_balancing=2),
            release,
            wish({"dsa_state": 0, "numa_balancing": 0}),
            "8 CPUs online",
        ),
        row(
            "quiet-can-be-had",
            knobs(initialised("seed"), numa_balancing=3),
            release,
            knobs(initialised("seed"), numa_balancing=1),
            "8 CPUs online",
        ),
        row(
            "quiet-can-be-had",
            cpuless(replace(knobs(initialised("seed"), demotion_enabled=1), swaps=(SWAP,))),
            release,
            replace(release, swap_off=True),
            "swap on /dev/sda3",
        ),
        row(
            # threads must rest on a seed while CPUs go, and so must tiering
            "quiet-can-be-had",
            replace(knobs(SEED, cpu_multi_copy_pages=1, numa_balancing=2), swaps=(SWAP,)),
            wish({"cpu_multi_copy_pages": 0}, cpuless=True),
            replace(knobs(SEED, numa_balancing=2), swaps=(SWAP,)),
            "swap on /dev/sda3",
        ),
        row(
            "quiet-can-be-had",
            knobs(cpuless(OURS), demotion_enabled=1),
            wish(cpus_online=of_tiers(USUAL, (16,))),
            wish({"demotion_enabled": 0}, cpus_online=of_tiers(USUAL, (16,))),
            "1 CPUs online, 1 of them to come back",
        ),
        row(
            "quiet-can-be-had",
            knobs(cpuless(SEED), demotion_enabled=1),
            wish(swap_on=(SWAP,)),
            wish({"demotion_enabled": 0}, swap_on=(SWAP,)),
            "swap on /dev/sda3, which is to come back",
        ),
        row(
            "swap-fits",
            replace(OURS, swaps=(replace(SWAP, used=124 * GIB),)),
            wish(swap_off=True),
            replace(OURS, swaps=(replace(SWAP, used=123 * GIB),)),
            "124.0 GiB",
        ),
        row(
            "knobs-uncontested",
            replace(OURS, others=(sysctl,)),
            tier,
            wish({"dsa_copy_threshold": 12}),
            "sysctl.d sets numa_balancing",
            "warning",
        ),
        row(
            "knobs-uncontested",
            replace(OURS, others=(loader,)),
            dsa(*usual),
            dsa(),
            "accel-config sets queues",
            "warning",
        ),
    )


ROWS = _rows()


def mistakes(requirements: tuple[Requirement, ...] = REQUIREMENTS) -> list[str]:
    """Return where ``requirements`` judge otherwise than the table says."""
    wrong = []
    for one in ROWS:
        named = [f for f in findings(one.facts, one.desired, requirements) if f.name == one.name]
        if not any(f.level == one.level and one.found in f.found for f in named):
            wrong.append(f"{one}: found {[str(f) for f in named] or 'nothing'}")
        wrong += [f"{one}: found without a remedy: {f}" for f in named if not f.remedy.strip()]
        other = findings(one.safe_facts, one.safe_desired, requirements)
        wrong += [f"{one}: its neighbour has: {f}" for f in other if f.name == one.name]
    return wrong


@pytest.mark.parametrize("one", ROWS, ids=str)
def test_what_lacks_is_found(one: Row) -> None:
    named = [f for f in findings(one.facts, one.desired) if f.name == one.name]
    assert one.level in {f.level for f in named}
    assert [f for f in named if one.found in f.found]
    assert all(f.remedy.strip() and f.expected.strip() and f.where.strip() for f in named)


@pytest.mark.parametrize("one", ROWS, ids=str)
def test_what_is_there_is_not_found(one: Row) -> None:
    assert [] == [f for f in findings(one.safe_facts, one.safe_desired) if f.name == one.name]


def test_every_requirement_has_a_row() -> None:
    names = [requirement.__name__.replace("_", "-") for requirement in REQUIREMENTS]
    assert sorted(names) == sorted({one.name for one in ROWS})
    assert [] == mistakes()


def test_a_requirement_speaks_under_its_own_name() -> None:
    for requirement in REQUIREMENTS:
        name = requirement.__name__.replace("_", "-")
        spoken = {f.name for one in ROWS for f in requirement(one.facts, one.desired)}
        assert {name} == spoken


def test_blockers_come_first() -> None:
    both = replace(cpuless(DISK), others=(OtherWriter("TuneD", "/etc/t", ("numa_balancing",)),))
    found = findings(both, wish({"numa_balancing": 2, "demote_scale_factor": 300}))
    assert ["blocker", "warning"] == [f.level for f in found]


def test_a_host_that_has_everything_has_no_findings() -> None:
    everything = Desired(
        cpuless=True,
        knobs={
            **ENGINES["dsa"],
            "limit_chans": 8,
            "numa_balancing": 2,
            "demotion_enabled": 1,
            "demote_scale_factor": 300,
        },
        queues=shape(OURS),
        swap_off=True,
    )
    for host in (SWAPPING, replace(SEED, swaps=(SWAP,))):
        assert () == findings(host, everything)


def remedy(name: str, facts: Facts, desired: Desired) -> str:
    """Return what the first finding of that name says is to be done."""
    return next(f.remedy for f in findings(facts, desired) if f.name == name)


def test_the_remedy_of_a_second_socket_names_the_slow_nodes() -> None:
    host = sockets(OURS)
    assert "name `tiers: {slow_node: 2}` in the profile" in remedy(
        "tiers-apart", host, wish(cpuless=True)
    )
    more = replace(host, nodes=(*host.nodes, replace(host.nodes[2], id=3)))
    said = remedy("tiers-apart", more, wish({"demotion_enabled": 1}, cpuless=True))
    assert "write `tiers: {nodes: auto}` in the profile" in said
    assert said.endswith("in a lower tier, without CPUs: nodes 2-3")


def test_the_remedy_of_devices_that_a_guest_has_names_their_driver() -> None:
    taken = replace(OURS, devices=(), elsewhere=(Elsewhere("0000:6a:01.0", "vfio-pci"),))
    said = remedy("devices-there", taken, dsa(*shape(OURS)))
    assert said.startswith("take them from vfio-pci")
    assert "0000:6a:01.0" in said
    assert "BIOS" not in said
