# SPDX-License-Identifier: Apache-2.0
"""Hosts found in a state that must not be brought back: all the rest is, and dsatier says so.

Tiering with CPUs on the slow node, on a research kernel also with swap on, and values with which
a seed kernel spoils pages.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dsatier.apply.driver import Driver
from dsatier.base.paths import ORIGINALS
from dsatier.facts.readings import on, tiering_on
from dsatier.sim.faults import FailedInit
from dsatier.sim.host import SimHost
from tests.support.scene import (
    BALANCING,
    DEMOTION,
    VM,
    apply,
    at_rest,
    crashed,
    engine_on,
    look,
    operations,
    record,
    seen,
    shipped,
    small,
    unsafe,
)

KERNELS = pytest.mark.parametrize("kind", ["ours", "tpp"])
SWAP = [{"path": "/dev/sda3", "size": 2, "used": 1}]
CPUS = "node 1: expected no CPU online, found 2 CPUs online"
BOTH = f"tiering is left off (numa_balancing was 2, demotion_enabled was 1): {CPUS}"
OTHERS = "tiering is on and not dsatier's: turn it off, then roll back again"
OFF = "dsatier no longer manages the host"


def found(kind: str, *values: tuple[str, int], **fields: Any) -> SimHost:
    """Return a host on which others have written values. What that has harmed is theirs."""
    host = small(kind, **fields)
    for path, value in values:
        host.poke(path, f"{value}\n")
    host.harm.clear()
    return host


def unfit(kind: str) -> SimHost:
    """Return a host that tiers beside swap, and beside CPUs of its slow node."""
    return found(kind, (BALANCING, 2), (DEMOTION, 1), swap=SWAP)


def untiered(host: SimHost) -> dict[str, str]:
    """Return the knobs of a host that are not tiering's."""
    names = ("numa_balancing", "demotion_enabled", "demote_scale_factor")
    return {name: text for name, text in look(host).knobs.items() if name not in names}


def is_back(before: SimHost, host: SimHost) -> None:
    """Assert that a host is as it was found, without the tiering."""
    was, now = look(before), look(host)
    assert not tiering_on(now)
    assert untiered(before) == untiered(host)
    assert [(n.id, n.cpus) for n in was.nodes] == [(n.id, n.cpus) for n in now.nodes]
    assert [area.path for area in was.swaps] == [area.path for area in now.swaps]
    assert [(d.id, d.state) for d in was.devices] == [(d.id, d.state) for d in now.devices]
    assert [] == unsafe(host)


@KERNELS
@pytest.mark.parametrize("verb", ["rollback", "detach"])
def test_the_tiering_of_others_goes_on_and_what_it_forbids_waits(kind: str, verb: str) -> None:
    """CPUs and swap that dsatier took would harm it: they come back when it is off."""
    start = unfit(kind)
    host = start.copy()
    assert "changed" == apply(host, "tpp-dsa").result
    at_rest(host)
    outcome = getattr(Driver(host), verb)()
    waits = f"cpus 4-5 are left offline: {OTHERS}"
    if kind == "tpp":
        waits += f"; swap /dev/sda3 is left off: {OTHERS}"
    assert ("changed", f"{OFF}; {waits}") == (outcome.result, outcome.message)
    assert outcome.message == record(host).message
    assert tiering_on(look(host))
    assert untiered(start) == untiered(host)
    again = Driver(host).rollback()
    assert ("unchanged", outcome.message) == (again.result, again.message)
    off_by_hand(host)
    assert "changed" == Driver(host).rollback().result
    is_back(start, host)
    assert ORIGINALS not in host.files
    assert "unchanged" == Driver(host).rollback().result


def off_by_hand(host: SimHost) -> None:
    """Turn tiering off, as whoever turned it on may."""
    host.poke(BALANCING, "0\n")
    host.poke(DEMOTION, "0\n")


@KERNELS
def test_swap_alone_is_reason_enough_on_a_research_kernel(kind: str) -> None:
    """Such a kernel demotes to disk then; mainline's does not."""
    host = found(kind, *((f"/sys/devices/system/cpu/cpu{n}/online", 0) for n in (4, 5)), swap=SWAP)
    host.poke(DEMOTION, "1\n")
    host.harm.clear()
    assert "changed" == apply(host, "tpp-dsa").result
    if kind == "ours":
        assert OFF == Driver(host).rollback().message
        assert tiering_on(look(host))
        assert ["/dev/sda3"] == [area.path for area in look(host).swaps]
        assert [] == unsafe(host)
        return
    said = "tiering is left off (demotion_enabled was 1): /proc/swaps: expected no swap, found"
    assert f"{OFF}; {said} swap on /dev/sda3" == Driver(host).rollback().message
    assert (4, 5) == look(host).offline_cpus
    assert [] == unsafe(host)


def test_a_node_that_is_not_there_is_no_tier() -> None:
    host = small("ours", nodes=[{"cpus": "0-3", "memory": 16, "used": 2}])
    host.poke(DEMOTION, "1\n")
    assert "changed" == apply(host, replace(shipped("dsa"), tiers=None)).result
    said = "tiering is left off (demotion_enabled was 1): node 1: expected a node with memory"
    assert f"{OFF}; {said}, found no such node" == Driver(host).rollback().message
    assert not tiering_on(look(host))


