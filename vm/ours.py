# SPDX-License-Identifier: Apache-2.0
"""Our kernel: where it is built, and what it says of itself in a guest."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vm import images
from vm.guest import Guest
from vm.kernel import Kernel

BUILD = images.REPOSITORY / "kernel-src/scripts/build"
BENCH = images.REPOSITORY / "kernel-src/bench"
"""The benchmark of page copies."""
CGROUP = "/tmp/cgroup"
TRACING = "/sys/kernel/debug/tracing"
COMPARES = "/sys/kernel/debug/migrate_copy_verify"


def kernel(*options: str, folder: Path | None = None) -> Kernel:
    """Return our kernel, built where it has to be. ``options`` are those of the build.

    ``folder`` or DSATIER_KERNEL names one as the build makes it, to try what was built by hand.
    """
    given = folder or (None if options else os.environ.get("DSATIER_KERNEL"))
    folder = Path(given or images.output(BUILD, *options).splitlines()[-1])
    modules = sorted((folder / "modules/lib/modules").glob("*"))
    return Kernel(folder / "bzImage", modules[0] if modules else None)


def module(source: Path, ours: Kernel) -> Path:
    """Return a module of one file in C, built for a kernel of ours."""
    placed = ours.image.parent
    # a developer's tree has no headers apart: it is built there
    headers = placed / "headers" if (placed / "headers").is_dir() else placed.parent
    name = source.stem

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as work:
            shutil.copy(source, work)
            Path(work, "Makefile").write_text(f"obj-m := {name}.o\n")
            images.output("make", "-s", "-C", headers, f"M={work}", "modules")
            shutil.copy(Path(work, f"{name}.ko"), folder)

    config = (placed / "config").read_bytes()
    return images.once(name, ours.release.encode() + config + source.read_bytes(), build) / (
        f"{name}.ko"
    )


def compare(vm: Guest, wanted: str = "Y") -> bool:
    """Have the kernel compare each page that was copied in a batch, just before it is used.

    Return whether it can: one with layer debug can, what is shipped and measured cannot.
    """
    there = vm.run("test", "-e", COMPARES).code == 0
    if there:
        vm.write(COMPARES, wanted)
    return there


def knob(vm: Guest, name: str, value: int | str) -> None:
    """Write a knob of /proc/sys/vm."""
    vm.write(f"/proc/sys/vm/{name}", f"{value}\n")


def control_group(vm: Guest) -> None:
    """Give the guest a control group ``tests`` in ``CGROUP``, whose memory is accounted for."""
    vm.sh(
        """mkdir -p "$1"; mount -t cgroup2 none "$1"; echo +memory >"$1/cgroup.subtree_control"
        mkdir "$1/tests" """,
        CGROUP,
    )


@contextmanager
def knobs(vm: Guest, **values: int) -> Iterator[None]:
    """Have knobs of /proc/sys/vm at these values meanwhile."""
    before = {name: vm.read(f"/proc/sys/vm/{name}") for name in values}
    for name, value in values.items():
        knob(vm, name, value)
    yield
    for name, found in before.items():
        knob(vm, name, found)


@contextmanager
def traced(vm: Guest, *events: str) -> Iterator[list[str]]:
    """Have the kernel trace events meanwhile, and yield a list that has its lines after that."""
    lines: list[str] = []
    vm.write(f"{TRACING}/trace", "")
    for event in events:
        vm.write(f"{TRACING}/events/{event}/enable", "1")
    yield lines
    for event in events:
        vm.write(f"{TRACING}/events/{event}/enable", "0")
    lines += vm.read(f"{TRACING}/trace").splitlines()


def counters(vm: Guest) -> dict[str, int]:
    """Return the counters of /proc/vmstat."""
    lines = (line.split() for line in vm.read("/proc/vmstat").splitlines())
    return {name: int(value) for name, value in lines}


def since(vm: Guest, before: dict[str, int]) -> dict[str, int]:
    """Return how far the counters of copies and migrations have come."""
    after = counters(vm)
    return {
        name.removeprefix("migrate_copy_"): after[name] - before[name]
        for name in after
        if name.startswith(("migrate_copy_", "pgmigrate_", "pgdemote_", "thp_migration"))
    }
