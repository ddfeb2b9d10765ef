# SPDX-License-Identifier: Apache-2.0
"""The demotion mark: kswapd demotes when memory falls below it, up to it, and never otherwise."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from dsatier.facts.observe.parse import demotion
from tests.kernel.ours import program
from vm.booting import guest
from vm.guest import Command, Guest, GuestError
from vm.machine import Machine, Node
from vm.ours import CGROUP, control_group, kernel

pytestmark = pytest.mark.system

FACTOR = "/proc/sys/vm/demote_scale_factor"
BALANCING = "/proc/sys/kernel/numa_balancing"
DEMOTION = "/sys/kernel/mm/numa/demotion_enabled"
LRU_GEN = "/sys/kernel/mm/lru_gen/enabled"
SCALE = "/proc/sys/vm/watermark_scale_factor"
KEPT = "/proc/sys/vm/percpu_pagelist_high_fraction"
"""One part in so many of a zone may lie on lists of the CPUs; 0 lets the kernel choose."""
MIB = 256
"""Pages."""


@pytest.fixture(scope="module")
def vm() -> Iterator[Guest]:
    """A guest whose fast node has 1 GiB, all of it below 4 GiB, so in zone DMA32."""
    machine = Machine(nodes=(Node(cpus=2, memory=1024), Node(memory=1024)))
    files = {"/bin/hold": program("hold")}
    with guest(machine, kernel=kernel(), files=files) as found:
        control_group(found)
        yield found


@pytest.fixture(autouse=True)
def settled(vm: Guest) -> Iterator[None]:
    """Each test begins and ends with tiering off and memory free."""
    yield
    vm.write(DEMOTION, "0")
    vm.write(BALANCING, "0")
    vm.write(FACTOR, "200")
    vm.write(SCALE, "10")
    vm.write(KEPT, "0")
    vm.sh("killall -q hold || true; while pidof hold >/dev/null; do usleep 10000; done")


def zone(vm: Guest, node: int = 0) -> str:
    """Return the text on the zone of a node that has a mark, or may get one: its fullest."""
    zones = re.split(r"^(?=Node )", vm.read("/proc/zoneinfo"), flags=re.MULTILINE)
    mine = [text for text in zones if text.startswith(f"Node {node},")]
    return max(mine, key=lambda text: number(text, "managed"))


def number(text: str, name: str) -> int:
    """Return a number of a zone, in pages."""
    match = re.search(rf"^ +(?:pages )?{name} +(\d+)$", text, re.MULTILINE)
    assert match, name
    return int(match[1])


def free(vm: Guest) -> int:
    return number(zone(vm), "free")


def mark(vm: Guest) -> int:
    return number(zone(vm), "demote")


def count(vm: Guest, *names: str) -> dict[str, int]:
    """Return counters of /proc/vmstat; those that end in _ are sums of all that begin so."""
    rows = [line.split() for line in vm.read("/proc/vmstat").splitlines()]
    return {
        name: sum(int(n) for row, n in rows if row == name or (name[-1] == "_" and name in row))
        for name in names
    }


def grown(vm: Guest, before: dict[str, int]) -> dict[str, int]:
    """Return by how much counters have grown since."""
    return {name: n - before[name] for name, n in count(vm, *before).items()}


def tiering(vm: Guest, factor: int) -> None:
    vm.write(FACTOR, str(factor))
    vm.write(BALANCING, "2")
    vm.write(DEMOTION, "1")


def order(hold: Command, text: str, answer: str) -> None:
    """Have ``hold`` do something, and wait for the answer to it."""
    number = len(hold.out.splitlines()) + 1
    hold.give(f"{text}\n".encode())
    found = hold.wait_for(rf"^{number} (.*)$")
    assert answer == found[1]


def held(vm: Guest, *words: str) -> Command:
    """Start ``hold`` on CPU 0, which is of the fast node."""
    return vm.start("taskset", "1", "/bin/hold", *words, given=None)


def fill(vm: Guest, hold: Command, left: int) -> None:
    """Take memory until ``left`` pages of the fast node are free, a little at a time."""
    while (more := (free(vm) - left) // MIB) > 0:
        more = min(more, 32)
        order(hold, f"more {more}", f"held {more}")


def settle(vm: Guest, wanted: int = 0) -> int:
    """Wait until ``wanted`` pages are free and demotion rests; return how many are free then."""
    last, until = -1, time.monotonic() + 90
    while time.monotonic() < until:
        now = count(vm, "pgdemote_")["pgdemote_"]
        if now == last and free(vm) >= wanted:
            break
        last = now
        time.sleep(0.5)
    return free(vm)


generations = pytest.mark.parametrize("generations", ["0", "7"], ids=["lru", "generations"])


@generations
@pytest.mark.parametrize("huge", [(), ("huge",)], ids=["base", "huge"])
def test_demotion_keeps_the_mark_free(vm: Guest, generations: str, huge: tuple[str, ...]) -> None:
    """Nothing above the mark; below it pages move down until it is free again, and no further."""
    vm.write(LRU_GEN, generations)
    tiering(vm, 2500)
    wanted = mark(vm)
    before = count(vm, "pgdemote_kswapd", "pgdemote_direct", "pswpout", "allocstall_")
    hold = held(vm, *huge)
    fill(vm, hold, wanted + 24 * MIB)
    assert 0 == grown(vm, before)["pgdemote_kswapd"], "above the mark"
    for _ in range(8):  # 128 MiB more, the most of it below the mark
        order(hold, "more 16", "held 16")
    left = settle(vm, wanted - 512)
    found = grown(vm, before)
    print(f"mark {wanted}, free {left}, {found}")
    assert found["pgdemote_kswapd"] > 0
    assert {"pgdemote_direct": 0, "pswpout": 0, "allocstall_": 0} == {
        name: n for name, n in found.items() if name != "pgdemote_kswapd"
    }
    assert wanted <= left + 512, "a huge page, or what was allocated meanwhile, may be missing"
    assert left < wanted + 64 * MIB, "no further than the mark"
    order(hold, "check", "right")


@pytest.mark.parametrize(
    ("balancing", "demotion"),
    [("0", "1"), ("1", "1"), ("2", "0")],
    ids=["off", "numa", "no-demotion"],
)
def test_no_demotion_before_need_where_tiering_is_off(
    vm: Guest, balancing: str, demotion: str
) -> None:
    """The node may be filled far below the mark, as without our patches."""
    vm.write(FACTOR, "5000")
    vm.write(BALANCING, "2")
    below = mark(vm) // 2
    vm.write(BALANCING, balancing)
    vm.write(DEMOTION, demotion)
    before = count(vm, "pgdemote_", "pageoutrun", "pgscan_kswapd")
    hold = held(vm)
    fill(vm, hold, below)
    assert settle(vm) < below + 8 * MIB
    assert {"pgdemote_": 0, "pageoutrun": 0, "pgscan_kswapd": 0} == grown(vm, before)


def test_the_mark_and_what_shows_it(vm: Guest) -> None:
    """It is a share of the zone, at least twice the high watermark, 0 where it has no effect."""
    assert ("200", 0) == (vm.read(FACTOR), mark(vm)), "by default, with tiering off"
    vm.write(BALANCING, "1")
    assert 0 == mark(vm), "balancing alone is no tiering"
    vm.write(BALANCING, "2")
    managed = 0
    for factor in (1, 100, 5000, 10000):
        vm.write(FACTOR, str(factor))  # works out all watermarks anew
        text = zone(vm)
        managed, high = number(text, "managed"), number(text, "high")
        assert min(managed, max(managed * factor // 10000, 2 * high)) == number(text, "demote")
    assert [0] == [number(zone(vm, node=1), "demote")], "the slow node has none"
    others = re.findall(r"^ +demote +(\d+)$", vm.read("/proc/zoneinfo"), re.MULTILINE)
    assert [str(managed)] == [n for n in others if n != "0"], "one zone of the host has a mark"


def test_watermarks_of_allocation_stay(vm: Guest) -> None:
    def marks() -> list[int]:
        return [number(zone(vm), name) for name in ("min", "low", "high", "promo")]

    vm.write(FACTOR, "200")
    before = marks()
    tiering(vm, 9000)
    assert before == marks()


@pytest.mark.parametrize("text", ["0", "10001", "-1", "2147483648", "x"])
def test_what_is_out_of_range_is_refused(vm: Guest, text: str) -> None:
    vm.write(FACTOR, "321")
    with pytest.raises(GuestError, match="nvalid argument"):
        vm.write(FACTOR, text)
    assert "321" == vm.read(FACTOR)


def room(vm: Guest) -> int:
    """Return how many pages the slow node has free beyond its high watermark."""
    vm.write("/proc/sys/vm/stat_refresh", "1")  # what each CPU has counted by itself is counted in
    text = zone(vm, node=1)
    return number(text, "free") - number(text, "high")


def test_a_lower_tier_that_is_full_is_left_alone(vm: Guest) -> None:
    """Nothing is looked at while there is no room below, and that is no failure of the node."""
    vm.write(LRU_GEN, "7")
    vm.write(KEPT, "100000")  # else a CPU keeps more than lies between the high mark and no memory
    below, hold = held(vm, "node=1"), held(vm)
    while (more := min(room(vm) // MIB, 32)) > 0:
        order(below, f"more {more}", f"held {more}")
    order(hold, "more 256", "held 256")
    tiering(vm, 10000)  # there is always something to demote
    settle(vm)
    before = count(vm, "pageoutrun", "pgscan_kswapd", "pgdemote_")
    time.sleep(5)
    found = grown(vm, before)
    print(f"in 5 s with a full lower tier: {found}, room for {room(vm)} pages")
    # a page that somebody frees below may be used
    assert found["pgscan_kswapd"] <= 1024
    assert found["pageoutrun"] <= 20
    assert not unreclaimable(vm)
    order(hold, "check", "right")


@generations
def test_who_finds_nothing_cold_looks_ever_less_often(vm: Guest, generations: str) -> None:
    """There is room below, but nothing may be demoted: twice as long to the next look, each time.

    Memory that its control group protects takes no time to look at.
    """
    vm.write(LRU_GEN, generations)
    vm.write(f"{CGROUP}/tests/memory.min", "max")
    script = 'echo 0 >"$1/tests/cgroup.procs" && exec taskset 1 /bin/hold'
    hold = vm.start("sh", "-c", script, "sh", CGROUP, given=None)
    order(hold, "more 256", "held 256")
    tiering(vm, 10000)
    assert settle(vm) < mark(vm)
    assert room(vm) > 128 * MIB
    time.sleep(8)
    before = count(vm, "pageoutrun", "pgscan_kswapd", "pgdemote_")
    time.sleep(8)
    found = grown(vm, before)
    print(f"in 8 s with nothing cold: {found}")
    assert (
        found["pageoutrun"] - found["pgdemote_"] <= 8
    )  # the guest has a few cold pages of its own
    order(hold, "check", "right")


def test_demotion_ahead_of_need_is_no_pressure(vm: Guest) -> None:
    """No allocation waits for it, so nothing is stalled."""
    hold = held(vm)
    order(hold, "more 512", "held 512")
    before, began, stalled = count(vm, "pgdemote_kswapd"), ticks(vm), pressure(vm)
    tiering(vm, 8000)
    settle(vm, mark(vm) - 512)
    demoted = grown(vm, before)["pgdemote_kswapd"]
    busy, stalled = (ticks(vm) - began) * 10_000, pressure(vm) - stalled
    print(f"{demoted} pages demoted in {busy} us of CPU, {stalled} us of pressure")
    assert demoted > 128 * MIB
    assert stalled * 10 < busy
    order(hold, "check", "right")


def test_a_hopeless_node_lets_kswapd_sleep(vm: Guest) -> None:
    """Short of memory, nothing to reclaim, no room below: it gives up, as without a mark."""
    vm.write(LRU_GEN, "7")
    vm.write(SCALE, "300")  # 3 % of the node from each watermark to the next
    hold = held(vm)
    while number(zone(vm, node=1), "free") > number(zone(vm, node=1), "low") + 8 * MIB:
        order(hold, "more 8", "held 8")
    assert free(vm) < number(zone(vm), "high"), "the fast node was filled first"
    tiering(vm, 2000)
    until = time.monotonic() + 240
    while not unreclaimable(vm) and time.monotonic() < until:
        time.sleep(1)
    assert unreclaimable(vm)
    assert free(vm) < number(zone(vm), "promo")
    before = count(vm, "pageoutrun", "pgscan_kswapd")
    time.sleep(5)
    found = grown(vm, before)
    print(f"in 5 s of a hopeless node: {found}")
    assert {"pageoutrun": 0, "pgscan_kswapd": 0} == found
    assert unreclaimable(vm)
    order(hold, "check", "right")


def unreclaimable(vm: Guest) -> bool:
    """Whether kswapd has given up on the fast node."""
    found = re.search(r"node_unreclaimable: +(\d)", vm.read("/proc/zoneinfo"))
    assert found
    return found[1] == "1"


def pressure(vm: Guest) -> int:
    """Return how long something has waited for memory, in microseconds."""
    found = re.search(r"^some .*total=(\d+)", vm.read("/proc/pressure/memory"), re.MULTILINE)
    assert found
    return int(found[1])


def ticks(vm: Guest) -> int:
    """Return the CPU time of the fast node's kswapd, in hundredths of a second."""
    fields = vm.sh("cat /proc/$(pidof kswapd0)/stat").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_the_agent_reads_the_same() -> None:
    """The agent looks for the mark in zone Normal, which a fast node of 3 GiB has."""
    machine = Machine(nodes=(Node(cpus=1, memory=3072), Node(memory=256)))
    with guest(machine, kernel=kernel()) as vm:
        assert demotion(vm.read("/proc/zoneinfo"))[0].watermark == 0
        vm.write(BALANCING, "2")
        vm.write(FACTOR, "1000")
        assert (demotion(vm.read("/proc/zoneinfo"))[0].watermark or 0) > 0
