# SPDX-License-Identifier: Apache-2.0
"""The package on the next Debian, and on the way there: one package for every release."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.container import REPOSITORY, Container
from tests.system.conftest import PROFILES, built, needs_containers, newer

pytestmark = [pytest.mark.system, needs_containers]
PATIENCE = 90.0
UPGRADING = 600.0
MINE = "/etc/dsatier.d/50-mine.yaml"
PROFILE = (PROFILES / "dsa.yaml").read_text(encoding="utf-8")
ENGINE = "/proc/sys/vm/use_dsa_copy_pages"
THRESHOLD = "/proc/sys/vm/dsa_copy_threshold"


@pytest.fixture
def onward(request: pytest.FixtureRequest) -> Path:
    """What leads a Debian to the next release: sources.list, lists and archives."""
    return Path(built(request, str(REPOSITORY / "vm/debianroot"), "--onward", "trixie").strip())


def tiered(host: Container) -> None:
    """Bring a host to a profile."""
    host.put(MINE, PROFILE)
    host.ok("systemctl", "reload", "dsatier")
    assert "converged" == state(host)
    assert "1\n" == host.sim.read(ENGINE)


def state(host: Container) -> str:
    found: str = json.loads(host.get("/run/dsatier/status.json"))["state"]
    return found


def knobs(host: Container) -> dict[str, str]:
    """Return what a profile changes, as the kernel has it."""
    names = sorted(os.listdir(host.sim.place / "proc/sys/vm"))
    paths = [*(f"/proc/sys/vm/{name}" for name in names), "/sys/devices/system/cpu/online"]
    return {path: host.sim.read(path) for path in paths}


def python(host: Container) -> str:
    """Return the program that the daemon runs in."""
    return host.ok("readlink", f"/proc/{host.main_pid('dsatier')}/exe").strip()


def repairs(host: Container) -> None:
    """See that somebody watches: a knob that another writer changes is set right."""
    host.sim.write(THRESHOLD, "99\n")
    until(lambda: host.sim.read(THRESHOLD) == "12\n")


def until(so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not so():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture
def host13(debian13: Path, package: Path) -> Iterator[Container]:
    """A host with Debian 13, dsatier installed, no profile."""
    with Container(debian13, sim="dsa8") as container:
        container.install(package)
        yield container
        assert ("", "") == (container.sim.harm, container.sim.down)


def test_the_package_comes_lives_and_goes_on_debian_13(
    host13: Container, package: Path, tmp_path: Path
) -> None:
    host = host13
    assert "/usr/bin/python3.13" == python(host)
    tiered(host)
    assert 0 == host.run("dsatier", "status").code
    host.put(MINE, "version: 1\nengine: {kind: turtle}\n")
    assert 1 == host.run("systemctl", "reload", "dsatier").code
    tiered(host)
    repairs(host)
    before, process = knobs(host), host.main_pid("dsatier")

    host.install(newer(package, tmp_path))
    assert process != host.main_pid("dsatier")
    host.ok("dsatier", "wait", "--timeout", "60")
    assert (before, "converged") == (knobs(host), state(host))

    host.ok("dpkg", "--remove", "dsatier")
    assert before == knobs(host)
    assert 0 != host.run("systemctl", "is-active", "dsatier").code
    host.ok("dpkg", "--purge", "dsatier")
    found = host.ok("find", "/etc", "/usr", "/run", "/var/lib", "-xdev", "-name", "*dsatier*")
    own = "/etc/systemd/system/dsatier.service.d"  # the simulated kernel's
    assert [] == [
        path for path in found.splitlines() if not path.startswith((own, "/var/lib/dpkg"))
    ]


def test_a_reload_by_signal_ends_when_it_is_done(host13: Container) -> None:
    """For who prefers it: it cannot tell whether the reload failed, but when it was over."""
    host = host13
    words = "[Service]\nType=notify-reload\nExecReload=\n"
    host.put("/etc/systemd/system/dsatier.service.d/signal.conf", words)
    host.ok("systemctl", "daemon-reload")
    host.ok("systemctl", "restart", "dsatier")
    assert "notify-reload" == host.show("dsatier", "Type")["Type"]
    tiered(host)


def test_an_upgrade_to_debian_13_leaves_a_tiered_host_watched(
    debian: Path, onward: Path, package: Path
) -> None:
    """apt keeps the package, the host stays as it is, and a daemon of the new Python watches it."""
    with Container(debian, sim="dsa8") as host:
        host.install(package)
        assert "/usr/bin/python3.11" == python(host)
        tiered(host)
        before = knobs(host)

        host.ok("sh", "-c", "rm -rf /etc/apt/sources.list.d/* /var/lib/apt/lists")
        for name, place in (
            ("sources.list", "/etc/apt"),
            ("lists", "/var/lib/apt"),
            ("archives", "/var/cache/apt"),
        ):
            host.copy_in(onward / name, place)
        apt = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "--no-download")
        keep = ("-o", "Dpkg::Options::=--force-confold")
        said = host.ok(*apt, *keep, "full-upgrade", timeout=UPGRADING)
        print(said)
        assert "13" == host.get("/etc/debian_version").decode().partition(".")[0]
        found = host.ok("dpkg-query", "--show", "--showformat=${db:Status-Abbrev}", "dsatier")
        assert "ii" == found.strip()
        until(lambda: "/usr/bin/python3.13" == python(host))  # nobody waits for its restart
        host.ok("dsatier", "wait", "--timeout", "60")
        assert (before, "converged") == (knobs(host), state(host))
        repairs(host)

        # what the old release leaves behind goes, and nobody misses it
        host.ok(*apt, "autoremove", "--purge", timeout=UPGRADING)
        assert 0 != host.run("test", "-e", "/usr/bin/python3.11").code
        repairs(host)
        host.ok("systemctl", "reload", "dsatier")
        host.reboot()
        host.ok("dsatier", "wait", "--timeout", "60")
        assert ("converged", "/usr/bin/python3.13") == (state(host), python(host))
        assert ("", "") == (host.sim.harm, host.sim.down)
