# SPDX-License-Identifier: Apache-2.0
"""The history: every change of state is in it, it is bounded, and nothing waits for it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsatier.apply import history
from dsatier.apply.driver import Driver
from dsatier.apply.history import Entry, appended, entries, happened
from dsatier.apply.journal import Journal
from dsatier.apply.lifecycle import IN_MOTION, STATES
from dsatier.apply.records import WITHDRAWN, Record, Repair
from dsatier.base.paths import HISTORY, RECORD
from dsatier.facts.tiers import USUAL, Tiers
from dsatier.sim.faults import FullDisk, Halt
from dsatier.sim.host import SimHost
from tests.support.scene import (
    BALANCING,
    apply,
    crashed,
    operations,
    reconcile,
    record,
    small,
    wanted,
)

PROFILE = "tpp-dsa"
RESTING = sorted(set(STATES) - IN_MOTION)

ENTRIES = st.lists(
    st.builds(
        Entry,
        at=st.floats(0, history.LATEST),
        event=st.sampled_from(sorted(history.EVENTS)),
        state=st.sampled_from(STATES),
        message=st.text(max_size=50),
    ),
    max_size=5,
)
RECORDS = st.builds(
    Record,
    state=st.sampled_from(RESTING),
    reason=st.sampled_from(["Proven", "Drift", "Contested", "Cleared", WITHDRAWN, "EngineFault"]),
    message=st.sampled_from(["", "one", "two"]),
    boot_id=st.sampled_from(["", "a", "b"]),
    latch=st.sampled_from(["none", "fault", "crash"]),
    latch_reason=st.sampled_from(["", "why"]),
    generation=st.integers(0, 2),
    profile_digest=st.sampled_from(["", "x", "y"]),
    profile_status=st.sampled_from(["Accepted", "Pending", "NoProfile", "Invalid", "Failed"]),
    profile_message=st.sampled_from(["", "bad"]),
    repaired=st.integers(0, 2),
    faults=st.integers(0, 2),
    look_failed=st.sampled_from(["", "no"]),
    repairs=st.sampled_from([(), (Repair("knob", 1.0),)]),
    tiers=st.sampled_from([USUAL, Tiers((0,), (1, 2))]),
)


def told(host: SimHost) -> list[tuple[str, str]]:
    """Return event and state of each entry, the oldest first."""
    found, odd = entries(host.files.get(HISTORY, ""))
    assert 0 == odd
    return [(entry.event, entry.state) for entry in reversed(found)]


def messages(host: SimHost, event: str) -> list[str]:
    return [one.message for one in entries(host.files[HISTORY])[0] if one.event == event]


# -- what is told ------------------------------------------------------------------


@settings(deadline=None)
@given(RECORDS, RECORDS, st.sampled_from(["", *sorted(IN_MOTION)]))
def test_each_change_of_state_is_told_and_nothing_else(
    before: Record, after: Record, moved: str
) -> None:
    found = [entry.event for entry in happened(before, after, moved, 7.0)]
    assert len(set(found)) == len(found)
    assert set(found) <= set(history.EVENTS)
    if before.state != after.state or moved:
        assert set(found) - {"look", "profile"}
    assert ("fault" in found) >= (after.faults > before.faults)
    assert ("repair" in found) == (after.repaired > before.repaired)
    assert () == happened(after, after, "", 7.0)


def test_a_day_of_a_host() -> None:
    host = small()
    assert "changed" == apply(host, PROFILE).result
    host.poke(BALANCING, "0")
    assert "changed" == reconcile(host, PROFILE).result
    assert [("change", "converged"), ("profile", "converged"), ("repair", "converged")] == (
        told(host)
    )
    assert [True] == ["numa_balancing" in words for words in messages(host, "repair")]
    host.inject(Halt("halt", "dsa0"))
    host.advance(1.0)
    assert "degraded" == reconcile(host, PROFILE).result
    host.reboot()
    Driver(host).recover()
    Driver(host).clear()
    Driver(host).rollback()
    assert [
        ("fault", "degraded"),
        ("boot", "degraded"),
        ("clear", "reverted"),
        ("rollback", "unmanaged"),
    ] == told(host)[3:]
    assert [True] == ["need FLR" in words for words in messages(host, "fault")]


def test_a_change_that_ended_at_any_operation_is_told_once() -> None:
    """Its end, or that it did not come to one: but for a death between record and history."""
    start = small()
    for after in range(0, operations(start, lambda h: apply(h, PROFILE)), 3):
        host = crashed(start.copy(), lambda h: apply(h, PROFILE), after, performed=False)
        moving = json.loads(host.files.get(RECORD, "{}")).get("state") in IN_MOTION
        Driver(host).recover()
        found = [event for event, _ in told(host) if event in ("change", "latch")]
        assert found == (["latch"] if moving else ["change"] * len(found))
        assert len(found) <= 1


def test_a_fault_is_told_though_dsatier_ended_while_it_turned_the_engine_off() -> None:
    start = small()
    apply(start, PROFILE)
    start.inject(Halt("halt", "dsa0"))
    start.advance(1.0)
    known = told(start)
    for after in range(operations(start, lambda h: reconcile(h, PROFILE))):
        host = crashed(start.copy(), lambda h: reconcile(h, PROFILE), after, performed=False)
        between = record(host).state == "degraded" and known == told(host)
        reconcile(host, PROFILE)
        fresh = [event for event, _ in told(host)[len(known) :]]
        assert ([] if between else ["fault"]) == [one for one in fresh if one == "fault"]


# -- a disk that does not take it ---------------------------------------------------


@pytest.mark.parametrize("keeps", range(8))
@pytest.mark.parametrize("errno", ["ENOSPC", "EROFS"])
def test_a_full_disk_stops_no_change_that_it_did_not_stop_before(
    keeps: int, errno: Literal["ENOSPC", "EROFS"]
) -> None:
    """The history is the last that is kept: what it lacks is said, and told when there is room."""
    host = small()
    host.inject(FullDisk("disk", errno=errno, keeps=keeps))
    driver = Driver(host)
    outcome = driver.apply(wanted(host, PROFILE))
    if HISTORY not in host.files and outcome.result == "changed":
        assert HISTORY in driver.journal.untold
        host.heal("disk")
        driver.journal.tell_history()
    if outcome.result == "changed":
        assert "" == driver.journal.untold
        assert ("change", "converged") == told(host)[0]


def test_what_waits_for_a_disk_is_bounded() -> None:
    host = small()
    host.inject(FullDisk("disk", errno="ENOSPC", keeps=0, folder="/"))
    journal = Journal(host)
    for number in range(300):
        journal.keep_late(Record(state="reverted", reason="Cleared", message=str(number)))
        journal.keep_late(Record(state="converged", reason="Proven", message=str(number)))
    host.heal("disk")
    journal.tell_history()
    assert 100 == len(told(host))


@pytest.mark.parametrize(
    "spoilt", ["\0" * 100, "{", "[]\n" * 3, '{"at": 1}', "[" * 100_000, "\\xff"]
)
def test_what_dsatier_never_wrote_stops_nothing_and_is_told(spoilt: str) -> None:
    host = small()
    host.files[HISTORY] = spoilt
    assert "changed" == apply(host, PROFILE).result
    assert ["gap", "change", "profile"] == [event for event, _ in told(host)]


def messages_of(lines: int) -> str:
    return f"{lines} {'line was' if lines == 1 else 'lines were'} not what dsatier wrote"


# -- its text ----------------------------------------------------------------------


@settings(deadline=None)
@given(ENTRIES, ENTRIES)
def test_what_is_appended_is_read_the_newest_first(first: list[Entry], second: list[Entry]) -> None:
    text = appended(appended("", first), second)
    assert (tuple(reversed([*first, *second])), 0) == entries(text)
    assert text.isascii()


@settings(deadline=None)
@given(ENTRIES, st.text(), st.integers(0, 200))
def test_any_text_is_read_and_written(known: list[Entry], odd: str, cut: int) -> None:
    """A line that was torn costs itself."""
    text = appended("", known)
    for spoilt in (text[:cut], odd, odd + text, text + odd):
        found, lines = entries(spoilt)
        now = Entry(1.0, "boot", "unmanaged", "the host booted")
        gap = [Entry(1.0, "gap", "unmanaged", messages_of(lines))] if lines else []
        assert ((now, *gap, *found), 0) == entries(appended(spoilt, [now]))
    whole = text[: text.rfind("\n", 0, cut) + 1].count("\n")
    assert len(entries(text[:cut])[0]) >= whole


def test_the_oldest_go_first() -> None:
    text = ""
    for number in range(400):
        text = appended(text, [Entry(float(number), "state", "converged", "x" * 500)])
        assert len(text) <= history.BYTES
    found = [entry.at for entry in entries(text)[0]]
    assert found == [float(number) for number in range(399, 399 - len(found), -1)]
    assert len(text) > history.BYTES - 1000


def test_a_long_message_is_cut() -> None:
    before = Record()
    after = replace(before, state="reverted", message="x" * 10_000)
    (entry,) = happened(before, after, "", 1.0)
    assert history.LONGEST + 20 > len(entry.message)


def test_the_longest_entry_is_kept() -> None:
    """Each character may take twelve bytes."""
    longest = Entry(1.0, "state", "converged", "\U0001f600" * history.LONGEST + "…")
    text = appended(appended("", [longest] * 20), [longest])
    assert ((longest,) * 10, 0) == entries(text)


@pytest.mark.parametrize(
    "line",
    [
        *('{"at": true, "event": "a", "state": "b", "message": "c"}', "null", "7", "NaN"),
        *('{"at": NaN, "event": "a", "state": "b", "message": "c"}', '"text"', "1e999"),
        *('{"at": -1, "event": "a", "state": "b", "message": "c"}', "{}"),
        *('{"at": 1e30, "event": "a", "state": "b", "message": "c"}', "[" * 100_000),
        *('{"at": 1, "event": 2, "state": "b", "message": "c"}', "9" * 5000),
    ],
)
def test_what_is_no_entry(line: str) -> None:
    assert ((), 1) == entries(line)


def test_what_a_later_version_adds_to_an_entry_stays() -> None:
    line = '{"at": 1, "event": "new", "state": "s", "message": "m", "more": [1]}'
    assert ((Entry(1.0, "new", "s", "m"),), 0) == entries(line)
    assert appended(line, []).rstrip() == line
