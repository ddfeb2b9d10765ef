# SPDX-License-Identifier: Apache-2.0
"""A whole host in a container: Debian with its own systemd, on a simulated kernel if asked for.

The system is one that ``debianroot`` built, under a layer of its own that takes all changes.
The container's mounts are in a mount namespace that goes with it, its processes in a control
group and a process namespace of their own, and it dies with the process that started it: nothing
that runs or is mounted stays behind.

A simulated kernel lives in a process outside (``simfs``), so that it outlasts whatever happens
to the daemon. dsatier.service runs as it is shipped, with all of its hardening: a drop-in only
binds the simulated files over those of the machine, in the service's own view. ``--root`` in
its place would need another command line, and mount rights for the commands that it starts.
Commands that ``on_sim`` runs have the same view.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 90.0
"""Seconds that a command in a container gets, where nothing else is said."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SIM = "/srv/sim"
"""Where the container has the files of the simulated kernel."""
REBOOT = 133
"""The code with which systemd-nspawn says that the container asked for a reboot."""
_CGROUPS = Path("/sys/fs/cgroup")
_DROP_IN = "etc/systemd/system/dsatier.service.d/50-simulated-kernel.conf"
_NUMBERS = count(1)

_BOOT = """
set -eu
layers=$1 upper=$2 work=$3 merged=$4
shift 4
while [ "$1" != -- ]; do
	echo $$ >"$1/cgroup.procs"
	shift
done
shift
# what nspawn keeps there would stay on the machine
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn
if [ -n "$layers" ]; then
	mount -t overlay overlay -o "lowerdir=$layers,upperdir=$upper,workdir=$work" "$merged"
fi
exec "$@"
"""

_ON_SIM = """#!/bin/sh
# runs a command that sees the simulated kernel, as dsatier.service does
[ -e /dev/kmsg ] || : >/dev/kmsg
exec unshare --mount --propagation private sh -c '
set -e
{mounts}
exec "$@"' on-sim "$@"
"""


