# SPDX-License-Identifier: Apache-2.0
"""Frozen classes do as the standard library's, at a fraction of the price."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import pytest

from dsatier.base import frozen


def both(body: dict[str, Any], **hints: str) -> tuple[Any, Any]:
    """Return two classes of the same fields: ours, and the standard library's."""
    made: list[Any] = []
    for decorator in (frozen.dataclass, dataclasses.dataclass):
        cls = type("Thing", (), {"__annotations__": hints, "__module__": __name__, **body})
        made.append(decorator(frozen=True, slots=True)(cls))
    return made[0], made[1]


OURS, THEIRS = both({"b": 2, "c": ()}, a="int", b="int", c="tuple[int, ...]")


@frozen.dataclass(frozen=True, slots=True)
class Inner:
    """One that is in another."""

    x: int


@frozen.dataclass(frozen=True, slots=True)
class Outer:
    """One that has others."""

    one: Inner
    many: tuple[Inner, ...] = ()
    named: dict[str, Inner] | None = None

    def both(self) -> int:
        """Return something of both."""
        return self.one.x + len(self.many)


OUTER = Outer(Inner(1), (Inner(2), Inner(3)), {"four": Inner(4)})


@pytest.mark.parametrize(
    ("given", "named"),
    [((1,), {}), ((1, 3), {}), ((1, 3, (4,)), {}), ((), {"a": 5}), ((1,), {"c": (7,)})],
)
def test_it_is_made_as_theirs(given: tuple[Any, ...], named: dict[str, Any]) -> None:
    ours, theirs = OURS(*given, **named), THEIRS(*given, **named)
    assert repr(theirs) == repr(ours)
    assert hash(theirs) == hash(ours)
    assert dataclasses.asdict(theirs) == dataclasses.asdict(ours) == frozen.asdict(ours)
    assert dataclasses.replace(theirs, b=9).b == frozen.replace(ours, b=9).b
    assert ours != theirs
    assert ours == OURS(*given, **named)
    assert ours == copy.copy(ours) == copy.deepcopy(ours) == dataclasses.replace(ours)


@pytest.mark.parametrize(("given", "named"), [((), {}), ((1, 2, 3, 4), {}), ((1,), {"d": 1})])
def test_it_refuses_what_theirs_refuses(given: tuple[Any, ...], named: dict[str, Any]) -> None:
    for cls in (OURS, THEIRS):
        with pytest.raises(TypeError):
            cls(*given, **named)


@pytest.mark.parametrize("hints", [{}, {"a": "int"}])
def test_few_fields(hints: dict[str, str]) -> None:
    ours, theirs = both({}, **hints)
    values = (3,) * len(hints)
    assert (repr(theirs(*values)), hash(theirs(*values))) == (
        repr(ours(*values)),
        hash(ours(*values)),
    )
    assert ours(*values) == ours(*values)


def test_nothing_in_it_changes() -> None:
    for name in ("one", "other"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(OUTER, name, 1)
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(OUTER, name)
    assert not hasattr(OUTER, "__dict__")


def test_it_keeps_what_it_can_do() -> None:
    assert (3, "One that has others.") == (OUTER.both(), Outer.__doc__)
    match OUTER:
        case Outer(Inner(x), many):
            assert (1, 2) == (x, len(many))
        case _:
            raise AssertionError


def test_it_comes_back_from_a_pickle() -> None:
    assert OUTER == pickle.loads(pickle.dumps(OUTER))
    assert Inner(7) == pickle.loads(pickle.dumps(Inner(7)))


def test_it_is_a_dataclass_for_all_who_ask() -> None:
    assert (True, True) == (dataclasses.is_dataclass(Outer), dataclasses.is_dataclass(OUTER))
    assert ["one", "many", "named"] == [field.name for field in dataclasses.fields(Outer)]
    assert {
        "one": {"x": 1},
        "many": ({"x": 2}, {"x": 3}),
        "named": {"four": {"x": 4}},
    } == frozen.asdict(OUTER)
    assert frozen.asdict(OUTER) == dataclasses.asdict(OUTER)


@pytest.mark.parametrize("asked", ["__dataclass_fields__", "__dataclass_params__"])
def test_whichever_is_asked_for_first_is_what_it_says(asked: str) -> None:
    ours, theirs = both({}, a="int")
    assert type(getattr(theirs, asked)) is type(getattr(ours, asked))
    assert ["a"] == list(ours.__dataclass_fields__)
    assert ours.__dataclass_params__.frozen


def test_what_it_cannot_do_it_refuses() -> None:
    with pytest.raises(ValueError, match="expected frozen=True, slots=True"):
        frozen.dataclass(frozen=True, slots=False)
    with pytest.raises(TypeError, match="no bases, and defaults that stay"):
        both({"a": []}, a="list[int]")
    based = type("Based", (Inner,), {"__annotations__": {"y": "int"}})
    with pytest.raises(TypeError, match="no bases"):
        frozen.dataclass(frozen=True, slots=True)(based)
