# SPDX-License-Identifier: Apache-2.0
"""The commands: each verb opens a host, does its work and words the result."""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import sys
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from dsatier import __version__
from dsatier.apply.driver import Driver
from dsatier.apply.execute import Progress
from dsatier.apply.history import entries
from dsatier.apply.journal import HISTORY, LOCK, STATUS, Journal, Spoilt
from dsatier.apply.lifecycle import NotNow
from dsatier.apply.outcome import Outcome
from dsatier.apply.target import Target, target
from dsatier.base.exits import (
    BAD_PROFILE,
    CONFIGURATION,
    FAILED,
    LOCKED,
    NO_PROFILE,
    NOT_COMPLIANT,
    OK,
    PENDING,
    RESULTS,
    USAGE,
)
from dsatier.base.problem import Invalid, Problem, show
from dsatier.cli import cat_config, history, orders, render, status
from dsatier.cli.explain import explain
from dsatier.cli.measure import measure
from dsatier.cli.options import parser
from dsatier.cli.simulated import of_daemon, take
from dsatier.control.client import NoAnswer, NoDaemon, ask
from dsatier.control.protocol import folder
from dsatier.daemon import main, schedule
from dsatier.facts.model import Facts
from dsatier.facts.observe.observer import Observer
from dsatier.host import given, output
from dsatier.host.files import FileHost
from dsatier.host.port import Host, HostDown, HostError, Locked, Missing
from dsatier.plan.model import Plan
from dsatier.plan.rehearsal import prepare
from dsatier.profile import schema
from dsatier.profile.dropins import find, read_named
from dsatier.profile.load import Loaded, from_texts, load
from dsatier.profile.yaml import MAX_BYTES

if TYPE_CHECKING:
    from dsatier.plan.originals import Originals
    from dsatier.sim.host import SimHost

TURNING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
"""The signals that turn a change round. SIGHUP: the terminal is gone, as a closed ssh session."""


class WrongUsage(Exception):
    """The words of the command line do not fit together, or name what is not there."""


def run(argv: list[str]) -> int:
    """Run the command line and return its exit code."""
    words, command = argv, []
    if argv[:1] == ["measure"] and "--" in argv:
        # what stands after -- is another command's: argparse must not read it
        at = argv.index("--")
        words, command = argv[:at], argv[at + 1 :]
    options = parser().parse_args(words)
    if options.version:
        print(f"dsatier {__version__}")
        return OK
    if options.command is None:
        parser().print_help(sys.stderr)
        return USAGE
    try:
        _rooted(options)
        if options.command == "measure":
            options.argv += command
        return VERBS[options.command](options)
    except WrongUsage as error:
        return _say(error, USAGE)
    except Invalid as invalid:
        return _say(invalid, BAD_PROFILE)
    except NoProfile as none:
        why = f" ({none})" if str(none) else ""
        return _say(f"no profile applies to this host{why}: it is left as it is", none.code)
    except Locked as locked:
        return _say(f"another dsatier is at work: {locked.holder}", LOCKED)
    except Spoilt as spoilt:
        return _say(spoilt, CONFIGURATION)
    except NotNow as refused:
        return _say(refused, FAILED)
    except HostDown as down:
        return _say(f"the host is down: {down.message}", FAILED)
    except HostError as error:
        return _say(error, FAILED)


def _rooted(options: Namespace) -> None:
    root = getattr(options, "root", None)
    if root is not None and not os.path.isdir(root):
        raise WrongUsage(f"--root: expected a directory, found '{show(root, 4096)}'")


def _say(message: object, code: int) -> int:
    output.report(f"dsatier: {message}", error=True)
    return code


# -- opening hosts and profiles ------------------------------------------------


@contextmanager
def _open(options: Namespace) -> Iterator[Host]:
    """Yield the host that the options name; a simulated one's state is kept if asked."""
    if options.host is None:
        if options.sim_state is not None:
            raise WrongUsage("--sim-state goes with --host sim:FILE")
        files = FileHost("/" if options.root is None else options.root)
        simulated = _simulated_there(files)
        if simulated is not None and options.command == "measure":
            raise WrongUsage(
                f"measure: the daemon below {files.root} keeps a simulated host ({simulated}), on "
                f"which no page is copied"
            )
        looks = simulated is not None and options.command in LOOKS
        yield of_daemon(files) if looks else files
        return
    kind, _, name = options.host.partition(":")
    if kind != "sim" or not name:
        raise WrongUsage(f"--host: expected sim:NAME or sim:FILE.yaml, found {options.host}")
    if options.root is not None:
        raise WrongUsage("--host and --root exclude each other")
    with _simulated(name, options.sim_state) as host:
        yield host


