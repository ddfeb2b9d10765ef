# SPDX-License-Identifier: Apache-2.0
"""A hostile program in a guest with Linux: several CPUs against one device at once.

Over qtest one order comes after another. Here registers, portals, descriptors and the memory that
the device reads change while it works, under an emulator whose CPUs are threads of their own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from vm import images
from vm.booting import guest
from vm.guest import Guest
from vm.machine import Dsa, Machine, Node, Property

SOURCE = Path(__file__).with_name("hostile.c")
PROGRAM = "/bin/hostile"
MODULES = ("vfio_iommu_type1", "vfio_pci")
DEVICES: tuple[Mapping[str, Property], ...] = (
    {},
    {"version": "2.0"},
    {"version": "2.0", "timing": True, "queues": 5, "engines": 2, "groups": 3, "entries": 64},
    {"int-handles": True, "max-transfer-shift": 16},
)
#: Attacks on a guest before a new one is started.
ROUNDS = 5
_DEVICES = "/sys/bus/pci/devices"


def attacked(properties: Mapping[str, Property], emulator: Path | None = None) -> Guest:
    """Return a guest with one device behind an IOMMU, and the program."""
    machine = Machine(
        nodes=(Node(cpus=3, memory=512),),
        dsa=(Dsa(properties=properties),),
        iommu="translated",
        threads="multi",
    )
    files = {PROGRAM: images.program(SOURCE)}
    return guest(machine, emulator=emulator, carry=MODULES, files=files, timeout=600)


def give_to_vfio(vm: Guest) -> str:
    """Bind the DSA to vfio-pci, which does not want it by itself; returns its address."""
    vm.ok("modprobe", "vfio_iommu_type1")
    vm.ok("modprobe", "vfio_pci", "disable_denylist=1")
    (line,) = vm.sh(f"grep -l 0x0b25 {_DEVICES}/*/device").split()
    address = line.split("/")[-2]
    vm.write(f"{_DEVICES}/{address}/driver_override", "vfio-pci")
    vm.write("/sys/bus/pci/drivers_probe", address)
    return address


def attack(vm: Guest, address: str, seed: int, seconds: int) -> Mapping[str, int]:
    """Have the program do its worst, and return how much that was.

    Raises GuestError where the emulator dies or the device does not come back.
    """
    vm.allow("", "it is the emulator that is judged: this kernel may complain of what it sees")
    before = vm.device("dsa0", "counters")["device"]
    words = (PROGRAM, address, str(seed), str(seconds))
    found: dict[str, int] = json.loads(vm.ok(*words, timeout=20 * seconds + 600))
    after = vm.device("dsa0", "counters")["device"]
    for name in ("descriptors", "batches", "members", "errors", "rejected"):
        found[name] = after[name] - before[name]
    vm.check()
    return found


def attacks(
    emulator: Path, seed: int, seconds: float, each: int = 60
) -> Iterator[Mapping[str, int]]:
    """Attack one kind of device after another, each for a while; yield how much that was.

    A seed gives the same program, not the same course: CPUs run side by side.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with attacked(DEVICES[seed // ROUNDS % len(DEVICES)], emulator) as vm:
            address = give_to_vfio(vm)
            for _ in range(ROUNDS):
                yield attack(vm, address, seed, each)
                seed += 1
                if time.monotonic() >= end:
                    break
