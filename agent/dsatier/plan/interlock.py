# SPDX-License-Identifier: Apache-2.0
"""The interlock: refuses any unsafe request, from any caller.

It knows the hazards of the kernel, not the planner: each guard looks at one
request and at the host as it is at that moment. ``GUARDS`` is the whole list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dsatier.base.text import ranges
from dsatier.facts.knobs import KNOBS, SEED_BATCH_CHANS, SEED_SETTLE, TIERING_MODES, KnobName
from dsatier.facts.model import DsaDevice, Facts, Unbound
from dsatier.facts.onlining import memory_device
from dsatier.facts.readings import (
    closed_iommu,
    concurrent,
    demotes_to_disk,
    device,
    effective_threads_broken,
    engine_iommu,
    foreign,
    free,
    halted,
    held,
    initialised,
    live,
    loose,
    migration_quiet,
    on,
    oopsed,
    releasable,
    stranded,
    tiered,
    tiering_on,
    value_refusal,
)
from dsatier.facts.tiers import Tiers, cpus, untargeted, words
from dsatier.plan.projection import project
from dsatier.plan.requests import (
    BindDevice,
    LoadDevice,
    OnlineMemory,
    Request,
    SetCpu,
    SetIommu,
    SetKnob,
    StirCpu,
    StopDevice,
    SwapOff,
    SwapOn,
    device_of,
)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a guard may know in addition to the request."""

    facts: Facts
    """The host at this moment."""
    quiet: float
    """Seconds for which engine, demotion and balancing have been seen off without a break."""
    tiers: Tiers
    """Which node is fast, and which slow, for the plan that the request belongs to."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An unsafe request that was not made."""

    guard: str
    request: str
    reason: str

    def __str__(self) -> str:
        return f"refused by guard {self.guard}: {self.request}: {self.reason}"


Rule = Callable[[Request, Circumstances], str | None]


@dataclass(frozen=True, slots=True)
class Guard:
    """A guard: its name and its rule, which returns why a request is unsafe."""

    name: str
    rule: Rule


def refusals(
    request: Request, circumstances: Circumstances, guards: tuple[Guard, ...] | None = None
) -> tuple[Refusal, ...]:
    """Return every guard's objection to ``request``; none means that it is safe."""
    found = []
    for guard in GUARDS if guards is None else guards:
        reason = guard.rule(request, circumstances)
        if reason is not None:
            found.append(Refusal(guard.name, str(request), reason))
    return tuple(found)


def settled(facts: Facts, quiet: float) -> bool:
    """Tell whether a seed kernel's descriptors are surely out of use."""
    return migration_quiet(facts) and quiet >= SEED_SETTLE


def _sets(request: Request, knob: KnobName, *values: int) -> bool:
    """Tell whether the request writes one of ``values`` (any where none is given) to ``knob``."""
    return (
        isinstance(request, SetKnob)
        and request.knob == knob
        and (not values or request.value in values)
    )


def _seed(at: Circumstances) -> bool:
    return at.facts.kernel.family == "seed"


def _known_kernel(request: Request, at: Circumstances) -> str | None:
    if at.facts.kernel.family == "unknown":
        return f"the kernel's ABI {at.facts.kernel.abi} is newer than this agent"
    return None


def _present(request: Request, at: Circumstances) -> str | None:
    if isinstance(request, SetKnob) and request.knob not in KNOBS:
        return "no such knob"
    if isinstance(request, SetKnob) and request.knob not in at.facts.knobs:
        return "this kernel has no such knob"
    return None


def _range(request: Request, at: Circumstances) -> str | None:
    if isinstance(request, SetKnob) and request.knob in KNOBS:
        return value_refusal(request.knob, request.value, at.facts)
    return None


def _engine_needs_init(request: Request, at: Circumstances) -> str | None:
    if _sets(request, "use_dsa_copy_pages", 1) and not on(at.facts, "dsa_state"):
        return "dsa_state is 0: the first copy would use descriptors that are not there"
    return None


def _engine_needs_channels(request: Request, at: Circumstances) -> str | None:
    if (
        _sets(request, "use_dsa_copy_pages", 1)
        and on(at.facts, "dsa_state")
        and not initialised(at.facts)
    ):
        return (
            f"dsa_state reads 1 but {len(held(at.facts))} DMA channels are in use, "
            f"limit_chans is {live(at.facts, 'limit_chans')}: the start had failed"
        )
    return None


