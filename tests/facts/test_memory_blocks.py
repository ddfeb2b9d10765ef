# SPDX-License-Identifier: Apache-2.0
"""Which memory blocks a DAX device has, and how they are."""

from __future__ import annotations

import errno

import pytest

from dsatier.cli.render import facts as show_facts
from dsatier.facts.model import Blocks
from dsatier.facts.observe.memory import MemoryEyes
from dsatier.facts.observe.observer import observe
from dsatier.facts.observe.parse import Malformed
from dsatier.host.port import Rejected
from dsatier.sim.host import SimHost
from tests.support.memory import TextHost

DEVICE = "/sys/bus/dax/devices/dax0.0"
BLOCKS = "/sys/devices/system/memory"
GIB = 1 << 30


def host(*ranges: tuple[int, int], driver: str = "kmem", **states: str) -> TextHost:
    """Return a host with a device of these ranges, and blocks of 1 GiB: ``b4="online Movable"``."""
    files = {f"{DEVICE}/target_node": "2\n", f"{BLOCKS}/block_size_bytes": "40000000\n"}
    for number, (first, last) in enumerate(ranges):
        files[f"{DEVICE}/mapping{number}/start"] = f"{first:#x}\n"
        files[f"{DEVICE}/mapping{number}/end"] = f"{last:#x}\n"
    for name, words in states.items():
        state, _, zones = words.partition(" ")
        files[f"{BLOCKS}/memory{name[1:]}/state"] = f"{state}\n"
        files[f"{BLOCKS}/memory{name[1:]}/valid_zones"] = f"{zones}\n"
    link = {f"{DEVICE}/driver": f"../../../bus/dax/drivers/{driver}"} if driver else {}
    return TextHost(files, link)


def blocks(found: TextHost) -> Blocks | None:
    (device,) = MemoryEyes(found).devices(())
    return device.blocks


def test_only_blocks_that_lie_whole_in_its_ranges_are_its_own() -> None:
    states = {f"b{number}": "offline Normal Movable" for number in range(3, 12)}
    two = host((4 * GIB - 4096, 6 * GIB - 1), (8 * GIB, 10 * GIB - 4097), **states)
    assert Blocks(GIB, offline=(4, 5, 8)) == blocks(two)


@pytest.mark.parametrize(
    ("words", "how"),
    [
        ("offline Normal Movable", "offline"),
        ("going-offline Movable", "offline"),
        ("online Movable", "movable"),
        ("online Normal", "others"),
        ("online none", "others"),
    ],
)
def test_how_a_block_is(words: str, how: str) -> None:
    found = blocks(host((4 * GIB, 5 * GIB - 1), b4=words))
    assert found is not None
    assert (4,) == getattr(found, how)
    assert {4} == found.all


@pytest.mark.parametrize("driver", ["device_dax", ""])
def test_of_a_device_that_kmem_does_not_have_no_block_is_looked_for(driver: str) -> None:
    found = host((4 * GIB, 5 * GIB - 1), driver=driver, b4="online Movable")
    assert blocks(found) is None
    assert not any(path.startswith(BLOCKS) for path in found.reads)


def test_a_device_without_blocks_has_none() -> None:
    assert blocks(host((4 * GIB, 5 * GIB - 1))) is None
    assert blocks(host(b4="online Movable")) is None


def test_who_may_not_read_where_memory_is_sees_no_blocks() -> None:
    class Closed(TextHost):
        def read(self, path: str) -> str:
            if "/mapping" in path:
                raise Rejected(path, errno.EACCES, "permission denied")
            return super().read(path)

    whole = host((4 * GIB, 5 * GIB - 1), b4="online Movable")
    assert blocks(Closed(whole.files, whole.links)) is None


def test_an_address_that_is_none_is_told() -> None:
    found = host((4 * GIB, 5 * GIB - 1), b4="online Movable")
    found.files[f"{DEVICE}/mapping0/start"] = "here\n"
    with pytest.raises(Malformed, match="mapping0: expected a whole number"):
        blocks(found)


def test_blocks_are_read_again_only_when_their_node_has_changed() -> None:
    sim = SimHost.host_for("stock-offline")
    nodes = observe(sim).nodes
    eyes = MemoryEyes(sim)
    (before,) = eyes.devices(nodes)
    assert before.blocks is not None
    sim.poke(f"{BLOCKS}/memory{before.blocks.offline[0]}/state", "online_movable\n")
    assert (before,) == eyes.devices(nodes)
    (after,) = eyes.devices(observe(sim).nodes)
    assert after.blocks is not None
    assert before.blocks.offline[:1] == after.blocks.movable


def test_blocks_that_come_without_memory_are_seen() -> None:
    found = host((4 * GIB, 6 * GIB - 1), b4="offline Normal Movable")
    eyes = MemoryEyes(found)
    assert [Blocks(GIB, offline=(4,))] == [one.blocks for one in eyes.devices(())]
    found.files[f"{BLOCKS}/memory5/state"] = "offline\n"
    assert [Blocks(GIB, offline=(4, 5))] == [one.blocks for one in eyes.devices(())]


def test_they_are_shown() -> None:
    lines = show_facts(observe(SimHost.host_for("stock-offline"))).splitlines()
    assert "dax1.0    cxl, kmem, node 1; memory blocks of 2048 MiB: 32 offline" in lines
    lines = show_facts(observe(SimHost.host_for("stock-6-1"))).splitlines()
    assert "dax3.0    cxl, kmem, node 3; memory blocks of 2048 MiB: 64 movable" in lines
