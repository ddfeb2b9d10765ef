# SPDX-License-Identifier: Apache-2.0
"""An intent: what the drop-ins ask of this host, with the texts that it was read from.

The texts are kept when a profile comes into force, so that a daemon that starts beside a
broken drop-in still knows what the host is to be.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsatier.base.problem import Invalid
from dsatier.host.port import HostError
from dsatier.profile.match import unmatched
from dsatier.profile.model import DsaEngine, Match, Profile, QueueFile

if TYPE_CHECKING:
    from dsatier.facts.model import Facts
    from dsatier.host.port import Host
    from dsatier.profile.dropins import Unused


@dataclass(frozen=True, slots=True)
class Intent:
    """A host's profile, and all the text that it came from."""

    profile: Profile | None
    """None where no drop-in applies to this host."""
    digest: str
    files: tuple[str, ...]
    matches: tuple[tuple[str, Match], ...]
    """Path and ``match`` of every drop-in that has one."""
    skipped: tuple[Unused, ...]
    sources: tuple[tuple[str, str], ...]
    """Path and text of every drop-in, in order."""
    queues: str | None
    """The text of the profile's queue file; None where it names none or it cannot be read."""
    unread: str = ""
    """Why the queue file could not be read, empty where it could."""

    def is_for(self, facts: Facts) -> bool:
        """Tell whether the same drop-ins apply to the host as it is now."""
        return unmatched(self.matches, facts) == self.skipped

    def reads(self, path: str) -> str:
        """Return the text of the queue file, as it was when the profile was read."""
        if self.queues is None:
            raise HostError(path, self.unread or "was not read when the profile was")
        return self.queues


@dataclass(frozen=True, slots=True)
class AtStart:
    """What there is when a daemon starts: the host, what is in force and what is asked."""

    facts: Facts
    was: Intent | Exception | None
    """What was in force, an error where that cannot be had; None where nothing was kept."""
    now: Intent | Invalid
    """What the drop-ins ask for."""


def read(host: Host, facts: Facts) -> Intent:
    """Read the drop-ins of a host. Raises Invalid."""
    return _intent(texts(host), facts, host)


def is_current(intent: Intent, host: Host, facts: Facts) -> bool:
    """Tell whether the files, unparsed, would make the same intent again."""
    if not intent.is_for(facts):
        return False
    try:
        now = texts(host)
    except Invalid:
        return False
    queues, unread = _queue_file(intent.profile, host)
    return (now, queues, unread) == (intent.sources, intent.queues, intent.unread)


def reread(kept: str, facts: Facts) -> Intent:
    """Return the intent whose ``text`` was kept. Raises Invalid, ValueError."""
    whole = json.loads(kept)
    sources = tuple((str(path), str(text)) for path, text in whole["sources"])
    queues = whole["queues"]
    return _intent(sources, facts, None, None if queues is None else str(queues))


def at_start(host: Host) -> AtStart:
    """Return what there is when a daemon starts. Raises HostError.

    The same text is read once.
    """
    from dsatier.apply.journal import Journal
    from dsatier.facts.observe.observer import observe

    kept, facts = Journal(host).accepted(), observe(host)
    now: Intent | Invalid
    try:
        now = read(host, facts)
    except Invalid as invalid:
        now = invalid
    if kept is None or (isinstance(now, Intent) and text(now) == kept):
        return AtStart(facts, now if kept else None, now)
    try:
        return AtStart(facts, reread(kept, facts), now)
    except (Invalid, HostError, ValueError, LookupError, TypeError) as error:
        return AtStart(facts, error, now)


def text(intent: Intent) -> str:
    """Return what ``reread`` takes."""
    whole = {"schema_version": 1, "sources": intent.sources, "queues": intent.queues}
    return json.dumps(whole, indent=1) + "\n"


def _intent(
    sources: tuple[tuple[str, str], ...], facts: Facts, host: Host | None, queues: str | None = None
) -> Intent:
    from dsatier.profile.load import from_texts

    loaded = from_texts(sources, facts)
    unread = ""
    if host is not None:
        queues, unread = _queue_file(loaded.profile, host)
    return Intent(
        loaded.profile,
        loaded.digest,
        loaded.files,
        loaded.matches,
        loaded.skipped,
        sources,
        queues,
        unread,
    )


def texts(host: Host) -> tuple[tuple[str, str], ...]:
    """Return path and text of every drop-in, in order. Raises Invalid."""
    from dsatier.profile.dropins import find

    return tuple((source.path, source.text) for source in find(host).sources)


def queue_file_of(intent: Intent, host: Host) -> str | None:
    """Return the path of the queue file of an intent, None where it is as it was read."""
    queues, _ = _queue_file(intent.profile, host)
    if queues == intent.queues:
        return None
    engine = intent.profile.engine if intent.profile else None
    named = engine.work_queues if isinstance(engine, DsaEngine) else None
    return named.file if isinstance(named, QueueFile) else None


def _queue_file(profile: Profile | None, host: Host) -> tuple[str | None, str]:
    """Return the text of the queue file that a profile names, or why it cannot be read."""
    from dsatier.profile.dropins import read_named

    engine = profile.engine if profile else None
    if not isinstance(engine, DsaEngine) or not isinstance(engine.work_queues, QueueFile):
        return None, ""
    try:
        return read_named(host, engine.work_queues.file), ""
    except HostError as error:
        return None, error.message  # told when the target is made
