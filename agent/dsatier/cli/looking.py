# SPDX-License-Identifier: Apache-2.0
"""The commands that look at a host and change nothing."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from dsatier.apply.driver import Driver
from dsatier.apply.history import entries
from dsatier.apply.journal import Journal
from dsatier.apply.status_document import idle
from dsatier.apply.target import Target, target
from dsatier.base.exits import (
    NO_PROFILE,
    NOT_COMPLIANT,
    OK,
    PENDING,
)
from dsatier.base.paths import HISTORY, STATUS
from dsatier.cli import cat_config, history, render, status
from dsatier.cli.explain import explain
from dsatier.cli.measure import measure
from dsatier.cli.opening import WrongUsage, applying, captured, open_host, sources, target_of
from dsatier.facts.model import Facts
from dsatier.facts.observe.observer import Observer
from dsatier.host import given, output
from dsatier.host.port import Host, Missing
from dsatier.plan.model import Finding, Plan
from dsatier.plan.rehearsal import prepare
from dsatier.profile import schema


def show_plan(options: Namespace) -> int:
    """Print what apply would do."""
    none = NO_PROFILE if options.detailed_exitcode else OK
    if options.facts is not None:
        plan = _captured_plan(options, none)
    else:
        with open_host(options) as host:
            facts, wanted = _wanted(options, host, none)
            driver = Driver(host)
            plan = driver.plan_for(wanted, driver.journal.record(), facts)
    _print(options, plan, render.plan)
    if plan.verdict != "ready":
        return NOT_COMPLIANT
    return PENDING if plan.steps and options.detailed_exitcode else OK


def _wanted(options: Namespace, host: Host, none: int) -> tuple[Facts, Target]:
    """Look at a host, and return that with what its profile wants. Raises as ``applying``."""
    facts = Observer(host).look()
    loaded = applying(options, host, facts, none)
    return facts, target_of(host, loaded, facts, Journal(host).originals())


def _captured_plan(options: Namespace, none: int) -> Plan:
    """Return the plan for a host whose facts were kept in a file. Raises as ``applying``."""
    facts = captured(options.facts)
    loaded = applying(options, None, facts, none)
    return _full_plan(facts, target(given.text, loaded, facts, None))


def _full_plan(facts: Facts, wanted: Target) -> Plan:
    """Return the plan to all that is wanted, whatever is latched."""
    return prepare(
        facts,
        wanted.desired,
        extra=wanted.extra,
        untouched=wanted.untouched,
        digest=wanted.digest,
    )


def verify(options: Namespace) -> int:
    """Print how the host differs from its profile."""
    with open_host(options) as host:
        facts, wanted = _wanted(options, host, NO_PROFILE)
        driver = Driver(host)
        outcome = driver.reconcile(wanted, act=False, facts=facts)
        record = driver.journal.record()
    plan = _full_plan(facts, wanted)  # a latch excuses nothing
    latched = outcome.message if outcome.result == "degraded" else record.latch_reason
    good = not plan.steps and plan.verdict == "ready" and not latched
    if options.json:
        _json(
            {
                "schema_version": 1,
                "compliant": good,
                "verdict": plan.verdict,
                "message": latched or outcome.message,
                "differences": [
                    {"what": s.what, "expected": s.after, "found": s.before} for s in plan.steps
                ],
            }
        )
        return OK if good else NOT_COMPLIANT
    for step in plan.steps:
        print(f"{step.what}: expected {step.after}, found {step.before}")
    for finding in plan.findings:
        print("\n".join(render.finding_lines(finding)))
    if latched:
        print(f"latched until `dsatier clear`: {latched}")
    if good:
        print("the host is as its profile says")
    return OK if good else NOT_COMPLIANT


def show_status(options: Namespace) -> int:
    """Print the status that the last run left."""
    with open_host(options) as host:
        try:
            text = host.read(STATUS)
        except Missing:
            text = ""
        return status.show(
            text, STATUS, as_json=options.json, now=host.wall(), one_line=options.check
        )


def show_history(options: Namespace) -> int:
    """Print what happened on the host."""
    with open_host(options) as host:
        try:
            since = None if options.since is None else history.since(options.since, host.wall())
        except ValueError as error:
            raise WrongUsage(f"--since: {error}") from error
        try:
            text = host.read(HISTORY)
        except Missing:
            text = ""
        name = host.hostname()
    found, odd = entries(text)
    if since is not None:
        found = tuple(entry for entry in found if entry.at >= since)
    if odd:
        lines = "line was" if odd == 1 else "lines were"
        output.tell(f"dsatier: {HISTORY}: {odd} {lines} not what dsatier wrote: left out")
    if options.json:
        _json(history.document(found, name, odd))
    else:
        print(history.screen(found, since))
    return OK


def show_facts(options: Namespace) -> int:
    """Print what the host is."""
    with open_host(options) as host:
        _print(options, Observer(host).look(), render.facts)
    return OK


def doctor(options: Namespace) -> int:
    """Print what the host lacks for its profile."""
    told: tuple[Finding, ...] = ()
    if options.facts is not None:
        plan = _captured_plan(options, NO_PROFILE)
    else:
        with open_host(options) as host:
            plan = _full_plan(*_wanted(options, host, NO_PROFILE))
            told = idle(Journal(host).record())
    found = (*plan.findings, *told)
    if options.json:
        findings = [schema.dump(finding) for finding in found]
        _json({"schema_version": 1, "reachable": plan.verdict == "ready", "findings": findings})
    else:
        for finding in found:
            print(str(finding))
        if plan.verdict == "ready":
            print(f"{plan.hostname}: the profile can be reached, in {len(plan.steps)} steps")
        else:
            print(f"{plan.hostname}: the profile cannot be reached: {plan.verdict}")
    return OK if plan.verdict == "ready" else NOT_COMPLIANT


def explain_field(options: Namespace) -> int:
    """Print where the value of a field comes from."""
    with open_host(options) as host:
        facts = Observer(host).look()
        loaded = sources(options, host, facts)
    try:
        found = explain(options.field, loaded, facts)
    except KeyError:
        from difflib import get_close_matches

        from dsatier.cli.explain import fields

        near = get_close_matches(options.field, fields(), 3, 0.4) or sorted(fields())
        raise WrongUsage(
            f"{options.field}: expected a field of the profile, as {', '.join(near)}"
        ) from None
    _print(options, found, str)
    return OK


def show_config(options: Namespace) -> int:
    """Print the merged profile, with the origin of each value."""
    with open_host(options) as host:
        loaded = sources(options, host, Observer(host).look())
    if options.json:
        _json(cat_config.to_json(loaded))
    else:
        print(cat_config.render(loaded), end="")
    return OK


def measure_command(options: Namespace) -> int:
    """Run a command, and print who copied pages meanwhile."""
    argv = options.argv
    if not argv:
        raise WrongUsage("measure: expected a command after --")
    with open_host(options) as host:
        measured = measure(host, argv)
    if options.json:
        _json({"schema_version": 1, **measured})
    else:
        width = max(map(len, measured["timer"]), default=0)
        print(f"exit code {measured['exit_code']}, {measured['seconds']:.3f} s", file=sys.stderr)
        for name, value in measured["timer"].items():
            print(f"{name:<{width}}  {value}{measured['units'].get(name, '')}")
    return int(measured["exit_code"])


def _json(data: Any) -> None:
    print(json.dumps(data, indent=2))


def _print(options: Namespace, value: Any, words: Callable[[Any], str]) -> None:
    if options.json:
        _json(schema.dump(value))
    else:
        print(words(value))
