# SPDX-License-Identifier: Apache-2.0
"""YAML text to plain data."""

from __future__ import annotations

from typing import Any

import pytest

from dsatier.profile import yaml
from dsatier.profile.yaml import parse

BOTH = pytest.mark.parametrize("pure", [False, True], ids=["libyaml", "pure"])


def said(source: str | bytes, pure: bool) -> list[str]:
    return [str(problem) for problem in parse(source, "f", pure=pure).problems]


@BOTH
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-5", -5),
        ("+5", 5),
        ("0", 0),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("true", True),
        ("false", False),
        ("~", None),
        ("null", None),
        ("", None),
        # What YAML 1.1 makes booleans and dates of, and what only looks like a number.
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("True", "True"),
        ("2001-01-01", "2001-01-01"),
        ("0000:6a:01.0", "0000:6a:01.0"),
        ("6.12.1", "6.12.1"),
        ("0xyz", "0xyz"),
        ("+", "+"),
        ("1.2.3.4", "1.2.3.4"),
        ("5e", "5e"),
        # What quotes say is text.
        ("'017'", "017"),
        ('"true"', "true"),
        ("'~'", "~"),
        ('"22:22"', "22:22"),
    ],
)
def test_value(text: str, value: Any, pure: bool) -> None:
    tree = parse(f"a: {text}\n", "f", pure=pure)
    assert tree.problems == []
    assert tree.data == {"a": value}
    assert type(tree.data["a"]) is type(value)


@BOTH
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("017", "found a number with a leading 0; write 17"),
        ("08.5", "found a number with a leading 0"),
        ("0x1f", "found the number 0x1f; write 31"),
        ("0o17", "found the number 0o17; write 15"),
        ("22:22", "found 22:22; write a decimal number"),
        ("1_000", "found 1_000; write a decimal number"),
        ("1e999", "found a number too large"),
        (".inf", "found .inf"),
        ("-.INF", "found -.INF"),
        (".nan", "found .nan"),
        ("9" * 400, "found a number of 400 digits"),
        ("0x" + "f" * 400, "found the number 0xfff"),
        ("&x 1", "found the anchor &x"),
        ("!!int 1", "found the tag tag:yaml.org,2002:int"),
        ("!x {}", "found the tag !x"),
        ('"\\e[0m"', "found '\\x1b[0m'"),
    ],
)
def test_value_refused(text: str, message: str, pure: bool) -> None:
    problems = said(f"\na: {text}\n", pure)
    assert len(problems) == 1
    assert problems[0].startswith("f:2:4: a: expected ")
    assert message in problems[0]


@BOTH
def test_places_of_values_and_keys(pure: bool) -> None:
    tree = parse("a:\n  bb: 1\n  c: [x, y]\nd:\n", "f", pure=pure)
    assert tree.at(("a", "bb")) == ("f", 2, 7)
    assert tree.at(("a", "bb"), key=True) == ("f", 2, 3)
    assert tree.at(("a", "c", 1)) == ("f", 3, 10)
    assert tree.at(("a", "c", 9)) == ("f", 3, 3), "what is absent is where its container is named"
    assert tree.at(("d",)) == ("f", 4, 1), "an empty value is where its key is"
    assert tree.at(("nowhere",)) == ("f", 1, 1)


@BOTH
def test_duplicate_keys_tell_both_places_and_the_first_one_counts(pure: bool) -> None:
    tree = parse("a: 1\nb: {c: 2, c: {d: 017}}\na: 3\n", "f", pure=pure)
    assert tree.data == {"a": 1, "b": {"c": 2}}
    assert [str(problem) for problem in tree.problems] == [
        "f:2:11: b.c: duplicate key, first at line 2, column 5",
        "f:2:18: b.c.d: expected a decimal number or text, found a number with a leading 0; "
        "write 17 without the leading 0, or put it in quotes if it is text",
        "f:3:1: a: duplicate key, first at line 1, column 1",
    ]


