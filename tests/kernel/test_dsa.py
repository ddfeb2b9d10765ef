# SPDX-License-Identifier: Apache-2.0
"""Emulated devices copy pages that migrate: every byte is checked, and the devices are asked."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import pytest

from tests.kernel.engine import (
    EVERYBODY,
    FACTOR,
    FAILED,
    KEPT,
    OUT,
    PARAMETERS,
    TIMEOUT,
    booted,
    busy,
    down,
    error,
    up,
    value,
)
from tests.kernel.ours import ANY_MTHP, run_pages
from tests.support.long import LONG, LONG_ONLY
from vm.guest import Guest
from vm.idxd import (
    PCI,
    address,
    configuration,
    in_use,
    load,
    moved,
    moved_since,
    names,
    reset,
)
from vm.idxd import counters as device_counters
from vm.ours import BUILD, CGROUP, TRACING, compare, counters, knob, module, since, traced

pytestmark = pytest.mark.system
DSA = "/sys/bus/dsa/devices"
HUGE = 1 << 21
RESERVES = BUILD.parents[1] / "selftests/reserves.c"


# -- who copies --------------------------------------------------------------------


@pytest.fixture(scope="module")
def eight() -> Iterator[Guest]:
    """A guest with eight devices, as the seed's hosts have them, and its configuration."""
    with booted(8) as vm:
        load(vm, configuration(8))
        vm.write("/proc/sys/vm/nr_hugepages", "32")
        yield vm


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        *((kind, "move_pages") for kind in ("base", "thp", "mthp", "mixed", "shmem", "hugetlb")),
        *((kind, how) for kind in ("base", "mixed") for how in ("mbind", "migrate_pages") if LONG),
    ],
)
def test_devices_copy(eight: Guest, kind: str, how: str) -> None:
    """All that is copied ahead is copied by devices, as many bytes as they say, and all share."""
    vm = eight
    vm.write(ANY_MTHP, "always" if kind == "mthp" else "never")
    up(vm, 8)
    before, at = counters(vm), moved(vm)
    run_pages(vm, kind, how, "16", "0")
    found, shares = since(vm, before), moved_since(vm, at)
    down(vm)
    assert found["dsa"] >= 2 * 16 * 256 * 0.9
    assert found["dsa"] * 4096 == sum(shares)
    assert min(shares) > 0
    assert 0 == found["failed"] == found["fault"] == found["late"]


@pytest.mark.parametrize("channels", range(1, 9) if LONG else (1, 3, 7))
def test_any_number_of_channels(eight: Guest, channels: int) -> None:
    """As many devices copy as there are channels, and they get the same share of large pages."""
    vm = eight
    up(vm, channels)
    assert channels == in_use(vm)
    at = moved(vm)
    run_pages(vm, "thp", "move_pages", "8", "0")
    shares = sorted(share for share in moved_since(vm, at) if share)
    down(vm)
    assert 0 == in_use(vm)
    assert channels == len(shares)
    # a page of 2 MiB has 512 parts
    assert shares[-1] - shares[0] <= 8 * 4096 * channels


def test_pages_in_use(eight: Guest) -> None:
    """Writers, pins, pages in pipes, locks, forks and discards, while devices copy."""
    vm = eight
    up(vm, 8)
    before, at = counters(vm), moved(vm)
    words = ("write", "remote", "splice", "pin", "fork", "mlock", "discard")
    counts = run_pages(vm, "mixed", "move_pages", "16", "3", *words)
    found = since(vm, before)
    down(vm)
    assert counts["writes"] > 0
    assert found["dsa"] > 0
    assert sum(moved_since(vm, at)) > 0
    assert 0 == found["failed"] == found["fault"]


def test_the_order_of_the_knobs(eight: Guest) -> None:
    vm = eight
    knobs = "/proc/sys/vm"
    assert "nvalid" in error(vm, f"{knobs}/use_dsa_copy_pages", "1")
    up(vm, 3)
    assert "busy" in error(vm, f"{knobs}/limit_chans", "4")
    assert "busy" in error(vm, f"{knobs}/dsa_state", "0")
    knob(vm, "use_dsa_copy_pages", 0)
    assert "busy" in error(vm, f"{knobs}/limit_chans", "4")
    assert "unavailable" in vm.run("rmmod", "idxd_migrate").err
    assert "wq has clients" in vm.run("accel-config", "disable-wq", "dsa0/wq0.0").err
    knob(vm, "dsa_state", 0)
    knob(vm, "limit_chans", 8)


def test_a_short_list_is_left_to_the_cpu(eight: Guest) -> None:
    vm = eight
    up(vm, 8)
    knob(vm, "dsa_copy_threshold", 1 << 20)
    before = counters(vm)
    run_pages(vm, "base", "move_pages", "4", "0")
    knob(vm, "dsa_copy_threshold", 16)
    down(vm)
    assert 0 == since(vm, before)["dsa"]


