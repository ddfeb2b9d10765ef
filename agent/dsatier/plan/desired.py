# SPDX-License-Identifier: Apache-2.0
"""From a profile to the desired state of a host. Pure: the edge reads the queue file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from dsatier.facts.knobs import CONCURRENT, ENGINES, KNOBS, KnobName
from dsatier.facts.model import Facts
from dsatier.facts.readings import effective_threads_broken
from dsatier.facts.tiers import Tiers
from dsatier.plan.model import Desired, Finding, of_tiers
from dsatier.plan.originals import Originals
from dsatier.plan.ownership import barred, cut_short, owned, returning, retypable, staying
from dsatier.plan.short_form import expand
from dsatier.plan.tiers import memory_of, tiers_of, untold
from dsatier.profile.model import (
    CpuEngine,
    DsaEngine,
    Engine,
    MultithreadEngine,
    Profile,
    QueueFile,
)
from dsatier.queues.config import DeviceConfig

CONCURRENCY: tuple[KnobName, ...] = (
    *CONCURRENT,
    "migrate_batch_reasons",
    "migrate_batch_pages",
    "migrate_batch_usecs",
)
ASKED: tuple[KnobName, ...] = ("migrate_engine_reasons", "migrate_copy_calibrate")
"""What decides whether an engine is asked for a list."""
TIERING: tuple[KnobName, ...] = (
    "promote_rate_limit_MBps",
    "numa_balancing",
    "demote_scale_factor",
    "demotion_enabled",
)
MEMORY: tuple[KnobName, ...] = (
    "watermark_scale_factor",
    "watermark_boost_factor",
    "compaction_proactiveness",
    "zone_reclaim_mode",
    "thp_enabled",
    "thp_defrag",
)
"""The knobs that the sections of those names hold."""
TIERING_OFF: dict[KnobName, int] = {"demotion_enabled": 0, "numa_balancing": 0}
NO_ENGINE: dict[KnobName, int] = {"use_dsa_copy_pages": 0}
"""What the breaker does at once; channels stay held, for their state is in doubt."""


def from_profile(
    profile: Profile,
    facts: Facts,
    before: Originals | None = None,
    queues: tuple[DeviceConfig, ...] = (),
) -> Desired:
    """Return what a profile asks of this host.

    ``queues`` is what the profile's queue file says, if it names one; ``before``
    tells which CPUs and swap areas are to come back.
    """
    section, tiers = profile.tiers, tiers_of(profile, facts)
    ours = owned(before, facts) if before is not None else None
    stay = barred(ours, facts) if ours else ()
    coming = tuple(cpu for cpu in ours.online_cpus if cpu not in stay) if ours else ()
    knobs: dict[KnobName, int] = {}
    if profile.concurrency:
        _named(knobs, profile.concurrency, *CONCURRENCY)
        knobs = {name: value for name, value in knobs.items() if value or name in facts.knobs}
    if profile.engine is not None:
        knobs |= _engine(profile.engine, facts)
    swap = None
    if profile.memory:
        _named(knobs, profile.memory, *MEMORY)
    if profile.tiering:
        _named(knobs, profile.tiering, *TIERING)
        swap = profile.tiering.swap
    queues = queues or _short_form(profile.engine, facts)
    return Desired(
        tiers=tiers,
        memory=memory_of(profile, facts),
        cpuless=section is not None and section.cpuless is True,
        cpus_online=of_tiers(
            tiers,
            coming if section and section.cpuless is False else (),
            ours.fast_cpus if ours else (),
        ),
        knobs=knobs,
        queues=queues,
        stopped=(),
        iommu=_iommu(profile.engine, queues, facts, ours),
        bound=cut_short(before, facts),
        swap_off=swap == "off",
        swap_on=ours.swaps if ours and swap == "on" else (),
    )


def _named(knobs: dict[KnobName, int], section: object, *names: KnobName) -> None:
    for name in names:
        value = getattr(section, name)
        if value is not None:
            knobs[name] = KNOBS[name].number(value)


def _engine(engine: Engine, facts: Facts) -> dict[KnobName, int]:
    """Return the engine's knobs. A kernel without a knob has it at 0 already."""
    wanted = {
        name: value for name, value in ENGINES[engine.kind].items() if value or name in facts.knobs
    }
    match engine:
        case MultithreadEngine():
            _named(wanted, engine, "limit_mt_num", "cpu_multi_copy_threshold", *ASKED)
        case DsaEngine():
            _named(wanted, engine, "limit_chans", "dsa_copy_threshold", *ASKED)
        case CpuEngine():
            pass
    return wanted


