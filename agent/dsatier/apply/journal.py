# SPDX-License-Identifier: Apache-2.0
"""The journal: dsatier's own files on a host.

``motion.json`` is there while the host is in motion, and ``step`` notes how far. ``originals.json``
has what was found before the first write, ``accepted.json`` the profile that came into force last.
``tally.json`` has the counts of the metrics, ``effect.json`` what tiering has moved. ``history`` is
what happened, ``record.json`` the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any, TypeVar, cast

from dsatier.apply import history, lifecycle
from dsatier.apply.counters import Tally
from dsatier.apply.records import Motion, Record
from dsatier.base.paths import (
    ACCEPTED,
    EFFECT,
    HISTORY,
    LATE,
    METRICS,
    MOTION,
    ORIGINALS,
    RECORD,
    STATUS,
    STEP,
    TALLY,
)
from dsatier.base.problem import Invalid
from dsatier.facts.effect import Standing
from dsatier.facts.observe.read import optional
from dsatier.host.port import Host, Rejected
from dsatier.plan.originals import Originals

T = TypeVar("T")


class CorruptState(Exception):
    """One of dsatier's own files says what dsatier never wrote."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(
            f"{path}: expected what dsatier wrote, found something else ({message}); look at the "
            f"host, then remove the file: the host's originals may be lost with it"
        )


UNTOLD = 100
"""Entries of the history that are kept in memory while no disk takes them, the newest."""

Known = dict[str, tuple[str, object]]
"""Text and value of files, by path."""


Validate = Callable[[type, str], Any]
"""Returns a text of JSON as a value of a type. Raises Invalid."""


def validated(kind: type, text: str) -> Any:
    """Return a text that dsatier keeps for itself as a value of a type. Raises Invalid."""
    from dsatier.profile import schema

    return schema.validate_own(kind, text)


