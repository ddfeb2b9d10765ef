# SPDX-License-Identifier: Apache-2.0
"""The few requests of the FUSE protocol that a file system of kernel files needs.

Spoken to /dev/fuse itself, so that the tests need neither a library nor a helper program.
Numbers and structures are those of ``include/uapi/linux/fuse.h``, protocol 7.31.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

BUFFER = 1 << 20
MOST_WRITTEN = 65536
_HEADER = struct.Struct("<IIQQIIII")
_REPLY = struct.Struct("<IiQ")
_INIT = struct.Struct("<IIIIHHIIHHI7I")
_ENTRY = struct.Struct("<QQQQII")
_ATTR = struct.Struct("<6Q10I")
_OPENED = struct.Struct("<QII")
_TRANSFER = struct.Struct("<QQI")
_DIRENT = struct.Struct("<QQII")
_STATFS = struct.Struct("<5Q10I")
_DIRECT_IO = 1
_STREAM = 1 << 4
_MS_BIND = 4096
_MNT_DETACH = 2


class Op(IntEnum):
    """Requests."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    INTERRUPT = 36
    DESTROY = 38
    BATCH_FORGET = 42


class NeverAnswered(Exception):
    """Whoever asked is to wait for ever."""


class Files(Protocol):
    """What is served. Every method may raise OSError; paths are absolute."""

    def mode(self, path: str) -> int:
        """Return the type and permission bits of what is there."""

    def names(self, path: str) -> tuple[str, ...]:
        """Return the names in a folder."""

    def target(self, path: str) -> str:
        """Return what a link says."""

    def read(self, path: str) -> bytes:
        """Return a file's content."""

    def is_log(self, path: str) -> bool:
        """Tell whether a file gives one record to each read, and EAGAIN while there is none."""

    def record(self, path: str, number: int) -> tuple[int, bytes] | None:
        """Return the first record of a log from ``number`` on with its own number, or None."""

    def write(self, path: str, data: bytes) -> None:
        """Take a write. May raise NeverAnswered."""


_libc = ctypes.CDLL(None, use_errno=True)


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None) -> None:
    words = [word and word.encode() for word in (source, target, kind)]
    if _libc.mount(*words, flags, data and data.encode()):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)


def mount(target: str) -> int:
    """Mount a file system at ``target``; return the descriptor that ``serve`` takes."""
    descriptor = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={descriptor},rootmode=40000,user_id=0,group_id=0,allow_other"
    _mount("simfs", target, "fuse.simfs", 0, options)
    return descriptor


def bind(source: str, target: str) -> None:
    """Let ``target`` show what is at ``source``."""
    _mount(source, target, None, _MS_BIND, None)


def unmount(target: str) -> None:
    """Take away what is mounted at ``target``, in use or not."""
    _libc.umount2(target.encode(), _MNT_DETACH)


def serve(descriptor: int, files: Files) -> None:
    """Answer requests until the file system is unmounted."""
    server = _Server(files)
    while True:
        try:
            request = os.read(descriptor, BUFFER)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            if error.errno in (errno.EINTR, errno.ENOENT, errno.EAGAIN):
                continue
            raise
        reply = server.answer(request)
        if reply is not None:
            try:
                os.write(descriptor, reply)
            except OSError as error:
                if error.errno != errno.ENOENT:  # whoever asked was interrupted
                    raise


