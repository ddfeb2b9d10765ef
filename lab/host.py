# SPDX-License-Identifier: Apache-2.0
"""A host in a guest: a kernel, systemd, dsatier's package, and what an operator does there."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vm import images
from vm.booting import guest
from vm.guest import Command, Guest, GuestError
from vm.kernel import Kernel
from vm.machine import Dsa, Iommu, Machine, Node
from vm.ours import counters, since
from vm.ours import kernel as our_kernel

PATIENCE = 600.0
VM = "/proc/sys/vm/"
PACKAGE = "/opt/dsatier.deb"
HERE = Path(__file__).resolve().parent


DEVICES = tuple(Dsa(node=n // 4) for n in range(8))
"""Eight devices, four on each tier."""


def two_tiers(
    dsa: tuple[Dsa, ...] = (),
    append: tuple[str, ...] = (),
    extra: tuple[str, ...] = (),
    iommu: Iommu = "off",
) -> Machine:
    """Return a machine whose slow node boots with a CPU that is offline."""
    return Machine(
        nodes=(Node(cpus=3, memory=1536), Node(cpus=1, memory=1024)),
        dsa=dsa,
        iommu=iommu,
        # a slow node that boots with CPUs would be in the tier of the fast
        append=("maxcpus=3", *append),
        # so that the fast node has a zone Normal, where an agent looks for the demotion mark
        extra=("-machine", "max-ram-below-4g=1G", *extra),
    )


def host(
    package: Path,
    machine: Machine | None = None,
    *,
    kernel: Kernel | None = None,
    load: Sequence[str] = (),
    carry: Sequence[str] = (),
    files: Mapping[str, Path | bytes] | None = None,
    root: Path | None = None,
) -> Guest:
    """Return a host that has the package as a file; ``install`` installs it.

    Without ``machine`` it has two tiers and no devices, without ``kernel`` it has ours. ``root``
    is the image that it boots from, where it is not to be the usual one.
    """
    more = {
        PACKAGE: package,
        "/usr/local/bin/hold": images.program(HERE / "hold.c"),
        **(files or {}),
    }
    return guest(
        machine or two_tiers(),
        kernel=kernel or our_kernel(),
        root=root or images.debian_root(),
        load=load,
        carry=carry,
        files=more,
        timeout=600,
    )


def install(vm: Guest) -> None:
    """Install the package on a host, as apt would."""
    vm.ok("depmod")  # as the kernel's package does
    vm.ok("dpkg", "--install", PACKAGE, timeout=PATIENCE)


@contextmanager
def installed(given: Guest) -> Iterator[Guest]:
    """Yield a ``host`` where the package was just installed, and no profile is."""
    with given as vm:
        install(vm)
        yield vm


def journalled(folder: Path) -> Path:
    """Return a root whose file system has a journal, as one that is to live through a reset must.

    What is written to it lives as long as the emulator does.
    """
    image = folder / "root.ext4"
    subprocess.run(["cp", "--sparse=always", images.debian_root(), image], check=True)
    subprocess.run(["tune2fs", "-j", image], check=True, stdout=subprocess.DEVNULL)
    return image


def status(vm: Guest) -> dict[str, Any]:
    """Return the status document."""
    found: dict[str, Any] = json.loads(vm.ok("cat", "/run/dsatier/status.json"))
    return found


def shown(vm: Guest, title: str) -> None:
    """Print what an operator would see."""
    print(f"\n== {title}\n{vm.run('dsatier', 'status').out}")


def until(
    vm: Guest, what: str, so: Callable[[dict[str, Any]], bool], timeout: float = PATIENCE
) -> dict[str, Any]:
    """Wait until a status is so, and return it."""
    end = time.monotonic() + timeout
    last: object = None
    while time.monotonic() < end:
        try:
            last = found = status(vm)
        except (GuestError, ValueError) as error:
            last = error
        else:
            if so(found):
                return found
        time.sleep(0.5)
    raise AssertionError(f"not in {timeout:g} s: {what}; {last}")


def steps(vm: Guest) -> list[str]:
    """Return the words of all steps that the daemon has taken since it was last asked."""
    lines = vm.ok("journalctl", "-b", "-u", "dsatier", "-o", "cat").splitlines()
    taken = [json.loads(line) for line in lines if '"event": "step"' in line]
    boot = vm.read("/proc/sys/kernel/random/boot_id")
    new = taken[seen.get(boot, 0) :]
    seen[boot] = len(taken)
    return [str(entry["what"]) for entry in new]


STRIKE = """
import json, os, signal, sys, time
words, pid, sign = sys.argv[1:]
until = time.monotonic() + 100
while time.monotonic() < until:
    try:
        with open("/run/dsatier/status.json") as file:
            what = json.load(file)["message"]
    except (OSError, ValueError):
        continue
    if words in what:
        break
else:
    sys.exit("no such step was seen")
os.kill(int(pid), int(sign))
print(what)
"""
"""Waits for a step to begin, and sends a signal to the daemon in it."""


def struck(vm: Guest, words: str, sign: int = signal.SIGKILL) -> Command:
    """Begin to wait for a step with these words; the daemon gets a signal in it."""
    pid = vm.ok("systemctl", "show", "--property=MainPID", "--value", "dsatier").strip()
    vm.put("/opt/strike.py", STRIKE)
    return vm.start("python3", "/opt/strike.py", words, pid, str(int(sign)))


def said(command: Command) -> str:
    """Return what a command printed that must end with 0."""
    ran = command.wait(PATIENCE)
    assert 0 == ran.code, ran.err
    return ran.out


seen: dict[str, int] = {}
"""How many steps of a boot were asked for."""


def reload(vm: Guest) -> None:
    """Reload, and fail with what an operator would see where that fails."""
    ran = vm.run("systemctl", "reload", "dsatier", timeout=PATIENCE)
    if ran.code:
        raise AssertionError(f"{ran.err}\n{vm.run('dsatier', 'status').out}")


def in_order(found: Sequence[str], *words: str) -> None:
    """Assert that steps with these words were taken, in this order."""
    place = [next(n for n, step in enumerate(found) if word in step) for word in words]
    assert sorted(place) == place


def squeeze(vm: Guest, timeout: float = PATIENCE) -> tuple[dict[str, int], dict[str, int]]:
    """Have memory of node 0 grow short, and every byte read back.

    What is taken follows from what is free: what earlier programs pushed away leaves much room.
    Returns how far the kernel's counters came, and what ``dsatier measure`` read from /proc/timer.
    """
    before = counters(vm)
    free = re.search(r"MemFree: +(\d+) kB", vm.read("/sys/devices/system/node/node0/meminfo"))
    assert free, "node 0 tells nothing of what is free"
    steps = max(40, (int(free[1]) >> 10) // 16 + 8)
    script = "exec taskset 1 hold >&2"
    hold = vm.start("dsatier", "measure", "--json", "--", "sh", "-c", script, given=None)
    hold.give(b"".join(b"more 16\n" for _ in range(steps)) + b"check\n")
    hold.end_input()
    ran = hold.wait(timeout)
    assert 0 == ran.code, ran.out + ran.err
    assert re.search(r"^\d+ right$", ran.err, re.MULTILINE), ran.err
    found, timer = since(vm, before), json.loads(ran.out)["timer"]
    print(f"{steps} x 16 MiB, {int(free[1]) >> 10} MiB were free:", found, timer)
    return found, timer
