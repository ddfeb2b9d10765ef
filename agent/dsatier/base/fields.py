# SPDX-License-Identifier: Apache-2.0
"""Bounds of numbers and lengths, as they stand in annotations.

Programs that ask, such as pydantic when the project is built, get those of annotated_types;
importing that takes longer than all of dsatier's own values.
"""

from __future__ import annotations

from typing import Any

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Interval:
    """A number from ``ge`` to ``le``, both included."""

    __is_annotated_types_grouped_metadata__ = True

    def __init__(self, ge: float, le: float) -> None:
        self.ge = ge
        self.le = le

    def __iter__(self) -> Iterator[object]:
        from annotated_types import Interval as Theirs

        yield from Theirs(ge=self.ge, le=self.le)


class Len:
    """From ``least`` to ``most`` characters or members."""

    __is_annotated_types_grouped_metadata__ = True

    def __init__(self, least: int, most: int) -> None:
        self.least = least
        self.most = most

    def __iter__(self) -> Iterator[object]:
        from annotated_types import Len as Theirs

        yield from Theirs(self.least, self.most)


class Tagged:
    """Marks a union whose member is chosen by the field ``key``."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic import Discriminator

        return Discriminator(self.key).__get_pydantic_core_schema__(source, handler)


STRICT = {"strict": True, "extra": "forbid", "use_attribute_docstrings": True}
