# SPDX-License-Identifier: Apache-2.0
"""The mutants: one change in one table each, and the checks in the order in which they look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from dsatier.apply.lifecycle import STATES, TRANSITIONS
from dsatier.facts.model import Facts
from dsatier.facts.tiers import USUAL
from dsatier.plan.interlock import GUARDS
from dsatier.plan.ladder import DESCENTS, LADDER, Act, Put, Rung
from dsatier.plan.originals import Originals, originals
from dsatier.plan.ownership import owned
from dsatier.plan.requests import SetKnob
from dsatier.plan.requirements import REQUIREMENTS
from tests.core import ladder_checks, lifecycle_checks, test_requirements
from tests.mutation import naive
from tests.proof.explore import Explorer, Tables
from tests.support import build, hosts, profiles, scenarios

Descents = tuple[tuple[str, str, str], ...]
Check = tuple[str, Callable[[], list[str]]]
"""A check's name, and what returns the mistakes that it finds."""


@dataclass(frozen=True)
class Mutant:
    """A changed table."""

    table: str
    change: str
    checks: tuple[Check, ...]

    def caught(self) -> tuple[str, str] | None:
        """Return the check that catches it, and what it found; None where it survives."""
        for name, check in self.checks:
            found = check()
            if found:
                return name, found[0]
        return None


def every() -> Iterator[Mutant]:
    """Yield all mutants."""
    yield from guards()
    yield from ladder()
    yield from descents()
    yield from lifecycle()
    yield from requirements()
    yield from whose()


def whose() -> Iterator[Mutant]:
    """Take for dsatier's what others have written, and what nobody has."""

    def written(before: Originals, facts: Facts) -> Originals:
        asked = before.written or ()
        names = {request.knob for request in asked if isinstance(request, SetKnob)}
        knobs = {name: value for name, value in before.knobs.items() if name in names}
        return replace(owned(before, facts), knobs=knobs)

    def everything(before: Originals, facts: Facts) -> Originals:
        return originals(DEFAULTS, USUAL, 0.0)

    for change, rule in (("all that was ever written", written), ("everything", everything)):
        tables = Tables(whose=rule)
        check = partial(_explored, "ours", ("booted",), ("tpp-dsa", "multithread"), tables)
        yield Mutant("whose", f"{change} is dsatier's", (("exploration, whose", check),))


DEFAULTS = build.facts()
"""A host on which nobody has written anything."""


def guards() -> Iterator[Mutant]:
    """Drop each guard: seen by the table of scenarios, and by the simulated kernel's harm."""
    for guard in GUARDS:
        left = tuple(other for other in GUARDS if other is not guard)
        yield Mutant(
            "guards",
            f"without {guard.name}",
            (("scenarios", partial(scenarios.mistakes, left)),),
        )
        if guard.name not in naive.NOT_SHOWN:
            yield Mutant(
                "guards",
                f"without {guard.name}, on the simulated kernel",
                (("harm or useless write", partial(_harms, guard.name)),),
            )


def _harms(name: str) -> list[str]:
    """Return what the simulated kernel shows without a guard, if it shows it in every try."""
    tries = [one for one in naive.TRIES if one.guard == name]
    found = [(one, naive.outcome(one), naive.outcome(one, naive.without(one))) for one in tries]
    right = all(w == "refused" and wo in ("harmed", "useless") for _, w, wo in found)
    return [f"{one}: {without}" for one, _, without in found] if right else []


def _explored(
    kind: str, starts: tuple[str, ...], names: tuple[str, ...], tables: Tables
) -> list[str]:
    """Return what an exploration with changed tables finds wrong."""
    every = profiles.fitted() | profiles.generated(12, seed=3) | profiles.CONCURRENT
    wanted = {name: every[name] for name in names}
    for start in hosts.starts(kind):
        if start.name not in starts:
            continue
        explorer = Explorer(wanted, tables, depth=1, stop_at=1)
        coverage = explorer.explore([start])
        if coverage.violations:
            return [str(coverage.violations[0])]
        for reason in ("interlock", "no way back"):
            if coverage.refusals[reason]:
                return [f"{kind}, {start.name}: {reason} refuses {coverage.refusals[reason]} plans"]
    return []


