# SPDX-License-Identifier: Apache-2.0
"""Whoever asks a daemon how its host is, by whatever interface, is told the truth."""

from __future__ import annotations

import fcntl
import io
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsatier.apply import wanted as intent
from dsatier.apply.journal import Journal
from dsatier.apply.wanted import AtStart
from dsatier.cli.simulated import of_daemon, take
from dsatier.control.protocol import SOCKET
from dsatier.daemon.log import logger
from dsatier.daemon.supervisor import Supervisor
from dsatier.facts.observe.observer import observe
from dsatier.host.files import FileHost
from dsatier.host.port import Locked
from dsatier.sim.host import SimHost
from tests.daemon.test_daemon import BOTH, COMPACT, ONE, WRONG
from tests.support.running import PATIENCE, Running, daemon

HEALTHY = "dsatier_healthy"
CONVERGED = 'dsatier_condition{type="Converged",status="True"}'


@pytest.fixture
def running() -> Iterator[Running]:
    """A daemon whose host has converged."""
    with daemon("sim:dsa2") as found:
        found.profile(ONE)
        assert found.reload().code == 0
        yield found


def check(running: Running, code: int) -> str:
    """Return the one line of ``status --check``, which ends with ``code``."""
    ran = running.run("status", "--check")
    assert ran.code == code, ran
    line = ran.err if code else ran.out
    assert line.count("\n") == 1
    return line


def test_all_is_well(running: Running) -> None:
    assert check(running, 0).startswith("dsa2: healthy: ")
    assert running.run("status").code == 0
    assert running.metrics()[HEALTHY] == 1


def test_files_that_were_changed_and_not_reloaded_are_told(running: Running) -> None:
    """By hand, by a configuration manager, by an upgrade: it strikes at the next start."""
    for folder, text in (("etc/dsatier.d", BOTH), ("usr/lib/dsatier.d", ONE)):
        path = running.root / folder / "60-more.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        running.look()  # it follows the folder that was made
        path.write_text(text, encoding="utf-8")
        running.look()
        name = f"/{folder}/60-more.yaml"
        assert running.status()["reload_pending"] == [name]
        assert check(running, 4) == f"dsa2: changed and not reloaded: {name}\n"
        assert running.run("status").code == 4
        assert running.metrics()[HEALTHY] == 0
        assert running.metrics()['dsatier_condition{type="ReloadPending",status="True"}'] == 1
        path.unlink()
        running.look()
        assert check(running, 0)
    running.profile(ONE + "# the same\n")
    running.look()
    assert check(running, 4)
    assert running.reload().code == 0
    assert check(running, 0)


def test_a_wrong_profile_is_told(running: Running) -> None:
    running.profile(WRONG)
    assert running.reload().code == 65
    assert "not in force: Invalid: " in check(running, 4)
    assert running.run("status").code == 4
    assert (running.metrics()[HEALTHY], running.metrics()[CONVERGED]) == (0, 1)


def test_a_host_without_a_profile_any_more_is_told(running: Running) -> None:
    running.profile("")
    assert running.reload().code == 0
    status = running.status()
    assert (status["state"], status["reason"]) == ("unmanaged", "NoProfile")
    assert check(running, 4).startswith("dsa2: unmanaged: NoProfile: ")
    assert (running.metrics()[HEALTHY], running.metrics()[CONVERGED]) == (0, 0)


def test_a_daemon_that_was_stopped_is_told(running: Running) -> None:
    assert running.stop() == 0
    assert check(running, 3).startswith("dsa2: STALE: the daemon was stopped ")
    assert running.run("status", "--json").code == 3
    assert running.metrics()[HEALTHY] == 0


def test_a_daemon_that_was_killed_is_told(running: Running) -> None:
    running.kill()
    assert "is gone" in check(running, 3)


def test_how_old_a_look_may_be_is_told(running: Running) -> None:
    running.profile(ONE + "drift: {interval: 300}\n")
    assert running.reload().code == 0
    assert running.metrics()["dsatier_look_within_seconds"] == 300


def test_a_host_that_cannot_be_looked_at_is_told() -> None:
    with daemon("sim:dsa8-seed") as running:
        running.profile(ONE)
        assert running.reload().code == 0
        assert running.poke("/proc/sys/vm/use_dsa_copy_pages", "1").code == 1
        running.until_state("unknown")
        status = running.status()
        assert status["reason"] == "LookFailed"
        assert "kernel panic" in status["message"]
        assert check(running, 4).startswith("dsa8-seed: unknown: LookFailed: ")
        metrics = running.metrics()
        assert (metrics[HEALTHY], metrics[CONVERGED]) == (0, 0)
        running.run("simulate", "reboot")
        assert running.reload().code == 0
        assert check(running, 0)


