# SPDX-License-Identifier: Apache-2.0
"""Descriptors and completion records of the DSA as bytes. Pure.

Layouts and numbers are those of Linux's ``include/uapi/linux/idxd.h``. All fields are little
endian, addresses are what the device sends (physical, or an IOMMU's input).
"""

from __future__ import annotations

import dataclasses
import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Self

DESCRIPTOR = 64  # bytes, and the alignment of a list of them
RECORD = 32  # bytes, and its alignment


class Opcode(IntEnum):
    """Operations."""

    NOOP = 0x00
    BATCH = 0x01
    DRAIN = 0x02
    MOVE = 0x03
    FILL = 0x04
    COMPARE = 0x05
    COMPARE_PATTERN = 0x06
    CREATE_DELTA = 0x07
    APPLY_DELTA = 0x08
    DUALCAST = 0x09
    TRANSLATION_FETCH = 0x0A
    CRC = 0x10
    COPY_CRC = 0x11
    DIF_CHECK = 0x12
    DIF_INSERT = 0x13
    DIF_STRIP = 0x14
    DIF_UPDATE = 0x15
    DIX_GENERATE = 0x17
    CACHE_FLUSH = 0x20


#: Operations that only a DSA 2.0 has.
SECOND = frozenset({Opcode.TRANSLATION_FETCH, Opcode.DIX_GENERATE})


class Flag(IntFlag):
    """Flags of a descriptor; bits 16 to 23 mean another thing for each operation."""

    FENCE = 1 << 0
    BLOCK_ON_FAULT = 1 << 1
    RECORD_VALID = 1 << 2
    RECORD = 1 << 3
    INTERRUPT = 1 << 4
    RECORD_STEER = 1 << 5
    CHECK_RESULT = 1 << 7
    CACHE_CONTROL = 1 << 8
    ADDR1_TC = 1 << 9
    ADDR2_TC = 1 << 10
    ADDR3_TC = 1 << 11
    RECORD_TC = 1 << 12
    STRICT_ORDER = 1 << 13
    READBACK = 1 << 14
    DEST_STEER = 1 << 15
    # single operations
    DRAIN_READBACK_1 = 1 << 16
    DRAIN_READBACK_2 = 1 << 17
    FILL_16 = 1 << 16
    CRC_READ_SEED = 1 << 16
    CRC_BYPASS_CRC = 1 << 17
    CRC_BYPASS_DATA = 1 << 18


#: What a caller who looks at the record asks for.
TOLD = Flag.RECORD_VALID | Flag.RECORD
NO_FLAGS = Flag(0)


class Status(IntEnum):
    """Status of a completion record, without the bit that says that a write faulted."""

    NONE = 0x00
    SUCCESS = 0x01
    PREDICATE = 0x02
    PAGE_FAULT = 0x03
    PAGE_FAULT_IR = 0x04
    BATCH_FAIL = 0x05
    BATCH_FAULT = 0x06
    DELTA_ORDER = 0x07
    DELTA_OFFSET = 0x08
    DIF_ERROR = 0x09
    BAD_OPCODE = 0x10
    BAD_FLAGS = 0x11
    RESERVED = 0x12
    SIZE = 0x13
    BATCH_COUNT = 0x14
    DELTA_SIZE = 0x15
    OVERLAP = 0x16
    DUALCAST_ALIGN = 0x17
    LIST_ALIGN = 0x18
    INT_HANDLE = 0x19
    RECORD_FAULT = 0x1A
    RECORD_ALIGN = 0x1B
    ADDR_ALIGN = 0x1C
    PRIVILEGE = 0x1D
    TRAFFIC_CLASS = 0x1E
    READBACK_FAULT = 0x1F
    HW_ERROR = 0x20
    HW_ERROR_DRAIN = 0x21
    TRANSLATION = 0x22


class Source(IntFlag):
    """How a DIF is checked: byte 40."""

    ALL_F_ERROR = 0x01
    ALL_F = 0x02
    APP_F = 0x04
    APP_REF_F = 0x08
    INC_APP = 0x10
    NO_GUARD = 0x20
    NO_REF = 0x40
    FIX_REF = 0x80


