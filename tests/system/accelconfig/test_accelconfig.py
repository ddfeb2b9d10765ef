# SPDX-License-Identifier: Apache-2.0
"""The real accel-config configures simulated devices, and lies; reading back tells."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from dsatier.base.problem import Invalid
from dsatier.facts.model import DsaDevice
from dsatier.facts.observe.observer import Observer, observe
from dsatier.host.files import FileHost
from dsatier.host.port import Hung, Ran, Rejected
from dsatier.plan.short_form import expand
from dsatier.profile.model import QueueShape
from dsatier.queues.accel_config import parse, text
from dsatier.queues.config import DeviceConfig, captured, differences
from dsatier.sim.host import SimHost
from tests.system.accelconfig.conftest import Show

FILE = "/run/dsatier/queues.json"
DEADLINE = 60.0
LIMIT = "/proc/sys/vm/limit_chans"


def load(host: FileHost, content: str) -> Ran:
    host.keep(FILE, content)
    return host.run(("accel-config", "load-config", "-c", host.resolve(FILE), "-e"), DEADLINE)


def short_form(host: FileHost, devices: int = 8) -> tuple[DeviceConfig, ...]:
    facts = observe(host)
    names = facts.kernel.family != "seed"
    return expand(QueueShape(devices=devices), facts.devices, driver_names=names)


def devices(host: FileHost) -> dict[str, DsaDevice]:
    return {device.id: device for device in observe(host).devices}


def left(host: FileHost, configs: tuple[DeviceConfig, ...]) -> tuple[str, ...]:
    there = devices(host)
    return tuple(line for c in configs for line in differences(c, there[c.id]))


@pytest.mark.parametrize("name", ["dsa8", "dsa8-seed", "memtis-seed"])
def test_the_short_form_comes_up_on_eight_devices(show: Show, name: str) -> None:
    host = show(SimHost.host_for(name))
    configs = short_form(host)
    assert 8 == len(configs)
    assert len(left(host, configs)) >= 8
    ran = load(host, text(configs))
    assert () == left(host, configs), ran
    facts = observe(host)
    assert sorted(f"wq{n}.0" for n in range(8)) == sorted(str(c.queue) for c in facts.channels)
    assert "3.5.3" == facts.accel_config


def test_the_engine_starts_on_queues_that_the_real_program_made(show: Show) -> None:
    host = show(SimHost.host_for("dsa8"))
    with pytest.raises(Rejected):
        host.write("/proc/sys/vm/dsa_state", "1\n", 5.0)
    load(host, text(short_form(host)))
    host.write("/proc/sys/vm/dsa_state", "1\n", 5.0)
    assert [1] * 8 == [channel.in_use for channel in observe(host).channels]


def test_all_settings_of_a_queue_arrive(show: Show) -> None:
    host = show(SimHost.host_for("dsa8"))
    (config,) = short_form(host, 1)
    first, *_ = config.queues
    queues = (
        replace(first, size=16, priority=3, block_on_fault=True, name="copy"),
        replace(first, id="wq0.5", size=64, max_batch_size=256, max_transfer_size=1 << 24),
    )
    config = replace(config, queues=queues)
    load(host, text((config,)))
    assert () == left(host, (config,))


def test_a_device_that_was_stopped_comes_back_as_it_was(show: Show) -> None:
    host = show(SimHost.host_for("dsa8"))
    load(host, text(short_form(host, 2)))
    before = devices(host)["dsa1"]
    host.run(("accel-config", "disable-device", "dsa1"), DEADLINE)
    assert "disabled" == devices(host)["dsa1"].state
    load(host, text((captured(before),)))
    assert before == devices(host)["dsa1"]


def test_exit_code_0_with_an_unknown_key_and_what_we_make_of_it(show: Show) -> None:
    host = show(SimHost.host_for("dsa8"))
    (config,) = short_form(host, 1)
    wrong = text((config,)).replace('"priority": 10', '"prioritty": 10')
    with pytest.raises(Invalid, match=r"prioritty: unknown key.*did you mean priority\?"):
        parse(wrong, "queues.json")
    assert 0 == load(host, wrong).code
    assert ("wq0.0: expected priority 10, found 0",) == left(host, (config,))


def test_exit_code_0_with_a_device_that_is_on_already(show: Show) -> None:
    host = show(SimHost.host_for("dsa8"))
    (config,) = short_form(host, 1)
    load(host, text((config,)))
    wanted = replace(config, queues=(replace(config.queues[0], size=32),))
    ran = load(host, text((wanted,)))
    assert 0 == ran.code
    assert "Skipping" in ran.err
    assert ("wq0.0: expected size 32, found 128",) == left(host, (wanted,))


def test_a_missing_device_leaves_the_others_half_done(show: Show) -> None:
    host = show(SimHost.host_for("dsa2"))
    configs = short_form(host, 3)
    assert "dsa2" == configs[2].id
    load(host, text(configs))
    there = devices(host)
    assert "disabled" == there["dsa0"].state
    assert 128 == there["dsa0"].queues[0].size  # written, and never enabled
    assert "dsa0: expected state enabled, found disabled" in left(host, configs[:2])


def test_a_key_out_of_order_is_refused_before_it_clears_the_name(show: Show) -> None:
    host = show(SimHost.host_for("dsa8"))
    (config,) = short_form(host, 1)
    content = json.loads(text((config,)))
    (queue,) = content[0]["groups"][0]["grouped_workqueues"]
    name = queue.pop("name")
    reordered = {"dev": queue.pop("dev"), "name": name, **queue}
    content[0]["groups"][0]["grouped_workqueues"] = [reordered]
    with pytest.raises(Invalid, match="name: expected it after type"):
        parse(json.dumps(content), "queues.json")
    load(host, json.dumps(content))
    assert "wq0.0: expected state enabled, found disabled" in left(host, (config,))


def test_a_top_level_object_is_refused_before_it_aborts_the_program(show: Show) -> None:
    host = show(SimHost.host_for("dsa8"))
    content = json.dumps(json.loads(text(short_form(host, 1)))[0])
    with pytest.raises(Invalid, match="expected an array of devices at the top level"):
        parse(content, "queues.json")
    assert load(host, content).code < 0  # died by a signal


def test_what_accel_config_saves_can_be_read(show: Show) -> None:
    host = show(SimHost.host_for("dsa8"))
    configs = short_form(host, 2)
    load(host, text(configs))
    saved = "/run/dsatier/saved.json"
    host.keep(saved, "")
    host.run(("accel-config", "save-config", "-s", host.resolve(saved)), DEADLINE)
    parsed = parse(host.read(saved), saved)
    assert {"dsa0", "dsa1"} == {config.id for config in parsed if config.queues}
    assert () == left(host, tuple(c for c in parsed if c.queues))


def test_a_write_that_the_kernel_never_answers(show: Show) -> None:
    host = show(SimHost.host_for("dsa8"))
    host.write("/sim/inject", json.dumps({"kind": "hung-write", "path": LIMIT}), 5.0)
    with pytest.raises(Hung, match=r"has not returned in 0\.2 s"):
        host.write(LIMIT, "4\n", 0.2)
    # the agent itself goes on
    assert "8\n" == host.read(LIMIT)
    host.write("/proc/sys/vm/dsa_copy_threshold", "32\n", 5.0)
    assert "32\n" == host.read("/proc/sys/vm/dsa_copy_threshold")


def test_facts_are_those_of_the_host_behind_the_files(show: Show) -> None:
    sim = SimHost.host_for("swap-on")
    expected = observe(sim)
    found = Observer(show(sim)).look()
    assert replace(expected, accel_config="3.5.3") == found
