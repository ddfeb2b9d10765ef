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
    items = ("demotion_enabled", "numa_balancing", "thp_enabled")
    assert tuned_profile(PROFILE) == (items, ("base", "more"))


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
            "TuneD",
            "/usr/lib/tuned/latency/tuned.conf",
            ("demotion_enabled", "numa_balancing", "thp_enabled"),
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


FOR_ARM = """
[variables]
other_cpuinfo_regex=CPU part\\s+:\\s+0x0a1

[sysctl]
vm.dirty_ratio=40

[sysctl.othercpu]
type=sysctl
uname_regex={uname}
cpuinfo_regex={cpuinfo}
enabled={enabled}
kernel.numa_balancing=0
"""


@pytest.mark.parametrize(
    ("uname", "cpuinfo", "enabled", "counts"),
    [
        ("aarch64", "${other_cpuinfo_regex}", "1", False),
        ("x86_64", "${other_cpuinfo_regex}", "1", False),
        ("x86_64", "^model name.*Xeon", "1", True),
        ("x86_64", "^model name.*Xeon", "false", False),
        # what is not understood may be for this host
        ("x86_64", "${nobody_knows}", "1", True),
        ("x86_64", "(", "1", True),
    ],
)
def test_a_section_for_other_machines_does_not_count(
    uname: str, cpuinfo: str, enabled: str, counts: bool
) -> None:
    text = FOR_ARM.format(uname=uname, cpuinfo=cpuinfo, enabled=enabled)
    path = "/usr/lib/tuned/server/tuned.conf"
    host = TextHost(
        {
            "/etc/tuned/active_profile": "server\n",
            path: text,
            "/proc/cpuinfo": "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)\n",
        }
    )
    assert ((OtherWriter("TuneD", path, ("numa_balancing",)),) if counts else ()) == others(host)


def test_tmpfiles_write_at_boot() -> None:
    line = "w /sys/kernel/mm/numa/demotion_enabled - - - - 0\n"
    host = TextHost(
        {
            "/etc/tmpfiles.d/a.conf": line,
            "/usr/lib/tmpfiles.d/a.conf": "w /proc/sys/vm/dsa_state - - - - 0\n",
            "/run/tmpfiles.d/b.conf": "w+! '/proc/sys/kernel/numa_*' - - - - 0\n",
            "/etc/tmpfiles.d/c.conf": f"#{line}f /sys/kernel/mm/numa/demotion_enabled\nd\n\n",
            "/etc/tmpfiles.d/d": line,
        }
    )
    assert (
        OtherWriter("tmpfiles.d", "/etc/tmpfiles.d/a.conf", ("demotion_enabled",)),
        OtherWriter(
            "tmpfiles.d", "/run/tmpfiles.d/b.conf", ("numa_balancing", "promote_rate_limit_MBps")
        ),
    ) == others(host)


def test_sysfsutils_set_at_boot() -> None:
    line = "kernel/mm/numa/demotion_enabled = 0\n"
    host = TextHost(
        {
            "/etc/sysfs.conf": f"# a comment\n{line}",
            "/etc/sysfs.d/a.conf": line,
            "/etc/sysfs.d/b.conf": f"mode {line}#{line}= 3\n",
            "/etc/sysfs.d/c": line,
        }
    )
    assert tuple(
        OtherWriter("sysfs.conf", path, ("demotion_enabled",))
        for path in ("/etc/sysfs.conf", "/etc/sysfs.d/a.conf")
    ) == others(host)


def test_the_notes_that_saptune_applies() -> None:
    note = "[version]\nVERSION=1\n[sysctl]\nkernel.numa_balancing = {}\n[service]\nvm.dsa_state=1\n"
    host = TextHost(
        {
            "/etc/sysconfig/saptune": 'TUNE_FOR_NOTES=""\nNOTE_APPLY_ORDER="2684254 mine 99"\n',
            "/usr/share/saptune/notes/2684254": note.format(0),
            "/etc/saptune/extra/mine.conf": "[sysctl]\nvm.limit_chans=2\n",
            "/usr/share/saptune/notes/1656250": note.format(0),
        }
    )
    assert (
        OtherWriter("saptune", "/etc/saptune/extra/mine.conf", ("limit_chans",)),
        OtherWriter("saptune", "/usr/share/saptune/notes/2684254", ("numa_balancing",)),
    ) == others(host)
