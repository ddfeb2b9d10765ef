# SPDX-License-Identifier: Apache-2.0
"""A simulated host that the real accel-config can see."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from dsatier.host.files import PATH, FileHost
from dsatier.sim.host import SimHost
from tests.system.simfs import mounted

Show = Callable[[SimHost], FileHost]


def _lacking() -> str:
    if os.geteuid() != 0:
        return "needs root, to mount"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "needs /dev/fuse"
    if shutil.which("accel-config", path=PATH) is None:
        return "needs Debian's package accel-config"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacking = _lacking()
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("system")
            if lacking:
                item.add_marker(pytest.mark.skip(reason=lacking))


@pytest.fixture
def show(tmp_path: Path) -> Iterator[Show]:
    """Show a simulated host's files to FileHost and to every program that it runs."""
    with ExitStack() as stack:

        def shown(sim: SimHost) -> FileHost:
            root = stack.enter_context(mounted(sim, tmp_path / "root"))
            host = FileHost(str(root))
            stack.callback(host.close)
            return host

        yield shown
    with suppress(ChildProcessError):
        while True:
            # children that hung in a write come back when the file system goes
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break


@pytest.fixture(autouse=True)
def _no_signals_left_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    assert before == signal.pthread_sigmask(signal.SIG_BLOCK, ())