LOOKS = frozenset({"facts", "plan", "verify", "doctor", "explain", "cat-config"})
"""The commands that look at the kernel's files, and take no lock that a daemon holds."""


def _simulated_there(host: FileHost) -> str | None:
    """Return the words for the simulated host of a daemon that lives below a root, if one does."""
    try:
        daemon = status.parse(host.read(STATUS))["daemon"]
        words, process = daemon["simulated"], daemon["pid"]
    except (HostError, ValueError, LookupError, TypeError):
        return None
    return str(words) if words and status.alive(process) else None


@contextmanager
def _simulated(name: str, state: str | None) -> Iterator[Host]:
    from dsatier.sim.host import SimHost

    try:
        fresh = SimHost.host_for(name)
    except ValueError as error:
        raise WrongUsage(f"--host sim:{name}: {error}") from error
    if state is None:
        yield fresh
        return
    with _kept(state) as stream:
        host = _restored(state, fresh, name)
        try:
            yield host
        finally:
            _keep(stream, state, host.state_text())


@contextmanager
def _kept(state: str) -> Iterator[int]:
    """Yield the open file that keeps a simulated host; one command has it at a time."""
    try:
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(os.stat(state).st_mode):
                raise OSError(errno.EINVAL, "Not a regular file")
        file = os.open(state, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except (OSError, ValueError) as error:
        raise _wrong(state, "a file that can be written", error) from error
    try:
        take(file, state)  # as the lock of a real host would have it
        yield file
    finally:
        os.close(file)


def _restored(state: str, fresh: SimHost, name: str) -> SimHost:
    from dsatier.sim.host import SimHost

    text = given.text(state)
    if not text:
        return fresh
    try:
        host = SimHost.restore(text)
    except ValueError as error:
        raise _wrong(state, "what --sim-state has kept", error) from error
    if host.kernel.spec != fresh.kernel.spec:
        other = ValueError(f"that of another host ({host.kernel.spec.hostname})")
        raise _wrong(state, f"the state of sim:{name}", other)
    return host


def _keep(file: int, state: str, text: str) -> None:
    data = text.encode()
    try:
        os.pwrite(file, data, 0)
        os.ftruncate(file, len(data))
    except OSError as error:
        raise _wrong(state, "room for the simulated host's state", error) from error


def _wrong(path: str, expected: str, error: OSError | ValueError) -> Invalid:
    found = (getattr(error, "strerror", None) or str(error)).lower()
    return Invalid([Problem(path, 0, 0, (), expected, found)])


def _sources(options: Namespace, host: Host | None, facts: Facts | None) -> Loaded:
    if options.profile:
        # its bytes as they are: whoever reads the YAML tells where one is no UTF-8
        texts = [
            (name, given.read(name, MAX_BYTES).decode(errors="surrogateescape"))
            for name in options.profile
        ]
        return from_texts(texts, facts)
    if host is None:
        raise WrongUsage("--facts goes with --profile")
    return load(find(host), facts)


def _holder(options: Namespace) -> str:
    return f"dsatier {options.command}, process {os.getpid()}"


def _progress(options: Namespace) -> Callable[[Progress], None]:
    def tell(one: Progress) -> None:
        if sys.stderr.isatty() and one.outcome is None:
            output.tell(render.progress(one), end="\r")
        elif one.outcome is not None:
            output.tell(render.progress(one))

    return (lambda one: None) if getattr(options, "quiet", False) else tell


class NoProfile(Exception):
    """No profile applies to this host."""

    def __init__(self, loaded: Loaded, code: int) -> None:
        super().__init__("; ".join(f"{one.path}: {one.reason}" for one in loaded.skipped))
        self.code = code


def _applying(options: Namespace, host: Host | None, facts: Facts, none: int) -> Loaded:
    """Return the profile of a host. Raises NoProfile, with the exit code ``none``."""
    loaded = _sources(options, host, facts)
    if loaded.profile is None:
        # a file that was named must apply; drop-ins may all be for other hosts
        raise NoProfile(loaded, FAILED if options.profile else none)
    return loaded


def _wanted(host: Host, loaded: Loaded, facts: Facts, before: Originals | None) -> Target:
    """Return what a profile wants of a host, with the files that it names there."""
    return target(partial(read_named, host), loaded, facts, before)


@contextmanager
def _driving(options: Namespace) -> Iterator[tuple[Driver, Target]]:
    """Yield a driver that holds the host's lock, and what the profile wants."""
    with _open(options) as host, host.lock(LOCK, _holder(options)):
        facts = Observer(host).look()
        if getattr(options, "plan", None) is None:
            loaded = _applying(options, host, facts, OK)
        else:
            loaded = _sources(options, host, facts)
        driver = Driver(
            host,
            holder=_holder(options),
            progress=_progress(options),
        )
        with _interruptible(driver), _chronicled(driver):
            before = driver.journal.originals()
            wanted = _wanted(host, loaded, facts, before)
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


# -- verbs -----------------------------------------------------------------------


def _check(options: Namespace) -> int:
    from dsatier.profile.check import check_main

    words = [f"--as={instead}" for instead in [getattr(options, "as")] if instead is not None]
    words += ["--json"] if options.json else []
    return check_main([*words, "--", *options.files]) or OK


def _plan(options: Namespace) -> int:
    none = NO_PROFILE if options.detailed_exitcode else OK
    if options.facts is not None:
        facts = _captured(options.facts)
        loaded = _applying(options, None, facts, none)
        plan = _full_plan(facts, target(given.text, loaded, facts, None))
    else:
        with _open(options) as host:
            facts = Observer(host).look()
            loaded = _applying(options, host, facts, none)
            driver = Driver(host)
            wanted = _wanted(host, loaded, facts, driver.journal.originals())
            plan = driver.plan_for(wanted, driver.journal.record())
    _print(options, plan, render.plan)
    if plan.verdict != "ready":
        return NOT_COMPLIANT
    return PENDING if plan.steps and options.detailed_exitcode else OK


def _full_plan(facts: Facts, wanted: Target) -> Plan:
    """Return the plan to all that is wanted, whatever is latched."""
    return prepare(
        facts,
        wanted.desired,
        extra=wanted.extra,
        untouched=wanted.untouched,
        digest=wanted.digest,
    )


def _apply(options: Namespace) -> int:
    given = _given(options.plan) if options.plan is not None else None
    with _driving(options) as (driver, wanted):
        if given is None:
            return _ended(options, driver.apply(wanted))
        # the plan carries what is desired: it needs no profile beside it
        planned = Target(given.desired, given.profile_digest, untouched=given.untouched)
        return _ended(options, driver.apply(planned, given))


def _reconcile(options: Namespace) -> int:
    with _driving(options) as (driver, wanted):
        return _ended(options, driver.reconcile(wanted))


def _verify(options: Namespace) -> int:
    with _open(options) as host:
        facts = Observer(host).look()
        loaded = _applying(options, host, facts, NO_PROFILE)
        driver = Driver(host)
        wanted = _wanted(host, loaded, facts, driver.journal.originals())
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


def _status(options: Namespace) -> int:
    with _open(options) as host:
        try:
            text = host.read(STATUS)
        except Missing:
            text = ""
        return status.show(
            text, STATUS, as_json=options.json, now=host.wall(), one_line=options.check
        )


def _history(options: Namespace) -> int:
    with _open(options) as host:
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


def _withdraw(verb: Callable[[Driver], Outcome]) -> Callable[[Namespace], int]:
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
                return _say(f"{options.command}: only root may give orders to the daemon", FAILED)
            except NoAnswer as error:
                return _say(error, FAILED)
            else:
                return orders.answered(answer, as_json=options.json)
        with _open(options) as host, host.lock(LOCK, _holder(options)):
            driver = Driver(
                host,
                holder=_holder(options),
                progress=_progress(options),
            )
            # going back is finished, whatever comes
            with _interruptible(driver), _chronicled(driver):
                return _ended(options, verb(driver))

    return command


def _facts(options: Namespace) -> int:
    with _open(options) as host:
        _print(options, Observer(host).look(), render.facts)
    return OK


def _doctor(options: Namespace) -> int:
    if options.facts is not None:
        facts = _captured(options.facts)
        loaded = _applying(options, None, facts, NO_PROFILE)
        plan = _full_plan(facts, target(given.text, loaded, facts, None))
    else:
        with _open(options) as host:
            facts = Observer(host).look()
            loaded = _applying(options, host, facts, NO_PROFILE)
            before = Journal(host).originals()
            plan = _full_plan(facts, _wanted(host, loaded, facts, before))
    if options.json:
        findings = [schema.dump(finding) for finding in plan.findings]
        _json({"schema_version": 1, "reachable": plan.verdict == "ready", "findings": findings})
    else:
        for finding in plan.findings:
            print(str(finding))
        if plan.verdict == "ready":
            print(f"{facts.hostname}: the profile can be reached, in {len(plan.steps)} steps")
        else:
            print(f"{facts.hostname}: the profile cannot be reached: {plan.verdict}")
    return OK if plan.verdict == "ready" else NOT_COMPLIANT


def _explain(options: Namespace) -> int:
    with _open(options) as host:
        facts = Observer(host).look()
        loaded = _sources(options, host, facts)
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


def _cat_config(options: Namespace) -> int:
    with _open(options) as host:
        loaded = _sources(options, host, Observer(host).look())
    if options.json:
        _json(cat_config.to_json(loaded))
    else:
        print(cat_config.render(loaded), end="")
    return OK


def _measure(options: Namespace) -> int:
    argv = options.argv
    if not argv:
        raise WrongUsage("measure: expected a command after --")
    with _open(options) as host:
        measured = measure(host, argv)
    if options.json:
        _json({"schema_version": 1, **measured})
    else:
        width = max(map(len, measured["timer"]), default=0)
        print(f"exit code {measured['exit_code']}, {measured['seconds']:.3f} s", file=sys.stderr)
        for name, value in measured["timer"].items():
            print(f"{name:<{width}}  {value}{measured['units'].get(name, '')}")
    return int(measured["exit_code"])


def _demo(options: Namespace) -> int:
    from dsatier.cli.demo import demo

    return demo(fast=options.fast)


# -- words ---------------------------------------------------------------------------


def _json(data: Any) -> None:
    print(json.dumps(data, indent=2))


def _print(options: Namespace, value: Any, words: Callable[[Any], str]) -> None:
    if options.json:
        _json(schema.dump(value))
    else:
        print(words(value))


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


def _captured(path: str) -> Facts:
    return schema.validate_text(Facts, given.text(path), path)


def _given(path: str) -> Plan:
    return schema.validate_text(Plan, given.text(path), path)


def _seconds(text: str | None, default: float) -> float:
    if text is None:
        return default
    try:
        seconds = float(text)
    except ValueError:
        raise WrongUsage(f"--timeout: expected seconds, found {show(text)}") from None
    if not 0 <= seconds < float("inf"):
        raise WrongUsage(f"--timeout: expected seconds, found {show(text)}")
    return seconds


def _daemon(options: Namespace) -> int:
    if options.sim_state is not None:
        raise WrongUsage("--sim-state is for single commands: the daemon keeps its own")
    return main.daemon(options.root, options.host, options.log_level or "info")


def _reload(options: Namespace) -> int:
    seconds = _seconds(options.timeout, schedule.RELOADING)
    return orders.order("reload", options.root, options.json, options.quiet, timeout=seconds)


def _nudge(options: Namespace) -> int:
    return orders.order("nudge", options.root, options.json)


def _wait(options: Namespace) -> int:
    return orders.wait(options.root, _seconds(options.timeout, orders.WAITING))


def _simulate(options: Namespace) -> int:
    return orders.simulate(options.act, options.root)


VERBS: dict[str, Callable[[Namespace], int]] = {
    "check": _check,
    "plan": _plan,
    "apply": _apply,
    "reconcile": _reconcile,
    "verify": _verify,
    "status": _status,
    "history": _history,
    "daemon": _daemon,
    "reload": _reload,
    "wait": _wait,
    "nudge": _nudge,
    "simulate": _simulate,
    "rollback": _withdraw(Driver.rollback),
    "detach": _withdraw(Driver.detach),
    "clear": _withdraw(Driver.clear),
    "facts": _facts,
    "doctor": _doctor,
    "explain": _explain,
    "cat-config": _cat_config,
    "measure": _measure,
    "demo": _demo,
}
