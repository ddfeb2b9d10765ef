# SPDX-License-Identifier: Apache-2.0
"""Stores of 64 bytes, by a program that needs no operating system."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.emulator import baremetal

pytestmark = pytest.mark.system

DEVICE = ("-device", "virtio-rng-pci,disable-legacy=on,vectors=8")
#: What a run says at least: fewer is a program that left something out.
CHECKS = 38
ENQUEUE_CHECKS = 24


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, compiled."""
    return baremetal.compiled("block_stores", tmp_path_factory.mktemp("program"))


def failed(found: dict[str, str]) -> dict[str, str]:
    """Return the verdicts that are not ok."""
    return {name: what for name, what in found.items() if what != "ok"}


@pytest.mark.parametrize("thread", ["multi", "single"])
def test_block_stores(emulator: str, program: Path, thread: str) -> None:
    """All that the program checks is so, with vCPUs in threads of their own and in one."""
    accel = ("-accel", f"tcg,thread={thread}", "-cpu", "max", "-smp", "2")
    found = baremetal.run(emulator, program, *accel, *DEVICE)
    assert {} == failed(found)
    assert len(found) >= CHECKS


def test_block_stores_with_a_clock_of_instructions(emulator: str, program: Path) -> None:
    """Where time is the number of instructions, a store to a device ends a block of them."""
    words = ("-icount", "shift=0,sleep=off", "-cpu", "max", "-smp", "2")
    assert {} == failed(baremetal.run(emulator, program, *words, *DEVICE))


def test_a_cpu_without_them_does_not_know_them(emulator: str, program: Path) -> None:
    """A CPU that does not have the feature raises an exception: the checks are able to fail."""
    words = ("-accel", "tcg", "-cpu", "max,movdir64b=off,movdiri=off", "-smp", "2")
    found = failed(baremetal.run(emulator, program, *words, *DEVICE))
    assert {"cpuid has movdiri", "cpuid has movdir64b", "no other exception"} <= set(found)


def test_enqueue_stores(emulator: str, tmp_path: Path) -> None:
    """ENQCMD and ENQCMDS do as Intel's manual says, and RAM accepts nothing."""
    words = ("-accel", "tcg", "-cpu", "max,enqcmd=on", *DEVICE)
    found = baremetal.run(emulator, baremetal.compiled("enqueue", tmp_path), *words)
    assert {} == failed(found)
    assert len(found) >= ENQUEUE_CHECKS


def test_enqueue_stores_are_for_those_who_ask(emulator: str, tmp_path: Path) -> None:
    """Without being asked for, no CPU has them: Linux wants XSAVES beside them."""
    words = ("-accel", "tcg", "-cpu", "max", *DEVICE)
    found = failed(baremetal.run(emulator, baremetal.compiled("enqueue", tmp_path), *words))
    assert {"cpuid has enqcmd", "no other exception"} == set(found)
