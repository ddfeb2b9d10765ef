# SPDX-License-Identifier: Apache-2.0
"""What tools and syntax trees can tell of the sources: each rule is a plain test case."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "agent" / "dsatier"
MODULES = {
    path.relative_to(PACKAGE).as_posix().removesuffix(".py"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
BACK_ENDS = ("host/", "sim/")


def tool(*words: str) -> str:
    """Return what a tool says of the sources, empty where it says that all is well."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "agent"), "NO_COLOR": "1"}
    ran = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(ran.stdout)  # whole, where pytest shortens a comparison
    return "" if ran.returncode == 0 else ran.stdout


def contracts(config: str) -> str:
    """Return what import-linter says under the contracts of a file."""
    code = (
        "import sys; from importlinter.cli import lint_imports;"
        "sys.exit(lint_imports(sys.argv[1], no_cache=True))"
    )
    return tool("-c", code, config)


def test_ruff() -> None:
    """The linter has nothing to say."""
    words = ("check", "--quiet", "--no-cache", "--output-format=concise", ".")
    assert "" == tool("-m", "ruff", *words)


def test_mypy() -> None:
    """Types fit, strictly, in the agent, the tests and the tools."""
    assert "" == tool("-m", "mypy", "agent", "tests", "tools", "emulator", "vm", "lab", "bench")


@pytest.mark.system  # needs Debian's package shellcheck
def test_shellcheck() -> None:
    """Scripts quote what they should, and name what is there."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    scripts = [name for name in listed.stdout.splitlines() if _is_a_script(ROOT / name)]
    assert {".ci/run", "tests/system/run", "kernel-src/scripts/build"} <= set(scripts)
    # SC1007: several empty values in a row are meant
    words = ["shellcheck", "--severity=warning", "--exclude=SC1007"]
    words += ["--external-sources", "--source-path=SCRIPTDIR"]
    ran = subprocess.run([*words, *scripts], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (0, "") == (ran.returncode, ran.stdout)


def _is_a_script(path: Path) -> bool:
    return path.is_file() and bool(re.match(rb"#!/bin/(ba)?sh\b", path.read_bytes()[:16]))


def test_hooks_fetch_nothing() -> None:
    """What pre-commit runs is here already: no hook is another repository's."""
    found = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repo in found["repos"] for hook in repo["hooks"]]
    assert ["local"] == [repo["repo"] for repo in found["repos"]]
    assert {"system"} == {hook["language"] for hook in hooks}


def test_import_contracts() -> None:
    """Modules import only what docs/architecture.md says."""
    assert "" == contracts("pyproject.toml")


@pytest.mark.parametrize(
    ("source", "forbidden"),
    [
        ("apply.driver", "plan.planner"),
        ("plan", "facts"),
        ("host.files", "host.port"),
        ("host.children", "os"),
    ],
)
def test_a_broken_import_contract_is_told(tmp_path: Path, source: str, forbidden: str) -> None:
    """The check above is able to fail: imports that are there are found when forbidden."""
    target = forbidden if forbidden == "os" else f"dsatier.{forbidden}"
    config = tmp_path / "contracts.toml"
    config.write_text(
        "[tool.importlinter]\n"
        'root_package = "dsatier"\n'
        "include_external_packages = true\n"
        "[[tool.importlinter.contracts]]\n"
        'name = "probe"\ntype = "forbidden"\n'
        f'source_modules = ["dsatier.{source}"]\nforbidden_modules = ["{target}"]\n'
    )
    assert "probe BROKEN" in contracts(str(config))


