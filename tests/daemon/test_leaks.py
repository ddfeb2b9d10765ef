# SPDX-License-Identifier: Apache-2.0
"""A pass leaves nothing behind, whether it finds something to do or not."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from dsatier.apply.driver import Driver
from dsatier.apply.target import target
from dsatier.daemon.loop import tidy
from dsatier.daemon.poll import Glance
from dsatier.profile.load import from_texts
from dsatier.sim.host import SimHost
from tests.support.running import Running, daemon
from tests.support.treehost import Layout

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


def kept_open(running: Running) -> set[str]:
    """Return the files of its host that a daemon has open."""
    found = set()
    for descriptor in Path(f"/proc/{running.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was open for a moment
            found.add(os.readlink(descriptor))
    return {path for path in found if path.startswith(f"{running.root}/sys/")}


def test_another_slow_node_is_no_other_host() -> None:
    """What stays for a boot is not read once more for it, and then kept open for good."""
    with daemon(None, started=False) as running:
        Layout(SimHost.host_for("dsa2"), running.root)
        running.start()
        for _ in range(3):  # what is read a second time is kept open
            running.look()
        before = kept_open(running)
        running.profile("version: 1\ntiers: {slow_node: 7, cpuless: true}\n")
        assert 1 == running.reload().code
        running.look()
        assert set() == kept_open(running) - before != before


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
