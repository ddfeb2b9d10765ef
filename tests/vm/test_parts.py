# SPDX-License-Identifier: Apache-2.0
"""The parts of the library that need no guest: frames, archives, modules, judging a log."""

from __future__ import annotations

import gzip
import lzma
import stat
import struct
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vm import cpio, images, kernel, kernellog, wire
from vm.images import once
from vm.wire import Frame, Kind, Reader

HELLO = Frame(0, Kind.HELLO, wire.MAGIC + b"6.12")
FRAMES = st.lists(
    st.builds(
        Frame,
        st.integers(1, 2**32 - 1),
        st.sampled_from([Kind.OUTPUT, Kind.ERRORS, Kind.ENDED]),
        st.binary(max_size=300),
    )
)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """Return ``data`` in pieces of these sizes, over and over."""
    pieces, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        pieces.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return pieces


# -- frames ----------------------------------------------------------------------


@given(FRAMES, st.lists(st.integers(1, 60), min_size=1, max_size=5), st.binary(max_size=40))
def test_frames_arrive_whole_however_they_are_cut(
    frames: list[Frame], sizes: list[int], noise: bytes
) -> None:
    data = noise + b"".join(frame.packed() for frame in (HELLO, *frames))
    reader = Reader()
    assert [HELLO, *frames] == [f for piece in cut(data, sizes) for f in reader.take(piece)]


@given(st.integers(1, 111), st.lists(st.integers(1, 60), min_size=1, max_size=5))
def test_a_reset_in_the_middle_of_a_frame(length: int, sizes: list[int]) -> None:
    """The agent says hello until it is heard: a second one is always found."""
    broken = Frame(7, Kind.OUTPUT, b"x" * 100).packed()[:length]
    after = Frame(1, Kind.OUTPUT, b"new life")
    again = Frame(0, Kind.HELLO, wire.MAGIC + b"6.13")
    data = b"".join((HELLO.packed(), broken, again.packed(), again.packed(), after.packed()))
    reader = Reader()
    found: list[Frame] = []
    for piece in cut(data, sizes):
        with suppress(wire.WireError):
            found.extend(reader.take(piece))
    assert after == found[-1]
    assert again in found


def test_what_is_no_frame_is_told() -> None:
    reader = Reader()
    with pytest.raises(wire.WireError, match="head of a frame, found ff ff"):
        list(reader.take(HELLO.packed() + b"\xff" * 12))


def test_a_copy_of_the_source_is_no_hello() -> None:
    """A guest may be sent the agent, or this library, without upsetting the channel."""
    for name in ("agent.c", "wire.py"):
        assert wire.MAGIC not in (images.HERE / name).read_bytes()


@pytest.mark.parametrize("words", [(), ("a\0b",), ("x" * wire.MOST,)])
def test_words_that_cannot_be_sent(words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        wire.start(1, words)


# -- archives --------------------------------------------------------------------


@pytest.mark.system
def test_an_archive_is_what_cpio_takes(tmp_path: Path) -> None:
    entries = {
        "/a/b/run": cpio.program(b"#!/bin/sh\n"),
        "/a/link": cpio.link("b/run"),
        "/a/text": cpio.Entry(b"12345"),
        "/empty": cpio.FOLDER,
    }
    data = cpio.archive(entries)
    words = ["cpio", "-idm", "--quiet"]
    subprocess.run(words, input=data, cwd=tmp_path, check=True)
    assert b"12345" == (tmp_path / "a/text").read_bytes()
    assert b"#!/bin/sh\n" == (tmp_path / "a/link").read_bytes()
    assert 0o755 == stat.S_IMODE((tmp_path / "a/b/run").stat().st_mode)
    assert (tmp_path / "empty").is_dir()


def test_folders_come_before_what_is_in_them() -> None:
    data = cpio.archive({"/x/y/z": cpio.Entry(b"1")})
    assert data.index(b"x\0") < data.index(b"x/y\0") < data.index(b"x/y/z\0")
    assert 0 == len(data) % 4


# -- kernels ---------------------------------------------------------------------

DEPENDENCIES = """\
kernel/idxd/idxd.ko.xz: kernel/idxd/idxd_bus.ko.xz kernel/x/base.ko.xz
kernel/idxd/idxd_bus.ko.xz: kernel/x/base.ko.xz
kernel/x/base.ko.xz:
kernel/x/snd-hda.ko.xz:
"""


def modules(folder: Path) -> kernel.Kernel:
    """Return a kernel with the modules above; nobody reads its image."""
    needs = kernel.parsed(DEPENDENCIES)
    for path in needs:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(lzma.compress(path.encode()))
    (folder / "modules.dep").write_text(DEPENDENCIES)
    (folder / "modules.builtin").write_text("kernel/drivers/virtio-pci.ko\n")
    return kernel.Kernel(folder / "image", folder)


def test_modules_come_with_what_they_need(tmp_path: Path) -> None:
    found = dict(kernel.chosen(modules(tmp_path), ["idxd", "snd_hda", "virtio_pci"]))
    assert b"kernel/idxd/idxd.ko.xz" == found["kernel/idxd/idxd.ko"]
    assert [
        "kernel/x/base.ko:",
        "kernel/idxd/idxd_bus.ko: kernel/x/base.ko",
        "kernel/idxd/idxd.ko: kernel/idxd/idxd_bus.ko kernel/x/base.ko",
        "kernel/x/snd-hda.ko:",
    ] == found["modules.dep"].decode().splitlines()


def test_a_module_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"module nonesuch: not in .*modules.dep, nor built in"):
        list(kernel.chosen(modules(tmp_path), ["nonesuch"]))


