# SPDX-License-Identifier: Apache-2.0
"""Rules across the fields of a profile."""

from __future__ import annotations

import dataclasses
import re
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profile_strategies import PROFILES

from dsatier.profile import rules
from dsatier.profile.check import check_text
from dsatier.profile.model import DriftPolicy


def fields(data: dict[str, Any], *, whole: bool = True) -> list[str]:
    found = rules.broken(data, lambda path, key: ("f", 1, 1), whole=whole)
    return [problem.field for problem in found]


DSA = {"kind": "dsa"}
FACTOR = {"demote_scale_factor": 9}


@pytest.mark.parametrize(
    ("data", "field"),
    [
        ({"match": {"hostname": ["a", "b["]}}, "match.hostname[1]"),
        ({"match": {"release": [" a"]}}, "match.release[0]"),
        ({"match": {"cpu_model": ["[!]"]}}, "match.cpu_model[0]"),
        ({"match": {"numa": {"nodes": 2, "cpuless_nodes": 2}}}, "match.numa.cpuless_nodes"),
        ({"tiers": {"fast_node": 3, "slow_node": 3}}, "tiers.slow_node"),
        ({"tiers": {"fast_node": 1}}, "tiers.fast_node"),
        ({"tiers": {"slow_node": 0}}, "tiers.slow_node"),
        ({"tiers": {"cpuless": True}}, "tiers.cpuless"),
        ({"tiers": {"nodes": "auto", "cpuless": True}}, "tiers.cpuless"),
        ({"tiers": {"nodes": {"slow": "auto"}, "cpuless": True}}, "tiers.cpuless"),
        ({"tiers": {"nodes": "auto", "slow_node": 2}}, "tiers.slow_node"),
        ({"tiers": {"nodes": {"fast": [0, 1], "slow": [1]}}}, "tiers.nodes.slow[0]"),
        ({"tiers": {"nodes": {"slow": [2], "hbm": [3, 2]}}}, "tiers.nodes.hbm[1]"),
        ({"tiers": {"online": {"nodes": [2, 3, 2]}}}, "tiers.online.nodes[2]"),
        ({"tiers": {"nodes": {"near": [0]}}}, "tiers.nodes.near"),
        ({"tiers": {"nodes": {"slow": [2, 3], "near": [0]}}}, "tiers.nodes.near"),
        (
            {"tiers": {"nodes": {"fast": [0], "slow": [2, 3], "near": [0, 1]}}},
            "tiers.nodes.near[1]",
        ),
        ({"engine": {**DSA, "work_queues": {"file": "etc/a"}}}, "engine.work_queues.file"),
        (
            {"engine": {**DSA, "work_queues": {"devices": ["dsa0", "dsa1", "dsa0"]}}},
            "engine.work_queues.devices[2]",
        ),
        (
            {"engine": {**DSA, "work_queues": {"devices": ["iax1"]}}},
            "engine.work_queues.devices[0]",
        ),
        (
            {"engine": {**DSA, "limit_chans": 3, "work_queues": {"devices": 2}}},
            "engine.limit_chans",
        ),
        (
            {"engine": {**DSA, "limit_chans": 5, "work_queues": {"devices": 2, "queues": 2}}},
            "engine.limit_chans",
        ),
        ({"tiering": {"numa_balancing": 1, **FACTOR}}, "tiering.demote_scale_factor"),
        ({"tiering": {"numa_balancing": 0, **FACTOR}}, "tiering.demote_scale_factor"),
        ({"drift": {"interval": 3600}}, "drift.interval"),
        ({"drift": {"fights": 100}}, "drift.fights"),
        ({"drift": {"window": 59.5}}, "drift.window"),
        ({"match": {"abi": ["none"]}, "engine": DSA}, "engine.kind"),
        ({"match": {"abi": ["none"]}, "engine": {"kind": "multithread"}}, "engine.kind"),
        (
            {"match": {"abi": ["none"]}, "concurrency": {"use_concur_to_demote": True}},
            "concurrency.use_concur_to_demote",
        ),
        (
            {"match": {"abi": ["none"]}, "tiering": {"demote_scale_factor": 1}},
            "tiering.demote_scale_factor",
        ),
        ({"match": {"abi": ["seed"]}, "engine": {**DSA, "limit_chans": 6}}, "engine.limit_chans"),
        (
            {"match": {"abi": ["seed"]}, "engine": {"kind": "multithread", "limit_mt_num": 7}},
            "engine.limit_mt_num",
        ),
    ],
)  # fmt: skip
def test_refused(data: dict[str, Any], field: str) -> None:
    assert fields(data) == [field]


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"tiers": {"fast_node": 1, "slow_node": 0}},
        {"tiers": None, "engine": None, "match": None, "drift": None},
        {"engine": {**DSA, "limit_chans": 4, "work_queues": {"devices": 2, "queues": 2}}},
        {"engine": {**DSA, "limit_chans": 8, "work_queues": {"file": "/etc/a"}}},
        {"engine": {**DSA, "limit_chans": 6}, "match": {"abi": ["seed", "ours"]}},
        {"tiering": {"demote_scale_factor": 9}},
        {"tiering": {"demote_scale_factor": 9, "numa_balancing": 2}},
        {"tiering": {"numa_balancing": 1}},
        {"drift": {"interval": 3600, "policy": "report"}},
        {"drift": {"interval": 3600, "window": 7200}},
        {"drift": {"interval": None, "fights": None}},
        {"match": {"abi": ["none"]}, "engine": {"kind": "cpu"}},
        {"match": {"hostname": ["[]a]", "[!]]*", "a]"]}},
    ],
)
def test_taken(data: dict[str, Any]) -> None:
    assert fields(data) == []


