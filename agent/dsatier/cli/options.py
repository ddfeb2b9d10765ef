# SPDX-License-Identifier: Apache-2.0
"""The command line as a table: parser, ``--help``, man pages and completion come from it."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import NoReturn

from dsatier.base.exits import USAGE


@dataclass(frozen=True, slots=True)
class Option:
    """An option or an argument of a command."""

    flags: tuple[str, ...]
    text: str
    metavar: str | None = None
    action: str | None = None
    nargs: str | None = None
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """A command: one line, its description, its options and examples."""

    name: str
    summary: str
    text: str
    options: tuple[Option, ...] = ()
    examples: tuple[tuple[str, str], ...] = ()
    needs_host: bool = True


HOST = (
    Option(
        ("--root",),
        "look up every kernel file and dsatier's own state under DIR, so that any tree can "
        "stand in for a host",
        "DIR",
    ),
    Option(
        ("--host",),
        "a simulated host instead of this one: sim:NAME for a shipped one (dsa8, dsa8-seed, "
        "dsa2, no-dsa, single-node, swap-on, stock-debian, stock-6-1, stock-6-12, stock-7-2, "
        "stock-offline, memtis-seed), sim:FILE.yaml for your own",
        "sim:FILE",
    ),
    Option(("--sim-state",), "keep the simulated host's state in FILE between commands", "FILE"),
)
PROFILE = Option(
    ("-p", "--profile"),
    "use this profile instead of the drop-ins in /usr/lib/dsatier.d, /run/dsatier.d and "
    "/etc/dsatier.d; may be given again, later ones win",
    "FILE",
    "append",
)
JSON = Option(
    ("--json",), "print JSON on standard output, and nothing else there", None, "store_true"
)
QUIET = Option(("-q", "--quiet"), "no progress on standard error", None, "store_true")
ROOT = Option(("--root",), "the daemon's files are below DIR", "DIR")
DRY_RUN = Option(("--dry-run",), "say what would be done, and do nothing", None, "store_true")
BELOW = Option(("--root",), "for the system below DIR, such as an image that is built", "DIR")
TIMEOUT = Option(("--timeout",), "give up after SECONDS", "SECONDS")
FACTS = Option(
    ("--facts",),
    "plan for the host that FILE describes (from `dsatier facts --json`) instead of a live one",
    "FILE",
)

COMMANDS: tuple[Command, ...] = (
    Command(
        "check",
        "check whether profiles are valid",
        "Reads any files, or - for standard input, and prints everything that is wrong with "
        "each, as file:line:column: field: expected, found. Looks at no host. Of a folder, the "
        "files that would count in /etc/dsatier.d are checked with their merge: all without "
        "`match`, and with them those of each `match`. Made for configuration managers: "
        "`validate: dsatier check --as /etc/dsatier.d/50-dsa.yaml %s`.",
        (
            Option(("files",), "a profile, -, or a folder of drop-ins", "FILE", None, "+"),
            Option(
                ("--as",),
                "check the one FILE as it would be at PATH, among the other drop-ins there; what "
                "is wrong without it, too, is left out",
                "PATH",
            ),
            JSON,
        ),
        (
            ("dsatier check /etc/dsatier.d/50-dsa.yaml", "exit code 0 when valid, 65 when not"),
            ("dsatier check /etc/dsatier.d", "the drop-ins, and what they make together"),
        ),
        needs_host=False,
    ),
    Command(
        "plan",
        "show what apply would do",
        "Prints the ordered steps from the host as it is to the profile: each with its reason, "
        "the value before and after, the evidence that will prove it, and its inverse. Writes "
        "nothing.",
        (
            PROFILE,
            FACTS,
            JSON,
            Option(
                ("--detailed-exitcode",),
                "exit with 2 when there are steps to do",
                None,
                "store_true",
            ),
        ),
        (
            (
                "dsatier plan --json > plan.json && dsatier apply --plan plan.json",
                "what you saw is what is done",
            ),
            ("dsatier plan --facts host.json -p dsa.yaml", "plan for another host, offline"),
        ),
    ),
    Command(
        "apply",
        "bring the host to its profile",
        "Makes the plan, rehearses it under the interlock, keeps the host's original values, "
        "and carries out step by step, each proven by evidence before the next. A step that "
        "fails is undone. With --plan, carries out that plan, and refuses when the host has "
        "changed since.",
        (
            PROFILE,
            Option(("--plan",), "a plan made by `dsatier plan --json`", "FILE"),
            JSON,
            QUIET,
        ),
        (("dsatier apply -p /usr/share/dsatier/profiles/dsa.yaml", ""),),
    ),
    Command(
        "reconcile",
        "look once, and repair or report as the profile says",
        "What the daemon does each time round: detects a fault of the engine and falls back to "
        "CPU copies, repairs drift or reports it, and applies a profile that is not in force.",
        (PROFILE, JSON, QUIET),
    ),
    Command(
        "verify",
        "compare the host with its profile",
        "Writes nothing. Exit code 0 when the host is as the profile says, 4 when it is not; "
        "then each difference is listed.",
        (PROFILE, JSON),
    ),
    Command(
        "status",
        "what state the host is in, since when, and what to do",
        "Reads what the last run left in /run/dsatier/status.json; needs no privilege. Exit "
        "code 0 when converged on the profile that the files hold, 3 when dsatier has not run "
        "since boot, its daemon is gone or its last look is too old, 4 otherwise.",
        (
            JSON,
            Option(
                ("--check",),
                "one line, and exit code 0 only where all is well: for probes and playbooks",
                None,
                "store_true",
            ),
            Option(("--watch",), "go on, and show every change", None, "store_true"),
        ),
    ),
    Command(
        "history",
        "what happened on this host, newest first",
        "Changes, repairs, faults, latches, boots, and what became of profiles: each with its "
        "time and the state that it led to. Kept in /var/lib/dsatier/history, which only root may "
        "read, whatever becomes of the journal; when it is full the oldest entries go. Exit code "
        "1 when it cannot be read.",
        (
            Option(
                ("--since",),
                "only what happened from then on: a date and time as 2026-11-30 or "
                "'2026-11-30 18:00', 18:00, today, yesterday, an age as 90min, 12h or 7d, or "
                "@SECONDS since the epoch",
                "WHEN",
            ),
            JSON,
        ),
        (("dsatier history --since yesterday", "what happened last night"),),
    ),
    Command(
        "daemon",
        "keep this host as its profile says",
        "Looks at the host when the kernel tells of a change, and by itself from every second to "
        "every minute. Applies the drop-ins, repairs drift or reports it, falls back to CPU "
        "copies when the engine faults, and tries again what was out of reach when devices "
        "appear. Ends on SIGTERM and leaves the host as it is; a change under way is turned "
        "round first. Made for systemd: Type=notify, with a watchdog.",
        (
            Option(
                ("--log-level",), "debug, info, notice, warning or error; info by default", "LEVEL"
            ),
        ),
        (
            (
                "dsatier daemon --host sim:dsa8 --root DIR",
                "a simulated kernel; profiles, state and status are real files below DIR",
            ),
        ),
    ),
    Command(
        "reload",
        "have the daemon read the profile again, and wait until it is in force",
        "What `systemctl reload dsatier` runs. Exit code 0 when the profile is in force and "
        "proven, or when none applies to this host; 65 when it is invalid, 1 when it is out of "
        "reach, failed or timed out: then what was in force before still is, and the reason is "
        "printed. 4 when an engine's fault or an unclean end stands in the way. Those who ask at "
        "the same time are answered together.",
        (
            Option(
                ("--timeout",), "turn the change round after SECONDS; 900 by default", "SECONDS"
            ),
            JSON,
            QUIET,
            ROOT,
        ),
        needs_host=False,
    ),
    Command(
        "wait",
        "wait until the host has converged",
        "What dsatier.target waits for. Exit code 0 when converged; 1 at once when the host will "
        "not converge by itself (no profile, an invalid one, a fault, a reboot needed), or after "
        "the time-out, with the reason.",
        (Option(("--timeout",), "give up after SECONDS; 600 by default", "SECONDS"), ROOT),
        needs_host=False,
    ),
    Command(
        "nudge",
        "have the daemon look at the host now",
        "What udev runs when a DSA device appears. Does not wait for what comes of it.",
        (JSON, ROOT),
        needs_host=False,
    ),
    Command(
        "simulate",
        "do something to the daemon's simulated host",
        "For a daemon that was started with --host sim:NAME. `poke PATH TEXT` writes as somebody "
        "else would, `inject JSON` lets a fault wait, `heal KIND` takes faults away, `reboot` "
        "boots, `harm` lists what unsafe writes did.",
        (Option(("act",), "what to do, and its arguments", "WORD", None, "+"), ROOT),
        (
            (
                "dsatier simulate poke /proc/sys/kernel/numa_balancing 0",
                "drift, which the daemon will find",
            ),
            ("""dsatier simulate inject '{"kind": "halt", "device": "dsa0"}'""", "a fault"),
        ),
        needs_host=False,
    ),
    Command(
        "rollback",
        "return the host to what it was before dsatier",
        "Brings back every value that was there before dsatier first wrote, in the safe order.",
        (JSON, QUIET),
    ),
    Command(
        "detach",
        "stop managing the host, with every copy engine off",
        "As rollback, but every copy engine ends up off, whatever was on before.",
        (JSON, QUIET),
    ),
    Command(
        "clear",
        "acknowledge a fault or an unclean end",
        "After an engine fault or a crash in the middle of a change, CPUs copy until somebody "
        "has looked. This says that somebody has. The next apply may go up again.",
        (JSON,),
    ),
    Command(
        "facts",
        "what this host is",
        "Topology, kernel, IOMMU, DSA devices and queues, DMA channels, swap, tiering, and "
        "other tools at the same knobs.",
        (JSON,),
        (("dsatier facts --json > host.json", "for `dsatier plan --facts host.json` elsewhere"),),
    ),
    Command(
        "doctor",
        "what this host lacks for its profile",
        "One line for each lack, with the reason and the exact remedy. Exit code 0 when the "
        "profile can be reached, 4 when not.",
        (PROFILE, FACTS, JSON),
    ),
    Command(
        "explain",
        "where a field's value comes from, and what changing it takes",
        "Prints the effective value with file and line, the kernel's default, the live value, "
        "and how far the host must come down to change it.",
        (Option(("field",), "as in engine.limit_chans", "FIELD"), PROFILE, JSON),
        (("dsatier explain engine.limit_chans", ""),),
    ),
    Command(
        "cat-config",
        "the merged profile, with the origin of each value",
        "Prints the profile that the drop-ins make for this host. Each value's comment names "
        "its file and line.",
        (PROFILE, JSON),
    ),
    Command(
        "measure",
        "run a command and print who copied pages meanwhile",
        "Clears and starts /proc/timer, runs the command, stops, and prints the counters. What the "
        "command writes to standard output goes to standard error: standard output is the "
        "measurement's. Ctrl-C ends the command, and what was measured until then is printed.",
        (JSON, Option(("argv",), "the command and its arguments, after --", "CMD", None, "*")),
        (("dsatier measure -- numactl -m 0 ./workload", ""),),
    ),
    Command(
        "install-service",
        "install the systemd units, where no package brings them",
        "For a dsatier that pip installed, as root. Writes the units, the udev rule and what "
        "systemd-tmpfiles reads below /usr/local/lib, with the path of this program, and says "
        "which commands are left to run. Again after an upgrade, it writes what has changed. "
        "Refuses where a package of dsatier is installed, and to replace a file that it did not "
        "write. The program must not be in a home or below /tmp: the unit hides those.",
        (DRY_RUN, BELOW),
        (
            ("dsatier install-service --dry-run", "what would be written"),
            (
                "/opt/dsatier/bin/dsatier install-service",
                "for the virtual environment /opt/dsatier",
            ),
        ),
        needs_host=False,
    ),
    Command(
        "uninstall-service",
        "remove what install-service wrote",
        "Removes the files of install-service, and no others. Refuses while the service is "
        "enabled. The host stays as it is: `dsatier rollback` returns it, and comes before.",
        (DRY_RUN, BELOW),
        needs_host=False,
    ),
    Command(
        "demo",
        "a guided tour on a simulated host",
        "Brings a simulated two-tier host with eight DSA devices to profiles/dsa.yaml step by "
        "step, then shows drift found and repaired, an engine fault, and an unsafe change "
        "refused.",
        (Option(("--fast",), "do not pause between the steps", None, "store_true"),),
        needs_host=False,
    ),
)

EXIT_CODES = (
    (0, "ok"),
    (1, "failed; the host is as it was, or the message says where it is"),
    (2, "changes pending (plan --detailed-exitcode)"),
    (3, "dsatier has not run since boot, its daemon is not running, or its last look is too old"),
    (4, "not compliant, not reachable, or degraded"),
    (5, "no profile applies to this host (verify, doctor, plan --detailed-exitcode)"),
    (11, "another dsatier holds the lock"),
    (64, "wrong command line"),
    (65, "a file that is named cannot be read, or is wrong"),
    (78, "configuration: dsatier's own files are damaged"),
)


class Parser(argparse.ArgumentParser):
    """An argument parser whose usage errors exit with 64."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and how it is meant, and exit."""
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}; `{self.prog} --help` explains\n")


