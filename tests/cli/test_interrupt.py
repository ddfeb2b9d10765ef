# SPDX-License-Identifier: Apache-2.0
"""A signal in the middle of a change turns it round; it is no crash."""

from __future__ import annotations

from pathlib import Path

from dsatier.apply.driver import Driver
from dsatier.apply.execute import Progress
from dsatier.apply.target import target
from dsatier.base.paths import MOTION
from dsatier.facts.observe.observer import Observer
from dsatier.profile.load import from_texts
from dsatier.sim.host import SimHost

PROFILE = Path(__file__).resolve().parents[2] / "profiles" / "tpp-dsa.yaml"


def seen(host: SimHost) -> tuple[object, ...]:
    """What the change touches. A queue that is off keeps its type, a node its mark: no matter."""
    facts = Observer(host).look()
    devices = tuple((device.id, device.state) for device in facts.devices)
    cpus = tuple((node.id, node.cpus) for node in facts.nodes)
    return facts.knobs, cpus, facts.offline_cpus, facts.swaps, devices, facts.channels


class Interrupted(Driver):
    """A driver that is asked to end after step ``at`` of what it applies."""

    def __init__(self, host: SimHost, at: int) -> None:
        super().__init__(host, progress=self._hear)
        self._at = at

    def _hear(self, one: Progress) -> None:
        if one.outcome == "proven" and one.step.number == self._at:
            self.interrupt()


def test_every_point_of_interruption_leads_back() -> None:
    for stop_at in range(1, 19):
        host = SimHost.host_for("dsa8")
        before = seen(host)

        driver = Interrupted(host, stop_at)
        facts = driver.look()
        loaded = from_texts([("p.yaml", PROFILE.read_text(encoding="utf-8"))], facts)
        outcome = driver.apply(target(host.read, loaded, facts, None))
        # what comes after the last step has nothing to interrupt
        expected = "changed" if stop_at == 18 else "reverted"
        assert (expected, stop_at) == (outcome.result, stop_at)
        if expected == "reverted":
            assert "interrupted" in outcome.message
            assert before == seen(host)
        assert MOTION not in host.files
        assert [] == host.harm
