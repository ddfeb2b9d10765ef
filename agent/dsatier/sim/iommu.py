# SPDX-License-Identifier: Apache-2.0
"""IOMMU groups, their types, and the PCI driver of DSA devices.

Which types are taken, and the errors, follow drivers/iommu/iommu.c of Linux 5.11 to 7.3.
"""

from __future__ import annotations

from errno import EBUSY, EINVAL, ENODEV, EPERM, EROFS
from typing import TYPE_CHECKING

from dsatier.sim import idxd
from dsatier.sim.parse import Refused, word
from dsatier.sim.state import Device, Group, Queue

if TYPE_CHECKING:
    from dsatier.sim.kernel import Kernel
    from dsatier.sim.spec import DeviceSpec, HostSpec

TYPES = ("identity", "DMA", "DMA-FQ")
WRITABLE, WHOLE_GROUPS = (5, 11), (6, 4)
"""The first kernels that let a type be written, and that of a group of several devices."""


def groups(spec: HostSpec) -> tuple[tuple[int, ...], ...]:
    """Return the members of each group: DSA devices by their number, then other DMA devices."""
    members = tuple(range(len(spec.each_device()) + len(spec.other_dma)))
    if spec.iommu == "off" or not members:
        return ()
    return (members,) if spec.iommu_group_of_all else tuple((member,) for member in members)


def booted(spec: HostSpec) -> tuple[str, ...]:
    """Return the type of each group at boot."""
    kind = "identity" if spec.iommu == "passthrough" else "DMA-FQ"
    return tuple(kind for _ in groups(spec))


def release(spec: HostSpec) -> tuple[int, ...]:
    """Return major and minor number of a host's kernel."""
    return tuple(int(part) for part in spec.kernel.release.split("-")[0].split(".")[:2])


def translated(k: Kernel, device: int) -> bool:
    """Tell whether the addresses of a device are translated."""
    return any(
        device in members and kind != "identity"
        for members, kind in zip(groups(k.spec), k.state.iommu, strict=True)
    )


def show(number: int, k: Kernel) -> str:
    """Return a group's type."""
    return f"{k.state.iommu[number]}\n"


def store(number: int, k: Kernel, text: str) -> None:
    """Write a group's type. Raises Refused."""
    if k.spec.unit == "shipped":
        raise Refused(EROFS)
    kind, now = word(text), k.state.iommu[number]
    members, whole = groups(k.spec)[number], release(k.spec) >= WHOLE_GROUPS
    if kind == "auto":
        kind = booted(k.spec)[number]
    if kind not in TYPES or (len(members) > 1 and not whole):
        raise Refused(EINVAL)
    devices = k.state.devices
    held = any(one >= len(devices) or not devices[one].loose for one in members)
    if held and (now, kind) != ("DMA", "DMA-FQ"):
        raise Refused(EPERM if whole else EBUSY)
    k.state.iommu = (*k.state.iommu[:number], kind, *k.state.iommu[number + 1 :])


def fresh(spec: DeviceSpec) -> Device:
    """Return a device as its driver brings it up."""
    return Device(
        present=True,
        engines=(-1,) * spec.engines,
        groups=(Group(tc_a=1, tc_b=1),) * spec.groups,
        queues=(Queue(),) * spec.queues,
    )


def unbind(k: Kernel, text: str) -> None:
    """Take a PCI device from idxd: its queues go, also those in use. Raises Refused, HostDown."""
    index = _index(k, text)
    if k.state.devices[index].loose:
        raise Refused(ENODEV)
    if k.state.devices[index].bound:
        idxd.unbind_device(k, index)
    device = k.state.devices[index]
    idxd.set_device(k, index, device._replace(present=False, loose=True))


def bind(k: Kernel, text: str) -> None:
    """Give a PCI device that no driver has to idxd. Raises Refused."""
    index = _index(k, text)
    if not k.state.devices[index].loose:
        raise Refused(EBUSY)
    broken = k.state.devices[index].broken
    idxd.set_device(k, index, fresh(k.layout.devices[index])._replace(broken=broken))


def _index(k: Kernel, text: str) -> int:
    address = word(text)
    if address not in k.layout.pci:
        raise Refused(ENODEV)
    return k.layout.pci.index(address)
