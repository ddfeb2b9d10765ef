# SPDX-License-Identifier: Apache-2.0
"""The profiles of the proof: those that are shipped, and generated ones."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from random import Random

from dsatier.profile import load
from dsatier.profile.model import (
    Concurrency,
    CpuEngine,
    DsaEngine,
    Engine,
    MultithreadEngine,
    NodeTiers,
    Online,
    Profile,
    QueueShape,
    Tiering,
    Tiers,
)
from tests.support.hosts import DEVICES, QUEUES

FOLDER = Path(__file__).parents[2] / "profiles"

TIERS = (None, Tiers(cpuless=True), Tiers(cpuless=False), Tiers())
CONCURRENCY = (
    None,
    Concurrency(use_concur_to_compact=True, use_concur_to_demote=True),
    Concurrency(use_concur_to_compact=False, use_concur_to_demote=False),
    Concurrency(use_concur_to_demote=True),
    Concurrency(use_concur_for_htmm=True),
    Concurrency(migrate_batch_reasons=("demotion", "damon")),
)
CONCURRENT = {
    "concurrent in its own way": Profile(
        version=1, concurrency=Concurrency(use_concur_for_htmm=True), engine=CpuEngine("cpu")
    )
}
"""What memtis alone can do."""
SHAPES = (
    None,
    QueueShape(devices=2, engines=1, queues=4),
    QueueShape(devices=2, engines=1, queues=2, size=8),
    QueueShape(devices=("dsa1",), engines=1, queues=4, size=32),
)
ENGINES: tuple[Engine | None, ...] = (
    None,
    CpuEngine("cpu"),
    *(MultithreadEngine("multithread", limit_mt_num=n) for n in (None, 1, 2, 3)),
    *(
        DsaEngine("dsa", limit_chans=chans, dsa_copy_threshold=threshold, work_queues=shape)
        for chans, threshold, shape in product((None, 1, 4, 5, 8), (None, 12), SHAPES)
    ),
)
TIERING = (
    None,
    Tiering(demotion_enabled=False, numa_balancing=0),
    Tiering(demotion_enabled=True, numa_balancing=2, demote_scale_factor=500, swap="off"),
    Tiering(demotion_enabled=True, swap="off"),
    Tiering(numa_balancing=1, swap="on"),
    Tiering(numa_balancing=2),
    Tiering(demotion_enabled=True, numa_balancing=3, swap="off"),
)


def shipped() -> dict[str, Profile]:
    """Return the shipped profiles by name, as they are."""
    found = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        loaded = load.from_texts([(str(path), path.read_text(encoding="utf-8"))])
        if loaded.profile is None:
            raise AssertionError(f"{path} gives no profile")
        found[path.stem] = loaded.profile
    return found


def fitted() -> dict[str, Profile]:
    """Return the shipped profiles with their eight queues on two devices instead of eight."""
    return {name: fit(profile) for name, profile in paired().items()}


def paired() -> dict[str, Profile]:
    """Return the shipped profiles for hosts whose slow node nothing tells of: it is named.

    Of the two for stock kernels one is enough: they differ in ``numa_balancing`` alone.
    """
    pair = Tiers(fast_node=0, slow_node=1, cpuless=True)
    return {
        name: replace(profile, tiers=pair) if profile.tiers and profile.tiers.nodes else profile
        for name, profile in shipped().items()
        if name != "tiering-sockets"
    }


def fit(profile: Profile) -> Profile:
    """Return a profile with its queues spread over the small host's devices."""
    engine = profile.engine
    if not isinstance(engine, DsaEngine) or not isinstance(engine.work_queues, QueueShape):
        return profile
    shape = QueueShape(devices=DEVICES, engines=1, queues=QUEUES, size=32)
    return replace(profile, engine=replace(engine, work_queues=shape))


def past_iommu(kind: str) -> dict[str, Profile]:
    """Return profiles that take devices past the IOMMU and back, for a kind of kernel."""
    profile = fitted()["tpp-dsa" if kind == "tpp" else "dsa"]
    assert isinstance(profile.engine, DsaEngine)
    assert isinstance(profile.engine.work_queues, QueueShape)
    shape = replace(profile.engine.work_queues, iommu="identity")
    past = replace(profile, engine=replace(profile.engine, work_queues=shape))
    cpu = Profile(version=1, engine=CpuEngine("cpu"))
    return {"past the IOMMU": past, "behind it": profile, "cpu": cpu}


def bringing() -> dict[str, Profile]:
    """Return profiles that bring memory online, tier with it, and name it no longer."""
    there = Tiers(nodes=NodeTiers(fast=(0, 1), slow=(2,)), online=Online((2,)))
    tiering = Tiering(demotion_enabled=True, numa_balancing=2, swap="off")
    return {
        "memory": Profile(version=1, tiers=Tiers(online=Online((2,)))),
        "memory and tiering": Profile(version=1, tiers=there, tiering=tiering),
        "cpu": Profile(version=1, engine=CpuEngine("cpu")),
    }


def generated(count: int, seed: int = 1) -> dict[str, Profile]:
    """Return ``count`` profiles; a seed always gives the same. Engines take turns."""
    random = Random(seed)
    found: dict[str, Profile] = {}
    engines = list(ENGINES)
    random.shuffle(engines)
    for number in range(count):
        found[f"g{seed}.{number}"] = Profile(
            version=1,
            tiers=random.choice(TIERS),
            concurrency=random.choice(CONCURRENCY),
            engine=engines[number % len(engines)],
            tiering=random.choice(TIERING),
        )
    return found
