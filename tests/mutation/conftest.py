# SPDX-License-Identifier: Apache-2.0
"""The summary at the end of a run is the proof's."""

from __future__ import annotations

from tests.proof.conftest import pytest_terminal_summary, tell

__all__ = ["pytest_terminal_summary", "tell"]
