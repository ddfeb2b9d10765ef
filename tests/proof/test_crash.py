# SPDX-License-Identifier: Apache-2.0
"""Crashes at every instant, and everything else that can go wrong while a plan is carried out."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from dsatier.apply.driver import Driver
from dsatier.facts.knobs import KNOBS
from dsatier.facts.observe.observer import Observer
from dsatier.facts.readings import live
from dsatier.sim.faults import (
    Crash,
    RejectedWrite,
    SelfClear,
    SimCrash,
)
from dsatier.sim.host import SimHost
from tests.proof.drives import Recorder, apply, disagreements, reconcile, record
from tests.support import profiles
from tests.support.hosts import put, small

SHIPPED = profiles.fitted()
PAIRS = [
    (kind, name)
    for kind in ("ours", "tpp", "memtis")
    for name in SHIPPED
    if name in {"memtis": {"dsa"}, "tpp": SHIPPED.keys() - {"tiering"}}.get(kind, SHIPPED)
]
"""What each kernel can do: a research kernel has no limit of promotion."""
AT_REST = ("cpu", "detach")
"""Profiles that a clean host is at already."""


def facts_of(host: SimHost) -> dict[str, int | None]:
    """Return the host's knobs."""
    facts = Observer(host).look()
    return {name: live(facts, name) for name in KNOBS if name in facts.knobs}


# -- a crash before and after every operation --------------------------------


def sweep(pair: tuple[str, str]) -> tuple[str, str, int, list[str]]:
    """Crash an apply at every instant, come up again, and apply once more."""
    kind, name = pair
    profile = SHIPPED[name]
    host = Recorder.of_host(small(kind))
    outcome = apply(host, profile)
    expected = "unchanged" if name in AT_REST else "changed"
    wrong = [] if outcome.result == expected else [f"apply alone: {outcome.message}"]
    seen: set[tuple[object, ...]] = set()
    instants = [*host.snapshots, host.copy()]
    for number, snapshot in enumerate(instants):
        for boot in (False, True):
            where = f"{kind} {name}, crash before operation {number + 1}, boot {boot}"
            left = snapshot.copy()
            if boot:
                left.reboot()
            for words in come_up(left, name, seen):
                wrong.append(f"{where}: {words}")
    return kind, name, 2 * len(instants), wrong


def come_up(host: SimHost, name: str, seen: set[tuple[object, ...]]) -> Iterator[str]:
    """Come up after a crash; yield what is wrong."""
    motion = Driver(host).journal.motion()
    before = record(host)
    woken = Driver(host).recover()
    yield from disagreements(host)
    moving = motion is not None and before.state == "converging"
    rests = ("quarantined",) if moving else ("unmanaged", "converged")
    if woken.state not in rests:
        yield f"woke {woken.state}: {woken.message}"
    if woken != record(host):
        yield "the record that is kept is another one"
    key = (host.key(), woken.state, host.files.keys() >= {"/var/lib/dsatier/originals.json"})
    if key in seen:
        return
    seen.add(key)
    if woken.state == "quarantined":
        latched = apply(host, SHIPPED[name])
        if latched.result not in ("quarantined", "unchanged") or record(host).latch != "crash":
            yield f"applied while quarantined: {latched.result}: {latched.message}"
        Driver(host).clear()
    again = apply(host, SHIPPED[name])
    if again.result not in ("changed", "unchanged") or record(host).state != "converged":
        yield f"does not converge afterwards: {again.result}: {again.message}"
    yield from disagreements(host, SHIPPED[name])
    back = Driver(host).rollback()
    if back.result not in ("changed", "unchanged"):
        yield f"does not roll back afterwards: {back.result}: {back.message}"
    yield from disagreements(host)


def test_a_crash_at_every_instant_of_every_shipped_profile(tell: list[str]) -> None:
    with ProcessPoolExecutor() as pool:
        results = list(pool.map(sweep, PAIRS))
    assert [] == [words for _, _, _, wrong in results for words in wrong]
    instants = sum(count for _, _, count, _ in results)
    tell.append(f"crashes: {instants} instants of {len(results)} applies, each came up safely")


