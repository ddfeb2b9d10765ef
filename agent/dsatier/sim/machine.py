# SPDX-License-Identifier: Apache-2.0
"""The files that tell what machine it is: CPUs, nodes, memory, kernel."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from dsatier.sim import memory, pressure, sysctl
from dsatier.sim.parse import to_list

if TYPE_CHECKING:
    from dsatier.sim.kernel import Kernel
    from dsatier.sim.spec import HostSpec

Show = Callable[["Kernel"], str]


def files(spec: HostSpec) -> dict[str, Show]:
    """Return the read-only files of a host that are no device's."""
    every: dict[str, Show] = {
        "/proc/sys/kernel/osrelease": lambda k: f"{k.spec.kernel.release}\n",
        "/proc/sys/kernel/ostype": lambda _: "Linux\n",
        "/proc/sys/kernel/hostname": lambda k: f"{k.spec.hostname}\n",
        "/proc/sys/kernel/tainted": lambda k: f"{k.state.tainted}\n",
        "/proc/sys/kernel/random/boot_id": lambda k: f"{boot_id(k)}\n",
        "/proc/cmdline": cmdline,
        "/proc/version": lambda k: f"Linux version {k.spec.kernel.release}\n",
        "/proc/uptime": lambda k: f"{k.state.now:.2f} {k.state.now:.2f}\n",
        "/proc/cpuinfo": cpuinfo,
        "/proc/meminfo": memory.meminfo,
        "/proc/zoneinfo": memory.zoneinfo,
        "/proc/vmstat": pressure.vmstat,
        "/proc/swaps": memory.swaps,
        f"/boot/config-{spec.kernel.release}": config,
        "/sys/devices/system/node/online": nodes,
        "/sys/devices/system/node/possible": lambda k: to_list(list(range(len(k.spec.nodes)))),
        "/sys/devices/system/node/has_memory": nodes_with_memory,
        "/sys/devices/system/node/has_cpu": nodes_with_cpus,
        "/sys/devices/system/cpu/possible": lambda k: to_list(_cpus(k)),
        "/sys/devices/system/cpu/present": lambda k: to_list(_cpus(k)),
        "/sys/devices/system/cpu/online": lambda k: to_list(
            [c for c in _cpus(k) if c not in k.state.offline]
        ),
        "/sys/devices/system/cpu/offline": lambda k: to_list(tuple(k.state.offline)),
    }
    for node in range(len(spec.nodes)):
        folder = f"/sys/devices/system/node/node{node}"
        every[f"{folder}/cpulist"] = partial(_cpulist, node)
        every[f"{folder}/distance"] = partial(_distance, node)
        every[f"{folder}/meminfo"] = partial(_meminfo, node)
        if _by_node(spec):
            every[f"{folder}/vmstat"] = partial(pressure.node_vmstat, node)
    if spec.kernel.kind == "ours":
        every["/sys/kernel/mm/dsatier/abi"] = lambda _: f"{spec.kernel.abi}\n"
        every["/sys/kernel/mm/dsatier/manifest"] = manifest
    return every


def _by_node(spec: HostSpec) -> bool:
    """Tell whether a kernel counts for each node what moves: not the research ones, and not 6.1."""
    return spec.kernel.kind in ("ours", "stock") and not spec.kernel.release.startswith("6.1.")


def _cpus(k: Kernel) -> tuple[int, ...]:
    return tuple(cpu for node in k.layout.cpus for cpu in node)


def boot_id(k: Kernel) -> str:
    """Return the id of this boot, another one at each boot of a host."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{k.spec.hostname}.{k.state.boot}"))


def cmdline(k: Kernel) -> str:
    """Return the boot parameters, with those that the description of the IOMMU implies."""
    words = k.spec.kernel.cmdline.split()
    if k.spec.iommu != "off" and not any(w.startswith("intel_iommu=") for w in words):
        words.append("intel_iommu=on,sm_on" if k.spec.scalable_mode else "intel_iommu=on")
    if k.spec.iommu == "passthrough" and "iommu=pt" not in words:
        words.append("iommu=pt")
    return " ".join(words) + "\n"


def cpuinfo(k: Kernel) -> str:
    """Return /proc/cpuinfo with one paragraph for each CPU that is online."""
    flags = "fpu lm constant_tsc movdiri movdir64b enqcmd" + (" waitpkg" if k.spec.waitpkg else "")
    return "".join(
        f"processor\t: {cpu}\nvendor_id\t: GenuineIntel\nmodel name\t: {k.spec.cpu_model}\n"
        f"flags\t\t: {flags}\n\n"
        for cpu in _cpus(k)
        if cpu not in k.state.offline
    )


def config(k: Kernel) -> str:
    """Return /boot/config-RELEASE."""
    head = "#\n# Automatically generated file; DO NOT EDIT.\n#\n"
    return head + "".join(
        f"# {name} is not set\n" if value == "n" else f"{name}={value}\n"
        for name, value in k.spec.kernel.config.items()
    )


def nodes(k: Kernel) -> str:
    """Return the list of nodes."""
    return to_list([n for n in range(len(k.spec.nodes)) if k.there(n)])


def nodes_with_memory(k: Kernel) -> str:
    """Return the list of nodes that have memory online."""
    return to_list([n for n in range(len(k.spec.nodes)) if memory.total(k, n)])


def nodes_with_cpus(k: Kernel) -> str:
    """Return the list of nodes that have a CPU online."""
    return to_list([n for n in range(len(k.spec.nodes)) if k.online(n)])


def _cpulist(node: int, k: Kernel) -> str:
    return to_list([c for c in k.layout.cpus[node] if c not in k.state.offline])


def _distance(node: int, k: Kernel) -> str:
    if k.spec.distances:
        row = k.spec.distances[node]
    else:
        row = tuple(10 if other == node else 21 for other in range(len(k.spec.nodes)))
    return " ".join(str(far) for other, far in enumerate(row) if k.there(other)) + "\n"


def _meminfo(node: int, k: Kernel) -> str:
    return memory.node_meminfo(k, node)


_ERRORS = {
    "dsa_state": ["ENODEV", "ENOMEM", "EBUSY", "EINVAL"],
    "limit_chans": ["EBUSY", "EINVAL"],
}


def manifest(k: Kernel) -> str:
    """Return the manifest of our kernel: its knobs with range, default and errors."""
    rows = [
        {
            "name": row.name,
            "path": sysctl.path(row.name),
            "min": row.low,
            "max": row.high,
            "default": row.default,
            "errors": _ERRORS.get(row.name, ["EINVAL"]),
        }
        for row in k.layout.knobs
        if row.name not in sysctl.MAINLINE or row.name == "demotion_enabled"
    ]
    return json.dumps({"abi": 1, "version": k.spec.kernel.release, "knobs": rows}) + "\n"
