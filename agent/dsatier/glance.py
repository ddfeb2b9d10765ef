# SPDX-License-Identifier: Apache-2.0
"""A glance: the few files that other writers change without an event of the kernel.

It costs a hundredth of a look, and says only whether a look is worth while.
"""

from __future__ import annotations

from dsatier.evidence import complaints
from dsatier.facts import Facts
from dsatier.host import Host
from dsatier.knobs import KNOBS
from dsatier.observe.reader import readable

_FILES = ("/proc/swaps", "/sys/devices/system/cpu/online", "/sys/devices/system/node/online")


class Glance:
    """Remembers what was there, and tells when it is no more."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._paths: tuple[str, ...] = ()
        self._said: tuple[str | None, ...] = ()
        self._mark = 0

    def remember(self, facts: Facts) -> None:
        """Take what is there now for what is to be: a look has just been taken."""
        knobs = tuple(knob.path for name, knob in KNOBS.items() if name in facts.knobs)
        devices = tuple(f"/sys/bus/dsa/devices/{device.id}/state" for device in facts.devices)
        self._paths = (*_FILES, *knobs, *devices)
        self._said = self._read()
        self._mark = self._host.log_mark()

    def changed(self) -> str | None:
        """Return what is not as it was, None where everything is."""
        for path, was, now in zip(self._paths, self._said, self._read(), strict=True):
            if was != now:
                return path
        mark = self._host.log_mark()
        if mark == self._mark:
            return None
        said = complaints(self._host.log_since(self._mark).lines)
        self._mark = mark
        return said[0] if said else None

    def _read(self) -> tuple[str | None, ...]:
        return tuple(readable(self._host, path) for path in self._paths)
