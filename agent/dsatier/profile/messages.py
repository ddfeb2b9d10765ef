# SPDX-License-Identifier: Apache-2.0
"""What pydantic's errors mean to the person who wrote the text.

What was expected is derived from the JSON Schema at the error's place, and what was
found from the data there, so that an error needs no wording of its own. Only
absent and unknown keys and unions do: their errors are gathered here into what
the person most likely meant.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from dsatier.base.problem import Problem, show

if TYPE_CHECKING:
    from dsatier.profile.schema import Locate, Path

MAX_PROBLEMS = 100

ABSENT = frozenset(("missing",))
UNKNOWN = frozenset(("unexpected_keyword_argument",))
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


def problems(schema: Any, data: Any, errors: Iterable[Any], locate: Locate | None) -> list[Problem]:
    """Return ``errors`` that pydantic found in ``data`` as problems, sorted by place."""
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
        self.schema = schema
        self.locate = locate

    def bare(self, node: Any) -> Any:
        """Return what a node stands for: what it refers to, and what it is but null."""
        if "$ref" in node:
            return self.bare(self.schema["$defs"][node["$ref"].rpartition("/")[2]])
        if "anyOf" in node:
            choices = [one for one in node["anyOf"] if one.get("type") != "null"]
            return self.bare(choices[0]) if len(choices) == 1 else {"anyOf": choices}
        return node

    def sift(
        self, node: Any, data: Any, path: Path, errors: list[tuple[tuple[Any, ...], dict[str, Any]]]
    ) -> list[Problem]:
        """Return the problems of ``data`` at ``path``. Each error's place is relative to it."""
        if not errors:
            return []
        node = self.bare(node)
        kind = _kind(node)
        if kind == "union":
            chosen = self.choose(node, data)
            if chosen is None:
                return [self.value(node, data, path)]
            # every choice has failed, in order, under a name of pydantic's
            name = list(dict.fromkeys(loc[0] for loc, _ in errors))[chosen]
            inner = [(loc[1:], error) for loc, error in errors if loc[0] == name]
            return self.sift(node["anyOf"][chosen], data, path, inner)
        told = [self.value(node, data, path, error) for loc, error in errors if not loc][:1]
        if kind == "array" and len(told) < len(errors):
            told = []  # pydantic counts only the items that are right
        beneath: dict[Any, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {}
        for loc, error in errors:
            if loc:
                beneath.setdefault(loc[0], []).append((loc[1:], error))
        for part, inner in beneath.items():
            what = inner[0][1]["type"] if not inner[0][0] else ""
            if kind == "tagged":
                told += self.sift(_tags(node)[part], data, path, inner)
            elif what in ABSENT:
                told.append(self.absent(node, part, path))
            elif what in UNKNOWN:
                told.append(self.unknown(node, part, data, path, len(told) < MAX_PROBLEMS))
            elif kind == "object" and inner[0][0] == ("[key]",):
                told.append(self.value(node["propertyNames"], part, (*path, part)))
            else:
                value = data[part] if isinstance(data, (dict, list)) else None
                told += self.sift(_child(node, part), value, (*path, part), inner)
        return told

    def choose(self, node: Any, data: Any) -> int | None:
        """Return which choice of a union the person meant, None if that is not clear."""
        fit = []
        for index, choice in enumerate(node["anyOf"]):
            bare = self.bare(choice)
            kind = _kind(bare)
            shape = _SHAPES.get(kind)
            if not shape or not isinstance(data, shape):
                continue
            if isinstance(data, bool) == (kind == "boolean"):  # a bool is no int here
                keys = len(bare["properties"].keys() & data) if kind == "fields" else 0
                fit.append((keys, index))
        fit.sort(reverse=True)
        if len(fit) > 1 and fit[0][0] == fit[1][0]:
            return None
        return fit[0][1] if fit else None

    def value(
        self, node: Any, data: Any, path: Path, error: dict[str, Any] | None = None
    ) -> Problem:
        """Say that the value at ``path`` is not what ``node`` asks for."""
        if _kind(node) == "tagged" and isinstance(data, dict):
            key = _key(node)
            path, tags = (*path, key), _listed(_tags(node))
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
        expected = self.expected(node["properties"][name])
        hint = f"add '{name}: {expected if expected.isdigit() else '...'}'"
        return Problem(*self.locate(path, True), (*path, name), expected, "nothing", hint)

    def unknown(self, node: Any, name: str, data: Any, path: Path, search: bool) -> Problem:
        """Say that a key is unknown, and which one was meant."""
        fields = node["properties"]
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
            kind = _kind(node)
            if kind == "fields":
                for key, field in node["properties"].items():
                    if key == name:
                        places.append(path or "the top level")
                    visit(field, f"{path}.{key}" if path else key, seen)
            elif kind == "tagged":
                for tag, choice in _tags(node).items():
                    visit(choice, f"{path} with {_key(node)}: {tag}", seen)
            elif kind == "union":
                for choice in node["anyOf"]:
                    visit(choice, path, seen)

        visit(self.schema, "", ())
        return list(dict.fromkeys(places))[:3]

    def expected(self, node: Any) -> str:
        """Say what ``node`` asks for."""
        node = self.bare(node)
        kind = _kind(node)
        if kind == "integer":
            return f"an integer{_range(node)}"
        if kind == "number":
            return f"a number{_range(node)}"
        if kind == "boolean":
            return "true or false"
        if kind == "string":
            return f"text{_limits(node, 'Length', 'characters')}"
        if kind == "literal":
            return _listed(map(str, _literals(node)))
        if kind == "array":
            items = {self.expected(item) for item in _items(node)}
            each = f", each {_listed(sorted(items))}" if items else ""
            return f"a list{_limits(node, 'Items', 'items')}{each}"
        if kind == "union":
            return _listed(dict.fromkeys(self.expected(choice) for choice in node["anyOf"]))
        if kind == "tagged":
            return f"a mapping with {_key(node)} {_listed(_tags(node))}"
        if kind == "fields":
            if needed := node.get("required"):
                return f"a mapping with {_listed(needed, 'and')}"
            return f"a mapping of {_listed(node['properties'])}"
        return "a mapping" if kind == "object" else "a value"

    def hint(self, node: Any, data: Any) -> str:
        """Say what to write instead, where that is plain."""
        kind = _kind(node)
        if kind == "boolean" and isinstance(data, str) and data.lower() in _SPELLED:
            return f"write {_SPELLED[data.lower()]}"
        if kind == "literal" and isinstance(data, bool):
            word = "on" if data else "off"
            return f"write {word}" if word in _literals(node) else ""
        if kind in ("integer", "number", "literal") and isinstance(data, str):
            numbers = kind != "literal" or any(isinstance(e, int) for e in _literals(node))
            if numbers and data.removeprefix("-").replace(".", "", 1).isdigit():
                return "leave the quotes out"
        if kind == "integer" and isinstance(data, float) and data.is_integer():
            return f"write {int(data)}"
        if kind == "integer" and isinstance(data, bool):
            return f"write {int(data)}"
        if kind == "string" and isinstance(data, (bool, int, float)):
            return "put it in quotes"
        if kind == "array" and isinstance(data, (str, int, float)):
            return f"write [{show(str(data))}]"
        return ""


_SHAPES: dict[str, Any] = {
    "fields": dict,
    "tagged": dict,
    "object": dict,
    "array": list,
    "integer": int,
    "number": (int, float),
    "string": str,
    "boolean": bool,
}
"""What data of a kind looks like."""


def _kind(node: Any) -> str:
    """Return what kind of node one of a JSON Schema is that is bare."""
    for key, kind in (
        *(("discriminator", "tagged"), ("anyOf", "union"), ("properties", "fields")),
        *(("enum", "literal"), ("const", "literal")),
    ):
        if key in node:
            return kind
    kind = node.get("type", "")
    return str(kind)


def _literals(node: Any) -> list[Any]:
    return [node["const"]] if "const" in node else list(node["enum"])


def _key(node: Any) -> str:
    """Return the key by which the choices of a tagged node are distinguished."""
    return str(node["discriminator"]["propertyName"])


def _tags(node: Any) -> dict[str, Any]:
    """Return the choices of a tagged node by tag, in the order of the union."""
    tags = {ref: tag for tag, ref in node["discriminator"]["mapping"].items()}
    return {tags[one["$ref"]]: one for one in node["oneOf"]}


def _items(node: Any) -> list[Any]:
    if "prefixItems" in node:
        return list(node["prefixItems"])
    return [node["items"]] if "items" in node else []


def _child(node: Any, part: Any) -> Any:
    """Return the node of one key or item of another."""
    if "properties" in node:
        return node["properties"][part]
    if node["type"] == "object":
        return node["additionalProperties"]
    items = _items(node)
    return items[min(part, len(items) - 1)]


def _range(node: Any) -> str:
    least, most = node.get("minimum"), node.get("maximum")
    if least is not None and most is not None:
        return f" from {least} to {most}"
    if least is not None:
        return f" of at least {least}"
    return "" if most is None else f" of at most {most}"


def _limits(node: Any, what: str, of: str) -> str:
    least, most = node.get(f"min{what}"), node.get(f"max{what}")
    if least is not None and most is not None:
        return f" of {least} to {most} {of}"
    if least is not None:
        return f" of at least {least} {of}"
    return "" if most is None else f" of at most {most} {of}"


def _nearest(name: str, names: Iterable[str], likeness: float) -> str:
    """Return the one of ``names`` that looks most like ``name``, or nothing."""
    from difflib import get_close_matches

    return "".join(get_close_matches(name[:64], list(names), n=1, cutoff=likeness))


def _instead(fields: Iterable[str], data: Any) -> str:
    free = [key for key in fields if key not in data]
    return f"expected {_listed(free)}" if free else "nothing more is expected here"