@pytest.mark.parametrize(
    "data",
    [{"tiers": {"fast_node": 1}}, {"tiers": {"slow_node": 0}}, {"drift": {"interval": 3600}}],
)
def test_defaults_do_not_count_in_a_drop_in(data: dict[str, Any]) -> None:
    assert fields(data, whole=False) == []


def test_rules_pass_over_what_is_of_the_wrong_shape() -> None:
    text = "version: 1\nmatch: {numa: {nodes: {}, cpuless_nodes: 0}}\ntiers: {fast_node: [1]}\n"
    assert [p.field for p in check_text(text, "f")] == ["match.numa.nodes", "tiers.fast_node"]
    text = "version: 1\nengine: {kind: x, work_queues: {devices: [1]}}\n"
    assert [p.field for p in check_text(text, "f")] == ["engine.kind"]


def test_rules_speak_up_beside_other_problems() -> None:
    text = "version: 1\nmatch: {hostname: ['a['], abi: 5}\ntiers: {fast_node: 1, slow_node: x}\n"
    assert [problem.field for problem in check_text(text, "f")] == [
        "match.hostname[0]",
        "match.abi",
        "tiers.slow_node",
    ]


def test_defaults_are_those_of_the_profile() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(DriftPolicy)}
    assert {**defaults, **rules.DRIFT} == defaults
    # The nodes' defaults are told in the profile's documentation alone: None is "not named".
    assert rules.NODES == {"fast_node": 0, "slow_node": 1}


@given(st.text(alphabet="a]![-", max_size=8))
def test_a_sane_glob_has_its_brackets_closed(glob: str) -> None:
    """fnmatch takes a '[' that is not closed as itself, and says nothing."""
    without_sets = re.sub(r"\[!?+\]?+[^\]]*\]", "", glob)
    assert ("[" in without_sets) == bool(rules.glob_fault(glob))


@pytest.mark.parametrize("glob", ["a[", "[", "[]", "[!]"])
def test_a_broken_glob_matches_its_own_text(glob: str) -> None:
    assert rules.glob_fault(glob)
    assert fnmatchcase(glob, glob)


@given(st.text(max_size=6) | st.from_regex(r"dsa[0-9]{1,4}", fullmatch=True))
def test_device_names(name: str) -> None:
    assert rules.is_device(name) == bool(re.fullmatch(r"dsa(0|[1-9][0-9]*)", name, re.ASCII))


@given(PROFILES)
def test_generated_profiles_break_no_rule(data: dict[str, Any]) -> None:
    assert fields(data) == []
    assert fields(data, whole=False) == []
