# SPDX-License-Identifier: Apache-2.0
"""Files in memory and the facts of a host, for the tests of profiles."""

from __future__ import annotations

import posixpath
from typing import Any

from dsatier.host.port import Missing, Rejected


class FilesInMemory:
    """The part of a host that drop-ins need: files, links and folders, by path."""

    def __init__(
        self, files: dict[str, str], links: dict[str, str] | None = None, broken: str = ""
    ) -> None:
        self.files = files
        self.links = links or {}
        self.broken = broken
        self.written_by: dict[str, str] = {}

    def entries(self, path: str) -> tuple[str, ...]:
        names = (*self.files, *self.links, *([self.broken] if self.broken else []))
        return tuple(sorted(posixpath.basename(n) for n in names if posixpath.dirname(n) == path))

    def read(self, path: str) -> str:
        if path == self.broken:
            raise Rejected(path, 5, "input/output error")
        target = self.links.get(path, path)
        if target not in self.files:
            raise Missing(target, "no such file")
        return self.files[target]

    def others(self, path: str) -> str:
        return self.written_by.get(path, "")

    def link(self, path: str) -> str | None:
        return self.links.get(path)


FACTS: dict[str, Any] = {
    "schema_version": 1,
    "hostname": "db-07",
    "cpu_model": "Intel(R) Xeon(R) Platinum 8468",
    "kernel": {
        "release": "6.12.117-dsatier",
        "family": "ours",
        "abi": 1,
        "boot_id": "0c1d",
        "cmdline": ["iommu=pt"],
        "config": {"CONFIG_NUMA": "y"},
        "evl_guard": True,
    },
    "iommu": "passthrough",
    "scalable_mode": True,
    "nodes": [
        {
            "id": 0,
            "cpus": [0, 1],
            "distances": [10, 20],
            "mem_total": 1 << 36,
            "mem_free": 1 << 35,
            "tier": None,
            "demotion_watermark": None,
            "demotion_target": None,
            "speed": None,
        },
        {
            "id": 1,
            "cpus": [2, 3],
            "distances": [20, 10],
            "mem_total": 1 << 36,
            "mem_free": 1 << 35,
            "tier": None,
            "demotion_watermark": None,
            "demotion_target": None,
            "speed": None,
        },
    ],
    "offline_cpus": [],
    "pinned_cpus": [0],
    "smt": "",
    "second_threads": [],
    "elsewhere": [],
    "unbound": [{"pci": "0000:e7:01.0", "group": None}],
    "unit_lacks": ["CAP_SYS_RAWIO"],
    "memory_devices": [],
    "knobs": {"dsa_state": "0"},
    "timer": {"timer_state": 0},
    "devices": [
        {
            "id": "dsa0",
            "pci": "0000:6a:01.0",
            "state": "enabled",
            "numa_node": 0,
            "version": 256,
            "event_log": False,
            "clients": 0,
            "errors": "",
            "max_groups": 4,
            "max_engines": 4,
            "max_queues": 8,
            "max_queue_entries": 128,
            "max_batch_size": 1024,
            "max_transfer_size": 1 << 31,
            "engines": [0, 0, 0, 0],
            "queues": [
                {
                    "id": "wq0.0",
                    "state": "enabled",
                    "type": "kernel",
                    "mode": "dedicated",
                    "name": "dsatier",
                    "driver_name": "dmaengine",
                    "group": 0,
                    "size": 128,
                    "priority": 10,
                    "threshold": 0,
                    "block_on_fault": False,
                    "max_batch_size": 128,
                    "max_transfer_size": 1 << 21,
                    "clients": 0,
                }
            ],
            "group": {
                "id": "7",
                "type": "DMA-FQ",
                "others": [{"pci": "0000:6a:00.0", "driver": "pcieport"}],
            },
        }
    ],
    "channels": [{"id": "dma0chan0", "queue": "wq0.0", "in_use": 0}],
    "swaps": [{"path": "/dev/vda2", "size": 1 << 30, "used": 0, "priority": -2}],
    "accel_config": "3.5.3",
    "others": [{"tool": "TuneD", "path": "/etc/tuned/active_profile", "items": ["cpus"]}],
    "dsa_released": False,
    "boot_taint": 0,
    "kernel_log": True,
}
