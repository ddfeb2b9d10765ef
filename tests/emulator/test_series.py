# SPDX-License-Identifier: Apache-2.0
"""The series of patches, and what makes and checks it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from emulator import series

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")

NEW_FILE = f"/* {series.LICENCE} */\nint one;\n"
REASON = "Because\n\nDate: of the text, which stays"


def test_our_patches_are_in_form() -> None:
    """Every patch is listed, says why, names a licence and is the same at each export."""
    assert [] == series.checked(series.PATCHES)


def git(tree: Path, *words: str) -> str:
    """Run git as a developer does, at some time."""
    author = ("-c", "user.name=Ann", "-c", "user.email=ann@localhost")
    ran = ("git", *author, *words)
    return subprocess.run(ran, cwd=tree, check=True, capture_output=True, text=True).stdout


def commit(tree: Path, path: str, text: str, message: str) -> None:
    """Commit a file."""
    (tree / path).write_text(text)
    git(tree, "add", "--all")
    git(tree, "commit", "--message", message)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Unpacked sources of something."""
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "main.c").write_text("".join(f"line {n}\n" for n in range(20)))
    (folder / "scripts").mkdir()
    # stands in for QEMU's judge of style
    (folder / "scripts/checkpatch.pl").write_text(
        'my $f = $ARGV[-1]; open F, $f; while (<F>) { print "$f:$.: ERROR: ugly\\n" if /ugly/; }\n'
    )
    return folder


@pytest.fixture
def patches(tmp_path: Path) -> Path:
    """An empty series."""
    folder = tmp_path / "patches"
    folder.mkdir()
    (folder / "series").write_text("# why\n")
    return folder


def two_groups(tree: Path, patches: Path) -> None:
    """Make a series of two groups, with three patches."""
    series.bring_in(tree, patches)
    changed = (tree / "main.c").read_text().replace("line 9\n", "line nine\n")
    commit(tree, "main.c", changed, f"main: nine\n\n{REASON}")
    commit(tree, "one.c", NEW_FILE, f"main: one\n\n{REASON}")
    series.take_out("first", tree, patches, None)
    git(tree, "tag", series.tag_of("first"))
    commit(tree, "two.c", NEW_FILE, f"main: two\n\n{REASON}")
    series.take_out("second", tree, patches, None)


def another(tree: Path, folder: Path, text: str) -> Path:
    """Return the tree of another base, where main.c is ``text``."""
    later = folder / "later"
    later.mkdir()
    (later / "main.c").write_text(text)
    shutil.copytree(tree / "scripts", later / "scripts")
    return later


@needs_git
def test_commits_become_files_and_files_commits(tree: Path, patches: Path) -> None:
    """What is exported is in form, and imported again it is the same tree and the same files."""
    two_groups(tree, patches)
    content = git(tree, "rev-parse", "HEAD^{tree}")
    files = {path: path.read_text() for path in patches.rglob("*") if path.is_file()}
    expected = ["first/0001-main-nine.patch", "first/0002-main-one.patch"]
    assert [*expected, "second/0001-main-two.patch"] == series.entries(files[patches / "series"])
    assert ([], []) == (series.checked(patches), series.applied(tree, patches))

    series.bring_in(tree, patches)
    assert content == git(tree, "rev-parse", "HEAD^{tree}")
    series.take_out("second", tree, patches, series.tag_of("first"))
    git(tree, "checkout", series.tag_of("first"))
    series.take_out("first", tree, patches, None)
    assert files == {path: path.read_text() for path in patches.rglob("*") if path.is_file()}


@needs_git
def test_two_imports_make_the_same_commits(tree: Path, patches: Path, tmp_path: Path) -> None:
    """A commit's name can be told to somebody else: it depends on source and series alone."""
    other = tmp_path / "other"
    shutil.copytree(tree, other)
    two_groups(tree, patches)
    series.bring_in(tree, patches)
    series.bring_in(other, patches)
    assert git(tree, "rev-parse", "HEAD") == git(other, "rev-parse", "HEAD")


@needs_git
def test_a_patch_applies_without_fuzz_or_not_at_all(tree: Path, patches: Path) -> None:
    """Lines may have moved; other lines around a change are an error that names the patch."""
    two_groups(tree, patches)
    path = patches / "first/0001-main-nine.patch"
    path.write_text(path.read_text().replace(" line 8\n", " line eight\n"))
    with pytest.raises(series.SeriesError, match=r"first/0001-main-nine\.patch does not apply"):
        series.applied(tree, patches)


@needs_git
def test_the_judge_of_style_is_asked(tree: Path, patches: Path) -> None:
    """What QEMU's script says of a patch is told with the place."""
    two_groups(tree, patches)
    commit(tree, "three.c", NEW_FILE + "ugly\n", f"main: three\n\n{REASON}")
    series.take_out("second", tree, patches, None)
    (told,) = series.applied(tree, patches)
    assert told.startswith("second/0002-main-three.patch:")
    assert told.endswith("ERROR: ugly")


@needs_git
def test_the_layout_of_trace_events_is_theirs(tree: Path, patches: Path) -> None:
    """The kernel's script is not heard on how macros of trace events are laid out, else it is."""
    check = "CHECK: Lines should not end with a '('"
    (tree / "scripts/checkpatch.pl").write_text(
        f"""print "include/trace/events/a.h:3: {check}\n", "mm/a.c:4: {check}\n",
        "include/trace/events/a.h:5: ERROR: ugly\n";"""
    )
    series.bring_in(tree, patches)
    commit(tree, "one.c", NEW_FILE, f"main: one\n\n{REASON}")
    series.take_out("first", tree, patches, None)
    assert [
        f"first/0001-main-one.patch: mm/a.c:4: {check}",
        "first/0001-main-one.patch: include/trace/events/a.h:5: ERROR: ugly",
    ] == series.applied(tree, patches, series.STRICT)


