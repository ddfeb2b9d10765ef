# SPDX-License-Identifier: Apache-2.0
"""Debian's own kernel, accel-config and dmatest on emulated devices, nothing of ours in them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from vm import images
from vm.booting import ACCEL_CONFIG, guest
from vm.guest import Guest
from vm.idxd import (
    Summary,
    address,
    channels,
    configuration,
    counters,
    dmatest,
    load,
    names,
    set_dmatest,
    start_dmatest,
    state,
    stop_dmatest,
)
from vm.machine import Dsa, Iommu, Machine

pytestmark = pytest.mark.system
DEVICES = "/sys/bus/dsa/devices"
IDXD = "/sys/bus/dsa/drivers/idxd"


def machine(count: int, version: str, iommu: Iommu = "off") -> Machine:
    """Return two tiers with devices, the first half of them on the fast node."""
    devices = tuple(Dsa(node=2 * n // count, properties={"version": version}) for n in range(count))
    return Machine(dsa=devices, iommu=iommu)


def clean(found: list[Summary], tests: int, threads: int) -> None:
    """Every thread has made all of its copies, each right."""
    assert {(tests, 0)} == {(each.tests, each.failures) for each in found}
    assert threads == len(found)


def disable(vm: Guest, name: str) -> None:
    """Have accel-config disable a device, and see that it is."""
    vm.ok("accel-config", "disable-device", name)
    assert "disabled" == state(vm, name)


def boot(wanted: Machine) -> Guest:
    """Return a guest with the driver loaded, accel-config and dmatest."""
    kernel = images.debian_kernel()
    files = {"/lib/dmatest.ko": images.dmatest(kernel)}
    return guest(wanted, kernel=kernel, load=["idxd"], programs=[ACCEL_CONFIG], files=files)


@pytest.fixture(scope="module")
def eight() -> Iterator[Guest]:
    """Eight devices of version 1.0, as the seed's hosts have them, with its configuration."""
    with boot(machine(8, "1.0")) as vm:
        vm.ok("insmod", "/lib/dmatest.ko")
        load(vm, configuration(8))
        yield vm


@pytest.fixture(scope="module")
def two() -> Iterator[Guest]:
    """Two devices of version 2.0, which have event logs and can so be disabled."""
    with boot(machine(2, "2.0")) as vm:
        vm.ok("insmod", "/lib/dmatest.ko")
        yield vm


def test_the_seeds_configuration_is_loaded(eight: Guest) -> None:
    for number in range(8):
        queue = f"wq{number}.0"
        assert ("enabled", "enabled") == (state(eight, f"dsa{number}"), state(eight, queue))
        place = f"/sys/bus/dsa/devices/{queue}"
        found = [eight.read(f"{place}/{key}") for key in ("mode", "type", "size", "max_batch_size")]
        assert ["dedicated", "kernel", "128", "128"] == found
    assert 8 == len(channels(eight))


def test_every_channel_copies_right_and_the_devices_did_it(eight: Guest) -> None:
    of = names(eight)
    before = {name: counters(eight, of[name])["device"] for name in of}
    clean(dmatest(eight, channels(eight), threads=4, iterations=50), 50, 4 * 8)
    for name, emulated in of.items():
        after = counters(eight, emulated)["device"]
        moved = after["ops"]["move"] - before[name]["ops"].get("move", 0)
        assert 4 * 50 == moved, name
        assert after["bytes-written"] > before[name]["bytes-written"]
        assert after["errors"] == before[name]["errors"]


def test_a_device_is_on_the_node_that_it_was_put_on(eight: Guest) -> None:
    found = [eight.read(f"{DEVICES}/dsa{number}/numa_node") for number in range(8)]
    assert ["0"] * 4 + ["1"] * 4 == found


def test_one_to_eight_devices(eight: Guest) -> None:
    """The more devices, the more copies; how many is in the figures of the documentation."""
    for count in range(1, 9):
        chosen = channels(eight)[:count]
        before = {name: counters(eight, name)["device"] for name in names(eight).values()}
        began = time.monotonic()
        clean(dmatest(eight, chosen, threads=2, iterations=40), 40, 2 * count)
        took = time.monotonic() - began
        after = {name: counters(eight, name)["device"] for name in before}
        copied, written = (
            sum(after[name][key] - before[name][key] for name in before)
            for key in ("descriptors", "bytes-written")
        )
        print(
            f"{count} devices: {copied / took:.0f} descriptors/s, {written / took / 1e6:.2f} MB/s"
        )
        used = [name for name in before if after[name] != before[name]]
        assert (count, 80 * count) == (len(used), copied)


