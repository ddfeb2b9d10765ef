# SPDX-License-Identifier: Apache-2.0
"""CPU hotplug: /sys/devices/system/cpu/cpuN/online."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from dsatier.sim import memory
from dsatier.sim.faults import StuckCpu
from dsatier.sim.parse import Refused, kstrtobool, to_list

if TYPE_CHECKING:
    from dsatier.sim.kernel import Kernel


def show(cpu: int, k: Kernel) -> str:
    """Return whether a CPU is online."""
    return "0\n" if cpu in k.state.offline else "1\n"


def store(cpu: int, k: Kernel, text: str) -> None:
    """Bring a CPU online or take it offline. Raises Refused."""
    if kstrtobool(text):
        if k.state.smt_off and cpu in _seconds(k):
            raise Refused(errno.EPERM)
        k.state.offline -= {cpu}
        memory.set_targets(k)
        return
    if cpu in k.state.offline:
        return
    _stuck(k, cpu)
    k.state.offline |= {cpu}
    memory.set_targets(k, leaving=cpu)
    k.log(f"smpboot: CPU {cpu} is now offline")


SMT = "/sys/devices/system/cpu/smt/control"


def show_siblings(cpu: int, k: Kernel) -> str:
    """Return the threads of a CPU's core that are online; of one that is offline nothing."""
    online = [c for c in k.spec.siblings()[cpu] if c not in k.state.offline]
    return "\n" if cpu in k.state.offline else to_list(online)


def show_smt(k: Kernel) -> str:
    """Return whether the cores have their second threads."""
    return "off\n" if k.state.smt_off else "on\n"


def store_smt(k: Kernel, text: str) -> None:
    """Take all second threads offline, or bring them all back. Raises Refused."""
    wanted = text.strip()
    if wanted not in ("on", "off"):
        raise Refused(errno.EINVAL)
    k.state.smt_off = wanted == "off"
    seconds = frozenset(_seconds(k))
    k.state.offline = k.state.offline | seconds if k.state.smt_off else k.state.offline - seconds


def _seconds(k: Kernel) -> set[int]:
    return {second for _, second in k.spec.siblings().values()}


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
