# SPDX-License-Identifier: Apache-2.0
"""``dsatier daemon``, and the commands that speak with it.

They import little: the daemon stays for months, and the others are run by the thousand.
"""

from __future__ import annotations

import os
import sys
import time

from dsatier import output, pace
from dsatier.exits import CONFIGURATION, FAILED, LOCKED, NOT_RUNNING, OK, USAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import ExitStack
    from typing import Any

    from dsatier.host import Host
    from dsatier.intent import AtStart
    from dsatier.journal import Known
    from dsatier.watch import Watch

FOLDER = "/run/dsatier"
WAITING = 600.0
DAEMON_NAME = "dsatier daemon"
IN_KERNEL = 20.0
"""Seconds that a write gets to come back whose daemon is gone."""
ORDERING = 900.0
"""Seconds that rollback and release may take."""
_LOOK = 0.2
_STUCK = ("degraded", "quarantined", "rollback-failed", "reboot-required")
"""States that do not become converged without somebody."""


def parse(words: list[str], options: Mapping[str, type]) -> dict[str, Any] | None:
    """Return the values of ``--name VALUE`` options, None for anything else.

    argparse takes more time and memory than all that these commands do; whatever is not
    this plain goes to it, and it tells what is wrong.
    """
    found: dict[str, Any] = {}
    left = list(words)
    while left:
        name, equals, value = left.pop(0).partition("=")
        kind = options.get(name)
        if kind is None or (kind is bool and equals) or (kind is not bool and not (equals or left)):
            return None
        try:
            found[name[2:].replace("-", "_")] = (
                True if kind is bool else kind(value if equals else left.pop(0))
            )
        except ValueError:
            return None
    return found


def folder(root: str | None) -> str:
    """Return the machine's own path of /run/dsatier below ``root``."""
    return (root or "").rstrip("/") + FOLDER


# -- the daemon ------------------------------------------------------------------

DAEMON = {"--root": str, "--host": str, "--log-level": str}


def daemon_main(words: list[str]) -> int | None:
    """Run the daemon. Returns None where the words need the whole command line."""
    options = parse(words, DAEMON)
    return None if options is None else daemon(**options)


def daemon(root: str | None = None, host: str | None = None, log_level: str = "info") -> int:
    """Run the daemon until it is told to end, and return the exit code."""
    import gc

    gc.disable()  # all that is loaded here stays; looking for rubbish in it takes a seventh of it
    from contextlib import ExitStack

    from sdnotify import SystemdNotifier  # type: ignore[import-untyped]

    from dsatier import apart, log
    from dsatier.host import HostError, Locked
    from dsatier.journal import Spoilt

    try:
        logger = log.logger(sys.stderr, log.is_journal(os.environ, sys.stderr), log_level)
    except ValueError as error:
        return _say(f"--log-level: {error}", USAGE)
    notify: Callable[[str], None] = SystemdNotifier().notify
    try:
        the_host, simulate = _host(root, host, lambda: notify("WATCHDOG=1"))
    except (OSError, ValueError) as error:
        return _say(f"{host or root}: {error}", USAGE)
    try:
        with ExitStack() as stack:
            _hold(stack, the_host, notify)
            # they read while what follows is imported
            own = apart.Begun("dsatier's own files", lambda: _own_files(the_host), pace.READING)
            reading = apart.Begun("the profile", lambda: _at_start(the_host), pace.READING)
            from dsatier.control import Listener
            from dsatier.daemon import Daemon, Surroundings
            from dsatier.uevents import Uevents

            gc.enable()
            listener = Listener(folder(root))
            events = None
            if simulate is None and root in (None, "/"):
                events = Uevents()
            around = Surroundings(
                listener=listener,
                log=logger,
                notify=notify,
                events=events,
                watch=_watch(the_host) if simulate is None else None,
                drops=_watch(the_host, folders=True),
                watchdog=int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6,
                simulate=simulate,
            )
            try:
                return Daemon(the_host, around, own, reading).run()
            finally:
                listener.close()
    except Locked as locked:
        words, code = f"another dsatier is at work: {locked.holder}", LOCKED
    except Spoilt as spoilt:
        words, code = str(spoilt), CONFIGURATION
    except (HostError, OSError) as error:
        words, code = str(error), FAILED
    logger.error("cannot run", message=words)
    notify(f"STATUS={words}")
    return code


