# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.kernel.faults --minutes 60 --seed 1``: devices that fail while they copy.

Pages move under load by eight channels of four emulated devices, which fail in every way that the
emulator knows, at random: errors, half-done moves, late ones and ones that never end, engines that
hang, lost interrupts, commands that are not obeyed, halts, and queues and devices that are taken
away. Every byte is checked in every round, the kernel's log is read, and after each round the same
devices, reset where they have to be, must copy everything again. Each round prints a line; the seed
gives the same rounds again. ``--layer`` builds the kernel with layers of kernel-src/config,
``--kernel`` names a folder of a build instead.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.kernel.engine import KEPT, PARAMETERS, TIMEOUT, booted, down, up
from tests.kernel.ours import ANY_MTHP
from vm.guest import Command, Guest
from vm.idxd import (
    PCI,
    address,
    configuration,
    in_use,
    load,
    moved,
    moved_since,
    names,
    reset,
)
from vm.ours import CGROUP, counters, kernel, since

DEVICES = 4
QUEUES = 2
PATIENCE = 600.0
ABORT = 9
"""The command that ends what is in a queue."""
KINDS = ("base", "mthp", "thp", "mixed")
HOWS = ("move_pages", "mbind", "migrate_pages", "reclaim")
STATUSES = (0x03, 0x04, 0x13, 0x1A, 0x1F, 0x20, 0x22)
BLOWS = (
    "nothing",
    "nothing",
    "nothing",
    "halt software",
    "halt flr",
    "unbind queue",
    "unbind device",
)
"""What happens to a device in mid-round, beside what its rules say."""


@dataclass(frozen=True, slots=True)
class Round:
    """What happens in one round."""

    kind: str
    how: str
    rules: tuple[str, ...]
    """Of each device, as the emulator reads them."""
    blow: str
    victim: int
    timeout_ms: int
    interrupt_us: int
    channels: int

    def __str__(self) -> str:
        """Return the round in a line."""
        rules = " | ".join(rule or "-" for rule in self.rules)
        what = f"{self.blow} of dsa{self.victim}" if self.blow != "nothing" else "no blow"
        return (
            f"{self.kind} by {self.how}, {self.channels} channels, time-out {self.timeout_ms} ms, "
            f"interrupts from {self.interrupt_us} µs: {rules}; {what}"
        )


def rule(dice: random.Random) -> str:
    """Draw one way to fail, and how often."""
    late = dice.randint(10, 4000)
    kind = dice.choice(
        (
            f"error:status={dice.choice(STATUSES):#x}",
            f"partial:bytes={dice.randrange(4096)}",
            f"late:ms={late}",
            f"late:ms={late};command-stuck:op={ABORT}",
            f"late:ms={late};command-late:op={ABORT}:ms={dice.randint(10, 3000)}",
            f"late:ms={late};command-error:op={ABORT}",
            "never",
            "never:move",
            f"reorder:after={dice.randint(1, 5)}:ms={late}",
            "lost-interrupt",
            "stuck",
            "stuck:hard",
        )
    )
    first, _, rest = kind.partition(";")
    where = dice.choice(("", ":in=queue", ":in=batch"))
    often = dice.choice((f"nth={dice.randint(1, 60)}", f"share={dice.choice((500, 5000, 50000))}"))
    return f"{first}{where}:{often}:times={dice.randint(1, 4)}" + (f";{rest}" if rest else "")


def drawn(dice: random.Random) -> Round:
    """Draw a round."""
    struck = dice.sample(range(DEVICES), dice.choice((1, 1, 1, 2, DEVICES)))
    return Round(
        kind=dice.choice(KINDS),
        how=dice.choice(HOWS),
        rules=tuple(rule(dice) if n in struck else "" for n in range(DEVICES)),
        blow=dice.choice(BLOWS),
        victim=dice.randrange(DEVICES),
        timeout_ms=dice.choice((100, 300, 1000)),
        interrupt_us=dice.choice((0, 100, 10**9)),
        channels=dice.randint(1, DEVICES * QUEUES),
    )


def over(run: Command, seconds: float) -> bool:
    """Tell whether a command ends in time."""
    until = time.monotonic() + seconds
    while not run.ended and time.monotonic() < until:
        time.sleep(0.1)
    return run.ended


def strike(vm: Guest, now: Round, known: dict[str, str]) -> None:
    """Deal a device the blow of a round. ``known`` are the devices by the driver's name."""
    name = f"dsa{now.victim}"
    if now.blow.startswith("halt "):
        vm.set_device(known[name], "halt", now.blow.removeprefix("halt "))
        return
    where = f"{PCI}/drivers/idxd/unbind"
    what = address(vm, name)
    if now.blow == "unbind queue":
        what = f"wq{now.victim}.0"
        where = f"/sys/bus/dsa/devices/{what}/driver/unbind"
    if now.blow != "nothing":
        run = vm.start("sh", "-c", f"echo {what} >{where}")
        # commands of the driver itself wait for a device that answers nothing, for ever
        if not over(run, 5):
            vm.set_device(known[name], "faults", "")
            vm.set_device(known[name], "release", True)
        if not over(run, 5):
            vm.set_device(known[name], "halt", "flr")
        run.wait(PATIENCE)


