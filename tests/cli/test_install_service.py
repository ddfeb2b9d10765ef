# SPDX-License-Identifier: Apache-2.0
"""``install-service`` and ``uninstall-service``, on a tree that stands for a system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dsatier.base.exits import FAILED, OK
from dsatier.cli import service
from dsatier.cli.main import main

SYSTEMD = Path(__file__).resolve().parents[2] / "systemd"
VENV = service.Program("/opt/dsatier/bin/dsatier", ("/opt/dsatier", "/usr"))
LOCAL = "usr/local/lib"
WRITTEN = {
    f"{LOCAL}/systemd/system/dsatier.service",
    f"{LOCAL}/systemd/system/dsatier-wait.service",
    f"{LOCAL}/systemd/system/dsatier-nudge.service",
    f"{LOCAL}/systemd/system/dsatier.target",
    f"{LOCAL}/udev/rules.d/90-dsatier.rules",
    f"{LOCAL}/tmpfiles.d/dsatier.conf",
    "usr/local/share/dsatier/past-iommu.conf",
}


def shipped() -> list[tuple[str, str]]:
    return [(path.name, path.read_text(encoding="utf-8")) for path in SYSTEMD.iterdir()]


def found(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in files}


def install(root: Path, *, dry_run: bool = False, program: service.Program = VENV) -> int:
    return service.install(str(root), shipped(), program, dry_run=dry_run)


def uninstall(root: Path, *, dry_run: bool = False) -> int:
    return service.uninstall(str(root), shipped(), dry_run=dry_run)


def test_each_unit_runs_this_program_and_may(tmp_path: Path) -> None:
    assert OK == install(tmp_path)
    texts = found(tmp_path)
    assert WRITTEN == texts.keys()
    lines = [line for text in texts.values() for line in text.splitlines() if line[:1] != "#"]
    assert [] == [line for line in lines if "/usr/bin/dsatier" in line]
    commands = {line.partition("=")[2] for line in lines if line.startswith("Exec")}
    assert "/opt/dsatier/bin/dsatier daemon" in commands
    assert "+/opt/dsatier/bin/dsatier reload --timeout 1500" in commands
    assert "/opt/dsatier" in commands  # ExecPaths=
    assert all(text.startswith(service.MARK) for text in texts.values())
    assert {0o644} == {
        path.stat().st_mode & 0o777 for path in tmp_path.rglob("*.*") if path.is_file()
    }


def test_a_program_below_usr_needs_no_more_rights(tmp_path: Path) -> None:
    program = service.Program("/usr/local/bin/dsatier", ("/usr",))
    assert OK == install(tmp_path, program=program)
    text = (tmp_path / LOCAL / "systemd/system/dsatier.service").read_text(encoding="utf-8")
    theirs = (SYSTEMD / "dsatier.service").read_text(encoding="utf-8")
    assert theirs.replace("/usr/bin/", "/usr/local/bin/") == text.removeprefix(service.MARK)


def test_a_dry_run_says_the_same_and_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert OK == install(tmp_path, dry_run=True)
    said = capsys.readouterr().out
    assert {} == found(tmp_path)
    install(tmp_path)
    assert said.replace("would write", "wrote") == capsys.readouterr().out
    before = found(tmp_path)
    assert OK == uninstall(tmp_path, dry_run=True)
    assert "would remove" in capsys.readouterr().out
    assert before == found(tmp_path)


def test_it_is_undone(tmp_path: Path) -> None:
    other = tmp_path / LOCAL / "systemd/system/other.service"
    other.parent.mkdir(parents=True)
    other.write_text("[Unit]\n")
    install(tmp_path)
    assert OK == uninstall(tmp_path)
    assert {f"{LOCAL}/systemd/system/other.service": "[Unit]\n"} == found(tmp_path)
    assert OK == uninstall(tmp_path)


def test_again_it_writes_what_has_changed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path)
    target = tmp_path / LOCAL / "systemd/system/dsatier.target"
    fresh = target.read_text()
    target.write_text(service.MARK + "# of another version\n")
    capsys.readouterr()
    install(tmp_path)
    said = capsys.readouterr().out.splitlines()
    assert [f"wrote /{LOCAL}/systemd/system/dsatier.target"] == [s for s in said if "wrote" in s]
    assert fresh == target.read_text()


@pytest.mark.parametrize("place", service.PACKAGED)
def test_the_units_of_a_package_are_left_alone(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text("[Unit]\n")
    assert FAILED == install(tmp_path)
    assert f"/{place} is a package's" in capsys.readouterr().err
    assert {place: "[Unit]\n"} == found(tmp_path)


def test_a_file_of_somebody_else_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"{LOCAL}/udev/rules.d/90-dsatier.rules"
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text("# mine\n")
    assert FAILED == install(tmp_path)
    assert f"/{place} was not written by this command" in capsys.readouterr().err
    assert {place: "# mine\n"} == found(tmp_path)
    assert OK == uninstall(tmp_path)
    assert {place: "# mine\n"} == found(tmp_path)


def test_a_service_that_is_enabled_is_not_uninstalled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(tmp_path)
    before = found(tmp_path)
    link = tmp_path / service.ENABLED
    link.parent.mkdir(parents=True)
    link.symlink_to("/usr/local/lib/systemd/system/dsatier.service")
    assert FAILED == uninstall(tmp_path)
    assert "systemctl disable --now dsatier" in capsys.readouterr().err
    link.unlink()
    assert before == found(tmp_path)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("/home/kim/venv/bin/dsatier", "the unit keeps /home from the daemon"),
        ("/tmp/venv/bin/dsatier", "the unit keeps /tmp from the daemon"),
        ("/opt/my tools/bin/dsatier", "expected letters, digits"),
        ("/homes/kim/bin/dsatier", ""),
    ],
)
def test_a_program_that_the_unit_cannot_run_is_refused(command: str, words: str) -> None:
    found = service.unfit(service.Program(command, ("/usr",)))
    assert (bool(words), True) == (bool(found), words in found)


def test_a_system_that_cannot_be_written_to_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "usr/local").mkdir(parents=True)
    (tmp_path / "usr/local/lib").write_text("no folder\n")
    assert FAILED == main(["uninstall-service", "--root", str(tmp_path)])
    assert "Not a directory" in capsys.readouterr().err


def test_the_command_line_installs_from_what_the_package_carries(tmp_path: Path) -> None:
    """Wherever this program is: it is refused where the unit could not run it."""
    fit = not service.unfit(service.this_program())
    assert (OK if fit else 64) == main(["install-service", "--root", str(tmp_path)])
    assert (WRITTEN if fit else set()) == found(tmp_path).keys()
    assert OK == main(["uninstall-service", "--root", str(tmp_path)])
    assert {} == found(tmp_path)
    assert SYSTEMD.samefile(os.path.join(os.path.dirname(service.__file__), "../systemd"))
