# SPDX-License-Identifier: Apache-2.0
"""The device around its operations: states, commands, queues, interrupts, resets, errors.

=============  ====================================================================
states         what enable, disable, drain, abort and reset lead to, and refuse
configuration  what a queue or a group must be to be enabled
queues         order, drains, occupancy, engines side by side
interrupts     completion, command, error; what gates which
errors         SWERR without an event log, the event log with
resets         by command, FLR, of the machine
devices        two of them know nothing of each other
counters       who did what
=============  ====================================================================

Faults make descriptors wait where a test needs one that has not ended: ``late`` until the virtual
clock is moved, ``stuck`` until released.
"""

from __future__ import annotations

import pytest

from tests.emulator.conftest import Bench
from tests.emulator.descriptors import (
    NO_FLAGS,
    TOLD,
    Flag,
    Status,
    batch,
    drain,
    fill,
    move,
    noop,
)
from tests.emulator.dsa import ARENA, LISTS, Cause, Command, Dsa, Error, Queue, Register, State
from tests.emulator.qtest import QemuError

pytestmark = pytest.mark.system

MS = 1_000_000


def left(dsa: Dsa, slot: int) -> bool:
    """Say whether a record is still to come."""
    return dsa.record(slot).status == 0


# -- what it is --------------------------------------------------------------------


def test_a_dsa_1(dsa: Dsa) -> None:
    """What drivers and the model rely on, as a Sapphire Rapids has it."""
    there = dsa.capabilities
    assert (0x100, 31, 10, False) == (
        there.version,
        there.transfer,
        there.batch,
        there.event_log,
    )
    assert (8, 128, 4, 4) == (there.queues, there.entries, there.groups, there.engines)
    assert 0x1_003F_03FF == there.opcodes
    assert there.queues + 1 == dsa.vector_count()
    assert State.DISABLED == dsa.state()


def test_a_dsa_2(dsa2: Dsa) -> None:
    """An event log and three operations more."""
    there = dsa2.capabilities
    assert (0x200, True, 0x1_00BF_07FF) == (there.version, there.event_log, there.opcodes)


def test_sizes_are_options(bench: Bench) -> None:
    """What is asked for is there."""
    (dsa,) = bench("queues=3,engines=2,groups=2,entries=40,max-batch-shift=4,max-transfer-shift=20")
    there = dsa.capabilities
    assert (3, 2, 2, 40) == (there.queues, there.engines, there.groups, there.entries)
    assert (4, 20, 4) == (there.batch, there.transfer, dsa.vector_count())
    dsa.start([Queue(), Queue(group=1)], [0, 1])
    assert Status.SUCCESS == dsa.run(fill(ARENA, 1 << 20, 1), 1).status
    assert Status.SIZE == dsa.run(fill(ARENA, (1 << 20) + 1, 1)).status
    assert Status.BATCH_COUNT == dsa.run(batch(LISTS, 17)).status


@pytest.mark.parametrize(
    "register", [Register.VERSION, Register.GENCAP, Register.WQCAP, Register.OPCAP, Register.GENSTS]
)
def test_capabilities_cannot_be_written(dsa: Dsa, register: Register) -> None:
    """They read what they did."""
    before = dsa.get(register)
    dsa.put(register, before ^ (1 << 64) - 1)
    assert before == dsa.get(register)


# -- commands ----------------------------------------------------------------------


def test_up_and_down(dsa: Dsa) -> None:
    """The way of a driver."""
    dsa.configure([Queue()])
    dsa.order(Command.ENABLE_DEVICE)
    assert State.ENABLED == dsa.state()
    dsa.order(Command.ENABLE_WQ, 0)
    assert 1 == dsa.wq_state(0)
    assert Status.SUCCESS == dsa.run(noop()).status
    dsa.order(Command.DISABLE_WQ, 1)  # a mask
    assert 0 == dsa.wq_state(0)
    dsa.order(Command.DISABLE_DEVICE)
    assert State.DISABLED == dsa.state()


