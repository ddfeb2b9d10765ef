# SPDX-License-Identifier: Apache-2.0
"""A naive requester: asks the gate for what is unsafe, with and without the guard against it.

With all guards the gate must refuse. Without the guard the simulated kernel is harmed, or the
write is useless: refused by the kernel, or nothing comes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dsatier.apply.gate import Gate, Refused
from dsatier.facts.knobs import KNOBS, SEED_SETTLE, KnobName
from dsatier.facts.model import Swap
from dsatier.facts.observe.observer import Observer
from dsatier.host.port import HostDown, HostError
from dsatier.plan.interlock import GUARDS, Guard
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
from dsatier.sim.faults import FailedInit
from dsatier.sim.host import SimHost
from tests.support.hosts import BALANCING, DEMOTION, SWAP, put, queues, small

Act = Callable[[SimHost], None]


@dataclass(frozen=True)
class Try:
    """A host, what others did to it, the unsafe request, and what they do then."""

    guard: str
    kind: str
    before: tuple[Act, ...]
    request: Callable[[SimHost], Request]
    after: tuple[Act, ...] = ()
    wait: float = 0.0
    """Seconds of quiet that the requester keeps first."""
    also: tuple[str, ...] = ()
    """Other guards against the same, which go with it."""
    spec: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.guard} on {self.kind}"


def puts(*values: tuple[str, int]) -> Act:
    """Return the writes of an administrator."""

    def act(host: SimHost) -> None:
        for name, value in values:
            put(host, name, value)

    return act


def knob(name: KnobName, value: int) -> Callable[[SimHost], Request]:
    """Return the request for a knob."""
    return lambda host: SetKnob(name, value)


def _fail(host: SimHost, channels: int = 0) -> None:
    host.inject(FailedInit("failed-init", channels=channels))


def _fail_with_three(host: SimHost) -> None:
    _fail(host, 3)


def _cpuless(host: SimHost) -> None:
    for cpu in (4, 5):
        put(host, f"/sys/devices/system/cpu/cpu{cpu}/online", 0)


def _no_swap(host: SimHost) -> None:
    host.run(("swapoff", SWAP), 1.0)


def _load(host: SimHost) -> Request:
    return LoadDevice(captured(Observer(host).look().devices[0]))


def _area(used: int = 0) -> Swap:
    return Swap(SWAP, 2 << 30, used, -2)


def _identity(host: SimHost) -> Request:
    device = Observer(host).look().devices[0]
    group = "" if device.group is None else device.group.id
    return SetIommu(device.id, device.pci, group, "identity")


READY = queues(0, 1)
START, USE, STOP = knob("dsa_state", 1), knob("use_dsa_copy_pages", 1), knob("dsa_state", 0)
STARTED, USED = puts(("dsa_state", 1)), puts(("use_dsa_copy_pages", 1))
LISTS = puts(("use_concur_to_compact", 1))
TIERED = (_cpuless, _no_swap, puts((BALANCING, 2), ("demote_scale_factor", 300)))
LIMIT = KNOBS["promote_rate_limit_MBps"].path
STOCK: dict[str, Any] = {"kernel": {"release": "6.12.117+deb13-amd64", "kind": "stock"}}
BEHIND: dict[str, Any] = {"iommu": "translated"}
MAPPED: dict[str, Any] = {
    "nodes": [
        {"cpus": "0-3", "memory": 16},
        {"cpus": "4-5", "memory": 16},
        {"memory": 16, "device": "cxl", "driver": "device_dax"},
    ]
}
"""The memory of node 2 is a program's."""
FULL = {
    "nodes": [
        {"cpus": "0-3", "memory": 4, "used": 4},
        {"cpus": "4-5", "memory": 4, "used": 4},
    ],
    "swap": [{"path": SWAP, "size": 2, "used": 1024}],
}

