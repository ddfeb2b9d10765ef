# SPDX-License-Identifier: Apache-2.0
"""Things that may never come back, or leave much behind, done in a process of their own.

A write that hangs in the kernel cannot be killed, and neither can the process that made
it. So it is made by a child, and the agent waits for the child no longer than it said.
While it waits it calls the ``waiting`` that it was given every few seconds.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar, cast

from dsatier.host.port import Hung, Ran, Rejected

if TYPE_CHECKING:
    import subprocess

T = TypeVar("T")

_REPORT = struct.Struct("=iii")
"""The errno of opening, that of writing (0: it went well), and how many bytes were taken."""
_LONGEST_OUTPUT = 1 << 20
_LAST_BREATH = 1.0
"""Seconds that a killed process gets to go."""
_TURN = 5.0
"""Seconds between two signs of waiting."""
_PIPE = 65536
_PDEATHSIG = 1
"""PR_SET_PDEATHSIG of prctl(2): the signal that a process gets when its parent ends."""


def silent() -> None:
    """Tell nobody that it waits."""


class Writer:
    """Writes in children. Those that hang are remembered, and reaped when they come back."""

    def __init__(self, waiting: Callable[[], None] = silent) -> None:
        self._hung: set[int] = set()
        self._waiting = waiting

    def write(self, path: str, open_file: Callable[[], int], data: bytes, deadline: float) -> None:
        """Make one write() of ``data`` into what ``open_file`` opens.

        Raises OSError where it cannot be opened, Rejected where the write was refused, less
        was taken or the child died, and Hung.
        """
        self.reap()
        ours, its = os.pipe2(os.O_CLOEXEC)
        # a Ctrl-C goes to the child, too: it must not end between open and write
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            child = os.fork()
            if child == 0:
                _write_and_exit(its, open_file, data)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(its)
        try:
            report = _read_within(ours, deadline, self._waiting)
        finally:
            os.close(ours)
        if report is None:
            self._hung.add(child)
            message = f"a write has not returned in {deadline:g} s; process {child} is in it"
            raise Hung(path, message)
        _, status = os.waitpid(child, 0)
        if len(report) < _REPORT.size:
            raise Rejected(path, errno.EIO, f"the writing process died: {_died(status)}")
        not_opened, refused, taken = _REPORT.unpack(report)
        if not_opened:
            raise OSError(not_opened, os.strerror(not_opened), path)
        if refused:
            # whatever it is: "no such device" is a kernel's answer here, not a missing file
            raise Rejected(path, refused, f"{_quoted(data)} was refused: {reason(refused)}")
        if taken != len(data):
            message = f"expected {len(data)} bytes to be taken, found {taken}"
            raise Rejected(path, errno.EIO, message)

    def reap(self) -> tuple[int, ...]:
        """Return the children that still hang; forget those that came back."""
        for child in tuple(self._hung):
            with suppress(ChildProcessError):
                if os.waitpid(child, os.WNOHANG) == (0, 0):
                    continue
            self._hung.discard(child)
        return tuple(sorted(self._hung))


def _write_and_exit(report: int, open_file: Callable[[], int], data: bytes) -> None:
    """Be the child: write, tell how it went, and go without any of the parent's clean-up.

    The parent's standard streams are closed: a reader of the parent's output must see
    it end with the parent, also where this write never does.
    """
    try:
        nothing = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nothing, stream)
        not_opened, refused, taken = 0, 0, 0
        try:
            descriptor = open_file()
        except OSError as error:
            not_opened = error.errno or errno.EIO
        else:
            try:
                taken = os.write(descriptor, data)
            except OSError as error:
                refused = error.errno or errno.EIO
        os.write(report, _REPORT.pack(not_opened, refused, taken))
    finally:
        os._exit(0)


def reason(code: int) -> str:
    """Return an errno in words and by its name."""
    return f"{os.strerror(code).lower()} ({errno.errorcode.get(code, code)})"


def _quoted(data: bytes) -> str:
    return repr(data.decode(errors="backslashreplace").strip())


def _read_within(
    descriptor: int, deadline: float, waiting: Callable[[], None] = silent
) -> bytes | None:
    """Return what comes through a pipe, None where nothing does before the deadline."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    end = time.monotonic() + deadline
    while True:
        left = end - time.monotonic()
        if poll.poll(max(0, int(min(left, _TURN) * 1000))):
            return os.read(descriptor, _PIPE)
        if left <= 0:
            return None
        waiting()


