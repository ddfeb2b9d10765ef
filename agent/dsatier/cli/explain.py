# SPDX-License-Identifier: Apache-2.0
"""``dsatier explain``: all that is known of one field. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from dsatier.base.text import ranges
from dsatier.facts.classification import pairs, sorts
from dsatier.facts.knobs import KNOBS, knob_named
from dsatier.facts.model import Facts, MemoryDevice
from dsatier.facts.readings import live
from dsatier.facts.tiers import Tiers, cpus
from dsatier.plan.ladder import DESCENTS
from dsatier.plan.model import Desired
from dsatier.plan.planner import descent
from dsatier.plan.tiers import tiers_of
from dsatier.profile.described import described
from dsatier.profile.loaded import Loaded
from dsatier.profile.model import Profile

HOW_FAR = {
    "engine.limit_chans": "limit_chans",
    "engine.work_queues": "queues",
    "engine.kind": "dsa_state off",
    "tiers.cpuless": "cpus online",
}
"""Fields whose change may need a descent, and its row in the ladder's table."""
_OF_TIERS = ("tiers.nodes.fast", "tiers.nodes.slow", "tiers.nodes.hbm")


@dataclass(frozen=True, slots=True)
class Explanation:
    """A field: what it is, what it is worth, where that comes from, and what changing it takes."""

    field: str
    text: str
    effective: Any
    origin: str | None
    """FILE:LINE, None where no file names the field."""
    default: int | str | None
    """The kernel's default."""
    live: int | str | None
    """The live value, None where this kernel has none."""
    change: str

    def __str__(self) -> str:
        effective, source = spelt(self.effective), "-"
        if self.origin is None and self.effective is None:
            effective = "not named, so not touched"
        elif self.origin is None and not isinstance(self.effective, dict):
            source = "dsatier's default"
        return "\n".join(
            (
                f"{self.field}: {self.text}",
                f"  effective       {effective}",
                f"  from            {self.origin or source}",
                f"  kernel default  {'-' if self.default is None else self.default}",
                f"  live            {'-' if self.live is None else self.live}",
                f"  to change it    {self.change}",
            )
        )


@cache
def fields() -> dict[str, str]:
    """Return every field of a profile with what it is, from the JSON Schema."""
    whole = described(Profile)
    return dict(_walk(whole, whole, ""))


@cache
def defaults() -> dict[str, Any]:
    """Return the value of every field that has one where no file names it."""
    whole = described(Profile)
    return {
        f"drift.{name}": inner["default"]
        for name, inner in whole["$defs"]["DriftPolicy"]["properties"].items()
    }


def spelt(value: Any) -> str:
    """Return a value as a profile spells it.

    >>> spelt(True), spelt("off"), spelt(60.0)
    ('true', 'off', '60.0')
    """
    return value if isinstance(value, str) else json.dumps(value)


def _walk(part: dict[str, Any], whole: dict[str, Any], path: str) -> Iterator[tuple[str, str]]:
    if "$ref" in part:
        part = {**whole["$defs"][part["$ref"].rpartition("/")[2]], **part}
    for name, inner in part.get("properties", {}).items():
        inside = f"{path}.{name}" if path else name
        yield inside, inner.get("description", "")
        yield from _walk(inner, whole, inside)
    for option in (*part.get("anyOf", ()), *part.get("oneOf", ())):
        yield from _walk(option, whole, path)


def explain(field: str, loaded: Loaded, facts: Facts) -> Explanation:
    """Explain a field of the profile, as in ``engine.limit_chans``. Raises KeyError."""
    text = fields()[field]
    name = field.rpartition(".")[2]
    origin, value = loaded.origins.get(field), _value(loaded.data, field)
    return Explanation(
        field=field,
        text=text,
        effective=defaults().get(field) if value is None else value,
        origin=f"{origin.file}:{origin.line}" if origin else None,
        default=_spelt(name, KNOBS[name].default) if name in KNOBS else None,
        live=_live(field, name, facts, tiers_of(loaded.profile, facts)),
        change=_change(field, name, facts),
    )


def _value(data: dict[str, Any], field: str) -> Any:
    found: Any = data
    for key in field.split("."):
        found = found.get(key) if isinstance(found, dict) else None
    return found


def _live(field: str, name: str, facts: Facts, tiers: Tiers) -> int | str | None:
    if name in KNOBS:
        return _spelt(name, live(facts, name))
    if field == "engine.kind":
        if live(facts, "use_dsa_copy_pages"):
            return "dsa"
        return "multithread" if live(facts, "cpu_multi_copy_pages") else "cpu"
    if field == "tiers.cpuless":
        slow = tiers.slow_of(facts)
        return str(not cpus(slow)).lower() if slow else None
    if field in _OF_TIERS:
        return ranges(getattr(tiers, name)) or "none"
    if field == "tiers.nodes":
        return "; ".join(f"node {s.node} {s.kind}: {s.why}" for s in sorts(facts))
    if field == "tiers.nodes.near":
        found = pairs(facts, tiers.fast, tiers.slow)
        return ", ".join(f"{p.slow} near {p.near}: {p.why}" for p in found) or "none"
    if field == "engine.work_queues.iommu":
        groups = {device.id: device.group for device in facts.devices}
        return ", ".join(f"{name} {group.type}" for name, group in groups.items() if group) or None
    if field in ("tiers.online", "tiers.online.nodes"):
        return "; ".join(map(_online, facts.memory_devices)) or "no device brings memory"
    if field == "tiering.swap":
        return "on" if facts.swaps else "off"
    return None


def _online(device: MemoryDevice) -> str:
    """Return how much of a device's memory is online."""
    here = f"node {device.target_node}, {device.id}"
    if device.blocks is None:
        return f"{here}: {device.driver or 'no driver'} has it"
    whole = len(device.blocks.all)
    return f"{here}: {whole - len(device.blocks.offline)} of {whole} memory blocks online"


def _spelt(name: str, value: int | None) -> int | str | None:
    """Return a knob's value as a profile spells it."""
    knob = knob_named(name)
    return value if knob is None or value is None else knob.named(value)


def _change(field: str, name: str, facts: Facts) -> str:
    whole = "engine.work_queues"
    named = whole if field.startswith(f"{whole}.") else field
    row = next((r for r in DESCENTS if r[0] == HOW_FAR.get(named)), None)
    if row is None:
        if name in KNOBS:
            return "any time: the host need not come down"
        return "any time" if not field.startswith("match") else "any time, by another file"
    _, rung, why = row
    probe = _probe(name, facts)
    now = (
        ""
        if probe is None
        else ("; now it need not come down" if descent(facts, probe) is None else "; now it would")
    )
    return f"the host comes down to rung '{rung}' ({why}){now}"


def _probe(name: str, facts: Facts) -> Desired | None:
    """Return a desired state that changes only this field, where one number can stand for it."""
    if name not in KNOBS:
        return None
    found = live(facts, name)
    if found is None:
        return None
    other = 4 if found != 4 else 8
    return Desired(knobs={name: other})
