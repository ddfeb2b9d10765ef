# SPDX-License-Identifier: Apache-2.0
"""State: kept as text, copied, compared, and what a boot leaves of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsatier.host.port import HostDown, HostError
from dsatier.sim import faults, spec
from dsatier.sim.host import SimHost
from tests.sim.simhosts import BALANCING, config, get, host, live, load, put, ready

STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "dsa_state",
                "use_dsa_copy_pages",
                "limit_chans",
                "use_concur_to_demote",
                "cpu_multi_copy_pages",
                "limit_mt_num",
                BALANCING,
                "/proc/timer",
                "/sys/devices/system/cpu/cpu3/online",
                "sleep",
            ]
        ),
        st.integers(0, 9),
    ),
    max_size=10,
)
BASES = [ready("tpp"), ready("ours", 3)]


def walk(h: SimHost, steps: list[tuple[str, int]]) -> None:
    for name, value in steps:
        try:
            if name == "sleep":
                h.sleep(value)
            else:
                put(h, name, value)
        except HostDown:
            return
        except HostError:
            continue


def everything(h: SimHost) -> list[object]:
    return [(n.path, n.text) for n in h.walk() if n.path != "/proc/uptime"]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(BASES), STEPS, STEPS)
def test_text_and_copies_carry_all_of_the_state(
    base: SimHost, first: list[tuple[str, int]], then: list[tuple[str, int]]
) -> None:
    h = base.copy()
    h.inject(faults.SelfClear("self-clear", after=4.0))
    walk(h, first)
    text = h.state_text()
    restored, copied = SimHost.restore(text), h.copy()
    assert text == restored.state_text()
    assert h.key() == restored.key() == copied.key()
    walk(copied, then)
    assert text == h.state_text()
    walk(restored, then)
    walk(h, then)
    assert h.state_text() == restored.state_text() == copied.state_text()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(BASES), STEPS, STEPS)
def test_states_of_one_key_behave_the_same(
    base: SimHost, first: list[tuple[str, int]], then: list[tuple[str, int]]
) -> None:
    one, other = base.copy(), base.copy()
    walk(one, first)
    walk(other, [*first, ("/proc/timer", 0), ("sleep", 0)])
    if one.key() != other.key():
        return
    before = len(one.harm), len(other.harm)
    walk(one, then)
    walk(other, then)
    assert one.key() == other.key()
    assert one.harm[before[0] :] == other.harm[before[1] :]


def test_the_key_tells_what_matters_from_what_does_not() -> None:
    h = live("tpp")
    key = h.key()
    h.sleep(1)
    put(h, "/proc/timer", 0)
    h.keep("/var/lib/dsatier/x", "y")
    assert key == h.key()
    assert hash(key) == hash(h.key())
    put(h, "use_dsa_copy_pages", 0)
    early = h.key()
    h.sleep(3)
    assert early != h.key()
    h.sleep(2)
    late = h.key()
    h.sleep(100)
    assert late == h.key()


def test_a_boot_brings_back_the_defaults_and_keeps_own_files() -> None:
    h = live("tpp", kernel={"boot": {"numa_balancing": 1}})
    put(h, BALANCING, 0)
    put(h, "/sys/devices/system/cpu/cpu3/online", 0)
    h.keep("/var/lib/dsatier/journal", "kept")
    h.keep("/run/dsatier/status", "gone")
    mark, boot = h.log_mark(), h.boot_id()
    with pytest.raises(HostDown):
        put(h, "dsa_state", 0)
    with pytest.raises(HostDown):
        h.entries("/")
    harm, wall = list(h.harm), h.wall()
    h.reboot()
    assert "" == h.down
    assert harm == h.harm
    assert boot != get(h, "/proc/sys/kernel/random/boot_id")
    assert ["0", "0", "1"] == [get(h, k) for k in ("dsa_state", "use_dsa_copy_pages", BALANCING)]
    assert "0-7" == get(h, "/sys/devices/system/cpu/online")
    assert "disabled" == get(h, "/sys/bus/dsa/devices/dsa0/state")
    assert (True, False) == (
        "/var/lib/dsatier/journal" in h.files,
        "/run/dsatier/status" in h.files,
    )
    assert not h.log_since(mark).complete
    assert "0" == get(h, "/proc/sys/kernel/tainted")
    assert h.monotonic() == 0.0
    assert h.wall() > wall
    # nothing dangles after a boot: the whole way up is free again
    assert 0 == load(h, config(8))
    put(h, "dsa_state", 1)
    put(h, "use_dsa_copy_pages", 1)
    assert harm == h.harm


def test_own_files_are_listed_and_read_like_others() -> None:
    h = host("ours", files={"/etc/sysctl.d/90-vm.conf": "vm.limit_chans = 4\n"})
    h.keep("/etc/dsatier.d/10-site.yaml", "version: 1\n")
    assert ("dsatier.d", "sysctl.d") == h.entries("/etc")
    assert "vm.limit_chans = 4\n" == h.read("/etc/sysctl.d/90-vm.conf")
    assert ("10-site.yaml",) == h.entries("/etc/dsatier.d")
    h.drop("/etc/dsatier.d/10-site.yaml")
    h.drop("/etc/dsatier.d/10-site.yaml")
    assert () == h.entries("/etc/dsatier.d")


@pytest.mark.parametrize("name", spec.shipped())
def test_shipped_hosts(name: str) -> None:
    h = SimHost.host_for(name)
    assert [] == h.harm
    assert name == h.hostname()
    assert h.key() == SimHost.restore(h.state_text()).key()


def test_the_shipped_hosts_are_these() -> None:
    expected = (
        "dsa2",
        "dsa8",
        "dsa8-seed",
        "memtis-seed",
        "no-dsa",
        "single-node",
        "stock-6-1",
        "stock-6-12",
        "stock-7-2",
        "stock-debian",
        "stock-offline",
        "swap-on",
    )
    assert expected == spec.shipped()


def test_a_host_by_its_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(spec.shipped_text("dsa2").replace("hostname: dsa2", "hostname: mine"))
    assert "mine" == SimHost.host_for(str(file)).hostname()


KERNEL = "version: 1\nkernel: {release: '6.12', kind: ours}\n"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("version: 1\n", "kernel"),
        (KERNEL, "nodes"),
        (KERNEL + "nodes: [{cpus: 0-3}]\ndevice: 8\n", "device"),
        (KERNEL + "nodes: [{cpus: 1-3}]\n", "CPU 0"),
        (KERNEL + "nodes: [{cpus: 0-3}, {cpus: '3'}]\n", "one node"),
        (KERNEL + "nodes: [{cpus: 0-3, memory: 1, used: 2}]\n", "used"),
        (KERNEL + "nodes: [{cpus: 0-3}]\nfaults: [{kind: no-such}]\n", "no-such"),
        (KERNEL + "nodes: [{cpus: 0-3}]\nfaults: [{kind: halt, device: dsa0}]\n", "dsa0"),
        (KERNEL + "nodes: [{cpus: 0-3}]\nfiles: {/proc/x: y}\n", "/proc/x"),
        (KERNEL + "nodes: [{cpus: 0-3}]\ndistances: [[10, 20]]\n", "distances"),
        ("[", "host description"),
    ],
)
def test_a_wrong_description_is_refused(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        spec.parse(text)


def test_wrong_state_text_is_refused() -> None:
    with pytest.raises(ValueError, match="version"):
        SimHost.restore('{"version": 9}')


def test_queues_of_others_are_there_from_the_boot() -> None:
    h = host(
        "ours",
        devices=[{"configured": [{"id": 0, "type": "user", "clients": 2}, {"id": 1}]}],
    )
    names = ("wq0.0/type", "wq0.0/clients", "wq0.1/state", "dsa0/state", "dsa0/clients")
    assert ["user", "2", "enabled", "enabled", "2"] == [
        get(h, f"/sys/bus/dsa/devices/{n}") for n in names
    ]
    assert ("dma0chan0",) == h.entries("/sys/class/dma")
