# SPDX-License-Identifier: Apache-2.0
"""The alerts that the manual suggests fire in the states that they are for, and only there."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dsatier.apply.lifecycle import STATES
from dsatier.apply.records import Record, with_conditions
from dsatier.apply.status_document import status
from dsatier.base.exits import OK
from dsatier.cli.status import checked
from dsatier.daemon.metrics import Running, render

MANUAL = Path(__file__).resolve().parents[2] / "docs/operations.md"
LOOKED = 1000.0
FINE = Record(state="converged", reason="Proven", message="every step is proven", generation=1)
UNWELL: dict[str, Record] = {
    **{state: replace(FINE, state=state) for state in STATES if state != "converged"},
    **{latch: replace(FINE, latch=latch) for latch in ("fault", "crash")},
    **{
        why: replace(FINE, profile_status=why)
        for why in ("Pending", "NoProfile", "Invalid", "Refused", "Failed")
    },
    "changed and not reloaded": replace(FINE, reload_pending=("/etc/dsatier.d/a.yaml",)),
    "a look that failed": replace(FINE, look_failed="EIO", look_failed_since=900.0),
}


def alerts() -> tuple[str, str, str]:
    """Return the two expressions of the manual, and the metric whose rise is the third."""
    text = " ".join(MANUAL.read_text(encoding="utf-8").split())
    listed = text[text.index("Worth an alert:") : text.index("**One question**")]
    one, other, counter = re.findall(r"`([^`]*dsatier_[^`]*)`", listed)
    return one, other, counter


def samples(record: Record, within: float, *, stopping: bool = False) -> dict[str, float]:
    """Return the metrics without labels of a daemon that has just looked."""
    running = Running("1.2.3", 1.0, looked=LOOKED, look_within=within, stopping=stopping)
    text = render(with_conditions(record, LOOKED), None, running, {})
    families = text_string_to_metric_families(text)
    return {one.name: one.value for each in families for one in each.samples if not one.labels}


def fires(expression: str, found: dict[str, float], now: float) -> bool:
    """Evaluate an expression of sums and one comparison, as Prometheus does."""
    assert re.fullmatch(r"[\w ()+=<>-]+", expression), expression
    words = expression.replace("time()", str(now))
    words = re.sub(r"\bdsatier_\w+", lambda name: repr(found[name[0]]), words)
    return bool(eval(words))  # two numbers are compared, see above


def test_a_host_on_which_all_is_well_is_quiet() -> None:
    unwell, silent, counter = alerts()
    for within in (10.0, 300.0, 86400.0):  # whatever drift.interval is
        found = samples(FINE, within)
        assert counter in found
        for now in (LOOKED, LOOKED + within):
            assert not fires(unwell, found, now)
            assert not fires(silent, found, now)


@pytest.mark.parametrize("name", UNWELL)
def test_whatever_is_not_well_is_told(name: str) -> None:
    unwell, _, _ = alerts()
    record = with_conditions(UNWELL[name], LOOKED)
    assert fires(unwell, samples(record, 300.0), LOOKED)
    line, code = checked(json.dumps(status(record, "host", LOOKED)), "status.json", LOOKED)
    assert code != OK
    assert line.startswith("host: ")


def test_a_daemon_that_ends_says_so() -> None:
    unwell, _, _ = alerts()
    assert fires(unwell, samples(FINE, 300.0, stopping=True), LOOKED)


@pytest.mark.parametrize("within", [10.0, 300.0])
def test_a_daemon_that_looks_no_more_is_told(within: float) -> None:
    """It was killed, or hangs: its file is as it was."""
    _, silent, _ = alerts()
    assert fires(silent, samples(FINE, within), LOOKED + within + 61)


def test_each_fault_is_a_rise() -> None:
    _, _, counter = alerts()
    before, after = (samples(replace(FINE, faults=faults), 300.0) for faults in (1, 2))
    assert after[counter] - before[counter] == 1
