# SPDX-License-Identifier: Apache-2.0
"""From the files of a profile to what the driver is to reach on one host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsatier.base.problem import Invalid, Problem
from dsatier.facts.model import Facts
from dsatier.host.port import HostError
from dsatier.plan.desired import from_profile, iommu_left, memory_untold, untouched
from dsatier.plan.model import Desired, Finding
from dsatier.plan.originals import Originals
from dsatier.profile.model import DriftPolicy, DsaEngine, Profile, QueueFile
from dsatier.queues.accel_config import parse
from dsatier.queues.config import DeviceConfig, for_driver

if TYPE_CHECKING:
    from dsatier.profile.loaded import Loaded

Read = Callable[[str], str]
NO_PROFILE = Profile(version=1)


def target(read: Read, loaded: Loaded, facts: Facts, before: Originals | None) -> Target:
    """Return what ``loaded`` wants of the host of ``facts``.

    ``read`` returns a file's text: the profile may name a queue file. Raises Invalid where that
    is wrong.
    """
    profile = loaded.profile or NO_PROFILE
    engine = profile.engine
    # an idxd before Linux 6.7 has no driver names, a later one takes no queue without
    queues = for_driver(_queue_file(read, profile), driver_names=facts.kernel.family != "seed")
    desired = from_profile(profile, facts, before, queues)
    extra = tuple(
        Finding("warning", "profile-skipped", one.path, "a profile for this host", one.reason, "")
        for one in (loaded.skipped if not loaded.files else ())
    )
    return Target(
        desired=desired,
        digest=loaded.digest,
        extra=(
            *extra,
            *iommu_left(before, facts, desired),
            *memory_untold(profile, facts, desired),
        ),
        untouched=untouched(profile),
        drift=profile.drift or DriftPolicy(),
        stop_tiering_on_fault=isinstance(engine, DsaEngine)
        and engine.on_fault == "cpu-and-stop-tiering",
    )


def _queue_file(read: Read, profile: Profile) -> tuple[DeviceConfig, ...]:
    engine = profile.engine
    if not isinstance(engine, DsaEngine) or not isinstance(engine.work_queues, QueueFile):
        return ()
    path = engine.work_queues.file
    try:
        text = read(path)
    except HostError as error:
        problem = Problem(path, 0, 0, (), "a readable accel-config file", error.message)
        raise Invalid([problem]) from error
    return parse(text, path)


NO_POLICY = DriftPolicy()


@dataclass(frozen=True, slots=True)
class Target:
    """What a profile wants of this host, with what the driver must know of the profile."""

    desired: Desired
    digest: str
    extra: tuple[Finding, ...] = ()
    untouched: tuple[str, ...] = ()
    drift: DriftPolicy = NO_POLICY
    stop_tiering_on_fault: bool = False
    given: tuple[str, ...] = ()
    """The files of the profile where somebody named them, and they are no drop-ins."""
