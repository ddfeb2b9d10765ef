# SPDX-License-Identifier: Apache-2.0
"""What can go wrong on a simulated host: a declarative list.

``after`` counts seconds of the host's clock from boot (in a description) or from the injection.
``times`` is how often it happens; 0 means always.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_type_hints

from annotated_types import Ge

from dsatier.base.fields import STRICT, Tagged

After = Annotated[float, Ge(0)]
Times = Annotated[int, Ge(0)]


@dataclass(frozen=True, slots=True)
class FailedInit:
    """``dsa_state``=1 gets ``channels`` channels and no more."""

    __pydantic_config__ = STRICT
    kind: Literal["failed-init"]
    channels: Times = 0
    times: Times = 1


@dataclass(frozen=True, slots=True)
class Halt:
    """A device halts."""

    __pydantic_config__ = STRICT
    kind: Literal["halt"]
    device: str
    reset: Literal["flr", "system", "software"] = "flr"
    after: After = 0.0
    live: bool = False
    """``after`` counts only seconds in which the engine is live."""


@dataclass(frozen=True, slots=True)
class SelfClear:
    """Copies fail until the kernel itself clears ``use_dsa_copy_pages``.

    One on the plain path does for a seed kernel. Ours goes on while it has a channel: eight in a
    row fail on each.
    """

    __pydantic_config__ = STRICT
    kind: Literal["self-clear"]
    after: After = 0.0
    """Seconds of live engine."""
    times: Times = 1


@dataclass(frozen=True, slots=True)
class CopyFailures:
    """Copies fail on the concurrent path only: ``dsa_copy_fail`` rises, the knob stays."""

    __pydantic_config__ = STRICT
    kind: Literal["copy-failures"]
    every: Annotated[float, Ge(0.001)] = 1.0
    """Seconds of live engine between two failures."""
    huge: bool = False
    """There are huge pages in the lists: they are tried again one by one, and the knob is
    cleared."""
    times: Times = 0


@dataclass(frozen=True, slots=True)
class LateCompletion:
    """A copy times out, and its device completes it ``late`` seconds later all the same.

    The pages are somebody else's by then, on a seed kernel. Nothing stops it but an end of the
    device. Ours keeps the pages back until then.
    """

    __pydantic_config__ = STRICT
    kind: Literal["late-completion"]
    device: str
    after: After = 0.0
    """Seconds of live engine."""
    late: Annotated[float, Ge(0)] = 1.0


@dataclass(frozen=True, slots=True)
class VanishedQueue:
    """Somebody takes a queue away through sysfs."""

    __pydantic_config__ = STRICT
    kind: Literal["vanished-queue"]
    queue: str
    after: After = 0.0


@dataclass(frozen=True, slots=True)
class HungWrite:
    """A write to ``path`` does not return within its deadline."""

    __pydantic_config__ = STRICT
    kind: Literal["hung-write"]
    path: str
    performed: bool = False
    """The write takes effect all the same."""
    times: Times = 1


@dataclass(frozen=True, slots=True)
class HungCommand:
    """A command whose words contain ``words`` does not return within its deadline."""

    __pydantic_config__ = STRICT
    kind: Literal["hung-command"]
    words: str
    performed: bool = False
    times: Times = 1


@dataclass(frozen=True, slots=True)
class RejectedWrite:
    """A write to ``path`` is refused with ``errno`` though the contract would take it."""

    __pydantic_config__ = STRICT
    kind: Literal["rejected-write"]
    path: str
    errno: str = "EIO"
    times: Times = 1


@dataclass(frozen=True, slots=True)
class LateDevice:
    """A device appears only ``after`` seconds."""

    __pydantic_config__ = STRICT
    kind: Literal["late-device"]
    device: str
    after: After = 60.0


@dataclass(frozen=True, slots=True)
class LateMemory:
    """The DAX device that brings a node's memory appears only ``after`` seconds."""

    __pydantic_config__ = STRICT
    kind: Literal["late-memory"]
    node: Annotated[int, Ge(0)]
    after: After = 60.0