def _engine_needs_health(request: Request, at: Circumstances) -> str | None:
    if not (_sets(request, "use_dsa_copy_pages", 1) or _sets(request, "dsa_state", 1)):
        return None
    if oopsed(at.facts):
        return "the kernel has oopsed since it booted"
    if halted(at.facts):
        return f"{', '.join(halted(at.facts))} halted"
    if on(at.facts, "dsa_async_mode"):
        return "dsa_async_mode is 1, which oopses at the first huge page"
    return None


def _release_after_engine(request: Request, at: Circumstances) -> str | None:
    if _sets(request, "dsa_state", 0) and on(at.facts, "use_dsa_copy_pages"):
        return "use_dsa_copy_pages is 1: a copy would use freed descriptors"
    return None


def _release_when_quiet(request: Request, at: Circumstances) -> str | None:
    if not (_seed(at) and _sets(request, "dsa_state", 0) and on(at.facts, "dsa_state")):
        return None
    if settled(at.facts, at.quiet):
        return None
    if not migration_quiet(at.facts):
        return "demotion or balancing is on: a seed kernel may still be copying"
    return f"quiet for {at.quiet:.0f} s only, not {SEED_SETTLE:g}: copies may be in flight"


def _release_what_is_whole(request: Request, at: Circumstances) -> str | None:
    if not (_seed(at) and _sets(request, "dsa_state", 0) and on(at.facts, "dsa_state")):
        return None
    if releasable(at.facts):
        return None
    if not held(at.facts) and at.facts.dsa_released is False:
        return None  # a first start that got nothing: there is nothing to free twice
    return (
        f"{len(held(at.facts))} DMA channels are in use, limit_chans is "
        f"{live(at.facts, 'limit_chans')}: a seed kernel would free some twice or lose some; reboot"
    )


def _start_once(request: Request, at: Circumstances) -> str | None:
    if _sets(request, "dsa_state", 1) and on(at.facts, "dsa_state"):
        return "dsa_state is 1 already: writing it again starts nothing"
    return None


def _start_before_engine(request: Request, at: Circumstances) -> str | None:
    if _sets(request, "dsa_state", 1) and on(at.facts, "use_dsa_copy_pages"):
        return "use_dsa_copy_pages is 1 already: copies would begin before the start is proven"
    return None


def _start_with_queues(request: Request, at: Circumstances) -> str | None:
    if not _sets(request, "dsa_state", 1):
        return None
    chans = live(at.facts, "limit_chans")
    if chans is None or value_refusal("limit_chans", chans, at.facts):
        return f"limit_chans is {chans}"
    if len(free(at.facts)) < chans:
        return (
            f"limit_chans is {chans} but {len(free(at.facts))} dedicated kernel queues "
            "are enabled, fit and free"
        )
    return None


def _start_without_foreign(request: Request, at: Circumstances) -> str | None:
    if _seed(at) and _sets(request, "dsa_state", 1) and foreign(at.facts):
        names = ", ".join(channel.id for channel in foreign(at.facts)[:4])
        return f"a seed kernel would take channels that it cannot use: {names}"
    return None


def _start_untranslated(request: Request, at: Circumstances) -> str | None:
    if (
        _seed(at)
        and _sets(request, "dsa_state", 1)
        and engine_iommu(at.facts) not in ("off", "passthrough")
    ):
        return f"the IOMMU is {engine_iommu(at.facts)}: a seed kernel's raw addresses would fault"
    return None


def _channels_while_held(request: Request, at: Circumstances) -> str | None:
    if _sets(request, "limit_chans") and on(at.facts, "dsa_state"):
        return "dsa_state is 1: channels would leak or be used before they are there"
    return None


def _concurrency_fits(request: Request, at: Circumstances) -> str | None:
    if not _seed(at) or not isinstance(request, SetKnob):
        return None
    after = project(at.facts, request, at.tiers)
    narrow = live(after, "limit_chans") != SEED_BATCH_CHANS
    if on(after, "use_dsa_copy_pages") and concurrent(after) and narrow and _is_upward(request):
        return (
            f"a seed kernel's lists overrun the descriptors of fewer than {SEED_BATCH_CHANS} "
            "channels when migration is concurrent"
        )
    return None


def _is_upward(request: SetKnob) -> bool:
    return request.value != 0


