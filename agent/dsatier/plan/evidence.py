# SPDX-License-Identifier: Apache-2.0
"""Evidence: what proves that a step had its effect.

Reading a knob back proves little: a seed kernel's ``dsa_state`` reads 1 after
a failed start. So a step names what must be seen elsewhere as well: channels
held, queues enabled, a kernel log with no complaint since the step began.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from dsatier.base.fields import STRICT, Tagged
from dsatier.base.text import ranges
from dsatier.facts.kernel_complaints import complaints
from dsatier.facts.knobs import KnobName, spelt
from dsatier.facts.model import Facts
from dsatier.facts.onlining import Zone, astray, memory_device
from dsatier.facts.readings import device, failed_copies, held, live, loose, migration_quiet, node
from dsatier.facts.tiers import Tiers, target, watermark, words
from dsatier.host.port import LogTail
from dsatier.queues.config import DeviceConfig, differences


@dataclass(frozen=True, slots=True)
class Reads:
    """The knob reads back what was written."""

    __pydantic_config__ = STRICT

    knob: KnobName
    value: int
    kind: Literal["reads"] = "reads"

    def __str__(self) -> str:
        return f"{self.knob} reads {spelt(self.knob, self.value)}"

    def missing(self, facts: Facts, log: LogTail) -> str | None:
        """Return what is seen instead, None where the evidence is there."""
        found = live(facts, self.knob)
        return None if found == self.value else f"{self.knob} reads {found}"


@dataclass(frozen=True, slots=True)
class CleanLog:
    """The kernel log has no complaint of DSA, DMA or an oops since the step began."""

    __pydantic_config__ = STRICT

    kind: Literal["log"] = "log"

    def __str__(self) -> str:
        return "kernel log clean since the step began"

    def missing(self, facts: Facts, log: LogTail) -> str | None:
        """Return the first complaint, None where there is none and no line was lost."""
        if not log.complete:
            return "kernel log lines were lost, so it proves nothing"
        return next((f"kernel log: {line}" for line in complaints(log.lines, facts)), None)


@dataclass(frozen=True, slots=True)
class Held:
    """This many DSA channels are held."""

    __pydantic_config__ = STRICT

    channels: int
    kind: Literal["held"] = "held"

    def __str__(self) -> str:
        return f"{self.channels} DMA channels in use"

    def missing(self, facts: Facts, log: LogTail) -> str | None:
        """Return how many are held instead."""
        found = len(held(facts))
        return None if found == self.channels else f"{found} DMA channels in use"


@dataclass(frozen=True, slots=True)
class Configured:
    """A device and its queues are enabled and configured as wanted."""

    __pydantic_config__ = STRICT

    device: DeviceConfig
    kind: Literal["configured"] = "configured"

    def __str__(self) -> str:
        return f"{self.device.id} and its queues enabled as configured, by sysfs"

    def missing(self, facts: Facts, log: LogTail) -> str | None:
        """Return the first difference."""
        found = device(facts, self.device.id)
        if found is None:
            return f"{self.device.id} is not there"
        return next(iter(differences(self.device, found)), None)


@dataclass(frozen=True, slots=True)
class Stopped:
    """A device is disabled."""

    __pydantic_config__ = STRICT

    device: str
    kind: Literal["stopped"] = "stopped"

    def __str__(self) -> str:
        return f"{self.device} disabled, by sysfs"

    def missing(self, facts: Facts, log: LogTail) -> str | None:
        """Return the state it is in instead."""
        found = device(facts, self.device)
        if found is None or found.state == "disabled":
            return None
        return f"{self.device} is {found.state}"


@dataclass(frozen=True, slots=True)
class IommuIs:
    """A device is there again, and its IOMMU group has that type."""

    __pydantic_config__ = STRICT

    device: str
    pci: str
    type: str
    kind: Literal["iommu"] = "iommu"

    def __str__(self) -> str:
        return f"{self.device} at {self.pci}, its IOMMU group reads {self.type}"

    def missing(self, facts: Facts, log: LogTail) -> str | None:
        """Return what is there instead."""
        found = device(facts, self.device)
        if found is None or found.pci != self.pci:
            return f"{self.device} is not at {self.pci}"
        reads = "none" if found.group is None else found.group.type
        return None if reads == self.type else f"the IOMMU group of {self.device} reads {reads}"


@dataclass(frozen=True, slots=True)
class Bound:
    """A driver has the device at a PCI address, and its IOMMU group has that type."""

    __pydantic_config__ = STRICT

    pci: str
    type: str = ""
    """Empty: any."""
    kind: Literal["bound"] = "bound"

    def __str__(self) -> str:
        typed = f", its IOMMU group reads {self.type}" if self.type else ""
        return f"a driver has {self.pci}{typed}"

    def missing(self, facts: Facts, log: LogTail) -> str | None:
        """Return what is there instead."""
        if loose(facts, self.pci) is not None:
            return f"no driver has {self.pci}"
        found = next((one.group for one in facts.devices if one.pci == self.pci), None)
        reads = "none" if found is None else found.type
        if self.type and reads != self.type:
            return f"the IOMMU group of {self.pci} reads {reads}"
        return None


@dataclass(frozen=True, slots=True)
class MemoryIs:
    """Blocks of a device are online in a zone, and its node has memory and is in a tier."""

    __pydantic_config__ = STRICT

    device: str
    node: int
    blocks: tuple[int, ...]
    zone: Zone
    kind: Literal["memory"] = "memory"

    def __str__(self) -> str:
        return (
            f"memory blocks {ranges(self.blocks)} of {self.device} online, {self.zone}; "
            f"node {self.node} has memory, and a memory tier where the kernel shows those"
        )

    def missing(self, facts: Facts, log: LogTail) -> str | None:
        """Return what is there instead."""
        found, here = memory_device(facts, self.device), node(facts, self.node)
        if found is None or found.blocks is None:
            return f"{self.device} is not there, or kmem does not have it"
        if left := set(self.blocks).intersection(found.blocks.offline):
            return f"memory blocks {ranges(left)} of {self.device} are offline"
        if other := set(self.blocks).intersection(astray(found.blocks, self.zone)):
            return (
                f"memory blocks {ranges(other)} of {self.device} are online in another zone: "
                "somebody else has brought them"
            )
        if here is None or here.mem_total == 0:
            return f"node {self.node} has no memory"
        if here.tier is None and any(one.tier is not None for one in facts.nodes):
            return f"node {self.node} is in no memory tier"
        return None


@dataclass(frozen=True, slots=True)
class CpusAre:
    """These CPUs are offline, or online."""

    __pydantic_config__ = STRICT

    cpus: tuple[int, ...]
    online: bool
    kind: Literal["cpus"] = "cpus"

    def __str__(self) -> str:
        return f"cpus {ranges(self.cpus)} {'online' if self.online else 'offline'}"

    def missing(self, facts: Facts, log: LogTail) -> str | None:
        """Return which CPUs are not."""
        offline = set(facts.offline_cpus)
        wrong = tuple(c for c in self.cpus if (c in offline) == self.online)
        return f"cpus {ranges(wrong)} are not" if wrong else None


@dataclass(frozen=True, slots=True)
class SwapIs:
    """A swap area is on, or off."""

    __pydantic_config__ = STRICT

    path: str
    on: bool
    kind: Literal["swap"] = "swap"

    def __str__(self) -> str:
        return f"{self.path} {'in' if self.on else 'not in'} /proc/swaps"

    def missing(self, facts: Facts, log: LogTail) -> str | None:
        """Return what /proc/swaps says instead."""
        found = any(s.path == self.path for s in facts.swaps)
        return None if found == self.on else f"swap on {self.path} is {'on' if found else 'off'}"


@dataclass(frozen=True, slots=True)
class Watermark:
    """The fast node's demotion watermark is set, where /proc/zoneinfo shows one."""

    __pydantic_config__ = STRICT

    tiers: Tiers
    kind: Literal["watermark"] = "watermark"

    def __str__(self) -> str:
        return (
            f"demotion watermark of {words(self.tiers.fast)} above 0 in /proc/zoneinfo, where shown"
        )

    def missing(self, facts: Facts, log: LogTail) -> str | None:
        """Return that it is 0."""
        found = watermark(facts, self.tiers)
        return f"demotion watermark of {words(self.tiers.fast)} is 0" if found == 0 else None


