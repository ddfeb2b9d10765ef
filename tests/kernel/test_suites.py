# SPDX-License-Identifier: Apache-2.0
"""What is read out of the words of other people's suites, and what counts as worse."""

from __future__ import annotations

from pathlib import Path

from tests.kernel.suites import (
    COLUMNS,
    Item,
    differences,
    flat,
    idle,
    items,
    results,
    scripts,
    sums,
    who,
    worse,
)

MM = Item("kselftest mm", "thp", (), 1)
ALONE = Item("stress-ng", "numa", (), 1)
TAP = """\
TAP version 13
# -----------------------
# running ./khugepaged
# -----------------------
# ok 1 not one of ours
ok 1 khugepaged
not ok 2 split_huge_page_test # exit=1
# # Totals: pass:0 fail:0 xfail:0 xpass:0 skip:6 error:0
ok 5 migration
# # Totals: pass:1 fail:0 xfail:0 xpass:0 skip:6 error:0
ok 6 cow
# # Totals: pass:0 fail:1 xfail:0 xpass:0 skip:1 error:0
not ok 7 ksm # exit=1
ok 3 transhuge-stress -d 20 # SKIP
ok 4 khugepaged
# SUMMARY: PASS=2 SKIP=1 FAIL=1
1..4
"""


def test_each_part_of_a_category_counts_and_the_same_name_twice() -> None:
    assert {
        "khugepaged": "pass",
        "split_huge_page_test": "fail",
        "migration": "skip",  # all of it was skipped
        "cow": "pass",
        "ksm": "fail",
        "transhuge-stress -d 20": "skip",
        "khugepaged (2)": "pass",
    } == results(MM, 1, TAP)


def test_what_has_no_parts_counts_by_its_end() -> None:
    assert ["pass", "skip", "skip", "fail", "fail"] == [
        results(ALONE, code, "ok 1 what it says")[""] for code in (0, 3, 4, 1, -9)
    ]
    # it has no code for what it left out
    stress = Item("stressapptest", "memory", (), 1)
    assert ["pass", "fail"] == [results(stress, code, "")[""] for code in (0, 4)]
    assert {"": "fail"} == results(MM, 127, "sh: not found")


def test_what_differs_and_what_is_worse() -> None:
    plain = {"a: x": "pass", "a: y": "fail", "b: z": "pass"}
    off = {"a: x": "pass", "a: y": "pass", "b: z": "pass"}
    on = {"a: x": "time-out", "a: y": "fail", "b: z": "pass", "a: x kernel log": "a warning"}
    columns = dict(zip(COLUMNS, (plain, off, on), strict=False))
    assert ["a: x", "a: x kernel log"] == worse(columns)
    assert [] == worse({"one": plain, "other": off})
    told = differences(columns).splitlines()
    assert ["| a: x | pass | pass | time-out |", "| a: y | fail | pass | fail |"] == told[2:4]
    assert "" == differences({"one": plain, "other": plain})
    assert [
        "| a | 1 pass, 1 fail | 2 pass | 1 fail, 1 time-out |",
        "| b | 1 pass | 1 pass | 1 pass |",
    ] == sums(columns).splitlines()[2:]


def test_every_suite_is_asked_for() -> None:
    found = list(items(["sysfs.sh"], ["mseal_test"]))
    assert {"kselftest mm", "kselftest damon", "stress-ng", "stressapptest"} == {
        item.suite for item in found
    }
    assert len(found) == len({(item.suite, item.name) for item in found})
    assert "kselftest mm: mseal_test" in {f"{item.suite}: {item.name}" for item in found}


def test_programs_that_nobody_else_runs_are_run_by_themselves(tmp_path: Path) -> None:
    for name in ("damon/a.sh", "damon/_b.py", "damon/c.py", "damon/d", "mm/cow", "mm/mseal_test"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch(0o755)
    for name in ("mm/hmm-tests", "mm/script.sh"):
        (tmp_path / name).touch(0o755)
    (tmp_path / "mm/settings").touch(0o644)
    (tmp_path / "mm/run_vmtests.sh").write_text("CATEGORY=cow run_test ./cow\n")
    assert (["a.sh", "c.py"], ["mseal_test"]) == scripts(tmp_path)


def test_an_engine_that_fails_counts_and_is_no_test() -> None:
    plain = flat({"a: x": {"": "pass"}})
    dsa = flat({"a: x": {"": "pass", "engine": "fault"}})
    assert {"a: x": "pass", "a: x engine": "fault"} == dsa
    assert ["a: x engine"] == worse({"one": plain, "other": dsa})
    assert "| a | 1 pass | 1 pass |" in sums({"one": plain, "other": dsa})


def test_an_engine_must_have_copied_and_its_devices_say_so() -> None:
    plain, off, threads, dsa = COLUMNS
    copies = {
        plain: {"a: x": {"pgmigrate_success": 7}},
        off: {"a: x": {"dsa": 0, "threads": 0, "cpu": 0}},
        threads: {"a: x": {"dsa": 0, "threads": 4000, "cpu": 3}, "a: y": {"threads": 96}},
        dsa: {"a: x": {"dsa": 50, "threads": 0, "cpu": 3, "devices": 50}, "a: y": {"devices": 1}},
    }
    assert [] == idle(copies)
    assert "| threads | - | 0 | 4,096 | 0 |" in who(copies)
    assert "| devices | - | - | - | 51 |" in who(copies)
    assert [threads] == idle({**copies, threads: {"a: x": {"threads": 0}}})
    assert [dsa] == idle({**copies, dsa: {"a: x": {"dsa": 50, "devices": 49}}})
    assert [dsa] == idle({**copies, dsa: {"a: x": {"cpu": 50, "devices": 0}}})
