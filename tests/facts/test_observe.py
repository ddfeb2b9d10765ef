# SPDX-License-Identifier: Apache-2.0
"""What is told of kernels, IOMMUs, devices, channels and the log."""

from __future__ import annotations

import pytest

from dsatier.cli import render
from dsatier.cli.render import facts as show_facts
from dsatier.facts.model import Channel, Elsewhere, Facts, Family, Iommu, WorkQueue
from dsatier.facts.observe import dsa, iommu
from dsatier.facts.observe import kernel as kernels
from dsatier.facts.observe.observer import Observer, observe
from dsatier.facts.observe.parse import Malformed
from dsatier.facts.readings import worst
from dsatier.host.port import Rejected
from dsatier.sim import spec
from dsatier.sim.host import SimHost
from tests.support.memory import TextHost

ABI = {"/sys/kernel/mm/dsatier/abi": "1\n"}
SEED = {"/proc/sys/vm/dsa_state": "0\n"}
BOOT = {"/proc/sys/kernel/random/boot_id": "one\n"}


def test_a_host_of_nothing_has_facts_of_nothing() -> None:
    found = observe(TextHost())
    assert ("none", None, False) == (found.kernel.family, found.kernel.abi, found.kernel.evl_guard)
    assert ({}, {}, (), (), (), ()) == (
        found.knobs,
        found.timer,
        found.nodes,
        found.devices,
        found.channels,
        found.swaps,
    )
    assert ("unknown", None) == (found.iommu, found.accel_config)


def test_facts_say_no_more_than_their_class() -> None:
    assert Facts.__slots__ == tuple(Facts.__dataclass_fields__)
    assert observe(SimHost.host_for("dsa2")).schema_version == 1


@pytest.mark.parametrize(
    ("files", "family", "abi"),
    [
        (ABI | SEED, "ours", 1),
        ({"/sys/kernel/mm/dsatier/abi": "2\n"} | SEED, "unknown", 2),
        (SEED, "seed", None),
        ({}, "none", None),
    ],
)
def test_families(files: dict[str, str], family: Family, abi: int | None) -> None:
    assert (family, abi) == kernels.family(TextHost(files))


def test_an_abi_that_is_no_number_is_told() -> None:
    with pytest.raises(Malformed, match="/sys/kernel/mm/dsatier/abi: expected a whole number"):
        observe(TextHost({"/sys/kernel/mm/dsatier/abi": "new\n"}))


@pytest.mark.parametrize(
    ("release", "family", "guarded"),
    [
        ("6.12.117+deb13-amd64", "none", False),
        ("6.12.117", "none", False),
        ("6.12.48+deb13-amd64", "none", True),
        ("6.12.51", "none", False),
        ("6.12.0-55.9.1.el10_0.x86_64", "none", False),
        ("6.12.5", "none", True),
        ("6.1.0-28-amd64", "none", True),
        ("5.14.0-427.el9.x86_64", "none", False),
        ("6.3.7", "none", True),
        ("6.30.1", "none", False),
        ("6.4.0", "none", False),
        ("6.6.99-arch1", "none", True),
        ("6.6.100", "none", False),
        ("7.0.1", "none", False),
        ("", "none", False),
        ("5.13.0-rc6-tpp", "seed", True),
        ("6.12.117-dsatier", "ours", True),
        ("6.12.48", "unknown", True),
    ],
)
def test_which_kernels_mind_a_device_without_event_log(
    release: str, family: Family, guarded: bool
) -> None:
    assert guarded == kernels.evl_guard(release, family)


def test_the_configuration_is_read_from_boot_or_proc() -> None:
    host = TextHost({"/proc/config.gz": "CONFIG_INTEL_IDXD=m\n"})
    found = kernels.configuration(host, "6.12")
    assert found is not None
    assert ("m", "n") == (found["CONFIG_INTEL_IDXD"], found["CONFIG_NUMA_BALANCING"])
    host.files["/boot/config-6.12"] = "CONFIG_INTEL_IDXD=y\n"
    found = kernels.configuration(host, "6.12")
    assert found is not None
    assert "y" == found["CONFIG_INTEL_IDXD"]
    assert kernels.configuration(TextHost(), "6.12") is None


