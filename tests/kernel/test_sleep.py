# SPDX-License-Identifier: Apache-2.0
"""The system sleeps while devices copy: it wakes with every byte, and knows which devices it has.

A guest of the emulator does not come back from a real sleep. So the kernel's own test is used: it
goes all the way down to devices without interrupts, stays there for seconds, and comes back.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.kernel.engine import OUT, booted, busy, down, error, up, value
from tests.kernel.ours import run_pages
from tests.kernel.test_dsa_kinds import DAMON, damos
from vm.guest import PATIENCE, Command, Guest
from vm.idxd import address, configuration, in_use, load, moved, moved_since, names, reset
from vm.ours import counters, knob, since, traced

pytestmark = pytest.mark.system
SECONDS = 6
BEGIN = "freeze_processes[0] begin"


@pytest.fixture(scope="module")
def vm() -> Iterator[Guest]:
    """A guest with two devices that tells of its sleep."""
    with booted(2, append=("no_console_suspend",)) as found:
        load(found, configuration(2))
        knob(found, "dsa_copy_threshold", 1)
        found.write("/sys/power/pm_test", "platform")
        found.write("/sys/module/suspend/parameters/pm_test_delay", f"{SECONDS}")
        yield found


def fall_asleep(vm: Guest) -> Command:
    """Begin to sleep, and return once devices do; it ends with the sleep."""
    mark = vm.mark()
    run = vm.start("sh", "-c", "echo freeze >/sys/power/state")
    vm.wait_for_log("PM: suspend debug: Waiting for", mark)
    return run


def wait_for_copies(vm: Guest, before: dict[str, int]) -> None:
    """Return once devices have copied."""
    until = time.monotonic() + PATIENCE
    while not since(vm, before)["dsa"]:
        assert time.monotonic() < until, "nothing moves"
        time.sleep(0.5)


def woken(vm: Guest) -> None:
    """Give devices back to the driver after a sleep, and have them copy again."""
    assert "1" == value(vm, "dsa_state")
    down(vm)
    assert 0 == in_use(vm)
    # the driver takes them for enabled
    mark = vm.mark()
    assert "No such device" in error(vm, "/proc/sys/vm/dsa_state", "1")
    vm.wait_for_log("0 of 2 DMA channels, .* DSA not initialised", mark)
    for name in ("dsa0", "dsa1"):
        reset(vm, address(vm, name))
    load(vm, configuration(2))
    up(vm, 2)
    before, at = counters(vm), moved(vm)
    run_pages(vm, "thp", "move_pages", "8", "0")
    shares = moved_since(vm, at)
    down(vm)
    assert all(shares)
    assert since(vm, before)["dsa"] * 4096 == sum(shares)


def test_devices_rest(vm: Guest) -> None:
    """What is not frozen moves pages all the time: by CPU while devices sleep, and from then on.

    Linux takes bus mastering from a function whose driver knows of no sleep, as idxd does not.
    """
    up(vm, 2)
    mark, before = vm.mark(), counters(vm)
    run = damos(vm, "base", 4 * SECONDS, mib=384, pace=32)
    wait_for_copies(vm, before)
    with traced(vm, "migrate_copy/migrate_copy_choice", "power/suspend_resume") as lines:
        slept = fall_asleep(vm)
        assert 0 == slept.wait().code
    assert 0 == run.wait(120).code, run.err
    vm.run("sh", "-c", f"echo off >{DAMON}/0/state; echo 0 >{DAMON}/nr_kdamonds")
    # the engine refuses while they sleep, and is not asked after that
    _, begun, asleep = "\n".join(lines).partition(BEGIN)
    assert begun
    assert {"-16"} == set(re.findall(r"engine=dsa reason=damon .* error=(-?\d+)", asleep))
    assert since(vm, before)["fault"] == 2
    assert "0" == value(vm, "use_dsa_copy_pages")
    vm.wait_for_log(f"dsatier: wq0.0: its device is not enabled after a sleep: {OUT}", mark)
    woken(vm)


def test_a_device_without_power(vm: Guest) -> None:
    """It has forgotten its queues, and pages that were on the move are whole."""
    up(vm, 2)
    devices = names(vm).values()
    mark, before = vm.mark(), counters(vm)
    run = busy(vm, 20)
    wait_for_copies(vm, before)
    slept = fall_asleep(vm)
    for device in devices:
        vm.set_device(device, "power-cycle", True)
    assert 0 == slept.wait().code
    vm.wait_for_log(f"dsatier: wq0.0: its device is not enabled after a sleep: {OUT}", mark)
    assert 0 == run.wait(180).code, run.err
    found = since(vm, before)
    assert found["cpu"] > 0
    assert found["dsa"] > 0
    assert found["fault"] == 2
    assert 0 == found["failed"] == found["late"]
    woken(vm)
