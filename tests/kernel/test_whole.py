# SPDX-License-Identifier: Apache-2.0
"""The whole system: dsatier's package on dsatier's kernel, with two tiers and eight DSA devices.

The tests are one story, in this order. Devices are asked what they copied, and memory is read back.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import __main__ as lab
from lab.host import (
    DEVICES,
    PATIENCE,
    VM,
    host,
    in_order,
    installed,
    journalled,
    reload,
    said,
    shown,
    squeeze,
    status,
    steps,
    struck,
    two_tiers,
    until,
)
from tests.kernel.engine import busy
from tests.kernel.ours import program
from tests.support.long import LONG
from tests.system.conftest import PROFILES
from vm import idxd
from vm.guest import Guest
from vm.idxd import in_use, moved, moved_since

pytestmark = pytest.mark.system

MINE, MORE = "/etc/dsatier.d/50-dsa.yaml", "/etc/dsatier.d/60-more.yaml"
TIERING = "tiering: {demotion_enabled: true, numa_balancing: 2, demote_scale_factor: 1000}\n"


@pytest.fixture(scope="module")
def vm(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A host whose devices nobody has configured, and dsatier without a profile."""
    with installed(
        host(
            package,
            two_tiers(DEVICES, ("watchdog_thresh=60",)),
            load=["idxd"],
            carry=["idxd_migrate"],
            files={"/usr/local/bin/pages": program("pages")},
            root=journalled(tmp_path_factory.mktemp("root")),
        )
    ) as found:
        yield found


def knobs(vm: Guest) -> dict[str, int]:
    """Return the knobs of the DSA."""
    names = ("dsa_state", "use_dsa_copy_pages", "limit_chans", "dsa_copy_threshold")
    return {name: int(vm.read(f"{VM}{name}")) for name in names}


def test_up(vm: Guest) -> None:
    """A reload configures eight devices, starts the engine, and comes back when it is proven."""
    assert {0} == {in_use(vm), knobs(vm)["dsa_state"]}
    vm.ok("rmmod", "idxd_migrate")  # udev may have loaded it, by its device
    assert "idxd_migrate" not in vm.read("/proc/modules")
    vm.put(MINE, (PROFILES / "dsa.yaml").read_bytes())
    vm.put(MORE, f"version: 1\n{TIERING}")
    reload(vm)
    shown(vm, "after systemctl reload")
    found = status(vm)
    assert ("converged", "Accepted") == (found["state"], found["profile"]["status"])
    wanted = {"dsa_state": 1, "use_dsa_copy_pages": 1, "limit_chans": 8, "dsa_copy_threshold": 12}
    assert wanted == knobs(vm)
    assert "idxd_migrate" in vm.read("/proc/modules")
    assert 8 == in_use(vm)
    assert {"enabled"} == {idxd.state(vm, f"wq{n}.0") for n in range(8)}
    order = steps(vm)
    print("\n".join(order))
    in_order(
        order,
        "dsa_copy_threshold = 12",
        "dsa0 configured and enabled",
        "dsa_state = 1",
        "the DSA is really initialised",
        "use_dsa_copy_pages = 1",
        "numa_balancing = 2",
        "demotion_enabled = 1",
    )
    assert 0 == vm.run("dsatier", "verify").code


