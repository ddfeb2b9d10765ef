# SPDX-License-Identifier: Apache-2.0
"""Slow memory that comes after the daemon, as CXL memory does: a DAX device that kmem has.

Firmware sets its range apart and its HMAT tells of it. Nobody brings its memory blocks online, as
on Debian 12 and RHEL. The tests are one story, in this order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.host import PATIENCE, host, installed, reload, shown, status, steps, until
from tests.stock.hold import Hold
from tests.stock.stock import (
    BRINGING,
    CLOCK,
    DEMOTED,
    EACH,
    KERNELS,
    MIB,
    MINE,
    apart,
    free,
    give,
    moved,
    verdict,
)
from vm.guest import Guest
from vm.machine import Machine, Node

pytestmark = pytest.mark.system

FAST, SLOW = 1024, 768
"""MiB."""
MACHINE = Machine(
    nodes=(Node(cpus=2, memory=FAST), Node(memory=SLOW)),
    icount=CLOCK,
    append=apart(4 << 30, SLOW, "offline"),
    # the slow node begins at 4 GiB
    extra=("-machine", f"max-ram-below-4g={FAST}M"),
)
BLOCKS = SLOW // 128
"""Memory blocks of the slow node."""
ONLINE = "/etc/dsatier.d/60-online.yaml"
DEVICE = "dax0.0"
MANY = 32 * MIB
LEFT = 64


@pytest.fixture(scope="module", params=EACH)
def vm(request: pytest.FixtureRequest, package: Path) -> Iterator[Guest]:
    """A host whose slow memory is not there yet."""
    kernel = KERNELS[request.param]()
    with installed(host(package, MACHINE, kernel=kernel, carry=BRINGING)) as found:
        yield found


def facts(vm: Guest) -> dict[str, Any]:
    """Return what dsatier finds."""
    found: dict[str, Any] = json.loads(vm.ok("dsatier", "facts", "--json"))
    return found


def with_memory(vm: Guest) -> list[int]:
    """Return the nodes that have memory."""
    return [node["id"] for node in facts(vm)["nodes"] if node["mem_total"]]


def blocks(vm: Guest) -> dict[str, list[int]]:
    """Return the blocks of the device, by how they are."""
    (device,) = facts(vm)["memory_devices"]
    assert (DEVICE, "hmem", "kmem", 1) == tuple(
        device[key] for key in ("id", "kind", "driver", "target_node")
    )
    found: dict[str, list[int]] = device["blocks"]
    return found


def refused(vm: Guest, title: str) -> str:
    """Reload, and return why the profile is refused."""
    assert vm.run("systemctl", "reload", "dsatier", timeout=PATIENCE).code
    shown(vm, title)
    found = status(vm)
    assert "Refused" == found["profile"]["status"]
    return str(found["profile"]["message"])


def let(vm: Guest, state: str) -> None:
    """Have all blocks of the slow node go or come, as somebody does by hand."""
    blocks = '"/sys/devices/system/node/node1/memory"[0-9]*'
    script = f'for block in {blocks}; do echo "$1" >"$block/state"; done'
    vm.sh(script, state, timeout=PATIENCE)


# -- the story -----------------------------------------------------------------------


def test_the_profile_waits_for_the_memory_that_it_names(vm: Guest) -> None:
    assert [0] == with_memory(vm)
    give(vm, "tiering.yaml")
    vm.put(ONLINE, "version: 1\ntiers: {online: {nodes: [1]}}\n")
    assert "not there yet: no device of that node" in refused(vm, "without slow memory")
    assert "unmanaged" == status(vm)["state"]


def test_memory_that_comes_is_brought_online_and_tiered(vm: Guest) -> None:
    """Nobody asks the daemon: it hears of the device, or looks."""
    vm.sh("modprobe dax_hmem; modprobe kmem", timeout=PATIENCE)
    found = until(vm, "tiered", lambda s: s["state"] == "converged")
    shown(vm, "with slow memory")
    assert ("Accepted", "armed") == (found["profile"]["status"], found["tiering"]["verdict"])
    told = blocks(vm)
    assert ([], BLOCKS, []) == (told["offline"], len(told["movable"]), told["others"])
    fast, slow = facts(vm)["nodes"]
    assert fast["tier"] < slow["tier"]
    assert SLOW == slow["mem_total"] >> 20
    taken = steps(vm)
    assert re.fullmatch(rf"memory blocks [\d-]+ of {DEVICE} online", taken[0]), taken
    assert [0, 1] == with_memory(vm)
    print(vm.ok("dsatier", "facts"))


def test_pages_are_demoted_to_it(vm: Guest) -> None:
    """Every byte is read back."""
    hold = Hold(vm, "node=0")
    at = moved(vm, DEMOTED)
    while hold.pages()[1] < MANY:
        assert free(vm, 1) > LEFT, "the slow node is full, and too few pages were demoted"
        hold.take()
    assert moved(vm, DEMOTED) - at >= MANY
    verdict(vm, "working", "Moved")
    shown(vm, "under pressure")
    hold.end()


def test_it_stays_when_dsatier_goes(vm: Guest) -> None:
    """Who let it go is told so."""
    vm.ok("rm", ONLINE)
    give(vm, "detach.yaml")
    reload(vm)
    shown(vm, "after detach")
    assert BLOCKS == len(blocks(vm)["movable"])
    vm.ok("rm", MINE)
    reload(vm)
    said = vm.run("dsatier", "rollback", timeout=PATIENCE)
    shown(vm, "after rollback")
    assert f"the memory of {DEVICE} is left online" in said.out + said.err
    assert BLOCKS == len(blocks(vm)["movable"])


def test_memory_that_somebody_brings_is_taken_into_the_tiers(vm: Guest) -> None:
    """The shipped profile brings nothing itself, says what would, and goes on when it is there."""
    let(vm, "offline")
    assert ([0], BLOCKS) == (with_memory(vm), len(blocks(vm)["offline"]))
    give(vm, "tiering.yaml")
    refused(vm, "with memory that is offline")
    said = vm.run("dsatier", "plan").out
    assert "tiers: {online: {nodes: [1]}}" in said, said
    let(vm, "online_movable")
    found = until(vm, "tiered", lambda s: s["state"] == "converged")
    shown(vm, "with memory that somebody has brought")
    assert "armed" == found["tiering"]["verdict"]
    assert "true" == vm.read("/sys/kernel/mm/numa/demotion_enabled")
