# SPDX-License-Identifier: Apache-2.0
"""Five minutes in the lab: what is typed there, and why. A table, and what is made of it."""

from __future__ import annotations

import json
import re
import shlex
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

from vm.guest import Guest
from vm.idxd import counters


@dataclass(frozen=True, slots=True)
class Step:
    """A command of the tour."""

    name: str
    """A word for pictures."""
    why: str
    """What a reader is told before it."""
    command: str
    shows: str
    """A pattern that its output has, line by line: what the reader is to see."""
    code: int = 0
    """How it ends."""


PROFILE = "/usr/share/dsatier/profiles/tpp-dsa.yaml"
TOUR = (
    Step(
        "doctor",
        "A host with two tiers and eight DSA devices that nobody has configured. Does it have what "
        "the profile needs? Nothing is written for the answer.",
        f"dsatier doctor -p {PROFILE}",
        "the profile can be reached",
    ),
    Step(
        "reload",
        "Drop the profile in, and reload. The reload comes back when every rung is proven.",
        f"cp {PROFILE} /etc/dsatier.d/50-lab.yaml\nsystemctl reload dsatier && dsatier status",
        "converged since",
    ),
    Step(
        "steps",
        "What it did, step by step, from the journal.",
        "journalctl -u dsatier -o cat | grep '\"step\"' | "
        """sed 's/.*"what": "\\([^"]*\\)".*/\\1/'""",
        "use_dsa_copy_pages = 1",
    ),
    Step(
        "pressure",
        "Have memory of the fast node grow short. The kernel moves what is cold to the slow node, "
        "and the devices copy it. Each byte is read back.",
        "squeeze",
        r"read back: right$",
    ),
    Step(
        "3 channels",
        "Fewer channels, by a second file over the first. The host comes down as far as the "
        "change needs, and climbs again.",
        "printf 'version: 1\\nengine: {kind: dsa, limit_chans: 3}\\n' >/etc/dsatier.d/60-few.yaml\n"
        "systemctl reload dsatier && sysctl vm.limit_chans vm.use_dsa_copy_pages && squeeze",
        "^vm.limit_chans = 3\nvm.use_dsa_copy_pages = 1\n(.*\n)*",
    ),
    Step(
        "unsafe",
        "The kernel refuses by itself what would corrupt memory: another number of channels while "
        "they are in use.",
        "sysctl vm.limit_chans=8",
        "Device or resource busy",
        1,
    ),
    Step(
        "drift",
        "Somebody turns a knob by hand. It is back before the next command looks.",
        "sysctl vm.use_concur_to_demote=0; sleep 3; sysctl vm.use_concur_to_demote\n"
        "dsatier status | grep counted",
        "^vm.use_concur_to_demote = 1$",
    ),
    Step(
        "unbind",
        "Now break something: unbind a device that copies, and have memory grow short again. "
        "A CPU copies, nothing is lost, and the status says which queue went.",
        "rm /etc/dsatier.d/60-few.yaml; systemctl reload dsatier\n"
        "echo dsa5 >/sys/bus/dsa/drivers/idxd/unbind; squeeze; dsatier status",
        "^.*: degraded since",
        4,
    ),
    Step(
        "clear",
        "The fault is latched: only you end it. The device is still there, so that dsatier "
        "configures it anew and climbs again.",
        "dsatier clear; dsatier wait && dsatier status | head -n 6",
        "converged since",
    ),
    Step("again", "The devices copy again.", "squeeze", r"read back: right$"),
    Step(
        "down",
        "Take it all back: rung by rung, to what the host was before.",
        "rm /etc/dsatier.d/*.yaml; systemctl reload dsatier; dsatier rollback",
        "unmanaged",
    ),
)


def player() -> bytes:
    """Return the script ``tour``, which waits for a key before each step."""
    out = ["#!/bin/bash", "# each step of the tour: why, what is typed, and what comes of it"]
    for number, step in enumerate(TOUR, 1):
        typed = "\n".join(f"\x1b[1m# {line}\x1b[0m" for line in step.command.splitlines())
        told = f"\n{number}/{len(TOUR)}  {step.why}\n{typed}"
        out += [
            f"printf '%s' {shlex.quote(told)}",
            "read -rs -p $'\\n[Enter]' key || exit 0",
            "echo",
            step.command,
        ]
    return "\n".join([*out, ""]).encode()


