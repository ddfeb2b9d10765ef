# SPDX-License-Identifier: Apache-2.0
"""What two dumps of a DSA differ in: the emulated one and the real one, say.

::

    python3 -m tests.emulator.dump.diff EMULATED.json REAL.json

Differences that must be there are explained and do not count; exit 0 if there is no other, else 1.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

SCHEMA = 1

#: Where two right devices differ, and why. Places are patterns, as of file names.
EXPLAINED: Mapping[str, str] = {
    "pci.address": "where the device sits is the machine's",
    "pci.revision": "a stepping of the silicon",
    "pci.subsystem": "the board's maker",
    "pci.capabilities*": "power management and others that the emulated device has no use for",
    "pci.extended*": "what the root complex and IOMMU offer decides on ATS, PASID, PRS and others",
    "registers.tables": "where tables lie is the device's choice, drivers read it here",
    "registers.wqcap": "size, number and features of queues are options of the emulated device",
    "registers.grpcap": "number of groups and read buffers are options of the emulated device",
    "registers.engcap": "number of engines is an option of the emulated device",
    "registers.cmdcap": "requesting interrupt handles is an option of the emulated device",
    "tables *.groups*": "as many as there are groups",
    "tables *.queues*": "as many as there are queues",
}


class Difference(NamedTuple):
    """A place where two dumps differ. A value that is not there is None."""

    place: str
    first: Any
    second: Any
    why: str | None


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value with its place.

    >>> list(leaves({"a": {"b": 1}, "c": [2, 3]}))
    [('a.b', 1), ('c[0]', 2), ('c[1]', 3)]
    """
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, f"{place}.{name}" if place else name)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from leaves(inner, f"{place}[{number}]")
    else:
        yield place, value


def explanation(place: str) -> str | None:
    """Return why two right devices differ in a place, None where they must not.

    >>> explanation("pci.address")
    "where the device sits is the machine's"
    >>> explanation("descriptors.noop.record.status")
    """
    for pattern, why in EXPLAINED.items():
        if fnmatch.fnmatchcase(place, pattern.replace("[", "[[]")):
            return why
    return None


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """Return where two dumps differ, in the order of the first."""
    one, two = dict(leaves(dict(first))), dict(leaves(dict(second)))
    return [
        Difference(place, one.get(place), two.get(place), explanation(place))
        for place in dict.fromkeys([*one, *two])
        if one.get(place) != two.get(place)
    ]


def load(path: str) -> dict[str, Any]:
    """Read a dump; raises ``ValueError`` where it is none of this schema."""
    found = json.loads(Path(path).read_text(encoding="utf-8"))
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise ValueError(f"{path}: expected a dump of schema {SCHEMA}, made by dsa-dump")
    return found


def main(words: list[str]) -> int:
    """Print the differences of two dumps."""
    parser = argparse.ArgumentParser(prog="dump.diff", description="what two dumps differ in")
    parser.add_argument("first")
    parser.add_argument("second")
    asked = parser.parse_args(words)
    found = differences(load(asked.first), load(asked.second))
    for difference in found:
        if difference.why is None:
            print(f"{difference.place}: {difference.first!r} here, {difference.second!r} there")
    for difference in found:
        if difference.why is not None:
            print(f"  ({difference.place}: {difference.why})")
    unexplained = sum(difference.why is None for difference in found)
    print(f"{unexplained} differences, and {len(found) - unexplained} that must be there")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
