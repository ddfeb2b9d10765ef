# SPDX-License-Identifier: Apache-2.0
"""Where plans of given tables lead on paper, from each of a few hosts to each of a few goals."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from dsatier.facts.knobs import ENGINES, KnobName
from dsatier.facts.model import Facts, Swap
from dsatier.facts.tiers import USUAL
from dsatier.plan.ladder import DESCENTS, LADDER, Rung
from dsatier.plan.model import Desired, Plan
from dsatier.plan.originals import originals
from dsatier.plan.rehearsal import foretold, prepare
from dsatier.plan.requests import SetKnob
from dsatier.plan.restore import from_originals
from dsatier.plan.short_form import expand
from dsatier.profile.model import QueueShape
from tests.proof.explore import strayed, unmet
from tests.support import build
from tests.support.build import GIB

Descents = tuple[tuple[str, str, str], ...]
TIERING: dict[KnobName, int] = {
    "numa_balancing": 2,
    "demote_scale_factor": 300,
    "demotion_enabled": 1,
}


def _goals(host: Facts) -> dict[str, Desired]:
    """Return what is wanted of a host; each is within its reach."""
    usual = expand(QueueShape(8), host.devices, driver_names=True)
    small = expand(QueueShape(8, size=64), host.devices, driver_names=True)
    tiered = Desired(cpuless=True, swap_off=True)
    dsa: dict[KnobName, int] = {**ENGINES["dsa"], "limit_chans": 8, "dsa_copy_threshold": 12}
    lists: dict[KnobName, int] = {"use_concur_to_compact": 1, "use_concur_to_demote": 1}
    four: dict[KnobName, int] = dict.fromkeys(lists, 0) | {"limit_chans": 4}
    return {
        "all": replace(tiered, knobs={**dsa, **lists, **TIERING}, queues=usual),
        "other queues": Desired(knobs={**dsa, **four}, queues=small[:4], stopped=("dsa7",)),
        # 16 fits only after the slow node's CPUs are gone
        "threads": replace(tiered, knobs={**ENGINES["multithread"], "limit_mt_num": 16, **TIERING}),
        "cpu": Desired(knobs=ENGINES["cpu"]),
    }


@cache
def _cases() -> tuple[tuple[str, Facts, Desired], ...]:
    """Return the ways: from the host as found and from each goal, to each goal and back."""
    found = []
    hosts = {family: build.facts(family) for family in ("ours", "seed")}
    hosts["seed without a target"] = build.aimless(hosts["seed"])
    for family, host in hosts.items():
        plain = replace(host, swaps=(Swap("/dev/sda3", 8 * GIB, GIB, -2),))
        before = originals(plain, USUAL, 0.0)
        places = {"found": plain}
        for name, goal in _goals(plain).items():
            places[name] = _end(prepare(plain, goal), plain)
        for start, there in places.items():
            goals = {**_goals(plain), "back": from_originals(before, there, USUAL)}
            found += [(f"{family}, {start} to {n}", there, goal) for n, goal in goals.items()]
    return tuple(found)


def _end(plan: Plan, facts: Facts) -> Facts:
    for _, then in foretold(plan, facts):
        facts = then
    return facts


def mistakes(ladder: tuple[Rung, ...] = LADDER, descents: Descents = DESCENTS) -> list[str]:
    """Return which ways are refused, lead elsewhere, do not end, or write out of order."""
    wrong = []
    for name, host, goal in _cases():
        way = prepare(host, goal, ladder=ladder, descents=descents)
        end = _end(way, host)
        if way.verdict != "ready":
            wrong.append(f"{name}: {way.findings[0]}")
        elif missed := unmet(goal, end):
            wrong.append(f"{name}: {missed}")
        elif touched := strayed(goal, host, end):
            wrong.append(f"{name}: {touched}")
        elif late := _late(way):
            wrong.append(f"{name}: {late}")
        elif again := prepare(end, goal, ladder=ladder, descents=descents).steps:
            wrong.append(f"{name}: it goes on with {again[0].what}")
    return wrong


def _late(way: Plan) -> str:
    """Return that demotion begins before its watermark is written, empty where it does not."""
    written = [request for step in way.steps for request in step.requests]
    factor, demotion = SetKnob("demote_scale_factor", 300), SetKnob("demotion_enabled", 1)
    if factor in written and demotion in written[: written.index(factor)]:
        return "demotion begins before its watermark is there"
    return ""
