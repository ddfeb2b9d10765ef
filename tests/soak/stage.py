# SPDX-License-Identifier: Apache-2.0
"""The host of a soak: a simulated kernel, behind real files or inside the daemon.

``python -m tests.soak.stage PLACE --host NAME`` serves one as files; ``TreeStage`` runs that.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from dsatier.sim.host import SimHost
from dsatier.sim.state import Harm

STATE = "var/lib/dsatier"
LOG_LINES = 100
"""Lines that the kernel keeps of its log."""
_PATIENCE = 60.0
Ran = tuple[int, str]
"""An exit code, and what was said."""
Run = Callable[..., Ran]
"""Runs a dsatier command on the host."""


class Stage(Protocol):
    """A host that things are done to."""

    root: Path
    words: tuple[str, ...]
    """What the daemon is told beside its root."""
    files: bool
    """The kernel is another process's: it outlives the daemon, and its files can be read."""

    def inject(self, **fault: object) -> str:
        """Let something go wrong; return what was said to it."""

    def poke(self, path: str, text: str) -> str:
        """Write as somebody else would."""

    def heal(self, kind: str) -> str:
        """Take all faults of a kind away."""

    def reboot(self) -> None:
        """Boot the kernel again. The daemon must not run."""

    def harm(self) -> list[str] | None:
        """Return what dsatier's own writes did to the host; None where nobody can tell now."""

    def down(self) -> str:
        """Return why the host is down, empty while it is up."""

    def close(self) -> None:
        """Take everything away."""


class Answerable(SimHost):
    """A host that answers only for harm that the writes of dsatier did.

    What an injected fault or another writer does is theirs.
    """

    @property
    def harm(self) -> list[Harm]:
        """What dsatier's unsafe writes did to the host, ever."""
        return [harm for harm in self.kernel.state.harm if harm.by == "agent"]


class TreeStage:
    """A kernel behind FUSE: the daemon opens files, forks and runs programs as on a machine."""

    words: tuple[str, ...] = ()
    files = True

    def __init__(self, root: Path, host: str, environment: dict[str, str], cwd: Path) -> None:
        self.root = root
        root.mkdir()
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.stage", str(root), "--host", host],
            env=environment,
            cwd=cwd,
            start_new_session=True,  # a Ctrl-C is for the soak, which then ends it in order
        )
        until = time.monotonic() + _PATIENCE
        while not (root / "sim" / "harm").exists():
            if self._server.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the simulated host does not come up at {root}")
            time.sleep(0.05)

    def _control(self, name: str, text: str) -> str:
        try:
            (self.root / "sim" / name).write_text(text, encoding="utf-8")
        except OSError as error:
            return str(error)
        return "done"

    def inject(self, **fault: object) -> str:
        return self._control("inject", json.dumps(fault))

    def poke(self, path: str, text: str) -> str:
        # written when time next passes, which is at the next look at any file
        return self.inject(kind="other-writer", path=path, text=f"{text}\n", times=1)

    def heal(self, kind: str) -> str:
        return self._control("heal", kind)

    def reboot(self) -> None:
        said = self._control("reboot", "1")
        if said != "done":
            raise RuntimeError(f"the simulated host does not boot: {said}")

    def harm(self) -> list[str] | None:
        return (self.root / "sim" / "harm").read_text(encoding="utf-8").splitlines()

    def down(self) -> str:
        return (self.root / "sim" / "down").read_text(encoding="utf-8")

    def close(self) -> None:
        self._server.send_signal(signal.SIGTERM)
        self._server.wait(_PATIENCE)


