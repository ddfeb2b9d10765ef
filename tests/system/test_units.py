# SPDX-License-Identifier: Apache-2.0
"""The units, as systemd takes them and as they run: on Debian's systemd, from the package."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from dsatier.control import client
from dsatier.daemon import schedule
from dsatier.host import children
from dsatier.plan import planner
from tests.support.container import REPOSITORY, Container
from tests.system.conftest import PROFILES, Boot, needs_containers

pytestmark = [pytest.mark.system, needs_containers]
UNITS = REPOSITORY / "systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))
MOST_EXPOSED = 3.0
PATIENCE = 60.0
KILL = "2147483646"
"""How systemd shows that a call is answered by a signal."""
ENGINE = "/proc/sys/vm/use_dsa_copy_pages"


def lines(name: str) -> list[str]:
    return (UNITS / name).read_text(encoding="utf-8").splitlines()


def settings(name: str) -> dict[str, list[str]]:
    """Return the values of every setting in a unit file."""
    found: dict[str, list[str]] = {}
    for line in lines(name):
        key, equals, value = line.partition("=")
        if equals and key.isalpha():
            found.setdefault(key, []).append(value)
    return found


def seconds(text: str) -> float:
    """Return what a span such as ``2min 30s`` stands for."""
    scale = {"min": 60.0, "s": 1.0, "": 1.0}
    return sum(float(n) * scale[unit] for n, unit in re.findall(r"(\d+)([a-z]*)", text))


def wait_for(what: str, told: Iterator[bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not next(told):
        assert time.monotonic() < until, f"not within {PATIENCE:g} s: {what}"
        time.sleep(0.1)


def wait_until_active(host: Container, after: int) -> None:
    """Wait until the daemon is up in another process than ``after``."""

    def told() -> Iterator[bool]:
        while True:
            found = host.show("dsatier", "ActiveState", "MainPID")
            yield found["ActiveState"] == "active" and found["MainPID"] not in ("0", str(after))

    wait_for("dsatier.service is active again", told())


def give(host: Container, profile: str) -> None:
    """Put a profile into the host's folder, in the place of any other."""
    text = (PROFILES / profile).read_text(encoding="utf-8")
    host.put("/etc/dsatier.d/host.yaml", text)


def probe(host: Container) -> None:
    """Install a service that must not start before the host is as declared.

    It keeps what the engine's knob said when it started.
    """
    unit = (
        "[Unit]\nRequires=dsatier.target\nAfter=dsatier.target\n"
        "[Service]\nType=oneshot\nRemainAfterExit=yes\n"
        f"ExecStart=on-sim sh -c 'cat {ENGINE} >/run/seen'\n"
    )
    host.put("/etc/systemd/system/probe.service", unit)
    host.ok("systemctl", "daemon-reload")


@pytest.fixture(scope="module")
def fresh(debian: Path, package: Path) -> Iterator[Container]:
    """One host, as it is after the installation, for the tests that only look at it."""
    with Container(debian, sim="dsa8") as container:
        container.install(package)
        yield container
        assert ("", "") == (container.sim.harm, container.sim.down)


# -- as files ------------------------------------------------------------------------


def test_systemd_has_nothing_to_say_of_the_units(boot: Boot) -> None:
    debian = boot()
    debian.copy_in(UNITS, "/root")
    debian.put("/usr/bin/dsatier", "#!/bin/sh\n", 0o755)
    units = [f"/root/systemd/{path.name}" for path in UNITS.iterdir() if ".rules" not in path.name]
    units = sorted(u for u in units if u.endswith((".service", ".target")))
    ran = debian.run("systemd-analyze", "verify", "--man=no", *units)
    assert (0, "", "") == (ran.code, ran.out, ran.err)
    exposed = {}
    for name in SERVICES:
        words = ("systemd-analyze", "security", "--no-pager", "--offline=true")
        said = debian.ok(*words, f"/root/systemd/{name}")
        (level,) = re.findall(rf"Overall exposure level for {name}: (\d+\.\d)", said)
        exposed[name] = float(level)
    assert {} == {name: level for name, level in exposed.items() if level > MOST_EXPOSED}


def test_every_unit_names_manuals_that_exist() -> None:
    values = [value for name in SERVICES for value in settings(name)["Documentation"]]
    pages = {word for value in values for word in value.split()}
    found = {path.name for path in (REPOSITORY / "man").iterdir()}
    wanted = {re.sub(r"man:(.*)\((\d)\)", r"\1.\2", page) for page in pages}
    assert set() == wanted - found


