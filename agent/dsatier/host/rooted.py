# SPDX-License-Identifier: Apache-2.0
"""A directory that stands in for ``/``: paths are looked up in it and never outside.

An absolute link in the tree points into the tree, as it would on the machine that the tree
stands for; a ``..`` that would lead above the top is refused. Every component is opened by
itself without following links, so a tree that changes under the walk cannot lead out.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40


class Tree:
    """A tree below ``root``. Every method raises OSError as the kernel would."""

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)
        if not os.path.isdir(self.root):
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", root)
        self.whole = self.root == "/"
        """The tree is the machine itself."""

    @contextmanager
    def parent(self, path: str, *, follow: bool = True) -> Iterator[tuple[int, str]]:
        """Yield a descriptor of the directory that ``path`` is in, and its name there.

        With ``follow`` the last component is followed while it is a link. The name is "."
        where ``path`` is the top.
        """
        walk = _Walk(self.root)
        try:
            yield walk.to(path, follow)
        finally:
            walk.close()

    def open(self, path: str, flags: int, *, follow: bool = True) -> int:
        """Open ``path`` as os.open() does; never creates."""
        if self.whole and follow:
            return os.open(path, flags | os.O_CLOEXEC)
        with self.parent(path, follow=follow) as (directory, name):
            return os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)

    def names(self, path: str) -> list[str]:
        """Return the names in a directory."""
        if self.whole:
            return os.listdir(path)
        descriptor = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return os.listdir(descriptor)
        finally:
            os.close(descriptor)

    def link(self, path: str) -> str:
        """Return what a link says."""
        if self.whole:
            return os.readlink(path)
        with self.parent(path, follow=False) as (directory, name):
            return os.readlink(name, dir_fd=directory)

    def others(self, path: str) -> str:
        """Say who else may write a file or directory than root and this process's user.

        "" for nobody, and where it cannot be looked at. A group counts but root's.
        """
        try:
            descriptor = self.open(path, os.O_PATH)
        except OSError:
            return ""
        try:
            found = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if found.st_uid not in (0, os.geteuid()):
            return f"user {found.st_uid} owns it"
        if found.st_mode & stat.S_IWOTH:
            return "everybody may write it"
        if found.st_mode & stat.S_IWGRP and found.st_gid != 0 and os.geteuid() == 0:
            return f"group {found.st_gid} may write it"
        return ""

    def real(self, path: str) -> str:
        """Return the machine's own path of ``path``; the last component need not exist."""
        with self.parent(path) as (directory, name):
            above = os.readlink(f"/proc/self/fd/{directory}")
        return os.path.normpath(os.path.join(above, name))


class _Walk:
    """The open directories from the top down to where the walk is."""

    def __init__(self, root: str) -> None:
        self.stack = [os.open(root, _DIRECTORY & ~os.O_NOFOLLOW)]

    def close(self) -> None:
        while self.stack:
            os.close(self.stack.pop())

    def to(self, path: str, follow: bool) -> tuple[int, str]:
        if "\0" in path:
            raise OSError(errno.EINVAL, "a path without NUL characters was expected", path)
        # the last component stays until it is known not to be a link
        left = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        links = 0
        while left:
            part = left.pop()
            if part == "..":
                if len(self.stack) == 1:
                    raise OSError(errno.EXDEV, "leads above the root", path)
                os.close(self.stack.pop())
                continue
            if left and self._enter(part):
                continue
            target = self._target(part) if left or follow else None
            if target is None:
                if left:
                    raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
                return self.stack[-1], part
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if target.startswith("/"):
                while len(self.stack) > 1:
                    os.close(self.stack.pop())
            left += [p for p in reversed(target.split("/")) if p not in ("", ".")]
        return self.stack[-1], "."

    def _enter(self, name: str) -> bool:
        """Go into a folder; tell whether there was one. A link is none."""
        try:
            self.stack.append(os.open(name, _DIRECTORY, dir_fd=self.stack[-1]))
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                return False
            raise
        return True

    def _target(self, name: str) -> str | None:
        try:
            return os.readlink(name, dir_fd=self.stack[-1])
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return None  # no link, or nothing: whoever opens it will say so
            raise
