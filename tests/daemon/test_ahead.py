# SPDX-License-Identifier: Apache-2.0
"""The profile is read ahead of a reload when its files change, and nothing acts on it before."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.running import Running, daemon

CPU = "version: 1\nengine: {kind: cpu}\n"
OTHER = "version: 1\nengine: {kind: cpu}\ntiering: {numa_balancing: 2}\n"
BROKEN = "version: 1\nengine: {kind: no-such}\n"


@pytest.fixture
def running() -> Iterator[Running]:
    with daemon("sim:dsa2", started=False) as found:
        found.start("--log-level", "debug")
        found.until(lambda: found.log("started"), "its start")
        found.look()
        yield found


def place(running: Running, name: str = "p.yaml") -> Path:
    return running.root / "etc/dsatier.d" / name


def ahead(running: Running) -> list[list[str]]:
    """Return the files of each profile that was read ahead, none where it was no good."""
    return [line["files"] for line in running.log("read ahead")]


def read(running: Running, times: int) -> None:
    """Wait until so many were read, and see that no more are."""
    running.until(lambda: len(ahead(running)) >= times, f"reading ahead no. {times}")
    time.sleep(0.3)
    assert times == len(ahead(running))


def test_a_changed_file_is_read_and_nothing_else_happens(running: Running) -> None:
    place(running).write_text(CPU)
    read(running, 1)
    assert [["/etc/dsatier.d/p.yaml"]] == ahead(running)
    assert "unmanaged" == running.state()
    assert 0 == running.reload().code
    assert "converged" == running.state()
    time.sleep(0.3)
    assert 1 == len(ahead(running))  # what a reload has read is not read once more


@pytest.mark.parametrize("how", ["rename", "remove", "write"])
def test_each_way_to_change_a_file_counts(running: Running, how: str) -> None:
    place(running).write_text(CPU)
    read(running, 1)
    assert 0 == running.reload().code
    if how == "rename":
        place(running, ".new").write_text(OTHER)
        read(running, 2)
        os.rename(place(running, ".new"), place(running))
    elif how == "remove":
        place(running).unlink()
    else:
        place(running).write_text(OTHER)
    read(running, 3 if how == "rename" else 2)
    assert 0 == running.reload().code
    assert ("NoProfile" if how == "remove" else "Accepted") == running.status()["profile"]["status"]


def test_what_was_read_ahead_is_not_used_once_it_is_old(running: Running) -> None:
    place(running).write_text(CPU)
    read(running, 1)
    stamp = place(running).stat()
    with place(running).open("r+") as same:  # the same file, the same times, another text
        same.write(BROKEN)
        same.truncate()
    os.utime(place(running), ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    ran = running.reload()
    assert 65 == ran.code
    assert "no-such" in ran.err


def test_a_broken_file_is_told_of_by_the_reload_only(running: Running) -> None:
    place(running).write_text(CPU)
    assert 0 == running.reload().code
    place(running).write_text(BROKEN)
    read(running, len(ahead(running)) + 1)
    assert [] == ahead(running)[-1]
    assert "Accepted" == running.status()["profile"]["status"]
    assert 65 == running.reload().code
    place(running).write_text(OTHER)
    read(running, len(ahead(running)) + 1)
    assert 0 == running.reload().code


def test_a_reload_may_come_while_it_is_read(running: Running) -> None:
    for text in (CPU, OTHER, BROKEN, CPU) * 3:
        place(running).write_text(text)
        assert (65 if text == BROKEN else 0) == running.reload().code


def test_a_reader_that_stands_still_is_ended_by_nobody_but_its_deadline(running: Running) -> None:
    """A file that blocks whoever opens it: the loop goes on, and orders are taken."""
    place(running).write_text(CPU)
    assert 0 == running.reload().code
    os.mkfifo(place(running, "q.yaml"))
    os.rename(place(running, "q.yaml"), place(running, "r.yaml"))
    running.look()
    place(running, "r.yaml").unlink()
    assert 0 == running.reload().code
    running.signal(signal.SIGTERM)
    assert 0 == running.ended()
