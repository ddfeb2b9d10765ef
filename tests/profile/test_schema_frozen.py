# SPDX-License-Identifier: Apache-2.0
"""The frozen schemas: current, and the same as pydantic itself."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pydantic
import pydantic_core
import pytest
from hypothesis import given
from hypothesis import strategies as st
from profile_strategies import JUNK, PROFILES, broken_profiles

from dsatier.base.problem import Invalid
from dsatier.facts.model import Facts
from dsatier.profile import messages, schema
from dsatier.profile.model import CpuEngine, DriftPolicy, Profile

CORE = schema.core()


ADAPTER = pydantic.TypeAdapter(Profile)


def same_core(name: str) -> bool:
    text = Path(schema.FOLDER, f"{name}.core.json").read_text()
    return bool(json.loads(text)["pydantic_core"] == CORE.__version__)


@pytest.mark.parametrize("name", schema.TYPES)
@pytest.mark.parametrize("kind", ["core", "schema"])
def test_shipped_file_is_current(name: str, kind: str) -> None:
    if not same_core(name):
        pytest.skip("pydantic differs from the one that wrote the files")
    file = f"{name}.{kind}.json"
    expected = schema.files()[file]
    assert expected == Path(schema.FOLDER, file).read_text(), "run python -m dsatier.profile.schema"


def test_no_other_file_is_shipped() -> None:
    assert sorted(schema.files()) == sorted(file.name for file in Path(schema.FOLDER).iterdir())


def test_the_core_is_the_one_that_the_package_has() -> None:
    assert pydantic_core.SchemaValidator is CORE.SchemaValidator


def test_the_core_can_be_loaded_before_the_package() -> None:
    code = (
        "from dsatier.profile import schema; c = schema.core(); import pydantic, pydantic_core;"
        "assert pydantic_core.SchemaValidator is c.SchemaValidator;"
        "assert schema.core() is c;"
        "assert pydantic.TypeAdapter(int).validate_python(1) == 1"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(schema.__file__).parents[2])}


def test_another_core_version_works_the_schema_out_anew(tmp_path: Path) -> None:
    code = (
        "import json, pathlib, shutil, sys; from dsatier.profile import schema;"
        f"old, new = pathlib.Path(schema.FOLDER), pathlib.Path({str(tmp_path)!r});"
        "text = json.loads((old / 'profile.core.json').read_text());"
        "text['pydantic_core'] = '0.0.0'; text['schema'] = {'type': 'any'};"
        "(new / 'profile.core.json').write_text(json.dumps(text));"
        "schema.FOLDER = str(new);"
        "assert [p.field for p in schema.check('profile', {'version': 1, 'x': 1})] == ['x'];"
        "assert 'pydantic' in sys.modules;"
        "assert schema.check('facts', 1), 'a missing file is worked out as well'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=environment())


def full(data: Any) -> list[Any]:
    """What the path that makes values says."""
    try:
        schema.validate("profile", json.dumps(data))
    except Invalid as error:
        return list(error.problems)
    return []


@given(PROFILES)
def test_valid_profiles_are_taken_by_both_paths_and_by_pydantic(data: dict[str, Any]) -> None:
    assert schema.check("profile", data) == []
    value = schema.validate("profile", data)
    assert isinstance(value, Profile)
    assert value == ADAPTER.validate_json(json.dumps(data))
    assert schema.validate("profile", schema.dump(value)) == value


@given(broken_profiles() | JUNK)
def test_fast_and_full_path_say_the_same(data: Any) -> None:
    assert schema.check("profile", data) == full(data)


@given(broken_profiles() | JUNK)
def test_refused_is_what_pydantic_refuses_but_for_nulls(data: Any) -> None:
    if "null" in json.dumps(data):
        return  # null for a field with a default means that it is not named
    try:
        ADAPTER.validate_json(json.dumps(data))
        refused = False
    except pydantic.ValidationError:
        refused = True
    assert refused == bool(schema.check("profile", data))


@given(broken_profiles())
def test_every_problem_is_worded(data: Any) -> None:
    for problem in schema.check("profile", data):
        assert problem.message.isprintable()
        assert problem.expected
        assert problem.found
        assert "(" not in problem.expected, "a pydantic error type without a wording"
        assert len(str(problem)) < 600


def test_null_is_not_named_also_where_there_is_a_default() -> None:
    data = {
        "version": 1,
        "tiers": None,
        "drift": {"interval": None, "policy": None, "fights": 5},
    }
    assert schema.check("profile", data) == []
    assert schema.validate("profile", data) == Profile(version=1, drift=DriftPolicy(fights=5))


def test_values_are_frozen_and_complete(facts_data: dict[str, Any]) -> None:
    value = schema.validate("profile", '{"version": 1, "engine": {"kind": "cpu"}}')
    assert value == Profile(version=1, engine=CpuEngine(kind="cpu"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.version = 2
    facts = schema.validate("facts", json.dumps(facts_data))
    assert isinstance(facts, Facts)
    assert hash(facts.nodes), "tuples all the way down"


def test_dump_round_trips(facts_data: dict[str, Any]) -> None:
    facts = schema.validate("facts", facts_data)
    dumped = schema.dump(facts)
    assert facts_data == dumped
    assert json.loads(json.dumps(dataclasses.asdict(facts))) == dumped
    assert schema.validate("facts", json.dumps(dumped)) == facts


@pytest.mark.parametrize("text", ["", "{", "[" * 10_000, "NaN", b"\xff", "{'a': 1}"])
def test_what_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(Invalid, match="not JSON"):
        schema.validate("facts", text)


def test_json_without_places_has_fields(facts_data: dict[str, Any]) -> None:
    wrong = {**facts_data, "nodes": [{**facts_data["nodes"][0], "cpus": ["0"]}]}
    with pytest.raises(Invalid) as caught:
        schema.validate("facts", wrong)
    assert str(caught.value) == (
        "nodes[0].cpus[0]: expected an integer, found '0'; leave the quotes out"
    )


def nodes(part: Any) -> list[Any]:
    """Every schema that is in a frozen one."""
    found = []
    if isinstance(part, dict):
        if part.get("type") == "value":
            return []  # one of ours, which is a default
        if part.get("type") not in (None, "dataclass-args", "dataclass-field", "definitions"):
            found.append(part)
        for value in part.values():
            found += nodes(value)
    elif isinstance(part, list):
        for value in part:
            found += nodes(value)
    return found


BATTERY: list[Any] = [
    *(None, True, 0, 1, -1, 10**30, 99999, 0.5, 1e300, "", "x", "x" * 5000),
    *([], [1], ["x"] * 70, [[]], {}, {"kind": "x"}, {"kind": "dsa", "bad": 1}, {"kind": "dsa"}),
    {"x": 1},
]


def test_every_error_type_that_our_schemas_can_produce_is_known() -> None:
    known = messages.ABSENT | messages.UNKNOWN | messages.TAG | messages.VALUE
    produced = set()
    for name in schema.TYPES:
        frozen = schema.frozen(name)
        for node in nodes(frozen):
            if "definition-ref" in json.dumps(node):
                continue  # what it refers to is in the list by itself
            for classes in (False, True):
                validator = CORE.SchemaValidator(schema._thaw(node, classes))
                for junk in BATTERY:
                    try:
                        validator.validate_json(json.dumps(junk), strict=True)
                    except CORE.ValidationError as error:
                        produced |= {one["type"] for one in error.errors()}
    assert produced <= known
    # Other versions of the core call a tagged union's wrong shape model_attributes_type.
    assert known - produced <= {"model_attributes_type", "finite_number", "int_parsing_size"}


def test_every_kind_of_schema_is_worded() -> None:
    kinds = {node["type"] for name in schema.TYPES for node in nodes(schema.frozen(name))}
    assert kinds <= {
        *("dataclass", "tagged-union", "union", "nullable", "default", "definition-ref"),
        *("bool", "dict", "float", "int", "literal", "str", "tuple"),
    }


def test_what_cannot_be_frozen_is_refused() -> None:
    with pytest.raises(TypeError, match="cannot be frozen"):
        schema._plain({"type": "function-plain", "function": len})


def test_json_schema_describes_every_field() -> None:
    profile = json.loads(Path(schema.FOLDER, "profile.schema.json").read_text())
    undescribed = [
        f"{name}.{field}"
        for name, part in {"Profile": profile, **profile["$defs"]}.items()
        for field, content in part["properties"].items()
        if field != "kind" and not content.get("description")
    ]
    assert undescribed == []
    assert profile["additionalProperties"] is False
    assert profile["properties"]["engine"]["anyOf"][0]["discriminator"]["propertyName"] == "kind"


@given(st.recursive(st.none() | st.text(max_size=2), lambda inner: st.lists(inner, max_size=3)))
def test_plain_keeps_data(data: Any) -> None:
    assert data == schema._plain(data)
