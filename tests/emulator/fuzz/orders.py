# SPDX-License-Identifier: Apache-2.0
"""Cases of a hostile guest, as data: made from a seed, kept as JSON, made smaller. Pure.

A case is a list of orders; each order is a list of a verb and its words. What a verb means is in
``play``. Nothing here knows whether the device would accept anything: most orders are nearly
right, so that they get far, and some are not right at all.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from tests.emulator.descriptors import DESCRIPTOR, Descriptor, Flag, Opcode
from tests.emulator.iommu import TABLES, TABLES_END

Order = list[str | int]
Case = list[Order]

#: Guest memory that cases use, and addresses at which memory ends or other things begin.
ARENA, ARENA_END = 0x100_0000, 0x180_0000
EDGES = (
    *(0, 0x9_FFC0, 0xA_0000, 0xC_0000, 0xFFF_FFC0, 0xFFF_FFFF, 0x1000_0000),
    *(0xB000_0000, 0xC000_0000, 0xFEC0_0000, 0xFEE0_0000, 0xFFFF_FFFF),
    *(1 << 32, 1 << 39, (1 << 46) - 64, 1 << 52, 1 << 63, (1 << 64) - 1, (1 << 64) - 4096),
)
#: How an IOMMU may stand before the device; machines without one ignore it.
MODES = ("off", "passthrough", "translated")
_SIZES = (0, 1, 2, 3, 8, 31, 32, 63, 64, 65, 4095, 4096, 4097, 65536, 1 << 20)
_HUGE = (1 << 21, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
_REGISTERS = (
    *(0x00, 0x10, 0x20, 0x30, 0x38, 0x40, 0x60, 0x80, 0x88, 0x90, 0x98, 0xA0, 0xA8, 0xB0),
    *(0xC0, 0xC8, 0xD0, 0xD8, 0xE0, 0xE8, 0xF0, 0xF8, 0x100, 0x1000, 0x1020, 0x1040, 0x2000),
    *(0x2018, 0x2020, 0x3000, 0x8000, 0x800C, 0xC000, 0xFFF8),
)
_KINDS = (
    *("error", "partial", "corrupt", "late", "never", "reorder", "lost-interrupt"),
    *("stuck", "halt", "command-late", "command-stuck", "command-error"),
)


def _address(rng: random.Random) -> int:
    chance = rng.random()
    if chance < 0.93:
        return rng.randrange(ARENA, ARENA_END) & -rng.choice((1, 8, 32, 64, 4096))
    if chance < 0.99:
        return max(0, rng.choice(EDGES) - rng.choice((0, 0, 1, 32, 64, 4096)))
    return rng.getrandbits(64)


def _size(rng: random.Random) -> int:
    chance = rng.random()
    if chance < 0.6:
        return rng.choice(_SIZES)
    return rng.randrange(1 << 17) if chance < 0.97 else rng.choice((*_HUGE, rng.getrandbits(32)))


def _value(rng: random.Random) -> int:
    return rng.choice((0, 1, (1 << 64) - 1, rng.getrandbits(64), 1 << rng.randrange(64)))


def descriptor(rng: random.Random) -> bytes:
    """Return a descriptor: an operation with fields that may suit it, now and then with a flip."""
    flags = Flag.RECORD | Flag.RECORD_VALID
    for bit in range(24):
        if rng.random() < 0.02:
            flags ^= Flag(1 << bit)
    made = Descriptor(
        rng.choice(list(Opcode)),
        flags=flags,
        completion=_address(rng) & -32 if rng.random() < 0.97 else _address(rng),
        src=_address(rng),
        dst=_address(rng),
        size=_size(rng),
    )
    raw = bytearray(made.encode())
    if rng.random() < 0.6:  # a second address, and a size or a mask, where operations have them
        raw[40:48] = _address(rng).to_bytes(8, "little")
    if rng.random() < 0.4:
        raw[48:52] = (_size(rng) & 0xFFFF_FFFF).to_bytes(4, "little")
    for at in range(36, DESCRIPTOR):
        if rng.random() < 0.02:
            raw[at] = rng.getrandbits(8)
    while rng.random() < 0.1:
        raw[rng.randrange(DESCRIPTOR)] ^= 1 << rng.randrange(8)
    return bytes(raw)


def _submit(rng: random.Random) -> Case:
    queue, page = min(rng.randrange(5), rng.randrange(9)), rng.choice((0, 0, 0, 0, 0, 1, 1, 2, 3))
    return [["submit", queue, page, descriptor(rng).hex()]]


def _batch(rng: random.Random) -> Case:
    count = rng.choice((0, 1, 2, 3, 8, 33))
    at = rng.randrange(ARENA, ARENA_END) & -64
    members = b"".join(descriptor(rng) for _ in range(count))
    told = count if rng.random() < 0.9 else rng.choice((0, 1, count + 1, 1025, 1 << 31))
    batch = Descriptor(
        Opcode.BATCH,
        flags=Flag.RECORD | Flag.RECORD_VALID,
        completion=_address(rng) & -32,
        src=at if rng.random() < 0.95 else _address(rng),
        size=told,
    )
    return [
        ["memory", at, members.hex()],
        ["submit", rng.randrange(3), rng.randrange(2), batch.encode().hex()],
    ]


def _memory(rng: random.Random) -> Case:
    length = rng.choice((1, 32, 64, 200))
    return [["memory", rng.randrange(ARENA, ARENA_END), rng.randbytes(length).hex()]]


def _register(rng: random.Random) -> Case:
    size = rng.choice((1, 2, 4, 4, 8, 8))
    offset = rng.choice(_REGISTERS) + rng.choice((0, 0, 0, 4, 8, 32, 64))
    if rng.random() < 0.2:
        offset = rng.randrange(0x10000)
    return [["register", size, offset, _value(rng) & (1 << 8 * size) - 1]]


def _look(rng: random.Random) -> Case:
    return [["look", rng.choice((1, 2, 4, 8)), rng.randrange(0x10000)]]


def _command(rng: random.Random) -> Case:
    operand = rng.choice((0, 1, 2, 0xFF, 0x10001, rng.getrandbits(20)))
    return [["command", rng.randrange(16) if rng.random() < 0.97 else rng.getrandbits(5), operand]]


def _configuration(rng: random.Random) -> Case:
    size = rng.choice((1, 2, 4))
    offset = rng.randrange(0, 0x100) if rng.random() < 0.7 else rng.randrange(0x100, 0x1000)
    return [["configuration", size, offset & -size, _value(rng) & (1 << 8 * size) - 1]]


def _faults(rng: random.Random) -> Case:
    rules = []
    for _ in range(rng.randrange(3)):
        rule = [rng.choice(_KINDS)]
        rule += rng.choice(([], [f"nth={rng.randrange(1, 5)}"], ["share=300000"]))
        if rule[0] in ("late", "command-late", "reorder"):
            rule.append(f"ms={rng.choice((0, 1, 20))}")
        rules.append(":".join(rule))
    return [["faults", ";".join(rules)]]


def _mapping(rng: random.Random) -> Case:
    page = rng.randrange(ARENA, ARENA_END) & -4096
    target = page if rng.random() < 0.5 else _address(rng) & -4096 & (1 << 39) - 1
    flush: Case = [["flush"]] if rng.random() < 0.7 else []
    return [["map", page, target, rng.choice((0, 0, 1, 2, 3, 3))], *flush]


def _tables(rng: random.Random) -> Case:
    # the first pages are those that a device's translation begins with
    pages = rng.choice((3, 16, (TABLES_END - TABLES) >> 12))
    at = TABLES + rng.randrange(pages << 12) & -8
    return [["memory", at, rng.randbytes(8).hex()], ["flush"]]


def _start(rng: random.Random) -> Case:
    return [["start", rng.randrange(1, 9), rng.randrange(1, 5), int(rng.random() < 0.1)]]


_MAKERS: tuple[tuple[int, Callable[[random.Random], Case]], ...] = (
    (44, _submit),
    (14, _batch),
    (6, _memory),
    (5, _register),
    (4, _look),
    (6, _command),
    (2, _configuration),
    (4, _faults),
    (5, _start),
    (1, lambda _: [["flr"]]),
    (2, lambda rng: [["flr"], *_start(rng)]),
    (1, lambda rng: [["reset"], *_start(rng)]),
    (1, lambda _: [["release"]]),
    (1, lambda rng: [["halt", rng.choice(("software", "flr"))], *_submit(rng), *_start(rng)]),
    (2, lambda rng: [["step", rng.choice((1, 1000, 10**6, 10**9))]]),
    (1, lambda _: [["stop"], ["cont"]]),
    (1, lambda _: [["save"]]),
    (1, lambda _: [["interrupts"]]),
    (3, _mapping),
    (1, _tables),
    (1, lambda rng: [["translate", rng.choice(MODES)]]),
)


def case(seed: int, length: int = 60) -> Case:
    """Return the case of a seed; it begins with a device that works.

    >>> case(1) == case(1), case(1) == case(2)
    (True, False)
    """
    rng = random.Random(seed)
    weights, makers = zip(*_MAKERS, strict=True)
    orders = _start(rng)
    while len(orders) < length:
        orders += rng.choices(makers, weights)[0](rng)
    return orders


def smaller(orders: Sequence[Order], fails: Callable[[Case], bool]) -> Case:
    """Return the orders of a failing case that are needed for it to fail.

    Parts are left out, first large ones, as long as it still fails.

    >>> smaller([[n] for n in range(20)], lambda kept: [3] in kept and [11] in kept)
    [[3], [11]]
    """
    kept = list(orders)
    part = max(1, len(kept) // 2)
    while True:
        at = 0
        while at < len(kept):
            fewer = kept[:at] + kept[at + part :]
            if fails(fewer):
                kept = fewer
            else:
                at += part
        if part == 1:
            return kept
        part //= 2
