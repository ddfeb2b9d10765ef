# SPDX-License-Identifier: Apache-2.0
"""The daemon as a process: started, listened to, sampled and ended as a service manager does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

WATCHDOG = 120.0
"""Seconds without a sign of life after which systemd ends the daemon (see dsatier.service)."""
READY = 60.0
ENDING = 120.0
SAYING = 2.0
MARK = "DSATIER_SOAK"
"""A variable in the environment of all processes of one soak: what they leave can be found."""
MALLOC = {
    # as in dsatier.service
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    # what is freed is at once free for malloc's count, too. glibc would set aside seven chunks of
    # each of 64 sizes, 240 KB, and count them as used: there is a first time for each, for hours
    "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
}
"""What the daemon's environment tells glibc."""
_TICKS = os.sysconf("SC_CLK_TCK")


class Service:
    """Runs one daemon at a time."""

    def __init__(
        self,
        root: Path,
        words: tuple[str, ...],
        environment: dict[str, str],
        log: Path,
        clock: Callable[[], float],
    ) -> None:
        self._root = root
        self._held = log.with_name("held.json")
        inside = [sys.executable, "-m", "tests.soak.inside", str(self._held)]
        self._command = [*inside, "daemon", "--root", str(root), *words]
        self._environment = environment
        self._log = log
        self._clock = clock
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = threading.Event()
        self._sign = 0.0
        self._excused = True
        """No sign of life is expected: it is stopped, or ends."""
        self.silences: list[tuple[float, float]] = []
        """When a silence of more than half the watchdog's time ended, and how long it was."""
        self.starts = 0

    @property
    def pid(self) -> int:
        """The daemon's process, 0 for none."""
        return self._process.pid if self._process is not None else 0

    def ended(self) -> int | None:
        """Return the exit code of a daemon that has ended, None while one runs."""
        return 0 if self._process is None else self._process.poll()

    def start(self) -> int | None:
        """Start a daemon and wait until it is ready. Returns its exit code where it ended."""
        self.starts += 1
        self._ready.clear()
        name = f"\0dsatier-soak-{os.getpid()}-{self.starts}"
        ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        ear.bind(name)
        ear.settimeout(0.5)
        with self._log.open("ab") as log:
            found = os.fstat(log.fileno())
            self._process = subprocess.Popen(
                self._command,
                env={
                    **self._environment,
                    "NOTIFY_SOCKET": "@" + name[1:],
                    "WATCHDOG_USEC": str(int(WATCHDOG * 1e6)),
                    # its log is the journal's: JSON
                    "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}",
                    **MALLOC,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        process = self._process
        threading.Thread(target=self._hear, args=(ear, process), daemon=True).start()
        until = time.monotonic() + READY
        while not self._ready.wait(0.05):
            if process.poll() is not None:
                return process.returncode
            if time.monotonic() > until:
                raise RuntimeError(f"the daemon is not ready after {READY:g} s")
        return None

    def _hear(self, ear: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self._sign, self._excused = time.monotonic(), False
        with ear:
            while process.poll() is None:
                try:
                    heard = ear.recv(65536)
                except TimeoutError:
                    continue
                if b"READY=1" in heard:
                    self._ready.set()
                if b"WATCHDOG=1" in heard or b"READY=1" in heard:
                    self._live()

    def _live(self) -> None:
        now = time.monotonic()
        silent = now - self._sign
        if silent > WATCHDOG / 2 and not self._excused:
            self.silences.append((self._clock(), silent))
        self._sign = now

    def silent(self) -> float:
        """Return the seconds since its last sign of life; 0 where none is expected."""
        return 0.0 if self._excused else time.monotonic() - self._sign

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def held(self) -> dict[str, int]:
        """Return how many objects and bytes it holds; empty where it does not say so at once."""
        self._held.unlink(missing_ok=True)
        self.signal(signal.SIGUSR2)
        until = time.monotonic() + SAYING
        while time.monotonic() < until:
            with suppress(FileNotFoundError):
                found: dict[str, int] = json.loads(self._held.read_text())
                return found
            time.sleep(0.05)
        return {}

    def pause(self, seconds: float) -> None:
        """Stop it in its tracks for a while: for it all clocks jump."""
        self._excused = True
        self.signal(signal.SIGSTOP)
        time.sleep(seconds)
        self.signal(signal.SIGCONT)
        self._sign, self._excused = time.monotonic(), False

    def end(self, number: int) -> int:
        """End it by a signal and return its exit code. Raises TimeoutExpired."""
        if self._process is None:
            return 0
        self._excused = True
        self.signal(number)
        return self._process.wait(ENDING)

    def status(self) -> dict[str, Any]:
        """Return the status document, empty where there is none."""
        try:
            found: dict[str, Any] = json.loads((self._root / "run/dsatier/status.json").read_text())
        except (OSError, ValueError):
            return {}
        return found


def measured(pid: int) -> dict[str, Any] | None:
    """Return what a process uses, None where it has ended. Memory in KiB, CPU in seconds."""
    proc = Path("/proc") / str(pid)
    try:
        status = _pairs((proc / "status").read_text())
        rollup = _pairs((proc / "smaps_rollup").read_text())
        times = (proc / "stat").read_text().rpartition(")")[2].split()
        fds = len(os.listdir(proc / "fd"))
    except (OSError, ProcessLookupError):
        return None
    if "VmRSS" not in status:
        return None  # ended, and not yet waited for
    children = family(pid, deep=False)
    return {
        "rss": status["VmRSS"],
        "anon": status["RssAnon"],
        "pss": rollup.get("Pss", 0),
        "fds": fds,
        "threads": status["Threads"],
        "children": len(children),
        "zombies": sum(_state(child) == "Z" for child in children),
        "cpu": (int(times[11]) + int(times[12])) / _TICKS,
    }


def _pairs(text: str) -> dict[str, int]:
    found = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        number = value.split()[:1]
        if number and number[0].isdecimal():
            found[name] = int(number[0])
    return found


def _state(pid: int) -> str:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def family(pid: int, *, deep: bool) -> list[int]:
    """Return the children of a process, ``deep`` theirs, too."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with suppress(OSError, IndexError):
                fields = (Path("/proc") / name / "stat").read_text().rpartition(")")[2].split()
                parents[int(name)] = int(fields[1])
    found = [child for child, parent in parents.items() if parent == pid]
    if deep:
        for child in tuple(found):
            found += [p for p in _below(parents, child) if p not in found]
    return found


def _below(parents: dict[int, int], pid: int) -> list[int]:
    children = [child for child, parent in parents.items() if parent == pid]
    return children + [below for child in children for below in _below(parents, child)]


def marked(mark: str) -> list[int]:
    """Return the processes that have ``mark`` in their environment, as the daemon's children do."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            with suppress(OSError):
                environ = (Path("/proc") / name / "environ").read_bytes().split(b"\0")
                if wanted in environ:
                    found.append(int(name))
    return found


def kill(pids: list[int]) -> None:
    """End processes that this soak started."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
