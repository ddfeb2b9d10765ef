# SPDX-License-Identifier: Apache-2.0
"""dsa-dump in a guest: the same twice, the same with and without an IOMMU but for the IOMMU."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.emulator.descriptors import Status
from tests.emulator.dump.diff import differences
from vm.booting import guest
from vm.guest import Guest
from vm.machine import Dsa, Machine, Node

pytestmark = pytest.mark.system

SOURCE = Path(__file__).parent / "dsa-dump.c"
MODULES = ("vfio_iommu_type1", "vfio_pci")
#: A machine whose memory costs little to start.
SMALL = (Node(cpus=1, memory=512),)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dsa-dump, for any Linux."""
    path = tmp_path_factory.mktemp("dump") / "dsa-dump"
    words = ("-O2", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-Werror", "-static")
    subprocess.run(["cc", *words, "-o", str(path), str(SOURCE)], check=True)
    return path


def booted(program: Path, machine: Machine) -> Guest:
    """Return a guest that has the program."""
    return guest(machine, carry=MODULES, files={"/bin/dsa-dump": program})


def found_dsa(vm: Guest) -> str:
    """Return the address of the DSA on the guest's PCI bus."""
    (line,) = vm.sh("grep -l 0x0b25 /sys/bus/pci/devices/*/device").split()
    return line.split("/")[-2]


def give_to_vfio(vm: Guest) -> str:
    """Bind the DSA to vfio-pci, which does not want it by itself; returns its address."""
    vm.ok("modprobe", "vfio_iommu_type1")
    vm.ok("modprobe", "vfio_pci", "disable_denylist=1")
    address = found_dsa(vm)
    vm.write(f"/sys/bus/pci/devices/{address}/driver_override", "vfio-pci")
    vm.write("/sys/bus/pci/drivers_probe", address)
    return address


def dump(vm: Guest, *words: str) -> dict[str, Any]:
    """Return a dump."""
    vm.allow("DMAR", "some descriptors of the set meet pages that are not mapped")
    vm.allow("dmar_fault", "the same")
    found: dict[str, Any] = json.loads(vm.ok("/bin/dsa-dump", *words))
    return found


@pytest.fixture(scope="module")
def translated(program: Path) -> Iterator[tuple[Guest, str]]:
    """A guest with an IOMMU, and a device that VFIO has."""
    machine = Machine(nodes=SMALL, dsa=(Dsa(),), iommu="translated")
    with booted(program, machine) as vm:
        yield vm, give_to_vfio(vm)


def test_a_dump_is_the_same_twice(translated: tuple[Guest, str]) -> None:
    """To the byte: nothing in it is of the moment."""
    vm, address = translated
    first, second = dump(vm, address), dump(vm, address)
    assert [] == differences(first, second)
    assert first["translated"]


def test_what_is_in_a_dump(translated: tuple[Guest, str]) -> None:
    """Some records that every DSA must give."""
    vm, address = translated
    found = dump(vm, address)["descriptors"]
    status = {name: entry["record"]["status"] for name, entry in found.items()}
    wanted = {
        "noop": Status.SUCCESS,
        "move 64 KiB": Status.SUCCESS,
        "move nothing": Status.SIZE,
        "compare equal, expected different": Status.PREDICATE,
        "compare without a record on success": 0,
        "dualcast not aligned": Status.DUALCAST_ALIGN,
        "move from a page that is not there": Status.PAGE_FAULT,
        "move to a page that is not there": Status.PAGE_FAULT | 0x80,
        "operation 0xff": Status.BAD_OPCODE,
        "batch": Status.SUCCESS,
        "batch with a failure": Status.BATCH_FAIL,
        "batch of a list that is not there": Status.BATCH_FAULT,
    }
    assert wanted == {name: status[name] for name in wanted}
    assert len(found) > 80


def test_registers_only(translated: tuple[Guest, str]) -> None:
    """From sysfs, of a device that somebody else has; nothing is changed."""
    vm, address = translated
    whole, some = dump(vm, address), dump(vm, "--registers", address)
    assert "descriptors" not in some
    for name in ("version", "gencap", "wqcap", "opcap", "tables"):
        assert whole["registers"][name] == some["registers"][name]


def test_without_an_iommu(program: Path, translated: tuple[Guest, str]) -> None:
    """Physical addresses give the same, but for what needs an IOMMU."""
    vm, address = translated
    here = dump(vm, address)
    with booted(program, Machine(nodes=SMALL, dsa=(Dsa(),))) as bare:
        bare.write("/proc/sys/vm/nr_hugepages", "1")
        there = dump(bare, "--physical", found_dsa(bare))
    assert not there["translated"]
    found = {one.place for one in differences(here, there) if one.why is None}
    only = {"move from a page", "move to a page", "move out of the memory", "batch of a list"}
    assert {"translated"} == {
        place
        for place in found
        if not any(place.startswith(f"descriptors.{name}") for name in only)
    }


def test_a_device_that_is_not_there(translated: tuple[Guest, str]) -> None:
    """Says so."""
    vm, _ = translated
    for words in (("0000:00:1e.7",), ("--registers", "0000:00:1e.7")):
        ran = vm.run("/bin/dsa-dump", *words)
        assert (1, "") == (ran.code, ran.out)
        assert "0000:00:1e.7" in ran.err
    assert 64 == vm.run("/bin/dsa-dump").code
