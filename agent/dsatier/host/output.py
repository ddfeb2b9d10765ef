# SPDX-License-Identifier: Apache-2.0
"""Standard streams: they may be closed, full, or have no reader, and no change ends by that.

It imports next to nothing, and what only an odd end needs when that is met: every command passes
here.
"""

import io
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

STREAMS = ("stdin", "stdout", "stderr")
"""By file descriptor."""


def prepare() -> None:
    """Have three open streams that take any text.

    The number of a closed one would go to the next file that is opened, and a line for people
    would be written into that file.
    """
    for number, name in enumerate(STREAMS):
        try:
            os.fstat(number)
        except OSError:
            if os.open(os.devnull, os.O_RDWR) != number:  # the lowest that is free
                raise
            mode = "w" if number else "r"
            stream = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - it stays
            setattr(sys, name, stream)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a locale without some character


def tell(words: str, end: str = "\n") -> None:
    """Write a line to standard error. A line that cannot be written is dropped."""
    try:  # noqa: SIM105 - contextlib costs more than `status` may take
        print(words, end=end, file=sys.stderr, flush=True)
    except (OSError, ValueError):
        pass


def tell_at_once(words: str) -> None:
    """Write a line to standard error from a signal handler, if it can be written without a wait.

    What the signal interrupted may be a write to the same stream: its buffer is not touched.
    """
    from select import POLLOUT, poll  # those who take no signals need it not

    try:
        descriptor = sys.stderr.fileno()
        ready = poll()
        ready.register(descriptor, POLLOUT)
        if ready.poll(0):
            os.write(descriptor, f"{words}\n".encode(errors="backslashreplace"))
    except (OSError, ValueError):
        pass


def report(words: str, *, error: bool = False) -> None:
    """Write how a change ended. Where that cannot be written, the exit code tells."""
    stream = sys.stderr if error else sys.stdout
    try:
        print(words, file=stream, flush=True)
    except (OSError, ValueError):
        discard(stream)


def discard(stream: "TextIO") -> None:
    """Have what a stream still holds go nowhere, so that the end of the process is silent."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
        stream.flush()
    except (OSError, ValueError):
        pass


def settle() -> None:
    """Write what standard error still holds, or drop it: it must not change the exit code."""
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        discard(sys.stderr)
