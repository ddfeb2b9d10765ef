# SPDX-License-Identifier: Apache-2.0
"""Other tools that are set up to write what dsatier may write.

Their files are theirs: what cannot be read or understood there is passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from dsatier.facts.knobs import KNOBS
from dsatier.facts.model import OtherWriter
from dsatier.facts.observe.read import readable
from dsatier.host.port import Host

SYSCTL_FOLDERS = (
    *("/etc/sysctl.d", "/run/sysctl.d"),
    *("/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d"),
)
"""The first folder's file of a name masks the others."""
SYSCTL_CONF = "/etc/sysctl.conf"
TUNED_ACTIVE = "/etc/tuned/active_profile"
TUNED_FOLDERS = (
    *("/etc/tuned/profiles", "/etc/tuned"),
    *("/usr/lib/tuned/profiles", "/usr/lib/tuned"),
)
KUBELET = "/var/lib/kubelet/cpu_manager_state"
ACCEL_CONF = "/etc/accel-config/accel-config.conf"
ACCEL_UNIT = "accel-config.service"
UNITS = "/etc/systemd/system"
_DEEPEST = 16

_SYSCTLS = {
    knob.path.removeprefix("/proc/sys/").replace("/", "."): knob.name
    for knob in KNOBS.values()
    if knob.path.startswith("/proc/sys/")
}
_PATHS = {knob.path: knob.name for knob in KNOBS.values()}


def others(host: Host) -> tuple[OtherWriter, ...]:
    """Return the other writers, by tool and file."""
    found = [*tuned(host), *sysctl(host), *kubelet(host), *accel_config(host)]
    return tuple(sorted(found, key=lambda other: (other.tool, other.path)))


# sysctl.d


def sysctl(host: Host) -> Iterator[OtherWriter]:
    """Yield the sysctl files that name our knobs."""
    files: dict[str, str] = {}
    for folder in SYSCTL_FOLDERS:
        for name in host.entries(folder):
            if name.endswith(".conf"):
                files.setdefault(name, f"{folder}/{name}")
    for path in (SYSCTL_CONF, *(files[name] for name in sorted(files))):
        items = sysctl_items(readable(host, path) or "")
        if items:
            yield OtherWriter("sysctl.d", path, items)


def sysctl_items(text: str) -> tuple[str, ...]:
    """Return the knobs that a sysctl file sets, globs and slash forms included."""
    keys = []
    for line in text.splitlines():
        key, mark, _ = line.strip().removeprefix("-").partition("=")
        if mark and key[:1] not in ("#", ";"):
            keys.append(key.strip())
    return _sysctl_knobs(keys)


def _sysctl_knobs(keys: Iterable[str]) -> tuple[str, ...]:
    found = set()
    for key in keys:
        dotted = _dotted(key)
        found |= {knob for name, knob in _SYSCTLS.items() if fnmatchcase(name, dotted)}
    return tuple(sorted(found))


def _dotted(key: str) -> str:
    """Return a sysctl's name with dots; its first separator tells which form it has."""
    first = re.search(r"[./]", key)
    if first and first[0] == "/":
        return key.lstrip("/").removeprefix("proc/sys/").replace("/", ".")
    return key


# TuneD


def tuned(host: Host) -> Iterator[OtherWriter]:
    """Yield the files of TuneD's active profile that name our knobs."""
    active = (readable(host, TUNED_ACTIVE) or "").split()
    seen: set[str] = set()
    waiting = list(active)
    while waiting and len(seen) < _DEEPEST:
        name = waiting.pop(0)
        if name in seen or "/" in name or name.startswith("."):
            continue
        seen.add(name)
        for folder in TUNED_FOLDERS:
            path = f"{folder}/{name}/tuned.conf"
            found = readable(host, path)
            if found is not None:
                items, includes = tuned_profile(found)
                waiting += includes
                if items:
                    yield OtherWriter("TuneD", path, items)
                break


def tuned_profile(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the knobs that a TuneD profile sets, and the profiles that it includes."""
    sections: dict[str, dict[str, str]] = {}
    section = ""
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("[") and bare.endswith("]"):
            section = bare[1:-1].strip()
        elif "=" in bare and not bare.startswith(("#", ";")):
            key, _, value = bare.partition("=")
            sections.setdefault(section, {})[key.strip()] = value.strip()
    items: set[str] = set()
    for name, settings in sections.items():
        kind = settings.get("type", name)
        if kind == "sysctl":
            items |= set(_sysctl_knobs(settings))
        elif kind == "sysfs":
            items |= {
                knob
                for path, knob in _PATHS.items()
                if any(fnmatchcase(path, key) for key in settings)
            }
    includes = re.split(r"[\s,;]+", sections.get("main", {}).get("include", ""))
    return tuple(sorted(items)), tuple(name for name in includes if name)


# kubelet and accel-config


def kubelet(host: Host) -> Iterator[OtherWriter]:
    """Yield kubelet where it gives CPUs to pods by number."""
    try:
        state = json.loads(readable(host, KUBELET) or "{}")
    except ValueError:
        return
    if isinstance(state, dict) and state.get("policyName") == "static":
        yield OtherWriter("kubelet", KUBELET, ("cpus",))


def accel_config(host: Host) -> Iterator[OtherWriter]:
    """Yield accel-config's own service where it is enabled and has something to load."""
    if readable(host, ACCEL_CONF) is None:
        return
    wants = (name for name in host.entries(UNITS) if name.endswith(".wants"))
    if any(ACCEL_UNIT in host.entries(f"{UNITS}/{name}") for name in wants):
        yield OtherWriter("accel-config", ACCEL_CONF, ("queues",))
