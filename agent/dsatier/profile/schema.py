# SPDX-License-Identifier: Apache-2.0
"""Validation against the frozen schemas of our types.

The types are plain dataclasses. pydantic works out a validator for each; that
takes longer than everything else that a command does, so it is done when the
project is built: ``python -m dsatier.profile.schema`` writes, for each type, pydantic's
core schema as data with class names in place of classes
(``schemas/NAME.core.json``) and a JSON Schema for editors and other programs
(``schemas/NAME.schema.json``). At run time pydantic's compiled core gets that
data. Where the installed core is not the one that the data was written for,
pydantic works it out anew; only time is lost.

The core takes the schema in two forms. ``check`` needs no classes: dataclasses
become dictionaries with fixed keys. ``validate`` puts the classes in and
returns frozen values. Both refuse the same.

A field that has a default may be null: it is then not named.
"""

from __future__ import annotations

import json
import os
import sys

from dsatier.base.problem import Invalid, Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    Path = tuple[str | int, ...]
    Locate = Callable[[Path, bool], tuple[str, int, int]]
    """(path, key) to file, line and column of a value or of its key."""

TYPES = {
    "profile": "dsatier.profile.model:Profile",
    "facts": "dsatier.facts.model:Facts",
    "plan": "dsatier.plan.model:Plan",
    "record": "dsatier.apply.records:Record",
    "motion": "dsatier.apply.records:Motion",
    "originals": "dsatier.plan.originals:Originals",
    "tally": "dsatier.apply.counters:Tally",
}
"""Every type that has a frozen schema, by name."""

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "schemas")
# What the running code needs of a core schema; the rest says nothing to the core.
_DROPPED = frozenset(("metadata", "serialization", "collect_init_only", "computed_fields"))

# Null may stand for these where they have a default. A function before a list's schema would
# hand it a Python list, which is no tuple; people do not write the values that hold lists.
_SCALARS = frozenset(("int", "float", "bool", "str", "literal"))

_UNKNOWN = frozenset(("unexpected_keyword_argument", "extra_forbidden"))
"""The types of pydantic's errors about a key that there is not."""
_VALUE = "value"
"""Marks one of our values, which is a default: no kind of pydantic's."""

_frozen: dict[str, Any] = {}
_validators: dict[tuple[str, bool], Any] = {}


def core() -> ModuleType:
    """Return pydantic's compiled core.

    The package ``pydantic_core`` loads typing_extensions and its own type hints
    beside the extension module, which costs ten times as much as the module
    does. So the module is loaded by itself, under its own name: whoever imports
    the package later gets the same one.
    """
    name = "pydantic_core._pydantic_core"
    if name in sys.modules:
        return sys.modules[name]
    if "pydantic_core" not in sys.modules:
        from importlib.machinery import ExtensionFileLoader, PathFinder

        package = PathFinder.find_spec("pydantic_core")
        spec = package and PathFinder.find_spec(name, package.submodule_search_locations)
        if spec and isinstance(spec.loader, ExtensionFileLoader):
            module = spec.loader.create_module(spec)
            sys.modules[name] = module
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[name]
                raise
            return module
    import pydantic_core._pydantic_core

    return pydantic_core._pydantic_core


def check(name: str, data: Any, locate: Locate | None = None) -> list[Problem]:
    """Return what is wrong with plain data as a value of type ``name``, sorted by place."""
    return _problems(name, _validator(name, classes=False), data, locate)


def validate_file(name: str, text: str, file: str) -> Any:
    """Return a file's JSON as a frozen value of type ``name``. Raises Invalid, which names it."""
    return validate(name, text, lambda path, key: (file, 0, 0))


def validate(name: str, source: Any, locate: Locate | None = None) -> Any:
    """Return ``source`` as a frozen value of type ``name``.

    ``source`` is JSON (text or bytes) or plain data. Raises Invalid.
    """
    if isinstance(source, (str, bytes)):
        try:
            source = core().from_json(source, allow_inf_nan=False)
        except ValueError as error:
            file = locate((), False)[0] if locate else ""
            problem = Problem(file, 0, 0, (), "JSON", str(error), wording=f"not JSON: {error}")
            raise Invalid([problem]) from None
    validator = _validator(name, classes=True)
    try:
        return validator.validate_json(json.dumps(source))
    except core().ValidationError:
        raise Invalid(_problems(name, validator, source, locate)) from None


def validate_own(name: str, text: str) -> Any:
    """Return a text that dsatier keeps for itself as a frozen value. Raises Invalid.

    A later version may have added keys, within the same ``schema_version``; this one goes on
    without them. What it keeps anew has them no more.
    """
    try:
        return validate(name, text)
    except Invalid:
        known = _known(name, text)
        if known is None:
            raise
        return validate(name, known)


def _known(name: str, text: str) -> Any:
    """Return the plain data of a text without the keys that type ``name`` does not know.

    None where these are not all that is wrong with it.
    """
    try:
        source = core().from_json(text, allow_inf_nan=False)
        _validator(name, classes=True).validate_json(json.dumps(source))
    except core().ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
    except ValueError:
        return None
    for one in errors:
        if one["type"] not in _UNKNOWN:
            return None
        *path, key = one["loc"]
        holder = source
        for part in path:
            holder = holder[part]
        del holder[key]
    return source


