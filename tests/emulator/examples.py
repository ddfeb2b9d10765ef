# SPDX-License-Identifier: Apache-2.0
"""Descriptors for Hypothesis to draw, with the memory that makes them worth executing. Pure.

Most drawn descriptors are right and do something: what is compared is nearly equal, what a DIF
protects has its DIF. ``spoiled`` makes of a right one one that is wrong in one place, or still
right: the model tells which.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import strategies as st

from tests.emulator import reference
from tests.emulator.descriptors import (
    BLOCKS,
    TOLD,
    Descriptor,
    Destination,
    Dif,
    Flag,
    Opcode,
    Record,
    Source,
    Status,
    Tags,
    apply_delta,
    compare,
    compare_pattern,
    copy_crc,
    crc,
    create_delta,
    dif,
    drain,
    dualcast,
    fetch,
    fill,
    flush,
    move,
    noop,
)

PAGE = 4096
KIB = 1024


@dataclass(frozen=True)
class Arena:
    """The guest memory that examples may use; descriptors never reach beyond it."""

    base: int
    size: int
    holes: frozenset[int] = frozenset()  # numbers of pages, as in the model's memory

    def noise(self) -> bytes:
        """Return what is in it at first: the same each time, and no byte sequence twice soon."""
        return random.Random(self.base ^ self.size).randbytes(self.size)


@dataclass(frozen=True)
class Example:
    """A descriptor, and what is written to memory before it is executed."""

    descriptor: Descriptor
    before: tuple[tuple[int, bytes], ...] = field(default=())


Draw = st.DrawFn


def sizes(most: int) -> st.SearchStrategy[int]:
    """Return sizes in bytes: mostly small, often about a page, sometimes all that there is."""
    around = [n for n in (1, 2, 7, 8, 64, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE) if n <= most]
    return st.sampled_from(around) | st.integers(1, min(most, 300)) | st.integers(1, most)


class Drawing:
    """One example while it is drawn."""

    def __init__(self, draw: Draw, arena: Arena, limits: reference.Limits) -> None:
        self._draw, self.arena, self.limits = draw, arena, limits
        self.before: list[tuple[int, bytes]] = []
        noise = arena.noise()
        self.memory = reference.Memory(arena.base, bytearray(noise))

    def number(self, strategy: st.SearchStrategy[int]) -> int:
        """Draw a number."""
        return self._draw(strategy)

    def chance(self, one_in: int) -> bool:
        """Draw whether something rare is the case."""
        return self._draw(st.integers(0, one_in - 1)) == one_in - 1

    def place(self, length: int, align: int = 1, part: int = 0, parts: int = 1) -> int:
        """Draw an address in one of so many equal parts of the arena: they do not overlap."""
        room = self.arena.size // parts
        start = self.arena.base + room * part
        slack = room - length
        assert slack >= 0, f"{length} bytes do not fit"
        # close to the start of a page as often as not
        spread = st.integers(0, min(slack, 70)) | st.integers(0, slack)
        holes = [
            number * PAGE - start
            for number in sorted(self.arena.holes)
            if start < number * PAGE < start + room
        ]
        if holes and self.chance(4):
            hole = self._draw(st.sampled_from(holes))
            spread = st.integers(min(slack, max(0, hole - length)), min(slack, hole + PAGE))
        return (start + self._draw(spread)) // align * align

    def write(self, address: int, data: bytes) -> None:
        """Write to memory before the descriptor is executed."""
        self.before.append((address, data))
        self.memory.put(address, data)

    def flags(self, also: int = 0) -> int:
        """Draw flags that change nothing, and block-on-fault."""
        flags = TOLD | also
        if self.limits.block_on_fault and self.chance(2):
            flags |= Flag.BLOCK_ON_FAULT
        return flags

    def flip(self, address: int, length: int, most: int = 3) -> None:
        """Change up to so many bytes."""
        for _ in range(self._draw(st.integers(0, most))):
            at = address + self._draw(st.integers(0, length - 1))
            bit = 1 << self._draw(st.integers(0, 7))
            self.write(at, bytes([self.memory.get(at, 1)[0] ^ bit]))


def _noop(d: Drawing) -> Descriptor:
    return noop()


def _drain(d: Drawing) -> Descriptor:
    if not d.limits.drain_readback:
        return drain()
    flags = Flag.DRAIN_READBACK_1 * d.chance(2) | Flag.DRAIN_READBACK_2 * d.chance(2)
    src = d.place(1) if flags & Flag.DRAIN_READBACK_1 else 0
    dst = d.place(1) if flags & Flag.DRAIN_READBACK_2 else 0
    return drain(TOLD | flags).but(src=src, dst=dst)


def _move(d: Drawing) -> Descriptor:
    size = d.number(sizes(d.arena.size // 2))
    if d.limits.overlap and d.chance(2):
        src = d.place(size)
        apart = d.number(st.integers(-size, size))
        last = d.arena.base + d.arena.size - size
        return move(src, min(max(src + apart, d.arena.base), last), size, d.flags())
    first = d.number(st.integers(0, 1))
    src, dst = (d.place(size, part=part, parts=2) for part in (first, 1 - first))
    return move(src, dst, size, d.flags())


def _fill(d: Drawing) -> Descriptor:
    size = d.number(sizes(d.arena.size))
    if d.limits.second and d.chance(2):
        pattern = d.number(st.integers(0, (1 << 128) - 1))
        return fill(d.place(size), size, pattern, d.flags(Flag.FILL_16))
    return fill(d.place(size), size, d.number(st.integers(0, (1 << 64) - 1)), d.flags())


def _expected(d: Drawing, most: int) -> int | None:
    return d.number(st.integers(0, most)) if d.chance(2) else None


def _compare(d: Drawing) -> Descriptor:
    size = d.number(sizes(d.arena.size // 2))
    src, other = (d.place(size, part=part, parts=2) for part in (0, 1))
    d.write(other, d.memory.get(src, size))
    d.flip(other, size)
    return compare(src, other, size, d.flags(), _expected(d, 1))


def _compare_pattern(d: Drawing) -> Descriptor:
    size = d.number(sizes(d.arena.size))
    src = d.place(size)
    pattern = d.number(st.integers(0, (1 << 64) - 1))
    d.write(src, (pattern.to_bytes(8, "little") * (size // 8 + 1))[:size])
    d.flip(src, size)
    return compare_pattern(src, size, pattern, d.flags(), _expected(d, 1))


def _create_delta(d: Drawing) -> Descriptor:
    size = -(-d.number(sizes(d.arena.size // 4 - 8)) // 8) * 8
    src, other = (d.place(size, 8, part, 4) for part in (0, 1))
    if d.chance(5):  # everything differs
        room = d.number(st.integers(80, max(80, size * 2)))
    else:
        d.write(other, d.memory.get(src, size))
        d.flip(other, size, 12)
        room = d.number(st.integers(80, 130))
    return create_delta(src, other, size, d.place(room, part=1, parts=2), room, d.flags(),
                        _expected(d, 7))  # fmt: skip


def _apply_delta(d: Drawing) -> Descriptor:
    size = -(-d.number(sizes(d.arena.size // 2 - 8)) // 8) * 8
    last = size // 8 - 1
    offsets = sorted({d.number(st.integers(0, last)) for _ in range(d.number(st.integers(1, 8)))})
    if d.chance(4):
        offsets.append(d.number(st.integers(0, last + 3)))  # out of order, or beyond
    record = b"".join(
        offset.to_bytes(2, "little") + d.number(st.integers(0, (1 << 64) - 1)).to_bytes(8, "big")
        for offset in offsets
    )
    at = d.place(len(record), part=0, parts=2)
    d.write(at, record)
    return apply_delta(at, len(record), d.place(size, 8, 1, 2), size, d.flags())


def _dualcast(d: Drawing) -> Descriptor:
    size = d.number(sizes(d.arena.size // 4))
    src, dst, page = (d.place(size, part=part, parts=4) for part in (0, 1, 2))
    # same place in its page
    dst2 = page // PAGE * PAGE + dst % PAGE
    return dualcast(src, dst, dst2, size, d.flags())


def _crc(d: Drawing, copy: bool = False) -> Descriptor:
    size = d.number(sizes(min(d.arena.size // 4, 24 * KIB)))
    flags = d.flags()
    for flag in (Flag.CRC_READ_SEED, Flag.CRC_BYPASS_CRC, Flag.CRC_BYPASS_DATA):
        flags |= flag * d.chance(2)
    seed = d.number(st.integers(0, (1 << 32) - 1) | st.just(0))
    seed_address = 0
    if flags & Flag.CRC_READ_SEED:
        seed_address, seed = d.place(4, 4, 3, 4), 0
    src = d.place(size, part=0, parts=4)
    if copy:
        return copy_crc(src, d.place(size, part=1, parts=4), size, seed, flags, seed_address)
    return crc(src, size, seed, flags, seed_address)


def _copy_crc(d: Drawing) -> Descriptor:
    return _crc(d, copy=True)


def _tags(d: Drawing) -> Tags:
    near = st.integers(0, (1 << 32) - 1) | st.sampled_from([0, 0xFFFFFFFE, 0xFFFFFFFF])
    return Tags(
        d.number(near),
        d.number(st.integers(0, 0xFFFF) | st.sampled_from([0xFFFE, 0xFFFF])),
        d.number(st.sampled_from([0, 0, 0xFF00, 0xFFFF]) | st.integers(0, 0xFFFF)),
    )


def _bits(d: Drawing, kind: type[Source | Destination | Dif], but: int = 0) -> int:
    return sum(int(flag) for flag in kind if not flag & but and d.chance(3))


def _dif(opcode: Opcode) -> Callable[[Drawing], Descriptor]:
    """Return what draws a DIF operation, on blocks of which most are as they should be."""

    def drawn(d: Drawing) -> Descriptor:
        block = d.number(st.integers(0, 3))
        plain = opcode in (Opcode.DIF_INSERT, Opcode.DIX_GENERATE)
        step = BLOCKS[block] + 8
        count = d.number(st.integers(1, max(1, d.arena.size // 2 // step - 1)))
        count = min(count, d.number(st.integers(1, 12)))
        how, expect = _bits(d, Dif), _tags(d)
        source = 0 if plain else _bits(d, Source)
        passing = Destination.PASS_APP | Destination.PASS_GUARD | Destination.PASS_REF
        makes = opcode in (Opcode.DIF_UPDATE, Opcode.DIF_INSERT, Opcode.DIX_GENERATE)
        destination = _bits(d, Destination, passing * plain) if makes else 0
        size = count * (BLOCKS[block] if plain else step)
        dst = 0 if opcode == Opcode.DIF_CHECK else d.place(count * step, part=1, parts=2)
        src = d.place(size, part=0, parts=2)
        if not plain:
            _protect(d, src, block, count, how, source, expect)
        return dif(
            opcode, src, dst,
            size, block=block, how=how, source=source, destination=destination,
            expect=Tags() if plain else expect, make=_tags(d) if makes else Tags(),
            flags=d.flags(),
        )  # fmt: skip

    return drawn


def _protect(
    d: Drawing, src: int, block: int, count: int, how: int, source: int, expect: Tags
) -> None:
    """Give the blocks at ``src`` their DIFs, and maybe spoil some."""
    ref, app, length = expect.ref, expect.app & ~expect.mask, BLOCKS[block]
    for at in range(src, src + count * (length + 8), length + 8):
        made = reference.guard(d.memory.get(at, length), how).to_bytes(2, "big")
        made += (app & 0xFFFF).to_bytes(2, "big") + (ref & 0xFFFFFFFF).to_bytes(4, "big")
        if d.chance(8):
            made = d.number(st.integers(0, (1 << 64) - 1)).to_bytes(8, "big")
        if d.chance(8):
            made = made[:2] + b"\xff" * 6 if d.chance(2) else b"\xff" * 8
        d.write(at + length, made)
        ref += not source & Source.FIX_REF
        app = app + bool(source & Source.INC_APP)
    if d.chance(4):
        d.flip(src, count * (length + 8))


def _flush(d: Drawing) -> Descriptor:
    size = d.number(sizes(d.arena.size))
    return flush(d.place(size), size, d.flags(Flag.CACHE_CONTROL * d.limits.cache_flush))


def _fetch(d: Drawing) -> Descriptor:
    size = d.number(sizes(d.arena.size))
    stride = d.number(st.sampled_from([0, 0, 64, PAGE, 2 * PAGE]) | st.integers(0, 3 * PAGE))
    return fetch(d.place(size), size, stride, d.flags())


DRAWN: dict[Opcode, Callable[[Drawing], Descriptor]] = {
    Opcode.NOOP: _noop,
    Opcode.DRAIN: _drain,
    Opcode.MOVE: _move,
    Opcode.FILL: _fill,
    Opcode.COMPARE: _compare,
    Opcode.COMPARE_PATTERN: _compare_pattern,
    Opcode.CREATE_DELTA: _create_delta,
    Opcode.APPLY_DELTA: _apply_delta,
    Opcode.DUALCAST: _dualcast,
    Opcode.TRANSLATION_FETCH: _fetch,
    Opcode.CRC: _crc,
    Opcode.COPY_CRC: _copy_crc,
    **{
        opcode: _dif(opcode)
        for opcode in (
            Opcode.DIF_CHECK,
            Opcode.DIF_INSERT,
            Opcode.DIF_STRIP,
            Opcode.DIF_UPDATE,
            Opcode.DIX_GENERATE,
        )
    },
    Opcode.CACHE_FLUSH: _flush,
}


def right(opcode: Opcode, arena: Arena, limits: reference.Limits) -> st.SearchStrategy[Example]:
    """Return examples of an operation that are not refused."""

    @st.composite
    def strategy(draw: Draw) -> Example:
        drawing = Drawing(draw, arena, limits)
        descriptor = DRAWN[opcode](drawing)
        return Example(descriptor, tuple(drawing.before))

    return strategy()


def _spoil_flag(draw: Draw, desc: Descriptor, limits: reference.Limits) -> Descriptor:
    return desc.but(flags=desc.flags ^ 1 << draw(st.integers(0, 23)))


def _spoil_op(draw: Draw, desc: Descriptor, limits: reference.Limits) -> Descriptor:
    op = bytearray(desc.op.ljust(24, b"\0"))
    op[draw(st.integers(0, 23))] ^= 1 << draw(st.integers(0, 7))
    return desc.but(op=bytes(op))


def _spoil_reserved(draw: Draw, desc: Descriptor, limits: reference.Limits) -> Descriptor:
    if draw(st.booleans()):
        return desc.but(rsvd0=1 << draw(st.integers(0, 10)))
    return desc.but(rsvd1=1 << draw(st.integers(0, 15)))


def _spoil_size(draw: Draw, desc: Descriptor, limits: reference.Limits) -> Descriptor:
    most = limits.max_transfer
    sizes_ = [0, desc.size + 1, desc.size + 8, 512 * KIB + 8, most + 1, 0xFFFFFFFF]
    return desc.but(size=draw(st.sampled_from(sizes_)) & 0xFFFFFFFF)


def _spoil_address(draw: Draw, desc: Descriptor, limits: reference.Limits) -> Descriptor:
    change = draw(st.sampled_from([1, 4, 8, PAGE, -1]))
    if draw(st.booleans()):
        return desc.but(src=desc.src + change & (1 << 64) - 1)
    return desc.but(dst=desc.dst + change & (1 << 64) - 1)


def _spoil_overlap(draw: Draw, desc: Descriptor, limits: reference.Limits) -> Descriptor:
    return desc.but(dst=desc.src + draw(st.sampled_from([0, 8, desc.size // 2, desc.size])))


def _spoil_opcode(draw: Draw, desc: Descriptor, limits: reference.Limits) -> Descriptor:
    return desc.but(opcode=draw(st.integers(0, 255)))


def _spoil_handle(draw: Draw, desc: Descriptor, limits: reference.Limits) -> Descriptor:
    handle = draw(st.sampled_from([limits.handles - 1, limits.handles, 0xFFFF]))
    return desc.but(handle=handle, flags=desc.flags | Flag.INTERRUPT)


SPOILS = (
    _spoil_flag, _spoil_op, _spoil_reserved, _spoil_size, _spoil_address, _spoil_overlap,
    _spoil_opcode, _spoil_handle,
)  # fmt: skip


def _fits(desc: Descriptor, arena: Arena) -> bool:
    reads, writes = reference.ranges(desc)
    if desc.opcode == Opcode.DRAIN:
        reads = [(address, 1) for address in (desc.src, desc.dst) if address]
    return all(
        not length or arena.base <= address <= arena.base + arena.size - length
        for address, length in (*reads, *writes)
    )


def spoiled(
    opcode: Opcode, arena: Arena, limits: reference.Limits, *, in_batch: bool = False
) -> st.SearchStrategy[Example]:
    """Return examples of an operation with one thing changed.

    Those that would run outside of the arena are left as they were before.
    """

    @st.composite
    def strategy(draw: Draw) -> Example:
        drawing = Drawing(draw, arena, limits)
        desc = DRAWN[opcode](drawing)
        changed = SPOILS[draw(st.integers(0, len(SPOILS) - 1))](draw, desc, limits)
        # a batch is not for here; without a record nothing would be told
        told = changed.flags & TOLD == TOLD or reference.check(changed, limits, in_batch)
        runs = changed.opcode != Opcode.BATCH and (
            reference.check(changed, limits, in_batch) or _fits(changed, arena)
        )
        if not (told and runs and changed.flags & Flag.RECORD_VALID):
            changed = desc
        return Example(changed, tuple(drawing.before))

    return strategy()


def expected(
    example: Example, arena: Arena, limits: reference.Limits, noise: bytes
) -> tuple[Record, reference.Memory]:
    """Return the record that an example must get, and the memory that it must leave."""
    memory = reference.Memory(arena.base, bytearray(noise), arena.holes)
    for address, data in example.before:
        memory.put(address, data)
    return reference.run(example.descriptor, memory, limits), memory


def page_faults(limits: reference.Limits) -> reference.Limits:
    """Return the limits of a device behind an IOMMU, where holes are page faults."""
    return dataclasses.replace(limits, hole=Status.PAGE_FAULT)
