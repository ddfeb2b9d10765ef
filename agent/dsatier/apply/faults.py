# SPDX-License-Identifier: Apache-2.0
"""Faults of the engine, as opposed to drift. Pure."""

from __future__ import annotations

from dsatier.apply.records import Record
from dsatier.facts.kernel_complaints import complaints, oopses
from dsatier.facts.knobs import SEED_BATCH_CHANS
from dsatier.facts.model import Facts
from dsatier.facts.readings import (
    concurrent,
    effective_threads_broken,
    failed_copies,
    halted,
    held,
    live,
    on,
    oopsed,
    value_refusal,
)
from dsatier.plan.model import Desired


def fault(record: Record, facts: Facts, desired: Desired, lines: tuple[str, ...]) -> str | None:
    """Return what says that the engine faulted since ``record``, None where nothing does.

    ``lines`` are the kernel log's lines since the record's mark. Only an engine
    that was proven live on this boot can fault; a seed kernel's CPU threads fault when
    somebody gives them a number with which they lose bytes, and the profile has none to restore.
    """
    spoilt = _threads_spoil(record, facts, desired)
    if spoilt is not None:
        return spoilt
    if not record.engine_live or record.boot_id != facts.kernel.boot_id:
        return None
    named = {config.id for config in desired.queues}
    said = complaints(lines, facts, named)
    words = dict.fromkeys((*said[:1], *oopses(said)[:1]))  # an oops says what is left to do
    because = f" (kernel log: {'; '.join(words)})" if words else ""
    if lost := halted(facts, named):
        return f"{', '.join(lost)} halted{because}"
    chans = live(facts, "limit_chans")
    if on(facts, "dsa_state") and chans is not None and len(held(facts)) < chans:
        return f"{len(held(facts))} DMA channels in use of {chans}: a work queue vanished{because}"
    if on(facts, "use_dsa_copy_pages") and (wrong := _spoilt(facts)):
        return f"{wrong}{because}"
    if not on(facts, "use_dsa_copy_pages"):
        return f"use_dsa_copy_pages {_went(facts, said)}{because}"
    if not on(facts, "dsa_state"):
        return f"dsa_state {_went(facts, said)}{because}"
    for device in facts.devices:
        if device.id in named and device.state != "enabled":
            return f"{device.id} is {device.state}{because}"
        for queue in device.queues if device.id in named else ():
            wanted = any(q.id == queue.id for c in desired.queues for q in c.queues)
            if wanted and queue.state != "enabled":
                return f"{queue.id} is {queue.state}{because}"
    if oopsed(facts):
        return f"the kernel has oopsed{because}"
    failed = failed_copies(facts, record.copy_fails)
    if failed:
        fails = facts.timer["dsa_copy_fail"]
        return f"dsa_copy_fail rose from {fails - failed} to {fails}{because}"
    if said:
        return f"the kernel log complains: {said[0]}"
    return None


def _went(facts: Facts, said: tuple[str, ...]) -> str:
    """Return how a knob came to 0. Our kernel says so each time that it turns an engine off."""
    if facts.kernel.family == "ours" and not said:
        return "was set to 0 by somebody: the kernel log tells of no fault"
    return "went to 0 by itself"


def _threads_spoil(record: Record, facts: Facts, desired: Desired) -> str | None:
    """Return why a seed kernel's CPU threads lose bytes now, if it is they that copy."""
    if record.boot_id != facts.kernel.boot_id or desired.wants("cpu_multi_copy_pages") != 1:
        return None
    if desired.wants("limit_mt_num") is not None:
        return None  # that is drift, and the repair brings the right number back
    if not on(facts, "cpu_multi_copy_pages") or not effective_threads_broken(facts):
        return None
    return f"limit_mt_num is {live(facts, 'limit_mt_num')}: the last bytes of pages would be lost"


def _spoilt(facts: Facts) -> str | None:
    """Return what somebody has set under a live engine that makes a seed kernel spoil pages."""
    if facts.kernel.family != "seed":
        return None  # ours refuses it
    chans = live(facts, "limit_chans")
    if chans is not None and (refusal := value_refusal("limit_chans", chans, facts)):
        return refusal
    if concurrent(facts) and chans != SEED_BATCH_CHANS:
        return f"limit_chans is {chans} with concurrent migration: lists overrun the descriptors"
    if on(facts, "dsa_async_mode"):
        return "dsa_async_mode is 1, which oopses at the first huge page"
    return None
