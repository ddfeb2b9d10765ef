# SPDX-License-Identifier: Apache-2.0
"""From files to the one profile of a host, and how it is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profile_doubles import FilesInMemory
from profile_strategies import PROFILES

from dsatier.base.problem import Invalid
from dsatier.cli import cat_config
from dsatier.facts.model import Facts
from dsatier.profile import schema
from dsatier.profile.dropins import find
from dsatier.profile.load import digest, from_texts, load
from dsatier.profile.merge import Origin
from dsatier.profile.model import CpuEngine, DsaEngine, Profile, QueueShape, Tiering, Tiers
from dsatier.profile.yaml import parse

BASE = """\
version: 1
tiers: {cpuless: true, slow_node: 1}
engine:
  kind: dsa
  limit_chans: 8
  work_queues: {devices: 8}
tiering:
  swap: off
"""


def test_files_make_one_profile(facts: Facts) -> None:
    loaded = from_texts(
        [
            ("/a", BASE),
            ("/b", "version: 1\nengine: {kind: dsa, limit_chans: 4}\ntiering: {swap: }\n"),
            ("/c", "version: 1\nmatch: {hostname: [web-*]}\nengine: {kind: cpu}\n"),
            ("/d", "version: 1\nmatch: {hostname: [db-*]}\ntiers: {slow_node: 2}\n"),
        ],
        facts,
    )
    assert loaded.profile == Profile(
        version=1,
        tiers=Tiers(slow_node=2, cpuless=True),
        engine=DsaEngine(kind="dsa", limit_chans=4, work_queues=QueueShape(devices=8)),
        tiering=Tiering(),
    )
    assert loaded.files == ("/a", "/b", "/d")
    assert [(one.path, one.reason) for one in loaded.skipped] == [
        ("/c", "hostname: expected 'web-*', found 'db-07'")
    ]
    assert loaded.origins == {
        "version": Origin("/d", 1, 10),
        "tiers.cpuless": Origin("/a", 2, 18),
        "tiers.slow_node": Origin("/d", 3, 20),
        "engine.kind": Origin("/b", 2, 16),
        "engine.limit_chans": Origin("/b", 2, 34),
        "engine.work_queues.devices": Origin("/a", 6, 26),
        "tiering.swap": Origin("/b", 3, 11),
    }


def test_without_facts_every_file_applies() -> None:
    loaded = from_texts([("/a", "version: 1\nmatch: {hostname: [x]}\n")])
    assert loaded.profile == Profile(version=1)
    assert loaded.files == ("/a",)


def test_no_file_no_profile(facts: Facts) -> None:
    assert from_texts([]).profile is None
    loaded = from_texts([("/a", "version: 1\nmatch: {abi: [seed]}\n")], facts)
    assert loaded.profile is None
    assert loaded.skipped[0].reason == "abi: expected seed, found ours"


def test_every_problem_of_every_file_is_told(facts: Facts) -> None:
    with pytest.raises(Invalid) as caught:
        from_texts(
            [
                ("/b", "version: 1\nmatch: {hostname: [web]}\nengin: 1\n"),
                ("/a", "tiers: 5\n"),
                ("/c", "version: 1\n"),
            ],
            facts,
        )
    assert [problem.place() for problem in caught.value.problems] == [
        ("/a", 1, 1, "version"),
        ("/a", 1, 8, "tiers"),
        ("/b", 3, 1, "engin"),
    ]


def test_files_that_contradict_each_other_are_refused_where_the_value_is() -> None:
    with pytest.raises(Invalid) as caught:
        from_texts(
            [
                ("/a", "version: 1\nengine: {kind: dsa, work_queues: {devices: 2}}\n"),
                ("/b", "version: 1\nengine:\n  kind: dsa\n  limit_chans: 8\n"),
                ("/c", "version: 1\ntiers: {slow_node: 0}\n"),
            ]
        )
    assert [str(problem).partition(", found")[0] for problem in caught.value.problems] == [
        "/b:4:16: engine.limit_chans: expected at most 2: 2 devices with 1 queues each",
        "/c:2:20: tiers.slow_node: expected a node other than fast_node (0)",
    ]


def test_a_fragment_may_need_another(facts: Facts) -> None:
    loaded = from_texts(
        [
            ("/a", "version: 1\ntiers: {fast_node: 1}\n"),
            ("/b", "version: 1\ntiers: {slow_node: 0}\n"),
        ],
        facts,
    )
    assert loaded.profile == Profile(version=1, tiers=Tiers(fast_node=1, slow_node=0))


def test_the_digest_is_of_what_the_profile_says() -> None:
    one = from_texts([("/a", "version: 1\ntiers: {fast_node: 0, slow_node: 1}\n")])
    same = from_texts(
        [
            ("/b", "# x\nversion: 1\ntiers: {slow_node: 1}\n"),
            ("/c", "version: 1\ntiers: {fast_node: 0}"),
        ]
    )
    other = from_texts([("/a", "version: 1\ntiers: {fast_node: 0, slow_node: 2}\n")])
    assert one.digest == same.digest == digest(one.profile)
    assert len({one.digest, other.digest, digest(None)}) == 3


@pytest.mark.parametrize("name", ["cpu", "multithread", "dsa", "dsa-huge", "detach"])
def test_shipped_profiles_load(name: str, profiles: Path) -> None:
    text = (profiles / f"{name}.yaml").read_text()
    loaded = from_texts([(name, text)])
    assert loaded.profile is not None
    assert loaded.profile.engine is not None
    assert loaded.profile.engine.kind == name.removesuffix("-huge").replace("detach", "cpu")


@pytest.mark.parametrize("kind", ["cpu", "multithread", "dsa"])
def test_shipped_tiering_profiles_differ_in_the_engine_alone(kind: str, profiles: Path) -> None:
    loaded = from_texts([("f", (profiles / f"tpp-{kind}.yaml").read_text())])
    plain = from_texts([("f", (profiles / f"{kind}.yaml").read_text())])
    assert loaded.data.pop("tiering") == {
        "demotion_enabled": True,
        "numa_balancing": 2,
        "demote_scale_factor": 1000,
        "swap": "off",
    }
    assert loaded.data.pop("tiers") == {"fast_node": 0, "slow_node": 1, "cpuless": True}
    plain.data.pop("tiers", None)  # cpu is for hosts of any nodes
    assert plain.data == loaded.data


@given(st.lists(PROFILES, min_size=1, max_size=4))
def test_any_valid_files_make_a_valid_profile_that_reads_back(datas: list[dict[str, Any]]) -> None:
    loaded = from_texts([(f"/f{n}", json.dumps(data)) for n, data in enumerate(datas)])
    assert loaded.profile is not None
    assert loaded.profile.match is None
    shown = cat_config.render(loaded)
    tree = parse(shown, "shown")
    assert tree.problems == []
    assert loaded.data == tree.data
    assert schema.validate(Profile, tree.data) == loaded.profile
    assert json.loads(json.dumps(cat_config.to_json(loaded)))["profile"] == loaded.data


def test_cat_config_shows_the_origin_of_each_value(facts: Facts) -> None:
    etc, usr = "/etc/dsatier.d", "/usr/lib/dsatier.d"
    files = {
        f"{usr}/10-base.yaml": BASE,
        f"{usr}/20-web.yaml": "version: 1\nmatch: {hostname: ['web-*']}\n",
        f"{usr}/30-old.yaml": "version: 1\n",
        f"{etc}/30-old.yaml": "",
        f"{etc}/40-site.yaml": "version: 1\nengine: {kind: dsa, limit_chans: 2, "
        "work_queues: {devices: [dsa0, dsa2]}}\ntiering: {swap: ~}\nconcurrency: {}\n",
    }
    host: Any = FilesInMemory(files)
    loaded = load(find(host), facts)
    assert (
        cat_config.render(loaded)
        == f"""\
