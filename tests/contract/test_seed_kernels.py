# SPDX-License-Identifier: Apache-2.0
"""The seed kernels as they were seen to be, in the simulation and through files of a tree.

The numbers give the order in which these facts were found: a note can name a test by its number.
"""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

import pytest

from dsatier.apply.driver import Driver
from dsatier.apply.target import Target
from dsatier.facts.kernel_complaints import complaints
from dsatier.facts.model import Facts
from dsatier.facts.observe.observer import observe
from dsatier.facts.readings import halted, held, migration_quiet
from dsatier.facts.tiers import USUAL, target, watermark
from dsatier.host.port import Host, HostDown, Rejected
from dsatier.plan.desired import from_profile
from dsatier.plan.evidence import Target as Aimed
from dsatier.plan.evidence import Watermark
from dsatier.plan.interlock import Circumstances, refusals
from dsatier.plan.originals import originals
from dsatier.plan.rehearsal import no_way_back, prepare
from dsatier.plan.requests import SetKnob, StirCpu
from dsatier.plan.restore import from_originals
from dsatier.profile.model import (
    Concurrency,
    CpuEngine,
    DsaEngine,
    Profile,
    Tiering,
    Tiers,
)
from dsatier.sim import faults
from dsatier.sim.host import SimHost
from tests.contract.conftest import Make
from tests.sim.simhosts import BALANCING, DEMOTION, config, get, host, kinds, live, load, put, ready

BOTH = [{"cpus": "0-7", "memory": 16, "used": 2}, {"cpus": "8-9", "memory": 16, "used": 1}]
DSA = DsaEngine("dsa", limit_chans=8)
"""On queues that are ready."""
TIERING = Tiering(demotion_enabled=True, numa_balancing=2, demote_scale_factor=300, swap="off")
TIERED = Profile(version=1, tiers=Tiers(cpuless=True), tiering=TIERING)
CPU = "/sys/devices/system/cpu/cpu{}/online"


def target_of(profile: Profile, back_end: Host) -> Target:
    """Return what the driver is to bring about."""
    return Target(from_profile(profile, observe(back_end)), "a profile")


def slow_cpus_off(h: SimHost) -> None:
    for cpu in (8, 9):
        put(h, CPU.format(cpu), 0)


def log_of(h: SimHost) -> list[str]:
    return h.kernel.state.log


# 1: memtis has a switch of its own for concurrent migration


@pytest.mark.parametrize("chans", [1, 4])
def test_01_the_concurrency_of_memtis_is_read_and_counts(make: Make, chans: int) -> None:
    h = host("memtis")
    put(h, "use_concur_for_htmm", 1)
    facts = observe(make(h))
    assert "1" == facts.knobs["use_concur_for_htmm"]
    engine = replace(DSA, limit_chans=chans)
    plan = prepare(facts, from_profile(Profile(version=1, engine=engine), facts))
    assert "refused" == plan.verdict
    assert "concurrency-fits" in {finding.name for finding in plan.findings}


def test_01_the_concurrency_of_memtis_can_be_declared(make: Make) -> None:
    back_end = make(ready("memtis"))
    wish = Profile(version=1, concurrency=Concurrency(use_concur_for_htmm=True), engine=DSA)
    outcome = Driver(back_end).apply(target_of(wish, back_end))
    assert "changed" == outcome.result
    assert "1" == observe(back_end).knobs["use_concur_for_htmm"]


@pytest.mark.parametrize("kind", ["tpp", "ours", "stock"])
def test_01_no_other_kernel_has_it(kind: str) -> None:
    facts = observe(host(kind))
    assert "use_concur_for_htmm" not in facts.knobs
    wish = Profile(version=1, concurrency=Concurrency(use_concur_for_htmm=True))
    names = [f.name for f in prepare(facts, from_profile(wish, facts)).findings]
    assert ["knobs-present"] == names


