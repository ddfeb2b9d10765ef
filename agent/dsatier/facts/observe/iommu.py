# SPDX-License-Identifier: Apache-2.0
"""How DMA addresses are translated. The DSA devices decide, where there are any."""

from __future__ import annotations

from dsatier.facts.model import Iommu, IommuGroup, Neighbour
from dsatier.facts.observe.read import optional
from dsatier.host.port import Host

GROUPS = "/sys/kernel/iommu_groups"
PCI = "/sys/bus/pci/devices"
DEFAULT_ON = "CONFIG_INTEL_IOMMU_SCALABLE_MODE_DEFAULT_ON"


def group_of(host: Host, address: str) -> IommuGroup | None:
    """Return the IOMMU group of the device at a PCI address, None where it is in none."""
    number = (host.link(f"{PCI}/{address}/iommu_group") or "").rpartition("/")[2]
    if not number:
        return None
    others = (one for one in host.entries(f"{GROUPS}/{number}/devices") if one != address)
    return IommuGroup(
        number,
        (optional(host, f"{GROUPS}/{number}/type") or "").strip(),
        tuple(Neighbour(one, driver_of(host, one)) for one in others),
    )


def driver_of(host: Host, address: str) -> str:
    """Return the driver that has the device at a PCI address, empty where none has it."""
    return (host.link(f"{PCI}/{address}/driver") or "").rpartition("/")[2]


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
