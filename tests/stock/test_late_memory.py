# SPDX-License-Identifier: Apache-2.0
"""Slow memory that comes after the daemon, as CXL memory does: a DAX device that kmem brings in.

Firmware's HMAT tells of it, and its range is set apart from what the kernel boots with. The tests
are one story, in this order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.host import PATIENCE, installed, shown, status, until
from tests.stock.hold import Hold
from tests.stock.stock import CLOCK, DEMOTED, MIB, free, give, moved, verdict
from vm import images
from vm.guest import Guest
from vm.machine import Machine, Node

pytestmark = pytest.mark.system

FAST, SLOW = 1024, 768
"""MiB."""
MACHINE = Machine(
    nodes=(Node(cpus=2, memory=FAST), Node(memory=SLOW)),
    icount=CLOCK,
    # RAM that is for somebody's own use: E820's own type for what EFI marks so
    append=(f"memmap={SLOW}M%0x100000000-1+0xefffffff",),
    # the slow node begins at 4 GiB
    extra=("-machine", f"max-ram-below-4g={FAST}M"),
)
MODULES = ["dax_hmem", "kmem", "device_dax"]
MANY = 32 * MIB
LEFT = 64


@pytest.fixture(scope="module")
def vm(package: Path) -> Iterator[Guest]:
    """A host whose slow memory is not there yet."""
    with installed(package, MACHINE, kernel=images.debian_kernel(), carry=MODULES) as found:
        yield found


def nodes(vm: Guest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(vm.ok("dsatier", "facts", "--json"))["nodes"]
    return found


def test_without_slow_memory_the_profile_is_refused(vm: Guest) -> None:
    """It says what is missing, and what brings it."""
    assert ["0"] == [str(node["id"]) for node in nodes(vm) if node["mem_total"]]
    give(vm, "tiering.yaml")
    assert vm.run("systemctl", "reload", "dsatier", timeout=PATIENCE).code
    shown(vm, "without slow memory")
    found = status(vm)
    assert ("unmanaged", "Refused") == (found["state"], found["profile"]["status"])
    assert "a slow node" in found["profile"]["message"]


def test_memory_that_comes_is_taken_into_the_tiers(vm: Guest) -> None:
    """Nobody asks the daemon: it hears of the node, or looks."""
    vm.sh("modprobe dax_hmem; modprobe kmem", timeout=PATIENCE)
    found = until(vm, "tiered", lambda s: s["state"] == "converged")
    shown(vm, "with slow memory")
    assert "Accepted" == found["profile"]["status"]
    assert "armed" == found["tiering"]["verdict"]
    fast, slow = nodes(vm)
    assert fast["tier"] < slow["tier"]
    assert 0 < slow["mem_total"] <= SLOW << 20
    print(vm.ok("dsatier", "facts"))


def test_pages_are_demoted_to_it(vm: Guest) -> None:
    hold = Hold(vm, "node=0")
    at = moved(vm, DEMOTED)
    while hold.pages()[1] < MANY:
        assert free(vm, 1) > LEFT, "the slow node is full, and too few pages were demoted"
        hold.take()
    assert moved(vm, DEMOTED) - at >= MANY
    verdict(vm, "working", "Moved")
    hold.end()
