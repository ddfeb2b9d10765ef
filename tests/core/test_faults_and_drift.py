# SPDX-License-Identifier: Apache-2.0
"""Faults are told from drift, drift from a fight, and conditions keep their times."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dsatier.apply.drift import contested, noted
from dsatier.apply.driver import Driver
from dsatier.apply.faults import fault
from dsatier.apply.records import Record, Repair, with_conditions
from dsatier.apply.target import Target
from dsatier.facts.knobs import ENGINES, KNOBS, KnobName
from dsatier.facts.model import Facts, OtherWriter, Swap
from dsatier.facts.tiers import USUAL
from dsatier.plan.desired import engine_off, from_profile, with_cpu_engine
from dsatier.plan.model import Desired, Step
from dsatier.plan.requests import LoadDevice, Request, SetCpu, SetKnob, StopDevice, SwapOff
from dsatier.profile.model import DriftPolicy, DsaEngine, Profile, QueueShape, Tiering, Tiers
from dsatier.queues.config import captured
from dsatier.sim.faults import VanishedQueue
from tests.support import build
from tests.support.hosts import put
from tests.support.scenarios import LIVE, QUEUED, halted, knobs
from tests.support.scene import BALANCING, apply, engine_on, look, reconcile, small

RUNNING = Record(state="converged", boot_id="boot-1", engine_live=True, copy_fails=2)
QUIET_TIMER = {"dsa_copy_fail": 2}
HEALTHY = {family: replace(host, timer=QUIET_TIMER) for family, host in LIVE.items()}
WANTED = Desired(
    knobs=ENGINES["dsa"],
    queues=tuple(captured(d) for d in QUEUED["ours"].devices),
)
COMPLAINT = "idxd_desc[0][3] failed with status 0x14"


def device(host: Facts, **changes: object) -> Facts:
    """The host with its first device changed."""
    return replace(host, devices=(replace(host.devices[0], **changes), *host.devices[1:]))  # type: ignore[arg-type]


def queue_off(host: Facts) -> Facts:
    """The host with a queue disabled that the kernel still counts as held."""
    first = host.devices[0]
    return device(host, queues=(replace(first.queues[0], state="disabled"), *first.queues[1:]))


def channels(host: Facts, count: int) -> Facts:
    """The host with only so many channels."""
    return replace(host, channels=host.channels[:count])


@pytest.mark.parametrize("family", ["ours", "seed"])
def test_a_running_engine_has_no_fault(family: str) -> None:
    assert fault(RUNNING, HEALTHY[family], WANTED, ("idxd 0000:6a:01.0: enabled",)) is None


CAUSES = (
    # the words,                                             what the host looks like
    ("dsa0 halted", halted),
    ("7 DMA channels in use of 8: a work queue vanished", lambda host: channels(host, 7)),
    ("use_dsa_copy_pages went to 0 by itself", lambda host: knobs(host, use_dsa_copy_pages=0)),
    ("dsa_state went to 0 by itself", lambda host: knobs(host, dsa_state=0)),
    ("dsa0 is disabled", lambda host: device(host, state="disabled")),
    ("wq0.0 is disabled", queue_off),
    (
        "dsa_copy_fail rose from 2 to 3",
        lambda host: replace(host, timer={"dsa_copy_fail": 3}),
    ),
)


@pytest.mark.parametrize("family", ["ours", "seed"])
@pytest.mark.parametrize(("words", "change"), CAUSES, ids=[words for words, _ in CAUSES])
def test_each_cause_is_a_fault(family: str, words: str, change: object) -> None:
    host = change(HEALTHY[family])  # type: ignore[operator]
    if family == "seed" or "by itself" not in words:
        assert words == fault(RUNNING, host, WANTED, ())
    expected = f"{words} (kernel log: {COMPLAINT})"
    assert expected == fault(RUNNING, host, WANTED, ("harmless", COMPLAINT))


def test_who_turned_the_engine_off() -> None:
    """Our kernel says so where it was the kernel; a seed kernel may not."""
    for knob in ("use_dsa_copy_pages", "dsa_state"):
        ours, seed = (knobs(HEALTHY[family], **{knob: 0}) for family in ("ours", "seed"))
        by_hand = f"{knob} was set to 0 by somebody: the kernel log tells of no fault"
        assert by_hand == fault(RUNNING, ours, WANTED, ("harmless",))
        assert f"{knob} went to 0 by itself" == fault(RUNNING, seed, WANTED, ("harmless",))


@pytest.mark.parametrize(("words", "change"), CAUSES, ids=[words for words, _ in CAUSES])
def test_it_is_none_on_another_boot_or_without_a_live_engine(words: str, change: object) -> None:
    host = change(HEALTHY["seed"])  # type: ignore[operator]
    assert fault(replace(RUNNING, boot_id="boot-0"), host, WANTED, (COMPLAINT,)) is None
    assert fault(replace(RUNNING, engine_live=False), host, WANTED, (COMPLAINT,)) is None


@pytest.mark.parametrize(
    "line",
    [
        COMPLAINT,
        "Failed to initialize DSA",
        "idxd 0000:6a:01.0: idxd halted, need FLR",
        "DMAR: [DMA Write NO_PASID] Request device [6a:01.0] fault addr 0x0",
        "dsatier: channel 3 failed, copying by CPU",
        "BUG: kernel NULL pointer dereference, address: 0",
    ],
)
def test_a_complaint_alone_is_a_fault(line: str) -> None:
    expected = f"the kernel log complains: {line}"
    assert expected == fault(RUNNING, HEALTHY["ours"], WANTED, ("x", line))


def test_what_is_no_fault() -> None:
    host = HEALTHY["ours"]
    for other in (
        # counters that somebody has cleared, and a kernel without them
        replace(host, timer={"dsa_copy_fail": 0}),
        replace(host, timer={}),
        # drift: nothing of it is the engine
        knobs(host, dsa_copy_threshold=99, numa_balancing=2),
        # a device that nobody named, of which the engine holds nothing
        replace(host, devices=(*host.devices, build.device(8))),
        # and that has halted: it is somebody else's
        replace(host, devices=(*host.devices, replace(build.device(8), state="halted"))),
    ):
        assert fault(RUNNING, other, WANTED, ()) is None


def test_a_device_in_use_that_nobody_named_faults_the_engine() -> None:
    """The engine takes any queue that is free."""
    host = HEALTHY["ours"]
    unnamed = replace(WANTED, queues=())
    assert fault(RUNNING, halted(host), unnamed, ()) == "dsa0 halted"
    free = replace(host, channels=tuple(replace(c, in_use=0) for c in host.channels))
    idle = knobs(free, dsa_state=0)
    assert "halted" not in str(fault(RUNNING, halted(idle), unnamed, ()))


def test_a_queue_beyond_the_profile_is_no_fault() -> None:
    few = replace(WANTED, queues=WANTED.queues[1:])
    assert fault(RUNNING, queue_off(HEALTHY["ours"]), few, ()) is None
    assert fault(RUNNING, device(HEALTHY["ours"], state="disabled"), few, ()) is None


SPOILT = (
    ({"limit_chans": 3}, "limit_chans: expected 1, 2, 4 or 8 on a seed kernel, found 3"),
    ({"limit_chans": 0}, "limit_chans: expected 1 to 8, found 0"),
    ({"limit_chans": -1}, "limit_chans: expected 1 to 8, found -1"),
    ({"limit_chans": 4, "use_concur_to_demote": 1}, "limit_chans is 4 with concurrent migration"),
    ({"limit_chans": 4, "use_concur_to_compact": 1}, "limit_chans is 4 with concurrent migration"),
    ({"dsa_async_mode": 1}, "dsa_async_mode is 1"),
)


@pytest.mark.parametrize(("values", "words"), SPOILT, ids=[words for _, words in SPOILT])
def test_settings_that_spoil_pages_under_a_live_seed_engine(
    values: dict[str, int], words: str
) -> None:
    host = knobs(HEALTHY["seed"], **values)
    assert str(fault(RUNNING, host, WANTED, ())).startswith(words)
    assert fault(RUNNING, knobs(HEALTHY["ours"], **values), WANTED, ()) is None


THREADS = Desired(knobs=ENGINES["multithread"])


def threaded(count: int) -> Facts:
    """A seed host whose CPU threads copy, with so many of them."""
    host = build.facts("seed")
    values = {"cpu_multi_copy_pages": "1", "limit_mt_num": str(count)}
    return replace(host, knobs={**host.knobs, **values})


def test_threads_that_lose_bytes_are_a_fault() -> None:
    record = replace(RUNNING, engine_live=False)
    assert None is fault(record, threaded(4), THREADS, ())
    assert "limit_mt_num is 3" in str(fault(record, threaded(3), THREADS, ()))
    named = replace(THREADS, knobs={**ENGINES["multithread"], "limit_mt_num": 4})
    assert None is fault(record, threaded(3), named, ())  # drift: the repair knows the number
    assert None is fault(record, threaded(3), Desired(), ())


def test_the_breaker_stops_threads_that_lose_bytes() -> None:
    off = engine_off(threaded(3), USUAL, stop_tiering=False)
    assert 0 == off.wants("cpu_multi_copy_pages")
    assert None is engine_off(threaded(4), USUAL, stop_tiering=False).wants("cpu_multi_copy_pages")
    kept = with_cpu_engine(THREADS, threaded(3))
    assert (0, 0) == (kept.wants("cpu_multi_copy_pages"), kept.wants("use_dsa_copy_pages"))


def test_fewer_channels_that_copy_right_are_no_fault() -> None:
    assert fault(RUNNING, knobs(HEALTHY["seed"], limit_chans=4), WANTED, ()) is None


def test_the_engine_goes_off_when_its_channels_change_under_it() -> None:
    host = small("tpp")
    assert "changed" == apply(host, "dsa").result
    assert "1" == look(host).knobs["use_concur_to_demote"]
    put(host, "limit_chans", 4)
    outcome = reconcile(host, "dsa")
    assert ("degraded", False) == (outcome.result, engine_on(host))


def test_a_profile_that_asks_for_more_than_is_there_is_no_fault() -> None:
    """The engine runs on two devices; a profile for three is a change, not a fault."""
    host = small("ours", devices=[{"queues": 4, "engines": 1, "groups": 1}] * 3)
    two, three = (
        Profile(1, engine=DsaEngine("dsa", limit_chans=8, work_queues=shape))
        for shape in (QueueShape(2, engines=1, queues=4), QueueShape(3, engines=1, queues=4))
    )
    driver = Driver(host)
    first = Target(from_profile(two, driver.look()), "two")
    second = Target(from_profile(three, driver.look()), "three")
    assert "changed" == driver.apply(first).result
    told = driver.reconcile(second, act=False)
    assert "pending" == told.result
    outcome = driver.reconcile(second)
    assert ("changed", "converged") == (outcome.result, Driver(host).recover().state)
    # what is in force has to stay
    host.inject(VanishedQueue("vanished-queue", "wq2.0"))
    host.sleep(0.1)
    assert "degraded" == driver.reconcile(second).result


POLICY = DriftPolicy(fights=3, window=600.0)
ITEM = "/proc/sys/kernel/numa_balancing = 2"
HOST = build.facts()


def step(request: Request, what: str = ITEM) -> Step:
    """A step of one request."""
    return Step(1, "tiering", "up", what, "", "", "", (request,), 0.0, (), (), 10.0)


STEP = step(SetKnob("numa_balancing", 2))
OTHER = step(SetKnob("thp_enabled", 1), "other")


def repairs(*times: float, item: str = ITEM) -> Record:
    """A record with repairs at these times."""
    return Record(state="converged", repairs=tuple(Repair(item, at) for at in times))


@pytest.mark.parametrize(
    ("record", "fought"),
    [
        (repairs(), False),
        (repairs(900, 950), False),
        (repairs(900, 950, 990), True),
        (repairs(400, 950, 990), True),  # the window has its edge in it
        (repairs(399, 950, 990), False),  # and nothing beyond it
        (repairs(900, 950, 1001), False),  # from the future: another boot's clock
        (repairs(900, 950, 990, item="something else"), False),
    ],
    ids=str,
)
def test_repairs_within_the_window_make_a_fight(record: Record, fought: bool) -> None:
    found = contested(record, (STEP,), POLICY, 1000.0, HOST)
    assert fought == (found is not None)
    if found is not None:
        assert (ITEM, 3, 600.0) == (found.item, found.times, found.window)


def test_any_item_makes_a_fight() -> None:
    assert contested(repairs(1, 2, 3), (OTHER, STEP), POLICY, 4.0, HOST) is not None
    assert contested(repairs(1, 2, 3), (), POLICY, 4.0, HOST) is None


def test_a_fight_that_was_given_up_stays_so() -> None:
    given_up = Record(state="drifted", reason="Contested")
    found = contested(given_up, (STEP,), POLICY, 1e9, HOST)
    assert found is not None
    assert ITEM == found.item
    assert contested(replace(given_up, reason="Drift"), (STEP,), POLICY, 1e9, HOST) is None
    assert contested(replace(given_up, state="converged"), (STEP,), POLICY, 1e9, HOST) is None


def test_a_tool_is_suspected_of_its_own_knob_alone() -> None:
    names: tuple[KnobName, ...] = ("numa_balancing", "promote_rate_limit_MBps", "thp_enabled")
    for name in names:
        item = f"{KNOBS[name].path} = {KNOBS[name].spelt(1)}"
        for other in names:
            host = replace(HOST, others=(OtherWriter("TuneD", "/etc/t", (other,)),))
            drifted = step(SetKnob(name, 1), item)
            found = contested(repairs(1, 2, 3, item=item), (drifted,), POLICY, 4.0, host)
            assert found is not None
            assert bool(found.suspects) == (other == name)


def test_the_suspects_are_named() -> None:
    tuned = OtherWriter("TuneD", "/etc/tuned/db/tuned.conf", ("swappiness", "numa_balancing"))
    kubelet = OtherWriter("kubelet", "/var/lib/kubelet/config.yaml", ("cpus",))
    host = replace(HOST, others=(tuned, kubelet))
    found = contested(repairs(1, 2, 3), (STEP,), POLICY, 4.0, host)
    assert found is not None
    assert ("TuneD (/etc/tuned/db/tuned.conf)",) == found.suspects
    assert (
        f"gave up on {ITEM}: repaired 3 times in 600 s and gone again; "
        "the other writer: TuneD (/etc/tuned/db/tuned.conf)"
    ) == str(found)


@pytest.mark.parametrize(
    ("written", "suspects"),
    [
        (SetCpu(16, online=False), ("kubelet (/var/lib/kubelet/config.yaml)",)),
        (LoadDevice(captured(QUEUED["ours"].devices[0])), ("accel-config (/etc/a.conf)",)),
        (StopDevice("dsa0"), ("accel-config (/etc/a.conf)",)),
        (SwapOff(Swap("/cpus", 1, 0, -1)), ()),
    ],
)
def test_a_tool_is_suspected_of_what_it_writes_and_not_by_words(
    written: Request, suspects: tuple[str, ...]
) -> None:
    kubelet = OtherWriter("kubelet", "/var/lib/kubelet/config.yaml", ("cpus",))
    queues = OtherWriter("accel-config", "/etc/a.conf", ("queues",))
    host = replace(HOST, others=(kubelet, queues))
    drifted = step(written, "cpus and queues")
    record = repairs(1, 2, 3, item="cpus and queues")
    found = contested(record, (drifted,), POLICY, 4.0, host)
    assert found is not None
    assert suspects == found.suspects
    given_up = Record(state="drifted", reason="Contested")
    found = contested(given_up, (drifted,), POLICY, 4.0, host)
    assert found is not None
    assert suspects == found.suspects


def test_where_nobody_is_known_it_says_how_to_look() -> None:
    found = contested(repairs(1, 2, 3), (STEP,), POLICY, 4.0, HOST)
    assert found is not None
    assert () == found.suspects
    assert "auditctl" in str(found)


def test_a_repair_is_noted_and_old_ones_are_forgotten() -> None:
    record = noted(repairs(100, 500, 2000), ("a", "b"), 1000.0, 600.0)
    assert (Repair(ITEM, 500), Repair("a", 1000.0), Repair("b", 1000.0)) == record.repairs
    assert 1 == record.repaired
    again = noted(record, ("a",), 1100.0, 600.0)
    assert (2, 4) == (again.repaired, len(again.repairs))


def test_repairs_that_are_noted_become_a_fight() -> None:
    record = repairs()
    for now in (10.0, 20.0, 30.0):
        assert contested(record, (STEP,), POLICY, now, HOST) is None
        record = noted(record, (ITEM,), now, POLICY.window)
    assert contested(record, (STEP,), POLICY, 40.0, HOST) is not None
    assert contested(record, (STEP,), POLICY, 700.0, HOST) is None


def truths(record: Record) -> dict[str, tuple[str, str, float]]:
    """Status, reason and time of each condition."""
    return {c.type: (c.status, c.reason, c.last_transition_time) for c in record.conditions}


def test_a_condition_keeps_its_time_until_it_changes() -> None:
    first = with_conditions(Record(state="converging", reason="Applying"), 10.0)
    assert ("False", "Applying", 10.0) == truths(first)["Converged"]
    assert ("True", "Applying", 10.0) == truths(first)["Progressing"]
    same = with_conditions(replace(first, reason="Repairing"), 20.0)
    assert ("False", "Repairing", 10.0) == truths(same)["Converged"]
    there = with_conditions(replace(same, state="converged", reason="Proven"), 30.0)
    assert ("True", "Proven", 30.0) == truths(there)["Converged"]
    assert ("False", "Proven", 30.0) == truths(there)["Progressing"]
    assert ("False", "NoFault", 10.0) == truths(there)["EngineFaulted"]
    # a clock that was set back moves nothing that has not changed
    assert truths(there) == truths(with_conditions(there, 5.0))


def test_conditions_follow_from_the_record() -> None:
    faulted = Record(state="degraded", reason="EngineFault", latch="fault", latch_reason="dsa0")
    found = truths(with_conditions(faulted, 1.0))
    assert ("True", "Latched", 1.0) == found["EngineFaulted"]
    assert ("False", "NoCrash", 1.0) == found["Quarantined"]
    crashed = Record(state="quarantined", reason="UncleanEnd", latch="crash", latch_reason="step 3")
    found = truths(with_conditions(crashed, 1.0))
    assert ("True", "UncleanEnd", 1.0) == found["Quarantined"]
    assert ("False", "NoFault", 1.0) == found["EngineFaulted"]
    stuck = Record(state="reboot-required", reason="dsa-can-be-freed", message="reboot")
    kept = {c.type: c for c in with_conditions(stuck, 1.0).conditions}
    assert ("True", "dsa-can-be-freed", "reboot") == (
        kept["RebootRequired"].status,
        kept["RebootRequired"].reason,
        kept["RebootRequired"].message,
    )
    assert "False" == kept["Converged"].status


def test_tpp_is_given_its_mode_again_where_it_has_forgotten_it() -> None:
    """Mode 3 that was written while the slow node had CPUs gives no demotion mark, ever."""
    host = small("tpp")
    host.write(BALANCING, "3\n", 1.0)
    assert [0, 0] == [node.demotion_watermark for node in look(host).nodes]
    both = Profile(
        version=1,
        tiers=Tiers(slow_node=1, cpuless=True),
        tiering=Tiering(demotion_enabled=True, numa_balancing=3, swap="off"),
    )
    assert "changed" == apply(host, both).result
    assert [True, False] == [bool(node.demotion_watermark) for node in look(host).nodes]
    assert "unchanged" == apply(host, both).result
