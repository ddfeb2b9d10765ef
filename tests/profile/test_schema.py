# SPDX-License-Identifier: Apache-2.0
"""Validation: what pydantic refuses, with our words and places."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pydantic
import pytest
from hypothesis import given
from profile_strategies import JUNK, PROFILES, broken_profiles

from dsatier.apply.counters import Tally
from dsatier.apply.records import Motion, Record
from dsatier.base.problem import Invalid
from dsatier.facts.model import Facts
from dsatier.plan.model import Plan
from dsatier.plan.originals import Originals
from dsatier.profile import messages, schema
from dsatier.profile.described import described
from dsatier.profile.model import CpuEngine, DriftPolicy, Profile

VALIDATED: tuple[type, ...] = (Profile, Facts, Plan, Record, Motion, Originals, Tally)
"""Everything that is read from a text as one of our values."""
ADAPTER = pydantic.TypeAdapter(Profile)


@given(PROFILES)
def test_valid_profiles_are_taken(data: dict[str, Any]) -> None:
    assert schema.checked(Profile, data)[1] == []
    value = schema.validate(Profile, data)
    assert isinstance(value, Profile)
    assert schema.validate_text(Profile, json.dumps(data)) == value
    assert schema.validate(Profile, schema.dump(value)) == value


@given(broken_profiles() | JUNK)
def test_refused_is_what_pydantic_refuses(data: Any) -> None:
    try:
        ADAPTER.validate_json(json.dumps(data))
        refused = False
    except pydantic.ValidationError:
        refused = True
    assert bool(schema.checked(Profile, data)[1]) == refused


@given(broken_profiles())
def test_every_problem_is_worded(data: Any) -> None:
    for problem in schema.checked(Profile, data)[1]:
        assert problem.message.isprintable()
        assert problem.expected
        assert problem.found
        assert "(" not in problem.expected, "a pydantic error type without a wording"
        assert len(str(problem)) < 600


def test_null_is_not_named_also_where_there_is_a_default() -> None:
    queues = {"devices": 1, "engines": None, "queues": None}
    data: dict[str, Any] = {
        "version": 1,
        "memory": None,
        "tiers": {"cpuless": None, "online": {"zone": None}},
        "engine": {"kind": "dsa", "on_fault": None, "work_queues": queues},
        "drift": {"interval": None, "window": None, "policy": None, "fights": 5},
    }
    assert schema.checked(Profile, data)[1] == []
    value = schema.validate(Profile, data)
    named = {"kind": "dsa", "work_queues": {"devices": 1}}
    data = {"version": 1, "tiers": {"online": {}}, "engine": named, "drift": {"fights": 5}}
    assert value == schema.validate(Profile, data)
    assert value.drift == DriftPolicy(fights=5)


def test_every_default_may_be_null() -> None:
    found = [
        (name, field)
        for name, part in schema.json_schema(Profile)["$defs"].items()
        for field, node in part["properties"].items()
        if node.get("default") is not None
    ]
    assert len(found) == 8, "the test above names each"


def test_values_are_frozen_and_complete(facts_data: dict[str, Any]) -> None:
    value = schema.validate_text(Profile, '{"version": 1, "engine": {"kind": "cpu"}}')
    assert value == Profile(version=1, engine=CpuEngine(kind="cpu"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.version = 2  # type: ignore[misc,assignment]
    facts = schema.validate_text(Facts, json.dumps(facts_data))
    assert isinstance(facts, Facts)
    assert hash(facts.nodes), "tuples all the way down"


def test_dump_round_trips(facts_data: dict[str, Any]) -> None:
    facts = schema.validate(Facts, facts_data)
    dumped = schema.dump(facts)
    assert dumped == facts_data
    assert json.loads(json.dumps(dataclasses.asdict(facts))) == dumped
    assert schema.validate_text(Facts, json.dumps(dumped)) == facts


@pytest.mark.parametrize("text", ["", "{", "[" * 10_000, "NaN", b"\xff", "{'a': 1}"])
def test_what_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(Invalid, match="not JSON"):
        schema.validate_text(Facts, text)


def test_json_without_places_has_fields(facts_data: dict[str, Any]) -> None:
    wrong = {**facts_data, "nodes": [{**facts_data["nodes"][0], "cpus": ["0"]}]}
    with pytest.raises(Invalid) as caught:
        schema.validate(Facts, wrong)
    assert str(caught.value) == (
        "nodes[0].cpus[0]: expected an integer, found '0'; leave the quotes out"
    )


def nodes(part: Any) -> list[Any]:
    """Every node that is in a JSON Schema."""
    found = []
    if isinstance(part, dict):
        beneath = [*part.get("$defs", {}).values(), *part.get("properties", {}).values()]
        for key in ("anyOf", "oneOf", "prefixItems"):
            beneath += part.get(key, [])
        for key in ("items", "additionalProperties", "propertyNames"):
            beneath.append(part.get(key))
        found = [part]
        for one in beneath:
            found += nodes(one)
    return found


def test_every_kind_of_schema_is_worded() -> None:
    for kind in VALIDATED:
        whole = schema.json_schema(kind)
        wording = messages._Wording(whole, lambda path, key: ("", 0, 0))
        unworded = [
            node
            for node in nodes(whole)
            if wording.expected(node) == "a value" and node.get("type") != "null"
        ]
        assert unworded == []


BATTERY: list[Any] = [
    *(None, True, 0, 1, -1, 10**30, 99999, 0.5, 1.0, 1e300, "", "x", "x" * 5000),
    *([], [1], ["x"] * 70, [[]], {}, {"kind": "x"}, {"kind": "dsa", "bad": 1}, {"kind": "dsa"}),
    {"x": 1},
]


def variants(node: Any, whole: Any, depth: int = 0) -> list[Any]:
    """Data that fits a node's shape, with junk in one place of it."""
    if "$ref" in node:
        node = whole["$defs"][node["$ref"].rpartition("/")[2]]
    found = list(BATTERY)
    if depth < 4:
        for one in (*node.get("anyOf", ()), *node.get("oneOf", ())):
            found += variants(one, whole, depth)
        if isinstance(node.get("items"), dict):
            found += [[one] for one in variants(node["items"], whole, depth + 1)]
        for name, inner in node.get("properties", {}).items():
            fixed = {key: one["const"] for key, one in node["properties"].items() if "const" in one}
            found += [{**fixed, name: one} for one in variants(inner, whole, depth + 1)]
    return found


def test_every_error_type_that_a_text_can_cause_is_known() -> None:
    known = messages.ABSENT | messages.UNKNOWN | messages.TAG | messages.VALUE
    produced = set()
    for kind in VALIDATED:
        adapter: Any = pydantic.TypeAdapter(kind)
        whole = schema.json_schema(kind)
        for junk in variants(whole, whole):
            try:
                adapter.validate_json(json.dumps(junk))
            except pydantic.ValidationError as error:
                produced |= {one["type"] for one in error.errors()}
    assert produced - known == set()
    # other versions call a tagged union's wrong shape model_attributes_type
    assert known - produced <= {"model_attributes_type", "finite_number", "int_parsing_size"}


def test_json_schema_describes_every_field() -> None:
    profile = described(Profile)
    undescribed = [
        f"{name}.{field}"
        for name, part in {"Profile": profile, **profile["$defs"]}.items()
        for field, content in part["properties"].items()
        if field != "kind" and not content.get("description")
    ]
    assert undescribed == []
    assert profile["additionalProperties"] is False
    assert profile["properties"]["engine"]["anyOf"][0]["discriminator"]["propertyName"] == "kind"
