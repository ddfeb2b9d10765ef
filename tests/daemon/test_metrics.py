# SPDX-License-Identifier: Apache-2.0
"""The metrics file, as Prometheus' own parser reads it."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from dsatier.apply.counters import Duration, with_step
from dsatier.apply.lifecycle import STATES
from dsatier.apply.records import UNKNOWN, Condition, Record, with_conditions
from dsatier.daemon.metrics import Running, render
from dsatier.facts.effect import TROUBLES, VERDICTS, Counts, Standing
from dsatier.facts.knobs import KNOBS
from dsatier.facts.model import Facts
from dsatier.facts.observe.observer import Observer
from dsatier.plan.ladder import LADDER, Rung
from dsatier.sim.host import SimHost

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
RUNNING = Running("1.2.3", started=1000.5, looked=1010.25, reloads={"Refused": 2, "Accepted": 7})
DURATIONS = {"tiering": Duration(2, 3.5, 2.5), "cpuless": Duration(1, 0.25, 0.25)}


def record(**changes: object) -> Record:
    plain = replace(
        Record(),
        state="converged",
        reason="Proven",
        since=1234.5,
        generation=3,
        profile_digest="2e763f",
        repaired=4,
        faults=1,
    )
    return with_conditions(replace(plain, **changes), now=1234.5)  # type: ignore[arg-type]


def facts(host: str = "dsa8") -> Facts:
    return Observer(SimHost.host_for(host)).look()


def samples(text: str) -> Samples:
    """Return every sample; one that is there twice is told."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def by_label(text: str, name: str) -> dict[tuple[str, ...], float]:
    """Return the samples of one name, by the values of their labels."""
    return {
        tuple(value for _, value in labels): number
        for (found, labels), number in samples(text).items()
        if found == name
    }


def test_families_and_types() -> None:
    # the parser leaves _total off the names of counters
    text = render(record(), facts(), RUNNING, DURATIONS)
    expected = {
        "dsatier_healthy": "gauge",
        "dsatier_state": "gauge",
        "dsatier_state_since_seconds": "gauge",
        "dsatier_condition": "gauge",
        "dsatier_drift_repairs": "counter",
        "dsatier_engine_faults": "counter",
        "dsatier_profile_generation": "gauge",
        "dsatier_profile_info": "gauge",
        "dsatier_step_duration_seconds": "summary",
        "dsatier_step_duration_max_seconds": "gauge",
        "dsatier_last_look_timestamp_seconds": "gauge",
        "dsatier_daemon_start_timestamp_seconds": "gauge",
        "dsatier_reloads": "counter",
        "dsatier_build_info": "gauge",
        "dsatier_kernel_timer_running": "gauge",
        "dsatier_kernel_timer": "gauge",
        "dsatier_kernel_timer_seconds": "gauge",
        "dsatier_knob": "gauge",
    }
    families = list(text_string_to_metric_families(text))
    assert expected == {family.name: family.type for family in families}
    assert [] == [family.name for family in families if not family.documentation.endswith(".")]


def test_tiering_has_its_verdict_its_reason_and_what_the_kernel_counts() -> None:
    now = Counts("a", 9.0, {"pgdemote_kswapd": 7, "pgdemote_direct": 1}, {0: {}, 1: {}}, (), ())
    now.nodes[0]["pgdemote_kswapd"] = 5
    standing = Standing((1, 2, 1), now, now, now, "not working", "TargetFull")
    text = render(record(), None, replace(RUNNING, standing=standing), {})
    verdicts = {(verdict,): float(verdict == "not working") for verdict in VERDICTS}
    assert verdicts == by_label(text, "dsatier_tiering")
    reasons = {(reason,): float(reason == "TargetFull") for reason in TROUBLES}
    assert reasons == by_label(text, "dsatier_tiering_trouble")
    assert {("all", "demoted"): 8.0, ("0", "demoted"): 5.0} == (
        by_label(text, "dsatier_tiering_pages_total")
    )
    assert 1.0 == samples(text)["dsatier_healthy", ()]


