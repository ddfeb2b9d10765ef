# SPDX-License-Identifier: Apache-2.0
"""What the daemon itself takes of a reload: all of it, less what the simulated host takes.

A daemon runs in a process of its own on a staged host that adds up the time inside it: making up
files, taking writes, letting time pass. What is left of a reload is
the daemon's and its client's: reading the profile in a child, planning, proving, keeping the
journal on a real disk, answering. /run is a tmpfs, as on every host.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic as now
from time import sleep

from bench.hosts import PROFILE, PROFILES
from dsatier.apply.journal import Journal
from dsatier.apply.wanted import at_start
from dsatier.base.paths import LOCK
from dsatier.control.client import ask
from dsatier.control.listener import Listener
from dsatier.daemon.log import logger
from dsatier.daemon.loop import Daemon, Surroundings
from dsatier.daemon.schedule import READING
from dsatier.host.children import Begun
from dsatier.host.port import LogTail, Ran
from dsatier.sim.staged import REAL, StagedHost

INSIDE, ASLEEP, KEEPING = range(3)
"""Places of the sums, in seconds."""
_SETTLING = 0.5
"""Seconds after ready in which a daemon looks for the first time and tidies up: its start."""


class TimedHost(StagedHost):
    """A staged host that adds up for how long it was inside its kernel, asleep, and keeping files.

    The sums are in memory that is shared. Noting must cost next to nothing: there are tens of
    thousands of calls.
    """

    def __init__(self, name: str, root: str, sums: memoryview[float]) -> None:
        super().__init__(StagedHost.booted(name, root).kernel, root)
        self._sums = sums

    def read(self, path: str) -> str:
        """Return a file's text."""
        began = now()
        try:
            return super().read(path)
        finally:
            if not path.startswith(REAL):  # dsatier's own files are no part of the kernel
                self._sums[INSIDE] += now() - began

    def entries(self, path: str) -> tuple[str, ...]:
        """Return the sorted names in a directory."""
        began = now()
        try:
            return super().entries(path)
        finally:
            if not path.startswith(REAL):
                self._sums[INSIDE] += now() - began

    def link(self, path: str) -> str | None:
        """Return what a link says."""
        began = now()
        try:
            return super().link(path)
        finally:
            if not path.startswith(REAL):
                self._sums[INSIDE] += now() - began

    def write(self, path: str, text: str, deadline: float) -> None:
        """Write to a kernel file."""
        began = now()
        try:
            super().write(path, text, deadline)
        finally:
            self._sums[INSIDE] += now() - began

    def run(self, argv: tuple[str, ...], deadline: float) -> Ran:
        """Run a command."""
        began = now()
        try:
            return super().run(argv, deadline)
        finally:
            self._sums[INSIDE] += now() - began

    def log_mark(self) -> int:
        """Return a mark behind the newest line."""
        began = now()
        try:
            return super().log_mark()
        finally:
            self._sums[INSIDE] += now() - began

    def log_since(self, mark: int) -> LogTail:
        """Return the log's lines since a mark."""
        began = now()
        try:
            return super().log_since(mark)
        finally:
            self._sums[INSIDE] += now() - began

    def monotonic(self) -> float:
        """Return seconds since the host booted."""
        began = now()
        try:
            return super().monotonic()
        finally:
            self._sums[INSIDE] += now() - began

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        began = now()
        try:
            super().sleep(seconds)
        finally:
            self._sums[ASLEEP] += now() - began

    def keep(self, path: str, text: str, mode: int = 0o600) -> None:
        """Replace one of dsatier's own files: the daemon's time, but told apart."""
        began = now()
        try:
            super().keep(path, text, mode)
        finally:
            self._sums[KEEPING] += now() - began

    def note(self, path: str, text: str) -> None:
        """Note a text in place: the daemon's time, told apart, too."""
        began = now()
        try:
            super().note(path, text)
        finally:
            self._sums[KEEPING] += now() - began


def _serve(root: str, name: str, ready: int, sums: memoryview[float]) -> None:
    """Be the daemon."""
    host = TimedHost(name, root, sums)
    with open(os.path.join(root, "log"), "w", encoding="utf-8") as log, host.lock(LOCK, "bench"):
        listener = Listener(root + "/run/dsatier")

        def notify(words: str) -> None:
            if words == "READY=1":
                os.write(ready, b"!")

        around = Surroundings(listener, logger(log, True, "info"), notify)
        own = Begun("dsatier's own files", Journal(host).read_all, READING)
        reading = Begun("the profile", lambda: at_start(host), READING)
        Daemon(host, around, own, reading).run()
        listener.close()


def reloads(root: Path, name: str, profiles: Sequence[str]) -> list[dict[str, float]]:
    """Reload a new daemon with one profile after the other; return the seconds of each.

    ``all`` from the client's request to its answer, of them ``inside`` the host and ``asleep``.
    """
    for folder in ("etc/dsatier.d", "run/dsatier", "var/lib"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    sums = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d")
    told, ready = os.pipe()
    daemon = os.fork()
    if daemon == 0:
        code = 1
        try:
            os.close(told)
            _serve(str(root), name, ready, sums)
            code = 0
        finally:
            os._exit(code)
    os.close(ready)
    found: list[dict[str, float]] = []
    try:
        if not os.read(told, 1):
            raise SystemExit(f"bench: no daemon: {(root / 'log').read_text(encoding='utf-8')}")
        sleep(_SETTLING)
        for text in profiles:
            (root / "etc/dsatier.d/bench.yaml").write_text(text, encoding="utf-8")
            before, began = sums[:3].tolist(), now()
            answer = ask(str(root / "run/dsatier"), {"command": "reload"}, 60.0)
            # the answer is the last that the daemon does, so the sums stand still again
            took = now() - began
            after = sums[:3].tolist()
            inside, asleep, keeping = (b - a for a, b in zip(before, after, strict=True))
            if answer["code"]:
                raise SystemExit(f"bench: reload: {answer['message']}")
            found.append(
                {
                    "all": took,
                    "inside": inside,
                    "asleep": asleep,
                    "keeping": keeping,
                    "beyond": took - inside - asleep,
                }
            )
    finally:
        os.kill(daemon, signal.SIGTERM)
        os.waitpid(daemon, 0)
        os.close(told)
    return found


def measured(times: int) -> dict[str, list[float]]:
    """Return what the daemon takes, in seconds, by kind of reload. Runs in a process of its own."""
    words = [sys.executable, "-m", "bench.overhead", str(times)]
    alone = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    environment = {**os.environ, "PYTHONPATH": str(PROFILES.parent / "agent")}
    ran = subprocess.run(
        [*alone, *words], cwd=PROFILES.parent, env=environment, stdout=subprocess.PIPE, check=True
    )
    found: dict[str, list[float]] = json.loads(ran.stdout)
    return found


def main() -> None:
    """Print what was measured as JSON; needs a mount namespace of its own."""
    changed = PROFILE.replace("dsa_copy_threshold: 12", "dsa_copy_threshold: 13")
    found: dict[str, list[float]] = {"first profile": [], "nothing new": [], "one value": []}
    for _ in range(int(sys.argv[1])):
        with tempfile.TemporaryDirectory(prefix="dsatier-bench-") as folder:
            root = Path(folder)
            (root / "run").mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", root / "run"], check=True)
            try:
                spans = reloads(root, "dsa8", [PROFILE, PROFILE, changed])
            finally:
                subprocess.run(["umount", "--lazy", root / "run"], check=True)
        for what, one in zip(found, spans, strict=True):
            found[what].append(one["beyond"])
            print(what, {name: round(s * 1e3, 1) for name, s in one.items()}, file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
