# SPDX-License-Identifier: Apache-2.0
"""What the tests of tiering on stock kernels do with a host, and ask of it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from lab.host import PATIENCE, until
from tests.support.long import LONG_ONLY
from tests.system.conftest import PROFILES
from vm import images
from vm.guest import Guest
from vm.kernel import Kernel
from vm.ours import counters

CLOCK = "shift=2,sleep=off"
"""Time goes by instructions, so that no deadline of the daemon and no heat of a page depends
on how fast this machine is. Where nothing runs, time is passed over."""
KERNELS: dict[str, Callable[[], Kernel]] = {
    "6.12": images.debian_kernel,
    "7.3": images.newer_kernel,
}
EACH = ["6.12", pytest.param("7.3", marks=LONG_ONLY)]
"""The kernels that a test is for; the newer one takes as long again."""
BRINGING = ("dax_hmem", "kmem", "device_dax")
"""The modules by which memory that firmware sets apart becomes a node."""
MINE = "/etc/dsatier.d/50-mine.yaml"
SLEEP = 0.5
MIB = 256
"""Pages."""
DEMOTED = ("pgdemote_kswapd", "pgdemote_direct", "pgdemote_khugepaged", "pgdemote_proactive")
PROMOTED = ("pgpromote_success",)
VOLATILE = (
    "full_scans",  # of khugepaged and the like: counts
    "pages_collapsed",
    "min_free_kbytes",  # the kernel's own, by what memory is there
    "stat_refresh",
)
"""Files among the tunables that change by themselves, or are none."""
KNOWN = ("/proc/sys/vm/swappiness", "/sys/kernel/mm/numa/demotion_enabled", "/proc/swaps")
"""Files that every kernel here has, below each kind of place."""
TUNABLES = (
    "/proc/sys/vm",
    "/proc/sys/kernel/numa_balancing",
    "/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps",
    "/sys/kernel/mm",
    "/sys/kernel/debug/sched/numa_balancing",
    "/sys/devices/system/cpu/online",
    "/sys/devices/system/node/online",
    "/sys/devices/system/memory/auto_online_blocks",
    "/proc/swaps",
)


def tunables(vm: Guest) -> dict[str, str]:
    """Return every tunable of memory that the kernel has, with its value."""
    found: dict[str, str] = {}
    # some cannot be read, and some are not there on every kernel: that is no trouble
    for line in vm.run("grep", "-rs", "", *TUNABLES, timeout=PATIENCE).out.splitlines():
        path, _, value = line.partition(":")
        if not path.endswith(VOLATILE) and "/stats/" not in path:
            found[path] = f"{found[path]}\n{value}" if path in found else value
    assert set(KNOWN) <= found.keys()
    return found


def differing(before: dict[str, str], after: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Return what was changed, came or went, with the values before and after."""
    found = {path: (before.get(path, ""), after.get(path, "")) for path in before | after}
    return {path: values for path, values in found.items() if values[0] != values[1]}


def give(vm: Guest, profile: str) -> None:
    """Put a shipped profile into the host's folder, in the place of any other."""
    vm.put(MINE, (PROFILES / profile).read_bytes())


def moved(vm: Guest, names: tuple[str, ...], node: int | None = None) -> int:
    """Return what the kernel has counted of pages that moved, at a node or at all."""
    if node is None:
        found = counters(vm)
    else:
        lines = vm.read(f"/sys/devices/system/node/node{node}/vmstat").splitlines()
        found = {line.split()[0]: int(line.split()[1]) for line in lines}
    return sum(found.get(name, 0) for name in names)


def free(vm: Guest, node: int) -> int:
    """Return the free memory of a node in MiB."""
    text = vm.sh('grep MemFree "/sys/devices/system/node/node$1/meminfo"', str(node))
    return int(text.split()[3]) >> 10


def above(vm: Guest, node: int, mark: str) -> int:
    """Return the pages that a node has for programs above a watermark: min, low or high."""
    room = 0
    for zone in re.findall(rf"(?m)^Node {node}, zone .*(?:\n .*)+", vm.read("/proc/zoneinfo")):
        rows = dict(re.findall(r"(?m)^ +(?:pages )?(free|min|low|high|managed) +(\d+)$", zone))
        kept = re.findall(r"\d+", re.findall(r"protection: \((.*)\)", zone)[0])
        if int(rows["managed"]):
            room += max(0, int(rows["free"]) - max(map(int, kept)) - int(rows[mark]))
    return room


def wait_until(what: str, so: Callable[[], bool], timeout: float = PATIENCE) -> None:
    """Wait until something is so."""
    last = time.monotonic() + timeout
    while not so():
        assert time.monotonic() < last, f"not in {timeout:g} s: {what}"
        time.sleep(SLEEP)


def verdict(vm: Guest, wanted: str, reason: str | None = None) -> dict[str, Any]:
    """Wait until tiering is said to be so, and return the status."""

    def so(status: dict[str, Any]) -> bool:
        found = status["tiering"]
        return bool(found) and wanted == found["verdict"] and reason in (None, found["reason"])

    return until(vm, f"tiering is {wanted} ({reason})", so, 2 * PATIENCE)


def apart(start: int, mib: int, policy: str) -> tuple[str, ...]:
    """Return words for a kernel by which memory is a device's, that comes when it is asked for.

    ``start`` is the address of its first byte; ``policy`` says how its memory blocks come online.
    """
    return (
        # RAM that is for somebody's own use: E820's own type for what EFI marks so
        f"memmap={mib}M%{start:#x}-1+0xefffffff",
        f"memhp_default_state={policy}",
        "modprobe.blacklist=dax_hmem",  # else it comes at boot
    )
