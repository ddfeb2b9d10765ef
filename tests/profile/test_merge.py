# SPDX-License-Identifier: Apache-2.0
"""The merge of profiles."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profile_strategies import PROFILES

from dsatier.profile.merge import Layer, Origin, layer, leaves, merge

EMPTY = Layer({}, {})


def laid(*layers: dict[str, Any]) -> Layer:
    """Merge layers; the origin of each value tells its layer's number as its line."""
    made = [layer(data, lambda path, n=n: ("f", n, 1)) for n, data in enumerate(layers, 1)]
    return reduce(merge, made, EMPTY)


@pytest.mark.parametrize(
    ("earlier", "later", "merged"),
    [
        ({"tiers": {"fast_node": 0}}, {"tiers": {"slow_node": 1}},
         {"tiers": {"fast_node": 0, "slow_node": 1}}),
        ({"match": {"hostname": ["a", "b"]}}, {"match": {"hostname": ["c"]}},
         {"match": {"hostname": ["c"]}}),
        ({"tiering": {"swap": "off"}}, {"tiering": {}}, {"tiering": {"swap": "off"}}),
        ({"tiering": {"swap": "off"}}, {"tiering": {"swap": None}}, {"tiering": {"swap": None}}),
        ({"tiering": {"swap": "off"}}, {"tiering": None}, {"tiering": None}),
        ({"tiering": None}, {"tiering": {"swap": "off"}}, {"tiering": {"swap": "off"}}),
        # The same form merges, another one replaces.
        ({"engine": {"kind": "dsa", "limit_chans": 8}},
         {"engine": {"kind": "dsa", "dsa_copy_threshold": 12}},
         {"engine": {"kind": "dsa", "limit_chans": 8, "dsa_copy_threshold": 12}}),
        ({"engine": {"kind": "dsa", "limit_chans": 8}}, {"engine": {"kind": "cpu"}},
         {"engine": {"kind": "cpu"}}),
        ({"engine": {"kind": "dsa", "work_queues": {"devices": 8, "size": 16}}},
         {"engine": {"kind": "dsa", "work_queues": {"file": "/a"}}},
         {"engine": {"kind": "dsa", "work_queues": {"file": "/a"}}}),
        ({"engine": {"kind": "dsa", "work_queues": {"devices": 8, "size": 16}}},
         {"engine": {"kind": "dsa", "work_queues": {"devices": ["dsa0"]}}},
         {"engine": {"kind": "dsa", "work_queues": {"devices": ["dsa0"], "size": 16}}}),
        *(
            ({"engine": {"kind": "dsa", "work_queues": form}},
             {"engine": {"kind": "dsa", "work_queues": {"iommu": "identity"}}},
             {"engine": {"kind": "dsa", "work_queues": {**form, "iommu": "identity"}}})
            for form in ({"file": "/a"}, {"devices": 8})
        ),
    ],
)  # fmt: skip
def test_merge(earlier: dict[str, Any], later: dict[str, Any], merged: dict[str, Any]) -> None:
    result = laid(earlier, later)
    assert merged == result.data
    assert list(result.origins) == leaves(merged)


def test_origins_follow_the_values() -> None:
    result = laid(
        {"tiers": {"fast_node": 0, "cpuless": True}, "engine": {"kind": "dsa", "limit_chans": 8}},
        {"tiers": {"fast_node": 2}, "engine": {"kind": "cpu"}, "tiering": {}},
    )
    assert result.origins == {
        ("tiers", "fast_node"): Origin("f", 2, 1),
        ("tiers", "cpuless"): Origin("f", 1, 1),
        ("engine", "kind"): Origin("f", 2, 1),
        ("tiering",): Origin("f", 2, 1),
    }


def test_a_place_is_told_for_what_has_none() -> None:
    result = laid({"tiers": {"cpuless": True}})
    assert result.at(("tiers", "cpuless")) == ("f", 1, 1)
    assert result.at(("tiers",)) == ("f", 1, 1)
    assert result.at(("tiers", "cpuless", "deeper")) == ("f", 1, 1)
    assert EMPTY.at(("tiers",)) == ("", 0, 0)


@given(PROFILES, PROFILES)
def test_the_later_one_wins_each_of_its_values(
    earlier: dict[str, Any], later: dict[str, Any]
) -> None:
    result = laid(earlier, later)
    kept = {path: origin.line for path, origin in result.origins.items()}
    for path in leaves(later):
        value = _value(later, path)
        if value != {}:
            assert _value(result.data, path) == value
            assert kept[path] == 2
    for path, line in kept.items():
        if line == 1:
            assert _value(result.data, path) == _value(earlier, path)


@given(PROFILES)
def test_nothing_changes_over_itself_or_nothing(data: dict[str, Any]) -> None:
    assert laid(data, data).data == data
    assert laid({}, data).data == data
    assert laid(data, {}).data == data


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ({"slow_node": 1, "cpuless": True}, {"nodes": "auto"}),
        ({"nodes": {"slow": [2]}}, {"fast_node": 1, "slow_node": 0}),
    ],
)
def test_a_pair_of_nodes_and_lists_of_them_do_not_mix(
    earlier: dict[str, Any], later: dict[str, Any]
) -> None:
    assert laid({"tiers": earlier}, {"tiers": later}).data["tiers"] == later
    assert laid({"tiers": later}, {"tiers": earlier}).data["tiers"] == earlier


def test_what_is_no_node_stays_with_either() -> None:
    both = laid({"tiers": {"nodes": "auto"}}, {"tiers": {"cpuless": False}})
    assert both.data["tiers"] == {"nodes": "auto", "cpuless": False}


@given(PROFILES, PROFILES, PROFILES)
def test_merging_is_associative_where_forms_do_not_change(
    a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]
) -> None:
    for one in (a, b, c):
        one.pop("engine", None)
        one.pop("tiers", None)
    assert laid(laid(a, b).data, c).data == laid(a, laid(b, c).data).data


@given(st.lists(PROFILES, max_size=5))
def test_inputs_are_left_as_they_are(datas: list[dict[str, Any]]) -> None:
    before = repr(datas)
    laid(*datas)
    assert repr(datas) == before


def _value(data: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        data = data[key]
    return data
