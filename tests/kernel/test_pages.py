# SPDX-License-Identifier: Apache-2.0
"""Pages of every size keep their contents, whoever copies them, and it is told who did."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernel.ours import ANY_MTHP, booted, run_pages
from vm.guest import Guest
from vm.ours import counters, knobs, since

pytestmark = pytest.mark.system

EVERYBODY = 989
"""All reasons that can batch."""
OFF = {
    "migrate_batch_reasons": 0,
    "cpu_multi_copy_pages": 0,
    "limit_mt_num": 4,
    "cpu_multi_copy_threshold": 256,
    "migrate_batch_usecs": 4000,
    "migrate_batch_pages": 13312,
    "migrate_copy_calibrate": 0,
}
ENGINES = {
    "off": {},
    "cpu": {"migrate_batch_reasons": EVERYBODY},
    "threads": {
        "migrate_batch_reasons": EVERYBODY,
        "cpu_multi_copy_pages": 1,
        "cpu_multi_copy_threshold": 1,
    },
    "single": {"cpu_multi_copy_pages": 1, "cpu_multi_copy_threshold": 16},
}
"""Who copies: nobody new, one CPU in batches, threads in batches, threads one large folio."""
KINDS = ("base", "thp", "mthp", "mixed", "shmem", "hugetlb")
ANONYMOUS = ("base", "thp", "mthp", "mixed")


@pytest.fixture(scope="module")
def vm() -> Iterator[Guest]:
    """A guest with our kernel."""
    with booted() as found:
        found.write("/proc/sys/vm/nr_hugepages", "64")
        yield found


@pytest.fixture(params=list(ENGINES))
def engine(request: pytest.FixtureRequest, vm: Guest) -> Iterator[str]:
    """Who copies; all is off again afterwards."""
    name = str(request.param)
    with knobs(vm, **{**OFF, **ENGINES[name]}):
        yield name


def prepare(vm: Guest, kind: str) -> None:
    """Let anonymous memory be of one size of folio."""
    vm.write(ANY_MTHP, "always" if kind == "mthp" else "never")


def copied(counts: dict[str, int]) -> dict[str, int]:
    return {name: counts[name] for name in ("dsa", "threads", "cpu")}


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        *((kind, "move_pages") for kind in KINDS),
        *((kind, how) for kind in ("base", "mixed") for how in ("migrate_pages", "mbind")),
    ],
)
def test_pages_move_whole(vm: Guest, engine: str, kind: str, how: str) -> None:
    prepare(vm, kind)
    before = counters(vm)
    counts = run_pages(vm, kind, how, "32", "0")
    found = since(vm, before)
    assert found["pgmigrate_success"] >= 2 * 32 * 256 * 0.9
    assert 0 == found["failed"] == found["fault"] == found["dsa"]
    if engine == "off":
        assert {"dsa": 0, "threads": 0, "cpu": 0} == copied(found)
    elif engine == "cpu":
        assert (found["cpu"] > 0) == (kind != "hugetlb")
        assert 0 == found["threads"]
    elif engine == "threads" or kind in ("thp", "mixed", "hugetlb", "mthp"):
        # the emulator's CPUs take turns, so some lists find no CPU idle
        assert found["threads"] > 0
    assert counts["moved"] > 0 or how != "move_pages"


@pytest.mark.parametrize("kind", KINDS)
def test_pages_in_use_move_whole(vm: Guest, engine: str, kind: str) -> None:
    """Writers, short and long pins, pages in pipes, locks, forks and discards, all at once."""
    prepare(vm, kind)
    activities = ["write", "remote", "splice", "pin", "mlock", "discard"]
    activities += ["fork"] if kind in ANONYMOUS else []
    if kind == "hugetlb":
        activities = ["write", "remote", "pin"]
    before = counters(vm)
    counts = run_pages(vm, kind, "move_pages", "16", "2", *activities)
    found = since(vm, before)
    assert counts["writes"] > 0
    assert counts["remotes"] > 0
    assert counts["pins"] > 0
    assert 0 == found["failed"] == found["fault"]
