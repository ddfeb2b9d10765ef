# SPDX-License-Identifier: Apache-2.0
"""``make lab``: a host to play with, in a guest.

Our kernel, systemd, dsatier's package, two tiers, eight emulated DSA devices, and a program that
has memory grow short. At a terminal it is a shell; else what comes from standard input is run, or
the variable LAB. ``--tour`` takes the five-minute tour and records it, for ``make docs``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from pathlib import Path

from lab.host import DEVICES, HERE, host, install, two_tiers
from lab.tour import PROFILE, RECORD, player, taken
from vm import images, shell
from vm.guest import Guest, GuestError

GREETING = f"""
A host with two tiers, eight DSA devices that nobody has configured, and dsatier without a profile.

    tour              five minutes, step by step: up, pressure, drift, a device that goes, down
    squeeze [MIB]     have memory of the fast node grow short, and see who copies what moves away
    dsatier status    where the host is; also: dsatier --help
    {PROFILE}

Break what you like: nothing is kept. "exit" or ctrl-d ends the guest.
"""
FILES: dict[str, Path | bytes] = {
    "/usr/local/bin/squeeze": HERE / "squeeze",
    "/usr/local/bin/tour": player(),
    shell.PROFILE: shell.profile("lab", GREETING),
    # an emulated CPU is slow: a bound in time would cut lists short
    "/etc/sysctl.d/60-lab.conf": b"vm.migrate_batch_usecs = 0\n",
}


def guest(package: Path, *, extra: tuple[str, ...] = ()) -> Guest:
    """Return the lab, not yet booted; ``ready`` follows."""
    return host(
        package,
        two_tiers(DEVICES, ("watchdog_thresh=60", "systemd.hostname=lab"), extra),
        load=["idxd"],
        carry=["idxd_migrate"],
        files=FILES,
    )


def ready(vm: Guest) -> None:
    """Make a lab of what has booted."""
    vm.ok("systemctl", "mask", "--now", "serial-getty@hvc0.service")  # the terminal is the shell's
    install(vm)


def played(vm: Guest, script: str) -> int:
    """Run a script with what it prints on this process's output; return its exit code."""
    words = 'cd /root; export HOME=/root TERM=dumb; exec 2>&1; exec bash -c "$1"'
    ran = vm.start("bash", "-c", words, "lab", script)
    shown = 0
    while not ran.ended:
        time.sleep(0.2)
        shown += sys.stdout.buffer.write(ran.out[shown:])
        sys.stdout.buffer.flush()
    sys.stdout.buffer.write(ran.out[shown:])
    sys.stdout.buffer.flush()
    vm.allow(".", "a person was at work")
    return ran.wait().code


def built(folder: str) -> Path:
    """Return dsatier's package, built from this tree."""
    words = (images.REPOSITORY / "packaging/debian/build", folder)
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
    (found,) = Path(folder).iterdir()
    return found


def visit(package: Path) -> int:
    """Boot the lab for whoever is there: a person at a terminal, or a script."""
    given = os.environ.get("LAB")
    if given is None and not os.isatty(0):
        given = sys.stdin.read()
    if given is not None:
        with guest(package) as vm:
            ready(vm)
            return played(vm, given)
    vm = guest(package, extra=shell.CONSOLE)
    with vm.on_terminal():
        ready(vm)
        ended = shell.work(vm, "bash", "--rcfile", shell.PROFILE, "-i")
    print(ended.err, end="", file=sys.stderr)
    return 0


def main(words: list[str] | None = None) -> int:
    """Boot the lab, or take the tour."""
    parser = ArgumentParser(prog="lab", description=__doc__)
    parser.add_argument("--tour", action="store_true", help="take the tour and record it")
    parser.add_argument("--package", type=Path, help="dsatier's package, where it is built already")
    options = parser.parse_args(words)
    try:
        with tempfile.TemporaryDirectory(prefix="dsatier-lab-") as folder:
            package = options.package or built(folder)
            if not options.tour:
                return visit(package)
            with guest(package) as vm:
                ready(vm)
                record = taken(vm)
            RECORD.write_text(json.dumps(record, separators=(",", ":")) + "\n", encoding="utf-8")
            return 0
    except (GuestError, ValueError, images.Missing, subprocess.CalledProcessError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
