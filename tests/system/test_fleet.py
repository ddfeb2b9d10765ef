# SPDX-License-Identifier: Apache-2.0
"""Eight hosts, one roll-out: the Ansible role over SSH, real systemd and .deb on each host."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dsatier import __version__
from tests.system.conftest import built, needs_containers, newer
from tests.system.fleet import PLAYBOOKS, REPOSITORY, Evidence, Fleet, Played

pytestmark = [
    pytest.mark.system,
    needs_containers,
    pytest.mark.skipif(
        shutil.which("ansible-playbook") is None, reason="needs Debian's package ansible-core"
    ),
]
SIMS = ("dsa2", "dsa2", "no-dsa", "dsa2", "dsa2", "dsa2", "dsa2", "dsa2")
NODES = [f"node{number}" for number in range(1, len(SIMS) + 1)]
NAME = "50-host.yaml"
THREADS = """\
version: 1
engine:
  kind: multithread
  limit_mt_num: 4
"""
FEWER_THREADS = THREADS.replace("4", "2")
DSA = """\
version: 1
engine:
  kind: dsa
  limit_chans: 2
  work_queues: {devices: 2, engines: 4, queues: 1, size: 128}
"""
EIGHT_DEVICES = DSA.replace("devices: 2", "devices: 8").replace("limit_chans: 2", "limit_chans: 8")
INVALID = THREADS.replace("limit_mt_num", "limit_mt_nums")
AT_ONCE = ["100%"]


@pytest.fixture(scope="module")
def fleet(
    request: pytest.FixtureRequest, package: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Fleet]:
    # Ansible's module apt wants python3-apt on the hosts
    root = built(request, str(REPOSITORY / "vm" / "debianroot"), "python3-apt")
    with Fleet(Path(root.strip()), package, tmp_path_factory.mktemp("fleet"), SIMS) as fleet:
        yield fleet
        for node in fleet.nodes.values():
            assert (node.name, "", "") == (node.name, node.sim.harm, node.sim.down)


def profiles(text: str) -> list[dict[str, str]]:
    """Return the role's variable for one profile."""
    return [{"name": NAME, "content": text}]


def roll_out(fleet: Fleet, text: str, *words: str, **variables: object) -> Played:
    """Roll a profile out."""
    return fleet.play("site.yml", *words, dsatier_profiles=profiles(text), **variables)


@pytest.fixture
def threads(fleet: Fleet) -> Fleet:
    """The fleet with CPU threads copying, everywhere."""
    for node in fleet.nodes.values():
        node.join()
    expected = dict.fromkeys(NODES, ("converged", {NAME: THREADS}))
    found = in_force(fleet)
    if others := [name for name in NODES if expected[name] != found[name]]:
        limit = f"--limit={','.join(others)}"
        options = {"dsatier_batches": AT_ONCE, "dsatier_take_up": True}
        assert 0 == roll_out(fleet, THREADS, limit, **options).code
        found = in_force(fleet)
    assert expected == found
    return fleet


def in_force(fleet: Fleet) -> dict[str, tuple[str, dict[str, str]]]:
    """Return the state of every host, and its profiles."""
    found = fleet.evidence()
    return {name: (fleet[name].state, names(found[name].profiles)) for name in NODES}


def states(fleet: Fleet) -> dict[str, str]:
    """Return the state of every host."""
    return {name: node.state for name, node in fleet.nodes.items()}


