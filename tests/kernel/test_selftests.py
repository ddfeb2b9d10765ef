# SPDX-License-Identifier: Apache-2.0
"""The kernel's own tests of our knobs, in a guest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vm.booting import guest
from vm.guest import Guest
from vm.ours import kernel

pytestmark = pytest.mark.system
TESTS = Path(__file__).parents[2] / "kernel-src/selftests"
PROGRAMS = ("demotion_mark.sh", "knobs.sh", "writers.sh")


@pytest.fixture(scope="module")
def vm() -> Iterator[Guest]:
    files: dict[str, Path | bytes] = {f"/tests/{path.name}": path for path in TESTS.glob("*.sh")}
    with guest(kernel=kernel(), files=files) as found:
        yield found


def test_every_program_is_in_the_makefile() -> None:
    found = {path.name for path in TESTS.glob("*.sh")} - {"ktap.sh"}
    text = (TESTS / "Makefile").read_text()
    assert set(PROGRAMS) == found
    assert all(name in text for name in found)


@pytest.mark.parametrize("name", PROGRAMS)
def test_kselftest(vm: Guest, name: str) -> None:
    """It passes, and says something."""
    ran = vm.run("sh", f"/tests/{name}", timeout=180)
    print(ran.out)
    assert 0 == ran.code, ran.out + ran.err
    lines = ran.out.splitlines()
    assert "KTAP version 1" == lines[0]
    results = [line for line in lines if line.startswith(("ok", "not ok"))]
    assert f"1..{len(results)}" == lines[-1]
    assert any("# SKIP" not in line for line in results)
