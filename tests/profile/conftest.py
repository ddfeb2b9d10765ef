# SPDX-License-Identifier: Apache-2.0
"""What the tests of profiles share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from profile_doubles import FACTS

from dsatier.facts.model import Facts
from dsatier.profile import schema

PROFILES = Path(__file__).parents[2] / "profiles"


@pytest.fixture
def facts_data() -> dict[str, Any]:
    """Facts of a two-node host as plain data."""
    return FACTS


@pytest.fixture
def facts() -> Facts:
    """Facts of a two-node host that has CPUs on both nodes."""
    loaded = schema.validate(Facts, FACTS)
    assert isinstance(loaded, Facts)
    return loaded


@pytest.fixture
def profiles() -> Path:
    """The folder of the shipped profiles."""
    return PROFILES
