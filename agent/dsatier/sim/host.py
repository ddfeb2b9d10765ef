# SPDX-License-Identifier: Apache-2.0
"""SimHost: a simulated host behind the port ``dsatier.host.port.Host``."""

from __future__ import annotations

import errno as errnos
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any, TypeVar

from dsatier.base.problem import Invalid, Problem
from dsatier.host import given, step_log
from dsatier.host.port import Host, Hung, Locked, LogTail, Missing, Ran, Rejected
from dsatier.sim import accel, blocks, events, idxd, iommu, machine, memory, pressure, spec
from dsatier.sim.faults import (
    AnyFault,
    Crash,
    FullDisk,
    HungCommand,
    HungWrite,
    LateDevice,
    LateMemory,
    LostLog,
    RejectedWrite,
    SimCrash,
)
from dsatier.sim.kernel import Kernel
from dsatier.sim.layout import Layout, Node
from dsatier.sim.state import Harm, State

T = TypeVar("T")

STATE_VERSION = 1
_BEYOND = 1 << 63
"""No kernel counts as far."""
KERNEL_FOLDERS = ("/proc/", "/sys/", "/dev/", "/boot/")


class SimHost:
    """A host in memory. Its clock moves only by ``sleep``, ``advance`` and writes that hang.

    ``pace`` is real seconds for each second of its clock, for a display; 0 waits for nothing.
    """

    def __init__(self, kernel: Kernel, pace: float = 0.0) -> None:
        self.kernel = kernel
        self.pace = pace

    # making one

    @classmethod
    def of(cls, description: spec.HostSpec) -> SimHost:
        """Return a freshly booted host of a description."""
        return cls(Kernel(description, Layout(description)))

    @classmethod
    def load(cls, text: str) -> SimHost:
        """Return a freshly booted host that YAML text describes. Raises ValueError."""
        return cls.of(spec.parse(text))

    @classmethod
    def host_for(cls, name_or_path: str) -> SimHost:
        """Return a host by the name of a shipped description or by a file's path.

        Raises Invalid where that file is wrong, ValueError where there is no such name.
        """
        if name_or_path in spec.shipped():
            return cls.load(spec.shipped_text(name_or_path))
        if "/" not in name_or_path and not os.path.exists(name_or_path):
            raise ValueError(f"expected a file, or one of {', '.join(spec.shipped())}")
        text = given.text(name_or_path, spec.LARGEST)
        try:
            return cls.load(text)
        except ValueError as error:
            problem = Problem(name_or_path, 0, 0, (), "", "", wording=str(error))
            raise Invalid([problem]) from None

    def copy(self) -> SimHost:
        """Return a host that goes its own way from here."""
        return SimHost(self.kernel.copy(), self.pace)

    def key(self) -> tuple[Any, ...]:
        """Return a hashable value, equal for hosts whose kernels behave the same."""
        return self.kernel.state.key(self.kernel.spec.settle)

    def state_text(self) -> str:
        """Return description and state as JSON text that ``restore`` takes."""
        whole = {
            "version": STATE_VERSION,
            "host": json.loads(spec.dump(self.kernel.spec)),
            "state": self.kernel.state.to_json(),
        }
        return json.dumps(whole) + "\n"

    @classmethod
    def restore(cls, text: str) -> SimHost:
        """Return the host whose state was kept as text. Raises ValueError."""
        try:
            whole = json.loads(text, parse_int=_number(int), parse_float=_number(float))
        except RecursionError:
            raise ValueError("host state: nested too deeply") from None
        if not isinstance(whole, dict) or whole.get("version") != STATE_VERSION:
            raise ValueError(f"host state: expected version {STATE_VERSION}")
        if set(whole) != {"version", "host", "state"}:
            raise ValueError(f"host state: expected version, host and state, found {set(whole)}")
        description = spec.parse(json.dumps(whole["host"]))
        state = State.from_json(whole["state"])
        # whoever held the lock was another process
        state.holder = ""
        booted = cls.of(description)
        if state.shape() != booted.kernel.state.shape():
            raise ValueError("host state: it is not of the host that it describes")
        if not blocks.fit(description, state):
            raise ValueError("host state: it has other memory blocks than its host")
        _check_clock_and_providers(booted.kernel.layout, state)
        return cls(Kernel(description, booted.kernel.layout, state))

    # the simulation's own side

    @property
    def harm(self) -> list[Harm]:
        """What unsafe writes did to the host, ever."""
        return self.kernel.state.harm

    @property
    def down(self) -> str:
        """Why the host is down, empty while it is up."""
        return self.kernel.state.down

    @property
    def files(self) -> dict[str, str]:
        """Own files that were kept."""
        return self.kernel.state.files

    def inject(self, fault: AnyFault) -> None:
        """Let a fault wait from now on."""
        if isinstance(fault, Crash | FullDisk):
            # both count operations, from now on
            start = self.kernel.state.operations if isinstance(fault, Crash) else 0
            self.kernel.arm(fault)
            last = self.kernel.state.faults[-1]._replace(spent=float(start))
            self.kernel.state.faults = (*self.kernel.state.faults[:-1], last)
            return
        self.kernel.arm(fault)

    def heal(self, kind: str) -> None:
        """Take all faults of a kind away."""
        state = self.kernel.state
        for armed in state.faults:
            if isinstance(armed.fault, LateDevice) and kind == "late-device":
                number = idxd.index_of(armed.fault.device)
                idxd.set_present(self.kernel, number, present=True)
            if isinstance(armed.fault, LateMemory) and kind == "late-memory":
                blocks.arrive(self.kernel, armed.fault.node, there=True)
        state.faults = tuple(a for a in state.faults if a.fault.kind != kind)
        if kind == "pressure":
            pressure.end(self.kernel)
        if kind in ("hung-write", "hung-command"):
            state.hung = frozenset()

    def poke(self, path: str, text: str) -> None:
        """Write as somebody else would: no fault but the kernel's own refusal meets it."""
        self.kernel.check_up()
        self.kernel.write(path, text, origin="other")

    def advance(self, seconds: float) -> None:
        """Let time pass without waiting for it. Raises HostDown."""
        self.kernel.check_up()
        self.kernel.advance(seconds)

    def reboot(self) -> None:
        """Boot again, also after the host went down."""
        self.kernel.reboot()

    def walk(self) -> Iterator[Node]:
        """Yield every folder, file and link of the tree."""
        return self.kernel.layout.walk(self.kernel)

    # faults that meet the port's own operations

    def _uses(self, match: Callable[[AnyFault], bool]) -> AnyFault | None:
        """Return the first fault that matches and still has a use, and count that use."""
        state = self.kernel.state
        for i, armed in enumerate(state.faults):
            times = getattr(armed.fault, "times", 0)
            if match(armed.fault) and (not times or armed.uses < times):
                used = armed._replace(uses=armed.uses + 1)
                state.faults = (*state.faults[:i], used, *state.faults[i + 1 :])
                return armed.fault
        return None

    def _mutate(self, act: Callable[[], T]) -> T:
        """Do one operation that changes something, unless the agent dies at it."""
        self.kernel.check_up()
        state = self.kernel.state
        number = state.operations
        state.operations += 1
        for i, armed in enumerate(state.faults):
            fault = armed.fault
            if isinstance(fault, Crash) and not armed.uses:
                if number - int(armed.spent) < fault.after:
                    continue
                done = armed._replace(uses=1)
                state.faults = (*state.faults[:i], done, *state.faults[i + 1 :])
                if fault.performed:
                    act()
                raise SimCrash(f"at operation {number + 1}")
        return act()

    def _hang(self, path: str, deadline: float) -> None:
        self.kernel.advance(deadline)
        if self.pace:
            time.sleep(deadline * self.pace)
        raise Hung(path, f"no answer within {deadline:g} s")

    # the port

    def read(self, path: str) -> str:
        """Return a file's text. Raises Missing, Rejected, HostDown."""
        self.kernel.check_up()
        kept = self.kernel.state.files.get(path)
        return self.kernel.read(path) if kept is None else kept

    def entries(self, path: str) -> tuple[str, ...]:
        """Return the sorted names in a directory; () where there is none."""
        self.kernel.check_up()
        return self.kernel.layout.entries(self.kernel, path)

    def link(self, path: str) -> str | None:
        """Return the target of a symbolic link as it is written, or None."""
        self.kernel.check_up()
        return self.kernel.layout.link(self.kernel, path)

    def others(self, path: str) -> str:
        """Say who else may write a file: a simulated host has no users."""
        return ""

    def write(self, path: str, text: str, deadline: float) -> None:
        """Write to a kernel file. Raises Missing, Rejected, Hung, HostDown, SimCrash."""
        self._mutate(lambda: self._write(path, text, deadline))

    def _write(self, path: str, text: str, deadline: float) -> None:
        kernel = self.kernel
        if path in kernel.state.hung:
            # the write before still holds the kernel's lock
            self._hang(path, deadline)
        if kernel.layout.file(kernel, path) is None:
            raise Missing(path, "no such file")
        rejected = self._uses(lambda f: isinstance(f, RejectedWrite) and f.path == path)
        if isinstance(rejected, RejectedWrite):
            number: int = getattr(errnos, rejected.errno)
            raise Rejected(path, number, os.strerror(number))
        hung = self._uses(lambda f: isinstance(f, HungWrite) and f.path == path)
        if isinstance(hung, HungWrite):
            kernel.state.hung |= {path}
            if hung.performed:
                kernel.write(path, text)
            self._hang(path, deadline)
        kernel.write(path, text)
        for armed in kernel.state.faults:
            if isinstance(armed.fault, LostLog) and armed.fault.with_write == path:
                events.lose_log(kernel)

    def run(self, argv: tuple[str, ...], deadline: float) -> Ran:
        """Run a command. Raises Missing, Hung, HostDown, SimCrash."""
        return self._mutate(lambda: self._run(argv, deadline))

    def _run(self, argv: tuple[str, ...], deadline: float) -> Ran:
        kernel, name = self.kernel, PurePosixPath(argv[0]).name
        tools: dict[str, Callable[[Kernel, tuple[str, ...]], Ran]] = {}
        if kernel.spec.accel_config is not None:
            tools["accel-config"] = accel.run
        if kernel.spec.swap_tools:
            tools |= {"swapon": memory.swapon, "swapoff": memory.swapoff}
        if name not in tools:
            raise Missing(name, "no such command")
        words = " ".join(argv)
        hung = self._uses(lambda f: isinstance(f, HungCommand) and f.words in words)
        result: list[Ran] = []

        def act() -> None:
            result.append(tools[name](kernel, argv))

        if isinstance(hung, HungCommand):
            if hung.performed:
                kernel.change(words, "agent", act)
            self._hang(name, deadline)
        kernel.change(words, "agent", act)
        return result[0]

    def resolve(self, path: str) -> str:
        """Return the path under which a command finds ``path``: the same."""
        return path

    def log_mark(self) -> int:
        """Return a mark behind the newest kernel log line."""
        self.kernel.check_up()
        state = self.kernel.state
        return state.log_first + len(state.log)

    def log_since(self, mark: int) -> LogTail:
        """Return the kernel log's lines since ``mark``."""
        self.kernel.check_up()
        state = self.kernel.state
        lines = tuple(state.log[max(0, mark - state.log_first) :])
        return LogTail(lines, complete=mark >= state.log_first)

    def hostname(self) -> str:
        """Return the host's name."""
        return self.kernel.spec.hostname

    def wall(self) -> float:
        """Return seconds since the epoch; may jump."""
        return self.kernel.state.wall + self.kernel.state.now

    def monotonic(self) -> float:
        """Return seconds since the host booted."""
        return self.kernel.state.now

    def sleep(self, seconds: float) -> None:
        """Let ``seconds`` of the host's clock pass. Raises HostDown."""
        if self.pace:
            time.sleep(seconds * self.pace)
        self.advance(seconds)

    def keep(self, path: str, text: str, mode: int = 0o600) -> None:
        """Replace one of dsatier's own files: all of it or nothing. Raises Rejected, SimCrash."""
        del mode  # nobody else is there to read it
        self._mutate(lambda: self._keep(path, text))

    def _keep(self, path: str, text: str) -> None:
        self._room(path)
        self.kernel.state.files[path] = text

    def note(self, path: str, text: str) -> None:
        """Note a text in place. Raises Rejected, ValueError, SimCrash."""
        step_log.slot(0, text.encode())  # it must be short enough
        self._mutate(lambda: self._note(path, text.rstrip()))

    def _note(self, path: str, text: str) -> None:
        self._room(path, needed=path not in self.kernel.state.files)
        self.kernel.state.files[path] = text

    def noted(self, path: str) -> str | None:
        """Return the newest note in a file, None where there is none."""
        self.kernel.check_up()
        return self.kernel.state.files.get(path)

    def drop(self, path: str) -> None:
        """Remove one of dsatier's own files if it is there. Raises Rejected, SimCrash."""
        self._mutate(lambda: self._drop(path))

    def _drop(self, path: str) -> None:
        if path in self.kernel.state.files:
            self._room(path, needed=False)
            del self.kernel.state.files[path]

    def _room(self, path: str, *, needed: bool = True) -> None:
        """Raise Rejected where nothing can be kept. A full disk still lets go of files."""
        if path.startswith(KERNEL_FOLDERS):
            raise Rejected(path, errnos.EPERM, os.strerror(errnos.EPERM))
        state = self.kernel.state
        for i, armed in enumerate(state.faults):
            fault = armed.fault
            in_memory = path.startswith("/run/")
            if not isinstance(fault, FullDisk) or in_memory != (fault.folder == "/run/"):
                continue
            if not needed and fault.errno == "ENOSPC":
                continue
            count = armed.uses + 1
            state.faults = (
                *state.faults[:i],
                armed._replace(uses=count),
                *state.faults[i + 1 :],
            )
            if count > fault.keeps and (not fault.times or count <= fault.keeps + fault.times):
                number: int = getattr(errnos, fault.errno)
                raise Rejected(path, number, os.strerror(number))

    @contextmanager
    def lock(self, path: str, holder: str) -> Iterator[None]:
        """Hold the one lock of the host's writers. Raises Locked at once if it is held."""
        self.kernel.check_up()
        state = self.kernel.state
        if state.holder:
            raise Locked(path, state.holder, state.holder)
        state.holder = holder
        try:
            yield
        finally:
            # of this state: after a reboot there is another, without the lock
            state.holder = ""

    def boot_id(self) -> str:
        """Return the id of this boot."""
        return machine.boot_id(self.kernel)


