# SPDX-License-Identifier: Apache-2.0
"""The profile of one host, with all that it was made from, as a frozen value.

The texts are kept when a profile comes into force, so that a daemon that starts when a drop-in
is broken still knows what the host is to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dsatier.host.port import HostError
from dsatier.profile.dropins import Unused
from dsatier.profile.match import unmatched
from dsatier.profile.merge import Origin
from dsatier.profile.model import Match, Profile

if TYPE_CHECKING:
    from dsatier.facts.model import Facts


@dataclass(frozen=True, slots=True)
class Loaded:
    """A host's profile and how it came about."""

    profile: Profile | None
    """None where no file applies. ``match`` is None: it has done its work."""
    data: dict[str, Any]
    """What the files name, merged, as plain data; null where a later file took a value back."""
    origins: dict[str, Origin]
    """By dotted field, where each value of ``data`` was written."""
    files: tuple[str, ...]
    """The files that apply, in order; a later one wins."""
    matches: tuple[tuple[str, Match], ...]
    """Path and ``match`` of every file that has one."""
    skipped: tuple[Unused, ...]
    """Files whose ``match`` is not this host's."""
    masked: tuple[Unused, ...]
    """Files that another one masks or that mask themselves."""
    digest: str
    """SHA-256 of what the profile says, whatever its files, comments and order of keys."""
    sources: tuple[tuple[str, str], ...]
    """Path and text of every file that counts, in order."""
    queues: str | None = None
    """The text of the profile's queue file; None where it names none, or it cannot be read."""
    unread: str = ""
    """Why the queue file could not be read, empty where it could."""

    def is_for(self, facts: Facts) -> bool:
        """Tell whether the same files apply to the host as it is now."""
        return unmatched(self.matches, facts) == self.skipped

    def reads(self, path: str) -> str:
        """Return the text of the queue file, as it was when the profile was read."""
        if self.queues is None:
            raise HostError(path, self.unread or "was not read when the profile was")
        return self.queues
