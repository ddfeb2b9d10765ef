# SPDX-License-Identifier: Apache-2.0
"""A guest that runs: commands, files, the emulator's side, and what it was doing.

It lives as long as a ``with`` block and dies with the process that started it. Its files and
sockets are in a folder of its own, which goes with it; of a guest that failed the console's log
is kept.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vm import initramfs, kernellog, wire
from vm.kernel import Kernel, started
from vm.machine import DSA, Machine, Places, command
from vm.qmp import Qmp, QmpError

PATIENCE = 60.0
"""Seconds that a command gets, where nothing else is said."""
BOOT = 120.0
"""Seconds from the emulator's start to the agent's hello."""
LOGS = Path(os.environ.get("DSATIER_VM_LOGS", Path(tempfile.gettempdir()) / "dsatier-vm-logs"))
"""Where consoles of guests that failed are kept."""
_GLANCE = 0.5
_SILENCE = 1.0
"""Seconds after which the kernel has said all that it was asked for."""
_PANIC = re.compile(r"Kernel panic - not syncing|---\[ end Kernel panic")
# a child is killed when the thread that started it ends, so one thread starts all of them
_STARTER = ThreadPoolExecutor(1, "vm-starter")
_HARM = re.compile(r"runtime error:|ERROR: \w+Sanitizer|Assertion .* failed", re.MULTILINE)
"""What a sanitizer, or the emulator itself, writes where something is wrong inside of it."""
LIVE: list[Guest] = []
"""The guests that run now."""


class GuestError(Exception):
    """A guest did not do what it was asked for. The message says what it was doing."""


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended. ``code`` is negative for a signal."""

    code: int
    out: str
    err: str


