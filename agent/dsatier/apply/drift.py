# SPDX-License-Identifier: Apache-2.0
"""Drift that comes back: when repairing becomes a fight, and with whom. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dsatier.apply.records import Record, Repair
from dsatier.facts.model import Facts
from dsatier.plan.model import Step
from dsatier.plan.ownership import Thing, thing
from dsatier.profile.model import DriftPolicy

_KINDS = {"cpu": "cpus", "device": "queues"}
"""What ``OtherWriter.items`` has for a kind of thing; a knob's name stands there itself."""


@dataclass(frozen=True, slots=True)
class Fight:
    """A thing that was repaired too often."""

    item: str
    times: int
    window: float
    suspects: tuple[str, ...]

    def __str__(self) -> str:
        who = (
            " and ".join(self.suspects)
            if self.suspects
            else "no configured tool is known to set it: look with `auditctl -w` or `fatrace`"
        )
        return (
            f"gave up on {self.item}: repaired {self.times} times in {self.window:g} s and gone "
            f"again; the other writer: {who}"
        )


def contested(
    record: Record, steps: tuple[Step, ...], policy: DriftPolicy, now: float, facts: Facts
) -> Fight | None:
    """Return the fight that repairing ``steps`` once more would be, None where it is none.

    ``now`` is the host's monotonic clock in seconds.
    """
    if record.state == "drifted" and record.reason == "Contested":
        # once given up it stays so for as long as the drift does: no flapping
        first = steps[0].what if steps else ""
        return Fight(first, policy.fights, policy.window, _suspects(steps[:1], facts))
    for step in steps:
        item = step.what
        times = sum(r.item == item and 0 <= now - r.at <= policy.window for r in record.repairs)
        if times >= policy.fights:
            return Fight(item, times, policy.window, _suspects((step,), facts))
    return None


def noted(record: Record, items: tuple[str, ...], now: float, window: float) -> Record:
    """Return ``record`` with the repair of ``items`` noted, and old repairs forgotten."""
    recent = tuple(r for r in record.repairs if 0 <= now - r.at <= window)
    fresh = tuple(Repair(item, now) for item in items)
    return replace(record, repairs=recent + fresh, repaired=record.repaired + 1)


def _suspects(steps: tuple[Step, ...], facts: Facts) -> tuple[str, ...]:
    """Return the tools that are set up to write what the steps write."""
    names = {_name(thing(request)) for step in steps for request in step.requests}
    return tuple(
        f"{writer.tool} ({writer.path})"
        for writer in facts.others
        if not names.isdisjoint(writer.items)
    )


def _name(written: Thing) -> str:
    kind, name = written
    return _KINDS.get(kind, str(name))
