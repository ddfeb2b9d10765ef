# SPDX-License-Identifier: Apache-2.0
"""The kernel's knobs: names, files, ranges and defaults, as the contract gives them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, cast

INT_MAX = 2147483647

KnobName = Literal[
    "limit_mt_num",
    "limit_chans",
    "dsa_copy_threshold",
    "use_concur_to_compact",
    "use_concur_to_demote",
    "use_concur_for_htmm",
    "migrate_batch_reasons",
    "migrate_batch_pages",
    "migrate_batch_usecs",
    "migrate_engine_reasons",
    "migrate_copy_calibrate",
    "cpu_multi_copy_threshold",
    "dsa_state",
    "use_dsa_copy_pages",
    "cpu_multi_copy_pages",
    "dsa_async_mode",
    "dsa_sync_mode",
    "demote_scale_factor",
    "numa_balancing",
    "demotion_enabled",
    "promote_rate_limit_MBps",
    "watermark_scale_factor",
    "watermark_boost_factor",
    "compaction_proactiveness",
    "zone_reclaim_mode",
    "thp_enabled",
    "thp_defrag",
]
"""The names of all knobs: a type, so that a misspelt one in a guard does not make it pass."""


@dataclass(frozen=True, slots=True)
class Knob:
    """A kernel file that holds one number."""

    name: KnobName
    path: str
    low: int
    high: int
    default: int
    text: str
    """What it does, for people."""
    mainline: bool = False
    """Debian's stock kernel has it too."""
    words: tuple[str, ...] = ()
    """What the file says for 0, 1, 2 and so on; empty where it holds the number."""
    flags: dict[str, int] = field(default_factory=dict)
    """The bits that the number may have, by their names; empty where it is no set of bits."""

    def spelt(self, value: int) -> str:
        """Return a value as the file takes it."""
        return self.words[value] if 0 <= value < len(self.words) else str(value)

    def number(self, value: bool | int | str | tuple[str, ...]) -> int:
        """Return what a profile says of it as the number that facts have.

        >>> KNOBS["migrate_batch_reasons"].number(("compaction", "demotion"))
        257
        """
        if isinstance(value, tuple):
            return sum(self.flags[one] for one in value)
        return self.words.index(value) if isinstance(value, str) else int(value)

    def named(self, value: int) -> int | str:
        """Return a value as a profile says it.

        >>> KNOBS["migrate_batch_reasons"].named(257)
        '[compaction, demotion]'
        """
        if self.flags:
            return f"[{', '.join(name for name, bit in self.flags.items() if value & bit)}]"
        return self.spelt(value) if self.words else value


def _vm(
    name: KnobName, low: int, high: int, default: int, text: str, *, mainline: bool = False
) -> Knob:
    return Knob(name, f"/proc/sys/vm/{name}", low, high, default, text, mainline)


def _thp(file: str, name: KnobName, default: str, text: str, words: tuple[str, ...]) -> Knob:
    path = f"/sys/kernel/mm/transparent_hugepage/{file}"
    return Knob(name, path, 0, len(words) - 1, words.index(default), text, True, words)


MOST_MBPS = (1 << 24) - 1
"""More MiB/s wrap around to a limit of 0 in kernels with 4 KiB pages."""
THP = ("always", "madvise", "never")
DEFRAG = ("always", "defer", "defer+madvise", "madvise", "never")
BATCHED = {
    "compaction": 1 << 0,
    "memory_hotplug": 1 << 2,
    "syscall_or_cpuset": 1 << 3,
    "mempolicy_mbind": 1 << 4,
    "contig_range": 1 << 6,
    "longterm_pin": 1 << 7,
    "demotion": 1 << 8,
    "damon": 1 << 9,
}
"""The bits of the reasons to migrate a list, named as in the kernel's trace events."""
OFFERED = BATCHED | {"memory_failure": 1 << 1, "numa_misplaced": 1 << 5, "hugetlb": 1 << 10}
"""Those for which an engine may be asked: single folios have some more."""


def _reasons(name: KnobName, default: int, text: str, flags: dict[str, int]) -> Knob:
    path = f"/proc/sys/vm/{name}"
    return Knob(name, path, 0, sum(flags.values()), default, text, flags=flags)