def test_01_it_spoils_pages_under_a_narrow_engine(make: Make) -> None:
    h = live("memtis", 4)
    facts = observe(make(h))
    found = refusals(SetKnob("use_concur_for_htmm", 1), Circumstances(facts, 0.0, USUAL))
    assert ["concurrency-fits"] == [refusal.guard for refusal in found]
    put(h, "use_concur_for_htmm", 1)
    assert ["corruption"] == kinds(h)


# 2: a start that fails midway


def failed(kind: str, channels: int, **fields: Any) -> SimHost:
    h = ready(kind, **fields)
    h.inject(faults.FailedInit("failed-init", channels=channels))
    put(h, "dsa_state", 1)
    return h


@pytest.mark.parametrize("kind", ["tpp", "memtis"])
def test_02_a_start_that_failed_midway_holds_nothing_and_cannot_be_released(
    kind: str, make: Make
) -> None:
    h = failed(kind, 3)
    back_end = make(h)
    facts = observe(back_end)
    assert () == held(facts)
    assert facts.dsa_released
    found = refusals(SetKnob("dsa_state", 0), Circumstances(facts, 60.0, USUAL))
    assert ["release-what-is-whole"] == [refusal.guard for refusal in found]
    wish = target_of(Profile(version=1, engine=DSA), back_end)
    assert "reboot-required" == Driver(back_end).apply(wish).result
    h.harm.clear()
    put(h, "dsa_state", 0)
    assert "chan reference count 0 != 1" in log_of(h)
    assert ["corruption"] == kinds(h)


# 3, 17: the idxd driver of the seed kernels


@pytest.mark.parametrize("kind", ["tpp", "memtis"])
def test_03_a_halted_device_reads_disabled(kind: str, make: Make) -> None:
    h = ready(kind)
    h.inject(faults.Halt("halt", "dsa3"))
    h.sleep(1)
    facts = observe(make(h))
    assert "disabled" == facts.devices[3].state
    assert () == halted(facts)
    assert any("idxd halted, need FLR" in line for line in log_of(h))


@pytest.mark.parametrize("kind", ["tpp", "memtis"])
def test_03_the_driver_has_the_files_of_a_later_one(kind: str, make: Make) -> None:
    back_end = make(host(kind))
    assert {"prs_disable", "occupancy", "enqcmds_retries"} <= set(
        back_end.entries("/sys/bus/dsa/devices/wq0.0")
    )
    assert "driver_name" not in back_end.entries("/sys/bus/dsa/devices/wq0.0")


# 4, 5, 6: what numa_balancing and the watermarks do


def test_04_tiering_once_on_leaves_its_mark_until_a_reboot(make: Make) -> None:
    h = host("tpp")
    back_end = make(h)
    put(back_end, BALANCING, 2)
    put(back_end, "demote_scale_factor", 300)
    put(back_end, BALANCING, 0)
    put(back_end, "demote_scale_factor", 200)
    assert (watermark(observe(back_end), USUAL) or 0) > 0
    h.reboot()
    put(h, "demote_scale_factor", 300)
    assert 0 == watermark(observe(h), USUAL)


@pytest.mark.parametrize("mode", [1, 3])
def test_04_other_modes_mark_where_node_0_is_alone_at_the_top(mode: int) -> None:
    alone, both = host("tpp"), host("tpp", nodes=BOTH)
    for h in (alone, both):
        put(h, BALANCING, mode)
        put(h, "demote_scale_factor", 300)
    assert (watermark(observe(alone), USUAL) or 0) > 0
    assert 0 == watermark(observe(both), USUAL)


OPTIONS = ("NUMA_BALANCING", "NUMA_BALANCING_DEFAULT_ENABLED", "MEMORY_HOTPLUG", "INTEL_IDXD")
BALANCES = {"config": {f"CONFIG_{option}": "y" for option in OPTIONS}}


