# SPDX-License-Identifier: Apache-2.0
"""The benchmark's own parts: what it prints, and that both services are asked for the same."""

from __future__ import annotations

import configparser
import json
import xml.etree.ElementTree as ET

import pytest

from bench import service
from bench.report import Row, as_json, at_most, beside, picture, table
from dsatier.apply.target import target
from dsatier.facts.observe.observer import Observer
from dsatier.profile.load import from_texts
from dsatier.sim.host import SimHost

ROWS = [
    beside("resident memory", "bytes", 19.1e6, 28.7e6, 0.8),
    beside("start", "s", 0.3, 0.15),
    at_most("idle CPU", "%", [0.05, 0.02, 0.03], 0.1),
    Row("plan", "3.1 ms", "-", True),
]


def test_the_table() -> None:
    assert [
        "resident memory  0.67 (19.1 MB / 28.7 MB)         ≤ 0.8  met",
        "start            2.00 (300 ms / 150 ms)           < 1    MISSED",
        "idle CPU         0.0300 % of a CPU (best 0.0200)  ≤ 0.1  met",
        "plan             3.1 ms                           -",
    ] == table(ROWS).splitlines()


def test_the_json() -> None:
    found = json.loads(as_json(ROWS))
    assert [True, False, True, True] == [row["met"] for row in found]
    assert [[19.1e6, 28.7e6], [0.3, 0.15], None, None] == [row["pair"] for row in found]


def test_the_picture_has_two_bars_for_each_pair() -> None:
    drawn = ET.fromstring(picture(ROWS))
    rects = drawn.iter("{http://www.w3.org/2000/svg}rect")
    widths = [float(rect.get("width", "")) for rect in rects if rect.get("x")]
    assert 4 == len(widths)
    ours, theirs = widths[0::2], widths[1::2]
    assert pytest.approx([0.67, 2.0], abs=0.01) == [
        a / b for a, b in zip(ours, theirs, strict=True)
    ]


@pytest.mark.parametrize("demote", [0, 1])
def test_both_profiles_declare_the_same(demote: int) -> None:
    expected = service.DECLARED | {service.DEMOTE: str(demote)}
    sim = SimHost.load(service.HOST)
    facts = Observer(sim).look()
    loaded = from_texts([("p.yaml", service.our_profile(demote))], facts)
    knobs = target(sim.read, loaded, facts, None).desired.knobs
    ours = {name: str(value) for name, value in (knobs or {}).items()}
    assert {path.rpartition("/")[2]: value for path, value in expected.items()} == ours
    theirs = configparser.ConfigParser()
    theirs.read_string(service.their_profile(demote))
    sysctls = {"/proc/sys/" + k.replace(".", "/"): v for k, v in theirs["sysctl"].items()}
    assert expected == sysctls | dict(theirs["sysfs"])
