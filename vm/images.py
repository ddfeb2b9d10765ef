# SPDX-License-Identifier: Apache-2.0
"""What guests are made of, found or built once and kept outside of the repository.

Everything is in ``${DSATIER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/dsatier}``, under names made of
all that went in.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from vm.kernel import Kernel, started

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
BUSYBOX = Path("/bin/busybox")
SERIES = "linux-image-6.12.*+deb*-amd64-unsigned"
"""Debian's own prebuilt kernel: the newest package of this name that apt knows."""
BASE = "7.3"
"""The base of our kernel whose suite has Debian's newest kernel."""
NEWER = "linux-binary-unsigned-7.*+deb13-amd64"
"""That kernel: its image. Its modules and their lists are packages beside it."""


class Missing(Exception):
    """Something that guests are made of is not there. The message says what to do."""


def cache() -> Path:
    """Return the folder of what is kept."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("DSATIER_CACHE") or f"{home}/dsatier")


def once(name: str, inputs: bytes, build: Callable[[Path], None]) -> Path:
    """Return the folder that ``build`` fills, from the cache where it is there.

    Two that build the same wait for one another. What failed leaves nothing.
    """
    key = hashlib.sha256(inputs).hexdigest()[:16]
    found = cache() / f"{name}-{key}"
    if found.is_dir():
        return found
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"{name}-{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if found.is_dir():
            return found
        print(f"vm: building {found}", file=sys.stderr)
        work = Path(tempfile.mkdtemp(prefix=f"{name}-{key}.", dir=cache()))
        try:
            work.chmod(0o755)
            build(work)
            work.rename(found)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
    return found


def output(
    *words: str | Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """Return what a program prints. Its errors go where ours go."""
    more = {**os.environ, **(environment or {})}
    ran = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, cwd=cwd, env=more)
    return ran.stdout


def program(source: Path) -> Path:
    """Return a program of one file in C, built without libraries, so that it runs in any guest."""
    words = ("gcc", "-static", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread", "-s")
    name = source.stem

    def build(folder: Path) -> None:
        output(*words, "-o", folder / name, source)

    return once(name, " ".join(words).encode() + source.read_bytes(), build) / name


@functools.cache
def agent() -> Path:
    """Return the agent, built from its source."""
    return program(HERE / "agent.c")


def busybox() -> Path:
    """Return busybox. Raises Missing."""
    if not BUSYBOX.exists() or b"ld-linux" in BUSYBOX.read_bytes()[:4096]:
        raise Missing(f"{BUSYBOX}: expected a static one: apt install busybox-static")
    return BUSYBOX


@functools.cache
def emulator() -> Path:
    """Return the emulator with the DSA, built where it has to be. Raises Missing."""
    if given := os.environ.get("DSATIER_EMULATOR"):
        return Path(given)
    build = REPOSITORY / "emulator/build"
    if not build.exists():
        found = shutil.which("qemu-system-x86_64")
        if found is None:
            raise Missing("no emulator: apt install qemu-system-x86, or set DSATIER_EMULATOR")
        return Path(found)
    words = ["--sanitize"] if os.environ.get("DSATIER_SANITIZE") else []
    return Path(output(build, *words).splitlines()[-1])


@functools.cache
def debian_kernel() -> Kernel:
    """Return the newest kernel 6.12 of Debian that apt knows, without installing it.

    Raises Missing.
    """
    return _unpacked(newest(SERIES))


@functools.cache
def newer_kernel() -> Kernel:
    """Return the newest kernel 7.x of Debian for its stable release, without installing it.

    Raises Missing.
    """
    apt = Path(output(REPOSITORY / "kernel-src/scripts/source", "--base", BASE, "--apt").strip())
    image = newest(NEWER, apt)
    others = (image.replace("binary-unsigned", what) for what in ("base", "modules"))
    return _unpacked(image, *others, apt=apt)


def _unpacked(*packages: str, apt: Path | None = None) -> Kernel:
    """Return the kernel of some packages. Older ones have it in /boot, newer with its modules."""

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            download(Path(place), *packages, apt=apt)
            for archive in Path(place).glob("*.deb"):
                output("dpkg-deb", "-x", archive, folder)
        modules = _modules(folder)
        output("depmod", "-b", modules.parents[2], modules.name)
        image = _image(folder)
        started(Kernel(image), image.parent)

    folder = once("kernel", "\n".join([*packages, "2"]).encode(), build)
    return Kernel(_image(folder), _modules(folder))


def _modules(folder: Path) -> Path:
    (found,) = (*folder.glob("lib/modules/*"), *folder.glob("usr/lib/modules/*"))
    return found


def _image(folder: Path) -> Path:
    (found,) = (*folder.glob("boot/vmlinuz-*-amd64"), *_modules(folder).glob("vmlinuz.unsigned"))
    return found


@functools.cache
def dmatest(kernel: Kernel) -> Path:
    """Return the module dmatest for one of Debian's kernels, which are built without it.

    It is the kernel's own source, compiled against the headers of that kernel's package. Needs
    gcc-12, as that kernel does. Raises Missing.
    """
    source = Path(output(REPOSITORY / "kernel-src/scripts/source").strip(), "drivers/dma/dmatest.c")
    release = kernel.release
    abi = release.removesuffix("-amd64")
    names = (f"linux-headers-{release}", f"linux-headers-{abi}-common", f"linux-kbuild-{abi}")
    packages = [newest(name) for name in names]

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            download(Path(place), *packages)
            for archive in Path(place).glob("*.deb"):
                output("dpkg-deb", "-x", archive, place)
            top = Path(place, "usr/src")
            makefile = top / names[0] / "Makefile"
            makefile.write_text(f"include {top}/{names[1]}/Makefile\n")
            (Path(place) / "module").mkdir()
            shutil.copy(source, Path(place, "module"))
            Path(place, "module/Makefile").write_text("obj-m := dmatest.o\n")
            output("make", "-s", "-C", makefile.parent, f"M={place}/module", "modules")
            output("strip", "--strip-debug", f"{place}/module/dmatest.ko")
            shutil.copy(f"{place}/module/dmatest.ko", folder)

    inputs = "\n".join([*packages, "1"]).encode() + source.read_bytes()
    return once("dmatest", inputs, build) / "dmatest.ko"


def newest(pattern: str, apt: Path | None = None) -> str:
    """Return ``NAME=VERSION`` of the newest package whose name fits. Raises Missing.

    ``apt`` is its configuration, where it is not this machine's own.
    """
    words = ("apt-cache", "show", "--no-all-versions", *_names(pattern, apt))
    found: list[tuple[str, str]] = []
    name = ""
    for line in output(*words, environment=_apt(apt)).splitlines() if len(words) > 3 else ():
        key, _, value = line.partition(": ")
        name = value if key == "Package" else name
        if key == "Version":
            found.append((value, name))
    if not found:
        raise Missing(f"{pattern}: apt knows no such package: apt-get update")
    best = found[0]
    for other in found[1:]:
        compare = ["dpkg", "--compare-versions", other[0], "gt", best[0]]
        if subprocess.run(compare, check=False).returncode == 0:
            best = other
    return f"{best[1]}={best[0]}"


def _names(pattern: str, apt: Path | None) -> list[str]:
    words = ("apt-cache", "pkgnames", pattern.partition("*")[0])
    names = output(*words, environment=_apt(apt)).split()
    return sorted(name for name in names if fnmatchcase(name, pattern))


def download(folder: Path, *packages: str, apt: Path | None = None) -> None:
    """Fetch packages into a folder by apt, from this machine's own sources or those of ``apt``."""
    words = ("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *packages)
    output(*words, cwd=folder, environment=_apt(apt))


def _apt(configuration: Path | None) -> dict[str, str]:
    """Return the variables that have apt read a configuration, none for its own."""
    return {} if configuration is None else {"APT_CONFIG": str(configuration)}


@functools.cache
def debian_root(*packages: str) -> Path:
    """Return the image of a Debian with systemd, python3, accel-config and more packages.

    Needs root.
    """
    tree = Path(output(REPOSITORY / "vm/debianroot", *packages).strip())

    def build(folder: Path) -> None:
        words = ["mke2fs", "-q", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-d", str(tree)]
        output(*words, folder / "root.ext4", "2G")

    return once("root", tree.name.encode(), build) / "root.ext4"
