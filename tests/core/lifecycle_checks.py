# SPDX-License-Identifier: Apache-2.0
"""What the lifecycle's table must say, said event by event."""

from __future__ import annotations

from collections.abc import Mapping

from dsatier.apply.lifecycle import EVENTS, IN_MOTION, STATES, TRANSITIONS

Transitions = Mapping[tuple[str, str], str | None]

REST = tuple(state for state in STATES if state not in IN_MOTION)
LATCHED = ("degraded", "quarantined")
AT_AN_END = ("rollback-failed", "reboot-required")
STEADY = ("unmanaged", "converged", "drifted", "reverted")


def _same(state: str, *states: str) -> dict[str, str]:
    return dict.fromkeys(states, state)


MEANT: dict[str, dict[str, str]] = {
    # a latch lets an apply only keep the engine off; in motion, and where a way failed, none is
    # let through
    "apply": {
        **_same("converging", *STEADY),
        "degraded": "falling-back",
        "quarantined": "guarding",
    },
    "proven": {
        **_same("converged", *STEADY, "converging"),
        **_same("degraded", "falling-back", "degraded"),
        **_same("quarantined", "guarding", "quarantined"),
        "withdrawing": "unmanaged",
    },
    # only what goes forward is undone; what goes back and fails is told as such
    "failed": {
        "converging": "reverting",
        **_same("rollback-failed", "reverting", "withdrawing"),
        "guarding": "reboot-required",
        "falling-back": "degraded",
    },
    "restored": {"reverting": "reverted"},
    "stuck": _same("reboot-required", *STATES),
    # the breaker opens once
    "fault": {
        **_same("falling-back", "converged", "drifted", "reverted"),
        **{state: state for state in (*LATCHED, *AT_AN_END)},
    },
    "drift": {
        **_same("drifted", "converged", "drifted"),
        "reverted": "reverted",
        "degraded": "degraded",
    },
    "crash": _same("guarding", *IN_MOTION),
    "reboot": _same("unmanaged", *STEADY, "rollback-failed", "reboot-required"),
    # a reboot does not acknowledge a latch
    "latched": {
        "degraded": "degraded",
        **_same("quarantined", "quarantined", "rollback-failed", "reboot-required"),
    },
    "clear": {
        "unmanaged": "unmanaged",
        "converged": "converged",
        **_same("reverted", "drifted", "reverted", *LATCHED, "rollback-failed"),
    },
    "withdraw": _same("withdrawing", *STEADY, *LATCHED, "rollback-failed"),
}


def mistakes(transitions: Transitions = TRANSITIONS) -> list[str]:
    """Return where the table says otherwise than is meant, or leads nowhere."""
    wrong = []
    for event in EVENTS:
        for state in STATES:
            found, meant = transitions[state, event], MEANT[event].get(state)
            if found != meant:
                wrong.append(f"{event} in {state}: leads to {found}, not {meant}")
    wrong += [f"{state} in motion cannot come to rest" for state in endless(transitions)]
    wrong += [f"{state} cannot become converged again" for state in lost(transitions)]
    return wrong


def reachable(state: str, transitions: Transitions, *events: str) -> set[str]:
    """Return the states that follow ``state`` by any of ``events`` (all where none is named)."""
    found, todo = {state}, [state]
    while todo:
        here = todo.pop()
        for event in events or EVENTS:
            there = transitions[here, event]
            if there is not None and there not in found:
                found.add(there)
                todo.append(there)
    return found


def endless(transitions: Transitions = TRANSITIONS) -> list[str]:
    """Return the states in motion from which none at rest is reached by how a way can end."""
    ends = ("proven", "failed", "restored", "stuck")
    return [s for s in IN_MOTION if not reachable(s, transitions, *ends) & set(REST)]


def lost(transitions: Transitions = TRANSITIONS) -> list[str]:
    """Return the states from which the host cannot be converged, or unmanaged, again."""
    goals = {"converged", "unmanaged"}
    return [s for s in STATES if not goals <= reachable(s, transitions)]
