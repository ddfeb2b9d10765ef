# SPDX-License-Identifier: Apache-2.0
"""One table for the interlock: an unsafe request, and the safe one next to it, for each guard."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dsatier.facts.model import Facts, IommuGroup, Neighbour, Swap, Unbound
from dsatier.facts.tiers import USUAL
from dsatier.plan.interlock import GUARDS, Circumstances, Guard, refusals
from dsatier.plan.projection import project
from dsatier.plan.requests import (
    BindDevice,
    LoadDevice,
    OnlineMemory,
    Request,
    SetCpu,
    SetIommu,
    SetKnob,
    StirCpu,
    StopDevice,
    SwapOff,
    SwapOn,
)
from dsatier.queues.config import captured
from tests.support import build
from tests.support.build import GIB

LONG = 60.0
AREA = Swap("/dev/sda3", 8 * GIB, 0, -2)


@dataclass(frozen=True)
class Scenario:
    """A request that a guard refuses, and a neighbour that every guard lets through."""

    guard: str
    facts: Facts
    request: Request
    safe_facts: Facts
    safe_request: Request
    quiet: float = LONG
    safe_quiet: float = LONG
    alone: bool = True
    """No other guard refuses it."""

    def __str__(self) -> str:
        return f"{self.guard}: {self.facts.kernel.family}: {self.request}"


def knobs(host: Facts, **values: int) -> Facts:
    """The host with other values of knobs."""
    return replace(host, knobs={**host.knobs, **{k: str(v) for k, v in values.items()}})


def initialised(family: str, chans: int = 8) -> Facts:
    """A host whose DSA is initialised and does not copy yet."""
    return knobs(build.live(build.facts(family), chans), use_dsa_copy_pages=0)


def cpuless(host: Facts) -> Facts:
    """The host with its slow node's CPUs offline."""
    for cpu in host.nodes[1].cpus:
        host = project(host, SetCpu(cpu, online=False), USUAL)
    return host


def halted(host: Facts, state: str = "halted") -> Facts:
    """The host with its first device halted."""
    return replace(host, devices=(replace(host.devices[0], state=state), *host.devices[1:]))


def stranded(host: Facts) -> Facts:
    """A live host whose first device halted while the kernel held its channels."""
    first = host.devices[0]
    gone = {queue.id for queue in first.queues}
    queues = tuple(replace(queue, state="disabled", group=-1) for queue in first.queues)
    state = "halted" if host.kernel.family == "seed" else "disabled"
    lost = replace(first, state=state, queues=queues)
    return replace(
        knobs(host, use_dsa_copy_pages=0),
        devices=(lost, *host.devices[1:]),
        channels=tuple(replace(c, queue=None) if c.queue in gone else c for c in host.channels),
    )


def unheld(host: Facts) -> Facts:
    """The host with no channel held."""
    return replace(host, channels=tuple(replace(c, in_use=0) for c in host.channels))


def queues(host: Facts, **changes: Any) -> Facts:
    """The host with every enabled queue changed."""
    devices = tuple(
        replace(
            d,
            queues=tuple(replace(q, **changes) if q.state == "enabled" else q for q in d.queues),
        )
        for d in host.devices
    )
    return replace(host, devices=devices)


def beside_shared(host: Facts) -> Facts:
    """The host with a shared kernel queue beside the usual ones, whose channel is free."""
    first = host.devices[0]
    shared = replace(first.queues[0], id="wq0.1", mode="shared", clients=0)
    devices = (
        replace(first, queues=(first.queues[0], shared, *first.queues[2:])),
        *host.devices[1:],
    )
    free = build.channel("dma0chan1", "wq0.1")
    return replace(host, devices=devices, channels=(*host.channels, free))


def _kernel(host: Facts, **changes: Any) -> Facts:
    return replace(host, kernel=replace(host.kernel, **changes))


def memtis(host: Facts) -> Facts:
    """The host with the other seed kernel."""
    found = {k: v for k, v in host.knobs.items() if k != "demote_scale_factor"}
    return replace(host, knobs={**found, "use_concur_for_htmm": "0"})


def _without_log(host: Facts) -> Facts:
    return _kernel(host, evl_guard=False)


