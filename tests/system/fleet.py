# SPDX-License-Identifier: Apache-2.0
"""A fleet on this machine: hosts that boot Debian, and a controller that has Ansible and SSH.

Each host is a container with a simulated kernel and a network namespace of its own. A bridge in
the controller's namespace joins them; the machine's own network has no part in it. SSH sessions
see the simulated kernel, as they would on a real host, so commands of a playbook do, too.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.container import Container, Sim

REPOSITORY = Path(__file__).resolve().parents[2]
PLAYBOOKS = REPOSITORY / "packaging" / "ansible"
PATIENCE = 240.0
"""Seconds that a playbook gets."""
CONTROLLER = "192.0.2.1"
_KNOBS = ("use_dsa_copy_pages", "cpu_multi_copy_pages", "dsa_state", "limit_chans", "limit_mt_num")
_RECAP = re.compile(r"^(\S+)\s+: ((?:\w+=\d+\s*)+)$", re.MULTILINE)
_RELOADED = "7b05ebc668384222baa8881179cfda54"
_RELOADING = "d34d037fff1847e6ae669a370e694725"
"""The numbers of systemd's messages that a unit was reloaded, and is about to be."""


class FleetError(Exception):
    """Something of the fleet did not come up."""


class Namespace:
    """A network namespace, for as long as the process that started it lives."""

    def __init__(self) -> None:
        script = "ip link set lo up && echo up && exec sleep infinity"
        self._holder = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        if not self._holder.stdout.readline():
            raise FleetError(f"a network namespace could not be made: {self._holder.wait()}")

    @property
    def number(self) -> int:
        """The process that holds the namespace."""
        return self._holder.pid

    @contextmanager
    def shown(self, path: Path) -> Iterator[Path]:
        """Show the namespace as a file, for whoever does not see its process."""
        path.touch()
        subprocess.run(["mount", "--bind", f"/proc/{self.number}/ns/net", path], check=True)
        try:
            yield path
        finally:
            subprocess.run(["umount", path], check=True)

    def within(self, *words: str) -> list[str]:
        """Return the command that runs ``words`` in the namespace."""
        return ["nsenter", f"--net=/proc/{self.number}/ns/net", *words]

    def ip(self, words: str) -> None:
        """Run one command of ip in the namespace."""
        subprocess.run(self.within("ip", *words.split()), check=True)

    def close(self) -> None:
        """Take the namespace away, once nobody else uses it."""
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What shows whether anybody touched a host."""

    profiles: Mapping[str, str]
    """The files in /etc/dsatier.d."""
    record: str
    """What dsatier keeps of its state on disk."""
    knobs: Mapping[str, str]
    """What the kernel has in its knobs."""
    reloads: int
    """How often the service was reloaded."""
    written: tuple[str, ...]
    """What a role would leave behind: files in its folders."""


class Node:
    """A host of the fleet."""

    def __init__(self, number: int, sim: str, controller: Namespace) -> None:
        self.name = f"node{number}"
        self.address = f"192.0.2.{10 + number}"
        self.sim_host = sim
        self._controller = controller
        self._link = f"veth{number}"
        self.network = Namespace()
        controller.ip(f"link add {self._link} type veth peer host0 netns {self.network.number}")
        controller.ip(f"link set {self._link} master bridge up")
        self.network.ip(f"address add {self.address}/24 dev host0")
        self.network.ip("link set host0 up")
        self.container: Container

    @property
    def sim(self) -> Sim:
        """The host's simulated kernel."""
        return self.container.sim

    def boot(self, root: Path, stack: ExitStack, keys: Path) -> None:
        """Boot the host, with its own SSH key and the controller's."""
        with self.network.shown(keys / f"{self.name}.network") as network:
            host = Container(root, sim=self.sim_host, network=network)
            self.container = stack.enter_context(host)
        host.ok("hostname", self.name)
        host.put("/etc/hostname", f"{self.name}\n")
        host.put("/root/.ssh/authorized_keys", (keys / "controller.pub").read_bytes(), 0o600)
        _make_key(keys / self.name)
        host.put("/etc/ssh/ssh_host_ed25519_key", (keys / self.name).read_bytes(), 0o600)
        host.put("/etc/ssh/ssh_host_ed25519_key.pub", (keys / f"{self.name}.pub").read_bytes())
        # a session sees the kernel that dsatier.service sees
        binds = "".join(f"BindPaths={source}:{target}\n" for source, target in host.sim.binds())
        host.put("/etc/systemd/system/ssh.service.d/50-sim.conf", f"[Service]\n{binds}")
        host.ok("systemctl", "daemon-reload")
        host.ok("systemctl", "restart", "ssh.service")

    def cut(self) -> None:
        """Take the host off the network."""
        self._controller.ip(f"link set {self._link} down")

    def join(self) -> None:
        """Put the host back on the network."""
        self._controller.ip(f"link set {self._link} up")

    def status(self) -> dict[str, Any]:
        """Return what dsatier says of the host."""
        ran = self.container.run("dsatier", "status", "--json")
        return json.loads(ran.out) if ran.out else {"state": ran.err}

    @property
    def state(self) -> str:
        """The state that dsatier says that the host is in."""
        return str(self.status()["state"])

    def reloads(self) -> list[tuple[float, float]]:
        """Return when reloads of the service that succeeded began and ended, in seconds."""
        found: list[tuple[float, float]] = []
        began = 0.0
        for entry in self.container.journal("dsatier.service"):
            at = int(entry["__REALTIME_TIMESTAMP"]) / 1e6
            if entry.get("MESSAGE_ID") == _RELOADING:
                began = at
            elif entry.get("MESSAGE_ID") == _RELOADED and entry.get("JOB_RESULT") == "done":
                found.append((began, at))
        return found

    def evidence(self) -> Evidence:
        """Return what shows whether anybody touched the host."""
        script = (
            "for f in /etc/dsatier.d/*.yaml; do [ -e $f ] && echo == $f && cat $f; done;"
            "echo == record; cat /var/lib/dsatier/record.json 2>/dev/null;"
            "echo == written; find /var/lib/dsatier-profiles /tmp/dsatier* | sort; true"
        )
        parts: dict[str, str] = {}
        for part in self.container.ok("sh", "-c", script).split("== ")[1:]:
            name, _, parts[name] = part.partition("\n")
        entries = self.container.journal("dsatier.service")
        written = parts.pop("written")
        record = parts.pop("record")
        return Evidence(
            parts,
            record,
            {knob: self.sim.read(f"/proc/sys/vm/{knob}") for knob in _KNOBS},
            sum(entry.get("MESSAGE_ID") == _RELOADING for entry in entries),
            tuple(written.splitlines()),
        )


