# SPDX-License-Identifier: Apache-2.0
"""The whole command on real files: a simulated kernel behind FUSE, the real accel-config."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dsatier.host.files import PATH

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount"),
    pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs /dev/fuse"),
    pytest.mark.skipif(
        shutil.which("accel-config", path=PATH) is None,
        reason="needs Debian's package accel-config",
    ),
]
REPOSITORY = Path(__file__).resolve().parents[2]
DSA = str(REPOSITORY / "profiles" / "tpp-dsa.yaml")
DSATIER = [sys.executable, "-m", "dsatier"]
PATIENCE = 60.0


class Tree:
    """A simulated host that another process shows as files."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        root.mkdir()
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.system.simfs", str(root), "--host", name],
            cwd=REPOSITORY,
            env=environment(),
        )
        until = time.monotonic() + PATIENCE
        while not (root / "sim" / "harm").exists():
            assert self._server.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)

    def close(self) -> None:
        """Take the files away."""
        self._server.send_signal(signal.SIGTERM)
        self._server.wait(PATIENCE)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command on the host."""
        return subprocess.Popen(
            [*DSATIER, words[0], "--root", str(self.root), *words[1:]],
            cwd=REPOSITORY,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        """Run a command on the host; return exit code, output and errors."""
        process = self.start(*words)
        out, err = process.communicate(timeout=PATIENCE)
        return process.returncode, out, err

    def json(self, *words: str) -> Any:
        """Run a command and return its JSON."""
        return json.loads(self.run(*words, "--json")[1])

    @property
    def harm(self) -> str:
        """What unsafe writes did to the host."""
        return (self.root / "sim" / "harm").read_text(encoding="utf-8")

    @property
    def down(self) -> str:
        """Why the host is down."""
        return (self.root / "sim" / "down").read_text(encoding="utf-8")

    def inject(self, **fault: object) -> None:
        """Let something go wrong."""
        (self.root / "sim" / "inject").write_text(json.dumps(fault), encoding="utf-8")


def environment() -> dict[str, str]:
    """The environment of every process here."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY / "agent")}


@pytest.fixture(params=["dsa8", "dsa8-seed"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Tree]:
    tree = Tree(tmp_path / "root", request.param)
    try:
        yield tree
        assert (tree.harm, tree.down) == ("", "")
    finally:
        tree.close()


def test_up_drift_and_down(tree: Tree) -> None:
    code, out, err = tree.run("apply", "-p", DSA)
    assert (code, out) == (0, "changed (converged): every step is proven\n"), err
    assert tree.run("verify", "-p", DSA)[0] == 0
    assert tree.run("status")[0] == 0

    (tree.root / "proc/sys/vm/dsa_copy_threshold").write_text("99\n", encoding="utf-8")
    assert tree.run("verify", "-p", DSA)[0] == 4
    assert tree.run("reconcile", "-p", DSA)[0] == 0
    assert tree.run("verify", "-p", DSA)[0] == 0

    code, out, err = tree.run("rollback")
    assert (code, out.startswith("changed (unmanaged)")) == (0, True), err
    facts = tree.json("facts")
    assert facts["knobs"]["dsa_state"] == "0"
    assert {device["state"] for device in facts["devices"]} == {"disabled"}


def test_a_second_writer_is_told_who_holds_the_lock(tree: Tree) -> None:
    tree.inject(kind="hung-write", path="/proc/sys/vm/dsa_state")
    first = tree.start("apply", "-p", DSA)
    assert first.stderr is not None
    for line in first.stderr:
        if "dsa7 configured" in line:
            break
    code, _, err = tree.run("apply", "-p", DSA)
    assert code == 11
    assert f"process {first.pid}" in err
    # the first one's write hangs: it says so, and leaves
    _, err = first.communicate(timeout=PATIENCE)
    assert first.returncode == 1
    assert "dsa_state" in err
    assert tree.json("status")["state"] == "reboot-required"


def test_killed_at_any_moment(tree: Tree) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    began = time.monotonic()
    assert tree.run("apply", "-p", DSA)[0] == 0
    whole = time.monotonic() - began
    assert tree.run("rollback")[0] == 0
    for _ in range(4):
        process = tree.start("apply", "-p", DSA)
        time.sleep(chance.uniform(0.05, 1.0) * whole)
        process.kill()
        process.communicate(timeout=PATIENCE)
        assert tree.harm == ""
        # whatever it left: the next run finds its way, and says the truth
        code, _, err = tree.run("apply", "-p", DSA)
        state = tree.json("status")["state"]
        assert (code, state) in ((0, "converged"), (4, "quarantined")), err
        if state == "quarantined":
            assert tree.json("facts")["knobs"]["use_dsa_copy_pages"] == "0"
            assert tree.run("clear")[0] == 0
            assert tree.run("apply", "-p", DSA)[0] == 0
        assert tree.run("rollback")[0] == 0
