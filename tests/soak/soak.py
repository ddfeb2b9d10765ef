# SPDX-License-Identifier: Apache-2.0
"""A daemon's life under storms: each ends in a heal of everything, convergence and some rest."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from tests.soak import acts, judges
from tests.soak.judges import Check, Sample
from tests.soak.service import MARK, WATCHDOG, Service, family, kill, marked, measured
from tests.soak.stage import Disk, SimStage, Stage, TreeStage

REPOSITORY = Path(__file__).resolve().parents[2]
STORM, REST = 90.0, 40.0
"""Seconds of each, where there is time enough."""
PATIENCE = 120.0
"""Seconds in which a healed host must converge."""
EARLY = 1 / 3
"""The part of the soak in which the daemon is ended and the host booted."""
LONG = 50.0
"""Minutes of a soak from which on it must tell whether anything grows."""
MORE = 1200.0
"""Seconds that it may go on for that."""
SAMPLING = 5.0
TELLING = 30.0
ASKING = 240.0
"""Seconds that a command may take: more than the daemon gives it."""
KEPT = frozenset(
    {"record.json", "originals.json", "accepted.json", "tally.json", "history", "step"}
)
"""What may be in /var/lib/dsatier while the host is at rest."""
Clock = Callable[[], float]


class Soak:
    """One soak. ``report`` is a folder that takes what was seen, ``log`` its list of acts."""

    def __init__(
        self,
        *,
        tree: bool,
        host: str,
        minutes: float,
        seed: int,
        report: Path,
        log: TextIO,
        work: Path,
    ) -> None:
        self._minutes, self._report, self._work = minutes, report, work
        self.seed, self.host, self.tree = seed, host, tree
        self._rng = random.Random(seed)
        began = time.monotonic()
        self.clock: Clock = lambda: time.monotonic() - began
        self._mark = f"{os.getpid()}-{seed}"
        self._environment = frozen(work)
        self.profiles = {
            path.stem: path.read_text(encoding="utf-8")
            for path in sorted((work / "profiles").glob("*.yaml"))
        }
        root = work / "host"
        self.stage: Stage = (
            TreeStage(root, host, self._environment, work)
            if tree
            else SimStage(root, host, self.run)
        )
        for folder in ("etc/dsatier.d", "run/dsatier", "usr/lib/dsatier.d"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        self.disk = Disk(root)
        self.service = Service(
            root,
            self.stage.words,
            {**self._environment, MARK: self._mark},
            report / "daemon.log",
            self.clock,
        )
        self._log = log
        self.phase = "start"
        self.needs_boot = False
        """Something is broken that only a boot mends."""
        self.peers: list[socket.socket] = []
        """Those who hold a connection to the daemon and say nothing."""
        self.counts: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.samples: list[Sample] = []
        self.checks: list[Check] = []
        self.phases: list[tuple[float, str]] = []
        self.ends: list[tuple[float, str]] = []
        """When and how daemons ended."""
        self.failures: list[str] = []
        self._harm: list[str] = []
        self._hung: set[int] = set()
        self._over = threading.Event()
        self._told = 0.0

    # -- what acts use -------------------------------------------------------

    def put(self, files: dict[str, str]) -> None:
        """Let the profile be these files."""
        folder = self.stage.root / "etc/dsatier.d"
        for path in folder.iterdir():
            path.unlink()
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")

    def open(self, *words: str) -> acts.Asking:
        """Start a dsatier command on the host."""
        return subprocess.Popen(
            [sys.executable, "-m", "dsatier", words[0], "--root", str(self.stage.root), *words[1:]]
            if words[0] not in ("status", "verify", "reconcile")
            else [sys.executable, "-m", "dsatier", *words, "--root", str(self.stage.root)],
            env=self._environment,
            cwd=self._work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def finish(self, asking: acts.Asking) -> tuple[int, str]:
        """Return how a command ended, and what it said."""
        try:
            said, _ = asking.communicate(timeout=ASKING)
        except subprocess.TimeoutExpired:
            asking.kill()
            asking.communicate()
            words = " ".join(map(str, asking.args[2:]))  # type: ignore[index]
            self.wrong(f"no answer in {ASKING:g} s: {words}")
            return -1, "killed: it took too long"
        if "Traceback" in said:
            self.wrong(f"a command broke: {said[-2000:]}")
        return asking.returncode, said.strip()

    def run(self, *words: str) -> tuple[int, str]:
        """Run a dsatier command on the host; return its exit code and what it said."""
        return self.finish(self.open(*words))

    def wrong(self, what: str) -> None:
        """Note what must not be."""
        self.failures.append(f"{self.clock():.0f} s: {what}")
        self._note("WRONG", {"what": what}, 0.0)

    def restart(self, number: int) -> dict[str, Any]:
        """End the daemon by a signal and start another."""
        how = signal.Signals(number).name
        code = self._end(number)
        if number == signal.SIGTERM and code != 0:
            self.wrong(f"ended by {how} the daemon's exit code is {code}")
        return {"signal": how, "code": code, **self._begin()}

    def reboot(self, *, orderly: bool, late: dict[str, Any] | None = None) -> dict[str, Any]:
        """Boot the host: its processes are gone, and what is in memory. One device may be late."""
        how = "boot" if orderly else "power cut"
        children = family(self.service.pid, deep=True) if self.service.pid else []
        code = self._end(signal.SIGTERM if orderly else signal.SIGKILL, how)
        kill([*children, *marked(self._mark)])
        run = self.stage.root / "run/dsatier"
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir(exist_ok=True)
        if self.stage.files:  # another kernel has no faults of the one before
            self.stage.heal("late-device")
            if late is not None:
                self.stage.inject(**late)
        self.stage.reboot()
        self.needs_boot = False
        return {"how": how, "late": late, "code": code, **self._begin()}

    # -- its life ------------------------------------------------------------

    def life(self) -> None:
        """Live through it all."""
        sampler = threading.Thread(target=self._sample_on, daemon=True)
        try:
            self._begin()
            sampler.start()
            whole = self._minutes * 60
            storm, rest = min(STORM, whole / 4), min(REST, whole / 8)
            while (left := whole - self.clock()) > 0 or self._goes_on(-left):
                self._storm(min(storm, max(1.0, left)) if left > 0 else storm, whole)
                self._settle()
                self._rest(rest)
            self._last()
        except BaseException as broken:
            self.failures.append(f"the soak did not come to its end: {broken!r}")
            raise
        finally:
            self._over.set()
            if sampler.is_alive():
                sampler.join(SAMPLING * 2)
            self.close()

    def _goes_on(self, longer: float) -> bool:
        """Tell whether it takes longer than it was given: its last boot was late.

        dsatier may ask for one at any time, and a life after it is to be long enough to judge by.
        """
        must = self._minutes >= LONG and longer < MORE
        return must and not judges.enough(judges.growths(self.samples))

    def _storm(self, seconds: float, whole: float) -> None:
        self._enter("storm")
        until = self.clock() + seconds
        while self.clock() < until:
            early = self.clock() < whole * EARLY
            act = acts.chosen(self._rng, early=early, disk=self.disk.own)
            began = self.clock()
            details = act.do(self, self._rng)
            self._note(act.name, details, self.clock() - began)
            self.counts[act.name] += 1
            for code in details["code"] if isinstance(details.get("code"), list) else ():
                self.codes[f"{act.name}: {code}"] += 1
            if isinstance(details.get("code"), int):
                self.codes[f"{act.name}: {details['code']}"] += 1
            self._see()
            time.sleep(self._rng.uniform(0.1, 2.0))

    def _settle(self) -> None:
        """Heal everything, and require that the host comes to its profile."""
        self._enter("settle")
        for kind in acts.FAULTS:
            self.stage.heal(kind)
        self.disk.mend()
        for peer in self.peers:
            peer.close()
        self.peers.clear()
        threshold = self._rng.randint(1, 600)
        good = f"version: 1\nengine: {{kind: dsa, dsa_copy_threshold: {threshold}}}\n"
        self.put({"50-soak.yaml": self.profiles[acts.GOOD], "60-soak.yaml": good})
        if self.needs_boot:
            self._note("boot", self.reboot(orderly=True), 0.0)
        began = self.clock()
        found = self._approach(threshold)
        while found and self.clock() - began < PATIENCE:
            time.sleep(1)
            found = self._approach(threshold)
        check = Check(self.clock(), self.clock() - began, not found, found)
        self.checks.append(check)
        self._note("check", asdict(check), check.seconds)

    def _approach(self, threshold: int) -> str:
        """Do what an administrator does; return what is not yet as it must be."""
        self._see()
        state = self.service.status().get("state", "")
        if state == "reboot-required":
            reason = self.service.status().get("message", "")
            self._note("boot", {"reason": reason, **self.reboot(orderly=True)}, 0.0)
            self.counts["boots that dsatier asked for"] += 1
        elif state == "rollback-failed":
            self._note("rollback", {"said": self.run("rollback")}, 0.0)
        self._note("clear", {"said": self.run("clear")}, 0.0)
        for words in (("reload", "--timeout", "60"), ("wait", "--timeout", "10")):
            code, said = self.run(*words)
            if code != 0:
                return f"`{words[0]}` ends with {code}: {said}"
        status = self.service.status()
        expected = ("converged", "Accepted", self.service.pid)
        about = status.get("daemon") or {}
        found = (status.get("state"), status.get("profile", {}).get("status"), about.get("pid"))
        if expected != found:
            return f"expected {expected} in the status, found {found}"
        return self._unlike(threshold)

    def _unlike(self, threshold: int) -> str:
        """Return which of the kernel's files is not as the good profile says."""
        if not self.stage.files:
            return ""
        wanted = {
            f"{acts.VM}dsa_copy_threshold": str(threshold),
            f"{acts.VM}use_dsa_copy_pages": "1",
            f"{acts.VM}dsa_state": "1",
            acts.BALANCING: "2",
            acts.DEMOTION: "true",
            "/sys/devices/system/node/node1/cpulist": "",
        }
        for path, value in wanted.items():
            found = (self.stage.root / path[1:]).read_text().strip()
            if found != value:
                return f"{path}: expected {value!r}, found {found!r}"
        return ""

    def _rest(self, seconds: float) -> None:
        """Leave it alone: all that it is now it must stay."""
        self._enter("calm")
        time.sleep(min(8.0, seconds / 4))  # the looks after the reload
        self._enter(judges.REST)
        until = self.clock() + seconds
        while self.clock() < until:
            self._see()
            state = self.service.status().get("state")
            if self.checks[-1].converged and state != "converged":
                self.wrong(f"at rest the host left its profile by itself: {state}")
                return
            time.sleep(min(1.0, seconds / 4))
        self._tidy()

    def _last(self) -> None:
        """End the last daemon in order, and look at what it leaves."""
        self._enter("end")
        code = self._end(signal.SIGTERM)
        if code != 0:
            self.wrong(f"the last daemon ended with {code}")
        self._tidy()
        self.failures += self._judge()

    def _judge(self) -> list[str]:
        return [
            *judges.harmless(self._harm),
            *judges.converges(self.checks),
            *judges.flat(self.samples, must=self._minutes >= LONG),
            *judges.buries(self.samples, self._hung),
            *judges.lively(self.service.silences, WATCHDOG),
            *self._broken(),
        ]

    def _broken(self) -> list[str]:
        """Return what daemons said that is no line of their log: how Python reports what broke."""
        text = (self._report / "daemon.log").read_text(encoding="utf-8", errors="replace")
        odd = [line for line in text.splitlines() if not line.startswith("<")]
        return [f"the daemon said: {line}" for line in odd[:20]]

    def close(self) -> None:
        """End all that it started."""
        with suppress(OSError, subprocess.TimeoutExpired):
            self._end(signal.SIGKILL)
        kill(marked(self._mark))
        self.disk.close()
        self.stage.close()
        self._log.close()

    # -- the daemon ----------------------------------------------------------

    def _begin(self) -> dict[str, Any]:
        """Start a daemon; where the lock is held by a write that hangs, boot."""
        code = self.service.start()
        if code is None:
            return {"pid": self.service.pid}
        self.ends.append((self.clock(), f"exit {code} at its start"))
        if code != 11:
            self.wrong(f"a daemon ended at its start with {code}")
        self.counts["boots for a hung write"] += 1
        return self.reboot(orderly=False)

    def _end(self, number: int, how: str = "") -> int:
        if self.service.ended() is None:
            self.ends.append((self.clock(), how or signal.Signals(number).name))
        return self.service.end(number)

    def _see(self) -> None:
        """Look whether host and daemon are still there, and what the host says of harm."""
        down = self.stage.down()
        if down:
            self._note("host down", {"why": down, **self.reboot(orderly=False)}, 0.0)
            self.counts["host down"] += 1
        code = self.service.ended()
        if code is not None:
            self.ends.append((self.clock(), f"exit {code} by itself"))
            self.wrong(f"the daemon ended by itself with {code}")
            self._note("start", self._begin(), 0.0)
        if (silent := self.service.silent()) > WATCHDOG:
            self.wrong(f"no sign of life for {silent:.0f} s: ended, as systemd does")
            self._note("watchdog", self.restart(signal.SIGABRT), 0.0)
        if self.stage.files:
            self._look_for_harm()
        if self.clock() - self._told >= TELLING:
            self._told = self.clock()
            print(self.line(), flush=True)

    def _look_for_harm(self) -> None:
        found = self.stage.harm()
        if found is not None and found[len(self._harm) :]:
            self._note("HARM", {"lines": found[len(self._harm) :]}, 0.0)
            self._harm = found

    def _tidy(self) -> None:
        """Judge what lies in dsatier's folders while nothing happens."""
        if not self.stage.files:
            self._look_for_harm()
        for line in judges.tidy(self.disk.names(), KEPT):
            self.wrong(line)

    # -- what it sees --------------------------------------------------------

    def _sample_on(self) -> None:
        while not self._over.wait(min(SAMPLING, self._minutes * 60 / 40)):
            pid = self.service.pid
            found = measured(pid) if pid and self.service.ended() is None else None
            if found is None:
                continue
            if "reboot-required" in (state := str(self.service.status().get("state", ""))):
                self._hung.add(pid)
            size = sum(self.disk.names().values())
            held = self.service.held() if self.phase == judges.REST else {}
            self.samples.append(
                Sample(
                    at=self.clock(),
                    pid=pid,
                    phase=self.phase,
                    state=state,
                    files=size,
                    objects=held.get("objects", 0),
                    held=held.get("bytes", 0),
                    **found,
                )
            )

    def _enter(self, phase: str) -> None:
        self.phase = phase
        self.phases.append((self.clock(), phase))

    def _note(self, act: str, details: dict[str, Any], took: float) -> None:
        """Note an act, when it began and how long it took in seconds."""
        at = round(self.clock() - took, 2)
        row = {"at": at, "phase": self.phase, "act": act, "took": round(took, 2), **details}
        self._log.write(json.dumps(row, default=str) + "\n")
        self._log.flush()

    def line(self) -> str:
        """Return where it is, for people."""
        last = self.samples[-1] if self.samples else None
        seen = (
            f"{last.state}, RSS {last.rss} KiB ({last.anon} its own), {last.fds} files"
            if last
            else "not sampled yet"
        )
        checks = sum(check.converged for check in self.checks)
        return (
            f"{self.clock() / 60:5.1f} of {self._minutes:g} min  {self.phase:<6}  "
            f"{sum(self.counts.values())} acts, {checks}/{len(self.checks)} converged, "
            f"{len(self._harm)} harm, {len(self.failures)} wrong; {seen}"
        )


def claimed(report: Path) -> TextIO:
    """Return the emptied list of acts of a report folder. Raises BlockingIOError where in use."""
    log = (report / "acts.jsonl").open("a", encoding="utf-8")
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.close()
        raise
    log.truncate(0)
    (report / "daemon.log").write_text("")
    return log


def frozen(work: Path) -> dict[str, str]:
    """Copy the sources, so that nobody's edits disturb a soak; return the environment to use."""
    for folder in ("agent", "tests", "profiles"):
        shutil.copytree(
            REPOSITORY / folder, work / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    paths = f"{work / 'agent'}:{work}"
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return {**kept, "PYTHONPATH": paths}