def parser() -> Parser:
    """Return the parser of the whole command line."""
    top = Parser(
        prog="dsatier",
        description="Drives a host with tiers of memory to a declared profile, safely.",
        epilog=_exit_codes(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="store_true", help="print the version")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for command in COMMANDS:
        one = commands.add_parser(
            command.name,
            help=command.summary,
            description=command.text,
            epilog=_examples(command),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for option in (*command.options, *(HOST if command.needs_host else ())):
            _add(one, option)
    return top


def _add(one: argparse.ArgumentParser, option: Option) -> None:
    words: dict[str, object] = {"help": option.text}
    if option.metavar is not None:
        words["metavar"] = option.metavar
    if option.action is not None:
        words["action"] = option.action
    if option.nargs is not None:
        words["nargs"] = option.nargs
    one.add_argument(*option.flags, **words)  # type: ignore[arg-type]


def _examples(command: Command) -> str:
    if not command.examples:
        return ""
    lines = ["examples:"]
    for words, text in command.examples:
        lines.append(f"  {words}" + (f"\n      {text}" if text else ""))
    return "\n".join(lines)


def _exit_codes() -> str:
    lines = [f"  {code:>3}  {text}" for code, text in EXIT_CODES]
    return "exit codes:\n" + "\n".join(lines)
