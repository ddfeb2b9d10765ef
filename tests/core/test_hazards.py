# SPDX-License-Identifier: Apache-2.0
"""What can hurt a host, and what guards against it: the whole list, each row shown at work.

``HAZARDS`` names for each row the tests that show it: here, or in another file of the tests.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dsatier.apply import lifecycle
from dsatier.apply.driver import Driver
from dsatier.apply.faults import fault
from dsatier.apply.records import Record
from dsatier.base.paths import MOTION, RECORD
from dsatier.base.problem import Invalid
from dsatier.facts.knobs import ENGINES, KnobName
from dsatier.facts.model import Facts, OtherWriter, Swap
from dsatier.facts.tiers import USUAL
from dsatier.host.port import LogTail
from dsatier.plan import requests
from dsatier.plan.desired import from_profile
from dsatier.plan.evidence import CleanLog, Configured, CpusAre, Evidence, Held, Quiet, Watermark
from dsatier.plan.interlock import Circumstances, refusals
from dsatier.plan.ladder import LADDER
from dsatier.plan.model import Desired, Plan, Step
from dsatier.plan.originals import originals
from dsatier.plan.rehearsal import prepare
from dsatier.plan.requests import LoadDevice, Request, SetCpu, SetKnob, StopDevice, SwapOff, SwapOn
from dsatier.plan.restore import cpu_only, from_originals, not_restored, not_resumed
from dsatier.plan.short_form import expand
from dsatier.profile.check import check_text
from dsatier.profile.load import from_texts
from dsatier.profile.model import DriftPolicy, DsaEngine, Profile, QueueShape, Tiering, Tiers
from dsatier.queues.accel_config import parse, text
from dsatier.queues.config import captured, differences
from dsatier.sim.faults import (
    CopyFailures,
    Crash,
    FailedInit,
    FullDisk,
    Halt,
    HungCommand,
    HungWrite,
    LostLog,
    SelfClear,
    SimCrash,
    StuckCpu,
    SwapReturns,
    VanishedQueue,
)
from dsatier.sim.faults import (
    OtherWriter as Meddler,
)
from dsatier.sim.host import SimHost
from tests.core.ladder_checks import named
from tests.support import build, scenarios
from tests.support.build import GIB
from tests.support.scenarios import LIVE, OURS, QUEUED, SEED, cpuless, initialised, knobs
from tests.support.scene import BALANCING, apply, engine_on, look, reconcile, record, small, wanted

TESTS = Path(__file__).resolve().parents[1]
CONTRACT, CRASH = "contract/test_contract.py", "crash/test_crash.py"
DISK, UNFIT = "crash/test_disk.py", "crash/test_unfit.py"
APART, OWN, FILES = "contract/test_apart.py", "contract/test_ownfiles.py", "facts/test_queuefile.py"


@dataclass(frozen=True)
class Hazard:
    """A row: what can hurt, and the tests that show its guard at work."""

    words: str
    shown: tuple[str, ...]


def _row(words: str, *shown: str) -> Hazard:
    return Hazard(words, shown)


HAZARDS: tuple[Hazard, ...] = (
    _row(
        "the engine copies without descriptors, or they go while it copies",
        "test_the_engine_goes_on_last_and_off_first",
    ),
    _row("channels change under the kernel that counts them", "test_channels_change_below"),
    _row(
        "counts that make a seed kernel drop the last bytes",
        "test_counts_that_a_seed_kernel_cannot_divide_by",
        f"{UNFIT}::test_a_value_that_spoils_pages_stays_away_and_is_told",
    ),
    _row("asynchronous waiting", "test_asynchronous_mode_is_never_set"),
    _row(
        "a device that fails only on lists, with the knob still on",
        "test_a_rise_of_failed_copies_turns_the_engine_off",
    ),
    _row("a failed start that reads as a good one", "test_a_failed_start_is_seen_by_its_channels"),
    _row("freeing a start that failed", "test_a_half_start_of_a_seed_kernel_needs_a_reboot"),
    _row("the kernel turned the engine off", "test_an_engine_that_went_off_stays_off"),
    _row("a queue goes under the live engine", "test_a_queue_that_vanishes_turns_the_engine_off"),
    _row("queues too few or unfit", "test_capacity_is_asked_before_the_first_write"),
    _row(
        "accel-config reports success and has done nothing",
        "test_an_exit_code_proves_nothing",
        "system/accelconfig/test_accelconfig.py::"
        "test_exit_code_0_with_an_unknown_key_and_what_we_make_of_it",
    ),
    _row(
        "the shape of accel-config's files",
        "test_a_malformed_queue_file_is_refused",
        f"{FILES}::test_each_mistake_in_a_file_is_named_with_its_place",
    ),
    _row(
        "queues before devices, and settings that the driver refuses",
        "test_devices_and_their_queues_come_up_as_one",
        f"{FILES}::test_each_mistake_in_a_file_is_named_with_its_place",
    ),
    _row("a device that somebody else uses", "test_a_device_of_others_is_left_to_them"),
    _row("a watermark that is not computed", "test_the_watermark_comes_after_tiering"),
    _row(
        "tiering over CPUs",
        "test_tiering_waits_for_a_node_without_cpus",
        "test_tiering_that_must_not_be_is_not_brought_back",
        f"{UNFIT}::test_the_tiering_of_others_goes_on_and_what_it_forbids_waits",
    ),
    _row("a CPU of the slow node returns", "test_a_cpu_that_returns_is_drift"),
    _row(
        "CPUs that cannot go, or stop half-way",
        "test_cpus_that_cannot_go",
        "test_cpus_that_stop_half_way_come_back",
    ),
    _row(
        "swap under tiering",
        "test_swap_that_returns_is_drift",
        "test_release_brings_swap_back",
        "test_tiering_that_must_not_be_is_not_brought_back",
    ),
    _row("more swapped out than memory holds", "test_swap_that_does_not_fit_stays"),
    _row("addresses that the IOMMU translates", "test_the_doctor_names_the_boot_parameters"),
    _row(
        "a device that halted",
        "test_a_halted_device_is_a_fault_and_needs_a_reset",
        "test_what_a_halt_left_held_needs_a_reboot_and_says_so",
    ),
    _row(
        "a crash while the DSA comes up, at every boot",
        "test_a_crash_on_the_way_up_is_quarantined",
        f"{CRASH}::test_the_agent_dies",
    ),
    _row(
        "a write that never returns",
        "test_a_hung_write_is_named_by_its_step",
        f"{CONTRACT}::test_a_hung_write_is_told",
        f"{APART}::test_a_write_that_hangs_is_left_in_its_process_and_named",
    ),
    _row(
        "two that write",
        "test_another_writer_is_named_and_given_up_on",
        f"{CONTRACT}::test_the_lock_is_held_once_and_names_its_holder",
    ),
    _row(
        "a profile that is broken",
        "test_a_broken_profile_leaves_everything_as_it_is",
        "cli/test_commands.py::test_a_bad_profile_exits_with_65_and_touches_nothing",
    ),
    _row(
        "a full disk, a lost log, a clock that jumps, a kill",
        "test_no_journal_no_write",
        "test_a_lost_log_proves_nothing",
        f"{DISK}::test_a_disk_that_fills_up_during_apply",
        f"{DISK}::test_the_breaker_needs_no_disk",
        f"{DISK}::test_a_quarantine_needs_no_disk",
        f"{OWN}::test_a_full_or_read_only_disk_is_told",
        f"{CRASH}::test_the_agent_dies",
    ),
    _row("the daemon stops", "test_stopping_leaves_the_host_and_release_is_a_verb"),
    _row(
        "disabling a device without event log",
        "test_a_device_without_event_log_is_not_disabled_by_a_kernel_that_minds",
    ),
    _row(
        "accel-config's saved file does not load",
        "test_what_is_written_for_accel_config_loads_back",
        "system/accelconfig/test_accelconfig.py::test_what_accel_config_saves_can_be_read",
    ),
    _row("a device command that never ends", "test_a_hung_device_gets_no_second_command"),
    _row(
        "descriptors that go while a copy is still under way",
        "test_a_seed_kernel_settles_before_the_release",
    ),
)
ROWS = 32


def functions(path: Path) -> set[str]:
    """The names of a file's functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_row_is_shown_by_a_test_that_is_there() -> None:
    assert ROWS == len({hazard.words for hazard in HAZARDS}) == len(HAZARDS)
    for hazard in HAZARDS:
        assert hazard.shown
        for name in hazard.shown:
            path, _, test = name.rpartition("::")
            assert test in functions(TESTS / path if path else Path(__file__)), hazard.words


