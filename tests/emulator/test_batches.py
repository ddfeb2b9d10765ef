# SPDX-License-Identifier: Apache-2.0
"""Batches: lists, fences, failures, and what goes on beside them.

==============================  ==========================================================
what                            how it must end
==============================  ==========================================================
2 to the queue's limit          all done, success
1, 0, one more than the limit   0x14, nothing done
list not aligned to 64          0x18
list that is not there          nothing done
a member fails                  5, the others are done, the count of all
a fence after a failure         5, nothing from there on, the count before it
a batch or a drain in a batch   that member 0x10
members without records         as with
==============================  ==========================================================
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.emulator.conftest import placed
from tests.emulator.descriptors import (
    NO_FLAGS,
    TOLD,
    Descriptor,
    Flag,
    Opcode,
    Record,
    Status,
    batch,
    compare,
    drain,
    fill,
    move,
    noop,
)
from tests.emulator.dsa import ARENA, LISTS, SLOT, Dsa, Queue
from tests.emulator.test_ops import profile

pytestmark = pytest.mark.system

FENCE = TOLD | Flag.FENCE


@pytest.fixture(scope="module", params=["1.0", "2.0"])
def device(emulator: str, request: pytest.FixtureRequest) -> Iterator[Dsa]:
    """A device with two queues: one takes batches of up to 1024, the other of up to 4."""
    with placed(emulator, f"version={request.param}") as machine:
        dsa = Dsa.at(machine, SLOT)
        dsa.start([Queue(size=32), Queue(size=8, max_batch=2)])
        yield dsa


def statuses(dsa: Dsa, slots: list[int]) -> list[int]:
    """Return the status of each record."""
    return [dsa.record(slot).status for slot in slots]


def test_a_batch(device: Dsa) -> None:
    """Each member is told, then the batch."""
    device.machine.clear(ARENA, 0x4000, 7)
    slots = device.list([fill(ARENA + 64 * i, 64, i) for i in range(5)])
    record = device.run(batch(LISTS, 5))
    assert (Status.SUCCESS, 5) == (record.status, record.completed)
    assert [Status.SUCCESS] * 5 == statuses(device, slots)
    for i in range(5):
        assert (i.to_bytes(8, "little") * 8) == device.machine.read(ARENA + 64 * i, 64)
    assert 7 == device.machine.read8(ARENA + 64 * 5)


@pytest.mark.parametrize("count", [2, 63, 64, 65, 1000, 1024])
def test_lists_of_all_lengths(device: Dsa, count: int) -> None:
    """Also those that are fetched in several pieces, without records for the members."""
    device.machine.clear(ARENA, 8 * 1025, 0)
    device.list([fill(ARENA + 8 * i, 8, i + 1, NO_FLAGS) for i in range(count)])
    record = device.run(batch(LISTS, count))
    assert (Status.SUCCESS, count) == (record.status, record.completed)
    wanted = b"".join((i + 1).to_bytes(8, "little") for i in range(count)) + bytes(8)
    assert wanted == device.machine.read(ARENA, 8 * (count + 1))


@pytest.mark.parametrize(
    ("descriptor", "queue", "status"),
    [
        (batch(LISTS, 0), 0, Status.BATCH_COUNT),
        (batch(LISTS, 1), 0, Status.BATCH_COUNT),
        (batch(LISTS, 1025), 0, Status.BATCH_COUNT),
        (batch(LISTS, 4), 1, Status.SUCCESS),
        (batch(LISTS, 5), 1, Status.BATCH_COUNT),
        (batch(LISTS + 32, 2), 0, Status.LIST_ALIGN),
        (batch(LISTS, 2, TOLD | Flag.BLOCK_ON_FAULT), 0, Status.BAD_FLAGS),
        (batch(LISTS, 2, FENCE), 0, Status.BAD_FLAGS),
        (batch(LISTS, 2).but(dst=1), 0, Status.RESERVED),
        (batch(LISTS, 2).but(op=b"\1"), 0, Status.RESERVED),
    ],
)
def test_batches_that_are_refused(
    device: Dsa, descriptor: Descriptor, queue: int, status: Status
) -> None:
    """Nothing of them is done."""
    device.machine.clear(ARENA, 64, 0)
    device.list([fill(ARENA, 64, 1)] * 8)
    record = device.run(descriptor, queue)
    assert status == record.status
    assert (status == Status.SUCCESS) == (device.machine.read8(ARENA) == 1)


def test_a_list_that_is_not_there(device: Dsa) -> None:
    """None of it can be read."""
    record = device.run(batch(0x8000_0000, 2))
    assert (Status.HW_ERROR, 0, 0x8000_0000) == (
        record.status,
        record.completed,
        record.fault_addr,
    )


def test_a_list_that_ends_with_the_memory(device: Dsa) -> None:
    """What can be read is done."""
    end = device.machine.memory
    device.machine.clear(ARENA, 64, 0)
    slots = device.list([fill(ARENA + 8 * i, 8, 1) for i in range(3)], at=end - 3 * 64)
    record = device.run(batch(end - 3 * 64, 5))
    assert (Status.HW_ERROR, 3) == (record.status, record.completed)
    assert [Status.SUCCESS] * 3 == statuses(device, slots)


def test_a_member_that_fails(device: Dsa) -> None:
    """The others are done, and the batch says that one failed."""
    slots = device.list([noop(), move(ARENA, ARENA, 0), fill(ARENA, 8, 5), noop()])
    record = device.run(batch(LISTS, 4))
    assert (Status.BATCH_FAIL, 4) == (record.status, record.completed)
    assert [Status.SUCCESS, Status.SIZE, Status.SUCCESS, Status.SUCCESS] == statuses(device, slots)
    assert 5 == device.machine.read8(ARENA)


def test_a_fence_after_a_failure(device: Dsa) -> None:
    """From the fence on nothing is done."""
    device.machine.clear(ARENA, 64, 0)
    members = [noop(), move(ARENA, ARENA, 0), noop(), fill(ARENA, 8, 5, FENCE), noop()]
    slots = device.list(members)
    record = device.run(batch(LISTS, 5))
    assert (Status.BATCH_FAIL, 3) == (record.status, record.completed)
    assert [Status.SUCCESS, Status.SIZE, Status.SUCCESS, 0, 0] == statuses(device, slots)
    assert 0 == device.machine.read8(ARENA)


def test_a_fence_after_an_unexpected_result(device: Dsa) -> None:
    """So that a batch can copy only if it compared equal."""
    device.machine.write(ARENA, b"a" * 64 + b"a" * 63 + b"b" + bytes(64))
    same = compare(ARENA, ARENA + 64, 64, expected=0)
    copy = move(ARENA, ARENA + 128, 64, FENCE)
    slots = device.list([same, copy])
    assert (Status.BATCH_FAIL, 1) == (
        (record := device.run(batch(LISTS, 2))).status,
        record.completed,
    )
    assert [Status.PREDICATE, 0] == statuses(device, slots)
    assert bytes(64) == device.machine.read(ARENA + 128, 64)
    device.machine.write(ARENA + 127, b"a")
    device.list([same, copy])
    assert Status.SUCCESS == device.run(batch(LISTS, 2)).status
    assert b"a" * 64 == device.machine.read(ARENA + 128, 64)


def test_fences_keep_order(device: Dsa) -> None:
    """A chain of copies, each of what the one before wrote."""
    step, count = 0x1000, 40
    device.machine.clear(ARENA, step * (count + 1), 0)
    device.machine.write(ARENA, b"chain" * 800)
    device.list([move(ARENA + step * i, ARENA + step * (i + 1), 4000, FENCE) for i in range(count)])
    assert Status.SUCCESS == device.run(batch(LISTS, count)).status
    assert b"chain" * 800 == device.machine.read(ARENA + step * count, 4000)


@pytest.mark.parametrize("member", [batch(LISTS, 2), drain()])
def test_what_cannot_be_in_a_batch(device: Dsa, member: Descriptor) -> None:
    """A batch or a drain."""
    slots = device.list([member, noop()])
    record = device.run(batch(LISTS, 2))
    assert (Status.BATCH_FAIL, 2) == (record.status, record.completed)
    assert [Status.BAD_OPCODE, Status.SUCCESS] == statuses(device, slots)


def test_the_batch_speaks_for_silent_members(device: Dsa) -> None:
    """A member without a record that fails is in the batch's status, and in the error register."""
    device.list([noop(NO_FLAGS), move(ARENA, ARENA, 0, NO_FLAGS)])
    assert Status.BATCH_FAIL == device.run(batch(LISTS, 2)).status
    if not device.capabilities.event_log:
        error = device.software_error(clear=True)
        assert (Status.SIZE, True, 1) == (error.error, error.batch, error.batch_index)


