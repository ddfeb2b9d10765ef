# SPDX-License-Identifier: Apache-2.0
"""The demotion mark: kswapd demotes when memory falls below it, up to it, and never otherwise."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from dsatier.facts.observe.parse import demote_mark
from tests.kernel.ours import kernel, program
from tests.vm.booting import guest
from tests.vm.guest import Command, Guest, GuestError
from tests.vm.machine import Machine, Node

pytestmark = pytest.mark.system

FACTOR = "/proc/sys/vm/demote_scale_factor"
BALANCING = "/proc/sys/kernel/numa_balancing"
DEMOTION = "/sys/kernel/mm/numa/demotion_enabled"
LRU_GEN = "/sys/kernel/mm/lru_gen/enabled"
MIB = 256
"""Pages."""


@pytest.fixture(scope="module")
def vm() -> Iterator[Guest]:
    """A guest whose fast node has 1 GiB, all of it below 4 GiB, so in zone DMA32."""
    machine = Machine(nodes=(Node(cpus=2, memory=1024), Node(memory=1024)))
    files = {"/bin/hold": program("hold")}
    with guest(machine, kernel=kernel(), files=files) as found:
        yield found


@pytest.fixture(autouse=True)
def settled(vm: Guest) -> Iterator[None]:
    """Each test begins and ends with tiering off and memory free."""
    yield
    vm.write(DEMOTION, "0")
    vm.write(BALANCING, "0")
    vm.write(FACTOR, "200")
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
    """Wait until ``wanted`` pages are free and demotion rests; return how many are free then.

    kswapd looks again after at most 1 s where it finds nothing cold.
    """
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


def test_a_lower_tier_that_is_full_lets_kswapd_rest(vm: Guest) -> None:
    """A pass that moves nothing is not repeated at once, and is no failure of the node."""
    vm.write(LRU_GEN, "7")
    hold = held(vm)
    tiering(vm, 9000)
    while number(zone(vm, node=1), "free") > 4 * number(zone(vm, node=1), "high"):
        order(hold, "more 16", "held 16")
        settle(vm)
    before = count(vm, "pageoutrun")
    began = _ticks(vm)
    time.sleep(5)
    runs, busy = grown(vm, before)["pageoutrun"], _ticks(vm) - began
    print(f"in 5 s with a full lower tier: {runs} runs, {busy / 100:.2f} s of CPU")
    assert runs <= 30
    assert busy < 100, "less than a fifth of the time"
    unreclaimable = re.search(r"node_unreclaimable: +(\d)", zone(vm))
    assert unreclaimable
    assert "0" == unreclaimable[1]
    order(hold, "check", "right")


def _ticks(vm: Guest) -> int:
    """Return the CPU time of the fast node's kswapd, in hundredths of a second."""
    fields = vm.sh("cat /proc/$(pidof kswapd0)/stat").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_the_agent_reads_the_same() -> None:
    """The agent looks for the mark in zone Normal, which a fast node of 3 GiB has."""
    machine = Machine(nodes=(Node(cpus=1, memory=3072), Node(memory=256)))
    with guest(machine, kernel=kernel()) as vm:
        assert 0 == demote_mark(vm.read("/proc/zoneinfo"), 0)
        vm.write(BALANCING, "2")
        vm.write(FACTOR, "1000")
        found = demote_mark(vm.read("/proc/zoneinfo"), 0)
        assert found is not None
        assert found > 0
