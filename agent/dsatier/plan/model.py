# SPDX-License-Identifier: Apache-2.0
"""Desired state, steps and plans, as frozen values that round-trip through JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dsatier.base.fields import STRICT, FirstVersion
from dsatier.facts.knobs import KnobName
from dsatier.facts.model import Swap
from dsatier.facts.onlining import Zone
from dsatier.facts.tiers import USUAL, Tiers
from dsatier.plan.evidence import Evidence
from dsatier.plan.requests import Request
from dsatier.queues.config import DeviceConfig


@dataclass(frozen=True, slots=True)
class NodeCpus:
    """CPUs of a node. An offline CPU itself does not tell whose it is."""

    __pydantic_config__ = STRICT

    node: int
    cpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NodeMemory:
    """The memory that devices bring to a node: all of it is to be online."""

    __pydantic_config__ = STRICT

    node: int
    zone: Zone = "movable"


def of_tiers(
    tiers: Tiers, slow: tuple[int, ...] = (), fast: tuple[int, ...] = ()
) -> tuple[NodeCpus, ...]:
    """Return CPUs of the two tiers by node, the slow one first; a node without any is left out."""
    both = (NodeCpus(tiers.home, slow), NodeCpus(tiers.fast[0], fast))
    return tuple(one for one in both if one.cpus)


@dataclass(frozen=True, slots=True)
class Desired:
    """What the host is to be. It may name fewer things than the host has."""

    __pydantic_config__ = STRICT

    tiers: Tiers = USUAL
    memory: tuple[NodeMemory, ...] = ()
    """Nodes whose memory is to be there."""
    cpuless: bool = False
    """The slow node's CPUs are to be offline."""
    cpus_online: tuple[NodeCpus, ...] = ()
    """CPUs that are to come back, in this order."""
    knobs: dict[KnobName, int] | None = None
    """Knobs by name; those of the engine are among them."""
    queues: tuple[DeviceConfig, ...] = ()
    """Devices that are to be configured and enabled like this."""
    stopped: tuple[str, ...] = ()
    """Devices that are to be disabled."""
    iommu: dict[str, str] | None = None
    """The type that the IOMMU group of each of these devices is to have."""
    bound: dict[str, str] | None = None
    """The devices that are to be given to idxd again, by PCI address: the type that the IOMMU
    group of each is to have then, empty where it is in none."""
    swap_off: bool = False
    """No swap is to be on."""
    swap_on: tuple[Swap, ...] = ()
    """Swap areas that are to come back."""

    @property
    def returning(self) -> tuple[int, ...]:
        """The CPUs that are to come back."""
        return tuple(cpu for one in self.cpus_online for cpu in one.cpus)

    def wants(self, knob: KnobName) -> int | None:
        """Return the value that a knob is to have, None where it is left alone."""
        return (self.knobs or {}).get(knob)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a host that stands against a desired state."""

    __pydantic_config__ = STRICT

    level: Literal["blocker", "warning", "reboot"]
    """blocker: out of reach. reboot: out of reach before a reboot. warning: in reach, but look."""
    name: str
    """The requirement, as docs/operations.md lists it."""
    where: str
    expected: str
    found: str
    remedy: str

    def __str__(self) -> str:
        what = f"expected {self.expected}, found {self.found}"
        return f"{self.level}: {self.where}: {what}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a plan: what is asked of the host, why, and what will prove it."""

    __pydantic_config__ = STRICT

    number: int
    rung: str
    """The rung of the ladder that the step belongs to."""
    direction: Literal["down", "up"]
    what: str
    before: str
    after: str
    reason: str
    requests: tuple[Request, ...]
    settle: float
    """Seconds in which the host must stay quiet; 0 for most steps."""
    evidence: tuple[Evidence, ...]
    inverse: tuple[Request, ...]
    """What undoes the step, in order; empty where it changes nothing."""
    deadline: float
    """Seconds that each request, and then the evidence, may take."""


Verdict = Literal["ready", "refused", "reboot-required"]


@dataclass(frozen=True, slots=True)
class Plan:
    """The way from what is to what is desired."""

    __pydantic_config__ = STRICT

    schema_version: FirstVersion
    hostname: str
    boot_id: str
    release: str
    profile_digest: str
    """SHA-256 of the profile that it is for; empty where it is for none."""
    verdict: Verdict
    findings: tuple[Finding, ...]
    desired: Desired
    descends_to: str | None
    """The rung that the host comes down to on its way; None where it does not come down."""
    steps: tuple[Step, ...]
    untouched: tuple[str, ...]
    """What the desired state does not name."""
