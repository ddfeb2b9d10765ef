# SPDX-License-Identifier: Apache-2.0
"""From profiles and checkpoints to desired states. Pure: the edge reads the queue file."""

from __future__ import annotations

from dsatier.facts import DsaDevice, Facts, Swap
from dsatier.frozen import dataclass, replace
from dsatier.knobs import KNOBS, live, value_refusal
from dsatier.plans import Desired
from dsatier.profile import (
    STRICT,
    CpuEngine,
    DsaEngine,
    Engine,
    MultithreadEngine,
    Profile,
    QueueFile,
    Tiers,
)
from dsatier.projection import switched
from dsatier.queuefile import DeviceConfig, captured, expand
from dsatier.readings import effective_threads_broken, node, on
from dsatier.requirements import findings, kernel_configured, tiering_conditions, tiers_exist

ENGINES: dict[str, dict[str, int]] = {
    "cpu": {"cpu_multi_copy_pages": 0, "use_dsa_copy_pages": 0, "dsa_state": 0},
    "multithread": {"cpu_multi_copy_pages": 1, "use_dsa_copy_pages": 0, "dsa_state": 0},
    "dsa": {"cpu_multi_copy_pages": 0, "dsa_state": 1, "use_dsa_copy_pages": 1},
}
TIERING_OFF = {"demotion_enabled": 0, "numa_balancing": 0}
TIERING: dict[str, dict[int, int]] = {
    "numa_balancing": {2: 0, 3: 1},
    "demotion_enabled": {1: 0},
}
"""The values with which the kernel tiers, and what is left of each without tiering."""
NEEDED_TO_TIER = (tiers_exist, tiering_conditions, kernel_configured)
NO_ENGINE = {"use_dsa_copy_pages": 0}
"""What the breaker does at once; channels stay held, for their state is in doubt."""


@dataclass(frozen=True, slots=True)
class Originals:
    """What dsatier found before it first wrote: all that rollback and release return to."""

    __pydantic_config__ = STRICT

    schema_version: int
    boot_id: str
    taken_at: float
    """Seconds since the epoch; for people."""
    knobs: dict[str, int]
    online_cpus: tuple[int, ...]
    """CPUs of the slow node that were online."""
    swaps: tuple[Swap, ...]
    devices: tuple[DeviceConfig, ...]
    """Devices that were enabled, with their queues."""
    idle_devices: tuple[str, ...]
    """Devices that were disabled, or on without a queue."""


def originals(facts: Facts, slow_node: int, taken_at: float) -> Originals:
    """Return what must be kept of a host before it is first written to."""
    slow = node(facts, slow_node)
    values = {name: live(facts, name) for name in KNOBS}
    return Originals(
        schema_version=1,
        boot_id=facts.kernel.boot_id,
        taken_at=taken_at,
        knobs={name: value for name, value in values.items() if value is not None},
        online_cpus=slow.cpus if slow is not None else (),
        swaps=tuple(replace(area, used=0) for area in facts.swaps),
        devices=tuple(captured(d) for d in facts.devices if d.state == "enabled" and _serves(d)),
        idle_devices=tuple(d.id for d in facts.devices if _idle(d, facts)),
    )


def _serves(device: DsaDevice) -> bool:
    return any(queue.state == "enabled" for queue in device.queues)


def _idle(device: DsaDevice, facts: Facts) -> bool:
    """Tell whether a device is to be off after dsatier.

    One that is on without a queue counts, too: it serves nobody, and accel-config cannot bring
    such a state back. Where it cannot be disabled it is left as it is.
    """
    if device.state == "enabled" and not _serves(device):
        return facts.kernel.evl_guard or device.event_log
    return device.state == "disabled"


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
    tiers = profile.tiers or Tiers()
    knobs: dict[str, int] = {}
    if profile.concurrency:
        _named(knobs, profile.concurrency, "use_concur_to_compact", "use_concur_to_demote")
    if profile.engine is not None:
        knobs |= _engine(profile.engine, facts)
    swap = None
    if profile.tiering:
        _named(knobs, profile.tiering, "numa_balancing", "demote_scale_factor", "demotion_enabled")
        swap = profile.tiering.swap
    return Desired(
        fast_node=0 if tiers.fast_node is None else tiers.fast_node,
        slow_node=1 if tiers.slow_node is None else tiers.slow_node,
        cpuless=tiers.cpuless is True,
        cpus_online=before.online_cpus if before and tiers.cpuless is False else (),
        knobs=knobs,
        queues=queues or _short_form(profile.engine, facts),
        stopped=(),
        swap_off=swap == "off",
        swap_on=before.swaps if before and swap == "on" else (),
    )


def _named(knobs: dict[str, int], section: object, *names: str) -> None:
    for name in names:
        value = getattr(section, name)
        if value is not None:
            knobs[name] = int(value)


def _engine(engine: Engine, facts: Facts) -> dict[str, int]:
    """Return the engine's knobs. A kernel without a knob has it at 0 already."""
    wanted = {
        name: value for name, value in ENGINES[engine.kind].items() if value or name in facts.knobs
    }
    match engine:
        case MultithreadEngine():
            _named(wanted, engine, "limit_mt_num")
        case DsaEngine():
            _named(wanted, engine, "limit_chans", "dsa_copy_threshold")
        case CpuEngine():
            pass
    return wanted


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
    engines = ("cpu_multi_copy_pages", "use_dsa_copy_pages")
    knobs |= {name: 0 for name in engines if name in facts.knobs}
    if stop_tiering:
        knobs |= {name: 0 for name in TIERING_OFF if name in facts.knobs}
        knobs.pop("demote_scale_factor", None)
    return replace(desired, knobs=knobs, queues=())


