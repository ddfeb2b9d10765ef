# SPDX-License-Identifier: Apache-2.0
"""Crashes at every instant, and everything else that can go wrong while a plan is carried out."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from dsatier.drive import Driver
from dsatier.knobs import KNOBS, live
from dsatier.observe import Observer
from dsatier.sim.faults import (
    ClockJump,
    CopyFailures,
    Crash,
    FailedInit,
    FullDisk,
    Halt,
    HungCommand,
    HungWrite,
    OtherWriter,
    SelfClear,
    SimCrash,
    StuckCpu,
    VanishedQueue,
)
from dsatier.sim.host import SimHost
from tests.proof import profiles
from tests.proof.drives import Recorder, apply, disagreements, reconcile, record, target
from tests.proof.hosts import VM, put, small

SHIPPED = profiles.fitted()
PAIRS = [
    (kind, name)
    for kind in ("ours", "tpp", "memtis")
    for name in SHIPPED
    if kind != "memtis" or name == "dsa"
]


def facts_of(host: SimHost) -> dict[str, int | None]:
    """Return the host's knobs."""
    facts = Observer(host).look()
    return {name: live(facts, name) for name in facts.knobs}


# -- a crash before and after every operation --------------------------------


def sweep(pair: tuple[str, str]) -> tuple[str, str, int, list[str]]:
    """Crash an apply at every instant, come up again, and apply once more."""
    kind, name = pair
    profile = SHIPPED[name]
    host = Recorder.of_host(small(kind))
    outcome = apply(host, profile)
    expected = "unchanged" if name == "release" else "changed"
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
    woken = Driver(host).wake()
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


@pytest.mark.parametrize("kind", ["ours", "tpp"])
def test_a_crash_in_the_crash_guard(kind: str) -> None:
    first = Recorder.of_host(small(kind))
    apply(first, SHIPPED["tpp-dsa"])
    for snapshot in first.snapshots[-6:-2]:
        second = Recorder.of_host(snapshot)
        Driver(second).wake()
        for left in second.snapshots:
            third = left.copy()
            assert "quarantined" == Driver(third).wake().state
            assert [] == disagreements(third)


@pytest.mark.parametrize("kind", ["ours", "tpp"])
def test_a_crash_in_rollback(kind: str) -> None:
    applied = small(kind)
    apply(applied, SHIPPED["tpp-dsa"])
    host = Recorder.of_host(applied)
    assert "changed" == Driver(host).rollback().result
    for left in host.snapshots:
        again = left.copy()
        assert Driver(again).wake().state in ("quarantined", "converged", "unmanaged")
        assert [] == disagreements(again)
        assert Driver(again).rollback().result in ("changed", "unchanged")
        assert facts_of(small(kind)) == facts_of(again)


# -- the disk, the clock -----------------------------------------------------


@pytest.mark.parametrize(("kind", "errno"), [("ours", "EROFS"), ("tpp", "ENOSPC")])
def test_a_disk_that_fails_at_every_keep(kind: str, errno: str) -> None:
    for keeps in range(1000):
        host = small(kind)
        boot = host.key()
        host.inject(FullDisk("disk", errno=errno, keeps=keeps))  # type: ignore[arg-type]
        outcome = apply(host, SHIPPED["tpp-dsa"])
        assert [] == host.harm
        (armed,) = host.kernel.state.faults
        if armed.uses <= keeps:
            assert keeps > 10  # every file was kept: there are no more instants
            break
        if outcome.result == "refused":
            # the journal could not be opened: nothing was written
            host.heal("disk")
            assert boot == host.key()
        else:
            assert "changed" == outcome.result
            host.heal("disk")
        state = Driver(host).wake().state
        assert state in ("unmanaged", "converged", "quarantined")
        assert [] == disagreements(host)
        Driver(host).clear()
        assert apply(host, SHIPPED["tpp-dsa"]).result in ("changed", "unchanged")
        assert [] == disagreements(host, SHIPPED["tpp-dsa"])


