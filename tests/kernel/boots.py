# SPDX-License-Identifier: Apache-2.0
"""A kernel boots, moves pages, has a DSA copy, and turns the machine off without a word of harm.

``kernel-src/scripts/series build TREE python -m tests.kernel.boots`` does so after each patch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.kernel.engine import EVERYBODY
from tests.kernel.ours import program, run_pages
from vm.booting import ACCEL_CONFIG, guest
from vm.guest import Guest, GuestError
from vm.idxd import channels, configuration, dmatest, load
from vm.kernel import Kernel
from vm.machine import Dsa, Machine
from vm.ours import counters, knob, since

COPIES = 20
MIB = 16
KNOBS = {"migrate_batch_reasons": EVERYBODY, "cpu_multi_copy_pages": 1, "demote_scale_factor": 1000}
"""What our patches do, turned on. A kernel has the knobs of the patches that it was built with."""


def move(vm: Guest) -> None:
    """Have pages of two sizes go to and fro while they are written; every byte is checked."""
    there = set(vm.ok("ls", "/proc/sys/vm").split())
    for name, value in KNOBS.items():
        if name in there:
            knob(vm, name, value)
    before = counters(vm)
    run_pages(vm, "mixed", "move_pages", f"{MIB}", "0", "write", "remote")
    moved = since(vm, before)["pgmigrate_success"]
    if moved < MIB * 256:
        raise GuestError(f"expected {MIB} MiB to move there and back, found {moved} pages moved")


def tried(kernel: Kernel) -> float:
    """Boot a kernel and turn it off; return the seconds that it took to boot.

    Raises GuestError for harm, for pages that do not move or change, for copies that fail and for a
    machine that stays on.
    """
    with guest(
        Machine(dsa=(Dsa(),)),
        kernel=kernel,
        load=["idxd", "dmatest"],
        programs=[ACCEL_CONFIG],
        files={"/bin/pages": program("pages")},
    ) as vm:
        if vm.release != kernel.release:
            raise GuestError(f"expected the kernel {kernel.release}, found {vm.release}")
        move(vm)
        load(vm, configuration(1))
        found = [
            (each.tests, each.failures) for each in dmatest(vm, channels(vm), iterations=COPIES)
        ]
        if found != [(COPIES, 0)]:
            raise GuestError(f"expected {COPIES} copies and no failure, found {found}")
        vm.power_off()
    return vm.booted_in


def main(argv: Sequence[str] | None = None) -> int:
    """Try the kernel of a folder that kernel-src/scripts/build printed. Returns an exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.kernel.boots", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("folder", type=Path)
    kernel = Kernel.built(parser.parse_args(argv).folder)
    try:
        seconds = tried(kernel)
    except GuestError as error:
        print(f"boots: {kernel.release}: {error}", file=sys.stderr)
        return 1
    print(
        f"boots: {kernel.release}: up in {seconds:.0f} s, moved, copied, went off", file=sys.stderr
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
