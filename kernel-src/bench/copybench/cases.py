# SPDX-License-Identifier: GPL-2.0-only
"""What is measured: engines, folio sizes, lengths of lists. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["plain", "cpu", "threads", "dsa"]
KINDS: dict[str, tuple[Kind, int, int]] = {
    "plain": ("plain", 0, 0),
    "cpu": ("cpu", 0, 0),
    "threads": ("threads", 1, 32),
    "dsa": ("dsa", 1, 8),
}
"""Each kind, with the least and the most CPUs or channels; 0: it takes no number."""
BASE_PAGE = 4096
HUGE_PAGE = 2 << 20
MIXED = 0
"""Stands for the size of a list of 1,000 pages of 4 KiB and 24 of 2 MiB."""
MIXED_FOLIOS = 1024
_UNITS = {"k": 1 << 10, "m": 1 << 20}


class Unfit(ValueError):
    """A word that means nothing here. The message says what was expected."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Who copies."""

    kind: Kind
    count: int = 0
    """CPUs of ``threads``, channels of ``dsa``."""

    def __str__(self) -> str:
        """As it is asked for, and as it heads a column."""
        return f"{self.kind}:{self.count}" if self.count else self.kind


@dataclass(frozen=True, slots=True)
class Case:
    """One measurement."""

    engine: Engine
    size: int
    """Bytes of a folio; MIXED."""
    folios: int
    """In one call of move_pages(2)."""

    @property
    def row(self) -> str:
        """What heads its row: list and size."""
        if self.size == MIXED:
            return "1,000 x 4 KiB + 24 x 2 MiB"
        return f"{self.folios:,} x {size_text(self.size)}"

    @property
    def bytes(self) -> int:
        """In one call."""
        if self.size == MIXED:
            return 1000 * BASE_PAGE + 24 * HUGE_PAGE
        return self.folios * self.size


def engine(word: str) -> Engine:
    """Return the engine that a word names. Raises Unfit.

    >>> engine("threads:4")
    Engine(kind='threads', count=4)
    """
    name, colon, count = word.partition(":")
    if name not in KINDS:
        raise Unfit(f"engine: expected {', '.join(KINDS)}, found {word}")
    kind, low, high = KINDS[name]
    if not high:
        if colon:
            raise Unfit(f"engine {name}: expected no number, found {word}")
        return Engine(kind)
    if not (count.isascii() and count.isdecimal() and low <= int(count) <= high):
        raise Unfit(f"engine {name}: expected {name}:N, N from {low} to {high}, found {word}")
    return Engine(kind, int(count))


def size(word: str) -> int:
    """Return the bytes of a folio that a word names, MIXED for ``mixed``. Raises Unfit.

    >>> size("64k")
    65536
    """
    if word == "mixed":
        return MIXED
    match = re.fullmatch(r"(\d{1,4})([km])", word.lower(), re.ASCII)
    found = int(match[1]) * _UNITS[match[2]] if match else 0
    if not BASE_PAGE <= found <= HUGE_PAGE or found & (found - 1):
        raise Unfit(f"size: expected a power of two from 4k to 2m, or mixed, found {word}")
    if found == 2 * BASE_PAGE:
        raise Unfit("size: expected 4k, or 16k to 2m: anonymous memory has no folios of 8k")
    return found


def size_text(found: int) -> str:
    """Return a size in words.

    >>> size_text(65536), size_text(2 << 20)
    ('64 KiB', '2 MiB')
    """
    return f"{found >> 20} MiB" if found >= 1 << 20 else f"{found >> 10} KiB"


def folios(word: str) -> int:
    """Return how many folios a word asks for. Raises Unfit."""
    if not (word.isascii() and word.isdecimal() and 1 <= int(word) <= 1 << 20):
        raise Unfit(f"list: expected a number of folios from 1 to {1 << 20}, found {word}")
    return int(word)


def matrix(
    engines: list[Engine], sizes: list[int], lists: list[int], mib: int
) -> tuple[list[Case], list[str]]:
    """Return all cases that fit into so much memory, by size, list and engine; and what does not.

    A mixed list has its own length, so there is one of it.
    """
    cases, left_out = [], []
    for one in sizes:
        for length in [MIXED_FOLIOS] if one == MIXED else lists:
            case = Case(engines[0], one, length)
            # what alternates begins at huge pages
            needed = case.bytes + (HUGE_PAGE if one == MIXED else 0)
            if needed > mib << 20:
                left_out.append(f"{case.row}: {needed >> 20} MiB, more than --mib {mib}")
                continue
            cases += [Case(who, one, length) for who in engines]
    return cases, left_out
