# SPDX-License-Identifier: Apache-2.0
"""Observing a host: from its files to facts.

What is missing comes out empty, None or "unknown"; a content that no kernel writes raises
``parse.Malformed``. ``kernel``, ``topology``, ``iommu``, ``dsa`` and ``other_writers`` each know
the files of one concern, ``parse`` what is in them.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from dsatier.facts.knobs import KNOBS, TIMER
from dsatier.facts.model import DsaDevice, Facts, Iommu, Kernel, Speed
from dsatier.facts.observe import dsa, iommu, memory, parse, topology, unit
from dsatier.facts.observe import kernel as kernels
from dsatier.facts.observe.dsa import DsaEyes
from dsatier.facts.observe.other_writers import others
from dsatier.facts.observe.read import optional
from dsatier.facts.partial import unseen
from dsatier.facts.readings import worst
from dsatier.host.port import Host, Missing, Rejected

_LET_GO = re.compile(
    r"DMA memcpy module exit\.|Failed to get DMA channel [1-9]|dsa_init: no device: "
    r"|Failed to allocate page for (?:idxd_desc|dsa_)"
)
"""What a seed kernel logs when it lets go of channels: at a release, and where a start fails
midway. One that fails at channel 0 had none yet."""
_SWAPS = "/proc/swaps"
_ZONES = "/proc/zoneinfo"
_TAINTED = "/proc/sys/kernel/tainted"


def observe(host: Host) -> Facts:
    """Return the facts of a host now. Raises HostError."""
    return Observer(host).look()


class Observer:
    """Looks at one host again and again, and reads only once a boot what stays.

    A look takes in everything that can change: knobs, nodes, CPUs, devices, channels,
    swap, timer, other tools. Kernel, CPU model, capabilities, the CPUs that cannot go
    offline and the version of accel-config are asked for once. The kernel log is read on
    from where the look before ended.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._boot: _Boot | None = None

    def look(self) -> Facts:
        """Return the facts now. Raises HostError."""
        boot = self._booted()
        devices = boot.eyes.devices()
        boot.see(devices)
        return self._gathered(
            boot,
            iommu=boot.iommu(devices),
            devices=devices,
            channels=dsa.channels(self._host, devices),
            accel_config=boot.accel_config(bool(devices)),
            others=others(self._host),
            elsewhere=dsa.elsewhere(self._host),
            unbound=boot.eyes.unbound(),
        )

    def glimpse(self, devices: Collection[str] = ()) -> Facts:
        """Return the facts now, of DSA devices only those of these names. Raises HostError.

        To ask for the others, or for what they make, raises NotSeen.
        """
        boot = self._booted()
        return self._gathered(boot, **unseen(boot.eyes.devices(devices) if devices else ()))

    def _booted(self) -> _Boot:
        if self._boot is None or self._boot.kernel.boot_id != kernels.boot_id(self._host):
            self._boot = _Boot(self._host)
        return self._boot

    def _gathered(self, boot: _Boot, **more: Any) -> Facts:
        """Return the facts with those of DSA devices, which are most of a look."""
        host = self._host
        swaps = optional(host, _SWAPS)
        nodes = topology.nodes(host, boot.demotion(), boot.speed)
        timer = optional(host, TIMER)
        return Facts(
            schema_version=1,
            hostname=host.hostname(),
            cpu_model=boot.cpu_model,
            kernel=boot.kernel,
            scalable_mode=boot.scalable_mode,
            nodes=nodes,
            offline_cpus=topology.offline(host),
            pinned_cpus=boot.pinned,
            smt=topology.smt(host),
            second_threads=boot.second_threads,
            knobs=_knobs(host),
            timer={} if timer is None else parse.timer(timer, TIMER),
            swaps=() if swaps is None else parse.swaps(swaps, _SWAPS),
            dsa_released=boot.released(),
            boot_taint=_number(host, _TAINTED),
            kernel_log=boot.logs,
            memory_devices=boot.memory_eyes.devices(nodes),
            unit_lacks=boot.unit_lacks,
            **more,
        )


class _Boot:
    """What is known of a host for as long as it does not boot again."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.kernel: Kernel = kernels.kernel(host)
        self.scalable_mode = iommu.scalable_mode(self.kernel.cmdline, self.kernel.config)
        self.cpu_model = topology.cpu_model(host)
        self.pinned = topology.pinned(host)
        self.second_threads = topology.second_threads(host)
        self._accel_config: str | None = None
        self._had_devices = False
        self._seen: set[str] = set()
        self.eyes = DsaEyes(host)
        self.memory_eyes = memory.MemoryEyes(host)
        self._speeds: dict[int, Speed | None] = {}
        self._shows_demotion = True
        self._released: bool | None = False
        self.logs = _logs(host)
        self.unit_lacks = unit.lacks(host)
        self._mark = 0

    def see(self, devices: tuple[DsaDevice, ...]) -> None:
        """Ask each device once whether its PASID shows that scalable mode is on."""
        for device in devices:
            if device.id not in self._seen and not self.scalable_mode:
                self.scalable_mode = dsa.has_pasid(self._host, device.id)
            self._seen.add(device.id)

    def iommu(self, devices: tuple[DsaDevice, ...]) -> Iommu:
        """Return how these DSA devices are translated."""
        groups = [device.group for device in devices if device.pci]
        return worst(groups) if groups else iommu.asked_for(self.kernel.cmdline)

    def accel_config(self, devices: bool) -> str | None:
        """Return its version, None without devices: it may not say so, and nobody needs it."""
        if devices and not self._had_devices:
            self._accel_config = kernels.accel_config(self._host)
        self._had_devices = devices
        return self._accel_config if devices else None

    def demotion(self) -> dict[int, parse.Demotion]:
        """Return what the kernel shows of the nodes' demotion: a long file, read if it has any."""
        if not self._shows_demotion:
            return {}
        found = parse.demotion(optional(self._host, _ZONES) or "")
        self._shows_demotion = bool(found)
        return found

    def speed(self, node: int) -> Speed | None:
        """Return how fast a node's memory is: firmware says it once, when the node comes."""
        if node not in self._speeds:
            self._speeds[node] = memory.speed(self._host, node)
        return self._speeds[node]

    def released(self) -> bool | None:
        """Tell whether the log says that a seed kernel has released channels."""
        if self.kernel.family != "seed" or self._released:
            return self.kernel.family == "seed"
        try:
            mark = self._host.log_mark()
            tail = self._host.log_since(self._mark)
        except (Missing, Rejected):
            return None
        self._mark = mark
        if any(map(lets_go, tail.lines)):
            self._released = True
        elif not tail.complete:
            self._released = None
        return self._released


def _logs(host: Host) -> bool:
    """Tell whether the kernel log can be read."""
    try:
        host.log_mark()
    except (Missing, Rejected):
        return False
    return True


def lets_go(line: str) -> bool:
    """Tell whether a line of the kernel log says that a seed kernel lets go of channels."""
    return bool(_LET_GO.match(line))


def _knobs(host: Host) -> dict[str, str]:
    found = {name: optional(host, knob.path) for name, knob in KNOBS.items()}
    return {name: parse.knob(name, value) for name, value in found.items() if value is not None}


def _number(host: Host, path: str) -> int:
    found = optional(host, path)
    return 0 if found is None else parse.whole(found, path)


__all__ = ["Observer", "lets_go", "observe"]
