# SPDX-License-Identifier: Apache-2.0
"""The model of the DSA by laws that its own text does not state, and what is drawn for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.emulator import examples, reference
from tests.emulator.descriptors import (
    BLOCKS,
    SECOND,
    Descriptor,
    Opcode,
    Record,
    Status,
    Tags,
    apply_delta,
    copy_crc,
    create_delta,
    dif,
    move,
)
from tests.emulator.reference import Limits, Memory

ARENA = examples.Arena(0x100_0000, 64 * 1024)
HOLED = replace(ARENA, holes=frozenset(ARENA.base // 4096 + page for page in (3, 7, 12)))
FIRST, BOTH = Limits(max_transfer=1 << 18), Limits(second=True, max_transfer=1 << 18)

laws = settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def memory(holes: frozenset[int] = frozenset()) -> Memory:
    """Return an arena of noise."""
    return Memory(ARENA.base, bytearray(ARENA.noise()), holes)


def mended(found: Memory) -> Memory:
    """Return the memory with its holes filled in."""
    return Memory(found.base, found.data)


@laws
@given(examples.right(Opcode.MOVE, HOLED, FIRST))
def test_a_move_that_faulted_can_be_gone_on_with(example: examples.Example) -> None:
    """Software that follows the record ends with what an undisturbed move would have done."""
    desc, found = example.descriptor, memory(HOLED.holes)
    record = reference.run(desc, found, FIRST)
    if record.code in (Status.PAGE_FAULT, Status.PAGE_FAULT_IR):
        forward = 0 if record.result else record.completed
        rest = desc.but(
            src=desc.src + forward, dst=desc.dst + forward, size=desc.size - record.completed
        )
        found = mended(found)
        record = reference.run(rest, found, FIRST)
    assert Record(Status.SUCCESS) == record
    whole = memory()
    data = whole.get(desc.src, desc.size)
    whole.put(desc.dst, data)
    assert whole.data == found.data


@laws
@given(examples.right(Opcode.COPY_CRC, HOLED, FIRST))
def test_a_crc_that_faulted_can_be_gone_on_with(example: examples.Example) -> None:
    """The CRC of a part seeds that of the rest."""
    desc, found, whole = example.descriptor, memory(HOLED.holes), memory()
    desc = desc.but(flags=desc.flags & ~0x10000, op=desc.op[:8])
    record = reference.run(desc, found, FIRST)
    if record.code != Status.SUCCESS:
        done = record.completed
        rest = copy_crc(desc.src + done, desc.dst + done, desc.size - done, record.crc, desc.flags)
        record = reference.run(rest, mended(found), FIRST)
    assert reference.run(desc, whole, FIRST).crc == record.crc


@laws
@given(st.lists(st.integers(0, 4095), max_size=40), st.integers(8, 1000))
def test_a_delta_that_is_applied_makes_equal(changes: list[int], entries: int) -> None:
    """Create, then apply, and the second buffer is there; or the record had no room."""
    found = memory()
    old, new, at = ARENA.base, ARENA.base + 0x2000, ARENA.base + 0x4000
    found.put(new, found.get(old, 4096))
    for place in changes:
        found.put(new + place, bytes([found.get(new + place, 1)[0] ^ 0x80]))
    record = reference.run(create_delta(old, new, 4096, at, entries * 10), found, FIRST)
    size, room = record.delta_size, 4096 if record.result != 2 else record.completed
    if size:
        back = apply_delta(at, size, old, 4096)
        assert Record(Status.SUCCESS) == reference.run(back, found, FIRST)
    assert found.get(old, room) == found.get(new, room)
    assert (record.result == 0) == (size == 0)


@laws
@given(st.integers(0, 3), st.integers(1, 3), st.integers(0, 3), st.integers(0, 0xFFFFFFFF))
def test_what_insert_protects_is_checked_and_stripped(
    block: int, count: int, how: int, ref: int
) -> None:
    """Insert, check, strip: the data is back, and a changed bit anywhere is found."""
    found, tags = memory(), Tags(ref, 0xFFFE, 0x00F0)
    size, tagged = count * BLOCKS[block], count * (BLOCKS[block] + 8)
    data, protected, back = (ARENA.base + at for at in (0, 0x4000, 0x8000))
    common: dict[str, Any] = {"block": block, "how": how << 2}
    insert = dif(Opcode.DIF_INSERT, data, protected, size, make=tags, **common)
    assert Status.SUCCESS == reference.run(insert, found, FIRST).status
    strip = dif(Opcode.DIF_STRIP, protected, back, tagged, expect=tags, **common)
    assert Status.SUCCESS == reference.run(strip, found, FIRST).status
    assert found.get(data, size) == found.get(back, size)
    check = dif(Opcode.DIF_CHECK, protected, 0, tagged, expect=tags, **common)
    place = protected + ref % tagged
    found.put(place, bytes([found.get(place, 1)[0] ^ 0x01]))
    record = reference.run(check, found, FIRST)
    assert (Status.DIF_ERROR, ref % tagged // (BLOCKS[block] + 8)) == (
        record.status,
        record.completed // (BLOCKS[block] + 8),
    )


@pytest.mark.parametrize("limits", [FIRST, BOTH], ids=["1.0", "2.0"])
@pytest.mark.parametrize("opcode", examples.DRAWN)
def test_right_examples_are_not_refused(opcode: Opcode, limits: Limits) -> None:
    """What is drawn as right is right; so what a device refuses of it is the device's fault."""
    if opcode in SECOND and not limits.second:
        pytest.skip("not in a DSA 1.0")

    @laws
    @given(examples.right(opcode, ARENA, limits))
    def law(example: examples.Example) -> None:
        assert reference.check(example.descriptor, limits) is None

    law()


def test_spoiled_examples_fail_in_every_way() -> None:
    """Together, the spoiled examples meet every status that a check can give."""
    seen: Counter[int] = Counter()
    for opcode in examples.DRAWN:

        @settings(laws, max_examples=60, phases=[Phase.generate])
        @given(examples.spoiled(opcode, ARENA, BOTH))
        def look(example: examples.Example) -> None:
            record = reference.check(example.descriptor, BOTH)
            seen[record.status if record else Status.SUCCESS] += 1

        look()
    ways = {
        Status.SUCCESS, Status.BAD_OPCODE, Status.BAD_FLAGS, Status.RESERVED, Status.SIZE,
        Status.DELTA_SIZE, Status.OVERLAP, Status.DUALCAST_ALIGN, Status.INT_HANDLE,
        Status.ADDR_ALIGN,
    }  # fmt: skip
    assert set() == ways - set(seen)


@pytest.mark.parametrize(
    ("descriptor", "status"),
    [
        (Descriptor(Opcode.BATCH, 0x1000, size=2), None),
        (Descriptor(Opcode.BATCH, 0x1000, size=1), Status.BATCH_COUNT),
        (Descriptor(Opcode.BATCH, 0x1000, size=1025), Status.BATCH_COUNT),
        (Descriptor(Opcode.BATCH, 0x1020, size=2), Status.LIST_ALIGN),
        (Descriptor(Opcode.BATCH, 0x1000, 0x1000, size=2), Status.RESERVED),
        (move(0x1000, 0x3000, 1).but(completion=0x10), Status.RECORD_ALIGN),
    ],
)
def test_checks_of_batches(descriptor: Descriptor, status: Status | None) -> None:
    """What is not drawn."""
    record = reference.check(descriptor, FIRST)
    assert status == (record.status if record else None)
