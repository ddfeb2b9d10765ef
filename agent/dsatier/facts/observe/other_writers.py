# SPDX-License-Identifier: Apache-2.0
"""Other tools that are set up to write what dsatier may write.

Their files are theirs: what cannot be read or understood there is passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from dsatier.facts.knobs import KNOBS, KnobName
from dsatier.facts.model import OtherWriter
from dsatier.facts.observe.read import readable
from dsatier.host.port import Host

SYSCTL_FOLDERS = (
    *("/etc/sysctl.d", "/run/sysctl.d"),
    *("/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d"),
)
"""The first folder's file of a name masks the others."""
SYSCTL_CONF = "/etc/sysctl.conf"
TMPFILES_FOLDERS = (
    *("/etc/tmpfiles.d", "/run/tmpfiles.d"),
    *("/usr/local/lib/tmpfiles.d", "/usr/lib/tmpfiles.d"),
)
"""The first folder's file of a name masks the others."""
SYSFS_CONF = "/etc/sysfs.conf"
SYSFS_FOLDER = "/etc/sysfs.d"
SAPTUNE = "/etc/sysconfig/saptune"
SAPTUNE_NOTES = (
    *("/etc/saptune/override/{}", "/etc/saptune/extra/{}.conf"),
    *("/var/lib/saptune/working/notes/{}", "/usr/share/saptune/notes/{}"),
)
"""Where a note is; the first that is there counts."""
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
    found = [
        *tuned(host),
        *sysctl(host),
        *tmpfiles(host),
        *sysfs_conf(host),
        *saptune(host),
        *kubelet(host),
        *accel_config(host),
    ]
    return tuple(sorted(found, key=lambda other: (other.tool, other.path)))


# sysctl.d


def sysctl(host: Host) -> Iterator[OtherWriter]:
    """Yield the sysctl files that name our knobs."""
    for path in (SYSCTL_CONF, *_masked(host, SYSCTL_FOLDERS)):
        items = sysctl_items(readable(host, path) or "")
        if items:
            yield OtherWriter("sysctl.d", path, items)


def _masked(host: Host, folders: Iterable[str]) -> list[str]:
    """Return the .conf files of folders of which an earlier one masks the later by name."""
    files: dict[str, str] = {}
    for folder in folders:
        for name in host.entries(folder):
            if name.endswith(".conf"):
                files.setdefault(name, f"{folder}/{name}")
    return [files[name] for name in sorted(files)]


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


# tmpfiles.d, sysfs.conf and saptune


def tmpfiles(host: Host) -> Iterator[OtherWriter]:
    """Yield the files of systemd-tmpfiles that write to our knobs."""
    for path in _masked(host, TMPFILES_FOLDERS):
        words = (line.split() for line in (readable(host, path) or "").splitlines())
        written = [w[1].strip("\"'") for w in words if len(w) > 1 and _WRITES.fullmatch(w[0])]
        if items := _knobs_at(written):
            yield OtherWriter("tmpfiles.d", path, items)


def sysfs_conf(host: Host) -> Iterator[OtherWriter]:
    """Yield the files of sysfsutils that set our knobs."""
    names = sorted(name for name in host.entries(SYSFS_FOLDER) if name.endswith(".conf"))
    for path in (SYSFS_CONF, *(f"{SYSFS_FOLDER}/{name}" for name in names)):
        lines = (line.partition("=") for line in (readable(host, path) or "").splitlines())
        # a key of two words sets a file's mode or owner
        keys = [key.split() for key, mark, _ in lines if mark]
        if items := _knobs_at(f"/sys/{key[0].strip('/')}" for key in keys if len(key) == 1):
            yield OtherWriter("sysfs.conf", path, items)


def saptune(host: Host) -> Iterator[OtherWriter]:
    """Yield the notes that saptune applies and that set our knobs."""
    order = re.search(r"^NOTE_APPLY_ORDER=(.*)$", readable(host, SAPTUNE) or "", re.MULTILINE)
    for note in re.findall(r"[\w.-]+", order[1]) if order else ():
        paths = (place.format(note) for place in SAPTUNE_NOTES)
        texts = ((path, readable(host, path)) for path in paths)
        path, text = next(((p, t) for p, t in texts if t is not None), (SAPTUNE, ""))
        _, _, section = (text or "").partition("[sysctl]")
        if items := sysctl_items(section.partition("\n[")[0]):
            yield OtherWriter("saptune", path, items)


_WRITES = re.compile(r"w\+?[!=~^$+-]*")
"""The type of a line of tmpfiles.d that writes to a file, with its modifiers."""


def _knobs_at(paths: Iterable[str]) -> tuple[str, ...]:
    """Return the knobs at paths, which may be globs."""
    asked = tuple(paths)
    return tuple(
        sorted(knob for path, knob in _PATHS.items() if any(fnmatchcase(path, a) for a in asked))
    )


# TuneD

_TUNED_VM: dict[str, KnobName] = {
    "transparent_hugepages": "thp_enabled",
    "transparent_hugepage": "thp_enabled",
    "transparent_hugepage.defrag": "thp_defrag",
}
"""What the vm plug-in calls our knobs."""


def tuned(host: Host) -> Iterator[OtherWriter]:
    """Yield the files of TuneD's active profile that name our knobs."""
    active = (readable(host, TUNED_ACTIVE) or "").split()
    if not active:
        return
    subjects = {"uname_regex": _uname(host), "cpuinfo_regex": readable(host, "/proc/cpuinfo") or ""}
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
                items, includes = tuned_profile(found, subjects)
                waiting += includes
                if items:
                    yield OtherWriter("TuneD", path, items)
                break


def _uname(host: Host) -> str:
    """Return what TuneD's uname_regex is looked for in. Only x86-64 has a DSA."""
    release, version = (
        (readable(host, f"/proc/sys/kernel/{name}") or "").strip()
        for name in ("osrelease", "version")
    )
    return f"Linux {host.hostname()} {release} {version} x86_64"


def tuned_profile(
    text: str, subjects: dict[str, str] | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the knobs that a TuneD profile sets, and the profiles that it includes.

    ``subjects`` are what a section's conditions are looked for in, by their names.
    """
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
        if not _counts(settings, sections.get("variables", {}), subjects or {}):
            continue
        kind = settings.get("type", name)
        if kind == "sysctl":
            items |= set(_sysctl_knobs(settings))
        elif kind == "sysfs":
            items |= set(_knobs_at(settings))
        elif kind == "vm":
            items |= {_TUNED_VM[key] for key in settings.keys() & _TUNED_VM.keys()}
    includes = re.split(r"[\s,;]+", sections.get("main", {}).get("include", ""))
    return tuple(sorted(items)), tuple(name for name in includes if name)


def _counts(settings: dict[str, str], variables: dict[str, str], subjects: dict[str, str]) -> bool:
    """Tell whether a section is for this host; one whose condition is not understood is."""
    if settings.get("enabled", "1").lower() in ("0", "false", "no", "off", "n"):
        return False
    for name, subject in subjects.items():
        pattern = re.sub(
            r"\$\{(\w+)\}", lambda m: variables.get(m[1], m[0]), settings.get(name, "")
        )
        try:
            if "${" not in pattern and not re.search(pattern, subject, re.MULTILINE):
                return False
        except re.error:
            continue
    return True


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
