# SPDX-License-Identifier: Apache-2.0
"""YAML text to plain data, strictly, with the place of every value.

Takes the part of YAML that says the same in every version of it: mappings with
text keys, lists, text, decimal numbers, ``true``, ``false`` and null. What
YAML 1.1 would read as something else (``017``, ``0x1f``, ``22:22``, ``1_000``) is
refused; ``yes``, ``no``, ``on`` and ``off`` are text. Anchors, aliases, tags, merge
keys, directives and several documents are refused, so nothing expands. Size,
depth and number of values are limited, so time and memory are too.

No exception leaves ``parse`` for any input: what is wrong is in ``Tree.problems``.
"""

from __future__ import annotations

from dsatier.base.problem import Problem, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Path = tuple[str | int, ...]

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 10_000
MAX_PROBLEMS = 100
MAX_DIGITS = 18

_BOMS = (
    (b"\xff\xfe\x00\x00", "UTF-32"),
    (b"\x00\x00\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)
# Everything that is no text, and the three characters that only YAML 1.1 ends a line at.
_CONTROL = frozenset(
    [chr(c) for c in range(0x20) if chr(c) not in "\t\n\r"]
    + [chr(c) for c in range(0x7F, 0xA0)]
    + ["\u2028", "\u2029", "\ufeff", "\ufffe", "\uffff"]
)
_TAB = "indent with spaces, not with tabs"
_HINTS = (
    ("mapping values are not allowed", "put text that contains ': ' in quotes"),
    ("could not find expected ':'", "write a key, a colon, a space and a value"),
    ("undefined tag handle", "put text that begins with '!' in quotes"),
    ("while scanning an alias", "put text that begins with '*' in quotes"),
    ("while scanning an anchor", "put text that begins with '&' in quotes"),
    ("cannot start any token", "put text that begins with this character in quotes"),
    ("unexpected end of stream", "close the quote or the bracket"),
    ("did not find expected", "look at the indentation, and for a bracket left open"),
    ("but found", "look at the indentation, and for a bracket left open"),
)


REFUSED = object()
"""What ``plain`` returns for a value that is refused. In a tree, null stands in its place."""


class Tree:
    """What a YAML text says: plain data, the place of each value, and what is wrong."""

    __slots__ = ("complete", "data", "file", "marks", "problems", "refused")

    def __init__(self, file: str) -> None:
        self.file = file
        self.data: Any = None
        self.marks: dict[Path, tuple[int, int, int, int]] = {}
        """Line and column of each path's value, then of its key; from 1."""
        self.problems: list[Problem] = []
        self.refused: set[Path] = set()
        """Where null stands for a value that is refused."""
        self.complete = False
        """The text was read to its end, so that what is not in ``data`` was not written."""

    def at(self, path: Path, key: bool = False) -> tuple[str, int, int]:
        """Return file, line and column of a value, or of its key, or of what contains it."""
        while path and path not in self.marks:
            path = path[:-1]
            key = True
        mark = self.marks.get(path, (1, 1, 1, 1))
        return (self.file, *(mark[2:] if key else mark[:2]))


class _Stop(Exception):
    """Nothing behind this point can be understood."""


def parse(source: str | bytes, file: str, *, pure: bool = False) -> Tree:
    """Read one YAML document. ``pure`` takes PyYAML's own parser even where libyaml is there."""
    tree = Tree(file)
    text = _text(source, tree)
    if text is None:
        return tree
    import yaml  # type: ignore[import-untyped,unused-ignore]

    reader: Any = yaml.BaseLoader if pure else getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        loader = reader(text)
        _Reading(tree).document(loader)
        tree.complete = True
    except _Stop:
        pass
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = f"{error.context or ''} {error.problem or ''}"
        if not mark:
            _syntax(tree, 1, 1, said)
        else:
            tab = text[mark.index : mark.index + 1] == "\t"  # libyaml does not name the character
            _syntax(tree, mark.line + 1, mark.column + 1, said, _TAB if tab else "")
    except yaml.YAMLError as error:
        _syntax(tree, 1, 1, str(error))
    except RecursionError:  # only PyYAML's own parser recurses
        _syntax(tree, 1, 1, "values nested too deeply")
    return tree


def plain(value: str) -> tuple[Any, str, str]:
    """Resolve a plain scalar. Return (value, "", "") or (REFUSED, what was found, hint)."""
    if value in ("", "~", "null", "Null", "NULL"):
        return None, "", ""
    if value == "true":
        return True, "", ""
    if value == "false":
        return False, "", ""
    body = value[1:] if value[0] in "+-" else value
    if not body or body[0] not in "0123456789." or not body.isascii():
        return value, "", ""
    quote = "put it in quotes if it is text"
    if body.isdigit():
        if len(body) > 1 and body[0] == "0":
            hint = f"write {show(body.lstrip('0')) or 0} without the leading 0, or {quote}"
            return REFUSED, "a number with a leading 0", hint
        if len(body) > MAX_DIGITS:
            return REFUSED, f"a number of {len(body)} digits", quote
        return int(value), "", ""
    if body.lower() in (".inf", ".nan"):
        return REFUSED, show(value), quote
    if body[:2].lower() in ("0x", "0o", "0b") and body[2:].replace("_", "").isalnum():
        try:
            number = int(body[: MAX_DIGITS + 2], 0)
        except ValueError:
            return value, "", ""
        hint = f"write {number}, or {quote}" if len(body) <= MAX_DIGITS else quote
        return REFUSED, f"the number {show(value)}", hint
    digits = body.replace("_", "").replace(":", "").replace(".", "")
    if digits.isdigit() and ("_" in body or (":" in body and ":" not in (body[0], body[-1]))):
        return REFUSED, show(value), f"write a decimal number, or {quote}"
    if set(body) <= set("0123456789.eE+-"):
        try:
            real = float(value)
        except ValueError:
            return value, "", ""
        if real - real != 0:
            return REFUSED, "a number too large", quote
        if len(body) > 1 and body[0] == "0" and body[1].isdigit():
            return REFUSED, "a number with a leading 0", quote
        return real, "", ""
    return value, "", ""


def _text(source: str | bytes, tree: Tree) -> str | None:
    """Return the source as text that holds nothing but text, or None."""
    if len(source) > MAX_BYTES:
        _add(tree, 1, 1, (), f"at most {MAX_BYTES} bytes", "more")
        return None
    if isinstance(source, bytes):
        for bom, name in _BOMS:
            if source.startswith(bom):
                _add(tree, 1, 1, (), "UTF-8 text", name, "save the file as UTF-8")
                return None
        try:
            text = source.decode("utf-8")
        except UnicodeDecodeError as error:
            before = source[: error.start].decode("utf-8")
            byte = f"the byte 0x{source[error.start]:02x}"
            _add(tree, *_position(before), (), "UTF-8 text", byte, "save the file as UTF-8")
            return None
    else:
        text = source
    text = text.removeprefix("\ufeff")
    bad = {char for char in set(text) if char in _CONTROL or _surrogate(char)}
    if bad:
        first = min(text.index(char) for char in bad)
        code = ord(text[first])
        if 0xDC80 <= code <= 0xDCFF:  # how a byte that is no UTF-8 comes out of a file name or host
            expected, found = "UTF-8 text", f"the byte 0x{code - 0xDC00:02x}"
        elif code == 0 and text.count("\0") * 3 > len(text):
            expected, found = "UTF-8 text", "UTF-16 or UTF-32"
        else:
            expected, found = "text", f"the control character U+{code:04X}"
        _add(tree, *_position(text[:first]), (), expected, found)
        return None
    return text


def _surrogate(char: str) -> bool:
    return "\ud800" <= char <= "\udfff"


def _position(before: str) -> tuple[int, int]:
    """Return line and column of what follows ``before``."""
    before = before.replace("\r\n", "\n").replace("\r", "\n")
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


def _add(
    tree: Tree, line: int, column: int, path: Path, expected: str, found: str, hint: str = ""
) -> None:
    tree.problems.append(Problem(tree.file, line, column, path, expected, found, hint))
    if len(tree.problems) >= MAX_PROBLEMS:
        raise _Stop


def _syntax(tree: Tree, line: int, column: int, said: str, hint: str = "") -> None:
    hint = hint or next((hint for sign, hint in _HINTS if sign in said), "")
    found = show(" ".join(said.split()), 200)
    wording = f"not valid YAML: {found}"
    tree.problems.append(Problem(tree.file, line, column, (), "YAML", found, hint, wording))


class _Frame:
    """A mapping or a list that is being read."""

    __slots__ = ("container", "dropped", "kept", "key", "keyed", "keys", "path")

    def __init__(self, container: Any, path: Path, kept: bool) -> None:
        self.container = container
        self.path = path
        self.kept = kept  # False: beneath a key that is refused
        self.keys: dict[str, tuple[int, int]] = {}
        self.key: str | None = None
        self.keyed = False  # a key was read, its value is next
        self.dropped = False  # the key is refused, and its value with it


class _Reading:
    """Builds a tree out of PyYAML's events, one at a time."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.frames: list[_Frame] = []
        self.values = 0
        self.done = False
        self.key_mark = (1, 1)

    def document(self, loader: Any) -> None:
        """Read the events of the one document."""
        while True:
            event = loader.get_event()
            kind = type(event).__name__
            if kind == "StreamEndEvent":
                return
            if kind == "DocumentStartEvent":
                self.start(event)
            elif kind == "ScalarEvent":
                self.scalar(event)
            elif kind == "AliasEvent":
                if not self.key_or_value(event, REFUSED):
                    found = f"the alias *{show(event.anchor)}"
                    self.refuse(event, "a value", found, "write it out")
            elif kind in ("MappingStartEvent", "SequenceStartEvent"):
                self.open(event, {} if kind == "MappingStartEvent" else [])
            elif kind in ("MappingEndEvent", "SequenceEndEvent"):
                self.frames.pop()

    def start(self, event: Any) -> None:
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if self.done:
            _add(self.tree, line, column, (), "one YAML document", "a second one")
            raise _Stop
        self.done = True
        if event.version or event.tags:
            _add(self.tree, line, column, (), "no directives", "a line that begins with %")

    def refuse(self, event: Any, expected: str, found: str, hint: str = "") -> None:
        mark = event.start_mark
        _add(self.tree, mark.line + 1, mark.column + 1, self.place(), expected, found, hint)

    def place(self) -> Path:
        """Return the path of what was read last."""
        if not self.frames:
            return ()
        frame = self.frames[-1]
        if isinstance(frame.container, list):
            return (*frame.path, len(frame.container) - 1)
        return (*frame.path, frame.key) if frame.key is not None else frame.path

    def node(self, event: Any) -> None:
        self.values += 1
        if self.values > MAX_VALUES:
            self.refuse(event, f"at most {MAX_VALUES} values", "more")
            raise _Stop
        if event.anchor is not None:
            self.refuse(event, "a value", f"the anchor &{show(event.anchor)}", "leave it out")
        if event.tag is not None:
            self.refuse(event, "a value", f"the tag {show(event.tag)}", "leave it out")

    def scalar(self, event: Any) -> None:
        expected = "a decimal number or text"
        if not event.style:
            value, found, hint = plain(event.value)
        else:
            value, found, hint = event.value, "", ""
            if event.style == '"' and any(c in _CONTROL or _surrogate(c) for c in value):
                # An escape in double quotes can bring in what the text itself cannot hold.
                expected, found = "text without control characters", f"'{show(value)}'"
                value = REFUSED
        if event.tag is not None and not found:
            value = REFUSED
        if not self.key_or_value(event, value) and found:
            self.refuse(event, expected, found, hint)
        self.node(event)

    def open(self, event: Any, container: Any) -> None:
        frame = self.frames[-1] if self.frames else None
        if len(self.frames) >= MAX_DEPTH:
            line, column = event.start_mark.line + 1, event.start_mark.column + 1
            _add(self.tree, line, column, (), f"at most {MAX_DEPTH} levels", "more")
            raise _Stop
        if frame and isinstance(frame.container, dict) and not frame.keyed:
            self.refuse(event, "text as a key", "a mapping or a list")
            raise _Stop
        self.key_or_value(event, container)
        self.node(event)
        kept = not frame or (frame.kept and not frame.dropped)
        self.frames.append(_Frame(container, self.place(), kept))

    def key_or_value(self, event: Any, value: Any) -> bool:
        """Put ``value`` where it belongs; return True where it is a key."""
        stored = None if value is REFUSED else value
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if not self.frames:
            self.tree.data = stored
            self.tree.marks[()] = (line, column, line, column)
            return False
        frame = self.frames[-1]
        if isinstance(frame.container, list):
            frame.container.append(stored)
            self.key_mark = (line, column)
        elif not frame.keyed:
            frame.keyed = True
            self.key(frame, event, value)
            self.key_mark = (line, column)
            return True
        else:
            frame.keyed = False
            if frame.dropped or frame.key is None:
                return False
            frame.container[frame.key] = stored
        if frame.kept:
            key_line, key_column = self.key_mark
            if event.start_mark.index == event.end_mark.index and value is None:
                line, column = key_line, key_column  # an empty value is nowhere: point at its key
            self.tree.marks[self.place()] = (line, column, key_line, key_column)
            if value is REFUSED:
                self.tree.refused.add(self.place())
        return False

    def key(self, frame: _Frame, event: Any, value: Any) -> None:
        """Take a key, or refuse it and what is beneath it."""
        frame.key, frame.dropped = None, True
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        if not isinstance(value, str):
            found = "an alias" if type(event).__name__ == "AliasEvent" else show(event.value)
            self.refuse(event, "text as a key", found or "nothing", "put it in quotes")
        elif value == "<<" and not event.style:
            self.refuse(event, "a key", "the merge key <<", "write the keys out")
        elif value in frame.keys:
            frame.key = value
            first = frame.keys[value]
            problem = Problem(
                self.tree.file,
                line,
                column,
                (*frame.path, value),
                "each key once",
                f"the same key as at line {first[0]}, column {first[1]}",
                wording=f"duplicate key, first at line {first[0]}, column {first[1]}",
            )
            self.tree.problems.append(problem)
            if len(self.tree.problems) >= MAX_PROBLEMS:
                raise _Stop
        else:
            frame.keys[value] = (line, column)
            frame.key, frame.dropped = value, False
