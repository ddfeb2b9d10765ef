# SPDX-License-Identifier: Apache-2.0
"""The daemon: a loop around the supervisor that hears of changes, and looks by itself.

It is level-triggered: whatever woke it, it looks at the host and acts on what is there. It
holds the host's lock for as long as it lives, and leaves the host as it is when it ends.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dsatier import __version__
from dsatier.apply.counters import NOTHING, RELOADS
from dsatier.apply.execute import Progress
from dsatier.apply.journal import CorruptState, Journal, validated
from dsatier.apply.lifecycle import TransitionRefused
from dsatier.apply.outcome import Outcome
from dsatier.apply.records import told
from dsatier.base.exits import BAD_PROFILE, FAILED, OK, RESULTS
from dsatier.base.paths import DROP_INS
from dsatier.base.problem import Invalid
from dsatier.control.listener import Listener, Order
from dsatier.daemon import metrics, schedule
from dsatier.daemon.poll import TOLD, Glance
from dsatier.daemon.supervisor import Supervisor
from dsatier.facts.effect import DEMOTED, PROMOTED
from dsatier.facts.model import Facts
from dsatier.facts.observe.parse import Malformed
from dsatier.host import children
from dsatier.host.port import Host, HostError, Rejected

if TYPE_CHECKING:
    from dsatier.apply.journal import Known
    from dsatier.apply.wanted import AtStart
    from dsatier.daemon.inotify import Watch
    from dsatier.daemon.kernel_events import Uevents
    from dsatier.daemon.log import Logger

LONGEST_WAIT = 7 * 86400
"""Seconds that a reload may be given."""
_TROUBLE = (HostError, TransitionRefused, Malformed, Invalid)
"""What a look may raise: it is logged, and the next look may succeed."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the daemon uses in addition to the host."""

    listener: Listener
    log: Logger
    notify: Callable[[str], None]
    """Tells the service manager: ``READY=1``, ``RELOADING=1``, ``STATUS=...``, ``WATCHDOG=1``."""
    events: Uevents | None = None
    watch: Watch | None = None
    """Tells of writes to files; None where there is nobody to tell."""
    drops: Watch | None = None
    """Tells of changes in the folders of the profile; None where there is nobody to tell."""
    watchdog: float = 0.0
    """Seconds between two signs of life that the service manager asks for; 0 for none."""
    simulate: Callable[[dict[str, Any]], str] | None = None
    """Does what is asked of a simulated host; None where the host is real."""
    simulated: str | None = None
    """The words for a simulated host, as ``--host`` takes them."""


