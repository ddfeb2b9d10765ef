# SPDX-License-Identifier: Apache-2.0
"""What a benchmark found: rows, as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

UNITS = {"s": (1e3, "ms"), "bytes": (1e-6, "MB"), "%": (1.0, "% of a CPU")}
"""How figures in SI units are shown: a factor, and a unit."""
_LABEL, _LONGEST, _BAR, _TURN = 250, 380, 9, 34
"""Pixels: the column of labels, the longest bar, the height of a bar and of a pair."""


class Row(NamedTuple):
    """One line of the table."""

    what: str
    found: str
    target: str
    """``-`` where there is none."""
    met: bool
    pair: tuple[float, float] | None = None
    """dsatier's figure and TuneD's, in SI units."""


def digits(figure: float) -> str:
    """Return a figure with three digits that count.

    >>> [digits(f) for f in (0.04567, 1.2345, 21.06, 598.4)]
    ['0.0457', '1.23', '21.1', '598']
    """
    if not figure:
        return "0"
    return f"{figure:.{max(0, 2 - math.floor(math.log10(abs(figure))))}f}"


def shown(figure: float, unit: str) -> str:
    """Return a figure in the unit in which it is shown.

    >>> shown(0.0316, "s"), shown(19_073_000, "bytes")
    ('31.6 ms', '19.1 MB')
    """
    factor, name = UNITS[unit]
    return f"{digits(figure * factor)} {name}"


def beside(what: str, unit: str, ours: float, theirs: float, limit: float = 1.0) -> Row:
    """Return the row of two figures, of which ours is to be at most ``limit`` of theirs.

    >>> beside("resident", "bytes", 19.1e6, 28.7e6, 0.8)[:4]
    ('resident', '0.67 (19.1 MB / 28.7 MB)', '≤ 0.8', True)
    """
    ratio = ours / theirs
    found = f"{ratio:.2f} ({shown(ours, unit)} / {shown(theirs, unit)})"
    target = "< 1" if limit == 1.0 else f"≤ {limit:g}"
    return Row(what, found, target, ratio < 1 if limit == 1.0 else ratio <= limit, (ours, theirs))


def at_most(what: str, unit: str, found: Sequence[float], limit: float) -> Row:
    """Return the row of a figure whose median is to be at most ``limit``.

    >>> at_most("idle", "%", [0.02, 0.03, 0.05], 0.1)[:4]
    ('idle', '0.0300 % of a CPU (best 0.0200)', '≤ 0.1', True)
    """
    median, best = sorted(found)[len(found) // 2], min(found)
    factor, _ = UNITS[unit]
    words = f"{shown(median, unit)} (best {digits(best * factor)})"
    return Row(what, words, f"≤ {limit * factor:g}", median <= limit)


def verdict(row: Row) -> str:
    """Return whether a row's target is met, empty where it has none."""
    return "" if row.target == "-" else "met" if row.met else "MISSED"


def table(rows: Iterable[Row]) -> str:
    """Return rows as a table for a terminal."""
    lines = [(row.what, row.found, row.target, verdict(row)) for row in rows]
    widths = [max(len(line[n]) for line in lines) for n in range(4)]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def as_json(rows: Iterable[Row]) -> str:
    """Return rows as a JSON array."""
    return json.dumps([row._asdict() for row in rows], ensure_ascii=False)


def picture(rows: Iterable[Row]) -> str:
    """Return the rows that have a pair as bars, TuneD's all of one length, as SVG."""
    pairs = [(row, *row.pair) for row in rows if row.pair is not None]
    most = max(1.0, *(ours / theirs for _, ours, theirs in pairs))
    scale = _LONGEST / most
    width, height = _LABEL + _LONGEST + 20, _TURN * len(pairs) + 40
    parts = [
        "<!-- SPDX-License-Identifier: Apache-2.0 -->",
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="{_LABEL}" y="18"><tspan fill="#2563a8">■ dsatier</tspan>'
        '<tspan dx="14" fill="#999">■ TuneD 2.20 = 1, shorter is better</tspan></text>',
    ]
    for number, (row, ours, theirs) in enumerate(pairs):
        top = 32 + number * _TURN
        parts += [
            f'<text x="{_LABEL - 10}" y="{top + 13}" text-anchor="end">{escape(row.what)}</text>',
            _bar(top, scale * ours / theirs, "#2563a8"),
            _bar(top + _BAR + 1, scale, "#bbb"),
            f'<text x="{_LABEL + 4 + max(0, scale * ours / theirs):.0f}" y="{top + 9}" '
            f'font-size="10" fill="#2563a8">{ours / theirs:.2f}</text>',
        ]
    return "\n".join((*parts, "</svg>", ""))


def _bar(top: int, length: float, colour: str) -> str:
    size = f'width="{max(length, 1):.0f}" height="{_BAR}"'
    return f'<rect x="{_LABEL}" y="{top}" {size} fill="{colour}"/>'
