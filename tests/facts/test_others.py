# SPDX-License-Identifier: Apache-2.0
"""Other tools that are set up to write the same things."""

from __future__ import annotations

import pytest

from dsatier.facts.model import OtherWriter
from dsatier.facts.observe.other_writers import others, sysctl_items, tuned_profile
from tests.support.memory import TextHost


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vm.limit_chans = 4", ("limit_chans",)),
        ("vm/limit_chans=4", ("limit_chans",)),
        ("-vm.dsa_state=1", ("dsa_state",)),
        ("/proc/sys/vm/dsa_state=1", ("dsa_state",)),
        ("kernel.numa_balancing = 0", ("numa_balancing",)),
        ("vm.use_concur_to_* = 1", ("use_concur_to_compact", "use_concur_to_demote")),
        ("# vm.limit_chans = 4", ()),
        ("; vm.limit_chans = 4", ()),
        ("-vm.limit_chans", ()),
        ("vm.swappiness = 1", ()),
        ("vm.limit_chans.x = 1", ()),
        ("", ()),
    ],
)
def test_lines_of_a_sysctl_file(line: str, expected: tuple[str, ...]) -> None:
    assert expected == sysctl_items(f"vm.swappiness=1\n  {line}\n")


def test_a_sysctl_file_masks_those_of_its_name() -> None:
    line = "vm.limit_chans=4\n"
    host = TextHost(
        {
            "/usr/lib/sysctl.d/50-a.conf": line,
            "/etc/sysctl.d/50-a.conf": "",
            "/usr/lib/sysctl.d/60-b.conf": line,
            "/run/sysctl.d/60-b.conf": "kernel.numa_balancing=1\n",
            "/usr/lib/sysctl.d/70-c.conf": line,
            "/usr/lib/sysctl.d/70-c.conf.bak": line,
            "/etc/sysctl.conf": "vm.dsa_state=0\n",
        }
    )
    expected = (
        OtherWriter("sysctl.d", "/etc/sysctl.conf", ("dsa_state",)),
        OtherWriter("sysctl.d", "/run/sysctl.d/60-b.conf", ("numa_balancing",)),
        OtherWriter("sysctl.d", "/usr/lib/sysctl.d/70-c.conf", ("limit_chans",)),
    )
    assert expected == others(host)


PROFILE = """
[main]
summary=x
include=base, more
[sysctl]
kernel.numa_balancing = 0
vm.swappiness=10
[mine]
type=sysfs
/sys/kernel/mm/numa/*=0
[vm]
transparent_hugepages=always
"""


def test_a_tuned_profile() -> None:
    assert (("demotion_enabled", "numa_balancing"), ("base", "more")) == tuned_profile(PROFILE)


def test_tuned_follows_what_is_included_and_no_circle() -> None:
    host = TextHost(
        {
            "/etc/tuned/active_profile": "latency ../evil\n",
            "/usr/lib/tuned/latency/tuned.conf": PROFILE,
            "/etc/tuned/base/tuned.conf": "[main]\ninclude=latency\n[sysctl]\nvm.limit_chans=1\n",
            "/usr/lib/tuned/base/tuned.conf": "[sysctl]\nvm.dsa_state=1\n",
            "/usr/lib/tuned/idle/tuned.conf": "[sysctl]\nvm.dsa_state=1\n",
        }
    )
    expected = (
        OtherWriter("TuneD", "/etc/tuned/base/tuned.conf", ("limit_chans",)),
        OtherWriter(
            "TuneD", "/usr/lib/tuned/latency/tuned.conf", ("demotion_enabled", "numa_balancing")
        ),
    )
    assert expected == others(host)


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ('{"policyName": "static"}', True),
        ('{"policyName": "none"}', False),
        ("{", False),
        ("[]", False),
        ("", False),
    ],
)
def test_kubelet_gives_out_cpus_under_the_static_policy(state: str, found: bool) -> None:
    path = "/var/lib/kubelet/cpu_manager_state"
    expected = (OtherWriter("kubelet", path, ("cpus",)),) if found else ()
    assert expected == others(TextHost({path: state}))


def test_accel_configs_service_needs_a_file_and_to_be_enabled() -> None:
    conf = {"/etc/accel-config/accel-config.conf": "[]"}
    unit = {"/etc/systemd/system/multi-user.target.wants/accel-config.service": "x"}
    assert () == others(TextHost(conf))
    assert () == others(TextHost({}, unit))
    expected = (OtherWriter("accel-config", "/etc/accel-config/accel-config.conf", ("queues",)),)
    assert expected == others(TextHost(conf, unit))
