# SPDX-License-Identifier: Apache-2.0
"""What people wrote by hand leaves nothing out, names only what there is, and works."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from dsatier.apply.lifecycle import MEANING, STATES
from dsatier.apply.records import Record, with_conditions
from dsatier.base.exits import OK, RESULTS
from dsatier.cli.options import COMMANDS, EXIT_CODES, HOST
from dsatier.plan.interlock import GUARDS
from dsatier.plan.requirements import REQUIREMENTS
from dsatier.profile.check import check_text
from dsatier.queues.accel_config import parse
from tools.docs import generate

ROOT, PACKAGE = generate.ROOT, generate.PACKAGE
PAGES = {page.relative_to(ROOT).as_posix(): page.read_text("utf-8") for page in generate.pages()}
OPERATIONS = PAGES["docs/operations.md"]
CAMEL = re.compile(r"(?:[A-Z][a-z]+)+")
TRUTHS = {"True", "False", "Unknown"}


def listed(heading: str) -> list[str]:
    """Return the first column of the table below a heading of operations.md."""
    part = OPERATIONS.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| `([^`]+)` \|", part, re.MULTILINE)


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading of operations.md."""
    part = OPERATIONS.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| (`.*) \|$", part, re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines]


def words(module: str) -> set[str]:
    """Return the words in a module that look like reasons or conditions."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and CAMEL.fullmatch(node.value)
    }


def findings() -> set[str]:
    """Return the names of all findings, wherever one is made."""
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding":
                given = {k.arg: k.value for k in node.keywords}
                name = node.args[1] if len(node.args) > 1 else given["name"]
                assert isinstance(name, ast.Constant), f"{path}: a finding's name is a word"
                found.add(str(name.value))
    return found


def test_every_state_is_explained() -> None:
    assert list(STATES) == listed("States")
    assert set(STATES) == set(MEANING)


def test_every_reason_is_explained() -> None:
    conditions = {condition.type for condition in with_conditions(Record(), 0.0).conditions}
    reasons = set().union(*map(words, ("apply/driver", "apply/chronicle", "apply/records")))
    reasons -= conditions | TRUTHS
    assert reasons == set(listed("Reasons"))
    assert len(reasons) > 15


def test_every_condition_is_explained() -> None:
    conditions = [condition.type for condition in with_conditions(Record(), 0.0).conditions]
    assert conditions == listed("Conditions")


def test_every_finding_is_explained() -> None:
    assert findings() == set(listed("Findings"))
    names = {requirement.__name__.replace("_", "-") for requirement in REQUIREMENTS}
    assert set() == names - findings()


def test_every_guard_is_explained() -> None:
    assert [guard.name for guard in GUARDS] == listed("Guards")


def test_every_exit_code_is_explained() -> None:
    assert [str(code) for code, _ in EXIT_CODES] == [
        code for code in listed("Exit codes") if code.isdecimal()
    ]
    assert {OK, *RESULTS.values()} <= {code for code, _ in EXIT_CODES}


@pytest.mark.parametrize(
    ("heading", "columns"), [("Reasons", 3), ("Findings", 3), ("Guards", 3), ("Conditions", 2)]
)
def test_nothing_is_explained_twice_or_with_an_empty_cell(heading: str, columns: int) -> None:
    names = listed(heading)
    assert sorted(set(names)) == sorted(names)
    assert [] == [row for row in rows(heading) if len(row) != columns or not all(row)]


# -- examples ------------------------------------------------------------------------


def blocks(language: str) -> list[tuple[str, str]]:
    """Return the blocks of code in a language, each with its page."""
    pattern = re.compile(rf"^```{language}\n(.*?)^```", re.DOTALL | re.MULTILINE)
    return [(name, block) for name, text in PAGES.items() for block in pattern.findall(text)]


@pytest.mark.parametrize(("page", "block"), blocks("yaml"))
def test_an_example_is_a_valid_profile(page: str, block: str) -> None:
    assert [] == check_text(block, page, whole=False)


@pytest.mark.parametrize(("page", "block"), blocks("json"))
def test_an_example_is_a_valid_queue_file(page: str, block: str) -> None:
    assert ["dsa0"] == [device.id for device in parse(block, page)]


def test_there_are_examples() -> None:
    assert (True, True) == (len(blocks("yaml")) > 5, len(blocks("json")) > 0)


# -- names ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_names_commands_that_exist(name: str) -> None:
    known = {command.name for command in COMMANDS} | {"COMMAND"}
    used = set(re.findall(r"(?:`|\$ )dsatier ([A-Za-z][\w-]*)", PAGES[name]))
    assert set() == used - known


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_names_options_that_exist(name: str) -> None:
    options = (*HOST, *(option for command in COMMANDS for option in command.options))
    known = {flag for option in options for flag in option.flags} | {"--help", "--version"}
    typed = re.findall(r"dsatier ([^`\n]*)", PAGES[name])
    used = {flag for text in typed for flag in re.findall(r"(?<!\S)--[a-z-]+", text)}
    assert set() == used - known


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_links_to_what_is_there(name: str) -> None:
    broken = []
    text = re.sub(r"`[^`\n]*`", "", PAGES[name])
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        page = (ROOT / name).parent / path if path else ROOT / name
        if not page.exists() or (anchor and anchor not in anchors(page)):
            broken.append(target)
    assert [] == broken


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_names_files_that_are_there(name: str) -> None:
    """Paths of the repository in code spans exist; kernel-src is announced."""
    spans = re.findall(
        r"`((?:agent|tests|tools|emulator|vm|lab|bench|profiles|docs|man|completion)/[\w./-]*)`",
        PAGES[name],
    )
    assert [] == [span for span in spans if not (ROOT / span).exists()]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_mermaid_names_are_plain(name: str) -> None:
    """A name in a diagram has no hyphen: Mermaid would take it for part of an arrow."""
    diagrams = re.findall(r"^```mermaid\n(.*?)^```", PAGES[name], re.DOTALL | re.MULTILINE)
    for diagram in diagrams:
        bare = re.sub(r'"[^"]*"|:.*', "", diagram)
        assert [] == re.findall(r"\b[a-z]+-[a-z]+\b", bare.replace("stroke-dasharray", ""))


def test_the_tour_never_fails() -> None:
    """The tour shows neither a traceback nor a command line that was wrong."""
    assert (False, False) == ("Traceback" in PAGES["README.md"], "usage:" in PAGES["README.md"])


def test_the_tour_shows_what_it_promises() -> None:
    """Each state of the tour was reached: the words that say so are on the page."""
    shown = ("mean 'limit_chans'", "changed (converged)", "blocker: ", "changed (unmanaged)")
    assert [] == [words for words in shown if words not in PAGES["README.md"]]
