"""Reads a settings file in TOML, with the line of each key."""

from __future__ import annotations

import re
import tomllib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blocksd.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLOSING = ("]", "}", '"""', "'''")
"""A value that goes on over several lines ends on one that has one of these."""


class SettingsFile:
    """A TOML file that was read; `content` holds its tables and keys."""

    def __init__(self, path: str) -> None:
        """Read it.

        Raise Misconfigured if it cannot be read, or is not TOML; the message names the place as `file:line:column`.
        """
        self.path = path
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise Misconfigured(f"{path} cannot be read: {error.strerror}", key="config") from None
        try:
            self._text = data.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise Misconfigured(f"{path}:{line} is not TOML: it is not UTF-8", key="config") from None
        try:
            self.content: dict[str, Any] = tomllib.loads(self._text)
        except tomllib.TOMLDecodeError as error:
            what, line, column = _place(str(error), self._text)
            raise Misconfigured(f"{path}:{line}:{column} is not TOML: {what}", key="config") from None
        except (ValueError, RecursionError):  # a number of thousands of digits, thousands of brackets
            raise Misconfigured(f"{path} is not TOML: something in it is beyond all measure", key="config") from None

    def place(self, *keys: str) -> str:
        """Return the place where a key, or the first of a table's, is set: `file:line`, where the statement begins."""
        return f"{self.path}:{self._lines[keys]}"

    @cached_property
    def _lines(self) -> dict[tuple[str, ...], int]:
        """The line of every key, by its path through the tables."""
        lines: dict[tuple[str, ...], int] = {}
        table: tuple[str, ...] = ()
        for line, statement in _statements(self._text):
            paths = list(_paths(tomllib.loads(statement)))
            if statement.lstrip().startswith("["):
                table = paths[-1]
            else:
                paths = [table + path for path in paths]
            for path in paths:
                lines.setdefault(path, line)
        return lines


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield each header and each key with its value, and the line on which it begins; one without an end is the last."""
    begun: list[str] = []
    first = 0
    for number, line in enumerate(text.split("\n"), start=1):
        if not begun:
            if not line.strip(" \t") or line.lstrip(" \t").startswith("#"):
                continue
            first = number
        begun.append(line)
        # As long as a value is not closed, what there is of it is no TOML; once it is, nothing can follow it.
        if (first == number or any(mark in line for mark in _CLOSING)) and _is_whole("\n".join(begun)):
            yield first, "\n".join(begun)
            begun.clear()
    if begun:
        yield first, "\n".join(begun)


def _is_whole(statement: str) -> bool:
    try:
        tomllib.loads(statement)
    except tomllib.TOMLDecodeError:
        return False
    return True


def _paths(table: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the paths of all keys in a table and those below it; of a header, the whole path is the last."""
    for key, value in table.items():
        yield (key,)
        below = value[-1] if isinstance(value, list) and value and isinstance(value[-1], dict) else value
        if isinstance(below, dict):
            for path in _paths(below):
                yield (key, *path)


def _place(message: str, text: str) -> tuple[str, int, int]:
    """Return the message of a decoder's error, and its place: line and column from 1.

    Of a value that is not closed it only knows that the file ends: then the place is where its statement begins.
    """
    found = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    if found is not None:
        return message[: found.start()], int(found[1]), int(found[2])
    *_, (line, statement) = _statements(text)
    return message.removesuffix(" (at end of document)"), line, len(statement) - len(statement.lstrip()) + 1
