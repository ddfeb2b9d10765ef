# SPDX-License-Identifier: Apache-2.0
"""How long the device takes: the table of the documentation is what the device does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.emulator import baremetal
from tests.emulator.conftest import firmware
from tests.emulator.timing import rows, table

pytestmark = pytest.mark.system
DOCUMENT = Path(__file__).parents[2] / "emulator/docs/device.md"


def test_the_table_is_current(emulator: str) -> None:
    """Virtual time is the same on every machine, so every digit is."""
    lines = DOCUMENT.read_text().splitlines()
    begin = lines.index("| work | time | bandwidth | CPUs | published |")
    found = table(emulator, firmware()).splitlines()
    assert lines[begin : begin + len(found)] == found
    assert not "".join(lines[begin + len(found) :][:1]).startswith("|")


def test_the_table_fits_what_is_published(emulator: str) -> None:
    """A CPU is better below 16 KiB, the device above 32; a device and a socket have their limit."""
    found = {row.what: row for row in rows(emulator, firmware())}

    def worth(what: str) -> float:
        return found[what].worth

    assert worth("one move of 4 KiB") < worth("one move of 16 KiB") < 1
    assert 1 < worth("one move of 32 KiB") < worth("one move of 64 KiB")
    assert 1.5 <= worth("128 pages of 4 KiB, 1 batch") <= 4
    assert 3 <= worth("2 MiB, 8 channels") <= 16
    for what, published in (
        ("16 moves of 2 MiB, 1 device", 32e9),
        ("16 moves of 2 MiB, 4 devices of a socket", 110e9),
    ):
        assert 0.98 < found[what].size / found[what].seconds / published <= 1


def test_time_is_the_same_in_every_run(emulator: str, tmp_path: Path) -> None:
    """Where the clock counts instructions, to the last of them; and it is what was set."""
    program = baremetal.compiled("dsa_time", tmp_path)
    words = ("-icount", "shift=0,sleep=off", "-cpu", "max", "-device", "intel-dsa,timing=on")
    first, *others = (baremetal.run(emulator, program, *words, *firmware()) for _ in range(3))
    assert {"ok"} == set(first.values()), first
    taken = [name.split()[1:] for name in first if name.startswith("took ")]
    assert len(taken) == 5, "one for each size: all three rounds of it took the same"
    for size, nanoseconds in ((int(size, 16), int(ticks, 16)) for size, ticks in taken):
        assert 700 + size / 16 <= nanoseconds < 1000 + size / 16
    assert [first, first] == others