def test_a_role_that_is_clean() -> None:
    """Linters of Ansible and YAML have nothing to say, at the strictest profile."""
    for words in (["yamllint", "--strict", "."], ["ansible-lint"]):
        ran = subprocess.run(
            words,
            cwd=PLAYBOOKS,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert 0 == ran.returncode, ran.stdout


def test_the_collection_is_built_installed_and_read(tmp_path: Path) -> None:
    """Its playbooks find the role of the collection, from anywhere."""

    def ran(*words: str, **environment: str) -> str:
        own = {**os.environ, "ANSIBLE_HOME": str(tmp_path / "home"), "ANSIBLE_NOCOLOR": "1"}
        own |= {"ANSIBLE_COLLECTIONS_PATH": str(tmp_path)}
        done = subprocess.run(
            words,
            cwd=PLAYBOOKS if words[2] == "build" else tmp_path,
            env=own,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert 0 == done.returncode, done.stdout
        return done.stdout

    ran("ansible-galaxy", "collection", "build", "--output-path", str(tmp_path))
    built = tmp_path / f"dsatier-dsatier-{__version__}.tar.gz"
    ran("ansible-galaxy", "collection", "install", "--offline", "-p", str(tmp_path), str(built))
    home = tmp_path / "ansible_collections/dsatier/dsatier"
    assert not (home / "ansible.cfg").exists()
    for name in ("site", "rollback", "report"):
        said = ran("ansible-playbook", "--list-tasks", f"dsatier.dsatier.{name}", "-i", "node1,")
        assert f"playbook: {home}/playbooks/{name}.yml" in said
        assert ("dsatier.dsatier.dsatier : " in said) is (name == "site")  # the others include it


def test_the_roll_out_goes_from_a_canary_to_all(fleet: Fleet) -> None:
    assert dict.fromkeys(NODES, 127) == {
        name: fleet.ssh(name, "dsatier status").returncode for name in NODES
    }
    assert 0 == roll_out(fleet, THREADS).code
    assert dict.fromkeys(NODES, "converged") == states(fleet)
    for node in fleet.nodes.values():
        assert "1\n" == node.sim.read("/proc/sys/vm/cpu_multi_copy_pages")
        assert {NAME: THREADS} == names(node.evidence().profiles)
    # a batch begins when every host of the one before has converged: the hosts' journals tell
    batches = [["node1"], ["node2"], NODES[2:]]
    times = {name: fleet[name].reloads() for name in NODES}
    assert dict.fromkeys(NODES, 1) == {name: len(found) for name, found in times.items()}
    for before, after in pairwise(batches):
        ended = max(times[name][0][1] for name in before)
        began = min(times[name][0][0] for name in after)
        assert ended < began, (before, after)


def names(profiles: Any) -> dict[str, str]:
    """Return texts by the names of their files."""
    return {path.rpartition("/")[2]: text for path, text in profiles.items()}


def test_a_second_run_changes_nothing(threads: Fleet) -> None:
    before = threads.evidence()
    played = roll_out(threads, THREADS)
    assert 0 == played.code
    assert dict.fromkeys(NODES, 0) == played.count("changed")
    assert before == threads.evidence()


def test_check_mode_says_what_would_be_done_and_does_nothing(threads: Fleet) -> None:
    before = threads.evidence()
    played = roll_out(threads, DSA, "--check", "--diff", "--limit=node1,node2")
    assert (0, {"node1": 1, "node2": 1}) == (played.code, played.count("changed"))
    assert 2 == played.out.count("use_dsa_copy_pages = 1: 0 → 1")
    assert 2 == played.out.count("\n-  kind: multithread\n")
    assert 2 == played.out.count("\n+  kind: dsa\n")
    # a host that cannot get there is told so, and why
    played = roll_out(threads, DSA, "--check", "--limit=node3")
    assert (2, {"node3": 1}) == (played.code, played.count("failed"))
    assert "blocker: DSA devices: expected dsa0, dsa1 besides none, found 0 devices" in played.out
    # so is what the host's dsatier would refuse to read
    played = roll_out(threads, INVALID, "--check", "--limit=node1")
    assert (2, {"node1": 1}) == (played.code, played.count("failed"))
    assert "unknown key, did you mean 'limit_mt_num'?" in played.out
    assert before == threads.evidence()


def test_an_invalid_profile_is_stopped_at_the_canary(threads: Fleet) -> None:
    before = threads.evidence()
    played = roll_out(threads, INVALID)
    assert (2, {"node1": 1}) == (played.code, played.count("failed"))
    assert "unknown key, did you mean 'limit_mt_num'?" in played.out
    stopped_at_the_canary(threads, before)


def test_a_profile_out_of_reach_is_stopped_at_the_canary(threads: Fleet) -> None:
    before = threads.evidence()
    played = roll_out(threads, EIGHT_DEVICES)
    assert (2, {"node1": 1}) == (played.code, played.count("failed"))
    assert "besides dsa0, dsa1, found 2 devices" in played.out
    stopped_at_the_canary(threads, before)


def stopped_at_the_canary(fleet: Fleet, before: dict[str, Evidence]) -> None:
    """Assert that the canary is as it was, and that nobody touched the rest."""
    after = fleet.evidence()
    assert untouched(before, "node1") == untouched(after, "node1")
    canary = before["node1"]
    assert canary.profiles == after["node1"].profiles
    assert canary.knobs == after["node1"].knobs
    assert dict.fromkeys(NODES, "converged") == states(fleet)
    assert {"status": "Accepted", "message": ""} == fleet["node1"].status()["profile"]


def untouched(found: dict[str, Evidence], *but: str) -> dict[str, Evidence]:
    """Return the evidence of all hosts but some."""
    return {name: one for name, one in found.items() if name not in but}


def test_a_host_that_cannot_follow_stops_the_batches_after_it(threads: Fleet) -> None:
    before = threads.evidence()
    played = roll_out(threads, DSA, dsatier_batches=[1, 2, "100%"])
    assert (2, {"node1": 0, "node2": 0, "node3": 1}) == (played.code, played.count("failed"))
    assert "blocker: DSA devices: expected dsa0, dsa1 besides none, found 0 devices" in played.out
    after = threads.evidence()
    assert untouched(before, "node1", "node2", "node3") == untouched(
        after, "node1", "node2", "node3"
    )
    assert before["node3"].profiles == after["node3"].profiles
    assert before["node3"].knobs == after["node3"].knobs
    for name in ("node1", "node2"):
        assert {NAME: DSA} == names(after[name].profiles)
        assert "1\n" == after[name].knobs["use_dsa_copy_pages"]
    assert dict.fromkeys(NODES, "converged") == states(threads)

    # the way back: on the hosts that the roll-out changed, and on no others
    halfway = after
    played = threads.play("rollback.yml")
    assert 0 == played.code
    assert {"node1", "node2"} == {name for name, count in played.count("changed").items() if count}
    after = threads.evidence()
    assert untouched(halfway, "node1", "node2") == untouched(after, "node1", "node2")
    for name in ("node1", "node2"):
        assert before[name].profiles == after[name].profiles
        assert "0\n" == after[name].knobs["use_dsa_copy_pages"]
        assert "1\n" == after[name].knobs["cpu_multi_copy_pages"]
    assert dict.fromkeys(NODES, "converged") == states(threads)
    # it does not go further back when it is run again
    played = threads.play("rollback.yml")
    assert (0, dict.fromkeys(NODES, 0)) == (played.code, played.count("changed"))


def test_a_host_that_cannot_be_reached_is_told_of(threads: Fleet) -> None:
    before = threads.evidence()
    threads["node5"].cut()
    played = roll_out(threads, FEWER_THREADS, dsatier_batches=[1, 3, "100%"])
    assert 4 == played.code
    assert dict.fromkeys(NODES, 0) | {"node5": 1} == played.count("unreachable")
    after = threads.evidence()
    assert before["node5"] == after["node5"]
    for name in untouched(after, "node5"):
        assert {NAME: FEWER_THREADS} == names(after[name].profiles)
        assert "2\n" == after[name].knobs["limit_mt_num"]

    # the report has a row for it, too, and says by its exit code that something is amiss
    threads["node1"].cut()
    played, rows, lines = report(threads)
    threads["node1"].join()
    assert 2 == played.code
    assert "2 of 8 hosts are not converged" in played.out
    expected = dict.fromkeys(NODES, "converged")
    expected |= {"node1": "unreachable", "node5": "unreachable"}
    assert expected == {name: row["state"] for name, row in rows.items()}
    assert "Connection timed out" in rows["node5"]["message"] or "No route" in str(rows["node5"])
    assert list(expected.items()) == [(line[0], line[1]) for line in lines]

    # where it is asked for, such a host stops the roll-out before its batch is touched
    before = after
    played = roll_out(
        threads, THREADS, dsatier_batches=[1, 4, "100%"], dsatier_unreachable_stops=True
    )
    assert (2, {"node5": 1}) == (
        played.code,
        {name: count for name, count in played.count("failed").items() if count},
    )
    after = threads.evidence()
    assert untouched(before, "node1") == untouched(after, "node1")
    assert {NAME: THREADS} == names(after["node1"].profiles)

    # once it is back, the next run brings every host up to date
    threads["node5"].join()
    assert 0 == roll_out(threads, THREADS).code
    played, rows, lines = report(threads)
    assert (0, dict.fromkeys(NODES, True)) == (
        played.code,
        {name: row["converged"] for name, row in rows.items()},
    )


def report(fleet: Fleet) -> tuple[Played, dict[str, Any], list[list[str]]]:
    """Write the report; return the run, its rows for programs, and its cells for people."""
    played = fleet.play("report.yml")
    folder = fleet.folder / "dsatier-report"
    found = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert len(NODES) == found["hosts"]
    text = (folder / "report.md").read_text(encoding="utf-8")
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return played, {row["host"]: row for row in found["rows"]}, lines[2:]


def test_a_run_that_was_cut_off_is_carried_on(threads: Fleet) -> None:
    # the controller died between the file and the reload
    host = threads["node4"].container
    host.ok("cp", "-a", "/etc/dsatier.d", "/var/lib/dsatier-profiles/before")
    host.put("/var/lib/dsatier-profiles/before/rollout", "1 cut-off\n")
    host.put(f"/etc/dsatier.d/{NAME}", FEWER_THREADS)
    assert "4\n" == threads["node4"].sim.read("/proc/sys/vm/limit_mt_num")
    assert 0 == roll_out(threads, FEWER_THREADS, "--limit=node4").code
    assert "2\n" == threads["node4"].sim.read("/proc/sys/vm/limit_mt_num")
    # what is kept for the way back is what was there before it all
    assert 0 == threads.play("rollback.yml", "--limit=node4").code
    assert {NAME: THREADS} == names(threads["node4"].evidence().profiles)
    assert "4\n" == threads["node4"].sim.read("/proc/sys/vm/limit_mt_num")


def test_profiles_come_and_go(threads: Fleet, tmp_path: Path) -> None:
    node, host = threads["node4"], threads["node4"].container
    other = FEWER_THREADS.encode()
    host.put("/etc/dsatier.d/60-other.yaml", other)
    host.ok("systemctl", "reload", "dsatier")
    host.ok("mkdir", "/srv/metrics")
    source = tmp_path / "source.yaml"
    source.write_text(THREADS, encoding="utf-8")

    # those that are not listed stay, or go where it is asked for; a file comes as it is
    variables: dict[str, Any] = {"dsatier_profiles": [{"name": NAME, "src": str(source)}]}
    played = threads.play("site.yml", "--limit=node4", **variables)
    assert (0, {"node4": 0}) == (played.code, played.count("changed"))
    assert "2\n" == node.sim.read("/proc/sys/vm/limit_mt_num")
    variables |= {"dsatier_purge": True, "dsatier_soak": 1}
    variables |= {"dsatier_textfile_folder": "/srv/metrics"}
    assert 0 == threads.play("site.yml", "--limit=node4", **variables).code
    assert {NAME: THREADS} == names(node.evidence().profiles)
    assert "4\n" == node.sim.read("/proc/sys/vm/limit_mt_num")
    assert b"# HELP dsatier_" in host.get("/srv/metrics/dsatier.prom")
    played = threads.play("site.yml", "--limit=node4", **variables)
    assert (0, {"node4": 0}) == (played.code, played.count("changed"))

    # what was removed comes back, too
    assert 0 == threads.play("rollback.yml", "--limit=node4").code
    assert other == host.get("/etc/dsatier.d/60-other.yaml")
    assert "2\n" == node.sim.read("/proc/sys/vm/limit_mt_num")

    # the way back to nothing: dsatier lets go of the host
    host.ok("sh", "-c", "rm /etc/dsatier.d/*.yaml")
    assert 0 == roll_out(threads, THREADS, "--limit=node4").code
    assert "converged" == node.state
    assert 0 == threads.play("rollback.yml", "--limit=node4").code
    assert ("unmanaged", {}) == (node.state, dict(node.evidence().profiles))
    assert "0\n" == node.sim.read("/proc/sys/vm/cpu_multi_copy_pages")


def test_the_hand_comes_off_and_on_again(threads: Fleet) -> None:
    assert 0 == threads.play("rollback.yml", dsatier_rollback_to="original").code
    assert dict.fromkeys(NODES, "unmanaged") == states(threads)
    for node in threads.nodes.values():
        assert "0\n" == node.sim.read("/proc/sys/vm/cpu_multi_copy_pages")
    # whoever let go of a host had a reason: it is not taken up by the way
    before = threads.evidence()
    played = roll_out(threads, FEWER_THREADS)
    assert (2, {"node1": 1}) == (played.code, played.count("failed"))
    assert "dsatier_take_up=true" in played.out
    assert before == threads.evidence()
    assert 0 == roll_out(threads, THREADS, dsatier_take_up=True).code
    assert dict.fromkeys(NODES, "converged") == states(threads)


def version(fleet: Fleet, name: str) -> str:
    return fleet.ssh(name, "dpkg-query --show --showformat '${Version}' dsatier").stdout


def test_a_package_comes_and_is_taken_back(threads: Fleet, package: Path, tmp_path: Path) -> None:
    before = version(threads, "node4")
    later = newer(package, tmp_path)
    only = "--limit=node4"
    assert roll_out(threads, THREADS, only, dsatier_deb=str(later)).code == 0
    assert version(threads, "node4") == f"{before}+later"
    assert threads["node4"].state == "converged"

    # the roll-out before it changed profiles, and nobody asked for those back
    played = threads.play("rollback.yml", only)
    assert (played.code, played.count("changed")) == (0, {"node4": 0})
    assert before in played.out
    assert "dsatier_downgrade=true" in played.out
    assert {NAME: THREADS} == names(threads["node4"].evidence().profiles)

    played = roll_out(threads, THREADS, only)
    assert (played.code, version(threads, "node4")) == (2, f"{before}+later")
    assert "later version is already installed" in played.out
    assert roll_out(threads, THREADS, only, dsatier_downgrade=True).code == 0
    assert (version(threads, "node4"), threads["node4"].state) == (before, "converged")


def test_a_file_that_somebody_wrote_and_nobody_reloaded_comes_into_force(threads: Fleet) -> None:
    node = threads["node4"]
    node.container.put(f"/etc/dsatier.d/{NAME}", FEWER_THREADS)
    assert roll_out(threads, FEWER_THREADS, "--limit=node4").code == 0
    assert node.sim.read("/proc/sys/vm/limit_mt_num") == "2\n"
    assert node.status()["reload_pending"] == []


def test_a_daemon_that_cannot_start_is_told(threads: Fleet) -> None:
    host = threads["node4"].container
    record = host.get("/var/lib/dsatier/record.json")
    host.ok("systemctl", "stop", "dsatier")
    host.put("/var/lib/dsatier/record.json", "spoilt")
    played = threads.play("site.yml", "--limit=node4", dsatier_profiles=[])
    assert (played.code, played.count("failed")) == (2, {"node4": 1})
    assert "record.json" in played.out
    host.put("/var/lib/dsatier/record.json", record)
    host.ok("systemctl", "reset-failed", "dsatier")
    assert threads.play("site.yml", "--limit=node4", dsatier_profiles=[]).code == 0
