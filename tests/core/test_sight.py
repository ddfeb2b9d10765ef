# SPDX-License-Identifier: Apache-2.0
"""Narrow facts answer nothing that was not looked at, and whoever asks for that gets full ones."""

from __future__ import annotations

import pytest

from dsatier.apply.gate import Gate, Refused
from dsatier.facts.knobs import KNOBS
from dsatier.facts.model import DsaDevice, Facts
from dsatier.facts.observe.observer import Observer
from dsatier.facts.partial import NotSeen, Seen, narrowed
from dsatier.facts.readings import device, free, halted, held
from dsatier.facts.tiers import USUAL
from dsatier.host.port import LogTail
from dsatier.plan.evidence import Configured, Held, Reads, Stopped
from dsatier.plan.interlock import GUARDS, Circumstances, refusals
from dsatier.plan.requests import (
    BindDevice,
    LoadDevice,
    OnlineMemory,
    Request,
    SetCpu,
    SetIommu,
    SetKnob,
    StopDevice,
    SwapOn,
)
from dsatier.queues.config import captured
from dsatier.sim.faults import Halt
from dsatier.sim.host import SimHost
from tests.support.scene import RELEASES, apply, small

QUIET = LogTail((), complete=True)
HIDDEN = {"devices", "channels", "iommu", "accel_config", "others", "elsewhere", "unbound"}


class Counted(SimHost):
    """A host that counts the files that are read."""

    def __init__(self, host: SimHost) -> None:
        super().__init__(host.kernel)
        self.reads: list[str] = []

    def read(self, path: str) -> str:
        self.reads.append(path)
        return super().read(path)

    def of_queues(self) -> set[str]:
        """Return the devices whose queues were read since the last call."""
        found = {p.split("/")[5] for p in self.reads if "/wq" in p}
        self.reads.clear()
        return found


def up(kind: str = "ours") -> SimHost:
    host = small(kind)
    assert "changed" == apply(host, "tpp-dsa" if kind == "tpp" else "dsa").result
    return host


def hosts() -> list[SimHost]:
    """Return hosts as they boot, with the engine live, and with a device halted under it."""
    found = [small(kind) for kind in RELEASES]
    for kind in ("ours", "tpp"):
        live = up(kind)
        hurt = live.copy()
        hurt.inject(Halt("halt", "dsa1"))
        hurt.advance(1.0)
        found += [live, hurt]
    return found


def requests(facts: Facts) -> list[Request]:
    """Return requests of every kind, sound and unsound ones."""
    return [
        *(SetKnob(name, value) for name in KNOBS for value in (-1, 0, 1, 2, 4, 8)),
        *(SetCpu(cpu, online) for cpu in (0, 3, 4, 99) for online in (False, True)),
        *(LoadDevice(captured(device)) for device in facts.devices),
        *(StopDevice(name) for name in ("dsa0", "dsa1", "dsa9")),
        *(SetIommu(d.id, d.pci, "0", "identity") for d in facts.devices),
        *(BindDevice(d.pci) for d in facts.devices),
        OnlineMemory("dax1.0", 1, (64,), "movable"),
        *(SwapOn(area) for area in facts.swaps),
    ]


@pytest.mark.parametrize("number", range(7))
def test_narrow_facts_never_answer_otherwise_than_full_ones(number: int) -> None:
    """Each guard, each request: the same words, or that more must be seen."""
    facts = Observer(hosts()[number]).look()
    answered = 0
    for request in requests(facts):
        for devices in ((), ("dsa0",), ("dsa1",), ("dsa0", "dsa1")):
            for guard in GUARDS:
                full = refusals(request, Circumstances(facts, 3.0, USUAL), (guard,))
                narrow = Circumstances(narrowed(facts, devices), 3.0, USUAL)
                try:
                    assert full == refusals(request, narrow, (guard,))
                except NotSeen:
                    continue
                answered += 1
    assert answered > 5000


