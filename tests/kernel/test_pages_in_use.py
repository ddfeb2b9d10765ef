# SPDX-License-Identifier: Apache-2.0
"""Pages that others want something of while they move in batches, and whose contents stay right.

Merged, swapped out, written back to a disk, taken out of use, broken, protected, watched by DAMON
or promoted: all on one guest, whoever copies.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager

import pytest

from tests.kernel.ours import MACHINE, booted, run_pages
from vm.guest import Command, Guest
from vm.machine import Machine
from vm.ours import counters, knobs, since

pytestmark = pytest.mark.system

CASES = {"cpu": 0, "threads": 1}
"""Who copies: one CPU in batches, or threads."""
DAMON = "/sys/kernel/mm/damon/admin/kdamonds"
HUGE = "/sys/kernel/mm/transparent_hugepage"
KSM = "/sys/kernel/mm/ksm"
SMALL = "/tmp/cgroup/small"
"""A control group with 20 MiB of memory."""
LINES = re.MULTILINE
MTHP = (16, 32, 128, 256, 512, 1024)
"""KiB; 64 is tried elsewhere."""


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A guest with our kernel and a disk, which has a file system and on it a file to swap to."""
    disk = tmp_path_factory.mktemp("disk") / "disk"
    with disk.open("wb") as file:
        file.truncate(192 << 20)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    drive = f"file={disk},format=raw,if=none,id=disk,cache=unsafe"
    extra = ("-drive", drive, "-device", "virtio-blk-pci,drive=disk")
    with booted(Machine(nodes=MACHINE.nodes, extra=extra)) as found:
        found.sh(
            """mkdir -p /disk; mount -t ext4 /dev/vda /disk
            dd if=/dev/zero of=/disk/swap bs=1M count=96 2>/dev/null; chmod 600 /disk/swap
            mkswap /disk/swap
            mkdir /tmp/cgroup; mount -t cgroup2 none /tmp/cgroup
            echo +memory >/tmp/cgroup/cgroup.subtree_control; mkdir "$1"
            echo 20M >"$1/memory.max" """,
            SMALL,
        )
        found.write("/proc/timer", "1\n")
        yield found


@pytest.fixture(params=list(CASES), autouse=True)
def case(request: pytest.FixtureRequest, vm: Guest) -> Iterator[str]:
    """Batches of all that can batch."""
    name = str(request.param)
    with batches(vm, name):
        yield name


def batches(vm: Guest, name: str) -> AbstractContextManager[None]:
    """Turn on batches of all that can batch."""
    return knobs(
        vm,
        migrate_batch_reasons=989,
        migrate_batch_usecs=0,  # an emulated CPU is slow
        cpu_multi_copy_pages=CASES[name],
        cpu_multi_copy_threshold=16,
    )


def copied(found: dict[str, int]) -> int:
    """Return how many pages were copied in lists, none of which failed."""
    assert 0 == found["failed"] == found["fault"] == found["dsa"]
    return found["cpu"] + found["threads"]


def lists(vm: Guest, reason: str) -> int:
    """Return how many lists of a reason there were since the timer was started."""
    counts = re.findall(rf"^lists \S+ reason={reason} count=(\d+)", vm.read("/proc/timer"), LINES)
    return sum(map(int, counts))


def start(vm: Guest, *words: str) -> Command:
    """Start the program ``pages``."""
    found = vm.start("pages", *words)
    found.wait_for("^ready$")
    return found


