# SPDX-License-Identifier: Apache-2.0
"""The copy engine: what ``dsa_state`` and ``use_dsa_copy_pages`` do, in both families.

The seed's code does not validate writes. Ours refuses what is not safe, and goes on without
what fails.
"""

from __future__ import annotations

from errno import EBUSY, EINVAL, ENODEV
from typing import TYPE_CHECKING

from dsatier.sim.faults import FailedInit
from dsatier.sim.parse import Refused
from dsatier.sim.state import GONE, Engine

if TYPE_CHECKING:
    from dsatier.sim.kernel import Kernel
    from dsatier.sim.spec import DeviceSpec
    from dsatier.sim.state import Queue

ARRAY = 8
"""Entries of the seed's arrays of channels."""
IN_A_ROW = 8
"""Descriptors of a channel that fail one after another before ours does without it."""
CONCURRENT = ("use_concur_to_compact", "use_concur_to_demote", "use_concur_for_htmm")
"""The knobs with each of which lists migrate concurrently."""


# channels and the queues behind them


def place(queue: str) -> tuple[int, int]:
    """Return the device and the queue number of a name such as ``wq0.1``."""
    device, _, number = queue.removeprefix("wq").partition(".")
    return int(device), int(number)


def queue_of(k: Kernel, name: str) -> Queue:
    """Return the queue of that name."""
    device, number = place(name)
    return k.state.devices[device].queues[number]


def set_queue(k: Kernel, device: int, number: int, queue: Queue) -> None:
    """Replace a queue."""
    devices = list(k.state.devices)
    queues = list(devices[device].queues)
    queues[number] = queue
    devices[device] = devices[device]._replace(queues=tuple(queues))
    k.state.devices = tuple(devices)


def in_use(k: Kernel, queue: str, own: int) -> int:
    """Return how many hold a channel: a DSA's counts the clients of its queue."""
    return queue_of(k, queue).clients if queue else own


def _claim(k: Kernel, name: str, change: int) -> None:
    if name.startswith("wq"):
        device, number = place(name)
        queue = queue_of(k, name)
        set_queue(k, device, number, queue._replace(clients=max(0, queue.clients + change)))
        return
    k.state.dma = tuple(
        dma._replace(
            chans=tuple(
                chan._replace(in_use=max(0, chan.in_use + change))
                if f"dma{dma.id}chan{chan.id}" == name
                else chan
                for chan in dma.chans
            )
        )
        for dma in k.state.dma
    )


def free_channels(k: Kernel) -> list[str]:
    """Return what dma_request_channel() would give, in its order.

    That is providers in the order of registration and channels in the order of their queues'
    enabling. Another provider's channel goes by its own name.
    """
    return [
        chan.queue or f"dma{dma.id}chan{chan.id}"
        for dma in k.state.dma
        for chan in dma.chans
        if not in_use(k, chan.queue, chan.in_use)
    ]


def _fit(k: Kernel, name: str) -> bool:
    """Tell whether our kernel would use a channel."""
    return name.startswith("wq") and queue_of(k, name).mode == "dedicated" and _whole(k, name)


def _whole(k: Kernel, name: str) -> bool:
    """Tell whether a queue and its device are enabled."""
    device = k.state.devices[place(name)[0]]
    return queue_of(k, name).state == device.state == "enabled" and not device.broken


def _spread(names: list[str]) -> list[str]:
    """Return queues as our kernel looks for them: one of each device, then a second one, ..."""
    left: dict[int, list[str]] = {}
    for name in sorted(names, key=place):
        left.setdefault(place(name)[0], []).append(name)
    ranked = [(rank, name) for found in left.values() for rank, name in enumerate(found)]
    return [name for rank, name in sorted(ranked, key=lambda one: (one[0], place(one[1])))]


def _cut(k: Kernel, channels: list[str]) -> tuple[list[str], bool]:
    """Return the channels that an injected failed init leaves, and whether there is such a one."""
    for i, armed in enumerate(k.state.faults):
        fault = armed.fault
        if isinstance(fault, FailedInit) and (not fault.times or armed.uses < fault.times):
            faults = list(k.state.faults)
            faults[i] = armed._replace(uses=armed.uses + 1)
            k.state.faults = tuple(faults)
            return channels[: fault.channels], True
    return channels, False


# dsa_state


