# SPDX-License-Identifier: Apache-2.0
"""What is wanted of a host: its drop-ins, read, kept in a file, and compared with the files now."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dsatier.base.problem import Invalid
from dsatier.host.port import HostError
from dsatier.profile.loaded import Loaded
from dsatier.profile.model import DsaEngine, Profile, QueueFile

if TYPE_CHECKING:
    from dsatier.facts.model import Facts
    from dsatier.host.port import Host


@dataclass(frozen=True, slots=True)
class AtStart:
    """What there is when a daemon starts: the host, what is in force and what is asked."""

    facts: Facts
    was: Loaded | Exception | None
    """What was in force, an error where that cannot be had; None where nothing was kept."""
    now: Loaded | Invalid
    """What the drop-ins ask for."""


def read(host: Host, facts: Facts) -> Loaded:
    """Read the drop-ins of a host. Raises Invalid."""
    from dsatier.profile.load import from_texts

    loaded = from_texts(texts(host), facts)
    queues, unread = _queue_file(loaded.profile, host)
    return replace(loaded, queues=queues, unread=unread)


def is_current(loaded: Loaded, host: Host, facts: Facts) -> bool:
    """Tell whether the files, unparsed, would make the same profile again."""
    if not loaded.is_for(facts):
        return False
    try:
        now = texts(host)
    except Invalid:
        return False
    queues, unread = _queue_file(loaded.profile, host)
    return (now, queues, unread) == (loaded.sources, loaded.queues, loaded.unread)


def reread(kept: str, facts: Facts) -> Loaded:
    """Return the profile whose ``text`` was kept. Raises Invalid, ValueError."""
    from dsatier.profile.load import from_texts

    whole = json.loads(kept)
    sources = tuple((str(path), str(text)) for path, text in whole["sources"])
    queues = whole["queues"]
    return replace(from_texts(sources, facts), queues=None if queues is None else str(queues))


def at_start(host: Host) -> AtStart:
    """Return what there is when a daemon starts. Raises HostError.

    The same text is read once.
    """
    from dsatier.apply.journal import Journal
    from dsatier.facts.observe.observer import observe

    kept, facts = Journal(host).accepted(), observe(host)
    now: Loaded | Invalid
    try:
        now = read(host, facts)
    except Invalid as invalid:
        now = invalid
    if kept is None or (isinstance(now, Loaded) and text(now) == kept):
        return AtStart(facts, now if kept else None, now)
    try:
        return AtStart(facts, reread(kept, facts), now)
    except (Invalid, HostError, ValueError, LookupError, TypeError) as error:
        return AtStart(facts, error, now)


def text(loaded: Loaded) -> str:
    """Return what ``reread`` takes."""
    whole = {"schema_version": 1, "sources": loaded.sources, "queues": loaded.queues}
    return json.dumps(whole, indent=1) + "\n"


def texts(host: Host) -> tuple[tuple[str, str], ...]:
    """Return path and text of every drop-in, in order. Raises Invalid."""
    from dsatier.profile.dropins import find

    return tuple((source.path, source.text) for source in find(host).sources)


def queue_file_of(loaded: Loaded, host: Host) -> str | None:
    """Return the path of the queue file of a profile, None where it is as it was read."""
    queues, _ = _queue_file(loaded.profile, host)
    if queues == loaded.queues:
        return None
    engine = loaded.profile.engine if loaded.profile else None
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
