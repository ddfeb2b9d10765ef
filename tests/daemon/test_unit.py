# SPDX-License-Identifier: Apache-2.0
"""What the daemon's unit lets it reach, against what dsatier writes."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from dsatier.facts.knobs import KNOBS, Knob
from tests.support.container import REPOSITORY

UNIT = REPOSITORY / "systemd/dsatier.service"


def paths(key: str) -> list[PurePosixPath]:
    """Return the paths of a setting, those that need not be there among them."""
    lines = Path(UNIT).read_text(encoding="utf-8").splitlines()
    values = [line.removeprefix(f"{key}=") for line in lines if line.startswith(f"{key}=")]
    return [PurePosixPath(word.removeprefix("-")) for value in values for word in value.split()]


def depth(path: PurePosixPath, key: str) -> int:
    """Return how deep the innermost path of a setting is that has this one in it, 0 for none."""
    return max((len(p.parts) for p in paths(key) if path.is_relative_to(p)), default=0)


@pytest.mark.parametrize("knob", KNOBS.values(), ids=lambda knob: knob.name)
def test_every_knob_can_be_written(knob: Knob) -> None:
    """The innermost path decides."""
    path = PurePosixPath(knob.path)
    assert depth(path, "ReadWritePaths") > depth(path, "ReadOnlyPaths")


@pytest.mark.parametrize("knob", KNOBS.values(), ids=lambda knob: knob.name)
def test_of_every_knob_in_proc_a_write_is_told(knob: Knob) -> None:
    """It has a /proc of its own, in which nobody else writes, but for what is bound into it."""
    path = PurePosixPath(knob.path)
    assert not path.is_relative_to("/proc") or depth(path, "BindPaths")
