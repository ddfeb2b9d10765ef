# SPDX-License-Identifier: Apache-2.0
"""Whether all is well with a host, asked of its status document. Pure.

`dsatier status --check` and the metric ``dsatier_healthy`` ask here. It imports nothing, for
``status`` has no time.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def unwell(document: "dict[str, Any]") -> str:
    """Return what is not well with a host, empty where all is.

    All is well where what the files hold is in force and proven, and nothing waits. How old the
    document is, is another question.
    """
    if document["state"] != "converged":
        return f"{document['state']}: {document['reason']}: {document['message']}"
    if document.get("latch", "none") != "none":
        return f"latched: {document['latch']}"
    profile = document.get("profile")
    if profile is not None and profile["status"] != "Accepted":
        why = f"{profile['status']}: {profile['message']}"
        return f"the profile that the files hold is not in force: {why}"
    if pending := document.get("reload_pending"):
        return f"changed and not reloaded: {', '.join(pending)}"
    return ""
