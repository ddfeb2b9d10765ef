# SPDX-License-Identifier: Apache-2.0
"""A pass leaves nothing behind, whether it finds something to do or not."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable

import pytest

from dsatier.daemon import tidy
from dsatier.drive import Driver
from dsatier.glance import Glance
from dsatier.loader import from_texts
from dsatier.sim.host import SimHost
from dsatier.targets import target

TEXT = "version: 1\nconcurrency: {use_concur_to_compact: true}\n"
PASSES = 200


def left_by(what: Callable[[], object]) -> float:
    """Return how many objects more there are after each call, when it has been made often."""
    found = []
    for _ in range(2):
        for _ in range(PASSES):
            what()
        tidy()
        found.append(sys.getallocatedblocks())
    return (found[1] - found[0]) / PASSES


@pytest.fixture
def sim() -> SimHost:
    """A host without devices: its kernel has nothing to log."""
    return SimHost.host_for("no-dsa")


def test_a_leak_of_one_object_would_be_seen() -> None:
    kept: list[object] = []
    assert 0.9 < left_by(lambda: kept.append(object()))


def test_a_pass_that_finds_nothing(sim: SimHost) -> None:
    driver, glance = Driver(sim), Glance(sim)
    facts = driver.look()
    wanted = target(sim.read, from_texts([("a", TEXT)], facts), facts, None)
    driver.apply(wanted)

    def one() -> None:
        assert "unchanged" == driver.reconcile(wanted).result
        glance.remember(facts)
        assert glance.changed() is None

    assert left_by(one) < 0.2


def test_a_pass_that_reads_the_timer() -> None:
    """By its names: a search for each of them would leave one in Python's cache of methods."""
    driver = Driver(SimHost.host_for("dsa8"))
    assert left_by(driver.look) < 0.2


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="the cache of later Pythons has no such")
def test_a_tidy_pass_keeps_no_names(sim: SimHost) -> None:
    """Each class pattern looks for an attribute by a name that is made anew."""
    driver = Driver(sim)
    facts = driver.look()
    for text in (TEXT, TEXT.replace("true", "false")) * 5:
        driver.apply(target(sim.read, from_texts([("a", text)], facts), facts, None))
    gc.collect()
    before = sys.getallocatedblocks()
    tidy()
    assert sys.getallocatedblocks() < before
