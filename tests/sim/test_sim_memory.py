# SPDX-License-Identifier: Apache-2.0
"""Memory blocks as drivers/base/memory.c has them, and devices that come late."""

from __future__ import annotations

import errno
import json
from typing import Any

import pytest

from dsatier.host.port import Missing, Rejected
from dsatier.sim import spec
from dsatier.sim.faults import LateMemory, PoisonedBlock
from dsatier.sim.host import SimHost
from tests.sim.simhosts import get, put

NODE = "/sys/devices/system/node"
BLOCK = "/sys/devices/system/memory/memory16"
TIER = "/sys/devices/virtual/memory_tiering/memory_tier22/nodelist"
CXL = {"memory": 4, "used": 0, "tier": 22, "device": "cxl", "blocks": "offline"}


def host(**slow: Any) -> SimHost:
    nodes = [{"cpus": "0-3", "memory": 16, "tier": 4}, CXL | slow]
    kernel = {"release": "6.12.117+deb13-amd64", "kind": "stock"}
    return SimHost.of(spec.parse(json.dumps({"version": 1, "kernel": kernel, "nodes": nodes})))


def refused(h: SimHost, path: str, text: str) -> int:
    with pytest.raises(Rejected) as caught:
        put(h, path, text)
    return caught.value.errno


def total(h: SimHost) -> str:
    return get(h, f"{NODE}/node1/meminfo").split("\n")[0].split(":")[1].strip()


def test_a_node_grows_by_each_block_and_is_in_its_tier_then() -> None:
    h = host()
    assert ("0-1", "0", "") == (
        get(h, f"{NODE}/online"), get(h, f"{NODE}/has_memory"), get(h, TIER)
    )  # fmt: skip
    assert "80000000" == get(h, "/sys/devices/system/memory/block_size_bytes")
    assert "0x800000000" == get(h, "/sys/bus/dax/devices/dax1.0/mapping0/start")
    assert ("offline", "Normal Movable") == (
        get(h, f"{BLOCK}/state"),
        get(h, f"{BLOCK}/valid_zones"),
    )
    put(h, f"{BLOCK}/state", "online_movable")
    assert ("online", "Movable") == (get(h, f"{BLOCK}/state"), get(h, f"{BLOCK}/valid_zones"))
    assert (f"{2 << 20} kB", "0-1", "1") == (total(h), get(h, f"{NODE}/has_memory"), get(h, TIER))


@pytest.mark.parametrize("word", ["online", "online_movable", "online_kernel"])
def test_what_is_online_does_not_come_again(word: str) -> None:
    h = host(blocks="movable")
    assert errno.EINVAL == refused(h, f"{BLOCK}/state", word)


@pytest.mark.parametrize(("word", "zone"), [("online", "Normal"), ("online_kernel", "Normal")])
def test_only_what_is_in_zone_movable_goes_again(word: str, zone: str) -> None:
    h = host()
    assert errno.EINVAL == refused(h, f"{BLOCK}/state", "offline")
    assert errno.EINVAL == refused(h, f"{BLOCK}/state", "unplugged")
    put(h, f"{BLOCK}/state", word)
    assert zone == get(h, f"{BLOCK}/valid_zones")
    assert errno.EBUSY == refused(h, f"{BLOCK}/state", "offline")


def test_what_is_in_zone_movable_goes() -> None:
    h = host(blocks="movable")
    put(h, f"{BLOCK}/state", "offline")
    assert ("offline", f"{2 << 20} kB") == (get(h, f"{BLOCK}/state"), total(h))


def test_a_full_block_stays() -> None:
    h = host(blocks="movable", used=3)
    assert errno.EBUSY == refused(h, f"{BLOCK}/state", "offline")


def test_a_poisoned_block_does_not_come() -> None:
    h = host()
    h.inject(PoisonedBlock("poisoned-block", 1))
    assert 133 == refused(h, f"{BLOCK}/state", "online_movable")
    put(h, "/sys/devices/system/memory/memory17/state", "online_movable")


def test_a_late_device_brings_its_node() -> None:
    h = host(blocks="movable")
    h.inject(LateMemory("late-memory", 1, 5.0))
    assert "0" == get(h, f"{NODE}/online")
    assert "10" == get(h, f"{NODE}/node0/distance")
    for path in (f"{NODE}/node1/meminfo", f"{BLOCK}/state"):
        with pytest.raises(Missing):
            h.read(path)
    assert () == h.entries("/sys/bus/dax/devices")
    assert "node1" not in h.entries(NODE)
    again = SimHost.restore(h.state_text())
    again.sleep(5.0)
    assert ("0-1", "10 21") == (get(again, f"{NODE}/online"), get(again, f"{NODE}/node0/distance"))
    assert ("dax1.0",) == again.entries("/sys/bus/dax/devices")
    assert f"{4 << 20} kB" == total(again)


def test_a_late_device_that_is_healed_is_there_at_once() -> None:
    h = host(blocks="movable")
    h.inject(LateMemory("late-memory", 1, 3600.0))
    h.heal("late-memory")
    assert "0-1" == get(h, f"{NODE}/online")


@pytest.mark.parametrize(
    ("slow", "words"),
    [
        ({"cpus": "4"}, "no CPUs"),
        ({"memory": 1}, "2 GiB or more"),
        ({"device": None}, "only for a node with a device"),
    ],
)
def test_a_description_of_a_device_that_cannot_be_is_refused(
    slow: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        host(**slow)


def test_a_fault_of_a_node_without_a_device_is_refused() -> None:
    late = {"kind": "late-memory", "node": 0}
    kernel = {"release": "6.12.117+deb13-amd64", "kind": "stock"}
    text = {"version": 1, "kernel": kernel, "nodes": [{"cpus": "0"}], "faults": [late]}
    with pytest.raises(ValueError, match="a node with a device, found 0"):
        spec.parse(json.dumps(text))


def test_a_state_with_other_blocks_is_refused() -> None:
    kept = json.loads(host().state_text())
    kept["state"]["blocks"] = ["", "-"]
    with pytest.raises(ValueError, match="other memory blocks"):
        SimHost.restore(json.dumps(kept))
