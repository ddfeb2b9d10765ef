# SPDX-License-Identifier: Apache-2.0
"""``make vm``: a shell in a guest with two tiers, DSA devices and accel-config.

``DEVICES`` is how many (8), ``VERSION`` theirs (1.0, or 2.0 with event logs), ``IOMMU`` off,
passthrough or translated, ``KERNEL`` a folder that kernel-src/scripts/build printed in place of
Debian's own kernel, ``CPUS`` and ``MEMORY`` (MiB) those of the fast tier.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from vm import images, shell
from vm.booting import ACCEL_CONFIG, guest
from vm.guest import GuestError
from vm.idxd import configuration
from vm.kernel import Kernel
from vm.machine import Dsa, Iommu, Machine, Node

IOMMUS: tuple[Iommu, ...] = ("off", "passthrough", "translated")
_GREETING = """\
{count} DSA devices of version {version}, IOMMU {iommu}, two tiers. Try:
    accel-config load-config -c /root/queues.json -e    # one queue on each device
    accel-config list
    insmod /lib/dmatest.ko iterations=100 threads_per_chan=2 run=1 && dmesg | tail
    cat /sys/devices/virtual/memory_tiering/*/nodelist
"exit" or ctrl-d ends the guest.
"""


def chosen(environment: dict[str, str]) -> Machine:
    """Return the guest that variables ask for. Raises ValueError."""
    iommu = environment.get("IOMMU") or "off"
    for known in IOMMUS:
        if known == iommu:
            break
    else:
        raise ValueError(f"IOMMU: expected {', '.join(IOMMUS)}, found {iommu}")
    version = environment.get("VERSION") or "1.0"
    if version not in ("1.0", "2.0"):
        raise ValueError(f"VERSION: expected 1.0 or 2.0, found {version}")
    count = number(environment, "DEVICES", 8, 0, 16)
    cpus = number(environment, "CPUS", 2, 1, 64)
    fast = Node(cpus, number(environment, "MEMORY", 1024, 512, 1 << 20))
    devices = tuple(Dsa(node=2 * n // count, properties={"version": version}) for n in range(count))
    return Machine(
        nodes=(fast, Node()),
        dsa=devices,
        iommu=known,
        extra=shell.CONSOLE,
    )


def number(environment: dict[str, str], name: str, default: int, low: int, high: int) -> int:
    """Return a variable that is a number. Raises ValueError."""
    text = environment.get(name) or str(default)
    if not text.isdecimal() or not low <= int(text) <= high:
        raise ValueError(f"{name}: expected a number from {low} to {high}, found {text}")
    return int(text)


def main() -> int:
    """Boot the guest, hand the terminal to its shell, and return when that ends."""
    try:
        machine = chosen(dict(os.environ))
        given = os.environ.get("KERNEL")
        kernel = Kernel.built(Path(given)) if given else images.debian_kernel()
        count = len(machine.dsa)
        text = _GREETING.format(
            count=count,
            version=os.environ.get("VERSION") or "1.0",
            iommu=machine.iommu,
        )
        files: dict[str, Path | bytes] = {shell.PROFILE: shell.profile("vm", text)}
        files["/root/queues.json"] = configuration(max(count, 1)).encode()
        if not given:
            files["/lib/dmatest.ko"] = images.dmatest(kernel)
        vm = guest(machine, kernel=kernel, load=["idxd"], programs=[ACCEL_CONFIG], files=files)
        with vm.on_terminal():
            ended = shell.work(vm, "sh", "-i")
    except (GuestError, ValueError, images.Missing, subprocess.CalledProcessError) as error:
        print(f"vm: {error}", file=sys.stderr)
        return 1
    print(ended.err, end="", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
