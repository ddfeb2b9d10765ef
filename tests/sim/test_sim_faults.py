# SPDX-License-Identifier: Apache-2.0
"""Faults on demand: each shows, and nothing else changes."""

from __future__ import annotations

import pytest

from dsatier.host.port import Host, HostDown, Hung, Locked, Missing, Rejected
from dsatier.sim import faults
from dsatier.sim.faults import SimCrash
from tests.sim.simhosts import DEMOTION, config, get, host, kinds, live, load, put, ready

FILE = "/var/lib/dsatier/checkpoint.json"


def test_the_simulation_is_a_host() -> None:
    port: Host = host()
    assert "sim" == port.hostname()


@pytest.mark.parametrize("channels", [0, 3])
def test_failed_init(channels: int) -> None:
    h = ready("tpp")
    h.inject(faults.FailedInit("failed-init", channels=channels))
    mark = h.log_mark()
    put(h, "dsa_state", 1)
    assert "Failed to initialize DSA." in h.log_since(mark).lines
    held = [get(h, f"/sys/bus/dsa/devices/wq{i}.0/clients") for i in range(8)]
    assert 0 == held.count("1")  # they are given back at once
    assert channels == len(h.kernel.state.engine.kept)
    assert [] == h.harm
    ours = ready("ours")
    ours.inject(faults.FailedInit("failed-init"))
    with pytest.raises(Rejected):
        put(ours, "dsa_state", 1)
    put(ours, "dsa_state", 1)


@pytest.mark.parametrize(
    ("kind", "reset", "state", "line"),
    [
        ("tpp", "flr", "disabled", "idxd halted, need FLR."),
        ("ours", "flr", "disabled", "idxd halted, need FLR."),
        ("ours", "system", "disabled", "idxd halted, need system reset."),
        ("tpp", "software", "disabled", "Device is HALTED!"),
    ],
)
def test_halt(kind: str, reset: str, state: str, line: str) -> None:
    h = live(kind)
    mark = h.log_mark()
    h.inject(faults.Halt("halt", "dsa2", reset=reset, after=3.0))  # type: ignore[arg-type]
    h.sleep(2.9)
    assert "enabled" == get(h, "/sys/bus/dsa/devices/dsa2/state")
    h.sleep(0.2)
    assert state == get(h, "/sys/bus/dsa/devices/dsa2/state")
    assert any(line in x for x in h.log_since(mark).lines)
    # a seed kernel oopses before it could turn its engine off, ours goes on without the device
    assert "1" == get(h, "use_dsa_copy_pages")
    assert "disabled" == get(h, "/sys/bus/dsa/devices/wq2.0/state")
    assert [] == [x for x in h.harm if x.by == "agent"]
    assert "" == h.down


def test_a_halted_device_comes_back_only_with_a_boot() -> None:
    h = ready("ours", 1)
    h.inject(faults.Halt("halt", "dsa0"))
    h.sleep(0.1)
    put(h, "/sys/bus/dsa/drivers/dmaengine/unbind", "wq0.0")
    put(h, "/sys/bus/dsa/drivers/idxd/unbind", "dsa0")
    assert 1 == load(h, config(1))
    assert "disabled" == get(h, "/sys/bus/dsa/devices/dsa0/state")
    assert "128" == get(h, "/sys/bus/dsa/devices/wq0.0/size")
    h.reboot()
    assert 0 == load(h, config(1))


def test_a_vanished_queue_under_the_live_engine() -> None:
    h = live("tpp")
    h.inject(faults.VanishedQueue("vanished-queue", "wq3.0", after=1.0))
    with pytest.raises(HostDown):
        h.sleep(2)
    assert [("fatal", "other")] == [(x.kind, x.by) for x in h.harm]


@pytest.mark.parametrize("performed", [False, True])
def test_a_hung_write(performed: bool) -> None:
    h = host("ours")
    path = "/proc/sys/vm/limit_chans"
    h.inject(faults.HungWrite("hung-write", path, performed=performed))
    for deadline, now in ((7.0, 7.0), (2.0, 9.0)):
        with pytest.raises(Hung):
            h.write(path, "4\n", deadline)
        assert now == h.monotonic()
    assert ("4" if performed else "8") == get(h, "limit_chans")
    put(h, "limit_mt_num", 2)
    h.heal("hung-write")
    put(h, "limit_chans", 2)
    assert "2" == get(h, "limit_chans")


def test_a_hung_command() -> None:
    h = host("ours")
    h.inject(faults.HungCommand("hung-command", "load-config"))
    with pytest.raises(Hung):
        load(h, config(8))
    assert 30.0 == h.monotonic()
    assert 0 == load(h, config(8))


def test_a_rejected_write() -> None:
    h = host("ours")
    h.inject(faults.RejectedWrite("rejected-write", DEMOTION, errno="EIO"))
    with pytest.raises(Rejected):
        put(h, DEMOTION, 1)
    put(h, DEMOTION, 1)
    assert "true" == get(h, DEMOTION)


def test_a_late_device() -> None:
    late = {"kind": "late-device", "device": "dsa1", "after": 20.0}
    h = host("ours", devices=2, faults=[late])
    for _ in range(2):
        assert "dsa1" not in h.entries("/sys/bus/dsa/devices")
        with pytest.raises(Missing):
            h.read("/sys/bus/dsa/devices/wq1.0/state")
        assert 1 == load(h, config(2))
        h.sleep(20)
        assert "wq1.0" in h.entries("/sys/bus/dsa/devices")
        assert "disabled" == get(h, "/sys/bus/dsa/devices/dsa1/state")
        h.reboot()


