# SPDX-License-Identifier: Apache-2.0
"""The attribute files of DSA devices, groups, engines and queues: one row for each.

Formats, errors and the order of checks follow drivers/dma/idxd/sysfs.c of Linux 6.12; a seed
kernel carries that of 6.4, which lacks ``driver_name`` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from errno import EINVAL, ENXIO, EOPNOTSUPP, EPERM
from typing import TYPE_CHECKING, Any

from dsatier.sim import copying
from dsatier.sim.idxd import set_device
from dsatier.sim.parse import Refused, kstrtobool, kstrtol, kstrtoul, word

if TYPE_CHECKING:
    from dsatier.sim.kernel import Kernel
    from dsatier.sim.state import Group, Queue

READ_BUFFERS = 96


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute file of an object: how it reads, how it is written, which driver has it."""

    show: Callable[[Kernel, int, int], str]
    store: Callable[[Kernel, int, int, str], None] | None = None
    new: bool = False
    """Only in 6.12, not in the seeds' driver."""


def _queue(k: Kernel, i: int, n: int) -> Queue:
    return k.state.devices[i].queues[n]


def _field(name: str) -> Callable[[Kernel, int, int], str]:
    return lambda k, i, n: f"{getattr(_queue(k, i, n), name)}\n"


def _idle(k: Kernel, i: int, n: int, errno: int = EPERM) -> Queue:
    queue = _queue(k, i, n)
    if queue.state != "disabled":
        raise Refused(errno)
    return queue


def _change(k: Kernel, i: int, n: int, **fields: Any) -> None:
    copying.set_queue(k, i, n, _queue(k, i, n)._replace(**fields))


def _store_group(k: Kernel, i: int, n: int, text: str) -> None:
    number = kstrtol(text)
    _idle(k, i, n)
    if not -1 <= number < len(k.state.devices[i].groups):
        raise Refused(EINVAL)
    _change(k, i, n, group=number)


def _store_mode(k: Kernel, i: int, n: int, text: str) -> None:
    queue, mode = _idle(k, i, n), word(text)
    if mode not in ("dedicated", "shared"):
        raise Refused(EINVAL)
    _change(k, i, n, mode=mode, threshold=0 if mode == "dedicated" else queue.threshold)


def _store_size(k: Kernel, i: int, n: int, text: str) -> None:
    size, device = kstrtoul(text), k.state.devices[i]
    if device.state == "enabled":
        raise Refused(EPERM)
    others = sum(q.size for q in device.queues) - device.queues[n].size
    if size + others > k.layout.devices[i].entries:
        raise Refused(EINVAL)
    _change(k, i, n, size=size)


def _store_priority(k: Kernel, i: int, n: int, text: str) -> None:
    priority = kstrtoul(text)
    _idle(k, i, n)
    if priority > 15:
        raise Refused(EINVAL)
    _change(k, i, n, priority=priority)


def _store_block(k: Kernel, i: int, n: int, text: str) -> None:
    if not k.layout.devices[i].block_on_fault:
        raise Refused(EOPNOTSUPP)
    queue, on = _idle(k, i, n, ENXIO), kstrtobool(text)
    if on and queue.prs_disable:
        raise Refused(EOPNOTSUPP)
    _change(k, i, n, block_on_fault=int(on))


def _store_threshold(k: Kernel, i: int, n: int, text: str) -> None:
    threshold, queue = kstrtoul(text, 0), _queue(k, i, n)
    if not 0 < threshold <= queue.size:
        raise Refused(EINVAL)
    _idle(k, i, n, ENXIO)
    if queue.mode == "dedicated":
        raise Refused(EINVAL)
    _change(k, i, n, threshold=threshold)


def _store_type(k: Kernel, i: int, n: int, text: str) -> None:
    queue, kind = _idle(k, i, n), word(text)
    if kind not in ("none", "kernel", "user"):
        raise Refused(EINVAL)
    _change(k, i, n, type=kind, name=queue.name if kind == queue.type else "")


def _store_name(k: Kernel, i: int, n: int, text: str) -> None:
    _idle(k, i, n)
    if not 0 < len(text) <= 1024:
        raise Refused(EINVAL)
    _change(k, i, n, name=text.strip())


def _store_driver(k: Kernel, i: int, n: int, text: str) -> None:
    _idle(k, i, n)
    if not 0 < len(text) <= 128:
        raise Refused(EINVAL)
    _change(k, i, n, driver_name=text.strip())


def _power(text: str) -> int:
    value = kstrtoul(text, 0)
    if not value:
        raise Refused(EINVAL)
    return 1 << (value - 1).bit_length()


def _store_limit(field: str) -> Callable[[Kernel, int, int, str], None]:
    def store(k: Kernel, i: int, n: int, text: str) -> None:
        _idle(k, i, n)
        value = _power(text)
        limit: int = getattr(k.layout.devices[i], field)
        if value > limit:
            raise Refused(EINVAL)
        _change(k, i, n, **{field: value})

    return store