def test_every_pure_module_is_in_the_contract() -> None:
    """All of the lowest folders is in the contract of purity, but for those who read a host."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    pure = next(c for c in found["contracts"] if c["id"] == "pure")["source_modules"]
    missing = [
        name
        for name in MODULES
        if name.startswith(("base/", "plan/", "queues/", "facts/"))
        and not name.startswith("facts/observe/")
        and not name.endswith("__init__")
        and not f"dsatier/{name}/".replace("/", ".").startswith(tuple(f"{one}." for one in pure))
    ]
    assert [] == missing


# -- the one place that writes ---------------------------------------------------


def trees() -> Iterator[tuple[str, ast.Module]]:
    """Yield every module of the agent but the back ends."""
    for name, path in MODULES.items():
        if not name.startswith(BACK_ENDS):
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def asked(tree: ast.AST, *verbs: str) -> list[ast.Call]:
    """Return the calls of a method of one of these names."""
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in verbs
    ]


def receiver(call: ast.Call) -> str:
    """Return what a method is called on, as it is written."""
    assert isinstance(call.func, ast.Attribute)
    return ast.unparse(call.func.value)


def test_only_the_gate_changes_a_host() -> None:
    """Nobody but the gate calls ``host.write`` or ``host.run``.

    The observer asks accel-config for its version. The demonstration plays
    somebody else who writes, on a simulated host.
    """
    found = {
        (name, ast.unparse(call.func))
        for name, tree in trees()
        for call in asked(tree, "write", "run")
    }
    expected = {
        ("apply/gate", "self._host.write"),
        ("apply/gate", "self._host.run"),
        ("facts/observe/kernel", "host.run"),
        ("cli/demo", "host.write"),
    }
    # no hosts: a program to measure, and the files that the simulation keeps
    others = {
        ("cli/measure", "subprocess.run"),
        ("daemon/log", "os.write"),
        ("daemon/log", "self._stream.write"),
        ("daemon/main", "Daemon(the_host, around, own, reading).run"),
    }
    assert expected == found - others


def test_the_observer_only_asks_for_a_version() -> None:
    """The one command that is run outside the gate changes nothing."""
    tree = ast.parse(MODULES["facts/observe/kernel"].read_text(encoding="utf-8"))
    assert [("accel-config", "--version")] == [
        ast.literal_eval(call.args[0]) for call in asked(tree, "run")
    ]


def test_the_demonstration_writes_to_simulated_hosts_only() -> None:
    """The demonstration opens no other host."""
    tree = ast.parse(MODULES["cli/demo"].read_text(encoding="utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert (True, False) == ("SimHost" in names, "FileHost" in names)


def test_only_journal_and_gate_keep_files() -> None:
    """dsatier's own files on a host are written by the journal; the gate keeps accel-config's."""
    found = {
        (name, receiver(call))
        for name, tree in trees()
        for call in asked(tree, "keep", "drop", "note")
    }
    assert {("apply/journal", "self._host"), ("apply/gate", "self._host")} == found


def test_only_the_command_line_opens_back_ends() -> None:
    """What drives a host never knows which kind of host it is."""
    found = {
        name
        for name, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        and node.module is not None
        and node.module.startswith(("dsatier.host.files", "dsatier.sim"))
    }
    assert {"cli/opening", "cli/demo", "cli/simulated", "daemon/main"} == found


# -- libraries ---------------------------------------------------------------------


def tricks(tree: ast.AST) -> Iterator[str]:
    """Yield what goes past the public interface of a library: its line, as it is written."""
    for node in ast.walk(tree):
        names: list[str] = []
        match node:
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.ImportFrom(level=0):
                whole = (f"{node.module}.{alias.name}" for alias in node.names)
                names = [name for name in whole if name != "__future__.annotations"]
            case ast.Call(func=ast.Name("__import__")):
                names = ["importlib.import_module"]
            case ast.Subscript(ctx=ast.Store() | ast.Del()):
                if ast.unparse(node.value) == "sys.modules":
                    yield ast.unparse(node)
        for name in names:
            parts = name.split(".")
            private = any(part.startswith("_") for part in parts) and parts[0] != "dsatier"
            if private or name.startswith(("importlib.machinery", "importlib.import_module")):
                yield ast.unparse(node)


def test_libraries_are_used_by_their_public_interfaces() -> None:
    """No private module, no module that is loaded by hand or put into ``sys.modules``."""
    found = [
        (name, trick)
        for name, path in MODULES.items()
        for trick in tricks(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


@pytest.mark.parametrize(
    "trick",
    [
        "import pydantic_core._pydantic_core",
        "from structlog import _base",
        "from structlog._base import BoundLoggerBase",
        "from importlib.machinery import PathFinder",
        "from importlib import import_module",
        "sys.modules['structlog'] = shell",
        "del sys.modules['structlog']",
        "__import__(name)",
    ],
)
def test_a_trick_with_a_library_is_found(trick: str) -> None:
    """The check above is able to fail."""
    assert len(list(tricks(ast.parse(trick)))) == 1


def test_status_needs_next_to_nothing(tmp_path: Path) -> None:
    """People run it in a loop: it may take half as long again as Python itself."""
    (tmp_path / "run/dsatier").mkdir(parents=True)
    (tmp_path / "run/dsatier/status.json").write_text("{}")
    code = (
        "import os, sys; before = set(sys.modules); from dsatier.cli.main import main;"
        "main(['status', '--root', sys.argv[1]]); print(*sorted(set(sys.modules) - before))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={"PYTHONPATH": str(ROOT / "agent")},
        capture_output=True,
        text=True,
        check=True,
    )
    ours = (
        "base",
        "base.exits",
        "base.health",
        "base.paths",
        "base.quick_json",
        "cli",
        "cli.main",
        "cli.plain",
        "cli.status",
        "host",
        "host.output",
    )
    assert "expected a status that dsatier wrote" in ran.stderr
    assert ran.stdout.split() == ["dsatier", *(f"dsatier.{name}" for name in ours)]


# -- every file ------------------------------------------------------------------


def test_doubles_are_values_and_back_ends() -> None:
    """No test patches a module."""
    words = ("monkey" + "patch", "unittest" + ".mock")
    found = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if any(word in path.read_text(encoding="utf-8") for word in words)
    ]
    assert [] == found


def test_products_know_no_tests() -> None:
    """Who uses the emulator, guests or the lab needs no test; benchmarks build the tests' hosts."""
    found = {
        (path.relative_to(ROOT).parts[0], name)
        for folder in ("emulator", "vm", "lab", "bench", "tools")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name in re.findall(
            r"^ *(?:from|import) (tests[.\w]*)", path.read_text(encoding="utf-8"), re.MULTILINE
        )
    }
    assert {("bench", "tests.support.container"), ("bench", "tests.support.treehost")} == found


