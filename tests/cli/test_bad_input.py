# SPDX-License-Identifier: Apache-2.0
"""Bad files, pipes, terminals, locales and users: every verb ends soon, with words and one rule.

64 is for the words of the command line, 65 for a file that they name: it cannot be read, or is
not what it is to be. No traceback, no endless read, no escape sequence.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from dsatier.base.exits import FAILED, NOT_RUNNING
from dsatier.base.problem import Invalid
from dsatier.cli.main import main
from dsatier.cli.options import COMMANDS
from dsatier.control.protocol import folder
from dsatier.facts.model import Facts
from dsatier.facts.observe.observer import observe
from dsatier.host import children, given, output
from dsatier.host.port import HostError
from dsatier.profile import schema
from dsatier.profile.dropins import find
from dsatier.sim.host import SimHost
from tests.support.running import PATIENCE, PROFILES, environment
from tests.support.treehost import Layout

DSA = str(PROFILES / "dsa.yaml")
SOON = 60.0
"""Seconds for the slowest end on a loaded machine; what hangs, or reads for ever, takes longer."""
CONCURRENCY = "version: 1\nconcurrency: {use_concur_to_compact: true}\n"
ESCAPE = "\x1b]0;owned\x07\x1b[2J"

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*words: str) -> tuple[int, str, str]:
        try:
            code = main(list(words))
        except SystemExit as stop:  # argparse
            code = int(str(stop.code))
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def process(*words: str, streams: str = "", **variables: str) -> tuple[int, str, str]:
    """Run dsatier in a process of its own, with its streams as a shell makes them."""
    argv = ["bash", "-c", f'exec "$@" {streams}', "bash", sys.executable, "-m", "dsatier", *words]
    ran = subprocess.run(
        argv,
        env=environment() | variables,
        capture_output=True,
        timeout=SOON,
        check=False,
    )
    return ran.returncode, ran.stdout.decode(errors="replace"), ran.stderr.decode(errors="replace")


# -- files that somebody names -----------------------------------------------------


def endless(folder: Path) -> str:
    return "/dev/zero"


def absent(folder: Path) -> str:
    return str(folder / "absent")


def a_folder(folder: Path) -> str:
    return str(folder)


def fifo(folder: Path) -> str:
    os.mkfifo(folder / "fifo")
    return str(folder / "fifo")


def large(folder: Path) -> str:
    with open(folder / "large", "wb") as stream:
        stream.truncate(given.LARGEST + 1)
    return str(folder / "large")


def holding(data: bytes) -> Callable[[Path], str]:
    def make(folder: Path) -> str:
        (folder / "file").write_bytes(data)
        return str(folder / "file")

    return make


def nine_times(number: int) -> bytes:
    """Return a line of YAML that is nine times as large as the one before."""
    return b"a%d: &a%d [%s]\n" % (number, number, b", ".join([b"*a%d" % (number - 1)] * 9))


FILES: dict[str, Callable[[Path], str]] = {
    "endless": endless,
    "absent": absent,
    "folder": a_folder,
    "fifo": fifo,
    "large": large,
    "utf-16": holding("{}".encode("utf-16")),
    "latin-1": holding(b'{"hostname": "gr\xfc\xdfe"}'),
    "nul": holding(b"\0" * 100),
    "deep": holding(b"[" * 100_000 + b"]" * 100_000),
    "long number": holding(b'{"schema_version": ' + b"9" * 6000 + b"}"),
    "half": holding(b'{"version": 1, "host": {'),
    "a list": holding(b"[1, 2]"),
    "null": holding(b"null"),
    "another": holding(b'{"schema_version": 1, "version": 1}'),
    "aliases": holding(b"a0: &a0 [x]\n" + b"".join(map(nine_times, range(1, 12)))),
    "escapes": holding(b'{"version": "\\u001b[2J"}'),
}
SIM = ("--host", "sim:dsa8")
PLACES: dict[str, Callable[[str], tuple[str, ...]]] = {
    "check": lambda file: ("check", file),
    "profile": lambda file: ("plan", *SIM, "-p", file),
    "facts": lambda file: ("plan", "--facts", file, "-p", DSA),
    "doctor's facts": lambda file: ("doctor", "--facts", file, "-p", DSA),
    "plan": lambda file: ("apply", *SIM, "--plan", file),
    "host": lambda file: ("facts", "--host", f"sim:{file}"),
    "state": lambda file: ("facts", *SIM, "--sim-state", file),
}
EMPTY_STATE = ("state", "absent")
"""A state that is not there yet is made."""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", FILES)
def test_a_bad_file_is_told_by_its_name_and_ends_with_65(
    kind: str, place: str, tmp_path: Path, run: Run
) -> None:
    if (place, kind) == EMPTY_STATE:
        kind = "half"
    file = FILES[kind](tmp_path)
    code, out, err = run(*PLACES[place](file))
    assert (code, out) == (65, "")
    assert file in err
    assert "Traceback" not in err
    assert len(err) < 20_000
    assert harmless(err)


@pytest.mark.parametrize("verb", ["plan", "apply", "reconcile", "verify", "doctor", "cat-config"])
@pytest.mark.parametrize("kind", ["endless", "absent", "utf-16"])
def test_every_verb_reads_a_profile_by_the_same_rule(
    kind: str, verb: str, tmp_path: Path, run: Run
) -> None:
    code, _, err = run(verb, *SIM, "-p", FILES[kind](tmp_path))
    assert (code, "dsatier" in err) == (65, True)


@pytest.mark.parametrize("kind", ["endless", "fifo", "latin-1", "deep", "half", "absent"])
def test_a_bad_queue_file_is_told_by_its_name(kind: str, tmp_path: Path, run: Run) -> None:
    file = FILES[kind](tmp_path)
    profile = tmp_path / "profile.yaml"
    text = f"version: 1\nengine: {{kind: dsa, work_queues: {{file: {file}}}}}\n"
    profile.write_text(text, encoding="utf-8")
    facts = tmp_path / "facts.json"
    facts.write_text(run("facts", *SIM, "--json")[1], encoding="utf-8")
    code, _, err = run("plan", "--facts", str(facts), "-p", str(profile))
    assert (code, file in err) == (65, True)


def test_a_queue_file_of_many_mistakes_is_told_in_short(tmp_path: Path, run: Run) -> None:
    wrong = {f"key{n}": n for n in range(9000)}
    queues = tmp_path / "queues.json"
    queues.write_text(json.dumps([{"dev": "dsa0", **wrong}]), encoding="utf-8")
    profile = tmp_path / "profile.yaml"
    text = f"version: 1\nengine: {{kind: dsa, work_queues: {{file: {queues}}}}}\n"
    profile.write_text(text, encoding="utf-8")
    facts = tmp_path / "facts.json"
    facts.write_text(run("facts", *SIM, "--json")[1], encoding="utf-8")
    code, _, err = run("plan", "--facts", str(facts), "-p", str(profile))
    assert code == 65
    assert "and 8982 more" in err
    assert len(err) < 10_000


def test_a_plan_that_names_no_knob_of_ours_is_refused_as_a_file(tmp_path: Path, run: Run) -> None:
    plan = json.loads(run("plan", *SIM, "-p", DSA, "--json")[1])
    file = tmp_path / "plan.json"
    file.write_text(
        json.dumps(plan).replace('"use_dsa_copy_pages"', '"no_such_knob"'), encoding="utf-8"
    )
    code, _, err = run("apply", *SIM, "--plan", str(file))
    assert (code, str(file) in err) == (65, True)


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (("dma", 0, 3, 0, 1), "dsa0", "dma: expected a queue, found 'dsa0'"),
        (("dma", 0, 2), "6a:01.0", "dma: expected a device, found '6a:01.0'"),
        (("dma", 0, 1), 70, "dma: expected a device, found '0000:6a:01.0'"),
        (("timer", 1), 10**30, "expected numbers below 2^63, found 1000000000000000"),
        (("now",), float("inf"), "expected numbers below 2^63, found "),
        (("wall",), 1e18, "wall: expected a second before year 10000"),
    ],
    ids=["queue", "address", "device", "count", "clock", "date"],
)
def test_a_kept_state_that_no_host_has_is_refused(
    tmp_path: Path, run: Run, place: tuple[str | int, ...], value: object, told: str
) -> None:
    file = tmp_path / "state.json"
    assert run("apply", *SIM, "--sim-state", str(file), "-p", DSA)[0] == 0
    whole = json.loads(file.read_text(encoding="utf-8"))
    holder = whole["state"]
    for part in place[:-1]:
        holder = holder[part]
    holder[place[-1]] = value
    file.write_text(json.dumps(whole).replace("Infinity", "1e999"), encoding="utf-8")
    code, _, err = run("facts", *SIM, "--sim-state", str(file))
    assert (code, told in err, err) == (65, True, err)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("nodes: [{cpus: 0-3, memory: 1" + "0" * 400 + "}]", "nodes.0.memory: "),
        ("nodes: [{cpus: 0-99999999999999999999}]", "cpus: expected a list like 0-15,32"),
        ("devices: [{pci: '6a:01.0'}]", "pci: expected an address like 0000:6a:01.0"),
        ("devices: [{queues: 5000000000}]", "queues: "),
        ("wall: 1.0e+30", "wall: "),
    ],
    ids=["memory", "cpus", "address", "queues", "date"],
)
def test_a_host_that_cannot_be_is_refused(tmp_path: Path, run: Run, line: str, told: str) -> None:
    file = tmp_path / "host.yaml"
    whole = {
        "version": "1",
        "kernel": "{release: 6.12.1, kind: stock}",
        "nodes": "[{cpus: 0-3}]",
    }
    key, _, value = line.partition(": ")
    file.write_text("".join(f"{k}: {v}\n" for k, v in (whole | {key: value}).items()))
    code, _, err = run("facts", "--host", f"sim:{file}")
    assert (code, told in err, err) == (65, True, err)


def test_a_number_beyond_all_is_told(tmp_path: Path, run: Run) -> None:
    text = run("facts", *SIM, "--json")[1]
    size = json.loads(text)["devices"][0]["max_batch_size"]
    file = tmp_path / "facts.json"
    file.write_text(text.replace(f'"max_batch_size": {size}', '"max_batch_size": 1e999', 1))
    code, _, err = run("doctor", "--facts", str(file), "-p", DSA)
    assert (code, "expected an integer, found the number inf" in err) == (65, True)


def test_a_plan_without_a_fast_node_is_refused_as_a_file(tmp_path: Path, run: Run) -> None:
    plan = json.loads(run("plan", *SIM, "-p", DSA, "--json")[1])
    plan["desired"]["tiers"]["fast"] = []
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan), encoding="utf-8")
    code, _, err = run("apply", *SIM, "--plan", str(file))
    assert (code, f"{file}: desired.tiers.fast: expected" in err) == (65, True)


# -- pipes -------------------------------------------------------------------------


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    profile = tmp_path / "p.yaml"
    profile.write_text(CONCURRENCY, encoding="utf-8")
    code, _, err = process("check", streams=f"<(sleep 0.3; cat {profile})")
    assert (code, err) == (0, "")
    assert process("check", "-", streams=f"<{profile}")[0] == 0


def test_nobody_waits_for_a_pipe_that_stays_silent() -> None:
    reader, writer = os.pipe()
    try:
        with pytest.raises(Invalid, match="nothing came"):
            given.read(f"/dev/fd/{reader}", silent=0.1)
        os.write(writer, b"x" * 100)
        with pytest.raises(Invalid, match="at most 10 bytes"):
            given.read(f"/dev/fd/{reader}", 10)
    finally:
        os.close(reader)
        os.close(writer)


# -- simulated hosts ---------------------------------------------------------------


def kept_state(tmp_path: Path, run: Run) -> tuple[Path, dict[str, Any]]:
    file = tmp_path / "host.json"
    run("apply", *SIM, "--sim-state", str(file), "-p", DSA)
    return file, json.loads(file.read_text(encoding="utf-8"))


def spoilt(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Return states that somebody edited: each field gone, of another kind, or cut."""
    inner = state["state"]
    others: tuple[Any, ...] = (None, "x", [[1]], {"a": []})
    edited = [{**inner, name: value} for name in inner for value in others]
    edited += [{**inner, name: value[:-1]} for name, value in inner.items() if name in SIZED]
    edited += [{k: v for k, v in inner.items() if k != name} for name in inner]
    return [{**state, "state": one} for one in edited if one != inner]


