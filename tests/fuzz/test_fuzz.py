# SPDX-License-Identifier: Apache-2.0
"""A few cases of each kind, and that the fuzzer finds what it looks for."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from tests.fuzz import spoil
from tests.fuzz.__main__ import again, kept, order_cases
from tests.fuzz.kinds import KINDS, Case
from tests.fuzz.orders import Daemon
from tests.fuzz.play import Found, play

FEW = 6
NOTHING = Case({}, ())


@pytest.mark.parametrize("kind", KINDS)
def test_spoilt_files_end_in_words(kind: str) -> None:
    for number in range(FEW):
        case = KINDS[kind](Random(f"test {kind} {number}"))
        assert (number, play(case)) == (number, None)


def test_spoilt_orders_leave_a_daemon_that_listens(tmp_path: Path) -> None:
    assert order_cases(0, 0, tmp_path) == []


def test_a_seed_spoils_in_one_way() -> None:
    for kind, make in KINDS.items():
        assert make(Random(kind)) == make(Random(kind))


def test_a_value_is_spoilt_and_the_original_is_not() -> None:
    whole = {"a": [1, 2.5, "text", None, True], "b": {"c": []}}
    before = json.dumps(whole)
    spoilt = [spoil.value(Random(n), whole) for n in range(200)]
    assert json.dumps(whole) == before
    assert sum(one != whole for one in spoilt) > 150


def _raises(words: list[str]) -> int:
    raise OverflowError("int too large")


def _printing(text: str, code: int = 0) -> object:
    def command(words: list[str]) -> int:
        import sys

        print(text, file=sys.stderr)
        return code

    return command


def _odd(words: list[str]) -> int:
    return 99


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (_raises, "an exception"),
        (_printing("Traceback (most recent call last):"), "a traceback"),
        (_printing("x" * 30_000), "a message without end"),
        (_printing("\x1b[2J"), "what a terminal obeys"),
        (_odd, "an exit code of no rule"),
        (lambda words: 65, "no word of what is wrong"),
    ],
)
def test_what_is_wrong_is_found(command: object, what: str) -> None:
    assert callable(command)
    found = play(NOTHING, command)
    assert found is not None
    assert found.what == what


def test_a_finding_is_kept_and_plays_again(tmp_path: Path) -> None:
    case = Case({"d/a.yaml": b"version: 2\n"}, ("check", "%/d"))
    kept(case, Found("what", "said"), tmp_path / "one")
    assert again(tmp_path / "one") is None
    assert (tmp_path / "one/found.txt").read_text(encoding="utf-8") == "what\n\nsaid\n"


def test_a_daemon_that_ended_is_found(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        assert daemon.ready() is None
        assert daemon.wrong() is None
        daemon.running.kill()
        found = daemon.wrong()
    assert found is not None
    assert found.what == "the daemon ended"
