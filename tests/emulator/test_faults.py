# SPDX-License-Identifier: Apache-2.0
"""Injected faults: each kind does what it says, to whom it says, and to nobody else.

==================  ====================================================================
``error``           fails with this status, nothing done
``partial``         a page fault after so many bytes
``corrupt``         one byte wrong, and success
``late``            executed so much later
``never``           no record, no interrupt; with ``move`` the data is moved
``reorder``         after so many others
``lost-interrupt``  all but the interrupt
``stuck``           the engine stands, until aborted or, with ``hard``, reset
``halt``            the device halts
``remove``          the device is gone from the bus
``command-late``    the command ends so much later
``command-stuck``   never
``command-error``   with this error
==================  ====================================================================
"""

from __future__ import annotations

import pytest

from tests.emulator.descriptors import TOLD, Flag, Status, batch, fill, move, noop
from tests.emulator.dsa import ARENA, LISTS, Cause, Command, Dsa, Error, Queue, Register, State
from tests.emulator.qtest import QemuError
from tests.emulator.test_device import MS, left

pytestmark = pytest.mark.system


@pytest.fixture
def started(dsa: Dsa) -> Dsa:
    """A device with two queues, and memory of noise."""
    dsa.start([Queue(), Queue()])
    dsa.machine.write(ARENA, bytes((i * 7 + i // 251) & 0xFF for i in range(0x8000)))
    return dsa


def hits(dsa: Dsa) -> list[int]:
    """Return how often each rule has struck."""
    return [int(word) for word in str(dsa.machine.get(dsa.path, "fault-hits")).split()]


COPY = move(ARENA, ARENA + 0x1_0000, 0x8000)


def copied(dsa: Dsa) -> int:
    """Return how many bytes of ``COPY`` are there, from the first on."""
    size = COPY.size
    want, found = dsa.machine.read(COPY.src, size), dsa.machine.read(COPY.dst, size)
    return next((i for i in range(size) if want[i] != found[i]), size)


# -- which -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "struck"),
    [
        ("error:nth=3", [3]),
        ("error:every=4", [4, 8]),
        ("error:every=2:times=2", [2, 4]),
        ("error:wq=1", []),
        ("error:wq=0:nth=1", [1]),
        ("error:op=3:nth=1", []),
        ("error:op=0:nth=10", [10]),
        ("error:in=batch", []),
        ("error:nth=2;error:nth=5", [2, 5]),
        ("", []),
    ],
)
def test_which_descriptors_are_struck(started: Dsa, rule: str, struck: list[int]) -> None:
    """By number, queue and operation."""
    started.faults(rule)
    found = [n for n in range(1, 11) if started.run(noop()).status != Status.SUCCESS]
    assert struck == found
    assert len(struck) == sum(hits(started))
    assert len(struck) == started.counters()["queues"]["0"]["injected"]


def test_a_share_is_the_same_for_the_same_seed(started: Dsa) -> None:
    """About the share that was asked for; other descriptors for another seed."""

    def struck(seed: int) -> list[int]:
        started.machine.set(started.path, "fault-seed", seed)
        started.faults("error:share=250000")
        return [n for n in range(200) if started.run(noop()).status != Status.SUCCESS]

    first, again, other = struck(1), struck(1), struck(2)
    assert first == again
    assert first != other
    assert all(25 < len(found) < 75 for found in (first, other))


def test_members_of_batches(started: Dsa) -> None:
    """Counted among themselves where the rule says so."""
    started.faults("error:in=batch:nth=2:status=0x20")
    slots = started.list([noop()] * 3)
    assert Status.BATCH_FAIL == started.run(batch(LISTS, 3)).status
    found = [started.record(slot).status for slot in slots]
    assert [Status.SUCCESS, Status.HW_ERROR, Status.SUCCESS] == found


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("eror", "no such kind"),
        ("error:nth", "expected a number"),
        ("error:nth=0", "expected a number"),
        ("error:nth=1:every=2", "expected one of"),
        ("error:colour=red", "no such field"),
        ("halt:reset=yes", "expected software, flr, warm or cold"),
        ("error:share=1000001", "from 1 to 1000000"),
    ],
)
def test_rules_that_are_refused(started: Dsa, rule: str, message: str) -> None:
    """With the reason, and what was in force still is."""
    started.faults("error:nth=2")
    with pytest.raises(QemuError, match=message):
        started.faults(rule)
    assert [Status.SUCCESS, Status.HW_ERROR] == [started.run(noop()).status for _ in range(2)]


def test_rules_from_the_start(bench: object, emulator: str) -> None:
    """As an option of the device."""
    from tests.emulator.conftest import placed  # the only one that needs it

    with placed(emulator, "faults=error:nth=2") as machine:
        dsa = Dsa.at(machine, 4)
        dsa.start([Queue()])
        assert [Status.SUCCESS, Status.HW_ERROR] == [dsa.run(noop()).status for _ in range(2)]