class Journal:
    """Reads and writes dsatier's own files. Every write may raise Rejected.

    ``validate`` is asked only for texts that are not those of the time before.
    """

    def __init__(self, host: Host, validate: Validate = validated) -> None:
        self._host = host
        self._validate = validate
        self._known: Known = {}
        self._opened: Motion | None = None
        """The motion that ``MOTION`` tells of, as far as this journal has opened it."""
        self._rested: Record | None = None
        """The record from before the motion that is going on."""
        self._moved = ""
        """The state in motion that was kept last, since the host was at rest."""
        self._untold: tuple[history.Entry, ...] = ()
        """What happened and is not in the history yet."""
        self.untold = ""
        """Why what happened last is not in the history, empty where it is."""

    def record(self) -> Record:
        """Return the record, also one that the disk would not take. Raises CorruptState."""
        return self._late() or self.kept()

    def kept(self) -> Record:
        """Return the record on disk, a fresh one if there is none. Raises CorruptState."""
        return self._load(RECORD, Record) or Record()

    def motion(self) -> Motion | None:
        """Return the open journal of a run that did not end, if any, at its step.

        Raises CorruptState.
        """
        motion = self._load(MOTION, Motion)
        return motion and (self._step(motion) or motion)

    def originals(self) -> Originals | None:
        """Return what was found before the first write, if anything was written.

        Raises CorruptState.
        """
        return self._load(ORIGINALS, Originals)

    def tally(self) -> Tally | None:
        """Return what was counted so far. Raises CorruptState."""
        return self._load(TALLY, Tally)

    def standing(self) -> Standing | None:
        """Return what is known of the tiering that is armed. Raises CorruptState."""
        return self._load(EFFECT, Standing)

    def accepted(self) -> str | None:
        """Return the text of the intent that came into force last, if one did."""
        return optional(self._host, ACCEPTED)

    def read_all(self) -> Known:
        """Return text and value of each file that is there and right, for ``remember``."""
        for load in (self.kept, self.motion, self.originals, self.tally):
            with suppress(CorruptState):
                load()
        return self._known

    def remember(self, known: Known) -> None:
        """Take what another journal has read: the same texts need no validation again."""
        self._known.update(known)

    def keep_record(self, record: Record) -> None:
        """Keep the record, and in the history what it tells of."""
        before = self._before()
        self._keep(RECORD, record)
        self._chronicle(before, record)

    def keep_late(self, record: Record) -> None:
        """Keep in memory the record that the disk would not take, in the place of that on it."""
        before = self._before()
        text = f"{self._text(RECORD).rstrip()}\n{json.dumps(asdict(record))}\n"
        self._host.keep(LATE, text)
        self._known[LATE] = text, record
        self._chronicle(before, record)

    def forget_late(self) -> None:
        """Forget it: the disk has the record, or a newer one."""
        self._host.drop(LATE)

    def keep_originals(self, originals: Originals) -> None:
        """Keep what was found, durably, before the first write.

        What a later version has found on this boot stays with it, for when that version is back.
        """
        before = _plain(self._text(ORIGINALS))
        own = asdict(originals)
        more = {}
        if isinstance(before, dict) and before.get("boot_id") == originals.boot_id:
            more = {key: value for key, value in before.items() if key not in own}
        self._keep(ORIGINALS, originals, more)

    def keep_motion(self, motion: Motion) -> None:
        """Open the journal, or note the next step in it.

        Opening takes all the room that noting needs.
        """
        text = json.dumps(asdict(motion))
        if self._opened is not None and _same(asdict(motion), self._opened):
            with suppress(ValueError):  # words too long for a note
                self._host.note(STEP, text)
                return
        else:
            noted = self._noted()
            # no room is taken yet, or what a run left that died would be taken for this one's
            if (noted is None and motion.steps > 1) or (noted and _same(_plain(noted), motion)):
                with suppress(ValueError):
                    self._host.note(STEP, text)
        self._opened = None
        self._keep(MOTION, motion)
        self._opened = motion

    def keep_tally(self, tally: Tally) -> None:
        """Keep what was counted."""
        self._keep(TALLY, tally)

    def keep_standing(self, standing: Standing) -> None:
        """Keep what is known of the tiering that is armed."""
        self._keep(EFFECT, standing)

    def forget_standing(self) -> None:
        """Forget it: nothing is armed."""
        self._host.drop(EFFECT)

    def keep_accepted(self, text: str) -> None:
        """Keep the intent that came into force."""
        self._host.keep(ACCEPTED, text)

    def forget_accepted(self) -> None:
        """Forget the intent that came into force: the files ask for nothing any more."""
        self._host.drop(ACCEPTED)

    def publish_metrics(self, text: str) -> None:
        """Write the metrics that everybody may read."""
        self._host.keep(METRICS, text, 0o644)

    def close_motion(self) -> None:
        """Close the journal: the host is at rest."""
        self._opened = None
        self._host.drop(MOTION)

    def forget_originals(self) -> None:
        """Forget what was found: the host is as it was."""
        self._host.drop(ORIGINALS)

    def publish(self, status: dict[str, Any]) -> None:
        """Write the status file that everybody may read."""
        self._host.keep(STATUS, json.dumps(status, indent=2) + "\n", 0o644)

    def _before(self) -> Record | None:
        with suppress(CorruptState, Rejected):
            return self.record()
        return None  # then nobody can tell what is new

    def _chronicle(self, before: Record | None, record: Record) -> None:
        """Keep in the history what happened, once the host is at rest. Nothing waits for it.

        What cannot be kept now is kept with what happens next, as long as this journal lives.
        """
        if record.state in lifecycle.IN_MOTION:
            self._rested = self._rested or before
            self._moved = record.state
            return
        before, moved = self._rested or before, self._moved
        self._rested, self._moved = None, ""
        if before is not None:
            fresh = history.happened(before, record, moved, self._host.wall())
            self._untold = (*self._untold, *fresh)[-UNTOLD:]
        self.tell_history()

    def tell_history(self) -> None:
        """Append to the history what is not in it yet; ``untold`` says why that failed."""
        if not self._untold:
            return
        try:
            self._host.keep(HISTORY, history.appended(self._text(HISTORY), self._untold))
        except Rejected as error:
            self.untold = str(error)
        else:
            self._untold, self.untold = (), ""

    def _step(self, motion: Motion) -> Motion | None:
        """Return the step of a motion that was noted last, None if it is unknown."""
        text = self._noted()
        if text is None or not _same(_plain(text), motion):
            return None
        if self._known.get(STEP, ("",))[0] != text:
            try:
                self._known[STEP] = text, self._validate(Motion, text)
            except Invalid:
                return None  # another version's, perhaps
        return cast(Motion, self._known[STEP][1])

    def _noted(self) -> str | None:
        try:
            return self._host.noted(STEP)
        except Rejected:
            return None  # what was opened is known, and that is what counts

    def _late(self) -> Record | None:
        """Return the record that the disk would not take, None where it has taken one since."""
        text = self._text(LATE)
        before, _, after = text.partition("\n")
        if not text or before != self._text(RECORD).rstrip():
            return None
        if self._known.get(LATE, ("",))[0] != text:
            try:
                self._known[LATE] = text, self._validate(Record, after)
            except Invalid:
                return None  # another version's, perhaps
        return cast(Record, self._known[LATE][1])

    def _text(self, path: str) -> str:
        return optional(self._host, path) or ""

    def _load(self, path: str, kind: type[T]) -> T | None:
        text = optional(self._host, path)
        if text is None:
            return None
        known = self._known.get(path)
        if known is None or known[0] != text:
            try:
                known = text, self._validate(kind, text)
            except Invalid as invalid:
                raise CorruptState(path, str(invalid)) from invalid
            self._known[path] = known
        return cast(T, known[1])

    def _keep(
        self,
        path: str,
        value: Record | Motion | Originals | Tally | Standing,
        more: dict[str, Any] | None = None,
    ) -> None:
        text = json.dumps(asdict(value) | (more or {})) + "\n"
        self._host.keep(path, text)
        self._known[path] = text, value


def _same(noted: object, motion: Motion) -> bool:
    """Tell whether what was noted is of a motion: it differs by its step at most."""
    whole = asdict(motion)
    return isinstance(noted, dict) and noted | {s: whole[s] for s in ("step", "what")} == whole


def _plain(text: str) -> object:
    """Return the plain data of a text of JSON, None where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None
