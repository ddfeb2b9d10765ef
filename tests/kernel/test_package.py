# SPDX-License-Identifier: Apache-2.0
"""The kernel's packages: the same bytes twice, beside the distribution's kernel, and gone again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kernel.ours import HERE

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to install packages"),
]
REPOSITORY = HERE.parents[1]
OTHER = "6.1.0-1-amd64"
"""The distribution's kernel."""
HOOKS = ("preinst", "postinst", "prerm", "postrm")


def run(*words: str | Path) -> str:
    """Return what a program prints."""
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The packages of the flavour vm, by the first two words of their names."""
    folder = tmp_path_factory.mktemp("dist")
    run(REPOSITORY / "packaging/kernel/build", folder)
    return {"-".join(path.name.split("-")[:2]): path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def release(packages: dict[str, Path]) -> str:
    """The kernel's release, as the package's name has it."""
    return packages["linux-image"].name.removeprefix("linux-image-").partition("_")[0]


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A Debian that has a kernel, links to it, and hooks that say when they are called."""
    lower = run(REPOSITORY / "vm/debianroot").strip()
    with mounted(tmp_path, "-t", "tmpfs", "tmpfs") as layers:
        for name in ("upper", "work"):
            (layers / name).mkdir()
        options = f"lowerdir={lower},upperdir={layers}/upper,workdir={layers}/work"
        with mounted(tmp_path, "-t", "overlay", "-o", options, "overlay") as found:
            for name in (f"vmlinuz-{OTHER}", f"initrd.img-{OTHER}"):
                (found / "boot" / name).write_text("the distribution's")
            (found / "vmlinuz").symlink_to(f"boot/vmlinuz-{OTHER}")
            (found / "initrd.img").symlink_to(f"boot/initrd.img-{OTHER}")
            (found / f"lib/modules/{OTHER}").mkdir(parents=True)
            for name in HOOKS:
                hook = found / f"etc/kernel/{name}.d/menu"
                hook.parent.mkdir(parents=True, exist_ok=True)
                text = f'echo "{name} $1 $2:" /boot/vmlinuz-* >>/called'
                hook.write_text(f"#!/bin/sh\n{text}\n")
                hook.chmod(0o755)
            yield found


@contextmanager
def mounted(folder: Path, *words: str) -> Iterator[Path]:
    """Mount something for as long as the block lasts."""
    place = Path(run("mktemp", "-d", folder / "mount.XXXXXX").strip())
    run("mount", *words, place)
    try:
        yield place
    finally:
        run("umount", place)


def files(root: Path) -> set[str]:
    """Return the files that are there but dpkg's own notes."""
    found = run("find", root, "-xdev", "!", "-type", "d", "-printf", "%P\n").splitlines()
    return {name for name in found if not name.startswith(("var/", "called"))}


def test_the_same_bytes_twice(packages: dict[str, Path], tmp_path: Path) -> None:
    """What is packed again from what was compiled is the same, whatever the umask and the time."""
    words = ("sh", "-c", 'umask 077; exec "$@"', "sh", REPOSITORY / "packaging/kernel/build")
    run(*words, tmp_path)
    digests = [
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
        for paths in (packages.values(), tmp_path.iterdir())
    ]
    assert digests[0] == digests[1]


def test_it_is_installed_beside_and_goes_again(
    packages: dict[str, Path], release: str, root: Path
) -> None:
    before = files(root)
    for package in packages.values():
        shutil.copy(package, root / "tmp")
    run("chroot", root, "dpkg", "--install", *(f"/tmp/{path.name}" for path in packages.values()))
    assert f"boot/vmlinuz-{OTHER}" == str((root / "vmlinuz").readlink())
    modules = root / "lib/modules" / release
    assert (modules / "modules.dep").read_text().count("idxd.ko") > 0
    assert 1 == json.loads((modules / "dsatier-abi.json").read_text())["abi"]
    assert (root / f"boot/vmlinuz-{release}").read_bytes()[0x202:].startswith(b"HdrS")
    headers = (modules / "build").readlink()
    assert (root / headers.relative_to("/") / "include/generated/autoconf.h").exists()

    names = [path.name.partition("_")[0] for path in packages.values()]
    run("chroot", root, "dpkg", "--purge", *names)
    for package in packages.values():
        (root / "tmp" / package.name).unlink()
    assert before == files(root)
    ours = f"/boot/vmlinuz-{release}"
    both = f"/boot/vmlinuz-{OTHER} {ours}"
    assert [
        f"preinst {release} {ours}: /boot/vmlinuz-{OTHER}",
        f"postinst {release} {ours}: {both}",
        f"prerm {release} {ours}: {both}",
        f"postrm {release} {ours}: /boot/vmlinuz-{OTHER}",
        f"postrm {release} {ours}: /boot/vmlinuz-{OTHER}",  # removed, then purged
    ] == (root / "called").read_text().splitlines()
    assert f"boot/vmlinuz-{OTHER}" == str((root / "vmlinuz").readlink())
    assert not (root / "lib/modules" / release).exists()


def test_the_flavour_for_machines_keeps_what_it_needs() -> None:
    """Debian's configuration with ours: the build fails where an option of ours got lost."""
    words = (REPOSITORY / "kernel-src/scripts/build", "--flavour", "server", "--configure")
    found = Path(run(*words).splitlines()[-1]).read_text().splitlines()
    assert {"CONFIG_MIGRATE_COPY_OFFLOAD=y", "CONFIG_INTEL_IDXD=m", "CONFIG_XFS_FS=m"} <= set(found)


def test_a_module_is_built_with_the_headers(
    packages: dict[str, Path], release: str, tmp_path: Path
) -> None:
    """Of a module outside of the kernel's tree that uses what our series exports."""
    run("dpkg-deb", "-x", packages["linux-headers"], tmp_path)
    source = tmp_path / "module"
    source.mkdir()
    (source / "Makefile").write_text("obj-m := engine.o\n")
    (source / "engine.c").write_text(
        """#include <linux/migrate_copy.h>
        #include <linux/module.h>
        static int copy(struct migrate_copy_list *list) { return -EBUSY; }
        static struct migrate_engine engine = {
                .name = "test", .id = MIGRATE_ENGINE_DEV, .owner = THIS_MODULE, .copy = copy,
        };
        static int __init begin(void) { return migrate_copy_register(&engine); }
        static void __exit end(void) { migrate_copy_unregister(&engine); }
        module_init(begin);
        module_exit(end);
        MODULE_DESCRIPTION("test");
        MODULE_LICENSE("GPL");
        MODULE_IMPORT_NS(MIGRATE_COPY);
        """
    )
    run("make", "-s", "-C", tmp_path / f"usr/src/linux-headers-{release}", f"M={source}", "modules")
    told = run("modinfo", source / "engine.ko")
    assert f"vermagic:       {release} " in told