# -- what --------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0x03, 0x1F, 0x20, 0x83])
def test_an_error(started: Dsa, status: int) -> None:
    """Nothing is done."""
    started.faults(f"error:status={status:#x}")
    assert status == started.run(COPY).status
    assert copied(started) < 2


@pytest.mark.parametrize("done", [1, 4096, 5000, 0x7FFF])
def test_a_partial_completion(started: Dsa, done: int) -> None:
    """What the record says is there, and no more."""
    started.faults(f"partial:bytes={done}:times=1")
    record = started.run(COPY)
    assert (Status.PAGE_FAULT, done) == (record.code, record.completed)
    assert done <= copied(started) < done + 2
    rest = move(COPY.src + done, COPY.dst + done, COPY.size - done)
    assert Status.SUCCESS == started.run(rest).status
    assert COPY.size == copied(started)


def test_corruption(started: Dsa) -> None:
    """Success, and one byte is wrong."""
    started.faults("corrupt:bytes=1234")
    assert Status.SUCCESS == started.run(COPY).status
    assert 1234 == copied(started)
    want = started.machine.read(COPY.src, COPY.size)
    found = started.machine.read(COPY.dst, COPY.size)
    assert 1 == sum(a != b for a, b in zip(want, found, strict=True))


def test_corruption_anywhere(started: Dsa) -> None:
    """Where is drawn, if not said."""
    started.faults("corrupt")
    places = set()
    for _ in range(5):
        assert Status.SUCCESS == started.run(COPY).status
        places.add(copied(started))
    assert COPY.size not in places
    assert len(places) > 1


def test_late(started: Dsa) -> None:
    """Nothing is written before its time."""
    started.faults("late:ms=7")
    slot = started.post(COPY)
    started.taken()
    started.machine.step(7 * MS - 1000)
    assert left(started, slot)
    assert copied(started) < 2
    started.machine.step(1000)
    assert Status.SUCCESS == started.wait(slot).status
    assert COPY.size == copied(started)


def test_late_and_rogue(started: Dsa) -> None:
    """It is executed although it was given up: what a driver must be prepared for."""
    started.faults("late:ms=7:rogue")
    slot = started.post(COPY)
    started.taken()
    started.order(Command.ABORT_WQ, 1)
    assert copied(started) < 2
    started.machine.step(7 * MS)
    assert Status.SUCCESS == started.wait(slot).status
    assert COPY.size == copied(started)


@pytest.mark.parametrize("moved", [False, True])
def test_never(started: Dsa, moved: bool) -> None:
    """No record and no interrupt, and the queue goes on."""
    started.take_interrupts()
    started.faults("never:times=1:move" if moved else "never:times=1")
    slot = started.post(COPY.but(flags=TOLD | Flag.INTERRUPT, handle=1))
    assert [Status.SUCCESS] * 20 == [started.run(noop()).status for _ in range(20)]
    started.order(Command.DRAIN_ALL)
    started.machine.step(1000 * MS)
    assert left(started, slot)
    assert not started.interrupted(1)
    assert (COPY.size if moved else 0) <= copied(started) <= (COPY.size if moved else 1)


def test_reorder(started: Dsa) -> None:
    """After three others, or in the end by time."""
    started.faults("reorder:nth=1:after=3")
    slot = started.post(noop())
    for _ in range(2):
        assert Status.SUCCESS == started.run(noop()).status
        assert left(started, slot)
    assert Status.SUCCESS == started.run(noop()).status
    assert Status.SUCCESS == started.wait(slot).status
    started.faults("reorder:nth=1:after=100:ms=3")
    slot = started.post(noop())
    assert Status.SUCCESS == started.run(noop()).status
    assert left(started, slot)
    started.machine.step(3 * MS)
    assert Status.SUCCESS == started.wait(slot).status


def test_a_lost_interrupt(started: Dsa) -> None:
    """The record is there."""
    started.take_interrupts()
    started.faults("lost-interrupt:times=1")
    desc = noop(TOLD | Flag.INTERRUPT).but(handle=1)
    assert Status.SUCCESS == started.run(desc).status
    started.order(Command.DRAIN_ALL)
    assert not started.interrupted(1)
    assert Status.SUCCESS == started.run(desc).status
    started.await_interrupt(1)


