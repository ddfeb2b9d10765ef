# SPDX-License-Identifier: Apache-2.0
"""From the text of kernel files to values. Pure: every function takes text and its path.

What is not as the kernel writes it raises Malformed with the path, what was expected and
what was found.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import NamedTuple

from dsatier.base.problem import show
from dsatier.facts.knobs import knob_named
from dsatier.facts.model import Swap
from dsatier.host.port import HostError

MOST_CPUS = 1 << 16
_OCTAL = re.compile(r"\\([0-7]{3})")
_TIMER_UNIT = re.compile(r"(\w+) = -?\d+(ms|ns)(?=\s|$)")
_TIMER = re.compile(r"(\w+) = (-?\d+)(?:ms|ns)?(?=\s|$)")
_NORMAL = re.compile(
    r"^Node (\d+), zone +Normal(?P<more>,.*)?$(?P<rows>(?:\n(?!Node ).*)*)", re.MULTILINE
)
_ZONE = re.compile(r"^Node (\d+), zone .*$(?P<rows>(?:\n(?!Node ).*)*)", re.MULTILINE)
_ROW = re.compile(r"^ +(?:pages )?(free|low|high|managed) +(\d+)$", re.MULTILINE)
_PROTECTION = re.compile(r"^ +protection: \(([\d, ]*)\)$", re.MULTILINE)
_WATERMARK = re.compile(r"^ +demote +(\d+)$", re.MULTILINE)
_TARGET = re.compile(r"\bnext_demotion_node (-?\d+)")
_PCI = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_OPTION = re.compile(r"(CONFIG_\w+)=(.*)|# (CONFIG_\w+) is not set")


class Malformed(HostError):
    """A file has a content that the kernel does not write."""

    def __init__(self, path: str, expected: str, found: str) -> None:
        super().__init__(path, f"expected {expected}, found {show(found.strip()) or 'nothing'!r}")
        self.expected = expected
        self.found = found


def whole(text: str, path: str, *, base: int = 10) -> int:
    """Return a whole number. ``base`` 0 takes 0x as well."""
    try:
        return int(text, base)
    except ValueError:
        raise Malformed(path, "a whole number", text) from None


def cpus(text: str, path: str) -> tuple[int, ...]:
    """Return the numbers that a list such as ``0-3,8`` names, in order."""
    found: set[int] = set()
    for part in text.strip().split(","):
        if not part:
            continue
        first, dash, last = part.partition("-")
        if not _digits(first) or (dash and not _digits(last)):
            raise Malformed(path, "a list such as 0-3,8", text)
        low, high = int(first), int(last or first)
        if not low <= high < MOST_CPUS:
            raise Malformed(path, f"ascending ranges below {MOST_CPUS}", text)
        found.update(range(low, high + 1))
    return tuple(sorted(found))


def _digits(text: str) -> bool:
    return 0 < len(text) <= 6 and text.isascii() and text.isdecimal()


def numbers(text: str, path: str) -> tuple[int, ...]:
    """Return whole numbers with spaces between them."""
    return tuple(whole(word, path) for word in text.split())


def kilobytes(text: str, name: str, path: str) -> int:
    """Return the bytes in a line ``... MemTotal:  1024 kB``."""
    match = re.search(rf"\b{name}:\s+(\d+) kB", text)
    if match is None:
        raise Malformed(path, f"a line {name}: N kB", text)
    return int(match[1]) << 10


def words(text: str) -> tuple[str, ...]:
    """Return the boot parameters; a double-quoted part may hold spaces."""
    return tuple(re.findall(r'(?:[^\s"]|"[^"]*"?)+', text))


def swaps(text: str, path: str) -> tuple[Swap, ...]:
    """Return the areas in /proc/swaps."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if not fields:
            continue
        if len(fields) < 5:
            raise Malformed(path, "five columns", line)
        size, used, priority = (whole(field, path) for field in fields[-3:])
        name = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[0])
        found.append(Swap(name, size << 10, used << 10, priority))
    return tuple(found)


def timer(text: str, path: str) -> dict[str, int]:
    """Return the numbers of /proc/timer's first line by name."""
    line = text.partition("\n")[0]
    found = {name: int(number) for name, number in _TIMER.findall(line)}
    if "timer_state" not in found:
        raise Malformed(path, "a line of name = value", line)
    return found


