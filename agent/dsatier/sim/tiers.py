# SPDX-License-Identifier: Apache-2.0
"""What tells of the nodes' memory: tiers, firmware's numbers, the devices that it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from dsatier.sim import blocks, memory
from dsatier.sim.parse import to_list

if TYPE_CHECKING:
    from collections.abc import Callable

    from dsatier.sim.kernel import Kernel
    from dsatier.sim.spec import HostSpec

DEVICES = "/sys/bus/dax/devices"
DRIVERS = "/sys/bus/dax/drivers"
_PLACES = {
    "cxl": "/sys/devices/platform/ACPI0017:00/root0/decoder0.0/region{0}/dax_region{0}",
    "pmem": "/sys/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0012:00/ndbus0/region{0}/dax{0}.0",
    "hmem": "/sys/devices/platform/hmem.{0}",
}


def lists(spec: HostSpec) -> Iterator[tuple[str, Callable[[Kernel], str]]]:
    """Yield the list of nodes of each tier."""
    for tier in sorted({node.tier for node in spec.nodes if node.tier is not None}):
        path = f"/sys/devices/virtual/memory_tiering/memory_tier{tier}/nodelist"
        yield path, partial(_in_tier, tier)


def _in_tier(tier: int, k: Kernel) -> str:
    nodes = enumerate(k.spec.nodes)
    return to_list([n for n, one in nodes if one.tier == tier and memory.total(k, n)])


def there(spec: HostSpec) -> Iterator[tuple[str, Callable[[Kernel], bool]]]:
    """Yield what is not always there, and what tells whether it is."""
    for number, node in enumerate(spec.nodes):
        if node.device:
            come = partial(_has_come, number)
            yield f"{DEVICES}/dax{number}.0", come
            yield f"{_place(spec, number)}/dax{number}.0", come
            has = partial(_has_node, number)
            yield f"/sys/devices/system/node/node{number}", has
            for place in range(blocks.count(spec, number)):
                yield blocks.folder_of(spec, number, place), has


def _has_come(node: int, k: Kernel) -> bool:
    return node not in k.state.late


def _has_node(node: int, k: Kernel) -> bool:
    return k.there(node)


def files(spec: HostSpec) -> Iterator[tuple[str, str]]:
    """Yield the files that stay as they are, and what is in them."""
    for number, node in enumerate(spec.nodes):
        folder = f"/sys/devices/system/node/node{number}/access1/initiators"
        if node.latency or node.bandwidth:
            for way in ("read", "write"):
                yield f"{folder}/{way}_latency", f"{node.latency}\n"
                yield f"{folder}/{way}_bandwidth", f"{node.bandwidth}\n"
        if node.device:
            folder = f"{_place(spec, number)}/dax{number}.0"
            yield f"{folder}/target_node", f"{number}\n"
            yield f"{folder}/numa_node", f"{_nearest(spec, number)}\n"
            begin = blocks.first(spec, number) * blocks.BYTES
            yield f"{folder}/mapping0/start", f"{begin:#x}\n"
            yield f"{folder}/mapping0/end", f"{begin + (node.memory << 30) - 1:#x}\n"


def links(spec: HostSpec) -> Iterator[tuple[str, str]]:
    """Yield the links and where they lead."""
    for number, node in enumerate(spec.nodes):
        if node.device:
            place = f"{_place(spec, number)}/dax{number}.0"
            yield f"{DEVICES}/dax{number}.0", f"../../..{place[4:]}"
            up = "../" * (place.count("/") - 1)
            if node.driver:
                yield f"{place}/driver", f"{up}bus/dax/drivers/{node.driver}"


def _place(spec: HostSpec, number: int) -> str:
    return _PLACES[spec.nodes[number].device or "hmem"].format(number)


def _nearest(spec: HostSpec, number: int) -> int:
    """Return the node with CPUs that is nearest to one without."""
    beside = [n for n, node in enumerate(spec.nodes) if node.cpus]
    row = spec.distances[number] if spec.distances else ()
    return min(beside, key=lambda n: row[n] if row else 0)


def below(k: Kernel) -> bool:
    """Tell whether some node is a lower tier than every one with CPUs online.

    Where tiers are not described, a node without CPUs is.
    """
    nodes = [(n, node) for n, node in enumerate(k.spec.nodes) if memory.total(k, n)]
    top = max((node.tier or 0 for n, node in nodes if k.online(n)), default=0)
    return any(not k.online(n) if node.tier is None else node.tier > top for n, node in nodes)
