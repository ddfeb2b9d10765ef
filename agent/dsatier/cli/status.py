# SPDX-License-Identifier: Apache-2.0
"""``dsatier status``: one screen from the status file, read by anybody."""

import os
import sys
from time import localtime, sleep, strftime, time

from dsatier.base.exits import FAILED, INTERRUPTED, NOT_COMPLIANT, NOT_RUNNING, OK
from dsatier.base.health import unwell
from dsatier.base.paths import STATUS
from dsatier.base.quick_json import loads
from dsatier.cli.plain import plain
from dsatier.host import output

TAKEN = ("Accepted", "NoProfile")
"""Statuses of a profile that need no action."""
WITHOUT_DAEMON = 3600
"""Seconds for which a single run's look says how the host is."""
GRACE = 60
"""Seconds that the daemon may be late with a look before it counts as stopped."""
LOOK_AFTER = "see `systemctl status dsatier` and `journalctl -u dsatier`"
POLL = 0.5
"""Seconds between two looks at the file, and least between two screens."""
CLEAR = "\x1b[H\x1b[2J"
"""To the upper left corner; the screen is empty."""

_NO_STATUS = (ValueError, LookupError, TypeError, AttributeError, OverflowError)
"""What a document raises that dsatier did not write."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


OPTIONS = {"--root": str, "--json": bool, "--watch": bool, "--check": bool}


def status_main(argv: "list[str]") -> "int | None":
    """Print the status. Returns None where the words need the whole command line."""
    options = plain(argv, OPTIONS)
    if options is None:
        return None
    root, as_json = options.get("root", "/"), "json" in options
    if "watch" in options:
        return watch(root, as_json=as_json)
    path = named(root)
    try:
        _, text = read(root)
    except OSError as error:
        print(_unreadable(path, error), file=sys.stderr)
        return FAILED
    return show(text, path, as_json=as_json, now=time(), one_line="check" in options)


def show(text: str, path: str, *, as_json: bool, now: float, one_line: bool = False) -> int:
    """Print the status document ``text`` and return the exit code."""
    if text and one_line:
        words, code = checked(text, path, now)
        print(words, file=sys.stderr if code else sys.stdout)
        return code
    if not text:
        print(_missing(path, "`dsatier apply` applies the profile"), file=sys.stderr)
        return NOT_RUNNING
    words, complaint, code = told(text, path, as_json=as_json, now=now)
    if complaint:
        print(complaint, file=sys.stderr)
    if words:
        print(words.rstrip())
    return code


def watch(root: str, *, as_json: bool) -> int:
    """Print the status whenever it changes, until Ctrl-C or until nobody reads any more."""
    try:
        _watch(root, as_json=as_json)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # what is left in the buffer goes nowhere, without a word at the end of the process
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _watch(root: str, *, as_json: bool) -> "NoReturn":
    path = named(root)
    terminal = sys.stdout.isatty() and not as_json
    drawn = ""
    printed: tuple[tuple[int, ...] | None, int] = None, OK
    seen: tuple[int, ...] | None
    while True:
        words = complaint = ""
        code = NOT_RUNNING
        try:
            seen, text = read(root)
        except OSError as error:
            seen, text, complaint = None, "", _unreadable(path, error)
        if text:
            words, complaint, code = told(text, path, as_json=as_json, now=time())
        elif not complaint:
            complaint = _missing(path, "waiting for it")
        if terminal:
            screenful = words or complaint
            if screenful != drawn:  # the document or an age
                output.draw(screenful, before=CLEAR)
            drawn = screenful
        elif printed != (seen, code):
            if complaint:
                print(complaint, file=sys.stderr, flush=True)
            if words and not as_json:
                print(f"{words}\n", flush=True)
            elif words and printed[0] != seen:
                print("".join(line.strip() for line in words.split("\n")), flush=True)
            printed = seen, code
        sleep(POLL)


def named(root: str) -> str:
    """Return what the status file below ``root`` is called in messages."""
    return root.rstrip("/") + STATUS


def read(root: str) -> "tuple[tuple[int, ...], str]":
    """Return the file's mark and text, both empty where there is none. Raises OSError.

    The mark is another for each document: the file is replaced, never written again. Links
    below ``root`` are followed in it, and never out of it.
    """
    try:
        path = named(root)
        if root != "/" and os.path.realpath(path) != os.path.realpath(root) + STATUS:
            from dsatier.host.rooted import Tree  # there is a link on the way

            path = Tree(root).real(STATUS)
        with open(path, encoding="utf-8", errors="backslashreplace") as stream:
            found = os.fstat(stream.fileno())
            return (found.st_ino, found.st_mtime_ns, found.st_size), stream.read()
    except FileNotFoundError:
        return (), ""


def _missing(path: str, then: str) -> str:
    return f"dsatier status: {path}: not there: dsatier has not run since this host booted; {then}"


def _unreadable(path: str, error: OSError) -> str:
    return f"dsatier status: {path}: cannot be read: {error.strerror}"


def alive(process: int) -> bool:
    """Tell whether a process of that number is there."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # somebody else's
        return True
    return True


def told(
    text: str,
    path: str,
    *,
    as_json: bool,
    now: float,
    alive: "Callable[[int], bool]" = alive,
) -> "tuple[str, str, int]":
    """Return what is printed of the document ``text``, what is complained of, and the exit code."""
    try:
        document = loads(text)
        late, wrong = stale(document, now, alive), unwell(document)
        words = text if as_json else screen(document, now, late)
    except _NO_STATUS as error:
        complaint = (
            f"dsatier status: {path}: expected a status that dsatier wrote, found something else "
            f"({error}); `dsatier apply` writes it anew"
        )
        return "", complaint, FAILED
    if late:
        return words, f"dsatier status: {late}; {LOOK_AFTER}" if as_json else "", NOT_RUNNING
    return words, "", NOT_COMPLIANT if wrong else OK