@dataclass(frozen=True, slots=True)
class Played:
    """How a run of ansible-playbook ended."""

    code: int
    out: str
    recap: Mapping[str, Mapping[str, int]]
    """Counts for each host that was in the play: ok, changed, unreachable, failed, …"""

    def count(self, what: str) -> dict[str, int]:
        """Return one of the counts, for each host."""
        return {name: counts[what] for name, counts in self.recap.items()}


class Fleet:
    """Hosts and their controller, for as long as a ``with`` block lasts. Needs root.

    ``sims`` names the simulated host of each. ``folder`` takes keys, inventory and reports.
    """

    def __init__(self, root: Path, package: Path, folder: Path, sims: Iterable[str]) -> None:
        self._root = root
        self._package = package
        self.folder = folder
        self._sims = tuple(sims)
        self._stack = ExitStack()
        self.nodes: dict[str, Node] = {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._controller = Namespace()
            stack.callback(self._controller.close)
            self._controller.ip("link add bridge type bridge")
            self._controller.ip(f"address add {CONTROLLER}/24 dev bridge")
            self._controller.ip("link set bridge up")
            _make_key(self.folder / "controller")
            for number, sim in enumerate(self._sims, 1):
                node = Node(number, sim, self._controller)
                stack.callback(node.network.close)
                self.nodes[node.name] = node
            # what a thread starts ends with it: the threads stay until the hosts are gone
            threads = stack.enter_context(ThreadPoolExecutor(len(self.nodes)))
            hosts = stack.enter_context(ExitStack())
            booting = [
                threads.submit(node.boot, self._root, hosts, self.folder)
                for node in self.nodes.values()
            ]
            wait(booting)
            for one in booting:
                one.result()
            self._write_inventory()
            self._await_ssh()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def _write_inventory(self) -> None:
        known = self.folder / "known_hosts"
        lines = []
        for node in self.nodes.values():
            key = (self.folder / f"{node.name}.pub").read_text(encoding="ascii")
            lines.append(f"{node.address} {' '.join(key.split()[:2])}\n")
        known.write_text("".join(lines), encoding="ascii")
        variables = {
            "ansible_user": "root",
            "ansible_ssh_private_key_file": str(self.folder / "controller"),
            "ansible_ssh_common_args": f"-F none -o UserKnownHostsFile={known} "
            "-o IdentitiesOnly=yes -o ConnectTimeout=3 "
            "-o ServerAliveInterval=1 -o ServerAliveCountMax=3",
            # no connection outlives the fleet by much
            "ansible_ssh_args": "-o ControlMaster=auto -o ControlPersist=10s",
            "dsatier_deb": str(self._package),
        }
        hosts = {node.name: {"ansible_host": node.address} for node in self.nodes.values()}
        text = json.dumps({"all": {"vars": variables, "hosts": hosts}}, indent=1)
        (self.folder / "inventory.json").write_text(text, encoding="utf-8")

    def _await_ssh(self) -> None:
        until = time.monotonic() + PATIENCE
        left = list(self.nodes)
        while left:
            left = [name for name in left if self.ssh(name, "true").returncode]
            if time.monotonic() > until:
                raise FleetError(f"no answer by SSH from {', '.join(left)}")

    def ssh(self, name: str, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command on a host by SSH."""
        words = ["ssh", "-F", "none", "-i", str(self.folder / "controller")]
        words += ["-o", f"UserKnownHostsFile={self.folder}/known_hosts"]
        words += ["-o", "ConnectTimeout=3", "-o", "BatchMode=yes"]
        return subprocess.run(
            self._controller.within(*words, f"root@{self.nodes[name].address}", command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    def play(self, playbook: str, *words: str, **variables: object) -> Played:
        """Run a playbook of ours with extra variables; return how it ended."""
        home = self.folder / "ansible"
        own = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        ran = subprocess.run(
            self._controller.within(
                "ansible-playbook",
                f"--inventory={self.folder}/inventory.json",
                f"--extra-vars={json.dumps(variables)}",
                *words,
                str(PLAYBOOKS / "playbooks" / playbook),
            ),
            cwd=self.folder,
            env=own
            | {
                "PWD": str(self.folder),
                "ANSIBLE_CONFIG": str(PLAYBOOKS / "ansible.cfg"),
                "ANSIBLE_HOME": str(home),
                # connections are kept by address, and other fleets have the same addresses
                "ANSIBLE_SSH_CONTROL_PATH_DIR": str(home / "connections"),
                "ANSIBLE_REMOTE_TEMP": "/var/tmp/ansible",
                "ANSIBLE_NOCOLOR": "1",
                "LC_ALL": "C.UTF-8",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        print(ran.stdout)  # what pytest shows of a test that fails
        recap = {
            name: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", counts)}
            for name, counts in _RECAP.findall(ran.stdout.rpartition("PLAY RECAP")[2])
        }
        return Played(ran.returncode, ran.stdout, recap)

    def evidence(self, *names: str) -> dict[str, Evidence]:
        """Return what shows whether anybody touched these hosts, or any."""
        return {name: self.nodes[name].evidence() for name in names or self.nodes}


def _make_key(path: Path) -> None:
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(words, check=True)
