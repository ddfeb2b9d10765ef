# SPDX-License-Identifier: Apache-2.0
"""A driver of the DSA for tests: no kernel, one order at a time, everything in view.

Names and places of registers are those of Linux's ``drivers/dma/idxd/registers.h``.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Any, NamedTuple, Self

from tests.emulator.descriptors import DESCRIPTOR, RECORD, Descriptor, Flag, Opcode, Record
from tests.emulator.qtest import Machine, Pci
from tests.emulator.reference import Limits

VENDOR, DEVICE = 0x8086, 0x0B25
#: Where the first device of a machine is; the next ones follow.
SLOT = 4

#: Guest memory that the driver itself uses: records, what interrupts write, descriptor lists.
RECORDS = 0x10_0000
RECORD_COUNT = 1024  # of each device
VECTORS = 0x18_0000
LISTS = 0x1C_0000
#: Guest memory from here on is the test's.
ARENA = 0x100_0000

_MSIX_DATA = 0xD5A0_0000


class Register(IntEnum):
    """Offsets in BAR 0."""

    VERSION = 0x00
    GENCAP = 0x10
    WQCAP = 0x20
    GRPCAP = 0x30
    ENGCAP = 0x38
    OPCAP = 0x40
    TABLES = 0x60
    GENCFG = 0x80
    GENCTRL = 0x88
    GENSTS = 0x90
    INTCAUSE = 0x98
    CMD = 0xA0
    CMDSTS = 0xA8
    CMDCAP = 0xB0
    SWERR = 0xC0
    EVLCFG = 0xE0
    EVLSTATUS = 0xF0


class Command(IntEnum):
    """Commands."""

    ENABLE_DEVICE = 1
    DISABLE_DEVICE = 2
    DRAIN_ALL = 3
    ABORT_ALL = 4
    RESET_DEVICE = 5
    ENABLE_WQ = 6
    DISABLE_WQ = 7
    DRAIN_WQ = 8
    ABORT_WQ = 9
    RESET_WQ = 10
    DRAIN_PASID = 11
    ABORT_PASID = 12
    REQUEST_HANDLE = 13
    RELEASE_HANDLE = 14


class Error(IntEnum):
    """How a command failed."""

    OK = 0x00
    BAD_CMD = 0x01
    BAD_WQ = 0x02
    HARDWARE = 0x03
    DEVICE_ENABLED = 0x10
    CONFIG = 0x11
    BUS_MASTER = 0x12
    PASID = 0x13
    TOTAL_SIZE = 0x14
    GROUP = 0x15
    DEVICE_NOT_ENABLED = 0x20
    WQ_ENABLED = 0x21
    WQ_SIZE = 0x22
    WQ_PRIORITY = 0x23
    WQ_MODE = 0x24
    WQ_BLOCK_ON_FAULT = 0x25
    WQ_PASID = 0x26
    WQ_BATCH = 0x27
    WQ_TRANSFER = 0x28
    DEVICE_IS_DISABLED = 0x31
    WQ_NOT_ENABLED = 0x32
    INT_INDEX = 0x41


class Cause(IntFlag):
    """Bits of INTCAUSE."""

    ERROR = 1 << 0
    COMMAND = 1 << 1
    OCCUPANCY = 1 << 2
    PERFMON = 1 << 3
    HALT = 1 << 4
    EVENT_LOG = 1 << 5
    REVOKED = 1 << 31


class State(IntEnum):
    """State of the device, and of a queue as far as it goes."""

    DISABLED = 0
    ENABLED = 1
    DRAIN = 2
    HALT = 3


@dataclass(frozen=True)
class Queue:
    """How a work queue is to be."""

    size: int = 16  # entries
    group: int | None = 0
    dedicated: bool = True
    threshold: int = 0
    priority: int = 10
    block_on_fault: bool = False
    max_transfer: int | None = None  # log2 of bytes; None: all that the device can
    max_batch: int | None = None  # log2 of descriptors
    opcodes: int | None = None  # a mask of 256 bits

    def encode(self, capabilities: Capabilities) -> bytes:
        """Return the queue's configuration as it stands in the table."""
        transfer = self.max_transfer if self.max_transfer is not None else capabilities.transfer
        batch = self.max_batch if self.max_batch is not None else capabilities.batch
        opcodes = self.opcodes if self.opcodes is not None else capabilities.opcodes
        return struct.pack(
            "<IIIIIIII32s",
            self.size,
            self.threshold,
            self.dedicated | self.block_on_fault << 1 | self.priority << 4,
            transfer | batch << 5,
            0,
            0,
            0,
            0,
            opcodes.to_bytes(32, "little"),
        )


