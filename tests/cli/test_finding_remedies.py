# SPDX-License-Identifier: Apache-2.0
"""Whoever does literally what a finding of ``doctor`` says is rid of it, and gets to the profile.

What the words name is done by itself: values that are written to files, fragments of a profile,
lines taken out of a file, a reboot. What is outside of dsatier (firmware, boot parameters,
packages, other people) stands in a table with its counterpart on the simulated host.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from dsatier.base.exits import OK
from dsatier.cli.main import main
from dsatier.sim.faults import FailedInit, Halt
from dsatier.sim.host import SimHost
from tests.sim.simhosts import RELEASES

REQUIREMENTS = Path(__file__).resolve().parents[2] / "agent/dsatier/plan"
Values = dict[str, Any]

DSA = "engine: {kind: dsa, limit_chans: 2, work_queues: {devices: 2}}"
THREADS = "engine: {kind: multithread, limit_mt_num: 4}"
TIERING = "tiering: {numa_balancing: 2, demotion_enabled: true}"
SLOW_CPUS = [{"cpus": "0-7", "memory": 16, "used": 2}, {"cpus": "8-9", "memory": 16, "used": 1}]
CXL = {"memory": 16, "device": "cxl", "driver": "kmem", "blocks": "offline", "used": 0}
ONLINE = "tiers: {online: {nodes: [1]}}"
USER = {"configured": [{"id": 0, "type": "user", "mode": "dedicated", "name": "theirs"}]}

IDLE = {"configured": [{"id": 0, "type": "kernel", "mode": "dedicated", "name": "idle"}]}


class Words(yaml.SafeLoader):
    """Reads YAML as a profile is read: on and off are words."""


Words.yaml_implicit_resolvers = {
    first: resolvers
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    if first not in "oO"
}


def values(text: str) -> Values:
    """Return what a piece of a profile says."""
    found: Values = yaml.load(text, Words)
    return found


def merged(one: Values, other: Values) -> Values:
    """Return ``one`` with what ``other`` says in place of the same keys."""
    out = dict(one)
    for key, value in other.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if both else value
    return out


class Stage:
    """A simulated host, its profile, and what somebody does to both."""

    def __init__(self, folder: Path, host: Values, profile: str) -> None:
        self.folder = folder
        self.host = host
        self.profile: Values = {"version": 1, **values(profile)}
        self.boot({})

    def boot(self, changes: Values) -> None:
        """Boot the host as it is described, with changes to that."""
        self.host = merged(self.host, changes)
        (self.folder / "host.yaml").write_text(json.dumps(self.host), encoding="utf-8")
        (self.folder / "state.json").unlink(missing_ok=True)
        self.run("facts")

    def mend(self, changes: Values) -> None:
        """Change the profile."""
        self.profile = merged(self.profile, changes)

    def run(self, *words: str) -> int:
        host = (
            "--host",
            f"sim:{self.folder}/host.yaml",
            "--sim-state",
            f"{self.folder}/state.json",
        )
        profile = self.folder / "profile.yaml"
        profile.write_text(json.dumps(self.profile), encoding="utf-8")
        named = ("-p", str(profile)) if words[0] in ("apply", "doctor") else ()
        return main([words[0], *host, *named, *words[1:]])

    def change(self, act: Callable[[SimHost], object]) -> None:
        """Do something to the host as it runs."""
        file = self.folder / "state.json"
        host = SimHost.restore(file.read_text(encoding="utf-8"))
        act(host)
        file.write_text(host.state_text(), encoding="utf-8")


# -- what the words say themselves -------------------------------------------------


def written(stage: Stage, said: re.Match[str]) -> None:
    stage.change(lambda host: host.poke(said[2], f"{said[1]}\n"))


def fragment(stage: Stage, said: re.Match[str]) -> None:
    """Put a fragment into the profile: the words name the field that it goes under, if any."""
    piece = values(said[1])
    stage.mend({said[2]: piece} if said[2] else piece)


def value(stage: Stage, said: re.Match[str]) -> None:
    stage.mend({"engine": {said[1]: int(said[2])}})


def taken_out(stage: Stage, said: re.Match[str]) -> None:
    files = {path: text for path, text in stage.host["files"].items() if path != said[1]}
    stage.host = {name: one for name, one in stage.host.items() if name != "files"}
    stage.boot({"files": files})


def rebooted(stage: Stage, said: re.Match[str]) -> None:
    stage.change(SimHost.reboot)


LITERAL: tuple[tuple[str, Callable[[Stage, re.Match[str]], None]], ...] = (
    (r"write (\d+) to (/\S+)", written),
    (r"(?:write|name) `(tiers: \{[^`]+\})`() in the profile", fragment),
    (r"(?:set|name) `(\w+: \w+)`.* in the profile's (\w+)", fragment),
    (r"set (limit_chans) (\d+)", value),
    (r"take (?:it|them) out of (\S+)", taken_out),
    (r"^reboot|or reboot", rebooted),
)

# -- what is outside of dsatier, and what stands for it here -----------------------


def booted(**changes: Any) -> Callable[[Stage], None]:
    return lambda stage: stage.boot(changes)


def profile(text: str) -> Callable[[Stage], None]:
    return lambda stage: stage.mend(values(text))


OUTSIDE: dict[str, Callable[[Stage], None]] = {
    "install and boot dsatier's kernel package": booted(
        kernel={"release": RELEASES["ours"], "kind": "ours", "config": {"CONFIG_INTEL_IDXD": "m"}}
    ),
    "boot dsatier's kernel": booted(kernel={"release": RELEASES["ours"], "kind": "ours"}),
    "install the dsatier that belongs to this kernel": booted(kernel={"abi": 1}),
    "apt install accel-config": booted(accel_config="4.1.6"),
    "install a newer accel-config": booted(accel_config="4.1.6"),
    "enable the DSA in the BIOS": booted(devices=2),
    "set `iommu: identity`": profile("engine: {work_queues: {iommu: identity}}"),
    "`install -D -t /etc/systemd/system/dsatier.service.d": booted(unit="past-iommu"),
    "boot with `intel_iommu=on,sm_on": booted(iommu="passthrough", scalable_mode=True),
    "unload the other DMA device's driver": booted(other_dma=[]),
    "free memory first": booted(swap=[{"path": "/dev/sda2", "size": 64}]),
    "expose the CXL memory as a node": booted(nodes=[SLOW_CPUS[0], {"memory": 16}]),
    "wait: dsatier goes on when the device comes": lambda stage: stage.change(
        lambda host: host.sleep(3600.0)
    ),
    "stop the programs that use it": booted(nodes=[SLOW_CPUS[0], CXL]),
    "load kmem": booted(nodes=[SLOW_CPUS[0], CXL]),
    "boot with `memhp_default_state=offline`": booted(nodes=[SLOW_CPUS[0], CXL]),
    "set `zone: kernel`": profile("tiers: {online: {zone: kernel}}"),
    "put memory into the empty channels": booted(nodes=[SLOW_CPUS[0], {"memory": 16}]),
    "name tiers.fast_node, or look at the BIOS": profile("tiers: {fast_node: 0}"),
    "bring one of its CPUs online, or boot with the slow node's CPUs off": booted(
        nodes=[{"cpus": "0", "memory": 16}, {"memory": 16}]
    ),
    "boot with the slow node's CPUs off": booted(
        nodes=[{"cpus": "0-7", "memory": 16, "tier": 4}, {"memory": 16, "tier": 22}]
    ),
    "name another tiers.slow_node": profile("tiers: {slow_node: 2}"),
    "drain the node": booted(files={}),
    "stop its user": booted(devices=2),
    "name other devices in engine.work_queues": booted(devices=2),
    "ask for fewer or smaller queues": profile("engine: {work_queues: {queues: 1, size: 32}}"),
    "name engine.work_queues with enough queues": profile("engine: {work_queues: {devices: 2}}"),
    "name engine.limit_mt_num": profile("engine: {limit_mt_num: 4}"),
    "choose another value": profile("engine: {limit_mt_num: 4}"),
    "set use_concur_for_htmm to false": profile("concurrency: {use_concur_for_htmm: false}"),
    "or name its node in `tiers.nodes.slow`": profile("tiers: {nodes: {fast: [0], slow: [1]}}"),
    "name it in `tiers.nodes.slow`": profile("tiers: {nodes: {fast: [0], slow: [1]}}"),
}
"""The beginning of a remedy, or its middle, and what somebody has done who follows it."""


def follow(stage: Stage, remedy: str) -> None:
    """Do what a remedy says first: what its words name, or what the table has for it."""
    for words, act in OUTSIDE.items():
        if words in remedy:
            act(stage)
            return
    for pattern, literal in LITERAL:
        if said := re.search(pattern, remedy):
            literal(stage, said)
            return
    raise AssertionError(f"nobody knows how to follow: {remedy}")


# -- the scenes ---------------------------------------------------------------------


def nothing(stage: Stage) -> None:
    """Leave the host as it booted."""


@dataclass(frozen=True)
class Scene:
    """A host on which a finding is made."""

    finding: str
    profile: str
    host: Values = field(default_factory=dict)
    kind: str = "ours"
    before: Callable[[Stage], None] = nothing


def halted(stage: Stage) -> None:
    """Have a device halt under a live engine, and a seed kernel oops over it."""
    stage.run("apply")
    stage.change(lambda host: host.inject(Halt("halt", "dsa0")))
    stage.change(lambda host: host.sleep(10.0))
    stage.change(lambda host: host.heal("halt"))


def half_started(stage: Stage) -> None:
    stage.change(lambda host: host.inject(FailedInit("failed-init", channels=1)))
    stage.run("apply")
    stage.change(lambda host: host.heal("failed-init"))


def tiered_by_others(stage: Stage) -> None:
    """Have somebody turn tiering on below an engine that is to be changed."""
    asked = stage.profile
    stage.mend(values(DSA))
    assert stage.run("apply") == OK
    stage.profile = asked
    stage.change(lambda host: host.poke("/proc/sys/kernel/numa_balancing", "2\n"))


def at_work(path: str, text: str) -> Callable[[Stage], None]:
    return lambda stage: stage.change(lambda host: host.poke(path, text))


SYSCTL = {"/etc/sysctl.d/50-theirs.conf": "vm.limit_mt_num = 2\n"}
KUBELET = {
    "/var/lib/kubelet/config.yaml": "cpuManagerPolicy: static\n",
    "/var/lib/kubelet/cpu_manager_state": '{"policyName":"static"}\n',
}
SWAPPED = [{"path": "/dev/sda2", "size": 64, "used": 60000}]

SCENES = {
    "a stock kernel": Scene("knobs-present", THREADS, kind="stock"),
    "a value that loses bytes": Scene(
        "values-in-range", "engine: {kind: multithread, limit_mt_num: 3}", kind="tpp"
    ),
    "a live value that loses bytes": Scene(
        "threads-whole",
        "engine: {kind: multithread}",
        kind="tpp",
        before=at_work("/proc/sys/vm/limit_mt_num", "3\n"),
    ),
    "a slow node without memory": Scene(
        "tiers-exist", TIERING, {"nodes": [SLOW_CPUS[0], {"memory": 0, "used": 0}]}
    ),
    "slow memory that nobody brought online": Scene(
        "tiers-exist", f"tiers: {{nodes: auto}}\n{TIERING}", {"nodes": [SLOW_CPUS[0], CXL]}
    ),
    "memory that comes late": Scene(
        "memory-there",
        ONLINE,
        {
            "nodes": [SLOW_CPUS[0], CXL],
            "faults": [{"kind": "late-memory", "node": 1, "after": 3600.0}],
        },
    ),
    "memory that programs map": Scene(
        "memory-there", ONLINE, {"nodes": [SLOW_CPUS[0], CXL | {"driver": "device_dax"}]}
    ),
    "memory that no driver has": Scene(
        "memory-there", ONLINE, {"nodes": [SLOW_CPUS[0], CXL | {"driver": ""}]}
    ),
    "memory in another zone": Scene(
        "memory-zone", ONLINE, {"nodes": [SLOW_CPUS[0], CXL | {"blocks": "normal"}]}
    ),
    "much more memory than DRAM": Scene(
        "memory-mixed", ONLINE, {"nodes": [SLOW_CPUS[0], CXL | {"memory": 80}]}
    ),
    "a slow node with CPUs": Scene("tiering-conditions", TIERING, {"nodes": SLOW_CPUS}),
    "swap": Scene("tiering-conditions", TIERING, {"swap": [{"path": "/dev/sda2"}]}, kind="tpp"),
    "a slow node that boots with CPUs": Scene(
        "tiers-apart",
        f"tiers: {{slow_node: 1, cpuless: true}}\n{TIERING}",
        {
            "nodes": [
                {"cpus": "0-7", "memory": 16, "tier": 4},
                {"cpus": "8-9", "memory": 16, "tier": 4},
            ]
        },
    ),
    "a factor without tiering": Scene("watermark-order", "tiering: {demote_scale_factor: 300}"),
    "a slow node with CPU 0": Scene(
        "cpus-can-go",
        "tiers: {slow_node: 1, cpuless: true}",
        {
            "nodes": [
                {"cpus": "4-7", "memory": 16},
                {"cpus": "0-3", "memory": 16},
                {"cpus": "8-9", "memory": 16},
            ],
            "distances": [[10, 21, 31], [21, 10, 31], [31, 31, 10]],
        },
    ),
    "no devices": Scene("devices-there", DSA, {"devices": 0}),
    "a device in use": Scene(
        "devices-there",
        DSA,
        {"devices": [{"configured": [{**USER["configured"][0], "clients": 1}]}, {}]},
    ),
    "more than a device has": Scene(
        "devices-there",
        "engine: {kind: dsa, limit_chans: 1, work_queues: {devices: 1, queues: 2, size: 100}}",
    ),
    "a device that halted": Scene("devices-there", DSA, kind="tpp", before=halted),
    "somebody's idle queue": Scene("queues-are-ours", DSA, {"devices": [USER, USER]}),
    "no accel-config": Scene("accel-config-there", DSA, {"accel_config": None}),
    "an old accel-config": Scene("accel-config-there", DSA, {"accel_config": "3.4"}),
    "no queues": Scene("queues-enough", "engine: {kind: dsa, limit_chans: 2}"),
    "a kernel without idxd": Scene(
        "kernel-configured", DSA, {"kernel": {"config": {"CONFIG_MIGRATION": "y"}}}
    ),
    "a kernel that oopsed": Scene("dsa-healthy", DSA, kind="tpp", before=halted),
    "a mode that oopses": Scene(
        "dsa-healthy", DSA, kind="tpp", before=at_work("/proc/sys/vm/dsa_async_mode", "1\n")
    ),
    "an IOMMU that translates": Scene(
        "addresses-untranslated", DSA, {"iommu": "translated"}, kind="tpp"
    ),
    "an IOMMU group of several devices": Scene(
        "iommu-can-change",
        DSA.replace("devices: 2", "devices: 2, iommu: identity"),
        {"iommu": "translated", "iommu_group_of_all": True},
    ),
    "a unit without the right": Scene(
        "unit-rights",
        DSA.replace("devices: 2", "devices: 2, iommu: identity"),
        {"iommu": "translated", "unit": "shipped"},
    ),
    "an IOMMU without scalable mode": Scene(
        "addresses-untranslated", DSA, {"scalable_mode": False}
    ),
    "another DMA device": Scene(
        "channels-ours-alone", DSA, {"other_dma": [{"channels": 4}]}, kind="tpp"
    ),
    "concurrent lists over few channels": Scene(
        "concurrency-fits",
        "engine: {kind: dsa, limit_chans: 4, work_queues: {devices: 8}}\n"
        "concurrency: {use_concur_to_demote: true}",
        kind="tpp",
    ),
    "lists of memtis": Scene(
        "lists-fit",
        "engine: {kind: dsa, limit_chans: 8, work_queues: {devices: 8}}\n"
        "concurrency: {use_concur_for_htmm: true}",
        kind="memtis",
    ),
    "a start that failed midway": Scene(
        "dsa-can-be-freed", DSA, {"devices": 2}, kind="tpp", before=half_started
    ),
    "no second CPU": Scene(
        "target-in-reach",
        f"tiers: {{slow_node: 1, cpuless: true}}\n{TIERING}",
        {"nodes": [{"cpus": "0", "memory": 16}, {"cpus": "1", "memory": 16}]},
        kind="tpp",
    ),
    "more swapped out than fits": Scene(
        "swap-fits", "tiering: {numa_balancing: 2, swap: off}", {"swap": SWAPPED}
    ),
    "tiering by others beside CPUs": Scene(
        "quiet-can-be-had",
        "engine: {kind: dsa, limit_chans: 1, work_queues: {devices: 2}}",
        {"nodes": SLOW_CPUS},
        before=tiered_by_others,
    ),
    "a device that cannot be disabled": Scene(
        "devices-can-stop", DSA, {"devices": [IDLE, IDLE]}, kind="stock"
    ),
    "a limit of nothing": Scene(
        "promotion-can-go",
        TIERING,
        before=at_work("/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps", "0\n"),
    ),
    "a node of which nothing tells": Scene("nodes-known", f"tiers: {{nodes: auto}}\n{TIERING}"),
    "a kernel of a later ABI": Scene("known-kernel", THREADS, {"kernel": {"abi": 9}}),
    "a second writer": Scene("knobs-uncontested", THREADS, {"files": SYSCTL}),
}


def found(stage: Stage, capsys: pytest.CaptureFixture[str]) -> list[Values]:
    """Return what doctor finds."""
    capsys.readouterr()
    stage.run("doctor", "--json")
    said = capsys.readouterr()
    assert said.err == ""
    findings: list[Values] = json.loads(said.out)["findings"]
    return findings


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_the_remedy_of_a_finding_takes_it_away(
    scene: Scene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base: Values = {
        "version": 1,
        "kernel": {"release": RELEASES[scene.kind], "kind": scene.kind},
        "nodes": [{"cpus": "0-7", "memory": 16, "used": 2}, {"memory": 16, "used": 1}],
        "devices": 8,
    }
    stage = Stage(tmp_path, merged(base, scene.host), scene.profile)
    scene.before(stage)
    told = found(stage, capsys)
    assert scene.finding in {one["name"] for one in told}
    for one in told:  # the others are in the way as well, and each tells what to do
        if one["name"] in {now["name"] for now in found(stage, capsys)}:
            follow(stage, one["remedy"])
    assert scene.finding not in {one["name"] for one in found(stage, capsys)}
    stage.run("clear")  # what the way here has latched
    assert stage.run("apply") == OK


def test_every_finding_has_a_scene() -> None:
    names = {
        call.args[1].value
        for path in REQUIREMENTS.glob("requirements*.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "Finding"
        and isinstance(call.args[1], ast.Constant)
    }
    scenes = {scene.finding for scene in SCENES.values()}
    assert names == scenes
