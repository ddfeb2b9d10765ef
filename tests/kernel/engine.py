# SPDX-License-Identifier: Apache-2.0
"""A guest whose devices copy what migrates: the engine of our kernel, up and down."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.kernel.ours import PROGRAMS, program
from vm.booting import ACCEL_CONFIG, guest
from vm.guest import BOOT, PATIENCE, Command, Guest
from vm.idxd import moved_since
from vm.kernel import Kernel
from vm.machine import Dsa, Iommu, Machine, Node, Property
from vm.ours import compare, control_group, kernel, knob, since

EVERYBODY = 989
"""All reasons that can batch."""
PARAMETERS = "/sys/module/idxd_migrate/parameters"
TIMEOUT = f"{PARAMETERS}/timeout_ms"
FACTOR = f"{PARAMETERS}/timeout_factor"
FAILED = "copying by CPU, use_dsa_copy_pages reads 0"
"""What the log says of the last channel that fails."""
KEPT = "DMA-API: (.*has pending DMA allocations|Mapped at)|WARNING: .*kernel/dma/debug.c"
"""What a debug kernel says where a driver leaves a device that may still write to its memory."""
OUT = r"(copying by CPU, use_dsa_copy_pages reads 0|out of use, channels left: \d)"
"""What it says of any that does."""


@contextmanager
def booted(
    count: int,
    iommu: Iommu = "off",
    *,
    properties: Mapping[str, Property] | None = None,
    append: tuple[str, ...] = (),
    ours: Kernel | None = None,
    timeout: float = BOOT,
) -> Iterator[Guest]:
    """Yield a guest with devices, half of them on each node, that compares copies where it can.

    ``properties`` are those of each device. There is a control group ``tests`` in ``CGROUP``.
    """
    devices = tuple(Dsa(node=2 * n // count, properties=properties or {}) for n in range(count))
    nodes = (Node(cpus=4, memory=768), Node(memory=768))
    files = {f"/bin/{name}": program(name) for name in PROGRAMS}
    with guest(
        # a busy machine may leave a guest without a CPU for longer than the watchdog's 20 s
        Machine(nodes=nodes, dsa=devices, iommu=iommu, append=("watchdog_thresh=60", *append)),
        kernel=ours or kernel(),
        load=["idxd", "idxd_migrate"],
        programs=[ACCEL_CONFIG],
        files=files,
        timeout=timeout,
    ) as vm:
        control_group(vm)
        compare(vm)
        # on a busy machine an emulated device takes its time, and not always the same
        vm.write(TIMEOUT, "30000")
        vm.write(FACTOR, "0")
        knob(vm, "migrate_batch_usecs", 0)  # an emulated CPU is slow
        knob(vm, "migrate_batch_reasons", EVERYBODY)
        yield vm


def up(vm: Guest, channels: int) -> None:
    """Take channels and use them."""
    knob(vm, "limit_chans", channels)
    knob(vm, "dsa_state", 1)
    knob(vm, "use_dsa_copy_pages", 1)


def down(vm: Guest, timeout: float = PATIENCE) -> None:
    """Give the channels back."""
    for name in ("use_dsa_copy_pages", "dsa_state"):
        vm.write(f"/proc/sys/vm/{name}", "0", timeout=timeout)


def agreed(
    vm: Guest, before: dict[str, int], at: dict[str, int]
) -> tuple[dict[str, int], list[int]]:
    """Return what the kernel has counted, and the bytes of each device, once both say the same.

    They are read one after the other, and what the kernel begins by itself is copied between: so
    they are read again, and where one of them is wrong they differ for good.
    """
    until = time.monotonic() + PATIENCE
    while True:
        found, shares = since(vm, before), moved_since(vm, at)
        if found["dsa"] * 4096 == sum(shares):
            return found, shares
        assert time.monotonic() < until, (found, shares)
        time.sleep(0.5)


def value(vm: Guest, name: str) -> str:
    """Return what a knob of /proc/sys/vm reads."""
    return vm.read(f"/proc/sys/vm/{name}").strip()


def error(vm: Guest, path: str, text: str) -> str:
    """Return what a write that must fail says."""
    ran = vm.run("sh", "-c", 'echo "$1" >"$2"', "sh", text, path)
    assert ran.code, (path, text)
    return ran.err


def busy(vm: Guest, seconds: int, patience: float = PATIENCE) -> Command:
    """Start pages that move to and fro and are written to, each byte of which is checked."""
    found = vm.start("pages", "mixed", "move_pages", "16", f"{seconds}", "write", "remote")
    found.wait_for("^ready$", patience)
    return found