class Capabilities(NamedTuple):
    """What the device says that it can."""

    version: int
    gencap: int
    wqcap: int
    grpcap: int
    engcap: int
    opcodes: int
    cmdcap: int

    @property
    def transfer(self) -> int:
        """Log2 of the largest transfer in bytes."""
        return self.gencap >> 16 & 0x1F

    @property
    def batch(self) -> int:
        """Log2 of the largest batch."""
        return self.gencap >> 21 & 0xF

    @property
    def event_log(self) -> bool:
        """Whether errors go to an event log."""
        return bool(self.gencap >> 13 & 3)

    @property
    def entries(self) -> int:
        """Entries of all queues together."""
        return self.wqcap & 0xFFFF

    @property
    def queues(self) -> int:
        """Number of work queues."""
        return self.wqcap >> 16 & 0xFF

    @property
    def queue_stride(self) -> int:
        """Bytes of a queue's configuration."""
        return 1 << 5 + (self.wqcap >> 24 & 0xF)

    @property
    def groups(self) -> int:
        """Number of groups."""
        return self.grpcap & 0xFF

    @property
    def engines(self) -> int:
        """Number of engines."""
        return self.engcap & 0xFF


class Outcome(NamedTuple):
    """How a command ended."""

    error: int
    result: int


class SoftwareError(NamedTuple):
    """The software error register."""

    valid: bool
    overflow: bool
    desc_valid: bool
    wq_valid: bool
    batch: bool
    write: bool
    error: int
    wq: int
    operation: int
    batch_index: int
    invalid_flags: int
    address: int

    @classmethod
    def decode(cls, words: Sequence[int]) -> Self:
        """Return the register's four quad words as fields."""
        first, second, third, _ = words
        valid, overflow, desc_valid, wq_valid, in_batch, write = (
            bool(first >> bit & 1) for bit in range(6)
        )
        return cls(
            valid=valid,
            overflow=overflow,
            desc_valid=desc_valid,
            wq_valid=wq_valid,
            batch=in_batch,
            write=write,
            error=first >> 8 & 0xFF,
            wq=first >> 16 & 0xFF,
            operation=first >> 32 & 0xFF,
            batch_index=second & 0xFFFF,
            invalid_flags=second >> 32,
            address=third,
        )


