# SPDX-License-Identifier: Apache-2.0
"""Defects of the driver that our patches mend: each test here hurts the kernel without them."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.emulator.descriptors import NO_FLAGS, batch
from tests.emulator.dsa import Cause, Command
from tests.emulator.qtest import Lines
from vm.booting import ACCEL_CONFIG, guest
from vm.guest import PATIENCE, Guest
from vm.idxd import PCI, address, channels, configuration, counters, dmatest, load, state
from vm.machine import Dsa, Machine
from vm.ours import BUILD, TRACING, kernel, module

pytestmark = pytest.mark.system
SVA = BUILD.parents[1] / "selftests/sva.c"


@pytest.fixture
def vm(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A guest with a device of a version, configured."""
    wanted = Machine(dsa=(Dsa(properties={"version": request.param}),))
    with guest(wanted, kernel=kernel(), load=["idxd", "dmatest"], programs=[ACCEL_CONFIG]) as found:
        load(found, configuration(1))
        yield found


def copies(vm: Guest, name: str = "") -> None:
    """The device copies, and every byte is right."""
    assert [(20, 0)] == [
        (each.tests, each.failures) for each in dmatest(vm, channels(vm, name), iterations=20)
    ]


@pytest.mark.parametrize("vm", ["1.0", "2.0"], indirect=True)
def test_a_device_is_disabled_with_and_without_event_log(vm: Guest) -> None:
    for _ in range(3):
        copies(vm)
        vm.ok("accel-config", "disable-device", "dsa0")
        assert "disabled" == state(vm, "dsa0")
        load(vm, configuration(1))
    copies(vm)


@pytest.mark.parametrize("vm", ["1.0"], indirect=True)
def test_the_driver_is_unbound_from_a_device_that_is_enabled(vm: Guest) -> None:
    place = address(vm, "dsa0")
    for _ in range(3):
        vm.sh(f"echo {place} >{PCI}/drivers/idxd/unbind")
        assert "" == vm.sh("ls /sys/bus/dsa/devices")
        vm.sh(f"echo {place} >{PCI}/drivers/idxd/bind")
        load(vm, configuration(1))
        copies(vm)


@pytest.mark.parametrize("vm", ["1.0"], indirect=True)
def test_what_a_halt_has_stopped_is_unbound_and_comes_back_after_a_reset(vm: Guest) -> None:
    """Queue and device let go, probing a halted device only fails, and an FLR mends it all."""
    place = address(vm, "dsa0")
    mark = vm.mark()
    vm.set_device("dsa0", "halt", "flr")
    vm.wait_for_log("idxd halted, need FLR", mark)
    vm.sh("echo wq0.0 >/sys/bus/dsa/drivers/dmaengine/unbind", timeout=30)
    vm.sh(f"echo {place} >{PCI}/drivers/idxd/unbind", timeout=30)
    for _ in range(2):
        mark = vm.mark()
        assert vm.run("sh", "-c", f"echo {place} >{PCI}/drivers/idxd/bind").code
        vm.wait_for_log("Device is HALTED!", mark)
    vm.sh(f"echo 1 >{PCI}/devices/{place}/reset")
    vm.sh(f"echo {place} >{PCI}/drivers/idxd/bind")
    load(vm, configuration(1))
    copies(vm)


# -- what a device seldom does, and few devices do -----------------------------------

PLAIN, LOGGING, WIDE = "dsa0", "dsa1", "dsa2"
"""A DSA 1.0; one with event log and handles; and one with handles and more vectors than queues."""


@pytest.fixture(scope="module")
def seldom(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Guest, Path]]:
    """A guest with a device of each kind, and where the emulator takes orders from a test.

    What its kernel frees it fills with a pattern that is no address.
    """
    orders = tmp_path_factory.mktemp("orders") / "qtest"
    wanted = Machine(
        dsa=(
            Dsa(),
            Dsa(properties={"version": "2.0", "int-handles": True}),
            Dsa(properties={"int-handles": True, "vectors": 65}),
        ),
        append=("slab_debug=FP,kmalloc-*",),
        extra=("-qtest", f"unix:{orders},server=on,wait=off", "-qtest-log", "none"),
    )
    with guest(wanted, kernel=kernel(), load=["idxd", "dmatest"], programs=[ACCEL_CONFIG]) as vm:
        yield vm, orders


