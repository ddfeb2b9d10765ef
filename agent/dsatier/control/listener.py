# SPDX-License-Identifier: Apache-2.0
"""The daemon's ear: orders come over a socket that only root may connect to.

One line of JSON asks, lines of JSON answer: progress while there is some, then how it ended.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from contextlib import suppress
from typing import Any

from dsatier.control.protocol import LONGEST, SOCKET, address

ORDERS = frozenset({"reload", "nudge", "clear", "rollback", "detach", "simulate"})
_BACKLOG = 4096
_MOST = 256
"""Peers that are listened to at once: descriptors are few. The others wait to be accepted."""
_CREDENTIALS = struct.Struct("=iII")
"""Process, user and group of a peer."""


class Order:
    """What somebody asked for, and the way back to them."""

    def __init__(self, asked: dict[str, Any], peer: socket.socket | None = None) -> None:
        self.command: str = asked["command"]
        self.asked = asked
        self._peer = peer

    def progress(self, words: str) -> None:
        """Report what is going on, if the client still listens."""
        self._say({"progress": words})

    def answer(self, result: str, code: int, message: str, state: str = "") -> None:
        """Report how it ended, and hang up."""
        self._say({"result": result, "code": code, "message": message, "state": state})
        if self._peer is not None:
            self._peer.close()
            self._peer = None

    def _say(self, line: dict[str, Any]) -> None:
        if self._peer is None:
            return
        try:
            self._peer.sendall(json.dumps(line).encode() + b"\n")
        except OSError:  # they went away, or do not read
            self._peer.close()
            self._peer = None


class Listener:
    """Listens in ``folder``, the machine's own path of /run/dsatier. Its user holds the lock."""

    def __init__(self, folder: str) -> None:
        self._folder = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._name = SOCKET
        with suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._folder)  # of a daemon that was killed
        kind = socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_UNIX, kind)
        before = os.umask(0o177)
        try:
            self._socket.bind(address(self._folder))
        finally:
            os.umask(before)
        self._socket.listen(_BACKLOG)
        self._peers: dict[int, tuple[socket.socket, bytearray]] = {}

    def filenos(self) -> tuple[int, ...]:
        """Return the descriptors to poll."""
        return (self._socket.fileno(), *self._peers)

    def orders(self) -> list[Order]:
        """Return the orders that have come in whole."""
        self._accept()
        found = [order for number in tuple(self._peers) if (order := self._hear(number))]
        if len(self._peers) >= _MOST:  # who has been silent for longest makes room
            peer, _ = self._peers.pop(next(iter(self._peers)))
            peer.close()
        return found

    def _accept(self) -> None:
        while len(self._peers) < _MOST:
            try:
                peer, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError:  # out of descriptors: those who wait are taken later
                return
            if _user(peer) not in (0, os.geteuid()):
                peer.close()
                continue
            peer.setblocking(False)
            self._peers[peer.fileno()] = peer, bytearray()

    def _hear(self, number: int) -> Order | None:
        """Return what a peer asks for; None where it has not said all of it, or nonsense."""
        peer, heard = self._peers[number]
        try:
            data = peer.recv(LONGEST)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        heard += data
        if data and b"\n" not in heard and len(heard) < LONGEST:
            return None
        del self._peers[number]
        peer.settimeout(0.2)
        order = _order(heard, peer)
        if order is None:
            refusal = Order({"command": ""}, peer)
            refusal.answer("refused", 64, f"expected one of {', '.join(sorted(ORDERS))}")
        return order

    def close(self) -> None:
        """Stop listening, and take the socket away."""
        for peer, _ in self._peers.values():
            peer.close()
        self._socket.close()
        with suppress(OSError):
            os.unlink(self._name, dir_fd=self._folder)
        os.close(self._folder)


def _order(heard: bytearray, peer: socket.socket) -> Order | None:
    try:
        asked = json.loads(heard)
        known = asked["command"] in ORDERS
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return Order(asked, peer) if known else None


def _user(peer: socket.socket) -> int:
    data = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    user: int = _CREDENTIALS.unpack(data)[1]
    return user
