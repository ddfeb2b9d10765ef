# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's knobs: turned for each engine, and all put back at the end, in a safe order."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from copybench.cases import HUGE_PAGE, Case, Engine

VM = "proc/sys/vm"
THP = "sys/kernel/mm/transparent_hugepage"
MOVE_PAGES = 8
"""The bit of migrate_batch_reasons for move_pages(2)."""
ENGINES_OFF = ("use_dsa_copy_pages", "dsa_state", "cpu_multi_copy_pages")
"""What goes off first, in this order, whatever else changes."""
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals by which somebody ends a measurement."""
THREADS_OF = "limit_mt_num"
CHANNELS_OF = "limit_chans"


class Refused(Exception):
    """The host is not fit, or the kernel refused. The message says what was expected."""


class Knobs:
    """The knobs of a host whose files are below ``root``. What was there first is kept."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self.first: dict[str, str] = {}
        """The texts of the files that were written, as they were before."""

    def read(self, path: str) -> str:
        """Return a file's value: of a choice of words, the one that is chosen. Raises Refused."""
        try:
            text = (self.root / path).read_text(encoding="ascii").strip()
        except OSError as error:
            raise Refused(f"/{path}: {error.strerror}") from None
        chosen = [word for word in text.split() if word.startswith("[")]
        return chosen[0].strip("[]") if chosen else text

    def there(self, path: str) -> bool:
        """Tell whether a file is there."""
        return (self.root / path).exists()

    def write(self, path: str, text: str) -> None:
        """Write a file, unless it has that value. Raises Refused."""
        before = self.read(path)
        if before == text:
            return
        self.first.setdefault(path, before)
        self._put(path, text)

    def _put(self, path: str, text: str) -> None:
        try:
            (self.root / path).write_text(f"{text}\n", encoding="ascii")
        except OSError as error:
            raise Refused(f"/{path}: {text!r}: {error.strerror}") from None

    def restore(self) -> list[str]:
        """Put everything back, and return what could not be.

        Engines go off first and come back last: what they rest on changes in between.
        """
        off = [f"{VM}/{name}" for name in ENGINES_OFF]
        ours = [path for path in off if path in self.first]
        failed = []
        for path in ours:
            failed += self._try(path, "0")
        for path in reversed([path for path in self.first if path not in off]):
            failed += self._try(path, self.first[path])
        for path in reversed(ours):
            if self.first[path] != "0":
                failed += self._try(path, self.first[path])
        self.first.clear()
        return failed

    def _try(self, path: str, text: str) -> list[str]:
        with suppress(Refused):
            if self.read(path) == text:
                return []
        try:
            self._put(path, text)
        except Refused as error:
            return [str(error)]
        return []

    # what engines want

    def sysctl(self, name: str, value: int) -> None:
        """Write a file of /proc/sys/vm."""
        self.write(f"{VM}/{name}", str(value))

    def turn_to(self, engine: Engine, usecs: int, threshold: int) -> None:
        """Have an engine, and no other, copy what move_pages(2) moves. Raises Refused.

        ``usecs`` and ``threshold`` are those of the kernel's knobs.
        """
        if engine.kind == "plain" and not self.there(f"{VM}/migrate_batch_reasons"):
            return  # a kernel without the patches has nothing to turn
        for name in ENGINES_OFF:
            self.sysctl(name, 0)
        # bits of others stay, as far as they are not what is measured
        reasons = int(self.read(f"{VM}/migrate_batch_reasons"))
        batched = engine.kind != "plain"
        wanted = reasons | MOVE_PAGES if batched else reasons & ~MOVE_PAGES
        self.sysctl("migrate_batch_reasons", wanted)
        self.sysctl("migrate_batch_usecs", usecs)
        self.sysctl("migrate_copy_calibrate", 0)
        if engine.kind == "threads":
            self.sysctl(THREADS_OF, engine.count)
            self.sysctl("cpu_multi_copy_threshold", threshold)
            self.sysctl("cpu_multi_copy_pages", 1)
        if engine.kind == "dsa":
            self.sysctl(CHANNELS_OF, engine.count)
            self.sysctl("dsa_copy_threshold", threshold)
            self.sysctl("dsa_state", 1)
            self.sysctl("use_dsa_copy_pages", 1)

    def fit_for(self, case: Case) -> None:
        """Have memory come in folios of a case's size, and lists be as long. Raises Refused."""
        if self.there(f"{VM}/migrate_batch_pages"):
            longest = max(13312, min(262144, case.bytes // 4096))
            self.sysctl("migrate_batch_pages", longest)
        if case.size != 4096:
            self.write(f"{THP}/enabled", "madvise")
        mine = (case.size or HUGE_PAGE) >> 10
        place = self.root / THP
        # some sizes are of shared memory alone, and have no such file
        for folder in (file.parent for file in sorted(place.glob("hugepages-*kB/enabled"))):
            kib = int(folder.name.removeprefix("hugepages-").removesuffix("kB"))
            wanted = "madvise" if kib == mine and case.size != 4096 else "never"
            self.write(f"{THP}/{folder.name}/enabled", wanted)
        if mine not in (4, 2048) and not (place / f"hugepages-{mine}kB/enabled").exists():
            raise Refused(f"/{THP}: expected hugepages-{mine}kB, found none of that size")


@contextmanager
def borrowed(root: Path = Path("/")) -> Iterator[Knobs]:
    """Yield the knobs of a host, and put all of them back at the end, however it comes.

    Raises Refused where one of them did not go back.
    """
    knobs = Knobs(root)
    try:
        yield knobs
    finally:
        # a signal that comes now is heard when everything is back
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
        failed = knobs.restore()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if failed:
        raise Refused("not put back: " + "; ".join(failed))
