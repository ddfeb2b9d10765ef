# SPDX-License-Identifier: Apache-2.0
"""What the daemon makes of profiles, of a host that changes, and of orders."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dsatier.control.client import ask
from dsatier.facts.model import DsaDevice
from dsatier.facts.observe.observer import observe
from dsatier.plan.short_form import expand
from dsatier.profile.model import QueueShape
from dsatier.queues.accel_config import text
from dsatier.sim.host import SimHost
from tests.support.running import PROFILES, Running, daemon, folder
from tests.support.treehost import Layout

COMPACT = "/proc/sys/vm/use_concur_to_compact"
DEMOTE = "/proc/sys/vm/use_concur_to_demote"
ONE = "version: 1\nconcurrency: {use_concur_to_compact: true}\n"
BOTH = "version: 1\nconcurrency: {use_concur_to_compact: true, use_concur_to_demote: true}\n"
WRONG = "version: 1\nconcurrency: {use_concur_to_compcat: true}\n"
OTHERS = "version: 1\nmatch: {hostname: [db*]}\nengine: {kind: cpu}\n"
TWO_DEVICES = """version: 1
engine:
  kind: dsa
  limit_chans: 8
  work_queues: {devices: 2, engines: 4, queues: 4, size: 32}
"""
HOURS = 36_000.0
"""Seconds: longer than any test."""


@pytest.fixture
def running() -> Iterator[Running]:
    """A daemon on a simulated host with eight devices."""
    with daemon() as found:
        yield found


def steps(running: Running) -> list[str]:
    """Return what it did, in order."""
    return [line["what"] for line in running.log("step")]


def describe(root: Path, **more: str) -> str:
    """Write the description of a small host, and return what ``--host`` takes."""
    fields = {
        "nodes": "[{cpus: 0-3, memory: 16, used: 2}, {memory: 16, used: 1}]",
        "devices": "2",
        **more,
    }
    lines = [f"{name}: {value}\n" for name, value in fields.items()]
    path = root / "host.yaml"
    kernel = "version: 1\nhostname: small\nkernel: {release: 6.12.63-dsatier, kind: ours}\n"
    path.write_text(kernel + "".join(lines), encoding="utf-8")
    return f"sim:{path}"


# -- tiering ---------------------------------------------------------------------


def test_pages_that_move_are_told() -> None:
    with daemon(host="sim:stock-6-12") as running:
        shutil.copy(PROFILES / "tiering.yaml", running.root / "etc/dsatier.d")
        assert 0 == running.reload().code
        assert "armed" == running.status()["tiering"]["verdict"]
        running.inject("pressure")
        running.until(lambda: _tiering(running) == "working", "pages that move")
        assert running.status()["moved"]["demoted"] > 0
        assert 1.0 == running.metrics()['dsatier_tiering{verdict="working"}']
        assert ["armed", "working"] == [line["what"] for line in running.log("tiering")]
        assert "converged" == running.state()


def _tiering(running: Running) -> object:
    running.look()
    return running.status()["tiering"]["verdict"]


# -- no profile ------------------------------------------------------------------


def test_without_a_profile_nothing_is_written() -> None:
    with daemon(watchdog=2.0) as running:
        running.until(lambda: running.notes.count("WATCHDOG=1") >= 3, "three signs of life")
        running.look()
        ran = running.reload()
        assert (0, "") == (ran.code, ran.err)
        assert "no-profile (unmanaged): no profile applies to this host; it is left as it is\n" == (
            ran.out
        )
        status = running.status()
        assert ("unmanaged", "NoProfile") == (status["state"], status["profile"]["status"])
        assert [] == running.log("step")
        assert set() == running.own() - {"record.json", "tally.json", "history"}
        assert "none" == running.harm()
        assert 2 == running.notes.count("READY=1")  # its start, and the reload
        words = [note for note in running.notes if note.startswith("STATUS=")]
        assert "STATUS=unmanaged: NeverApplied; profile NoProfile: " in words[-1]


def test_without_a_profile_no_file_of_the_kernel_is_touched() -> None:
    with daemon(None, started=False) as running:
        Layout(SimHost.host_for("dsa2"), running.root)

        def kernel() -> dict[Path, tuple[int, bytes]]:
            return {
                path: (path.stat().st_mtime_ns, path.read_bytes())
                for top in ("proc", "sys", "dev")
                for path in (running.root / top).rglob("*")
                if path.is_file()
            }

        before = kernel()
        running.profile(OTHERS)
        running.start()
        running.look()
        assert 0 == running.reload().code
        assert 0 == running.stop()
        assert before == kernel()
        assert "originals.json" not in running.own()


def test_why_no_profile_applies_is_told(running: Running) -> None:
    running.profile(OTHERS)
    ran = running.reload()
    expected = "/etc/dsatier.d/50-host.yaml: hostname: expected 'db*', found 'dsa8'"
    assert (0, True) == (ran.code, expected in ran.out)
    assert expected in running.status()["profile"]["message"]


def test_a_profile_that_goes_leaves_the_host_as_it_is(running: Running) -> None:
    path = running.profile(ONE)
    assert 0 == running.reload().code
    path.unlink()
    ran = running.reload()
    assert (0, True) == (ran.code, "it is left as the last one put it" in ran.out)
    assert ran == running.reload()
    running.poke(COMPACT, "0")
    running.look()
    assert [f"{COMPACT} = 1"] == steps(running)
    # what nothing asks for any more is not said to be as it should be
    status = running.status()
    assert (status["state"], status["reason"]) == ("unmanaged", "NoProfile")
    assert (status["repaired"], running.run("status").code) == (0, 4)

    assert 0 == running.run("rollback").code
    assert "unmanaged" == running.state()


# -- the history -----------------------------------------------------------------


def test_a_history_that_cannot_be_written_stops_nothing_and_is_told_later(
    running: Running,
) -> None:
    path = running.root / "var/lib/dsatier/history"
    path.unlink()  # it tells already that no profile applies
    path.mkdir()
    running.profile(ONE)
    assert 0 == running.reload().code
    running.look()
    (line,) = running.log("history not kept")
    assert (4, True) == (line["priority"], "/var/lib/dsatier/history" in line["message"])
    assert 1 == running.run("history").code

    path.rmdir()
    running.look()
    running.until(path.is_file, "the history")
    told = json.loads(running.run("history", "--json").out)
    assert ["profile", "change"] == [entry["event"] for entry in told["entries"]]


# -- a reload is an answer ---------------------------------------------------------


def test_a_reload_ends_when_the_profile_is_in_force_and_proven(running: Running) -> None:
    running.shipped("dsa")
    ran = running.reload()
    assert (0, "changed (converged): every step is proven\n", "") == (ran.code, ran.out, ran.err)
    status = running.status()
    assert ("converged", 1, running.pid) == (
        status["state"],
        status["observed_generation"],
        status["daemon"]["pid"],
    )
    assert [(n, 15) for n in range(1, 16)] == [
        (line["step"], line["steps"]) for line in running.log("step")
    ]
    kept = {"record.json", "originals.json", "accepted.json", "tally.json", "history", "step"}
    assert kept == running.own()
    assert (0, "unchanged (converged): every step is proven\n") == (
        (again := running.reload()).code,
        again.out,
    )
    assert [("changed", 1), ("unchanged", 1)] == [
        (line["what"], line["waiting"]) for line in running.log("reload")
    ]
    assert 0 == running.run("status").code
    counted = running.metrics()
    both = ("changed", "unchanged")
    assert [1, 1] == [counted[f'dsatier_reloads_total{{result="{one}"}}'] for one in both]
    assert "watching" == status["daemon"]["doing"]
    assert "none" == running.harm()


def test_an_invalid_profile_changes_nothing(running: Running) -> None:
    running.profile(ONE)
    assert 0 == running.reload().code
    before = running.kept("originals.json"), running.kept("accepted.json")

    running.profile(WRONG)
    ran = running.reload()
    assert (65, "") == (ran.code, ran.out)
    assert "invalid (converged): /etc/dsatier.d/50-host.yaml:2:15: " in ran.err
    assert "use_concur_to_compact" in ran.err
    assert "generation 1 stays in force" in ran.err
    status = running.status()
    assert ("converged", 1, "Invalid") == (
        status["state"],
        status["observed_generation"],
        status["profile"]["status"],
    )
    assert before == (running.kept("originals.json"), running.kept("accepted.json"))

    # what was in force is looked after
    running.poke(COMPACT, "0")
    running.until(lambda: running.status()["repaired"] == 1, "a repair")
    assert "Invalid" == running.status()["profile"]["status"]

    running.profile(ONE)
    assert (0, "Accepted") == (running.reload().code, running.status()["profile"]["status"])
    assert 1 == running.status()["observed_generation"]


@pytest.mark.parametrize("host", ["dsa2", "no-dsa", "stock-debian"])
def test_a_profile_out_of_reach_is_refused_before_anything_is_written(host: str) -> None:
    with daemon(f"sim:{host}") as running:
        running.shipped("dsa")
        ran = running.reload()
        assert (1, "", True) == (ran.code, ran.out, ran.err.startswith("refused (unmanaged): "))
        running.look()  # it is tried again, and refused again
        status = running.status()
        assert ("unmanaged", "Refused") == (status["state"], status["profile"]["status"])
        assert [] == [*running.log("step"), *running.log("step failed")]
        assert set() == running.own() & {"originals.json", "motion.json", "accepted.json"}
        assert [1] == [line["waiting"] for line in running.log("reload")]
        assert 1 == len([line for line in running.log("profile") if line["what"] == "Refused"])


def test_a_step_that_fails_is_undone_and_not_tried_again_at_once(running: Running) -> None:
    running.inject("rejected-write", path=DEMOTE, times=0)
    running.profile(BOTH)
    ran = running.reload()
    assert (1, "") == (ran.code, ran.out)
    assert f"reverted (reverted): step 2 ({DEMOTE} = 1): the host refused: " in ran.err
    assert [f"{COMPACT} = 1", f"{COMPACT} = 0"] == steps(running)
    assert "Failed" == running.status()["profile"]["status"]
    assert "motion.json" not in running.own()

    for _ in range(3):
        running.look()
    assert 1 == len(running.log("step failed"))

    running.heal("rejected-write")
    assert 0 == running.reload().code
    assert ("converged", "Accepted") == (running.state(), running.status()["profile"]["status"])
    assert "none" == running.harm()


def test_what_was_in_force_stays_when_the_next_profile_fails(running: Running) -> None:
    running.profile(ONE)
    assert 0 == running.reload().code
    running.inject("rejected-write", path=DEMOTE, times=0)
    running.profile(BOTH)
    ran = running.reload()
    assert (1, True) == (ran.code, "(generation 1 stays in force: reverted)" in ran.err)
    running.until_state("converged")  # to the old one
    assert ("Failed", 1) == (
        running.status()["profile"]["status"],
        running.status()["observed_generation"],
    )
    running.poke(COMPACT, "0")
    running.until(lambda: running.status()["repaired"] == 1, "a repair")


def test_a_reload_that_takes_too_long_is_turned_round(running: Running) -> None:
    running.profile(ONE)
    ran = running.reload("--timeout", "0")
    assert (1, True) == (ran.code, "timed out: it has taken longer than it was given" in ran.err)
    assert ([], "reverted") == (steps(running), running.state())
    assert 0 == running.reload().code


def test_a_reload_says_what_it_is_in_json(running: Running) -> None:
    running.profile(WRONG)
    ran = running.reload("--json")
    answer = json.loads(ran.out)
    assert (65, 65, "invalid", "unmanaged", 1) == (
        ran.code,
        answer["code"],
        answer["result"],
        answer["state"],
        answer["schema_version"],
    )


def test_many_reloads_at_once_are_answered_together(running: Running) -> None:
    running.profile(BOTH)
    where = str(running.root / "run/dsatier")
    clients = 300
    with ThreadPoolExecutor(clients) as pool:
        asked = [
            pool.submit(ask, where, {"command": "reload", "timeout": 60.0}, 60.0)
            for _ in range(clients)
        ]
        answers = [one.result() for one in asked]
    assert {0} == {answer["code"] for answer in answers}
    assert {"changed", "unchanged"} >= {answer["result"] for answer in answers}
    served = [line["waiting"] for line in running.log("reload")]
    assert clients == sum(served)
    assert len(served) < clients / 3
    assert [f"{COMPACT} = 1", f"{DEMOTE} = 1"] == steps(running)


# -- queue files and devices -------------------------------------------------------


def queues(devices: tuple[DsaDevice, ...], size: int) -> str:
    """Return the text of a queue file: eight queues on two devices."""
    shape = QueueShape(devices=2, engines=4, queues=4, size=size)
    return text(expand(shape, devices, driver_names=True))


def test_a_queue_file_counts_as_it_was_when_it_was_read() -> None:
    devices = observe(SimHost.host_for("dsa2")).devices
    named = "version: 1\nengine: {kind: dsa, limit_chans: 8, work_queues: {file: /etc/wq.json}}\n"
    with daemon("sim:dsa2") as running:
        path = running.root / "etc/wq.json"
        running.profile(named)
        ran = running.reload()
        assert (1, True) == (ran.code, "/etc/wq.json: expected a readable accel-config" in ran.err)

        path.write_text(queues(devices, 32), encoding="utf-8")
        ran = running.reload()
        assert (0, "", "converged") == (ran.code, ran.err, running.state())

        path.write_text(queues(devices, 16), encoding="utf-8")
        done = steps(running)
        running.look()
        running.poke(DEMOTE, "0")
        running.look()
        assert done == steps(running)

        path.write_text("[]{", encoding="utf-8")
        ran = running.reload()
        assert (1, True) == (ran.code, "/etc/wq.json" in ran.err)
        assert ("Refused", "converged") == (
            running.status()["profile"]["status"],
            running.state(),
        )
        assert done == steps(running)

        path.write_text(queues(devices, 16), encoding="utf-8")
        assert 0 == running.reload().code
        assert 2 == steps(running).count("dsa0 configured and enabled")
        assert "none" == running.harm()


def test_a_device_that_appears_late_is_adopted() -> None:
    with daemon("sim:dsa2") as running:
        running.inject("late-device", device="dsa1", after=86400.0)
        running.profile(TWO_DEVICES)
        assert (1, "Refused") == (running.reload().code, running.status()["profile"]["status"])
        running.run("simulate", "heal", "late-device")
        running.until(lambda: "Accepted" == running.status()["profile"]["status"], "adoption")
        assert ("converged", 1) == (running.state(), len(running.log("reload")))


def test_memory_that_appears_late_is_waited_for_and_brought_online() -> None:
    wanted = "version: 1\ntiers: {online: {nodes: [1]}}\n"
    with daemon("sim:stock-offline") as running:
        running.inject("late-memory", node=1, after=HOURS)
        running.profile(wanted)
        assert 1 == running.reload().code
        assert ("Refused", True) == (
            running.status()["profile"]["status"],
            "not there yet" in running.status()["profile"]["message"],
        )
        running.run("simulate", "heal", "late-memory")
        running.until(lambda: "Accepted" == running.status()["profile"]["status"], "the memory")
        assert ("converged", 1) == (running.state(), len(running.log("reload")))
        assert ["memory blocks 40-71 of dax1.0 online"] == steps(running)


def test_a_slow_node_that_comes_late_is_taken_into_the_tiers(tmp_path: Path) -> None:
    """Every knob is as it is to be before and after, so that nothing else tells of it."""
    slow = "memory: 16, used: 1, tier: 30, device: cxl"
    nodes = f"[{{cpus: 0-3, memory: 16, used: 2, tier: 4}}, {{{slow}}}, {{{slow}}}]"
    with daemon(describe(tmp_path, nodes=nodes, devices="0")) as running:
        running.inject("late-memory", node=2, after=HOURS)
        shutil.copy(PROFILES / "tiering.yaml", running.root / "etc/dsatier.d")
        assert 0 == running.reload().code
        taken = steps(running)
        running.run("simulate", "heal", "late-memory")
        running.until(lambda: running.log("tiers"), "the node")
        (line,) = running.log("tiers")
        before, now = "fast node 0, slow node 1", "fast node 0, slow nodes 1-2"
        assert (before, now) == (line["before"], line["what"])
        assert ("converged", taken) == (running.state(), steps(running))
        entries = json.loads(running.run("history", "--json").out)["entries"]
        (told,) = (entry for entry in entries if "tiers" == entry["event"])
        assert f"{now}; before: {before}" == told["message"]


def test_a_profile_whose_match_is_met_late_is_adopted() -> None:
    wanted = ONE + "match: {numa: {nodes: 2}}\n"
    with daemon(None, started=False) as running:
        Layout(SimHost.host_for("dsa2"), running.root)
        node, away = running.root / "sys/devices/system/node/node1", running.root / "away"
        shutil.move(node, away)
        running.start()
        running.profile(wanted)
        ran = running.reload()
        assert (0, True) == (ran.code, "numa.nodes: expected 2, found 1" in ran.out)

        shutil.move(away, node)
        running.look()
        assert ("converged", "Accepted") == (
            running.state(),
            running.status()["profile"]["status"],
        )
        assert "1" == (running.root / COMPACT[1:]).read_text().strip()


def test_the_slow_node_is_known_after_a_restart() -> None:
    with folder() as root:
        nodes = (
            "[{cpus: 0-3, memory: 16, used: 2}, {cpus: 4-5, memory: 16, used: 1}, "
            "{cpus: 6-7, memory: 16, used: 1}]"
        )
        with daemon(describe(root, nodes=nodes)) as running:
            running.profile("version: 1\ntiers: {slow_node: 2, cpuless: true}\n")
            assert (0, ["cpus 6-7 offline"]) == (running.reload().code, steps(running))
            assert 0 == running.stop()
            running.start()  # to a kernel that has booted: all is to do again
            running.until(lambda: len(steps(running)) == 2, "the repair")
            running.until_state("converged")
            assert 0 == running.run("rollback").code
            assert "cpus 6-7 online" == steps(running)[-1]
            assert [] == running.log("step failed")


def test_a_profile_that_was_taken_away_is_not_taken_up_again(running: Running) -> None:
    path = running.profile(ONE)
    assert 0 == running.reload().code
    assert "accepted.json" in running.own()
    path.unlink()
    assert 0 == running.reload().code
    assert "accepted.json" not in running.own()
    running.stop()
    running.profile("version: 2\n")
    running.start()
    running.poke(COMPACT, "0")
    running.look()
    running.look()
    assert ("Invalid", 0) == (running.status()["profile"]["status"], running.status()["repaired"])


def test_a_status_that_cannot_be_written_is_told_once() -> None:
    with daemon(None, started=False) as running:
        Layout(SimHost.host_for("dsa2"), running.root)
        running.start()
        running.profile(ONE)
        status = running.root / "run/dsatier/status.json"
        for times in (1, 2):
            assert 0 == running.reload().code
            assert "converged" == running.state()
            status.unlink()
            status.mkdir()
            for _ in range(3):
                assert 0 == running.run("nudge").code
                time.sleep(0.3)  # nothing tells that it has looked
            assert times == len(running.log("status not written"))
            status.rmdir()


# -- drift ---------------------------------------------------------------------------


def test_drift_is_found_by_a_glance_and_repaired(running: Running) -> None:
    running.profile(ONE + "drift: {interval: 36000, window: 86400}\n")
    assert 0 == running.reload().code
    assert HOURS == running.status()["daemon"]["look_within"]
    running.look()
    running.poke(COMPACT, "0")
    running.until(lambda: running.status()["repaired"] == 1, "a repair")
    assert [f"{COMPACT} = 1"] * 2 == steps(running)
    assert "converged" == running.state()
    running.until(lambda: running.metrics()["dsatier_drift_repairs_total"] == 1, "the metrics")


def test_drift_that_is_only_reported_is_told_once(running: Running) -> None:
    running.profile(ONE + "drift: {policy: report}\n")
    assert 0 == running.reload().code
    running.poke(COMPACT, "0")
    running.until_state("drifted")
    for _ in range(3):
        running.look()
    assert ("drifted", "Drift") == (running.state(), running.status()["reason"])
    assert 4 == running.run("status").code
    assert [(3, f"{COMPACT} = 1 (found 0)")] == [
        (line["priority"], line["message"]) for line in running.log("drifted")
    ]
    assert [f"{COMPACT} = 1"] == steps(running)

    running.poke(COMPACT, "1")
    running.until_state("converged")
    running.poke(COMPACT, "0")
    running.until_state("drifted")
    running.look()
    assert 2 == len(running.log("drifted"))


def test_a_fight_is_given_up_until_a_reload(running: Running) -> None:
    running.profile(ONE + "drift: {fights: 1}\n")
    assert 0 == running.reload().code
    running.poke(COMPACT, "0")
    running.until(lambda: running.status()["repaired"] == 1, "a repair")
    running.until_state("converged")
    running.poke(COMPACT, "0")
    running.until_state("drifted")
    assert "Contested" == running.status()["reason"]
    assert f"gave up on {COMPACT} = 1" in running.status()["message"]
    running.look()
    assert 1 == len(running.log("drifted"))
    assert (0, "converged") == (running.reload().code, running.state())


# -- faults --------------------------------------------------------------------------


def test_a_fault_latches_until_it_is_cleared() -> None:
    with daemon("sim:dsa2") as running:
        running.profile(TWO_DEVICES)
        assert 0 == running.reload().code
        running.inject("self-clear")
        running.until_state("degraded")
        status = running.status()
        assert ("fault", 1, "EngineFault") == (status["latch"], status["faults"], status["reason"])
        running.until(lambda: running.log("degraded"), "its word")
        assert [3] == [line["priority"] for line in running.log("degraded")]
        ran = running.reload()
        assert (4, "", True) == (ran.code, ran.out, ran.err.startswith("degraded (degraded): "))
        running.stop()
        running.start()
        running.look()
        assert ("degraded", "fault") == (running.state(), running.status()["latch"])

        ran = running.run("clear")
        assert (0, True) == (ran.code, ran.out.startswith("changed (reverted): acknowledged: "))
        running.until_state("converged")
        assert ("none", 1) == (running.status()["latch"], running.status()["faults"])
        assert "none" == running.harm()


def test_a_host_that_boots_again_is_brought_back(running: Running) -> None:
    running.profile(ONE)
    assert 0 == running.reload().code
    assert 0 == running.run("simulate", "reboot").code
    running.until(lambda: len(steps(running)) == 2, "the profile")
    running.until_state("converged")


def test_a_host_that_cannot_be_looked_at_is_told_and_waited_out() -> None:
    """To be killed for it and started again would mend nothing, and hide what it says."""
    with daemon("sim:dsa8-seed", watchdog=0.6) as running:
        ran = running.poke("/proc/sys/vm/use_dsa_copy_pages", "1")
        assert (ran.code, "kernel panic" in ran.err) == (1, True)
        # a sign of life may follow the words at once
        running.until(lambda: any("cannot look at" in one for one in running.notes), "the words")

        running.profile(ONE)
        ran = running.reload()
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith("refused (unmanaged): cannot look at the host: ")
        fed = running.notes.count("WATCHDOG=1")
        running.until(lambda: running.notes.count("WATCHDOG=1") >= fed + 3, "signs of life")
        assert {line["priority"] for line in running.log("look failed")} == {3}

        running.run("simulate", "reboot")
        assert running.reload().code == 0


# -- orders --------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["rollback", "detach"])
def test_what_is_let_go_of_stays_so_until_a_reload(running: Running, verb: str) -> None:
    running.profile(ONE)
    assert 0 == running.reload().code
    ran = running.run(verb)
    words = "changed (unmanaged): dsatier no longer manages the host\n"
    assert (0, words, "") == (ran.code, ran.out, ran.err)
    assert [f"{COMPACT} = 1", f"{COMPACT} = 0"] == steps(running)
    assert [verb] == [line["what"] for line in running.log("order")]

    running.look()
    running.run("simulate", "reboot")
    running.look()
    running.stop()
    running.start()
    running.look()
    status = running.status()
    assert ("unmanaged", "Withdrawn", 2) == (
        status["state"],
        status["reason"],
        len(steps(running)),
    )
    assert "originals.json" not in running.own()

    assert (0, "converged") == (running.reload().code, running.state())


def test_clear_without_a_latch(running: Running) -> None:
    ran = running.run("clear")
    expected = (0, "unchanged (unmanaged): nothing is latched\n")
    assert expected == (ran.code, ran.out)


def test_a_real_host_is_not_simulated() -> None:
    with daemon(None, started=False) as running:
        Layout(SimHost.host_for("no-dsa"), running.root)
        running.start()
        ran = running.run("simulate", "harm")
        assert (1, "refused: this host is real; start with --host sim:NAME\n") == (
            ran.code,
            ran.err,
        )


def test_a_fault_that_is_none_is_refused(running: Running) -> None:
    for fault in (
        '{"kind": "halt"}',
        '{"kind": "halt", "device": "dsa99"}',
        '{"kind": "halt", "device": "dsa0", "after": "soon"}',
        '{"kind": "quake"}',
        "[]",
    ):
        ran = running.run("simulate", "inject", fault)
        assert (1, True) == (ran.code, ran.err.startswith("refused: ")), fault
    running.look()


def test_a_reload_by_signal(running: Running) -> None:
    running.profile(ONE)
    running.signal(signal.SIGHUP)
    running.until(lambda: running.log("reload"), "the reload")
    assert [("changed", 0)] == [(line["what"], line["waiting"]) for line in running.log("reload")]
    assert "converged" == running.state()
