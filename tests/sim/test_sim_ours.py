# SPDX-License-Identifier: Apache-2.0
"""Our kernel refuses what is unsafe, whatever the order."""

from __future__ import annotations

import errno
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsatier.host.port import Missing, Rejected
from dsatier.sim.host import SimHost
from tests.sim.simhosts import BALANCING, DEMOTION, config, get, host, kinds, live, load, put, ready


def refusal(h: SimHost, name: str, value: int | str) -> str:
    with pytest.raises(Rejected) as refused:
        put(h, name, value)
    return errno.errorcode[refused.value.errno]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("use_concur_to_compact", 2),
        ("use_concur_to_demote", -1),
        ("cpu_multi_copy_pages", 2),
        ("limit_mt_num", 0),
        ("limit_mt_num", 33),
        ("dsa_state", 2),
        ("use_dsa_copy_pages", 2),
        ("use_dsa_copy_pages", 1),
        ("limit_chans", 0),
        ("limit_chans", 9),
        ("limit_chans", "eight"),
        ("limit_chans", "4x"),
        ("limit_chans", " "),
        ("dsa_copy_threshold", 0),
        ("dsa_copy_threshold", 2147483648),
        ("demote_scale_factor", 0),
        ("demote_scale_factor", 10001),
        (BALANCING, 5),
        (DEMOTION, "maybe"),
        ("/proc/timer", "1x"),
        ("/proc/timer", "1" * 2000),
    ],
)
def test_what_is_out_of_range_is_refused_and_changes_nothing(name: str, value: int | str) -> None:
    h = ready("ours")
    before = get(h, name)
    assert "EINVAL" == refusal(h, name, value)
    assert before == get(h, name)


def test_an_init_without_enough_channels_stays_0_and_holds_nothing() -> None:
    h = ready("ours", 3)
    mark = h.log_mark()
    assert "ENODEV" == refusal(h, "dsa_state", 1)
    assert "0" == get(h, "dsa_state")
    assert "0" == get(h, "/sys/bus/dsa/devices/wq0.0/clients")
    said = (
        "dsatier: 3 of 8 DMA channels, 0 queues are in use, 0 are shared, 0 bounce: "
        "DSA not initialised"
    )
    assert (said,) == h.log_since(mark).lines
    put(h, "limit_chans", 3)
    put(h, "dsa_state", 1)
    put(h, "use_dsa_copy_pages", 1)
    assert [] == h.harm


def test_busy() -> None:
    h = live("ours")
    assert "EBUSY" == refusal(h, "dsa_state", 0)
    assert "EBUSY" == refusal(h, "limit_chans", 4)
    put(h, "dsa_copy_threshold", 512)
    put(h, "use_dsa_copy_pages", 0)
    assert "EBUSY" == refusal(h, "limit_chans", 4)
    put(h, "dsa_state", 0)
    put(h, "limit_chans", 7)
    put(h, "dsa_state", 1)
    assert [] == h.harm


def test_other_channels_and_shared_queues_are_no_channels_of_ours() -> None:
    h = host("ours", other_dma=[{"channels": 4}])
    assert 0 == load(h, config(7))
    assert 0 == load(h, config(1, first=7, mode="shared", threshold=8))
    assert "ENODEV" == refusal(h, "dsa_state", 1)


