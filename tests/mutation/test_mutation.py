# SPDX-License-Identifier: Apache-2.0
"""No mutant survives, and no check finds anything wrong with the tables as they are."""

from __future__ import annotations

import pytest

from dsatier.plan.ladder import DESCENTS, LADDER
from tests.core import ladder_checks, lifecycle_checks, test_requirements
from tests.mutation import mutants, naive
from tests.mutation.__main__ import run, summary, survivors
from tests.support import scenarios


def test_every_mutant_is_caught(tell: list[str]) -> None:
    rows = run()
    tell.append(f"mutation: {summary(rows)}")
    assert [] == survivors(rows)
    tables = {table for table, _, _ in rows}
    assert {"guards", "ladder", "descents", "lifecycle", "requirements", "whose"} == tables


def test_the_checks_find_nothing_wrong_with_what_is_there() -> None:
    assert [] == scenarios.mistakes()
    assert [] == ladder_checks.mistakes()
    assert [] == lifecycle_checks.mistakes()
    assert [] == test_requirements.mistakes()


@pytest.mark.parametrize("name", [name for name, _ in mutants.ladder_checks_of(LADDER, DESCENTS)])
def test_the_explorations_find_nothing_wrong_with_what_is_there(name: str) -> None:
    checks = dict(mutants.ladder_checks_of(LADDER, DESCENTS))
    assert [] == checks[name]()


@pytest.mark.parametrize("one", naive.TRIES, ids=str)
def test_a_naive_requester_is_refused_and_would_do_harm(one: naive.Try) -> None:
    assert "refused" == naive.outcome(one)
    assert naive.outcome(one, naive.without(one)) in ("harmed", "useless")


def test_every_guard_is_tried_or_said_not_to_be() -> None:
    assert [] == naive.mistakes()
