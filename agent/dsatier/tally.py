# SPDX-License-Identifier: Apache-2.0
"""What the daemon counts for its metrics, kept so that a restart goes on counting."""

from __future__ import annotations

from dsatier.frozen import dataclass, replace
from dsatier.metrics import Duration, with_step
from dsatier.records import STRICT

RELOADS = ("unchanged", "changed", "refused", "reverted", "invalid", "no-profile", "degraded")
"""How reloads end most often; they are counted from 0."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How long steps took, and how reloads ended, ever."""

    __pydantic_config__ = STRICT

    schema_version: int
    durations: dict[str, Duration]
    """By rung of the ladder."""
    reloads: dict[str, int]
    """By result."""

    def with_step(self, rung: str, seconds: float) -> Tally:
        """Return the tally with one more step."""
        return replace(self, durations=with_step(self.durations, rung, seconds))

    def with_reload(self, result: str) -> Tally:
        """Return the tally with one more reload."""
        return replace(self, reloads={**self.reloads, result: self.reloads.get(result, 0) + 1})


NOTHING = Tally(1, {}, {})
"""The tally of a host on which the daemon never ran."""
