# SPDX-License-Identifier: Apache-2.0
"""``dsatier check``: tells whether files are valid profiles.

Configuration managers run it on every file that they write, so the command line
comes here before it loads what the other commands need.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from dsatier.base.exits import BAD_PROFILE, OK, USAGE
from dsatier.base.problem import Invalid, Problem, show
from dsatier.host import given
from dsatier.profile import rules, schema, yaml
from dsatier.profile.model import Profile


def check_text(source: str | bytes, file: str, *, whole: bool = True) -> list[Problem]:
    """Return everything that is wrong with one profile's text, sorted by place.

    ``whole`` is False for a drop-in, which other files complete.
    """
    return check_tree(yaml.parse(source, file), whole=whole)


def check_tree(tree: yaml.Tree, *, whole: bool = True) -> list[Problem]:
    """Return everything that is wrong with one profile, sorted by place."""
    found = list(tree.problems)
    if tree.complete:
        wrong = schema.check(Profile, tree.data, tree.at)
        found += [problem for problem in wrong if problem.path not in tree.refused]
        data = _without(tree.data, [problem.path for problem in wrong])
        found += rules.broken(data, tree.at, whole=whole and not found)
    return sorted(found, key=Problem.place)


def _without(data: Any, paths: list[tuple[str | int, ...]]) -> Any:
    """Return a mapping without what is wrong in it; of a list that is wrong, nothing.

    Where a mapping's kind is wrong, the schema did not look at the rest of it.
    """
    if not isinstance(data, dict) or () in paths:
        return {}
    kept = {}
    for key, value in data.items():
        beneath = [path[1:] for path in paths if path[0] == key]
        if not beneath:
            kept[key] = value
        elif isinstance(value, dict) and () not in beneath and ("kind",) not in beneath:
            kept[key] = _without(value, beneath)
    return kept


def check_path(file: str, instead: str | None = None) -> list[tuple[str, list[Problem]]]:
    """Return everything that is wrong with a file, ``-`` for standard input, or a folder's files.

    ``instead`` is the path of a drop-in that the file is to replace, or to become.
    """
    if instead is None and os.path.isdir(file):
        from dsatier.profile.folder import check_folder  # it loads much

        return check_folder(file)
    try:
        source = given.read(file, yaml.MAX_BYTES)
    except Invalid as invalid:
        return [(file, list(invalid.problems))]
    if not source.strip() and os.path.isfile(file):
        print(f"{show(file)}: empty: as a drop-in it disables its name", file=sys.stderr)
        return [(file, [])]
    shown = "<stdin>" if file == "-" else file
    if instead is None:
        return [(file, check_text(source, shown))]
    from dsatier.profile.folder import check_as

    return check_as(shown, source, instead)


def check_main(argv: list[str]) -> int | None:
    """Check the files that ``argv`` names, what follows ``check`` on the command line.

    Returns the exit code: 0, 64 for a usage error, 65 where a file is no valid
    profile or cannot be read. Returns None where help is asked for: that is the
    whole command line's to give.
    """
    files: list[str] = []
    as_json = False
    instead: str | None = None
    rest = iter(argv)
    for word in rest:
        if word == "--":
            files += rest
        elif word in ("-h", "--help"):
            return None
        elif word == "--json":
            as_json = True
        elif word == "--as" or word.startswith("--as="):
            instead = word.partition("=")[2] or next(rest, "")
        elif word.startswith("-") and word != "-":
            return _usage(f"unknown option {word}")
        else:
            files.append(word)
    if not files:
        return _usage("expected a file, or - for standard input, found none")
    if instead == "" or (instead is not None and len(files) > 1):
        return _usage("expected --as PATH and one file")
    checked = [one for file in files for one in check_path(file, instead)]
    for _, problems in checked:
        for problem in problems:
            print(problem, file=sys.stderr)
    if as_json:
        _print_json(checked)
    return BAD_PROFILE if any(problems for _, problems in checked) else OK


def _usage(message: str) -> int:
    print(f"dsatier check: {message}", file=sys.stderr)
    print("usage: dsatier check [--json] [--as PATH] FILE...", file=sys.stderr)
    return USAGE


def _print_json(checked: list[tuple[str, list[Problem]]]) -> None:
    files = [
        {"file": file, "valid": not problems, "problems": [one.to_json() for one in problems]}
        for file, problems in checked
    ]
    print(json.dumps({"schema_version": 1, "files": files}, indent=2))
