# SPDX-License-Identifier: Apache-2.0
"""All of a simulated host that changes: one compact value holder, cheap to copy and to compare.

Everything in it is immutable but a few flat dicts and lists, so a copy is shallow.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from typing import Any, NamedTuple, get_type_hints

from dsatier.sim.faults import Fault
from dsatier.sim.spec import mistakes

GONE = "gone"
"""A channel that the engine still points to, though its queue went away."""


class Queue(NamedTuple):
    """A work queue."""

    driver: str = ""
    state: str = "disabled"
    type: str = "none"
    mode: str = "shared"
    name: str = ""
    driver_name: str = ""
    group: int = -1
    size: int = 0
    priority: int = 0
    threshold: int = 0
    block_on_fault: int = 0
    ats_disable: int = 0
    prs_disable: int = 0
    max_batch_size: int = 32
    max_transfer_size: int = 2097152
    enqcmds_retries: int = 32
    clients: int = 0


class Group(NamedTuple):
    """A group of a device."""

    use_limit: int = 0
    allowed: int = 96
    reserved: int = 0
    tc_a: int = 1
    tc_b: int = 1
    desc_limit: int = 0
    batch_limit: int = 0


class Device(NamedTuple):
    """A DSA device. ``broken`` names the reset that it needs."""

    present: bool
    engines: tuple[int, ...]
    groups: tuple[Group, ...]
    queues: tuple[Queue, ...]
    bound: bool = False
    state: str = "disabled"
    broken: str = ""
    cmd_status: int = 0
    buffer_limit: int = 0
    loose: bool = False
    """No driver has its PCI device, so it is not present."""


class Chan(NamedTuple):
    """A DMA channel. ``queue`` is empty where its provider is no DSA."""

    id: int
    queue: str
    in_use: int = 0


class Dma(NamedTuple):
    """A provider of DMA channels, in the order of registration. ``device`` is -1 for no DSA."""

    id: int
    device: int
    pci: str
    chans: tuple[Chan, ...]


class Engine(NamedTuple):
    """What the copy engine's code holds in its own variables."""

    good: bool = False
    """Initialised."""
    chans: tuple[str, ...] = ()
    """The queues behind its channels: a name, GONE, or the provider's for no DSA."""
    descs: int = 0
    """Channels that descriptors were allocated for."""
    stale: bool = False
    """It was initialised before: pointers in the arrays are dangling after a release."""
    kept: tuple[str, ...] = ()
    """Channels that a start which failed has given back, and points to still."""
    flips: int = 0
    """How often limit_chans has changed under copies."""
    copied: bool = False
    """It has been live since its init."""
    quiet_since: float | None = None
    """When the last thing that starts a copy went off."""
    out: tuple[str, ...] = ()
    """Channels of ours that failed: they are held, and copy nothing until they are tried again."""
    lost: tuple[str, ...] = ()
    """Channels of ours whose device does not release pages: they stay held, also by a release."""


class Timer(NamedTuple):
    """/proc/timer, counts in pages, times in seconds."""

    on: bool = False
    total: float = 0.0
    dsa_hpage: float = 0.0
    dsa_bpage: float = 0.0
    fail: int = 0
    hpage: float = 0.0
    bpage: float = 0.0


class Flow(NamedTuple):
    """Pages that moved between tiers since boot, and what led to it."""

    demoted: float = 0.0
    promoted: float = 0.0
    hot: float = 0.0
    faults: float = 0.0
    updates: float = 0.0
    scanned: float = 0.0
    swapped: float = 0.0


class SwapArea(NamedTuple):
    """A swap area; sizes in KiB."""

    path: str
    kind: str
    size: int
    used: int
    priority: int


class Harm(NamedTuple):
    """What a write did to the host.

    ``kind``: fatal (the host went down), oops (it goes on, damaged), corruption, leak, stuck (no
    way back but a reboot), fault (device errors), ineffective, swap. ``by``: agent, other or
    fault.
    """

    write: str
    reason: str
    kind: str
    by: str


class Armed(NamedTuple):
    """A fault that waits: for a time (``due``) or for seconds of live engine (``spent``)."""

    fault: Fault
    due: float = 0.0
    spent: float = 0.0
    uses: int = 0


_FIELDS: dict[str, Any] = {
    "knobs": dict,
    "devices": tuple,
    "dma": tuple,
    "iommu": tuple,
    "engine": Engine,
    "offline": frozenset,
    "smt_off": bool,
    "swaps": tuple,
    "blocks": tuple,
    "late": frozenset,
    "free": tuple,
    "watermarks": tuple,
    "tiered": bool,
    "balancing": bool,
    "targets": tuple,
    "huge_pages": str,
    "timer": Timer,
    "flow": Flow,
    "active": frozenset,
    "harm": list,
    "log": list,
    "log_first": int,
    "now": float,
    "wall": float,
    "boot": int,
    "tainted": int,
    "warned": frozenset,
    "down": str,
    "faults": tuple,
    "files": dict,
    "operations": int,
    "holder": str,
    "hung": frozenset,
}


