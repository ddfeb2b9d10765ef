# SPDX-License-Identifier: Apache-2.0
"""Which data races count as ours."""

from __future__ import annotations

from pathlib import Path

from tests.kernel.races import ALLOWED, Frame, Race, Touched, ours, races, touched
from vm.kernellog import complaints
from vm.ours import BUILD

RULE = "[   10.000000] " + "=" * 66
REPORT = """\
BUG: KCSAN: data-race in learn_pace.constprop.0+0x1a/0x40 / copy_list

write to 0xffffffff82a01234 of 4 bytes by task 77 on cpu 1:
 learn_pace.constprop.0+0x1a/0x40
 ? stale+0x1/0x2
 copy_list+0xf0/0x130
 migrate_pages_batch+0x5/0x1000

read to 0xffffffff82a01234 of 4 bytes by interrupt on cpu 0:
 wait_lane+0x12/0x30 [idxd_migrate]
 worker_thread+0x5/0x10

value changed: 0x00000000 -> 0x00000001

Reported by Kernel Concurrency Sanitizer on:
CPU: 0 UID: 0 PID: 78 Comm: pages Not tainted 6.12.0 #1
 not_a_frame+0x1/0x2
"""
UNKNOWN = """\
BUG: KCSAN: data-race in folio_unlock

race at unknown origin, with read to 0xffffea0001234560 of 8 bytes by task 9 on cpu 2:
 folio_unlock+0x1/0x20
 do_fault+0x5/0x10
"""
FUNCTIONS = Touched(new=frozenset({"copy_list"}), changed=frozenset({"kswapd"}))


def log(*reports: str) -> list[str]:
    """Return lines of a kernel's log with reports in it."""
    lines = ["[    9.000000] something else"]
    for report in reports:
        lines += [RULE, *(f"[   10.000000] {line}" for line in report.splitlines()), RULE]
    return lines


def stacks(*names: str) -> Race:
    """Return a race of two accesses with these frames, outermost last."""
    return Race("", (tuple(Frame(name) for name in names), (Frame("other"),)), "")


def test_a_report_is_read_whole() -> None:
    first, second = races(log(REPORT, UNKNOWN))
    assert "learn_pace / copy_list" == first.title
    assert (
        (Frame("learn_pace"), Frame("copy_list"), Frame("migrate_pages_batch")),
        (Frame("wait_lane", "idxd_migrate"), Frame("worker_thread")),
    ) == first.accesses
    assert first.text.startswith("BUG: KCSAN")
    assert "value changed" in first.text
    assert ((Frame("folio_unlock"), Frame("do_fault")),) == second.accesses


def test_a_report_that_is_cut_off_is_not_lost() -> None:
    lines = log(REPORT)
    assert 1 == len(races(lines[:6]))
    assert 2 == len(races(lines[:6] + lines[2:]))
    assert ours(races(lines[:3])[0], FUNCTIONS)  # no stack: nobody can tell whose it is


def test_what_is_ours() -> None:
    assert ours(stacks("copy_list"), FUNCTIONS)
    # what our files call is ours, what is far below them is not
    assert ours(stacks("a", "b", "c", "copy_list"), FUNCTIONS)
    assert not ours(stacks("a", "b", "c", "d", "copy_list"), FUNCTIONS)
    # a function that was there before only by what it does itself
    assert ours(stacks("kswapd"), FUNCTIONS)
    assert not ours(stacks("a", "kswapd"), FUNCTIONS)
    assert not ours(stacks("folio_unlock", "do_fault"), FUNCTIONS)
    assert ours(races(log(REPORT))[0], Touched(frozenset(), frozenset()))  # by its module
    assert not ours(races(log(UNKNOWN))[0], FUNCTIONS)


def test_functions_of_a_patch(tmp_path: Path) -> None:
    first, second = tmp_path / "1.patch", tmp_path / "2.patch"
    first.write_text(
        "--- /dev/null\n+++ b/mm/new.c\n@@ -0,0 +1,3 @@\n+static struct list *born(void)\n"
        "+{\n+\tif (called(1))\n+#define MACRO(x)\n"
        "--- a/mm/old.c\n+++ b/mm/old.c\n@@ -1,3 +1,3 @@ get_page(gfp_t gfp_mask,\n"
        " \treturn 1;\n+void grown(void)\n-int gone(void)\n"
        "--- a/Documentation/x.rst\n+++ b/Documentation/x.rst\n@@ -1 +1 @@ words(of prose)\n"
    )
    second.write_text("--- a/mm/new.c\n+++ b/mm/new.c\n@@ -1,3 +1,3 @@ int late(void)\n+\tx();\n")
    found = touched([first, second])
    assert {"born", "late"} == found.new
    assert {"get_page", "grown"} == found.changed


def test_our_series_has_what_it_is_known_to_touch() -> None:
    found = touched(sorted((BUILD.parents[1] / "patches").glob("*/*.patch")))
    assert {
        "__migrate_copy_ahead",
        "threads_copy",
        "migrate_copy_offer",
        "dsa_chan_retire",
    } <= found.new
    assert {"__migrate_folio", "get_page_from_freelist", "kswapd"} <= found.changed


def test_only_races_are_let_pass() -> None:
    """What is allowed is what is judged here, and nothing else of the sanitizer."""
    lines = log(REPORT, "BUG: KCSAN: assert: race in f / g", "WARNING: CPU: 0 PID: 1")
    told = [found.line for found in complaints(lines, {ALLOWED: "judged"})]
    assert 2 == len(told)
    assert "assert" in told[0]
    assert "WARNING" in told[1]