def test_commands_that_are_refused(dsa: Dsa) -> None:
    """In each state, with the error that says why."""

    def error(command: int, operand: int = 0) -> int:
        return dsa.command(command, operand).error

    assert Error.BAD_CMD == error(0)
    assert Error.BAD_CMD == error(31)
    assert Error.DEVICE_NOT_ENABLED == error(Command.ENABLE_WQ, 0)
    assert Error.DEVICE_IS_DISABLED == error(Command.DISABLE_DEVICE)
    assert Error.BAD_CMD == error(Command.REQUEST_HANDLE, 1)  # not there by default
    dsa.start([Queue()])
    assert Error.DEVICE_ENABLED == error(Command.ENABLE_DEVICE)
    assert Error.WQ_ENABLED == error(Command.ENABLE_WQ, 0)
    assert Error.WQ_SIZE == error(Command.ENABLE_WQ, 1)
    assert Error.BAD_WQ == error(Command.ENABLE_WQ, 8)
    for command in (Command.DISABLE_WQ, Command.DRAIN_WQ, Command.ABORT_WQ, Command.RESET_WQ):
        assert Error.WQ_NOT_ENABLED == error(command, 2)
        assert Error.BAD_WQ == error(command, 1 | 5 << 16)
    assert State.ENABLED == dsa.state()
    assert Status.SUCCESS == dsa.run(noop()).status


def test_a_device_needs_bus_mastering(dsa: Dsa) -> None:
    """Otherwise it could not tell of anything."""
    dsa.configure([Queue()])
    dsa.pci.set16(dsa.pci.COMMAND, dsa.pci.MEMORY)
    assert Error.BUS_MASTER == dsa.command(Command.ENABLE_DEVICE).error
    dsa.pci.enable()
    assert Error.OK == dsa.command(Command.ENABLE_DEVICE).error


@pytest.mark.parametrize(
    ("queue", "error"),
    [
        (Queue(size=0), Error.WQ_SIZE),
        (Queue(priority=0), Error.WQ_PRIORITY),
        (Queue(dedicated=False), Error.WQ_MODE),
        (Queue(max_batch=11), Error.WQ_BATCH),
        (Queue(group=None), Error.CONFIG),
        (Queue(), Error.OK),
    ],
)
def test_what_a_queue_must_be(dsa: Dsa, queue: Queue, error: Error) -> None:
    """The error says what is wrong."""
    dsa.configure([queue])
    dsa.order(Command.ENABLE_DEVICE)
    assert error == dsa.command(Command.ENABLE_WQ, 0).error


def test_a_transfer_beyond_the_device(bench: Bench) -> None:
    """A queue cannot allow more than its device can."""
    (dsa,) = bench("max-transfer-shift=20,block-on-fault=off")
    dsa.configure([Queue(max_transfer=21), Queue(block_on_fault=True)])
    dsa.order(Command.ENABLE_DEVICE)
    assert Error.WQ_TRANSFER == dsa.command(Command.ENABLE_WQ, 0).error
    assert Error.WQ_BLOCK_ON_FAULT == dsa.command(Command.ENABLE_WQ, 1).error


def test_groups_that_cannot_be(dsa: Dsa) -> None:
    """Too many entries, queues without engines, and a queue or engine in two groups."""
    dsa.configure([Queue(size=65), Queue(size=64)])
    assert Error.TOTAL_SIZE == dsa.command(Command.ENABLE_DEVICE).error
    dsa.configure([Queue()], [1])
    assert dsa.command(Command.ENABLE_DEVICE).error >= Error.GROUP
    dsa.configure([Queue()])
    dsa.put(dsa.groups_at + 64, 1)
    assert dsa.command(Command.ENABLE_DEVICE).error >= Error.GROUP
    dsa.put(dsa.groups_at + 64, 0)
    dsa.put(dsa.groups_at + 64 + 32, 1)
    assert dsa.command(Command.ENABLE_DEVICE).error >= Error.GROUP
    dsa.put(dsa.groups_at + 64 + 32, 0)
    assert Error.OK == dsa.command(Command.ENABLE_DEVICE).error