def played(vm: Guest, now: Round, places: Sequence[str], known: dict[str, str]) -> dict[str, int]:
    """Play a round, and return how far the counters have come."""
    vm.allow("Clients has claim", "the driver says so of a queue that is unbound")
    mark = vm.mark()
    vm.write(ANY_MTHP, "always" if now.kind == "mthp" else "never")
    vm.write(TIMEOUT, str(now.timeout_ms))
    vm.write(f"{PARAMETERS}/interrupt_us", str(now.interrupt_us))
    up(vm, now.channels)
    before = counters(vm)
    for device, text in zip(known.values(), now.rules, strict=True):
        vm.set_device(device, "faults", text)
    words = (now.kind, "none" if now.how == "reclaim" else now.how, "24", "6", "write", "remote")
    script = 'echo $$ >"$1/tests/cgroup.procs"; shift; exec pages "$@"'
    run = vm.start("sh", "-euc", script, "sh", CGROUP, *words)
    run.wait_for("^ready$", PATIENCE)
    strike_at = time.monotonic() + 2
    while not run.ended:
        if strike_at and time.monotonic() > strike_at:
            strike(vm, now, known)
            strike_at = 0.0
        if now.how == "reclaim":
            vm.run("sh", "-c", 'echo 8M >"$1/tests/memory.reclaim"', "sh", CGROUP, timeout=PATIENCE)
        # an engine that a fault took out of use is used again, as an operator might
        vm.run("sh", "-c", "echo 1 >/proc/sys/vm/use_dsa_copy_pages", timeout=PATIENCE)
        time.sleep(0.2)
    ran = run.wait(PATIENCE)
    assert 0 == ran.code, ran.err
    found = since(vm, before)
    mended(vm, places, known)
    told = rf"dsatier: wq{now.victim}\.\d: nothing shows that the device is done"
    if now.blow == "unbind device" and re.search(told, vm.console[mark:]):
        vm.allow(KEPT, "what a device may still write to is never freed, also without its driver")
    vm.check()
    return found


def mended(vm: Guest, places: Sequence[str], known: dict[str, str]) -> None:
    """Have devices let go, reset them, and give the channels back."""
    for device in known.values():
        vm.set_device(device, "faults", "")
        vm.set_device(device, "release", True)
    down(vm)
    for place in places:
        reset(vm, place, PATIENCE)
    until = time.monotonic() + PATIENCE
    while in_use(vm):
        assert time.monotonic() < until, "a queue was not given back"
        time.sleep(0.5)
    load(vm, configuration(DEVICES, queues=QUEUES), timeout=PATIENCE)


def proven(vm: Guest) -> None:
    """Have devices copy, all and without a fault: none of the rounds before has left anything."""
    vm.write(TIMEOUT, "60000")
    vm.write(f"{PARAMETERS}/interrupt_us", "100")
    up(vm, DEVICES * QUEUES)
    before, at = counters(vm), moved(vm)
    vm.ok("pages", "mixed", "move_pages", "8", "0", timeout=PATIENCE)
    found = since(vm, before)
    down(vm)
    assert found["dsa"] * 4096 == sum(moved_since(vm, at)) > 0
    assert 0 == found["failed"] == found["fault"], found


def main(argv: list[str] | None = None) -> int:
    """Play rounds until the time is over. Returns 0, or raises what went wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.kernel.faults", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--iommu", choices=("off", "passthrough", "translated"), default="off")
    parser.add_argument("--layer", action="append", default=[], help="of kernel-src/config")
    parser.add_argument("--kernel", type=Path, help="a folder that a build has printed")
    options = parser.parse_args(argv)
    layers = [word for name in options.layer for word in ("--layer", name)]
    ours = kernel(*layers, folder=options.kernel)
    dice = random.Random(options.seed)
    total: dict[str, int] = {}
    number = 0
    # a kernel with CONFIG_PAGE_POISONING tells who wrote to a page that nobody has
    words = ("page_poison=1",) if options.layer else ()
    with booted(DEVICES, options.iommu, append=words, ours=ours, timeout=PATIENCE) as vm:
        print(f"{vm.release}: booted in {vm.booted_in:.0f} s, seed {options.seed}", flush=True)
        vm.write("/sys/kernel/mm/numa/demotion_enabled", "1")
        load(vm, configuration(DEVICES, queues=QUEUES), timeout=PATIENCE)
        known = names(vm)
        places = [address(vm, name) for name in known]
        until = time.monotonic() + options.minutes * 60
        while time.monotonic() < until:
            number += 1
            now = drawn(dice)
            print(f"{number}: {now}", flush=True)
            found = played(vm, now, places, known)
            proven(vm)
            print("    " + " ".join(f"{k}={v}" for k, v in found.items() if v), flush=True)
            for name, count in found.items():
                total[name] = total.get(name, 0) + count
    print(f"{number} rounds: " + " ".join(f"{k}={v}" for k, v in total.items() if v))
    return 0


if __name__ == "__main__":
    sys.exit(main())