# -- what goes wrong ---------------------------------------------------------------


@pytest.fixture(scope="module")
def pair() -> Iterator[Guest]:
    """A guest with two devices of two queues each."""
    with booted(2) as vm:
        load(vm, configuration(2, queues=2))
        yield vm


PAGES_LEFT = "its pages are left to the CPU"
CHANNEL_OUT = "out of use, channels left: 3"
QUICK_FAULTS = (
    ("error:in=batch:nth=40", f"descriptor failed with status 0x20: {PAGES_LEFT}"),
    ("never:nth=3", f"no completion in 1000 ms, queue aborted: {CHANNEL_OUT}"),
    ("stuck:in=batch:nth=3", f"no completion in 1000 ms, queue aborted: {CHANNEL_OUT}"),
)
FAULTS = (
    *QUICK_FAULTS,
    ("error:nth=3:status=0x1f", f"descriptor failed with status 0x1f: {PAGES_LEFT}"),
    # a batch has no part of its own
    ("partial:op=3:nth=5:bytes=100", "descriptor failed with status"),
    ("never:in=batch:nth=9", f"no completion in 1000 ms, queue aborted: {CHANNEL_OUT}"),
    ("late:nth=4:ms=60000", f"no completion in 1000 ms, queue aborted: {CHANNEL_OUT}"),
    ("stuck:nth=3", f"no completion in 1000 ms, queue aborted: {CHANNEL_OUT}"),
)


@pytest.mark.parametrize(("rule", "told"), FAULTS if LONG else QUICK_FAULTS)
def test_a_fault(pair: Guest, rule: str, told: str) -> None:
    """The CPU copies what the device did not, one line says why, and the others go on.

    A descriptor that failed costs its pages, one that did not complete the channel.
    """
    vm = pair
    up(vm, 4)
    vm.write(TIMEOUT, "1000")
    mark, before = vm.mark(), counters(vm)
    vm.set_device("dsa0", "faults", rule)
    run_pages(vm, "mixed", "move_pages", "8", "0", "write", "remote")
    vm.set_device("dsa0", "faults", "")
    vm.set_device("dsa0", "release", True)
    found = since(vm, before)
    lines = [line for line in vm.lines(mark) if "dsatier: " in line]
    assert 1 == len(lines), lines
    assert told in lines[0]
    assert "dsatier: wq0." in lines[0]
    assert ("1", "1") == (value(vm, "use_dsa_copy_pages"), value(vm, "dsa_state"))
    assert found["fault"] == 1
    assert found["failed"] > 0
    # one of them did not spoil the rest of its list
    assert found["dsa"] > 0
    vm.write(TIMEOUT, "30000")
    # the same queues work on
    knob(vm, "use_dsa_copy_pages", 1)
    before, at = counters(vm), moved(vm)
    run_pages(vm, "mixed", "move_pages", "8", "0")
    shares = moved_since(vm, at)
    down(vm)
    found = since(vm, before)
    assert 0 == found["failed"] == found["fault"]
    assert found["dsa"] * 4096 == sum(shares)
    assert min(shares) > 0


def test_a_device_that_copies_nothing(pair: Guest) -> None:
    """Some descriptors of a channel that fail in a row, and it is out of use: others copy."""
    vm = pair
    up(vm, 4)
    mark, before, at = vm.mark(), counters(vm), moved(vm)
    vm.set_device("dsa0", "faults", "error:in=queue")
    run_pages(vm, "base", "move_pages", "32", "0")
    vm.set_device("dsa0", "faults", "")
    found, shares = since(vm, before), moved_since(vm, at)
    for queue, left in (("0.[01]", 3), ("0.[01]", 2)):
        vm.wait_for_log(
            f"dsatier: wq{queue}: 8 descriptors in a row failed, .* 0x20: "
            f"out of use, channels left: {left}",
            mark,
        )
    assert "1" == value(vm, "use_dsa_copy_pages")
    down(vm)
    assert 0 == shares[0]
    assert shares[1] > 0
    # each of the two channels: eight that failed, what else of its list did, and that it is out
    assert 2 * 9 <= found["fault"] < 100


def test_the_last_channel_takes_the_engine_along(pair: Guest) -> None:
    """With none left use_dsa_copy_pages reads 0; written again, channels that are whole copy."""
    vm = pair
    up(vm, 1)
    vm.write(TIMEOUT, "1000")
    mark = vm.mark()
    vm.set_device("dsa0", "faults", "never:nth=3")
    run_pages(vm, "mixed", "move_pages", "8", "0")
    vm.set_device("dsa0", "faults", "")
    vm.write(TIMEOUT, "30000")
    vm.wait_for_log(f"dsatier: wq0.0: no completion in 1000 ms, queue aborted: {FAILED}", mark)
    assert ("0", "1") == (value(vm, "use_dsa_copy_pages"), value(vm, "dsa_state"))
    knob(vm, "use_dsa_copy_pages", 1)
    before = counters(vm)
    run_pages(vm, "mixed", "move_pages", "8", "0")
    down(vm)
    found = since(vm, before)
    assert found["dsa"] > 0
    assert 0 == found["failed"] == found["fault"]