def test_an_enabled_queue_keeps_its_configuration(dsa: Dsa) -> None:
    """Writes to it have no effect; after a reset of the queue only its size is left."""
    dsa.start([Queue(max_transfer=12)])
    before = [dsa.wq(0, word) for word in range(16) if word != 6]
    dsa.configure([Queue(size=3, max_transfer=20)])
    assert before == [dsa.wq(0, word) for word in range(16) if word != 6]
    assert Status.SIZE == dsa.run(fill(ARENA, 8192, 1)).status
    dsa.order(Command.RESET_WQ, 1)
    assert (16, 0, 0) == (dsa.wq(0, 0), dsa.wq(0, 2), dsa.wq(0, 3))


def test_a_command_while_one_is_active(dsa: Dsa) -> None:
    """The second is not executed, and told as an error."""
    dsa.start([Queue()])
    dsa.faults("command-late:ms=5")
    dsa.begin(Command.DRAIN_ALL)
    assert dsa.active()
    dsa.begin(Command.RESET_DEVICE)
    dsa.machine.step(5 * MS)
    dsa.machine.until("the command", lambda: not dsa.active())
    assert (Error.OK, State.ENABLED) == (dsa.outcome().error, dsa.state())
    assert dsa.software_error().valid


# -- queues ------------------------------------------------------------------------


def test_descriptors_complete_out_of_order(dsa: Dsa) -> None:
    """One that takes long is overtaken; a drain is not."""
    dsa.start([Queue()])
    dsa.faults("late:nth=1:ms=10")
    first = dsa.post(fill(ARENA, 8, 1))
    assert Status.SUCCESS == dsa.run(fill(ARENA, 8, 2)).status
    last = dsa.post(drain())
    assert Status.SUCCESS == dsa.run(fill(ARENA + 8, 8, 3)).status  # goes past the drain, too
    assert left(dsa, first)
    assert left(dsa, last)
    dsa.machine.step(10 * MS)
    assert Status.SUCCESS == dsa.wait(first).status
    assert Status.SUCCESS == dsa.wait(last).status
    assert 1 == dsa.machine.read8(ARENA)


def test_a_drain_waits_for_its_own_queue_only(dsa: Dsa) -> None:
    """What another queue does is no matter."""
    dsa.start([Queue(), Queue()])
    dsa.faults("late:wq=0:ms=10")
    slot = dsa.post(noop(), 0)
    assert Status.SUCCESS == dsa.run(drain(), 1).status
    assert left(dsa, slot)


def test_a_queue_that_is_full(dsa: Dsa) -> None:
    """A dedicated queue that is given more than it holds drops it, and tells."""
    dsa.start([Queue(size=4)], [0, None, None, None])
    dsa.faults("stuck:nth=1")
    slots = [dsa.post(noop()) for _ in range(1)]
    dsa.taken()
    slots += [dsa.post(noop()) for _ in range(4)]
    assert 4 == dsa.occupancy(0)
    assert not dsa.software_error().valid
    lost = dsa.post(noop())
    error = dsa.software_error(clear=True)
    assert (True, 0) == (error.valid, error.wq)
    dsa.faults("")
    dsa.machine.set(dsa.path, "release", True)
    assert [Status.SUCCESS] * 5 == [dsa.wait(slot).status for slot in slots]
    assert Status.SUCCESS == dsa.run(drain()).status
    assert left(dsa, lost)


def test_engines_work_side_by_side(dsa: Dsa) -> None:
    """One that is stuck takes the others nothing; with all stuck nothing goes on."""
    dsa.start([Queue()])
    dsa.faults("stuck:times=3")
    stuck = [dsa.post(noop()) for _ in range(3)]
    assert [Status.SUCCESS] * 20 == [dsa.run(noop()).status for _ in range(20)]
    assert all(left(dsa, slot) for slot in stuck)
    dsa.faults("stuck:times=1")
    stuck += [dsa.post(noop()) for _ in range(3)]
    dsa.machine.until("the engine to take one", lambda: dsa.occupancy(0) == 2)
    assert all(left(dsa, slot) for slot in stuck)
    dsa.machine.set(dsa.path, "release", True)
    assert [Status.SUCCESS] * 6 == [dsa.wait(slot).status for slot in stuck]


def test_a_group_has_its_own_engines(dsa: Dsa) -> None:
    """A stuck engine of one group is no matter for another."""
    dsa.start([Queue(group=0), Queue(group=1)], [0, 1, None, None])
    dsa.faults("stuck:wq=0")
    dsa.post(noop(), 0)
    waiting = dsa.post(noop(), 0)
    assert [Status.SUCCESS] * 5 == [dsa.run(noop(), 1).status for _ in range(5)]
    assert left(dsa, waiting)


