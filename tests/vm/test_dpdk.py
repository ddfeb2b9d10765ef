# SPDX-License-Identifier: Apache-2.0
"""A driver for the DSA that has nothing to do with Linux's, and its tests, which others wrote."""

from __future__ import annotations

import pytest

from tests.emulator.fuzz.guest import MODULES, give_to_vfio
from vm import dpdk
from vm.booting import guest
from vm.machine import Dsa, Machine, Node

pytestmark = pytest.mark.system
FOLDER = "/lib/dpdk"
#: What the test says where nothing was wrong but that it had waited for too short a time.
HURRIED = "Error with rte_dma"
RUNS = 3


def test_dpdks_driver_and_its_tests() -> None:
    """Copies, bursts as large as the queue, errors in every place of a batch, fills.

    The test expects to be done within times that a busy machine needs longer for.
    """
    properties = {"max-transfer-shift": 16, "queues": 1, "entries": 64}
    machine = Machine(
        nodes=(Node(cpus=2),),
        dsa=(Dsa(properties=properties),),
        iommu="translated",
        threads="multi",
    )
    with guest(machine, carry=MODULES, files=dpdk.files(FOLDER)) as vm:
        address = give_to_vfio(vm)
        vm.sh(
            "chmod 755 /; mkdir -p /dev/hugepages /var/run; mount -t hugetlbfs none /dev/hugepages;"
            "echo 100 >/proc/sys/vm/nr_hugepages"
        )
        plugins = " ".join(f"-d {FOLDER}/{name}.so.*" for name in dpdk.PLUGINS)
        for _ in range(RUNS):
            vm.allow("DMAR", "the test has the device use wrong addresses")
            vm.sh("rm -f /dev/hugepages/*")
            ran = vm.run(
                *("sh", "-c"),
                f"export LD_LIBRARY_PATH={FOLDER} DPDK_TEST=dmadev_autotest;"
                f"exec {FOLDER}/dpdk-test -l 0,1 --legacy-mem -m 128 --no-telemetry"
                f" $(echo {plugins}) -a {address}",
                timeout=300,
            )
            if HURRIED not in ran.out + ran.err:
                break
        assert "Test OK" in ran.out, ran.out[-2000:] + ran.err[-4000:]
        for part in ("copy", "burst capacity", "error handling", "fill"):
            assert f"Running {part} Tests" in ran.out
        done = vm.device("dsa0", "counters")["device"]
        assert done["batches"] > 1000
        assert done["ops"]["fill"] > 0
        assert done["errors"] > 0