def timer_units(text: str) -> dict[str, str]:
    """Return the unit of each number of /proc/timer's first line that has one."""
    return dict(_TIMER_UNIT.findall(text.partition("\n")[0]))


class Demotion(NamedTuple):
    """What /proc/zoneinfo says of a node's demotion, None for what it does not."""

    watermark: int | None
    """Pages, of its Normal zone."""
    target: int | None
    """A node, -1 for none."""


def demotion(text: str) -> dict[int, Demotion]:
    """Return what /proc/zoneinfo says of the demotion of each node, by its Normal zone.

    TPP adds tier and target to the line that names a zone.
    """
    found = {}
    for zone in _NORMAL.finditer(text):
        watermark = _WATERMARK.search(zone["rows"])
        target = _TARGET.search(zone["more"] or "")
        if watermark or target:
            found[int(zone[1])] = Demotion(
                int(watermark[1]) if watermark else None, int(target[1]) if target else None
            )
    return found


class Room(NamedTuple):
    """Whether a node's free memory is below the watermarks, by all its zones."""

    short: bool
    """Below ``low``, at which the kernel begins to reclaim."""
    full: bool
    """Below ``high``, at which it stops."""


def room(text: str) -> dict[int, Room]:
    """Return what /proc/zoneinfo says of the room of each node.

    What a lower zone keeps back from memory for programs is no room. A node has some while one of
    its zones has.
    """
    found: dict[int, Room] = {}
    for zone in _ZONE.finditer(text):
        rows = {name: int(number) for name, number in reversed(_ROW.findall(zone["rows"]))}
        if not rows.keys() >= {"free", "low", "high"} or not rows.get("managed"):
            continue
        protection = _PROTECTION.search(zone["rows"])
        kept = max((int(n) for n in protection[1].split(",") if n.strip()) if protection else (0,))
        free, node = rows["free"] - kept, int(zone[1])
        before = found.get(node, Room(short=True, full=True))
        found[node] = Room(before.short and free < rows["low"], before.full and free < rows["high"])
    return found


def counters(text: str, names: Collection[str]) -> dict[str, int]:
    r"""Return the named counters of a vmstat file, those that it has.

    >>> counters("nr_free_pages 7\npgdemote_kswapd 12\n", ("pgdemote_kswapd", "pswpout"))
    {'pgdemote_kswapd': 12}
    """
    rows = (line.split() for line in text.splitlines())
    return {
        row[0]: int(row[1])
        for row in rows
        if len(row) == 2 and row[0] in names and row[1].isascii() and row[1].isdecimal()
    }


def cpu_model(text: str) -> str:
    """Return the model name of the first CPU in /proc/cpuinfo, empty where it has none."""
    match = re.search(r"^model name\s*: *(.*)$", text, re.MULTILINE)
    return match[1].strip() if match else ""


def options(text: str, names: frozenset[str]) -> dict[str, str]:
    """Return the named options of a kernel configuration; n for those that are not set."""
    found = dict.fromkeys(sorted(names), "n")
    for line in text.splitlines():
        match = _OPTION.fullmatch(line)
        if match and match[1] in names:
            found[match[1]] = match[2].strip('"')
    return found


def knob(name: str, text: str) -> str:
    """Return a knob's value as facts have it: booleans and words as numbers."""
    value = text.strip()
    if name == "demotion_enabled":
        return {"true": "1", "false": "0"}.get(value, value)
    known = knob_named(name)
    chosen = value.partition("[")[2].partition("]")[0]
    return str(known.words.index(chosen)) if known and chosen in known.words else value


def pci_address(target: str, *, above: str = "") -> str:
    """Return the PCI address nearest to the end of a link's target, empty where it has none.

    With ``above`` it must be the folder right above the part of that name.
    """
    parts = target.split("/")
    if above:
        at = parts.index(above) if above in parts else 0
        return parts[at - 1] if at and _PCI.fullmatch(parts[at - 1]) else ""
    return next((part for part in reversed(parts) if _PCI.fullmatch(part)), "")


def version(text: str) -> str | None:
    """Return the version in what a program says of itself."""
    match = re.search(r"\d+(\.\d+)+", text)
    return match[0] if match else None
