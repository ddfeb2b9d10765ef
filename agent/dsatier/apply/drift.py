# SPDX-License-Identifier: Apache-2.0
"""Drift that comes back: when repairing becomes a fight, and with whom. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dsatier.apply.records import Record, Repair
from dsatier.facts.knobs import knob_named
from dsatier.facts.model import Facts
from dsatier.profile.model import DriftPolicy


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
    record: Record, items: tuple[str, ...], policy: DriftPolicy, now: float, facts: Facts
) -> Fight | None:
    """Return the fight that repairing ``items`` once more would be, None where it is none.

    ``now`` is the host's monotonic clock in seconds.
    """
    if record.state == "drifted" and record.reason == "Contested":
        # once given up it stays so for as long as the drift does: no flapping
        item = items[0] if items else ""
        return Fight(item, policy.fights, policy.window, _suspects(item, facts))
    for item in items:
        times = sum(r.item == item and 0 <= now - r.at <= policy.window for r in record.repairs)
        if times >= policy.fights:
            return Fight(item, times, policy.window, _suspects(item, facts))
    return None


def noted(record: Record, items: tuple[str, ...], now: float, window: float) -> Record:
    """Return ``record`` with the repair of ``items`` noted, and old repairs forgotten."""
    recent = tuple(r for r in record.repairs if 0 <= now - r.at <= window)
    fresh = tuple(Repair(item, now) for item in items)
    return replace(record, repairs=recent + fresh, repaired=record.repaired + 1)


def _suspects(item: str, facts: Facts) -> tuple[str, ...]:
    """Return the tools that are set up to write ``item``, by the words of its step."""
    return tuple(
        f"{writer.tool} ({writer.path})"
        for writer in facts.others
        if any(_is_about(item, name) for name in writer.items)
    )


def _is_about(item: str, name: str) -> bool:
    """Tell whether the words of a step are about what a tool writes."""
    knob = knob_named(name)
    return name in item if knob is None else item.startswith(f"{knob.path} ")
