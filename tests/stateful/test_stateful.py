# SPDX-License-Identifier: Apache-2.0
"""Anything in any order: verbs, other people, faults, crashes and boots, with what always holds."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from dsatier.apply import lifecycle
from dsatier.apply.driver import Driver
from dsatier.apply.outcome import Outcome
from dsatier.base.paths import MOTION
from dsatier.facts.readings import on, tiering_on
from dsatier.host.port import HostDown, Rejected
from dsatier.profile.model import (
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
from dsatier.sim.faults import (
    AnyFault,
    ClockJump,
    CopyFailures,
    Crash,
    FailedInit,
    FullDisk,
    Halt,
    HungCommand,
    HungWrite,
    LostLog,
    OtherWriter,
    RejectedWrite,
    SelfClear,
    SimCrash,
    StuckCpu,
    SwapReturns,
    VanishedQueue,
)
from dsatier.sim.host import SimHost
from dsatier.sim.kernel import Kernel
from tests.support.scene import BALANCING, DEMOTION, VM, look, record, small, wanted

Verb = Callable[[Driver], Outcome]
FACTOR = VM + "demote_scale_factor"
SHAPES = st.sampled_from(
    [
        None,
        QueueShape(devices=2, engines=1, queues=4, size=32),
        QueueShape(devices=2, engines=1, queues=2, size=8),
        QueueShape(devices=("dsa1",), engines=1, queues=4, size=32),
    ]
)
TWO = QueueShape(devices=2, engines=1, queues=4, size=32)
ENGINES = st.one_of(
    st.none(),
    st.just(CpuEngine("cpu")),
    st.builds(MultithreadEngine, st.just("multithread"), st.sampled_from([None, 1, 2, 3, 4])),
    st.builds(
        DsaEngine,
        st.just("dsa"),
        limit_chans=st.sampled_from([None, 1, 4, 5, 8]),
        dsa_copy_threshold=st.sampled_from([None, 12]),
        work_queues=SHAPES,
        on_fault=st.sampled_from(["cpu", "cpu-and-stop-tiering"]),
    ),
    # the ones that go live are to be met often
    st.builds(
        DsaEngine,
        st.just("dsa"),
        limit_chans=st.sampled_from([4, 8]),
        work_queues=st.just(TWO),
        on_fault=st.sampled_from(["cpu", "cpu-and-stop-tiering"]),
    ),
)
TIERING = st.sampled_from(
    [
        None,
        Tiering(demotion_enabled=False, numa_balancing=0),
        Tiering(demotion_enabled=True, numa_balancing=2, demote_scale_factor=500, swap="off"),
        Tiering(demotion_enabled=True, swap="off"),
        Tiering(numa_balancing=1, swap="on"),
        Tiering(numa_balancing=2),
    ]
)
SWITCH = st.sampled_from([None, True, False])
PROFILES = st.builds(
    Profile,
    version=st.just(1),
    tiers=st.sampled_from([None, Tiers(cpuless=True), Tiers(cpuless=True), Tiers(cpuless=False)]),
    concurrency=st.one_of(st.none(), st.builds(Concurrency, SWITCH, SWITCH)),
    engine=ENGINES,
    tiering=TIERING,
    drift=st.sampled_from(
        [None, DriftPolicy(policy="report"), DriftPolicy(fights=1), DriftPolicy(window=1.0)]
    ),
)
KNOB_PATHS = st.sampled_from(
    [
        *(VM + name for name in ("dsa_state", "use_dsa_copy_pages", "cpu_multi_copy_pages")),
        *(VM + name for name in ("limit_chans", "limit_mt_num", "dsa_copy_threshold")),
        *(BALANCING, DEMOTION, FACTOR, "/sys/devices/system/cpu/cpu5/online"),
    ]
)
FAULTS: st.SearchStrategy[AnyFault] = st.one_of(
    st.builds(FailedInit, st.just("failed-init"), st.sampled_from([0, 3])),
    st.builds(
        Halt, st.just("halt"), st.sampled_from(["dsa0", "dsa1"]), after=st.sampled_from([0.0, 20.0])
    ),
    st.builds(SelfClear, st.just("self-clear"), st.sampled_from([0.0, 20.0])),
    st.builds(CopyFailures, st.just("copy-failures"), times=st.sampled_from([1, 0])),
    st.builds(VanishedQueue, st.just("vanished-queue"), st.sampled_from(["wq0.0", "wq1.3"])),
    st.builds(HungWrite, st.just("hung-write"), KNOB_PATHS, st.booleans()),
    st.builds(
        HungCommand,
        st.just("hung-command"),
        st.sampled_from(["load-config", "disable-device", "swapoff"]),
        st.booleans(),
    ),
    st.builds(RejectedWrite, st.just("rejected-write"), KNOB_PATHS),
    st.builds(StuckCpu, st.just("stuck-cpu"), st.just(5), times=st.just(1)),
    st.builds(
        OtherWriter,
        st.just("other-writer"),
        st.sampled_from([BALANCING, DEMOTION, VM + "use_dsa_copy_pages"]),
        st.just("0\n"),
    ),
    st.builds(
        OtherWriter, st.just("other-writer"), st.just(VM + "dsa_copy_threshold"), st.just("99\n")
    ),
    st.builds(SwapReturns, st.just("swap-returns"), st.sampled_from([0.0, 20.0])),
    st.builds(LostLog, st.just("lost-log"), with_write=st.just(VM + "dsa_state")),
    st.builds(LostLog, st.just("lost-log")),
    st.builds(ClockJump, st.just("clock-jump"), st.sampled_from([-1e5, 1e5])),
)
LIVE = Profile(
    version=1,
    tiers=Tiers(cpuless=True),
    engine=DsaEngine("dsa", limit_chans=8, work_queues=TWO),
    concurrency=Concurrency(use_concur_to_demote=True),
)
"""What goes live on every kernel here: most faults mean something only then."""
VERBS: dict[str, Verb] = {
    "rollback": Driver.rollback,
    "detach": Driver.detach,
    "clear": Driver.clear,
}


CPU = "/sys/devices/system/cpu/cpu{}/online"
LEFT = (*(VM + n for n in ("limit_mt_num", "limit_chans", "dsa_copy_threshold")), FACTOR)
"""Knobs that nothing but going back writes on the way back."""


class Witnessed(SimHost):
    """A host that knows of each kernel file whether the agent was the last who wrote to it."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self.agents: set[str] = set()

    def write(self, path: str, text: str, deadline: float) -> None:
        """Write as the agent does."""
        self.agents.add(path)
        super().write(path, text, deadline)

    def poke(self, path: str, text: str) -> None:
        """Write as anybody else does: whoever writes what is there has changed nothing."""
        before = self.read(path)
        super().poke(path, text)
        if self.read(path) != before:
            self.agents.discard(path)

    def of_others(self) -> dict[str, str]:
        """Return what is in the files that are not the agent's, and cannot be."""
        files = (*LEFT, CPU.format(4), CPU.format(5))
        there = [path for path in files if self.kernel.layout.file(self.kernel, path)]
        return {path: self.read(path) for path in there if path not in self.agents}


