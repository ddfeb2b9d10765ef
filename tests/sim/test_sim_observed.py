# SPDX-License-Identifier: Apache-2.0
"""What the seed's kernel was seen to do, row by row."""

from __future__ import annotations

from typing import Any

import pytest

from dsatier.host.port import HostDown, Missing, Rejected
from dsatier.sim import faults
from dsatier.sim.host import SimHost
from tests.sim.simhosts import BALANCING, DEMOTION, config, get, host, kinds, live, load, put, ready

QUEUE = "/sys/bus/dsa/devices/wq0.0"


def lines(h: SimHost, mark: int) -> tuple[str, ...]:
    return h.log_since(mark).lines


def dies(h: SimHost, name: str, value: int | str) -> str:
    with pytest.raises(HostDown):
        put(h, name, value)
    with pytest.raises(HostDown):
        h.read("/proc/cmdline")
    return h.harm[-1].reason


def test_the_right_order_harms_nothing_and_prints_nothing_on_success() -> None:
    h = ready("tpp")
    mark = h.log_mark()
    put(h, "dsa_state", 1)
    assert () == lines(h, mark)
    put(h, "use_dsa_copy_pages", 1)
    h.sleep(3)
    put(h, "use_dsa_copy_pages", 0)
    h.sleep(5)
    put(h, "dsa_state", 0)
    assert ("DMA memcpy module exit.",) == lines(h, mark)
    assert [] == h.harm
    assert "0" == get(h, f"{QUEUE}/clients")


def test_init_without_queues_succeeds_and_only_the_log_tells() -> None:
    h = host("tpp")
    mark = h.log_mark()
    put(h, "dsa_state", 1)
    assert "1" == get(h, "dsa_state")
    assert ("Failed to get DMA channel 0.", "Failed to initialize DSA.") == lines(h, mark)
    assert [] == h.harm


def test_zero_after_an_init_without_channels_is_harmless_before_the_first_success() -> None:
    h = host("tpp")
    put(h, "dsa_state", 1)
    put(h, "dsa_state", 0)
    assert [] == h.harm
    assert 0 == load(h, config(8))
    put(h, "dsa_state", 1)
    put(h, "dsa_state", 0)
    assert [] == h.harm
    for i in range(8):
        h.run(("accel-config", "disable-wq", f"dsa{i}/wq{i}.0"), 5.0)
    put(h, "dsa_state", 1)
    assert ["stuck"] == kinds(h)
    put(h, "dsa_state", 0)
    assert ["stuck", "corruption"] == kinds(h)


@pytest.mark.parametrize("failed_init", [False, True])
def test_use_without_an_initialised_engine_is_a_null_dereference(failed_init: bool) -> None:
    h = host("tpp")
    if failed_init:
        put(h, "dsa_state", 1)
    assert "NULL dereference" in dies(h, "use_dsa_copy_pages", 1)
    assert "NULL dereference" in h.down


def test_release_under_a_live_engine_ends_the_host() -> None:
    assert "freed descriptors in use" in dies(live("tpp"), "dsa_state", 0)


def test_chans_down_while_live_leaks_and_the_next_init_fails() -> None:
    h = live("tpp")
    put(h, "limit_chans", 4)
    assert ["leak"] == kinds(h)
    put(h, "use_dsa_copy_pages", 0)
    h.sleep(5)
    put(h, "dsa_state", 0)
    assert ["leak", "leak"] == kinds(h)
    put(h, "limit_chans", 8)
    mark = h.log_mark()
    put(h, "dsa_state", 1)
    assert "Failed to initialize DSA." == lines(h, mark)[-1]
    assert "1" == get(h, "dsa_state")
    assert "stuck" == kinds(h)[-1]


@pytest.mark.parametrize(
    ("start", "then", "kind", "word"),
    [
        (4, 8, "fatal", "NULL dereference"),
        (8, 3, "corruption", "last bytes"),
        (8, 0, "fatal", "divide error"),
        (8, 9, "fatal", "general protection fault"),
        (8, -1, "corruption", "nothing is copied"),
    ],
)
def test_chans_changed_while_live(start: int, then: int, kind: str, word: str) -> None:
    h = live("tpp", start)
    if kind == "fatal":
        assert word in dies(h, "limit_chans", then)
    else:
        put(h, "limit_chans", then)
    assert ["leak", kind] == kinds(h)
    assert word in h.harm[-1].reason


