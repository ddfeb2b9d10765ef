# SPDX-License-Identifier: Apache-2.0
"""The merge of profiles: the later one wins, mapping by mapping, with the origin of each value.

Mappings are merged; lists and scalars replace. A null takes back what earlier
files named. A mapping whose form changes (the engine's kind, work queues from
a file or in short) replaces the earlier one: forms must not mix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from. Line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Layer:
    """Plain data and the origin of each leaf: each scalar, list, null and empty mapping."""

    data: dict[str, Any]
    origins: dict[Path, Origin]

    def at(self, path: Path, key: bool = False) -> tuple[str, int, int]:
        """Return file, line and column of the value at ``path`` or of what stands for it."""
        del key  # of a key no more is known than of its value
        near = path
        while near not in self.origins and near:
            near = near[:-1]
        origin = self.origins.get(near) or next(
            (o for leaf, o in self.origins.items() if leaf[: len(path)] == path), None
        )
        return (origin.file, origin.line, origin.column) if origin else ("", 0, 0)


def layer(data: dict[str, Any], locate: Any) -> Layer:
    """Return ``data`` as a layer. ``locate(path)`` gives file, line and column of a value."""
    return Layer(data, {path: Origin(*locate(path)) for path in leaves(data)})


def leaves(data: Any, path: Path = ()) -> list[Path]:
    """Return the paths of all leaves of ``data``, in order."""
    if isinstance(data, dict) and (data or not path):
        return [leaf for key, value in data.items() for leaf in leaves(value, (*path, key))]
    return [path]


def merge(earlier: Layer, later: Layer) -> Layer:
    """Return ``later`` laid over ``earlier``."""
    data = _merge((), earlier.data, later.data)
    kept = set(leaves(data))
    origins = {path: origin for path, origin in earlier.origins.items() if path in kept}
    # A leaf of the later layer is always one of the result.
    return Layer(data, {path: {**origins, **later.origins}[path] for path in leaves(data)})


def _merge(path: Path, earlier: Any, later: Any) -> Any:
    if (
        not isinstance(earlier, dict)
        or not isinstance(later, dict)
        or _other_form(path, earlier, later)
        or _clash(path, earlier, later)
    ):
        return later
    merged = dict(earlier)
    for key, value in later.items():
        merged[key] = _merge((*path, key), earlier[key], value) if key in earlier else value
    return merged


def _clash(path: Path, earlier: dict[str, Any], later: dict[str, Any]) -> bool:
    """Tell whether tiers are listed in one mapping, and named as a pair in the other."""
    pairs, lists = {"fast_node", "slow_node"}, {"nodes"}
    return path == ("tiers",) and bool(
        (earlier.keys() & pairs and later.keys() & lists)
        or (earlier.keys() & lists and later.keys() & pairs)
    )


def _other_form(path: Path, earlier: dict[str, Any], later: dict[str, Any]) -> bool:
    """Tell whether the later mapping has another form, and so replaces the earlier one."""
    if path == ("engine", "work_queues") and later.keys() == {"iommu"}:
        return False  # both forms have it
    return bool(_form(path, earlier) != _form(path, later))


def _form(path: Path, mapping: dict[str, Any]) -> Any:
    """Return what distinguishes the forms that a mapping can take."""
    if path == ("engine",):
        return mapping.get("kind")
    if path == ("engine", "work_queues"):
        return mapping.get("file") is not None
    return None
