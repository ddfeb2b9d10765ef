# SPDX-License-Identifier: Apache-2.0
"""``dsatier measure``: /proc/timer around a command."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import Any

from dsatier.apply.gate import Gate
from dsatier.facts.knobs import TIMER
from dsatier.facts.observe.observer import Observer
from dsatier.facts.observe.parse import timer_units
from dsatier.host.port import Host, Missing
from dsatier.plan.requests import SetTimer

DEADLINE = 10.0


def measure(host: Host, argv: list[str]) -> dict[str, Any]:
    """Start the timer, run ``argv``, stop the timer; return its numbers and the command's end.

    The command's standard output goes to standard error: standard output is the
    measurement's. Raises Missing where the kernel has no /proc/timer.
    """
    observer = Observer(host)
    gate = Gate(host, observer)
    if not observer.look().timer:
        raise Missing(TIMER, "not there: expected dsatier's kernel or a seed's")
    gate.submit(SetTimer(on=False), DEADLINE)  # it clears only when it starts from off
    gate.submit(SetTimer(on=True), DEADLINE)
    began = time.monotonic()
    # a Ctrl-C is for the command, which ends by it; what was measured until then is still told
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        code = subprocess.run(argv, stdout=2, check=False).returncode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        print(f"dsatier measure: {argv[0]}: {reason}", file=sys.stderr)
        code = 127
    finally:
        signal.signal(signal.SIGINT, before)
        gate.submit(SetTimer(on=False), DEADLINE)
    return {
        "command": argv,
        "exit_code": code if code >= 0 else 128 - code,
        "seconds": time.monotonic() - began,
        "timer": observer.look().timer,
        "units": timer_units(host.read(TIMER)),
    }
