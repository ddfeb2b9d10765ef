# SPDX-License-Identifier: Apache-2.0
"""Memory and swap: watermarks, /proc/zoneinfo, meminfo and the two swap commands."""

from __future__ import annotations

from collections.abc import Callable
from errno import EINVAL
from typing import TYPE_CHECKING

from dsatier.host.port import Ran
from dsatier.sim.parse import Refused

if TYPE_CHECKING:
    from dsatier.sim.kernel import Kernel

HUGE_PAGES = "/sys/kernel/mm/transparent_hugepage/enabled"
DEFRAG = ("always", "defer", "defer+madvise", "madvise", "never")
BLOCK = 2 << 20
"""KiB of a memory block."""
OFFLINE = "-"
"""The letter of one that is offline."""
DMA_PAGES = 3840
DMA32_PAGES = 480000


def total(k: Kernel, node: int) -> int:
    """Return the KiB of a node: of memory that a device brings, the blocks that are online."""
    if not k.spec.nodes[node].device:
        return k.spec.nodes[node].memory << 20
    blocks = k.state.blocks[node]
    return (len(blocks) - blocks.count(OFFLINE)) * BLOCK


def free_all(k: Kernel) -> None:
    """Let as much be free on each node as the description says."""
    k.state.free = tuple(
        max(0, total(k, node) - (one.used << 20)) for node, one in enumerate(k.spec.nodes)
    )


def _managed(k: Kernel, node: int) -> int:
    """Return the pages of a node's Normal zone."""
    pages = total(k, node) >> 2
    return max(0, pages - DMA_PAGES - DMA32_PAGES) if node == 0 else pages


def _high(managed: int) -> int:
    return managed // 500 + 12


