# SPDX-License-Identifier: Apache-2.0
"""Memory that devices bring comes online as a profile says, is waited for, and stays."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from dsatier.apply.driver import Driver
from dsatier.apply.outcome import Outcome
from dsatier.apply.target import Target, target
from dsatier.cli.explain import explain
from dsatier.facts.model import Blocks
from dsatier.facts.observe.observer import observe
from dsatier.facts.tiers import Tiers
from dsatier.host.port import LogTail
from dsatier.plan.evidence import MemoryIs
from dsatier.plan.model import Desired, NodeMemory
from dsatier.plan.planner import PORTION
from dsatier.plan.rehearsal import prepare
from dsatier.plan.requests import OnlineMemory
from dsatier.profile.load import from_texts
from dsatier.sim import spec
from dsatier.sim.faults import (
    AnyFault,
    Crash,
    LateMemory,
    OtherWriter,
    PoisonedBlock,
    SimCrash,
)
from dsatier.sim.host import SimHost
from tests.support import build
from tests.support.scenarios import OURS

TIERING = "tiering: {demotion_enabled: true, numa_balancing: 2}"
AUTO = f"version: 1\ntiers: {{nodes: auto, online: {{nodes: auto}}}}\n{TIERING}\n"
FAST = {"cpus": "0-7", "memory": 16, "used": 2, "tier": 4}
CXL = {"memory": 8, "used": 0, "tier": 35, "device": "cxl", "blocks": "offline"}
BLOCKS = (16, 17, 18, 19)
"""Of node 1 on the host with these two nodes."""
CLEAN = LogTail((), complete=True)


def host(*slow: dict[str, Any], faults: tuple[AnyFault, ...] = ()) -> SimHost:
    """Return a stock host with one socket, and what a device brings."""
    description = {
        "version": 1,
        "kernel": {"release": "6.12.117+deb13-amd64", "kind": "stock"},
        "nodes": [FAST, *(slow or (CXL,))],
        "accel_config": None,
    }
    found = SimHost.of(spec.parse(json.dumps(description)))
    for fault in faults:
        found.inject(fault)
    return found


def wanted(sim: SimHost, text: str = AUTO) -> Target:
    facts = observe(sim)
    return target(sim.read, from_texts([("p.yaml", text)], facts), facts, None)


def applied(sim: SimHost, text: str = AUTO) -> Outcome:
    return Driver(sim).apply(wanted(sim, text))


def blocks(sim: SimHost, device: str = "dax1.0") -> Blocks | None:
    found = {one.id: one.blocks for one in observe(sim).memory_devices}
    return found[device]


def online(*nodes: int, zone: str = "movable") -> str:
    return f"version: 1\ntiers: {{online: {{nodes: {list(nodes)}, zone: {zone}}}}}\n"


def state(number: int) -> str:
    return f"/sys/devices/system/memory/memory{number}/state"


# -- it comes -----------------------------------------------------------------------


def test_memory_is_there_before_the_kernel_tiers() -> None:
    sim = host()
    outcome = applied(sim)
    assert ("changed", "every step is proven") == (outcome.result, outcome.message)
    assert outcome.plan is not None
    assert ["online", "tiering", "tiering"] == [step.rung for step in outcome.plan.steps]
    assert Tiers((0,), (1,), (0,)) == outcome.plan.desired.tiers
    (_, node) = observe(sim).nodes
    assert (8 << 30, 35) == (node.mem_total, node.tier)
    assert Blocks(2 << 30, movable=BLOCKS) == blocks(sim)
    assert [] == sim.harm
    assert "unchanged" == applied(sim).result


@pytest.mark.parametrize("slow", [CXL, CXL | {"device": "pmem"}])
def test_auto_brings_what_is_slow_memory(slow: dict[str, Any]) -> None:
    sim = host(slow)
    assert "changed" == applied(sim).result
    assert Blocks(2 << 30, movable=BLOCKS) == blocks(sim)


def test_auto_leaves_memory_that_may_be_fast() -> None:
    sim = host(CXL, CXL | {"device": "hmem"})
    outcome = applied(sim)
    assert "changed" == outcome.result
    assert Blocks(2 << 30, offline=(20, 21, 22, 23)) == blocks(sim, "dax2.0")
    assert outcome.plan is not None
    (told,) = outcome.plan.findings
    assert ("warning", "memory-untold", "dax2.0") == (told.level, told.name, told.where)
    assert "changed" == applied(sim, online(2)).result
    assert Blocks(2 << 30, movable=(20, 21, 22, 23)) == blocks(sim, "dax2.0")
    assert () == wanted(sim).extra


def test_nothing_comes_online_that_nobody_named() -> None:
    sim = host(CXL, CXL)
    assert "changed" == applied(sim, online(2)).result
    assert Blocks(2 << 30, offline=BLOCKS) == blocks(sim)
    without = f"version: 1\ntiers: {{nodes: {{slow: [2]}}}}\n{TIERING}\n"
    assert "changed" == applied(sim, without).result
    assert Blocks(2 << 30, offline=BLOCKS) == blocks(sim)


def test_the_zone_is_the_one_that_is_named() -> None:
    sim = host()
    assert "changed" == applied(sim, online(1, zone="kernel")).result
    assert Blocks(2 << 30, others=BLOCKS) == blocks(sim)


def test_many_blocks_come_some_at_a_time() -> None:
    sim = host(CXL | {"memory": 4 * PORTION})
    plan = prepare(observe(sim), wanted(sim, online(1)).desired)
    sizes = [len(r.blocks) for s in plan.steps for r in s.requests if isinstance(r, OnlineMemory)]
    assert [PORTION, PORTION] == sizes
    assert "changed" == applied(sim, online(1)).result
    assert Blocks(2 << 30, movable=tuple(range(16, 16 + 2 * PORTION))) == blocks(sim)


def test_a_block_that_others_took_offline_is_drift() -> None:
    sim = host()
    assert "changed" == applied(sim).result
    sim.poke(state(17), "offline\n")
    outcome = Driver(sim).reconcile(wanted(sim))
    assert "drift repaired: memory blocks 17 of dax1.0 online" == outcome.message
    assert Blocks(2 << 30, movable=BLOCKS) == blocks(sim)


# -- it is waited for ---------------------------------------------------------------


def test_a_device_that_comes_late_is_waited_for_and_told_of() -> None:
    sim = host(faults=(LateMemory("late-memory", 1, 20.0),))
    text = AUTO.replace("nodes: auto, on", "nodes: {slow: [1]}, on")
    outcome = applied(sim, text)
    assert "refused" == outcome.result
    assert "node 1: expected memory that a device brings, found not there yet" in outcome.message
    sim.sleep(20.0)
    assert "changed" == applied(sim, text).result


def test_after_a_boot_it_is_waited_for_again() -> None:
    sim = host(faults=(LateMemory("late-memory", 1, 20.0),))
    sim.sleep(20.0)
    assert "changed" == applied(sim).result
    sim.reboot()
    outcome = Driver(sim).reconcile(wanted(sim, online(1)))
    assert ("refused", True) == (outcome.result, "not there yet" in outcome.message)
    sim.sleep(20.0)
    assert "changed" == Driver(sim).reconcile(wanted(sim, online(1))).result


def test_who_waits_for_slow_memory_is_told_only_what_is_waited_for() -> None:
    """Which nodes are slow is known when it is there, and not before."""
    sim = host(faults=(LateMemory("late-memory", 1, 60.0),))
    outcome = applied(sim, AUTO.replace("online: {nodes: auto}", "online: {nodes: [1]}"))
    assert outcome.plan is not None
    assert ["memory-there"] == [finding.name for finding in outcome.plan.findings]


@pytest.mark.parametrize(
    ("driver", "found"),
    [("device_dax", "device_dax has it, for programs that map it"), ("", "no driver has it")],
)
def test_memory_that_kmem_does_not_have_is_left_and_told_of(driver: str, found: str) -> None:
    sim = host(CXL | {"driver": driver})
    outcome = applied(sim, online(1))
    assert "refused" == outcome.result
    assert f"expected dax1.0, as memory of the kernel's, found not there yet: {found}" in (
        outcome.message
    )
    assert [0] == [node.id for node in observe(sim).nodes]


def test_a_device_of_programs_beside_memory_that_is_there_stands_against_nothing() -> None:
    mapped = build.bringing(OURS, "device_dax")
    beside = build.bringing(OURS, movable=(64, 65))
    both = beside.memory_devices + mapped.memory_devices
    plan = prepare(replace(beside, memory_devices=both), Desired(memory=(NodeMemory(2),)))
    assert ("ready", (), ()) == (plan.verdict, plan.findings, plan.steps)


# -- others, and what breaks --------------------------------------------------------


def test_blocks_in_another_zone_are_left_there_and_told_of() -> None:
    sim = host(CXL | {"blocks": "normal"})
    outcome = applied(sim, online(1))
    assert "unchanged" == outcome.result
    assert outcome.plan is not None
    (told,) = outcome.plan.findings
    assert ("memory-zone", "4 of 4 online in another zone") == (told.name, told.found)
    assert Blocks(2 << 30, others=BLOCKS) == blocks(sim)


def test_a_block_that_others_bring_meanwhile_is_no_failure() -> None:
    class Meanwhile(SimHost):
        """Somebody else brings a block right before dsatier does."""

        def write(self, path: str, text: str, deadline: float) -> None:
            if path == state(17):
                self.poke(path, "online_movable\n")
            super().write(path, text, deadline)

    sim = Meanwhile(host().kernel)
    assert "changed" == applied(sim).result
    assert Blocks(2 << 30, movable=BLOCKS) == blocks(sim)


def test_a_block_that_others_bring_into_another_zone_is_told_of() -> None:
    evidence = MemoryIs("dax2.0", 2, (64, 65), "movable")
    host_of = build.bringing(OURS, movable=(64,), others=(65,))
    assert (
        "memory blocks 65 of dax2.0 are online in another zone: somebody else has brought them"
        == evidence.missing(host_of, CLEAN)
    )


def test_a_broken_page_costs_its_block_and_is_told_of() -> None:
    sim = host(faults=(PoisonedBlock("poisoned-block", 1, 2),))
    outcome = applied(sim)
    assert "reverted" == outcome.result
    assert "a page of the block is broken" in outcome.message
    assert outcome.message.endswith("the memory of dax1.0 is left online")
    assert Blocks(2 << 30, offline=(18,), movable=(16, 17, 19)) == blocks(sim)
    assert "changed" == applied(sim, f"version: 1\ntiers: {{nodes: auto}}\n{TIERING}\n").result


def test_a_writer_that_takes_memory_away_again_is_a_fight() -> None:
    sim = host()
    text = f"{AUTO}drift: {{fights: 2, interval: 10.0}}\n"
    assert "changed" == applied(sim, text).result
    sim.inject(OtherWriter("other-writer", state(17), "offline\n", every=1.0))
    said = []
    for _ in range(3):
        sim.sleep(2.0)
        said.append(Driver(sim).reconcile(wanted(sim, text)).message)
    assert said[-1].startswith("gave up on memory blocks 17 of dax1.0 online: repaired 2 times")


def test_an_agent_that_dies_on_the_way_leaves_what_has_come_and_goes_on() -> None:
    sim = host()
    sim.inject(Crash("crash", after=8))
    with pytest.raises(SimCrash):
        applied(sim)
    again = SimHost(sim.kernel)
    again.heal("crash")
    driver = Driver(again)
    assert "quarantined" == driver.recover().state
    driver.clear()
    assert "changed" == applied(again).result
    assert Blocks(2 << 30, movable=BLOCKS) == blocks(again)
    assert [] == again.harm


# -- it stays -----------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["rollback", "detach"])
def test_memory_stays_when_dsatier_goes_and_it_says_so(verb: str) -> None:
    sim = host()
    assert "changed" == applied(sim).result
    outcome = {"rollback": Driver(sim).rollback, "detach": Driver(sim).detach}[verb]()
    assert "changed" == outcome.result
    assert "dsatier no longer manages the host; the memory of dax1.0 is left online" == (
        outcome.message
    )
    assert Blocks(2 << 30, movable=BLOCKS) == blocks(sim)


def test_memory_stays_when_the_profile_names_it_no_longer() -> None:
    sim = host()
    assert "changed" == applied(sim).result
    assert "changed" == applied(sim, "version: 1\ntiering: {demotion_enabled: false}\n").result
    assert Blocks(2 << 30, movable=BLOCKS) == blocks(sim)


# -- evidence, explanation ----------------------------------------------------------


@pytest.mark.parametrize(
    ("blocks_", "expected"),
    [
        ({"movable": (64, 65)}, None),
        ({"offline": (65,), "movable": (64,)}, "memory blocks 65 of dax2.0 are offline"),
    ],
)
def test_evidence_is_of_every_block(blocks_: dict[str, Any], expected: str | None) -> None:
    evidence = MemoryIs("dax2.0", 2, (64, 65), "movable")
    assert expected == evidence.missing(build.bringing(OURS, **blocks_), CLEAN)


def test_evidence_is_of_node_and_tier_too() -> None:
    evidence = MemoryIs("dax2.0", 2, (64,), "movable")
    there = build.bringing(OURS, movable=(64,))
    assert "dax2.0 is not there, or kmem does not have it" == evidence.missing(OURS, CLEAN)
    fast, slow, new = there.nodes
    bare = replace(there, nodes=(fast, slow, replace(new, mem_total=0)))
    assert "node 2 has no memory" == evidence.missing(bare, CLEAN)
    tiered = replace(there, nodes=(replace(fast, tier=4), slow, new))
    assert "node 2 is in no memory tier" == evidence.missing(tiered, CLEAN)


def test_explain_tells_how_much_is_online() -> None:
    sim = host(CXL, CXL | {"driver": "device_dax"})
    facts = observe(sim)
    loaded = from_texts([("p.yaml", AUTO)], facts)
    assert (
        "node 1, dax1.0: 0 of 4 memory blocks online; node 2, dax2.0: device_dax has it"
        == explain("tiers.online.nodes", loaded, facts).live
    )
