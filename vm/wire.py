# SPDX-License-Identifier: Apache-2.0
"""The frames between host and guest; ``agent.c`` is the other end. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

PORT = "dsatier.agent"
"""The name of the virtio-serial port."""
MAGIC = bytes(byte ^ 0xFF for byte in bytes.fromhex("9b8c9e8b969a8dd28992d2979a939390"))
"""What both ends say hello with. Kept inverted: a copy of this file on the wire is no hello."""
MOST = 1 << 20
"""Bytes that the agent takes in one frame."""
CHUNK = 64 << 10
_HEADER = struct.Struct("<III")


class Kind(IntEnum):
    """What a frame is for."""

    HELLO = 1
    """Both ways: magic; the agent adds the kernel's release."""
    START = 2
    """Words, each ended by a zero."""
    INPUT = 3
    """Bytes for the standard input; none for its end."""
    SIGNAL = 4
    """One byte: a signal for the process group."""
    OUTPUT = 5
    ERRORS = 6
    ENDED = 7
    """32 bits: the status as waitpid has it."""
    REFUSED = 8
    """32 bits: the errno with which it was not started."""


class WireError(Exception):
    """What came over the channel is no frame."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A message about a command. HELLO has number 0."""

    number: int
    kind: Kind
    payload: bytes = b""

    def packed(self) -> bytes:
        """Return the bytes that go over the channel."""
        return _HEADER.pack(len(self.payload), self.number, self.kind) + self.payload


def start(number: int, words: Sequence[str]) -> bytes:
    """Return the bytes that start a command."""
    if not words or any("\0" in word for word in words):
        raise ValueError(f"expected words without zeros, found {words!r}")
    payload = b"".join(word.encode() + b"\0" for word in words)
    if len(payload) > MOST:
        raise ValueError(f"expected at most {MOST} bytes of words, found {len(payload)}")
    return Frame(number, Kind.START, payload).packed()


def given(number: int, data: bytes) -> Iterator[bytes]:
    """Yield the bytes that give a command its standard input, without its end."""
    for at in range(0, len(data), CHUNK):
        yield Frame(number, Kind.INPUT, data[at : at + CHUNK]).packed()


def number(payload: bytes) -> int:
    """Return the number in a frame of 32 bits."""
    return int(struct.unpack("<i", payload)[0])


class Reader:
    """Takes bytes as they come, and gives frames.

    A guest that is reset begins a new life in the middle of a frame. Its hello is found wherever
    it stands; until the first one everything is dropped.
    """

    def __init__(self) -> None:
        self._held = b""
        self._greeted = False

    def take(self, data: bytes) -> Iterator[Frame]:
        """Yield the frames that are complete now. Raises WireError."""
        self._held += data
        at = self._held.rfind(MAGIC)
        if at >= _HEADER.size and self._is_hello(at - _HEADER.size):
            self._held = self._held[at - _HEADER.size :]
            self._greeted = True
        elif not self._greeted:
            self._held = self._held[-(_HEADER.size + len(MAGIC)) :]
            return
        while len(self._held) >= _HEADER.size:
            length, number, kind = _HEADER.unpack_from(self._held)
            if length > MOST or kind not in iter(Kind):
                self._greeted = False
                found = self._held[: _HEADER.size].hex(" ")
                self._held = self._held[1:]  # a hello may begin in it
                raise WireError(f"expected the head of a frame, found {found}")
            if len(self._held) < _HEADER.size + length:
                return
            payload = self._held[_HEADER.size : _HEADER.size + length]
            self._held = self._held[_HEADER.size + length :]
            yield Frame(number, Kind(kind), payload)

    def _is_hello(self, at: int) -> bool:
        _, number, kind = _HEADER.unpack_from(self._held, at)
        return (number, kind) == (0, Kind.HELLO)
