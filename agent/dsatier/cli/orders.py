# SPDX-License-Identifier: Apache-2.0
"""The commands that start the daemon or speak with it: they import little."""

from __future__ import annotations

import sys
from typing import NamedTuple

from dsatier.base.exits import FAILED, NOT_RUNNING, OK, USAGE
from dsatier.cli.plain import plain
from dsatier.control.protocol import folder
from dsatier.daemon import schedule
from dsatier.daemon.main import daemon, say
from dsatier.daemon.schedule import ORDERING, POLL
from dsatier.host import output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


WAITING = 600.0
_STUCK = ("degraded", "quarantined", "rollback-failed", "reboot-required")
"""States that do not become converged without somebody."""


DAEMON = {"--root": str, "--host": str, "--log-level": str}


def daemon_main(words: list[str]) -> int | None:
    """Run the daemon. Returns None where the words need the whole command line."""
    options = plain(words, DAEMON)
    return None if options is None else daemon(**options)


ORDER = {"--root": str, "--json": bool, "--quiet": bool, "-q": bool}
RELOAD = {**ORDER, "--timeout": float}


def reload_main(words: list[str]) -> int | None:
    """Have the profile read again. Returns None where the words need the whole command line."""
    options = plain(words, RELOAD)
    if options is None:
        return None
    return order("reload", timeout=options.pop("timeout", schedule.RELOADING), **options)


def nudge_main(words: list[str]) -> int | None:
    """Have the daemon look now. Returns None where the words need the whole command line."""
    options = plain(words, ORDER)
    return None if options is None else order("nudge", **options)


def order(
    command: str,
    root: str | None = None,
    json: bool = False,
    quiet: bool = False,
    q: bool = False,
    timeout: float = ORDERING,
    **more: Any,
) -> int:
    """Give the daemon an order, print its answer, and return the exit code."""
    from dsatier.control.client import NoAnswer, NoDaemon, ask

    def progress(words: str) -> None:
        if sys.stderr.isatty() and not (quiet or q):
            output.tell(words)

    asked = {"command": command, "timeout": timeout, **more}
    try:
        answer = ask(folder(root), asked, timeout, progress)
    except (NoDaemon, FileNotFoundError) as none:
        return say(f"the daemon is not running: {none}; `systemctl start dsatier`", NOT_RUNNING)
    except PermissionError:
        return say(f"{command}: only root may give orders to the daemon", FAILED)
    except (NoAnswer, OSError) as error:
        return say(f"{command}: {error}", FAILED)
    return answered(answer, as_json=json)


def answered(answer: dict[str, Any], *, as_json: bool) -> int:
    """Print an answer of the daemon and return the exit code."""
    code = int(answer["code"])
    if as_json:
        import json

        output.report(json.dumps({"schema_version": 1, **answer}, indent=2))
        return code
    state = f" ({answer['state']})" if answer.get("state") else ""
    words = f"{answer['result']}{state}: {answer['message']}"
    output.report(words, error=bool(code))
    return code


WAIT = {"--root": str, "--timeout": float}


def wait_main(words: list[str]) -> int | None:
    """Wait until the host has converged. Returns None where the words need more."""
    options = plain(words, WAIT)
    return None if options is None else wait(**options)


def wait(root: str | None = None, timeout: float = WAITING) -> int:
    """Wait until the host has converged: OK; or until it will not by itself: FAILED."""
    from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

    looks = Retrying(
        retry=retry_if_result(lambda verdict: verdict.code is None),
        stop=stop_after_delay(timeout),
        wait=wait_fixed(POLL),
        retry_error_callback=lambda looks: looks.outcome and looks.outcome.result(),
    )
    code, words = looks(_verdict, root or "/")
    if code is None:
        return say(f"not converged in {timeout:g} s: {words}", FAILED)
    if code != OK:
        return say(words, code)
    print(words)
    return OK


class Verdict(NamedTuple):
    """What a look at a status tells of a host that is to converge."""

    code: int | None
    """The exit code, None where the host may still get there."""
    words: str


def _verdict(root: str) -> Verdict:
    import json

    from dsatier.cli.status import named, read

    try:
        mark, text = read(root)
        if not mark:
            return Verdict(None, "dsatier has not run since this host booted")
        return _judged(json.loads(text))
    except (OSError, ValueError, LookupError, TypeError) as error:
        return Verdict(None, f"{named(root)}: {error}")


def _judged(document: dict[str, Any]) -> Verdict:
    from dsatier.apply.records import WITHDRAWN
    from dsatier.cli.status import alive

    state, profile = document["state"], document["profile"]["status"]
    words = f"{state}: {document['message'] or document['reason']}"
    if profile != "Accepted":
        words += f"; profile {profile}: {document['profile']['message']}"
    daemon = document.get("daemon")
    if not daemon or not alive(daemon["pid"]):  # what a killed one wrote last is old
        return Verdict(None, f"{words}; no daemon is running")
    if daemon["looked_at"] <= daemon["since"]:  # what it knows is from another run or boot
        return Verdict(None, f"{words}; the daemon has not looked yet")
    # a newer profile that is wrong or out of reach leaves what is in force as it is
    if state == "converged" and profile != "NoProfile":
        return Verdict(OK, words)
    final = (
        state in _STUCK or profile in ("Invalid", "NoProfile") or document["reason"] == WITHDRAWN
    )
    return Verdict(FAILED if final else None, f"{words}; {document['remedy']}")


def simulate(act: list[str], root: str | None = None) -> int:
    """Do something to the daemon's simulated host: ``poke PATH TEXT``, ``inject JSON``, ..."""
    import json

    meant: dict[str, Any]
    match act:
        case ["poke", path, text]:
            meant = {"poke": [path, text + "\n"]}
        case ["inject", fault]:
            try:
                meant = {"inject": json.loads(fault)}
            except (ValueError, RecursionError) as error:
                return say(f"simulate inject: expected a fault as JSON: {error}", USAGE)
        case ["heal", kind]:
            meant = {"heal": kind}
        case ["reboot" | "harm" as word]:
            meant = {word: True}
        case _:
            return say(
                "simulate: expected poke PATH TEXT, inject JSON, heal KIND, reboot or harm", USAGE
            )
    return order("simulate", root=root, act=meant)


QUICK: dict[str, Callable[[list[str]], int | None]] = {
    "daemon": daemon_main,
    "reload": reload_main,
    "nudge": nudge_main,
    "wait": wait_main,
}
"""The commands that start without the whole command line."""
