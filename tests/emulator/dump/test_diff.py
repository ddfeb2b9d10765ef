# SPDX-License-Identifier: Apache-2.0
"""The comparison of dumps."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.emulator.dump.diff import EXPLAINED, differences, explanation, main

DUMP: dict[str, Any] = {
    "schema": 1,
    "pci": {"address": "0000:6a:01.0", "vendor": 0x8086, "extended": [15, 27]},
    "translated": True,
    "registers": {"gencap": "00000000405f107f", "tables": "1 2"},
    "tables after reset": {"queues": ["0 0"], "groups": ["0"]},
    "descriptors": {"noop": {"record": {"status": 1, "op": "00"}, "memory": "aa"}},
}


def changed(*path: str, value: Any) -> dict[str, Any]:
    """Return the dump with another value in a place."""
    dump = copy.deepcopy(DUMP)
    inner = dump
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return dump


def test_a_dump_does_not_differ_from_itself() -> None:
    """Nothing is told."""
    assert [] == differences(DUMP, copy.deepcopy(DUMP))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("descriptors", "noop", "record", "status"), 3),
        (("descriptors", "noop", "memory"), "bb"),
        (("descriptors", "move"), {"record": {}, "memory": "cc"}),
        (("registers", "gencap"), "0"),
        (("pci", "vendor"), 1),
        (("translated",), False),
    ],
)
def test_what_must_be_the_same_is_told(path: tuple[str, ...], value: Any) -> None:
    """Also what one of them lacks."""
    for first, second in (
        (DUMP, changed(*path, value=value)),
        (changed(*path, value=value), DUMP),
    ):
        (found, *_) = differences(first, second)
        assert None is found.why
        assert found.place.startswith(".".join(path))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("pci", "address"), "0000:00:04.0"),
        (("pci", "extended"), [15]),
        (("registers", "tables"), "3 4"),
        (("tables after reset", "queues"), ["0 0", "0 0"]),
    ],
)
def test_what_must_differ_is_explained(path: tuple[str, ...], value: Any) -> None:
    """And does not count."""
    found = differences(DUMP, changed(*path, value=value))
    assert found
    assert all(one.why for one in found)


def test_each_explanation_fits_a_place() -> None:
    """No pattern is so wide that it explains what descriptors give."""
    assert None is explanation("descriptors.pci.address")
    assert None is explanation("tables.queues")
    assert all(len(why) > 10 for why in EXPLAINED.values())


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit codes and words."""
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    one.write_text(json.dumps(DUMP))
    two.write_text(json.dumps(changed("pci", "address", value="x")))
    three.write_text(json.dumps(changed("translated", value=False)))
    assert 0 == main([str(one), str(two)])
    assert "0 differences, and 1 that must be there" in capsys.readouterr().out
    assert 1 == main([str(one), str(three)])
    assert "translated: True here, False there" in capsys.readouterr().out
    one.write_text("[]")
    with pytest.raises(ValueError, match="expected a dump of schema 1"):
        main([str(one), str(two)])
