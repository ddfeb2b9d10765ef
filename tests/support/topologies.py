# SPDX-License-Identifier: Apache-2.0
"""Twelve hosts as people have shown them in public, laid out as the kernel's files.

What was not shown is left out: distances are then the same everywhere. ``H`` is made up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

SYSFS = "sys/devices/system/node"
PLACES = {
    "cxl": "platform/ACPI0017:00/root0/decoder0.0/region{0}/dax_region{0}",
    "pmem": "LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region{0}/dax{0}.1",
    "hmem": "platform/hmem.{0}",
}


@dataclass(frozen=True)
class Device:
    """A DAX device that the kmem driver has."""

    number: int
    kind: str
    target: int
    near: int = -1


@dataclass(frozen=True)
class Topology:
    """A host: by node its CPUs as the kernel lists them, and its MiB."""

    nodes: dict[int, tuple[str, int]]
    distances: tuple[str, ...] = ()
    tiers: dict[int, str] = field(default_factory=dict)
    bandwidths: dict[int, int] = field(default_factory=dict)
    """MB/s from access1; the latency reads 0."""
    devices: tuple[Device, ...] = ()

    def lay(self, root: Path) -> None:
        """Write the files below ``root``."""
        cpus = ",".join(listed for listed, _ in self.nodes.values() if listed)
        for name in ("present", "online", "possible"):
            _put(root, f"sys/devices/system/cpu/{name}", cpus)
        for place, (number, (listed, size)) in enumerate(self.nodes.items()):
            folder = f"{SYSFS}/node{number}"
            flat = " ".join("10" if n == number else "20" for n in self.nodes)
            _put(root, f"{folder}/cpulist", listed)
            _put(root, f"{folder}/distance", self.distances[place] if self.distances else flat)
            rows = (("MemTotal", size), ("MemFree", size * 9 // 10))
            text = "".join(f"Node {number} {name}: {n << 10} kB\n" for name, n in rows)
            _put(root, f"{folder}/meminfo", text)
        for number, speed in self.bandwidths.items():
            folder = f"{SYSFS}/node{number}/access1/initiators"
            for way in ("read", "write"):
                _put(root, f"{folder}/{way}_bandwidth", str(speed))
                _put(root, f"{folder}/{way}_latency", "0")
        for tier, listed in self.tiers.items():
            _put(root, f"sys/devices/virtual/memory_tiering/memory_tier{tier}/nodelist", listed)
        for device in self.devices:
            _lay_device(root, device)
        _put(root, "proc/sys/kernel/osrelease", "6.12.63+deb13-amd64")
        _put(root, "proc/sys/kernel/hostname", "host1")
        _put(root, "proc/sys/kernel/random/boot_id", "11111111-2222-3333-4444-555555555555")
        _put(root, "proc/sys/kernel/numa_balancing", "0")
        _put(root, "sys/kernel/mm/numa/demotion_enabled", "false")
        _put(root, "dev/kmsg", "6,1,1,-;Linux version")


def _put(root: Path, path: str, text: str) -> None:
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"{text}\n", encoding="utf-8")


def _lay_device(root: Path, device: Device) -> None:
    name = f"dax{device.number}.0"
    place = f"devices/{PLACES[device.kind].format(device.number)}/{name}"
    _put(root, f"sys/{place}/target_node", str(device.target))
    _put(root, f"sys/{place}/numa_node", str(device.near))
    (root / "sys/bus/dax/drivers/kmem").mkdir(parents=True, exist_ok=True)
    (root / "sys/bus/dax/devices").mkdir(parents=True, exist_ok=True)
    (root / f"sys/bus/dax/devices/{name}").symlink_to(f"../../../{place}")
    up = "../" * (place.count("/") + 1)
    (root / f"sys/{place}/driver").symlink_to(f"{up}bus/dax/drivers/kmem")


SOCKETS = ("0-51,104-155", "52-103,156-207")
"""CPUs of a host with two sockets of 52 cores."""

TOPOLOGIES: dict[str, Topology] = {
    "A: two sockets and two CXL nodes by kmem, 6.1": Topology(
        {0: (SOCKETS[0], 64167), 1: (SOCKETS[1], 64472), 2: ("", 65536), 3: ("", 131072)},
        ("10 21 14 24", "21 10 24 14", "14 24 10 26", "24 14 26 10"),
        {4: "0-1", 22: "2-3"},
        devices=(Device(0, "cxl", 2, 0), Device(1, "cxl", 3, 1)),
    ),
    "B: two sockets and two CXL nodes as boot memory, 6.6": Topology(
        {0: ("0-11,24-35", 64000), 1: ("12-23,36-47", 64000), 2: ("", 96000), 3: ("", 96000)},
        tiers={4: "0-3"},
    ),
    "C: two sockets and a CXL node by HMAT, 6.12": Topology(
        {0: ("0-11,24-35", 64000), 1: ("12-23,36-47", 64000), 2: ("", 96000)},
        tiers={4: "0-1", 35: "2"},
    ),
    "D: four DRAM nodes and two of persistent memory": Topology(
        {
            **{n: (f"{12 * n}-{12 * n + 11}", 48000) for n in range(4)},
            4: ("", 500000),
            5: ("", 500000),
        },
        tiers={4: "0-3", 22: "4-5"},
        devices=(Device(0, "pmem", 4), Device(1, "pmem", 5)),
    ),
    "E: Xeon Max, flat": Topology(
        {0: (SOCKETS[0], 524288), 1: (SOCKETS[1], 524288), 2: ("", 65536), 3: ("", 65536)},
        ("10 21 13 23", "21 10 23 13", "13 23 10 23", "23 13 23 10"),
    ),
    "F: Xeon Max, SNC4 flat": Topology(
        {
            **{
                n: (f"{12 * n}-{12 * n + 11},{96 + 12 * n}-{107 + 12 * n}", 66048) for n in range(8)
            },
            **dict.fromkeys(range(8, 16), ("", 16384)),
        }
    ),
    "G: the example of the CXL documentation": Topology(
        {0: ("0-15", 65536), 1: ("16-31", 65536), 2: ("", 65536), 3: ("", 65536)},
        ("10 20 20 30", "20 10 30 20", "255 255 10 255", "255 255 255 10"),
    ),
    "H: HBM with and without CPUs, and persistent memory": Topology(
        {
            0: ("0-3", 4096),
            1: ("4-7", 4096),
            2: ("8-11", 1024),
            4: ("", 1024),
            **dict.fromkeys((6, 8, 9), ("", 16384)),
        },
        ("20 20 20 20 20 20 20",) * 7,
        bandwidths={0: 1000, 1: 1000, 2: 10000, 4: 10000, 6: 100, 8: 100, 9: 100},
        devices=(Device(5, "pmem", 6), Device(7, "pmem", 8), Device(8, "pmem", 9)),
    ),
    "I: one socket and memory that firmware has set aside": Topology(
        {0: ("0-15", 131072), 1: ("", 8192)},
        devices=(Device(0, "hmem", 1, 0),),
    ),
    "J: Threadripper, two of four nodes without memory": Topology(
        {0: ("0-7", 0), 1: ("8-15", 32768), 2: ("16-23", 32768), 3: ("24-31", 0)},
        ("10 12 12 12", "12 10 12 12", "12 12 10 12", "12 12 12 10"),
    ),
    "K: Knights Landing, SNC4 flat": Topology(
        {
            **{n: (f"{16 * n}-{16 * n + 15}", 24576) for n in range(4)},
            **dict.fromkeys(range(4, 8), ("", 4096)),
        },
        bandwidths={**dict.fromkeys(range(4), 22500), **dict.fromkeys(range(4, 8), 90000)},
    ),
    "L: two sockets, SNC4, no other memory": Topology(
        {n: (f"{14 * n}-{14 * n + 13}", 31744) for n in range(8)},
        tiers={4: "0-7"},
    ),
}
