# SPDX-License-Identifier: Apache-2.0
"""Simulated hosts of any size, at the shipped DSA profile."""

from __future__ import annotations

from pathlib import Path

from dsatier.apply.driver import Driver
from dsatier.apply.target import target
from dsatier.profile.load import from_texts
from dsatier.sim.host import SimHost

PROFILES = Path(__file__).resolve().parent.parent / "profiles"
PROFILE = (PROFILES / "dsa.yaml").read_text(encoding="utf-8")


def host(cpus: int, devices: int) -> SimHost:
    """Return a simulated host of that size; the slow node has half of the CPUs."""
    half = cpus // 2
    return SimHost.load(
        f"version: 1\nhostname: bench\nkernel: {{release: 6.12.63-dsatier, kind: ours}}\n"
        f"nodes:\n  - {{cpus: 0-{half - 1}, memory: 64}}\n"
        f"  - {{cpus: {half}-{cpus - 1}, memory: 64}}\n"
        f"devices: {devices}\naccel_config: 4.1.6\n"
    )


def profile(devices: int) -> str:
    """Return the shipped DSA profile for that many devices."""
    chans = min(devices, 8)
    return PROFILE.replace("devices: 8", f"devices: {devices}").replace(
        "limit_chans: 8", f"limit_chans: {chans}"
    )


def apply(sim: SimHost, text: str) -> None:
    """Bring a simulated host to a profile."""
    driver = Driver(sim)
    facts = driver.look()
    outcome = driver.apply(target(sim.read, from_texts([("p.yaml", text)], facts), facts, None))
    if outcome.result != "changed":
        raise SystemExit(f"bench: {outcome.message}")