@needs_git
def test_a_patch_that_was_edited_by_hand_is_told(tree: Path, patches: Path) -> None:
    """The files are what export writes, so that the next export changes nothing else."""
    two_groups(tree, patches)
    path = patches / "first/0001-main-nine.patch"
    path.write_text(path.read_text().replace("Because\n", "Because  \n"))
    assert [f"{path.parent.name}/{path.name}: not as export writes it"] == series.applied(
        tree, patches
    )


@needs_git
def test_a_base_has_patches_of_its_own_only_where_those_of_all_do_not_apply(
    tree: Path, patches: Path, tmp_path: Path
) -> None:
    """What applies elsewhere as it is, at other lines too, is taken from the folder of all."""
    two_groups(tree, patches)
    lines = "".join(f"line {n}\n" for n in range(20))
    later = another(tree, tmp_path, f"more\nmore\n{lines}")
    own = tmp_path / "own"
    own.mkdir()
    (own / "series").write_text("# why\n")
    series.bring_in(later, own, patches)
    commit(later, "two.c", NEW_FILE + "int more;\n", f"main: two\n\n{REASON}")
    changed = (later / "main.c").read_text().replace("line 9\n", "line nine\n")
    commit(later, "main.c", changed, f"main: nine\n\n{REASON}")
    series.take_out("first", later, own, None, patches)
    listed = ["first/0001-main-two.patch", "first/0001-main-nine.patch"]
    assert listed == series.entries((own / "series").read_text())
    assert [own / listed[0]] == list(own.glob("*/*.patch"))
    missing = ["first/0002-main-one.patch", "second/0001-main-two.patch"]
    said = [f"{path}: neither in the series nor in absent" for path in missing]
    assert said == series.checked(own, patches)
    (own.parent / "absent").write_text("".join(f"{path}: it is there\n" for path in missing))
    assert [] == series.checked(own, patches)

    content = git(later, "rev-parse", "HEAD^{tree}")
    series.bring_in(later, own, patches)
    assert content == git(later, "rev-parse", "HEAD^{tree}")
    assert [] == series.applied(later, own, common=patches)


@needs_git
def test_a_base_that_only_writes_otherwise_shares_the_patch(
    tree: Path, patches: Path, tmp_path: Path
) -> None:
    """What sed makes of a patch of all is what applies, what is looked at and what export finds."""
    two_groups(tree, patches)
    later = another(tree, tmp_path, "".join(f"Line {n}\n" for n in range(20)))
    own = tmp_path / "base/patches"
    own.mkdir(parents=True)
    name = "first/0001-main-nine.patch"
    (own / "series").write_text(f"{name}\n")
    with pytest.raises(series.SeriesError, match=f"{name} does not apply"):
        series.bring_in(later, own, patches)
    git(later, "am", "--abort")
    (own.parent / "words.sed").write_text(r"s/^([-+ ])line (\w+)$/\1Line \2/" + "\n")
    series.bring_in(later, own, patches)
    assert "Line nine\n" in (later / "main.c").read_text()
    assert [] == series.applied(later, own, common=patches)
    series.take_out("first", later, own, None, patches)
    assert [name] == series.entries((own / "series").read_text())
    assert [] == list(own.glob("*/*.patch"))

    (own.parent / "words.sed").write_text("s/a\n")
    with pytest.raises(series.SeriesError, match=r"words\.sed: "):
        series.read(name, own, patches)


GOOD = f"""\
From {"0" * 40} Mon Sep 17 00:00:00 2001
From: Ann <ann@localhost>
Subject: [PATCH] main: one

Because
---
diff --git a/one.c b/one.c
new file mode 100644
--- /dev/null
+++ b/one.c
@@ -0,0 +1,2 @@
+/* {series.LICENCE} */
+int one;
"""


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("From 00", "From 12", "the first line names a commit"),
        ("From: Ann <ann@localhost>\n", "", "no line From:"),
        ("\nSubject", "\nDate: now\nSubject", "a date"),
        ("\nBecause\n", "\n", "no word of why"),
        ("int one;\n", "int one;\n-- \n2.39.5\n", "a trailer"),
        ("int one;", "int one; ", "line 13: white space at the end"),
        (series.LICENCE, "GPL", "one.c: a new file without"),
        ("/one.c", "/meson.build", None),
        (f"+/* {series.LICENCE} */\n+int", "+int", "one.c: a new file without"),
    ],
)
def test_faults_of_form_are_told(old: str, new: str, told: str | None) -> None:
    """Each rule finds its breach, and nothing else is found."""
    assert [] == series.faults(GOOD)
    assert old in GOOD
    found = series.faults(GOOD.replace(old, new))
    assert ([] if told is None else [told]) == [fault[: len(told or fault)] for fault in found]


def test_the_command_tells_what_is_wrong(patches: Path) -> None:
    """The command's exit code is 1 where the series is not in form."""
    (patches / "series").write_text("first/0001-a.patch\n")
    command = (str(series.PATCHES.parent / "series"), "--patches", str(patches), "check")
    ran = subprocess.run(
        command, check=False, capture_output=True, text=True, env={"PATH": os.environ["PATH"]}
    )
    assert (1, "series: first/0001-a.patch: listed, not there\n") == (ran.returncode, ran.stderr)
