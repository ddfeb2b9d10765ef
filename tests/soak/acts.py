# SPDX-License-Identifier: Apache-2.0
"""What happens to the host and to its daemon in a storm: a table with weights."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.soak import judges

if TYPE_CHECKING:
    from tests.soak.soak import Soak

VM = "/proc/sys/vm/"
BALANCING = "/proc/sys/kernel/numa_balancing"
DEMOTION = "/sys/kernel/mm/numa/demotion_enabled"
DEVICES = 8
SLOW_CPUS = range(16, 24)
STORM = 20
"""Reloads at once."""
WRITTEN = (
    *(f"{VM}{name}" for name in ("dsa_state", "use_dsa_copy_pages", "cpu_multi_copy_pages")),
    *(f"{VM}{name}" for name in ("limit_chans", "dsa_copy_threshold", "use_concur_to_demote")),
    BALANCING,
    DEMOTION,
    f"{VM}demote_scale_factor",
    "/sys/bus/dsa/drivers/idxd/bind",
    "/sys/bus/dsa/drivers/dmaengine/bind",
    "/sys/devices/system/cpu/cpu16/online",
)
"""What dsatier writes on its way."""
FAULTS = (
    "failed-init",
    "halt",
    "self-clear",
    "copy-failures",
    "vanished-queue",
    "hung-write",
    "rejected-write",
    "stuck-cpu",
    "other-writer",
    "swap-returns",
    "lost-log",
    "clock-jump",
    "pressure",
)
"""The kinds of faults that are injected, and healed. A late device comes by itself."""
MEETS = ("room", "full", "bound", "swaps", "unscanned", "ping-pong", "hot")
SHIPPED = (
    "cpu",
    "dsa",
    "dsa-huge",
    "multithread",
    "tpp-cpu",
    "tpp-dsa",
    "tpp-multithread",
    "detach",
)
GOOD = "tpp-dsa"

Details = dict[str, Any]
Asking = subprocess.Popen[str]
"""A command that runs."""


@dataclass(frozen=True, slots=True)
class Act:
    """One kind of act."""

    name: str
    weight: int
    do: Callable[[Soak, random.Random], Details]
    early: bool = False
    """It ends the daemon, or what it does is mended only by a boot."""
    disk: bool = False
    """It needs a disk of the soak's own."""


# -- the profile -----------------------------------------------------------------


def valid(soak: Soak, rng: random.Random) -> str:
    """Write a profile that is valid, and in reach of a host on which all is well."""
    which = rng.choice([name for name in SHIPPED if name in soak.profiles])
    text = soak.profiles[which]
    more = [f"drift: {{policy: {rng.choice(('repair', 'repair', 'report'))}}}"]
    if which == GOOD:
        more.append(f"engine: {{kind: dsa, dsa_copy_threshold: {rng.randint(1, 600)}}}")
    soak.put({"50-soak.yaml": text, "60-soak.yaml": "version: 1\n" + "\n".join(more) + "\n"})
    return which


def invalid(soak: Soak, rng: random.Random) -> str:
    """Write a profile that is wrong."""
    kinds = {
        "no YAML": "version: 1\nengine: {kind: dsa\n",
        "an unknown key": "version: 1\nengines: {kind: dsa}\n",
        "a wrong type": "version: 1\nengine: {kind: dsa, limit_chans: many}\n",
        "out of range": "version: 1\nengine: {kind: dsa, limit_chans: 900}\n",
        "another version": "version: 7\n",
        "a list": "- 1\n- 2\n",
        "aliases": "version: 1\na: &a [1, 2]\nb: [*a, *a]\n",
        "control characters": "version: 1\n\x00\x07\n",
        "deep": "version: " + "[" * 3000 + "\n",
        "long": "version: 1\n# " + "x" * 300_000 + "\nengine: {kind: none-such}\n",
    }
    which = rng.choice(sorted(kinds))
    soak.put({"50-soak.yaml": kinds[which]})
    return which


