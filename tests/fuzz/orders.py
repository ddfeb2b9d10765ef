# SPDX-License-Identifier: Apache-2.0
"""Spoilt orders to a daemon that really runs, on a simulated host."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Self

from dsatier.control.client import ask
from dsatier.control.protocol import SOCKET
from tests.fuzz import spoil
from tests.fuzz.play import Found
from tests.support.running import LOOK, PROFILES, Running

ORDERS = (
    {"command": "reload", "timeout": 60},
    {"command": "nudge"},
    {"command": "clear"},
    {"command": "rollback", "timeout": 5},
    {"command": "detach"},
    {"command": "simulate", "act": {"poke": ["/proc/sys/vm/limit_chans", "4"]}},
    {
        "command": "simulate",
        "act": {"inject": {"kind": "rejected-write", "path": "/proc/sys/vm/limit_chans"}},
    },
    {"command": "simulate", "act": {"heal": "rejected-write"}},
    {"command": "simulate", "act": {"reboot": True}},
    {"command": "simulate", "act": {"picture": True}},
)
PATIENCE = 600.0
"""Seconds after which a daemon that lives and says nothing counts as stuck, however loaded the
machine is."""
SLOW = "has taken more than"
"""What a daemon says that ends since the machine was too slow for it."""
SOON = 0.2
"""Seconds after which nobody listens to the answer any more."""


def order(random: Random) -> bytes:
    """Return the line of an order, spoilt."""
    if random.random() < 0.1:
        # the number is longer than Python reads, or floats can hold
        return (
            b'{"command": "reload", "timeout": ' + b"9" * random.choice((400, 4000, 9000)) + b"}\n"
        )
    return spoil.document(random, json.dumps(random.choice(ORDERS))) + b"\n"


class Daemon:
    """A daemon that hears them. It ends with the block."""

    def __init__(self, folder: Path) -> None:
        self.running = Running(folder)
        (folder / "etc/dsatier.d/10.yaml").write_bytes((PROFILES / "cpu.yaml").read_bytes())

    def __enter__(self) -> Self:
        self.running.launch()
        return self

    def __exit__(self, *args: object) -> None:
        self.running.close()

    def ready(self) -> Found | None:
        """Wait until it is ready, for as long as it lives; return what is wrong if it never is."""
        process = self.running.process
        assert process is not None
        end = time.monotonic() + PATIENCE
        while "READY=1" not in self.running.notes:
            ended = process.poll() is not None
            slow = ended and SLOW in self.running.said()[-3000:]
            if time.monotonic() > end or (ended and not slow):
                said = f"{process.poll()}\n{self.running.said()[-3000:]}"
                return Found("the daemon did not become ready", said)
            if slow:
                process = self.running.launch()  # as its unit does
            time.sleep(LOOK)
        return None

    def hears(self, line: bytes) -> None:
        """Say something to it, and listen for a moment."""
        folder = self.running.root / "run/dsatier"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer, suppress(OSError):
            peer.settimeout(SOON)
            peer.connect(str(folder / SOCKET))
            peer.sendall(line)
            while peer.recv(65536):
                pass

    def wrong(self) -> Found | None:
        """Ask whether it is alive and takes a good order still."""
        process = self.running.process
        assert process is not None
        if process.poll() is not None:
            return Found("the daemon ended", f"{process.returncode}\n{self.running.said()[-3000:]}")
        try:
            ask(str(self.running.root / "run/dsatier"), {"command": "nudge"}, PATIENCE)
        except Exception as error:  # noqa: BLE001 - none of them may be
            return Found("the daemon took no order", f"{error}\n{self.running.said()[-3000:]}")
        if "Traceback" in self.running.said():
            return Found("a traceback", self.running.said()[-3000:])
        return None
