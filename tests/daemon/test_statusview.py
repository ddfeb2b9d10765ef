# SPDX-License-Identifier: Apache-2.0
"""The status screen of a host with a daemon, and `dsatier status --watch` on real files."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dsatier.apply.records import Record, with_conditions
from dsatier.apply.status_document import status
from dsatier.base.exits import FAILED, NOT_COMPLIANT, NOT_RUNNING, OK
from dsatier.cli.status import CLEAR, GRACE, POLL, screen, told

Document = dict[str, Any]
NOW = 1_000_000.0
PATH = "/run/dsatier/status.json"
LONG = 60
"""Seconds after which a test gives up; none of them takes so long."""


def document(**changes: object) -> Document:
    """Return a document as it was before daemons."""
    plain: Document = {
        "hostname": "node17",
        "state": "converged",
        "meaning": "the host is as its profile says, by evidence",
        "reason": "Proven",
        "message": "every step is proven",
        "since": NOW - 30,
        "remedy": "nothing to do",
        "observed_generation": 3,
        "profile_digest": "2e763fd83e51aa",
        "faults": 0,
        "repaired": 2,
        "conditions": [
            {
                "type": "Converged",
                "status": "True",
                "reason": "Proven",
                "message": "",
                "last_transition_time": NOW - 30,
            }
        ],
    }
    return {**plain, **changes}


def daemon(**changes: object) -> Document:
    plain: Document = {
        "pid": 812,
        "since": NOW - 500,
        "looked_at": NOW - 3,
        "look_within": 30,
        "doing": "waiting for a change",
    }
    return {**plain, **changes}


def there(process: int) -> bool:
    return True


def gone(process: int) -> bool:
    return False


def say(
    one: Document, alive: Callable[[int], bool] = there, *, as_json: bool = False
) -> tuple[str, str, int]:
    return told(json.dumps(one), PATH, as_json=as_json, now=NOW, alive=alive)


# -- the screen ------------------------------------------------------------------


def test_a_daemon_has_a_line() -> None:
    plain = screen(document(), NOW).splitlines()
    with_daemon = screen(document(daemon=daemon()), NOW).splitlines()
    added = "  daemon    process 812, looked 3 s ago, doing waiting for a change"
    assert [*plain[:6], added, *plain[6:]] == with_daemon
    idle = screen(document(daemon=daemon(doing="")), NOW).splitlines()
    assert "  daemon    process 812, looked 3 s ago" == idle[6]


def test_tiering_has_a_line() -> None:
    told = {
        "verdict": "working",
        "reason": "Moved",
        "since": NOW - 90,
        "message": "pages have moved between the tiers",
    }
    moved = {"demoted": 12, "promoted": None}
    good = screen(document(tiering=told, moved=moved), NOW)
    assert "  tiering   working since " in good
    assert (
        "Moved: pages have moved between the tiers (pages since it was armed: 12 demoted)" in good
    )
    bad = screen(document(tiering=told | {"verdict": "not working"}), NOW)
    assert "  tiering   warning: not working since " in bad
    assert "tiering" not in screen(document(tiering=None, moved=None), NOW)


def test_what_a_later_daemon_adds_is_passed_over() -> None:
    """An upgrade exchanges the command before the daemon, or the other way round."""
    whole = document(daemon=None)
    more = whole | {"of_tomorrow": {"a": [1]}}
    more["conditions"] = [one | {"severity": "low"} for one in whole["conditions"]]
    shown = [told(json.dumps(one), PATH, as_json=False, now=NOW) for one in (whole, more)]
    assert shown[0] == shown[1]


def test_a_daemon_that_was_stopped_is_missed() -> None:
    plain = screen(document(), NOW).splitlines()
    stopped = screen(document(daemon=None), NOW).splitlines()
    added = "  daemon    none: it was stopped, and nobody looks after the host"
    assert [*plain[:6], added, *plain[6:]] == stopped


@pytest.mark.parametrize("word", ["Accepted", "NoProfile"])
def test_a_profile_that_nobody_has_to_mend_has_no_line(word: str) -> None:
    profile = {"status": word, "message": "fine"}
    assert screen(document(), NOW) == screen(document(profile=profile), NOW)


@pytest.mark.parametrize("word", ["Invalid", "NotReachable", "Refused", "Failed"])
def test_a_rejected_profile_stands_beside_what_is_in_force(word: str) -> None:
    profile = {"status": word, "message": "50.yaml:3:1 unknown key\n50.yaml:4:1 too"}
    plain = screen(document(), NOW).splitlines()
    found = screen(document(profile=profile), NOW).splitlines()
    added = [f"  rejected  {word}: 50.yaml:3:1 unknown key", "            50.yaml:4:1 too"]
    assert [*plain[:5], *added, *plain[5:]] == found
    assert found[0].startswith("node17: converged since ")


def test_the_document_that_dsatier_writes_can_be_shown() -> None:
    record = Record(profile_status="Invalid", profile_message="50.yaml:3:1 unknown key")
    written = status(with_conditions(record, NOW), "node17", NOW)
    words, complaint, code = say({**written, "daemon": daemon()})
    assert ("", NOT_COMPLIANT) == (complaint, code)
    assert "\n  rejected  Invalid: 50.yaml:3:1 unknown key\n" in words
    assert "\n  daemon    process 812, looked 3 s ago, doing waiting for a change\n" in words


# -- whether it still says how the host is -----------------------------------------


@pytest.mark.parametrize(
    ("state", "code"), [("converged", OK), ("degraded", NOT_COMPLIANT), ("drifted", NOT_COMPLIANT)]
)
def test_exit_codes_where_the_daemon_looks(state: str, code: int) -> None:
    for one in (document(state=state), document(state=state, daemon=daemon())):
        assert (screen(one, NOW), "", code) == say(one)


@pytest.mark.parametrize(("age", "late"), [(30 + GRACE, False), (30 + GRACE + 1, True)])
def test_a_daemon_that_has_stopped_looking_is_told(age: int, late: bool) -> None:
    words, complaint, code = say(document(daemon=daemon(looked_at=NOW - age)))
    assert ("", NOT_RUNNING if late else OK) == (complaint, code)
    assert late == words.startswith(
        "STALE: the daemon (process 812) has stopped looking: it looked 91 s ago, "
        "expected every 30 s\n"
        "  do        see `systemctl status dsatier` and `journalctl -u dsatier`; "
        "below is what it saw last\n\nnode17: converged since "
    )


def test_a_daemon_that_is_gone_is_told() -> None:
    words, complaint, code = say(document(daemon=daemon()), gone)
    assert ("", NOT_RUNNING) == (complaint, code)
    assert words.startswith("STALE: the daemon (process 812) is gone; it looked 3 s ago\n  do ")


def test_json_stays_as_it_is_and_the_rest_goes_to_stderr() -> None:
    one = document(daemon=daemon())
    assert (json.dumps(one), "", OK) == say(one, as_json=True)
    words, complaint, code = say(one, gone, as_json=True)
    expected = (
        "dsatier status: STALE: the daemon (process 812) is gone; it looked 3 s ago; "
        "see `systemctl status dsatier` and `journalctl -u dsatier`"
    )
    assert (json.dumps(one), expected, NOT_RUNNING) == (words, complaint, code)


def test_real_processes() -> None:
    """The process of this test is there, process 1 is somebody else's, one that ended is gone."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(LONG)
    for process, code in ((os.getpid(), OK), (1, OK), (1 << 40, OK), (ended.pid, NOT_RUNNING)):
        text = json.dumps(document(daemon=daemon(pid=process)))
        assert (process, code) == (process, told(text, PATH, as_json=False, now=NOW)[2])


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "5",
        "{",
        "{}",
        json.dumps(document(daemon=5)),
        json.dumps(document(daemon={"pid": 1})),
        json.dumps(document(daemon=daemon(pid="812"))),
        json.dumps(document(daemon=daemon(looked_at="now"))),
        json.dumps(document(profile={"status": "Invalid"})),
        json.dumps(document(profile={"status": "Invalid", "message": 5})),
        json.dumps(document(since=1e300)),
    ],
)
def test_what_dsatier_did_not_write_is_told(text: str) -> None:
    words, complaint, code = told(text, PATH, as_json=False, now=NOW)
    assert ("", FAILED) == (words, code)
    assert complaint.startswith(f"dsatier status: {PATH}: expected a status that dsatier wrote")


