# SPDX-License-Identifier: Apache-2.0
"""The lifecycle of a host under dsatier, as a table.

Rows are states, columns are events, cells are the next state; a dot means that
the event is refused in that state. States in motion have a journal open: when
one is found on start, the run before it ended uncleanly (event ``crash``).
``latched`` is a reboot while a fault or a crash waits to be acknowledged.
"""

from __future__ import annotations

from typing import Literal, cast, get_args

State = Literal[
    "unmanaged",
    "converging",
    "converged",
    "drifted",
    "reverting",
    "reverted",
    "falling-back",
    "degraded",
    "guarding",
    "quarantined",
    "withdrawing",
    "rollback-failed",
    "reboot-required",
]

TABLE = """
state            apply         proven       failed           restored  stuck            fault            drift     crash     reboot     latched      clear      withdraw
unmanaged        converging    converged    .                .         reboot-required  .                .         .         unmanaged  .            unmanaged  withdrawing
converging       .             converged    reverting        .         reboot-required  .                .         guarding  .          .            .          .
converged        converging    converged    .                .         reboot-required  falling-back     drifted   .         unmanaged  .            converged  withdrawing
drifted          converging    converged    .                .         reboot-required  falling-back     drifted   .         unmanaged  .            reverted   withdrawing
reverting        .             .            rollback-failed  reverted  reboot-required  .                .         guarding  .          .            .          .
reverted         converging    converged    .                .         reboot-required  falling-back     reverted  .         unmanaged  .            reverted   withdrawing
falling-back     .             degraded     degraded         .         reboot-required  .                .         guarding  .          .            .          .
degraded         falling-back  degraded     .                .         reboot-required  degraded         degraded  .         .          degraded     reverted   withdrawing
guarding         .             quarantined  reboot-required  .         reboot-required  .                .         guarding  .          .            .          .
quarantined      guarding      quarantined  .                .         reboot-required  quarantined      .         .         .          quarantined  reverted   withdrawing
withdrawing      .             unmanaged    rollback-failed  .         reboot-required  .                .         guarding  .          .            .          .
rollback-failed  .             .            .                .         reboot-required  rollback-failed  .         .         unmanaged  quarantined  reverted   withdrawing
reboot-required  .             .            .                .         reboot-required  reboot-required  .         .         unmanaged  quarantined  .          .
"""

MEANING: dict[str, str] = {
    "unmanaged": "dsatier does not manage the host",
    "converging": "the host is being brought to its profile",
    "converged": "the host is as its profile says, by evidence",
    "drifted": "the host has left its profile, and dsatier only reports it or gave up a fight",
    "reverting": "a change failed and is being undone",
    "reverted": "a change failed or waits to be made again; the host is as it was before it",
    "falling-back": "the engine faulted and is being turned off",
    "degraded": "the engine faulted: CPUs copy until `dsatier clear`",
    "guarding": "the run before ended uncleanly: the CPU engine is coming up",
    "quarantined": "a change ended uncleanly: CPUs copy, the profile waits for `dsatier clear`",
    "withdrawing": "the host is going back to what it was before dsatier",
    "rollback-failed": "going back failed: the host is between two states",
    "reboot-required": "there is no safe way on from here but a reboot",
}

IN_MOTION: frozenset[State] = frozenset(
    {"converging", "reverting", "falling-back", "guarding", "withdrawing"}
)

IN_FORCE: frozenset[State] = frozenset({"converged", "drifted"})
"""States of a host at rest that has come to its profile."""

AT_AN_END: frozenset[State] = frozenset({"reboot-required", "rollback-failed"})
"""States from which only what they name leads on: a fault does not change them."""


class TransitionRefused(Exception):
    """An event that a state refuses."""

    def __init__(self, state: str, event: str) -> None:
        super().__init__(f"{event} is refused while {state}: {MEANING[state]}")
        self.state = state
        self.event = event


def parse(table: str) -> dict[tuple[str, str], str | None]:
    """Return (state, event) → next state, None where the event is refused."""
    header, *rows = (line.split() for line in table.strip().splitlines())
    events = header[1:]
    return {
        (row[0], event): None if cell == "." else cell
        for row in rows
        for event, cell in zip(events, row[1:], strict=True)
    }


TRANSITIONS = parse(TABLE)
STATES: tuple[State, ...] = get_args(State)
EVENTS = tuple(dict.fromkeys(event for _, event in TRANSITIONS))


def after(
    state: str, event: str, transitions: dict[tuple[str, str], str | None] = TRANSITIONS
) -> State:
    """Return the state that follows ``event`` in ``state``. Raises TransitionRefused."""
    found = transitions[state, event]
    if found is None:
        raise TransitionRefused(state, event)
    return cast(State, found)
