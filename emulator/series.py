# SPDX-License-Identifier: Apache-2.0
"""Our patches to QEMU: a series of files here, commits in a developer's tree.

::

    emulator/series import DIR               unpacked source → commits, a tag for each group
    emulator/series export GROUP DIR [FROM]  commits → the patches of a group
    emulator/series check [DIR]              form of the patches; in a tree of import, too:
                                                   each applies, its checkpatch.pl is content

kernel-src/scripts/series does the same for the kernel, whose checkpatch.pl is asked ``--strict``.

Groups are the folders under ``patches``. ``export`` takes the commits after FROM, by default the
tag of the group before. A patch file depends on the commit's author, message and change alone.

The kernel has more than one base. A base of its own folder lists its own series, and takes from the
folder of all (``--common``) the patches that apply as they are: only the others are in its own.
What is no more than another way of writing is in ``words.sed`` next to its patches: sed reads those
of all by it. Which of them it has not got at all, and why, is in ``absent`` there.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PATCHES = Path(__file__).parent / "patches"
BASE = "base"
LICENCE = "SPDX-License-Identifier: GPL-2.0-only"

# What git makes of a commit depends neither on this user's settings nor on the time.
_DATE = "Sat, 1 Jan 2000 00:00:00 +0000"
_SETTLED = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_COMMITTER_NAME": "series",
    "GIT_COMMITTER_EMAIL": "series@localhost",
    "GIT_COMMITTER_DATE": _DATE,
    "GIT_AUTHOR_DATE": _DATE,
}
_BASE_AUTHOR = {"GIT_AUTHOR_NAME": "series", "GIT_AUTHOR_EMAIL": "series@localhost"}
_FORMAT = (
    *("format-patch", "--quiet", "--zero-commit", "--no-signature", "--no-numbered"),
    *("--no-renames", "--no-stat", "--patch", "--diff-algorithm=myers", "--abbrev=12"),
)
_CHECKPATCH = ("scripts/checkpatch.pl", "--terse", "--no-summary")
# it asks for names of people, which a series outside of QEMU does not have
LENIENT = ("--no-signoff",)
STRICT = ("--strict", "--showfile")
_NOT_OURS = re.compile(
    r"does MAINTAINERS need updating\?|note 'GPL-2\.0-or-later' is preferred"
    # a copy of one that is written to
    r"|^mm/migrate_copy_knob\.c:\d+: WARNING: struct ctl_table should normally be const"
    # the macros of trace events are laid out in their own way, which the script takes for calls
    r"|^include/trace/events/\S+ CHECK: (Alignment should match|Lines should not end with a '\(')"
)


class SeriesError(Exception):
    """The series, or a tree, is not as it must be."""


def entries(text: str) -> list[str]:
    """Return the paths that a series file lists, in their order.

    >>> entries("# why\\ntcg/0001-a.patch\\n\\ndsa/0001-b.patch # here\\n")
    ['tcg/0001-a.patch', 'dsa/0001-b.patch']
    """
    lines = (line.split("#", 1)[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def groups(paths: Iterable[str]) -> list[str]:
    """Return the groups of these paths, in the order of their first patches.

    >>> groups(["tcg/0001-a.patch", "tcg/0002-b.patch", "dsa/0001-c.patch"])
    ['tcg', 'dsa']
    """
    return list(dict.fromkeys(path.split("/", 1)[0] for path in paths))


def relisted(text: str, group: str, names: Sequence[str]) -> str:
    """Return a series file in which a group has other patches.

    They take the place of the group's old ones, or come below the comment that begins with the
    group's name; a group that has neither comes last.

    >>> relisted("# c\\na/1.patch\\n# d\\nb/1.patch\\n", "a", ["2.patch", "3.patch"])
    '# c\\na/2.patch\\na/3.patch\\n# d\\nb/1.patch\\n'
    >>> relisted("# a: why\\n\\n# b: why\\nb/1.patch\\n", "a", ["2.patch"])
    '# a: why\\na/2.patch\\n\\n# b: why\\nb/1.patch\\n'
    """
    new = [f"{group}/{name}" for name in names]
    lines: list[str] = []
    there = any(line.startswith(f"{group}/") for line in text.splitlines())
    for line in text.splitlines():
        if line.startswith(f"# {group}:") and not there:
            lines += [line, *new]
            new = []
            continue
        if line.startswith(f"{group}/"):
            lines += new
            new = []
        else:
            lines.append(line)
    return "\n".join([*lines, *new]) + "\n"


def settled(patch: str) -> str:
    """Return a patch of git without what differs from one export to the next: its date.

    >>> settled("From: A <a@b>\\nDate: Tue, 1 Jan 2030\\nSubject: c\\n\\nDate: of the text\\n")
    'From: A <a@b>\\nSubject: c\\n\\nDate: of the text\\n'
    """
    head, gap, rest = patch.partition("\n\n")
    kept = [line for line in head.split("\n") if not line.startswith("Date:")]
    return "\n".join(kept) + gap + rest


_NEW_FILE = re.compile(r"^--- /dev/null\n\+\+\+ b/(\S+)\n((?:@@.*\n)(?:\+.*\n){0,5})", re.MULTILINE)
_NEEDS_LICENCE = re.compile(r"\.([chsS]|py|json|inc|build)$|/Kconfig$|\.rst$")


def faults(patch: str) -> list[str]:
    """Return what is wrong with the form of a patch, without looking at QEMU.

    >>> faults("Subject: no commit\\n\\n---\\n")[0]
    'the first line names a commit: expected 40 zeros, export it with emulator/series'
    """
    head, _, rest = patch.partition("\n\n")
    reason, _, _ = f"\n{rest}".partition("\n---\n")
    found = []
    if not head.startswith(f"From {'0' * 40} "):
        found.append(
            "the first line names a commit: expected 40 zeros, export it with emulator/series"
        )
    for field in ("From", "Subject"):
        if not re.search(rf"^{field}: \S", head, re.MULTILINE):
            found.append(f"no line {field}:")
    if re.search(r"^Date:", head, re.MULTILINE):
        found.append("a date, which changes with each export")
    if not reason.strip():
        found.append("no word of why: the message is a subject only")
    if re.search(r"^-- \n[\d.]+", patch, re.MULTILINE):
        found.append("a trailer with a version of git")
    for number, line in enumerate(patch.splitlines(), 1):
        if line.startswith("+") and not line.startswith("+++ ") and line != line.rstrip():
            found.append(f"line {number}: white space at the end")
    for match in _NEW_FILE.finditer(patch):
        path, start = match.groups()
        if _NEEDS_LICENCE.search(path) and LICENCE not in start:
            found.append(f"{path}: a new file without {LICENCE} in its first lines")
    return found


def misplaced(listed: Sequence[str], there: Iterable[str]) -> list[str]:
    """Return where a series file and the patches that are there differ.

    >>> misplaced(["a/1.patch", "a/1.patch", "a/2.patch"], ["a/1.patch", "b/1.patch"])
    ['a/1.patch: listed twice', 'a/2.patch: listed, not there', 'b/1.patch: there, not listed']
    >>> misplaced(["a/1.patch", "b/1.patch", "a/2.patch"], ["a/1.patch", "b/1.patch", "a/2.patch"])
    ['a/2.patch: expected beside the others of its group']
    """
    found = [f"{path}: listed twice" for path in dict.fromkeys(listed) if listed.count(path) > 1]
    found += [f"{path}: listed, not there" for path in sorted(set(listed) - set(there))]
    found += [f"{path}: there, not listed" for path in sorted(set(there) - set(listed))]
    for before, path in itertools.pairwise(listed):
        group = path.split("/", 1)[0]
        earlier = groups(listed[: listed.index(path)])
        if group in earlier and before.split("/", 1)[0] != group:
            found.append(f"{path}: expected beside the others of its group")
    return found


def unexplained(listed: Sequence[str], shared: Iterable[str], absent: str) -> list[str]:
    """Return where a base says too little, or too much, of patches that it has not got.

    >>> unexplained(["a/1.patch"], ["a/1.patch", "a/2.patch"], "# why\\na/2.patch: Linux has it\\n")
    []
    >>> unexplained(["a/1.patch"], ["a/1.patch", "a/2.patch"], "a/1.patch: x\\n")
    ['a/2.patch: neither in the series nor in absent', 'a/1.patch: in absent, and in the series']
    >>> unexplained([], [], "a/3.patch: x\\nb/1.patch\\n")
    ['a/3.patch: in absent, there is none', 'b/1.patch: absent, and not a word of why']
    """
    told = dict(line.partition(":")[::2] for line in entries(absent))
    shared = sorted(shared)
    found = [
        f"{path}: neither in the series nor in absent"
        for path in shared
        if path not in listed and path not in told
    ]
    for path, why in told.items():
        if not why.strip():
            found.append(f"{path}: absent, and not a word of why")
        elif path in listed:
            found.append(f"{path}: in absent, and in the series")
        elif path not in shared:
            found.append(f"{path}: in absent, there is none")
    return found


# -- with git --------------------------------------------------------------------


def _git(tree: Path, *words: str, more: Mapping[str, str] | None = None, data: str = "") -> str:
    ran = subprocess.run(
        ("git", *words),
        cwd=tree,
        env={**os.environ, **_SETTLED, **(more or {})},
        input=data,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise SeriesError(f"git {words[0]} in {tree}: {(ran.stderr or ran.stdout).strip()}")
    return ran.stdout


def tag_of(group: str) -> str:
    """Return the tag on the last commit of a group."""
    return f"group/{group}"


def read(path: str, patches: Path, common: Path | None = None) -> str:
    """Return a patch of a series: its own, or that of all bases in the words of this one."""
    own = patches / path
    if common is None or own.exists():
        return own.read_text(encoding="utf-8")
    return _worded(common / path, patches)


def _worded(patch: Path, patches: Path) -> str:
    """Return a patch of all bases in the words of the base that has these patches."""
    words = patches.parent / "words.sed"
    if not words.exists():
        return patch.read_text(encoding="utf-8")
    ran = subprocess.run(
        ("sed", "-E", "-f", str(words), str(patch)), capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise SeriesError(f"{words}: {ran.stderr.strip()}")
    return ran.stdout


_POSITION = re.compile(r"^index .*\n|(?<=^@@) .*$", re.MULTILINE)


def same_change(one: str, other: str) -> bool:
    """Whether two patches differ by no more than the lines at which they apply.

    >>> one = "why\\nindex 12..34 100644\\n@@ -5,2 +5,2 @@ f()\\n-a\\n+b\\n"
    >>> same_change(one, "why\\nindex 56..78 100644\\n@@ -9,2 +9,2 @@ g()\\n-a\\n+b\\n")
    True
    >>> same_change(one, one.replace("+b", "+c"))
    False
    """
    return _POSITION.sub("", one) == _POSITION.sub("", other)


def _in_common(group: str, made: Path, patches: Path, common: Path | None) -> str | None:
    """Return the patch of all that does the same, whatever its number is."""
    slug = made.name.partition("-")[2]
    for path in sorted(common.glob(f"{group}/*-{slug}")) if common else ():
        if same_change(_worded(path, patches), made.read_text(encoding="utf-8")):
            return path.name
    return None


def _apply(tree: Path, path: str, text: str) -> None:
    """Commit a patch. git takes a hunk at another line, but never with other lines around it."""
    text = text.replace("\nSubject:", f"\nDate: {_DATE}\nSubject:", 1)
    try:
        _git(tree, "am", "--quiet", "--keep-cr", "--whitespace=error-all", data=text)
    except SeriesError as error:
        raise SeriesError(f"{path} does not apply: {error}") from None


def bring_in(tree: Path, patches: Path, common: Path | None = None) -> None:
    """Make commits of the series on an unpacked source, or on a tree with the tag ``base``."""
    if not (tree / ".git").exists():
        _git(tree, "init", "--quiet", "--initial-branch=main")
        # git would pack a source of this size after each look at it, for minutes
        _git(tree, "config", "gc.auto", "0")
        exclude = tree / ".git/info/exclude"
        exclude.write_text("/build-*\n/configs/devices/x86_64-softmmu/dsatier.mak\n")
        _git(tree, "add", "--all", "--force")
        _git(tree, "commit", "--quiet", "--message=the source as Debian has it", more=_BASE_AUTHOR)
        _git(tree, "tag", BASE)
    _git(tree, "checkout", "--quiet", "-B", "dsatier", BASE)
    listed = entries((patches / "series").read_text(encoding="utf-8"))
    for path in listed:
        _apply(tree, path, read(path, patches, common))
        _git(tree, "tag", "--force", tag_of(path.split("/", 1)[0]))


def formatted(tree: Path, span: str, folder: Path) -> list[Path]:
    """Write the patches of the commits in a span to a folder, and return them in order."""
    _git(tree, *_FORMAT, f"--output-directory={folder}", span)
    found = sorted(folder.glob("*.patch"))
    for path in found:
        path.write_text(settled(path.read_text(encoding="utf-8")), encoding="utf-8")
    return found


def take_out(
    group: str, tree: Path, patches: Path, start: str | None, common: Path | None = None
) -> None:
    """Make the patches of a group from the commits that a tree has after ``start``."""
    series = patches / "series"
    text = series.read_text(encoding="utf-8")
    if start is None:
        known = groups(entries(text))
        before = known[: known.index(group)] if group in known else known
        start = tag_of(before[-1]) if before else BASE
    with tempfile.TemporaryDirectory() as folder:
        made = formatted(tree, f"{start}..HEAD", Path(folder))
        if not made:
            raise SeriesError(f"no commits in {tree} after {start}")
        into = patches / group
        into.mkdir(exist_ok=True)
        for old in into.glob("*.patch"):
            old.unlink()
        names = []
        for path in made:
            shared = _in_common(group, path, patches, common)
            if shared is None:
                (into / path.name).write_bytes(path.read_bytes())
            names.append(shared or path.name)
    series.write_text(relisted(text, group, names), encoding="utf-8")
    print(f"{group}: {len(made)} patches, the commits after {start}")


def _criticised(tree: Path, name: str, patch: Path, manner: Sequence[str]) -> list[str]:
    """Return what the source's own script says of a patch in a file."""
    words = ("perl", *_CHECKPATCH, *manner, str(patch))
    ran = subprocess.run(words, cwd=tree, capture_output=True, text=True, check=False)
    lines = [line for line in ran.stdout.splitlines() if line]
    said = [line for line in lines if not _NOT_OURS.search(line)]
    if not said and ran.returncode not in {0, 1}:
        said = [ran.stderr.strip()]
    return [f"{name}: {line.removeprefix(f'{patch}:')}" for line in said]


