# SPDX-License-Identifier: Apache-2.0
"""Devices and work queues as they are wanted, and how a device differs from that. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from annotated_types import Interval, Len

from dsatier.base.fields import STRICT
from dsatier.facts.model import DsaDevice, WorkQueue

DRIVER = "dmaengine"
"""The idxd driver that makes a queue a DMA channel."""
DRIVERS = {"kernel": DRIVER, "user": "user"}
"""The idxd driver that a queue of each type is bound to."""
NAME = "dmaengine"
PRIORITY = 10

Small = Annotated[int, Interval(ge=0, le=255)]


@dataclass(frozen=True, slots=True)
class QueueConfig:
    """A work queue as it is wanted. What is None is left as the driver has it."""

    __pydantic_config__ = STRICT

    id: Annotated[str, Len(5, 16)]
    """As in ``wq0.1``."""
    group: Small
    size: Annotated[int, Interval(ge=1, le=1024)]
    """Entries."""
    type: Literal["kernel", "user"] = "kernel"
    mode: Literal["dedicated", "shared"] = "dedicated"
    name: Annotated[str, Len(1, 64)] = NAME
    driver_name: Annotated[str, Len(1, 64)] | None = None
    """None where the driver has no such attribute."""
    priority: Annotated[int, Interval(ge=0, le=15)] = PRIORITY
    threshold: Annotated[int, Interval(ge=1, le=1024)] | None = None
    """Of a shared queue only."""
    block_on_fault: bool | None = None
    max_batch_size: Annotated[int, Interval(ge=1, le=1 << 16)] | None = None
    max_transfer_size: Annotated[int, Interval(ge=1, le=1 << 40)] | None = None
    """Bytes."""
    ats_disable: bool | None = None
    prs_disable: bool | None = None
    op_config: Annotated[str, Len(1, 128)] | None = None
    """A mask of operations, as words of 32 bits in hexadecimal."""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """The group that an engine is to be in."""

    __pydantic_config__ = STRICT

    id: Annotated[str, Len(9, 20)]
    """As in ``engine0.1``."""
    group: Small


@dataclass(frozen=True, slots=True)
class GroupConfig:
    """What a group is to have in addition to engines and queues. sysfs facts do not show it."""

    __pydantic_config__ = STRICT

    id: Annotated[str, Len(8, 20)]
    """As in ``group0.1``."""
    read_buffers_reserved: Small | None = None
    use_read_buffer_limit: Small | None = None
    read_buffers_allowed: Small | None = None
    traffic_class_a: Annotated[int, Interval(ge=0, le=7)] | None = None
    traffic_class_b: Annotated[int, Interval(ge=0, le=7)] | None = None
    desc_progress_limit: Annotated[int, Interval(ge=0, le=3)] | None = None
    batch_progress_limit: Annotated[int, Interval(ge=0, le=3)] | None = None


@dataclass(frozen=True, slots=True)
class DeviceConfig:
    """A DSA device as it is wanted: enabled, with exactly these queues enabled."""

    __pydantic_config__ = STRICT

    id: Annotated[str, Len(4, 16)]
    """As in ``dsa0``."""
    engines: tuple[EngineConfig, ...]
    queues: tuple[QueueConfig, ...]
    groups: tuple[GroupConfig, ...] = ()
    """The groups that have settings of their own."""
    read_buffer_limit: Small | None = None
    event_log_size: Annotated[int, Interval(ge=0, le=65535)] | None = None
    """Entries. 0 is what accel-config saves of a device without a log."""


def recent(config: DeviceConfig) -> tuple[str, ...]:
    """Return the keys of ``config`` that an accel-config before 4.1 would ignore."""
    queues = [
        key
        for queue in config.queues
        for key in ("prs_disable", "op_config")
        if getattr(queue, key) is not None
    ]
    groups = [
        key
        for group in config.groups
        for key in ("desc_progress_limit", "batch_progress_limit")
        if getattr(group, key) is not None
    ]
    log = [] if config.event_log_size is None else ["event_log_size"]
    return tuple(dict.fromkeys((*log, *groups, *queues)))


def number_of(part: str) -> int:
    """Return the number of a group, engine or queue in its device, -1 for what is no such name."""
    number = part.partition(".")[2]
    return int(number) if number.isascii() and number.isdecimal() and len(number) < 5 else -1


def for_driver(configs: tuple[DeviceConfig, ...], driver_names: bool) -> tuple[DeviceConfig, ...]:
    """Return ``configs`` as this host's idxd takes them.

    An idxd with driver names binds no queue without one, and one without has no such file.
    """
    return tuple(
        replace(
            config,
            queues=tuple(
                replace(queue, driver_name=DRIVERS[queue.type] if driver_names else None)
                for queue in config.queues
            ),
        )
        for config in configs
    )


def captured(device: DsaDevice) -> DeviceConfig:
    """Return the configuration that brings ``device`` back to its enabled queues of now."""
    number = device.id.removeprefix("dsa")
    return DeviceConfig(
        id=device.id,
        engines=tuple(
            EngineConfig(f"engine{number}.{i}", group)
            for i, group in enumerate(device.engines)
            if group >= 0
        ),
        queues=tuple(_captured(queue) for queue in device.queues if queue.state == "enabled"),
    )


def renamed(config: DeviceConfig, name: str) -> DeviceConfig:
    """Return the configuration of a device that goes by another name now, parts and all."""
    number = name.removeprefix("dsa")

    def part(id: str, kind: str) -> str:  # noqa: A002
        return f"{kind}{number}.{id.partition('.')[2]}"

    return replace(
        config,
        id=name,
        engines=tuple(replace(engine, id=part(engine.id, "engine")) for engine in config.engines),
        queues=tuple(replace(queue, id=part(queue.id, "wq")) for queue in config.queues),
        groups=tuple(replace(group, id=part(group.id, "group")) for group in config.groups),
    )


def _captured(queue: WorkQueue) -> QueueConfig:
    shared = queue.mode == "shared"
    return QueueConfig(
        id=queue.id,
        group=max(queue.group, 0),
        size=max(queue.size, 1),
        type="user" if queue.type == "user" else "kernel",
        mode="shared" if shared else "dedicated",
        name=queue.name or queue.id,  # no name can be asked for
        driver_name=queue.driver_name or None,
        priority=queue.priority,
        threshold=queue.threshold if shared and queue.threshold else None,
        block_on_fault=True if queue.block_on_fault else None,
        max_batch_size=queue.max_batch_size,
        max_transfer_size=queue.max_transfer_size,
    )


def excess(config: DeviceConfig, device: DsaDevice) -> tuple[str, ...]:
    """Return what ``config`` asks for that ``device`` does not have."""
    entries = sum(queue.size for queue in config.queues)
    asked = (
        ("engines", len(config.engines), device.max_engines),
        ("work queues", len(config.queues), device.max_queues),
        ("queue entries", entries, device.max_queue_entries),
        ("groups", 1 + max((e.group for e in config.engines), default=0), device.max_groups),
    )
    found = [
        f"{device.id}: expected at most {has} {what}, found {wants}"
        for what, wants, has in asked
        if wants > has
    ]
    there = {queue.id for queue in device.queues}
    for queue in config.queues:
        if queue.id not in there:
            found.append(f"{device.id}: {queue.id} is not there")
        for name in ("max_batch_size", "max_transfer_size"):
            wants, has = getattr(queue, name), getattr(device, name)
            if wants is not None and wants > has:
                found.append(f"{queue.id}: {name}: expected at most {has}, found {wants}")
    return tuple(found)


def differences(config: DeviceConfig, device: DsaDevice) -> tuple[str, ...]:
    """Return how ``device`` is not what ``config`` wants; () where it is exactly that."""
    return tuple(_differences(config, device))


def _differences(config: DeviceConfig, device: DsaDevice) -> Iterator[str]:
    if device.state != "enabled":
        yield f"{device.id}: expected state enabled, found {device.state}"
    for engine in config.engines:
        number = number_of(engine.id)
        group = device.engines[number] if 0 <= number < len(device.engines) else None
        if group is None:
            yield f"{device.id}: {engine.id} is not there"
        elif group != engine.group:
            yield f"{engine.id}: expected group {engine.group}, found {group}"
    found = {queue.id: queue for queue in device.queues}
    for wanted in config.queues:
        if wanted.id not in found:
            yield f"{device.id}: {wanted.id} is not there"
        else:
            yield from _queue_differences(wanted, found.pop(wanted.id))
    for queue in found.values():
        if queue.state == "enabled":
            yield f"{queue.id}: expected state disabled, found {queue.state}"


def _queue_differences(wanted: QueueConfig, found: WorkQueue) -> Iterator[str]:
    pairs: list[tuple[str, Any, Any]] = [("state", "enabled", found.state)]
    for name in ("type", "mode", "name", "group", "size", "priority"):
        pairs.append((name, getattr(wanted, name), getattr(found, name)))
    if wanted.driver_name is not None and found.driver_name is not None:
        pairs.append(("driver_name", wanted.driver_name, found.driver_name))
    if wanted.mode == "shared":
        pairs.append(("threshold", wanted.threshold, found.threshold))
    if wanted.block_on_fault is not None:
        pairs.append(("block_on_fault", int(wanted.block_on_fault), int(found.block_on_fault)))
    for name in ("max_batch_size", "max_transfer_size"):
        value = getattr(wanted, name)
        if value is not None:
            pairs.append((name, _rounded(value), getattr(found, name)))
    for name, expected, seen in pairs:
        if expected != seen:
            yield f"{wanted.id}: expected {name} {expected}, found {seen if seen != '' else 'none'}"


def _rounded(value: int) -> int:
    """Return what the driver makes of a size: the next power of two."""
    return 1 << (value - 1).bit_length()
