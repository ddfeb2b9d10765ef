# SPDX-License-Identifier: Apache-2.0
"""Stock kernels: what the shipped profiles do there, and that every knob of theirs comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsatier.apply.driver import Driver
from dsatier.apply.target import target
from dsatier.facts.knobs import KNOBS, KnobName
from dsatier.facts.observe.observer import observe
from dsatier.plan.model import Plan
from dsatier.plan.rehearsal import prepare
from dsatier.plan.requests import SetKnob
from dsatier.profile.load import from_texts
from dsatier.sim import spec
from dsatier.sim.host import SimHost

PROFILES = Path(__file__).parents[2] / "profiles"
STOCK = ("stock-6-1", "stock-6-12", "stock-7-2")
TIERING = ("tiering", "tiering-sockets")
EVERYTHING = """
version: 1
tiers: {nodes: auto}
tiering: {demotion_enabled: true, numa_balancing: 3, promote_rate_limit_MBps: 500}
memory:
  watermark_scale_factor: 200
  watermark_boost_factor: 0
  compaction_proactiveness: 0
  zone_reclaim_mode: 1
  thp_enabled: madvise
  thp_defrag: defer+madvise
"""


def shipped(host: str) -> SimHost:
    """Return a host that comes with dsatier."""
    return SimHost.of(spec.parse(spec.shipped_text(host)))


def text_of(profile: str) -> str:
    """Return a shipped profile."""
    return (PROFILES / f"{profile}.yaml").read_text(encoding="utf-8")


def planned(host: SimHost, text: str) -> Plan:
    """Return the plan of a profile on a host."""
    facts = observe(host)
    wanted = target(host.read, from_texts([("p.yaml", text)], facts), facts, None)
    return prepare(facts, wanted.desired)


def applied(host: SimHost, text: str) -> str:
    """Apply a profile; return what came of it."""
    facts = observe(host)
    outcome = Driver(host).apply(
        target(host.read, from_texts([("p.yaml", text)], facts), facts, None)
    )
    return outcome.result


def files(host: SimHost) -> dict[KnobName, str]:
    """Return what the files of all knobs say."""
    return {name: host.read(KNOBS[name].path) for name in observe(host).knobs if name in KNOBS}


@pytest.mark.parametrize("profile", ["cpu", "detach"])
@pytest.mark.parametrize("host", spec.shipped())
def test_a_host_is_let_go_of_and_copies_by_cpu_everywhere(host: str, profile: str) -> None:
    plan = planned(shipped(host), text_of(profile))
    assert plan.verdict == "ready", plan.findings


@pytest.mark.parametrize("profile", TIERING)
@pytest.mark.parametrize("name", STOCK)
def test_a_stock_kernel_tiers_and_comes_back(name: str, profile: str) -> None:
    host = shipped(name)
    before, swaps, offline = files(host), observe(host).swaps, observe(host).offline_cpus
    assert applied(host, text_of(profile)) == "changed"
    facts = observe(host)
    assert (facts.swaps, facts.offline_cpus) == (swaps, offline)
    assert facts.knobs["demotion_enabled"] == "1"
    assert facts.knobs["promote_rate_limit_MBps"] == "2000"
    assert Driver(host).rollback().result == "changed"
    assert files(host) == before
    assert host.harm == []


@pytest.mark.parametrize("name", STOCK)
def test_every_knob_goes_up_and_comes_back(name: str) -> None:
    host = shipped(name)
    before = files(host)
    assert applied(host, EVERYTHING) == "changed"
    after = files(host)
    assert {knob for knob in before if before[knob] != after[knob]} == {
        "demotion_enabled",
        "numa_balancing",
        "promote_rate_limit_MBps",
        "watermark_scale_factor",
        "watermark_boost_factor",
        "compaction_proactiveness",
        "zone_reclaim_mode",
        "thp_enabled",
        "thp_defrag",
    }
    assert after["thp_enabled"] == "always [madvise] never\n"
    assert after["thp_defrag"] == "always defer [defer+madvise] madvise never\n"
    assert Driver(host).rollback().result == "changed"
    assert files(host) == before
    assert host.harm == []


def test_the_rate_limit_is_there_before_anything_is_promoted() -> None:
    plan = planned(shipped("stock-6-1"), EVERYTHING)
    asked = [r for step in plan.steps for r in step.requests]
    limit = asked.index(SetKnob("promote_rate_limit_MBps", 500))
    assert limit < asked.index(SetKnob("numa_balancing", 3))
    assert [step.rung for step in plan.steps] == ["memory"] * 6 + ["tiering"] * 3


def test_a_limit_with_which_nothing_is_promoted_is_refused_and_named() -> None:
    host = shipped("stock-6-1")
    host.poke(KNOBS["promote_rate_limit_MBps"].path, "0\n")
    bare = "version: 1\ntiers: {nodes: auto}\ntiering: {numa_balancing: 2}\n"
    plan = planned(host, bare)
    assert [finding.name for finding in plan.findings] == ["promotion-can-go"]
    assert "promote_rate_limit_MBps" in plan.findings[0].remedy
    assert planned(host, EVERYTHING).verdict == "ready"


def test_a_second_socket_is_left_alone() -> None:
    host = shipped("stock-6-1")
    assert applied(host, text_of("tiering-sockets")) == "changed"
    assert observe(host).offline_cpus == ()
    plan = planned(shipped("stock-6-1"), text_of("tpp-cpu"))
    remedies = [f.remedy for f in plan.findings if f.name == "tiers-apart"]
    assert remedies == [
        "write `tiers: {nodes: auto}` in the profile: in a lower tier, without CPUs: nodes 2-3"
    ]
