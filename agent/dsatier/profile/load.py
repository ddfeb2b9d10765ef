# SPDX-License-Identifier: Apache-2.0
"""From the files of a profile to the one profile of a host.

Pure: texts and facts in, a frozen value out. ``dsatier.profile.dropins`` finds the texts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from dsatier.base.problem import Invalid, Problem, dotted
from dsatier.facts.model import Facts
from dsatier.profile import rules, schema, yaml
from dsatier.profile.check import checked
from dsatier.profile.dropins import Found, Source
from dsatier.profile.loaded import Loaded
from dsatier.profile.match import unmatched
from dsatier.profile.merge import Layer, layer, merge
from dsatier.profile.model import Match, Profile


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a profile that is right by itself."""

    source: Source
    layer: Layer
    """What it says, but for its ``match``."""
    match: Match | None


def parts(sources: Iterable[Source]) -> tuple[list[Part], list[Problem]]:
    """Return the files that are right by themselves, and all that is wrong with the others."""
    good: list[Part] = []
    problems: list[Problem] = []
    for source in sources:
        tree = yaml.parse(source.text, source.path)
        profile, wrong = checked(tree, whole=False)
        problems += wrong
        if profile is not None:
            data = {key: value for key, value in tree.data.items() if key != "match"}
            good.append(Part(source, layer(data, tree.at), profile.match))
    return good, sorted(problems, key=Problem.place)


def load(found: Found, facts: Facts | None) -> Loaded:
    """Return the profile that ``found`` makes for the host of ``facts``.

    Without facts every file applies. Raises Invalid with every problem of every
    file: one that does not match the host is checked as well.
    """
    good, problems = parts(found.sources)
    if problems:
        raise Invalid(problems)
    matches = tuple((one.source.path, one.match) for one in good if one.match is not None)
    skipped = () if facts is None else unmatched(matches, facts)
    without = {one.path for one in skipped}
    applying = [one for one in good if one.source.path not in without]
    merged, profile = merged_of(applying)
    return Loaded(
        profile=profile,
        data=merged.data,
        origins={dotted(path): origin for path, origin in merged.origins.items()},
        files=tuple(one.source.path for one in applying),
        matches=matches,
        skipped=skipped,
        masked=found.masked,
        digest=digest(profile),
        sources=tuple((one.path, one.text) for one in found.sources),
    )


def merged_of(those: Iterable[Part]) -> tuple[Layer, Profile | None]:
    """Return what files say together, None for the profile where there are none. Raises Invalid."""
    layers = [one.layer for one in those]
    merged = Layer({}, {})
    for one in layers:
        merged = merge(merged, one)
    if not layers:
        return merged, None
    profile = schema.validate(Profile, merged.data, merged.at)
    if problems := rules.broken(merged.data, merged.at):
        raise Invalid(problems)
    return merged, profile


def from_texts(texts: Iterable[tuple[str, str]], facts: Facts | None = None) -> Loaded:
    """Load (name, text) pairs, the later ones over the earlier, instead of the folders' files."""
    return load(Found(tuple(Source(name, text) for name, text in texts)), facts)


def digest(profile: Profile | None) -> str:
    """Return the SHA-256 of what a profile says."""
    said = None if profile is None else asdict(profile)
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
