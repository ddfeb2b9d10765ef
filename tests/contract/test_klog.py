# SPDX-License-Identifier: Apache-2.0
"""The kernel log, as /dev/kmsg gives it."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from dsatier.host.files import FileHost
from dsatier.host.kernel_log import KMSG, KernelLog, Record, record, records, tail
from dsatier.host.port import LogTail, Missing, Rejected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6,1,0,-;hello\n", Record(1, "hello", False)),
        ("3,12,7,-,caller=T1;a;b,c\n SUBSYSTEM=pci\n DEVICE=+pci\n", Record(12, "a;b,c", False)),
        ("12,1,0,-;a program\n", Record(1, "a program", False, by_kernel=False)),
        ("6,2,0,+; and more\n", Record(2, " and more", True)),
        ("6,3,0,-;\\x09tab \\xc3\\xa9 \\x5cx41\n", Record(3, "\ttab é \\x41", False)),
        ("6,3,0,-;\\xff\n", Record(3, "\\xff", False)),
        ("no record\n", None),
        (";x", None),
        ("a,b,c,-;x", None),
        ("", None),
    ],
)
def test_a_record(text: str, expected: Record | None) -> None:
    assert expected == record(text)


def test_continued_records_are_one_line_and_so_is_a_record_with_newlines() -> None:
    found = records("6,1,0,c;one\n6,2,0,+; two\n K=V\n6,3,0,-;three\\x0afour\n")
    assert tail(found, 1, lost=False) == LogTail(("one two", "three\nfour"), complete=True)


def test_what_programs_write_is_not_the_kernels_and_not_lost() -> None:
    found = records("6,1,0,-;one\n12,2,0,-;BUG: a test\n30,3,0,-;a daemon\n6,4,0,-;two\n")
    assert tail(found, 1, lost=False) == LogTail(("one", "two"), complete=True)


@pytest.mark.parametrize(
    ("numbers", "mark", "complete"),
    [
        ((5, 6, 7), 5, True),
        ((5, 6, 7), 8, True),
        ((5, 6, 7), 4, False),
        ((5, 7), 5, False),
        ((5, 6, 7), 9, False),
        ((), 0, True),
        ((), 3, False),
    ],
)
def test_what_makes_a_log_incomplete(numbers: tuple[int, ...], mark: int, complete: bool) -> None:
    found = tuple(Record(n, str(n), False) for n in numbers)
    expected = LogTail(tuple(str(n) for n in numbers if n >= mark), complete)
    assert expected == tail(found, mark, lost=False)


class Ring:
    """Stands for /dev/kmsg: each reader gets whole records, and EAGAIN at the end."""

    def __init__(self) -> None:
        self.records: dict[int, str] = {}
        self.readers: list[tuple[socket.socket, int]] = []
        self.opened = 0

    def add(self, *numbers: int) -> None:
        for n in numbers:
            self.records[n] = f"6,{n},0,-;line {n}\n"
            for end, _ in self.readers:
                end.send(self.records[n].encode())

    def forget(self, below: int) -> None:
        self.records = {n: text for n, text in self.records.items() if n >= below}

    def open(self) -> int:
        self.opened += 1
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        its.setblocking(False)
        for text in self.records.values():
            ours.send(text.encode())
        self.readers.append((ours, 0))
        return its.detach()


@contextmanager
def reading(ring: Ring) -> Iterator[KernelLog]:
    log = KernelLog(ring.open)
    yield log
    log.close()
    for end, _ in ring.readers:
        end.close()


def names(*numbers: int) -> tuple[str, ...]:
    return tuple(f"line {n}" for n in numbers)


def test_a_log_is_read_on_and_opened_once() -> None:
    ring = Ring()
    ring.add(0, 1, 2)
    with reading(ring) as log:
        assert LogTail(names(0, 1, 2), complete=True) == log.since(0)
        mark = log.mark()
        assert 3 == mark
        assert LogTail((), complete=True) == log.since(mark)
        ring.add(3, 4)
        assert LogTail(names(3, 4), complete=True) == log.since(mark)
        assert LogTail(names(3, 4), complete=True) == log.since(mark)
        assert 1 == ring.opened


def test_a_log_that_began_before_the_buffer_is_incomplete() -> None:
    ring = Ring()
    ring.add(10, 11)
    with reading(ring) as log:
        assert LogTail(names(10, 11), complete=False) == log.since(0)
        assert LogTail(names(11), complete=True) == log.since(11)


def test_lost_records_are_told_to_marks_before_them_only() -> None:
    ring = Ring()
    ring.add(0, 1)
    with reading(ring) as log:
        mark = log.mark()
        ring.add(5, 6)
        assert LogTail(names(5, 6), complete=False) == log.since(mark)
        assert LogTail(names(6), complete=True) == log.since(6)


def test_an_old_mark_makes_it_read_again() -> None:
    ring = Ring()
    with reading(ring) as log:
        for start in range(0, 1400, 100):  # a socket does not hold them all at once
            ring.add(*range(start, start + 100))
            log.mark()
        ring.forget(1350)
        found = log.since(1200)
        assert LogTail(names(*range(1200, 1400)), complete=True) == found
        again = log.since(100)
        assert LogTail(names(*range(1350, 1400)), complete=False) == again
        assert 2 == ring.opened


def refusal() -> int:
    """Return the errno with which the kernel refuses its log to this process, 0 if it does not.

    ``access()`` does not tell: with ``kernel.dmesg_restrict`` the file's mode allows it, and
    ``open()`` fails.
    """
    try:
        os.close(os.open(KMSG, os.O_RDONLY | os.O_NONBLOCK))
    except OSError as error:
        return error.errno or 0
    return 0


def test_the_machines_own_log() -> None:
    """It is read on, or the error says why not."""
    with closing(FileHost()) as host:
        code = refusal()
        if code == 0:
            mark = host.log_mark()
            assert mark > 0
            assert mark <= host.log_mark()
            assert host.log_since(mark).complete
            return
        for ask in (host.log_mark, lambda: host.log_since(0)):
            with pytest.raises((Missing, Rejected)) as caught:
                ask()
            assert KMSG in str(caught.value)
            assert code == errno.ENOENT or errno.errorcode[code] in str(caught.value)
