# SPDX-License-Identifier: Apache-2.0
"""Pages for people are in plain words and short sentences."""

from __future__ import annotations

import pytest

from tests.docs.prose import INSTEAD, LONGEST, docstrings, findings, judged, sentences

JUDGED = judged()


@pytest.mark.parametrize("name", sorted(JUDGED))
def test_a_page_is_plain(name: str) -> None:
    assert list(findings(JUDGED[name])) == []


def test_docstrings_are_plain() -> None:
    found = docstrings()
    assert "agent/dsatier/plan/planner.py:2" in found
    wrong = [f"{place}: {one}" for place, text in found.items() for one in findings(text)]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Mend it.", 1),
        ("- one whoever\n- two", 1),
        ("| `a` | mended |\n", 1),
        ("word " * LONGEST, 0),
        ("word " * (LONGEST + 1), 1),
        ("- " + "word " * 20 + "\n- " + "word " * 20, 0),
        ("word " * 20 + "e.g. " + "word " * 20, 1),
        ("```\nmend it\n```\n\n`mend` [a](mend.md) <!-- mend -->", 0),
        ("<!-- generated: x -->\nmend\n<!-- end -->", 0),
        ("amend, a reminder", 0),
    ],
)
def test_what_is_found(text: str, count: int) -> None:
    """The rule above is able to fail, and only on prose."""
    assert len(list(findings(text))) == count


def test_a_sentence_ends_where_a_reader_stops() -> None:
    assert len(sentences("One. Two! (Three?) Four; five: six, e.g. seven")) == 5


def test_every_page_is_judged() -> None:
    assert {"README.md", "docs/operations.md", "kernel-src/README.md"} <= JUDGED.keys()
    assert all(instead for instead in INSTEAD.values())
