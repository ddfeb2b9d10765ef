# SPDX-License-Identifier: Apache-2.0
"""What the kernel's package says of its interface, and what the agent takes it for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from dsatier.cli.explain import fields
from dsatier.facts.knobs import BATCHED, ENGINES, KNOBS, OFFERED, KnobName
from dsatier.profile.model import Reason

MANIFEST = Path(__file__).parents[2] / "kernel-src/abi/abi.json"
SHIPPED = json.loads(MANIFEST.read_text(encoding="utf-8"))
KNOWN = {knob["name"]: knob for knob in SHIPPED["knobs"]}
ELSEWHERE = {
    *(name for name, knob in KNOBS.items() if knob.mainline and name != "demotion_enabled"),
    *("dsa_async_mode", "dsa_sync_mode", "use_concur_for_htmm"),
}
"""Mainline's, and those that only a seed kernel has."""


def test_each_knob_is_told_once() -> None:
    assert len(SHIPPED["knobs"]) == len(KNOWN)


def test_every_knob_of_the_kernel_is_one_of_the_agent() -> None:
    assert set() == KNOWN.keys() - KNOBS.keys()


def test_every_knob_of_the_agent_can_be_declared() -> None:
    """By a field of its name, by the kind of an engine, or not, for the reason here."""
    declared = {field.rpartition(".")[2] for field in fields()}
    by_kind = {name for knobs in ENGINES.values() for name in knobs}
    never = {
        "dsa_async_mode": "it is faulty on every kernel that has it: it stays 0",
        "dsa_sync_mode": "a style of polling with nothing to choose it by",
    }
    assert never.keys() == KNOBS.keys() - declared - by_kind


def test_reasons_are_named_alike_everywhere() -> None:
    assert tuple(BATCHED) == get_args(Reason)
    assert set(OFFERED) == {*get_args(Reason), "memory_failure", "numa_misplaced", "hugetlb"}
    assert KNOWN["migrate_batch_reasons"]["max"] == sum(BATCHED.values())
    assert KNOWN["migrate_engine_reasons"]["max"] == sum(OFFERED.values())


def test_every_knob_of_the_agent_is_in_the_manifest() -> None:
    assert ELSEWHERE == KNOBS.keys() - KNOWN.keys()


@pytest.mark.parametrize("name", sorted(KNOBS.keys() & KNOWN.keys()))
def test_agent_and_kernel_mean_the_same(name: KnobName) -> None:
    """Place, range and default are what the agent has in its table."""
    knob, told = KNOBS[name], KNOWN[name]
    assert (knob.path, knob.low, knob.high, knob.default) == (
        told["path"],
        told["min"],
        told["max"],
        told["default"],
    )


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_what_is_told_makes_sense(name: str) -> None:
    told = KNOWN[name]
    assert told["path"].endswith(f"/{name}")
    assert told["min"] <= told["default"] <= told["max"]
    assert "EINVAL" in told["errors"], "out of range"