class Destination(IntFlag):
    """How a DIF is made: byte 41."""

    PASS_APP = 0x08
    INC_APP = 0x10
    PASS_GUARD = 0x20
    PASS_REF = 0x40
    FIX_REF = 0x80


class Dif(IntFlag):
    """How the guard is computed: byte 42, beside the size of the blocks."""

    INVERT_SEED = 0x04
    INVERT_RESULT = 0x08


#: Bytes of a block, by bits 0 and 1 of byte 42.
BLOCKS = (512, 520, 4096, 4104)


@dataclass(frozen=True)
class Descriptor:
    """One descriptor. ``op`` are bytes 40 to 63; what is missing there is 0."""

    opcode: int
    src: int = 0
    dst: int = 0
    size: int = 0
    op: bytes = b""
    flags: int = TOLD
    completion: int = 0
    handle: int = 0
    pasid: int = 0
    priv: bool = False
    rsvd0: int = 0  # bits 20 to 30 of the first double word
    rsvd1: int = 0  # bytes 38 and 39

    def encode(self) -> bytes:
        """Return the 64 bytes."""
        return struct.pack(
            "<IIQQQIHH24s",
            self.pasid | self.rsvd0 << 20 | self.priv << 31,
            self.flags | self.opcode << 24,
            self.completion,
            self.src,
            self.dst,
            self.size,
            self.handle,
            self.rsvd1,
            self.op,
        )

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Return the descriptor of 64 bytes.

        >>> raw = bytes(range(64))
        >>> Descriptor.decode(raw).encode() == raw
        True
        """
        who, what, completion, src, dst, size, handle, rsvd1, op = struct.unpack(
            "<IIQQQIHH24s", raw
        )
        return cls(
            what >> 24, src, dst, size, op, what & 0xFFFFFF, completion, handle,
            who & 0xFFFFF, bool(who >> 31), who >> 20 & 0x7FF, rsvd1,
        )  # fmt: skip

    def but(self, **changes: object) -> Self:
        """Return this descriptor with other values in some fields."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def word(self, at: int, length: int) -> int:
        """Return a field of ``op`` by its place in the descriptor, from 40 on."""
        return int.from_bytes(self.op.ljust(24, b"\0")[at - 40 : at - 40 + length], "little")


@dataclass(frozen=True)
class Record:
    """A completion record. ``op`` are bytes 16 to 31."""

    status: int
    result: int = 0
    fault_info: int = 0
    completed: int = 0
    fault_addr: int = 0
    op: bytes = bytes(16)

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Return the record of 32 bytes."""
        status, result, info, _, completed, fault_addr, op = struct.unpack("<BBBBIQ16s", raw)
        return cls(status, result, info, completed, fault_addr, op)

    @property
    def code(self) -> int:
        """The status without the bit for writes."""
        return self.status & 0x7F

    @property
    def faulted_writing(self) -> bool:
        """Whether it was a write that faulted."""
        return bool(self.status & 0x80)

    def word(self, at: int, length: int) -> int:
        """Return a field of ``op`` by its place in the record, from 16 on."""
        return int.from_bytes(self.op[at - 16 : at - 16 + length], "little")

    @property
    def crc(self) -> int:
        """The CRC, also that of the part that was done."""
        return self.word(16, 4)

    @property
    def delta_size(self) -> int:
        """Bytes of the delta record."""
        return self.word(16, 4)

    @property
    def invalid_flags(self) -> int:
        """With ``Status.BAD_FLAGS``: those that are not taken."""
        return self.word(16, 4)


# -- operations ------------------------------------------------------------------


def noop(flags: int = TOLD) -> Descriptor:
    """Do nothing."""
    return Descriptor(Opcode.NOOP, flags=flags)


def batch(address: int, count: int, flags: int = TOLD) -> Descriptor:
    """Execute a list of descriptors."""
    return Descriptor(Opcode.BATCH, address, size=count, flags=flags)


def drain(flags: int = TOLD) -> Descriptor:
    """Wait for the queue's descriptors before this one."""
    return Descriptor(Opcode.DRAIN, flags=flags)