def test_05_a_kernel_that_boots_with_balancing_reads_0_and_is_not_quiet(make: Make) -> None:
    h = ready("tpp", kernel=BALANCES)
    back_end = make(h)
    put(back_end, "dsa_state", 1)
    put(back_end, "use_dsa_copy_pages", 1)
    assert "0" == get(back_end, BALANCING)
    outcome = Driver(back_end).apply(
        target_of(Profile(version=1, engine=CpuEngine("cpu")), back_end)
    )
    assert ("changed", "every step is proven") == (outcome.result, outcome.message)
    assert outcome.plan is not None
    asked = [str(request) for step in outcome.plan.steps for request in step.requests]
    assert asked.index("numa_balancing = 0") < asked.index("dsa_state = 0")
    assert [] == h.harm


def test_05_a_release_on_the_word_of_a_0_frees_what_is_in_use() -> None:
    h = ready("tpp", kernel=BALANCES)
    put(h, "dsa_state", 1)
    put(h, "use_dsa_copy_pages", 1)
    put(h, "use_dsa_copy_pages", 0)
    assert migration_quiet(observe(h))
    h.sleep(60)
    put(h, "dsa_state", 0)
    assert ["corruption"] == kinds(h)


def test_05_others_say_so() -> None:
    assert "1" == get(host("memtis", kernel=BALANCES), BALANCING)
    assert "1" == get(host("ours", kernel=BALANCES), BALANCING)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/proc/sys/vm/min_free_kbytes", "90000"),
        ("/proc/sys/vm/watermark_scale_factor", "20"),
        ("/sys/kernel/mm/transparent_hugepage/enabled", "madvise"),
    ],
)
@pytest.mark.parametrize("kind", ["tpp", "ours"])
def test_06_whoever_has_watermarks_worked_out_gets_the_mark(
    kind: str, path: str, text: str, make: Make
) -> None:
    back_end = make(host(kind))
    put(back_end, BALANCING, 2)
    assert 0 == watermark(observe(back_end), USUAL)
    put(back_end, path, text)
    assert (watermark(observe(back_end), USUAL) or 0) > 0


# 7: descriptors that are too few


def test_07_lists_of_memtis_need_a_descriptor_that_is_not_there(make: Make) -> None:
    h = live("memtis", load=["thp", "lists", "mixed"])
    facts = observe(make(h))
    wish = Profile(version=1, concurrency=Concurrency(use_concur_for_htmm=True), engine=DSA)
    found = prepare(facts, from_profile(wish, facts)).findings
    assert [("warning", "lists-fit")] == [(f.level, f.name) for f in found]
    with pytest.raises(HostDown, match="a descriptor that is not there"):
        put(h, "use_concur_for_htmm", 1)


# 8: /proc/timer


@pytest.mark.parametrize("text", ["abc\n", "-1\n", "10\n", "\n", "2\n"])
@pytest.mark.parametrize("on", [0, 1])
def test_08_other_numbers_and_words_leave_the_timer_as_it_is(
    text: str, on: int, make: Make
) -> None:
    h = host("tpp")
    back_end = make(h)
    put(back_end, "/proc/timer", on)
    back_end.write("/proc/timer", text, 5.0)
    assert on == observe(back_end).timer["timer_state"]
    assert [] == h.harm


def test_08_the_buffer_holds_1024_bytes() -> None:
    h = host("memtis")
    h.write("/proc/timer", "1" * 1024, 5.0)
    assert [] == h.harm
    h.write("/proc/timer", "1" * 1025, 5.0)
    assert ["corruption"] == kinds(h)


# 9: the knob that stays, and does not


@pytest.mark.parametrize(("huge", "use"), [(False, "1"), (True, "0")])
def test_09_the_knob_stays_for_base_pages_only(huge: bool, use: str, make: Make) -> None:
    h = live("tpp")
    put(h, "use_concur_to_compact", 1)
    h.inject(faults.CopyFailures("copy-failures", every=2.0, huge=huge))
    h.sleep(3)
    facts = observe(make(h))
    assert use == facts.knobs["use_dsa_copy_pages"]
    assert facts.timer["dsa_copy_fail"] == 1 + huge


# 10: limit_chans under copies, completions that come too late