def test_every_line_of_the_hardening_has_its_reason() -> None:
    text = lines("dsatier.service")
    start = next(n for n, line in enumerate(text) if line.startswith("# -- hardening"))
    end = text.index("[Install]")
    pairs = list(pairwise(text[start:end]))
    assert len(pairs) > 60
    assert [] == [
        line for before, line in pairs if "=" in line and line[0] != "#" and before[:2] != "# "
    ]


def test_time_spans_fit_the_program() -> None:
    unit = settings("dsatier.service")
    # a sign of life comes at least twice in the watchdog's time, whatever is waited for
    longest = max(children._TURN, schedule.READING, schedule.LATEST)
    assert seconds(unit["WatchdogSec"][0]) >= 2 * longest
    # a request that is in the kernel may be waited for before a change is turned round
    deadlines = (planner.KNOB_DEADLINE, planner.CPU_DEADLINE, planner.DEVICE_DEADLINE)
    assert seconds(unit["TimeoutStopSec"][0]) > max(*deadlines, planner.SWAP_DEADLINE)
    # the command gives up before systemd does
    (told,) = re.findall(r"--timeout (\d+)$", unit["ExecReload"][0])
    assert seconds(unit["TimeoutStartSec"][0]) > float(told) + client._GRACE


def test_udev_wants_the_nudge_for_devices_and_nothing_else(fresh: Container) -> None:
    found = {}
    for kind, path in (
        ("device", "pci0000:6a/0000:6a:01.0/dsa0"),
        ("queue", "pci0000:6a/0000:6a:01.0/dsa0/wq0.0"),
        ("engine", "pci0000:6a/0000:6a:01.0/dsa0/engine0.0"),
    ):
        for action in ("remove", "add", "bind"):  # what a rule once said is kept for the last
            said = fresh.ok(
                *("env", "SYSTEMD_DEVICE_VERIFY_SYSFS=0", "SYSTEMD_LOG_LEVEL=info"),
                *("udevadm", "test", f"--action={action}", f"/sys/devices/{path}"),
                on_sim=True,
            )
            wants = re.findall(r"^SYSTEMD_WANTS=(.*)$", said, re.MULTILINE)
            tags = re.findall(r"^CURRENT_TAGS=(.*)$", said, re.MULTILINE)
            found[kind, action] = (wants, tags)
    nudged = (["dsatier-nudge.service"], [":systemd:"])
    expected = {
        (kind, action): nudged if kind == "device" and action != "remove" else ([], [])
        for kind, action in found
    }
    assert expected == found


def test_tmpfiles_makes_the_folders(fresh: Container) -> None:
    root = "/var/tmp/root"
    file = "/usr/lib/tmpfiles.d/dsatier.conf"
    fresh.ok("systemd-tmpfiles", "--create", f"--root={root}", file)
    folders = (f"{root}/var/lib/dsatier", f"{root}/run/dsatier")
    said = fresh.ok("stat", "--format=%a %U", *folders)
    assert ["700 root", "755 root"] == said.splitlines()


# -- as they run ---------------------------------------------------------------------


def test_the_daemon_runs_as_shipped(fresh: Container) -> None:
    """Idle without a profile, in its cage."""
    assert "running\n" == fresh.ok("systemctl", "is-system-running", "--wait")
    shown = fresh.show(
        "dsatier",
        *("ActiveState", "UnitFileState", "NRestarts", "KillMode", "Restart", "WatchdogUSec"),
        *("RuntimeDirectoryPreserve", "OOMPolicy", "OOMScoreAdjust", "ProtectSystem"),
        *("RestrictNamespaces", "CapabilityBoundingSet", "SystemCallErrorNumber"),
        "RestartPreventExitStatus",
    )
    assert shown == {
        "ActiveState": "active",
        "UnitFileState": "enabled",
        "NRestarts": "0",
        "KillMode": "process",
        "Restart": "on-failure",
        "WatchdogUSec": "2min",
        "RuntimeDirectoryPreserve": "yes",
        "OOMPolicy": "continue",
        "OOMScoreAdjust": "-900",
        "ProtectSystem": "full",
        "RestrictNamespaces": "yes",
        "RestartPreventExitStatus": "11 64 78",
        "CapabilityBoundingSet": "cap_sys_admin cap_syslog",
        "SystemCallErrorNumber": "1",
    }
    process = fresh.main_pid("dsatier")
    status = dict(
        line.split(":\t", 1)
        for line in fresh.get(f"/proc/{process}/status").decode().splitlines()
        if ":\t" in line
    )
    admin, syslog = 1 << 21, 1 << 34
    assert (f"{admin | syslog:016x}", "1", "2") == tuple(
        status[name] for name in ("CapEff", "NoNewPrivs", "Seccomp")
    )
    (files,) = re.findall(rb"Max open files +(\d+) +(\d+)", fresh.get(f"/proc/{process}/limits"))
    assert b"8192" == files[1]
    own = ("/var/lib/dsatier", "/run/dsatier", "/run/dsatier/status.json")
    modes = fresh.ok("stat", "--format=%a", *own)
    assert ["700", "755", "644"] == modes.splitlines()
    assert "0" == fresh.sim.read(ENGINE).strip()