def set_state(k: Kernel, value: int) -> None:
    """``dsa_state``: acts only on a change. Raises Refused on our kernel."""
    if value == k.knob("dsa_state"):
        return
    if value:
        (_seed_init if k.seed else _init)(k)
    else:
        (_seed_release if k.seed else _release)(k)


def _init(k: Kernel) -> None:
    wanted = k.knob("limit_chans")
    free = free_channels(k)
    channels, _ = _cut(k, _spread([name for name in free if _fit(k, name)]))
    if len(channels) < wanted:
        queues = [queue_of(k, name) for name in _kernel_queues(k)]
        shared = sum(queue.mode == "shared" for queue in queues)
        busy = sum(queue.mode == "dedicated" and queue.clients > 0 for queue in queues)
        k.log(
            f"dsatier: {len(channels)} of {wanted} DMA channels, {busy} queues are in use, "
            f"{shared} are shared, 0 bounce: DSA not initialised"
        )
        raise Refused(ENODEV)
    channels = channels[:wanted]
    for name in channels:
        _claim(k, name, 1)
    k.state.engine = Engine(
        good=True, chans=tuple(channels), descs=wanted, lost=k.state.engine.lost
    )
    k.state.knobs["dsa_state"] = 1


def _kernel_queues(k: Kernel) -> list[str]:
    """Return the enabled queues of type kernel."""
    return [
        f"wq{i}.{n}"
        for i, device in enumerate(k.state.devices)
        for n, queue in enumerate(device.queues)
        if queue.state == "enabled" and queue.type == "kernel"
    ]


def _release(k: Kernel) -> None:
    if k.knob("use_dsa_copy_pages"):
        raise Refused(EBUSY)
    engine = k.state.engine
    for name in engine.chans:
        if name in engine.lost:
            k.log(
                f"dsatier: {name}: the device does not let go of pages: the queue stays in use "
                "until it is reset"
            )
        else:
            _claim(k, name, -1)
    k.state.engine = Engine(lost=engine.lost)
    k.state.knobs["dsa_state"] = 0


def _seed_init(k: Kernel) -> None:
    """Initialise as the seed does: it always succeeds and reads 1; only the log tells."""
    wanted = k.knob("limit_chans")
    channels, injected = _cut(k, free_channels(k))
    taken = channels[: max(0, wanted)]
    k.state.knobs["dsa_state"] = 1
    for name in taken:
        _claim(k, name, 1)
    stale = k.state.engine.stale
    good = len(taken) == max(0, wanted) and not (injected and wanted > 0)
    if good:
        k.state.engine = Engine(good=True, chans=tuple(taken), descs=max(0, wanted), stale=stale)
    else:
        k.log(f"Failed to get DMA channel {len(taken)}.")
        k.log("Failed to initialize DSA.")
        for name in taken:  # given back at once, and not forgotten
            _claim(k, name, -1)
        k.state.engine = Engine(kept=tuple(taken), stale=stale)
    if len(taken) > ARRAY:
        k.hurt("corruption", f"dsa_state=1 with {len(taken)} channels overruns an array of 8")
    if any(not name.startswith("wq") for name in taken):
        k.hurt("corruption", "a DMA channel of another driver was taken for one of a DSA")
    if injected or good:
        return
    if taken:
        k.hurt("stuck", f"dsa_state=1 got {len(taken)} of {wanted} channels: no clean way back")
    elif stale:
        k.hurt("stuck", "dsa_state=1 failed after an earlier release: the way back frees twice")


def _seed_release(k: Kernel) -> None:
    engine, limit = k.state.engine, k.knob("limit_chans")
    # decided before anything is freed, as the code on the other CPUs sees it
    live, flight = bool(k.knob("use_dsa_copy_pages")), in_flight(k)
    k.state.knobs["dsa_state"] = 0
    k.log("DMA memcpy module exit.")
    if live:
        k.hurt("fatal", "dsa_state=0 under use_dsa_copy_pages=1 freed descriptors in use")
    if flight:
        k.hurt("corruption", "dsa_state=0 freed descriptors of copies that were in flight")
    if not engine.good:
        if engine.kept:
            k.warn("chan reference count 0 != 1")
            k.hurt("corruption", "dsa_state=0 after a failed init releases channels twice")
        elif engine.stale:
            k.hurt("corruption", "dsa_state=0 after a failed init frees stale pointers twice")
    elif limit > engine.descs:
        k.hurt("fatal", f"dsa_state=0 with limit_chans {limit} above the {engine.descs} in use")
    released = engine.chans[: max(0, limit)]
    for name in released:
        if name != GONE:
            _claim(k, name, -1)
    leaked = len(engine.chans) - len(released)
    if leaked:
        k.hurt("leak", f"dsa_state=0 leaks {leaked} channels: limit_chans is {limit}")
    if engine.good and GONE in engine.chans:
        k.hurt("corruption", "dsa_state=0 released a channel whose queue had gone")
    k.state.engine = Engine(stale=bool(engine.stale or engine.kept or engine.descs))


