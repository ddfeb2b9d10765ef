# SPDX-License-Identifier: Apache-2.0
"""``make lab``, as a person uses it: at a terminal, with the tour step by step."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from lab.tour import TOUR
from vm.terminal import terminal

pytestmark = pytest.mark.system
BOOT, STEP = 600.0, 300.0
PROMPT = r"lab:~?[^#\n]*# $"
ENTER = r"\[Enter\]"


def test_the_tour_at_a_terminal(package: Path) -> None:
    """Each step shows what the page says that it shows."""
    environment = {name: value for name, value in os.environ.items() if name != "LAB"}
    words = ("--package", str(package))
    with terminal("lab", *words, environment=environment) as lab:
        lab.until("vm: Linux 6.12.*dsatier.*up in", BOOT)
        lab.until(PROMPT, STEP)
        lab.type("tour\n")
        lab.until(ENTER, STEP)
        for step in TOUR:
            lab.type("\n")
            shown = lab.until(PROMPT if step is TOUR[-1] else ENTER, STEP)
            print(shown)
            assert re.search(step.shows, shown, re.MULTILINE), f"{step.name}: {shown}"
        lab.type("exit\n")
        assert 0 == lab.ended(STEP)
