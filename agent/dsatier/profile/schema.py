# SPDX-License-Identifier: Apache-2.0
"""Validation of plain data and JSON as our values, by pydantic, with problems that have a place.

The values are standard dataclasses whose annotations say what is allowed. Data is validated as
JSON, so a list is a tuple, and everything else is strict.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json, to_jsonable_python

from dsatier.base.problem import Invalid, Problem
from dsatier.profile import messages

T = TypeVar("T")
Path = tuple[str | int, ...]
Locate = Callable[[Path, bool], tuple[str, int, int]]
"""(path, key) to file, line and column of a value or of its key."""


def checked(
    kind: type[T], data: Any, locate: Locate | None = None
) -> tuple[T | None, list[Problem]]:
    """Return plain data as a value, None where it is none, and what is wrong, sorted by place."""
    try:
        return validate(kind, data, locate), []
    except Invalid as invalid:
        return None, list(invalid.problems)


def validate(kind: type[T], data: Any, locate: Locate | None = None) -> T:
    """Return plain data as a value of type ``kind``. Raises Invalid."""
    try:
        value: T = _adapter(kind).validate_json(json.dumps(data))
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        raise Invalid(messages.problems(json_schema(kind), data, errors, locate)) from None
    return value


def validate_text(kind: type[T], text: str | bytes, file: str = "") -> T:
    """Return JSON as a value of type ``kind``. Raises Invalid, which names ``file``."""
    return validate(kind, _parsed(text, file), lambda path, key: (file, 0, 0))


def validate_own(kind: type[T], text: str) -> T:
    """Return JSON that dsatier keeps for itself as a value of type ``kind``. Raises Invalid.

    A later version may have added keys, within the same ``schema_version``; this one goes on
    without them. What it keeps anew has them no more.
    """
    data = _parsed(text, "")
    try:
        value: T = _adapter(kind).validate_json(json.dumps(data))
    except ValidationError as error:
        return validate(kind, _known(data, error))
    return value


def _known(data: Any, error: ValidationError) -> Any:
    """Return plain data without the keys that were not known.

    The data as it is if these are not all that is wrong with it.
    """
    errors = error.errors(include_url=False, include_input=False)
    if all(one["type"] in messages.UNKNOWN for one in errors):
        for one in errors:
            *path, key = one["loc"]
            holder = data
            for part in path:  # a place may name the kind that was chosen, too
                if isinstance(holder, list) or isinstance(holder.get(part), dict | list):
                    holder = holder[part]
            del holder[key]
    return data


def _parsed(text: str | bytes, file: str) -> Any:
    try:
        return from_json(text, allow_inf_nan=False)
    except ValueError as error:
        wrong = Problem(file, 0, 0, (), "JSON", str(error), wording=f"not JSON: {error}")
        raise Invalid([wrong]) from None


def dump(value: Any) -> Any:
    """Return a value as plain data: dictionaries, lists, text, numbers, None."""
    return to_jsonable_python(value)


def json_schema(kind: type) -> dict[str, Any]:
    """Return the JSON Schema of type ``kind``."""
    found = _adapter(kind).json_schema()
    for part in (found, *found.get("$defs", {}).values()):
        for field in part.get("properties", {}).values():
            field.pop("title", None)  # pydantic's "Limit Chans" for limit_chans
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


_adapters: dict[type, TypeAdapter[Any]] = {}


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]
