# SPDX-License-Identifier: Apache-2.0
"""Our kernel, the programs that are run on it, and what it says of itself."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.vm import images
from tests.vm.booting import guest
from tests.vm.guest import BOOT, Guest
from tests.vm.kernel import Kernel
from tests.vm.machine import Machine, Node

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "kernel-src/scripts/build"
BENCH = HERE.parents[1] / "kernel-src/bench"
"""The benchmark of page copies."""
MACHINE = Machine(nodes=(Node(cpus=4, memory=768), Node(memory=768)))
"""Four CPUs, so that there are idle ones for threads."""
CGROUP = "/tmp/cgroup"
TRACING = "/sys/kernel/debug/tracing"
PROGRAMS = ("pages", "knobs", "moves", "bad")
ANY_MTHP = "/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled"


def kernel(*options: str, folder: Path | None = None) -> Kernel:
    """Return our kernel, built where it has to be. ``options`` are those of the build.

    ``folder`` or DSATIER_KERNEL names one as the build makes it, to try what was built by hand.
    """
    given = folder or (None if options else os.environ.get("DSATIER_KERNEL"))
    folder = Path(given or images.output(BUILD, *options).splitlines()[-1])
    modules = sorted((folder / "modules/lib/modules").glob("*"))
    return Kernel(folder / "bzImage", modules[0] if modules else None)


def program(name: str) -> Path:
    """Return a program of this folder, or the benchmark's, which is called ``moves``."""
    return images.program((BENCH if name == "moves" else HERE) / f"{name}.c")


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


@contextmanager
def booted(
    machine: Machine = MACHINE,
    *,
    options: Sequence[str] = (),
    folder: Path | None = None,
    load: Sequence[str] = (),
    programs: Sequence[Path] = (),
    timeout: float = BOOT,
) -> Iterator[Guest]:
    """Yield a guest with our kernel and the programs of this folder.

    Its kernel compares each page that was copied in a batch once more, just before it is used.
    """
    files = {f"/bin/{name}": program(name) for name in PROGRAMS}
    with guest(
        machine,
        kernel=kernel(*options, folder=folder),
        load=load,
        programs=programs,
        files=files,
        timeout=timeout,
    ) as vm:
        vm.write("/sys/kernel/debug/migrate_copy_verify", "Y")
        yield vm


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


def run_pages(vm: Guest, *words: str, timeout: float = 300.0) -> dict[str, int]:
    """Run the program ``pages``, which checks every byte, and return its counts."""
    out = vm.ok("pages", *words, timeout=timeout)
    pairs = (word.split("=") for word in out.splitlines()[-1].split())
    return {name: int(value) for name, value in pairs}
