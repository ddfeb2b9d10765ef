# SPDX-License-Identifier: Apache-2.0
"""Drivers on simulated hosts, and what must be true whenever they rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from dsatier.apply import lifecycle
from dsatier.apply.driver import Driver
from dsatier.apply.outcome import Outcome
from dsatier.apply.records import Record
from dsatier.apply.target import Target
from dsatier.facts.observe.observer import Observer
from dsatier.facts.readings import live, on
from dsatier.plan.desired import from_profile, untouched
from dsatier.profile.load import digest
from dsatier.profile.model import DriftPolicy, DsaEngine, Profile
from dsatier.sim.host import SimHost
from tests.proof.explore import engine_lies, unmet

T = TypeVar("T")


class Recorder(SimHost):
    """A host that keeps a copy of itself before each operation: what a crash there leaves."""

    snapshots: list[SimHost]

    @classmethod
    def of_host(cls, host: SimHost) -> Recorder:
        """Return a recorder that goes on from ``host``."""
        new = cls(host.kernel.copy(), host.pace)
        new.snapshots = []
        return new

    def _mutate(self, act: Callable[[], T]) -> T:
        self.snapshots.append(self.copy())
        return super()._mutate(act)

    def copy(self) -> SimHost:
        """Return a plain host that goes its own way from here."""
        return SimHost(self.kernel.copy(), self.pace)


def target(host: SimHost, profile: Profile) -> Target:
    """Return what a profile wants of a host."""
    facts = Observer(host).look()
    engine = profile.engine
    return Target(
        desired=from_profile(profile, facts, Driver(host).journal.originals()),
        digest=digest(profile),
        untouched=untouched(profile),
        drift=profile.drift or DriftPolicy(),
        stop_tiering_on_fault=isinstance(engine, DsaEngine)
        and engine.on_fault == "cpu-and-stop-tiering",
    )


def apply(host: SimHost, profile: Profile) -> Outcome:
    """Apply a profile with a fresh driver, as a new process does."""
    return Driver(host).apply(target(host, profile))


def reconcile(host: SimHost, profile: Profile) -> Outcome:
    """Reconcile with a fresh driver."""
    return Driver(host).reconcile(target(host, profile))


def record(host: SimHost) -> Record:
    """Return the host's record as it is kept."""
    return Driver(host).journal.record()


def disagreements(host: SimHost, profile: Profile | None = None) -> list[str]:
    """Return how a host at rest is not what its record says."""
    kept, facts = record(host), Observer(host).look()
    wrong = [f"harm: {harm}" for harm in host.harm if harm.by == "agent"]
    if kept.state not in lifecycle.STATES:
        wrong.append(f"no such state: {kept.state}")
    if kept.state in lifecycle.IN_MOTION:
        wrong.append(f"at rest in {kept.state}")
    if Driver(host).journal.motion() is not None:
        wrong.append("the journal is open")
    if kept.state == "converged" and profile is not None:
        lacking = unmet(target(host, profile).desired, facts)
        if lacking:
            wrong.append(f"converged, but {lacking}")
    if engine_lies(host, facts):
        wrong.append("the engine is on without being initialised")
    if kept.state in ("quarantined", "degraded") and on(facts, "use_dsa_copy_pages"):
        wrong.append(f"{kept.state} with the engine on")
    if kept.state == "quarantined" and live(facts, "cpu_multi_copy_pages"):
        wrong.append("quarantined with threads on")
    if (kept.state == "quarantined") != (kept.latch == "crash") and kept.state != "reboot-required":
        wrong.append(f"{kept.state} with latch {kept.latch}")
    if kept.state == "degraded" and kept.latch != "fault":
        wrong.append(f"{kept.state} with latch {kept.latch}")
    return wrong


def reporting(profile: Profile) -> Profile:
    """Return the profile with drift only reported."""
    return replace(profile, drift=DriftPolicy(policy="report"))
