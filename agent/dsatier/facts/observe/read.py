# SPDX-License-Identifier: Apache-2.0
"""Reading with a value for what is not there."""

from __future__ import annotations

from dsatier.host.port import Host, Missing, Rejected


def optional(host: Host, path: str) -> str | None:
    """Return a file's text, None where it is missing. Raises Rejected."""
    try:
        return host.read(path)
    except Missing:
        return None


def readable(host: Host, path: str) -> str | None:
    """Return a file's text, None where it is missing or may not be read."""
    try:
        return host.read(path)
    except (Missing, Rejected):
        return None
