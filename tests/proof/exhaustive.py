# SPDX-License-Identifier: Apache-2.0
"""The exhaustive check: all starts of all kinds of kernel, towards all profiles.

    python -m tests.proof.exhaustive [--large]

From a fresh boot every state is explored that the shipped profiles, rollback and the crash guard
can lead to, from anywhere to anywhere, each with a crash after each request. From the other
starts, and towards generated profiles, it goes one plan deep (a crash in it included) unless
``--large`` or DSATIER_PROOF=large asks for more.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from tests.proof.explore import Coverage, Explorer
from tests.support import hosts, profiles

NEVER = 1_000_000


@dataclass(frozen=True)
class Job:
    """A part of the check."""

    name: str
    kind: str
    starts: str
    """clean, drifted, unfit, harmed, behind an IOMMU, with memory offline, or eight: clean with
    eight devices."""
    generated: int
    """How many generated profiles; the shipped ones where it is 0."""
    seed: int
    depth: int


def jobs(*, large: bool) -> tuple[Job, ...]:
    """Return the parts, the longest first."""
    count, depth = (80, 2) if large else (40, 1)
    found = [
        *(Job("shipped profiles, closed", kind, "clean", 0, 0, NEVER) for kind in hosts.KINDS),
        *(Job("shipped profiles, drifted", kind, "drifted", 0, 0, depth) for kind in hosts.KINDS),
        *(Job("generated profiles", kind, "clean", count, 1, 1) for kind in hosts.KINDS),
        *(Job("shipped profiles, unfit", kind, "unfit", 0, 0, depth) for kind in hosts.KINDS),
        *(Job("generated, unfit", kind, "unfit", count // 4, 2, 1) for kind in hosts.KINDS),
        *(Job("shipped profiles, eight devices", kind, "eight", 0, 0, 0) for kind in hosts.KINDS),
        *(Job("past the IOMMU", kind, "behind", 0, 0, depth) for kind in ("ours", "tpp")),
        Job("memory that comes online", "ours", "offline", 0, 0, NEVER),
        *(Job("shipped profiles, harmed", kind, "harmed", 0, 0, depth) for kind in hosts.KINDS),
    ]
    if large:
        found += [
            *(
                Job("generated profiles", kind, "clean", count, seed, 1)
                for kind in hosts.KINDS
                for seed in range(2, 8)
            ),
            *(Job("generated, drifted", kind, "drifted", 20, 9, 1) for kind in hosts.KINDS),
            *(Job("generated, deeper", kind, "clean", 6, 10, 3) for kind in hosts.KINDS),
        ]
    return tuple(found)


def run(job: Job) -> tuple[Job, Coverage, float]:
    """Do one part; return what was covered, and the seconds that it took."""
    began = time.monotonic()
    wanted = profiles.generated(job.generated, job.seed) if job.generated else profiles.fitted()
    total = Coverage()
    if job.starts in ("harmed", "unfit"):
        # each by itself: others may have led two of them to the same state
        each = hosts.harmed_starts if job.starts == "harmed" else hosts.unfit_starts
        for start in each(job.kind):
            total.add(Explorer(wanted, depth=job.depth).explore([start]))
    elif job.starts == "behind":
        wanted = profiles.past_iommu(job.kind)
        total = Explorer(wanted, depth=job.depth).explore(list(hosts.behind(job.kind)))
    elif job.starts == "offline":
        total = Explorer(profiles.bringing(), depth=job.depth).explore(
            list(hosts.offline(job.kind))
        )
    elif job.starts == "eight":
        total = Explorer(profiles.paired(), depth=job.depth).explore([hosts.eight(job.kind)])
    elif job.starts == "clean":
        clean = [start for start in hosts.starts(job.kind) if start.clean]
        total = Explorer(wanted, depth=job.depth).explore(clean)
    else:
        drifted = [start for start in hosts.starts(job.kind) if not start.clean]
        total = Explorer(wanted, depth=job.depth).explore(drifted)
    return job, total, time.monotonic() - began


def run_all(*, large: bool) -> Iterator[tuple[Job, Coverage, float]]:
    """Do all parts, on as many CPUs as there are; yield them as they come, in order."""
    with ProcessPoolExecutor(max_workers=min(os.cpu_count() or 1, 8)) as pool:
        yield from pool.map(run, jobs(large=large))


def line(job: Job, coverage: Coverage, seconds: float) -> str:
    """Return a part's counts as a line."""
    return f"{job.kind:>6}, {job.name}: {coverage} in {seconds:.0f} s"


def main() -> int:
    """Run from the command line."""
    large = "--large" in sys.argv[1:] or os.environ.get("DSATIER_PROOF") == "large"
    total = Coverage()
    for job, coverage, seconds in run_all(large=large):
        print(line(job, coverage, seconds), flush=True)
        total.add(coverage)
    print(f" total: {total}")
    for violation in total.violations:
        print(violation)
    return 1 if total.violations else 0


if __name__ == "__main__":
    sys.exit(main())