def test_a_descriptor_in_parts(dsa: Dsa) -> None:
    """A portal takes 64 bytes at once; stores of other widths make no descriptor."""
    dsa.start([Queue()])
    slot = dsa.slot()
    raw = fill(ARENA, 64, 1).but(completion=slot).encode()
    for at in range(0, 64, 8):
        dsa.machine.write64(dsa.portal(0) + at, int.from_bytes(raw[at : at + 8], "little"))
    assert Status.SUCCESS == dsa.run(noop()).status
    assert left(dsa, slot)


def test_a_queue_that_is_not_enabled(dsa: Dsa) -> None:
    """Nothing happens, and the register tells."""
    dsa.start([Queue()])
    slot = dsa.post(noop(), 3)
    error = dsa.software_error()
    assert (True, True, 3) == (error.valid, error.wq_valid, error.wq)
    assert Status.SUCCESS == dsa.run(drain()).status
    assert left(dsa, slot)


@pytest.mark.parametrize("page", [0, 1])
def test_both_portals_of_a_queue(dsa: Dsa, page: int) -> None:
    """Limited or not: for a dedicated queue they are the same; anywhere in the page."""
    dsa.start([Queue()])
    slot = dsa.slot()
    portal = dsa.portal(0, page) + 0xFC0
    dsa.machine.write_block(portal, noop().but(completion=slot).encode())
    assert Status.SUCCESS == dsa.wait(slot).status


# -- ending descriptors -------------------------------------------------------------


@pytest.mark.parametrize("command", [Command.DRAIN_ALL, Command.DRAIN_WQ, Command.DISABLE_WQ])
def test_what_waits_for_descriptors(dsa: Dsa, command: Command) -> None:
    """The command ends when they have."""
    dsa.start([Queue()])
    dsa.faults("late:ms=10")
    slot = dsa.post(fill(ARENA, 8, 1))
    dsa.taken()
    dsa.begin(command, 1)
    assert dsa.active()
    dsa.machine.step(10 * MS)
    dsa.machine.until("the command", lambda: not dsa.active())
    assert (Error.OK, Status.SUCCESS) == (dsa.outcome().error, dsa.record(slot).status)


@pytest.mark.parametrize(
    "command", [Command.ABORT_ALL, Command.ABORT_WQ, Command.RESET_WQ, Command.RESET_DEVICE]
)
def test_what_gives_descriptors_up(dsa: Dsa, command: Command) -> None:
    """They are never told of, and touch memory no more."""
    dsa.start([Queue()])
    dsa.machine.clear(ARENA, 64)
    dsa.faults("late:ms=10;stuck:op=0")
    slots = [dsa.post(fill(ARENA, 8, 1)) for _ in range(5)] + [dsa.post(noop())]
    dsa.order(command, 1)
    dsa.machine.step(100 * MS)
    assert all(left(dsa, slot) for slot in slots)
    assert bytes(64) == dsa.machine.read(ARENA, 64)
    dsa.faults("")
    if command == Command.RESET_DEVICE:
        assert State.DISABLED == dsa.state()
        dsa.start([Queue()])
    if command == Command.RESET_WQ:
        dsa.configure([Queue()])
        dsa.order(Command.ENABLE_WQ, 0)
    assert Status.SUCCESS == dsa.run(noop()).status


def test_an_abort_of_a_large_transfer(dsa: Dsa) -> None:
    """It stops between two pieces: the abort does not take as long as the transfer."""
    dsa.start([Queue()])
    for _ in range(20):
        slot = dsa.post(move(ARENA, ARENA + (100 << 20), 100 << 20))
        dsa.order(Command.ABORT_WQ, 1)
        assert dsa.record(slot).status in (0, Status.SUCCESS)
    assert Status.SUCCESS == dsa.run(noop()).status


