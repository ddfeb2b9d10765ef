# SPDX-License-Identifier: Apache-2.0
"""Destinations and sources of a batch go to and from the allocator many at a time.

Where memory is short on the way nothing is lost: pages keep their contents, and what was not used
is free again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.kernel.ours import booted, run_pages
from vm.guest import Guest
from vm.machine import Machine, Node
from vm.ours import CGROUP, control_group, counters, knobs, since, traced

pytestmark = pytest.mark.system

MIB = 16
PAGES = 2 * MIB * 256
"""To and fro."""
SYSTEM_CALLS = 1 << 3
DEMOTION = 1 << 8
NODES = (Node(cpus=2, memory=640), Node(memory=160))
"""A node that has no room for what the other has."""


@pytest.fixture(scope="module")
def vm() -> Iterator[Guest]:
    """A guest with our kernel."""
    with booted(Machine(nodes=NODES)) as found:
        yield found


def one_by_one(vm: Guest, reasons: int) -> tuple[int, int]:
    """Move small pages, and return how many the allocator gave and took one at a time."""
    with (
        knobs(vm, migrate_batch_reasons=reasons, migrate_batch_usecs=0),
        traced(vm, "kmem/mm_page_alloc", "kmem/mm_page_free", "kmem/mm_page_free_batched") as lines,
    ):
        run_pages(vm, "base", "migrate_pages", str(MIB), "0")
    text = "\n".join(lines)
    given, taken, together = (
        len(re.findall(rf" mm_page_{what}: ", text)) for what in ("alloc", "free", "free_batched")
    )
    return given, taken - together


def test_small_pages_come_and_go_many_at_a_time(vm: Guest) -> None:
    given, taken = one_by_one(vm, 0)
    fewer_given, fewer_taken = one_by_one(vm, SYSTEM_CALLS)
    assert given - fewer_given > 0.9 * PAGES
    assert taken - fewer_taken > 0.9 * PAGES


def test_a_node_that_gets_full_on_the_way(vm: Guest) -> None:
    """What finds room is demoted, and the rest stays where it is."""
    control_group(vm)
    before = free(vm)
    counts = counters(vm)
    vm.write("/sys/kernel/mm/numa/demotion_enabled", "1")
    script = 'echo $$ >"$1/tests/cgroup.procs"; shift; exec pages "$@"'
    with knobs(vm, migrate_batch_reasons=DEMOTION, migrate_batch_usecs=0):
        run = vm.start("sh", "-euc", script, "sh", CGROUP, "base", "none", "256", "5")
        run.wait_for("^ready$")
        # more than the node has, so not all of it can be had
        vm.run("sh", "-c", 'echo 224M >"$1/tests/memory.reclaim"', "sh", CGROUP, timeout=300)
        assert 0 == (ended := run.wait(300)).code, ended.err
    found = since(vm, counts)
    assert found["cpu"] > 64 * 256
    assert found["pgmigrate_fail"] > 0
    assert {"nr_isolated_anon": 0, "nr_isolated_file": 0} == isolated(vm)
    assert free(vm) > before - 8 * 256


def isolated(vm: Guest) -> dict[str, int]:
    """Return how many pages are off their lists."""
    found = counters(vm)
    return {name: found[name] for name in ("nr_isolated_anon", "nr_isolated_file")}


def free(vm: Guest) -> int:
    """Return how many pages are free, those on the lists of CPUs as well."""
    vm.write("/proc/sys/vm/stat_refresh", "1")
    vm.write("/proc/sys/vm/drop_caches", "3")
    on_lists = re.findall(r"^ +count: (\d+)$", vm.read("/proc/zoneinfo"), re.MULTILINE)
    return counters(vm)["nr_free_pages"] + sum(map(int, on_lists))
