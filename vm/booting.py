# SPDX-License-Identifier: Apache-2.0
"""A guest in one call, with what ``images`` has where nothing else is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vm import images
from vm.guest import BOOT, Guest
from vm.kernel import Kernel
from vm.machine import Machine

ACCEL_CONFIG = Path("/usr/bin/accel-config")


def guest(
    machine: Machine | None = None,
    *,
    kernel: Kernel | None = None,
    emulator: Path | None = None,
    root: Path | None = None,
    load: Sequence[str] = (),
    carry: Sequence[str] = (),
    programs: Sequence[Path] = (),
    files: Mapping[str, Path | bytes] | None = None,
    timeout: float = BOOT,
) -> Guest:
    """Return a guest that boots when its ``with`` block begins.

    Without ``machine`` it has two tiers and no devices, without ``kernel`` Debian's own. ``root``
    is ``images.debian_root()`` for one with systemd; else it is busybox in memory. ``load`` and
    ``carry`` name modules, ``programs`` are dynamic programs of this machine, and ``files`` go to
    absolute paths. Raises Missing and ValueError.

    >>> with guest(Machine(), load=["idxd"]) as vm:  # doctest: +SKIP
    ...     vm.ok("cat", "/sys/devices/system/node/online")
    '0-1\\n'
    """
    return Guest(
        machine or Machine(),
        kernel=kernel or images.debian_kernel(),
        emulator=emulator or images.emulator(),
        agent=images.agent(),
        busybox=images.busybox(),
        root=root,
        load=load,
        carry=carry,
        programs=programs,
        files=files,
        timeout=timeout,
    )