def test_a_new_profile_at_the_start_is_not_accepted_before_it_was_tried() -> None:
    host = SimHost.host_for("dsa2")
    facts = observe(host)
    wanted = intent.reread(
        json.dumps({"sources": [["/etc/dsatier.d/50.yaml", ONE]], "queues": None}), facts
    )
    log = logger(io.StringIO(), journal=True)
    supervisor = Supervisor(host, Journal(host), log, lambda progress: None, dict)
    supervisor.start(AtStart(facts, None, wanted))
    conditions = {one.type: one.status for one in Journal(host).record().conditions}
    assert (supervisor.verdict[0], conditions["ProfileAccepted"]) == ("Pending", "Unknown")
    assert supervisor.look().result == "changed"
    conditions = {one.type: one.status for one in Journal(host).record().conditions}
    assert (supervisor.verdict[0], conditions["ProfileAccepted"]) == ("Accepted", "True")


def test_commands_that_look_ask_the_daemon_for_its_simulated_host(running: Running) -> None:
    """What is below its root is no host: the kernel is in the daemon."""
    facts = json.loads(running.run("facts", "--json").out)
    assert (facts["hostname"], len(facts["devices"])) == ("dsa2", 2)
    assert running.run("verify").out == "the host is as its profile says\n"
    assert json.loads(running.run("plan", "--json").out)["steps"] == []
    assert running.run("doctor").code == 0
    assert running.run("explain", "engine").code == 0
    for_it = "version: 1\nmatch: {hostname: [dsa2]}\n"
    (running.root / "etc/dsatier.d/60-more.yaml").write_text(for_it, encoding="utf-8")
    assert "60-more.yaml" in running.run("cat-config", "--json").out
    (running.root / "etc/dsatier.d/60-more.yaml").unlink()


def test_they_see_what_happened_to_it_and_change_nothing(running: Running) -> None:
    running.profile(f"{ONE}drift: {{policy: report}}\n")
    assert running.reload().code == 0
    running.run("simulate", "poke", COMPACT, "0")
    ran = running.run("verify")
    assert (ran.code, "use_concur_to_compact" in ran.out) == (4, True)
    assert running.run("plan", "--detailed-exitcode").code == 2
    assert running.run("verify").code == 4


def test_nothing_is_measured_where_nothing_is_copied(running: Running) -> None:
    ran = running.run("measure", "--", "true")
    assert (ran.code, "keeps a simulated host (sim:dsa2)" in ran.err) == (64, True)


def test_a_daemon_that_does_not_answer_is_waited_for_no_longer_than_that(running: Running) -> None:
    os.kill(running.pid, signal.SIGSTOP)
    try:
        with pytest.raises(Locked, match="the daemon below"):
            of_daemon(FileHost(str(running.root)), 0.1)
    finally:
        os.kill(running.pid, signal.SIGCONT)


def test_who_has_the_file_of_a_simulated_host_is_told(tmp_path: Path) -> None:
    kept = tmp_path / "host.json"
    with kept.open("wb") as theirs, kept.open("rb+") as ours:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        with pytest.raises(Locked, match=f"process {os.getpid()} has had .*host.json for 0 s"):
            take(ours.fileno(), str(kept), 0.0)
        fcntl.flock(theirs, fcntl.LOCK_UN)
        take(ours.fileno(), str(kept), 0.0)


def test_a_folder_among_the_drop_ins_is_a_wrong_profile(running: Running) -> None:
    (running.root / "etc/dsatier.d/60-more.yaml").mkdir()
    ran = running.reload()
    assert (ran.code, "/etc/dsatier.d/60-more.yaml" in ran.err) == (65, True)
    assert running.state() == "converged"


@pytest.mark.parametrize("seconds", ["9" * 4000, "-1", "NaN", "Infinity", '"soon"', "true"])
def test_a_time_out_that_is_none_ends_no_daemon(running: Running, seconds: str) -> None:
    peer = socket.socket(socket.AF_UNIX)
    with peer:
        peer.settimeout(PATIENCE)
        peer.connect(str(running.root / "run/dsatier" / SOCKET))
        peer.sendall(f'{{"command": "reload", "timeout": {seconds}}}\n'.encode())
        answer = peer.makefile().read()
    assert '"result"' in answer
    assert check(running, 0)


@pytest.mark.parametrize("kind", ["crash", "disk", "clock-jump"])
def test_a_fault_without_effect_is_refused(running: Running, kind: str) -> None:
    ran = running.inject(kind)
    assert (ran.code, "has no effect here" in ran.err) == (1, True)


def test_drift_is_told_with_one_time(running: Running) -> None:
    assert running.poke(COMPACT, "0").code == 0
    running.until(lambda: running.status()["repaired"] == 1, "a repair")
    running.look()
    status = running.status()
    (converged,) = [one for one in status["conditions"] if one["type"] == "Converged"]
    assert status["since"] == converged["last_transition_time"]
    assert json.dumps(status)
