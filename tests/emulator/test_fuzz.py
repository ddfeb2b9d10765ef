# SPDX-License-Identifier: Apache-2.0
"""The fuzzer: its cases, that it finds what is wrong, and a short run of it."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.emulator.conftest import firmware
from tests.emulator.descriptors import Descriptor, Opcode
from tests.emulator.fuzz.__main__ import hunt
from tests.emulator.fuzz.guest import DEVICES, attack, attacked, give_to_vfio
from tests.emulator.fuzz.orders import case, smaller
from tests.emulator.fuzz.play import SETUPS, Found, Setup, bench, fails

SECONDS = 45
FEWEST = 30  # cases in that time, on a slow machine


def test_cases_are_kept_as_json() -> None:
    """A case that is read back from a file is the same case."""
    for seed in range(50):
        assert case(seed) == json.loads(json.dumps(case(seed)))


def test_cases_try_every_verb_and_operation() -> None:
    """Within a few hundred cases everything that a guest can do is done."""
    orders = [order for seed in range(300) for order in case(seed)]
    verbs = Counter(str(order[0]) for order in orders)
    submitted = [bytes.fromhex(str(order[3])) for order in orders if order[0] == "submit"]
    opcodes = {Descriptor.decode(raw).opcode for raw in submitted}
    assert set(Opcode) <= opcodes
    assert min(verbs.values()) > 20, verbs


def test_a_case_is_made_as_small_as_it_can_be() -> None:
    """Orders that the failure does not need are left out, whatever their number."""
    orders = case(3)
    needed = [orders[1], orders[17], orders[-1]]
    small = smaller(orders, lambda kept: all(order in kept for order in needed))
    assert needed == small


@pytest.mark.system
def test_an_end_of_qemu_is_found(emulator: str) -> None:
    """A QEMU that ends in the middle of a case is a finding; so is a device that stays dead."""
    with bench(emulator, SETUPS[0], firmware()) as machine:
        os.kill(machine.machine.pid, signal.SIGKILL)
        with pytest.raises(Found, match="QEMU"):
            machine.play(case(1))
    with bench(emulator, SETUPS[0], firmware()) as machine:
        machine.machine.set(machine.dsa.path, "removed", True)
        with pytest.raises(Found):
            machine.play([])


@pytest.mark.system
def test_cases_get_far(emulator: str) -> None:
    """They are not refused at the first door: the device executes most operations, and batches."""
    done: Counter[str] = Counter()
    for seed in range(12):
        with bench(emulator, SETUPS[0], firmware()) as machine:
            for order in case(seed):
                if order[0] != "reset":  # which would forget the counters
                    machine.give(order)
            counters = machine.dsa.counters()["device"]
            done.update(counters["ops"])
            done["members"] += counters["members"]
    assert done["members"] > 20, done
    assert len(done) > len(Opcode) // 2, done


@pytest.mark.system
def test_a_short_hunt(emulator: str, tmp_path: Path) -> None:
    """Nothing that a guest does in this time hurts QEMU; a finding says how to play it again."""
    played, found = hunt(emulator, 0, SECONDS, tmp_path, firmware())
    assert [] == [(path.name, path.read_text()) for path in found]
    assert played >= FEWEST


@pytest.mark.system
@pytest.mark.parametrize("path", sorted((Path(__file__).parent / "fuzz/found").glob("*.json")))
def test_what_was_found_is_mended(emulator: str, path: Path) -> None:
    """A case that hurt QEMU once does not any more."""
    kept = json.loads(path.read_text())
    assert "" == fails(emulator, Setup(kept["device"], kept["iommu"]), kept["orders"], firmware())


@pytest.mark.system
def test_a_short_siege(emulator: str) -> None:
    """A program in a guest with several CPUs neither ends QEMU nor spoils the device for good."""
    with attacked(DEVICES[1], Path(emulator)) as vm:
        done = attack(vm, give_to_vfio(vm), 1, 10)
    assert done["descriptors"] > 100, done
    assert done["members"] > 10, done
    assert done["errors"] > 10, done
    assert done["resets"], done
