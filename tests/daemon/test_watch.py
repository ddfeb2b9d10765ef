# SPDX-License-Identifier: Apache-2.0
"""Files tell when somebody writes to them."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import hosts
from bench.service import HOST, our_profile
from dsatier.daemon.inotify import Watch
from dsatier.host.files import FileHost
from dsatier.sim.host import SimHost
from tests.support.running import Running, folder
from tests.support.treehost import Layout

COMPACT = "/proc/sys/vm/use_concur_to_compact"
CALM = 3.0
"""Seconds for which a daemon is watched."""


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    (tmp_path / "a").write_text("0\n")
    (tmp_path / "b").write_text("0\n")
    found = Watch(FileHost(str(tmp_path)).place)
    yield found
    found.close()


def told(watch: Watch) -> bool:
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    return bool(poll.poll(0))


def test_a_write_is_told_once(watch: Watch, tmp_path: Path) -> None:
    assert frozenset({"/a", "/b"}) == watch.follow(("/a", "/b", "/not-there"))
    assert (False, frozenset()) == (told(watch), watch.drain())
    (tmp_path / "b").write_text("1\n")
    assert (True, frozenset({"/b"})) == (told(watch), watch.drain())
    assert (False, frozenset()) == (told(watch), watch.drain())


def test_reading_is_nobodys_business(watch: Watch, tmp_path: Path) -> None:
    watch.follow(("/a",))
    assert "0\n" == (tmp_path / "a").read_text()
    assert not told(watch)


def test_what_is_followed_no_more_is_not_told(watch: Watch, tmp_path: Path) -> None:
    watch.follow(("/a", "/b"))
    assert frozenset({"/a"}) == watch.follow(("/a",))
    watch.drain()  # that the watch of the other went is an event, too
    (tmp_path / "b").write_text("1\n")
    assert frozenset() == watch.drain()


def test_a_file_that_came_back_is_another_file(watch: Watch, tmp_path: Path) -> None:
    watch.follow(("/a",))
    (tmp_path / "a").unlink()
    (tmp_path / "a").write_text("1\n")
    watch.drain()
    assert frozenset({"/a"}) == watch.follow(("/a",))
    (tmp_path / "a").write_text("2\n")
    assert frozenset({"/a"}) == watch.drain()


@pytest.mark.system  # needs root
@pytest.mark.skipif(
    not os.access("/proc/sys/vm/stat_interval", os.W_OK), reason="needs a /proc/sys to write to"
)
def test_the_kernel_tells_of_a_sysctl() -> None:
    path = Path("/proc/sys/vm/stat_interval")
    watch = Watch(FileHost().place)
    try:
        assert frozenset({str(path)}) == watch.follow((str(path),))
        path.write_text(path.read_text())
        assert frozenset({str(path)}) == watch.drain()
    finally:
        watch.close()


def wakes(pid: int) -> int:
    """Return how often a process has gone to sleep."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("voluntary"))


@pytest.fixture(scope="module")
def on_files() -> Iterator[Running]:
    """Yield a daemon on a host of plain files that are as its profile says."""
    with folder() as root:
        sim = SimHost.load(HOST)
        hosts.apply(sim, our_profile(1))
        Layout(sim, root)
        running = Running(root, None)
        try:
            calm = "drift: {interval: 3600, fights: 4, window: 86400}"
            running.profile(our_profile(1).replace("drift: {fights: 100, window: 6000}", calm))
            running.start("--log-level", "debug")
            running.until_state("converged")
            yield running
        finally:
            running.close()


def test_drift_is_told_of_and_repaired(on_files: Running) -> None:
    for repaired in (1, 2):
        time.sleep(0.3)
        (on_files.root / COMPACT[1:]).write_text("0\n")
        on_files.until(lambda n=repaired: on_files.status()["repaired"] == n, "a repair")  # type: ignore[misc]
    assert "1\n" == (on_files.root / COMPACT[1:]).read_text()
    # looks say nothing of it, and as long as they are close together no glance is due
    told = {line["what"] for line in on_files.log("changed") if line["level"] == "debug"}
    assert {COMPACT} == told


def test_a_writer_of_the_same_value_is_let_be(on_files: Running) -> None:
    before = on_files.status()["repaired"]
    for _ in range(100):
        (on_files.root / COMPACT[1:]).write_text("1\n")
    time.sleep(0.5)
    assert (before, "converged") == (on_files.status()["repaired"], on_files.state())


def test_it_sleeps_while_nothing_happens(on_files: Running) -> None:
    time.sleep(1.0)
    before = wakes(on_files.pid)
    time.sleep(CALM)
    # a glance at everything may be due, and looks that draw apart
    assert wakes(on_files.pid) - before <= 6 * CALM
