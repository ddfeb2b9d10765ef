# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.kernel --minutes 60 --seed 1 --layer debug --layer kasan``: hours in a guest.

Pages of every kind move, for every reason, while writers write anything to every knob and, in some
rounds, memory is refused to those who move them. Every byte is checked, and the kernel, built with
the layers of kernel-src/config, must not have a word to say; with ``--layer kcsan`` it may tell of
data races, of those that are not ours. With ``--dsa N`` emulated devices copy as well; they fail,
halt, are unbound and come back meanwhile. Each round prints a line; the seed gives the same rounds
again. ``--kernel`` names a folder of a build instead.
"""

from __future__ import annotations

import argparse
import functools
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.kernel import races
from tests.kernel.engine import EVERYBODY, TIMEOUT, down, up
from tests.kernel.ours import ANY_MTHP, booted
from tests.kernel.test_knobs import TABLE
from vm.booting import ACCEL_CONFIG
from vm.guest import Guest
from vm.idxd import PCI, address, configuration, load, names, reset
from vm.machine import Dsa, Machine, Node
from vm.ours import BUILD, CGROUP, control_group, counters, knob, since

MACHINE = Machine(
    nodes=(Node(cpus=4, memory=1024), Node(memory=1024)),
    # a busy machine may leave a guest without a CPU for longer than the watchdog's 20 s
    append=("kmemleak=on", "slub_debug=-", "watchdog_thresh=60"),
)
PATIENCE = 900.0
"""Seconds; such a kernel is some ten times slower, and an emulator as much again."""
ANONYMOUS = ("base", "thp", "mthp", "mixed")
KINDS = (*ANONYMOUS, "ksm", "uffd", "shmem", "hugetlb")
MOVES = ("move_pages", "migrate_pages", "mbind", "reclaim", "others")
FAULTS = ("failslab", "fail_page_alloc")
QUEUES = 2
"""Of each device."""
DSA_ERRORS = {"dsa_state": "ENODEV,EBUSY,ENOMEM", "limit_chans": "EBUSY"}
"""What these knobs may answer as well where devices come and go."""
WRONG = ("error", "partial", "never", "late", "stuck")
"""What may be wrong with some descriptors; a device that lies is for test_dsa.py."""
KCSAN = "/sys/kernel/debug/kcsan"
EAGER = {"udelay_task": 400, "skip_watch": 1500}
"""Parameters of KCSAN: microseconds that it waits for a race, and accesses between two waits.