@BOTH
@pytest.mark.parametrize(
    ("source", "start"),
    [
        ("1: a\n", "f:1:1: expected text as a key, found 1"),
        ("true: a\n", "f:1:1: expected text as a key, found true"),
        ("~: a\n", "f:1:1: expected text as a key, found ~"),
        ("[a]: b\n", "f:1:1: expected text as a key, found a mapping or a list"),
        ("? {a: b}\n: c\n", "f:1:3: expected text as a key, found a mapping or a list"),
        ("<<: {a: 1}\n", "f:1:1: expected a key, found the merge key <<"),
        ("a: 1\n---\nb: 2\n", "f:2:1: expected one YAML document, found a second one"),
        ("%YAML 1.1\n---\na: 1\n", "f:1:1: expected no directives"),
        ("a: [1, 2\n", "f:2:1: not valid YAML: "),
        ("a: b: c\n", "f:1:5: not valid YAML: mapping values are not allowed"),
        ("a:\n\tb: 1\n", "f:2:1: not valid YAML: "),
        ("a: 'x\n", "f:2:1: not valid YAML: "),
        (b"a: \xff\n", "f:1:4: expected UTF-8 text, found the byte 0xff"),
        ("é: b\n".encode("latin-1"), "f:1:1: expected UTF-8 text, found the byte 0xe9"),
        ("a: 1\n".encode("utf-16"), "f:1:1: expected UTF-8 text, found UTF-16"),
        ("a: 1\n".encode("utf-16-be"), "f:1:1: expected UTF-8 text, found UTF-16 or UTF-32"),
        ("a: 1\n".encode("utf-32"), "f:1:1: expected UTF-8 text, found UTF-32"),
        ("a: \udcff\n", "f:1:4: expected UTF-8 text, found the byte 0xff"),
        ("a: 1\r\nb: \x1b[0m\n", "f:2:4: expected text, found the control character U+001B"),
        ("a: 1\x85b: 2\n", "f:1:5: expected text, found the control character U+0085"),
        ("a: \0\n", "f:1:4: expected text, found the control character U+0000"),
        ("a: [" * 40, "f:1:"),
        ("[" * 100_000, "f:1:33: expected at most 32 levels"),
        ("{" * 100_000, "f:1:2: expected text as a key"),
        ("- " * 100_000, "f:1:65: expected at most 32 levels"),
        ("- 1\n" * 20_000, "f:10000:3: [9999]: expected at most 10000 values, found more"),
        ("a" * (1 << 20) + "b", "f:1:1: expected at most 1048576 bytes, found more"),
    ],
)
def test_text_refused(source: str | bytes, start: str, pure: bool) -> None:
    problems = said(source, pure)
    assert problems
    assert problems[0].startswith(start)
    assert max(map(len, problems)) < 500


@BOTH
def test_a_tab_is_named(pure: bool) -> None:
    assert "indent with spaces" in said("a:\n\tb: 1\n", pure)[0]


@BOTH
def test_byte_order_mark_is_taken(pure: bool) -> None:
    tree = parse(b"\xef\xbb\xbfa: 1\n", "f", pure=pure)
    assert tree.data == {"a": 1}
    assert tree.at(("a",), key=True) == ("f", 1, 1)


@BOTH
def test_aliases_do_not_expand(pure: bool) -> None:
    bomb = "a0: &a0 [x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20)
    )
    tree = parse(bomb, "f", pure=pure)
    assert len(tree.problems) == yaml.MAX_PROBLEMS
    assert not tree.complete
    assert len(tree.marks) < 1000


@BOTH
@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "\n\n"])
def test_an_empty_document_is_null(text: str, pure: bool) -> None:
    tree = parse(text, "f", pure=pure)
    assert (tree.data, tree.problems, tree.complete) == (None, [], True)


def test_messages_hold_no_control_characters() -> None:
    tree = parse('"\\e[2Jx": 1\na: "\\0"\n"\\u202e": 017\n', "f\n\x1b")
    assert len(tree.problems) == 3
    assert all(str(problem).isprintable() for problem in tree.problems)
