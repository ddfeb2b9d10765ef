# SPDX-License-Identifier: Apache-2.0
"""Requests: everything that can be asked of a host that changes it.

A request that is not in this union cannot be made. The gate (``dsatier.apply.gate``)
carries requests out, the interlock judges them, the projection foretells them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from dsatier.base.fields import STRICT, Tagged
from dsatier.base.text import ranges
from dsatier.facts.knobs import KnobName, spelt
from dsatier.facts.model import Swap
from dsatier.facts.onlining import Zone
from dsatier.queues.config import DeviceConfig


@dataclass(frozen=True, slots=True)
class SetKnob:
    """Write one knob."""

    __pydantic_config__ = STRICT

    knob: KnobName
    value: int
    kind: Literal["knob"] = "knob"

    def __str__(self) -> str:
        return f"{self.knob} = {spelt(self.knob, self.value)}"


@dataclass(frozen=True, slots=True)
class SetCpu:
    """Take one CPU offline, or bring it back."""

    __pydantic_config__ = STRICT

    cpu: int
    online: bool
    node: int | None = None
    """Its node, where that is known: of a CPU that is offline the kernel does not tell it."""
    kind: Literal["cpu"] = "cpu"

    def __str__(self) -> str:
        return f"cpu {self.cpu} {'online' if self.online else 'offline'}"


@dataclass(frozen=True, slots=True)
class StirCpu:
    """Take one CPU of the fast node offline and bring it back at once.

    TPP works out where to demote to whenever a CPU comes or goes, and then does not see yet
    that the slow node has lost its last one.
    """

    __pydantic_config__ = STRICT

    cpu: int
    kind: Literal["stir"] = "stir"

    def __str__(self) -> str:
        return f"cpu {self.cpu} offline and online"


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Start (which clears) or stop /proc/timer."""

    __pydantic_config__ = STRICT

    on: bool
    kind: Literal["timer"] = "timer"

    def __str__(self) -> str:
        return f"timer {'on' if self.on else 'off'}"


@dataclass(frozen=True, slots=True)
class LoadDevice:
    """Configure and enable a DSA device with its queues, by accel-config."""

    __pydantic_config__ = STRICT

    device: DeviceConfig
    kind: Literal["load"] = "load"

    def __str__(self) -> str:
        return f"configure {self.device.id}"


@dataclass(frozen=True, slots=True)
class StopDevice:
    """Disable a DSA device, and with it its queues."""

    __pydantic_config__ = STRICT

    device: str
    kind: Literal["stop"] = "stop"

    def __str__(self) -> str:
        return f"disable {self.device}"


@dataclass(frozen=True, slots=True)
class SetIommu:
    """Change how the IOMMU translates a DSA device that is disabled.

    The kernel changes the type of an IOMMU group only while no driver has a device of it: idxd is
    unbound from the PCI device, and bound to it again.
    """

    __pydantic_config__ = STRICT

    device: str
    pci: str
    """PCI address of the device."""
    group: str
    """Number of its IOMMU group."""
    type: str
    """As in ``identity``, ``DMA-FQ``."""
    kind: Literal["iommu"] = "iommu"

    def __str__(self) -> str:
        return f"iommu group {self.group} of {self.device} = {self.type}"


@dataclass(frozen=True, slots=True)
class BindDevice:
    """Give a DSA device that no driver has to idxd: a ``SetIommu`` was cut short."""

    __pydantic_config__ = STRICT

    pci: str
    """PCI address of the device."""
    group: str = ""
    """Number of its IOMMU group, where that gets a type before."""
    type: str = ""
    """As in ``SetIommu``; empty: the group is left as it is."""
    kind: Literal["bind"] = "bind"

    def __str__(self) -> str:
        before = f"iommu group {self.group} = {self.type}, " if self.type else ""
        return f"{before}bind {self.pci} to idxd"


@dataclass(frozen=True, slots=True)
class OnlineMemory:
    """Bring blocks of a DAX device's memory online. It is never taken offline again."""

    __pydantic_config__ = STRICT

    device: str
    """As in ``dax0.0``."""
    node: int
    """The node that it becomes."""
    blocks: tuple[int, ...]
    zone: Zone
    """movable: for what can be moved away again. kernel: for anything."""
    kind: Literal["memory"] = "memory"

    def __str__(self) -> str:
        return f"memory blocks {ranges(self.blocks)} of {self.device} online, {self.zone}"


@dataclass(frozen=True, slots=True)
class SwapOff:
    """Turn one swap area off."""

    __pydantic_config__ = STRICT

    area: Swap
    kind: Literal["swapoff"] = "swapoff"

    def __str__(self) -> str:
        return f"swapoff {self.area.path}"


@dataclass(frozen=True, slots=True)
class SwapOn:
    """Turn one swap area on again, with the priority that it had."""

    __pydantic_config__ = STRICT

    area: Swap
    kind: Literal["swapon"] = "swapon"

    def __str__(self) -> str:
        return f"swapon {self.area.path}"


Request = Annotated[
    SetKnob
    | SetCpu
    | StirCpu
    | SetTimer
    | LoadDevice
    | StopDevice
    | SetIommu
    | BindDevice
    | OnlineMemory
    | SwapOff
    | SwapOn,
    Tagged("kind"),
]


def device_of(request: Request) -> str | None:
    """Return the DSA device that a request is about, None where it is about none."""
    match request:
        case LoadDevice(config):
            return config.id
        case StopDevice(name) | SetIommu(name):
            return name
    return None