def test_a_time_out_goes_by_what_is_expected(pair: Guest) -> None:
    """What takes much longer than lists of that size do is lost, long before the longest time."""
    vm = pair
    up(vm, 1)
    vm.write(TIMEOUT, "60000")
    run_pages(vm, "base", "move_pages", "16", "0")
    vm.write(FACTOR, "1000")
    mark = vm.mark()
    vm.set_device("dsa0", "faults", "never:nth=2")
    run_pages(vm, "base", "move_pages", "4", "0")
    vm.set_device("dsa0", "faults", "")
    vm.write(FACTOR, "0")
    vm.write(TIMEOUT, "30000")
    down(vm)
    (told,) = [line for line in vm.lines(mark) if "no completion in" in line]
    found = re.search(r"no completion in (\d+) ms", told)
    assert found
    assert 500 <= int(found[1]) < 60000


BATCH = "migrate_copy/migrate_copy_batch"


def times(lines: list[str]) -> list[float]:
    """Return how long the engine had each list, in seconds, from the trace."""
    found = re.findall(r"migrate_copy_batch: engine=dsa .* ns=(\d+)", "\n".join(lines))
    return sorted(int(ns) / 1e9 for ns in found)


def test_an_abort_ends_all_lists_of_a_queue(pair: Guest) -> None:
    """Another list whose descriptors it ended does not wait for a time-out of its own.

    All engines of a device hang, so all lists wait; the first times out and has the queue aborted.
    """
    vm = pair
    up(vm, 1)
    vm.write(TIMEOUT, "6000")
    before = counters(vm)
    vm.set_device("dsa0", "faults", "stuck:in=queue:times=4")
    with traced(vm, BATCH) as lines:
        first = vm.start("pages", "base", "move_pages", "4", "0")
        until = time.monotonic() + 60
        while vm.device("dsa0", "fault-hits") != "4":
            assert time.monotonic() < until, "engines do not hang"
            time.sleep(0.1)
        vm.sh("sleep 3")
        second = vm.start("pages", "base", "move_pages", "4", "0")
        for run in (first, second):
            assert 0 == run.wait(120).code, run.err
    vm.set_device("dsa0", "faults", "")
    vm.set_device("dsa0", "release", True)
    vm.write(TIMEOUT, "30000")
    down(vm)
    took = times(lines)
    assert 6 <= took[-1] < 8
    assert took[-2] < 5
    assert 1 == since(vm, before)["fault"]


NO_FAULTS = ("late:every=7:ms=100", "reorder:every=3:ms=100", "lost-interrupt")


@pytest.mark.parametrize("rule", NO_FAULTS if LONG else NO_FAULTS[:1])
def test_what_is_no_fault(pair: Guest, rule: str) -> None:
    vm = pair
    up(vm, 4)
    before = counters(vm)
    vm.set_device("dsa0", "faults", rule)
    run_pages(vm, "mixed", "move_pages", "8", "0")
    vm.set_device("dsa0", "faults", "")
    down(vm)
    found = since(vm, before)
    assert 0 == found["failed"] == found["fault"]
    assert found["dsa"] > 0


def test_a_wrong_byte_is_seen_where_it_is_looked_for(pair: Guest) -> None:
    """A device that reports success and lies: migrate_copy_verify tells, and copies again."""
    vm = pair
    if not compare(vm):
        pytest.skip(
            "the kernel does not compare: build it with layer debug, as make test-long does"
        )
    up(vm, 4)
    mark = vm.mark()
    vm.allow("WARNING: .*mm/migrate_copy.c", "the device was told to write a wrong byte")
    vm.set_device("dsa0", "faults", "corrupt:op=3:nth=5")
    run_pages(vm, "mixed", "move_pages", "8", "0")
    vm.set_device("dsa0", "faults", "")
    down(vm)
    assert any("was not copied to" in line for line in vm.lines(mark))


# -- how devices are asked, and waited for -------------------------------------------


def interrupts(vm: Guest) -> int:
    """Return how many interrupts queues have sent; a device's own are those of commands."""
    found = 0
    for name in names(vm).values():
        found += sum(q["interrupts"] for q in device_counters(vm, name)["queues"].values())
    return found


INTERRUPT = f"{PARAMETERS}/interrupt_us"
NEVER = 10**9


