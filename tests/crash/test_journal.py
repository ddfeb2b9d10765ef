# SPDX-License-Identifier: Apache-2.0
"""The open journal: it names the step that was begun last, or tells at least that one was."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import MISSING, fields, replace

import pytest

from dsatier.apply.counters import NOTHING, Tally
from dsatier.apply.driver import Driver
from dsatier.apply.journal import CorruptState, Journal
from dsatier.apply.records import Motion, Record
from dsatier.base.paths import EFFECT, MOTION, ORIGINALS, RECORD, STATUS, STEP, TALLY
from dsatier.facts.effect import Counts, Standing
from dsatier.host.port import Rejected
from dsatier.plan.originals import Originals
from dsatier.sim.faults import Crash, FullDisk, SimCrash
from dsatier.sim.host import SimHost
from tests.support.scene import apply, at_rest, crashed, in_motion, operations, record, small

FIRST = Motion(1, "boot", "converging", 17.0, "me", 1, 3, "the first")
PROFILE = "tpp-dsa"
COUNTED = Counts("boot", 1.0, {"pgdemote_kswapd": 7}, {1: {}}, (), ())
STANDING = Standing((1, 2, 1), COUNTED, COUNTED, COUNTED, "armed", "NoPressure")


def at(step: int, what: str = "another") -> Motion:
    return replace(FIRST, step=step, what=what)


def opened(*motions: Motion) -> SimHost:
    """Return a host whose journal was opened, with a step noted after the other."""
    host = small()
    journal = Journal(host)
    for motion in motions:
        journal.keep_motion(motion)
    return host


def seen(host: SimHost) -> Motion | None:
    """Return what the next run reads."""
    return Journal(host).motion()


def test_each_step_is_read_by_the_next_run() -> None:
    for count in (1, 2, 3):
        steps = [at(number) for number in range(1, count + 1)]
        host = opened(*steps)
        assert steps[-1] == seen(host)
        assert 1 == json.loads(host.files[MOTION])["step"]


def test_a_step_of_another_motion_means_nothing() -> None:
    """Nor one that is noted while none is open."""
    host = opened(FIRST, at(2))
    Journal(host).close_motion()
    assert seen(host) is None
    for other in (
        *(replace(FIRST, began=18.0), replace(FIRST, boot_id="next"), replace(FIRST, steps=4)),
        *(replace(FIRST, state="guarding"), replace(FIRST, holder="you")),
    ):
        host.files[MOTION] = json.dumps(plain(other))
        assert other == seen(host)


def plain(motion: Motion) -> dict[str, object]:
    return {name: getattr(motion, name) for name in Motion.__dataclass_fields__}


def test_another_motion_that_looks_the_same_begins_at_its_first_step() -> None:
    """A crash guard that died in its second step is begun again: state, time and count are same."""
    host = opened(FIRST, at(2))
    Journal(host).keep_motion(FIRST)
    assert FIRST == seen(host)
    again = opened(FIRST, at(2))
    journal = Journal(again)
    journal.keep_motion(FIRST)
    journal.keep_motion(at(3))
    assert at(3) == seen(again)


def test_a_motion_on_the_way_back_is_another_one() -> None:
    back = replace(FIRST, state="reverting", began=18.0)
    host = opened(FIRST, at(2), back)
    assert back == seen(host)
    assert back == Motion(**json.loads(host.files[MOTION]))


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"step": 2}', "null", None])
def test_a_step_that_cannot_be_read_leaves_the_motion_open(text: str | None) -> None:
    """So does one of another version, and a journal from before there were notes."""
    host = opened(FIRST, at(2))
    if text is None:
        del host.files[STEP]
    else:
        host.files[STEP] = text
    assert FIRST == seen(host)


def test_a_step_of_another_kind_means_nothing() -> None:
    host = opened(FIRST, at(2))
    host.files[STEP] = json.dumps(json.loads(host.files[STEP]) | {"step": "two"})
    assert seen(host) == FIRST


def test_a_journal_of_a_version_without_notes_is_guarded() -> None:
    """What it left has the step in the file that opens the journal."""
    host = crashed(small(), lambda h: apply(h, PROFILE), 28, performed=False)
    assert in_motion(host)
    motion = Journal(host).motion()
    assert motion is not None
    assert motion.step > 1
    host.files[MOTION] = host.files.pop(STEP)
    woken = Driver(host).recover()
    assert ("quarantined", True) == (woken.state, f"step {motion.step} of" in woken.latch_reason)
    at_rest(host)


def test_words_too_long_for_a_note_are_kept_whole() -> None:
    long = "x" * 5000
    host = opened(at(1, long), at(2, long))
    assert at(2, long) == seen(host)
    assert STEP not in host.files
    host = opened(FIRST, at(2, long), at(3))
    assert at(3) == seen(host)


def test_the_room_for_all_steps_is_taken_before_the_first() -> None:
    host = small()
    host.inject(FullDisk("disk", errno="ENOSPC", keeps=0))
    with pytest.raises(Rejected):
        Journal(host).keep_motion(FIRST)
    assert {STEP, MOTION} & set(host.files) == set()
    host.heal("disk")
    journal = Journal(host)
    journal.keep_motion(FIRST)
    host.inject(FullDisk("disk", errno="ENOSPC", keeps=0))
    journal.keep_motion(at(2))
    assert at(2) == seen(host)
    host.heal("disk")
    host.inject(FullDisk("disk", errno="EROFS", keeps=0))
    with pytest.raises(Rejected):
        journal.keep_motion(at(3))
    assert at(2) == seen(host)


def test_a_death_at_each_operation_names_the_step_that_was_begun() -> None:
    """The step in the latch is the one that the status told of last, or the one behind it."""
    start = small()
    named = set()
    for after in range(operations(start, lambda h: apply(h, PROFILE))):
        host = crashed(start, lambda h: apply(h, PROFILE), after, performed=True)
        if not in_motion(host):
            continue
        motion = Journal(host).motion()
        assert motion is not None
        told = record_of_status(host)
        assert motion.step - 1 <= told <= motion.step
        named.add(motion.step)
        assert f"step {motion.step} of {motion.steps} ({motion.what})" in woke(host)
    assert named == set(range(1, max(named) + 1))


def record_of_status(host: SimHost) -> int:
    """Return the step that the status tells of."""
    words = json.loads(host.files.get(STATUS, '{"message": ""}'))["message"].split()
    return int(words[1]) if words[:1] == ["step"] else 0


def woke(host: SimHost) -> str:
    Driver(host).recover()
    return record(host).latch_reason


@pytest.mark.parametrize("path", [RECORD, MOTION, ORIGINALS, TALLY, EFFECT])
def test_what_a_later_version_has_added_is_passed_over(path: str) -> None:
    """A downgrade goes on; what is not an addition is no file of dsatier's."""
    host = small()
    host.inject(Crash("crash", after=20))
    with suppress(SimCrash):
        apply(host, "dsa")
    host.heal("crash")
    Journal(host).keep_tally(NOTHING)
    Journal(host).keep_standing(STANDING)
    expected = loaded(host, path)
    whole = json.loads(host.files[path])
    if path == RECORD:
        first, *others = whole["conditions"]
        whole["conditions"] = [first | {"severity": "low"}, *others]
    if path == ORIGINALS:  # of several kinds
        whole["written"] = [one | {"of_tomorrow": 1} for one in whole["written"]]
    host.files[path] = json.dumps(whole | {"of_tomorrow": {"a": [1]}})
    assert loaded(host, path) == expected
    spoilt = {"verdict": 2} if path == EFFECT else {"schema_version": "2"}
    host.files[path] = json.dumps(whole | spoilt)
    with pytest.raises(CorruptState):
        loaded(host, path)


