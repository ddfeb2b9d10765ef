# SPDX-License-Identifier: Apache-2.0
"""The JSON file that accel-config loads work queues from: written, and read with every mistake.

accel-config takes a wrong file for a right one. It ignores keys that it does not know,
reads each object in the order of its keys, aborts on a top-level object and exits 0 after
many a failure. So a file is validated here, and what accel-config gets is always text
that this module wrote. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from dsatier.base.problem import Invalid, Problem, show
from dsatier.base.text import natural
from dsatier.queues.config import (
    DRIVERS,
    DeviceConfig,
    EngineConfig,
    GroupConfig,
    QueueConfig,
    number_of,
)
from dsatier.queues.json_places import Member, Value
from dsatier.queues.json_places import parse as parse_json

LARGEST_FILE = 1 << 20


def text(configs: tuple[DeviceConfig, ...]) -> str:
    """Return JSON that accel-config 3.5.3, and 4.1.6 and later, load as it is meant.

    The order of the keys matters: ``dev`` first, size and mode before threshold, type
    before name, for a change of type clears the name.
    """
    return json.dumps([_device_json(config) for config in configs], indent=1) + "\n"


def _device_json(config: DeviceConfig) -> dict[str, Any]:
    number = config.id.removeprefix("dsa")
    settings = {group.id: group for group in config.groups}
    used = {engine.group for engine in config.engines} | {queue.group for queue in config.queues}
    groups = sorted({f"group{number}.{group}" for group in used} | set(settings), key=natural)
    device: dict[str, Any] = {"dev": config.id}
    if config.read_buffer_limit is not None:
        device["read_buffer_limit"] = config.read_buffer_limit
    if config.event_log_size is not None:
        device["event_log_size"] = config.event_log_size
    device["groups"] = [_group_json(config, name, settings.get(name)) for name in groups]
    return device


def _group_json(config: DeviceConfig, name: str, settings: GroupConfig | None) -> dict[str, Any]:
    group: dict[str, Any] = {"dev": name}
    if settings is not None:
        group |= _named(dict(list(asdict(settings).items())[1:]))
    number = number_of(name)
    queues = [_queue_json(queue) for queue in config.queues if queue.group == number]
    if queues:
        group["grouped_workqueues"] = queues
    engines = [
        {"dev": engine.id, "group_id": number}
        for engine in config.engines
        if engine.group == number
    ]
    if engines:
        group["grouped_engines"] = engines
    return group


def _queue_json(queue: QueueConfig) -> dict[str, Any]:
    blocking = None if queue.block_on_fault is None else int(queue.block_on_fault)
    ats = None if queue.ats_disable is None else int(queue.ats_disable)
    prs = None if queue.prs_disable is None else int(queue.prs_disable)
    return _named(
        {
            "dev": queue.id,
            "mode": queue.mode,
            "size": queue.size,
            "group_id": queue.group,
            "priority": queue.priority,
            "block_on_fault": blocking,
            "max_batch_size": queue.max_batch_size,
            "max_transfer_size": queue.max_transfer_size,
            "type": queue.type,
            "driver_name": queue.driver_name,
            "name": queue.name,
            "threshold": queue.threshold,
            "prs_disable": prs,
            "ats_disable": ats,
            "op_config": queue.op_config,
        }
    )


def _named(members: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in members.items() if value is not None}


def parse(text: str, path: str) -> tuple[DeviceConfig, ...]:
    """Return what an accel-config JSON file asks for.

    Raises Invalid with every mistake of a whole JSON text, or with the first one in its
    syntax. ``path`` is the file's name in messages.
    """
    if len(text) > LARGEST_FILE:
        found = f"{len(text)} characters"
        raise Invalid([Problem(path, 0, 0, (), f"at most {LARGEST_FILE} characters", found)])
    reader = _FileReader(path)
    configs = reader.devices(parse_json(text, path))
    if reader.problems:
        raise Invalid(sorted(reader.problems, key=Problem.place))
    return configs


_Path = tuple[str | int, ...]
_Check = Callable[["_FileReader", Value, _Path], Any]

_READ_ONLY = {
    "device": frozenset(
        {
            *("max_groups", "max_work_queues", "max_engines", "work_queue_size", "numa_node"),
            *("errors", "op_cap", "gen_cap", "version", "state", "max_read_buffers", "ims_size"),
            *("max_tokens", "max_batch_size", "max_transfer_size", "configurable"),
            *("pasid_enabled", "cdev_major", "clients", "cmd_status", "iaa_cap"),
        }
    ),
    "group": frozenset(),
    "engine": frozenset(),
    "work queue": frozenset({"cdev_minor", "clients", "occupancy", "state", "errors"}),
}
"""What `accel-config list` shows of each object and nobody can set: passed over, as it does."""
_NONE = -2
"""What accel-config saves for an attribute that the driver does not have (-ENOENT)."""
_RENAMED = {
    "token_limit": "read_buffer_limit",
    "tokens_reserved": "read_buffers_reserved",
    "tokens_allowed": "read_buffers_allowed",
    "use_token_limit": "use_read_buffer_limit",
}


def _whole(low: int, high: int) -> _Check:
    def check(reader: _FileReader, value: Value, path: _Path) -> Any:
        if value.kind == "number" and isinstance(value.data, int) and low <= value.data <= high:
            return value.data
        return reader.wrong(value, path, f"a whole number from {low} to {high}")

    return check


def _flag(reader: _FileReader, value: Value, path: _Path) -> Any:
    if value.kind == "number" and value.data in (0, 1) and isinstance(value.data, int):
        return bool(value.data)
    return reader.wrong(value, path, "0 or 1")


def _flag_or_none(reader: _FileReader, value: Value, path: _Path) -> Any:
    return None if value.data == _NONE else _flag(reader, value, path)


def _one_of(*words: str) -> _Check:
    def check(reader: _FileReader, value: Value, path: _Path) -> Any:
        return value.data if value.data in words else reader.wrong(value, path, " or ".join(words))

    return check


def _word(reader: _FileReader, value: Value, path: _Path) -> Any:
    if value.kind == "string" and re.fullmatch(r"[!-~]{1,64}", str(value.data)):
        return value.data
    return reader.wrong(value, path, "1 to 64 printable ASCII characters without spaces")


def _operations(reader: _FileReader, value: Value, path: _Path) -> Any:
    if value.kind == "string" and re.fullmatch(
        r"[0-9a-f]{1,8}(,[0-9a-f]{1,8}){0,7}", str(value.data)
    ):
        return value.data
    return reader.wrong(value, path, "up to eight words of 32 bits in hexadecimal, with commas")


def _id(pattern: str, example: str) -> _Check:
    def check(reader: _FileReader, value: Value, path: _Path) -> Any:
        if value.kind == "string" and re.fullmatch(pattern, str(value.data)):
            return value.data
        return reader.wrong(value, path, f"a name such as {example}")

    return check


def _list(reader: _FileReader, value: Value, path: _Path) -> Any:
    if value.kind == "array" and value.data:
        return value
    return reader.wrong(value, path, "an array that is not empty")


_DEVICE: dict[str, _Check] = {
    "dev": _id(r"dsa\d{1,4}", "dsa0"),
    "read_buffer_limit": _whole(0, 255),
    "event_log_size": _whole(0, 65535),
    "groups": _list,
}
_GROUP: dict[str, _Check] = {
    "dev": _id(r"group\d{1,4}\.\d{1,3}", "group0.0"),
    "read_buffers_reserved": _whole(0, 255),
    "use_read_buffer_limit": _whole(0, 1),
    "read_buffers_allowed": _whole(0, 255),
    "traffic_class_a": _whole(0, 7),
    "traffic_class_b": _whole(0, 7),
    "desc_progress_limit": _whole(0, 3),
    "batch_progress_limit": _whole(0, 3),
    "grouped_workqueues": _list,
    "grouped_engines": _list,
}
_ENGINE: dict[str, _Check] = {
    "dev": _id(r"engine\d{1,4}\.\d{1,3}", "engine0.0"),
    "group_id": _whole(0, 255),
}
_QUEUE: dict[str, _Check] = {
    "dev": _id(r"wq\d{1,4}\.\d{1,3}", "wq0.0"),
    "mode": _one_of("dedicated", "shared"),
    "size": _whole(1, 1024),
    "group_id": _whole(0, 255),
    "priority": _whole(0, 15),
    "block_on_fault": _flag,
    "type": _one_of("kernel", "user"),
    "name": _word,
    "driver_name": _word,
    "max_batch_size": _whole(1, 1 << 16),
    "max_transfer_size": _whole(1, 1 << 40),
    "threshold": _whole(0, 1024),
    "prs_disable": _flag_or_none,
    "ats_disable": _flag_or_none,
    "op_config": _operations,
}
_QUEUE_NEEDS = ("mode", "size", "group_id", "type", "name")
_AFTER = (("name", "type"), ("threshold", "mode"), ("threshold", "size"))
"""accel-config writes in the order of the keys, and the driver minds it."""


class _FileReader:
    """Turns values into configurations and gathers what is wrong with them."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []

    def wrong(self, value: Value | Member, path: _Path, expected: str, hint: str = "") -> None:
        found = _shown(value) if isinstance(value, Value) else "it"
        problem = Problem(self.file, value.line, value.column, path, expected, found, hint)
        self.problems.append(problem)

    def say(self, value: Value | Member, path: _Path, wording: str) -> None:
        place = (self.file, value.line, value.column, path)
        self.problems.append(Problem(*place, "", "", wording=wording))

    def object(
        self, value: Value, path: _Path, keys: dict[str, _Check], kind: str
    ) -> dict[str, Any] | None:
        """Return the members of an object that are right, None where it is no object."""
        if value.kind != "object":
            self.wrong(value, path, "an object")
            return None
        members: tuple[Member, ...] = value.data  # type: ignore[assignment]
        if not members or members[0].key != "dev":
            where = members[0] if members else value
            self.say(where, path, "expected dev as the first key; accel-config reads in order")
        found: dict[str, Any] = {}
        nested = ""
        for member in members:
            if member.key in _READ_ONLY[kind]:
                continue
            place = (*path, member.key)
            if member.value.kind == "array":
                nested = member.key
            elif nested:
                self.say(member, place, f"expected it before {nested}; accel-config reads in order")
            key = _RENAMED.get(member.key, member.key)
            if key in found:
                self.say(member, place, f"expected {key} once, found it again")
            elif key in keys:
                found[key] = keys[key](self, member.value, place)
            else:
                self.say(member, place, _unknown(member.key, keys))
        if "dev" not in found:
            return None
        return {key: value for key, value in found.items() if value is not None}

    def each(self, parts: dict[str, Any], key: str, path: _Path) -> Iterator[tuple[_Path, Value]]:
        if key in parts:
            for index, value in enumerate(parts[key].data):
                yield (*path, key, index), value

    def devices(self, value: Value) -> tuple[DeviceConfig, ...]:
        if value.kind != "array" or not value.data:
            self.wrong(value, (), "an array of devices at the top level")
            return ()
        configs: list[DeviceConfig] = []
        for index, item in enumerate(value.data):  # type: ignore[arg-type]
            config = self.device(item, (index,))  # type: ignore[arg-type]
            if config is not None:
                if config.id in {c.id for c in configs}:
                    self.say(item, (index,), f"expected each device once, found {config.id} again")  # type: ignore[arg-type]
                configs.append(config)
        return tuple(configs)

    def device(self, value: Value, path: _Path) -> DeviceConfig | None:
        parts = self.object(value, path, _DEVICE, "device")
        if parts is None or "dev" not in parts:
            return None
        before = len(self.problems)
        number = parts["dev"].removeprefix("dsa")
        groups: list[GroupConfig] = []
        queues: list[QueueConfig] = []
        engines: list[EngineConfig] = []
        seen: set[str] = set()
        for place, item in self.each(parts, "groups", path):
            group = self.object(item, place, _GROUP, "group")
            if group is None or not self.belongs(group, item, place, number, seen):
                continue
            own = group["dev"].partition(".")[2]
            for spot, entry in self.each(group, "grouped_workqueues", place):
                queue = self.queue(entry, spot, number, int(own), seen)
                queues += [queue] if queue else []
            for spot, entry in self.each(group, "grouped_engines", place):
                engine = self.object(entry, spot, _ENGINE, "engine")
                if engine and self.belongs(engine, entry, spot, number, seen):
                    self.same_group(engine, entry, spot, int(own))
                    engines.append(EngineConfig(engine["dev"], int(own)))
            settings = {
                key: setting for key, setting in group.items() if not key.startswith("grouped_")
            }
            groups += [GroupConfig(settings.pop("dev"), **settings)] if len(settings) > 1 else []
        whole = len(self.problems) == before
        for what, parts_found in (("a work queue", queues), ("an engine", engines)):
            if whole and not parts_found:
                wording = f"expected {what}; a device without one cannot be enabled"
                self.say(value, path, wording)
        return DeviceConfig(
            *(parts["dev"], tuple(engines), tuple(queues), tuple(groups)),
            read_buffer_limit=parts.get("read_buffer_limit"),
            event_log_size=parts.get("event_log_size"),
        )

    def belongs(
        self, parts: dict[str, Any], value: Value, path: _Path, number: str, seen: set[str]
    ) -> bool:
        """Check that a part is one of this device's, and the first of its name."""
        name = parts.get("dev")
        if name is None:
            return False
        own = re.sub(r"^[a-z]+", "", name).partition(".")[0]
        if own != number:
            self.say(value, (*path, "dev"), f"expected a part of dsa{number}, found {name}")
        elif name in seen:
            self.say(value, (*path, "dev"), f"expected each part once, found {name} again")
        else:
            seen.add(name)
            return True
        return False

    def same_group(self, parts: dict[str, Any], value: Value, path: _Path, group: int) -> bool:
        found = parts.get("group_id")
        if found == group:
            return True
        what = "none" if found is None else str(found)
        self.say(value, (*path, "group_id"), f"expected {group}, the group it is in, found {what}")
        return False

    def queue(
        self, value: Value, path: _Path, number: str, group: int, seen: set[str]
    ) -> QueueConfig | None:
        before = len(self.problems)
        parts = self.object(value, path, _QUEUE, "work queue")
        if parts is None or not self.belongs(parts, value, path, number, seen):
            return None
        order = [member.key for member in value.data]  # type: ignore[union-attr]
        for later, earlier in _AFTER:
            if later in order and earlier in order and order.index(later) < order.index(earlier):
                self.say(value, (*path, later), f"expected it after {earlier}, found it before")
        for key in _QUEUE_NEEDS:
            if key not in order:
                self.say(value, path, f"expected {key}, found none")
        if "group_id" in order:
            self.same_group(parts, value, path, group)
        self._threshold(parts, value, path)
        driver = DRIVERS.get(parts.get("type", ""))
        if driver is not None and parts.get("driver_name", driver) != driver:
            wording = f"expected {driver} for a {parts['type']} queue, found {parts['driver_name']}"
            self.say(value, (*path, "driver_name"), wording)
        if len(self.problems) > before:
            return None
        parts["group"] = parts.pop("group_id")
        return QueueConfig(id=parts.pop("dev"), **parts)

    def _threshold(self, parts: dict[str, Any], value: Value, path: _Path) -> None:
        if "mode" not in parts or "size" not in parts:
            return
        threshold = parts.get("threshold")
        if parts["mode"] == "dedicated":
            # accel-config itself saves a 0 there, and does not write it
            if threshold:
                self.say(value, (*path, "threshold"), "expected none on a dedicated queue")
            parts.pop("threshold", None)
        elif threshold is None or not 1 <= threshold <= parts["size"]:
            found = "none" if threshold is None else str(threshold)
            wording = f"expected 1 to {parts['size']}, its size, on a shared queue, found {found}"
            self.say(value, (*path, "threshold"), wording)


def _shown(value: Value) -> str:
    if value.kind in ("object", "array"):
        filled = "" if value.data else "an empty "
        return f"{filled}{value.kind}" if filled else f"an {value.kind}"
    return show(json.dumps(value.data))


def _unknown(key: str, keys: dict[str, _Check]) -> str:
    from difflib import get_close_matches  # few files have a wrong key

    near = get_close_matches(key, keys, 1)
    hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(keys)}"
    return f"unknown key, which accel-config ignores{hint}"
