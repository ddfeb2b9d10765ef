# SPDX-License-Identifier: Apache-2.0
"""The daemon's life: start, stop, death and start again, one at a time; and waiting for it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dsatier.apply.driver import Driver
from dsatier.apply.target import target
from dsatier.base.exits import BAD_PROFILE, OK
from dsatier.profile.load import from_texts
from dsatier.sim.host import SimHost
from tests.support.running import PATIENCE, Ran, Running, daemon, environment, folder
from tests.support.treehost import Layout

COMPACT = "/proc/sys/vm/use_concur_to_compact"
ONE = "version: 1\nconcurrency: {use_concur_to_compact: true}\n"
WRONG = "version: 1\nconcurrency: 7\n"
MANY_CPUS = """version: 1
hostname: large
kernel: {release: 6.12.63-dsatier, kind: ours}
nodes:
  - {cpus: 0-3, memory: 16, used: 2}
  - {cpus: 4-131, memory: 16, used: 1}
"""


@pytest.fixture
def running() -> Iterator[Running]:
    """A daemon on a simulated host with two devices."""
    with daemon("sim:dsa2") as found:
        yield found


@pytest.fixture
def absent() -> Iterator[Running]:
    """The files of a daemon that has not been started."""
    with daemon("sim:dsa2", started=False) as found:
        yield found


# -- one at a time -----------------------------------------------------------------


@pytest.mark.parametrize("command", ["apply", "reconcile"])
def test_who_else_writes_is_told_who_does(running: Running, command: str) -> None:
    running.profile(ONE)
    who = f"another dsatier is at work: dsatier daemon, process {running.pid}"
    ran = running.run(command)
    assert (11, "", f"dsatier: {who}\n") == (ran.code, ran.out, ran.err)


def test_the_holder_is_told_each_time(running: Running) -> None:
    told = [running.run("apply") for _ in range(2)]
    assert told[0] == told[1]
    lock = (running.root / "run/dsatier/lock").read_text(encoding="utf-8")
    assert f"{running.pid}\n" == lock.partition("dsatier")[0]


def test_a_second_daemon_ends_at_once(running: Running) -> None:
    running.profile(ONE)
    who = f"another dsatier is at work: dsatier daemon, process {running.pid}"
    before, first = len(running.notes), running.process
    second = running.launch()
    assert 11 == second.wait(PATIENCE)
    running.process = first
    assert [who] == [line["message"] for line in running.log("cannot run")]
    assert f"STATUS={who}" in running.notes[before:]
    assert 0 == running.reload().code  # its socket is still there


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--log-level", "loud"), "--log-level: expected a level of error"),
        (("--host", "sim:no-such"), "sim:no-such: "),
        (("--host", "dsa8"), "dsa8: expected sim:NAME or sim:FILE.yaml"),
        (("--sim-state", "x"), "--sim-state is for single commands"),
        (("--no-such",), "--help"),
    ],
)
def test_words_that_are_wrong(absent: Running, words: tuple[str, ...], told: str) -> None:
    ran = absent.run("daemon", *words)
    assert (64, True) == (ran.code, told in ran.err)


def test_a_root_that_is_not_there(absent: Running) -> None:
    ran = absent.run("daemon", "--root", "/nowhere/at/all")
    assert (64, True) == (ran.code, "/nowhere/at/all" in ran.err)


# -- stop and start ------------------------------------------------------------------


def test_a_stop_leaves_the_host_as_it_is(running: Running) -> None:
    running.profile(ONE)
    assert 0 == running.reload().code
    assert 0 == running.stop()
    assert "STOPPING=1" in running.notes
    status = running.status()
    assert ("converged", None) == (status["state"], status["daemon"])
    assert {"status.json", "dsatier.prom", "lock"} == set(os.listdir(running.root / "run/dsatier"))
    assert 1 == len(running.log("step"))
    assert ["converged"] == [line["state"] for line in running.log("stopped")]

    ran = running.reload()
    assert (3, True) == (ran.code, "the daemon is not running: " in ran.err)
    assert 3 == running.run("nudge").code

    running.start()
    assert 0 == running.reload().code
    assert ["/etc/dsatier.d/50-host.yaml"] == running.log("started")[-1]["profile"]
    assert 1 == running.status()["observed_generation"]


def test_what_was_counted_goes_on_being_counted(running: Running) -> None:
    running.profile(ONE)
    assert 0 == running.reload().code
    before = running.metrics()
    running.stop()
    running.start()
    running.look()
    after = running.metrics()
    # the simulated kernel has booted, so the one step was done again
    count = 'dsatier_step_duration_seconds_count{rung="parameters"}'
    assert (1, 2) == (before[count], after[count])
    reloads = {name: n for name, n in before.items() if name.startswith("dsatier_reloads_total")}
    assert reloads == {name: after[name] for name in reloads}
    assert 1 == reloads['dsatier_reloads_total{result="changed"}']
    assert (
        after["dsatier_daemon_start_timestamp_seconds"]
        > (before["dsatier_daemon_start_timestamp_seconds"])
    )


def test_a_killed_daemon_is_told_and_started_again(running: Running) -> None:
    running.profile(ONE)
    assert 0 == running.reload().code
    running.kill()
    assert (running.root / "run/dsatier/control").is_socket()
    ran = running.reload()
    assert (3, True) == (ran.code, "nobody listens there" in ran.err)
    ran = running.run("status")
    words = f"STALE: the daemon (process {running.pid}) is gone"
    assert (3, True) == (ran.code, words in ran.out)
    ran = running.run("wait", "--timeout", "0")
    assert (1, True) == (ran.code, "no daemon is running" in ran.err)

    running.start()
    assert (0, "none") == (running.reload().code, running.harm())
    running.look()
    assert (0, "converged") == (running.run("wait").code, running.state())


def test_a_stop_in_the_middle_of_a_change_turns_it_round() -> None:
    with folder() as root:
        path = root / "host.yaml"
        path.write_text(MANY_CPUS, encoding="utf-8")
        with daemon(f"sim:{path}") as running:
            running.profile(
                "version: 1\ntiers: {slow_node: 1, cpuless: true}\n" + ONE.partition("\n")[2]
            )
            running.signal(signal.SIGHUP)
            running.until(lambda: "step 1 of 2" in running.notes[-1], "the first step")
            assert 0 == running.stop()
            assert "motion.json" not in running.own()
            status = running.status()
            assert ("reverted", "StepFailed") == (status["state"], status["reason"])
            assert "interrupted" in status["message"]
            assert ["cpus 4-131 offline", "cpus 4-131 online"] == [
                line["what"] for line in running.log("step")
            ]
            assert (0, 1) == (status["observed_generation"], len(running.log("stopped")))

            running.start()
            running.until_state("converged")


def test_a_reload_in_the_middle_of_a_change_waits_and_is_answered_for_what_it_asked() -> None:
    with folder() as root:
        path = root / "host.yaml"
        path.write_text(MANY_CPUS, encoding="utf-8")
        with daemon(f"sim:{path}") as running:
            running.profile("version: 1\ntiers: {slow_node: 1, cpuless: true}\n")
            running.signal(signal.SIGHUP)
            running.until(lambda: "step 1 of 1" in running.notes[-1], "the first step")
            running.profile(ONE)
            ran = running.reload()
            assert (0, "changed (converged): every step is proven\n") == (ran.code, ran.out)
            done = [line["what"] for line in running.log("step")]
            assert ["cpus 4-131 offline", f"{COMPACT} = 1"] == done[:2]
            assert 2 == running.status()["observed_generation"]


# -- what it opens ---------------------------------------------------------------------


def test_when_it_is_ready_it_has_told_what_the_files_ask_for(running: Running) -> None:
    """Orders are taken from then on; they are answered when they are done."""
    found = running.status()
    assert ["STATUS=looking at the host", "READY=1"] == list(running.notes[:2])
    assert (running.pid, "NoProfile") == (found["daemon"]["pid"], found["profile"]["status"])


@pytest.mark.parametrize(("profile", "code"), [(ONE, OK), (WRONG, BAD_PROFILE)])
def test_a_reload_is_told_from_its_start_to_its_end(
    running: Running, profile: str, code: int
) -> None:
    """However it is asked for and however it ends, or the service would stay in reloading."""
    running.profile(profile)
    before = len(running.notes)
    sooner = time.monotonic_ns() // 1000
    assert code == running.reload().code
    running.until(lambda: "READY=1" in running.notes[before:], "READY=1")
    told = [note for note in running.notes[before:] if not note.startswith(("STATUS=", "WATCH"))]
    begun, at, *ended = told
    assert ("RELOADING=1", ["READY=1"]) == (begun, ended)
    assert sooner <= int(at.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_a_reload_by_signal_is_told_too(running: Running) -> None:
    running.profile(ONE)
    before = len(running.notes)
    os.kill(running.pid, signal.SIGHUP)
    running.until(lambda: "READY=1" in running.notes[before:], "READY=1")
    assert 1 == running.notes[before:].count("RELOADING=1")
    assert "converged" == running.status()["state"]


def test_a_start_on_another_boot_says_first_that_the_host_booted() -> None:
    """What was true before the boot is told to nobody, also while the first look takes its time."""
    sim = SimHost.host_for("dsa2")
    driver = Driver(sim)
    facts = driver.look()
    wanted = target(sim.read, from_texts([("a", ONE)], facts), facts, None)
    record = driver.apply(wanted).record
    assert record is not None
    for before, expected in (
        (record, ("converged", "Proven")),
        (replace(record, boot_id="another"), ("unmanaged", "Booted")),
        (replace(record, boot_id="another", state="converging"), ("converging", "Proven")),
    ):
        driver.journal.keep_record(before)
        Driver(sim).chronicle.publish_initial()
        found = json.loads(sim.read("/run/dsatier/status.json"))
        assert (expected, before) == ((found["state"], found["reason"]), Driver(sim).journal.kept())


def test_no_network_hears_it(running: Running) -> None:
    running.profile(ONE)
    assert 0 == running.reload().code
    links = [os.readlink(one) for one in Path(f"/proc/{running.pid}/fd").iterdir()]
    opened = {one[8:-1] for one in links if one.startswith("socket:[")}
    local = set(Path(f"/proc/{running.pid}/net/unix").read_text().split())
    assert opened == opened & local != set()


# -- its own files ---------------------------------------------------------------------


def test_a_broken_drop_in_at_the_start_leaves_the_kept_profile_in_force(running: Running) -> None:
    running.profile(ONE)
    assert 0 == running.reload().code
    running.kill()
    running.profile(WRONG)
    running.start()  # to a kernel that has booted
    running.until(lambda: len(running.log("step")) == 2, "the kept profile")
    running.until_state("converged")
    status = running.status()
    assert (1, "Invalid") == (status["observed_generation"], status["profile"]["status"])
    assert "/etc/dsatier.d/50-host.yaml:2:" in status["profile"]["message"]
    running.poke(COMPACT, "0")
    running.until(lambda: running.status()["repaired"] >= 1, "a repair")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("accepted.json", "{"),
        ("accepted.json", '{"schema_version": 1, "sources": 5, "queues": null}'),
        ("accepted.json", '{"sources": [["/x.yaml", "version: 9\\n"]], "queues": null}'),
        ("tally.json", "not what it was"),
        ("tally.json", '{"schema_version": 1, "durations": {}, "reloads": {"changed": "often"}}'),
    ],
)
def test_a_file_that_it_can_do_without_is_spoilt(running: Running, name: str, text: str) -> None:
    running.profile(ONE)
    assert 0 == running.reload().code
    running.stop()
    (running.root / "var/lib/dsatier" / name).write_text(text, encoding="utf-8")
    running.start()
    assert 0 == running.reload().code
    unreadable = [line["priority"] for line in running.log("kept profile unreadable")]
    assert ([4] if name == "accepted.json" else []) == unreadable


def test_a_boot_with_a_broken_drop_in_reaches_what_was_accepted(running: Running) -> None:
    """Work that waits for the host starts: it is converged on the profile in force."""
    running.profile(ONE)
    assert running.reload().code == 0
    running.profile(WRONG)
    assert running.stop() == 0
    running.start()  # to a kernel that has booted
    ran = wait(running, "--timeout=60")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("converged: every step is proven; profile Invalid: ")


def test_what_a_later_version_kept_is_read(running: Running) -> None:
    running.profile(ONE)
    assert running.reload().code == 0
    assert running.stop() == 0
    for name in ("record.json", "tally.json", "originals.json"):
        path = running.root / "var/lib/dsatier" / name
        path.write_text(json.dumps(running.kept(name) | {"of_tomorrow": 1}), encoding="utf-8")
    running.start()
    assert running.reload().code == 0


def test_a_spoilt_record_ends_it_with_a_message(running: Running) -> None:
    running.stop()
    path = running.root / "var/lib/dsatier/record.json"
    path.write_text('{"schema_version": 1, "state": 5}', encoding="utf-8")
    assert 78 == running.launch().wait(PATIENCE)
    told = running.log("cannot run")[-1]
    assert (3, True) == (
        told["priority"],
        told["message"].startswith(
            "/var/lib/dsatier/record.json: expected what dsatier wrote, found something else"
        ),
    )
    assert running.notes[-1].startswith("STATUS=/var/lib/dsatier/record.json: ")


# -- the log ---------------------------------------------------------------------------


def test_on_a_terminal_the_log_is_for_people() -> None:
    with daemon("sim:dsa2", journal=False) as running:
        running.profile(ONE)
        assert 0 == running.reload().code
        lines = running.said().splitlines()
        form = r"\d\d:\d\d:\d\d \[(notice|info) +\] [a-z]"
        assert [line for line in lines if not re.match(form, line)] == []
        step = f"step=1 steps=1 what='{COMPACT} = 1' seconds="
        assert len([line for line in lines if step in line]) == 1


def test_the_log_level(absent: Running) -> None:
    absent.profile(WRONG)
    absent.start("--log-level", "error")
    absent.profile(ONE)
    assert 0 == absent.reload().code
    assert ["profile"] == [line["event"] for line in absent.log()]


# -- waiting -----------------------------------------------------------------------------


def wait(running: Running, *words: str) -> Ran:
    return running.run("wait", *words)


def test_waiting_ends_when_the_host_has_converged(running: Running) -> None:
    assert (1, True) == (
        (ran := wait(running)).code,
        "profile NoProfile: no profile applies to this host" in ran.err,
    )
    running.inject("late-device", device="dsa1", after=3600.0)
    running.profile(
        "version: 1\nengine: {kind: dsa, limit_chans: 8, "
        "work_queues: {devices: 2, engines: 4, queues: 4, size: 32}}\n"
    )
    assert 1 == running.reload().code
    ran = wait(running, "--timeout", "0")  # what may yet come is waited for
    assert (1, True) == (ran.code, ran.err.startswith("dsatier: not converged in 0 s: unmanaged: "))
    assert "profile Refused: " in ran.err
    running.inject("late-device", device="dsa1", after=0.0)  # it appears
    assert (0, "converged: every step is proven\n", "") == (
        (ran := wait(running, "--timeout=60")).code,
        ran.out,
        ran.err,
    )

    running.profile(WRONG)
    running.reload()
    # what is in force is what others wait for; what is wrong with the files is told
    assert (0, True) == ((ran := wait(running)).code, "profile Invalid: " in ran.out)

    running.inject("self-clear")
    running.until_state("degraded")
    assert (1, True) == ((ran := wait(running)).code, "`dsatier clear`" in ran.err)

    running.run("rollback")
    assert (1, True) == ((ran := wait(running)).code, "unmanaged" in ran.err)

    running.stop()
    ran = wait(running, "--timeout", "0")
    assert (1, True) == (ran.code, "no daemon is running" in ran.err)


def test_waiting_where_nothing_ever_ran(absent: Running) -> None:
    expected = "dsatier: not converged in 0 s: dsatier has not run since this host booted\n"
    assert (1, expected) == ((ran := wait(absent, "--timeout", "0")).code, ran.err)
    assert 64 == wait(absent, "--timeout", "soon").code


def status(**fields: object) -> dict[str, object]:
    whole: dict[str, object] = {
        "state": "converged",
        "reason": "Proven",
        "message": "every step is proven",
        "remedy": "nothing to do",
        "profile": {"status": "Accepted", "message": ""},
        "daemon": {"pid": os.getpid(), "since": 100.0, "looked_at": 100.5},
    }
    return {**whole, **fields}


def test_what_a_daemon_says_before_its_first_look_is_not_waited_for(absent: Running) -> None:
    path = absent.root / "run/dsatier/status.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(status()), encoding="utf-8")
    assert 0 == wait(absent, "--timeout", "0").code
    early = {"pid": os.getpid(), "since": 100.0, "looked_at": 100.0}
    path.write_text(json.dumps(status(daemon=early)), encoding="utf-8")
    ran = wait(absent, "--timeout", "0")
    assert (1, True) == (ran.code, "the daemon has not looked yet" in ran.err)
    path.write_text("{", encoding="utf-8")
    ran = wait(absent, "--timeout", "0")
    assert (1, True) == (ran.code, f"{path}: " in ran.err)


# -- memory --------------------------------------------------------------------------------

HEAVY = (
    "pydantic",
    "pydantic_core",
    "pydantic_core._pydantic_core",
    "yaml",
    "_yaml",
    "argparse",
    "dsatier.cli.commands",
    "dsatier.profile.load",
    "dsatier.cli.options",
    "dsatier.sim",
)


def test_what_costs_memory_is_never_loaded_into_it() -> None:
    """Through a profile that is wrong, one that is right, a repair, a way back and a restart."""
    script = (
        "import json, sys; from dsatier.cli.main import main; code = main(sys.argv[1:]);"
        "print(json.dumps(sorted(sys.modules))); sys.exit(code)"
    )
    with daemon(None, started=False) as running:
        Layout(SimHost.host_for("dsa2"), running.root)
        knob = running.root / COMPACT[1:]
        said = ""
        for _ in range(2):
            with running.log_file.open("ab") as log:
                before = len(running.notes)
                running.process = subprocess.Popen(
                    [sys.executable, "-c", script, "daemon", "--root", str(running.root)],
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=environment(NOTIFY_SOCKET=str(running.root / "notify")),
                )
            running.until(lambda: "READY=1" in running.notes[before:], "READY=1")  # noqa: B023
            running.profile(WRONG)
            assert 65 == running.reload().code
            running.profile(ONE)
            assert 0 == running.reload().code
            knob.write_text("0\n")
            running.until(lambda: knob.read_text() == "1\n", "a repair")
            libraries = Path(f"/proc/{running.pid}/maps").read_text()
            assert [] == [name for name in ("pydantic", "yaml") if name in libraries]
            running.signal(signal.SIGTERM)
            said = running.process.communicate(timeout=PATIENCE)[0].decode()
            assert 0 == running.process.returncode
            assert set() == set(HEAVY) & set(json.loads(said))
        assert "dsatier.daemon.loop" in json.loads(said)
