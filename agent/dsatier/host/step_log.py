# SPDX-License-Identifier: Apache-2.0
"""Notes: a short text that is replaced again and again, in place, in one file of two slots.

A note goes into the slot of the older one, with the next number and a checksum over both. The
newest that is whole counts. So whatever a loss of power leaves of a slot that was being written,
the note before it stands in the other. The slots lie in blocks of their own, and the file keeps
its size: a note changes nothing of the file system but its own data, and needs no room.
"""

from __future__ import annotations

from zlib import crc32

SLOT = 4096
"""Bytes of a slot: a block of the usual file systems, so that a torn one tears no other."""
SIZE = 2 * SLOT
"""Bytes of the file."""
_HEAD = 30
"""Bytes of number, checksum and their blanks."""
LONGEST = SLOT - _HEAD - 1
"""Bytes of the longest note."""


def slot(number: int, text: bytes) -> bytes:
    """Return a slot that holds a note, less the blanks at its end. Raises ValueError: too long."""
    text = text.rstrip()
    if len(text) > LONGEST:
        raise ValueError(f"expected a note of {LONGEST} bytes at most, found {len(text)}")
    whole = b"%020d %08x %b" % (number, _sum(number, text), text)
    return whole.ljust(SLOT - 1) + b"\n"


def offset(number: int) -> int:
    """Return where in the file the note of that number goes."""
    return number % 2 * SLOT


def newest(data: bytes) -> tuple[int, bytes] | None:
    """Return number and text of the newest note that is whole, None where there is none."""
    if len(data) != SIZE:
        return None
    found = [note for at in (0, SLOT) if (note := _note(data[at : at + SLOT], at)) is not None]
    return max(found, default=None)


def _note(data: bytes, at: int) -> tuple[int, bytes] | None:
    number, total, text = data[:20], data[21:29], data[_HEAD:].rstrip()
    try:
        whole = offset(int(number)) == at and int(total, 16) == _sum(int(number), text)
    except ValueError:
        return None
    # what is written is compared, too: a blank that was lost or gained is no note of ours
    return (int(number), text) if whole and slot(int(number), text) == data else None


def _sum(number: int, text: bytes) -> int:
    return crc32(b"%020d %b" % (number, text))