@dataclass(frozen=True, slots=True)
class Target:
    """The fast node has a node to demote to, where /proc/zoneinfo shows that."""

    __pydantic_config__ = STRICT

    tiers: Tiers
    kind: Literal["target"] = "target"

    def __str__(self) -> str:
        slow = ranges(self.tiers.slow)
        return f"next_demotion_node of {words(self.tiers.fast)} is {slow}, where shown"

    def missing(self, facts: Facts, log: LogTail) -> str | None:
        """Return the node that it is instead, or that it is none."""
        found = target(facts, self.tiers)
        if found in (None, *self.tiers.slow):
            return None
        return f"next_demotion_node of {words(self.tiers.fast)} is {found}"


@dataclass(frozen=True, slots=True)
class NoFailures:
    """The kernel has counted no further failed copy by the DSA."""

    __pydantic_config__ = STRICT

    failures: int
    """What dsa_copy_fail in /proc/timer read before."""
    kind: Literal["failures"] = "failures"

    def __str__(self) -> str:
        return f"dsa_copy_fail still at most {self.failures}"

    def missing(self, facts: Facts, log: LogTail) -> str | None:
        """Return what it rose to."""
        failed = failed_copies(facts, self.failures)
        return f"dsa_copy_fail rose to {facts.timer['dsa_copy_fail']}" if failed else None


@dataclass(frozen=True, slots=True)
class Quiet:
    """Nothing starts new copies."""

    __pydantic_config__ = STRICT

    kind: Literal["quiet"] = "quiet"

    def __str__(self) -> str:
        return "engine, demotion and balancing still off"

    def missing(self, facts: Facts, log: LogTail) -> str | None:
        """Return that something does."""
        return None if migration_quiet(facts) else "engine, demotion or balancing came on again"


Evidence = Annotated[
    Reads
    | CleanLog
    | Held
    | Configured
    | Stopped
    | IommuIs
    | Bound
    | MemoryIs
    | CpusAre
    | SwapIs
    | Watermark
    | Target
    | NoFailures
    | Quiet,
    Tagged("kind"),
]

FINAL = (CleanLog, NoFailures)
"""Evidence of what must not happen: where it has, waiting is of no use."""
