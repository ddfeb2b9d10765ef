# SPDX-License-Identifier: Apache-2.0
"""``dsatier history``: what happened on a host, newest first."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import datetime, time, timedelta
from typing import Any

from dsatier.apply.history import EVENTS, LATEST, Entry
from dsatier.base.problem import show

_UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGE = re.compile(rf"(\d{{1,9}})\s*({'|'.join(_UNITS)})(?:\s+ago)?")
_WIDTH = max(map(len, EVENTS))


def since(text: str, now: float) -> float:
    """Return the seconds since the epoch that ``text`` means, within what an entry may have.

    Times are local ones. Raises ValueError.

    >>> since("2h", 10_000.0), since("90 min ago", 10_000.0), since("@17", 10_000.0)
    (2800.0, 4600.0, 17.0)
    """
    return min(max(_meant(text, now), 0.0), LATEST)


def _meant(text: str, now: float) -> float:
    said = text.strip()
    midnight = datetime.combine(datetime.fromtimestamp(now).date(), time())  # noqa: DTZ006 - local
    try:
        if match := _AGE.fullmatch(said):
            return now - int(match[1]) * _UNITS[match[2]]
        if match := re.fullmatch(r"@(\d{1,11})", said):
            return float(match[1])
        if said in ("today", "yesterday"):
            return (midnight - timedelta(days=said == "yesterday")).timestamp()
        if re.fullmatch(r"\d{1,2}:\d\d(:\d\d)?", said):
            hour, colon, rest = said.partition(":")
            clock = time.fromisoformat(f"{hour:0>2}{colon}{rest}")
            return datetime.combine(midnight, clock).timestamp()
        return datetime.fromisoformat(said).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(
            "expected a time as 2026-11-30, '2026-11-30 18:00', 18:00, today, yesterday, 90min, "
            f"12h, 7d or @SECONDS, found {show(text)!r}"
        ) from None


def screen(found: tuple[Entry, ...], since: float | None) -> str:
    """Return entries as a person reads them, one or more lines each."""
    if not found:
        return "nothing happened" + (f" since {_when(since)}" if since is not None else "")
    return "\n".join(line for entry in found for line in _lines(entry))


def document(found: tuple[Entry, ...], hostname: str, odd: int) -> dict[str, Any]:
    """Return entries as data. ``odd``: lines of the file that were none."""
    return {
        "schema_version": 1,
        "hostname": hostname,
        "entries": [asdict(entry) for entry in found],
        "left_out": odd,
    }


def _lines(entry: Entry) -> list[str]:
    """Return an entry's lines; nothing in them can act on a terminal."""
    head = f"{_when(entry.at)}  {show(entry.event):<{_WIDTH}}  {show(entry.state)}"
    first, *rest = [show(line, 10_000) for line in entry.message.split("\n")]
    indent = " " * (len(_when(entry.at)) + _WIDTH + 4)
    return [f"{head}: {first}" if first else head, *(indent + line for line in rest if line)]


def _when(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")  # noqa: DTZ006 - local time
