# SPDX-License-Identifier: Apache-2.0
"""``make fuzz``: spoilt files of each kind and spoilt orders, until a time is over.

    python -m tests.fuzz [--minutes M] [--seed N] [--kind KIND]... [--findings FOLDER]
    python -m tests.fuzz --replay FOLDER/KIND-NUMBER     plays a finding's case again

The exit code is 1 where something was found. A finding is a folder with the case's files, its
words, and what was wrong. Kinds: those of tests/fuzz/kinds.py, and ``orders``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from tests.fuzz.kinds import KINDS, Case
from tests.fuzz.orders import Daemon, order
from tests.fuzz.play import Found, play

ORDERS = "orders"
TURN = 25
"""Cases of a kind before it is another's turn."""
EVERY = 10.0
"""Seconds between two lines of progress."""


def kept(case: Case, found: Found, folder: Path) -> None:
    """Keep a finding."""
    for name, data in case.files.items():
        file = folder / "files" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "words.json").write_text(json.dumps(case.words), encoding="utf-8")
    (folder / "found.txt").write_text(f"{found.what}\n\n{found.said}\n", encoding="utf-8")


def again(folder: Path) -> Found | None:
    """Play the case of a finding."""
    files = folder / "files"
    paths = [path for path in files.rglob("*") if path.is_file()]
    named = {path.relative_to(files).as_posix(): path.read_bytes() for path in paths}
    words = json.loads((folder / "words.json").read_text(encoding="utf-8"))
    return play(Case(named, tuple(words)))


def file_cases(kind: str, number: int, seed: int, findings: Path) -> list[str]:
    """Play a turn of cases of a kind; return what was found."""
    said = []
    for n in range(number, number + TURN):
        case = KINDS[kind](Random(f"{seed} {kind} {n}"))
        if found := play(case):
            kept(case, found, findings / f"{kind}-{n}")
            said.append(f"{kind} {n}: {found.what}: {found.said.splitlines()[-1][:160]}")
    return said


def order_cases(number: int, seed: int, findings: Path) -> list[str]:
    """Give a turn of orders to a new daemon; return what was found."""
    lines = [order(Random(f"{seed} {ORDERS} {n}")) for n in range(number, number + TURN)]
    with tempfile.TemporaryDirectory(prefix="dsatier-fuzz-") as folder, Daemon(Path(folder)) as one:
        found = one.ready()
        for n, line in enumerate(lines, number):
            if found is None:
                one.hears(line)
                found = one.wrong()
            if found is not None:
                case = Case({"order": b"".join(lines[: n - number + 1])}, ())
                kept(case, found, findings / f"{ORDERS}-{n}")
                return [f"{ORDERS} {n}: {found.what}"]
    return []


def main(argv: list[str] | None = None) -> int:
    """Spoil and play until the time is over."""
    parser = argparse.ArgumentParser(prog="fuzz", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", action="append", choices=[*KINDS, ORDERS])
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--replay", type=Path)
    options = parser.parse_args(argv)
    if options.replay:
        found = again(options.replay)
        print(f"{found.what}\n{found.said}" if found else "nothing is wrong any more")
        return 1 if found else 0
    began = told = time.monotonic()
    end = began + options.minutes * 60
    counts = dict.fromkeys(options.kind or [*KINDS, ORDERS], 0)
    findings: list[str] = []
    while time.monotonic() < end:
        for kind in counts:
            turn = (counts[kind], options.seed, options.findings)
            new = order_cases(*turn) if kind == ORDERS else file_cases(kind, *turn)
            counts[kind] += TURN
            findings += new
            for line in new:
                print(f"found: {line}", flush=True)
            if time.monotonic() >= end:
                break
            if time.monotonic() - told > EVERY:
                told = time.monotonic()
                print(
                    f"{told - began:.0f} s, {len(findings)} found; {_counted(counts)}", flush=True
                )
    print(f"fuzz: {sum(counts.values())} cases, {len(findings)} found; {_counted(counts)}")
    return 1 if findings else 0


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{kind} {number}" for kind, number in counts.items())


if __name__ == "__main__":
    sys.exit(main())
