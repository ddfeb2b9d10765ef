# SPDX-License-Identifier: Apache-2.0
"""DPDK's own tests of DMA devices, from Debian's packages, without installing them.

DPDK has a driver of its own for the DSA, which works through VFIO and submits batches only.
"""

from __future__ import annotations

import functools
import re
import tempfile
from pathlib import Path

from vm import images

PROGRAM = "usr/bin/dpdk-test"
LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
LOADER = "/lib64/ld-linux-x86-64.so.2"
#: What it needs that a small Debian does not have.
OTHERS = (
    *("libnuma1", "libfdt1", "libbsd0", "libmd0", "libjansson4", "libelf1"),
    *("libpcap0.8", "libdbus-1-3"),
)
#: Drivers that the test loads: memory pools, the PCI bus, the DSA.
PLUGINS = ("librte_mempool_ring", "librte_bus_pci", "librte_dma_idxd")


def needed(program: Path) -> list[str]:
    """Return the names of the libraries that a program or a library asks for."""
    said = images.output("objdump", "-p", program)
    return re.findall(r"^\s+NEEDED\s+(\S+)$", said, re.MULTILINE)


def package(library: str) -> str:
    """Return Debian's package of one of DPDK's libraries.

    >>> package("librte_bus_pci.so.23")
    'librte-bus-pci23'
    """
    return library.replace(".so.", "").replace("_", "-")


@functools.cache
def tree() -> Path:
    """Return a folder with the program and DPDK's libraries. Raises Missing."""
    newest = images.newest("dpdk-dev")

    def build(folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            there = Path(place)
            images.download(there, newest)
            (archive,) = there.glob("*.deb")
            images.output("dpkg-deb", "-x", archive, there / "program")
            asked = needed(there / "program" / PROGRAM)
            names = {package(name) for name in asked if name.startswith("librte_")}
            (abi,) = {name.rpartition(".")[2] for name in asked if name.startswith("librte_eal.")}
            names.add(f"librte-dma-idxd{abi}")
            images.download(there, *sorted(names), *OTHERS)
            for found in there.glob("*.deb"):
                images.output("dpkg-deb", "-x", found, folder)

    return images.once("dpdk", newest.encode() + b"\n" + " ".join(OTHERS).encode(), build)


def files(folder: str) -> dict[str, Path]:
    """Return the program, in a folder of a guest, and all libraries, by the paths there.

    What the C library loads by itself when a thread is cancelled is among them.
    """
    above = [tree() / each for each in LIBRARIES]
    plugins = [path for name in PLUGINS for path in above[0].glob(f"dpdk/pmds-*/{name}.so.*")]
    search = f"LD_LIBRARY_PATH={':'.join(map(str, above))}"
    said = images.output("env", search, "ldd", tree() / PROGRAM, *plugins)
    if missing := re.findall(r"\S+ => not found", said):
        raise images.Missing(f"{PROGRAM}: {', '.join(sorted(set(missing)))}")
    paths = {Path(found) for found in re.findall(r"(/\S+) \(0x", said)}
    paths |= {*plugins, tree() / PROGRAM, Path("/lib/x86_64-linux-gnu/libgcc_s.so.1")}
    found = {f"{folder}/{path.name}": path.resolve() for path in paths}
    return {**found, LOADER: Path(LOADER).resolve()}
