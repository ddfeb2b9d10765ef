# SPDX-License-Identifier: Apache-2.0
"""A simulated kernel under a real machine's files, for the daemon.

Profiles, state, lock and status are real files below a root; kernel, devices and tools are
simulated, and their time passes as it does outside.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dsatier.base.paths import DROP_INS, PICTURE, RUN, STATE
from dsatier.host.port import HostDown, LogTail, Missing, Ran, Rejected
from dsatier.host.rooted import Tree
from dsatier.host.state_files import OwnFiles
from dsatier.sim import spec
from dsatier.sim.faults import KINDS
from dsatier.sim.host import SimHost
from dsatier.sim.kernel import Kernel

REAL = (STATE, RUN, *DROP_INS)
"""What lies below the root."""
KERNEL = ("/proc/", "/sys/", "/dev/")
WITHOUT_EFFECT = {
    "crash": "end the daemon's process instead (`kill -9`)",
    "disk": "its own files are real ones; fill the file system that they are on instead",
    "clock-jump": "its wall clock is the machine's own",
}
"""Kinds of faults that meet what is real here, and what does the same."""
_LARGEST = 4 << 20


class StagedHost(SimHost):
    """A host whose own files lie below the folder ``root``."""

    def __init__(self, kernel: Kernel, root: str = "/") -> None:
        super().__init__(kernel, 1.0)
        self._tree = Tree(root)
        self._own = OwnFiles(self._tree)
        self._at = time.monotonic()

    @classmethod
    def booted(cls, name_or_path: str, root: str = "/") -> StagedHost:
        """Return a host that has booted and done nothing else."""
        found = cls(SimHost.host_for(name_or_path).kernel, root)
        # another boot than that of the daemon before: what it did to its kernel is gone
        found.kernel.state.boot = int(time.time() * 1000)
        return found

    @classmethod
    def pictured(cls, text: str, root: str = "/") -> StagedHost:
        """Return a copy of the host that ``text`` is a picture of. Raises ValueError."""
        return cls(SimHost.restore(text).kernel, root)

    @property
    def root(self) -> str:
        """The directory that its own files lie below."""
        return self._tree.root

    def place(self, path: str) -> str:
        """Return the machine's own path of one of the real files. May raise OSError."""
        return self._tree.real(path)

    def simulate(self, asked: dict[str, Any]) -> str:
        """Do what somebody asks of the simulation, and return what there is to tell.

        ``asked`` holds one of "poke" ([path, text]), "inject" (a fault as an object), "heal"
        (a kind of fault), "reboot", "harm" or "picture". Raises ValueError, HostError.
        """
        self._pass_time()
        match asked:
            case {"poke": [str(path), str(text)]}:
                self.poke(path, text)
                return f"wrote {text.strip()} to {path}"
            case {"inject": {"kind": str(kind)}} if kind in WITHOUT_EFFECT:
                raise ValueError(f"{kind} has no effect here: {WITHOUT_EFFECT[kind]}")
            case {"inject": {"kind": str(kind)} as fault} if kind in KINDS:
                whole = json.loads(spec.dump(self.kernel.spec)) | {"faults": [fault]}
                self.inject(spec.parse(json.dumps(whole)).faults[0])
                return f"{kind} waits to happen"
            case {"heal": str(kind)}:
                self.heal(kind)
                return f"{kind} is taken away"
            case {"reboot": True}:
                self.reboot()
                return "booted"
            case {"picture": True}:
                self._own.keep(PICTURE, self.state_text(), 0o600)
                return PICTURE
            case {"harm": True}:
                lines = [f"{h.kind}: {h.write}: {h.reason}" for h in self.harm]
                return "\n".join(lines) or "none"
        raise ValueError(
            f"expected poke, inject (one of {', '.join(sorted(KINDS))}), heal, reboot or harm, "
            f"found {asked}"
        )

    def _pass_time(self) -> None:
        now = time.monotonic()
        passed, self._at = now - self._at, now
        if not self.down:
            with suppress(HostDown):  # whoever asks next is told
                self.advance(passed)

    # what is simulated

    def read(self, path: str) -> str:
        """Return a file's text. Raises Missing, Rejected, HostDown."""
        if path.startswith(REAL):
            return self._read_real(path)
        self._pass_time()
        try:
            return super().read(path)
        except Missing:
            if path.startswith(KERNEL):
                raise
            return self._read_real(path)

    def entries(self, path: str) -> tuple[str, ...]:
        """Return the sorted names in a directory; () where there is none."""
        if not path.startswith(REAL):
            self._pass_time()
            return super().entries(path)
        try:
            return tuple(sorted(self._tree.names(path)))
        except OSError:
            return ()

    def link(self, path: str) -> str | None:
        """Return the target of a symbolic link as it is written, or None."""
        if not path.startswith(REAL):
            return super().link(path)
        try:
            return self._tree.link(path)
        except OSError:
            return None

    def others(self, path: str) -> str:
        """Say who else may write a file; "" for nobody."""
        return self._tree.others(path) if path.startswith(REAL) else ""

    def write(self, path: str, text: str, deadline: float) -> None:
        """Write to a kernel file. Raises Missing, Rejected, Hung, HostDown."""
        self._pass_time()
        super().write(path, text, deadline)

    def run(self, argv: tuple[str, ...], deadline: float) -> Ran:
        """Run a command. Raises Missing, Hung, HostDown."""
        self._pass_time()
        return super().run(argv, deadline)

    def log_mark(self) -> int:
        """Return a mark behind the newest kernel log line."""
        self._pass_time()
        return super().log_mark()

    def log_since(self, mark: int) -> LogTail:
        """Return the kernel log's lines since ``mark``."""
        self._pass_time()
        return super().log_since(mark)

    def wall(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds since the host booted."""
        self._pass_time()
        return super().monotonic()

    def sleep(self, seconds: float) -> None:
        """Let time pass, here and there."""
        time.sleep(seconds)
        self._pass_time()

    # what is real

    def _read_real(self, path: str) -> str:
        try:
            descriptor = self._tree.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            raise Missing(path, "is not there") from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise Rejected(path, errno.EINVAL, "cannot be read: not a regular file")
        with open(descriptor, errors="backslashreplace", encoding="utf-8") as stream:
            return stream.read(_LARGEST)

    def keep(self, path: str, text: str, mode: int = 0o600) -> None:
        """Replace one of dsatier's own files. Raises Rejected."""
        self._own.keep(path, text, mode)
        self.kernel.state.files[path] = text  # where the simulated tools find it

    def drop(self, path: str) -> None:
        """Remove one of dsatier's own files. Raises Rejected."""
        self._own.drop(path)
        self.kernel.state.files.pop(path, None)

    def note(self, path: str, text: str) -> None:
        """Note a text in place. Raises Rejected, ValueError."""
        self._own.note(path, text)

    def noted(self, path: str) -> str | None:
        """Return the newest note in a file. Raises Rejected."""
        return self._own.noted(path)

    @contextmanager
    def lock(self, path: str, holder: str) -> Iterator[None]:
        """Hold the lock of the host's writers. Raises Locked."""
        with self._own.lock(path, holder, f"{holder}, process {os.getpid()}"):
            yield
