# SPDX-License-Identifier: Apache-2.0
"""``dsatier check FOLDER`` and ``check --as PATH FILE``: drop-ins are valid in their merge."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_strategies import PROFILES

from dsatier.base.problem import Problem
from dsatier.cli.check import check_main
from dsatier.profile.check import check_text
from dsatier.profile.dropins import Source
from dsatier.profile.folder import wrong

# neither is wrong by itself; together the interval is longer than the window
INTERVAL = "version: 1\ndrift:\n  policy: repair\n  interval: 900\n"
WINDOW = "version: 1\ndrift:\n  policy: repair\n  window: 800\n"
FINE = "version: 1\ndrift:\n  policy: report\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "dsatier.d"
    path.mkdir()
    return path


def put(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def test_it_is_the_merge_that_counts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(folder, a=INTERVAL, b="version: 1\ndrift:\n  policy: repair\n  window: 2000\n")
    assert 65 == check_main([str(folder / "a.yaml")])
    assert 0 == check_main([str(folder)])
    capsys.readouterr()
    put(folder, b=WINDOW)
    assert 65 == check_main([str(folder)])
    err = capsys.readouterr().err
    assert err.startswith((f"{folder}/a.yaml:4:13: drift.", f"{folder}/b.yaml:4:11: drift."))


def test_what_counts_is_what_counts_on_a_host(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(folder, a=FINE, empty="")
    for name in ("x.yml", ".x.yaml", "x.yaml.dpkg-new", "README"):
        (folder / name).write_text("{", encoding="utf-8")
    (folder / "null.yaml").symlink_to("/dev/null")
    with contextlib.chdir(folder.parent):
        assert 0 == check_main(["--json", "dsatier.d/"])
    files = json.loads(capsys.readouterr().out)["files"]
    assert [{"file": "dsatier.d/a.yaml", "valid": True, "problems": []}] == files


def test_a_match_stands_for_another_host(folder: Path) -> None:
    one, other = ("match:\n  hostname: ['a*']\n", "match:\n  hostname: ['b*']\n")
    put(folder, a="version: 1\ndrift:\n  policy: repair\n  window: 2000\n")
    put(folder, b=INTERVAL + one, c=WINDOW + other)
    assert 0 == check_main([str(folder)])
    put(folder, c=WINDOW + one)
    assert 65 == check_main([str(folder)])


@pytest.mark.parametrize(
    ("text", "place"), [("version: 2\n", "1:10"), ("version: 1\nx: {\n", "3:1"), ("\0", "1:1")]
)
def test_each_file_is_checked_by_itself(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, place: str
) -> None:
    put(folder, a=FINE, b=text)
    assert 65 == check_main([str(folder)])
    assert capsys.readouterr().err.startswith(f"{folder}/b.yaml:{place}: ")


def test_a_folder_without_a_profile_is_a_mistake(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert 65 == check_main([str(folder)])
    words = f"{folder}: expected a profile, *.yaml, found none that counts\n"
    assert words == capsys.readouterr().err


def test_what_cannot_be_read_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(folder, a=FINE)
    os.mkfifo(folder / "b.yaml")
    assert 65 == check_main([str(folder)])
    assert capsys.readouterr().err.startswith(f"{folder}/b.yaml: expected a readable file, found ")


# -- one file among the others -------------------------------------------------------


def test_a_file_is_checked_among_the_others(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(folder, a=INTERVAL)
    fresh = tmp_path / "source"
    for text, code in ((WINDOW, 65), ("version: 1\ndrift:\n  policy: repair\n  window: 2000\n", 0)):
        fresh.write_text(text, encoding="utf-8")
        assert code == check_main(["--as", str(folder / "b.yaml"), str(fresh)])
    assert capsys.readouterr().err
    # the file that is there is replaced by it, not merged with it
    put(folder, a=WINDOW, b="version: 1\ndrift:\n  policy: repair\n  interval: 900\n")
    fresh.write_text(FINE, encoding="utf-8")
    assert 0 == check_main([f"--as={folder}/b.yaml", str(fresh)])


def test_a_folder_that_is_wrong_can_be_mended_file_by_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(folder, a="version: 2\n", b="{", c=FINE)
    fresh = tmp_path / "source"
    fresh.write_text(FINE, encoding="utf-8")
    assert 0 == check_main(["--as", str(folder / "a.yaml"), str(fresh)])
    fresh.write_text("version: 2\n", encoding="utf-8")
    assert 65 == check_main(["--as", str(folder / "a.yaml"), str(fresh)])
    assert capsys.readouterr().err.startswith(f"{fresh}:1:10: version: ")


def test_the_first_file_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    fresh = tmp_path / "source"
    fresh.write_text(FINE, encoding="utf-8")
    assert 0 == check_main(["--as", str(tmp_path / "none" / "a.yaml"), str(fresh)])


@pytest.mark.parametrize("name", ["a.yml", ".a.yaml", "a.yaml.rpmnew", ""])
def test_a_path_that_would_not_count(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    put(folder, a=FINE)
    assert 65 == check_main(["--as", f"{folder}/{name}", str(folder / "a.yaml")])
    assert "expected the path of a drop-in" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--as"], ["--as", "x.yaml"], ["--as=x.yaml", "a", "b"]])
def test_wrong_usage(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        check_main(words)
    assert 64 == ended.value.code


# -- pure ------------------------------------------------------------------------------


@settings(deadline=None)
@given(PROFILES, st.text(max_size=30))
def test_one_file_is_as_wrong_as_by_itself(profile: object, odd: str) -> None:
    for text in (json.dumps(profile), odd):
        alone = check_text(text, "f.yaml", whole=False) or check_text(text, "f.yaml")
        together = wrong([Source("f.yaml", text)])
        assert {one.place() for one in alone} == {one.place() for one in together}


def test_problems_are_told_once() -> None:
    twice = [
        Source("a", INTERVAL),
        Source("b", WINDOW),
        Source("c", "version: 1\nmatch: {abi: 1}\n"),
    ]
    found: list[Problem] = wrong(twice)
    assert len(found) == len(set(map(str, found)))
