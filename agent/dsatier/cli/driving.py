# SPDX-License-Identifier: Apache-2.0
"""The commands that change a host, or have it taken back: each holds the host's lock."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from dsatier.apply.driver import Driver
from dsatier.apply.execute import Progress
from dsatier.apply.outcome import Outcome
from dsatier.apply.target import Target
from dsatier.base.exits import (
    FAILED,
    OK,
    RESULTS,
)
from dsatier.base.paths import LOCK
from dsatier.cli import orders, render
from dsatier.cli.opening import applying, open_host, sources, target_of
from dsatier.control.client import NoAnswer, NoDaemon, ask
from dsatier.control.protocol import folder
from dsatier.daemon import schedule
from dsatier.daemon.main import say
from dsatier.facts.observe.observer import Observer
from dsatier.host import given, output
from dsatier.plan.model import Plan
from dsatier.profile import schema

TURNING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""The signals that turn a change round. SIGHUP: the terminal is gone, as a closed ssh session."""


def _holder(options: Namespace) -> str:
    return f"dsatier {options.command}, process {os.getpid()}"


def _progress(options: Namespace) -> Callable[[Progress], None]:
    def tell(one: Progress) -> None:
        if sys.stderr.isatty() and one.outcome is None:
            output.tell(render.progress(one), end="\r")
        elif one.outcome is not None:
            output.tell(render.progress(one))

    return (lambda one: None) if getattr(options, "quiet", False) else tell


@contextmanager
def _driving(options: Namespace) -> Iterator[tuple[Driver, Target]]:
    """Yield a driver that holds the host's lock, and what the profile wants."""
    with open_host(options) as host, host.lock(LOCK, f"dsatier {options.command}"):
        facts = Observer(host).look()
        if getattr(options, "plan", None) is None:
            loaded = applying(options, host, facts, OK)
        else:
            loaded = sources(options, host, facts)
        driver = Driver(
            host,
            holder=_holder(options),
            progress=_progress(options),
        )
        with _interruptible(driver), _chronicled(driver):
            before = driver.journal.originals()
            wanted = target_of(host, loaded, facts, before)
            named = tuple(map(os.path.abspath, options.profile or ()))
            yield driver, replace(wanted, given=named)


@contextmanager
def _interruptible(driver: Driver) -> Iterator[None]:
    """Let signals turn a change round instead of leaving it half done.

    A signal that is ignored (``nohup``) stays ignored.
    """

    def turn_round(number: int, frame: object) -> None:
        driver.interrupt()
        output.tell_at_once(f"dsatier: {signal.Signals(number).name}: turning round")

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = {
        number: signal.signal(number, turn_round)
        for number in TURNING
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _chronicled(driver: Driver) -> Iterator[None]:
    """Say at the end why the history lacks what happened, if it does."""
    try:
        yield
    finally:
        if why := driver.journal.untold:
            output.tell(f"dsatier: not in the history: {why}")


def apply(options: Namespace) -> int:
    """Bring the host to its profile, or carry out a plan that was made before."""
    given = _given(options.plan) if options.plan is not None else None
    with _driving(options) as (driver, wanted):
        if given is None:
            return _ended(options, driver.apply(wanted))
        # the plan carries what is desired: it needs no profile beside it
        planned = Target(given.desired, given.profile_digest, untouched=given.untouched)
        return _ended(options, driver.apply(planned, given))


def reconcile(options: Namespace) -> int:
    """Look once: repair, report, or apply what is not in force."""
    with _driving(options) as (driver, wanted):
        return _ended(options, driver.reconcile(wanted))


def withdraw(verb: Callable[[Driver], Outcome]) -> Callable[[Namespace], int]:
    """Return the command that has the daemon, or else this process, do ``verb``."""

    def command(options: Namespace) -> int:
        if options.host is None:
            try:
                answer = ask(
                    folder(options.root),
                    {"command": options.command},
                    schedule.ORDERING,
                )
            except (NoDaemon, FileNotFoundError):
                pass  # then it is done here
            except PermissionError:
                return say(f"{options.command}: only root may give orders to the daemon", FAILED)
            except NoAnswer as error:
                return say(error, FAILED)
            else:
                return orders.answered(answer, as_json=options.json)
        with open_host(options) as host, host.lock(LOCK, f"dsatier {options.command}"):
            driver = Driver(
                host,
                holder=_holder(options),
                progress=_progress(options),
            )
            # going back is finished, whatever comes
            with _interruptible(driver), _chronicled(driver):
                return _ended(options, verb(driver))

    return command


def _given(path: str) -> Plan:
    return schema.validate_text(Plan, given.text(path), path)


def _ended(options: Namespace, outcome: Outcome) -> int:
    if options.json:
        whole = {
            "schema_version": 1,
            "result": outcome.result,
            "message": outcome.message,
            "state": outcome.record.state if outcome.record else None,
            "plan": schema.dump(outcome.plan) if outcome.plan else None,
        }
        output.report(json.dumps(whole, indent=2))
    else:
        if outcome.result == "refused" and outcome.plan is not None:
            for finding in outcome.plan.findings:
                output.tell("\n".join(render.finding_lines(finding)))
        output.report(render.outcome(outcome), error=bool(RESULTS[outcome.result]))
    return RESULTS[outcome.result]