@pytest.fixture
def vm3(seldom: tuple[Guest, Path]) -> Guest:
    """That guest."""
    return seldom[0]


def anew(vm: Guest, name: str) -> str:
    """Have the driver find a device once more: nothing of it is configured. Return its place."""
    place = address(vm, name)
    vm.sh(f"echo {place} >{PCI}/drivers/idxd/unbind; echo {place} >{PCI}/drivers/idxd/bind")
    return place


def configured(vm: Guest, name: str) -> None:
    """Give a device alone one queue of the kernel, a short one: each entry is allocated."""
    anew(vm, name)
    found = [each for each in json.loads(configuration(3)) if each["dev"] == name]
    found[0]["groups"][0]["grouped_workqueues"][0]["size"] = 8
    load(vm, json.dumps(found))


def until(met: Callable[[], bool], what: str) -> None:
    """Wait for something; ``what`` is for the error."""
    end = time.monotonic() + PATIENCE
    while not met():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def interrupted(vm: Guest, name: str, cause: Cause) -> None:
    """Have a device interrupt, and wait until the driver has dealt with it."""

    def taken() -> int:
        lines = [line for line in vm.read("/proc/interrupts").splitlines() if "idxd-misc" in line]
        return sum(int(word) for line in lines for word in line.split()[1:] if word.isdecimal())

    before = taken()
    vm.set_device(name, "interrupt", int(cause))
    until(lambda: taken() > before, "no interrupt came")
    vm.check()


def test_an_interrupt_for_a_command_that_nobody_waits_for(vm3: Guest) -> None:
    """Before the first command, and after one whose task has gone."""
    anew(vm3, PLAIN)
    interrupted(vm3, PLAIN, Cause.COMMAND)
    configured(vm3, PLAIN)
    interrupted(vm3, PLAIN, Cause.COMMAND)
    copies(vm3, PLAIN)


def test_an_interrupt_before_a_command_is_done(vm3: Guest) -> None:
    """The command is waited for all the same, and the next one is not given before."""
    configured(vm3, PLAIN)
    mark = vm3.mark()
    vm3.set_device(PLAIN, "faults", f"command-late:op={Command.DRAIN_WQ}:ms=2000")
    letting_go = vm3.start("sh", "-c", "echo wq0.0 >/sys/bus/dsa/drivers/dmaengine/unbind")
    until(lambda: vm3.device(PLAIN, "fault-hits") == "1", "the queue was not drained")
    interrupted(vm3, PLAIN, Cause.COMMAND)
    assert 0 == letting_go.wait().code
    vm3.set_device(PLAIN, "faults", "")
    assert [] == [line for line in vm3.lines(mark) if "err[" in line]
    configured(vm3, PLAIN)
    copies(vm3, PLAIN)


def test_handles_are_renewed_with_more_vectors_than_queues(vm3: Guest) -> None:
    configured(vm3, WIDE)
    copies(vm3, WIDE)
    vm3.set_device(WIDE, "revoke-handles", True)
    until(lambda: "drain" in counters(vm3, WIDE)["device"]["ops"], "no queue was drained")
    copies(vm3, WIDE)


def test_a_queue_of_the_kernel_has_a_record_that_cannot_be_written(vm3: Guest) -> None:
    """Its event is logged. The descriptor is the drain that follows the loss of a handle."""
    configured(vm3, LOGGING)
    mark = vm3.mark()
    vm3.set_device(LOGGING, "faults", "error:op=2:status=0x1a")
    vm3.set_device(LOGGING, "revoke-handles", True)
    vm3.wait_for_log("Device error 0x1a operation: 0x2 ", mark)
    vm3.set_device(LOGGING, "faults", "")
    copies(vm3, LOGGING)