def test_one_to_eight_queues(two: Guest) -> None:
    for queues in (1, 2, 3, 8):
        load(two, configuration(1, queues=queues))
        assert queues == len(channels(two))
        clean(dmatest(two, channels(two), threads=2, iterations=20), 20, 2 * queues)
        told = counters(two, names(two)["dsa0"])["queues"]
        assert queues == len([queue for queue in told.values() if queue["descriptors"]])
        disable(two, "dsa0")
        two.set_device(names(two)["dsa0"], "counters-reset", True)


def test_a_device_goes_and_comes_while_another_is_under_load(two: Guest) -> None:
    """Disabled by accel-config, unbound by sysfs, reset by PCI: the other copies on, right."""
    load(two, configuration(2))
    of = names(two)
    place = address(two, "dsa0")
    set_dmatest(two, threads=2, iterations=0)
    mark = two.mark()
    start_dmatest(two, channels(two, "dsa1"))
    before = counters(two, of["dsa1"])["device"]["descriptors"]
    for _ in range(3):
        disable(two, "dsa0")
        load(two, configuration(1))
        two.sh(f"echo wq0.0 >{DEVICES}/wq0.0/driver/unbind")
        assert "disabled" == state(two, "wq0.0")
        two.sh(f"echo dsa0 >{IDXD}/unbind")
        assert "disabled" == state(two, "dsa0")
        two.sh(f"echo {place} >/sys/bus/pci/drivers/idxd/unbind; [ ! -e {DEVICES}/dsa0 ]")
        two.sh(f"echo 1 >/sys/bus/pci/devices/{place}/reset")
        two.sh(f"echo {place} >/sys/bus/pci/drivers/idxd/bind; [ -e {DEVICES}/dsa0 ]")
        load(two, configuration(1))
    assert counters(two, of["dsa1"])["device"]["descriptors"] > before + 100
    # a copy that is under way when dmatest is stopped counts as timed out
    wrong = [line for line in two.lines(mark) if "dmatest" in line and "result" in line]
    assert [] == wrong
    stop_dmatest(two)
    both = channels(two)
    assert 2 == len(both)
    clean(dmatest(two, both, iterations=20), 20, 2)
    disable(two, "dsa0")
    disable(two, "dsa1")


def test_the_module_is_reloaded(two: Guest) -> None:
    for _ in range(3):
        load(two, configuration(2))
        clean(dmatest(two, channels(two), iterations=10), 10, 2)
        two.ok("rmmod", "dmatest")
        two.ok("rmmod", "idxd")
        assert "" == two.sh(f"ls {DEVICES} 2>/dev/null || true")
        two.ok("modprobe", "idxd")
        assert {"dsa0": "disabled", "dsa1": "disabled"} == {n: state(two, n) for n in names(two)}
        two.ok("insmod", "/lib/dmatest.ko")


def test_accel_configs_own_tests(two: Guest) -> None:
    """They are in the program, under a command that its help does not name."""
    two.ok("rmmod", "dmatest")
    two.ok("rmmod", "idxd")
    two.ok("modprobe", "idxd", "tc_override=1")  # they set traffic classes
    ran = two.run("accel-config", "test")
    assert (0, 4) == (ran.code, len(re.findall(r"^accfg-test\d passed!$", ran.out, re.MULTILINE)))
    assert "test-libaccfg: PASS" in ran.err
    two.ok("rmmod", "idxd")
    two.ok("modprobe", "idxd")
    two.ok("insmod", "/lib/dmatest.ko")


def test_a_device_without_event_log_cannot_be_disabled_on_this_kernel() -> None:
    """The defect of this kernel: it frees an event log that is not there. The guest is lost."""
    with boot(machine(1, "1.0")) as vm:
        load(vm, configuration(1))
        vm.check()
        ran = vm.run("accel-config", "disable-device", "dsa0")
        assert ran.code
        first, *_ = found = vm.complaints()
        assert "NULL pointer dereference" in first.line
        assert any("idxd_device_evl_free" in line for line in first.lines)
        assert {"a bug", "an oops"} == {complaint.what for complaint in found}


def test_a_queue_that_is_unbound_under_its_load_fails_copies_and_spoils_none(two: Guest) -> None:
    """accel-config refuses it while there are clients; sysfs does not."""
    load(two, configuration(1))
    set_dmatest(two, threads=2, iterations=0, timeout=2000)
    start_dmatest(two, channels(two))
    mark = two.mark()
    assert "wq has clients" in two.run("accel-config", "disable-wq", "dsa0/wq0.0").err
    two.sh(f"echo wq0.0 >{DEVICES}/wq0.0/driver/unbind")
    two.wait_for_log("prep error", mark)
    stop_dmatest(two)
    lines = two.lines(mark)
    assert any("Clients has claim on wq 0" in line for line in lines)
    found = {told[1] for line in lines if (told := re.search("result #.*: '(.*?)'", line))}
    assert {"submit error", "prep error"} >= found
    disable(two, "dsa0")
    load(two, configuration(1))
    clean(dmatest(two, channels(two), iterations=20), 20, 1)
    disable(two, "dsa0")


