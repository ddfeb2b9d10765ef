# SPDX-License-Identifier: Apache-2.0
"""``dsatier install-service`` and ``uninstall-service``: the units, where no package brings them.

What is shipped with the program goes below /usr/local/lib, which systemd and udev read, too. The
units are made for /usr/bin/dsatier: they get the path of this program, and the right to run from
there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from dsatier.base.exits import FAILED, OK
from dsatier.cli.opening import WrongUsage
from dsatier.daemon.main import say
from dsatier.host import output

SHIPPED = "systemd"
"""The folder of the package ``dsatier`` that has the files."""
PLACES = {
    ".service": "usr/local/lib/systemd/system/{}",
    ".target": "usr/local/lib/systemd/system/{}",
    ".rules": "usr/local/lib/udev/rules.d/{}",
    ".tmpfiles.conf": "usr/local/lib/tmpfiles.d/dsatier.conf",
    "past-iommu.conf": "usr/local/share/dsatier/{}",
}
"""Where a file goes, by the end of its name. What else is shipped is for packages."""
PACKAGED = ("usr/lib/systemd/system/dsatier.service", "lib/systemd/system/dsatier.service")
ENABLED = "etc/systemd/system/multi-user.target.wants/dsatier.service"
HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108
"""Where the unit lets the daemon see nothing, or something else."""
MARK = "# Installed by `dsatier install-service`; `dsatier uninstall-service` removes it.\n"
_PROGRAM = "/usr/bin/dsatier"
_RUNS = "ExecPaths="


Shipped = list[tuple[str, str]]
"""Names of files, and their texts."""


@dataclass(frozen=True, slots=True)
class Program:
    """Where this program is: the command, and the folders that its Python runs from."""

    command: str
    folders: tuple[str, ...]


def this_program() -> Program:
    """Return where the running program is."""
    import sys
    import sysconfig

    command = os.path.join(sysconfig.get_path("scripts"), "dsatier")
    return Program(command, tuple(dict.fromkeys((sys.prefix, sys.base_prefix))))


def unfit(program: Program) -> str:
    """Return why the units cannot run a program, empty where they can."""
    for path in (program.command, *program.folders):
        if not re.fullmatch(r"[\w./@+-]+", path):
            return f"expected letters, digits and ./@+- in the program's path, found {path!r}"
        for hidden in HIDDEN:
            if f"{path}/".startswith(f"{hidden}/"):
                return (
                    f"{path}: the unit keeps {hidden} from the daemon; install dsatier elsewhere, "
                    "such as in a virtual environment below /opt"
                )
    return ""


def text_for(program: Program, text: str) -> str:
    r"""Return a shipped file for a program, with the mark.

    >>> print(text_for(Program("/opt/d/bin/dsatier", ("/opt/d", "/usr")),
    ...     "ExecStart=/usr/bin/dsatier daemon\nExecPaths=/usr\n"), end="")
    # Installed by `dsatier install-service`; `dsatier uninstall-service` removes it.
    ExecStart=/opt/d/bin/dsatier daemon
    ExecPaths=/usr
    # the program itself
    ExecPaths=/opt/d
    """
    more = [folder for folder in program.folders if not f"{folder}/".startswith("/usr/")]
    lines = []
    for line in text.splitlines():
        lines.append(line.replace(_PROGRAM, program.command) if "=" in line else line)
        if line.startswith(_RUNS) and more:
            lines += ["# the program itself", _RUNS + " ".join(more)]
    return MARK + "\n".join(lines) + "\n"


def placed(shipped: Shipped) -> Iterator[tuple[str, str]]:
    """Yield each file's place, without a slash before it, and its text as it is shipped."""
    for name, text in sorted(shipped):
        for end, place in PLACES.items():
            if name.endswith(end):
                yield place.format(name), text


def install_service(root: str | None, *, dry_run: bool) -> int:
    """Run ``dsatier install-service``. Raises WrongUsage, OSError."""
    return install(root or "/", _shipped(), this_program(), dry_run=dry_run)


def uninstall_service(root: str | None, *, dry_run: bool) -> int:
    """Run ``dsatier uninstall-service``. Raises OSError."""
    return uninstall(root or "/", _shipped(), dry_run=dry_run)


def install(root: str, shipped: Shipped, program: Program, *, dry_run: bool) -> int:
    """Write the files, and say what is left to do. Raises WrongUsage, OSError."""
    for path in PACKAGED:
        if os.path.lexists(os.path.join(root, path)):
            return say(
                f"/{path} is a package's, which brings all units: nothing is written", FAILED
            )
    if why := unfit(program):
        raise WrongUsage(why)
    wanted = {path: text_for(program, text) for path, text in placed(shipped)}
    there = {path: _read(os.path.join(root, path)) for path in wanted}
    for path, text in there.items():
        if text is not None and not text.startswith(MARK):
            return say(f"/{path} was not written by this command: nothing is written", FAILED)
    for path, text in wanted.items():
        if there[path] == text:
            output.report(f"is there /{path}")
            continue
        if not dry_run:
            _replace(os.path.join(root, path), text)
        output.report(f"{'would write' if dry_run else 'wrote'} /{path}")
    output.report(
        "then: systemctl daemon-reload && systemd-tmpfiles --create dsatier.conf && "
        "systemctl enable --now dsatier"
    )
    return OK


def uninstall(root: str, shipped: Shipped, *, dry_run: bool) -> int:
    """Remove what ``install`` wrote, and say what is left to do. Raises OSError."""
    if os.path.lexists(os.path.join(root, ENABLED)):
        return say("the service is enabled: run `systemctl disable --now dsatier` first", FAILED)
    for path, _ in placed(shipped):
        text = _read(os.path.join(root, path))
        if text is None:
            continue
        if not text.startswith(MARK):
            output.report(f"left /{path}: it was not written by this command")
            continue
        if not dry_run:
            os.unlink(os.path.join(root, path))
        output.report(f"{'would remove' if dry_run else 'removed'} /{path}")
    output.report("then: systemctl daemon-reload")
    return OK


def _shipped() -> Shipped:
    """Return what this program carries: nothing where a package brings it."""
    from importlib import resources

    folder = resources.files("dsatier") / SHIPPED
    files = folder.iterdir() if folder.is_dir() else ()
    return [(file.name, file.read_text(encoding="utf-8")) for file in files]


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _replace(path: str, text: str) -> None:
    """Write a file so that it is there whole or as before."""
    from pathlib import Path

    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.write_text(text, encoding="utf-8")
    part.chmod(0o644)
    part.replace(target)
