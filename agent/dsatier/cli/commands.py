# SPDX-License-Identifier: Apache-2.0
"""The commands by name, and how each failure of one ends."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable

from dsatier import __version__
from dsatier.apply.driver import Driver
from dsatier.apply.journal import CorruptState
from dsatier.apply.lifecycle import TransitionRefused
from dsatier.base.exits import (
    BAD_PROFILE,
    CONFIGURATION,
    FAILED,
    LOCKED,
    OK,
    USAGE,
)
from dsatier.base.problem import Invalid, show
from dsatier.cli import driving, looking, orders
from dsatier.cli.check import check
from dsatier.cli.opening import NoProfile, WrongUsage
from dsatier.cli.options import parser
from dsatier.daemon import main, schedule
from dsatier.daemon.main import say
from dsatier.host.port import HostDown, HostError, Locked


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
        return say(error, USAGE)
    except Invalid as invalid:
        return say(invalid, BAD_PROFILE)
    except NoProfile as none:
        why = f" ({none})" if str(none) else ""
        return say(f"no profile applies to this host{why}: it is left as it is", none.code)
    except Locked as locked:
        return say(f"another dsatier is at work: {locked.holder}", LOCKED)
    except CorruptState as spoilt:
        return say(spoilt, CONFIGURATION)
    except TransitionRefused as refused:
        return say(refused, FAILED)
    except HostDown as down:
        return say(f"the host is down: {down.message}", FAILED)
    except HostError as error:
        return say(error, FAILED)


def _rooted(options: Namespace) -> None:
    root = getattr(options, "root", None)
    if root is not None and not os.path.isdir(root):
        raise WrongUsage(f"--root: expected a directory, found '{show(root, 4096)}'")


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


def _demo(options: Namespace) -> int:
    from dsatier.cli.demo import demo

    return demo(fast=options.fast)


def _install_service(options: Namespace) -> int:
    from dsatier.cli.service import install_service

    return _with_files(install_service, options)


def _uninstall_service(options: Namespace) -> int:
    from dsatier.cli.service import uninstall_service

    return _with_files(uninstall_service, options)


def _with_files(verb: Callable[..., int], options: Namespace) -> int:
    try:
        return verb(options.root, dry_run=options.dry_run)
    except OSError as error:
        return say(error, FAILED)


VERBS: dict[str, Callable[[Namespace], int]] = {
    "check": check,
    "plan": looking.show_plan,
    "apply": driving.apply,
    "reconcile": driving.reconcile,
    "verify": looking.verify,
    "status": looking.show_status,
    "history": looking.show_history,
    "daemon": _daemon,
    "reload": _reload,
    "wait": _wait,
    "nudge": _nudge,
    "simulate": _simulate,
    "rollback": driving.withdraw(Driver.rollback),
    "detach": driving.withdraw(Driver.detach),
    "clear": driving.withdraw(Driver.clear),
    "facts": looking.show_facts,
    "doctor": looking.doctor,
    "explain": looking.explain_field,
    "cat-config": looking.show_config,
    "measure": looking.measure_command,
    "install-service": _install_service,
    "uninstall-service": _uninstall_service,
    "demo": _demo,
}
