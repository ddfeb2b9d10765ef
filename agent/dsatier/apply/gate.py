# SPDX-License-Identifier: Apache-2.0
"""The gate: the one place that changes a host. The interlock sits in it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from errno import EACCES, EBUSY, EINVAL, ENOMEM, EPERM, EROFS
from typing import TypeVar

from dsatier.base.paths import QUEUE_FILE
from dsatier.facts.knobs import KNOBS, TIMER
from dsatier.facts.model import Facts
from dsatier.facts.observe.iommu import GROUPS
from dsatier.facts.observe.memory import BLOCKS
from dsatier.facts.observe.observer import Observer
from dsatier.facts.partial import NotSeen
from dsatier.facts.readings import may_balance_untold, migration_quiet
from dsatier.facts.tiers import USUAL, Tiers
from dsatier.host.port import Host, Rejected
from dsatier.plan.interlock import GUARDS, Circumstances, Guard, Refusal, refusals
from dsatier.plan.requests import (
    BindDevice,
    LoadDevice,
    OnlineMemory,
    Request,
    SetCpu,
    SetIommu,
    SetKnob,
    SetTimer,
    StirCpu,
    StopDevice,
    SwapOff,
    SwapOn,
    device_of,
)
from dsatier.queues.accel_config import text as queue_text

T = TypeVar("T")

IDXD = "/sys/bus/pci/drivers/idxd"
_UNIT = "this process may not do that: see `Past the IOMMU` in docs/operations.md for its unit"
_UNTYPED = {
    EINVAL: "the IOMMU cannot leave this device untranslated, or the kernel does not trust the "
    "device; boot with `iommu=pt`, or take `iommu` out of the profile's engine.work_queues",
    EPERM: "a driver has a device of the group",
    EBUSY: "a driver has a device of the group, or a program uses it by VFIO",
    EACCES: _UNIT,
    EROFS: _UNIT,
}
"""What a refusal by the kernel of another type of an IOMMU group means."""
EHWPOISON = 133
"""Of the kernel, where Python has no name for it."""
_STAYS_OFFLINE = {
    EHWPOISON: "a page of the block is broken: replace the module, or take `online` out of the "
    "profile's tiers; what has come online stays",
    EINVAL: "the kernel does not take the block into that zone: see valid_zones next to the file",
    EBUSY: "a driver keeps the block offline: see the kernel log",
    ENOMEM: "there is no room for what the kernel keeps of the block's pages: free memory first",
}
"""What a refusal by the kernel to bring a memory block online means."""
_UNBOUND = (
    "no driver has {0} now: see the kernel log, reset the device and write its address to this "
    "file, or reboot"
)


def _explained(refused: Rejected, words: str | None) -> Rejected:
    """Return a refusal with what it means."""
    if words is None:
        return refused
    return Rejected(refused.path, refused.errno, f"{refused.message}: {words}")


class Refused(Exception):
    """The interlock refused a request; nothing was written."""

    def __init__(self, reasons: tuple[Refusal, ...]) -> None:
        super().__init__("; ".join(map(str, reasons)))
        self.reasons = reasons


class Gate:
    """Carries out requests that the interlock lets through.

    It looks afresh before each one, at all of the host that the interlock asks for, and keeps
    the time for which it has seen engine, demotion and balancing off.
    """

    def __init__(
        self,
        host: Host,
        observer: Observer,
        guards: tuple[Guard, ...] = GUARDS,
    ) -> None:
        self._host = host
        self._observer = observer
        self._guards = guards
        self._quiet_since: float | None = None
        self._balancing_told = False

    def look(self) -> Facts:
        """Return the host's facts now."""
        return self._seen(self._observer.look())

    def answer(self, ask: Callable[[Facts], T], devices: Collection[str] = ()) -> T:
        """Return what ``ask`` finds in the host's facts now.

        They are narrow first: of DSA devices, those of these names. Where it asks for more, the
        host is looked at anew, and all of it.
        """
        try:
            return ask(self._seen(self._observer.glimpse(devices)))
        except NotSeen:
            return ask(self.look())

    def _seen(self, facts: Facts) -> Facts:
        untold = may_balance_untold(facts) and not self._balancing_told
        if untold or not migration_quiet(facts):
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = self._host.monotonic()
        return facts

    def submit(self, request: Request, deadline: float, tiers: Tiers = USUAL) -> str | None:
        """Carry out ``request``, within ``deadline`` seconds.

        Returns a command's complaint, None where there was none: neither proves
        anything. Raises Refused before anything is written; Missing, Rejected
        and Hung when the host does.
        """

        def judge(facts: Facts) -> tuple[Refusal, ...]:
            since = self._quiet_since
            quiet = 0.0 if since is None else self._host.monotonic() - since
            return refusals(request, Circumstances(facts, quiet, tiers), self._guards)

        name = device_of(request)
        found = self.answer(judge, () if name is None else (name,))
        if found:
            raise Refused(found)
        return self._carry_out(request, deadline)

    def _carry_out(self, request: Request, deadline: float) -> str | None:
        match request:
            case SetKnob(knob, value):
                self._host.write(KNOBS[knob].path, f"{KNOBS[knob].spelt(value)}\n", deadline)
                self._balancing_told |= knob == "numa_balancing"
            case SetCpu(cpu, online):
                path = f"/sys/devices/system/cpu/cpu{cpu}/online"
                self._host.write(path, f"{int(online)}\n", deadline)
            case StirCpu(cpu):
                path = f"/sys/devices/system/cpu/cpu{cpu}/online"
                self._host.write(path, "0\n", deadline)
                self._host.write(path, "1\n", deadline)
            case SetTimer(on):
                self._host.write(TIMER, f"{int(on)}\n", deadline)
            case LoadDevice(device):
                self._host.keep(QUEUE_FILE, queue_text((device,)))
                path = self._host.resolve(QUEUE_FILE)
                return self._run(("accel-config", "load-config", "-c", path, "-e"), deadline)
            case StopDevice(device):
                return self._run(("accel-config", "disable-device", device), deadline)
            case SetIommu():
                self._set_iommu(request, deadline)
            case BindDevice():
                self._bind(request, deadline)
            case OnlineMemory():
                self._bring_online(request, deadline)
            case SwapOff(area):
                return self._run(("swapoff", area.path), deadline)
            case SwapOn(area):
                priority = ("-p", str(area.priority)) if area.priority >= 0 else ()
                return self._run(("swapon", *priority, area.path), deadline)

        return None

    def _set_iommu(self, request: SetIommu, deadline: float) -> None:
        """Change a group's type while no driver has its device, and give the device back."""
        self._host.write(f"{IDXD}/unbind", f"{request.pci}\n", deadline)
        self._bind(BindDevice(request.pci, request.group, request.type), deadline)

    def _bind(self, request: BindDevice, deadline: float) -> None:
        """Give a device to idxd, its group's type changed before.

        It goes to idxd also where the kernel refuses the type.
        """
        refusals = []
        if request.type:
            path = f"{GROUPS}/{request.group}/type"
            try:
                self._host.write(path, f"{request.type}\n", deadline)
            except Rejected as refused:
                refusals.append(_explained(refused, _UNTYPED.get(refused.errno)))
        try:
            self._host.write(f"{IDXD}/bind", f"{request.pci}\n", deadline)
        except Rejected as refused:
            refusals.append(_explained(refused, _UNBOUND.format(request.pci)))
        if refusals:
            words = "; ".join([refusals[0].message, *map(str, refusals[1:])])
            raise Rejected(refusals[0].path, refusals[0].errno, words)

    def _bring_online(self, request: OnlineMemory, deadline: float) -> None:
        """Bring blocks online, all that the kernel takes; then tell of the first that it did not.

        One that somebody else has brought meanwhile is left as it is.
        """
        refusals = []
        until = self._host.monotonic() + deadline
        for block in request.blocks:
            path = f"{BLOCKS}/memory{block}/state"
            left = max(until - self._host.monotonic(), 1.0)
            try:
                self._host.write(path, f"online_{request.zone}\n", left)
            except Rejected as refused:
                if self._host.read(path).strip() != "online":
                    refusals.append(_explained(refused, _STAYS_OFFLINE.get(refused.errno)))
        if refusals:
            more = f"; {len(refusals) - 1} more blocks were refused" if refusals[1:] else ""
            first = refusals[0]
            raise Rejected(first.path, first.errno, f"{first.message}{more}")

    def _run(self, argv: tuple[str, ...], deadline: float) -> str | None:
        ran = self._host.run(argv, deadline)
        if ran.code == 0:
            return None
        words = (ran.err or ran.out).strip().splitlines()
        return f"{' '.join(argv)} exited {ran.code}: {words[-1] if words else 'no message'}"