# merged, the later over the earlier:
#   {usr}/10-base.yaml
#   {etc}/40-site.yaml
# skipped, not for this host:
#   {usr}/20-web.yaml: hostname: expected 'web-*', found 'db-07'
# masked:
#   {etc}/30-old.yaml: an empty file disables this name
#   {usr}/30-old.yaml: masked by {etc}/30-old.yaml
version: 1  # {etc}/40-site.yaml:1
tiers:
  cpuless: true  # {usr}/10-base.yaml:2
  slow_node: 1  # {usr}/10-base.yaml:2
engine:
  kind: dsa  # {etc}/40-site.yaml:2
  limit_chans: 2  # {etc}/40-site.yaml:2
  work_queues:
    devices: [dsa0, dsa2]  # {etc}/40-site.yaml:2
tiering:
  swap: null  # taken back by {etc}/40-site.yaml:3
concurrency: {{}}  # {etc}/40-site.yaml:4
"""
    )


def test_cat_config_of_nothing() -> None:
    assert cat_config.render(from_texts([])) == (
        "# no file applies: dsatier leaves the host as it is\n"
    )
    assert cat_config.to_json(from_texts([]))["profile"] is None


TEXTS = st.text(max_size=12) | st.sampled_from(
    ["off", "017", "1e3", "~", "a: b", "- a", "#", "a #", "true", "'", '"', "x, y", "[", "*", "é"]
)


@given(TEXTS)
def test_text_is_quoted_where_it_must_be(text: str) -> None:
    shown = cat_config._scalar(text)
    tree = parse(f"a: [{shown}]\n{shown}: 1\n", "f")
    control = [p for p in tree.problems if "control" in p.expected or "key" in p.expected]
    if not control and "\\u" not in shown:
        assert tree.data["a"] == [text]


def test_engine_of_another_kind_leaves_nothing_behind() -> None:
    loaded = from_texts([("/a", BASE), ("/b", "version: 1\nengine: {kind: cpu}\n")])
    assert loaded.profile is not None
    assert loaded.profile.engine == CpuEngine(kind="cpu")
    assert [field for field in loaded.origins if field.startswith("engine")] == ["engine.kind"]


@pytest.mark.parametrize("version", ["1.0", "true", "'1'", "2"])
def test_a_version_is_the_number_1_and_nothing_like_it(version: str) -> None:
    with pytest.raises(Invalid, match="/a:1:10: version: expected 1, found"):
        from_texts([("/a", f"version: {version}\n")])