def _iommu(
    engine: Engine | None,
    queues: tuple[DeviceConfig, ...],
    facts: Facts,
    ours: Originals | None,
) -> dict[str, str]:
    """Return the types of IOMMU groups, by device.

    A device that the profile does not name for it goes back to the type that it had: what is open
    to all memory is so only for as long as the profile says so.
    """
    wanted: dict[str, str] = {}
    if isinstance(engine, DsaEngine) and engine.work_queues and engine.work_queues.iommu:
        wanted = dict.fromkeys((config.id for config in queues), engine.work_queues.iommu)
    return (returning(ours, facts) if ours else {}) | wanted


def iommu_left(before: Originals | None, facts: Facts, desired: Desired) -> Iterator[Finding]:
    """Yield the IOMMU groups that dsatier gave a type, and cannot give theirs back now."""
    ours = owned(before, facts) if before else None
    back, stay = (retypable(ours, facts), staying(ours, facts)) if ours else ({}, {})
    for device in facts.devices:
        if device.group and device.id in stay and device.id not in (desired.iommu or {}):
            yield Finding(
                "warning",
                "iommu-left",
                f"IOMMU group {device.group.id} of {device.id}",
                f"{back[device.id]}, as it was",
                f"{device.group.type}, and {stay[device.id]}",
                "mend that, then `systemctl reload dsatier`; a reboot takes it back, too",
            )


def memory_untold(profile: Profile, facts: Facts, desired: Desired) -> Iterator[Finding]:
    """Yield the devices whose memory ``auto`` leaves offline: it may be no slow memory."""
    online = profile.tiers.online if profile.tiers else None
    if online is None or online.nodes not in (None, "auto"):
        return
    named = {one.node for one in desired.memory}
    for device in facts.memory_devices:
        if device.blocks and untold(device, facts) and device.target_node not in named:
            yield Finding(
                "warning",
                "memory-untold",
                device.id,
                "memory that is known to be slow before it is online",
                f"{device.kind}, of which the kernel tells no more until then",
                f"name node {device.target_node} in `tiers.online.nodes` if it is to come online",
            )


def _short_form(engine: Engine | None, facts: Facts) -> tuple[DeviceConfig, ...]:
    if not isinstance(engine, DsaEngine) or engine.work_queues is None:
        return ()
    if isinstance(engine.work_queues, QueueFile):
        return ()
    return expand(engine.work_queues, facts.devices, driver_names=facts.kernel.family != "seed")


def with_cpu_engine(desired: Desired, facts: Facts, *, stop_tiering: bool = False) -> Desired:
    """Return ``desired`` with CPU copies instead of its engine, for a latched fault.

    ``dsa_state`` is left as it is: whether its channels can be given back is in doubt.
    """
    if 1 not in (desired.wants("use_dsa_copy_pages"), desired.wants("cpu_multi_copy_pages")):
        return desired
    knobs = {
        name: value
        for name, value in (desired.knobs or {}).items()
        if name not in ("dsa_state", "use_dsa_copy_pages", "limit_chans")
    }
    engines: tuple[KnobName, ...] = ("cpu_multi_copy_pages", "use_dsa_copy_pages")
    knobs |= {name: 0 for name in engines if name in facts.knobs}
    if stop_tiering:
        knobs |= {name: 0 for name in TIERING_OFF if name in facts.knobs}
        knobs.pop("demote_scale_factor", None)
    return replace(desired, knobs=knobs, queues=(), iommu=None)


def engine_off(facts: Facts, tiers: Tiers, *, stop_tiering: bool) -> Desired:
    """Return what the circuit breaker goes to at once: no copy by DSA, and nothing else.

    CPU threads go off as well where they would lose bytes.
    """
    knobs = dict(NO_ENGINE) | (TIERING_OFF if stop_tiering else {})
    if effective_threads_broken(facts):
        knobs["cpu_multi_copy_pages"] = 0
    return Desired(tiers=tiers, knobs={n: v for n, v in knobs.items() if n in facts.knobs})


SECTIONS = ("tiers", "concurrency", "engine", "tiering", "memory")


def untouched(profile: Profile) -> tuple[str, ...]:
    """Return what a profile does not name, and the agent so does not touch."""
    found = [name for name in SECTIONS if getattr(profile, name) is None]
    for section in SECTIONS:
        value = getattr(profile, section)
        if value is not None:
            found += [
                f"{section}.{name}"
                for name in value.__slots__
                if getattr(value, name) is None and not name.endswith(("_node", "nodes"))
            ]
    return tuple(found)
