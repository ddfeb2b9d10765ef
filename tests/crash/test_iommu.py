# SPDX-License-Identifier: Apache-2.0
"""Devices that go past the IOMMU and come back: by profile, rollback, crash, reboot, refusal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dsatier.apply.driver import Driver
from dsatier.apply.journal import Journal
from dsatier.apply.outcome import Outcome
from dsatier.apply.target import Target, target
from dsatier.facts.observe.observer import Observer
from dsatier.profile.load import from_texts
from dsatier.profile.model import CpuEngine, DsaEngine, Profile, QueueShape
from dsatier.sim.faults import Halt, RejectedWrite
from dsatier.sim.host import SimHost
from tests.support.hosts import queues
from tests.support.scene import (
    at_rest,
    crashed,
    engine_on,
    fit,
    look,
    operations,
    record,
    shipped,
    small,
)

BOTH = ("ours", "tpp")
IDXD = "/sys/bus/pci/drivers/idxd"
GROUP = "/sys/kernel/iommu_groups/0/type"


def behind(kind: str = "ours", **fields: Any) -> SimHost:
    """A host whose devices are translated."""
    return small(kind, iommu="translated", **fields)


def profile(host: SimHost, *, identity: bool = True) -> Profile:
    """The DSA engine, its devices past the IOMMU or not."""
    wanted = fit(shipped("tpp-dsa" if host.kernel.spec.kernel.kind == "tpp" else "dsa"), host)
    assert isinstance(wanted.engine, DsaEngine)
    assert wanted.engine.work_queues is not None
    shape = replace(wanted.engine.work_queues, iommu="identity" if identity else None)
    return replace(wanted, engine=replace(wanted.engine, work_queues=shape))


def wanted(host: SimHost, given: Profile) -> Target:
    loaded = replace(from_texts([]), profile=given, digest=repr(given))
    return target(host.read, loaded, Observer(host).look(), Journal(host).originals())


def apply(host: SimHost, *, identity: bool = True) -> Outcome:
    return Driver(host).apply(wanted(host, profile(host, identity=identity)))


def typed_by_others(host: SimHost, kind: str) -> None:
    """Have somebody give the first device's group a type."""
    address = host.kernel.layout.pci[0]
    host.poke(f"{IDXD}/unbind", f"{address}\n")
    host.poke(GROUP, f"{kind}\n")
    host.poke(f"{IDXD}/bind", f"{address}\n")


def types(host: SimHost) -> list[str]:
    """Return the types of the devices' groups; of one without a driver: no driver."""
    facts = look(host)
    found = [device.group.type for device in facts.devices if device.group is not None]
    return found + ["no driver"] * len(facts.unbound)


@pytest.mark.parametrize("kind", BOTH)
def test_the_devices_go_past_the_iommu_and_back(kind: str) -> None:
    host = behind(kind)
    assert "changed" == apply(host).result
    assert (["identity"] * 2, True, "passthrough") == (
        types(host),
        engine_on(host),
        look(host).iommu,
    )
    assert "unchanged" == apply(host).result
    assert "changed" == Driver(host).rollback().result
    assert (["DMA-FQ"] * 2, None) == (types(host), Journal(host).originals())
    at_rest(host)


def test_a_seed_kernel_behind_an_iommu_is_refused_without_it() -> None:
    found = apply(behind("tpp"), identity=False)
    assert "refused" == found.result
    assert "set `iommu: identity` in the profile's engine.work_queues" in found.message
    assert "can then reach all memory" in found.message


def test_devices_that_the_engine_does_not_use_may_stay_translated() -> None:
    host = behind("tpp", devices=[{"queues": 8}, {"queues": 8}, {"queues": 8}])
    given = Profile(
        version=1,
        engine=DsaEngine("dsa", 2, work_queues=QueueShape(("dsa0", "dsa2"), iommu="identity")),
    )
    assert "changed" == Driver(host).apply(wanted(host, given)).result
    assert ["identity", "DMA-FQ", "identity"] == types(host)
    assert [] == host.harm