def test_a_stuck_engine(started: Dsa) -> None:
    """Nothing but an abort or a reset gets it going."""
    started.faults("stuck:times=4")
    slots = [started.post(noop()) for _ in range(6)]
    started.machine.step(10_000 * MS)
    started.begin(Command.DRAIN_WQ, 1)
    started.machine.step(10_000 * MS)
    assert started.active()
    assert all(left(started, slot) for slot in slots)
    started.pci.reset()
    started.start_of_life()
    started.start([Queue()])
    assert Status.SUCCESS == started.run(noop()).status


def test_a_stuck_engine_and_an_abort(started: Dsa) -> None:
    """It is aborted unless it is stuck hard."""
    started.faults("stuck:times=1")
    started.post(noop())
    started.machine.until("the blow", lambda: hits(started) == [1])
    started.order(Command.ABORT_WQ, 1)
    started.faults("stuck:times=1:hard")
    started.post(noop())
    # what an engine has not taken up yet is only aborted
    started.machine.until("the blow", lambda: hits(started) == [1])
    started.begin(Command.ABORT_WQ, 1)
    assert started.active()
    started.machine.set(started.path, "release", True)
    started.machine.until("the abort", lambda: not started.active())


@pytest.mark.parametrize(("reset", "kind"), [("software", 0), ("flr", 1)])
def test_a_halt(started: Dsa, reset: str, kind: int) -> None:
    """Nothing goes on; what it takes to leave it is in the state, and does."""
    started.take_interrupts()
    started.put32(Register.GENCTRL, 1 << 1)
    started.faults(f"halt:reset={reset}:nth=2")
    assert Status.SUCCESS == started.run(noop()).status
    slot = started.post(noop())
    started.machine.until("the halt", lambda: started.state() == State.HALT)
    assert kind == started.reset_type()
    started.await_interrupt(0)
    assert Cause.HALT in started.causes()
    later = started.post(noop())
    assert Error.OK != started.command(Command.DRAIN_ALL).error
    if reset == "software":
        assert Error.OK == started.command(Command.RESET_DEVICE).error
    else:
        assert Error.OK != started.command(Command.RESET_DEVICE).error
        assert State.HALT == started.state()
        started.pci.reset()
        started.start_of_life()
    assert State.DISABLED == started.state()
    started.faults("")
    started.start([Queue()])
    assert Status.SUCCESS == started.run(noop()).status
    assert left(started, slot)
    assert left(started, later)


def test_a_removal(started: Dsa) -> None:
    """Registers read as ones, and nothing is told."""
    started.faults("remove:nth=1")
    slot = started.post(noop())
    started.machine.until("the removal", lambda: started.get32(Register.GENSTS) == 0xFFFF_FFFF)
    assert (1 << 64) - 1 == started.get(Register.GENCAP)
    started.submit(noop().but(completion=slot))
    started.machine.step(100 * MS)
    assert left(started, slot)


def test_commands(started: Dsa) -> None:
    """Late, never, and with an error."""
    drain_ = int(Command.DRAIN_ALL)
    started.faults(f"command-error:op={drain_}:status=3")
    assert Error.HARDWARE == started.command(Command.DRAIN_ALL).error
    started.faults(f"command-late:op={drain_}:ms=4")
    started.begin(Command.DRAIN_ALL)
    started.machine.step(4 * MS - 1000)
    assert started.active()
    started.machine.step(1000)
    assert Error.OK == started.outcome().error
    assert not started.active()
    started.faults(f"command-stuck:op={drain_}")
    started.begin(Command.DRAIN_ALL)
    started.machine.step(10_000 * MS)
    assert started.active()
    assert Status.SUCCESS == started.run(noop()).status  # descriptors go on
    started.machine.set(started.path, "release", True)
    started.machine.step(1000)
    started.machine.until("the command", lambda: not started.active())


def test_a_wild_mixture(started: Dsa) -> None:
    """Many at once: each descriptor ends in one of the ways that the rules allow."""
    started.faults(
        "error:share=100000:status=0x20;partial:share=100000:bytes=100;"
        "late:share=100000:ms=3;reorder:share=100000:after=2;never:nth=50"
    )
    slots = []
    for n in range(300):
        slots.append(started.post(fill(ARENA + 4096 * n, 4096, n), n % 2))
        if n % 10 == 9:
            started.machine.step(4 * MS)
            started.taken(0, 1)
    started.machine.step(1000 * MS)
    started.order(Command.DRAIN_ALL)
    found = [started.record(slot) for slot in slots]
    allowed = {0, Status.SUCCESS, Status.HW_ERROR, Status.PAGE_FAULT}
    assert allowed >= {record.code for record in found}
    assert 1 >= sum(record.code == 0 for record in found)
    for n, record in enumerate(found):
        if record.code == Status.SUCCESS:
            page = started.machine.read(ARENA + 4096 * n, 4096)
            assert n.to_bytes(8, "little") * 512 == page
    assert sum(record.code == Status.HW_ERROR for record in found) > 10
