# SPDX-License-Identifier: Apache-2.0
"""What a profile must not say whatever the host: rules across its fields.

Pure functions on plain data that the schema has already accepted. What depends
on a host is refused when a plan is made, not here.
"""

from __future__ import annotations

from dsatier.base.problem import Problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from dsatier.profile.schema import Locate, Path

    Broken = tuple[Path, str, str, str]
    """Path of the value, what was expected, what was found, what to do."""

NODES = {"fast_node": 0, "slow_node": 1}
DRIFT = {"interval": 60.0, "fights": 3, "window": 600.0}
"""Defaults as in ``dsatier.profile.model``; a test holds them to it."""


def broken(data: dict[str, Any], locate: Locate, *, whole: bool = True) -> list[Problem]:
    """Return the rules that ``data`` breaks, sorted by place.

    ``whole`` is False for a drop-in: what it does not name, another file may, so
    defaults do not count.
    """
    found = [
        Problem(*locate(path, False), path, expected, seen, hint)
        for path, expected, seen, hint in (
            *_match(data),
            *_tiers(data, whole=whole),
            *_queues(data),
            *_tiering(data),
            *_reasons(data),
            *_drift(data, whole=whole),
            *_family(data),
        )
    ]
    return sorted(found, key=Problem.place)


def _part(data: dict[str, Any], *path: str) -> dict[str, Any]:
    """Return a mapping of the profile, empty where it is not named."""
    for key in path:
        data = data.get(key) or {}
    return data


def glob_fault(glob: str) -> str:
    """Return what is wrong with a shell glob, or nothing."""
    if glob != glob.strip():
        return "a space at its end or beginning"
    rest = glob
    while "[" in rest:
        rest = rest.partition("[")[2].removeprefix("!")
        # "[]a]" is a set of "]" and "a"
        if "]" not in rest[1:]:
            return "a '[' that is not closed"
        rest = rest[rest.index("]", 1) + 1 :]
    return ""


def is_device(name: str) -> bool:
    """Tell whether ``name`` is one that the kernel gives to a DSA device."""
    number = name.removeprefix("dsa")
    return name != number and number.isascii() and number.isdigit() and str(int(number)) == number


def _match(data: dict[str, Any]) -> Iterator[Broken]:
    match = _part(data, "match")
    for key in ("hostname", "release", "cpu_model"):
        for index, glob in enumerate(match.get(key) or ()):
            fault = glob_fault(glob)
            if fault:
                yield ("match", key, index), "a shell glob", f"{fault}: '{glob}'", ""
    numa = _part(match, "numa")
    nodes, cpuless = numa.get("nodes"), numa.get("cpuless_nodes")
    if nodes is not None and cpuless is not None and cpuless >= nodes:
        path = ("match", "numa", "cpuless_nodes")
        yield path, f"less than nodes ({nodes})", str(cpuless), "some node has CPUs"


def _tiers(data: dict[str, Any], *, whole: bool) -> Iterator[Broken]:
    tiers = _part(data, "tiers")
    nodes = {key: tiers.get(key) for key in NODES}
    named = [key for key, value in nodes.items() if value is not None]
    if whole and named:
        nodes = {key: NODES[key] if nodes[key] is None else nodes[key] for key in nodes}
    if named and nodes["fast_node"] == nodes["slow_node"]:
        other = "fast_node" if named[-1] == "slow_node" else "slow_node"
        default = "" if len(named) == 2 else f", name {other} too"
        expected = f"a node other than {other} ({nodes[other]})"
        yield ("tiers", named[-1]), expected, str(nodes[other]), f"the tiers differ{default}"
    lists = tiers.get("nodes")
    if named and lists is not None:
        hint = "fast_node and slow_node are short for one pair of nodes"
        yield ("tiers", named[0]), "nothing where nodes is named", str(tiers[named[0]]), hint
    lists = lists if isinstance(lists, dict) else {}
    yield from _lists(lists)
    online = _part(tiers, "online").get("nodes")
    listed = online if isinstance(online, (list, tuple)) else ()
    for index, number in enumerate(listed):
        if number in listed[:index]:
            yield ("tiers", "online", "nodes", index), "each node once", f"{number} again", ""
    slow = tiers.get("slow_node") is not None or isinstance(lists.get("slow"), (list, tuple))
    if whole and tiers.get("cpuless") and not slow:
        hint = "name slow_node too: CPUs go offline only of a node that is named"
        yield ("tiers", "cpuless"), "true only with a slow node that is named", "true", hint


def _reasons(data: dict[str, Any]) -> Iterator[Broken]:
    """Refuse a reason that is there twice, and two words for one bit of the kernel's."""
    for section in ("concurrency", "engine"):
        for key in ("migrate_batch_reasons", "migrate_engine_reasons"):
            listed = _part(data, section).get(key) or ()
            for index, reason in enumerate(listed):
                if reason in listed[:index]:
                    yield (section, key, index), "each reason once", f"{reason} again", ""
    concurrency = _part(data, "concurrency")
    for key in ("use_concur_to_compact", "use_concur_to_demote"):
        if (
            concurrency.get("migrate_batch_reasons") is not None
            and concurrency.get(key) is not None
        ):
            hint = f"{key} is one of the reasons: name compaction or demotion there, or not"
            expected = "nothing where migrate_batch_reasons is named"
            yield ("concurrency", key), expected, str(concurrency[key]).lower(), hint