@pytest.mark.parametrize(("least", "rule"), [(0, ""), (0, "lost-interrupt"), (NEVER, "")])
def test_who_waits_is_woken(pair: Guest, least: int, rule: str) -> None:
    """One interrupt a list where that is wanted, none where not, and a lost one does no harm."""
    vm = pair
    vm.write(INTERRUPT, str(least))
    for device in names(vm).values():
        vm.set_device(device, "faults", rule)
    up(vm, 4)
    before, at, sent = counters(vm), moved(vm), interrupts(vm)
    run_pages(vm, "mixed", "move_pages", "16", "0", "write")
    found, sent = since(vm, before), interrupts(vm) - sent
    for device in names(vm).values():
        vm.set_device(device, "faults", "")
    down(vm)
    vm.write(INTERRUPT, "100")
    assert found["dsa"] * 4096 == sum(moved_since(vm, at)) > 0
    assert 0 == found["failed"] == found["fault"]
    if least or rule:
        assert 0 == sent
    else:
        # a list of more than 64 lanes has several last ones
        assert found["lists"] // 2 <= sent <= 4 * found["lists"]


@LONG_ONLY
def test_a_handle_that_is_revoked() -> None:
    """A device refuses its interrupt, and gets the same without one."""
    with booted(1, properties={"int-handles": True}) as vm:
        load(vm, configuration(1))
        vm.write(INTERRUPT, "0")
        up(vm, 1)
        run = busy(vm, 6)
        for _ in range(5):
            time.sleep(1)
            vm.set_device("dsa0", "revoke-handles", True)
        assert 0 == run.wait(120).code, run.err
        assert "1" == value(vm, "use_dsa_copy_pages")
        down(vm)


def test_where_the_data_go_next(pair: Guest) -> None:
    """What comes to the CPUs is written to their cache, if it is short; all else to memory."""
    vm = pair
    vm.write(f"{TRACING}/kprobe_events", "p:given idxd_migrate:dsa_lane_submit flags=%si:x32")
    vm.write(f"{TRACING}/events/kprobes/given/enable", "1")
    up(vm, 4)
    found = []
    for size in ("2", "8"):
        vm.write(f"{TRACING}/trace", "")
        # to node 1 and back, one huge page, and then four in one list
        run_pages(vm, "thp", "mbind", size, "0")
        found.append(flags(vm.read(f"{TRACING}/trace")))
    down(vm)
    vm.write(f"{TRACING}/events/kprobes/given/enable", "0")
    vm.write(f"{TRACING}/kprobe_events", "\n")  # opened anew, it is empty
    short, long = found
    half = len(short) // 2
    assert len(short) >= 8
    assert not any(word & TO_CACHE for word in short[:half])
    assert all(word & TO_CACHE for word in short[half:])
    assert len(long) >= len(short)
    assert not any(word & TO_CACHE for word in long)


TO_CACHE = 0x100


def flags(trace: str) -> list[int]:
    """Return the flags of descriptors, the operation left out."""
    return [int(word, 16) & 0xFFFFFF for word in re.findall(r"flags=0x([0-9a-f]+)", trace)]


def test_the_nearest_device_first(pair: Guest) -> None:
    """What is worth one channel goes to a device of the node that the page goes to."""
    vm = pair
    up(vm, 4)
    knob(vm, "dsa_copy_threshold", 1)
    knob(vm, "migrate_batch_reasons", 0)  # each page by itself
    shares = []
    for how in ("node1", "move_pages"):
        at = moved(vm)
        run_pages(vm, "base", how, "2", "0")
        shares.append(moved_since(vm, at))
    knob(vm, "migrate_batch_reasons", EVERYBODY)
    knob(vm, "dsa_copy_threshold", 16)
    down(vm)
    # to node 1; there and back
    assert [[0, 2 << 20], [2 << 20, 2 << 20]] == shares


# -- what goes away ----------------------------------------------------------------


@pytest.fixture
def fresh() -> Iterator[Guest]:
    """A guest with two devices of one queue each, for tests that leave nothing of them."""
    with booted(2) as vm:
        load(vm, configuration(2))
        yield vm


def test_a_halt(fresh: Guest) -> None:
    """A device that halts under load; unbound, reset and configured anew it copies again."""
    vm = fresh
    up(vm, 2)
    mark = vm.mark()
    run = busy(vm, 6)
    vm.set_device(names(vm)["dsa0"], "halt", "flr")
    vm.wait_for_log(f"dsatier: wq0.0: .*{OUT}", mark)
    assert 0 == run.wait(120).code, run.err
    assert "1" == value(vm, "use_dsa_copy_pages")
    down(vm)
    assert 0 == in_use(vm)
    place = address(vm, "dsa0")
    vm.sh(f"echo wq0.0 >{DSA}/wq0.0/driver/unbind; echo {place} >/sys/bus/pci/drivers/idxd/unbind")
    vm.sh(
        f"echo 1 >/sys/bus/pci/devices/{place}/reset; echo {place} >/sys/bus/pci/drivers/idxd/bind"
    )
    load(vm, configuration(1))
    up(vm, 2)
    at = moved(vm)
    run_pages(vm, "thp", "move_pages", "8", "0")
    assert min(moved_since(vm, at)) > 0
    down(vm)


