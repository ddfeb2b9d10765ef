# SPDX-License-Identifier: Apache-2.0
"""Every reachable state of the simulated host, towards every profile."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from dsatier.facts.model import Unbound
from dsatier.facts.observe.observer import Observer
from dsatier.facts.tiers import USUAL
from dsatier.plan.ladder import LADDER
from dsatier.plan.model import Desired
from dsatier.plan.originals import originals
from dsatier.plan.projection import project
from dsatier.plan.rehearsal import prepare
from dsatier.plan.requests import SetIommu
from dsatier.plan.restore import cpu_only, not_restored
from dsatier.profile.model import DsaEngine, Profile, QueueShape
from tests.proof import exhaustive
from tests.proof.exhaustive import Job
from tests.proof.explore import (
    Coverage,
    Explorer,
    Tables,
    strayed,
    unforetold,
    unlike,
    unmet,
)
from tests.support import profiles
from tests.support.hosts import (
    BALANCING,
    DEMOTION,
    KINDS,
    SWAP,
    Start,
    behind,
    put,
    queues,
    small,
    starts,
    unfit_starts,
)

LACKING = {
    # memtis has no demote_scale_factor, and its numa_balancing goes to 1 only
    "memtis": {
        name: {"knobs-present", "values-in-range"}
        for name in ("tpp-cpu", "tpp-dsa", "tpp-multithread")
    }
    # neither research kernel limits promotion, and both need swap off
    | {"tiering": {"knobs-present", "values-in-range", "tiering-conditions"}},
    "tpp": {"tiering": {"knobs-present", "tiering-conditions"}},
}


@pytest.fixture(scope="module")
def explored() -> list[tuple[Job, Coverage]]:
    large = os.environ.get("DSATIER_PROOF") == "large"
    return [(job, coverage) for job, coverage, _ in exhaustive.run_all(large=large)]


def test_no_rule_is_broken(explored: list[tuple[Job, Coverage]], tell: list[str]) -> None:
    total = Coverage()
    for job, coverage in explored:
        tell.append(f"exhaustive: {job.kind}, {job.name}: {coverage}")
        total.add(coverage)
    tell.append(f"exhaustive: total: {total}")
    assert [] == [str(violation) for violation in total.violations]


def test_every_state_that_shipped_profiles_lead_to_was_explored(
    explored: list[tuple[Job, Coverage]],
) -> None:
    closed = [(job, c) for job, c in explored if job.name == "shipped profiles, closed"]
    assert set(KINDS) == {job.kind for job, _ in closed}
    for _, coverage in closed:
        assert 0 == coverage.edge
        assert coverage.states > 500
        assert coverage.plans == (len(profiles.fitted()) + 2) * coverage.states


def test_a_clean_host_refuses_shipped_profiles_only_for_what_it_lacks(
    explored: list[tuple[Job, Coverage]],
) -> None:
    for job, coverage in explored:
        if job.starts in ("clean", "eight") and not job.generated:
            assert LACKING.get(job.kind, {}) == coverage.refused


def test_shipped_profiles_are_never_refused_by_the_interlock(
    explored: list[tuple[Job, Coverage]],
) -> None:
    for job, coverage in explored:
        if not job.generated:
            assert 0 == coverage.refusals["interlock"]
            if job.starts != "harmed":
                assert 0 == coverage.refusals["no way back"]


def test_a_host_that_tiers_where_it_must_not_has_a_way_back_from_everything(
    explored: list[tuple[Job, Coverage]],
) -> None:
    """To all but the tiering, which is told; what is refused is refused for another reason."""
    unfit = [(job, coverage) for job, coverage in explored if job.starts == "unfit"]
    assert set(KINDS) == {job.kind for job, _ in unfit}
    for _, coverage in unfit:
        assert 0 == coverage.refusals["no way back"]
        assert coverage.paths > 0


def broken(kind: str, tables: Tables) -> set[str]:
    """Return the rules that an exploration with these tables finds broken."""
    start = Start("booted", small(kind), clean=True)
    found = Explorer(profiles.fitted(), tables, depth=0, stop_at=1).explore([start])
    return {violation.rule for violation in found.violations}


def test_the_exploration_sees_harm() -> None:
    """With the engine's rung at the bottom, and nobody to refuse it."""
    engine = next(rung for rung in LADDER if rung.name == "engine")
    others = tuple(rung for rung in LADDER if rung is not engine)
    assert "harm" in broken("tpp", Tables(guards=(), ladder=(engine, *others)))


