# SPDX-License-Identifier: Apache-2.0
"""Whose it is: what others have set, taken or configured stays as they left it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from dsatier.apply.driver import Driver
from dsatier.apply.journal import Journal
from dsatier.apply.outcome import Outcome
from dsatier.apply.target import Target, target
from dsatier.base.paths import ORIGINALS
from dsatier.facts.readings import device
from dsatier.profile.load import from_texts
from dsatier.profile.model import Concurrency, DsaEngine, Profile, Tiering, Tiers
from dsatier.sim.copying import set_queue
from dsatier.sim.faults import CopyFailures, Halt, RejectedWrite
from dsatier.sim.host import SimHost
from tests.support.hosts import queues
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
    reconcile,
    shipped,
    small,
)

LISTS = Profile(version=1, concurrency=Concurrency(use_concur_to_demote=True))
"""A profile that names one knob."""
OFF = "dsatier no longer manages the host"
LATER = "somebody else has set it since"
KERNELS = pytest.mark.parametrize("kind", ["ours", "tpp"])


def settings(host: SimHost) -> tuple[object, ...]:
    """Return what anybody may set on a host, without what the kernel computes."""
    facts = look(host)
    devices = tuple((one.id, one.state) for one in facts.devices)
    return facts.knobs, facts.offline_cpus, [area.path for area in facts.swaps], devices


def administered(host: SimHost) -> None:
    """Do what an administrator may do beside dsatier: knobs, a CPU and a device."""
    host.poke(VM + "dsa_copy_threshold", "64\n")
    host.poke(VM + "limit_mt_num", "2\n")
    host.poke("/sys/devices/system/cpu/cpu5/online", "0\n")
    queues(1)(host)


@KERNELS
@pytest.mark.parametrize("verb", ["rollback", "detach"])
def test_what_dsatier_did_not_write_stays(kind: str, verb: str) -> None:
    plain = small(kind)
    host = plain.copy()
    assert "changed" == apply(host, LISTS).result
    administered(host)
    administered(plain)
    outcome = getattr(Driver(host), verb)()
    assert ("changed", OFF) == (outcome.result, outcome.message)
    assert settings(plain) == settings(host)
    assert ORIGINALS not in host.files
    at_rest(host)


@KERNELS
def test_a_device_with_a_user_is_in_nobodys_way(kind: str) -> None:
    """Neither in that of the next change nor in that of going back."""
    other = replace(shipped("cpu"), tiers=Tiers(slow_node=1, cpuless=True))
    for verb in (lambda h: apply(h, other), rolled_back, lambda h: Driver(h).detach()):
        host = small(kind)
        apply(host, LISTS)
        queues(1, kind="user")(host)
        held = host.kernel.state.devices[1].queues[0]._replace(clients=1)
        set_queue(host.kernel, 1, 0, held)
        assert "changed" == verb(host).result
        assert "enabled" == state_of(host, "dsa1")


def rolled_back(host: SimHost) -> Outcome:
    """Roll back with a fresh driver."""
    return Driver(host).rollback()


def state_of(host: SimHost, name: str) -> str:
    """Return the state of a device."""
    found = device(look(host), name)
    assert found is not None
    return found.state


@KERNELS
def test_what_somebody_has_set_since_is_theirs(kind: str) -> None:
    host = small(kind)
    before = look(host).knobs
    apply(host, replace(shipped("dsa"), tiers=None))
    host.poke(VM + "dsa_copy_threshold", "64\n")
    outcome = rolled_back(host)
    assert f"{OFF}; dsa_copy_threshold is left at 64 (was 16): {LATER}" == outcome.message
    assert before | {"dsa_copy_threshold": "64"} == look(host).knobs
    assert ORIGINALS not in host.files


@KERNELS
def test_a_device_that_somebody_has_configured_since_is_theirs(kind: str) -> None:
    host = small(kind)
    apply(host, "dsa")
    host.poke(VM + "use_dsa_copy_pages", "0\n")
    host.sleep(30.0)
    host.poke(VM + "dsa_state", "0\n")
    host.poke("/sys/bus/dsa/drivers/idxd/unbind", "dsa1\n")
    queues(1, kind="user")(host)
    outcome = rolled_back(host)
    assert "dsa1 is left as it is: somebody else has configured it since" in outcome.message
    assert ("disabled", "enabled") == (state_of(host, "dsa0"), state_of(host, "dsa1"))


@KERNELS
def test_the_original_of_a_knob_is_what_was_there_when_it_was_first_written(kind: str) -> None:
    """Not what was there when another one was."""
    host = small(kind)
    apply(host, LISTS)
    host.poke(VM + "dsa_copy_threshold", "64\n")
    wider = replace(shipped("dsa"), tiers=None, tiering=None)
    assert "changed" == apply(host, wider).result
    assert "64" != look(host).knobs["dsa_copy_threshold"]
    assert OFF == rolled_back(host).message
    assert "64" == look(host).knobs["dsa_copy_threshold"]


@KERNELS
def test_a_repair_of_drift_is_still_a_way_back_to_the_first_value(kind: str) -> None:
    host = small(kind)
    before = look(host).knobs
    apply(host, LISTS)
    host.poke(VM + "use_concur_to_demote", "0\n")
    assert "changed" == reconcile(host, LISTS).result
    rolled_back(host)
    assert before == look(host).knobs


@KERNELS
def test_another_boot_is_another_host(kind: str) -> None:
    """Nothing that dsatier wrote is there any more: what is there now is somebody else's."""
    host = small(kind)
    apply(host, LISTS)
    host.reboot()
    host.poke(VM + "use_concur_to_demote", "1\n")
    assert ("unchanged", OFF) == (rolled_back(host).result, Journal(host).record().message)
    assert "1" == look(host).knobs["use_concur_to_demote"]


