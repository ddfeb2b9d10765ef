# SPDX-License-Identifier: Apache-2.0
"""How DMA addresses are translated. The DSA devices decide, where there are any."""

from __future__ import annotations

from dsatier.facts.model import Iommu
from dsatier.facts.observe.read import optional
from dsatier.host.port import Host

GROUPS = "/sys/kernel/iommu_groups"
DEFAULT_ON = "CONFIG_INTEL_IOMMU_SCALABLE_MODE_DEFAULT_ON"
_TYPES: dict[str, Iommu] = {
    "identity": "passthrough",
    "DMA": "translated",
    "DMA-FQ": "translated",
}


def groups_of(host: Host, addresses: frozenset[str]) -> dict[str, str]:
    """Return the IOMMU group of each PCI address that is in one. A look at every group."""
    found: dict[str, str] = {}
    for group in host.entries(GROUPS):
        if len(found) == len(addresses):
            break
        for address in addresses.intersection(host.entries(f"{GROUPS}/{group}/devices")):
            found[address] = group
    return found


def of_devices(host: Host, addresses: frozenset[str], groups: dict[str, str]) -> Iommu:
    """Return how the devices are translated: the worst of them.

    A device in no group is behind no IOMMU.
    """
    kinds: set[Iommu] = set()
    for address in addresses:
        if address in groups:
            kind = optional(host, f"{GROUPS}/{groups[address]}/type")
            kinds.add(_TYPES.get((kind or "").strip(), "unknown"))
        else:
            kinds.add("off")
    worst: tuple[Iommu, ...] = ("translated", "unknown", "passthrough", "off")
    return next((kind for kind in worst if kind in kinds), "unknown")


def asked_for(cmdline: tuple[str, ...]) -> Iommu:
    """Return what the boot parameters say, where there is no device to ask."""
    intel = ",".join(w.partition("=")[2] for w in cmdline if w.startswith("intel_iommu="))
    words = [w.partition("=")[2] for w in cmdline if w.startswith("iommu=")]
    generic = ",".join(words).split(",")
    passthrough = "pt" in generic or "iommu.passthrough=1" in cmdline
    switches = [word for word in intel.split(",") if word in ("on", "off")]
    if "off" in generic or (switches and switches[-1] == "off"):
        return "off"
    if passthrough:
        return "passthrough"
    return "translated" if switches else "unknown"


def scalable_mode(cmdline: tuple[str, ...], config: dict[str, str] | None = None) -> bool:
    """Tell whether scalable mode was asked for: the last word counts, then the kernel's default."""
    asked = [
        word
        for parameter in cmdline
        if parameter.startswith("intel_iommu=")
        for word in parameter.partition("=")[2].split(",")
        if word in ("sm_on", "sm_off")
    ]
    if not asked:
        return (config or {}).get(DEFAULT_ON) == "y"
    return asked[-1] == "sm_on"
