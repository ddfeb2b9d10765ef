# SPDX-License-Identifier: Apache-2.0
"""``dsatier status``: one screen from the status file, read by anybody."""

import sys
from time import localtime, strftime, time

PATH = "/run/dsatier/status.json"
OK, FAILED, NOT_RUNNING, NOT_COMPLIANT = 0, 1, 3, 4
GOOD = ("converged",)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def status_main(argv: "list[str]") -> "int | None":
    """Print the status. Returns None where the words need the whole command line."""
    root, as_json, words = "", False, list(argv)
    while words:
        word = words.pop(0)
        if word == "--json":
            as_json = True
        elif word == "--root" and words:
            root = words.pop(0)
        elif word.startswith("--root="):
            root = word.partition("=")[2]
        else:
            return None
    path = root.rstrip("/") + PATH
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read()
    except FileNotFoundError:
        text = ""
    except OSError as error:
        print(f"dsatier status: {path}: cannot be read: {error.strerror}", file=sys.stderr)
        return FAILED
    return show(text, path, as_json=as_json, now=time())


def show(text: str, path: str, *, as_json: bool, now: float) -> int:
    """Print the status document ``text`` and return the exit code."""
    if not text:
        print(
            f"dsatier status: {path}: not there: dsatier has not run since this host booted; "
            "`dsatier apply` applies the profile",
            file=sys.stderr,
        )
        return NOT_RUNNING
    try:
        document = parse(text)
        words = text.rstrip() if as_json else screen(document, now)
        state = document["state"]
    except (ValueError, LookupError, TypeError) as error:
        print(
            f"dsatier status: {path}: expected a status that dsatier wrote, found something else "
            f"({error}); `dsatier apply` writes it anew",
            file=sys.stderr,
        )
        return FAILED
    print(words)
    return OK if state in GOOD else NOT_COMPLIANT


class _Plain:
    """What the scanner below makes of numbers and objects: what json makes of them."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def parse(text: str) -> "dict[str, Any]":
    """Return the status document that ``text`` is.

    The module json imports re, which takes most of the time that this command
    may take; its scanner, in C, does not. Where it is missing, json does it.
    """
    try:
        from _json import make_scanner

        found, _ = make_scanner(_Plain)(text, 0)  # type: ignore[arg-type]
    except (ImportError, AttributeError, StopIteration, ValueError):
        import json

        found = json.loads(text)
    return found  # type: ignore[no-any-return]


def screen(document: "dict[str, Any]", now: float) -> str:
    """Return the status as a screen: what, since when, what is wrong, what to do."""
    lines = [
        f"{document['hostname']}: {document['state']} since {_when(document['since'], now)}",
        f"  {document['meaning']}",
        f"  reason    {document['reason']}"
        + (f": {document['message']}" if document["message"] else ""),
        f"  do        {document['remedy']}",
        f"  profile   generation {document['observed_generation']}"
        + (f", {document['profile_digest'][:12]}" if document["profile_digest"] else ", none"),
        f"  counted   {document['repaired']} repairs of drift, {document['faults']} faults",
        "",
    ]
    width = max((len(c["type"]) for c in document["conditions"]), default=0)
    lines += [
        f"  {c['type']:<{width}}  {c['status']:<7}  since {_when(c['last_transition_time'], now)}"
        f"  {c['reason']}"
        for c in document["conditions"]
    ]
    return "\n".join(lines).rstrip()


def _when(at: float, now: float) -> str:
    return f"{strftime('%Y-%m-%d %H:%M:%S', localtime(at))} ({_ago(now - at)})"


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
