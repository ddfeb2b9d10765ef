# SPDX-License-Identifier: Apache-2.0
"""Completion for bash and zsh, made from the table of the command line. Pure.

What an option takes is told by its metavar: FILE, DIR, sim:FILE, FIELD and CMD.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from dsatier.cli.options import COMMANDS, HOST, Command, Option

_HEAD = """\
# SPDX-License-Identifier: Apache-2.0
# made by tools.docs.completion: do not edit
"""

_BASH = """\
# shellcheck shell=bash
_dsatier() {
    local line=${COMP_LINE:0:COMP_POINT} command= word i skip= rest=
    local -a words
    # of our own splitting: bash breaks words at the colon of sim:NAME
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    local cur=${words[${#words[@]}-1]} prev=${words[${#words[@]}-2]}
    COMPREPLY=()
    for ((i = 1; i < ${#words[@]} - 1; i++)); do
        word=${words[i]}
        if [[ -n $skip ]]; then skip=; continue; fi
        [[ $word == -- ]] && rest=1
        case $word in
            @valued@) skip=1 ;;
            -*) ;;
            *) [[ -z $command ]] && command=$word ;;
        esac
    done
    local options= takes=
    case $command in
        "") options="@top@"; takes="words:@commands@" ;;
@cases@
    esac
    if [[ -n $rest ]]; then
        # the command to measure, then whatever it takes
        options=
        [[ $prev != -- ]] && takes=files
    elif [[ $cur == --*=* ]]; then
        prev=${cur%%=*}
        cur=${cur#*=}
    fi
    case $prev in
@values@
    esac
    if [[ $cur == -* && -n $options ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
        return
    fi
    case $takes in
        words:*) mapfile -t COMPREPLY < <(compgen -W "${takes#words:}" -- "$cur") ;;
        files)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            ;;
        folders)
            compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -d -- "$cur")
            ;;
        commands) mapfile -t COMPREPLY < <(compgen -c -- "$cur") ;;
        hosts)
            if [[ $cur == sim:*[./]* ]]; then
                mapfile -t COMPREPLY < <(compgen -f -P sim: -- "${cur#sim:}")
            else
                mapfile -t COMPREPLY < <(compgen -W "@hosts@" -- "$cur")
            fi
            if [[ $COMP_WORDBREAKS == *:* && $cur == *:* ]]; then
                # what stands before the last colon is a word of its own to bash
                COMPREPLY=("${COMPREPLY[@]#"${cur%:*}:"}")
            fi
            ;;
    esac
}
complete -F _dsatier dsatier
"""

_ZSH = """\
_dsatier() {
    local curcontext="$curcontext" state line
    local -a commands
    typeset -A opt_args
    commands=(
@commands@
    )
    _arguments -C '--version[print the version]' '(-h --help)'{-h,--help}'[help]' \\
        '1: :->command' '*:: :->rest'
    case $state in
        command) _describe -t commands command commands ;;
        rest)
            case $words[1] in
@cases@
            esac
            ;;
    esac
}
_dsatier_hosts() {
    if compset -P 'sim:'; then
        local -a hosts=(@hosts@)
        _describe -t hosts 'simulated host' hosts
        _files -g '*.yaml'
    else
        compadd -S '' sim:
    fi
}
_dsatier "$@"
"""

_WORDS = {
    "LEVEL": "debug info notice warning error",
    "WORD": "poke inject heal reboot harm",
    "SECONDS": "",
    "WHEN": "today yesterday 1h 12h 7d",
}
_TAKES = {
    "FILE": "files",
    "PATH": "files",
    "DIR": "folders",
    "sim:FILE": "hosts",
    "CMD": "commands",
    **{metavar: f'"words:{words}"' for metavar, words in _WORDS.items()},
}
_ZSH_TAKES = {
    "FILE": "_files",
    "PATH": "_files",
    "DIR": "_files -/",
    "sim:FILE": "_dsatier_hosts",
    "CMD": "_normal",
    **{metavar: f"({words})" if words else "" for metavar, words in _WORDS.items()},
}


def bash(fields: Iterable[str], hosts: Iterable[str]) -> str:
    """Return the completion for bash. ``hosts`` are the names of the shipped simulated hosts."""
    every = {option.flags: option for command in COMMANDS for option in _options(command)}
    valued = [o for o in every.values() if _is_flag(o) and o.metavar]
    cases = [
        f'        {command.name}) options="{" ".join(_flags(command))}"'
        f"{_positional(command, tuple(fields))} ;;"
        for command in COMMANDS
    ]
    values = [
        f"        {'|'.join(o.flags)}) takes={_TAKES[str(o.metavar)]} options= ;;" for o in valued
    ]
    return _HEAD + _filled(
        _BASH,
        valued="|".join(flag for o in valued for flag in o.flags),
        top="--help --version",
        commands=" ".join(command.name for command in COMMANDS),
        cases="\n".join(cases),
        values="\n".join(values),
        hosts=" ".join(f"sim:{name}" for name in hosts),
    )


def zsh(fields: Iterable[str], hosts: Iterable[str]) -> str:
    """Return the completion for zsh. ``hosts`` are the names of the shipped simulated hosts."""
    words = tuple(fields)
    commands = [f"        {_quoted(f'{one.name}:{one.summary}')}" for one in COMMANDS]
    cases = []
    for command in COMMANDS:
        lines = [f"                {command.name}) _arguments \\"]
        lines += [f"                    {spec} \\" for spec in _specs(command, words)]
        lines.append("                    ;;")
        cases.append("\n".join(lines))
    return (
        "#compdef dsatier\n"
        + _HEAD
        + _filled(_ZSH, commands="\n".join(commands), cases="\n".join(cases), hosts=" ".join(hosts))
    )


def _filled(text: str, **words: str) -> str:
    for name, value in words.items():
        text = text.replace(f"@{name}@", value)
    return text


def _options(command: Command) -> tuple[Option, ...]:
    return (*command.options, *(HOST if command.needs_host else ()))


def _is_flag(option: Option) -> bool:
    return option.flags[0].startswith("-")


def _flags(command: Command) -> list[str]:
    return [*(f for o in _options(command) if _is_flag(o) for f in o.flags), "-h", "--help"]


def _positional(command: Command, fields: tuple[str, ...]) -> str:
    for option in command.options:
        if not _is_flag(option):
            if option.metavar == "FIELD":
                return f'; takes="words:{" ".join(fields)}"'
            return f"; takes={_TAKES[str(option.metavar)]}"
    return ""


def _specs(command: Command, fields: tuple[str, ...]) -> list[str]:
    """Return the arguments of zsh's ``_arguments`` for a command."""
    specs = ["'(-h --help)'{-h,--help}'[help]'"]
    for option in _options(command):
        metavar = str(option.metavar)
        text = re.split(r"[:;,] | \(", option.text)[0].replace("`", "")
        takes = f"({' '.join(fields)})" if metavar == "FIELD" else _ZSH_TAKES.get(metavar, "")
        if not _is_flag(option):
            many = {"+": "*", "...": "*::"}.get(option.nargs or "", "")
            specs.append(_quoted(f"{many}:{metavar}:{takes}"))
            continue
        value = f":{metavar.replace(':', chr(92) + ':')}:{takes}" if option.metavar else ""
        for flag in option.flags:
            again = "*" if option.action == "append" else ""
            others = "" if again else f"({' '.join(option.flags)})"
            specs.append(_quoted(f"{others}{again}{flag}[{_bracketed(text)}]{value}"))
    return specs


def _bracketed(text: str) -> str:
    return text.replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
