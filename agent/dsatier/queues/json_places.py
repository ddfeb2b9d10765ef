# SPDX-License-Identifier: Apache-2.0
"""JSON text with the place of every value, for messages that name line and column.

The standard library's parser tells a place only where the syntax is wrong, and takes
duplicate keys, NaN and Infinity; this one takes strict JSON alone and is bounded in depth.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from json.decoder import JSONDecodeError
from json.decoder import scanstring as _scanstring  # type: ignore[attr-defined]

from dsatier.base.problem import Invalid, Problem

DEEPEST = 16
_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_LONGEST_NUMBER = 20
_WORDS = {"true": True, "false": False, "null": None}


@dataclass(frozen=True, slots=True)
class Value:
    """A JSON value. ``data`` is a scalar, a tuple of values, or a tuple of members."""

    line: int
    column: int
    data: str | float | bool | tuple[Value, ...] | tuple[Member, ...] | None
    kind: str
    """object, array, string, number, boolean or null."""


@dataclass(frozen=True, slots=True)
class Member:
    """A key of an object and its value, in the order of the text."""

    key: str
    line: int
    column: int
    value: Value


def parse(text: str, file: str) -> Value:
    """Return the one value in ``text``. Raises Invalid with the first mistake."""
    reader = _Reader(text, file)
    value = reader.value(0)
    reader.space()
    if reader.at < len(text):
        raise reader.wrong("the end of the text", reader.here())
    return value


class _Reader:
    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.at = 0
        self._line = 1
        self._line_at = 0
        self._counted = 0

    def place(self) -> tuple[int, int]:
        """Return line and column, counting on from the last place asked for."""
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted = self.at
        newline = self.text.rfind("\n", 0, self.at)
        return self._line, self.at - newline

    def space(self) -> None:
        match = _SPACE.match(self.text, self.at)
        assert match is not None
        self.at = match.end()

    def here(self) -> str:
        """Return what is at the place, for people."""
        return repr(self.text[self.at]) if self.at < len(self.text) else "the end of the text"

    def wrong(self, expected: str, found: str) -> Invalid:
        line, column = self.place()
        return Invalid([Problem(self.file, line, column, (), expected, found)])

    def value(self, depth: int) -> Value:
        self.space()
        if depth > DEEPEST:
            raise self.wrong(f"at most {DEEPEST} levels of nesting", "more")
        first = self.text[self.at : self.at + 1]
        line, column = self.place()
        if first == "{":
            return Value(line, column, self._members(depth), "object")
        if first == "[":
            return Value(line, column, self._items(depth), "array")
        if first == '"':
            return Value(line, column, self._string(), "string")
        for word, constant in _WORDS.items():
            if self.text.startswith(word, self.at):
                self.at += len(word)
                kind = "null" if constant is None else "boolean"
                return Value(line, column, constant, kind)
        number = _NUMBER.match(self.text, self.at)
        if number is None:
            raise self.wrong("a JSON value", self.here())
        if number.end() - number.start() > _LONGEST_NUMBER:
            raise self.wrong(f"a number of at most {_LONGEST_NUMBER} characters", "a longer one")
        self.at = number.end()
        whole = number[1] is None and number[2] is None
        return Value(line, column, int(number[0]) if whole else float(number[0]), "number")

    def _string(self) -> str:
        try:
            found, self.at = _scanstring(self.text, self.at + 1, True)
        except JSONDecodeError as error:
            self.at = min(error.pos, len(self.text))
            raise self.wrong("a JSON string", error.msg.lower()) from None
        return str(found)

    def _items(self, depth: int) -> tuple[Value, ...]:
        items: list[Value] = []
        self.at += 1
        self.space()
        while self.text[self.at : self.at + 1] != "]":
            if items:
                self._expect(",")
            items.append(self.value(depth + 1))
            self.space()
        self.at += 1
        return tuple(items)

    def _members(self, depth: int) -> tuple[Member, ...]:
        members: list[Member] = []
        keys: set[str] = set()
        self.at += 1
        self.space()
        while self.text[self.at : self.at + 1] != "}":
            if members:
                self._expect(",")
                self.space()
            if self.text[self.at : self.at + 1] != '"':
                raise self.wrong("a key in double quotes", self.here())
            line, column = self.place()
            key = self._string()
            if key in keys:
                again = Problem(self.file, line, column, (key,), "each key once", "it again")
                raise Invalid([again])
            keys.add(key)
            self.space()
            self._expect(":")
            members.append(Member(key, line, column, self.value(depth + 1)))
            self.space()
        self.at += 1
        return tuple(members)

    def _expect(self, mark: str) -> None:
        if self.text[self.at : self.at + 1] != mark:
            raise self.wrong(repr(mark), self.here())
        self.at += 1
