# SPDX-License-Identifier: Apache-2.0
"""No change dies with its terminal: streams that are closed, full or unread, and a hang-up."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dsatier.sim.host import SimHost
from tests.support.running import PATIENCE, PROFILES, environment
from tests.support.treehost import Layout

CONCURRENCY = "version: 1\nconcurrency: {use_concur_to_compact: true, use_concur_to_demote: true}\n"
STREAMS = ("2>&1 | head -n 3", "2>/dev/full", "2>&-", ">/dev/full", ">&- 2>&- <&-")
"""What a shell does to standard output and standard error."""


def simulated(folder: Path) -> tuple[list[str], str]:
    """Return the words for a simulated host whose state stays, and a profile for it."""
    words = ["--host", "sim:dsa8", "--sim-state", str(folder / "host.json")]
    return words, str(PROFILES / "dsa.yaml")


def tree(folder: Path) -> tuple[list[str], str]:
    """The same for a tree, which has no kernel that would start a DSA."""
    Layout(SimHost.host_for("dsa2"), folder / "tree")
    profile = folder / "profile.yaml"
    profile.write_text(CONCURRENCY, encoding="utf-8")
    return ["--root", str(folder / "tree")], str(profile)


def shell(words: list[str], streams: str) -> int:
    """Run dsatier with its streams so, and return its exit code."""
    command = '"$@" ' + streams + "; exit ${PIPESTATUS[0]}"
    argv = ["bash", "-c", command, "bash", sys.executable, "-m", "dsatier", *words]
    ran = subprocess.run(
        argv, env=environment(), capture_output=True, timeout=PATIENCE, check=False
    )
    return ran.returncode


def status(host: list[str]) -> dict[str, Any]:
    """Return the status that the host tells."""
    ran = subprocess.run(
        [sys.executable, "-m", "dsatier", "status", *host, "--json"],
        env=environment(),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    found = json.loads(ran.stdout)
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("build", "streams", "more"),
    [
        *((simulated, streams, []) for streams in STREAMS),
        (simulated, ">/dev/full", ["--json"]),
        (tree, STREAMS[0], []),
        (tree, STREAMS[2], []),
    ],
)
def test_a_change_does_not_end_with_its_streams(
    tmp_path: Path,
    build: Callable[[Path], tuple[list[str], str]],
    streams: str,
    more: list[str],
) -> None:
    host, profile = build(tmp_path)
    assert shell(["apply", *host, "-p", profile, *more], streams) == 0
    assert status(host)["state"] == "converged"
    assert shell(["rollback", *host, *more], streams) == 0
    assert (status(host)["state"], status(host)["reason"]) == ("unmanaged", "Withdrawn")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_turns_a_change_round(
    tmp_path: Path, number: signal.Signals
) -> None:
    """The change waits for its terminal at a line of progress; there the signal meets it."""
    host, profile = simulated(tmp_path)
    reader, writer = os.pipe()
    size = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writer, b"-" * size)
    # whoever runs the tests in the background ignores some signals, and so would it
    words = [sys.executable, "-m", "dsatier", "apply", *host, "-p", profile]
    argv = ["env", "--default-signal", *words]
    with subprocess.Popen(argv, env=environment(), stderr=writer) as process:
        os.close(writer)
        until_it_writes(process.pid)
        process.send_signal(number)
        os.read(reader, size)
        with os.fdopen(reader, encoding="utf-8") as stream:
            said = stream.read()
        assert process.wait(PATIENCE) == 1
    assert "interrupted" in said
    found = status(host)
    assert (found["state"], found["latch"]) == ("reverted", "none")


def until_it_writes(process: int) -> None:
    """Wait until a process is held up in a write to its full standard error."""
    place = Path(f"/proc/{process}/wchan")
    end = time.monotonic() + PATIENCE
    while "pipe_w" not in place.read_text(encoding="ascii"):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_who_ignores_a_hang_up_is_not_turned_round(tmp_path: Path) -> None:
    host, profile = simulated(tmp_path)
    words = ["apply", *host, "-p", profile]
    argv = ["nohup", sys.executable, "-m", "dsatier", *words]
    before = 'trap "" HUP; (sleep 0.1; kill -HUP $$) & exec "$@"'
    ran = subprocess.run(
        ["bash", "-c", before, "bash", *argv],
        env=environment(),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert status(host)["state"] == "converged"
