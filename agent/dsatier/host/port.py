# SPDX-License-Identifier: Apache-2.0
"""The port to a host: all that dsatier ever asks of one.

Two real back ends implement it: ``dsatier.host.files`` (a machine's files, or a
tree that stands in for them) and ``dsatier.sim`` (a host in memory). Paths are
absolute kernel paths (``/proc/sys/vm/limit_chans``); a back end maps them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


class HostError(Exception):
    """Something that the host said or did. ``path`` tells where."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path
        self.message = message

    def __reduce__(self) -> tuple[type[HostError], tuple[object, ...]]:
        """Let it be pickled: what BaseException keeps is not what the classes take."""
        return type(self), (self.path, self.message)


class Missing(HostError):
    """The file is not there."""


class Rejected(HostError):
    """The kernel refused a read or a write with ``errno``."""

    def __init__(self, path: str, errno: int, message: str) -> None:
        super().__init__(path, message)
        self.errno = errno

    def __reduce__(self) -> tuple[type[HostError], tuple[object, ...]]:
        """See HostError."""
        return type(self), (self.path, self.errno, self.message)


class Hung(HostError):
    """A write or a command did not return within its deadline; it may still be running."""


class HostDown(HostError):
    """The host is gone: it panicked or was cut off."""


class Locked(HostError):
    """Another dsatier holds the lock: ``holder`` says in words which."""

    def __init__(self, path: str, holder: str, command: str = "", ended: bool = False) -> None:
        """``ended``: the holder's process is gone, but something that it began holds the lock on.

        ``command`` is what the holder called itself, empty where it has said nothing yet, or
        no more.
        """
        super().__init__(path, f"held by {holder}")
        self.holder = holder
        self.command = command
        self.ended = ended

    def __reduce__(self) -> tuple[type[HostError], tuple[object, ...]]:
        """See HostError."""
        return type(self), (self.path, self.holder, self.command, self.ended)


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command left behind. ``code`` is evidence of nothing."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class LogTail:
    """The kernel's own log lines since a mark. ``complete`` is False where some were lost.

    What programs write to the log is not among them.
    """

    lines: tuple[str, ...]
    complete: bool


class Host(Protocol):
    """A host. Every method may raise HostDown."""

    def read(self, path: str) -> str:
        """Return a file's text. Raises Missing, Rejected."""

    def entries(self, path: str) -> tuple[str, ...]:
        """Return the sorted names in a directory; () where there is none."""

    def link(self, path: str) -> str | None:
        """Return the target of a symbolic link as it is written, or None."""

    def others(self, path: str) -> str:
        """Say who else may write a file or directory than root and the user of this process.

        "" for nobody, and where it is not there.
        """

    def write(self, path: str, text: str, deadline: float) -> None:
        """Write ``text`` to an existing kernel file in one write() call.

        Never creates a file. Raises Missing, Rejected, or Hung after ``deadline`` seconds.
        Only ``dsatier.plan.interlock.Gate`` calls this.
        """

    def run(self, argv: tuple[str, ...], deadline: float) -> Ran:
        """Run one of accel-config, swapon, swapoff. Raises Missing where it is not installed, Hung.

        Only ``dsatier.plan.interlock.Gate`` calls this.
        """

    def resolve(self, path: str) -> str:
        """Return the path under which a command that ``run`` starts finds ``path``."""

    def log_mark(self) -> int:
        """Return a mark behind the newest kernel log line."""

    def log_since(self, mark: int) -> LogTail:
        """Return the kernel log's lines since ``mark``."""

    def hostname(self) -> str:
        """Return the host's name."""

    def wall(self) -> float:
        """Return seconds since the epoch; may jump; for people only."""

    def monotonic(self) -> float:
        """Return seconds of a clock that never goes back."""

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` of the monotonic clock pass."""

    def keep(self, path: str, text: str, mode: int = 0o600) -> None:
        """Replace one of dsatier's own files atomically, fsynced with its directory.

        Raises Rejected.
        """

    def drop(self, path: str) -> None:
        """Remove one of dsatier's own files, durably, if it is there. Raises Rejected."""

    def note(self, path: str, text: str) -> None:
        """Note a text, less the blanks at its end, in one of dsatier's own files, in place.

        It is durable when this returns; until then the note before it stands. Only the first
        note takes room. Raises Rejected, and ValueError where the text is longer than a note
        may be.
        """

    def noted(self, path: str) -> str | None:
        """Return the newest note in a file, None where there is none. Raises Rejected."""

    def lock(self, path: str, holder: str) -> AbstractContextManager[None]:
        """Hold the one lock of the host's writers. Raises Locked at once if it is held."""
