# SPDX-License-Identifier: Apache-2.0
"""From the text of kernel files to values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsatier.facts.model import Swap
from dsatier.facts.observe import parse as text
from dsatier.host.port import HostError


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("0-3,8\n", (0, 1, 2, 3, 8)),
        ("\n", ()),
        ("", ()),
        ("7", (7,)),
        ("0,2,4-5\n", (0, 2, 4, 5)),
        ("5-5", (5,)),
    ],
)
def test_cpu_lists(listed: str, expected: tuple[int, ...]) -> None:
    assert expected == text.cpus(listed, "/x")


@pytest.mark.parametrize("listed", ["3-1", "a", "0-", "-3", "0-99999999", "1;2", "٣", "0-3-5"])
def test_what_is_no_cpu_list(listed: str) -> None:
    with pytest.raises(text.Malformed) as caught:
        text.cpus(listed, "/sys/cpu/online")
    assert "/sys/cpu/online" == caught.value.path
    assert "expected" in str(caught.value)


@given(st.frozensets(st.integers(0, 2000)))
def test_every_cpu_list_comes_back(numbers: frozenset[int]) -> None:
    assert tuple(sorted(numbers)) == text.cpus(",".join(map(str, sorted(numbers))), "/x")


@given(st.text())
def test_no_text_breaks_the_parsers_otherwise_than_told(found: str) -> None:
    for parse in (text.cpus, text.whole, text.numbers, text.swaps, text.timer):
        try:
            parse(found, "/x")
        except HostError as error:
            assert "/x: expected" in str(error)
    text.words(found)
    text.version(found)
    text.cpu_model(found)
    text.demotion(found)
    text.pci_address(found)
    text.options(found, frozenset({"CONFIG_NUMA"}))


def test_malformed_names_path_expected_and_found_on_one_line() -> None:
    with pytest.raises(text.Malformed) as caught:
        text.whole("x\ny" * 100, "/proc/n")
    assert "/proc/n: expected a whole number, found 'x" == str(caught.value)[:42]
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_boot_parameters() -> None:
    line = 'BOOT_IMAGE=/vmlinuz ro dyndbg="file a.c +p; x"  iommu=pt\n'
    assert ("BOOT_IMAGE=/vmlinuz", "ro", 'dyndbg="file a.c +p; x"', "iommu=pt") == text.words(line)


SWAPS = """Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority
/dev/nvme0n1p3                          partition\t16777212\t1024\t-2
/srv/my\\040swap                         file\t\t1048572\t\t0\t5
/old\\040(deleted)                       file\t\t4\t\t0\t-3
"""


def test_swaps_with_escaped_names() -> None:
    expected = (
        Swap("/dev/nvme0n1p3", 16777212 << 10, 1 << 20, -2),
        Swap("/srv/my swap", 1048572 << 10, 0, 5),
        Swap("/old (deleted)", 4096, 0, -3),
    )
    assert expected == text.swaps(SWAPS, "/proc/swaps")


TIMER = (
    "timer_state = 0 total_time = 255ms last_time = 22281ns last_cnt = 0 dsa_hpage_cnt = 0 "
    "dsa_bpage_cnt = 3 dsa_copy_fail = 0 hpage_cnt = 0 bpage_cnt = 512\nmore = 7\n"
)


def test_the_timer_with_its_glued_units() -> None:
    found = text.timer(TIMER, "/proc/timer")
    assert (0, 255, 22281, 3, 512) == (
        found["timer_state"],
        found["total_time"],
        found["last_time"],
        found["dsa_bpage_cnt"],
        found["bpage_cnt"],
    )
    assert 9 == len(found)


ZONES = """Node 0, zone      DMA
  pages free     3840
        high     10
        demote   11
Node 0, zone   Normal
  pages free     100
        high     30
        demote   4711
        spanned  262144
Node 1, zone   Normal
        demote   5
Node 10, zone   Normal
        demote   6
"""


def test_the_demotion_watermark_of_each_node() -> None:
    found = {node: (one.watermark, one.target) for node, one in text.demotion(ZONES).items()}
    assert {0: (4711, None), 1: (5, None), 10: (6, None)} == found


def test_a_header_that_goes_on_as_that_of_tpp_does() -> None:
    shown = ZONES.replace("Normal\n", "Normal, toptier 1 next_demotion_node -1\n", 1)
    assert (4711, -1) == text.demotion(shown)[0]
    assert (5, None) == text.demotion(shown)[1]
    silent = ZONES.replace("demote", "spread").replace("Normal\n", "Normal, toptier 1\n")
    assert {} == text.demotion(silent)


def test_a_kernel_that_shows_no_watermark() -> None:
    assert {} == text.demotion(ZONES.replace("demote", "spread"))


def test_kernel_options() -> None:
    config = '# CONFIG_A is not set\nCONFIG_B=m\nCONFIG_C="x"\nCONFIG_BB=y\n'
    names = frozenset({"CONFIG_A", "CONFIG_B", "CONFIG_C", "CONFIG_D"})
    expected = {"CONFIG_A": "n", "CONFIG_B": "m", "CONFIG_C": "x", "CONFIG_D": "n"}
    assert expected == text.options(config, names)


@pytest.mark.parametrize(
    ("said", "expected"), [("3.5.3+\n", "3.5.3"), ("4.1.6", "4.1.6"), ("", None), ("v4\n", None)]
)
def test_versions(said: str, expected: str | None) -> None:
    assert expected == text.version(said)


def test_pci_addresses_in_links() -> None:
    link = "../../../devices/pci0000:6a/0000:6a:01.0/dsa0"
    assert "0000:6a:01.0" == text.pci_address(link, above="dsa0")
    assert "0000:6a:01.0" == text.pci_address("../../devices/x/0000:6a:01.0/dma/dma0chan0")
    assert "" == text.pci_address("../../devices/virtual/dsa0", above="dsa0")
    assert "" == text.pci_address("", above="dsa0")


def test_the_boolean_knob_reads_as_a_number() -> None:
    assert ("1", "0", "7") == (
        text.knob("demotion_enabled", "true\n"),
        text.knob("demotion_enabled", "false\n"),
        text.knob("limit_chans", "7\n"),
    )
