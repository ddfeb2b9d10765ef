# SPDX-License-Identifier: Apache-2.0
"""The daemon's log, through real pipes, sockets and terminals."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO
from unicodedata import category

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsatier.daemon.log import LEVELS, LONGEST, Logger, is_journal, logger


@contextmanager
def pipe() -> Iterator[tuple[int, TextIO]]:
    """Yield the reading end of a pipe, which the test may close, and a stream that writes it."""
    reader, writer = os.pipe()
    stream = os.fdopen(writer, "w")
    yield reader, stream
    stream.close()


def said(journal: bool, level: str = "debug", **fields: object) -> str:
    """Return the line that an event makes."""
    stream = io.StringIO()
    logger(stream, journal, level).info("look", **fields)
    return stream.getvalue()


def fields_of(text: str) -> dict[str, object]:
    """Return the fields of a journal's line."""
    match = re.fullmatch(r"<(\d)>(\{.*\})\n", text)
    assert match is not None
    found = json.loads(match[2])
    assert isinstance(found, dict)
    return found


# -- the lines -------------------------------------------------------------------


def test_journal_line_has_a_priority_and_its_fields_in_order() -> None:
    line = said(True, zebra=1, seconds=0.5, state="converged", apple=None, message="it is so")
    expected = (
        '<6>{"event": "look", "level": "info", "state": "converged", "message": "it is so", '
        '"seconds": 0.5, "apple": null, "zebra": 1}\n'
    )
    assert expected == line


def test_priorities_are_those_of_sd_daemon() -> None:
    stream = io.StringIO()
    log = logger(stream, journal=True, level="debug")
    for say in (log.error, log.warning, log.notice, log.info, log.debug):
        say("x")
    lines = stream.getvalue().splitlines(keepends=True)
    assert ["<3>", "<4>", "<5>", "<6>", "<7>"] == [line[:3] for line in lines]
    levels = ["error", "warning", "notice", "info", "debug"]
    assert levels == [fields_of(line)["level"] for line in lines]


def test_line_for_people() -> None:
    stream = io.StringIO()
    logger(stream, journal=False).warning(
        "step done", step=3, what="dsa_state = 1", state="converging", none=None, lines="a\nb"
    )
    stamp, _, rest = stream.getvalue().partition(" ")
    assert re.fullmatch(r"\d\d:\d\d:\d\d", stamp)
    words = ["[warning", "]", "step", "done", "state=converging", "step=3", "what='dsa_state"]
    assert rest.split() == [*words, "=", "1'", r"lines=a\nb", "none=null"]


@pytest.mark.parametrize("level", list(LEVELS))
def test_only_what_is_bad_enough_is_written(level: str) -> None:
    stream = io.StringIO()
    log = logger(stream, True, level)
    for name in LEVELS:
        getattr(log, name)("x")
    found = [fields_of(line)["level"] for line in stream.getvalue().splitlines(keepends=True)]
    assert [name for name in LEVELS if LEVELS[name] <= LEVELS[level]] == found


def test_a_level_that_there_is_not() -> None:
    with pytest.raises(ValueError, match=r"expected a level of error, .*, found 'loud'"):
        logger(io.StringIO(), True, "loud")


def test_bound_fields_stay() -> None:
    stream = io.StringIO()
    log = logger(stream, True).bind(state="drifted", boot=4)
    log.info("a", boot=5)
    log.info("b")
    assert [
        {"event": "a", "level": "info", "state": "drifted", "boot": 5},
        {"event": "b", "level": "info", "state": "drifted", "boot": 4},
    ] == [fields_of(line) for line in stream.getvalue().splitlines(keepends=True)]


@given(st.text(), st.text(), st.dictionaries(st.text(), st.text() | st.binary() | st.floats()))
def test_whatever_is_said_is_one_line_that_reads_back(
    event: str, message: str, fields: dict[str, object]
) -> None:
    for journal in (True, False):
        stream = io.StringIO()
        given_fields = {**fields, "message": message}
        logger(stream, journal).info(event, **given_fields)
        text = stream.getvalue()
        assert text.endswith("\n")
        assert [] == [c for c in text[:-1] if category(c) in ("Cc", "Zl", "Zp")]
        if journal:
            found = fields_of(text)
            assert (event, message) == (found["event"], found["message"])
            assert {"event", "level", *given_fields} == set(found)


@given(st.characters(categories=["Cs"]))
def test_bytes_that_are_no_text_read_back(odd: str) -> None:
    stream = io.StringIO()
    logger(stream, journal=True).info("x", path=odd)
    assert odd == fields_of(stream.getvalue())["path"]


def test_values_that_json_does_not_have() -> None:
    class Mute:
        def __str__(self) -> str:
            raise RuntimeError

    found = fields_of(
        said(
            True,
            path=Path("/x"),
            wrong=OSError(5, "Input/output error"),
            never=float("inf"),
            raw=b"a\xff",
            nested={"a": (1, {2: "\n"})},
            mute=Mute(),
            long="x" * (LONGEST + 1),
        )
    )
    assert {
        "event": "look",
        "level": "info",
        "long": "x" * LONGEST + "…",
        "mute": "<Mute: RuntimeError>",
        "nested": {"a": [1, {"2": "\n"}]},
        "never": "inf",
        "path": "/x",
        "raw": "a\\xff",
        "wrong": "[Errno 5] Input/output error",
    } == found


