# SPDX-License-Identifier: Apache-2.0
"""A daemon that really runs: its own process, its files below a folder, its word to systemd kept.

Nothing is waited for longer than it takes; ``PATIENCE`` is only how long a test waits before
it says that something never came.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
PROFILES = REPOSITORY / "profiles"
PATIENCE = 60.0
"""Seconds."""
LOOK = 0.02
"""Seconds between two looks at what a test waits for."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a process that runs dsatier from the sources."""
    left_out = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "JOURNAL_STREAM")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return {**kept, "PYTHONPATH": str(REPOSITORY / "agent"), **more}


class Running:
    """A daemon below ``root``, which is made as it would be found after a boot.

    ``host`` is a simulated host; None takes the files below ``root`` for the machine's.
    ``journal`` has the log come as JSON, ``watchdog`` is in seconds. It may be stopped,
    killed and started again.
    """

    def __init__(
        self,
        root: Path,
        host: str | None = "sim:dsa8",
        *,
        watchdog: float = 0.0,
        journal: bool = True,
    ) -> None:
        self.root = root
        self.host = host
        self._watchdog = watchdog
        self._journal = journal
        self.process: subprocess.Popen[bytes] | None = None
        (root / "etc/dsatier.d").mkdir(parents=True, exist_ok=True)
        self.log_file = root / "log"
        self._notes: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(root / "notify"))
        # all the time: whoever sends would wait for a socket that is full
        self._thread = threading.Thread(target=self._take_notes, daemon=True)
        self._thread.start()

    # -- its life ----------------------------------------------------------

    def start(self, *words: str) -> Running:
        """Start it, and return when it has said that it is ready."""
        before = len(self.notes)
        self.launch(*words)
        self.until(lambda: "READY=1" in self.notes[before:], "READY=1")
        return self

    def launch(self, *words: str) -> subprocess.Popen[bytes]:
        """Start it, and wait for nothing."""
        with self.log_file.open("ab") as log:
            found = os.fstat(log.fileno())
            more = {"NOTIFY_SOCKET": str(self.root / "notify")}
            if self._journal:
                more["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
            if self._watchdog:
                more["WATCHDOG_USEC"] = str(int(self._watchdog * 1e6))
            host = [] if self.host is None else ["--host", self.host]
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dsatier", "daemon", *host, "--root", self.root, *words],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env=environment(**more),
            )
        return self.process

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process is not None
        return self.process.pid

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait for its end, and return its exit code."""
        assert self.process is not None
        return self.process.wait(PATIENCE)

    def stop(self) -> int:
        """Stop it as systemd does, and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def kill(self) -> None:
        """Kill it."""
        self.signal(signal.SIGKILL)
        self.ended()

    def close(self) -> None:
        """Leave nothing behind."""
        if self.process is not None and self.process.poll() is None:
            self.kill()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._socket.close()

    def _take_notes(self) -> None:
        while True:
            try:
                note = self._socket.recv(65536)
            except OSError:
                return
            if not note:
                return
            self._notes += note.decode().splitlines()

    # -- what it says ------------------------------------------------------

    @property
    def notes(self) -> tuple[str, ...]:
        """What it has told the service manager, ever."""
        return tuple(self._notes)

    def said(self) -> str:
        """Return all of its log as text."""
        return self.log_file.read_text(encoding="utf-8")

    def log(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return the lines of its log, those of one event if it is named."""
        found = []
        for line in self.said().splitlines(keepends=True):
            match = re.fullmatch(r"<([3-7])>(\{.*\})\n", line)
            if match is None and not line.endswith("\n"):
                break  # it is being written
            assert match is not None, f"expected a line for the journal, found {line!r}"
            found.append({"priority": int(match[1]), **json.loads(match[2])})
        return [one for one in found if event is None or one["event"] == event]

    def status(self) -> dict[str, Any]:
        """Return the status document, empty where there is none."""
        try:
            text = (self.root / "run/dsatier/status.json").read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        found = json.loads(text)
        assert isinstance(found, dict)
        return found

    def state(self) -> str:
        """Return the state that the status document tells."""
        return str(self.status().get("state"))

    def metrics(self) -> dict[str, float]:
        """Return the samples of the metrics file, by name and labels."""
        text = (self.root / "run/dsatier/dsatier.prom").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def own(self) -> set[str]:
        """Return the names of the files that it keeps."""
        folder = self.root / "var/lib/dsatier"
        return {path.name for path in folder.iterdir()} if folder.exists() else set()

    def kept(self, name: str) -> Any:
        """Return what one of its own files holds."""
        return json.loads((self.root / "var/lib/dsatier" / name).read_text(encoding="utf-8"))

    # -- what is asked of it -----------------------------------------------

    def profile(self, text: str, name: str = "50-host.yaml") -> Path:
        """Write a drop-in; nobody is told of it."""
        path = self.root / "etc/dsatier.d" / name
        path.write_text(text, encoding="utf-8")
        return path

    def shipped(self, name: str) -> Path:
        """Write a shipped profile as a drop-in; nobody is told of it."""
        return self.profile((PROFILES / f"{name}.yaml").read_text(encoding="utf-8"))

    def run(self, command: str, *words: str, timeout: float = PATIENCE) -> Ran:
        """Run a command of dsatier against it."""
        ran = subprocess.run(
            [sys.executable, "-m", "dsatier", command, "--root", self.root, *words],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=environment(),
            timeout=timeout,
            check=False,
        )
        return Ran(ran.returncode, ran.stdout.decode(), ran.stderr.decode())

    def reload(self, *words: str) -> Ran:
        """Reload it."""
        return self.run("reload", *words)

    def poke(self, path: str, text: str) -> Ran:
        """Write to a kernel file of the simulated host, as somebody else would."""
        return self.run("simulate", "poke", path, text)

    def inject(self, kind: str, **fields: object) -> Ran:
        """Let a fault wait on the simulated host."""
        return self.run("simulate", "inject", json.dumps({"kind": kind, **fields}))

    def heal(self, kind: str) -> Ran:
        """Take a kind of fault from the simulated host."""
        return self.run("simulate", "heal", kind)

    def harm(self) -> str:
        """Return what unsafe writes did to the simulated host."""
        return self.run("simulate", "harm").out.removeprefix("changed: ").strip()

    def look(self) -> None:
        """Have it look now, and return when it has looked."""
        self.until(lambda: (self.status().get("daemon") or {}).get("pid") == self.pid, "its status")
        before = self.status()["daemon"]["looked_at"]
        assert 0 == self.run("nudge").code
        self.until(lambda: self.status()["daemon"]["looked_at"] > before, "a look")

    # -- waiting -----------------------------------------------------------

    def until(self, holds: Callable[[], object], what: str) -> None:
        """Wait until something holds."""
        end = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > end:
                raise AssertionError(f"{what} never came; its log:\n{self.said()}")
            time.sleep(LOOK)

    def until_state(self, *states: str) -> None:
        """Wait until the status document tells one of these states."""
        self.until(lambda: self.state() in states, " or ".join(states))


@contextmanager
def folder() -> Iterator[Path]:
    """Yield a folder of our own; its path is short, as paths of sockets must be."""
    made = Path(tempfile.mkdtemp(prefix="dsatier-"))
    try:
        yield made
    finally:
        shutil.rmtree(made)


@contextmanager
def daemon(
    host: str | None = "sim:dsa8",
    *,
    watchdog: float = 0.0,
    journal: bool = True,
    started: bool = True,
) -> Iterator[Running]:
    """Yield a daemon, started and ready unless it is said otherwise."""
    with folder() as root:
        running = Running(root, host, watchdog=watchdog, journal=journal)
        try:
            yield running.start() if started else running
        finally:
            running.close()
