# SPDX-License-Identifier: Apache-2.0
"""A guest's shell on the person's terminal: what ``make vm`` and ``make lab`` have in common."""

from __future__ import annotations

import os
import sys

from vm.guest import Guest, Ran

CONSOLE = ("-chardev", "stdio,id=shell,signal=off", "-device", "virtconsole,chardev=shell")
"""What a machine has as ``extra``, so that the emulator's terminal is a console of the guest."""
PROFILE = "/root/.profile"
_SCRIPT = """
cd /root
export TERM="$3" HOME=/root ENV="$4"
# the agent made this a session of its own: its first terminal is the one that controls it
exec </dev/hvc0 >/dev/hvc0 2>&1
[ "$1" = 0 ] || stty rows "$1" cols "$2"
shift 4
exec "$@"
"""


def profile(name: str, greeting: str) -> bytes:
    """Return the file that a shell reads first: its prompt, and what it says then."""
    return f"PS1='{name}:\\w# '\ncat <<'END'\n{greeting}END\n".encode()


def work(vm: Guest, *shell: str) -> Ran:
    """Hand the terminal to a shell in the guest, which reads PROFILE; return when it ends.

    Nobody knows what a person does there, so the kernel may say what it likes.
    """
    size = os.get_terminal_size() if sys.stdout.isatty() else os.terminal_size((80, 24))
    term = os.environ.get("TERM", "linux")
    print(f"vm: Linux {vm.release}, up in {vm.booted_in:.1f} s\r", flush=True)
    words = ("sh", "-c", _SCRIPT, "shell", str(size.lines), str(size.columns), term, PROFILE)
    ended = vm.run(*words, *shell, timeout=float("inf"))
    vm.allow(".", "a person was at work")
    return ended
