# SPDX-License-Identifier: Apache-2.0
"""What pydantic's errors mean to the person who wrote the text.

What was expected is told from the schema at the error's place, and what was
found from the data there, so that an error needs no wording of its own. Only
absent and unknown keys and unions do: their errors are gathered here into what
the person most likely meant.
"""

from __future__ import annotations

from dsatier.base.problem import Problem, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from dsatier.profile.schema import Locate, Path

MAX_PROBLEMS = 100

ABSENT = frozenset(("missing",))
UNKNOWN = frozenset(("extra_forbidden", "unexpected_keyword_argument"))
TAG = frozenset(("union_tag_not_found", "union_tag_invalid"))
VALUE = frozenset(
    (
        "bool_type",
        "dataclass_type",
        "dict_type",
        "float_type",
        "finite_number",
        "greater_than_equal",
        "int_type",
        "int_parsing_size",
        "less_than_equal",
        "literal_error",
        "model_attributes_type",
        "string_too_long",
        "string_too_short",
        "string_type",
        "too_long",
        "too_short",
        "tuple_type",
    )
)
"""Errors that say: this value is not what the schema asks for."""

_SPELLED = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false"}
_SPELLED["false"] = "false"


def problems(
    schema: Any, data: Any, errors: list[dict[str, Any]], locate: Locate | None
) -> list[Problem]:
    """Return ``errors`` that the core found in ``data`` as problems, sorted by place."""
    wording = _Wording(schema, locate or (lambda path, key: ("", 0, 0)))
    found = wording.sift(wording.schema, data, (), [(tuple(e["loc"]), e) for e in errors])
    kept = sorted((found_problem for found_problem in found), key=Problem.place)
    return kept[:MAX_PROBLEMS]


