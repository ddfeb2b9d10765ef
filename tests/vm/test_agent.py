# SPDX-License-Identifier: Apache-2.0
"""dsatier's package on a Debian with systemd, whose kernel is Debian's own, with eight devices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import PROFILES, package
from vm import images
from vm.booting import guest
from vm.guest import Guest
from vm.idxd import address, configuration, load
from vm.machine import Dsa, Machine

__all__ = ["package"]
pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def debian(package: Path) -> Iterator[Guest]:
    """A host with the seed's configuration on eight devices, and dsatier."""
    devices = tuple(Dsa(node=n // 4, properties={"version": "1.0"}) for n in range(8))
    files: dict[str, Path | bytes] = {"/opt/dsatier.deb": package}
    files["/opt/dsa.yaml"] = PROFILES / "dsa.yaml"
    root = images.debian_root()
    with guest(Machine(dsa=devices), root=root, load=["idxd"], files=files, timeout=300) as vm:
        vm.ok("dpkg", "--install", "/opt/dsatier.deb", timeout=300)
        load(vm, configuration(8))
        yield vm


def test_the_whole_host_comes_up(debian: Guest) -> None:
    assert "running\n" == debian.ok("systemctl", "is-system-running", "--wait", timeout=300)
    print(f"the agent was up after {debian.booted_in:.1f} s")


def test_facts_are_what_the_kernel_shows(debian: Guest) -> None:
    facts: dict[str, Any] = json.loads(debian.ok("dsatier", "facts", "--json"))
    kernel = facts["kernel"]
    assert (debian.release, "none") == (kernel["release"], kernel["family"])
    assert [f"dsa{n}" for n in range(8)] == [device["id"] for device in facts["devices"]]
    for number, device in enumerate(facts["devices"]):
        place = f"/sys/bus/dsa/devices/dsa{number}"
        assert "enabled" == device["state"] == debian.read(f"{place}/state")
        assert number // 4 == device["numa_node"] == int(debian.read(f"{place}/numa_node"))
        assert address(debian, f"dsa{number}") == device["pci"]
        assert (256, False, 128) == tuple(
            device[key] for key in ("version", "event_log", "max_queue_entries")
        )
        assert [0, 0, 0, 0] == device["engines"]
        queue = device["queues"][0]
        found = {key: queue[key] for key in ("state", "mode", "type", "size", "group", "name")}
        assert {
            "state": "enabled",
            "mode": "dedicated",
            "type": "kernel",
            "size": 128,
            "group": 0,
            "name": "dmaengine",
        } == found
    assert [[0, 1], []] == [node["cpus"] for node in facts["nodes"]]


def watched(vm: Guest) -> list[str]:
    """Return all that a profile would change there, and what dsatier keeps of a change."""
    paths = ["/proc/sys/kernel/numa_balancing", "/sys/kernel/mm/numa/demotion_enabled"]
    paths += [f"/sys/bus/dsa/devices/wq{number}.0/state" for number in range(8)]
    paths += ["/sys/devices/system/cpu/online", "/proc/swaps"]
    return [*map(vm.read, paths), vm.sh("ls /var/lib/dsatier/originals.json 2>/dev/null || true")]


def test_a_reload_on_a_kernel_without_the_knobs_is_refused(debian: Guest) -> None:
    """The daemon says why, keeps running, and has written nothing."""
    before = watched(debian)
    debian.ok("cp", "/opt/dsa.yaml", "/etc/dsatier.d/50-dsa.yaml")
    assert debian.run("systemctl", "reload", "dsatier", timeout=300).code
    found = json.loads(debian.ok("cat", "/run/dsatier/status.json"))
    assert ("unmanaged", "Refused") == (found["state"], found["profile"]["status"])
    assert "found a kernel without them" in found["profile"]["message"]
    shown = debian.run("dsatier", "status")
    print(shown.out)
    assert "found a kernel without them" in shown.out
    assert "active\n" == debian.ok("systemctl", "is-active", "dsatier")
    assert before == watched(debian)
    debian.ok("rm", "/etc/dsatier.d/50-dsa.yaml")


def test_a_kernel_without_the_knobs_is_refused_and_untouched(debian: Guest) -> None:
    before = watched(debian)
    debian.ok("systemctl", "stop", "dsatier")  # there is one writer, and that is the daemon
    for verb in ("doctor", "apply"):
        ran = debian.run("dsatier", verb, "-p", "/opt/dsa.yaml")
        told = ran.out + ran.err
        assert ran.code
        assert "found a kernel without them" in told
        assert "dsatier's kernel package" in told
    assert before == watched(debian)
