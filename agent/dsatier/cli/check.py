# SPDX-License-Identifier: Apache-2.0
"""``dsatier check``: tells whether files are valid profiles.

Configuration managers run it on every file that they write, so it loads nothing of what the
other commands need.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace

from dsatier.base.exits import BAD_PROFILE, OK
from dsatier.base.problem import Invalid, Problem, show
from dsatier.cli.options import parser
from dsatier.host import given
from dsatier.profile import yaml
from dsatier.profile.check import check_text


def check_main(argv: list[str]) -> int:
    """Check the files that ``argv`` names, what follows ``check`` on the command line."""
    return check(parser().parse_args(["check", *argv]))


def check(options: Namespace) -> int:
    """Print what is wrong with files, and return the exit code.

    That is 0, or 65 where a file is no valid profile or cannot be read.
    """
    instead = getattr(options, "as")
    if instead == "" or (instead is not None and len(options.files) > 1):
        parser().error("check: expected --as PATH and one file")
    checked = [one for file in options.files for one in check_path(file, instead)]
    for _, problems in checked:
        for problem in problems:
            print(problem, file=sys.stderr)
    if options.json:
        _print_json(checked)
    return BAD_PROFILE if any(problems for _, problems in checked) else OK


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


def _print_json(checked: list[tuple[str, list[Problem]]]) -> None:
    files = [
        {"file": file, "valid": not problems, "problems": [one.to_json() for one in problems]}
        for file, problems in checked
    ]
    print(json.dumps({"schema_version": 1, "files": files}, indent=2))
