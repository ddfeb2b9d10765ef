# SPDX-License-Identifier: Apache-2.0
"""Performing a plan: its requests through the gate, each step proven before the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tenacity import RetryCallState, Retrying, retry_if_result, wait_exponential

from dsatier.apply.gate import Gate, Refused
from dsatier.facts.model import Facts
from dsatier.facts.readings import migration_quiet
from dsatier.facts.tiers import Tiers
from dsatier.host.port import Host, HostDown, HostError, Hung
from dsatier.plan.evidence import FINAL, Configured, Evidence, IommuIs, Stopped
from dsatier.plan.model import Plan, Step

POLL = 0.05
"""Seconds between two looks for evidence, at first; doubles up to a second."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A step that begins, or how it ended (``outcome`` is not None)."""

    step: Step
    of: int
    outcome: str | None = None
    waited: float = 0.0
    """Seconds since the step began."""


class StepFailed(Exception):
    """A step had no effect that could be proven, was refused, or hung."""

    def __init__(self, step: Step, reason: str, *, hung: bool = False) -> None:
        super().__init__(f"step {step.number} ({step.what}): {reason}")
        self.step = step
        self.reason = reason
        self.hung = hung


def perform(
    host: Host,
    gate: Gate,
    plan: Plan,
    begin: Callable[[Step], None],
    progress: Callable[[Progress], None],
) -> None:
    """Carry out a plan's steps, each proven before the next.

    ``begin`` is called before each step. Raises what it raises, StepFailed and HostDown.
    """
    mark = host.log_mark()
    for step in plan.steps:
        begin(step)
        began = host.monotonic()
        progress(Progress(step, len(plan.steps)))
        if step.requests:
            mark = host.log_mark()
        try:
            complaint = _submit(gate, step, plan.desired.tiers)
            _settle(host, gate, step)
            _await_evidence(host, gate, step, complaint, mark)
        except StepFailed as failed:
            waited = host.monotonic() - began
            progress(Progress(step, len(plan.steps), failed.reason, waited))
            raise
        waited = host.monotonic() - began
        progress(Progress(step, len(plan.steps), "proven", waited))


def _submit(gate: Gate, step: Step, tiers: Tiers) -> str | None:
    """Hand a step's requests to the gate; return a command's complaint, if there was one."""
    complaint = None
    for request in step.requests:
        try:
            complaint = gate.submit(request, step.deadline, tiers) or complaint
        except Refused as refused:
            raise StepFailed(step, str(refused)) from refused
        except Hung as hung:
            raise StepFailed(step, str(hung), hung=True) from hung
        except HostDown:
            raise
        except HostError as error:
            raise StepFailed(step, f"the host refused: {error}") from error
    return complaint


def _settle(host: Host, gate: Gate, step: Step) -> None:
    until = host.monotonic() + step.settle
    while host.monotonic() < until:
        host.sleep(min(0.5, max(until - host.monotonic(), 0.001)))
        gate.answer(migration_quiet)  # the gate keeps the time for which it has been


def _device_of(evidence: Evidence) -> str | None:
    """Return the DSA device that evidence is about, None where it is about none, or about all."""
    match evidence:
        case Configured(config):
            return config.id
        case Stopped(name) | IommuIs(name):
            return name
    return None


def _await_evidence(host: Host, gate: Gate, step: Step, complaint: str | None, mark: int) -> None:
    until = host.monotonic() + (0.0 if complaint else step.deadline)
    devices = {name for e in step.evidence if (name := _device_of(e)) is not None}

    def lacks(facts: Facts) -> list[tuple[Evidence, str]]:
        log = host.log_since(mark)  # later than what it is to explain
        return [(e, m) for e in step.evidence if (m := e.missing(facts, log)) is not None]

    looks = Retrying(
        retry=retry_if_result(_may_come),
        stop=lambda _: host.monotonic() >= until,
        wait=wait_exponential(multiplier=POLL, max=1.0),
        sleep=host.sleep,
        retry_error_callback=_last,
    )
    if missing := looks(gate.answer, lacks, devices):
        words = "; ".join(filter(None, (*(words for _, words in missing), complaint)))
        raise StepFailed(step, f"no evidence: {words}")


def _may_come(missing: list[tuple[Evidence, str]]) -> bool:
    """Tell whether it makes sense to wait for evidence that is missing."""
    return bool(missing) and not any(isinstance(one, FINAL) for one, _ in missing)


def _last(looks: RetryCallState) -> Any:
    return looks.outcome and looks.outcome.result()
