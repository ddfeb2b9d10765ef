# SPDX-License-Identifier: Apache-2.0
"""What is spoilt, and who reads it: a case is some files and the words of one command."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from io import StringIO
from random import Random

from dsatier.cli.main import main
from dsatier.sim import spec
from tests.fuzz import spoil
from tests.support.running import PROFILES

HERE = "%"
"""Stands for the case's folder, in words and in texts."""
SIM = ("--host", "sim:dsa8")


@dataclass(frozen=True, slots=True)
class Case:
    """Files by name, and the words of a command."""

    files: dict[str, bytes]
    words: tuple[str, ...]


Kind = Callable[[Random], Case]


def profile(random: Random) -> Case:
    """A profile, read by each verb that takes one; sometimes one of a folder."""
    source = random.choice(sorted(PROFILES.glob("*.yaml"))).read_bytes()
    file = spoil.data(random, source)
    if random.random() < 0.2:
        other = random.choice(sorted(PROFILES.glob("*.yaml"))).read_bytes()
        return Case({"d/10.yaml": other, "d/20.yaml": file}, ("check", f"{HERE}/d"))
    verb = random.choice(("check", "check", "plan", "apply", "verify", "doctor", "cat-config"))
    words = ("check",) if verb == "check" else (verb, *SIM, "-p")
    return Case({"p.yaml": file}, (*words, f"{HERE}/p.yaml"))


@cache
def _said(*words: str) -> str:
    out = StringIO()
    with redirect_stdout(out), redirect_stderr(StringIO()):
        main(list(words))
    return out.getvalue()


@cache
def _facts(host: str) -> str:
    return _said("facts", "--host", f"sim:{host}", "--json")


def _host_name(random: Random) -> str:
    return random.choice(spec.shipped())


def _profile_name(random: Random) -> str:
    return str(random.choice(sorted(PROFILES.glob("*.yaml"))))


def facts(random: Random) -> Case:
    """Facts of a host, for offline planning."""
    file = spoil.document(random, _facts(_host_name(random)))
    verb = random.choice(("plan", "doctor"))
    more = random.choice(((), ("--json",)))
    words = (verb, "--facts", f"{HERE}/facts.json", "-p", _profile_name(random), *more)
    return Case({"facts.json": file}, words)


def queues(random: Random) -> Case:
    """A file of accel-config, named by a profile."""
    file = spoil.document(random, QUEUES)
    text = f"version: 1\nengine: {{kind: dsa, work_queues: {{file: {HERE}/queues.json}}}}\n"
    words = ("plan", "--facts", f"{HERE}/facts.json", "-p", f"{HERE}/p.yaml")
    named = {"queues.json": file, "p.yaml": text.encode(), "facts.json": _facts("dsa8").encode()}
    return Case(named, words)


QUEUES = json.dumps(
    [
        {
            "dev": "dsa0",
            "token_limit": 0,
            "groups": [
                {
                    "dev": "group0.0",
                    "tokens_reserved": 0,
                    "use_token_limit": 0,
                    "tokens_allowed": 8,
                    "grouped_workqueues": [
                        {
                            "dev": "wq0.0",
                            "mode": "dedicated",
                            "size": 16,
                            "group_id": 0,
                            "priority": 10,
                            "block_on_fault": 0,
                            "type": "kernel",
                            "name": "dmaengine",
                            "driver_name": "dmaengine",
                            "threshold": 0,
                        }
                    ],
                    "grouped_engines": [{"dev": "engine0.0", "group_id": 0}],
                }
            ],
        }
    ]
)


def plan(random: Random) -> Case:
    """A plan that was kept as a file."""
    made = _said("plan", *SIM, "-p", _profile_name(random), "--json")
    return Case(
        {"plan.json": spoil.document(random, made)}, ("apply", *SIM, "--plan", f"{HERE}/plan.json")
    )


def host(random: Random) -> Case:
    """The description of a simulated host."""
    file = spoil.data(random, spec.shipped_text(_host_name(random)).encode())
    verb = random.choice(("facts", "plan", "apply"))
    more = () if verb == "facts" else ("-p", _profile_name(random))
    return Case({"host.yaml": file}, (verb, "--host", f"sim:{HERE}/host.yaml", *more))


@cache
def _state(profile_name: str) -> str:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        file = f"{folder}/state.json"
        _said("apply", *SIM, "--sim-state", file, "-p", profile_name)
        with open(file, encoding="utf-8") as stream:
            return stream.read()


@cache
def _reached() -> tuple[str, ...]:
    """Return the profiles that leave files on the host: those that it can have."""
    names = map(str, sorted(PROFILES.glob("*.yaml")))
    return tuple(name for name in names if json.loads(_state(name))["state"]["files"])


VERBS = ("facts", "plan", "apply", "reconcile", "verify", "doctor", "status", "history")
AWAY = ("rollback", "clear", "detach")


def _on_state(random: Random, kept: bytes, profile_name: str) -> Case:
    verb = random.choice((*VERBS, *AWAY))
    takes = ("plan", "apply", "reconcile", "verify", "doctor")
    more = ("-p", profile_name) if verb in takes else ()
    words = (verb, *SIM, "--sim-state", f"{HERE}/state.json", *more)
    return Case({"state.json": kept}, words)


def state(random: Random) -> Case:
    """The kept state of a simulated host."""
    name = _profile_name(random)
    return _on_state(random, spoil.document(random, _state(name)), name)


def own(random: Random) -> Case:
    """A file of dsatier's own: journal, originals, record, status, history."""
    name = random.choice(_reached())
    whole = json.loads(_state(name))
    files = whole["state"]["files"]
    path = random.choice(sorted(files))
    kept = files[path]
    if random.random() < 0.5 and kept[:1] in "{[":
        try:
            files[path] = json.dumps(spoil.value(random, json.loads(kept)))
        except ValueError:
            files[path] = spoil.text(random, kept)
    else:
        files[path] = spoil.text(random, kept)
    return _on_state(random, json.dumps(whole).encode(), name)


KINDS: dict[str, Kind] = {
    kind.__name__: kind for kind in (profile, facts, queues, plan, host, state, own)
}
