# SPDX-License-Identifier: Apache-2.0
"""The emulator under test, built if need be.

``DSATIER_EMULATOR`` names another binary; ``DSATIER_SANITIZE=1`` asks for the build with
sanitizers, on which the same tests run.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.emulator.dsa import SLOT, Dsa
from tests.emulator.qtest import Machine

BUILD = Path(__file__).parents[2] / "emulator/build"
SLOTS = range(SLOT, 20)

Bench = Callable[..., list[Dsa]]


@pytest.fixture(scope="session")
def emulator(request: pytest.FixtureRequest) -> str:
    """The path of QEMU with our devices."""
    named = os.environ.get("DSATIER_EMULATOR")
    if named:
        return named
    words = ["--sanitize"] if os.environ.get("DSATIER_SANITIZE") else []
    capture = request.config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        ran = subprocess.run([str(BUILD), *words], stdout=subprocess.PIPE, text=True, check=True)
    return ran.stdout.strip()


def firmware() -> tuple[str, ...]:
    """Return words for a binary that has no firmware beside it, as one in a build folder."""
    found = os.environ.get("DSATIER_FIRMWARE")
    return ("-L", found) if found else ()


def placed(emulator: str, *devices: str, words: tuple[str, ...] = ()) -> Machine:
    """Return a machine with these devices, the n-th of them in slot ``SLOTS[n]``.

    Each is the rest of a ``-device`` word: ``"version=2.0,queues=2"``.
    """
    for slot, device in zip(SLOTS, devices, strict=False):
        text = f"intel-dsa,id=dsa{slot - SLOTS[0]},addr={slot:#x}"
        words = (*words, "-device", f"{text},{device}" if device else text)
    return Machine(emulator, *firmware(), *words)


@pytest.fixture
def bench(emulator: str) -> Iterator[Bench]:
    """Start a machine with devices, for as long as the test lasts; see ``placed``."""
    with ExitStack() as stack:

        def start(*devices: str, words: tuple[str, ...] = ()) -> list[Dsa]:
            machine = stack.enter_context(placed(emulator, *(devices or ("",)), words=words))
            slots = list(zip(SLOTS, devices or ("",), strict=False))
            return [Dsa.at(machine, slot, f"dsa{n}") for n, (slot, _) in enumerate(slots)]

        yield start


@pytest.fixture
def dsa(bench: Bench) -> Dsa:
    """A DSA 1.0 as it is by default, not configured."""
    (device,) = bench()
    return device


@pytest.fixture
def dsa2(bench: Bench) -> Dsa:
    """A DSA 2.0, not configured."""
    (device,) = bench("version=2.0")
    return device
