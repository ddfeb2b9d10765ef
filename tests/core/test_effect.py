# SPDX-License-Identifier: Apache-2.0
"""What two counts of the kernel tell of tiering: each verdict, and each reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dsatier.facts.effect import (
    DEMOTED,
    HIGH,
    LASTING,
    PROMOTED,
    REASONS,
    SCANNED,
    TROUBLES,
    Counts,
    Reason,
    Standing,
    judged,
)
from dsatier.facts.model import Facts
from dsatier.facts.observe.observer import observe
from dsatier.facts.observe.parse import Room, counters, room
from dsatier.facts.tiers import Tiers, pair
from dsatier.sim.host import SimHost
from dsatier.sim.spec import parse, shipped_text

FAST, SLOW = 0, 1
TIERS = pair(FAST, SLOW)
FACTS = observe(SimHost.of(parse(shipped_text("stock-6-12"))))
BALANCED = {"numa_balancing": "2", "demotion_enabled": "1", "promote_rate_limit_MBps": "100"}
ALL = dict.fromkeys(
    (
        "pgdemote_kswapd",
        "pgpromote_success",
        "pgpromote_candidate",
        "numa_pte_updates",
        "pgscan_kswapd",
        "pswpout",
    ),
    1_000_000,
)
MUCH = FACTS.nodes[FAST].mem_total // 4096 // HIGH * int(SCANNED)
"""Pages that are many in all times that are judged here."""


def facts(**knobs: str) -> Facts:
    return replace(FACTS, knobs=FACTS.knobs | BALANCED | knobs)


def flat() -> Facts:
    return replace(facts(), nodes=tuple(replace(node, tier=4) for node in FACTS.nodes))


def counts(
    at: float, *, short: bool = False, full: bool = False, boot: str = "a", **more: int
) -> Counts:
    """Return counts that rose by ``more``."""
    whole = {name: value + more.get(name, 0) for name, value in ALL.items()}
    return Counts(
        boot,
        at,
        whole,
        {},
        (FAST,) if short else (),
        ((FAST,) if short else ()) + ((SLOW,) if full else ()),
    )


def told(host: Facts, *found: Counts, tiers: Tiers = TIERS) -> Standing:
    """Return what is known after all of some counts."""
    standing = None
    for one in found:
        standing = judged(standing, one, host, tiers, 1)
    assert standing is not None
    return standing


CASES: dict[str, tuple[Reason, Facts, tuple[Counts, ...]]] = {
    "at-rest": ("NoPressure", facts(), (counts(0), counts(1000))),
    "short-for-a-moment": ("NoPressure", facts(), (counts(0), counts(60), counts(70, short=True))),
    "short-once-again": (
        "NoPressure",
        facts(),
        (counts(0, short=True), counts(50), counts(100, short=True)),
    ),
    "scanned-and-nothing-hot": (
        "NoPressure",
        facts(),
        (counts(0), counts(100, numa_pte_updates=500)),
    ),
    "demoted": ("Moved", facts(), (counts(0), counts(1, pgdemote_kswapd=1))),
    "promoted": ("Moved", facts(), (counts(0), counts(1, pgpromote_success=1))),
    "moved-and-at-rest-since": (
        "Moved",
        facts(),
        (counts(0), counts(50, pgpromote_success=1), counts(5000, pgpromote_success=1)),
    ),
    "some-go-to-swap": (
        "Moved",
        facts(),
        (counts(0), counts(50, pgdemote_kswapd=100, pswpout=20, numa_pte_updates=1)),
    ),
    "bound": (
        "NothingMoves",
        facts(),
        (counts(0, short=True), counts(LASTING, short=True, pgscan_kswapd=1)),
    ),
    "short-and-the-slow-nodes-have-room": (
        "NoPressure",
        facts(),
        (counts(0, short=True), counts(LASTING, short=True)),
    ),
    "slow-nodes-full": (
        "TargetFull",
        facts(),
        (counts(0, short=True, full=True), counts(LASTING, short=True, full=True)),
    ),
    "slow-nodes-full-and-swap": (
        "TargetFull",
        facts(),
        (counts(0), counts(20, full=True, pswpout=50, pgdemote_kswapd=10)),
    ),
    "one-tier": ("NoLowerTier", flat(), (counts(0, short=True), counts(40, short=True))),
    "mode-2-alone": (
        "DemotionOff",
        facts(demotion_enabled="0"),
        (counts(0), counts(20, pswpout=50)),
    ),
    "mode-2-alone-without-swap": (
        "DemotionOff",
        facts(demotion_enabled="0"),
        (counts(0, short=True), counts(40, short=True, pgpromote_success=3)),
    ),
    "swap-beside-room": (
        "SwapsOut",
        facts(),
        (counts(0), counts(20, pswpout=50, pgdemote_kswapd=10)),
    ),
    "fast-nodes-full": (
        "FastFull",
        facts(),
        (counts(0), counts(40, short=True, pgpromote_candidate=500, pgdemote_kswapd=1)),
    ),
    "hot-and-not-isolated": (
        "NothingMoves",
        facts(),
        (counts(0), counts(40, pgpromote_candidate=500)),
    ),
    "limited": (
        "RateLimit",
        facts(promote_rate_limit_MBps="1"),
        (counts(0), counts(40, pgpromote_candidate=1_000_000, pgpromote_success=10_240)),
    ),
    "limited-a-little": (
        "Moved",
        facts(promote_rate_limit_MBps="1"),
        (counts(0), counts(40, pgpromote_candidate=20_000, pgpromote_success=10_240)),
    ),
    "never-scanned": (
        "ScanningOff",
        facts(),
        (counts(0), counts(60, pgdemote_kswapd=5), counts(SCANNED, pgdemote_kswapd=9)),
    ),
    "idle-ones-are-demoted-once": (
        "Moved",
        facts(),
        (counts(0), counts(SCANNED, pgdemote_kswapd=5), counts(5000, pgdemote_kswapd=5)),
    ),
    "never-scanned-as-demotion-alone-is-on": (
        "Moved",
        facts(numa_balancing="0"),
        (counts(0), counts(SCANNED, pgdemote_kswapd=5)),
    ),
    "ping-pong": (
        "PingPong",
        facts(),
        (counts(0), counts(20, pgdemote_kswapd=MUCH, pgpromote_success=MUCH - 5)),
    ),
    "much-goes-down-and-little-up": (
        "Moved",
        facts(),
        (counts(0), counts(20, pgdemote_kswapd=4 * MUCH, pgpromote_success=MUCH)),
    ),
    "a-burst": (
        "Moved",
        facts(),
        (counts(0), counts(5, pgdemote_kswapd=MUCH, pgpromote_success=MUCH)),
    ),
    "after-a-boot": (
        "NoPressure",
        facts(),
        (counts(0), counts(50, pgdemote_kswapd=5), counts(9, boot="b", pgdemote_kswapd=7)),
    ),
    "counters-began-anew": (
        "NoPressure",
        facts(),
        (counts(0, short=True, pgdemote_kswapd=9), counts(50, short=True)),
    ),
    "trouble-is-over-for-a-moment": (
        "SwapsOut",
        facts(),
        (
            counts(0),
            counts(20, pswpout=50),
            counts(40, pswpout=50, pgdemote_kswapd=9),
        ),
    ),
    "trouble-is-over": (
        "Moved",
        facts(),
        (
            counts(0),
            counts(20, pswpout=50),
            counts(40, pswpout=50, pgdemote_kswapd=9),
            counts(90, pswpout=50, pgdemote_kswapd=9),
        ),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_was_counted_leads_to_a_verdict(name: str) -> None:
    reason, host, found = CASES[name]
    verdicts = {"NoPressure": "armed", "Moved": "working"}
    standing = told(host, *found)
    assert (verdicts.get(reason, "not working"), reason) == (standing.verdict, standing.reason)


def test_every_reason_of_trouble_has_a_case() -> None:
    assert set(TROUBLES) == {reason for reason, _, _ in CASES.values()} & set(TROUBLES)


def test_every_trouble_names_a_remedy() -> None:
    assert [] == [reason for reason in TROUBLES if REASONS[reason].count(": ") != 1]


def test_a_kernel_that_counts_nothing_is_unknown() -> None:
    first, second = (replace(counts(at, short=True), whole={"pswpout": 3}) for at in (0, 500))
    standing = told(facts(), first, second)
    assert ("unknown", "NotCounted") == (standing.verdict, standing.reason)
    assert standing.moved(DEMOTED) is None


def test_what_is_armed_anew_is_judged_anew() -> None:
    found = counts(0), counts(50, pgdemote_kswapd=5), counts(60, pgdemote_kswapd=5)
    before = told(facts(), *found[:2])
    assert "working" == before.verdict
    for host, generation in ((facts(), 2), (facts(numa_balancing="3"), 1)):
        assert "armed" == judged(before, found[2], host, TIERS, generation).verdict
    assert "working" == judged(before, found[2], facts(), TIERS, 1).verdict


def test_pages_are_counted_since_it_was_armed() -> None:
    standing = told(
        facts(),
        counts(0, pgdemote_kswapd=7),
        counts(50, pgdemote_kswapd=9),
        counts(99, pgdemote_kswapd=12, pgpromote_success=4),
    )
    assert (5, 4) == (standing.moved(DEMOTED), standing.moved(PROMOTED))


# -- what the kernel's files say ---------------------------------------------------

ZONE = """Node {node}, zone {name:>8}
  pages free     {free}
        boost    0
        min      80
        low      100
        high     120
        spanned  {managed}
        present  {managed}
        managed  {managed}
        protection: ({kept})
"""


def zone(node: int, name: str, free: int, managed: int = 5000, kept: str = "0, 0, 0") -> str:
    return ZONE.format(node=node, name=name, free=free, managed=managed, kept=kept)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (zone(0, "Normal", 99), Room(short=True, full=True)),
        (zone(0, "Normal", 110), Room(short=False, full=True)),
        (zone(0, "Normal", 120), Room(short=False, full=False)),
        (zone(0, "DMA32", 900) + zone(0, "Normal", 9), Room(short=False, full=False)),
        (zone(0, "DMA32", 900, kept="0, 0, 850") + zone(0, "Normal", 9), Room(True, True)),
        (zone(0, "Normal", 9) + zone(0, "Movable", 0, managed=0), Room(short=True, full=True)),
    ],
    ids=["short", "between", "room", "room-below", "kept-back", "empty-zone"],
)
def test_room_is_told_by_all_zones_of_a_node(text: str, expected: Room) -> None:
    assert {0: expected} == room(text)


def test_counters_that_are_no_numbers_are_not_there() -> None:
    assert {"pswpout": 4} == counters("pswpout 4\npgdemote_kswapd -\n\nodd\n", ALL)
