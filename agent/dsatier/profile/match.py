# SPDX-License-Identifier: Apache-2.0
"""Whether a profile is for a host."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from dsatier.facts.model import Facts
from dsatier.profile.dropins import Unused
from dsatier.profile.model import Match


def mismatches(match: Match | None, facts: Facts) -> list[str]:
    """Return every reason why a host is not one that ``match`` means; none: it is."""
    if match is None:
        return []
    reasons = []
    for name, globs, value in (
        ("hostname", match.hostname, facts.hostname),
        ("release", match.release, facts.kernel.release),
        ("cpu_model", match.cpu_model, facts.cpu_model),
    ):
        if globs is not None and not any(fnmatchcase(value, glob) for glob in globs):
            reasons.append(f"{name}: expected {_either(globs)}, found '{value}'")
    if match.abi is not None and facts.kernel.family not in match.abi:
        reasons.append(f"abi: expected {' or '.join(match.abi)}, found {facts.kernel.family}")
    if match.numa is not None:
        nodes, wanted = len(facts.nodes), match.numa.nodes
        if wanted is not None and nodes != wanted:
            reasons.append(f"numa.nodes: expected {wanted}, found {nodes}")
        wanted = match.numa.cpuless_nodes
        least, most = cpuless(facts)
        if wanted is not None and not least <= wanted <= most:
            found = str(most) if least == most else f"{least} to {most}"
            reasons.append(f"numa.cpuless_nodes: expected {wanted}, found {found}")
    return reasons


def unmatched(matches: Iterable[tuple[str, Match]], facts: Facts) -> tuple[Unused, ...]:
    """Return which files are not for a host, by path and ``match``, and why."""
    found = ((path, mismatches(match, facts)) for path, match in matches)
    return tuple(Unused(path, "; ".join(reasons)) for path, reasons in found if reasons)


def cpuless(facts: Facts) -> tuple[int, int]:
    """Return how many nodes have no CPU, at least and at most.

    The kernel does not tell an offline CPU's node, so any offline CPU may be
    what a node without online ones has.
    """
    idle = sum(not node.cpus for node in facts.nodes)
    return max(0, idle - len(facts.offline_cpus)), idle


def _either(globs: tuple[str, ...]) -> str:
    return " or ".join(f"'{glob}'" for glob in globs)
