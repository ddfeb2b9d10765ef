# SPDX-License-Identifier: Apache-2.0
"""The kernel's knobs: names, files, ranges and defaults, as the contract gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsatier.frozen import dataclass

if TYPE_CHECKING:
    from dsatier.facts import Facts

INT_MAX = 2147483647


@dataclass(frozen=True, slots=True)
class Knob:
    """A kernel file that holds one number."""

    name: str
    path: str
    low: int
    high: int
    default: int
    text: str
    """What it does, for people."""
    mainline: bool = False
    """Debian's stock kernel has it too."""


def _vm(name: str, low: int, high: int, default: int, text: str) -> Knob:
    return Knob(name, f"/proc/sys/vm/{name}", low, high, default, text)


KNOBS: dict[str, Knob] = {
    knob.name: knob
    for knob in (
        _vm("limit_mt_num", 1, 32, 4, "threads of the multithread engine"),
        _vm("limit_chans", 1, 8, 8, "DMA channels that share one large page"),
        _vm("dsa_copy_threshold", 1, INT_MAX, 16, "least 4 KiB pages in a list for the DSA"),
        _vm("use_concur_to_compact", 0, 1, 0, "compaction migrates its list concurrently"),
        _vm("use_concur_to_demote", 0, 1, 0, "demotion migrates its list concurrently"),
        _vm("dsa_state", 0, 1, 0, "the kernel holds DMA channels and descriptors"),
        _vm("use_dsa_copy_pages", 0, 1, 0, "the DSA copies pages"),
        _vm("cpu_multi_copy_pages", 0, 1, 0, "several CPU threads copy pages"),
        _vm("dsa_async_mode", 0, 0, 0, "waiting by interrupt; faulty on every seed kernel"),
        _vm("dsa_sync_mode", 0, 3, 0, "style of polling"),
        _vm("demote_scale_factor", 1, 10000, 200, "demotion watermark, 1/10000 of the node"),
        Knob(
            "numa_balancing",
            "/proc/sys/kernel/numa_balancing",
            0,
            2,
            0,
            "0 off, 1 balancing, 2 memory tiering",
            mainline=True,
        ),
        Knob(
            "demotion_enabled",
            "/sys/kernel/mm/numa/demotion_enabled",
            0,
            1,
            0,
            "reclaim demotes to the slow tier",
            mainline=True,
        ),
    )
}

TIMER = "/proc/timer"

SEED_CHANS = frozenset({1, 2, 4, 8})
SEED_BATCH_CHANS = 8
"""The only limit_chans whose descriptor arrays hold a whole concurrent list on a seed kernel."""
SEED_SETTLE = 10.0
"""Seconds of quiet before a seed kernel's descriptors are freed: twice its longest poll."""


def number(text: str) -> int | None:
    """Return the number that a knob's text stands for, None where it is none.

    ``demotion_enabled`` reads true and false.
    """
    text = text.strip()
    if text in ("true", "false"):
        return int(text == "true")
    digits = text.removeprefix("-")
    return int(text) if digits.isdecimal() and digits.isascii() else None


def live(facts: Facts, name: str) -> int | None:
    """Return a knob's live value, None where this kernel has no such knob or it reads nonsense."""
    text = facts.knobs.get(name)
    return None if text is None else number(text)


def thread_counts(facts: Facts) -> frozenset[int]:
    """Return the values of ``limit_mt_num`` that lose no byte on a seed kernel.

    A seed kernel clamps the value to the online CPUs of the node that it happens to run on, and
    what comes out must be a power of two: so it must fit every node that has CPUs.
    """
    fewest = min((len(node.cpus) for node in facts.nodes if node.cpus), default=1)
    return frozenset(n for n in (1, 2, 4, 8, 16, 32) if n <= fewest)


def _both_modes(facts: Facts) -> bool:
    """Tell whether the kernel is the seed's that takes balancing and tiering together."""
    return facts.kernel.family == "seed" and "demote_scale_factor" in facts.knobs


def value_refusal(name: str, value: int, facts: Facts) -> str | None:
    """Return why this kernel cannot take ``value``, None where it can."""
    knob = KNOBS[name]
    if name == "numa_balancing" and value == 3 and _both_modes(facts):
        return None  # no profile asks for it, but what was there may come back
    if not knob.low <= value <= knob.high:
        span = str(knob.low) if knob.low == knob.high else f"{knob.low} to {knob.high}"
        return f"{name}: expected {span}, found {value}"
    if facts.kernel.family != "seed":
        return None
    if name == "numa_balancing" and value == 2 and "demote_scale_factor" not in facts.knobs:
        return "numa_balancing: expected 0 or 1 on this seed kernel (memtis), found 2"
    if name == "limit_chans" and value not in SEED_CHANS:
        return (
            f"limit_chans: expected 1, 2, 4 or 8 on a seed kernel, found {value}: "
            "the last bytes of each huge page would be lost"
        )
    if name == "limit_mt_num" and value not in thread_counts(facts):
        allowed = ", ".join(map(str, sorted(thread_counts(facts))))
        return (
            f"limit_mt_num: expected one of {allowed} on this seed kernel, found {value}: "
            "the last bytes of pages would be lost"
        )
    return None
