# SPDX-License-Identifier: Apache-2.0
"""Work queues: the short form, accel-config's file, and how a device differs."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsatier.base.problem import Invalid
from dsatier.facts.model import DsaDevice
from dsatier.facts.observe.observer import observe
from dsatier.plan.short_form import expand
from dsatier.profile.model import QueueShape
from dsatier.queues.accel_config import parse, text
from dsatier.queues.config import (
    DeviceConfig,
    EngineConfig,
    GroupConfig,
    QueueConfig,
    captured,
    differences,
    excess,
    for_driver,
    number_of,
    recent,
)
from dsatier.queues.json_places import Value
from dsatier.queues.json_places import parse as parse_json
from dsatier.sim.host import SimHost

DEVICES = observe(SimHost.host_for("dsa8")).devices


def shape(devices: Any = 1, **named: Any) -> QueueShape:
    return QueueShape(devices=devices, **named)


def test_the_short_form_of_eight_devices() -> None:
    configs = expand(shape(8), DEVICES, driver_names=True)
    assert [f"dsa{n}" for n in range(8)] == [config.id for config in configs]
    expected = DeviceConfig(
        id="dsa3",
        engines=tuple(EngineConfig(f"engine3.{n}", 0) for n in range(4)),
        queues=(
            QueueConfig(
                id="wq3.0",
                group=0,
                size=128,
                name="dmaengine",
                driver_name="dmaengine",
                priority=10,
                max_batch_size=128,
                max_transfer_size=2 << 20,
            ),
        ),
    )
    assert expected == configs[3]
    assert ("kernel", "dedicated", None) == (
        expected.queues[0].type,
        expected.queues[0].mode,
        expected.queues[0].threshold,
    )


def test_entries_are_shared_evenly() -> None:
    (config,) = expand(shape(queues=3, engines=2), DEVICES, driver_names=True)
    assert [42, 42, 42] == [queue.size for queue in config.queues]
    assert ["engine0.0", "engine0.1"] == [engine.id for engine in config.engines]


def test_sizes_fit_a_small_device() -> None:
    small = replace(DEVICES[0], max_batch_size=32, max_transfer_size=1 << 20)
    (config,) = expand(shape(), (small,), driver_names=True)
    assert (32, 1 << 20) == (config.queues[0].max_batch_size, config.queues[0].max_transfer_size)


def test_devices_are_counted_by_number_and_not_by_letter() -> None:
    there = tuple(replace(DEVICES[0], id=f"dsa{n}") for n in (10, 2, 4))
    configs = expand(shape(2), there, driver_names=True)
    assert ["dsa2", "dsa4"] == [config.id for config in configs]


def test_devices_that_lack_are_named() -> None:
    configs = expand(shape(4), (DEVICES[1],), driver_names=True)
    assert ["dsa1", "dsa0", "dsa2", "dsa3"] == [config.id for config in configs]
    configs = expand(shape(("dsa9",)), DEVICES, driver_names=True)
    assert ["dsa9"] == [config.id for config in configs]


def test_a_driver_without_names_is_given_none() -> None:
    (config,) = expand(shape(), DEVICES, driver_names=False)
    assert config.queues[0].driver_name is None
    assert "driver_name" not in text((config,))
    assert ("dmaengine",) == tuple(
        queue.driver_name for c in for_driver((config,), True) for queue in c.queues
    )


def test_block_on_fault_is_named_only_to_clear_it() -> None:
    (config,) = expand(shape(), DEVICES, driver_names=True)
    assert "block_on_fault" not in text((config,))
    blocking = replace(DEVICES[0], queues=(replace(DEVICES[0].queues[0], block_on_fault=True),))
    (config,) = expand(shape(), (blocking,), driver_names=True)
    assert '"block_on_fault": 0' in text((config,))


def test_what_a_device_does_not_have() -> None:
    (config,) = expand(shape(engines=9, queues=9, size=64), DEVICES, driver_names=True)
    assert (
        "dsa0: expected at most 4 engines, found 9",
        "dsa0: expected at most 8 work queues, found 9",
        "dsa0: expected at most 128 queue entries, found 576",
        "dsa0: wq0.8 is not there",
    ) == excess(config, DEVICES[0])
    (config,) = expand(shape(), DEVICES, driver_names=True)
    assert () == excess(config, DEVICES[0])


def up(config: DeviceConfig, device: DsaDevice) -> DsaDevice:
    """Return the device as it is when it was configured by ``config`` alone."""
    wanted = {queue.id: queue for queue in config.queues}
    queues = tuple(
        queue
        if queue.id not in wanted
        else replace(
            queue,
            state="enabled",
            **{
                name: getattr(wanted[queue.id], name)
                for name in ("type", "mode", "name", "group", "size", "priority")
            },
            driver_name="dmaengine",
            max_batch_size=128,
            max_transfer_size=2 << 20,
        )
        for queue in device.queues
    )
    return replace(device, state="enabled", engines=(0, 0, 0, 0), queues=queues)


CONFIG = expand(shape(queues=2), DEVICES, driver_names=True)[0]
UP = up(CONFIG, DEVICES[0])


def test_a_device_that_is_as_wanted_does_not_differ() -> None:
    assert () == differences(CONFIG, UP)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("state", "disabled", "wq0.1: expected state enabled, found disabled"),
        ("type", "user", "wq0.1: expected type kernel, found user"),
        ("mode", "shared", "wq0.1: expected mode dedicated, found shared"),
        ("name", "", "wq0.1: expected name dmaengine, found none"),
        ("driver_name", "user", "wq0.1: expected driver_name dmaengine, found user"),
        ("group", 1, "wq0.1: expected group 0, found 1"),
        ("size", 63, "wq0.1: expected size 64, found 63"),
        ("priority", 0, "wq0.1: expected priority 10, found 0"),
        ("max_batch_size", 64, "wq0.1: expected max_batch_size 128, found 64"),
        ("max_transfer_size", 1, "wq0.1: expected max_transfer_size 2097152, found 1"),
    ],
)
def test_each_difference_of_a_queue_is_told(field: str, value: Any, expected: str) -> None:
    changed = replace(UP.queues[1], **{field: value})
    found = replace(UP, queues=(UP.queues[0], changed, *UP.queues[2:]))
    assert (expected,) == differences(CONFIG, found)


def test_differences_of_the_device() -> None:
    extra = replace(UP.queues[5], state="enabled")
    found = replace(
        UP, state="halted", engines=(0, 1), queues=(UP.queues[0], *UP.queues[2:5], extra)
    )
    assert (
        "dsa0: expected state enabled, found halted",
        "engine0.1: expected group 0, found 1",
        "dsa0: engine0.2 is not there",
        "dsa0: engine0.3 is not there",
        "dsa0: wq0.1 is not there",
        "wq0.5: expected state disabled, found enabled",
    ) == differences(CONFIG, found)


def test_the_driver_rounds_sizes_up_to_powers_of_two() -> None:
    queue = replace(CONFIG.queues[0], max_batch_size=100, max_transfer_size=(1 << 20) + 1)
    assert () == differences(replace(CONFIG, queues=(queue, CONFIG.queues[1])), UP)


def test_what_is_captured_is_what_is_there() -> None:
    assert () == differences(captured(UP), UP)
    assert CONFIG == captured(UP)
    assert () == captured(DEVICES[0]).queues


def test_the_text_is_read_back_as_it_was() -> None:
    configs = expand(shape(8, queues=2), DEVICES, driver_names=True)
    assert configs == parse(text(configs), "x")


small = st.integers(0, 3)


@st.composite
def configs(draw: st.DrawFn) -> DeviceConfig:
    mode = draw(st.sampled_from(["dedicated", "shared"]))
    kind = draw(st.sampled_from(["kernel", "user"]))
    size = draw(st.integers(1, 1024))
    queue = QueueConfig(
        id=f"wq7.{draw(small)}",
        group=draw(small),
        size=size,
        type=kind,  # type: ignore[arg-type]
        mode=mode,  # type: ignore[arg-type]
        name=draw(st.from_regex(r"\A[!-~]{1,64}\Z")),
        driver_name=draw(st.sampled_from([None, {"kernel": "dmaengine", "user": "user"}[kind]])),
        priority=draw(st.integers(0, 15)),
        threshold=draw(st.integers(1, size)) if mode == "shared" else None,
        block_on_fault=draw(st.sampled_from([None, True, False])),
        max_batch_size=draw(st.none() | st.integers(1, 1024)),
        max_transfer_size=draw(st.none() | st.integers(1, 1 << 31)),
        ats_disable=draw(st.sampled_from([None, True, False])),
        prs_disable=draw(st.sampled_from([None, True, False])),
        op_config=draw(st.sampled_from([None, "0", "00000001,003f03ff"])),
    )
    group = GroupConfig(f"group7.{draw(small)}", traffic_class_a=draw(st.integers(0, 7)))
    engine = EngineConfig(f"engine7.{draw(small)}", draw(small))
    limit = draw(st.none() | st.integers(0, 255))
    log = draw(st.none() | st.integers(0, 65535))
    return DeviceConfig("dsa7", (engine,), (queue,), (group,), limit, log)


@given(configs())
def test_every_configuration_survives_its_text(config: DeviceConfig) -> None:
    assert (config,) == parse(text((config,)), "x")
    # accel-config reads in the order of the keys
    json.loads(text((config,)), object_pairs_hook=dev_first)


def dev_first(pairs: list[tuple[str, Any]]) -> None:
    assert "dev" == pairs[0][0]


def broken(change: Any) -> str:
    """Return the problems of a right file after ``change`` did something to its parts."""
    content = json.loads(text(expand(shape(), DEVICES, driver_names=True)))
    group = content[0]["groups"][0]
    changed = change(content, content[0], group, group["grouped_workqueues"][0])
    with pytest.raises(Invalid) as caught:
        parse(json.dumps(changed if changed is not None else content, indent=1), "q.json")
    return str(caught.value)


def put(part: dict[str, Any], key: str, value: Any) -> None:
    part[key] = value


def put_both(part: dict[str, Any]) -> dict[str, Any]:
    part |= {"token_limit": 4, "read_buffer_limit": 4}
    return part


def reorder(part: dict[str, Any], *keys: str) -> None:
    old = dict(part)
    part.clear()
    part |= {key: old.pop(key) for key in keys} | old


QUEUE = "[0].groups[0].grouped_workqueues[0]"
MISTAKES = {
    "unknown": (
        lambda c, d, g, q: put(q, "sise", 1),
        f"q.json:19:7: {QUEUE}.sise: unknown key, which accel-config ignores; did you mean size?",
    ),
    "operations": (
        lambda c, d, g, q: put(q, "op_config", "3f03ff,g"),
        f"{QUEUE}.op_config: expected up to eight words of 32 bits in hexadecimal, with commas",
    ),
    "a key under both of its names": (
        lambda c, d, g, q: reorder(put_both(d), "dev", "token_limit", "read_buffer_limit"),
        "read_buffer_limit: expected read_buffer_limit once, found it again",
    ),
    "late": (
        lambda c, d, g, q: put(d, "read_buffer_limit", 4),
        "q.json:41:3: [0].read_buffer_limit: expected it before groups; accel-config reads in",
    ),
    "dev-last": (
        lambda c, d, g, q: reorder(q, "mode", "dev"),
        f"q.json:9:7: {QUEUE}: expected dev as the first key; accel-config reads in order",
    ),
    "name-before-type": (
        lambda c, d, g, q: reorder(q, "dev", "name"),
        f"{QUEUE}.name: expected it after type, found it before",
    ),
    "threshold": (
        lambda c, d, g, q: put(q, "threshold", 8),
        f"{QUEUE}.threshold: expected none on a dedicated queue",
    ),
    "shared-without-threshold": (
        lambda c, d, g, q: put(q, "mode", "shared"),
        f"{QUEUE}.threshold: expected 1 to 128, its size, on a shared queue, found none",
    ),
    "shared-with-too-much": (
        lambda c, d, g, q: q.update(mode="shared", threshold=129),
        "on a shared queue, found 129",
    ),
    "text-for-number": (
        lambda c, d, g, q: put(q, "size", "16"),
        f'{QUEUE}.size: expected a whole number from 1 to 1024, found "16"',
    ),
    "bool-for-number": (
        lambda c, d, g, q: put(q, "priority", True),
        f"{QUEUE}.priority: expected a whole number from 0 to 15, found true",
    ),
    "fraction": (
        lambda c, d, g, q: put(q, "size", 16.0),
        f"{QUEUE}.size: expected a whole number from 1 to 1024, found 16.0",
    ),
    "missing": (
        lambda c, d, g, q: q.pop("size") and None,
        f"q.json:8:6: {QUEUE}: expected size, found none",
    ),
    "other-device": (
        lambda c, d, g, q: put(q, "dev", "wq5.0"),
        f"{QUEUE}.dev: expected a part of dsa0, found wq5.0",
    ),
    "other-group": (
        lambda c, d, g, q: put(q, "group_id", 1),
        f"{QUEUE}.group_id: expected 0, the group it is in, found 1",
    ),
    "twice": (
        lambda c, d, g, q: g["grouped_workqueues"].append(q),
        "grouped_workqueues[1].dev: expected each part once, found wq0.0 again",
    ),
    "device-twice": (lambda c, d, g, q: c.append(d), "expected each device once, found dsa0 again"),
    "driver": (
        lambda c, d, g, q: put(q, "driver_name", "user"),
        f"{QUEUE}.driver_name: expected dmaengine for a kernel queue, found user",
    ),
    "null": (lambda c, d, g, q: put(q, "name", None), f"{QUEUE}.name: expected 1 to 64 printable"),
    "object": (lambda c, d, g, q: d, "q.json:1:1: expected an array of devices at the top level"),
    "empty": (lambda c, d, g, q: [], "q.json:1:1: expected an array of devices at the top level"),
    "not-a-device": (lambda c, d, g, q: [1], "q.json:2:2: [0]: expected an object, found 1"),
    "no-groups": (
        lambda c, d, g, q: put(d, "groups", []),
        "[0].groups: expected an array that is not empty, found an empty array",
    ),
    "no-engine": (
        lambda c, d, g, q: g.pop("grouped_engines") and None,
        "[0]: expected an engine; a device without one cannot be enabled",
    ),
    "no-queue": (
        lambda c, d, g, q: g.pop("grouped_workqueues") and None,
        "[0]: expected a work queue; a device without one cannot be enabled",
    ),
    "iaa": (
        lambda c, d, g, q: put(d, "dev", "iax1"),
        '[0].dev: expected a name such as dsa0, found "iax1"',
    ),
}


@pytest.mark.parametrize(("change", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_in_a_file_is_named_with_its_place(change: Any, expected: str) -> None:
    assert expected in broken(change)


def test_all_mistakes_are_told_at_once() -> None:
    def change(c: Any, d: Any, g: Any, q: Any) -> None:
        put(q, "size", 0)
        put(q, "priority", 99)
        put(g["grouped_engines"][1], "group_id", 7)

    assert 3 == len(broken(change).splitlines())


def test_names_of_before_are_names_still() -> None:
    content = text(expand(shape(), DEVICES, driver_names=True))
    old = content.replace('"groups"', '"token_limit": 4,\n  "groups"')
    assert parse(old, "x")[0].read_buffer_limit == 4


def test_what_accel_config_lists_is_taken() -> None:
    """Read-only members and attributes that the driver does not have (-2) are passed over."""
    plain = expand(shape(), DEVICES, driver_names=True)
    listed = json.loads(text(plain))
    for device in listed:
        groups = device.pop("groups")
        device |= {"max_groups": 4, "version": "0x100", "state": "enabled", "clients": 1}
        device |= {"max_batch_size": 1024, "max_transfer_size": 1 << 31, "groups": groups}
        for queue in groups[0]["grouped_workqueues"]:
            queue |= {"ats_disable": -2, "prs_disable": -2, "state": "enabled", "clients": 1}
    assert parse(json.dumps(listed), "x") == plain


@given(configs())
def test_only_what_an_old_accel_config_ignores_needs_a_recent_one(config: DeviceConfig) -> None:
    old = json.loads(text((config,)))[0]
    keys = {*old, *old["groups"][0]} | {
        key for group in old["groups"] for one in group.get("grouped_workqueues", ()) for key in one
    }
    assert set(recent(config)) == keys & {"event_log_size", "prs_disable", "op_config"}


def test_what_accel_config_saves_is_carried() -> None:
    """Keys of a recent kernel come out of the file as they went in."""
    saved = json.loads(text(expand(shape(2), DEVICES, driver_names=True)))
    groups = saved[0].pop("groups")
    groups[0] = {"dev": "group0.0", "desc_progress_limit": 1, "batch_progress_limit": 2} | groups[0]
    queue = groups[0]["grouped_workqueues"][0]
    queue |= {"prs_disable": 1, "ats_disable": 0, "op_config": "00000001,003f03ff"}
    saved[0] |= {"event_log_size": 64, "groups": groups}
    found = parse(json.dumps(saved), "x")
    again = json.loads(text(found))[0]
    assert again == saved[0]
    assert recent(found[0]) == (
        *("event_log_size", "desc_progress_limit", "batch_progress_limit"),
        *("prs_disable", "op_config"),
    )
    assert recent(found[1]) == ()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "q:1:1: expected a JSON value, found the end of the text"),
        ("[", "q:1:2: expected a JSON value, found the end of the text"),
        ('[{"dev": "dsa0",\n}]', "q:2:1: expected a key in double quotes, found '}'"),
        ('[{"dev" 1}]', "q:1:9: expected ':', found '1'"),
        ("[1 2]", "q:1:4: expected ',', found '2'"),
        ("[] x", "q:1:4: expected the end of the text, found 'x'"),
        ('[{"a": 1, "a": 2}]', "q:1:11: a: expected each key once, found it again"),
        ("[NaN]", "q:1:2: expected a JSON value, found 'N'"),
        ("['a']", "q:1:2: expected a JSON value"),
        ('["a\nb"]', "q:1:4: expected a JSON string"),
        ('["a', "expected a JSON string"),
        ("[" * 100, "expected at most 16 levels of nesting, found more"),
        ("[" + "9" * 5000 + "]", "expected a number of at most 20 characters"),
        ("[01]", "q:1:3: expected ',', found '1'"),
        ("\ufeff[]", "expected a JSON value"),
        (" " * (1 << 20) + "[]", "expected at most 1048576 characters"),
    ],
)
def test_what_is_no_json(content: str, expected: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(content, "q")
    assert expected in str(caught.value)


@given(st.text() | st.text('[]{}",:0123456789devdsagroup \n'))
def test_no_text_breaks_the_reader(content: str) -> None:
    try:
        parse(content, "q")
    except Invalid as error:
        assert error.problems


scalars = st.none() | st.booleans() | st.integers() | st.text()
json_values = st.recursive(
    scalars | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_all_json_is_read_as_the_standard_library_reads_it(value: Any) -> None:
    def plain(found: Value) -> Any:
        if found.kind == "array":
            return [plain(item) for item in found.data]  # type: ignore[union-attr, arg-type]
        if found.kind == "object":
            return {m.key: plain(m.value) for m in found.data}  # type: ignore[union-attr]
        return found.data

    content = json.dumps(value)
    try:
        found = parse_json(content, "q")
    except Invalid as error:
        assert "levels of nesting" in str(error) or "a number of at most" in str(error)
    else:
        assert value == plain(found)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("engine6.3", 3),
        ("wq0.0", 0),
        ("engine6.0.x", -1),
        ("engine3.", -1),
        ("", -1),
        ("engine0.\u0661", -1),
        ("engine0." + "9" * 5000, -1),
    ],
)
def test_the_number_of_a_part(name: str, number: int) -> None:
    assert number_of(name) == number


def test_an_engine_of_no_name_is_not_there() -> None:
    """Plans and facts that were kept as files may say so."""
    config = expand(shape(), DEVICES, driver_names=True)[0]
    odd = replace(config, engines=(replace(config.engines[0], id="engine0.0engine0.1"),))
    assert "dsa0: engine0.0engine0.1 is not there" in differences(odd, DEVICES[0])
