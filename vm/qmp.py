# SPDX-License-Identifier: Apache-2.0
"""The emulator's monitor: requests, answers and events as lines of JSON over a socket."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

PATIENCE = 30.0


class QmpError(Exception):
    """The emulator refused a request, or did not answer. The message has its words."""


class Qmp:
    """A monitor on a connected socket, which it closes in the end.

    One request at a time, whoever asks; events are kept until they are taken.
    """

    def __init__(self, connected: socket.socket, timeout: float = PATIENCE) -> None:
        self._socket = connected
        self._held = b""
        self._lock = threading.Lock()
        self.events: list[dict[str, Any]] = []
        """What the emulator told by itself, oldest first."""
        self._next(time.monotonic() + timeout)
        self.execute("qmp_capabilities")

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def _next(self, until: float) -> dict[str, Any]:
        while b"\n" not in self._held:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            data = self._socket.recv(1 << 16)
            if not data:
                raise QmpError("the emulator has ended")
            self._held += data
        line, _, self._held = self._held.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def execute(self, command: str, /, **arguments: Any) -> Any:
        """Return what the emulator answers. ``_`` in the name of an argument stands for ``-``.

        Raises QmpError.
        """
        timeout = PATIENCE
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
        with self._lock:
            try:
                self._socket.settimeout(timeout)
                self._socket.sendall(json.dumps(request).encode() + b"\n")
                until = time.monotonic() + timeout
                while "event" in (answer := self._next(until)):
                    self.events.append(answer)
            except TimeoutError:
                raise QmpError(f"{command}: no answer within {timeout:g} s") from None
            except OSError as error:
                raise QmpError(f"{command}: the emulator has ended: {error}") from None
        if "error" in answer:
            raise QmpError(f"{command}: {answer['error'].get('desc', answer['error'])}")
        return answer["return"]

    def wait(self, event: str, timeout: float = PATIENCE, **data: Any) -> dict[str, Any]:
        """Return the first event of this name and with these data, and forget it.

        Raises QmpError when it has not come in time.
        """
        until = time.monotonic() + timeout
        with self._lock:
            while True:
                for seen in self.events:
                    told = seen.get("data", {})
                    if seen["event"] == event and data.items() <= told.items():
                        self.events.remove(seen)
                        return seen
                try:
                    self.events.append(self._next(until))
                except TimeoutError:
                    names = [seen["event"] for seen in self.events]
                    found = f"found {', '.join(names) or 'none'}"
                    raise QmpError(f"{event} {data}: not within {timeout:g} s; {found}") from None
