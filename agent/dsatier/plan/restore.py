# SPDX-License-Identifier: Apache-2.0
"""The ways back: to the original values, to CPU copies, off the host. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dsatier.base.text import ranges
from dsatier.facts.knobs import ENGINES, TIERING_MODES, KnobName
from dsatier.facts.model import Facts
from dsatier.facts.readings import (
    demotes_to_disk,
    live,
    on,
    tiered,
    value_refusal,
)
from dsatier.facts.tiers import Tiers
from dsatier.plan.model import Desired, of_tiers
from dsatier.plan.originals import Originals
from dsatier.plan.outlook import frees_dsa
from dsatier.plan.ownership import (
    barred,
    cut_short,
    memory_kept,
    owned,
    returning,
    retypable,
    staying,
    taken_over,
)
from dsatier.plan.planner import descent
from dsatier.plan.projection import switched
from dsatier.plan.requirements import findings, kernel_configured
from dsatier.plan.requirements_tiers import tiering_conditions, tiers_exist

TIERING: dict[KnobName, dict[int, int]] = {
    "numa_balancing": {2: 0, 3: 1},
    "demotion_enabled": {1: 0},
}
"""The values with which the kernel tiers, and what is left of each without tiering."""
SMT = "/sys/devices/system/cpu/smt/control"
NEEDED_TO_TIER = (tiers_exist, tiering_conditions, kernel_configured)


def cpu_only(facts: Facts, tiers: Tiers, before: Originals | None = None) -> Desired:
    """Return the state that a crash guard brings up: CPU copies, and nothing else touched.

    But for ``not_resumed``, and for devices that were left without a driver.
    """
    knobs = {name: 0 for name in ENGINES["cpu"] if name in facts.knobs}
    knobs |= _paused(facts, tiers)[0]
    return Desired(tiers=tiers, knobs=knobs, bound=cut_short(before, facts))


def not_resumed(facts: Facts, tiers: Tiers) -> tuple[str, ...]:
    """Return what ``cpu_only`` cannot leave as it is, with the reason."""
    return _paused(facts, tiers)[1]


def _paused(facts: Facts, tiers: Tiers) -> tuple[dict[KnobName, int], tuple[str, ...]]:
    """Return tiering's knobs off, and why, where the DSA must be freed and they cannot go on."""
    if not on(facts, "dsa_state"):
        return {}, ()
    return _untiered({name: live(facts, name) for name in TIERING}, facts, tiers)


Whose = Callable[[Originals, Facts], Originals]
"""Returns the originals of what is dsatier's."""


def from_originals(before: Originals, facts: Facts, tiers: Tiers, whose: Whose = owned) -> Desired:
    """Return the state that ``rollback`` goes to: as found, but for what ``not_restored`` names.

    Only what is dsatier's goes back: what it wrote, where that still stands.
    """
    return _restored(whose(before, facts), facts, tiers)[0]


def not_restored(before: Originals, facts: Facts, tiers: Tiers) -> tuple[str, ...]:
    """Return what ``from_originals`` does not bring back from here, each with its reason."""
    left = _restored(owned(before, facts), facts, tiers)[1]
    return (*left, *taken_over(before, facts), *memory_kept(before, facts))


def _restored(ours: Originals, facts: Facts, tiers: Tiers) -> tuple[Desired, tuple[str, ...]]:
    """Return the state to go back to, and in words what cannot be as it was found.

    What this kernel cannot hold safely is not brought back, no matter who wrote it before. Nor is
    tiering, where the host will not be fit for it once its CPUs and its swap are back.
    """
    lost: tuple[str, ...] = ()
    if cpus := barred(ours, facts):
        lost = (f"cpus {ranges(cpus)} are left offline: SMT is {facts.smt} ({SMT})",)
        ours = replace(ours, online_cpus=tuple(c for c in ours.online_cpus if c not in cpus))
    if _tiers_for_others(ours, facts) and _unfit_to_tier(facts, tiers) is None:
        ours, waiting = _without_tiers(ours, facts)
        lost = (*lost, *waiting)
    desired = Desired(
        tiers=tiers,
        cpus_online=of_tiers(tiers, ours.online_cpus, ours.fast_cpus),
        queues=ours.devices,
        stopped=ours.idle_devices,
        swap_on=ours.swaps,
        iommu=returning(ours, facts),
        bound=cut_short(ours, facts),
    )
    knobs, left = _knobs(ours, desired, facts)
    return replace(desired, knobs=knobs), (*lost, *_fixed(ours, facts), *left)


