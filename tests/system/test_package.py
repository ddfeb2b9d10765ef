# SPDX-License-Identifier: Apache-2.0
"""The packages: what is in them, that anybody makes the same bytes, how the .deb comes and goes.

A booted systemd is not needed here: what the packages do with it is told elsewhere.
"""

from __future__ import annotations

import fnmatch
import gzip
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dsatier import __version__
from dsatier.base.exits import BAD_PROFILE, NOT_RUNNING, OK

TOOLS = ("dpkg-buildpackage", "dh", "lintian", "rpmbuild", "rpmlint", "cpio", "git", "taskset")
LACKING = [tool for tool in TOOLS if shutil.which(tool) is None]
pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as somebody else"),
    pytest.mark.skipif(bool(LACKING), reason=f"needs {', '.join(LACKING)}"),
]
REPOSITORY = Path(__file__).resolve().parents[2]
NOBODY = 65534
CACHE = Path(
    os.environ.get("DSATIER_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dsatier"
)
PYTHON = "/usr/bin/python3"
"""Debian's own, whatever else is on the path."""
PRIVATE = "usr/lib/dsatier"
PATIENCE = 600.0


def ran(*words: str | Path, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, however it ends."""
    return subprocess.run(
        words, capture_output=True, text=True, check=False, timeout=PATIENCE, **how
    )


def made(*words: str | Path, **how: Any) -> str:
    """Run a command that must succeed, and return what it says."""
    done = ran(*words, **how)
    print(done.stdout, done.stderr)  # whole, where pytest shortens a comparison
    assert (words, 0) == (words, done.returncode)
    return done.stdout


def only(folder: Path, pattern: str) -> Path:
    """Return the one file of a folder that has such a name."""
    found = sorted(folder.glob(pattern))
    assert 1 == len(found), found
    return found[0]


# -- building -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkout of its own: others may work in this one."""
    folder = tmp_path_factory.mktemp("here") / "dsatier"
    made(REPOSITORY / "packaging" / "source", folder)
    shutil.rmtree(folder / "vendor")
    made("git", "init", "--quiet", "--initial-branch=main", folder)
    return folder


@pytest.fixture(scope="module")
def elsewhere(tree: Path) -> Iterator[Path]:
    """Return the same checkout, somebody else's, with other times and modes."""
    top = Path(tempfile.mkdtemp(prefix="dsatier-"))
    folder = top / "a folder of another name and length" / "checkout"
    shutil.copytree(tree, folder, symlinks=True)
    for archives in CACHE.glob("archives-*"):
        shutil.copytree(archives, top / "cache" / archives.name)
    for path in (top, *sorted(top.rglob("*"))):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
        os.utime(path, (1e9, 1e9), follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & 0o700)
    yield folder
    shutil.rmtree(top)


def built(tree: Path, kind: str, out: Path) -> Path:
    """Build a package as root, in its own folder for temporary files, and return that of both."""
    (out / "tmp").mkdir(parents=True)
    environment = {**os.environ, "TZ": "UTC", "LC_ALL": "C.UTF-8", "TMPDIR": str(out / "tmp")}
    made(tree / "packaging" / kind / "build", out / "dist", env=environment, umask=0o022)
    assert [] == list((out / "tmp").iterdir())
    return only(out / "dist", "*")


def built_elsewhere(folder: Path, kind: str) -> Path:
    """Build a package as nobody, on one processor, in surroundings that should not count."""
    top = folder.parents[1]
    out = folder.parent / f"{kind}-dist"
    temporary = top / f"{kind}-tmp"  # debhelper and rpmbuild take no spaces in it
    temporary.mkdir()
    os.chown(temporary, NOBODY, NOBODY)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(top),
        "TMPDIR": str(temporary),
        "DSATIER_CACHE": str(top / "cache"),
        "TZ": "Pacific/Auckland",
        "LC_ALL": "C",
        "SOURCE_DATE_EPOCH": "1",
        "DEB_BUILD_OPTIONS": "nostrip",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    processors = sorted(os.sched_getaffinity(0))
    processor = str(processors[0 if kind == "debian" else -1])
    who = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "umask": 0o077}
    build = folder / "packaging" / kind / "build"
    made("taskset", "--cpu-list", processor, build, out, env=environment, cwd="/", **who)
    return only(out, "*")


@pytest.fixture(scope="module")
def deb(package: Path) -> Path:
    """Return the package that the hosts of other tests have, too."""
    return package


@pytest.fixture(scope="module")
def rpm(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tree, "rpm", tmp_path_factory.mktemp("rpm"))


@pytest.fixture(scope="module")
def builds(elsewhere: Path) -> Iterator[dict[str, Future[Path]]]:
    """Return both packages as somebody else builds them, side by side: each has a processor."""
    with ThreadPoolExecutor(2) as pool:
        kinds = ("debian", "rpm")
        yield {kind: pool.submit(built_elsewhere, elsewhere, kind) for kind in kinds}


@pytest.mark.parametrize(("kind", "name"), [("debian", "deb"), ("rpm", "rpm")])
def test_a_package_is_the_same_wherever_it_is_built(
    kind: str, name: str, builds: dict[str, Future[Path]], request: pytest.FixtureRequest
) -> None:
    here: Path = request.getfixturevalue(name)
    there = builds[kind].result()
    assert (here.name, here.read_bytes()) == (there.name, there.read_bytes())


def test_a_library_that_lacks_a_python_is_refused(tree: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    made(tree / "packaging" / "source", source)
    only(source / "vendor", "pyyaml-*-cp313-*").unlink()
    done = ran(source / "packaging" / "private", tmp_path / "private", cwd=source)
    assert 1 == done.returncode
    version = pins("runtime.txt")["pyyaml"]
    wanted, found = "cp311, cp312, cp313, cp314", "cp311, cp312, cp314"
    assert f"expected an archive of pyyaml=={version} for {wanted}, found {found}\n" in done.stderr


def test_an_archive_that_the_lock_does_not_name_is_refused(tree: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    made(tree / "packaging" / "source", source)
    wheel = only(source / "vendor", "annotated_types-*")
    with wheel.open("ab") as file:
        file.write(b"\n")
    done = ran(source / "packaging" / "private", tmp_path / "private", cwd=source)
    assert 1 == done.returncode
    assert "expected a hash that requirements/runtime.txt names, found sha256:" in done.stderr
    wheel.unlink()
    done = ran(source / "packaging" / "private", tmp_path / "again", cwd=source)
    assert 1 == done.returncode
    assert "expected an archive of annotated-types==" in done.stderr


# -- versions -------------------------------------------------------------------------


def pins(name: str) -> dict[str, str]:
    """Return the versions that a lock names."""
    text = (REPOSITORY / "requirements" / name).read_text()
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def test_the_packages_carry_what_the_tests_run_with() -> None:
    runtime, tested = pins("runtime.txt"), pins("test.txt")
    assert runtime == {name: tested.get(name) for name in runtime}


def test_the_packages_carry_what_the_project_depends_on() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = (REPOSITORY / "requirements" / "runtime.in").read_text().splitlines()
    named = [line for line in lines if not line.startswith(("#", "-c "))]
    assert sorted(project["dependencies"]) == sorted(named)


def test_the_packages_carry_the_version_of_the_project() -> None:
    packaging = REPOSITORY / "packaging"
    changelog = re.match(r"dsatier \((.+?)-\d+\)", (packaging / "debian/changelog").read_text())
    spec = re.search(r"\nVersion: +(\S+)", (packaging / "rpm/dsatier.spec").read_text())
    galaxy = re.search(r"\nversion: (\S+)", (packaging / "ansible/galaxy.yml").read_text())
    assert [__version__] * 3 == [found[1] for found in (changelog, spec, galaxy) if found]


# -- what is in the .deb --------------------------------------------------------------


@pytest.fixture(scope="module")
def members(deb: Path) -> dict[str, tarfile.TarInfo]:
    """Return what is in the .deb, by its path without a slash before it."""
    with tarfile.open(fileobj=io.BytesIO(payload(deb))) as archive:
        return {member.name.removeprefix("./"): member for member in archive}


def payload(deb: Path) -> bytes:
    """Return a .deb's files as a tar archive."""
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    return subprocess.run(command, capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def extracted(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files of the .deb."""
    folder = tmp_path_factory.mktemp("extracted")
    made("dpkg-deb", "--extract", deb, folder)
    return folder


def expected(tree: Path) -> set[str]:
    """Return every path that the .deb is to have for what is in the sources, without folders."""
    agent, units, doc = tree / "agent/dsatier", tree / "systemd", "usr/share/doc/dsatier"
    shared = {
        "hosts": agent.glob("hosts/*.yaml"),
        "profiles": tree.glob("profiles/*.yaml"),
        "schema": tree.glob("schemas/*.json"),
    }
    return {
        "usr/bin/dsatier",
        *(f"usr/share/dsatier/{at}/{path.name}" for at, found in shared.items() for path in found),
        *(f"{PRIVATE}/dsatier/{path.relative_to(agent)}" for path in agent.rglob("*.py")),
        f"{PRIVATE}/dsatier/py.typed",
        *(f"{PRIVATE}/dsatier/{link}" for link in ("hosts", "profiles")),
        *(f"lib/systemd/system/{path.name}" for path in units.glob("*.service")),
        *(f"lib/systemd/system/{path.name}" for path in units.glob("*.target")),
        "lib/systemd/system-preset/90-dsatier.preset",
        "lib/udev/rules.d/90-dsatier.rules",
        "usr/lib/tmpfiles.d/dsatier.conf",
        "usr/share/dsatier/past-iommu.conf",
        *(
            f"usr/share/man/man{path.suffix[1:]}/{path.name}.gz"
            for path in (tree / "man").iterdir()
        ),
        "usr/share/bash-completion/completions/dsatier",
        "usr/share/zsh/vendor-completions/_dsatier",
        f"{doc}/README.md",
        *(f"{doc}/{path.relative_to(tree)}" for path in tree.glob("docs/**/*.*")),
        *(f"{doc}/{name}" for name in ("changelog.gz", "changelog.Debian.gz", "copyright")),
        f"{doc}/examples",
        "usr/share/lintian/overrides/dsatier",
        # made by dh_python3: byte code is made anew with a new Python
        "usr/share/python3/runtime.d/dsatier.rtupdate",
    }


def test_the_deb_has_every_file_of_the_sources_and_no_other(
    tree: Path, members: dict[str, tarfile.TarInfo]
) -> None:
    found = {
        path
        for path, member in members.items()
        if not member.isdir()
        and (not path.startswith(f"{PRIVATE}/") or path.startswith(f"{PRIVATE}/dsatier/"))
    }
    assert expected(tree) == found
    # so that two empty lists cannot be equal
    units = {path.name for path in (tree / "systemd").iterdir()}
    assert {"dsatier.service", "dsatier-wait.service", "dsatier.target"} <= units


def test_the_private_folder_has_what_the_lock_pins_and_no_other(
    members: dict[str, tarfile.TarInfo],
) -> None:
    tops = {path.split("/")[3] for path in members if path.startswith(f"{PRIVATE}/")} - {""}
    versions = {top.removesuffix(".dist-info") for top in tops if top.endswith(".dist-info")}
    pinned = {
        f"{name.replace('-', '_')}-{version}" for name, version in pins("runtime.txt").items()
    }
    assert pinned == versions
    names = {name.rpartition("-")[0] for name in versions}
    modules = {"yaml" if name == "pyyaml" else name for name in names} | {"_yaml", "dsatier"}
    folders = {top.removesuffix(".py") for top in tops if not top.endswith(".dist-info")}
    assert modules == folders


def test_compiled_modules_are_there_for_every_python_that_the_deb_admits(
    deb: Path, members: dict[str, tarfile.TarInfo]
) -> None:
    needs = made("dpkg-deb", "--field", deb, "Depends")
    bounds = re.findall(r"python3 \((>=|<<) 3\.(\d+)\)", needs)
    lowest, beyond = (int(minor) for _, minor in sorted(bounds, reverse=True))
    tags = [f"cpython-3{minor}-x86_64-linux-gnu" for minor in range(lowest, beyond)]
    assert (">=", "<<", 4) == (*sorted((sign for sign, _ in bounds), reverse=True), len(tags))
    compiled: dict[str, list[str]] = {}
    for path in sorted(path for path in members if path.endswith(".so")):
        stem, tag, _ = path.removeprefix(f"{PRIVATE}/").split(".")
        compiled.setdefault(stem, []).append(tag)
    assert {"pydantic_core/_pydantic_core": tags, "yaml/_yaml": tags} == compiled


def test_byte_code_is_made_by_whichever_python_there_is(deb: Path) -> None:
    """A range of versions would exclude its end, and the package could not be configured there."""
    control = subprocess.run(["dpkg-deb", "--ctrl-tarfile", deb], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(control.stdout)) as archive:
        script = archive.extractfile("./postinst")
        assert script is not None
        lines = script.read().decode().splitlines()
    compiling = [line.split() for line in lines if line.startswith("\tpy3compile")]
    assert [["py3compile", "-p", "dsatier:amd64", "/usr/lib/dsatier"]] == compiling


def test_the_deb_needs_nothing_that_the_oldest_release_lacks(deb: Path) -> None:
    """Of what Debian 12 has: later releases have later ones."""
    needs = made("dpkg-deb", "--field", deb, "Depends").strip().split(", ")
    others = {need for need in needs if not need.startswith("python3")}
    assert {"libc6 (>= 2.34)", "libgcc-s1 (>= 4.2)"} == others


def test_folders_for_profiles_are_empty(members: dict[str, tarfile.TarInfo]) -> None:
    for folder in ("etc/dsatier.d", "usr/lib/dsatier.d"):
        assert members[folder].isdir()
        assert [] == [path for path in members if path.startswith(f"{folder}/")]


def test_files_are_roots_and_read_by_all(members: dict[str, tarfile.TarInfo]) -> None:
    wrong = {
        path: oct(member.mode)
        for path, member in members.items()
        if (member.uname, member.gname) != ("root", "root")
        or not (
            member.issym()
            or (member.isdir() and member.mode == 0o755)
            or (member.isreg() and member.mode == (0o755 if _runs(path) else 0o644))
        )
    }
    assert {} == wrong


def _runs(path: str) -> bool:
    return path.endswith(("bin/dsatier", ".rtupdate"))


def test_links_lead_to_files_of_the_package(members: dict[str, tarfile.TarInfo]) -> None:
    links = {path: member.linkname for path, member in members.items() if member.issym()}
    targets = {os.path.normpath(f"{path}/../{target}") for path, target in links.items()}
    assert {f"usr/share/dsatier/{name}" for name in ("hosts", "profiles")} == targets


def test_no_file_names_where_it_was_built(tree: Path, deb: Path) -> None:
    places = [str(place).encode() for place in (tree, deb.parents[1], REPOSITORY, CACHE)]
    with tarfile.open(fileobj=io.BytesIO(payload(deb))) as archive:
        contents = {m.name: _plain(archive, m) for m in archive if m.isreg()}
    assert len(contents) > 100
    assert [] == [name for name, text in contents.items() if any(p in text for p in places)]


def _plain(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None
    content = file.read()
    return gzip.decompress(content) if member.name.endswith(".gz") else content


def test_every_library_has_its_licence(tree: Path, members: dict[str, tarfile.TarInfo]) -> None:
    text = (tree / "packaging/debian/copyright").read_text()
    stanza = r"^Files:\n((?: .+\n)+)Copyright:\n(?: .+\n)+License: (.+)$"
    stanzas = re.findall(stanza, text, re.MULTILINE)
    patterns = [pattern for files, _ in stanzas for pattern in files.split() if pattern != "*"]
    assert len(patterns) > 5
    inside = {path.removeprefix(f"{PRIVATE}/") for path, m in members.items() if m.isreg()}
    code = {
        path
        for path in inside
        if path.endswith((".py", ".so")) and not path.startswith(("dsatier/", "usr/"))
    }
    assert set() == {path for path in code if not any(fnmatch.fnmatch(path, p) for p in patterns)}
    assert set() == {p for p in patterns if not any(fnmatch.fnmatch(path, p) for path in code)}
    named = {word for _, licence in stanzas for word in re.split(r" and | or ", licence)}
    assert named == set(re.findall(r"^License: (\S+)\n ", text, re.MULTILINE))


def test_lintian_has_nothing_to_say(deb: Path) -> None:
    levels = "error,warning,info,pedantic"
    words = ("--fail-on", levels, "--pedantic", "--display-info", "--tag-display-limit", "0")
    assert "" == made("lintian", *words, deb)


def test_every_override_says_why() -> None:
    text = (REPOSITORY / "packaging/debian/dsatier.lintian-overrides").read_text()
    groups = text.strip().split("\n\n")
    assert len(groups) > 3
    assert [] == [group for group in groups if not group.startswith("# ")]


# -- running it -----------------------------------------------------------------------


@pytest.fixture
def hostile(tmp_path: Path) -> dict[str, Any]:
    """Return surroundings full of modules that must not be imported."""
    home = tmp_path / "home"
    site = home / ".local/lib/python3.11/site-packages"
    for folder in (tmp_path, site):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("yaml", "json", "dsatier", "pydantic_core", "usercustomize"):
            (folder / f"{name}.py").write_text("raise SystemExit('imported from outside')\n")
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "PYTHONPATH": str(tmp_path)}
    return {"cwd": tmp_path, "env": environment}


@pytest.fixture(params=["deb", "rpm"])
def unpacked(request: pytest.FixtureRequest) -> Path:
    """Return the files of each package."""
    name = {"deb": "extracted", "rpm": "unpacked_rpm"}[request.param]
    folder: Path = request.getfixturevalue(name)
    return folder


def test_the_command_runs_by_itself(unpacked: Path, hostile: dict[str, Any]) -> None:
    command = unpacked / "usr/bin/dsatier"
    profile = unpacked / "usr/share/dsatier/profiles/dsa.yaml"
    assert f"dsatier {__version__}\n" == made(command, "--version", **hostile)
    assert "" == made(command, "check", profile, **hostile)
    plan = made(command, "plan", "--json", "-p", profile, "--host", "sim:dsa8", **hostile)
    assert len(json.loads(plan)["steps"]) > 10
    assert NOT_RUNNING == ran(command, "status", "--root", ".", **hostile).returncode
    wrong = ran(command, "check", "-", input="version: 2\n", **hostile)
    assert BAD_PROFILE == wrong.returncode
    assert "<stdin>:1:10: version" in wrong.stderr


IMPORTS = """
import json, runpy, sys
command, *sys.argv = sys.argv[1:]
try:
    runpy.run_path(command, run_name="__main__")
except SystemExit as end:
    print(end.code, file=sys.stderr)
import pydantic, sdnotify, structlog, tenacity, yaml.cyaml
print(json.dumps([getattr(module, "__file__", None) for module in sys.modules.values()]))
"""


def test_nothing_is_imported_but_its_own_and_pythons(unpacked: Path) -> None:
    command = unpacked / "usr/bin/dsatier"
    interpreter, flags = command.read_text().partition("\n")[0].removeprefix("#!").split(" ")
    words = [str(command), "dsatier", "plan", "-p", "/dev/null", "--host", "sim:dsa8"]
    # -B: the tree is compared with others
    said = made(interpreter, flags, "-B", "-c", IMPORTS, *words).splitlines()[-1]
    files = {Path(file).resolve() for file in json.loads(said) if file}
    private = unpacked.resolve() / PRIVATE
    standard = Path("/usr/lib/python3.11")
    assert set() == {f for f in files if private not in f.parents and standard not in f.parents}
    tops = {file.relative_to(private).parts[0] for file in files if private in file.parents}
    libraries = {"pydantic", "pydantic_core", "yaml", "structlog", "sdnotify", "tenacity"}
    assert {"dsatier", *libraries} <= tops


# -- the RPM --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unpacked_rpm(rpm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rpm-files")
    archive = subprocess.run(["rpm2cpio", str(rpm)], capture_output=True, check=True).stdout
    cpio = ["cpio", "--extract", "--make-directories", "--quiet"]
    subprocess.run(cpio, input=archive, cwd=folder, check=True, umask=0o022)
    return folder


def files(folder: Path) -> set[str]:
    """Return the paths of all files in a folder, links that lead to folders among them."""
    found = folder.rglob("*")
    return {str(p.relative_to(folder)) for p in found if p.is_symlink() or not p.is_dir()}


def in_rpm(path: str) -> str | None:
    """Return where the RPM has a file of the .deb, None where it has none."""
    if path.startswith(("usr/share/python3/", "usr/share/lintian/")):
        return None
    if path == "usr/share/doc/dsatier/changelog.Debian.gz":
        return None
    for debian, other in (
        ("lib/systemd/", "usr/lib/systemd/"),
        ("lib/udev/", "usr/lib/udev/"),
        ("usr/share/zsh/vendor-completions/", "usr/share/zsh/site-functions/"),
        ("usr/share/doc/dsatier/changelog.gz", "usr/share/doc/dsatier/CHANGES.md"),
        ("usr/share/doc/dsatier/copyright", "usr/share/licenses/dsatier/LICENSE"),
    ):
        if path.startswith(debian):
            return other + path.removeprefix(debian)
    return path


def test_the_rpm_has_the_files_of_the_deb(extracted: Path, unpacked_rpm: Path) -> None:
    paths = {path: in_rpm(path) for path in files(extracted) if "__pycache__" not in path}
    code = {path for path in files(unpacked_rpm) if "/__pycache__/" in path}
    assert set(paths.values()) - {None} == files(unpacked_rpm) - code
    # debugging symbols are stripped by other programs; the first line names another Python
    different = {
        path
        for path, other in paths.items()
        if other
        and not (extracted / path).is_dir()
        and (extracted / path).read_bytes() != (unpacked_rpm / other).read_bytes()
    }
    own = {
        "usr/bin/dsatier",
        "usr/share/doc/dsatier/changelog.gz",
        "usr/share/doc/dsatier/copyright",
    }
    assert own == {path for path in different if not path.endswith(".so")}


def test_the_rpm_has_byte_code_for_every_module(unpacked_rpm: Path) -> None:
    private = unpacked_rpm / PRIVATE
    compiled = {path.name.partition(".")[0] for path in private.rglob("__pycache__/*.pyc")}
    assert {path.stem for path in private.rglob("*.py")} == compiled
    assert {path.parent for path in private.rglob("*.py")} == {
        path.parents[1] for path in private.rglob("__pycache__/*.pyc")
    }


def test_the_rpm_says_what_it_is(rpm: Path) -> None:
    ask = ("rpm", "--query", "--package", rpm, "--queryformat")
    # rpm is no package manager here; it may say that it finds no data base
    assert "dsatier 0.1.0 x86_64" == made(*ask, "%{NAME} %{VERSION} %{ARCH}")
    licence = "Apache-2.0 AND MIT AND PSF-2.0 AND Unicode-3.0 AND Zlib"
    assert licence == made(*ask, "%{LICENSE}")
    needs = made("rpm", "--query", "--package", "--requires", rpm).split("\n")
    assert {"/usr/bin/python3.11", "systemd >= 252", "libc.so.6()(64bit)"} <= set(needs)
    assert [] == [need for need in needs if need.startswith("python3")]
    assert {"root"} == set(made(*ask, "[%{FILEUSERNAME}\n%{FILEGROUPNAME}\n]").split())


def test_the_spec_names_a_python_that_enterprise_linux_9_and_10_have() -> None:
    spec = REPOSITORY / "packaging/rpm/dsatier.spec"
    for kind in ("--requires", "--buildrequires"):
        needs = made("rpmspec", "--query", kind, spec).splitlines()
        assert ["/usr/bin/python3.12"] == [need for need in needs if "python" in need]


def test_the_rpm_is_not_made_for_a_python_without_compiled_modules(
    tree: Path, tmp_path: Path
) -> None:
    """Of the libraries only the compiled ones are left out."""
    source = tmp_path / "source"
    made(tree / "packaging/source", source)
    for archive in (source / "vendor").glob("*-cp311-*"):
        archive.unlink()
    words = ("rpmbuild", "-bb", "--nodeps", "--define", "python /usr/bin/python3.11")
    (tmp_path / "top").mkdir()
    (tmp_path / "top/BUILD").symlink_to(source)
    top = ("--define", f"_topdir {tmp_path}/top", source / "packaging/rpm/dsatier.spec")
    done = ran(*words, *top)
    print(done.stdout, done.stderr)
    assert 1 == done.returncode
    assert "cannot import name 'ArgsKwargs' from 'pydantic_core._pydantic_core'" in done.stderr


def test_rpmlint_has_nothing_to_say(rpm: Path) -> None:
    said = made("rpmlint", "--rpmlintrc", REPOSITORY / "packaging/rpm/dsatier.rpmlintrc", rpm)
    assert [] == re.findall(r"^dsatier.*", said, re.MULTILINE)
    assert "1 packages and 0 specfiles checked; 0 errors, 0 warnings" in said


# -- the wheel ------------------------------------------------------------------------


def test_the_wheel_runs_in_an_environment_of_its_own(tree: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(tree, source, symlinks=True)
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    made(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source)
    wheel = only(tmp_path, "*.whl")
    made(sys.executable, "-m", "venv", tmp_path / "venv")
    folder = tmp_path / "venv/bin"
    lock = REPOSITORY / "requirements/runtime.txt"
    install = (folder / "pip", "install", "--quiet", "--disable-pip-version-check")
    made(*install, "--require-hashes", "--requirement", lock)
    made(*install, "--no-deps", wheel)
    made(folder / "pip", "check")

    site = only(tmp_path / "venv/lib", "python3*") / "site-packages/dsatier"
    agent = tree / "agent/dsatier"
    for pattern in ("**/*.py", "py.typed", "hosts/*.yaml", "profiles/*.yaml", "systemd/*"):
        shipped = {path.relative_to(agent): path.read_bytes() for path in agent.glob(pattern)}
        assert shipped == {path.relative_to(site): path.read_bytes() for path in site.glob(pattern)}
        assert shipped
    command, profile = folder / "dsatier", site / "profiles/dsa.yaml"
    how = {"cwd": tmp_path, "env": {"PATH": "/usr/bin:/bin"}}
    assert f"dsatier {__version__}\n" == made(command, "--version", **how)
    assert "" == made(command, "check", profile, **how)
    plan = made(command, "plan", "--json", "-p", profile, "--host", "sim:dsa8", **how)
    assert len(json.loads(plan)["steps"]) > 10
    assert NOT_RUNNING == ran(command, "status", "--root", ".", **how).returncode


# -- the life of the .deb -------------------------------------------------------------


@pytest.fixture
def chroot(debian: Path, tmp_path: Path) -> Path:
    """Return a Debian of its own in which nothing runs, systemd neither."""
    folder = tmp_path / "root"
    made("cp", "--archive", "--reflink=auto", debian, folder)
    return folder


def test_it_comes_and_goes_in_a_chroot(deb: Path, chroot: Path) -> None:
    before = _all(chroot)
    shutil.copy(deb, chroot / "tmp")
    package = f"/tmp/{deb.name}"

    assert OK == _in(chroot, "dpkg", "--install", package).returncode
    wants = chroot / "etc/systemd/system/multi-user.target.wants/dsatier.service"
    assert "/lib/systemd/system/dsatier.service" == str(wants.readlink())
    code = _compiled(chroot)
    sourced = {p.relative_to(chroot / PRIVATE) for p in (chroot / PRIVATE).rglob("*.py")}
    assert {path.with_suffix("") for path in sourced} == set(code)
    profile = "/usr/share/dsatier/profiles/dsa.yaml"
    assert OK == _in(chroot, "dsatier", "plan", "-p", profile, "--host", "sim:dsa8").returncode
    assert NOT_RUNNING == _in(chroot, "dsatier", "status").returncode
    assert code == _compiled(chroot), "a command compiled what was not"

    assert OK == _in(chroot, "dpkg", "--install", package).returncode
    assert set(code) == set(_compiled(chroot))

    own = {
        "etc/dsatier.d/50-mine.yaml": "version: 1\n",
        "var/lib/dsatier/originals.json": "{}",
        "run/dsatier/status.json": "{}",
    }
    for name, text in own.items():
        path = chroot / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    removed = _in(chroot, "dpkg", "--remove", "dsatier")
    assert (OK, True) == (removed.returncode, "dsatier rollback" in removed.stderr)
    assert "not empty" not in removed.stderr
    assert own == {name: (chroot / name).read_text() for name in own}
    assert not (chroot / PRIVATE).exists()

    assert OK == _in(chroot, "dpkg", "--purge", "dsatier").returncode
    assert before == _all(chroot)


def _in(chroot: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    done = ran("chroot", chroot, *words, env=environment)
    print(done.stdout, done.stderr)
    return done


def _all(chroot: Path) -> set[str]:
    """Return all paths but those that dpkg keeps itself, and the tests."""
    beside = ("var/lib/dpkg/", "var/log/", "tmp/")
    found = {str(path.relative_to(chroot)) for path in chroot.rglob("*")}
    return {path for path in found if not path.startswith(beside)}


def _compiled(chroot: Path) -> dict[Path, int]:
    """Return each module of the private folder that has byte code, and when that was made."""
    private = chroot / PRIVATE
    return {
        path.parents[1].relative_to(private) / path.name.partition(".")[0]: path.stat().st_mtime_ns
        for path in private.rglob("__pycache__/*.pyc")
    }
