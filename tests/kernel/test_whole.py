# SPDX-License-Identifier: Apache-2.0
"""The whole system: dsatier's package on dsatier's kernel, with two tiers and eight DSA devices.

The tests are one story, in this order. Devices are asked what they copied, and memory is read back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kernel.ours import counters, kernel, program, since
from tests.kernel.test_agent import PATIENCE, SQUEEZE, VM, reload, shown, status, steps, until
from tests.system.conftest import PROFILES, package
from tests.vm import idxd, images
from tests.vm.booting import guest
from tests.vm.guest import Guest
from tests.vm.machine import Dsa, Machine, Node

__all__ = ["package"]
pytestmark = pytest.mark.system

MINE, MORE = "/etc/dsatier.d/50-dsa.yaml", "/etc/dsatier.d/60-more.yaml"
TIERING = "tiering: {demotion_enabled: true, numa_balancing: 2, demote_scale_factor: 1000}\n"
MACHINE = Machine(
    nodes=(Node(cpus=3, memory=1536), Node(cpus=1, memory=1024)),
    dsa=tuple(Dsa(node=n // 4) for n in range(8)),
    append=("maxcpus=3", "watchdog_thresh=60"),
    extra=("-machine", "max-ram-below-4g=1G"),
)
"""As of tests.kernel.test_agent, and eight devices."""


@pytest.fixture(scope="module")
def vm(package: Path) -> Iterator[Guest]:
    """A host whose devices nobody has configured, and dsatier without a profile."""
    files = {"/opt/dsatier.deb": package, "/usr/local/bin/hold": program("hold")}
    root = images.debian_root()
    with guest(
        MACHINE,
        kernel=kernel(),
        root=root,
        load=["idxd"],
        carry=["idxd_migrate"],
        files=files,
        timeout=600,
    ) as found:
        found.ok("depmod")  # as the kernel's package does
        found.ok("dpkg", "--install", "/opt/dsatier.deb", timeout=PATIENCE)
        yield found


def knobs(vm: Guest) -> dict[str, int]:
    """Return the knobs of the DSA."""
    names = ("dsa_state", "use_dsa_copy_pages", "limit_chans", "dsa_copy_threshold")
    return {name: int(vm.read(f"{VM}{name}")) for name in names}


def held(vm: Guest) -> int:
    """Return how many DMA channels somebody has."""
    return vm.sh("cat /sys/class/dma/*/in_use 2>/dev/null || :").split().count("1")


def moved(vm: Guest) -> dict[str, int]:
    """Return the bytes that each device has moved so far, by the driver's name of it."""
    return {
        name: idxd.counters(vm, device)["device"]["bytes-written"]
        for name, device in idxd.names(vm).items()
    }


@dataclass(frozen=True, slots=True)
class Squeezed:
    """What came of memory that grew short."""

    kernel: dict[str, int]
    """How far the kernel's counters came."""
    devices: dict[str, int]
    """Bytes that each device moved."""
    timer: dict[str, int]
    """What ``dsatier measure`` read from /proc/timer."""


def squeeze(vm: Guest) -> Squeezed:
    """Have memory grow short, and every byte read back."""
    before, at = counters(vm), moved(vm)
    hold = vm.start("dsatier", "measure", "--json", "--", "sh", "-c", SQUEEZE, given=None)
    hold.give(b"".join(b"more 16\n" for _ in range(40)) + b"check\n")
    hold.end_input()
    ran = hold.wait(PATIENCE)
    assert 0 == ran.code, ran.out + ran.err
    assert re.search(r"^\d+ right$", ran.err, re.MULTILINE), ran.err
    after = moved(vm)
    devices = {name: after[name] - at[name] for name in at}
    found = Squeezed(since(vm, before), devices, json.loads(ran.out)["timer"])
    print(found)
    return found


