# SPDX-License-Identifier: Apache-2.0
"""Metrics: the state of a host for Prometheus, as a file of node_exporter's textfile collector.

What is not there has no line: a host without DSA must not look like one whose DSA
copied nothing. The host's name is no label, Prometheus adds ``instance``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dsatier.apply.counters import Duration
from dsatier.apply.lifecycle import STATES
from dsatier.apply.records import UNKNOWN, Record, told
from dsatier.apply.status_document import status
from dsatier.base.health import unwell
from dsatier.facts.effect import DEMOTED, PROMOTED, TROUBLES, VERDICTS, Standing
from dsatier.facts.knobs import KNOBS
from dsatier.facts.model import Facts
from dsatier.facts.readings import live
from dsatier.plan.ladder import LADDER

STATUSES = ("True", "False", "Unknown")
_RUNGS = tuple(rung.name for rung in LADDER)
_TIMES = {"total_time": 1_000, "last_time": 1_000_000_000}
"""The numbers of /proc/timer that are times, with how many of them make a second."""
_RUNNING = "timer_state"


@dataclass(frozen=True, slots=True)
class Running:
    """What the daemon tells of itself."""

    version: str
    started: float
    """Seconds since the epoch."""
    looked: float | None = None
    """Seconds since the epoch at the last look at the host, None before the first."""
    reloads: Mapping[str, int] | None = None
    """How many ended with each result. A result that is named from the start, with 0, can be
    alerted on when it first happens."""
    look_within: float | None = None
    """Seconds from one look to the next, at most."""
    standing: Standing | None = None
    """What is known of the tiering, None where none is armed."""
    stopping: bool = False
    """It ends: nobody looks after the host from now on."""


def render(
    record: Record, facts: Facts | None, running: Running, durations: Mapping[str, Duration]
) -> str:
    """Return the whole file. ``facts`` is None before the first look."""
    families = [
        _one(
            "dsatier_healthy",
            "gauge",
            "Whether all was well at the last look, as `dsatier status --check` tells.",
            int(not unwell(status(record, "", 0.0)) and not running.stopping),
        ),
        *_lifecycle(record),
        *_steps(durations),
        *_daemon(running),
        *(_tiering(running.standing) if running.standing is not None else ()),
        *(_kernel(facts) if facts is not None else ()),
    ]
    return "".join(map(str, families))


@dataclass(frozen=True, slots=True)
class _Family:
    """A metric: its samples by labels, and how it is written."""

    name: str
    kind: str
    text: str
    samples: tuple[tuple[str, Mapping[str, str], float], ...]
    """Suffix of the name, labels, value."""

    def __str__(self) -> str:
        if not self.samples:
            return ""
        lines = [f"# HELP {self.name} {self.text}", f"# TYPE {self.name} {self.kind}"]
        for suffix, labels, value in self.samples:
            pairs = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
            lines.append(
                f"{self.name}{suffix}{{{pairs}}} {value!r}"
                if pairs
                else f"{self.name}{suffix} {value!r}"
            )
        return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Return a label's value between its quotes.

    A byte that is no UTF-8 (a lone surrogate here) is shown in hexadecimal: the collector would
    refuse the whole file for it.
    """
    shown = text.encode(errors="backslashreplace").decode()
    return shown.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _one(name: str, kind: str, text: str, value: float | None) -> _Family:
    """Return a metric without labels, without a line where ``value`` is None."""
    return _Family(name, kind, text, () if value is None else (("", {}, value),))


def _by(name: str, kind: str, text: str, label: str, values: Mapping[str, float]) -> _Family:
    """Return a metric with one label."""
    return _Family(name, kind, text, tuple(("", {label: key}, values[key]) for key in values))


def _lifecycle(record: Record) -> Iterator[_Family]:
    now_told = told(record)
    yield _by(
        "dsatier_state",
        "gauge",
        "State of the lifecycle: 1 for the one that the host is in.",
        "state",
        {state: int(state == now_told.state) for state in (*STATES, UNKNOWN)},
    )
    yield _one(
        "dsatier_state_since_seconds",
        "gauge",
        "When the state was reached, in seconds since the epoch.",
        now_told.since or None,
    )
    yield _Family(
        "dsatier_condition",
        "gauge",
        "Conditions of the host: 1 for the status that each has.",
        tuple(
            ("", {"type": condition.type, "status": status}, int(status == condition.status))
            for condition in record.conditions
            for status in STATUSES
        ),
    )
    yield _one("dsatier_drift_repairs_total", "counter", "Repairs of drift, ever.", record.repaired)
    yield _one(
        "dsatier_engine_faults_total", "counter", "Faults of the copy engine, ever.", record.faults
    )
    yield _one(
        "dsatier_profile_generation",
        "gauge",
        "Number of the profile in force: counts those that ever were.",
        record.generation,
    )
    yield _by(
        "dsatier_profile_info",
        "gauge",
        "The profile in force.",
        "digest",
        {record.profile_digest: 1} if record.profile_digest else {},
    )