With its own, 80 and 4,000, another emulated CPU hardly comes by in time.
"""
GOES = {
    "queue": "echo wq0.0 >/sys/bus/dsa/devices/wq0.0/driver/unbind",
    "device": "echo dsa0 >/sys/bus/dsa/drivers/idxd/unbind",
    "driver": "echo {place} >{pci}/drivers/idxd/unbind; echo {place} >{pci}/drivers/idxd/bind",
    "bus": "echo 1 >{pci}/devices/{place}/remove; echo 1 >{pci}/rescan",
}
"""What goes away under load, and who takes it away."""


@dataclass(frozen=True, slots=True)
class Round:
    """What happens in one round."""

    kind: str
    how: str
    activities: tuple[str, ...]
    writers: int
    """How many write anything to knobs meanwhile; 0 leaves the knobs as they are."""
    threads: bool
    refused: int
    """Of a hundred allocations by those who move pages, how many fail."""
    channels: int = 0
    """Of DSA devices, at the beginning."""
    event: str = ""
    """What becomes of the first device meanwhile: a rule of faults, halt, or a key of GOES."""

    def __str__(self) -> str:
        """Return the round in a line."""
        knobs = f"{self.writers} writers" if self.writers else f"threads={int(self.threads)}"
        words = " ".join(self.activities)
        devices = f", {self.channels} channels {self.event}".rstrip() if self.channels else ""
        return f"{self.kind} by {self.how}, {knobs}{devices}, {self.refused} % refused: {words}"


def wrong(dice: random.Random) -> str:
    """Draw a rule of what is wrong with which descriptors."""
    kind = dice.choice(WRONG)
    place = dice.choice(("", ":in=batch"))
    more = {"partial": ":bytes=100", "late": f":ms={dice.choice((10, 1000, 20000))}"}.get(kind, "")
    return f"{kind}{place}:nth={dice.randint(1, 60)}{more}"


def with_devices(now: Round, dice: random.Random, devices: int) -> Round:
    """Draw what devices do in a round, and what becomes of one."""
    event = dice.choice(("", wrong(dice), wrong(dice), "halt", *GOES))
    return replace(now, channels=dice.randint(1, min(8, devices * QUEUES)), event=event)


def drawn(dice: random.Random) -> Round:
    """Draw a round."""
    kind = dice.choice(KINDS)
    possible = ["write", "remote", "pin"]
    if kind != "hugetlb":
        possible += ["splice", "mlock", "discard"]
    if kind in ANONYMOUS:
        possible += ["fork", "offline"]
    if kind == "uffd":
        possible += ["protect"]
    how = dice.choice(MOVES)
    return Round(
        kind=kind,
        how=how,
        activities=("write", *dice.sample(possible[1:], dice.randint(0, len(possible) - 1))),
        writers=dice.choice((0, 0, 4, 8)),
        threads=dice.random() < 0.7,
        refused=dice.choice((0, 1, 5)) if how in ("others", "reclaim") else 0,
    )


def prepare(vm: Guest) -> None:
    """Give the guest a control group, huge pages, and a place to be reclaimed in."""
    control_group(vm)
    vm.sh(
        """echo 1 >/sys/kernel/mm/numa/demotion_enabled; echo 2 >/proc/sys/kernel/numa_balancing
        echo 1000 >/sys/kernel/mm/ksm/pages_to_scan; echo 1 >/sys/kernel/mm/ksm/run"""
    )
    vm.write("/proc/sys/vm/nr_hugepages", "40")
    for name in FAULTS:
        at = f"/sys/kernel/debug/{name}"
        vm.sh(f"echo Y >{at}/task-filter; echo -1 >{at}/times; echo 0 >{at}/verbose")
        vm.sh(f"echo N >{at}/ignore-gfp-wait")
    vm.write("/sys/kernel/debug/fail_page_alloc/ignore-gfp-highmem", "N")
    vm.write("/sys/kernel/debug/fail_page_alloc/min-order", "0")
    spare_the_debugger(vm)


def spare_the_debugger(vm: Guest) -> None:
    """Refuse nothing to DMA_API_DEBUG: where an allocation of its own fails, it turns itself off.

    It says so, which ends a run.
    """
    if vm.run("test", "-e", "/sys/kernel/debug/dma-api").code:
        return
    # its functions stand together; the first symbol behind them is their end
    found = vm.sh("grep -A1 ' T debug_dma_' /proc/kallsyms").splitlines()
    for name in FAULTS:
        for side, line in (("start", found[0]), ("end", found[-1])):
            vm.write(f"/sys/kernel/debug/{name}/reject-{side}", f"0x{line.split()[0]}")


def refuse(vm: Guest, percent: int) -> None:
    """Have that share of allocations fail, of those who ask for it."""
    for name in FAULTS:
        vm.write(f"/sys/kernel/debug/{name}/probability", f"{percent}")


def first_use_without_memory(vm: Guest) -> str:
    """Turn the knobs on where memory is refused: -ENOMEM and nothing changed, or all is there."""
    outcomes = {"taken": 0, "refused": 0}
    for _ in range(20):
        refuse(vm, 20)
        ran = vm.run(
            *("sh", "-c"),
            """echo 1 >/proc/self/make-it-fail
            for name in migrate_batch_reasons cpu_multi_copy_pages; do
                { echo 1 >/proc/sys/vm/$name && echo taken; } || echo refused; done""",
            timeout=PATIENCE,
        )
        refuse(vm, 0)
        for word in outcomes:
            outcomes[word] += ran.out.count(word)
    for name in ("migrate_batch_reasons", "cpu_multi_copy_pages"):
        knob(vm, name, 0)
        knob(vm, name, 1)
        assert "1" == vm.read(f"/proc/sys/vm/{name}")
    assert all(outcomes.values()), outcomes
    return f"the first use of the knobs: {outcomes}"


@dataclass
class Listener:
    """Judges what the kernel says: with KCSAN it may tell of races, of those that are not ours."""

    vm: Guest
    kcsan: bool
    ours: list[races.Race] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    heard: int = 0
    """How much of the kernel's log has been judged."""

    def __post_init__(self) -> None:
        """Fail where KCSAN is there, and looks at nothing."""
        if self.kcsan:
            assert 1 == self.counted("enabled")

    @functools.cached_property
    def functions(self) -> races.Touched:
        """What our patches touch."""
        return races.touched(sorted(BUILD.parents[1].glob("patches/*/*.patch")))

    def counted(self, name: str) -> int:
        """Return what KCSAN has counted."""
        rows = (line.split(": ") for line in self.vm.read(KCSAN).splitlines() if ": " in line)
        return int(dict(rows)[name])

    def check(self) -> None:
        """Judge what was said since the last time; races of ours are kept and printed."""
        if self.kcsan:
            self.vm.allow(races.ALLOWED, "it is judged here")
            since, self.heard = self.heard, self.vm.mark()
            for race in races.races(self.vm.console[since : self.heard].splitlines()):
                if races.ours(race, self.functions):
                    self.ours.append(race)
                    print(f"a race of ours: {race.text}", flush=True)
                else:
                    self.others[race.title] += 1
        self.vm.check()

    def sums(self) -> str:
        """Return what races there were."""
        watched = self.counted("setup_watchpoints")
        told = "".join(f"\n    {n:5} x {title}" for title, n in self.others.most_common())
        sums = f"{len(self.ours)} races of ours, {self.others.total()} of others:{told}"
        return f"KCSAN waited for races {watched:,} times: {sums}"


