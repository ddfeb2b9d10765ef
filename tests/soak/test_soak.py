# SPDX-License-Identifier: Apache-2.0
"""The soak's judges can fail, and a very short soak goes well."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from dsatier.sim.faults import KINDS
from dsatier.sim.host import SimHost
from tests.soak import acts, judges
from tests.soak.__main__ import main
from tests.soak.judges import Check, Sample
from tests.soak.picture import picture
from tests.soak.service import MALLOC
from tests.soak.soak import REPOSITORY, claimed
from tests.soak.stage import Answerable

SAMPLE = Sample(
    at=0.0,
    pid=7,
    phase="rest",
    state="converged",
    rss=24000,
    anon=16000,
    pss=20000,
    fds=900,
    threads=1,
    children=0,
    zombies=0,
    cpu=1.0,
    files=3600,
    objects=64000,
    held=3_000_000,
)
STEP = 15.0
HOUR = range(0, 3600, int(STEP))


def hour(**growing: float) -> list[Sample]:
    """An hour of a daemon: noise that is the same each time, and what grows by so much in it."""
    rng = random.Random(1)
    found = []
    for at in HOUR:
        # a look in flight holds more for a moment: one sample in five
        busy = 900 if rng.random() < 0.2 else 0
        values = {
            name: getattr(SAMPLE, name) + round(an_hour * at / 3600)
            for name, an_hour in growing.items()
        }
        one = replace(SAMPLE, at=float(at), **values)
        found.append(replace(one, rss=one.rss + busy, anon=one.anon + busy))
    return found


def test_a_flat_hour_is_flat() -> None:
    assert [] == judges.flat(hour(), must=True)


@pytest.mark.parametrize(
    ("growing", "what"),
    [
        ({"anon": 1500}, "RssAnon"),
        ({"rss": 1500}, "VmRSS"),
        ({"objects": 800}, "Python's objects"),
        ({"held": 90_000}, "bytes of malloc"),
        ({"fds": 30}, "open files"),
        ({"threads": 2}, "threads"),
        ({"files": 4096}, "own files"),
    ],
)
def test_a_leak_is_told(growing: dict[str, float], what: str) -> None:
    """Somewhat more than what is allowed, under noise that is larger than all of the growth."""
    found = judges.flat(hour(**growing), must=True)
    assert [f"grows: {what}"] == [line.partition(": ")[0] + ": " + what for line in found]
    assert what in found[0]


def test_what_grows_in_the_warm_up_alone_is_no_leak() -> None:
    warm = [replace(s, anon=s.anon - max(0, 3000 - 6 * int(s.at))) for s in hour()]
    assert [] == judges.flat(warm, must=True)


def test_a_life_that_begins_late_is_too_short_to_judge_by() -> None:
    """So the soak goes on for a while."""
    lives = [replace(s, pid=1 + (s.at > 1000) + (s.at > 2000)) for s in hour()]
    assert not judges.enough(judges.growths(lives))
    assert ["too few samples at rest to tell whether anything grows"] == judges.flat(
        lives, must=True
    )
    assert judges.enough(judges.growths(hour()))


def test_what_grows_only_under_storms_is_seen_at_rest() -> None:
    """A leak is in what a storm leaves; what it takes while it lasts is not asked for."""
    leaking = [
        replace(s, phase="storm", anon=s.anon + 9000) if s.at % 120 < 90 else s
        for s in hour(anon=1500)
    ]
    assert ["grows: RssAnon"] == [
        line.partition(",")[0][:14] for line in judges.flat(leaking, must=True)
    ]


def test_a_sample_that_could_not_ask_counts_for_nothing() -> None:
    """The daemon may be busy when it is asked what it holds."""
    some = [replace(s, objects=0, held=0) if s.at % 60 else s for s in hour(objects=800)]
    assert 1 == len(judges.flat(some, must=True))
    never = [replace(s, objects=0, held=0) for s in hour()]
    assert ["too few samples at rest to tell whether anything grows"] == (
        judges.flat(never, must=True)
    )


def test_another_process_is_another_life() -> None:
    """A short life that is larger does not make the long one grow, nor hide that it does."""
    after = [replace(s, pid=8, at=s.at + 3600, rss=90000) for s in hour()[:30]]
    assert [] == judges.flat([*hour(), *after], must=True)
    assert 1 == len(judges.flat([*hour(fds=30), *after], must=True))


def test_too_little_to_tell_is_no_proof() -> None:
    few = hour(anon=1500)[:30]
    assert [] == judges.flat(few, must=False)
    assert ["too few samples at rest to tell whether anything grows"] == judges.flat(few, must=True)
    assert [] != judges.flat([], must=True)


def test_the_slope_withstands_outliers() -> None:
    points = [(float(x), 3.0 * x) for x in range(100)]
    spoilt = [(x, 1e6 if x % 5 == 0 else y) for x, y in points]
    assert (3.0, True) == (judges.slope(points), abs(judges.slope(spoilt) - 3.0) < 1.0)


HOLDING = """
from tests.soak.inside import held

