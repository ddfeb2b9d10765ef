# SPDX-License-Identifier: Apache-2.0
"""The life of a host under dsatier, from installation to purge, with all that goes wrong in it.

Real systemd, the Debian package, the units with all of their hardening, the real accel-config;
only the kernel is simulated, and what it says of unsafe writes is the judge of every test.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.container import REPOSITORY, Container, ContainerError, Ran
from tests.system.conftest import PROFILES, needs_containers, newer

pytestmark = [pytest.mark.system, needs_containers]
PATIENCE = 90.0
TRIES = 5
"""How often a step is tried to be met."""
MINE = "/etc/dsatier.d/50-mine.yaml"
FIRST, SECOND = "dsa.yaml", "multithread.yaml"
VM = "/proc/sys/vm/"
DROP_INS = "/etc/systemd/system/dsatier.service.d"
SWIFT = """
[Unit]
StartLimitIntervalSec=0
[Service]
RestartSec=100ms
"""
"""A daemon that is killed on purpose again and again is started again at once."""


class Host:
    """A container, with what tests of a life ask of it."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.sim = container.sim
        self.run, self.ok, self.put = container.run, container.ok, container.put
        self._view = Path(f"/proc/{container.leader}/root")

    def give(self, profile: str | None) -> None:
        """Put a profile in place of the one before, by its name or as text; None for none."""
        if profile is None:
            self.ok("rm", "-f", MINE)
        elif profile.endswith(".yaml"):
            self.put(MINE, (PROFILES / profile).read_text(encoding="utf-8"))
        else:
            self.put(MINE, profile)

    def reload(self, profile: str | None, timeout: float = PATIENCE) -> Ran:
        """Give a profile, and have systemd reload the unit."""
        self.give(profile)
        return self.run("systemctl", "reload", "dsatier", timeout=timeout)

    def status(self) -> dict[str, Any]:
        """Return the status document, read from outside."""
        found: dict[str, Any] = json.loads((self._view / "run/dsatier/status.json").read_text())
        return found

    def until(self, what: str, so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until a status is so, and return it."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                found = self.status()
            except (FileNotFoundError, ValueError):
                found = {"state": "", "message": ""}
            if found["state"] and so(found):
                return found
            if time.monotonic() > end:
                raise ContainerError(f"not in {PATIENCE:g} s: {what}; {found}")
            time.sleep(0.002)

    def converged(self, profile: str) -> None:
        """Bring the host to a profile, whatever it was before."""
        self.ok("dsatier", "clear")
        ran = self.reload(profile)
        assert (0, "") == (ran.code, ran.err)

    def knobs(self) -> dict[str, str]:
        """Return all that a profile changes, as the kernel has it."""
        paths = [f"{VM}{name}" for name in sorted(os.listdir(self.sim.place / "proc/sys/vm"))]
        paths += ["/sys/devices/system/cpu/online", "/sys/kernel/mm/numa/demotion_enabled"]
        paths += ["/proc/sys/kernel/numa_balancing"]
        names = sorted(os.listdir(self.sim.place / "sys/bus/dsa/devices"))
        devices = [name for name in names if name.startswith("dsa")]
        paths += [f"/sys/bus/dsa/devices/{name}/state" for name in devices]
        return {path: self.sim.read(path) for path in paths}

    def daemon(self) -> int:
        """Return the daemon's number on this machine."""
        inner = self.container.main_pid("dsatier")
        for entry in os.listdir("/proc"):
            if entry.isdecimal():
                try:
                    lines = Path(f"/proc/{entry}/status").read_text().splitlines()
                    same = os.readlink(f"/proc/{entry}/ns/pid") == os.readlink(
                        f"/proc/{self.container.leader}/ns/pid"
                    )
                except OSError:
                    continue
                numbers = next(line for line in lines if line.startswith("NSpid:")).split()
                if same and numbers[-1] == str(inner):
                    return int(entry)
        raise ContainerError("the daemon does not run")

    def said(self, words: str) -> list[str]:
        """Return the daemon's and its commands' lines in the journal that contain words."""
        entries = self.container.journal("dsatier")
        return [str(e["MESSAGE"]) for e in entries if words in str(e["MESSAGE"])]

    def unharmed(self) -> None:
        """Assert that no write was unsafe, and that the daemon never fell over its own feet."""
        assert ("", "") == (self.sim.harm, self.sim.down)
        assert [] == self.said("Traceback")


@pytest.fixture(scope="module")
def booted(debian: Path, package: Path) -> Iterator[Container]:
    """One host for all tests here: what one test leaves must not trouble the next."""
    with Container(debian, sim="dsa8") as container:
        container.put(f"{DROP_INS}/swift.conf", SWIFT)
        container.install(package)
        yield container


@pytest.fixture
def host(booted: Container) -> Iterator[Host]:
    """The host, given back as it was before dsatier."""
    found = Host(booted)
    yield found
    if found.run("rm", f"{DROP_INS}/clock.conf").code == 0:
        found.ok("systemctl", "daemon-reload")
        found.ok("systemctl", "stop", "dsatier")
    found.ok("systemctl", "reset-failed")
    found.ok("systemctl", "start", "dsatier")
    found.ok("dsatier", "clear")
    found.give(None)
    found.ok("dsatier", "detach")
    found.ok("dsatier", "reload")
    found.unharmed()


@pytest.fixture
def alone(debian: Path, package: Path) -> Iterator[Host]:
    """A host of one's own, for what cannot be made good again."""
    with Container(debian, sim="dsa8") as container:
        container.put(f"{DROP_INS}/swift.conf", SWIFT)
        container.install(package)
        found = Host(container)
        yield found
        found.unharmed()


def begun(status: dict[str, Any]) -> int:
    """Return the number of the step that a status says has begun, 0 where it says of none."""
    words = str(status["message"]).split()
    return int(words[1]) if words[:1] == ["step"] and words[1].isdecimal() else 0


def repaired_so_often(count: int) -> Callable[[dict[str, Any]], bool]:
    """Return whether a status counts so many repairs."""
    return lambda status: bool(status["repaired"] == count)


# -- profiles ------------------------------------------------------------------------


def test_installing_touches_nothing(host: Host) -> None:
    """The daemon runs, and the host is as it was."""
    assert "active\n" == host.ok("systemctl", "is-active", "dsatier")
    assert 1 == host.run("test", "-e", "/var/lib/dsatier/originals.json").code
    assert "NoProfile" == host.status()["profile"]["status"]


def test_profiles_come_and_go(host: Host) -> None:
    """Good, changed, invalid, unreachable, gone: each answer is true, and nothing is half done."""
    before = host.knobs()
    assert 0 == host.reload(FIRST).code
    first = host.knobs()
    assert ("1\n", "1\n") == (first[VM + "dsa_state"], first[VM + "use_dsa_copy_pages"])
    assert "0-15" == first["/sys/devices/system/cpu/online"].strip()

    assert 0 == host.reload(SECOND).code
    second = host.knobs()
    assert ("0\n", "1\n") == (second[VM + "dsa_state"], second[VM + "cpu_multi_copy_pages"])
    generation = host.status()["observed_generation"]

    text = (PROFILES / FIRST).read_text(encoding="utf-8")
    unreachable = text.replace("devices: 8", "devices: 9")
    for wrong, status, words in (
        ("version: 1\nengine: {kind: turtle}\n", "Invalid", "50-mine.yaml:2:16"),
        (unreachable, "Refused", "found 8 devices"),
    ):
        ran = host.reload(wrong)
        assert 0 != ran.code
        assert "journalctl" in ran.err  # where systemd sends people for the reason
        assert second == host.knobs()
        found = host.status()
        assert (generation, status, "converged") == (
            found["observed_generation"],
            found["profile"]["status"],
            found["state"],
        )
        assert words in found["profile"]["message"]
        assert [] != host.said(words)
        assert words in host.ok("systemctl", "show", "--property=StatusText", "dsatier")
        direct = host.run("dsatier", "reload")  # what a person runs, on a terminal
        assert direct.code in (1, 65)
        assert words in direct.err

    assert 0 == host.reload(None).code
    assert second == host.knobs()
    host.ok("dsatier", "rollback")
    assert before == host.knobs()


def test_a_step_that_fails_is_undone_and_told(host: Host) -> None:
    """The kernel refuses one write: everything before it is taken back."""
    host.converged(SECOND)
    second = host.knobs()
    host.sim.inject(kind="rejected-write", path=VM + "dsa_state", errno="EBUSY")
    ran = host.run("sh", "-c", f"cp /usr/share/dsatier/profiles/{FIRST} {MINE}; dsatier reload")
    assert (1, True) == (ran.code, "EBUSY" in ran.err)
    assert second == host.knobs()
    found = host.until("the old profile is in force", lambda s: s["state"] == "converged")
    assert "Failed" == found["profile"]["status"]
    host.sim.heal("rejected-write")
    assert 0 == host.run("systemctl", "reload", "dsatier").code


def test_a_storm_of_a_thousand_reloads(host: Host) -> None:
    """Each is answered, together they take few passes, and the last profile is in force."""
    host.converged(FIRST)
    process = host.container.main_pid("dsatier")
    script = "seq 1000 | xargs -P 100 -I@ dsatier reload --timeout 600"
    with ThreadPoolExecutor(1) as pool:
        storm = pool.submit(host.run, "bash", "-c", script, timeout=900)
        draw = random.Random(1000)
        while not storm.done():
            host.give(draw.choice((FIRST, SECOND)))
            time.sleep(0.5)
        ran = storm.result()
    assert (0, "") == (ran.code, ran.err)
    assert 1000 == len(ran.out.splitlines())
    answered = [json.loads(line) for line in host.said('"event": "reload"')]
    assert 1000 <= sum(entry["waiting"] for entry in answered)
    assert len(answered) < 500
    assert 0 == host.reload(SECOND).code
    assert "1\n" == host.sim.read(VM + "cpu_multi_copy_pages")
    assert process == host.container.main_pid("dsatier")


def test_systemd_reloads_at_once_are_merged_and_all_true(host: Host) -> None:
    """Two hundred calls of systemctl, half of them while the profile is invalid."""
    host.converged(SECOND)
    many = 'for i in $(seq 100); do systemctl reload dsatier & pids="$pids $!"; done; '
    many += "code=0; for p in $pids; do wait $p || code=1; done; exit $code"
    assert 0 == host.run("bash", "-c", many, timeout=300).code
    host.give("version: 1\nengine: {kind: turtle}\n")
    assert 1 == host.run("bash", "-c", many, timeout=300).code


# -- what dies -----------------------------------------------------------------------


def test_killed_at_each_step_of_an_apply(host: Host) -> None:
    """It comes up on CPU copies, says so, and goes on when somebody has looked."""
    before = host.knobs()
    host.converged(FIRST)
    steps = int(host.said('"event": "step"')[-1].split('"steps": ')[1].split(",")[0])
    assert steps > 10
    for step in range(1, steps + 1):
        # a step may be over before this is told of it: then once more
        if not any(killed_in(host, step, before) for _ in range(TRIES)):
            raise AssertionError(f"never killed in step {step}")


def killed_in(host: Host, step: int, before: dict[str, str]) -> bool:
    """Kill the daemon in a step of an apply, and tell whether it was that step that it died in."""
    host.ok("dsatier", "rollback")
    assert before == host.knobs()
    process = host.daemon()
    host.give(FIRST)
    with subprocess.Popen(
        ["nsenter", f"--target={host.container.leader}", "--all", "dsatier", "reload"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as reload:
        host.until(f"step {step}", lambda s: s["state"] == "converged" or begun(s) >= step)
        os.kill(process, signal.SIGKILL)
        _, words = reload.communicate(timeout=PATIENCE)
    found = host.until(
        "the crash guard is through",
        lambda s: s["state"] in ("quarantined", "converged"),
    )
    if found["state"] == "quarantined":
        assert (1, True) == (reload.returncode, "the daemon ended" in words)
        assert "0\n" == host.sim.read(VM + "use_dsa_copy_pages")
        assert 1 == host.run("dsatier", "wait", "--timeout", "30").code
    host.ok("dsatier", "clear")
    host.ok("dsatier", "wait", "--timeout", "60")
    assert "1\n" == host.sim.read(VM + "use_dsa_copy_pages")
    assert "" == host.sim.harm
    return found["state"] == "quarantined" and f"step {step} of" in found["message"]


def test_power_lost_in_the_middle(alone: Host) -> None:
    """The host boots in quarantine, its workloads wait, and nothing is applied by itself."""
    container = alone.container
    alone.give(FIRST)
    with subprocess.Popen(
        ["nsenter", f"--target={container.leader}", "--all", "dsatier", "reload"],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as reload:
        alone.until("half way", lambda s: begun(s) >= 8)
        container.crash()
        reload.wait(PATIENCE)
    again = Host(container)
    found = again.until("the guard is through", lambda s: s["state"] == "quarantined")
    assert "the host ended in step" in found["message"]
    assert "0\n" == again.sim.read(VM + "dsa_state")
    again.ok("dsatier", "clear")
    again.ok("dsatier", "wait", "--timeout", "60")
    # and a boot in order: it converges by itself, and the target is reached
    container.reboot()
    again.ok("systemctl", "start", "dsatier.target", timeout=PATIENCE)
    assert "1\n" == again.sim.read(VM + "use_dsa_copy_pages")


def test_the_watchdog_ends_a_daemon_that_is_stuck(alone: Host) -> None:
    """A daemon that does not move is killed and started again; the host stays as it is."""
    host = alone
    host.put(f"{DROP_INS}/watchdog.conf", "[Service]\nWatchdogSec=20s\n")
    host.ok("systemctl", "daemon-reload")
    host.ok("systemctl", "restart", "dsatier")
    host.converged(FIRST)
    inner, process = host.container.main_pid("dsatier"), host.daemon()
    os.kill(process, signal.SIGSTOP)
    found = host.until(
        "another daemon", lambda s: bool(s["daemon"]) and s["daemon"]["pid"] != inner
    )
    assert [] != host.said("Watchdog timeout") or "watchdog" in host.ok(
        "journalctl", "-u", "dsatier", "-o", "cat"
    )
    host.ok("dsatier", "wait", "--timeout", "60")
    assert ("converged", "1\n") == (found["state"], host.sim.read(VM + "use_dsa_copy_pages"))


def test_a_write_that_hangs(debian: Path, package: Path) -> None:
    """The status says which step; a reload is answered; the daemon goes on speaking."""
    with Container(debian, sim="dsa8") as container:
        container.install(package)
        host = Host(container)
        hangs(host)
        host.unharmed()
        host.sim.close()  # the write comes back: a shutdown would wait for it


def hangs(host: Host) -> None:
    """Go through all that a hung write must not break."""
    host.converged(SECOND)
    host.sim.inject(kind="hung-write", path=VM + "dsa_state")
    ran = host.reload(FIRST)
    assert 0 != ran.code
    found = host.status()
    assert ("reboot-required", "RequestHung") == (found["state"], found["reason"])
    assert "dsa_state" in found["message"]
    assert 4 == host.run("dsatier", "status").code
    assert 1 == host.run("dsatier", "reload").code


# -- disks and clocks ----------------------------------------------------------------


def small_disk(host: Host, options: str) -> None:
    """Put dsatier's own folder on a file system of its own, while the daemon is stopped."""
    host.ok("systemctl", "stop", "dsatier")
    host.ok("mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", "/var/lib/dsatier")
    host.ok("sh", "-c", options)
    host.ok("systemctl", "start", "dsatier")


@pytest.mark.parametrize(
    ("spoil", "mend", "words"),
    [
        (
            "cat /dev/zero >/var/lib/dsatier/filler 2>/dev/null || :",
            "rm /var/lib/dsatier/filler",
            "no space left",
        ),
        (
            "mount -o remount,ro /var/lib/dsatier",
            "mount -o remount,rw /var/lib/dsatier",
            "read-only",
        ),
    ],
)
def test_a_disk_that_takes_nothing(host: Host, spoil: str, mend: str, words: str) -> None:
    """Nothing is changed that could not be undone; the reason is told; it works again after."""
    before = host.knobs()
    small_disk(host, spoil)
    try:
        ran = host.run("sh", "-c", f"cp /usr/share/dsatier/profiles/{FIRST} {MINE}; dsatier reload")
        assert (1, True) == (ran.code, words in ran.err)
        assert before == host.knobs()
    finally:
        host.ok("systemctl", "stop", "dsatier")
        host.ok("sh", "-c", mend)
        host.ok("systemctl", "start", "dsatier")
    host.ok("dsatier", "wait", "--timeout", "60")
    host.ok("dsatier", "rollback")
    host.ok("systemctl", "stop", "dsatier")
    host.ok("umount", "/var/lib/dsatier")


def test_a_clock_that_jumps(host: Host, tmp_path: Path) -> None:
    """Months forth and back: nothing is done twice, and status says that a clock jumped."""
    library = tmp_path / "jump.so"
    source = REPOSITORY / "tests/system/jump.c"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
    host.container.copy_in(library, "/usr/local/lib")
    preload = "LD_PRELOAD=/usr/local/lib/jump.so"
    host.put(f"{DROP_INS}/clock.conf", f"[Service]\nEnvironment={preload}\n")
    host.ok("systemctl", "daemon-reload")
    host.ok("systemctl", "restart", "dsatier")
    host.converged(FIRST)
    steps, repaired = len(host.said('"event": "step"')), host.status()["repaired"]
    for count, days in enumerate((90, -90), repaired + 1):
        host.put("/run/clock-jump", f"{days * 86400}\n")
        host.sim.write(VM + "dsa_copy_threshold", "99\n")
        found = host.until(f"it repairs at {days}", repaired_so_often(count))
        assert days == round((found["written_at"] - time.time()) / 86400)
        assert "12\n" == host.sim.read(VM + "dsa_copy_threshold")
    assert steps + 2 == len(host.said('"event": "step"'))


# -- others --------------------------------------------------------------------------


def test_a_device_that_appears_late(host: Host) -> None:
    """It is out of reach, then it is adopted without anybody's help."""
    host.sim.inject(kind="late-device", device="dsa7", after=6.0)
    assert 0 != host.reload(FIRST).code
    assert "Refused" == host.status()["profile"]["status"]
    assert "0\n" == host.sim.read(VM + "dsa_state")
    host.ok("dsatier", "wait", "--timeout", "90", timeout=120)
    assert "1\n" == host.sim.read(VM + "use_dsa_copy_pages")
    host.sim.heal("late-device")


def test_a_second_writer(host: Host) -> None:
    """Drift is repaired, a fight is given up and told; another dsatier is told who is there."""
    host.converged(FIRST)
    path = VM + "dsa_copy_threshold"
    repaired = host.status()["repaired"]
    host.sim.write(path, "99\n")
    host.until("it is repaired", lambda s: s["repaired"] == repaired + 1)
    assert "12\n" == host.sim.read(path)
    host.sim.inject(kind="other-writer", path=path, text="99\n", every=4.0)
    found = host.until("it gives up", lambda s: s["reason"] == "Contested")
    assert ("drifted", True) == (found["state"], "dsa_copy_threshold" in found["message"])
    host.sim.heal("other-writer")
    ran = host.run("dsatier", "apply", on_sim=True)
    assert (11, True) == (ran.code, "dsatier daemon" in ran.err)
    ran = host.run("dsatier", "daemon", on_sim=True)
    assert (11, True) == (ran.code, "another dsatier is at work" in ran.err)


# -- upgrade, removal, purge ---------------------------------------------------------


def with_profile(folder: Path) -> Path:
    """Return a package of somebody else that has a profile and nothing more."""
    tree = folder / "raw"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: site-profile\nVersion: 1\nArchitecture: all\nMaintainer: site <root@localhost>\n"
        "Description: a profile of this site\n"
    )
    profiles = tree / "usr/lib/dsatier.d"
    profiles.mkdir(parents=True)
    (profiles / "20-site.yaml").write_text("version: 1\nengine: {kind: multithread}\n")
    made = folder / "site.deb"
    words = ["dpkg-deb", "--root-owner-group", "--build", str(tree), str(made)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return made


def test_a_package_with_a_profile_comes_into_force_and_goes(host: Host, tmp_path: Path) -> None:
    host.give(None)
    host.ok("systemctl", "reload", "dsatier")
    host.container.install(with_profile(tmp_path))
    host.until("the package's profile in force", lambda found: found["state"] == "converged")
    assert host.sim.read(f"{VM}cpu_multi_copy_pages") == "1\n"
    host.ok("dpkg", "--remove", "site-profile")
    host.until("it is gone, and read anew", lambda found: found["profile"]["status"] == "NoProfile")


def test_upgrade_removal_and_purge(host: Host, package: Path, tmp_path: Path) -> None:
    """None of them disturbs a converged host; purge leaves no file behind."""
    host.converged(FIRST)
    knobs, status = host.knobs(), host.status()
    process = host.container.main_pid("dsatier")
    host.container.install(newer(package, tmp_path))
    assert process != host.container.main_pid("dsatier")
    host.ok("dsatier", "wait", "--timeout", "60")
    again = host.status()
    same = ("observed_generation", "profile_digest", "state", "since", "faults", "repaired")
    assert [status[name] for name in same] == [again[name] for name in same]
    assert knobs == host.knobs()

    host.ok("dpkg", "--remove", "dsatier")
    assert knobs == host.knobs()
    assert 0 == host.run("test", "-e", MINE).code
    host.container.install(package)
    host.ok("dsatier", "wait", "--timeout", "60")
    assert knobs == host.knobs()

    host.ok("dpkg", "--purge", "dsatier")
    assert knobs == host.knobs()
    places = "/etc /usr /var /run"
    left = host.ok("sh", "-c", f"find {places} -xdev -name '*dsatier*' -not -path '/var/log/*'")
    mine = ("/etc/systemd/system/dsatier.service.d", "/var/tmp/dsatier")
    assert [] == [path for path in left.splitlines() if not path.startswith(mine)]
    # for the tests that follow; nobody remembers what was there before
    host.container.install(package)
    host.sim.reboot()
    host.ok("systemctl", "restart", "dsatier")
