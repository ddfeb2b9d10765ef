# SPDX-License-Identifier: Apache-2.0
"""How the kernel reads numbers from text: one function for each of its parsers."""

from __future__ import annotations

import re
from errno import EINVAL, ERANGE

INT_MAX = 2147483647
UINT_MAX = 4294967295
NR_CPUS = 8192
"""As many as Debian's kernel for amd64 can have."""

_DIGITS = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+")
_SYSCTL_BUFFER = 22
_SPACE = " \t\n\v\f\r"


class Refused(Exception):
    """The kernel refuses a write or a read with ``errno``."""

    def __init__(self, errno: int) -> None:
        super().__init__(errno)
        self.errno = errno


def _based(digits: str) -> int:
    if digits[:2] in ("0x", "0X"):
        return int(digits, 16)
    if digits[0] == "0" and len(digits) > 1:
        octal = re.match(r"0[0-7]*", digits)
        assert octal
        if octal.end() != len(digits):
            raise Refused(EINVAL)
        return int(digits, 8)
    return int(digits)


def _sysctl_number(text: str) -> int | None:
    """proc_get_long: skip spaces, one number in any base, ended by a space or the end."""
    if not text:
        return None
    rest = text.lstrip(_SPACE)
    negative = rest.startswith("-")
    found = _DIGITS.match(rest, int(negative))
    if not found or found.end() >= _SYSCTL_BUFFER - 1:
        raise Refused(EINVAL)
    if found.end() < len(rest) and rest[found.end()] not in " \t\n":
        raise Refused(EINVAL)
    value = _based(found[0])
    return -value if negative else value


def dointvec(text: str) -> int | None:
    """Return the number, None where an empty write changes nothing. Raises Refused."""
    value = _sysctl_number(text)
    if value is not None and not -INT_MAX - 1 <= value <= INT_MAX:
        raise Refused(EINVAL)
    return value


def douintvec(text: str) -> int | None:
    """Return the number, None where an empty write changes nothing. Raises Refused."""
    value = _sysctl_number(text)
    if value is not None and not 0 <= value <= UINT_MAX:
        raise Refused(EINVAL)
    return value


def kstrtol(text: str, base: int = 10) -> int:
    """Read an optional sign, digits and at most one newline; nothing else. Raises Refused."""
    if not re.fullmatch(r"[+-]?(0[xX][0-9a-fA-F]+|[0-9]+)\n?", text):
        raise Refused(EINVAL)
    text = text.removesuffix("\n")
    digits = text.lstrip("+-")
    if base == 10 and not digits.isdigit():
        raise Refused(EINVAL)
    value = int(digits) if base == 10 else _based(digits)
    if value > 1 << 63:
        raise Refused(ERANGE)
    return -value if text[0] == "-" else value


def kstrtoul(text: str, base: int = 10) -> int:
    """As kstrtol without a minus sign."""
    if text.startswith("-"):
        raise Refused(EINVAL)
    return kstrtol(text, base)


def kstrtobool(text: str) -> bool:
    """y, t, 1, on and n, f, 0, off by their first letters. Raises Refused."""
    start = text[:2].lower()
    if start[:1] in ("y", "t", "1") or start == "on":
        return True
    if start[:1] in ("n", "f", "0") or start == "of":
        return False
    raise Refused(EINVAL)


def word(text: str) -> str:
    """sysfs_streq: text without its one trailing newline."""
    return text.removesuffix("\n")


def cpu_list(text: str) -> tuple[int, ...]:
    """Return the CPUs of a list such as ``0-3,8``. Raises ValueError."""
    out: list[int] = []
    for part in filter(None, text.strip().split(",")):
        found = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", part)
        if not found or int(found[2] or found[1]) >= NR_CPUS:
            wanted = f"a list like 0-15,32 of numbers below {NR_CPUS}"
            raise ValueError(f"cpus: expected {wanted}, found {text[:40]!r}")
        out.extend(range(int(found[1]), int(found[2] or found[1]) + 1))
    return tuple(out)


def to_list(numbers: tuple[int, ...] | list[int]) -> str:
    """Return numbers as the kernel lists them: ``0-3,8`` and a newline."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs) + "\n"
