# SPDX-License-Identifier: Apache-2.0
"""Rehearsal: a plan carried out on paper, under the interlock, before the first write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dsatier.facts.model import Facts
from dsatier.facts.readings import may_balance_untold, migration_quiet
from dsatier.plan.interlock import GUARDS, Circumstances, Guard, Refusal, refusals
from dsatier.plan.ladder import DESCENTS, LADDER, Rung
from dsatier.plan.model import Desired, Finding, Plan, Step
from dsatier.plan.originals import Originals
from dsatier.plan.planner import plan as make_plan
from dsatier.plan.projection import project
from dsatier.plan.requests import SetKnob
from dsatier.plan.requirements import REQUIREMENTS, Requirement, findings
from dsatier.plan.restore import from_originals


def prepare(
    facts: Facts,
    desired: Desired,
    *,
    extra: tuple[Finding, ...] = (),
    untouched: tuple[str, ...] = (),
    digest: str = "",
    guards: tuple[Guard, ...] = GUARDS,
    ladder: tuple[Rung, ...] = LADDER,
    descents: tuple[tuple[str, str, str], ...] = DESCENTS,
    requirements: tuple[Requirement, ...] = REQUIREMENTS,
) -> Plan:
    """Return the plan to ``desired`` with its verdict: required, planned and rehearsed."""
    found = (*extra, *findings(facts, desired, requirements))
    plan = make_plan(
        facts,
        desired,
        found,
        untouched=untouched,
        digest=digest,
        ladder=ladder,
        descents=descents,
    )
    objection = next(iter(rehearse(plan, facts, guards)), None)
    if objection is None:
        return plan
    step, refusal = objection
    finding = Finding(
        "blocker",
        "interlock",
        step.what,
        "a safe way there",
        refusal.reason,
        f"guard {refusal.guard} refuses it; come down first with `dsatier detach`",
    )
    return replace(plan, verdict="refused", findings=(finding, *found), steps=())


def rehearse(
    plan: Plan, facts: Facts, guards: tuple[Guard, ...] = GUARDS
) -> Iterator[tuple[Step, Refusal]]:
    """Yield what the interlock will refuse of ``plan``, with the step that asks for it."""
    quiet = 0.0
    told = False
    tiers = plan.desired.tiers
    for step in plan.steps:
        for request in step.requests:
            for refusal in refusals(request, Circumstances(facts, quiet, tiers), guards):
                yield step, refusal
            facts = project(facts, request, tiers)
            told = told or (isinstance(request, SetKnob) and request.knob == "numa_balancing")
        silent = migration_quiet(facts) and (told or not may_balance_untold(facts))
        quiet = quiet + step.settle if silent else 0.0


def foretold(plan: Plan, facts: Facts) -> Iterator[tuple[Step, Facts]]:
    """Yield the facts that each step of ``plan`` will leave behind if all goes well."""
    for step in plan.steps:
        for request in step.requests:
            facts = project(facts, request, plan.desired.tiers)
        yield step, facts


def no_way_back(plan: Plan, facts: Facts, before: Originals) -> tuple[Step, Finding] | None:
    """Return the first step of ``plan`` from which there is no safe way back, and why."""
    for step, then in foretold(plan, facts):
        back = prepare(then, from_originals(before, then, plan.desired.tiers))
        if back.verdict != "ready":
            return step, back.findings[0]
    return None
