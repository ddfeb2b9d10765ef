# SPDX-License-Identifier: Apache-2.0
"""The patches to the kernel."""

from __future__ import annotations

import re
from pathlib import Path

from tests.emulator import series

SOURCE = Path(__file__).parents[2] / "kernel-src"
PATCHES = SOURCE / "patches"


def test_our_patches_are_in_form() -> None:
    """Every patch is listed, says why, names a licence and is the same at each export."""
    assert [] == series.checked(PATCHES)


def test_every_patch_is_signed_off() -> None:
    """The kernel's rules ask for it; its checkpatch.pl holds the rest of them."""
    sign = re.compile(r"^Signed-off-by: \S.* <\S+@\S+>$", re.MULTILINE)
    unsigned = [
        path.name for path in PATCHES.glob("*/*.patch") if not sign.search(path.read_text())
    ]
    assert [] == unsigned


def test_every_group_says_its_purpose() -> None:
    """A group begins at a comment with its name."""
    text = (PATCHES / "series").read_text()
    for group in series.groups(series.entries(text)):
        assert re.search(rf"^# {group}: \S.*\n{group}/", text, re.MULTILINE), group