class State:
    """The state. ``free`` and ``watermarks`` are per node, in KiB and in pages."""

    __slots__ = tuple(_FIELDS)

    knobs: dict[str, int]
    devices: tuple[Device, ...]
    dma: tuple[Dma, ...]
    iommu: tuple[str, ...]
    """The type of each IOMMU group."""
    engine: Engine
    offline: frozenset[int]
    smt_off: bool
    swaps: tuple[SwapArea, ...]
    blocks: tuple[str, ...]
    """The memory blocks of each node that a device brings, a letter for each."""
    late: frozenset[int]
    """Nodes whose device has yet to come."""
    free: tuple[int, ...]
    watermarks: tuple[int, ...]
    tiered: bool
    """TPP's flag: tiering was on once."""
    balancing: bool
    """What numa_balancing turns on is on, whatever it reads."""
    targets: tuple[int, ...]
    """Where each node demotes to, -1 for nowhere."""
    huge_pages: str
    timer: Timer
    flow: Flow
    active: frozenset[str]
    harm: list[Harm]
    log: list[str]
    log_first: int
    now: float
    wall: float
    boot: int
    tainted: int
    warned: frozenset[str]
    """Warnings that the kernel gives only once, and has given."""
    down: str
    faults: tuple[Armed, ...]
    files: dict[str, str]
    operations: int
    holder: str
    hung: frozenset[str]

    def __init__(self) -> None:
        for name, kind in _FIELDS.items():
            setattr(self, name, kind())

    def copy(self) -> State:
        """Return a state that shares nothing that changes."""
        new = State.__new__(State)
        for name in _FIELDS:
            setattr(new, name, getattr(self, name))
        new.knobs = self.knobs.copy()
        new.files = self.files.copy()
        new.harm = self.harm.copy()
        new.log = self.log.copy()
        return new

    def key(self, settle: float) -> tuple[Any, ...]:
        """Return a hashable value, equal for two states that behave the same.

        Clocks, counters, the log, own files and the record of harm are no part of it; what is
        left of a wait for copies in flight is.
        """
        engine = self.engine
        quiet = engine.quiet_since
        if quiet is not None:
            quiet = min(round(self.now - quiet, 3), settle)
        return (
            tuple(self.knobs.values()),
            self.devices,
            self.dma,
            self.iommu,
            engine._replace(quiet_since=quiet if engine.copied else None),
            self.offline,
            self.smt_off,
            self.swaps,
            self.blocks,
            self.late,
            self.free,
            self.watermarks,
            self.tiered,
            self.balancing,
            self.targets,
            self.tainted,
            self.warned,
            self.down,
            tuple(a._replace(due=round(a.due - self.now, 3)) for a in self.faults),
            self.hung,
            self.timer.on,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the state as values that JSON has."""
        out: dict[str, Any] = {}
        for name in _FIELDS:
            value = getattr(self, name)
            out[name] = sorted(value) if isinstance(value, frozenset) else value
        out["faults"] = [[asdict(a.fault), *a[1:]] for a in self.faults]
        return out

    @staticmethod
    def from_json(data: dict[str, Any]) -> State:
        """Return the state that ``to_json`` gave. Raises ValueError."""
        if not isinstance(data, dict) or set(data) != set(_FIELDS):
            raise ValueError(f"host state: expected the fields {', '.join(sorted(_FIELDS))}")
        new = State()
        for name, adapter in _adapters().items():
            try:
                # JSON mode: lists stand for tuples, all else stays strict
                setattr(new, name, adapter.validate_json(json.dumps(data[name]), strict=True))
            except (ValueError, RecursionError) as error:
                raise ValueError(f"host state: {name}: {mistakes(error)}") from None
        return new

    def shape(self) -> tuple[Any, ...]:
        """Return what a state shares with every other one of its host: what there is to change."""
        return (
            sorted(self.knobs),
            [(len(d.engines), len(d.groups), len(d.queues)) for d in self.devices],
            len(self.blocks),
            len(self.free),
            len(self.watermarks),
            len(self.targets),
            len(self.iommu),
        )


@cache
def _adapters() -> dict[str, Any]:
    """Return what reads each field."""
    from pydantic import TypeAdapter

    return {name: TypeAdapter(kind) for name, kind in get_type_hints(State).items()}