# -- the command -------------------------------------------------------------------

# with Ctrl-C as a terminal has it: who starts the tests may have it ignored
START = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from dsatier.cli.main import main; sys.exit(main())"
)


class Watching:
    """A `dsatier status --watch` that runs, and what was read of it."""

    def __init__(self, process: subprocess.Popen[bytes], out: int) -> None:
        assert process.stderr is not None
        self._process = process
        self._out = out
        self._error = process.stderr.fileno()
        self._unread = {self._out: b"", self._error: b""}

    def until(self, word: str) -> str:
        """Read on to ``word``, and return all up to its end."""
        return self._until(self._out, word)

    def complaint(self, word: str) -> str:
        """Read on to ``word`` in what goes to stderr."""
        return self._until(self._error, word)

    def _until(self, descriptor: int, word: str) -> str:
        deadline = time.monotonic() + LONG
        found, _, rest = self._unread[descriptor].partition(word.encode())
        while word.encode() not in self._unread[descriptor]:
            wait = max(deadline - time.monotonic(), 0)
            ready, _, _ = select.select([descriptor], [], [], wait)
            more = os.read(descriptor, 65536) if ready else b""
            assert more, f"{word!r} did not come, only {self._unread[descriptor]!r}"
            self._unread[descriptor] += more
            found, _, rest = self._unread[descriptor].partition(word.encode())
        self._unread[descriptor] = rest
        return found.decode() + word

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def hang_up(self) -> None:
        """Read no more of it."""
        os.close(self._out)
        self._out = -1

    def ended(self) -> tuple[int, str]:
        """Return the exit code, and what it said on stderr that was not yet read."""
        code = self._process.wait(LONG)
        assert self._process.stderr is not None
        return code, (self._unread[self._error] + self._process.stderr.read()).decode()

    def close(self) -> None:
        self._process.kill()
        if self._out >= 0:
            self.hang_up()


