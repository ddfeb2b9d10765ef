# SPDX-License-Identifier: Apache-2.0
"""The status document: the public state of a host, as plain data."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import Any

from dsatier.apply.lifecycle import AT_AN_END, IN_FORCE, IN_MOTION, MEANING
from dsatier.apply.records import UNKNOWN, Record, is_released, told
from dsatier.facts.effect import REASONS
from dsatier.plan.model import Finding

AGAIN = "`systemctl reload dsatier` (`dsatier apply` where no daemon runs)"
REMEDIES = {
    "unmanaged": f"put a profile into /etc/dsatier.d, then {AGAIN}",
    "converged": "nothing to do",
    "drifted": f"run `dsatier verify` to see it, stop the other writer, then {AGAIN}",
    "reverted": f"remove the cause that the reason names, then {AGAIN}",
    "degraded": f"see why the device failed (`dmesg`), then `dsatier clear` and {AGAIN}",
    "quarantined": f"find out why it ended uncleanly, then `dsatier clear` and {AGAIN}",
    "rollback-failed": "remove the cause that the reason names, then run `dsatier rollback` again",
    "reboot-required": "drain the host and reboot it",
}
NOT_KNOWN = "the host cannot be looked at, so nobody knows how it is"
MOVING = "wait: it is under way"
CORRECT = "correct the profile, or what it needs of the host, then `systemctl reload dsatier`"
LOOK_AGAIN = "read the reason, and `journalctl -u dsatier`; the daemon looks again by itself"
TO_COME = f"the profile that the files hold has not been tried yet: {AGAIN}"
BACK = f"nothing; when dsatier is to take the host up again: {AGAIN}"


def status(record: Record, hostname: str, now: float) -> dict[str, Any]:
    """Return the status document of ``record``. ``now`` is seconds since the epoch."""
    now_told = told(record)
    return {
        "schema_version": 1,
        "hostname": hostname,
        "state": now_told.state,
        "meaning": MEANING.get(now_told.state, NOT_KNOWN),
        "reason": now_told.reason,
        "message": now_told.message,
        "since": now_told.since,
        "remedy": remedy(record),
        "boot_id": record.boot_id,
        "written_at": now,
        "observed_generation": record.generation,
        "profile_digest": record.profile_digest,
        "profile": {"status": record.profile_status, "message": record.profile_message},
        "reload_pending": list(record.reload_pending),
        "latch": record.latch,
        "faults": record.faults,
        "repaired": record.repaired,
        "tiering": _tiering(record),
        "conditions": [asdict(condition) for condition in record.conditions],
    }


def _tiering(record: Record) -> dict[str, Any] | None:
    """Return what tiering does, None where none is armed or nobody has watched it."""
    effect = record.effect
    if effect is None or record.state not in IN_FORCE:
        return None
    return asdict(effect) | {"message": REASONS[effect.reason]}


def idle(record: Record) -> tuple[Finding, ...]:
    """Return a warning where the tiering of a host does not work."""
    said = _tiering(record)
    if said is None or said["verdict"] != "not working":
        return ()
    what, _, remedy = said["message"].partition(": ")
    return (
        Finding(
            level="warning",
            name="tiering-effect",
            where="tiering",
            expected="pages that move between the tiers",
            found=f"{said['reason']}: {what}",
            remedy=remedy,
        ),
    )


def remedy(record: Record) -> str:
    """Return what an operator is to do."""
    state = told(record).state
    if state in IN_MOTION:
        return MOVING
    if state == UNKNOWN:
        return LOOK_AGAIN
    if is_released(record):
        return BACK
    if record.latch == "none" and state not in AT_AN_END:
        if record.profile_status == "Pending":
            return TO_COME
        if record.profile_status not in ("Accepted", "NoProfile"):
            return CORRECT
    return REMEDIES[state].replace(AGAIN, _again(record))


def _again(record: Record) -> str:
    """Return the command that applies the profile of ``record`` once more."""
    if not record.profile_given:
        return AGAIN
    return f"`dsatier apply {' '.join(f'-p {shlex.quote(file)}' for file in record.profile_given)}`"
