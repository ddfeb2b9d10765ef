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
    from collections.abc import Iterable
    from typing import Any, TextIO

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
    for name in STREAMS[1:]:
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a locale without some character
        if not isinstance(stream, Harmless):
            setattr(sys, name, Harmless(stream))


_LAYOUT = "\n\t"
_HARMFUL = (
    *(c for c in range(0x20) if chr(c) not in _LAYOUT),
    *range(0x7F, 0xA0),
    *(0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF),
)
"""Control characters, those that turn the direction of text, and odd ends of lines."""
ESCAPES = {code: f"\\u{code:04x}" for code in _HARMFUL}
"""What is written instead: JSON takes it, too."""


class Harmless:
    """A stream through which nothing goes that a terminal would obey.

    Names, messages and facts come from files and kernels of others. Code that means to move
    the cursor takes the stream beneath.
    """

    __slots__ = ("beneath",)

    def __init__(self, beneath: "TextIO") -> None:
        self.beneath = beneath

    def write(self, text: str) -> int:
        """Write text, with escapes in place of what a terminal would obey."""
        return self.beneath.write(text.translate(ESCAPES))

    def writelines(self, lines: "Iterable[str]") -> None:
        """Write texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> "Any":
        """Everything else is the stream's own."""
        return getattr(self.beneath, name)


def draw(words: str, before: str = "", end: str = "\n", *, error: bool = False) -> None:
    """Write a line between two texts that the terminal is to obey. May raise OSError."""
    stream = sys.stderr if error else sys.stdout
    beneath = stream.beneath if isinstance(stream, Harmless) else stream
    print(f"{before}{words.translate(ESCAPES)}", end=end, file=beneath, flush=True)


def tell(words: str, end: str = "\n") -> None:
    """Write a line to standard error. A line that cannot be written is dropped."""
    try:  # noqa: SIM105 - contextlib costs more than `status` may take
        draw(words, end=end, error=True)
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
