# SPDX-License-Identifier: Apache-2.0
"""How an attempt to bring a host where it is wanted ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dsatier.apply.records import Record
from dsatier.plan.model import Plan

Result = Literal[
    "unchanged",
    "changed",
    "pending",
    "refused",
    "reverted",
    "degraded",
    "quarantined",
    "drifted",
    "rollback-failed",
    "reboot-required",
]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a verb ended."""

    result: Result
    message: str
    plan: Plan | None = None
    record: Record | None = None
