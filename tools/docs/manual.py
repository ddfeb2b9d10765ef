# SPDX-License-Identifier: Apache-2.0
"""The man pages, made from the tables that the program itself runs on. Pure.

``dsatier.1`` and one page for each command come from ``cli.options.COMMANDS``,
``dsatier.yaml.5`` from the profile's JSON Schema.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from dsatier import __version__
from dsatier.base.paths import DROP_INS, LOCK, MOTION, ORIGINALS, QUEUE_FILE, RECORD, STATUS, STEP
from dsatier.cli.options import COMMANDS, EXIT_CODES, HOST, Command, Option
from tools.docs.fields import REQUIRED, Section, sections

TITLE = "drive a host with tiers of memory to a declared profile"

WHAT = """\
dsatier brings a host with a fast and a slow tier of memory to the state that a profile declares: \
which nodes are slow, who copies pages that move between the tiers (one CPU, several CPU \
threads, or Data Streaming Accelerators), and how the kernel places pages.

A wrong order of writes can corrupt memory or panic the kernel. So dsatier climbs a ladder in the \
one safe order and comes down the other way; every write passes an interlock that knows the \
kernel's hazards; and a step counts as done when evidence other than its own value says so.

What a profile does not name, dsatier does not touch."""

RULES = """\
A profile is YAML, one mapping. Keys that are unknown or given twice are errors, and so are values \
of another type: `no`, `017` and `22:22` are never taken for something else. Every field but \
`version` may be left out. null stands for "not named"."""

MERGING = """\
The profile of a host is made of all files *.yaml in {folders}. They are ordered by name, \
whatever their folder. Of files with the same name only that in the last of these folders counts; \
when it is empty or a link to /dev/null, none does. Files whose `match` is not this host's are \
left out. What remains is merged in order: mappings key by key, while lists and scalars replace; \
null takes back what an earlier file named; an engine of another kind, and work queues in another \
form, replace the former whole."""

EXAMPLE = """\
version: 1
match:
  hostname: ["tier-*"]
tiers:
  slow_node: 1
  cpuless: true
engine:
  kind: dsa
  limit_chans: 8
  work_queues:
    devices: 8
tiering:
  numa_balancing: 2
  demote_scale_factor: 1000
  demotion_enabled: true
  swap: off
"""

FILES: tuple[tuple[str, str], ...] = (
    *((f"{folder}/*.yaml", "drop-ins of the profile") for folder in reversed(DROP_INS)),
    (ORIGINALS, "what was found before dsatier first wrote; `rollback` returns to it"),
    (MOTION, "there while a change is under way; when a run finds it, the one before died"),
    (STEP, "which step of it was begun last; means nothing while there is none under way"),
    (RECORD, "state of the lifecycle, latch, counters"),
    (STATUS, "what `status` prints; anybody may read it"),
    (LOCK, "held by the one dsatier that may write"),
    (QUEUE_FILE, "what accel-config was last given"),
)


def pages(schema: dict[str, Any]) -> dict[str, str]:
    """Return every page by file name. ``schema`` is the profile's JSON Schema."""
    return {
        "dsatier.1": _lines(_main_page()),
        **{f"dsatier-{one.name}.1": _lines(_command_page(one)) for one in COMMANDS},
        "dsatier.yaml.5": _lines(_profile_page(sections(schema))),
    }


def synopsis(command: Command) -> list[str]:
    """Return the words of a command's synopsis, each with its brackets.

    >>> synopsis(next(c for c in COMMANDS if c.name == "check"))
    ['FILE...', '[--json]']
    """
    words = []
    for option in (*command.options, *(HOST if command.needs_host else ())):
        if option.flags[0].startswith("-"):
            value = f" {option.metavar}" if option.metavar else ""
            again = "..." if option.action == "append" else ""
            words.append(f"[{option.flags[0]}{value}]{again}")
        else:
            again = "..." if option.nargs in ("+", "...") else ""
            words.append(("-- " if option.nargs == "..." else "") + f"{option.metavar}{again}")
    # what takes the rest of the line comes last
    return sorted(words, key=lambda word: word.startswith("-- "))


def escaped(text: str) -> str:
    r"""Return text that roff prints as it is; words in backticks come out bold.

    >>> escaped("see `plan --json` \\ or 017")
    'see \\fBplan \\-\\-json\\fR \\e or 017'
    """
    text = text.replace("\\", "\\e").replace("``", "`")
    parts = text.split("`")
    for i in range(1, len(parts), 2):
        parts[i] = f"\\fB{_typed(parts[i])}\\fR"
    parts[::2] = [re.sub(r"(?<!\w)--?(?=\w)", _dashes, part) for part in parts[::2]]
    return "".join(parts)


def _dashes(found: re.Match[str]) -> str:
    return found[0].replace("-", "\\-")


def _typed(text: str) -> str:
    """Return words that people type: their dashes are no hyphens."""
    return text.replace("-", "\\-")


def _bold(text: str) -> str:
    return f"\\fB{_typed(text.replace(chr(92), chr(92) + 'e'))}\\fR"


def _lines(lines: Iterable[str]) -> str:
    text = "\n".join(lines) + "\n"
    # a heading begins a paragraph by itself
    return re.sub(r"^(\.S[HS] .*\n)\.PP\n", r"\1", text, flags=re.MULTILINE)


