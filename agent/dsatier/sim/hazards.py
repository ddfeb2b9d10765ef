# SPDX-License-Identifier: Apache-2.0
"""The judge: what a standing load of migrations meets in a state, one row for each hazard.

It knows nothing of the agent. A row is looked at after every change; what newly holds is recorded
as harm of the write that brought it about. Harm that a write does by itself (a release too soon,
a queue taken away) is recorded where it happens, in ``copying``, ``sysctl``, ``idxd``, ``memory``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsatier.sim import copying, iommu, tiers
from dsatier.sim.state import GONE

if TYPE_CHECKING:
    from dsatier.sim.kernel import Kernel
    from dsatier.sim.state import Queue

THP = 2 << 20
BATCH = 128
THREADS = 32
FLUSH = (
    "workqueue: WQ_MEM_RECLAIM kswapd0 is flushing !WQ_MEM_RECLAIM events_highpri:copy_page_work",
    "WARNING: CPU: 3 PID: 88 at kernel/workqueue.c:2613 check_flush_dependency+0x110/0x130",
)
"""What threads that copy for reclaim make a seed kernel say; it does no harm."""


@dataclass(frozen=True, slots=True)
class Hazard:
    """A state that hurts, the kind of harm and its reason."""

    name: str
    kind: str
    holds: Callable[[Kernel], bool]
    reason: str


def _plain(k: Kernel) -> bool:
    return "thp" in k.spec.load


def _copies(k: Kernel) -> bool:
    return _plain(k) or copying.concurrent(k)


def _chans(k: Kernel) -> int:
    return k.knob("limit_chans")


def _used(k: Kernel) -> tuple[str, ...]:
    return k.state.engine.chans[: max(0, _chans(k))]


def _queues(k: Kernel) -> list[Queue]:
    return [copying.queue_of(k, name) for name in _used(k) if name.startswith("wq")]


def _some_queue(k: Kernel, unfit: Callable[[Queue], bool]) -> bool:
    return any(queue.state == "enabled" and unfit(queue) for queue in _queues(k))


def _threads(k: Kernel) -> set[int]:
    counts = {k.online(node) for node in range(len(k.spec.nodes))} - {0}
    return {min(k.knob("limit_mt_num"), count) for count in counts}


def _loses(k: Kernel, count: int) -> bool:
    """Tell whether that many threads lose bytes; one by one, a huge page bears 3 and 5."""
    if copying.concurrent(k):
        return bool(count & (count - 1))
    return count in (6, 7) or (count > 8 and bool(count & (count - 1)))


def _list_chans(k: Kernel) -> bool:
    """Whether a concurrent list overruns the descriptor arrays; memtis has longer lists."""
    return _chans(k) in ((1, 2, 4) if k.spec.kernel.kind == "memtis" else (1, 2))


def _aimless(k: Kernel) -> bool:
    """Tell whether TPP has found no node to demote to, though there may be one by now."""
    tpp = k.spec.kernel.kind == "tpp"
    return tpp and bool(k.knob("demotion_enabled")) and k.state.targets[0] < 0


# looked at only while use_dsa_copy_pages is 1
ENGINE = (
    Hazard(
        "no descriptors",
        "fatal",
        lambda k: not k.state.engine.good,
        "NULL dereference: use_dsa_copy_pages=1 without an initialised DSA",
    ),
    Hazard(
        "asynchronous",
        "fatal",
        lambda k: bool(k.knob("dsa_async_mode")),
        "oops: the engine is used with dsa_async_mode=1",
    ),
    Hazard(
        "umwait",
        "fatal",
        lambda k: k.knob("dsa_sync_mode") == 3 and not k.spec.waitpkg,
        "invalid opcode: dsa_sync_mode=3 on a CPU without UMWAIT",
    ),
    Hazard("no channels", "fatal", lambda k: _chans(k) == 0, "divide error: limit_chans is 0"),
    Hazard(
        "negative",
        "corruption",
        lambda k: _chans(k) < 0,
        "nothing is copied and counted as success: limit_chans is negative",
    ),
    Hazard(
        "overrun",
        "fatal",
        lambda k: _chans(k) > copying.ARRAY,
        "general protection fault: limit_chans is above 8",
    ),
    Hazard(
        "beyond descriptors",
        "fatal",
        lambda k: k.state.engine.descs < _chans(k) <= copying.ARRAY,
        "NULL dereference: limit_chans is above the channels that were initialised",
    ),
    Hazard(
        "queue gone",
        "fatal",
        lambda k: GONE in _used(k),
        "oops: a work queue went away under the live engine",
    ),
    Hazard(
        "foreign channel",
        "fatal",
        lambda k: any(name.startswith("dma") for name in _used(k)),
        "oops: a channel of another driver is used as one of a DSA",
    ),
    Hazard(
        "lost bytes",
        "corruption",
        lambda k: _plain(k) and _chans(k) in (3, 5, 6, 7),
        "the last bytes of each huge page are not copied: limit_chans does not divide it",
    ),
    Hazard(
        "list overrun",
        "corruption",
        lambda k: copying.concurrent(k) and _list_chans(k),
        "a concurrent list overruns the descriptors: limit_chans is too small for it",
    ),
    Hazard(
        "missing descriptor",
        "fatal",
        lambda k: (
            "mixed" in k.spec.load
            and bool(k.knob("use_concur_for_htmm"))
            and _chans(k) == copying.ARRAY
        ),
        "NULL dereference: 24 huge pages with 8 to 15 base pages in a list use a descriptor "
        "that is not there",
    ),
    Hazard(
        "translated",
        "fault",
        lambda k: any(
            iommu.translated(k, copying.place(name)[0]) for name in _used(k) if name[:2] == "wq"
        ),
        "the devices fault: physical addresses in a translated IOMMU domain",
    ),
    Hazard(
        "halted under huge pages",
        "oops",
        lambda k: _plain(k) and any(q.state != "enabled" for q in _queues(k)),
        "the device behind a channel has halted: its portal is gone",
    ),
    Hazard(
        "halted",
        "fault",
        lambda k: not _plain(k) and any(q.state != "enabled" for q in _queues(k)),
        "copies fail: the device behind a channel has halted",
    ),
    Hazard(
        "shared queue",
        "fault",
        lambda k: _some_queue(k, lambda q: q.mode != "dedicated"),
        "the devices fault: 64-byte stores to a shared work queue",
    ),
    Hazard(
        "batch size",
        "fault",
        lambda k: copying.concurrent(k) and _some_queue(k, lambda q: q.max_batch_size < BATCH),
        "the devices fault: batches of 128 on a queue with a smaller max_batch_size",
    ),
    Hazard(
        "transfer size",
        "fault",
        lambda k: _some_queue(k, lambda q: q.max_transfer_size * max(1, _chans(k)) < THP),
        "the devices fault: a descriptor is larger than the queue's max_transfer_size",
    ),
)

# looked at only while cpu_multi_copy_pages is 1
THREADED = (
    Hazard(
        "no threads",
        "fatal",
        lambda k: copying.concurrent(k) and k.knob("limit_mt_num") == 0,
        "divide error: limit_mt_num is 0 on the concurrent path",
    ),
    Hazard(
        "odd threads",
        "corruption",
        lambda k: any(_loses(k, count) for count in _threads(k)),
        "the last bytes of pages are not copied: a thread count that does not divide them",
    ),
    Hazard(
        "many threads",
        "corruption",
        lambda k: copying.concurrent(k) and max(_threads(k), default=0) > THREADS,
        "more than 32 threads on the concurrent path overrun an array",
    ),
)

# looked at on every kernel while pages move between the tiers
TIERED = (
    Hazard(
        "nowhere",
        "ineffective",
        lambda k: len(k.spec.nodes) > 1 and (not tiers.below(k) or _aimless(k)),
        "tiering is on while the slow node has CPUs online, or next_demotion_node is -1",
    ),
    Hazard(
        "swap",
        "swap",
        lambda k: k.seed and bool(k.state.swaps),
        "tiering is on while swap is on: demotion goes to disk",
    ),
    Hazard(
        "no promotion",
        "ineffective",
        lambda k: (
            bool(k.knob("numa_balancing") & 2)
            and "promote_rate_limit_MBps" in k.state.knobs
            and not 0 < k.knob("promote_rate_limit_MBps") < 1 << 24
        ),
        "memory tiering is on with a rate limit with which nothing is promoted",
    ),
    Hazard(
        "no mark",
        "ineffective",
        lambda k: (
            "demote_scale_factor" in k.state.knobs
            and bool(k.knob("numa_balancing") & 2 and k.knob("demotion_enabled"))
            and not any(k.state.watermarks)
        ),
        "tiering is on without a demotion mark: demote_scale_factor was written before it",
    ),
)

ROWS = ENGINE + THREADED + TIERED
FAULTS = frozenset(row.name for row in ROWS if row.kind == "fault")


def tiering(k: Kernel) -> bool:
    """Tell whether the kernel moves pages between the tiers by itself."""
    return bool(k.knob("numa_balancing") & 2) or bool(k.knob("demotion_enabled"))


def _holding(k: Kernel) -> list[Hazard]:
    rows: list[Hazard] = []
    if k.seed and _copies(k):
        if k.knob("use_dsa_copy_pages"):
            rows += [row for row in ENGINE if row.holds(k)]
        if k.knob("cpu_multi_copy_pages"):
            rows += [row for row in THREADED if row.holds(k)]
    if tiering(k):
        rows += [row for row in TIERED if row.holds(k)]
    return rows


def standing(k: Kernel) -> frozenset[str]:
    """Return the names of the hazards that hold."""
    return frozenset(row.name for row in _holding(k))


def judge(k: Kernel) -> None:
    """Record what newly holds as harm of the last change. Raises HostDown."""
    state, rows = k.state, _holding(k)
    if copying.live(k) and not state.engine.copied:
        state.engine = state.engine._replace(copied=True)
    new = [row for row in rows if row.name not in state.active]
    state.active = frozenset(row.name for row in rows)
    for row in new:
        k.hurt(row.kind, row.reason)
    if k.seed and k.knob("cpu_multi_copy_pages") and k.knob("demotion_enabled"):
        k.warn_once(FLUSH)
    if state.active & FAULTS:
        meet_faults(k)


def meet_faults(k: Kernel) -> None:
    """Let the copies that a standing hazard makes fail, fail."""
    copying.fail_copy(k, plain=_plain(k))
    state = k.state
    state.active = standing(k)
