"""The project's text is plain English: a list of words and phrases that it avoids, each with what to write instead."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from typing import TYPE_CHECKING

import pytest

from fenced import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PATHS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "daemon/docs", "daemon/blocksd", "systemd/README.md")
"""Files, and directories whose Markdown and Python files are read."""

UNCHANGED = ("daemon/blocksd/journal/schema.py",)
"""The statements by which earlier journals were made: their comments are part of them."""

BANNED = {
    r"mend(s|ed|ing)?": "repair",
    r"whoever": "name who it is",
    r"somebody('s)?": "another process, or a person",
    r"in vain": "without success",
    r"by now": "already, or nothing",
    r"of (its|their|our|your|her|his) own": "its own …, or separate",
    r"in (the )?charge of": "responsible for, or serves",
    r"(it|he|she|they|who) (is|are) told": "name who tells what to whom",
    r"(is|was|be|are|were|gets?|again|kept|keeps?|not|goes|went|Redis) away(?! (from|with)\b)": "unreachable, or gone",
    r"(is|was|be|are|were|again|kept|keeps?|not|mirror) level": "in sync",
    r"stands? back": "wait",
}
"""Patterns, in any case, and what to write instead."""

_OPENING = re.compile(r"(What (is|was|a)|Whether)\b")
_GAP = r"[\s#*>]+"  # a phrase may go on in the next line, also in a comment
_PATTERNS = {re.compile(rf"\b{words.replace(' ', _GAP)}\b", re.IGNORECASE): advice for words, advice in BANNED.items()}


def found_in(text: str) -> Iterator[str]:
    """Yield each banned phrase of a text, with its line and what to write instead."""
    for pattern, advice in _PATTERNS.items():
        for found in pattern.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield f"{line}: {' '.join(found[0].split())!r} → {advice}"


def found_in_program(text: str) -> Iterator[str]:
    """Yield the same for comments and texts of Python code, and each docstring that opens like a clause."""
    prose = [" " * len(line) for line in text.splitlines()]
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)):
            for offset, line in enumerate(token.string.split("\n")):
                prose[token.start[0] - 1 + offset] += f" {line}"
    yield from found_in("\n".join(prose))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node)
            if docstring is not None and (opening := _OPENING.match(docstring)):
                yield f"{getattr(node, 'lineno', 1)}: a docstring begins with {opening[0]!r} → a verb or a noun"


def files() -> list[Path]:
    """All files of `PATHS`."""
    found: list[Path] = []
    for path in (ROOT / name for name in PATHS):
        found += [path] if path.is_file() else sorted([*path.rglob("*.md"), *path.rglob("*.py")])
    return [path for path in found if str(path.relative_to(ROOT)) not in UNCHANGED]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_text_is_plain(path: Path) -> None:
    """No banned word or phrase is in it; in a program, that is in its comments and texts."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        assert list(found_in_program(text)) == []
        return
    assert list(found_in(text)) == []
    for program in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        assert list(found_in_program(program)) == []


@pytest.mark.parametrize(
    "text",
    [
        "The daemon mends the mirror.",
        "Whoever writes must wait.",
        "Somebody's save is kept.",
        "Tried in\nvain.",
        "It may be read by now.",
        "It starts a server of its\n  own.",
        "The daemon in the charge of it.",
        "Then it is told so.",
        "While Redis is away, it waits.",
        "The mirror is level\nagain.",
        "A second daemon stands back.",
    ],
)
def test_banned_phrase_is_found(text: str) -> None:
    """In a document, in a comment and in a docstring; also where it goes over the end of a line."""
    assert len(list(found_in(text))) == 1
    comment = "".join(f"# {line}\n" for line in text.splitlines())
    assert len(list(found_in_program(f"{comment}x = 1\n"))) == 1
    assert len(list(found_in_program(f'def f():\n    """{text}"""\n'))) == 1


def test_words_with_another_sense_are_allowed() -> None:
    """A log level, taking something away, and names in code."""
    assert list(found_in("Set log_level; the level of the log. It takes this away. Run it right away.")) == []
    assert list(found_in_program("mend = whoever = 1\n")) == []


@pytest.mark.parametrize("opening", ["What is kept.", "What was kept.", "What a file says.", "Whether it is kept."])
def test_docstring_that_begins_with_a_clause_is_found(opening: str) -> None:
    """It says neither what the function does nor what the class is."""
    assert len(list(found_in_program(f'class A:\n    """{opening}"""\n'))) == 1