GOING = {
    "queue": "echo wq0.0 >/sys/bus/dsa/devices/wq0.0/driver/unbind",
    "bus": "echo 1 >{pci}/devices/{place}/remove; sleep 1; echo 1 >{pci}/rescan",
    "device": "echo dsa0 >/sys/bus/dsa/drivers/idxd/unbind",
    "driver": "cd {pci}/drivers/idxd; echo {place} >unbind; sleep 1; echo {place} >bind",
}


@pytest.mark.parametrize("going", GOING if LONG else ["queue", "bus"])
def test_a_queue_goes_under_load(pair: Guest, going: str) -> None:
    """Copies under way end first, the CPU goes on, and what comes back is taken again."""
    vm = pair
    vm.allow("Clients has claim", "the driver says so of a queue that is unbound")
    up(vm, 4)
    mark = vm.mark()
    run = busy(vm, 4)
    vm.sh(GOING[going].format(pci=PCI, place=address(vm, "dsa0")), timeout=60)
    vm.wait_for_log(f"dsatier: wq0.[01]: its queue is being disabled: {OUT}", mark)
    assert 0 == run.wait(120).code, run.err
    # those that are left go on
    assert ("1", "1") == (value(vm, "use_dsa_copy_pages"), value(vm, "dsa_state"))
    before, at = counters(vm), moved(vm)
    run_pages(vm, "thp", "move_pages", "8", "0")
    found = since(vm, before)
    assert found["dsa"] * 4096 == sum(moved_since(vm, at)) > 0
    assert 0 == found["failed"] == found["fault"]
    down(vm)
    assert 0 == in_use(vm)
    assert "No such device" in error(vm, "/proc/sys/vm/dsa_state", "1")
    for name in ("dsa0", "dsa1"):
        vm.run("accel-config", "disable-device", name)
    load(vm, configuration(2, queues=2))


def test_the_module_goes_and_comes(pair: Guest) -> None:
    """It stays while its channels are held."""
    vm = pair
    up(vm, 4)
    run = busy(vm, 3)
    assert vm.run("rmmod", "idxd_migrate").code
    assert 0 == run.wait(120).code, run.err
    down(vm)
    vm.ok("rmmod", "idxd_migrate")
    vm.ok("modprobe", "idxd_migrate")
    up(vm, 4)
    vm.write(TIMEOUT, "30000")
    at = moved(vm)
    run_pages(vm, "thp", "move_pages", "8", "0")
    assert min(moved_since(vm, at)) > 0
    down(vm)


@LONG_ONLY
def test_a_device_that_vanishes(fresh: Guest) -> None:
    """It is gone from the bus without a word: all its registers read ones, which shows nothing.

    Where it was at pages then, its channel stays taken until the bus is told that it is gone.
    """
    vm = fresh
    up(vm, 2)
    vm.write(TIMEOUT, "1000")
    place = address(vm, "dsa0")
    mark = vm.mark()
    run = busy(vm, 6)
    vm.set_device(names(vm)["dsa0"], "removed", True)
    vm.wait_for_log(f"dsatier: wq0.0: .*{OUT}", mark)
    assert 0 == run.wait(120).code, run.err
    down(vm)
    vm.sh(f"echo 1 >{PCI}/devices/{place}/remove", timeout=60)
    assert 0 == in_use(vm)


@LONG_ONLY
def test_queues_of_its_own_driver(fresh: Guest) -> None:
    """Nobody else gets them, and they are no DMA channels."""
    vm = fresh
    for name in ("dsa0", "dsa1"):
        vm.ok("accel-config", "disable-device", name)
    load(vm, configuration(2, queues=2).replace('"dmaengine"', '"dsatier"'))
    assert "dsatier" == vm.sh(f"basename $(readlink {DSA}/wq0.0/driver)").strip()
    assert "" == vm.sh("ls /sys/class/dma")
    up(vm, 4)
    assert "1111" == vm.sh(f"cat {DSA}/wq*/clients | tr -d '0\\n'")
    at = moved(vm)
    run_pages(vm, "thp", "move_pages", "8", "0")
    assert min(moved_since(vm, at)) > 0
    run = busy(vm, 3)
    mark = vm.mark()
    vm.sh(f"echo wq1.1 >{DSA}/wq1.1/driver/unbind")
    vm.wait_for_log(f"dsatier: wq1.1: its queue is being disabled: {OUT}", mark)
    assert 0 == run.wait(120).code, run.err
    down(vm)
    for name in ("dsa0", "dsa1"):
        vm.ok("accel-config", "disable-device", name)