REFUSED = {"submit error", "prep error"}
RESULT = re.compile("result #.*: '(.*?)'")


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("disable", REFUSED),
        ("unbind", REFUSED),
        ("unbind PCI", REFUSED),
        ("reset PCI", {"test timed out"}),
        ("reload", set()),
    ],
)
def test_a_device_goes_and_comes_under_its_own_load(two: Guest, how: str, told: set[str]) -> None:
    """What was under way fails or is refused, no copy is wrong, and it works again."""
    load(two, configuration(1))
    place = address(two, "dsa0")
    set_dmatest(two, threads=2, iterations=0, timeout=1000)
    mark = two.mark()
    start_dmatest(two, channels(two))
    two.ok("sleep", "0.5")
    if how == "disable":
        assert "has clients" in two.run("accel-config", "disable-device", "dsa0").err
        two.ok("accel-config", "disable-device", "dsa0", "-f")
    elif how == "unbind":
        two.sh(f"echo dsa0 >{IDXD}/unbind")
    elif how == "unbind PCI":
        # while it is enabled, this kernel oopses here: it frees queues first that it then resets
        two.sh(f"echo dsa0 >{IDXD}/unbind; echo {place} >/sys/bus/pci/drivers/idxd/unbind")
    elif how == "reset PCI":
        two.sh(f"echo 1 >/sys/bus/pci/devices/{place}/reset")
    else:
        assert two.run("rmmod", "idxd").code
    two.ok("sleep", "1.5")  # longer than a copy may take
    stop_dmatest(two)
    found = {line[1] for line in map(RESULT.search, two.lines(mark)) if line}
    # what is under way when a run is stopped counts as timed out
    assert told <= found <= told | {"test timed out"}
    two.ok("rmmod", "dmatest")
    two.ok("rmmod", "idxd")
    two.ok("modprobe", "idxd")
    two.ok("insmod", "/lib/dmatest.ko")
    load(two, configuration(1))
    clean(dmatest(two, channels(two), iterations=20), 20, 1)
    disable(two, "dsa0")


@pytest.mark.parametrize(("iommu", "kind"), [("passthrough", "identity"), ("translated", "DMA.*")])
def test_behind_an_iommu(iommu: Iommu, kind: str) -> None:
    with boot(machine(2, "2.0", iommu)) as vm:
        vm.ok("insmod", "/lib/dmatest.ko")
        group = vm.sh(f"cat $(readlink -f {DEVICES}/dsa0/..)/iommu_group/type").strip()
        assert re.fullmatch(kind, group), group
        load(vm, configuration(2))
        clean(dmatest(vm, channels(vm), threads=2, iterations=40), 40, 4)
        for device in names(vm).values():
            assert 80 == counters(vm, device)["device"]["ops"]["move"]
        disable(vm, "dsa0")


# -- faults ----------------------------------------------------------------------


@pytest.fixture
def faulty() -> Iterator[Guest]:
    """A device of version 2.0 that can be unplugged, configured, and dmatest."""
    wanted = Machine(dsa=(Dsa(removable=True, properties={"version": "2.0"}),))
    with boot(wanted) as vm:
        vm.ok("insmod", "/lib/dmatest.ko")
        load(vm, configuration(1))
        yield vm


def inject(vm: Guest, rules: str) -> None:
    """Have the only device fail by these rules from now on; none for no more."""
    vm.set_device("dsa0", "faults", rules)


def failures(found: list[Summary]) -> int:
    return sum(each.failures for each in found)


def test_what_the_device_does_wrong_is_seen(faulty: Guest) -> None:
    """dmatest compares every byte, which is all that tells of an error: it asks for no status."""
    vm = faulty
    for rules, told in (
        ("corrupt:every=10", "data error"),
        ("error:every=10:status=0x1f", "data error"),
        ("never:nth=5", "test timed out"),
    ):
        inject(vm, rules)
        mark = vm.mark()
        found = dmatest(vm, channels(vm), iterations=20, timeout=500)
        assert failures(found), rules
        assert any(told in line for line in vm.lines(mark)), (rules, vm.lines(mark))
        inject(vm, "")
        vm.set_device("dsa0", "release", True)
    clean(dmatest(vm, channels(vm), iterations=20), 20, 1)