@pytest.mark.parametrize("number", range(7))
def test_a_glimpse_is_a_look_narrowed(number: int) -> None:
    host = hosts()[number]
    observer = Observer(host)
    facts = observer.look()
    for devices in ((), ("dsa1",), ("dsa0", "dsa1"), ("dsa9",)):
        for looking in (observer, Observer(host)):  # one that knows the host, and a new one
            narrow = looking.glimpse(devices)
            for name in Facts.__dataclass_fields__:
                if name not in HIDDEN:
                    assert getattr(facts, name) == getattr(narrow, name)
            for one in facts.devices:
                if one.id in devices:
                    assert one == device(narrow, one.id)
                else:
                    with pytest.raises(NotSeen):
                        device(narrow, one.id)


def test_nothing_is_told_of_what_was_not_seen() -> None:
    facts = Observer(up()).look()
    narrow = narrowed(facts, ())
    for ask in (halted, held, free):
        with pytest.raises(NotSeen):
            ask(narrow)
    for name in HIDDEN:
        found = getattr(narrow, name)
        for question in (len, bool, str, repr, hash, tuple, sorted, any, iter_to_end):
            with pytest.raises(NotSeen):
                question(found)
        with pytest.raises(NotSeen):
            found == getattr(facts, name)  # noqa: B015
        with pytest.raises(NotSeen):
            "translated" in (found, "off")  # noqa: B015
        with pytest.raises(NotSeen):
            "dsa0" in found  # noqa: B015
        with pytest.raises(NotSeen):
            found[0]
        with pytest.raises(NotSeen):
            print(*found)


def iter_to_end(entries: Seen[DsaDevice]) -> None:
    for _ in entries:
        pass


def test_a_request_that_is_about_no_device_reads_none() -> None:
    host = Counted(up())
    gate = Gate(host, Observer(host))
    gate.look()
    assert {"dsa0", "dsa1"} == host.of_queues()
    gate.submit(SetKnob("dsa_copy_threshold", 20), 1.0)
    assert set() == host.of_queues()
    assert [] == gate.answer(lambda f: missing(f, Reads("dsa_copy_threshold", 20)))
    assert set() == host.of_queues()


def test_a_request_about_a_device_reads_that_one() -> None:
    host = Counted(small())
    gate = Gate(host, Observer(host))
    config = captured(gate.look().devices[1])
    host.of_queues()
    gate.submit(LoadDevice(config), 1.0)
    assert {"dsa1"} == host.of_queues()
    gate.answer(lambda f: missing(f, Configured(config)), ["dsa1"])
    assert {"dsa1"} == host.of_queues()
    gate.answer(lambda f: missing(f, Stopped("dsa1")), ["dsa1"])
    assert {"dsa1"} == host.of_queues()


def missing(facts: Facts, evidence: Reads | Configured | Stopped | Held) -> list[str]:
    found = evidence.missing(facts, QUIET)
    return [] if found is None else [found]


def test_what_needs_every_device_reads_every_one() -> None:
    host = Counted(up())
    gate = Gate(host, Observer(host))
    gate.look()
    for ask in (lambda f: missing(f, Held(8)), held, halted, lambda f: f.iommu == "off"):
        host.of_queues()
        gate.answer(ask)
        assert {"dsa0", "dsa1"} == host.of_queues()
    host.of_queues()
    gate.submit(SetKnob("use_dsa_copy_pages", 1), 1.0)
    assert {"dsa0", "dsa1"} == host.of_queues()
    with pytest.raises(Refused):
        gate.submit(SetKnob("dsa_state", 1), 1.0)


def test_a_device_that_halts_between_two_steps_is_seen_by_the_step_that_needs_it() -> None:
    host = up()
    gate = Gate(host, Observer(host))
    gate.submit(SetKnob("use_dsa_copy_pages", 0), 1.0)
    gate.look()
    host.inject(Halt("halt", "dsa1"))
    host.advance(1.0)
    with pytest.raises(Refused, match="4 DMA channels are in use"):
        gate.submit(SetKnob("use_dsa_copy_pages", 1), 1.0)
