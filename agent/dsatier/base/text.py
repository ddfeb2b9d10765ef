# SPDX-License-Identifier: Apache-2.0
"""Text for people and for sorting: natural order, ranges of numbers. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


def natural(name: str) -> tuple[Any, ...]:
    """Return what names sort by so that dsa10 comes after dsa2."""
    parts = re.split(r"(\d+)", name)
    return tuple(int(part) if part.isdecimal() else part for part in parts)


def ranges(numbers: Iterable[int]) -> str:
    """Return numbers as the kernel's lists write them.

    >>> ranges([0, 1, 2, 5])
    '0-2,5'
    """
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
