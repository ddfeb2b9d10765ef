# SPDX-License-Identifier: Apache-2.0
"""A request that does not come back: it may still be running, so only a reboot leads on."""

from __future__ import annotations

import pytest

from dsatier.apply.driver import Driver
from dsatier.apply.outcome import Outcome
from dsatier.facts.knobs import KNOBS
from dsatier.plan.requests import LoadDevice, Request, SetCpu, SetKnob, StirCpu, SwapOff
from dsatier.sim.faults import AnyFault, CopyFailures, HungCommand, HungWrite
from dsatier.sim.host import SimHost
from tests.support.scene import (
    apply,
    at_rest,
    crashed,
    engine_on,
    look,
    operations,
    record,
    small,
    unsafe,
    wanted,
)

PROFILE = "tpp-dsa"


def host_of(kind: str) -> SimHost:
    """Return a host with swap and parameters that the profile changes."""
    host = small(kind, swap=[{"path": "/dev/sda3", "size": 2, "used": 1}])
    host.poke(KNOBS["limit_chans"].path, "4\n")
    host.poke(KNOBS["limit_mt_num"].path, "2\n")
    return host


def hung_by(request: Request, performed: bool) -> AnyFault:
    """Return the fault that this request meets."""
    match request:
        case SetKnob(knob, _):
            return HungWrite("hung-write", KNOBS[knob].path, performed)
        case SetCpu(cpu, _) | StirCpu(cpu):
            path = f"/sys/devices/system/cpu/cpu{cpu}/online"
            return HungWrite("hung-write", path, performed)
        case LoadDevice():
            return HungCommand("hung-command", "load-config", performed)
        case SwapOff():
            return HungCommand("hung-command", "swapoff", performed)
    raise AssertionError(f"nothing hangs for {request}")


def is_stuck(host: SimHost, outcome: Outcome, what: str) -> None:
    """Assert that the hung step is named, and that nothing goes on before a reboot."""
    assert "reboot-required" == outcome.result
    assert what in outcome.message
    assert "no answer within" in outcome.message
    kept = record(host)
    assert ("reboot-required", "RequestHung") == (kept.state, kept.reason)
    assert [] == unsafe(host)
    before = host.key()
    driver = Driver(host)
    for again in (
        driver.apply(wanted(host, PROFILE)),
        driver.reconcile(wanted(host, PROFILE)),
        driver.rollback(),
        driver.detach(),
        driver.clear(),
    ):
        assert "reboot-required" == again.result
        assert what in again.message
    assert before == host.key()


@pytest.mark.parametrize("kind", ["ours", "tpp"])
@pytest.mark.parametrize("performed", [False, True])
def test_each_request_of_an_apply_hangs(kind: str, performed: bool) -> None:
    """The step is named, the state is reboot-required, and a reboot leads on."""
    start = host_of(kind)
    plan = Driver(start).plan_for(wanted(start, PROFILE), record(start))
    assert "ready" == plan.verdict
    met = set()
    for step in plan.steps:
        for fault in (hung_by(request, performed) for request in step.requests):
            if fault in met:
                continue
            met.add(fault)
            host = start.copy()
            host.inject(fault)
            is_stuck(host, apply(host, PROFILE), step.what)

            host.reboot()
            host.heal(fault.kind)
            assert "changed" == apply(host, PROFILE).result
            assert engine_on(host)
            at_rest(host)
    assert len(met) > 10


@pytest.mark.parametrize("kind", ["ours", "tpp"])
@pytest.mark.parametrize("verb", ["rollback", "detach"])
def test_each_knob_hangs_on_the_way_back(kind: str, verb: str) -> None:
    """Going back ends where it hangs, too."""
    start = host_of(kind)
    apply(start, PROFILE)
    for knob in ("demotion_enabled", "numa_balancing", "use_dsa_copy_pages", "dsa_state"):
        host = start.copy()
        host.inject(HungWrite("hung-write", KNOBS[knob].path))
        outcome = getattr(Driver(host), verb)()
        assert ("reboot-required", knob) == (outcome.result, knob)
        assert f"{KNOBS[knob].path} = 0" in outcome.message
        assert [] == unsafe(host)


@pytest.mark.parametrize("kind", ["ours", "tpp"])
def test_a_device_hangs_on_the_way_back(kind: str) -> None:
    """accel-config too."""
    host = host_of(kind)
    apply(host, PROFILE)
    host.inject(HungCommand("hung-command", "disable-device"))
    outcome = Driver(host).rollback()
    assert "reboot-required" == outcome.result
    assert "dsa0 disabled" in outcome.message
    assert not engine_on(host)
    assert [] == unsafe(host)


@pytest.mark.parametrize("performed", [False, True])
def test_the_breaker_hangs(performed: bool) -> None:
    """Whether the engine went off is not known: the fault and the hung step are both told."""
    host = host_of("tpp")
    apply(host, PROFILE)
    path = KNOBS["use_dsa_copy_pages"].path
    host.inject(HungWrite("hung-write", path, performed))
    # a failed list leaves a seed kernel's knob as it is
    host.inject(CopyFailures("copy-failures", times=1))
    host.advance(5.0)
    assert engine_on(host)
    outcome = Driver(host).reconcile(wanted(host, PROFILE))
    assert "reboot-required" == outcome.result
    assert "dsa_copy_fail rose" in outcome.message or "kernel log" in outcome.message
    assert f"{path} = 0" in outcome.message
    kept = record(host)
    assert ("reboot-required", "EngineStuck", "fault") == (kept.state, kept.reason, kept.latch)
    assert performed != engine_on(host)
    host.reboot()
    held = Driver(host).apply(wanted(host, PROFILE))
    # which latch it is after the boot is the lifecycle's choice; the engine stays off
    assert held.result in ("degraded", "quarantined")
    assert not engine_on(host)
    at_rest(host)


def test_the_crash_guard_hangs() -> None:
    """A guard that cannot bring the engine down says so."""
    start = host_of("ours")
    last = operations(start, _up)
    host = crashed(start, _up, last - 10, performed=False)
    assert look(host).knobs["dsa_state"] == "1"
    host.inject(HungWrite("hung-write", KNOBS["dsa_state"].path))
    kept = Driver(host).recover()
    assert "reboot-required" == kept.state
    assert "crash" == kept.latch
    assert KNOBS["dsa_state"].path in kept.message
    host.reboot()
    assert "quarantined" == Driver(host).recover().state
    assert not engine_on(host)


def _up(host: SimHost) -> None:
    apply(host, PROFILE)
