# SPDX-License-Identifier: Apache-2.0
"""What the agent's way to untranslated addresses rests on: a kernel's rules for IOMMU groups."""

from __future__ import annotations

import pytest

from dsatier.plan.requests import SetIommu
from tests.kernel.engine import error
from vm.booting import ACCEL_CONFIG, guest
from vm.guest import Guest
from vm.idxd import PCI, address, channels, configuration, dmatest, load, names, state
from vm.machine import Dsa, Machine
from vm.ours import kernel

pytestmark = pytest.mark.system
IDXD = f"{PCI}/drivers/idxd"


def requested(vm: Guest, device: str, kind: str) -> SetIommu:
    """Return the request that gives a device's group a type."""
    group = vm.sh(f"readlink {PCI}/devices/{address(vm, device)}/iommu_group").strip()
    return SetIommu(device, address(vm, device), group.rpartition("/")[2], kind)


def path(request: SetIommu) -> str:
    return f"/sys/kernel/iommu_groups/{request.group}/type"


def carry_out(vm: Guest, request: SetIommu) -> None:
    """Do what the agent's gate does, in the same order."""
    vm.write(f"{IDXD}/unbind", request.pci)
    vm.write(path(request), request.type)
    vm.write(f"{IDXD}/bind", request.pci)


def copies(vm: Guest) -> None:
    """Both devices copy, and every byte is right."""
    load(vm, configuration(2))
    found = dmatest(vm, channels(vm), iterations=20)
    assert {(20, 0)} == {(each.tests, each.failures) for each in found}
    for device in ("dsa0", "dsa1"):
        vm.ok("accel-config", "disable-device", device)


def test_a_group_is_identity_while_no_driver_has_its_device_and_goes_back() -> None:
    wanted = Machine(dsa=(Dsa(), Dsa()), iommu="translated")
    programs = [ACCEL_CONFIG]
    with guest(wanted, kernel=kernel(), load=["idxd", "dmatest"], programs=programs) as vm:
        before = names(vm)
        opened = [requested(vm, device, "identity") for device in ("dsa0", "dsa1")]
        found = [vm.read(path(request)).strip() for request in opened]
        assert set(found) <= {"DMA", "DMA-FQ"}
        for request in opened:
            assert "Operation not permitted" in error(vm, path(request), "identity")
            assert "Invalid argument" in error(vm, path(request), "none")
        copies(vm)
        for request in opened:
            carry_out(vm, request)
            assert "disabled" == state(vm, request.device)
        assert (before, ["identity"] * 2) == (
            names(vm),
            [vm.read(path(request)).strip() for request in opened],
        )
        copies(vm)
        for device, kind in zip(("dsa0", "dsa1"), found, strict=True):
            carry_out(vm, requested(vm, device, kind))
        assert (before, found) == (
            names(vm),
            [vm.read(path(request)).strip() for request in opened],
        )
        copies(vm)
