# SPDX-License-Identifier: Apache-2.0
"""The interlock: each guard refuses what hurts, and lets through what is next to it."""

from __future__ import annotations

import pytest

from dsatier.facts.tiers import USUAL
from dsatier.plan.interlock import GUARDS, Circumstances, refusals
from tests.support.scenarios import SCENARIOS, Scenario, let_through, mistakes


@pytest.mark.parametrize("one", SCENARIOS, ids=str)
def test_refused_by_its_guard(one: Scenario) -> None:
    found = refusals(one.request, Circumstances(one.facts, one.quiet, USUAL))
    assert one.guard in {refusal.guard for refusal in found}
    if one.alone:
        assert [one.guard] == [refusal.guard for refusal in found]


@pytest.mark.parametrize("one", SCENARIOS, ids=str)
def test_the_neighbour_is_let_through(one: Scenario) -> None:
    assert () == refusals(one.safe_request, Circumstances(one.safe_facts, one.safe_quiet, USUAL))


def test_every_guard_has_a_row() -> None:
    assert {guard.name for guard in GUARDS} == {one.guard for one in SCENARIOS}


def test_the_table_as_a_check_finds_nothing() -> None:
    assert [] == mistakes()


@pytest.mark.parametrize("name", [guard.name for guard in GUARDS])
def test_without_its_guard_an_unsafe_request_is_let_through(name: str) -> None:
    fewer = tuple(guard for guard in GUARDS if guard.name != name)
    assert [] == let_through()
    assert {name} == {words.partition(":")[0] for words in let_through(fewer)}


@pytest.mark.parametrize("name", [guard.name for guard in GUARDS])
def test_a_guard_judges_nothing_but_its_own(name: str) -> None:
    """Requests of other kinds pass each guard on every host of the table."""
    (guard,) = (guard for guard in GUARDS if guard.name == name)
    kinds = {one.request.kind for one in SCENARIOS if one.guard == name}
    if name == "known-kernel":  # nothing may be done there
        return
    for one in SCENARIOS:
        for other in SCENARIOS:
            if other.request.kind not in kinds:
                assert guard.rule(other.request, Circumstances(one.facts, one.quiet, USUAL)) is None


def test_a_refusal_says_what_why_and_who() -> None:
    one = next(s for s in SCENARIOS if s.guard == "engine-needs-init")
    (refusal,) = refusals(one.request, Circumstances(one.facts, one.quiet, USUAL))
    assert (
        "refused by guard engine-needs-init: use_dsa_copy_pages = 1: dsa_state is 0: "
        "the first copy would use descriptors that are not there"
    ) == str(refusal)
