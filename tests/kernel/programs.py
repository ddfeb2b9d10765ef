# SPDX-License-Identifier: Apache-2.0
"""Programs that are run on our kernel and come from elsewhere in the repository."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.kernel.ours import BUILD
from tests.vm import images

BENCH = BUILD.parents[1] / "bench"
"""The benchmark of page copies."""


def moves() -> Path:
    """Return the benchmark's program, built without libraries."""
    source = BENCH / "moves.c"

    def build(folder: Path) -> None:
        words = ["gcc", "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
        subprocess.run([*words, "-o", folder / "moves", source], check=True)

    return images.once("moves", source.read_bytes(), build) / "moves"
