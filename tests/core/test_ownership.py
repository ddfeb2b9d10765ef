# SPDX-License-Identifier: Apache-2.0
"""Whose a thing is: the ledger of what dsatier wrote, and devices whose names move."""

from __future__ import annotations

from dataclasses import replace

from dsatier.facts.model import Facts, Swap
from dsatier.facts.tiers import USUAL
from dsatier.plan.originals import Originals
from dsatier.plan.ownership import claimed, owned, remaining, settled, stands, taken_over
from dsatier.plan.projection import project
from dsatier.plan.requests import (
    LoadDevice,
    Request,
    SetCpu,
    SetKnob,
    SetTimer,
    StopDevice,
    SwapOff,
    SwapOn,
    device_of,
)
from dsatier.plan.restore import from_originals
from dsatier.plan.short_form import expand
from dsatier.profile.model import QueueShape
from dsatier.queues.config import captured
from tests.support import build

HOST = build.facts(swaps=(Swap("/dev/sda3", build.GIB, 0, -2),))
AREA = HOST.swaps[0]
LOAD = LoadDevice(expand(QueueShape(("dsa0",)), HOST.devices, driver_names=True)[0])
USERS = replace(
    LOAD.device,
    queues=(replace(LOAD.device.queues[0], type="user", name="app", driver_name="user"),),
)
"""The configuration of somebody whom the device serves."""


def after(facts: Facts, *requests: Request) -> Facts:
    """Return the facts when all that was asked is done."""
    for request in requests:
        facts = project(facts, request, USUAL)
    return facts


def wrote(facts: Facts, *requests: Request, before: Originals | None = None) -> Originals:
    """Return the originals of what ``requests`` write on that host."""
    return claimed(before, facts, USUAL, requests, 0.0)


def test_each_request_stands_until_somebody_writes() -> None:
    there = after(HOST, SwapOff(AREA), SetCpu(16, online=False), LOAD)
    for request, undone in (
        (SetKnob("limit_chans", 4), SetKnob("limit_chans", 2)),
        (SetCpu(17, online=False), SetCpu(17, online=True)),
        (SetCpu(16, online=True), SetCpu(16, online=False)),
        (LoadDevice(USERS), StopDevice("dsa0")),
        (StopDevice("dsa0"), LOAD),
        (SwapOn(AREA), SwapOff(AREA)),
    ):
        done = after(there, request)
        assert (True, False) == (stands(request, done), stands(request, after(done, undone)))
    assert not stands(SetTimer(on=True), HOST)
    assert not stands(StopDevice("dsa9"), HOST)


def test_a_device_is_ours_for_as_long_as_all_its_queues_are() -> None:
    """One that is half configured is ours, one to which somebody added a queue is not."""
    loaded = after(HOST, LOAD)
    first, *rest = loaded.devices
    half = replace(first, queues=(first.queues[0], *(q for q in HOST.devices[0].queues[1:])))
    added = replace(first.queues[-1], state="enabled", type="user", name="app")
    more = (*first.queues[:-1], added)
    for device, ours in ((first, True), (half, True), (replace(first, queues=more), False)):
        assert ours == stands(LOAD, replace(loaded, devices=(device, *rest)))


def test_only_what_was_written_has_an_original() -> None:
    before = wrote(HOST, SetKnob("limit_chans", 4), SetCpu(17, online=False), LOAD)
    assert {"limit_chans": 8} == before.knobs
    assert ((17,), (), (), ("dsa0",)) == (
        before.online_cpus,
        before.swaps,
        before.devices,
        before.idle_devices,
    )
    # and the first one counts, whatever was there when it was written again
    later = after(HOST, SetKnob("limit_chans", 2), SetKnob("limit_mt_num", 2))
    again = wrote(later, SetKnob("limit_chans", 4), SetKnob("limit_mt_num", 1), before=before)
    assert {"limit_chans": 8, "limit_mt_num": 2} == again.knobs


def test_a_change_that_goes_on_may_have_left_any_of_its_values() -> None:
    """When it is done, only the last one counts."""
    pause, resume = SetKnob("numa_balancing", 0), SetKnob("numa_balancing", 1)
    there = after(HOST, resume)
    going = wrote(there, pause, resume)
    assert {"numa_balancing": 1} == owned(going, after(there, pause)).knobs
    done = settled(going, (pause, resume))
    assert (resume,) == done.written
    assert {} == owned(done, after(there, pause)).knobs
    # the same again is nothing new
    assert done == wrote(there, resume, before=done)


