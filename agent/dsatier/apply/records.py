# SPDX-License-Identifier: Apache-2.0
"""Records: what dsatier remembers of a host between runs, as frozen values.

The host itself is observed afresh each time; these are only for undo, for the
crash guard, for latches, and to tell people since when.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from dsatier.apply.lifecycle import IN_FORCE, IN_MOTION, State
from dsatier.base.fields import STRICT
from dsatier.facts.effect import Effect
from dsatier.facts.tiers import USUAL, Tiers

Latch = Literal["none", "fault", "crash"]
Truth = Literal["True", "False", "Unknown"]
ProfileStatus = Literal["Accepted", "Pending", "NoProfile", "Invalid", "Refused", "Failed"]
"""Pending: not tried yet. Refused: out of reach, nothing was written. Failed: tried, and undone."""

WITHDRAWN = "Withdrawn"
"""The reason of a host that was detached: only an apply makes dsatier manage it again."""


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
    state: State = "unmanaged"
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
    profile_given: tuple[str, ...] = ()
    """The files of that profile where somebody named them, and they are no drop-ins."""
    engine_live: bool = False
    """The DSA was proven to copy: it going off by itself is a fault, not drift."""
    tiers: Tiers = USUAL
    copy_fails: int = 0
    """dsa_copy_fail when last seen: a rise is a fault."""
    log_mark: int = 0
    """Kernel log lines behind this mark are not yet seen."""
    repairs: tuple[Repair, ...] = ()
    profile_status: ProfileStatus = "Accepted"
    """What became of the profile that the files hold now; another one may be in force."""
    profile_message: str = ""
    reload_pending: tuple[str, ...] = ()
    """Files of the profile that have changed since they were read: they count from a reload on."""
    look_failed: str = ""
    """Why the host could not be looked at last, empty where it could."""
    look_failed_since: float = 0.0
    """Seconds since the epoch of the first look that failed since one went well."""
    faults: int = 0
    """Faults of the engine, ever."""
    repaired: int = 0
    """Repairs of drift, ever."""
    effect: Effect | None = None
    """What the tiering of this boot has done; None where none is armed, or nobody has watched."""
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Motion:
    """The open journal of a host in motion. Its presence on start means an unclean end."""

    __pydantic_config__ = STRICT

    schema_version: int
    boot_id: str
    state: State
    """The state in motion."""
    began: float
    """Seconds since the epoch."""
    holder: str
    step: int
    """Number of the step that was begun last; 0 before the first."""
    steps: int
    what: str
    """The step's words."""


def is_released(record: Record) -> bool:
    """Tell whether the host was detached, and not applied to since."""
    return record.state == "unmanaged" and record.reason == WITHDRAWN


@dataclass(frozen=True, slots=True)
class Told:
    """The summary of a host for every output: the rule for Converged is here."""

    state: str
    """A state of the lifecycle, or ``unknown``."""
    reason: str
    message: str
    since: float
    """Seconds since the epoch."""
    converged: Truth


UNKNOWN = "unknown"
"""The state of a host that cannot be looked at, in every output."""
CLAIMS = frozenset({"unmanaged", "converged", "drifted", "reverted"})
"""States that say how the host is. All others say what is being done, or what somebody must do."""


def told(record: Record) -> Told:
    """Return the summary of a host.

    Converged is True only if the last look succeeded and found every field of a profile proven.
    The reader decides how old that look may be: see ``dsatier.cli.status``.
    """
    if record.look_failed and record.state in CLAIMS:
        since = record.look_failed_since
        return Told(UNKNOWN, "LookFailed", record.look_failed, since, "Unknown")
    if record.profile_status == "NoProfile" and record.state in IN_FORCE:
        # nothing says any more how the host is to be; it is left as the last profile put it
        last = {condition.type: condition for condition in record.conditions}
        accepted = last.get("ProfileAccepted")
        since = record.since if accepted is None else accepted.last_transition_time
        return Told("unmanaged", "NoProfile", record.profile_message, since, "Unknown")
    true: Truth = "True" if record.state == "converged" else "False"
    return Told(record.state, record.reason, record.message, record.since, true)


def with_conditions(record: Record, now: float) -> Record:
    """Return ``record`` with the conditions that follow from it."""
    before = {condition.type: condition for condition in record.conditions}

    def condition(kind: str, true: bool | Truth, reason: str, message: str) -> Condition:
        status: Truth = true if isinstance(true, str) else "True" if true else "False"
        last = before.get(kind)
        since = last.last_transition_time if last is not None and last.status == status else now
        return Condition(kind, status, reason, message, since)

    state = record.state
    moving = state in IN_MOTION
    now_told = told(record)
    tried: bool | Truth = record.profile_status == "Accepted"
    if record.profile_status == "Pending":
        tried = "Unknown"
    return replace(
        record,
        conditions=(
            condition("Converged", now_told.converged, now_told.reason, now_told.message),
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
                tried,
                record.profile_status,
                record.profile_message,
            ),
            condition(
                "ReloadPending",
                bool(record.reload_pending),
                "FilesChanged" if record.reload_pending else "NothingChanged",
                ", ".join(record.reload_pending),
            ),
        ),
    )