def _fixed(ours: Originals, facts: Facts) -> tuple[str, ...]:
    """Return in words which IOMMU groups cannot have the type again that they had."""
    back, stay = retypable(ours, facts), staying(ours, facts)
    return tuple(
        f"the IOMMU group of {one.id} is left at {one.group.type} (was {back[one.id]}): "
        f"{stay[one.id]}"
        for one in facts.devices
        if one.group and one.id in stay
    )


def _tiers_for_others(ours: Originals, facts: Facts) -> bool:
    """Tell whether somebody else has turned on tiering, and dsatier has not written to it."""
    tiers = {name for name in TIERING if live(facts, name) in TIERING[name]}
    return bool(tiers) and not tiers & ours.knobs.keys()


def _without_tiers(ours: Originals, facts: Facts) -> tuple[Originals, tuple[str, ...]]:
    """Return the originals without what tiering does not go on with, and that in words."""
    cpus = tuple(cpu for cpu in ours.online_cpus if cpu in facts.offline_cpus)
    there = {area.path for area in facts.swaps}
    gone = [area for area in ours.swaps if area.path not in there]
    swaps = [area.path for area in gone if demotes_to_disk(facts)]
    words = [f"cpus {ranges(cpus)} are left offline"] if cpus else []
    words += [f"swap {path} is left off" for path in swaps]
    why = "tiering is on and not dsatier's: turn it off, then roll back again"
    if not swaps:
        return replace(ours, online_cpus=()), tuple(f"{one}: {why}" for one in words)
    return replace(ours, online_cpus=(), swaps=()), tuple(f"{one}: {why}" for one in words)


def _knobs(
    before: Originals, desired: Desired, facts: Facts
) -> tuple[dict[KnobName, int], tuple[str, ...]]:
    """Return the knobs that are to be as they were found, and in words what cannot be."""
    tiers = desired.tiers
    knobs = {name: value for name, value in before.knobs.items() if name in facts.knobs}
    cpus = switched(facts, online=desired.cpus_online, tiers=tiers)
    then = _with_swaps(cpus, before)
    tiering = {name: knobs.get(name, live(facts, name)) for name in TIERING}
    lost: tuple[str, ...] = ()
    others = not before.knobs.keys() & TIERING.keys()
    back = replace(desired, knobs=knobs)
    if not others or frees_dsa(facts, back) or descent(facts, back):
        off, lost = _untiered(tiering, then, tiers)
        knobs |= off
    factor = knobs.get("demote_scale_factor")
    tiers_then = knobs.get("numa_balancing") in TIERING_MODES
    if factor is not None and not tiers_then and not tiered(facts):
        del knobs["demote_scale_factor"]
        if (found := live(facts, "demote_scale_factor")) != factor:
            why = "it can be written with numa_balancing 2 only"
            lost = (*lost, f"demote_scale_factor is left at {found} (was {factor}): {why}")
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
    tiering: dict[KnobName, int | None], facts: Facts, tiers: Tiers
) -> tuple[dict[KnobName, int], tuple[str, ...]]:
    """Return tiering's knobs without tiering, and why, where they tier and ``facts`` are unfit."""
    on_now = {n: value for n, value in tiering.items() if value in TIERING[n]}
    unfit = _unfit_to_tier(facts, tiers)
    if not on_now or unfit is None:
        return {}, ()
    words = ", ".join(f"{name} was {value}" for name, value in on_now.items())
    off = {name: TIERING[name][value] for name, value in on_now.items() if value is not None}
    return off, (f"tiering is left off ({words}): {unfit}",)


def _unfit_to_tier(facts: Facts, tiers: Tiers) -> str | None:
    """Return why tiering must not be on, None where it may."""
    wish = Desired(tiers=tiers, knobs={"numa_balancing": 2})
    for finding in findings(facts, wish, NEEDED_TO_TIER):
        if finding.level == "blocker":
            return f"{finding.where}: expected {finding.expected}, found {finding.found}"
    return None


def released(before: Originals | None, facts: Facts, tiers: Tiers) -> Desired:
    """Return the state that ``detach`` goes to: as found, but with every engine off.

    Without originals only the engines go off: nothing else is known to be dsatier's.
    """
    engines = {name: 0 for name in ENGINES["cpu"] if name in facts.knobs}
    if before is None:
        return Desired(tiers=tiers, knobs=engines)
    back = from_originals(before, facts, tiers)
    return replace(back, knobs={**(back.knobs or {}), **engines})