def checked(
    text: str, path: str, now: float, alive: "Callable[[int], bool]" = alive
) -> "tuple[str, int]":
    """Return one line that tells whether all is well with a host, and the exit code."""
    try:
        document = loads(text)
        late = stale(document, now, alive)
        wrong = unwell(document)
        name = document["hostname"]
    except _NO_STATUS as error:
        words = f"{path}: expected a status that dsatier wrote, found something else ({error})"
        return words, FAILED
    if not late and not wrong:
        return f"{name}: healthy: {document['meaning']}", OK
    line = " ".join(f"{name}: {late or wrong}".split())
    return line, NOT_RUNNING if late else NOT_COMPLIANT


def stale(document: "dict[str, Any]", now: float, alive: "Callable[[int], bool]" = alive) -> str:
    """Return why the document says no more how the host is, empty where it does.

    The last look of a daemon is as old as the profile allows, that of a single run an hour.
    """
    if "daemon" not in document:
        written = document.get("written_at", now)
        if written + WITHOUT_DAEMON < now:
            return f"STALE: nobody has looked at the host since: it was {_ago(now - written)}"
        return ""
    daemon = document["daemon"]
    if daemon is None:
        return f"STALE: the daemon was stopped {_ago(now - document.get('written_at', now))}"
    process, looked = daemon["pid"], daemon["looked_at"]
    if not alive(process):
        return f"STALE: the daemon (process {process}) is gone; it looked {_ago(now - looked)}"
    if document["state"] == "unknown":  # its looks fail, and it says so as long as it tries
        looked = document["written_at"]
    if looked + daemon["look_within"] + GRACE < now:
        return (
            f"STALE: the daemon (process {process}) has stopped looking: it looked "
            f"{_ago(now - looked)}, expected every {daemon['look_within']:g} s"
        )
    return ""


def screen(document: "dict[str, Any]", now: float, late: str = "") -> str:
    """Return the status as a screen: what, since when, what is wrong, what to do.

    ``late`` is why the document is stale, if it is.
    """
    profile, daemon = document.get("profile"), document.get("daemon")
    lines = []
    if late:
        lines += [late, f"  do        {LOOK_AFTER}; below is what it saw last", ""]
    lines += [
        f"{document['hostname']}: {document['state']} {_since(document['since'], now)}",
        f"  {document['meaning']}",
        f"  reason    {document['reason']}"
        + (f": {document['message']}" if document["message"] else ""),
        f"  do        {document['remedy']}",
        f"  profile   generation {document['observed_generation']}"
        + (f", {document['profile_digest'][:12]}" if document["profile_digest"] else ", none"),
    ]
    if profile is not None and profile["status"] not in TAKEN:
        message = profile["message"].replace("\n", "\n" + " " * 12)
        lines.append(f"  rejected  {profile['status']}: {message}")
    if pending := document.get("reload_pending"):
        lines.append(f"  pending   {', '.join(pending)}: changed since, `systemctl reload dsatier`")
    lines.append(
        f"  counted   {_many(document['repaired'], 'repair')} of drift, "
        f"{_many(document['faults'], 'fault')}"
    )
    if tiering := document.get("tiering"):
        lines.append(f"  tiering   {_tiering(tiering, document.get('moved'), now)}")
    if daemon is not None:
        lines.append(
            f"  daemon    process {daemon['pid']}, looked {_ago(now - daemon['looked_at'])}"
            + (f", doing {daemon['doing']}" if daemon["doing"] else "")
        )
    elif "daemon" in document:
        lines.append("  daemon    none: it was stopped, and nobody looks after the host")
    lines.append("")
    width = max((len(c["type"]) for c in document["conditions"]), default=0)
    lines += [
        f"  {c['type']:<{width}}  {c['status']:<7}  since {_when(c['last_transition_time'], now)}"
        f"  {c['reason']}"
        for c in document["conditions"]
    ]
    return "\n".join(lines).rstrip()


def _tiering(tiering: "dict[str, Any]", moved: "dict[str, Any] | None", now: float) -> str:
    """Return what tiering does, in one line; a warning where it does not work."""
    bad = tiering["verdict"] == "not working"
    words = f"{'warning: ' if bad else ''}{tiering['verdict']} {_since(tiering['since'], now)}: "
    words += f"{tiering['reason']}: {tiering['message']}"
    known = [f"{many} {what}" for what, many in (moved or {}).items() if many is not None]
    return words + (f" (pages since it was armed: {', '.join(known)})" if known else "")


def _since(at: float, now: float) -> str:
    """Return since when a state lasts; a host that was never touched has no such moment.

    >>> _since(0.0, 100.0)
    'ever since'
    """
    return f"since {_when(at, now)}" if at else "ever since"


def _when(at: float, now: float) -> str:
    return f"{strftime('%Y-%m-%d %H:%M:%S', localtime(at))} ({_ago(now - at)})"


def _many(number: int, what: str) -> str:
    """Return how many there are of something.

    >>> _many(1, "fault"), _many(0, "fault")
    ('1 fault', '0 faults')
    """
    return f"{number} {what}{'' if number == 1 else 's'}"


def _ago(seconds: float) -> str:
    """Return a span for people.

    >>> _ago(30), _ago(7200), _ago(-5)
    ('30 s ago', '2 h ago', 'in the future: a clock jumped')
    """
    if seconds < -1:
        return "in the future: a clock jumped"
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{max(int(seconds), 0)} s ago"