def move(src: int, dst: int, size: int, flags: int = TOLD) -> Descriptor:
    """Copy."""
    return Descriptor(Opcode.MOVE, src, dst, size, flags=flags)


def fill(dst: int, size: int, pattern: int, flags: int = TOLD) -> Descriptor:
    """Fill with a pattern of 8 bytes, or 16 with ``Flag.FILL_16``."""
    low, high = pattern & (1 << 64) - 1, pattern >> 64
    return Descriptor(Opcode.FILL, low, dst, size, struct.pack("<Q", high), flags)


def compare(
    src: int, other: int, size: int, flags: int = TOLD, expected: int | None = None
) -> Descriptor:
    """Compare; with ``expected``, let the status tell whether the result is that."""
    flags |= 0 if expected is None else Flag.CHECK_RESULT
    return Descriptor(Opcode.COMPARE, src, other, size, bytes([expected or 0]), flags)


def compare_pattern(
    src: int, size: int, pattern: int, flags: int = TOLD, expected: int | None = None
) -> Descriptor:
    """Compare with a pattern of 8 bytes."""
    return compare(src, pattern, size, flags, expected).but(opcode=Opcode.COMPARE_PATTERN)


def create_delta(
    src: int, other: int, size: int, record: int, room: int, flags: int = TOLD,
    expected: int | None = None,
) -> Descriptor:  # fmt: skip
    """Record where ``other`` differs; bit n of ``expected`` stands for result n."""
    flags |= 0 if expected is None else Flag.CHECK_RESULT
    op = struct.pack("<QIIB", record, room, 0, expected or 0)
    return Descriptor(Opcode.CREATE_DELTA, src, other, size, op, flags)


def apply_delta(
    record: int, record_size: int, dst: int, size: int, flags: int = TOLD
) -> Descriptor:
    """Write what a delta record holds."""
    return Descriptor(Opcode.APPLY_DELTA, record, dst, size, struct.pack("<I", record_size), flags)


def dualcast(src: int, dst: int, dst2: int, size: int, flags: int = TOLD) -> Descriptor:
    """Copy to two places."""
    return Descriptor(Opcode.DUALCAST, src, dst, size, struct.pack("<Q", dst2), flags)


def crc(src: int, size: int, seed: int = 0, flags: int = TOLD, seed_address: int = 0) -> Descriptor:
    """Compute a CRC-32C."""
    return Descriptor(Opcode.CRC, src, 0, size, struct.pack("<IIQ", seed, 0, seed_address), flags)


def copy_crc(
    src: int, dst: int, size: int, seed: int = 0, flags: int = TOLD, seed_address: int = 0
) -> Descriptor:
    """Copy and compute a CRC-32C."""
    return crc(src, size, seed, flags, seed_address).but(opcode=Opcode.COPY_CRC, dst=dst)


def flush(dst: int, size: int, flags: int = TOLD) -> Descriptor:
    """Flush from the CPUs' caches."""
    return Descriptor(Opcode.CACHE_FLUSH, 0, dst, size, flags=flags)


def fetch(src: int, size: int, stride: int = 0, flags: int = TOLD) -> Descriptor:
    """Have a region's translations fetched."""
    return Descriptor(Opcode.TRANSLATION_FETCH, src, 0, size, struct.pack("<QI", 0, stride), flags)


@dataclass(frozen=True)
class Tags:
    """Reference and application tag of the first block; bits of ``mask`` are not looked at."""

    ref: int = 0
    app: int = 0
    mask: int = 0

    def encode(self) -> bytes:
        """Return the 8 bytes of a descriptor or of a record."""
        return struct.pack("<IHH", self.ref, self.mask, self.app)


def dif(
    opcode: Opcode, src: int, dst: int, size: int, *, block: int = 0, how: int = 0,
    source: int = 0, destination: int = 0, expect: Tags = Tags(), make: Tags = Tags(),
    flags: int = TOLD,
) -> Descriptor:  # fmt: skip
    """Return a DIF operation. ``block`` is an index of ``BLOCKS``, ``how`` of ``Dif``."""
    op = struct.pack("<BBB5x", source, destination, block | how) + expect.encode() + make.encode()
    return Descriptor(opcode, src, dst, size, op, flags)
