# SPDX-License-Identifier: Apache-2.0
"""Where the daemon listens, and how long a line may be."""

from __future__ import annotations

from dsatier.base.paths import RUN


def folder(root: str | None) -> str:
    """Return the machine's own path of /run/dsatier below ``root``, and never outside of it.

    Raises OSError where there is none.
    """
    if root in (None, "/"):
        return RUN
    from dsatier.host.rooted import Tree

    return Tree(root).real(RUN)


SOCKET = "control"
"""Name of the daemon's socket in /run/dsatier."""
LONGEST = 65536
"""Bytes of the longest order, and of an answer that is read at once."""


def address(folder: int) -> str:
    """Return the socket's path in an open folder: a socket's own may have 107 bytes only."""
    return f"/proc/self/fd/{folder}/{SOCKET}"
