# SPDX-License-Identifier: Apache-2.0
"""The idxd driver: devices and queues, their binding and halting.

Errors follow drivers/dma/idxd of Linux 6.12. The attribute files are in ``attributes``.
"""

from __future__ import annotations

import re
from errno import EBUSY, ENODEV, ENXIO, EOPNOTSUPP
from typing import TYPE_CHECKING

from dsatier.sim import copying
from dsatier.sim.parse import Refused, word
from dsatier.sim.state import Chan, Dma, Group, Queue

if TYPE_CHECKING:
    from dsatier.sim.kernel import Kernel
    from dsatier.sim.state import Device

DEV_ENABLED = 0x80000010
WQ_ENABLED = 0x80000021
WQ_NO_GRP = 0x80030000
WQ_NO_NAME = 0x80040000
WQ_NO_SVM = 0x80050000
WQ_NO_THRESH = 0x80060000
WQ_NO_SWQ = 0x800C0000
WQ_NONE = 0x800D0000
WQ_USER_NO_IOMMU = 0x80110000
WQ_NO_DRV_NAME = 0x80200000

FLR = {"flr": "FLR", "system": "system reset"}


def index_of(device: str) -> int:
    """Return the number of a device such as ``dsa3``."""
    return int(device.removeprefix("dsa"))


def pci(k: Kernel, index: int) -> str:
    """Return a device's PCI address."""
    return k.layout.pci[index]


def set_device(k: Kernel, index: int, device: Device) -> None:
    """Replace a device."""
    devices = list(k.state.devices)
    devices[index] = device
    k.state.devices = tuple(devices)


def set_present(k: Kernel, index: int, *, present: bool) -> None:
    """Let a device appear or not be there yet."""
    set_device(k, index, k.state.devices[index]._replace(present=present))


# devices


def bind_device(k: Kernel, index: int) -> None:
    """Enable a device: bind it to ``idxd``. Raises Refused."""
    device = k.state.devices[index]
    if device.bound:
        raise Refused(EBUSY)
    if device.state != "disabled" or device.broken:
        set_device(k, index, device._replace(cmd_status=DEV_ENABLED))
        raise Refused(ENXIO)
    grouped = [q for q in device.queues if q.group >= 0]
    if any(q.mode == "shared" for q in grouped) and not k.spec.scalable_mode:
        k.log(f"idxd {pci(k, index)}: No shared wq support but configured.")
        set_device(k, index, device._replace(cmd_status=WQ_NO_SWQ))
        raise Refused(ENXIO)
    if not grouped:
        set_device(k, index, device._replace(cmd_status=WQ_NONE))
        raise Refused(ENXIO)
    if all(group < 0 for group in device.engines):
        raise Refused(ENXIO)
    set_device(
        k,
        index,
        device._replace(bound=True, state="enabled", cmd_status=0, queues=_sized(device.queues)),
    )
    used = {dma.id for dma in k.state.dma}
    number = next(i for i in range(len(used) + 1) if i not in used)
    k.state.dma += (Dma(number, index, pci(k, index), ()),)


def _sized(queues: tuple[Queue, ...]) -> tuple[Queue, ...]:
    """Give each configured queue without a size the one that the driver gives it."""
    return tuple(
        q._replace(size=16) if q.group >= 0 and q.size == 0 and q.type != "none" else q
        for q in queues
    )


def unbind_device(k: Kernel, index: int) -> None:
    """Disable a device. Raises HostDown where its kernel has no guard for a missing event log."""
    device = k.state.devices[index]
    for number, queue in enumerate(device.queues):
        if queue.state == "enabled":
            k.log(f"idxd dsa{index}: Active wq {number} on disable wq{index}.{number}.")
            unbind_queue(k, index, number)
    for number in range(len(device.queues)):
        copying.lose_queue(k, f"wq{index}.{number}", f"dsa{index} disabled")
    k.state.dma = tuple(dma for dma in k.state.dma if dma.device != index)
    device = k.state.devices[index]
    set_device(k, index, _cleared(device)._replace(bound=False))
    spec = k.layout.devices[index]
    guard = k.spec.kernel.evl_guard
    if guard is None:
        guard = k.spec.kernel.kind != "stock"
    if not spec.event_log and not guard:
        k.hurt("fatal", f"NULL dereference in idxd_device_evl_free: dsa{index} has no event log")


def _cleared(device: Device) -> Device:
    """Return a device as its reset leaves it."""
    return device._replace(
        state="disabled",
        engines=(-1,) * len(device.engines),
        groups=(Group(),) * len(device.groups),
        queues=tuple(
            Queue(driver=q.driver, type=q.type, driver_name=q.driver_name, clients=q.clients)
            for q in device.queues
        ),
    )


def halt(k: Kernel, index: int, reset: str) -> None:
    """Halt a device: its queues stop, their channels stay registered, and copies fail."""
    device = k.state.devices[index]
    held = [
        f"wq{index}.{i}"
        for i, q in enumerate(device.queues)
        if q.state == "enabled" and f"wq{index}.{i}" in k.state.engine.chans
    ]
    device = _cleared(device)
    if reset == "software":
        # the driver resets the device, and finds no configuration left to enable it with
        k.log(f"idxd {pci(k, index)}: Device is HALTED!")
        device = device._replace(state="disabled")
    else:
        k.log(f"idxd {pci(k, index)}: idxd halted, need {FLR[reset]}.")
        # the state is cleared with the rest: it does not tell a halted device from an idle one
        device = device._replace(state="disabled", broken=reset)
    set_device(k, index, device)
    for name in held:
        copying.halted(k, name)


