# SPDX-License-Identifier: Apache-2.0
"""Records: what dsatier remembers of a host between runs, as frozen values.

The host itself is observed afresh each time; these are only for undo, for the
crash guard, for latches, and to tell people since when.
"""

from __future__ import annotations

from typing import Literal

from dsatier.apply.lifecycle import IN_MOTION
from dsatier.base.fields import STRICT
from dsatier.base.frozen import dataclass, replace

Latch = Literal["none", "fault", "crash"]
Truth = Literal["True", "False", "Unknown"]
ProfileStatus = Literal["Accepted", "NoProfile", "Invalid", "Refused", "Failed"]
"""Refused: out of reach, nothing was written. Failed: tried, and undone."""

WITHDRAWN = "Withdrawn"
"""The reason of a host that dsatier was told to let go of: nothing but an apply takes it up."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that is so or not, and since when."""

    __pydantic_config__ = STRICT

    type: str
    status: Truth
    reason: str
    """One word that docs/operations.md explains."""
    message: str
    last_transition_time: float
    """Seconds since the epoch at which ``status`` last changed."""


@dataclass(frozen=True, slots=True)
class Repair:
    """A repair of drift."""

    __pydantic_config__ = STRICT

    item: str
    at: float
    """Seconds of the monotonic clock of boot ``boot_id`` of the record."""


@dataclass(frozen=True, slots=True)
class Record:
    """The state of the lifecycle, and what it needs to go on."""

    __pydantic_config__ = STRICT

    schema_version: int = 1
    state: str = "unmanaged"
    reason: str = "NeverApplied"
    message: str = ""
    since: float = 0.0
    """Seconds since the epoch at which ``state`` was reached."""
    boot_id: str = ""
    latch: Latch = "none"
    """What waits for `dsatier clear`: a fault of the engine, or a crash in mid-transition."""
    latch_reason: str = ""
    """What set the latch."""
    generation: int = 0
    """Counts the profiles that were ever in force."""
    profile_digest: str = ""
    engine_live: bool = False
    """The DSA was proven to copy: it going off by itself is a fault, not drift."""
    slow_node: int = 1
    copy_fails: int = 0
    """dsa_copy_fail when last seen: a rise is a fault."""
    log_mark: int = 0
    """Kernel log lines behind this mark are not yet seen."""
    repairs: tuple[Repair, ...] = ()
    profile_status: ProfileStatus = "Accepted"
    """What became of the profile that the files hold now; another one may be in force."""
    profile_message: str = ""
    faults: int = 0
    """Faults of the engine, ever."""
    repaired: int = 0
    """Repairs of drift, ever."""
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Motion:
    """The open journal of a host in motion. Its presence on start means an unclean end."""

    __pydantic_config__ = STRICT

    schema_version: int
    boot_id: str
    state: str
    """The state in motion."""
    began: float
    """Seconds since the epoch."""
    holder: str
    step: int
    """Number of the step that was begun last; 0 before the first."""
    steps: int
    what: str
    """The step's words."""


def let_go(record: Record) -> bool:
    """Tell whether dsatier was told to take its hand off the host, and nobody wanted it back."""
    return record.state == "unmanaged" and record.reason == WITHDRAWN


def with_conditions(record: Record, now: float) -> Record:
    """Return ``record`` with the conditions that follow from it."""
    before = {condition.type: condition for condition in record.conditions}

    def condition(kind: str, true: bool | None, reason: str, message: str) -> Condition:
        status: Truth = "Unknown" if true is None else "True" if true else "False"
        last = before.get(kind)
        since = last.last_transition_time if last is not None and last.status == status else now
        return Condition(kind, status, reason, message, since)

    state = record.state
    moving = state in IN_MOTION
    return replace(
        record,
        conditions=(
            condition("Converged", state == "converged", record.reason, record.message),
            condition("Progressing", moving, record.reason, record.message if moving else ""),
            condition(
                "EngineFaulted",
                record.latch == "fault",
                "Latched" if record.latch == "fault" else "NoFault",
                record.latch_reason if record.latch == "fault" else "",
            ),
            condition(
                "Quarantined",
                record.latch == "crash",
                "UncleanEnd" if record.latch == "crash" else "NoCrash",
                record.latch_reason if record.latch == "crash" else "",
            ),
            condition(
                "RebootRequired",
                state == "reboot-required",
                record.reason if state == "reboot-required" else "NotRequired",
                record.message if state == "reboot-required" else "",
            ),
            condition(
                "ProfileAccepted",
                record.profile_status == "Accepted",
                record.profile_status,
                record.profile_message,
            ),
        ),
    )