class Daemon:
    """Keeps one host as its profile says. Its user holds the host's lock."""

    def __init__(
        self,
        host: Host,
        around: Surroundings,
        own: children.Begun[Known],
        reading: children.Begun[AtStart],
    ) -> None:
        """``own`` reads dsatier's own files, ``reading`` all others: each in a child process.

        Raises CorruptState.
        """
        self._host = host
        self._around = around
        self._log = around.log
        self._journal = Journal(host, self._validate)
        self._journal.remember(own.result())
        self._reading = reading
        self._stopping = False
        self._supervisor = Supervisor(host, self._journal, self._log, self._progress, self._about)
        self._glance = Glance(host)
        self._watch = around.watch
        self._glance_at = self._glance_all_at = self._listen_at = 0.0
        """Monotonic seconds of the next polls, and from which on writes are listened to."""
        self._read_at: float | None = None
        """Monotonic seconds at which to read the profile ahead, whose files have changed."""
        self._reload_asked = False
        self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._started = time.time()
        self._looked: float | None = None
        self._look_at = 0.0
        """Monotonic seconds of the next look."""
        self._calm = 0
        self._healthy = True
        self._alive_at = 0.0
        """Monotonic seconds from which on another sign of life is due."""
        self._tally = self._tally_kept = NOTHING
        self._ended = "", ""
        """Result and message of the look before."""
        self._unwritten = ""
        """Why the status could not be written at the look before."""
        self._untold = ""
        """Why the history lacked what happened, at the look before."""
        self._said = ""
        self._waiting: list[Order] = []
        """Callers that progress is sent to now."""

    # -- its life ----------------------------------------------------------

    def run(self) -> int:
        """Run until a signal ends it, and return the exit code. Raises CorruptState."""
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        signal.signal(signal.SIGHUP, self._hang_up)
        with suppress(CorruptState):  # figures for a graph are no reason not to start
            self._tally = self._journal.tally() or self._tally
        with suppress(*_TROUBLE, Rejected):  # what it is comes up again at the first look
            self._supervisor.greet()
        self._start()
        # whoever asks is told what became of the profile, and orders are taken; whether the host is
        # as declared is for dsatier.target to say
        self._around.notify("READY=1")
        self._turn([])
        gc.collect()
        gc.freeze()  # what is there now stays: looking through it again and again is idle work
        while not self._stopping:
            self._turn(self._wait())
        self._around.notify("STOPPING=1")
        self._say("stopping: the host is left as it is")
        with suppress(*_TROUBLE, Rejected):
            self._supervisor.tell()
            self._journal.publish_metrics(self._metrics(self._supervisor.facts))
        self._log.notice("stopped", state=self._journal.record().state)
        return OK

    def _end(self, number: int, frame: object) -> None:
        del number, frame
        self._stopping = True
        self._supervisor.interrupt()

    def _hang_up(self, number: int, frame: object) -> None:
        del number, frame
        self._reload_asked = True

    def _start(self) -> None:
        self._say("looking at the host")
        record = self._supervisor.start(self._reading.result())
        self._log.notice(
            "started",
            state=record.state,
            generation=record.generation,
            profile=self._supervisor.files,
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
            self._read_ahead(ready)
            if ready.intersection(self._around.listener.filenos()):
                orders = self._around.listener.orders()
                if orders:
                    return orders
            events = self._around.events
            if events is not None and events.fileno() in ready and (found := events.drain()):
                self._log.debug("kernel event", what=sorted(found))
                self._happened(schedule.FLOCK)
            elif self._supervisor.managed and (path := self._changed(ready)):
                self._log.debug("changed", what=path)
                self._happened(schedule.WRITTEN)
        return []

    def _nap(self) -> float:
        """Return how many seconds it may sleep until the next poll or sign of life."""
        nap, now = schedule.LATEST, time.monotonic()
        if self._read_at is not None:
            nap = min(nap, self._read_at - now)
        if self._supervisor.begun is not None:
            nap = min(nap, schedule.READING)  # then it is overdue
        if self._supervisor.managed:
            nap = min(nap, self._glance_all_at - now)
            if self._glance.restless:
                nap = min(nap, self._glance_at - now)
            if self._listen_at > now:
                nap = min(nap, self._listen_at - now)
        return min(nap, self._around.watchdog / 3) if self._around.watchdog else nap

    def _poll(self, seconds: float) -> set[int]:
        """Sleep until something comes in, and return the descriptors that it came on."""
        poll = select.poll()
        for number in (self._wake[0], *self._around.listener.filenos()):
            poll.register(number, select.POLLIN)
        if self._around.events is not None:
            poll.register(self._around.events, select.POLLIN)
            poll.register(self._around.events.swaps, select.POLLPRI)
        for one in (self._around.drops, self._supervisor.begun):
            if one is not None:
                poll.register(one, select.POLLIN)
        listening = self._supervisor.managed and time.monotonic() >= self._listen_at
        if self._watch is not None and listening:
            poll.register(self._watch, select.POLLIN)
        # rounded up: a millisecond early is nothing to do, again and again
        ready = {number for number, _ in poll.poll(int(max(seconds, 0.0) * 1000) + 1)}
        if self._wake[0] in ready:
            with suppress(BlockingIOError):
                os.read(self._wake[0], 4096)
        return ready

    def _read_ahead(self, ready: set[int]) -> None:
        """Have the profile read when its files have changed, so that a reload finds it read."""
        drops, begun = self._around.drops, self._supervisor.begun
        if drops is not None and drops.fileno() in ready and drops.drain():
            self._read_at = self._read_at or time.monotonic() + schedule.AHEAD
        if begun is not None and (begun.fileno() in ready or begun.overdue):
            self._supervisor.take_ahead()
        if self._read_at is not None and time.monotonic() >= self._read_at:
            if self._supervisor.begun is not None:  # it has read what is old by now: then once more
                self._read_at = time.monotonic() + schedule.FLOCK
                return
            self._read_at = None
            self._supervisor.read_ahead()

    def _changed(self, ready: set[int]) -> str | None:
        """Poll what is due, and return what has changed."""
        now = time.monotonic()
        told = self._told(ready)
        if told:  # a writer that never stops must not be followed at each write
            self._listen_at = now + schedule.FLOCK / 2
        everything = told or now >= self._glance_all_at
        if not everything and not (self._glance.restless and now >= self._glance_at):
            return None
        self._glance_at = now + schedule.GLANCE
        try:
            if not everything:
                return self._glance.restless_changed()
            self._glance_all_at = now + schedule.GLANCE_ALL
            path = self._glance.changed()
        except HostError as error:
            return str(error)  # a look will tell what it is
        if path is not None and not told and self._glance.watched(path):
            self._deaf(path)
        return path

    def _told(self, ready: set[int]) -> bool:
        """Tell whether somebody has said that files were written to, or swap has changed."""
        events = self._around.events
        swaps = events is not None and events.swaps in ready
        written = self._watch is not None and self._watch.fileno() in ready and self._watch.drain()
        return bool(swaps or written)

    def _deaf(self, path: str) -> None:
        """Stop relying on the kernel to report writes: it has missed one."""
        self._log.debug("a write was not reported", what=path)
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def _remember(self, facts: Facts) -> None:
        """Have the next polls compare with what is there now."""
        self._glance_at = time.monotonic() + schedule.GLANCE
        self._glance_all_at = time.monotonic() + schedule.GLANCE_ALL
        if self._around.drops is not None:
            self._around.drops.follow(DROP_INS)
        told = () if self._around.events is None else TOLD
        if self._watch is None:
            self._glance.remember(facts, told=told)
        else:
            self._glance.remember(facts, self._watch.follow, told)

    def _happened(self, after: float) -> None:
        """Look soon: something changed on the host."""
        self._calm = 0
        self._look_at = min(self._look_at, time.monotonic() + after)

    def _alive(self) -> None:
        """Give the service manager a sign of life; it wakes for each.

        A look that fails is logged, and the next one may succeed: a restart of the daemon would
        not help.
        """
        now = time.monotonic()
        if now >= self._alive_at:
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
        if reload:  # the time tells a service manager that asked by a signal which reload it is
            self._around.notify(f"RELOADING=1\nMONOTONIC_USEC={int(began * 1e6)}")
        try:
            if self._supervisor.facts is not None:  # what changes from now on is seen or glanced at
                self._remember(self._supervisor.facts)
            outcome = self._supervisor.look(self._given() if reload else None)
        except _TROUBLE as trouble:
            outcome = self._in_trouble(trouble)
        else:
            self._healthy = True
        self._alive()
        if reload and self._around.drops is not None:  # what has been read is not read ahead
            self._read_at = None
            self._around.drops.drain()
        answer = self._answer(outcome, time.monotonic() - began) if reload else None
        self._rest(outcome)
        if reload:  # also where it failed: it is over
            self._around.notify("READY=1")
        if answer is not None:  # only now, so that the status says the same
            for order in self._waiting:
                order.answer(*answer)
        self._waiting = []

    def _given(self) -> float:
        """Return the seconds that those who wait give a reload: those of the most patient."""
        given = (order.asked.get("timeout") for order in self._waiting)
        # a number of any size may come over the socket, and one that is none (NaN)
        fit = (float(s) for s in given if isinstance(s, int | float) and 0 <= s <= LONGEST_WAIT)
        return max(fit, default=schedule.RELOADING)

    def _rest(self, outcome: Outcome) -> None:
        """Publish how things stand, and settle when to look next."""
        quiet = outcome.result in ("unchanged", "refused", "drifted") or (
            outcome.plan is None or not outcome.plan.steps
        )
        self._calm = self._calm + 1 if quiet else 0
        if not quiet:
            tidy()
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
        self._look_at = time.monotonic() + schedule.look_after(
            self._calm, self._supervisor.interval
        )
        retry_at = self._supervisor.retry_at
        if retry_at is not None:
            self._look_at = min(self._look_at, max(retry_at, time.monotonic() + schedule.SOONEST))
        if not self._healthy:
            return
        self._supervisor.doing = "watching"
        try:
            facts = self._supervisor.facts
            if facts is None or not quiet:
                facts = self._supervisor.look_only()
                self._remember(facts)
            self._looked = time.time()
            self._supervisor.watch_effect(facts)
            record = self._supervisor.tell()
            self._journal.publish_metrics(self._metrics(facts))
            if self._tally != self._tally_kept:
                self._journal.keep_tally(self._tally)
                self._tally_kept = self._tally
        except (*_TROUBLE, Rejected) as error:
            if str(error) != self._unwritten:  # what stays as it is is told once
                self._unwritten = str(error)
                self._log.warning("status not written", message=self._unwritten)
            return
        finally:
            self._tell_of_history()
        self._unwritten = ""
        if self._around.events is not None:
            self._around.events.drain()  # what the pass itself did
        now_told = told(record)
        words = f"{now_told.state}: {now_told.message or now_told.reason}"
        if record.profile_status != "Accepted":
            words += f"; profile {record.profile_status}: {record.profile_message}"
        self._say(words)

    def _tell_of_history(self) -> None:
        """Warn if the history lacks what happened, once for each reason."""
        self._journal.tell_history()
        if self._journal.untold != self._untold:
            self._untold = self._journal.untold
            if self._untold:
                self._log.warning("history not kept", message=self._untold)

    def _in_trouble(self, trouble: Exception) -> Outcome:
        self._healthy = False
        self._log.error("look failed", message=str(trouble), reason=type(trouble).__name__)
        self._say(f"cannot look at the host: {trouble}")
        with suppress(*_TROUBLE, Rejected):
            self._supervisor.tell_failure(f"cannot look at the host: {trouble}")
            self._journal.publish_metrics(self._metrics(None))
        return Outcome("refused", f"cannot look at the host: {trouble}")

    # -- orders ------------------------------------------------------------

    def _obey(self, order: Order) -> None:
        """Do what was ordered, but for a reload."""
        self._happened(0.0)
        if order.command == "nudge":
            order.answer("unchanged", OK, "it looks now")
            return
        if order.command == "simulate":
            self._simulate(order)
            return
        self._log.notice("order", what=order.command)
        self._waiting.append(order)  # for the progress
        try:
            outcome = self._supervisor.obey(order.command)
        except (*_TROUBLE, Rejected) as trouble:
            outcome = Outcome("refused", str(trouble))
        self._waiting.remove(order)
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
        verdict, words = self._supervisor.verdict
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

    # -- what it tells -----------------------------------------------------

    def _progress(self, one: Progress) -> None:
        self._alive()
        fields = {"what": one.step.what, "step": one.step.number, "steps": one.of}
        if one.outcome is None:
            words = f"step {one.step.number} of {one.of}: {one.step.what}"
            self._supervisor.doing = words
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
        standing = self._supervisor.standing
        return {
            "moved": None
            if standing is None
            else {"demoted": standing.moved(DEMOTED), "promoted": standing.moved(PROMOTED)},
            "daemon": {
                "pid": os.getpid(),
                "since": self._started,
                "looked_at": self._looked or self._started,
                "look_within": self._supervisor.interval,
                "doing": self._supervisor.doing,
                "simulated": self._around.simulated,
            },
        }

    def _say(self, words: str) -> None:
        if words != self._said:
            self._said = words
            self._around.notify(f"STATUS={words.splitlines()[0]}")

    def _metrics(self, facts: Facts | None) -> str:
        reloads = dict.fromkeys(RELOADS, 0) | self._tally.reloads
        within = self._supervisor.interval
        running = metrics.Running(
            __version__,
            self._started,
            self._looked,
            reloads,
            look_within=within,
            stopping=self._stopping,
            standing=self._supervisor.standing,
        )
        return metrics.render(self._journal.record(), facts, running, self._tally.durations)

    @staticmethod
    def _validate(kind: type, text: str) -> Any:
        # pydantic takes half as much memory again as the daemon; a child is rid of it at its end
        return children.call(kind.__name__.lower(), lambda: validated(kind, text), schedule.READING)


def tidy() -> None:
    """Free what a pass has left that did something."""
    gc.collect()  # errors that were met hold on to all that they passed through
    if sys.version_info < (3, 12):
        # each class pattern that is matched looks for an attribute by a name made anew, and the
        # cache of methods keeps up to 4,096 of them
        sys._clear_type_cache()  # noqa: SLF001
