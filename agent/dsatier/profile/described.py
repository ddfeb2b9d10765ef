# SPDX-License-Identifier: Apache-2.0
"""JSON Schemas with what each field means: the text that stands beneath it in the sources.

pydantic can read the sources too. It does so whenever it makes a validator, and takes longer for
that than for the rest.
"""

from __future__ import annotations

import ast
import inspect
from dataclasses import is_dataclass
from itertools import pairwise
from typing import Any, get_args, get_type_hints

from dsatier.profile.schema import json_schema


def described(kind: type) -> dict[str, Any]:
    """Return the JSON Schema of type ``kind``, its fields with their descriptions."""
    whole = json_schema(kind)
    classes: dict[str, type] = {}
    _gather(kind, classes)
    for name, part in (*whole.get("$defs", {}).items(), (kind.__name__, whole)):
        fields = part["properties"]
        for field, text in _texts(classes[name]).items():
            fields[field] = dict(sorted({**fields[field], "description": text}.items()))
    return whole


def _gather(hint: Any, found: dict[str, type]) -> None:
    """Put every dataclass that a type hint names into ``found``, also through others."""
    for inner in get_args(hint):
        _gather(inner, found)
    if is_dataclass(hint) and isinstance(hint, type) and hint.__name__ not in found:
        found[hint.__name__] = hint
        for inner in get_type_hints(hint).values():
            _gather(inner, found)


def _texts(cls: type) -> dict[str, str]:
    """Return the text beneath each field of a class that has one."""
    (found,) = ast.parse(inspect.getsource(cls)).body
    texts = {}
    for field, text in pairwise(getattr(found, "body", ())):
        match field, text:
            case ast.AnnAssign(ast.Name(name)), ast.Expr(ast.Constant(str(words))):
                texts[name] = inspect.cleandoc(words)
    return texts
