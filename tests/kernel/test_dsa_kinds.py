# SPDX-License-Identifier: Apache-2.0
"""Whatever makes pages move, and whatever they are, devices copy them: every byte is checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from tests.kernel.engine import agreed, booted, down, up
from tests.kernel.ours import ANY_MTHP, run_pages
from tests.support.long import LONG, LONG_ONLY
from vm.guest import Command, Guest
from vm.idxd import configuration, in_use, load, moved
from vm.machine import Iommu
from vm.ours import CGROUP, counters, knob

pytestmark = pytest.mark.system
DAMON = "/sys/kernel/mm/damon/admin/kdamonds"
SIZES = ("base", "mthp", "thp", "mixed")


def in_group(vm: Guest, *words: str) -> Command:
    """Start the program ``pages`` in the control group."""
    script = 'echo $$ >"$1/tests/cgroup.procs"; shift; exec pages "$@"'
    found = vm.start("sh", "-euc", script, "sh", CGROUP, *words)
    found.wait_for("^ready$")
    return found


def demotion(vm: Guest, size: str, seconds: int) -> Command:
    """Have the kernel take memory from a group that may go to the slow node."""
    vm.write("/sys/kernel/mm/numa/demotion_enabled", "1")
    run = in_group(vm, size, "none", "32", f"{seconds}", "write", "cool")
    for _ in range(2):
        # not all of it can be had: some is in use
        vm.run("sh", "-c", 'echo 16M >"$1/tests/memory.reclaim"', "sh", CGROUP, timeout=120)
    vm.write("/sys/kernel/mm/numa/demotion_enabled", "0")
    return run


def promotion(vm: Guest, size: str, seconds: int) -> Command:
    """Have CPUs use pages of the slow node."""
    vm.write("/proc/sys/kernel/numa_balancing", "2")
    return in_group(vm, size, "node1", "16", f"{seconds}", "write", "remote")


def compaction(vm: Guest, size: str, seconds: int) -> Command:
    """Have the kernel make room for large pages, of memory with holes."""
    # who takes memory by turns with it, and goes, leaves them
    other = vm.start("pages", "base", "none", "96", "0")
    run = in_group(vm, size, "none", "64", f"{seconds}", "write", "discard")
    assert 0 == other.wait(120).code, other.err
    for _ in range(30):
        vm.write("/proc/sys/vm/compact_memory", "1", timeout=120)
        if bytes_for(vm, "compaction") >= LEAST:
            break
    return run


def damos(vm: Guest, size: str, seconds: int, mib: int = 32, pace: int = 0) -> Command:
    """Have DAMON move what is not used to the slow node.

    It looks at all of the fast node: ``pace`` MiB of that a second, 0 for as fast as it can.
    """
    run = in_group(vm, size, "none", f"{mib}", f"{seconds}", "cool")
    vm.sh(
        """cd "$1"; echo 1 >nr_kdamonds; cd 0/contexts; echo 1 >nr_contexts; cd 0
        echo paddr >operations; echo 1 >targets/nr_targets; echo 1 >targets/0/regions/nr_regions
        echo 1048576 >targets/0/regions/0/start; echo 805306368 >targets/0/regions/0/end
        echo 1 >schemes/nr_schemes; cd schemes/0; echo migrate_cold >action; echo 1 >target_nid
        echo 4096 >access_pattern/sz/min; echo 805306368 >access_pattern/sz/max
        echo 1000000 >access_pattern/age/max
        echo "$2" >quotas/bytes; echo 1000 >quotas/reset_interval_ms; echo on >"$1/0/state" """,
        DAMON,
        f"{pace << 20}",
    )
    return run


CAUSES: dict[str, Callable[[Guest, str, int], Command]] = {
    "demotion": demotion,
    "numa_misplaced": promotion,
    "compaction": compaction,
    "damon": damos,
}
"""By the name that the kernel has for the reason."""


def bytes_for(vm: Guest, reason: str) -> int:
    """Return how many bytes devices have copied for a reason, as the kernel counts."""
    pattern = rf"^copied engine=dsa reason={reason} .* bytes=(\d+)$"
    return sum(map(int, re.findall(pattern, vm.read("/proc/timer"), re.MULTILINE)))


LEAST = 1 << 20
"""Bytes that a cause must have moved."""
IMPOSSIBLE = ("compaction", "thp")
"""A huge page is as large as what compaction makes room for: it is left where it is."""


def caused(vm: Guest, cause: str, size: str) -> None:
    """Have something move pages, and prove that devices copied them, and nobody wrongly."""
    vm.write(ANY_MTHP, "always" if size == "mthp" else "never")
    vm.write("/proc/timer", "1\n")
    before, at = counters(vm), moved(vm)
    told = 0
    for seconds in (6, 20, 60):  # on a busy machine the kernel may not have come to it
        run = CAUSES[cause](vm, size, seconds)
        ended = run.wait(600)
        assert 0 == ended.code, ended.err
        vm.write("/proc/sys/kernel/numa_balancing", "0")
        vm.run("sh", "-c", f"echo off >{DAMON}/0/state; echo 0 >{DAMON}/nr_kdamonds")
        told = bytes_for(vm, cause)
        if told >= LEAST:
            break
    found, shares = agreed(vm, before, at)
    copied = sum(shares)
    vm.write("/proc/timer", "0\n")
    assert 0 == found["failed"] == found["fault"]
    assert told >= LEAST, f"{cause} of {size}: {copied} bytes were copied for other reasons"
    assert told <= copied


@pytest.fixture(scope="module")
def vm() -> Iterator[Guest]:
    """A guest with two devices whose channels are taken, and single pages are worth one."""
    with booted(2) as found:
        load(found, configuration(2))
        knob(found, "dsa_copy_threshold", 1)
        up(found, 2)
        yield found
        down(found)


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("size", SIZES)
def test_a_cause(vm: Guest, cause: str, size: str) -> None:
    """In the short run each cause and each size once."""
    if (cause, size) == IMPOSSIBLE:
        pytest.skip("compaction does not move huge pages")
    if not LONG and list(CAUSES).index(cause) != (SIZES.index(size) + 1) % len(SIZES):
        pytest.skip("DSATIER_LONG is not set")
    caused(vm, cause, size)


@LONG_ONLY
@pytest.mark.parametrize("devices", range(1, 9))
@pytest.mark.parametrize("iommu", ["off", "passthrough", "translated"])
def test_the_matrix(iommu: Iommu, devices: int) -> None:
    """Any number of channels on any number of devices, by each call, of pages of each size.

    What the kernel moves by itself takes longer to come about: with each number of channels one
    cause and one size, so that all of them meet all sizes in each kind of translation.
    """
    with booted(devices, iommu) as found:
        load(found, configuration(devices, queues=-(-8 // devices)))
        knob(found, "dsa_copy_threshold", 1)
        for channels in range(1, 9):
            up(found, channels)
            assert channels == in_use(found)
            for number, size in enumerate((*SIZES, "shmem", "hugetlb")):
                found.write("/proc/sys/vm/nr_hugepages", "4" if size == "hugetlb" else "0")
                found.write(ANY_MTHP, "always" if size == "mthp" else "never")
                how = ("move_pages", "mbind", "migrate_pages")[(number + channels) % 3]
                before, at = counters(found), moved(found)
                run_pages(found, size, how, "4", "0")
                after, shares = agreed(found, before, at)
                where = f"{channels} channels: {size} by {how}"
                assert 2 * 1024 * 0.9 <= after["dsa"], where
                assert 0 == after["failed"] == after["fault"], where
                assert min(channels, devices) >= sum(share > 0 for share in shares), where
            turn = devices * 8 + channels
            pair = tuple(CAUSES)[turn % 4], SIZES[turn // 4 % 4]
            caused(found, *(pair if pair != IMPOSSIBLE else ("compaction", "base")))
            down(found)
            assert 0 == in_use(found)
