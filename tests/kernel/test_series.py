# SPDX-License-Identifier: Apache-2.0
"""The patches to the kernel."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emulator import series

SOURCE = Path(__file__).parents[2] / "kernel-src"
PATCHES = SOURCE / "patches"
OTHERS = sorted(SOURCE.glob("bases/*/patches"))
"""Those of other bases, which take from ``PATCHES`` what applies as it is."""


def test_our_patches_are_in_form() -> None:
    """Every patch is listed, says why, names a licence and is the same at each export."""
    assert [] == series.checked(PATCHES)


@pytest.mark.parametrize("patches", OTHERS, ids=lambda path: path.parent.name)
def test_those_of_other_bases_are_in_form(patches: Path) -> None:
    assert [] == series.checked(patches, PATCHES)


def test_every_patch_is_signed_off() -> None:
    """The kernel's rules ask for it; its checkpatch.pl holds the rest of them."""
    sign = re.compile(r"^Signed-off-by: \S.* <\S+@\S+>$", re.MULTILINE)
    unsigned = [
        path.name
        for patches in (PATCHES, *OTHERS)
        for path in patches.glob("*/*.patch")
        if not sign.search(path.read_text())
    ]
    assert [] == unsigned


def test_every_group_says_its_purpose() -> None:
    """A group begins at a comment with its name."""
    for patches in (PATCHES, *OTHERS):
        text = (patches / "series").read_text()
        for group in series.groups(series.entries(text)):
            assert re.search(rf"^# {group}: \S.*\n{group}/", text, re.MULTILINE), group
