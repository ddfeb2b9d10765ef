# SPDX-License-Identifier: Apache-2.0
"""A QEMU machine with no guest in it: its CPUs stand still, and a test plays the guest.

QEMU's *qtest* accelerator takes orders over a socket: read and write memory and ports as a CPU
would, move the virtual clock. QMP is the monitor beside it. A machine ends with its ``with``
block, and a machine that ended otherwise fails the test::

    with Machine(binary, "-device", "edu,addr=5.0") as machine:
        device = machine.pci(5)
        device.enable()
        assert 0x010000ED == machine.read32(device.bar(0))
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

#: Seconds that an order may take; a build with sanitizers on a busy machine is slow.
PATIENCE = 120.0

#: Where q35 shows the configuration space of PCI devices, once told so: 1 MiB a bus.
ECAM = 0xB000_0000
#: BARs are given out from here on, below the I/O APIC.
BARS = 0xC000_0000
_LOCAL_APIC = 0xFEE0_0000

_CONFIG_ADDRESS, _CONFIG_DATA = 0xCF8, 0xCFC
_PCIEXBAR = 0x60  # of q35's host bridge


class QemuError(Exception):
    """An order was refused, or QEMU is gone; with what it said."""


class Lines:
    """A socket that carries lines of text."""

    def __init__(self, link: socket.socket) -> None:
        link.settimeout(PATIENCE)
        self._link = link
        self._rest = b""

    def send(self, line: str) -> None:
        """Send one line."""
        self._link.sendall(line.encode() + b"\n")

    def receive(self) -> str:
        """Return the next line; raises ``EOFError`` at the end, ``TimeoutError`` if none comes."""
        while b"\n" not in self._rest:
            more = self._link.recv(1 << 20)
            if not more:
                raise EOFError
            self._rest += more
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode()

    def pending(self) -> bool:
        """Say whether there is something to receive."""
        return b"\n" in self._rest or bool(select.select([self._link], [], [], 0)[0])

    def close(self) -> None:
        """Close the socket."""
        self._link.close()


class Machine:
    """A q35 machine under ``-accel qtest``.

    ``words`` are further words of the command line, ``memory`` is in MiB (up to 2048: all of it
    lies from address 0 on), ``program`` are words before QEMU's own, such as a debugger.
    """

    def __init__(
        self,
        binary: str,
        *words: str,
        memory: int = 256,
        machine: str = "q35",
        program: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.memory = memory << 20
        self.events: list[dict[str, Any]] = []
        self._next_bar = BARS
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by close()
        ours, theirs = zip(*(socket.socketpair() for _ in range(2)), strict=True)
        fds = [link.fileno() for link in theirs]
        self._process = subprocess.Popen(
            [
                *program, binary, "-nodefaults", "-no-user-config", "-display", "none",
                "-machine", f"{machine},usb=off,sata=off", "-m", str(memory), "-accel", "qtest",
                "-chardev", f"socket,id=qtest,fd={fds[0]}", "-qtest", "chardev:qtest",
                "-qtest-log", "none",
                "-chardev", f"socket,id=qmp,fd={fds[1]}", "-mon", "chardev=qmp,mode=control",
                *words,
            ],
            stdin=subprocess.DEVNULL, stdout=self._stderr, stderr=self._stderr, pass_fds=fds,
            env={**os.environ, **(environment or {})},
        )  # fmt: skip
        for link in theirs:
            link.close()
        self._qtest, self._qmp = (Lines(link) for link in ours)
        try:
            self._hear()  # the greeting
            self.qmp("qmp_capabilities")
            self.show_configuration()
        except BaseException:
            self.close(kill=True)
            raise

    # -- life ------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.close(kill=kind is not None)

    def close(self, *, kill: bool = False) -> None:
        """End QEMU; raises ``QemuError`` if it ended badly, unless it is to be killed."""
        if self._stderr.closed:
            return
        try:
            if not kill:
                with contextlib.suppress(QemuError):
                    self.qmp("quit")
                try:
                    code = self._process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    code = None
                if code != 0:
                    raise self._gone(f"ended with {code}" if code is not None else "does not end")
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._qtest.close()
            self._qmp.close()
            self._stderr.close()

    def alive(self) -> bool:
        """Say whether QEMU still runs."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """QEMU's process."""
        return self._process.pid

    def said(self) -> str:
        """Return what QEMU has written to its standard error until now."""
        self._stderr.seek(0)
        return self._stderr.read()

    def _gone(self, what: str) -> QemuError:
        return QemuError(f"QEMU {what}; it wrote: {self.said().strip() or 'nothing'}")

    # -- QMP -------------------------------------------------------------------

    def qmp(self, command: str, /, **arguments: Any) -> Any:
        """Execute a QMP command; ``_`` in the names of arguments stands for ``-``."""
        words = {name.replace("_", "-"): value for name, value in arguments.items()}
        try:
            self._qmp.send(json.dumps({"execute": command, "arguments": words}))
            while True:
                answer = self._hear()
                if "event" in answer:
                    self.events.append(answer)
                elif "error" in answer:
                    raise QemuError(f"{command} {words}: {answer['error']['desc']}")
                elif "return" in answer:
                    return answer["return"]
        except BrokenPipeError as error:
            raise self._gone(f"is gone at {command}") from error

    def poll_events(self) -> list[dict[str, Any]]:
        """Return all events until now."""
        while self._qmp.pending():
            self.events.append(self._hear())
        return self.events

    def _hear(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self._qmp.receive())
        except (EOFError, OSError) as error:
            raise self._gone(f"does not answer on its monitor ({error!r})") from error
        return found

    def get(self, path: str, name: str) -> Any:
        """Return a QOM property."""
        return self.qmp("qom-get", path=path, property=name)

    def set(self, path: str, name: str, value: Any) -> None:
        """Set a QOM property."""
        self.qmp("qom-set", path=path, property=name, value=value)

    # -- memory and ports ------------------------------------------------------

    def order(self, *words: object) -> list[str]:
        """Give an order of the qtest protocol; returns the words of its answer after ``OK``."""
        line = " ".join(str(word) for word in words)
        try:
            self._qtest.send(line)
            while True:
                answer = self._qtest.receive().split()
                if answer[:1] != ["IRQ"]:
                    break
        except (EOFError, OSError) as error:
            raise self._gone(f"does not answer {line[:80]!r} ({error!r})") from error
        if answer[:1] != ["OK"]:
            raise QemuError(f"{line[:80]!r}: {' '.join(answer)}")
        return answer[1:]

    def read(self, address: int, length: int) -> bytes:
        """Return guest memory; what is not there reads as it does for a CPU."""
        if not length:
            return b""
        return base64.b64decode(self.order("b64read", hex(address), hex(length))[0])

    def write(self, address: int, data: bytes) -> None:
        """Write guest memory, in accesses of QEMU's choice: for registers see ``write32``."""
        if data:
            text = base64.b64encode(data).decode()
            self.order("b64write", hex(address), hex(len(data)), text)

    def write_block(self, address: int, data: bytes) -> None:
        """Write 64 bytes in one access, as MOVDIR64B does."""
        assert (len(data), address % 64) == (64, 0)
        self.order("write", hex(address), "0x40", f"0x{data.hex()}")

    def clear(self, address: int, length: int, byte: int = 0) -> None:
        """Fill guest memory with one byte."""
        self.order("memset", hex(address), hex(length), hex(byte))

    def read8(self, address: int) -> int:
        """Read one byte, in one access."""
        return int(self.order("readb", hex(address))[0], 16)

    def read16(self, address: int) -> int:
        """Read two bytes, in one access."""
        return int(self.order("readw", hex(address))[0], 16)

    def read32(self, address: int) -> int:
        """Read four bytes, in one access."""
        return int(self.order("readl", hex(address))[0], 16)

    def read64(self, address: int) -> int:
        """Read eight bytes, in one access."""
        return int(self.order("readq", hex(address))[0], 16)

    def write8(self, address: int, value: int) -> None:
        """Write one byte, in one access."""
        self.order("writeb", hex(address), hex(value))

    def write16(self, address: int, value: int) -> None:
        """Write two bytes, in one access."""
        self.order("writew", hex(address), hex(value))

    def write32(self, address: int, value: int) -> None:
        """Write four bytes, in one access."""
        self.order("writel", hex(address), hex(value))

    def write64(self, address: int, value: int) -> None:
        """Write eight bytes, in one access."""
        self.order("writeq", hex(address), hex(value))

    # -- time ------------------------------------------------------------------

    def step(self, nanoseconds: int | None = None) -> int:
        """Move the virtual clock on, by default to its next timer; returns what it reads, in ns."""
        words = () if nanoseconds is None else (nanoseconds,)
        return int(self.order("clock_step", *words)[0])

    def until(self, what: str, met: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait, in real time, for something that QEMU's threads do; ``what`` is for the error."""
        end = time.monotonic() + seconds
        pause = 0.0002
        while not met():
            if time.monotonic() > end:
                raise TimeoutError(f"not within {seconds:g} s: {what}")
            time.sleep(pause)
            pause = min(pause * 1.5, 0.02)

    # -- PCI -------------------------------------------------------------------

    def show_configuration(self) -> None:
        """Show the configuration space in memory, as firmware would; again after a reset."""
        for offset, value in ((_PCIEXBAR + 4, 0), (_PCIEXBAR, ECAM | 1)):
            self.order("outl", hex(_CONFIG_ADDRESS), hex(0x8000_0000 | offset))
            self.order("outl", hex(_CONFIG_DATA), hex(value))

    def pci(self, slot: int, function: int = 0, bus: int = 0) -> Pci:
        """Return a PCI device; it must be there."""
        device = Pci(self, bus, slot, function)
        if device.vendor == 0xFFFF:
            raise QemuError(f"no PCI device at {bus:02x}:{slot:02x}.{function}")
        return device

    def take_bar(self, size: int) -> int:
        """Return an address for a BAR of a size."""
        address = -(-self._next_bar // size) * size
        self._next_bar = address + size
        assert self._next_bar < _LOCAL_APIC, "no room for BARs"
        return address


class Pci:
    """A device by its configuration space."""

    COMMAND, STATUS, BAR0, CAPABILITIES = 0x04, 0x06, 0x10, 0x34
    MEMORY, MASTER = 0x2, 0x4
    MSIX, EXPRESS = 0x11, 0x10
    EXTENDED = 0x100

    def __init__(self, machine: Machine, bus: int, slot: int, function: int) -> None:
        self.machine = machine
        self.bus, self.slot, self.function = bus, slot, function
        self.config = ECAM + (bus << 20) + (slot << 15) + (function << 12)
        self._bars: dict[int, int] = {}
        self.vendor, self.device = self.get16(0), self.get16(2)

    def get8(self, offset: int) -> int:
        """Read a byte of the configuration space."""
        return self.machine.read8(self.config + offset)

    def get16(self, offset: int) -> int:
        """Read two bytes of the configuration space."""
        return self.machine.read16(self.config + offset)

    def get32(self, offset: int) -> int:
        """Read four bytes of the configuration space."""
        return self.machine.read32(self.config + offset)

    def set16(self, offset: int, value: int) -> None:
        """Write two bytes of the configuration space."""
        self.machine.write16(self.config + offset, value)

    def set32(self, offset: int, value: int) -> None:
        """Write four bytes of the configuration space."""
        self.machine.write32(self.config + offset, value)

    def bar(self, number: int) -> int:
        """Return the address of a memory BAR, which is given one at the first call."""
        if number not in self._bars:
            self._bars[number] = self.machine.take_bar(self.bar_size(number))
            self._place(number)
        return self._bars[number]

    def bar_size(self, number: int) -> int:
        """Return the size of a memory BAR in bytes."""
        at = self.BAR0 + 4 * number
        before = self.get32(at)
        self.set32(at, 0xFFFF_FFFF)
        mask = self.get32(at) & ~0xF
        self.set32(at, before)
        if not mask:
            raise QemuError(f"device {self.vendor:04x}:{self.device:04x} has no BAR {number}")
        return (~mask & 0xFFFF_FFFF) + 1

    def _place(self, number: int) -> None:
        at = self.BAR0 + 4 * number
        wide = self.get32(at) & 0x6 == 0x4
        self.set32(at, self._bars[number])
        if wide:
            self.set32(at + 4, 0)

    def enable(self) -> None:
        """Let the device answer at its BARs and reach memory; also after a reset."""
        for number in self._bars:
            self._place(number)
        self.set16(self.COMMAND, self.MEMORY | self.MASTER)

    def disable(self) -> None:
        """Turn memory access off, both ways."""
        self.set16(self.COMMAND, 0)

    def capability(self, wanted: int) -> int | None:
        """Return the offset of a capability, None if it has none of this kind."""
        at = self.get8(self.CAPABILITIES) if self.get16(self.STATUS) & 0x10 else 0
        while at not in (0, 0xFF):  # all ones: the device is gone from the bus
            if self.get8(at) == wanted:
                return at
            at = self.get8(at + 1)
        return None

    def extended(self, wanted: int) -> int | None:
        """Return the offset of an extended capability, None if it has none of this kind."""
        at = self.EXTENDED
        while at:
            head = self.get32(at)
            if head in (0, 0xFFFF_FFFF):
                return None
            if head & 0xFFFF == wanted:
                return at
            at = head >> 20
        return None

    def reset(self) -> None:
        """Ask for a function-level reset."""
        at = self.capability(self.EXPRESS)
        assert at is not None, "no PCI Express capability"
        self.set16(at + 8, self.get16(at + 8) | 0x8000)