class Anything(RuleBasedStateMachine):
    """A host, the last profile that somebody wanted of it, and whether a run of the agent died."""

    def __init__(self) -> None:
        super().__init__()
        self.host = Witnessed(small().kernel)
        self.profile = Profile(version=1)
        self.died = False

    @initialize(kind=st.sampled_from(["ours", "tpp", "memtis"]), profile=PROFILES)
    def boots(self, kind: str, profile: Profile) -> None:
        """Begin with a kernel."""
        start = small(kind, swap=[{"path": "/dev/sda3", "size": 2, "used": 1}])
        self.host = Witnessed(start.kernel)
        self.profile = profile

    def _run(self, verb: Verb) -> None:
        """Run the agent once. What it may end with is known."""
        self.died = False
        try:
            verb(Driver(self.host))
        except SimCrash:
            self.died = True
        except HostDown:
            assert self.host.down
        self.host.heal("crash")
        if not self.died and not self.host.down:
            self._rests()

    def _rests(self) -> None:
        kept, facts = record(self.host), look(self.host)
        assert MOTION not in self.host.files
        assert kept.state in lifecycle.STATES
        assert kept.state not in lifecycle.IN_MOTION
        if kept.latch != "none" and kept.state != "reboot-required":
            assert not on(facts, "use_dsa_copy_pages")
        if kept.state == "converged" and kept.engine_live:
            assert on(facts, "dsa_state")

    def _up(self) -> bool:
        return not self.host.down

    # what the agent is asked to do

    @precondition(_up)
    @rule(profile=PROFILES)
    def apply_another(self, profile: Profile) -> None:
        """Apply another profile."""
        self.profile = profile
        self._run(lambda driver: driver.apply(wanted(self.host, profile)))

    @precondition(_up)
    @rule()
    def apply_again(self) -> None:
        """Apply the same profile."""
        self._run(lambda driver: driver.apply(wanted(self.host, self.profile)))

    @precondition(_up)
    @rule()
    def reconciles(self) -> None:
        """Let the timer come."""
        self._run(lambda driver: driver.reconcile(wanted(self.host, self.profile)))

    @precondition(_up)
    @rule()
    def verifies(self) -> None:
        """Only look: nothing is written, not even a file."""
        host = self.host
        before = host.key(), dict(host.files)
        Driver(host).reconcile(wanted(host, self.profile), act=False)
        assert before == (host.key(), host.files)

    @precondition(_up)
    @rule(verb=st.sampled_from(sorted(VERBS)))
    def other_verb(self, verb: str) -> None:
        """Go back, or acknowledge. What others have written stays as they left it."""
        theirs = self.host.of_others()
        self._run(VERBS[verb])
        if not self.host.down:
            assert theirs == {path: self.host.read(path) for path in theirs}

    @precondition(_up)
    @rule(after=st.integers(0, 40), performed=st.booleans(), profile=PROFILES)
    def dies_in_apply(self, after: int, performed: bool, profile: Profile) -> None:
        """Die somewhere in an apply."""
        self.host.inject(Crash("crash", after, performed))
        self._run(lambda driver: driver.apply(wanted(self.host, profile)))

    @precondition(_up)
    @rule(
        after=st.integers(0, 25),
        performed=st.booleans(),
        verb=st.sampled_from(["reconcile", *sorted(VERBS)]),
    )
    def dies_elsewhere(self, after: int, performed: bool, verb: str) -> None:
        """Die somewhere in another verb."""
        self.host.inject(Crash("crash", after, performed))
        if verb == "reconcile":
            self._run(lambda driver: driver.reconcile(wanted(self.host, self.profile)))
        else:
            self._run(VERBS[verb])

    @precondition(_up)
    @rule(
        keeps=st.integers(0, 12),
        errno=st.sampled_from(["ENOSPC", "EROFS"]),
        verb=st.sampled_from(["apply", "reconcile", *sorted(VERBS)]),
    )
    def has_no_room(self, keeps: int, errno: str, verb: str) -> None:
        """Run with a disk that is full, or soon will be; then there is room again."""
        host, profile = self.host, self.profile
        host.inject(FullDisk("disk", "ENOSPC" if errno == "ENOSPC" else "EROFS", keeps))
        driver = Driver(host)
        try:
            if verb == "apply":
                driver.apply(wanted(host, profile))
            elif verb == "reconcile":
                driver.reconcile(wanted(host, profile))
            else:
                VERBS[verb](driver)
        except HostDown:
            assert host.down
            host.heal("disk")
            return
        host.heal("disk")
        try:
            Driver(host).recover()
        except HostDown:
            assert host.down
            return
        self.died = False
        self._rests()

    # what others do

    def _poke(self, path: str, value: int) -> None:
        try:
            self.host.poke(path, f"{value}\n")
        except Rejected:
            return  # an administrator's own mistake
        except HostDown:
            assert self.host.down

    @precondition(_up)
    @rule(
        knob=st.sampled_from(
            [
                ("dsa_copy_threshold", 1),
                ("dsa_copy_threshold", 300),
                ("limit_mt_num", 1),
                ("limit_mt_num", 2),
                ("use_concur_to_compact", 0),
                ("use_concur_to_demote", 0),
                ("use_dsa_copy_pages", 0),
                ("cpu_multi_copy_pages", 0),
            ]
        )
    )
    def somebody_sets(self, knob: tuple[str, int]) -> None:
        """Write what is legal at any time."""
        self._poke(VM + knob[0], knob[1])

    @precondition(_up)
    @rule(
        knob=st.sampled_from([(BALANCING, 0), (BALANCING, 1), (DEMOTION, 0)]),
    )
    def somebody_tiers_less(self, knob: tuple[str, int]) -> None:
        """Turn tiering off or down."""
        self._poke(*knob)

    @precondition(_up)
    @rule(count=st.sampled_from([1, 4, 8]))
    def somebody_limits(self, count: int) -> None:
        """Change the channels while none is held."""
        if not on(look(self.host), "dsa_state"):
            self._poke(VM + "limit_chans", count)

    @precondition(_up)
    @rule(cpu=st.sampled_from([4, 5]), online=st.integers(0, 1))
    def somebody_switches_a_cpu(self, cpu: int, online: int) -> None:
        """Switch a CPU of the slow node, where nothing tiers and no threads copy."""
        facts = look(self.host)
        if not tiering_on(facts) and not on(facts, "cpu_multi_copy_pages"):
            self._poke(f"/sys/devices/system/cpu/cpu{cpu}/online", online)

    @precondition(_up)
    @rule(fault=FAULTS)
    def goes_wrong(self, fault: AnyFault) -> None:
        """Let something go wrong, now or later."""
        if isinstance(fault, HungWrite) and not self.host.kernel.layout.file(
            self.host.kernel, fault.path
        ):
            return
        try:
            self.host.inject(fault)
            self.host.advance(0.0)
        except HostDown:
            assert self.host.down

    @precondition(_up)
    @rule(fault=FAULTS, again=st.booleans())
    def goes_wrong_while_live(self, fault: AnyFault, again: bool) -> None:
        """Go live if that can be had, let something go wrong, and let the timer come."""
        self.profile = LIVE
        self._run(Driver.clear)
        if not self.host.down:
            self.apply_again()
        if self.host.down:
            return
        self.goes_wrong(fault)
        if self.host.down:
            return
        self.time_passes(25.0)
        if not self.host.down:
            self.reconciles()
        if again and not self.host.down:
            self.host.heal(fault.kind)
            self.apply_again()

    @precondition(_up)
    @rule(fault=FAULTS, verb=st.sampled_from(["apply", "rollback", "detach"]))
    def goes_wrong_in_motion(self, fault: AnyFault, verb: str) -> None:
        """Let something go wrong that the way up or down meets."""
        self.profile = LIVE
        if verb != "apply":
            self.apply_again()
        if self.host.down:
            return
        self.goes_wrong(fault)
        if self.host.down:
            return
        if verb == "apply":
            self.apply_again()
        else:
            self._run(VERBS[verb])

    @precondition(_up)
    @rule(seconds=st.sampled_from([0.5, 15.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        """Wait."""
        try:
            self.host.advance(seconds)
        except HostDown:
            assert self.host.down

    @rule(mended=st.booleans())
    def reboots(self, mended: bool) -> None:
        """Boot again, perhaps with all mended."""
        if mended:
            for armed in self.host.kernel.state.faults:
                self.host.heal(armed.fault.kind)
        self.host.reboot()
        self.host.agents.clear()

    # what always holds

    @invariant()
    def does_no_harm(self) -> None:
        """Whatever happens, the agent is not to blame."""
        assert [] == [harm for harm in self.host.harm if harm.by == "agent"]

    @invariant()
    def is_never_live_while_latched(self) -> None:
        """A latch holds the engine off, also under other people's hands."""
        if self.host.down or self.died:
            return
        kept = record(self.host)
        if kept.latch != "none" and kept.state != "reboot-required":
            assert not on(look(self.host), "use_dsa_copy_pages")


TestAnything = Anything.TestCase
TestAnything.settings = settings(
    max_examples=40,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