def test_10_chans_that_flip_under_copies_spoil_pages_and_then_end_the_host(make: Make) -> None:
    h = live("tpp")
    facts = observe(make(h))
    for value in (4, 8):
        found = refusals(SetKnob("limit_chans", value), Circumstances(facts, 60.0, USUAL))
        assert "channels-while-held" in {refusal.guard for refusal in found}
    put(h, "limit_chans", 4)
    assert ["leak"] == kinds(h)
    put(h, "limit_chans", 8)
    assert ["leak", "leak", "corruption"] == kinds(h)
    with pytest.raises(HostDown, match="flipped on under copies"):
        put(h, "limit_chans", 4)


def test_10_chans_that_change_without_copies_only_leak() -> None:
    h = ready("tpp")
    put(h, "dsa_state", 1)
    put(h, "limit_chans", 4)
    assert ["leak"] == kinds(h)


@pytest.mark.parametrize(("kind", "harm", "use"), [("tpp", ["corruption"], "0"), ("ours", [], "1")])
def test_10_a_copy_that_ends_after_its_time_out_overwrites_what_is_there_by_then(
    kind: str, harm: list[str], use: str
) -> None:
    h = live(kind)
    h.inject(faults.LateCompletion("late-completion", "dsa2", after=1.0, late=2.0))
    h.sleep(2)
    assert [] == h.harm
    assert use == get(h, "use_dsa_copy_pages")
    h.sleep(2)
    assert harm == kinds(h)
    h.sleep(60)
    assert harm == kinds(h)


def test_10_it_does_not_outlive_a_reboot() -> None:
    h = live("tpp")
    h.inject(faults.LateCompletion("late-completion", "dsa2", after=1.0, late=2.0))
    h.sleep(2)
    h.reboot()
    h.sleep(10)
    assert [] == h.harm


# 11: balancing and tiering together


@pytest.mark.parametrize("kind", ["tpp", "ours"])
def test_11_both_modes_can_be_declared(kind: str, make: Make) -> None:
    h = host(kind, nodes=BOTH)
    back_end = make(h)
    wish = replace(TIERED, tiering=replace(TIERING, numa_balancing=3))
    driver = Driver(back_end)
    assert "changed" == driver.apply(target_of(wish, back_end)).result
    facts = observe(back_end)
    assert "3" == facts.knobs["numa_balancing"]
    assert (watermark(facts, USUAL) or 0) > 0
    assert "unchanged" == driver.apply(target_of(wish, back_end)).result
    assert "changed" == driver.rollback().result
    assert [] == h.harm


def test_11_the_kernel_takes_4_and_dsatier_does_not() -> None:
    h = host("ours")
    put(h, BALANCING, 4)
    assert "4" == get(h, BALANCING)
    found = refusals(SetKnob("numa_balancing", 4), Circumstances(observe(h), 0.0, USUAL))
    assert ["value-in-range"] == [refusal.guard for refusal in found]
    with pytest.raises(Rejected):
        put(h, BALANCING, 5)


def test_11_memtis_takes_neither() -> None:
    facts = observe(host("memtis"))
    wish = Profile(version=1, tiering=Tiering(numa_balancing=3))
    names = [f.name for f in prepare(facts, from_profile(wish, facts)).findings]
    assert ["values-in-range"] == names


# 12, 13: evidence that tiering is armed


def test_12_the_mark_is_found_behind_the_header_of_tpp(make: Make) -> None:
    back_end = make(host("tpp", nodes=BOTH))
    assert "Node 0, zone   Normal, toptier 1 next_demotion_node -1\n" in back_end.read(
        "/proc/zoneinfo"
    )
    facts = observe(back_end)
    assert (0, -1) == (watermark(facts, USUAL), target(facts, USUAL))
    assert "demotion watermark of node 0 is 0" == lacks(Watermark(USUAL), facts)


def lacks(evidence: Watermark | Aimed, facts: Facts) -> str | None:
    """Return what evidence misses in facts alone."""
    from dsatier.host.port import LogTail

    return evidence.missing(facts, LogTail((), complete=True))


