# SPDX-License-Identifier: Apache-2.0
"""`dsatier history`: on simulated hosts, on trees of files, and what reaches the terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dsatier.apply.history import Entry, appended
from dsatier.base.paths import HISTORY
from dsatier.cli.history import since
from dsatier.cli.main import main

DSA = str(Path(__file__).resolve().parents[2] / "profiles" / "dsa.yaml")
NOW = time.mktime((2026, 11, 30, 9, 30, 0, 0, 0, -1))
MIDNIGHT = NOW - 9.5 * 3600
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command on a tree that stands in for a host."""

    def command(*words: str) -> tuple[int, str, str]:
        code = main([words[0], "--root", str(tmp_path), *words[1:]])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def put(root: Path, text: str) -> Path:
    path = root / HISTORY[1:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return path


def test_what_happened_on_a_simulated_host(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host = ["--host", "sim:dsa8", "--sim-state", str(tmp_path / "host.json")]
    for words in (["apply", "-q", "-p", DSA], ["rollback", "-q"]):
        assert 0 == main([words[0], *host, *words[1:]])
    capsys.readouterr()
    assert 0 == main(["history", *host])
    lines = capsys.readouterr().out.splitlines()
    assert ["rollback", "profile", "change"] == [line.split()[2] for line in lines]
    assert 0 == main(["history", "--json", *host])
    document = json.loads(capsys.readouterr().out)
    assert (1, "dsa8", 0) == tuple(document[k] for k in ("schema_version", "hostname", "left_out"))
    events = [entry["event"] for entry in document["entries"]]
    assert (["rollback", "profile", "change"], {"at", "event", "state", "message"}) == (
        events,
        set(document["entries"][0]),
    )
    assert 0 == main(["history", "--since", "@99999999999", *host])
    assert capsys.readouterr().out.startswith("nothing happened since ")


def test_a_host_on_which_nothing_happened(run: Run) -> None:
    assert (0, "nothing happened\n", "") == run("history")


def test_no_control_character_reaches_the_terminal(run: Run, tmp_path: Path) -> None:
    odd = "\x1b[2J\x07 \u202e \x9b \ud800 first\n\x1b]0;second\rx"
    put(tmp_path, appended("", [Entry(1.0, odd, odd, odd)]))
    code, out, err = run("history")
    assert (0, "", 2) == (code, err, len(out.splitlines()))
    assert all(line.isprintable() for line in out.split("\n"))
    assert ("first" in out, "second" in out) == (True, True)
    assert odd == json.loads(run("history", "--json")[1])["entries"][0]["message"]


@pytest.mark.parametrize("spoilt", ["\0\0", "{", "\udcff\udcfe", "[" * 50_000])
def test_what_dsatier_never_wrote_is_left_out_and_told(
    run: Run, tmp_path: Path, spoilt: str
) -> None:
    text = appended("", [Entry(1.0, "boot", "unmanaged", "the host booted")])
    put(tmp_path, text + spoilt)
    code, out, err = run("history")
    assert (0, True) == (code, out.rstrip().endswith("boot      unmanaged: the host booted"))
    assert f"dsatier: {HISTORY}: 1 line was not what dsatier wrote: left out\n" == err


def test_a_history_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / HISTORY[1:]).mkdir(parents=True)
    code, out, err = run("history")
    assert (1, "") == (code, out)
    assert err.startswith(f"dsatier: {HISTORY}: cannot be read: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("90min", NOW - 5400), ("12h", NOW - 12 * 3600), ("7d", NOW - 7 * 86400)),
        *((" 2 h ago ", NOW - 7200), ("3s", NOW - 3), ("1w", NOW - 7 * 86400)),
        *(("today", MIDNIGHT), ("8:00", MIDNIGHT + 8 * 3600), ("08:00:30", MIDNIGHT + 28830)),
        *(("2026-11-30", MIDNIGHT), ("2026-11-30 09:30", NOW), ("2026-11-30T09:30:00", NOW)),
        *(("@17", 17.0), ("1970-01-02T00:00:00Z", 86400.0), ("1970-01-01T01:00:00+01:00", 0.0)),
        *(("999999999w", 0.0), ("1902-01-01", 0.0), ("9999-12-31", 1e11)),
        ("yesterday", time.mktime((2026, 11, 29, 0, 0, 0, 0, 0, -1))),
    ],
)
def test_times_that_are_understood(text: str, expected: float) -> None:
    assert expected == since(text, NOW)


@pytest.mark.parametrize(
    "text",
    ["", "soon", "12", "12x", "-1h", "25:00", "8:61", "2026-13-01", "@x", "\x1b[2J", "1:2:3:4"],
)
def test_times_that_are_not(text: str, run: Run) -> None:
    code, out, err = run("history", f"--since={text}")
    assert (64, "") == (code, out)
    assert "--since: expected a time as 2026-11-30" in err
    assert err.rstrip("\n").isprintable()
