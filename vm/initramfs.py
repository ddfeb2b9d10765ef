# SPDX-License-Identifier: Apache-2.0
"""What a guest boots into: busybox, the agent, and what a test brings along."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from vm import cpio
from vm.kernel import Kernel, chosen, is_module, libraries, loadable
from vm.wire import PORT

AGENT = "/sbin/vm-agent"
UNIT = "vm-agent.service"
ROOT_MODULES = ("virtio_pci", "virtio_blk", "ext4")
"""What it takes to reach a root on a disk."""
CHECKSUM = "crc32c_generic"
"""What ext4 needs besides, and does not say. Newer kernels have it built in, under no name."""
CHANNEL_MODULES = ("virtio_pci", "virtio_console")

_INIT = """#!/bin/sh
# process 1 of a guest: the file systems, the modules asked for, then the agent
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm /tmp /run /root /sys/kernel/debug
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
ln -sf /proc/self/fd /dev/fd
hostname vm
release=$(uname -r)
echo 8 >/proc/sys/kernel/printk
for module in {modules}; do
	modprobe "$module" || echo "vm: modprobe $module: exit code $?" >/dev/kmsg
done
"""

_TO_AGENT = """
if grep -qw vm.root /proc/cmdline; then
	mkdir -p /new
	mount -t ext4 /dev/vda /new || {{ echo 'vm: no root on /dev/vda' >/dev/kmsg; exit 1; }}
	mkdir -p /new/usr/lib/modules /new/etc/systemd/system/sysinit.target.wants
	cp -a "/lib/modules/$release" /new/usr/lib/modules/ 2>/dev/null
	cp {agent} /new/usr/sbin/vm-agent
	cp /{unit} /new/etc/systemd/system/
	ln -sf ../{unit} /new/etc/systemd/system/sysinit.target.wants/
	for unit in serial-getty@ttyS0 getty@tty1; do
		ln -sf /dev/null "/new/etc/systemd/system/$unit.service"
	done
	if [ -d /new.d ]; then
		cp -a /new.d/. /new/
	fi
	mount --move /dev /new/dev
	umount /sys/kernel/debug /sys /proc 2>/dev/null
	exec switch_root /new /sbin/init
fi
exec {agent} {port} </dev/null >/dev/kmsg 2>&1
"""

_UNIT = f"""[Unit]
Description=The agent of the machine that this guest runs on
DefaultDependencies=no

[Service]
ExecStart=/usr/sbin/vm-agent {PORT}
Restart=on-failure
OOMScoreAdjust=-1000
Delegate=yes
KillMode=process

[Install]
WantedBy=sysinit.target
"""


def build(
    kernel: Kernel,
    agent: bytes,
    busybox: Path,
    *,
    load: Sequence[str] = (),
    carry: Sequence[str] = (),
    programs: Sequence[Path] = (),
    files: Mapping[str, Path | bytes] | None = None,
    rooted: bool = False,
) -> bytes:
    """Return the archive.

    ``load`` names modules that are loaded at boot, ``carry`` those that are only there.
    ``programs`` are dynamic programs of this machine, which keep their paths and bring their
    libraries. ``files`` go to absolute paths, and can be run where they can be run here, or where
    they begin as a program does.
    Where a root on a disk follows (``rooted``), ``files`` go there.
    """
    checksum = (CHECKSUM,) if is_module(kernel, CHECKSUM) else ()
    early = [*CHANNEL_MODULES, *((*checksum, *ROOT_MODULES) if rooted else ())]
    early = loadable(kernel, [*early, *load])
    entries: dict[str, cpio.Entry] = {
        "/bin/busybox": cpio.program(busybox.read_bytes()),
        AGENT: cpio.program(agent),
        f"/{UNIT}": cpio.Entry(_UNIT.encode()),
        "/dev/console": cpio.character(5, 1),
        "/dev/kmsg": cpio.character(1, 11),
        "/dev/null": cpio.character(1, 3),
    }
    entries |= {f"/{name}": cpio.FOLDER for name in ("proc", "sys", "tmp", "run", "root", "mnt")}
    entries |= {f"/bin/{name}": cpio.link("busybox") for name in _applets(busybox)}
    entries["/sbin/modprobe"] = cpio.link("../bin/busybox")  # where the kernel calls it
    if kernel.modules is None and (load or carry):
        raise ValueError(f"{kernel.image}: modules wanted, {[*load, *carry]}, and no folder given")
    release = kernel.release
    for path, data in chosen(kernel, dict.fromkeys([*early, *carry])):
        entries[f"/lib/modules/{release}/{path}"] = cpio.Entry(data)
    for program in programs:
        entries[str(program)] = cpio.program(program.read_bytes())
        entries |= {str(path): cpio.program(path.read_bytes()) for path in libraries(program)}
    for target, source in (files or {}).items():
        entries[("/new.d" if rooted else "") + target] = _file(source)
    init = _INIT.format(modules=" ".join(early))
    init += _TO_AGENT.format(agent=AGENT, unit=UNIT, port=PORT)
    entries["/init"] = cpio.program(init.encode())
    return cpio.archive(entries)


def _applets(busybox: Path) -> list[str]:
    ran = subprocess.run([busybox, "--list"], stdout=subprocess.PIPE, text=True, check=True)
    return [name for name in ran.stdout.split() if name != "busybox"]


def _file(source: Path | bytes) -> cpio.Entry:
    if isinstance(source, bytes):
        return cpio.Entry(source, stat.S_IFREG | (0o755 if source[:2] == b"#!" else 0o644))
    mode = source.stat().st_mode
    return cpio.Entry(source.read_bytes(), stat.S_IFREG | stat.S_IMODE(mode))