def set_watermarks(k: Kernel) -> None:
    """Work out the demotion watermarks: at boot, and whenever anything works out watermarks."""
    factor = k.knob("demote_scale_factor")
    # TPP asks a flag that nothing ever clears, ours what numa_balancing is now
    tiers = k.state.tiered if k.spec.kernel.kind == "tpp" else bool(k.knob("numa_balancing") & 2)
    marks = []
    for node in range(len(k.spec.nodes)):
        managed = _managed(k, node)
        mark = 0
        # only the top tier demotes: a node with CPUs
        if tiers and k.online(node):
            mark = min(max(managed * factor // 10000, 2 * _high(managed)), managed)
        marks.append(mark)
    k.state.watermarks = tuple(marks)


def writer(name: str) -> Callable[[Kernel, int], None]:
    """Return the effect of a knob whose every write works out the watermarks anew."""

    def write(k: Kernel, value: int) -> None:
        k.state.knobs[name] = value
        set_watermarks(k)

    return write


def note_mode(k: Kernel) -> None:
    """Keep what TPP remembers of a write to ``numa_balancing``."""
    mode = k.knob("numa_balancing")
    k.state.balancing = bool(mode)
    top = [node for node in range(len(k.spec.nodes)) if k.online(node)]
    if k.spec.kernel.kind == "tpp" and (mode == 2 or (mode and top == [0])):
        k.state.tiered = True


def set_targets(k: Kernel, *, leaving: int | None = None) -> None:
    """Work out where each node demotes to, as TPP does at every CPU that comes or goes.

    A CPU that goes, ``leaving``, still counts: so the last one of a node leaves the node as it was.
    """
    count = len(k.spec.nodes)
    top = {n for n in range(count) if k.online(n) or leaving in k.layout.cpus[n]}
    below = [n for n in range(count) if n not in top and total(k, n)]
    k.state.targets = tuple(below[0] if n in top and below else -1 for n in range(count))


def show_huge(k: Kernel) -> str:
    """Return /sys/kernel/mm/transparent_hugepage/enabled."""
    return chosen(("always", "madvise", "never"), k.state.huge_pages)


def chosen(words: tuple[str, ...], word: str) -> str:
    """Return a file that shows the words that it takes, and which one holds."""
    return " ".join(f"[{one}]" if one == word else one for one in words) + "\n"


def defrag(text: str) -> int:
    """Return the number of a word for defrag. Raises Refused."""
    if text.strip() not in DEFRAG:
        raise Refused(EINVAL)
    return DEFRAG.index(text.strip())


def store_huge(k: Kernel, text: str) -> None:
    """Say who gets huge pages; the kernel then keeps more memory free. Raises Refused."""
    if text.strip() not in ("always", "madvise", "never"):
        raise Refused(EINVAL)
    k.state.huge_pages = text.strip()
    set_watermarks(k)


def _zone(k: Kernel, node: int, name: str, free: int, managed: int, demote: int | None) -> str:
    high = _high(managed)
    rows = [
        f"Node {node}, zone {name:>8}{_of_tier(k, node)}",
        f"  pages free     {free}",
        "        boost    0",
        f"        min      {high * 2 // 3}",
        f"        low      {high * 5 // 6}",
        f"        high     {high}",
    ]
    if demote is not None:
        rows.append(f"        demote   {demote}")
    rows += [
        f"        spanned  {managed}",
        f"        present  {managed}",
        f"        managed  {managed}",
        "        cma      0",
        "        protection: (0, 0, 0, 0, 0)",
        f"      nr_free_pages {free}",
    ]
    return "\n".join(rows) + "\n"


def _of_tier(k: Kernel, node: int) -> str:
    """Return what TPP says of a node in the header of each of its zones."""
    if k.spec.kernel.kind != "tpp":
        return ""
    return f", toptier {int(k.online(node) > 0)} next_demotion_node {k.state.targets[node]}"


def zoneinfo(k: Kernel) -> str:
    """Return /proc/zoneinfo. The memtis kernel and a stock one have no ``demote`` line."""
    shows = "demote_scale_factor" in k.state.knobs
    out = []
    for node, mark in enumerate(k.state.watermarks):
        if not k.there(node):
            continue
        zero = 0 if shows else None
        if node == 0:
            left = k.state.free[0] // 4
            dma = min(left, DMA_PAGES)
            out.append(_zone(k, 0, "DMA", dma, DMA_PAGES, zero))
            out.append(_zone(k, 0, "DMA32", min(left - dma, DMA32_PAGES), DMA32_PAGES, zero))
        managed = _managed(k, node)
        free = max(0, k.state.free[node] // 4 - ((total(k, node) >> 2) - managed))
        out.append(_zone(k, node, "Normal", free, managed, mark if shows else None))
    return "".join(out)


def node_meminfo(k: Kernel, node: int) -> str:
    """Return /sys/devices/system/node/nodeN/meminfo."""
    whole, free = total(k, node), k.state.free[node]
    rows = (("MemTotal", whole), ("MemFree", free), ("MemUsed", whole - free))
    return "".join(f"Node {node} {name + ':':<15} {size:>8} kB\n" for name, size in rows)


def meminfo(k: Kernel) -> str:
    """Return /proc/meminfo."""
    whole = sum(total(k, node) for node in range(len(k.spec.nodes)))
    free = sum(k.state.free)
    swap = sum(s.size for s in k.state.swaps)
    swap_free = swap - sum(s.used for s in k.state.swaps)
    rows = (
        ("MemTotal", whole),
        ("MemFree", free),
        ("MemAvailable", free),
        ("SwapTotal", swap),
        ("SwapFree", swap_free),
    )
    return "".join(f"{name + ':':<15} {size:>8} kB\n" for name, size in rows)


def swaps(k: Kernel) -> str:
    """Return /proc/swaps."""
    rows = ["Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"]
    for s in k.state.swaps:
        name = s.path + " " * max(1, 40 - len(s.path))
        kind = "partition" if s.kind == "partition" else "file\t"
        rows.append(f"{name}{kind}\t{s.size}\t\t{s.used}\t\t{s.priority}\n")
    return "".join(rows)


def swapoff(k: Kernel, argv: tuple[str, ...]) -> Ran:
    """``swapoff PATH``. Raises HostDown where what is swapped out does not fit in memory."""
    failed = ""
    for path in argv[1:]:
        area = next((s for s in k.state.swaps if s.path == path), None)
        if area is None:
            failed += f"swapoff: {path}: swapoff failed: Invalid argument\n"
            continue
        if area.used > sum(k.state.free):
            k.hurt("fatal", f"out of memory: swapoff of {area.used} KiB does not fit")
        left, free = area.used, []
        for size in k.state.free:
            free.append(size - min(size, left))
            left -= min(size, left)
        k.state.free = tuple(free)
        k.state.swaps = tuple(s for s in k.state.swaps if s.path != path)
    return Ran(4 if failed else 0, "", failed)


def swapon(k: Kernel, argv: tuple[str, ...]) -> Ran:
    """``swapon PATH [-p PRIORITY]``."""
    words, priority, paths = list(argv[1:]), None, []
    while words:
        word = words.pop(0)
        if word in ("-p", "--priority"):
            priority = int(words.pop(0))
        elif word.startswith("-p"):
            priority = int(word[2:])
        else:
            paths.append(word)
    failed = ""
    for path in paths:
        known = next((s for s in k.spec.swap if s.path == path), None)
        if known is None:
            failed += f"swapon: cannot open {path}: No such file or directory\n"
        elif any(s.path == path for s in k.state.swaps):
            failed += f"swapon: {path}: swapon failed: Device or resource busy\n"
        else:
            turn_on(k, path, priority)
    return Ran(255 if failed else 0, "", failed)


def turn_on(k: Kernel, path: str, priority: int | None = None) -> None:
    """Turn a swap area of the description on; without a priority it gets the next below."""
    from dsatier.sim.state import SwapArea

    spec = next(s for s in k.spec.swap if s.path == path)
    if priority is None:
        priority = min((s.priority for s in k.state.swaps if s.priority < 0), default=-1) - 1
    area = SwapArea(path, spec.kind, spec.size << 20, 0, priority)
    k.state.swaps += (area,)