def test_what_is_closed_to_the_daemon(fresh: Container) -> None:
    """Its view of the file system lets it write to the knobs, and to little else."""
    process = str(fresh.main_pid("dsatier"))
    found = {}
    for path in (
        *("/proc/sys/vm/limit_chans", "/proc/sys/kernel/numa_balancing"),
        *("/sys/devices/system/cpu/cpu16/online", "/sys/kernel/mm/numa/demotion_enabled"),
        *("/sys/bus/dsa/drivers/idxd/bind", "/var/lib/dsatier/x", "/run/dsatier/x"),
        *("/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/module/x", "/etc/x"),
        *("/usr/x", "/var/lib/x", "/home/x"),
    ):
        inside = ("nsenter", "--target", process, "--mount", "sh", "-c")
        found[path] = fresh.run(*inside, f"exec 3>>{path}").code == 0
    writable = [path for path, may in found.items() if may]
    assert list(found)[:7] == writable


def test_restart_leaves_the_host_and_what_stands_on_it_alone(host: Container) -> None:
    give(host, "dsa.yaml")
    probe(host)
    host.ok("systemctl", "reload", "dsatier")
    host.ok("systemctl", "start", "probe.service")
    before = host.show("probe.service", "ActiveEnterTimestampMonotonic", "ActiveState")
    process = host.main_pid("dsatier")
    host.ok("systemctl", "restart", "dsatier")
    assert host.main_pid("dsatier") not in (0, process)
    assert "0" == host.show("dsatier", "NRestarts")["NRestarts"]
    host.ok("dsatier", "wait", "--timeout", "30")
    host.ok("systemctl", "stop", "dsatier")
    assert "1" == host.sim.read(ENGINE).strip()
    assert before == host.show("probe.service", "ActiveEnterTimestampMonotonic", "ActiveState")
    assert "converged" == json.loads(host.get("/run/dsatier/status.json"))["state"]
    assert "success" == host.show("dsatier", "Result")["Result"]


def test_no_call_is_refused_on_the_way_up_and_down(host: Container) -> None:
    """Under a filter that kills where the shipped one refuses, nothing is killed."""
    host.put(
        "/etc/systemd/system/dsatier.service.d/kill.conf", "[Service]\nSystemCallErrorNumber=kill\n"
    )
    host.ok("systemctl", "daemon-reload")
    host.ok("systemctl", "restart", "dsatier")
    assert KILL == host.show("dsatier", "SystemCallErrorNumber")["SystemCallErrorNumber"]
    process = host.main_pid("dsatier")
    give(host, "dsa.yaml")
    host.ok("systemctl", "reload", "dsatier")
    assert "1" == host.sim.read(ENGINE).strip()
    host.sim.write("/proc/sys/vm/dsa_copy_threshold", "99\n")

    def repaired() -> Iterator[bool]:
        while True:
            yield host.sim.read("/proc/sys/vm/dsa_copy_threshold").strip() == "12"

    wait_for("drift is repaired", repaired())
    give(host, "cpu.yaml")
    host.ok("systemctl", "reload", "dsatier")
    host.ok("dsatier", "rollback")
    host.put("/etc/dsatier.d/host.yaml", "version: 1\nengine: {kind: turtle}\n")
    assert 0 != host.run("systemctl", "reload", "dsatier").code
    assert process == host.main_pid("dsatier")
    assert "0" == host.show("dsatier", "NRestarts")["NRestarts"]
    host.ok("systemctl", "stop", "dsatier")
    assert "success" == host.show("dsatier", "Result")["Result"]


