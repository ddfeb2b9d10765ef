# SPDX-License-Identifier: Apache-2.0
"""Hosts in containers, with dsatier installed from its Debian package."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.container import REPOSITORY, Container

PROFILES = REPOSITORY / "profiles"
Boot = Callable[..., Container]


def lacking() -> str:
    """Return what this machine lacks for containers, empty for nothing."""
    if os.geteuid() != 0:
        return "needs root, for containers"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "needs /dev/fuse"
    return ""


needs_containers = pytest.mark.skipif(bool(lacking()), reason=lacking() or "nothing")


def built(request: pytest.FixtureRequest, *words: str, **environment: str) -> str:
    """Run a program that makes something, with its progress shown, and return what it prints."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    own = {**os.environ, **environment}
    with capture.global_and_fixture_disabled():
        return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=own).stdout


@pytest.fixture(scope="session")
def debian(request: pytest.FixtureRequest) -> Path:
    """A Debian root; not to be changed."""
    return Path(built(request, str(REPOSITORY / "vm/debianroot")).strip())


@pytest.fixture(scope="session")
def debian13(request: pytest.FixtureRequest) -> Path:
    """The next release of Debian; not to be changed."""
    words = (str(REPOSITORY / "vm/debianroot"), "--release", "trixie")
    return Path(built(request, *words).strip())


@pytest.fixture(scope="session")
def package(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package of the working tree, built in a folder that has nothing else.

    Where DSATIER_SHARED names a folder, the first who asks builds it there for all who share that.
    """
    shared = os.environ.get("DSATIER_SHARED")
    folder = Path(shared) / "package" if shared else tmp_path_factory.mktemp("package")
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "dist").exists():
            _build_package(request, folder)
    (found,) = (folder / "dist").iterdir()
    return found


def _build_package(request: pytest.FixtureRequest, folder: Path) -> None:
    (folder / "tmp").mkdir()
    words = (str(REPOSITORY / "packaging/debian/build"), str(folder / "made"))
    built(request, *words, TMPDIR=str(folder / "tmp"), TZ="UTC", LC_ALL="C.UTF-8")
    assert [] == list((folder / "tmp").iterdir())
    (folder / "made").rename(folder / "dist")


@pytest.fixture
def boot(debian: Path) -> Iterator[Boot]:
    """Boot hosts, as ``Container`` does, for as long as the test lasts.

    No test may hurt a simulated kernel.
    """
    with ExitStack() as stack:
        hosts: list[Container] = []

        def booted(sim: str | None = None, network: Path | None = None) -> Container:
            hosts.append(stack.enter_context(Container(debian, sim=sim, network=network)))
            return hosts[-1]

        yield booted
        kernels = [host.sim for host in hosts if host.has_sim]
        assert [("", "")] * len(kernels) == [(kernel.harm, kernel.down) for kernel in kernels]


@pytest.fixture
def host(boot: Boot, package: Path) -> Container:
    """A host with eight DSA devices on a simulated kernel, dsatier installed, no profile."""
    found = boot(sim="dsa8")
    found.install(package)
    return found


def newer(package: Path, folder: Path) -> Path:
    """Return the package with a higher version."""
    subprocess.run(["dpkg-deb", "--raw-extract", package, folder / "raw"], check=True)
    control = folder / "raw/DEBIAN/control"
    text = re.sub(r"^Version: (.*)$", r"Version: \1+later", control.read_text(), flags=re.MULTILINE)
    control.write_text(text)
    made = folder / "dsatier_later.deb"
    words = ["dpkg-deb", "--root-owner-group", "--build", str(folder / "raw"), str(made)]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return made
