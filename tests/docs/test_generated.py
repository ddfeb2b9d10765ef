# SPDX-License-Identifier: Apache-2.0
"""What is generated is what the sources give now; `make docs` writes it anew."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dsatier.cli.explain import fields as field_names
from dsatier.cli.options import COMMANDS, HOST, Command
from dsatier.profile.check import check_text
from tools.docs import generate
from tools.docs.fields import sections
from tools.docs.manual import EXAMPLE, escaped, synopsis

ROOT = generate.ROOT
WHOLE = generate.whole()
MAN = sorted(name for name in WHOLE if name.startswith("man/"))
BASH = "completion/dsatier.bash"
ZSH = "completion/_dsatier"


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_a_generated_file_is_current(name: str) -> None:
    assert WHOLE[name] == (ROOT / name).read_text(encoding="utf-8")


def test_no_generated_file_is_left_over() -> None:
    folders = ("man", "completion", "schemas")
    found = {f"{folder}/{path.name}" for folder in folders for path in (ROOT / folder).iterdir()}
    assert set(WHOLE) == found | {"docs/lab.svg"}


@pytest.mark.parametrize("page", generate.pages(), ids=lambda page: page.name)
def test_the_generated_parts_of_a_page_are_current(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert generate.timeless(generate.filled(text)) == generate.timeless(text)


def test_every_part_is_on_some_page_and_closed() -> None:
    texts = [page.read_text(encoding="utf-8") for page in generate.pages()]
    begin = re.compile(r"^<!-- generated: (.+) -->", re.MULTILINE)
    opened = [name for text in texts for name in begin.findall(text)]
    closed = [found[1] for text in texts for found in generate.PART.findall(text)]
    assert opened == closed
    assert set(generate.PARTS) == set(opened)


def test_a_stale_part_is_told() -> None:
    text = "<!-- generated: descents -->\nold\n<!-- end -->\n"
    fresh = generate.filled(text)
    assert fresh != text
    assert fresh == generate.filled(fresh)


def test_times_do_not_make_a_page_stale() -> None:
    one = "since 2026-01-02 03:04:05 (2 h ago)\nx  ✓ 0.1 s\n"
    two = "since 2027-11-12 13:14:15 (in the future: a clock jumped)\nx  ✓ 10.0 s\n"
    assert generate.timeless(one) == generate.timeless(two)
    assert generate.timeless(one) != generate.timeless(one.replace("✓", "✗"))


# -- man pages -----------------------------------------------------------------------


@pytest.mark.parametrize("name", MAN)
@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
def test_groff_has_nothing_to_say_of_a_man_page(name: str) -> None:
    words = ("groff", "-ww", "-man", "-Tutf8", "-z", name)
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (0, "") == (ran.returncode, ran.stderr)


@pytest.mark.parametrize("name", MAN)
@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_mandoc_has_nothing_to_say_of_a_man_page(name: str) -> None:
    words = ("mandoc", "-T", "lint", "-W", "warning", name)
    ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    said = [line for line in ran.stdout.splitlines() if "missing date" not in line]
    assert [] == said


@pytest.mark.parametrize("name", MAN)
def test_a_man_page_uses_known_requests_only(name: str) -> None:
    known = {".TH", ".SH", ".SS", ".PP", ".TP", ".HP", ".RS", ".RE", ".nf", ".fi", ".br", ".BR"}
    lines = WHOLE[name].splitlines()
    found = {line.split()[0] for line in lines if line.startswith(".")} - {'.\\"'}
    assert set() == found - known
    assert [] == [line for line in lines if line.startswith("'")]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_man_page_has_every_option(command: Command) -> None:
    page = WHOLE[f"man/dsatier-{command.name}.1"]
    options = (*command.options, *(HOST if command.needs_host else ()))
    flags = [flag for option in options for flag in option.flags if flag.startswith("-")]
    typed = [flag.replace("-", "\\-") for flag in flags]
    assert [] == [flag for flag in typed if f"\\fB{flag}\\fR" not in page]
    assert len(options) == len(synopsis(command))


def test_roff_prints_what_was_written() -> None:
    assert "a \\e and \\fB\\-\\-json\\fR, well-known or \\-\\-not" == escaped(
        "a \\ and `--json`, well-known or --not"
    )


def test_the_manual_of_profiles_has_every_field() -> None:
    page = WHOLE["man/dsatier.yaml.5"]
    leaves = {field.path for section in sections(generate.schema()) for field in section.fields}
    assert set() == {path for path in leaves if f"\\fB{path}\\fR" not in page}
    groups = {path for path in field_names() if any(p.startswith(f"{path}.") for p in leaves)}
    assert set(field_names()) == leaves | groups


def test_the_example_of_the_manual_is_a_valid_profile() -> None:
    assert [] == check_text(EXAMPLE, "example")


# -- completion ----------------------------------------------------------------------


def completed(line: str, folder: Path = ROOT, breaks: str = " \t\n\"'><=;|&(:") -> list[str]:
    """Return what bash offers after ``line``."""
    script = (
        'source "$3"; COMP_WORDBREAKS=$2; COMP_LINE=$1; COMP_POINT=${#1}; _dsatier; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    words = ["bash", "--norc", "-c", script, "bash", line, breaks, str(ROOT / BASH)]
    environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8"}
    ran = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert "" == ran.stderr
    return [word for word in ran.stdout.splitlines() if word]


def test_bash_offers_every_command() -> None:
    assert [command.name for command in COMMANDS] == completed("dsatier ")
    assert ["apply"] == completed("dsatier ap")
    assert ["--version"] == completed("dsatier --v")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_bash_offers_every_option_of_a_command(command: Command) -> None:
    options = (*command.options, *(HOST if command.needs_host else ()))
    flags = [flag for option in options for flag in option.flags if flag.startswith("-")]
    assert [*flags, "-h", "--help"] == completed(f"dsatier {command.name} -")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("dsatier apply --root / --q", ["--quiet"]),
        ("dsatier explain engine.limit_c", ["engine.limit_chans"]),
        ("dsatier --json explain tiers.s", ["tiers.slow_node"]),
        ("dsatier check on", ["one.yaml"]),
        ("dsatier apply -p on", ["one.yaml"]),
        ("dsatier apply --profile on", ["one.yaml"]),
        ("dsatier apply --profile=on", ["one.yaml"]),
        ("dsatier status --root fo", ["folder"]),
        ("dsatier status --root on", []),
        ("dsatier plan --host sim:no", ["no-dsa"]),
        ("dsatier plan --host sim:./on", ["./one.yaml"]),
        ("dsatier measure -- cat on", ["one.yaml"]),
        ("dsatier measure -- --j", []),
    ],
)
def test_bash_offers_what_an_option_takes(tmp_path: Path, line: str, offered: list[str]) -> None:
    (tmp_path / "one.yaml").touch()
    (tmp_path / "folder").mkdir()
    assert offered == completed(line, tmp_path)


def test_bash_offers_simulated_hosts_whole_where_a_colon_breaks_no_word() -> None:
    assert ["sim:no-dsa"] == completed("dsatier plan --host sim:no", breaks=" \t\n")


def test_bash_offers_programs_to_measure() -> None:
    assert "printf" in completed("dsatier measure -- print")


def test_every_shipped_host_is_in_completion_and_help() -> None:
    names = {path.stem for path in (generate.PACKAGE / "hosts").glob("*.yaml")}
    text = next(option.text for option in HOST if option.flags == ("--host",))
    assert names == set(re.findall(r"[a-z0-9-]+", text.partition("(")[2].partition(")")[0]))
    assert set() == {name for name in names if f"sim:{name}" not in WHOLE[BASH]}
    assert set() == {name for name in names if name not in WHOLE[ZSH]}


@pytest.mark.parametrize(("shell", "name"), [("bash", BASH), ("zsh", ZSH)])
def test_a_shell_can_parse_its_completion(shell: str, name: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    ran = subprocess.run([shell, "-n", name], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (0, "") == (ran.returncode, ran.stderr)


def test_zsh_offers_every_command_and_option() -> None:
    text = WHOLE[ZSH]
    flags = {f for c in COMMANDS for o in c.options for f in o.flags if f.startswith("-")}
    assert set() == {flag for flag in flags if f"{flag}[" not in text}
    assert set() == {c.name for c in COMMANDS if f"'{c.name}:" not in text}