def test_every_test_here_shows_a_row() -> None:
    here = {name for name in functions(Path(__file__)) if name.startswith("test_")}
    shown = {name for hazard in HAZARDS for name in hazard.shown if "::" not in name}
    assert shown == here - {
        "test_every_row_is_shown_by_a_test_that_is_there",
        "test_every_test_here_shows_a_row",
    }


# -- questions --------------------------------------------------------------


def refused(request: Request, host: Facts, quiet: float = 60.0) -> set[str]:
    """The guards that refuse a request."""
    return {refusal.guard for refusal in refusals(request, Circumstances(host, quiet, USUAL))}


def asked(plan: Plan) -> list[Request]:
    """A plan's requests in order."""
    return [request for step in plan.steps for request in step.requests]


def step_of(plan: Plan, request: Request) -> Step:
    """The step that makes a request."""
    return next(step for step in plan.steps if request in step.requests)


def names(plan: Plan) -> set[str]:
    """The names of a plan's findings."""
    return {finding.name for finding in plan.findings}


def kinds(step: Step) -> set[type[Evidence]]:
    """The kinds of a step's evidence."""
    return {type(evidence) for evidence in step.evidence}


def usual(host: Facts, **more: int) -> Desired:
    """The DSA engine on the usual queues."""
    queues = expand(QueueShape(8), host.devices, driver_names=True)
    return Desired(knobs={**ENGINES["dsa"], "limit_chans": 8, **named(more)}, queues=queues)


