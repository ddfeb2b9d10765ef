# SPDX-License-Identifier: Apache-2.0
"""A kernel as files: its image, and those of its modules that a guest needs."""

from __future__ import annotations

import lzma
import os
import re
import struct
import subprocess
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_SUFFIX = re.compile(r"\.ko(\.(xz|gz|zst))?$")


@dataclass(frozen=True, slots=True)
class Kernel:
    """An image, and the folder ``…/lib/modules/RELEASE`` of its modules, with its modules.dep."""

    image: Path
    modules: Path | None = None

    @property
    def release(self) -> str:
        """As ``uname -r`` gives it, from the head of the image."""
        with self.image.open("rb") as file:
            head = file.read(0x8000)
        if head[0x202:0x206] != b"HdrS":
            raise ValueError(f"{self.image}: expected a bzImage")
        at = int.from_bytes(head[0x20E:0x210], "little") + 0x200
        return head[at : head.index(b"\0", at)].split()[0].decode()

    @classmethod
    def built(cls, folder: Path) -> Kernel:
        """Return what kernel-src/scripts/build left in ``folder``."""
        (modules,) = (folder / "modules/lib/modules").iterdir()
        return cls(folder / "bzImage", modules)


def name(path: str) -> str:
    """Return a module's name from its path: what lsmod shows."""
    return _SUFFIX.sub("", PurePosixPath(path).name).replace("-", "_")


def parsed(dependencies: str) -> dict[str, tuple[str, ...]]:
    """Return what a modules.dep says: the paths that each path needs."""
    found = {}
    for line in dependencies.splitlines():
        path, _, needs = line.partition(":")
        found[path] = tuple(needs.split())
    return found


def closure(wanted: Iterable[str], needs: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the paths of modules and of all that they need, each after what it needs.

    Raises KeyError with the first name that is not there.
    """
    by_name = {name(path): path for path in needs}
    found: dict[str, None] = {}
    for module in wanted:
        path = by_name[module.replace("-", "_")]
        for needed in reversed(needs[path]):
            found[needed] = None
        found[path] = None
    return list(found)


def loadable(kernel: Kernel, wanted: Iterable[str]) -> list[str]:
    """Return those of ``wanted`` that are modules and not built in."""
    if kernel.modules is None:
        return []
    builtin = {name(line) for line in _lines(kernel.modules / "modules.builtin")}
    return [module for module in wanted if module.replace("-", "_") not in builtin]


def is_module(kernel: Kernel, module: str) -> bool:
    """Tell whether a kernel has something as a module."""
    lines = _lines(kernel.modules / "modules.dep") if kernel.modules else []
    return any(name(path) == module for path in parsed("\n".join(lines)))


def chosen(kernel: Kernel, wanted: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of modules, and the lists that modprobe reads.

    Raises ValueError for a module that the kernel does not have.
    """
    if kernel.modules is None:
        return
    needs = parsed("\n".join(_lines(kernel.modules / "modules.dep")))
    try:
        paths = closure(loadable(kernel, wanted), needs)
    except KeyError as error:
        where = kernel.modules / "modules.dep"
        raise ValueError(f"module {error.args[0]}: not in {where}, nor built in") from None
    table = []
    for path in paths:
        yield plain(path), unpacked((kernel.modules / path).read_bytes())
        table.append(f"{plain(path)}:" + "".join(f" {plain(need)}" for need in needs[path]))
    yield "modules.dep", "".join(f"{line}\n" for line in table).encode()
    for extra in ("modules.builtin", "modules.order"):
        yield extra, b""


def plain(path: str) -> str:
    """Return a module's path without the suffix of a compression."""
    return _SUFFIX.sub(".ko", path)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="ascii").splitlines() if path.exists() else []


def unpacked(data: bytes) -> bytes:
    """Return data without their compression, which is told by how they begin."""
    if data.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor().decompress(data)
    if data.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31).decompress(data)
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        words = ["zstd", "-dcq"]
        return subprocess.run(words, input=data, stdout=subprocess.PIPE, check=True).stdout
    return data


def payload(image: bytes) -> bytes | None:
    """Return the ELF image within a bzImage, where the emulator can start that without firmware.

    The guest then need not unpack it, which takes seconds in an emulator. None where the kernel
    was built without CONFIG_PVH, or is packed in a way that is not known here.
    """
    setup = (image[0x1F1] + 1) * 512
    offset, length = struct.unpack_from("<II", image, 0x248)
    packed = image[setup + offset : setup + offset + length]
    size = -4 if packed.startswith(b"\x28\xb5\x2f\xfd") else None  # behind a frame of zstd
    elf = unpacked(packed[:size])
    return elf if elf.startswith(b"\x7fELF\x02") and _has_entry(elf) else None


def started(kernel: Kernel, folder: Path) -> Path:
    """Return the file to start a kernel from, made in ``folder`` where it is not there yet."""
    beside = kernel.image.with_name(f"{kernel.image.name}.elf")
    if beside.exists():
        return beside
    elf = payload(kernel.image.read_bytes())
    if elf is None:
        return kernel.image
    target = folder / beside.name
    target.write_bytes(elf)
    return target


def _has_entry(elf: bytes) -> bool:
    """Tell whether a note gives the entry of a guest that knows its host (type 18 of "Xen")."""
    (table,) = struct.unpack_from("<Q", elf, 0x20)
    size, count = struct.unpack_from("<HH", elf, 0x36)
    for number in range(count):
        kind, _, at, _, _, length = struct.unpack_from("<IIQQQQ", elf, table + number * size)
        end = at + length
        while kind == 4 and at + 12 <= end:
            owner, content, told = struct.unpack_from("<III", elf, at)
            if told == 18 and elf[at + 12 : at + 15] == b"Xen":
                return True
            at += 12 + -(-owner // 4) * 4 + -(-content // 4) * 4
    return False


def libraries(program: Path) -> Iterator[Path]:
    """Yield the loader and the libraries that a program of this machine needs."""
    environment = {**os.environ, "LC_ALL": "C"}
    ran = subprocess.run(
        ["ldd", program], capture_output=True, text=True, check=False, env=environment
    )
    for line in ran.stdout.splitlines():
        if "not found" in line:
            raise ValueError(f"{program}: {line.strip()}")
        found = re.search(r"(/\S+) \(0x", line)
        if found:
            yield Path(found[1])
