# SPDX-License-Identifier: Apache-2.0
"""DSA devices of a guest: who is who, their configuration, and copies by dmatest."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dsatier.plan.short_form import expand
from dsatier.profile.model import QueueShape
from dsatier.queues.accel_config import text
from vm.guest import PATIENCE, Guest

CONFIG = "/run/queues.json"
PCI = "/sys/bus/pci"
PARAMETERS = "/sys/module/dmatest/parameters"
_SUMMARY = re.compile(
    r"dmatest: (?P<channel>dma\d+chan\d+)-\w+?(?P<thread>\d+): summary (?P<tests>\d+) tests, "
    r"(?P<failures>\d+) failures (?P<iops>[\d.]+) iops (?P<rate>\d+) KB/s \((?P<code>-?\d+)\)"
)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a thread of dmatest says at its end."""

    channel: str
    tests: int
    failures: int
    iops: float
    """Tests a second, verification apart."""
    rate: int
    """KB/s."""


def summaries(lines: Sequence[str]) -> list[Summary]:
    """Return what dmatest says in lines of the kernel's log."""
    return [
        Summary(
            found["channel"],
            int(found["tests"]),
            int(found["failures"]),
            float(found["iops"]),
            int(found["rate"]),
        )
        for line in lines
        if (found := _SUMMARY.search(line))
    ]


def names(vm: Guest) -> dict[str, str]:
    """Return the emulator's name of each device that the driver has, by the driver's name."""
    told = vm.sh(
        "for device in /sys/bus/dsa/devices/dsa[0-9]*; do "
        'echo "${device##*/} $(readlink -f "$device/..")"; done'
    )
    by_address = {}
    for device in _devices(vm.qmp.execute("query-pci")):
        by_address[device["bus"], device["slot"]] = device["qdev_id"]
    found = {}
    for line in told.splitlines():
        name, path = line.split()
        _, bus, rest = path.rpartition("/")[2].split(":")
        found[name] = by_address[int(bus, 16), int(rest.partition(".")[0], 16)]
    return dict(sorted(found.items(), key=lambda item: int(item[0].removeprefix("dsa"))))


def _devices(buses: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for bus in buses:
        for device in bus.get("devices", ()):
            found.append(device)
            found += _devices([device.get("pci_bridge", {})])
    return found


def configuration(devices: int, *, queues: int = 1, engines: int = 4) -> str:
    """Return accel-config's file for dedicated kernel queues in one group, as the seed's is."""
    shape = QueueShape(devices=devices, engines=engines, queues=queues)
    return text(expand(shape, (), driver_names=True))


def load(vm: Guest, config: str, timeout: float = PATIENCE) -> None:
    """Have accel-config configure and enable what a file names."""
    vm.put(CONFIG, config)
    vm.ok("accel-config", "load-config", "-c", CONFIG, "-e", timeout=timeout)


def state(vm: Guest, name: str) -> str:
    """Return the state of a device, or of a queue, as sysfs has it."""
    return vm.read(f"/sys/bus/dsa/devices/{name}/state")


def address(vm: Guest, name: str) -> str:
    """Return a device's address on the PCI bus, from the driver's name."""
    return vm.sh(f"readlink -f /sys/bus/dsa/devices/{name}/..").strip().rpartition("/")[2]


def reset(vm: Guest, place: str, timeout: float = PATIENCE) -> None:
    """Take the driver off a device, if it is on it, reset it, and give it back to the driver."""
    vm.sh(
        """[ ! -e "$1/drivers/idxd/$2" ] || echo "$2" >"$1/drivers/idxd/unbind"
        echo 1 >"$1/devices/$2/reset"; echo "$2" >"$1/drivers/idxd/bind" """,
        *(PCI, place),
        timeout=timeout,
    )


def channels(vm: Guest, name: str = "") -> list[str]:
    """Return the DMA channels of the DSA in order, or those of one device."""
    place = f"/sys/bus/pci/devices/{address(vm, name)}/dma" if name else "/sys/class/dma"
    found = vm.sh(f"ls {place}").split()
    return sorted(found, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])


def counters(vm: Guest, device: str) -> dict[str, Any]:
    """Return what a device has done, by its name in the emulator."""
    found: dict[str, Any] = vm.device(device, "counters")
    return found


def moved(vm: Guest) -> dict[str, int]:
    """Return the bytes that each device has moved so far, by its name in the emulator."""
    return {name: counters(vm, name)["device"]["bytes-written"] for name in names(vm).values()}


def moved_since(vm: Guest, before: dict[str, int]) -> list[int]:
    """Return the bytes that each device has moved since ``moved`` was asked."""
    after = moved(vm)
    return [after[name] - before[name] for name in after]


def in_use(vm: Guest) -> int:
    """Return how many DMA channels somebody has."""
    script = 'for file in /sys/class/dma/*/in_use; do [ ! -e "$file" ] || cat "$file"; done'
    return vm.sh(script).split().count("1")


def set_dmatest(
    vm: Guest, *, threads: int = 1, iterations: int = 100, size: int = 16384, timeout: int = 10000
) -> None:
    """Set what the next run does. ``iterations`` 0 goes on until it is stopped.

    ``size`` is the most bytes of a copy, which are chosen at random, and ``timeout`` the
    milliseconds after which a copy counts as failed.
    """
    wanted = {
        "threads_per_chan": threads,
        "iterations": iterations,
        "test_buf_size": size,
        "timeout": timeout,
    }
    script = "".join(f"echo {value} >{PARAMETERS}/{name}\n" for name, value in wanted.items())
    vm.sh(script)


def start_dmatest(vm: Guest, chosen: Sequence[str]) -> None:
    """Start a run on channels; ``set_dmatest`` has said what it does."""
    script = 'cd "$1"; shift; for name; do echo "$name" >channel; done; echo 1 >run'
    vm.sh(script, PARAMETERS, *chosen)


def stop_dmatest(vm: Guest, timeout: float = PATIENCE) -> None:
    """End a run. Copies that are under way count as timed out, and dmatest warns as they end."""
    vm.allow("dmatest_callback", "dmatest was stopped with copies under way")
    vm.sh(f"echo 0 >{PARAMETERS}/run", timeout=timeout)


def dmatest(
    vm: Guest, chosen: Sequence[str], timeout: float = PATIENCE, **how: int
) -> list[Summary]:
    """Copy on channels and verify every byte; return what each thread says."""
    mark = vm.mark()
    set_dmatest(vm, **how)
    start_dmatest(vm, chosen)
    vm.sh(f"cat {PARAMETERS}/wait >/dev/null", timeout=timeout)
    found = summaries(vm.lines(mark))
    stop_dmatest(vm)
    return found