def test_ordinary_balancing_stays() -> None:
    """A seed kernel takes both modes together: the one without tiers comes back."""
    host = found("tpp", (BALANCING, 3), swap=SWAP)
    assert "changed" == apply(host, "tpp-dsa").result
    assert f"{OFF}; tiering is left off (numa_balancing was 3): {CPUS}" == (
        Driver(host).rollback().message
    )
    assert "1" == look(host).knobs["numa_balancing"]
    assert [] == unsafe(host)


@KERNELS
def test_tiering_that_may_be_comes_back(kind: str) -> None:
    """What was safe is brought back as it was, and nothing is told."""
    start = found(kind, *((f"/sys/devices/system/cpu/cpu{n}/online", 0) for n in (4, 5)))
    for online in (0, 1):  # TPP works out its demotion targets at this
        start.poke("/sys/devices/system/cpu/cpu3/online", f"{online}\n")
    for path, value in ((BALANCING, 2), (VM + "demote_scale_factor", 300), (DEMOTION, 1)):
        start.poke(path, f"{value}\n")
    assert [] == start.harm
    host = start.copy()
    assert "changed" == apply(host, "tpp-dsa").result
    assert OFF == Driver(host).rollback().message
    assert seen(start) == seen(host)


def test_a_change_that_fails_is_undone_but_for_the_tiering() -> None:
    start = unfit("tpp")
    host = start.copy()
    host.inject(FailedInit("failed-init", channels=0))
    outcome = apply(host, "tpp-dsa")
    assert "reverted" == outcome.result
    assert outcome.message.startswith("step ")
    assert outcome.message.endswith(f"; {BOTH}")
    is_back(start, host)
    at_rest(host)
    assert "changed" == apply(host, "tpp-dsa").result


def test_a_change_that_fails_leaves_the_tiering_of_others_on() -> None:
    """Our kernel's need not be turned off for the change, so CPUs cannot come back below it."""
    start = unfit("ours")
    host = start.copy()
    host.inject(FailedInit("failed-init", channels=0))
    outcome = apply(host, "tpp-dsa")
    assert "reverted" == outcome.result
    assert outcome.message.endswith(f"; cpus 4-5 are left offline: {OTHERS}")
    assert tiering_on(look(host))
    assert [] == unsafe(host)
    off_by_hand(host)
    assert "changed" == Driver(host).rollback().result
    is_back(start, host)


def test_swap_that_came_since_stands_in_the_way_of_tiering_only() -> None:
    """The host was fit for tiering when it was found, and is not now."""
    host = found("tpp", *((f"/sys/devices/system/cpu/cpu{n}/online", 0) for n in (4, 5)), swap=SWAP)
    host.run(("swapoff", "/dev/sda3"), 1.0)
    host.poke(BALANCING, "2\n")
    assert "changed" == apply(host, "dsa").result
    host.run(("swapon", "/dev/sda3"), 1.0)
    host.harm.clear()
    outcome = Driver(host).rollback()
    assert "changed" == outcome.result
    assert "found swap on /dev/sda3" in outcome.message
    assert not tiering_on(look(host))
    assert [] == unsafe(host)


def test_a_crash_guard_that_must_pause_the_tiering_leaves_it_off() -> None:
    """Nothing may move while the DSA is freed, and tiering must not be turned on again here."""
    start = unfit("tpp")
    met = 0
    for after in range(operations(start, _up)):
        host = crashed(start, _up, after, performed=True)
        initialised, tiered = on(look(host), "dsa_state"), tiering_on(look(host))
        kept = Driver(host).recover()
        at_rest(host)
        assert kept.state in ("unmanaged", "quarantined", "converged")
        assert engine_on(host) == (kept.state == "converged")
        if kept.state == "quarantined" and initialised and tiered and look(host).swaps:
            met += 1
            assert "tiering is left off" in kept.message
            assert not tiering_on(look(host))
        if kept.state == "quarantined":
            Driver(host).rollback()
            if tiering_on(look(host)):
                off_by_hand(host)
                Driver(host).rollback()
            is_back(start, host)
    assert met > 0


def test_a_value_that_spoils_pages_stays_away_and_is_told() -> None:
    host = found("tpp", (VM + "limit_chans", 3), (VM + "limit_mt_num", 3))
    assert "changed" == apply(host, "dsa").result
    outcome = Driver(host).rollback()
    # limit_mt_num was never written: it is as it was, and there is nothing to tell
    assert (
        f"{OFF}; limit_chans is left at 8: expected 1, 2, 4 or 8 on a seed kernel, found 3: "
        "the last bytes of each huge page would be lost"
    ) == outcome.message
    assert ("8", "3") == tuple(look(host).knobs[n] for n in ("limit_chans", "limit_mt_num"))


def test_a_clean_host_is_told_nothing() -> None:
    host = small("tpp", swap=SWAP)
    assert "changed" == apply(host, "tpp-dsa").result
    assert OFF == Driver(host).rollback().message
    assert OFF == record(host).message


def _up(host: SimHost) -> None:
    apply(host, "tpp-dsa")