def test_faults_of_the_event_log_are_forgotten(seldom: tuple[Guest, Path]) -> None:
    """Of batches of user space that want no record: the cache that they are from goes in the end.

    No emulated IOMMU shares a process's addresses with a device, without which the driver has no
    queues for user space: a module of ours has the kernel say that one did. A descriptor comes to
    the portal by the emulator, as it would from a program.
    """
    vm, orders = seldom
    vm.put("/sva.ko", module(SVA, vm.kernel).read_bytes())
    vm.sh("insmod /sva.ko")
    place = anew(vm, LOGGING)
    vm.sh("rmmod sva")
    vm.sh(
        """cd /sys/bus/dsa/devices; echo 0 >dsa1/engine1.0/group_id; cd dsa1/wq1.0
        set -- group_id=0 mode=dedicated size=16 priority=10 type=user driver_name=user name=test
        for each; do echo "${each#*=}" >"${each%%=*}"; done
        echo dsa1 >/sys/bus/dsa/drivers/idxd/bind; echo wq1.0 >/sys/bus/dsa/drivers/user/bind"""
    )
    portal = int(vm.read(f"{PCI}/devices/{place}/resource").splitlines()[2].split()[0], 16)
    vm.write(f"{TRACING}/kprobe_events", "p:fault idxd:idxd_evl_fault_work")
    vm.write(f"{TRACING}/events/kprobes/fault/enable", "1")
    vm.set_device(LOGGING, "faults", "error:op=1:status=0x27")
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(orders))
        emulator = Lines(link)
        for _ in range(3):
            descriptor = batch(0, 2, NO_FLAGS).encode().hex()
            emulator.send(f"write {portal:#x} 0x40 0x{descriptor}")
            assert "OK" == emulator.receive()
    until(lambda: vm.read(f"{TRACING}/trace").count("fault: ") == 3, "three faults were not seen")
    vm.set_device(LOGGING, "faults", "")
    vm.write(f"{TRACING}/events/kprobes/fault/enable", "0")
    vm.write(f"{TRACING}/kprobe_events", "\n")
    configured(vm, LOGGING)
    copies(vm, LOGGING)


def test_a_channel_that_cannot_be_registered(vm3: Guest) -> None:
    """Each allocation that it takes to give a queue to the kernel fails, one after the other.

    After each failure the list of channels is walked.
    """
    configured(vm3, PLAIN)
    words = "func idxd_dmaengine_drv_probe +p"
    vm3.write("/sys/kernel/debug/dynamic_debug/control", words)
    mark = vm3.mark()
    vm3.sh(
        """fail=/sys/kernel/debug/failslab; echo N >$fail/ignore-gfp-wait; echo 0 >$fail/verbose
        cd /sys/bus/dsa/devices/dsa0/wq0.0; drivers=/sys/bus/dsa/drivers/dmaengine
        echo wq0.0 >$drivers/unbind
        tries=1 left=0
        while [ "$left" = 0 ]; do
            # each twice: how many came before may differ by one
            tries=$((tries + 1)) number=$((tries / 2))
            for each in mode=dedicated priority=10 type=kernel driver_name=dmaengine name=dmaengine
            do echo "${each#*=}" >"${each%%=*}"; done
            left=$(
                set +e; exec 2>/dev/null; echo $number >/proc/self/fail-nth
                echo wq0.0 >$drivers/bind; read -r left </proc/self/fail-nth; echo "${left:-0}"
            )
            while read -r line; do :; done </sys/kernel/debug/dmaengine/summary
            read -r now <state
            [ "$now$left" != enabled0 ] || echo wq0.0 >$drivers/unbind
        done
        echo Y >$fail/ignore-gfp-wait""",
        timeout=300,
    )
    refused = [line for line in vm3.lines(mark) if "Failed to register dma channel" in line]
    assert len(refused) > 3
    copies(vm3, PLAIN)