# use_dsa_copy_pages


def set_use(k: Kernel, value: int) -> None:
    """``use_dsa_copy_pages``. Raises Refused on our kernel."""
    if value and not k.seed:
        if not k.knob("dsa_state"):
            raise Refused(EINVAL)
        engine = k.state.engine
        still = tuple(c for c in engine.out if c in engine.lost or not _whole(k, c))
        k.state.engine = engine._replace(out=still)  # what is whole is tried again
    k.state.knobs["use_dsa_copy_pages"] = value
    note_quiet(k)
    if value and not k.seed:  # the first list finds what halted while nothing copied
        for name in k.state.engine.chans:
            if not _whole(k, name):
                _out(k, name, "its device halted")


def note_quiet(k: Kernel) -> None:
    """Keep the time since when nothing starts a copy on a device."""
    engine = k.state.engine
    quiet = not (k.knob("use_dsa_copy_pages") or k.state.balancing or k.knob("demotion_enabled"))
    if quiet != (engine.quiet_since is not None):
        k.state.engine = engine._replace(quiet_since=k.state.now if quiet else None)


def in_flight(k: Kernel) -> bool:
    """Tell whether a copy that began earlier may still use the descriptors (seed)."""
    engine = k.state.engine
    if not (engine.copied and k.spec.load):
        return False
    return engine.quiet_since is None or k.state.now - engine.quiet_since < k.spec.settle


def live(k: Kernel) -> bool:
    """Tell whether the DSA copies pages now."""
    engine = k.state.engine
    if not (k.knob("use_dsa_copy_pages") and engine.good):
        return False
    return k.seed or len(engine.chans) > len(engine.out)


def concurrent(k: Kernel) -> bool:
    """Tell whether lists migrate concurrently."""
    return "lists" in k.spec.load and any(k.knob(name) for name in CONCURRENT)


def flip_chans(k: Kernel) -> None:
    """Change limit_chans under copies (seed): each reads it again whenever it needs it.

    Once is met between two copies. To and fro meets them in the middle, and in the end frees
    what one of them is using.
    """
    engine = k.state.engine
    k.state.engine = engine._replace(flips=min(engine.flips + 1, 2))
    if engine.flips == 1:
        k.hurt("corruption", "limit_chans flipped under copies: pages get contents of others")
    elif engine.flips:
        k.hurt("fatal", "limit_chans flipped on under copies: they use what is not there")


def fail_copy(k: Kernel, *, plain: bool, status: int = 3) -> None:
    """Let a descriptor fail. The seed clears the knob on the plain path, else it tries on.

    Ours leaves the pages to the CPU and goes on: one page may be bad, and the device whole.
    """
    _count_failure(k)
    if not k.seed:
        name = _usable(k)[0]
        k.log(
            f"dsatier: {name}: descriptor failed with status {status:#x}: "
            "its pages are left to the CPU"
        )
        return
    k.log(f"idxd_desc[0][0] failed with status {status}, poll_retry 12.")
    if plain:
        k.state.knobs["use_dsa_copy_pages"] = 0
        note_quiet(k)


def fail_all(k: Kernel) -> None:
    """Let so many copies fail that the kernel itself turns the engine off."""
    if k.seed:
        fail_copy(k, plain=True)
        return
    for name in _usable(k):
        _count_failure(k)
        _out(k, name, f"{IN_A_ROW} descriptors in a row failed, the last with status 0x3")


def fail_list(k: Kernel, *, huge: bool) -> None:
    """Let a list fail that migrates at once; its huge pages are then tried one by one (seed)."""
    fail_copy(k, plain=not k.seed)
    if huge and k.seed:
        fail_copy(k, plain=True)