def test_a_profile_that_no_longer_names_it_takes_it_back() -> None:
    host = behind()
    apply(host)
    assert "changed" == apply(host, identity=False).result
    assert (["DMA-FQ"] * 2, True) == (types(host), engine_on(host))
    cpu = Profile(version=1, engine=CpuEngine("cpu"))
    apply(host)
    assert "changed" == Driver(host).apply(wanted(host, cpu)).result
    assert ["DMA-FQ"] * 2 == types(host)
    # what the profile says nothing of has its queues as before
    assert {"enabled"} == {device.state for device in look(host).devices}
    at_rest(host)


def test_a_group_that_was_identity_before_is_left_so() -> None:
    host = behind()
    typed_by_others(host, "identity")
    apply(host)
    Driver(host).rollback()
    assert ["identity", "DMA-FQ"] == types(host)


def test_detach_takes_it_back() -> None:
    host = behind()
    apply(host)
    Driver(host).detach()
    assert ["DMA-FQ"] * 2 == types(host)


def test_queues_that_were_there_before_come_back_with_the_type() -> None:
    host = behind()
    queues(0)(host)
    before = look(host).devices[0].queues
    assert "changed" == apply(host).result
    Driver(host).rollback()
    assert (before, ["DMA-FQ"] * 2) == (look(host).devices[0].queues, types(host))


def test_a_type_that_others_set_since_is_theirs() -> None:
    host = behind()
    apply(host)
    typed_by_others(host, "DMA")
    found = Driver(host).rollback()
    assert ["DMA", "DMA-FQ"] == types(host)
    assert (
        "the IOMMU group of dsa0 is left at DMA (was DMA-FQ): somebody else has set it since"
        in found.message
    )


def test_a_device_that_halted_keeps_its_type_and_that_is_told() -> None:
    host = behind()
    apply(host)
    host.inject(Halt("halt", "dsa0"))
    host.sleep(10.0)
    found = Driver(host).rollback()
    assert ["identity", "DMA-FQ"] == types(host)
    assert "the IOMMU group of dsa0 is left at identity (was DMA-FQ): the device has halted" in (
        found.message
    )
    # nobody holds it now
    assert "changed" == Driver(host).rollback().result
    assert (["DMA-FQ"] * 2, None) == (types(host), Journal(host).originals())


def test_what_a_profile_cannot_take_back_now_is_told_until_it_can() -> None:
    host, cpu = behind(), Profile(version=1, engine=CpuEngine("cpu"))
    apply(host)
    assert () == wanted(host, cpu).extra
    host.inject(Halt("halt", "dsa0"))
    host.sleep(10.0)
    found = wanted(host, cpu)
    (told,) = found.extra
    assert {"dsa1": "DMA-FQ"} == found.desired.iommu
    assert ("warning", "iommu-left", "IOMMU group 0 of dsa0", "DMA-FQ, as it was") == (
        told.level,
        told.name,
        told.where,
        told.expected,
    )
    assert "identity, and the device has halted" in told.found
    # a profile that says so leaves nothing
    assert () == wanted(host, profile(host)).extra


@pytest.mark.parametrize("kind", BOTH)
def test_a_device_that_is_bound_at_the_second_try_is_translated_again(kind: str) -> None:
    host = behind(kind)
    host.inject(RejectedWrite("rejected-write", path=f"{IDXD}/bind", errno="EIO"))
    found = apply(host)
    assert ("reverted", ["DMA-FQ"] * 2) == (found.result, types(host))
    assert "no driver has 0000:6a:01.0 now" in found.message
    at_rest(host)


@pytest.mark.parametrize("kind", BOTH)
def test_a_device_that_cannot_be_bound_is_told_and_translated_again(kind: str) -> None:
    host = behind(kind)
    host.inject(RejectedWrite("rejected-write", path=f"{IDXD}/bind", errno="EIO", times=0))
    found = apply(host)
    assert "rollback-failed" == found.result
    assert "reset the device and write its address to this file" in found.message
    (loose,) = look(host).unbound
    assert loose.group is not None
    assert ("DMA-FQ", False) == (loose.group.type, engine_on(host))
    assert "rollback-failed" == Driver(host).rollback().result
    host.heal("rejected-write")
    assert "changed" == Driver(host).rollback().result
    assert (["DMA-FQ"] * 2, None) == (types(host), Journal(host).originals())
    at_rest(host)