def _own_files(host: Host) -> Known:
    from dsatier.journal import Journal

    return Journal(host).read_all()


def _at_start(host: Host) -> AtStart:
    from dsatier.intent import at_start

    return at_start(host)


def _watch(host: Any, *, folders: bool = False) -> Watch | None:
    """Return what tells of writes to a host's files, None where the kernel has no more."""
    from dsatier.watch import ENTRIES, Watch

    try:
        return Watch(host.place, ENTRIES) if folders else Watch(host.place)
    except OSError:
        return None


def _hold(stack: ExitStack, host: Host, notify: Callable[[str], None]) -> None:
    """Have ``stack`` hold the host's lock. Raises Locked: at once if another daemon has it.

    A single run of the command ends, and a write of a daemon that was killed mostly does.
    """
    from dsatier.host import Locked
    from dsatier.journal import LOCK

    began = time.monotonic()
    while True:
        try:
            stack.enter_context(host.lock(LOCK, DAEMON_NAME))
        except Locked as locked:
            patience = _patience(locked.holder)
            if time.monotonic() - began >= patience:
                raise
            notify(f"STATUS=waiting for {locked.holder}")
            time.sleep(_LOOK)
        else:
            return


def _patience(holder: str) -> float:
    """Return the seconds for which a daemon waits until ``holder`` lets go of the lock."""
    if "process" not in holder or "has ended" in holder:
        return IN_KERNEL  # whoever had the lock is gone, and only a write of theirs holds it
    return 0.0 if holder.startswith(DAEMON_NAME) else ORDERING


def _host(
    root: str | None, name: str | None, waiting: Callable[[], None]
) -> tuple[Host, Callable[[dict[str, Any]], str] | None]:
    """Return the host, and what simulates if it is a simulated one. Raises OSError, ValueError."""
    if name is None:
        from dsatier.filehost import FileHost

        return FileHost(root or "/", waiting=waiting), None
    kind, _, which = name.partition(":")
    if kind != "sim" or not which:
        raise ValueError("expected sim:NAME or sim:FILE.yaml")
    from dsatier.sim.staged import StagedHost

    staged = StagedHost(which, root or "/")
    return staged, staged.simulate


# -- those who speak with it -----------------------------------------------------

ORDER = {"--root": str, "--json": bool, "--quiet": bool, "-q": bool}
RELOAD = {**ORDER, "--timeout": float}


def reload_main(words: list[str]) -> int | None:
    """Have the profile read again. Returns None where the words need the whole command line."""
    options = parse(words, RELOAD)
    if options is None:
        return None
    return order("reload", timeout=options.pop("timeout", pace.RELOADING), **options)


def nudge_main(words: list[str]) -> int | None:
    """Have the daemon look now. Returns None where the words need the whole command line."""
    options = parse(words, ORDER)
    return None if options is None else order("nudge", **options)


def order(
    command: str,
    root: str | None = None,
    json: bool = False,
    quiet: bool = False,
    q: bool = False,
    timeout: float = ORDERING,
    **more: Any,
) -> int:
    """Give the daemon an order, print its answer, and return the exit code."""
    from dsatier.asking import NoAnswer, NoDaemon, ask

    def progress(words: str) -> None:
        if sys.stderr.isatty() and not (quiet or q):
            output.tell(words)

    asked = {"command": command, "timeout": timeout, **more}
    try:
        answer = ask(folder(root), asked, timeout, progress)
    except NoDaemon as none:
        return _say(f"the daemon is not running: {none}; `systemctl start dsatier`", NOT_RUNNING)
    except PermissionError:
        return _say(f"{command}: only root may give orders to the daemon", FAILED)
    except (NoAnswer, OSError) as error:
        return _say(f"{command}: {error}", FAILED)
    return answered(answer, as_json=json)


