# SPDX-License-Identifier: Apache-2.0
"""The memory map changes under one CPU while another one uses a device."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.emulator import baremetal

pytestmark = pytest.mark.system

USED = ("-device", "virtio-rng-pci,disable-legacy=on,vectors=8")
MOVED = ("-device", "virtio-serial-pci,disable-legacy=on")


def test_accesses_reach_their_device(emulator: str, tmp_path: Path) -> None:
    """No access goes elsewhere; without our patch some do, hundreds in 20,000 changes."""
    words = ("-accel", "tcg,thread=multi", "-smp", "2", *USED, *MOVED)
    found = baremetal.run(emulator, baremetal.compiled("map_race", tmp_path), *words)
    assert {"there are two devices": "ok", "every access reached its device": "ok"} == found
