# SPDX-License-Identifier: Apache-2.0
"""``make lab``, as a person uses it: at a terminal, with the tour step by step."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kernel.tour import TOUR
from tests.vm.images import REPOSITORY

pytestmark = pytest.mark.system
BOOT, STEP = 600.0, 300.0


def test_the_tour_at_a_terminal(package: Path) -> None:
    """Each step shows what the page says that it shows."""
    ours, theirs = pty.openpty()
    words = (sys.executable, "-m", "tests.kernel.lab", "--package", str(package))
    environment = {**os.environ, "TERM": "linux"}
    environment.pop("LAB", None)
    lab = subprocess.Popen(
        words, cwd=REPOSITORY, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    said = ""

    def until(pattern: str, seconds: float) -> str:
        """Return what was said up to a pattern."""
        nonlocal said
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, said, re.MULTILINE)):
            assert time.monotonic() < end, f"{pattern!r} has not come: {said}"
            if select.select([ours], [], [], 1)[0]:
                said += os.read(ours, 1 << 16).decode(errors="replace").replace("\r", "")
        before, said = said[: found.start()], said[found.end() :]
        return before

    try:
        until("vm: Linux 6.12.*dsatier.*up in", BOOT)
        until(r"lab:~?[^#\n]*# $", STEP)
        os.write(ours, b"tour\n")
        until(r"\[Enter\]", STEP)
        for step in TOUR:
            os.write(ours, b"\n")
            shown = until(r"lab:~?[^#\n]*# $" if step is TOUR[-1] else r"\[Enter\]", STEP)
            print(shown)
            assert re.search(step.shows, shown, re.MULTILINE), f"{step.name}: {shown}"
        os.write(ours, b"exit\n")
        assert 0 == lab.wait(STEP)
    finally:
        lab.kill()
        lab.wait()
        os.close(ours)
