# SPDX-License-Identifier: Apache-2.0
"""A host by its files: a machine's own, or those of a tree that stands in for one.

Everything below the root belongs to the host, dsatier's own files included, so that
``--root DIR`` works on a whole other host.
"""

from __future__ import annotations

import errno
import os
import resource
import stat
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from dsatier.host import children
from dsatier.host.kernel_log import KMSG, KernelLog, end_of_file, file_mark, file_tail
from dsatier.host.port import HostError, LogTail, Missing, Ran, Rejected
from dsatier.host.rooted import Tree
from dsatier.host.state_files import OwnFiles

LARGEST = 4 << 20
"""Bytes of the largest file that is read: /proc/cpuinfo of 2,000 CPUs."""
PROGRAMS = frozenset({"accel-config", "swapon", "swapoff"})
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_PAGE = 4096
_CHUNK = 65536
_KERNEL = ("/sys/", "/proc/")
_WHOLE = ("/sys/", "/proc/sys/")
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ENODEV)
"""ENODEV: the file is of a device that went away while it was open."""
_MOST_OPEN = 4096
_SPARE = 256
_NO_SYS = 125
_IN_TREE = 'mount --bind -- "$1" /sys || exit 125; shift; exec "$@"'  # nothing of $1 is ever parsed


class FileHost:
    """Implements ``dsatier.host.port.Host`` over the files below ``root``.

    ``path`` is where programs are looked for. ``most_open`` bounds how many kernel files
    stay open between reads, which makes reading them again six times as cheap. Where the
    soft limit on open files is lower, it is raised as far as the hard one allows.
    ``waiting`` is called every few seconds while a write or a program takes its time.
    """

    def __init__(
        self,
        root: str = "/",
        path: str = PATH,
        most_open: int = _MOST_OPEN,
        waiting: Callable[[], None] = children.silent,
    ) -> None:
        self._tree = Tree(root)
        self._path = path
        self._own = OwnFiles(self._tree)
        self._waiting = waiting
        self._writer = children.Writer(waiting)
        self._log = KernelLog(self._open_log)
        self._wanted_open = most_open
        self._most_open = min(most_open, _room(resource.getrlimit(resource.RLIMIT_NOFILE)[0]))
        self._seen: set[str] = set()
        self._open: dict[str, int] = {}

    @property
    def root(self) -> str:
        """The directory that stands for the host's ``/``."""
        return self._tree.root

    def close(self) -> None:
        """Close all open files."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        self._log.close()

    # reading

    def read(self, path: str) -> str:
        """Return a file's text, of a .gz file what is packed in it.

        Bytes that are no UTF-8 come as backslash escapes.
        """
        descriptor = self._open.get(path)
        if descriptor is not None:
            try:
                # the kernel's own file systems answer for a file that went; in a plain tree
                # it may have been replaced by another
                if self._tree.whole or os.fstat(descriptor).st_nlink:
                    return _text(descriptor, path)
            except OSError:
                pass  # a file of a device that went; it may have come back under its name
            self._forget(path)
        try:
            return self._read_anew(path)
        except OSError as error:
            raise _host_error(path, error, "cannot be read") from error

    def _read_anew(self, path: str) -> str:
        keep = path in self._seen and self._may_keep()
        descriptor = self._tree.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            text = _text(descriptor, path)
        except BaseException:
            os.close(descriptor)
            raise
        if keep:
            self._open[path] = descriptor
        else:
            os.close(descriptor)
            if path.startswith(_KERNEL):
                self._seen.add(path)  # what is read a second time is read again and again
        return text

    def _may_keep(self) -> bool:
        """Tell whether one more file may stay open."""
        if len(self._open) >= self._most_open < self._wanted_open:
            self._most_open = min(self._wanted_open, _raised_room(self._wanted_open))
            self._wanted_open = self._most_open  # asked for once
        return len(self._open) < self._most_open

    def _forget(self, path: str) -> None:
        os.close(self._open.pop(path))

    def entries(self, path: str) -> tuple[str, ...]:
        """Return the sorted names in a directory; () where there is none."""
        try:
            return tuple(sorted(self._tree.names(path)))
        except OSError as error:
            if error.errno in _ABSENT:
                return ()
            raise _host_error(path, error, "cannot be listed") from error

    def link(self, path: str) -> str | None:
        """Return the target of a symbolic link as it is written, or None."""
        try:
            return self._tree.link(path)
        except OSError as error:
            if error.errno in (*_ABSENT, errno.EINVAL):
                return None
            raise _host_error(path, error, "cannot be read as a link") from error

    def others(self, path: str) -> str:
        """Say who else may write a file or directory; "" for nobody."""
        return self._tree.others(path)

    # changing

    def write(self, path: str, text: str, deadline: float) -> None:
        """Write to an existing kernel file: one write(), by a child, waited for ``deadline`` s."""

        def open_file() -> int:
            flags = os.O_WRONLY | os.O_TRUNC | os.O_NONBLOCK | os.O_NOCTTY
            descriptor = self._tree.open(path, flags)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            return descriptor

        try:
            self._writer.write(path, open_file, text.encode(), deadline)
        except OSError as error:
            raise _host_error(path, error, "cannot be opened for writing") from error

    def run(self, argv: tuple[str, ...], deadline: float) -> Ran:
        """Run accel-config, swapon or swapoff; below another root accel-config sees its /sys.

        A tree is not a machine: swapon and swapoff are Rejected there.
        """
        name = argv[0] if argv else ""
        if name not in PROGRAMS:
            raise ValueError(f"expected one of {', '.join(sorted(PROGRAMS))}, found {name!r}")
        program = _program(name, self._path)
        if program is None:
            raise Missing(name, f"is not installed in {self._path}")
        command = (program, *argv[1:])
        if not self._tree.whole:
            command = self._in_tree(name, command)
        environment = {"LC_ALL": "C", "PATH": self._path, "HOME": "/"}
        try:
            ran = children.run(command, environment, deadline, name, self._waiting, self._own.locks)
        except OSError as error:
            raise _host_error(name, error, "cannot be run") from error
        if command[0] != program and (ran.code == _NO_SYS or ran.err.startswith("unshare:")):
            raise Rejected(name, errno.EPERM, f"cannot be shown another /sys: {ran.err.strip()}")
        return ran

    def _in_tree(self, name: str, command: tuple[str, ...]) -> tuple[str, ...]:
        """Return the command that shows ``command`` the tree's /sys."""
        if name != "accel-config":
            raise Rejected(
                name, errno.EPERM, f"{self.root} is a tree, not a machine: its swap stays as it is"
            )
        tools = [_program(tool, PATH) for tool in ("unshare", "sh")]
        if None in tools:
            raise Missing("unshare", f"is not installed in {PATH}, or sh is not")
        unshare, shell = map(str, tools)
        try:
            sys = self._tree.real("/sys")
        except OSError as error:
            raise _host_error("/sys", error, "cannot be found") from error
        as_root = () if os.geteuid() == 0 else ("--map-root-user",)
        private = (unshare, *as_root, "--mount", "--propagation", "private", "--")
        return (*private, shell, "-c", _IN_TREE, shell, sys, *command)

    def resolve(self, path: str) -> str:
        """Return the path under which a command that ``run`` starts finds ``path``."""
        if self._tree.whole or path == "/sys" or path.startswith("/sys/"):
            return path
        try:
            return self._tree.real(path)
        except OSError as error:
            raise _host_error(path, error, "cannot be found") from error

    def place(self, path: str) -> str:
        """Return the machine's own path of ``path``. May raise OSError."""
        return path if self._tree.whole else self._tree.real(path)

    # the log, the clocks and the name

    def _open_log(self) -> int:
        return self._tree.open(KMSG, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)

    def _log_file(self) -> tuple[bytes, bool] | None:
        """Return the end of the plain file that is the log, None where there is a real one."""
        if self._tree.whole:
            return None
        descriptor = self._open_log()
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            return end_of_file(descriptor)
        finally:
            os.close(descriptor)

    def log_mark(self) -> int:
        """Return the sequence number that the log's next record will have.

        Raises Missing or Rejected where the log cannot be read.
        """
        try:
            found = self._log_file()
            return self._log.mark() if found is None else file_mark(found[0])
        except OSError as error:
            raise _host_error(KMSG, error, "cannot be read") from error

    def log_since(self, mark: int) -> LogTail:
        """Return the log's lines since ``mark``. Raises Missing or Rejected as ``log_mark``."""
        try:
            found = self._log_file()
            if found is None:
                return self._log.since(mark)
            return file_tail(found[0], mark, cut=found[1])
        except OSError as error:
            raise _host_error(KMSG, error, "cannot be read") from error

    def hostname(self) -> str:
        """Return the host's name, empty where it has none."""
        try:
            return self.read("/proc/sys/kernel/hostname").strip()
        except Missing:
            return ""

    def wall(self) -> float:
        """Return seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds since some moment, counting those of a suspended machine."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)
        self._waiting()

    # dsatier's own files

    def keep(self, path: str, text: str, mode: int = 0o600) -> None:
        """Replace one of dsatier's own files; its folder is made where that is dsatier's own."""
        self._own.keep(path, text, mode)

    def drop(self, path: str) -> None:
        """Remove one of dsatier's own files, durably, if it is there."""
        self._own.drop(path)

    def note(self, path: str, text: str) -> None:
        """Note a text in place, durably."""
        self._own.note(path, text)

    def noted(self, path: str) -> str | None:
        """Return the newest note in a file, None where there is none."""
        return self._own.noted(path)

    def lock(self, path: str, holder: str) -> AbstractContextManager[None]:
        """Hold the lock of the host's writers; another process that asks for it gets ``holder``."""
        since = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(self.wall()))
        words = f"{holder}, process {os.getpid()}, since {since}"
        return self._own.lock(path, holder, words)


