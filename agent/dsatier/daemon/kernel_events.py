# SPDX-License-Identifier: Apache-2.0
"""Events of the kernel about devices, CPUs and nodes, as they come over netlink."""

from __future__ import annotations

import os
import socket

SUBSYSTEMS = frozenset({"dsa", "cpu", "node", "dma", "memory", "dax"})
"""What a change of may concern a host's tiers or its engine."""
_KOBJECT_UEVENT = 15
_KERNEL = 1
"""The multicast group on which the kernel speaks; udev speaks on another."""
_LONGEST = 8192


class Uevents:
    """A socket to poll, and which subsystems had an event."""

    def __init__(self) -> None:
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, _KOBJECT_UEVENT)
        self._socket.bind((0, _KERNEL))
        self.swaps = os.open("/proc/swaps", os.O_RDONLY | os.O_CLOEXEC)
        """To poll for POLLPRI: a swap area was turned on or off since the last time."""

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._socket.fileno()

    def drain(self) -> frozenset[str]:
        """Return the subsystems of ours that had an event since the last call."""
        found: set[str] = set()
        while True:
            try:
                message, sender = self._socket.recvfrom(_LONGEST)
            except BlockingIOError:
                return frozenset(found)
            except OSError:
                return SUBSYSTEMS  # some were lost: any may have been among them
            if sender[0] == 0:  # of the kernel, not of a process that plays it
                found |= {subsystem(message)} & SUBSYSTEMS

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
        os.close(self.swaps)


def subsystem(message: bytes) -> str:
    r"""Return the subsystem that an event names, empty where it names none.

    >>> subsystem(b"add@/devices/x\0ACTION=add\0SUBSYSTEM=dsa\0SEQNUM=1\0")
    'dsa'
    """
    for field in message.split(b"\0"):
        if field.startswith(b"SUBSYSTEM="):
            return field[10:].decode(errors="replace")
    return ""
