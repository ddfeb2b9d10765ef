# SPDX-License-Identifier: Apache-2.0
"""Complaints of the kernel: the lines of its log by which an engine, or the kernel, is hurt.

A line counts by its kind and, where it is about a device, by the device. Its text alone is no
proof: a user's program can choose its own name, and that stands in lines about its crashes.
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from dsatier.facts.model import Facts
from dsatier.facts.readings import used

_ENGINE = re.compile(
    r"Failed to initialize DSA|Failed to get DMA channel|dsa_init: no device"
    r"|Failed to allocate page for (?:idxd_desc|dsa_)"
    r"|idxd_desc\[\d+\]\[\d+\] failed with status"
    r"|chan reference count 0 != 1"
    r"|dsatier: .*(?:copying by CPU|left to the CPU|out of use|DSA not initialised)",
    re.DOTALL,
)
"""What the copy engines of either family say."""

_DEVICE = re.compile(
    r"idxd (?P<idxd>\S+): .*(?:idxd halted|Device is HALTED)"
    r"|DMAR: .*Request device \[(?P<dmar>[^\]]+)\].* fault addr",
    re.DOTALL,
)
"""What the idxd driver and the IOMMU say of one device."""

_KERNEL = re.compile(
    r"BUG: (?:kernel NULL pointer dereference, address: |unable to handle |KASAN: |KFENCE: "
    r"|Bad page (?:state|map|cache) in |corrupted )"
    r"|kernel BUG at \S+:\d+!"
    r"|(?:Oops|general protection fault|divide error)\b.* \[#\d+\]",
    re.DOTALL,
)
"""What the kernel says when it has hurt itself. A lockup is none of it: it says who is slow."""

_PROGRAM = re.compile(r"traps: |.{0,15}\[\d+\]: segfault at |.{0,15}\[\d+\] bad frame ", re.DOTALL)
"""How a line begins that tells of the crash of a program, by its name and number."""


def complaints(lines: Iterable[str], facts: Facts, named: Collection[str] = ()) -> tuple[str, ...]:
    """Return the lines that tell of a hurt engine or kernel.

    Of devices those count that hold the engine's channels, and those of the names ``named``.
    """
    return tuple(line for line in lines if _counts(line, facts, named))


def oopses(lines: Iterable[str]) -> tuple[str, ...]:
    """Return the lines by which the kernel says that it has hurt itself."""
    return tuple(line for line in lines if _KERNEL.match(line) and not _PROGRAM.match(line))


def may_complain(line: str) -> bool:
    """Tell whether a line counts, whichever device it is about."""
    return bool(_KERNEL.match(line) or _ENGINE.match(line) or _DEVICE.match(line)) and not (
        _PROGRAM.match(line)
    )


def _counts(line: str, facts: Facts, named: Collection[str]) -> bool:
    if not may_complain(line):
        return False
    about = _DEVICE.match(line)
    if about is None:
        return True
    address = about["idxd"] or about["dmar"]
    # the IOMMU leaves the domain out; of a device whose address is not known it may be
    return any(not one.pci or one.pci.endswith(address) for one in used(facts, named))