def test_a_field_may_have_any_name() -> None:
    odd = {"self": 1, "event": "other", "level": "loud", "method_name": 2}
    stream = io.StringIO()
    logger(stream, journal=True).info("look", **odd)
    expected = {"event": "look", "level": "info", "self": 1, "method_name": 2}
    assert expected == fields_of(stream.getvalue())


# -- the stream ------------------------------------------------------------------


def test_one_line_is_one_write() -> None:
    # a socket that keeps the bounds of writes, as journald's end of a stream sees them
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there, os.fdopen(os.dup(here.fileno()), "w") as stream:
        log = logger(stream, journal=True)
        log.info("first", state="converged", message="a\nb")
        log.error("second")
        there.setblocking(False)
        assert [
            b'<6>{"event": "first", "level": "info", "state": "converged", "message": "a\\nb"}\n',
            b'<3>{"event": "second", "level": "error"}\n',
        ] == [there.recv(4096), there.recv(4096)]
        with pytest.raises(BlockingIOError):
            there.recv(4096)


def say_all(log: Logger) -> None:
    for name in LEVELS:
        getattr(log, name)("x", message="y")


@pytest.mark.parametrize("journal", [True, False])
def test_nobody_reads_any_more(journal: bool) -> None:
    with pipe() as (reader, stream):
        os.close(reader)
        with pytest.raises(BrokenPipeError):  # it is really broken
            os.write(stream.fileno(), b"x")
        say_all(logger(stream, journal, "debug"))


@pytest.mark.parametrize("journal", [True, False])
def test_the_stream_is_closed(journal: bool) -> None:
    with pipe() as (reader, stream):
        log = logger(stream, journal, "debug")
        stream.close()
        say_all(log)
        say_all(logger(stream, journal, "debug"))
        os.close(reader)


def test_the_terminal_hung_up() -> None:
    above, below = pty.openpty()
    with os.fdopen(below, "w") as stream:
        os.close(above)
        with pytest.raises(OSError, match="Input/output error"):
            os.write(below, b"x")
        say_all(logger(stream, False, "debug"))


def test_a_full_disk() -> None:
    with open("/dev/full", "w", encoding="utf-8") as stream:
        say_all(logger(stream, True, "debug"))


@pytest.mark.parametrize("blocking", [True, False])
def test_a_reader_that_is_behind_holds_nobody_up(blocking: bool) -> None:
    with pipe() as (reader, stream):
        fill(stream.fileno())
        os.set_blocking(stream.fileno(), blocking)
        log = logger(stream, journal=True)
        for _ in range(3):
            log.info("nobody sees it")
        drain(reader)
        log.info("back")
        log.info("and on")
        assert (
            '<6>{"event": "back", "level": "info", "lines_lost": 3}\n'
            '<6>{"event": "and on", "level": "info"}\n'
        ) == drain(reader).decode()
        os.close(reader)


def test_a_line_that_was_cut_does_not_spoil_the_next() -> None:
    with pipe() as (reader, stream):
        fill(stream.fileno())
        os.set_blocking(stream.fileno(), False)
        os.read(reader, 4096)  # room for a part of what comes
        log = logger(stream, journal=True)
        log.info("long", **{f"field{i}": "x" * LONGEST for i in range(9)})
        drain(reader)
        log.info("next")
        assert '\n<6>{"event": "next", "level": "info", "lines_lost": 1}\n' == (
            drain(reader).decode()
        )
        os.close(reader)


def fill(descriptor: int) -> None:
    """Write into a pipe until nothing more goes in."""
    os.set_blocking(descriptor, False)
    for size in (4096, 1):
        try:
            while True:
                os.write(descriptor, b"." * size)
        except BlockingIOError:
            pass


def drain(descriptor: int) -> bytes:
    """Read all that is in a pipe now."""
    os.set_blocking(descriptor, False)
    found = b""
    try:
        while more := os.read(descriptor, 65536):
            found += more
    except BlockingIOError:
        pass
    return found


def test_colours_only_on_a_terminal() -> None:
    above, below = pty.openpty()
    with os.fdopen(below, "w") as stream:
        logger(stream, journal=False).error("it failed", step=3)
        shown = os.read(above, 4096).decode()
    os.close(above)
    assert "\x1b[" in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    with pipe() as (reader, piped):
        logger(piped, journal=False).error("it failed", step=3)
        assert drain(reader).decode()[8:].split() == plain[8:].split()
        os.close(reader)
    assert plain.split()[1:] == ["[error", "]", "it", "failed", "step=3"]


# -- who reads -------------------------------------------------------------------


def test_the_journal_is_known_by_device_and_inode() -> None:
    with pipe() as (reader, stream), open(os.devnull, "w", encoding="utf-8") as other:
        found = os.fstat(stream.fileno())
        ours = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert [True, False, False] == [
            is_journal(ours, stream),
            is_journal(ours, other),  # redirected: the variable is inherited
            is_journal({}, stream),
        ]
        for wrong in ("", ":", "x:y", f"{found.st_dev}", f"{found.st_ino}:{found.st_dev}"):
            assert not is_journal({"JOURNAL_STREAM": wrong}, stream)
        stream.close()
        assert not is_journal(ours, stream)
        assert not is_journal(ours, io.StringIO())
        os.close(reader)
