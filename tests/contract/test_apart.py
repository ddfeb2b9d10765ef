# SPDX-License-Identifier: Apache-2.0
"""Writes and commands that never come back."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dsatier.base.paths import LOCK
from dsatier.host import children
from dsatier.host.files import FileHost
from dsatier.host.port import Hung, Locked, Missing, Rejected

AGENT = Path(__file__).resolve().parents[2] / "agent"


def full_pipe() -> tuple[int, int]:
    """Return a pipe that takes no more: a write to it blocks, as one in the kernel does."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 65536)
    except BlockingIOError:
        os.set_blocking(writer, True)
    return reader, writer


def test_a_write_that_hangs_is_left_in_its_process_and_named() -> None:
    reader, writer = full_pipe()
    agent = children.Writer()
    try:
        with pytest.raises(Hung) as caught:
            agent.write("/proc/x", lambda: writer, b"1\n", 0.05)
        (child,) = agent.reap()
        assert f"process {child} is in it" in caught.value.message
        assert Path(f"/proc/{child}").exists()
        os.read(reader, 1 << 20)  # now it comes back
        assert (child, 0) == os.waitpid(child, 0)
        assert () == agent.reap()
    finally:
        os.close(reader)
        os.close(writer)


def test_after_a_hung_write_others_go_on(tmp_path: Path) -> None:
    reader, writer = full_pipe()
    agent = children.Writer()
    try:
        with pytest.raises(Hung):
            agent.write("/proc/x", lambda: writer, b"1\n", 0.05)
        place = tmp_path / "file"
        place.write_text("")
        agent.write("/proc/y", lambda: os.open(place, os.O_WRONLY), b"2\n", 5.0)
        assert "2\n" == place.read_text()
    finally:
        (child,) = agent.reap()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)


def test_a_writer_that_the_kernel_kills_is_told() -> None:
    def die() -> int:
        os.kill(os.getpid(), signal.SIGKILL)
        return -1

    with pytest.raises(Rejected, match="signal 9") as caught:
        children.Writer().write("/proc/x", die, b"1", 5.0)
    assert errno.EIO == caught.value.errno


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENODEV, errno.ENOENT, errno.EBUSY])
def test_a_refused_write_is_no_missing_file(code: int) -> None:
    class Refusing:
        """Its number is asked for by write() alone, which so fails with any errno."""

        def __index__(self) -> int:
            raise OSError(code, os.strerror(code))

    with pytest.raises(Rejected, match="'1' was refused") as caught:
        children.Writer().write("/proc/x", Refusing, b"1\n", 5.0)  # type: ignore[arg-type]
    assert code == caught.value.errno


def test_a_write_that_takes_less_is_told() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        with pytest.raises(Rejected, match="expected 10000000 bytes to be taken"):
            children.Writer().write("/proc/x", lambda: writer, b"x" * 10_000_000, 5.0)
    finally:
        os.close(reader)
        os.close(writer)


def programs(folder: Path, **scripts: str) -> str:
    for name, script in scripts.items():
        place = folder / name.replace("_", "-")
        place.write_text(f"#!/bin/sh\n{script}\n")
        place.chmod(0o755)
    return str(folder)


def test_a_command_gets_a_clean_environment_and_its_words_as_they_are(tmp_path: Path) -> None:
    path = programs(tmp_path, accel_config='for w; do echo "[$w]"; done; env; pwd; cat; exit 3')
    host = FileHost(path=f"{path}:/usr/bin:/bin")
    ran = host.run(("accel-config", "a b", "$(id)", "'", "*"), 5.0)
    assert 3 == ran.code
    assert "[a b]\n[$(id)]\n[']\n[*]\n" == ran.out[: ran.out.index("*]") + 3]
    assert "LC_ALL=C\n" in ran.out
    assert ran.out.endswith("/\n")
    assert "PYTHONPATH" not in ran.out


@pytest.mark.parametrize("name", ["sh", "/bin/sh", "", "accel-config2", "../accel-config"])
def test_no_other_command_is_run(name: str) -> None:
    with pytest.raises(ValueError, match="expected one of accel-config, swapoff, swapon"):
        FileHost().run((name,), 5.0)


def test_a_command_that_is_nowhere_is_missing(tmp_path: Path) -> None:
    with pytest.raises(Missing):
        FileHost(path=str(tmp_path)).run(("swapon", "x"), 5.0)


