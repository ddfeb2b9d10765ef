# SPDX-License-Identifier: Apache-2.0
"""The chronicle: keeps the record of a host, and publishes it as the status.

The record is on disk where the disk takes it, and in memory where it does not.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from dsatier.apply import lifecycle
from dsatier.apply.journal import Journal
from dsatier.apply.records import ProfileStatus, Record, is_released, with_conditions
from dsatier.apply.status_document import status
from dsatier.facts.effect import Effect, Standing
from dsatier.facts.observe.kernel import boot_id
from dsatier.host.port import Host, Rejected

LATCHED = {"fault": "EngineFault", "crash": "UncleanEnd"}
"""The reason of a state, by what is latched."""


class Chronicle:
    """Keeps and publishes the record of one host. Its user holds the host's lock."""

    def __init__(self, host: Host, journal: Journal, about: Callable[[], dict[str, Any]]) -> None:
        """``about`` returns what else the status document is to say."""
        self._host = host
        self._journal = journal
        self._about = about

    # -- what a record becomes ---------------------------------------------

    def after(self, record: Record, event: str, reason: str, message: str) -> Record:
        """Return the record after an event of the lifecycle. Raises TransitionRefused."""
        state = lifecycle.after(record.state, event)
        now = self._host.wall()
        since = record.since if state == record.state else now
        return with_conditions(
            replace(record, state=state, reason=reason, message=message, since=since), now
        )

    def on_boot(self, record: Record, boot: str) -> Record:
        """Return what a record means on this boot: the same one, where it is of this boot."""
        if not record.boot_id or record.boot_id == boot:
            return record
        event = "reboot" if record.latch == "none" else "latched"
        words = "the host booted" if event == "reboot" else record.latch_reason
        reason = "Booted" if event == "reboot" else LATCHED[record.latch]
        if is_released(record):
            reason, words = record.reason, record.message  # let go of is let go of
        record = self.after(record, event, reason, words)
        return replace(
            record,
            boot_id=boot,
            engine_live=False,
            log_mark=0,
            copy_fails=0,
            repairs=(),
            effect=None,
        )

    # -- keeping it --------------------------------------------------------

    def keep_record(self, record: Record) -> None:
        """Keep the record, and publish it if that can be. May raise Rejected."""
        self._journal.keep_record(record)
        with suppress(Rejected):
            self.publish(record)

    def keep_somewhere(self, record: Record) -> None:
        """Keep the record in memory where the disk does not take it, and publish it."""
        try:
            self.keep_record(record)
        except Rejected:
            with suppress(Rejected):
                self._journal.keep_late(record)
            with suppress(Rejected):
                self.publish(record)

    def close(self, record: Record) -> str | None:
        """Keep the record of a host that came to rest, and close the journal.

        Returns what went wrong with that, None where nothing did.
        """
        try:
            self.keep_record(record)
            self._journal.close_motion()
        except Rejected as error:
            trouble = f"the journal could not be closed: {error}"
            with suppress(Rejected):
                if self._journal.kept() != record:
                    self._journal.keep_late(record)
                    trouble += "; a later run closes it, a boot before that forgets how this ended"
                self.publish(record)
            return trouble
        return None

    def keep_verdict(
        self, status: ProfileStatus, message: str = "", pending: tuple[str, ...] = ()
    ) -> Record:
        """Keep what became of the profile that the files hold now, and publish the status.

        ``pending`` are files that have changed since they were read.
        """
        before = self._journal.record()
        record = replace(
            before,
            profile_status=status,
            profile_message=message,
            reload_pending=pending,
            look_failed="",
        )
        if record == before:
            self.publish(record)
            return record
        record = with_conditions(record, self._host.wall())
        self.keep_somewhere(record)
        return record

    def keep_effect(self, standing: Standing | None) -> None:
        """Keep what tiering does, where that is another thing than before."""
        record = self._journal.record()
        effect = None
        if standing is not None:
            effect = Effect(standing.verdict, standing.reason, self._host.wall())
            if record.effect is not None and record.effect.reason == effect.reason:
                return
        if effect != record.effect:
            self.keep_somewhere(replace(record, effect=effect))

    def keep_failure(self, why: str) -> Record:
        """Keep that the host could not be looked at, and publish that."""
        record = self._journal.record()
        if why == record.look_failed:
            with suppress(Rejected):
                self.publish(record)
            return record
        now = self._host.wall()
        since = record.look_failed_since if record.look_failed else now
        failed = replace(record, look_failed=why, look_failed_since=since)
        failed = with_conditions(failed, now)
        self.keep_somewhere(failed)
        return failed

    # -- publishing it -----------------------------------------------------

    def publish(self, record: Record) -> None:
        """Write the status of ``record``. May raise Rejected."""
        now = self._host.wall()
        document = status(with_conditions(record, now), self._host.hostname(), now)
        self._journal.publish(document | self._about())

    def publish_initial(self) -> None:
        """Publish what is known before the first look. May raise Rejected.

        Of another boot that is only that the host booted, or why it is latched; of a run that
        ended in motion, how far it came.
        """
        record = self._journal.record()
        moving = record.state in lifecycle.IN_MOTION
        self.publish(record if moving else self.on_boot(record, boot_id(self._host)))