def order(plan: Plan, *wanted_order: Request) -> bool:
    """Tell whether all of these are asked, and in this order."""
    found = asked(plan)
    places = [found.index(request) for request in wanted_order]
    return places == sorted(places)


USE, UNUSE = SetKnob("use_dsa_copy_pages", 1), SetKnob("use_dsa_copy_pages", 0)
START, STOP = SetKnob("dsa_state", 1), SetKnob("dsa_state", 0)
BOTH = pytest.mark.parametrize("family", ["ours", "seed"])
KERNELS = pytest.mark.parametrize("kind", ["ours", "tpp"])
CLEAN = LogTail((), complete=True)
PROFILE = Profile(
    version=1,
    tiers=Tiers(cpuless=True),
    engine=DsaEngine("dsa", limit_chans=8, work_queues=QueueShape(8)),
    tiering=Tiering(demotion_enabled=True, numa_balancing=2, swap="off"),
)


def told_and_repaired(start: SimHost, drift: Callable[[SimHost], None]) -> str:
    """What is said of a drift that is only to be told; elsewhere it is repaired."""
    told = DriftPolicy(policy="report")
    messages = []
    for policy, expected in ((told, "drifted"), (DriftPolicy(), "changed")):
        host = start.copy()
        assert "changed" == reconcile(host, "tpp-cpu", policy).result
        before = look(host)
        drift(host)
        assert before != look(host)
        outcome = reconcile(host, "tpp-cpu", policy)
        assert expected == outcome.result
        assert (expected == "changed") == (
            before.offline_cpus == look(host).offline_cpus and before.swaps == look(host).swaps
        )
        messages.append(outcome.message)
    return messages[0]


# -- the rows ---------------------------------------------------------------


@BOTH
def test_the_engine_goes_on_last_and_off_first(family: str) -> None:
    assert "engine-needs-init" in refused(USE, QUEUED[family])
    assert "release-after-engine" in refused(STOP, LIVE[family])
    up = prepare(build.facts(family), usual(build.facts(family)))
    assert order(up, START, USE)
    down = prepare(LIVE[family], Desired(knobs=ENGINES["cpu"]))
    assert order(down, UNUSE, STOP)


@BOTH
def test_channels_change_below(family: str) -> None:
    four = SetKnob("limit_chans", 4)
    assert {"channels-while-held"} == refused(four, LIVE[family])
    plan = prepare(LIVE[family], Desired(knobs={"limit_chans": 4}))
    assert order(plan, UNUSE, STOP, four, START, USE)
    assert "queues" == plan.descends_to


@pytest.mark.parametrize(("knob", "bad", "good"), [("limit_chans", 3, 4), ("limit_mt_num", 6, 8)])
def test_counts_that_a_seed_kernel_cannot_divide_by(knob: KnobName, bad: int, good: int) -> None:
    assert {"value-in-range"} == refused(SetKnob(knob, bad), SEED)
    plan = prepare(SEED, Desired(knobs={knob: bad}))
    assert ("refused", {"values-in-range"}) == (plan.verdict, names(plan))
    assert "ready" == prepare(SEED, Desired(knobs={knob: good})).verdict
    assert "ready" == prepare(OURS, Desired(knobs={knob: bad})).verdict


@BOTH
def test_asynchronous_mode_is_never_set(family: str) -> None:
    assert {"value-in-range"} == refused(SetKnob("dsa_async_mode", 1), build.facts(family))
    assert not any("dsa_async_mode" in wanted_knobs for wanted_knobs in ENGINES.values())
    written = [a.knob for r in LADDER for a in (*r.up, *r.down) if not isinstance(a, str)]
    assert "dsa_async_mode" not in written
    found = knobs(build.facts(family), dsa_async_mode=1)
    plan = prepare(found, usual(found))
    assert ("refused", True) == (plan.verdict, "dsa-healthy" in names(plan))
    assert "engine-needs-health" in refused(USE, knobs(initialised(family), dsa_async_mode=1))


