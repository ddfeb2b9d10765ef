# SPDX-License-Identifier: Apache-2.0
"""What was proven is told at the end of every run."""

from __future__ import annotations

import pytest

LINES = pytest.StashKey[list[str]]()


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> list[str]:
    """Lines for the summary of the run."""
    return request.config.stash.setdefault(LINES, [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print what the proof covered."""
    lines = config.stash.get(LINES, [])
    if lines:
        terminalreporter.section("proof")
        for line in lines:
            terminalreporter.write_line(line)
        lines.clear()  # told once, also where two folders have this hook