class Dsa:
    """One device. ``path`` is where QOM has it, for what only an emulated device has."""

    def __init__(self, pci: Pci, name: str = "dsa0") -> None:
        assert (pci.vendor, pci.device) == (VENDOR, DEVICE)
        self.pci, self.machine = pci, pci.machine
        self.path = f"/machine/peripheral/{name}"
        self.regs, self.portals = pci.bar(0), pci.bar(2)
        self.last_slot = 0
        self.start_of_life()

    @classmethod
    def at(cls, machine: Machine, slot: int, name: str = "dsa0") -> Self:
        """Return the device in a slot of the root bus."""
        return cls(machine.pci(slot), name)

    def start_of_life(self) -> None:
        """Find what the device is: first, and after a reset of the function."""
        self.pci.enable()
        self.capabilities = Capabilities(
            self.get32(Register.VERSION),
            self.get(Register.GENCAP),
            self.get(Register.WQCAP),
            self.get(Register.GRPCAP),
            self.get(Register.ENGCAP),
            sum(self.get(Register.OPCAP + 8 * i) << 64 * i for i in range(4)),
            self.get32(Register.CMDCAP),
        )
        tables = self.get(Register.TABLES)
        self.groups_at, self.queues_at, self.perms_at = (
            (tables >> shift & 0xFFFF) * 0x100 for shift in (0, 16, 32)
        )

    # -- registers -------------------------------------------------------------

    def get(self, offset: int) -> int:
        """Read a quad word of BAR 0."""
        return self.machine.read64(self.regs + offset)

    def get32(self, offset: int) -> int:
        """Read a double word of BAR 0."""
        return self.machine.read32(self.regs + offset)

    def put(self, offset: int, value: int) -> None:
        """Write a quad word of BAR 0."""
        self.machine.write64(self.regs + offset, value)

    def put32(self, offset: int, value: int) -> None:
        """Write a double word of BAR 0."""
        self.machine.write32(self.regs + offset, value)

    def state(self) -> State:
        """Return the device's state."""
        return State(self.get32(Register.GENSTS) & 3)

    def reset_type(self) -> int:
        """Return what it takes to leave the halt state: 0 software, 1 FLR."""
        return self.get32(Register.GENSTS) >> 2 & 3

    def causes(self, clear: bool = False) -> Cause:
        """Return why the device interrupted on vector 0."""
        causes = self.get32(Register.INTCAUSE)
        if clear:
            self.put32(Register.INTCAUSE, causes)
        return Cause(causes)

    def software_error(self, clear: bool = False) -> SoftwareError:
        """Return the software error register, and make room for the next if asked."""
        words = [self.get(Register.SWERR + 8 * i) for i in range(4)]
        if clear:
            self.put(Register.SWERR, 3)
        return SoftwareError.decode(words)

    def wq(self, queue: int, word: int) -> int:
        """Return a double word of a queue's configuration."""
        stride = self.capabilities.queue_stride
        return self.get32(self.queues_at + queue * stride + 4 * word)

    def wq_state(self, queue: int) -> int:
        """Return a queue's state: 0 disabled, 1 enabled."""
        return self.wq(queue, 6) >> 30

    def occupancy(self, queue: int) -> int:
        """Return how many descriptors wait in a queue."""
        return self.wq(queue, 6) & 0xFFFF

    # -- commands --------------------------------------------------------------

    def begin(self, command: int, operand: int = 0, interrupt: bool = False) -> None:
        """Write a command and do not wait for it."""
        self.put32(Register.CMD, operand | command << 20 | interrupt << 31)

    def active(self) -> bool:
        """Say whether a command is still being executed."""
        return bool(self.get32(Register.CMDSTS) >> 31)

    def outcome(self) -> Outcome:
        """Return how the last command ended."""
        status = self.get32(Register.CMDSTS)
        return Outcome(status & 0xFF, status >> 8 & 0xFFFF)

    def command(self, command: int, operand: int = 0, interrupt: bool = False) -> Outcome:
        """Execute a command."""
        self.begin(command, operand, interrupt)
        self.machine.until(f"command {command}", lambda: not self.active())
        return self.outcome()

    def order(self, command: int, operand: int = 0) -> None:
        """Execute a command that must succeed."""
        error, _ = self.command(command, operand)
        assert Error(error) == Error.OK, f"{Command(command).name} {operand:#x}: {error:#x}"

    # -- configuration ---------------------------------------------------------

    def configure(
        self, queues: Sequence[Queue] = (Queue(),), engines: Sequence[int | None] | None = None
    ) -> None:
        """Write the configuration of queues, and which group each engine is in.

        By default all engines are in group 0.
        """
        there = self.capabilities
        if engines is None:
            engines = [0] * there.engines
        for number in range(there.groups):
            members = sum(1 << i for i, queue in enumerate(queues) if queue.group == number)
            at = self.groups_at + 64 * number
            for word in range(4):
                self.put(at + 8 * word, members >> 64 * word & (1 << 64) - 1)
            self.put(at + 32, sum(1 << i for i, group in enumerate(engines) if group == number))
            self.put(at + 40, 0)
        for number in range(there.queues):
            queue = queues[number] if number < len(queues) else Queue(size=0, group=None)
            at = self.queues_at + there.queue_stride * number
            for word, (value,) in enumerate(struct.iter_unpack("<I", queue.encode(there))):
                if word != 6:  # the device's own: occupancy and state
                    self.put32(at + 4 * word, value)

    def start(
        self, queues: Sequence[Queue] = (Queue(),), engines: Sequence[int | None] | None = None
    ) -> None:
        """Configure and enable the device and all these queues."""
        self.configure(queues, engines)
        self.order(Command.ENABLE_DEVICE)
        for number in range(len(queues)):
            self.order(Command.ENABLE_WQ, number)

    def limits(self, queue: Queue | None = None) -> Limits:
        """Return what is in force for descriptors of a queue, for the model."""
        queue = queue or Queue()
        there = self.capabilities
        opcodes = there.opcodes & (queue.opcodes if queue.opcodes is not None else -1)
        return Limits(
            second=there.version >= 0x200,
            overlap=bool(there.gencap >> 1 & 1),
            cache_memory=bool(there.gencap >> 2 & 1),
            cache_flush=bool(there.gencap >> 3 & 1),
            readback=bool(there.gencap >> 8 & 1),
            drain_readback=bool(there.gencap >> 9 & 1),
            block_on_fault=bool(there.gencap & 1) and queue.block_on_fault,
            max_transfer=1
            << (there.transfer if queue.max_transfer is None else queue.max_transfer),
            max_batch=1 << (there.batch if queue.max_batch is None else queue.max_batch),
            handles=self.vector_count(),
            opcodes=frozenset(op for op in Opcode if opcodes >> op & 1),
        )

    # -- descriptors -----------------------------------------------------------

    def slot(self) -> int:
        """Return the address of a record that nobody else uses for a while, cleared."""
        self.last_slot = (self.last_slot + 1) % RECORD_COUNT
        address = RECORDS + ((self.pci.slot - SLOT) * RECORD_COUNT + self.last_slot) * RECORD
        self.machine.write(address, bytes(RECORD))
        return address

    def portal(self, queue: int, page: int = 0) -> int:
        """Return the address of a queue's portal: page 0 unlimited, 1 limited."""
        return self.portals + queue * 0x4000 + page * 0x1000

    def submit(self, descriptor: Descriptor, queue: int = 0, page: int = 0) -> None:
        """Hand a descriptor in, as MOVDIR64B does."""
        self.machine.write_block(self.portal(queue, page), descriptor.encode())

    def post(self, descriptor: Descriptor, queue: int = 0) -> int:
        """Hand a descriptor in with a record of its own; returns the record's address."""
        address = self.slot()
        self.submit(descriptor.but(completion=address), queue)
        return address

    def taken(self, *queues: int) -> None:
        """Wait until engines have taken all that was handed in: injected times begin then."""
        self.machine.until(
            "engines to take it", lambda: not any(map(self.occupancy, queues or [0]))
        )

    def record(self, address: int) -> Record:
        """Return a record as it is now."""
        return Record.decode(self.machine.read(address, RECORD))

    def wait(self, address: int, seconds: float = 20.0) -> Record:
        """Wait for a record."""
        self.machine.until(
            f"completion record at {address:#x}",
            lambda: self.machine.read8(address) != 0,
            seconds,
        )
        return self.record(address)

    def run(self, descriptor: Descriptor, queue: int = 0) -> Record:
        """Execute a descriptor and return its record."""
        assert descriptor.flags & Flag.RECORD_VALID
        return self.wait(self.post(descriptor, queue))

    def list(self, members: Sequence[Descriptor], at: int = LISTS) -> list[int]:
        """Write a list of descriptors, each with a record of its own; returns their addresses."""
        slots = [self.slot() for _ in members]
        raw = b"".join(
            desc.but(completion=slot).encode() for desc, slot in zip(members, slots, strict=True)
        )
        assert len(raw) == len(members) * DESCRIPTOR
        self.machine.write(at, raw)
        return slots

    # -- interrupts ------------------------------------------------------------

    def vector_count(self) -> int:
        """Return how many MSI-X vectors there are."""
        at = self.pci.capability(Pci.MSIX)
        assert at is not None
        return (self.pci.get16(at + 2) & 0x7FF) + 1

    def take_interrupts(self) -> None:
        """Let each vector write a word of guest memory, see ``interrupted``."""
        at = self.pci.capability(Pci.MSIX)
        assert at is not None
        table = self.regs + (self.pci.get32(at + 4) & ~7)
        assert self.pci.get32(at + 4) & 7 == 0, "the table is expected in BAR 0"
        for vector in range(self.vector_count()):
            entry = table + 16 * vector
            self.machine.write32(entry, VECTORS + 4 * vector)
            self.machine.write32(entry + 4, 0)
            self.machine.write32(entry + 8, _MSIX_DATA + vector)
            self.machine.write32(entry + 12, 0)
            self.machine.write32(VECTORS + 4 * vector, 0)
        self.pci.set16(at + 2, 0x8000)

    def interrupted(self, vector: int, clear: bool = True) -> bool:
        """Say whether a vector has been used since it was looked at last."""
        word = self.machine.read32(VECTORS + 4 * vector)
        assert word in (0, _MSIX_DATA + vector)
        if word and clear:
            self.machine.write32(VECTORS + 4 * vector, 0)
        return bool(word)

    def await_interrupt(self, vector: int) -> None:
        """Wait for an interrupt."""
        self.machine.until(f"interrupt {vector}", lambda: self.interrupted(vector))

    # -- what only an emulated device has ---------------------------------------

    def counters(self) -> dict[str, Any]:
        """Return what the device counted."""
        found: dict[str, Any] = self.machine.get(self.path, "counters")
        return found

    def faults(self, rules: str) -> None:
        """Have faults injected, by rules; none with an empty text."""
        self.machine.set(self.path, "faults", rules)
