# SPDX-License-Identifier: Apache-2.0
"""The daemon beside TuneD: both under the same systemd, in one container, in one run.

Both have the same kernel files: those of a simulated host, laid out on a tmpfs, where a write is
what the next read gives, and bound over /sys and /proc in each service's own view. No simulated
kernel stands behind them, so none of its time is in the figures; only the kernel log, which
TuneD does not read, is simulated. dsatier.service runs as shipped, tuned.service as Debian
ships it, and both profiles declare the same values. One service runs at a time; they take turns.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import hosts, overhead
from bench.report import Row, at_most, beside
from dsatier.sim.host import SimHost
from tests.support.container import REPOSITORY, SIM, Container
from tests.support.treehost import Layout

TREE = "/run/kernel"
"""Where the container has the kernel's files."""
BOOT_ID = f"{TREE}/proc/sys/kernel/random/boot_id"
HOST = """
version: 1
hostname: bench
kernel: {release: 6.12.63-dsatier, kind: ours}
nodes: [{cpus: 0-15, memory: 64}, {memory: 64}]
"""
DEMOTE = "/proc/sys/vm/use_concur_to_demote"
"""The value that is changed: it may be, on any rung of the ladder."""
AT_BOOT = {
    "/proc/sys/vm/cpu_multi_copy_pages": "0",
    "/proc/sys/vm/use_dsa_copy_pages": "0",
    "/proc/sys/vm/dsa_state": "0",
    "/proc/sys/vm/use_concur_to_compact": "0",
    DEMOTE: "0",
    "/proc/sys/kernel/numa_balancing": "0",
    "/sys/kernel/mm/numa/demotion_enabled": "0",
    "/proc/sys/vm/demote_scale_factor": "200",
}
DECLARED = AT_BOOT | {
    "/proc/sys/vm/use_concur_to_compact": "1",
    DEMOTE: "1",
    "/proc/sys/kernel/numa_balancing": "2",
    "/sys/kernel/mm/numa/demotion_enabled": "1",
}


def our_profile(demote: int) -> str:
    """Return dsatier's profile of the declared values."""
    return (
        "version: 1\nengine: {kind: cpu}\n"
        "concurrency:\n  use_concur_to_compact: true\n"
        f"  use_concur_to_demote: {'true' if demote else 'false'}\n"
        "tiering: {demotion_enabled: true, numa_balancing: 2, demote_scale_factor: 200}\n"
        # the drifts of a benchmark are no fight
        "drift: {fights: 100, window: 6000}\n"
    )


def their_profile(demote: int) -> str:
    """Return TuneD's profile of the declared values."""
    values = DECLARED | {DEMOTE: str(demote)}
    sysctls = {p.removeprefix("/proc/sys/"): v for p, v in values.items() if p[:6] == "/proc/"}
    lines = ["[main]", "summary=the same values", "[sysctl]"]
    lines += [f"{name.replace('/', '.')}={value}" for name, value in sysctls.items()]
    lines += [
        "[sysfs]",
        *(f"{path}={value}" for path, value in values.items() if path[:5] == "/sys/"),
    ]
    return "\n".join((*lines, ""))


@dataclass(frozen=True)
class Service:
    """One of the two, and how it is used."""

    unit: str
    file: str
    """Its profile."""
    text: Callable[[int], str]
    apply: tuple[str, ...]
    """Has a changed profile applied, and waits for it."""
    repair: tuple[str, ...]
    """Mends drift; nothing where the service does so by itself."""


OURS = Service(
    "dsatier", "/etc/dsatier.d/bench.yaml", our_profile, ("systemctl", "reload", "dsatier"), ()
)
THEIRS = Service(
    "tuned",
    "/etc/tuned/bench/tuned.conf",
    their_profile,
    ("tuned-adm", "profile", "bench"),
    ("sh", "-c", "tuned-adm verify || tuned-adm profile bench"),
)


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    rounds: int = 3
    """Turns of each service."""
    times: int = 5
    """Starts, reloads and drifts in a turn."""
    settle: float = 60.0
    """Seconds that a service has nothing to do before it is idle."""
    idle: float = 60.0
    """Seconds for which idle CPU is counted."""


QUICK = Effort(rounds=1, times=3, settle=5.0, idle=10.0)


@dataclass
class Figures:
    """What was measured of a service: seconds, bytes and percents."""

    found: dict[str, list[float]] = field(default_factory=dict)

    def note(self, what: str, figure: float) -> None:
        """Keep a figure."""
        self.found.setdefault(what, []).append(figure)

    def median(self, what: str) -> float:
        """Return the median of a figure."""
        return statistics.median(self.found[what])