def buffers():
    return [bytes(size) for size in range(512, 1000, 16) for _ in range(7)]

held()
before = held()["bytes"]
kept = buffers()
during = held()["bytes"]
del kept
print(during - before, held()["bytes"] - before)
"""


def test_what_was_freed_is_not_held() -> None:
    """Buffers as no others before them: what malloc sets aside of them is not taken for a leak."""
    ran = subprocess.run(
        [sys.executable, "-c", HOLDING],
        env={**os.environ, **MALLOC},
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    kept, left = map(int, ran.stdout.split())
    assert 160_000 < kept
    assert left < 4096


def test_an_unconverged_end_is_told() -> None:
    good = Check(at=60.0, seconds=3.0, converged=True, found="")
    bad = Check(at=3600.0, seconds=120.0, converged=False, found="`reload` ends with 1: no")
    assert [] == judges.converges([good, good])
    assert ["not converged 120 s after all was healed, at 3600 s: `reload` ends with 1: no"] == (
        judges.converges([good, bad])
    )
    assert [] != judges.converges([])


def test_harm_is_told() -> None:
    line = "fatal: /proc/sys/vm/dsa_state <- 0: freed descriptors"
    assert ([], [f"harm: {line}"]) == (judges.harmless([]), judges.harmless([line]))


def test_the_host_answers_for_writes_of_dsatier_alone() -> None:
    """What the judge is shown: an unsafe write is dsatier's or another's."""
    host = Answerable(SimHost.host_for("dsa8").kernel)
    host.poke("/proc/sys/kernel/numa_balancing", "2\n")
    assert (1, []) == (len(host.kernel.state.harm), host.harm)
    host.write("/proc/sys/kernel/numa_balancing", "0\n", 1.0)
    host.write("/proc/sys/kernel/numa_balancing", "2\n", 1.0)
    assert ["agent"] == [harm.by for harm in host.harm]


def test_dead_children_are_told() -> None:
    resting = replace(SAMPLE, zombies=1)
    assert ["1 dead children of process 7 at 0 s"] == judges.buries([resting])
    assert [] == judges.buries([resting], hung=[7])
    assert [] == judges.buries([replace(resting, phase="storm"), SAMPLE])


def test_files_that_are_left_over_are_told() -> None:
    known = {"record.json"}
    assert [] == judges.tidy(["record.json"], known)
    assert ["left over: .record.json.12.tmp"] == judges.tidy(
        ["record.json", ".record.json.12.tmp"], known
    )


def test_silence_is_told() -> None:
    assert [] == judges.lively([(70.0, 61.0)], 120.0)
    assert ["no sign of life for 121 s of 120 s allowed, at 300 s"] == judges.lively(
        [(70.0, 61.0), (300.0, 121.0)], 120.0
    )


@pytest.mark.parametrize(
    ("profile", "code", "said", "wrong"),
    [
        ("valid", 0, "changed (converged): every step is proven", False),
        ("valid", 4, "degraded (degraded): dsa0 halted", False),
        ("valid", 0, "no-profile (unmanaged): no profile applies to this host", True),
        ("unreachable", 1, "refused (converged): blocker", False),
        ("unreachable", 0, "unchanged (converged): every step is proven", True),
        ("unreachable", 0, "no-profile (unmanaged): no profile applies to this host", True),
        ("invalid", 65, "invalid (converged): 50-soak.yaml:1:1", False),
        ("invalid", 0, "unchanged (converged): every step is proven", True),
        ("none", 0, "no-profile (unmanaged): no profile applies to this host", False),
        ("foreign", 0, "changed (converged): every step is proven", True),
        ("foreign", 3, "the daemon is not running", False),
    ],
)
def test_an_untrue_answer_is_told(profile: str, code: int, said: str, wrong: bool) -> None:
    assert wrong == bool(judges.untrue(profile, code, said))


def test_every_fault_of_the_simulation_is_among_the_acts() -> None:
    """A new fault is asked to be part of the soak."""
    meant = {
        "crash",  # the daemon is killed instead
        "disk",  # the disk is filled instead
        "hung-command",  # a write of the real program hangs instead
        "late-device",  # part of a boot
        "late-memory",  # no memory of a soak's host comes from devices
        "poisoned-block",  # the same
        "late-completion",  # it spoils memory whatever the agent does
    }
    assert KINDS.keys() - meant == set(acts.FAULTS)


def test_nothing_ends_the_daemon_when_it_is_to_live_long() -> None:
    rng = random.Random(1)
    names = {acts.chosen(rng, early=False, disk=True).name for _ in range(2000)}
    assert {act.name for act in acts.ACTS if not act.early} == names
    without = {acts.chosen(rng, early=True, disk=False).name for _ in range(2000)}
    assert {act.name for act in acts.ACTS if not act.disk} == without


def test_the_picture_shows_every_sample() -> None:
    samples = [replace(s, state="degraded" if s.at > 1800 else "converged") for s in hour()]
    drawn = picture(
        "a < title",
        samples,
        [(0.0, "storm"), (90.0, "settle"), (100.0, "rest")],
        [Check(100.0, 3.0, converged=True, found=""), Check(200.0, 120.0, False, "why & not")],
        [(50.0, "SIGKILL")],
    )
    space = "{http://www.w3.org/2000/svg}"
    root = ET.fromstring(drawn)
    lines = [line.get("points", "").split() for line in root.iter(f"{space}polyline")]
    assert [len(samples)] * 8 == [len(points) for points in lines]
    titles = [title.text for title in root.iter(f"{space}title")]
    assert {"SIGKILL", "converged", "degraded", "why & not"} == set(titles)


def test_two_soaks_do_not_write_into_one_folder(tmp_path: Path) -> None:
    with claimed(tmp_path) as log:
        log.write("an act\n")
        log.flush()
        with pytest.raises(SystemExit):
            main(["--sim", "--minutes", "0.1", "--report", str(tmp_path)])
        assert "an act\n" == (tmp_path / "acts.jsonl").read_text()
    with claimed(tmp_path) as log:
        assert "" == (tmp_path / "acts.jsonl").read_text()


@pytest.mark.parametrize(
    "disk", ["of the machine", pytest.param("of its own", marks=pytest.mark.system)]
)
def test_a_very_short_soak_goes_well(tmp_path: Path, disk: str) -> None:
    """Root gives it a disk that can be filled and made read-only."""
    assert (os.geteuid() == 0) >= (disk == "of its own")
    words = ["--sim", "--minutes", "0.1", "--seed", "11", "--report", str(tmp_path)]
    assert 0 == main(words)
    found = json.loads((tmp_path / "summary.json").read_text())
    assert ("passed", found["checks"]) == (found["verdict"], found["converged"])
    done = [json.loads(line) for line in (tmp_path / "acts.jsonl").read_text().splitlines()]
    assert sum(found["acts"].values()) == sum(one["phase"] == "storm" for one in done)
    assert ([], True) == (found["failures"], found["checks"] > 0)
    assert (tmp_path / "soak.svg").stat().st_size > 2000