def found(value: Any) -> str:
    """Say what a value is."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {show(repr(value))}"
    if isinstance(value, str):
        return f"'{show(value)}'" if value else "empty text"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    return f"a list of {len(value)}" if value else "an empty list"


def _listed(words: Iterable[str], last: str = "or") -> str:
    words = list(words)
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


class _Wording:
    def __init__(self, schema: Any, locate: Locate) -> None:
        self.definitions: dict[str, Any] = {}
        self.locate = locate
        self.schema = schema
        if schema["type"] == "definitions":
            self.definitions = {one["ref"]: one for one in schema["definitions"]}
            self.schema = schema["schema"]

    def bare(self, node: Any) -> Any:
        """Return what is beneath wrappers that take no place in the data."""
        while True:
            if node["type"] in ("default", "nullable", "dataclass-field"):
                node = node["schema"]
            elif node["type"] == "definition-ref":
                node = self.definitions[node["schema_ref"]]
            else:
                return node

    def fields(self, node: Any) -> dict[str, Any]:
        """Return the fields of a dataclass by name."""
        return {field["name"]: field for field in node["schema"]["fields"]}

    def required(self, node: Any) -> list[str]:
        fields = self.fields(node).items()
        return [name for name, field in fields if field["schema"]["type"] != "default"]

    def sift(
        self, node: Any, data: Any, path: Path, errors: list[tuple[tuple[Any, ...], dict[str, Any]]]
    ) -> list[Problem]:
        """Return the problems of ``data`` at ``path``. Each error's place is relative to it."""
        if not errors:
            return []
        node = self.bare(node)
        if node["type"] == "union":
            chosen = self.choose(node, data)
            if chosen is None:
                return [self.value(node, data, path)]
            inner = [(loc[1:], error) for loc, error in errors if loc and loc[0] == str(chosen)]
            return self.sift(node["choices"][chosen], data, path, inner)
        told = [self.value(node, data, path, error) for loc, error in errors if not loc][:1]
        if node["type"] == "tuple" and len(told) < len(errors):
            told = []  # the core counts only the items that are right
        beneath: dict[Any, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}
        for loc, error in errors:
            if loc:
                beneath.setdefault(loc[0], []).append((loc[1:], error))
        for part, inner in beneath.items():
            kind = inner[0][1]["type"] if not inner[0][0] else ""
            if node["type"] == "tagged-union":
                told += self.sift(node["choices"][part], data, path, inner)
            elif kind in ABSENT:
                told.append(self.absent(node, part, path))
            elif kind in UNKNOWN:
                told.append(self.unknown(node, part, data, path, len(told) < MAX_PROBLEMS))
            elif node["type"] == "dict" and inner[0][0] == ("[key]",):
                told.append(self.value(node["keys_schema"], part, (*path, part)))
            else:
                child = self.child(node, part)
                value = data[part] if isinstance(data, (dict, list)) else None
                told += self.sift(child, value, (*path, part), inner)
        return told

    def child(self, node: Any, part: Any) -> Any:
        if node["type"] == "dataclass":
            return self.fields(node)[part]
        if node["type"] == "dict":
            return node["values_schema"]
        items = node["items_schema"]
        return items[min(part, len(items) - 1)]

    def choose(self, node: Any, data: Any) -> int | None:
        """Return which choice of a union the person meant, None where that cannot be told."""
        fit = []
        for index, choice in enumerate(node["choices"]):
            bare = self.bare(choice)
            shapes = {"dataclass": dict, "tagged-union": dict, "dict": dict, "tuple": list}
            kinds = {"int": int, "float": (int, float), "str": str, "bool": bool}
            shape: Any = {**shapes, **kinds}.get(bare["type"])
            if not shape or not isinstance(data, shape):
                continue
            if isinstance(data, bool) == (bare["type"] == "bool"):  # a bool is no int here
                keys = len(self.fields(bare).keys() & data) if bare["type"] == "dataclass" else 0
                fit.append((keys, index))
        fit.sort(reverse=True)
        if len(fit) > 1 and fit[0][0] == fit[1][0]:
            return None
        return fit[0][1] if fit else None

    def value(
        self, node: Any, data: Any, path: Path, error: dict[str, Any] | None = None
    ) -> Problem:
        """Say that the value at ``path`` is not what ``node`` asks for."""
        if node["type"] == "tagged-union" and isinstance(data, dict):
            key = node["discriminator"]
            path, tags = (*path, key), _listed(node["choices"])
            if data.get(key) is None:
                place = self.locate(path, False)
                return Problem(*place, path, tags, "nothing", f"add '{key}: ...'")
            return Problem(*self.locate(path, False), path, tags, found(data[key]))
        expected, hint = self.expected(node), self.hint(node, data)
        seen = found(data)
        if isinstance(data, str) and error and error["type"] == "string_too_long":
            seen = f"{len(data)} characters"
        if error and error["type"] not in VALUE:
            expected = f"{expected} ({error['msg']})"
        return Problem(*self.locate(path, False), path, expected, seen, hint)

    def absent(self, node: Any, name: str, path: Path) -> Problem:
        expected = self.expected(self.fields(node)[name])
        hint = f"add '{name}: {expected if expected.isdigit() else '...'}'"
        return Problem(*self.locate(path, True), (*path, name), expected, "nothing", hint)

    def unknown(self, node: Any, name: str, data: Any, path: Path, search: bool) -> Problem:
        """Say that a key is unknown, and which one was meant."""
        fields = self.fields(node)
        place = (*self.locate((*path, name), True), (*path, name))
        expected = f"one of {', '.join(fields)}"
        wording = "unknown key"
        if near := _nearest(name, fields, 0.8) if search else "":
            wording += f", did you mean '{near}'?"
        elif elsewhere := self.elsewhere(name) if search else []:
            wording += f", it belongs in {_listed(elsewhere)}"
        elif near := _nearest(name, fields, 0.6) if search else "":
            wording += f", did you mean '{near}'?"
        else:
            wording += f", {_instead(fields, data)}"
        return Problem(*place, expected, f"the key '{show(name)}'", wording=wording)

    def elsewhere(self, name: str) -> list[str]:
        """Return the places that have a key ``name``."""
        places: list[str] = []

        def visit(node: Any, path: str, seen: tuple[int, ...]) -> None:
            node = self.bare(node)
            if id(node) in seen:
                return
            seen = (*seen, id(node))
            if node["type"] == "dataclass":
                for key, field in self.fields(node).items():
                    if key == name:
                        places.append(path or "the top level")
                    visit(field, f"{path}.{key}" if path else key, seen)
            elif node["type"] == "tagged-union":
                for tag, choice in node["choices"].items():
                    visit(choice, f"{path} with {node['discriminator']}: {tag}", seen)
            elif node["type"] == "union":
                for choice in node["choices"]:
                    visit(choice, path, seen)

        visit(self.schema, "", ())
        return list(dict.fromkeys(places))[:3]

    def expected(self, node: Any) -> str:
        """Say what ``node`` asks for."""
        node = self.bare(node)
        kind = node["type"]
        if kind == "int":
            return f"an integer{_range(node)}"
        if kind == "float":
            return f"a number{_range(node)}"
        if kind == "bool":
            return "true or false"
        if kind == "str":
            return f"text{_length(node, 'characters')}"
        if kind == "literal":
            return _listed(str(value) for value in node["expected"])
        if kind == "tuple":
            items = {self.expected(item) for item in node["items_schema"]}
            each = f", each {_listed(sorted(items))}" if items else ""
            return f"a list{_length(node, 'items')}{each}"
        if kind == "union":
            return _listed(dict.fromkeys(self.expected(choice) for choice in node["choices"]))
        if kind == "tagged-union":
            return f"a mapping with {node['discriminator']} {_listed(node['choices'])}"
        if kind == "dataclass":
            if needed := self.required(node):
                return f"a mapping with {_listed(needed, 'and')}"
            return f"a mapping of {_listed(self.fields(node))}"
        return "a mapping" if kind == "dict" else "a value"

    def hint(self, node: Any, data: Any) -> str:
        """Say what to write instead, where that is plain."""
        kind = node["type"]
        if kind == "bool" and isinstance(data, str) and data.lower() in _SPELLED:
            return f"write {_SPELLED[data.lower()]}"
        if kind == "literal" and isinstance(data, bool):
            word = "on" if data else "off"
            return f"write {word}" if word in node["expected"] else ""
        if kind in ("int", "float", "literal") and isinstance(data, str):
            numbers = kind != "literal" or any(isinstance(e, int) for e in node["expected"])
            if numbers and data.removeprefix("-").replace(".", "", 1).isdigit():
                return "leave the quotes out"
        if kind == "int" and isinstance(data, float) and data == int(data):
            return f"write {int(data)}"
        if kind == "int" and isinstance(data, bool):
            return f"write {int(data)}"
        if kind == "str" and isinstance(data, (bool, int, float)):
            return "put it in quotes"
        if kind == "tuple" and isinstance(data, (str, int, float)):
            return f"write [{show(str(data))}]"
        return ""


def _range(node: Any) -> str:
    if "ge" in node and "le" in node:
        return f" from {node['ge']} to {node['le']}"
    if "ge" in node:
        return f" of at least {node['ge']}"
    return f" of at most {node['le']}" if "le" in node else ""


def _length(node: Any, of: str) -> str:
    if "min_length" in node and "max_length" in node:
        return f" of {node['min_length']} to {node['max_length']} {of}"
    if "min_length" in node:
        return f" of at least {node['min_length']} {of}"
    return f" of at most {node['max_length']} {of}" if "max_length" in node else ""


def _nearest(name: str, names: Iterable[str], likeness: float) -> str:
    """Return the one of ``names`` that looks most like ``name``, or nothing."""
    from difflib import get_close_matches

    return "".join(get_close_matches(name[:64], list(names), n=1, cutoff=likeness))


def _instead(fields: Iterable[str], data: Any) -> str:
    free = [key for key in fields if key not in data]
    return f"expected {_listed(free)}" if free else "nothing more is expected here"
