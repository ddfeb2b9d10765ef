# SPDX-License-Identifier: Apache-2.0
"""The benchmark of page copies, without a kernel: words, knobs, table and picture.

test_agent.py runs it in a guest.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from copybench import cases, report
from copybench.__main__ import main
from copybench.cases import MIXED, Case, Engine, Unfit
from copybench.knobs import THP, VM, Knobs, Refused, borrowed
from copybench.measure import unfit

BENCH = Path(__file__).resolve().parents[2] / "kernel-src/bench"
RECORDED = Path(__file__).with_name("bench.json")
"""What it wrote in a guest."""
SVG = "{http://www.w3.org/2000/svg}"

# -- words ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word", ["", "gpu", "cpu:2", "plain:1", "threads", "threads:0", "threads:33", "dsa:9", "dsa:x"]
)
def test_engines_that_are_none(word: str) -> None:
    with pytest.raises(Unfit, match=r"^engine"):
        cases.engine(word)


@pytest.mark.parametrize("word", ["plain", "cpu", "threads:1", "threads:32", "dsa:8"])
def test_engines_read_as_they_are_written(word: str) -> None:
    assert word == str(cases.engine(word))


@pytest.mark.parametrize("word", ["", "4", "2k", "8k", "3m", "4m", "12k", "1g", "mix"])
def test_sizes_that_are_none(word: str) -> None:
    with pytest.raises(Unfit, match=r"^size"):
        cases.size(word)


def test_all_cases_by_size_and_list_and_what_does_not_fit() -> None:
    engines = [Engine("plain"), Engine("threads", 3)]
    found, left_out = cases.matrix(engines, [4096, 2 << 20, MIXED], [1, 512], 128)
    assert [("1 x 4 KiB", 4096), ("512 x 4 KiB", 2 << 20), ("1 x 2 MiB", 2 << 20)] == [
        (case.row, case.bytes) for case in found[:-2:2]
    ]
    assert ["1,000 x 4 KiB + 24 x 2 MiB"] * 2 == [case.row for case in found[-2:]]
    assert ["512 x 2 MiB: 1024 MiB, more than --mib 128"] == left_out
    assert engines * 4 == [case.engine for case in found]


@pytest.mark.parametrize(
    "words", [["--mib", "0"], ["--lists", "0"], ["--sizes", "5k"], ["--threshold", "0"], ["--what"]]
)
def test_arguments_that_make_no_sense_are_told(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert 2 == ended.value.code


# -- the host ------------------------------------------------------------------------


class Host(Knobs):
    """Knobs in memory, which keep what was written in order and refuse some values."""

    def __init__(self, files: dict[str, str], refused: dict[str, str] | None = None) -> None:
        super().__init__(Path("/nowhere"))
        self.files = dict(files)
        self.refused = refused or {}
        self.written: list[tuple[str, str]] = []

    def read(self, path: str) -> str:
        if path not in self.files:
            raise Refused(f"/{path}: no such file")
        return self.files[path]

    def there(self, path: str) -> bool:
        return path in self.files

    def _put(self, path: str, text: str) -> None:
        if self.refused.get(path) == text:
            raise Refused(f"/{path}: {text!r}: no such device")
        self.files[path] = text
        self.written.append((path.rpartition("/")[2], text))


OURS = {
    f"{VM}/{name}": value
    for name, value in {
        "use_dsa_copy_pages": "0",
        "dsa_state": "0",
        "cpu_multi_copy_pages": "0",
        "migrate_batch_reasons": "257",
        "migrate_batch_usecs": "4000",
        "migrate_batch_pages": "13312",
        "migrate_copy_calibrate": "1",
        "limit_mt_num": "4",
        "cpu_multi_copy_threshold": "256",
        "limit_chans": "8",
        "dsa_copy_threshold": "16",
    }.items()
}


@pytest.mark.parametrize("word", ["plain", "cpu", "threads:7", "dsa:3"])
def test_each_engine_alone_and_everything_back(word: str) -> None:
    host = Host(OURS)
    engine = cases.engine(word)
    host.turn_to(engine, usecs=0, threshold=1)
    on = {
        name
        for name in ("use_dsa_copy_pages", "cpu_multi_copy_pages")
        if host.files[f"{VM}/{name}"] == "1"
    }
    assert {"threads": {"cpu_multi_copy_pages"}, "dsa": {"use_dsa_copy_pages"}}.get(
        engine.kind, set()
    ) == on
    # the bits of others stay
    assert 257 + 8 * (engine.kind != "plain") == int(host.files[f"{VM}/migrate_batch_reasons"])
    assert [] == host.restore()
    assert OURS == host.files


def test_an_engine_goes_off_before_what_it_rests_on() -> None:
    host = Host(OURS | {f"{VM}/use_dsa_copy_pages": "1", f"{VM}/dsa_state": "1"})
    before = dict(host.files)
    host.turn_to(Engine("dsa", 2), usecs=4000, threshold=16)
    assert [("use_dsa_copy_pages", "0"), ("dsa_state", "0")] == host.written[:2]
    assert [("limit_chans", "2"), ("dsa_state", "1"), ("use_dsa_copy_pages", "1")] == host.written[
        -3:
    ]
    host.written.clear()
    assert [] == host.restore()
    assert before == host.files
    order = [name for name, _ in host.written]
    assert order[:2] == ["use_dsa_copy_pages", "dsa_state"]
    assert order[-2:] == ["dsa_state", "use_dsa_copy_pages"]


def test_what_does_not_go_back_is_told_and_the_rest_goes_back() -> None:
    host = Host(OURS, refused={f"{VM}/limit_mt_num": "4"})
    host.turn_to(Engine("threads", 2), usecs=0, threshold=1)
    assert ["/proc/sys/vm/limit_mt_num: '4': no such device"] == host.restore()
    assert OURS | {f"{VM}/limit_mt_num": "2"} == host.files


def test_a_device_that_is_not_there_is_told() -> None:
    host = Host(OURS, refused={f"{VM}/dsa_state": "1"})
    with pytest.raises(Refused, match="/proc/sys/vm/dsa_state: '1': no such device"):
        host.turn_to(Engine("dsa", 1), usecs=0, threshold=1)
    assert [] == host.restore()
    assert OURS == host.files


def tree(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


SIZES = {
    f"{THP}/enabled": "always [madvise] never\n",
    f"{THP}/hugepages-64kB/enabled": "always inherit madvise [never]\n",
    f"{THP}/hugepages-2048kB/enabled": "always [inherit] madvise never\n",
}


def test_memory_comes_in_folios_of_one_size_alone(tmp_path: Path) -> None:
    tree(tmp_path, SIZES | {f"{THP}/hugepages-8kB/shmem_enabled": "[never]\n"})
    with borrowed(tmp_path) as knobs:
        knobs.fit_for(Case(Engine("plain"), 65536, 1))
        now = [(tmp_path / THP / f"hugepages-{kib}kB/enabled").read_text() for kib in (64, 2048)]
        assert ["madvise\n", "never\n"] == now
        with pytest.raises(Refused, match="expected hugepages-128kB"):
            knobs.fit_for(Case(Engine("plain"), 131072, 1))
    after = {path: (tmp_path / path).read_text() for path in SIZES}
    assert {
        path: re.findall(r"\[(.*)\]", text)[0] + "\n" for path, text in SIZES.items()
    } == after | {f"{THP}/enabled": "madvise\n"}


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_knobs_go_back_whoever_ends_it(tmp_path: Path, sign: signal.Signals) -> None:
    """A signal while it measures, and another while it puts things back."""
    tree(tmp_path, {f"{VM}/limit_mt_num": "4\n"})
    script = """if True:
        import os, signal, sys, time
        from pathlib import Path
        from copybench.__main__ import Ended, _ended
        from copybench.knobs import ENDS, borrowed
        for sign in ENDS:
            signal.signal(sign, _ended)
        try:
            with borrowed(Path(sys.argv[1])) as knobs:
                knobs.sysctl("limit_mt_num", 2)
                print("turned", flush=True)
                time.sleep(60)
        except Ended as error:
            print(error, flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", script, tmp_path],
        env={**os.environ, "PYTHONPATH": str(BENCH)},
        stdout=subprocess.PIPE,
        text=True,
    ) as ran:
        assert ran.stdout is not None
        assert "turned\n" == ran.stdout.readline()
        assert "2\n" == (tmp_path / VM / "limit_mt_num").read_text()
        ran.send_signal(sign)
        ran.send_signal(signal.SIGTERM)
        assert ran.stdout.read().strip() in (sign.name, "SIGTERM")
    assert 0 == ran.returncode
    assert "4\n" == (tmp_path / VM / "limit_mt_num").read_text()


