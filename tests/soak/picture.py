# SPDX-License-Identifier: Apache-2.0
"""A soak as a picture: memory, open files and state over time, as SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from xml.sax.saxutils import escape

from tests.soak.judges import Check, Sample

WIDTH, LEFT, RIGHT = 1200, 70, 150
HEIGHT, GAP, TOP = 170, 46, 40
BAND = 26
GROUND = {"storm": "#f6e3e0", "settle": "#fdf3d3", "rest": "#e3f1e3"}
STATES = {
    "converged": "#2e8b57",
    "unmanaged": "#b0b0b0",
    "drifted": "#e0b000",
    "reverted": "#d08030",
    "degraded": "#c04040",
    "quarantined": "#903090",
    "rollback-failed": "#602020",
    "reboot-required": "#000000",
}
MOVING = "#5080d0"
Read = Callable[[Sample], float]
CHARTS: tuple[tuple[str, tuple[tuple[str, str, Read], ...]], ...] = (
    (
        "memory, MiB",
        (
            ("VmRSS", "#204080", lambda s: s.rss / 1024),
            ("RssAnon", "#c05020", lambda s: s.anon / 1024),
            ("Pss", "#70a0a0", lambda s: s.pss / 1024),
        ),
    ),
    (
        "open files, children, threads",
        (
            ("open files", "#204080", lambda s: s.fds),
            ("children", "#c05020", lambda s: s.children),
            ("threads", "#70a0a0", lambda s: s.threads),
        ),
    ),
    (
        "CPU seconds of each process; own files, KiB",
        (
            ("CPU seconds", "#204080", lambda s: s.cpu),
            ("own files", "#c05020", lambda s: s.files / 1024),
        ),
    ),
)


def picture(
    title: str,
    samples: Sequence[Sample],
    phases: Sequence[tuple[float, str]],
    checks: Sequence[Check],
    ends: Sequence[tuple[float, str]],
) -> str:
    """Return the SVG. Times are seconds since the soak began."""
    end = max([sample.at for sample in samples] + [at for at, _ in phases] + [1.0])

    def x(at: float) -> float:
        return round(LEFT + at / end * (WIDTH - LEFT - RIGHT), 1)

    below = TOP + len(CHARTS) * (HEIGHT + GAP)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{below + BAND + 60}" '
        'font-family="sans-serif" font-size="12">',
        "<!-- SPDX-License-Identifier: Apache-2.0 -->",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="15">{escape(title)}</text>',
    ]
    edges = [*phases, (end, "")]
    for (at, phase), (until, _) in pairwise(edges):
        if phase in GROUND:
            out.append(
                f'<rect x="{x(at)}" y="{TOP}" width="{max(0.1, round(x(until) - x(at), 1))}" '
                f'height="{below - TOP}" fill="{GROUND[phase]}"/>'
            )
    for place, (name, lines) in enumerate(CHARTS):
        out += _chart(name, lines, samples, TOP + place * (HEIGHT + GAP), x)
    for at, how in ends:
        out.append(
            f'<line x1="{x(at)}" x2="{x(at)}" y1="{TOP}" y2="{below}" stroke="#999" '
            f'stroke-dasharray="3 3"><title>{escape(how)}</title></line>'
        )
    for check in checks:
        colour = STATES["converged"] if check.converged else STATES["degraded"]
        out.append(
            f'<circle cx="{x(check.at)}" cy="{TOP - 8}" r="4" fill="{colour}">'
            f"<title>{escape(check.found or 'converged')}</title></circle>"
        )
    out += _states(samples, below, x)
    step = next(s for s in (5, 10, 30, 60, 300, 600, 1800, 3600, 1e9) if end / s <= 14)
    for number in range(int(end / step) + 1):
        at = number * step
        words = f"{at / 60:g} min" if step >= 60 else f"{at:g} s"
        out.append(f'<text x="{x(at)}" y="{below + BAND + 16}">{words}</text>')
    return "\n".join([*out, "</svg>", ""])


def _chart(
    name: str,
    lines: tuple[tuple[str, str, Read], ...],
    samples: Sequence[Sample],
    top: float,
    x: Callable[[float], float],
) -> list[str]:
    values = [read(sample) for sample in samples for _, _, read in lines]
    highest = max([*values, 1.0]) * 1.1

    def y(value: float) -> float:
        return round(top + HEIGHT - value / highest * HEIGHT, 1)

    out = [f'<text x="{LEFT}" y="{top + 14}" font-weight="bold">{escape(name)}</text>']
    for part in range(5):
        value = highest * part / 4
        out.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value)}" y2="{y(value)}" '
            f'stroke="#ccc"/><text x="{LEFT - 6}" y="{y(value) + 4}" '
            f'text-anchor="end">{value:.3g}</text>'
        )
    for number, (label, colour, read) in enumerate(lines):
        lives: dict[int, list[str]] = {}
        for sample in samples:
            lives.setdefault(sample.pid, []).append(f"{x(sample.at)},{y(read(sample))}")
        out += [
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}"/>'
            for points in lives.values()
        ]
        height = top + 30 + number * 18
        out.append(
            f'<text x="{WIDTH - RIGHT + 10}" y="{height}" fill="{colour}">{escape(label)}</text>'
        )
    return out


def _states(samples: Sequence[Sample], top: float, x: Callable[[float], float]) -> list[str]:
    out = []
    for sample, following in pairwise(samples):
        colour = STATES.get(sample.state, MOVING)
        width = max(0.2, round(x(following.at) - x(sample.at), 1))
        out.append(
            f'<rect x="{x(sample.at)}" y="{top}" width="{width}" height="{BAND}" fill="{colour}">'
            f"<title>{escape(sample.state)}</title></rect>"
        )
    seen = [state for state in STATES if any(s.state == state for s in samples)]
    place = LEFT
    for state in seen:
        out.append(
            f'<rect x="{place}" y="{top + BAND + 26}" width="12" height="12" '
            f'fill="{STATES[state]}"/>'
            f'<text x="{place + 16}" y="{top + BAND + 36}">{state}</text>'
        )
        place += 130
    return out