@KERNELS
def test_a_rise_of_failed_copies_turns_the_engine_off(kind: str) -> None:
    host = small(kind)
    assert "changed" == apply(host, "dsa").result
    host.inject(CopyFailures("copy-failures", every=1.0))
    host.sleep(3.0)
    outcome = reconcile(host, "dsa")
    assert "degraded" == outcome.result
    assert not engine_on(host)
    if kind == "tpp":  # where the knob says nothing
        assert "dsa_copy_fail rose" in outcome.message
    alone = replace(LIVE["seed"], timer={"dsa_copy_fail": 1})
    running = Record(boot_id="boot-1", engine_live=True)
    assert "dsa_copy_fail rose from 0 to 1" == fault(running, alone, Desired(), ())


def test_a_failed_start_is_seen_by_its_channels() -> None:
    plan = prepare(SEED, usual(SEED))
    proof = next(step for step in plan.steps if step.rung == "evidence")
    assert {Held, CleanLog} == kinds(proof)
    assert step_of(plan, START).number < proof.number < step_of(plan, USE).number
    failed = scenarios.unheld(initialised("seed"))
    assert "0 DMA channels in use" == Held(8).missing(failed, CLEAN)
    assert {"engine-needs-channels"} == refused(USE, failed)
    host = small("tpp")
    host.inject(FailedInit("failed-init"))
    outcome = apply(host, "dsa")
    assert "reverted" == outcome.result
    assert "0 DMA channels in use" in outcome.message
    assert not engine_on(host)
    assert [] == host.harm


def test_a_half_start_of_a_seed_kernel_needs_a_reboot() -> None:
    host = small("tpp")
    host.inject(FailedInit("failed-init", channels=3))
    outcome = apply(host, "dsa")
    assert "reboot-required" == outcome.result
    assert "reboot-required" == Driver(host).rollback().result
    assert [] == host.harm
    half = replace(initialised("seed"), channels=initialised("seed").channels[:3])
    assert "release-what-is-whole" in refused(STOP, half)
    plan = prepare(half, Desired(knobs={"dsa_state": 0}))
    assert ("reboot-required", {"dsa-can-be-freed"}) == (plan.verdict, names(plan))


@KERNELS
def test_an_engine_that_went_off_stays_off(kind: str) -> None:
    host = small(kind)
    assert "changed" == apply(host, "dsa").result
    host.inject(SelfClear("self-clear"))
    host.sleep(1.0)
    outcome = reconcile(host, "dsa")
    assert "degraded" == outcome.result
    assert "fault" == record(host).latch
    for again in (reconcile, apply, reconcile):
        assert "degraded" == again(host, "dsa").result
        assert not engine_on(host)
    host.reboot()
    assert "degraded" == apply(host, "dsa").result
    assert "changed" == Driver(host).clear().result
    assert "changed" == apply(host, "dsa").result
    assert engine_on(host)


def test_a_queue_that_vanishes_turns_the_engine_off() -> None:
    host = small("ours")
    assert "changed" == apply(host, "dsa").result
    host.inject(VanishedQueue("vanished-queue", "wq1.2"))
    host.sleep(0.1)
    outcome = reconcile(host, "dsa")
    assert "degraded" == outcome.result
    assert not engine_on(host)
    # a seed kernel may be gone by then; where it is not, the channel that is missed tells
    gone = replace(LIVE["seed"], channels=LIVE["seed"].channels[1:])
    running = Record(boot_id="boot-1", engine_live=True)
    words = fault(running, gone, Desired(), ())
    assert "7 DMA channels in use of 8: a work queue vanished" == words
    loader = OtherWriter("accel-config", "/etc/accel-config/accel-config.conf", ("queues",))
    plan = prepare(replace(OURS, others=(loader,)), usual(OURS))
    assert ["accel-config sets queues"] == [f.found for f in plan.findings]


@BOTH
def test_capacity_is_asked_before_the_first_write(family: str) -> None:
    host = build.facts(family, 4)
    few = expand(QueueShape(4), host.devices, driver_names=True)
    for queues in (
        few,
        tuple(
            replace(c, queues=tuple(replace(q, mode="shared", threshold=8) for q in c.queues))
            for c in usual(build.facts(family)).queues
        ),
    ):
        wish = Desired(knobs={**ENGINES["dsa"], "limit_chans": 8}, queues=queues)
        plan = prepare(build.facts(family), wish)
        assert ("refused", ()) == (plan.verdict, plan.steps)
        # a seed kernel would even take channels of queues that it cannot use
        assert {"queues-enough"} == names(plan) - {"channels-ours-alone"}
        assert "8 enabled dedicated kernel queues" in plan.findings[0].expected
    assert {"start-with-queues"} == refused(START, build.queued(host, 4))


def test_an_exit_code_proves_nothing() -> None:
    config = usual(OURS).queues[0]
    plan = prepare(OURS, usual(OURS))
    assert Configured in kinds(step_of(plan, LoadDevice(config)))
    assert "dsa0: expected state enabled, found disabled" == Configured(config).missing(OURS, CLEAN)
    half = replace(
        QUEUED["ours"].devices[0],
        queues=tuple(replace(q, size=1) for q in QUEUED["ours"].devices[0].queues),
    )
    assert differences(config, half)
    # one that is enabled would be skipped in silence
    assert {"device-off-before-load"} == refused(LoadDevice(config), QUEUED["ours"])