def test_12_a_factor_from_before_tiering_is_written_again(make: Make) -> None:
    back_end = make(host("tpp"))
    put(back_end, "demote_scale_factor", 300)
    put(back_end, BALANCING, 2)
    outcome = Driver(back_end).apply(target_of(TIERED, back_end))
    assert "changed" == outcome.result
    assert (watermark(observe(back_end), USUAL) or 0) > 0


def test_13_cpus_that_go_leave_no_demotion_target(make: Make) -> None:
    h = host("tpp", nodes=BOTH)
    slow_cpus_off(h)
    back_end = make(h)
    assert -1 == target(observe(back_end), USUAL)
    assert "next_demotion_node of node 0 is -1" == lacks(Aimed(USUAL), observe(back_end))
    put(back_end, CPU.format(7), 0)
    put(back_end, CPU.format(7), 1)
    assert 1 == target(observe(back_end), USUAL)


def test_13_a_host_that_boots_without_them_has_one() -> None:
    assert 1 == target(observe(host("tpp")), USUAL)


def test_13_demotion_without_a_target_is_no_demotion() -> None:
    h = host("tpp", nodes=BOTH)
    slow_cpus_off(h)
    put(h, DEMOTION, 1)
    assert ["ineffective"] == kinds(h)


def test_13_the_plan_stirs_a_cpu_and_asks_for_the_target(make: Make) -> None:
    h = host("tpp", nodes=BOTH)
    back_end = make(h)
    driver = Driver(back_end)
    outcome = driver.apply(target_of(TIERED, back_end))
    assert "changed" == outcome.result
    assert outcome.plan is not None
    step = next(s for s in outcome.plan.steps if StirCpu(7) in s.requests)
    assert Aimed(USUAL) in step.evidence
    assert 1 == target(observe(back_end), USUAL)
    assert "unchanged" == driver.apply(target_of(TIERED, back_end)).result
    assert [] == h.harm


def test_13_a_stirred_cpu_comes_back_though_dsatier_died_on_the_way(make: Make) -> None:
    h = host("tpp", nodes=BOTH)
    back_end = make(h)
    before = originals(observe(back_end), USUAL, 0.0)
    slow_cpus_off(h)
    put(back_end, CPU.format(7), 0)
    facts = observe(back_end)
    assert 7 in facts.offline_cpus
    for desired in (from_originals(before, facts, USUAL), from_profile(TIERED, facts, before)):
        plan = prepare(facts, desired)
        assert "ready" == plan.verdict
        assert "cpu 7 online" in {str(r) for step in plan.steps for r in step.requests}


# 14: a first start that failed


@pytest.mark.parametrize("kind", ["tpp", "memtis"])
def test_14_a_first_start_that_got_nothing_is_no_dead_end(kind: str, make: Make) -> None:
    h = host(kind)
    put(h, "dsa_state", 1)
    assert 0 == load(h, config(8))
    back_end = make(h)
    facts = observe(back_end)
    assert facts.dsa_released is False
    desired = from_profile(Profile(version=1, engine=DSA), facts)
    plan = prepare(facts, desired)
    assert "ready" == plan.verdict
    assert no_way_back(plan, facts, originals(facts, USUAL, 0.0)) is None
    driver = Driver(back_end)
    assert "changed" == driver.apply(Target(desired, "a profile")).result
    assert "changed" == driver.rollback().result
    assert "0" == observe(back_end).knobs["dsa_state"]
    assert [] == h.harm


# 15: a device that halts under the engine


def test_15_a_halt_under_the_engine_oopses_and_the_status_says_so(make: Make) -> None:
    h = ready("tpp", nodes=BOTH)
    back_end = make(h)
    driver = Driver(back_end)
    wish = target_of(Profile(version=1, engine=DSA), back_end)
    assert "changed" == driver.apply(wish).result
    h.inject(faults.Halt("halt", "dsa2"))
    back_end.sleep(1)
    assert ["oops"] == kinds(h)
    outcome = driver.reconcile(wish)
    assert "degraded" == outcome.result
    assert "BUG: kernel NULL pointer dereference" in outcome.message
    assert "idxd halted, need FLR" in outcome.message
    assert "0" == observe(back_end).knobs["use_dsa_copy_pages"]
    assert ["oops"] == kinds(h)


