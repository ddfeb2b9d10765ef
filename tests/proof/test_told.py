# SPDX-License-Identifier: Apache-2.0
"""Over faults, disks and deaths: nobody is ever told Converged while the host differs."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsatier.apply.driver import Driver
from dsatier.apply.lifecycle import TransitionRefused
from dsatier.base.exits import OK
from dsatier.base.paths import STATUS
from dsatier.cli.status import told as shown
from dsatier.daemon.metrics import Running, render
from dsatier.host.port import HostDown
from dsatier.plan.rehearsal import prepare
from dsatier.sim.faults import AnyFault, CopyFailures, Crash, FullDisk, Halt, SelfClear, SimCrash
from dsatier.sim.host import SimHost
from tests.support.scene import VM, look, record, small, wanted

PROFILES = ("tpp-dsa", "cpu", "dsa")
POKES = (
    (VM + "dsa_copy_threshold", "99\n"),
    (VM + "use_concur_to_demote", "0\n"),
    ("/proc/sys/kernel/numa_balancing", "0\n"),
    ("/sys/kernel/mm/numa/demotion_enabled", "0\n"),
)
FAULTS: tuple[AnyFault, ...] = (
    SelfClear("self-clear"),
    CopyFailures("copy-failures", times=2),
    Halt("halt", "dsa1"),
    FullDisk("disk", errno="ENOSPC", keeps=1),
    FullDisk("disk", errno="EROFS"),
    FullDisk("disk", errno="ENOSPC", folder="/run/"),
    *(Crash("crash", after=after) for after in (0, 3, 9, 20)),
)
ACTS = ("apply", "reconcile", "rollback", "detach", "clear", "reboot", "heal", "wait")
acts = st.one_of(
    st.tuples(st.sampled_from(ACTS), st.sampled_from(PROFILES)),
    st.sampled_from(POKES),
    st.sampled_from(FAULTS),
)


def do(host: SimHost, act: object, profile: str) -> str:
    """Do one thing to a host; return the profile that is asked for from then on."""
    driver = Driver(host)
    match act:
        case ("apply", str(name)):
            profile = name
            driver.apply(wanted(host, profile))
        case ("reconcile", _):
            driver.reconcile(wanted(host, profile))
        case ("rollback", _):
            driver.rollback()
        case ("detach", _):
            driver.detach()
        case ("clear", _):
            driver.clear()
        case ("reboot", _):
            host.reboot()
        case ("heal", _):
            for kind in {fault.kind for fault in FAULTS}:
                host.heal(kind)
        case ("wait", _):
            host.advance(30.0)
        case (str(path), str(text)):
            host.poke(path, text)
        case _:
            host.inject(act)  # type: ignore[arg-type]
    return profile


@pytest.mark.parametrize("kind", ["ours", "tpp"])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(found=st.lists(acts, min_size=1, max_size=6))
def test_nobody_is_told_converged_while_the_host_differs(kind: str, found: list[object]) -> None:
    host, profile = small(kind), "tpp-dsa"
    for act in (("apply", profile), *found):
        with suppress(SimCrash, HostDown, TransitionRefused):
            profile = do(host, act, profile)
        if host.down:
            return
        # a look, as the daemon takes it, and what anybody is told of it
        with suppress(SimCrash, HostDown, TransitionRefused):
            Driver(host).reconcile(wanted(host, profile))
            compare(host, profile)


def compare(host: SimHost, profile: str) -> None:
    """Assert that no interface tells Converged of a host that is not as the profile says."""
    if STATUS not in host.files:
        return
    text = host.files[STATUS]
    document = json.loads(text)
    if document["written_at"] < host.wall() - 1:
        return  # /run is full: the document is old, and every reader sees how old
    target = wanted(host, profile)
    plan = prepare(look(host), target.desired)
    differs = bool(plan.steps) or plan.verdict != "ready"
    conditions = {one["type"]: one["status"] for one in document["conditions"]}
    lines = render(record(host), None, Running("1", 0.0), {}).splitlines()
    claims = {
        "state": document["state"] == "converged",
        "condition": conditions["Converged"] == "True",
        "exit code": shown(text, "", as_json=False, now=host.wall())[2] == OK,
        "metric": 'dsatier_condition{type="Converged",status="True"} 1' in lines,
        "healthy": "dsatier_healthy 1" in lines,
    }
    assert not (differs and any(claims.values())), (claims, plan.steps, plan.findings)
