# SPDX-License-Identifier: Apache-2.0
"""Which lines of the kernel log tell of a hurt engine or kernel, and which only look so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dsatier.facts.kernel_complaints import complaints
from dsatier.facts.model import Facts
from tests.support import build
from tests.support.scenarios import LIVE

OURS = LIVE["ours"].devices[0].pci.removeprefix("0000:")
"""The address of a device whose channels the engine holds."""


@pytest.mark.parametrize(
    "line",
    [
        "traps: a.out[4242] general protection fault ip:55d3b7c0113d sp:7ffe error:0 in a.out",
        "traps: a.out[4242] trap divide error ip:401136 sp:7ffe3b1c0000 error:0 in a.out",
        "DMAR: [DMA Write NO_PASID] Request device [03:00.0] fault addr 0x7f000 [fault reason 5]",
        "DMAR: DRHD: handling fault status reg 2",
        "idxd 0000:03:00.0: idxd halted, need FLR",
        "watchdog: BUG: soft lockup - CPU#5 stuck for 26s! [worker:4242]",
        "BUG: workqueue lockup - pool cpus=5 node=0 flags=0x0 nice=0 stuck for 31s!",
        "self-test of a monitoring agent: BUG: this is only a test",
        # programs choose their names
        "BUG: KASAN: x[42]: segfault at 0 ip 0000000000401136 sp 00007ffe error 4 in x",
        "traps: Oops: [#1][42] general protection fault ip:1 sp:2 error:0",
        "traps: x\nOops: [#1][42] general protection fault ip:1 sp:2 error:0",
        "Oops: [42]: segfault at 0 ip 0000000000401136 sp 00007ffe error 4 in [#1]",
        "divide error[42]: segfault at 0 ip 1 sp 2 error 4 in x [#1]",
        "idxd_desc[0][0] is fine",
    ],
)
def test_what_a_program_or_another_device_causes_is_no_complaint(line: str) -> None:
    assert complaints((line,), LIVE["ours"]) == ()


@pytest.mark.parametrize(
    "line",
    [
        f"DMAR: [DMA Write NO_PASID] Request device [{OURS}] fault addr 0x7f000 [fault reason 5]",
        f"idxd 0000:{OURS}: idxd halted, need FLR.",
        f"idxd 0000:{OURS}: Device is HALTED!",
        "Failed to initialize DSA.",
        "idxd_desc[0][3] failed with status 0x14, poll_retry 12.",
        "dsatier: dma0chan0: no completion in 5000 ms: copying by CPU, use_dsa_copy_pages reads 0",
        "dsatier: wq2.0: no completion in 500 ms, queue aborted: out of use, channels left: 7",
        "dsatier: 3 of 8 DMA channels, 0 queues are in use, 5 are shared: DSA not initialised",
        "BUG: kernel NULL pointer dereference, address: 0000000000000008",
        "BUG: unable to handle page fault for address: ffffc90000000000",
        "BUG: KASAN: slab-use-after-free in dsa_copy_list+0x1/0x2",
        "BUG: Bad page state in process kswapd0  pfn:12345",
        "kernel BUG at mm/migrate.c:1234!",
        "Oops: 0000 [#1] PREEMPT SMP NOPTI",
        "Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP",
        "general protection fault: 0000 [#1] SMP PTI",
        "divide error: 0000 [#1] SMP PTI",
    ],
)
@pytest.mark.parametrize("family", ["ours", "seed"])
def test_a_hurt_engine_or_kernel_complains(family: str, line: str) -> None:
    assert complaints((line,), LIVE[family]) == (line,)


def test_a_device_that_the_profile_names_counts_before_it_is_held() -> None:
    host = build.facts("ours")
    line = f"idxd {host.devices[0].pci}: idxd halted, need FLR."
    assert complaints((line,), host) == ()
    assert complaints((line,), host, named={host.devices[0].id}) == (line,)


def test_where_the_address_of_a_device_is_not_known_every_device_counts() -> None:
    line = "idxd 0000:03:00.0: idxd halted, need FLR"
    assert complaints((line,), nameless(LIVE["ours"])) == (line,)


def nameless(host: Facts) -> Facts:
    """The host with devices whose PCI addresses cannot be told."""
    return replace(host, devices=tuple(replace(device, pci="") for device in host.devices))
