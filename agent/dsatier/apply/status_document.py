# SPDX-License-Identifier: Apache-2.0
"""The status document: what the world is told of a host, as plain data."""

from __future__ import annotations

from typing import Any

from dsatier.apply.lifecycle import IN_MOTION, MEANING
from dsatier.apply.records import Record, let_go
from dsatier.base.frozen import asdict

AGAIN = "`systemctl reload dsatier` (`dsatier apply` where no daemon runs)"
REMEDIES = {
    "unmanaged": f"put a profile into /etc/dsatier.d, then {AGAIN}",
    "converged": "nothing to do",
    "drifted": f"run `dsatier verify` to see it, stop the other writer, then {AGAIN}",
    "reverted": f"read the reason, mend it, then {AGAIN}",
    "degraded": f"see why the device failed (`dmesg`), then `dsatier clear` and {AGAIN}",
    "quarantined": f"find out why it ended uncleanly, then `dsatier clear` and {AGAIN}",
    "rollback-failed": "read the reason, mend it, then run `dsatier rollback` again",
    "reboot-required": "drain the host and reboot it",
}
MOVING = "wait: it is under way"
MEND = "mend the profile, or what it needs of the host, then `systemctl reload dsatier`"
BACK = f"nothing; when dsatier is to take the host up again: {AGAIN}"


def status(record: Record, hostname: str, now: float) -> dict[str, Any]:
    """Return the status document of ``record``. ``now`` is seconds since the epoch."""
    return {
        "schema_version": 1,
        "hostname": hostname,
        "state": record.state,
        "meaning": MEANING[record.state],
        "reason": record.reason,
        "message": record.message,
        "since": record.since,
        "remedy": remedy(record),
        "boot_id": record.boot_id,
        "written_at": now,
        "observed_generation": record.generation,
        "profile_digest": record.profile_digest,
        "profile": {"status": record.profile_status, "message": record.profile_message},
        "latch": record.latch,
        "faults": record.faults,
        "repaired": record.repaired,
        "conditions": [asdict(condition) for condition in record.conditions],
    }


def remedy(record: Record) -> str:
    """Return what an operator is to do."""
    if record.state in IN_MOTION:
        return MOVING
    if let_go(record):
        return BACK
    if record.profile_status not in ("Accepted", "NoProfile") and record.latch == "none":
        return MEND
    return REMEDIES[record.state]