def test_plain_figures() -> None:
    found = samples(render(record(), None, RUNNING, {}))
    expected = {
        ("dsatier_healthy", ()): 1.0,
        ("dsatier_state_since_seconds", ()): 1234.5,
        ("dsatier_drift_repairs_total", ()): 4.0,
        ("dsatier_engine_faults_total", ()): 1.0,
        ("dsatier_profile_generation", ()): 3.0,
        ("dsatier_profile_info", (("digest", "2e763f"),)): 1.0,
        ("dsatier_last_look_timestamp_seconds", ()): 1010.25,
        ("dsatier_daemon_start_timestamp_seconds", ()): 1000.5,
        ("dsatier_reloads_total", (("result", "Accepted"),)): 7.0,
        ("dsatier_reloads_total", (("result", "Refused"),)): 2.0,
        ("dsatier_build_info", (("version", "1.2.3"),)): 1.0,
    }
    sets = ("dsatier_state", "dsatier_condition")
    assert expected == {key: value for key, value in found.items() if key[0] not in sets}


def test_exactly_one_state_is_1() -> None:
    for state in STATES:
        found = by_label(render(record(state=state), None, RUNNING, {}), "dsatier_state")
        assert {(one,): float(one == state) for one in (*STATES, UNKNOWN)} == found
    unseen = render(record(state="converged", look_failed="no"), None, RUNNING, {})
    found = by_label(unseen, "dsatier_state")
    assert [one for one, value in found.items() if value] == [(UNKNOWN,)]


def test_every_condition_is_a_state_set() -> None:
    conditions = (
        Condition("Converged", "True", "Proven", "", 1.0),
        Condition("EngineFaulted", "False", "NoFault", "", 1.0),
        Condition("Quarantined", "Unknown", "NoCrash", "", 1.0),
    )
    page = render(Record(conditions=conditions), None, RUNNING, {})
    # labels are in the order of their names: status, type
    assert {
        ("True", "Converged"): 1.0,
        ("False", "Converged"): 0.0,
        ("Unknown", "Converged"): 0.0,
        ("True", "EngineFaulted"): 0.0,
        ("False", "EngineFaulted"): 1.0,
        ("Unknown", "EngineFaulted"): 0.0,
        ("True", "Quarantined"): 0.0,
        ("False", "Quarantined"): 0.0,
        ("Unknown", "Quarantined"): 1.0,
    } == by_label(page, "dsatier_condition")


def test_steps_are_a_summary_for_each_rung_in_the_ladder_s_order() -> None:
    older = {**DURATIONS, "gone": Duration(9, 9.0, 1.0)}
    text = render(record(), None, RUNNING, older)
    assert {
        ("dsatier_step_duration_seconds_sum", (("rung", "cpuless"),)): 0.25,
        ("dsatier_step_duration_seconds_count", (("rung", "cpuless"),)): 1.0,
        ("dsatier_step_duration_max_seconds", (("rung", "cpuless"),)): 0.25,
        ("dsatier_step_duration_seconds_sum", (("rung", "tiering"),)): 3.5,
        ("dsatier_step_duration_seconds_count", (("rung", "tiering"),)): 2.0,
        ("dsatier_step_duration_max_seconds", (("rung", "tiering"),)): 2.5,
        ("dsatier_step_duration_seconds_sum", (("rung", "gone"),)): 9.0,
        ("dsatier_step_duration_seconds_count", (("rung", "gone"),)): 9.0,
        ("dsatier_step_duration_max_seconds", (("rung", "gone"),)): 1.0,
    } == {key: value for key, value in samples(text).items() if "_step_" in key[0]}
    order = [rung for (rung,) in by_label(text, "dsatier_step_duration_seconds_sum")]
    assert ["cpuless", "tiering", "gone"] == order


def test_kernel_counters_are_in_base_units() -> None:
    timer = {"timer_state": 1, "total_time": 255, "last_time": 22281, "dsa_hpage_cnt": 12}
    text = render(record(), replace(facts(), timer=timer), RUNNING, {})
    assert {
        ("dsatier_kernel_timer_running", ()): 1.0,
        ("dsatier_kernel_timer", (("counter", "dsa_hpage_cnt"),)): 12.0,
        ("dsatier_kernel_timer_seconds", (("counter", "total_time"),)): 0.255,
        ("dsatier_kernel_timer_seconds", (("counter", "last_time"),)): 0.000022281,
    } == {key: value for key, value in samples(text).items() if "_timer" in key[0]}