@KERNELS
def test_what_the_breaker_stopped_is_told_and_kept(kind: str) -> None:
    """Of the tiering that it stopped one knob cannot go back before tiering is on again."""
    host = small(kind)
    profile = shipped("tpp-dsa")
    assert isinstance(profile.engine, DsaEngine)
    stopping = replace(profile, engine=replace(profile.engine, on_fault="cpu-and-stop-tiering"))
    apply(host, stopping)
    host.inject(CopyFailures("copy-failures", times=1))
    host.advance(30.0)
    assert "degraded" == reconcile(host, stopping).result
    host.advance(30.0)
    found = look(host).knobs["demote_scale_factor"]
    outcome = rolled_back(host)
    said = f"demote_scale_factor is left at {found} (was 200): it can be written with"
    assert f"{said} numa_balancing 2 only" in outcome.message
    assert "0" == look(host).knobs["numa_balancing"]
    kept = Journal(host).originals()
    assert kept is not None
    assert {"demote_scale_factor": 200} == kept.knobs
    # when somebody tiers again, going back once more brings it back
    host.poke(BALANCING, "2\n")
    assert "changed" == rolled_back(host).result
    assert ("200", "2") == tuple(
        look(host).knobs[name] for name in ("demote_scale_factor", "numa_balancing")
    )
    assert ORIGINALS not in host.files


@KERNELS
def test_an_engine_that_faulted_stays_off(kind: str) -> None:
    """Also where it was on before dsatier looked at the host, and the breaker was what wrote."""
    host = small(kind)
    queues(0, 1)(host)
    for name in ("dsa_state", "use_dsa_copy_pages"):
        host.poke(VM + name, "1\n")
    bare = replace(shipped("dsa"), tiers=None, concurrency=None)
    assert isinstance(bare.engine, DsaEngine)
    found = replace(bare.engine, work_queues=None, dsa_copy_threshold=None)
    asked = replace(bare, engine=found)
    assert "unchanged" == Driver(host).apply(wanted_as_it_is(host, asked)).result
    host.inject(Halt("halt", "dsa1"))
    host.advance(30.0)
    assert "degraded" == Driver(host).reconcile(wanted_as_it_is(host, asked)).result
    rolled_back(host)
    assert not engine_on(host)


def wanted_as_it_is(host: SimHost, profile: Profile) -> Target:
    """Return what a profile wants, without queues of its own."""
    loaded = replace(from_texts([]), profile=profile, digest=repr(profile))
    return target(host.read, loaded, look(host), Journal(host).originals())


