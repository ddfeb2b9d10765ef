# SPDX-License-Identifier: Apache-2.0
"""The disk of dsatier's own files is full or read-only, and clocks that jump."""

from __future__ import annotations

from typing import Literal

import pytest

from dsatier.drive import Driver
from dsatier.host import HostError
from dsatier.sim.faults import ClockJump, FullDisk, SelfClear
from dsatier.sim.host import SimHost
from tests.crash.scene import (
    VM,
    apply,
    at_rest,
    channels,
    engine_on,
    look,
    operations,
    reconcile,
    record,
    seen,
    shipped,
    small,
)

KERNELS = pytest.mark.parametrize("kind", ["ours", "tpp"])
ERRNOS = pytest.mark.parametrize("errno", ["ENOSPC", "EROFS"])
Errno = Literal["ENOSPC", "EROFS"]
PROFILE = "tpp-dsa"


def full(host: SimHost, errno: Errno, keeps: int = 0) -> None:
    """Let the disk be full from now on, but for so many files more."""
    host.inject(FullDisk("disk", errno=errno, keeps=keeps))


def mended(host: SimHost) -> None:
    """Let there be room again, and assert that the host can be brought where it is wanted."""
    host.heal("disk")
    Driver(host).wake()
    at_rest(host)
    if record(host).latch != "none":
        Driver(host).clear()
    assert apply(host, PROFILE).result in ("changed", "unchanged")
    assert engine_on(host)
    at_rest(host)


@KERNELS
@ERRNOS
def test_nothing_is_written_where_the_journal_cannot_be_opened(kind: str, errno: Errno) -> None:
    """The first change waits for originals, motion and record to be on disk."""
    for keeps in range(3):
        host = small(kind)
        before = seen(host)
        full(host, errno, keeps)
        outcome = apply(host, PROFILE)
        assert ("refused", keeps) == (outcome.result, keeps)
        assert before == seen(host)
        assert [] == host.harm
        mended(host)


@KERNELS
@ERRNOS
def test_a_disk_that_fills_up_during_apply(kind: str, errno: Errno) -> None:
    """What was begun is finished: stopping half way would be no safer."""
    for keeps in range(3, 40, 2):
        host = small(kind)
        full(host, errno, keeps)
        outcome = apply(host, PROFILE)
        assert ("changed", keeps) == (outcome.result, keeps)
        assert [] == host.harm
        mended(host)


@KERNELS
@ERRNOS
@pytest.mark.parametrize("verb", ["rollback", "release"])
def test_a_disk_that_fills_up_on_the_way_back(kind: str, errno: Errno, verb: str) -> None:
    """Refused before the first write, or finished."""
    start = small(kind)
    apply(start, PROFILE)
    before = seen(start)
    for keeps in (0, 1, 2, 3, 7, 20):
        host = start.copy()
        full(host, errno, keeps)
        outcome = getattr(Driver(host), verb)()
        if outcome.result == "refused":
            assert keeps < 2
            assert before == seen(host)
        else:
            assert "changed" == outcome.result
            assert not engine_on(host)
        assert [] == host.harm
        mended(host)


@KERNELS
@ERRNOS
def test_the_breaker_needs_no_disk(kind: str, errno: Errno) -> None:
    """The engine goes off whatever can be noted of it."""
    start = small(kind)
    apply(start, PROFILE)
    for keeps in range(6):
        host = start.copy()
        full(host, errno, keeps)
        # somebody is at the engine: it faulted
        host.poke("/sys/bus/dsa/drivers/dmaengine/unbind" if kind == "ours" else VM + "dsa_x", "")\
            if False else host.inject(SelfClear("self-clear"))
        host.advance(1.0)
        outcome = reconcile(host, PROFILE)
        assert ("degraded", keeps) == (outcome.result, keeps)
        assert not engine_on(host)
        assert [] == host.harm


@KERNELS
@ERRNOS
def test_a_repair_waits_for_the_journal(kind: str, errno: Errno) -> None:
    """Drift is no emergency."""
    start = small(kind)
    apply(start, PROFILE)
    start.poke(VM + "dsa_copy_threshold", "99\n")
    for keeps in range(10):
        host = start.copy()
        full(host, errno, keeps)
        outcome = reconcile(host, PROFILE)
        repaired = look(host).knobs["dsa_copy_threshold"] == "12"
        assert repaired == (outcome.result != "refused")
        assert repaired == (keeps >= 3)
        assert [] == host.harm
        mended(host)


@KERNELS
def test_the_wall_clock_jumps(kind: str) -> None:
    """It is for people only: nothing else changes."""
    plain = small(kind)
    apply(plain, PROFILE)
    for by in (-86400.0, 86400.0):
        for after in (0.0, 2.0, 10.5):
            host = small(kind)
            host.inject(ClockJump("clock-jump", by=by, after=after))
            assert "changed" == apply(host, PROFILE).result
            host.advance(60.0)
            assert host.wall() < 1790000000 if by < 0 else host.wall() > 1790080000
            assert seen(plain) == seen(host)
            assert "unchanged" == reconcile(host, PROFILE).result
            assert "changed" == Driver(host).rollback().result
            at_rest(host)
