# SPDX-License-Identifier: Apache-2.0
"""What is read from dmatest, and what ``make vm`` is asked for."""

from __future__ import annotations

import pytest

from vm.__main__ import chosen
from vm.idxd import Summary, configuration, summaries

SAID = """\
[    5.349479] dmatest: Started 4 threads using dma1chan0
[    5.900085] dmatest: dma0chan0-copy2: summary 50 tests, 1 failures 96.66 iops 790 KB/s (0)
[    5.900090] dmatest: dma3chan1-copy0: result #1: 'prep error' with src_off=0x1 len=0x3
"""


def test_summaries_are_read() -> None:
    assert [Summary("dma0chan0", 50, 1, 96.66, 790)] == summaries(SAID.splitlines())


def test_the_configuration_is_of_the_seeds_shape() -> None:
    text = configuration(8)
    assert (8, 8, 32) == tuple(
        text.count(word) for word in ('"dev": "dsa', '"dev": "wq', '"dev": "engine')
    )
    assert 8 == text.count('"mode": "dedicated"') == text.count('"size": 128')


def test_a_guest_by_variables() -> None:
    assert 8 == len(chosen({}).dsa)
    machine = chosen({"DEVICES": "2", "VERSION": "2.0", "IOMMU": "translated", "MEMORY": "2048"})
    assert ({"version": "2.0"}, [0, 1]) == (
        machine.dsa[0].properties,
        [d.node for d in machine.dsa],
    )
    assert ("translated", 2048) == (machine.iommu, machine.nodes[0].memory)
    assert () == chosen({"DEVICES": "0"}).dsa


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"IOMMU": "on"}, "IOMMU: expected off, passthrough, translated, found on"),
        ({"VERSION": "3.0"}, "VERSION: expected 1.0 or 2.0, found 3.0"),
        ({"DEVICES": "17"}, "DEVICES: expected a number from 0 to 16, found 17"),
        ({"CPUS": "0"}, "CPUS: expected a number from 1 to 64, found 0"),
    ],
)
def test_a_guest_that_cannot_be_is_refused(variables: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen(variables)
