# SPDX-License-Identifier: Apache-2.0
"""Opens what a command line names: hosts, profiles, and files that commands printed."""

from __future__ import annotations

import errno
import os
import stat
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from dsatier.apply.target import Target, target
from dsatier.base.exits import (
    FAILED,
)
from dsatier.base.paths import STATUS
from dsatier.base.problem import Invalid, Problem
from dsatier.base.quick_json import loads
from dsatier.cli import status
from dsatier.cli.simulated import of_daemon, take
from dsatier.facts.model import Facts
from dsatier.host import given
from dsatier.host.files import FileHost
from dsatier.host.port import Host, HostError
from dsatier.profile import schema
from dsatier.profile.dropins import find, read_named
from dsatier.profile.load import from_texts, load
from dsatier.profile.loaded import Loaded
from dsatier.profile.yaml import MAX_BYTES

if TYPE_CHECKING:
    from dsatier.plan.originals import Originals
    from dsatier.sim.host import SimHost


class WrongUsage(Exception):
    """The words of the command line do not fit together, or name what is not there."""


@contextmanager
def open_host(options: Namespace) -> Iterator[Host]:
    """Yield the host that the options name; a simulated one's state is kept if asked."""
    if options.host is None:
        if options.sim_state is not None:
            raise WrongUsage("--sim-state goes with --host sim:FILE")
        files = FileHost("/" if options.root is None else options.root)
        simulated = _simulated_there(files)
        if simulated is not None and options.command == "measure":
            raise WrongUsage(
                f"measure: the daemon below {files.root} keeps a simulated host ({simulated}), on "
                f"which no page is copied"
            )
        looks = simulated is not None and options.command in LOOKS
        yield of_daemon(files) if looks else files
        return
    kind, _, name = options.host.partition(":")
    if kind != "sim" or not name:
        raise WrongUsage(f"--host: expected sim:NAME or sim:FILE.yaml, found {options.host}")
    if options.root is not None:
        raise WrongUsage("--host and --root exclude each other")
    with _simulated(name, options.sim_state) as host:
        yield host


LOOKS = frozenset({"facts", "plan", "verify", "doctor", "explain", "cat-config"})
"""The commands that look at the kernel's files, and take no lock that a daemon holds."""


def _simulated_there(host: FileHost) -> str | None:
    """Return the words for the simulated host of a daemon that lives below a root, if one does."""
    try:
        daemon = loads(host.read(STATUS))["daemon"]
        words, process = daemon["simulated"], daemon["pid"]
    except (HostError, ValueError, LookupError, TypeError):
        return None
    return str(words) if words and status.alive(process) else None


@contextmanager
def _simulated(name: str, state: str | None) -> Iterator[Host]:
    from dsatier.sim.host import SimHost

    try:
        fresh = SimHost.host_for(name)
    except ValueError as error:
        raise WrongUsage(f"--host sim:{name}: {error}") from error
    if state is None:
        yield fresh
        return
    with _kept(state) as stream:
        host = _restored(state, fresh, name)
        try:
            yield host
        finally:
            _keep(stream, state, host.state_text())


@contextmanager
def _kept(state: str) -> Iterator[int]:
    """Yield the open file that keeps a simulated host; one command has it at a time."""
    try:
        with suppress(FileNotFoundError):
            if not stat.S_ISREG(os.stat(state).st_mode):
                raise OSError(errno.EINVAL, "Not a regular file")
        file = os.open(state, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except (OSError, ValueError) as error:
        raise _wrong(state, "a file that can be written", error) from error
    try:
        take(file, state)  # as the lock of a real host would have it
        yield file
    finally:
        os.close(file)


def _restored(state: str, fresh: SimHost, name: str) -> SimHost:
    from dsatier.sim.host import SimHost

    text = given.text(state)
    if not text:
        return fresh
    try:
        host = SimHost.restore(text)
    except ValueError as error:
        raise _wrong(state, "what --sim-state has kept", error) from error
    if host.kernel.spec != fresh.kernel.spec:
        other = ValueError(f"that of another host ({host.kernel.spec.hostname})")
        raise _wrong(state, f"the state of sim:{name}", other)
    return host


def _keep(file: int, state: str, text: str) -> None:
    data = text.encode()
    try:
        os.pwrite(file, data, 0)
        os.ftruncate(file, len(data))
    except OSError as error:
        raise _wrong(state, "room for the simulated host's state", error) from error


def _wrong(path: str, expected: str, error: OSError | ValueError) -> Invalid:
    found = (getattr(error, "strerror", None) or str(error)).lower()
    return Invalid([Problem(path, 0, 0, (), expected, found)])


def sources(options: Namespace, host: Host | None, facts: Facts | None) -> Loaded:
    """Return the profile that the options name, or that of the drop-ins. Raises Invalid."""
    if options.profile:
        # its bytes as they are: whoever reads the YAML tells where one is no UTF-8
        texts = [
            (name, given.read(name, MAX_BYTES).decode(errors="surrogateescape"))
            for name in options.profile
        ]
        return from_texts(texts, facts)
    if host is None:
        raise WrongUsage("--facts goes with --profile")
    return load(find(host), facts)


class NoProfile(Exception):
    """No profile applies to this host."""

    def __init__(self, loaded: Loaded, code: int) -> None:
        super().__init__("; ".join(f"{one.path}: {one.reason}" for one in loaded.skipped))
        self.code = code


def applying(options: Namespace, host: Host | None, facts: Facts, none: int) -> Loaded:
    """Return the profile of a host. Raises NoProfile, with the exit code ``none``."""
    loaded = sources(options, host, facts)
    if loaded.profile is None:
        # a file that was named must apply; drop-ins may all be for other hosts
        raise NoProfile(loaded, FAILED if options.profile else none)
    return loaded


def target_of(host: Host, loaded: Loaded, facts: Facts, before: Originals | None) -> Target:
    """Return what a profile wants of a host, with the files that it names there."""
    return target(partial(read_named, host), loaded, facts, before)


def captured(path: str) -> Facts:
    """Return the facts that ``dsatier facts --json`` printed into a file. Raises Invalid."""
    return schema.validate_text(Facts, given.text(path), path)
