# SPDX-License-Identifier: Apache-2.0
"""A host of nothing but named texts and links: the least that can be observed."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from dsatier.host.port import LogTail, Missing, Ran


class TextHost:
    """Implements the port for reading. ``reads`` counts what was read."""

    def __init__(
        self,
        files: dict[str, str] | None = None,
        links: dict[str, str] | None = None,
        log: tuple[str, ...] = (),
    ) -> None:
        self.files = dict(files or {})
        self.links = dict(links or {})
        self.log = list(log)
        self.log_first = 0
        self.version: str | None = None
        self.reads: list[str] = []
        self.runs: list[tuple[str, ...]] = []

    def read(self, path: str) -> str:
        self.reads.append(path)
        if path not in self.files:
            raise Missing(path, "is not there")
        return self.files[path]

    def entries(self, path: str) -> tuple[str, ...]:
        below = path.rstrip("/") + "/"
        every = (*self.files, *self.links)
        return tuple(sorted({p[len(below) :].split("/")[0] for p in every if p.startswith(below)}))

    def others(self, path: str) -> str:
        return ""

    def link(self, path: str) -> str | None:
        return self.links.get(path)

    def write(self, path: str, text: str, deadline: float) -> None:
        raise NotImplementedError

    def run(self, argv: tuple[str, ...], deadline: float) -> Ran:
        self.runs.append(argv)
        if self.version is None:
            raise Missing(argv[0], "is not installed")
        return Ran(0 if self.version else 1, self.version, "")

    def resolve(self, path: str) -> str:
        return path

    def log_mark(self) -> int:
        return self.log_first + len(self.log)

    def log_since(self, mark: int) -> LogTail:
        lines = tuple(self.log[max(0, mark - self.log_first) :])
        return LogTail(lines, mark >= self.log_first)

    def hostname(self) -> str:
        return "text"

    def wall(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        raise NotImplementedError

    def keep(self, path: str, text: str, mode: int = 0o600) -> None:
        raise NotImplementedError

    def drop(self, path: str) -> None:
        raise NotImplementedError

    def note(self, path: str, text: str) -> None:
        raise NotImplementedError

    def noted(self, path: str) -> str | None:
        raise NotImplementedError

    def lock(self, path: str, holder: str) -> AbstractContextManager[None]:
        return nullcontext()
