# SPDX-License-Identifier: Apache-2.0
"""The whole system: dsatier's package on dsatier's kernel, with two tiers and eight DSA devices.

The tests are one story, in this order. Devices are asked what they copied, and memory is read back.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.hosted import (
    PATIENCE,
    VM,
    in_order,
    installed,
    reload,
    shown,
    squeeze,
    status,
    steps,
    until,
)
from tests.system.conftest import PROFILES
from tests.vm import idxd
from tests.vm.guest import Guest
from tests.vm.idxd import in_use, moved, moved_since
from tests.vm.machine import Dsa

pytestmark = pytest.mark.system

MINE, MORE = "/etc/dsatier.d/50-dsa.yaml", "/etc/dsatier.d/60-more.yaml"
TIERING = "tiering: {demotion_enabled: true, numa_balancing: 2, demote_scale_factor: 1000}\n"
DEVICES = tuple(Dsa(node=n // 4) for n in range(8))


@pytest.fixture(scope="module")
def vm(package: Path) -> Iterator[Guest]:
    """A host whose devices nobody has configured, and dsatier without a profile."""
    with installed(
        package,
        dsa=DEVICES,
        append=("watchdog_thresh=60",),
        load=["idxd"],
        carry=["idxd_migrate"],
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
    """The CPU copies what a device did not, the engine stays off until somebody has looked."""
    vm.allow("copying by CPU", "a descriptor was made to fail")
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


def test_a_device_that_halts(vm: Guest) -> None:
    """The kernel takes the engine out of use, dsatier latches, and CPUs go on copying."""
    vm.allow("idxd halted|Device is HALTED|copying by CPU|HALT", "a device was made to halt")
    name = idxd.names(vm)["dsa5"]
    vm.set_device(name, "halt", "flr")
    squeeze(vm)
    assert engine_faulted(vm)
    shown(vm, "a device halted")
    at = moved(vm)
    found, _ = squeeze(vm)
    assert 0 == found["dsa"] == sum(moved_since(vm, at))
    assert found["pgdemote_kswapd"] > 0


def test_down(vm: Guest) -> None:
    """Also with a device that has halted: its channel is given back like the others."""
    vm.ok("rm", MINE, MORE)
    reload(vm)
    vm.ok("dsatier", "rollback", timeout=PATIENCE)
    shown(vm, "after rollback")
    assert "unmanaged" == status(vm)["state"]
    assert {0} == {in_use(vm), knobs(vm)["dsa_state"], knobs(vm)["use_dsa_copy_pages"]}