def test_a_script_in_the_lab(vm: Guest, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """``make lab`` hands on what a script prints, and how it ends."""
    assert 3 == lab.played(vm, "dsatier status | grep -c Proven; echo bad >&2; exit 3")
    assert re.fullmatch(rb"[1-9]\nbad\n", capfdbinary.readouterr().out)


def test_memory_that_grows_short_is_demoted_by_devices(vm: Guest) -> None:
    vm.write(f"{VM}migrate_batch_usecs", "0")  # an emulated CPU is slow: a bound cuts lists short
    at = moved(vm)
    found, timer = squeeze(vm)
    shares = moved_since(vm, at)
    print(shares)
    demoted, copied = found["pgdemote_kswapd"], found["dsa"]
    assert demoted > 4096
    assert copied > demoted // 2
    assert 0 == found["fault"] == found["failed"] == timer["dsa_copy_fail"]
    assert copied << 12 == sum(shares)
    assert all(shares)
    assert timer["dsa_bpage_cnt"] >= copied
    assert ("converged", 0) == (status(vm)["state"], status(vm)["faults"])


def test_another_number_of_channels(vm: Guest) -> None:
    """The host comes down as far as the number is read, and climbs again; then back."""
    for channels in (3, 8):
        vm.put(MORE, f"version: 1\n{TIERING}engine: {{kind: dsa, limit_chans: {channels}}}\n")
        reload(vm)
        assert (channels, channels) == (knobs(vm)["limit_chans"], in_use(vm))
        assert 1 == knobs(vm)["use_dsa_copy_pages"]
    print("\n".join(steps(vm)))


def engine_faulted(vm: Guest) -> str:
    """Wait until dsatier has fallen back to CPU copies, and return why."""
    found = until(vm, "on CPU copies", lambda s: s["state"] == "degraded")
    told = next(c for c in found["conditions"] if c["type"] == "EngineFaulted")
    assert ("True", 0) == (told["status"], knobs(vm)["use_dsa_copy_pages"])
    return str(found["message"])


def test_a_copy_that_fails(vm: Guest) -> None:
    """The CPU copies what a device did not, and the kernel's engine would go on.

    dsatier takes a copy that failed for a fault all the same, until somebody has looked.
    """
    device = idxd.names(vm)["dsa2"]
    vm.set_device(device, "faults", "error:in=batch:nth=40")
    found, _ = squeeze(vm)
    vm.set_device(device, "faults", "")
    assert found["dsa"] > 0
    assert found["fault"] > 0
    assert found["failed"] > 0  # left to the move, which copies by CPU
    why = engine_faulted(vm)
    shown(vm, "a copy failed")
    assert "wq2.0" in why
    vm.ok("dsatier", "clear", timeout=PATIENCE)
    until(vm, "up again", lambda s: s["state"] == "converged")
    assert (1, 8) == (knobs(vm)["use_dsa_copy_pages"], in_use(vm))


def test_a_copy_that_does_not_end(vm: Guest) -> None:
    """Its channel is out of use, and dsatier has CPUs copy until somebody has looked."""
    vm.allow("out of use", "a descriptor was made to hang")
    device = idxd.names(vm)["dsa2"]
    vm.set_device(device, "faults", "never:nth=3")
    squeeze(vm)
    vm.set_device(device, "faults", "")
    why = engine_faulted(vm)
    shown(vm, "a copy did not end")
    assert "wq2.0" in why
    vm.ok("dsatier", "clear", timeout=PATIENCE)
    until(vm, "up again", lambda s: s["state"] == "converged")
    assert (1, 8) == (knobs(vm)["use_dsa_copy_pages"], in_use(vm))


# -- what somebody does to an engine that copies, under load -------------------------


def up_again(vm: Guest) -> None:
    """Acknowledge a fault, and wait until devices copy."""
    vm.ok("dsatier", "clear", timeout=PATIENCE)
    until(vm, "up again", lambda s: s["state"] == "converged")
    assert (1, 1, 8) == (*(knobs(vm)[n] for n in ("dsa_state", "use_dsa_copy_pages")), in_use(vm))


BY_HAND = {
    "a queue is unbound": ("echo wq3.0 >/sys/bus/dsa/devices/wq3.0/driver/unbind", "wq3.0"),
    "a device is unbound from its driver": (
        "cd /sys/bus/pci/drivers/idxd; place=$(readlink -f /sys/bus/dsa/devices/dsa5/..); "
        'echo "${place##*/}" >unbind; sleep 1; echo "${place##*/}" >bind',
        "wq5.0",
    ),
    "the engine is turned off": (f"echo 0 >{VM}use_dsa_copy_pages", "somebody"),
}
"""What is done, and a word of the reason that is told."""


@pytest.mark.parametrize("what", BY_HAND)
def test_by_hand(vm: Guest, what: str) -> None:
    """dsatier falls back to CPU copies and latches, no byte is lost, and it climbs when told to."""
    vm.allow("Clients has claim", "the driver says so of a queue that is unbound")
    script, word = BY_HAND[what]
    run = busy(vm, 4, PATIENCE)
    vm.sh(script, timeout=PATIENCE)
    why = engine_faulted(vm)
    shown(vm, what)
    assert word in why
    ran = run.wait(PATIENCE)
    assert 0 == ran.code, ran.out + ran.err
    up_again(vm)


def test_a_queue_that_the_kernel_uses_cannot_be_disabled_by_accel_config(vm: Guest) -> None:
    before = status(vm)["faults"]
    run = busy(vm, 2, PATIENCE)
    assert "wq has clients" in vm.run("accel-config", "disable-wq", "dsa0/wq0.0").err
    assert 0 == run.wait(PATIENCE).code
    assert ("converged", before) == (status(vm)["state"], status(vm)["faults"])


STEPS = (
    "dsa_copy_threshold = 12",
    "use_concur_to_demote = 1",
    "dsa0 configured",
    "dsa7 configured",
    "dsa_state = 1",
    "really initialised",
    "use_dsa_copy_pages = 1",
    "numa_balancing = 2",
    "demote_scale_factor",
    "demotion_enabled = 1",
)
"""Steps on the way up, from the first."""


@pytest.mark.parametrize("step", STEPS if LONG else ["use_dsa_copy_pages = 1"])
def test_killed_on_the_way_up(vm: Guest, step: str) -> None:
    """systemd starts it again, it comes up on CPU copies, and climbs when somebody has looked."""
    vm.ok("dsatier", "rollback", timeout=PATIENCE)
    # it starts what dies again and again five times in ten minutes, and this is the next of ten
    vm.ok("systemctl", "reset-failed", "dsatier")
    assert {0} == {in_use(vm), knobs(vm)["dsa_state"]}
    run = busy(vm, 4, PATIENCE)
    striker = struck(vm, step)
    vm.start("systemctl", "reload", "dsatier")
    print(said(striker))
    found = until(vm, "in quarantine", lambda s: s["state"] == "quarantined")
    shown(vm, f"killed at {step}")
    assert ("UncleanEnd", 0) == (found["reason"], knobs(vm)["use_dsa_copy_pages"])
    assert step.split(maxsplit=1)[0] in found["message"]
    ran = run.wait(PATIENCE)
    assert 0 == ran.code, ran.out + ran.err
    up_again(vm)


def test_a_device_that_halts(vm: Guest) -> None:
    """The kernel takes the engine out of use, dsatier latches, and CPUs go on copying."""
    vm.allow("idxd halted|Device is HALTED|out of use|HALT", "a device was made to halt")
    name = idxd.names(vm)["dsa5"]
    vm.set_device(name, "halt", "flr")
    squeeze(vm)
    assert engine_faulted(vm)
    shown(vm, "a device halted")
    at = moved(vm)
    found, _ = squeeze(vm)
    assert 0 == found["dsa"] == sum(moved_since(vm, at))
    assert found["pgdemote_kswapd"] > 0


def test_a_halted_device_that_is_reset_serves_again(vm: Guest) -> None:
    """What an operator does for one: let go of it, reset it, give it back, acknowledge."""
    vm.allow("idxd halted|Device is HALTED|HALT|Clients has claim", "the device is halted")
    idxd.reset(vm, idxd.address(vm, "dsa5"), PATIENCE)
    up_again(vm)
    device = idxd.names(vm)["dsa5"]
    at = moved(vm)[device]
    squeeze(vm)
    assert moved(vm)[device] > at


def test_the_machine_is_reset_on_the_way_up(vm: Guest) -> None:
    """The next boot finds what was under way, stays on CPU copies, and says so."""
    vm.ok("dsatier", "rollback", timeout=PATIENCE)
    vm.put(MINE, (PROFILES / "dsa.yaml").read_bytes())
    vm.put(MORE, f"version: 1\n{TIERING}")
    vm.ok("sync", timeout=PATIENCE)
    # it stands still in the middle of the step, so that the reset does not come too late
    striker = struck(vm, "dsa_state = 1", signal.SIGSTOP)
    vm.start("systemctl", "reload", "dsatier")
    print(said(striker))
    vm.reset(PATIENCE)
    found = until(vm, "in quarantine", lambda s: s["state"] == "quarantined")
    shown(vm, "reset")
    assert "UncleanEnd" == found["reason"]
    assert "dsa_state = 1" in found["message"]
    assert {0} == {in_use(vm), knobs(vm)["dsa_state"], knobs(vm)["use_dsa_copy_pages"]}
    up_again(vm)


def test_a_device_that_vanishes(vm: Guest) -> None:
    """It is gone from the bus without a word: its registers read ones, and nothing comes back."""
    vm.write("/sys/module/idxd_migrate/parameters/timeout_ms", "1000")
    vm.allow("idxd halted|Device is HALTED", "all ones is what a halt looks like, too")
    name, place = idxd.names(vm)["dsa2"], idxd.address(vm, "dsa2")
    run = busy(vm, 4, PATIENCE)
    vm.set_device(name, "removed", True)
    assert re.search(f"wq2\\.0|{place}", why := engine_faulted(vm)), why
    shown(vm, "a device vanished")
    ran = run.wait(PATIENCE)
    assert 0 == ran.code, ran.out + ran.err
    found, _ = squeeze(vm)
    assert 0 == found["dsa"] < found["pgdemote_kswapd"]


def test_down(vm: Guest) -> None:
    """Also with a device that is gone, once it is taken off the bus with a word.

    What its registers read is no proof that it writes no more, so its channel stays taken before.
    """
    vm.sh(f"echo 1 >/sys/bus/pci/devices/{idxd.address(vm, 'dsa2')}/remove", timeout=PATIENCE)
    vm.ok("rm", MINE, MORE)
    reload(vm)
    vm.ok("dsatier", "rollback", timeout=PATIENCE)
    shown(vm, "after rollback")
    assert "unmanaged" == status(vm)["state"]
    assert {0} == {in_use(vm), knobs(vm)["dsa_state"], knobs(vm)["use_dsa_copy_pages"]}