def unreachable(soak: Soak, rng: random.Random) -> str:
    """Write a profile that this host cannot reach."""
    queues = "{devices: 16, engines: 4, queues: 1, size: 128}"
    kinds = {
        "more devices": f"version: 1\nengine: {{kind: dsa, work_queues: {queues}}}\n",
        "no such node": "version: 1\ntiers: {slow_node: 7, cpuless: true}\n",
        "no queue file": "version: 1\nengine: {kind: dsa, work_queues: {file: /etc/none.json}}\n",
        "CPUs on the slow node": (
            "version: 1\ntiers: {cpuless: false}\ntiering: {numa_balancing: 2, "
            "demotion_enabled: true, demote_scale_factor: 1000, swap: off}\n"
        ),
    }
    which = rng.choice(sorted(kinds))
    soak.put({"50-soak.yaml": kinds[which]})
    return which


def foreign(soak: Soak, rng: random.Random) -> str:
    """Write a profile that is for other hosts."""
    soak.put({"50-soak.yaml": soak.profiles[GOOD] + "match: {hostname: [another-*]}\n"})
    return "for other hosts"


def none(soak: Soak, rng: random.Random) -> str:
    """Take all files of the profile away."""
    soak.put({})
    return "no files"


PROFILES = (valid, valid, valid, invalid, unreachable, foreign, none)


def _profile(soak: Soak, rng: random.Random) -> Details:
    write = rng.choice(PROFILES)
    return {"profile": write.__name__, "which": write(soak, rng)}


def _reload(soak: Soak, rng: random.Random) -> Details:
    details = _profile(soak, rng)
    code, said = soak.run("reload", "--timeout", "60")
    _hold_to(soak, details, {code: said})
    return {**details, "code": code, "said": said}


def _hold_to(soak: Soak, details: Details, answers: dict[int, str]) -> None:
    """Judge answers to a reload by what the files hold: whatever the host, some are never true."""
    for code, said in answers.items():
        about = judges.untrue(details["profile"], code, said)
        if about:
            soak.wrong(f"{about}: {details['which']}")


def _storm(soak: Soak, rng: random.Random) -> Details:
    """Reload many times at once."""
    details = _profile(soak, rng)
    asking = [soak.open("reload", "--timeout", "60") for _ in range(STORM)]
    answers = [soak.finish(one) for one in asking]
    _hold_to(soak, details, dict(answers))
    return {**details, "code": sorted({code for code, _ in answers}), "said": answers[0][1]}


def _hang_up(soak: Soak, rng: random.Random) -> Details:
    details = _profile(soak, rng)
    soak.service.signal(signal.SIGHUP)
    return details


def _short_reload(soak: Soak, rng: random.Random) -> Details:
    """Reload with less time than a change takes: it is turned round."""
    which = valid(soak, rng)
    seconds = rng.choice((0.05, 0.2, 0.5, 1.0))
    code, said = soak.run("reload", "--timeout", str(seconds))
    return {"which": which, "seconds": seconds, "code": code, "said": said}


# -- orders ----------------------------------------------------------------------


def _order(*words: str) -> Callable[[Soak, random.Random], Details]:
    def do(soak: Soak, rng: random.Random) -> Details:
        code, said = soak.run(*words)
        return {"code": code, "said": said}

    return do


def _verify(soak: Soak, rng: random.Random) -> Details:
    """Compare host and profile beside the daemon, where there are files to look at."""
    return _order("verify")(soak, rng) if soak.stage.files else {"said": "no files"}


def _nudges(soak: Soak, rng: random.Random) -> Details:
    asking = [soak.open("nudge") for _ in range(rng.randint(2, 10))]
    return {"code": sorted({soak.finish(one)[0] for one in asking})}


