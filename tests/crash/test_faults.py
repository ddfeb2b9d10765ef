# SPDX-License-Identifier: Apache-2.0
"""Devices, kernels, CPUs and other people that misbehave."""

from __future__ import annotations

import pytest

from dsatier.apply.driver import Driver
from dsatier.base.paths import LOCK, RECORD
from dsatier.host.port import HostDown, Locked
from dsatier.plan.rehearsal import prepare
from dsatier.profile.model import DriftPolicy
from dsatier.sim.faults import (
    AnyFault,
    CopyFailures,
    FailedInit,
    Halt,
    LateDevice,
    LostLog,
    OtherWriter,
    SelfClear,
    StuckCpu,
    VanishedQueue,
)
from dsatier.sim.host import SimHost
from tests.support.scene import (
    VM,
    apply,
    at_rest,
    engine_on,
    look,
    reconcile,
    record,
    seen,
    small,
    unsafe,
    wanted,
)

PROFILE = "tpp-dsa"
KERNELS = pytest.mark.parametrize("kind", ["ours", "tpp"])
FAULTS: dict[str, AnyFault] = {
    "halt": Halt("halt", "dsa1"),
    "halt, system": Halt("halt", "dsa0", reset="system"),
    "self-clear": SelfClear("self-clear"),
    "copy failures": CopyFailures("copy-failures", times=3),
    "vanished queue": VanishedQueue("vanished-queue", "wq1.3"),
}
# a queue that goes away under a seed kernel's live engine takes the host down at once
BREAKS = [(kind, name) for kind in ("ours", "tpp") for name in FAULTS]
BREAKS.remove(("tpp", "vanished queue"))


def converged(kind: str) -> SimHost:
    """Return a host that tiers with the DSA."""
    host = small(kind)
    assert "changed" == apply(host, PROFILE).result
    return host


@pytest.mark.parametrize("count", [0, 3])
def test_a_failed_start_is_undone(count: int) -> None:
    """Our kernel says that it failed, and gave back what it had."""
    host = small("ours")
    before = seen(host)
    host.inject(FailedInit("failed-init", channels=count))
    outcome = apply(host, PROFILE)
    assert "reverted" == outcome.result
    assert "dsa_state = 1" in outcome.message
    assert before == seen(host)
    at_rest(host)
    assert "changed" == apply(host, PROFILE).result


def test_a_failed_start_of_nothing_on_a_seed_kernel_is_undone() -> None:
    """A first start that got no channel has nothing to free twice."""
    host = small("tpp")
    before = seen(host)
    host.inject(FailedInit("failed-init", channels=0))
    outcome = apply(host, PROFILE)
    assert "reverted" == outcome.result
    assert before == seen(host)
    at_rest(host)


@pytest.mark.parametrize("count", [1, 3, 7])
def test_a_half_start_on_a_seed_kernel_needs_a_boot(count: int) -> None:
    """It would free some channels twice: the engine never goes live, and nothing is freed."""
    host = small("tpp")
    host.inject(FailedInit("failed-init", channels=count))
    outcome = apply(host, PROFILE)
    assert "reboot-required" == outcome.result
    assert "the DSA is really initialised" in outcome.message
    assert "0 DMA channels in use" in outcome.message  # they are given back at once
    assert f"Failed to get DMA channel {count}." in outcome.message
    assert not engine_on(host)
    at_rest(host)
    assert "reboot-required" == apply(host, PROFILE).result
    host.reboot()
    assert "changed" == apply(host, PROFILE).result
    at_rest(host)


@pytest.mark.parametrize("count", [0, 3])
def test_a_later_start_that_fails_on_a_seed_kernel_needs_a_boot(count: int) -> None:
    """After a release its arrays hold stale pointers, so even nothing would be freed twice."""
    host = converged("tpp")
    assert "changed" == Driver(host).rollback().result
    host.inject(FailedInit("failed-init", channels=count))
    assert "reboot-required" == apply(host, PROFILE).result
    assert not engine_on(host)
    at_rest(host)


@pytest.mark.parametrize(("kind", "name"), BREAKS)
def test_the_breaker_opens_once(kind: str, name: str) -> None:
    """It stays open, whoever asks, until somebody clears it."""
    host = converged(kind)
    host.inject(FAULTS[name])
    host.advance(5.0)
    outcome = reconcile(host, PROFILE)
    assert "degraded" == outcome.result
    assert not engine_on(host)
    kept = record(host)
    assert ("degraded", "fault", 1) == (kept.state, kept.latch, kept.faults)

    for _ in range(3):
        host.advance(30.0)
        assert "degraded" == reconcile(host, PROFILE).result
        assert "degraded" == apply(host, PROFILE).result
        assert not engine_on(host)
        at_rest(host)
    assert 1 == record(host).faults

    booted = host.copy()
    booted.reboot()
    assert "degraded" == apply(booted, PROFILE).result
    assert not engine_on(booted)
    at_rest(booted)
    for later in (host, booted):
        later.heal(FAULTS[name].kind)
        assert "changed" == Driver(later).clear().result
        again = apply(later, PROFILE)
        if later is host and "halt" in name:
            # the device needs a reset, and a boot is one
            assert again.result in ("refused", "reboot-required")
            assert not engine_on(later)
            later.reboot()
            again = apply(later, PROFILE)
        assert "changed" == again.result, again.message
        assert engine_on(later)
        assert "unchanged" == reconcile(later, PROFILE).result
        at_rest(later)