def _prose(text: str) -> Iterator[str]:
    """Yield running text; an empty line in it begins a paragraph."""
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield ".PP"
        # roff wants each sentence to begin on a line of its own
        for sentence in re.split(r"(?<=[.:;])\s+(?=[A-Z])", paragraph):
            wrapped = textwrap.wrap(
                escaped(sentence), 90, break_long_words=False, break_on_hyphens=False
            )
            yield from (f"\\&{line}" if line[:1] in ".'" else line for line in wrapped)


def _head(name: str, section: int, summary: str) -> Iterator[str]:
    yield '.\\" SPDX-License-Identifier: Apache-2.0'
    yield '.\\" made by tools.docs.manual: do not edit'
    title = _typed(name.upper())
    yield f'.TH {title} {section} "" "dsatier {__version__}" "dsatier"'
    yield ".SH NAME"
    yield f"{_typed(name)} \\- {escaped(summary)}"


def _item(head: str, text: str) -> Iterator[str]:
    yield ".TP"
    yield head
    yield from _prose(text)


def _literal(text: str) -> Iterator[str]:
    yield ".PP"
    yield ".RS 4"
    yield ".nf"
    for line in text.splitlines():
        shown = _typed(line.replace("\\", "\\e"))
        yield f"\\&{shown}" if shown[:1] in (".", "'") else shown
    yield ".fi"
    yield ".RE"


def _option(option: Option) -> Iterator[str]:
    value = f" \\fI{_typed(option.metavar)}\\fR" if option.metavar else ""
    if option.flags[0].startswith("-"):
        head = ", ".join(_bold(flag) + value for flag in option.flags)
    else:
        head = value.strip()
    yield from _item(head, option.text)


def _see_also(*names: tuple[str, int]) -> Iterator[str]:
    yield ".SH SEE ALSO"
    yield ",\n".join(f".BR {_typed(name)} ({section})" for name, section in names).replace(
        ",\n.BR", " ,\n.BR"
    )


def _exit_status() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    for code, text in EXIT_CODES:
        yield from _item(_bold(str(code)), text)


def _files() -> Iterator[str]:
    yield ".SH FILES"
    for path, text in FILES:
        yield from _item(f"\\fI{_typed(path)}\\fR", text)


def _main_page() -> Iterator[str]:
    yield from _head("dsatier", 1, TITLE)
    yield ".SH SYNOPSIS"
    yield f"{_bold('dsatier')} \\fICOMMAND\\fR [\\fIOPTION\\fR]..."
    yield ".br"
    yield f"{_bold('dsatier')} {_bold('--version')}"
    yield ".SH DESCRIPTION"
    yield from _prose(WHAT)
    yield ".SH COMMANDS"
    for command in COMMANDS:
        yield from _item(_bold(command.name), f"{command.summary}; see dsatier-{command.name}(1)")
    yield ".SH OPTIONS"
    yield "These go with every command that needs a host."
    for option in HOST:
        yield from _option(option)
    yield from _exit_status()
    yield from _files()
    yield from _see_also(
        *((f"dsatier-{command.name}", 1) for command in COMMANDS), ("dsatier.yaml", 5)
    )


def _command_page(command: Command) -> Iterator[str]:
    yield from _head(f"dsatier-{command.name}", 1, command.summary)
    yield ".SH SYNOPSIS"
    yield f".HP\n{_bold(f'dsatier {command.name}')}"
    yield from (_typed(word) for word in synopsis(command))
    yield ".SH DESCRIPTION"
    yield from _prose(command.text)
    if command.options or command.needs_host:
        yield ".SH OPTIONS"
        for option in (*command.options, *(HOST if command.needs_host else ())):
            yield from _option(option)
    yield from _exit_status()
    if command.examples:
        yield ".SH EXAMPLES"
        for words, text in command.examples:
            if text:
                yield ".PP"
                yield from _prose(f"{text[0].upper()}{text[1:]}:")
            yield from _literal(words)
    yield from _see_also(("dsatier", 1), ("dsatier.yaml", 5))


def _profile_page(found: tuple[Section, ...]) -> Iterator[str]:
    yield from _head("dsatier.yaml", 5, "profile of a two-tier host")
    yield ".SH DESCRIPTION"
    yield from _prose(RULES)
    yield ".SH FIELDS"
    for section in found:
        yield f'.SS "{_typed(section.title)}"'
        yield from _prose(section.text)
        for field in section.fields:
            text = f"{field.text} " if field.text else ""
            text += f"Takes {field.takes}."
            needed = field.default == REQUIRED
            text += " Required." if needed else f" If not named: {field.default}."
            if field.kernel:
                boot = f" ({field.kernel_default} at boot)" if field.kernel_default else ""
                text += f" In the kernel: {field.kernel}{boot}."
            yield from _item(_bold(field.path), text)
    yield ".SH DROP-INS".replace("-", "\\-")
    yield from _prose(MERGING.format(folders=", ".join(DROP_INS)))
    yield from _files()
    yield ".SH EXAMPLE"
    yield from _literal(EXAMPLE)
    yield from _see_also(("dsatier", 1), ("dsatier-check", 1), ("dsatier-cat-config", 1))
