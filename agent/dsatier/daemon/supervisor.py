# SPDX-License-Identifier: Apache-2.0
"""The supervisor: what the files ask of a host, what is in force there, and the way between.

The two differ while a new profile is invalid, out of reach or failed: then the old one is
still looked after.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dsatier.apply import wanted as files
from dsatier.apply.driver import Driver
from dsatier.apply.effect_watch import EffectWatch
from dsatier.apply.execute import Progress
from dsatier.apply.journal import Journal
from dsatier.apply.outcome import Outcome
from dsatier.apply.records import ProfileStatus, Record, is_released
from dsatier.apply.target import Target, target
from dsatier.apply.wanted import AtStart
from dsatier.base.problem import Invalid
from dsatier.daemon import schedule
from dsatier.facts.effect import REASONS, Standing
from dsatier.facts.model import Facts
from dsatier.host import children
from dsatier.host.port import Host, Rejected
from dsatier.profile.loaded import Loaded

if TYPE_CHECKING:
    from dsatier.daemon.log import Logger


class Supervisor:
    """Keeps one host as its profile says, one look at a time. Its user holds the host's lock."""

    def __init__(
        self,
        host: Host,
        journal: Journal,
        log: Logger,
        progress: Callable[[Progress], None],
        about: Callable[[], dict[str, Any]],
    ) -> None:
        """``about`` returns what else the status document is to say."""
        self._host = host
        self._journal = journal
        self._log = log
        self._driver = Driver(
            host, holder="dsatier daemon", progress=progress, about=about, journal=journal
        )
        self._effects = EffectWatch(host, journal, self._driver.chronicle)
        self._newest: Loaded | None = None
        """What the files asked for when they were last read and valid."""
        self.begun: children.Begun[Loaded] | None = None
        """A child that reads the files ahead of a reload."""
        self._ahead: Loaded | None = None
        """What the files ask for, read ahead of a reload that may come: nothing acts on it."""
        self._texts: dict[str, str] = {}
        """Path and text of the files that were read last."""
        self._force: Loaded | None = None
        """What is in force: kept when the files ask for something that is wrong."""
        self._failures = 0
        record = journal.record()
        self.verdict: tuple[ProfileStatus, str] = record.profile_status, record.profile_message
        """What became of the profile: known here also while the disk does not take it."""
        self.retry_at: float | None = None
        """Monotonic seconds before which a change that failed is not tried again."""
        self.facts: Facts | None = None
        """The host at the beginning of the last look."""
        self.doing = "starting"

    @property
    def managed(self) -> bool:
        """Tell whether a profile is in force."""
        return self._force is not None

    @property
    def files(self) -> tuple[str, ...]:
        """The files of the profile that was read last."""
        return self._newest.files if self._newest else ()

    @property
    def interval(self) -> float:
        """The seconds between two looks while all is calm."""
        profile = self._force.profile if self._force else None
        return profile.drift.interval if profile and profile.drift else schedule.LATEST

    def interrupt(self) -> None:
        """Have a change that is under way undone. Safe to call from a signal handler."""
        self._driver.interrupt()

    def tell(self) -> Record:
        """Publish the status as it is now. May raise Rejected."""
        return self._driver.chronicle.keep_verdict(*self.verdict, self.pending())

    def pending(self) -> tuple[str, ...]:
        """Return the files of the profile that are not as they were read."""
        try:
            now = dict(files.texts(self._host))
        except Invalid as invalid:
            return (str(invalid).partition("\n")[0],)
        read = self._texts
        found = {path for path in now.keys() | read.keys() if now.get(path) != read.get(path)}
        newest = self._newest
        if newest is not None and (path := files.queue_file_of(newest, self._host)):
            found.add(path)
        return tuple(sorted(found))

    @property
    def standing(self) -> Standing | None:
        """What is known of the tiering, None if none is armed."""
        return self._effects.standing

    def watch_effect(self, facts: Facts) -> None:
        """Look at what tiering does, and log changes. May raise HostError."""
        before = self.standing
        now = self._effects.look(facts)
        if now is None or (before is not None and before.reason == now.reason):
            return
        say = self._log.warning if now.verdict == "not working" else self._log.notice
        say("tiering", what=now.verdict, reason=now.reason, message=REASONS[now.reason])

    def tell_failure(self, why: str) -> Record:
        """Publish that the host cannot be looked at."""
        return self._driver.chronicle.keep_failure(why)

    def greet(self) -> None:
        """Publish what is known before the first look. May raise Rejected."""
        self._driver.chronicle.publish_initial()

    # -- what is done ------------------------------------------------------

    def start(self, found: AtStart) -> Record:
        """Take in what is there, the profile in force first. Raises CorruptState."""
        record = self._journal.record()
        was = found.was
        if isinstance(was, Exception):
            self._log.warning("kept profile unreadable", message=str(was))
        elif was is not None and was.digest == record.profile_digest:
            self._force = was
        self._took(found.now)
        return record

    def look(self, reload: float | None = None) -> Outcome:
        """Look after what is in force, and go to what is wanted where that is another thing.

        ``reload``: read the files anew, and take no more than so many seconds to get there.
        """
        facts = self.look_only()
        if reload is not None:
            self._failures, self.retry_at = 0, None
            self.doing = "reading the profile"
            invalid = self._read(facts)
            if invalid is not None:
                self._supervise(self.look_only())
                return Outcome("refused", str(invalid), None, self._journal.record())
            facts = self.look_only()  # reading took its time
        elif self._newest is not None and not self._newest.is_for(facts):
            # the texts that were read are asked what they want of the host as it is now
            text = files.text(self._newest)
            self._take(lambda: files.reread(text, facts))
        newest = self._newest
        put_off = self.retry_at is not None and time.monotonic() < self.retry_at
        if put_off and _same(newest, self._force):
            return self._driver.watch(facts)
        outcome = self._supervise(facts)
        if newest is None or newest.profile is None:
            return outcome
        if reload is None and (
            put_off or _same(newest, self._force) or is_released(self._journal.record())
        ):
            return outcome
        return self._go(newest, reload)

    def read_ahead(self) -> None:
        """Have a child read the files, which have changed: a reload of them may come."""
        facts = self.facts
        if self.begun is None and facts is not None:
            with suppress(Rejected):  # no process is to be had; a reload tells so
                self.begun = children.Begun(
                    "the profile", lambda: files.read(self._host, facts), schedule.READING
                )

    def take_ahead(self) -> None:
        """Take what the child has read, and wait for it where it is not there yet."""
        begun, self.begun = self.begun, None
        if begun is not None:
            self._ahead = None
            with suppress(Exception):  # what is wrong with it is told by the reload that meets it
                self._ahead = begun.result()
            self._log.debug("read ahead", files=self._ahead.files if self._ahead else ())

    def look_only(self) -> Facts:
        """Look at the host, and do nothing."""
        self.facts = self._driver.look()
        return self.facts

    def obey(self, verb: str) -> Outcome:
        """Clear, roll back or detach, as somebody ordered."""
        self.doing = verb
        verbs = {
            "clear": self._driver.clear,
            "rollback": self._driver.rollback,
            "detach": self._driver.detach,
        }
        outcome = verbs[verb]()
        if outcome.record is not None and not outcome.record.profile_digest:
            self._force = None
        self._failures, self.retry_at = 0, None
        return outcome

    def _supervise(self, facts: Facts) -> Outcome:
        """Keep what is in force as it is."""
        if self._force is None:
            return self._driver.watch(facts)
        self.doing = "looking after the host"
        before = self._journal.record().tiers
        try:
            wanted = self._target(self._force, facts)
        except Invalid as invalid:  # a queue file that is wrong since a single run took it
            self._driver.watch(facts)
            outcome = Outcome("refused", str(invalid), None, self._journal.record())
        else:
            outcome = self._driver.reconcile(wanted, facts=facts)
        now = self._journal.record().tiers
        if now != before:
            self._log.notice("tiers", what=str(now), before=str(before))
        if _same(self._newest, self._force):
            self._count(outcome)
        return outcome

    def _go(self, wanted: Loaded, reload: float | None) -> Outcome:
        """Bring the host to what is wanted now."""
        self.doing = "bringing the host to its profile"
        if reload is not None:
            self._driver.resume()
            self._driver.until = self._host.monotonic() + reload
        facts = self._driver.look()
        try:
            outcome = self._driver.apply(self._target(wanted, facts), facts=facts)
        except Invalid as invalid:  # its queue file
            outcome = Outcome("refused", str(invalid), None, self._journal.record())
        finally:
            self._driver.until = None
        # another queue file leaves the digest as it is
        taken = outcome.result in ("changed", "unchanged", "degraded", "quarantined")
        if taken and self._journal.record().profile_digest == wanted.digest:
            self._force = wanted
            try:
                self._journal.keep_accepted(files.text(wanted))
            except Rejected as error:
                self._log.warning("profile not kept", message=str(error))
        self._count(outcome)
        return outcome

    # -- what is thought of the profile ------------------------------------

    def _count(self, outcome: Outcome) -> None:
        """Tell what became of the wanted profile, and put off what failed."""
        if outcome.result == "refused":
            self._judge("Refused", outcome.message)
        elif outcome.result in ("reverted", "rollback-failed", "reboot-required"):
            self._judge("Failed", outcome.message)
            if outcome.result == "reverted" and outcome.plan is not None and outcome.plan.steps:
                self._failures += 1
                wait = schedule.retry_after(self._failures)
                self.retry_at = float("inf") if wait is None else time.monotonic() + wait
        elif _same(self._newest, self._force):
            self._judge("Accepted", "")
            if outcome.result in ("changed", "unchanged"):
                self._failures, self.retry_at = 0, None

    def _judge(self, status: ProfileStatus, message: str) -> None:
        if (status, message) != self.verdict:
            fine = status in ("Accepted", "NoProfile")
            say = self._log.notice if fine else self._log.error
            say("profile", what=status, message=message, state=self._journal.record().state)
            self.verdict = status, message
            self._driver.chronicle.keep_verdict(status, message)

    def _read(self, facts: Facts) -> Invalid | None:
        """Read the files, and tell what is wrong with them; what is known is not parsed again."""
        newest = self._newest
        if newest is not None and files.is_current(newest, self._host, facts):
            return self._took(newest)
        self.take_ahead()
        ahead, self._ahead = self._ahead, None
        if ahead is not None and files.is_current(ahead, self._host, facts):
            return self._took(ahead)
        return self._take(lambda: files.read(self._host, facts))

    def _take(self, reading: Callable[[], Loaded]) -> Invalid | None:
        """Take what is read; if it is invalid, log that and change nothing else."""
        try:
            found: Loaded | Invalid = children.call("the profile", reading, schedule.READING)
        except Invalid as invalid:
            found = invalid
        return self._took(found)

    def _took(self, found: Loaded | Invalid) -> Invalid | None:
        if isinstance(found, Invalid):
            with suppress(Invalid):
                self._texts = dict(files.texts(self._host))
            self._newest = None
            self._judge("Invalid", str(found))
            return found
        self._newest, self._texts = found, dict(found.sources)
        digest = self._journal.record().profile_digest
        if self._force is None and found.digest == digest:
            self._force = found  # put there by a single run of the command, and adopted
        if found.profile is None:
            self._force = None
            if self._journal.accepted() is not None:  # a later start must not take it up again
                with suppress(Rejected):
                    self._journal.forget_accepted()
            self._judge("NoProfile", _none(found, managed=digest != ""))
        elif not _same(found, self._force):
            if self.verdict[0] in ("Accepted", "NoProfile", "Invalid"):
                self._pend()
        elif self.verdict[0] in ("NoProfile", "Invalid", "Pending"):
            self._accept()
        return None

    def _pend(self) -> None:
        """Tell that what the files hold has not been tried yet."""
        self.verdict = "Pending", "it has not been tried on this host yet"
        self._driver.chronicle.keep_verdict(*self.verdict)

    def _accept(self) -> None:
        """Tell that what the files hold is what was in force before."""
        self.verdict = "Accepted", ""
        self._driver.chronicle.keep_verdict(*self.verdict)

    def _target(self, wanted: Loaded, facts: Facts) -> Target:
        return target(wanted.reads, wanted, facts, self._journal.originals())


def _same(one: Loaded | None, other: Loaded | None) -> bool:
    return (
        one is not None
        and other is not None
        and (one.digest, one.queues) == (other.digest, other.queues)
    )


def _none(found: Loaded, *, managed: bool) -> str:
    why = "; ".join(f"{one.path}: {one.reason}" for one in found.skipped)
    words = "no profile applies to this host" + (f" ({why})" if why else "")
    if managed:
        return f"{words}; it is left as the last one put it: `dsatier rollback` undoes that"
    return f"{words}; it is left as it is"
