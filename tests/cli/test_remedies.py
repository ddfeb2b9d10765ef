# SPDX-License-Identifier: Apache-2.0
"""Whoever does literally what ``status`` says is to be done arrives at what it promises.

The commands are taken out of the text. What needs hands is done by the scene: somebody stops
the other writer, or replaces what broke. "reboot" is a reboot of the simulated host.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dsatier.apply.driver import Driver
from dsatier.apply.status_document import BACK, CORRECT, REMEDIES
from dsatier.base.exits import NOT_COMPLIANT, OK
from dsatier.base.paths import STATUS
from dsatier.cli.main import main
from dsatier.sim.faults import Crash, Halt, HungWrite, RejectedWrite, SelfClear, SimCrash
from dsatier.sim.host import SimHost
from tests.support.running import PROFILES, daemon
from tests.support.scene import record

SIM = ("--host", "sim:dsa8")
PROFILE = str(PROFILES / "dsa.yaml")
MANY = "version: 1\nengine: {kind: dsa, limit_chans: 8, work_queues: {devices: 64}}\n"
"""A profile that asks for more devices than there are."""
THRESHOLD = "/proc/sys/vm/dsa_copy_threshold"
READ = ("dmesg", "journalctl", "systemctl")
"""Commands that show something, or speak with a daemon that is not there."""


class Stage:
    """A simulated host that the command line and a scene change in turn."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "host.json"
        self.codes: list[tuple[str, int]] = []

    def run(self, *words: str) -> int:
        """Run dsatier on the host."""
        code = main([words[0], *SIM, "--sim-state", str(self.file), *words[1:]])
        self.codes.append((words[0], code))
        return code

    def change(self, act: Callable[[SimHost], object]) -> None:
        """Do something to the host."""
        host = self.host()
        act(host)
        self.file.write_text(host.state_text(), encoding="utf-8")

    def host(self) -> SimHost:
        """Return a copy of the host."""
        return SimHost.restore(self.file.read_text(encoding="utf-8"))

    def remedy(self) -> str:
        """Return what is to be done, as the status document says."""
        document = json.loads(self.host().files[STATUS])
        return str(document["remedy"])

    def follow(self, heal: Callable[[SimHost], object]) -> None:
        """Do what the remedy says, in its order."""
        text = self.remedy()
        self.codes.clear()
        self.change(heal)
        if "reboot" in text:
            self.change(SimHost.reboot)
            self.change(lambda host: Driver(host).recover())  # as the daemon does when it starts
        for words in re.findall(r"`([^`]+)`", text):
            program, *rest = shlex.split(words)
            if program in READ:
                continue
            assert program == "dsatier", text
            if rest == ["apply"]:
                rest += ["-p", PROFILE]  # on a machine it would be a drop-in
            self.run(*rest)


def nothing(host: SimHost) -> None:
    """Heal nothing."""


def applied(stage: Stage) -> None:
    assert stage.run("apply", "-p", PROFILE) == OK


def unmanaged(stage: Stage) -> None:
    applied(stage)
    stage.change(SimHost.reboot)
    stage.change(lambda host: Driver(host).recover())


def withdrawn(stage: Stage) -> None:
    applied(stage)
    assert stage.run("rollback") == OK


def drifted(stage: Stage) -> None:
    reporting = stage.file.with_name("reporting.yaml")
    text = (PROFILES / "dsa.yaml").read_text(encoding="utf-8")
    reporting.write_text(f"{text}drift: {{policy: report}}\n", encoding="utf-8")
    assert stage.run("apply", "-p", str(reporting)) == OK
    stage.change(lambda host: host.poke(THRESHOLD, "99\n"))
    assert stage.run("reconcile", "-p", str(reporting)) == NOT_COMPLIANT