def applied(
    tree: Path, patches: Path, manner: Sequence[str] = LENIENT, common: Path | None = None
) -> list[str]:
    """Return what is wrong with the series on the base of a tree, which stays as it is."""
    found: list[str] = []
    made: dict[str, Path] = {}
    listed = entries((patches / "series").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "tree")
        _git(tree, "worktree", "add", "--quiet", "--detach", str(copy), BASE)
        try:
            for path in listed:
                text = read(path, patches, common)
                _apply(copy, path, text)
                made[path] = formatted(copy, "HEAD~..HEAD", Path(folder, path))[0]
                again = made[path].read_text(encoding="utf-8")
                exact = (patches / path).exists()
                if again != text and (exact or not same_change(again, text)):
                    found.append(f"{path}: not as export writes it")
            # seconds each, most of them waiting for programs that the script starts for each file
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                said = pool.map(lambda path: _criticised(copy, path, made[path], manner), listed)
                found += itertools.chain.from_iterable(said)
        finally:
            _git(tree, "worktree", "remove", "--force", str(copy))
    return found


def checked(patches: Path, common: Path | None = None) -> list[str]:
    """Return what is wrong with the form of the series."""
    listed = entries((patches / "series").read_text(encoding="utf-8"))
    there = [path.relative_to(patches).as_posix() for path in patches.glob("*/*.patch")]
    shared = [path for path in listed if common and path not in there and (common / path).exists()]
    found = misplaced(listed, [*there, *shared])
    if common:
        of_all = entries((common / "series").read_text(encoding="utf-8"))
        absent = patches.parent / "absent"
        told = absent.read_text(encoding="utf-8") if absent.exists() else ""
        found += unexplained(listed, of_all, told)
    for path in there:
        text = (patches / path).read_text(encoding="utf-8")
        found += [f"{path}: {fault}" for fault in faults(text)]
    return found


