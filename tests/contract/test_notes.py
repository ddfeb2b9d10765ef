# SPDX-License-Identifier: Apache-2.0
"""Notes in place: whatever a loss of power leaves of one, it or the one before it is read."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsatier.host import step_log
from dsatier.host.files import FileHost
from dsatier.host.port import Rejected

PATH = "/var/lib/dsatier/step"
SECTOR = 512


def place(root: Path) -> Path:
    return root / PATH[1:]


def host(root: Path) -> FileHost:
    return FileHost(str(root))


def filled(root: Path, *texts: str) -> bytes:
    """Note texts, and return the file."""
    for text in texts:
        host(root).note(PATH, text)  # each by another process, as it were
    return place(root).read_bytes()


def read(root: Path, data: bytes) -> str | None:
    """Return what is read where the disk holds these bytes."""
    place(root).write_bytes(data)
    return host(root).noted(PATH)


def test_the_newest_note_is_read(tmp_path: Path) -> None:
    assert host(tmp_path).noted(PATH) is None
    assert not place(tmp_path).parent.exists()
    for number in range(5):
        filled(tmp_path, f"note {number} ä\udc80\n")
        assert f"note {number} ä\udc80" == host(tmp_path).noted(PATH)
        assert step_log.SIZE == place(tmp_path).stat().st_size
        assert 0o600 == place(tmp_path).stat().st_mode & 0o777
        assert ["step"] == os.listdir(place(tmp_path).parent)


@pytest.mark.parametrize("texts", [("a",), ("one", "two and more"), ("long " * 99, "2", "three")])
def test_a_cut_at_each_byte_leaves_the_note_or_the_one_before(
    tmp_path: Path, texts: tuple[str, ...]
) -> None:
    """Power goes after each byte of a note, from its begin or its end."""
    old = filled(tmp_path, *texts)
    new = filled(tmp_path, "the last one")
    changed = [at for at in range(step_log.SIZE) if old[at] != new[at]]
    assert changed
    assert {at // step_log.SLOT for at in changed} == {len(texts) % 2}
    for cut in {*range(changed[0] - 2, changed[-1] + 3), 0, step_log.SIZE} & {
        *range(step_log.SIZE + 1)
    }:
        for torn in (new[:cut] + old[cut:], old[:cut] + new[cut:]):
            expected = {new: "the last one", old: texts[-1]}.get(torn, texts[-1])
            assert expected == read(tmp_path, torn)


def test_any_order_of_sectors_leaves_the_note_or_the_one_before(tmp_path: Path) -> None:
    """A disk writes its sectors in any order, and each of them old, new or unreadable rubbish."""
    old = filled(tmp_path, "one", "x" * 1000)
    new = filled(tmp_path, "y" * 1200)
    sectors = [
        at for at in range(0, step_log.SIZE, SECTOR) if old[at:][:SECTOR] != new[at:][:SECTOR]
    ]
    assert 3 == len(sectors)
    for choice in itertools.product((old, new, b"\0" * step_log.SIZE), repeat=len(sectors)):
        torn = bytearray(old)
        for at, source in zip(sectors, choice, strict=True):
            torn[at : at + SECTOR] = source[at : at + SECTOR]
        expected = "y" * 1200 if bytes(torn) == new else "x" * 1000
        assert expected == read(tmp_path, bytes(torn))


def test_a_flipped_bit_is_seen(tmp_path: Path) -> None:
    whole = filled(tmp_path, "one", "two")
    for at in range(step_log.SIZE):
        for bit in (0, 6):
            torn = bytearray(whole)
            torn[at] ^= 1 << bit
            spoilt = at // step_log.SLOT == 1  # the second note's
            assert ("one" if spoilt else "two") == read(tmp_path, bytes(torn))


def test_after_a_torn_note_the_next_goes_in_its_place(tmp_path: Path) -> None:
    old = filled(tmp_path, "one", "two")
    new = filled(tmp_path, "three")
    place(tmp_path).write_bytes(new[:33] + old[33:])
    again = filled(tmp_path, "four")
    assert old[step_log.SLOT :] == again[step_log.SLOT :]
    assert "four" == host(tmp_path).noted(PATH)


@pytest.mark.parametrize("data", [b"", b"x", b" " * step_log.SIZE, b"\0" * (step_log.SIZE + 1)])
def test_a_file_that_holds_no_note_is_made_anew(tmp_path: Path, data: bytes) -> None:
    filled(tmp_path, "one")
    assert read(tmp_path, data) is None
    filled(tmp_path, "two")
    assert "two" == host(tmp_path).noted(PATH)
    assert step_log.SIZE == place(tmp_path).stat().st_size


def test_what_is_no_plain_file_is_not_followed(tmp_path: Path) -> None:
    filled(tmp_path, "one")
    other = tmp_path / "other"
    place(tmp_path).rename(other)
    before = other.read_bytes()
    place(tmp_path).symlink_to(other)
    with pytest.raises(Rejected):
        host(tmp_path).noted(PATH)
    with pytest.raises(Rejected):
        host(tmp_path).note(PATH, "two")
    assert before == other.read_bytes()
    place(tmp_path).unlink()
    os.mkfifo(place(tmp_path))
    assert host(tmp_path).noted(PATH) is None
    filled(tmp_path, "two")
    assert "two" == host(tmp_path).noted(PATH)


def test_a_note_has_its_longest(tmp_path: Path) -> None:
    filled(tmp_path, "x" * step_log.LONGEST)
    assert "x" * step_log.LONGEST == host(tmp_path).noted(PATH)
    with pytest.raises(ValueError, match="4065 bytes at most, found 4066"):
        host(tmp_path).note(PATH, "x" * (step_log.LONGEST + 1))
    assert "x" * step_log.LONGEST == host(tmp_path).noted(PATH)


def test_the_file_stays_where_it_is_on_the_disk(tmp_path: Path) -> None:
    """Notes need no room, and no change of the file system but to the file's own data."""
    filled(tmp_path, "one")
    before = place(tmp_path).stat()
    filled(tmp_path, "two", "three")
    after = place(tmp_path).stat()
    assert (before.st_ino, before.st_size, before.st_blocks) == (
        *(after.st_ino, after.st_size, after.st_blocks),
    )
    assert before.st_blocks * 512 >= step_log.SIZE