def _died(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"it exited {code}"
    return f"signal {-code}; where the kernel killed it, the kernel log says why"


class Begun(Generic[T]):
    """A call that a child is at: what it imports stays there.

    Values and exceptions must be of the sort that can be pickled. Raises Rejected where there
    is no child to be had.
    """

    def __init__(self, what: str, function: Callable[[], T], deadline: float) -> None:
        self._what = what
        self._deadline = deadline
        self._end = time.monotonic() + deadline
        try:
            ours, its = os.pipe2(os.O_CLOEXEC)
        except OSError as error:
            raise _no_process(what, error) from error
        try:
            self._child = os.fork()
        except OSError as error:
            os.close(ours)
            os.close(its)
            raise _no_process(what, error) from error
        if self._child == 0:
            _call_and_exit(its, function, deadline)
        os.close(its)
        self._pipe = ours
        self._asked = False

    @property
    def overdue(self) -> bool:
        """Tell whether the deadline has passed."""
        return time.monotonic() >= self._end

    def fileno(self) -> int:
        """Return a descriptor that can be read when the result is there, or the child is gone."""
        return self._pipe

    def end(self) -> None:
        """End the child of which nobody asked the result: it has the parent's lock open."""
        if not self._asked:
            self._asked = True
            os.kill(self._child, signal.SIGKILL)
            os.close(self._pipe)
            os.waitpid(self._child, 0)

    def result(self) -> T:
        """Return what the function does; to be asked once.

        Raises what it raises, Rejected where the child died, and Hung after the deadline.
        """
        import pickle

        data = bytearray()
        self._asked = True
        try:
            while (part := _read_within(self._pipe, self._end - time.monotonic())) != b"":
                if part is None:
                    os.kill(self._child, signal.SIGKILL)
                    raise self._late()
                data += part
        finally:
            os.close(self._pipe)
            _, status = os.waitpid(self._child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
            raise self._late()  # it has seen its deadline pass before this process did
        if not data:
            message = f"the process that does it died: {_died(status)}"
            raise Rejected(self._what, errno.EIO, message)
        went_well, result = pickle.loads(data)  # noqa: S301  of our own child
        if went_well:
            return cast(T, result)
        raise result

    def _late(self) -> Hung:
        return Hung(self._what, f"has taken more than {self._deadline:g} s and was killed")


def call(what: str, function: Callable[[], T], deadline: float) -> T:
    """Return what ``function`` does, called in a child. Raises as ``Begun`` and its result."""
    return Begun(what, function, deadline).result()


def _no_process(what: str, error: OSError) -> Rejected:
    code = error.errno or errno.EIO
    return Rejected(what, code, f"there is no process to be had for it: {reason(code)}")


def _call_and_exit(report: int, function: Callable[[], object], deadline: float) -> NoReturn:
    """Be the child: call, tell what came of it, and go without the parent's clean-up.

    It ends at its deadline also where the parent is gone.
    """
    import pickle

    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, deadline + _LAST_BREATH)
        try:
            data = pickle.dumps((True, function()))
        except Exception as error:  # noqa: BLE001  the parent decides
            data = pickle.dumps((False, error))
        with open(report, "wb") as stream:
            stream.write(data)
    finally:
        os._exit(0)


def run(
    argv: tuple[str, ...],
    environment: dict[str, str],
    deadline: float,
    name: str,
    waiting: Callable[[], None] = silent,
    holds: tuple[int, ...] = (),
) -> Ran:
    """Run a program, and return how it ended and the start of what it said.

    It gets its own process group, which is killed at the deadline. It ends with the agent, or
    what is left of it goes on to hold the descriptors ``holds``. Raises OSError where it cannot
    be started, and Hung.
    """
    import subprocess  # few hosts ever run a program, and it brings much along

    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd="/",
        start_new_session=True,
        pass_fds=holds,
        preexec_fn=_ends_with(os.getpid()),  # noqa: PLW1509  it takes no lock of another thread's
    ) as process:
        try:
            return _followed(process, deadline, name, waiting)
        except BaseException:
            # nobody waits for it in `with`: it may be in a call that cannot be killed
            _kill(process)
            process.returncode = process.poll() if process.poll() is not None else -signal.SIGKILL
            raise


def _ends_with(parent: int) -> Callable[[], None]:
    """Return what a child does so that it is killed when ``parent`` ends."""
    import ctypes

    prctl = ctypes.CDLL(None).prctl

    def bind() -> None:
        prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it has ended already
            os.kill(os.getpid(), signal.SIGKILL)

    return bind


def _followed(
    process: subprocess.Popen[bytes], deadline: float, name: str, waiting: Callable[[], None]
) -> Ran:
    from subprocess import TimeoutExpired

    assert process.stdout is not None
    assert process.stderr is not None
    said = {process.stdout.fileno(): bytearray(), process.stderr.fileno(): bytearray()}
    out, err = said.values()
    poll = select.poll()
    for descriptor in said:
        poll.register(descriptor, select.POLLIN)
    end = time.monotonic() + deadline
    open_ends = set(said)
    while open_ends or process.poll() is None:
        left = end - time.monotonic()
        if left <= 0:
            raise Hung(name, _killed(process, deadline))
        if not open_ends:
            with suppress(TimeoutExpired):
                process.wait(min(left, _TURN))
            waiting()
            continue
        ready = poll.poll(max(1, int(min(left, _TURN) * 1000)))
        if not ready:
            waiting()
        for descriptor, _ in ready:
            data = os.read(descriptor, 65536)
            if not data:
                poll.unregister(descriptor)
                open_ends.discard(descriptor)
            room = _LONGEST_OUTPUT - len(said[descriptor])
            said[descriptor] += data[: max(0, room)]
        if process.poll() is not None and not poll.poll(0):
            break  # it ended; what it started may hold its output open for ever
    assert process.returncode is not None
    return Ran(
        process.returncode,
        out.decode(errors="backslashreplace"),
        err.decode(errors="backslashreplace"),
    )


def _kill(process: subprocess.Popen[bytes]) -> bool:
    """Kill a process and all of its group; tell whether it is gone."""
    from subprocess import TimeoutExpired

    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(TimeoutExpired):
            process.wait(_LAST_BREATH)
    return process.poll() is not None


def _killed(process: subprocess.Popen[bytes], deadline: float) -> str:
    if _kill(process):
        return f"it has not ended in {deadline:g} s and was killed"
    return f"it has not ended in {deadline:g} s and cannot be killed; it is process {process.pid}"