def lacking() -> str:
    """Return what this machine lacks for containers, empty for nothing."""
    if os.geteuid() != 0:
        return "needs root"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "needs /dev/fuse"
    missing = [name for name in ("mmdebstrap", "systemd-nspawn") if not shutil.which(name)]
    return f"needs {' and '.join(missing)}: see tests/system/run" if missing else ""


def built(*words: str) -> str:
    """Run a program that makes something and return the last line that it prints."""
    ran = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return (ran.stdout.splitlines() or [""])[-1]


class Stage:
    """A container with both services installed and stopped."""

    def __init__(self, host: Container) -> None:
        self._host = host
        self._boots = 0
        host.copy_in(Path(__file__).with_name("probe.py"), "/root")
        host.put("/etc/tuned/active_profile", "bench\n")
        host.put("/etc/tuned/profile_mode", "manual\n")
        for service in (OURS, THEIRS):
            host.ok("systemctl", "stop", service.unit)

    def show(self, sim: SimHost) -> None:
        """Lay the files of a simulated host out, for both services. Both must be stopped."""
        self._host.ok("rm", "-rf", TREE)
        with tempfile.TemporaryDirectory() as folder:
            kernel = Path(folder, "kernel")
            Layout(sim, kernel)
            (kernel / "sys/fs/cgroup").mkdir(parents=True, exist_ok=True)  # systemd mounts there
            (kernel / "proc/sys/kernel/domainname").write_text("(none)\n", encoding="ascii")
            self._host.copy_in(kernel, "/run")
        binds = []
        for source, target in self._host.sim.binds():
            place = source if "kmsg" in source else TREE + source.removeprefix(SIM)
            binds.append(f"BindPaths={place}:{target}")
        for service in (OURS, THEIRS):
            lines = ["[Service]", "BindPaths=", *binds]
            if service is THEIRS:
                lines = [line for line in lines if "kmsg" not in line]
            text = "\n".join((*lines, ""))
            self._host.put(f"/etc/systemd/system/{service.unit}.service.d/60-bench.conf", text)
        self._host.ok("systemctl", "daemon-reload")

    def probe(self, **task: object) -> dict[str, float]:
        """Have the probe do a task in the container."""
        found: dict[str, float] = json.loads(
            self._host.ok("python3", "/root/probe.py", json.dumps(task), timeout=300)
        )
        return found

    def profile(self, service: Service, demote: int) -> None:
        """Write a service's profile."""
        self.put_profile(service, service.text(demote))

    def put_profile(self, service: Service, text: str) -> None:
        """Write another text as a service's profile."""
        self._host.put(service.file, text)

    def adopt(self, service: Service) -> None:
        """Start a service on a host that is as its profile says, and wait until it says so."""
        self._host.ok("rm", "-rf", "/var/lib/dsatier")
        self._host.ok("systemctl", "start", service.unit)
        self._host.ok("dsatier", "wait", "--timeout", "60")

    def booted(self) -> dict[str, str]:
        """Return what the files read after a boot."""
        self._boots += 1
        return _in_tree(AT_BOOT) | {BOOT_ID: f"00000000-0000-4000-8000-{self._boots:012d}"}

    def start(self, service: Service, demote: int) -> dict[str, float]:
        """Start a service as after a boot; return the seconds to active and to applied."""
        command = ["systemctl", "start", service.unit]
        return self.probe(put=self.booted(), command=command, wanted=_wanted(demote))

    def stop(self, service: Service) -> None:
        """Stop a service."""
        self._host.ok("systemctl", "stop", service.unit)
        self._host.ok("systemctl", "reset-failed", service.unit)  # and the count of its starts

    def memory(self, service: Service) -> dict[str, float]:
        """Return resident and proportional bytes of the service's process."""
        # by cat, not by the probe: two Pythons would share their pages
        process = self._host.main_pid(service.unit)
        lines = self._host.get(f"/proc/{process}/smaps_rollup").decode().splitlines()[1:]
        sizes = {line.split()[0]: float(line.split()[1]) * 1024 for line in lines}
        return {"rss": sizes["Rss:"], "pss": sizes["Pss:"]}

    def idle(self, service: Service, seconds: float) -> float:
        """Return the percent of a CPU that a service takes."""
        return self.probe(process=self._host.main_pid(service.unit), idle=seconds)["percent"]


def _in_tree(files: dict[str, str]) -> dict[str, str]:
    return {TREE + path: text for path, text in files.items()}


def _wanted(demote: int) -> dict[str, str]:
    return _in_tree(DECLARED | {DEMOTE: str(demote)})


