# SPDX-License-Identifier: GPL-2.0-only
"""A table and a picture of what was measured. Pure."""

from __future__ import annotations

from html import escape
from typing import Any

Result = dict[str, Any]
COLOURS = ("#6b7280", "#2563eb", "#059669", "#d97706", "#dc2626", "#7c3aed", "#0891b2", "#be185d")
DETAIL = (
    *("list", "engine", "GB/s", "p50 µs", "p90 µs", "p99 µs", "max µs"),
    *("CPU s/GB, caller", "CPU s/GB, host", "by the engine", "not moved", "TLB interrupts/page"),
)
_FONT = 'font-family="sans-serif" font-size="12"'


def rate(one: Result) -> float:
    """Return GB/s: bytes that arrived, by the time in the calls."""
    return one["bytes"] / one["ns"] if one["ns"] else 0.0


def latency(one: Result, percent: int) -> float:
    """Return a percentile of the time of a call in µs, of the slower direction."""
    return float(max(value for _, p, value in one["latency"] if p == percent)) / 1000


def cpu(one: Result) -> float:
    """Return CPU seconds of all of the host for each GB, as far as ticks tell."""
    return float(one["host_busy_ns"] / one["bytes"]) if one["bytes"] else 0.0


def own_cpu(one: Result) -> float:
    """Return CPU seconds of the caller for each GB."""
    return float((one["user_ns"] + one["system_ns"]) / one["bytes"]) if one["bytes"] else 0.0


def by_engine(one: Result) -> str:
    """Return the part of the pages that the engine which was asked for has copied, in percent.

    Empty where nobody counts: without lists there is nothing to count.
    """
    name = str(one["engine"]).partition(":")[0]
    copied = one.get("copied") or {}
    if name == "plain" or name not in copied or not one["bytes"]:
        return ""
    return f"{100 * copied[name] * 4096 / one['bytes']:.0f} %"


def columns(results: list[Result]) -> list[str]:
    """Return the engines, in the order in which they were measured."""
    return list(dict.fromkeys(str(one["engine"]) for one in results))


def rows(results: list[Result]) -> list[str]:
    """Return what heads the rows, in the order in which they were measured."""
    return list(dict.fromkeys(str(one["row"]) for one in results))


def table(document: dict[str, Any]) -> str:
    """Return the report as Markdown.

    The first table is laid out as the published ones are: a row for each list, a column for each
    engine. The second has a row for each measurement, with latency and CPU time.
    """
    results: list[Result] = document["results"]
    names = columns(results)
    cell = {(one["row"], one["engine"]): one for one in results}
    host = document["host"]
    mib = document["effort"]["mib"]
    where = (
        f"Kernel {host['kernel']}, {host['cpu']}, {host['cpus']} CPUs; "
        f"node 0 {host['node0']['mib']:,} MiB, node 1 {host['node1']['mib']:,} MiB. "
        f"move_pages(2) of {mib:,} MiB to and fro, contents checked."
    )
    lines = [
        where,
        "",
        f"| GB/s | {' | '.join(names)} |",
        f"| --- |{' ---: |' * len(names)}",
    ]
    for row in rows(results):
        found = [cell.get((row, name)) for name in names]
        lines.append(
            f"| {row} | {' | '.join('-' if one is None else f'{rate(one):.3g}' for one in found)} |"
        )
    lines += [
        "",
        f"| {' | '.join(DETAIL)} |",
        f"| --- | --- |{' ---: |' * 10}",
    ]
    for one in results:
        pages = one["bytes"] // 4096
        late = " | ".join(f"{latency(one, percent):.0f}" for percent in (50, 90, 99, 100))
        lines.append(
            f"| {one['row']} | {one['engine']} | {rate(one):.3g} | {late} | {own_cpu(one):.3f}"
            f" | {cpu(one):.3f} | {by_engine(one) or '-'} | {one['left']:,}"
            f" | {one['tlb_interrupts'] / pages if pages else 0:.4f} |"
        )
    for text in document.get("left_out", []):
        lines += ["", f"Left out: {text}."]
    return "\n".join(lines) + "\n"


def picture(document: dict[str, Any]) -> str:
    """Return the rates as an SVG: a group of bars for each list, a bar for each engine."""
    results: list[Result] = document["results"]
    names, heads = columns(results), rows(results)
    cell = {(one["row"], one["engine"]): rate(one) for one in results}
    top = max(cell.values(), default=0.0) or 1.0
    bar, gap, left, height, head = 18, 26, 60, 260, 58
    group = bar * len(names) + gap
    width = max(left + group * len(heads) + 20, 480)
    box = f"0 0 {width} {head + height + 64}"
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" width="{width}" {_FONT}>',
        f"<title>GB/s of move_pages by engine, {escape(str(document['host']['kernel']))}</title>",
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{left}" y="18" font-weight="bold">move_pages, GB/s (more is better)</text>',
    ]
    for number, name in enumerate(names):
        from_left = left + number * 96
        colour = COLOURS[number % len(COLOURS)]
        out.append(f'<rect x="{from_left}" y="30" width="12" height="12" fill="{colour}"/>')
        out.append(f'<text x="{from_left + 17}" y="41">{escape(name)}</text>')
    for part in range(5):
        level, mark = head + height - height * part / 4, top * part / 4
        out.append(f'<path d="M{left} {level:.1f}H{width - 10}" stroke="#d1d5db"/>')
        out.append(f'<text x="{left - 8}" y="{level + 4:.1f}" text-anchor="end">{mark:.3g}</text>')
    for place, row in enumerate(heads):
        start = left + gap / 2 + place * group
        for number, name in enumerate(names):
            if (row, name) not in cell:
                continue
            value = cell[row, name]
            tall = height * value / top
            x, y = start + number * bar, head + height - tall
            colour = COLOURS[number % len(COLOURS)]
            place_of = f'x="{x:.1f}" y="{y:.1f}" width="{bar - 3}" height="{tall:.1f}"'
            told = f"{escape(name)}, {escape(row)}: {value:.3g} GB/s"
            out.append(f'<rect {place_of} fill="{colour}"><title>{told}</title></rect>')
        middle = start + bar * len(names) / 2
        for line, text in enumerate(row.split(" + ")):
            under = head + height + 18 + 15 * line
            out.append(
                f'<text x="{middle:.1f}" y="{under}" text-anchor="middle">{escape(text)}</text>'
            )
    out.append("</svg>")
    return "\n".join(out) + "\n"