def test_a_lost_interrupt_times_out_and_spoils_nothing(faulty: Guest) -> None:
    """The copy was made; nobody was told. The driver finds it with the next interrupt."""
    inject(faulty, "lost-interrupt:nth=5")
    mark = faulty.mark()
    found = dmatest(faulty, channels(faulty), iterations=20, timeout=500)
    assert 1 == failures(found)
    assert [] == [line for line in faulty.lines(mark) if "data error" in line]
    inject(faulty, "")
    clean(dmatest(faulty, channels(faulty), iterations=20), 20, 1)


def test_a_late_command_is_waited_for(faulty: Guest) -> None:
    """Every command of a disable and of an enable comes half a second late."""
    inject(faulty, "command-late:ms=500")
    began = time.monotonic()
    disable(faulty, "dsa0")
    load(faulty, configuration(1))
    assert time.monotonic() - began > 1
    inject(faulty, "")
    clean(dmatest(faulty, channels(faulty), iterations=20), 20, 1)


def test_a_stuck_engine_holds_up_a_disable(faulty: Guest) -> None:
    """The driver waits for ever; it goes on when the engine does."""
    vm = faulty
    inject(vm, "stuck:times=4:hard")
    found = dmatest(vm, channels(vm), iterations=4, timeout=300)
    assert 4 == failures(found)
    inject(vm, "")
    hung = vm.start("accel-config", "disable-device", "dsa0")
    vm.ok("sleep", "3")
    assert not hung.ended
    vm.set_device("dsa0", "release", True)
    hung.wait()
    assert "disabled" == state(vm, "dsa0")
    load(vm, configuration(1))
    clean(dmatest(vm, channels(vm), iterations=20), 20, 1)


def test_interrupt_handles_are_asked_for_and_asked_for_anew() -> None:
    """With a device that wants that the driver does it, also when all are revoked under load."""
    wanted = Machine(dsa=(Dsa(properties={"version": "2.0", "int-handles": True}),))
    with boot(wanted) as vm:
        vm.ok("insmod", "/lib/dmatest.ko")
        load(vm, configuration(1, queues=2))
        mark = vm.mark()
        clean(dmatest(vm, channels(vm), iterations=20), 20, 2)
        set_dmatest(vm, threads=2, iterations=0)
        start_dmatest(vm, channels(vm))
        for _ in range(3):
            vm.set_device("dsa0", "revoke-handles", True)
            vm.ok("sleep", "0.3")
        stop_dmatest(vm)
        assert [] == [line for line in vm.lines(mark) if "data error" in line]
        clean(dmatest(vm, channels(vm), iterations=20), 20, 2)
        disable(vm, "dsa0")


@pytest.mark.parametrize(
    ("reset", "told"), [("flr", "idxd halted, need FLR"), ("software", "Device is HALTED!")]
)
def test_a_halt_is_told_by_the_log_and_a_reset_ends_it(
    faulty: Guest, reset: str, told: str
) -> None:
    """The driver's own reset does not: it refuses commands while the device is halted."""
    mark = faulty.mark()
    faulty.set_device("dsa0", "halt", reset)
    faulty.wait_for_log(told, mark)
    assert "disabled" == state(faulty, "dsa0")
    assert faulty.run("accel-config", "enable-device", "dsa0").code
    faulty.reset()
    faulty.ok("insmod", "/lib/dmatest.ko")
    load(faulty, configuration(1))
    clean(dmatest(faulty, channels(faulty), iterations=20), 20, 1)


def test_a_device_is_unplugged_and_plugged(faulty: Guest) -> None:
    faulty.ok("accel-config", "disable-device", "dsa0")
    faulty.unplug("dsa0")
    assert "" == faulty.sh(f"ls {DEVICES}")
    faulty.plug("dsa0")
    until = time.monotonic() + 30
    while not faulty.sh(f"ls {DEVICES}"):
        assert time.monotonic() < until, "the guest has not found the device again"
    load(faulty, configuration(1))
    clean(dmatest(faulty, channels(faulty), iterations=20), 20, 1)


def test_a_device_that_vanishes(faulty: Guest) -> None:
    """It is gone from the bus without a word, as when it is pulled out."""
    set_dmatest(faulty, iterations=0, timeout=500)
    start_dmatest(faulty, channels(faulty))
    mark = faulty.mark()
    faulty.set_device("dsa0", "removed", True)
    faulty.wait_for_log("result #.*: '(test timed out|submit error|prep error)'", mark)
    stop_dmatest(faulty)
    assert not any("data error" in line for line in faulty.lines(mark))
