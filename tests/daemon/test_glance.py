# SPDX-License-Identifier: Apache-2.0
"""A glance says whether a look is worth while."""

from __future__ import annotations

import pytest

from dsatier.daemon.poll import Glance
from dsatier.facts.observe.observer import observe
from dsatier.host.port import HostDown
from dsatier.sim.faults import Halt, LateDevice, LostLog
from dsatier.sim.host import SimHost

COMPACT = "/proc/sys/vm/use_concur_to_compact"


class Counted(SimHost):
    """A host that counts what is read."""

    def __init__(self, host: SimHost) -> None:
        super().__init__(host.kernel)
        self.reads = 0

    def read(self, path: str) -> str:
        self.reads += 1
        return super().read(path)


def seen(name: str = "swap-on") -> tuple[SimHost, Glance]:
    """Return a host, and a glance that remembers it."""
    host = SimHost.host_for(name)
    glance = Glance(host)
    glance.remember(observe(host))
    return host, glance


@pytest.mark.parametrize("name", ["dsa8", "dsa8-seed", "no-dsa", "single-node", "stock-debian"])
def test_nothing_changes_by_itself(name: str) -> None:
    host, glance = seen(name)
    assert None is glance.changed()
    host.advance(100.0)
    assert None is glance.changed()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (COMPACT, "1\n"),
        ("/proc/sys/kernel/numa_balancing", "0\n"),
        ("/sys/kernel/mm/numa/demotion_enabled", "1\n"),
        ("/proc/sys/vm/limit_chans", "4\n"),
    ],
)
def test_a_knob_that_somebody_wrote(path: str, text: str) -> None:
    host, glance = seen()
    host.poke(path, text)
    assert [path, path] == [glance.changed(), glance.changed()]
    glance.remember(observe(host))
    assert None is glance.changed()


def test_a_cpu_that_went() -> None:
    host, glance = seen()
    host.poke("/sys/devices/system/cpu/cpu23/online", "0\n")
    assert "/sys/devices/system/cpu/online" == glance.changed()
    host.poke("/sys/devices/system/cpu/cpu23/online", "1\n")
    assert None is glance.changed()  # what is as it was is nobody's business


def test_swap_that_went() -> None:
    host, glance = seen()
    host.run(("swapoff", "/swapfile"), 60.0)
    assert "/proc/swaps" == glance.changed()


def test_a_device_that_goes() -> None:
    host, glance = seen()
    host.inject(LateDevice("late-device", "dsa3", 3600.0))
    assert "/sys/bus/dsa/devices/dsa3/state" == glance.changed()


def test_a_device_that_halts() -> None:
    host, glance = seen()
    host.inject(Halt("halt", "dsa3"))
    host.advance(0.001)
    told = glance.changed()
    assert (True, True) == (told is not None, "halted" in (told or ""))


def test_a_complaint_of_the_kernel_is_told_once() -> None:
    host, glance = seen()
    host.kernel.log("usb 1-1: new high-speed device")
    assert None is glance.changed()
    complaint = "BUG: kernel NULL pointer dereference, address: 0000000000000010"
    host.kernel.log(complaint)
    assert complaint == glance.changed()
    assert None is glance.changed()


def test_a_log_that_lost_its_lines() -> None:
    host, glance = seen()
    host.inject(LostLog("lost-log"))
    host.advance(0.001)
    assert None is glance.changed()


def test_it_costs_less_than_a_look() -> None:
    host = Counted(SimHost.host_for("dsa8"))
    glance = Glance(host)
    glance.remember(facts := observe(host))
    host.reads = 0
    glance.changed()
    few = host.reads
    assert len(facts.knobs) + len(facts.devices) + 3 == few
    host.reads = 0
    observe(host)
    assert few * 5 < host.reads


def test_a_host_that_is_down() -> None:
    host, glance = seen("dsa8-seed")
    with pytest.raises(HostDown):
        host.poke("/proc/sys/vm/use_dsa_copy_pages", "1\n")
    with pytest.raises(HostDown):
        glance.changed()
