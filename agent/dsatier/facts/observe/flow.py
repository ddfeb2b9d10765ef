# SPDX-License-Identifier: Apache-2.0
"""What the kernel counts of the pages that move between nodes."""

from __future__ import annotations

from dsatier.facts.effect import COUNTERS, Counts
from dsatier.facts.model import Facts
from dsatier.facts.observe import parse
from dsatier.facts.observe.read import optional
from dsatier.facts.observe.topology import NODES
from dsatier.host.port import Host

VMSTAT = "/proc/vmstat"
ZONES = "/proc/zoneinfo"


def counts(host: Host, facts: Facts) -> Counts:
    """Return the counters now, those that this kernel has. Raises HostError.

    A counter that is missing from the whole and there for every node is their sum.
    """
    nodes = {node.id: _counters(host, f"{NODES}/node{node.id}/vmstat") for node in facts.nodes}
    sums = {
        name: sum(table[name] for table in nodes.values())
        for name in COUNTERS
        if nodes and all(name in table for table in nodes.values())
    }
    room = parse.room(optional(host, ZONES) or "")
    return Counts(
        boot_id=facts.kernel.boot_id,
        at=host.monotonic(),
        whole=sums | _counters(host, VMSTAT),
        nodes=nodes,
        short=tuple(node for node, one in room.items() if one.short),
        full=tuple(node for node, one in room.items() if one.full),
    )


def _counters(host: Host, path: str) -> dict[str, int]:
    return parse.counters(optional(host, path) or "", COUNTERS)
