# SPDX-License-Identifier: Apache-2.0
"""What only real files can do to dsatier: hostile trees, links, pipes, odd contents."""

from __future__ import annotations

import errno
import gzip
import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from dsatier.host.files import LARGEST, FileHost
from dsatier.host.port import HostError, Missing, Rejected


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("proc/sys/vm", "sys/devices/d", "var", "run", "dev"):
        (tmp_path / "root" / folder).mkdir(parents=True)
    (tmp_path / "secret").write_text("outside\n")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("outside\n")
    (tmp_path / "root/sys/devices/d/state").write_text("inside\n")
    return tmp_path / "root"


@pytest.fixture
def host(root: Path) -> Iterator[FileHost]:
    host = FileHost(str(root))
    yield host
    host.close()


HOSTILE = {
    "relative": "../../../../secret",
    "deep": "../" * 30 + "etc/passwd",
    "up-and-down": "../../sys/../../secret",
    "after-absolute": "/../secret",
}


@pytest.mark.parametrize("target", HOSTILE.values(), ids=HOSTILE)
def test_a_link_that_leads_out_is_refused(host: FileHost, root: Path, target: str) -> None:
    (root / "sys/devices/x").symlink_to(target)
    with pytest.raises(Rejected, match="leads out of the root") as caught:
        host.read("/sys/devices/x")
    assert errno.EXDEV == caught.value.errno
    with pytest.raises(Rejected):
        host.write("/sys/devices/x", "1\n", 5.0)
    with pytest.raises(Rejected):
        host.keep("/sys/devices/x/file", "1\n")
    assert "outside\n" == (root.parent / "secret").read_text()


@pytest.mark.parametrize("path", ["/../secret", "/sys/../../secret", "/sys/devices/../../../x"])
def test_a_path_that_leads_out_is_refused(host: FileHost, path: str) -> None:
    with pytest.raises(Rejected) as caught:
        host.read(path)
    assert errno.EXDEV == caught.value.errno


def test_a_path_may_go_up_within_the_root(host: FileHost) -> None:
    assert "inside\n" == host.read("/sys/devices/d/../../devices/d/state")


def test_an_absolute_link_points_into_the_tree(host: FileHost, root: Path) -> None:
    (root / "sys/x").symlink_to("/sys/devices/d/state")
    (root / "secret").symlink_to("/etc/passwd")
    assert "inside\n" == host.read("/sys/x")
    with pytest.raises(Missing):
        host.read("/secret")


def test_an_absolute_link_to_where_the_root_is_leads_nowhere(host: FileHost, root: Path) -> None:
    (root / "sys/x").symlink_to(root.parent / "secret")
    with pytest.raises(Missing):
        host.read("/sys/x")


def test_a_folder_link_that_leads_out_is_refused(host: FileHost, root: Path) -> None:
    (root / "sys/out").symlink_to("../../outside")
    for act in (
        lambda: host.read("/sys/out/file"),
        lambda: host.entries("/sys/out"),
        lambda: host.link("/sys/out/file"),
        lambda: host.write("/sys/out/file", "1", 5.0),
    ):
        with pytest.raises(Rejected):
            act()
    assert "outside\n" == (root.parent / "outside/file").read_text()


def test_links_in_a_circle_end(host: FileHost, root: Path) -> None:
    (root / "sys/a").symlink_to("b")
    (root / "sys/b").symlink_to("a")
    with pytest.raises(Rejected) as caught:
        host.read("/sys/a")
    assert errno.ELOOP == caught.value.errno


def test_own_files_do_not_follow_a_link_out(host: FileHost, root: Path) -> None:
    (root / "run/dsatier").symlink_to("../../outside")
    with pytest.raises(Rejected):
        host.keep("/run/dsatier/x", "1\n")
    with pytest.raises(Rejected), host.lock("/run/dsatier/lock", "me"):
        pass
    assert ["file"] == os.listdir(root.parent / "outside")


def test_own_files_replace_a_link_and_not_what_it_points_to(host: FileHost, root: Path) -> None:
    host.keep("/run/dsatier/x", "1\n")
    (root / "run/dsatier/y").symlink_to("x")
    host.keep("/run/dsatier/y", "2\n")
    assert ("1\n", "2\n") == (host.read("/run/dsatier/x"), host.read("/run/dsatier/y"))


