# SPDX-License-Identifier: Apache-2.0
"""The knobs that our kernel alone has: each goes where the profile says, and comes back."""

from __future__ import annotations

import pytest

from dsatier.apply.driver import Driver
from dsatier.base.problem import Invalid
from dsatier.facts.knobs import KNOBS, KnobName
from dsatier.facts.observe.observer import observe
from dsatier.plan.requests import SetKnob
from dsatier.profile.load import from_texts
from dsatier.sim.host import SimHost
from tests.core.test_stock_kernels import applied, planned
from tests.support.scene import small

THREADS = """
version: 1
tiers: {fast_node: 0, slow_node: 1}
concurrency:
  migrate_batch_reasons: [demotion, damon]
  migrate_batch_pages: 2048
  migrate_batch_usecs: 0
engine:
  kind: multithread
  cpu_multi_copy_threshold: 64
  migrate_engine_reasons: [demotion, damon, numa_misplaced]
  migrate_copy_calibrate: true
"""
WRITTEN: dict[KnobName, int] = {
    "migrate_batch_reasons": 768,
    "migrate_batch_pages": 2048,
    "migrate_batch_usecs": 0,
    "cpu_multi_copy_threshold": 64,
    "migrate_engine_reasons": 800,
    "migrate_copy_calibrate": 1,
}
SINGLE = """
version: 1
tiers: {fast_node: 0, slow_node: 1}
concurrency: {use_concur_to_demote: true}
"""


def values(host: SimHost, *names: KnobName) -> dict[str, int]:
    """Return knobs as their files show them."""
    return {name: int(host.read(KNOBS[name].path)) for name in names}


def test_every_knob_goes_up_and_comes_back() -> None:
    host = small("ours")
    before = values(host, *WRITTEN)
    assert "changed" == applied(host, THREADS)
    assert WRITTEN == values(host, *WRITTEN)
    assert "unchanged" == applied(host, THREADS)
    assert "changed" == Driver(host).detach().result
    assert before == values(host, *WRITTEN)


def test_a_reason_of_the_list_is_the_knob_of_its_own() -> None:
    host = small("ours")
    applied(host, THREADS)
    assert {"use_concur_to_demote": 1, "use_concur_to_compact": 0} == values(
        host, "use_concur_to_demote", "use_concur_to_compact"
    )


def test_a_knob_of_its_own_leaves_the_other_reasons() -> None:
    """What another set in the list stays, and the list is not put back after its bit."""
    host = small("ours")
    host.write(KNOBS["migrate_batch_reasons"].path, "512\n", 1.0)
    (step,) = (
        step
        for step in planned(host, SINGLE).steps
        if SetKnob("use_concur_to_demote", 1) in step.requests
    )
    assert "parameters" == step.rung
    assert "changed" == applied(host, SINGLE)
    assert {"migrate_batch_reasons": 768} == values(host, "migrate_batch_reasons")
    assert "unchanged" == applied(host, SINGLE)
    assert "changed" == Driver(host).detach().result
    assert {"migrate_batch_reasons": 512} == values(host, "migrate_batch_reasons")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "concurrency: {migrate_batch_reasons: [demotion], use_concur_to_demote: true}",
            "use_concur_to_demote: expected nothing where migrate_batch_reasons is named",
        ),
        (
            "concurrency: {migrate_batch_reasons: [demotion, damon, demotion]}",
            "migrate_batch_reasons[2]: expected each reason once, found demotion again",
        ),
        (
            "concurrency: {migrate_batch_reasons: [numa_misplaced]}",
            "migrate_batch_reasons[0]: expected ",
        ),
        (
            "engine: {kind: dsa, migrate_engine_reasons: [hugetlb, hugetlb]}",
            "migrate_engine_reasons[1]: expected each reason once",
        ),
        (
            "engine: {kind: cpu, migrate_copy_calibrate: true}",
            "migrate_copy_calibrate: unknown key",
        ),
    ],
    ids=["two words", "twice", "single folios", "engine", "cpu"],
)
def test_what_contradicts_itself_is_refused(text: str, told: str) -> None:
    with pytest.raises(Invalid) as invalid:
        from_texts([("p.yaml", f"version: 1\n{text}\n")], observe(small("ours")))
    assert told in str(invalid.value)


def test_a_kernel_without_them_is_told_of() -> None:
    found = planned(small("tpp"), THREADS)
    assert "refused" == found.verdict
    missing = next(f for f in found.findings if f.name == "knobs-present")
    assert "migrate_batch_reasons" in str(missing)
