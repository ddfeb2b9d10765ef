# SPDX-License-Identifier: Apache-2.0
"""Every operation behind the emulated IOMMU, with pages that are not mapped.

The arena is 64 pages of I/O addresses. They lead to memory in reverse order, so that nothing works
that does not translate; some lead nowhere. The model says what is done before a fault.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest
from hypothesis import given

from tests.emulator import examples
from tests.emulator.conftest import placed
from tests.emulator.descriptors import (
    NO_FLAGS,
    SECOND,
    TOLD,
    Flag,
    Opcode,
    Status,
    batch,
    drain,
    fill,
    move,
    noop,
)
from tests.emulator.dsa import ARENA, LISTS, RECORDS, SLOT, Dsa, Queue
from tests.emulator.examples import Arena, Example
from tests.emulator.iommu import READ, WORDS, Iommu
from tests.emulator.test_ops import profile
from tests.emulator.trial import PAGE, SIZE, Trial

pytestmark = pytest.mark.system

BASE = 0x40_0000_0000
HOLES = frozenset(BASE // PAGE + page for page in (9, 20, 21, 40, 50))
QUEUE = Queue(block_on_fault=True, max_transfer=18)


def behind(dsa: Dsa) -> Iommu:
    """Put a device behind an IOMMU that lets it reach what the driver uses, and the arena."""
    iommu = Iommu(dsa.machine)
    iommu.identity(RECORDS, LISTS + 0x2_0000)
    for number in range(SIZE // PAGE):
        if BASE // PAGE + number not in HOLES:
            iommu.map(BASE + number * PAGE, place(number))
    iommu.take(dsa.pci)
    iommu.enable()
    return iommu


def place(number: int) -> int:
    """Return where a page of the arena is in memory."""
    return ARENA + SIZE - (number + 1) * PAGE


@pytest.fixture(scope="module", params=["1.0", "2.0"])
def trial(emulator: str, request: pytest.FixtureRequest) -> Iterator[Trial]:
    """A device of each version behind an IOMMU."""
    with placed(emulator, f"version={request.param}", words=WORDS) as machine:
        dsa = Dsa.at(machine, SLOT)
        behind(dsa)
        dsa.start([QUEUE])
        arena = Arena(BASE, SIZE, HOLES)
        places = {
            BASE // PAGE + number: place(number)
            for number in range(SIZE // PAGE)
            if BASE // PAGE + number not in HOLES
        }
        found = Trial(dsa, QUEUE, arena, places)
        found.limits = dataclasses.replace(found.limits, hole=Status.PAGE_FAULT)
        yield found


@pytest.mark.parametrize("opcode", examples.DRAWN, ids=lambda opcode: opcode.name)
def test_an_operation(trial: Trial, opcode: Opcode) -> None:
    """Faults end it where the model ends it."""
    if opcode in SECOND and not trial.limits.second:
        pytest.skip("not in a DSA 1.0")
    if opcode == Opcode.DRAIN:
        pytest.skip("what its read-back does is below")

    @profile
    @given(examples.right(opcode, trial.arena, trial.limits))
    def conforms(example: Example) -> None:
        trial.run(example)

    conforms()


@pytest.fixture(scope="module")
def pair(emulator: str) -> Iterator[tuple[Dsa, Iommu]]:
    """A device and its IOMMU."""
    with placed(emulator, "", words=WORDS) as machine:
        dsa = Dsa.at(machine, SLOT)
        iommu = behind(dsa)
        dsa.start([QUEUE])
        yield dsa, iommu


HOLE = min(HOLES) * PAGE


@pytest.mark.parametrize("block", [False, True])
def test_the_fault_is_told(pair: tuple[Dsa, Iommu], block: bool) -> None:
    """Status, direction, address, bytes; and by the IOMMU."""
    dsa, iommu = pair
    flags = TOLD | Flag.BLOCK_ON_FAULT * block
    status = Status.PAGE_FAULT_IR if block else Status.PAGE_FAULT
    record = dsa.run(move(HOLE - 100, BASE, 5000, flags))
    assert (status, False, HOLE, 100) == (
        record.code,
        record.faulted_writing,
        record.fault_addr,
        record.completed,
    )
    record = dsa.run(move(BASE, HOLE - 100, 5000, flags))
    assert (status, True, HOLE, 100) == (
        record.code,
        record.faulted_writing,
        record.fault_addr,
        record.completed,
    )
    assert iommu.faulted()


def test_a_page_that_is_mapped_later(pair: tuple[Dsa, Iommu]) -> None:
    """Software can go on where the fault was."""
    dsa, iommu = pair
    page = 33
    iommu.unmap(BASE + page * PAGE)
    desc = fill(BASE + page * PAGE - 8, 16, 0x0101010101010101)
    record = dsa.run(desc)
    assert (Status.PAGE_FAULT, 8) == (record.code, record.completed)
    iommu.map(BASE + page * PAGE, place(page))
    iommu.flush()
    assert Status.SUCCESS == dsa.run(desc.but(dst=desc.dst + 8, size=8)).status
    assert b"\1" * 8 == dsa.machine.read(place(page), 8)


def test_a_page_that_may_only_be_read(pair: tuple[Dsa, Iommu]) -> None:
    """Reading works, writing faults and changes nothing."""
    dsa, iommu = pair
    page = 35
    dsa.machine.clear(place(page), PAGE, 5)
    iommu.map(BASE + page * PAGE, place(page), READ)
    iommu.flush()
    assert Status.SUCCESS == dsa.run(move(BASE + page * PAGE, BASE, PAGE)).status
    record = dsa.run(fill(BASE + page * PAGE, PAGE, 0))
    assert (Status.PAGE_FAULT, True, 0) == (record.code, record.faulted_writing, record.completed)
    assert b"\5" * PAGE == dsa.machine.read(place(page), PAGE)


def test_a_drain_that_reads_back(pair: tuple[Dsa, Iommu]) -> None:
    """Its address must be there."""
    dsa, _ = pair
    if not dsa.limits().drain_readback:
        assert Status.BAD_FLAGS == dsa.run(drain(TOLD | Flag.DRAIN_READBACK_1)).status
        return
    good = drain(TOLD | Flag.DRAIN_READBACK_1).but(src=BASE)
    assert Status.SUCCESS == dsa.run(good).status
    assert Status.READBACK_FAULT == dsa.run(good.but(src=HOLE)).status


def test_a_record_that_faults(pair: tuple[Dsa, Iommu]) -> None:
    """It is told in the software error register."""
    dsa, _ = pair
    dsa.submit(noop().but(completion=HOLE))
    dsa.machine.until("an error", lambda: dsa.software_error().valid)
    error = dsa.software_error(clear=True)
    assert (Status.RECORD_FAULT, HOLE) == (error.error, error.address & ~31)


def test_a_list_that_faults(pair: tuple[Dsa, Iommu]) -> None:
    """What is there of it is done."""
    dsa, _ = pair
    page = HOLE // PAGE - BASE // PAGE - 1
    members = [fill(BASE + 64 * i, 8, i + 1, NO_FLAGS) for i in range(3)]
    raw = b"".join(member.encode() for member in members)
    dsa.machine.write(place(page) + PAGE - len(raw), raw)
    record = dsa.run(batch(HOLE - len(raw), 6))
    assert (Status.BATCH_FAULT, 3, HOLE) == (record.code, record.completed, record.fault_addr)
    assert 3 == dsa.machine.read8(place(0) + 128)


def test_no_identity_is_left(pair: tuple[Dsa, Iommu]) -> None:
    """Memory's own addresses lead nowhere, and interrupts still arrive."""
    dsa, _ = pair
    assert Status.PAGE_FAULT == dsa.run(move(ARENA, BASE, 8)).code
    dsa.take_interrupts()
    assert Status.SUCCESS == dsa.run(noop(TOLD | Flag.INTERRUPT).but(handle=1)).status
    dsa.await_interrupt(1)
