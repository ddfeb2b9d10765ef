# SPDX-License-Identifier: Apache-2.0
"""Migrations that the kernel begins: demotion, compaction and hot-remove, in batches."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.kernel.ours import booted
from vm.guest import Command, Guest
from vm.machine import Machine, Node
from vm.ours import CGROUP, control_group, counters, knobs, since

pytestmark = pytest.mark.system

CASES = ("off", "cpu", "threads")


@pytest.fixture(scope="module")
def vm() -> Iterator[Guest]:
    """A guest with our kernel, and a control group for those whose memory is reclaimed."""
    with booted() as found:
        control_group(found)
        found.write("/sys/kernel/mm/numa/demotion_enabled", "1")
        yield found


@pytest.fixture(scope="module")
def movable() -> Iterator[Guest]:
    """A guest with blocks of memory that can go."""
    nodes = (Node(cpus=4, memory=768), Node(memory=1024))
    with booted(Machine(nodes=nodes, append=("movablecore=1G",))) as found:
        yield found


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, vm: Guest) -> Iterator[str]:
    """Whether batches are on, and who copies them."""
    yield from switched(vm, str(request.param))


def switched(vm: Guest, name: str) -> Iterator[str]:
    """Turn batches and threads on, and off again."""
    with knobs(
        vm,
        migrate_batch_reasons=0 if name == "off" else 989,
        cpu_multi_copy_pages=int(name == "threads"),
        cpu_multi_copy_threshold=64,
        migrate_batch_usecs=0,  # an emulated CPU is slow
    ):
        vm.write("/proc/timer", "1\n")
        yield name
        vm.write("/proc/timer", "0\n")


def start(vm: Guest, *words: str) -> Command:
    """Start the program ``pages`` in the control group."""
    script = 'echo $$ >"$1/tests/cgroup.procs"; shift; exec pages "$@"'
    found = vm.start("sh", "-euc", script, "sh", CGROUP, *words)
    found.wait_for("^ready$")
    return found


def largest(vm: Guest, reason: str) -> int:
    """Return the bound below which all lists of a reason were, in base pages; 0 for none."""
    found = re.findall(
        rf"^pages engine=\w+ reason={reason} (.*)$", vm.read("/proc/timer"), re.MULTILINE
    )
    bounds = re.findall(r"le(\d+)=", " ".join(found))
    return max(map(int, bounds), default=0)


@pytest.mark.parametrize(
    ("lru", "kind"),
    [
        ("classic", "mixed"),
        ("generations", "mixed"),
        ("classic", "base"),
        ("generations", "thp"),
        ("generations", "shmem"),
    ],
)
def test_demotion(vm: Guest, case: str, lru: str, kind: str) -> None:
    vm.write("/sys/kernel/mm/lru_gen/enabled", "y" if lru == "generations" else "n")
    before = counters(vm)
    run = start(vm, kind, "none", "64", "4", "write", "remote", "pin", "cool")
    for _ in range(3):
        # not all of it can be had: some is in use
        vm.run("sh", "-c", 'echo 32M >"$1/tests/memory.reclaim"', "sh", CGROUP, timeout=120)
    assert 0 == run.wait(120).code, run.err
    found = since(vm, before)
    demoted = sum(value for name, value in found.items() if name.startswith("pgdemote"))
    assert demoted > 2048
    assert 0 == found["failed"] == found["fault"]
    if case == "off":
        assert largest(vm, "demotion") <= 512
    else:
        assert largest(vm, "demotion") > 512
        assert found["cpu"] + found["threads"] > 0


def test_compaction(vm: Guest, case: str) -> None:
    before = counters(vm)
    run = start(vm, "base", "none", "128", "8", "write", "remote", "pin", "discard")
    for turn in range(30):  # on a busy machine the first may come before there are holes
        vm.write("/proc/sys/vm/compact_memory", "1", timeout=120)
        moved = since(vm, before)["pgmigrate_success"]
        if turn >= 2 and moved and (case == "off" or largest(vm, "compaction") > 32):
            break
    assert 0 == run.wait(120).code, run.err
    found = since(vm, before)
    assert found["pgmigrate_success"] > 0
    assert 0 == found["failed"] == found["fault"]
    if case != "off":
        assert largest(vm, "compaction") > 32
        assert found["cpu"] + found["threads"] > 0


@pytest.mark.parametrize("name", CASES)
def test_hot_remove(movable: Guest, name: str) -> None:
    """Every block of the slow node goes and comes back while pages on it are in use."""
    vm = movable
    vm.allow("page dumped because: ", "the kernel tells of pages that keep a block from going")
    script = """
        gone=0
        for block in /sys/devices/system/node/node1/memory[0-9]*; do
            if echo offline >"$block/state"; then
                gone=$((gone + 1))
                echo online_movable >"$block/state"
            fi
        done 2>/dev/null
        echo $gone"""
    for _ in switched(vm, name):
        before = counters(vm)
        # more than fits into the topmost block, which cannot go
        run = vm.start(
            "pages", "mixed", "node1", "192", "6", "write", "remote", "mlock", "pin", "cool"
        )
        run.wait_for("^ready$")
        gone = int(vm.sh(script, timeout=240))
        assert 0 == run.wait(120).code, run.err
        found = since(vm, before)
        assert gone > 0
        assert 0 == found["failed"] == found["fault"]
        if name != "off":
            assert largest(vm, "memory_hotplug") > 512
            assert largest(vm, "longterm_pin") > 0  # away from memory that can go
            assert found["cpu"] + found["threads"] > 4096
