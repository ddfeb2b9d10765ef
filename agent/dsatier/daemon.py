# SPDX-License-Identifier: Apache-2.0
"""The daemon: a loop around the driver that is told of changes, and looks by itself.

It is level-triggered: whatever woke it, it looks at the host and acts on what is there. It
holds the host's lock for as long as it lives, and leaves the host as it is when it ends.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dsatier import __version__, apart, intent, metrics, pace, schema
from dsatier.control import Listener, Order
from dsatier.drive import Driver, Outcome, Target
from dsatier.exits import BAD_PROFILE, FAILED, OK, RESULTS
from dsatier.facts import Facts
from dsatier.glance import Glance
from dsatier.host import Host, HostError, Rejected
from dsatier.intent import Intent
from dsatier.journal import Journal, Spoilt
from dsatier.lifecycle import NotNow
from dsatier.observe.text import Malformed
from dsatier.perform import Progress
from dsatier.problem import Invalid
from dsatier.records import WITHDRAWN, ProfileStatus
from dsatier.tally import NOTHING, RELOADS
from dsatier.targets import target

if TYPE_CHECKING:
    from dsatier.log import Logger
    from dsatier.uevents import Uevents

READING = 30.0
"""Seconds that reading the profile may take."""
RELOADING = 900.0
"""Seconds that a reload may take where it does not say."""
_TROUBLE = (HostError, NotNow, Malformed, Invalid)
"""What a look may raise: it is told, and the next look may go well."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the daemon has around it beside the host."""

    listener: Listener
    log: Logger
    notify: Callable[[str], None]
    """Tells the service manager: ``READY=1``, ``STATUS=...``, ``WATCHDOG=1``."""
    events: Uevents | None = None
    watchdog: float = 0.0
    """Seconds between two signs of life that the service manager asks for; 0 for none."""
    simulate: Callable[[dict[str, Any]], str] | None = None
    """Does what is asked of a simulated host; None where the host is real."""