def dump(value: Any) -> Any:
    """Return a frozen value as plain data: dictionaries, lists, text, numbers, None."""
    return core().to_jsonable_python(value)


def frozen(name: str) -> Any:
    """Return the core schema of type ``name`` with class names in place of classes."""
    if name not in _frozen:
        try:
            with open(os.path.join(FOLDER, f"{name}.core.json"), "rb") as file:
                kept = core().from_json(file.read())
        except FileNotFoundError:
            kept = {}
        if kept.get("pydantic_core") == core().__version__:
            _frozen[name] = kept["schema"]
        else:
            _frozen[name] = freeze(name)
    return _frozen[name]


def freeze(name: str) -> Any:
    """Work out with pydantic what ``frozen`` returns."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(_class(TYPES[name])).core_schema
    return _plain(schema)


def json_schema(name: str) -> dict[str, Any]:
    """Work out the JSON Schema of type ``name`` with pydantic."""
    from pydantic import TypeAdapter

    schema = TypeAdapter(_class(TYPES[name])).json_schema()
    for part in (schema, *schema.get("$defs", {}).values()):
        for field in part.get("properties", {}).values():
            field.pop("title", None)  # pydantic's "Limit Chans" for limit_chans
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def files() -> dict[str, str]:
    """Return the text of every file in ``schemas``, by file name, worked out anew."""
    texts = {}
    for name in TYPES:
        content = {"pydantic_core": core().__version__, "schema": freeze(name)}
        texts[f"{name}.core.json"] = json.dumps(content, indent=1) + "\n"
        texts[f"{name}.schema.json"] = json.dumps(json_schema(name), indent=2) + "\n"
    return texts


def _class(reference: str) -> Any:
    module, _, name = reference.partition(":")
    __import__(module)
    return getattr(sys.modules[module], name)


def _plain(part: Any) -> Any:
    """Return part of a core schema as data."""
    if isinstance(part, dict):
        plain = {key: _plain(value) for key, value in part.items() if key not in _DROPPED}
        for key in ("ref", "schema_ref"):
            if key in plain:  # ends in the class's address in memory
                plain[key] = plain[key].rpartition(":")[0] or plain[key]
        return plain
    if isinstance(part, (list, tuple)):
        return [_plain(value) for value in part]
    if isinstance(part, type):
        return f"{part.__module__}:{part.__qualname__}"
    if hasattr(part, "__dataclass_fields__"):  # a default
        return {"type": _VALUE, "cls": _plain(type(part)), "fields": dump(part)}
    if part is None or isinstance(part, (str, int, float)):
        return part
    raise TypeError(f"{part!r} cannot be frozen: use plain types and annotated_types")


def _validator(name: str, classes: bool) -> Any:
    if (name, classes) not in _validators:
        schema = _thaw(frozen(name), classes)
        _validators[name, classes] = core().SchemaValidator(schema)
    return _validators[name, classes]


def _null_is_default(value: Any) -> Any:
    if value is None:
        raise core().PydanticUseDefault
    return value


def _thaw(part: Any, classes: bool) -> Any:
    """Turn a frozen core schema into one that the core takes, with or without our classes."""
    if isinstance(part, list):
        return [_thaw(value, classes) for value in part]
    if not isinstance(part, dict):
        return part
    kind = part.get("type")
    if kind == _VALUE:
        return _class(part["cls"])(**part["fields"]) if classes else part["fields"]
    if kind == "dataclass" and not classes:
        fields = {
            field["name"]: {
                "type": "typed-dict-field",
                "schema": _thaw(field["schema"], classes),
                "required": field["schema"]["type"] != "default",
            }
            for field in part["schema"]["fields"]
        }
        thawed = {"type": "typed-dict", "fields": fields, "config": part.get("config", {})}
        return {**thawed, "ref": part["ref"]} if "ref" in part else thawed
    thawed = {key: _thaw(value, classes) for key, value in part.items()}
    if kind == "dataclass":
        thawed["cls"] = _class(part["cls"])
    elif kind == "literal" and all(type(one) is int for one in part["expected"]):
        whole = {"type": "int", "strict": True}  # to the core 1.0 and true are 1, too
        thawed = {"type": "chain", "steps": [whole, thawed]}
    elif kind == "union":  # number the choices, so that errors name them by it
        thawed["choices"] = [(choice, str(i)) for i, choice in enumerate(thawed["choices"])]
    elif kind == "default":
        if isinstance(part["default"], list):  # JSON has no tuples, our values have no lists
            thawed["default"] = tuple(part["default"])
        if part["schema"]["type"] in _SCALARS:
            function = {"type": "no-info", "function": _null_is_default}
            inner = {"type": "function-before", "function": function, "schema": thawed["schema"]}
            thawed["schema"] = inner
    return thawed


def _problems(name: str, validator: Any, data: Any, locate: Locate | None) -> list[Problem]:
    try:
        validator.validate_json(json.dumps(data))
    except core().ValidationError as error:
        from dsatier.profile.messages import problems

        errors = error.errors(include_url=False, include_input=False)
        return problems(frozen(name), data, errors, locate)
    return []


def main() -> int:
    """Write all files of ``schemas``."""
    texts = files()
    os.makedirs(FOLDER, exist_ok=True)
    for file_name, text in texts.items():
        with open(os.path.join(FOLDER, file_name), "w", encoding="utf-8") as file:
            file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