def test_originals_of_a_later_version_outlast_what_an_earlier_one_writes() -> None:
    """On the boot that they are of: after another one the host has nothing of dsatier's."""
    host = small()
    journal = Journal(host)
    apply(host, "dsa")
    found = journal.originals()
    assert found is not None
    host.files[ORIGINALS] = json.dumps(json.loads(host.files[ORIGINALS]) | {"of_tomorrow": [1]})
    journal.keep_originals(replace(found, taken_at=2.0))
    assert [1] == json.loads(host.files[ORIGINALS])["of_tomorrow"]
    assert replace(found, taken_at=2.0) == Journal(host).originals()
    journal.keep_originals(replace(found, boot_id="another"))
    assert "of_tomorrow" not in json.loads(host.files[ORIGINALS])


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        (Record, set()),
        (Tally, {"schema_version", "durations", "reloads"}),
        (
            Motion,
            {"schema_version", "boot_id", "state", "began", "holder", "step", "steps", "what"},
        ),
        (
            Originals,
            {"schema_version", "boot_id", "taken_at", "knobs", "online_cpus", "swaps"}
            | {"devices", "idle_devices"},
        ),
        (Standing, {"key", "armed", "mark", "newest", "verdict", "reason"}),
    ],
    ids=lambda kind: kind.__name__ if isinstance(kind, type) else "",
)
def test_what_an_earlier_version_did_not_write_has_a_default(kind: type, first: set[str]) -> None:
    """An upgrade goes on: only what the first version wrote must be there."""
    required = {
        one.name
        for one in fields(kind)
        if one.default is MISSING and one.default_factory is MISSING
    }
    assert first == required


def test_a_state_of_the_lifecycle_that_is_not_known_is_told() -> None:
    host = small()
    Journal(host).keep_record(Record(state="converged"))
    host.files[RECORD] = host.files[RECORD].replace('"converged"', '"coerged"')
    with pytest.raises(CorruptState, match=r"state: expected .*unmanaged.*, found 'coerged'"):
        Journal(host).kept()


def loaded(host: SimHost, path: str) -> object:
    """Return what a journal reads from one of its files."""
    journal = Journal(host)
    read: dict[str, Callable[[], object]] = {
        RECORD: journal.kept,
        MOTION: journal.motion,
        ORIGINALS: journal.originals,
        TALLY: journal.tally,
        EFFECT: journal.standing,
    }
    return read[path]()
