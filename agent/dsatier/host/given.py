# SPDX-License-Identifier: Apache-2.0
"""Files that somebody names: profiles, facts, plans, simulated hosts. One way to read them all.

A regular file or a pipe, of a bounded size; whatever else it is, or says, ends in Invalid, with
the file's name. No device is opened, for that alone may do something, and nothing is waited for
that may never come. It imports next to nothing, for ``check`` has no time.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from dsatier.base.problem import Invalid, Problem

LARGEST = 16 << 20
"""Bytes of the largest file that is read; the facts of the largest host are a tenth of it."""
COMING = 2.0
"""Seconds in which somebody must begin to write to a pipe that nobody has open."""
SILENT = 60.0
"""Seconds for which the writer of a pipe may write nothing."""
_CHUNK = 1 << 16


class _NoFile(Exception):
    """Why a file cannot be read, in words."""


def read(path: str, most: int = LARGEST, coming: float = COMING, silent: float = SILENT) -> bytes:
    """Return what is in a file, or in standard input for ``-``. Raises Invalid."""
    try:
        if path == "-":
            data = _standard_input(most)
        else:
            descriptor = _opened(path)
            try:
                data = _whole(descriptor, most, coming, silent)
            finally:
                os.close(descriptor)
    except (OSError, ValueError, _NoFile) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise Invalid([Problem(path, 0, 0, (), "a readable file", reason)]) from None
    if len(data) > most:
        raise Invalid([Problem(path, 0, 0, (), f"at most {most} bytes", "more")])
    return data


def text(path: str, most: int = LARGEST) -> str:
    """Return the text in a file. Raises Invalid."""
    data = read(path, most)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        before = data[data.rfind(b"\n", 0, error.start) + 1 : error.start]
        place = (path, line, len(before.decode(errors="replace")) + 1)
        found = f"the byte 0x{data[error.start]:02x}"
        problem = Problem(*place, (), "UTF-8 text", found, "save the file as UTF-8")
        raise Invalid([problem]) from None


def _standard_input(most: int) -> bytes:
    """Return what comes in, one byte more than ``most`` where there is more."""
    return sys.stdin.buffer.read(most + 1)


def _opened(path: str) -> int:
    if not _fit(os.stat(path).st_mode):
        raise _NoFile("neither a regular file nor a pipe")
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    if not _fit(os.fstat(descriptor).st_mode):  # it was replaced meanwhile
        os.close(descriptor)
        raise _NoFile("neither a regular file nor a pipe")
    return descriptor


def _fit(mode: int) -> bool:
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    return stat.S_ISREG(mode) or stat.S_ISFIFO(mode)


def _whole(descriptor: int, most: int, coming: float, silent: float) -> bytes:
    """Return what is in an open file, one byte more than ``most`` where there is more."""
    pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    data = bytearray()
    while len(data) <= most:
        try:
            part = os.read(descriptor, min(_CHUNK, most + 1 - len(data)))
        except BlockingIOError:
            if not _stirs(descriptor, silent):
                raise _NoFile(f"a pipe into which nothing came for {silent:g} s") from None
            continue
        data += part
        if part:
            continue
        if data or not pipe:
            break
        # nobody has it open: either all have left, which the kernel tells, or none came yet
        found = _stirs(descriptor, coming)
        if not found:
            raise _NoFile(f"a pipe that nobody wrote to for {coming:g} s")
        if not found & 1:  # POLLIN
            break
    return bytes(data)


def _stirs(descriptor: int, seconds: float) -> int:
    """Wait for something to happen at a pipe; return what did, 0 where nothing did."""
    from select import POLLIN, poll

    waiting = poll()
    waiting.register(descriptor, POLLIN)
    return next((found for _, found in waiting.poll(seconds * 1000)), 0)
