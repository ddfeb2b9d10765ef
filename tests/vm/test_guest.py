# SPDX-License-Identifier: Apache-2.0
"""The library itself, on guests that run Debian's own kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vm import images
from vm.booting import guest
from vm.guest import Complained, Guest, GuestError
from vm.machine import Machine, Node

pytestmark = pytest.mark.system
QUICK = 10.0
"""Seconds from the start to the first command's end."""


@pytest.fixture(scope="module")
def vm() -> Iterator[Guest]:
    """A guest with two tiers."""
    with guest() as found:
        yield found


def test_a_guest_is_quick() -> None:
    """Counted in the emulator's own time, for others may be at work on this machine."""
    began = time.monotonic()
    with guest() as found:
        assert "vm\n" == found.ok("hostname")
        took = time.monotonic() - began
        busy = found.busy
    print(f"to the first command: {took:.1f} s, {busy:.1f} s of a CPU")
    assert busy < QUICK


def test_the_kernel_is_debians(vm: Guest) -> None:
    assert vm.kernel.release == vm.release == vm.read("/proc/sys/kernel/osrelease")
    assert "+deb" in vm.release


def test_output_errors_and_codes(vm: Guest) -> None:
    ran = vm.run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (3, "out\n", "err\n") == (ran.code, ran.out, ran.err)
    assert -signal.SIGTERM == vm.run("sh", "-c", "kill $$").code
    with pytest.raises(GuestError, match=r"false: exit code 1"):
        vm.ok("false")


def test_a_command_that_cannot_start_is_told(vm: Guest) -> None:
    with pytest.raises(GuestError, match="/nonesuch: not started: No such file"):
        vm.run("/nonesuch")
    with pytest.raises(GuestError, match="/proc/mounts: not started: Permission denied"):
        vm.run("/proc/mounts")


def test_input_of_any_bytes_comes_back(vm: Guest) -> None:
    data = os.urandom(3 << 20)
    vm.put("/tmp/some/where/data", data, 0o600)
    assert data == vm.get("/tmp/some/where/data")
    assert "600\n" == vm.ok("stat", "-c", "%a", "/tmp/some/where/data")
    assert "" == vm.ok("cat")


def test_a_file_that_is_not_there(vm: Guest) -> None:
    with pytest.raises(FileNotFoundError, match="/nonesuch"):
        vm.get("/nonesuch")


def test_kernel_files(vm: Guest) -> None:
    path = "/proc/sys/vm/swappiness"
    vm.write(path, "37")
    assert "37" == vm.read(path)
    with pytest.raises(GuestError, match=rf"{path}: '-1': .*nvalid argument"):
        vm.write(path, "-1")


def test_folders_in_and_out(vm: Guest, tmp_path: Path) -> None:
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/deep/file").write_text("x")
    vm.copy_in(tmp_path / "in", "/tmp/copied")
    (tmp_path / "back").mkdir()
    vm.copy_out("/tmp/copied/in", tmp_path / "back")
    assert "x" == (tmp_path / "back/in/deep/file").read_text()


def test_output_streams(vm: Guest) -> None:
    talker = vm.start("sh", "-c", "echo first; read line; echo got $line; sleep 60", given=None)
    talker.wait_for("^first$")
    talker.give(b"hello\n")
    assert "got hello" == talker.wait_for("^got .*$")[0]
    talker.kill(signal.SIGINT)
    assert -signal.SIGINT == talker.wait().code
    with pytest.raises(GuestError, match="not seen before its end"):
        talker.wait_for("never")


def test_commands_run_beside_one_another(vm: Guest) -> None:
    began = time.monotonic()
    many = [vm.start("sh", "-c", f"sleep 2; echo {number}; exit {number}") for number in range(40)]
    found = [command.wait() for command in many]
    assert [(n, f"{n}\n") for n in range(40)] == [(ran.code, ran.out) for ran in found]
    assert time.monotonic() - began < 40


def test_a_command_that_nobody_reads_input_of_blocks_no_other(vm: Guest) -> None:
    deaf = vm.start("sleep", "60", given=b"x" * (1 << 20))
    assert "heard\n" == vm.ok("echo", "heard")
    deaf.kill()
    assert -signal.SIGKILL == deaf.wait().code


def test_what_a_command_leaves_behind_does_not_keep_it(vm: Guest) -> None:
    began = time.monotonic()
    assert "done\n" == vm.ok("sh", "-c", "sleep 100 & echo done")
    assert time.monotonic() - began < 20
    assert "0\n" == vm.run("sh", "-c", "cat /proc/[0-9]*/stat | grep -c ') Z '").out


def test_a_time_out_says_what_the_guest_was_doing(vm: Guest) -> None:
    with pytest.raises(GuestError) as told:
        vm.run("sh", "-c", "echo before; exec sleep 1234", timeout=1)
    text = str(told.value)
    assert "not done in 1 s; it said:\nbefore" in text
    for expected in ("the emulator: running", "RIP=", "Show backtrace of all", "task:sleep"):
        assert expected in text
    gone = "ps | grep -q '[s]leep 1234' || exit 0"
    vm.sh(f"for try in 1 2 3 4 5 6 7 8 9 10; do {gone}; sleep 0.5; done; exit 1")


