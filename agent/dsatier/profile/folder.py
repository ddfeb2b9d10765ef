# SPDX-License-Identifier: Apache-2.0
"""``dsatier check FOLDER``: the files of a folder are checked together, as a host reads them.

What a ``match`` stands for is another host each time, so files with one are merged with those
that have the same, and with those that have none.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable

from dsatier.base.problem import Invalid, Problem
from dsatier.host import given
from dsatier.profile import yaml
from dsatier.profile.check import check_tree
from dsatier.profile.dropins import Source, counts
from dsatier.profile.load import merged_of, parts
from dsatier.profile.model import Match

Checked = list[tuple[str, list[Problem]]]
"""Files, and what is wrong with each."""


def check_folder(folder: str) -> Checked:
    """Return the files of a folder that count, and what is wrong with them and their merge."""
    try:
        sources = _sources(folder)
    except Invalid as invalid:
        return _by_file((), invalid.problems)
    if not sources:
        nothing = Problem(folder, 0, 0, (), "a profile, *.yaml", "none that counts")
        return _by_file((), [nothing])
    return _by_file(sources, wrong(sources))


def check_as(file: str, source: bytes, path: str) -> Checked:
    """Return what would be wrong if ``source`` stood at ``path``, and is not wrong without it.

    So a folder that is wrong in two files can be corrected one after the other. ``file`` is the
    name for messages.
    """
    folder, name = posixpath.split(path)
    if not counts(name):
        ours = "the path of a drop-in: *.yaml, not hidden, not a backup"
        return _by_file((), [Problem(path, 0, 0, (), ours, name or "a folder")])
    own = check_tree(yaml.parse(source, file), whole=False)
    if own:
        return [(file, own)]
    try:
        others = {posixpath.basename(one.path): one for one in _sources(folder or ".")}
    except Invalid:
        return [(file, [])]  # whoever mends what cannot be read sees the rest
    others.pop(name, None)
    before = wrong(others.values())
    text = source.decode(errors="surrogateescape")
    fresh = Source(file, text)
    together = [one for _, one in sorted([*others.items(), (name, fresh)]) if one.text.strip()]
    return _by_file([fresh], [one for one in wrong(together) if one not in before])


def wrong(sources: Iterable[Source]) -> list[Problem]:
    """Return what is wrong with files, in the order in which they apply, and with their merges.

    A file that is wrong by itself takes part in no merge.
    """
    good, found = parts(sources)
    matches: list[Match | None] = [None]  # of a host, too, that no file with a match is for
    for one in good:
        if one.match not in matches:
            matches.append(one.match)
    for match in matches:
        try:
            merged_of(one for one in good if one.match in (None, match))
        except Invalid as invalid:
            found += [problem for problem in invalid.problems if problem not in found]
    return sorted(found, key=Problem.place)


def _sources(folder: str) -> tuple[Source, ...]:
    """Return the files of a folder that count, as ``dropins.find`` would. Raises Invalid."""
    sources: list[Source] = []
    problems: list[Problem] = []
    try:
        names = sorted(filter(counts, os.listdir(folder)))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Invalid([Problem(folder, 0, 0, (), "a readable folder", reason)]) from None
    for path in (posixpath.join(folder, name) for name in names):
        if os.path.realpath(path) == os.devnull:
            continue
        try:
            text = given.text(path, yaml.MAX_BYTES)
        except Invalid as invalid:
            problems += invalid.problems
        else:
            if text.strip():
                sources.append(Source(path, text))
    if problems:
        raise Invalid(problems)
    return tuple(sources)


def _by_file(sources: Iterable[Source], problems: Iterable[Problem]) -> Checked:
    checked: dict[str, list[Problem]] = {source.path: [] for source in sources}
    for problem in problems:
        checked.setdefault(problem.file, []).append(problem)
    return list(checked.items())
