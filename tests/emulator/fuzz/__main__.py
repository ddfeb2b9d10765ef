# SPDX-License-Identifier: Apache-2.0
"""Fuzzing of the emulated DSA over qtest.

::

    python -m tests.emulator.fuzz BINARY [--minutes M] [--seed N] [--findings FOLDER]
    python -m tests.emulator.fuzz BINARY --replay FILE [--minimise]
    python -m tests.emulator.fuzz BINARY --guest [--minutes M] [--seed N]

A finding is a JSON file with the device and the orders; it is replayed, and made smaller. With
``--guest`` a program in a guest with Linux does it (root is needed); what it finds it prints.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path

from tests.emulator.fuzz.guest import attacks
from tests.emulator.fuzz.orders import case, smaller
from tests.emulator.fuzz.play import SETUPS, Found, Setup, bench, fails
from vm.guest import GuestError

#: Cases that one machine takes: a machine that lives long shows what a fresh one does not.
CASES = 40


def hunt(
    binary: str, seed: int, seconds: float, folder: Path, words: tuple[str, ...] = ()
) -> tuple[int, list[Path]]:
    """Play cases from a seed on; returns how many, and a file for each finding."""
    end = time.monotonic() + seconds
    played, found = 0, []
    while time.monotonic() < end:
        setup = SETUPS[seed // CASES % len(SETUPS)]
        history = []
        with bench(binary, setup, words) as machine:
            for number in range(seed, seed + CASES):
                history.append(case(number))
                try:
                    machine.play(history[-1])
                except Found as wrong:
                    path = folder / f"case-{number}.json"
                    whole = {**setup._asdict(), "orders": history[-1], "what": str(wrong)}
                    if not fails(binary, setup, history[-1], words):
                        whole["orders"] = [order for orders in history for order in orders]
                    folder.mkdir(parents=True, exist_ok=True)
                    path.write_text(json.dumps(whole, indent=1) + "\n")
                    found.append(path)
                    break
                finally:
                    played += 1
                if time.monotonic() >= end:
                    break
        seed += CASES
    return played, found


def besiege(binary: str, seed: int, seconds: float) -> int:
    """Attack from within guests; returns 1 where the emulator or the device gives in."""
    done: Counter[str] = Counter()
    failure = ""
    try:
        for counted in attacks(Path(binary), seed, seconds):
            done.update({"attacks": 1, **counted})
    except GuestError as wrong:
        failure = f"attack {done['attacks'] + 1} from seed {seed}: {wrong}"
    print(", ".join(f"{value} {name}" for name, value in done.items()))
    print(failure or "nothing went wrong")
    return 1 if failure else 0


def main() -> int:
    """Run the command; returns its exit code: 1 for a finding."""
    parser = argparse.ArgumentParser(prog="fuzz")
    parser.add_argument("binary")
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--replay", type=Path)
    parser.add_argument("--minimise", action="store_true")
    parser.add_argument("--guest", action="store_true")
    parser.add_argument("--firmware", help="QEMU's -L, for a binary that was not installed")
    asked = parser.parse_args()
    words = ("-L", asked.firmware) if asked.firmware else ()
    if asked.guest:
        return besiege(asked.binary, asked.seed, asked.minutes * 60)
    if not asked.replay:
        played, found = hunt(asked.binary, asked.seed, asked.minutes * 60, asked.findings, words)
        print(f"{played} cases from seed {asked.seed}, {len(found)} findings")
        for path in found:
            print(f"    {path}: {json.loads(path.read_text())['what'].splitlines()[0]}")
        return 1 if found else 0
    kept = json.loads(asked.replay.read_text())
    setup, orders = Setup(kept["device"], kept.get("iommu", "")), kept["orders"]
    what = fails(asked.binary, setup, orders, words)
    if what and asked.minimise:
        orders = smaller(orders, lambda fewer: bool(fails(asked.binary, setup, fewer, words, 1)))
        what = fails(asked.binary, setup, orders, words) or what
        small = {**setup._asdict(), "orders": orders, "what": what}
        path = asked.replay.with_suffix(".small.json")
        path.write_text(json.dumps(small, indent=1) + "\n")
        print(f"{len(orders)} orders: {path}")
    print(what or "nothing goes wrong")
    return 1 if what else 0


if __name__ == "__main__":
    sys.exit(main())
