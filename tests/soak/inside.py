# SPDX-License-Identifier: Apache-2.0
"""The daemon as a soak runs it: it counts what it holds, when it is asked by SIGUSR2.

Resident memory tells little of a leak: it never falls below the most that was needed at once, so
it creeps as long as there is a first time for something, and a page hides a thousand objects.
What is held by number and by bytes tells of each object that a pass leaves behind.

It is to be run with ``service.MALLOC`` in its environment: bytes that were freed do not count.

``python -m tests.soak.inside FILE daemon ...`` writes into FILE.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import sys
from pathlib import Path

from dsatier.cli.main import main

_FIELDS = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
"""Those of ``struct mallinfo2``, see mallinfo(3)."""


class _Malloc(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS.split()]


def held() -> dict[str, int]:
    """Return what the process holds: Python's objects by number, malloc's memory in bytes."""
    gc.collect()
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = _Malloc
    found = mallinfo()
    return {"objects": sys.getallocatedblocks(), "bytes": found.uordblks + found.hblkhd}


def answer(place: Path) -> None:
    """Write what the process holds."""
    new = place.with_suffix(".new")
    new.write_text(json.dumps(held()), encoding="utf-8")
    new.rename(place)


if __name__ == "__main__":
    daemon, told = os.getpid(), Path(sys.argv[1])
    signal.signal(signal.SIGUSR2, lambda *_: answer(told) if os.getpid() == daemon else None)
    sys.exit(main(sys.argv[2:]))
