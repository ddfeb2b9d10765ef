# SPDX-License-Identifier: Apache-2.0
"""Which files of the three folders count."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profile_doubles import FilesInMemory

from dsatier.base.paths import DROP_INS
from dsatier.base.problem import Invalid
from dsatier.host.port import Rejected
from dsatier.profile.dropins import Source, Unused, counts, find, read_named

LOW, MIDDLE, HIGH = DROP_INS


def found(files: dict[str, str], links: dict[str, str] | None = None, broken: str = "") -> Any:
    return find(FilesInMemory(files, links, broken))  # type: ignore[arg-type]


def test_files_sort_by_name_whatever_their_folder() -> None:
    files = {f"{HIGH}/20-b.yaml": "b", f"{LOW}/30-c.yaml": "c", f"{MIDDLE}/10-a.yaml": "a"}
    assert found(files).sources == (
        Source(f"{MIDDLE}/10-a.yaml", "a"),
        Source(f"{HIGH}/20-b.yaml", "b"),
        Source(f"{LOW}/30-c.yaml", "c"),
    )


def test_a_higher_folder_masks_the_name() -> None:
    files = {f"{folder}/10.yaml": folder for folder in DROP_INS}
    assert found(files).sources == (Source(f"{HIGH}/10.yaml", HIGH),)
    assert found(files).masked == (
        Unused(f"{MIDDLE}/10.yaml", f"masked by {HIGH}/10.yaml"),
        Unused(f"{LOW}/10.yaml", f"masked by {HIGH}/10.yaml"),
    )


@pytest.mark.parametrize("target", ["/dev/null", "../../dev/null", "/dev/../dev/null"])
def test_a_link_to_dev_null_disables(target: str) -> None:
    result = found({f"{LOW}/10.yaml": "a"}, {f"{HIGH}/10.yaml": target})
    assert result.sources == ()
    assert [unused.path for unused in result.masked] == [f"{HIGH}/10.yaml", f"{LOW}/10.yaml"]


@pytest.mark.parametrize("text", ["", "\n"])
def test_an_empty_file_disables(text: str) -> None:
    result = found({f"{LOW}/10.yaml": "a", f"{MIDDLE}/10.yaml": text})
    assert result.sources == ()
    assert len(result.masked) == 2


def test_other_links_are_followed() -> None:
    files = {"/srv/profile": "a"}
    assert found(files, {f"{HIGH}/10.yaml": "/srv/profile"}).sources == (
        Source(f"{HIGH}/10.yaml", "a"),
    )


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("10-dsa.yaml", True),
        ("a.yaml", True),
        ("10-dsa.yml", False),
        (".10-dsa.yaml", False),
        ("10-dsa.yaml~", False),
        ("10-dsa.yaml.dpkg-new", False),
        ("10-dsa.dpkg-old.yaml", False),
        ("10-dsa.yaml.rpmsave", False),
        ("10-dsa.rpmnew.yaml", False),
        ("README", False),
    ],
)
def test_names(name: str, ours: bool) -> None:
    assert counts(name) is ours
    assert len(found({f"{HIGH}/{name}": "a"}).sources) == ours


def test_what_cannot_be_read_is_told_with_its_path() -> None:
    with pytest.raises(Invalid) as caught:
        found({}, {f"{HIGH}/10.yaml": "/gone"}, broken=f"{LOW}/20.yaml")
    assert [str(problem) for problem in caught.value.problems] == [
        f"{HIGH}/10.yaml: expected a readable file, found no such file",
        f"{LOW}/20.yaml: expected a readable file, found input/output error",
    ]


def test_no_folders_no_files() -> None:
    assert found({}).sources == ()


NAMES = st.sampled_from(["10.yaml", "20.yaml", "30.yaml", "9.yaml", "x.yml"])
TREES = st.dictionaries(
    st.tuples(st.sampled_from(DROP_INS), NAMES), st.sampled_from(["", "text", None])
)


@given(TREES)
def test_each_name_counts_once_and_nothing_is_lost(tree: dict[tuple[str, str], str | None]) -> None:
    """None is a link to /dev/null."""
    files = {f"{folder}/{name}": text for (folder, name), text in tree.items() if text is not None}
    links = {f"{folder}/{name}": "/dev/null" for (folder, name), t in tree.items() if t is None}
    result = found(files, links)
    expected = []
    for name in sorted({name for _, name in tree if name.endswith(".yaml")}):
        top = next(folder for folder in reversed(DROP_INS) if (folder, name) in tree)
        if tree[top, name]:
            expected.append(Source(f"{top}/{name}", "text"))
    assert tuple(expected) == result.sources
    told = [one.path for one in (*result.sources, *result.masked)]
    assert sorted(told) == sorted(f"{f}/{name}" for f, name in tree if name.endswith(".yaml"))


@pytest.mark.parametrize("path", ["/etc/dsatier.d", "/etc/dsatier.d/10.yaml"])
def test_what_others_may_write_is_not_taken(path: str) -> None:
    host: Any = FilesInMemory({"/etc/dsatier.d/10.yaml": "version: 1\n"})
    assert len(find(host).sources) == 1
    host.written_by[path] = "user 1000 owns it"
    with pytest.raises(Invalid) as raised:
        find(host)
    assert str(raised.value) == (
        f"{path}: expected a file or folder that only root may write, found user 1000 owns it;"
        " chown root, and chmod go-w"
    )


def test_a_folder_without_drop_ins_may_be_anybodys() -> None:
    host: Any = FilesInMemory({"/etc/dsatier.d/README": ""})
    host.written_by["/etc/dsatier.d"] = "everybody may write it"
    assert find(host).sources == ()


def test_a_file_that_a_profile_names_is_judged_alike() -> None:
    host: Any = FilesInMemory({"/etc/queues.json": "[]"})
    assert read_named(host, "/etc/queues.json") == "[]"
    host.written_by["/etc/queues.json"] = "everybody may write it"
    with pytest.raises(Rejected, match="everybody may write it; chown root"):
        read_named(host, "/etc/queues.json")
