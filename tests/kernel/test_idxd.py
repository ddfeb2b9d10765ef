# SPDX-License-Identifier: Apache-2.0
"""Defects of the driver that our patches mend: each test here hurts the kernel without them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernel.ours import kernel
from tests.vm.booting import ACCEL_CONFIG, guest
from tests.vm.guest import Guest
from tests.vm.idxd import PCI, address, channels, configuration, dmatest, load, state
from tests.vm.machine import Dsa, Machine

pytestmark = pytest.mark.system


@pytest.fixture
def vm(request: pytest.FixtureRequest) -> Iterator[Guest]:
    """A guest with a device of a version, configured."""
    wanted = Machine(dsa=(Dsa(properties={"version": request.param}),))
    with guest(wanted, kernel=kernel(), load=["idxd", "dmatest"], programs=[ACCEL_CONFIG]) as found:
        load(found, configuration(1))
        yield found


def copies(vm: Guest) -> None:
    """The device copies, and every byte is right."""
    assert [(20, 0)] == [
        (each.tests, each.failures) for each in dmatest(vm, channels(vm), iterations=20)
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
