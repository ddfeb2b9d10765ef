# SPDX-License-Identifier: Apache-2.0
"""The knobs: what they take, what they refuse with which error, and /proc/timer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from dsatier.facts.kernel_complaints import may_complain
from dsatier.facts.knobs import KNOBS
from dsatier.facts.observe import parse
from tests.kernel.ours import booted, run_pages
from vm.guest import Guest
from vm.kernellog import STAMP
from vm.ours import counters, knob, since

pytestmark = pytest.mark.system

INT_MAX = 2147483647
TABLE = {
    "use_concur_to_compact": (0, 1, 0, ""),
    "use_concur_to_demote": (0, 1, 0, ""),
    "migrate_batch_reasons": (0, 989, 0, "EINVAL"),  # bits that mean nothing are in between
    "migrate_batch_pages": (512, 262144, 13312, ""),
    "migrate_batch_usecs": (0, 1000000, 4000, ""),
    "migrate_engine_reasons": (0, 2047, 2047, ""),
    "cpu_multi_copy_pages": (0, 1, 0, ""),
    "limit_mt_num": (1, 32, 4, ""),
    "cpu_multi_copy_threshold": (1, INT_MAX, 256, ""),
    "migrate_copy_calibrate": (0, 1, 0, ""),
    "dsa_state": (0, 1, 0, "ENODEV,EBUSY"),
    "use_dsa_copy_pages": (0, 1, 0, "EINVAL"),
    "limit_chans": (1, 8, 8, "EBUSY"),
    "dsa_copy_threshold": (1, INT_MAX, 16, ""),
}
"""Least, greatest, at boot, and the errors without a device."""
FIRST_LINE = re.compile(
    r"timer_state = [01] total_time = \d+ms last_time = \d+ns last_cnt = \d+ "
    r"dsa_hpage_cnt = \d+ dsa_bpage_cnt = \d+ dsa_copy_fail = \d+ hpage_cnt = \d+ "
    r"bpage_cnt = \d+"
)


@pytest.fixture(scope="module")
def vm() -> Iterator[Guest]:
    """A guest with our kernel."""
    with booted() as found:
        yield found


def refused(vm: Guest, path: str, value: str) -> str:
    """Write a value that must be refused, and return what the shell says of the error."""
    ran = vm.run("sh", "-c", 'echo "$2" >"$1"', "write", path, value)
    assert ran.code, f"{path}: {value!r} was taken"
    return ran.err


def test_values_at_boot(vm: Guest) -> None:
    for name, (_, _, boot, _) in TABLE.items():
        assert f"{boot}" == vm.read(f"/proc/sys/vm/{name}"), name


def test_the_manifest_tells_the_truth(vm: Guest) -> None:
    assert "1" == vm.read("/sys/kernel/mm/dsatier/abi")
    manifest = json.loads(vm.read("/sys/kernel/mm/dsatier/manifest"))
    assert (1, vm.release) == (manifest["abi"], manifest["version"])
    rows = {row["name"]: row for row in manifest["knobs"]}
    for name, (low, high, boot, errors) in TABLE.items():
        row = rows[name]
        assert (low, high, boot) == (row["min"], row["max"], row["default"]), name
        assert f"/proc/sys/vm/{name}" == row["path"]
        assert {"EINVAL", *errors.split(",")} - {""} <= set(row["errors"])
    for row in rows.values():
        vm.read(row["path"])


def test_the_agent_knows_them(vm: Guest) -> None:
    for name in KNOBS:
        if name not in TABLE:
            continue
        known = KNOBS[name]
        assert TABLE[name][:3] == (known.low, known.high, known.default), name


@pytest.mark.parametrize("name", TABLE)
def test_range(vm: Guest, name: str) -> None:
    path = f"/proc/sys/vm/{name}"
    low, high, boot, _ = TABLE[name]
    for value in (low - 1, high + 1, "x", "2147483648", "-2147483649", "0x"):
        assert "nvalid argument" in refused(vm, path, f"{value}")
        assert f"{boot}" == vm.read(path)
    if not name.startswith(("dsa_state", "use_dsa")):
        for value in (low, high, boot):
            vm.write(path, f"{value}\n")
            assert f"{value}" == vm.read(path)


def test_no_device_no_dsa(vm: Guest) -> None:
    since_here = vm.mark()
    assert "No such device" in refused(vm, "/proc/sys/vm/dsa_state", "1")
    assert "0" == vm.read("/proc/sys/vm/dsa_state")
    said = (STAMP.sub("", line) for line in vm.lines(since_here))
    told = filter(may_complain, said)
    assert any("DSA not initialised" in line for line in told)
    assert "nvalid argument" in refused(vm, "/proc/sys/vm/use_dsa_copy_pages", "1")
    knob(vm, "dsa_state", 0)
    knob(vm, "use_dsa_copy_pages", 0)
    knob(vm, "limit_chans", 3)
    knob(vm, "limit_chans", 8)


def test_the_two_knobs_are_bits_of_the_mask(vm: Guest) -> None:
    knob(vm, "use_concur_to_compact", 1)
    knob(vm, "use_concur_to_demote", 1)
    assert "257" == vm.read("/proc/sys/vm/migrate_batch_reasons")
    knob(vm, "migrate_batch_reasons", 8)
    assert "0" == vm.read("/proc/sys/vm/use_concur_to_compact")
    assert "0" == vm.read("/proc/sys/vm/use_concur_to_demote")
    for value in (2, 32, 1024, 990, INT_MAX):
        assert "nvalid" in refused(vm, "/proc/sys/vm/migrate_batch_reasons", f"{value}")
    assert "8" == vm.read("/proc/sys/vm/migrate_batch_reasons")
    knob(vm, "migrate_batch_reasons", 0)


def test_the_timer(vm: Guest) -> None:
    assert FIRST_LINE.fullmatch(vm.read("/proc/timer").splitlines()[0])
    for value in ("2", "abc", "1x", "-1", "", "1" * 2000):
        assert "nvalid argument" in refused(vm, "/proc/timer", value)
    assert "0644" == f"{int(vm.ok('stat', '-c', '%a', '/proc/timer')):04}"

    vm.write("/proc/timer", "1\n")
    knob(vm, "migrate_batch_reasons", 8)
    knob(vm, "migrate_batch_usecs", 0)  # an emulated CPU is slow
    before = counters(vm)
    run_pages(vm, "mixed", "move_pages", "16", "0")
    found = since(vm, before)
    vm.write("/proc/timer", "0\n")
    knob(vm, "migrate_batch_reasons", 0)
    knob(vm, "migrate_batch_usecs", 4000)
    told = vm.read("/proc/timer")
    counts = parse.timer(told, "/proc/timer")
    assert 0 == counts["timer_state"] == counts["dsa_hpage_cnt"] == counts["dsa_copy_fail"]
    assert counts["bpage_cnt"] == found["pgmigrate_success"] >= 2 * 16 * 256
    assert counts["hpage_cnt"] == 2 * 4  # half of 16 MiB, to and fro
    assert counts["last_time"] > 0 < counts["last_cnt"]
    assert re.search(
        r"^copied engine=cpu reason=syscall_or_cpuset order=9 folios=8 bytes=16777216$",
        told,
        re.MULTILINE,
    )
    lists = re.search(
        r"^lists engine=cpu reason=syscall_or_cpuset count=(\d+) ns=\d+$", told, re.MULTILINE
    )
    sizes = re.search(r"^pages engine=cpu reason=syscall_or_cpuset (.*)$", told, re.MULTILINE)
    assert lists
    assert sizes
    assert int(lists[1]) == sum(int(part.split("=")[1]) for part in sizes[1].split())

    run_pages(vm, "base", "move_pages", "4", "0")
    assert told.splitlines()[:-3] == vm.read("/proc/timer").splitlines()[:-3], "it is off"
    vm.write("/proc/timer", "1\n")
    assert 0 == parse.timer(vm.read("/proc/timer"), "/proc/timer")["bpage_cnt"]
    vm.write("/proc/timer", "0\n")


def test_all_knobs_at_once_under_load(vm: Guest) -> None:
    """Eight writers write anything to any knob while pages move: nothing goes wrong."""
    rows = [
        f"/proc/sys/vm/{name}:{low}:{high}:{errors}"
        for name, (low, high, _, errors) in TABLE.items()
    ]
    rows += ["/proc/timer:0:1:"]  # its first line is no number, which reads as 0
    writers = vm.start("knobs", "12", "8", *rows)
    for kind in ("base", "mixed", "thp"):
        run_pages(vm, kind, "move_pages", "16", "3", "write", "remote", "pin", "mlock")
    ran = writers.wait(120)
    assert 0 == ran.code, ran.err
    assert "success=" in ran.out
    assert "ENODEV=" in ran.out
    for name, (_, _, boot, _) in TABLE.items():
        knob(vm, name, boot)
    vm.write("/proc/timer", "0\n")