def test_a_full_disk_does_not_keep_a_faulted_engine_on() -> None:
    host = small("tpp")
    apply(host, SHIPPED["dsa"])
    host.inject(FullDisk("disk", errno="EROFS"))
    host.inject(CopyFailures("copy-failures"))
    host.advance(5)
    reconcile(host, SHIPPED["dsa"])
    assert 0 == facts_of(host)["use_dsa_copy_pages"]
    assert [] == [harm for harm in host.harm if harm.by == "agent"]


@pytest.mark.parametrize("by", [-1e9, 1e9])
def test_a_clock_that_jumps(by: float) -> None:
    host = small("tpp")
    host.inject(ClockJump("clock-jump", by=by, after=3.0))
    assert "changed" == apply(host, SHIPPED["tpp-dsa"]).result
    host.inject(ClockJump("clock-jump", by=-2 * by))
    host.advance(1)
    assert "unchanged" == reconcile(host, SHIPPED["tpp-dsa"]).result
    assert [] == disagreements(host, SHIPPED["tpp-dsa"])


# -- writes that hang --------------------------------------------------------


def steps_of(kind: str) -> list[str]:
    """Return the paths and commands that applying a profile writes."""
    host = small(kind)
    plan = Driver(host).apply(target(host, SHIPPED["tpp-dsa"])).plan
    assert plan is not None
    found = []
    for step in plan.steps:
        for request in step.requests:
            words = str(request)
            if hasattr(request, "knob"):
                found.append(KNOBS[request.knob].path)
            elif hasattr(request, "cpu"):
                found.append(f"/sys/devices/system/cpu/cpu{request.cpu}/online")
            else:
                found.append("swapoff" if "swapoff" in words else "load-config")
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("performed", [False, True])
@pytest.mark.parametrize(
    ("kind", "path"), [(kind, path) for kind in ("ours", "tpp") for path in steps_of(kind)]
)
def test_a_write_that_hangs(kind: str, path: str, performed: bool) -> None:
    host = small(kind)
    if path.startswith("/"):
        host.inject(HungWrite("hung-write", path=path, performed=performed, times=0))
    else:
        host.inject(HungCommand("hung-command", words=path, performed=performed, times=0))
    outcome = apply(host, SHIPPED["tpp-dsa"])
    assert "reboot-required" == outcome.result
    assert "no answer within" in outcome.message
    assert "reboot-required" == record(host).state
    assert [] == disagreements(host)
    assert "reboot-required" == apply(host, SHIPPED["tpp-dsa"]).result
    host.heal("hung-write")
    host.heal("hung-command")
    host.reboot()
    assert "changed" == apply(host, SHIPPED["tpp-dsa"]).result
    assert [] == disagreements(host, SHIPPED["tpp-dsa"])


# -- a start that fails ------------------------------------------------------


@pytest.mark.parametrize("channels", [0, 3])
def test_a_failed_start_on_ours_is_undone(channels: int) -> None:
    host = small("ours")
    before = facts_of(host)
    host.inject(FailedInit("failed-init", channels=channels))
    outcome = apply(host, SHIPPED["tpp-dsa"])
    assert "reverted" == outcome.result
    assert before == facts_of(host)
    facts = Observer(host).look()
    assert () == facts.offline_cpus
    assert ["disabled", "disabled"] == [device.state for device in facts.devices]
    assert 1 == len(facts.swaps)
    assert [] == disagreements(host)
    assert "changed" == apply(host, SHIPPED["tpp-dsa"]).result


@pytest.mark.parametrize("kind", ["tpp", "memtis"])
@pytest.mark.parametrize("channels", [0, 3])
def test_a_failed_start_on_a_seed(kind: str, channels: int) -> None:
    host = small(kind)
    before = facts_of(host)
    host.inject(FailedInit("failed-init", channels=channels))
    outcome = apply(host, SHIPPED["dsa"])
    assert [] == host.harm
    if channels:
        assert "reboot-required" == outcome.result
        assert "1" == host.read(VM + "dsa_state").strip()
        assert "0" == host.read(VM + "use_dsa_copy_pages").strip()
    else:
        assert "reverted" == outcome.result
        assert before == facts_of(host)
    assert "DMA channel" in outcome.message
    assert [] == disagreements(host)


