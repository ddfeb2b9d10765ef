# SPDX-License-Identifier: Apache-2.0
"""Plays cases on a machine, and judges it: it lives, answers, and the device comes back."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from tests.emulator.descriptors import Descriptor, Opcode
from tests.emulator.dsa import SLOT, Command, Dsa, Queue, Register, State
from tests.emulator.fuzz.orders import ARENA, ARENA_END, Case, Order
from tests.emulator.iommu import WORDS, Iommu
from tests.emulator.qtest import Machine, QemuError


class Setup(NamedTuple):
    """A device's properties, and how an IOMMU stands before it at first; "" for none."""

    device: str
    iommu: str = ""


SETUPS = (
    Setup(""),
    Setup("version=2.0,queues=5,engines=2,groups=3,entries=64"),
    Setup("timing=on,pasid=on"),
    Setup("version=2.0,int-handles=on,engines=8", "translated"),
    Setup("", "passthrough"),
    Setup("timing=on", "translated"),
)
#: What a sanitizer, or QEMU itself, writes where something is wrong inside of QEMU.
COMPLAINTS = re.compile(
    r"runtime error:|ERROR: \w+Sanitizer|Assertion .* failed|^ERROR:", re.MULTILINE
)
#: Seconds within which a device that was reset works, on a busy machine and with sanitizers.
PATIENCE = 300.0
#: Options of the sanitizers: leaks are QEMU's own affair, it frees little at its end.
ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


class Found(Exception):
    """A case made QEMU do what it must not."""


