# SPDX-License-Identifier: Apache-2.0
"""What happens by itself while time passes: the faults that wait, in the order of their times."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from dsatier.host.port import Missing, Rejected
from dsatier.sim import blocks, copying, hazards, idxd, memory, pressure, timer
from dsatier.sim.faults import (
    ClockJump,
    CopyFailures,
    Halt,
    LateCompletion,
    LateDevice,
    LateMemory,
    LostLog,
    OtherWriter,
    Pressure,
    SelfClear,
    SwapReturns,
    VanishedQueue,
)

if TYPE_CHECKING:
    from dsatier.sim.kernel import Kernel
    from dsatier.sim.state import Armed


def arm(k: Kernel, armed: Armed) -> None:
    """Bring about what a fault needs before its time."""
    fault = armed.fault
    if isinstance(fault, LateDevice) and armed.due > k.state.now:
        idxd.set_present(k, idxd.index_of(fault.device), present=False)
    if isinstance(fault, LateMemory) and armed.due > k.state.now:
        blocks.arrive(k, fault.node, there=False)


def lose_log(k: Kernel) -> None:
    """Lose all lines of the kernel log, and one that nobody saw."""
    k.state.log_first += len(k.state.log) + 1
    k.state.log.clear()


def _wait(k: Kernel, armed: Armed) -> float:
    """Return the seconds until a fault happens if nothing changes, inf for never."""
    fault = armed.fault
    left = armed.due - k.state.now
    running = copying.live(k)
    match fault:
        case Halt(live=True):
            left = fault.after - armed.spent if running else inf
            return inf if armed.uses else left
        case SelfClear():
            done = fault.times and armed.uses >= fault.times
            return fault.after - armed.spent if running and not done else inf
        case CopyFailures():
            done = fault.times and armed.uses >= fault.times
            meets = running and copying.concurrent(k) and not done
            return fault.every - armed.spent if meets else inf
        case LateCompletion() if armed.uses == 0:
            return fault.after - armed.spent if running else inf
        case LateCompletion():
            return left if armed.uses == 1 else inf
        case OtherWriter():
            return inf if fault.times and armed.uses >= fault.times else left
        case LostLog():
            return inf if armed.uses or fault.with_write is not None else left
        case Halt() | VanishedQueue() | LateDevice() | LateMemory() | SwapReturns():
            return inf if armed.uses else left
        case ClockJump() | Pressure():
            return inf if armed.uses else left
        case _:
            return inf


def _happen(k: Kernel, armed: Armed) -> Armed:
    """Let a fault happen; return what is left to wait for. Raises HostDown."""
    fault = armed.fault
    armed = armed._replace(uses=armed.uses + 1, spent=0.0)
    match fault:
        case Halt():
            number = idxd.index_of(fault.device)
            k.change(f"{fault.device} halts", "fault", lambda: idxd.halt(k, number, fault.reset))
        case SelfClear():
            k.change("a copy fails", "fault", lambda: copying.fail_all(k))
        case CopyFailures():
            k.change("a list fails", "fault", lambda: copying.fail_list(k, huge=fault.huge))
        case LateCompletion() if armed.uses == 1:
            number = idxd.index_of(fault.device)
            k.change("a copy times out", "fault", lambda: copying.time_out(k, number))
            armed = armed._replace(due=k.state.now + fault.late)
        case LateCompletion():
            number = idxd.index_of(fault.device)
            k.change(f"{fault.device} completes", "fault", lambda: copying.complete_late(k, number))
        case VanishedQueue():
            device, queue = copying.place(fault.queue)
            driver = k.state.devices[device].queues[queue].driver
            if driver:
                unbind = f"/sys/bus/dsa/drivers/{driver}/unbind"
                _write(k, unbind, fault.queue)
        case LateDevice():
            idxd.set_present(k, idxd.index_of(fault.device), present=True)
        case LateMemory():
            blocks.arrive(k, fault.node, there=True)
        case OtherWriter():
            _write(k, fault.path, fault.text)
            armed = armed._replace(due=k.state.now + fault.every)
        case SwapReturns():
            off = {s.path for s in k.spec.swap} - {s.path for s in k.state.swaps}

            def turn_on() -> None:
                for path in sorted(off):
                    memory.turn_on(k, path)

            k.change("swapon -a", "other", turn_on)
        case LostLog():
            lose_log(k)
        case ClockJump():
            k.state.wall += fault.by
    return armed


def _write(k: Kernel, path: str, text: str) -> None:
    try:
        k.write(path, text, origin="other")
    except (Missing, Rejected):
        return  # the other writer's trouble


def _pass(k: Kernel, seconds: float) -> None:
    if seconds <= 0:
        return
    timer.count(k, seconds)
    pressure.count(k, seconds)
    running = copying.live(k)
    listed = running and copying.concurrent(k)
    k.state.now += seconds
    if running:
        k.state.faults = tuple(
            a._replace(spent=a.spent + seconds)
            if isinstance(a.fault, Halt | SelfClear | LateCompletion)
            or (listed and isinstance(a.fault, CopyFailures))
            else a
            for a in k.state.faults
        )


def advance(k: Kernel, seconds: float) -> None:
    """Let ``seconds`` pass. Raises HostDown."""
    end = k.state.now + seconds
    while True:
        waits = [_wait(k, armed) for armed in k.state.faults]
        first = min(waits, default=inf)
        if k.state.now + first > end:
            break
        _pass(k, first)
        index = waits.index(first)
        done = _happen(k, k.state.faults[index])
        # what happened may have changed other faults' progress, so only this one is replaced
        faults = list(k.state.faults)
        faults[index] = done
        k.state.faults = tuple(faults)
    _pass(k, end - k.state.now)
    k.state.now = end
    if k.state.active & hazards.FAULTS:
        hazards.meet_faults(k)