def test_an_abort_spares_other_queues(dsa: Dsa) -> None:
    """Only those in the mask."""
    dsa.start([Queue(), Queue(), Queue()])
    dsa.faults("late:ms=10")
    slots = [dsa.post(noop(), queue) for queue in range(3)]
    dsa.taken(0, 1, 2)
    dsa.order(Command.ABORT_WQ, 0b101)
    dsa.machine.step(10 * MS)
    assert Status.SUCCESS == dsa.wait(slots[1]).status
    assert [True, True] == [left(dsa, slots[0]), left(dsa, slots[2])]


# -- interrupts --------------------------------------------------------------------


@pytest.mark.parametrize("vector", [1, 5, 8])
def test_an_interrupt_on_completion(dsa: Dsa, vector: int) -> None:
    """On the vector of the handle, and on no other."""
    dsa.start([Queue()])
    dsa.take_interrupts()
    assert Status.SUCCESS == dsa.run(noop()).status
    desc = noop(TOLD | Flag.INTERRUPT).but(handle=vector)
    assert Status.SUCCESS == dsa.run(desc).status
    dsa.await_interrupt(vector)
    assert not any(dsa.interrupted(n) for n in range(9))


def test_an_interrupt_without_a_record(dsa: Dsa) -> None:
    """It can be all that there is."""
    dsa.start([Queue()])
    dsa.take_interrupts()
    dsa.submit(noop(Flag.INTERRUPT).but(handle=2))
    dsa.await_interrupt(2)


def test_a_handle_that_is_not_there(dsa: Dsa) -> None:
    """As many as there are vectors."""
    dsa.start([Queue()])
    record = dsa.run(fill(ARENA, 8, 1, TOLD | Flag.INTERRUPT).but(handle=9))
    assert Status.INT_HANDLE == record.status


def test_a_masked_vector_is_pending(dsa: Dsa) -> None:
    """It is told when the mask goes."""
    dsa.start([Queue()])
    dsa.take_interrupts()
    at = dsa.pci.capability(dsa.pci.MSIX)
    assert at is not None
    mask = dsa.regs + (dsa.pci.get32(at + 4) & ~7) + 16 * 3 + 12
    dsa.machine.write32(mask, 1)
    assert Status.SUCCESS == dsa.run(noop(TOLD | Flag.INTERRUPT).but(handle=3)).status
    dsa.order(Command.DRAIN_ALL)
    assert not dsa.interrupted(3)
    dsa.machine.write32(mask, 0)
    dsa.await_interrupt(3)


def test_a_command_that_asks_for_an_interrupt(dsa: Dsa) -> None:
    """Whatever GENCTRL says; the cause is cleared by writing it."""
    dsa.take_interrupts()
    dsa.configure([Queue()])
    dsa.order(Command.ENABLE_DEVICE)
    assert not dsa.interrupted(0)
    assert Error.OK == dsa.command(Command.ENABLE_WQ, 0, interrupt=True).error
    dsa.await_interrupt(0)
    assert Cause.COMMAND == dsa.causes(clear=True)
    assert Cause(0) == dsa.causes()


@pytest.mark.parametrize("enabled", [False, True])
def test_an_error_interrupts_if_it_may(dsa: Dsa, enabled: bool) -> None:
    """GENCTRL decides."""
    dsa.start([Queue()])
    dsa.take_interrupts()
    dsa.put32(Register.GENCTRL, enabled)
    dsa.submit(move(ARENA, ARENA, 0, NO_FLAGS))
    dsa.order(Command.DRAIN_ALL)
    assert dsa.software_error().valid
    if enabled:
        dsa.await_interrupt(0)
        assert Cause.ERROR in dsa.causes()
    else:
        assert not dsa.interrupted(0)


# -- interrupt handles ---------------------------------------------------------------


@pytest.fixture
def handled(bench: Bench) -> Dsa:
    """A device whose handles have to be asked for, started."""
    (dsa,) = bench("int-handles=on")
    dsa.take_interrupts()
    dsa.start([Queue()])
    return dsa


def told_by(dsa: Dsa, handle: int) -> int:
    """Return the status of a no-op that asks for an interrupt by a handle."""
    return dsa.run(noop(TOLD | Flag.INTERRUPT).but(handle=handle)).status


