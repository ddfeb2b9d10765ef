# SPDX-License-Identifier: Apache-2.0
"""Frozen dataclasses that cost little to define.

The standard decorator writes and compiles six methods for each class, at every start of the
program: with a hundred classes that takes longer than all that the daemon does before it is
ready. Here one method is compiled, ``__init__``, and only when a class is first used. A class
counts as a dataclass for all who ask; what they need of it is made when they do.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")

if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import dataclass as dataclass  # noqa: PLC0414  it is ours to give
else:

    def dataclass(*, frozen: bool, slots: bool) -> Callable[[type], type]:
        """Return a decorator that does as ``dataclasses.dataclass(frozen=True, slots=True)``.

        For classes with no bases and with plain defaults.
        """
        if not (frozen and slots):
            raise ValueError("expected frozen=True, slots=True")
        return _defined


def replace(one: T, /, **changes: Any) -> T:
    """Return a copy of a frozen value with other values in some of its fields."""
    kept = {name: getattr(one, name) for name in _names(one) if name not in changes}
    return type(one)(**kept, **changes)


def asdict(one: object) -> dict[str, Any]:
    """Return a frozen value as a dictionary, and all frozen values in it."""
    return {name: _plain(getattr(one, name)) for name in _names(one)}


def _names(one: object) -> tuple[str, ...]:
    names: tuple[str, ...] = type(one).__slots__  # type: ignore[attr-defined]
    return names


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind in (str, int, bool, float, type(None)):
        return value
    if kind in (tuple, list):
        return kind(map(_plain, value))
    if kind is dict:
        return {key: _plain(one) for key, one in value.items()}
    return asdict(value) if _FIELDS in kind.__dict__ else value


_FIELDS, _PARAMS = "__dataclass_fields__", "__dataclass_params__"


def _defined(cls: type) -> type:
    """Return the class anew, with slots: a class that is there cannot be given any."""
    names = tuple(cls.__dict__.get("__annotations__", ()))  # noqa: RUF063  inspect is dear
    body = {key: value for key, value in cls.__dict__.items() if key not in _OF_OLD}
    defaults = {name: body.pop(name) for name in names if name in body}
    if cls.__bases__ != (object,) or any(
        isinstance(one, list | dict | set) for one in defaults.values()
    ):
        raise TypeError(f"{cls.__qualname__}: expected no bases, and defaults that stay")
    ours = _methods(names, defaults) | {
        "__slots__": names,
        "__match_args__": names,
        # one each: whichever is asked for first must answer for itself
        _FIELDS: _Asked(defaults),
        _PARAMS: _Asked(defaults),
    }
    return type(cls)(cls.__name__, (), ours | body)


_OF_OLD = frozenset(("__dict__", "__weakref__"))


def _methods(names: tuple[str, ...], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return what every frozen class can do."""
    values: Callable[[object], Any] = attrgetter(*names) if names else _nothing
    alone = len(names) == 1

    def init(self: Any, *given: Any, **named: Any) -> None:
        cls = type(self)
        cls.__init__ = _init(cls, names, defaults)
        cls.__init__(self, *given, **named)

    def eq(self: object, other: object) -> Any:
        if self.__class__ is not other.__class__:
            return NotImplemented
        return values(self) == values(other)

    def of_all(self: object) -> int:
        found = values(self)
        return hash((found,) if alone else found)

    def words(self: object) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__qualname__}({fields})"

    def parts(self: object) -> tuple[type, tuple[Any, ...]]:
        found = values(self)
        return type(self), (found,) if alone else found

    return {
        "__init__": init,
        "__eq__": eq,
        "__hash__": of_all,
        "__repr__": words,
        "__reduce__": parts,
        "__setattr__": _not_set,
        "__delattr__": _not_deleted,
    }


def _nothing(one: object) -> tuple[()]:
    del one
    return ()


def _not_set(self: object, name: str, value: object) -> None:
    del self, value
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _not_deleted(self: object, name: str) -> None:
    del self
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _init(cls: type, names: tuple[str, ...], defaults: dict[str, Any]) -> Any:
    """Compile the ``__init__`` of a class; it fills the slots past what guards them."""
    known: dict[str, Any] = {}
    words, lines = [], []
    for name in names:
        known[f"_set_{name}"] = cls.__dict__[name].__set__
        lines.append(f" _set_{name}(self, {name})\n")
        if name in defaults:
            known[f"_default_{name}"] = defaults[name]
            words.append(f"{name}=_default_{name}")
        else:
            words.append(name)
    source = f"def __init__(self, {', '.join(words)}):\n{''.join(lines) or ' pass'}"
    exec(source, known)  # noqa: S102  names of fields, which are ours
    known["__init__"].__qualname__ = f"{cls.__qualname__}.__init__"
    return known["__init__"]


class _Asked:
    """What the module ``dataclasses`` and its friends ask a class for, made when they do."""

    def __init__(self, defaults: dict[str, Any]) -> None:
        self._defaults = defaults

    def __get__(self, one: object, cls: type) -> Any:
        import dataclasses

        body = {key: cls.__dict__[key] for key in ("__module__", "__annotations__")}
        twin = type(cls.__name__, (), {**body, "__doc__": "", **self._defaults})
        made: type = dataclasses.dataclass(frozen=True)(twin)
        for name in (_FIELDS, _PARAMS):
            setattr(cls, name, made.__dict__[name])
        return cls.__dict__[self._name]

    def __set_name__(self, cls: type, name: str) -> None:
        self._name = name
