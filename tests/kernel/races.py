# SPDX-License-Identifier: Apache-2.0
"""Data races that a kernel with KCSAN tells of, and which of them are ours. Pure.

A kernel has many races that its authors know and bear. A report counts as ours where one of the
two accesses is made by a function that our patches touch, or below one of a file that is ours, by
less than ``DEPTH`` calls. All others are counted and shown, and fail nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vm.kernellog import STAMP

DEPTH = 4
"""Frames of an access, the access itself included, that are looked at for files of ours."""
MODULE = "idxd_migrate"
"""A module that is ours as a whole."""
HEAD = "BUG: KCSAN: data-race in "
ALLOWED = f"^(\\[[^]]*\\] ?)*{re.escape(HEAD)}"
"""For ``Guest.allow``: reports that ``races`` finds."""
_ACCESS = re.compile(r"(race at unknown origin, with )?(read|write)\b.* of \d+ bytes by ")
_FRAME = re.compile(r" *(\? )?([\w.]+)\+0x[0-9a-f]+/0x[0-9a-f]+( \[(\w+)\])?$")
_RULE = re.compile(r"={20,}$")
_WORDS = "if|for|while|switch|return|else"
_FUNCTION = re.compile(rf"(?!(?:{_WORDS})\b)(?=[A-Za-z_])(?:.*?[\s*])??(\w+)\(")
_NEW_FILE = re.compile(r"^--- /dev/null\n\+\+\+ b/(\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Frame:
    """A place in a stack."""

    function: str
    module: str = ""
    """Empty for what is built in."""


@dataclass(frozen=True, slots=True)
class Race:
    """A report."""

    title: str
    """The functions that it names, without their offsets."""
    accesses: tuple[tuple[Frame, ...], ...]
    """The stacks of those who met, the access first. One only, where the other is not known."""
    text: str


@dataclass(frozen=True, slots=True)
class Touched:
    """Functions that patches change: those of new files, and those that were there before."""

    new: frozenset[str]
    changed: frozenset[str]


def races(lines: Iterable[str]) -> list[Race]:
    """Return the reports in lines of a kernel's log. One without an end is there as well."""
    found = []
    report: list[str] | None = None
    for line in (*lines, "=" * 66):
        text = STAMP.sub("", line.rstrip("\r\n"))
        if text.startswith(HEAD):
            if report:
                found.append(_race(report))
            report = [text]
        elif report is not None and _RULE.match(text):
            found.append(_race(report))
            report = None
        elif report is not None:
            report.append(text)
    return found


def _race(report: list[str]) -> Race:
    stacks: list[list[Frame]] = []
    reading = False
    for line in report[1:]:
        if _ACCESS.match(line):
            stacks.append([])
            reading = True
        elif reading and (frame := _FRAME.match(line)):
            if not frame[1]:
                stacks[-1].append(Frame(frame[2].partition(".")[0], frame[4] or ""))
        elif not line.strip():
            reading = False
    names = re.sub(r"\+0x\S+|\.\w+\.\d+", "", report[0].removeprefix(HEAD))
    return Race(names, tuple(map(tuple, stacks)), "\n".join(report))


def touched(patches: Sequence[Path]) -> Touched:
    """Return the functions that a series of patches touches, by the places and lines it names.

    A function is taken to be touched where it stands at the head of a hunk or begins in one. So
    there may be neighbours among them, but none is left out.
    """
    texts = [patch.read_text(encoding="utf-8") for patch in patches]
    files = {name for text in texts for name in _NEW_FILE.findall(text)}
    new: set[str] = set()
    changed: set[str] = set()
    for text in texts:
        name = ""
        for line in text.splitlines():
            if line.startswith("+++ b/"):
                name = line.removeprefix("+++ b/")
            elif name.endswith((".c", ".h")) and line.startswith(("+", " ", "@@ ")):
                place = line.split("@@ ", 2)[-1] if line.startswith("@@ ") else line[1:]
                if match := _FUNCTION.match(place):
                    (new if name in files else changed).add(match[1])
    return Touched(frozenset(new), frozenset(changed - new))


def ours(race: Race, functions: Touched) -> bool:
    """Tell whether a race is one of ours; one without a stack is, since nobody can tell."""
    if not all(race.accesses) or not race.accesses:
        return True
    for stack in race.accesses:
        first, *_ = stack
        if first.function in functions.changed:
            return True
        if any(f.function in functions.new or f.module == MODULE for f in stack[:DEPTH]):
            return True
    return False