def test_a_failed_start_after_a_release_on_a_seed_ends_as_reboot_required() -> None:
    host = small("tpp")
    assert "changed" == apply(host, SHIPPED["dsa"]).result
    assert "changed" == Driver(host).rollback().result
    host.inject(FailedInit("failed-init"))
    assert "reboot-required" == apply(host, SHIPPED["dsa"]).result
    assert [] == host.harm


# -- faults of the live engine -----------------------------------------------


def _halt(host: SimHost) -> None:
    host.inject(Halt("halt", device="dsa1"))


def _self_clear(host: SimHost) -> None:
    host.inject(SelfClear("self-clear"))


def _vanish(host: SimHost) -> None:
    host.inject(VanishedQueue("vanished-queue", queue="wq1.3"))


def _fail(host: SimHost) -> None:
    host.inject(CopyFailures("copy-failures", times=1))


def _turned_off(host: SimHost) -> None:
    put(host, "use_dsa_copy_pages", 0)


FAULTS = {
    "halt": (_halt, "ours tpp memtis", False),
    "self-clear": (_self_clear, "ours tpp memtis", True),
    "vanished queue": (_vanish, "ours", False),
    "copy failures": (_fail, "ours tpp memtis", True),
    "turned off by hand": (_turned_off, "ours tpp memtis", True),
}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for name, row in FAULTS.items() for kind in row[1].split()]
)
def test_a_fault_falls_back_once_and_stays_latched(kind: str, name: str) -> None:
    inject, _, heals = FAULTS[name]
    profile = SHIPPED["dsa"]
    host = small(kind)
    assert "changed" == apply(host, profile).result
    inject(host)
    host.advance(2)
    outcome = reconcile(host, profile)
    assert "degraded" == outcome.result, outcome.message
    assert 0 == facts_of(host)["use_dsa_copy_pages"]
    assert ("degraded", "fault", 1) == (
        record(host).state,
        record(host).latch,
        record(host).faults,
    )
    assert [] == disagreements(host)
    for _ in range(3):  # never on again by itself
        host.advance(60)
        again = reconcile(host, profile)
        assert again.result in ("degraded", "unchanged", "drifted"), again
        assert 0 == facts_of(host)["use_dsa_copy_pages"]
        assert 1 == record(host).faults
    assert [] == [harm for harm in host.harm if harm.by == "agent"]
    if not heals:
        return
    Driver(host).clear()
    assert "none" == record(host).latch
    assert "changed" == apply(host, profile).result
    assert 1 == facts_of(host)["use_dsa_copy_pages"]
    assert [] == disagreements(host, profile)


def test_a_fault_with_tiering_stops_it_where_the_profile_says_so() -> None:
    from dataclasses import replace

    from dsatier.profile import DsaEngine

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


# -- other writers -----------------------------------------------------------


def test_a_second_writer_is_fought_and_then_named() -> None:
    profile = SHIPPED["tpp-dsa"]
    conf = "/etc/sysctl.d/99-other.conf"
    host = small("ours", files={conf: "vm.dsa_copy_threshold = 4\n"})
    assert "changed" == apply(host, profile).result
    host.inject(OtherWriter("other-writer", path=VM + "dsa_copy_threshold", text="4", every=10))
    results = []
    for _ in range(6):
        host.advance(30)
        results.append(reconcile(host, profile).result)
    assert ["changed"] * 3 + ["drifted"] * 3 == results
    assert "Contested" == record(host).reason
    assert conf in record(host).message
    assert "4" == host.read(VM + "dsa_copy_threshold").strip()
    assert 3 == record(host).repaired
    host.heal("other-writer")
    assert "changed" == apply(host, profile).result
    assert [] == disagreements(host, profile)


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


def test_a_cpu_that_does_not_go_offline_is_undone() -> None:
    nodes = [{"cpus": "0-3", "memory": 16}, {"cpus": "4-7", "memory": 16}]
    host = small("ours", nodes=nodes)
    host.inject(StuckCpu("stuck-cpu", nth=3))
    outcome = apply(host, SHIPPED["tpp-cpu"])
    assert "reverted" == outcome.result
    assert () == Observer(host).look().offline_cpus
    assert "cpu6" in outcome.message
    assert [] == disagreements(host)
