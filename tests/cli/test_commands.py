# SPDX-License-Identifier: Apache-2.0
"""The command line on simulated hosts: exit codes, JSON on standard output only, words."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsatier.apply.journal import Journal
from dsatier.base.exits import RESULTS
from dsatier.cli.commands import VERBS
from dsatier.cli.main import main
from dsatier.cli.options import COMMANDS, parser
from dsatier.facts.effect import Effect
from dsatier.sim.faults import SelfClear
from dsatier.sim.host import SimHost

PROFILES = Path(__file__).resolve().parents[2] / "profiles"
DSA = str(PROFILES / "dsa.yaml")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "host.json"


@pytest.fixture
def run(state: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command on a simulated host whose state stays between commands."""

    def command(*words: str, host: str = "dsa8") -> tuple[int, str, str]:
        code = main([words[0], "--host", f"sim:{host}", "--sim-state", str(state), *words[1:]])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def as_json(out: str) -> Any:
    return json.loads(out)


def test_every_command_has_a_verb() -> None:
    assert [command.name for command in COMMANDS] == list(VERBS)


def test_every_result_has_an_exit_code() -> None:
    assert {0, 1, 4} == set(RESULTS.values())


def test_usage_errors_exit_with_64(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["plan", "--no-such-option"])
    assert 64 == stop.value.code
    assert "--help" in capsys.readouterr().err
    assert 64 == main([])


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parser().parse_args([command, "--help"])
    assert 0 == stop.value.code
    assert f"usage: dsatier {command}" in capsys.readouterr().out


def test_up_and_down(run: Run) -> None:
    assert 2 == run("plan", "-p", DSA, "--detailed-exitcode")[0]
    assert 4 == run("verify", "-p", DSA)[0]
    assert 3 == run("status")[0]

    code, out, err = run("apply", "-p", DSA)
    assert (0, "changed (converged): every step is proven\n") == (code, out)
    assert "15/15 engine" in err

    assert 0 == run("plan", "-p", DSA, "--detailed-exitcode")[0]
    assert 0 == run("verify", "-p", DSA)[0]
    assert (0, True) == (run("status")[0], "converged since" in run("status")[1])
    assert (0, "unchanged") == (0, as_json(run("apply", "-p", DSA, "--json")[1])["result"])

    code, out, _ = run("rollback", "--quiet")
    assert (0, True) == (code, out.startswith("changed (unmanaged)"))
    assert 4 == run("status")[0]


def test_json_is_alone_on_standard_output(run: Run) -> None:
    for words in (
        ("plan", "-p", DSA, "--json"),
        ("doctor", "-p", DSA, "--json"),
        ("facts", "--json"),
        ("verify", "-p", DSA, "--json"),
        ("apply", "-p", DSA, "--json"),
        ("status", "--json"),
        ("reconcile", "-p", DSA, "--json"),
        ("explain", "engine.limit_chans", "-p", DSA, "--json"),
        ("cat-config", "-p", DSA, "--json"),
        ("measure", "--json", "--", "echo", "noise"),
        ("clear", "--json"),
        ("detach", "--json"),
    ):
        assert isinstance(as_json(run(*words)[1]), dict), words