def places(vm: Guest) -> dict[str, str]:
    """Return where each device is on the bus, by its name in the emulator."""
    return {device: address(vm, name) for name, device in names(vm).items()}


def disturb(vm: Guest, event: str, place: str) -> None:
    """Have something become of the first device, while its queues may be in use."""
    vm.allow("Clients has claim", "the driver says so of a queue that is unbound")
    if event == "halt":
        vm.set_device("dsa0", "halt", "flr")
    elif event in GOES:
        # a queue that is being given up may be gone before the command comes to it
        script = GOES[event].format(pci=PCI, place=place)
        vm.run("sh", "-c", script, timeout=PATIENCE)
    elif event:
        vm.set_device("dsa0", "faults", event)


def anew(vm: Guest, at: dict[str, str]) -> None:
    """Have all devices be as at the beginning, each after a reset."""
    down(vm, PATIENCE)
    for device, place in at.items():
        vm.set_device(device, "faults", "")
        vm.set_device(device, "release", True)
        reset(vm, place, PATIENCE)
    load(vm, configuration(len(at), queues=QUEUES), timeout=PATIENCE)


@contextmanager
def written(vm: Guest, writers: int, seconds: int) -> Iterator[None]:
    """Have writers write anything to all knobs; judge their answers, and put all back."""
    rows = [
        f"/proc/sys/vm/{n}:{low}:{high}:{DSA_ERRORS.get(n, e)}"
        for n, (low, high, _, e) in TABLE.items()
    ]
    rows += ["/proc/timer:0:1:", "/proc/sys/vm/demote_scale_factor:1:10000:"]
    run = vm.start("knobs", f"{seconds}", f"{writers}", *rows) if writers else None
    yield
    if run is not None:
        ran = run.wait(PATIENCE)
        assert 0 == ran.code, ran.err
        down(vm, PATIENCE)
        for name, (_, _, boot, _) in TABLE.items():
            knob(vm, name, boot)
        vm.write("/proc/sys/vm/demote_scale_factor", "200")


