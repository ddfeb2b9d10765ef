# SPDX-License-Identifier: Apache-2.0
"""A command at a terminal, used as a person would use it."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from vm.images import REPOSITORY


class Terminal:
    """What a command says at a terminal, and what is typed there."""

    def __init__(self, ours: int, command: subprocess.Popen[bytes]) -> None:
        self._ours = ours
        self._command = command
        self._said = ""

    def type(self, text: str) -> None:
        """Type a text; ``\\n`` is the key Enter."""
        os.write(self._ours, text.encode())

    def until(self, pattern: str, seconds: float) -> str:
        """Wait for a pattern in what has not been waited for yet; return what came before it."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self._said, re.MULTILINE)):
            assert time.monotonic() < end, f"{pattern!r} has not come: {self._said}"
            if select.select([self._ours], [], [], 1)[0]:
                data = os.read(self._ours, 1 << 16)
                self._said += data.decode(errors="replace").replace("\r", "")
        before, self._said = self._said[: found.start()], self._said[found.end() :]
        return before

    def ended(self, seconds: float) -> int:
        """Wait for the command's end, and return its exit code."""
        return self._command.wait(seconds)


@contextmanager
def terminal(module: str, *words: str, environment: Mapping[str, str]) -> Iterator[Terminal]:
    """Run a module of this tree at a terminal of its own; it is killed where it has not ended."""
    ours, theirs = pty.openpty()
    command = subprocess.Popen(
        (sys.executable, "-m", module, *words),
        cwd=REPOSITORY,
        env={**environment, "TERM": "linux"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    try:
        yield Terminal(ours, command)
    finally:
        command.kill()
        command.wait()
        os.close(ours)
