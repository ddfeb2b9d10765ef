# SPDX-License-Identifier: GPL-2.0-only
"""The command: words to cases, cases to a document, a document to table, JSON and picture."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from copybench import cases, measure, report
from copybench.knobs import ENDS, Refused, borrowed

FORMAT = 1
SOURCE = Path(__file__).resolve().parents[1] / "moves.c"


class Ended(BaseException):
    """Somebody asked for the end."""


def words() -> argparse.ArgumentParser:
    """Return what the command takes."""
    parser = argparse.ArgumentParser(
        prog="kernel-src/bench/run",
        description="Measure how fast this kernel copies migrating pages, by engine, folio size "
        "and length of list. Needs root and two nodes; every knob that it turns goes back.",
    )
    parser.add_argument(
        "--engines",
        default="plain,cpu,threads:2,threads:4,threads:8",
        help="plain (every knob 0, as without the patches), cpu (batches by one CPU), threads:N "
        "(N CPUs, 1 to 32), dsa:N (N channels, 1 to 8; queues must be enabled). "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--sizes",
        default="4k,64k,2m,mixed",
        help="of folios: 4k to 2m; mixed is 1,000 of 4k with 24 of 2m (default: %(default)s)",
    )
    parser.add_argument(
        "--lists",
        default="1,24,512",
        help="folios in one call of move_pages(2) (default: %(default)s)",
    )
    parser.add_argument("--mib", type=int, default=1024, help="memory to move (default: 1024)")
    parser.add_argument("--seconds", type=int, default=3, help="for each case (default: 3)")
    parser.add_argument(
        "--touchers",
        type=int,
        default=0,
        help="threads that read the memory all the while (default: 0)",
    )
    parser.add_argument(
        "--usecs",
        type=int,
        default=4000,
        help="vm.migrate_batch_usecs: µs that a first folio may wait, 0: no limit (default: 4000)",
    )
    parser.add_argument(
        "--threshold",
        type=int,
        default=1,
        help="least 4 KiB pages of a list for an engine; 1 shows where it loses (default: 1)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the document there")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a picture there")
    parser.add_argument(
        "--from", type=Path, dest="source", metavar="FILE", help="measure nothing, read a document"
    )
    parser.add_argument("--moves", type=Path, metavar="PROGRAM", help="moves, built from moves.c")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command. 0: done; 1: wrong contents, or ended early; 2: arguments; 4: not fit."""
    parser = words()
    given = parser.parse_args(argv)
    try:
        engines = [cases.engine(word) for word in given.engines.split(",")]
        sizes = [cases.size(word) for word in given.sizes.split(",")]
        lists = [cases.folios(word) for word in given.lists.split(",")]
        for name, low in (
            ("mib", 1),
            ("seconds", 0),
            ("touchers", 0),
            ("usecs", 0),
            ("threshold", 1),
        ):
            if getattr(given, name) < low:
                raise cases.Unfit(f"--{name}: expected {low} or more, found {getattr(given, name)}")
    except cases.Unfit as error:
        parser.error(str(error))
    try:
        if given.source:
            document = read(given.source)
        else:
            effort = measure.Effort(given.mib, given.seconds, given.touchers)
            wanted, left_out = cases.matrix(engines, sizes, lists, given.mib)
            document = run(wanted, left_out, effort, given)
    except Refused as error:
        print(f"bench: {error}", file=sys.stderr)
        return 4
    except Ended as error:
        print(f"bench: ended by {error}; every knob is as it was", file=sys.stderr)
        return 1
    write(document, given.json, given.svg)
    return int(any(one["wrong"] for one in document["results"]))


def read(path: Path) -> dict[str, Any]:
    """Return a document that was written before. Raises Refused."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Refused(f"{path}: {error}") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise Refused(f"{path}: expected a document of format {FORMAT}")
    return found


def run(
    wanted: list[cases.Case], left_out: list[str], effort: measure.Effort, given: argparse.Namespace
) -> dict[str, Any]:
    """Measure, and return the document. Raises Refused and Ended."""
    if os.geteuid():
        raise Refused("expected root: knobs are written, and /proc/kpageflags is read")
    if why := measure.unfit():
        raise Refused(why)
    for sign in ENDS:
        signal.signal(sign, _ended)
    results, last = [], None
    with tempfile.TemporaryDirectory() as folder, borrowed() as knobs:
        moves = given.moves or built(Path(folder))
        if not knobs.there("proc/sys/vm/migrate_batch_reasons"):
            others = sorted({str(c.engine) for c in wanted if c.engine.kind != "plain"})
            if others:
                raise Refused(
                    f"this kernel, {os.uname().release}, has not the knobs of dsatier's: expected "
                    f"--engines plain, found {', '.join(others)} as well"
                )
        for number, case in enumerate(wanted, 1):
            print(f"bench: {number}/{len(wanted)} {case.row}, {case.engine}", file=sys.stderr)
            knobs.fit_for(case)
            if last != case.engine:
                knobs.turn_to(case.engine, given.usecs, given.threshold)
                last = case.engine
            results.append(measure.measured(case, effort, moves))
    return {
        "format": FORMAT,
        "host": measure.host(),
        "effort": {
            "mib": effort.mib,
            "seconds": effort.seconds,
            "touchers": effort.touchers,
            "usecs": given.usecs,
            "threshold": given.threshold,
        },
        "left_out": left_out,
        "results": results,
    }


def built(folder: Path) -> Path:
    """Compile ``moves`` into a folder, and return it. Raises Refused."""
    found = folder / "moves"
    command = ["cc", "-static", "-O2", "-pthread", "-o", str(found), str(SOURCE)]
    try:
        ran = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    except OSError as error:
        raise Refused(f"cc: {error.strerror}: install gcc and libc6-dev, or give --moves") from None
    if ran.returncode:
        raise Refused(f"{SOURCE}: not compiled:\n{ran.stderr}")
    return found


def write(document: dict[str, Any], as_json: Path | None, as_svg: Path | None) -> None:
    """Print the table, and write what else was asked for."""
    print(report.table(document), end="")
    if as_json:
        as_json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if as_svg:
        as_svg.write_text(report.picture(document), encoding="utf-8")


def _ended(sign: int, _frame: object) -> NoReturn:
    for one in ENDS:
        signal.signal(one, signal.SIG_IGN)  # what puts the knobs back is not to be ended
    raise Ended(signal.Signals(sign).name)


if __name__ == "__main__":
    sys.exit(main())
