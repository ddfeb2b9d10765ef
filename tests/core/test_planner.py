# SPDX-License-Identifier: Apache-2.0
"""The planner: the safe order, how far a host comes down, and that a plan leads where it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsatier.desire import ENGINES, cpu_only, engine_off, from_originals, from_profile, originals
from dsatier.facts import Facts, Swap
from dsatier.ladder import DESCENTS, LADDER, Rung
from dsatier.loader import from_texts
from dsatier.plans import Desired, Plan
from dsatier.projection import project
from dsatier.rehearsal import foretold, no_way_back, prepare
from dsatier.requests import SetCpu, SetKnob, StopDevice, SwapOff
from tests.core.build import facts, live, queued

PROFILES = sorted((Path(__file__).resolve().parents[2] / "profiles").glob("*.yaml"))
Descents = tuple[tuple[str, str, str], ...]


def desired(name: str, host: Facts) -> Desired:
    """What a shipped profile wants of a host."""
    path = next(path for path in PROFILES if path.stem == name)
    profile = from_texts([(path.name, path.read_text(encoding="utf-8"))], host).profile
    assert profile is not None
    return from_profile(profile, host, originals(host, 1, 0.0))


def carried_out(plan: Plan, host: Facts) -> Facts:
    """The host as it will be after a plan."""
    for _, host in foretold(plan, host):  # noqa: B020 - the last one is what counts
        pass
    return host


def knobs(plan: Plan) -> list[str]:
    """The knobs that a plan writes, in order, as NAME=VALUE."""
    return [
        f"{request.knob}={request.value}"
        for step in plan.steps
        for request in step.requests
        if isinstance(request, SetKnob)
    ]


def up(family: str = "ours") -> Facts:
    """A host that is at profiles/tpp-dsa.yaml."""
    host = facts(family)
    return carried_out(prepare(host, desired("tpp-dsa", host)), host)


# -- checks that take the tables as values, so that mutants can be put in their place ---------


def check_order_up(ladder: tuple[Rung, ...], descents: Descents) -> None:
    host = facts(swaps=(Swap("/dev/sda2", 1 << 30, 0, -2),))
    plan = prepare(host, desired("tpp-dsa", host), ladder=ladder, descents=descents)
    kinds = [type(request).__name__ for step in plan.steps for request in step.requests]
    assert ["SetCpu"] * 8 == kinds[:8]
    assert 8 == kinds.count("LoadDevice")
    assert "SwapOff" in kinds
    assert kinds.index("SwapOff") > kinds.index("LoadDevice")
    assert [
        "dsa_copy_threshold=12",
        "use_concur_to_compact=1",
        "use_concur_to_demote=1",
        "dsa_state=1",
        "use_dsa_copy_pages=1",
        "numa_balancing=2",
        "demote_scale_factor=1000",
        "demotion_enabled=1",
    ] == knobs(plan)
    names = [step.what for step in plan.steps]
    proof = names.index("the DSA is really initialised")
    assert "/proc/sys/vm/dsa_state = 1" == names[proof - 1]
    assert "/proc/sys/vm/use_dsa_copy_pages = 1" == names[proof + 1]


def check_parameters(ladder: tuple[Rung, ...], descents: Descents) -> None:
    wanted = {
        "limit_mt_num": 8,
        "limit_chans": 4,
        "dsa_copy_threshold": 99,
        "use_concur_to_compact": 1,
        "use_concur_to_demote": 1,
    }
    plan = prepare(facts(), Desired(knobs=wanted), ladder=ladder, descents=descents)
    assert sorted(f"{name}={value}" for name, value in wanted.items()) == sorted(knobs(plan))
    assert {"parameters"} == {step.rung for step in plan.steps}


def check_limit_chans(ladder: tuple[Rung, ...], descents: Descents) -> None:
    for family in ("ours", "seed"):
        host = up(family)
        wanted = {"limit_chans": 4, "use_concur_to_compact": 0, "use_concur_to_demote": 0}
        plan = prepare(host, Desired(knobs=wanted), ladder=ladder, descents=descents)
        assert ("ready", "queues") == (plan.verdict, plan.descends_to), plan.findings
        assert [
            "demotion_enabled=0",
            "numa_balancing=0",
            "use_dsa_copy_pages=0",
            "dsa_state=0",
            "limit_chans=4",
            "use_concur_to_compact=0",
            "use_concur_to_demote=0",
            "dsa_state=1",
            "use_dsa_copy_pages=1",
            "numa_balancing=2",
            "demote_scale_factor=1000",
            "demotion_enabled=1",
        ] == knobs(plan)
        settles = [step for step in plan.steps if step.settle]
        assert (family == "seed") == bool(settles)
        for step in settles:
            after = plan.steps[step.number]
            assert (SetKnob("dsa_state", 0),) == after.requests


def check_no_descent(ladder: tuple[Rung, ...], descents: Descents) -> None:
    host = up()
    for knob, value in (
        ("dsa_copy_threshold", 64),
        ("use_concur_to_compact", 0),
        ("limit_mt_num", 8),
        ("demote_scale_factor", 300),
    ):
        plan = prepare(host, Desired(knobs={knob: value}), ladder=ladder, descents=descents)
        assert ([f"{knob}={value}"], None) == (knobs(plan), plan.descends_to)


def check_queues(ladder: tuple[Rung, ...], descents: Descents) -> None:
    host = up()
    first = desired("tpp-dsa", host).queues[0]
    other = replace(first, queues=tuple(replace(queue, size=64) for queue in first.queues))
    plan = prepare(host, Desired(queues=(other,)), ladder=ladder, descents=descents)
    assert ("ready", "queues") == (plan.verdict, plan.descends_to), plan.findings
    assert StopDevice("dsa0") in [request for step in plan.steps for request in step.requests]
    assert () == prepare(carried_out(plan, host), Desired(queues=(other,))).steps
    idle = queued(facts())
    plan = prepare(idle, Desired(queues=(other,)), ladder=ladder, descents=descents)
    assert (None, 2) == (plan.descends_to, len(plan.steps))
    gone = prepare(idle, Desired(stopped=("dsa3",)), ladder=ladder, descents=descents)
    assert [(StopDevice("dsa3"),)] == [step.requests for step in gone.steps]


def check_cpus_return(ladder: tuple[Rung, ...], descents: Descents) -> None:
    host = up()
    back = Desired(
        cpus_online=tuple(range(16, 24)), knobs={"numa_balancing": 0, "demotion_enabled": 0}
    )
    plan = prepare(host, back, ladder=ladder, descents=descents)
    assert "ready" == plan.verdict, plan.findings
    assert ["demotion_enabled=0", "numa_balancing=0"] == knobs(plan)
    cpus = [request for step in plan.steps for request in step.requests][2:]
    assert [SetCpu(cpu, online=True) for cpu in range(16, 24)] == cpus


def check_threads_on_seed(ladder: tuple[Rung, ...], descents: Descents) -> None:
    host = facts("seed")
    host = carried_out(prepare(host, desired("multithread", host)), host)
    host = project(project(host, SetCpu(16, online=True)), SetCpu(17, online=True))
    host = project(host, SetKnob("limit_mt_num", 2))
    host = project(host, SetKnob("cpu_multi_copy_pages", 1))
    plan = prepare(
        host, Desired(cpuless=True, knobs={"limit_mt_num": 4}), ladder=ladder, descents=descents
    )
    assert "ready" == plan.verdict, plan.findings
    assert ["cpu_multi_copy_pages=0", "limit_mt_num=4", "cpu_multi_copy_pages=1"] == knobs(plan)


def check_engines(ladder: tuple[Rung, ...], descents: Descents) -> None:
    starts = {"dsa": up(), "cpu": facts()}
    multithread = prepare(facts(), Desired(knobs=ENGINES["multithread"]))
    starts["multithread"] = carried_out(multithread, facts())
    for before, host in starts.items():
        for after in ENGINES:
            if after == "dsa" and before != "dsa":
                host = queued(host)  # noqa: PLW2901 - its queues must be there
            plan = prepare(host, Desired(knobs=ENGINES[after]), ladder=ladder, descents=descents)
            assert "ready" == plan.verdict, (before, after, plan.findings)
            end = carried_out(plan, host)
            found = {knob: end.knobs[knob] for knob in ENGINES[after]}
            assert {knob: str(value) for knob, value in ENGINES[after].items()} == found
            assert () == prepare(end, Desired(knobs=ENGINES[after])).steps


def check_stale_state(ladder: tuple[Rung, ...], descents: Descents) -> None:
    # the seed's knob reads 1 after a failed first start
    host = queued(facts("seed"))
    host = replace(host, knobs={**host.knobs, "dsa_state": "1"})
    plan = prepare(host, Desired(knobs=ENGINES["dsa"]), ladder=ladder, descents=descents)
    assert "ready" == plan.verdict, plan.findings
    assert ["dsa_state=0", "dsa_state=1", "use_dsa_copy_pages=1"] == knobs(plan)


def check_way_down(ladder: tuple[Rung, ...], descents: Descents) -> None:
    for family in ("ours", "seed"):
        start = facts(family, swaps=(Swap("/dev/sda2", 1 << 30, 0, -2),))
        before = originals(start, 1, 0.0)
        host = carried_out(prepare(start, desired("tpp-dsa", start)), start)
        back = prepare(host, from_originals(before, host), ladder=ladder, descents=descents)
        assert "ready" == back.verdict, back.findings
        end = carried_out(back, host)
        assert start.knobs == end.knobs
        assert start.nodes == end.nodes
        assert start.swaps == end.swaps
        assert {"disabled"} == {device.state for device in end.devices}


def check_fall_back(ladder: tuple[Rung, ...], descents: Descents) -> None:
    host = up()
    off = engine_off(host, 1, stop_tiering=False)
    plan = prepare(host, off, ladder=ladder, descents=descents)
    assert (["use_dsa_copy_pages=0"], None) == (knobs(plan), plan.descends_to)
    off = engine_off(host, 1, stop_tiering=True)
    plan = prepare(host, off, ladder=ladder, descents=descents)
    assert ["demotion_enabled=0", "numa_balancing=0", "use_dsa_copy_pages=0"] == knobs(plan)


CHECKS: tuple[Callable[[tuple[Rung, ...], Descents], None], ...] = (
    check_order_up,
    check_parameters,
    check_limit_chans,
    check_no_descent,
    check_queues,
    check_cpus_return,
    check_threads_on_seed,
    check_engines,
    check_stale_state,
    check_way_down,
    check_fall_back,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_ladder(check: Callable[[tuple[Rung, ...], Descents], None]) -> None:
    check(LADDER, DESCENTS)


# -- properties ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["ours", "seed"])
@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_shipped_profile_is_reached_and_kept(path: Path, family: str) -> None:
    for start in (facts(family), live(facts(family)), up(family)):
        before = originals(start, 1, 0.0)
        wanted = desired(path.stem, start)
        plan = prepare(start, wanted)
        assert "ready" == plan.verdict, plan.findings
        assert None is no_way_back(plan, start, before)
        end = carried_out(plan, start)
        assert () == prepare(end, wanted).steps


def test_what_is_not_named_is_not_touched() -> None:
    host = up()
    plan = prepare(host, Desired())
    assert () == plan.steps


@given(st.sampled_from(PROFILES), st.sampled_from(["ours", "seed"]))
def test_inverses_lead_back(path: Path, family: str) -> None:
    start = facts(family)
    host, done = start, []
    for step, then in foretold(prepare(start, desired(path.stem, start)), start):
        host = then
        done.append(step)
    for step in reversed(done):
        for request in step.inverse:
            host = project(host, request)
    assert (start.knobs, start.nodes, start.swaps) == (host.knobs, host.nodes, host.swaps)
    assert {"disabled"} == {device.state for device in host.devices}


@given(st.data())
def test_from_wherever_a_plan_is_broken_off_the_cpu_engine_comes_up(data: st.DataObject) -> None:
    family = data.draw(st.sampled_from(["ours", "seed"]))
    host = facts(family)
    plan = prepare(host, desired(data.draw(st.sampled_from(PROFILES)).stem, host))
    requests = [request for step in plan.steps for request in step.requests]
    for request in requests[: data.draw(st.integers(0, len(requests)))]:
        host = project(host, request)
    guard = prepare(host, cpu_only(host))
    assert "ready" == guard.verdict, guard.findings
    end = carried_out(guard, host)
    assert ("0", "0", "0") == tuple(end.knobs[knob] for knob in ENGINES["cpu"])
    assert SwapOff not in {type(request) for step in guard.steps for request in step.requests}


def test_a_refused_plan_has_no_steps() -> None:
    host = facts(devices=2)
    plan = prepare(host, desired("dsa", host))
    assert ("refused", ()) == (plan.verdict, plan.steps)
