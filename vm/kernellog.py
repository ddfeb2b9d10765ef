# SPDX-License-Identifier: Apache-2.0
"""What in a kernel's log tells of harm. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_SIGNS = (
    (r"BUG: ", "a bug"),
    (r"kernel BUG at ", "a bug"),
    (r"WARNING: ", "a warning"),
    (r"Oops: |Oops\b.*\[#\d+\]", "an oops"),
    (r"general protection fault|stack segment: |double fault: |divide error: ", "an exception"),
    (r"invalid opcode: |int3: ", "an exception"),
    (r"Kernel panic - not syncing", "a panic"),
    (r"Unable to handle kernel|unable to handle page fault", "a fault"),
    (r"INFO: task .* blocked for more than|INFO: possible recursive locking", "a hang"),
    (r"INFO: rcu_\w+ (self-)?detected|rcu: INFO: |RCU Stall|rcu_\w+ kthread starved", "a stall"),
    (r"watchdog: BUG|soft lockup|hard LOCKUP", "a lock-up"),
    (r"possible circular locking|possible recursive locking|inconsistent lock state", "lockdep"),
    (r"suspicious RCU usage|bad unlock balance|held lock freed", "lockdep"),
    (r"lock held when returning", "lockdep"),
    (r"INFO: trying to register non-static key|DEBUG_LOCKS_WARN_ON", "lockdep"),
    (r"sleeping function called from invalid context|scheduling while atomic", "a sleep"),
    (r"KASAN: |KCSAN: |KMSAN: |KFENCE: |UBSAN: |kmemleak: [1-9]\d* new", "a sanitizer"),
    (r"DMA-API: ", "the DMA debugger"),
    (r"Bad page (state|map)|Bad rss-counter|page dumped because", "a bad page"),
    (r"refcount_t: |list_(add|del) corruption|ODEBUG: ", "a corruption"),
    (r"unregister_netdevice: waiting|Out of memory: |oom-kill:", "memory ran out"),
    (r"DMAR: \[.*fault|DMAR: DRHD: handling fault", "an IOMMU fault"),
    (r"CPU\d+: .*hung|NMI: Uhhuh|Uhhuh\. NMI|mce: \[Hardware Error\]", "the machine"),
)
SIGNS = tuple((re.compile(pattern), what) for pattern, what in _SIGNS)
STAMP = re.compile(r"^\[ *\d+\.\d{6}\](\[ *[TC]\d+\])? ")
AFTER = 40
"""Lines that are shown of a complaint."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """A sign of harm, with what the kernel said next."""

    what: str
    line: str
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return what a person reads."""
        return "\n    ".join((f"the kernel told of {self.what}: {self.line}", *self.lines))


def complaints(lines: Iterable[str], allowed: Mapping[str, str]) -> list[Complaint]:
    """Return the signs of harm that no pattern of ``allowed`` is found in.

    ``allowed`` gives the reason for each pattern. A line that is allowed ends nothing: what follows
    it is judged as well.
    """
    passed = [re.compile(pattern) for pattern in allowed]
    texts = [line.rstrip("\r\n") for line in lines]
    found = []
    until = 0
    for number, text in enumerate(texts):
        what = sign(text)
        if what is None or any(pattern.search(text) for pattern in passed):
            continue
        shown = () if number < until else tuple(texts[number + 1 : number + 1 + AFTER])
        until = number + AFTER
        found.append(Complaint(what, text, shown))
    return found


def sign(line: str) -> str | None:
    """Return what a line is a sign of; None for none.

    Only what the kernel says at the beginning of a line counts, behind its time: a command line
    that names a word of harm is none. Two patterns stand within a line by their nature.
    """
    text = STAMP.sub("", line)
    for pattern, what in SIGNS:
        if pattern.search(text) and not text.startswith(("Command line:", "Kernel command line:")):
            return what
    return None


_TASK = re.compile(r"task:\S.* state:(\S) .* ppid:(\d+) ")
_OF_A_TASK = re.compile(r" |Call Trace:|(RIP|RSP|RAX|RBP|RDX|R10|R13|FS|CS|CR2|Code):")


def telling(lines: Iterable[str]) -> list[str]:
    """Return what the kernel says of its tasks without those of its own that only wait."""
    found = []
    shown = True
    for line in lines:
        text = STAMP.sub("", line)
        if task := _TASK.match(text):
            shown = task[1] not in "SI" or task[2] not in ("0", "2")
        elif not _OF_A_TASK.match(text):
            shown = True
        if shown:
            found.append(line)
    return found