SIZED = ("devices", "free", "watermarks")


def test_a_state_that_was_edited_is_refused(tmp_path: Path, run: Run) -> None:
    _, state = kept_state(tmp_path, run)
    refused = 0
    for one in spoilt(state):
        try:
            host = SimHost.restore(json.dumps(one))
        except ValueError:
            refused += 1
        else:
            with suppress(HostError):  # what is taken is a host
                observe(host)
    assert refused > 100


def test_a_state_is_that_of_the_host_that_is_named(tmp_path: Path, run: Run) -> None:
    file, _ = kept_state(tmp_path, run)
    before = file.read_bytes()
    code, _, err = run("facts", "--host", "sim:dsa2", "--sim-state", str(file))
    assert (code, str(file) in err, "another host" in err) == (65, True, True)
    assert file.read_bytes() == before


# -- the root ----------------------------------------------------------------------

ARGUMENTS = {"explain": ("engine",), "simulate": ("harm",), "measure": ("--", "true")}
ROOTED = [c.name for c in COMMANDS if c.needs_host or "--root" in str(c.options)]


@pytest.mark.parametrize("verb", ROOTED)
@pytest.mark.parametrize("root", ["", "absent", "a file"])
def test_a_root_that_is_no_directory_is_wrong_usage(
    verb: str, root: str, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "a file").touch()
    words = ARGUMENTS.get(verb, ())
    code, _, err = run(verb, "--root", str(tmp_path / root) if root else "", *words)
    assert code == 64
    assert "directory" in err