class Bench:
    """A machine with one device, and what orders do to it."""

    def __init__(self, machine: Machine, iommu: str = "") -> None:
        self.machine = machine
        self.dsa = Dsa.at(machine, SLOT)
        self.mode = iommu
        self.iommu = Iommu(machine) if iommu else None
        self._translate(self.mode)

    def play(self, orders: Sequence[Order]) -> None:
        """Give all orders, then judge; raises ``Found``."""
        try:
            for order in orders:
                self.give(order)
            self.judge()
        except (QemuError, TimeoutError, AssertionError) as wrong:
            raise Found(f"{wrong or 'an assertion'}\n{self.machine.said()[-6000:]}") from wrong

    def give(self, order: Order) -> None:
        """Give one order."""
        verb, *words = order
        text = [str(word) for word in words]
        numbers = [word for word in words if isinstance(word, int)]
        machine, dsa = self.machine, self.dsa
        if verb == "submit":
            at = dsa.portals + numbers[0] % 8 * 0x4000 + numbers[1] * 0x1000
            machine.write_block(at, bytes.fromhex(text[2]))
        elif verb == "memory":
            machine.write(numbers[0], bytes.fromhex(text[1]))
        elif verb == "register":
            size, offset, value = numbers
            writes = {1: machine.write8, 2: machine.write16, 4: machine.write32, 8: machine.write64}
            writes[size](dsa.regs + offset, value)
        elif verb == "look":
            size, offset = numbers
            reads = {1: machine.read8, 2: machine.read16, 4: machine.read32, 8: machine.read64}
            reads[size](dsa.regs + offset)
        elif verb == "command":
            dsa.begin(numbers[0], numbers[1])
        elif verb == "configuration":
            size, offset, value = numbers
            at = dsa.pci.config + offset
            {1: machine.write8, 2: machine.write16, 4: machine.write32}[size](at, value)
        elif verb == "start":
            self._start(*numbers)
        else:
            self._rare(str(verb), text, numbers)

    def _rare(self, verb: str, text: list[str], numbers: list[int]) -> None:
        machine, dsa = self.machine, self.dsa
        if verb == "faults":
            self._tolerant(lambda: dsa.faults(text[0]))
        elif verb == "halt":
            self._tolerant(lambda: machine.set(dsa.path, "halt", text[0]))
        elif verb == "release":
            self._tolerant(lambda: machine.set(dsa.path, "release", True))
        elif verb == "step":
            machine.step(*numbers)
        elif verb in ("stop", "cont"):
            machine.qmp(verb)
        elif verb == "flr":
            dsa.pci.reset()
        elif verb == "reset":
            self._revive(whole=True)
        elif verb == "save":
            self._save()
        elif verb == "interrupts":
            if dsa.pci.capability(dsa.pci.MSIX) and dsa.pci.get16(0) != 0xFFFF:
                dsa.take_interrupts()
        elif self.iommu is None and verb in ("map", "flush", "translate"):
            pass
        elif self.iommu is not None and verb == "map":
            self.iommu.map(*numbers)
        elif self.iommu is not None and verb == "flush":
            self.iommu.flush()
        elif self.iommu is not None and verb == "translate":
            self._translate(text[0])
        else:
            raise ValueError(f"no order {verb}")

    def _translate(self, mode: str) -> None:
        """Have the IOMMU, if there is one, begin anew: all memory is its own, with some holes."""
        if self.iommu is None:
            return
        self.iommu.disable()
        self.iommu.forget()
        if mode == "off":
            return
        self.iommu.identity(0, ARENA_END)
        for page in range(ARENA, ARENA_END, 97 * 4096):
            self.iommu.map(page, page, page // 4096 % 3)
        self.iommu.take(self.dsa.pci, passthrough=mode == "passthrough")
        self.iommu.enable()

    def _tolerant(self, act: Callable[[], None]) -> None:
        """Let the monitor refuse something, as long as QEMU lives."""
        try:
            act()
        except QemuError:
            if not self.machine.alive():
                raise

    def _save(self) -> None:
        """Write the state of the machine to nowhere, and go on."""
        machine = self.machine
        machine.qmp("migrate", uri="exec:cat >/dev/null")
        done = ("completed", "failed", "cancelled")
        machine.until(
            "the state to be saved",
            lambda: machine.qmp("query-migrate").get("status") in done,
            PATIENCE,
        )
        machine.qmp("cont")

    def _start(self, queues: int, engines: int, shared: int) -> None:
        """Configure and enable what the device has, without a look at the answers."""
        dsa = self.dsa
        if dsa.get32(Register.GENSTS) & 3 == State.HALT:
            dsa.pci.reset()
        dsa.start_of_life()
        there = dsa.capabilities
        if not 0 < there.queues < 65 or not 0 < there.engines < 65:
            return  # a device that is gone from the bus, or was made unreadable
        self._command(Command.RESET_DEVICE)
        count = min(queues, there.queues)
        size = max(1, there.entries // count)
        engines = min(engines, there.engines)
        groups = min(count, engines, there.groups)  # each needs an engine
        wanted = [Queue(size=size, group=i % groups, dedicated=not shared) for i in range(count)]
        dsa.configure(wanted, [i % groups for i in range(engines)])
        self._command(Command.ENABLE_DEVICE)
        for number in range(count):
            self._command(Command.ENABLE_WQ, number)

    def _command(self, command: Command, operand: int = 0) -> None:
        """Give a command, and wait a little, for one that hangs is no finding."""
        self.dsa.begin(command, operand)
        for _ in range(50):
            if not self.dsa.active():
                break

    def _revive(self, *, whole: bool) -> None:
        """Reset the function or the machine, and give the device its addresses again."""
        machine, dsa = self.machine, self.dsa
        if whole:
            machine.qmp("system_reset")
            machine.until(
                "a reset", lambda: any(e["event"] == "RESET" for e in machine.poll_events())
            )
            machine.events.clear()
            machine.show_configuration()
            self._translate(self.mode)
        if dsa.pci.get16(0) == 0xFFFF:
            raise TimeoutError("the device is gone from the bus")
        if not whole:
            dsa.pci.reset()
        dsa.start_of_life()

    def judge(self) -> None:
        """Raise an error unless QEMU lives, is content, and the device works after a reset."""
        machine, dsa = self.machine, self.dsa
        self._tolerant(lambda: dsa.faults(""))
        self._tolerant(lambda: machine.set(dsa.path, "release", True))
        machine.step(10**9)
        self._translate(self.mode)
        self._revive(whole=False)
        if dsa.state() != State.DISABLED:
            raise TimeoutError(f"after a reset of the function the device is {dsa.state()!r}")
        dsa.start()
        at = dsa.post(Descriptor(Opcode.NOOP))
        for _ in range(2):
            machine.step(10**9)
        if dsa.wait(at, PATIENCE).status != 1:
            raise TimeoutError(f"after a reset a no-op ends with {dsa.record(at)}")
        dsa.pci.reset()
        complaint = COMPLAINTS.search(machine.said())
        if complaint:
            raise QemuError(complaint.group())


@contextmanager
def bench(binary: str, setup: Setup, words: tuple[str, ...] = ()) -> Iterator[Bench]:
    """A fresh machine with one device; it is killed at the end."""
    text = f"intel-dsa,id=dsa0,addr={SLOT:#x}"
    device = f"{text},{setup.device}" if setup.device else text
    before = WORDS if setup.iommu else ()
    machine = Machine(binary, *words, *before, "-device", device, environment=ENVIRONMENT)
    try:
        yield Bench(machine, setup.iommu)
    finally:
        machine.close(kill=True)


def fails(
    binary: str, setup: Setup, orders: Case, words: tuple[str, ...] = (), tries: int = 2
) -> str:
    """Return what goes wrong with a case on a fresh machine, empty if nothing does."""
    for _ in range(tries):
        with bench(binary, setup, words) as fresh:
            try:
                fresh.play(orders)
            except Found as found:
                return str(found)
    return ""
