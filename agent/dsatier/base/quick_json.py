# SPDX-License-Identifier: Apache-2.0
"""A reader of JSON for a command that has no time to import the standard library's. Pure.

That one imports re, which takes as long as Python's own start. This one takes what that takes,
but for NaN and infinities, and raises ValueError for all else. It is meant for a few kilobytes.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEEPEST = 100
"""Levels of nesting at most."""
_SPACE = " \t\n\r"
_NUMBER = frozenset("+-.0123456789eE")
_WORDS = {"true": True, "false": False, "null": None}
_ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def loads(text: str) -> "Any":
    r"""Return the value that ``text`` is. Raises ValueError.

    >>> loads('{"a": [1, -2.5e1, "\\u00e9", null]}')
    {'a': [1, -25.0, 'é', None]}
    """
    value, at = _value(text, _space(text, 0), 0)
    if _space(text, at) < len(text):
        raise ValueError(f"more than one value, at character {at}")
    return value


def _space(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in _SPACE:
        at += 1
    return at


def _value(text: str, at: int, depth: int) -> "tuple[Any, int]":
    """Return the value that begins at a place, and where it ends."""
    if depth > DEEPEST:
        raise ValueError(f"more than {DEEPEST} levels, at character {at}")
    first = text[at : at + 1]
    if first == '"':
        return _string(text, at)
    if first == "{":
        return _object(text, at, depth)
    if first == "[":
        return _array(text, at, depth)
    for word, value in _WORDS.items():
        if text.startswith(word, at):
            return value, at + len(word)
    return _number(text, at)


def _object(text: str, at: int, depth: int) -> "tuple[dict[str, Any], int]":
    found: dict[str, Any] = {}
    at = _space(text, at + 1)
    while text[at : at + 1] != "}":
        if found:
            at = _space(text, _mark(text, at, ","))
        _mark(text, at, '"')
        key, at = _string(text, at)
        at = _mark(text, _space(text, at), ":")
        found[key], at = _value(text, _space(text, at), depth + 1)
        at = _space(text, at)
    return found, at + 1


def _array(text: str, at: int, depth: int) -> "tuple[list[Any], int]":
    found: list[Any] = []
    at = _space(text, at + 1)
    while text[at : at + 1] != "]":
        if found:
            at = _space(text, _mark(text, at, ","))
        value, at = _value(text, at, depth + 1)
        found.append(value)
        at = _space(text, at)
    return found, at + 1


def _mark(text: str, at: int, mark: str) -> int:
    """Return the place after a mark."""
    if text[at : at + 1] != mark:
        raise ValueError(f"expected {mark} at character {at}")
    return at + 1


def _string(text: str, at: int) -> "tuple[str, int]":
    found = ""
    at += 1
    while True:
        end = text.find('"', at)
        if end < 0:
            raise ValueError(f"a string without an end, at character {at}")
        back = text.find("\\", at, end)
        part = text[at : end if back < 0 else back]
        if any(one < " " for one in part):
            raise ValueError(f"a control character in a string, at character {at}")
        found += part
        if back < 0:
            return found, end + 1
        one, at = _escape(text, back + 1)
        found += one


def _escape(text: str, at: int) -> "tuple[str, int]":
    """Return what stands after a backslash, and where it ends."""
    if text[at : at + 1] != "u":
        found = _ESCAPES.get(text[at : at + 1])
        if found is None:
            raise ValueError(f"an unknown escape, at character {at}")
        return found, at + 1
    unit, at = _unit(text, at + 1)
    if 0xD800 <= unit < 0xDC00 and text[at : at + 2] == "\\u":
        low, after = _unit(text, at + 2)
        if 0xDC00 <= low < 0xE000:
            return chr(0x10000 + (unit - 0xD800 << 10) + low - 0xDC00), after
    return chr(unit), at


def _unit(text: str, at: int) -> tuple[int, int]:
    digits = text[at : at + 4]
    if len(digits) < 4 or not all(one in "0123456789abcdefABCDEF" for one in digits):
        raise ValueError(f"expected four hexadecimal digits at character {at}")
    return int(digits, 16), at + 4


def _number(text: str, at: int) -> "tuple[float, int]":
    end = at
    while text[end : end + 1] in _NUMBER:
        end += 1
    word = text[at:end]
    mantissa, _, exponent = word.lower().partition("e")
    whole, point, fraction = mantissa.removeprefix("-").partition(".")
    good = whole.isdigit() and (whole == "0" or whole[0] != "0")
    good = good and (not point or fraction.isdigit())
    if "e" in word.lower():
        good = good and exponent[exponent[:1] in ("+", "-") :].isdigit()
    if not good:
        raise ValueError(f"expected a value at character {at}")
    return (float(word) if point or exponent else int(word)), end