def time_out(k: Kernel, device: int) -> None:
    """Let a copy time out whose device answers to no abort either."""
    if k.seed:
        fail_copy(k, plain=True, status=0)
        return
    for name in _usable(k):
        if place(name)[0] == device:
            _count_failure(k)
            k.state.engine = k.state.engine._replace(lost=(*k.state.engine.lost, name))
            _out(k, name, "no completion in 2000 ms, pages quarantined until a reset")
            return


def complete_late(k: Kernel, device: int) -> None:
    """Complete a copy that its kernel has given up: ours has kept its pages back."""
    if k.seed:
        if k.state.devices[device].state == "enabled":
            k.hurt("corruption", "a copy that had timed out overwrote pages of somebody else")
        return
    engine = k.state.engine
    for name in engine.lost:
        if place(name)[0] == device:
            k.log(f"dsatier: {name}: the device is done, 1 parts of pages are back in use")
            if name not in engine.chans:  # it was to be given back
                _claim(k, name, -1)
    left = tuple(name for name in engine.lost if place(name)[0] != device)
    k.state.engine = engine._replace(lost=left)


def _usable(k: Kernel) -> list[str]:
    """Return the channels that copy (ours)."""
    return [name for name in k.state.engine.chans if name not in k.state.engine.out]


def _count_failure(k: Kernel) -> None:
    timer = k.state.timer
    k.state.timer = timer._replace(fail=timer.fail + 1)


def _out(k: Kernel, name: str, why: str) -> None:
    """Take a channel out of use (ours). The last one takes the engine with it."""
    if name not in _usable(k):
        return
    k.state.engine = k.state.engine._replace(out=(*k.state.engine.out, name))
    left = len(_usable(k))
    if left:
        k.log(f"dsatier: {name}: {why}: out of use, channels left: {left}")
    elif k.knob("use_dsa_copy_pages"):
        k.log(f"dsatier: {name}: {why}: copying by CPU, use_dsa_copy_pages reads 0")
        k.state.knobs["use_dsa_copy_pages"] = 0
        note_quiet(k)


# queues that go away


def halted(k: Kernel, name: str) -> None:
    """See that the device of a channel has halted: ours, at the next list."""
    engine = k.state.engine
    if not k.seed and name in engine.lost:  # what halted is done with all pages
        complete_late(k, place(name)[0])
    if not k.seed and k.knob("use_dsa_copy_pages"):
        _out(k, name, "its device halted")


def lose_queue(k: Kernel, name: str, why: str) -> None:
    """Take a queue that may be held from the engine, before it goes away."""
    engine = k.state.engine
    if not k.seed and name in engine.lost:
        lost = tuple(c for c in engine.lost if c != name)
        k.state.engine = engine = engine._replace(lost=lost)
        k.log(
            f"dsatier: {name}: nothing shows that the device is done: "
            "1 parts of pages are out of use for good"
        )
    if name not in engine.chans:
        return
    if not k.seed:
        _out(k, name, "its queue is being disabled")
        engine = k.state.engine
        k.state.engine = engine._replace(
            chans=tuple(c for c in engine.chans if c != name),
            out=tuple(c for c in engine.out if c != name),
        )
        return
    k.state.engine = engine._replace(chans=tuple(GONE if c == name else c for c in engine.chans))
    if not k.knob("use_dsa_copy_pages"):
        k.hurt("corruption", f"{name} went away ({why}) while dsa_state=1 held its channel")


def preset(k: Kernel, index: int, spec: DeviceSpec) -> None:
    """Bring up the queues that a description says somebody else has configured."""
    from dsatier.sim import idxd

    if not spec.configured:
        return
    device = k.state.devices[index]
    devices = list(k.state.devices)
    devices[index] = device._replace(engines=(0,) * len(device.engines))
    k.state.devices = tuple(devices)
    for row in spec.configured:
        queue = device.queues[row.id]._replace(
            type=row.type,
            mode=row.mode,
            name=row.name,
            driver_name="dmaengine" if row.type == "kernel" else "user",
            group=0,
            size=row.size,
            threshold=row.size if row.mode == "shared" else 0,
            max_batch_size=row.max_batch_size,
            max_transfer_size=row.max_transfer_size,
        )
        set_queue(k, index, row.id, queue)
    idxd.bind_device(k, index)
    for row in spec.configured:
        idxd.bind_queue(k, index, row.id, "dmaengine" if row.type == "kernel" else "user")
        queue = k.state.devices[index].queues[row.id]
        set_queue(k, index, row.id, queue._replace(clients=row.clients))
