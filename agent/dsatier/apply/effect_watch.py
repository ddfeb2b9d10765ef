# SPDX-License-Identifier: Apache-2.0
"""Watching the effect of tiering from look to look, and keeping what is known of it.

What is known lies in /run: it outlives the daemon, and ends with the boot that it is of.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from dsatier.apply.chronicle import Chronicle
from dsatier.apply.journal import CorruptState, Journal
from dsatier.apply.lifecycle import IN_FORCE
from dsatier.facts.effect import Standing, judged
from dsatier.facts.model import Facts
from dsatier.facts.observe.flow import counts
from dsatier.facts.readings import tiering_on
from dsatier.host.port import Host, Rejected


class EffectWatch:
    """Watches one host. Its user holds the host's lock."""

    def __init__(self, host: Host, journal: Journal, chronicle: Chronicle) -> None:
        self._host = host
        self._journal = journal
        self._chronicle = chronicle
        self.standing: Standing | None = None
        """What is known of the tiering, None where none is armed or nobody has looked."""
        self._asked = False

    def look(self, facts: Facts) -> Standing | None:
        """Return what is known of the tiering now. Raises HostError; what is known stays then."""
        record = self._journal.record()
        before, now = self._before(), None
        if record.state in IN_FORCE and tiering_on(facts):
            found = counts(self._host, facts)
            now = judged(before, found, facts, record.tiers, record.generation)
        with suppress(Rejected):  # it is known here, and a later daemon begins anew
            if now is None and before is not None:
                self._journal.forget_standing()
            elif now is not None and (before is None or now != replace(before, newest=now.newest)):
                self._journal.keep_standing(now)  # not at each look: it wakes a disk
        self.standing = now
        self._chronicle.keep_effect(now)
        return now

    def _before(self) -> Standing | None:
        """Return what was known at the look before, by this daemon or by the one before it."""
        if not self._asked:
            self._asked = True
            with suppress(CorruptState):  # nothing depends on it
                self.standing = self._journal.standing()
        return self.standing