def _store_flag(field: str) -> Callable[[Kernel, int, int, str], None]:
    def store(k: Kernel, i: int, n: int, text: str) -> None:
        _idle(k, i, n)
        on = int(kstrtobool(text))
        _change(k, i, n, **{field: on})
        if field == "prs_disable" and on:
            _change(k, i, n, block_on_fault=0)

    return store


def _refuse(errno: int) -> str:
    raise Refused(errno)


def _minor(k: Kernel, i: int, n: int) -> str:
    return f"{n}\n" if _queue(k, i, n).driver == "user" else _refuse(ENXIO)


def _retries(k: Kernel, i: int, n: int) -> str:
    queue = _queue(k, i, n)
    return f"{queue.enqcmds_retries}\n" if queue.mode == "shared" else _refuse(EOPNOTSUPP)


def _store_retries(k: Kernel, i: int, n: int, text: str) -> None:
    if _queue(k, i, n).mode == "dedicated":
        raise Refused(EOPNOTSUPP)
    _change(k, i, n, enqcmds_retries=min(64, kstrtoul(text)))


QUEUE: dict[str, Attribute] = {
    "clients": Attribute(_field("clients")),
    "state": Attribute(_field("state")),
    "group_id": Attribute(_field("group"), _store_group),
    "mode": Attribute(_field("mode"), _store_mode),
    "size": Attribute(_field("size"), _store_size),
    "priority": Attribute(_field("priority"), _store_priority),
    "block_on_fault": Attribute(_field("block_on_fault"), _store_block),
    "threshold": Attribute(_field("threshold"), _store_threshold),
    "type": Attribute(_field("type"), _store_type),
    "name": Attribute(_field("name"), _store_name),
    "cdev_minor": Attribute(_minor),
    "max_transfer_size": Attribute(_field("max_transfer_size"), _store_limit("max_transfer_size")),
    "max_batch_size": Attribute(_field("max_batch_size"), _store_limit("max_batch_size")),
    "ats_disable": Attribute(_field("ats_disable"), _store_flag("ats_disable")),
    "prs_disable": Attribute(_field("prs_disable"), _store_flag("prs_disable")),
    "occupancy": Attribute(lambda _k, _i, _n: "0\n"),
    "enqcmds_retries": Attribute(_retries, _store_retries),
    "driver_name": Attribute(_field("driver_name"), _store_driver, new=True),
}


def _engine_show(k: Kernel, i: int, n: int) -> str:
    return f"{k.state.devices[i].engines[n]}\n"


def _engine_store(k: Kernel, i: int, n: int, text: str) -> None:
    number, device = kstrtol(text), k.state.devices[i]
    if not -1 <= number < len(device.groups):
        raise Refused(EINVAL)
    engines = (*device.engines[:n], number, *device.engines[n + 1 :])
    set_device(k, i, device._replace(engines=engines))


ENGINE: dict[str, Attribute] = {"group_id": Attribute(_engine_show, _engine_store)}


def _group(k: Kernel, i: int, n: int) -> Group:
    return k.state.devices[i].groups[n]


def _group_field(field: str) -> Callable[[Kernel, int, int], str]:
    return lambda k, i, n: f"{getattr(_group(k, i, n), field)}\n"


def _group_change(k: Kernel, i: int, n: int, **fields: Any) -> None:
    device = k.state.devices[i]
    groups = (
        *device.groups[:n],
        device.groups[n]._replace(**fields),
        *device.groups[n + 1 :],
    )
    set_device(k, i, device._replace(groups=groups))


def _configurable(k: Kernel, i: int) -> None:
    if k.state.devices[i].state == "enabled":
        raise Refused(EPERM)


def _store_reserved(k: Kernel, i: int, n: int, text: str) -> None:
    value = kstrtoul(text)
    _configurable(k, i)
    others = sum(g.reserved for g in k.state.devices[i].groups) - _group(k, i, n).reserved
    if value + others > READ_BUFFERS:
        raise Refused(EINVAL)
    _group_change(k, i, n, reserved=value)


def _store_allowed(k: Kernel, i: int, n: int, text: str) -> None:
    value = kstrtoul(text)
    _configurable(k, i)
    device = k.state.devices[i]
    free = READ_BUFFERS - sum(g.reserved for g in device.groups)
    least = 4 * sum(engine == n for engine in device.engines)
    if not least <= value <= _group(k, i, n).reserved + free:
        raise Refused(EINVAL)
    _group_change(k, i, n, allowed=value)


def _store_use_limit(k: Kernel, i: int, n: int, text: str) -> None:
    value = kstrtoul(text)
    _configurable(k, i)
    if not k.state.devices[i].buffer_limit:
        raise Refused(EPERM)
    _group_change(k, i, n, use_limit=int(bool(value)))