def played(vm: Guest, now: Round, at: dict[str, str]) -> dict[str, int]:
    """Play a round, and return how far the counters have come. ``at`` is where devices are."""
    vm.write(ANY_MTHP, "always" if now.kind == "mthp" else "never")
    knob(vm, "migrate_batch_reasons", EVERYBODY)
    knob(vm, "migrate_batch_usecs", 0)
    knob(vm, "cpu_multi_copy_pages", int(now.threads))
    knob(vm, "cpu_multi_copy_threshold", 16)
    if now.channels:
        vm.write(TIMEOUT, "1000" if now.event else "120000")
        up(vm, now.channels)
    vm.write("/proc/timer", "1\n")
    before = counters(vm)
    itself = now.how in ("move_pages", "migrate_pages", "mbind")
    words = (now.kind, now.how if itself else "none", "12", "6", *now.activities)
    with written(vm, now.writers, 6):
        script = 'echo $$ >"$1/tests/cgroup.procs"; echo "is $$"; shift; exec pages "$@"'
        run = vm.start("sh", "-euc", script, "sh", CGROUP, *words)
        process = run.wait_for(r"^is (\d+)$", PATIENCE)[1]
        run.wait_for("^ready$", PATIENCE)
        refuse(vm, now.refused)
        disturb(vm, now.event, at.get("dsa0", ""))
        other = None
        if now.how == "others":
            other = vm.start("pages", "short", "of", process, "6")
        if now.how == "reclaim":
            files = (f"{CGROUP}/tests/memory.reclaim", "4M", "/proc/sys/vm/compact_memory", "1")
            other = vm.start("pages", "short", "write", "6", *files)
        ran = run.wait(PATIENCE)
        refuse(vm, 0)
        if other is not None:
            told = other.wait(PATIENCE)
            assert 0 == told.code, told.err
            print(f"    {now.how}: {told.out.strip()}", flush=True)
    assert 0 == ran.code, ran.err
    found = since(vm, before)
    assert now.event or 0 == found["fault"]
    if at:
        anew(vm, at)
    return found


def leaks(vm: Guest) -> str:
    """Have kmemleak look twice, since it needs a while to be sure; return what it found."""
    path = "/sys/kernel/debug/kmemleak"
    if vm.run("test", "-e", path).code:
        return ""
    for _ in range(2):
        vm.write(path, "scan", timeout=PATIENCE)
        time.sleep(6)
    return vm.read(path)


def main(argv: list[str] | None = None) -> int:
    """Play rounds until the time is over.

    Returns 0, or 1 where there were races of ours; raises what else went wrong.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tests.kernel", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--layer", action="append", default=[], help="of kernel-src/config")
    parser.add_argument("--dsa", type=int, default=0, metavar="N", help="how many devices")
    parser.add_argument("--kernel", type=Path, help="a folder that a build has printed")
    options = parser.parse_args(argv)
    layers = [word for name in options.layer for word in ("--layer", name)]
    dice = random.Random(options.seed)
    total: dict[str, int] = {}
    number = 0
    kcsan = "kcsan" in options.layer
    with booted(
        replace(
            MACHINE,
            dsa=tuple(Dsa() for _ in range(options.dsa)),
            # a race is found by who comes by while another waits for that
            threads="multi" if kcsan else MACHINE.threads,
        ),
        options=layers,
        folder=options.kernel,
        load=["idxd", "idxd_migrate"] if options.dsa else [],
        programs=[ACCEL_CONFIG] if options.dsa else [],
        timeout=PATIENCE,
    ) as vm:
        print(f"{vm.release}: booted in {vm.booted_in:.0f} s, seed {options.seed}", flush=True)
        prepare(vm)
        if kcsan:
            for name, value in EAGER.items():
                vm.write(f"/sys/module/kcsan/parameters/{name}", f"{value}\n")
        print(first_use_without_memory(vm), flush=True)
        at = places(vm) if options.dsa else {}
        if at:
            anew(vm, at)
        known = leaks(vm)
        listener = Listener(vm, kcsan)
        until = time.monotonic() + options.minutes * 60
        while time.monotonic() < until:
            number += 1
            now = drawn(dice)
            if at:
                now = with_devices(now, dice, options.dsa)
            print(f"{number}: {now}", flush=True)
            for name, count in played(vm, now, at).items():
                total[name] = total.get(name, 0) + count
            listener.check()
        vm.sh("killall -q pages knobs || true")
        lost = leaks(vm)
        assert known == lost, f"kmemleak: {lost}"
        listener.check()
        if kcsan:
            print(listener.sums())
    print(f"{number} rounds: " + " ".join(f"{k}={v}" for k, v in total.items() if v))
    return int(bool(listener.ours))


if __name__ == "__main__":
    sys.exit(main())
