# SPDX-License-Identifier: Apache-2.0
"""The kernel log: records of /dev/kmsg, read on from where the last look ended.

A mark is a sequence number: the records from it on are those that came after the mark.
"""

from __future__ import annotations

import errno
import os
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from dsatier.host.port import LogTail

KMSG = "/dev/kmsg"
_RECORD = 8192 + 4096
"""More than the longest record; the kernel gives one whole record to each read."""
_KEPT = 1024
"""Records that stay in memory, so that a look at the last few needs no second reading."""
_LARGEST_FILE = 1 << 20
_FACILITY = 3
"""Bits of the level, which stand below the facility. The kernel's own facility is 0."""
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the kernel log."""

    sequence: int
    text: str
    continues: bool
    """It goes on with the text of the record before."""
    by_kernel: bool = True
    """False: a program wrote it to /dev/kmsg. Whatever it says, the kernel did not say it."""


def record(text: str) -> Record | None:
    """Return the record that ``pri,seq,usec,flags[,...];text`` stands for, None for anything else.

    Lines after the first start with a space and are the record's dictionary.
    """
    head, mark, body = text.partition(";")
    numbers = head.split(",")
    if not mark or len(numbers) < 3 or not numbers[1].isdecimal() or not numbers[0].isdecimal():
        return None
    flags = numbers[3] if len(numbers) > 3 else "-"
    line = body.partition("\n")[0]
    by_kernel = int(numbers[0]) >> _FACILITY == 0
    return Record(int(numbers[1]), unescaped(line), flags == "+", by_kernel)


def unescaped(text: str) -> str:
    r"""Return ``text`` with its ``\x0a`` escapes undone, which stand for bytes of UTF-8."""
    if "\\x" not in text:
        return text
    raw = _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text.encode().decode("latin-1"))
    return raw.encode("latin-1").decode(errors="backslashreplace")


def records(text: str) -> tuple[Record, ...]:
    """Return the records in a file of the same form, one after the other."""
    found = []
    for line in text.split("\n"):
        if not line.startswith(" ") and (new := record(line)) is not None:
            found.append(new)
    return tuple(found)


def lines(found: tuple[Record, ...]) -> tuple[str, ...]:
    """Return what the kernel says in records, with continued ones put together.

    A record is one line, whatever is in it: the name of a program may have a line's end in it,
    and what follows must not pass for a line of the kernel's.
    """
    texts: list[str] = []
    for new in found:
        if not new.by_kernel:
            continue
        if new.continues and texts:
            texts[-1] += new.text
        else:
            texts.append(new.text)
    return tuple(texts)


def tail(found: tuple[Record, ...], mark: int, *, lost: bool) -> LogTail:
    """Return the log's lines since ``mark``, given all records that could be read.

    It is incomplete where ``lost`` says so, where the first record read came after the
    mark, and where the log is shorter than the mark: it began anew.
    """
    first = found[0].sequence if found else 0
    end = found[-1].sequence + 1 if found else 0
    gaps = any(b.sequence != a.sequence + 1 for a, b in pairwise(found))
    since = tuple(new for new in found if new.sequence >= mark)
    return LogTail(lines(since), not lost and not gaps and first <= mark <= end)


class KernelLog:
    """Reads /dev/kmsg. ``open_file`` opens it read-only and without blocking."""

    def __init__(self, open_file: Callable[[], int]) -> None:
        self._open = open_file
        self._descriptor = -1
        self._kept: deque[Record] = deque(maxlen=_KEPT)
        self._next = 0
        self._lost_before = 0
        """Some records before this sequence number were lost."""

    def mark(self) -> int:
        """Return the sequence number that the next record will have. Raises OSError."""
        self._read_on()
        return self._next

    def since(self, mark: int) -> LogTail:
        """Return the lines of the records from ``mark`` on. Raises OSError."""
        self._read_on()
        if mark < self._next and (not self._kept or self._kept[0].sequence > mark):
            return self._again(mark)
        found = tuple(new for new in self._kept if new.sequence >= mark)
        complete = mark >= self._lost_before and mark <= self._next
        return LogTail(lines(found), complete)

    def close(self) -> None:
        """Close the log."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _read_on(self) -> None:
        if self._descriptor < 0:
            self._descriptor = self._open()
        for new in self._records(self._descriptor):
            if new.sequence > self._next:
                self._lost_before = new.sequence
            self._next = new.sequence + 1
            self._kept.append(new)

    def _again(self, mark: int) -> LogTail:
        """Read the whole log once more: the mark is older than what is kept."""
        descriptor = self._open()
        try:
            found = tuple(self._records(descriptor))
        finally:
            os.close(descriptor)
        return tail(found, mark, lost=False)

    def _records(self, descriptor: int) -> list[Record]:
        found: list[Record] = []
        while True:
            try:
                data = os.read(descriptor, _RECORD)
            except OSError as error:
                if error.errno == errno.EAGAIN:
                    return found
                if error.errno in (errno.EPIPE, errno.EINTR):
                    continue  # EPIPE: records were overwritten; the gap in the numbers tells
                raise
            if not data:
                return found
            new = record(data.decode(errors="backslashreplace"))
            if new is not None:
                found.append(new)


def file_tail(data: bytes, mark: int, *, cut: bool) -> LogTail:
    """Return the lines since ``mark`` of a plain file in /dev/kmsg's form.

    ``cut``: ``data`` does not begin at the file's start, so its first line may be half.
    """
    text = data.decode(errors="backslashreplace")
    if cut:
        text = text.partition("\n")[2]
    return tail(records(text), mark, lost=False)


def file_mark(data: bytes) -> int:
    """Return the mark behind the newest record of a plain file, 0 where it has none."""
    found = records(data.decode(errors="backslashreplace"))
    return found[-1].sequence + 1 if found else 0


def end_of_file(descriptor: int) -> tuple[bytes, bool]:
    """Return a file's last MiB and whether that is less than the whole. Raises OSError."""
    size = os.fstat(descriptor).st_size
    start = max(0, size - _LARGEST_FILE)
    return os.pread(descriptor, _LARGEST_FILE, start), start > 0
