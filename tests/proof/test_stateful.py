# SPDX-License-Identifier: Apache-2.0
"""Any sequence of profiles, verbs, drift, faults, crashes and boots: never any harm."""

from __future__ import annotations

import os
from contextlib import suppress

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dsatier import lifecycle
from dsatier.drive import Driver, Outcome
from dsatier.host import Rejected
from dsatier.observe import Observer
from dsatier.profile import (
    Concurrency,
    CpuEngine,
    DriftPolicy,
    DsaEngine,
    MultithreadEngine,
    Profile,
    QueueShape,
    Tiering,
    Tiers,
)
from dsatier.records import Record
from dsatier.sim.faults import (
    CopyFailures,
    Crash,
    FailedInit,
    FullDisk,
    Halt,
    HungWrite,
    RejectedWrite,
    SelfClear,
    SimCrash,
    StuckCpu,
)
from dsatier.sim.host import SimHost
from tests.proof import hosts
from tests.proof.drives import disagreements, record, target
from tests.proof.explore import unmet
from tests.proof.hosts import BALANCING, DEMOTION, VM

SHAPES = st.one_of(
    st.none(),
    st.builds(
        QueueShape,
        devices=st.sampled_from([1, 2, ("dsa1",)]),
        engines=st.just(1),
        queues=st.sampled_from([1, 2, 4]),
        size=st.sampled_from([None, 8, 32]),
    ),
)
MAYBE = st.sampled_from([None, True, False])
ENGINES = st.one_of(
    st.none(),
    st.just(CpuEngine("cpu")),
    st.builds(
        MultithreadEngine,
        kind=st.just("multithread"),
        limit_mt_num=st.sampled_from([None, 1, 2, 3]),
    ),
    st.builds(
        DsaEngine,
        kind=st.just("dsa"),
        limit_chans=st.sampled_from([None, 1, 2, 4, 5, 8]),
        dsa_copy_threshold=st.sampled_from([None, 1, 12]),
        work_queues=SHAPES,
        on_fault=st.sampled_from(["cpu", "cpu-and-stop-tiering"]),
    ),
)
PROFILES = st.builds(
    Profile,
    version=st.just(1),
    tiers=st.one_of(st.none(), st.builds(Tiers, cpuless=MAYBE)),
    concurrency=st.one_of(
        st.none(),
        st.builds(Concurrency, use_concur_to_compact=MAYBE, use_concur_to_demote=MAYBE),
    ),
    engine=ENGINES,
    tiering=st.one_of(
        st.none(),
        st.builds(
            Tiering,
            demotion_enabled=MAYBE,
            numa_balancing=st.sampled_from([None, 0, 1, 2]),
            demote_scale_factor=st.sampled_from([None, 500]),
            swap=st.sampled_from([None, "off", "on"]),
        ),
    ),
    drift=st.sampled_from([None, DriftPolicy(policy="report"), DriftPolicy(fights=1)]),
)
PATHS = st.sampled_from(
    [
        *(
            VM + name
            for name in ("dsa_state", "use_dsa_copy_pages", "limit_chans", "cpu_multi_copy_pages")
        ),
        BALANCING,
        DEMOTION,
        "/sys/devices/system/cpu/cpu5/online",
    ]
)