def test_a_device_that_answers_nothing(fresh: Guest) -> None:
    """Its pages are out of use until a reset shows that it is done with them."""
    vm = fresh
    up(vm, 2)
    vm.write(TIMEOUT, "1000")
    device = names(vm)["dsa0"]
    mark = vm.mark()
    vm.set_device(device, "faults", "stuck:nth=3:hard")
    run = busy(vm, 4)
    vm.wait_for_log(f"dsatier: wq0.0: .*pages quarantined until a reset: {OUT}", mark)
    assert 0 == run.wait(120).code, run.err
    vm.set_device(device, "faults", "")
    knob(vm, "use_dsa_copy_pages", 0)
    vm.write("/proc/sys/vm/dsa_state", "0", timeout=60)
    vm.wait_for_log("dsatier: wq0.0: the device does not let go of pages", mark)
    assert 1 == in_use(vm)
    vm.sh(f"echo 1 >{PCI}/devices/{address(vm, 'dsa0')}/reset")
    vm.wait_for_log("dsatier: wq0.0: the device is done", mark, timeout=60)
    until = time.monotonic() + 60
    while in_use(vm):
        assert time.monotonic() < until, "the queue was not given back"
        time.sleep(1)


def dead(vm: Guest) -> str:
    """Have a device hang so that no abort ends it, in the middle of a copy. Return its place."""
    up(vm, 2)
    vm.write(TIMEOUT, "1000")
    mark = vm.mark()
    vm.set_device(names(vm)["dsa0"], "faults", "stuck:nth=3:hard")
    run_pages(vm, "mixed", "move_pages", "8", "0")
    vm.wait_for_log(f"dsatier: wq0.0: .*pages quarantined until a reset: {OUT}", mark)
    return address(vm, "dsa0")


def timed(vm: Guest, script: str) -> float:
    """Run a script, and return the seconds that it took."""
    begin = time.monotonic()
    vm.sh(script, timeout=60)
    return time.monotonic() - begin


def test_a_dead_device_holds_nobody_up(fresh: Guest) -> None:
    """Who unbinds its queue waits for it; no knob does, and a reset ends all of that."""
    vm = fresh
    place = dead(vm)
    mark = vm.mark()
    unbind = vm.start("sh", "-c", f"echo wq0.0 >{DSA}/wq0.0/driver/unbind")
    vm.sh("sleep 2")  # the copies under way end, and it asks the device
    for name, to in (("use_dsa_copy_pages", 0), ("dsa_state", 0), ("migrate_batch_usecs", 0)):
        assert timed(vm, f"echo {to} >/proc/sys/vm/{name}") < 10
    assert not unbind.ended
    # the other one can be had meanwhile
    up(vm, 1)
    before = counters(vm)
    run_pages(vm, "mixed", "move_pages", "8", "0")
    assert since(vm, before)["dsa"] > 0
    down(vm)
    vm.sh(f"echo 1 >{PCI}/devices/{place}/reset", timeout=60)
    assert 0 == unbind.wait(10).code
    vm.wait_for_log("dsatier: wq0.0: the device is done, .* are back in use", mark, timeout=60)


def test_a_dead_device_is_unbound(fresh: Guest) -> None:
    """Nothing waits for it for ever: it is kept from memory, and after a reset it copies again."""
    vm = fresh
    place = dead(vm)
    mark = vm.mark()
    vm.sh(f"echo {place} >{PCI}/drivers/idxd/unbind", timeout=90)
    vm.wait_for_log("no answer to command .* kept from memory until it is reset", mark)
    vm.wait_for_log("dsatier: wq0.0: the device is done, .* are back in use", mark)
    down(vm)
    vm.set_device("dsa0", "faults", "")
    reset(vm, place)
    load(vm, configuration(1))
    up(vm, 2)
    at = moved(vm)
    run_pages(vm, "thp", "move_pages", "8", "0")
    assert min(moved_since(vm, at)) > 0
    down(vm)


def test_registers_that_read_as_ones_show_nothing(fresh: Guest) -> None:
    """A device off its bus may be at pages all the same: it does not pass for one that halted."""
    vm = fresh
    place = dead(vm)
    mark = vm.mark()
    vm.set_device(names(vm)["dsa0"], "removed", True)
    knob(vm, "use_dsa_copy_pages", 0)
    vm.write("/proc/sys/vm/dsa_state", "0", timeout=60)
    vm.wait_for_log("dsatier: wq0.0: the device does not let go of pages", mark)
    vm.sh("sleep 12")  # it is looked at every 5 s
    assert 1 == in_use(vm)
    assert "the device is done" not in vm.console[mark:]
    vm.allow(KEPT, "what the device may write to is never freed")
    vm.sh(f"echo 1 >{PCI}/devices/{place}/remove", timeout=90)
    vm.wait_for_log("dsatier: wq0.0: nothing shows that the device is done", mark)


