# SPDX-License-Identifier: Apache-2.0
"""The history: what happened on a host, as the differences of its records. Pure.

One entry a line, as JSON, the newest last. The text is bounded: the oldest entries go first.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from dsatier.apply.lifecycle import IN_FORCE
from dsatier.apply.records import WITHDRAWN, Record
from dsatier.facts.effect import REASONS

BYTES = 1 << 17
"""Bytes of the text at most: some 600 entries."""
LONGEST = 1000
"""Characters of an entry's message; what is longer is cut."""
EVENTS = {
    "boot": "the host booted",
    "change": "the host was changed, or a change failed and was undone",
    "clear": "somebody acknowledged a fault or an unclean end",
    "drift": "the host left its profile, and that was reported, not repaired",
    "fault": "the engine faulted and was turned off",
    "gap": "lines of the file were not what dsatier wrote, and were left out",
    "latch": "a change ended uncleanly: the profile waits for `dsatier clear`",
    "look": "the host could not be looked at, or could be again",
    "profile": "a profile was accepted or refused",
    "repair": "drift was repaired",
    "rollback": "the host went back to what it was before dsatier, or that failed",
    "state": "the state changed by something else",
    "tiers": "nodes came or went, or are of another kind, and the tiers are others by that",
    "tiering": "pages began to move between the tiers, or did not though they should",
}
"""What each word for an event means; docs/operations.md has them from here."""
_DRIFT = frozenset({"Drift", "Contested", "OutOfReach", "Unrepaired"})
"""Reasons of drift that was left as it is."""
LATEST = 1e11
"""Seconds since the epoch, in the year 5138: no clock of ours shows more."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened."""

    at: float
    """Seconds since the epoch; a clock that was set makes a jump in it."""
    event: str
    """A word of ``EVENTS``, or of a later version's."""
    state: str
    """The state of the lifecycle that it led to."""
    message: str


WORDS = ("event", "state", "message")
"""The fields of an entry that are texts, in their order."""


def happened(before: Record, after: Record, moved: str, now: float) -> tuple[Entry, ...]:
    """Return what happened between two records of a host at rest.

    ``moved`` is the state in motion that lay between, empty where there was none. ``before`` is
    in motion itself where a run ended uncleanly.
    """
    found: list[Entry] = []

    def tell(event: str, message: str) -> None:
        cut = message if len(message) <= LONGEST else message[:LONGEST] + "…"
        found.append(Entry(now, event, after.state, cut))

    if before.boot_id and before.boot_id != after.boot_id:
        tell("boot", EVENTS["boot"])
    # dsatier may have ended while it turned the engine off; then the crash is latched by now
    fell = (before.state, before.reason) == ("falling-back", "EngineFault")
    if fell or after.faults > before.faults:
        tell("fault", before.latch_reason if fell else after.latch_reason)
    latched = (after.latch, after.latch_reason)
    if after.latch == "crash" and latched != (before.latch, before.latch_reason):
        tell("latch", after.latch_reason)
    if after.reason == "Cleared" and (before.reason != "Cleared" or before.latch != after.latch):
        tell("clear", after.message)
    if after.repaired > before.repaired:
        fresh = [repair.item for repair in after.repairs if repair not in before.repairs]
        tell("repair", ", ".join(dict.fromkeys(fresh)))
    words = (after.reason, after.message)
    if after.reason in _DRIFT and words != (before.reason, before.message):
        tell("drift", f"{after.reason}: {after.message}")
    if moved == "withdrawing" or (after.reason == WITHDRAWN != before.reason):
        tell("rollback", after.message)
    elif moved and not {entry.event for entry in found} - {"boot"}:
        reached = f"generation {after.generation}: " if after.state == "converged" else ""
        tell("change", reached + after.message)
    if _judged(before, after):
        said = after.profile_message or f"generation {after.generation}"
        tell("profile", f"{after.profile_status}: {said}")
    if bool(after.look_failed) != bool(before.look_failed):
        tell("look", after.look_failed or "the host can be looked at again")
    same = before.profile_digest == after.profile_digest != ""
    if same and before.tiers != after.tiers and after.state in IN_FORCE:
        tell("tiers", f"{after.tiers}; before: {before.tiers}")
    effect = after.effect
    # what is armed is told with the change that armed it
    if effect is not None and effect != before.effect and effect.verdict != "armed":
        tell("tiering", f"{effect.verdict}: {effect.reason}: {REASONS[effect.reason]}")
    beside = {"profile", "look", "tiers", "tiering"}
    if after.state != before.state and not {e.event for e in found} - beside:
        tell("state", f"{after.reason}: {after.message}" if after.message else after.reason)
    return tuple(found)


def _judged(before: Record, after: Record) -> bool:
    """Tell whether something became known of the profile that the files hold."""
    if after.profile_status == "Pending":
        return False
    another = bool(after.profile_digest) and after.profile_digest != before.profile_digest
    verdicts = [(one.profile_status, one.profile_message) for one in (before, after)]
    return verdicts[0] != verdicts[1] or (another and after.profile_status == "Accepted")


def appended(text: str, entries: Iterable[Entry]) -> str:
    """Return the history ``text`` with entries at its end, and within its bound.

    Lines that are none are left out, and an entry tells so.
    """
    lines, odd = _lines(text)
    fresh = list(entries)
    if odd and fresh:
        words = f"{odd} {'line was' if odd == 1 else 'lines were'} not what dsatier wrote"
        fresh.insert(0, Entry(fresh[0].at, "gap", fresh[0].state, words))
    lines += [json.dumps(asdict(entry)) for entry in fresh]
    size, kept = 0, len(lines)
    while kept and size + len(lines[kept - 1]) < BYTES:
        kept -= 1
        size += len(lines[kept]) + 1
    return "".join(f"{line}\n" for line in lines[kept:])


def entries(text: str) -> tuple[tuple[Entry, ...], int]:
    """Return the entries of a history, the newest first, and how many lines are none."""
    lines, odd = _lines(text)
    found = [entry for line in reversed(lines) if (entry := _entry(line)) is not None]
    return tuple(found), odd


def _lines(text: str) -> tuple[list[str], int]:
    """Return the lines that are entries, and how many others there are."""
    lines = [line for line in text.split("\n") if line]
    good = [line for line in lines if line.isascii() and _entry(line) is not None]
    return good, len(lines) - len(good)


def _entry(line: str) -> Entry | None:
    """Return the entry that a line is, None where it is none."""
    try:
        data: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    at = data.get("at")
    words = [word for name in WORDS if isinstance(word := data.get(name), str)]
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at <= LATEST:
        return None
    return Entry(float(at), *words) if len(words) == len(WORDS) else None