def reverted(stage: Stage) -> None:
    stage.run("facts")
    refused = RejectedWrite("rejected-write", "/proc/sys/vm/use_dsa_copy_pages", times=1)
    stage.change(lambda host: host.inject(refused))
    stage.run("apply", "-p", PROFILE)


def degraded(stage: Stage) -> None:
    applied(stage)
    stage.change(lambda host: host.inject(SelfClear("self-clear")))
    stage.change(lambda host: host.sleep(10.0))
    stage.run("reconcile", "-p", PROFILE)


def halted(stage: Stage) -> None:
    applied(stage)
    stage.change(lambda host: host.inject(Halt("halt", "dsa0")))
    stage.change(lambda host: host.sleep(10.0))
    stage.run("reconcile", "-p", PROFILE)


def quarantined(stage: Stage) -> None:
    stage.run("facts")
    stage.change(lambda host: host.inject(Crash("crash", after=20)))
    with pytest.raises(SimCrash):
        stage.run("apply", "-p", PROFILE)
    stage.change(lambda host: host.heal("crash"))
    stage.run("reconcile", "-p", PROFILE)


def rollback_failed(stage: Stage) -> None:
    applied(stage)
    refused = RejectedWrite("rejected-write", "/proc/sys/vm/dsa_state", times=9)
    stage.change(lambda host: host.inject(refused))
    stage.run("rollback")


def reboot_required(stage: Stage) -> None:
    stage.run("facts")
    stage.change(lambda host: host.inject(HungWrite("hung-write", "/proc/sys/vm/dsa_state")))
    stage.run("apply", "-p", PROFILE)


@dataclass(frozen=True)
class Scene:
    """How a host comes into a state, what heals it, and where its remedy leads."""

    make: Callable[[Stage], None]
    heal: Callable[[SimHost], object]
    arrives: str


SCENES = {
    "unmanaged": Scene(unmanaged, nothing, "converged"),
    "converged": Scene(applied, nothing, "converged"),
    "drifted": Scene(drifted, nothing, "converged"),
    "reverted": Scene(reverted, lambda host: host.heal("rejected-write"), "converged"),
    "degraded": Scene(degraded, lambda host: host.heal("self-clear"), "converged"),
    "quarantined": Scene(quarantined, nothing, "converged"),
    "rollback-failed": Scene(
        rollback_failed, lambda host: host.heal("rejected-write"), "unmanaged"
    ),
    "reboot-required": Scene(reboot_required, lambda host: host.heal("hung-write"), "unmanaged"),
}


MORE = {
    "unmanaged": Scene(withdrawn, nothing, "converged"),
    # the kernel has the device's channel for good: that only turns out when it is asked for
    "degraded": Scene(halted, lambda host: host.heal("halt"), "reboot-required"),
}


def test_every_state_that_lasts_has_a_scene() -> None:
    assert SCENES.keys() == REMEDIES.keys()


@pytest.mark.parametrize(("name", "scene"), [*SCENES.items(), *MORE.items()])
def test_the_remedy_of_a_state_leads_out_of_it(name: str, scene: Scene, tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    scene.make(stage)
    assert record(stage.host()).state == name
    stage.follow(scene.heal)
    assert record(stage.host()).state == scene.arrives, stage.codes
    if stage.codes and scene.arrives == "converged":
        assert stage.codes[-1][1] == OK, stage.codes


def test_what_was_withdrawn_says_how_it_comes_back(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    withdrawn(stage)
    assert stage.remedy() == BACK


def test_a_profile_that_is_mended_comes_into_force(tmp_path: Path) -> None:
    """The remedy of a daemon that could not take a profile."""
    with daemon("sim:dsa8") as running:
        for bad in ("version: 1\nengin: {}\n", MANY):
            running.profile(bad)
            assert running.reload().code != OK
            assert running.status()["remedy"] == CORRECT
            running.profile((PROFILES / "cpu.yaml").read_text(encoding="utf-8"))
            assert running.reload().code == OK
            assert running.state() == "converged"
