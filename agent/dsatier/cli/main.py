# SPDX-License-Identifier: Apache-2.0
"""The command's entry: the verbs that are run most, or longest, start without the rest.

``status`` imports next to nothing, the daemon, those who speak with it and ``check`` little;
everything else goes through ``dsatier.cli.commands``.
"""

import sys

from dsatier.base.exits import FAILED, INTERRUPTED
from dsatier.host import output


def main(argv: "list[str] | None" = None) -> int:
    """Run the command line ``argv`` and return its exit code."""
    words = sys.argv[1:] if argv is None else argv
    output.prepare()
    try:
        code = _main(words)
        sys.stdout.flush()
    except BrokenPipeError:
        # the reader went away; there is nobody left to tell
        output.discard(sys.stdout)
        return FAILED
    except OSError as error:
        # whoever reads or writes a file of a name has told by now: what is left are the streams
        output.discard(sys.stdout)
        output.tell(f"dsatier: {error.filename or 'standard output'}: {error.strerror}")
        return FAILED
    except KeyboardInterrupt:
        output.tell("interrupted")
        return INTERRUPTED
    else:
        return code
    finally:
        output.settle()


def _main(words: "list[str]") -> int:
    if words == ["--version"]:
        from dsatier import __version__

        print(f"dsatier {__version__}")
        return 0
    if words[:1] == ["status"]:
        from dsatier.cli.status import status_main

        code = status_main(words[1:])
        if code is not None:
            return code
    if words[:1] == ["check"]:
        from dsatier.cli.check import check_main

        return check_main(words[1:])
    if words[:1] in (["daemon"], ["reload"], ["nudge"], ["wait"]):
        from dsatier.cli.orders import QUICK

        code = QUICK[words[0]](words[1:])
        if code is not None:
            return code
    from dsatier.cli.commands import run

    return run(words)
