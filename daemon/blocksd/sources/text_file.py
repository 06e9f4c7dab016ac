"""Values about the text files of sources: facts, contents, and what the mirror does not show yet."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from blocksd.files.document import normalize_newlines
from blocksd.model.label import is_ignored
from blocksd.model.revision import timestamp

if TYPE_CHECKING:
    from blocksd.files.folder import Signature
    from blocksd.settings.config import SourceSettings


class Facts(NamedTuple):
    """The facts about a text file. `signature` is None while it proves nothing."""

    signature: Signature | None
    size: int
    mtime_ns: int

    @property
    def updated_at(self) -> str:
        return timestamp(self.mtime_ns / 1e9)

    def dumps(self) -> str:
        """Return the file's entry in the mirror's list."""
        return json.dumps({"bytes": self.size, "updated_at": self.updated_at})


@dataclass(frozen=True, slots=True)
class Seen:
    """The result of reading one path: a text file, or, without `facts`, none.

    `is_news`: the list did not have it, or had other facts.
    """

    path: str
    is_news: bool
    facts: Facts | None = None
    text: str = ""


@dataclass(slots=True)
class Unshown:
    """Changes that the mirror does not show yet: where they are, and the value before where that matters."""

    configured: set[str] = field(default_factory=set)  # sources that are new, or have other settings now
    files: dict[str, set[str]] = field(default_factory=dict)  # source → paths that came, changed or went
    agents: dict[str, frozenset[str]] = field(default_factory=dict)  # source → agents that saw it
    accesses: dict[tuple[str, str], str | None] = field(default_factory=dict)  # agent, file → `opened_at`
    contents: set[str] = field(default_factory=set)  # files
    # Sources that were scanned for the first time, or are not served any more.
    listed: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return any((self.configured, self.files, self.agents, self.accesses, self.contents, self.listed))


def is_path(path: str) -> bool:
    """Return True if a listed file may have this path: printable, without a hidden segment or `..`."""
    return path.isprintable() and all(segment and not is_ignored(segment) for segment in path.split("/"))


def source_of(file: str) -> str:
    """Return the source of a file named `<source>/<path>`."""
    return file.partition("/")[0]


def content_of(settings: SourceSettings, path: str, facts: Facts, text: str) -> dict[str, str]:
    """Return an open file as the mirror shows it."""
    value = normalize_newlines(text)
    return {
        "value": value[: settings.limit],
        "chars": str(len(value)),
        "limit": str(settings.limit),
        "source": settings.name,
        "path": path,
        "updated_at": facts.updated_at,
    }
