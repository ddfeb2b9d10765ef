# SPDX-License-Identifier: Apache-2.0
"""A profile's tiers reach all that asks for them: explanation, evidence, the way back."""

from __future__ import annotations

import pytest

from dsatier.apply.driver import Driver
from dsatier.apply.target import target
from dsatier.cli.explain import explain
from dsatier.facts.model import Facts
from dsatier.facts.observe.observer import observe
from dsatier.facts.tiers import USUAL, Tiers, pair, watermark
from dsatier.host.port import LogTail
from dsatier.plan.evidence import Watermark
from dsatier.plan.tiers import tiers_of
from dsatier.profile.load import from_texts
from dsatier.profile.loaded import Loaded
from dsatier.sim.host import SimHost
from tests.sim.simhosts import host
from tests.support.build import marked

TURNED = pair(1, 0)
NODES = [{"memory": 16, "used": 2}, {"cpus": "0-7", "memory": 16, "used": 1}]
"""Node 0 is the slow one, without CPUs."""
PROFILE = """
version: 1
tiers: {fast_node: 1, slow_node: 0}
tiering: {numa_balancing: 2, demote_scale_factor: 300, demotion_enabled: true}
"""


def loaded(text: str, facts: Facts) -> Loaded:
    """Return a profile for the host of ``facts``."""
    return from_texts([("p.yaml", text)], facts)


def turned() -> SimHost:
    """Return a host with the fast node behind the slow one."""
    return host(nodes=NODES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version: 1\n", USUAL),
        ("version: 1\ntiers: {slow_node: 1, cpuless: true}\n", USUAL),
        ("version: 1\ntiers: {slow_node: 2}\n", pair(0, 2)),
        ("version: 1\ntiers: {fast_node: 1, slow_node: 0}\n", TURNED),
    ],
)
def test_a_node_that_is_not_named_is_the_usual_one(text: str, expected: Tiers) -> None:
    assert tiers_of(loaded(text, observe(host())).profile, observe(host())) == expected


@pytest.mark.parametrize(("slow", "live"), [(0, "true"), (1, "false"), (7, None)])
def test_explain_looks_at_the_slow_node_of_the_profile(slow: int, live: str | None) -> None:
    facts = observe(turned())
    fast = 1 if slow != 1 else 0
    profile = f"version: 1\ntiers: {{fast_node: {fast}, slow_node: {slow}, cpuless: true}}\n"
    assert explain("tiers.cpuless", loaded(profile, facts), facts).live == live


def test_the_watermark_that_proves_is_that_of_the_fast_node() -> None:
    facts = marked(marked(observe(turned()), 0, 0), 900, 1)
    clean = LogTail((), complete=True)
    assert Watermark(TURNED).missing(facts, clean) is None
    assert Watermark(USUAL).missing(facts, clean) == "demotion watermark of node 0 is 0"


def test_a_host_whose_tiers_are_turned_is_brought_up_and_back() -> None:
    sim = turned()
    facts = observe(sim)
    driver = Driver(sim)
    outcome = driver.apply(target(sim.read, loaded(PROFILE, facts), facts, None))
    assert outcome.result == "changed", outcome.message
    assert outcome.record is not None
    assert outcome.record.tiers == TURNED
    after = observe(sim)
    assert (watermark(after, USUAL), bool(watermark(after, TURNED))) == (0, True)
    assert driver.rollback().result == "changed"
