# SPDX-License-Identifier: Apache-2.0
"""The seed's harm, checked against an oracle written from the contract's table on its own.

The oracle keeps a handful of plain variables and knows nothing of the simulation's code.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from dsatier.host.port import HostDown
from tests.sim.simhosts import BALANCING, put, ready

STEPS = st.one_of(
    st.tuples(st.just("dsa_state"), st.integers(0, 1)),
    st.tuples(st.just("use_dsa_copy_pages"), st.integers(0, 1)),
    st.tuples(st.just("limit_chans"), st.sampled_from([-1, 0, 1, 2, 3, 4, 5, 7, 8, 9, 12])),
    st.tuples(st.just("dsa_async_mode"), st.integers(0, 1)),
    st.tuples(
        st.sampled_from(["use_concur_to_compact", "use_concur_to_demote"]), st.integers(0, 1)
    ),
    st.tuples(st.just("cpu_multi_copy_pages"), st.integers(0, 1)),
    st.tuples(st.just("limit_mt_num"), st.sampled_from([0, 1, 3, 4, 5, 6, 7, 8, 16])),
    st.tuples(st.just("pause"), st.sampled_from([1, 6])),
    st.tuples(st.just(BALANCING), st.integers(0, 1)),
)
QUEUES = 8
CPUS = 8


@dataclass
class Oracle:
    """The table, as one would read it aloud."""

    state: int = 0
    use: int = 0
    chans: int = 8
    async_mode: int = 0
    compact: int = 0
    demote: int = 0
    multi: int = 0
    threads: int = 4
    balancing: int = 0
    held: int = 0
    leaked: int = 0
    init: str = "none"  # none, good, failed
    ever: bool = False
    ran: bool = False
    quiet: float = 1e9
    bad: set[str] = field(default_factory=set)
    harm: list[str] = field(default_factory=list)
    dead: bool = False

    def hurt(self, kind: str) -> None:
        if not self.dead:
            self.harm.append(kind)
        self.dead |= kind == "fatal"

    def step(self, name: str, value: int) -> None:
        if name == "pause":
            self.quiet += value
            return
        if name == "dsa_state":
            self.set_state(value)
        elif name == "limit_chans":
            if value != self.chans and self.state and self.init == "good" and self.held:
                self.hurt("leak")
                self.flip()
            self.chans = value
        elif name == "use_dsa_copy_pages":
            self.use = value
        elif name == "dsa_async_mode":
            self.async_mode = value
        elif name == "use_concur_to_compact":
            self.compact = value
        elif name == "use_concur_to_demote":
            self.demote = value
        elif name == "cpu_multi_copy_pages":
            self.multi = value
        elif name == "limit_mt_num":
            self.threads = value
        else:
            self.balancing = value
        ends_it = name in ("use_dsa_copy_pages", BALANCING) and self.was_busy
        if self.use or self.balancing or ends_it:
            self.quiet = 0.0
        self.was_busy = bool(self.use or self.balancing)
        if not self.dead:
            self.load()

    was_busy: bool = False

    flips: int = 0

    def flip(self) -> None:
        """Once is met between two copies, then in the middle of one, and then too often."""
        if self.use:
            self.flips += 1
            if self.flips > 1:
                self.hurt("corruption" if self.flips == 2 else "fatal")

    def set_state(self, value: int) -> None:
        if value == self.state:
            return
        self.state = value
        if value:
            free = QUEUES - self.leaked
            self.held = min(max(self.chans, 0), free)
            self.init = "good" if self.held == max(self.chans, 0) else "failed"
            self.ran, self.flips = False, 0
            if self.init == "failed" and (self.held or self.ever):
                self.hurt("stuck")
            return
        if self.use:
            self.hurt("fatal")
            return
        busy = bool(self.balancing) or self.quiet < 5
        if self.ran and busy:
            self.hurt("corruption")
        if self.init == "failed":
            if self.held or self.ever:
                self.hurt("corruption")
            self.ever |= self.held > 0
            self.held = 0
        else:
            if self.chans > self.held:
                self.hurt("fatal")
                return
            self.ever |= self.held > 0
            kept = self.held - max(self.chans, 0)
            if kept:
                self.hurt("leak")
                self.leaked += kept
        self.held, self.init, self.ran = 0, "none", False

    def load(self) -> None:
        """Huge pages and lists migrate all the time."""
        lists = bool(self.compact or self.demote)
        now: list[tuple[str, str]] = []
        if self.use:
            if self.init != "good":
                now.append(("fatal", "null"))
            if self.async_mode:
                now.append(("fatal", "async"))
            if self.chans == 0:
                now.append(("fatal", "divide"))
            if self.chans < 0:
                now.append(("corruption", "nothing copied"))
            if self.chans > 8:
                now.append(("fatal", "overrun"))
            if self.init == "good" and self.held < self.chans <= 8:
                now.append(("fatal", "beyond"))
            if self.chans in (3, 5, 6, 7):
                now.append(("corruption", "last bytes"))
            if lists and self.chans in (1, 2):
                now.append(("corruption", "descriptors"))
        if self.multi:
            if lists and self.threads == 0:
                now.append(("fatal", "no threads"))
            if min(self.threads, CPUS) in ((3, 5, 6, 7) if lists else (6, 7)):
                now.append(("corruption", "threads"))
        self.ran |= bool(self.use) and self.init == "good"
        new = [(kind, why) for kind, why in now if why not in self.bad]
        self.bad = {why for _, why in now}
        for kind, _ in new:
            if not self.dead:
                self.hurt(kind)


BASE = ready("tpp", waitpkg=False)


@settings(max_examples=600, deadline=None)
@given(st.lists(STEPS, max_size=14))
def test_the_simulation_harms_exactly_where_the_table_says(steps: list[tuple[str, int]]) -> None:
    h, oracle = BASE.copy(), Oracle()
    for name, value in steps:
        oracle.step(name, value)
        try:
            if name == "pause":
                h.sleep(value)
            else:
                put(h, name, value)
        except HostDown:
            break
        if oracle.dead:
            break
    assert (oracle.dead, sorted(oracle.harm)) == (bool(h.down), sorted(x.kind for x in h.harm))


def test_the_oracle_sees_the_plainest_misuse() -> None:
    oracle = Oracle()
    oracle.step("use_dsa_copy_pages", 1)
    assert ["fatal"] == oracle.harm
