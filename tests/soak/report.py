# SPDX-License-Identifier: Apache-2.0
"""What a soak leaves for people and programs to read."""

from __future__ import annotations

import json
import os
import shutil
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dsatier.host.files import PATH
from tests.soak import judges
from tests.soak.picture import picture
from tests.soak.soak import Soak


def can_mount() -> bool:
    """Tell whether this machine can show a simulated host as files."""
    return (
        os.geteuid() == 0
        and os.access("/dev/fuse", os.R_OK | os.W_OK)
        and shutil.which("accel-config", path=PATH) is not None
    )


def summary(soak: Soak) -> dict[str, Any]:
    """Return the figures of a soak."""
    took = [check.seconds for check in soak.checks if check.converged]
    life = judges.longest_life(soak.samples)
    return {
        "schema_version": 1,
        "verdict": "failed" if soak.failures else "passed",
        "failures": soak.failures,
        "seed": soak.seed,
        "host": soak.host,
        "kernel": "behind files" if soak.tree else "inside the daemon",
        "seconds": round(soak.clock(), 1),
        "acts": dict(sorted(soak.counts.items())),
        "codes": dict(sorted(soak.codes.items())),
        "checks": len(soak.checks),
        "converged": len(took),
        "seconds_to_converge": {
            "median": round(statistics.median(took), 2) if took else None,
            "longest": round(max(took), 2) if took else None,
        },
        "starts": soak.service.starts,
        "ends": [[round(at, 1), how] for at, how in soak.ends],
        "longest_life_seconds": round(life[-1].at - life[0].at, 1) if life else 0,
        "cpu_share": (
            round((life[-1].cpu - life[0].cpu) / (life[-1].at - life[0].at), 4)
            if len(life) > 1
            else None
        ),
        "growth": [asdict(one) | {"says": str(one)} for one in judges.growths(soak.samples)],
        "most": {
            name: max((getattr(s, name) for s in soak.samples), default=0)
            for name in ("rss", "anon", "fds", "children", "zombies", "threads")
        },
        "silences": soak.service.silences,
    }


def in_words(found: dict[str, Any]) -> str:
    """Return a summary for people."""
    acts = ", ".join(f"{count} {name}" for name, count in found["acts"].items())
    ends: dict[str, int] = {}
    for _, how in found["ends"]:
        ends[how] = ends.get(how, 0) + 1
    lines = [
        f"{found['verdict']}: {found['seconds'] / 60:.1f} min on {found['host']}, its kernel "
        f"{found['kernel']}, seed {found['seed']}",
        f"acts: {sum(found['acts'].values())} ({acts})",
        f"daemons: {found['starts']}; ended by {ends}; the longest lived "
        f"{found['longest_life_seconds'] / 60:.0f} min and used {found['cpu_share']} of a CPU",
        f"converged {found['converged']} of {found['checks']} times after all was healed, in "
        f"{found['seconds_to_converge']['median']} s (median), "
        f"{found['seconds_to_converge']['longest']} s at most",
        *(one["says"] for one in found["growth"]),
        *(f"WRONG {failure}" for failure in found["failures"]),
    ]
    return "\n".join(lines) + "\n"


def written(soak: Soak, folder: Path) -> str:
    """Write all of it into ``folder``, and return it in words."""
    found = summary(soak)
    words = in_words(found)
    (folder / "summary.json").write_text(json.dumps(found, indent=2) + "\n")
    (folder / "summary.txt").write_text(words)
    with (folder / "samples.jsonl").open("w") as stream:
        stream.writelines(json.dumps(asdict(sample)) + "\n" for sample in soak.samples)
    title = words.partition("\n")[0]
    (folder / "soak.svg").write_text(
        picture(title, soak.samples, soak.phases, soak.checks, soak.ends)
    )
    return words
