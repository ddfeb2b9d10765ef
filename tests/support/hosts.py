# SPDX-License-Identifier: Apache-2.0
"""Small simulated hosts, and the states from which the proof starts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dsatier.sim import spec
from dsatier.sim.faults import FailedInit
from dsatier.sim.host import SimHost

RELEASES = {"ours": "6.12.63-dsatier", "tpp": "5.13.0-rc6-tpp", "memtis": "5.15.19-memtis"}
KINDS = tuple(RELEASES)
DEVICES, QUEUES = 2, 4
"""Two devices of four queues give the eight channels that shipped profiles ask for."""
VM = "/proc/sys/vm/"
BALANCING = "/proc/sys/kernel/numa_balancing"
DEMOTION = "/sys/kernel/mm/numa/demotion_enabled"
SWAP = "/dev/sda3"

Change = Callable[[SimHost], None]


@dataclass(frozen=True)
class Start:
    """A state that a host may be found in, and what an administrator did to get it there."""

    name: str
    host: SimHost
    clean: bool = False
    """Freshly booted, nothing done to it."""
    harmed: bool = False
    """Others have done it harm: not everything there can be brought back."""


def small(kind: str, **fields: Any) -> SimHost:
    """Return a two-tier host with four and two CPUs, and two DSA devices."""
    description = {
        "version": 1,
        "kernel": {"release": RELEASES[kind], "kind": kind},
        "nodes": [
            {"cpus": "0-3", "memory": 16, "used": 2},
            {"cpus": "4-5", "memory": 16, "used": 1},
        ],
        "devices": [{"queues": QUEUES, "engines": 1, "groups": 1} for _ in range(DEVICES)],
        "swap": [{"path": SWAP, "size": 2, "used": 1}],
        "settle": 5.0,
        **fields,
    }
    return SimHost.of(spec.parse(json.dumps(description)))


def balances(kind: str) -> dict[str, Any]:
    """Return a kernel that balances from boot on, and does not tell where it is TPP."""
    options = {
        "CONFIG_INTEL_IDXD": "m",
        "CONFIG_MEMORY_HOTPLUG": "y",
        "CONFIG_NUMA_BALANCING": "y",
        "CONFIG_NUMA_BALANCING_DEFAULT_ENABLED": "y",
    }
    return {"release": RELEASES[kind], "kind": kind, "config": options}


def eight(kind: str) -> Start:
    """Return a host that shipped profiles are for, freshly booted."""
    host = small(
        kind,
        nodes=[
            {"cpus": "0-15", "memory": 64, "used": 2},
            {"cpus": "16-23", "memory": 64, "used": 1},
        ],
        devices=8,
    )
    return Start("booted, eight devices", host, clean=True)


def put(host: SimHost, name: str, value: int) -> None:
    """Write a knob as an administrator does."""
    host.poke(name if name.startswith("/") else VM + name, f"{value}\n")


def _puts(*values: tuple[str, int]) -> Change:
    def act(host: SimHost) -> None:
        for name, value in values:
            put(host, name, value)

    return act


def _cpus(*cpus: int) -> Change:
    return _puts(*((f"/sys/devices/system/cpu/cpu{cpu}/online", 0) for cpu in cpus))


def queues(
    *devices: int,
    count: int = QUEUES,
    mode: str = "dedicated",
    kind: str = "kernel",
    batch: int = 128,
) -> Change:
    """Return the change that enables queues on devices, as other tools configure them."""

    def act(host: SimHost) -> None:
        for device in devices:
            at = f"/sys/bus/dsa/devices/dsa{device}"
            host.poke(f"{at}/engine{device}.0/group_id", "0\n")
            for number in range(count):
                queue = f"{at}/wq{device}.{number}"
                host.poke(f"{queue}/group_id", "0\n")
                host.poke(f"{queue}/size", "16\n")
                host.poke(f"{queue}/mode", f"{mode}\n")
                if mode == "shared":
                    host.poke(f"{queue}/threshold", "8\n")
                host.poke(f"{queue}/type", f"{kind}\n")
                host.poke(f"{queue}/name", "admin\n")
                host.poke(f"{queue}/max_batch_size", f"{batch}\n")
                if not host.kernel.seed:
                    driver = "dmaengine" if kind == "kernel" else "user"
                    host.poke(f"{queue}/driver_name", f"{driver}\n")
            host.poke("/sys/bus/dsa/drivers/idxd/bind", f"dsa{device}\n")
            for number in range(count):
                driver = "dmaengine" if kind == "kernel" else "user"
                host.poke(f"/sys/bus/dsa/drivers/{driver}/bind", f"wq{device}.{number}\n")

    return act


def _failed_start(channels: int) -> Change:
    """Return a start of the DSA that fails with so many channels taken."""

    def act(host: SimHost) -> None:
        queues(0, 1)(host)
        host.inject(FailedInit("failed-init", channels=channels))
        put(host, "dsa_state", 1)

    return act


def _failed_again(host: SimHost) -> None:
    """Start, release, and start again without queues: the seed's pointers are stale then."""
    queues(0, 1)(host)
    put(host, "dsa_state", 1)
    put(host, "dsa_state", 0)
    host.inject(FailedInit("failed-init"))
    put(host, "dsa_state", 1)


