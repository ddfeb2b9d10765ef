# SPDX-License-Identifier: Apache-2.0
"""Generated profiles: valid ones, and ones in which something is broken."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Data = dict[str, Any]

_BOOL = st.booleans()
_GLOBS = st.lists(st.sampled_from(["*", "db-*", "web-[0-9]*", "6.12.*", "x?z"]), min_size=1)


def _some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Data]:
    """A mapping with any of the fields."""
    return st.fixed_dictionaries({}, optional=fields)


SHAPES = st.fixed_dictionaries(
    {
        "devices": st.integers(8, 64)
        | st.lists(
            st.integers(0, 63).map(lambda n: f"dsa{n}"), min_size=8, max_size=12, unique=True
        )
    },
    optional={"engines": st.integers(1, 64), "queues": st.integers(1, 64)},
)
FILES = st.fixed_dictionaries({"file": st.sampled_from(["/etc/accel.json", "/a"])})
ENGINES = st.one_of(
    st.just({"kind": "cpu"}),
    st.fixed_dictionaries(
        {"kind": st.just("multithread")}, optional={"limit_mt_num": st.sampled_from([1, 2, 4, 32])}
    ),
    st.fixed_dictionaries(
        {"kind": st.just("dsa")},
        optional={
            "limit_chans": st.sampled_from([1, 2, 4, 8]),
            "dsa_copy_threshold": st.integers(1, 2**31 - 1),
            "work_queues": SHAPES | FILES,
            "on_fault": st.sampled_from(["cpu", "cpu-and-stop-tiering"]),
        },
    ),
)


def _section(name: str, strategy: st.SearchStrategy[Data]) -> st.SearchStrategy[Data]:
    return strategy.map(lambda data: {name: data})


TIERS = st.one_of(
    _some(fast_node=st.just(0), slow_node=st.integers(1, 9), cpuless=st.just(False)),
    st.fixed_dictionaries({"slow_node": st.integers(1, 9), "cpuless": _BOOL}),
    st.fixed_dictionaries(
        {
            "nodes": st.just("auto")
            | st.fixed_dictionaries(
                {"slow": st.just([2, 3])},
                optional={
                    "fast": st.sampled_from([[0, 1], [0, 1, 5], "auto"]),
                    "near": st.sampled_from([[0, 1], [1, 0]]),
                    "hbm": st.sampled_from([[], [4]]),
                },
            )
        },
        optional={
            "online": _some(
                nodes=st.sampled_from(["auto", [2], [2, 3]]),
                zone=st.sampled_from(["movable", "kernel"]),
            )
        },
    ),
)
SECTIONS = {
    "match": _some(
        hostname=_GLOBS,
        release=_GLOBS,
        cpu_model=_GLOBS,
        abi=st.lists(st.sampled_from(["ours", "seed"]), min_size=1, max_size=3),
        numa=_some(nodes=st.integers(3, 8), cpuless_nodes=st.integers(0, 2)),
    ),
    "tiers": TIERS,
    "concurrency": _some(
        use_concur_to_compact=_BOOL, use_concur_to_demote=_BOOL, use_concur_for_htmm=_BOOL
    ),
    "engine": ENGINES,
    "tiering": _some(
        demotion_enabled=_BOOL,
        numa_balancing=st.just(2),
        demote_scale_factor=st.integers(1, 10000),
        swap=st.sampled_from(["off", "on"]),
    ),
    "drift": _some(
        policy=st.sampled_from(["repair", "report"]),
        interval=st.floats(0.1, 6) | st.integers(1, 6),
        fights=st.integers(1, 11),
        window=st.floats(600, 86400),
    ),
}
PROFILES = st.fixed_dictionaries({"version": st.just(1)}, optional=SECTIONS)
"""Plain data of valid profiles that stay valid however they are merged."""

JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["no", "dsa", "on", "x" * 5000, 10**17, -1, 0, 0.1]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["kind", "file", "devices", "x", ""]), inner, max_size=3)
    ),
    max_leaves=5,
)
KEYS = st.sampled_from(
    ["version", "match", "hostname", "kind", "limit_chans", "file", "devices", "dsa", "0", "limit"]
) | st.text(max_size=6)


def _places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(data, dict):
        for key, value in data.items():
            found += _places(value, (*path, key))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            found += _places(value, (*path, index))
    return found


def _changed(data: Any, path: tuple[Any, ...], change: Any) -> Any:
    if not path:
        return change(data)
    copy = dict(data) if isinstance(data, dict) else list(data)
    copy[path[0]] = _changed(copy[path[0]], path[1:], change)
    return copy


@st.composite
def broken_profiles(draw: st.DrawFn) -> Any:
    """Plain data of a profile in which up to four places were changed, added or taken out."""
    data: Any = draw(PROFILES)
    for _ in range(draw(st.integers(1, 4))):
        path = draw(st.sampled_from(_places(data)))
        what = draw(st.sampled_from(["value", "key", "absent"]))
        junk, key = draw(JUNK), draw(KEYS)

        def change(value: Any, what: str = what, junk: Any = junk, key: str = key) -> Any:
            if isinstance(value, dict) and what == "key":
                return {**value, key: junk}
            if isinstance(value, dict) and what == "absent" and value:
                return dict(list(value.items())[1:])
            return junk

        data = _changed(data, path, change)
    return data
