# SPDX-License-Identifier: Apache-2.0
"""The outlook: what the way to a desired state will do to the DSA, CPUs and swap. Pure."""

from __future__ import annotations

from dsatier.facts.model import DsaDevice, Facts, Swap
from dsatier.facts.readings import initialised, live, on, serves
from dsatier.facts.tiers import cpus
from dsatier.plan.model import Desired
from dsatier.plan.projection import switched
from dsatier.queues.config import DeviceConfig, captured, differences

GIB = 1 << 30


def wants_dsa(desired: Desired) -> bool:
    """Tell whether the DSA is to be held or to copy."""
    return desired.wants("dsa_state") == 1 or desired.wants("use_dsa_copy_pages") == 1


def starts_dsa(facts: Facts, desired: Desired) -> bool:
    """Tell whether the way to ``desired`` writes 1 to ``dsa_state``."""
    return wants_dsa(desired) and not _stays_initialised(facts, desired)


def _stays_initialised(facts: Facts, desired: Desired) -> bool:
    wanted = desired.wants("limit_chans")
    return (
        initialised(facts)
        and wanted in (None, live(facts, "limit_chans"))
        and not changing_devices(facts, desired)
    )


def frees_dsa(facts: Facts, desired: Desired) -> bool:
    """Tell whether the way to ``desired`` writes 0 to ``dsa_state``."""
    if not on(facts, "dsa_state"):
        return False
    if desired.wants("dsa_state") == 0:
        return True
    if wants_dsa(desired):
        return not _stays_initialised(facts, desired)
    wanted = desired.wants("limit_chans")
    return wanted not in (None, live(facts, "limit_chans")) or bool(
        changing_devices(facts, desired)
    )


def with_cpus(facts: Facts, desired: Desired) -> Facts:
    """Return the facts with the CPUs online that will be: threads are counted against those."""
    return switched(
        facts,
        offline=cpus(desired.tiers.slow_of(facts)) if desired.cpuless else (),
        online=desired.cpus_online,
        tiers=desired.tiers,
    )


def with_swaps(facts: Facts, desired: Desired) -> tuple[Swap, ...]:
    """Return the swap areas that will be on."""
    staying = () if desired.swap_off else facts.swaps
    there = {area.path for area in facts.swaps}
    return (*staying, *(area for area in desired.swap_on if area.path not in there))


def retyped(facts: Facts, desired: Desired) -> tuple[DsaDevice, ...]:
    """Return the devices whose IOMMU group is to have another type."""
    wanted = desired.iommu or {}
    return tuple(
        device
        for device in facts.devices
        if device.group and wanted.get(device.id, device.group.type) != device.group.type
    )


def reloaded(facts: Facts, desired: Desired) -> tuple[DeviceConfig, ...]:
    """Return the queues that devices lose for another type and get again: nobody named others."""
    named = {*desired.stopped, *(config.id for config in desired.queues)}
    return tuple(
        captured(device)
        for device in retyped(facts, desired)
        if device.id not in named and serves(device)
    )


def changing_devices(facts: Facts, desired: Desired) -> tuple[DsaDevice, ...]:
    """Return the devices that are to be configured anew, or to stop."""
    wanted = {config.id: config for config in desired.queues}
    lost = {device.id for device in retyped(facts, desired)}
    return tuple(
        device
        for device in facts.devices
        if device.id in lost
        or (device.id in wanted and differences(wanted[device.id], device))
        or (device.id in desired.stopped and device.state == "enabled")
    )
