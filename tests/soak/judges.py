# SPDX-License-Identifier: Apache-2.0
"""What a soak must show at its end. Pure: each judge returns what is wrong, a line each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

HOUR = 3600.0
ENOUGH_POINTS, ENOUGH_SECONDS = 20, 1200.0
"""A life with fewer samples at rest, or a shorter one, does not tell whether something grows."""
WARM_UP = 600.0
"""Seconds at the start of a life in which caches fill; at most a third of the life."""
_MOST_POINTS = 400
REST = "rest"


@dataclass(frozen=True, slots=True)
class Sample:
    """What a daemon was at one moment. Memory in KiB, times in seconds since the soak began."""

    at: float
    pid: int
    phase: str
    state: str
    rss: int
    anon: int
    pss: int
    fds: int
    threads: int
    children: int
    zombies: int
    cpu: float
    """Seconds of CPU that it has used in all."""
    files: int
    """Bytes of its files in /var/lib/dsatier."""
    objects: int = 0
    """Python's objects in it; 0 where it was not asked."""
    held: int = 0
    """Bytes that it has of malloc beside those; 0 where it was not asked."""


@dataclass(frozen=True, slots=True)
class Check:
    """One heal of everything, and whether the host came to its profile after it."""

    at: float
    seconds: float
    converged: bool
    found: str
    """What was found in place of a host as its profile says; empty where it converged."""


@dataclass(frozen=True, slots=True)
class Growth:
    """How a quantity grew in the longest life, at rest and after its warm-up."""

    what: str
    unit: str
    points: int
    seconds: float
    """From the first to the last point."""
    first: float
    last: float
    median: float
    an_hour: float
    allowed: float

    @property
    def enough(self) -> bool:
        """Whether there is enough to tell."""
        return self.points >= ENOUGH_POINTS and self.seconds >= ENOUGH_SECONDS

    def __str__(self) -> str:
        return (
            f"{self.what}: {self.first:g} to {self.last:g} {self.unit}, "
            f"{self.an_hour:+.1f} an hour of {self.allowed:.1f} allowed "
            f"({self.points} samples at rest in {self.seconds / 60:.0f} min)"
        )


QUANTITIES: tuple[tuple[str, str, float, Callable[[Sample], float]], ...] = (
    ("RssAnon", "KiB", 1024.0, lambda s: s.anon),
    ("VmRSS", "KiB", 1024.0, lambda s: s.rss),
    ("Python's objects", "objects", 500.0, lambda s: s.objects),
    ("bytes of malloc", "bytes", 65536.0, lambda s: s.held),
    ("open files", "files", 20.0, lambda s: s.fds),
    ("threads", "threads", 0.5, lambda s: s.threads),
    ("own files", "bytes", 2048.0, lambda s: s.files),
)
"""Name, unit, the growth an hour that is allowed, and where it is read.

An hour is more than a thousand passes, so one object that each of them leaves is told. Resident
memory is no measure of that: it stays at the most that was needed at once, pool by pool, and
creeps with each first time that a storm brings. It is asked for what is no object of either.
"""


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the median of the slopes between all pairs (Theil and Sen).

    Outliers do not move it: of the points, 29 in 100 may be anything.

    >>> slope([(0, 1), (1, 3), (2, 5), (3, 700), (4, 9)])
    2.0
    """
    step = -(-len(points) // _MOST_POINTS) or 1
    slopes = [
        (b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points[::step], 2) if b[0] > a[0]
    ]
    return statistics.median(slopes) if slopes else 0.0


def longest_life(samples: Iterable[Sample]) -> list[Sample]:
    """Return the samples of the process that was seen longest."""
    lives: dict[int, list[Sample]] = {}
    for sample in samples:
        lives.setdefault(sample.pid, []).append(sample)
    return max(lives.values(), key=lambda life: life[-1].at - life[0].at, default=[])


def at_rest(life: Sequence[Sample]) -> list[Sample]:
    """Return a life's samples at rest after its warm-up."""
    if not life:
        return []
    warm = life[0].at + min(WARM_UP, (life[-1].at - life[0].at) / 3)
    return [sample for sample in life if sample.phase == REST and sample.at >= warm]


def growths(samples: Sequence[Sample]) -> list[Growth]:
    """Return how each quantity grew in the longest life."""
    rest = at_rest(longest_life(samples))
    if not rest:
        return []
    found = []
    for what, unit, allowed, read in QUANTITIES:
        points = [(sample.at, float(value)) for sample in rest if (value := read(sample))]
        if not points:
            continue
        values = [value for _, value in points]
        median = statistics.median(values)
        an_hour = slope(points) * HOUR
        seconds = points[-1][0] - points[0][0]
        found.append(
            Growth(
                what, unit, len(points), seconds, values[0], values[-1], median, an_hour, allowed
            )
        )
    return found


def enough(found: Sequence[Growth]) -> bool:
    """Tell whether there is enough to judge each quantity by."""
    return len(found) == len(QUANTITIES) and all(one.enough for one in found)


def flat(samples: Sequence[Sample], *, must: bool) -> list[str]:
    """Judge that nothing grows. ``must``: too few samples to tell is wrong, too."""
    found = growths(samples)
    if not enough(found):
        return ["too few samples at rest to tell whether anything grows"] if must else []
    return [f"grows: {one}" for one in found if one.an_hour > one.allowed]


def converges(checks: Sequence[Check]) -> list[str]:
    """Judge that the host came to its profile each time that all was healed, also at the end."""
    if not checks:
        return ["the host was never healed and asked to converge"]
    return [
        f"not converged {check.seconds:.0f} s after all was healed, at {check.at:.0f} s: "
        f"{check.found}"
        for check in checks
        if not check.converged
    ]


def buries(samples: Sequence[Sample], hung: Iterable[int] = ()) -> list[str]:
    """Judge that no dead child of a daemon is left at rest.

    ``hung``: processes with a write in the kernel that never returns, which is not theirs.
    """
    excused = set(hung)
    left = {s.pid: s for s in samples if s.phase == REST and s.zombies and s.pid not in excused}
    return [
        f"{s.zombies} dead children of process {pid} at {s.at:.0f} s" for pid, s in left.items()
    ]


def tidy(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Judge that dsatier left no file but those that it is known to keep."""
    return [f"left over: {name}" for name in sorted(set(names) - set(known))]


def harmless(lines: Sequence[str]) -> list[str]:
    """Judge that no write of dsatier's hurt the host."""
    return [f"harm: {line}" for line in lines]


def lively(silences: Iterable[tuple[float, float]], allowed: float) -> list[str]:
    """Judge that the service manager's watchdog would never have ended the daemon.

    ``silences``: when each of the longest ended, and how long it was, in seconds.
    """
    return [
        f"no sign of life for {seconds:.0f} s of {allowed:.0f} s allowed, at {at:.0f} s"
        for at, seconds in silences
        if seconds > allowed
    ]


def untrue(profile: str, code: int, said: str) -> str:
    """Judge the answer to a reload by what the files hold; empty where it may be true.

    ``profile`` is valid, unreachable, invalid, foreign or none.
    """
    nobody = said.startswith("no-profile")
    if profile == "invalid" and code == 0:
        return f"a reload of an invalid profile ends with 0: {said}"
    if profile == "unreachable" and code == 0:
        return f"a reload of a profile that is out of reach ends with 0: {said}"
    if profile in ("valid", "unreachable") and nobody:
        return f"a reload says that no profile applies where one does: {said}"
    if profile in ("foreign", "none") and code == 0 and not nobody:
        return f"a reload says that a profile is in force where none is: {said}"
    return ""