@pytest.mark.parametrize(
    "broken",
    [
        lambda good: good[0],
        lambda good: [{k: good[0][k] for k in sorted(good[0], reverse=True)}],
        lambda good: [{**good[0], "nonsense": 1}],
        lambda good: "[",
    ],
    ids=["no list", "dev not first", "unknown key", "no JSON"],
)
def test_a_malformed_queue_file_is_refused(broken: Callable[[Any], Any]) -> None:
    config = usual(OURS).queues[0]
    written = text((config,))
    assert (config,) == parse(written, "queues.conf")
    with pytest.raises(Invalid):
        parse(json.dumps(broken(json.loads(written))), "queues.conf")


@BOTH
def test_devices_and_their_queues_come_up_as_one(family: str) -> None:
    # no request enables a queue by itself: what loads a device has its queues in it
    made = {cls.__name__ for cls in vars(requests).values() if hasattr(cls, "kind")}
    assert {
        "SetKnob", "SetCpu", "StirCpu", "SetTimer", "LoadDevice", "StopDevice", "SetIommu",
        "BindDevice", "OnlineMemory", "SwapOff", "SwapOn",
    } == made  # fmt: skip
    host = build.facts(family)
    (config, *_) = usual(host).queues
    good = json.loads(text((config,)))
    queue = good[0]["groups"][0]["grouped_workqueues"][0]
    queue["threshold"] = 8
    with pytest.raises(Invalid, match="threshold"):
        parse(json.dumps(good), "queues.conf")
    plan = prepare(host, usual(host))
    last = max(step.number for step in plan.steps if step.rung == "queues")
    assert last < step_of(plan, START).number


def test_a_device_of_others_is_left_to_them() -> None:
    busy = replace(QUEUED["ours"].devices[0], clients=1)
    busy = replace(busy, queues=tuple(replace(q, type="user", clients=1) for q in busy.queues))
    host = replace(QUEUED["ours"], devices=(busy, *QUEUED["ours"].devices[1:]))
    assert {"device-unheld"} == refused(StopDevice("dsa0"), host)
    plan = prepare(host, usual(host))
    assert ("refused", True) == (plan.verdict, "devices-there" in names(plan))
    # the others are named, so they alone are touched
    named = Desired(queues=usual(OURS).queues[1:3])
    touched = {r.device.id for r in asked(prepare(OURS, named)) if isinstance(r, LoadDevice)}
    assert {"dsa1", "dsa2"} == touched


def test_the_watermark_comes_after_tiering() -> None:
    factor, tiering = SetKnob("demote_scale_factor", 300), SetKnob("numa_balancing", 2)
    assert {"watermark-after-tiering"} == refused(factor, cpuless(OURS))
    wish = Desired(cpuless=True, knobs={"demote_scale_factor": 300, "numa_balancing": 2})
    plan = prepare(OURS, wish)
    assert order(plan, tiering, factor)
    assert Watermark in kinds(step_of(plan, factor))
    assert "demotion watermark of node 0 is 0" == Watermark(USUAL).missing(OURS, CLEAN)
    # also where the factor is right already: it is the write that counts
    early = knobs(OURS, demote_scale_factor=300)
    assert order(prepare(early, wish), tiering, factor)
    alone = prepare(OURS, Desired(knobs={"demote_scale_factor": 300}))
    assert {"watermark-order"} == names(alone)


@pytest.mark.parametrize("knob", [SetKnob("numa_balancing", 2), SetKnob("demotion_enabled", 1)])
def test_tiering_waits_for_a_node_without_cpus(knob: SetKnob) -> None:
    assert {"tiering-on-cpuless"} == refused(knob, OURS)
    wish = Desired(knobs={knob.knob: knob.value})
    assert {"tiering-conditions"} == names(prepare(OURS, wish))
    plan = prepare(OURS, replace(wish, cpuless=True))
    assert order(plan, SetCpu(23, online=False), knob)