def test_members_that_share_a_record(device: Dsa) -> None:
    """Where success is not told, a record is free for the failure of any."""
    slot = device.slot()
    desc = fill(ARENA, 64, 3, Flag.RECORD_VALID).but(completion=slot)
    device.machine.write(LISTS, b"".join(desc.encode() for _ in range(10)))
    assert Status.SUCCESS == device.run(batch(LISTS, 10)).status
    assert Record(0) == device.record(slot)


def test_batches_of_two_queues_do_not_mix(device: Dsa) -> None:
    """Many at once, each in its own part of memory."""
    device.machine.clear(ARENA, 0x10000, 0)
    records = []
    for number in range(8):
        at = LISTS + 0x1000 * number
        device.list([fill(ARENA + 0x1000 * number + 64 * i, 64, number) for i in range(4)], at)
        records.append(device.post(batch(at, 4), number % 2))
    assert [Status.SUCCESS] * 8 == [device.wait(slot).status for slot in records]
    for number in range(8):
        wanted = number.to_bytes(8, "little") * 32
        assert wanted == device.machine.read(ARENA + 0x1000 * number, 256)


MEMBERS = st.lists(
    st.tuples(st.sampled_from(["noop", "good", "bad"]), st.booleans()), min_size=2, max_size=12
)


def test_any_batch(device: Dsa) -> None:
    """Any mixture of members that succeed and fail, with and without fences."""

    @settings(profile, max_examples=60)
    @given(MEMBERS)
    def conforms(members: list[tuple[str, bool]]) -> None:
        kinds = {
            "noop": noop(),
            "good": fill(ARENA, 8, 1),
            "bad": Descriptor(Opcode.FILL, 1, ARENA, 0),
        }
        wanted: list[int] = []
        for kind, fenced in members:
            if fenced and any(status > Status.SUCCESS for status in wanted):
                break
            wanted.append(Status.SIZE if kind == "bad" else Status.SUCCESS)
        slots = device.list(
            [kinds[kind].but(flags=FENCE if fenced else TOLD) for kind, fenced in members]
        )
        record = device.run(batch(LISTS, len(members)))
        failed = any(status > Status.SUCCESS for status in wanted)
        assert (Status.BATCH_FAIL if failed else Status.SUCCESS, len(wanted)) == (
            record.status,
            record.completed,
        )
        assert wanted + [0] * (len(members) - len(wanted)) == statuses(device, slots)

    conforms()
