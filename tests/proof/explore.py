# SPDX-License-Identifier: Apache-2.0
"""Exhaustive exploration: every state that plans lead a simulated host through.

From each state every profile is planned and carried out through the real gate on a copy of the
host. Each state in between is one that a crash leaves behind, so it is explored as well. What is
equal for the kernel (``SimHost.key``) is explored once.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dsatier.apply.gate import Gate, Refused
from dsatier.facts.knobs import BATCHED, KNOBS, SEED_SETTLE, KnobName
from dsatier.facts.model import DsaDevice, Facts
from dsatier.facts.observe.observer import Observer, lets_go
from dsatier.facts.partial import narrowed
from dsatier.facts.readings import (
    held,
    initialised,
    live,
    may_balance_untold,
    migration_quiet,
    releasable,
)
from dsatier.facts.tiers import USUAL, Tiers, cpus, target, watermark
from dsatier.host.port import HostDown, HostError, LogTail
from dsatier.plan.desired import from_profile
from dsatier.plan.interlock import GUARDS, Guard
from dsatier.plan.ladder import DESCENTS, LADDER, Rung
from dsatier.plan.model import Desired, Plan
from dsatier.plan.originals import Originals, originals
from dsatier.plan.ownership import claimed, owned, settled
from dsatier.plan.projection import SINGLE, project
from dsatier.plan.rehearsal import foretold, no_way_back, prepare
from dsatier.plan.requests import Request, SetKnob
from dsatier.plan.requirements import REQUIREMENTS, Requirement
from dsatier.plan.restore import Whose, cpu_only, from_originals, not_restored
from dsatier.profile.model import Profile
from dsatier.queues.config import differences
from dsatier.sim.host import SimHost
from tests.support.hosts import Start

Key = tuple[Any, ...]
BALANCING_OFF = SetKnob("numa_balancing", 0)


@dataclass(frozen=True)
class Tables:
    """The tables that decide; a mutant is another value of this."""

    guards: tuple[Guard, ...] = GUARDS
    ladder: tuple[Rung, ...] = LADDER
    descents: tuple[tuple[str, str, str], ...] = DESCENTS
    requirements: tuple[Requirement, ...] = REQUIREMENTS
    whose: Whose = owned

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
    edge: int = 0
    """States beyond the depth: reached, with no plan from them."""
    verdicts: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    refused: dict[str, set[str]] = field(default_factory=dict)
    """For each profile, the reasons for which a clean start refuses it."""
    violations: list[Violation] = field(default_factory=list)

    def add(self, other: Coverage) -> None:
        """Take another exploration's counts in."""
        for name in ("states", "plans", "paths", "requests", "edge"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.verdicts += other.verdicts
        self.refusals += other.refusals
        self.violations += other.violations
        for profile, names in other.refused.items():
            self.refused.setdefault(profile, set()).update(names)

    def __str__(self) -> str:
        verdicts = ", ".join(f"{n} {verdict}" for verdict, n in sorted(self.verdicts.items()))
        return (
            f"{self.states} states ({self.edge} at the edge), {self.plans} plans ({verdicts}), "
            f"{self.paths} paths carried out, a crash after each of their {self.requests} requests"
        )


@dataclass
class Node:
    """A state of the host, and what is known of it."""

    number: int
    host: SimHost
    facts: Facts
    reached: tuple[Start, Originals, tuple[str, ...], int] | None = None
    """Start, its originals, one way from it, and how many plans were begun on that way."""
    at_rest: set[str] = field(default_factory=set)
    """Goals to which there is nothing left to do."""
    back: dict[str, bool] = field(default_factory=dict)
    """By the name of a start, whether there is a way back to it."""


@dataclass(frozen=True)
class Edge:
    """What came of a request in a state, through the real gate on a copy of the host."""

    to: Node | None
    """None where it went wrong."""
    lines: tuple[str, ...] = ()
    """What the kernel log said."""
    wrong: tuple[tuple[str, str], ...] = ()
    """Rules that were broken, and how."""


def key_of(host: SimHost) -> Key:
    """Return what the agent's decisions and the kernel's behaviour depend on."""
    # kernels that differ in this are in one exploration: they start unlike each other
    at_boot = host.kernel.spec.kernel.config.get("CONFIG_NUMA_BALANCING_DEFAULT_ENABLED")
    return (*host.key(), at_boot, any(map(lets_go, host.kernel.state.log)))


class Eyes:
    """Looks with an observer that has seen equal hosts: one for each content of the log.

    It looks through one host whose state is put in place, and so reads only once what stays.
    """

    def __init__(self) -> None:
        self._window: SimHost | None = None
        self._observers: dict[bool, Observer] = {}

    def look(self, host: SimHost, *, released: bool) -> Facts:
        """Return the facts of ``host``."""
        if self._window is None:
            self._window = host.copy()
        self._window.kernel.state = host.kernel.state
        observer = self._observers.setdefault(released, Observer(self._window))
        return observer.look()


class Known(Observer):
    """The observer of a host that has just been looked at."""

    def __init__(self, host: SimHost, facts: Facts) -> None:
        super().__init__(host)
        self._facts = facts

    def look(self) -> Facts:
        """Return the facts."""
        return self._facts

    def glimpse(self, devices: Collection[str] = ()) -> Facts:
        """Return the facts as a glimpse shows them."""
        return narrowed(self._facts, devices)


class Explorer:
    """Explores from starts towards goals."""

    def __init__(
        self,
        profiles: Mapping[str, Profile],
        tables: Tables | None = None,
        *,
        depth: int = 1_000_000,
        stop_at: int = 20,
    ) -> None:
        self.profiles = profiles
        self.depth = depth
        self.tables = tables or Tables()
        self.stop_at = stop_at
        self.coverage = Coverage()
        self._eyes: defaultdict[object, Eyes] = defaultdict(Eyes)
        """By kernel: what stays for a boot is read once."""
        self._nodes: dict[Key, Node] = {}
        self._edges: dict[tuple[int, bool, Request], Edge] = {}
        self._settled: dict[int, Node] = {}
        self._asked_back: set[tuple[str, str]] = set()
        self._todo: deque[Node] = deque()

    def explore(self, starts: Iterable[Start]) -> Coverage:
        """Explore all that can be reached; return what was."""
        for start in starts:
            node = self._node(start.host.copy())
            self._reach(node, (start, originals(node.facts, USUAL, 0.0), (), 0))
        while self._todo and len(self.coverage.violations) < self.stop_at:
            self._visit(self._todo.popleft())
        self.coverage.states += sum(node.reached is not None for node in self._nodes.values())
        return self.coverage

    def _node(self, host: SimHost) -> Node:
        """Return what is known of a host's state."""
        key = key_of(host)
        found = self._nodes.get(key)
        if found is None:
            facts = self._eyes[key[-2]].look(host, released=key[-1])
            found = self._nodes[key] = Node(len(self._nodes), host, facts)
        return found

    def _reach(self, node: Node, how: tuple[Start, Originals, tuple[str, ...], int]) -> None:
        if node.reached is not None:
            return
        node.reached = how
        if how[3] <= self.depth:
            self._todo.append(node)
        else:
            self.coverage.edge += 1

    def _goals(self, node: Node) -> Iterator[tuple[str, Desired]]:
        assert node.reached is not None
        _, before, _, _ = node.reached
        yield "crash guard", cpu_only(node.facts, USUAL)
        yield "rollback", from_originals(before, node.facts, USUAL)
        for name, profile in self.profiles.items():
            yield name, from_profile(profile, node.facts, before)

    def _visit(self, node: Node) -> None:
        for goal, desired in self._goals(node):
            self.coverage.plans += 1
            if goal in node.at_rest:
                self.coverage.verdicts["ready"] += 1
                continue
            plan = self.tables.prepare(node.facts, desired)
            self.coverage.verdicts[plan.verdict] += 1
            if plan.verdict != "ready":
                self._not_ready(node, goal, plan)
            elif plan.steps:
                self._walk(node, goal, desired, plan)
            elif wrong := unmet(desired, node.facts):
                self._violate("an empty plan to what is not so", node, goal, (), wrong)

    def _not_ready(self, node: Node, goal: str, plan: Plan) -> None:
        assert node.reached is not None
        start, _, way, _ = node.reached
        facts = node.facts
        names = {f.name for f in plan.findings if f.level != "warning"}
        for name in names:
            self.coverage.refusals[name] += 1
        if not names or plan.steps:
            self._violate("refused without a reason", node, goal, (), str(plan))
        if start.clean and not way:
            self.coverage.refused.setdefault(goal, set()).update(names)
        family = facts.kernel.family
        whole = family == "ours" or releasable(facts) or not live(facts, "dsa_state")
        if goal == "crash guard" and (plan.verdict == "refused" or whole):
            self._violate("no way for the crash guard", node, goal, (), str(plan.findings[0]))
        if goal == "rollback" and plan.verdict == "refused" and not start.harmed:
            self._violate("no way back", node, goal, (), str(plan.findings[0]))

    def _walk(self, node: Node, goal: str, desired: Desired, plan: Plan) -> None:
        """Carry a plan out. Where there is no way back from it the driver would not begin."""
        assert node.reached is not None
        start, before, way, depth = node.reached
        done: list[str] = []
        met: list[tuple[Node, int]] = []
        wrong: list[tuple[str, str]] = []
        end = self._carry_out(node, desired, plan, done, met, wrong)
        if goal in self.profiles and not self._way_back(met, start, before):
            self.coverage.refusals["no way back"] += 1
            if no_way_back(plan, node.facts, before) is None:
                self._violate("no way back, untold", node, goal, done, "the driver would go on")
            return
        for other, count in met:
            self._reach(other, (start, before, (*way, *done[:count]), depth + 1))
        self.coverage.requests += len(done)
        for rule, detail in wrong:
            self._violate(rule, node, goal, done, detail)
        if end is not None and not wrong:
            self.coverage.paths += 1
            self._judge(node, goal, desired, done, end)
            if goal in self.profiles and (start.name, goal) not in self._asked_back:
                self._asked_back.add((start.name, goal))
                self._judge_whose(node, goal, plan, end)

    def _carry_out(
        self,
        node: Node,
        desired: Desired,
        plan: Plan,
        done: list[str],
        met: list[tuple[Node, int]],
        wrong: list[tuple[str, str]],
    ) -> Node | None:
        """Carry a plan out, noting each state on the way; None where it cannot be ended."""
        settled = told = False
        for step in plan.steps:
            lines: tuple[str, ...] = ()
            for request in step.requests:
                edge = self._edge(node, request, settled=settled, tiers=desired.tiers)
                done.append(str(request))
                wrong += edge.wrong
                if edge.to is None:
                    return None
                node, lines = edge.to, lines + edge.lines
                told = told or request == BALANCING_OFF
                met.append((node, len(done)))
                settled = settled and migration_quiet(node.facts)
            if step.settle:
                node = self._settle(node, step.settle)
                met.append((node, len(done)))
                settled = migration_quiet(node.facts) and step.settle >= SEED_SETTLE
                settled = settled and (told or not may_balance_untold(node.facts))
            tail = LogTail(lines, complete=True)
            missing = [m for e in step.evidence if (m := e.missing(node.facts, tail)) is not None]
            if missing:
                wrong.append(("no evidence", f"{step.what}: {'; '.join(missing)}"))
                return None
        return node

    def _edge(self, node: Node, request: Request, *, settled: bool, tiers: Tiers) -> Edge:
        """Return what comes of a request: by the real gate, once for equal circumstances."""
        key = (node.number, settled, request)
        if key not in self._edges:
            self._edges[key] = self._submit(node, request, settled=settled, tiers=tiers)
        return self._edges[key]

    def _submit(self, node: Node, request: Request, *, settled: bool, tiers: Tiers) -> Edge:
        host = node.host.copy()
        gate = Gate(host, Known(host, node.facts), self.tables.guards)
        gate.look()
        if settled:
            if may_balance_untold(node.facts):  # it has been written: this gate is another one
                gate.submit(BALANCING_OFF, 60.0, tiers)
                gate.look()
            host.sleep(SEED_SETTLE)
        mark = host.log_mark()
        try:
            complaint = gate.submit(request, 60.0, tiers)
        except Refused as refused:
            return Edge(None, wrong=(("the interlock refuses a plan", str(refused)),))
        except HostDown as down:
            return Edge(None, wrong=(("harm", str(down)),))
        except HostError as error:
            return Edge(None, wrong=(("the kernel refuses a plan", str(error)),))
        wrong = [("harm", str(harm)) for harm in host.harm]
        if complaint:
            wrong.append(("a command complains", complaint))
        after = self._node(host)
        if difference := unforetold(project(node.facts, request, tiers), after.facts):
            wrong.append(("not foretold", difference))
        return Edge(after, host.log_since(mark).lines, tuple(wrong))

    def _settle(self, node: Node, seconds: float) -> Node:
        """Return the state after some quiet: all waits are as long, so one does for all."""
        if node.number not in self._settled:
            host = node.host.copy()
            host.sleep(seconds)
            self._settled[node.number] = self._node(host)
        return self._settled[node.number]

    def _way_back(self, met: Iterable[tuple[Node, int]], start: Start, before: Originals) -> bool:
        """Tell whether there is a way back to the start from every state on the way."""
        for node, _ in met:
            if start.name not in node.back:
                plan = self.tables.prepare(node.facts, from_originals(before, node.facts, USUAL))
                node.back[start.name] = plan.verdict == "ready"
            if not node.back[start.name]:
                return False
        return True

    def _judge(
        self, node: Node, goal: str, desired: Desired, done: Iterable[str], end: Node
    ) -> None:
        """Judge the state that a plan has led to."""
        if wrong := unmet(desired, end.facts):
            self._violate("the plan does not lead there", node, goal, done, wrong)
        elif touched := strayed(desired, node.facts, end.facts):
            self._violate("touched what is not named", node, goal, done, touched)
        elif engine_lies(end.host, end.facts):
            self._violate("an engine that is not", node, goal, done, "it was not initialised")
        elif goal not in end.at_rest:
            again = self.tables.prepare(end.facts, desired)
            if again.steps or again.verdict != "ready":
                words = "; ".join([*(s.what for s in again.steps), *map(str, again.findings)])
                self._violate("not idempotent", node, goal, done, words)
            elif goal == "rollback":
                self._judge_rollback(node, done, end)
            else:
                end.at_rest.add(goal)  # rollback leads elsewhere from another start

    def _judge_rollback(self, node: Node, done: Iterable[str], end: Node) -> None:
        """Judge that all is as at the start, but for what is said, and the same seen from there."""
        assert node.reached is not None
        _, before, _, _ = node.reached
        told = not_restored(before, node.facts, USUAL)
        if wrong := unlike(before, end.facts, told):
            self._violate("not as it was, untold", node, "rollback", done, wrong)
        elif told and not unlike(before, end.facts, ()):
            self._violate("as it was, and told otherwise", node, "rollback", done, str(told))
        elif self.tables.prepare(end.facts, from_originals(before, end.facts, USUAL)).steps:
            self._violate("rolled back, and not there", node, "rollback", done, str(told))

    def _judge_whose(self, node: Node, goal: str, plan: Plan, end: Node) -> None:
        """Judge that going back leaves alone what others set after, and what was never written."""
        asked = [request for step in plan.steps for request in step.requests]
        before = settled(claimed(None, node.facts, USUAL, asked, 0.0), asked)
        # whoever sets the very value that was written cannot be told apart
        later = [SetKnob(name, value) for name, value in LATER if name in node.facts.knobs]
        others = [request for request in later if request not in asked]
        theirs = {request.knob for request in others}
        there = end.facts
        for request in others:
            there = project(there, request, USUAL)
        back = self.tables.prepare(there, from_originals(before, there, USUAL, self.tables.whose))
        told = not_restored(before, there, USUAL)
        last = [there, *(then for _, then in foretold(back, there))][-1]
        written = {request.knob for request in asked if isinstance(request, SetKnob)}
        for name in KNOBS:
            if name not in theirs and (name in written or any(name in words for words in told)):
                continue
            if own(last, name, written) != own(there, name, written):
                words = f"{name} went from {live(there, name)} to {live(last, name)}"
                self._violate("went back with what is not dsatier's", node, goal, (), words)

    def _violate(self, rule: str, node: Node, goal: str, done: Iterable[str], detail: str) -> None:
        assert node.reached is not None
        start, _, way, _ = node.reached
        full = (*way, "|", *done)
        self.coverage.violations.append(Violation(rule, start.name, goal, full, detail))


LATER: tuple[tuple[KnobName, int], ...] = (("dsa_copy_threshold", 77), ("limit_mt_num", 1))
"""What others set when a profile is in force; no profile here asks for it."""


def unmet(desired: Desired, facts: Facts) -> str:
    """Return what of ``desired`` is not so, empty where all is: said without the planner."""
    wrong = [
        f"{name} is {live(facts, name)}, not {value}"
        for name, value in (desired.knobs or {}).items()
        if live(facts, name) != value
    ]
    slow = cpus(desired.tiers.slow_of(facts))
    wrong += [
        f"blocks {device.blocks.offline} of {device.id} offline"
        for device in facts.memory_devices
        if device.target_node in {one.node for one in desired.memory}
        and device.blocks
        and device.blocks.offline
    ]
    if desired.cpuless and slow:
        wrong.append(f"cpus {slow} online")
    wrong += [f"cpu {cpu} offline" for cpu in desired.returning if cpu in facts.offline_cpus]
    devices = {device.id: device for device in facts.devices}
    bound = desired.bound or {}
    for config in desired.queues:
        wrong += differences(config, devices[config.id])
    wrong += [f"{name} enabled" for name in desired.stopped if devices[name].state == "enabled"]
    for name, kind in (desired.iommu or {}).items():
        if (reads := _type(devices[name])) != kind:
            wrong.append(f"the IOMMU group of {name} is {reads}, not {kind}")
    wrong += [f"{one.pci} without a driver" for one in facts.unbound if one.pci in bound]
    if desired.swap_off and facts.swaps:
        wrong.append("swap on")
    on = {area.path for area in facts.swaps}
    wrong += [f"swap {area.path} off" for area in desired.swap_on if area.path not in on]
    if desired.wants("use_dsa_copy_pages") == 1 and not initialised(facts):
        wrong.append("the DSA is not initialised")
    tiers = desired.wants("numa_balancing") in (2, 3) or desired.wants("demotion_enabled") == 1
    tiers = tiers or desired.wants("demote_scale_factor") is not None
    if tiers and live(facts, "numa_balancing") in (2, 3) and watermark(facts, desired.tiers) == 0:
        wrong.append("no demotion watermark")
    if desired.wants("demotion_enabled") == 1 and target(facts, desired.tiers) == -1:
        wrong.append("no demotion target")
    return "; ".join(wrong)


def unlike(before: Originals, facts: Facts, told: tuple[str, ...]) -> str:
    """Return what is not as it was and is not among what is told, said without the planner."""
    found = {name: live(facts, name) for name in before.knobs}
    wrong = [
        f"{name} is {value}, was {before.knobs[name]}"
        for name, value in found.items()
        if value != before.knobs[name] and not any(name in words for words in told)
    ]
    wrong += [f"cpu {cpu} offline" for cpu in before.online_cpus if cpu in facts.offline_cpus]
    on = {area.path for area in facts.swaps}
    wrong += [f"swap {area.path} off" for area in before.swaps if area.path not in on]
    types = {device.id: _type(device) for device in facts.devices}
    wrong += [
        f"the IOMMU group of {name} is {types.get(name)}, was {kind}"
        for name, kind in (before.iommu or {}).items()
        if types.get(name) != kind and not any(f"group of {name} " in words for words in told)
    ]
    return "; ".join(wrong)


def _type(device: DsaDevice) -> str:
    return "" if device.group is None else device.group.type


def _cpus(facts: Facts) -> list[tuple[int, tuple[int, ...]]]:
    return [(node.id, node.cpus) for node in facts.nodes]


def own(facts: Facts, name: KnobName, named: Collection[KnobName]) -> int | None:
    """Return what of a knob is its own where others are written: some are bits of another one."""
    value = live(facts, name)
    if name in SINGLE and "migrate_batch_reasons" in named:
        return None
    if name != "migrate_batch_reasons" or value is None:
        return value
    return value & ~sum(BATCHED[reason] for one, reason in SINGLE.items() if one in named)


def strayed(desired: Desired, before: Facts, after: Facts) -> str:
    """Return what changed though ``desired`` does not name it."""
    named = desired.knobs or {}
    wrong = [
        f"{name} went from {live(before, name)} to {live(after, name)}"
        for name in KNOBS
        if name not in named and own(before, name, named) != own(after, name, named)
    ]
    slow_returns = any(one.node == desired.tiers.home for one in desired.cpus_online)
    if not desired.cpuless and not slow_returns and _cpus(before) != _cpus(after):
        wrong += [
            f"node {old.id} went from cpus {old.cpus} to {new.cpus}"
            for old, new in zip(before.nodes, after.nodes, strict=True)
            if old.cpus != new.cpus
        ]
    configured = {*desired.stopped, *(config.id for config in desired.queues)}
    for old, new in zip(before.devices, after.devices, strict=True):
        # who holds its queues is the engine's business
        if old.id not in configured and unheld(old) != unheld(replace(new, group=old.group)):
            wrong.append(f"{old.id} changed")
        if old.id not in (desired.iommu or {}) and _type(old) != _type(new):
            wrong.append(f"the IOMMU group of {old.id} went from {_type(old)} to {_type(new)}")
    if not desired.memory and before.memory_devices != after.memory_devices:
        wrong.append("memory came or went")
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
        f"{name} is {live(found, name)}, not {live(foretold, name)}"
        for name in KNOBS
        if live(foretold, name) != live(found, name)
    ]
    if {d.id: unheld(d) for d in foretold.devices} != {d.id: unheld(d) for d in found.devices}:
        pairs = zip(foretold.devices, found.devices, strict=True)
        wrong += [f"{unheld(a)} is {unheld(b)}" for a, b in pairs if unheld(a) != unheld(b)]
    if [_type(d) for d in foretold.devices] != [_type(d) for d in found.devices]:
        wrong.append(f"IOMMU groups are {[_type(d) for d in found.devices]}")
    if foretold.offline_cpus != found.offline_cpus:
        wrong.append(f"offline cpus are {found.offline_cpus}")
    if {n.id: n.cpus for n in foretold.nodes} != {n.id: n.cpus for n in found.nodes}:
        wrong.append("nodes have other cpus")
    if [s.path for s in foretold.swaps] != [s.path for s in found.swaps]:
        wrong.append("swap differs")
    if sorted(_names(foretold)) != sorted(_names(found)):
        wrong.append(f"channels are {sorted(_names(found))}, not {sorted(_names(foretold))}")
    # which of several free channels the kernel takes is its own business
    if len(held(foretold)) != len(held(found)):
        wrong.append(f"{len(held(found))} channels are held, not {len(held(foretold))}")
    before, now = watermark(foretold, USUAL), watermark(found, USUAL)
    if (before == 0) != (now == 0):
        wrong.append(f"demotion watermark is {now}, not {before}")
    if target(foretold, USUAL) != target(found, USUAL):
        wrong.append(f"demotion target is {target(found, USUAL)}")
    if foretold.dsa_released != found.dsa_released and foretold.kernel.family == "seed":
        wrong.append(f"dsa_released is {found.dsa_released}")
    return "; ".join(wrong)


def _names(facts: Facts) -> Iterator[str]:
    return (channel.queue or channel.id for channel in facts.channels)