@pytest.mark.parametrize("chans", [3, 5, 6, 7])
def test_odd_chans_lose_the_last_bytes(chans: int) -> None:
    h = ready("tpp")
    put(h, "limit_chans", chans)
    put(h, "dsa_state", 1)
    assert [] == h.harm
    put(h, "use_dsa_copy_pages", 1)
    assert [("corruption", "agent")] == [(x.kind, x.by) for x in h.harm]


def test_negative_and_zero_chans_initialise_nothing_in_silence() -> None:
    for chans in (0, -1):
        h = ready("tpp")
        put(h, "limit_chans", chans)
        mark = h.log_mark()
        put(h, "dsa_state", 1)
        assert () == lines(h, mark)
        assert "0" == get(h, f"{QUEUE}/clients")
        assert [] == h.harm


def test_nine_channels_overrun_the_array_at_init() -> None:
    h = host("tpp", devices=9)
    assert 0 == load(h, config(9))
    put(h, "limit_chans", 9)
    put(h, "dsa_state", 1)
    assert ["corruption"] == kinds(h)


@pytest.mark.parametrize(
    ("kind", "chans", "harm"),
    [
        ("tpp", 1, ["corruption"]),
        ("tpp", 2, ["corruption"]),
        ("tpp", 4, []),
        ("memtis", 4, ["corruption"]),
        ("tpp", 8, []),
        ("memtis", 8, []),
    ],
)
def test_few_chans_with_concurrency_overrun_the_descriptors(
    kind: str, chans: int, harm: list[str]
) -> None:
    h = live(kind, chans)
    assert [] == h.harm
    put(h, "use_concur_to_demote", 1)
    assert harm == kinds(h)


def test_accel_config_refuses_a_queue_in_use_and_sysfs_does_not() -> None:
    h = live("tpp")
    ran = h.run(("accel-config", "disable-wq", "dsa0/wq0.0"), 5.0)
    assert 1 == ran.code
    assert "wq has clients: 1" in ran.err
    assert [] == h.harm
    mark = h.log_mark()
    copy = h.copy()
    assert "work queue went away" in dies(copy, "/sys/bus/dsa/drivers/dmaengine/unbind", "wq0.0")
    assert "idxd 0000:6a:01.0: Clients has claim on wq 0: 1" in copy.kernel.state.log
    put(h, "use_dsa_copy_pages", 0)
    put(h, "/sys/bus/dsa/drivers/dmaengine/unbind", "wq0.0")
    assert ["corruption"] == kinds(h)
    assert lines(h, mark)


def test_a_device_error_on_the_plain_path_clears_the_knob() -> None:
    h = live("tpp")
    h.inject(faults.SelfClear("self-clear", after=2.0))
    mark = h.log_mark()
    h.sleep(1.9)
    assert "1" == get(h, "use_dsa_copy_pages")
    h.sleep(0.2)
    assert "0" == get(h, "use_dsa_copy_pages")
    assert "idxd_desc[0][0] failed with status 3" in lines(h, mark)[0]
    put(h, "use_dsa_copy_pages", 1)
    h.sleep(10)
    assert "1" == get(h, "use_dsa_copy_pages")
    assert [] == h.harm


def test_a_device_error_on_the_concurrent_path_keeps_the_knob() -> None:
    h = live("tpp")
    put(h, "use_concur_to_compact", 1)
    h.inject(faults.CopyFailures("copy-failures", every=2.0))
    h.sleep(5)
    assert "1" == get(h, "use_dsa_copy_pages")
    assert "dsa_copy_fail = 2 " in get(h, "/proc/timer")


@pytest.mark.parametrize(("text", "on"), [("abc", 0), ("1x", 1), ("1\n", 1)])
def test_the_timer_takes_anything(text: str, on: int) -> None:
    h = host("tpp")
    h.write("/proc/timer", text, 5.0)
    assert f"timer_state = {on} " in h.read("/proc/timer")
    assert [] == h.harm


