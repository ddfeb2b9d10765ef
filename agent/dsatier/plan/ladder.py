# SPDX-License-Identifier: Apache-2.0
"""The ladder: the safe order, as a table.

A host climbs from the first rung to the last, and comes down the other way.
Each rung lists what is done on it, in order, on the way up and on the way
down. ``DESCENTS`` lists which changes cannot be made from above, and the
highest rung on which they can. The planner only walks these tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dsatier.facts.knobs import KnobName


@dataclass(frozen=True, slots=True)
class Put:
    """Write a knob: ``value``, or where it is None the desired or the former value.

    On the way down, without a value, it is written only where it cannot be further up:
    the watermark is computed only while memory tiering is on.
    """

    knob: KnobName
    value: int | None = None


Act = (
    Put
    | Literal[
        "memory online",
        "cpus offline",
        "cpus online",
        "stir",
        "load",
        "stop",
        "bind",
        "retype",
        "prove",
        "settle",
        "swap off",
        "swap on",
    ]
)


@dataclass(frozen=True, slots=True)
class Rung:
    """A rung: its name, what holds on it, and what is done on the way up and down."""

    name: str
    holds: str
    up: tuple[Act, ...]
    down: tuple[Act, ...]


# fmt: off
LADDER: tuple[Rung, ...] = (
    Rung("online", "the memory that devices bring is online",
         up=("memory online",),
         down=()),
    Rung("cpuless", "the slow node has no CPU online",
         up=("cpus offline", "cpus online", "stir"),
         down=()),
    Rung("parameters", "limits, thresholds and concurrency are set",
         up=(Put("limit_mt_num"), Put("limit_chans"), Put("dsa_copy_threshold"),
             Put("cpu_multi_copy_threshold"), Put("migrate_copy_calibrate"),
             Put("migrate_engine_reasons"), Put("migrate_batch_pages"),
             Put("migrate_batch_usecs"), Put("use_concur_to_compact"),
             Put("use_concur_to_demote"), Put("use_concur_for_htmm"),
             Put("migrate_batch_reasons")),
         down=()),
    Rung("queues", "the IOMMU is as it is to be, the work queues are configured and enabled",
         up=("bind", "stop", "retype", "load"),
         down=()),
    Rung("initialised", "the kernel holds its DMA channels",
         up=(Put("dsa_state"),),
         down=(Put("dsa_state", 0),)),
    Rung("evidence", "channels in use and a clean kernel log prove it",
         up=("prove",),
         down=("settle",)),
    Rung("engine", "the engine copies pages",
         up=(Put("cpu_multi_copy_pages"), Put("use_dsa_copy_pages")),
         down=(Put("use_dsa_copy_pages", 0), Put("cpu_multi_copy_pages", 0))),
    Rung("memory", "watermarks, compaction and huge pages are set",
         up=(Put("watermark_scale_factor"), Put("watermark_boost_factor"),
             Put("compaction_proactiveness"), Put("zone_reclaim_mode"), Put("thp_enabled"),
             Put("thp_defrag")),
         down=()),
    Rung("tiering", "the kernel moves pages between the tiers",
         up=("swap off", Put("promote_rate_limit_MBps"), Put("numa_balancing"),
             Put("demote_scale_factor"), Put("demotion_enabled"), "swap on"),
         down=(Put("demotion_enabled", 0), Put("demote_scale_factor"),
               Put("numa_balancing", 0))),
)

DESCENTS: tuple[tuple[str, str, str], ...] = (
    # change                   highest rung   why
    ("cpus online",            "engine",      "tiering must not run while the slow node has CPUs"),
    ("watermark",              "engine",      "demotion begins when its watermark is computed"),
    ("cpus under threads",     "evidence",    "a seed kernel's threads lose bytes as CPUs change"),
    ("limit_chans",            "queues",      "the kernel counts its channels by it"),
    ("dsa_state off",          "queues",      "nothing may copy while the descriptors are freed"),
    ("dsa_state stale",        "queues",      "dsa_state reads 1 but the channels are not held"),
    ("queues",                 "queues",      "a queue must have no client while it changes"),
    ("iommu",                  "queues",      "no driver may have a device while that changes"),
)
# fmt: on