def test_late_writes(fresh: Guest) -> None:
    """A device that is not to be stopped writes long after the time-out: to pages that nobody has.

    Whatever is free on node 1 meanwhile is taken and filled, as soon as the fault is told.
    """
    vm = fresh
    vm.write(TIMEOUT, "300")
    up(vm, 2)
    devices = names(vm).values()
    for device in devices:
        vm.set_device(device, "faults", "late:every=1:ms=4000;command-stuck:op=9")
    mark, at = vm.mark(), moved(vm)
    run = vm.start("pages", "mixed", "node1", "16", "10", "write")
    vm.wait_for_log(f"dsatier: wq.*pages quarantined until a reset: {OUT}", mark)
    # nothing is written yet
    assert 0 == sum(moved_since(vm, at))
    takers = [vm.start("pages", "base", "node1", "48", "8") for _ in range(4)]
    for one in (run, *takers):
        assert 0 == one.wait(180).code, one.err
    assert sum(moved_since(vm, at)) > 1 << 20
    for device in devices:
        vm.set_device(device, "faults", "")
        vm.set_device(device, "release", True)
    vm.wait_for_log("dsatier: wq.*: the device is done, .* are back in use", mark, timeout=60)
    down(vm)
    assert 0 == in_use(vm)


def test_what_would_be_bounced() -> None:
    """Where the CPU would have to copy all that a device is to copy, no channel is taken."""
    with booted(1, append=("swiotlb=force",)) as vm:
        load(vm, configuration(1))
        knob(vm, "limit_chans", 1)
        mark = vm.mark()
        assert "No such device" in error(vm, "/proc/sys/vm/dsa_state", "1")
        vm.wait_for_log("dsatier: 0 of 1 DMA channels, .* 1 bounce: DSA not initialised", mark)


def test_all_devices_hang_at_once(eight: Guest) -> None:
    """Aborts that nobody answers are waited for together: a list is held no longer than one."""
    vm = eight
    up(vm, 8)
    vm.write(TIMEOUT, "1000")
    devices = names(vm).values()
    for device in devices:
        vm.set_device(device, "faults", "never:in=queue;command-stuck:op=9")
    mark, before = vm.mark(), counters(vm)
    with traced(vm, BATCH) as lines:
        run_pages(vm, "thp", "move_pages", "2", "0")
    for device in devices:
        vm.set_device(device, "faults", "")
        vm.set_device(device, "release", True)
    vm.write(TIMEOUT, "30000")
    vm.wait_for_log("dsatier: wq.*: the device is done, .* are back in use", mark, timeout=60)
    found = since(vm, before)
    until = time.monotonic() + 60
    down(vm)
    while in_use(vm):
        assert time.monotonic() < until, "a queue was not given back"
        time.sleep(1)
    assert 8 == found["fault"]
    assert times(lines)[-1] < 4


# -- behind an IOMMU ---------------------------------------------------------------


