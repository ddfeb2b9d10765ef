# SPDX-License-Identifier: Apache-2.0
"""The words of the few commands that start without argparse.

docs/adr/0005-command-line.md says which they are, and why. Whatever is not this plain goes to the
whole command line, and that says what is wrong.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any


def plain(words: "list[str]", options: "Mapping[str, type]") -> "dict[str, Any] | None":
    """Return the values of ``--name VALUE`` and ``--name=VALUE`` options, None for anything else.

    An option of type bool takes no value.

    >>> plain(["--root", "/", "--json"], {"--root": str, "--json": bool})
    {'root': '/', 'json': True}
    """
    found: dict[str, Any] = {}
    left = list(words)
    while left:
        name, equals, value = left.pop(0).partition("=")
        kind = options.get(name)
        if kind is None or (kind is bool and equals) or (kind is not bool and not (equals or left)):
            return None
        try:
            found[name.lstrip("-").replace("-", "_")] = (
                True if kind is bool else kind(value if equals else left.pop(0))
            )
        except ValueError:
            return None
    if not 0 <= found.get("timeout", 0) < float("inf"):
        return None
    if "root" in found and not os.path.isdir(found["root"]):
        return None
    return found