def write(root: Path, one: Document | None) -> None:
    place = root / "run" / "dsatier" / "status.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    if one is None:
        place.unlink()
        return
    new = place.with_name(".new")
    new.write_text(json.dumps(one, indent=2) + "\n")
    new.rename(place)


@contextmanager
def watching(root: Path, *words: str, terminal: bool = False) -> Iterator[Watching]:
    above, below = pty.openpty() if terminal else os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", START, "status", "--watch", "--root", str(root), *words],
        stdin=subprocess.DEVNULL,
        stdout=below,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(below)
        watched = Watching(process, above)
        try:
            yield watched
        finally:
            watched.close()


def test_json_has_one_line_for_each_change(tmp_path: Path) -> None:
    first, second = document(), document(state="drifted", message='a "b"\n c')
    write(tmp_path, first)
    with watching(tmp_path, "--json") as watched:
        assert first == json.loads(watched.until("\n"))
        time.sleep(3 * POLL)  # nothing changes, so nothing is said
        write(tmp_path, second)
        assert second == json.loads(watched.until("\n"))
        write(tmp_path, first)
        assert first == json.loads(watched.until("\n"))
        watched.interrupt()
        assert (130, "") == watched.ended()


def test_each_new_document_is_printed_once(tmp_path: Path) -> None:
    write(tmp_path, document())
    with watching(tmp_path) as watched:
        assert 1 == watched.until("\n\n  Converged").count("node17: converged since ")
        watched.until("\n\n")
        time.sleep(3 * POLL)
        write(tmp_path, document(state="degraded"))
        assert watched.until("\n").startswith("node17: degraded since ")
        watched.interrupt()
        assert (130, "") == watched.ended()