@BOTH
def test_tiering_that_must_not_be_is_not_brought_back(family: str) -> None:
    area = Swap("/dev/sda3", 8 * GIB, 0, -2)
    fit = knobs(cpuless(build.facts(family)), numa_balancing=2, demotion_enabled=1)
    swapping = replace(fit, swaps=(area,))
    over_cpus = knobs(build.facts(family), numa_balancing=2, demotion_enabled=1)
    swapped: tuple[tuple[int, int], tuple[str, ...]] = ((2, 1), ())
    if family == "seed":  # which would demote to disk
        swapped = (0, 0), ("found swap on /dev/sda3",)
    for found, here, wanted_back, lost in (
        (fit, fit, (2, 1), ()),
        (fit, knobs(fit, numa_balancing=0, demotion_enabled=0), (2, 1), ()),
        (swapping, swapping, *swapped),
        # swap and CPUs that are off now and are to come back
        (swapping, fit, *swapped),
        (over_cpus, cpuless(over_cpus), (0, 0), ("found 8 CPUs online",)),
        # the host was fit when it was found
        (fit, swapping, *swapped),
    ):
        before = originals(found, USUAL, 0.0)
        back = from_originals(before, here, USUAL)
        assert wanted_back == (back.wants("numa_balancing"), back.wants("demotion_enabled"))
        assert (before.online_cpus, before.swaps) == (back.returning, back.swap_on)
        told = not_restored(before, here, USUAL)
        assert [True] * len(lost) == [b in a for a, b in zip(told, lost, strict=True)]
        assert "ready" == prepare(here, back).verdict
    # the crash guard must pause it to free the DSA, and may not resume it
    live = knobs(LIVE[family], numa_balancing=2)
    assert (0, 1) == (cpu_only(live, USUAL).wants("numa_balancing"), len(not_resumed(live, USUAL)))
    for calm in (knobs(cpuless(LIVE[family]), numa_balancing=2), over_cpus):
        assert (None, ()) == (
            cpu_only(calm, USUAL).wants("numa_balancing"),
            not_resumed(calm, USUAL),
        )


def test_a_cpu_that_returns_is_drift() -> None:
    def drift(host: SimHost) -> None:
        host.poke("/sys/devices/system/cpu/cpu4/online", "1\n")
        host.harm.clear()  # the other one's

    assert "cpus 4 offline" in told_and_repaired(small("ours"), drift)
    # and the agent itself does not bring it back under tiering
    tiered = knobs(cpuless(OURS), numa_balancing=2)
    assert {"cpu-not-into-tiering"} == refused(SetCpu(16, online=True), tiered)


def test_cpus_that_cannot_go() -> None:
    pinned = replace(OURS, pinned_cpus=(0, 19))
    plan = prepare(pinned, Desired(cpuless=True))
    assert ("refused", (), {"cpus-can-go"}) == (plan.verdict, plan.steps, names(plan))
    assert "cpu 19" in plan.findings[0].found
    for cpu in (0, 3):
        assert {"cpu-of-slow-node"} == refused(SetCpu(cpu, online=False), OURS)


def test_cpus_that_stop_half_way_come_back() -> None:
    host = small("ours")
    before = look(host)
    host.inject(StuckCpu("stuck-cpu", cpu=5))
    outcome = apply(host, "tpp-cpu")
    assert "reverted" == outcome.result
    assert (before.offline_cpus, before.nodes, before.knobs) == (
        look(host).offline_cpus,
        look(host).nodes,
        look(host).knobs,
    )
    missing = CpusAre((16, 17), online=False).missing(replace(OURS, offline_cpus=(16,)), CLEAN)
    assert "cpus 17 are not" == missing


SWAPPING: dict[str, Any] = {"swap": [{"path": "/dev/sda3", "size": 2, "used": 1}]}


def test_swap_that_returns_is_drift() -> None:
    area = Swap("/dev/sda3", 8 * GIB, 0, -2)
    for family, to_disk in (("seed", True), ("ours", False), ("none", False)):
        plain = cpuless(build.facts(family))
        demote = refused(SetKnob("demotion_enabled", 1), replace(plain, swaps=(area,)))
        assert to_disk == ("tiering-without-swap" in demote)
        swap = refused(SwapOn(area), knobs(plain, demotion_enabled=1))
        assert to_disk == ("swap-not-into-tiering" in swap)

    def drift(host: SimHost) -> None:
        assert () == look(host).swaps
        host.inject(SwapReturns("swap-returns"))
        host.sleep(0.1)
        host.harm.clear()  # the other one's

    assert "/dev/sda3" in told_and_repaired(small("ours", **SWAPPING), drift)


def test_release_brings_swap_back() -> None:
    host = small("ours", **SWAPPING)
    before = [(area.path, area.priority) for area in look(host).swaps]
    assert "changed" == apply(host, "tpp-dsa").result
    assert () == look(host).swaps
    assert "changed" == Driver(host).detach().result
    assert before == [(area.path, area.priority) for area in look(host).swaps]
    assert [] == host.harm


def test_swap_that_does_not_fit_stays() -> None:
    full = replace(OURS, swaps=(Swap("/dev/sda3", 200 * GIB, 150 * GIB, -2),))
    assert {"swap-fits"} == refused(SwapOff(full.swaps[0]), full)
    plan = prepare(full, Desired(swap_off=True))
    assert ("refused", (), {"swap-fits"}) == (plan.verdict, plan.steps, names(plan))
    empty = replace(OURS, nodes=(OURS.nodes[0], replace(OURS.nodes[1], mem_total=0)))
    assert {"tiers-exist"} == names(prepare(empty, from_profile(PROFILE, empty)))


