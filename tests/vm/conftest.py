# SPDX-License-Identifier: Apache-2.0
"""Every test leaves the kernels of its guests without a complaint."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from vm.guest import LIVE


@pytest.fixture(autouse=True)
def kernel_logs() -> Iterator[None]:
    """Judge the kernel logs of all guests that run, after the test."""
    yield
    for guest in tuple(LIVE):
        guest.check()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the ends of the consoles with a test that failed, and keep them."""
    report = yield
    if report.failed:
        for guest in tuple(LIVE):
            text = "\n".join(guest.console.splitlines()[-40:])
            report.sections.append((f"console of {guest.name}, kept in {guest.keep()}", text))
    return report
