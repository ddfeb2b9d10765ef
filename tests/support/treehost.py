# SPDX-License-Identifier: Apache-2.0
"""A host whose files are real and whose kernel is simulated.

``TreeHost`` lays a simulated host's files out below a directory and reads and writes them
as ``FileHost`` does; each write then meets the simulated kernel, and what it changed is
laid out again. So real files behave as a kernel's do.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from dsatier.host.files import FileHost
from dsatier.host.port import Ran
from dsatier.sim.host import SimHost
from dsatier.sim.layout import Node

KMSG = "/dev/kmsg"


class Layout:
    """The files of a simulated host below a directory, kept as the host changes."""

    def __init__(self, sim: SimHost, root: Path) -> None:
        self._sim = sim
        self._root = root
        self._laid: dict[str, Node] = {}
        self.refresh()

    def refresh(self) -> None:
        """Bring the files to what the host says now; files that stay are the same files."""
        new = {node.path: node for node in self._nodes()}
        for path in sorted(self._laid.keys() - new.keys(), reverse=True):
            self._remove(path)
        for path, node in new.items():
            old = self._laid.get(path)
            if old is not None and (old.kind, node.kind) != ("file", "file") and old != node:
                self._remove(path)
                old = None
            if old != node:
                self._lay(node)
        self._laid = new

    def _nodes(self) -> list[Node]:
        own = self._sim.files
        nodes = [node for node in self._sim.walk() if node.path not in own]
        first = self._sim.kernel.state.log_first
        lines = self._sim.kernel.state.log
        log = "".join(f"6,{n},{n},-;{line}\n" for n, line in enumerate(lines, first))
        return [*nodes, Node("/dev", "dir", None), Node(KMSG, "file", log)]

    def _remove(self, path: str) -> None:
        place = self._root / path[1:]
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)

    def _lay(self, node: Node) -> None:
        place = self._root / node.path[1:]
        if node.kind == "dir":
            place.mkdir(parents=True, exist_ok=True)
        elif node.kind == "link":
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(node.text or "")
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(node.text or "", encoding="utf-8")

    def stale(self, path: str) -> None:
        """Say that somebody wrote to a file, so that it is laid out again."""
        self._laid = {p: n for p, n in self._laid.items() if p != path or n.kind != "file"}


class TreeHost(FileHost):
    """A FileHost on the files of ``sim``, which is its kernel."""

    def __init__(self, sim: SimHost, root: Path) -> None:
        self.sim = sim
        self.layout = Layout(sim, root)
        super().__init__(str(root))

    def write(self, path: str, text: str, deadline: float) -> None:
        """Write to the real file, then let the kernel have its say."""
        super().write(path, text, deadline)
        self.layout.stale(path)
        try:
            self.sim.write(path, text, deadline)
        finally:
            self.layout.refresh()

    def run(self, argv: tuple[str, ...], deadline: float) -> Ran:
        """Let the simulated host run the command."""
        try:
            return self.sim.run(argv, deadline)
        finally:
            self.layout.refresh()

    def sleep(self, seconds: float) -> None:
        """Let the simulated clock pass."""
        try:
            self.sim.sleep(seconds)
        finally:
            self.layout.refresh()
