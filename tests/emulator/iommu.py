# SPDX-License-Identifier: Apache-2.0
"""Page tables for QEMU's emulated Intel IOMMU, in legacy mode.

Registers and tables are those of Intel's VT-d, as Linux's ``drivers/iommu/intel`` uses them.
"""

from __future__ import annotations

import struct

from tests.emulator.qtest import Machine, Pci

#: Words that add an IOMMU to a machine.
WORDS = ("-device", "intel-iommu,intremap=off")

_REGISTERS = 0xFED9_0000
_ECAP, _GCMD, _GSTS, _RTADDR, _CCMD, _FSTS = 0x10, 0x18, 0x1C, 0x20, 0x28, 0x34
_TRANSLATE, _ROOT = 1 << 31, 1 << 30
_PAGE = 4096
_LEAF = 512 * _PAGE  # what one table of the last level maps
#: Guest memory for tables.
TABLES, TABLES_END = 0x80_0000, 0xC0_0000
READ, WRITE = 1, 2


class Iommu:
    """An IOMMU with one domain, which all devices given to it share."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        ecap = machine.read64(_REGISTERS + _ECAP)
        self._iotlb = _REGISTERS + (ecap >> 8 & 0x3FF) * 16 + 8
        self.forget()

    def forget(self) -> None:
        """Begin with new tables: nothing is mapped, and no device has a domain."""
        self._next = TABLES
        self._root, self._contexts, self._top = self._table(), self._table(), self._table()
        self.machine.write64(self._root, self._contexts | 1)

    def _table(self) -> int:
        at, self._next = self._next, self._next + _PAGE
        assert at < TABLES_END, "no room for page tables"
        self.machine.clear(at, _PAGE)
        return at

    def _leaf(self, iova: int) -> int:
        """Return where the entry for a page is, with the tables above it."""
        table = self._top
        for shift in (30, 21):
            entry = table + 8 * (iova >> shift & 511)
            found = self.machine.read64(entry)
            if not found:
                found = self._table() | READ | WRITE
                self.machine.write64(entry, found)
            table = found & ~0xFFF
        return table + 8 * (iova >> 12 & 511)

    def map(self, iova: int, address: int, access: int = READ | WRITE) -> None:
        """Let a page of I/O addresses (below 512 GiB) lead to a page of memory."""
        self.machine.write64(self._leaf(iova), address & ~0xFFF | access)

    def unmap(self, iova: int) -> None:
        """Let a page lead nowhere, also for what was translated before."""
        self.machine.write64(self._leaf(iova), 0)
        self.flush()

    def identity(self, start: int, end: int) -> None:
        """Let I/O addresses of a range be memory's own."""
        while start < end:
            stop = min(end, start // _LEAF * _LEAF + _LEAF)
            entries = [page | READ | WRITE for page in range(start, stop, _PAGE)]
            self.machine.write(self._leaf(start), struct.pack(f"<{len(entries)}Q", *entries))
            start = stop

    def take(self, device: Pci, *, passthrough: bool = False) -> None:
        """Translate what a device of bus 0 sends, or let it pass as it is."""
        at = self._contexts + 16 * (device.slot << 3 | device.function)
        self.machine.write64(at + 8, 1 << 8 | 1)  # domain 1, three levels
        self.machine.write64(at, self._top | passthrough << 3 | 1)

    def flush(self) -> None:
        """Have all that was translated forgotten."""
        self.machine.write64(_REGISTERS + _CCMD, 1 << 63 | 1 << 61)
        self.machine.write64(self._iotlb, 1 << 63 | 1 << 60)

    def enable(self) -> None:
        """Begin to translate."""
        self.machine.write64(_REGISTERS + _RTADDR, self._root)
        self._command(_ROOT)
        self.flush()
        self._command(_TRANSLATE)

    def disable(self) -> None:
        """Translate no more."""
        self.machine.write32(_REGISTERS + _GCMD, 0)

    def _command(self, bit: int) -> None:
        self.machine.write32(_REGISTERS + _GCMD, bit)
        self.machine.until(
            f"IOMMU command {bit:#x}",
            lambda: bool(self.machine.read32(_REGISTERS + _GSTS) & bit),
        )

    def faulted(self) -> bool:
        """Say whether the IOMMU has recorded a fault."""
        return bool(self.machine.read32(_REGISTERS + _FSTS) & 2)
