# SPDX-License-Identifier: Apache-2.0
"""dsatier's package on dsatier's kernel: a host with systemd goes up the ladder and down again.

Nothing is simulated: the kernel demotes, and the daemon is killed. The tests are one story, in this
order.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.host import (
    PATIENCE,
    VM,
    host,
    in_order,
    installed,
    reload,
    said,
    shown,
    squeeze,
    status,
    steps,
    struck,
    until,
)
from tests.kernel.ours import program
from tests.system.conftest import PROFILES
from vm.guest import Command, Guest
from vm.ours import BENCH, BUILD, counters

pytestmark = pytest.mark.system

MINE, MORE = "/etc/dsatier.d/50-mine.yaml", "/etc/dsatier.d/60-more.yaml"
SWAP = "/swap"
GROUP = "/sys/fs/cgroup/held"
BALANCING = "/proc/sys/kernel/numa_balancing"
DEMOTION = "/sys/kernel/mm/numa/demotion_enabled"
UP = {
    f"{VM}limit_mt_num": "4",
    f"{VM}use_concur_to_compact": "1",
    f"{VM}use_concur_to_demote": "1",
    f"{VM}cpu_multi_copy_pages": "1",
    f"{VM}demote_scale_factor": "1000",
    BALANCING: "2",
    DEMOTION: "true",
}
"""What profiles/tpp-multithread.yaml wants, as this kernel shows it."""


@pytest.fixture(scope="module")
def vm(package: Path) -> Iterator[Guest]:
    """A host with swap on, and dsatier without a profile."""
    with installed(host(package, files={"/usr/local/bin/moves": program("moves")})) as found:
        found.sh(
            """dd if=/dev/zero of="$1" bs=1M count=256 2>&1; chmod 600 "$1"; mkswap "$1" """, SWAP
        )
        found.ok("swapon", SWAP)
        yield found


def live(vm: Guest) -> dict[str, str]:
    """Return what the profile changes, as the kernel has it."""
    paths = list(UP)
    read = vm.ok("cat", *paths).splitlines()
    return dict(zip(paths, read, strict=True)) | {"swap": str(SWAP in vm.read("/proc/swaps"))}


def give(vm: Guest) -> None:
    vm.put(MINE, (PROFILES / "tpp-multithread.yaml").read_bytes())


def swapped(vm: Guest, mib: int) -> Command:
    """Have so much swapped out that taking swap away takes a while; return who owns it."""
    script = 'mkdir -p "$1"; echo $$ >"$1/cgroup.procs"; exec taskset 1 hold'
    hold = vm.start("sh", "-euc", script, "sh", GROUP, given=None)
    hold.give(f"more {mib}\n".encode())
    hold.wait_for("^1 held")
    for _ in range(8):  # it may find nothing that is cold enough, and says so
        vm.run(
            "sh", "-c", 'echo "$2M" >"$1/memory.reclaim"', "sh", GROUP, str(mib), timeout=PATIENCE
        )
        used = int(vm.sh("tail -n +2 /proc/swaps").split()[3])
        if used > mib << 9:
            break
    assert used > mib << 9, f"half of {mib} MiB at least is to be swapped out, found {used} KiB"
    return hold


def right(hold: Command, timeout: float = PATIENCE) -> None:
    """Assert that memory holds what was written to it, and have its owner end."""
    hold.give(b"check\n")
    found = hold.wait_for("(right|wrong.*)$", timeout)
    assert "right" == found[1]
    hold.end_input()
    assert 0 == hold.wait().code


# -- the story -----------------------------------------------------------------------


def test_the_kernel_is_known_by_its_interface(vm: Guest) -> None:
    facts = json.loads(vm.ok("dsatier", "facts", "--json"))
    assert ("ours", 1) == (facts["kernel"]["family"], facts["kernel"]["abi"])
    assert vm.release == facts["kernel"]["release"]
    assert "1" == vm.read("/sys/kernel/mm/dsatier/abi")
    shipped = json.loads((BUILD.parents[1] / "abi/abi.json").read_text())
    manifest = json.loads(vm.read("/sys/kernel/mm/dsatier/manifest"))
    assert shipped | {"version": vm.release} == manifest
    fast, slow = facts["nodes"]
    assert ([0, 1, 2], [], [3]) == (fast["cpus"], slow["cpus"], facts["offline_cpus"])
    assert fast["tier"] < slow["tier"]
    assert "unmanaged" == status(vm)["state"]
    shown(vm, "without a profile")


def test_up(vm: Guest) -> None:
    """A reload comes back when every rung is proven, and the kernel has every value."""
    before = live(vm)
    assert {"True"} == {before["swap"]}
    hold = swapped(vm, 32)
    doctor = vm.run("dsatier", "doctor", "-p", "/usr/share/dsatier/profiles/tpp-multithread.yaml")
    assert (0, "") == (doctor.code, "".join(re.findall("blocker.*", doctor.out)))
    give(vm)
    reload(vm)
    shown(vm, "after systemctl reload")
    found = status(vm)
    assert ("converged", "Accepted") == (found["state"], found["profile"]["status"])
    assert {**UP, "swap": "False"} == live(vm)
    order = steps(vm)
    print("\n".join(order))
    in_order(
        order,
        "use_concur_to_demote = 1",
        "cpu_multi_copy_pages = 1",
        "swap",
        "numa_balancing = 2",
        "demote_scale_factor = 1000",
        "demotion_enabled = 1",
    )
    facts = json.loads(vm.ok("dsatier", "facts", "--json"))
    assert facts["nodes"][0]["demotion_watermark"] > 0
    assert 0 == vm.run("dsatier", "verify").code
    right(hold)  # what came back from swap


def test_memory_that_grows_short_is_demoted_by_threads(vm: Guest) -> None:
    """The counters of the kernel, its timer and ``measure`` agree, and no byte changes."""
    facts = json.loads(vm.ok("dsatier", "facts", "--json"))
    vm.write(f"{VM}migrate_batch_usecs", "0")  # an emulated CPU is slow: a bound cuts lists short
    before = counters(vm)
    found, measured = squeeze(vm, PATIENCE * 3)
    promoted = counters(vm)["pgpromote_success"] - before["pgpromote_success"]
    mark = facts["nodes"][0]["demotion_watermark"]
    print(f"mark {mark} pages; {found}; promoted {promoted}; {measured}")
    assert found["pgdemote_kswapd"] > 4096
    assert found["threads"] > found["pgdemote_kswapd"] // 4
    assert 0 == found["fault"] == found["failed"] == found["pgdemote_direct"]
    assert measured["bpage_cnt"] >= found["pgdemote_kswapd"] > 0
    timer = vm.read("/proc/timer")
    copied = re.findall(r"^copied engine=threads reason=demotion .*$", timer, re.MULTILINE)
    print("\n".join(copied))
    assert copied
    assert ("converged", 0) == (status(vm)["state"], status(vm)["repaired"])


def test_drift_is_repaired_or_told(vm: Guest) -> None:
    steps(vm)
    vm.write(f"{VM}cpu_multi_copy_pages", "0")
    until(vm, "repaired", lambda s: s["state"] == "converged" and s["repaired"] == 1)
    assert "1" == vm.read(f"{VM}cpu_multi_copy_pages")
    vm.write(DEMOTION, "0")
    until(vm, "repaired", lambda s: s["state"] == "converged" and s["repaired"] == 2)
    assert "true" == vm.read(DEMOTION)
    vm.ok("swapon", SWAP)
    until(vm, "repaired", lambda s: s["state"] == "converged" and s["repaired"] == 3)
    assert SWAP not in vm.read("/proc/swaps")
    cpu = "/sys/devices/system/cpu/cpu3/online"
    vm.write(cpu, "1")
    until(vm, "repaired", lambda s: s["state"] == "converged" and s["repaired"] == 4)
    assert "0" == vm.read(cpu)
    shown(vm, "after drift of four kinds")

    vm.put(MORE, "version: 1\ndrift: {policy: report}\n")
    reload(vm)
    vm.write(f"{VM}limit_mt_num", "5")
    found = until(vm, "told", lambda s: s["state"] == "drifted")
    shown(vm, "drift that is only to be reported")
    assert "limit_mt_num" in found["message"]
    time.sleep(3)
    assert "5" == vm.read(f"{VM}limit_mt_num")
    assert 4 == vm.run("dsatier", "verify").code
    vm.ok("rm", MORE)
    reload(vm)
    assert {**UP, "swap": "False"} == live(vm)


def test_a_number_of_threads_that_a_seed_kernel_could_not_take(vm: Guest) -> None:
    """The host comes down as far as it must, and no further."""
    vm.put(MORE, "version: 1\nengine: {kind: multithread, limit_mt_num: 3}\n")
    steps(vm)
    reload(vm)
    print("\n".join(steps(vm)))
    assert {**UP, f"{VM}limit_mt_num": "3", "swap": "False"} == live(vm)
    vm.ok("rm", MORE)
    reload(vm)
    assert {**UP, "swap": "False"} == live(vm)


def test_what_the_kernel_cannot_do_is_refused_and_nothing_is_touched(vm: Guest) -> None:
    steps(vm)
    vm.put(MORE, "version: 1\nengine: {kind: dsa, limit_chans: 4}\n")
    ran = vm.run("systemctl", "reload", "dsatier", timeout=PATIENCE)
    assert 0 != ran.code
    found = status(vm)
    shown(vm, "a DSA is asked for, and there is none")
    assert ("converged", "Refused") == (found["state"], found["profile"]["status"])
    assert [] == steps(vm)
    vm.ok("rm", MORE)
    reload(vm)
    assert {**UP, "swap": "False"} == live(vm)


def test_down_in_order(vm: Guest) -> None:
    """A profile that is gone leaves the host as it is; a rollback takes it down, rung by rung."""
    steps(vm)
    vm.ok("rm", MINE)
    reload(vm)
    assert ({**UP, "swap": "False"}, []) == (live(vm), steps(vm))
    shown(vm, "the profile is gone")
    vm.ok("dsatier", "rollback", timeout=PATIENCE)
    shown(vm, "after rollback")
    order = steps(vm)
    print("\n".join(order))
    in_order(order, "demotion_enabled = 0", "cpu_multi_copy_pages = 0", "use_concur_to_demote = 0")
    expected = dict.fromkeys(UP, "0") | {DEMOTION: "false", "swap": "True"}
    # the kernel's own 4 was what the profile asks for: dsatier first wrote over somebody's 5
    expected |= {f"{VM}limit_mt_num": "5", f"{VM}demote_scale_factor": "200"}
    assert expected == live(vm)
    assert "unmanaged" == status(vm)["state"]


def strike(vm: Guest) -> Command:
    """Apply the profile, and kill the daemon while swap goes off, with the engine already on."""
    hold = swapped(vm, 96)
    striker = struck(vm, "swap")
    give(vm)
    vm.start("systemctl", "reload", "dsatier")
    assert "swap" in said(striker)
    return hold


def test_killed_in_the_middle(vm: Guest) -> None:
    """systemd starts it again; it comes up on CPU copies, and goes on when somebody has looked."""
    before = int(vm.ok("systemctl", "show", "--property=NRestarts", "--value", "dsatier"))
    hold = strike(vm)
    found = until(vm, "in quarantine", lambda s: s["state"] == "quarantined")
    shown(vm, "killed while swap went off")
    assert before < int(vm.ok("systemctl", "show", "--property=NRestarts", "--value", "dsatier"))
    assert found["conditions"]
    now = live(vm)
    assert ("0", "0", "false") == tuple(
        now[path] for path in (f"{VM}cpu_multi_copy_pages", BALANCING, DEMOTION)
    )
    right(hold)
    vm.ok("dsatier", "clear", timeout=PATIENCE)
    until(vm, "up again", lambda s: s["state"] == "converged")
    assert {**UP, "swap": "False"} == live(vm)
    shown(vm, "after clear")
    vm.ok("rm", MINE)
    reload(vm)
    vm.ok("dsatier", "rollback", timeout=PATIENCE)


# -- the benchmark, which needs python3 as the agent does ----------------------------

RUN = ("/opt/bench/run", "--moves", "/usr/local/bin/moves")


def test_the_benchmark_keeps_its_hands_off_a_host_that_is_kept(vm: Guest) -> None:
    vm.copy_in(BENCH, "/opt")
    before = live(vm)
    ran = vm.run(*RUN, "--engines", "plain", timeout=PATIENCE)
    assert (4, before) == (ran.code, live(vm))
    assert "dsatier keeps this host's knobs" in ran.err


def test_the_benchmark_measures_and_puts_everything_back(vm: Guest) -> None:
    vm.ok("systemctl", "stop", "dsatier", timeout=PATIENCE)
    before = every_knob(vm)
    words = ["--engines", "plain,cpu,threads:3", "--sizes", "4k,64k,2m,mixed"]
    words += ["--lists", "24", "--mib", "64", "--seconds", "0", "--usecs", "0"]
    told = vm.ok(*RUN, *words, "--json", "/tmp/bench.json", timeout=PATIENCE * 3)
    print(told)
    assert before == every_knob(vm)
    document = json.loads(vm.get("/tmp/bench.json"))
    if keep := os.environ.get("DSATIER_BENCH_JSON"):
        Path(keep).write_bytes(vm.get("/tmp/bench.json"))
    results = document["results"]
    assert 3 * 4 == len(results)
    assert {0} == {one["wrong"] for one in results}
    for one in results:
        assert one["moved"] > 9 * one["left"], one
        assert one["ns"] > 0 < one["bytes"], one
    copied = {(one["engine"], one["row"]): one["copied"] for one in results}
    assert {0} == {sum(copied["plain", row].values()) for _, row in copied}
    assert copied["cpu", "24 x 4 KiB"]["cpu"] > 0
    assert copied["threads:3", "24 x 2 MiB"]["threads"] > 0


def test_the_benchmark_puts_everything_back_when_it_is_ended(vm: Guest) -> None:
    before = every_knob(vm)
    for sign in (signal.SIGINT, signal.SIGTERM):
        words = ["--engines", "threads:2", "--sizes", "2m", "--lists", "24", "--mib", "64"]
        ran = vm.start(*RUN, *words, "--seconds", "600")
        end = time.monotonic() + PATIENCE
        while vm.read(f"{VM}cpu_multi_copy_pages") != "1":
            assert time.monotonic() < end
            time.sleep(0.2)
        time.sleep(1)
        ran.kill(sign)
        found = ran.wait(PATIENCE)
        assert (1, True) == (found.code, sign.name in found.err), found.err
        assert before == every_knob(vm)
    assert "" == vm.run("pidof", "moves").out


def every_knob(vm: Guest) -> str:
    """Return all that the benchmark may turn."""
    script = """for file in /proc/sys/vm/migrate_* /proc/sys/vm/cpu_multi_* /proc/sys/vm/limit_* \
        /proc/sys/vm/*dsa* /sys/kernel/mm/transparent_hugepage/enabled \
        /sys/kernel/mm/transparent_hugepage/hugepages-*/enabled; do
            echo "$file $(cat "$file")"; done"""
    return vm.sh(script)
