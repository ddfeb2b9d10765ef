# SPDX-License-Identifier: Apache-2.0
"""The knobs: one row for each file and family, with its parser, its range and its effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from errno import EBUSY, EINVAL
from typing import TYPE_CHECKING

from dsatier.sim import copying, memory
from dsatier.sim.parse import INT_MAX, UINT_MAX, Refused, dointvec, douintvec, kstrtobool

if TYPE_CHECKING:
    from dsatier.sim.kernel import Kernel

Parser = Callable[[str], int | None]
Effect = Callable[["Kernel", int], None]


@dataclass(frozen=True, slots=True)
class Row:
    """A knob as one family of kernels has it."""

    name: str
    kernels: str
    """The kinds of kernel that have this row."""
    default: int
    low: int
    high: int
    parser: Parser
    effect: Effect | None = None
    """None: the value is stored, no more."""


def _demotion(text: str) -> int:
    if not text.startswith(("true", "false", "1", "0")):
        raise Refused(EINVAL)
    return int(kstrtobool(text))


def _set_demotion(k: Kernel, value: int) -> None:
    k.state.knobs["demotion_enabled"] = value
    copying.note_quiet(k)


def _set_balancing(k: Kernel, value: int) -> None:
    # the watermarks stay as they are until something works them out again
    k.state.knobs["numa_balancing"] = value
    memory.note_mode(k)
    copying.note_quiet(k)


def _seed_chans(k: Kernel, value: int) -> None:
    old = k.knob("limit_chans")
    k.state.knobs["limit_chans"] = value
    if value == old or not k.knob("dsa_state") or not k.state.engine.chans:
        return
    k.hurt("leak", f"limit_chans changed from {old} to {value} while dsa_state=1")
    if copying.live(k) and k.spec.load:
        copying.flip_chans(k)


def _our_chans(k: Kernel, value: int) -> None:
    if k.knob("dsa_state"):
        raise Refused(EBUSY)
    k.state.knobs["limit_chans"] = value


_BATCHED = 989
"""Bits of the reasons for which a list is migrated."""
_SINGLE = {"use_concur_to_compact": 1 << 0, "use_concur_to_demote": 1 << 8}


def _set_reasons(k: Kernel, value: int) -> None:
    if value & ~_BATCHED:
        raise Refused(EINVAL)
    k.state.knobs["migrate_batch_reasons"] = value
    for name, bit in _SINGLE.items():
        k.state.knobs[name] = int(bool(value & bit))


def _single(name: str) -> Effect:
    def write(k: Kernel, value: int) -> None:
        others = k.state.knobs["migrate_batch_reasons"] & ~_SINGLE[name]
        _set_reasons(k, others | (_SINGLE[name] if value else 0))

    return write


_SEED, _OURS, _MAINLINE = "tpp memtis", "ours", "ours stock"
_ALL = f"{_SEED} {_MAINLINE}"

ROWS = (
    Row("use_concur_to_compact", _SEED, 0, 0, 1, dointvec),
    Row("use_concur_to_demote", _SEED, 0, 0, 1, dointvec),
    *(Row(name, _OURS, 0, 0, 1, dointvec, _single(name)) for name in _SINGLE),
    Row("migrate_batch_reasons", _OURS, 0, 0, INT_MAX, dointvec, _set_reasons),
    Row("migrate_batch_pages", _OURS, 13312, 512, 262144, dointvec),
    Row("migrate_batch_usecs", _OURS, 4000, 0, 1000000, dointvec),
    Row("migrate_engine_reasons", _OURS, 2047, 0, 2047, dointvec),
    Row("migrate_copy_calibrate", _OURS, 0, 0, 1, dointvec),
    Row("cpu_multi_copy_threshold", _OURS, 256, 1, INT_MAX, dointvec),
    Row("use_concur_for_htmm", "memtis", 0, 0, 1, dointvec),
    Row("cpu_multi_copy_pages", "tpp memtis ours", 0, 0, 1, dointvec),
    Row("limit_mt_num", _SEED, 4, 0, UINT_MAX, douintvec),
    Row("limit_mt_num", _OURS, 4, 1, 32, dointvec),
    Row("dsa_state", "tpp memtis ours", 0, 0, 1, dointvec, copying.set_state),
    Row("use_dsa_copy_pages", "tpp memtis ours", 0, 0, 1, dointvec, copying.set_use),
    Row("limit_chans", _SEED, 8, -INT_MAX - 1, INT_MAX, dointvec, _seed_chans),
    Row("limit_chans", _OURS, 8, 1, 8, dointvec, _our_chans),
    Row("dsa_copy_threshold", _SEED, 16, -INT_MAX - 1, INT_MAX, dointvec),
    Row("dsa_copy_threshold", _OURS, 16, 1, INT_MAX, dointvec),
    Row("dsa_async_mode", _SEED, 0, 0, 1, dointvec),
    Row("dsa_sync_mode", _SEED, 0, 0, 3, dointvec),
    Row(
        "demote_scale_factor",
        "tpp ours",
        200,
        1,
        10000,
        dointvec,
        memory.writer("demote_scale_factor"),
    ),
    Row("numa_balancing", "tpp", 0, 0, 3, dointvec, _set_balancing),
    Row("numa_balancing", "memtis", 0, 0, 1, dointvec, _set_balancing),
    Row("numa_balancing", _MAINLINE, 0, 0, 4, dointvec, _set_balancing),
    Row("demotion_enabled", _SEED, 0, 0, 1, _demotion, _set_demotion),
    Row("demotion_enabled", _MAINLINE, 0, 0, 1, kstrtobool, _set_demotion),
    Row("min_free_kbytes", _ALL, 67584, 0, INT_MAX, dointvec, memory.writer("min_free_kbytes")),
    Row(
        *("watermark_scale_factor", _ALL, 10, 1, 3000, dointvec),
        memory.writer("watermark_scale_factor"),
    ),
    Row("promote_rate_limit_MBps", _MAINLINE, 65536, 0, INT_MAX, dointvec),
    Row("watermark_boost_factor", _ALL, 15000, 0, INT_MAX, dointvec),
    Row("compaction_proactiveness", _ALL, 20, 0, 100, dointvec),
    Row("zone_reclaim_mode", _ALL, 0, 0, INT_MAX, dointvec),
    Row("thp_defrag", _ALL, memory.DEFRAG.index("madvise"), 0, 4, memory.defrag),
)

_ELSEWHERE = {
    "numa_balancing": "/proc/sys/kernel/numa_balancing",
    "demotion_enabled": "/sys/kernel/mm/numa/demotion_enabled",
    "promote_rate_limit_MBps": "/proc/sys/kernel/numa_balancing_promote_rate_limit_MBps",
    "thp_defrag": "/sys/kernel/mm/transparent_hugepage/defrag",
}


MAINLINE = frozenset(row.name for row in ROWS if "stock" in row.kernels)
"""Knobs that are no part of our series."""


def rows(kind: str) -> tuple[Row, ...]:
    """Return the knobs of a kind of kernel."""
    return tuple(row for row in ROWS if kind in row.kernels.split())


def path(name: str) -> str:
    """Return the file of a knob."""
    return _ELSEWHERE.get(name, f"/proc/sys/vm/{name}")


def show(k: Kernel, name: str) -> str:
    """Return a knob's text."""
    value = k.state.knobs[name]
    if name == "demotion_enabled":
        return "true\n" if value else "false\n"
    if name == "thp_defrag":
        return memory.chosen(memory.DEFRAG, memory.DEFRAG[value])
    return f"{value}\n"


def store(k: Kernel, row: Row, text: str) -> None:
    """Write a knob. Raises Refused, HostDown."""
    value = row.parser(text)
    if value is None:
        return
    if not row.low <= value <= row.high:
        raise Refused(EINVAL)
    if row.effect is None:
        k.state.knobs[row.name] = value
    else:
        row.effect(k, int(value))
