# SPDX-License-Identifier: Apache-2.0
"""``dsatier daemon``: takes the lock, and starts the loop with all that wakes it.

It imports little, and late: the daemon stays for months.
"""

from __future__ import annotations

import os
import sys

from dsatier.base.exits import BAD_PROFILE, CONFIGURATION, FAILED, LOCKED, USAGE
from dsatier.control.protocol import folder
from dsatier.daemon import schedule
from dsatier.daemon.schedule import ORDERING, POLL
from dsatier.host import output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack
    from typing import Any

    from dsatier.apply.journal import Known
    from dsatier.apply.wanted import AtStart
    from dsatier.daemon.inotify import Watch
    from dsatier.host.port import Host, Locked

DAEMON_NAME = "dsatier daemon"
IN_KERNEL = 20.0
"""Seconds that a write gets to come back whose daemon is gone."""


def daemon(root: str | None = None, host: str | None = None, log_level: str = "info") -> int:
    """Run the daemon until a signal ends it, and return the exit code."""
    import gc

    gc.disable()  # all that is loaded here stays; looking for rubbish in it takes a seventh of it
    from contextlib import ExitStack

    from sdnotify import SystemdNotifier  # type: ignore[import-untyped]

    from dsatier.apply.journal import CorruptState
    from dsatier.base.problem import Invalid
    from dsatier.daemon import log
    from dsatier.host import children
    from dsatier.host.port import HostError, Locked

    try:
        logger = log.logger(sys.stderr, log.is_journal(os.environ, sys.stderr), log_level)
    except ValueError as error:
        return say(f"--log-level: {error}", USAGE)
    notify: Callable[[str], None] = SystemdNotifier().notify
    ours = os.getpid()

    def waiting() -> None:
        if os.getpid() == ours:  # systemd hears the daemon alone, not the children that read
            notify("WATCHDOG=1")

    try:
        the_host, simulate = _host(root, host, waiting)
    except Invalid as invalid:
        return say(str(invalid), BAD_PROFILE)
    except (OSError, ValueError) as error:
        return say(f"{host or root}: {error}", USAGE)
    try:
        with ExitStack() as stack:
            _hold(stack, the_host, notify)
            # they read while what follows is imported
            own = children.Begun(
                "dsatier's own files", lambda: _own_files(the_host), schedule.READING
            )
            stack.callback(own.end)
            reading = children.Begun("the profile", lambda: _at_start(the_host), schedule.READING)
            stack.callback(reading.end)
            from dsatier.control.listener import Listener
            from dsatier.daemon.kernel_events import Uevents
            from dsatier.daemon.loop import Daemon, Surroundings

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
                simulated=None if simulate is None else host,
            )
            try:
                return Daemon(the_host, around, own, reading).run()
            finally:
                listener.close()
    except Locked as locked:
        words, code = f"another dsatier is at work: {locked.holder}", LOCKED
    except CorruptState as spoilt:
        words, code = str(spoilt), CONFIGURATION
    except (HostError, OSError) as error:
        words, code = str(error), FAILED
    logger.error("cannot run", message=words)
    notify(f"STATUS={words}")
    return code


def _own_files(host: Host) -> Known:
    from dsatier.apply.journal import Journal

    return Journal(host).read_all()


def _at_start(host: Host) -> AtStart:
    from dsatier.apply.wanted import at_start

    return at_start(host)


def _watch(host: Any, *, folders: bool = False) -> Watch | None:
    """Return what tells of writes to a host's files, None where the kernel has no more."""
    from dsatier.daemon.inotify import ENTRIES, Watch

    try:
        return Watch(host.place, ENTRIES) if folders else Watch(host.place)
    except OSError:
        return None


def _hold(stack: ExitStack, host: Host, notify: Callable[[str], None]) -> None:
    """Have ``stack`` hold the host's lock. Raises Locked: at once if another daemon has it.

    A single run of the command ends, and a write of a daemon that was killed mostly does.
    """
    from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_fixed

    from dsatier.base.paths import LOCK
    from dsatier.host.port import Locked

    def found(tries: RetryCallState) -> Locked:
        locked = tries.outcome and tries.outcome.exception()
        assert isinstance(locked, Locked)
        return locked

    tries = Retrying(
        retry=retry_if_exception_type(Locked),
        stop=lambda tries: (tries.seconds_since_start or 0.0) >= _patience(found(tries)),
        wait=wait_fixed(POLL),
        before_sleep=lambda tries: notify(f"STATUS=waiting for {found(tries).holder}"),
        reraise=True,
    )
    tries(lambda: stack.enter_context(host.lock(LOCK, DAEMON_NAME)))


def _patience(locked: Locked) -> float:
    """Return the seconds for which a daemon waits for a lock that somebody else holds."""
    if locked.ended or not locked.command:
        return IN_KERNEL  # whoever had the lock is gone, and only a write of theirs holds it
    return 0.0 if locked.command == DAEMON_NAME else ORDERING


def _host(
    root: str | None, name: str | None, waiting: Callable[[], None]
) -> tuple[Host, Callable[[dict[str, Any]], str] | None]:
    """Return the host, and what simulates if it is a simulated one. Raises OSError, ValueError."""
    if name is None:
        from dsatier.host.files import FileHost

        return FileHost("/" if root is None else root, waiting=waiting), None
    kind, _, which = name.partition(":")
    if kind != "sim" or not which:
        raise ValueError("expected sim:NAME or sim:FILE.yaml")
    from dsatier.sim.staged import StagedHost

    staged = StagedHost.booted(which, root or "/")
    return staged, staged.simulate


def say(message: object, code: int) -> int:
    """Print what is wrong and return the exit code."""
    output.report(f"dsatier: {message}", error=True)
    return code