class Hosts(RuleBasedStateMachine):
    """A host, a profile, and all that happens to them."""

    @initialize(kind=st.sampled_from(hosts.KINDS), profile=PROFILES)
    def boot(self, kind: str, profile: Profile) -> None:
        """Boot a host."""
        self.host: SimHost = hosts.small(kind)
        self.kind = kind
        self.profile = profile
        self.disturbed = False
        """Something was done to it since, so that an apply need not converge."""
        self.resting = True
        """The last verb came to its end."""

    # -- verbs

    def _verb(self, verb: str) -> Outcome | Record | None:
        """Do a verb as a process of its own; a crash ends the process."""
        driver = Driver(self.host)
        try:
            match verb:
                case "apply":
                    done: Outcome | Record = driver.apply(target(self.host, self.profile))
                case "reconcile":
                    done = driver.reconcile(target(self.host, self.profile))
                case "rollback":
                    done = driver.rollback()
                case "release":
                    done = driver.release()
                case "clear":
                    done = driver.clear()
                case _:
                    done = driver.wake()
        except SimCrash:
            self.resting = False
            return None
        self.resting = True
        return done

    @rule(verb=st.sampled_from(["apply", "reconcile", "rollback", "release", "clear", "wake"]))
    def act(self, verb: str) -> None:
        """Do something."""
        self._verb(verb)

    @rule()
    def look_only(self) -> None:
        """Reconcile without acting writes nothing."""
        before, files = self.host.key(), dict(self.host.files)
        Driver(self.host).reconcile(target(self.host, self.profile), act=False)
        assert before == self.host.key()
        assert files == self.host.files

    @rule(profile=PROFILES)
    def another_profile(self, profile: Profile) -> None:
        """Somebody edits the profile."""
        self.profile = profile

    # -- what others and the host itself do

    @rule(verb=st.sampled_from(["apply", "rollback", "reconcile"]), after=st.integers(0, 40))
    def crash(self, verb: str, after: int) -> None:
        """Die at some instant."""
        self.host.inject(Crash("crash", after=after, performed=bool(after % 2)))
        self._verb(verb)
        self.host.heal("crash")

    @rule()
    def reboot(self) -> None:
        """Boot again; what was broken is whole."""
        for kind in ("hung-write", "rejected-write", "failed-init", "stuck-cpu", "disk", "halt"):
            self.host.heal(kind)
        for kind in ("self-clear", "copy-failures"):
            self.host.heal(kind)
        self.host.reboot()
        self.disturbed = False
        self.resting = False  # until somebody wakes and looks

    @rule(
        fault=st.one_of(
            st.builds(FailedInit, kind=st.just("failed-init"), channels=st.sampled_from([0, 1, 3])),
            st.builds(Halt, kind=st.just("halt"), device=st.sampled_from(["dsa0", "dsa1"])),
            st.builds(SelfClear, kind=st.just("self-clear")),
            st.builds(CopyFailures, kind=st.just("copy-failures"), times=st.just(1)),
            st.builds(HungWrite, kind=st.just("hung-write"), path=PATHS),
            st.builds(RejectedWrite, kind=st.just("rejected-write"), path=PATHS),
            st.builds(StuckCpu, kind=st.just("stuck-cpu"), nth=st.just(1), times=st.just(1)),
            st.builds(
                FullDisk,
                kind=st.just("disk"),
                errno=st.sampled_from(["ENOSPC", "EROFS"]),
                keeps=st.integers(0, 20),
                times=st.just(3),
            ),
        )
    )
    def fault(self, fault: object) -> None:
        """Something breaks."""
        self.host.inject(fault)  # type: ignore[arg-type]
        self.host.advance(1.0)
        self.disturbed = True

    @rule(
        name=st.sampled_from(
            [
                "use_concur_to_compact",
                "dsa_copy_threshold",
                BALANCING,
                DEMOTION,
                "use_dsa_copy_pages",
                "cpu_multi_copy_pages",
            ]
        ),
        value=st.integers(0, 1),
    )
    def drift(self, name: str, value: int) -> None:
        """Somebody else writes a knob; what that does to the host is not the agent's."""
        path = name if name.startswith("/") else VM + name
        if name == "use_dsa_copy_pages" and value:
            return  # fatal on a seed by itself
        with suppress(Rejected):
            self.host.poke(path, f"{max(value, int(name == 'dsa_copy_threshold'))}\n")
        self.disturbed = True

    @rule(cpu=st.sampled_from([4, 5]), online=st.integers(0, 1))
    def hotplug(self, cpu: int, online: int) -> None:
        """Somebody else switches a CPU."""
        with suppress(Rejected):
            self.host.poke(f"/sys/devices/system/cpu/cpu{cpu}/online", f"{online}\n")
        self.disturbed = True

    @rule(seconds=st.sampled_from([1.0, 30.0, 700.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.host.advance(seconds)

    # -- a healthy host converges

    @precondition(lambda self: self.resting and not self.disturbed)
    @rule()
    def converge(self) -> None:
        """A host that nobody disturbed converges, or refuses for a reason."""
        self._verb("clear")
        done = self._verb("apply")
        assert isinstance(done, Outcome)
        if done.result in ("changed", "unchanged"):
            assert "converged" == record(self.host).state
            assert "" == unmet(target(self.host, self.profile).desired, Observer(self.host).look())
            again = self._verb("apply")
            assert isinstance(again, Outcome)
            assert "unchanged" == again.result, again.message
        else:
            assert done.result in ("refused", "reboot-required"), done
            assert done.message

    # -- what always holds

    @invariant()
    def no_harm(self) -> None:
        """The agent never harms the host."""
        if hasattr(self, "host"):
            assert [] == [harm for harm in self.host.harm if harm.by == "agent"]

    @invariant()
    def the_record_is_right(self) -> None:
        """At rest the record says what is so."""
        if not hasattr(self, "host") or not self.resting:
            return
        kept = record(self.host)
        assert kept.state in lifecycle.STATES
        if not self.disturbed:
            assert [] == disagreements(self.host)


Hosts.TestCase.settings = settings(
    max_examples=1000 if os.environ.get("DSATIER_PROOF") == "large" else 60,
    stateful_step_count=25,
    deadline=None,
    # without shrinking, which takes minutes here: the steps are few enough to read
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
TestHosts = Hosts.TestCase
