# SPDX-License-Identifier: Apache-2.0
"""The original values: what dsatier found of a thing before it first wrote to it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dsatier.base.fields import STRICT
from dsatier.facts.knobs import KNOBS, KnobName
from dsatier.facts.model import DsaDevice, Facts, Swap
from dsatier.facts.readings import initialised, live, on, serves
from dsatier.facts.tiers import Tiers, cpus, stirrable, untargeted
from dsatier.plan.requests import Request
from dsatier.queues.config import DeviceConfig, captured


@dataclass(frozen=True, slots=True)
class Originals:
    """What dsatier found before it first wrote: all that rollback and detach return to."""

    __pydantic_config__ = STRICT

    schema_version: int
    boot_id: str
    """They are of this boot: another one begins with a host on which dsatier wrote nothing."""
    taken_at: float
    """Seconds since the epoch; for people."""
    knobs: dict[KnobName, int]
    online_cpus: tuple[int, ...]
    """CPUs of the slow node that were online."""
    swaps: tuple[Swap, ...]
    devices: tuple[DeviceConfig, ...]
    """Devices that were enabled, with their queues."""
    idle_devices: tuple[str, ...]
    """Devices that were disabled, or on without a queue."""
    fast_cpus: tuple[int, ...] = ()
    """The CPU of the fast node that goes offline for a moment where the kernel has yet to work out
    its demotion targets. It comes back though dsatier ended meanwhile."""
    written: tuple[Request, ...] | None = None
    """What dsatier wrote, in order: of each thing the last request, or while a change goes on all
    that may be it. Only what is named here is dsatier's. None where an earlier version wrote."""
    second_threads: tuple[int, ...] = ()
    """Which of the CPUs are the second thread of a core: they come back only with SMT on."""
    addresses: dict[str, str] | None = None
    """PCI address of each device, by the name that it had: names may move, addresses do not."""
    iommu: dict[str, str] | None = None
    """The type of each device's IOMMU group."""


def originals(facts: Facts, tiers: Tiers, taken_at: float) -> Originals:
    """Return all that there is to keep of a host, written or not."""
    stirred = stirrable(facts, tiers) if untargeted(facts, tiers) else None
    values = {name: live(facts, name) for name in KNOBS}
    return Originals(
        schema_version=1,
        boot_id=facts.kernel.boot_id,
        taken_at=taken_at,
        knobs={name: value for name, value in values.items() if value is not None} | _failed(facts),
        online_cpus=cpus(tiers.slow_of(facts)),
        swaps=tuple(replace(area, used=0) for area in facts.swaps),
        devices=tuple(captured(d) for d in facts.devices if d.state == "enabled" and serves(d)),
        idle_devices=tuple(d.id for d in facts.devices if _idle(d, facts)),
        fast_cpus=() if stirred is None else (stirred,),
        second_threads=facts.second_threads,
        addresses={device.id: device.pci for device in facts.devices if device.pci},
        iommu={device.id: device.group.type for device in facts.devices if device.group},
    )


def _failed(facts: Facts) -> dict[KnobName, int]:
    """Return what the engine's knobs stand for on a seed kernel whose start has failed.

    They read 1, and there is no engine that one could return to.
    """
    if facts.kernel.family != "seed" or not on(facts, "dsa_state") or initialised(facts):
        return {}
    return {"dsa_state": 0, "use_dsa_copy_pages": 0}


def _idle(device: DsaDevice, facts: Facts) -> bool:
    """Tell whether a device is to be off after dsatier.

    One that is on without a queue counts, too: it serves nobody, and accel-config cannot bring
    such a state back. Where it cannot be disabled it is left as it is.
    """
    if device.state == "enabled" and not serves(device):
        return facts.kernel.evl_guard or device.event_log
    return device.state == "disabled"