def main() -> int:
    """Run the command, and return its exit code: 1 for a series that is not as it must be."""
    words = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--patches", type=Path, default=PATCHES, help="the folder of the series")
    words.add_argument("--common", type=Path, help="where to look for patches that it has not got")
    verbs = words.add_subparsers(dest="verb", required=True)
    verbs.add_parser("import").add_argument("tree", type=Path)
    export = verbs.add_parser("export")
    export.add_argument("group")
    export.add_argument("tree", type=Path)
    export.add_argument("start", nargs="?")
    check = verbs.add_parser("check")
    check.add_argument("--strict", action="store_const", const=STRICT, default=LENIENT)
    check.add_argument("tree", type=Path, nargs="?")
    asked = words.parse_args()
    try:
        if asked.verb == "import":
            bring_in(asked.tree.resolve(), asked.patches, asked.common)
        elif asked.verb == "export":
            take_out(asked.group, asked.tree.resolve(), asked.patches, asked.start, asked.common)
        else:
            found = checked(asked.patches, asked.common)
            if not found and asked.tree is not None:
                found = applied(asked.tree.resolve(), asked.patches, asked.strict, asked.common)
            for line in found:
                print(f"series: {line}", file=sys.stderr)
            return 1 if found else 0
    except SeriesError as error:
        print(f"series: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
