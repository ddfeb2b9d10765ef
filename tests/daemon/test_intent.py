# SPDX-License-Identifier: Apache-2.0
"""What the drop-ins ask of a host, kept as text and read again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsatier.apply import wanted
from dsatier.base.problem import Invalid
from dsatier.facts.model import Facts
from dsatier.facts.observe.observer import observe
from dsatier.host.files import FileHost
from dsatier.host.port import HostError
from dsatier.profile.dropins import read_named
from dsatier.sim.host import SimHost

FOLDER = "/etc/dsatier.d"
WITH_FILE = "version: 1\nengine: {kind: dsa, work_queues: {file: /etc/wq.json}}\n"
NODE_TWO = "version: 1\ntiers: {slow_node: 2}\n"


def host(**texts: str) -> SimHost:
    """Return a host with drop-ins: ``a="..."`` is /etc/dsatier.d/a.yaml."""
    found = SimHost.host_for("dsa2")
    for name, text in texts.items():
        found.keep(f"{FOLDER}/{name}.yaml", text)
    return found


def facts() -> Facts:
    return observe(SimHost.host_for("dsa2"))


def test_no_drop_in_asks_for_nothing() -> None:
    found = wanted.read(host(), facts())
    assert (None, (), (), (), None) == (
        found.profile,
        found.files,
        found.skipped,
        found.sources,
        found.queues,
    )


def test_what_was_kept_is_read_again_as_it_was() -> None:
    sim = host(
        a=WITH_FILE,
        b="version: 1\nmatch: {hostname: [db*]}\nengine: {kind: cpu}\n",
        c="version: 1\n# ünd \U0001f600\nengine: {kind: dsa, limit_chans: 4}\n",
    )
    sim.keep("/etc/wq.json", "[ ]\n")
    found = wanted.read(sim, facts())
    assert ("[ ]\n", "[ ]\n") == (found.queues, found.reads("/etc/wq.json"))
    assert (f"{FOLDER}/a.yaml", f"{FOLDER}/c.yaml") == found.files
    assert [f"{FOLDER}/b.yaml"] == [one.path for one in found.skipped]
    assert found == wanted.reread(wanted.text(found), facts())

    renamed = wanted.reread(wanted.text(found), replace(facts(), hostname="db7"))
    assert 3 == len(renamed.files)
    assert found.digest != renamed.digest


def test_a_queue_file_is_read_once() -> None:
    sim = host(a=WITH_FILE)
    missing = wanted.read(sim, facts())
    assert None is missing.queues
    with pytest.raises(HostError, match=r"/etc/wq\.json: no such file"):
        missing.reads("/etc/wq.json")

    sim.keep("/etc/wq.json", "[1]")
    kept = wanted.text(wanted.read(sim, facts()))
    sim.keep("/etc/wq.json", "[2]")
    assert "[1]" == wanted.reread(kept, facts()).queues
    # another file, the same profile
    assert missing.digest == wanted.read(sim, facts()).digest


def test_a_queue_file_that_cannot_be_read_keeps_its_reason(tmp_path: Path) -> None:
    """The daemon says of it what a single run does."""
    for folder in ("etc/dsatier.d", "proc", "sys"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "etc/dsatier.d/a.yaml").write_text(WITH_FILE, encoding="utf-8")
    queues = tmp_path / "etc/wq.json"
    queues.write_text("[ ]\n", encoding="utf-8")
    queues.chmod(0o666)
    found = wanted.read(FileHost(str(tmp_path)), facts())
    with pytest.raises(HostError) as told:
        read_named(FileHost(str(tmp_path)), "/etc/wq.json")
    with pytest.raises(HostError) as kept:
        found.reads("/etc/wq.json")
    assert str(kept.value) == str(told.value)
    assert "everybody may write it" in str(kept.value)
    queues.chmod(0o600)
    assert not wanted.is_current(found, FileHost(str(tmp_path)), facts())


FOR_OTHERS = "version: 1\nmatch: {hostname: [db*]}\nengine: {kind: cpu}\n"
FOR_IT = "version: 1\nmatch: {hostname: [dsa*], numa: {nodes: 2}}\n"


def test_files_that_say_the_same_make_the_same() -> None:
    sim = host(a=FOR_OTHERS, b=FOR_IT, c=WITH_FILE)
    found = wanted.read(sim, facts())
    assert wanted.is_current(found, sim, facts())
    assert found == wanted.read(sim, facts())


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (f"{FOLDER}/c.yaml", WITH_FILE + "# another text, the same profile\n"),
        (f"{FOLDER}/d.yaml", "version: 1\n"),
        (f"{FOLDER}/b.yaml", ""),
        ("/run/dsatier.d/a.yaml", "masked"),
        ("/etc/wq.json", "[2]"),
    ],
)
def test_files_that_say_something_else_are_read_anew(path: str, text: str) -> None:
    sim = host(a=FOR_OTHERS, b=FOR_IT, c=WITH_FILE)
    sim.keep("/etc/wq.json", "[1]")
    found = wanted.read(sim, facts())
    sim.keep(path, text)
    # what another file masks has no say
    assert (text == "masked") == wanted.is_current(found, sim, facts())


def test_files_that_go_are_missed() -> None:
    sim = host(a=FOR_IT, b=WITH_FILE)
    found = wanted.read(sim, facts())
    sim.drop(f"{FOLDER}/b.yaml")
    assert not wanted.is_current(found, sim, facts())


@pytest.mark.parametrize(
    "changed",
    [{"hostname": "db7"}, {"hostname": "web"}, {"nodes": facts().nodes[:1]}],
)
def test_a_host_that_is_another_is_matched_anew(changed: dict[str, Any]) -> None:
    """Also where the same files apply for another reason: the words tell what was found."""
    sim = host(a=FOR_OTHERS, b=FOR_IT)
    found = wanted.read(sim, facts())
    now = replace(facts(), **changed)
    assert (True, False) == (found.is_for(facts()), found.is_for(now))
    assert not wanted.is_current(found, sim, now)


def test_what_is_wrong_has_its_place() -> None:
    with pytest.raises(Invalid, match=rf"{FOLDER}/a\.yaml:2:1"):
        wanted.read(host(a="version: 1\nengin: {kind: cpu}\n"), facts())


@pytest.mark.parametrize(
    "kept",
    [
        "",
        "{",
        "[]",
        "{}",
        "null",
        '{"sources": [["a"]], "queues": null}',
        '{"sources": 5, "queues": null}',
        '{"sources": []}',
        '{"sources": [["/a.yaml", "version: 9"]], "queues": null}',
    ],
)
def test_a_kept_text_that_is_none(kept: str) -> None:
    """It raises what the daemon expects: it starts without it."""
    with pytest.raises((Invalid, ValueError, LookupError, TypeError)):
        wanted.reread(kept, facts())


def test_the_kept_text_is_json_of_a_version() -> None:
    whole = json.loads(wanted.text(wanted.read(host(a=NODE_TWO), facts())))
    assert {
        "schema_version": 1,
        "sources": [[f"{FOLDER}/a.yaml", NODE_TWO]],
        "queues": None,
    } == whole
