# SPDX-License-Identifier: Apache-2.0
"""What the daemon counts for its metrics, kept so that a restart goes on counting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dsatier.base.fields import STRICT

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


@dataclass(frozen=True, slots=True)
class Duration:
    """How long the steps of a rung took so far."""

    __pydantic_config__ = STRICT

    count: int = 0
    """Steps."""
    seconds: float = 0.0
    """All of them together."""
    longest: float = 0.0
    """Seconds."""


def with_step(durations: Mapping[str, Duration], rung: str, seconds: float) -> dict[str, Duration]:
    """Return ``durations`` with one more step of ``rung``. A clock that went back counts as 0."""
    took = max(seconds, 0.0)
    so_far = durations.get(rung, Duration())
    now = Duration(so_far.count + 1, so_far.seconds + took, max(so_far.longest, took))
    return {**durations, rung: now}