@pytest.mark.parametrize("what", ["file", "dangling"])
def test_a_folder_of_drop_ins_that_is_none_is_told(what: str, tmp_path: Path, run: Run) -> None:
    Layout(SimHost.host_for("dsa2"), tmp_path)
    place = tmp_path / "etc/dsatier.d"
    place.parent.mkdir(exist_ok=True)
    if what == "file":
        place.write_text(CONCURRENCY, encoding="utf-8")
    else:
        place.symlink_to("/nowhere")
    for verb in ("plan", "verify", "apply"):
        code, _, err = run(verb, "--root", str(tmp_path))
        assert (code, "/etc/dsatier.d: expected a folder" in err) == (65, True)


def test_an_empty_folder_of_drop_ins_is_none(tmp_path: Path) -> None:
    host = SimHost.host_for("dsa2")
    assert find(host).sources == ()


# -- streams, terminals and locales ------------------------------------------------


@pytest.mark.parametrize(
    ("words", "streams", "code"),
    [
        (("check", "-"), "<&-", 65),
        (("check", "--json", DSA), ">/dev/full", 1),
        (("facts", *SIM), ">/dev/full", 1),
        (("plan", *SIM, "-p", DSA), ">/dev/full", 1),
        (("plan", *SIM, "-p", DSA, "--json"), ">/dev/full", 1),
        (("facts", *SIM, "--json"), "> >(:)", None),
        (("--version",), ">/dev/full", 1),
    ],
)
def test_streams_that_take_nothing(words: tuple[str, ...], streams: str, code: int | None) -> None:
    found, _, err = process(*words, streams=streams)
    assert found == code if code is not None else found in (0, 1)
    assert "Traceback" not in err
    assert "--host" not in err


