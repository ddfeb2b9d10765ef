# SPDX-License-Identifier: Apache-2.0
"""Calls in a process apart: what they return, raise, load and leave."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from dsatier.base.problem import Invalid, Problem
from dsatier.host import children
from dsatier.host.port import HostError, Hung, Locked, Missing, Rejected
from tests.support.running import PATIENCE, environment


def refuse(error: Exception) -> Callable[[], object]:
    def function() -> object:
        raise error

    return function


def nobody_is_left() -> None:
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize("value", [None, 0, "ÿ", (1, ("a",)), b"x" * 1_000_000, Invalid([])])
def test_what_it_returns(value: object) -> None:
    found = children.call("it", lambda: value, PATIENCE)
    assert (type(value), str(value)) == (type(found), str(found))
    nobody_is_left()


@pytest.mark.parametrize(
    "error",
    [
        Invalid([Problem("/x.yaml", 2, 15, ("engine",), "a", "b")]),
        Missing("/p", "is not there"),
        Rejected("/p", errno.EBUSY, "busy"),
        Locked("/l", "somebody"),
        ValueError("x"),
        KeyError("x"),
    ],
)
def test_what_it_raises(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        children.call("it", refuse(error), PATIENCE)
    assert str(error) == str(caught.value)
    if isinstance(error, HostError):
        assert vars(error) == vars(caught.value)
    nobody_is_left()


def test_it_is_another_process_and_leaves_nothing_behind() -> None:
    module = "antigravity_of_this_test"

    def load() -> int:
        sys.modules[module] = sys
        return os.getpid()

    assert os.getpid() != children.call("it", load, PATIENCE)
    assert module not in sys.modules


def test_it_dies() -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(Rejected, match="it: the process that does it died: signal 9") as caught:
        children.call("it", die, PATIENCE)
    assert errno.EIO == caught.value.errno
    nobody_is_left()


def test_what_it_returns_cannot_be_told() -> None:
    with pytest.raises(Exception, match="pickle"):
        children.call("it", lambda: lambda: None, PATIENCE)
    nobody_is_left()


def test_it_takes_too_long() -> None:
    with pytest.raises(Hung, match=r"it: has taken more than 0\.05 s and was killed"):
        children.call("it", lambda: time.sleep(PATIENCE), 0.05)
    nobody_is_left()


def test_a_stop_ends_it_and_not_the_daemon() -> None:
    """A signal to all the daemon's processes finds no handler of the daemon's in the child."""
    told: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    try:
        with pytest.raises(Rejected, match="signal 15"):
            children.call("it", lambda: os.kill(os.getpid(), signal.SIGTERM), PATIENCE)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert [] == told


def test_there_is_no_process_to_be_had() -> None:
    """Where descriptors are used up the answer is an error that a look may raise."""
    script = """
import os, resource
from dsatier.host import children
from dsatier.host.port import Rejected
children.call("it", lambda: 1, 60.0)
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1,) * 2)
try:
    children.call("it", lambda: 1, 60.0)
except Rejected as error:
    print(error.errno, error)
"""
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE,
        check=False,
    )
    words = "it: there is no process to be had for it: too many open files (EMFILE)"
    assert (f"{errno.EMFILE} {words}\n", "") == (ran.stdout, ran.stderr)


def test_a_child_that_sees_its_deadline_first_has_taken_too_long() -> None:
    """On a loaded machine the one who waits for it may be late."""
    with pytest.raises(Hung, match="it: has taken more than 30 s and was killed"):
        children.call("it", lambda: os.kill(os.getpid(), signal.SIGALRM), 30.0)
