# SPDX-License-Identifier: Apache-2.0
"""``dsatier check``: its messages, its exit codes, and what it does not load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profile_strategies import PROFILES, broken_profiles

from dsatier.cli.check import check_main
from dsatier.profile import check, yaml
from dsatier.profile.check import check_text

AGENT = str(Path(check.__file__).parents[2])


def said(text: str, *, whole: bool = True) -> list[str]:
    return [str(problem) for problem in check_text(text, "f", whole=whole)]


CHECK = "import sys; from dsatier.cli.check import check_main as m; sys.exit(m(sys.argv[1:]))"


def run(*argv: str, code: str = "", given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    code = code or CHECK
    return subprocess.run(
        [sys.executable, "-c", code, *argv],
        input=given,
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": AGENT},
    )


def test_all_errors_at_once_sorted_by_place() -> None:
    text = """\
version: 2
match: {hostname: [a, 5, "b["], abi: ours, numa: {nodes: 0}}
tiers: {fast_node: yes, cpuless: no}
concurency: {}
engine:
  kind: dsa
  limit_chan: 9
  limit_mt_num: 3
  limit_chans: 9
  work_queues: {devices: [], engine: 4, size: "128", queues: 0x1}
  on_fault: x
  demotion_enabled: true
tiering:
  swap: true
  numa_balancing: 2.0
  demotion_enabled: 1