def _odd_peers(soak: Soak, rng: random.Random) -> Details:
    """Connect as no client of dsatier's does: say nothing, half a line, nonsense, or go."""
    said = (b"", b'{"command": "rel', b"nonsense\n", b'{"command": "reload"}\n', b"\xff" * 5000)
    done = []
    for _ in range(rng.randint(1, 20)):
        words = rng.choice(said)
        try:
            peer = socket.socket(socket.AF_UNIX)
            peer.connect(_control(soak.stage.root))
            peer.sendall(words)
        except OSError as error:
            done.append(str(error))
            continue
        if rng.random() < 0.5:
            peer.close()
        else:
            soak.peers.append(peer)  # until all is healed
        done.append(words[:20].decode(errors="replace"))
    return {"said": done}


def _control(root: Path) -> str:
    return str(root / "run/dsatier/control")


def _pause(soak: Soak, rng: random.Random) -> Details:
    seconds = rng.uniform(1, 8)
    soak.service.pause(seconds)
    return {"seconds": round(seconds, 1)}


# -- the host --------------------------------------------------------------------


def _fault(kind: str, **fields: Callable[[random.Random], object]) -> Callable[..., Details]:
    def do(soak: Soak, rng: random.Random) -> Details:
        fault = {"kind": kind, **{name: value(rng) for name, value in fields.items()}}
        return {"fault": fault, "said": soak.stage.inject(**fault)}

    return do


def _soon(rng: random.Random) -> float:
    return round(rng.uniform(0, 5), 2)


def _device(rng: random.Random) -> str:
    return f"dsa{rng.randrange(DEVICES)}"


def _halt(soak: Soak, rng: random.Random) -> Details:
    """Halt a device. Only a boot brings it back: the driver does not reset what is in use."""
    soak.needs_boot = True
    reset = rng.choice(("flr", "system", "software"))
    fault = {"kind": "halt", "device": _device(rng), "reset": reset, "after": _soon(rng)}
    return {"fault": fault, "said": soak.stage.inject(**fault)}


def _poke(soak: Soak, rng: random.Random) -> Details:
    """Write as another tool or an administrator would."""
    pokes: tuple[tuple[str, tuple[str, ...]], ...] = (
        (f"{VM}use_dsa_copy_pages", ("0",)),
        (f"{VM}dsa_state", ("0",)),
        (f"{VM}limit_chans", ("1", "2", "4", "7", "8")),
        (f"{VM}dsa_copy_threshold", ("1", "16", "5000")),
        (f"{VM}use_concur_to_demote", ("0", "1")),
        (f"{VM}use_concur_to_compact", ("0", "1")),
        (f"{VM}cpu_multi_copy_pages", ("0", "1")),
        (f"{VM}limit_mt_num", ("3", "4", "16")),
        (f"{VM}demote_scale_factor", ("200", "333")),
        (BALANCING, ("0", "1")),
        (DEMOTION, ("0",)),
        ("/sys/bus/dsa/drivers/idxd/unbind", tuple(f"dsa{n}" for n in range(DEVICES))),
    )
    path, texts = rng.choice(pokes)
    text = rng.choice(texts)
    return {"path": path, "text": text, "said": soak.stage.poke(path, text)}


def _cpu(soak: Soak, rng: random.Random) -> Details:
    """Bring a CPU of the slow node back."""
    path = f"/sys/devices/system/cpu/cpu{rng.choice(SLOW_CPUS)}/online"
    return {"path": path, "said": soak.stage.poke(path, "1")}


def _fill(soak: Soak, rng: random.Random) -> Details:
    return {"said": soak.disk.fill()}


def _protect(soak: Soak, rng: random.Random) -> Details:
    return {"said": soak.disk.protect()}


def _mend(soak: Soak, rng: random.Random) -> Details:
    soak.disk.mend()
    return {}


# -- ends ------------------------------------------------------------------------


def _restart(soak: Soak, rng: random.Random) -> Details:
    return soak.restart(signal.SIGTERM)


def _kill(soak: Soak, rng: random.Random) -> Details:
    return soak.restart(signal.SIGKILL)