def _threads_whole(request: Request, at: Circumstances) -> str | None:
    if not _seed(at) or not (on(at.facts, "cpu_multi_copy_pages") or _starts_threads(request)):
        return None
    match request:
        case StirCpu(cpu):  # what is worst of it lies in between
            after = project(at.facts, SetCpu(cpu, online=False), at.tiers)
        case SetCpu():
            after = project(at.facts, request, at.tiers)
        case _ if _starts_threads(request):
            after = project(at.facts, request, at.tiers)
        case _:
            return None
    if effective_threads_broken(after):
        return (
            f"limit_mt_num {live(at.facts, 'limit_mt_num')} does not fit the CPUs online: "
            "a seed kernel's threads would lose the last bytes of pages"
        )
    return None


def _starts_threads(request: Request) -> bool:
    return _sets(request, "cpu_multi_copy_pages", 1)


def _turns_tiering_on(request: Request) -> bool:
    return _sets(request, "numa_balancing", *TIERING_MODES) or _sets(request, "demotion_enabled", 1)


def _tiering_on_cpuless(request: Request, at: Circumstances) -> str | None:
    if not _turns_tiering_on(request):
        return None
    slow = at.tiers.slow_of(at.facts)
    if not slow:
        return f"there is no {words(at.tiers.slow).removeprefix('no ')} to be the slow tier"
    having = next((one for one in slow if one.cpus), None)
    return None if having is None else f"node {having.id} has {len(having.cpus)} CPUs online"


def _tiering_without_swap(request: Request, at: Circumstances) -> str | None:
    if _turns_tiering_on(request) and at.facts.swaps and demotes_to_disk(at.facts):
        return f"swap is on ({at.facts.swaps[0].path}): demotion would go to disk"
    return None


def _promotion_can_go(request: Request, at: Circumstances) -> str | None:
    limit = live(at.facts, "promote_rate_limit_MBps")
    if not _sets(request, "numa_balancing", *TIERING_MODES) or limit is None:
        return None
    if not value_refusal("promote_rate_limit_MBps", limit, at.facts):
        return None
    return f"promote_rate_limit_MBps is {limit}: nothing would be promoted"


def _watermark_after_tiering(request: Request, at: Circumstances) -> str | None:
    if _sets(request, "demote_scale_factor") and not tiered(at.facts):
        return "numa_balancing is neither 2 nor 3: the watermark would not be computed"
    return None


def _cpu_of_slow_node(request: Request, at: Circumstances) -> str | None:
    if not isinstance(request, SetCpu):
        return None
    if request.online:
        return None if request.cpu in at.facts.offline_cpus else "it is online, or not there"
    if request.cpu in at.facts.pinned_cpus or request.cpu == 0:
        return "it cannot go offline"
    if request.cpu not in cpus(at.tiers.slow_of(at.facts)):
        return f"it is not a CPU of the slow tier, {words(at.tiers.slow)}"
    if not any(n.cpus for n in at.facts.nodes if n.id not in at.tiers.slow):
        return "no other node has CPUs"
    return None


def _stirred_for_a_target(request: Request, at: Circumstances) -> str | None:
    if not isinstance(request, StirCpu):
        return None
    if not untargeted(at.facts, at.tiers):
        return "no demotion target is to be worked out"
    slow = at.tiers.slow_of(at.facts)
    if not slow or cpus(slow):
        return f"{words(at.tiers.slow)} with CPUs online, or not there: it would be no target"
    if not any(request.cpu in n.cpus and len(n.cpus) > 1 for n in at.tiers.fast_of(at.facts)):
        return f"it is not one of several CPUs of the fast tier, {words(at.tiers.fast)}"
    if request.cpu in at.facts.pinned_cpus or request.cpu == 0:
        return "it cannot go offline"
    return None


def _cpu_not_into_tiering(request: Request, at: Circumstances) -> str | None:
    if isinstance(request, SetCpu) and request.online and tiering_on(at.facts):
        return "tiering is on and its slow node must stay without CPUs"
    return None


def _swap_fits(request: Request, at: Circumstances) -> str | None:
    if not isinstance(request, SwapOff):
        return None
    used = next((s.used for s in at.facts.swaps if s.path == request.area.path), 0)
    room = sum(n.mem_free for n in at.facts.nodes)
    if used > room:
        return f"{used >> 20} MiB are swapped out but only {room >> 20} MiB are free"
    return None


def _swap_not_into_tiering(request: Request, at: Circumstances) -> str | None:
    if isinstance(request, SwapOn) and tiering_on(at.facts) and demotes_to_disk(at.facts):
        return "tiering is on: demotion would go to disk"
    return None


