# SPDX-License-Identifier: Apache-2.0
"""``dsatier cat-config``: the merged profile, with the origin of every value."""

from __future__ import annotations

import json
from typing import Any

from dsatier.base.problem import dotted, show
from dsatier.profile.loaded import Loaded
from dsatier.profile.merge import Path
from dsatier.profile.yaml import plain

# What can be in plain text with no meaning of its own in YAML, wherever it stands.
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+")


def render(loaded: Loaded) -> str:
    """Return the merged profile as YAML. Each value's comment tells its file and line."""
    lines = []
    for title, notes in (
        ("merged, the later over the earlier", [(file, "") for file in loaded.files]),
        ("skipped, not for this host", [(one.path, one.reason) for one in loaded.skipped]),
        ("masked", [(one.path, one.reason) for one in loaded.masked]),
    ):
        if notes:
            lines.append(f"# {title}:")
            for path, reason in notes:
                text = f"{path}: {reason}" if reason else path
                lines.append(f"#   {show(text, 10_000)}")
    if not loaded.files:
        lines.append("# no file applies: dsatier leaves the host as it is")
    lines += _mapping(loaded, loaded.data, ())
    return "\n".join(lines) + "\n"


def to_json(loaded: Loaded) -> dict[str, Any]:
    """Return the merged profile as data, with the origin of every value by field."""
    return {
        "schema_version": 1,
        "profile": loaded.data if loaded.files else None,
        "origins": {
            field: {"file": origin.file, "line": origin.line, "column": origin.column}
            for field, origin in loaded.origins.items()
        },
        "files": list(loaded.files),
        "skipped": [{"file": one.path, "reason": one.reason} for one in loaded.skipped],
        "masked": [{"file": one.path, "reason": one.reason} for one in loaded.masked],
        "digest": loaded.digest,
    }


def _mapping(loaded: Loaded, data: dict[str, Any], path: Path) -> list[str]:
    lines = []
    indent = "  " * len(path)
    for key, value in data.items():
        inner = (*path, key)
        if isinstance(value, dict) and value:
            lines.append(f"{indent}{_scalar(key)}:")
            lines += _mapping(loaded, value, inner)
            continue
        origin = loaded.origins[dotted(inner)]
        note = "taken back by " if value is None else ""
        text = f"{indent}{_scalar(key)}: {_value(value)}"
        lines.append(f"{text}  # {note}{show(str(origin), 10_000)}")
    return lines


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_scalar(item) for item in value)}]"
    return "{}" if value == {} else _scalar(value)


def _scalar(value: Any) -> str:
    """Return a scalar as YAML that reads back as the same."""
    if isinstance(value, str) and value and set(value) <= _PLAIN and plain(value)[0] == value:
        return value
    return json.dumps(value)