# queues


def bind_queue(k: Kernel, index: int, number: int, driver: str) -> None:
    """Enable a queue. Raises Refused."""
    device = k.state.devices[index]
    queue = device.queues[number]
    if queue.driver:
        raise Refused(EBUSY)
    if device.state != "enabled":
        raise Refused(ENXIO)
    status, errno = _unready(k, queue, driver)
    if status:
        copying.set_queue(k, index, number, queue._replace(type="none"))
        set_device(k, index, k.state.devices[index]._replace(cmd_status=status))
        raise Refused(errno)
    kind = "kernel" if driver == "dmaengine" else "user"
    queue = queue._replace(
        driver=driver, state="enabled", type=kind, clients=0, size=queue.size or 16
    )
    copying.set_queue(k, index, number, queue)
    set_device(k, index, k.state.devices[index]._replace(cmd_status=0))
    if driver != "dmaengine":
        return
    name = f"wq{index}.{number}"
    k.state.dma = tuple(
        dma._replace(chans=(*dma.chans, Chan(_free_id(dma), name))) if dma.device == index else dma
        for dma in k.state.dma
    )


def _free_id(dma: Dma) -> int:
    used = {chan.id for chan in dma.chans}
    return next(i for i in range(len(used) + 1) if i not in used)


def _unready(k: Kernel, queue: Queue, driver: str) -> tuple[int, int]:
    """Return the command status and errno of a queue that cannot be enabled, or zeros."""
    if not k.seed and not queue.driver_name.startswith(driver):
        return WQ_NO_DRV_NAME, ENODEV
    if driver == "user" and not k.spec.scalable_mode:
        return WQ_USER_NO_IOMMU, EOPNOTSUPP
    if queue.group < 0:
        return WQ_NO_GRP, ENXIO
    if not queue.name and not k.seed:
        return WQ_NO_NAME, ENXIO
    if queue.mode == "shared" and not k.spec.scalable_mode:
        return WQ_NO_SVM, ENXIO
    if queue.mode == "shared" and not queue.threshold:
        return WQ_NO_THRESH, ENXIO
    return 0, 0


def unbind_queue(k: Kernel, index: int, number: int) -> None:
    """Disable a queue, also one that is in use: the driver only warns."""
    queue = k.state.devices[index].queues[number]
    name = f"wq{index}.{number}"
    if queue.clients:
        k.log(f"idxd {pci(k, index)}: Clients has claim on wq {number}: {queue.clients}")
    if queue.driver == "dmaengine":
        copying.lose_queue(k, name, "work queue disabled")
    kind = queue.type if queue.driver == "dmaengine" else "none"
    left = Queue(type=kind, driver_name=queue.driver_name, group=queue.group, size=queue.size)
    copying.set_queue(k, index, number, left)
    k.state.dma = tuple(
        dma._replace(chans=tuple(c for c in dma.chans if c.queue != name)) for dma in k.state.dma
    )


# binding through sysfs

_NAME = re.compile(r"(dsa|wq|engine|group)(\d+)(?:\.(\d+))?")


def find(k: Kernel, name: str) -> tuple[str, int, int] | None:
    """Return kind, device and number of an object by its name, None where it is not there."""
    found = _NAME.fullmatch(name)
    if not found:
        return None
    kind, index, number = found[1], int(found[2]), int(found[3] or 0)
    devices = k.state.devices
    if index >= len(devices) or not devices[index].present or (kind == "dsa") == bool(found[3]):
        return None
    parts = {"wq": "queues", "engine": "engines", "group": "groups"}
    if kind in parts and number >= len(getattr(devices[index], parts[kind])):
        return None
    return kind, index, number


def driver_of(k: Kernel, name: str) -> str:
    """Return the driver that an object is bound to, empty for none."""
    found = find(k, name)
    if found is None:
        return ""
    kind, index, number = found
    if kind == "dsa":
        return "idxd" if k.state.devices[index].bound else ""
    return k.state.devices[index].queues[number].driver if kind == "wq" else ""


def bind(k: Kernel, driver: str, text: str) -> None:
    """Write to /sys/bus/dsa/drivers/DRIVER/bind. Raises Refused."""
    found = find(k, word(text))
    if found is None:
        raise Refused(ENODEV)
    try:
        _bind(k, driver, *found)
    except Refused:
        if not k.seed:
            raise
        # an older driver core: whatever the reason, it says that there is no device
        raise Refused(ENODEV) from None


def _bind(k: Kernel, driver: str, kind: str, index: int, number: int) -> None:
    if kind == "dsa" and driver == "idxd":
        bind_device(k, index)
    elif kind == "wq" and driver in ("dmaengine", "user"):
        bind_queue(k, index, number, driver)
    else:
        raise Refused(ENODEV)


def unbind(k: Kernel, driver: str, text: str) -> None:
    """Write to /sys/bus/dsa/drivers/DRIVER/unbind. Raises Refused, HostDown."""
    found = find(k, word(text))
    if found is None or driver_of(k, word(text)) != driver:
        raise Refused(ENODEV)
    kind, index, number = found
    if kind == "dsa":
        unbind_device(k, index)
    else:
        unbind_queue(k, index, number)
