# SPDX-License-Identifier: Apache-2.0
"""``dsatier demo``: what dsatier does, shown on a simulated host."""

from __future__ import annotations

import json
import sys
import time
from importlib.resources import files

from dsatier.apply.driver import Driver
from dsatier.apply.execute import Progress
from dsatier.apply.gate import Gate, Refused
from dsatier.apply.outcome import Outcome
from dsatier.apply.target import Target, target
from dsatier.base.paths import LOCK, STATUS
from dsatier.cli import render
from dsatier.cli.status import screen
from dsatier.facts.observe.observer import Observer
from dsatier.host.port import Host
from dsatier.plan.requests import SetKnob
from dsatier.profile.load import from_texts
from dsatier.sim.faults import SelfClear
from dsatier.sim.host import SimHost

PAUSE = 0.08
"""Seconds between two lines, so that eyes can follow."""


class Failed(Exception):
    """The demonstration did not show what it is for."""


def demo(*, fast: bool = False) -> int:
    """Show a host going up, drift, a fault, a refusal and the way down. Returns the exit code."""
    host = SimHost.host_for("dsa8")
    pause = 0.0 if fast else PAUSE
    try:
        with host.lock(LOCK, "dsatier demo"):
            _tour(host, pause)
    except Failed as failed:
        print(f"dsatier demo: {failed}", file=sys.stderr)
        return 1
    if host.harm:
        print(f"dsatier demo: the simulated host was harmed: {host.harm[0]}", file=sys.stderr)
        return 1
    _title("the simulated host was never harmed; try `dsatier plan --host sim:dsa8-seed -p ...`")
    return 0


def _tour(host: SimHost, pause: float) -> None:
    def tell(one: Progress) -> None:
        if one.outcome is not None:
            print("  " + render.progress(one), flush=True)
            time.sleep(pause)

    profile = files("dsatier").joinpath("profiles", "dsa.yaml").read_text(encoding="utf-8")
    driver = Driver(host, holder="dsatier demo", progress=tell)
    wanted = _target(host, profile)

    _title("a host with two tiers and eight DSA devices, everything off")
    print(_indented(render.facts(driver.look())))
    _title("applying profiles/dsa.yaml: each step is proven before the next")
    _expect(driver.apply(wanted), "changed")
    _title("`dsatier status`")
    _show_status(host)

    _title("somebody writes dsa_copy_threshold = 99: drift, found and repaired")
    host.write("/proc/sys/vm/dsa_copy_threshold", "99\n", 1.0)
    _expect(driver.reconcile(wanted), "changed")

    _title("somebody asks for limit_chans = 4 while the engine runs: refused before it is written")
    try:
        Gate(host, Observer(host)).submit(SetKnob("limit_chans", 4), 1.0)
    except Refused as refused:
        print(f"  {refused}")
    else:
        raise Failed("the unsafe write was not refused")

    _title("the profile may ask for it: the host comes down as far as it must, and climbs again")
    fewer = _target(host, profile.replace("limit_chans: 8", "limit_chans: 4"))
    _expect(driver.apply(fewer), "changed")

    _title("a copy fails on the device and the kernel turns its engine off: a fault, not drift")
    host.inject(SelfClear("self-clear"))
    host.sleep(2.0)
    _expect(driver.reconcile(fewer), "degraded")
    _show_status(host)

    _title("an operator looks, acknowledges with `dsatier clear`, and applies again")
    host.heal("self-clear")
    _expect(driver.clear(), "changed")
    _expect(driver.apply(fewer), "changed")

    _title("`dsatier rollback`: everything as it was found, in the safe order")
    _expect(driver.rollback(), "changed")


def _target(host: Host, profile: str) -> Target:
    facts = Observer(host).look()
    return target(host.read, from_texts([("profiles/dsa.yaml", profile)], facts), facts, None)


def _expect(outcome: Outcome, result: str) -> None:
    print(f"  → {render.outcome(outcome)}")
    if outcome.result != result:
        raise Failed(f"expected {result}, found {render.outcome(outcome)}")


def _show_status(host: Host) -> None:
    print(_indented(screen(json.loads(host.read(STATUS)), host.wall())))


def _title(text: str) -> None:
    print(f"\n── {text}")


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