def _device_unheld(request: Request, at: Circumstances) -> str | None:
    name = device_of(request)
    if name is None:
        return None
    found = device(at.facts, name)
    if found is None:
        return "there is no such device"
    if on(at.facts, "dsa_state"):
        return "dsa_state is 1: the kernel may hold its queues"
    if stranded(at.facts, found):
        return f"it is {found.state}, and who held it when it halted holds it still: reboot"
    if found.clients or any(q.clients for q in found.queues):
        return "it has clients: somebody else uses it"
    if found.state not in ("enabled", "disabled"):
        return f"it is {found.state}: it needs a reset first"
    return None


def _device_off_before_load(request: Request, at: Circumstances) -> str | None:
    found = device(at.facts, request.device.id) if isinstance(request, LoadDevice) else None
    if found is not None and found.state == "enabled":
        return "it is enabled: accel-config would skip it and say that all is well"
    return None


def _device_without_event_log(request: Request, at: Circumstances) -> str | None:
    if not isinstance(request, StopDevice) or at.facts.kernel.evl_guard:
        return None
    found = device(at.facts, request.device)
    if found is not None and not found.event_log:
        return f"disabling a device without event log oopses kernel {at.facts.kernel.release}"
    return None


def _iommu_when_off(request: Request, at: Circumstances) -> str | None:
    found = device(at.facts, request.device) if isinstance(request, SetIommu) else None
    if found is not None and found.state == "enabled":
        return "it is enabled: its queues would go with it"
    return None


def _iommu_of_one_alone(request: Request, at: Circumstances) -> str | None:
    found: DsaDevice | Unbound | None = None
    if isinstance(request, SetIommu):
        found = device(at.facts, request.device)
    elif isinstance(request, BindDevice) and request.type:
        found = loose(at.facts, request.pci)
    return None if found is None else closed_iommu(at.facts, found.group)


def _bind_what_is_loose(request: Request, at: Circumstances) -> str | None:
    if isinstance(request, BindDevice) and loose(at.facts, request.pci) is None:
        return "a driver has it, or it is no DSA device"
    return None


def _memory_of_kmem(request: Request, at: Circumstances) -> str | None:
    if not isinstance(request, OnlineMemory):
        return None
    found = memory_device(at.facts, request.device)
    if found is None:
        return "there is no such device"
    if found.driver != "kmem" or found.blocks is None:
        return "kmem does not have it: its memory may be a program's"
    if found.target_node != request.node:
        return f"its memory is that of node {found.target_node}"
    if strange := set(request.blocks) - found.blocks.all:
        return f"memory blocks {ranges(strange)} are none of its own"
    return None


# fmt: off
GUARDS: tuple[Guard, ...] = (
    Guard("known-kernel",             _known_kernel),
    Guard("knob-present",             _present),
    Guard("value-in-range",           _range),
    Guard("engine-needs-init",        _engine_needs_init),
    Guard("engine-needs-channels",    _engine_needs_channels),
    Guard("engine-needs-health",      _engine_needs_health),
    Guard("release-after-engine",     _release_after_engine),
    Guard("release-when-quiet",       _release_when_quiet),
    Guard("release-what-is-whole",    _release_what_is_whole),
    Guard("start-once",               _start_once),
    Guard("start-before-engine",      _start_before_engine),
    Guard("start-with-queues",        _start_with_queues),
    Guard("start-without-foreign",    _start_without_foreign),
    Guard("start-untranslated",       _start_untranslated),
    Guard("channels-while-held",      _channels_while_held),
    Guard("concurrency-fits",         _concurrency_fits),
    Guard("threads-whole",            _threads_whole),
    Guard("tiering-on-cpuless",       _tiering_on_cpuless),
    Guard("tiering-without-swap",     _tiering_without_swap),
    Guard("promotion-can-go",         _promotion_can_go),
    Guard("watermark-after-tiering",  _watermark_after_tiering),
    Guard("cpu-of-slow-node",         _cpu_of_slow_node),
    Guard("stirred-for-a-target",     _stirred_for_a_target),
    Guard("cpu-not-into-tiering",     _cpu_not_into_tiering),
    Guard("swap-fits",                _swap_fits),
    Guard("swap-not-into-tiering",    _swap_not_into_tiering),
    Guard("device-unheld",            _device_unheld),
    Guard("device-off-before-load",   _device_off_before_load),
    Guard("device-without-event-log", _device_without_event_log),
    Guard("iommu-when-off",           _iommu_when_off),
    Guard("iommu-of-one-alone",       _iommu_of_one_alone),
    Guard("bind-what-is-loose",       _bind_what_is_loose),
    Guard("memory-of-kmem",           _memory_of_kmem),
)
# fmt: on
