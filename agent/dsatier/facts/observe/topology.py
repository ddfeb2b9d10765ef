# SPDX-License-Identifier: Apache-2.0
"""Nodes, CPUs and memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from dsatier.facts.model import NumaNode, Speed
from dsatier.facts.observe import parse
from dsatier.facts.observe.read import optional
from dsatier.host.port import Host, Missing

NODES = "/sys/devices/system/node"
CPUS = "/sys/devices/system/cpu"
TIERS = "/sys/devices/virtual/memory_tiering"
_UNTOLD = parse.Demotion(None, None)


def nodes(
    host: Host,
    demotion: Mapping[int, parse.Demotion],
    speed: Callable[[int], Speed | None],
) -> tuple[NumaNode, ...]:
    """Return the nodes by number, with what is known of their demotion; () without NUMA."""
    names = (name.removeprefix("node") for name in host.entries(NODES) if name.startswith("node"))
    numbers = sorted(int(name) for name in names if name.isdecimal())
    level = tiers(host)
    found = [
        node(host, number, level.get(number), demotion.get(number, _UNTOLD)) for number in numbers
    ]
    # firmware's numbers come with the first memory of a node
    return tuple(
        replace(one, speed=speed(one.id) if one.mem_total else None)
        for one in found
        if one is not None
    )


def node(host: Host, number: int, tier: int | None, demotion: parse.Demotion) -> NumaNode | None:
    """Return a node of that tier and demotion, None where it went away meanwhile."""
    folder = f"{NODES}/node{number}"
    try:
        memory = host.read(f"{folder}/meminfo")
        return NumaNode(
            id=number,
            cpus=parse.cpus(host.read(f"{folder}/cpulist"), f"{folder}/cpulist"),
            distances=parse.numbers(host.read(f"{folder}/distance"), f"{folder}/distance"),
            mem_total=parse.kilobytes(memory, "MemTotal", f"{folder}/meminfo"),
            mem_free=parse.kilobytes(memory, "MemFree", f"{folder}/meminfo"),
            tier=tier,
            demotion_watermark=demotion.watermark,
            demotion_target=demotion.target,
        )
    except Missing:
        return None


def tiers(host: Host) -> dict[int, int]:
    """Return the memory tier of each node that is in one; a kernel before 6.1 shows none."""
    found: dict[int, int] = {}
    for name in host.entries(TIERS):
        level = name.removeprefix("memory_tier")
        path = f"{TIERS}/{name}/nodelist"
        if level.isdecimal() and (listed := optional(host, path)) is not None:
            found |= dict.fromkeys(parse.cpus(listed, path), int(level))
    return found


def present(host: Host) -> tuple[int, ...]:
    """Return the CPUs that are in their sockets."""
    path = f"{CPUS}/present"
    return parse.cpus(optional(host, path) or "", path)


def offline(host: Host) -> tuple[int, ...]:
    """Return the CPUs that are there and not online.

    The kernel's own list of offline CPUs names those as well that could be plugged in.
    """
    there = present(host)
    path = f"{CPUS}/online"
    online = optional(host, path)
    if online is None:
        return ()
    on = set(parse.cpus(online, path))
    return tuple(cpu for cpu in there if cpu not in on)


def pinned(host: Host) -> tuple[int, ...]:
    """Return the CPUs that cannot go offline. One file for each CPU: not for every look."""
    return tuple(cpu for cpu in present(host) if optional(host, f"{CPUS}/cpu{cpu}/online") is None)


def smt(host: Host) -> str:
    """Return what is set of simultaneous multithreading, empty if the kernel shows nothing."""
    return (optional(host, f"{CPUS}/smt/control") or "").strip()


def second_threads(host: Host) -> tuple[int, ...]:
    """Return the CPUs online that are not the first thread of their core. One file for each."""
    found = []
    for cpu in present(host):
        path = f"{CPUS}/cpu{cpu}/topology/thread_siblings_list"
        threads = parse.cpus(optional(host, path) or "", path)
        if threads and threads[0] != cpu:
            found.append(cpu)
    return tuple(found)


def cpu_model(host: Host) -> str:
    """Return the CPU's model name, empty where the kernel gives none."""
    return parse.cpu_model(optional(host, "/proc/cpuinfo") or "")
