# SPDX-License-Identifier: Apache-2.0
"""The disk of dsatier's own files is full or read-only, and clocks that jump."""

from __future__ import annotations

from typing import Literal

import pytest

from dsatier.drive import Driver
from dsatier.journal import MOTION
from dsatier.sim.faults import ClockJump, FullDisk, Halt
from dsatier.sim.host import SimHost
from tests.crash.scene import (
    VM,
    apply,
    at_rest,
    crashed,
    engine_on,
    look,
    operations,
    reconcile,
    record,
    seen,
    small,
    unsafe,
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
        assert [] == unsafe(host)
        mended(host)


@KERNELS
@ERRNOS
def test_a_disk_that_fills_up_during_apply(kind: str, errno: Errno) -> None:
    """What was begun is finished: stopping half way would be no safer."""
    for keeps in range(3, 20, 2):
        host = small(kind)
        full(host, errno, keeps)
        outcome = apply(host, PROFILE)
        assert ("changed", keeps) == (outcome.result, keeps)
        assert [] == unsafe(host)
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
        assert [] == unsafe(host)
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
        host.inject(Halt("halt", "dsa1"))
        host.advance(1.0)
        outcome = reconcile(host, PROFILE)
        assert ("degraded", keeps) == (outcome.result, keeps)
        assert not engine_on(host)
        assert [] == unsafe(host)


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
        assert [] == unsafe(host)
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


@KERNELS
def test_the_breaker_works_with_a_journal_that_cannot_be_closed(kind: str) -> None:
    """On a disk that went read-only, the open journal of a change that ended well stays."""
    host = small(kind)
    # the last operation but one is the status, which is in memory
    host = crashed(host, _up, operations(host, _up) - 1, performed=False)
    assert MOTION in host.files
    assert "converged" == record(host).state
    full(host, "EROFS")
    assert "unchanged" == reconcile(host, PROFILE).result
    host.inject(Halt("halt", "dsa1"))
    host.advance(1.0)
    assert "degraded" == reconcile(host, PROFILE).result
    assert not engine_on(host)
    assert [] == unsafe(host)


def _up(host: SimHost) -> None:
    apply(host, PROFILE)


@ERRNOS
def test_a_latch_that_cannot_be_cleared_stays(errno: Errno) -> None:
    """What is not on disk did not happen."""
    host = crashed(small(), _up, 28, performed=False)
    Driver(host).wake()
    full(host, errno)
    assert "refused" == Driver(host).clear().result
    assert "crash" == record(host).latch
    mended(host)


@ERRNOS
def test_a_boot_with_a_full_disk(errno: Errno) -> None:
    """The record of the boot before is known for one, and the host is not up again."""
    host = small()
    _up(host)
    full(host, errno)
    host.reboot()
    assert "unmanaged" == Driver(host).wake().state
    assert "refused" == reconcile(host, PROFILE).result
    assert not engine_on(host)
    mended(host)
