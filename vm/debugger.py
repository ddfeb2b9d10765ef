# SPDX-License-Identifier: Apache-2.0
"""What a debugger does to a guest: stops it at an access to memory, and looks at its registers.

It speaks the remote protocol of gdb with the emulator. A guest stands still from the connection on
until it is told to go on, and each time it meets what is watched.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 60.0
RIP = 0x10
"""The register's number."""


class DebuggerError(Exception):
    """The emulator refused, or said what nobody expected."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a guest has stopped."""

    cpu: int
    watched: bool
    """By an access to what is watched."""


def words(path: Path) -> tuple[str, ...]:
    """Return words for the emulator that let a debugger in at a socket."""
    return ("-chardev", f"socket,id=gdb,path={path},server=on,wait=off", "-gdb", "chardev:gdb")


def packet(text: str) -> bytes:
    """Return text as the protocol has it: with its sum."""
    return f"${text}#{sum(text.encode()) % 256:02x}".encode()


class Debugger:
    """A debugger that is connected to a guest, which has stopped."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._held = b""
        self._running = False
        # it answers to the numbers of registers once it has told their names
        self.ask("qXfer:features:read:target.xml:0,1000")

    def ask(self, text: str) -> str:
        """Return the answer to a request."""
        self._socket.sendall(packet(text))
        answer = self._next(time.monotonic() + PATIENCE)
        if answer is None or re.fullmatch("|E[0-9a-fA-F]{2}", answer):
            raise DebuggerError(f"{text}: {'no answer' if answer is None else repr(answer)}")
        return answer

    def _next(self, until: float) -> str | None:
        """Return what comes next, None where nothing does in time."""
        while True:
            found = re.match(rb"[+-]*\$([^#]*)#[0-9a-fA-F]{2}", self._held, re.DOTALL)
            if found:
                self._held = self._held[found.end() :]
                self._socket.sendall(b"+")
                return found[1].decode(errors="replace")
            left = until - time.monotonic()
            if left <= 0:
                return None
            self._socket.settimeout(left)
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                return None
            if not data:
                raise DebuggerError("the emulator has ended")
            self._held += data

    def memory(self, address: int, length: int) -> bytes:
        """Return what is at an address of the kernel."""
        return bytes.fromhex(self.ask(f"m{address:x},{length:x}"))

    def register(self, number: int) -> int:
        """Return a register of 64 bits of the CPU that has stopped."""
        return int.from_bytes(bytes.fromhex(self.ask(f"p{number:x}")), "little")

    def set_register(self, number: int, value: int) -> None:
        """Set it."""
        self.ask(f"P{number:x}={value.to_bytes(8, 'little').hex()}")

    def watch(self, address: int, length: int) -> None:
        """Stop the guest behind each instruction that reads there."""
        self.ask(f"Z3,{address:x},{length:x}")

    def go_on(self) -> None:
        """Let the guest run."""
        self._running = True
        self._socket.sendall(packet("c"))

    def stopped(self, seconds: float) -> Stop | None:
        """Return where a guest that runs stops in that time, None where it does not."""
        told = self._next(time.monotonic() + seconds)
        if told is None:
            return None
        cpu = re.match(r"T[0-9a-f]{2}thread:(?:p[0-9a-f]+\.)?([0-9a-f]+);", told)
        if not cpu:
            raise DebuggerError(f"expected a stop, found {told!r}")
        self._running = False
        return Stop(int(cpu[1], 16) - 1, "watch:" in told)

    def leave(self) -> None:
        """Watch nothing any more, and have the guest run on."""
        if self._running:
            self._socket.sendall(b"\x03")
            self.stopped(PATIENCE)
        self.ask("D")


@contextmanager
def debugger(path: Path) -> Iterator[Debugger]:
    """Yield a debugger of a guest that was started with ``words``; in the end the guest runs on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connected:
        connected.connect(str(path))
        found = Debugger(connected)
        try:
            yield found
        finally:
            found.leave()