@pytest.mark.parametrize("verb", ["plan", "verify", "doctor", "cat-config"])
def test_a_locale_without_arrows(verb: str) -> None:
    code, out, err = process(verb, *SIM, "-p", DSA, PYTHONIOENCODING="latin-1")
    assert code in (0, 4)
    assert out
    assert "Traceback" not in err


def harmless(text: str) -> bool:
    """Tell whether nothing is in a text that a terminal obeys."""
    return not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


def test_what_others_wrote_moves_no_cursor(tmp_path: Path, run: Run) -> None:
    facts = json.loads(run("facts", *SIM, "--json")[1])
    facts["hostname"] = f"host{ESCAPE}\u009b2J\u202e"
    file = tmp_path / "facts.json"
    file.write_text(json.dumps(facts), encoding="utf-8")
    for words in (("plan",), ("doctor",), ("plan", "--json")):
        code, out, err = run(*words, "--facts", str(file), "-p", DSA)
        assert code == 0
        assert "\\u001b]0;owned\\u0007" in out
        assert harmless(out + err)
    assert json.loads(out)["hostname"] == facts["hostname"], "JSON says the same as before"


@pytest.mark.parametrize(
    "words",
    [
        ("check", f"/{ESCAPE}"),
        ("plan", *SIM, "-p", f"/{ESCAPE}"),
        ("facts", "--host", f"sim:{ESCAPE}"),
        ("facts", "--root", ESCAPE),
        ("explain", *SIM, ESCAPE),
        (ESCAPE,),
        ("wait", "--timeout", ESCAPE),
    ],
)
def test_what_is_quoted_moves_no_cursor(words: tuple[str, ...], run: Run) -> None:
    code, out, err = run(*words)
    assert code in (64, 65)
    assert harmless(out + err)


