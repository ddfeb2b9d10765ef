# SPDX-License-Identifier: Apache-2.0
"""dsatier's own files: durable, private, and locked once."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from dsatier.host.files import FileHost
from dsatier.host.port import Locked, Rejected

HELD = """
import sys
from dsatier.host.files import FileHost
with FileHost(sys.argv[1]).lock("/run/dsatier/lock", "dsatier daemon"):
    print("held", flush=True)
    sys.stdin.read()
"""


def modes(root: Path, *paths: str) -> list[str]:
    return [oct(stat.S_IMODE((root / path).stat().st_mode)) for path in paths]


def test_folders_of_its_own_get_their_modes(tmp_path: Path) -> None:
    host = FileHost(str(tmp_path))
    mask = os.umask(0o077)
    try:
        host.keep("/var/lib/dsatier/deep/journal", "x")
        host.keep("/run/dsatier/status", "x", 0o644)
    finally:
        os.umask(mask)
    folders = modes(tmp_path, "var", "var/lib", "var/lib/dsatier", "var/lib/dsatier/deep")
    assert ["0o755", "0o755", "0o700", "0o700"] == folders
    files = modes(tmp_path, "run/dsatier", "var/lib/dsatier/deep/journal", "run/dsatier/status")
    assert ["0o755", "0o600", "0o644"] == files


def test_folders_of_others_are_not_made(tmp_path: Path) -> None:
    with pytest.raises(Rejected) as caught:
        FileHost(str(tmp_path)).keep("/var/lib/node_exporter/dsatier.prom", "x")
    assert errno.ENOENT == caught.value.errno
    assert [] == os.listdir(tmp_path)


def test_nothing_is_left_beside_a_kept_file(tmp_path: Path) -> None:
    host = FileHost(str(tmp_path))
    host.keep("/run/dsatier/x", "1")
    host.keep("/run/dsatier/x", "2")
    assert ["x"] == os.listdir(tmp_path / "run/dsatier")


def test_a_failed_keep_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    host = FileHost(str(tmp_path))
    (tmp_path / "run/dsatier/x").mkdir(parents=True)  # a file cannot be renamed onto a folder
    with pytest.raises(Rejected) as caught:
        host.keep("/run/dsatier/x", "2")
    assert errno.EISDIR == caught.value.errno
    assert ["x"] == os.listdir(tmp_path / "run/dsatier")


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    folder = tmp_path / "run/dsatier"
    folder.mkdir(parents=True)
    (folder / f".x.{gone.pid}.tmp").write_text("half")
    (folder / f".x.{os.getppid()}.tmp").write_text("of one who lives")
    (folder / f".y.{gone.pid}.tmp").write_text("of another file")
    FileHost(str(tmp_path)).keep("/run/dsatier/x", "1")
    expected = {f".x.{os.getppid()}.tmp", f".y.{gone.pid}.tmp", "x"}
    assert expected == set(os.listdir(folder))


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_ends_with_its_process(tmp_path: Path, signal_number: int) -> None:
    code = [sys.executable, "-c", HELD, str(tmp_path)]
    path = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=path
    ) as other:
        assert other.stdout
        assert "held\n" == other.stdout.readline()
        host = FileHost(str(tmp_path))
        with pytest.raises(Locked) as caught, host.lock("/run/dsatier/lock", "dsatier apply"):
            pass
        assert f"dsatier daemon, process {other.pid}, since 2" in caught.value.holder
        other.send_signal(signal_number)
        other.wait()
        with host.lock("/run/dsatier/lock", "dsatier apply"):
            pass


def test_the_lock_file_stays_and_names_nobody(tmp_path: Path) -> None:
    host = FileHost(str(tmp_path))
    with host.lock("/run/dsatier/lock", "me"):
        assert "me, process" in (tmp_path / "run/dsatier/lock").read_text()
    assert "" == (tmp_path / "run/dsatier/lock").read_text()


def test_the_error_of_the_one_who_holds_the_lock_is_not_touched(tmp_path: Path) -> None:
    host = FileHost(str(tmp_path))
    with pytest.raises(FileNotFoundError), host.lock("/run/dsatier/lock", "me"):
        os.stat(tmp_path / "none")


@pytest.mark.system  # needs root to mount a small file system
@pytest.mark.parametrize(("options", "code"), [("ro", errno.EROFS), ("size=4k", errno.ENOSPC)])
def test_a_full_or_read_only_disk_is_told(tmp_path: Path, options: str, code: int) -> None:
    script = f"""
import sys
from dsatier.host.files import FileHost
from dsatier.host.port import Rejected
host = FileHost({str(tmp_path)!r})
try:
    host.keep("/var/lib/dsatier/journal", "x" * 100_000)
except Rejected as error:
    import os
    left = os.listdir({str(tmp_path / "var/lib/dsatier")!r})
    print(error.errno, left)
"""
    (tmp_path / "var/lib/dsatier").mkdir(parents=True)
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            f'mount -t tmpfs -o {options} none "$1"/var/lib/dsatier && exec "$2" -c "$3"',
            "sh",
            str(tmp_path),
            sys.executable,
            script,
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{code} []\n" == done.stdout, done.stderr