def test_a_handle_is_asked_for_and_given_back(handled: Dsa) -> None:
    """Each vector has its own; a vector's number is none, nor is one that was given back."""
    assert 1 == handled.capabilities.gencap >> 31 & 1  # the commands that are there are told
    assert handled.capabilities.cmdcap >> Command.REQUEST_HANDLE & 3 == 3
    assert Status.INT_HANDLE == told_by(handled, 3)
    found = {n: handled.command(Command.REQUEST_HANDLE, n) for n in range(1, 9)}
    assert {Error.OK} == {outcome.error for outcome in found.values()}
    assert 8 == len({outcome.result for outcome in found.values()})
    for vector, (_, handle) in found.items():
        assert Status.SUCCESS == told_by(handled, handle)
        handled.await_interrupt(vector)
    handled.order(Command.RELEASE_HANDLE, found[3].result)
    assert Status.INT_HANDLE == told_by(handled, found[3].result)
    assert Status.SUCCESS == told_by(handled, found[4].result)
    assert Error.INT_INDEX == handled.command(Command.RELEASE_HANDLE, found[3].result).error
    assert Error.INT_INDEX == handled.command(Command.REQUEST_HANDLE, 9).error


def test_handles_that_are_revoked(handled: Dsa) -> None:
    """All at once, with an interrupt that says so; those asked for anew are others."""
    old = handled.command(Command.REQUEST_HANDLE, 2).result
    handled.causes(clear=True)
    handled.machine.set(handled.path, "revoke-handles", True)
    handled.await_interrupt(0)
    assert Cause.REVOKED == handled.causes(clear=True)
    assert Status.INT_HANDLE == told_by(handled, old)
    new = handled.command(Command.REQUEST_HANDLE, 2).result
    assert old != new
    assert Status.SUCCESS == told_by(handled, new)
    handled.await_interrupt(2)


def test_more_vectors_than_queues(bench: Bench) -> None:
    """Each can be asked for and interrupts, up to the last; what no device has is refused."""
    (dsa,) = bench("int-handles=on,queues=4,vectors=20")
    assert 20 == dsa.vector_count()
    dsa.take_interrupts()
    dsa.start([Queue()])
    error, handle = dsa.command(Command.REQUEST_HANDLE, 19)
    assert Error.OK == error
    assert Status.SUCCESS == told_by(dsa, handle)
    dsa.await_interrupt(19)
    assert Error.INT_INDEX == dsa.command(Command.REQUEST_HANDLE, 20).error
    for count in (4, 66):
        with pytest.raises(QemuError, match=rf"vectors: expected 5 to 65, found {count}"):
            bench(f"queues=4,vectors={count}")


def test_an_interrupt_for_nothing(dsa: Dsa) -> None:
    """It says what it was told to say, also while a command is active, and changes nothing."""
    dsa.take_interrupts()
    dsa.start([Queue()])
    dsa.faults(f"command-late:op={Command.DRAIN_ALL:d}:ms=10")
    dsa.begin(Command.DRAIN_ALL, interrupt=True)
    dsa.machine.set(dsa.path, "interrupt", int(Cause.COMMAND | Cause.OCCUPANCY))
    dsa.await_interrupt(0)
    assert Cause.COMMAND | Cause.OCCUPANCY == dsa.causes(clear=True)
    assert dsa.active()
    dsa.machine.step(10 * MS)
    dsa.await_interrupt(0)
    assert Cause.COMMAND == dsa.causes(clear=True)
    assert not dsa.active()


# -- event log ---------------------------------------------------------------------


def log_of(dsa: Dsa, entries: int = 64, at: int = LISTS + 0x8000) -> None:
    """Give a device an event log, and start it."""
    dsa.machine.clear(at, entries * 64)
    dsa.put(Register.EVLCFG, at)
    dsa.put(Register.EVLCFG + 8, entries)
    dsa.put32(Register.GENCFG, 1 << 13)
    dsa.put32(Register.GENCTRL, 1 << 2)
    dsa.take_interrupts()
    dsa.start([Queue()])


def tail(dsa: Dsa) -> int:
    """Return where the next entry goes."""
    return dsa.get(Register.EVLSTATUS) >> 32 & 0xFFFF


