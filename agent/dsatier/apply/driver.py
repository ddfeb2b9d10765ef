# SPDX-License-Identifier: Apache-2.0
"""The driver: brings a host where it is wanted, and keeps the journal on the way.

Every verb observes first and then acts on what is there. Writes that only make
a host safer (turning the engine off after a fault) do not wait for the journal;
all others happen only after it is on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from typing import Any

from dsatier.apply import lifecycle
from dsatier.apply.change import Change, Means, NotJournalled, requests
from dsatier.apply.chronicle import LATCHED, Chronicle
from dsatier.apply.drift import contested, noted
from dsatier.apply.execute import Progress, StepFailed
from dsatier.apply.faults import fault
from dsatier.apply.gate import Gate
from dsatier.apply.journal import Journal
from dsatier.apply.outcome import Outcome, Result
from dsatier.apply.records import WITHDRAWN, Motion, Record, is_released
from dsatier.apply.target import Target
from dsatier.facts.knobs import ENGINES, KnobName
from dsatier.facts.model import Facts
from dsatier.facts.observe.observer import Observer
from dsatier.facts.readings import on
from dsatier.host.port import Host, LogTail, Rejected
from dsatier.plan.desired import engine_off, with_cpu_engine
from dsatier.plan.interlock import GUARDS, Guard
from dsatier.plan.model import Desired, Plan
from dsatier.plan.originals import Originals, originals
from dsatier.plan.ownership import remaining
from dsatier.plan.planner import plan as make_plan
from dsatier.plan.rehearsal import no_way_back, prepare
from dsatier.plan.requests import Request, SetKnob
from dsatier.plan.restore import cpu_only, from_originals, not_restored, not_resumed, released

NOTHING_WANTED = Target(Desired(), "")


class Driver:
    """Drives one host. Its user holds the host's lock."""

    def __init__(
        self,
        host: Host,
        *,
        holder: str = "dsatier",
        progress: Callable[[Progress], None] = lambda progress: None,
        about: Callable[[], dict[str, Any]] = dict,
        guards: tuple[Guard, ...] = GUARDS,
        journal: Journal | None = None,
    ) -> None:
        """``about`` returns what else the status document is to say."""
        self.host = host
        self.journal = journal or Journal(host)
        self._gate = Gate(host, Observer(host), guards)
        self.chronicle = Chronicle(host, self.journal, about)
        self._means = Means(
            host, self.journal, self.chronicle, self._gate, holder, progress, self._turned_round
        )
        self._guards = guards
        self._interrupted = False
        self.until: float | None = None
        """Monotonic seconds of the host at which a change that is not done is undone."""

    def interrupt(self) -> None:
        """Ask for an end: what is being applied is undone before the next step.

        Safe to call from a signal handler. Going back is never interrupted.
        """
        self._interrupted = True

    def _turned_round(self) -> str | None:
        """Return why what is being applied is to be undone, None where it may go on."""
        if self._interrupted:
            return "interrupted"
        if self.until is not None and self.host.monotonic() > self.until:
            return "timed out: it has taken longer than it was given"
        return None

    def look(self) -> Facts:
        """Return the host's facts now."""
        return self._gate.look()

    # -- the verbs ---------------------------------------------------------

    def recover(self, facts: Facts | None = None) -> Record:
        """Deal with what happened while nobody looked: an unclean end, a reboot.

        After an unclean end the host comes up on the CPU engine, and what was
        being applied is quarantined. ``facts`` saves a look if there was one a moment ago.
        """
        record, motion = self.journal.record(), self.journal.motion()
        facts = facts or self.look()
        if record != self.journal.kept():
            try:  # perhaps the disk takes it now
                self.chronicle.keep_record(record)
                self.journal.forget_late()
            except Rejected:
                motion = None  # open, and it stays so until the record is on disk
        if motion is not None and record.state in lifecycle.IN_MOTION:
            return self._guard_crash(record, motion, facts)
        if motion is not None:
            # the run ended between two files of the journal: before its first write or after
            # its last one, so the host is at rest
            with suppress(Rejected):  # a read-only disk must not keep the breaker from its work
                self.journal.close_motion()
        now = self.chronicle.on_boot(record, facts.kernel.boot_id)
        if now is not record:
            with suppress(Rejected):
                self.chronicle.keep_record(now)
        return now

    def plan_for(self, target: Target, record: Record, facts: Facts | None = None) -> Plan:
        """Return the plan to ``target``, reduced to what a latch allows: also one to come."""
        facts = facts or self.look()
        if self._broken(record, facts, target) is not None:
            record = replace(record, latch="fault")  # as whatever runs next will set it
        return self._plan(target, record, facts)

    def _plan(self, target: Target, record: Record, facts: Facts) -> Plan:
        return prepare(
            facts,
            self._allowed(target, record, facts),
            extra=target.extra,
            untouched=target.untouched,
            digest=target.digest,
            guards=self._guards,
        )

    def apply(
        self, target: Target, given: Plan | None = None, facts: Facts | None = None
    ) -> Outcome:
        """Bring the host to ``target``. ``facts`` saves a look if there was one a moment ago.

        ``given`` is a plan made before: it is refused unless it is still what
        would be planned now.
        """
        record, facts, _ = self._settled(target, facts)
        outcome = self._apply(target, record, facts, given, accepts=True)
        if outcome.result in ("changed", "unchanged") and outcome.record is not None:
            return replace(outcome, record=self.chronicle.keep_verdict("Accepted"))
        return outcome

    def _apply(
        self,
        target: Target,
        record: Record,
        facts: Facts,
        given: Plan | None = None,
        *,
        accepts: bool = False,
    ) -> Outcome:
        """Bring the host to ``target``. ``accepts``: it is what the files hold now."""
        if record.state == "reboot-required":
            return Outcome("reboot-required", record.message, None, record)
        if record.state == "rollback-failed":
            return Outcome("rollback-failed", record.message, None, record)
        plan = self._plan(target, record, facts)
        if given is not None and (given.steps, given.desired) != (plan.steps, plan.desired):
            return Outcome("refused", "the host has changed since the plan was made", plan, record)
        if plan.verdict == "refused":
            return Outcome("refused", "; ".join(map(str, plan.findings[:3])), plan, record)
        if plan.verdict == "reboot-required":
            return self._stuck(record, plan, facts)
        return self._go(record, target, plan, facts, accepts=accepts)

    def reconcile(self, target: Target, *, act: bool = True, facts: Facts | None = None) -> Outcome:
        """Look once: detect a fault, repair or report drift, or apply what is not in force.

        With ``act`` False nothing is written to the kernel: what would be done is returned.
        ``facts`` saves a look if there was one a moment ago.
        """
        facts = facts or self.look()
        if not act:
            record = self.journal.record()
            if (broken := self._broken(record, facts, target)) is not None:
                return Outcome("degraded", broken, None, record)
        else:
            record, facts, fell = self._settled(target, facts)
            if fell is not None:
                return fell
            if is_released(record):
                return Outcome("unchanged", record.message, None, record)
        in_force = record.profile_digest == target.digest
        if record.state == "reboot-required":
            return Outcome("reboot-required", record.message, None, record)
        if record.state == "rollback-failed":
            return Outcome("rollback-failed", record.message, None, record)
        plan = self._plan(target, record, facts)
        if not plan.steps and plan.verdict == "ready" and in_force:
            return self._rest(record, facts, plan, act=act)
        if not act:
            return Outcome("drifted" if in_force else "pending", _words(plan), plan, record)
        settled = record.state in ("converged", "drifted", "degraded")
        if settled and in_force and plan.verdict == "ready":
            return self._drift(record, target, plan, facts)
        if settled and in_force and plan.verdict == "refused":
            return self._report_drift(record, plan, "OutOfReach", _words(plan))
        return self._apply(target, record, facts)

    def watch(self, facts: Facts | None = None) -> Outcome:
        """Look after a host without a profile: an unclean end, a reboot, a fault. Nothing else."""
        record, _, fell = self._settled(NOTHING_WANTED, facts)
        if fell is not None:
            return fell
        return Outcome(_result(record.state, changed=False), record.message, None, record)

    def resume(self) -> None:
        """Note that a host that was withdrawn by order is wanted again."""
        record = self.journal.record()
        if is_released(record):
            taken = self.chronicle.after(
                record, "clear", "TakenUp", "a profile is wanted here again"
            )
            with suppress(Rejected):  # whoever asks again asks for it anew
                self.chronicle.keep_record(taken)

    def fall_back(self, record: Record, facts: Facts, target: Target, reason: str) -> Outcome:
        """Turn the engine off once, in the safe order, and latch: the circuit breaker."""
        latched = replace(
            self.chronicle.after(record, "fault", "EngineFault", reason),
            latch="fault",
            latch_reason=reason,
            faults=record.faults + (record.latch != "fault"),
            engine_live=False,
        )
        off = engine_off(facts, record.tiers, stop_tiering=target.stop_tiering_on_fault)
        plan = make_plan(facts, off)
        try:
            Change(self._means, plan, facts, _undone_after_a_fault).carry_out(
                latched, must_journal=False
            )
        except StepFailed as failed:
            return self._end(latched, "stuck", "EngineStuck", f"{reason}; {failed}", plan)
        if record.state in lifecycle.AT_AN_END:
            words = f"{record.message}; then the engine faulted and was turned off: {reason}"
            return self._end(latched, "fault", record.reason, words, plan)
        return self._end(latched, "proven", "EngineFault", reason, plan)

    def rollback(self) -> Outcome:
        """Return the host to what it was before dsatier first wrote to it."""
        before, record = self.journal.originals(), self.journal.record()
        tiers = record.tiers
        if before is None and not record.profile_digest:
            return Outcome("unchanged", "there is nothing to roll back: dsatier wrote nothing")
        if before is None:  # the host was as its profile says: only what comes is called off
            return self._withdraw(None, lambda facts: Desired(tiers=tiers))
        return self._withdraw(before, lambda facts: from_originals(before, facts, tiers))

    def detach(self) -> Outcome:
        """Stop managing the host: as it was before, with every engine off."""
        before = self.journal.originals()
        tiers = self.journal.record().tiers
        return self._withdraw(before, lambda facts: released(before, facts, tiers), ENGINES["cpu"])

    def clear(self) -> Outcome:
        """Acknowledge a fault or a crash: the next apply may go up again.

        A fault that is found only now was seen by nobody, so it is not acknowledged.
        """
        record, facts, fell = self._settled(NOTHING_WANTED)
        if fell is not None:
            words = f"found just now: {fell.message}; when you have looked, clear again"
            return replace(fell, message=words)
        if record.state == "reboot-required":
            return Outcome("reboot-required", record.message, None, record)
        latched = record.latch != "none"
        message = f"acknowledged: {record.latch_reason}" if latched else "nothing is latched"
        cleared = replace(
            self.chronicle.after(record, "clear", "Cleared", message),
            latch="none",
            latch_reason="",
            log_mark=self.host.log_mark(),
            copy_fails=facts.timer.get("dsa_copy_fail", 0),
        )
        try:
            self.chronicle.keep_record(cleared)
        except Rejected as error:
            return Outcome("refused", f"cannot keep the acknowledgement: {error}", None, record)
        return Outcome("changed" if latched else "unchanged", message, None, cleared)

    # -- how they go about it ----------------------------------------------

    def _recovered(self, facts: Facts | None = None) -> tuple[Record, Facts]:
        """Recover, and return record and facts as they are then."""
        facts = facts or self.look()
        unclean = self.journal.motion() is not None
        record = self.recover(facts)
        return record, self.look() if unclean else facts  # the crash guard may have changed it

    def _settled(
        self, target: Target, facts: Facts | None = None
    ) -> tuple[Record, Facts, Outcome | None]:
        """Deal with what comes before every wish: an unclean end, a reboot, a fault.

        Returns record and facts as they are then, and how turning off an engine ended that has
        faulted, None where none has.
        """
        record, facts = self._recovered(facts)
        broken = self._broken(record, facts, target)
        if broken is not None:
            fell = self.fall_back(record, facts, target, broken)
            return fell.record or record, self.look(), fell
        fails = facts.timer.get("dsa_copy_fail", 0)
        if fails < record.copy_fails:  # the counter was reset: what it counts from now on is new
            record = replace(record, copy_fails=fails)
            with suppress(Rejected):
                self.journal.keep_record(record)
        return record, facts, None

    def _broken(self, record: Record, facts: Facts, target: Target) -> str | None:
        """Return what says that the engine has faulted, None where it is known or nothing does."""
        if record.latch == "fault":
            # dsatier ended before it turned the engine off; a write that hung is not made again
            left_on = record.state in lifecycle.AT_AN_END and on(facts, "use_dsa_copy_pages")
            return record.latch_reason if left_on and record.reason != "EngineStuck" else None
        # what a profile asks for that is not in force yet is no fault of the engine
        in_force = record.profile_digest == target.digest
        proven = target.desired if in_force else NOTHING_WANTED.desired
        return fault(record, facts, proven, self._tail(record, facts).lines)

    def _allowed(self, target: Target, record: Record, facts: Facts) -> Desired:
        if record.latch == "crash":
            return cpu_only(facts, target.desired.tiers)
        if record.latch == "fault":
            return with_cpu_engine(target.desired, facts, stop_tiering=target.stop_tiering_on_fault)
        return target.desired

    def _go(
        self,
        record: Record,
        target: Target,
        plan: Plan,
        facts: Facts,
        *,
        accepts: bool = False,
        repairs: tuple[str, ...] = (),
    ) -> Outcome:
        """Carry out a plan to ``target``. ``repairs`` are what it repairs, if it is for drift."""
        record = replace(record, boot_id=facts.kernel.boot_id, tiers=target.desired.tiers)
        force = replace(
            record,
            profile_digest=target.digest,
            profile_given=target.given,
            generation=record.generation + (record.profile_digest != target.digest),
        )
        if accepts and record.latch == "none":  # told with the state, not after it
            force = replace(force, profile_status="Accepted", profile_message="")
        if not plan.steps:
            return self._end(force, "proven", *_reached(record), plan)
        change = Change(self._means, plan, facts)
        dead_end = no_way_back(plan, facts, change.claim)
        if dead_end is not None:
            step, finding = dead_end
            return Outcome(
                "refused",
                f"no way back from step {step.number} ({step.what}): {finding}",
                plan,
                record,
            )
        undo = replace(
            originals(facts, target.desired.tiers, self.host.wall()), written=requests(plan)
        )
        moving = self.chronicle.after(record, "apply", "Applying", f"{len(plan.steps)} steps")
        try:
            change.carry_out(moving, must_journal=True)
        except NotJournalled as error:
            return Outcome("refused", str(error), plan, record)
        except StepFailed as failed:
            return self._revert(moving, undo, failed, plan)
        done = replace(force, state=moving.state, since=moving.since, conditions=moving.conditions)
        if repairs and moving.state == "converging":  # told with the state, not after it
            done = noted(done, repairs, self.host.monotonic(), target.drift.window)
        return self._end(done, "proven", *_reached(record), plan)

    def _revert(self, record: Record, undo: Originals, failed: StepFailed, plan: Plan) -> Outcome:
        """Undo a change that failed, by planning back from what is there now."""
        if failed.hung:
            return self._end(record, "stuck", "RequestHung", str(failed), plan)
        if record.state != "converging":
            return self._end(record, "failed", "StepFailed", str(failed), plan)
        record = self.chronicle.after(record, "failed", "StepFailed", str(failed))
        facts = self.look()
        back = prepare(facts, from_originals(undo, facts, plan.desired.tiers))
        if back.verdict != "ready":
            words = f"{failed}; no safe way back: {back.findings[0]}"
            return self._end(record, "stuck", "NoWayBack", words, plan)
        try:
            Change(self._means, back, facts).carry_out(record, must_journal=False)
        except StepFailed as again:
            words = f"{failed}; going back failed at {again}"
            event = "stuck" if again.hung else "failed"
            return self._end(record, event, "RollbackFailed", words, plan)
        words = "; ".join((str(failed), *not_restored(undo, facts, plan.desired.tiers)))
        return self._end(record, "restored", "StepFailed", words, plan)

    def _withdraw(
        self,
        before: Originals | None,
        wanted: Callable[[Facts], Desired],
        given_up: Collection[KnobName] = (),
    ) -> Outcome:
        """Go to what is ``wanted``. Of the originals stays what could not be brought back yet."""
        record, facts, _ = self._settled(NOTHING_WANTED)
        if record.state == "reboot-required":
            return Outcome("reboot-required", record.message, None, record)
        plan = prepare(facts, wanted(facts), guards=self._guards)
        if plan.verdict == "refused":
            return Outcome("refused", "; ".join(map(str, plan.findings[:3])), plan, record)
        if plan.verdict == "reboot-required":
            return self._stuck(record, plan, facts)
        moving = self.chronicle.after(record, "withdraw", "Withdrawing", f"{len(plan.steps)} steps")
        moving = replace(moving, boot_id=facts.kernel.boot_id, engine_live=False)
        try:
            Change(self._means, plan, facts).carry_out(moving, must_journal=True)
        except NotJournalled as error:
            return Outcome("refused", str(error), plan, record)
        except StepFailed as failed:
            event = "stuck" if failed.hung else "failed"
            return self._end(moving, event, "RollbackFailed", str(failed), plan)
        done = replace(moving, latch="none", latch_reason="", repairs=())
        done = replace(done, profile_digest="", profile_given=())
        lost = not_restored(before, facts, plan.desired.tiers) if before is not None else ()
        words = "; ".join(("dsatier no longer manages the host", *lost))
        outcome = self._end(done, "proven", WITHDRAWN, words, plan)
        self._forget(given_up)
        return outcome

    def _forget(self, given_up: Collection[KnobName]) -> None:
        """Forget the originals of all that is as it was: the rest may go back another time."""
        kept = self.journal.originals()
        if kept is None:
            return
        knobs = {name: value for name, value in kept.knobs.items() if name not in given_up}
        left = remaining(replace(kept, knobs=knobs), self.look())
        with suppress(Rejected):  # they are right for as long as nothing is applied
            if left is None:
                self.journal.forget_originals()
            else:
                self.journal.keep_originals(left)

    def _guard_crash(self, record: Record, motion: Motion, facts: Facts) -> Record:
        died = "the host" if motion.boot_id != facts.kernel.boot_id else "dsatier"
        reason = f"{died} ended in step {motion.step} of {motion.steps} ({motion.what})"
        guard = replace(
            self.chronicle.after(record, "crash", "UncleanEnd", reason),
            latch="crash",
            latch_reason=reason,
            boot_id=facts.kernel.boot_id,
            engine_live=False,
        )
        plan = prepare(facts, cpu_only(facts, record.tiers, self.journal.originals()))
        engine_on = on(facts, "use_dsa_copy_pages") or on(facts, "dsa_state")
        if plan.verdict != "ready" and engine_on:
            words = f"{reason}; {plan.findings[0]}"
            # what cannot be given back can still be left unused
            off = make_plan(facts, engine_off(facts, record.tiers, stop_tiering=False))
            try:
                Change(self._means, off, facts).carry_out(guard, must_journal=False)
            except StepFailed as failed:
                words = f"{words}; then {failed}"
            return self._end(guard, "stuck", plan.findings[0].name, words, plan).record or guard
        try:
            Change(self._means, plan, facts).carry_out(guard, must_journal=False)
        except StepFailed as failed:
            words = f"{reason}; then {failed}"
            return self._end(guard, "failed", "GuardFailed", words, plan).record or guard
        words = "; ".join((reason, *not_resumed(facts, record.tiers)))
        return self._end(guard, "proven", "UncleanEnd", words, plan).record or guard

    def _drift(self, record: Record, target: Target, plan: Plan, facts: Facts) -> Outcome:
        items = tuple(dict.fromkeys(step.what for step in plan.steps))
        fight = contested(record, plan.steps, target.drift, self.host.monotonic(), facts)
        if fight is not None:
            return self._report_drift(record, plan, "Contested", str(fight))
        if target.drift.policy == "report":
            return self._report_drift(record, plan, "Drift", _words(plan))
        outcome = self._go(record, target, plan, facts, repairs=items)
        if outcome.result == "refused":
            words = f"{outcome.message}; not repaired: {_words(plan)}"
            return self._report_drift(record, plan, "Unrepaired", words)
        if outcome.result != "changed":
            return outcome
        return replace(outcome, message=f"drift repaired: {', '.join(items)}")

    def _report_drift(self, record: Record, plan: Plan, reason: str, words: str) -> Outcome:
        drifted = self.chronicle.after(record, "drift", reason, words)
        same = (drifted.state, drifted.reason, drifted.message)
        if same != (record.state, record.reason, record.message):
            self.chronicle.keep_somewhere(drifted)
        return Outcome("drifted", words, plan, drifted)

    def _rest(self, record: Record, facts: Facts, plan: Plan, *, act: bool) -> Outcome:
        """Nothing to do. Drift that went by itself is over, and nodes may have come or gone."""
        if act and record.state == "drifted":
            return self._end(record, "proven", *_reached(record), plan)
        if act and record.state in ("unmanaged", "reverted"):
            return self._end(
                replace(record, boot_id=facts.kernel.boot_id), "proven", *_reached(record), plan
            )
        if act and record.tiers != plan.desired.tiers:
            record = replace(record, tiers=plan.desired.tiers)
            self.chronicle.keep_somewhere(record)
        return Outcome(_result(record.state, changed=False), record.message, plan, record)

    def _stuck(self, record: Record, plan: Plan, facts: Facts) -> Outcome:
        finding = next(f for f in plan.findings if f.level == "reboot")
        known = replace(record, boot_id=facts.kernel.boot_id)
        return self._end(known, "stuck", finding.name, str(finding), plan)

    def _tail(self, record: Record, facts: Facts) -> LogTail:
        if not record.engine_live or record.boot_id != facts.kernel.boot_id:
            return LogTail((), complete=True)
        return self.host.log_since(record.log_mark)

    def _end(self, record: Record, event: str, reason: str, message: str, plan: Plan) -> Outcome:
        """Come to rest: keep the record, then close the journal."""
        facts = self.look()
        was = record.state
        record = self.chronicle.after(record, event, reason, message)
        record = replace(
            record,
            boot_id=facts.kernel.boot_id,
            tiers=plan.desired.tiers,
            engine_live=on(facts, "use_dsa_copy_pages") and _proven_live(record),
            copy_fails=facts.timer.get("dsa_copy_fail", 0),
            log_mark=self.host.log_mark(),
        )
        changed = bool(plan.steps) and was in lifecycle.IN_MOTION
        if (trouble := self.chronicle.close(record)) is not None:
            message = f"{message}; {trouble}"
        return Outcome(_result(record.state, changed=changed), message, plan, record)


def _undone_after_a_fault(request: Request) -> bool:
    """Tell whether going back undoes what the breaker wrote: an engine that faulted stays off."""
    return not (isinstance(request, SetKnob) and request.knob in ENGINES["cpu"])


def _reached(record: Record) -> tuple[str, str]:
    """Return reason and message of having reached what the record's latch allows."""
    if record.latch != "none":
        return LATCHED[record.latch], record.latch_reason
    return "Proven", "every step is proven"


def _proven_live(record: Record) -> bool:
    """Tell whether an engine that is on was proven to copy: now, or before the last failure."""
    return record.state in ("converged", "reverted") or record.engine_live


def _words(plan: Plan) -> str:
    if plan.verdict != "ready":
        return "; ".join(map(str, plan.findings[:3]))
    return "; ".join(f"{step.what} (found {step.before})" for step in plan.steps)


def _result(state: str, *, changed: bool) -> Result:
    match state:
        case "converged" | "unmanaged":
            return "changed" if changed else "unchanged"
        case (
            "reverted"
            | "degraded"
            | "quarantined"
            | "drifted"
            | "rollback-failed"
            | "reboot-required"
        ):
            return state
    return "changed"