def test_loadable_is_what_is_not_built_in(tmp_path: Path) -> None:
    assert ["idxd"] == kernel.loadable(modules(tmp_path), ["virtio-pci", "virtio_pci", "idxd"])
    assert [] == kernel.loadable(kernel.Kernel(tmp_path), ["idxd"])


def test_a_module_is_one_where_it_is_listed(tmp_path: Path) -> None:
    found = [kernel.is_module(modules(tmp_path), name) for name in ("idxd", "virtio_pci")]
    assert [True, False] == found
    assert not kernel.is_module(kernel.Kernel(tmp_path), "idxd")


@pytest.mark.parametrize("pack", [lzma.compress, gzip.compress, bytes])
def test_packed_data_are_told_by_how_they_begin(pack: type[bytes]) -> None:
    assert b"some data" == kernel.unpacked(pack(b"some data"))


def elf(notes: bytes) -> bytes:
    """Return the head of a program whose only segment holds notes."""
    head = bytearray(64)
    head[:5] = b"\x7fELF\x02"
    struct.pack_into("<Q", head, 0x20, 64)
    struct.pack_into("<HH", head, 0x36, 56, 1)
    segment = struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, len(notes), 0, 4)
    return bytes(head) + segment + notes


def bzimage(inner: bytes) -> bytes:
    """Return an image that holds a program."""
    head = bytearray(0x400)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x20E, 0x100)
    head[0x300:0x30C] = b"6.12-x (me)\0"
    struct.pack_into("<II", head, 0x248, 0, len(inner))
    return bytes(head) + inner


ENTRY = struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", 0x1000)
OTHER = struct.pack("<III4s4s", 3, 1, 3, b"GNU\0", b"1\0\0\0")


def test_a_kernel_is_unpacked_where_it_can_start_so(tmp_path: Path) -> None:
    good, bad = elf(OTHER + ENTRY), elf(OTHER)
    assert good == kernel.payload(bzimage(gzip.compress(good)))
    assert None is kernel.payload(bzimage(gzip.compress(bad)))
    assert None is kernel.payload(bzimage(b"not known how"))
    image = tmp_path / "bzImage"
    for inner, expected in ((bad, "bzImage"), (good, "bzImage.elf")):
        image.write_bytes(bzimage(gzip.compress(inner)))
        found = kernel.Kernel(image)
        assert ("6.12-x", expected) == (found.release, kernel.started(found, tmp_path).name)


def test_an_image_that_is_none_is_told(tmp_path: Path) -> None:
    image = tmp_path / "x"
    image.write_bytes(bytes(0x400))
    with pytest.raises(ValueError, match="expected a bzImage"):
        assert kernel.Kernel(image).release


# -- the kernel's log ------------------------------------------------------------