def ladder_checks_of(ladder: tuple[Rung, ...], descents: Descents) -> tuple[Check, ...]:
    tables = Tables(ladder=ladder, descents=descents)
    return (
        ("descents and proof", lambda: ladder_checks.mistakes(ladder, descents)),
        (
            "exploration, ours",
            lambda: _explored("ours", ("booted",), ("tpp-dsa", "detach"), tables),
        ),
        (
            "exploration, tpp",
            lambda: _explored("tpp", ("booted",), ("tpp-dsa", "cpu"), tables),
        ),
        (
            "exploration, memtis",
            lambda: _explored("memtis", ("booted",), ("concurrent in its own way",), tables),
        ),
        (
            "exploration, threads",
            lambda: _explored("tpp", ("threads", "parameters"), ("tpp-multithread",), tables),
        ),
        (
            "exploration, drifted",
            lambda: _explored(
                "ours",
                ("queues on one device", "copying with 4", "tiered, copying"),
                ("tpp-dsa", "multithread", "detach"),
                tables,
            ),
        ),
    )


def ladder() -> Iterator[Mutant]:
    """Drop each act, turn each value round, let rungs change places."""
    for number, rung in enumerate(LADDER):
        for side in ("up", "down"):
            acts: tuple[Act, ...] = getattr(rung, side)
            for place, act in enumerate(acts):
                rest = (*acts[:place], *acts[place + 1 :])
                yield _rungs(f"{rung.name}, {side}: without {_name(act)}", number, side, rest)
                if isinstance(act, Put) and act.value is not None:
                    turned = (*acts[:place], Put(act.knob, 1 - act.value), *acts[place + 1 :])
                    yield _rungs(f"{rung.name}, {side}: {act.knob} turned", number, side, turned)
    for number in range(len(LADDER) - 1):
        one, two = LADDER[number], LADDER[number + 1]
        changed = (*LADDER[:number], two, one, *LADDER[number + 2 :])
        yield Mutant(
            "ladder",
            f"{two.name} before {one.name}",
            ladder_checks_of(changed, DESCENTS),
        )
    tiering = LADDER[-1]
    yield _rungs("tiering, up: reversed", len(LADDER) - 1, "up", tiering.up[::-1])
    yield _rungs("tiering, down: reversed", len(LADDER) - 1, "down", tiering.down[::-1])
    queues = next(n for n, rung in enumerate(LADDER) if rung.name == "queues")
    yield _rungs("queues, up: reversed", queues, "up", LADDER[queues].up[::-1])


def _name(act: Act) -> str:
    return act.knob if isinstance(act, Put) else act


def _rungs(change: str, number: int, side: str, acts: tuple[Act, ...]) -> Mutant:
    rung = LADDER[number]
    other = replace(rung, up=acts) if side == "up" else replace(rung, down=acts)
    changed = (*LADDER[:number], other, *LADDER[number + 1 :])
    return Mutant("ladder", change, ladder_checks_of(changed, DESCENTS))


def descents() -> Iterator[Mutant]:
    """Drop each row, and let it lead too low and not low enough."""
    low, high = LADDER[0].name, LADDER[-1].name
    for number, (change, rung, why) in enumerate(DESCENTS):
        rest = (*DESCENTS[:number], *DESCENTS[number + 1 :])
        yield Mutant("descents", f"without {change}", ladder_checks_of(LADDER, rest))
        for other in {low, high} - {rung}:
            changed = (*DESCENTS[:number], (change, other, why), *DESCENTS[number + 1 :])
            yield Mutant("descents", f"{change}: to {other}", ladder_checks_of(LADDER, changed))


def lifecycle() -> Iterator[Mutant]:
    """Change each cell: to a refusal, and to other states."""
    for (state, event), cell in TRANSITIONS.items():
        for other in (None, *STATES):
            if other == cell:
                continue
            changed = {**TRANSITIONS, (state, event): other}
            yield Mutant(
                "lifecycle",
                f"{event} in {state}: {other or 'refused'}, not {cell or 'refused'}",
                (("lifecycle", partial(lifecycle_checks.mistakes, changed)),),
            )


def requirements() -> Iterator[Mutant]:
    """Drop each requirement."""
    for one in REQUIREMENTS:
        rest = tuple(other for other in REQUIREMENTS if other is not one)
        yield Mutant(
            "requirements",
            f"without {one.__name__}",
            (("findings", partial(test_requirements.mistakes, rest)),),
        )
