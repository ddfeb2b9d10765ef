# SPDX-License-Identifier: Apache-2.0
"""The two back ends, for every test of the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dsatier.host.port import Host
from dsatier.sim.host import SimHost
from tests.support.treehost import TreeHost

Make = Callable[[SimHost], Host]


@pytest.fixture(params=["sim", "files"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Make a back end of a simulated host: itself, or real files with it as their kernel."""
    made: list[TreeHost] = []

    def back_end(sim: SimHost) -> Host:
        if request.param == "sim":
            return sim
        root = tmp_path / f"root{len(made)}"
        root.mkdir()
        host = TreeHost(sim, root)
        made.append(host)
        return host

    yield back_end
    for host in made:
        host.close()
