# SPDX-License-Identifier: Apache-2.0
"""CPU hotplug: /sys/devices/system/cpu/cpuN/online."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from dsatier.sim import memory
from dsatier.sim.faults import StuckCpu
from dsatier.sim.parse import Refused, kstrtobool

if TYPE_CHECKING:
    from dsatier.sim.kernel import Kernel


def show(cpu: int, k: Kernel) -> str:
    """Return whether a CPU is online."""
    return "0\n" if cpu in k.state.offline else "1\n"


def store(cpu: int, k: Kernel, text: str) -> None:
    """Bring a CPU online or take it offline. Raises Refused."""
    if kstrtobool(text):
        k.state.offline -= {cpu}
        memory.set_targets(k)
        return
    if cpu in k.state.offline:
        return
    _stuck(k, cpu)
    k.state.offline |= {cpu}
    memory.set_targets(k, leaving=cpu)
    k.log(f"smpboot: CPU {cpu} is now offline")


def _stuck(k: Kernel, cpu: int) -> None:
    faults = list(k.state.faults)
    refusal = ""
    for i, armed in enumerate(faults):
        fault = armed.fault
        if not isinstance(fault, StuckCpu):
            continue
        tries = armed.uses + (fault.cpu is None or fault.cpu == cpu)
        faults[i] = armed._replace(uses=tries)
        hit = fault.cpu == cpu or (fault.nth is not None and tries == fault.nth)
        if fault.nth is not None and tries == fault.nth:
            # from now on it is this CPU that does not go
            pinned = StuckCpu("stuck-cpu", cpu=cpu, errno=fault.errno, times=fault.times)
            faults[i] = armed._replace(fault=pinned, uses=1)
        if hit and (not fault.times or faults[i].uses <= fault.times):
            refusal = refusal or fault.errno
    k.state.faults = tuple(faults)
    if refusal:
        raise Refused(getattr(errno, refusal))
