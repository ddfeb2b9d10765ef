# SPDX-License-Identifier: Apache-2.0
"""An initial file system as the kernel unpacks it: a cpio archive of the kind "newc". Pure."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True)
class Entry:
    """A file. ``mode`` has its kind as well as its rights."""

    data: bytes = b""
    mode: int = stat.S_IFREG | 0o644
    device: tuple[int, int] = (0, 0)


def program(data: bytes) -> Entry:
    """Return a file that can be run."""
    return Entry(data, stat.S_IFREG | 0o755)


def link(target: str) -> Entry:
    """Return a symbolic link."""
    return Entry(target.encode(), stat.S_IFLNK | 0o777)


def character(major: int, minor: int) -> Entry:
    """Return a device node."""
    return Entry(b"", stat.S_IFCHR | 0o600, (major, minor))


FOLDER = Entry(b"", stat.S_IFDIR | 0o755)


def archive(entries: Mapping[str, Entry]) -> bytes:
    """Return the archive of ``entries`` by absolute path. Folders above them are made."""
    every: dict[str, Entry] = {}
    for path, entry in sorted(entries.items()):
        relative = PurePosixPath(path.lstrip("/"))
        for above in reversed(relative.parents[:-1]):
            every.setdefault(str(above), entries.get(f"/{above}", FOLDER))
        every[str(relative)] = entry
    parts = [_record(number, path, entry) for number, (path, entry) in enumerate(every.items(), 1)]
    parts.append(_record(0, "TRAILER!!!", Entry(mode=0)))
    return b"".join(parts)


def _record(number: int, path: str, entry: Entry) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (number, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, *entry.device)
    head = b"070701" + b"".join(b"%08X" % field for field in (*fields, len(name), 0))
    return _padded(head + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