@BOTH
def test_the_doctor_names_the_boot_parameters(family: str) -> None:
    host = replace(build.facts(family), iommu="translated")
    plan = prepare(host, usual(host))
    assert {"addresses-untranslated"} == names(plan)
    assert "iommu=pt" in plan.findings[0].remedy
    assert ("refused" if family == "seed" else "ready") == plan.verdict
    plain = replace(build.facts(family), scalable_mode=False)
    plan = prepare(plain, usual(plain))
    assert ("ready", ["warning"]) == (plan.verdict, [f.level for f in plan.findings])
    assert "sm_on" in plan.findings[0].remedy
    if family == "seed":
        queued = replace(QUEUED["seed"], iommu="translated")
        assert {"start-untranslated"} == refused(START, queued)


def with_a_halted_device(kind: str) -> SimHost:
    """Return a host whose engine was in use when a device halted, and was turned off then."""
    host = small(kind)
    assert "changed" == apply(host, "dsa").result
    host.inject(Halt("halt", "dsa1"))
    host.sleep(0.1)
    assert "degraded" == reconcile(host, "dsa").result
    return host


@KERNELS
def test_a_halted_device_is_a_fault_and_needs_a_reset(kind: str) -> None:
    host = with_a_halted_device(kind)
    assert not engine_on(host)
    assert [] == [harm for harm in host.harm if harm.by == "agent"]
    lost = scenarios.halted(OURS)
    assert "reboot-required" != prepare(lost, Desired()).verdict
    plan = prepare(lost, usual(lost))
    assert "reboot-required" == plan.verdict
    assert "reset" in plan.findings[0].remedy
    assert "engine-needs-health" in refused(USE, scenarios.halted(initialised("ours")))


@KERNELS
def test_what_a_halt_left_held_needs_a_reboot_and_says_so(kind: str) -> None:
    """Neither a release nor a reset of the device gives back the channels that it had."""
    host = with_a_halted_device(kind)
    plan = prepare(look(host), wanted(host, "dsa").desired)
    assert "reboot-required" == plan.verdict
    assert "interlock" not in names(plan)
    first = plan.findings[0]
    assert ("devices-there", "dsa1") == (first.name, first.where)
    assert first.remedy.startswith("reboot: ")
    assert not any("stop its user" in finding.remedy for finding in plan.findings)


@KERNELS
def test_a_crash_on_the_way_up_is_quarantined(kind: str) -> None:
    host = small(kind)
    host.inject(Crash("crash", after=10, performed=True))
    with pytest.raises(SimCrash):
        apply(host, "dsa")
    assert MOTION in host.files
    host.reboot()
    for _ in range(3):  # boot after boot
        assert "quarantined" == apply(host, "dsa").result
        assert ("crash", False) == (record(host).latch, engine_on(host))
        host.reboot()
    assert "changed" == Driver(host).clear().result
    assert "changed" == apply(host, "dsa").result
    assert {"guarding"} == {
        lifecycle.after(state, "crash") for state in sorted(lifecycle.IN_MOTION)
    }


def test_a_hung_write_is_named_by_its_step() -> None:
    host = small("ours")
    host.inject(HungWrite("hung-write", "/proc/sys/vm/dsa_state"))
    outcome = apply(host, "dsa")
    assert "reboot-required" == outcome.result
    assert "/proc/sys/vm/dsa_state = 1" in outcome.message
    assert outcome.plan is not None
    assert f"step {step_of(outcome.plan, START).number} " in record(host).message
    assert all(step.deadline > 0 for step in outcome.plan.steps)


def test_another_writer_is_named_and_given_up_on() -> None:
    host = small("ours")
    policy = DriftPolicy(fights=3, window=600.0)
    assert "changed" == reconcile(host, "tpp-cpu", policy).result
    host.inject(Meddler("other-writer", BALANCING, "0\n", every=5.0))
    results = []
    for _ in range(5):
        host.sleep(6.0)
        results.append(reconcile(host, "tpp-cpu", policy).result)
    assert ["changed", "changed", "changed", "drifted", "drifted"] == results
    assert "Contested" == record(host).reason
    tuned = OtherWriter("TuneD", "/etc/tuned/tpp.conf", ("numa_balancing",))
    plan = prepare(replace(cpuless(OURS), others=(tuned,)), Desired(knobs={"numa_balancing": 2}))
    assert ("ready", ["knobs-uncontested"]) == (plan.verdict, [f.name for f in plan.findings])
    assert "TuneD" in plan.findings[0].found


