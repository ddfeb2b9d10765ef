# SPDX-License-Identifier: Apache-2.0
"""Every test here is judged by the logs of its guests' kernels as well."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.stock.hold import away
from tests.system.conftest import package
from tests.vm.conftest import kernel_logs, pytest_runtest_makereport
from vm.guest import LIVE

__all__ = ["kernel_logs", "package", "pytest_runtest_makereport"]


@pytest.fixture(autouse=True)
def given_back() -> Iterator[None]:
    """A test that failed leaves no memory taken for the next."""
    yield
    for guest in tuple(LIVE):
        away(guest)
