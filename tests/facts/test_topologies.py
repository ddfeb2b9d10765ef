# SPDX-License-Identifier: Apache-2.0
"""Hosts as people have shown them: the kinds of their nodes, the pairs, what is in the way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from dsatier.cli.main import main
from dsatier.facts.classification import pairs, sorts
from dsatier.facts.model import Facts
from dsatier.facts.observe.observer import observe
from dsatier.facts.tiers import Tiers
from dsatier.host.files import FileHost
from dsatier.plan.desired import from_profile
from dsatier.plan.model import Plan
from dsatier.plan.rehearsal import prepare
from dsatier.profile.load import from_texts
from tests.support.topologies import TOPOLOGIES

TIERING = "tiering: {demotion_enabled: true, numa_balancing: 2}\n"
AUTO = f"version: 1\ntiers: {{nodes: auto}}\n{TIERING}"


@dataclass(frozen=True)
class Expected:
    """What is found of a host: the kind of each node, its tiers, and the blockers of tiering."""

    kinds: str
    """One letter a node: fast, slow, hbm, empty, unknown."""
    tiers: Tiers
    guessed: tuple[int, ...] = ()
    """Slow nodes of which nothing tells what they are near."""
    blockers: tuple[str, ...] = ()


def unknown(*nodes: int, fast: tuple[int, ...]) -> Expected:
    """A host of which some nodes must be named."""
    kinds = "f" * len(fast) + "u" * len(nodes)
    lacks = (*("nodes-known" for _ in nodes), "tiers-exist")
    return Expected(kinds, Tiers(fast, (), unknown=nodes), blockers=tuple(sorted(lacks)))


FOUR = (0, 1, 2, 3)
EXPECTED: dict[str, Expected] = {
    "A": Expected("ffss", Tiers((0, 1), (2, 3), (0, 1))),
    "B": unknown(2, 3, fast=(0, 1)),
    "C": Expected("ffs", Tiers((0, 1), (2,), (0,)), guessed=(2,)),
    "D": Expected("ffffss", Tiers(FOUR, (4, 5), (0, 2)), guessed=(4, 5)),
    "E": unknown(2, 3, fast=(0, 1)),
    "F": unknown(*range(8, 16), fast=tuple(range(8))),
    "G": unknown(2, 3, fast=(0, 1)),
    "H": Expected(
        "ffhhsss",
        Tiers((0, 1), (6, 8, 9), (0, 0, 1), (2, 4)),
        guessed=(6, 8, 9),
    ),
    "I": Expected("fs", Tiers((0,), (1,), (0,))),
    "J": Expected("effe", Tiers((1, 2), ()), blockers=("tiers-exist",)),
    "K": Expected("ffffhhhh", Tiers(FOUR, (), hbm=(4, 5, 6, 7)), blockers=("tiers-exist",)),
    "L": Expected("f" * 8, Tiers(tuple(range(8)), ()), blockers=("tiers-exist",)),
}


def facts(name: str, root: Path) -> Facts:
    """Return what is observed of a host."""
    topology = next(t for known, t in TOPOLOGIES.items() if known.startswith(f"{name}:"))
    topology.lay(root)
    return observe(FileHost(str(root)))


def planned(text: str, found: Facts) -> Plan:
    """Return the plan of a profile."""
    profile = from_texts([("p.yaml", text)]).profile
    assert profile is not None
    return prepare(found, from_profile(profile, found))


@pytest.mark.parametrize("name", EXPECTED)
def test_each_node_is_told(name: str, tmp_path: Path) -> None:
    found = facts(name, tmp_path)
    expected = EXPECTED[name]
    assert "".join(sort.kind[0] for sort in sorts(found)) == expected.kinds
    plan = planned(AUTO, found)
    assert plan.desired.tiers == expected.tiers
    guessed = pairs(found, expected.tiers.fast, expected.tiers.slow)
    assert tuple(pair.slow for pair in guessed if pair.guess) == expected.guessed
    blockers = tuple(sorted(f.name for f in plan.findings if f.level == "blocker"))
    assert blockers == expected.blockers
    assert plan.verdict == ("refused" if blockers else "ready")


def test_every_host_is_expected() -> None:
    assert sorted(EXPECTED) == [name[0] for name in TOPOLOGIES]


def test_a_distance_of_255_pairs_no_node(tmp_path: Path) -> None:
    found = facts("G", tmp_path)
    plan = planned(f"version: 1\ntiers: {{nodes: {{slow: [2, 3]}}}}\n{TIERING}", found)
    assert plan.desired.tiers == Tiers((0, 1), (2, 3), (0, 1))
    assert plan.verdict == "ready"


def test_a_node_that_is_named_is_what_its_name_says(tmp_path: Path) -> None:
    found = facts("E", tmp_path)
    text = f"version: 1\ntiers: {{nodes: {{slow: [3], near: [1], hbm: [2]}}}}\n{TIERING}"
    assert planned(text, found).desired.tiers == Tiers((0, 1), (3,), (1,), (2,))


def test_boot_memory_in_the_tier_of_dram_is_refused_with_what_helps(tmp_path: Path) -> None:
    found = facts("B", tmp_path)
    plan = planned(f"version: 1\ntiers: {{nodes: {{slow: [2, 3]}}}}\n{TIERING}", found)
    assert [(f.name, f.where) for f in plan.findings] == [
        ("tiers-apart", "node 2"),
        ("tiers-apart", "node 3"),
    ]
    assert "efi=nosoftreserve" in plan.findings[0].remedy


@pytest.mark.parametrize("tail", ["", TIERING])
def test_a_second_socket_is_not_taken_where_cxl_memory_is_there(tail: str, tmp_path: Path) -> None:
    found = facts("A", tmp_path)
    plan = planned(f"version: 1\ntiers: {{slow_node: 1, cpuless: true}}\n{tail}", found)
    assert (plan.verdict, plan.steps) == ("refused", ())
    first = next(f for f in plan.findings if f.name == "tiers-apart")
    assert (first.where, first.found) == ("node 1", "tier 4 for it, and 4 for node 0")
    assert first.remedy == (
        "write `tiers: {nodes: auto}` in the profile: in a lower tier, without CPUs: nodes 2-3"
    )


def test_the_remedy_of_a_second_socket_is_a_drop_in_that_leads_on(tmp_path: Path) -> None:
    found = facts("A", tmp_path)
    loaded = from_texts(
        [
            ("p.yaml", f"version: 1\ntiers: {{slow_node: 1, cpuless: true}}\n{TIERING}"),
            ("90-site.yaml", "version: 1\ntiers: {nodes: auto}\n"),
        ]
    )
    assert loaded.profile is not None, loaded
    plan = prepare(found, from_profile(loaded.profile, found))
    assert (plan.verdict, plan.desired.cpuless) == ("ready", False)
    assert [step.rung for step in plan.steps] == ["tiering", "tiering"]


def test_the_tiers_of_a_second_socket_with_no_tier_shown(tmp_path: Path) -> None:
    found = facts("I", tmp_path)
    assert planned(f"version: 1\n{TIERING}", found).desired.tiers == Tiers((0,), (1,), (0,))


def test_explain_tells_why_a_node_is_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts("A", tmp_path)
    profile = tmp_path / "p.yaml"
    profile.write_text(AUTO, encoding="utf-8")
    at = ("--root", str(tmp_path), "-p", str(profile))
    assert main(["explain", "tiers.nodes", *at]) == 0
    said = capsys.readouterr().out
    assert "node 3 slow: memory tier 22, and 4 for DRAM" in said
    assert main(["explain", "tiers.nodes.near", *at]) == 0
    assert "2 near 0: distance 14, 3 near 1: distance 14" in capsys.readouterr().out
