# SPDX-License-Identifier: Apache-2.0
"""What is told of a host is so: Converged only where the last look found the profile proven."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from dsatier.apply.driver import Driver
from dsatier.apply.journal import Journal
from dsatier.apply.lifecycle import State
from dsatier.apply.records import Record, told, with_conditions
from dsatier.apply.status_document import status
from dsatier.base.exits import NOT_COMPLIANT, NOT_RUNNING, OK
from dsatier.base.paths import STATUS
from dsatier.cli.status import told as shown
from dsatier.daemon import metrics
from dsatier.profile.model import Concurrency, Profile
from dsatier.sim.faults import FullDisk, SelfClear
from dsatier.sim.host import SimHost
from dsatier.sim.state import SwapArea
from tests.support.scene import VM, apply, reconcile, record, small, wanted

PROFILE = "tpp-dsa"
KERNELS = pytest.mark.parametrize("kind", ["ours", "tpp"])


def document(host: SimHost) -> dict[str, Any]:
    """Return what anybody reads of a host."""
    found: dict[str, Any] = json.loads(host.files[STATUS])
    return found


def claims(host: SimHost) -> set[str]:
    """Return what each interface says of Converged: all must say the same."""
    whole = document(host)
    conditions = {one["type"]: one["status"] for one in whole["conditions"]}
    code = shown(json.dumps(whole), "", as_json=False, now=host.wall())[2]
    running = metrics.Running("1", 0.0)
    lines = metrics.render(record(host), None, running, {}).splitlines()
    by_condition = 'dsatier_condition{type="Converged",status="True"} 1' in lines
    by_state = 'dsatier_state{state="converged"} 1' in lines
    return {
        str(conditions["Converged"] == "True"),
        str(whole["state"] == "converged"),
        str(code == OK),
        str(by_condition),
        str(by_state),
    }


@KERNELS
def test_what_cannot_be_repaired_is_told(kind: str) -> None:
    """Swap that came back with more than fits in memory: it cannot go off again."""
    host = small(kind)
    assert apply(host, PROFILE).result == "changed"
    assert claims(host) == {"True"}
    host.kernel.state.swaps = (SwapArea("/dev/sda3", "partition", 64 << 20, 60 << 20, -2),)
    for _ in range(2):
        outcome = reconcile(host, PROFILE)
        assert outcome.result == "drifted"
        assert claims(host) == {"False"}
        whole = document(host)
        assert (whole["state"], whole["reason"]) == ("drifted", "OutOfReach")
        assert "/dev/sda3" in whole["message"] or "swap" in whole["message"]
    host.kernel.state.swaps = ()
    assert reconcile(host, PROFILE).result == "unchanged"
    assert claims(host) == {"True"}


@KERNELS
def test_a_full_disk_is_told(kind: str) -> None:
    host = small(kind)
    assert apply(host, PROFILE).result == "changed"
    host.inject(FullDisk("disk"))
    host.poke(VM + "dsa_copy_threshold", "99\n")
    for _ in range(2):
        assert reconcile(host, PROFILE).result == "drifted"
        assert claims(host) == {"False"}
        assert document(host)["reason"] == "Unrepaired"
        Driver(host).chronicle.keep_verdict("Accepted")  # as the daemon does after each look
        assert claims(host) == {"False"}
    host.heal("disk")
    assert reconcile(host, PROFILE).result == "changed"
    assert claims(host) == {"True"}


def test_a_look_that_fails_is_told_until_one_goes_well() -> None:
    host = small()
    assert apply(host, PROFILE).result == "changed"
    driver = Driver(host)
    began = host.wall()
    driver.chronicle.keep_failure("cannot look at the host: /dev/kmsg: is not there")
    host.advance(30.0)
    driver.chronicle.keep_failure("cannot look at the host: /dev/kmsg: is not there")
    whole = document(host)
    assert claims(host) == {"False"}
    assert (whole["state"], whole["reason"], whole["since"]) == ("unknown", "LookFailed", began)
    assert "/dev/kmsg" in whole["message"]
    assert "journalctl" in whole["remedy"]
    conditions = {one["type"]: one["status"] for one in whole["conditions"]}
    assert conditions["Converged"] == "Unknown"
    driver.chronicle.keep_verdict("Accepted")
    assert claims(host) == {"True"}


def test_a_host_that_was_never_looked_at_is_not_told_to_want_a_profile() -> None:
    host = small()
    Driver(host).chronicle.keep_failure("cannot look at the host: no")
    whole = document(host)
    assert (whole["state"], whole["reason"]) == ("unknown", "LookFailed")
    assert "put a profile" not in whole["remedy"]


def test_a_host_without_a_profile_any_more_is_not_converged() -> None:
    host = small()
    assert apply(host, PROFILE).result == "changed"
    host.advance(100.0)
    Driver(host).chronicle.keep_verdict("NoProfile", "no profile applies to this host")
    whole = document(host)
    assert claims(host) == {"False"}
    assert (whole["state"], whole["reason"]) == ("unmanaged", "NoProfile")
    assert whole["since"] == host.wall()
    assert "put a profile" in whole["remedy"]
    assert Driver(host).rollback().result == "changed"


@pytest.mark.parametrize("word", ["Pending", "NoProfile", "Invalid", "Refused", "Failed"])
def test_what_became_of_the_profile_counts_for_the_exit_code(word: str) -> None:
    kept = Record(state="converged", reason="Proven", profile_status=word)  # type: ignore[arg-type]
    whole = status(with_conditions(kept, 10.0), "host", 10.0)
    conditions = {one["type"]: one["status"] for one in whole["conditions"]}
    assert conditions["ProfileAccepted"] == ("Unknown" if word == "Pending" else "False")
    assert shown(json.dumps(whole), "", as_json=False, now=10.0)[2] == NOT_COMPLIANT


def test_a_stopped_daemon_and_an_old_look_are_told() -> None:
    kept = with_conditions(Record(state="converged", reason="Proven"), 10.0)
    whole = status(kept, "host", 10.0)
    words, _, code = shown(json.dumps(whole | {"daemon": None}), "", as_json=False, now=20.0)
    assert (code, words.startswith("STALE: the daemon was stopped ")) == (NOT_RUNNING, True)
    assert shown(json.dumps(whole), "", as_json=False, now=3610.0)[2] == OK
    words, _, code = shown(json.dumps(whole), "", as_json=False, now=3611.0)
    assert (code, words.startswith("STALE: nobody has looked ")) == (NOT_RUNNING, True)


def test_a_repair_has_one_time() -> None:
    host = small()
    assert apply(host, PROFILE).result == "changed"
    host.advance(100.0)
    host.poke(VM + "dsa_copy_threshold", "99\n")
    assert reconcile(host, PROFILE).result == "changed"
    whole = document(host)
    (since,) = [
        one["last_transition_time"] for one in whole["conditions"] if one["type"] == "Converged"
    ]
    assert whole["since"] == since > 100.0


def test_a_latch_and_a_motion_are_told_whatever_else() -> None:
    latched = Record(state="degraded", reason="EngineFault", latch="fault", look_failed="no")
    assert told(latched).state == "degraded"
    assert told(replace(latched, profile_status="NoProfile")).converged == "False"


def test_a_fault_is_told_though_no_profile_applies() -> None:
    host = small()
    assert apply(host, PROFILE).result == "changed"
    Driver(host).chronicle.keep_verdict("NoProfile", "none")
    host.inject(SelfClear("self-clear"))
    host.advance(5.0)
    assert Driver(host).watch().result == "degraded"
    assert document(host)["state"] == "degraded"


@pytest.mark.parametrize(
    ("state", "words"),
    [("reboot-required", "reboot"), ("rollback-failed", "`dsatier rollback` again")],
)
@pytest.mark.parametrize("profile", ["Accepted", "Pending", "Invalid", "Refused", "Failed"])
def test_where_only_one_thing_leads_on_that_is_the_remedy(
    state: str, words: str, profile: str
) -> None:
    kept = Record(state=state, profile_status=profile)  # type: ignore[arg-type]
    remedy = status(with_conditions(kept, 10.0), "host", 10.0)["remedy"]
    assert words in remedy
    assert "reload" not in remedy


@pytest.mark.parametrize("state", ["drifted", "reverted", "degraded", "quarantined"])
def test_the_remedy_names_the_files_that_were_given(state: State) -> None:
    kept = Record(state=state)
    usual = status(with_conditions(kept, 10.0), "host", 10.0)["remedy"]
    assert "(`dsatier apply` where no daemon runs)" in usual
    kept = replace(kept, profile_given=("/srv/a.yaml", "/srv/my b.yaml"))
    remedy = status(with_conditions(kept, 10.0), "host", 10.0)["remedy"]
    assert remedy.endswith("`dsatier apply -p /srv/a.yaml -p '/srv/my b.yaml'`")


def test_a_profile_that_was_given_is_known_until_it_is_gone() -> None:
    host = small()
    given = replace(wanted(host, "cpu"), given=("/srv/a.yaml",))
    assert Driver(host).apply(given).result in ("changed", "unchanged")
    assert record(host).profile_given == ("/srv/a.yaml",)
    Driver(host).rollback()
    assert record(host).profile_given == ()


def test_rollback_where_nothing_was_written_takes_hands_off_all_the_same() -> None:
    """The host was as its profile says; what others change from now on is theirs."""
    host = small()
    host.poke(VM + "use_concur_to_demote", "1\n")
    profile = Profile(1, concurrency=Concurrency(use_concur_to_demote=True))
    assert apply(host, profile).result == "unchanged"
    assert Journal(host).originals() is None
    assert Driver(host).rollback().result == "unchanged"
    assert (document(host)["state"], document(host)["reason"]) == ("unmanaged", "Withdrawn")
    host.poke(VM + "use_concur_to_demote", "0\n")
    assert reconcile(host, profile).result == "unchanged"
    assert host.read(VM + "use_concur_to_demote") == "0\n"
    assert apply(host, profile).result == "changed"
