# SPDX-License-Identifier: Apache-2.0
"""Pages that move between tiers: what the kernel counts while programs want memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsatier.sim import memory, tiers
from dsatier.sim.faults import Pressure
from dsatier.sim.state import Flow

if TYPE_CHECKING:
    from dsatier.sim.kernel import Kernel

DEMOTED = 5_000.0
"""Pages that are wanted free on the fast nodes in a second; where they come back soon, 2 MiB for
each GiB of the greatest node."""
HOT = 500.0
"""Pages of the slow nodes that are in use in a second."""
LIMIT = 256
"""Pages a second in a MB/s of the limit to promotion."""
SHORT = 32
"""KiB that are free on a node without room: less than its smallest zone keeps."""


def active(k: Kernel) -> Pressure | None:
    """Return the pressure that there is now."""
    for armed in k.state.faults:
        if isinstance(armed.fault, Pressure) and armed.due <= k.state.now:
            return armed.fault
    return None


def count(k: Kernel, seconds: float) -> None:
    """Count what moves in ``seconds``."""
    found = active(k)
    if found is None:
        return
    flow, mode = k.state.flow, k.knob("numa_balancing")
    demotes = k.knob("demotion_enabled") == 1 and tiers.below(k)
    wanted = DEMOTED * seconds
    if found.meets == "ping-pong":
        wanted = max(one.memory for one in k.spec.nodes) * LIMIT * 2 * seconds
    flow = flow._replace(scanned=flow.scanned + wanted)
    moves = demotes and found.meets not in ("full", "bound", "swaps")
    if moves:
        flow = flow._replace(demoted=flow.demoted + wanted)
    elif found.meets != "bound" and k.state.swaps:
        flow = flow._replace(swapped=flow.swapped + wanted)
    if mode & 2 and found.meets != "unscanned":
        hot = wanted if found.meets == "ping-pong" else HOT * seconds
        hot = hot * 1000 if found.meets == "hot" else hot
        limit = float(k.knob("promote_rate_limit_MBps") or 65536) * LIMIT * seconds
        promoted = min(hot, limit) if moves and tiers.below(k) else 0.0
        flow = flow._replace(
            updates=flow.updates + 4 * hot,
            faults=flow.faults + 2 * hot,
            hot=flow.hot + hot,
            promoted=flow.promoted + promoted,
        )
    k.state.flow = flow
    settle(k, found, moves=moves)


def settle(k: Kernel, found: Pressure, *, moves: bool) -> None:
    """Let the free memory be as it is while pages move, or do not."""
    free = list(k.state.free)
    for node in range(len(k.spec.nodes)):
        if k.online(node):
            free[node] = min(free[node], memory.total(k, node) // 100) if moves else SHORT
        elif found.meets == "full":
            free[node] = min(free[node], SHORT)
    k.state.free = tuple(free)


def end(k: Kernel) -> None:
    """Give back the memory that was wanted."""
    memory.free_all(k)


def vmstat(k: Kernel) -> str:
    """Return the lines of /proc/vmstat that tell of it."""
    return _node(k.state.flow, k) + f"pswpout {int(k.state.flow.swapped)}\n"


def node_vmstat(node: int, k: Kernel) -> str:
    """Return those of /sys/devices/system/node/nodeN/vmstat: what moves leaves the fast nodes."""
    first = next((n for n in range(len(k.spec.nodes)) if k.online(n)), 0)
    return _node(k.state.flow if node == first else Flow(), k, whole=False)


def _node(flow: Flow, k: Kernel, *, whole: bool = True) -> str:
    rows = {
        "pgdemote_kswapd": flow.demoted,
        "pgdemote_direct": 0,
        "pgpromote_success": flow.promoted,
        "pgpromote_candidate": flow.hot,
    }
    if whole:
        rows |= {"numa_pte_updates": flow.updates, "numa_hint_faults": flow.faults}
        rows["pgscan_kswapd"] = flow.scanned
    return "".join(f"{name} {int(value)}\n" for name, value in rows.items())
