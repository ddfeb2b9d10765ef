# SPDX-License-Identifier: Apache-2.0
"""Memory blocks of the nodes that devices bring: where they are, and how they come online.

Only these blocks are described, and each is 2 GiB, as on hosts with much memory. What is refused,
and with which error, follows drivers/base/memory.c of Linux 6.12 to 7.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from errno import EBUSY, EINVAL
from functools import partial
from typing import TYPE_CHECKING

from dsatier.sim import memory
from dsatier.sim.faults import PoisonedBlock
from dsatier.sim.parse import Refused

if TYPE_CHECKING:
    from collections.abc import Callable

    from dsatier.sim.kernel import Kernel
    from dsatier.sim.spec import HostSpec
    from dsatier.sim.state import State

    Show = Callable[[Kernel], str]
    Store = Callable[[Kernel, str], None]

FOLDER = "/sys/devices/system/memory"
GIB = memory.BLOCK >> 20
"""Of a block."""
BYTES = memory.BLOCK << 10
EHWPOISON = 133
OFFLINE, MOVABLE, NORMAL = memory.OFFLINE, "m", "n"
_BOOTED = {"offline": OFFLINE, "movable": MOVABLE, "normal": NORMAL}
_ONLINE = {"online": NORMAL, "online_kernel": NORMAL, "online_movable": MOVABLE}


def first(spec: HostSpec, node: int) -> int:
    """Return the number of a node's first block: nodes follow each other, each on its own block."""
    return 8 + sum(-(-one.memory // GIB) for one in spec.nodes[:node])


def count(spec: HostSpec, node: int) -> int:
    """Return how many blocks a device brings: none where kmem does not have it."""
    one = spec.nodes[node]
    return one.memory // GIB if one.device and one.driver == "kmem" else 0


def arrived(spec: HostSpec, node: int) -> str:
    """Return the blocks of a node as its device brings them, a letter for each."""
    return _BOOTED[spec.nodes[node].blocks] * count(spec, node)


def arrive(k: Kernel, node: int, *, there: bool) -> None:
    """Let a device and its memory come, or be away still."""
    if there == (node not in k.state.late):
        return
    k.state.late = k.state.late - {node} if there else k.state.late | {node}
    _put(k, node, arrived(k.spec, node) if there else "")


def fit(spec: HostSpec, state: State) -> bool:
    """Tell whether a state has the blocks of a description, or none of a device that is late."""
    return all(
        found == "" if node in state.late else len(found) == count(spec, node)
        for node, found in enumerate(state.blocks)
    ) and set("".join(state.blocks)) <= {OFFLINE, MOVABLE, NORMAL}


def files(spec: HostSpec) -> Iterator[tuple[str, Show, Store | None]]:
    """Yield the files of all blocks: path, what shows one, and what takes a write."""
    if any(count(spec, node) for node in range(len(spec.nodes))):
        yield f"{FOLDER}/block_size_bytes", lambda _: f"{BYTES:x}\n", None
    for node in range(len(spec.nodes)):
        for place in range(count(spec, node)):
            folder = folder_of(spec, node, place)
            yield f"{folder}/state", partial(_state, node, place), partial(_store, node, place)
            yield f"{folder}/valid_zones", partial(_zones, node, place), None


def folder_of(spec: HostSpec, node: int, place: int) -> str:
    """Return the folder of a node's block."""
    return f"{FOLDER}/memory{first(spec, node) + place}"


def _state(node: int, place: int, k: Kernel) -> str:
    return "offline\n" if k.state.blocks[node][place] == OFFLINE else "online\n"


def _zones(node: int, place: int, k: Kernel) -> str:
    """Return the zone of a block that is online, or those that it may go into."""
    return {OFFLINE: "Normal Movable\n", MOVABLE: "Movable\n", NORMAL: "Normal\n"}[
        k.state.blocks[node][place]
    ]


def _store(node: int, place: int, k: Kernel, text: str) -> None:
    """Bring a block online, or take it offline. Raises Refused."""
    word, now = text.strip(), k.state.blocks[node][place]
    if word not in (*_ONLINE, "offline") or (now == OFFLINE) == (word == "offline"):
        raise Refused(EINVAL)
    if word != "offline" and any(
        isinstance(armed.fault, PoisonedBlock)
        and (armed.fault.node, armed.fault.place) == (node, place)
        for armed in k.state.faults
    ):
        raise Refused(EHWPOISON)
    if word == "offline" and (now == NORMAL or k.state.free[node] < memory.BLOCK):
        raise Refused(EBUSY)  # what is in it cannot be moved, or there is no room for it
    all_ = k.state.blocks[node]
    _put(k, node, all_[:place] + _ONLINE.get(word, OFFLINE) + all_[place + 1 :])


def _put(k: Kernel, node: int, blocks: str) -> None:
    """Let a node have these blocks: what comes is free, and the kernel works out all anew."""
    before = memory.total(k, node)
    k.state.blocks = (*k.state.blocks[:node], blocks, *k.state.blocks[node + 1 :])
    free = max(0, k.state.free[node] + memory.total(k, node) - before)
    k.state.free = (*k.state.free[:node], free, *k.state.free[node + 1 :])
    memory.set_targets(k)
    memory.set_watermarks(k)
