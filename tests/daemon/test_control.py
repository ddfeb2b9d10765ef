# SPDX-License-Identifier: Apache-2.0
"""The daemon's ear: orders, nonsense, and clients that come, hang on and go."""

from __future__ import annotations

import json
import os
import pwd
import select
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from dsatier.control import listener as control
from dsatier.control.client import NoAnswer, NoDaemon, ask
from dsatier.control.listener import Listener, Order
from tests.support.running import PATIENCE, Running, daemon, environment

NOBODY = pwd.getpwnam("nobody").pw_uid
AS_NOBODY = """
import os, shutil, sys
from dsatier.cli.main import main
import dsatier.cli.commands  # nobody may not read a folder of root's
import dsatier.cli.orders, dsatier.control.listener
user = int(sys.argv[1])
os.setgroups([])
os.setgid(user)
os.setuid(user)
sys.exit(main(sys.argv[2:]))
"""
REFUSED = {
    "result": "refused",
    "code": 64,
    "message": "expected one of clear, detach, nudge, reload, rollback, simulate",
    "state": "",
}


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    """A listener in a folder whose path is longer than that of a socket may be."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    with closing(Listener(str(folder))) as found:
        yield found


@pytest.fixture
def where(listener: Listener, tmp_path: Path) -> str:
    """The folder that it listens in."""
    return str(tmp_path / ("long" * 30))


def orders(listener: Listener, count: int = 1) -> list[Order]:
    """Return as many orders as are expected."""
    found: list[Order] = []
    while len(found) < count:
        poll = select.poll()
        for number in listener.filenos():
            poll.register(number, select.POLLIN)
        assert poll.poll(PATIENCE * 1000) != []
        found += listener.orders()
    assert count == len(found)
    return found


def nothing(listener: Listener) -> None:
    """Hear all that was said, which is no order, and hang up on all who said it."""
    heard = [listener.orders() for _ in range(3)]
    assert ([[]] * 3, 1) == (heard, len(listener.filenos()))


@contextmanager
def asking(where: str, **asked: Any) -> Iterator[tuple[Future[dict[str, Any]], list[str]]]:
    """Ask in a thread; yield what will be answered, and the progress so far."""
    heard: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(ask, where, asked, PATIENCE, heard.append), heard


def client(where: str) -> socket.socket:
    """Return a connection of a client that may say anything."""
    number = os.open(where, os.O_PATH)
    try:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        peer.connect(f"/proc/self/fd/{number}/control")
        peer.settimeout(PATIENCE)
    finally:
        os.close(number)
    return peer


def answer(peer: socket.socket) -> Any:
    """Return the line that a client is answered."""
    with peer.makefile("rb") as stream:
        return json.loads(stream.readline())


# -- orders ------------------------------------------------------------------------


def test_an_order_and_its_answer(listener: Listener, where: str) -> None:
    with asking(where, command="reload", timeout=5.0) as (answered, heard):
        (order,) = orders(listener)
        assert ("reload", {"command": "reload", "timeout": 5.0}) == (order.command, order.asked)
        order.progress("step 1 of 2: x")
        order.progress("step 2 of 2: ÿ")
        order.answer("changed", 0, "every step is proven", "converged")
        order.progress("too late")
        order.answer("unchanged", 1, "too late")
        assert {
            "result": "changed",
            "code": 0,
            "message": "every step is proven",
            "state": "converged",
        } == answered.result(PATIENCE)
        assert ["step 1 of 2: x", "step 2 of 2: ÿ"] == heard
    assert 1 == len(listener.filenos())


def test_an_answer_of_any_length_arrives(listener: Listener, where: str) -> None:
    long = "y" * 100_000
    with asking(where, command="nudge") as (answered, _):
        (order,) = orders(listener)
        order.answer("changed", 0, long)
        assert long == answered.result(PATIENCE)["message"]


def test_an_order_that_comes_in_pieces(listener: Listener, where: str) -> None:
    with client(where) as peer:
        for piece in (b'{"comm', b'and": "nu', b'dge"}'):
            peer.sendall(piece)
            assert [] == listener.orders()
        peer.sendall(b"\n")
        (order,) = orders(listener)
        assert "nudge" == order.command


@pytest.mark.parametrize(
    "said",
    [
        b"\n",
        b"reload\n",
        b'"reload"\n',
        b"[]\n",
        b"{}\n",
        b'{"command": "format-disk"}\n',
        b'{"command": ["reload"]}\n',
        b'{"command": null}\n',
        b'{"command": "reload"}\n{"command": "reload"}\n',
        b"\xff\xfe\n",
        b"[" * 60_000 + b"\n",
        b'{"command": "reload"',
    ],
)
def test_nonsense_is_told_what_was_expected(listener: Listener, where: str, said: bytes) -> None:
    with client(where) as peer:
        peer.sendall(said)
        peer.shutdown(socket.SHUT_WR)
        nothing(listener)
        assert REFUSED == answer(peer)


def test_a_line_without_end_is_cut_off(listener: Listener, where: str) -> None:
    with client(where) as peer:
        assert 70_000 == peer.send(b"x" * 70_000)
        nothing(listener)
        assert REFUSED == answer(peer)


def test_clients_that_go_away_cost_nothing(listener: Listener, where: str) -> None:
    silent = client(where)
    half = client(where)
    half.sendall(b'{"command":')
    whole = client(where)
    whole.sendall(b'{"command": "reload"}\n')
    (order,) = orders(listener)
    for peer in (silent, half, whole):
        peer.close()
    order.progress("step 1 of 1: x")
    order.progress("step 1 of 1: x")
    order.answer("changed", 0, "x")
    nothing(listener)


def test_a_client_that_does_not_read_is_given_up(listener: Listener, where: str) -> None:
    with client(where) as peer:
        peer.sendall(b'{"command": "reload"}\n')
        (order,) = orders(listener)
        for _ in range(100):
            order.progress("x" * 60_000)
        order.answer("changed", 0, "x")
        taken = bytearray()
        while data := peer.recv(1 << 20):
            taken += data
        assert b'"result"' not in taken


def test_silent_clients_make_room(listener: Listener, where: str) -> None:
    silent = [client(where) for _ in range(2 * control._MOST)]
    try:
        with asking(where, command="nudge") as (answered, _):
            (order,) = orders(listener)
            assert len(listener.filenos()) <= control._MOST + 1
            order.answer("unchanged", 0, "it looks now")
            assert 0 == answered.result(PATIENCE)["code"]
    finally:
        for peer in silent:
            peer.close()


def test_more_clients_than_are_heard_at_once(listener: Listener, where: str) -> None:
    count = control._MOST + 50
    peers = [client(where) for _ in range(count)]
    try:
        for peer in peers:
            peer.sendall(b'{"command": "reload"}\n')
        for order in orders(listener, count):
            order.answer("changed", 0, "x")
        assert [0] * count == [answer(peer)["code"] for peer in peers]
    finally:
        for peer in peers:
            peer.close()


# -- who may ---------------------------------------------------------------------------


def test_only_its_owner_may_connect(listener: Listener, where: str) -> None:
    found = (Path(where) / "control").stat()
    assert (0o600, os.geteuid()) == (stat.S_IMODE(found.st_mode), found.st_uid)


@pytest.mark.system  # needs root to become somebody else
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["reload"], "dsatier: reload: only root may give orders to the daemon\n"),
        (["nudge"], "dsatier: nudge: only root may give orders to the daemon\n"),
        (["clear"], "dsatier: clear: only root may give orders to the daemon\n"),
        (
            ["history"],
            "dsatier: /var/lib/dsatier/history: cannot be read: permission denied (EACCES)\n",
        ),
    ],
)
def test_nobody_may_give_orders(words: list[str], said: str) -> None:
    with daemon("sim:dsa2") as running:
        running.root.chmod(0o755)
        ran = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(NOBODY), *words, "--root", running.root],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=PATIENCE,
            check=False,
        )
        assert (1, True) == (ran.returncode, said in ran.stderr), ran.stderr
        assert [] == running.log("order") + running.log("reload")


@pytest.mark.system  # needs root to become somebody else
def test_whoever_gets_past_the_mode_is_hung_up_on(listener: Listener, where: str) -> None:
    """As with a socket that somebody has opened up, or handed on."""
    (Path(where) / "control").chmod(0o666)
    with closing(socket.socket(socket.AF_UNIX)) as peer:
        number = os.open(where, os.O_PATH)
        os.seteuid(NOBODY)
        try:
            peer.connect(f"/proc/self/fd/{number}/control")
        finally:
            os.seteuid(0)
            os.close(number)
        peer.sendall(b'{"command": "reload"}\n')
        assert [] == listener.orders()
        assert 1 == len(listener.filenos())
        peer.settimeout(PATIENCE)
        with pytest.raises(ConnectionResetError):
            peer.recv(100)


# -- no daemon ---------------------------------------------------------------------------


def test_no_daemon(tmp_path: Path) -> None:
    for where in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(NoDaemon, match=str(where)):
            ask(str(where), {"command": "reload"}, 1.0)
    (tmp_path / "control").write_text("")
    with pytest.raises(NoDaemon, match="nobody listens there"):
        ask(str(tmp_path), {"command": "reload"}, 1.0)


def test_the_socket_of_one_that_was_killed_is_taken_over(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "control"))
    with pytest.raises(NoDaemon, match="nobody listens there"):
        ask(str(tmp_path), {"command": "reload"}, 1.0)
    with (
        closing(Listener(str(tmp_path))) as listener,
        asking(str(tmp_path), command="nudge") as (
            answered,
            _,
        ),
    ):
        orders(listener)[0].answer("changed", 0, "x")
        assert 0 == answered.result(PATIENCE)["code"]
    assert [] == list(tmp_path.iterdir())


def test_a_listener_that_closes_answers_nobody(tmp_path: Path) -> None:
    listener = Listener(str(tmp_path))
    waiting, heard, unheard = (client(str(tmp_path)) for _ in range(3))
    heard.sendall(b'{"comm')
    assert [] == listener.orders()
    with asking(str(tmp_path), command="reload") as (answered, _), unheard, heard, waiting:
        listener.close()
        with pytest.raises((NoAnswer, NoDaemon)):
            answered.result(PATIENCE)
        assert b"" == heard.recv(100)


def test_the_daemon_is_killed_before_it_answers() -> None:
    """A client that waits is told at once, whatever the daemon had taken in of what it said."""
    with daemon("sim:dsa2") as running:
        running.inject("hung-write", path="/proc/sys/vm/use_concur_to_compact")
        running.profile("version: 1\nconcurrency: {use_concur_to_compact: true}\n")
        ends: list[Any] = []

        def reload() -> None:
            ends.append(running.reload())

        threads = [threading.Thread(target=reload) for _ in range(2)]
        threads[0].start()
        running.until(lambda: "step 1 of 1" in running.notes[-1], "the step")
        threads[1].start()
        running.until(lambda: queued(running), "the second client")
        running.kill()
        for thread in threads:
            thread.join(PATIENCE)
        said = "dsatier: reload: the daemon ended before it answered: `systemctl status dsatier`\n"
        told = [(ran.code, ran.err) for ran in ends]
        # the queue of another daemon on this machine looks the same: then the second came late
        assert [(1, said)] * 2 == told or {(1, said), (3, told[-1][1])} == set(told)


def queued(running: Running) -> bool:
    """Tell whether a client has connected whom the daemon has not accepted yet."""
    sent = Path("/proc/net/unix").read_text().splitlines()
    return any(line.split()[5] == "02" and line.endswith("/control") for line in sent)
