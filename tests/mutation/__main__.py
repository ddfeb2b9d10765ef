# SPDX-License-Identifier: Apache-2.0
"""Run all mutants: ``python -m tests.mutation``. Exits 1 where one survives."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import cache

from tests.mutation import mutants, orders

Row = tuple[str, str, str]
"""Table, change, and the check that caught it: empty where none did."""


@cache
def every() -> tuple[mutants.Mutant, ...]:
    """Return all mutants that must be caught."""
    return (*mutants.every(), *orders.every())


def _seen(name: str) -> str:
    """Return which check catches an equivalent mutant, empty where it is one."""
    found = next(m for m in orders.equivalent() if m.change == name).caught()
    return found[0] if found else ""


def judge(number: int) -> Row:
    """Judge the mutant of that number."""
    mutant = every()[number]
    found = mutant.caught()
    return mutant.table, mutant.change, found[0] if found else ""


def run() -> list[Row]:
    """Judge all mutants, on every CPU."""
    count = len(every())
    with ProcessPoolExecutor() as pool:
        return list(pool.map(judge, range(count), chunksize=4))


def summary(rows: Iterable[Row]) -> str:
    """Return the summary line."""
    caught = [bool(check) for _, _, check in rows]
    return f"{len(caught)} mutants, {sum(caught)} caught"


def survivors(rows: Iterable[Row]) -> list[str]:
    """Return the mutants that no check caught."""
    return [f"{table}: {change}" for table, change, caught in rows if not caught]


def main() -> int:
    """Run from the command line."""
    rows = run()
    for table, change, caught in rows:
        print(f"{table:<13} {change:<64} {caught or 'SURVIVES'}")
    with ProcessPoolExecutor() as pool:
        seen = dict(zip(orders.EQUIVALENT, pool.map(_seen, orders.EQUIVALENT), strict=True))
    for change, check in seen.items():
        verdict = f"IS CAUGHT: {check}" if check else f"same: {orders.EQUIVALENT[change]}"
        print(f"{'ladder':<13} {change:<64} {verdict}")
    for survivor in survivors(rows):
        print(f"survives: {survivor}")
    print(summary(rows))
    return 1 if survivors(rows) or any(seen.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