@pytest.mark.parametrize(
    ("cmdline", "expected"),
    [
        ("", "unknown"),
        ("intel_iommu=on", "translated"),
        ("intel_iommu=on,sm_on iommu=pt", "passthrough"),
        ("iommu.passthrough=1", "passthrough"),
        ("intel_iommu=on intel_iommu=off", "off"),
        ("iommu=pt iommu=off", "off"),
        ("iommu=nopt", "unknown"),
    ],
)
def test_what_boot_parameters_ask_of_the_iommu(cmdline: str, expected: Iommu) -> None:
    assert expected == iommu.asked_for(tuple(cmdline.split()))


@pytest.mark.parametrize(
    ("cmdline", "expected"),
    [
        ("intel_iommu=on,sm_on", True),
        ("intel_iommu=sm_on", True),
        ("intel_iommu=on intel_iommu=sm_on", True),
        ("intel_iommu=sm_on intel_iommu=sm_off", False),
        ("intel_iommu=on", False),
        ("sm_on", False),
    ],
)
def test_scalable_mode(cmdline: str, expected: bool) -> None:
    assert expected == iommu.scalable_mode(tuple(cmdline.split()))


@pytest.mark.parametrize(
    ("cmdline", "default", "expected"),
    [("iommu=pt", "y", True), ("intel_iommu=sm_off", "y", False), ("iommu=pt", "n", False)],
)
def test_scalable_mode_by_the_kernels_default(cmdline: str, default: str, expected: bool) -> None:
    option = "CONFIG_INTEL_IOMMU_SCALABLE_MODE_DEFAULT_ON"
    assert expected == iommu.scalable_mode(tuple(cmdline.split()), {option: default})


def test_a_device_with_its_pasid_enabled_shows_scalable_mode() -> None:
    host = SimHost.load(
        "version: 1\nkernel: {release: 6.12.63-dsatier, kind: ours, cmdline: 'intel_iommu=on'}\n"
        "nodes: [{cpus: 0-3}, {cpus: 4-7}]\ndevices: 1\n"
    )
    assert observe(host).scalable_mode
    assert "sm_on" not in " ".join(observe(host).kernel.cmdline)


def test_devices_that_another_driver_has() -> None:
    at = "/sys/bus/pci/drivers"
    host = TextHost(
        {
            f"{at}/vfio-pci/0000:6a:01.0/vendor": "0x8086\n",
            f"{at}/vfio-pci/0000:6a:01.0/device": "0x0b25\n",
            f"{at}/vfio-pci/0000:17:00.0/vendor": "0x8086\n",
            f"{at}/vfio-pci/0000:17:00.0/device": "0x1592\n",
            f"{at}/vfio-pci/0000:18:00.0/vendor": "0x15b3\n",
            f"{at}/vfio-pci/0000:18:00.0/device": "0x0b25\n",
            f"{at}/vfio-pci/new_id": "",
        }
    )
    assert (Elsewhere("0000:6a:01.0", "vfio-pci"),) == observe(host).elsewhere


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        (("identity", "identity"), "passthrough"),
        (("identity", "DMA-FQ"), "translated"),
        (("DMA", None), "translated"),
        (("identity", None), "passthrough"),
        ((None, None), "off"),
        (("blocked", "identity"), "unknown"),
    ],
)
def test_the_worst_device_tells_the_iommu(types: tuple[str | None, ...], expected: Iommu) -> None:
    files = {
        f"{iommu.GROUPS}/{n}/type": f"{kind}\n" for n, kind in enumerate(types) if kind is not None
    }
    links = {
        f"{iommu.PCI}/0000:6a:0{n}.0/iommu_group": f"../../../../kernel/iommu_groups/{n}"
        for n, kind in enumerate(types)
        if kind is not None
    }
    host = TextHost(files, links)
    groups = [iommu.group_of(host, f"0000:6a:0{n}.0") for n in range(len(types))]
    assert expected == worst(groups)