class ContainerError(Exception):
    """A container did not do what it was asked for. The message says what it was doing."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


def _bound(command: Sequence[str], sign: str) -> list[str]:
    """Return a command that gets a signal when the process that started it ends."""
    return ["setpriv", "--pdeathsig", sign, *command]


class Sim:
    """A simulated kernel as files below ``place``. ``host`` is a shipped host or a YAML file."""

    def __init__(self, place: Path, host: str) -> None:
        self.place = place
        place.mkdir()
        command = [sys.executable, "-m", "tests.system.simfs", str(place), "--host", host]
        self._server = subprocess.Popen(
            _bound(command, "TERM"),
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "agent")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self._server.stdout is not None
        if not self._server.stdout.readline():
            raise ContainerError(f"simfs ended with {self._server.wait()}; its words are above")

    def close(self) -> None:
        """Take the files away."""
        self._server.terminate()
        self._server.wait()
        assert self._server.stdout is not None
        self._server.stdout.close()

    def read(self, path: str) -> str:
        """Return the text of a kernel file such as ``/proc/sys/vm/dsa_state``."""
        return (self.place / path.lstrip("/")).read_text(encoding="utf-8")

    def write(self, path: str, text: str) -> None:
        """Write to a kernel file, as somebody else."""
        (self.place / path.lstrip("/")).write_text(text, encoding="utf-8")

    @property
    def harm(self) -> str:
        """What unsafe writes did to the host, one a line."""
        return self.read("/sim/harm")

    @property
    def down(self) -> str:
        """Why the host is down, empty while it is up."""
        return self.read("/sim/down")

    def inject(self, **fault: object) -> None:
        """Let something go wrong: see ``dsatier.sim.faults``."""
        self.write("/sim/inject", json.dumps(fault))

    def heal(self, kind: str) -> None:
        """Take all faults of a kind away."""
        self.write("/sim/heal", kind)

    def reboot(self) -> None:
        """Boot the kernel again: its knobs are at their defaults."""
        self.write("/sim/reboot", "now")

    def binds(self) -> Iterator[tuple[str, str]]:
        """Yield source and target, in the container, of every mount that shows this kernel."""
        yield SIM + "/sys", "/sys"
        yield SIM + "/boot", "/boot"
        yield SIM + "/sim/kmsg", "/dev/kmsg"
        # not /proc, which has the processes; and a mount needs something to stand on, which
        # /proc/timer has on its own kernel only
        for name in sorted(os.listdir(self.place / "proc")):
            if os.path.exists(f"/proc/{name}"):
                yield f"{SIM}/proc/{name}", f"/proc/{name}"


class Container:
    """A host for as long as a ``with`` block lasts. Needs root.

    ``root`` is a folder that ``debianroot`` made; it is not changed. ``sim`` names a simulated
    host. ``network`` is the path of a network namespace; without one the container has a
    loopback of its own and nothing else.
    """

    def __init__(
        self, root: Path, *, sim: str | None = None, network: Path | None = None, name: str = ""
    ) -> None:
        self.name = name or f"dsatier{os.getpid()}-{next(_NUMBERS)}"
        self._root = root
        self._sim_host = sim
        self._sim: Sim | None = None
        self._network = network
        self._folder = Path()
        self._groups: tuple[Path, ...] = ()
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._layered = True
        self.leader = 0
        """The process, as this machine numbers it, that is number 1 in the container."""

    # its life

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="dsatier-host-"))
        try:
            for name in ("upper", "work", "merged"):
                (self._folder / name).mkdir(mode=0o755)
            self._layered = self._can_layer()
            if not self._layered:
                words = ["cp", "--archive", "--reflink=auto", f"{self._root}/."]
                subprocess.run([*words, self._folder / "merged"], check=True)
            if self._sim_host is not None:
                self._sim = Sim(self._folder / "sim", self._sim_host)
                self._show(self._sim)
            self.boot()
        except BaseException:
            self._clear_away()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and self._nspawn is not None:
                self.stop(2 * PATIENCE)  # a write that hangs holds a shutdown up
        finally:
            self._clear_away()

    @property
    def has_sim(self) -> bool:
        """Tell whether there is a simulated kernel."""
        return self._sim is not None

    @property
    def sim(self) -> Sim:
        """The simulated kernel."""
        assert self._sim is not None, "this container has no simulated kernel"
        return self._sim

    @property
    def layer(self) -> Path:
        """The folder that holds what differs from ``root``, or all where nothing can be layered.

        To be written to before ``boot`` only.
        """
        return self._folder / ("upper" if self._layered else "merged")

    def _can_layer(self) -> bool:
        """Tell whether the kernel lays file systems over one another here."""
        options = f"lowerdir={self._root},upperdir={self._folder}/upper,workdir={self._folder}/work"
        words = ["mount", "-t", "overlay", "overlay", "-o", options, str(self._folder / "merged")]
        alone = ["unshare", "--mount", "--propagation", "private", *words]
        return subprocess.run(alone, stderr=subprocess.DEVNULL, check=False).returncode == 0

    def _show(self, sim: Sim) -> None:
        """Let the service, and whatever ``on-sim`` runs, see the simulated kernel."""
        drop_in = self.layer / _DROP_IN
        drop_in.parent.mkdir(parents=True)
        # the unit's own bindings are of the real kernel's files
        lines = ["BindPaths="]
        lines += [f"BindPaths={source}:{target}" for source, target in sim.binds()]
        drop_in.write_text("\n".join(("[Service]", *lines, "")), encoding="utf-8")
        script = self.layer / "usr/local/sbin/on-sim"
        script.parent.mkdir(parents=True, exist_ok=True)
        mounts = "\n".join(f"mount --bind {source} {target}" for source, target in sim.binds())
        script.write_text(_ON_SIM.format(mounts=mounts), encoding="utf-8")
        script.chmod(0o755)

    def boot(self, *, settled: bool = True, timeout: float = PATIENCE) -> None:
        """Start the container; return when its systemd has nothing left to do.

        Without ``settled`` return as soon as commands can be run: jobs may still wait.
        """
        assert self._nspawn is None
        self._groups = tuple(_make_group(self.name))
        folder = self._folder
        heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = folder / "notify"
        address.unlink(missing_ok=True)
        heard.bind(str(address))
        words = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--settings=no"]
        words += ["--boot", f"--directory={folder}/merged", f"--machine={self.name}"]
        words += ["--link-journal=no", "--resolv-conf=off", "--timezone=off", "--console=pipe"]
        words += ["--capability=CAP_SYSLOG"]  # as every host has; nspawn takes it away
        words += [f"--bind={self._sim.place}:{SIM}"] if self._sim else []
        words += [f"--network-namespace-path={self._network}"] if self._network else []
        words += [] if self._network else ["--private-network"]
        layers = str(self._root) if self._layered else ""
        places = [layers, *(str(folder / name) for name in ("upper", "work", "merged"))]
        # the container is gone when the first process of its namespace is: nspawn leaves it running
        alone = ["unshare", "--mount", "--propagation=slave", "--mount-proc"]
        alone += ["--pid", "--fork", "--kill-child"]
        inside = ["bash", "-c", _BOOT, "boot", *places, *map(str, self._groups), "--", *words]
        with heard, (folder / "console").open("ab") as console:
            self._nspawn = subprocess.Popen(
                _bound([*alone, *inside], "KILL"),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env={**os.environ, "NOTIFY_SOCKET": str(address)},
                start_new_session=True,
            )
            self.leader = self._await_leader(heard, time.monotonic() + timeout)
        until = time.monotonic() + timeout
        while self.run("systemctl", "is-system-running").out.strip() in ("", "offline", "unknown"):
            if time.monotonic() > until or self._nspawn.poll() is not None:
                raise ContainerError(f"{self.name} has not booted in {timeout:g} s{self._said()}")
            time.sleep(0.05)
        if settled:
            self.run("systemctl", "is-system-running", "--wait", timeout=timeout)

    def _await_leader(self, heard: socket.socket, until: float) -> int:
        assert self._nspawn is not None
        heard.settimeout(0.5)
        while self._nspawn.poll() is None and time.monotonic() < until:
            with suppress(TimeoutError):
                for line in heard.recv(4096).decode().splitlines():
                    name, _, value = line.partition("=")
                    if name == "X_NSPAWN_LEADER_PID":
                        return self._outside(int(value))
        raise ContainerError(f"{self.name} did not start{self._said()}")

    def _outside(self, number: int) -> int:
        """Return how this machine numbers the process that systemd-nspawn numbers so."""
        for process in _processes(self._groups):
            with suppress(OSError):
                status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
                numbers = status.partition("NSpid:")[2].partition("\n")[0].split()
                if numbers[-2:] == [str(number), "1"]:
                    return process
        raise ContainerError(f"{self.name}: its process {number} has ended{self._said()}")

    def _said(self) -> str:
        """Return the end of what came over the console."""
        with suppress(OSError):
            text = (self._folder / "console").read_text(encoding="utf-8", errors="replace")
            return "; its console:\n" + "\n".join(text.splitlines()[-40:])
        return ""

    def stop(self, timeout: float = PATIENCE) -> None:
        """Power the host off in order."""
        self.run("systemctl", "--no-block", "poweroff")
        self._gone(timeout, 0)

    def reboot(self, *, settled: bool = True, timeout: float = PATIENCE) -> None:
        """Shut the host down in order and boot it, its kernel too."""
        self.run("systemctl", "--no-block", "reboot")
        self._gone(timeout, REBOOT)
        self._boot_again(settled, timeout)

    def crash(self, *, settled: bool = True, timeout: float = PATIENCE) -> None:
        """Take the host's power away at once, and boot it, its kernel too."""
        os.kill(self.leader, signal.SIGKILL)
        self._gone(timeout, None)
        self._boot_again(settled, timeout)

    def _boot_again(self, settled: bool, timeout: float) -> None:
        if self._sim is not None:
            self._sim.reboot()
        self.boot(settled=settled, timeout=timeout)

    def _gone(self, timeout: float, expected: int | None) -> None:
        assert self._nspawn is not None
        try:
            code = self._nspawn.wait(timeout)
        except subprocess.TimeoutExpired:
            raise ContainerError(
                f"{self.name} has not gone down in {timeout:g} s{self._doing()}{self._said()}"
            ) from None
        self._nspawn = None
        self._end_group()
        if expected is not None and code != expected:
            raise ContainerError(f"systemd-nspawn: expected {expected}, found {code}{self._said()}")

    def _end_group(self) -> None:
        """End what is left of the container's processes, and take its control groups away."""
        _end_processes(self._groups)
        for group in self._groups:
            for folder, _, _ in os.walk(group, topdown=False):
                with suppress(OSError):
                    os.rmdir(folder)
        self._groups = ()
        self.leader = 0

    def _clear_away(self) -> None:
        if self._nspawn is not None:
            if self.leader:
                with suppress(ProcessLookupError):
                    os.kill(self.leader, signal.SIGKILL)
                with suppress(subprocess.TimeoutExpired):
                    self._nspawn.wait(10)  # it tidies up when its container is gone
            self._nspawn.kill()
            self._nspawn.wait()
            self._nspawn = None
        self._end_group()
        if self._sim is not None:
            self._sim.close()
            self._sim = None
        shutil.rmtree(self._folder)

    # commands

    def run(
        self,
        *words: str,
        timeout: float = PATIENCE,
        given: bytes | None = None,
        on_sim: bool = False,
    ) -> Ran:
        """Run a command as root; with ``on_sim`` it sees the simulated kernel."""
        code, out, err = self._run(words, timeout, given, on_sim)
        return Ran(code, out.decode(errors="replace"), err.decode(errors="replace"))

    def ok(self, *words: str, timeout: float = PATIENCE, on_sim: bool = False) -> str:
        """Run a command that must end with 0, and return its output."""
        ran = self.run(*words, timeout=timeout, on_sim=on_sim)
        if ran.code:
            raise ContainerError(
                f"{' '.join(words)}: exit code {ran.code}\n{ran.out}{ran.err}{self._doing()}"
            )
        return ran.out

    def _run(
        self, words: Sequence[str], timeout: float, given: bytes | None, on_sim: bool
    ) -> tuple[int, bytes, bytes]:
        into = ["nsenter", f"--target={self.leader}", "--all"]
        clean = ["env", "-i", "-C", "/", f"PATH={PATH}", "HOME=/root", "LANG=C.UTF-8"]
        process = subprocess.Popen(
            [*into, *clean, *(["on-sim"] if on_sim else []), *words],
            stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(given, timeout)
        except BaseException as error:
            # nsenter and what it started are one process group, seen from here
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                said = (out + err).decode(errors="replace")
                raise ContainerError(
                    f"{' '.join(words)}: not done in {timeout:g} s\n{said}{self._doing()}"
                ) from None
            raise
        return process.returncode, out, err

    def _doing(self) -> str:
        """Return what the host was doing, for messages."""
        asked = (
            "systemctl list-jobs --no-pager",
            "systemctl --failed --no-pager --no-legend",
            "systemctl status --no-pager --full --lines=0 dsatier.service",
            "journalctl --no-pager --lines=40 --output=short-monotonic",
        )
        said = ["\nthe host meanwhile:"]
        for command in asked:
            words = ["nsenter", f"--target={self.leader}", "--all", *command.split()]
            with suppress(subprocess.TimeoutExpired):
                ran = subprocess.run(words, capture_output=True, timeout=10, check=False)
                said.append(f"# {command}\n{(ran.stdout + ran.stderr).decode(errors='replace')}")
        return "\n".join(said)

    # files, packages, processes, journal

    def put(self, path: str, text: str | bytes, mode: int = 0o644) -> None:
        """Write a file in the container, and the folders above it."""
        data = text.encode() if isinstance(text, str) else text
        script = 'mkdir -p "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1"'
        ran = self.run("sh", "-c", script, "put", path, f"{mode:o}", given=data)
        if ran.code:
            raise ContainerError(f"{path}: {ran.err}")

    def get(self, path: str) -> bytes:
        """Return the content of a file in the container. Raises FileNotFoundError."""
        code, out, err = self._run(("cat", path), PATIENCE, None, False)
        if code:
            raise FileNotFoundError(err.decode(errors="replace"))
        return out

    def copy_in(self, source: Path, folder: str) -> None:
        """Copy a file or a folder into a folder of the container."""
        packed = subprocess.run(
            ["tar", "-C", source.parent, "-c", "--owner=0", "--group=0", source.name],
            stdout=subprocess.PIPE,
            check=True,
        )
        script = 'mkdir -p "$1" && tar -C "$1" -x'
        ran = self.run("sh", "-c", script, "copy", folder, given=packed.stdout)
        if ran.code:
            raise ContainerError(f"{source} into {folder}: {ran.err}")

    def copy_out(self, path: str, folder: Path) -> None:
        """Copy a file or a folder of the container into a folder here."""
        above, _, name = path.rstrip("/").rpartition("/")
        code, out, err = self._run(("tar", "-C", above or "/", "-c", name), PATIENCE, None, False)
        if code:
            raise FileNotFoundError(err.decode(errors="replace"))
        subprocess.run(["tar", "-C", folder, "-x", "--no-same-owner"], input=out, check=True)

    def install(self, package: Path) -> None:
        """Install a .deb, whose dependencies must be there."""
        self.copy_in(package, "/var/tmp")
        self.ok("dpkg", "--install", f"/var/tmp/{package.name}", timeout=2 * PATIENCE)

    def journal(self, unit: str = "", *, boot: str = "0") -> list[dict[str, Any]]:
        """Return the journal's entries of a boot, of one unit if it is named."""
        words = ["journalctl", "--output=json", "--no-pager", f"--boot={boot}"]
        out = self.ok(*words, *([f"--unit={unit}"] if unit else []))
        return [json.loads(line) for line in out.splitlines()]

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """Return properties of a unit, as systemd has them now."""
        wanted = [f"--property={','.join(names)}"] if names else []
        lines = self.ok("systemctl", "show", unit, *wanted).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def main_pid(self, unit: str) -> int:
        """Return the number, in the container, of a unit's main process; 0 for none."""
        return int(self.show(unit, "MainPID")["MainPID"])

    def kill(self, process: int, sign: str = "KILL") -> None:
        """Send a signal to a process by its number in the container."""
        self.ok("kill", "-s", sign, str(process))


def _make_group(name: str) -> Iterator[Path]:
    """Make a control group for a container in each hierarchy that systemd works in.

    Two containers that start in one group would take each other's processes for their own.
    """
    hybrid = [_CGROUPS / "systemd", _CGROUPS / "unified"]
    for hierarchy in [_CGROUPS] if (_CGROUPS / "cgroup.procs").exists() else hybrid:
        if (hierarchy / "cgroup.procs").exists():
            group = hierarchy / name
            group.mkdir(exist_ok=True)
            yield group


def _processes(groups: Sequence[Path]) -> set[int]:
    """Return the processes in control groups and those below them."""
    return {
        int(number)
        for group in groups
        for procs in group.rglob("cgroup.procs")
        for number in procs.read_text(encoding="ascii").split()
    }


def _end_processes(groups: Sequence[Path]) -> None:
    """Kill every process in control groups, until there is none."""
    until = time.monotonic() + 10
    while (found := set(filter(_lives, _processes(groups)))) and time.monotonic() < until:
        for number in found:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.02)


def _lives(process: int) -> bool:
    """Tell whether a process has not ended; one that has stays listed until it is waited for."""
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2]
    except OSError:
        return False
    return state.split()[0] not in "ZX"
