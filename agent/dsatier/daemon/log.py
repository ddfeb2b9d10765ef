# SPDX-License-Identifier: Apache-2.0
"""The daemon's log: structured lines for the journal, or readable ones for a terminal.

A line that cannot be written is counted and dropped: a reader of the log that is
slow must not hold up a host in the middle of a change.
"""

from __future__ import annotations

import io
import json
import os
import select
from collections.abc import Mapping
from contextlib import suppress
from math import isfinite
from typing import Any, TextIO

import structlog
from structlog.dev import ConsoleRenderer
from structlog.typing import EventDict, Processor

LEVELS = {"error": 3, "warning": 4, "notice": 5, "info": 6, "debug": 7}
"""Names of the levels, with the priorities of sd-daemon(3)."""
FIRST = ("event", "level", "state", "reason", "message", "step", "steps", "what", "seconds")
"""The order of the fields; others follow by name."""
LONGEST = 1000
"""Characters of a field's text; what is longer is cut."""
PATIENCE = 0.2
"""Seconds to wait for a reader that is behind, before lines are dropped."""
_ODD = {
    code: f"\\u{code:04x}"
    # the journal shows a line with control characters as a blob; the others turn or end lines
    for code in (*range(0x7F, 0xA0), 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
}


class Logger(structlog.BoundLoggerBase):
    """A bound logger: one method a level, and ``bind`` for fields that stay. Never raises."""

    def error(self, event: str, /, **fields: object) -> None:
        """Something failed, and somebody should look."""
        self._say("error", event, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        """Something may need a look."""
        self._say("warning", event, fields)

    def notice(self, event: str, /, **fields: object) -> None:
        """Something normal that matters: a change of state."""
        self._say("notice", event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        """Something went on."""
        self._say("info", event, fields)

    def debug(self, event: str, /, **fields: object) -> None:
        """For those who look for a mistake of dsatier's."""
        self._say("debug", event, fields)

    def _say(self, level: str, event: str, fields: dict[str, object]) -> None:
        # a field may have any name, ``self`` and ``event`` too, which bind() would not take
        bound = type(self)(self._logger, self._processors, {**self._context, **fields})
        with suppress(Exception):  # the log is the last thing that may end the daemon
            bound._proxy_to_logger(level, event)  # noqa: SLF001 - structlog's way for subclasses


def logger(stream: TextIO, journal: bool, level: str = "info") -> Logger:
    """Return a logger that writes to ``stream`` what is of ``level`` or worse.

    ``journal``: JSON with a priority before it, for journald; else a line for people.
    Raises ValueError for a level that there is not.
    """
    if level not in LEVELS:
        raise ValueError(f"expected a level of {', '.join(LEVELS)}, found {level!r}")
    sink = _Sink(stream)

    def enough(_: object, name: str, event: EventDict) -> EventDict:
        if LEVELS[name] > LEVELS[level]:
            raise structlog.DropEvent
        return event

    def in_order(_: object, name: str, event: EventDict) -> EventDict:
        if sink.lost:
            event["lines_lost"] = sink.lost
        known = {key: event[key] for key in FIRST if key in event}
        rest = {key: event[key] for key in sorted(event.keys() - known.keys())}
        return {key: _plain(value) for key, value in (known | rest).items()}

    rendered = _for_journal() if journal else _for_people(stream)
    processors = [enough, structlog.processors.add_log_level, in_order, *rendered]
    made: Logger = structlog.wrap_logger(sink, processors, wrapper_class=Logger).bind()
    return made


def is_journal(environ: Mapping[str, str], stream: TextIO) -> bool:
    """Tell whether ``stream`` is journald's, by the device and inode in JOURNAL_STREAM.

    The variable alone does not tell: a shell in a unit hands it on to what writes elsewhere.
    """
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(stream.fileno())
        return (found.st_dev, found.st_ino) == (int(device), int(inode))
    except (OSError, ValueError):  # no file beneath, closed, or not two numbers
        return False


def _for_journal() -> list[Processor]:
    """Return what makes JSON on one line of an event, with its priority before it."""

    def prefixed(_: object, name: str, text: Any) -> str:
        return f"<{LEVELS[name]}>{text.translate(_ODD)}"

    return [structlog.processors.JSONRenderer(ensure_ascii=False), prefixed]


def _for_people(stream: TextIO) -> list[Processor]:
    """Return what makes a line for people of an event, in colours on a terminal."""
    colours = False
    with suppress(ValueError):  # closed already
        colours = stream.isatty()
    levels = ConsoleRenderer.get_default_level_styles(colours)
    levels["notice"] = levels["info"]
    return [
        _in_words,
        structlog.processors.TimeStamper("%H:%M:%S", utc=False),
        ConsoleRenderer(colors=colours, sort_keys=False, level_styles=levels),
    ]


def _in_words(_: object, __: str, event: EventDict) -> EventDict:
    """Return an event whose names and values are texts that stay on their line."""
    return {_word(name): _word(value) for name, value in event.items()}


def _word(value: object) -> str:
    r"""Return a value as text without control characters.

    >>> _word("a\nb"), _word([1, None])
    ('a\\nb', '[1, null]')
    """
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return (text if text.isprintable() else json.dumps(text)[1:-1]).translate(_ODD)


def _plain(value: object) -> Any:
    """Return a value as JSON has it, texts cut at LONGEST; what is none of JSON's by its words."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(one) for one in value]
    if isinstance(value, bytes):
        value = value.decode(errors="backslashreplace")
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001 - a field that cannot tell what it is costs no line
        text = f"<{type(value).__name__}: {type(error).__name__}>"
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


class _Sink:
    """Where lines go: each in one write, and none waits for long."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._torn = False
        self.lost = 0
        """Lines that were dropped since the last that was written."""

    def write(self, text: str) -> None:
        """Write a line. What is no UTF-8 goes out as an escape that JSON reads again."""
        data = (text + "\n").encode(errors="backslashreplace")
        try:
            self._write(data)
        except (OSError, ValueError):  # ValueError: the stream is closed
            self.lost += 1
        else:
            self.lost = 0

    debug = info = notice = warning = error = write

    def _write(self, data: bytes) -> None:
        try:
            descriptor = self._stream.fileno()
        except io.UnsupportedOperation:  # a stream in memory
            self._stream.write(data.decode())
            return
        ready = select.poll()
        ready.register(descriptor, select.POLLOUT)
        if not ready.poll(0 if self.lost else PATIENCE * 1e3):
            raise BlockingIOError
        if self._torn:
            data = b"\n" + data
        written = os.write(descriptor, data)
        self._torn = written < len(data)
        if self._torn:
            raise BlockingIOError
