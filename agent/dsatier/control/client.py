# SPDX-License-Identifier: Apache-2.0
"""Orders to the daemon, from any process that gives them."""

from __future__ import annotations

import json
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any

from dsatier.control.protocol import LONGEST, address

_GRACE = 120.0
"""Seconds that the daemon gets on top of an order's own time, to turn a change round."""
_ENDED = "the daemon ended before it answered: `systemctl status dsatier`"


class NoDaemon(Exception):
    """Nobody listens."""


class NoAnswer(Exception):
    """The daemon ended, or said nothing in time."""


def ask(
    folder: str,
    asked: dict[str, Any],
    timeout: float,
    progress: Callable[[str], None] = lambda words: None,
    grace: float = _GRACE,
) -> dict[str, Any]:
    """Give an order to the daemon that listens in ``folder``, and return its answer.

    ``timeout`` is the order's own time in seconds, ``grace`` what is waited beyond it. Raises
    NoDaemon, NoAnswer, and PermissionError for users other than root.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as peer:
        try:
            number = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise NoDaemon(f"{folder}: {error.strerror}") from error
        try:
            peer.connect(address(number))
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
            raise NoDaemon(f"{folder}: nobody listens there") from error
        finally:
            os.close(number)
        try:
            peer.sendall(json.dumps(asked).encode() + b"\n")
            return _answer(peer, time.monotonic() + timeout + grace, progress)
        except ConnectionError as error:
            raise NoAnswer(_ENDED) from error


def _answer(peer: socket.socket, until: float, progress: Callable[[str], None]) -> dict[str, Any]:
    heard = bytearray()
    poll = select.poll()
    poll.register(peer, select.POLLIN)
    while True:
        while b"\n" in heard:
            line, _, rest = heard.partition(b"\n")
            heard = bytearray(rest)
            said: dict[str, Any] = json.loads(line)
            if "progress" not in said:
                return said
            progress(said["progress"])
        left = until - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise NoAnswer(
                "the daemon has not answered in time; `dsatier status` says what it does"
            )
        data = peer.recv(LONGEST)
        if not data:
            raise NoAnswer(_ENDED)
        heard += data
