# SPDX-License-Identifier: Apache-2.0
"""Saving and loading: another QEMU goes on where the first one stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.emulator.conftest import placed
from tests.emulator.descriptors import NO_FLAGS, TOLD, Flag, Status, batch, drain, fill, move, noop
from tests.emulator.dsa import (
    ARENA,
    LISTS,
    SLOT,
    Cause,
    Command,
    Dsa,
    Queue,
    Register,
    State,
)
from tests.emulator.qtest import Machine, QemuError
from tests.emulator.test_device import MS, left, log_of, tail

pytestmark = pytest.mark.system

Move = Callable[..., Dsa]


@pytest.fixture
def moved(emulator: str, tmp_path: Path) -> Iterator[Move]:
    """Save a device's machine, and return the device in another that has loaded it.

    The other machine is made with the same properties, or with those that are given.
    """
    with ExitStack() as stack:

        def go(dsa: Dsa, properties: str) -> Dsa:
            path = tmp_path / "state"
            transferred(dsa.machine, "migrate", f"exec:cat >{path}")
            machine = placed(emulator, properties, words=("-incoming", "defer"))
            stack.enter_context(machine)
            transferred(machine, "migrate-incoming", f"exec:cat {path}")
            there = Dsa.at(machine, SLOT)
            there.last_slot = dsa.last_slot  # records of before are left alone
            return there

        yield go


def transferred(machine: Machine, order: str, uri: str) -> None:
    """Save or load; raises QemuError where that fails."""
    more = {"exit_on_error": False} if order == "migrate-incoming" else {}
    machine.qmp(order, uri=uri, **more)
    machine.until(
        order,
        lambda: machine.qmp("query-migrate").get("status") in ("completed", "failed"),
    )
    told = machine.qmp("query-migrate")
    if told["status"] == "failed":
        raise QemuError(f"{order}: {told.get('error-desc')}")


ALL = [Queue(size=16, group=number % 4) for number in range(8)]


@pytest.mark.parametrize("properties", ["", "version=2.0", "timing=on", "int-handles=on"])
def test_every_queue_goes_on(bench: Callable[..., list[Dsa]], moved: Move, properties: str) -> None:
    """All eight of them; what was done before is not done again, and interrupts arrive."""
    (dsa,) = bench(properties)
    dsa.start(ALL, [0, 1, 2, 3])
    dsa.take_interrupts()
    handles = list(range(1, 9))
    if "int-handles" in properties:
        handles = [dsa.command(Command.REQUEST_HANDLE, vector).result for vector in range(1, 9)]
    done = [dsa.post(fill(ARENA + 4096 * number, 4096, 1), number) for number in range(8)]
    finish(dsa, done)
    dsa.machine.clear(ARENA, 8 * 4096)
    for slot in done:
        dsa.machine.write(slot, bytes(32))
    before = [[dsa.wq(number, word) for word in range(8)] for number in range(8)]

    there = moved(dsa, properties)
    assert State.ENABLED == there.state()
    assert before == [[there.wq(number, word) for word in range(8)] for number in range(8)]
    slots = [
        there.post(
            move(ARENA, ARENA + 4096 * (number + 10), 64, TOLD | Flag.INTERRUPT).but(
                handle=handles[number]
            ),
            number,
        )
        for number in range(8)
    ]
    finish(there, slots)
    for vector in range(1, 9):
        there.await_interrupt(vector)
    assert all(left(there, slot) for slot in done)
    assert bytes(8 * 4096) == there.machine.read(ARENA, 8 * 4096)
    there.order(Command.DISABLE_DEVICE)
    assert State.DISABLED == there.state()


def finish(dsa: Dsa, slots: list[int]) -> None:
    """Let time pass until all are done, well."""

    def done() -> bool:
        dsa.machine.step(MS)
        return not any(left(dsa, slot) for slot in slots)

    dsa.machine.until("records", done)
    assert [Status.SUCCESS] * len(slots) == [dsa.record(slot).status for slot in slots]


def test_what_waits_is_done_there(dsa: Dsa, moved: Move) -> None:
    """Late ones at their time, a stuck one when it is let go, and a drain after them."""
    dsa.start([Queue(), Queue()])
    dsa.machine.write(ARENA, bytes(range(256)))
    dsa.faults("late:wq=0:nth=1:ms=10;late:in=batch:nth=2:ms=20;stuck:wq=1:nth=1")
    late = dsa.post(move(ARENA, ARENA + 0x1000, 256))
    members = dsa.list([fill(ARENA + 0x2000 + 64 * n, 64, n, TOLD) for n in range(4)])
    listed = dsa.post(batch(LISTS, 4))
    last = dsa.post(drain())
    stuck = dsa.post(move(ARENA, ARENA + 0x3000, 256), 1)
    dsa.machine.until("all three rules", lambda: hits(dsa) == "1 1 1")
    dsa.begin(Command.DRAIN_WQ, 2)

    there = moved(dsa, "")
    assert there.active()
    assert all(left(there, slot) for slot in (late, listed, last, stuck, *members[1:]))
    there.machine.step(10 * MS)
    assert Status.SUCCESS == there.wait(late).status
    assert left(there, last)
    there.machine.step(10 * MS)
    assert Status.SUCCESS == there.wait(listed).status
    assert [Status.SUCCESS] * 4 == [there.record(slot).status for slot in members]
    assert Status.SUCCESS == there.wait(last).status
    assert left(there, stuck)
    there.machine.set(there.path, "release", True)
    there.machine.until("the drain", lambda: not there.active())
    assert Status.SUCCESS == there.record(stuck).status
    for page in (0x1000, 0x3000):
        assert bytes(range(256)) == there.machine.read(ARENA + page, 256)


def hits(dsa: Dsa) -> str:
    """Return how often each rule has struck."""
    return str(dsa.machine.get(dsa.path, "fault-hits"))


@pytest.mark.parametrize("reset", ["software", "flr"])
def test_a_halted_device_stays_halted(dsa: Dsa, moved: Move, reset: str) -> None:
    """And its reset brings it back."""
    dsa.start()
    dsa.machine.set(dsa.path, "halt", reset)
    there = moved(dsa, "")
    assert (State.HALT, reset == "flr") == (there.state(), bool(there.reset_type()))
    if reset == "flr":
        there.pci.reset()
        there.start_of_life()
    else:
        there.order(Command.RESET_DEVICE)
    there.start()
    assert Status.SUCCESS == there.run(noop()).status


def test_errors_are_kept(dsa: Dsa, moved: Move) -> None:
    """The software error register, and why the device interrupted."""
    dsa.start()
    dsa.put32(Register.GENCTRL, 1)
    dsa.submit(move(ARENA, ARENA, 0, NO_FLAGS))
    dsa.machine.until("an error", lambda: dsa.software_error().valid)
    told, causes = dsa.software_error(), dsa.causes()
    there = moved(dsa, "")
    assert (told, causes) == (there.software_error(), there.causes())
    assert Cause.ERROR in causes


def test_the_event_log_goes_on(dsa2: Dsa, moved: Move) -> None:
    """Behind the entries that are there; those for which there was no room come when there is."""
    log_of(dsa2)
    for _ in range(66):
        dsa2.submit(move(ARENA, ARENA, 0, NO_FLAGS))
        assert Status.SUCCESS == dsa2.run(drain()).status
    assert 63 == tail(dsa2)
    there = moved(dsa2, "version=2.0")
    assert 63 == tail(there)
    there.put32(Register.EVLSTATUS, 20)  # the head
    there.machine.until("what had waited", lambda: tail(there) == 2)


def test_another_device_does_not_load_it(dsa: Dsa, moved: Move) -> None:
    """One with fewer queues, more vectors, or of another version, refuses."""
    dsa.start()
    for other in ("queues=4", "vectors=20", "version=2.0", "int-handles=on"):
        with pytest.raises(QemuError, match="migrate-incoming"):
            moved(dsa, other)
        dsa.machine.qmp("cont")


def test_a_machine_that_has_saved_goes_on(dsa: Dsa, tmp_path: Path) -> None:
    """As after a snapshot."""
    dsa.start()
    transferred(dsa.machine, "migrate", f"exec:cat >{tmp_path}/state")
    slot = dsa.post(fill(ARENA, 64, 1))
    dsa.machine.qmp("cont")
    assert Status.SUCCESS == dsa.wait(slot).status