def test_tiers(vm: Guest) -> None:
    base = "/sys/devices/system/node"
    assert ("0-1", "0") == (vm.read(f"{base}/online"), vm.read(f"{base}/has_cpu"))
    initiators = f"{base}/node%d/access0/initiators/read_%s"
    assert ["80", "102400", "240", "25600"] == [
        vm.read(initiators % (node, what)) for node in (0, 1) for what in ("latency", "bandwidth")
    ]
    tiers = "/sys/devices/virtual/memory_tiering"
    found = vm.sh(f"for tier in {tiers}/memory_tier*; do cat $tier/nodelist; done").split()
    assert ["0", "1"] == sorted(found), "HMAT makes two tiers"


def test_the_kernel_log_is_judged(vm: Guest) -> None:
    vm.sh("echo 'WARNING: a test of the judge' >/dev/kmsg")
    with pytest.raises(Complained, match=r"a warning: .*WARNING: a test of the judge"):
        vm.check()
    vm.check()
    vm.allow("test of the judge", "it was asked for")
    vm.sh("echo 'WARNING: a test of the judge' >/dev/kmsg")
    vm.check()
    vm.sh("echo 'WARNING: a test of the judge' >/dev/kmsg")
    assert ["a warning"] == [complaint.what for complaint in vm.complaints()]


def test_the_end_of_a_guest_judges_it() -> None:
    with pytest.raises(Complained, match="a bug"), guest() as found:
        found.sh("echo 'BUG: at the end' >/dev/kmsg")


def test_a_reset_is_another_life(vm: Guest) -> None:
    lost = vm.start("sleep", "1000")
    vm.put("/tmp/gone", "x")
    vm.reset()
    with pytest.raises(GuestError, match="the guest was reset"):
        lost.wait()
    assert (2, "no\n") == (vm.lives, vm.ok("sh", "-c", "[ -e /tmp/gone ] && echo yes || echo no"))


def test_a_panic_is_told_at_once() -> None:
    with guest() as found:
        began = time.monotonic()
        with pytest.raises(GuestError, match="the guest's kernel died: Kernel panic"):
            found.run("sh", "-c", "echo c >/proc/sysrq-trigger; sleep 1000", timeout=300)
        assert time.monotonic() - began < 60
        with pytest.raises(GuestError, match="died"):
            found.ok("true")
        found.reset()
        found.allow("sysrq: Trigger a crash|panic|BUG: kernel NULL|Oops", "the test asked for it")


def test_a_pause_stops_the_guest(vm: Guest) -> None:
    before = vm.start("sh", "-c", "while :; do echo tick; sleep 0.1; done")
    before.wait_for("tick")
    with vm.paused():
        time.sleep(0.5)
        heard = len(before.out)
        time.sleep(1)
        assert heard == len(before.out)
    before.wait_for("(tick\n){" + str(heard // 5 + 3) + "}")
    before.kill()


def test_several_at_once_with_instructions_for_a_clock() -> None:
    """A guest of each kind: counted instructions, one node, three tiers."""
    machines = (
        Machine(nodes=(Node(1, 512),), icount="shift=0,sleep=off"),
        Machine(nodes=(Node(1, 512), Node(1, 256), Node(0, 256))),
    )
    with guest(machines[0]) as first, guest(machines[1]) as second:
        assert ("1\n", "2\n") == (first.ok("nproc"), second.ok("nproc"))
        assert "0-2" == second.read("/sys/devices/system/node/online")


def test_a_guest_turns_itself_off() -> None:
    """What it says on the way is judged, and where it stays on, that is told."""
    with guest() as found:
        found.power_off()
        assert "the emulator ended with 0" in found.death()
    with pytest.raises(GuestError, match="WARNING: on the way"), guest() as found:
        found.ok("rm", "/bin/poweroff")  # a link
        script = "#!/bin/sh\necho WARNING: on the way >/dev/kmsg\nbusybox poweroff -f\n"
        found.put("/bin/poweroff", script, 0o755)
        found.power_off()
    with guest() as found:
        found.ok("rm", "/bin/poweroff")
        with pytest.raises(GuestError, match="not off in 1 s"):
            found.power_off(1)


def test_an_emulator_that_cannot_start_says_why() -> None:
    with pytest.raises(GuestError, match=r"the emulator ended with 1; it said: .*nonesuch"):
        guest(Machine(extra=("-device", "nonesuch"))).__enter__()


def test_a_boot_that_hangs_is_told() -> None:
    machine = Machine(append=("rdinit=/bin/cat",))
    with pytest.raises(GuestError, match=r"has not booted in 25 s(?s:.)*Show backtrace of all"):
        guest(machine, timeout=25).__enter__()


OWNER = """
import sys, time
from vm.booting import guest
with guest() as found:
    print(found._process.pid, flush=True)
    time.sleep(1000)
"""


def test_a_guest_dies_with_its_owner() -> None:
    words = [sys.executable, "-c", OWNER]
    owner = subprocess.Popen(words, stdout=subprocess.PIPE, cwd=images.REPOSITORY, text=True)
    assert owner.stdout is not None
    with owner.stdout:
        process = int(owner.stdout.readline())
        owner.kill()
        owner.wait()
    until = time.monotonic() + 10
    while Path(f"/proc/{process}").exists():
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        assert state == "Z" or time.monotonic() < until, "the emulator outlived its owner"
        if state == "Z":
            break
        time.sleep(0.1)
