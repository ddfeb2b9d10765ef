# SPDX-License-Identifier: Apache-2.0
"""Whether a profile is for a host."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dsatier.facts.model import Facts
from dsatier.profile.match import cpuless, mismatches
from dsatier.profile.model import Match, NumaShape


@pytest.mark.parametrize(
    "match",
    [
        None,
        Match(),
        Match(hostname=("web-*", "db-0?")),
        Match(release=("6.12.*",)),
        Match(abi=("seed", "ours")),
        Match(cpu_model=("*Platinum 84[0-9][0-9]*",)),
        Match(numa=NumaShape()),
        Match(numa=NumaShape(nodes=2, cpuless_nodes=0)),
    ],
)
def test_matches(match: Match | None, facts: Facts) -> None:
    assert mismatches(match, facts) == []


def test_every_reason_is_told(facts: Facts) -> None:
    match = Match(
        hostname=("web-*", "DB-*"),
        release=("5.13*",),
        abi=("seed", "none"),
        cpu_model=("AMD*",),
        numa=NumaShape(nodes=4, cpuless_nodes=1),
    )
    assert mismatches(match, facts) == [
        "hostname: expected 'web-*' or 'DB-*', found 'db-07'",
        "release: expected '5.13*', found '6.12.117-dsatier'",
        "cpu_model: expected 'AMD*', found 'Intel(R) Xeon(R) Platinum 8468'",
        "abi: expected seed or none, found ours",
        "numa.nodes: expected 4, found 2",
        "numa.cpuless_nodes: expected 1, found 0",
    ]


def test_cpus_that_dsatier_took_offline_do_not_change_the_shape(facts: Facts) -> None:
    fast, slow = facts.nodes
    after = replace(facts, nodes=(fast, replace(slow, cpus=())), offline_cpus=(2, 3))
    assert cpuless(after) == (0, 1)
    assert mismatches(Match(numa=NumaShape(cpuless_nodes=0)), after) == []
    born_so = replace(after, offline_cpus=())
    assert cpuless(born_so) == (1, 1)
    assert mismatches(Match(numa=NumaShape(cpuless_nodes=0)), born_so) == [
        "numa.cpuless_nodes: expected 0, found 1"
    ]
