# SPDX-License-Identifier: Apache-2.0
"""Simulated hosts that somebody else has: a daemon below a root, or another command with a file.

Nobody waits for them without an end, and who has one is named.
"""

from __future__ import annotations

import fcntl
import os
from errno import EPERM
from typing import TYPE_CHECKING

from dsatier.base.problem import show
from dsatier.control.client import NoAnswer, NoDaemon, ask
from dsatier.control.protocol import folder
from dsatier.daemon.schedule import POLL
from dsatier.host.port import HostError, Locked, Rejected

if TYPE_CHECKING:
    from dsatier.host.files import FileHost
    from dsatier.host.port import Host

LEFT_TO_OTHERS = 30.0
"""Seconds that a simulated host is left to the process that has it."""


def of_daemon(host: FileHost, patience: float = LEFT_TO_OTHERS) -> Host:
    """Return a copy of what the daemon simulates that has the files of ``host``.

    Raises HostError; Locked where the daemon has no time.
    """
    from dsatier.sim.staged import StagedHost

    asked = {"command": "simulate", "act": {"picture": True}}
    try:
        answer = ask(folder(host.root), asked, patience, grace=0.0)
    except PermissionError as error:
        words = "only root may ask the daemon for its simulated host"
        raise Rejected(host.root, EPERM, words) from error
    except NoDaemon as error:
        raise HostError(host.root, f"the daemon has just ended: {error}") from error
    except NoAnswer as error:
        raise Locked(host.root, f"the daemon below {host.root}: {error}") from error
    if answer["code"]:
        raise HostError(host.root, str(answer["message"]))
    return StagedHost.pictured(host.read(str(answer["message"])), host.root)


def take(descriptor: int, path: str, patience: float = LEFT_TO_OTHERS) -> None:
    """Lock the open file ``path`` that keeps a simulated host. Raises Locked."""
    from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

    tries = Retrying(
        retry=retry_if_exception_type(BlockingIOError),
        stop=stop_after_delay(patience),
        wait=wait_fixed(POLL),
        reraise=True,
    )
    try:
        tries(fcntl.flock, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        who = _holder(os.fstat(descriptor).st_ino)
        raise Locked(path, f"{who} has had {show(path, 4096)} for {patience:g} s") from error


def _holder(inode: int) -> str:
    """Return who has a lock on a file, by what the kernel tells of locks."""
    with open("/proc/locks", encoding="utf-8") as locks:
        for line in locks:
            words = line.split()
            if "->" not in words and words[1:2] == ["FLOCK"] and words[5].endswith(f":{inode}"):
                return f"process {words[4]}"
    return "somebody"
