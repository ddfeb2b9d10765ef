# SPDX-License-Identifier: Apache-2.0
"""Programs that run on the emulated machine without an operating system.

Each is a C file here. It says what it found on QEMU's debug console, a line for each check::

    ok movdir64b stores 64 bytes
    not ok movdir64b is there: expected 0000000000000001, found 0000000000000000
    end

A program that says no ``end`` did not get there.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

HERE = Path(__file__).parent
_COMPILE = (
    *("cc", "-m64", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"),
    *("-ffreestanding", "-fno-pie", "-mno-red-zone", "-mgeneral-regs-only"),
    *("-fno-stack-protector", "-fcf-protection=none"),
    *("-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Wl,-z,noexecstack"),
    "-Wl,--no-warn-rwx-segments",
)
#: QEMU's exit code when a program has come to its end: 2 n + 1 for what it writes to port 0x501
LEFT = 33


def compiled(name: str, folder: Path) -> Path:
    """Return a program as an image that QEMU's ``-kernel`` takes: multiboot, so 32-bit ELF."""
    image = folder / name
    sources = [str(HERE / part) for part in ("start.S", "machine.c", f"{name}.c")]
    script = ("-T", str(HERE / "program.ld"))
    subprocess.run((*_COMPILE, *script, "-o", f"{image}.elf64", *sources), check=True)
    subprocess.run(("objcopy", "-O", "elf32-i386", f"{image}.elf64", str(image)), check=True)
    return image


def verdicts(said: str) -> dict[str, str]:
    """Return what a program said of each check: ``ok``, or what it expected and found.

    >>> verdicts("ok a\\nnot ok b: expected 1, found 2\\nend\\n")
    {'a': 'ok', 'b': 'expected 1, found 2'}
    >>> verdicts("ok a\\n")
    {'a': 'ok', 'end': 'the program did not get there'}
    """
    found: dict[str, str] = {}
    lines = said.splitlines()
    for line in lines:
        if line.startswith("ok "):
            found.setdefault(line.removeprefix("ok "), "ok")
        elif line.startswith("not ok "):
            name, _, what = line.removeprefix("not ok ").partition(": ")
            found[name] = what
    if lines[-1:] != ["end"]:
        found["end"] = "the program did not get there"
    return found


def run(emulator: str, image: Path, *words: str, seconds: float = 120) -> dict[str, str]:
    """Run a program, and return its verdicts; ``words`` are added to QEMU's."""
    command = (
        *(emulator, "-machine", "q35", "-m", "128", "-nodefaults", "-display", "none"),
        *("-no-reboot", "-kernel", str(image), "-device", "isa-debug-exit"),
        *("-chardev", "stdio,id=said", "-device", "isa-debugcon,chardev=said", *words),
    )
    try:
        ran = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        said = late.stdout.decode() if isinstance(late.stdout, bytes) else ""
        return {**verdicts(said), "end": f"not within {seconds} s"}
    found = verdicts(ran.stdout)
    if ran.returncode != LEFT:
        found["end"] = f"QEMU ended with {ran.returncode}: {ran.stderr.strip()[-2000:]}"
    return found
