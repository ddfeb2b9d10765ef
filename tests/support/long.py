# SPDX-License-Identifier: Apache-2.0
"""Tests that take long, which ``make test-long`` asks for."""

from __future__ import annotations

import os

import pytest

LONG = "DSATIER_LONG" in os.environ
"""Test all of a matrix; else some of it."""
LONG_ONLY = pytest.mark.skipif(not LONG, reason="DSATIER_LONG is not set")
