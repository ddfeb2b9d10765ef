# SPDX-License-Identifier: Apache-2.0
"""A kernel boots, has a DSA copy, and turns the machine off; its log tells of no harm.

``kernel-src/scripts/series build TREE python -m tests.kernel.boots`` does so after each patch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.vm.booting import ACCEL_CONFIG, guest
from tests.vm.guest import GuestError
from tests.vm.idxd import channels, configuration, dmatest, load
from tests.vm.kernel import Kernel
from tests.vm.machine import Dsa, Machine

COPIES = 20


def tried(kernel: Kernel) -> float:
    """Boot a kernel and turn it off; return the seconds that it took to boot.

    Raises GuestError for harm, for copies that fail and for a machine that stays on.
    """
    wanted = Machine(dsa=(Dsa(),))
    with guest(wanted, kernel=kernel, load=["idxd", "dmatest"], programs=[ACCEL_CONFIG]) as vm:
        if vm.release != kernel.release:
            raise GuestError(f"expected the kernel {kernel.release}, found {vm.release}")
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
    print(f"boots: {kernel.release}: booted in {seconds:.0f} s, copied, went off", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