@pytest.fixture(scope="module", params=["translated", "passthrough"] if LONG else ["translated"])
def behind(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A guest whose two devices are behind an IOMMU."""
    with booted(2, request.param) as vm:
        load(vm, configuration(2))
        yield vm


TRANSLATED = pytest.mark.parametrize("behind", ["translated"], indirect=True)


def test_behind_an_iommu(behind: Guest) -> None:
    vm = behind
    up(vm, 2)
    before, at = counters(vm), moved(vm)
    run_pages(vm, "mixed", "move_pages", "8", "2", "write", "remote")
    found = since(vm, before)
    down(vm)
    assert found["dsa"] * 4096 == sum(moved_since(vm, at)) > 0
    assert 0 == found["failed"] == found["fault"]


def done(vm: Guest) -> tuple[int, int]:
    """Return how many descriptors devices have had from queues, and how many were batches."""
    found = [device_counters(vm, name)["device"] for name in names(vm).values()]
    return sum(one["descriptors"] for one in found), sum(one["batches"] for one in found)


@TRANSLATED
def test_what_is_mapped_at_once(behind: Guest) -> None:
    """A range of addresses for each side of a descriptor, not of a page: one move is all of it."""
    vm = behind
    up(vm, 2)
    before, at = counters(vm), done(vm)
    with traced(vm, "iommu/unmap") as lines:
        run_pages(vm, "base", "move_pages", "4", "0")
    pages = since(vm, before)["dsa"]
    descriptors, batches = (b - a for a, b in zip(at, done(vm), strict=True))
    down(vm)
    sizes = list(map(int, re.findall(r"unmapped_size=(\d+)", "\n".join(lines))))
    assert pages >= 2 * 1024 * 0.9
    assert 0 == batches
    assert 0 < descriptors * 16 < pages
    assert 2 * descriptors == len(sizes)
    assert 2 * pages * 4096 == sum(sizes)


class Mapped(NamedTuple):
    """What an IOMMU was told to map: parts of a range of I/O addresses, and where they are."""

    address: int
    place: int
    size: int


def mapped(vm: Guest, kind: str, how: str, mib: int = 16) -> tuple[list[Mapped], int]:
    """Move memory by two channels. Return what was mapped, and the bytes that both copied alike."""
    vm.write("/proc/sys/vm/nr_hugepages", "32" if kind == "hugetlb" else "0")
    up(vm, 2)
    before, at = counters(vm), moved(vm)
    with traced(vm, "iommu/map") as lines:
        run_pages(vm, kind, how, str(mib), "0")
    pages, shares = since(vm, before)["dsa"], moved_since(vm, at)
    down(vm)
    vm.write("/proc/sys/vm/nr_hugepages", "0")
    maps = re.findall(r"map: IOMMU: iova=(0x\w+) - \S+ paddr=(0x\w+) size=(\d+)", "\n".join(lines))
    assert pages >= 2 * mib * 256 * 0.9
    assert pages * 4096 == sum(shares)
    assert shares[0] == shares[1]
    found = [Mapped(int(iova, 16), int(address, 16), int(size)) for iova, address, size in maps]
    return found, sum(shares)


@TRANSLATED
def test_what_lies_side_by_side_is_mapped_in_one_go(behind: Guest) -> None:
    """Also where the pages of a list lie the other way round, as those that were just freed do."""
    found, copied = mapped(behind, "base", "move_pages", 4)
    assert 2 * copied == sum(one.size for one in found)
    backwards = sum(
        before.address + before.size == after.address and after.place + after.size == before.place
        for before, after in pairwise(found)
    )
    assert backwards <= sum(one.size // 4096 - 1 for one in found)


@TRANSLATED
def test_huge_pages_are_mapped_whole(behind: Guest) -> None:
    """One entry of the IOMMU's tables is enough where both addresses are multiples of its size."""
    found, copied = mapped(behind, "thp", "mbind")
    assert 2 * copied == sum(one.size for one in found)
    assert all(number % HUGE == 0 for one in found for number in one)


@TRANSLATED
@pytest.mark.parametrize("kind", ["thp", "hugetlb"])
def test_a_lone_huge_page_is_shared(behind: Guest, kind: str) -> None:
    """Each lane of it has all of it mapped, by one entry. This call moves one at a time."""
    found, copied = mapped(behind, kind, "move_pages")
    assert all(number % HUGE == 0 for one in found for number in one)
    assert {HUGE} == {one.size for one in found}
    assert 2 * 4 * copied == len(found) * HUGE


@TRANSLATED
def test_a_fault_behind_an_iommu(behind: Guest) -> None:
    """All that a failed move was to copy is left to the CPU, the rest of the list is not."""
    vm = behind
    up(vm, 2)
    before = counters(vm)
    vm.set_device("dsa0", "faults", "error:nth=3")
    run_pages(vm, "base", "move_pages", "8", "0")
    vm.set_device("dsa0", "faults", "")
    down(vm)
    found = since(vm, before)
    assert found["fault"] > 0
    assert found["failed"] > 16
    assert found["dsa"] > 0


@TRANSLATED
def test_reserves_are_not_for_mappings(behind: Guest) -> None:
    """Reclaim may use up all memory; tables of an IOMMU are made without that right."""
    vm = behind
    vm.put("/reserves.ko", module(RESERVES, vm.kernel).read_bytes())
    vm.sh("insmod /reserves.ko")
    vm.write("/sys/kernel/mm/numa/demotion_enabled", "1")
    up(vm, 2)
    before = counters(vm)
    script = 'echo $$ >"$1/tests/cgroup.procs"; exec pages mixed none 24 6'
    run = vm.start("sh", "-euc", script, "sh", CGROUP)
    run.wait_for("^ready$", 60)
    while not run.ended:
        vm.run("sh", "-c", 'echo 8M >"$1/tests/memory.reclaim"', "sh", CGROUP)
    assert 0 == run.wait().code, run.err
    found = since(vm, before)
    down(vm)
    vm.write("/sys/kernel/mm/numa/demotion_enabled", "0")
    mapped, reserved = (
        int(vm.read(f"/sys/module/reserves/parameters/{name}")) for name in ("mapped", "reserved")
    )
    vm.sh("rmmod reserves")
    assert found["dsa"] > 0
    assert mapped > 0
    assert 0 == reserved
