# SPDX-License-Identifier: Apache-2.0
"""The lifecycle's table: complete, with a way on from everywhere, and safe in what it promises."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from dsatier import lifecycle
from dsatier.lifecycle import EVENTS, IN_MOTION, MEANING, STATES, TRANSITIONS, NotNow, after
from dsatier.status import MOVING, REMEDIES

Transitions = Mapping[tuple[str, str], str | None]

ENDS = ("proven", "failed", "restored", "stuck")
"""How a state in motion may end without a crash."""
PROMISES: tuple[tuple[str, str, str | None], ...] = (
    # what people rely on, written down a second time
    ("unmanaged", "apply", "converging"),
    ("unmanaged", "proven", "converged"),
    ("unmanaged", "reboot", "unmanaged"),
    ("unmanaged", "clear", "unmanaged"),
    ("unmanaged", "withdraw", "withdrawing"),
    ("converging", "proven", "converged"),
    ("converging", "failed", "reverting"),
    ("converged", "apply", "converging"),
    ("converged", "proven", "converged"),
    ("converged", "fault", "falling-back"),
    ("converged", "drift", "drifted"),
    ("converged", "reboot", "unmanaged"),
    ("converged", "clear", "converged"),
    ("converged", "withdraw", "withdrawing"),
    ("drifted", "apply", "converging"),
    ("drifted", "proven", "converged"),
    ("drifted", "fault", "falling-back"),
    ("drifted", "drift", "drifted"),
    ("drifted", "reboot", "unmanaged"),
    ("drifted", "clear", "reverted"),
    ("drifted", "withdraw", "withdrawing"),
    ("reverting", "failed", "rollback-failed"),
    ("reverting", "restored", "reverted"),
    ("reverted", "apply", "converging"),
    ("reverted", "proven", "converged"),
    ("reverted", "fault", "falling-back"),
    ("reverted", "drift", "reverted"),
    ("reverted", "reboot", "unmanaged"),
    ("reverted", "clear", "reverted"),
    ("reverted", "withdraw", "withdrawing"),
    ("falling-back", "proven", "degraded"),
    ("falling-back", "failed", "degraded"),
    ("degraded", "apply", "falling-back"),
    ("degraded", "proven", "degraded"),
    ("degraded", "fault", "degraded"),
    ("degraded", "drift", "degraded"),
    ("degraded", "latched", "degraded"),
    ("degraded", "clear", "reverted"),
    ("degraded", "withdraw", "withdrawing"),
    ("guarding", "proven", "quarantined"),
    ("guarding", "failed", "reboot-required"),
    ("quarantined", "apply", "guarding"),
    ("quarantined", "proven", "quarantined"),
    ("quarantined", "fault", "quarantined"),
    ("quarantined", "latched", "quarantined"),
    ("quarantined", "clear", "reverted"),
    ("quarantined", "withdraw", "withdrawing"),
    ("withdrawing", "proven", "unmanaged"),
    ("withdrawing", "failed", "rollback-failed"),
    ("rollback-failed", "reboot", "unmanaged"),
    ("rollback-failed", "latched", "quarantined"),
    ("rollback-failed", "clear", "reverted"),
    ("rollback-failed", "withdraw", "withdrawing"),
    ("reboot-required", "reboot", "unmanaged"),
    ("reboot-required", "latched", "quarantined"),
)


def problems(transitions: Transitions) -> list[str]:
    """Return what is wrong with a lifecycle."""
    found = []
    states = {state for state, _ in transitions}
    events = {event for _, event in transitions}
    expected: dict[tuple[str, str], str | None] = {
        (state, event): None for state in states for event in events
    }
    expected |= {(state, event): then for state, event, then in PROMISES}
    # wherever a host is, it may turn out that only a reboot helps
    expected |= {(state, "stuck"): "reboot-required" for state in states}
    # whatever moves may end uncleanly, and is then guarded; what rests cannot
    expected |= {(state, "crash"): "guarding" for state in IN_MOTION}
    for cell, then in sorted(expected.items()):
        if transitions.get(cell) != then:
            found.append(f"{cell}: expected {then}, found {transitions.get(cell)}")
    return found


def test_the_table_keeps_its_promises() -> None:
    assert [] == problems(TRANSITIONS)


def test_every_pair_is_handled_or_refused() -> None:
    assert {(state, event) for state in STATES for event in EVENTS} == set(TRANSITIONS)
    assert {then for then in TRANSITIONS.values() if then} <= set(STATES)


def test_a_refused_event_says_why() -> None:
    with pytest.raises(NotNow, match="apply is refused while reboot-required: there is no safe"):
        after("reboot-required", "apply")


def test_every_state_has_its_words() -> None:
    assert set(STATES) == set(MEANING)
    assert set(STATES) == set(REMEDIES) | IN_MOTION
    assert MOVING


@pytest.mark.parametrize("state", sorted(IN_MOTION))
def test_whatever_moves_comes_to_rest(state: str) -> None:
    ends = {TRANSITIONS[state, event] for event in ENDS} - {None}
    # reverting is the only motion that another one may end in
    assert all(end not in IN_MOTION or end == "reverting" for end in ends)
    assert ends
    assert "guarding" == TRANSITIONS[state, "crash"]


def reachable(state: str, events: tuple[str, ...]) -> set[str]:
    """The states that ``events`` lead to."""
    found, todo = {state}, [state]
    while todo:
        here = todo.pop()
        for event in events:
            then = TRANSITIONS[here, event]
            if then is not None and then not in found:
                found.add(then)
                todo.append(then)
    return found


@pytest.mark.parametrize("state", STATES)
def test_from_everywhere_a_host_can_converge_again_and_be_let_go(state: str) -> None:
    people = ("apply", "clear", "withdraw", "reboot", "latched", "proven", "restored")
    assert {"converged", "unmanaged"} <= reachable(state, people)


@pytest.mark.parametrize("state", ["degraded", "quarantined"])
def test_what_is_latched_stays_so_until_somebody_says_so(state: str) -> None:
    by_itself = ("apply", "proven", "failed", "fault", "drift", "latched", "crash", "restored")
    assert "converged" not in reachable(state, by_itself)
    assert "converging" not in reachable(state, by_itself)


def test_parse_refuses_a_row_of_another_length() -> None:
    with pytest.raises(ValueError, match="shorter|longer"):
        lifecycle.parse("state a b\nx y\n")