def _swap_off(host: SimHost) -> None:
    host.run(("swapoff", SWAP), 1.0)


def _all(*changes: Change) -> Change:
    def act(host: SimHost) -> None:
        for change in changes:
            change(host)

    return act


def _stir(host: SimHost) -> None:
    """Let a CPU of the fast node go and come back: TPP works out its demotion targets then."""
    for online in (0, 1):
        put(host, "/sys/devices/system/cpu/cpu3/online", online)


_TIERED = _all(
    _cpus(4, 5),
    _stir,
    _swap_off,
    _puts((BALANCING, 2), ("demote_scale_factor", 300), (DEMOTION, 1)),
)
_COPYING = _all(queues(0, 1), _puts(("dsa_state", 1), ("use_dsa_copy_pages", 1)))
_FOUR = _all(
    _puts(("limit_chans", 4)), queues(0), _puts(("dsa_state", 1), ("use_dsa_copy_pages", 1))
)

_start = _puts(("dsa_state", 1))


def _cpu_back(host: SimHost) -> None:
    put(host, "/sys/devices/system/cpu/cpu4/online", 1)


def _swap_back(host: SimHost) -> None:
    host.run(("swapon", SWAP), 1.0)


def _unbind(host: SimHost) -> None:
    host.poke("/sys/bus/dsa/drivers/dmaengine/unbind", "wq1.3\n")


def _no_queue(host: SimHost) -> None:
    """Leave a device on without queues, as an accel-config that was killed does."""
    for number in range(QUEUES):
        host.poke("/sys/bus/dsa/drivers/dmaengine/unbind", f"wq0.{number}\n")


def _half_written(host: SimHost) -> None:
    """Leave a device with some of its attributes written, and off."""
    at = "/sys/bus/dsa/devices/dsa0"
    host.poke(f"{at}/engine0.0/group_id", "0\n")
    host.poke(f"{at}/wq0.0/group_id", "0\n")
    host.poke(f"{at}/wq0.0/size", "100\n")
    host.poke(f"{at}/wq0.0/mode", "dedicated\n")
    host.poke(f"{at}/wq0.3/size", "28\n")


def _disable(host: SimHost) -> None:
    host.poke("/sys/bus/dsa/drivers/idxd/unbind", "dsa1\n")


CHANGES: tuple[tuple[str, str, Change], ...] = (
    # name              kernels              what was done
    ("booted", "ours tpp memtis", lambda host: None),
    ("no swap", "ours tpp memtis", _swap_off),
    ("parameters", "ours tpp memtis", _puts(("limit_mt_num", 2), ("limit_chans", 4))),
    ("threshold", "ours tpp memtis", _puts(("dsa_copy_threshold", 100))),
    ("odd values", "ours", _puts(("limit_mt_num", 3), ("limit_chans", 3))),
    ("unsafe values", "tpp memtis", _puts(("limit_mt_num", 3), ("limit_chans", 3))),
    ("concurrent", "ours tpp memtis", _puts(("use_concur_to_compact", 1))),
    ("one CPU offline", "ours tpp memtis", _cpus(5)),
    ("balancing", "ours tpp memtis", _puts((BALANCING, 1))),
    ("threads", "ours tpp memtis", _puts(("limit_mt_num", 2), ("cpu_multi_copy_pages", 1))),
    ("queues on one device", "ours tpp memtis", queues(0)),
    ("shared queues", "ours tpp memtis", queues(0, mode="shared")),
    ("user queues", "ours tpp memtis", queues(1, count=2, kind="user")),
    ("one queue off", "ours tpp memtis", _all(queues(0, 1), _unbind)),
    ("device without queues", "ours tpp memtis", _all(queues(0), _no_queue)),
    ("device half written", "ours tpp memtis", _half_written),
    ("initialised", "ours tpp memtis", _all(queues(0, 1), _puts(("dsa_state", 1)))),
    ("copying", "ours tpp memtis", _COPYING),
    ("copying with 4", "ours tpp memtis", _FOUR),
    ("tiered", "ours tpp", _TIERED),
    ("tiered, copying", "ours tpp", _all(_COPYING, _TIERED)),
    ("both modes, copying", "tpp", _all(_COPYING, _cpus(4, 5), _swap_off, _puts((BALANCING, 3)))),
    ("concurrent in its own way", "memtis", _puts(("use_concur_for_htmm", 1))),
    ("cpuless, no target", "tpp", _all(_cpus(4, 5), _swap_off)),
    ("balancing at boot", "tpp", _COPYING),
    ("demoting", "memtis", _all(_cpus(4, 5), _swap_off, _puts((DEMOTION, 1)))),
    ("start failed, 0", "tpp memtis", _failed_start(0)),
    ("start failed, 3", "tpp memtis", _failed_start(3)),
    ("start failed later", "tpp memtis", _failed_again),
)


