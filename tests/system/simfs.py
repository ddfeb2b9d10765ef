# SPDX-License-Identifier: Apache-2.0
"""A simulated host as files: ``python -m tests.system.simfs MOUNTPOINT --host dsa8``.

While it runs, ``dsatier --root MOUNTPOINT`` and programs such as the real accel-config find
a host there whose kernel answers: writes are refused, devices come up, the log grows. Time
passes as it does outside. Below ``MOUNTPOINT/sim`` are the simulation's own files:

    down     why the host is down, empty while it is up (read)
    harm     what unsafe writes did to it, one a line (read)
    inject   a fault as JSON, such as {"kind": "halt", "device": "dsa0"} (write)
    heal     the kind of a fault to take away, such as other-writer (write)
    kmsg     the kernel log as /dev/kmsg gives it: one record to each read (read)
    reboot   anything: boot again (write)
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from dsatier.host.port import HostDown, Hung, Missing, Rejected
from dsatier.sim.faults import KINDS
from dsatier.sim.host import SimHost
from tests.system import fuse

T = TypeVar("T")

OWN = ("run", "var")
"""Folders that stay the directory's own: dsatier keeps its files there."""
EMPTY = {"/sys/fs": ("cgroup",), "/sys/fs/cgroup": ()}
"""Folders that every kernel has, so that something can be mounted there; dsatier never looks."""
CONSTANT = {"/proc/sys/kernel/domainname": b"(none)\n"}
"""Files of the same kind: service managers make them read-only."""
KMSG = "/dev/kmsg"
DEVICE = "/sim/kmsg"
CONTROL = ("down", "harm", "heal", "inject", "kmsg", "reboot")
_FOREVER = 1.0


