# SPDX-License-Identifier: Apache-2.0
"""What the ladder and its descents must bring about, on made-up facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dsatier.facts.knobs import ENGINES, KNOBS, KnobName
from dsatier.facts.model import Facts, IommuGroup, Unbound
from dsatier.facts.tiers import USUAL
from dsatier.plan.evidence import CleanLog, Held
from dsatier.plan.ladder import DESCENTS, LADDER, Rung
from dsatier.plan.model import Desired, NodeMemory, Plan, of_tiers
from dsatier.plan.planner import descent, plan
from dsatier.plan.projection import project
from dsatier.plan.requests import BindDevice, Request, SetKnob, StopDevice, device_of
from dsatier.plan.short_form import expand
from dsatier.profile.model import QueueShape
from tests.support import build
from tests.support.scenarios import LIVE, OURS, cpuless, knobs

Descents = tuple[tuple[str, str, str], ...]


@dataclass(frozen=True)
class Change:
    """A change, and the rung that it needs the host to come down to; None for no descent."""

    name: str
    facts: Facts
    desired: Desired
    rung: str | None


def named(values: Mapping[str, int]) -> dict[KnobName, int]:
    """Return values of knobs as what they are: a misspelt one is an error here."""
    assert set() == set(values) - set(KNOBS)
    return {name: values[name] for name in KNOBS if name in values}


def wants(**values: int) -> Desired:
    """A desired state of knobs."""
    return Desired(knobs=named(values))


def dsa(**values: int) -> Desired:
    """A desired state with the DSA live."""
    return Desired(knobs={**ENGINES["dsa"], **named(values)})


def threaded(family: str) -> Facts:
    """A host whose CPU threads copy."""
    return knobs(build.facts(family), cpu_multi_copy_pages=1)


def tiered(host: Facts) -> Facts:
    """The host with tiering on."""
    host = knobs(cpuless(host), numa_balancing=2, demotion_enabled=1, demote_scale_factor=300)
    return build.marked(host, 900)


def stale(host: Facts) -> Facts:
    """The host with its channels taken away."""
    return replace(host, channels=tuple(replace(c, in_use=0) for c in host.channels))


OTHER_QUEUES = expand(QueueShape(8, size=64), OURS.devices, driver_names=True)
SAME_QUEUES = expand(QueueShape(8), OURS.devices, driver_names=True)
BEHIND = build.grouped(LIVE["ours"], "DMA")
ONE_OFF = project(BEHIND, StopDevice("dsa7"), USUAL)
AT_REST = build.grouped(build.queued(OURS))
CPUS = tuple(range(16, 24))
BACK = of_tiers(USUAL, CPUS)

CHANGES: tuple[Change, ...] = (
    Change("threshold", LIVE["ours"], dsa(dsa_copy_threshold=12), None),
    Change("threshold under tiering", tiered(LIVE["seed"]), dsa(dsa_copy_threshold=12), None),
    Change("concurrency", LIVE["ours"], dsa(use_concur_to_demote=1), None),
    Change("limit_mt_num", threaded("ours"), wants(limit_mt_num=7), None),
    Change("limit_chans", LIVE["ours"], dsa(limit_chans=4), "queues"),
    Change("limit_chans, seed", tiered(LIVE["seed"]), dsa(limit_chans=4), "queues"),
    Change("limit_chans at rest", build.queued(OURS), dsa(limit_chans=4), None),
    Change("the same limit_chans", LIVE["ours"], dsa(limit_chans=8), None),
    Change("queues", LIVE["ours"], replace(dsa(), queues=OTHER_QUEUES), "queues"),
    Change("a device too many", build.live(OURS, 4), replace(dsa(), stopped=("dsa7",)), "queues"),
    Change("an IOMMU group", BEHIND, replace(dsa(), iommu={"dsa0": "identity"}), "queues"),
    Change(
        "an IOMMU group of a device that is off",
        ONE_OFF,
        Desired(iommu={"dsa7": "identity"}),
        "queues",
    ),
    Change("the same type", BEHIND, replace(dsa(), iommu={"dsa0": "DMA"}), None),
    Change("an IOMMU group at rest", AT_REST, Desired(iommu={"dsa0": "identity"}), None),
    Change("the same queues", LIVE["ours"], replace(dsa(), queues=SAME_QUEUES), None),
    Change("queues at rest", OURS, replace(dsa(), queues=SAME_QUEUES), None),
    Change("to the CPU", LIVE["ours"], wants(**ENGINES["cpu"]), "queues"),
    Change("to threads", LIVE["seed"], wants(**ENGINES["multithread"]), "queues"),
    Change("engine off alone", LIVE["ours"], wants(use_dsa_copy_pages=0), None),
    Change("from threads", knobs(build.queued(OURS), cpu_multi_copy_pages=1), dsa(), None),
    Change("a start that failed", stale(LIVE["ours"]), dsa(), "queues"),
    Change("CPUs go", LIVE["ours"], replace(dsa(), cpuless=True), None),
    Change("CPUs go under threads, seed", threaded("seed"), Desired(cpuless=True), "evidence"),
    Change("CPUs go under threads, ours", threaded("ours"), Desired(cpuless=True), None),
    Change(
        "CPUs come under threads, seed",
        cpuless(threaded("seed")),
        Desired(cpus_online=BACK),
        "evidence",
    ),
    Change(
        "a demotion target under threads, seed",
        build.aimless(cpuless(threaded("seed"))),
        wants(demotion_enabled=1),
        "evidence",
    ),
    Change(
        "a demotion target, seed",
        build.aimless(cpuless(LIVE["seed"])),
        wants(demotion_enabled=1),
        None,
    ),
    Change("CPUs come", cpuless(LIVE["ours"]), Desired(cpus_online=BACK), None),
    Change("CPUs come under tiering", tiered(OURS), Desired(cpus_online=BACK), "engine"),
    Change("tiering off", tiered(LIVE["ours"]), wants(numa_balancing=0, demotion_enabled=0), None),
    Change("tiering on", cpuless(LIVE["ours"]), wants(numa_balancing=2), None),
    Change(
        "tiering back under demotion",
        knobs(tiered(LIVE["ours"]), numa_balancing=0),
        wants(numa_balancing=2, demotion_enabled=1),
        "engine",
    ),
)


ORDER = (
    *("online", "cpuless", "parameters", "queues", "initialised", "evidence", "engine", "memory"),
    "tiering",
)
"""The contract's order on the way up; the way down is the other way round."""
MEMORY: dict[KnobName, int] = {
    "watermark_scale_factor": 100,
    "watermark_boost_factor": 0,
    "compaction_proactiveness": 0,
    "zone_reclaim_mode": 1,
    "thp_enabled": 1,
    "thp_defrag": 2,
}
PARAMETERS: dict[KnobName, int] = {
    "limit_chans": 4,
    "dsa_copy_threshold": 12,
    "cpu_multi_copy_threshold": 64,
    "migrate_copy_calibrate": 1,
    "migrate_engine_reasons": 800,
    "migrate_batch_reasons": 768,
    "migrate_batch_pages": 1024,
    "migrate_batch_usecs": 0,
}
EVERYTHING = Desired(
    memory=(NodeMemory(2),),
    cpuless=True,
    knobs={
        **ENGINES["dsa"],
        **PARAMETERS,
        "numa_balancing": 2,
        "demotion_enabled": 1,
        "promote_rate_limit_MBps": 2000,
        **MEMORY,
    },
    queues=SAME_QUEUES,
)
NOTHING = wants(**ENGINES["cpu"], numa_balancing=0, demotion_enabled=0)


