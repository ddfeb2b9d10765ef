# SPDX-License-Identifier: Apache-2.0
"""The tree of files: a real machine's layout, the same when it is put on a disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsatier.host.port import Missing, Rejected
from dsatier.sim import spec
from dsatier.sim.host import SimHost
from tests.sim.simhosts import config, host, live, load, put, ready


def texts(h: SimHost, *paths: str) -> list[str]:
    return [h.read(path) for path in paths]


def test_topology() -> None:
    h = host("ours", nodes=[{"cpus": "0-3"}, {"cpus": "4-5"}])
    node, cpu = "/sys/devices/system/node/", "/sys/devices/system/cpu/"
    assert ["0-1\n", "0-1\n", "0-3\n", "4-5\n", "10 21\n", "21 10\n"] == texts(
        h,
        f"{node}online",
        f"{node}possible",
        f"{node}node0/cpulist",
        f"{node}node1/cpulist",
        f"{node}node0/distance",
        f"{node}node1/distance",
    )
    put(h, f"{cpu}cpu5/online", 0)
    assert ["0-4\n", "5\n", "0-5\n", "4\n", "0\n"] == texts(
        h,
        f"{cpu}online",
        f"{cpu}offline",
        f"{cpu}possible",
        f"{node}node1/cpulist",
        f"{cpu}cpu5/online",
    )
    put(h, f"{cpu}cpu4/online", 0)
    assert "\n" == h.read(f"{node}node1/cpulist")
    with pytest.raises(Missing):
        put(h, f"{cpu}cpu0/online", 0)
    assert (
        "Node 1 MemTotal:       67108864 kB\n"
        == (h.read(f"{node}node1/meminfo").splitlines(keepends=True)[0])
    )


def test_kernel_files() -> None:
    h = host("ours", swap=[{"path": "/dev/sdb1", "size": 1, "used": 3}], hostname="h1")
    assert ["6.12.63-dsatier\n", "h1\n", "0\n"] == texts(
        h,
        "/proc/sys/kernel/osrelease",
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/tainted",
    )
    assert "CONFIG_INTEL_IDXD=m\n" in h.read("/boot/config-6.12.63-dsatier")
    assert "iommu=pt" in h.read("/proc/cmdline")
    fields = h.read("/proc/swaps").splitlines()[1].split()
    assert ["/dev/sdb1", "partition", "1048576", "3072", "-2"] == fields
    assert "false\n" == h.read("/sys/kernel/mm/numa/demotion_enabled")


def test_the_timer_line_is_the_seeds_byte_for_byte() -> None:
    expected = (
        "timer_state = 0 total_time = 0ms last_time = 0ns last_cnt = 0 dsa_hpage_cnt = 0 "
        "dsa_bpage_cnt = 0 dsa_copy_fail = 0 hpage_cnt = 0 bpage_cnt = 0\n"
    )
    assert [expected] * 2 == [host(kind).read("/proc/timer") for kind in ("tpp", "ours")]


def counts(h: SimHost) -> dict[str, int]:
    words = h.read("/proc/timer").replace("ms ", " ").replace("ns ", " ").split()
    return dict(zip(words[0::3], map(int, words[2::3]), strict=True))


@pytest.mark.parametrize("kind", ["tpp", "ours"])
def test_the_timer_counts_who_copies(kind: str) -> None:
    h = live(kind)
    put(h, "/proc/timer", 1)
    h.sleep(2)
    seen = counts(h)
    assert (200, 0, 0) == (seen["dsa_hpage_cnt"], seen["dsa_bpage_cnt"], seen["hpage_cnt"])
    put(h, "use_dsa_copy_pages", 0)
    h.sleep(1)
    assert (200, 100) == (counts(h)["dsa_hpage_cnt"], counts(h)["hpage_cnt"])
    put(h, "/proc/timer", 0)
    h.sleep(9)
    assert 100 == counts(h)["hpage_cnt"]
    put(h, "/proc/timer", 1)
    assert 0 == counts(h)["hpage_cnt"]


def test_knobs_of_each_kernel() -> None:
    vm = "/proc/sys/vm"
    assert {"dsa_async_mode", "dsa_sync_mode"} == (
        set(host("tpp").entries(vm)) - set(host("ours").entries(vm))
    )
    assert "demote_scale_factor" not in host("memtis").entries(vm)
    assert host("stock").entries(vm) == (
        "compaction_proactiveness",
        "min_free_kbytes",
        "watermark_boost_factor",
        "watermark_scale_factor",
        "zone_reclaim_mode",
    )
    assert ("abi", "manifest") == host("ours").entries("/sys/kernel/mm/dsatier")
    assert () == host("tpp").entries("/sys/kernel/mm/dsatier")
    assert "3\n" == _stored(host("tpp"), "/proc/sys/kernel/numa_balancing", "3")


def _stored(h: SimHost, path: str, text: str) -> str:
    h.write(path, text, 5.0)
    return h.read(path)


def test_dsa_objects() -> None:
    h = host("ours", devices=2)
    assert "../../../devices/pci0000:6f/0000:6f:01.0/dsa1" == h.link("/sys/bus/dsa/devices/dsa1")
    real = "/sys/devices/pci0000:6f/0000:6f:01.0/dsa1/wq1.3/size"
    assert ["0\n", "0\n"] == texts(h, real, "/sys/bus/dsa/devices/wq1.3/size")
    assert None is h.link("/sys/bus/dsa/devices/dsa0/driver")
    assert 0 == load(h, config(1))
    assert "../../../../bus/dsa/drivers/idxd" == h.link("/sys/bus/dsa/devices/dsa0/driver")
    assert "../../../../../bus/dsa/drivers/dmaengine" == (
        h.link("/sys/bus/dsa/devices/wq0.0/driver")
    )
    assert ("bind", "unbind", "wq0.0") == h.entries("/sys/bus/dsa/drivers/dmaengine")
    assert "wq0.0\n" == h.read("/sys/bus/dsa/devices/group0.0/work_queues")
    put(h, "/sys/bus/dsa/devices/wq0.0/driver/unbind", "wq0.0")
    assert "disabled\n" == h.read("/sys/bus/dsa/devices/wq0.0/state")
    for write_only in ("bind", "unbind"):
        with pytest.raises(Rejected):
            h.read(f"/sys/bus/dsa/drivers/idxd/{write_only}")
    with pytest.raises(Rejected):
        put(h, "/sys/bus/dsa/devices/wq0.0/clients", 1)


def test_channels_hang_on_the_pci_device_as_in_the_driver() -> None:
    h = ready("ours", 2)
    chan = "/sys/class/dma/dma1chan0"
    assert "../../devices/pci0000:6a/0000:6a:01.0/dma/dma1chan0" == h.link(chan)
    assert "../../../0000:6a:01.0" == h.link(f"{chan}/device")
    assert ("bytes_transferred", "device", "in_use", "memcpy_count", "subsystem") == (
        h.entries(chan)
    )
    assert "0\n" == h.read(f"{chan}/in_use")
    put(h, "limit_chans", 2)
    put(h, "dsa_state", 1)
    assert ["1\n", "1\n"] == texts(h, f"{chan}/in_use", "/sys/bus/dsa/devices/wq0.0/clients")


@pytest.mark.parametrize(
    ("mode", "text"), [("passthrough", "identity\n"), ("translated", "DMA-FQ\n")]
)
def test_iommu(mode: str, text: str) -> None:
    h = host("ours", iommu=mode, devices=1)
    group = "/sys/kernel/iommu_groups/0"
    assert text == h.read(f"{group}/type")
    assert ("0000:6a:01.0",) == h.entries(f"{group}/devices")
    assert ("dmar0", "dmar1") == h.entries("/sys/class/iommu")
    assert () == host("ours", iommu="off").entries("/sys/class/iommu")


@pytest.mark.parametrize("name", spec.shipped())
def test_a_tree_on_disk_reads_as_the_host_does(name: str, tmp_path: Path) -> None:
    h = SimHost.host_for(name)
    if h.kernel.spec.accel_config:
        load(h, config(1))
    files = 0
    for node in h.walk():
        place = tmp_path / node.path[1:]
        if node.kind == "dir":
            place.mkdir()
        elif node.kind == "link":
            place.symlink_to(node.text or "")
            assert node.text == h.link(node.path)
        else:
            place.write_text(node.text or "")
    for node in h.walk():
        place = tmp_path / node.path[1:]
        if node.kind == "file" and node.text is not None:
            files += 1
            assert node.text == h.read(node.path)
        elif node.kind == "dir":
            assert tuple(sorted(p.name for p in place.iterdir())) == h.entries(node.path)
        elif node.kind == "link":
            # links lead to the same place in both
            there = place.resolve()
            assert there.is_relative_to(tmp_path)
            assert there.is_dir(), node.path
            assert tuple(sorted(p.name for p in there.iterdir())) == h.entries(node.path)
    assert files > 50


def test_reads_through_links_on_disk_and_in_memory_agree(tmp_path: Path) -> None:
    h = ready("ours", 1, devices=1)
    for node in h.walk():
        place = tmp_path / node.path[1:]
        if node.kind == "dir":
            place.mkdir()
        elif node.kind == "link":
            place.symlink_to(node.text or "")
        else:
            place.write_text(node.text or "")
    through = [
        "/sys/bus/dsa/devices/wq0.0/state",
        "/sys/class/dma/dma0chan0/in_use",
        "/sys/class/dma/dma0chan0/device/dsa0/wq0.0/clients",
        "/sys/bus/dsa/drivers/dmaengine/wq0.0/size",
        "/sys/kernel/iommu_groups/0/devices/0000:6a:01.0/numa_node",
        "/sys/devices/system/node/node0/cpu1/online",
        "/sys/bus/dsa/devices/dsa0/subsystem/devices/wq0.0/mode",
    ]
    assert texts(h, *through) == [(tmp_path / path[1:]).read_text() for path in through]


def test_a_folder_is_no_file_and_nothing_is_missing() -> None:
    h = host("ours")
    with pytest.raises(Rejected):
        h.read("/proc/sys/vm")
    with pytest.raises(Missing):
        h.read("/proc/sys/vm/no_such_knob")
    with pytest.raises(Missing):
        h.write("/proc/sys/vm/no_such_knob", "1", 5.0)
    assert () == h.entries("/no/such/folder")