def _lists(nodes: dict[str, Any]) -> Iterator[Broken]:
    """Refuse lists of nodes that contradict each other."""
    seen: dict[int, str] = {}
    for key in ("fast", "slow", "hbm"):
        listed = nodes.get(key)
        for index, number in enumerate(listed if isinstance(listed, (list, tuple)) else ()):
            if number in seen:
                where = ("tiers", "nodes", key, index)
                yield where, "each node once", f"{number} again", f"it is in {seen[number]} already"
            seen.setdefault(number, key)
    near, slow, fast = nodes.get("near"), nodes.get("slow"), nodes.get("fast")
    if near is None:
        return
    path = ("tiers", "nodes", "near")
    if not isinstance(slow, (list, tuple)):
        yield path, "it only with a list of slow nodes", "none", "name the slow nodes too"
    elif len(near) != len(slow):
        hint = "one fast node for each slow node, in that order"
        yield path, f"a list of {len(slow)}, as slow is", f"a list of {len(near)}", hint
    for index, number in enumerate(near):
        if isinstance(fast, (list, tuple)) and number not in fast:
            listed = ", ".join(map(str, fast))
            yield (*path, index), f"one of the fast nodes {listed}", str(number), ""


def _queues(data: dict[str, Any]) -> Iterator[Broken]:
    path: Path = ("engine", "work_queues")
    queues = _part(data, "engine", "work_queues")
    file = queues.get("file")
    if file is not None and not file.startswith("/"):
        yield (*path, "file"), "an absolute path", f"'{file}'", "write it from the root: /..."
    devices = queues.get("devices")
    if isinstance(devices, (list, tuple)):
        for index, name in enumerate(devices):
            if not is_device(name):
                yield (*path, "devices", index), "a name such as dsa0", f"'{name}'", ""
            elif name in devices[:index]:
                yield (*path, "devices", index), "each device once", f"'{name}' again", ""
    if devices is None:
        return
    count = devices if isinstance(devices, int) else len(devices)
    each = queues.get("queues") or 1
    chans = _part(data, "engine").get("limit_chans")
    if chans is not None and chans > count * each:
        total = f"at most {count * each}: {count} devices with {each} queues each"
        hint = "each channel needs a queue of its own: name more queues, or lower limit_chans"
        yield ("engine", "limit_chans"), total, str(chans), hint


def _tiering(data: dict[str, Any]) -> Iterator[Broken]:
    tiering = _part(data, "tiering")
    balancing, factor = tiering.get("numa_balancing"), tiering.get("demote_scale_factor")
    if factor is not None and balancing not in (None, 2, 3):
        path = ("tiering", "demote_scale_factor")
        hint = "write numa_balancing: 2 or 3, or leave demote_scale_factor out"
        yield (
            path,
            "it only with numa_balancing 2 or 3",
            f"it with numa_balancing {balancing}",
            hint,
        )


def _drift(data: dict[str, Any], *, whole: bool) -> Iterator[Broken]:
    drift = {key: value for key, value in _part(data, "drift").items() if value is not None}
    if not drift or drift.get("policy") == "report":
        return
    values = {**DRIFT, **drift} if whole else drift
    if len(values.keys() & DRIFT.keys()) < len(DRIFT):
        return
    least = (values["fights"] - 1) * values["interval"]
    if values["window"] < least:
        key = next(key for key in ("window", "interval", "fights") if key in drift)
        expected = f"a window of at least (fights - 1) x interval = {least:g} s"
        hint = "in a shorter one a fight would never be seen"
        yield ("drift", key), expected, f"a window of {values['window']:g} s", hint


def _family(data: dict[str, Any]) -> Iterator[Broken]:
    """Refuse what none of the kernels can do that ``match.abi`` leaves."""
    families = set(_part(data, "match").get("abi") or ())
    engine = _part(data, "engine")
    kind = engine.get("kind")
    if families == {"none"}:
        hint = "match.abi leaves only kernels without the knobs"
        if kind in ("multithread", "dsa"):
            yield ("engine", "kind"), "cpu", kind, hint
        for key, value in _part(data, "concurrency").items():
            if value:
                yield ("concurrency", key), "false", "true", hint
        if _part(data, "tiering").get("demote_scale_factor") is not None:
            yield ("tiering", "demote_scale_factor"), "nothing", "it", hint
    if families == {"seed"}:
        hint = "seed kernels lose the last bytes of a page with others"
        for key in ("limit_chans", "limit_mt_num"):
            value = engine.get(key)
            if value is not None and value & (value - 1):
                yield ("engine", key), "a power of two", str(value), hint