@dataclass(frozen=True, slots=True)
class PoisonedBlock:
    """A memory block of a node's device has a broken page: it does not come online."""

    __pydantic_config__ = STRICT
    kind: Literal["poisoned-block"]
    node: Annotated[int, Ge(0)]
    place: Annotated[int, Ge(0)] = 0
    """Counted from the device's first block."""


@dataclass(frozen=True, slots=True)
class StuckCpu:
    """A CPU does not go offline: ``cpu``, or whichever is the ``nth`` to be tried."""

    __pydantic_config__ = STRICT
    kind: Literal["stuck-cpu"]
    cpu: Annotated[int, Ge(0)] | None = None
    nth: Annotated[int, Ge(1)] | None = None
    errno: str = "EBUSY"
    times: Times = 0


@dataclass(frozen=True, slots=True)
class OtherWriter:
    """Somebody else writes ``text`` to ``path`` every ``every`` seconds."""

    __pydantic_config__ = STRICT
    kind: Literal["other-writer"]
    path: str
    text: str
    after: After = 0.0
    every: Annotated[float, Ge(0.001)] = 10.0
    times: Times = 0


@dataclass(frozen=True, slots=True)
class SwapReturns:
    """Somebody turns all swap on again."""

    __pydantic_config__ = STRICT
    kind: Literal["swap-returns"]
    after: After = 0.0


@dataclass(frozen=True, slots=True)
class FullDisk:
    """Own files can no longer be kept."""

    __pydantic_config__ = STRICT
    kind: Literal["disk"]
    errno: Literal["ENOSPC", "EROFS"] = "ENOSPC"
    keeps: Times = 0
    """How many still succeed."""
    times: Times = 0
    folder: Literal["/", "/run/"] = "/"
    """What is full: the root, or /run, which is a file system of its own in memory."""


@dataclass(frozen=True, slots=True)
class LostLog:
    """The kernel log loses its lines."""

    __pydantic_config__ = STRICT
    kind: Literal["lost-log"]
    after: After = 0.0
    with_write: str | None = None
    """Lost right after a write to this path instead of at a time."""


@dataclass(frozen=True, slots=True)
class ClockJump:
    """The wall clock jumps ``by`` seconds."""

    __pydantic_config__ = STRICT
    kind: Literal["clock-jump"]
    by: float
    after: After = 0.0


@dataclass(frozen=True, slots=True)
class Pressure:
    """Programs want more memory than the fast nodes have, until it is healed."""

    __pydantic_config__ = STRICT
    kind: Literal["pressure"]
    after: After = 0.0
    meets: Literal["room", "full", "bound", "swaps", "unscanned", "ping-pong", "hot"] = "room"
    """What it meets: room on the slow nodes; full ones; programs bound to the fast ones; a kernel
    that swaps all the same; no scan for hot pages; as many of these as are demoted; a thousand
    times as many as usual."""


@dataclass(frozen=True, slots=True)
class Crash:
    """The agent dies at its (``after``+1)th mutating operation: write, run, keep, drop."""

    __pydantic_config__ = STRICT
    kind: Literal["crash"]
    after: Times = 0
    performed: bool = False
    """The operation still happens before the agent dies."""


AnyFault = (
    FailedInit
    | Halt
    | SelfClear
    | CopyFailures
    | LateCompletion
    | VanishedQueue
    | HungWrite
    | HungCommand
    | RejectedWrite
    | LateDevice
    | LateMemory
    | PoisonedBlock
    | StuckCpu
    | OtherWriter
    | SwapReturns
    | FullDisk
    | LostLog
    | ClockJump
    | Pressure
    | Crash
)
Fault = Annotated[AnyFault, Tagged("kind")]

KINDS: dict[str, type[Any]] = {
    get_args(get_type_hints(cls)["kind"])[0]: cls for cls in get_args(AnyFault)
}
"""The classes by the word that declares them."""


class SimCrash(BaseException):
    """The agent dies here: no ``except Exception`` sees it."""
