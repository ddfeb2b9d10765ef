# SPDX-License-Identifier: Apache-2.0
"""The client, on devices that QEMU has had for long."""

from __future__ import annotations

import pytest

from tests.emulator.conftest import firmware
from tests.emulator.qtest import Machine, Pci, QemuError

pytestmark = pytest.mark.system
VIRTIO = "virtio-serial-pci,addr=5"


def test_memory_is_what_was_written(emulator: str) -> None:
    """All widths, little endian, and pieces of any length."""
    with Machine(emulator, *firmware()) as machine:
        machine.write64(0x1000, 0x0807060504030201)
        assert bytes(range(1, 9)) == machine.read(0x1000, 8)
        assert (0x01, 0x0201, 0x04030201, 0x0807060504030201) == (
            machine.read8(0x1000),
            machine.read16(0x1000),
            machine.read32(0x1000),
            machine.read64(0x1000),
        )
        data = bytes(range(256)) * 5000
        machine.write(0x20_0001, data)
        assert data == machine.read(0x20_0001, len(data))
        machine.clear(0x20_0003, 4, 0xEE)
        assert data[:2] + b"\xee" * 4 + data[6:10] == machine.read(0x20_0001, 10)
        assert b"" == machine.read(0x1000, 0)


def test_the_clock_stands_still(emulator: str) -> None:
    """Virtual time moves when it is told to."""
    with Machine(emulator, *firmware()) as machine:
        before = machine.step(1)
        assert before + 1_000_000 == machine.step(1_000_000)
        assert before + 1_000_001 == machine.step(1)


def test_a_pci_device(emulator: str) -> None:
    """Configuration space, capabilities and a BAR."""
    with Machine(emulator, *firmware(), "-device", VIRTIO) as machine:
        assert (0x8086, 0x29C0) == (machine.pci(0).vendor, machine.pci(0).device)
        device = machine.pci(5)
        assert 0x1AF4 == device.vendor
        assert None is device.capability(Pci.EXPRESS)
        at = device.capability(Pci.MSIX)
        assert at is not None
        table = device.bar(device.get32(at + 4) & 7) + (device.get32(at + 4) & ~7)
        device.enable()
        machine.write32(table + 8, 0x12345678)  # a vector's data
        assert 0x12345678 == machine.read32(table + 8)
        device.disable()
        assert 0x12345678 != machine.read32(table + 8)
        with pytest.raises(QemuError, match="no PCI device at 00:06"):
            machine.pci(6)
        with pytest.raises(QemuError, match="no BAR 2"):
            device.bar(2)


def test_qom_and_errors_of_the_monitor(emulator: str) -> None:
    """Properties, and what is refused says why."""
    with Machine(emulator, *firmware(), "-device", f"{VIRTIO},id=port") as machine:
        assert machine.get("/machine/peripheral/port", "realized") is True
        with pytest.raises(QemuError, match="no-such"):
            machine.get("/machine/peripheral/port", "no-such")
        assert "running" == machine.qmp("query-status")["status"]


def test_a_machine_that_does_not_start_says_why(emulator: str) -> None:
    """What QEMU wrote is in the error."""
    with pytest.raises(QemuError, match="no-such-device"):
        Machine(emulator, *firmware(), "-device", "no-such-device")


def test_a_machine_that_is_gone_is_told(emulator: str) -> None:
    """A crash in the middle is an error of the order that met it, and of the end."""
    machine = Machine(emulator, *firmware())
    machine.qmp("quit")
    with pytest.raises(QemuError, match="does not answer"):
        for _ in range(1000):
            machine.read(0x1000, 1)
    machine.until("the end of QEMU", lambda: not machine.alive())
    machine.close()