class Daemon:
    """Keeps one host as its profile says. Its user holds the host's lock."""

    def __init__(self, host: Host, around: Surroundings) -> None:
        self._host = host
        self._around = around
        self._log = around.log
        self._journal = Journal(host, self._validate)
        # in one child: each takes as long to come up as it is at work
        self._journal.remember(apart.call("the journal", lambda: Journal(host).read_all(), READING))
        self._stopping = False
        self._slow_node = 1
        self._driver = self._drive()
        self._glance = Glance(host)
        self._reload_asked = False
        self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._started = time.time()
        self._looked: float | None = None
        self._look_at = 0.0
        """Monotonic seconds of the next look."""
        self._calm = 0
        self._healthy = True
        self._alive_at = 0.0
        """Monotonic seconds of the next sign of life."""
        self._newest: Intent | None = None
        """What the files asked for when they were last read and valid."""
        self._force: Intent | None = None
        """What is in force: kept when the files ask for something that is wrong."""
        self._facts: Facts | None = None
        """The host at the last look."""
        self._shape: tuple[object, ...] = ()
        """The host's shape when the files were read: a ``match`` may ask for it."""
        self._failures = 0
        self._retry_at: float | None = None
        """Monotonic seconds before which a change that failed is not tried again."""
        self._tally = self._tally_kept = NOTHING
        self._ended = "", ""
        """Result and message of the pass before."""
        self._doing = "starting"
        self._said = ""
        self._verdict: tuple[ProfileStatus, str] = self._kept_verdict()
        """What became of the profile: known here also while the disk does not take it."""
        self._waiting: list[Order] = []
        """The reloads that the pass under way will answer."""

    # -- its life ----------------------------------------------------------

    def run(self) -> int:
        """Run until a signal ends it, and return the exit code. Raises Spoilt."""
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        signal.signal(signal.SIGHUP, self._hang_up)
        with suppress(Spoilt):  # figures for a graph are no reason not to start
            self._tally = self._journal.tally() or self._tally
        self._start()
        self._around.notify("READY=1")
        while not self._stopping:
            self._turn(self._wait())
        self._around.notify("STOPPING=1")
        self._say("stopping: the host is left as it is")
        with suppress(Rejected):
            self._driver.tell(*self._verdict)
        self._log.notice("stopped", state=self._journal.record().state)
        return OK

    def _end(self, number: int, frame: object) -> None:
        del number, frame
        self._stopping = True
        self._driver.interrupt()

    def _hang_up(self, number: int, frame: object) -> None:
        del number, frame
        self._reload_asked = True

    def _start(self) -> None:
        """Take in what is there, the profile in force first. Raises Spoilt."""
        record = self._journal.record()
        self._aim(record.slow_node)
        facts = self._driver.look()
        kept = self._journal.accepted()
        was, now = apart.call(
            "the profile", lambda: intent.at_start(self._host, kept, facts), READING
        )
        if isinstance(was, Exception):
            self._log.warning("kept profile unreadable", message=str(was))
        elif was is not None and was.digest == record.profile_digest:
            self._force = was
        self._took(facts, now)
        self._log.notice(
            "started",
            state=record.state,
            generation=record.generation,
            profile=self._newest.files if self._newest else (),
        )

    # -- waiting -----------------------------------------------------------

    def _wait(self) -> list[Order]:
        """Wait until there is something to do; return the orders that came in."""
        while not self._stopping:
            now = time.monotonic()
            if now >= self._look_at or self._reload_asked:
                return []
            ready = self._poll(min(self._look_at - now, self._nap()))
            self._alive()
            if ready.intersection(self._around.listener.filenos()):
                orders = self._around.listener.orders()
                if orders:
                    return orders
            events = self._around.events
            if events is not None and events.fileno() in ready and (found := events.drain()):
                self._log.debug("kernel event", what=sorted(found))
                self._happened(pace.FLOCK)
            elif self._force is not None and (path := self._changed()):
                self._log.debug("changed", what=path)
                self._happened(0.0)
        return []

    def _nap(self) -> float:
        """Return how long it may sleep without a glance or a sign of life."""
        nap = pace.GLANCE if self._force is not None else pace.LATEST
        return min(nap, self._around.watchdog / 3) if self._around.watchdog else nap

    def _poll(self, seconds: float) -> set[int]:
        """Sleep until something comes in, and return the descriptors that it came on."""
        poll = select.poll()
        for number in (self._wake[0], *self._around.listener.filenos()):
            poll.register(number, select.POLLIN)
        if self._around.events is not None:
            poll.register(self._around.events, select.POLLIN)
        ready = {number for number, _ in poll.poll(max(seconds, 0.0) * 1000)}
        if self._wake[0] in ready:
            with suppress(BlockingIOError):
                os.read(self._wake[0], 4096)
        return ready

    def _changed(self) -> str | None:
        try:
            return self._glance.changed()
        except HostError as error:
            return str(error)  # a look will tell what it is

    def _happened(self, after: float) -> None:
        """Look soon: something changed on the host."""
        self._calm = 0
        self._look_at = min(self._look_at, time.monotonic() + after)

    def _alive(self) -> None:
        """Give the service manager a sign of life, if looks go well; it wakes for each."""
        now = time.monotonic()
        if self._healthy and now >= self._alive_at:
            self._alive_at = now + self._around.watchdog / 12
            self._around.notify("WATCHDOG=1")

    # -- a turn ------------------------------------------------------------

    def _turn(self, orders: list[Order]) -> None:
        """Do what was ordered, look, and act on what is there."""
        self._waiting = [order for order in orders if order.command == "reload"]
        for order in orders:
            if order.command != "reload":
                self._obey(order)
        reload = bool(self._waiting)
        if self._reload_asked:  # taken back only here: the next one may come at any time
            self._reload_asked, reload = False, True
        if self._stopping:
            for order in self._waiting:
                order.answer("refused", FAILED, "the daemon is stopping")
            return
        began = time.monotonic()
        try:
            outcome = self._pass(reload)
        except _TROUBLE as trouble:
            outcome = self._in_trouble(trouble)
        else:
            self._healthy = True
        self._alive()
        answer = self._answer(outcome, time.monotonic() - began) if reload else None
        self._rest(outcome)
        if answer is not None:  # only now, so that the status says the same
            for order in self._waiting:
                order.answer(*answer)
        self._waiting = []

    def _pass(self, reload: bool) -> Outcome:
        """Look after what is in force, and go to what is wanted where that is another thing."""
        facts = self._facts = self._driver.look()
        if reload:
            self._failures, self._retry_at = 0, None
            self._doing = "reading the profile"
            invalid = self._read(facts)
            if invalid is not None:
                self._supervise(facts)
                return Outcome("refused", str(invalid), None, self._journal.record())
        elif self._newest is not None and self._shaped(facts) != self._shape:
            self._again(self._newest, facts)
        newest = self._newest
        put_off = self._retry_at is not None and time.monotonic() < self._retry_at
        if put_off and self._same(newest, self._force):
            return self._driver.watch()
        outcome = self._supervise(facts)
        if newest is None or newest.profile is None:
            return outcome
        if not reload and (put_off or self._same(newest, self._force) or self._let_go()):
            return outcome
        return self._go(newest, reload)

    def _supervise(self, facts: Facts) -> Outcome:
        """Keep what is in force as it is."""
        if self._force is None:
            self._aim(self._journal.record().slow_node)
            return self._driver.watch()
        self._aim(self._force.slow_node)
        self._doing = "looking after the host"
        try:
            wanted = self._target(self._force, facts)
        except Invalid as invalid:  # a queue file that is wrong since a single run took it
            self._driver.watch()
            outcome = Outcome("refused", str(invalid), None, self._journal.record())
        else:
            outcome = self._driver.reconcile(wanted)
        if self._same(self._newest, self._force):
            self._count(outcome)
        return outcome

    def _go(self, wanted: Intent, reload: bool) -> Outcome:
        """Bring the host to what is wanted now."""
        self._doing = "bringing the host to its profile"
        self._aim(wanted.slow_node)
        if reload:
            self._driver.take_up()
            given = [order.asked.get("timeout") for order in self._waiting]
            seconds = max(
                (float(s) for s in given if isinstance(s, int | float)), default=RELOADING
            )
            self._driver.until = self._host.monotonic() + seconds
        facts = self._driver.look()
        try:
            outcome = self._driver.apply(self._target(wanted, facts))
        except Invalid as invalid:  # its queue file
            outcome = Outcome("refused", str(invalid), None, self._journal.record())
        finally:
            self._driver.until = None
        # another queue file leaves the digest as it is
        taken = outcome.result in ("changed", "unchanged", "degraded", "quarantined")
        if taken and self._journal.record().profile_digest == wanted.digest:
            self._force = wanted
            try:
                self._journal.keep_accepted(intent.text(wanted))
            except Rejected as error:
                self._log.warning("profile not kept", message=str(error))
        self._count(outcome)
        return outcome

    def _count(self, outcome: Outcome) -> None:
        """Tell what became of the wanted profile, and put off what failed."""
        if outcome.result == "refused":
            self._judge("Refused", outcome.message)
        elif outcome.result in ("reverted", "rollback-failed", "reboot-required"):
            self._judge("Failed", outcome.message)
            if outcome.result == "reverted" and outcome.plan is not None and outcome.plan.steps:
                self._failures += 1
                wait = pace.retry_after(self._failures)
                self._retry_at = float("inf") if wait is None else time.monotonic() + wait
        elif self._same(self._newest, self._force):
            self._judge("Accepted", "")
            if outcome.result in ("changed", "unchanged"):
                self._failures, self._retry_at = 0, None

    def _judge(self, status: ProfileStatus, message: str) -> None:
        if (status, message) != self._verdict:
            fine = status in ("Accepted", "NoProfile")
            say = self._log.notice if fine else self._log.error
            say("profile", what=status, message=message, state=self._journal.record().state)
            self._verdict = status, message
            self._driver.tell(status, message)

    def _rest(self, outcome: Outcome) -> None:
        """Publish how things stand, and settle when to look next."""
        quiet = outcome.result in ("unchanged", "refused", "drifted") or (
            outcome.plan is None or not outcome.plan.steps
        )
        self._calm = self._calm + 1 if quiet else 0
        ended = outcome.result, outcome.message
        bad = RESULTS[outcome.result] != OK and outcome.result != "refused"
        if not quiet or (bad and ended != self._ended):  # what stays as it is is told once
            record = outcome.record or self._journal.record()
            say = self._log.error if RESULTS[outcome.result] != OK else self._log.notice
            say(
                outcome.result,
                message=outcome.message,
                state=record.state,
                reason=record.reason,
                generation=record.generation,
            )
        self._ended = ended
        self._look_at = time.monotonic() + pace.look_after(self._calm, self._latest())
        if self._retry_at is not None:
            self._look_at = min(self._look_at, max(self._retry_at, time.monotonic() + pace.SOONEST))
        if not self._healthy:
            return
        self._doing = "watching"
        try:
            facts = self._facts if quiet and self._facts else self._driver.look()
            self._looked = time.time()
            record = self._driver.tell(*self._verdict)
            self._glance.remember(facts)
            self._journal.publish_metrics(self._metrics(facts))
            if self._tally != self._tally_kept:
                self._journal.keep_tally(self._tally)
                self._tally_kept = self._tally
        except (*_TROUBLE, Rejected) as error:
            self._log.warning("status not written", message=str(error))
            return
        if self._around.events is not None:
            self._around.events.drain()  # what the pass itself did
        words = f"{record.state}: {record.message or record.reason}"
        if record.profile_status != "Accepted":
            words += f"; profile {record.profile_status}: {record.profile_message}"
        self._say(words)

    def _in_trouble(self, trouble: Exception) -> Outcome:
        self._healthy = False  # the watchdog ends what does not get better
        self._log.error("look failed", message=str(trouble), reason=type(trouble).__name__)
        self._say(f"cannot look at the host: {trouble}")
        return Outcome("refused", f"cannot look at the host: {trouble}")

    # -- orders ------------------------------------------------------------

    def _obey(self, order: Order) -> None:
        """Do what was ordered, but for a reload."""
        self._aim(self._journal.record().slow_node)
        verbs: dict[str, Callable[[], Outcome]] = {
            "clear": self._driver.clear,
            "rollback": self._driver.rollback,
            "release": self._driver.release,
        }
        self._happened(0.0)
        if order.command == "nudge":
            order.answer("unchanged", OK, "it looks now")
            return
        if order.command == "simulate":
            self._simulate(order)
            return
        self._doing = order.command
        self._log.notice("order", what=order.command)
        self._waiting.append(order)  # for the progress
        try:
            outcome = verbs[order.command]()
        except (*_TROUBLE, Rejected) as trouble:
            outcome = Outcome("refused", str(trouble))
        self._waiting.remove(order)
        if outcome.record is not None and not outcome.record.profile_digest:
            self._force = None
        self._failures, self._retry_at = 0, None
        self._log.notice(outcome.result, what=order.command, message=outcome.message)
        state = outcome.record.state if outcome.record else ""
        order.answer(outcome.result, RESULTS[outcome.result], outcome.message, state)

    def _simulate(self, order: Order) -> None:
        if self._around.simulate is None:
            order.answer("refused", FAILED, "this host is real; start with --host sim:NAME")
            return
        try:
            said = self._around.simulate(order.asked.get("act", {}))
        except (ValueError, HostError) as error:
            order.answer("refused", FAILED, str(error))
        else:
            order.answer("changed", OK, said)

    def _answer(self, outcome: Outcome, took: float) -> tuple[str, int, str, str]:
        """Note how a reload ended, and return the answer for all who wait: one serves them."""
        record = self._journal.record()
        verdict, words = self._verdict
        result_name: str = outcome.result
        message, code = outcome.message, RESULTS[outcome.result]
        if not self._healthy:
            pass  # what is known of the profile is from before
        elif verdict == "Invalid":
            result_name, code = "invalid", BAD_PROFILE
        elif verdict == "NoProfile":
            result_name, code, message = "no-profile", OK, words
        if code != OK and record.profile_digest:
            message += f" (generation {record.generation} stays in force: {record.state})"
        self._tally = self._tally.with_reload(result_name)
        say = self._log.notice if code == OK else self._log.error
        say(
            "reload",
            what=result_name,
            message=message,
            seconds=round(took, 3),
            state=record.state,
            waiting=len(self._waiting),
        )
        return result_name, code, message, record.state

    # -- what it knows -----------------------------------------------------

    def _read(self, facts: Facts) -> Invalid | None:
        """Read the files; what is wrong with them is told, and nothing else changes."""
        return self._take(facts, lambda: intent.read(self._host, facts))

    def _again(self, known: Intent, facts: Facts) -> None:
        """Ask the texts that were read what they want of the host as it is now."""
        text = intent.text(known)
        self._take(facts, lambda: intent.reread(text, facts))

    def _take(self, facts: Facts, reading: Callable[[], Intent]) -> Invalid | None:
        try:
            found: Intent | Invalid = apart.call("the profile", reading, READING)
        except Invalid as invalid:
            found = invalid
        return self._took(facts, found)

    def _took(self, facts: Facts, found: Intent | Invalid) -> Invalid | None:
        self._shape = self._shaped(facts)
        if isinstance(found, Invalid):
            self._newest = None
            self._judge("Invalid", str(found))
            return found
        self._noted(found)
        return None

    def _noted(self, found: Intent) -> None:
        self._newest = found
        if self._force is None and found.digest == self._journal.record().profile_digest:
            self._force = found  # put there by a single run of the command, and adopted
        if found.profile is None:
            why = "; ".join(f"{one.path}: {one.reason}" for one in found.skipped)
            managed = self._journal.record().profile_digest != ""
            self._force = None
            words = "no profile applies to this host" + (f" ({why})" if why else "")
            words += (
                "; it is left as the last one put it: `dsatier rollback` undoes that"
                if managed
                else "; it is left as it is"
            )
            self._judge("NoProfile", words)
        elif self._verdict[0] in ("NoProfile", "Invalid"):
            self._verdict = "Accepted", ""  # until it is tried
            self._driver.tell(*self._verdict)

    def _target(self, wanted: Intent, facts: Facts) -> Target:
        return target(wanted.reads, wanted, facts, self._journal.originals())

    def _latest(self) -> float:
        """Return the seconds between two looks while all is calm."""
        profile = self._force.profile if self._force else None
        return profile.drift.interval if profile and profile.drift else pace.LATEST

    def _let_go(self) -> bool:
        record = self._journal.record()
        return record.state == "unmanaged" and record.reason == WITHDRAWN

    @staticmethod
    def _same(one: Intent | None, other: Intent | None) -> bool:
        return (
            one is not None
            and other is not None
            and (one.digest, one.queues) == (other.digest, other.queues)
        )

    @staticmethod
    def _shaped(facts: Facts) -> tuple[object, ...]:
        nodes = tuple(node.id for node in facts.nodes)
        return (*nodes, *(device.id for device in facts.devices))

    def _kept_verdict(self) -> tuple[ProfileStatus, str]:
        record = self._journal.record()
        return record.profile_status, record.profile_message

    # -- what it tells -----------------------------------------------------

    def _aim(self, slow_node: int) -> None:
        """Have a driver whose slow node this is: the interlock holds it to that one."""
        if slow_node != self._slow_node:
            self._slow_node = slow_node
            self._driver = self._drive()

    def _drive(self) -> Driver:
        driver = Driver(
            self._host,
            slow_node=self._slow_node,
            holder="dsatier daemon",
            progress=self._progress,
            about=self._about,
            journal=self._journal,
        )
        if self._stopping:
            driver.interrupt()
        return driver

    def _progress(self, one: Progress) -> None:
        self._alive()
        fields = {"what": one.step.what, "step": one.step.number, "steps": one.of}
        if one.outcome is None:
            words = f"step {one.step.number} of {one.of}: {one.step.what}"
            self._doing = words
            self._say(words)
            for order in self._waiting:
                order.progress(words)
            return
        self._tally = self._tally.with_step(one.step.rung, one.waited)
        if one.outcome == "proven":
            self._log.info("step", seconds=round(one.waited, 3), **fields)
        else:
            seconds = round(one.waited, 3)
            self._log.error("step failed", message=one.outcome, seconds=seconds, **fields)

    def _about(self) -> dict[str, Any]:
        if self._stopping:
            return {"daemon": None}
        return {
            "daemon": {
                "pid": os.getpid(),
                "since": self._started,
                "looked_at": self._looked or self._started,
                "look_within": self._latest(),
                "doing": self._doing,
            }
        }

    def _say(self, words: str) -> None:
        if words != self._said:
            self._said = words
            self._around.notify(f"STATUS={words.splitlines()[0]}")

    def _metrics(self, facts: Facts) -> str:
        reloads = dict.fromkeys(RELOADS, 0) | self._tally.reloads
        running = metrics.Running(__version__, self._started, self._looked, reloads)
        return metrics.render(self._journal.record(), facts, running, self._tally.durations)

    @staticmethod
    def _validate(kind: str, text: str) -> Any:
        # the validators stay in memory where they have once been used
        return apart.call(kind, lambda: schema.validate(kind, text), READING)