class _Server:
    def __init__(self, files: Files) -> None:
        self._files = files
        self._inodes = {"/": 1}
        self._paths = {1: "/"}
        self._contents: dict[int, bytes] = {}
        self._records: dict[int, int] = {}
        """The number of the record that an open log gives next."""
        self._opened = 0
        self._waiting: set[int] = set()
        self._table: dict[int, Callable[[str, bytes], bytes]] = {
            Op.INIT: self._init,
            Op.LOOKUP: self._lookup,
            Op.GETATTR: self._getattr,
            Op.SETATTR: self._getattr,
            Op.READLINK: lambda path, _: self._files.target(path).encode(),
            Op.OPEN: self._open,
            Op.OPENDIR: self._open,
            Op.READ: self._read,
            Op.WRITE: self._write,
            Op.READDIR: self._readdir,
            Op.RELEASE: self._release,
            Op.RELEASEDIR: self._release,
            Op.STATFS: lambda *_: _STATFS.pack(*[0] * 7, 4096, 255, *[0] * 6),
            Op.FLUSH: lambda *_: b"",
            Op.FSYNC: lambda *_: b"",
            Op.DESTROY: lambda *_: b"",
        }

    def answer(self, request: bytes) -> bytes | None:
        _, op, unique, node, *_ = _HEADER.unpack_from(request)
        body = request[_HEADER.size :]
        if op in (Op.FORGET, Op.BATCH_FORGET):
            return None
        if op == Op.INTERRUPT:
            (asked,) = struct.unpack_from("<Q", body)
            if asked in self._waiting:
                self._waiting.discard(asked)
                return _REPLY.pack(_REPLY.size, -errno.EINTR, asked)
            return None
        act = self._table.get(op)
        if act is None:
            return _REPLY.pack(_REPLY.size, -errno.ENOSYS, unique)
        try:
            out = act(self._paths.get(node, "/"), body)
        except OSError as error:
            return _REPLY.pack(_REPLY.size, -(error.errno or errno.EIO), unique)
        except NeverAnswered:
            self._waiting.add(unique)
            return None
        return _REPLY.pack(_REPLY.size + len(out), 0, unique) + out

    def _inode(self, path: str) -> int:
        number = self._inodes.setdefault(path, len(self._inodes) + 1)
        self._paths[number] = path
        return number

    def _attributes(self, path: str) -> bytes:
        mode = self._files.mode(path)
        size = len(self._files.target(path)) if stat.S_ISLNK(mode) else 0
        if stat.S_ISREG(mode):
            size = 4096
        return _ATTR.pack(self._inode(path), size, *[0] * 7, mode, 1, 0, 0, 0, 4096, 0)

    def _init(self, path: str, body: bytes) -> bytes:
        return _INIT.pack(7, 31, 0, 0, 0, 0, MOST_WRITTEN, 1, 0, 0, *[0] * 8)

    def _lookup(self, path: str, body: bytes) -> bytes:
        name = body.rstrip(b"\0").decode()
        child = f"{path.rstrip('/')}/{name}"
        attributes = self._attributes(child)
        return _ENTRY.pack(self._inode(child), 0, 0, 0, 0, 0) + attributes

    def _getattr(self, path: str, body: bytes) -> bytes:
        return struct.pack("<QII", 0, 0, 0) + self._attributes(path)

    def _open(self, path: str, body: bytes) -> bytes:
        self._files.mode(path)
        self._opened += 1
        if self._files.is_log(path):
            self._records[self._opened] = 0
            return _OPENED.pack(self._opened, _DIRECT_IO | _STREAM, 0)
        return _OPENED.pack(self._opened, _DIRECT_IO, 0)

    def _release(self, path: str, body: bytes) -> bytes:
        (handle,) = struct.unpack_from("<Q", body)
        self._contents.pop(handle, None)
        self._records.pop(handle, None)
        return b""

    def _read(self, path: str, body: bytes) -> bytes:
        handle, offset, size = _TRANSFER.unpack_from(body)
        if handle in self._records:
            found = self._files.record(path, self._records[handle])
            if found is None:
                raise BlockingIOError(errno.EAGAIN, "no record yet", path)
            self._records[handle] = found[0] + 1
            return found[1][:size]
        if offset == 0 or handle not in self._contents:
            self._contents[handle] = self._files.read(path)
        return self._contents[handle][offset : offset + size]

    def _write(self, path: str, body: bytes) -> bytes:
        _, _, size = _TRANSFER.unpack_from(body)
        self._files.write(path, body[40 : 40 + size])
        return struct.pack("<II", size, 0)

    def _readdir(self, path: str, body: bytes) -> bytes:
        _, offset, size = _TRANSFER.unpack_from(body)
        out = b""
        names = (".", "..", *self._files.names(path))
        for place, name in enumerate(names[offset:], offset + 1):
            child = path if name in (".", "..") else f"{path.rstrip('/')}/{name}"
            try:
                kind = self._files.mode(child) >> 12
            except OSError:
                continue
            raw = name.encode()
            entry = _DIRENT.pack(self._inode(child), place, len(raw), kind) + raw
            entry += b"\0" * (-len(entry) % 8)
            if len(out) + len(entry) > size:
                break
            out += entry
        return out
