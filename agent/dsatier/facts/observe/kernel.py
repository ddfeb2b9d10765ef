# SPDX-License-Identifier: Apache-2.0
"""What is known of the kernel: release, family, parameters, configuration."""

from __future__ import annotations

import re

from dsatier.facts.model import Family, Kernel
from dsatier.facts.observe import parse
from dsatier.facts.observe.read import optional, readable
from dsatier.host.port import Host, Hung, Missing, Rejected

KNOWN_ABI = (1,)
"""Versions of our kernel's ABI that this agent knows."""
ABI = "/sys/kernel/mm/dsatier/abi"
UNKNOWN = "unknown"
SEED_KNOB = "/proc/sys/vm/dsa_state"
BOOT_ID = "/proc/sys/kernel/random/boot_id"

CONFIG = {
    "CONFIG_ACPI_HMAT": "memory tiers by their speed",
    "CONFIG_DMA_ENGINE": "DMA channels",
    "CONFIG_INTEL_IDXD": "the driver of the DSA",
    "CONFIG_INTEL_IDXD_SVM": "shared queues for user space",
    "CONFIG_INTEL_IOMMU": "the IOMMU that the DSA may be behind",
    "CONFIG_INTEL_IOMMU_SCALABLE_MODE_DEFAULT_ON": "sm_on without a boot parameter",
    "CONFIG_INTEL_IOMMU_SVM": "shared queues for user space",
    "CONFIG_MEMORY_HOTPLUG": "without it there are no demotion targets",
    "CONFIG_MIGRATION": "pages can move at all",
    "CONFIG_NUMA_BALANCING": "memory tiering",
    "CONFIG_NUMA_BALANCING_DEFAULT_ENABLED": "balancing from boot on, which TPP does not tell",
    "CONFIG_PANIC_ON_OOPS": "an oops ends the host",
    "CONFIG_TRANSPARENT_HUGEPAGE": "huge pages, which the DSA copies best",
}
"""The options that matter, and what for."""
_NAMES = frozenset(CONFIG)

EVL_GUARD: tuple[tuple[str, bool, str], ...] = (
    (r".*\.el\d.*", False, "its vendor backports idxd, so the version tells nothing"),
    (r"[0-5]\.\d+(\D.*)?", True, "older than the event log, which came with 6.4"),
    (r"6\.[0-3](\D.*)?", True, "older than the event log, which came with 6.4"),
    (r"6\.6\.([1-9]|[1-9]\d)(\D.*)?", True, "asks the device's register before it frees"),
    (r"6\.12\.([1-9]|[1-4]\d)(\D.*)?", True, "asks the device's register before it frees"),
    (r"6\.12\.117(\D.*)?", False, "asks neither the register nor the pointer"),
)
"""What is known of ``idxd_device_evl_free()``: release, whether it minds a device without
event log, and why. The first row that matches counts. Stable releases of 2026 took away
the question to the register (a change for reset without driver); some of them lack the
change that goes with it and asks the pointer. A release that matches no row is not trusted.
"""


def family(host: Host) -> tuple[Family, int | None]:
    """Return the kernel's family and the version of our ABI."""
    abi = optional(host, ABI)
    if abi is not None:
        number = parse.whole(abi, ABI)
        return ("ours" if number in KNOWN_ABI else "unknown"), number
    return ("none" if optional(host, SEED_KNOB) is None else "seed"), None


def evl_guard(release: str, kind: Family) -> bool:
    """Tell whether disabling a DSA device without event log is known to be safe."""
    if kind in ("ours", "seed"):
        return True
    rows = (guarded for pattern, guarded, _ in EVL_GUARD if re.fullmatch(pattern, release))
    return next(rows, False)


def configuration(host: Host, release: str) -> dict[str, str] | None:
    """Return the options that matter, None where the configuration cannot be read."""
    found = readable(host, f"/boot/config-{release}")
    if found is None:
        found = readable(host, "/proc/config.gz")
    return None if found is None else parse.options(found, _NAMES)


def boot_id(host: Host) -> str:
    """Return the id of this boot, empty where there is none."""
    return (optional(host, BOOT_ID) or "").strip()


def kernel(host: Host) -> Kernel:
    """Return what cannot change before the next boot."""
    release = (optional(host, "/proc/sys/kernel/osrelease") or "").strip()
    kind, abi = family(host)
    return Kernel(
        release=release,
        family=kind,
        abi=abi,
        boot_id=boot_id(host),
        cmdline=parse.words(optional(host, "/proc/cmdline") or ""),
        config=configuration(host, release),
        evl_guard=evl_guard(release, kind),
    )


def accel_config(host: Host) -> str | None:
    """Return the version of accel-config, None where it is not installed.

    "unknown" where it does not say: it says nothing while idxd is not loaded.
    """
    try:
        ran = host.run(("accel-config", "--version"), 10.0)
    except Missing:
        return None
    except (Rejected, Hung):
        return UNKNOWN
    return parse.version(ran.out) or UNKNOWN