def mistakes(ladder: tuple[Rung, ...] = LADDER, descents: Descents = DESCENTS) -> list[str]:
    """Return which changes come down otherwise than they need to."""
    wrong = []
    for one in CHANGES:
        found = descent(one.facts, one.desired, ladder, descents)
        if found != one.rung:
            wrong.append(f"{one.name}: comes down to {found}, not {one.rung}")
    for family in ("ours", "seed"):
        way = plan(build.queued(build.facts(family)), dsa(), ladder=ladder, descents=descents)
        if not proven(way):
            wrong.append(f"{family}: the engine goes live without proof of its start")
        if not logged(way):
            wrong.append(f"{family}: the start is proven without the kernel log")
    back = plan(LIVE["seed"], wants(**ENGINES["cpu"]), ladder=ladder, descents=descents)
    if not settles(back):
        wrong.append("seed: descriptors are freed without a wait")
    brings = build.bringing(OURS)
    up = rungs(plan(brings, EVERYTHING, ladder=ladder, descents=descents))
    if up != ORDER:
        wrong.append(f"the way up goes over {up}")
    way = plan(OURS, EVERYTHING, ladder=ladder, descents=descents)
    if not 0 < place(way, "promote_rate_limit_MBps", 2000) < place(way, "numa_balancing", 2):
        wrong.append("promotion begins before its limit is there")
    written = MEMORY | PARAMETERS
    wrong += [f"{n} is not written" for n, v in written.items() if not place(way, n, v)]
    if (past := past_iommu(ladder, descents)) != PAST_IOMMU:
        wrong.append(f"a device goes past the IOMMU by {past}")
    down = rungs(plan(tiered(LIVE["seed"]), NOTHING, ladder=ladder, descents=descents))
    if down != ("tiering", "engine", "evidence", "initialised"):
        wrong.append(f"the way down goes over {down}")
    return wrong