def judged(step: Step, output: str, code: int) -> str:
    """Return what is wrong with the end of a step, empty for nothing."""
    if code != step.code:
        return f"{step.name}: expected exit code {step.code}, found {code}:\n{output}"
    if not re.search(step.shows, output, re.MULTILINE):
        return f"{step.name}: expected {step.shows!r}, found:\n{output}"
    return ""


# -- the tour, taken -----------------------------------------------------------------

RECORD = Path(__file__).with_name("tour.json")
"""The tour as it was taken last: what ``make docs`` writes docs/lab.md and its picture from."""
INTERVAL = 0.5
"""Seconds between two looks."""
LOOK = """cd /proc/sys/vm; echo $(cat dsa_state use_dsa_copy_pages cpu_multi_copy_pages \\
    use_concur_to_demote /sys/kernel/mm/numa/demotion_enabled)
cat /sys/bus/dsa/devices/wq*.0/state | grep -c enabled || true
grep -E '^migrate_copy_(dsa|threads|cpu|failed) ' /proc/vmstat"""
RUNGS = ("", "parameters", "queues", "initialised", "engine", "tiering")
"""Those that the kernel shows, from the ground."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What kernel and devices showed at a moment."""

    at: float
    """Seconds since the tour began."""
    rung: int
    """The highest whose knobs are so, as an index of RUNGS."""
    cpu: int
    """Bytes that CPUs copied so far."""
    devices: tuple[int, ...]
    """Bytes that each device wrote so far."""


def looked(vm: Guest, at: float) -> Sample:
    """Look once."""
    knobs, queues, *lines = vm.sh(LOOK).splitlines()
    state, copies, _, parameters, demotion = knobs.split()
    holds = (parameters == "1", int(queues) > 0, state == "1", copies == "1", demotion == "true")
    rung = next((n for n in range(len(holds), 0, -1) if holds[n - 1]), 0)
    copied = {name: int(value) << 12 for name, value in map(str.split, lines)}
    devices = tuple(counters(vm, f"dsa{n}")["device"]["bytes-written"] for n in range(8))
    return Sample(round(at, 2), rung, sum(copied.values()) - copied["migrate_copy_dsa"], devices)


@contextmanager
def watched(vm: Guest, began: float) -> Iterator[list[Sample]]:
    """Look again and again meanwhile."""
    samples: list[Sample] = []
    over = Event()

    def watch() -> None:
        while not over.wait(INTERVAL):
            samples.append(looked(vm, time.monotonic() - began))

    watcher = Thread(target=watch)
    watcher.start()
    try:
        yield samples
    finally:
        over.set()
        watcher.join()


def taken(vm: Guest) -> dict[str, Any]:
    """Take the tour, and return its record. Raises ValueError with what is not as it was said."""
    steps = []
    words = 'cd /root; export HOME=/root TERM=dumb; exec 2>&1; eval "$1"'
    began = time.monotonic()
    with watched(vm, began) as samples:
        for step in TOUR:
            at = time.monotonic() - began
            ran = vm.run("bash", "-c", words, "tour", step.command, timeout=300)
            print(f"{step.name}: {time.monotonic() - began - at:.1f} s\n{ran.out}", flush=True)
            if wrong := judged(step, ran.out, ran.code):
                raise ValueError(wrong)
            kept = {"name": step.name, "command": step.command, "output": ran.out}
            steps.append({**kept, "at": round(at, 2)})
            time.sleep(3 * INTERVAL)  # so that the picture shows where the step led
    return {"release": vm.release, "steps": steps, "samples": [asdict(one) for one in samples]}


def recorded(path: Path = RECORD) -> dict[str, Any]:
    """Return the record of the tour. Raises ValueError where the tour is another by now."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if [step.command for step in TOUR] != [step["command"] for step in found["steps"]]:
        raise ValueError(f"{path}: another tour: python -m lab --tour")
    return found


def transcript() -> str:
    """Return the recorded tour as Markdown."""
    parts = []
    for step, kept in zip(TOUR, recorded()["steps"], strict=True):
        typed = "\n".join(f"# {line}" for line in step.command.splitlines())
        output = "\n".join(line.rstrip() for line in kept["output"].splitlines())
        told = textwrap.fill(f"**{step.name}.** {step.why}", 100)
        parts.append(f"{told}\n\n```console\n{typed}\n{output}\n```")
    return "\n\n".join(parts)