def test_every_harmful_character_has_an_escape_that_json_takes() -> None:
    for code, escape in output.ESCAPES.items():
        assert json.loads(f'"{escape}"') == chr(code)


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "1e400", "soon"])
@pytest.mark.parametrize("verb", ["wait", "reload"])
def test_a_time_out_is_a_number_of_seconds(verb: str, seconds: str, run: Run) -> None:
    code, _, err = run(verb, f"--timeout={seconds}")
    assert (code, "expected seconds" in err) == (64, True)


# -- users -------------------------------------------------------------------------


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder that everybody may look into."""
    with tempfile.TemporaryDirectory() as folder_name:
        os.chmod(folder_name, 0o755)
        yield Path(folder_name)


@pytest.mark.skipif(os.getuid() != 0, reason="becomes another user")
@pytest.mark.parametrize("verb", ["rollback", "detach", "clear", "doctor", "apply", "verify"])
def test_who_may_not_is_told_in_words(verb: str, root: Path) -> None:
    Layout(SimHost.host_for("dsa2"), root)
    profile = root / "etc/dsatier.d/10.yaml"
    profile.parent.mkdir(parents=True, exist_ok=True)
    profile.write_text(CONCURRENCY, encoding="utf-8")
    assert process("apply", "--root", str(root))[0] == 0
    words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable]
    ran = subprocess.run(
        [*words, "-m", "dsatier", verb, "--root", str(root)],
        env=environment(),
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        text=True,
    )
    assert ran.returncode == 1
    assert "[Errno" not in ran.stderr
    assert "permission denied" in ran.stderr.lower() or "only root" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_messages_of_files_name_them() -> None:
    with pytest.raises(Invalid) as raised:
        schema.validate_text(Facts, "{}", "some.json")
    assert all(problem.file == "some.json" for problem in raised.value.problems)


# -- measure -----------------------------------------------------------------------


def test_what_was_measured_is_told_with_units_also_after_ctrl_c() -> None:
    code, out, err = process("measure", *SIM, "--", "bash", "-c", "kill -INT $PPID; echo said")
    assert (code, "said" in err, "said" in out) == (0, True, False)
    assert re.search(r"^\w+ +\d+(ms|ns)$", out, re.MULTILINE)


# -- the daemon's folder, and its children ----------------------------------------


def test_the_daemon_listens_in_its_tree_whatever_the_links_say(tmp_path: Path) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    (outside / "dsatier").mkdir(parents=True)
    (tree / "real").mkdir(parents=True)
    (tree / "run").symlink_to("/real")
    assert folder(str(tree)) == str(tree / "real/dsatier")
    (tree / "run").unlink()
    (tree / "run").symlink_to(outside)
    with pytest.raises(FileNotFoundError):  # not in the tree, so there is none
        folder(str(tree))


def test_no_verb_reads_a_status_outside_of_its_tree(tmp_path: Path) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    (outside / "dsatier").mkdir(parents=True)
    (outside / "dsatier/status.json").write_text('{"hostname": "theirs"}', encoding="utf-8")
    tree.mkdir()
    (tree / "run").symlink_to(outside)
    for words in (["status"], ["status", "--check"], ["wait", "--timeout", "0"], ["reload"]):
        code, out, err = process(*words, "--root", str(tree))
        assert (code != 0, "theirs" in out + err) == (True, False), words
    (tree / "run").unlink()
    (tree / "run/dsatier").mkdir(parents=True)
    (tree / "run/dsatier/status.json").symlink_to(outside / "dsatier/status.json")
    assert process("status", "--json", "--root", str(tree))[0] == NOT_RUNNING
    (tree / "run/dsatier/status.json").unlink()
    (tree / "real").mkdir()
    (tree / "real/status.json").write_text("ours", encoding="utf-8")
    (tree / "run/dsatier/status.json").symlink_to("/real/status.json")
    code, _, err = process("status", "--json", "--root", str(tree))
    assert (code, "found something else" in err) == (FAILED, True)


def test_a_child_that_nobody_asks_ends_with_whoever_began_it() -> None:
    begun = children.Begun("a long look", lambda: time.sleep(PATIENCE), PATIENCE)
    began = time.monotonic()
    begun.end()
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert time.monotonic() - began < SOON / 2


def test_a_child_ends_at_its_deadline_also_without_its_parent() -> None:
    reader, writer = os.pipe()
    begun = children.Begun("a long look", lambda: time.sleep(PATIENCE), 0.1)
    os.close(writer)  # from now on the child alone has the pipe open, as it would have a lock
    assert os.read(reader, 1) == b""
    os.close(reader)
    with pytest.raises(HostError):
        begun.result()