LOOSE = Unbound("0000:e7:01.0", IommuGroup("9", "identity"))
PAST_IOMMU = ["StopDevice", "SetIommu", "LoadDevice", BindDevice(LOOSE.pci, "9", "DMA")]


def past_iommu(
    ladder: tuple[Rung, ...], descents: tuple[tuple[str, str, str], ...]
) -> list[str | Request]:
    """Return what is done to a device that goes past the IOMMU, and to one without a driver."""
    host = replace(build.grouped(build.queued(OURS), "DMA"), unbound=(LOOSE,))
    wanted = Desired(iommu={"dsa0": "identity"}, bound={LOOSE.pci: "DMA"})
    way = plan(host, wanted, ladder=ladder, descents=descents)
    asked = [request for step in way.steps for request in step.requests]
    back = [request for request in asked if isinstance(request, BindDevice)]
    return [*(type(one).__name__ for one in asked if device_of(one) == "dsa0"), *back]


def rungs(way: Plan) -> tuple[str, ...]:
    """Return the rungs of a plan's steps, in order."""
    return tuple(dict.fromkeys(step.rung for step in way.steps))


def place(way: Plan, knob: KnobName, value: int) -> int:
    """Return the number of the step that writes a knob, 0 where none does."""
    request = SetKnob(knob, value)
    return next((step.number for step in way.steps if request in step.requests), 0)


def proven(way: Plan) -> bool:
    """Tell whether channels are counted between the start and the engine going live."""
    start, use = place(way, "dsa_state", 1), place(way, "use_dsa_copy_pages", 1)
    between = [step for step in way.steps if start < step.number < use]
    return any(isinstance(e, Held) and e.channels for step in between for e in step.evidence)


def logged(way: Plan) -> bool:
    """Tell whether the kernel log is looked at between the start and the engine going live."""
    start, use = place(way, "dsa_state", 1), place(way, "use_dsa_copy_pages", 1)
    between = [step for step in way.steps if start < step.number < use]
    return any(isinstance(e, CleanLog) for step in between for e in step.evidence)


def settles(way: Plan) -> bool:
    """Tell whether there is a wait between the engine going off and the release."""
    off, release = place(way, "use_dsa_copy_pages", 0), place(way, "dsa_state", 0)
    return any(step.settle >= 10 for step in way.steps if off < step.number < release)