def queue(
    name: str, *, clients: int = 0, state: str = "enabled", kind: str = "kernel"
) -> WorkQueue:
    return WorkQueue(
        id=name, state=state, type=kind, mode="dedicated", name="x", driver_name=None, group=0,
        size=16, priority=10, threshold=0, block_on_fault=False, max_batch_size=128,
        max_transfer_size=1 << 21, clients=clients,
    )  # fmt: skip


def test_held_channels_are_those_of_queues_with_clients() -> None:
    queues = (queue("wq0.0"), queue("wq0.1", clients=1), queue("wq0.2", state="disabled"))
    found = dsa.paired([("dma0chan0", 1), ("dma0chan1", 0)], queues)
    assert {"dma0chan0": "wq0.1", "dma0chan1": "wq0.0"} == found


def test_user_queues_are_no_channels() -> None:
    queues = (queue("wq0.0", kind="user", clients=3), queue("wq0.1"))
    assert {"dma0chan0": "wq0.1"} == dsa.paired([("dma0chan0", 0)], queues)


def test_channels_beyond_the_queues_have_none() -> None:
    found = dsa.paired([("dma0chan0", 0), ("dma0chan1", 1)], (queue("wq0.0"),))
    assert {"dma0chan1": "wq0.0"} == found


def test_channels_and_queues_that_do_not_agree_go_by_order() -> None:
    queues = (queue("wq0.0"), queue("wq0.1"))
    found = dsa.paired([("dma0chan0", 0), ("dma0chan1", 1)], queues)
    assert {"dma0chan0": "wq0.0", "dma0chan1": "wq0.1"} == found


def test_channels_of_other_devices_have_no_queue() -> None:
    text = spec.shipped_text("dsa2") + "\nother_dma: [{channels: 2, in_use: true}]\n"
    found = observe(SimHost.of(spec.parse(text))).channels
    assert (Channel("dma0chan0", None, 1), Channel("dma0chan1", None, 1)) == found


def seed_host() -> TextHost:
    return TextHost(SEED | BOOT, log=("Linux version 5.13", "idxd: ready"))


def test_a_release_in_the_log_is_seen_and_remembered() -> None:
    host = seed_host()
    observer = Observer(host)
    assert observer.look().dsa_released is False
    host.log.append("DMA memcpy module exit.")
    assert observer.look().dsa_released is True
    host.log_first, host.log = 99, []
    assert observer.look().dsa_released is True
    assert observe(host).dsa_released is None


def test_lost_lines_leave_a_release_in_doubt_until_it_is_seen() -> None:
    host = seed_host()
    observer = Observer(host)
    observer.look()
    host.log_first += 10
    assert observer.look().dsa_released is None
    assert observer.look().dsa_released is None
    host.log.append("DMA memcpy module exit.")
    assert observer.look().dsa_released is True


def test_another_boot_is_looked_at_anew() -> None:
    host = seed_host()
    host.log.append("DMA memcpy module exit.")
    observer = Observer(host)
    assert observer.look().dsa_released is True
    host.files["/proc/sys/kernel/random/boot_id"] = "two\n"
    host.files |= ABI
    host.log = ["Linux version 6.12"]
    found = observer.look()
    assert ("ours", "two", False) == (found.kernel.family, found.kernel.boot_id, found.dsa_released)


def test_a_log_that_may_not_be_read_leaves_a_release_in_doubt() -> None:
    class Closed(TextHost):
        def log_mark(self) -> int:
            raise Rejected("/dev/kmsg", 1, "may not be read")

    found = observe(Closed(SEED))
    assert found.dsa_released is None
    assert not found.kernel_log
    assert "log       the kernel log cannot be read" in render.facts(found).splitlines()
    assert "kernel log" not in render.facts(observe(TextHost(SEED)))


