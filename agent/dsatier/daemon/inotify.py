# SPDX-License-Identifier: Apache-2.0
"""Files that tell when somebody writes to them: by inotify, which sees /proc/sys and sysfs, too.

It sees who writes through the same mounted file system. It does not see what the kernel itself
changes, nor a container's writes through a /proc of its own. So it is only another reason to
look, never a reason not to.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable, Iterable

_WRITTEN = 0x00000002 | 0x00000008
"""IN_MODIFY, IN_CLOSE_WRITE: a write to a sysctl is over when the former comes."""
ENTRIES = 0x00000008 | 0x00000040 | 0x00000080 | 0x00000200
"""IN_CLOSE_WRITE, IN_MOVED_FROM, IN_MOVED_TO, IN_DELETE: what changes the files of a folder."""
_OVERFLOW = 0x00004000
_IGNORED = 0x00008000
_EVENT = struct.Struct("=iIII")
"""Watch, mask, cookie, and the length of the name behind it, which a folder's entry has."""
_LONGEST = 65536


class Watch:
    """A descriptor to poll, and which files were written to. Raises OSError where there is none.

    ``place`` returns the machine's own path of a host's file. May raise OSError. With ``what``
    ENTRIES it is folders that are watched, for changes of their files.
    """

    def __init__(self, place: Callable[[str], str], what: int = _WRITTEN) -> None:
        self._place = place
        self._what = what
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._inotify: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._inotify < 0:
            raise OSError(ctypes.get_errno(), "inotify is not to be had")
        self._watched: dict[str, int] = {}

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._inotify

    def follow(self, paths: Iterable[str]) -> frozenset[str]:
        """Watch these files and no others; return those that can be watched."""
        wanted = frozenset(paths)
        for path in self._watched.keys() - wanted:
            self._libc.inotify_rm_watch(self._inotify, self._watched.pop(path))
        for path in wanted - self._watched.keys():
            try:
                place = os.fsencode(self._place(path))
            except OSError:
                continue
            number = self._libc.inotify_add_watch(self._inotify, place, self._what)
            if number >= 0:
                self._watched[path] = number
        return frozenset(self._watched)

    def drain(self) -> frozenset[str]:
        """Return the files that were written to since the last call."""
        numbers: set[int] = set()
        while True:
            try:
                data = os.read(self._inotify, _LONGEST)
            except BlockingIOError:
                break
            at = 0
            while at < len(data):
                number, mask, _, size = _EVENT.unpack_from(data, at)
                at += _EVENT.size + size
                if mask & _OVERFLOW:  # some were lost: any may have been among them
                    numbers.update(self._watched.values())
                elif mask & _IGNORED:  # the file went, with its watch
                    self._watched = {p: n for p, n in self._watched.items() if n != number}
                else:
                    numbers.add(number)
        return frozenset(path for path, number in self._watched.items() if number in numbers)

    def close(self) -> None:
        """Stop watching."""
        os.close(self._inotify)
