# SPDX-License-Identifier: Apache-2.0
"""The agent's way to untranslated addresses, and what it rests on: a kernel's rules for groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsatier.plan.requirements_dsa import DROP_IN
from lab.host import PATIENCE, host, installed, status, two_tiers, until
from tests.kernel.engine import error
from tests.kernel.groups import file, kind, retype
from tests.kernel.ours import program
from vm.booting import ACCEL_CONFIG, guest
from vm.guest import Guest
from vm.idxd import (
    channels,
    configuration,
    dmatest,
    in_use,
    load,
    moved,
    moved_since,
    names,
    state,
)
from vm.machine import Dsa, Machine
from vm.ours import kernel, knob

pytestmark = pytest.mark.system

BOTH = ("dsa0", "dsa1")


def types(vm: Guest) -> set[str]:
    """Return the types that the groups of both devices have."""
    return {kind(vm, device) for device in BOTH}


def copies(vm: Guest) -> None:
    """Both devices copy, and every byte is right."""
    load(vm, configuration(2))
    found = dmatest(vm, channels(vm), iterations=20)
    assert {(20, 0)} == {(each.tests, each.failures) for each in found}
    for device in BOTH:
        vm.ok("accel-config", "disable-device", device)


def test_a_group_is_identity_while_no_driver_has_its_device_and_goes_back() -> None:
    wanted = Machine(dsa=(Dsa(), Dsa()), iommu="translated")
    programs = [ACCEL_CONFIG]
    with guest(wanted, kernel=kernel(), load=["idxd", "dmatest"], programs=programs) as vm:
        before = names(vm)
        found = {device: kind(vm, device) for device in BOTH}
        assert set(found.values()) <= {"DMA", "DMA-FQ"}
        for device in BOTH:
            assert "Operation not permitted" in error(vm, file(vm, device), "identity")
            assert "Invalid argument" in error(vm, file(vm, device), "none")
        copies(vm)
        for device in BOTH:
            retype(vm, device, "identity")
            assert "disabled" == state(vm, device)
        assert (before, {"identity"}) == (names(vm), types(vm))
        copies(vm)
        for device in BOTH:
            retype(vm, device, found[device])
        assert (before, set(found.values())) == (names(vm), types(vm))
        copies(vm)


PROFILE = """\
version: 1
engine: {kind: dsa, limit_chans: 2, work_queues: {devices: 2, iommu: identity}}
"""


def test_the_daemon_does_it_when_its_unit_may(package: Path) -> None:
    """It refuses as shipped and says what to do; that done, devices copy past the IOMMU."""
    with installed(
        host(
            package,
            two_tiers((Dsa(), Dsa()), ("watchdog_thresh=60",), iommu="translated"),
            load=["idxd"],
            carry=["idxd_migrate"],
            files={"/usr/local/bin/moves": program("moves")},
        )
    ) as vm:
        before = types(vm)
        assert before <= {"DMA", "DMA-FQ"}
        vm.put("/etc/dsatier.d/50-mine.yaml", PROFILE)
        ran = vm.run("dsatier", "reload", timeout=PATIENCE)
        print(ran.out, ran.err)
        assert (1, before) == (ran.code, types(vm))
        told = vm.run("dsatier", "doctor", timeout=PATIENCE)
        print(told.out, told.err)
        assert "CAP_SYS_RAWIO and write access to /sys/kernel/iommu_groups" in told.out
        vm.ok("install", "-D", "-t", "/etc/systemd/system/dsatier.service.d", DROP_IN)
        vm.ok("systemctl", "daemon-reload")
        vm.ok("systemctl", "restart", "dsatier", timeout=PATIENCE)
        until(vm, "past the IOMMU", lambda found: found["state"] == "converged")
        assert ({"identity"}, 2) == (types(vm), in_use(vm))
        knob(vm, "migrate_batch_reasons", 8)  # what move_pages asks for, in a list of any length
        knob(vm, "migrate_batch_usecs", 0)
        at = moved(vm)
        vm.ok("moves", "4096", "512", "16", "0", timeout=PATIENCE)
        assert 0 < min(moved_since(vm, at))
        print(vm.ok("dsatier", "rollback", timeout=PATIENCE))
        assert (before, 0, "unmanaged") == (types(vm), in_use(vm), status(vm)["state"])
