# SPDX-License-Identifier: Apache-2.0
"""Mutants of order: neighbouring acts swapped, descents one rung off.

Some orders do not matter; those are listed with the reason, and are tested not to.
"""

from __future__ import annotations

from collections.abc import Iterator

from dsatier.plan.ladder import DESCENTS, LADDER, Act, Put, Rung
from tests.mutation import foretold
from tests.mutation.mutants import Descents, Mutant, ladder_checks_of

INDEPENDENT = "neither is read when the other is written, and every mixture of both is safe"
EQUIVALENT: dict[str, str] = {
    "cpuless, up: cpus online before cpus offline": "no desired state asks for both",
    "parameters, up: limit_chans before limit_mt_num": INDEPENDENT,
    "parameters, up: dsa_copy_threshold before limit_chans": INDEPENDENT,
    "parameters, up: cpu_multi_copy_threshold before dsa_copy_threshold": INDEPENDENT,
    "parameters, up: migrate_copy_calibrate before cpu_multi_copy_threshold": INDEPENDENT,
    "parameters, up: migrate_engine_reasons before migrate_copy_calibrate": INDEPENDENT,
    "parameters, up: migrate_batch_pages before migrate_engine_reasons": INDEPENDENT,
    "parameters, up: migrate_batch_usecs before migrate_batch_pages": INDEPENDENT,
    "parameters, up: use_concur_to_compact before migrate_batch_usecs": INDEPENDENT,
    "parameters, up: use_concur_to_demote before use_concur_to_compact": INDEPENDENT,
    "parameters, up: use_concur_for_htmm before use_concur_to_demote": INDEPENDENT,
    "parameters, up: migrate_batch_reasons before use_concur_for_htmm": "no kernel has both",
    "cpuless, up: stir before cpus online": "CPUs of the slow node come back only where nothing "
    "demotes, and at one of the fast node the targets are worked out as well",
    "queues, up: stop before bind": "one is of a device with a driver, the other of one without",
    "engine, up: use_dsa_copy_pages before cpu_multi_copy_pages": "no engine asks for both, "
    "the way down has turned off the one that goes, and where both had been on both come back",
    "engine, down: cpu_multi_copy_pages 0 before use_dsa_copy_pages 0": "each stands for itself; "
    "what frees descriptors is on a lower rung",
    "memory, up: watermark_boost_factor before watermark_scale_factor": INDEPENDENT,
    "memory, up: compaction_proactiveness before watermark_boost_factor": INDEPENDENT,
    "memory, up: zone_reclaim_mode before compaction_proactiveness": INDEPENDENT,
    "memory, up: thp_enabled before zone_reclaim_mode": INDEPENDENT,
    "memory, up: thp_defrag before thp_enabled": INDEPENDENT,
    "tiering, up: promote_rate_limit_MBps before swap off": INDEPENDENT,
    "tiering, up: swap on before demotion_enabled": "swap comes back only where tiering is off, "
    "and the way down has turned it off",
    "tiering, down: demote_scale_factor before demotion_enabled 0": "the factor may be written "
    "whenever numa_balancing is 2; demotion does not matter to it",
}


def every() -> Iterator[Mutant]:
    """Yield the mutants that make a difference."""
    yield from (mutant for mutant in orders() if mutant.change not in EQUIVALENT)
    yield from floors()


def equivalent() -> Iterator[Mutant]:
    """Yield the mutants that make none."""
    yield from (mutant for mutant in orders() if mutant.change in EQUIVALENT)


def orders() -> Iterator[Mutant]:
    """Yield ladders with two neighbouring acts swapped."""
    for number, rung in enumerate(LADDER):
        for side in ("up", "down"):
            acts: tuple[Act, ...] = getattr(rung, side)
            for place in range(len(acts) - 1):
                one, two = acts[place], acts[place + 1]
                name = f"{rung.name}, {side}: {words(two)} before {words(one)}"
                swapped = (*acts[:place], two, one, *acts[place + 2 :])
                yield _of("ladder", name, _with(number, side, swapped), DESCENTS)


def floors() -> Iterator[Mutant]:
    """Yield descents that lead one rung too low, or not low enough by one."""
    names = [rung.name for rung in LADDER]
    for number, (change, floor, why) in enumerate(DESCENTS):
        place = names.index(floor)
        for other in (*names[max(place - 1, 0) : place], *names[place + 1 : place + 2]):
            moved = (*DESCENTS[:number], (change, other, why), *DESCENTS[number + 1 :])
            yield _of("descents", f"{change}: one off, to {other}", LADDER, moved)


def words(act: Act) -> str:
    """Return an act in words."""
    if not isinstance(act, Put):
        return act
    return act.knob if act.value is None else f"{act.knob} {act.value}"


def _with(number: int, side: str, acts: tuple[Act, ...]) -> tuple[Rung, ...]:
    rung = LADDER[number]
    up, down = (acts, rung.down) if side == "up" else (rung.up, acts)
    other = Rung(rung.name, rung.holds, up, down)
    return (*LADDER[:number], other, *LADDER[number + 1 :])


def _of(table: str, name: str, ladder: tuple[Rung, ...], descents: Descents) -> Mutant:
    check = ("foretelling", lambda: foretold.mistakes(ladder, descents))
    return Mutant(table, name, (check, *ladder_checks_of(ladder, descents)))