def test_errors_go_to_the_event_log(dsa2: Dsa) -> None:
    """With what is in the record that could not be written, and an interrupt."""
    at = LISTS + 0x8000
    log_of(dsa2)
    dsa2.submit(move(ARENA, ARENA, 0, NO_FLAGS))
    dsa2.machine.until("an entry", lambda: tail(dsa2) == 1)
    dsa2.await_interrupt(0)
    assert Cause.EVENT_LOG in dsa2.causes(clear=True)
    first = dsa2.machine.read64(at)
    assert (Status.SIZE, 3) == (first >> 8 & 0xFF, first >> 32 & 0xFF)
    assert Status.SIZE == dsa2.machine.read8(at + 32)  # the record
    assert not dsa2.software_error().valid


def test_an_event_log_that_is_full(dsa2: Dsa) -> None:
    """One place stays free; what comes then waits until the head moves on."""
    log_of(dsa2)
    for _ in range(70):
        dsa2.submit(move(ARENA, ARENA, 0, NO_FLAGS))
        assert Status.SUCCESS == dsa2.run(drain()).status
    dsa2.machine.until("a full log", lambda: tail(dsa2) == 63)
    dsa2.put32(Register.EVLSTATUS, 10)  # the head
    dsa2.machine.until("what had waited", lambda: tail(dsa2) == 6)


def test_a_log_that_is_too_small(dsa2: Dsa) -> None:
    """The device is not enabled."""
    dsa2.configure([Queue()])
    dsa2.put(Register.EVLCFG, LISTS)
    dsa2.put(Register.EVLCFG + 8, 63)
    dsa2.put32(Register.GENCFG, 1 << 13)
    assert Error.CONFIG == dsa2.command(Command.ENABLE_DEVICE).error


# -- resets ------------------------------------------------------------------------


def test_a_function_level_reset(dsa: Dsa) -> None:
    """All is as at first, and what was under way is never told."""
    fresh = [dsa.get(at) for at in range(0, 0xB8, 8) if at != Register.CMD]
    dsa.start([Queue()])
    dsa.take_interrupts()
    dsa.put32(Register.GENCTRL, 7)
    dsa.machine.clear(ARENA, 64)
    dsa.faults("late:ms=10")
    slot = dsa.post(fill(ARENA, 8, 1))
    dsa.pci.reset()
    dsa.faults("")
    dsa.start_of_life()
    assert fresh == [dsa.get(at) for at in range(0, 0xB8, 8) if at != Register.CMD]
    dsa.machine.step(100 * MS)
    assert left(dsa, slot)
    assert bytes(64) == dsa.machine.read(ARENA, 64)
    dsa.start([Queue()])
    assert Status.SUCCESS == dsa.run(noop()).status


def test_a_reset_under_load(dsa: Dsa) -> None:
    """Again and again, in the middle of large transfers and batches."""
    for round_ in range(15):
        dsa.start([Queue(size=16)])
        dsa.list([move(ARENA, ARENA + (50 << 20), 4 << 20, Flag(0))] * 64)
        for _ in range(4):
            dsa.post(move(ARENA, ARENA + (100 << 20), 50 << 20))
            dsa.post(batch(LISTS, 64))
        if round_ % 3 == 0:
            dsa.pci.reset()
            dsa.start_of_life()
        elif round_ % 3 == 1:
            dsa.order(Command.RESET_DEVICE)
        else:
            dsa.machine.qmp("system_reset")
            dsa.machine.until("the reset", lambda: dsa.pci.get16(dsa.pci.COMMAND) == 0)
            dsa.machine.show_configuration()
            dsa.start_of_life()
        assert State.DISABLED == dsa.state()


# -- PASIDs ------------------------------------------------------------------------


def with_pasids(dsa: Dsa, *pasids: int) -> None:
    """Start dedicated queues whose descriptors count as these PASIDs'."""
    at = dsa.pci.extended(0x1B)
    assert at is not None
    dsa.pci.set16(at + 6, 1)
    dsa.configure([Queue() for _ in pasids])
    for number, pasid in enumerate(pasids):
        mode = dsa.queues_at + dsa.capabilities.queue_stride * number + 8
        dsa.put32(mode, dsa.get32(mode) | 1 << 28 | pasid << 8)
    dsa.order(Command.ENABLE_DEVICE)
    for number in range(len(pasids)):
        dsa.order(Command.ENABLE_WQ, number)


