# SPDX-License-Identifier: Apache-2.0
"""Plays a case in this process, and judges how it ended."""

from __future__ import annotations

import io
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from dsatier.base import exits
from dsatier.cli.main import main
from tests.fuzz.kinds import HERE, Case

CODES = frozenset(
    (
        *(exits.OK, exits.FAILED, exits.PENDING, exits.NOT_RUNNING, exits.NOT_COMPLIANT),
        *(exits.NO_PROFILE, exits.LOCKED, exits.USAGE, exits.BAD_PROFILE, exits.CONFIGURATION),
    )
)
HANG = 30.0
"""Seconds of CPU in which no case may be at work still: hundreds of times what one takes."""
LONGEST = 20_000
"""Characters that a message has at most."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a case did that none may do."""

    what: str
    said: str


class Hung(BaseException):
    """A case is at work still; nothing in dsatier takes it for an error of its own."""


def play(case: Case, command: Callable[[list[str]], int] = main) -> Found | None:
    """Run a case; return what is wrong with its end."""
    with tempfile.TemporaryDirectory(prefix="dsatier-fuzz-") as folder:
        for name, data in case.files.items():
            file = Path(folder, name)
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(
                data.replace(HERE.encode(), folder.encode()) if name == "p.yaml" else data
            )
        words = [word.replace(HERE, folder) for word in case.words]
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        try:
            with _streams(out, err), _deadline():
                code = command(words)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else exits.USAGE
        except Hung:
            return Found("at work still", traceback.format_exc())
        except BaseException:  # noqa: BLE001 - whatever it is, none may come here
            return Found("an exception", traceback.format_exc())
        return _judged(code, _text(out), _text(err))


def _judged(code: int, out: str, err: str) -> Found | None:
    if code not in CODES:
        return Found("an exit code of no rule", f"{code}\n{err}")
    if "Traceback" in err:
        return Found("a traceback", err)
    if len(err) > LONGEST:
        return Found("a message without end", f"{len(err)} characters\n{err[:400]}")
    if code == exits.BAD_PROFILE and not err:
        return Found("no word of what is wrong", out[:400])
    if found := re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", out + err):
        return Found("what a terminal obeys", repr(found[0]))
    return None


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()


@contextmanager
def _streams(out: io.TextIOWrapper, err: io.TextIOWrapper) -> Iterator[None]:
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, err
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


@contextmanager
def _deadline() -> Iterator[None]:
    def hung(number: int, frame: FrameType | None) -> None:
        raise Hung

    before = signal.signal(signal.SIGVTALRM, hung)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