def test_15_it_ends_a_kernel_that_panics_on_an_oops() -> None:
    h = live("memtis", kernel={"config": {"CONFIG_PANIC_ON_OOPS": "y", "CONFIG_INTEL_IDXD": "m"}})
    h.inject(faults.Halt("halt", "dsa2"))
    with pytest.raises(HostDown, match="portal"):
        h.sleep(1)


# 16: threads


def test_16_threads_under_demotion_warn_and_nobody_takes_it_for_a_fault(make: Make) -> None:
    h = host("tpp")
    put(h, "cpu_multi_copy_pages", 1)
    put(h, DEMOTION, 1)
    put(h, DEMOTION, 0)
    put(h, DEMOTION, 1)
    said = [line for line in log_of(h) if "check_flush_dependency" in line]
    assert 1 == len(said)
    facts = observe(make(h))
    assert 512 == facts.boot_taint
    assert () == complaints(log_of(h), facts)


@pytest.mark.parametrize(
    ("threads", "lists", "lost"),
    [(3, 0, 0), (5, 0, 0), (6, 0, 1), (7, 0, 1), (3, 1, 1), (5, 1, 1), (4, 1, 0)],
)
def test_16_three_and_five_threads_are_right_page_by_page(
    threads: int, lists: int, lost: int
) -> None:
    h = host("tpp")
    put(h, "use_concur_to_compact", lists)
    put(h, "limit_mt_num", threads)
    put(h, "cpu_multi_copy_pages", 1)
    assert ["corruption"] * lost == kinds(h)


@pytest.mark.parametrize(
    ("kind", "chans", "harm"),
    [("tpp", 4, []), ("tpp", 2, ["corruption"]), ("memtis", 4, ["corruption"])],
)
def test_16_four_channels_hold_the_lists_of_tpp(kind: str, chans: int, harm: list[str]) -> None:
    h = live(kind, chans)
    put(h, "use_concur_to_compact", 1)
    assert harm == kinds(h)


# 17: more of the idxd driver


@pytest.mark.parametrize("kind", ["tpp", "memtis"])
def test_17_a_refused_binding_is_no_such_device(kind: str) -> None:
    with pytest.raises(Rejected) as refused:
        put(host(kind), "/sys/bus/dsa/drivers/idxd/bind", "dsa0")
    assert errno.ENODEV == refused.value.errno
    with pytest.raises(Rejected) as refused:
        put(host("ours"), "/sys/bus/dsa/drivers/idxd/bind", "dsa0")
    assert errno.ENXIO == refused.value.errno


@pytest.mark.parametrize("kind", ["tpp", "memtis"])
def test_17_a_queue_needs_no_name(kind: str) -> None:
    h = ready(kind)
    put(h, "/sys/bus/dsa/drivers/dmaengine/unbind", "wq0.0")
    at = "/sys/bus/dsa/devices/wq0.0"
    for name, value in (("mode", "dedicated"), ("type", "kernel"), ("name", "")):
        put(h, f"{at}/{name}", value)
    put(h, "/sys/bus/dsa/drivers/dmaengine/bind", "wq0.0")
    assert ("enabled", "") == (get(h, f"{at}/state"), get(h, f"{at}/name"))


@pytest.mark.parametrize("kind", ["tpp", "memtis"])
def test_17_the_files_of_a_device_are_those_of_a_later_kernel(kind: str, make: Make) -> None:
    back_end = make(host(kind))
    at = "/sys/bus/dsa/devices"
    assert "read_buffer_limit" in back_end.entries(f"{at}/dsa0")
    assert {"read_buffers_allowed", "read_buffers_reserved"} <= set(
        back_end.entries(f"{at}/group0.0")
    )
    for name in ("errors", "op_cap"):
        groups = back_end.read(f"{at}/dsa0/{name}").strip().split(",")
        assert [8] * 8 == [len(group) for group in groups]
