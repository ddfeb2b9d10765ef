# SPDX-License-Identifier: Apache-2.0
"""From the files of a profile to the one profile of a host.

Pure: texts and facts in, a frozen value out. ``dsatier.profile.dropins`` finds the texts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from dsatier.base.problem import Invalid, Problem, dotted
from dsatier.facts.model import Facts
from dsatier.profile import rules, schema, yaml
from dsatier.profile.check import check_tree
from dsatier.profile.dropins import Found, Source, Unused
from dsatier.profile.match import unmatched
from dsatier.profile.merge import Layer, Origin, layer, merge
from dsatier.profile.model import Match, Profile


@dataclass(frozen=True, slots=True)
class Loaded:
    """A host's profile and how it came about."""

    profile: Profile | None
    """None where no file applies. ``match`` is None: it has done its work."""
    data: dict[str, Any]
    """What the files name, merged, as plain data; null where a later file took a value back."""
    origins: dict[str, Origin]
    """By dotted field, where each value of ``data`` was written."""
    files: tuple[str, ...]
    """The files that apply, in order; a later one wins."""
    matches: tuple[tuple[str, Match], ...]
    """Path and ``match`` of every file that has one."""
    skipped: tuple[Unused, ...]
    """Files whose ``match`` is not this host's."""
    masked: tuple[Unused, ...]
    """Files that another one masks or that mask themselves."""
    digest: str
    """SHA-256 of what the profile says, whatever its files, comments and order of keys."""


def load(found: Found, facts: Facts | None) -> Loaded:
    """Return the profile that ``found`` makes for the host of ``facts``.

    Without facts every file applies. Raises Invalid with every problem of every
    file: one that does not match the host is checked as well.
    """
    layers: list[Layer] = []
    files: list[str] = []
    matches: list[tuple[str, Match]] = []
    skipped: tuple[Unused, ...] = ()
    problems: list[Problem] = []
    for source in found.sources:
        tree = yaml.parse(source.text, source.path)
        wrong = check_tree(tree, whole=False)
        if wrong:
            problems += wrong
            continue
        match = schema.validate(Profile, tree.data).match
        if match is not None:
            matches.append((source.path, match))
            if facts is not None and (without := unmatched(matches[-1:], facts)):
                skipped += without
                continue
        files.append(source.path)
        layers.append(layer({k: v for k, v in tree.data.items() if k != "match"}, tree.at))
    if problems:
        raise Invalid(sorted(problems, key=Problem.place))
    merged = Layer({}, {})
    for one in layers:
        merged = merge(merged, one)
    profile = None
    if layers:
        problems = schema.check(Profile, merged.data, merged.at)
        problems = problems or rules.broken(merged.data, merged.at)
        if problems:
            raise Invalid(problems)
        profile = schema.validate(Profile, merged.data)
    return Loaded(
        profile,
        merged.data,
        {dotted(path): origin for path, origin in merged.origins.items()},
        tuple(files),
        tuple(matches),
        skipped,
        found.masked,
        digest(profile),
    )


def from_texts(texts: Iterable[tuple[str, str]], facts: Facts | None = None) -> Loaded:
    """Load (name, text) pairs, the later ones over the earlier, instead of the folders' files."""
    return load(Found(tuple(Source(name, text) for name, text in texts)), facts)


def digest(profile: Profile | None) -> str:
    """Return the SHA-256 of what a profile says."""
    said = None if profile is None else asdict(profile)
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
