# SPDX-License-Identifier: Apache-2.0
"""What is told of the rights of the daemon's unit."""

from __future__ import annotations

import pytest

from dsatier.base.paths import LOCK
from dsatier.facts.observe.observer import observe
from dsatier.facts.observe.unit import lacks
from tests.support.memory import TextHost

HELD = "812\ndsatier daemon\ndsatier daemon\n"
UNIT = "0::/system.slice/dsatier.service\n"
SHIPPED, GIVEN, ALL = "0000000400200000", "0000000400220000", "000001ffffffffff"
WIDE = "22 28 0:21 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n"
CLOSED = "22 28 0:21 / /sys ro,nosuid shared:7 - sysfs sysfs rw\n"
DEVICES = "31 22 0:21 /devices /sys/devices rw - sysfs sysfs rw\n"
OPEN = "32 22 0:21 /kernel/iommu_groups /sys/kernel/iommu_groups rw - sysfs sysfs rw\n"
OTHERS = "33 22 0:21 / /sys/kernel/iommu rw - sysfs sysfs rw\n"
RAW_IO, WRITE = "CAP_SYS_RAWIO", "write access to /sys/kernel/iommu_groups"


def host(rights: str, mounts: str, lock: str = HELD, unit: str = UNIT) -> TextHost:
    """A host whose lock process 812 holds."""
    return TextHost(
        {
            LOCK: lock,
            "/proc/812/cgroup": unit,
            "/proc/812/status": f"Name:\tdsatier\nCapInh:\t0\nCapEff:\t{rights}\n",
            "/proc/812/mountinfo": f"28 1 254:1 / / rw - ext4 /dev/vda1 rw\n{mounts}",
        }
    )


@pytest.mark.parametrize(
    ("rights", "mounts", "expected"),
    [
        (SHIPPED, CLOSED + DEVICES, (RAW_IO, WRITE)),
        (SHIPPED, CLOSED + OPEN, (RAW_IO,)),
        (GIVEN, CLOSED + DEVICES + OTHERS, (WRITE,)),
        (GIVEN, CLOSED + DEVICES + OPEN, ()),
        (GIVEN, OPEN + CLOSED, ()),
        (GIVEN, WIDE + CLOSED, (WRITE,)),
        (GIVEN, CLOSED + WIDE, ()),
        (ALL, WIDE, ()),
        (ALL, "", ()),
    ],
)
def test_what_the_unit_lacks(rights: str, mounts: str, expected: tuple[str, ...]) -> None:
    told = host(rights, mounts)
    assert (expected, expected) == (lacks(told), observe(told).unit_lacks)


@pytest.mark.parametrize("lock", ["", "\n", "/812\n", "813\ndsatier daemon\n"])
def test_nobody_runs_in_the_unit(lock: str) -> None:
    assert () == lacks(host(SHIPPED, CLOSED, lock=lock))


def test_a_command_in_a_shell_is_not_the_unit() -> None:
    assert () == lacks(host(SHIPPED, CLOSED, unit="0::/user.slice/session-4.scope\n"))


def test_the_unit_is_known_where_groups_are_of_the_first_version() -> None:
    unit = "12:pids:/\n1:name=systemd:/system.slice/dsatier.service\n0::/\n"
    assert (RAW_IO, WRITE) == lacks(host(SHIPPED, CLOSED, unit=unit))


def test_what_may_not_be_read_counts_as_there() -> None:
    told = host(SHIPPED, CLOSED)
    del told.files["/proc/812/status"], told.files["/proc/812/mountinfo"]
    assert () == lacks(told)