OURS, SEED = build.facts("ours"), build.facts("seed")
QUEUED = {"ours": build.queued(OURS), "seed": build.queued(SEED)}
LIVE = {"ours": build.live(OURS), "seed": build.live(SEED)}
CONFIG = captured(QUEUED["ours"].devices[0])
TIERED = knobs(cpuless(OURS), numa_balancing=2)
USE, START, STOP = (
    SetKnob("use_dsa_copy_pages", 1),
    SetKnob("dsa_state", 1),
    SetKnob("dsa_state", 0),
)
FREE = build.grouped(OURS)
BRINGS = build.bringing(OURS)
ONLINE = OnlineMemory("dax2.0", 2, (64, 65), "movable")
BRIDGE = Neighbour("0000:6a:00.0", "pcieport")
ALONE = build.grouped(OURS, "DMA", Neighbour("0000:6a:00.0", ""))
IDENTITY = SetIommu("dsa0", "0000:6a:01.0", "0", "identity")
LOOSE = "0000:6a:01.0"
FOREIGN = build.channel("dma9chan0", None)


def _loose(group: IommuGroup | None) -> Facts:
    return replace(OURS, unbound=(Unbound(LOOSE, group),))


def _scenarios() -> tuple[Scenario, ...]:
    def row(
        guard: str, facts: Facts, request: Request, safe: Facts | Request, **kw: Any
    ) -> Scenario:
        if isinstance(safe, Facts):
            return Scenario(guard, facts, request, safe, request, **kw)
        return Scenario(guard, facts, request, facts, safe, **kw)

    threshold = SetKnob("dsa_copy_threshold", 12)
    found = [
        row("known-kernel", build.facts("unknown"), threshold, OURS),
        row("knob-present", build.facts("none"), threshold, SetKnob("numa_balancing", 1)),
        row("value-in-range", OURS, SetKnob("limit_chans", 9), SetKnob("limit_chans", 7)),
        row("value-in-range", OURS, SetKnob("limit_mt_num", 33), SetKnob("limit_mt_num", 7)),
        row("value-in-range", OURS, SetKnob("dsa_copy_threshold", 0), threshold),
        row("value-in-range", SEED, SetKnob("limit_chans", -1), SetKnob("limit_chans", 1)),
        row("value-in-range", SEED, SetKnob("limit_chans", 3), SetKnob("limit_chans", 4)),
        row("value-in-range", SEED, SetKnob("limit_mt_num", 7), SetKnob("limit_mt_num", 8)),
        row("value-in-range", SEED, SetKnob("limit_mt_num", 16), SetKnob("limit_mt_num", 8)),
        row("value-in-range", SEED, SetKnob("dsa_async_mode", 1), SetKnob("dsa_async_mode", 0)),
        row("value-in-range", memtis(cpuless(SEED)), SetKnob("numa_balancing", 2), cpuless(SEED)),
        row("value-in-range", memtis(cpuless(SEED)), SetKnob("numa_balancing", 3), cpuless(SEED)),
        row("start-once", initialised("ours", 4), START, queues(QUEUED["ours"])),
        row("start-once", initialised("seed", 4), START, QUEUED["seed"]),
        row("cpu-of-slow-node", OURS, SetCpu(3, online=False), SetCpu(17, online=False)),
        row("cpu-of-slow-node", OURS, SetCpu(0, online=False), SetCpu(16, online=False)),
        row(
            "cpu-of-slow-node",
            replace(OURS, pinned_cpus=(0, 16)),
            SetCpu(16, online=False),
            SetCpu(17, online=False),
        ),
        row("cpu-of-slow-node", cpuless(OURS), SetCpu(3, online=True), SetCpu(16, online=True)),
        row(
            "cpu-of-slow-node",
            replace(OURS, nodes=(replace(OURS.nodes[0], cpus=()), OURS.nodes[1])),
            SetCpu(17, online=False),
            OURS,
        ),
        row(
            "tiering-on-cpuless",
            SEED,
            SetKnob("numa_balancing", 3),
            cpuless(SEED),
        ),
        row(
            "tiering-without-swap",
            replace(cpuless(SEED), swaps=(AREA,)),
            SetKnob("numa_balancing", 3),
            cpuless(SEED),
        ),
        row(
            "value-in-range",
            cpuless(OURS),
            SetKnob("numa_balancing", 4),
            SetKnob("numa_balancing", 3),
        ),
        row(
            "promotion-can-go",
            knobs(cpuless(OURS), promote_rate_limit_MBps=0),
            SetKnob("numa_balancing", 2),
            knobs(cpuless(OURS), promote_rate_limit_MBps=1),
        ),
        row(
            "promotion-can-go",
            knobs(cpuless(OURS), promote_rate_limit_MBps=1 << 24),
            SetKnob("numa_balancing", 3),
            knobs(cpuless(OURS), promote_rate_limit_MBps=(1 << 24) - 1),
        ),
        row(
            "value-in-range",
            cpuless(OURS),
            SetKnob("promote_rate_limit_MBps", 0),
            SetKnob("promote_rate_limit_MBps", 1),
        ),
        row(
            "stirred-for-a-target",
            build.aimless(SEED),
            StirCpu(15),
            build.aimless(cpuless(SEED)),
        ),
        row("stirred-for-a-target", cpuless(SEED), StirCpu(15), build.aimless(cpuless(SEED))),
        row("stirred-for-a-target", build.aimless(cpuless(SEED)), StirCpu(0), StirCpu(1)),
        row("stirred-for-a-target", build.aimless(cpuless(SEED)), StirCpu(16), StirCpu(1)),
        row(
            "stirred-for-a-target",
            replace(build.aimless(cpuless(SEED)), pinned_cpus=(0, 15)),
            StirCpu(15),
            StirCpu(14),
        ),
        row(
            "threads-whole",
            knobs(build.aimless(cpuless(SEED)), limit_mt_num=16, cpu_multi_copy_pages=1),
            StirCpu(15),
            knobs(build.aimless(cpuless(SEED)), limit_mt_num=8, cpu_multi_copy_pages=1),
        ),
        row(
            "swap-fits",
            replace(OURS, swaps=(replace(AREA, used=200 * GIB),)),
            SwapOff(AREA),
            replace(OURS, swaps=(replace(AREA, used=100 * GIB),)),
        ),
        row(
            "swap-not-into-tiering",
            knobs(cpuless(SEED), numa_balancing=2),
            SwapOn(AREA),
            TIERED,
        ),
        row(
            "swap-not-into-tiering",
            knobs(cpuless(SEED), demotion_enabled=1),
            SwapOn(AREA),
            knobs(cpuless(OURS), demotion_enabled=1),
        ),
        row(
            "tiering-without-swap",
            replace(cpuless(SEED), swaps=(AREA,)),
            SetKnob("demotion_enabled", 1),
            replace(cpuless(OURS), swaps=(AREA,)),
        ),
        row(
            "tiering-without-swap",
            replace(cpuless(SEED), swaps=(AREA,)),
            SetKnob("demotion_enabled", 1),
            SetKnob("numa_balancing", 1),
        ),
        row("cpu-not-into-tiering", TIERED, SetCpu(16, online=True), cpuless(OURS)),
        row(
            "watermark-after-tiering",
            cpuless(OURS),
            SetKnob("demote_scale_factor", 300),
            TIERED,
        ),
        row(
            "concurrency-fits",
            build.live(SEED, 4),
            SetKnob("use_concur_to_demote", 1),
            LIVE["seed"],
        ),
        row(
            "concurrency-fits",
            knobs(initialised("seed", 4), use_concur_to_compact=1),
            USE,
            knobs(initialised("seed"), use_concur_to_compact=1),
        ),
        row(
            "concurrency-fits",
            memtis(build.live(SEED, 4)),
            SetKnob("use_concur_for_htmm", 1),
            memtis(LIVE["seed"]),
        ),
        row(
            "concurrency-fits",
            knobs(memtis(initialised("seed", 4)), use_concur_for_htmm=1),
            USE,
            knobs(memtis(initialised("seed")), use_concur_for_htmm=1),
        ),
        row(
            "start-untranslated", replace(QUEUED["seed"], iommu="translated"), START, QUEUED["seed"]
        ),
        row("start-untranslated", replace(QUEUED["seed"], iommu="unknown"), START, QUEUED["seed"]),
        row(
            "start-without-foreign",
            replace(QUEUED["seed"], channels=(*QUEUED["seed"].channels, FOREIGN)),
            START,
            replace(
                QUEUED["seed"], channels=(*QUEUED["seed"].channels, replace(FOREIGN, in_use=1))
            ),
        ),
        row("start-without-foreign", beside_shared(QUEUED["seed"]), START, QUEUED["seed"]),
        row(
            "start-with-queues",
            queues(QUEUED["seed"], max_batch_size=64),
            START,
            queues(QUEUED["seed"], max_batch_size=128),
            alone=False,
        ),
        row(
            "start-with-queues",
            queues(QUEUED["seed"], max_transfer_size=1 << 20),
            START,
            queues(QUEUED["seed"], max_transfer_size=2 << 20),
            alone=False,
        ),
        row("start-with-queues", knobs(QUEUED["seed"], limit_chans=3), START, QUEUED["seed"]),
        row(
            "threads-whole",
            knobs(SEED, limit_mt_num=3),
            SetKnob("cpu_multi_copy_pages", 1),
            SEED,
        ),
        row(
            "threads-whole",
            knobs(SEED, limit_mt_num=8, cpu_multi_copy_pages=1),
            SetCpu(20, online=False),
            knobs(SEED, limit_mt_num=4, cpu_multi_copy_pages=1),
        ),
        row(
            "release-when-quiet",
            initialised("seed"),
            STOP,
            initialised("seed"),
            quiet=3.0,
            safe_quiet=10.0,
        ),
        row(
            "release-when-quiet",
            knobs(initialised("seed"), demotion_enabled=1),
            STOP,
            initialised("seed"),
        ),
        row(
            "release-when-quiet",
            knobs(initialised("seed"), numa_balancing=1),
            STOP,
            initialised("seed"),
        ),
        row(
            "release-what-is-whole",
            replace(unheld(initialised("seed")), dsa_released=True),
            STOP,
            unheld(initialised("seed")),
        ),
        row(
            "release-what-is-whole",
            replace(unheld(initialised("seed")), dsa_released=None),
            STOP,
            unheld(initialised("seed")),
        ),
        row(
            "release-what-is-whole",
            replace(initialised("seed"), channels=initialised("seed").channels[:3]),
            STOP,
            initialised("seed"),
        ),
        row(
            "release-what-is-whole",
            knobs(initialised("seed"), limit_chans=4),
            STOP,
            initialised("seed", 4),
        ),
        row(
            "device-without-event-log",
            _without_log(QUEUED["ours"]),
            StopDevice("dsa0"),
            QUEUED["ours"],
        ),
        row(
            "device-without-event-log",
            _without_log(QUEUED["ours"]),
            StopDevice("dsa0"),
            replace(
                _without_log(QUEUED["ours"]),
                devices=tuple(replace(d, event_log=True) for d in QUEUED["ours"].devices),
            ),
        ),
    ]
    found += [
        row("iommu-of-one-alone", build.grouped(OURS, "DMA", BRIDGE), IDENTITY, FREE),
        row("iommu-of-one-alone", build.grouped(OURS, "DMA", BRIDGE), IDENTITY, ALONE),
        row("iommu-of-one-alone", _kernel(ALONE, release="6.1.0-9-amd64"), IDENTITY, ALONE),
        row("iommu-of-one-alone", _kernel(FREE, release="5.10.0-9-amd64"), IDENTITY, FREE),
        row("iommu-of-one-alone", OURS, IDENTITY, FREE),
        row("iommu-when-off", build.grouped(QUEUED["ours"]), IDENTITY, FREE),
        row("iommu-of-one-alone", replace(FREE, unit_lacks=("a right",)), IDENTITY, FREE),
        row(
            "iommu-of-one-alone",
            _loose(IommuGroup("0", "identity", (BRIDGE,))),
            BindDevice(LOOSE, "0", "DMA"),
            _loose(IommuGroup("0", "identity")),
        ),
        row("bind-what-is-loose", OURS, BindDevice(LOOSE), _loose(None)),
        row("memory-of-kmem", OURS, ONLINE, BRINGS),
        row("memory-of-kmem", build.bringing(OURS, "device_dax"), ONLINE, BRINGS),
        row("memory-of-kmem", BRINGS, replace(ONLINE, node=1), ONLINE),
        row("memory-of-kmem", BRINGS, replace(ONLINE, blocks=(64, 66)), ONLINE),
    ]
    for family, plain in (("ours", OURS), ("seed", SEED)):
        ready, running, begun = QUEUED[family], LIVE[family], initialised(family)
        config = LoadDevice(captured(ready.devices[0]))
        held = replace(ready, devices=(replace(ready.devices[0], clients=1), *ready.devices[1:]))
        tiered = knobs(cpuless(plain), numa_balancing=2)
        found += [
            row("engine-needs-init", ready, USE, begun),
            row("engine-needs-channels", unheld(begun), USE, begun),
            row("engine-needs-health", replace(begun, boot_taint=128), USE, begun),
            row("engine-needs-health", replace(ready, boot_taint=128), START, ready),
            row("engine-needs-health", halted(begun), USE, replace(begun, boot_taint=512)),
            row("engine-needs-health", knobs(begun, dsa_async_mode=1), USE, begun),
            row("release-after-engine", running, STOP, begun, alone=family == "ours"),
            row("start-before-engine", knobs(ready, use_dsa_copy_pages=1), START, ready),
            row("start-with-queues", build.queued(plain, 4), START, ready),
            # a seed would take such channels, which another guard sees as well
            row(
                "start-with-queues",
                queues(ready, mode="shared"),
                START,
                ready,
                alone=family == "ours",
            ),
            row(
                "start-with-queues",
                queues(ready, type="user"),
                START,
                ready,
                alone=family == "ours",
            ),
            row("channels-while-held", running, SetKnob("limit_chans", 4), ready),
            row("channels-while-held", begun, SetKnob("limit_chans", 8), ready),
            row("tiering-on-cpuless", plain, SetKnob("numa_balancing", 2), cpuless(plain)),
            row("tiering-on-cpuless", plain, SetKnob("demotion_enabled", 1), cpuless(plain)),
            row(
                "tiering-on-cpuless",
                replace(plain, nodes=plain.nodes[:1]),
                SetKnob("demotion_enabled", 1),
                cpuless(plain),
            ),
            row("cpu-not-into-tiering", tiered, SetCpu(16, online=True), cpuless(plain)),
            row("device-unheld", begun, StopDevice("dsa0"), ready),
            row(
                "device-unheld",
                knobs(build.grouped(plain), dsa_state=1),
                IDENTITY,
                build.grouped(plain),
            ),
            row("device-unheld", held, StopDevice("dsa0"), ready),
            row("device-unheld", queues(ready, clients=1), StopDevice("dsa0"), ready),
            row("device-unheld", halted(plain), config, plain),
            row("device-unheld", stranded(knobs(LIVE[family], dsa_state=0)), config, plain),
            row("device-unheld", plain, StopDevice("dsa9"), StopDevice("dsa1")),
            row("device-off-before-load", ready, config, plain),
        ]
    return tuple(found)


SCENARIOS = _scenarios()


def mistakes(guards: tuple[Guard, ...] = GUARDS) -> list[str]:
    """Return where ``guards`` judge otherwise than the table says."""
    wrong = []
    for one in SCENARIOS:
        found = refusals(one.request, Circumstances(one.facts, one.quiet, USUAL), guards)
        names = {refusal.guard for refusal in found}
        if one.guard not in names:
            wrong.append(f"{one}: not refused by {one.guard}, but by {sorted(names) or 'none'}")
        if one.alone and names - {one.guard}:
            wrong.append(f"{one}: refused also by {sorted(names - {one.guard})}")
        safe = refusals(
            one.safe_request, Circumstances(one.safe_facts, one.safe_quiet, USUAL), guards
        )
        if safe:
            wrong.append(f"{one}: its neighbour is refused: {safe[0]}")
    return wrong


def let_through(guards: tuple[Guard, ...] = GUARDS) -> list[str]:
    """Return the unsafe requests that no guard refuses."""
    return [
        f"{one} is let through"
        for one in SCENARIOS
        if not refusals(one.request, Circumstances(one.facts, one.quiet, USUAL), guards)
    ]
