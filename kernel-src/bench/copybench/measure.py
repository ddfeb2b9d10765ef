# SPDX-License-Identifier: GPL-2.0-only
"""Runs the program ``moves`` and reads the kernel's counters around it."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from copybench.cases import Case, size_text
from copybench.knobs import Refused


@dataclass(frozen=True, slots=True)
class Effort:
    """How much a case may take."""

    mib: int
    seconds: int
    touchers: int


def unfit(root: Path = Path("/")) -> str:
    """Return why nothing can be measured on this host, empty where it can."""
    for number in (0, 1):
        memory = root / f"sys/devices/system/node/node{number}/meminfo"
        if not memory.exists():
            return f"node {number} is not there: expected two nodes with memory"
        if re.search(r"MemTotal:\s+0 kB", memory.read_text(encoding="ascii")):
            return f"node {number} has no memory: expected two nodes with memory"
    if not (root / "proc/kpageflags").exists():
        return "/proc/kpageflags is not there: expected a kernel with PROC_PAGE_MONITOR"
    lock = root / "run/dsatier/lock"
    if lock.exists():
        with lock.open("r", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return "dsatier keeps this host's knobs: systemctl stop dsatier, and start it after"
    return ""


def measured(case: Case, effort: Effort, moves: Path) -> dict[str, Any]:
    """Measure a case, and return what came out as a JSON object. Raises Refused."""
    before = counters()
    began = time.monotonic()
    words = [str(moves), str(case.size or "mixed"), str(case.folios)]
    words += [str(effort.mib), str(effort.seconds), str(effort.touchers)]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise Refused(
            f"{case.engine}, {case.row}: {ran.stderr.strip() or f'ended with {ran.returncode}'}"
        )
    found: dict[str, Any] = json.loads(ran.stdout)
    if found["whole"] != found["folios"]:
        raise Refused(
            f"{case.row}: expected {found['folios']} folios of {size_text(case.size or 2 << 20)}, "
            f"found {found['whole']}: free more memory on node 0, or compact it"
        )
    after = counters()
    grown = {name: after[name] - before.get(name, 0) for name in after}
    return {
        "engine": str(case.engine),
        "size": case.size,
        "list": case.folios,
        "row": case.row,
        **found,
        "lists": grown.get("migrate_copy_lists"),
        "copied": {
            name: grown[f"migrate_copy_{name}"]
            for name in ("cpu", "threads", "dsa")
            if f"migrate_copy_{name}" in grown
        },
        "seconds": time.monotonic() - began,
    }


def counters() -> dict[str, int]:
    """Return /proc/vmstat."""
    lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    return {name: int(value) for name, value in (line.split() for line in lines)}


def host() -> dict[str, Any]:
    """Return what the figures were taken on."""
    cpu = re.search(r"^model name\s*: *(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    nodes = {}
    for number in (0, 1):
        folder = Path(f"/sys/devices/system/node/node{number}")
        total = re.search(r"MemTotal:\s+(\d+) kB", (folder / "meminfo").read_text())
        nodes[f"node{number}"] = {
            "cpus": (folder / "cpulist").read_text().strip(),
            "mib": int(total[1]) >> 10 if total else 0,
        }
    return {
        "kernel": platform.release(),
        "cpu": cpu[1] if cpu else "unknown",
        "cpus": os.cpu_count(),
        **nodes,
    }