def test_events_of_the_kernel_reach_the_cage(host: Container) -> None:
    """Though it has a network of its own. The kernel is asked to tell of a CPU once more."""
    words = "[Service]\nExecStart=\nExecStart=/usr/bin/dsatier daemon --log-level debug\n"
    host.put("/etc/systemd/system/dsatier.service.d/debug.conf", words)
    host.ok("systemctl", "daemon-reload")
    host.ok("systemctl", "restart", "dsatier")

    def told() -> Iterator[bool]:
        while True:
            Path("/sys/devices/system/cpu/cpu0/uevent").write_text("change", encoding="ascii")
            said = [str(entry["MESSAGE"]) for entry in host.journal("dsatier")]
            yield any('"kernel event"' in line and '"cpu"' in line for line in said)

    wait_for("the daemon tells of the event", told())


def test_a_killed_daemon_comes_back(host: Container) -> None:
    give(host, "dsa.yaml")
    host.ok("systemctl", "reload", "dsatier")
    process = host.main_pid("dsatier")
    host.kill(process)
    wait_until_active(host, process)
    host.ok("dsatier", "wait", "--timeout", "30")
    assert {"NRestarts": "1"} == host.show("dsatier", "NRestarts")
    assert "1" == host.sim.read(ENGINE).strip()


def test_a_request_that_hangs_holds_up_no_stop(host: Container) -> None:
    host.sim.inject(kind="hung-write", path="/proc/sys/vm/dsa_state")
    give(host, "dsa.yaml")
    assert 1 == host.run("systemctl", "reload", "dsatier").code
    process = host.main_pid("dsatier")
    (hung,) = host.ok("pgrep", "--parent", str(process)).split()
    host.ok("systemctl", "stop", "dsatier", timeout=30)
    shown = host.show("dsatier", "ActiveState", "Result")
    assert {"ActiveState": "inactive", "Result": "success"} == shown
    assert 0 == host.run("kill", "-s", "0", hung).code
    # the next daemon is told, and is not started again and again
    assert 1 == host.run("systemctl", "start", "dsatier").code
    shown = host.show("dsatier", "ActiveState", "ExecMainStatus", "NRestarts")
    assert {"ActiveState": "failed", "ExecMainStatus": "11", "NRestarts": "0"} == shown
    host.kill(int(hung))  # it hears nothing else, and would hold up the host's end


def test_a_spoilt_journal_is_not_tried_again(host: Container) -> None:
    host.ok("systemctl", "stop", "dsatier")
    host.put("/var/lib/dsatier/record.json", "no record", 0o600)
    assert 1 == host.run("systemctl", "start", "dsatier").code
    shown = host.show("dsatier", "ActiveState", "ExecMainStatus", "NRestarts")
    assert {"ActiveState": "failed", "ExecMainStatus": "78", "NRestarts": "0"} == shown


# -- the target ----------------------------------------------------------------------


def test_the_target_is_reached_only_when_converged(host: Container) -> None:
    """Also from nothing: neither daemon nor profile in force, and the daemon not enabled."""
    probe(host)
    host.ok("systemctl", "disable", "--now", "dsatier")
    # no profile: refused at once, with the reason
    assert 1 == host.run("systemctl", "start", "probe.service", timeout=30).code
    assert 1 == host.run("test", "-e", "/run/seen").code
    entries = host.journal("dsatier-wait.service")
    assert [] != [e for e in entries if "no profile" in str(e["MESSAGE"])]
    # the probe sees an engine that is on
    host.ok("systemctl", "stop", "dsatier")
    give(host, "dsa.yaml")
    host.ok("systemctl", "start", "probe.service")
    assert b"1\n" == host.get("/run/seen")
    assert "active" == host.show("dsatier.target", "ActiveState")["ActiveState"]


def test_the_target_orders_a_boot(host: Container) -> None:
    probe(host)
    host.ok("systemctl", "add-wants", "multi-user.target", "probe.service")
    give(host, "dsa.yaml")
    host.reboot()
    assert "running\n" == host.ok("systemctl", "is-system-running", "--wait")
    assert b"1\n" == host.get("/run/seen")


def test_the_target_fails_at_once_without_a_daemon(host: Container) -> None:
    give(host, "dsa.yaml")
    host.ok("systemctl", "mask", "--now", "dsatier")
    assert 1 == host.run("systemctl", "start", "dsatier.target", timeout=30).code
    shown = host.show("dsatier-wait.service", "ActiveState", "Result")
    assert {"ActiveState": "failed", "Result": "exit-code"} == shown


def test_a_nudge_starts_no_daemon(host: Container) -> None:
    host.ok("systemctl", "start", "dsatier-nudge.service")
    host.ok("systemctl", "stop", "dsatier")
    host.ok("systemctl", "start", "dsatier-nudge.service")
    assert "inactive" == host.show("dsatier", "ActiveState")["ActiveState"]
    assert "success" == host.show("dsatier-nudge", "Result")["Result"]
