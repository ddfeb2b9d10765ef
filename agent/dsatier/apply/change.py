# SPDX-License-Identifier: Apache-2.0
"""A change: a plan that is carried out, with all that a later run must know of it on disk first.

Before the first write the journal has the originals of what is written; before each step, that
it begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from dsatier.apply.chronicle import Chronicle
from dsatier.apply.execute import Progress, StepFailed, perform
from dsatier.apply.gate import Gate
from dsatier.apply.journal import Journal
from dsatier.apply.records import Motion, Record
from dsatier.facts.model import Facts
from dsatier.host.port import Host, Rejected
from dsatier.plan.model import Plan, Step
from dsatier.plan.originals import Originals
from dsatier.plan.ownership import claimed, settled
from dsatier.plan.requests import Request


class NotJournalled(Exception):
    """The journal could not be opened; nothing was written."""


@dataclass(frozen=True, slots=True)
class Means:
    """What every change of a host is made with."""

    host: Host
    journal: Journal
    chronicle: Chronicle
    gate: Gate
    holder: str
    progress: Callable[[Progress], None]
    turned_round: Callable[[], str | None]
    """Returns why what is being applied is to be undone, None where it may go on."""


class Change:
    """A plan for a host, with the originals of what it writes."""

    def __init__(
        self,
        means: Means,
        plan: Plan,
        facts: Facts,
        undone: Callable[[Request], bool] = lambda request: True,
    ) -> None:
        """What is written counts as dsatier's where it is ``undone`` by going back."""
        self._means = means
        self._plan = plan
        self._facts = facts
        self._undone = undone
        self._kept = means.journal.originals()
        self._before = self._kept
        self._taken_at = means.host.wall()
        self.claim = self._claimed(filter(undone, requests(plan)))
        """The originals once all of the plan is written."""

    def carry_out(self, record: Record, *, must_journal: bool) -> None:
        """Carry out the plan for a host of that record, each step noted before it.

        Raises StepFailed. Where it ``must_journal``, raises NotJournalled before the first write.
        """
        begun: list[Request] = []

        def begin(step: Step) -> None:
            if record.state == "converging" and (why := self._means.turned_round()):
                raise StepFailed(step, why)
            self._note(record, step, must=must_journal and step.number == 1)
            begun.extend(filter(self._undone, step.requests))

        self._keep(self.claim, must=must_journal)
        try:
            perform(self._means.host, self._means.gate, self._plan, begin, self._means.progress)
        except StepFailed:
            self._keep(self._claimed(begun), must=False)
            raise
        self._keep(settled(self.claim, begun), must=False)

    def _claimed(self, asked: Iterable[Request]) -> Originals:
        """Return the originals with those of what is ``asked``."""
        tiers = self._plan.desired.tiers
        return claimed(self._before, self._facts, tiers, asked, self._taken_at)

    def _keep(self, claim: Originals, *, must: bool) -> None:
        """Keep what is dsatier's. Before the first write it must succeed."""
        if claim == self._kept or (self._kept is None and not claim.written):
            return
        try:
            self._means.journal.keep_originals(claim)
        except Rejected as error:
            if must:
                raise NotJournalled(f"cannot keep what is there now: {error}") from error
        else:
            self._kept = claim

    def _note(self, record: Record, step: Step, *, must: bool) -> None:
        """Note in the journal which step begins. Only the first note must succeed."""
        journal, steps = self._means.journal, len(self._plan.steps)
        motion = Motion(
            schema_version=1,
            boot_id=self._plan.boot_id,
            state=record.state,
            began=record.since,
            holder=self._means.holder,
            step=step.number,
            steps=steps,
            what=step.what,
        )
        now = replace(record, message=f"step {step.number} of {steps}: {step.what}")
        try:
            journal.keep_motion(motion)
            if step.number == 1:
                journal.keep_record(now)
        except Rejected as error:
            if must:
                # a motion without a record in motion says nothing: the next run closes it, too
                with suppress(Rejected):
                    journal.close_motion()
                raise NotJournalled(f"cannot open the journal: {error}") from error
        with suppress(Rejected):  # the status is for people, and what is done does not rest on it
            self._means.chronicle.publish(now)


def requests(plan: Plan) -> tuple[Request, ...]:
    """Return all that a plan asks the gate for, in order."""
    return tuple(request for step in plan.steps for request in step.requests)
