# SPDX-License-Identifier: Apache-2.0
"""The agent dies at every operation that changes something, of every verb.

What is left by dying after operation n is what is left by dying before operation n+1, so each
operation is only died before, and the last one after as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from dsatier.apply.driver import Driver
from dsatier.sim.faults import Crash, SimCrash
from dsatier.sim.host import SimHost
from tests.support.scene import (
    Filmed,
    apply,
    at_rest,
    channels,
    crashed,
    engine_on,
    in_motion,
    look,
    named,
    operations,
    reconcile,
    record,
    seen,
    shipped,
    unsafe,
)

Act = Callable[[SimHost], object]
ACTS: dict[str, Act] = {
    "apply": lambda host: apply(host, profile_of(host)),
    "fewer channels": lambda host: apply(host, channels(shipped("dsa"), 4)),
    "rollback": lambda host: Driver(host).rollback(),
    "detach": lambda host: Driver(host).detach(),
}
CASES = [(kind, verb) for kind in ("ours", "tpp") for verb in ACTS]
CASES += [("memtis", "apply")]
BIG = [("dsa8", "apply"), ("dsa8-seed", "rollback")]


def profile_of(host: SimHost) -> str:
    """Return the profile that a kernel can take: memtis has no tiering with watermarks."""
    return "dsa" if host.kernel.spec.kernel.kind == "memtis" else "tpp-dsa"


def start(kind: str, verb: str) -> SimHost:
    """Return a host before a verb: as booted for apply, converged for the others."""
    host = named(kind)
    if verb == "fewer channels":
        assert "changed" == apply(host, channels(shipped("dsa"), 8)).result
    elif verb != "apply":
        assert "changed" == apply(host, profile_of(host)).result
    return host


def deaths(host: SimHost, act: Act, stride: int = 1) -> Iterator[tuple[int, SimHost]]:
    """Yield the host for each operation of an act that the agent can die at."""
    filmed = Filmed(host)
    act(filmed)
    count = len(filmed.frames)
    assert count > 5
    yield from list(enumerate(filmed.frames))[::stride]
    yield count, crashed(host, act, count - 1, performed=True)


def wakes(host: SimHost, *, converge: bool) -> bool:
    """Assert how a host is after the agent died; tell whether it had been in motion."""
    moving, before = in_motion(host), look(host)
    was = record(host).state
    kept = Driver(host).recover()
    at_rest(host)
    if not moving:
        # a boot alone unmanages; nothing else happened
        assert kept.state in (was, "unmanaged")
        assert before.knobs == look(host).knobs
    if moving or was == "quarantined":
        assert ("quarantined", "crash", "UncleanEnd") == (kept.state, kept.latch, kept.reason)
        assert not engine_on(host)
        held = apply(host, profile_of(host))
        assert "quarantined" == held.result
        assert not engine_on(host)
        at_rest(host)
    else:
        assert "none" == kept.latch
    if converge:
        if kept.latch != "none":
            assert "changed" == Driver(host).clear().result
        assert apply(host, profile_of(host)).result in ("changed", "unchanged")
        assert engine_on(host)
        assert "unchanged" == reconcile(host, profile_of(host)).result
        assert "converged" == record(host).state
        at_rest(host)
    return moving


def test_a_film_shows_what_a_death_leaves() -> None:
    """Before an operation, and after the one before it."""
    host = start("tpp", "apply")
    for after, frame in deaths(host, ACTS["apply"], stride=7):
        dead = crashed(host, ACTS["apply"], after, performed=False) if after < 34 else frame
        assert (frame.key(), frame.files) == (dead.key(), dead.files)
        if after:
            dead = crashed(host, ACTS["apply"], after - 1, performed=True)
            assert frame.key()[:-1] == dead.key()[:-1]
            assert frame.files == dead.files


def every_death(host: SimHost, act: Act, stride: int = 1) -> list[bool]:
    """Assert what follows each death, on the same boot and after another; tell who moved."""
    found: list[bool] = []
    met = set()
    for _, dead in deaths(host, act, stride):
        state = dead.key(), record(dead).state, in_motion(dead)
        if state in met:
            # only the journal's words differ from those of another death
            Driver(dead).recover()
            at_rest(dead)
            found.append(state[-1])
            continue
        met.add(state)
        booted = dead.copy()
        booted.reboot()
        # the long way to the end is taken on one of the two, in turns
        moved = wakes(dead, converge=len(met) % 2 == 0)
        assert moved == wakes(booted, converge=len(met) % 2 == 1)
        found.append(moved)
    return found


@pytest.mark.parametrize(("kind", "verb"), CASES)
def test_the_agent_dies(kind: str, verb: str) -> None:
    """At rest before the first note and after the last one, in motion in between."""
    moved = every_death(start(kind, verb), ACTS[verb])
    assert not moved[0]
    assert not moved[-1]
    first, last = moved.index(True), len(moved) - moved[::-1].index(True)
    assert all(moved[first:last])


@pytest.mark.parametrize(("kind", "verb"), BIG)
def test_the_agent_dies_on_a_host_of_eight_devices(kind: str, verb: str) -> None:
    """The journal, the first steps and the last; the small hosts take every operation."""
    assert any(every_death(start(kind, verb), ACTS[verb], stride=29))


@pytest.mark.parametrize("kind", ["ours", "tpp"])
@pytest.mark.parametrize("verb", ["rollback", "detach"])
def test_a_withdrawal_that_died_is_finished_by_the_next(kind: str, verb: str) -> None:
    """Without ``clear``: it leads down, not up."""
    host = start(kind, verb)
    whole = host.copy()
    ACTS[verb](whole)
    for _, dead in deaths(host, ACTS[verb], stride=5):
        ACTS[verb](dead)
        assert "unmanaged" == record(dead).state
        assert seen(whole) == seen(dead)
        at_rest(dead)


@pytest.mark.parametrize("kind", ["ours", "tpp"])
def test_the_agent_dies_in_the_crash_guard(kind: str) -> None:
    """And again: the guard is taken up by the next run, wherever it ended."""
    host = start(kind, "apply")
    count = operations(host, ACTS["apply"])
    tried = 0
    for after in (count - 12, count - 5):
        dead = crashed(host, ACTS["apply"], after, performed=False)
        assert in_motion(dead)
        for at in range(operations(dead, lambda h: Driver(h).recover())):
            again = crashed(dead, lambda h: Driver(h).recover(), at, performed=False)
            assert [] == unsafe(again)
            if at % 2:
                again.reboot()
            wakes(again, converge=at % 8 == 0)
            tried += 1
    assert tried > 10


@pytest.mark.parametrize("kind", ["ours", "tpp"])
def test_a_crash_on_every_wake(kind: str) -> None:
    """The guard gets somewhere each time it may do two operations more."""
    host = crashed(start(kind, "apply"), ACTS["apply"], 28, performed=True)
    for allowed in range(0, 60, 2):
        host.inject(Crash("crash", after=allowed))
        try:
            Driver(host).recover()
            break
        except SimCrash:
            assert [] == unsafe(host)
    assert allowed > 0
    host.heal("crash")
    wakes(host, converge=True)