@pytest.mark.parametrize("performed", [False, True])
def test_a_crash_is_what_a_snapshot_shows(performed: bool) -> None:
    host = Recorder.of_host(small("tpp"))
    apply(host, SHIPPED["dsa"])
    for number in range(0, len(host.snapshots) - 1, 5):
        crashed = small("tpp")
        crashed.inject(Crash("crash", after=number, performed=performed))
        with pytest.raises(SimCrash):
            apply(crashed, SHIPPED["dsa"])
        snapshot = host.snapshots[number + performed]
        assert snapshot.files == crashed.files
        assert snapshot.key()[:-3] == crashed.key()[:-3]  # but for the fault that waited


# -- faults of the live engine -----------------------------------------------


def test_a_fault_with_tiering_stops_it_where_the_profile_says_so() -> None:
    from dataclasses import replace

    from dsatier.profile.model import DsaEngine

    profile = SHIPPED["tpp-dsa"]
    assert isinstance(profile.engine, DsaEngine)
    stopping = replace(profile, engine=replace(profile.engine, on_fault="cpu-and-stop-tiering"))
    for wanted, left in ((profile, (2, 1)), (stopping, (0, 0))):
        host = small("tpp")
        assert "changed" == apply(host, wanted).result
        host.inject(SelfClear("self-clear"))
        host.advance(2)
        assert "degraded" == reconcile(host, wanted).result
        knobs = facts_of(host)
        assert left == (knobs["numa_balancing"], knobs["demotion_enabled"])


def test_the_breaker_survives_a_reboot() -> None:
    host = small("tpp")
    apply(host, SHIPPED["dsa"])
    host.inject(SelfClear("self-clear"))
    host.advance(2)
    reconcile(host, SHIPPED["dsa"])
    host.reboot()
    for _ in range(2):
        reconcile(host, SHIPPED["dsa"])
        assert "fault" == record(host).latch
        assert 0 == facts_of(host)["use_dsa_copy_pages"]
    Driver(host).clear()
    reconcile(host, SHIPPED["dsa"])
    assert 1 == facts_of(host)["use_dsa_copy_pages"]


# -- a rollback that fails ----------------------------------------------------


def test_a_failed_rollback_is_a_state_of_its_own() -> None:
    host = small("tpp")
    profile = SHIPPED["tpp-dsa"]
    apply(host, profile)
    path = "/sys/devices/system/cpu/cpu5/online"
    host.inject(RejectedWrite("rejected-write", path=path, times=0))
    assert "rollback-failed" == Driver(host).rollback().result
    left = host.key()
    for verb in (apply, reconcile):
        again = verb(host, profile)
        assert "rollback-failed" == again.result
        assert path in again.message
        assert left == host.key()
    host.heal("rejected-write")
    assert "changed" == Driver(host).rollback().result
    assert facts_of(small("tpp")) == facts_of(host)
    assert "changed" == apply(host, profile).result
    assert [] == disagreements(host, profile)


# -- other writers -----------------------------------------------------------


@pytest.mark.parametrize("kind", ["ours", "tpp"])
def test_a_cpu_of_the_slow_node_comes_back(kind: str) -> None:
    host = small(kind)
    apply(host, SHIPPED["tpp-dsa"])
    put(host, "/sys/devices/system/cpu/cpu4/online", 1)
    assert "changed" == reconcile(host, SHIPPED["tpp-dsa"]).result
    assert (4, 5) == Observer(host).look().offline_cpus
    assert [] == disagreements(host, SHIPPED["tpp-dsa"])


def test_swap_comes_back() -> None:
    host = small("ours")
    apply(host, SHIPPED["tpp-dsa"])
    host.run(("swapon", "/dev/sda3"), 1.0)
    host.harm.clear()
    assert "changed" == reconcile(host, SHIPPED["tpp-dsa"]).result
    assert () == Observer(host).look().swaps