def test_a_command_that_does_not_end_is_killed_with_all_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    path = programs(tmp_path, swapoff=f"sleep 1000 & echo $$ $! > {pids}; wait")
    with pytest.raises(Hung, match="was killed"):
        FileHost(path=f"{path}:/usr/bin:/bin").run(("swapoff", "x"), 0.5)
    for pid in pids.read_text().split():
        state = Path(f"/proc/{pid}/stat")
        # gone, or a zombie that waits for the first process to reap it
        assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_command_that_leaves_something_behind_is_not_waited_for(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    path = programs(tmp_path, swapon=f"sleep 1000 & echo $! > {pids}; echo done")
    try:
        assert "done\n" == FileHost(path=f"{path}:/usr/bin:/bin").run(("swapon", "x"), 60.0).out
    finally:
        os.kill(int(pids.read_text()), signal.SIGKILL)


AT_WORK = """
import sys
from dsatier.base.paths import LOCK
from dsatier.host.children import run
from dsatier.host.rooted import Tree
from dsatier.host.state_files import OwnFiles
own = OwnFiles(Tree(sys.argv[1]))
with own.lock(LOCK, "one that is killed"):
    run((sys.argv[2],), {"PATH": "/usr/bin:/bin"}, 60.0, "accel-config", holds=own.locks)
"""


def killed_at_work(tmp_path: Path, script: str) -> tuple[FileHost, list[int]]:
    """Return a host whose dsatier was killed while a program ran, and what the program noted."""
    pids = tmp_path / "pids"
    root = tmp_path / "root"
    root.mkdir()
    noted = f"{pids}.new && mv {pids}.new {pids}"
    path = programs(tmp_path, accel_config=script.format(pids=noted))
    words = [sys.executable, "-c", AT_WORK, str(root), f"{path}/accel-config"]
    with subprocess.Popen(words, env={**os.environ, "PYTHONPATH": str(AGENT)}) as process:
        until(pids.exists)
        process.kill()
    return FileHost(str(root)), [int(pid) for pid in pids.read_text().split()]


def until(so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + 60.0
    while not so():
        assert time.monotonic() < end
        time.sleep(0.01)


def ended(pid: int) -> bool:
    """Tell whether a process is gone, or waits to be reaped."""
    state = Path(f"/proc/{pid}/stat")
    try:
        return state.read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_command_ends_with_the_one_who_ran_it(tmp_path: Path) -> None:
    """It would go on to configure a device that nobody waits for any more."""
    done = tmp_path / "done"
    host, (pid,) = killed_at_work(
        tmp_path, f"echo $$ > {{pids}}; while [ -e {tmp_path} ]; do :; done; touch {done}"
    )
    until(lambda: ended(pid))
    with host.lock(LOCK, "the next one"):
        assert not done.exists()


def test_what_a_command_leaves_at_work_holds_the_lock(tmp_path: Path) -> None:
    """The next run finds it, and does not go about what it is still at."""
    host, (pid,) = killed_at_work(tmp_path, "sleep 1000 & echo $! > {pids}; wait")
    try:
        until(lambda: bool(locked(host)))
        assert "one that is killed" in locked(host)
        assert "it has ended, but something that it began is still at work" in locked(host)
    finally:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not locked(host))


def locked(host: FileHost) -> str:
    """Return who holds the lock, empty where it can be had."""
    try:
        with host.lock(LOCK, "another"):
            return ""
    except Locked as error:
        return error.holder


def test_what_a_command_says_is_bounded(tmp_path: Path) -> None:
    path = programs(tmp_path, swapon="head -c 3000000 /dev/zero; echo oops >&2")
    ran = FileHost(path=f"{path}:/usr/bin:/bin").run(("swapon", "x"), 30.0)
    assert (1 << 20, "oops\n") == (len(ran.out), ran.err)


@pytest.mark.parametrize("name", ["swapon", "swapoff"])
def test_swap_of_a_tree_is_never_touched(tmp_path: Path, name: str) -> None:
    (tmp_path / "root/sys").mkdir(parents=True)
    path = programs(tmp_path, swapon="touch ran", swapoff="touch ran")
    with pytest.raises(Rejected, match="a tree, not a machine"):
        FileHost(str(tmp_path / "root"), path=path).run((name, "/dev/sda1"), 5.0)


@pytest.mark.system  # needs root to make a mount namespace
def test_a_command_sees_the_trees_sys_and_the_machine_does_not(tmp_path: Path) -> None:
    root = tmp_path / "a 'root' $(x)"
    (root / "sys").mkdir(parents=True)
    (root / "sys/of-the-tree").write_text("yes\n")
    path = programs(tmp_path, accel_config='cat /sys/of-the-tree; echo "$@"')
    ran = FileHost(str(root), path=f"{path}:/usr/bin:/bin").run(("accel-config", "-c", "x y"), 5.0)
    assert "yes\n-c x y\n" == ran.out
    assert not Path("/sys/of-the-tree").exists()


@pytest.mark.system  # needs root to make a mount namespace
def test_a_tree_without_sys_runs_nothing(tmp_path: Path) -> None:
    path = programs(tmp_path, accel_config="echo ran")
    root = tmp_path / "root"
    root.mkdir()
    with pytest.raises(Rejected, match="another /sys"):
        FileHost(str(root), path=f"{path}:/usr/bin:/bin").run(("accel-config",), 5.0)
