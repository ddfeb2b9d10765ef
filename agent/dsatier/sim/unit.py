# SPDX-License-Identifier: Apache-2.0
"""The daemon's unit: what the kernel shows of the process that runs in it, and its rights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsatier.base.paths import LOCK

if TYPE_CHECKING:
    from dsatier.sim.spec import HostSpec

_PROCESS = 812
_GROUPS = "/sys/kernel/iommu_groups"
_CAPABILITIES = {"shipped": 0x400200000, "past-iommu": 0x400220000}
"""CAP_SYS_ADMIN and CAP_SYSLOG; with the drop-in CAP_SYS_RAWIO, too."""
_SYS = ("ro", "/sys"), ("rw", "/sys/devices"), ("rw", "/sys/bus")


def files(spec: HostSpec) -> dict[str, str]:
    """Return the files of the process that runs in the unit, none where nobody does."""
    if spec.unit is None:
        return {}
    folder = f"/proc/{_PROCESS}"
    mounts = _SYS if spec.unit == "shipped" else (*_SYS, ("rw", _GROUPS))
    return {
        LOCK: f"{_PROCESS}\ndsatier daemon\ndsatier daemon\n",
        f"{folder}/cgroup": "0::/system.slice/dsatier.service\n",
        f"{folder}/status": f"Name:\tdsatier\nCapEff:\t{_CAPABILITIES[spec.unit]:016x}\n",
        f"{folder}/mountinfo": "".join(
            f"{n} 1 0:21 / {place} {mode},nosuid - sysfs sysfs rw\n"
            for n, (mode, place) in enumerate(mounts, 30)
        ),
    }
