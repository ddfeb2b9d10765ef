# SPDX-License-Identifier: Apache-2.0
"""Watching the effect of tiering from look to look, and keeping what is known of it.

What is known lies in /run: it outlives the daemon, and ends with the boot that it is of.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from dsatier.apply.chronicle import Chronicle
from dsatier.apply.journal import CorruptState, Journal
from dsatier.facts.effect import Standing, judged
from dsatier.facts.model import Facts
from dsatier.facts.observe.flow import counts
from dsatier.facts.readings import tiering_on
from dsatier.host.port import Host, Rejected

ARMED = frozenset({"converged", "drifted"})
"""States of a host on which tiering can be armed by dsatier."""


class EffectWatch:
    """Watches one host. Its user holds the host's lock."""

    def __init__(self, host: Host, journal: Journal, chronicle: Chronicle) -> None:
        self._host = host
        self._journal = journal
        self._chronicle = chronicle
        self._standing: Standing | None = None
        self._asked = False

    def look(self, facts: Facts) -> Standing | None:
        """Return what is known of the tiering now, None where none is armed. Raises HostError."""
        record = self._journal.record()
        before = self._before()
        self._standing = None
        if record.state in ARMED and tiering_on(facts):
            now = counts(self._host, facts)
            self._standing = judged(before, now, facts, record.tiers, record.generation)
        with suppress(Rejected):  # it is known here, and a later daemon begins anew
            if self._standing is not None:
                if before is None or self._standing != replace(
                    before, newest=self._standing.newest
                ):
                    self._journal.keep_standing(self._standing)  # not at each look: it wakes a disk
            elif before is not None:
                self._journal.forget_standing()
        self._chronicle.keep_effect(self._standing)
        return self._standing

    def _before(self) -> Standing | None:
        """Return what was known at the look before, by this daemon or by the one before it."""
        if not self._asked:
            self._asked = True
            with suppress(CorruptState):  # nothing depends on it
                self._standing = self._journal.standing()
        return self._standing