def _store_class(field: str) -> Callable[[Kernel, int, int, str], None]:
    def store(k: Kernel, i: int, n: int, text: str) -> None:
        value = kstrtol(text)
        _configurable(k, i)
        # without tc_override, which no shipped configuration sets
        if k.layout.devices[i].version <= 0x200:
            raise Refused(EPERM)
        if not 0 <= value <= 7:
            raise Refused(EINVAL)
        _group_change(k, i, n, **{field: value})

    return store


def _members(kind: str) -> Callable[[Kernel, int, int], str]:
    def show(k: Kernel, i: int, n: int) -> str:
        device = k.state.devices[i]
        groups = device.engines if kind == "engine" else tuple(q.group for q in device.queues)
        names = [f"{kind}{i}.{m}" for m, group in enumerate(groups) if group == n]
        return " ".join(names) + "\n" if names else ""

    return show


_RESERVED = Attribute(_group_field("reserved"), _store_reserved)
_ALLOWED = Attribute(_group_field("allowed"), _store_allowed)
_USE = Attribute(_group_field("use_limit"), _store_use_limit)


GROUP: dict[str, Attribute] = {
    "work_queues": Attribute(_members("wq")),
    "engines": Attribute(_members("engine")),
    "use_token_limit": _USE,
    "use_read_buffer_limit": _USE,
    "tokens_allowed": _ALLOWED,
    "read_buffers_allowed": _ALLOWED,
    "tokens_reserved": _RESERVED,
    "read_buffers_reserved": _RESERVED,
    "traffic_class_a": Attribute(_group_field("tc_a"), _store_class("tc_a")),
    "traffic_class_b": Attribute(_group_field("tc_b"), _store_class("tc_b")),
}


def _spec(field: str) -> Callable[[Kernel, int, int], str]:
    return lambda k, i, _: f"{getattr(k.layout.devices[i], field)}\n"


def _same(text: str) -> Callable[[Kernel, int, int], str]:
    return lambda _k, _i, _n: text


def _gen_cap(k: Kernel, i: int, _n: int) -> str:
    spec = k.layout.devices[i]
    bits = (
        int(spec.block_on_fault)
        | 0b110
        | int(spec.event_log) << 13
        | (spec.max_transfer_size.bit_length() - 1) << 16
        | (spec.max_batch_size.bit_length() - 1) << 21
        | 1 << 31
    )
    return f"{bits:#x}\n"


def _device_clients(k: Kernel, i: int, _n: int) -> str:
    return f"{sum(q.clients for q in k.state.devices[i].queues)}\n"


def _clear_status(k: Kernel, i: int, _n: int, _text: str) -> None:
    set_device(k, i, k.state.devices[i]._replace(cmd_status=0))


def _store_buffer_limit(k: Kernel, i: int, _n: int, text: str) -> None:
    value = kstrtoul(text)
    _configurable(k, i)
    if value > READ_BUFFERS:
        raise Refused(EINVAL)
    set_device(k, i, k.state.devices[i]._replace(buffer_limit=value))


_BUFFERS = Attribute(_same(f"{READ_BUFFERS}\n"))
_LIMIT = Attribute(lambda k, i, _: f"{k.state.devices[i].buffer_limit}\n", _store_buffer_limit)

DEVICE: dict[str, Attribute] = {
    "version": Attribute(lambda k, i, _: f"{k.layout.devices[i].version:#x}\n"),
    "max_groups": Attribute(_spec("groups")),
    "max_work_queues": Attribute(_spec("queues")),
    "max_work_queues_size": Attribute(_spec("entries")),
    "max_engines": Attribute(_spec("engines")),
    "numa_node": Attribute(_spec("numa_node")),
    "max_batch_size": Attribute(_spec("max_batch_size")),
    "max_transfer_size": Attribute(_spec("max_transfer_size")),
    "op_cap": Attribute(
        _same("00000000,00000000,00000000,00000000,00000000,00000000,001f03ff,000003ff\n")
    ),
    "gen_cap": Attribute(_gen_cap),
    "configurable": Attribute(_same("1\n")),
    "clients": Attribute(_device_clients),
    "pasid_enabled": Attribute(lambda k, _i, _n: f"{int(k.spec.scalable_mode)}\n"),
    "state": Attribute(lambda k, i, _: f"{k.state.devices[i].state}\n"),
    "errors": Attribute(_same(",".join(["00000000"] * 8) + "\n")),
    "max_tokens": _BUFFERS,
    "max_read_buffers": _BUFFERS,
    "token_limit": _LIMIT,
    "read_buffer_limit": _LIMIT,
    "cdev_major": Attribute(_same("237\n")),
    "cmd_status": Attribute(lambda k, i, _: f"{k.state.devices[i].cmd_status:#x}\n", _clear_status),
}

KINDS: dict[str, dict[str, Attribute]] = {
    "dsa": DEVICE,
    "wq": QUEUE,
    "engine": ENGINE,
    "group": GROUP,
}
