# SPDX-License-Identifier: Apache-2.0
"""Sight: facts of which a part was not looked at, and to ask for that part is an error.

Nearly all files of a host are of DSA queues, and most that is asked before or after one request
concerns none of them. So a question is put to narrow facts first; where it asks for more, it is
put again, to all of them. A question never gets an answer from what was not seen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any, Generic, NoReturn, TypeVar, cast

from dsatier.facts.model import DsaDevice, Facts

T = TypeVar("T")


class NotSeen(Exception):
    """A question went to what was not looked at."""


class Seen(Generic[T]):
    """Stands for a tuple of which only some entries were looked at, none where none is given.

    Going through them ends with NotSeen: there may be more.
    """

    def __init__(self, *entries: T) -> None:
        self._entries = entries

    def __iter__(self) -> Iterator[T]:
        """Yield what was looked at."""
        yield from self._entries
        raise NotSeen

    def _ask(self, *_: object) -> NoReturn:
        raise NotSeen

    __bool__ = __len__ = __getitem__ = __contains__ = __reversed__ = __add__ = __radd__ = _ask
    __eq__ = __ne__ = __lt__ = __hash__ = __str__ = __repr__ = __format__ = __reduce__ = _ask


def narrowed(facts: Facts, devices: Collection[str]) -> Facts:
    """Return facts of which DSA devices other than these, and all that they make, is not seen."""
    return replace(facts, **unseen(tuple(d for d in facts.devices if d.id in devices)))


def unseen(devices: tuple[DsaDevice, ...]) -> dict[str, Any]:
    """Return the fields of narrow facts that are not as they are in full ones."""
    nothing = Seen[Any]()
    return {
        "devices": cast("tuple[DsaDevice, ...]", Seen(*devices)),
        "channels": nothing,
        "iommu": nothing,
        "accel_config": nothing,
        "others": nothing,
        "elsewhere": nothing,
        "unbound": nothing,
    }
