# SPDX-License-Identifier: Apache-2.0
"""Hostile input: a clear error within bounds of time and memory.

Each input is checked in a process whose CPU seconds and memory the kernel
limits; the bounds are wide, so what is found is growth, not a slow machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsatier.profile import check

CPU_SECONDS = 20
MEMORY = 1 << 29

CODE = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_CPU, ({CPU_SECONDS}, {CPU_SECONDS}))
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))
from dsatier.profile import yaml
from dsatier.profile.check import check_tree
source = sys.stdin.buffer.read()
for pure in (False, True):
    problems = check_tree(yaml.parse(source, "f", pure=pure))
    assert 0 < len(problems) <= 201, len(problems)
    for problem in problems:
        text = str(problem)
        assert text.isprintable() and len(text) < 3000, text
    print(problems[0])
"""

LIMIT = 1 << 20


def filled(unit: bytes, around: tuple[bytes, bytes] = (b"", b"")) -> bytes:
    """Return ``unit`` as often as the largest file that is read holds it."""
    first, last = around
    return first + unit * ((LIMIT - len(first) - len(last)) // len(unit)) + last


HOSTILE = {
    "flow lists": filled(b"["),
    "flow mappings": filled(b"{a: "),
    "block lists": filled(b"- "),
    "closed lists": filled(b"[],", (b"[", b"]")),
    "many keys": b"".join(b"k%d: 1\n" % n for n in range(80_000)),
    "one key often": filled(b"a: 1\n"),
    "keys that look like ours": b"".join(b"limit_chan%d: 1\n" % n for n in range(9_000)),
    "long key": filled(b"k", (b"", b": 1")),
    "long quoted key": filled(b"k", (b"'", b"': 1")),
    "long text": filled(b"x", (b"version: ", b"")),
    "long host name": filled(b"x", (b"version: 1\nmatch: {hostname: [", b"]}")),
    "long number": filled(b"9", (b"version: ", b"")),
    "long float": filled(b"9", (b"version: 0.", b"e9")),
    "long exponent": filled(b"9", (b"version: 1e", b"")),
    "long hexadecimal": filled(b"f", (b"version: 0x", b"")),
    "long sexagesimal": filled(b":59", (b"version: 1", b"")),
    "many underscores": filled(b"_", (b"version: 1", b"")),
    "aliases": b"a: &a [x]\n" + filled(b"*a,", (b"b: [", b"]"))[:-20],
    "anchors": filled(b"&a "),
    "tags": filled(b"!a "),
    "question marks": filled(b"? "),
    "colons": filled(b": "),
    "quotes": filled(b"'"),
    "double quotes": filled(b'"'),
    "comments": filled(b"#\n"),
    "newlines": filled(b"\n"),
    "spaces": filled(b" "),
    "tabs": filled(b"\t"),
    "documents": filled(b"---\n"),
    "document ends": filled(b"...\n"),
    "directives": filled(b"%A b\n"),
    "bars": filled(b"|\n"),
    "folded lines": filled(b"a\n\n", (b"version: ", b"")),
    "block text": filled(b" a\n", (b"version: |\n", b"")),
    "escapes": filled(b"\\x41", (b'version: "', b'"')),
    "surrogates": filled(b"\\ud800", (b'version: "', b'"')),
    "zeros": filled(b"\0"),
    "bytes": filled(bytes(range(256))),
    "utf-16": filled("a: 1\n".encode("utf-16-le"), (b"\xff\xfe", b"")),
    "overlong utf-8": filled(b"\xc0\x80"),
    "byte order marks": filled(b"\xef\xbb\xbf"),
    "wide characters": filled("\U0001f600".encode(), (b"version: ", b"")),
    "right-to-left": filled("\u202e".encode(), (b"version: '", b"'")),
    "beyond the limit": b"version: 1\n" + b"#" * LIMIT,
    "merge keys": filled(b"<<: {}\n"),
    "bad hosts": filled(b"1,", (b"version: 1\nmatch: {hostname: [", b"]}")),
    "many hosts": b"version: 1\nmatch: {hostname: [" + b"1," * 9_000 + b"]}",
    "many brackets": filled(b"[", (b"version: 1\nmatch: {hostname: ['", b"']}")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_input(name: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", CODE],
        input=HOSTILE[name],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(check.__file__).parents[2])},
    )
    assert (ran.returncode, ran.stderr.decode()) == (0, "")
    assert all(line.startswith("f:") for line in ran.stdout.decode().splitlines())