def test_a_lock_that_is_a_link_is_refused(host: FileHost, root: Path) -> None:
    host.keep("/run/dsatier/x", "1\n")
    (root / "run/dsatier/lock").symlink_to("x")
    with pytest.raises(Rejected), host.lock("/run/dsatier/lock", "me"):
        pass
    assert "1\n" == host.read("/run/dsatier/x")


@pytest.mark.parametrize("act", ["read", "write"])
def test_a_pipe_is_neither_read_nor_written(host: FileHost, root: Path, act: str) -> None:
    os.mkfifo(root / "sys/pipe")
    # a reader, so that opening it for writing works
    other = os.open(root / "sys/pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(Rejected):
            if act == "read":
                host.read("/sys/pipe")
            else:
                host.write("/sys/pipe", "1", 5.0)
    finally:
        os.close(other)


def test_a_folder_is_no_file(host: FileHost) -> None:
    with pytest.raises(HostError):
        host.read("/sys/devices")
    with pytest.raises(HostError):
        host.write("/sys/devices", "1", 5.0)


def test_a_file_beyond_all_measure_is_refused(host: FileHost, root: Path) -> None:
    (root / "proc/huge").write_bytes(b"x" * (LARGEST + 1))
    with pytest.raises(Rejected) as caught:
        host.read("/proc/huge")
    assert errno.EFBIG == caught.value.errno


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 65536, 65537, 200_000])
@pytest.mark.parametrize("folder", ["sys", "proc"])
def test_a_file_of_any_size_is_read_whole(
    host: FileHost, root: Path, folder: str, size: int
) -> None:
    content = "".join(chr(ord("a") + n % 26) for n in range(size))
    (root / folder / "file").write_text(content)
    assert content == host.read(f"/{folder}/file")


def test_bytes_that_are_no_text_are_escaped(host: FileHost, root: Path) -> None:
    (root / "sys/raw").write_bytes(b"a\xff\n")
    assert "a\\xff\n" == host.read("/sys/raw")


def test_a_packed_file_is_unpacked(host: FileHost, root: Path) -> None:
    (root / "proc/config.gz").write_bytes(gzip.compress(b"CONFIG_NUMA=y\n"))
    (root / "proc/broken.gz").write_bytes(b"no gzip")
    assert "CONFIG_NUMA=y\n" == host.read("/proc/config.gz")
    with pytest.raises(Rejected):
        host.read("/proc/broken.gz")


def test_a_packed_bomb_is_bounded(host: FileHost, root: Path) -> None:
    (root / "proc/bomb.gz").write_bytes(gzip.compress(b"\0" * (LARGEST * 4)))
    assert LARGEST == len(host.read("/proc/bomb.gz"))


def test_a_file_read_often_follows_its_content(host: FileHost, root: Path) -> None:
    place = root / "sys/devices/d/state"
    for content in ("one\n", "two and more\n", "3\n", ""):
        place.write_text(content)
        assert content == host.read("/sys/devices/d/state")


def test_a_file_read_often_may_be_replaced_or_go(host: FileHost, root: Path) -> None:
    place = root / "sys/devices/d/state"
    for _ in range(3):
        host.read("/sys/devices/d/state")
    (root / "new").write_text("new\n")
    (root / "new").rename(place)
    assert "new\n" == host.read("/sys/devices/d/state")
    place.unlink()
    with pytest.raises(Missing):
        host.read("/sys/devices/d/state")
    place.write_text("back\n")
    assert "back\n" == host.read("/sys/devices/d/state")


