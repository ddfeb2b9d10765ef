# SPDX-License-Identifier: Apache-2.0
"""Spoils data: as bytes, as text, and as values of JSON. A seed spoils in one way only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

Place = tuple[str | int, ...]

ODD_BYTES = (b"\0", b"\xff", b"\x1b[2J", b"\r", b"\n", b"\t", b"'", b'"', b"{", b"]", b":", b"#")
ODD_WORDS = (
    *("null", "true", "-1", "0", "1e999", "NaN", "9" * 400, "0x1f", "1_000", "~", "[]", "{}"),
    *("*a", "&a", "!!python/object:os.system", "<<", "%s", "../../etc", "\u202e", "dsa99", "wq0.0"),
)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 1 << 31, 1 << 63, 1 << 64, 10**400, 0.5, 1e308, -0.0),
    *(
        "",
        " ",
        "x" * 5000,
        "\0",
        "\x1b[2J",
        "/",
        "..",
        "dsa0",
        "wq0.0",
        "none",
        "0-7",
        "0-99999999",
    ),
    *([], [[]], [None], {}, {"": 0}, {"a": {"b": []}}),
)


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Yield the place of each value in a value of JSON."""
    yield at
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*at, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from places(inner, (*at, number))


def _at(value: Any, place: Place) -> Any:
    for key in place:
        value = value[key]
    return value


def _replace(value: Any, place: Place, new: Any) -> Any:
    if not place:
        return new
    _at(value, place[:-1])[place[-1]] = new
    return value


def _odd(random: Random, value: Any, place: Place) -> Any:
    return _replace(value, place, random.choice(ODD_VALUES))


def _near(random: Random, value: Any, place: Place) -> Any:
    """Change a value by little, so that it stays one of its kind."""
    old = _at(value, place)
    new: Any = None
    if isinstance(old, bool):
        new = not old
    elif isinstance(old, int):
        new = old + random.choice((-1, 1, 7, -old, old, 1 << 16))
    elif isinstance(old, float):
        new = old * random.choice((-1, 0, 2, 1e6))
    elif isinstance(old, str):
        cut = random.randrange(len(old) + 1)
        new = random.choice(
            (old[:cut], old + old, old[:cut] + random.choice(ODD_WORDS) + old[cut:])
        )
    elif isinstance(old, list):
        new = random.choice((old[:-1], old + old[-1:], old[::-1], old * 3))
    elif isinstance(old, dict):
        new = dict(list(old.items())[:-1])
    return _replace(value, place, new)


def _gone(random: Random, value: Any, place: Place) -> Any:
    if place:
        del _at(value, place[:-1])[place[-1]]
    return value


def _renamed(random: Random, value: Any, place: Place) -> Any:
    if place and isinstance(place[-1], str):
        inner = _at(value, place[:-1])
        inner[place[-1] + random.choice(("x", "", "\n", "_"))] = inner.pop(place[-1])
    return value


def _elsewhere(random: Random, value: Any, place: Place) -> Any:
    """Put what stands somewhere else there."""
    other = random.choice(list(places(value)))
    return _replace(value, place, json.loads(json.dumps(_at(value, other))))


VALUES: tuple[Callable[[Random, Any, Place], Any], ...] = (_odd, _near, _gone, _renamed, _elsewhere)


def value(random: Random, whole: Any) -> Any:
    """Return a copy of a value of JSON, spoilt in one to three places."""
    spoilt = json.loads(json.dumps(whole))
    for _ in range(random.choice((1, 1, 2, 3))):
        place = random.choice(list(places(spoilt)))
        spoilt = random.choice(VALUES)(random, spoilt, place)
    return spoilt


def data(random: Random, whole: bytes) -> bytes:
    """Return bytes, spoilt in one to four places."""
    spoilt = bytearray(whole)
    for _ in range(random.choice((1, 1, 2, 4))):
        start = random.randrange(len(spoilt) + 1)
        end = min(len(spoilt), start + random.choice((0, 1, 1, 2, 8, 64)))
        piece = random.choice(
            (
                random.choice(ODD_BYTES),
                random.choice(ODD_WORDS).encode(),
                bytes(spoilt[end : end + 40]),
                random.randbytes(random.randrange(1, 5)),
                b"",
            )
        )
        spoilt[start:end] = piece
        if random.random() < 0.05:
            del spoilt[start:]
    return bytes(spoilt)


def text(random: Random, whole: str) -> str:
    """Return text, spoilt as bytes; what is no UTF-8 any more is replaced."""
    return data(random, whole.encode()).decode(errors="replace")


def document(random: Random, whole: str) -> bytes:
    """Return a document of JSON, spoilt as a value two times out of three, else as bytes."""
    if random.random() < 0.66:
        return json.dumps(value(random, json.loads(whole))).encode()
    return data(random, whole.encode())