def test_a_pasid_is_drained_and_aborted(bench: Bench) -> None:
    """In all queues, and no other PASID's descriptors."""
    (dsa,) = bench("pasid=on")
    with_pasids(dsa, 5, 6, 5)
    dsa.faults("late:ms=10")
    slots = [dsa.post(noop(), queue) for queue in range(3)]
    dsa.taken(0, 1, 2)
    dsa.begin(Command.DRAIN_PASID, 6)
    assert dsa.active()
    dsa.machine.step(10 * MS)
    dsa.machine.until("the drain", lambda: not dsa.active())
    assert [Status.SUCCESS] * 3 == [dsa.wait(slot).status for slot in slots]
    dsa.order(Command.DRAIN_PASID, 6)  # of nothing

    slots = [dsa.post(noop(), queue) for queue in range(3)]
    dsa.taken(0, 1, 2)
    dsa.order(Command.ABORT_PASID, 5)
    dsa.machine.step(10 * MS)
    assert Status.SUCCESS == dsa.wait(slots[1]).status
    assert left(dsa, slots[0])
    assert left(dsa, slots[2])


def test_a_pasid_needs_its_capability(bench: Bench) -> None:
    """A queue with one is not enabled while PCI's PASIDs are off."""
    for properties in ("", "pasid=on"):
        (dsa,) = bench(properties)
        dsa.configure([Queue()])
        dsa.put32(dsa.queues_at + 8, dsa.get32(dsa.queues_at + 8) | 1 << 28)
        dsa.order(Command.ENABLE_DEVICE)
        assert Error.WQ_PASID == dsa.command(Command.ENABLE_WQ, 0).error


# -- several devices, counters -------------------------------------------------------


def test_two_devices(bench: Bench) -> None:
    """One is stuck, reset or halted, and the other goes on."""
    one, two = bench("", "version=2.0")
    one.start([Queue()])
    two.start([Queue()])
    one.faults("stuck")
    slot = one.post(noop())
    assert Status.SUCCESS == two.run(fill(ARENA, 64, 9)).status
    assert left(one, slot)
    one.order(Command.RESET_DEVICE)
    assert Status.SUCCESS == two.run(move(ARENA, ARENA + 64, 64)).status
    one.machine.set(one.path, "halt", "flr")
    assert (State.HALT, State.ENABLED) == (one.state(), two.state())
    assert Status.SUCCESS == two.run(noop()).status


def test_engines_hold_nobody_up(bench: Bench) -> None:
    """While all engines of a device move large pieces, another device answers, and the monitor."""
    one, two = bench("", "")
    one.start([Queue(size=64)])
    two.start([Queue()])
    slots = [one.post(move(ARENA, ARENA + (100 << 20), 100 << 20)) for _ in range(12)]
    answers = 0
    while any(left(one, slot) for slot in slots):
        assert Status.SUCCESS == two.run(noop()).status
        assert State.ENABLED == one.state()
        assert one.machine.qmp("query-status")["running"]
        answers += 1
    assert [Status.SUCCESS] * 12 == [one.record(slot).status for slot in slots]
    assert answers > 5


def test_counters(dsa: Dsa) -> None:
    """Each queue's own, and the device's in all."""
    dsa.start([Queue(), Queue()])
    dsa.machine.set(dsa.path, "counters-reset", True)
    for _ in range(3):
        dsa.run(move(ARENA, ARENA + 8192, 5000), 1)
    dsa.run(move(ARENA, ARENA, 0), 1)
    dsa.list([noop()] * 4)
    dsa.run(batch(LISTS, 4), 0)
    found = dsa.counters()
    zero, one = found["queues"]["0"], found["queues"]["1"]
    assert (1, 1, 4, 0) == tuple(
        zero[name] for name in ("descriptors", "batches", "members", "errors")
    )
    assert (4, 0, 0, 1) == tuple(
        one[name] for name in ("descriptors", "batches", "members", "errors")
    )
    assert (15000, 15000) == (one["bytes-read"], one["bytes-written"])
    assert 5 == found["device"]["descriptors"]
    assert 5 == sum(engine["descriptors"] for engine in found["engines"].values())