def test_a_plan_is_what_is_applied(run: Run, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(run("plan", "-p", DSA, "--json")[1], encoding="utf-8")
    assert 0 == run("apply", "--plan", str(plan))[0]
    assert 0 == run("verify", "-p", DSA)[0]


def test_a_plan_is_refused_when_the_host_has_changed(run: Run, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    plan.write_text(run("plan", "-p", DSA, "--json")[1], encoding="utf-8")
    run("apply", "-p", str(PROFILES / "multithread.yaml"))
    code, _, err = run("apply", "--plan", str(plan))
    assert (1, True) == (code, "the host has changed since the plan was made" in err)


def test_a_spoilt_plan_is_refused(run: Run, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    data = as_json(run("plan", "-p", DSA, "--json")[1])
    data["steps"][0]["requests"][0]["kind"] = "format-disk"
    plan.write_text(json.dumps(data), encoding="utf-8")
    assert 65 == run("apply", "--plan", str(plan))[0]


def test_a_fleet_is_planned_from_captured_facts(run: Run, tmp_path: Path) -> None:
    host = tmp_path / "facts.json"
    host.write_text(run("facts", "--json")[1], encoding="utf-8")
    live = as_json(run("plan", "-p", DSA, "--json")[1])
    assert 0 == main(["doctor", "--facts", str(host), "-p", DSA])
    offline = subprocess.run(
        [sys.executable, "-m", "dsatier", "plan", "--facts", str(host), "-p", DSA, "--json"],
        capture_output=True,
        check=True,
        env={"PYTHONPATH": "agent"},
    )
    assert live == as_json(offline.stdout.decode())


def test_doctor_tells_what_is_missing(run: Run) -> None:
    code, out, _ = run("doctor", "-p", DSA, host="dsa2")
    assert (4, True) == (code, "dsa2, dsa3" in out)
    assert (4, True) == (code, "cannot be reached" in out)


def test_doctor_warns_of_tiering_that_does_not_work(run: Run, state: Path) -> None:
    tiering = str(PROFILES / "tiering.yaml")
    assert 0 == run("apply", "-p", tiering, host="stock-6-12")[0]
    assert "tiering" not in run("status", host="stock-6-12")[1]
    host = SimHost.restore(state.read_text(encoding="utf-8"))
    journal = Journal(host)
    effect = Effect("not working", "TargetFull", 5.0)
    journal.keep_record(replace(journal.record(), effect=effect))
    state.write_text(host.state_text(), encoding="utf-8")
    code, out, _ = run("doctor", "-p", tiering, host="stock-6-12")
    assert (0, True) == (code, "warning: tiering: expected pages that move" in out)
    findings = as_json(run("doctor", "-p", tiering, "--json", host="stock-6-12")[1])["findings"]
    assert ["add memory to them, or run less on this host"] == [
        one["remedy"] for one in findings if one["name"] == "tiering-effect"
    ]
    assert "not working: TargetFull" in run("history", host="stock-6-12")[1]


def test_a_stock_kernel_is_refused_and_left_alone(run: Run, state: Path) -> None:
    code, _, err = run("apply", "-p", DSA, host="stock-debian")
    assert (1, True) == (code, "install and boot dsatier's kernel package" in err)
    host = SimHost.restore(state.read_text(encoding="utf-8"))
    assert {} == host.files
    assert [] == host.harm


def test_a_fault_latches_until_cleared(run: Run, state: Path) -> None:
    run("apply", "-p", DSA)
    host = SimHost.restore(state.read_text(encoding="utf-8"))
    host.inject(SelfClear("self-clear"))
    host.sleep(1.0)
    state.write_text(host.state_text(), encoding="utf-8")

    code, out, err = run("reconcile", "-p", DSA)
    assert (4, "") == (code, out)
    assert "use_dsa_copy_pages went to 0 by itself (kernel log: dsatier: wq" in err
    assert 4 == run("apply", "-p", DSA)[0]
    assert "degraded" in run("status")[1]
    assert 0 == run("clear")[0]
    assert 0 == run("apply", "-p", DSA)[0]


def test_explain_an_unknown_field_names_the_nearest(run: Run) -> None:
    code, _, err = run("explain", "engine.limit_chan", "-p", DSA)
    assert (64, True) == (code, "engine.limit_chans" in err)


def test_explain(run: Run) -> None:
    found = as_json(run("explain", "engine.limit_chans", "-p", DSA, "--json")[1])
    assert (8, 8, 8) == (found["effective"], found["default"], found["live"])
    assert found["origin"].startswith(f"{DSA}:")
    assert "rung 'queues'" in found["change"]
    threshold = as_json(run("explain", "engine.dsa_copy_threshold", "-p", DSA, "--json")[1])
    assert "any time: the host need not come down" == threshold["change"]


def test_a_bad_profile_exits_with_65_and_touches_nothing(run: Run, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("version: 1\nengine: {kind: dsa, limit_chan: 8}\n", encoding="utf-8")
    before = run("facts", "--json")[1]
    code, out, err = run("apply", "-p", str(bad))
    assert (65, "") == (code, out)
    assert f"{bad}:2:" in err
    assert "limit_chans" in err
    assert before == run("facts", "--json")[1]


def test_measure_runs_a_command(run: Run) -> None:
    run("apply", "-p", DSA, "-q")
    found = as_json(run("measure", "--json", "--", sys.executable, "-c", "raise SystemExit(7)")[1])
    assert 7 == found["exit_code"]
    assert "dsa_hpage_cnt" in found["timer"]
    assert 0 == found["timer"]["timer_state"]


def test_measure_needs_the_timer(run: Run) -> None:
    code, _, err = run("measure", "--", "true", host="stock-debian")
    assert (1, True) == (code, "/proc/timer" in err)


def test_no_profile_leaves_the_host_alone(run: Run) -> None:
    code, out, err = run("apply")
    assert (0, "") == (code, out)
    assert "it is left as it is" in err


def test_a_profile_for_another_host_is_refused(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(
        "version: 1\nmatch: {hostname: [db*]}\nengine: {kind: cpu}\n", encoding="utf-8"
    )
    code, _, err = run("apply", "-p", str(other))
    assert (1, True) == (code, "db*" in err)


def test_host_options_that_do_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert 64 == main(["facts", "--host", "dsa8"])
    assert 64 == main(["facts", "--host", "sim:no-such"])
    assert 64 == main(["facts", "--host", "sim:dsa8", "--root", "/x"])
    assert 64 == main(["facts", "--sim-state", "x"])
    capsys.readouterr()


def test_the_demonstration(capsys: pytest.CaptureFixture[str]) -> None:
    assert 0 == main(["demo", "--fast"])
    assert "never harmed" in capsys.readouterr().out


def test_check_is_for_configuration_managers(tmp_path: Path) -> None:
    odd = tmp_path / ".50-dsa.yaml.Xy12"
    odd.write_text(Path(DSA).read_text(encoding="utf-8"), encoding="utf-8")
    assert 0 == main(["check", str(odd)])
    odd.write_text("version: 2\n", encoding="utf-8")
    assert 65 == main(["check", str(odd)])


def test_verify_compares_with_the_profile_whatever_is_latched(run: Run, state: Path) -> None:
    assert run("apply", "-p", DSA)[0] == 0
    host = SimHost.restore(state.read_text(encoding="utf-8"))
    host.inject(SelfClear("self-clear"))
    host.advance(5.0)
    state.write_text(host.state_text(), encoding="utf-8")
    assert run("reconcile", "-p", DSA)[0] == 4
    for profile in (DSA, str(PROFILES / "tpp-dsa.yaml")):
        code, out, _ = run("verify", "-p", profile)
        assert (code, "as its profile says" in out) == (4, False)
        assert "latched until `dsatier clear`" in out
        assert as_json(run("verify", "-p", profile, "--json")[1])["compliant"] is False


@pytest.mark.parametrize("host", ["stock-debian", "no-dsa"])
def test_verify_of_what_is_out_of_reach_is_not_compliant(run: Run, host: str) -> None:
    code, out, _ = run("verify", "-p", DSA, "--json", host=host)
    found = as_json(out)
    assert (code, found["compliant"]) == (4, False)
    assert found["verdict"] in ("refused", "reboot-required")


@pytest.mark.parametrize("words", [("verify",), ("doctor",), ("plan", "--detailed-exitcode")])
def test_where_no_profile_applies_nothing_is_said_to_be_right(
    run: Run, words: tuple[str, ...]
) -> None:
    code, out, err = run(*words)
    assert (code, out) == (5, "")
    assert err.startswith("dsatier: no profile applies to this host")


def test_explain_names_defaults_and_descents(run: Run) -> None:
    out = run("explain", "drift.interval", "-p", DSA)[1]
    assert "  effective       60.0\n  from            dsatier's default\n" in out
    out = run("explain", "engine.work_queues.devices", "-p", DSA)[1]
    assert "the host comes down to rung 'queues'" in out
    out = run("explain", "tiers.cpuless", "-p", str(PROFILES / "tpp-dsa.yaml"))[1]
    assert "  effective       true\n" in out
    out = run("explain", "engine", "-p", DSA)[1]
    assert '  effective       {"kind": "dsa", ' in out
    out = run("explain", "tiering.swap", "-p", DSA)[1]
    assert "not named, so not touched" in out
