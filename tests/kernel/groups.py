# SPDX-License-Identifier: Apache-2.0
"""The IOMMU groups of DSA devices in a guest."""

from __future__ import annotations

from vm.guest import Guest
from vm.idxd import PCI, address


def file(vm: Guest, device: str) -> str:
    """Return the file of the type of a device's group."""
    group = vm.sh(f"readlink {PCI}/devices/{address(vm, device)}/iommu_group").strip()
    return f"/sys/kernel/iommu_groups/{group.rpartition('/')[2]}/type"


def kind(vm: Guest, device: str) -> str:
    """Return the type of a device's group."""
    return vm.read(file(vm, device)).strip()


def retype(vm: Guest, device: str, wanted: str) -> None:
    """Give the group of a disabled device a type, as the agent does it."""
    place, path = address(vm, device), file(vm, device)
    vm.write(f"{PCI}/drivers/idxd/unbind", place)
    vm.write(path, wanted)
    vm.write(f"{PCI}/drivers/idxd/bind", place)