def starts(stage: Stage, times: int, figures: dict[Service, Figures]) -> None:
    """Measure starts of both, in turn one by one: they are short, and the machine is not calm."""
    for _ in range(times):
        for service, noted in figures.items():
            took = stage.start(service, 1)
            noted.note("active", took["returned"])
            noted.note("applied", took["applied"])
            stage.stop(service)


def turn(stage: Stage, service: Service, effort: Effort, figures: Figures) -> None:
    """Measure one service while it runs."""
    stage.profile(service, 1)
    stage.start(service, 1)
    time.sleep(effort.settle)
    for what, size in stage.memory(service).items():
        figures.note(what, size)
    figures.note("idle", stage.idle(service, effort.idle))
    for number in range(2 * effort.times):
        demote = number % 2
        stage.profile(service, demote)
        took = stage.probe(put={}, command=service.apply, wanted=_wanted(demote))
        figures.note("reload", max(took.values()))
        if demote:  # 0 is what TuneD takes back first
            figures.note("reload applied", took["applied"])
    for _ in range(effort.times):
        took = stage.probe(
            put={},
            pause=random.uniform(1.5, 3.5),
            drift=_in_tree({DEMOTE: str(1 - demote)}),
            command=service.repair,
            wanted=_wanted(demote),
        )
        figures.note("drift", took["applied"])
        figures.note("drift mended", max(took.values()))
    stage.stop(service)


def large(stage: Stage, effort: Effort) -> list[float]:
    """Return the idle CPU of dsatier alone, in percent, on 128 CPUs with eight devices in use."""
    sim = hosts.host(128, 8)
    hosts.apply(sim, hosts.profile(8))
    stage.show(sim)
    stage.put_profile(OURS, hosts.profile(8))
    stage.adopt(OURS)
    time.sleep(effort.settle)
    found = [stage.idle(OURS, effort.idle) for _ in range(effort.rounds)]
    stage.stop(OURS)
    return found


@contextmanager
def staged() -> Iterator[Stage]:
    """Yield a container that has both services."""
    root = Path(built(str(REPOSITORY / "vm/debianroot"), "tuned"))
    with tempfile.TemporaryDirectory() as folder:
        built(str(REPOSITORY / "packaging/debian/build"), folder)
        (package,) = Path(folder).glob("dsatier_*.deb")
        with Container(root, sim="dsa2") as host:
            host.install(package)
            yield Stage(host)


def rows(effort: Effort) -> list[Row]:
    """Measure both services, then dsatier alone."""
    figures = {OURS: Figures(), THEIRS: Figures()}
    with staged() as stage:
        sim = SimHost.load(HOST)
        hosts.apply(sim, our_profile(1))
        stage.show(sim)
        warm = {service: Figures() for service in figures}
        for service in figures:
            stage.profile(service, 1)
        starts(stage, 1, warm)
        for _ in range(effort.rounds):
            starts(stage, effort.times, figures)
            for service, noted in figures.items():
                turn(stage, service, effort, noted)
            for service in figures:
                stage.profile(service, 1)
        idle = large(stage, effort)
    return [*compared(figures[OURS], figures[THEIRS]), *alone(figures[OURS], idle, effort)]


def compared(ours: Figures, theirs: Figures) -> list[Row]:
    """Return the rows of dsatier beside TuneD."""
    return [
        beside(words, unit, ours.median(what), theirs.median(theirs_what), limit)
        for words, unit, what, theirs_what, limit in (
            ("start to active", "s", "active", "active", 1.0),
            ("start to profile applied", "s", "applied", "applied", 1.0),
            ("resident memory (RSS), idle", "bytes", "rss", "rss", 1.1),
            ("resident memory (PSS), idle", "bytes", "pss", "pss", 1.1),
            ("idle CPU", "%", "idle", "idle", 1.0),
            ("reload: applied and answered", "s", "reload", "reload", 1.0),
            ("reload: applied", "s", "reload applied", "reload applied", 1.0),
            ("drift to repaired / verify and apply", "s", "drift", "drift mended", 1.0),
            ("drift to repaired / value is back", "s", "drift", "drift", 1.0),
        )
    ]


def alone(ours: Figures, large_idle: list[float], effort: Effort) -> list[Row]:
    """Return the rows of dsatier by itself."""
    spans = overhead.measured(effort.times)
    return [
        at_most("dsatier, idle CPU, 16 CPUs", "%", ours.found["idle"], 0.1),
        at_most("dsatier, idle CPU, 128 CPUs, 8 devices", "%", large_idle, 0.1),
        *(
            at_most(f"dsatier, reload beyond the host's delays, {what}", "s", found, 0.1)
            for what, found in spans.items()
        ),
    ]