def test_up(vm: Guest) -> None:
    """A reload configures eight devices, starts the engine, and comes back when it is proven."""
    assert {0} == {held(vm), knobs(vm)["dsa_state"]}
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
    assert 8 == held(vm)
    assert {"enabled"} == {idxd.state(vm, f"wq{n}.0") for n in range(8)}
    order = steps(vm)
    print("\n".join(order))
    place = [
        next(n for n, step in enumerate(order) if word in step)
        for word in (
            "dsa_copy_threshold = 12",
            "dsa0 configured and enabled",
            "dsa_state = 1",
            "the DSA is really initialised",
            "use_dsa_copy_pages = 1",
            "numa_balancing = 2",
            "demotion_enabled = 1",
        )
    ]
    assert sorted(place) == place
    assert 0 == vm.run("dsatier", "verify").code


def test_memory_that_grows_short_is_demoted_by_devices(vm: Guest) -> None:
    vm.write(f"{VM}migrate_batch_usecs", "0")  # an emulated CPU is slow: a bound cuts lists short
    found = squeeze(vm)
    demoted, copied = found.kernel["pgdemote_kswapd"], found.kernel["dsa"]
    assert demoted > 4096
    assert copied > demoted // 2
    assert 0 == found.kernel["fault"] == found.kernel["failed"] == found.timer["dsa_copy_fail"]
    assert copied << 12 == sum(found.devices.values())
    assert all(found.devices.values())
    assert found.timer["dsa_bpage_cnt"] >= copied
    assert ("converged", 0) == (status(vm)["state"], status(vm)["faults"])


def test_another_number_of_channels(vm: Guest) -> None:
    """The host comes down as far as the number is read, and climbs again; then back."""
    for channels in (3, 8):
        vm.put(MORE, f"version: 1\n{TIERING}engine: {{kind: dsa, limit_chans: {channels}}}\n")
        reload(vm)
        assert (channels, channels) == (knobs(vm)["limit_chans"], held(vm))
        assert 1 == knobs(vm)["use_dsa_copy_pages"]
    print("\n".join(steps(vm)))


def engine_faulted(vm: Guest) -> str:
    """Wait until dsatier has fallen back to CPU copies, and return why."""
    found = until(vm, "on CPU copies", lambda s: s["state"] == "degraded")
    told = next(c for c in found["conditions"] if c["type"] == "EngineFaulted")
    assert ("True", 0) == (told["status"], knobs(vm)["use_dsa_copy_pages"])
    return str(found["message"])


def test_a_copy_that_fails(vm: Guest) -> None:
    """The CPU copies what a device did not, the engine stays off until somebody has looked."""
    vm.allow("copying by CPU", "a descriptor was made to fail")
    device = idxd.names(vm)["dsa2"]
    vm.set_device(device, "faults", "error:in=batch:nth=40")
    found = squeeze(vm)
    vm.set_device(device, "faults", "")
    assert found.kernel["dsa"] > 0
    assert found.kernel["fault"] > 0
    assert found.kernel["failed"] > 0  # left to the move, which copies by CPU
    why = engine_faulted(vm)
    shown(vm, "a copy failed")
    assert "wq2.0" in why
    vm.ok("dsatier", "clear", timeout=PATIENCE)
    until(vm, "up again", lambda s: s["state"] == "converged")
    assert (1, 8) == (knobs(vm)["use_dsa_copy_pages"], held(vm))


def test_a_device_that_halts(vm: Guest) -> None:
    """The kernel takes the engine out of use, dsatier latches, and CPUs go on copying."""
    vm.allow("idxd halted|Device is HALTED|copying by CPU|HALT", "a device was made to halt")
    name = idxd.names(vm)["dsa5"]
    vm.set_device(name, "halt", "flr")
    squeeze(vm)
    assert engine_faulted(vm)
    shown(vm, "a device halted")
    found = squeeze(vm)
    assert 0 == found.kernel["dsa"] == sum(found.devices.values())
    assert found.kernel["pgdemote_kswapd"] > 0


def test_down(vm: Guest) -> None:
    """Also with a device that has halted: its channel is given back like the others."""
    vm.ok("rm", MINE, MORE)
    reload(vm)
    vm.ok("dsatier", "rollback", timeout=PATIENCE)
    shown(vm, "after rollback")
    assert "unmanaged" == status(vm)["state"]
    assert {0} == {held(vm), knobs(vm)["dsa_state"], knobs(vm)["use_dsa_copy_pages"]}