def engine_off(facts: Facts, slow_node: int, *, stop_tiering: bool) -> Desired:
    """Return what the circuit breaker goes to at once: no copy by DSA, and nothing else.

    CPU threads go off as well where they would lose bytes.
    """
    knobs = dict(NO_ENGINE) | (TIERING_OFF if stop_tiering else {})
    if effective_threads_broken(facts):
        knobs["cpu_multi_copy_pages"] = 0
    return Desired(slow_node=slow_node, knobs={n: v for n, v in knobs.items() if n in facts.knobs})


def cpu_only(facts: Facts, slow_node: int = 1) -> Desired:
    """Return the state that a crash guard brings up: CPU copies, and nothing else touched.

    But for ``not_resumed``.
    """
    knobs = {name: 0 for name in ENGINES["cpu"] if name in facts.knobs}
    return Desired(slow_node=slow_node, knobs=knobs | _paused(facts, slow_node)[0])


def not_resumed(facts: Facts, slow_node: int = 1) -> tuple[str, ...]:
    """Return what ``cpu_only`` cannot leave as it is, with the reason."""
    return _paused(facts, slow_node)[1]


def _paused(facts: Facts, slow_node: int) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return tiering's knobs off, and why, where the DSA must be freed and they cannot go on."""
    if not on(facts, "dsa_state"):
        return {}, ()
    return _untiered({name: live(facts, name) for name in TIERING}, facts, slow_node)


def from_originals(before: Originals, facts: Facts, slow_node: int = 1) -> Desired:
    """Return the state that ``rollback`` goes to: as found, but for what ``not_restored`` names."""
    return Desired(
        slow_node=slow_node,
        knobs=_restored(before, facts, slow_node)[0],
        cpus_online=before.online_cpus,
        queues=before.devices,
        stopped=before.idle_devices,
        swap_on=before.swaps,
    )


def not_restored(before: Originals, facts: Facts, slow_node: int = 1) -> tuple[str, ...]:
    """Return what ``from_originals`` does not bring back from here, each with its reason."""
    return _restored(before, facts, slow_node)[1]


def _restored(
    before: Originals, facts: Facts, slow_node: int
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return the knobs that are to be as they were found, and in words what cannot be.

    What this kernel cannot hold safely is not brought back, whoever wrote it before. Nor is
    tiering, where the host will not be fit for it once its CPUs and its swap are back.
    """
    knobs = {name: value for name, value in before.knobs.items() if name in facts.knobs}
    then = _with_swaps(switched(facts, online=before.online_cpus, slow_node=slow_node), before)
    tiering = {name: knobs.get(name, live(facts, name)) for name in TIERING}
    off, lost = _untiered(tiering, then, slow_node)
    knobs |= off
    if 2 not in (knobs.get("numa_balancing"), live(facts, "numa_balancing")):
        knobs.pop("demote_scale_factor", None)  # it has no effect and cannot be written
    for name, value in tuple(knobs.items()):
        refusal = value_refusal(name, value, then)
        if refusal is None:
            continue
        del knobs[name]
        found = live(facts, name)
        if found != value:
            why = refusal.removeprefix(f"{name}: ")
            lost = (*lost, f"{name} is left at {found}: {why}")
    return knobs, lost


def _with_swaps(facts: Facts, before: Originals) -> Facts:
    there = {area.path for area in facts.swaps}
    return replace(
        facts, swaps=(*facts.swaps, *(area for area in before.swaps if area.path not in there))
    )


def _untiered(
    tiering: dict[str, int | None], facts: Facts, slow_node: int
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return tiering's knobs without tiering, and why, where they tier and ``facts`` are unfit."""
    on_now = {n: value for n, value in tiering.items() if value in TIERING[n]}
    unfit = _unfit_to_tier(facts, slow_node)
    if not on_now or unfit is None:
        return {}, ()
    words = ", ".join(f"{name} was {value}" for name, value in on_now.items())
    off = {name: TIERING[name][value] for name, value in on_now.items() if value is not None}
    return off, (f"tiering is left off ({words}): {unfit}",)


def _unfit_to_tier(facts: Facts, slow_node: int) -> str | None:
    """Return why tiering must not be on, None where it may."""
    wish = Desired(slow_node=slow_node, knobs={"numa_balancing": 2})
    for finding in findings(facts, wish, NEEDED_TO_TIER):
        if finding.level == "blocker":
            return f"{finding.where}: expected {finding.expected}, found {finding.found}"
    return None


def released(before: Originals | None, facts: Facts, slow_node: int = 1) -> Desired:
    """Return the state that ``release`` goes to: as found, but with every engine off.

    Without originals only the engines go off: nothing else is known to be dsatier's.
    """
    engines = {name: 0 for name in ENGINES["cpu"] if name in facts.knobs}
    if before is None:
        return Desired(slow_node=slow_node, knobs=engines)
    back = from_originals(before, facts, slow_node)
    return replace(back, knobs={**(back.knobs or {}), **engines})


def untouched(profile: Profile) -> tuple[str, ...]:
    """Return what a profile does not name, and the agent so does not touch."""
    found = [
        name
        for name in ("tiers", "concurrency", "engine", "tiering")
        if getattr(profile, name) is None
    ]
    for section in ("tiers", "concurrency", "engine", "tiering"):
        value = getattr(profile, section)
        if value is not None:
            found += [
                f"{section}.{name}"
                for name in value.__slots__
                if getattr(value, name) is None and not name.endswith("_node")
            ]
    return tuple(found)
