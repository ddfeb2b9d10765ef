# SPDX-License-Identifier: Apache-2.0
"""Judges prose: words that we say otherwise, and sentences that are too long.

Code, tables' cells in code, comments and the targets of links are no prose. What is generated is
judged where it comes from.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tools.docs.generate import PART, ROOT, pages

LONGEST = 35
"""Words of a sentence."""

INSTEAD = {
    r"whoever": "who, or anyone who",
    r"mend(s|ed|ing)?": "fix",
    r"hands? off the host": "no longer manages the host",
    r"hand is off": "no longer manages",
    r"glances?|glanced": "look, poll",
    r"apart from": "except",
    r"believes? every write": "does not validate writes",
    r"told": "name who reports what",
    r"beside": "with, next to, while, compared with",
    r"nobody knows": "it is not known",
    r"so that it is it that": "nothing",
    r"by the way": "nothing",
    r"turned? round": "undo, reverse",
    r"in need": "in an emergency",
    r"let go of": "release, give back",
    r"utili[sz]e[sd]?": "use",
    r"in order to": "to",
    r"very|really|just|simply|easily|obviously": "nothing",
}
"""A pattern for words, and what we say."""

_CODE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_SPAN = re.compile(r"``?[^`]+``?")
_LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
_ABBREVIATED = re.compile(r"\b(e\.g|i\.e|etc|vs)\.")
_END = re.compile(r"(?<=[.!?])[\"')*]*\s+|;\s+")


def judged() -> dict[str, str]:
    """Return the text of every page for people, by its path from the repository's root."""
    others = ("kernel-src", "packaging", "emulator")
    found = [
        *pages(),
        *(ROOT / folder / "README.md" for folder in others),
    ]
    return {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in found}


def docstrings() -> dict[str, str]:
    """Return the docstrings of the agent, of attributes too, by file and line."""
    found = {}
    for path in sorted((ROOT / "agent/dsatier").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                place = f"{path.relative_to(ROOT).as_posix()}:{node.lineno}"
                found[place] = str(node.value.value)
    return found


def paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs, items and cells of a page, without code."""
    text = PART.sub("", text)
    text = _COMMENT.sub("", _CODE.sub("\n", text))
    text = _LINK.sub(r"\1", _SPAN.sub("CODE", text))
    for block in re.split(r"\n\s*\n|\n(?= *(?:[-*]|\d+\.) )|\n(?=#)|\n(?=\|)", text):
        cells = block.split(" | ") if block.startswith("|") else [block]
        yield from (" ".join(cell.strip("|- #*\n").split()) for cell in cells)


def sentences(paragraph: str) -> list[str]:
    """Return the sentences of a paragraph; a semicolon ends one, too."""
    return _END.split(_ABBREVIATED.sub(r"\1", paragraph))


def findings(text: str) -> Iterator[str]:
    """Yield what is wrong with a page."""
    for paragraph in paragraphs(text):
        for sentence in sentences(paragraph):
            count = len(sentence.split())
            if count > LONGEST:
                yield f"{count} words, at most {LONGEST}: {sentence}"
        for pattern, instead in INSTEAD.items():
            for found in re.finditer(rf"\b(?:{pattern})\b", paragraph, re.IGNORECASE):
                near = paragraph[max(0, found.start() - 40) :][:90]
                yield f"{found[0]!r}: say {instead!r}: … {near}"


def main() -> None:
    """Print the findings of all pages."""
    for name, text in judged().items():
        for finding in findings(text):
            print(f"{name}: {finding}")


if __name__ == "__main__":
    main()