tiering: {}
"""
    expected = [
        "f:1:10: version: expected 1, found the number 2",
        "f:2:23: match.hostname[1]: expected text of 1 to 256 characters, found the number 5; "
        "put it in quotes",
        "f:2:38: match.abi: expected a list of 1 to 3 items, each ours, seed or none, "
        "found 'ours'; write [ours]",
        "f:2:58: match.numa.nodes: expected an integer from 1 to 1024, found the number 0",
        "f:3:20: tiers.fast_node: expected an integer from 0 to 1023, found 'yes'",
        "f:3:34: tiers.cpuless: expected true or false, found 'no'; write false",
        "f:4:1: concurency: unknown key, did you mean 'concurrency'?",
        "f:7:3: engine.limit_chan: unknown key, did you mean 'limit_chans'?",
        "f:8:3: engine.limit_mt_num: unknown key, it belongs in engine with kind: multithread",
        "f:9:16: engine.limit_chans: expected an integer from 1 to 8, found the number 9",
        "f:10:26: engine.work_queues.devices: expected a list of 1 to 64 items, "
        "each text of 4 to 32 characters, found an empty list",
        "f:10:30: engine.work_queues.engine: unknown key, did you mean 'engines'?",
        "f:10:47: engine.work_queues.size: expected an integer from 1 to 1024, found '128'; "
        "leave the quotes out",
        "f:10:62: engine.work_queues.queues: expected a decimal number or text, "
        "found the number 0x1; write 1, or put it in quotes if it is text",
        "f:11:13: engine.on_fault: expected cpu or cpu-and-stop-tiering, found 'x'",
        "f:12:3: engine.demotion_enabled: unknown key, it belongs in tiering",
        "f:14:9: tiering.swap: expected off or on, found true; write on",
        "f:15:19: tiering.numa_balancing: expected an integer from 0 to 3, "
        "found the number 2.0; write 2",
        "f:16:21: tiering.demotion_enabled: expected true or false, found the number 1",
        "f:17:1: tiering: duplicate key, first at line 13, column 1",
    ]
    assert expected == said(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f:1:1: expected a mapping with version, found nothing"),
        ("[1]", "f:1:1: expected a mapping with version, found a list of 1"),
        ("version", "f:1:1: expected a mapping with version, found 'version'"),
        ("{}", "f:1:1: version: expected 1, found nothing; add 'version: 1'"),
        ("version:", "f:1:1: version: expected 1, found nothing"),
        ("version: '1'", "f:1:10: version: expected 1, found '1'; leave the quotes out"),
        ("version: 1\ntiers: 5", "f:2:8: tiers: expected a mapping of nodes, online, fast_node, "
         "slow_node or cpuless, found the number 5"),
        ("version: 1\nengine: {limit_chans: 3}", "f:2:1: engine.kind: expected cpu, multithread "
         "or dsa, found nothing; add 'kind: ...'"),
        ("version: 1\nengine: {kind: }", "f:2:10: engine.kind: expected cpu, multithread "
         "or dsa, found nothing; add 'kind: ...'"),
        ("version: 1\nengine: {kind: dsaa}", "f:2:16: engine.kind: expected cpu, multithread or "
         "dsa, found 'dsaa'"),
        ("version: 1\nengine: {kind: [dsa]}", "f:2:16: engine.kind: expected cpu, multithread or "
         "dsa, found a list of 1"),
        ("version: 1\nengine: dsa", "f:2:9: engine: expected a mapping with kind cpu, multithread "
         "or dsa, found 'dsa'"),
        ("version: 1\nengine: {kind: cpu, dsa: 1}", "f:2:21: engine.dsa: unknown key, nothing more "
         "is expected here"),
        ("version: 1\nengine: {kind: dsa, dsa: {limit_chans: 1}}",
         "f:2:21: engine.dsa: unknown key, expected limit_chans, dsa_copy_threshold, "
         "migrate_engine_reasons, migrate_copy_calibrate, work_queues or on_fault"),
        ("version: 1\nengine: {kind: dsa, work_queues: {a: 1}}",
         "f:2:34: engine.work_queues: expected a mapping with file or a mapping with devices, "
         "found a mapping"),
        ("version: 1\nengine: {kind: dsa, work_queues: {file: /a, size: 1, queues: 1}}",
         "f:2:35: engine.work_queues.file: unknown key"),
        ("version: 1\nengine: {kind: dsa, work_queues: {devices: all}}",
         "f:2:44: engine.work_queues.devices: expected an integer from 1 to 64 or a list of 1 to "
         "64 items, each text of 4 to 32 characters, found 'all'"),
        ("version: 1\nengine: {kind: dsa, work_queues: {devices: true}}",
         "f:2:44: engine.work_queues.devices: expected an integer from 1 to 64 or a list"),
        ("version: 1\nengine: {kind: dsa, work_queues: {queues: 2}}",
         "f:2:21: engine.work_queues.devices: expected an integer from 1 to 64 or a list"),
        ("version: 1\nmatch: {release: [" + "x" * 300 + "]}",
         "f:2:19: match.release[0]: expected text of 1 to 256 characters, found 300 characters"),
        ("version: 1\nmatch: {release: [6.12]}", "f:2:19: match.release[0]: expected text of 1 to "
         "256 characters, found the number 6.12; put it in quotes"),
        ("version: 1\nengine: {kind: multithread, limit_mt_num: 999999999999999999}",
         "expected an integer from 1 to 32, found the number 999999999999999999"),
    ],
)  # fmt: skip
def test_message(text: str, message: str) -> None:
    problems = said(text)
    assert any(message in problem for problem in problems)


def test_one_problem_an_error() -> None:
    assert len(said("version: 1\nengine: {kind: dsa, work_queues: {devices: all}}")) == 1
    assert len(said("version: 1\nengine: {kind: 0x1}")) == 1


def test_problems_are_limited() -> None:
    text = "version: 1\n" + "".join(f"k{n}: 1\n" for n in range(4000))
    problems = said(text)
    assert len(problems) == 100
    assert problems[0].startswith("f:2:1: k0: unknown key")


@given(broken_profiles())
def test_check_agrees_with_the_schema_on_what_json_says(data: Any) -> None:
    text = json.dumps(data)
    places = [(p.line, p.column) for p in check_text(text, "f")]
    assert places == sorted(places)


@given(PROFILES)
def test_valid_profiles_have_no_problems(data: dict[str, Any]) -> None:
    assert said(json.dumps(data)) == []


def test_shipped_profiles_are_valid_and_have_a_header(profiles: Path) -> None:
    files = sorted(profiles.glob("*"))
    assert [file.name for file in files] == [
        "cpu.yaml",
        "detach.yaml",
        "dsa-huge.yaml",
        "dsa.yaml",
        "multithread.yaml",
        "tiering-sockets.yaml",
        "tiering.yaml",
        "tpp-cpu.yaml",
        "tpp-dsa.yaml",
        "tpp-multithread.yaml",
    ]
    assert check_main([str(file) for file in files]) == 0
    for file in files:
        lines = file.read_text().splitlines()
        assert lines[0] == "# SPDX-License-Identifier: Apache-2.0"
        assert lines[1].startswith("# ")
        assert max(map(len, lines)) <= 100


def test_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad.txt"
    good.write_text("version: 1\n")
    bad.write_text("version: 0\n")
    assert check_main([str(good)]) == 0
    assert check_main([str(good), str(bad)]) == 65
    assert check_main(["--", str(good)]) == 0
    assert capsys.readouterr() == (
        "",
        f"{bad}:1:10: version: expected 1, found the number 0\n",
    )
    for words, code in (([], 64), (["--jsn", str(good)], 64), ([str(good), "--help"], 0)):
        with pytest.raises(SystemExit) as ended:
            check_main(words)
        assert ended.value.code == code
    capsys.readouterr()


@pytest.mark.parametrize(
    ("name", "reason"), [("gone", "no such file or directory"), ("a" * 300, "file name too long")]
)
def test_unreadable_is_a_bad_profile(
    name: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / name)
    assert check_main([path]) == 65
    assert capsys.readouterr().err == f"{path}: expected a readable file, found {reason}\n"


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text("version: 1\n")
    bad.write_text("version: 1\nengin: 1\n")
    assert check_main(["--json", str(good), str(bad)]) == 65
    message = "unknown key, did you mean 'engine'?"
    assert json.loads(capsys.readouterr().out) == {
        "schema_version": 1,
        "files": [
            {"file": str(good), "valid": True, "problems": []},
            {
                "file": str(bad),
                "valid": False,
                "problems": [
                    {
                        "line": 2,
                        "column": 1,
                        "field": "engin",
                        "expected": "one of version, match, tiers, concurrency, engine, tiering, "
                        "memory, drift",
                        "found": "the key 'engin'",
                        "message": message,
                    }
                ],
            },
        ],
    }


def test_standard_input() -> None:
    assert run("-", given=b"version: 1\n").returncode == 0
    ran = run("-", given=b"version: \xff\n")
    assert ran.returncode == 65
    assert ran.stderr.decode() == (
        "<stdin>:1:10: expected UTF-8 text, found the byte 0xff; save the file as UTF-8\n"
    )


def test_a_device_is_not_opened() -> None:
    ran = run("/dev/zero")
    assert ran.returncode == 65
    assert "neither a regular file nor a pipe" in ran.stderr.decode()


def test_an_endless_pipe_is_read_only_so_far() -> None:
    ran = subprocess.run(
        ["bash", "-c", 'exec "$0" -c "$1" <(yes)', sys.executable, CHECK],
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 65
    assert f"at most {yaml.MAX_BYTES} bytes" in ran.stderr.decode()


def test_an_empty_file_is_a_mask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It disables its name as a drop-in, so configuration managers may write it."""
    file = tmp_path / "50-off.yaml"
    file.write_text("\n")
    assert check_main([str(file)]) == 0
    assert "disables its name" in capsys.readouterr().err
    assert run("-", given=b"").returncode == 65


@pytest.mark.parametrize("version", ["1.0", "true", "1e0", "'1'"])
def test_the_version_is_a_whole_number(version: str) -> None:
    assert [p.field for p in check_text(f"version: {version}\n", "f")] == ["version"]


@given(st.binary(max_size=200) | st.text(max_size=100))
def test_any_text_gives_problems_with_places(source: bytes | str) -> None:
    for problem in check_text(source, "f"):
        assert problem.line >= 1
        assert problem.column >= 1
        assert str(problem).isprintable()
