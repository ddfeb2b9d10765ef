# SPDX-License-Identifier: Apache-2.0
"""Simulated hosts for tests, and the ways up and down that are right."""

from __future__ import annotations

import json
from typing import Any

from dsatier.host.port import Host
from dsatier.sim import spec
from dsatier.sim.host import SimHost

VM = "/proc/sys/vm/"
BALANCING = "/proc/sys/kernel/numa_balancing"
DEMOTION = "/sys/kernel/mm/numa/demotion_enabled"
RELEASES = {
    "ours": "6.12.63-dsatier",
    "tpp": "5.13.0-rc6-tpp",
    "memtis": "5.15.19-memtis",
    "stock": "6.12.117+deb13-amd64",
}


def host(kind: str = "ours", kernel: dict[str, Any] | None = None, **fields: Any) -> SimHost:
    """Return a small host: eight devices, a slow node without CPUs."""
    description = {
        "version": 1,
        "kernel": {"release": RELEASES[kind], "kind": kind, **(kernel or {})},
        "nodes": [{"cpus": "0-7", "memory": 16, "used": 2}, {"memory": 16, "used": 1}],
        "devices": 8,
        **fields,
    }
    return SimHost.of(spec.parse(json.dumps(description)))


def config(devices: int, first: int = 0, **queue: Any) -> str:
    """Return an accel-config file: one dedicated kernel queue on each device."""
    rows = [
        {
            "dev": f"dsa{i}",
            "groups": [
                {
                    "dev": f"group{i}.0",
                    "grouped_workqueues": [
                        {
                            "dev": f"wq{i}.0",
                            "mode": "dedicated",
                            "size": 128,
                            "group_id": 0,
                            "type": "kernel",
                            "name": "dsatier",
                            "driver_name": "dmaengine",
                            "max_batch_size": 1024,
                            "max_transfer_size": 2097152,
                            **queue,
                        }
                    ],
                    "grouped_engines": [{"dev": f"engine{i}.0", "group_id": 0}],
                }
            ],
        }
        for i in range(first, first + devices)
    ]
    return json.dumps(rows)


def load(h: SimHost, text: str) -> int:
    """Load an accel-config file; return the exit code."""
    h.keep("/run/dsatier/queues.json", text)
    argv = ("accel-config", "load-config", "-c", "/run/dsatier/queues.json", "-e")
    return h.run(argv, 30.0).code


def put(h: Host, name: str, value: int | str) -> None:
    """Write a knob under /proc/sys/vm, or a file by its path."""
    h.write(name if name.startswith("/") else VM + name, f"{value}\n", 10.0)


def get(h: Host, name: str) -> str:
    """Read a knob under /proc/sys/vm, or a file by its path."""
    return h.read(name if name.startswith("/") else VM + name).strip()


def ready(kind: str, queues: int = 8, **fields: Any) -> SimHost:
    """Return a host whose queues are on and whose engine is off."""
    h = host(kind, **fields)
    assert 0 == load(h, config(queues))
    return h


def live(kind: str, chans: int = 8, **fields: Any) -> SimHost:
    """Return a host whose engine runs."""
    h = ready(kind, **fields)
    if chans != 8:
        put(h, "limit_chans", chans)
    put(h, "dsa_state", 1)
    put(h, "use_dsa_copy_pages", 1)
    return h


def kinds(h: SimHost) -> list[str]:
    """Return the kinds of harm done, in order."""
    return [harm.kind for harm in h.harm]