TRIES: tuple[Try, ...] = (
    Try(
        "knob-present",
        "memtis",
        (),
        knob("demote_scale_factor", 300),
        also=("watermark-after-tiering",),
    ),
    Try("value-in-range", "ours", (), knob("limit_chans", 9)),
    Try(
        "value-in-range",
        "tpp",
        (LISTS, puts(("limit_mt_num", 2), ("cpu_multi_copy_pages", 1))),
        knob("limit_mt_num", 3),
    ),
    Try(
        "value-in-range",
        "tpp",
        (READY,),
        knob("limit_chans", 3),
        (STARTED, USED),
    ),
    Try("engine-needs-init", "tpp", (READY,), USE),
    Try("engine-needs-init", "ours", (READY,), USE),
    Try("engine-needs-channels", "tpp", (READY, _fail, STARTED), USE),
    Try(
        "engine-needs-health",
        "tpp",
        (READY, STARTED, puts(("dsa_async_mode", 1))),
        USE,
    ),
    Try("release-after-engine", "ours", (READY, STARTED, USED), STOP),
    Try(
        "release-after-engine",
        "tpp",
        (READY, STARTED, USED),
        STOP,
        also=("release-when-quiet",),
    ),
    Try("release-when-quiet", "tpp", (READY, STARTED, USED, puts(("use_dsa_copy_pages", 0))), STOP),
    Try(
        "release-when-quiet",
        "tpp",
        (READY, STARTED, USED, puts(("use_dsa_copy_pages", 0))),
        STOP,
        wait=2.0,
    ),
    Try(
        "release-what-is-whole",
        "tpp",
        (READY, _fail_with_three, STARTED),
        STOP,
        wait=SEED_SETTLE,
    ),
    Try(
        "release-what-is-whole",
        "memtis",
        (READY, STARTED, puts(("dsa_state", 0)), _fail, STARTED),
        STOP,
        wait=SEED_SETTLE,
    ),
    Try("start-once", "tpp", (puts(("limit_chans", 4)), READY, STARTED), START),
    Try("start-with-queues", "tpp", (queues(0),), START),
    Try("start-with-queues", "ours", (queues(0),), START),
    Try(
        "start-without-foreign",
        "tpp",
        (READY,),
        START,
        spec={"other_dma": [{"channels": 2}]},
    ),
    Try(
        "start-without-foreign",
        "tpp",
        (puts(("limit_chans", 4)), queues(0, mode="shared"), queues(1)),
        START,
        (USED,),
    ),
    Try("start-untranslated", "tpp", (READY,), START, (USED,), spec={"iommu": "translated"}),
    Try("channels-while-held", "tpp", (READY, STARTED), knob("limit_chans", 4)),
    Try("channels-while-held", "ours", (READY, STARTED), knob("limit_chans", 4)),
    Try(
        "concurrency-fits",
        "tpp",
        (puts(("limit_chans", 2)), READY, STARTED, USED),
        knob("use_concur_to_demote", 1),
    ),
    Try(
        "concurrency-fits",
        "memtis",
        (puts(("limit_chans", 4)), READY, STARTED, USED),
        knob("use_concur_for_htmm", 1),
    ),
    Try(
        "threads-whole",
        "tpp",
        (LISTS, puts(("limit_mt_num", 3))),
        knob("cpu_multi_copy_pages", 1),
    ),
    Try("tiering-on-cpuless", "ours", (_no_swap,), knob("demotion_enabled", 1)),
    Try("tiering-on-cpuless", "tpp", (_no_swap,), knob("numa_balancing", 2)),
    Try("tiering-without-swap", "tpp", (_cpuless,), knob("demotion_enabled", 1)),
    Try("promotion-can-go", "ours", (_cpuless, puts((LIMIT, 0))), knob("numa_balancing", 2)),
    Try("promotion-can-go", "ours", (_cpuless, puts((LIMIT, 1 << 24))), knob("numa_balancing", 3)),
    Try(
        "watermark-after-tiering",
        "tpp",
        (_cpuless, _no_swap),
        knob("demote_scale_factor", 300),
        (puts((BALANCING, 2), (DEMOTION, 1)),),
    ),
    Try("cpu-of-slow-node", "ours", (), lambda host: SetCpu(0, online=False)),
    Try("cpu-not-into-tiering", "tpp", TIERED, lambda host: SetCpu(4, online=True)),
    Try("stirred-for-a-target", "tpp", (), lambda host: StirCpu(3)),
    Try("swap-fits", "ours", (), lambda host: SwapOff(_area()), spec=FULL),
    Try("swap-not-into-tiering", "tpp", TIERED, lambda host: SwapOn(_area())),
    Try("device-unheld", "tpp", (READY, STARTED), lambda host: StopDevice("dsa0")),
    Try("device-off-before-load", "ours", (READY,), _load),
    Try("device-unheld", "tpp", (READY, STARTED), _identity, also=("iommu-when-off",), spec=BEHIND),
    Try("iommu-of-one-alone", "ours", (), _identity, spec=BEHIND | {"iommu_group_of_all": True}),
    Try("iommu-when-off", "ours", (READY,), _identity, spec=STOCK | BEHIND),
    Try("bind-what-is-loose", "ours", (), lambda host: BindDevice(host.kernel.layout.pci[0])),
    Try(
        "memory-of-kmem",
        "ours",
        (),
        lambda host: OnlineMemory("dax2.0", 2, (24,), "movable"),
        spec=MAPPED,
    ),
    Try(
        "device-without-event-log",
        "ours",
        (READY,),
        lambda host: StopDevice("dsa0"),
        spec=STOCK,
    ),
)

NOT_SHOWN = {
    "known-kernel": "no simulated kernel has an ABI that this agent does not know",
    "start-before-engine": "a load that meets a start that failed met none just the same",
}
"""Guards whose harm the simulation cannot show; the table of scenarios holds them."""


def outcome(one: Try, guards: tuple[Guard, ...] = GUARDS) -> str:
    """Return refused, harmed, useless or let through: what came of a try."""
    host = small(one.kind, **one.spec)
    for act in one.before:
        act(host)
    host.harm.clear()
    gate = Gate(host, Observer(host), guards=guards)
    gate.look()
    if one.wait:
        host.sleep(one.wait)
    request = one.request(host)
    before = host.key()
    try:
        gate.submit(request, 10.0)
    except Refused as refused:
        names = {refusal.guard for refusal in refused.reasons}
        return "refused" if one.guard in names else f"refused by {sorted(names)}"
    except HostDown:
        return "harmed"
    except HostError:
        return "useless"
    if not host.harm and host.key() == before:
        return "useless"
    try:
        for act in one.after:
            act(host)
        host.advance(5.0)
    except HostDown:
        return "harmed"
    return "harmed" if host.harm else "let through"


def without(one: Try) -> tuple[Guard, ...]:
    """Return the guards without the one that is tried."""
    return tuple(guard for guard in GUARDS if guard.name not in (one.guard, *one.also))


def mistakes() -> list[str]:
    """Return which tries end otherwise than they must."""
    wrong = []
    for one in TRIES:
        if (found := outcome(one)) != "refused":
            wrong.append(f"{one}: with all guards: {found}")
        if (found := outcome(one, without(one))) not in ("harmed", "useless"):
            wrong.append(f"{one}: without the guard: {found}")
    shown = {one.guard for one in TRIES} | set(NOT_SHOWN)
    wrong += [f"{guard.name}: no try" for guard in GUARDS if guard.name not in shown]
    return wrong