OOPS = """\
[   12.345678] BUG: kernel NULL pointer dereference, address: 0000000000000010
[   12.345679] Oops: Oops: 0000 [#1] PREEMPT SMP NOPTI
[   12.345680] Call Trace:
[   12.345681]  idxd_device_evl_free+0x2d/0x110 [idxd]
"""


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: CPU: 1 PID: 5 at mm/migrate.c:1 f+0x1/0x2",
        "WARNING: possible circular locking dependency detected",
        "INFO: task cat:12 blocked for more than 120 seconds.",
        "rcu: INFO: rcu_preempt self-detected stall on CPU",
        "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [x:1]",
        "BUG: KASAN: slab-use-after-free in f+0x1/0x2",
        "BUG: KCSAN: data-race in f / g",
        "UBSAN: shift-out-of-bounds in a.c:1:1",
        "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
        "BUG: sleeping function called from invalid context at mm/x.c:1",
        "BUG: Bad page state in process x  pfn:1",
        "DMA-API: idxd 0000:00:01.0: device driver has pending DMA allocations",
        "Kernel panic - not syncing: Fatal exception",
        "general protection fault, probably for non-canonical address 0x1",
        "divide error: 0000 [#1] PREEMPT SMP",
        "refcount_t: underflow; use-after-free.",
        "list_del corruption. prev->next should be x, but was y",
        "Out of memory: Killed process 5 (x)",
        "DMAR: [DMA Read NO_PASID] Request device [00:03.0] fault addr 0x1",
        "=============================\nWARNING: suspicious RCU usage",
    ],
)
def test_harm_is_seen(line: str) -> None:
    assert [] != kernellog.complaints(
        [f"[    1.000000][  T1] {text}" for text in line.split("\n")], {}
    )


@pytest.mark.parametrize(
    "line",
    [
        'Command line: console=ttyS0 panic_on_warn=0 dyndbg="WARNING: "',
        "kmemleak: 0 new suspected memory leaks",
        "rcu: Hierarchical RCU implementation.",
        "rcu: \tRCU callback double-/use-after-free debug is enabled.",
        "NMI watchdog: Enabled. Permanently consumes one hw-PMU counter.",
        "mce: CPU0: Thermal monitoring enabled (TM1)",
        "DMAR: Host address width 39",
        "idxd 0000:00:03.0: Intel(R) Accelerator Device (v100)",
        "Out of memory protection: on",
        "sysrq: Show Blocked State",
    ],
)
def test_plain_words_are_no_harm(line: str) -> None:
    assert [] == kernellog.complaints([f"[    1.000000] {line}"], {})


def test_a_complaint_shows_what_came_next() -> None:
    first, second = kernellog.complaints(OOPS.splitlines(), {})
    assert ("a bug", "an oops", ()) == (first.what, second.what, second.lines)
    assert "idxd_device_evl_free" in str(first)


def test_what_is_allowed_passes_and_nothing_else() -> None:
    allowed = {"NULL pointer dereference": "the driver's defect"}
    assert ["an oops"] == [c.what for c in kernellog.complaints(OOPS.splitlines(), allowed)]
    allowed[r"Oops: 0000 \[#1\]"] = "the same"
    assert [] == kernellog.complaints(OOPS.splitlines(), allowed)


TASKS = """\
[    8.1] sysrq: Show State
[    8.100001] task:kthreadd        state:S stack:0     pid:2     tgid:2     ppid:0      flags:0x1
[    8.100002] Call Trace:
[    8.100003]  <TASK>
[    8.100004]  kthreadd+0x1/0x2
[    8.100005] task:kswapd0         state:D stack:0     pid:50    tgid:50    ppid:2      flags:0x1
[    8.100006]  kswapd+0x1/0x2
[    8.100007] task:rcu_gp          state:I stack:0     pid:4     tgid:4     ppid:2      flags:0x1
[    8.100008]  rescuer_thread+0x1/0x2
[    8.100009] task:sleep           state:S stack:0     pid:171   tgid:171   ppid:1      flags:0x1
[    8.100010]  hrtimer_nanosleep+0x1/0x2
[    8.100011] RIP: 0033:0x47b7a0
[    8.100012] Sched Debug Version: v0.11
"""


def test_tasks_of_the_kernel_that_only_wait_are_not_shown() -> None:
    lines = TASKS.splitlines()
    assert [*lines[:1], *lines[5:7], *lines[9:]] == kernellog.telling(lines)


# -- the cache -------------------------------------------------------------------


def test_what_failed_to_build_leaves_nothing() -> None:
    def fails(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        once("probe", b"that fails", fails)
    with pytest.raises(OSError, match="no space"):
        once("probe", b"that fails", fails)
