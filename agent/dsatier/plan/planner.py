# SPDX-License-Identifier: Apache-2.0
"""The planner: from facts and a desired state to ordered steps, by walking the ladder.

It foretells the host with ``dsatier.plan.projection`` as it goes: a step is planned
only where the foretold host differs from what is wanted. So planning from any
state gives the way from there, also from one that a crash left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dsatier.base.text import ranges
from dsatier.facts.knobs import KNOBS, SEED_SETTLE, TIERING_MODES, KnobName
from dsatier.facts.model import DsaDevice, Facts
from dsatier.facts.onlining import bringing
from dsatier.facts.readings import (
    held,
    initialised,
    live,
    loose,
    may_balance_untold,
    on,
    tiered,
    tiering_on,
)
from dsatier.facts.tiers import cpus as slow_cpus
from dsatier.facts.tiers import stirrable, untargeted, watermark, words
from dsatier.plan.evidence import (
    Bound,
    CleanLog,
    Configured,
    CpusAre,
    Evidence,
    Held,
    IommuIs,
    MemoryIs,
    NoFailures,
    Quiet,
    Reads,
    Stopped,
    SwapIs,
    Target,
    Watermark,
)
from dsatier.plan.ladder import DESCENTS, LADDER, Act, Put, Rung
from dsatier.plan.model import Desired, Finding, Plan, Step, Verdict
from dsatier.plan.outlook import reloaded, retyped
from dsatier.plan.projection import project
from dsatier.plan.requests import (
    BindDevice,
    LoadDevice,
    OnlineMemory,
    Request,
    SetCpu,
    SetIommu,
    SetKnob,
    StirCpu,
    StopDevice,
    SwapOff,
    SwapOn,
)
from dsatier.queues.config import DeviceConfig, captured, differences

KNOB_DEADLINE = 10.0
CPU_DEADLINE = 30.0
DEVICE_DEADLINE = 60.0
MEMORY_DEADLINE = 60.0
SWAP_DEADLINE = 600.0
"""Seconds that a request of each kind may take before it counts as hung."""
PORTION = 64
"""Memory blocks in one step."""
_TIERING_OFF = SetKnob("numa_balancing", 0)


class _Way:
    """The way walked so far: the foretold host, and the steps that lead there."""

    __slots__ = ("desired", "facts", "origin", "reasons", "steps")

    def __init__(
        self, origin: Facts, desired: Desired, facts: Facts, reasons: dict[str, str]
    ) -> None:
        self.origin = origin
        self.desired = desired
        self.facts = facts
        self.reasons = reasons
        self.steps: list[Step] = []

    def came_down(self, knob: KnobName) -> bool:
        """Tell whether a knob was written on the way down."""
        return any(
            isinstance(request, SetKnob) and request.knob == knob
            for step in self.steps
            if step.direction == "down"
            for request in step.requests
        )

    def step(
        self,
        rung: Rung,
        direction: str,
        what: str,
        change: tuple[str, str],
        reason: str,
        *,
        requests: tuple[Request, ...] = (),
        evidence: tuple[Evidence, ...] = (),
        inverse: tuple[Request, ...] = (),
        deadline: float = KNOB_DEADLINE,
        settle: float = 0.0,
    ) -> None:
        self.steps.append(
            Step(
                number=len(self.steps) + 1,
                rung=rung.name,
                direction="down" if direction == "down" else "up",
                what=what,
                before=change[0],
                after=change[1],
                reason=reason,
                requests=requests,
                settle=settle,
                evidence=evidence,
                inverse=inverse,
                deadline=deadline,
            )
        )
        for request in requests:
            self.facts = project(self.facts, request, self.desired.tiers)


def plan(
    facts: Facts,
    desired: Desired,
    findings: tuple[Finding, ...] = (),
    *,
    untouched: tuple[str, ...] = (),
    digest: str = "",
    ladder: tuple[Rung, ...] = LADDER,
    descents: tuple[tuple[str, str, str], ...] = DESCENTS,
) -> Plan:
    """Return the way from ``facts`` to ``desired``.

    ``findings`` decide the verdict; a plan that they refuse has no steps.
    """
    verdict = _verdict(findings)
    floor, reasons = _floor(facts, desired, ladder, descents)
    way = _Way(facts, desired, facts, reasons)
    if verdict == "ready":
        for number in range(len(ladder) - 1, -1, -1):
            for act in ladder[number].down:
                _act(way, ladder[number], act, "down", forced=number > floor)
        for rung in ladder:
            for act in rung.up:
                _act(way, rung, act, "up", forced=False)
    descended = any(step.direction == "down" for step in way.steps)
    return Plan(
        schema_version=1,
        hostname=facts.hostname,
        boot_id=facts.kernel.boot_id,
        release=facts.kernel.release,
        profile_digest=digest,
        verdict=verdict,
        findings=findings,
        desired=desired,
        descends_to=ladder[floor].name if descended and floor < len(ladder) - 1 else None,
        steps=tuple(way.steps),
        untouched=untouched,
    )


def descent(
    facts: Facts,
    desired: Desired,
    ladder: tuple[Rung, ...] = LADDER,
    descents: tuple[tuple[str, str, str], ...] = DESCENTS,
) -> str | None:
    """Return the rung that the host must come down to for ``desired``, None where it need not."""
    floor, reasons = _floor(facts, desired, ladder, descents)
    return ladder[floor].name if reasons else None


def _verdict(findings: Iterable[Finding]) -> Verdict:
    levels = {finding.level for finding in findings}
    if "blocker" in levels:
        return "refused"
    return "reboot-required" if "reboot" in levels else "ready"


def _floor(
    facts: Facts,
    desired: Desired,
    ladder: tuple[Rung, ...],
    descents: tuple[tuple[str, str, str], ...],
) -> tuple[int, dict[str, str]]:
    """Return the number of the lowest rung that a change needs, and why."""
    rungs = {rung.name: number for number, rung in enumerate(ladder)}
    changes = _changes(facts, desired)
    needed = {rung: why for change, rung, why in descents if change in changes}
    floor = min((rungs[rung] for rung in needed), default=len(ladder) - 1)
    return floor, needed


def _changes(facts: Facts, desired: Desired) -> frozenset[str]:
    """Return the changes of ``DESCENTS`` that lie between facts and desired state."""
    state = on(facts, "dsa_state")
    going_offline = _cpus_to_take(facts, desired)
    coming = _cpus_to_return(facts, desired)
    chans = desired.wants("limit_chans")
    wanted_state = desired.wants("dsa_state")
    threaded = facts.kernel.family == "seed" and on(facts, "cpu_multi_copy_pages")
    found = {
        "cpus online": bool(coming) and tiering_on(facts),
        "watermark": desired.wants("numa_balancing") in TIERING_MODES
        and not tiered(facts)
        and "demote_scale_factor" in facts.knobs
        and on(facts, "demotion_enabled"),
        "cpus under threads": threaded and bool(going_offline or coming),
        "limit_chans": state and chans is not None and chans != live(facts, "limit_chans"),
        "dsa_state off": state and wanted_state == 0,
        "dsa_state stale": state and wanted_state == 1 and not initialised(facts),
        "queues": state
        and bool(
            (loading := _devices_to_load(facts, desired))
            or _devices_to_stop(facts, desired, loading)
        ),
        "iommu": state and bool(retyped(facts, desired)),
    }
    if any(found.values()) or desired.wants("demotion_enabled") == 1:
        # what comes down goes up again, and finds its demotion target then
        found["cpus under threads"] |= threaded and _stirs(facts, desired)
    return frozenset(name for name, true in found.items() if true)


def _stirs(facts: Facts, desired: Desired) -> bool:
    """Tell whether a CPU of the fast node is to go and come back, where demotion is turned on."""
    wanted = desired.wants("demotion_enabled")
    demotes = on(facts, "demotion_enabled") if wanted is None else wanted == 1
    return demotes and untargeted(facts, desired.tiers)


def _cpus_to_take(facts: Facts, desired: Desired) -> tuple[int, ...]:
    return slow_cpus(desired.tiers.slow_of(facts)) if desired.cpuless else ()


def _cpus_to_return(facts: Facts, desired: Desired) -> tuple[int, ...]:
    offline = set(facts.offline_cpus)
    return tuple(cpu for cpu in desired.returning if cpu in offline)


def _devices(facts: Facts) -> dict[str, DsaDevice]:
    return {device.id: device for device in facts.devices}


def _devices_to_load(facts: Facts, desired: Desired) -> tuple[DeviceConfig, ...]:
    found = _devices(facts)
    return tuple(
        config
        for config in desired.queues
        if config.id not in found or differences(config, found[config.id])
    )


def _devices_to_stop(
    facts: Facts, desired: Desired, loading: tuple[DeviceConfig, ...]
) -> tuple[DsaDevice, ...]:
    """Return the enabled devices that are unwanted, or wanted otherwise: those to be loaded."""
    unwanted = {
        *desired.stopped,
        *(config.id for config in loading),
        *(device.id for device in retyped(facts, desired)),
    }
    return tuple(d for d in facts.devices if d.id in unwanted and d.state == "enabled")


def _act(way: _Way, rung: Rung, act: Act, direction: str, *, forced: bool) -> None:
    if isinstance(act, Put):
        if direction == "down":
            _lower(way, rung, act, forced=forced)
        else:
            _raise(way, rung, act)
    elif direction == "up" or forced:
        _ACTS[act](way, rung, direction)


def _lower(way: _Way, rung: Rung, put: Put, *, forced: bool) -> None:
    if put.value is None:
        wanted = way.desired.wants(put.knob)
        leaving = way.desired.wants("numa_balancing") not in (None, *TIERING_MODES)
        if wanted is not None and leaving and tiered(way.facts):
            _write(way, rung, "down", put.knob, wanted, "it cannot be written without tiering")
        return
    value = put.value
    if not forced and way.desired.wants(put.knob) != value:
        return
    named = way.desired.wants(put.knob) == value
    reason = "the desired state says so" if named else _why(way)
    untold = put.knob == "numa_balancing" and forced and may_balance_untold(way.facts)
    if untold:
        reason = "it may be on though it reads 0: this kernel may boot so"
    _write(way, rung, "down", put.knob, value, reason, anyway=untold and on(way.facts, "dsa_state"))


def _why(way: _Way) -> str:
    return "coming down: " + "; ".join(dict.fromkeys(way.reasons.values()))


def _raise(way: _Way, rung: Rung, put: Put) -> None:
    wanted = way.desired.wants(put.knob)
    reason = "the desired state says so"
    stale = put.knob == "demote_scale_factor" and _watermark_stale(way)
    forgotten = put.knob == "numa_balancing" and _mode_forgotten(way)
    if wanted is None and (stale or way.came_down(put.knob)):
        wanted = live(way.origin, put.knob)
        reason = "as it was before coming down"
    if wanted is None:
        return  # also what another knob changes with itself, as one of several words for a thing
    if stale:
        reason = "the kernel recomputes its watermarks only when this is written"
    if forgotten:
        reason = "TPP takes mode 3 for memory tiering only when it is written without CPUs below"
    _write(way, rung, "up", put.knob, wanted, reason, anyway=stale or forgotten)


def _mode_forgotten(way: _Way) -> bool:
    """Tell whether TPP was given mode 3 while the slow node had CPUs: it keeps no mark then."""
    seed = way.facts.kernel.family == "seed" and "demote_scale_factor" in way.facts.knobs
    mode = way.desired.wants("numa_balancing") == live(way.facts, "numa_balancing") == 3
    return seed and mode and watermark(way.facts, way.desired.tiers) == 0


def _watermark_stale(way: _Way) -> bool:
    """Tell whether the demotion watermark has yet to be computed for memory tiering."""
    if not tiered(way.facts) or "demote_scale_factor" not in way.facts.knobs:
        return False
    if not tiered(way.origin) or any(_TIERING_OFF in step.requests for step in way.steps):
        return True
    wanted = way.desired.wants
    tiers = wanted("numa_balancing") in TIERING_MODES or wanted("demotion_enabled") == 1
    named = wanted("demote_scale_factor") is not None
    # others may have written the factor before memory tiering came on
    return (tiers or named) and watermark(way.facts, way.desired.tiers) == 0


def _write(
    way: _Way,
    rung: Rung,
    direction: str,
    knob: KnobName,
    value: int,
    reason: str,
    *,
    anyway: bool = False,
) -> None:
    before = live(way.facts, knob)
    if before is None or (before == value and not anyway):
        return
    request = SetKnob(knob, value)
    evidence: list[Evidence] = [Reads(knob, value)]
    if knob == "use_dsa_copy_pages" and value:
        failures = way.origin.timer.get("dsa_copy_fail", 0)
        evidence += [CleanLog(), NoFailures(failures)]
    if knob == "dsa_state" and not value:
        evidence.append(Held(len(held(project(way.facts, request, way.desired.tiers)))))
    if knob == "demote_scale_factor":
        evidence.append(Watermark(way.desired.tiers))
    way.step(
        rung,
        direction,
        f"{KNOBS[knob].path} = {KNOBS[knob].spelt(value)}",
        (KNOBS[knob].spelt(before), KNOBS[knob].spelt(value)),
        reason,
        requests=(request,),
        evidence=tuple(evidence),
        inverse=(SetKnob(knob, before),) if before != value else (),
    )


def _memory_online(way: _Way, rung: Rung, direction: str) -> None:
    """Plan the blocks that are offline, some at a time: each block takes the kernel a moment."""
    for wish in way.desired.memory:
        for device in bringing(way.facts, wish.node):
            offline = device.blocks.offline if device.blocks else ()
            for first in range(0, len(offline), PORTION):
                blocks = offline[first : first + PORTION]
                way.step(
                    rung,
                    direction,
                    f"memory blocks {ranges(blocks)} of {device.id} online",
                    ("offline", f"node {wish.node}, {wish.zone}"),
                    "the profile wants the memory of that node",
                    requests=(OnlineMemory(device.id, wish.node, blocks, wish.zone),),
                    evidence=(MemoryIs(device.id, wish.node, blocks, wish.zone),),
                    deadline=MEMORY_DEADLINE,
                )


def _cpus_offline(way: _Way, rung: Rung, direction: str) -> None:
    cpus = _cpus_to_take(way.facts, way.desired)
    if cpus:
        _switch_cpus(way, rung, direction, cpus, online=False, reason="the slow tier has no CPUs")


def _cpus_online(way: _Way, rung: Rung, direction: str) -> None:
    for one in way.desired.cpus_online:
        back = tuple(cpu for cpu in one.cpus if cpu in way.facts.offline_cpus)
        if back:
            why = "they were online before"
            _switch_cpus(way, rung, direction, back, online=True, reason=why, node=one.node)


def _switch_cpus(
    way: _Way,
    rung: Rung,
    direction: str,
    cpus: tuple[int, ...],
    *,
    online: bool,
    reason: str,
    node: int | None = None,
) -> None:
    words = ("offline", "online")
    way.step(
        rung,
        direction,
        f"cpus {ranges(cpus)} {words[online]}",
        (words[not online], words[online]),
        reason,
        requests=tuple(SetCpu(cpu, online, node) for cpu in cpus),
        evidence=(CpusAre(cpus, online),),
        inverse=tuple(SetCpu(cpu, not online, node) for cpu in reversed(cpus)),
        deadline=CPU_DEADLINE,
    )


def _stir(way: _Way, rung: Rung, direction: str) -> None:
    """Plan the event at which the kernel works out where the fast node demotes to."""
    tiers = way.desired.tiers
    cpu, slow = stirrable(way.facts, tiers), tiers.slow_of(way.facts)
    if not untargeted(way.facts, tiers) or not _will_demote(way) or cpu is None:
        return
    if not slow or slow_cpus(slow):
        return
    way.step(
        rung,
        direction,
        f"cpu {cpu} offline and online",
        ("no demotion target", words(tiers.slow)),
        "the kernel works out its demotion targets when a CPU comes or goes",
        requests=(StirCpu(cpu),),
        evidence=(CpusAre((cpu,), online=True), Target(tiers)),
        inverse=(SetCpu(cpu, online=True),),
        deadline=CPU_DEADLINE,
    )


def _will_demote(way: _Way) -> bool:
    """Tell whether the way ends with demotion on, and it is the way that turns it on."""
    wanted = way.desired.wants("demotion_enabled")
    if wanted is None:
        return on(way.origin, "demotion_enabled") and not on(way.facts, "demotion_enabled")
    return wanted == 1


def _stop(way: _Way, rung: Rung, direction: str) -> None:
    loading = _devices_to_load(way.facts, way.desired)
    for device in _devices_to_stop(way.facts, way.desired, loading):
        way.step(
            rung,
            direction,
            f"{device.id} disabled",
            ("enabled", "disabled"),
            "it is not wanted"
            if device.id in way.desired.stopped
            else "it is to be configured otherwise",
            requests=(StopDevice(device.id),),
            evidence=(Stopped(device.id),),
            inverse=(LoadDevice(captured(device)),),
            deadline=DEVICE_DEADLINE,
        )


def _retype(way: _Way, rung: Rung, direction: str) -> None:
    """Plan other types of IOMMU groups: one device after the other, so that each keeps its name."""
    for device in retyped(way.facts, way.desired):
        if device.group is None:
            continue
        now, wanted = device.group.type, (way.desired.iommu or {})[device.id]
        way.step(
            rung,
            direction,
            f"iommu group {device.group.id} of {device.id} = {wanted}",
            (now, wanted),
            "the desired state says so",
            requests=(SetIommu(device.id, device.pci, device.group.id, wanted),),
            evidence=(IommuIs(device.id, device.pci, wanted),),
            inverse=(SetIommu(device.id, device.pci, device.group.id, now),),
            deadline=DEVICE_DEADLINE,
        )


def _bind(way: _Way, rung: Rung, direction: str) -> None:
    for address, kind in (way.desired.bound or {}).items():
        found = loose(way.facts, address)
        if found is None:
            continue
        other = found.group is not None and kind not in ("", found.group.type)
        group = found.group.id if found.group and other else ""
        way.step(
            rung,
            direction,
            f"{address} bound to idxd{f', iommu group {group} = {kind}' if other else ''}",
            ("no driver", "idxd"),
            "dsatier has left it without a driver",
            requests=(BindDevice(address, group, kind if other else ""),),
            evidence=(Bound(address, kind),),
            deadline=DEVICE_DEADLINE,
        )


def _load(way: _Way, rung: Rung, direction: str) -> None:
    again = reloaded(way.origin, way.desired)
    for config in (*_devices_to_load(way.facts, way.desired), *again):
        found = _devices(way.facts).get(config.id)
        way.step(
            rung,
            direction,
            f"{config.id} configured and enabled",
            (found.state if found else "absent", "enabled"),
            "the engine needs its work queues",
            requests=(LoadDevice(config),),
            evidence=(Configured(config),),
            inverse=(StopDevice(config.id),),
            deadline=DEVICE_DEADLINE,
        )


def _prove(way: _Way, rung: Rung, direction: str) -> None:
    """Plan the proof of initialisation: whenever the engine is about to go live."""
    climbing = live(way.facts, "use_dsa_copy_pages") == 0 and _goes_live(way)
    if not climbing and not any(SetKnob("dsa_state", 1) in step.requests for step in way.steps):
        return
    channels = len(held(way.facts))
    way.step(
        rung,
        direction,
        "the DSA is really initialised",
        ("claimed", "proven"),
        "a failed start may read back as a good one",
        evidence=(Held(channels), CleanLog()),
    )


def _goes_live(way: _Way) -> bool:
    wanted = way.desired.wants("use_dsa_copy_pages")
    return bool(live(way.origin, "use_dsa_copy_pages") if wanted is None else wanted)


def _settle(way: _Way, rung: Rung, direction: str) -> None:
    if way.facts.kernel.family != "seed" or not on(way.facts, "dsa_state"):
        return
    way.step(
        rung,
        direction,
        f"quiet for {SEED_SETTLE:g} s",
        ("copies may be in flight", "none are"),
        "a seed kernel frees its descriptors without waiting for copies that began before",
        evidence=(Quiet(), CleanLog()),
        settle=SEED_SETTLE,
    )


def _swap_off(way: _Way, rung: Rung, direction: str) -> None:
    for area in way.facts.swaps if way.desired.swap_off else ():
        way.step(
            rung,
            direction,
            f"swap on {area.path} off",
            ("on", "off"),
            "with swap on, demotion goes to disk",
            requests=(SwapOff(area),),
            evidence=(SwapIs(area.path, on=False),),
            inverse=(SwapOn(area),),
            deadline=SWAP_DEADLINE,
        )


def _swap_on(way: _Way, rung: Rung, direction: str) -> None:
    present = {area.path for area in way.facts.swaps}
    for area in way.desired.swap_on:
        if area.path not in present:
            way.step(
                rung,
                direction,
                f"swap on {area.path} on",
                ("off", "on"),
                "it was on before",
                requests=(SwapOn(area),),
                evidence=(SwapIs(area.path, on=True),),
                inverse=(SwapOff(area),),
            )


_ACTS: dict[str, Callable[[_Way, Rung, str], None]] = {
    "memory online": _memory_online,
    "cpus offline": _cpus_offline,
    "cpus online": _cpus_online,
    "stir": _stir,
    "stop": _stop,
    "bind": _bind,
    "retype": _retype,
    "load": _load,
    "prove": _prove,
    "settle": _settle,
    "swap off": _swap_off,
    "swap on": _swap_on,
}
