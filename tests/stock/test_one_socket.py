# SPDX-License-Identifier: Apache-2.0
"""One socket and one slow node: the shipped profile goes up, pages move, and all comes back.

The tests are one story for each kernel, in this order.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dsatier.base.paths import METRICS
from lab.host import PATIENCE, host, in_order, installed, reload, shown, status, steps
from tests.stock.hold import STEP, Hold
from tests.stock.stock import (
    CLOCK,
    DEMOTED,
    EACH,
    KERNELS,
    MIB,
    MINE,
    PROMOTED,
    above,
    differing,
    free,
    give,
    moved,
    tunables,
    verdict,
    wait_until,
)
from tests.support.long import LONG_ONLY
from vm.guest import Guest
from vm.machine import Machine, Node

pytestmark = pytest.mark.system

MACHINE = Machine(nodes=(Node(cpus=2, memory=1024), Node(memory=768)), icount=CLOCK)
FAST, SLOW = 0, 1
UP = {
    "/proc/sys/kernel/numa_balancing": "2",
    "/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps": "2000",
    "/proc/sys/vm/watermark_scale_factor": "100",
    "/sys/kernel/mm/numa/demotion_enabled": "true",
}
"""What profiles/tiering.yaml wants, as the kernel shows it."""
MANY = 32 * MIB
"""Pages that have moved when tiering is seen to move them."""
HOT = 32
"""MiB that are used again and again."""
LEFT = 64
"""MiB that the slow node keeps free at least, where it is not to be full."""
WIDE = "/etc/dsatier.d/60-wide.yaml"
"""Sets the watermarks apart: low is 23 MiB above min and more, high as much above low."""
EDGES = {SLOW: 20 * MIB, FAST: 16 * MIB}
"""Pages above min to which nodes are filled, so that both are short and no program is killed.
CPUs keep up to 8 MiB each for themselves."""


@pytest.fixture(scope="module", params=EACH)
def vm(request: pytest.FixtureRequest, package: Path) -> Iterator[Guest]:
    """A host with dsatier and without a profile."""
    with installed(host(package, MACHINE, kernel=KERNELS[request.param]())) as found:
        yield found


@pytest.fixture(scope="module")
def before(vm: Guest) -> dict[str, str]:
    """All tunables of memory as they were before a profile came."""
    return tunables(vm)


# -- the story -----------------------------------------------------------------------


def test_the_host_is_known(vm: Guest, before: dict[str, str]) -> None:
    facts = json.loads(vm.ok("dsatier", "facts", "--json"))
    assert (vm.release, "none") == (facts["kernel"]["release"], facts["kernel"]["family"])
    fast, slow = facts["nodes"]
    assert ([0, 1], []) == (fast["cpus"], slow["cpus"])
    assert fast["tier"] < slow["tier"]
    assert "false" == before["/sys/kernel/mm/numa/demotion_enabled"]
    said = vm.run("dsatier", "doctor", "-p", "/usr/share/dsatier/profiles/tiering.yaml")
    assert (0, []) == (said.code, re.findall("blocker.*", said.out)), said.out


def test_up(vm: Guest, before: dict[str, str]) -> None:
    """Every knob of the profile is as it wants, none beside, and tiering is armed."""
    give(vm, "tiering.yaml")
    reload(vm)
    shown(vm, "after systemctl reload")
    found = status(vm)
    assert ("converged", "Accepted") == (found["state"], found["profile"]["status"])
    changed = differing(before, tunables(vm))
    assert UP == {path: values[1] for path, values in changed.items()}
    in_order(
        steps(vm),
        "promote_rate_limit_MBps = 2000",
        "numa_balancing = 2",
        "demotion_enabled = 1",
    )
    assert ("armed", "NoPressure") == tuple(found["tiering"][key] for key in ("verdict", "reason"))
    assert 0 == moved(vm, DEMOTED) == moved(vm, PROMOTED)
    assert 0 == vm.run("dsatier", "verify").code


@pytest.mark.parametrize("kind", [(), ("shared",)], ids=["anonymous", "shared"])
def test_memory_that_grows_short_is_demoted(vm: Guest, kind: tuple[str, ...]) -> None:
    """Those pages go that were left alone for longest. Every byte is read back."""
    at, of_node = moved(vm, DEMOTED), moved(vm, DEMOTED, FAST)
    idle = Hold(vm, *kind)
    idle.take(64)
    # who may take any memory gets that of the slow node, and nobody demotes
    busy = Hold(vm, "node=0", *kind)
    # pages of files that were read once may go first
    while idle.pages()[SLOW] + busy.pages()[SLOW] < MANY:
        assert free(vm, SLOW) > LEFT, "the slow node is full, and too few pages were demoted"
        busy.take()
    demoted = moved(vm, DEMOTED) - at
    print(f"{demoted} pages were demoted; on nodes: {idle.pages()}, {busy.pages()}")
    assert demoted >= MANY
    assert moved(vm, DEMOTED, FAST) - of_node >= MANY, "counted at the node that they leave"
    found = verdict(vm, "working", "Moved")
    assert found["moved"]["demoted"] > 0
    shown(vm, "under pressure")
    metrics = vm.read(METRICS)
    assert 'dsatier_tiering{verdict="working"} 1' in metrics
    idle.end()
    busy.end()


@pytest.mark.parametrize("kind", [(), ("shared",)], ids=["anonymous", "shared"])
def test_what_is_hot_comes_up_and_what_is_idle_goes_down(vm: Guest, kind: tuple[str, ...]) -> None:
    """The idle one came first and has the fast node, so that the hot one begins on the slow."""
    idle = Hold(vm, *kind)
    while idle.pages()[SLOW] < STEP * MIB:
        idle.take()
    hot = Hold(vm, *kind)
    hot.take(HOT)
    began = hot.pages()[SLOW]
    assert began > HOT * MIB // 2
    promoted, demoted = moved(vm, PROMOTED), moved(vm, DEMOTED)

    def up() -> bool:
        hot.use()
        return hot.pages()[SLOW] < began // 2

    wait_until("half of what is hot is on the fast node", up, 2 * PATIENCE)
    promoted, demoted = moved(vm, PROMOTED) - promoted, moved(vm, DEMOTED) - demoted
    print(f"{promoted} pages were promoted, {demoted} demoted; {hot.pages()}, {idle.pages()}")
    assert promoted >= began // 2
    assert demoted > 0
    verdict(vm, "working", "Moved")

    def told() -> bool:  # at the next look: the verdict may be there since the last test
        return bool(status(vm)["moved"]["promoted"] > 0)

    wait_until("the pages that were promoted are told", told)
    hot.end()
    idle.end()


@LONG_ONLY
def test_a_slow_node_that_is_full_is_told(vm: Guest) -> None:
    """There is no swap, so that nothing but a file's pages can go from either node."""
    if vm.release.startswith("6.12"):
        pytest.skip("not seen to be told on 6.12 yet")
    assert 1 == len(vm.read("/proc/swaps").splitlines())
    vm.put(WIDE, "version: 1\nmemory: {watermark_scale_factor: 300}\n")
    reload(vm)
    holds = {node: Hold(vm, f"node={node}") for node in EDGES}

    def told() -> bool:
        for node, hold in holds.items():  # pages of files make room again when they go
            while (room := above(vm, node, "min") - EDGES[node]) > 0:
                hold.take(STEP if room > 2 * STEP * MIB else 1)
        found = status(vm)["tiering"]
        return ("not working", "TargetFull") == (found["verdict"], found["reason"])

    wait_until("the slow node is full", told, 2 * PATIENCE)
    print(status(vm)["tiering"], [hold.pages() for hold in holds.values()])
    for hold in holds.values():
        hold.end()
    shown(vm, "with a full slow node")
    vm.ok("rm", WIDE)
    reload(vm)


def test_down(vm: Guest, before: dict[str, str]) -> None:
    """Without the profile every tunable is as it was found, not only those that it names."""
    vm.ok("rm", MINE)
    reload(vm)
    vm.ok("dsatier", "rollback", timeout=PATIENCE)
    shown(vm, "after rollback")
    assert ("unmanaged", None) == (status(vm)["state"], status(vm)["tiering"])
    assert {} == differing(before, tunables(vm))


def test_detach(vm: Guest, before: dict[str, str]) -> None:
    """The profile to let go of a host turns off what places pages; a rollback gives the rest."""
    give(vm, "tiering.yaml")
    reload(vm)
    assert "converged" == status(vm)["state"]
    give(vm, "detach.yaml")
    reload(vm)
    assert ("converged", None) == (status(vm)["state"], status(vm)["tiering"])
    assert "0" == vm.read("/proc/sys/kernel/numa_balancing")
    assert "false" == vm.read("/sys/kernel/mm/numa/demotion_enabled")
    vm.ok("rm", MINE)
    reload(vm)
    vm.ok("dsatier", "rollback", timeout=PATIENCE)
    assert {} == differing(before, tunables(vm))