KNOBS: dict[KnobName, Knob] = {
    knob.name: knob
    for knob in (
        _vm("limit_mt_num", 1, 32, 4, "threads of the multithread engine"),
        _vm("limit_chans", 1, 8, 8, "DMA channels that share one large page"),
        _vm("dsa_copy_threshold", 1, INT_MAX, 16, "least 4 KiB pages in a list for the DSA"),
        _vm("use_concur_to_compact", 0, 1, 0, "compaction migrates its list concurrently"),
        _vm("use_concur_to_demote", 0, 1, 0, "demotion migrates its list concurrently"),
        _vm("use_concur_for_htmm", 0, 1, 0, "memtis promotes and demotes its lists concurrently"),
        _vm("migrate_batch_pages", 512, 262144, 13312, "most 4 KiB pages in a list"),
        _vm("migrate_batch_usecs", 0, 1000000, 4000, "microseconds a list may wait; 0 no limit"),
        _reasons(
            *("migrate_engine_reasons", 2047, "which migrations engines are asked for"),
            OFFERED,
        ),
        _vm("migrate_copy_calibrate", 0, 1, 0, "engines get lists at which they were faster"),
        _vm("cpu_multi_copy_threshold", 1, INT_MAX, 256, "least 4 KiB pages in a list for threads"),
        _reasons(
            *("migrate_batch_reasons", 0, "which migrations copy lists at once"),
            BATCHED,
        ),
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
            3,
            0,
            "0 off, 1 balancing, 2 memory tiering, 3 both",
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
        Knob(
            "promote_rate_limit_MBps",
            "/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps",
            1,
            MOST_MBPS,
            65536,
            "most MiB/s that are promoted to each node",
            mainline=True,
        ),
        _vm(
            *("watermark_scale_factor", 1, 3000, 10),
            "distance of the watermarks, 1/10000 of a zone",
            mainline=True,
        ),
        _vm(
            *("watermark_boost_factor", 0, INT_MAX, 15000),
            "how much reclaim follows on fragmentation, 1/10000; 0 none",
            mainline=True,
        ),
        _vm(
            *("compaction_proactiveness", 0, 100, 20),
            "how eagerly memory is compacted in the background",
            mainline=True,
        ),
        _vm(
            *("zone_reclaim_mode", 0, 7, 0),
            "1 a full node is reclaimed before another is used; 2 also writes; 4 also unmaps",
            mainline=True,
        ),
        _thp("enabled", "thp_enabled", "always", "who gets huge pages", THP),
        _thp("defrag", "thp_defrag", "madvise", "who waits for huge pages", DEFRAG),
    )
}


def knob_named(name: str) -> Knob | None:
    """Return the knob of a name that comes from elsewhere, None where it is the name of none."""
    return KNOBS.get(cast(KnobName, name))


def spelt(name: str, value: int) -> str:
    """Return the value of a knob as its file takes it.

    >>> spelt("thp_enabled", 1), spelt("limit_chans", 8)
    ('madvise', '8')
    """
    knob = knob_named(name)
    return knob.spelt(value) if knob else str(value)


TIMER = "/proc/timer"

CONCURRENT: tuple[KnobName, ...] = (
    "use_concur_to_compact",
    "use_concur_to_demote",
    "use_concur_for_htmm",
)
"""The knobs with each of which lists migrate concurrently."""

TIERING_MODES = frozenset({2, 3})
"""The values of ``numa_balancing`` with which the kernel tiers; 3 balances as well."""

SEED_CHANS = frozenset({1, 2, 4, 8})
SEED_BATCH_CHANS = 8
"""The only limit_chans whose descriptor arrays hold a whole concurrent list on a seed kernel."""
SEED_SETTLE = 10.0
"""Seconds of quiet before a seed kernel's descriptors are freed: twice its longest poll."""


ENGINES: dict[str, dict[KnobName, int]] = {
    "cpu": {"cpu_multi_copy_pages": 0, "use_dsa_copy_pages": 0, "dsa_state": 0},
    "multithread": {"cpu_multi_copy_pages": 1, "use_dsa_copy_pages": 0, "dsa_state": 0},
    "dsa": {"cpu_multi_copy_pages": 0, "dsa_state": 1, "use_dsa_copy_pages": 1},
}