class Command:
    """A command that runs in a guest. Its output comes in as it is written."""

    def __init__(self, guest: Guest, number: int, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._guest = guest
        self._number = number
        self._heard = threading.Condition()
        self._out = bytearray()
        self._err = bytearray()
        self._code: int | None = None
        self._failure = ""

    def __str__(self) -> str:
        """Return the command as one would type it, shortened."""
        text = " ".join(self.words)
        return text if len(text) < 200 else text[:200] + "…"

    # the channel's side

    def hear(self, frame: wire.Frame) -> bool:
        """Take what the agent says of this command. Return True at its end."""
        with self._heard:
            if frame.kind is wire.Kind.OUTPUT:
                self._out += frame.payload
            elif frame.kind is wire.Kind.ERRORS:
                self._err += frame.payload
            elif frame.kind is wire.Kind.ENDED:
                self._code = os.waitstatus_to_exitcode(wire.number(frame.payload))
            elif frame.kind is wire.Kind.REFUSED:
                self._failure = f"not started: {os.strerror(wire.number(frame.payload))}"
            self._heard.notify_all()
            return self.ended

    def lose(self, why: str) -> None:
        """Take it that no more will be heard."""
        with self._heard:
            if not self.ended:
                self._failure = why
            self._heard.notify_all()

    # the user's side

    @property
    def ended(self) -> bool:
        """Tell whether it is over."""
        return self._code is not None or bool(self._failure)

    @property
    def out(self) -> bytes:
        """What it has written so far."""
        return bytes(self._out)

    @property
    def err(self) -> bytes:
        """What it has written to its standard error so far."""
        return bytes(self._err)

    def give(self, data: bytes) -> None:
        """Write to its standard input."""
        for frame in wire.given(self._number, data):
            self._guest.send(frame)

    def end_input(self) -> None:
        """Close its standard input."""
        self._guest.send(wire.Frame(self._number, wire.Kind.INPUT).packed())

    def kill(self, sign: int = signal.SIGKILL) -> None:
        """Send a signal to it, and to what it started in its process group."""
        self._guest.send(wire.Frame(self._number, wire.Kind.SIGNAL, bytes([sign])).packed())

    def wait(self, timeout: float = PATIENCE) -> Ran:
        """Return how it ended. Raises GuestError when it has not, or was lost with its guest."""
        self._until(lambda: self.ended, timeout, "not done")
        if self._failure:
            raise GuestError(f"{self}: {self._failure}{self._said()}")
        assert self._code is not None
        return Ran(self._code, self.out.decode(errors="replace"), self.err.decode(errors="replace"))

    def wait_for(self, pattern: str, timeout: float = PATIENCE) -> re.Match[str]:
        """Return the first match of ``pattern`` in the output so far. Raises GuestError."""
        wanted = re.compile(pattern, re.MULTILINE)
        found: list[re.Match[str]] = []

        def seen() -> bool:
            match = wanted.search(self.out.decode(errors="replace"))
            found.extend([match] if match else [])
            return bool(found) or self.ended

        self._until(seen, timeout, f"{pattern!r} not seen")
        if not found:
            raise GuestError(f"{self}: {pattern!r} not seen before its end{self._said()}")
        return found[0]

    def _until(self, told: Callable[[], bool], timeout: float, what: str) -> None:
        until = time.monotonic() + timeout
        with self._heard:
            while not told():
                left = until - time.monotonic()
                self._heard.wait(min(max(left, 0), _GLANCE))
                if told():
                    return
                if death := self._guest.death():
                    raise GuestError(f"{self}: {death}{self._said()}\n{self._guest.doing(False)}")
                if left <= 0:
                    break
            else:
                return
        raise GuestError(f"{self}: {what} in {timeout:g} s{self._said()}\n{self._guest.doing()}")

    def _said(self) -> str:
        text = (self.out + self.err).decode(errors="replace")
        return f"; it said:\n{text[-4000:]}" if text else ""


class Complained(GuestError):
    """The kernel of a guest told of harm."""


class Guest:
    """A guest, booted.

    The end of its block fails where its kernel told of harm that nobody allowed.

    ``kernel`` is the one that it runs, ``emulator`` and ``busybox`` programs of this machine,
    ``agent`` the program that ``images.agent`` builds. ``root`` is the image of a root file system
    with systemd; without it the guest is busybox in memory. The rest is as in ``initramfs.build``.
    """

    _numbers = count(1)

    def __init__(
        self,
        machine: Machine,
        *,
        kernel: Kernel,
        emulator: Path,
        agent: Path,
        busybox: Path,
        root: Path | None = None,
        load: Sequence[str] = (),
        carry: Sequence[str] = (),
        programs: Sequence[Path] = (),
        files: Mapping[str, Path | bytes] | None = None,
        timeout: float = BOOT,
    ) -> None:
        self.machine = machine
        self.kernel = kernel
        self.name = f"vm{os.getpid()}-{next(self._numbers)}"
        self.booted_in = 0.0
        """Seconds from the emulator's start to the agent's hello."""
        self.release = ""
        """The kernel's release, as the agent told it."""
        self._emulator = emulator
        self._root = root
        self._initrd = initramfs.build(
            kernel,
            agent.read_bytes(),
            busybox,
            load=load,
            carry=carry,
            programs=programs,
            files=files,
            rooted=root is not None,
        )
        self._timeout = timeout
        self._on_terminal = False
        self._folder = Path()
        self._places = Places("", "", "", "")
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._qmp: Qmp | None = None
        self._listener: threading.Thread | None = None
        self._sending = threading.Lock()
        self._greeted = threading.Condition()
        self._lives = 0
        self._keys = -1
        self._commands: dict[int, Command] = {}
        self._next = count(1)
        self._marks = count(1)
        self._judged = 0
        self._allowed: dict[str, str] = {}
        self._panic = ""
        self._panic_at = 0
        self._life_at = 0
        self._off = False

    # its life

    @contextmanager
    def on_terminal(self) -> Iterator[Self]:
        """Boot with the emulator's own input and output on this terminal, and leave it as it was.

        What shows there is said by the machine's ``extra``.
        """
        kept = termios.tcgetattr(0) if os.isatty(0) else None
        self._on_terminal = True
        try:
            with self:
                yield self
        finally:
            if kept is not None:
                termios.tcsetattr(0, termios.TCSADRAIN, kept)

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="dsatier-vm-"))
        try:
            self._boot()
        except BaseException:
            self.keep()
            self._clear_away()
            raise
        LIVE.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        LIVE.remove(self)
        try:
            if kind is None:
                self.check()
            else:
                self.keep()
        finally:
            self._clear_away()

    def _boot(self) -> None:
        folder = str(self._folder)
        (self._folder / "initrd").write_bytes(self._initrd)
        self._initrd = b""
        root = None if self._root is None else str(self._root)
        image = str(started(self.kernel, self._folder))
        self._places = Places(str(self._emulator), image, f"{folder}/initrd", folder, root)
        words = ["setpriv", "--pdeathsig", "KILL", *command(self.machine, self._places)]
        os.mkfifo(self._places.console_input)
        # open at both ends, so that neither this nor the emulator waits for the other
        self._keys = os.open(self._places.console_input, os.O_RDWR | os.O_CLOEXEC)
        began = time.monotonic()
        with (self._folder / "emulator.log").open("wb") as log:
            self._process = _STARTER.submit(
                subprocess.Popen,
                words,
                stdin=None if self._on_terminal else subprocess.DEVNULL,
                stdout=None if self._on_terminal else log,
                stderr=log,
                env={**os.environ, "TMPDIR": folder},
                start_new_session=True,
            ).result()
        self._channel = self._connected(self._places.agent)
        self._listener = threading.Thread(target=self._listen, args=(self._channel,), daemon=True)
        self._listener.start()
        try:
            self._qmp = Qmp(self._connected(self._places.qmp))
        except (QmpError, OSError) as error:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
            raise GuestError(f"{self.name}: {self.death() or error}") from None
        self.wait_for_life(1, self._timeout)
        self.booted_in = time.monotonic() - began

    def _connected(self, path: str) -> socket.socket:
        until = time.monotonic() + 30
        while True:
            found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                found.connect(path)
            except OSError as error:
                found.close()
                if (death := self.death()) or time.monotonic() > until:
                    said = self._text("emulator.log")
                    raise GuestError(f"{self.name}: {death or f'{path}: {error} {said}'}") from None
                time.sleep(0.01)
            else:
                return found

    def wait_for_life(self, number: int, timeout: float = BOOT) -> None:
        """Wait until the agent has said hello in that life; each reset begins another."""
        until = time.monotonic() + timeout
        with self._greeted:
            while self._lives < number:
                self._greeted.wait(_GLANCE)
                death = self.death()
                if self._lives < number and (death or time.monotonic() > until):
                    hint = "; append=('loglevel=8',) shows more of its boot"
                    why = death or f"has not booted in {timeout:g} s{hint}"
                    raise GuestError(f"{self.name}: {why}\n{self.doing(not death)}")

    @property
    def lives(self) -> int:
        """How often it has booted."""
        return self._lives

    @property
    def busy(self) -> float:
        """Seconds of CPU time that the emulator has used."""
        assert self._process is not None
        stat = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii")
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def death(self) -> str:
        """Return how the emulator or the guest's kernel ended, empty while both live."""
        if self._process is None:
            return "not running"
        if (code := self._process.poll()) is not None:
            said = self._text("emulator.log")
            return f"the emulator ended with {code}{'; it said: ' + said if said else ''}"
        return self._panicked()

    def _panicked(self) -> str:
        path = self._folder / "console.log"
        with suppress(OSError):
            size = path.stat().st_size
            if size > self._panic_at:
                with path.open("rb") as file:
                    file.seek(max(self._panic_at - 100, self._life_at))
                    text = file.read().decode(errors="replace")
                self._panic_at = size
                if found := _PANIC.search(text):
                    line = text[found.start() :].splitlines()[0]
                    self._panic = f"the guest's kernel died: {line}"
        return self._panic

    def keep(self) -> Path | None:
        """Keep the console's log after the guest is gone, and return where."""
        source = self._folder / "console.log"
        if not source.exists():
            return None
        LOGS.mkdir(parents=True, exist_ok=True)
        target = LOGS / f"{self.name}.log"
        shutil.copyfile(source, target)
        return target

    def _clear_away(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._channel is not None:
            with suppress(OSError):
                self._channel.shutdown(socket.SHUT_RDWR)
        if self._listener is not None:
            self._listener.join()
        if self._channel is not None:
            self._channel.close()
        if self._qmp is not None:
            self._qmp.close()
        if self._keys >= 0:
            os.close(self._keys)
            self._keys = -1
        shutil.rmtree(self._folder, ignore_errors=True)

    # the channel

    def send(self, data: bytes) -> None:
        """Send bytes of frames to the agent, whole."""
        assert self._channel is not None
        with self._sending:
            try:
                self._channel.sendall(data)
            except OSError as error:
                raise GuestError(f"{self.name}: {self.death() or error}") from None

    def _listen(self, channel: socket.socket) -> None:
        reader = wire.Reader()
        why = "the emulator has ended"
        while data := self._received(channel):
            try:
                for frame in reader.take(data):
                    self._take(frame)
            except wire.WireError as error:
                why = f"the channel: {error}"
                self._lose_all(why)
        self._lose_all(why)

    @staticmethod
    def _received(channel: socket.socket) -> bytes:
        with suppress(OSError):
            return channel.recv(1 << 18)
        return b""

    def _take(self, frame: wire.Frame) -> None:
        if frame.kind is wire.Kind.HELLO:
            self._lose_all("the guest was reset")
            with suppress(GuestError):
                self.send(wire.MAGIC)
            with self._greeted:
                self.release = frame.payload[len(wire.MAGIC) :].decode(errors="replace")
                self._lives += 1
                self._panic = ""
                self._greeted.notify_all()
            return
        told = self._commands.get(frame.number)
        if told is not None and told.hear(frame):
            del self._commands[frame.number]

    def _lose_all(self, why: str) -> None:
        lost, self._commands = self._commands, {}
        for told in lost.values():
            told.lose(why)

    # commands

    def start(self, *words: str, given: bytes | None = b"") -> Command:
        """Start a command. ``given`` is all of its standard input; None leaves that open."""
        number = next(self._next)
        found = Command(self, number, words)
        self._commands[number] = found
        self.send(wire.start(number, words))
        if given is not None:
            found.give(given)
            found.end_input()
        return found

    def run(self, *words: str, given: bytes = b"", timeout: float = PATIENCE) -> Ran:
        """Run a command as root. One that is not done in time is killed. Raises GuestError."""
        started = self.start(*words, given=given)
        try:
            return started.wait(timeout)
        except BaseException:
            if not started.ended and not self.death():
                started.kill()
            raise

    def ok(self, *words: str, given: bytes = b"", timeout: float = PATIENCE) -> str:
        """Run a command that must end with 0, and return its output."""
        ran = self.run(*words, given=given, timeout=timeout)
        if ran.code:
            raise GuestError(f"{' '.join(words)}: exit code {ran.code}\n{ran.out}{ran.err}")
        return ran.out

    def sh(self, script: str, *words: str, timeout: float = PATIENCE) -> str:
        """Run a shell script that must end with 0, and return its output. It stops at an error."""
        return self.ok("sh", "-euc", script, "sh", *words, timeout=timeout)

    # files

    def put(self, path: str, data: str | bytes, mode: int = 0o644) -> None:
        """Write a file, and the folders above it."""
        content = data.encode() if isinstance(data, str) else data
        script = 'mkdir -p "$(dirname "$1")" && cat >"$1" && chmod "$2" "$1"'
        self.ok("sh", "-c", script, "put", path, f"{mode:o}", given=content)

    def get(self, path: str, timeout: float = PATIENCE) -> bytes:
        """Return the content of a file. Raises FileNotFoundError."""
        found = self.start("cat", path)
        ran = found.wait(timeout)
        if ran.code:
            raise FileNotFoundError(ran.err)
        return found.out

    def read(self, path: str) -> str:
        """Return the text of a kernel file, without the end of its last line."""
        return self.get(path).decode(errors="replace").rstrip("\n")

    def write(self, path: str, text: str, timeout: float = PATIENCE) -> None:
        """Write to a kernel file, in one piece. Raises GuestError with what the kernel says."""
        words = ("sh", "-c", 'cat >"$1"', "write", path)
        ran = self.run(*words, given=text.encode(), timeout=timeout)
        if ran.code:
            raise GuestError(f"{path}: {text!r}: {ran.err.strip()}")

    def copy_in(self, source: Path, folder: str) -> None:
        """Copy a file or a folder into a folder of the guest."""
        words = ["tar", "-C", str(source.parent), "-c", "--owner=0", "--group=0", source.name]
        packed = subprocess.run(words, stdout=subprocess.PIPE, check=True).stdout
        self.ok("sh", "-c", 'mkdir -p "$1" && tar -C "$1" -xf -', "copy", folder, given=packed)

    def copy_out(self, path: str, folder: Path) -> None:
        """Copy a file or a folder of the guest into a folder here."""
        above, _, name = path.rstrip("/").rpartition("/")
        found = self.start("tar", "-C", above or "/", "-cf", "-", name)
        if found.wait().code:
            raise FileNotFoundError(found.err.decode(errors="replace"))
        words = ["tar", "-C", str(folder), "-x", "--no-same-owner"]
        subprocess.run(words, input=found.out, check=True)

    # the emulator's side

    @property
    def qmp(self) -> Qmp:
        """The emulator's monitor."""
        assert self._qmp is not None
        return self._qmp

    def device(self, name: str, key: str) -> Any:
        """Return a property of an emulated device, by the id that the machine gave it."""
        return self.qmp.execute("qom-get", path=f"/machine/peripheral/{name}", property=key)

    def set_device(self, name: str, key: str, value: Any) -> None:
        """Set a property of an emulated device."""
        path = f"/machine/peripheral/{name}"
        self.qmp.execute("qom-set", path=path, property=key, value=value)

    def plug(self, name: str) -> None:
        """Put back a removable device that was unplugged."""
        number = int(name.removeprefix("dsa"))
        properties = self.machine.dsa[number].properties
        self.qmp.execute("device_add", driver=DSA, id=name, bus=f"port{number}", **properties)

    def unplug(self, name: str, timeout: float = PATIENCE) -> None:
        """Ask the guest to give a removable device back, and wait until it is gone."""
        self.qmp.execute("device_del", id=name)
        self.qmp.wait("DEVICE_DELETED", timeout, device=name)

    def reset(self, timeout: float = BOOT) -> None:
        """Take the machine through its reset button; return when it has booted again."""
        lives = self._lives
        self._panic = ""
        self._panic_at = self._life_at = (self._folder / "console.log").stat().st_size
        self.qmp.execute("system_reset")
        self.wait_for_life(lives + 1, timeout)

    def power_off(self, timeout: float = PATIENCE) -> None:
        """Have the kernel turn the machine off, and wait for the emulator's end.

        What it said until then is judged here, and nothing is left to be judged. Raises Complained
        for harm, and GuestError where the emulator goes on or ends in another way.
        """
        assert self._process is not None
        self.check()
        self.start("poweroff", "-f")
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise GuestError(f"{self.name}: not off in {timeout:g} s\n{self.doing()}") from None
        self._judge(len(self.console))
        if code:
            raise GuestError(f"{self.name}: {self.death()}")
        self._off = True

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stop all CPUs and clocks of the guest for as long as the block lasts."""
        self.qmp.execute("stop")
        try:
            yield
        finally:
            self.qmp.execute("cont")

    def stall(self, seconds: float) -> None:
        """Have the emulator stand still while the guest's clocks go on, as on a busy machine."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            self._process.send_signal(signal.SIGCONT)

    def nmi(self) -> None:
        """Send a non-maskable interrupt to every CPU."""
        self.qmp.execute("inject-nmi")

    def sysrq(self, *keys: str, timeout: float = 20) -> None:
        """Have the kernel itself act on keys, one by one, also where no process runs any more.

        Wait after each until the kernel has said all, or ``timeout`` seconds have passed.
        """
        for key in keys:
            # the kernel takes the key that comes after a break
            self.qmp.execute("chardev-send-break", id="console")
            os.write(self._keys, key.encode())
            until = time.monotonic() + timeout
            size = len(self.console)
            while time.monotonic() < until:
                time.sleep(_SILENCE)
                if size == (size := len(self.console)):
                    break

    # the kernel's log

    @property
    def console(self) -> str:
        """All that the kernel has printed."""
        return self._text("console.log")

    def _text(self, name: str) -> str:
        with suppress(OSError):
            return (self._folder / name).read_text(encoding="utf-8", errors="replace")
        return ""

    def mark(self, timeout: float = PATIENCE) -> int:
        """Return a place in the kernel's log behind all that it has said so far.

        A guest that cannot be asked any more gives the end of what there is.
        """
        mark = f"vm: mark {next(self._marks)} of {self.name}"
        before = len(self.console)
        until = time.monotonic() + timeout
        asked = None
        with suppress(GuestError):
            asked = self.start("sh", "-c", 'echo "$1" >/dev/kmsg', "mark", mark)
        while mark not in (text := self.console[before:]):
            if asked is None or self.death() or time.monotonic() > until:
                break
            time.sleep(0.01)
        return before + len(text)

    def lines(self, since: int) -> list[str]:
        """Return what the kernel has said since a mark."""
        text = self.console[since : self.mark()]
        return [line for line in text.splitlines() if "vm: mark " not in line]

    def wait_for_log(self, pattern: str, since: int, timeout: float = PATIENCE) -> str:
        """Return the first line since a mark that a pattern is found in. Raises GuestError."""
        wanted = re.compile(pattern)
        until = time.monotonic() + timeout
        while True:
            for line in self.console[since:].splitlines():
                if wanted.search(line):
                    return line
            if (death := self.death()) or time.monotonic() > until:
                why = death or f"the kernel has not said {pattern!r} in {timeout:g} s"
                raise GuestError(f"{self.name}: {why}\n{self.doing(not death)}")
            time.sleep(0.05)

    def complaints(self) -> list[kernellog.Complaint]:
        """Return what harm the kernel has told of since the last look. Nobody is told again."""
        since, self._judged = self._judged, self.mark()
        lines = self.console[since : self._judged].splitlines()
        return kernellog.complaints(lines, {})

    def allow(self, pattern: str, reason: str) -> None:
        """Let lines of harm pass that a pattern is found in, until the next check."""
        self._allowed[pattern] = reason

    def check(self) -> None:
        """Raise Complained where the kernel told of harm since the last look.

        Raises GuestError where the emulator did.
        """
        if self._off:
            return
        self._judge(self.mark())
        if death := self.death():
            raise GuestError(f"{self.name}: {death}\n{self.doing(False)}")
        if _HARM.search(said := self._text("emulator.log")):
            raise GuestError(f"{self.name}: the emulator is not well; it said: {said[-6000:]}")

    def _judge(self, until: int) -> None:
        allowed, self._allowed = self._allowed, {}
        since, self._judged = self._judged, until
        lines = self.console[since:until].splitlines()
        found = kernellog.complaints(lines, allowed)
        if found:
            told = "\n".join(map(str, found[:5]))
            raise Complained(f"{self.name}: {told}\nthe whole log: {self.keep()}")

    def _ask_monitor(self, words: str) -> str:
        return str(self.qmp.execute("human-monitor-command", command_line=words))

    def doing(self, ask: bool = True) -> str:
        """Return what the guest was doing, for messages.

        ``ask`` has the kernel print what its CPUs run and which tasks are blocked.
        """
        before = len(self.console)
        lines = []
        if ask and self._qmp is not None and not self.death():
            with suppress(QmpError, OSError):
                status = self.qmp.execute("query-status")["status"]
                lines.append(f"the emulator: {status}")
                if status == "running":
                    self.sysrq("l", "w", "t")
                text = self._ask_monitor("info registers -a")
                where = re.findall(r"CPU#\d+|[ER]IP=[0-9a-f]+|HLT=\d", text)
                lines.append(f"its CPUs: {' '.join(where)}")
                if status == "running" and len(self.console) == before:
                    lines.append("its kernel does not answer; its interrupts:")
                    lines += self._ask_monitor("info pic").splitlines()
        text = self.console
        lines += ["the console before that:", *text[:before].splitlines()[-80:]]
        if len(text) > before:
            said = kernellog.telling(text[before:].splitlines())
            cut = [f"… {len(said) - 400} lines more in the log"] if len(said) > 400 else []
            lines += ["the kernel, asked what it does:", *said[:400], *cut]
        if kept := self.keep():
            lines.append(f"the whole log: {kept}")
        return "\n".join(lines)
