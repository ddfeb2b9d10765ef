# SPDX-License-Identifier: Apache-2.0
"""Orders that do not matter are still there, and still do not matter."""

from __future__ import annotations

import pytest

from dsatier.plan.ladder import LADDER
from tests.mutation import foretold, orders
from tests.mutation.__main__ import summary, survivors
from tests.mutation.mutants import Mutant

FOUND = {mutant.change: mutant for mutant in orders.orders()}


def test_the_ways_on_paper_have_nothing_wrong() -> None:
    assert [] == foretold.mistakes()


def test_the_list_names_orders_that_are_there() -> None:
    assert set() == set(orders.EQUIVALENT) - set(FOUND)
    assert all(orders.EQUIVALENT.values())
    acts = sum(max(len(side) - 1, 0) for rung in LADDER for side in (rung.up, rung.down))
    assert acts == len(FOUND)


@pytest.mark.parametrize("mutant", tuple(orders.equivalent()), ids=lambda m: m.change)
def test_an_order_that_does_not_matter_is_found_by_nobody(mutant: Mutant) -> None:
    """``python -m tests.mutation`` asks the explorations as well."""
    quick = [check for name, check in mutant.checks if not name.startswith("exploration")]
    assert [[]] * 2 == [check() for check in quick]


def test_a_survivor_is_told() -> None:
    rows = [("ladder", "a rung less", ""), ("guards", "without one", "scenarios")]
    assert ["ladder: a rung less"] == survivors(rows)
    assert "2 mutants, 1 caught" == summary(rows)
    assert () == tuple(m for m in orders.every() if m.change in orders.EQUIVALENT)