def _number(kind: Callable[[str], float]) -> Callable[[str], float]:
    """Return what reads a number of a kept state. It raises ValueError for what none can be."""

    def read(text: str) -> float:
        value = kind(text)
        if not abs(value) < _BEYOND:
            raise ValueError(f"host state: expected numbers below 2^63, found {text[:40]}")
        return value

    return read


def _check_clock_and_providers(layout: Layout, state: State) -> None:
    """Raise ValueError where a kept state has a time or a provider that no state can have."""
    if not 0 <= state.wall <= spec.LAST_SECOND:
        raise ValueError(f"host state: wall: expected a second before year 10000: {state.wall}")
    if odd := set(state.iommu) - set(iommu.TYPES):
        raise ValueError(f"host state: iommu: expected a type, found {min(odd)!r}")
    others = {other.pci for other in layout.spec.other_dma}
    devices = dict(enumerate(layout.pci))
    queues = {f"wq{i}.{n}" for i, one in enumerate(state.devices) for n in range(len(one.queues))}
    for provider in state.dma:
        if provider.pci not in (others if provider.device < 0 else {devices.get(provider.device)}):
            raise ValueError(f"host state: dma: expected a device, found {provider.pci!r}")
        for channel in provider.chans:
            if channel.queue and channel.queue not in queues:
                raise ValueError(f"host state: dma: expected a queue, found {channel.queue!r}")


def _is_host(host: SimHost) -> Host:
    """Held by the type checker: SimHost implements the port."""
    return host
