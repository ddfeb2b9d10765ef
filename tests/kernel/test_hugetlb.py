# SPDX-License-Identifier: Apache-2.0
"""Pages of hugetlbfs keep their contents, whoever moves them and wherever the new ones come from.

With every knob 0, and with all that can copy turned on; from a pool with free pages, and from one
without, where the kernel makes a page for the move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.kernel.ours import booted, program
from vm.guest import Guest
from vm.machine import Machine, Node
from vm.ours import BUILD, compare, knobs, module

pytestmark = pytest.mark.system

CONTIG = BUILD.parents[1] / "selftests/contig.c"
NODES = "/sys/devices/system/node"
MEMORY = "/sys/devices/system/memory"
COUNT = 3
"""Pages that move."""
MANY = 72
PAGE = 4096
HUGE = 2 << 20
OFF = {"migrate_batch_reasons": 0, "cpu_multi_copy_pages": 0, "cpu_multi_copy_threshold": 256}
ON = {"migrate_batch_reasons": 989, "cpu_multi_copy_pages": 1, "cpu_multi_copy_threshold": 16}


@pytest.fixture(scope="module")
def guests() -> Iterator[Guest]:
    """A guest with blocks of memory that can go."""
    nodes = (Node(cpus=2, memory=768), Node(memory=1024))
    with booted(Machine(nodes=nodes, append=("movablecore=1G",))) as found:
        # it would copy again what it finds wrong
        compare(found, "N")
        found.put("/bin/huge", program("huge").read_bytes(), 0o755)
        found.put("/contig.ko", module(CONTIG, found.kernel).read_bytes())
        found.allow("[Ss]oft.?offline|dissolve", "it tells of pages that are taken out of use")
        found.allow("page dumped because: ", "it tells of pages that keep a block from going")
        yield found


@pytest.fixture(params=["off", "on"])
def vm(request: pytest.FixtureRequest, guests: Guest) -> Iterator[Guest]:
    """Nothing is on, or all that can copy; afterwards the pool is empty."""
    with knobs(guests, **(ON if request.param == "on" else OFF)):
        yield guests
    pool(guests, 0, 0)


def pool(vm: Guest, *sizes: int) -> None:
    """Give each node's pool a size, and see that it has it."""
    for node, size in enumerate(sizes):
        place = f"{NODES}/node{node}/hugepages/hugepages-2048kB"
        vm.write(f"{place}/nr_hugepages", f"{size}\n")
        assert f"{size}" == vm.read(f"{place}/nr_hugepages")
        assert "0" == vm.read(f"{place}/surplus_hugepages")


def moved(
    vm: Guest,
    kind: str,
    node: int,
    how: str,
    mover: Callable[[list[int]], int] | None = None,
    count: int = COUNT,
) -> dict[str, int]:
    """Have pages that are made on a node moved, and return where they are then.

    The program checks every word. ``mover`` is given the numbers of their first base pages, and
    returns how many it has moved; else all of them are to have another place.
    """
    run = vm.start("huge", kind, f"{node}", f"{count}", how, given=None)
    try:
        pfns = [int(word) for word in run.wait_for("^pfns (.*)$")[1].split()]
        expected = mover(pfns) if mover else count
        run.give(b"\n")
        run.end_input()
        ran = run.wait(120)
    finally:
        if not run.ended:
            run.kill()
    assert 0 == ran.code, ran.err
    pairs = (word.split("=") for word in ran.out.splitlines()[-1].split())
    found = {name: int(value) for name, value in pairs}
    assert expected == found["moved"]
    return found


@pytest.mark.parametrize("free", [0, COUNT])
@pytest.mark.parametrize("kind", ["anonymous", "memfd"])
class TestHugePages:
    """Pages in use, and as many free ones at the target or none."""

    @pytest.mark.parametrize("how", ["move_pages", "mbind"])
    def test_a_program_moves_them(self, vm: Guest, kind: str, free: int, how: str) -> None:
        pool(vm, 2 * COUNT, free)
        found = moved(vm, kind, 0, how)
        assert (0, COUNT) == (found["on0"], found["on1"])

    def test_their_memory_is_taken_out_of_use(self, vm: Guest, kind: str, free: int) -> None:
        pool(vm, COUNT + free, 0)
        moved(vm, kind, 0, "soft")

    def test_their_memory_goes(self, vm: Guest, kind: str, free: int) -> None:
        """More of them than fit into the topmost block, which cannot go."""
        pool(vm, free and MANY, MANY)
        size = int(vm.read(f"{MEMORY}/block_size_bytes"), 16) // PAGE

        def offline(pfns: list[int]) -> int:
            blocks = sorted({pfn // size for pfn in pfns})
            gone = [block for block in blocks if not state(vm, block, "offline")]
            assert gone
            for block in gone:
                assert not state(vm, block, "online_movable")
            return sum(pfn // size in gone for pfn in pfns)

        moved(vm, kind, 1, "wait", offline, MANY)

    def test_somebody_needs_the_range_they_are_in(self, vm: Guest, kind: str, free: int) -> None:
        pool(vm, COUNT + free, 0)

        def take(pfns: list[int]) -> int:
            for pfn in pfns:
                vm.ok("insmod", "/contig.ko", f"pfn={pfn}", f"count={HUGE // PAGE}")
                vm.ok("rmmod", "contig")
            return len(pfns)

        moved(vm, kind, 0, "wait", take)


def state(vm: Guest, block: int, wanted: str) -> str:
    """Write to a block of memory, and return what the kernel says where it refuses."""
    script = 'echo "$2" >"$1"'
    return vm.run("sh", "-c", script, "sh", f"{MEMORY}/memory{block}/state", wanted).err