class SimStage:
    """A kernel inside the daemon, which is asked to do things to it."""

    files = False

    def __init__(self, root: Path, host: str, run: Run) -> None:
        self.root = root
        root.mkdir()
        self.words: tuple[str, ...] = ("--host", f"sim:{host}")
        self._run = run
        self._foreign = {"swapon -a", "a copy fails", "a list fails"}
        """Causes that are not dsatier's: it never writes the same."""

    def _simulate(self, *words: str) -> Ran:
        return self._run("simulate", *words)

    def inject(self, **fault: object) -> str:
        if fault["kind"] == "other-writer":
            self._foreign.add(f"{fault['path']} <- {str(fault['text']).rstrip()[:40]}")
        elif fault["kind"] == "halt":
            self._foreign.add(f"{fault['device']} halts")
        elif fault["kind"] == "vanished-queue":
            for driver in ("dmaengine", "user"):
                self._foreign.add(f"/sys/bus/dsa/drivers/{driver}/unbind <- {fault['queue']}")
        return self._simulate("inject", json.dumps(fault))[1]

    def poke(self, path: str, text: str) -> str:
        self._foreign.add(f"{path} <- {text.rstrip()[:40]}")
        return self._simulate("poke", path, text)[1]

    def heal(self, kind: str) -> str:
        return self._simulate("heal", kind)[1]

    def reboot(self) -> None:
        """Nothing to do: the daemon's next kernel is freshly booted."""

    def harm(self) -> list[str] | None:
        code, said = self._simulate("harm")
        if code:
            return None
        lines = said.removeprefix("changed: ").splitlines()
        return [line for line in lines if line != "none" and not self._is_foreign(line)]

    def _is_foreign(self, line: str) -> bool:
        return any(f": {cause}: " in line for cause in self._foreign)

    def down(self) -> str:
        return ""  # a daemon tells nothing of its kernel's end but that it cannot look

    def close(self) -> None:
        """Nothing to do: it ended with the daemon."""


class Disk:
    """The file system that dsatier keeps its state on, of a size that can be filled."""

    SIZE = "512k"

    def __init__(self, root: Path) -> None:
        self._place = root / STATE
        self._place.mkdir(parents=True, exist_ok=True)
        self._filler = self._place / "filler"
        able = os.geteuid() == 0 and shutil.which("mount") is not None
        self.own = able and self._mount("-t", "tmpfs", "-o", f"size={self.SIZE},mode=0700", "soak")
        """It is mounted: it can be filled, and made read-only."""

    def _mount(self, *words: str) -> bool:
        ran = subprocess.run(["mount", *words, str(self._place)], check=False, capture_output=True)
        return ran.returncode == 0

    def fill(self) -> str:
        """Leave no room."""
        try:
            with self._filler.open("ab", buffering=0) as stream:
                while True:
                    stream.write(bytes(4096))
        except OSError as error:
            return error.strerror or str(error)

    def protect(self) -> str:
        """Make it read-only, unless somebody is writing just now."""
        return "read-only" if self._mount("-o", "remount,ro") else "busy: as it was"

    def mend(self) -> None:
        """Make it as it was."""
        if self.own:
            self._mount("-o", "remount,rw")
            with suppress(FileNotFoundError):
                self._filler.unlink()

    def names(self) -> dict[str, int]:
        """Return the names and sizes of what is there."""
        found = {}
        for path in self._place.iterdir():
            with suppress(FileNotFoundError):  # it was replaced meanwhile
                if path != self._filler:
                    found[path.name] = path.stat().st_size
        return found

    def close(self) -> None:
        """Take it away."""
        if self.own:
            subprocess.run(["umount", "--lazy", str(self._place)], check=False)


def main(argv: list[str] | None = None) -> int:
    """Serve a host as files until it is told to end."""
    from tests.system.simfs import mounted

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("place", type=Path)
    parser.add_argument("--host", default="dsa8")
    options = parser.parse_args(argv)
    # in a tree the log is a file that is read whole: one that fills in the course of a soak is
    # memory that the daemon takes meanwhile, 400 KiB for a thousand lines; so it is soon full
    description = replace(SimHost.host_for(options.host).kernel.spec, log_lines=LOG_LINES)
    host = Answerable.of(description)
    with mounted(host, options.place):
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 0


if __name__ == "__main__":
    sys.exit(main())
