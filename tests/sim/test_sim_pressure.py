# SPDX-License-Identifier: Apache-2.0
"""Pressure on simulated hosts, as it is watched from look to look."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsatier.apply.driver import Driver
from dsatier.apply.effect_watch import EffectWatch
from dsatier.apply.history import entries
from dsatier.apply.journal import Journal
from dsatier.apply.status_document import idle, status
from dsatier.apply.target import target
from dsatier.base.health import unwell
from dsatier.base.paths import EFFECT, HISTORY
from dsatier.facts.observe.flow import counts
from dsatier.facts.observe.observer import observe
from dsatier.profile.load import from_texts
from dsatier.sim.faults import Pressure
from dsatier.sim.host import SimHost

PROFILE = (Path(__file__).parents[2] / "profiles/tiering.yaml").read_text(encoding="utf-8")
LOOKS = 4
SECONDS = 40.0


class Watched:
    """A tiered host, as a daemon watches it."""

    def __init__(self, name: str = "stock-6-12", profile: str = PROFILE) -> None:
        self.host = SimHost.host_for(name)
        facts = observe(self.host)
        wanted = target(self.host.read, from_texts([("p.yaml", profile)], facts), facts, None)
        assert "changed" == Driver(self.host).apply(wanted).result
        self.start()
        self.look(1)

    def start(self) -> None:
        """Start the daemon, perhaps anew."""
        self.driver = Driver(self.host)
        self.watch = EffectWatch(self.host, self.driver.journal, self.driver.chronicle)

    def look(self, times: int = LOOKS) -> tuple[str, str] | None:
        """Look some times; return verdict and reason."""
        for _ in range(times):
            self.host.advance(SECONDS)
            found = self.watch.look(self.driver.look())
        return None if found is None else (found.verdict, found.reason)

    def told(self) -> list[str]:
        """Return what the history has of tiering, the oldest first."""
        found, _ = entries(self.host.read(HISTORY))
        return [e.message.partition(": ")[0] for e in reversed(found) if e.event == "tiering"]


@pytest.mark.parametrize(
    ("meets", "expected"),
    [
        ("room", ("working", "Moved")),
        ("full", ("not working", "TargetFull")),
        ("bound", ("not working", "NothingMoves")),
        ("unscanned", ("not working", "ScanningOff")),
        ("ping-pong", ("not working", "PingPong")),
    ],
)
@pytest.mark.parametrize("name", ["stock-6-1", "stock-6-12", "stock-7-2"])
def test_each_kind_of_pressure_leads_to_its_verdict(
    name: str, meets: str, expected: tuple[str, str]
) -> None:
    watched = Watched(name)
    assert ("armed", "NoPressure") == watched.look()
    watched.host.inject(Pressure("pressure", meets=meets))  # type: ignore[arg-type]
    assert expected == watched.look()


def test_a_limit_that_is_too_low_is_named() -> None:
    watched = Watched(profile=PROFILE.replace("MBps: 2000", "MBps: 1"))
    watched.host.inject(Pressure("pressure", meets="hot"))
    assert ("not working", "RateLimit") == watched.look()


def test_what_does_not_work_is_a_warning_and_changes_no_state() -> None:
    watched = Watched()
    watched.host.inject(Pressure("pressure", meets="full"))
    watched.look()
    record = Journal(watched.host).record()
    document = status(record, "h", 0.0)
    assert ("converged", "") == (record.state, unwell(document))
    assert "TargetFull" == document["tiering"]["reason"]
    assert ["tiering-effect"] == [finding.name for finding in idle(record)]
    watched.host.heal("pressure")
    watched.host.inject(Pressure("pressure"))
    watched.look()
    assert ["not working", "working"] == watched.told()
    assert () == idle(Journal(watched.host).record())


def test_a_daemon_that_starts_again_goes_on_where_the_one_before_was() -> None:
    watched = Watched()
    watched.host.inject(Pressure("pressure"))
    assert ("working", "Moved") == watched.look()
    watched.host.heal("pressure")
    watched.start()
    assert ("working", "Moved") == watched.look()
    assert ["working"] == watched.told()


def test_what_was_kept_and_is_spoilt_is_begun_anew() -> None:
    watched = Watched()
    watched.host.files[EFFECT] = "{"
    watched.start()
    assert ("armed", "NoPressure") == watched.look()


def test_a_boot_begins_anew() -> None:
    watched = Watched()
    watched.host.inject(Pressure("pressure"))
    watched.look()
    watched.host.heal("pressure")
    watched.host.reboot()
    watched.start()
    record = watched.driver.recover()
    assert None is record.effect
    facts = observe(watched.host)
    wanted = target(watched.host.read, from_texts([("p.yaml", PROFILE)], facts), facts, None)
    watched.driver.apply(wanted)
    assert ("armed", "NoPressure") == watched.look()


def test_tiering_that_is_taken_back_is_watched_no_more() -> None:
    watched = Watched()
    assert EFFECT in watched.host.files
    watched.driver.rollback()
    assert None is watched.look(1)
    assert EFFECT not in watched.host.files
    assert None is Journal(watched.host).record().effect


def test_where_nodes_count_nothing_the_whole_does() -> None:
    host = SimHost.host_for("stock-6-1")
    found = counts(host, observe(host))
    assert (True, None) == (
        "pgdemote_kswapd" in found.whole,
        found.pages(("pgdemote_kswapd",), 0),
    )
