# SPDX-License-Identifier: Apache-2.0
"""dsatier's own files: replaced as a whole, durable, and one lock for those who write.

A file is written next to its place, synced, renamed into it, and the folder is synced. A reader,
or a machine that loses power, sees the old text or the new one and nothing else.
Notes are as safe and cheaper: see ``dsatier.host.step_log``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dsatier.base.paths import RUN, STATE
from dsatier.host import step_log
from dsatier.host.children import reason
from dsatier.host.port import Locked, Rejected
from dsatier.host.rooted import Tree

FOLDERS = {STATE: 0o700, RUN: 0o755}
"""The folders that dsatier makes for itself, with their modes."""
_ABOVE = 0o755
_HOLDER = 512
_ENDED = " (it has ended, but something that it began is still at work)"


class OwnFiles:
    """Writes below ``tree``. Every method raises Rejected with the errno."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.locks: tuple[int, ...] = ()
        """Descriptors of the locks that are held: a lock is held for as long as one has it open."""
        self._swept: set[str] = set()
        self._doubtful: set[str] = set()
        """Notes that the disk did not take: what is read of them may not be what is on it."""

    def keep(self, path: str, text: str, mode: int) -> None:
        """Replace a file."""
        with self._folder(path, make=True) as (folder, name):
            if path not in self._swept:
                _sweep(folder, name)
                self._swept.add(path)
            new = f".{name}.{os.getpid()}.tmp"
            with suppress(FileNotFoundError):
                os.unlink(new, dir_fd=folder)  # left by a process that had our number
            try:
                _write_new(folder, new, text.encode(errors="surrogateescape"), mode)
                os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(OSError):
                    os.unlink(new, dir_fd=folder)
                raise
            os.fsync(folder)

    def drop(self, path: str) -> None:
        """Remove a file, if it is there."""
        with self._folder(path, make=False) as (folder, name):
            if folder < 0:
                return
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
            # also when it was gone already: whoever removed it may not have synced
            os.fsync(folder)

    def note(self, path: str, text: str) -> None:
        """Note a text in place. May raise ValueError, too."""
        data = text.encode(errors="surrogateescape")
        with self._folder(path, make=True) as (folder, name):
            descriptor = _open_notes(folder, name, os.O_RDWR)
            try:
                before = None if descriptor < 0 else step_log.newest(_whole(descriptor))
                if before is None or path in self._doubtful:
                    self._note_anew(path, data)
                    return
                number = before[0] + 1
                self._doubtful.add(path)  # until it is on the disk
                slot = step_log.slot(number, data)
                if os.pwrite(descriptor, slot, step_log.offset(number)) != len(slot):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fdatasync(descriptor)
                self._doubtful.discard(path)
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def _note_anew(self, path: str, data: bytes) -> None:
        """Make the file with a first note; all of its room is taken now."""
        whole = step_log.slot(0, data) + b" " * step_log.SLOT
        self.keep(path, whole.decode(errors="surrogateescape"), 0o600)
        self._doubtful.discard(path)

    def noted(self, path: str) -> str | None:
        """Return the newest note that is whole, None where there is none."""
        with self._folder(path, make=False) as (folder, name):
            descriptor = -1 if folder < 0 else _open_notes(folder, name, os.O_RDONLY)
            if descriptor < 0:
                return None
            try:
                found = step_log.newest(_whole(descriptor))
            finally:
                os.close(descriptor)
        return None if found is None else found[1].decode(errors="surrogateescape")

    @contextmanager
    def lock(self, path: str, command: str, words: str = "") -> Iterator[None]:
        """Hold a lock, with who holds it written in it: process, words, command. Raises Locked.

        The file stays when the lock is let go: a file that went away could be locked twice.
        The lock ends with the process; a child that is stuck in a write or at work holds it on.
        """
        holder = f"{os.getpid()}\n{words or command}\n{command}\n".encode()[:_HOLDER]
        with self._folder(path, make=True) as (folder, name):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(name, flags, 0o644, dir_fd=folder)
        try:
            with self._errors(path):
                _take(descriptor, path)
            try:
                with self._errors(path):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, holder, 0)
                before, self.locks = self.locks, (*self.locks, descriptor)
                try:
                    yield
                finally:
                    self.locks = before
            finally:
                # emptied, so that nobody reads the name of one who let go
                with suppress(OSError):
                    os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)

    @contextmanager
    def _folder(self, path: str, *, make: bool) -> Iterator[tuple[int, str]]:
        """Yield an open folder (-1 where there is none and none is made) and a name in it."""
        above, _, name = path.rpartition("/")
        if not name:
            raise Rejected(path, errno.EINVAL, "expected the path of a file")
        with self._errors(path):
            if make:
                self._make(above)
            try:
                folder = self._tree.open(above or "/", os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                if make:
                    raise
                yield -1, name
                return
            try:
                yield folder, name
            finally:
                os.close(folder)

    def _make(self, folder: str) -> None:
        """Make the folders that are dsatier's own, and those above them."""
        own = next((f for f in FOLDERS if folder == f or folder.startswith(f + "/")), None)
        if own is None:
            return
        done = ""
        for part in folder.split("/")[1:]:
            done += f"/{part}"
            mode = FOLDERS[own] if done == own or done.startswith(own + "/") else _ABOVE
            with self._tree.parent(done) as (above, name):
                try:
                    os.mkdir(name, mode, dir_fd=above)
                except FileExistsError:
                    continue
                os.chmod(name, mode, dir_fd=above)  # the umask may have taken something
                _sync(above)

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            code = error.errno or errno.EIO
            raise Rejected(path, code, f"cannot be written: {reason(code)}") from error


def _sync(folder: int) -> None:
    """Sync a folder that is open as a mere place."""
    readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(readable)
    finally:
        os.close(readable)


def _open_notes(folder: int, name: str, flags: int) -> int:
    """Open a file of notes; return -1 where there is no such regular file."""
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=folder)
    except FileNotFoundError:
        return -1
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return -1


def _whole(descriptor: int) -> bytes:
    """Return what is in a file of notes, and one byte more where there is more."""
    return os.pread(descriptor, step_log.SIZE + 1, 0)


def _write_new(folder: int, name: str, data: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, mode, dir_fd=folder)
    try:
        os.fchmod(descriptor, mode)
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: int, name: str) -> None:
    """Remove what processes left that were killed while they wrote this file."""
    left = re.compile(rf"\.{re.escape(name)}\.(\d+)\.tmp")
    for entry in os.listdir(folder):
        match = left.fullmatch(entry)
        if match and not alive(int(match[1])):
            with suppress(OSError):
                os.unlink(entry, dir_fd=folder)


def alive(process: int) -> bool:
    """Tell whether a process of that number is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _take(descriptor: int, path: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, _HOLDER, 0).decode(errors="backslashreplace").strip()
        process, words, command, *_ = (*text.split("\n"), "", "", "")
        ended = process.isdecimal() and not alive(int(process))
        holder = (words or "another dsatier") + (_ENDED if ended else "")
        raise Locked(path, holder, command, ended=ended) from None
