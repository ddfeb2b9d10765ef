# SPDX-License-Identifier: Apache-2.0
"""Pages of files that are only read, in slow memory: tiering promotes them as it does others."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.kernel.ours import program
from vm.booting import guest
from vm.guest import Command, Guest
from vm.machine import Machine, Node
from vm.ours import TRACING, counters, kernel

pytestmark = pytest.mark.system

BALANCING = "/proc/sys/kernel/numa_balancing"
SKIPPED = "events/sched/sched_skip_vma_numa/enable"
PAGES = 2048
"""Of a file."""
PATIENCE = 240.0


@pytest.fixture(scope="module")
def vm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A guest with two tiers, and a disk with files."""
    disk = tmp_path_factory.mktemp("disk") / "disk"
    with disk.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    drive = f"file={disk},format=raw,if=none,id=disk,cache=unsafe"
    extra = ("-drive", drive, "-device", "virtio-blk-pci,drive=disk")
    machine = Machine(nodes=(Node(cpus=2, memory=512), Node(memory=512)), extra=extra)
    files = {"/bin/reads": program("reads")}
    with guest(machine, kernel=kernel(), files=files) as found:
        found.sh(
            """mkdir -p /disk; mount -t ext4 /dev/vda /disk
            for name in data more code; do
                dd if=/dev/urandom of=/disk/$name bs=4096 count="$1" 2>/dev/null
            done
            sync
            cd /sys/kernel/debug/sched/numa_balancing
            echo 100 >scan_delay_ms; echo 100 >scan_period_min_ms""",
            str(PAGES),
        )
        yield found


@pytest.fixture(autouse=True)
def settled(vm: Guest) -> Iterator[None]:
    """Each test begins with nothing in the page cache of the disk, and balancing off."""
    vm.write(BALANCING, "0")
    vm.write("/proc/sys/vm/drop_caches", "3")
    yield
    vm.sh("killall -q reads || true; while pidof reads >/dev/null; do usleep 10000; done")


def reading(vm: Guest, *words: str) -> Command:
    """Start ``reads`` with files of the slow node, which are there when this returns."""
    found = vm.start("reads", "1", *words, given=None)
    assert all(n == 0 for _, n in promoted(found))
    return found


def promoted(reads: Command) -> list[tuple[str, int]]:
    """Return for each mapping its address, and how many of its pages have left the slow node."""
    number = len(reads.out.splitlines()) + 1
    reads.give(b"where\n")
    words = reads.wait_for(rf"^{number} (.*)$")[1].split()
    return [(at, int(n)) for at, n in zip(words[::2], words[1::2], strict=True)]


def all_promoted(reads: Command, mapping: int = 0) -> bool:
    """Wait until nearly all pages of a mapping are promoted: one that is in use is left alone."""
    until = time.monotonic() + PATIENCE
    while promoted(reads)[mapping][1] < PAGES * 9 // 10:
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True


@pytest.mark.parametrize("balancing", ["2", "3"])
@pytest.mark.parametrize("kind", ["shared", "private", "exec"])
def test_what_is_only_read_is_promoted(vm: Guest, kind: str, balancing: str) -> None:
    reads = reading(vm, kind, "/disk/data")
    vm.write(BALANCING, balancing)
    before = counters(vm)["pgpromote_success"]
    assert all_promoted(reads), promoted(reads)
    assert counters(vm)["pgpromote_success"] - before >= PAGES * 9 // 10


@pytest.mark.parametrize("kind", ["shared", "private"])
def test_what_several_processes_read_is_promoted(vm: Guest, kind: str) -> None:
    both = [reading(vm, kind, "/disk/data") for _ in range(2)]
    vm.write(BALANCING, "2")
    assert all_promoted(both[0]), promoted(both[0])
    assert all_promoted(both[1])


def test_a_library_of_several_processes_is_left_alone(vm: Guest) -> None:
    """Nor is it hinted at, which would be in vain: where data below it is promoted, it was passed.

    A process is scanned from its lowest address on, so what it maps last is scanned first.
    """
    both = [
        reading(vm, "shared", f"/disk/{name}", "exec", "/disk/code") for name in ("data", "more")
    ]
    before = counters(vm)["numa_hint_faults"]
    vm.write(BALANCING, "2")
    for reads in both:
        assert all_promoted(reads), promoted(reads)
    hints = counters(vm)["numa_hint_faults"] - before
    print(f"{hints} hinting faults for two files of {PAGES} pages")
    assert [0, 0] == [promoted(reads)[1][1] for reads in both]
    assert hints < PAGES * 3, "those of the data, and some of the programs' own"


def test_balancing_alone_skips_what_is_only_read(vm: Guest) -> None:
    """Without tiering the scan passes over it, as it always did."""
    reads = reading(vm, "shared", "/disk/data")
    address = promoted(reads)[0][0]
    vm.write(f"{TRACING}/trace", "")
    vm.write(f"{TRACING}/{SKIPPED}", "1")
    vm.write(BALANCING, "1")
    until = time.monotonic() + PATIENCE
    found = ""
    while not found and time.monotonic() < until:
        time.sleep(0.5)
        lines = vm.read(f"{TRACING}/trace").splitlines()
        found = next((text for text in lines if address in text and "shared_ro" in text), "")
    vm.write(f"{TRACING}/{SKIPPED}", "0")
    assert found
    assert 0 == promoted(reads)[0][1]