def test_every_counter_and_knob_of_a_host_is_there() -> None:
    for host in ("dsa8", "dsa8-seed"):
        known = facts(host)
        text = render(record(), known, RUNNING, {})
        counters = by_label(text, "dsatier_kernel_timer")
        times = {("total_time",), ("last_time",)}
        assert {(name,) for name in known.timer} - times - {("timer_state",)} == set(counters)
        assert times == set(by_label(text, "dsatier_kernel_timer_seconds"))
        assert {(name,) for name in known.knobs} == set(by_label(text, "dsatier_knob"))


def test_knobs_have_their_numbers() -> None:
    known = replace(
        facts(), knobs={"limit_chans": "4", "demotion_enabled": "true", "dsa_state": "?"}
    )
    found = by_label(render(record(), known, RUNNING, {}), "dsatier_knob")
    assert {("limit_chans",): 4.0, ("demotion_enabled",): 1.0} == found


def test_what_is_not_there_has_no_line() -> None:
    bare = render(Record(), facts("stock-debian"), Running("1", started=1.0), {})
    expected = {
        "dsatier_healthy",
        "dsatier_state",
        "dsatier_drift_repairs",
        "dsatier_engine_faults",
        "dsatier_profile_generation",
        "dsatier_daemon_start_timestamp_seconds",
        "dsatier_build_info",
        "dsatier_knob",
    }
    assert expected == {family.name for family in text_string_to_metric_families(bare)}
    mainline = {(name,) for name, knob in KNOBS.items() if knob.mainline}
    assert mainline == set(by_label(bare, "dsatier_knob"))
    assert [] == [line for line in bare.splitlines() if line.endswith("None")]


@given(text=st.text(), other=st.text())
def test_any_string_comes_back(text: str, other: str) -> None:
    odd = record(reason=text, message=other, latch_reason=text, profile_digest=text)
    running = replace(RUNNING, version=other, reloads={text: 1})
    page = render(odd, None, running, {text: Duration(1, 1.0, 1.0)})
    found = samples(page)
    same = samples(render(record(profile_digest=""), None, RUNNING, {}))
    mine = ("dsatier_profile_info", "dsatier_build_info", "dsatier_reloads_total")
    plain = {key: value for key, value in same.items() if key[0] not in mine}
    expected = {
        **plain,
        ("dsatier_build_info", (("version", other),)): 1.0,
        ("dsatier_reloads_total", (("result", text),)): 1.0,
        ("dsatier_step_duration_seconds_sum", (("rung", text),)): 1.0,
        ("dsatier_step_duration_seconds_count", (("rung", text),)): 1.0,
        ("dsatier_step_duration_max_seconds", (("rung", text),)): 1.0,
    }
    if text:
        expected["dsatier_profile_info", (("digest", text),)] = 1.0
    assert expected == found


def test_a_byte_that_is_no_text_is_shown_in_hexadecimal() -> None:
    page = render(record(profile_digest="a\udcffb"), None, RUNNING, {})
    assert page == page.encode().decode()
    assert {(r"a\udcffb",): 1.0} == by_label(page, "dsatier_profile_info")


@given(st.lists(st.tuples(st.sampled_from(LADDER), st.floats(0, 1e6))))
def test_steps_add_up(steps: list[tuple[Rung, float]]) -> None:
    durations: dict[str, Duration] = {}
    took: dict[str, list[float]] = {}
    for rung, seconds in steps:
        before = dict(durations)
        after = with_step(durations, rung.name, seconds)
        assert before == durations  # what went in stays as it was
        durations = after
        took.setdefault(rung.name, []).append(seconds)
    expected = {name: (len(all_), max(all_)) for name, all_ in took.items()}
    assert expected == {name: (one.count, one.longest) for name, one in durations.items()}
    assert all(abs(sum(took[name]) - durations[name].seconds) < 1e-3 for name in took)


def test_a_clock_that_went_back_takes_nothing_away() -> None:
    before = {"queues": Duration(1, 2.0, 2.0)}
    assert {"queues": Duration(2, 2.0, 2.0)} == with_step(before, "queues", -5.0)