SCRIPT = """
import subprocess, sys
from dsatier.host.files import FileHost
from dsatier.host.port import Rejected
root, folder = sys.argv[1:]
host, path = FileHost(root), "/var/lib/dsatier/step"

def note(text):
    try:
        host.note(path, text)
    except Rejected as error:
        print(error.errno, end=" ")
    print(host.noted(path), end=" ")

def fill():
    with open(folder + "/filler", "wb", buffering=0) as filler:
        try:
            while True:
                filler.write(b"x" * 4096)
        except OSError:
            pass

fill()
note("first")
subprocess.run(["rm", folder + "/filler"], check=True)
note("second")
fill()
note("third")
subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
note("fourth")
"""


@pytest.mark.system  # needs root to mount a small file system
def test_a_full_disk_refuses_the_first_note_only_and_a_read_only_one_each(tmp_path: Path) -> None:
    folder = tmp_path / "var/lib/dsatier"
    folder.mkdir(parents=True)
    mounted = (
        'mount -t tmpfs -o size=64k none "$3"/var/lib/dsatier && '
        'exec "$1" -c "$2" "$3" "$3"/var/lib/dsatier'
    )
    done = subprocess.run(
        [
            *("unshare", "--mount", "--propagation", "private"),
            *("sh", "-c", mounted, "sh", sys.executable, SCRIPT, str(tmp_path)),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    expected = f"{errno.ENOSPC} None second third {errno.EROFS} third "
    assert expected == done.stdout, done.stderr
