# SPDX-License-Identifier: Apache-2.0
"""The fields of a profile, for manuals: what the shipped JSON Schema says of each. Pure.

The pages that people read are made from it, so none can say other than ``check``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dsatier.facts.knobs import ENGINES, KNOBS

REQUIRED = "required"
UNNAMED = "not touched"
ANYTHING = "anything"
"""What stands in ``Field.default`` where there is no value."""

TOLD = {
    "tiers.fast_node": "0, where slow_node is named",
    "tiers.slow_node": "1, where fast_node is named",
    "tiers.nodes.fast": "auto",
    "tiers.nodes.slow": "auto",
    "tiers.nodes.near": "by distance",
    "tiers.nodes.hbm": "as the host tells",
    "tiers.online.nodes": "auto",
}
"""What stands for a field that is not named, where the schema has no default."""

ELSEWHERE = {
    "engine.work_queues.file": "/sys/bus/dsa/devices, by accel-config",
    "engine.work_queues.devices": "/sys/bus/dsa/devices, by accel-config",
    "engine.work_queues.iommu": "/sys/kernel/iommu_groups/N/type",
    "tiers.online.nodes": "/sys/devices/system/memory/memoryN/state",
    "tiers.online.zone": "/sys/devices/system/memory/memoryN/state",
    "tiers.cpuless": "/sys/devices/system/cpu/cpuN/online",
    "tiering.swap": "/proc/swaps, by swapon and swapoff",
}
"""What a field stands for in the kernel, where that is not one knob of its name."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the profile."""

    path: str
    """As in ``engine.limit_chans``."""
    takes: str
    """Type and range, in words."""
    default: str
    """In words: ``required``, ``not touched``, ``anything``, or the value itself."""
    kernel: str
    """The file or knobs behind it, empty where there is none."""
    kernel_default: str
    """What the kernel has at boot, empty where there is no one number."""
    text: str


@dataclass(frozen=True, slots=True)
class Section:
    """Fields that stand together, under a heading such as ``engine, kind: dsa``."""

    title: str
    text: str
    fields: tuple[Field, ...]


def sections(schema: dict[str, Any]) -> tuple[Section, ...]:
    """Return the fields of a profile's JSON Schema, mapping by mapping, in its order."""
    return tuple(_sections(schema, schema, "", ""))


def _sections(
    part: dict[str, Any], whole: dict[str, Any], path: str, form: str
) -> Iterator[Section]:
    title = f"{path}, {form}" if form else path or "the file"
    inner: list[Section] = []
    found = []
    for name, value in part["properties"].items():
        at = f"{path}.{name}" if path else name
        mappings = tuple(_mappings(value, whole))
        if not mappings:
            needed = name in part.get("required", ())
            found.append(_field(at, value, required=needed))
        for mapping in mappings:
            inner += _sections(mapping, whole, at, _form(mapping, len(mappings)))
    if found:
        yield Section(title, part.get("description", ""), tuple(found))
    yield from inner


def _mappings(value: dict[str, Any], whole: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the mappings that a value may be."""
    if "$ref" in value:
        yield whole["$defs"][value["$ref"].rpartition("/")[2]]
    for option in (*value.get("anyOf", ()), *value.get("oneOf", ())):
        yield from _mappings(option, whole)


def _form(mapping: dict[str, Any], of: int) -> str:
    """Return what tells a mapping from the others that may stand in its place."""
    if of == 1:
        return ""
    kind = mapping["properties"].get("kind", {}).get("const")
    return f"kind: {kind}" if kind else f"with {mapping['required'][0]}"


def _field(path: str, value: dict[str, Any], *, required: bool) -> Field:
    name = path.rpartition(".")[2]
    knob = next((one for one in KNOBS.values() if one.name == name), None)
    nothing = ANYTHING if path.startswith("match.") else UNNAMED
    default = value.get("default")
    if required:
        words = REQUIRED
    elif path.endswith("work_queues.size"):
        words = "all, shared evenly"
    elif path in TOLD:
        words = TOLD[path]
    else:
        words = nothing if default is None else _plain(default)
    return Field(
        path=path,
        takes=_takes(value),
        default=words,
        kernel=knob.path if knob else _kernel(path, value),
        kernel_default=str(knob.named(knob.default)) if knob else "",
        text=" ".join(value.get("description", "").split()),
    )


def _kernel(path: str, value: dict[str, Any]) -> str:
    if path == "engine.kind":
        return ", ".join(f"{knob} {number}" for knob, number in ENGINES[value["const"]].items())
    return ELSEWHERE.get(path, "")


_EACH = {"integer": "whole numbers", "string": "texts"}


def _takes(value: dict[str, Any]) -> str:
    """Return type and range of a value that is no mapping, in words."""
    options = [o for o in value.get("anyOf", ()) if o.get("type") != "null"]
    if options:
        return ", or ".join(map(_takes, options))
    if "const" in value:
        return _plain(value["const"])
    if "enum" in value:
        return " or ".join(map(_plain, value["enum"]))
    match value["type"]:
        case "boolean":
            return "true or false"
        case "integer":
            return f"a whole number, {value['minimum']} to {value['maximum']}"
        case "number":
            return f"a number, {value['minimum']} to {value['maximum']}"
        case "string":
            return f"a text of {value['minLength']} to {value['maxLength']} characters"
        case "array":
            items = value["items"]
            each = _takes(items) if "enum" in items else _EACH[items["type"]]
            return f"a list of {value.get('minItems', 0)} to {value['maxItems']}: {each}"
    raise ValueError(f"expected a type that the profile has, found {value}")


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