def test_a_long_write_to_the_timer_overruns_its_buffer() -> None:
    h = host("tpp")
    h.write("/proc/timer", "1" * 2000, 5.0)
    assert ["corruption"] == kinds(h)


def test_a_release_too_soon_frees_descriptors_in_flight() -> None:
    def release(after: float, *, balancing: int, demotion: int) -> list[str]:
        h = live("tpp")
        put(h, BALANCING, balancing)
        put(h, DEMOTION, demotion)
        put(h, "use_dsa_copy_pages", 0)
        h.sleep(after)
        put(h, "dsa_state", 0)
        return kinds(h)

    assert ["corruption"] == release(4.9, balancing=0, demotion=0)
    assert [] == release(5.0, balancing=0, demotion=0)
    assert ["corruption"] == release(60.0, balancing=1, demotion=0)
    assert ["corruption"] == release(60.0, balancing=0, demotion=1)


def test_a_release_of_an_engine_that_never_copied_needs_no_wait() -> None:
    h = ready("tpp")
    put(h, "dsa_state", 1)
    put(h, "dsa_state", 0)
    assert [] == h.harm


@pytest.mark.parametrize("by_fault", [False, True])
def test_a_partial_init_has_no_way_back(by_fault: bool) -> None:
    h = ready("tpp", 8 if by_fault else 3)
    if by_fault:
        h.inject(faults.FailedInit("failed-init", channels=3))
    put(h, "dsa_state", 1)
    assert ([] if by_fault else ["stuck"]) == kinds(h)
    put(h, "dsa_state", 1)  # over 1: does nothing
    held = [get(h, f"/sys/bus/dsa/devices/wq{i}.0/clients") for i in range(8)]
    assert 0 == held.count("1")
    mark = h.log_mark()
    put(h, "dsa_state", 0)
    assert "chan reference count 0 != 1" in lines(h, mark)
    assert "corruption" == kinds(h)[-1]


@pytest.mark.parametrize(
    ("threads", "harm"),
    [(1, []), (2, []), (4, []), (8, []), (7, ["corruption"]), (6, ["corruption"]), (64, [])],
)
def test_odd_thread_counts_lose_bytes(threads: int, harm: list[str]) -> None:
    h = host("tpp")
    put(h, "limit_mt_num", threads)
    assert [] == h.harm
    put(h, "cpu_multi_copy_pages", 1)
    assert harm == kinds(h)


def test_no_threads_divide_by_zero_on_the_concurrent_path_only() -> None:
    h = host("tpp")
    put(h, "limit_mt_num", 0)
    put(h, "cpu_multi_copy_pages", 1)
    assert [] == h.harm
    assert "divide error" in dies(h, "use_concur_to_compact", 1)


def test_a_cpu_that_goes_offline_makes_a_thread_count_odd() -> None:
    h = host("tpp")
    put(h, "limit_mt_num", 8)
    put(h, "cpu_multi_copy_pages", 1)
    assert [] == h.harm
    put(h, "/sys/devices/system/cpu/cpu7/online", 0)
    assert ["corruption"] == kinds(h)


def test_asynchronous_mode_oopses_at_the_first_page() -> None:
    h = ready("tpp")
    put(h, "dsa_async_mode", 1)
    put(h, "dsa_state", 1)
    assert "dsa_async_mode" in dies(h, "use_dsa_copy_pages", 1)


def test_a_channel_of_another_driver_is_taken_for_one_of_a_dsa() -> None:
    h = ready("tpp", other_dma=[{"channels": 1}])
    put(h, "dsa_state", 1)
    assert ["corruption"] == kinds(h)
    assert "1" == get(h, "/sys/class/dma/dma0chan0/in_use")
    assert "another driver" in dies(h, "use_dsa_copy_pages", 1)


def test_a_translated_domain_makes_the_devices_fault() -> None:
    h = ready("tpp", iommu="translated")
    put(h, "dsa_state", 1)
    put(h, "use_dsa_copy_pages", 1)
    assert ["fault"] == kinds(h)
    assert "0" == get(h, "use_dsa_copy_pages")