@pytest.mark.parametrize(
    ("path", "text", "errno_name"),
    [
        ("/sys/bus/dsa/drivers/idxd/bind", "dsa0", "EBUSY"),
        ("/sys/bus/dsa/drivers/idxd/bind", "dsa1", "ENXIO"),
        ("/sys/bus/dsa/drivers/idxd/bind", "wq0.0", "ENODEV"),
        ("/sys/bus/dsa/drivers/idxd/bind", "dsa9", "ENODEV"),
        ("/sys/bus/dsa/drivers/dmaengine/bind", "wq0.0", "EBUSY"),
        ("/sys/bus/dsa/drivers/dmaengine/bind", "wq1.0", "ENXIO"),
        ("/sys/bus/dsa/drivers/dmaengine/bind", "wq0.1", "ENODEV"),
        ("/sys/bus/dsa/drivers/user/unbind", "wq0.0", "ENODEV"),
        ("/sys/bus/dsa/devices/wq0.0/size", "64", "EPERM"),
        ("/sys/bus/dsa/devices/wq0.0/mode", "shared", "EPERM"),
        ("/sys/bus/dsa/devices/wq0.0/threshold", "4", "ENXIO"),
        ("/sys/bus/dsa/devices/wq1.0/size", "129", "EINVAL"),
        ("/sys/bus/dsa/devices/wq1.0/priority", "16", "EINVAL"),
        ("/sys/bus/dsa/devices/wq1.0/type", "both", "EINVAL"),
        ("/sys/bus/dsa/devices/wq1.0/mode", "both", "EINVAL"),
        ("/sys/bus/dsa/devices/wq1.0/group_id", "4", "EINVAL"),
        ("/sys/bus/dsa/devices/wq1.0/max_batch_size", "1025", "EINVAL"),
        ("/sys/bus/dsa/devices/wq1.0/max_transfer_size", "0", "EINVAL"),
        ("/sys/bus/dsa/devices/engine1.0/group_id", "4", "EINVAL"),
        ("/sys/bus/dsa/devices/group1.0/traffic_class_a", "1", "EPERM"),
        ("/sys/bus/dsa/devices/group1.0/use_read_buffer_limit", "1", "EPERM"),
        ("/sys/bus/dsa/devices/group1.0/read_buffers_reserved", "97", "EINVAL"),
        ("/sys/bus/dsa/devices/group0.0/read_buffers_allowed", "8", "EPERM"),
        ("/sys/bus/dsa/devices/dsa0/read_buffer_limit", "8", "EPERM"),
    ],
)
def test_the_driver_refuses(path: str, text: str, errno_name: str) -> None:
    h = ready("ours", 1, devices=2)
    assert errno_name == refusal(h, path, text)
    assert [] == h.harm


def test_there_is_no_async_mode() -> None:
    with pytest.raises(Missing):
        put(host("ours"), "dsa_async_mode", 0)


@pytest.mark.parametrize(
    ("text", "value"),
    [("4", "4"), (" 4\n", "4"), ("\t2 7\n", "2"), ("0x8", "8"), ("07", "7"), ("", "8")],
)
def test_numbers_are_read_as_the_kernel_reads_them(text: str, value: str) -> None:
    h = host("ours")
    h.write("/proc/sys/vm/limit_chans", text, 5.0)
    assert value == get(h, "limit_chans")


KNOBS = [
    "use_concur_to_compact",
    "use_concur_to_demote",
    "cpu_multi_copy_pages",
    "limit_mt_num",
    "dsa_state",
    "use_dsa_copy_pages",
    "limit_chans",
    "dsa_copy_threshold",
    "demote_scale_factor",
    BALANCING,
    DEMOTION,
    "/proc/timer",
    "/sys/devices/system/cpu/cpu1/online",
    "/sys/bus/dsa/drivers/idxd/bind",
    "/sys/bus/dsa/drivers/idxd/unbind",
    "/sys/bus/dsa/drivers/dmaengine/bind",
    "/sys/bus/dsa/drivers/dmaengine/unbind",
    "/sys/bus/dsa/devices/wq0.0/mode",
    "/sys/bus/dsa/devices/wq1.0/max_batch_size",
]
VALUES = st.one_of(
    st.integers(-2, 10).map(str),
    st.sampled_from(["dsa0", "dsa1", "wq0.0", "wq1.0", "shared", "dedicated", "64", "1x", ""]),
)
BASE = ready("ours", devices=2, queues=2)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KNOBS), VALUES, st.sampled_from([0.0, 3.0]))))
def test_no_order_of_writes_harms(steps: list[tuple[str, str, float]]) -> None:
    h = BASE.copy()
    for name, value, pause in steps:
        # anything but a refusal, HostDown above all, ends the test
        with suppress(Rejected):
            put(h, name, value)
        h.sleep(pause)
    assert "" == h.down
    # what mainline's tiering knobs bring about is refused by no kernel
    assert set(kinds(h)) <= {"ineffective"}
    used = sum(int(get(h, f"/sys/class/dma/{c}/in_use")) for c in h.entries("/sys/class/dma"))
    assert used == len(h.kernel.state.engine.chans)