def answered(answer: dict[str, Any], *, as_json: bool) -> int:
    """Print an answer of the daemon and return the exit code."""
    code = int(answer["code"])
    if as_json:
        import json

        output.report(json.dumps({"schema_version": 1, **answer}, indent=2))
        return code
    state = f" ({answer['state']})" if answer.get("state") else ""
    words = f"{answer['result']}{state}: {answer['message']}"
    output.report(words, error=bool(code))
    return code


WAIT = {"--root": str, "--timeout": float}


def wait_main(words: list[str]) -> int | None:
    """Wait until the host has converged. Returns None where the words need more."""
    options = parse(words, WAIT)
    return None if options is None else wait(**options)


def wait(root: str | None = None, timeout: float = WAITING) -> int:
    """Wait until the host has converged: OK; or until it will not by itself: FAILED."""
    import json

    from dsatier.statusview import read

    path = folder(root) + "/status.json"
    until = time.monotonic() + timeout
    known: tuple[int, ...] = ()
    words = "dsatier has not run since this host booted"
    while True:
        try:
            mark, text = read(path)
            if mark not in ((), known):
                known = mark
                converged, final, words = _judged(json.loads(text))
                if converged:
                    print(words)
                    return OK
                if final:
                    return _say(words, FAILED)
        except (OSError, ValueError, LookupError, TypeError) as error:
            words = f"{path}: {error}"
        if time.monotonic() >= until:
            return _say(f"not converged in {timeout:g} s: {words}", FAILED)
        time.sleep(_LOOK)


def _judged(document: dict[str, Any]) -> tuple[bool, bool, str]:
    """Return whether a host has converged, whether it will not by itself, and the words."""
    from dsatier.records import WITHDRAWN
    from dsatier.statusview import alive

    state, profile = document["state"], document["profile"]["status"]
    words = f"{state}: {document['message'] or document['reason']}"
    if profile != "Accepted":
        words += f"; profile {profile}: {document['profile']['message']}"
    daemon = document.get("daemon")
    if not daemon or not alive(daemon["pid"]):  # what a killed one wrote last is old
        return False, False, f"{words}; no daemon is running"
    if daemon["looked_at"] <= daemon["since"]:  # what it knows is from another run or boot
        return False, False, f"{words}; the daemon has not looked yet"
    # a newer profile that is wrong or out of reach leaves what is in force as it is
    if state == "converged" and profile != "NoProfile":
        return True, True, words
    final = (
        state in _STUCK or profile in ("Invalid", "NoProfile") or document["reason"] == WITHDRAWN
    )
    return False, final, f"{words}; {document['remedy']}"


SIMULATE = {"--root": str}


def simulate(act: list[str], root: str | None = None) -> int:
    """Do something to the daemon's simulated host: ``poke PATH TEXT``, ``inject JSON``, ..."""
    import json

    meant: dict[str, Any]
    match act:
        case ["poke", path, text]:
            meant = {"poke": [path, text + "\n"]}
        case ["inject", fault]:
            try:
                meant = {"inject": json.loads(fault)}
            except ValueError as error:
                return _say(f"simulate inject: expected a fault as JSON: {error}", USAGE)
        case ["heal", kind]:
            meant = {"heal": kind}
        case ["reboot" | "harm" as word]:
            meant = {word: True}
        case _:
            return _say(
                "simulate: expected poke PATH TEXT, inject JSON, heal KIND, reboot or harm", USAGE
            )
    return order("simulate", root=root, act=meant)


def _say(message: str, code: int) -> int:
    output.report(f"dsatier: {message}", error=True)
    return code


QUICK: dict[str, Callable[[list[str]], int | None]] = {
    "daemon": daemon_main,
    "reload": reload_main,
    "nudge": nudge_main,
    "wait": wait_main,
}
"""The commands that start without the whole command line."""
