# SPDX-License-Identifier: Apache-2.0
"""Memory that a driver brings in, and how fast a node's memory is."""

from __future__ import annotations

from typing import Literal

from dsatier.base.text import natural
from dsatier.facts.model import MemoryDevice, Speed
from dsatier.facts.observe import parse
from dsatier.facts.observe.read import optional
from dsatier.facts.observe.topology import NODES
from dsatier.host.port import Host

DEVICES = "/sys/bus/dax/devices"


def devices(host: Host) -> tuple[MemoryDevice, ...]:
    """Return the DAX devices."""
    names = sorted(host.entries(DEVICES), key=natural)
    return tuple(_device(host, name) for name in names if name.startswith("dax"))


def _device(host: Host, name: str) -> MemoryDevice:
    folder = f"{DEVICES}/{name}"
    driver = host.link(f"{folder}/driver") or ""
    return MemoryDevice(
        id=name,
        kind=kind(host.link(folder) or ""),
        driver=driver.rpartition("/")[2],
        target_node=_number(host, f"{folder}/target_node"),
        numa_node=_number(host, f"{folder}/numa_node"),
    )


def kind(place: str) -> Literal["cxl", "pmem", "hmem", "other"]:
    """Return what a device hangs on, by where sysfs has it.

    >>> kind("../../../devices/platform/ACPI0017:00/root0/decoder0.0/region0/dax_region0/dax0.0")
    'cxl'
    """
    parts = place.split("/")
    if any(part.startswith("hmem") for part in parts):
        return "hmem"
    if any(part.startswith("ndbus") for part in parts):
        return "pmem"
    if any(part.startswith(("decoder", "cxl")) for part in parts):
        return "cxl"
    return "other"


def _number(host: Host, path: str) -> int:
    text = optional(host, path)
    return -1 if text is None else parse.whole(text.strip(), path)


def speed(host: Host, node: int) -> Speed | None:
    """Return how fast a node's memory is for the nearest CPUs, None where nothing tells.

    ``access0`` stands for the nearest initiator of any kind, a GPU too.
    """
    folder = f"{NODES}/node{node}/access1/initiators"
    if optional(host, f"{folder}/read_bandwidth") is None:
        return None
    sums = {
        what: sum(max(0, _number(host, f"{folder}/{way}_{what}")) for way in ("read", "write"))
        for what in ("latency", "bandwidth")
    }
    return Speed(**sums)
