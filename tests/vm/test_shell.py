# SPDX-License-Identifier: Apache-2.0
"""``make vm``, as a person uses it: at a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest

from tests.vm.images import REPOSITORY

pytestmark = pytest.mark.system
SECONDS = 120.0


def test_a_shell_with_devices() -> None:
    """The guest's shell is at the terminal; its devices are loaded, listed, and used by dmatest."""
    ours, theirs = pty.openpty()
    words = (sys.executable, "-m", "tests.vm")
    environment = {**os.environ, "DEVICES": "2", "VERSION": "2.0", "IOMMU": "off", "TERM": "linux"}
    shell = subprocess.Popen(
        words, cwd=REPOSITORY, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    said = b""

    def until(pattern: bytes) -> None:
        nonlocal said
        end = time.monotonic() + SECONDS
        while not re.search(pattern, said):
            assert time.monotonic() < end, f"{pattern!r} has not come: {said!r}"
            if select.select([ours], [], [], 1)[0]:
                said += os.read(ours, 4096)

    try:
        until(rb"vm: Linux 6\.12.*up in")
        until(rb"2 DSA devices of version 2\.0, IOMMU off, two tiers(?s:.*)vm:~?[^#]*# ")
        os.write(ours, b"accel-config load-config -c queues.json -e && echo lo''aded\n")
        until(rb"\nloaded\r*\n")
        os.write(ours, b"insmod /lib/dmatest.ko iterations=10 run=1; sleep 2; dmesg | tail\n")
        until(rb"summary 10 tests, 0 failures")
        os.write(ours, b"exit\n")
        assert 0 == shell.wait(SECONDS)
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)