def _program(name: str, path: str) -> str | None:
    """Return where a program is, as ``shutil.which`` does; that module brings five others."""
    found = (os.path.join(folder, name) for folder in path.split(":"))
    return next((one for one in found if os.path.isfile(one) and os.access(one, os.X_OK)), None)


def _room(limit: int) -> int:
    """Return how many files may stay open under a limit on open files."""
    return _MOST_OPEN if limit == resource.RLIM_INFINITY else max(0, limit - _SPARE)


def _raised_room(wanted: int) -> int:
    """Raise the soft limit on open files for ``wanted`` of them; return what there is room for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    raised = wanted + _SPARE if hard == resource.RLIM_INFINITY else min(wanted + _SPARE, hard)
    if raised > soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
        soft = raised
    return _room(soft)


def _text(descriptor: int, path: str) -> str:
    """Return all that is in an open file. Raises OSError."""
    # the kernel gives a sysfs attribute or a sysctl whole, or a page of it: less is the end
    data = os.pread(descriptor, _PAGE, 0)
    if data and (len(data) >= _PAGE or not path.startswith(_WHOLE)):
        parts, size = [data], len(data)
        while data and size <= LARGEST:
            data = os.pread(descriptor, _CHUNK, size)
            parts.append(data)
            size += len(data)
        if size > LARGEST:
            raise OSError(errno.EFBIG, f"larger than {LARGEST} bytes")
        data = b"".join(parts)
    if path.endswith(".gz"):
        data = _unpacked(data)
    return data.decode(errors="backslashreplace")


def _unpacked(data: bytes) -> bytes:
    """Return what gzip packed, no more than may be read. Raises OSError."""
    import zlib

    try:
        return zlib.decompressobj(wbits=31).decompress(data, LARGEST)
    except zlib.error as error:
        raise OSError(errno.EILSEQ, str(error)) from None


def _host_error(path: str, error: OSError, what: str) -> HostError:
    """Return the error of the port that stands for one of the operating system."""
    code = error.errno or errno.EIO
    if code in _ABSENT:
        return Missing(path, "is not there")
    if code == errno.EXDEV:
        return Rejected(path, code, f"{what}: it leads out of the root")
    known = os.strerror(code)
    said = "" if error.strerror in (None, known) else f"{error.strerror}: "
    return Rejected(path, code, f"{what}: {said}{children.reason(code)}")
