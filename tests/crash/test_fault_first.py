# SPDX-License-Identifier: Apache-2.0
"""A fault comes before every wish: whatever runs first turns the engine off and latches."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dsatier.apply.driver import Driver
from dsatier.apply.gate import Gate
from dsatier.apply.records import Record
from dsatier.cli.measure import measure
from dsatier.facts.observe.observer import Observer
from dsatier.plan.requests import SetKnob
from dsatier.sim.faults import CopyFailures, Halt, HungWrite, SelfClear
from dsatier.sim.host import SimHost
from tests.support.scene import (
    VM,
    apply,
    at_rest,
    engine_on,
    look,
    reconcile,
    record,
    small,
    wanted,
)

PROFILE = "tpp-dsa"
KERNELS = pytest.mark.parametrize("kind", ["ours", "tpp"])
Act = Callable[[SimHost], object]
ENTRIES: dict[str, Act] = {
    "apply": lambda host: apply(host, PROFILE),
    "apply another": lambda host: apply(host, "cpu"),
    "reconcile": lambda host: reconcile(host, PROFILE),
    "watch": lambda host: Driver(host).watch(),
    "rollback": lambda host: Driver(host).rollback(),
    "detach": lambda host: Driver(host).detach(),
    "clear": lambda host: Driver(host).clear(),
}
"""Everything that may run first after a fault."""


def converged(kind: str) -> SimHost:
    """Return a host that tiers with the DSA."""
    host = small(kind)
    assert apply(host, PROFILE).result == "changed"
    assert engine_on(host)
    return host


@KERNELS
@pytest.mark.parametrize("entry", ENTRIES)
def test_an_engine_that_the_kernel_turned_off_stays_off(kind: str, entry: str) -> None:
    host = converged(kind)
    host.inject(SelfClear("self-clear"))
    host.advance(5.0)
    ENTRIES[entry](host)
    assert not engine_on(host)
    assert record(host).faults == 1
    if entry not in ("rollback", "detach"):  # nothing is latched on a host that is let go of
        assert record(host).latch == "fault"
        assert record(host).state == "degraded"
        assert apply(host, PROFILE).result == "degraded"
        assert not engine_on(host)
    at_rest(host)


@KERNELS
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_halt_turns_the_engine_off_whatever_runs_first(kind: str, entry: str) -> None:
    """With concurrency a seed kernel leaves its knob on, and tries the halted device for ever."""
    host = converged(kind)
    host.inject(Halt("halt", "dsa1"))
    host.advance(5.0)
    ENTRIES[entry](host)
    assert not engine_on(host)
    assert record(host).faults == 1
    at_rest(host)


def test_verify_and_plan_see_a_fault_and_write_nothing() -> None:
    host = converged("ours")
    host.inject(SelfClear("self-clear"))
    host.advance(5.0)
    before = record(host)
    target = wanted(host, PROFILE)
    assert Driver(host).reconcile(target, act=False).result == "degraded"
    plan = Driver(host).plan_for(target, before)
    requests = [request for step in plan.steps for request in step.requests]
    assert SetKnob("use_dsa_copy_pages", 1) not in requests
    assert record(host) == before


def test_what_nobody_has_seen_is_not_acknowledged() -> None:
    host = converged("ours")
    host.inject(SelfClear("self-clear"))
    host.advance(5.0)
    first = Driver(host).clear()
    assert (first.result, record(host).latch) == ("degraded", "fault")
    assert "clear again" in first.message
    assert Driver(host).clear().result == "changed"
    assert record(host).latch == "none"


def stuck(host: SimHost) -> Record:
    """Have a write hang while the engine is on, so that only a boot leads on from there."""
    host.inject(HungWrite("hung-write", VM + "dsa_copy_threshold"))
    Gate(host, Observer(host)).submit(SetKnob("use_concur_to_compact", 0), 10.0)
    host.poke(VM + "dsa_copy_threshold", "99\n")
    assert reconcile(host, PROFILE).result == "reboot-required"
    assert engine_on(host)
    return record(host)


@pytest.mark.parametrize("entry", [name for name in ENTRIES if name != "clear"])
def test_a_fault_turns_the_engine_off_also_where_a_boot_is_needed(entry: str) -> None:
    host = converged("tpp")
    before = stuck(host)
    host.inject(CopyFailures("copy-failures", times=1))
    host.advance(5.0)
    ENTRIES[entry](host)
    after = record(host)
    assert not engine_on(host)
    assert (after.state, after.reason) == ("reboot-required", before.reason)
    assert before.message in after.message
    assert "dsa_copy_fail rose" in after.message
    assert (after.latch, after.faults) == ("fault", 1)
    at_rest(host)


def restarted(failures: int) -> SimHost:
    """Return a converged host whose counter of failed copies stood there before."""
    host = converged("tpp")
    host.inject(CopyFailures("copy-failures", times=failures))
    host.advance(20.0)
    assert reconcile(host, PROFILE).result == "degraded"
    assert Driver(host).clear().result == "changed"
    assert apply(host, PROFILE).result == "changed"
    host.heal("copy-failures")
    assert record(host).copy_fails == failures
    return host


def test_the_mark_follows_a_counter_that_was_reset() -> None:
    """``measure`` clears the kernel's counter; what it counts after that is new."""
    host = restarted(3)
    measure(host, ["true"])
    assert reconcile(host, PROFILE).result == "unchanged"
    assert record(host).copy_fails == 0
    host.inject(CopyFailures("copy-failures", times=3))
    host.advance(20.0)
    assert look(host).timer["dsa_copy_fail"] == 3
    assert reconcile(host, PROFILE).result == "degraded"


def test_failures_after_a_reset_that_nobody_saw_count() -> None:
    host = restarted(2)
    measure(host, ["true"])
    host.inject(CopyFailures("copy-failures", times=1))
    host.advance(5.0)
    assert look(host).timer["dsa_copy_fail"] == 1
    assert reconcile(host, PROFILE).result == "degraded"
