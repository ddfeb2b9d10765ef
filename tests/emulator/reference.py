# SPDX-License-Identifier: Apache-2.0
"""What a DSA makes of a descriptor, written down a second time, slowly and plainly. Pure.

This is what the emulated device is compared with. It shares nothing with it: it works on all of
the memory at once, and reads its own tables. A page can be missing (``Memory.holes``); the
model then says which bytes are done, as the device must.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tests.emulator.descriptors import (
    BLOCKS,
    SECOND,
    Descriptor,
    Destination,
    Dif,
    Flag,
    Opcode,
    Record,
    Source,
    Status,
)

PAGE = 4096
KIB = 1024


@dataclass
class Memory:
    """Bytes from ``base`` on; ``holes`` are numbers of pages that cannot be reached."""

    base: int
    data: bytearray
    holes: frozenset[int] = frozenset()
    #: Where an operation that stopped may have written or not: (address, length).
    loose: list[tuple[int, int]] = field(default_factory=list)

    def get(self, address: int, length: int) -> bytes:
        """Return bytes, all of which must be there."""
        at = address - self.base
        assert 0 <= at <= len(self.data) - length, f"outside of memory: {address:#x}"
        return bytes(self.data[at : at + length])

    def put(self, address: int, data: bytes) -> None:
        """Write bytes, all of which must be there."""
        if not data:
            return
        at = address - self.base
        assert 0 <= at <= len(self.data) - len(data), f"outside of memory: {address:#x}"
        self.data[at : at + len(data)] = data

    def reach(self, address: int, length: int) -> int:
        """Return how many bytes can be reached, from the first on."""
        if not self.holes:
            return length
        at = address
        while at < address + length:
            if at // PAGE in self.holes:
                return at - address
            at = (at // PAGE + 1) * PAGE
        return length

    def missing(self, address: int) -> bool:
        """Say whether a byte cannot be reached."""
        return address // PAGE in self.holes


@dataclass(frozen=True)
class Limits:
    """What a device and a queue allow."""

    second: bool = False  # DSA 2.0
    overlap: bool = True
    cache_memory: bool = True
    cache_flush: bool = True
    readback: bool = True
    drain_readback: bool = True
    block_on_fault: bool = True
    max_transfer: int = 1 << 31
    max_batch: int = 1 << 10
    handles: int = 9
    opcodes: frozenset[int] = frozenset(Opcode)
    #: What an access to a hole ends in: translated addresses fault, others hit nothing.
    hole: Status = Status.PAGE_FAULT


# -- arithmetic -------------------------------------------------------------------


@functools.cache
def _reverse(bits: int, value: int) -> int:
    return int(format(value, f"0{bits}b")[::-1], 2)


def _table(bits: int, polynomial: int) -> tuple[int, ...]:
    """Return the remainders of all bytes, highest bit first."""
    table = []
    for byte in range(256):
        value = byte << bits - 8
        for _ in range(8):
            value = value << 1 ^ (polynomial if value >> bits - 1 else 0)
            value &= (1 << bits) - 1
        table.append(value)
    return tuple(table)


_CRC32C = _table(32, 0x1EDC6F41)
_T10 = _table(16, 0x8BB7)


def _divide(table: tuple[int, ...], bits: int, value: int, data: Iterable[int]) -> int:
    for byte in data:
        value = (value << 8 & (1 << bits) - 1) ^ table[value >> bits - 8 ^ byte]
    return value


def crc32c(data: bytes, seed: int = 0, flags: int = 0) -> int:
    """Return the CRC-32C as the device gives it.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    >>> crc32c(b"6789", crc32c(b"12345")) == crc32c(b"123456789")
    True
    """
    plain = flags & Flag.CRC_BYPASS_CRC
    start = seed if plain else _reverse(32, seed ^ 0xFFFFFFFF)
    data = data if flags & Flag.CRC_BYPASS_DATA else bytes(_reverse(8, byte) for byte in data)
    value = _divide(_CRC32C, 32, start, data)
    return value if plain else _reverse(32, value) ^ 0xFFFFFFFF


def guard(data: bytes, how: int = 0) -> int:
    """Return the guard of a block: CRC-16/T10-DIF.

    >>> hex(guard(b"123456789"))
    '0xd0db'
    """
    value = _divide(_T10, 16, 0xFFFF if how & Dif.INVERT_SEED else 0, data)
    return value ^ 0xFFFF if how & Dif.INVERT_RESULT else value


def delta(old: bytes, new: bytes, room: int) -> tuple[bytes, int | None]:
    """Return a delta record and, where it has no room for all, the offset it stopped at.

    >>> delta(bytes(24), bytes(8) + b"abcdefgh" + bytes(8), 80)
    (b'\\x01\\x00abcdefgh', None)
    """
    record = b""
    for at in range(0, len(old), 8):
        if old[at : at + 8] != new[at : at + 8]:
            if len(record) + 10 > room:
                return record, at
            record += (at // 8).to_bytes(2, "little") + new[at : at + 8]
    return record, None


# -- checks -----------------------------------------------------------------------

_COMMON = Flag.RECORD_VALID | Flag.RECORD | Flag.INTERRUPT | Flag.RECORD_STEER | Flag.RECORD_TC
_MEMBER = _COMMON | Flag.FENCE
_READS = _MEMBER | Flag.BLOCK_ON_FAULT
_WRITES = _READS | Flag.CACHE_CONTROL | Flag.STRICT_ORDER | Flag.READBACK | Flag.DEST_STEER
_1, _2, _3 = Flag.ADDR1_TC, Flag.ADDR2_TC, Flag.ADDR3_TC
_CRC_FLAGS = Flag.CRC_READ_SEED | Flag.CRC_BYPASS_CRC | Flag.CRC_BYPASS_DATA


class Form(NamedTuple):
    """What a descriptor of an operation may hold: flags, and which bytes are not reserved."""

    flags: Flag
    used: str = ""  # s: source, d: destination, n: size
    op: tuple[tuple[int, int], ...] = ()  # first and last of the bytes that are used


_DIF_IN = ((40, 40), (42, 42), (48, 55))
_DIF_OUT = ((41, 42), (56, 63))
FORMS: Mapping[int, Form] = {
    Opcode.NOOP: Form(_MEMBER),
    Opcode.BATCH: Form(_COMMON | _1, "sn"),
    Opcode.DRAIN: Form(_COMMON | _1 | _2 | Flag(0xF0000), "sd"),
    Opcode.MOVE: Form(_WRITES | _1 | _2, "sdn"),
    Opcode.FILL: Form(_WRITES | _2, "sdn"),
    Opcode.COMPARE: Form(_READS | _1 | _2 | Flag.CHECK_RESULT, "sdn", ((40, 40),)),
    Opcode.COMPARE_PATTERN: Form(_READS | _1 | Flag.CHECK_RESULT, "sdn", ((40, 40),)),
    Opcode.CREATE_DELTA: Form(
        _WRITES | _1 | _2 | _3 | Flag.CHECK_RESULT, "sdn", ((40, 51), (56, 56))
    ),
    Opcode.APPLY_DELTA: Form(_WRITES | _1 | _2, "sdn", ((40, 43),)),
    Opcode.DUALCAST: Form(_WRITES | _1 | _2 | _3 | Flag(0x10000), "sdn", ((40, 47),)),
    Opcode.TRANSLATION_FETCH: Form(_READS | _1, "sn", ((48, 51),)),
    Opcode.CRC: Form(_READS | _1 | _3 | _CRC_FLAGS, "sn", ((40, 43), (48, 55))),
    Opcode.COPY_CRC: Form(_WRITES | _1 | _2 | _3 | _CRC_FLAGS, "sdn", ((40, 43), (48, 55))),
    Opcode.DIF_CHECK: Form(_READS | _1, "sn", _DIF_IN),
    Opcode.DIF_INSERT: Form(_WRITES | _1 | _2, "sdn", _DIF_OUT),
    Opcode.DIF_STRIP: Form(_WRITES | _1 | _2, "sdn", _DIF_IN),
    Opcode.DIF_UPDATE: Form(_WRITES | _1 | _2, "sdn", ((40, 42), (48, 63))),
    Opcode.DIX_GENERATE: Form(_WRITES | _1 | _2, "sdn", _DIF_OUT),
    Opcode.CACHE_FLUSH: Form(_WRITES | _2, "dn"),
}
_FILL_SECOND = Form(FORMS[Opcode.FILL].flags | Flag.FILL_16, "sdn", ((40, 47),))


def form(opcode: int, limits: Limits) -> Form | None:
    """Return the form of an operation, None where the device does not have it."""
    if opcode in SECOND and not limits.second:
        return None
    if opcode not in limits.opcodes:
        return None
    return _FILL_SECOND if opcode == Opcode.FILL and limits.second else FORMS.get(opcode)


def _wrong_flags(desc: Descriptor, limits: Limits, the_form: Form, in_batch: bool) -> int:
    allowed = int(the_form.flags)
    flush = desc.opcode == Opcode.CACHE_FLUSH
    for flag, there in (
        (Flag.FENCE, in_batch),
        (Flag.BLOCK_ON_FAULT, limits.block_on_fault),
        (Flag.CACHE_CONTROL, limits.cache_flush if flush else limits.cache_memory),
        (Flag.READBACK, limits.readback),
        (Flag.RECORD, desc.flags & Flag.RECORD_VALID),
        (
            Flag.DRAIN_READBACK_1 | Flag.DRAIN_READBACK_2,
            desc.opcode != Opcode.DRAIN or limits.drain_readback,
        ),
    ):
        if not there:
            allowed &= ~int(flag)  # ~ of a flag knows only named bits
    return int(desc.flags) & ~allowed


def _reserved(desc: Descriptor, the_form: Form) -> bool:
    used = the_form.used
    if desc.opcode == Opcode.DRAIN:
        used = "s" * bool(desc.flags & Flag.DRAIN_READBACK_1)
        used += "d" * bool(desc.flags & Flag.DRAIN_READBACK_2)
    op = bytearray(desc.op.ljust(24, b"\0"))
    for first, last in the_form.op:
        op[first - 40 : last - 39] = bytes(last - first + 1)
    values = {"s": desc.src, "d": desc.dst, "n": desc.size}
    return bool(
        any(op)
        or desc.rsvd0
        or desc.rsvd1
        or any(value for name, value in values.items() if name not in used)
        or _dif_reserved(desc)
    )


def _dif_reserved(desc: Descriptor) -> int:
    makes = {
        Opcode.DIF_CHECK: 0, Opcode.DIF_STRIP: 0, Opcode.DIF_UPDATE: 0x07,
        Opcode.DIF_INSERT: 0x6F, Opcode.DIX_GENERATE: 0x6F,
    }  # fmt: skip
    if desc.opcode not in makes:
        return 0
    return desc.word(42, 1) & 0xF0 or desc.word(41, 1) & makes[Opcode(desc.opcode)]


def _block(desc: Descriptor) -> int:
    return BLOCKS[desc.word(42, 1) & 3]


def _wrong_size(desc: Descriptor, limits: Limits) -> Status | None:
    size = desc.size
    if desc.opcode in (Opcode.NOOP, Opcode.DRAIN):
        return None
    if desc.opcode == Opcode.BATCH:
        return None if 2 <= size <= limits.max_batch else Status.BATCH_COUNT
    unit, most = 1, limits.max_transfer
    if desc.opcode in (Opcode.CREATE_DELTA, Opcode.APPLY_DELTA):
        most = min(most, 512 * KIB)
    if desc.opcode in (Opcode.DIF_CHECK, Opcode.DIF_STRIP, Opcode.DIF_UPDATE):
        unit = _block(desc) + 8
    if desc.opcode in (Opcode.DIF_INSERT, Opcode.DIX_GENERATE):
        unit = _block(desc)
    if not 0 < size <= most or size % unit:
        return Status.SIZE
    if desc.opcode == Opcode.CREATE_DELTA and desc.word(48, 4) < 80:
        return Status.DELTA_SIZE
    record = desc.word(40, 4)
    if desc.opcode == Opcode.APPLY_DELTA and (not record or record % 10):
        return Status.DELTA_SIZE
    return None


def _misaligned(desc: Descriptor) -> Status | None:
    second = desc.word(40, 8)
    wrong = {
        Opcode.BATCH: (desc.src % 64, Status.LIST_ALIGN),
        Opcode.DUALCAST: ((desc.dst - second) % PAGE, Status.DUALCAST_ALIGN),
        Opcode.CREATE_DELTA: ((desc.src | desc.dst | desc.size) % 8, Status.ADDR_ALIGN),
        Opcode.APPLY_DELTA: ((desc.dst | desc.size) % 8, Status.ADDR_ALIGN),
    }
    if desc.flags & Flag.CRC_READ_SEED:
        seed = (desc.word(48, 8) % 4, Status.ADDR_ALIGN)
        wrong |= {Opcode.CRC: seed, Opcode.COPY_CRC: seed}
    by, status = wrong.get(Opcode(desc.opcode), (0, Status.NONE))
    return status if by else None


def ranges(desc: Descriptor) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return what an operation reads and what it writes, as (address, length).

    The room for a delta record counts as written.
    """
    src, dst, size = (desc.src, desc.size), (desc.dst, desc.size), desc.size
    block, second = _block(desc), desc.word(40, 8)
    seed = [(desc.word(48, 8), 4)] if desc.flags & Flag.CRC_READ_SEED else []
    found: Mapping[int, tuple[list[tuple[int, int]], list[tuple[int, int]]]] = {
        Opcode.MOVE: ([src], [dst]),
        Opcode.FILL: ([], [dst]),
        Opcode.COMPARE: ([src, dst], []),
        Opcode.COMPARE_PATTERN: ([src], []),
        Opcode.CREATE_DELTA: ([src, dst], [(second, desc.word(48, 4))]),
        Opcode.APPLY_DELTA: ([(desc.src, desc.word(40, 4))], [dst]),
        Opcode.DUALCAST: ([src], [dst, (second, size)]),
        Opcode.TRANSLATION_FETCH: ([src], []),
        Opcode.CRC: ([src, *seed], []),
        Opcode.COPY_CRC: ([src, *seed], [dst]),
        Opcode.DIF_CHECK: ([src], []),
        Opcode.DIF_INSERT: ([src], [(desc.dst, size // block * (block + 8))]),
        Opcode.DIF_STRIP: ([src], [(desc.dst, size // (block + 8) * block)]),
        Opcode.DIF_UPDATE: ([src], [dst]),
        Opcode.DIX_GENERATE: ([src], [(desc.dst, size // block * 8)]),
        Opcode.CACHE_FLUSH: ([dst], []),
    }
    return found.get(desc.opcode, ([], []))


def _overlaps(desc: Descriptor, limits: Limits) -> bool:
    if desc.opcode == Opcode.MOVE and limits.overlap:
        return False
    reads, writes = ranges(desc)
    if desc.opcode == Opcode.COPY_CRC:
        reads = reads[:1]  # the seed may lie anywhere
    pairs = [(a, b) for a in reads for b in writes]
    if len(writes) == 2:
        pairs.append((writes[0], writes[1]))
    return any(
        a_len and b_len and a < b + b_len and b < a + a_len for (a, a_len), (b, b_len) in pairs
    )


def check(desc: Descriptor, limits: Limits, in_batch: bool = False) -> Record | None:
    """Return the record of a descriptor that is refused before anything is done, or None."""
    if desc.flags & Flag.RECORD_VALID and desc.completion % 32:
        return Record(Status.RECORD_ALIGN)
    the_form = form(desc.opcode, limits)
    if the_form is None or (in_batch and desc.opcode in (Opcode.BATCH, Opcode.DRAIN)):
        return Record(Status.BAD_OPCODE)
    wrong = _wrong_flags(desc, limits, the_form, in_batch)
    if wrong:
        return Record(Status.BAD_FLAGS, op=wrong.to_bytes(16, "little"))
    if _reserved(desc, the_form):
        return Record(Status.RESERVED)
    if desc.flags & Flag.INTERRUPT and desc.handle >= limits.handles:
        return Record(Status.INT_HANDLE)
    status = _wrong_size(desc, limits) or _misaligned(desc)
    if status is None and _overlaps(desc, limits):
        status = Status.OVERLAP
    return None if status is None else Record(status)


# -- operations -------------------------------------------------------------------


class Stop(NamedTuple):
    """An access came to a hole."""

    address: int
    write: bool


class Ended(NamedTuple):
    """How an operation ended: its record, to which a stop is added where there was one."""

    record: Record
    stop: Stop | None = None


def _done(memory: Memory, *parts: tuple[int, int, bool]) -> tuple[int, Stop | None]:
    """Return how far a forward pass over (address, length, write) gets, all at one pace.

    Where several end at the same byte it is the first of them that is told.
    """
    reached = [memory.reach(address, length) for address, length, _ in parts]
    least = min(reached)
    address, length, write = parts[reached.index(least)]
    return least, None if least == length else Stop(address + least, write)


def _move(desc: Descriptor, memory: Memory) -> Ended:
    src, dst, size = desc.src, desc.dst, desc.size
    if src < dst < src + size:
        return _move_backward(desc, memory)
    done, stop = _done(memory, (src, size, False), (dst, size, True))
    memory.put(dst, memory.get(src, done))
    return _end(stop, Record(Status.SUCCESS), done)


def _move_backward(desc: Descriptor, memory: Memory) -> Ended:
    """From the end, page by page of both: what is done is at the end, and the result says so."""
    left = desc.size
    data = memory.get(desc.src, desc.size) if not memory.holes else b""
    while left:
        step = min(left, (desc.src + left - 1) % PAGE + 1, (desc.dst + left - 1) % PAGE + 1)
        for address, write in ((desc.src, False), (desc.dst, True)):
            if memory.missing(address + left - step):
                record = Record(Status.SUCCESS, result=1)
                return _end(Stop(address + left - step, write), record, desc.size - left)
        left -= step
        piece = data[left : left + step] if data else memory.get(desc.src + left, step)
        memory.put(desc.dst + left, piece)
    return Ended(Record(Status.SUCCESS))


def _fill(desc: Descriptor, memory: Memory) -> Ended:
    low = desc.src.to_bytes(8, "little")
    pattern = low + (desc.word(40, 8).to_bytes(8, "little") if desc.flags & Flag.FILL_16 else low)
    done, stop = _done(memory, (desc.dst, desc.size, True))
    memory.put(desc.dst, (pattern * (done // 16 + 1))[:done])
    return _end(stop, Record(Status.SUCCESS), done)


def _compare(desc: Descriptor, memory: Memory) -> Ended:
    size = desc.size
    parts = [(desc.src, size, False)]
    if desc.opcode == Opcode.COMPARE:
        parts.append((desc.dst, size, False))
    done, stop = _done(memory, *parts)
    mine = memory.get(desc.src, done)
    if desc.opcode == Opcode.COMPARE:
        other = memory.get(desc.dst, done)
    else:
        other = (desc.dst.to_bytes(8, "little") * (done // 8 + 1))[:done]
    if mine != other:
        at = next(i for i, (a, b) in enumerate(zip(mine, other, strict=True)) if a != b)
        return _judge(desc, Record(Status.SUCCESS, 1, completed=at), desc.word(40, 1) == 1)
    if stop:
        return _end(stop, Record(Status.SUCCESS), done)
    return _judge(desc, Record(Status.SUCCESS), desc.word(40, 1) == 0)


def _create_delta(desc: Descriptor, memory: Memory) -> Ended:
    done, stop = _done(memory, (desc.src, desc.size, False), (desc.dst, desc.size, False))
    whole = done // 8 * 8
    record, full = delta(memory.get(desc.src, whole), memory.get(desc.dst, whole), desc.word(48, 4))
    if full is not None:
        whole, stop = full, None
    at = desc.word(40, 8)
    room = memory.reach(at, len(record))
    if room < len(record):  # the record itself comes to a hole, maybe within an entry
        memory.put(at, record[:room])
        record, rest = record[: room // 10 * 10], record[room // 10 * 10 :]
        whole, stop, full = int.from_bytes(rest[:2], "little") * 8, Stop(at + room, True), None
    else:
        memory.put(at, record)
    result = 2 if full is not None else 1 if record else 0
    told = Record(Status.SUCCESS, result, op=len(record).to_bytes(16, "little"))
    if stop:
        return _end(stop, told, whole)
    told = told if full is None else replace(told, completed=whole)
    return _judge(desc, told, bool(desc.word(56, 1) >> result & 1))


def _apply_delta(desc: Descriptor, memory: Memory) -> Ended:
    size = desc.word(40, 4)
    done, stop = _done(memory, (desc.src, size, False))
    last = -1
    for at in range(0, done // 10 * 10, 10):
        entry = memory.get(desc.src + at, 10)
        offset = int.from_bytes(entry[:2], "little")
        if offset <= last:
            return Ended(Record(Status.DELTA_ORDER, completed=at))
        if offset * 8 >= desc.size:
            return Ended(Record(Status.DELTA_OFFSET, completed=at))
        place = desc.dst + offset * 8
        if memory.missing(place):
            return _end(Stop(place, True), Record(Status.SUCCESS), at)
        memory.put(place, entry[2:])
        last = offset
    return _end(stop, Record(Status.SUCCESS), done // 10 * 10)


def _dualcast(desc: Descriptor, memory: Memory) -> Ended:
    src, dst, dst2, size = desc.src, desc.dst, desc.word(40, 8), desc.size
    first, _ = _done(memory, (src, size, False), (dst, size, True))
    done, stop = _done(memory, (src, size, False), (dst, size, True), (dst2, size, True))
    data = memory.get(src, first)
    memory.put(dst, data)
    memory.put(dst2, data[:done])
    memory.loose.append((dst + done, first - done))
    return _end(stop, Record(Status.SUCCESS), done)


def _crc(desc: Descriptor, memory: Memory) -> Ended:
    seed = desc.word(40, 4)
    if desc.flags & Flag.CRC_READ_SEED:
        at = desc.word(48, 8)
        if memory.missing(at):
            return _end(Stop(at, False), Record(Status.SUCCESS), 0)
        seed = int.from_bytes(memory.get(at, 4), "little")
    parts = [(desc.src, desc.size, False)]
    if desc.opcode == Opcode.COPY_CRC:
        parts.append((desc.dst, desc.size, True))
    done, stop = _done(memory, *parts)
    data = memory.get(desc.src, done)
    if desc.opcode == Opcode.COPY_CRC:
        memory.put(desc.dst, data)
    value = crc32c(data, seed, desc.flags)
    return _end(stop, Record(Status.SUCCESS, op=value.to_bytes(16, "little")), done)


def _errors(stored: bytes, wanted: int, flags: int, ref: int, app: int, mask: int) -> int:
    """Return the DIF status of one block."""
    stored_guard, stored_app, stored_ref = (
        int.from_bytes(stored[a:b], "big") for a, b in ((0, 2), (2, 4), (4, 8))
    )
    if flags & Source.ALL_F and stored == b"\xff" * 8:
        return 8 if flags & Source.ALL_F_ERROR else 0
    app_f = stored_app == 0xFFFF
    if flags & Source.APP_F and app_f:
        return 0
    if flags & Source.APP_REF_F and app_f and stored_ref == 0xFFFFFFFF:
        return 0
    bad_guard = not flags & Source.NO_GUARD and stored_guard != wanted
    bad_app = (stored_app ^ app) & ~mask & 0xFFFF
    bad_ref = not flags & Source.NO_REF and stored_ref != ref
    return bool(bad_guard) | bool(bad_app) << 1 | bool(bad_ref) << 2


def _dif(desc: Descriptor, memory: Memory) -> Ended:
    opcode, block, how = desc.opcode, _block(desc), desc.word(42, 1)
    checks = opcode in (Opcode.DIF_CHECK, Opcode.DIF_STRIP, Opcode.DIF_UPDATE)
    source, destination = desc.word(40, 1), desc.word(41, 1)
    ref, mask, app = desc.word(48, 4), desc.word(52, 2), desc.word(54, 2)
    new_ref, new_mask, new_app = desc.word(56, 4), desc.word(60, 2), desc.word(62, 2)
    step = block + 8 * checks
    at, out, stop, errors = 0, desc.dst, None, 0
    while at < desc.size:
        reached, stop = _done(memory, (desc.src + at, step, False))
        if stop:
            break
        data = memory.get(desc.src + at, step)
        wanted = guard(data[:block], how)
        if checks:
            errors = _errors(data[block:], wanted, source, ref, app, mask)
            if errors:
                break
        made = [
            wanted.to_bytes(2, "big"),
            (new_app & ~new_mask & 0xFFFF).to_bytes(2, "big"),
            new_ref.to_bytes(4, "big"),
        ]
        if opcode == Opcode.DIF_UPDATE:
            for part, flag, field_ in (
                (0, Destination.PASS_GUARD, data[block : block + 2]),
                (1, Destination.PASS_APP, data[block + 2 : block + 4]),
                (2, Destination.PASS_REF, data[block + 4 :]),
            ):
                made[part] = field_ if destination & flag else made[part]
        written = {
            Opcode.DIF_CHECK: b"",
            Opcode.DIF_STRIP: data[:block],
            Opcode.DIX_GENERATE: b"".join(made),
        }.get(Opcode(opcode), data[:block] + b"".join(made))
        reached = memory.reach(out, len(written))
        memory.put(out, written[:reached])
        if reached < len(written):
            stop = Stop(out + reached, True)
            break
        at, out = at + step, out + len(written)
        ref = ref + (not source & Source.FIX_REF) & 0xFFFFFFFF
        app = app + bool(source & Source.INC_APP) & 0xFFFF
        new_ref = new_ref + (not destination & Destination.FIX_REF) & 0xFFFFFFFF
        new_app = new_app + bool(destination & Destination.INC_APP) & 0xFFFF
    tags = b"".join(
        value.to_bytes(length, "little")
        for value, length in (
            (ref, 4), (mask, 2), (app, 2), (new_ref, 4), (new_mask, 2), (new_app, 2),
        )
    )  # fmt: skip
    if not checks:
        tags = bytes(8) + tags[8:]
    elif opcode != Opcode.DIF_UPDATE:
        tags = tags[:8] + bytes(8)
    if errors:
        return Ended(Record(Status.DIF_ERROR, errors, completed=at, op=tags))
    return _end(stop, Record(Status.SUCCESS, op=tags), at)


def _flush(desc: Descriptor, memory: Memory) -> Ended:
    done, stop = _done(memory, (desc.dst, desc.size, False))
    return _end(stop, Record(Status.SUCCESS), done)


def _fetch(desc: Descriptor, memory: Memory) -> Ended:
    stride, at = desc.word(48, 4), 0
    while at < desc.size:
        if memory.missing(desc.src + at):
            return _end(Stop(desc.src + at, False), Record(Status.SUCCESS), at)
        at += stride if stride > PAGE else PAGE - (desc.src + at) % PAGE
    return Ended(Record(Status.SUCCESS))


def _nothing(desc: Descriptor, memory: Memory) -> Ended:
    return Ended(Record(Status.SUCCESS))


OPERATIONS: Mapping[int, Callable[[Descriptor, Memory], Ended]] = {
    Opcode.NOOP: _nothing,
    Opcode.DRAIN: _nothing,
    Opcode.MOVE: _move,
    Opcode.FILL: _fill,
    Opcode.COMPARE: _compare,
    Opcode.COMPARE_PATTERN: _compare,
    Opcode.CREATE_DELTA: _create_delta,
    Opcode.APPLY_DELTA: _apply_delta,
    Opcode.DUALCAST: _dualcast,
    Opcode.TRANSLATION_FETCH: _fetch,
    Opcode.CRC: _crc,
    Opcode.COPY_CRC: _crc,
    Opcode.DIF_CHECK: _dif,
    Opcode.DIF_INSERT: _dif,
    Opcode.DIF_STRIP: _dif,
    Opcode.DIF_UPDATE: _dif,
    Opcode.DIX_GENERATE: _dif,
    Opcode.CACHE_FLUSH: _flush,
}


def _judge(desc: Descriptor, record: Record, as_expected: bool) -> Ended:
    if desc.flags & Flag.CHECK_RESULT and not as_expected:
        record = replace(record, status=Status.PREDICATE)
    return Ended(record)


def _end(stop: Stop | None, record: Record, done: int) -> Ended:
    """Return the end of a pass that came as far as ``done``, or through."""
    return Ended(replace(record, completed=done), stop) if stop else Ended(record)


def run(desc: Descriptor, memory: Memory, limits: Limits, in_batch: bool = False) -> Record:
    """Execute a descriptor on the memory and return its record."""
    refused = check(desc, limits, in_batch)
    if refused:
        return refused
    record, stop = OPERATIONS[desc.opcode](desc, memory)
    if not stop:
        return record
    status = int(limits.hole)
    if limits.hole == Status.PAGE_FAULT:
        if desc.flags & Flag.BLOCK_ON_FAULT:
            status = Status.PAGE_FAULT_IR
        status |= 0x80 * stop.write
    return replace(record, status=status, fault_addr=stop.address)


def told(desc: Descriptor, record: Record) -> bool:
    """Say whether a record is written."""
    if not desc.flags & Flag.RECORD_VALID or record.status == Status.RECORD_ALIGN:
        return False
    return bool(desc.flags & Flag.RECORD) or record.status != Status.SUCCESS
