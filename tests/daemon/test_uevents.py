# SPDX-License-Identifier: Apache-2.0
"""Events of the kernel, from the kernel itself where that may be asked for them."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dsatier.daemon.kernel_events import SUBSYSTEMS, Uevents, subsystem
from tests.support.running import PATIENCE

KERNEL, NETLINK_KOBJECT_UEVENT = 1, 15
CPU = Path("/sys/devices/system/cpu/cpu0/uevent")
NULL = Path("/sys/devices/virtual/mem/null/uevent")
OURS = b"change@/devices/system/cpu/cpu0\0ACTION=change\0SUBSYSTEM=cpu\0SEQNUM=1\0"


@pytest.fixture
def events() -> Iterator[Uevents]:
    """A socket that hears the kernel."""
    with closing(Uevents()) as found:
        yield found


def ready(events: Uevents, seconds: float = PATIENCE) -> bool:
    """Tell whether something came."""
    poll = select.poll()
    poll.register(events, select.POLLIN)
    return poll.poll(seconds * 1000) != []


def heard(events: Uevents, wanted: str) -> bool:
    """Wait for a subsystem's event; others may come between."""
    while ready(events):
        if wanted in events.drain():
            return True
    return False


def make_happen(path: Path) -> None:
    """Have the kernel tell of a device as if it had changed."""
    try:
        path.write_text("change")
    except OSError as error:
        pytest.skip(f"needs a kernel that takes an event at {path}: {error}")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (OURS, "cpu"),
        (b"add@/devices/x\0ACTION=add\0DEVPATH=/SUBSYSTEM=cpu\0SUBSYSTEM=dsa\0", "dsa"),
        (b"add@/devices/SUBSYSTEM=dsa\0ACTION=add\0XSUBSYSTEM=dsa\0", ""),
        (b"SUBSYSTEM=", ""),
        (b"SUBSYSTEM=\xff\0", "\N{REPLACEMENT CHARACTER}"),
        (b"libudev\0\xfe\xed\xca\xfe", ""),
        (b"", ""),
    ],
)
def test_the_subsystem_of_a_message(message: bytes, expected: str) -> None:
    assert expected == subsystem(message)


def test_an_event_of_the_kernel(events: Uevents) -> None:
    make_happen(CPU)
    assert heard(events, "cpu")


def test_an_event_that_is_not_ours_is_left_out(events: Uevents) -> None:
    make_happen(NULL)
    assert ready(events)
    assert "mem" not in events.drain()


@pytest.mark.system  # needs root to speak in the kernel's group
@pytest.mark.parametrize("alone", [True, False])
def test_a_process_that_plays_the_kernel_is_not_believed(events: Uevents, alone: bool) -> None:
    here = socket.socket(fileno=os.dup(events.fileno()))
    played = OURS.replace(b"cpu", b"dsa")
    with here, socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_KOBJECT_UEVENT) as other:
        try:
            other.sendto(played, (here.getsockname()[0], 0) if alone else (0, KERNEL))
        except OSError as error:
            pytest.skip(f"needs a kernel that lets processes speak: {error}")
        assert ready(events)
        assert "dsa" not in events.drain()


def test_events_that_were_lost_may_have_been_any(events: Uevents) -> None:
    with socket.socket(fileno=os.dup(events.fileno())) as here:
        here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        for _ in range(200):
            make_happen(NULL)
        assert ready(events)
        assert SUBSYSTEMS == events.drain()
        assert frozenset() == events.drain()
