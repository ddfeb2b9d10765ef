# SPDX-License-Identifier: Apache-2.0
"""What is told of simulated devices is what their record holds."""

from __future__ import annotations

import json

from tests.kernel.simulated import PICTURE, RECORD, picture, tables

DOCUMENT = PICTURE.with_name("kernel-measured.md")


def test_the_picture_is_of_the_record() -> None:
    assert PICTURE.read_text() == picture(json.loads(RECORD.read_text()))


def test_the_tables_are_of_the_record() -> None:
    lines = set(DOCUMENT.read_text().splitlines())
    told = [line for line in tables(json.loads(RECORD.read_text())).splitlines() if "|" in line]
    assert len(told) > 40
    assert not [line for line in told if line not in lines]
