# SPDX-License-Identifier: Apache-2.0
"""Who copies a list: an engine where it gains, one CPU where it does not, and who pays for it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.kernel.ours import booted, run_pages
from vm.guest import PATIENCE, Guest
from vm.ours import counters, knob, knobs, since, traced

pytestmark = pytest.mark.system

INT_MAX = 2147483647
GROUP = "/tmp/cgroup/payer"


@pytest.fixture(scope="module")
def booted_once() -> Iterator[Guest]:
    """A guest with our kernel, and a control group."""
    with booted() as found:
        found.sh('mkdir /tmp/cgroup; mount -t cgroup2 none /tmp/cgroup; mkdir "$1"', GROUP)
        yield found


@pytest.fixture
def vm(booted_once: Guest) -> Iterator[Guest]:
    """Batches of system calls, copied by threads; as at boot afterwards."""
    found = booted_once
    with knobs(
        found,
        migrate_batch_reasons=24,
        migrate_batch_usecs=0,  # an emulated CPU is slow
        cpu_multi_copy_pages=1,
        cpu_multi_copy_threshold=16,
    ):
        yield found


def moved(vm: Guest, kind: str = "mixed", size: int = 32) -> dict[str, int]:
    """Move that many MiB to and fro, and return how far the counters have come."""
    before = counters(vm)
    run_pages(vm, kind, "mbind", f"{size}", "0")
    return since(vm, before)


def test_a_host_without_an_idle_cpu_copies_by_the_one_it_has(vm: Guest) -> None:
    """Threads refuse, and the migrating task is not slower for having asked."""
    busy = [vm.start("sh", "-c", "while :; do :; done") for _ in range(8)]
    found = moved(vm)
    for each in busy:
        each.kill()
    assert found["refused"] > 0
    assert found["cpu"] > found["threads"]
    assert moved(vm)["threads"] > 0, "when it is calm again"


def test_a_list_holds_24_huge_pages_and_1024_others(vm: Guest) -> None:
    vm.sh("echo 0 >/proc/timer; echo 1 >/proc/timer")
    run_pages(vm, "mostly", "mbind", "52", "0")
    told = vm.read("/proc/timer")
    vm.write("/proc/timer", "0\n")
    # the next bound below is 8192 pages, 16 huge ones
    assert re.search(r"^pages .* reason=mempolicy_mbind .*\ble16384=", told, re.MULTILINE), told


def test_small_lists_go_to_the_cpu(vm: Guest) -> None:
    knob(vm, "cpu_multi_copy_threshold", INT_MAX)
    found = moved(vm)
    assert (0, 0) == (found["threads"], found["refused"])
    assert found["cpu"] > 8192


def test_engines_copy_only_for_those_whom_they_are_there_for(vm: Guest) -> None:
    """What one calls for oneself goes to the CPU where engines are for tiering; so does hugetlb."""
    mbind, hugetlb, tiering = 16, 1024, 800
    vm.write("/proc/sys/vm/nr_hugepages", "32")
    for reasons in (tiering, tiering + mbind, tiering + hugetlb):
        with knobs(vm, migrate_engine_reasons=reasons):
            found = moved(vm, "thp")
            assert (found["threads"] > 0) == bool(reasons & mbind)
            assert found["cpu"] > 8192 or reasons & mbind
            found = moved(vm, "hugetlb", 8)
            assert (found["threads"] > 0) == bool(reasons & hugetlb)
    vm.write("/proc/sys/vm/nr_hugepages", "0")


def test_the_first_folio_waits_no_longer_than_it_may(vm: Guest) -> None:
    """With no time to wait every folio is a list of its own; with more there are fewer lists."""
    knob(vm, "cpu_multi_copy_pages", 0)
    knob(vm, "migrate_batch_usecs", 1)
    hasty = moved(vm, "base")
    assert hasty["lists"] > 0.9 * hasty["cpu"] > 8192
    knob(vm, "migrate_batch_usecs", 0)
    assert moved(vm, "base")["lists"] < hasty["lists"] / 100


def test_a_copy_that_is_held_up_does_not_cut_the_next_lists_short(vm: Guest) -> None:
    """The CPU goes from short lists, again and again; then they are long as ever."""
    knob(vm, "cpu_multi_copy_pages", 0)
    words = ("moves", "4096", "24", "8")
    with knobs(vm, migrate_batch_usecs=4000):
        before = counters(vm)
        until = time.monotonic() + PATIENCE
        # it is chance that the CPU goes in the middle of a list
        while not (held := since(vm, before))["late"] and time.monotonic() < until:
            run = vm.start(*words, "8", "0")
            while not run.ended:
                vm.stall(0.02)
                time.sleep(0.03)
            assert 0 == run.wait().code, run.err
        before = counters(vm)
        vm.ok(*words, "1", "0", timeout=120)
        calm = since(vm, before)
    print(f"held up: {held}, then: {calm}")
    assert held["late"] > 0, "copies were held up"
    assert calm["cpu"] > 20 * calm["lists"]


def test_memory_that_is_slow_gets_short_lists(vm: Guest) -> None:
    """The pace is learnt: lists end near what the time allows, and few pages are late."""
    knob(vm, "cpu_multi_copy_pages", 0)
    with knobs(vm, migrate_batch_usecs=400):
        moved(vm, "base")
        found = moved(vm, "base")
    assert 8192 < found["cpu"]
    assert found["lists"] > found["cpu"] / 512, "512 pages take the emulator longer"
    assert found["late"] < found["cpu"], found


def test_what_was_measured_decides(vm: Guest) -> None:
    """With calibration on, both who copy are tried, and it is told what they cost."""
    knob(vm, "migrate_copy_calibrate", 1)
    vm.sh("echo 0 >/proc/timer; echo 1 >/proc/timer")
    tried = dict.fromkeys(("threads", "cpu"), 0)
    for turn in range(40):  # threads refuse while the guest's CPUs are busy
        found = moved(vm)
        tried = {name: tried[name] + found[name] for name in tried}
        if turn >= 3 and all(tried.values()):
            break
    told = vm.read("/proc/timer")
    knob(vm, "migrate_copy_calibrate", 0)
    vm.write("/proc/timer", "0\n")
    for name, pages in tried.items():
        assert pages > 0
        assert re.search(rf"^costs engine={name} \d+=\d+", told, re.MULTILINE)


def test_workers_are_paid_by_who_migrates(vm: Guest) -> None:
    """The control group's CPU time is that of its tasks, and with threads of the workers too."""
    beyond = {}
    for threads in (0, 1):
        knob(vm, "cpu_multi_copy_pages", threads)
        before = usage(vm)
        script = 'echo $$ >"$1/cgroup.procs"; shift; exec pages "$@"'
        out = vm.ok("sh", "-euc", script, "sh", GROUP, "thp", "mbind", "64", "3", timeout=120)
        own = re.search(r"\bcpu=(\d+)", out)
        assert own
        beyond[threads] = usage(vm) - before - int(own[1])
    assert beyond[1] > 10 * abs(beyond[0]) + 20000, beyond


def usage(vm: Guest) -> int:
    """Return the control group's CPU time in microseconds."""
    found = re.search(r"^usage_usec (\d+)$", vm.read(f"{GROUP}/cpu.stat"), re.MULTILINE)
    assert found
    return int(found[1])


def test_tracepoints_tell_of_lists_and_choices(vm: Guest) -> None:
    with traced(vm, "migrate_copy") as lines:
        found = moved(vm)
    assert found["lists"] == sum(" migrate_copy_batch: " in line for line in lines)
    choices = [line for line in lines if " migrate_copy_choice: " in line]
    assert found["lists"] + found["refused"] == len(choices)
