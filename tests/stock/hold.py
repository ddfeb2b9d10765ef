# SPDX-License-Identifier: Apache-2.0
"""A program in a guest that holds memory, and knows what is in it."""

from __future__ import annotations

from collections import Counter

from lab.host import PATIENCE
from vm.guest import Guest

STEP = 16
"""MiB that are taken at a time."""


class Hold:
    """Runs from its making to its end, on one CPU. ``words`` are those of lab/hold.c."""

    def __init__(self, vm: Guest, *words: str, cpu: int = 0) -> None:
        self._vm = vm
        script = 'echo "pid $$"; cpu=$1; shift; exec taskset -c "$cpu" hold "$@"'
        self._run = vm.start("sh", "-euc", script, "sh", str(cpu), *words, given=None)
        self.pid = self._run.wait_for(r"^pid (\d+)$", PATIENCE)[1]
        self._orders = 0

    def ordered(self, order: str, times: int = 1) -> str:
        """Have it do something, some times on end, and return its last answer."""
        self._orders += times
        self._run.give(f"{order}\n".encode() * times)
        return self._run.wait_for(rf"^{self._orders} (.*)$", PATIENCE)[1]

    def take(self, mib: int = STEP) -> None:
        """Have it take more memory."""
        assert f"held {mib}" == self.ordered(f"more {mib}")

    def use(self) -> None:
        """Have it read all that it holds, many times over: its memory is what it should be."""
        assert "right" == self.ordered("check", 20)

    def end(self) -> None:
        """Assert that its memory is what it should be, and have it give that back."""
        assert "right" == self.ordered("check")
        self._run.end_input()
        assert 0 == self._run.wait(PATIENCE).code

    def pages(self) -> Counter[int]:
        """Return how many pages it has on each node."""
        found: Counter[int] = Counter()
        for word in self._vm.read(f"/proc/{self.pid}/numa_maps").split():
            key, _, value = word.partition("=")
            if key[:1] == "N" and key[1:].isdecimal():
                found[int(key[1:])] += int(value)
        return found


def away(vm: Guest) -> None:
    """End all such programs of a guest, and wait until their memory is free."""
    vm.sh("pkill -x hold || true; while pgrep -x hold >/dev/null; do sleep 0.1; done")
