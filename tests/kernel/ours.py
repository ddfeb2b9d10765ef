# SPDX-License-Identifier: Apache-2.0
"""Guests with our kernel and the programs that are run on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vm import images
from vm.booting import guest
from vm.guest import BOOT, Guest
from vm.machine import Machine, Node
from vm.ours import BENCH, compare, kernel

HERE = Path(__file__).resolve().parent
MACHINE = Machine(nodes=(Node(cpus=4, memory=768), Node(memory=768)))
"""Four CPUs, so that there are idle ones for threads."""
ELSEWHERE = {"moves": BENCH, "hold": images.REPOSITORY / "lab"}
PROGRAMS = ("pages", "knobs", "moves", "bad")
ANY_MTHP = "/sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled"


def program(name: str) -> Path:
    """Return a program of this folder, or one that the benchmark or the lab has."""
    return images.program(ELSEWHERE.get(name, HERE) / f"{name}.c")


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

    Its kernel compares each page that was copied in a batch once more, where it can.
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
        compare(vm)
        yield vm


def run_pages(vm: Guest, *words: str, timeout: float = 300.0) -> dict[str, int]:
    """Run the program ``pages``, which checks every byte, and return its counts."""
    out = vm.ok("pages", *words, timeout=timeout)
    pairs = (word.split("=") for word in out.splitlines()[-1].split())
    return {name: int(value) for name, value in pairs}
