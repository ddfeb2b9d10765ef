# SPDX-License-Identifier: Apache-2.0
"""Which files make up the profile: drop-ins in three folders, as systemd reads its own.

Of files with one name, that in the folder of highest precedence counts. If it is
a link to /dev/null or empty, none does: the name is masked. What counts is
ordered by name, whatever its folder.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from errno import EPERM
from typing import TYPE_CHECKING

from dsatier.base.paths import DROP_INS
from dsatier.base.problem import Invalid, Problem
from dsatier.host.port import Host, HostError, Missing, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Source:
    """A file of the profile, and its text."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Unused:
    """A file that does not count, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """What is in the folders: files in the order in which they apply, and files that do not."""

    sources: tuple[Source, ...]
    masked: tuple[Unused, ...] = ()


def counts(name: str) -> bool:
    """Tell whether a file of this name is one of ours: ``*.yaml``, not hidden, not a backup."""
    return (
        name.endswith(".yaml")
        and not name.startswith(".")
        and not any(sign in name for sign in (".dpkg-", ".rpm"))
    )


def find(host: Host, folders: Iterable[str] = DROP_INS) -> Found:
    """Read the drop-ins of a host. Raises Invalid where a file cannot be read."""
    holders: dict[str, list[str]] = {}
    sources: list[Source] = []
    masked: list[Unused] = []
    problems: list[Problem] = []
    for folder in folders:
        names = host.entries(folder)
        if not names and (found := _instead(host, folder)):
            problems.append(Problem(folder, 0, 0, (), "a folder", found))
        if any(map(counts, names)) and (found := host.others(folder)):
            problems.append(_open_to(folder, found))
            continue
        for name in names:
            if counts(name):
                holders.setdefault(name, []).insert(0, posixpath.join(folder, name))
    for _, paths in sorted(holders.items()):
        path, *lower = paths
        target = host.link(path)
        if target is not None and _is_null(path, target):
            masked.append(Unused(path, "a link to /dev/null disables this name"))
        else:
            try:
                text = host.read(path)
            except HostError as error:
                problems.append(Problem(path, 0, 0, (), "a readable file", error.message))
                continue
            if found := host.others(path):
                problems.append(_open_to(path, found))
            elif text.strip():
                sources.append(Source(path, text))
            else:
                masked.append(Unused(path, "an empty file disables this name"))
        masked += [Unused(other, f"masked by {path}") for other in lower]
    if problems:
        raise Invalid(problems)
    return Found(tuple(sources), tuple(masked))


def read_named(host: Host, path: str) -> str:
    """Return the text of a file that a profile names.

    Raises Missing, and Rejected also where others than root may write it.
    """
    if found := host.others(path):
        raise Rejected(path, EPERM, f"{found}; chown root, and chmod go-w")
    return host.read(path)


def _open_to(path: str, found: str) -> Problem:
    """Return what is wrong with a path that others may write: they would rule the host with it."""
    expected = "a file or folder that only root may write"
    return Problem(path, 0, 0, (), expected, found, "chown root, and chmod go-w")


def _instead(host: Host, folder: str) -> str:
    """Return what is there in place of a folder, "" where it is one or there is nothing."""
    try:
        host.read(folder)
    except Missing:
        target = host.link(folder)
        return "" if target is None else f"a link to {target}, which is not there"
    except HostError:
        return ""  # it is not to be read as a file
    return "a file"


def _is_null(path: str, target: str) -> bool:
    full = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return full == "/dev/null"
