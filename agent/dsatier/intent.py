# SPDX-License-Identifier: Apache-2.0
"""An intent: what the drop-ins ask of this host, with the texts that it was read from.

The texts are kept when a profile comes into force, so that a daemon that starts beside a
broken drop-in still knows what the host is to be.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dsatier.frozen import dataclass
from dsatier.host import HostError
from dsatier.problem import Invalid
from dsatier.profile import DsaEngine, Profile, QueueFile

if TYPE_CHECKING:
    from dsatier.dropins import Unused
    from dsatier.facts import Facts
    from dsatier.host import Host


@dataclass(frozen=True, slots=True)
class Intent:
    """A host's profile, and all the text that it came from."""

    profile: Profile | None
    """None where no drop-in applies to this host."""
    digest: str
    files: tuple[str, ...]
    skipped: tuple[Unused, ...]
    sources: tuple[tuple[str, str], ...]
    """Path and text of every drop-in, in order."""
    queues: str | None
    """The text of the profile's queue file; None where it names none or it cannot be read."""

    @property
    def slow_node(self) -> int:
        """Number of the slow node."""
        tiers = self.profile.tiers if self.profile else None
        return 1 if tiers is None or tiers.slow_node is None else tiers.slow_node

    def reads(self, path: str) -> str:
        """Return the text of the queue file, as it was when the profile was read."""
        if self.queues is None:
            raise HostError(path, "could not be read when the profile was")
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
    from dsatier.dropins import find

    found = find(host)
    sources = tuple((source.path, source.text) for source in found.sources)
    return _intent(sources, facts, host)


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
    from dsatier.journal import Journal
    from dsatier.observe import observe

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
    from dsatier.loader import from_texts

    loaded = from_texts(sources, facts)
    engine = loaded.profile.engine if loaded.profile else None
    names_file = isinstance(engine, DsaEngine) and isinstance(engine.work_queues, QueueFile)
    if host is not None and names_file:
        try:
            queues = host.read(engine.work_queues.file)  # type: ignore[union-attr]
        except HostError:
            queues = None  # told when the target is made
    return Intent(loaded.profile, loaded.digest, loaded.files, loaded.skipped, sources, queues)