def test_what_stays_is_read_once() -> None:
    sim = SimHost.host_for("dsa8")
    paths: list[str] = []

    class Counting(SimHost):
        def read(self, path: str) -> str:
            paths.append(path)
            return super().read(path)

    host = Counting(sim.kernel)
    observer = Observer(host)
    first = observer.look()
    paths.clear()
    assert first == observer.look()
    assert not [p for p in paths if "/cpu/cpu" in p or "/cpuinfo" in p or "/boot/" in p]
    assert not [p for p in paths if p.endswith(("gen_cap", "max_engines"))]
    assert 128 * 8 > len(paths)


def test_accel_config_is_asked_when_devices_come() -> None:
    host = TextHost(BOOT)
    host.version = ""
    observer = Observer(host)
    assert observer.look().accel_config is None
    assert [] == host.runs
    host.version = "4.1.6\n"
    for name in ("state", "clients", "errors"):
        host.files[f"/sys/bus/dsa/devices/dsa0/{name}"] = "0\n"
    assert "4.1.6" == observer.look().accel_config
    observer.look()
    assert 1 == len(host.runs)


def test_devices_come_and_go() -> None:
    sim = SimHost.host_for("dsa8")
    observer = Observer(sim)
    assert 8 == len(observer.look().devices)
    device = sim.kernel.state.devices[3]
    rest = sim.kernel.state.devices
    sim.kernel.state.devices = (*rest[:3], device._replace(present=False), *rest[4:])
    assert "dsa3" not in [d.id for d in observer.look().devices]
    sim.kernel.state.devices = rest
    assert "dsa3" == observer.look().devices[3].id


def test_offline_cpus_are_those_in_their_sockets_only() -> None:
    cpu = "/sys/devices/system/cpu"
    host = TextHost(
        {
            f"{cpu}/present": "0-3\n",
            f"{cpu}/online": "0-1,3\n",
            f"{cpu}/offline": "2,4-127\n",
            f"{cpu}/cpu1/online": "1\n",
            f"{cpu}/cpu2/online": "0\n",
        }
    )
    found = observe(host)
    assert ((2,), (0, 3)) == (found.offline_cpus, found.pinned_cpus)


def test_memory_tiers_are_those_that_the_kernel_shows() -> None:
    """A node whose CPUs are off since boot is slower; one that is in no tier says so."""
    place = "/sys/devices/virtual/memory_tiering"
    files = {f"{place}/memory_tier4/nodelist": "0,2\n", f"{place}/memory_tier7/nodelist": "1\n"}
    files[f"{place}/power/control"] = "auto\n"
    for number in range(4):
        folder = f"/sys/devices/system/node/node{number}"
        memory = f"Node {number} MemTotal: 1024 kB\nNode {number} MemFree: 512 kB\n"
        files |= {f"{folder}/meminfo": memory, f"{folder}/cpulist": "\n"}
        files[f"{folder}/distance"] = "10 20 20 20\n"
    assert [4, 7, 4, None] == [node.tier for node in observe(TextHost(files)).nodes]
    told = show_facts(observe(TextHost(files)))
    assert 3 == told.count("memory tier")


def test_a_node_that_goes_while_it_is_looked_at_is_passed_over() -> None:
    host = TextHost({"/sys/devices/system/node/node0/cpulist": "0\n"})
    assert () == observe(host).nodes


def test_a_malformed_queue_names_its_file() -> None:
    sim = SimHost.host_for("dsa2")

    class Broken(SimHost):
        def read(self, path: str) -> str:
            return "many\n" if path.endswith("wq1.3/size") else super().read(path)

    with pytest.raises(Malformed, match=r"/wq1\.3/size: expected a whole number, found 'many'"):
        observe(Broken(sim.kernel))