_BOTH_MODES = _puts((BALANCING, 3), (DEMOTION, 1))

UNFIT: tuple[tuple[str, str, Change], ...] = (
    # tiering that others have turned on where it must not be: all but it can be brought back
    ("tiering on", "ours tpp", _puts((BALANCING, 2), (DEMOTION, 1))),
    ("demotion on", "ours tpp memtis", _puts((DEMOTION, 1))),
    ("demotion and balancing on", "ours tpp memtis", _puts((BALANCING, 1), (DEMOTION, 1))),
    ("both modes on", "tpp", _BOTH_MODES),
    ("both modes on, copying", "tpp", _all(_COPYING, _BOTH_MODES)),
    ("tiering on beside CPUs", "ours tpp", _all(_swap_off, _puts((BALANCING, 2)))),
    ("tiering on beside swap", "ours tpp", _all(_cpus(4, 5), _puts((BALANCING, 2)))),
    ("CPU back under tiering", "ours tpp", _all(_TIERED, _cpu_back)),
    ("swap back under tiering", "ours tpp", _all(_TIERED, _swap_back)),
    ("swap back, copying", "ours tpp", _all(_COPYING, _TIERED, _swap_back)),
    ("CPU back, copying with 4", "ours tpp", _all(_FOUR, _TIERED, _cpu_back)),
    (
        "tiering on, threads",
        "ours tpp",
        _puts((BALANCING, 2), ("limit_mt_num", 2), ("cpu_multi_copy_pages", 1)),
    ),
    ("tiering on, unsafe values", "tpp", _puts((BALANCING, 2), ("limit_chans", 3))),
)

HARMED: tuple[tuple[str, str, Change], ...] = (
    # what others have done to the host is their harm; the agent must add none
    ("demoting nowhere", "tpp", _all(_cpus(4, 5), _swap_off, _puts((DEMOTION, 1)))),
    ("factor too early", "ours tpp", _puts(("demote_scale_factor", 300), (BALANCING, 2))),
    ("fewer channels, live", "tpp memtis", _all(_COPYING, _puts(("limit_chans", 4)))),
    ("queue gone, quiet", "tpp memtis", _all(queues(0, 1), _start, _unbind)),
    ("device gone, live", "ours", _all(_COPYING, _disable)),
    ("threads that lose bytes", "tpp", _puts(("limit_mt_num", 3), ("cpu_multi_copy_pages", 1))),
)


def starts(kind: str) -> Iterator[Start]:
    """Yield the starts of a kind of kernel. None of them was harmed on the way."""
    for name, kinds, change in CHANGES:
        if kind not in kinds.split():
            continue
        host = small(kind, kernel=balances(kind)) if name == "balancing at boot" else small(kind)
        change(host)
        if host.harm:
            raise AssertionError(f"{kind}: {name}: harm on the way to a start: {host.harm}")
        yield Start(name, host, clean=name == "booted")


def behind(kind: str) -> Iterator[Start]:
    """Yield starts whose devices are translated by the IOMMU."""
    for name, change in (("booted", lambda host: None), ("queues on one device", queues(0))):
        host = small(kind, iommu="translated")
        change(host)
        yield Start(f"behind an IOMMU, {name}", host, clean=name == "booted")


def offline(kind: str) -> Iterator[Start]:
    """Yield starts with a device whose memory has two blocks that are offline, or one of them."""
    nodes = [
        {"cpus": "0-3", "memory": 16, "used": 2},
        {"cpus": "4-5", "memory": 16, "used": 1},
        {"memory": 4, "used": 0, "device": "cxl", "blocks": "offline"},
    ]
    for name in ("booted", "a block online"):
        host = small(kind, nodes=nodes)
        if name != "booted":
            host.poke("/sys/devices/system/memory/memory24/state", "online_movable\n")
        yield Start(f"memory offline, {name}", host, clean=name == "booted")


def unfit_starts(kind: str) -> Iterator[Start]:
    """Yield starts that tier beside swap or beside CPUs. What that has harmed is forgotten."""
    for name, kinds, change in UNFIT:
        if kind in kinds.split():
            host = small(kind)
            change(host)
            host.harm.clear()
            yield Start(name, host)


def harmed_starts(kind: str) -> Iterator[Start]:
    """Yield starts that others have harmed. That harm is forgotten: what is added counts."""
    for name, kinds, change in HARMED:
        if kind in kinds.split():
            host = small(kind)
            change(host)
            host.harm.clear()
            yield Start(name, host, harmed=True)
