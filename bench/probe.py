# SPDX-License-Identifier: Apache-2.0
"""Times a service from within its container: ``python3 probe.py TASK``, the task as JSON.

It needs Python and nothing else, and prints what it found as JSON. Commands that come in from
outside would pay for the way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LOOK = 0.001
"""Seconds between two looks at the files: less than what is told apart."""
PATIENCE = 60.0


def holds(wanted: dict[str, str]) -> bool:
    """Tell whether each file reads as wanted."""
    for path, text in wanted.items():
        with open(path, encoding="ascii") as stream:
            if stream.read().strip() != text:
                return False
    return True


def put(files: dict[str, str]) -> None:
    """Write to files that are there, as a kernel's files are written to."""
    for path, text in files.items():
        Path(path).write_text(text + "\n", encoding="ascii")


def timed(command: list[str], wanted: dict[str, str]) -> dict[str, float]:
    """Run a command, if there is one; return the seconds to its end and to what is wanted."""
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL) if command else None
    returned = None if process else 0.0
    applied = None
    while returned is None or applied is None:
        now = time.monotonic() - began
        if applied is None and holds(wanted):
            applied = time.monotonic() - began
        if process is not None and returned is None and process.poll() is not None:
            if process.returncode:
                raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
            returned = time.monotonic() - began
        if now > PATIENCE:
            raise SystemExit(f"{' '.join(command) or 'drift'}: not in {PATIENCE:g} s: {wanted}")
        time.sleep(LOOK)
    return {"returned": returned, "applied": applied}


def used(process: int) -> float:
    """Return the CPU seconds of a process, its threads, and its children that ended."""
    threads = [f"/proc/{process}/task/{one}" for one in os.listdir(f"/proc/{process}/task")]
    own = sum(int(Path(one, "schedstat").read_text(encoding="ascii").split()[0]) for one in threads)
    after_name = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2]
    children = sum(map(int, after_name.split()[13:15])) / os.sysconf("SC_CLK_TCK")
    return own / 1e9 + children


def idle(process: int, seconds: float) -> dict[str, float]:
    """Return the share of one CPU, in percent, that a process takes while nobody asks it."""
    began, before = time.monotonic(), used(process)
    time.sleep(seconds)
    return {"percent": 100 * (used(process) - before) / (time.monotonic() - began)}


def main() -> None:
    """Do one task."""
    task: dict[str, Any] = json.loads(sys.argv[1])
    if "idle" in task:
        found = idle(task["process"], task["idle"])
    else:
        put(task["put"])
        if task.get("pause"):
            time.sleep(task["pause"])
        put(task.get("drift", {}))
        found = timed(task["command"], task["wanted"])
    print(json.dumps(found))


if __name__ == "__main__":
    main()