def test_the_exploration_sees_a_plan_that_lies() -> None:
    """With nothing done on the way up to the engine's rung."""
    tables = Tables(ladder=tuple(replace(r, up=()) if r.name == "engine" else r for r in LADDER))
    assert "the plan does not lead there" in broken("ours", tables)


def test_the_exploration_sees_what_is_not_brought_back() -> None:
    """The knobs that are told are let pass, and no others."""
    start = next(start for start in unfit_starts("tpp") if start.name == "tiering on")
    before = originals(Observer(start.host).look(), USUAL, 0.0)
    assert "" == unlike(before, Observer(start.host).look(), ())
    for name in (DEMOTION, BALANCING, "limit_chans"):
        put(start.host, name, 0 if name.startswith("/") else 4)
    start.host.run(("swapoff", SWAP), 1.0)
    after = Observer(start.host).look()
    told = not_restored(before, after, USUAL)
    assert 1 == len(told)
    assert f"limit_chans is 4, was 8; swap {SWAP} off" == unlike(before, after, told)
    assert "demotion_enabled is 0, was 1" in unlike(before, after, ())


def test_the_exploration_sees_an_iommu_group_that_is_another() -> None:
    (start, *_) = behind("ours")
    facts = Observer(start.host).look()
    before = originals(facts, USUAL, 0.0)
    first, second = facts.devices
    request = SetIommu("dsa0", first.pci, "0", "identity")
    after = project(facts, request, USUAL)
    assert "" == unlike(before, facts, ())
    assert "the IOMMU group of dsa0 is identity, was DMA-FQ" == unlike(before, after, ())
    assert "" == unlike(before, after, ("the IOMMU group of dsa0 is left",))
    assert "the IOMMU group of dsa0 went from DMA-FQ to identity" == strayed(
        Desired(iommu={"dsa1": "identity"}), facts, after
    )
    assert "the IOMMU group of dsa1 is DMA-FQ, not identity" == unmet(
        Desired(iommu={"dsa0": "identity", "dsa1": "identity"}), after
    )
    assert "IOMMU groups are ['identity', 'DMA-FQ']" == unforetold(facts, after)
    loose = replace(after, devices=(second,), unbound=(Unbound(first.pci, first.group),))
    assert f"{first.pci} without a driver" == unmet(Desired(bound={first.pci: ""}), loose)


@pytest.mark.parametrize("kind", ["tpp", "memtis"])
def test_a_seed_never_takes_a_shared_queue(kind: str) -> None:
    """It would take the first free channel; a profile that leaves such a queue free is refused."""
    one = QueueShape(devices=("dsa1",), engines=1, queues=4)
    wanted = {
        "beside it": DsaEngine("dsa", limit_chans=4, work_queues=one),
        "in its place": DsaEngine("dsa", limit_chans=4, work_queues=replace(one, devices=2)),
    }
    found = Explorer(
        {name: Profile(version=1, engine=engine) for name, engine in wanted.items()}, depth=1
    ).explore(start for start in starts(kind) if start.name == "shared queues")
    assert [] == [str(violation) for violation in found.violations]
    assert {"channels-ours-alone"} == set(found.refusals)
    assert found.paths > 0


def test_reboot_required_on_a_seed_whose_start_failed() -> None:
    host = small("tpp")
    queues(0)(host)  # four queues for eight channels
    put(host, "dsa_state", 1)
    facts = Observer(host).look()
    plan = prepare(facts, cpu_only(facts, USUAL))
    assert "reboot-required" == plan.verdict
    assert ["dsa-can-be-freed"] == [finding.name for finding in plan.findings]
