# SPDX-License-Identifier: Apache-2.0
"""The tests that the patches add to QEMU's own: of an operation's C, and of the device."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.system
PATCHES = Path(__file__).parents[2] / "emulator/patches"


def ran(emulator: str, name: str) -> list[str]:
    """Run one of QEMU's tests, and return the names of its cases, each of which has passed."""
    program = Path(emulator).parents[1] / "checks" / name
    if not program.exists():
        pytest.skip(f"{program} is not there: {emulator} was not made by emulator/build")
    done = subprocess.run(
        [program, "--tap"],
        env={**os.environ, "QTEST_QEMU_BINARY": emulator, "ASAN_OPTIONS": "detect_leaks=0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    wrong = [line for line in done.stdout.splitlines() if re.match("not ok|Bail out|ERROR", line)]
    assert (0, []) == (done.returncode, wrong), done.stdout[-8000:]
    assert "runtime error:" not in done.stdout
    return re.findall(r"^ok \d+ \S*?(/dsa\S*)$", done.stdout, re.MULTILINE)


def cases(source: str) -> set[str]:
    """Return the names of the cases that a test's source, somewhere in the patches, registers."""
    found: set[str] = set()
    for patch in PATCHES.glob("*/*.patch"):
        _, _, rest = patch.read_text().partition(f"+++ b/tests/{source}\n")
        text = rest.partition("\ndiff --git")[0]
        found |= set(re.findall(r"_add_(?:data_)?func\(\s*\+?\s*\"([^\"]+)\"", text))
    return found


@pytest.mark.parametrize("source", ["unit/test-dsa-ops.c", "qtest/dsa-test.c"])
def test_of_qemu(emulator: str, source: str) -> None:
    """Every case that is in the source passes, and none is left out."""
    wanted = cases(source)
    assert len(wanted) > 10
    assert sorted(wanted) == sorted(ran(emulator, Path(source).stem))