def test_a_daemon_that_dies_is_told_though_no_document_comes(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as dying:
        live = daemon(pid=dying.pid, looked_at=time.time(), look_within=86400)
        write(tmp_path, document(daemon=live))
        with watching(tmp_path) as text, watching(tmp_path, "--json") as line:
            assert "STALE" not in text.until(f"daemon    process {dying.pid}, looked ")
            line.until("\n")
            dying.kill()
            dying.wait(LONG)
            text.until(f"STALE: the daemon (process {dying.pid}) is gone; it looked ")
            line.complaint(f"STALE: the daemon (process {dying.pid}) is gone; it looked ")
            write(tmp_path, document())
            assert document() == json.loads(line.until("\n"))  # the old one did not come again


def test_a_missing_file_is_told_and_waited_for(tmp_path: Path) -> None:
    missing = (
        f"dsatier status: {tmp_path}{PATH}: not there: dsatier has not run since this host booted; "
        "waiting for it\n"
    )
    with watching(tmp_path, "--json") as watched:
        assert missing == watched.complaint("\n")
        write(tmp_path, document())
        assert document() == json.loads(watched.until("\n"))
        write(tmp_path, None)
        assert missing == watched.complaint("\n")
        write(tmp_path, document())
        assert document() == json.loads(watched.until("\n"))
        watched.interrupt()
        assert (130, "") == watched.ended()


def test_what_dsatier_did_not_write_is_waited_out(tmp_path: Path) -> None:
    write(tmp_path, {})
    with watching(tmp_path, "--json") as watched:
        assert "expected a status that dsatier wrote" in watched.complaint("\n")
        write(tmp_path, document())
        assert document() == json.loads(watched.until("\n"))


def test_a_terminal_is_drawn_anew_as_time_passes(tmp_path: Path) -> None:
    write(tmp_path, document(since=time.time() - 30))
    with watching(tmp_path, terminal=True) as watched:
        assert CLEAR == watched.until(CLEAR)
        first, second = watched.until(CLEAR), watched.until(CLEAR)
        assert seconds_ago(first) < seconds_ago(second)
        assert first.count("\n") == second.count("\n") == screen(document(), NOW).count("\n") + 1
        write(tmp_path, document(state="reverted"))
        watched.until("node17: reverted since ")
        write(tmp_path, None)
        watched.until(f"{CLEAR}dsatier status: {tmp_path}{PATH}: not there")
        watched.interrupt()
        assert (130, "") == watched.ended()


def seconds_ago(shown: str) -> int:
    """Return the first age on a screen."""
    return int(shown.partition(" s ago)")[0].rpartition("(")[2])


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_nobody_reads_any_more(tmp_path: Path, words: tuple[str, ...]) -> None:
    write(tmp_path, document())
    with watching(tmp_path, *words) as watched:
        watched.until("Converged")
        watched.hang_up()
        write(tmp_path, document(state="drifted"))
        assert (FAILED, "") == watched.ended()


def test_status_once(tmp_path: Path) -> None:
    def run(*words: str) -> tuple[int, str, str]:
        ran = subprocess.run(
            [sys.executable, "-c", START, "status", "--root", str(tmp_path), *words],
            capture_output=True,
            text=True,
            timeout=LONG,
            check=False,
        )
        return ran.returncode, ran.stdout, ran.stderr

    code, out, error = run()
    assert (NOT_RUNNING, "") == (code, out)
    assert error.endswith("not run since this host booted; `dsatier apply` applies the profile\n")

    write(tmp_path, document(daemon=daemon(pid=os.getpid(), looked_at=time.time())))
    code, out, error = run()
    assert (OK, "") == (code, error)
    assert f"  daemon    process {os.getpid()}, looked " in out

    write(tmp_path, document(daemon=daemon(pid=os.getpid(), looked_at=time.time() - 100)))
    code, out, error = run()
    assert (NOT_RUNNING, "") == (code, error)
    assert out.startswith(f"STALE: the daemon (process {os.getpid()}) has stopped looking: ")
    code, out, error = run("--json")
    assert (NOT_RUNNING, "converged") == (code, json.loads(out)["state"])
    assert error.startswith(f"dsatier status: STALE: the daemon (process {os.getpid()}) has ")


def test_status_loads_next_to_nothing(tmp_path: Path) -> None:
    write(tmp_path, document(daemon=daemon(pid=os.getpid(), looked_at=time.time())))
    code = (
        "import sys; before = set(sys.modules); from dsatier.cli.main import main;"
        f"code = main(['status', '--root', {str(tmp_path)!r}]);"
        "print(code, sorted(set(sys.modules) - before))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=LONG, check=True
    )
    names = (
        "",
        ".base",
        ".base.exits",
        ".base.health",
        ".base.paths",
        ".base.quick_json",
        ".cli",
        ".cli.main",
        ".cli.plain",
        ".cli.status",
        ".host",
        ".host.output",
    )
    expected = f"0 {[f'dsatier{name}' for name in names]}"
    assert expected == ran.stdout.splitlines()[-1]
