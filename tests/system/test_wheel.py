# SPDX-License-Identifier: Apache-2.0
"""The service of a dsatier that came as a wheel, in a virtual environment below /opt."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.container import REPOSITORY
from tests.system.conftest import PROFILES, Boot, needs_containers

pytestmark = [pytest.mark.system, needs_containers]
PROGRAM = "/opt/dsatier/bin/dsatier"
ENGINE = "/proc/sys/vm/use_dsa_copy_pages"
SCRIPT = (
    "#!/opt/dsatier/bin/python\nimport sys\nfrom dsatier.cli.main import main\nsys.exit(main())\n"
)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return what pip would install: the libraries that are locked, and the wheel."""
    source, folder = tmp_path / "source", tmp_path / "site-packages"
    subprocess.run([REPOSITORY / "packaging/source", source], check=True)
    subprocess.run([source / "packaging/private", folder], check=True, cwd=source)
    shutil.rmtree(folder / "dsatier")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    words = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source)
    subprocess.run([*pip, *words], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_the_service_of_a_wheel_comes_keeps_the_host_and_goes(boot: Boot, site: Path) -> None:
    host = boot(sim="dsa8")
    host.ok("python3", "-m", "venv", "--without-pip", "/opt/dsatier")
    host.copy_in(site, "/opt/dsatier/lib/python3.11")
    host.put(PROGRAM, SCRIPT, 0o755)
    host.put("/etc/dsatier.d/host.yaml", (PROFILES / "dsa.yaml").read_text(encoding="utf-8"))

    said = host.ok(PROGRAM, "install-service")
    host.ok("sh", "-c", said.splitlines()[-1].removeprefix("then: "))
    host.ok(PROGRAM, "wait", "--timeout", "60")
    assert "1\n" == host.sim.read(ENGINE)
    assert f"{PROGRAM} daemon" in host.show("dsatier", "ExecStart")["ExecStart"]
    host.ok("systemctl", "reload", "dsatier")
    host.ok("systemctl", "start", "dsatier.target")

    assert 1 == host.run(PROGRAM, "uninstall-service").code
    host.ok(PROGRAM, "rollback")
    host.ok("systemctl", "disable", "--now", "dsatier")
    host.ok(PROGRAM, "uninstall-service")
    host.ok("systemctl", "daemon-reload")
    assert "not-found" == host.show("dsatier", "LoadState")["LoadState"]
    assert "0\n" == host.sim.read(ENGINE)
    left = host.ok("find", "/usr/local", "-name", "*dsatier*", "-type", "f")
    assert "" == left