@pytest.mark.parametrize(
    ("queue", "concurrent", "harm"),
    [
        ({"mode": "shared", "threshold": 64}, 0, ["fault"]),
        ({"max_batch_size": 64}, 0, []),
        ({"max_batch_size": 64}, 1, ["fault"]),
        ({"max_transfer_size": 131072}, 0, ["fault"]),
        ({"max_transfer_size": 262144}, 0, []),
    ],
)
def test_queues_that_the_engine_cannot_use(
    queue: dict[str, Any], concurrent: int, harm: list[str]
) -> None:
    h = host("tpp")
    assert 0 == load(h, config(8, **queue))
    put(h, "use_concur_to_demote", concurrent)
    put(h, "dsa_state", 1)
    put(h, "use_dsa_copy_pages", 1)
    assert harm == kinds(h)


@pytest.mark.parametrize(
    ("kind", "event_log", "guard", "down"),
    [
        ("stock", False, None, True),
        ("stock", True, None, False),
        ("stock", False, True, False),
        ("ours", False, None, False),
        ("tpp", False, None, False),
        ("ours", False, False, True),
    ],
)
def test_disabling_a_device_without_event_log(
    kind: str, event_log: bool, guard: bool | None, down: bool
) -> None:
    h = host(kind, kernel={"evl_guard": guard}, devices=[{"event_log": event_log}])
    assert 0 == load(h, config(1))
    if down:
        with pytest.raises(HostDown):
            h.run(("accel-config", "disable-device", "dsa0"), 5.0)
        assert ["fatal"] == kinds(h)
        return
    assert 0 == h.run(("accel-config", "disable-device", "dsa0"), 5.0).code
    assert "disabled" == get(h, "/sys/bus/dsa/devices/dsa0/state")
    assert "0" == get(h, f"{QUEUE}/size")
    assert [] == h.harm


def test_waiting_by_umwait_needs_a_cpu_that_has_it() -> None:
    for waitpkg in (True, False):
        h = ready("tpp", waitpkg=waitpkg)
        put(h, "dsa_sync_mode", 3)
        put(h, "dsa_state", 1)
        if waitpkg:
            put(h, "use_dsa_copy_pages", 1)
            assert [] == h.harm
        else:
            assert "UMWAIT" in dies(h, "use_dsa_copy_pages", 1)


def test_lists_on_a_halted_device_fail() -> None:
    h = live("tpp", load=["lists"])
    put(h, "use_concur_to_demote", 1)
    h.inject(faults.Halt("halt", "dsa1"))
    h.sleep(0.1)
    assert [("fault", "fault")] == [(x.kind, x.by) for x in h.harm]
    put(h, "use_dsa_copy_pages", 0)
    put(h, "use_dsa_copy_pages", 1)
    assert ("fault", "agent") == (h.harm[-1].kind, h.harm[-1].by)
    assert "1" == get(h, "use_dsa_copy_pages")


def test_many_threads_overrun_an_array_on_the_concurrent_path() -> None:
    h = host("tpp", nodes=[{"cpus": "0-63"}, {}])
    put(h, "limit_mt_num", 64)
    put(h, "cpu_multi_copy_pages", 1)
    assert [] == h.harm
    put(h, "use_concur_to_demote", 1)
    assert ["corruption"] == kinds(h)


def test_a_release_of_more_channels_than_were_taken() -> None:
    h = ready("tpp")
    put(h, "limit_chans", 4)
    put(h, "dsa_state", 1)
    put(h, "limit_chans", 8)
    assert ["leak"] == kinds(h)
    assert "above the 4 in use" in dies(h, "dsa_state", 0)


def test_a_release_after_a_queue_has_gone() -> None:
    h = ready("tpp")
    put(h, "dsa_state", 1)
    h.poke("/sys/bus/dsa/drivers/dmaengine/unbind", "wq0.0")
    assert [("corruption", "other")] == [(x.kind, x.by) for x in h.harm]
    put(h, "dsa_state", 0)
    assert ("corruption", "agent") == (h.harm[-1].kind, h.harm[-1].by)


def test_the_seed_takes_only_these_words_for_demotion() -> None:
    h = host("tpp")
    for text, value in (("true", "true"), ("0", "false"), ("1", "true"), ("false", "false")):
        put(h, DEMOTION, text)
        assert value == get(h, DEMOTION)
    with pytest.raises(Rejected):
        put(h, DEMOTION, "yes")