@pytest.mark.parametrize(
    "broken",
    ["version: 1\nengine: {kind: dsa, limit_chans: 9}\n", "version: 1\ntiering: {swap", "\0", "[]"],
)
def test_a_broken_profile_leaves_everything_as_it_is(broken: str) -> None:
    with pytest.raises(Invalid):
        from_texts([("a.yaml", "version: 1\n"), ("b.yaml", broken)])
    assert check_text("b.yaml", broken)


def test_no_journal_no_write() -> None:
    host = small("ours")
    before = look(host)
    for keeps in (0, 1, 2):
        host.inject(FullDisk("disk", keeps=keeps))
        assert "refused" == apply(host, "tpp-dsa").result
        assert (before.knobs, before.nodes, before.devices) == (
            look(host).knobs,
            look(host).nodes,
            look(host).devices,
        )
        host.heal("disk")
    assert "changed" == apply(host, "tpp-dsa").result


def test_a_lost_log_proves_nothing() -> None:
    assert CleanLog().missing(OURS, LogTail((), complete=False))
    host = small("ours")
    host.inject(LostLog("lost-log", with_write="/proc/sys/vm/use_dsa_copy_pages"))
    outcome = apply(host, "dsa")
    assert "reverted" == outcome.result
    assert "lost" in outcome.message
    assert not engine_on(host)


def test_stopping_leaves_the_host_and_release_is_a_verb() -> None:
    host = small("ours")
    assert "changed" == apply(host, "dsa").result
    files, facts = dict(host.files), look(host)
    driver = Driver(host)
    driver.interrupt()  # what a signal does to a daemon at rest
    del driver
    assert (files, facts) == (dict(host.files), look(host))
    # an upgraded daemon finds it as it was, and leaves it so
    assert "unchanged" == Driver(host).reconcile(wanted(host, "dsa")).result
    assert facts == look(host)
    assert "converged" == json.loads(host.files[RECORD])["state"]
    assert "changed" == Driver(host).detach().result
    assert not engine_on(host)
    assert "unmanaged" == record(host).state


def test_a_device_without_event_log_is_not_disabled_by_a_kernel_that_minds() -> None:
    host = replace(QUEUED["ours"], kernel=replace(QUEUED["ours"].kernel, evl_guard=False))
    assert {"device-without-event-log"} == refused(StopDevice("dsa0"), host)
    plan = prepare(host, Desired(stopped=("dsa0",)))
    assert ("reboot-required", {"devices-can-stop"}) == (plan.verdict, names(plan))
    assert set() == refused(StopDevice("dsa0"), QUEUED["ours"])


@pytest.mark.parametrize("driver_names", [False, True])
def test_what_is_written_for_accel_config_loads_back(driver_names: bool) -> None:
    configs = expand(QueueShape(8), OURS.devices, driver_names=driver_names)
    assert configs == parse(text(configs), "queues.conf")
    for device in QUEUED["ours"].devices:
        assert (captured(device),) == parse(text((captured(device),)), "queues.conf")
        assert () == differences(captured(device), device)


def test_a_hung_device_gets_no_second_command() -> None:
    host = small("ours")
    host.inject(HungCommand("hung-command", "load-config", times=0))
    outcome = apply(host, "dsa")
    assert "reboot-required" == outcome.result
    assert "configured and enabled" in outcome.message
    began = host.monotonic()  # a second command would hang as well
    for verb in (Driver.rollback, Driver.detach, Driver.clear):
        assert "reboot-required" == verb(Driver(host)).result
    assert "reboot-required" == apply(host, "dsa").result
    assert began == host.monotonic()


def test_a_seed_kernel_settles_before_the_release() -> None:
    tiered = knobs(cpuless(LIVE["seed"]), numa_balancing=2, demotion_enabled=1)
    plan = prepare(tiered, Desired(knobs=ENGINES["cpu"]))
    pause = (SetKnob("demotion_enabled", 0), SetKnob("numa_balancing", 0))
    assert order(plan, *pause, UNUSE, STOP, SetKnob("numa_balancing", 2))
    quiet = next(step for step in plan.steps if step.settle)
    assert 10.0 == quiet.settle
    assert Quiet in kinds(quiet)
    assert step_of(plan, UNUSE).number < quiet.number < step_of(plan, STOP).number
    assert {"release-when-quiet"} == refused(STOP, initialised("seed"), quiet=9.9)
    assert set() == refused(STOP, initialised("seed"), quiet=10.0)
    # ours waits in the kernel
    ours = prepare(LIVE["ours"], Desired(knobs=ENGINES["cpu"]))
    assert [] == [step for step in ours.steps if step.settle]
    host = small("tpp")
    assert "changed" == apply(host, "tpp-dsa").result
    host.sleep(1.0)
    assert "changed" == Driver(host).detach().result
    assert [] == host.harm
