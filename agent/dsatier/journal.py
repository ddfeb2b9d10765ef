# SPDX-License-Identifier: Apache-2.0
"""The journal: dsatier's own files on a host.

``motion.json`` is there while the host is in motion, ``originals.json`` holds
what was found before the first write, ``record.json`` the rest.
"""

from __future__ import annotations

import json
from typing import Any, cast

from dsatier import schema
from dsatier.desire import Originals
from dsatier.host import Host, Missing
from dsatier.problem import Invalid
from dsatier.records import Motion, Record

FOLDER = "/var/lib/dsatier"
MOTION = f"{FOLDER}/motion.json"
ORIGINALS = f"{FOLDER}/originals.json"
RECORD = f"{FOLDER}/record.json"
STATUS = "/run/dsatier/status.json"
LOCK = "/run/dsatier/lock"


class Spoilt(Exception):
    """One of dsatier's own files says what dsatier never wrote."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(
            f"{path}: expected what dsatier wrote, found something else ({message}); look at the "
            f"host, then remove the file: the host's originals may be lost with it"
        )


class Journal:
    """Reads and writes dsatier's own files. Every write may raise Rejected."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def record(self) -> Record:
        """Return the record, a fresh one where there is none. Raises Spoilt."""
        return cast(Record, self._load(RECORD, "record")) or Record()

    def motion(self) -> Motion | None:
        """Return the open journal of a run that did not end, if any. Raises Spoilt."""
        return cast("Motion | None", self._load(MOTION, "motion"))

    def originals(self) -> Originals | None:
        """Return what was found before the first write, if anything was written. Raises Spoilt."""
        return cast("Originals | None", self._load(ORIGINALS, "originals"))

    def keep_record(self, record: Record) -> None:
        """Keep the record and tell the world of it."""
        self._host.keep(RECORD, _text(record))

    def keep_originals(self, originals: Originals) -> None:
        """Keep what was found, durably, before the first write."""
        self._host.keep(ORIGINALS, _text(originals))

    def keep_motion(self, motion: Motion) -> None:
        """Open the journal, or note the next step in it."""
        self._host.keep(MOTION, _text(motion))

    def close_motion(self) -> None:
        """Close the journal: the host is at rest."""
        self._host.drop(MOTION)

    def forget_originals(self) -> None:
        """Forget what was found: the host is as it was."""
        self._host.drop(ORIGINALS)

    def publish(self, status: dict[str, Any]) -> None:
        """Write the status file that everybody may read."""
        self._host.keep(STATUS, json.dumps(status, indent=2) + "\n", 0o644)

    def _load(self, path: str, kind: str) -> object | None:
        try:
            text = self._host.read(path)
        except Missing:
            return None
        try:
            return cast(object, schema.validate(kind, text))
        except Invalid as invalid:
            raise Spoilt(path, str(invalid)) from invalid


def _text(value: object) -> str:
    return json.dumps(schema.dump(value)) + "\n"
