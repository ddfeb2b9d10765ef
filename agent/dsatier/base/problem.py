# SPDX-License-Identifier: Apache-2.0
"""A problem: one thing that is wrong in a text that somebody wrote.

A plain class, because ``check`` has no time to load dataclasses.
"""

from __future__ import annotations

LONGEST = 60
MOST_TOLD = 20
"""Problems of which the text of one Invalid tells."""


def show(text: str, longest: int = LONGEST) -> str:
    """Return ``text`` on one line, without control characters, cut at ``longest``."""
    if len(text) > longest:
        text = text[:longest] + "..."
    return text if text.isprintable() else repr(text)[1:-1]


def dotted(path: tuple[str | int, ...]) -> str:
    """Return a path of keys and indexes as people write it: ``match.hostname[2]``."""
    name = ""
    for part in path:
        if isinstance(part, int):
            name += f"[{part}]"
        else:
            name += f".{show(part)}" if name else show(part)
    return name


class Problem:
    """Where something is wrong, what was expected there and what was found.

    ``line`` and ``column`` count from 1; 0 means that there is none to tell.
    ``wording`` stands in for "expected ..., found ..." where that reads badly.
    """

    __slots__ = ("column", "expected", "field", "file", "found", "hint", "line", "path", "wording")

    def __init__(
        self,
        file: str,
        line: int,
        column: int,
        path: tuple[str | int, ...],
        expected: str,
        found: str,
        hint: str = "",
        wording: str = "",
    ) -> None:
        self.file = file
        self.line = line
        self.column = column
        self.path = path
        self.field = dotted(path)
        self.expected = expected
        self.found = found
        self.hint = hint
        self.wording = wording

    @property
    def message(self) -> str:
        """What is wrong and what to do, without the place."""
        text = self.wording or f"expected {self.expected}, found {self.found}"
        return f"{text}; {self.hint}" if self.hint else text

    def place(self) -> tuple[str, int, int, str]:
        """Return what problems sort by."""
        return (self.file, self.line, self.column, self.field)

    def to_json(self) -> dict[str, str | int]:
        """Return the problem as ``check --json`` prints it."""
        return {
            "line": self.line,
            "column": self.column,
            "field": self.field,
            "expected": self.expected,
            "found": self.found,
            "message": self.message,
        }

    def __str__(self) -> str:
        place = [show(self.file, 4096)] if self.file else []
        if self.line:
            place += [str(self.line), str(self.column)]
        parts = [":".join(place)] if place else []
        if self.field:
            parts.append(self.field)
        return ": ".join([*parts, self.message])

    def __repr__(self) -> str:
        return f"Problem({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Problem) and (self.place(), self.to_json()) == (
            other.place(),
            other.to_json(),
        )

    def __hash__(self) -> int:
        return hash((self.place(), self.message))


class Invalid(Exception):
    """A text is not what it should be. ``problems`` says why, sorted by place."""

    def __init__(self, problems: list[Problem]) -> None:
        told = [str(problem) for problem in problems[:MOST_TOLD]]
        if len(problems) > MOST_TOLD:
            told.append(f"and {len(problems) - MOST_TOLD} more")
        super().__init__("\n".join(told))
        self.problems = tuple(problems)

    def __reduce__(self) -> tuple[type[Invalid], tuple[list[Problem]]]:
        """Let it be pickled: the text that BaseException keeps is not what the class takes."""
        return Invalid, (list(self.problems),)
