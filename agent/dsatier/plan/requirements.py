# SPDX-License-Identifier: Apache-2.0
"""Requirements: what a host must have for a desired state, each with its remedy.

``doctor`` prints the findings, and no plan is made against a blocker: capacity
is checked before the first write, not after a failed start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dsatier.facts.knobs import KNOBS
from dsatier.facts.model import Facts
from dsatier.facts.readings import (
    live,
    thread_counts,
    value_refusal,
)
from dsatier.plan.model import Desired, Finding
from dsatier.plan.outlook import (
    with_cpus,
)
from dsatier.plan.requirements_dsa import (
    accel_config_there,
    addresses_untranslated,
    channels_ours_alone,
    concurrency_fits,
    devices_can_stop,
    devices_there,
    dsa_can_be_freed,
    dsa_healthy,
    iommu_can_change,
    lists_fit,
    queues_are_ours,
    queues_enough,
    unit_rights,
)
from dsatier.plan.requirements_tiers import (
    _turns_tiering_on,
    cpus_can_go,
    memory_mixed,
    memory_there,
    memory_zone,
    nodes_known,
    promotion_can_go,
    quiet_can_be_had,
    swap_fits,
    target_in_reach,
    tiering_conditions,
    tiers_apart,
    tiers_exist,
    watermark_order,
)


def findings(
    facts: Facts,
    desired: Desired,
    requirements: tuple[Requirement, ...] | None = None,
) -> tuple[Finding, ...]:
    """Return what stands against ``desired`` on this host, blockers first."""
    order = ("blocker", "reboot", "warning")
    found = [
        finding
        for requirement in (REQUIREMENTS if requirements is None else requirements)
        for finding in requirement(facts, desired)
    ]
    return tuple(sorted(found, key=lambda finding: order.index(finding.level)))


Requirement = Callable[[Facts, Desired], Iterator[Finding]]


def known_kernel(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """The kernel's ABI must be one that this agent knows."""
    if facts.kernel.family == "unknown":
        yield Finding(
            "blocker",
            "known-kernel",
            "/sys/kernel/mm/dsatier/abi",
            "ABI 1",
            f"ABI {facts.kernel.abi}",
            "install the dsatier that belongs to this kernel",
        )


def knobs_present(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """The kernel must have the knobs that are to be set."""
    absent = [name for name in desired.knobs or {} if name not in facts.knobs]
    for mainline, remedy in (
        (True, "boot a kernel with NUMA_BALANCING and MIGRATION"),
        (False, "install and boot dsatier's kernel package, or leave the fields out"),
    ):
        names = [name for name in absent if KNOBS[name].mainline == mainline]
        if names:
            yield Finding(
                "blocker",
                "knobs-present",
                f"kernel {facts.kernel.release}",
                f"the knobs {', '.join(names)}" if len(names) > 1 else f"the knob {names[0]}",
                "a kernel without them" if len(names) > 1 else "a kernel without it",
                remedy,
            )


def values_in_range(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """Every value must be one that this kernel takes without harm."""
    then = with_cpus(facts, desired)
    for name, value in (desired.knobs or {}).items():
        refusal = value_refusal(name, value, then) if name in facts.knobs else None
        if refusal is not None:
            yield Finding(
                "blocker",
                "values-in-range",
                name,
                "a value that this kernel handles right",
                refusal,
                "choose another value, or dsatier's kernel, which handles all",
            )


def threads_whole(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """A seed kernel's CPU threads must not lose bytes with the value that is live."""
    if facts.kernel.family != "seed" or desired.wants("cpu_multi_copy_pages") != 1:
        return
    count = desired.wants("limit_mt_num")
    found = live(facts, "limit_mt_num") if count is None else None
    allowed = thread_counts(with_cpus(facts, desired))
    if found is not None and found not in allowed:
        yield Finding(
            "blocker",
            "threads-whole",
            "limit_mt_num",
            f"one of {', '.join(map(str, sorted(allowed)))}",
            str(found),
            "name engine.limit_mt_num in the profile",
        )


def kernel_configured(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """The kernel must be built with what the desired state rests on, where that can be read."""
    config = facts.kernel.config
    if config is None:
        return
    needed: list[tuple[str, tuple[str, ...], str]] = []
    if desired.queues:
        needed.append(("CONFIG_INTEL_IDXD", ("y", "m"), "blocker"))
    if _turns_tiering_on(desired):
        # without hotplugged memory a seed kernel has no demotion targets
        level = "blocker" if facts.kernel.family == "seed" else "warning"
        needed.append(("CONFIG_MEMORY_HOTPLUG", ("y",), level))
        needed.append(("CONFIG_NUMA_BALANCING", ("y",), "blocker"))
    for option, values, level in needed:
        if config.get(option) not in values:
            yield Finding(
                "blocker" if level == "blocker" else "warning",
                "kernel-configured",
                f"kernel {facts.kernel.release}",
                f"{option}={values[0]}",
                config.get(option) or "not set",
                "install and boot dsatier's kernel package",
            )


def knobs_uncontested(facts: Facts, desired: Desired) -> Iterator[Finding]:
    """No other tool should be set up to write the same knobs."""
    ours = set(desired.knobs or {}) | ({"queues"} if desired.queues else set())
    for writer in facts.others:
        shared = sorted(ours & set(writer.items))
        if shared:
            yield Finding(
                "warning",
                "knobs-uncontested",
                writer.path,
                "one writer for each knob",
                f"{writer.tool} sets {', '.join(shared)}",
                f"take {'them' if len(shared) > 1 else 'it'} out of {writer.path}",
            )


REQUIREMENTS: tuple[Requirement, ...] = (
    known_kernel,
    knobs_present,
    values_in_range,
    threads_whole,
    memory_there,
    memory_zone,
    memory_mixed,
    tiers_exist,
    nodes_known,
    tiers_apart,
    tiering_conditions,
    promotion_can_go,
    watermark_order,
    cpus_can_go,
    devices_there,
    queues_are_ours,
    devices_can_stop,
    accel_config_there,
    queues_enough,
    kernel_configured,
    dsa_healthy,
    addresses_untranslated,
    iommu_can_change,
    unit_rights,
    channels_ours_alone,
    concurrency_fits,
    lists_fit,
    dsa_can_be_freed,
    quiet_can_be_had,
    target_in_reach,
    swap_fits,
    knobs_uncontested,
)
