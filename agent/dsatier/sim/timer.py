# SPDX-License-Identifier: Apache-2.0
"""/proc/timer: statistics of the page copies."""

from __future__ import annotations

import re
from errno import EINVAL
from typing import TYPE_CHECKING

from dsatier.sim import copying
from dsatier.sim.parse import Refused
from dsatier.sim.state import Timer

if TYPE_CHECKING:
    from dsatier.sim.kernel import Kernel

HUGE = 100.0
"""Huge pages that the load migrates in a second."""
BASE = 4000.0
"""Base pages that the load migrates in lists in a second."""
BUFFER = 1024
"""Bytes of a seed kernel's buffer, which its write handler fills without a bound."""
_NUMBER = re.compile(r"\s*([+-]?\d+)")


def show(k: Kernel) -> str:
    """Return the one line, units glued on as the seed has it."""
    t = k.state.timer
    count = int(t.dsa_hpage + t.dsa_bpage + t.hpage + t.bpage)
    last = 22281 if count else 0
    return (
        f"timer_state = {int(t.on)} total_time = {int(t.total * 1000)}ms last_time = {last}ns "
        f"last_cnt = 0 dsa_hpage_cnt = {int(t.dsa_hpage)} dsa_bpage_cnt = {int(t.dsa_bpage)} "
        f"dsa_copy_fail = {t.fail} hpage_cnt = {int(t.hpage)} bpage_cnt = {int(t.bpage)}\n"
    )


def store(k: Kernel, text: str) -> None:
    """Start (1, from off) or stop (0).

    The seed takes any text of any length, and acts on a 0 or a 1 that it begins with.
    """
    word = text.strip()
    if k.seed:
        if len(text) > BUFFER:
            k.warn("detected buffer overflow in timer_write")
            k.hurt("corruption", f"{len(text)} bytes written to /proc/timer overrun its buffer")
        k.log(f"rc: 0 len(buf): {len(text)} buf: {word}")
        found = _NUMBER.match(text)
        word = str(int(found[1])) if found else ""
    elif word not in ("0", "1"):
        raise Refused(EINVAL)
    timer = k.state.timer
    if word == "1" and not timer.on:
        k.state.timer = Timer(on=True)
    elif word == "0":
        k.state.timer = timer._replace(on=False)


def count(k: Kernel, seconds: float) -> None:
    """Count what the load migrates in ``seconds``."""
    t = k.state.timer
    if not t.on:
        return
    huge = HUGE * seconds if "thp" in k.spec.load else 0.0
    base = BASE * seconds if "lists" in k.spec.load else 0.0
    if copying.live(k):
        listed = base if copying.concurrent(k) else 0.0
        t = t._replace(dsa_hpage=t.dsa_hpage + huge, dsa_bpage=t.dsa_bpage + listed)
        huge, base = 0.0, base - listed
    k.state.timer = t._replace(
        total=t.total + seconds / 10,
        hpage=t.hpage + huge,
        # a huge page that the CPU copies counts as 512 base pages as well
        bpage=t.bpage + base + 512 * huge,
    )
