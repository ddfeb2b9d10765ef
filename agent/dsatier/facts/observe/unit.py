# SPDX-License-Identifier: Apache-2.0
"""What the daemon's unit may do, by the process that runs in it.

Asked of the kernel and not of systemd's files: what they say holds from the next start on.
"""

from __future__ import annotations

from dsatier.base.paths import LOCK
from dsatier.facts.observe.iommu import GROUPS
from dsatier.facts.observe.read import readable
from dsatier.host.port import Host

UNIT = "dsatier.service"
RAW_IO = 17
"""The bit of CAP_SYS_RAWIO: who writes a type must have it, and CAP_SYS_ADMIN."""


def lacks(host: Host) -> tuple[str, ...]:
    """Return what the unit lacks for writing types of IOMMU groups; nothing where it is not up."""
    process = (readable(host, LOCK) or "").partition("\n")[0]
    groups = readable(host, f"/proc/{process}/cgroup") if process.isdigit() else None
    if not any(line.endswith(f"/{UNIT}") for line in (groups or "").splitlines()):
        return ()
    missing = []
    if not _capable(readable(host, f"/proc/{process}/status") or "", RAW_IO):
        missing.append("CAP_SYS_RAWIO")
    if _read_only(readable(host, f"/proc/{process}/mountinfo") or "", GROUPS):
        missing.append(f"write access to {GROUPS}")
    return tuple(missing)


def _capable(status: str, bit: int) -> bool:
    """Return whether a process has a capability, True if its status does not show any."""
    told = (line.split() for line in status.splitlines())
    held = next((words[1] for words in told if words[:1] == ["CapEff:"]), None)
    return held is None or bool(int(held, 16) >> bit & 1)


def _read_only(mounts: str, folder: str) -> bool:
    """Tell whether a process sees a folder by a mount that is read-only."""
    place, options = "", ""
    for line in mounts.splitlines():
        words = line.split()
        point = words[4]
        inside = f"{folder}/".startswith(f"{point.rstrip('/')}/")
        if inside and len(point) >= len(place):  # of two at one place the later is seen
            place, options = point, words[5]
    return "ro" in options.split(",")
