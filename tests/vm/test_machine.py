# SPDX-License-Identifier: Apache-2.0
"""What a description becomes: the emulator's words, and the kernel's."""

from __future__ import annotations

import pytest

from vm.machine import Dsa, Machine, Node, Places, cmdline, command, option

PLACES = Places("/qemu", "/vmlinux", "/initrd", "/run/vm")
ROOTED = Places("/qemu", "/vmlinux", "/initrd", "/run/vm", "/root.ext4")


def given(words: list[str], key: str) -> list[str]:
    """Return what follows each occurrence of a word."""
    return [words[at + 1] for at, word in enumerate(words) if word == key]


def test_two_tiers() -> None:
    words = command(Machine(), PLACES)
    assert [
        "node,nodeid=0,cpus=0-1,memdev=ram0,initiator=0",
        "node,nodeid=1,memdev=ram1,initiator=0",
        "dist,src=0,dst=1,val=28",
        "dist,src=1,dst=0,val=28",
        *(
            f"hmat-lb,initiator=0,target={target},hierarchy=memory,data-type=access-{told}"
            for target, values in ((0, ("80", "102400M")), (1, ("240", "25600M")))
            for told in (f"latency,latency={values[0]}", f"bandwidth,bandwidth={values[1]}")
        ),
    ] == given(words, "-numa")
    assert ["2,sockets=1,cores=2"] == given(words, "-smp")
    assert ["2048M"] == given(words, "-m")
    assert ["tcg,thread=single"] == given(words, "-accel")


def test_a_node_has_the_figures_that_it_is_given() -> None:
    nodes = (Node(1, 512), Node(1, 512, latency=90), Node(0, 256, latency=400, bandwidth=1000))
    told = given(command(Machine(nodes=nodes), PLACES), "-numa")
    assert "node,nodeid=2,memdev=ram2,initiator=1" in told
    for source, target, latency in ((0, 0, 80), (0, 1, 150), (1, 0, 140), (1, 1, 90), (1, 2, 400)):
        where = f"hmat-lb,initiator={source},target={target},hierarchy=memory"
        assert f"{where},data-type=access-latency,latency={latency}" in told
    assert 3 * 2 == len([word for word in told if "bandwidth=" in word])
    assert 2 == len([word for word in told if word.endswith("bandwidth=1000M")])


def test_a_slow_node_is_near_the_socket_that_it_is_given() -> None:
    nodes = (Node(1, 512), Node(1, 512), Node(memory=256, near=0), Node(memory=256, near=1))
    told = given(command(Machine(nodes=nodes), PLACES), "-numa")
    assert [0, 1, 0, 1] == [int(word[-1]) for word in told if word.startswith("node,")]
    rows = {(0, 1): 21, (0, 2): 14, (0, 3): 24, (1, 2): 24, (1, 3): 14, (2, 3): 26, (3, 1): 14}
    for (source, target), value in rows.items():
        assert f"dist,src={source},dst={target},val={value}" in told
    for source, target, latency in ((0, 2, 240), (0, 3, 300), (1, 2, 300), (1, 3, 240)):
        where = f"hmat-lb,initiator={source},target={target},hierarchy=memory"
        assert f"{where},data-type=access-latency,latency={latency}" in told


@pytest.mark.parametrize(
    ("cpus", "expected"),
    [((2, 0, 2), "4,sockets=2,cores=2"), ((2, 1), "3,sockets=3,cores=1")],
)
def test_a_socket_lies_within_a_node(cpus: tuple[int, ...], expected: str) -> None:
    machine = Machine(nodes=tuple(Node(count, 512) for count in cpus))
    assert [expected] == given(command(machine, PLACES), "-smp")


def test_a_node_may_have_no_memory() -> None:
    words = command(Machine(nodes=(Node(1, 512), Node(1, 0))), PLACES)
    assert "node,nodeid=1,cpus=1-1,initiator=1" in given(words, "-numa")
    assert ["memory-backend-ram,id=ram0,size=512M"] == given(words, "-object")


def test_devices_in_order() -> None:
    devices = (Dsa(properties={"engines": 4, "event-log": True}), Dsa(node=1), Dsa(removable=True))
    words = given(command(Machine(dsa=devices), PLACES), "-device")
    assert [
        "pxb-pcie,id=pxb1,bus=pcie.0,bus_nr=64,numa_node=1",
        "intel-dsa,id=dsa0,bus=pcie.0,engines=4,event-log=on",
        "pcie-root-port,id=port1,bus=pxb1,chassis=2,slot=2",
        "intel-dsa,id=dsa1,bus=port1",
        "pcie-root-port,id=port2,bus=pcie.0,chassis=3,slot=3",
        "intel-dsa,id=dsa2,bus=port2",
    ] == words[-6:]


@pytest.mark.parametrize(
    ("iommu", "expected"),
    [
        ("off", {"intel_iommu=off"}),
        ("passthrough", {"intel_iommu=on", "iommu.passthrough=1"}),
        ("translated", {"intel_iommu=on", "iommu.passthrough=0"}),
    ],
)
def test_iommu(iommu: str, expected: set[str]) -> None:
    machine = Machine(iommu=iommu, iommu_properties={"aw-bits": 48})  # type: ignore[arg-type]
    told = {word for word in cmdline(machine, False).split() if "iommu" in word}
    devices = given(command(machine, PLACES), "-device")
    assert (expected, iommu != "off") == (told, "intel-iommu,aw-bits=48" in devices)


def test_a_root_is_never_changed() -> None:
    words = command(Machine(), ROOTED)
    assert ["file=/root.ext4,format=raw,if=none,id=root,snapshot=on"] == given(words, "-drive")
    assert "vm.root" in cmdline(Machine(), True).split()
    assert "vm.root" not in cmdline(Machine(), False).split()


def test_more_words_come_last() -> None:
    machine = Machine(append=("loglevel=8",), extra=("-s",), icount="shift=0,sleep=off")
    words = command(machine, PLACES)
    assert ("-s", ["shift=0,sleep=off"]) == (words[-1], given(words, "-icount"))
    assert given(words, "-append")[0].endswith(" loglevel=8")


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        (Machine(nodes=()), "expected CPUs on node 0"),
        (Machine(nodes=(Node(),)), "expected CPUs on node 0"),
        (Machine(nodes=(Node(1), Node(memory=-1))), "node 1: expected nothing negative"),
        (Machine(nodes=(Node(1), Node(near=1))), "node 1: near: expected a node with CPUs"),
        (Machine(nodes=(Node(1), Node(1, near=0))), "near: .* for one without, found 0"),
        (Machine(dsa=(Dsa(), Dsa(node=2))), "dsa1: node: expected a node from 0 to 1, found 2"),
        (Machine(icount="shift=0", threads="multi"), "icount: expected threads=single"),
    ],
)
def test_what_cannot_be_built_is_refused(machine: Machine, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        command(machine, PLACES)


def test_options_are_written_as_the_emulator_reads_them() -> None:
    assert "x,a-b=on,c=1,,2" == option("x", a_b=True, c="1,2", d=None)
