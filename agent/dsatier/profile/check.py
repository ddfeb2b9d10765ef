# SPDX-License-Identifier: Apache-2.0
"""Everything that is wrong with the text of a profile, in one pass."""

from __future__ import annotations

from typing import Any

from dsatier.base.problem import Problem
from dsatier.profile import rules, schema, yaml
from dsatier.profile.model import Profile


def check_text(source: str | bytes, file: str, *, whole: bool = True) -> list[Problem]:
    """Return everything that is wrong with one profile's text, sorted by place.

    ``whole`` is False for a drop-in, which other files complete.
    """
    return check_tree(yaml.parse(source, file), whole=whole)


def check_tree(tree: yaml.Tree, *, whole: bool = True) -> list[Problem]:
    """Return everything that is wrong with one profile, sorted by place."""
    return checked(tree, whole=whole)[1]


def checked(tree: yaml.Tree, *, whole: bool = True) -> tuple[Profile | None, list[Problem]]:
    """Return the profile that a text is, None where it is none, and everything that is wrong."""
    found = list(tree.problems)
    profile = None
    if tree.complete:
        profile, wrong = schema.checked(Profile, tree.data, tree.at)
        found += [problem for problem in wrong if problem.path not in tree.refused]
        data = _without(tree.data, [problem.path for problem in wrong])
        found += rules.broken(data, tree.at, whole=whole and not found)
    return (None if found else profile), sorted(found, key=Problem.place)


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
