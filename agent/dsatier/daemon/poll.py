# SPDX-License-Identifier: Apache-2.0
"""A poll of the few files that change without a device event of the kernel.

It costs a hundredth of a look, and says only whether a look is needed. Most of these files change
by a write, and the daemon gets an event for it. What the kernel changes by itself, and what
causes no event, must be read again and again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from dsatier.facts.kernel_complaints import may_complain
from dsatier.facts.knobs import KNOBS
from dsatier.facts.model import Facts
from dsatier.facts.observe.read import readable
from dsatier.facts.readings import on
from dsatier.host.port import Host

_FILES = ("/proc/swaps", "/sys/devices/system/cpu/online", "/sys/devices/system/node/online")
TOLD = _FILES
"""Those of whose changes the kernel tells: swap by its own file, CPUs and nodes as devices."""
_KERNELS = tuple(KNOBS[name].path for name in ("use_dsa_copy_pages", "dsa_state"))
"""Knobs that the kernel clears by itself, where an engine fails."""

Follow = Callable[[Iterable[str]], frozenset[str]]
"""Watches files from now on, and returns those that it can watch."""


def _nothing(paths: Iterable[str]) -> frozenset[str]:
    del paths
    return frozenset()


class Glance:
    """Remembers what was there, and tells when it is no more."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._said: dict[str, str | None] = {}
        self._watched: frozenset[str] = frozenset()
        self._often: tuple[str, ...] = ()
        self._log_counts = True
        self._mark = 0

    @property
    def restless(self) -> bool:
        """Tell whether something may change of which nobody tells."""
        return self._log_counts or bool(self._often)

    def remember(self, facts: Facts, follow: Follow = _nothing, told: Iterable[str] = ()) -> None:
        """Take the present contents as expected: a look was taken a moment ago.

        ``told`` are files whose changes cause another event.
        """
        knobs = tuple(knob.path for name, knob in KNOBS.items() if name in facts.knobs)
        devices = tuple(f"/sys/bus/dsa/devices/{device.id}/state" for device in facts.devices)
        paths = (*_FILES, *knobs, *devices)
        self._log_counts = bool(facts.devices) or on(facts, "use_dsa_copy_pages")
        kernels = (*devices, *_KERNELS) if self._log_counts else ()
        self._watched = follow(paths)  # before they are read: what is written then is told
        seen = (self._watched | frozenset(told)) - frozenset(kernels)
        self._often = tuple(path for path in paths if path not in seen)
        self._said = {path: readable(self._host, path) for path in paths}
        self._mark = self._host.log_mark()

    def changed(self) -> str | None:
        """Return what is not as it was, None where everything is."""
        return self._unlike(self._said) or self._complaint()

    def restless_changed(self) -> str | None:
        """Return what is not as it was of all that may change with nobody telling."""
        return self._unlike(self._often) or (self._complaint() if self._log_counts else None)

    def watched(self, path: str) -> bool:
        """Return whether a write to ``path`` should have caused an event."""
        return path in self._watched

    def _unlike(self, paths: Iterable[str]) -> str | None:
        for path in paths:
            if readable(self._host, path) != self._said[path]:
                return path
        return None

    def _complaint(self) -> str | None:
        mark = self._host.log_mark()
        if mark == self._mark:
            return None
        lines = self._host.log_since(self._mark).lines
        self._mark = mark
        return next(filter(may_complain, lines), None)
