# SPDX-License-Identifier: Apache-2.0
"""The quick reader of JSON takes what the standard library's takes, and makes the same of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dsatier.base.quick_json import DEEPEST, loads

SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
VALUES = st.recursive(
    SCALARS.filter(lambda v: v not in (float("inf"), -float("inf"))),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
PIECES = (
    *'[]{}:,"\\-+.eE01 \t\n',
    "true",
    "fals",
    "null",
    '"a"',
    '"\\ud83d\\ude00"',
    '"\\udbff"',
    '"\\u00',
    '"\x1f"',
    "-0",
    "1e5",
    "12.5E-3",
    "NaN",
)


def made(read: Any, text: str) -> str:
    """Return what a reader makes of a text, as words that tell 1 from 1.0 and True."""
    try:
        return repr(read(text))
    except ValueError:
        return "refused"


def no_constant(name: str) -> None:
    raise ValueError(name)


@given(VALUES, st.sampled_from([None, 0, 2]), st.booleans())
def test_it_reads_what_json_writes(value: Any, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert repr(loads(text)) == made(json.loads, text)


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
@example("")
@example('{"a":1,}')
@example("[1,]")
@example("01")
@example("1.")
@example("1 2")
def test_it_agrees_on_any_text(text: str) -> None:
    def standard(text: str) -> Any:
        return json.loads(text, parse_constant=no_constant)

    assert made(loads, text) == made(standard, text)


def test_it_is_bounded_in_depth() -> None:
    assert [] != loads("[" * DEEPEST + "]" * DEEPEST)
    with pytest.raises(ValueError, match="levels"):
        loads("[" * 100_000)