def test_a_seed_kernel_dies_of_a_vanished_queue() -> None:
    """Nothing can be done in time; the next boot is none of dsatier's unclean ends."""
    host = converged("tpp")
    host.inject(FAULTS["vanished queue"])
    with pytest.raises(HostDown):
        host.advance(5.0)
    host.reboot()
    host.heal("vanished-queue")
    assert "unmanaged" == Driver(host).recover().state
    assert "changed" == apply(host, PROFILE).result
    assert {"other"} == {harm.by for harm in host.harm}


@KERNELS
@pytest.mark.parametrize("configured", [True, False])
def test_a_fight_is_given_up(kind: str, configured: bool) -> None:
    """Repaired as often as the policy says; then said, with the tool that is set up to do it."""
    conf = "/etc/sysctl.d/70-dsa.conf"
    files = {conf: "vm.dsa_copy_threshold = 99\n"} if configured else {}
    host = small(kind, files=files)
    policy = DriftPolicy(fights=2, window=600.0)
    assert "changed" == Driver(host).apply(wanted(host, PROFILE, policy)).result
    host.inject(OtherWriter("other-writer", VM + "dsa_copy_threshold", "99\n", every=10.0))
    results = []
    for _ in range(5):
        host.advance(10.0)
        results.append(reconcile(host, PROFILE, policy).result)
    assert ["changed", "changed", "drifted", "drifted", "drifted"] == results
    kept = record(host)
    assert ("drifted", "Contested", 2) == (kept.state, kept.reason, kept.repaired)
    assert "dsa_copy_threshold" in kept.message
    assert configured == (f"sysctl.d ({conf})" in kept.message)
    assert "99" == look(host).knobs["dsa_copy_threshold"]
    at_rest(host)

    host.heal("other-writer")
    assert "changed" == apply(host, PROFILE).result
    assert "12" == look(host).knobs["dsa_copy_threshold"]


@KERNELS
def test_drift_that_is_only_reported_is_never_written(kind: str) -> None:
    """Said once, and over when it goes by itself."""
    host = small(kind)
    policy = DriftPolicy(policy="report")
    assert "changed" == Driver(host).apply(wanted(host, PROFILE, policy)).result
    host.poke(VM + "dsa_copy_threshold", "99\n")
    before = host.key()
    for _ in range(3):
        assert "drifted" == reconcile(host, PROFILE, policy).result
        assert before == host.key()
    noted = host.files[RECORD]
    reconcile(host, PROFILE, policy)
    assert noted == host.files[RECORD]
    assert ("drifted", "Drift") == (record(host).state, record(host).reason)
    host.poke(VM + "dsa_copy_threshold", "12\n")
    assert "unchanged" == reconcile(host, PROFILE, policy).result
    assert "converged" == record(host).state
    at_rest(host)


@KERNELS
def test_a_cpu_that_stays_brings_the_others_back(kind: str) -> None:
    """Half a slow node is none."""
    host = small(
        kind,
        nodes=[
            {"cpus": "0-3", "memory": 16, "used": 2},
            {"cpus": "4-7", "memory": 16, "used": 1},
        ],
    )
    before = seen(host)
    host.inject(StuckCpu("stuck-cpu", nth=3))
    outcome = apply(host, PROFILE)
    assert "reverted" == outcome.result
    assert "cpus 4-7 offline" in outcome.message
    assert () == look(host).offline_cpus
    assert before == seen(host)
    at_rest(host)


@KERNELS
def test_a_lost_log_is_no_evidence(kind: str) -> None:
    """A start that cannot be proven is undone."""
    host = small(kind)
    before = seen(host)
    host.inject(LostLog("lost-log", with_write=VM + "dsa_state"))
    outcome = apply(host, PROFILE)
    assert "log" in outcome.message
    assert not engine_on(host)
    assert [] == unsafe(host)
    assert outcome.result in ("reverted", "reboot-required")
    if outcome.result == "reverted":
        assert before == seen(host)


@KERNELS
def test_a_device_that_comes_late(kind: str) -> None:
    """Refused for as long as it is not there, and no longer."""
    host = small(kind)
    host.inject(LateDevice("late-device", "dsa1", after=60.0))
    before = host.key()
    plan = prepare(look(host), wanted(host, PROFILE).desired)
    assert "refused" == plan.verdict
    assert "refused" == apply(host, PROFILE).result
    assert before == host.key()
    host.advance(61.0)
    assert "changed" == apply(host, PROFILE).result
    at_rest(host)


def test_two_at_once() -> None:
    """The second is told who the first is, and the lock is free again afterwards."""
    host = small()
    with host.lock(LOCK, "pid 17, dsatier reconcile"):
        with (
            pytest.raises(Locked, match="pid 17, dsatier reconcile") as locked,
            host.lock(LOCK, "pid 18, dsatier apply"),
        ):
            raise AssertionError
        assert "pid 17, dsatier reconcile" == locked.value.holder
        assert "changed" == apply(host, PROFILE).result
    with host.lock(LOCK, "pid 18, dsatier apply"):
        assert "unchanged" == reconcile(host, PROFILE).result
