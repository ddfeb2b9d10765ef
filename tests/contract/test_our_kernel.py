# SPDX-License-Identifier: Apache-2.0
"""What our kernel does when devices fail, in the simulation and through files of a tree.

It goes on without the channel, and the last one takes the engine with it. The words of its log are
those of the patches.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from dsatier.facts.kernel_complaints import complaints
from dsatier.facts.observe.observer import observe
from dsatier.facts.readings import held
from dsatier.host.port import Host
from dsatier.sim import faults
from dsatier.sim.host import SimHost
from tests.contract.conftest import Make
from tests.sim.simhosts import config, get, host, load, put, ready

USE, STATE = "use_dsa_copy_pages", "dsa_state"
UNBIND = "/sys/bus/dsa/drivers/dmaengine/unbind"
LAST = "copying by CPU, use_dsa_copy_pages reads 0"


def live(chans: int) -> SimHost:
    """Return a host with as many devices as channels, all of which copy."""
    h = ready("ours", chans)
    put(h, "limit_chans", chans)
    put(h, STATE, 1)
    put(h, USE, 1)
    return h


def halt(h: SimHost, device: int) -> None:
    h.inject(faults.Halt("halt", f"dsa{device}"))
    h.sleep(0.1)


def unbind(h: SimHost, device: int) -> None:
    h.poke(UNBIND, f"wq{device}.0")


def said(back_end: Host, mark: int) -> list[str]:
    """Return what the engine has said since ``mark``."""
    back_end.sleep(0.0)  # files follow
    return [line for line in back_end.log_since(mark).lines if line.startswith("dsatier: ")]


GOES: dict[str, tuple[Callable[[SimHost, int], None], str]] = {
    "its device halts": (halt, "its device halted"),
    "its queue goes": (unbind, "its queue is being disabled"),
}


@pytest.mark.parametrize(("go", "why"), GOES.values(), ids=GOES)
def test_the_engine_goes_on_with_the_channels_that_are_left(
    go: Callable[[SimHost, int], None], why: str, make: Make
) -> None:
    h = live(3)
    back_end = make(h)
    for device, after in ((1, "out of use, channels left: 2"), (0, "out of use, channels left: 1")):
        mark = back_end.log_mark()
        go(h, device)
        assert get(h, USE) == "1"
        line = f"dsatier: wq{device}.0: {why}: {after}"
        assert said(back_end, mark) == [line]
        assert complaints((line,), observe(back_end)) == (line,)
    mark = back_end.log_mark()
    go(h, 2)
    assert (get(h, USE), get(h, STATE)) == ("0", "1")
    assert said(back_end, mark) == [f"dsatier: wq2.0: {why}: {LAST}"]
    put(back_end, STATE, 0)
    assert held(observe(back_end)) == ()
    assert h.harm == []


def test_a_release_gives_back_the_channel_of_a_device_that_halted(make: Make) -> None:
    """It is done with all that it had: nothing is held for good."""
    h = live(2)
    halt(h, 0)
    assert get(h, "/sys/bus/dsa/devices/wq0.0/clients") == "1"
    put(h, USE, 0)
    put(h, STATE, 0)
    facts = observe(make(h))
    assert [queue.clients for device in facts.devices for queue in device.queues] == [0] * sum(
        len(device.queues) for device in facts.devices
    )
    assert h.harm == []


def test_a_device_that_halts_unused_is_found_by_the_first_list(make: Make) -> None:
    h = live(2)
    put(h, USE, 0)
    back_end = make(h)
    mark = back_end.log_mark()
    halt(h, 0)
    assert said(back_end, mark) == []
    put(h, USE, 1)
    line = "dsatier: wq0.0: its device halted: out of use, channels left: 1"
    assert said(back_end, mark) == [line]
    assert get(h, USE) == "1"


def test_pages_of_a_descriptor_that_failed_are_left_to_the_cpu(make: Make) -> None:
    h = live(2)
    put(h, "use_concur_to_demote", 1)
    back_end = make(h)
    mark = back_end.log_mark()
    h.inject(faults.CopyFailures("copy-failures", every=1.0, times=1))
    h.sleep(2)
    line = "dsatier: wq0.0: descriptor failed with status 0x3: its pages are left to the CPU"
    assert said(back_end, mark) == [line]
    assert (get(h, USE), observe(back_end).timer["dsa_copy_fail"]) == ("1", 1)


def test_channels_that_fail_are_tried_again_when_the_engine_is_turned_on(make: Make) -> None:
    h = live(2)
    back_end = make(h)
    mark = back_end.log_mark()
    h.inject(faults.SelfClear("self-clear"))
    h.sleep(1)
    why = "8 descriptors in a row failed, the last with status 0x3"
    assert said(back_end, mark) == [
        f"dsatier: wq0.0: {why}: out of use, channels left: 1",
        f"dsatier: wq1.0: {why}: {LAST}",
    ]
    assert get(h, USE) == "0"
    h.heal("self-clear")
    put(h, USE, 1)
    h.sleep(60)
    assert get(h, USE) == "1"
    assert h.kernel.state.engine.out == ()


def test_a_device_that_does_not_let_go_keeps_its_pages_and_its_queue(make: Make) -> None:
    h = live(2)
    back_end = make(h)
    mark = back_end.log_mark()
    h.inject(faults.LateCompletion("late-completion", "dsa0", after=1.0, late=60.0))
    h.sleep(2)
    put(h, USE, 0)
    put(h, STATE, 0)
    assert said(back_end, mark) == [
        "dsatier: wq0.0: no completion in 2000 ms, pages quarantined until a reset: "
        "out of use, channels left: 1",
        "dsatier: wq0.0: the device does not let go of pages: the queue stays in use until it is "
        "reset",
    ]
    assert get(h, "/sys/bus/dsa/devices/wq0.0/clients") == "1"
    h.sleep(60)
    assert get(h, "/sys/bus/dsa/devices/wq0.0/clients") == "0"
    done = "dsatier: wq0.0: the device is done, 1 parts of pages are back in use"
    assert said(back_end, mark)[2:] == [done]
    put(h, STATE, 1)
    assert h.harm == []


def test_channels_are_spread_over_devices(make: Make) -> None:
    """One queue of each device, then a second one of each."""
    h = host("ours", devices=2)
    devices = json.loads(config(2, size=64))
    for device in devices:
        group = device["groups"][0]
        first = group["grouped_workqueues"][0]
        second = {**first, "dev": first["dev"].replace(".0", ".1")}
        group["grouped_workqueues"] = [first, second]
    assert load(h, json.dumps(devices)) == 0
    put(h, "limit_chans", 3)
    put(h, STATE, 1)
    facts = observe(make(h))
    assert {channel.queue for channel in held(facts)} == {"wq0.0", "wq1.0", "wq0.1"}


def test_an_engine_without_a_channel_is_on_and_copies_nothing(make: Make) -> None:
    h = live(1)
    put(h, USE, 0)
    unbind(h, 0)
    put(h, USE, 1)
    h.inject(faults.SelfClear("self-clear"))
    h.sleep(60)
    assert get(h, USE) == "1"
    assert held(observe(make(h))) == ()
    put(h, USE, 0)
    put(h, STATE, 0)
    assert h.harm == []