NODES = {
    f"sys/devices/system/node/node{n}/meminfo": f"Node {n} MemTotal:  1048576 kB\n" for n in (0, 1)
}


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({}, "node 0 is not there: expected two nodes with memory"),
        (dict([*NODES.items()][:1]), "node 1 is not there: expected two nodes with memory"),
        (
            NODES | {"sys/devices/system/node/node1/meminfo": "Node 1 MemTotal: 0 kB\n"},
            "node 1 has no memory: expected two nodes with memory",
        ),
        (NODES, "/proc/kpageflags is not there: expected a kernel with PROC_PAGE_MONITOR"),
        (NODES | {"proc/kpageflags": ""}, ""),
    ],
)
def test_hosts_that_are_not_fit(tmp_path: Path, files: dict[str, str], why: str) -> None:
    assert why == unfit(tree(tmp_path, files))


# -- what came out -------------------------------------------------------------------


def test_a_table_from_what_was_recorded(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "rates.svg"
    assert 0 == main(["--from", str(RECORDED), "--svg", str(picture)])
    document = json.loads(RECORDED.read_text())
    results = document["results"]
    told = capsys.readouterr().out.splitlines()
    names = list(dict.fromkeys(one["engine"] for one in results))
    heads = list(dict.fromkeys(one["row"] for one in results))
    assert f"| GB/s | {' | '.join(names)} |" in told
    for head in heads:
        rates = [f"{one['bytes'] / one['ns']:.3g}" for one in results if one["row"] == head]
        assert f"| {head} | {' | '.join(rates)} |" in told
    widths = {line.count("|") for line in told if line.startswith("|") and "p50" in line}
    detail = [line for line in told if line.count("|") in widths]
    assert len(results) + 2 == len(detail)

    drawn = ET.fromstring(picture.read_text())
    bars = [rect for rect in drawn.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    assert len(results) == len(bars)
    top = max(one["bytes"] / one["ns"] for one in results)
    for one, bar in zip(results, bars, strict=True):
        share = one["bytes"] / one["ns"] / top
        assert abs(float(bar.get("height", "nan")) - 260 * share) < 0.1
        assert float(bar.get("y", "nan")) >= 0


def test_what_was_not_moved_and_who_copied_is_told() -> None:
    one = {
        "row": "1 x 2 MiB",
        "engine": "threads:4",
        "bytes": 4 << 20,
        "ns": 1 << 20,
        "user_ns": 1 << 19,
        "system_ns": 1 << 19,
        "host_busy_ns": 4 << 20,
        "latency": [[0, 50, 1000], [1, 50, 3000]],
        "copied": {"threads": 512, "cpu": 512},
    }
    assert (4.0, 3.0, 1.0, 0.25) == (
        report.rate(one),
        report.latency(one, 50),
        report.cpu(one),
        report.own_cpu(one),
    )
    assert "50 %" == report.by_engine(one)
    assert "" == report.by_engine(one | {"engine": "plain"})


@pytest.mark.parametrize("text", ["", "[]", '{"format": 0}'])
def test_documents_that_are_none(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "document.json"
    file.write_text(text)
    assert 4 == main(["--from", str(file)])
    assert f"bench: {file}: " in capsys.readouterr().err


def test_a_defect_of_the_kernel_is_no_success(tmp_path: Path) -> None:
    document = json.loads(RECORDED.read_text())
    document["results"][-1]["wrong"] = 1
    file = tmp_path / "document.json"
    file.write_text(json.dumps(document))
    assert 1 == main(["--from", str(file)])
