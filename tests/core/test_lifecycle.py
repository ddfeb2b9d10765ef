# SPDX-License-Identifier: Apache-2.0
"""The lifecycle: every event in every state is handled or refused, and no state is a trap."""

from __future__ import annotations

import pytest

from dsatier.apply.lifecycle import (
    EVENTS,
    IN_MOTION,
    MEANING,
    STATES,
    TRANSITIONS,
    TransitionRefused,
    after,
)
from dsatier.apply.status_document import REMEDIES
from tests.core.lifecycle_checks import REST, endless, lost, mistakes, reachable


def test_the_table_says_what_is_meant() -> None:
    assert [] == mistakes()


def test_the_table_has_a_row_for_each_state() -> None:
    assert list(STATES) == list(dict.fromkeys(state for state, _ in TRANSITIONS))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_handled_or_refused(state: str, event: str) -> None:
    if TRANSITIONS[state, event] is None:
        with pytest.raises(TransitionRefused) as refusal:
            after(state, event)
        assert f"{event} is refused while {state}: {MEANING[state]}" == str(refusal.value)
    else:
        assert after(state, event) in STATES


def test_every_state_in_motion_comes_to_rest() -> None:
    assert [] == endless()


def test_every_state_can_be_converged_and_unmanaged_again() -> None:
    assert [] == lost()


def test_every_state_is_reached_from_the_first() -> None:
    assert set(STATES) == reachable("unmanaged", TRANSITIONS)


def test_a_crash_is_for_states_in_motion_alone() -> None:
    assert set(IN_MOTION) == {s for s in STATES if TRANSITIONS[s, "crash"] is not None}


def test_a_latch_is_left_by_clear_or_withdraw_alone() -> None:
    others = [e for e in EVENTS if e not in ("clear", "withdraw", "stuck", "crash", "failed")]
    for state in ("degraded", "quarantined"):
        allowed = {"degraded", "falling-back", "quarantined", "guarding"}
        assert reachable(state, TRANSITIONS, *others) <= allowed


def test_every_state_has_a_meaning_and_every_rest_a_remedy() -> None:
    assert set(STATES) == set(MEANING)
    assert set(REST) == set(REMEDIES)
