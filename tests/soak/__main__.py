# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.soak --minutes 60 --seed 1 --report DIR``: let a daemon live under storms.

The exit code is 0 where all judges are content. The report folder takes ``acts.jsonl`` (each act
with its time), ``daemon.log``, ``samples.jsonl``, ``summary.json``, ``summary.txt`` and
``soak.svg``. As root and with /dev/fuse the daemon finds files (``--tree``), else ``--sim``.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.soak.report import can_mount, written
from tests.soak.soak import Soak, claimed


def main(argv: list[str] | None = None) -> int:
    """Run a soak and return whether it went wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, required=True, help="a folder; it is made")
    parser.add_argument("--host", default="dsa8", help="a shipped host with eight DSA devices")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--tree", action="store_true", help="a kernel behind FUSE; needs root")
    kind.add_argument("--sim", action="store_true", help="a kernel inside the daemon")
    options = parser.parse_args(argv)
    tree = options.tree or (not options.sim and can_mount())
    options.report.mkdir(parents=True, exist_ok=True)
    try:
        log = claimed(options.report)
    except BlockingIOError:
        parser.error(f"{options.report}: another soak writes there; name another folder")
    work = Path(tempfile.mkdtemp(prefix="dsatier-soak-"))
    print(f"a soak of {options.minutes:g} min, seed {options.seed}, on {work}", flush=True)
    soak = Soak(
        tree=tree,
        host=options.host,
        minutes=options.minutes,
        seed=options.seed,
        report=options.report,
        log=log,
        work=work,
    )
    try:
        soak.life()
    finally:
        print(written(soak, options.report), flush=True)
    shutil.rmtree(work)
    return 1 if soak.failures else 0


if __name__ == "__main__":
    # what it mounted and started goes with it, whoever ends it
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main())