class SimFiles:
    """The files of a simulated host, for FUSE."""

    def __init__(self, host: SimHost) -> None:
        self.host = host
        self._at = time.monotonic()

    def mode(self, path: str) -> int:
        """Return type and permissions; ENOENT where there is nothing."""
        if path in ("/", "/dev", "/sim") or path in EMPTY:
            return stat.S_IFDIR | 0o755
        if path == KMSG or path in CONSTANT or self._is_uevent(path):
            return stat.S_IFREG | 0o444
        if path.startswith("/sim/"):
            if path[5:] not in CONTROL:
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            return stat.S_IFREG | 0o644
        kernel = self.host.kernel
        if kernel.layout.link(kernel, path) is not None:
            return stat.S_IFLNK | 0o777
        file = kernel.layout.file(kernel, path)
        if file is not None:
            return stat.S_IFREG | (0o444 if file.show else 0) | (0o200 if file.store else 0)
        if kernel.layout.is_dir(kernel, path):
            return stat.S_IFDIR | 0o755
        raise FileNotFoundError(errno.ENOENT, "no such file", path)

    def names(self, path: str) -> tuple[str, ...]:
        """Return the names in a folder."""
        if path == "/sim":
            return CONTROL
        if path in EMPTY:
            return EMPTY[path]
        found = set(self.host.kernel.layout.entries(self.host.kernel, path))
        if path == "/":
            found |= {"dev", "sim"}
        if path == "/sys":
            found |= {"fs"}
        if self._is_uevent(f"{path}/uevent"):
            found |= {"uevent"}
        return ("kmsg",) if path == "/dev" else tuple(sorted(found))

    def target(self, path: str) -> str:
        """Return what a link says."""
        found = self.host.kernel.layout.link(self.host.kernel, path)
        if found is None:
            raise OSError(errno.EINVAL, "no link", path)
        return found

    def read(self, path: str) -> bytes:
        """Return a file's content."""
        if path == "/sim/down":
            return self.host.down.encode()
        if path == "/sim/harm":
            return "".join(f"{h.kind}: {h.write}: {h.reason}\n" for h in self.host.harm).encode()
        if path.startswith("/sim/"):
            return b""
        if path in CONSTANT or self._is_uevent(path):
            return CONSTANT.get(path, b"")
        self._pass_time()
        if path == KMSG:
            first = self.host.kernel.state.log_first
            lines = enumerate(self.host.kernel.state.log, first)
            return b"".join(_record(n, line) for n, line in lines)
        return self._asked(lambda: self.host.read(path)).encode()

    def is_log(self, path: str) -> bool:
        """Tell whether reads are of records."""
        return path == DEVICE

    def record(self, path: str, number: int) -> tuple[int, bytes] | None:
        """Return the kernel log's first record from ``number`` on, or None."""
        self._pass_time()
        state = self.host.kernel.state
        found = max(number, state.log_first)
        if found >= state.log_first + len(state.log):
            return None
        return found, _record(found, state.log[found - state.log_first])

    def write(self, path: str, data: bytes) -> None:
        """Write to a kernel file, or change the simulation."""
        text = data.decode()
        if path == "/sim/inject":
            fault = json.loads(text)
            self.host.inject(KINDS[fault["kind"]](**fault))
        elif path == "/sim/heal":
            self.host.heal(text.strip())
        elif path == "/sim/reboot":
            self.host.reboot()
        elif path.startswith("/sim/"):
            raise OSError(errno.EPERM, "read only", path)
        else:
            self._pass_time()
            self._asked(lambda: self.host.write(path, text, _FOREVER))

    def _is_uevent(self, path: str) -> bool:
        """Tell whether it is the file by which udev tells a device from any other folder."""
        above, _, name = path.rpartition("/")
        kernel = self.host.kernel
        subsystem = f"{above}/subsystem"
        return name == "uevent" and kernel.layout.link(kernel, subsystem) is not None

    def _pass_time(self) -> None:
        now = time.monotonic()
        passed, self._at = now - self._at, now
        if not self.host.down:
            with suppress(HostDown):  # whoever asks next is told
                self.host.advance(passed)

    @staticmethod
    def _asked(act: Callable[[], T]) -> T:
        """Do what the kernel is asked for, with its errors as the operating system has them."""
        try:
            return act()
        except Missing as error:
            raise FileNotFoundError(errno.ENOENT, error.message) from error
        except Rejected as error:
            raise OSError(error.errno, error.message) from error
        except Hung as error:
            raise fuse.NeverAnswered from error
        except HostDown as error:
            raise OSError(errno.EIO, error.message) from error


def _record(number: int, line: str) -> bytes:
    return f"6,{number},{number},-;{line}\n".encode()


@contextmanager
def mounted(host: SimHost, place: Path) -> Iterator[Path]:
    """Show ``host`` at ``place`` for as long as the context lasts. Needs root and /dev/fuse.

    The host lives in a process of its own, so that a request that is never answered
    hangs whoever made it and nobody else.
    """
    hidden = place / ".simfs"
    hidden.mkdir(parents=True)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    descriptor = fuse.mount(str(hidden))
    shown: list[Path] = []
    server = os.fork()
    if server == 0:
        try:
            fuse.serve(descriptor, SimFiles(host))
        finally:
            os._exit(0)
    os.close(descriptor)
    try:
        for name in os.listdir(hidden):
            if name not in OWN:
                (place / name).mkdir(exist_ok=True)
                fuse.bind(str(hidden / name), str(place / name))
                shown.append(place / name)
        for name in OWN:
            (place / name).mkdir(exist_ok=True)
        yield place
    finally:
        for folder in (*shown, hidden):
            fuse.unmount(str(folder))
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
        for folder in (*shown, hidden):
            folder.rmdir()
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def main(argv: list[str] | None = None) -> int:
    """Serve a host until it is interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("mountpoint", type=Path)
    parser.add_argument("--host", default="dsa8", help="a shipped host or a YAML file")
    options = parser.parse_args(argv)
    with mounted(SimHost.host_for(options.host), options.mountpoint):
        print(f"{options.host} is at {options.mountpoint}; Ctrl-C ends it", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 0


if __name__ == "__main__":
    sys.exit(main())
