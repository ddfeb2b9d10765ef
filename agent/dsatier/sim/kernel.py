# SPDX-License-Identifier: Apache-2.0
"""A simulated kernel: a description, a state and the few verbs that everything else uses."""

from __future__ import annotations

import os
from collections.abc import Callable
from errno import EACCES, EISDIR
from typing import TYPE_CHECKING

from dsatier.host.port import HostDown, Missing, Rejected
from dsatier.sim import blocks, copying, events, hazards, iommu, memory
from dsatier.sim.faults import LateCompletion, LateDevice, LateMemory
from dsatier.sim.parse import Refused
from dsatier.sim.state import (
    Armed,
    Chan,
    Dma,
    Harm,
    State,
    SwapArea,
)

if TYPE_CHECKING:
    from dsatier.sim.faults import AnyFault
    from dsatier.sim.layout import Layout
    from dsatier.sim.spec import HostSpec

TAINT_OOPS = 1 << 7
TAINT_WARN = 1 << 9


class Kernel:
    """A kernel with its devices, memory and files."""

    __slots__ = ("cause", "layout", "origin", "seed", "spec", "state")

    spec: HostSpec
    layout: Layout
    state: State
    seed: bool
    """It is one of the kernels that guard nothing."""
    cause: str
    """What is being written, for the record of harm."""
    origin: str
    """Who does: agent, other or fault."""

    def __init__(self, spec: HostSpec, layout: Layout, state: State | None = None) -> None:
        self.spec = spec
        self.layout = layout
        self.seed = spec.kernel.kind in ("tpp", "memtis")
        self.cause = ""
        self.origin = "agent"
        if state is not None:
            self.state = state
            return
        self.state = State()
        self.state.wall = spec.wall
        self.state.faults = tuple(Armed(f, getattr(f, "after", 0.0)) for f in spec.faults)
        self.start()

    def copy(self) -> Kernel:
        """Return a kernel that goes its own way from here."""
        return Kernel(self.spec, self.layout, self.state.copy())

    # what the rest of the simulation asks and tells

    def knob(self, name: str) -> int:
        """Return a knob's value, 0 where this kernel has none."""
        return self.state.knobs.get(name, 0)

    def log(self, line: str) -> None:
        """Append a line to the kernel log, which loses its oldest when it is full."""
        state = self.state
        state.log.append(line)
        extra = len(state.log) - self.spec.log_lines
        if extra > 0:
            del state.log[:extra]
            state.log_first += extra

    def warn(self, line: str) -> None:
        """Log a line and taint the kernel as WARN does."""
        self.log(line)
        self.state.tainted |= TAINT_WARN

    def warn_once(self, lines: tuple[str, ...]) -> None:
        """Log the lines of a WARN_ONCE."""
        if lines[-1] not in self.state.warned:
            self.state.warned |= {lines[-1]}
            for line in lines:
                self.warn(line)

    def hurt(self, kind: str, reason: str) -> None:
        """Record harm; fatal harm ends the simulation, an oops where it panics. Raises HostDown."""
        self.state.harm.append(Harm(self.cause, reason, kind, self.origin))
        if kind == "fatal":
            self.panic(reason)
        if kind == "oops":
            self.log("BUG: kernel NULL pointer dereference, address: 0000000000000000")
            self.log("Oops: 0002 [#1] SMP NOPTI")
            self.state.tainted |= TAINT_OOPS
            if self.spec.kernel.config.get("CONFIG_PANIC_ON_OOPS") == "y":
                self.panic(reason)

    def panic(self, reason: str) -> None:
        """Take the host down. Raises HostDown."""
        self.state.tainted |= TAINT_OOPS
        self.state.down = f"kernel panic: {reason} (after {self.cause})"
        raise HostDown(self.spec.hostname, self.state.down)

    def check_up(self) -> None:
        """Raise HostDown where the host went down before."""
        if self.state.down:
            raise HostDown(self.spec.hostname, self.state.down)

    def online(self, node: int) -> int:
        """Return how many CPUs of a node are online."""
        offline = self.state.offline
        return sum(cpu not in offline for cpu in self.layout.cpus[node])

    def there(self, node: int) -> bool:
        """Tell whether the kernel has a node: of a device's memory once there is a block."""
        return not self.spec.nodes[node].device or bool(self.state.blocks[node])

    def arm(self, fault: AnyFault) -> None:
        """Let a fault wait from now on."""
        after = getattr(fault, "after", 0.0)
        self.state.faults += (Armed(fault, self.state.now + after),)
        events.arm(self, self.state.faults[-1])

    def change(self, cause: str, origin: str, act: Callable[[], None]) -> None:
        """Do something and let the standing load meet the outcome. Raises HostDown."""
        before = self.cause, self.origin
        self.cause, self.origin = cause, origin
        try:
            act()
            hazards.judge(self)
        finally:
            self.cause, self.origin = before

    # files

    def read(self, path: str) -> str:
        """Return a kernel file's text. Raises Missing, Rejected."""
        file = self.layout.file(self, path)
        if file is None:
            if self.layout.is_dir(self, path):
                raise Rejected(path, EISDIR, os.strerror(EISDIR))
            raise Missing(path, "no such file")
        if file.show is None:
            raise Rejected(path, EACCES, os.strerror(EACCES))
        try:
            return file.show(self)
        except Refused as refused:
            raise Rejected(path, refused.errno, os.strerror(refused.errno)) from None

    def write(self, path: str, text: str, origin: str = "agent", cause: str = "") -> None:
        """Write one buffer to a kernel file. Raises Missing, Rejected, HostDown."""
        file = self.layout.file(self, path)
        if file is None:
            raise Missing(path, "no such file")
        store = file.store
        if store is None:
            raise Rejected(path, EACCES, os.strerror(EACCES))
        try:
            self.change(
                cause or f"{path} <- {text.rstrip()[:40]}", origin, lambda: store(self, text)
            )
        except Refused as refused:
            raise Rejected(path, refused.errno, os.strerror(refused.errno)) from None

    # time and boots

    def advance(self, seconds: float) -> None:
        """Let time pass, with all that happens in it. Raises HostDown."""
        events.advance(self, seconds)

    def reboot(self) -> None:
        """Boot again: own files outside /run and the record of harm stay, all else is new."""
        old, new = self.state, State()
        new.harm = old.harm
        new.files = {p: t for p, t in old.files.items() if not p.startswith("/run/")}
        new.operations = old.operations
        new.boot = old.boot + 1
        new.wall = old.wall + old.now + 60.0
        # a mark from before the boot must not pass for one of after it
        new.log_first = old.log_first + len(old.log) + 1
        new.faults = tuple(
            a._replace(
                due=getattr(a.fault, "after", 0.0),
                uses=_left_after_boot(a),
            )
            for a in old.faults
        )
        self.state = new
        self.start()

    def start(self) -> None:
        """Bring the state to that of a fresh boot."""
        spec, state = self.spec, self.state
        state.knobs = dict(self.layout.defaults)
        for name, value in spec.kernel.boot.items():
            if name in state.knobs:
                state.knobs[name] = value
        state.blocks = tuple(blocks.arrived(spec, node) for node in range(len(spec.nodes)))
        memory.free_all(self)
        state.swaps = tuple(
            SwapArea(s.path, s.kind, s.size << 20, s.used << 10, s.priority) for s in spec.swap
        )
        state.devices = tuple(iommu.fresh(d) for d in spec.each_device())
        state.iommu = iommu.booted(spec)
        state.dma = tuple(
            Dma(i, -1, d.pci, tuple(Chan(c, "", int(d.in_use)) for c in range(d.channels)))
            for i, d in enumerate(spec.other_dma)
        )
        self._start_tiering()
        for armed in state.faults:
            events.arm(self, armed)
        self.log(f"Linux version {spec.kernel.release}")
        for i, device in enumerate(spec.each_device()):
            if state.devices[i].present:
                copying.preset(self, i, device)
        # what stands at boot is nobody's write
        state.active = hazards.standing(self)

    def _start_tiering(self) -> None:
        """Bring up what the tiers of memory have at boot."""
        spec, state = self.spec, self.state
        state.huge_pages = "always"
        several = len(spec.nodes) > 1
        default_on = spec.kernel.config.get("CONFIG_NUMA_BALANCING_DEFAULT_ENABLED") == "y"
        if several and default_on and "numa_balancing" not in spec.kernel.boot:
            state.balancing = True
            if spec.kernel.kind != "tpp":  # which forgets to say so
                state.knobs["numa_balancing"] = 1
        else:
            memory.note_mode(self)
        memory.set_targets(self)
        memory.set_watermarks(self)
        copying.note_quiet(self)


def _left_after_boot(armed: Armed) -> int:
    """Return how often a fault has happened after a boot."""
    match armed.fault:
        case LateDevice() | LateMemory():
            return 0
        case LateCompletion():
            return 2 if armed.uses else 0  # what was under way ended with the machine
    return armed.uses
