# SPDX-License-Identifier: Apache-2.0
"""The short form of work queues: the same queues on every device, spelt out. Pure."""

from __future__ import annotations

from dsatier.base.text import natural
from dsatier.facts.model import DsaDevice
from dsatier.profile.model import QueueShape
from dsatier.queues.config import DRIVER, DeviceConfig, EngineConfig, QueueConfig

BATCH = 128
"""Descriptors of one batch that the kernel submits."""
TRANSFER = 2 << 20
"""Bytes of one descriptor: a large page."""
USUAL_ENTRIES = 128
"""Queue entries of a DSA 1.0, taken for a device that is not there to be asked."""


def expand(
    shape: QueueShape, devices: tuple[DsaDevice, ...], driver_names: bool
) -> tuple[DeviceConfig, ...]:
    """Return the configuration that a short form stands for, device by device.

    A device that the shape asks for and the host lacks gets a configuration as well, so
    that a comparison of the two shows what is missing. ``excess`` returns what a device cannot
    take.
    """
    found = {device.id: device for device in devices}
    return tuple(
        _expanded(shape, name, found.get(name), driver_names)
        for name in _device_names(shape.devices, tuple(found))
    )


def _device_names(wanted: int | tuple[str, ...], found: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(wanted, tuple):
        return wanted
    names = sorted(found, key=natural)[:wanted]
    number = 0
    while len(names) < wanted:
        if f"dsa{number}" not in found:
            names.append(f"dsa{number}")
        number += 1
    return tuple(names)


def _expanded(
    shape: QueueShape, name: str, device: DsaDevice | None, driver_names: bool
) -> DeviceConfig:
    number = name.removeprefix("dsa")
    entries = device.max_queue_entries if device else USUAL_ENTRIES
    # a device without block-on-fault refuses even a 0, so it is named only to clear it
    blocking = device is not None and any(queue.block_on_fault for queue in device.queues)
    queue = {
        "group": 0,
        "size": shape.size or max(1, entries // shape.queues),
        "driver_name": DRIVER if driver_names else None,
        "block_on_fault": False if blocking else None,
        "max_batch_size": min(BATCH, device.max_batch_size) if device else BATCH,
        "max_transfer_size": min(TRANSFER, device.max_transfer_size) if device else TRANSFER,
    }
    return DeviceConfig(
        id=name,
        engines=tuple(EngineConfig(f"engine{number}.{i}", 0) for i in range(shape.engines)),
        queues=tuple(QueueConfig(id=f"wq{number}.{i}", **queue) for i in range(shape.queues)),  # type: ignore[arg-type]
    )