def _kill_in_change(soak: Soak, rng: random.Random) -> Details:
    """Kill it in the middle of a change."""
    which = valid(soak, rng)
    asking = soak.open("reload", "--timeout", "60")
    time.sleep(rng.choice((0.03, 0.1, 0.3, 1.0, 2.0)))
    details = soak.restart(rng.choice((signal.SIGKILL, signal.SIGTERM)))
    code, said = soak.finish(asking)
    return {"which": which, "code": code, "said": said, **details}


def _boot(soak: Soak, rng: random.Random) -> Details:
    late = {"kind": "late-device", "device": _device(rng), "after": round(rng.uniform(2, 30))}
    return soak.reboot(orderly=rng.random() < 0.5, late=late if rng.random() < 0.5 else None)


ACTS = (
    Act("reload", 12, _reload),
    Act("reload storm", 3, _storm),
    Act("SIGHUP", 3, _hang_up),
    Act("short reload", 3, _short_reload),
    Act("clear", 4, _order("clear")),
    Act("rollback", 2, _order("rollback")),
    Act("detach", 1, _order("detach")),
    Act("status", 2, _order("status")),
    Act("verify", 1, _verify),
    Act("apply beside it", 1, _order("reconcile")),
    Act("nudges", 2, _nudges),
    Act("odd peers", 2, _odd_peers),
    Act("pause", 1, _pause),
    Act("poke", 12, _poke),
    Act("CPU online", 3, _cpu),
    Act("self-clear", 2, _fault("self-clear", after=_soon)),
    Act("copy failures", 1, _fault("copy-failures", every=_soon, times=lambda r: 3)),
    Act(
        "vanished queue",
        2,
        _fault("vanished-queue", queue=lambda r: f"wq{r.randrange(DEVICES)}.0", after=_soon),
    ),
    Act("failed init", 2, _fault("failed-init", channels=lambda r: r.randrange(8))),
    Act(
        "rejected write",
        4,
        _fault(
            "rejected-write",
            path=lambda r: r.choice(WRITTEN),
            errno=lambda r: r.choice(("EIO", "EBUSY", "ENODEV", "ENOMEM")),
        ),
    ),
    Act("stuck CPU", 1, _fault("stuck-cpu", cpu=lambda r: r.choice(SLOW_CPUS), times=lambda r: 2)),
    Act("swap returns", 2, _fault("swap-returns", after=_soon)),
    Act("lost log", 2, _fault("lost-log", after=_soon)),
    Act("pressure", 2, _fault("pressure", meets=lambda r: r.choice(MEETS))),
    Act("clock jump", 1, _fault("clock-jump", by=lambda r: r.choice((-86400.0, 3600.0)))),
    Act(
        "other writer",
        2,
        _fault(
            "other-writer",
            path=lambda r: f"{VM}dsa_copy_threshold",
            text=lambda r: "77\n",
            every=lambda r: r.uniform(1, 6),
            times=lambda r: 8,
        ),
    ),
    Act("full disk", 1, _fill, disk=True),
    Act("read-only disk", 1, _protect, disk=True),
    Act("disk mended", 6, _mend, disk=True),
    Act("restart", 2, _restart, early=True),
    Act("kill", 2, _kill, early=True),
    Act("end in a change", 3, _kill_in_change, early=True),
    Act("boot", 2, _boot, early=True),
    Act("halt", 3, _halt, early=True),
    Act(
        "hung write",
        1,
        _fault(
            "hung-write",
            path=lambda r: r.choice(WRITTEN),
            performed=lambda r: r.random() < 0.5,
        ),
        early=True,
    ),
)
"""In the weights of one storm: about one act in ten ends the daemon while that is allowed."""


def chosen(rng: random.Random, *, early: bool, disk: bool) -> Act:
    """Draw an act."""
    open_to = [a for a in ACTS if (early or not a.early) and (disk or not a.disk)]
    return rng.choices(open_to, [act.weight for act in open_to])[0]