def test_a_unit_without_the_right_is_refused_before_the_first_write() -> None:
    host = behind(unit="shipped")
    found = apply(host)
    assert ("refused", True) == (found.result, "it lacks CAP_SYS_RAWIO and" in found.message)
    assert ["DMA-FQ"] * 2 == types(host)
    assert "changed" == apply(behind(unit="past-iommu")).result


def test_both_refusals_are_told() -> None:
    host = behind()
    host.inject(RejectedWrite("rejected-write", path=GROUP, errno="EINVAL"))
    host.inject(RejectedWrite("rejected-write", path=f"{IDXD}/bind", errno="EIO"))
    found = apply(host)
    assert ("reverted", ["DMA-FQ"] * 2) == (found.result, types(host))
    assert "cannot leave this device untranslated" in found.message
    assert "no driver has 0000:6a:01.0 now" in found.message


def test_a_reboot_takes_it_and_the_profile_brings_it_again() -> None:
    host = behind()
    apply(host)
    host.reboot()
    assert ["DMA-FQ"] * 2 == types(host)
    assert "changed" == apply(host).result
    assert (["identity"] * 2, True) == (types(host), engine_on(host))


def test_a_type_that_somebody_set_back_is_drift() -> None:
    host = behind()
    apply(host)
    typed_by_others(host, "DMA")
    driver = Driver(host)
    driver.reconcile(wanted(host, profile(host)))
    driver.clear()
    driver.reconcile(wanted(host, profile(host)))
    assert (["identity"] * 2, True) == (types(host), engine_on(host))


@pytest.mark.parametrize(
    ("errno", "words"),
    [
        ("EINVAL", "cannot leave this device untranslated"),
        ("EPERM", "a driver has a device of the group"),
        ("EBUSY", "a program uses it by VFIO"),
        ("EACCES", "see `Past the IOMMU` in docs/operations.md for its unit"),
        ("EROFS", "see `Past the IOMMU` in docs/operations.md for its unit"),
        ("ENOMEM", "Cannot allocate memory"),
    ],
)
def test_a_refusal_by_the_kernel_is_told_and_the_device_is_back(errno: str, words: str) -> None:
    host = behind()
    host.inject(RejectedWrite("rejected-write", path=GROUP, errno=errno))
    found = apply(host)
    assert "reverted" == found.result
    assert words in found.message
    assert (["DMA-FQ"] * 2, False) == (types(host), engine_on(host))
    at_rest(host)


def test_a_group_of_several_devices_is_refused_before_the_first_write() -> None:
    host = behind(iommu_group_of_all=True)
    found = apply(host)
    assert ("refused", True) == (found.result, "and idxd has that" in found.message)
    assert found.plan is not None
    assert () == found.plan.steps


@pytest.mark.parametrize("performed", [False, True])
@pytest.mark.parametrize("way", ["there", "back"])
def test_a_crash_anywhere_leaves_no_device_without_a_driver(way: str, performed: bool) -> None:
    host = behind()
    if way == "back":
        apply(host)
    act = apply if way == "there" else lambda one: Driver(one).rollback()
    loose = 0
    for after in range(operations(host, act)):
        dead = crashed(host, act, after, performed)
        half_way = {one.pci for one in look(dead).unbound}
        loose += len(half_way)
        Driver(dead).recover()
        assert "no driver" not in types(dead)
        # whatever was written when it died, they are behind the IOMMU again
        now = {device.pci: device.group for device in look(dead).devices}
        assert {"DMA-FQ"} >= {group.type for pci in half_way if (group := now[pci])}
        at_rest(dead)
        Driver(dead).clear()
        again = dead.copy()
        Driver(again).apply(wanted(again, profile(again)))
        assert (["identity"] * 2, True) == (types(again), engine_on(again))
        Driver(dead).rollback()
        assert ["DMA-FQ"] * 2 == types(dead), after
    assert loose >= 4
    assert "changed" == act(host).result
    assert record(host).state in ("converged", "unmanaged")
