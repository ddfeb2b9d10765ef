# SPDX-License-Identifier: Apache-2.0
"""Every operation on the device, beside the model.

==============  =================================================================
what            how
==============  =================================================================
operations      all of DSA 1.0 and 2.0, 40 drawn examples each
sizes           1 byte to the arena of 256 KiB, about pages, unaligned
flags           those that change the result, and block-on-fault
errors          40 examples each with one thing wrong: `examples.SPOILS`
large           2 MiB and 17 MiB, the largest transfer of the queue and a byte more
limits          a queue that allows less than its device
==============  =================================================================

Pages that are missing need an IOMMU: `test_iommu`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from tests.emulator import examples
from tests.emulator.conftest import Bench, placed
from tests.emulator.descriptors import (
    NO_FLAGS,
    SECOND,
    TOLD,
    Descriptor,
    Flag,
    Opcode,
    Record,
    Status,
    compare,
    crc,
    fill,
    move,
    noop,
)
from tests.emulator.dsa import ARENA, SLOT, Dsa, Queue
from tests.emulator.reference import crc32c
from tests.emulator.trial import Trial, physical

pytestmark = pytest.mark.system

MIB = 1 << 20
QUEUE = Queue(block_on_fault=True, max_transfer=18)

profile = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module", params=["1.0", "2.0"])
def trial(emulator: str, request: pytest.FixtureRequest) -> Iterator[Trial]:
    """A device of each version."""
    with placed(emulator, f"version={request.param}") as machine:
        yield physical(Dsa.at(machine, SLOT), QUEUE)


def skip_unless_there(trial: Trial, opcode: Opcode) -> None:
    """Skip what a DSA 1.0 does not have."""
    if opcode in SECOND and not trial.limits.second:
        pytest.skip("not in a DSA 1.0")


@pytest.mark.parametrize("opcode", examples.DRAWN, ids=lambda opcode: opcode.name)
def test_an_operation(trial: Trial, opcode: Opcode) -> None:
    """Right descriptors do what the model does."""
    skip_unless_there(trial, opcode)

    @profile
    @given(examples.right(opcode, trial.arena, trial.limits))
    def conforms(example: examples.Example) -> None:
        trial.run(example)

    conforms()


@pytest.mark.parametrize("opcode", examples.DRAWN, ids=lambda opcode: opcode.name)
def test_what_is_refused(trial: Trial, opcode: Opcode) -> None:
    """Descriptors with one thing wrong are refused as the model refuses them, or do the same."""
    skip_unless_there(trial, opcode)

    @profile
    @given(examples.spoiled(opcode, trial.arena, trial.limits))
    def conforms(example: examples.Example) -> None:
        trial.run(example)

    conforms()


@pytest.mark.parametrize("opcode", [*range(0x0B, 0x10), 0x16, 0x18, 0x1F, 0x21, 0x40, 0xFF])
def test_operations_that_do_not_exist(trial: Trial, opcode: int) -> None:
    """Whatever else is in the descriptor."""
    assert Record(Status.BAD_OPCODE) == trial.dsa.run(Descriptor(opcode, ARENA, ARENA, 64))


# -- records -----------------------------------------------------------------------


@pytest.fixture
def started(dsa: Dsa) -> Dsa:
    """A device with one queue."""
    dsa.start([Queue()])
    return dsa


@pytest.mark.parametrize(
    ("descriptor", "written"),
    [
        (noop(TOLD), True),
        (noop(Flag.RECORD_VALID), False),
        (noop(NO_FLAGS), False),
        (move(ARENA, ARENA, 0, Flag.RECORD_VALID), True),  # failed: told all the same
        (move(ARENA, ARENA, 0, NO_FLAGS), False),
        (compare(ARENA, ARENA + 1, 64, Flag.RECORD_VALID), False),
        (compare(ARENA, ARENA + 1, 64, Flag.RECORD_VALID, expected=0), True),
    ],
)
def test_when_a_record_is_written(started: Dsa, descriptor: Descriptor, written: bool) -> None:
    """On success where it is asked for, otherwise where it can be."""
    started.machine.write(ARENA, bytes(range(128)))
    slot = started.slot()
    started.submit(descriptor.but(completion=slot))
    assert Status.SUCCESS == started.run(Descriptor(Opcode.DRAIN)).status  # comes after
    assert written == (started.record(slot).status != 0)


@pytest.mark.parametrize("offset", [1, 8, 16, 31])
def test_a_record_that_is_not_aligned(started: Dsa, offset: int) -> None:
    """Nothing is done and nothing written; the software error register tells."""
    slot = started.slot()
    before = started.machine.read(slot - 64, 192)
    started.submit(fill(ARENA, 64, 0xEE).but(completion=slot + offset))
    started.machine.until("an error", lambda: started.software_error().valid)
    error = started.software_error(clear=True)
    assert (Status.RECORD_ALIGN, 0, Opcode.FILL) == (error.error, error.wq, error.operation)
    assert (True, True, False) == (error.desc_valid, error.wq_valid, error.batch)
    assert before == started.machine.read(slot - 64, 192)
    assert bytes(64) == started.machine.read(ARENA, 64)
    assert not started.software_error().valid


def test_a_record_that_cannot_be_written(started: Dsa) -> None:
    """The operation is done, and the register tells where the record should have gone."""
    started.submit(fill(ARENA, 64, 0xEE).but(completion=0x8000_0000))
    started.machine.until("an error", lambda: started.software_error().valid)
    error = started.software_error(clear=True)
    # in which part of the record it failed is the device's business
    assert (Status.RECORD_FAULT, True, 0x8000_0000) == (
        error.error,
        error.write,
        error.address & ~31,
    )
    assert b"\xee" == started.machine.read(ARENA, 1)


def test_errors_without_a_record_go_to_the_register(started: Dsa) -> None:
    """The first is kept, and that there were more."""
    for size in (0, 0, 0):
        started.submit(move(ARENA, ARENA + 64, size, NO_FLAGS))
    started.run(Descriptor(Opcode.DRAIN))
    error = started.software_error(clear=True)
    assert (True, True, Status.SIZE) == (error.valid, error.overflow, error.error)
    started.submit(move(ARENA, ARENA + 64, 64, 0x40))
    started.run(Descriptor(Opcode.DRAIN))
    error = started.software_error()
    assert (Status.BAD_FLAGS, 0x40, False) == (error.error, error.invalid_flags, error.overflow)


# -- memory that is not there ------------------------------------------------------


@pytest.mark.parametrize(
    ("descriptor", "completed"),
    [
        (move(0x8000_0000, ARENA, 64), 0),
        (move(ARENA, 0x8000_0000, 64), 0),
        (move((256 << 20) - 5000, ARENA, 10000), 5000),
        (move(ARENA, (256 << 20) - 5000, 10000), 5000),
        (fill(0xFFFF_FFFF_FFFF_F000, 4096, 1), 0),
        (crc(0x1_0000_0000_0000, 64), 0),
    ],
)
def test_addresses_without_memory(started: Dsa, descriptor: Descriptor, completed: int) -> None:
    """Without an IOMMU there is no page to fault: the bus does not answer."""
    record = started.run(descriptor)
    assert (Status.HW_ERROR, completed) == (record.status, record.completed)


def test_registers_of_devices_are_no_memory(started: Dsa) -> None:
    """Peer-to-peer traffic is not emulated: refused as if nothing were there."""
    assert Status.HW_ERROR == started.run(move(started.regs, ARENA, 64)).status
    assert Status.HW_ERROR == started.run(move(ARENA, started.portals, 64)).status


# -- sizes -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2 * MIB, 2 * MIB + 1, 17 * MIB])
def test_large_moves(started: Dsa, size: int) -> None:
    """All bytes arrive, also at odd places."""
    src, dst = ARENA + 3, ARENA + 100 * MIB + 1
    piece = bytes((i * 7 + i // 251) & 0xFF for i in range(MIB))
    for at in range(0, size, MIB):
        started.machine.write(src + at, piece[: min(MIB, size - at)])
        started.machine.write(src + at, at.to_bytes(4, "little"))
    started.machine.write(dst - 1, b"\xa5")
    started.machine.write(dst + size, b"\x5a")
    assert Record(Status.SUCCESS) == started.run(move(src, dst, size))
    assert Record(Status.SUCCESS) == started.run(compare(src, dst, size))
    for at in range(0, size, 16 * MIB):
        length = min(16 * MIB, size - at)
        assert zlib.crc32(started.machine.read(src + at, length)) == zlib.crc32(
            started.machine.read(dst + at, length)
        )
    assert (b"\xa5", b"\x5a") == (
        started.machine.read(dst - 1, 1),
        started.machine.read(dst + size, 1),
    )


def test_a_large_crc(started: Dsa) -> None:
    """More than one piece of any device's work."""
    data = bytes((i * 13 + i // 255) & 0xFF for i in range(3 * MIB // 2 + 5))
    started.machine.write(ARENA + 1, data)
    assert crc32c(data) == started.run(crc(ARENA + 1, len(data))).crc


@pytest.mark.parametrize("shift", [0, 5, 12])
def test_a_queue_that_allows_less(dsa: Dsa, shift: int) -> None:
    """The largest transfer is the queue's, not the device's."""
    dsa.start([Queue(max_transfer=shift)])
    assert Status.SUCCESS == dsa.run(fill(ARENA, 1 << shift, 1)).status
    assert Status.SIZE == dsa.run(fill(ARENA, (1 << shift) + 1, 1)).status


def test_a_queue_that_allows_some_operations(dsa2: Dsa) -> None:
    """Queue 0 may fill, queue 1 may not; a DSA 1.0 cannot be told so."""
    dsa = dsa2
    some = 1 << Opcode.NOOP | 1 << Opcode.FILL
    dsa.start([Queue(opcodes=some), Queue(opcodes=1 << Opcode.NOOP)])
    assert Status.SUCCESS == dsa.run(fill(ARENA, 64, 1), 0).status
    assert Status.BAD_OPCODE == dsa.run(fill(ARENA, 64, 1), 1).status
    assert Status.BAD_OPCODE == dsa.run(move(ARENA, ARENA, 64), 0).status
    assert Status.SUCCESS == dsa.run(noop(), 1).status


def test_block_on_fault_belongs_to_the_queue(bench: Bench) -> None:
    """The flag is reserved where the queue has it not enabled, or the device not at all."""
    with_it, without = bench("", "block-on-fault=off")
    with_it.start([Queue(block_on_fault=True), Queue()])
    desc = fill(ARENA, 64, 1, TOLD | Flag.BLOCK_ON_FAULT)
    assert Status.SUCCESS == with_it.run(desc, 0).status
    record = with_it.run(desc, 1)
    assert (Status.BAD_FLAGS, Flag.BLOCK_ON_FAULT) == (record.status, record.invalid_flags)
    without.start([Queue()])
    assert Status.BAD_FLAGS == without.run(desc).status