def _steps(durations: Mapping[str, Duration]) -> Iterator[_Family]:
    known = [rung for rung in _RUNGS if rung in durations]
    rungs = known + sorted(set(durations) - set(known))  # a kept file may know an older ladder
    yield _Family(
        "dsatier_step_duration_seconds",
        "summary",
        "Time from the begin of a step to its proof, by rung of the ladder.",
        tuple(
            sample
            for rung in rungs
            for sample in (
                ("_sum", {"rung": rung}, durations[rung].seconds),
                ("_count", {"rung": rung}, durations[rung].count),
            )
        ),
    )
    yield _by(
        "dsatier_step_duration_max_seconds",
        "gauge",
        "The longest step so far, by rung of the ladder.",
        "rung",
        {rung: durations[rung].longest for rung in rungs},
    )


def _daemon(running: Running) -> Iterator[_Family]:
    yield _one(
        "dsatier_last_look_timestamp_seconds",
        "gauge",
        "When the daemon last looked at the host, in seconds since the epoch.",
        running.looked,
    )
    yield _one(
        "dsatier_look_within_seconds",
        "gauge",
        "Seconds from one look at the host to the next, at most: drift.interval of the profile.",
        running.look_within,
    )
    yield _one(
        "dsatier_daemon_start_timestamp_seconds",
        "gauge",
        "When the daemon started, in seconds since the epoch.",
        running.started,
    )
    yield _by(
        "dsatier_reloads_total",
        "counter",
        "Reloads of the profile, by how they ended.",
        "result",
        dict(sorted((running.reloads or {}).items())),
    )
    yield _by(
        "dsatier_build_info", "gauge", "The version of dsatier.", "version", {running.version: 1}
    )


def _tiering(standing: Standing) -> Iterator[_Family]:
    yield _by(
        "dsatier_tiering",
        "gauge",
        "Whether pages move between the tiers: 1 for the verdict.",
        "verdict",
        {verdict: int(verdict == standing.verdict) for verdict in VERDICTS},
    )
    yield _by(
        "dsatier_tiering_trouble",
        "gauge",
        "Why tiering does not work: 1 for the most likely reason.",
        "reason",
        {reason: int(reason == standing.reason) for reason in TROUBLES},
    )
    now = standing.newest
    yield _Family(
        "dsatier_tiering_pages_total",
        "counter",
        "Pages that the kernel has moved since it booted, by node where it counts so.",
        tuple(
            ("", {"way": way, "node": "all" if node is None else str(node)}, pages)
            for way, names in (("demoted", DEMOTED), ("promoted", PROMOTED))
            for node in (None, *now.nodes)
            if (pages := now.pages(names, node)) is not None
        ),
    )


def _kernel(facts: Facts) -> Iterator[_Family]:
    # Gauges, not counters: whoever writes 1 to /proc/timer clears them, they stand still while it
    # is off, and last_cnt goes up and down. A rate over them would be a guess.
    counts = {n: v for n, v in facts.timer.items() if n not in _TIMES and n != _RUNNING}
    yield _one(
        "dsatier_kernel_timer_running",
        "gauge",
        "Whether /proc/timer counts; dsa_copy_fail counts always.",
        facts.timer.get(_RUNNING),
    )
    yield _by(
        "dsatier_kernel_timer",
        "gauge",
        "Page copies by /proc/timer, as they stand: starting the timer clears them.",
        "counter",
        counts,
    )
    yield _by(
        "dsatier_kernel_timer_seconds",
        "gauge",
        "Times by /proc/timer, as they stand: starting the timer clears them.",
        "counter",
        {name: facts.timer[name] / unit for name, unit in _TIMES.items() if name in facts.timer},
    )
    knobs = {name: live(facts, name) for name in KNOBS}
    yield _by(
        "dsatier_knob",
        "gauge",
        "Live values of the kernel's knobs.",
        "name",
        {name: value for name, value in knobs.items() if value is not None},
    )