def test_a_failed_change_undoes_what_it_wrote_and_no_more() -> None:
    host = small("ours")
    apply(host, LISTS)
    administered(host)
    before = settings(host)
    host.inject(RejectedWrite("rejected-write", VM + "use_dsa_copy_pages"))
    assert "reverted" == apply(host, "dsa").result
    assert before == settings(host)
    host.heal("rejected-write")
    assert "changed" == apply(host, "dsa").result
    assert OFF == rolled_back(host).message
    bits = {
        "use_concur_to_demote": "0",
        "migrate_batch_reasons": "0",
    }  # the one is a bit of the other
    assert before[0] | bits == look(host).knobs  # type: ignore[operator]
    assert before[1:] == settings(host)[1:]


@KERNELS
def test_a_death_anywhere_leaves_nothing_of_others_to_go_back(kind: str) -> None:
    """Whatever was written when dsatier died, rollback brings back that, and nothing else."""
    start = small(kind)
    start.poke(VM + "limit_mt_num", "2\n")
    up: Callable[[SimHost], Outcome] = lambda h: apply(h, "tpp-cpu")  # noqa: E731
    for after in range(operations(start, up)):
        host = crashed(start, up, after, performed=True)
        Driver(host).recover()
        host.poke(VM + "limit_mt_num", "4\n")
        rolled_back(host)
        plain = start.copy()
        plain.poke(VM + "limit_mt_num", "4\n")
        assert (after, settings(plain)) == (after, settings(host))


def test_originals_of_an_earlier_version() -> None:
    """They name no writes: all that differs is taken for dsatier's, as that version did."""
    host = small("ours")
    before = settings(host)
    apply(host, "tpp-dsa")
    kept = json.loads(host.files[ORIGINALS])
    whole = look(small("ours")).knobs
    for name in ("written", "addresses"):
        del kept[name]
    kept["knobs"] = {
        name: int(text) for name, text in whole.items() if text.lstrip("-").isdecimal()
    } | {"demotion_enabled": 0}
    host.files[ORIGINALS] = json.dumps(kept)
    assert "unchanged" == apply(host, "tpp-dsa").result
    assert "changed" == apply(host, tighter()).result  # an apply of this version notes them
    assert json.loads(host.files[ORIGINALS])["written"]
    assert OFF == rolled_back(host).message
    assert before == settings(host)


def tighter() -> Profile:
    """Return the profile with another factor."""
    profile = shipped("tpp-dsa")
    assert profile.tiering is not None
    return replace(profile, tiering=replace(profile.tiering, demote_scale_factor=700))


def test_tiering_that_somebody_turned_on_is_not_turned_off() -> None:
    host = small("ours")
    apply(host, replace(shipped("tpp-cpu"), tiering=Tiering(swap="off")))
    assert (4, 5) == look(host).offline_cpus
    host.poke(BALANCING, "2\n")
    host.poke(DEMOTION, "1\n")
    outcome = rolled_back(host)
    assert "cpus 4-5 are left offline: tiering is on and not dsatier's" in outcome.message
    assert ("2", "1") == tuple(look(host).knobs[n] for n in ("numa_balancing", "demotion_enabled"))


SMT = "/sys/devices/system/cpu/smt/control"


@pytest.mark.parametrize("verb", ["rollback", "detach"])
def test_second_threads_stay_where_smt_was_turned_off(verb: str) -> None:
    """All the rest comes back, the message names them, and the next time brings them back."""
    host = small("ours", smt=True)
    before = settings(host)
    assert "changed" == apply(host, "tpp-multithread").result
    host.poke(SMT, "off\n")
    outcome = getattr(Driver(host), verb)()
    assert ("changed", f"{OFF}; cpus 5 are left offline: SMT is off ({SMT})") == (
        outcome.result,
        outcome.message,
    )
    assert (before[0], (2, 3, 5)) == settings(host)[:2]
    host.poke(SMT, "on\n")
    host.poke("/sys/devices/system/cpu/cpu5/online", "0\n")
    assert ("changed", OFF) == (rolled_back(host).result, Journal(host).record().message)
    assert before == settings(host)
    assert ORIGINALS not in host.files


def test_a_profile_that_wants_its_cpus_back_does_without_second_threads() -> None:
    host = small("ours", smt=True)
    apply(host, "tpp-cpu")
    host.poke(SMT, "off\n")
    back = Profile(
        version=1,
        tiers=Tiers(cpuless=False),
        tiering=Tiering(numa_balancing=0, demotion_enabled=False),
    )
    assert "changed" == apply(host, back).result
    assert (2, 3, 5) == look(host).offline_cpus