def test_every_test_that_needs_root_is_run() -> None:
    """Files with the mark ``system`` are in a group of tests/system/run."""
    script = (ROOT / "tests/system/run").read_text(encoding="utf-8")
    groups = re.findall(r"^group \w+ (.*)$", script, re.MULTILINE)
    paths = {word for line in groups for word in line.split() if word.startswith("tests/")}
    mark = "pytest.mark." + "system"
    marked = [
        path.relative_to(ROOT)
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if mark in path.read_text(encoding="utf-8")
    ]
    assert len(marked) > 20
    assert [] == [path for path in marked if not {str(path), *map(str, path.parents)} & paths]


def test_every_source_names_its_licence() -> None:
    """The SPDX line is on the first lines of every file that can have one."""
    kinds = {
        *(".py", ".yaml", ".yml", ".toml", ".sh", ".c", ".h", ".config"),
        *(".service", ".target", ".rules", ".j2"),
    }
    folders = (
        *(
            "agent",
            "tests",
            "tools",
            "emulator",
            "vm",
            "lab",
            "bench",
            "profiles",
            "docs",
            "man",
            "completion",
        ),
        *("packaging", "systemd", "kernel-src"),
    )
    found = [
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in kinds
        and path.is_file()
        and not any("SPDX-License-Identifier" in line for line in _head(path))
    ]
    assert [] == found


def _head(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[:3]