TIERED: dict[str, Any] = {"nodes": [{"cpus": "0-7"}, {"cpus": "8-9"}]}


@pytest.mark.parametrize("kind", ["tpp", "ours"])
def test_tiering_with_cpus_on_the_slow_node_is_ineffective(kind: str) -> None:
    h = host(kind, **TIERED)
    put(h, DEMOTION, 1)
    assert ["ineffective"] == kinds(h)
    h = host(kind, **TIERED)
    for cpu in (8, 9):
        put(h, f"/sys/devices/system/cpu/cpu{cpu}/online", 0)
    for online in (0, 1):  # TPP works out its demotion targets at this
        put(h, "/sys/devices/system/cpu/cpu7/online", online)
    put(h, DEMOTION, 1)
    assert [] == h.harm
    h.poke("/sys/devices/system/cpu/cpu8/online", "1\n")
    assert [("ineffective", "other")] == [(x.kind, x.by) for x in h.harm]


@pytest.mark.parametrize(("kind", "harm"), [("tpp", ["swap"]), ("ours", []), ("stock", [])])
def test_tiering_with_swap(kind: str, harm: list[str]) -> None:
    h = host(kind, swap=[{"path": "/dev/sdb1", "used": 100}])
    put(h, BALANCING, 2)
    assert harm == kinds(h)
    h = host(kind, swap=[{"path": "/dev/sdb1", "used": 100}])
    assert 0 == h.run(("swapoff", "/dev/sdb1"), 60.0).code
    put(h, BALANCING, 2)
    assert [] == h.harm


def test_swapoff_that_does_not_fit_runs_out_of_memory() -> None:
    h = host(
        "ours",
        nodes=[{"cpus": "0-1", "memory": 4, "used": 3}],
        swap=[{"path": "/dev/sdb1", "size": 8, "used": 2048}],
    )
    with pytest.raises(HostDown):
        h.run(("swapoff", "/dev/sdb1"), 60.0)
    assert "out of memory" in h.harm[0].reason


def demote_line(h: SimHost, node: int = 0) -> int:
    text = h.read("/proc/zoneinfo").partition(f"Node {node}, zone   Normal")[2]
    return int(text.partition("        demote   ")[2].split()[0])


@pytest.mark.parametrize("kind", ["tpp", "ours"])
def test_the_factor_counts_only_when_written_under_tiering(kind: str) -> None:
    h = host(kind)
    put(h, "demote_scale_factor", 500)
    put(h, BALANCING, 2)
    assert 0 == demote_line(h)
    assert [] == h.harm
    put(h, DEMOTION, 1)
    assert ["ineffective"] == kinds(h)
    put(h, "demote_scale_factor", 500)
    managed = 16 * 262144 - 3840 - 480000
    assert managed * 500 // 10000 == demote_line(h)


@pytest.mark.parametrize("kind", ["tpp", "ours"])
@pytest.mark.parametrize("fast", [0, 1])
def test_only_a_node_with_cpus_has_a_mark(kind: str, fast: int) -> None:
    """Whatever its number: a node without CPUs is of no top tier."""
    nodes: list[dict[str, Any]] = [{"memory": 16, "used": 1}, {"memory": 16, "used": 1}]
    nodes[fast]["cpus"] = "0-7"
    h = host(kind, nodes=nodes)
    put(h, BALANCING, 2)
    put(h, "demote_scale_factor", 500)
    assert demote_line(h, fast) > 0
    assert demote_line(h, 1 - fast) == 0


def test_memtis_has_neither_factor_nor_tiering_mode() -> None:
    h = host("memtis")
    with pytest.raises(Missing):
        put(h, "demote_scale_factor", 200)
    with pytest.raises(Rejected):
        put(h, BALANCING, 2)
    assert "demote" not in h.read("/proc/zoneinfo")


def test_an_idle_host_shows_no_harm_where_a_loaded_one_does() -> None:
    h = host("tpp", load=[])
    put(h, "use_dsa_copy_pages", 1)
    assert [] == h.harm
