# SPDX-License-Identifier: Apache-2.0
"""accel-config: exit code and what is left behind, as the real 3.5.3 and 4.1.6 were seen to do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dsatier.host.port import Missing
from tests.sim.simhosts import host, live, load, ready

Json = Any
QUEUE = {
    "dev": "wq0.0",
    "mode": "dedicated",
    "size": 16,
    "group_id": 0,
    "priority": 10,
    "block_on_fault": 0,
    "max_batch_size": 32,
    "max_transfer_size": 2097152,
    "type": "kernel",
    "driver_name": "dmaengine",
    "name": "dmaengine",
    "threshold": 0,
    "ats_disable": 0,
}


def base(queue: dict[str, Any]) -> Json:
    group = {
        "dev": "group0.0",
        "grouped_workqueues": [queue],
        "grouped_engines": [{"dev": "engine0.0", "group_id": 0}],
    }
    return [{"dev": "dsa0", "groups": [group]}]


def queue(**fields: Any) -> Json:
    return base({k: v for k, v in (QUEUE | fields).items() if v != "-"})


def group(**fields: Any) -> Json:
    top = queue()
    top[0]["groups"][0] = {"dev": "group0.0", **fields, **top[0]["groups"][0]}
    return top


def name_first() -> Json:
    fields = {k: v for k, v in QUEUE.items() if k not in ("dev", "name")}
    return base({"dev": "wq0.0", "name": "x", **fields})


def without_engines() -> Json:
    top = queue()
    del top[0]["groups"][0]["grouped_engines"]
    return top


def dev_last() -> Json:
    fields = {k: v for k, v in QUEUE.items() if k != "dev"}
    return base({**fields, "dev": "wq0.0"})


OK = ("enabled", "enabled", "kernel")
OFF = ("disabled", "disabled", "none")
CASES = [
    ("plain", queue(), 0, OK),
    ("unknown key", queue(no_such_key=1), 0, OK),
    ("missing device", [{"dev": "dsa7", **queue()[0]} | {"dev": "dsa7"}], 1, OFF),
    ("missing queue", queue(dev="wq0.9"), 1, OFF),
    ("name cleared by the type", name_first(), 1, ("enabled", "disabled", "none")),
    ("size too big", queue(size=999), 1, OFF),
    ("numbers as strings", queue(size="16", priority="abc"), 0, OK),
    ("negative class", group(traffic_class_a=-1), 1, OFF),
    ("class of DSA 1.0", group(traffic_class_a=1), 0, OK),
    ("wrong device number", queue(dev="wq5.0"), 0, OK),
    ("priority too big", queue(priority=99), 1, OFF),
    ("no engine", without_engines(), 1, ("disabled", "disabled", "kernel")),
    ("no name", queue(name="-"), 1, ("enabled", "disabled", "none")),
    ("no size", queue(size="-"), 0, OK),
    ("unknown driver", queue(driver_name="bogus"), 1, ("enabled", "disabled", "kernel")),
    ("dev last", dev_last(), 1, OFF),
    ("top-level object", queue()[0], 134, OFF),
    ("empty list", [], 1, OFF),
    ("null name", queue(name=None), 1, ("enabled", "disabled", "none")),
]


def states(h: Any) -> tuple[str, str, str]:
    names = ("dsa0/state", "wq0.0/state", "wq0.0/type")
    first, second, third = (h.read(f"/sys/bus/dsa/devices/{n}").strip() for n in names)
    return first, second, third


@pytest.mark.parametrize("version", ["3.5.3", "4.1.6"])
@pytest.mark.parametrize(
    ("text", "code", "left"),
    [(json.dumps(text), code, left) for _, text, code, left in CASES]
    + [("{", 1, OFF), ("", 1, OFF)],
    ids=[name for name, *_ in CASES] + ["bad JSON", "empty file"],
)
def test_exit_code_and_what_is_left(
    version: str, text: str, code: int, left: tuple[str, str, str]
) -> None:
    h = host("ours", devices=2, accel_config=version)
    assert (code, left) == (load(h, text), states(h))
    assert [] == h.harm


def test_versions_differ_where_the_driver_name_is_missing() -> None:
    errors = []
    for version in ("3.5.3", "4.1.6"):
        h = host("ours", accel_config=version)
        h.keep("/q.json", json.dumps(queue(driver_name="-")))
        ran = h.run(("accel-config", "load-config", "-c", "/q.json", "-e"), 5.0)
        assert 1 == ran.code
        errors.append((ran.err.splitlines()[0], "Error[0x80200000]" in ran.out))
    assert [('Invalid wq driver name ""', False), ("Error enabling wq", True)] == errors


def test_a_shared_queue_needs_scalable_mode() -> None:
    shared = json.dumps(queue(mode="shared", threshold=8))
    h = host("ours", scalable_mode=False)
    assert 1 == load(h, shared)
    assert ("disabled", "disabled", "kernel") == states(h)
    assert "0x800c0000\n" == h.read("/sys/bus/dsa/devices/dsa0/cmd_status")
    h = host("ours")
    assert 0 == load(h, shared)
    assert OK == states(h)


def test_a_seed_kernel_has_no_driver_name_and_needs_none() -> None:
    h = host("tpp")
    assert 0 == load(h, json.dumps(queue()))
    assert ("enabled", "enabled", "kernel") == states(h)
    with pytest.raises(Missing):
        h.read("/sys/bus/dsa/devices/wq0.0/driver_name")


def test_devices_and_queues_are_enabled_last_first() -> None:
    h = ready("ours", 3)
    queues = [h.link(f"/sys/class/dma/{chan}") for chan in h.entries("/sys/class/dma")]
    addresses = [target.split("/")[4] for target in queues if target]
    assert ["0000:74:01.0", "0000:6f:01.0", "0000:6a:01.0"] == addresses


def test_what_is_enabled_already_is_skipped_with_exit_code_0() -> None:
    h = ready("ours", 1)
    h.keep("/q.json", json.dumps(queue(size=4)))
    ran = h.run(("accel-config", "load-config", "-c", "/q.json", "-e"), 5.0)
    assert (0, "dsa0 is active. Skipping...\n") == (ran.code, ran.err)
    assert "128" == h.read("/sys/bus/dsa/devices/wq0.0/size").strip()


def test_a_refusal_leaves_the_writes_before_it() -> None:
    h = host("ours")
    assert 1 == load(h, json.dumps(queue(priority=99)))
    assert "16" == h.read("/sys/bus/dsa/devices/wq0.0/size").strip()
    assert "dedicated" == h.read("/sys/bus/dsa/devices/wq0.0/mode").strip()


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        ("enable-device dsa0", 1, "dsa0 is in enabled state already, skipping..."),
        ("disable-device dsa1", 1, "dsa1 is in disabled state already, skipping..."),
        ("disable-device dsa9", 1, "dsa9 device not found"),
        ("disable-wq dsa0/wq0.1", 1, "dsa0/wq0.1 is in disabled mode already, skipping..."),
        ("disable-wq dsa0/wq0.0", 0, "disabled 1 wq(s) out of 1"),
        ("disable-wq dsa0/wq0.0 dsa9/wq9.0", 0, "disabled 1 wq(s) out of 2"),
        ("disable-device dsa0", 0, "disabled 1 device(s) out of 1"),
        ("frobnicate", 1, "Unknown command: 'frobnicate'"),
    ],
)
def test_single_objects(argv: str, code: int, said: str) -> None:
    h = ready("ours", 1)
    ran = h.run(("accel-config", *argv.split()), 5.0)
    assert code == ran.code
    assert said in ran.err


def test_a_disabled_queue_loses_its_configuration_but_size_and_group() -> None:
    h = ready("ours", 1)
    h.run(("accel-config", "disable-wq", "dsa0/wq0.0"), 5.0)
    names = ("name", "mode", "size", "group_id", "max_batch_size", "type")
    left = [h.read(f"/sys/bus/dsa/devices/wq0.0/{n}").strip() for n in names]
    assert ["", "shared", "128", "0", "32", "kernel"] == left
    assert () == h.entries("/sys/class/dma")


def test_a_device_with_clients_is_refused_unless_forced() -> None:
    h = live("ours")
    ran = h.run(("accel-config", "disable-device", "dsa0"), 5.0)
    assert 1 == ran.code
    assert "1" == h.read("/proc/sys/vm/use_dsa_copy_pages").strip()
    ran = h.run(("accel-config", "disable-device", "dsa0", "-f"), 5.0)
    assert 0 == ran.code
    assert "7" == str(len(h.kernel.state.engine.chans))
    assert [] == h.harm


def test_version_and_absence() -> None:
    ran = host("ours", accel_config="3.5.3").run(("accel-config", "--version"), 5.0)
    assert (0, "3.5.3\n") == (ran.code, ran.out)
    with pytest.raises(Missing):
        host("ours", accel_config=None).run(("accel-config", "--version"), 5.0)
    bare = host("ours", devices=0, kernel={"config": {}})
    assert 1 == bare.run(("accel-config", "--version"), 5.0).code