@pytest.mark.parametrize("size", MTHP)
def test_every_size_of_folio(vm: Guest, size: int) -> None:
    """Folios of that size were copied, and many of them in one list."""
    vm.sh("echo 0 >/proc/timer; echo 1 >/proc/timer")  # from 0
    vm.write(f"{HUGE}/hugepages-{size}kB/enabled", "always")
    before = counters(vm)
    run_pages(vm, "mthp", "mbind", "16", "0")
    found = since(vm, before)
    vm.write(f"{HUGE}/hugepages-{size}kB/enabled", "never")
    assert copied(found) > 4096
    told = vm.read("/proc/timer")
    order = (size // 4).bit_length() - 1
    copies = re.findall(
        rf"^copied .* reason=mempolicy_mbind order={order} folios=(\d+)", told, LINES
    )
    assert sum(map(int, copies)) * size >= 16 * 1024
    assert lists(vm, "mempolicy_mbind") <= 8  # 16 MiB on their way, and as many back


def test_merged_pages(vm: Guest) -> None:
    """What ksmd merges moves and is written to, which takes it apart, again and again."""
    vm.sh(f"echo 2000 >{KSM}/pages_to_scan; echo 5 >{KSM}/sleep_millisecs; echo 1 >{KSM}/run")
    before = counters(vm)
    run = start(vm, "ksm", "move_pages", "8", "6", "write", "remote", "discard", "pin")
    most = 0
    while not run.ended:
        most = max(most, int(vm.read(f"{KSM}/pages_sharing")))
        time.sleep(0.3)
    vm.write(f"{KSM}/run", "2", timeout=120)  # and takes apart what is left
    assert 0 == run.wait().code, run.err
    assert most > 64
    assert copied(since(vm, before)) > 0


def test_swap(vm: Guest) -> None:
    """A group of tasks has less memory than it uses, and sends some of it to swap itself."""
    vm.ok("swapon", "/disk/swap")
    before, was = counters(vm), vm.read("/proc/vmstat")
    script = 'echo $$ >"$1"; shift; exec pages "$@"'
    words = ("mixed", "mbind", "24", "5", "write", "remote", "swap", "pin", "fork", "cool")
    vm.ok("sh", "-euc", script, "sh", f"{SMALL}/cgroup.procs", *words, timeout=200)
    moved, now = since(vm, before), vm.read("/proc/vmstat")
    vm.ok("swapoff", "/disk/swap", timeout=120)
    for name in ("pswpout", "pswpin"):
        assert number(now, name) - number(was, name) > 256
    assert copied(moved) > 2048


@pytest.mark.parametrize("how", ["move_pages", "mbind"])
def test_files_on_a_disk(vm: Guest, how: str) -> None:
    """Pages read from a disk batch; those with buffers, as a write makes them, don't.

    In the end they are written, let go and read from the disk.
    """
    vm.write("/proc/sys/vm/dirty_writeback_centisecs", "20")
    before = counters(vm)
    words = ("write", "remote", "splice", "pin", "mlock", "cool")
    found = run_pages(vm, "file:/disk/pages", how, "24", "4", *words)
    moved = since(vm, before)
    vm.ok("rm", "/disk/pages")
    assert found["writes"] > 0
    assert copied(moved) > 1024


def test_memory_taken_out_of_use(vm: Guest) -> None:
    """Soft offline moves a page for good: its contents stay."""
    vm.allow("[Ss]oft.offline", "it tells of what could not be moved")
    was = number(vm.read("/proc/meminfo"), "HardwareCorrupted:")
    found = run_pages(vm, "mixed", "move_pages", "16", "3", "write", "remote", "offline")
    assert found["offlined"] > 0
    assert number(vm.read("/proc/meminfo"), "HardwareCorrupted:") > was


def test_memory_that_fails(case: str) -> None:
    """A page is right, or its reader gets SIGBUS; all the others are right.

    A guest of its own, since Linux gives a huge page with such a page in it back to its allocator
    where it failed while it was off its list: whoever gets it next is ended when it moves.
    """
    with booted() as vm, batches(vm, case):
        vm.allow("Memory failure|Injecting memory failure", "that is what it is told to do")
        before = counters(vm)
        found = run_pages(vm, "mixed", "move_pages", "16", "3", "write", "remote", "poison", "pin")
        assert found["poisoned"] > 0
        assert copied(since(vm, before)) > 0


def test_userfaultfd(vm: Guest) -> None:
    """Faults are resolved by the program, and protection from writes moves with the page."""
    before = counters(vm)
    words = ("write", "remote", "discard", "protect=32", "mlock")
    run_pages(vm, "uffd", "move_pages", "16", "4", *words)
    assert copied(since(vm, before)) > 1024


def test_damon(vm: Guest) -> None:
    """Two of DAMON's schemes send all that they find to and fro."""
    end = 768 << 20
    schemes = [(0, "migrate_cold", 1, 16 << 20, end), (1, "migrate_hot", 0, end, 2 * end)]
    vm.write(f"{DAMON}/nr_kdamonds", "2")
    for place, action, target, first, last in schemes:
        damon(vm, f"{DAMON}/{place}", action, target, first, last)
    before, reasons = counters(vm), lists(vm, "damon")
    run = start(vm, "mixed", "none", "48", "8", "write", "remote", "pin", "fork")
    for place in range(2):
        vm.write(f"{DAMON}/{place}/state", "on")
    assert 0 == run.wait(120).code, run.err
    for place in range(2):
        vm.write(f"{DAMON}/{place}/state", "off")
    vm.write(f"{DAMON}/nr_kdamonds", "0")
    assert copied(since(vm, before)) > 2048
    assert lists(vm, "damon") > reasons


def damon(vm: Guest, at: str, action: str, target: int, first: int, last: int) -> None:
    """Set up a kdamond that does something to all of a range of memory, ten times a second."""
    rows = {
        "contexts/nr_contexts": 1,
        "contexts/0/operations": "paddr",
        "contexts/0/monitoring_attrs/intervals/sample_us": 20000,
        "contexts/0/monitoring_attrs/intervals/aggr_us": 100000,
        "contexts/0/targets/nr_targets": 1,
        "contexts/0/targets/0/regions/nr_regions": 1,
        "contexts/0/targets/0/regions/0/start": first,
        "contexts/0/targets/0/regions/0/end": last,
        "contexts/0/schemes/nr_schemes": 1,
        "contexts/0/schemes/0/action": action,
        "contexts/0/schemes/0/target_nid": target,
        "contexts/0/schemes/0/access_pattern/sz/max": 1 << 40,
        "contexts/0/schemes/0/access_pattern/nr_accesses/max": 1 << 20,
        "contexts/0/schemes/0/access_pattern/age/max": 1 << 20,
    }
    vm.sh("\n".join(f"echo {value} >{at}/{name}" for name, value in rows.items()))


def test_promotion(vm: Guest, case: str) -> None:
    """Pages come up one by one when they are read; a huge page of them is worth threads."""
    vm.sh(
        """cd /sys/kernel/debug/sched/numa_balancing
        echo 100 >scan_delay_ms; echo 100 >scan_period_min_ms; echo 200 >scan_period_max_ms
        echo 256 >scan_size_mb; echo 100000 >hot_threshold_ms"""
    )
    vm.write("/sys/kernel/mm/numa/demotion_enabled", "1")
    vm.write("/proc/sys/kernel/numa_balancing", "2")
    before, was = counters(vm), number(vm.read("/proc/vmstat"), "pgpromote_success")
    run = start(vm, "mixed", "node1", "32", "8", "write", "remote", "fork")
    assert 0 == run.wait(120).code, run.err
    vm.write("/proc/sys/kernel/numa_balancing", "0")
    vm.write("/sys/kernel/mm/numa/demotion_enabled", "0")
    promoted = number(vm.read("/proc/vmstat"), "pgpromote_success") - was
    found = since(vm, before)
    assert promoted > 1024
    assert copied(found) > 0 or case == "cpu"


def number(text: str, name: str) -> int:
    """Return the number behind a name at the beginning of a line."""
    match = re.search(rf"^{name}\s+(\d+)", text, LINES)
    assert match, name
    return int(match[1])