def test_another_boot_owns_nothing() -> None:
    before = wrote(HOST, SetKnob("limit_chans", 4))
    booted = replace(HOST, kernel=replace(HOST.kernel, boot_id="boot-2"))
    assert {} == owned(before, after(booted, SetKnob("limit_chans", 4))).knobs
    fresh = wrote(booted, SetKnob("limit_mt_num", 2), before=before)
    assert ("boot-2", {"limit_mt_num": 4}) == (fresh.boot_id, fresh.knobs)


def test_what_others_have_written_since_is_told() -> None:
    before = wrote(HOST, SetKnob("limit_chans", 4), LOAD)
    there = after(HOST, SetKnob("limit_chans", 2), LoadDevice(USERS))
    assert (
        "limit_chans is left at 2 (was 8): somebody else has set it since",
        "dsa0 is left as it is: somebody else has configured it since",
    ) == taken_over(before, there)
    back = from_originals(before, there, USUAL)
    assert ({}, (), ()) == (back.knobs, back.queues, back.stopped)
    # back at what was found, there is nothing to tell
    assert () == taken_over(before, HOST)


def test_what_is_left_to_go_back() -> None:
    writes = (SetKnob("limit_chans", 4), SetCpu(17, online=False), SwapOff(AREA), LOAD)
    before = wrote(HOST, *writes)
    there = after(HOST, *writes)
    left = remaining(before, there)
    assert left is not None
    assert set(writes) == set(left.written or ())
    some = remaining(before, after(there, SetKnob("limit_chans", 8), SwapOn(AREA)))
    assert some is not None
    assert ({}, (17,), ()) == (some.knobs, some.online_cpus, some.swaps)
    assert remaining(before, HOST) is None


def moved(facts: Facts) -> Facts:
    """Return the facts when the first two devices have changed their names."""
    one, two, *rest = facts.devices
    swapped = (replace(one, pci=two.pci), replace(two, pci=one.pci))
    return replace(facts, devices=(*swapped, *rest))


def test_a_device_is_known_by_its_address() -> None:
    """What served somebody as dsa0 goes back to it under the name that it has now."""
    serving = after(HOST, LoadDevice(USERS))
    before = wrote(serving, StopDevice("dsa0"), LOAD)
    # unbound and bound in another order: both devices are off and have the other's name
    there = moved(after(HOST, StopDevice("dsa0")))
    (config,) = from_originals(before, there, USUAL).queues
    assert ("dsa1", "wq1.0", "engine1.0") == (config.id, config.queues[0].id, config.engines[0].id)
    # and what is at the old name is nobody's business
    again = wrote(there, LOAD, before=before)
    assert ["dsa1", "dsa1", "dsa0"] == [device_of(request) for request in again.written or ()]
    assert ("dsa0",) == again.idle_devices


def test_a_device_that_is_gone_makes_room_for_its_name() -> None:
    serving = after(HOST, LoadDevice(USERS))
    before = wrote(serving, StopDevice("dsa0"), LOAD)
    gone = replace(serving, devices=(replace(serving.devices[1], id="dsa0"),))
    assert ((), ()) == (owned(before, gone).devices, owned(before, gone).idle_devices)
    later = wrote(gone, StopDevice("dsa0"), before=before)
    assert 2 == len({name for name in (later.addresses or {}) if name in ("dsa0", "dsa2")})
    # when it is back, it has its original still
    back = replace(HOST, devices=(*gone.devices, replace(HOST.devices[0], id="dsa5")))
    assert ["dsa5"] == [config.id for config in owned(later, back).devices]


def test_a_queue_without_a_name_can_be_kept() -> None:
    """idxd takes one; an original that cannot be read again would be worth nothing."""
    nameless = replace(after(HOST, LoadDevice(USERS)).devices[0])
    nameless = replace(nameless, queues=tuple(replace(q, name="") for q in nameless.queues))
    assert ["wq0.0"] == [queue.name for queue in captured(nameless).queues]
