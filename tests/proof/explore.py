# SPDX-License-Identifier: Apache-2.0
"""Exhaustive exploration: every state that plans lead a simulated host through.

From each state every profile is planned and carried out through the real gate on a copy of the
host. Each state in between is one that a crash leaves behind, so it is explored as well. What is
equal for the kernel (``SimHost.key``) is explored once.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dsatier.desire import Originals, cpu_only, from_originals, from_profile, originals
from dsatier.facts import Facts
from dsatier.gate import Gate, Refused
from dsatier.host import HostDown, HostError, LogTail
from dsatier.interlock import GUARDS, Guard
from dsatier.knobs import live
from dsatier.ladder import DESCENTS, LADDER, Rung
from dsatier.observe import RELEASED, Observer
from dsatier.plans import Desired, Plan, Step
from dsatier.profile import Profile
from dsatier.projection import project
from dsatier.queuefile import differences
from dsatier.readings import initialised, node
from dsatier.rehearsal import prepare
from dsatier.requirements import REQUIREMENTS, Requirement
from dsatier.sim.host import SimHost
from tests.proof.hosts import Start

Key = tuple[Any, ...]


@dataclass(frozen=True)
class Tables:
    """The tables that decide; a mutant is another value of this."""

    guards: tuple[Guard, ...] = GUARDS
    ladder: tuple[Rung, ...] = LADDER
    descents: tuple[tuple[str, str, str], ...] = DESCENTS
    requirements: tuple[Requirement, ...] = REQUIREMENTS

    def prepare(self, facts: Facts, desired: Desired) -> Plan:
        """Return the plan that these tables give."""
        return prepare(
            facts,
            desired,
            guards=self.guards,
            ladder=self.ladder,
            descents=self.descents,
            requirements=self.requirements,
        )


@dataclass(frozen=True)
class Violation:
    """Something that must not be, and how the host came there."""

    rule: str
    start: str
    goal: str
    way: tuple[str, ...]
    detail: str

    def __str__(self) -> str:
        way = " > ".join(self.way) or "nothing"
        return f"{self.rule}: start '{self.start}', done: {way}; goal {self.goal}: {self.detail}"


@dataclass
class Coverage:
    """What was explored."""

    states: int = 0
    plans: int = 0
    paths: int = 0
    """Plans that were carried out to their end."""
    requests: int = 0
    crashes: int = 0
    """Instants of a crash: after each request of each path."""
    verdicts: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    refused: dict[str, set[str]] = field(default_factory=dict)
    """For each profile, the reasons for which a clean start refuses it."""
    violations: list[Violation] = field(default_factory=list)
    cut: bool = False
    """The bound on states was met before the end."""

    def add(self, other: Coverage) -> None:
        """Take another exploration's counts in."""
        for name in ("states", "plans", "paths", "requests", "crashes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.verdicts += other.verdicts
        self.refusals += other.refusals
        self.violations += other.violations
        self.cut |= other.cut
        for profile, names in other.refused.items():
            self.refused.setdefault(profile, set()).update(names)

    def __str__(self) -> str:
        verdicts = ", ".join(f"{n} {verdict}" for verdict, n in sorted(self.verdicts.items()))
        return (
            f"{self.states} states, {self.plans} plans ({verdicts}), {self.paths} paths carried "
            f"out, {self.requests} requests, {self.crashes} instants of a crash"
            + (" (cut at the bound)" if self.cut else "")
        )


@dataclass(frozen=True)
class State:
    """A state of the host, with one way that leads there."""

    host: SimHost
    facts: Facts
    start: Start
    before: Originals
    way: tuple[str, ...]


def key_of(host: SimHost) -> Key:
    """Return what the agent's decisions and the kernel's behaviour depend on."""
    return (*host.key(), any(RELEASED in line for line in host.kernel.state.log))


class Eyes:
    """An observer that looks at equal hosts once."""

    def __init__(self) -> None:
        self._seen: dict[Key, Facts] = {}

    def facts(self, host: SimHost, key: Key | None = None) -> Facts:
        """Return the facts of ``host``."""
        key = key_of(host) if key is None else key
        found = self._seen.get(key)
        if found is None:
            found = self._seen[key] = Observer(host).look()
        return found


class Glance(Observer):
    """The observer of one host that shares what was seen of equal ones."""

    def __init__(self, host: SimHost, eyes: Eyes) -> None:
        super().__init__(host)
        self._sim = host
        self._eyes = eyes

    def look(self) -> Facts:
        """Return the facts now."""
        return self._eyes.facts(self._sim)


class Explorer:
    """Explores from starts towards goals."""

    def __init__(
        self,
        profiles: Mapping[str, Profile],
        tables: Tables | None = None,
        *,
        bound: int = 100_000,
        stop_at: int = 20,
    ) -> None:
        self.profiles = profiles
        self.tables = tables or Tables()
        self.bound = bound
        self.stop_at = stop_at
        self.eyes = Eyes()
        self.coverage = Coverage()
        self._states: dict[Key, State] = {}
        self._todo: deque[State] = deque()

    def explore(self, starts: Iterable[Start]) -> Coverage:
        """Explore all that can be reached; return what was."""
        for start in starts:
            facts = self.eyes.facts(start.host)
            before = originals(facts, 1, 0.0)
            self._meet(start.host.copy(), start, before, ())
        while self._todo and len(self.coverage.violations) < self.stop_at:
            self._visit(self._todo.popleft())
        self.coverage.states = len(self._states)
        return self.coverage

    def _meet(
        self, host: SimHost, start: Start, before: Originals, way: tuple[str, ...]
    ) -> Facts:
        key = key_of(host)
        known = self._states.get(key)
        if known is not None:
            return known.facts
        facts = self.eyes.facts(host, key)
        if len(self._states) >= self.bound:
            self.coverage.cut = True
            return facts
        state = State(host.copy(), facts, start, before, way)
        self._states[key] = state
        self._todo.append(state)
        return facts

    def _goals(self, state: State) -> Iterator[tuple[str, Desired]]:
        yield "crash guard", cpu_only(state.facts)
        yield "rollback", from_originals(state.before, state.facts)
        for name, profile in self.profiles.items():
            yield name, from_profile(profile, state.facts, state.before)

    def _visit(self, state: State) -> None:
        way_back = True
        for goal, desired in self._goals(state):
            plan = self.tables.prepare(state.facts, desired)
            self.coverage.plans += 1
            self.coverage.verdicts[plan.verdict] += 1
            if plan.verdict != "ready":
                way_back &= goal != "rollback"
                self._not_ready(state, goal, plan)
                continue
            if plan.steps:
                self._walk(state, goal, desired, plan)
            elif wrong := unmet(desired, state.facts):
                self._violate("an empty plan to what is not so", state, goal, (), wrong)

    def _not_ready(self, state: State, goal: str, plan: Plan) -> None:
        names = {f.name for f in plan.findings if f.level != "warning"}
        for name in names:
            self.coverage.refusals[name] += 1
        if not names or plan.steps:
            self._violate("refused without a reason", state, goal, (), str(plan))
        if state.start.clean and not state.way:
            self.coverage.refused.setdefault(goal, set()).update(names)
        whole = initialised(state.facts) or not live(state.facts, "dsa_state")
        if goal == "crash guard" and (plan.verdict == "refused" or whole):
            self._violate("no way for the crash guard", state, goal, (), str(plan.findings[0]))
        if goal == "rollback" and plan.verdict == "refused" and state.way:
            self._violate("no way back", state, goal, (), str(plan.findings[0]))

    def _walk(self, state: State, goal: str, desired: Desired, plan: Plan) -> None:
        host = state.host.copy()
        gate = Gate(host, Glance(host, self.eyes), desired.slow_node, self.tables.guards)
        done: list[str] = []
        facts = state.facts
        try:
            for step in plan.steps:
                mark = host.log_mark()
                for request in step.requests:
                    foretold = project(facts, request, slow_node=desired.slow_node)
                    complaint = gate.submit(request, step.deadline)
                    done.append(str(request))
                    self.coverage.requests += 1
                    self.coverage.crashes += 1
                    facts = self._meet(host, state.start, state.before, (*state.way, *done))
                    if complaint:
                        self._violate("a command complains", state, goal, done, complaint)
                    if difference := unforetold(foretold, facts):
                        self._violate("not foretold", state, goal, done, difference)
                self._settle(host, gate, step)
                facts = self._meet(host, state.start, state.before, (*state.way, *done))
                missing = self._missing(step, facts, host.log_since(mark))
                if missing:
                    self._violate("no evidence", state, goal, done, f"{step.what}: {missing}")
                    return
        except Refused as refused:
            self._violate("the interlock refuses a plan", state, goal, done, str(refused))
            return
        except HostDown as down:
            self._violate("harm", state, goal, done, str(down))
            return
        except HostError as error:
            self._violate("the kernel refuses a plan", state, goal, done, str(error))
            return
        self.coverage.paths += 1
        if host.harm:
            self._violate("harm", state, goal, done, str(host.harm))
        elif wrong := unmet(desired, facts):
            self._violate("the plan does not lead there", state, goal, done, wrong)
        elif touched := strayed(desired, state.facts, facts):
            self._violate("touched what is not named", state, goal, done, touched)
        elif engine_lies(host, facts):
            self._violate("an engine that is not", state, goal, done, "dsa_state reads 1")
        else:
            again = self.tables.prepare(facts, desired)
            if again.steps or again.verdict != "ready":
                words = "; ".join([*(s.what for s in again.steps), *map(str, again.findings)])
                self._violate("not idempotent", state, goal, done, words)

    def _settle(self, host: SimHost, gate: Gate, step: Step) -> None:
        left = step.settle
        while left > 0:
            gate.look()
            host.sleep(min(left, 2.5))
            left -= 2.5
        gate.look()

    def _missing(self, step: Step, facts: Facts, log: LogTail) -> str:
        found = (evidence.missing(facts, log) for evidence in step.evidence)
        return "; ".join(m for m in found if m is not None)

    def _violate(
        self, rule: str, state: State, goal: str, done: Iterable[str], detail: str
    ) -> None:
        way = (*state.way, "|", *done)
        self.coverage.violations.append(Violation(rule, state.start.name, goal, way, detail))


def unmet(desired: Desired, facts: Facts) -> str:
    """Return what of ``desired`` is not so, empty where all is: said without the planner."""
    wrong = [
        f"{name} is {live(facts, name)}, not {value}"
        for name, value in (desired.knobs or {}).items()
        if live(facts, name) != value
    ]
    slow = node(facts, desired.slow_node)
    if desired.cpuless and slow is not None and slow.cpus:
        wrong.append(f"cpus {slow.cpus} online")
    wrong += [f"cpu {cpu} offline" for cpu in desired.cpus_online if cpu in facts.offline_cpus]
    devices = {device.id: device for device in facts.devices}
    for config in desired.queues:
        wrong += differences(config, devices[config.id])
    wrong += [f"{name} enabled" for name in desired.stopped if devices[name].state == "enabled"]
    if desired.swap_off and facts.swaps:
        wrong.append("swap on")
    on = {area.path for area in facts.swaps}
    wrong += [f"swap {area.path} off" for area in desired.swap_on if area.path not in on]
    if desired.wants("use_dsa_copy_pages") == 1 and not initialised(facts):
        wrong.append("the DSA is not initialised")
    if desired.wants("demote_scale_factor") is not None and facts.demotion_watermark == 0:
        wrong.append("no demotion watermark")
    return "; ".join(wrong)


def strayed(desired: Desired, before: Facts, after: Facts) -> str:
    """Return what changed though ``desired`` does not name it."""
    wrong = [
        f"{name} went from {live(before, name)} to {live(after, name)}"
        for name in before.knobs
        if desired.wants(name) is None and live(before, name) != live(after, name)
    ]
    if not desired.cpuless and not desired.cpus_online and before.nodes != after.nodes:
        wrong += [
            f"node {old.id} went from cpus {old.cpus} to {new.cpus}"
            for old, new in zip(before.nodes, after.nodes, strict=True)
            if old.cpus != new.cpus
        ]
    named = {*desired.stopped, *(config.id for config in desired.queues)}
    for old, new in zip(before.devices, after.devices, strict=True):
        # who holds its queues is the engine's business
        if old.id not in named and unheld(old) != unheld(new):
            wrong.append(f"{old.id} changed")
    if not desired.swap_off and not desired.swap_on and before.swaps != after.swaps:
        wrong.append("swap changed")
    return "; ".join(wrong)


def unheld(device: Any) -> Any:
    """Return a device without its clients, and where it is disabled without what a reset clears."""
    if device.state != "enabled":
        return (device.id, device.state)
    queues = tuple(
        replace(queue, clients=0) if queue.state == "enabled" else queue.id
        for queue in device.queues
    )
    return replace(device, queues=queues, clients=0)


def engine_lies(host: SimHost, facts: Facts) -> bool:
    """Tell whether the engine is on without being initialised, by the kernel's own variables."""
    return bool(live(facts, "use_dsa_copy_pages")) and not host.kernel.state.engine.good


def unforetold(foretold: Facts, found: Facts) -> str:
    """Return where the projection was wrong in what plans depend on."""
    wrong = [
        f"{name} is {found.knobs[name]}, not {value}"
        for name, value in foretold.knobs.items()
        if live(foretold, name) != live(found, name)
    ]
    if {d.id: unheld(d) for d in foretold.devices} != {d.id: unheld(d) for d in found.devices}:
        pairs = zip(foretold.devices, found.devices, strict=True)
        wrong += [f"{unheld(a)} is {unheld(b)}" for a, b in pairs if unheld(a) != unheld(b)]
    if foretold.offline_cpus != found.offline_cpus:
        wrong.append(f"offline cpus are {found.offline_cpus}")
    if {n.id: n.cpus for n in foretold.nodes} != {n.id: n.cpus for n in found.nodes}:
        wrong.append("nodes have other cpus")
    if [s.path for s in foretold.swaps] != [s.path for s in found.swaps]:
        wrong.append("swap differs")
    if sorted(_channels(foretold)) != sorted(_channels(found)):
        wrong.append(f"channels are {sorted(_channels(found))}, not {sorted(_channels(foretold))}")
    if (foretold.demotion_watermark == 0) != (found.demotion_watermark == 0):
        wrong.append(f"demotion watermark is {found.demotion_watermark}")
    if foretold.dsa_released != found.dsa_released and foretold.kernel.family == "seed":
        wrong.append(f"dsa_released is {found.dsa_released}")
    return "; ".join(wrong)


def _channels(facts: Facts) -> Iterator[tuple[str, int]]:
    return ((c.queue or c.id, c.in_use) for c in facts.channels)