@pytest.mark.parametrize(
    ("fault", "stuck"),
    [
        (faults.StuckCpu("stuck-cpu", cpu=2), [2]),
        (faults.StuckCpu("stuck-cpu", nth=3), [3]),
    ],
)
def test_a_cpu_that_does_not_go(fault: faults.StuckCpu, stuck: list[int]) -> None:
    h = host("ours")
    h.inject(fault)
    refused = []
    for _ in range(2):
        for cpu in range(1, 6):
            try:
                put(h, f"/sys/devices/system/cpu/cpu{cpu}/online", 0)
            except Rejected:
                refused.append(cpu)
    assert stuck * 2 == refused


def test_a_second_writer() -> None:
    h = host("ours")
    h.inject(
        faults.OtherWriter(
            "other-writer", "/proc/sys/vm/limit_chans", "2\n", after=5.0, every=10.0, times=2
        )
    )
    seen = []
    for _ in range(6):
        put(h, "limit_chans", 8)
        h.sleep(5)
        seen.append(get(h, "limit_chans"))
    assert ["2", "8", "2", "8", "8", "8"] == seen


def test_swap_that_comes_back() -> None:
    h = host("tpp", swap=[{"path": "/dev/sdb1"}])
    h.run(("swapoff", "/dev/sdb1"), 5.0)
    put(h, DEMOTION, 1)
    h.inject(faults.SwapReturns("swap-returns", after=2.0))
    h.sleep(3)
    assert "/dev/sdb1" in h.read("/proc/swaps")
    assert [("swap", "other")] == [(x.kind, x.by) for x in h.harm]


@pytest.mark.parametrize(("errno", "drops"), [("ENOSPC", True), ("EROFS", False)])
def test_a_full_disk_keeps_what_was_there(errno: str, drops: bool) -> None:
    h = host("ours")
    h.keep(FILE, "old")
    h.inject(faults.FullDisk("disk", errno=errno, keeps=1))  # type: ignore[arg-type]
    h.keep("/etc/dsatier.d/a", "fits")
    with pytest.raises(Rejected):
        h.keep(FILE, "new")
    assert "old" == h.read(FILE)
    h.keep("/run/dsatier/lock", "memory")
    try:
        h.drop(FILE)
    except Rejected:
        assert not drops
    else:
        assert drops
    h.heal("disk")
    h.keep(FILE, "new")
    assert "new" == h.read(FILE)


def test_a_lost_log() -> None:
    h = ready("tpp")
    mark = h.log_mark()
    h.inject(faults.LostLog("lost-log", with_write="/proc/sys/vm/dsa_state"))
    put(h, "limit_chans", 4)
    assert h.log_since(mark).complete
    put(h, "dsa_state", 1)
    assert not h.log_since(mark).complete


def test_the_log_loses_its_oldest_lines_when_it_is_full() -> None:
    h = host("tpp", log_lines=3)
    mark = h.log_mark()
    for _ in range(3):
        put(h, "/proc/timer", 0)
    assert (3, True) == (len(h.log_since(mark).lines), h.log_since(mark).complete)
    put(h, "/proc/timer", 0)
    assert (3, False) == (len(h.log_since(mark).lines), h.log_since(mark).complete)


def test_a_clock_that_jumps() -> None:
    h = host("ours")
    start = h.wall()
    h.inject(faults.ClockJump("clock-jump", by=-3600.0, after=1.0))
    h.sleep(2)
    assert (start - 3598.0, 2.0) == (h.wall(), h.monotonic())


@pytest.mark.parametrize("performed", [False, True])
def test_a_crash_at_any_operation(performed: bool) -> None:
    for at in range(4):
        h = ready("ours")
        h.inject(faults.Crash("crash", after=at, performed=performed))
        done = 0
        with pytest.raises(SimCrash), h.lock("/run/lock/dsatier", "1 dsatier"):
            put(h, "limit_chans", 4)
            done += 1
            h.keep(FILE, "x")
            done += 1
            h.run(("accel-config", "disable-wq", "dsa0/wq0.0"), 5.0)
            done += 1
            h.drop(FILE)
        reached = at + performed
        assert at == done
        assert ("4" if reached > 0 else "8") == get(h, "limit_chans")
        assert (1 < reached < 4) == (FILE in h.files)
        assert ("disabled" if reached > 2 else "enabled") == (
            get(h, "/sys/bus/dsa/devices/wq0.0/state")
        )
        with h.lock("/run/lock/dsatier", "2 dsatier"):
            put(h, "limit_chans", 8)
        assert [] == h.harm


def test_no_except_clause_swallows_a_crash() -> None:
    assert not issubclass(SimCrash, Exception)


def test_the_lock_is_one() -> None:
    h = host("ours")
    with h.lock("/run/lock/dsatier", "41 dsatier apply"):
        with (
            pytest.raises(Locked) as locked,
            h.lock("/run/lock/dsatier", "42 dsatier status"),
        ):
            pass
        assert "41 dsatier apply" == locked.value.holder
    with h.lock("/run/lock/dsatier", "43 dsatier"):
        pass


def test_kernel_files_are_nobodys_own() -> None:
    h = host("ours")
    with pytest.raises(Rejected):
        h.keep("/proc/sys/vm/limit_chans", "4")
    assert [] == kinds(h)
