# SPDX-License-Identifier: Apache-2.0
"""Two sockets, each with a slow node near it, as firmware's HMAT and distances tell.

The second slow node comes when the host is tiered already. The tests are one story, in this order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.host import PATIENCE, host, installed, reload, shown, status, steps
from tests.stock.hold import Hold
from tests.stock.stock import (
    BRINGING,
    CLOCK,
    DEMOTED,
    MIB,
    apart,
    free,
    give,
    moved,
    verdict,
    wait_until,
)
from vm import images
from vm.guest import Guest
from vm.machine import Machine, Node

pytestmark = pytest.mark.system

SLOW = 512
"""MiB of each slow node."""
MACHINE = Machine(
    nodes=(
        Node(cpus=1, memory=1024),
        Node(cpus=1, memory=1024),
        Node(memory=SLOW, near=0),
        Node(memory=SLOW, near=1),
    ),
    icount=CLOCK,
    append=apart((4 << 30) + (SLOW << 20), SLOW, "online_movable"),
    # the slow nodes begin at 4 GiB
    extra=("-machine", "max-ram-below-4g=2G"),
)
NEAR = {0: 2, 1: 3}
"""The slow node that is near to each fast one."""
MANY = 32 * MIB
LEFT = 64


@pytest.fixture(scope="module")
def vm(package: Path) -> Iterator[Guest]:
    """A host that is tiered as shipped for two sockets, while one of them has slow memory."""
    kernel = images.debian_kernel()
    with installed(host(package, MACHINE, kernel=kernel, carry=BRINGING)) as found:
        give(found, "tiering-sockets.yaml")
        reload(found)
        yield found


def tiers_told(vm: Guest) -> list[tuple[str, str]]:
    """Return what the journal says of nodes that came or went: the tiers before, and then."""
    lines = vm.ok("journalctl", "-b", "-u", "dsatier", "-o", "cat").splitlines()
    found = [json.loads(line) for line in lines if '"event": "tiers"' in line]
    return [(entry["before"], entry["what"]) for entry in found]


def test_up(vm: Guest) -> None:
    found = status(vm)
    shown(vm, "after systemctl reload")
    assert ("converged", "Accepted") == (found["state"], found["profile"]["status"])
    assert "armed" == found["tiering"]["verdict"]
    assert "3" == vm.read("/proc/sys/kernel/numa_balancing")


def test_a_slow_node_that_comes_late_is_taken_into_the_tiers(vm: Guest) -> None:
    """Nobody asks the daemon: it hears of the node, or looks. No knob has to change."""
    assert [] == tiers_told(vm)
    assert steps(vm)
    vm.sh("modprobe dax_hmem; modprobe kmem", timeout=PATIENCE)
    wait_until("the node is told of", lambda: bool(tiers_told(vm)))
    before, now = "fast nodes 0-1, slow node 2", "fast nodes 0-1, slow nodes 2-3"
    assert [(before, now)] == tiers_told(vm)
    assert ([], "converged") == (steps(vm), status(vm)["state"])
    entries = json.loads(vm.ok("dsatier", "history", "--json"))["entries"]
    (told,) = (entry for entry in entries if "tiers" == entry["event"])
    assert f"{now}; before: {before}" == told["message"]


def test_nodes_are_told_apart_and_paired(vm: Guest) -> None:
    nodes = json.loads(vm.ok("dsatier", "facts", "--json"))["nodes"]
    assert [[0], [1], [], []] == [node["cpus"] for node in nodes]
    assert nodes[0]["tier"] == nodes[1]["tier"] < nodes[2]["tier"] == nodes[3]["tier"]
    field = ("tiers.nodes.near", "-p", "/usr/share/dsatier/profiles/tiering-sockets.yaml")
    live = json.loads(vm.ok("dsatier", "explain", *field, "--json"))["live"]
    assert "2 near 0: distance 14, 3 near 1: distance 14" == live


def test_the_kernel_demotes_to_the_same_pairs(vm: Guest) -> None:
    said = vm.ok("dmesg")
    found = re.findall(r"Demotion targets for Node (\d+): preferred: ([\d,-]+), fallback", said)
    assert {str(fast): str(slow) for fast, slow in NEAR.items()} == dict(found)


@pytest.mark.parametrize("fast", NEAR)
def test_each_socket_demotes_to_the_slow_node_near_it(vm: Guest, fast: int) -> None:
    """Every byte is read back."""
    near, other = NEAR[fast], NEAR[1 - fast]
    at = moved(vm, DEMOTED, fast), moved(vm, DEMOTED, 1 - fast)
    hold = Hold(vm, f"node={fast}", cpu=fast)
    hold.take(64)
    while hold.pages()[near] < MANY:
        assert free(vm, near) > LEFT, "the near node is full, and too few pages were demoted"
        hold.take()
    placed = hold.pages()
    print(f"node {fast}: {moved(vm, DEMOTED, fast) - at[0]} pages were demoted; {placed}")
    assert moved(vm, DEMOTED, fast) - at[0] >= MANY
    assert 0 == placed[other] == moved(vm, DEMOTED, 1 - fast) - at[1]
    verdict(vm, "working", "Moved")
    hold.end()
