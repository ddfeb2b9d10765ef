# SPDX-License-Identifier: Apache-2.0
"""Hosts and targets for what goes wrong, and the questions that are asked afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from dsatier.apply import lifecycle
from dsatier.apply.driver import Driver
from dsatier.apply.journal import Journal
from dsatier.apply.outcome import Outcome
from dsatier.apply.records import Record
from dsatier.apply.target import Target, target
from dsatier.base.paths import MOTION, RECORD
from dsatier.facts.model import Facts
from dsatier.facts.observe.observer import Observer
from dsatier.facts.readings import on
from dsatier.profile.load import from_texts
from dsatier.profile.model import DriftPolicy, DsaEngine, Profile, QueueShape
from dsatier.sim import spec
from dsatier.sim.faults import Crash, SimCrash
from dsatier.sim.host import SimHost
from dsatier.sim.state import Harm

FOLDER = Path(__file__).resolve().parents[2] / "profiles"
VM = "/proc/sys/vm/"
BALANCING = "/proc/sys/kernel/numa_balancing"
DEMOTION = "/sys/kernel/mm/numa/demotion_enabled"
RELEASES = {"ours": "6.12.63-dsatier", "tpp": "5.13.0-rc6-tpp", "memtis": "5.15.19-memtis"}
DEVICES, QUEUES = 2, 4
"""Two devices of four queues give the eight channels that shipped profiles ask for."""

T = TypeVar("T")


def small(kind: str = "ours", **fields: Any) -> SimHost:
    """Return a two-tier host with four and two CPUs, and two DSA devices."""
    description = {
        "version": 1,
        "kernel": {"release": RELEASES[kind], "kind": kind},
        "nodes": [
            {"cpus": "0-3", "memory": 16, "used": 2},
            {"cpus": "4-5", "memory": 16, "used": 1},
        ],
        "devices": [{"queues": QUEUES, "engines": 1, "groups": 1} for _ in range(DEVICES)],
        "settle": 5.0,
        **fields,
    }
    return SimHost.of(spec.parse(json.dumps(description)))


def named(name: str) -> SimHost:
    """Return a shipped host by its name, or a small one by its kernel's kind."""
    return small(name) if name in RELEASES else SimHost.host_for(name)


def shipped(name: str) -> Profile:
    """Return a shipped profile."""
    path = FOLDER / f"{name}.yaml"
    profile = from_texts([(path.name, path.read_text(encoding="utf-8"))]).profile
    assert profile is not None
    return profile


def fit(profile: Profile, host: SimHost) -> Profile:
    """Return a profile with its queues spread over the devices of a small host."""
    engine = profile.engine
    if len(host.kernel.spec.each_device()) > DEVICES or not isinstance(engine, DsaEngine):
        return profile
    shape = QueueShape(devices=DEVICES, engines=1, queues=QUEUES, size=32)
    return replace(profile, engine=replace(engine, work_queues=shape))


def wanted(host: SimHost, profile: Profile | str, drift: DriftPolicy | None = None) -> Target:
    """Return what a profile wants of a host, fitted to it."""
    if isinstance(profile, str):
        profile = shipped(profile)
    profile = replace(fit(profile, host), drift=drift or profile.drift)
    loaded = replace(from_texts([]), profile=profile, digest=repr(profile))
    return target(host.read, loaded, Observer(host).look(), Journal(host).originals())


def channels(profile: Profile, count: int) -> Profile:
    """Return a profile of the DSA with another ``limit_chans``, and lists that it can take."""
    assert isinstance(profile.engine, DsaEngine)
    return replace(profile, concurrency=None, engine=replace(profile.engine, limit_chans=count))


def apply(host: SimHost, profile: Profile | str) -> Outcome:
    """Apply a profile with a fresh driver, as a run of the command does."""
    return Driver(host).apply(wanted(host, profile))


def reconcile(host: SimHost, profile: Profile | str, drift: DriftPolicy | None = None) -> Outcome:
    """Reconcile with a fresh driver."""
    return Driver(host).reconcile(wanted(host, profile, drift))


def look(host: SimHost) -> Facts:
    """Return the host's facts."""
    return Observer(host).look()


def record(host: SimHost) -> Record:
    """Return the record on the host's disk."""
    return Journal(host).record()


def seen(host: SimHost) -> tuple[object, ...]:
    """What a change touches. A disabled queue keeps its type, which means nothing."""
    facts = look(host)
    devices = tuple((device.id, device.state) for device in facts.devices)
    return facts.knobs, facts.nodes, facts.offline_cpus, facts.swaps, devices, facts.channels


def engine_on(host: SimHost) -> bool:
    """Tell whether the DSA copies pages."""
    return on(look(host), "use_dsa_copy_pages")


def unsafe(host: SimHost) -> list[Harm]:
    """Return the harm that is not an injected fault's own."""
    return [harm for harm in host.harm if harm.by != "fault"]


def at_rest(host: SimHost) -> None:
    """Assert what holds between two runs."""
    kept = record(host)
    assert MOTION not in host.files
    assert kept.state in lifecycle.STATES
    assert kept.state not in lifecycle.IN_MOTION
    if kept.latch != "none":
        assert not engine_on(host)
    assert [] == unsafe(host)


class Filmed(SimHost):
    """A host that keeps what it was before each operation: what a death before it leaves."""

    def __init__(self, host: SimHost) -> None:
        super().__init__(host.kernel.copy())
        self.frames: list[SimHost] = []

    def _mutate(self, act: Callable[[], T]) -> T:
        self.frames.append(SimHost(self.kernel.copy()))
        return super()._mutate(act)


def operations(host: SimHost, act: Callable[[SimHost], object]) -> int:
    """Return how many mutating operations an act on a host takes."""
    trial = host.copy()
    before = trial.kernel.state.operations
    act(trial)
    return trial.kernel.state.operations - before


def crashed(
    host: SimHost, act: Callable[[SimHost], object], after: int, performed: bool
) -> SimHost:
    """Return the host after the agent died at one operation of an act."""
    other = host.copy()
    other.inject(Crash("crash", after=after, performed=performed))
    try:
        act(other)
    except SimCrash:
        other.heal("crash")
        return other
    raise AssertionError(f"operation {after} was never reached")


def in_motion(host: SimHost) -> bool:
    """Tell whether the journal says that the host was being changed when the agent died."""
    return (
        MOTION in host.files and RECORD in host.files and record(host).state in lifecycle.IN_MOTION
    )
