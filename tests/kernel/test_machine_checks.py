# SPDX-License-Identifier: Apache-2.0
"""A page whose memory fails while it is copied: a machine check in the instruction that reads it.

A debugger watches the page, as the kernel's copies see it. Each time the copy that can recover
reads there, it is sent back to that instruction, and the emulator raises the machine check of a
read that failed. So the exception, its fix-up, and what becomes of the page and of the rest of the
batch are the kernel's own. What is not shown here: how real memory fails, what a CPU reads ahead,
and devices that read such memory.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.ours import MACHINE, booted
from vm.debugger import RIP, Debugger, debugger, words
from vm.guest import PATIENCE, Command, Guest
from vm.machine import Machine
from vm.ours import counters, kernel, knobs, since

pytestmark = pytest.mark.system

CASES = {"off": (0, 0), "cpu": (989, 0), "threads": (989, 1)}
"""Who copies: the reasons that batch, and threads."""
INTEL = "max,vendor=GenuineIntel,family=6,model=106,stepping=6,erms=off,fsrm=off"
"""What a read that failed is told as differs by maker; this is how Intel's server CPUs do."""
READ_FAILED = 0xBD80_0000_0000_0134
"""Status of a bank: uncorrected, to be acted on, at an address, when data were read."""
RECOVERABLE = 0xF
"""Global status: the CPU can go on where it was, that is where it happened, and nowhere else."""
OF_A_PAGE = 0x8C
"""The address is of memory, and all of its page has failed."""
BANK = 9
READ = bytes.fromhex("4c8b06")
"""The instruction of copy_mc_fragile() that reads a word."""
SOCKET = "gdb"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a debugger is let in."""
    return tmp_path_factory.mktemp("debugger") / SOCKET


@pytest.fixture(scope="module")
def vm(place: Path) -> Iterator[Guest]:
    """A guest with our kernel, whose copies recover from machine checks."""
    append = ("mce=recovery", "nokaslr")
    machine = Machine(nodes=MACHINE.nodes, cpu=INTEL, append=append, extra=words(place))
    with booted(machine) as found:
        yield found


@functools.cache
def symbol(name: str) -> int:
    """Return the address of something in our kernel."""
    text = (kernel().image.parent / "System.map").read_text()
    found = re.search(rf"^([0-9a-f]+) \w {name}$", text, re.MULTILINE)
    assert found, name
    return int(found[1], 16)


def failing(vm: Guest, seen: Debugger, pfn: int, run: Command) -> int:
    """Have reads of a page fail until a command has moved all; return how many did."""
    code = seen.memory(symbol("copy_mc_fragile"), 128)
    assert 1 == code.count(READ)
    read = symbol("copy_mc_fragile") + code.index(READ)
    memory = int.from_bytes(seen.memory(symbol("page_offset_base"), 8), "little")
    address = pfn * 4096 + 2048  # half of it has been copied by then
    seen.watch(memory + address, 8)
    seen.go_on()
    run.give(b"\n")
    count = 0
    while b"moved" not in run.out and not run.ended:
        stop = seen.stopped(0.1)
        if stop is None:
            continue
        if stop.watched and seen.register(RIP) == read + len(READ):
            seen.set_register(RIP, read)
            line = f"mce {stop.cpu} {BANK} {READ_FAILED:#x} {RECOVERABLE} {address:#x} {OF_A_PAGE}"
            said = vm.qmp.execute("human-monitor-command", command_line=line)
            assert "" == said
            count += 1
        seen.go_on()
    return count


@pytest.mark.parametrize(("kind", "pages", "which"), [("base", 64, 37), ("thp", 1024, 700)])
@pytest.mark.parametrize("case", CASES)
def test_a_page_that_cannot_be_read(
    vm: Guest, place: Path, case: str, kind: str, pages: int, which: int
) -> None:
    """It stays where it is, its reader gets SIGBUS or what it was, and all others move."""
    vm.allow("mce: .Hardware Error.|Memory failure: ", "that is what it is told to do")
    reasons, threads = CASES[case]
    folio = 512 if kind == "thp" else 1
    mark, before = vm.mark(), counters(vm)
    with knobs(
        vm,
        migrate_batch_reasons=reasons,
        migrate_batch_usecs=0,  # an emulated CPU is slow
        cpu_multi_copy_pages=threads,
        cpu_multi_copy_threshold=16,
    ):
        run = vm.start("bad", kind, f"{pages}", f"{which}", given=None)
        pfn = int(run.wait_for(r"^pfn (\d+)$")[1])
        with debugger(place) as seen:
            count = failing(vm, seen, pfn, run)
        vm.wait_for_log(f"Memory failure: {pfn:#x}: ", mark)
        run.give(b"\n")
        ran = run.wait(PATIENCE)
    assert 0 == ran.code, ran.err
    found = since(vm, before)
    told = dict(word.split("=") for word in ran.out.splitlines()[-1].split())
    print(case, kind, count, told, {name: value for name, value in found.items() if value})

    # the list that it was in met it, and the moves that came after that
    assert count > (case != "off")
    assert pages - folio == int(told["on1"])
    assert "0" == told["wrong"]
    assert int(told["right"]) >= pages - 1
    assert "1" != told["where"]
    assert int(told["pfn"]) in (0, pfn)
    assert found["pgmigrate_success"] == pages - folio
    assert found["pgmigrate_fail"] == folio
    if case == "off":
        assert 0 == found["lists"] == found["failed"]
    else:
        assert found["failed"] in (folio, 2 * folio)  # what failed is tried once more by itself
        assert pages - folio == found["cpu"] + found["threads"]
        assert (found["threads"] > 0) == (case == "threads")
