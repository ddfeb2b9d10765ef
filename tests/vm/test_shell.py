# SPDX-License-Identifier: Apache-2.0
"""``make vm``, as a person uses it: at a terminal."""

from __future__ import annotations

import os

import pytest

from vm.terminal import terminal

pytestmark = pytest.mark.system
SECONDS = 120.0


def test_a_shell_with_devices() -> None:
    """The guest's shell is at the terminal; its devices are loaded, listed, and used by dmatest."""
    environment = {**os.environ, "DEVICES": "2", "VERSION": "2.0", "IOMMU": "off"}
    with terminal("vm", environment=environment) as shell:
        shell.until(r"vm: Linux 6\.12.*up in", SECONDS)
        shell.until(
            r"2 DSA devices of version 2\.0, IOMMU off, two tiers(?s:.*)vm:~?[^#]*# ", SECONDS
        )
        shell.type("accel-config load-config -c queues.json -e && echo lo''aded\n")
        shell.until(r"\nloaded\n", SECONDS)
        shell.type("insmod /lib/dmatest.ko iterations=10 run=1; sleep 2; dmesg | tail\n")
        shell.until(r"summary 10 tests, 0 failures", SECONDS)
        shell.type("exit\n")
        assert 0 == shell.ended(SECONDS)