def test_no_more_files_stay_open_than_allowed(root: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    host = FileHost(str(root), most_open=2)
    for n in range(5):
        (root / f"sys/{n}").write_text("x")
    for _ in range(3):
        for n in range(5):
            assert "x" == host.read(f"/sys/{n}")
    assert before + 2 == len(os.listdir("/proc/self/fd"))
    host.close()
    assert before == len(os.listdir("/proc/self/fd"))


def test_the_limit_on_open_files_is_raised_when_it_is_met(root: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd"))
    names = [str(n) for n in range(300)]
    for name in names:
        (root / "sys" / name).write_text(name)
    resource.setrlimit(resource.RLIMIT_NOFILE, (280, before[1]))
    host = FileHost(str(root), most_open=300)
    try:
        for _ in range(3):
            assert names == [host.read(f"/sys/{name}") for name in names]
        assert used + 300 <= len(os.listdir("/proc/self/fd"))
    finally:
        host.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_lookups_leave_nothing_open(host: FileHost, root: Path) -> None:
    (root / "sys/out").symlink_to("../../../x")
    before = len(os.listdir("/proc/self/fd"))
    for act in (
        lambda: host.read("/sys/out/x"),
        lambda: host.read("/sys/none/x"),
        lambda: host.entries("/sys/devices"),
        lambda: host.link("/sys/out"),
        lambda: host.write("/sys/devices/d/state", "1", 5.0),
        lambda: host.write("/sys/none", "1", 5.0),
        lambda: host.keep("/run/dsatier/x", "1"),
        lambda: host.keep("/nowhere/x", "1"),
        host.log_mark,
    ):
        with suppress(HostError):
            act()
    assert before == len(os.listdir("/proc/self/fd"))


def test_a_root_must_be_a_folder(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError):
        FileHost(str(tmp_path / "none"))


def test_a_write_is_one_whole_write_and_never_creates(host: FileHost, root: Path) -> None:
    (root / "proc/sys/vm/x").write_text("longer than that\n")
    host.write("/proc/sys/vm/x", "4\n", 5.0)
    assert "4\n" == (root / "proc/sys/vm/x").read_text()
    with pytest.raises(Missing):
        host.write("/proc/sys/vm/y", "4\n", 5.0)
    assert ["x"] == os.listdir(root / "proc/sys/vm")


@pytest.mark.system  # needs root to see the kernel's own refusals
def test_the_kernels_errno_comes_through() -> None:
    host = FileHost()
    with pytest.raises(Rejected) as caught:
        host.write("/proc/sys/kernel/ostype", "x\n", 5.0)
    assert caught.value.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    with pytest.raises(Missing):
        host.write("/proc/sys/vm/no_such_knob", "1\n", 5.0)


def test_the_machine_itself_can_be_read() -> None:
    host = FileHost()
    assert os.uname().nodename == host.hostname()
    assert os.uname().release == host.read("/proc/sys/kernel/osrelease").strip()
    assert "/proc/sys" == host.resolve("/proc/sys")
    for _ in range(3):
        # a file of /proc comes in pieces
        assert host.read("/proc/cpuinfo").count("processor") >= 1
    host.close()


def test_a_mark_in_a_plain_log(host: FileHost, root: Path) -> None:
    with pytest.raises(Missing):
        host.log_mark()
    (root / "dev/kmsg").write_text("6,7,0,-;seven\n SUBSYSTEM=pci\n6,8,0,-;eight\n")
    assert 9 == host.log_mark()
    assert ("eight",) == host.log_since(8).lines
    assert not host.log_since(0).complete
    assert host.log_since(7).complete


def test_resolve_names_a_tree_file_as_a_command_finds_it(host: FileHost, root: Path) -> None:
    host.keep("/run/dsatier/queues.json", "[]\n")
    assert str(root / "run/dsatier/queues.json") == host.resolve("/run/dsatier/queues.json")
    assert "/sys/bus" == host.resolve("/sys/bus")


# -- whose files they are ----------------------------------------------------------

MODES = {
    0o600: "",
    0o644: "",
    0o664: "group",
    0o646: "everybody may write it",
    0o666: "everybody may write it",
}


@pytest.mark.parametrize("mode", MODES, ids=oct)
def test_who_else_may_write_is_seen(host: FileHost, root: Path, mode: int) -> None:
    file = root / "var/file"
    file.touch()
    if os.geteuid() == 0:
        os.chown(file, -1, 4242)
    file.chmod(mode)
    expected = MODES[mode]
    if expected == "group":  # a user's own group may be anybody's business but root's
        expected = "group 4242 may write it" if os.geteuid() == 0 else ""
    assert host.others("/var/file") == expected
    (root / "var/link").symlink_to("/var/file")
    assert host.others("/var/link") == expected
    assert host.others("/var/absent") == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")
def test_a_file_or_folder_of_another_user_is_seen(host: FileHost, root: Path) -> None:
    os.chown(root / "var", 1000, 1000)
    assert host.others("/var") == "user 1000 owns it"
    os.chown(root / "var", 0, 0)
    (root / "var").chmod(0o775)
    assert host.others("/var") == "", "root's group is root's"
