# SPDX-License-Identifier: Apache-2.0
"""The status document: what the world is told of a host, as plain data."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from dsatier.lifecycle import IN_MOTION, MEANING
from dsatier.records import Record

REMEDIES = {
    "unmanaged": "put a profile into /etc/dsatier.d and run `dsatier apply`",
    "converged": "nothing to do",
    "drifted": "run `dsatier verify` to see it, stop the other writer, then `dsatier apply`",
    "reverted": "read the reason, mend it, then run `dsatier apply`",
    "degraded": "see why the device failed (`dmesg`), then `dsatier clear` and `dsatier apply`",
    "quarantined": "find out why it ended uncleanly, then `dsatier clear` and `dsatier apply`",
    "rollback-failed": "read the reason, mend it, then run `dsatier rollback` again",
    "reboot-required": "drain the host and reboot it",
}
MOVING = "wait: it is under way"


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
        "remedy": MOVING if record.state in IN_MOTION else REMEDIES[record.state],
        "boot_id": record.boot_id,
        "written_at": now,
        "observed_generation": record.generation,
        "profile_digest": record.profile_digest,
        "latch": record.latch,
        "faults": record.faults,
        "repaired": record.repaired,
        "conditions": [asdict(condition) for condition in record.conditions],
    }
