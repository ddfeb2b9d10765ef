# SPDX-License-Identifier: Apache-2.0
"""The debugger's words, against an emulator that is a script."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vm.debugger import Debugger, DebuggerError, Stop, debugger, packet, words

ANSWERS = {
    "qXfer:features:read:target.xml:0,1000": "l<target/>",
    "m1000,3": "4c8b06",
    "p10": "0807060504030201",
    "P10=0100000000000000": "OK",
    "Z3,ff00,8": "OK",
    "D": "OK",
}


class Scripted:
    """Answers as the emulator does; what stops it is said by hand."""

    def __init__(self, end: socket.socket) -> None:
        self.end = end
        self.asked: list[str] = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def say(self, text: str) -> None:
        """Send a packet."""
        self.end.sendall(packet(text))

    def _serve(self) -> None:
        held = b""
        while data := self.end.recv(4096):
            held += data
            # what comes in one piece may be half of a request, or several
            while found := re.match(rb"\+*(?:(\x03)|\$([^#]*)#..)", held):
                held = held[found.end() :]
                if found[1]:
                    self.say("T02thread:01;")
                    continue
                asked = found[2].decode()
                assert found[0].endswith(packet(asked))
                self.asked.append(asked)
                if asked != "c":
                    self.end.sendall(b"+")
                    self.say(ANSWERS.get(asked, "E22"))


@contextmanager
def scripted() -> Iterator[tuple[Debugger, Scripted]]:
    """Yield a debugger and what it talks to."""
    here, there = socket.socketpair()
    with here, there:
        script = Scripted(there)
        yield Debugger(here), script
        here.shutdown(socket.SHUT_RDWR)
        script.thread.join()


def test_a_packet_has_its_sum() -> None:
    assert b"$OK#9a" == packet("OK")


def test_a_guest_is_looked_at() -> None:
    with scripted() as (seen, _):
        assert b"\x4c\x8b\x06" == seen.memory(0x1000, 3)
        assert 0x0102030405060708 == seen.register(0x10)
        seen.set_register(0x10, 1)


def test_what_is_refused_is_no_answer() -> None:
    with scripted() as (seen, _), pytest.raises(DebuggerError, match="E22"):
        seen.memory(0x2000, 3)


def test_a_guest_stops_where_it_is_watched() -> None:
    with scripted() as (seen, script):
        seen.watch(0xFF00, 8)
        seen.go_on()
        assert seen.stopped(0.05) is None
        script.say("T05thread:03;rwatch:ff00;")
        assert Stop(2, watched=True) == seen.stopped(5)
        seen.go_on()
        script.say("T05thread:p01.0a;")
        assert Stop(9, watched=False) == seen.stopped(5)
        seen.go_on()
        script.say("W00")
        with pytest.raises(DebuggerError, match="W00"):
            seen.stopped(5)


def test_a_guest_runs_on_in_the_end() -> None:
    with scripted() as (seen, script):
        seen.leave()
        seen.go_on()
        seen.leave()
        assert ["D", "c", "D"] == script.asked[1:]


def test_an_emulator_that_ends_is_told(tmp_path: Path) -> None:
    path = tmp_path / "gdb"
    assert f"socket,id=gdb,path={path},server=on,wait=off" in words(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen()

        def end() -> None:
            server.accept()[0].close()

        threading.Thread(target=end, daemon=True).start()
        with pytest.raises((DebuggerError, OSError)), debugger(path):
            pass
