# SPDX-License-Identifier: Apache-2.0
"""The recorded tour as a picture: who copied, each device's share, and the rung. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, TOP = 1000, 96, 120, 62
HEIGHT, GAP = 130, 44
DEVICES = ("#1d4ed8", "#0891b2", "#059669", "#65a30d", "#ca8a04", "#dc2626", "#c026d3", "#6d28d9")
ALL, CPU, RUNG = "#1d4ed8", "#c2410c", "#374151"
Line = tuple[str, str, Sequence[float]]
"""Its name, its colour and its values."""


def picture(record: dict[str, Any], rungs: Sequence[str]) -> str:
    """Return the SVG. ``rungs`` are their names from the ground, which has none."""
    samples, steps = record["samples"], record["steps"]
    times = [float(sample["at"]) for sample in samples]
    devices = [[sample["devices"][n] / (1 << 20) for sample in samples] for n in range(8)]
    copied: list[Line] = [
        ("all devices", ALL, [sum(values) for values in zip(*devices, strict=True)]),
        ("CPUs", CPU, [sample["cpu"] / (1 << 20) for sample in samples]),
    ]
    shares: list[Line] = [(f"dsa{n}", DEVICES[n], values) for n, values in enumerate(devices)]
    climb: list[Line] = [("", RUNG, [float(sample["rung"]) for sample in samples])]
    below = TOP + 3 * (HEIGHT + GAP)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {below}" width="{WIDTH}" '
        'font-family="sans-serif" font-size="12">',
        "<!-- SPDX-License-Identifier: Apache-2.0 -->",
        f"<title>The tour on {escape(record['release'])}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, step in enumerate(steps):
        at = x(step["at"], times)
        out.append(f'<path d="M{at} {TOP - 8}V{below - GAP}" stroke="#d1d5db"/>')
        # names that begin near one another stand on three lines
        out.append(f'<text x="{at}" y="{16 + number % 3 * 15}">{escape(step["name"])}</text>')
    out += chart("MiB copied so far, by whom", copied, times, TOP)
    out += chart("MiB copied so far by each device", shares, times, TOP + HEIGHT + GAP)
    out += chart("rung", climb, times, TOP + 2 * (HEIGHT + GAP), marks=rungs)
    return "\n".join([*out, "</svg>", ""])


def x(at: float, times: Sequence[float]) -> float:
    """Return where a moment is."""
    return round(LEFT + at / times[-1] * (WIDTH - LEFT - RIGHT), 1)


def chart(
    title: str,
    lines: Sequence[Line],
    times: Sequence[float],
    top: float,
    marks: Sequence[str] = (),
) -> list[str]:
    """Return a chart. ``marks`` name whole values from 0; without them there are five figures."""
    most = max([1.0, *(value for _, _, values in lines for value in values)])
    levels = range(len(marks)) if marks else [most * part / 4 for part in range(5)]
    high = levels[-1]

    def y(value: float) -> float:
        return round(top + HEIGHT - value / high * (HEIGHT - 20), 1)

    out = [f'<text x="{LEFT}" y="{top + 10}" font-weight="bold">{escape(title)}</text>']
    for number, level in enumerate(levels):
        text = marks[number] if marks else f"{level:.0f}"
        out.append(f'<path d="M{LEFT} {y(level)}H{WIDTH - RIGHT}" stroke="#e5e7eb"/>')
        out.append(f'<text x="{LEFT - 8}" y="{y(level) + 4}" text-anchor="end">{text}</text>')
    for number, (name, colour, values) in enumerate(lines):
        points = " ".join(f"{x(at, times)},{y(v)}" for at, v in zip(times, values, strict=True))
        out.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        place = top + 20 + number * 15
        out.append(f'<text x="{WIDTH - RIGHT + 10}" y="{place}" fill="{colour}">{name}</text>')
    return out
