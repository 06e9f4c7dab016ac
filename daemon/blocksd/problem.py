"""`Problem`: why a file is not in force, in words a person can act on, and its JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from blocksd.label import printable

if TYPE_CHECKING:
    from blocksd.errors import BlocksdError


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with one file, or with the folder as a whole.

    `subject` is what it is about and the key it is stored under: a path below the folder, or one of the words in
    angle brackets that no file can be called (`<config>`, `<folder>`, `<journal>`, `<watcher>`, `<inbox>`, `<server>`).
    `code` is stable, `message` says what is wrong, `hint` what to do, `line` counts from 1. `since` is when it was first
    seen (RFC 3339, UTC). A `warning` does not keep the file from being in force.
    """

    subject: str
    code: str
    message: str
    hint: str = ""
    label: str | None = None
    line: int | None = None
    warning: bool = False
    since: str = ""

    def same_as(self, other: Problem | None) -> bool:
        """Whether nothing has changed but the time: what was said once is not said again."""
        return other is not None and replace(self, since=other.since) == other

    def as_json(self) -> dict[str, Any]:
        """The problem as it stands in the mirror and travels on the channel."""
        return asdict(self)

    def dumps(self) -> str:
        return json.dumps(self.as_json(), ensure_ascii=False)

    def sentence(self) -> str:
        """One line for a log or a terminal."""
        place = f"{self.subject}:{self.line}" if self.line else self.subject
        return f"{place}: {self.message}" + (f" ({self.hint})" if self.hint else "")


CONFIG = "<config>"
FOLDER = "<folder>"
JOURNAL = "<journal>"
WATCHER = "<watcher>"
INBOX = "<inbox>"
SERVER = "<server>"


def problem_of(path: str, error: BlocksdError, *, label: str | None = None) -> Problem:
    """The problem an error in reading a file makes."""
    line = error.facts.get("line")
    return Problem(
        subject=printable(path),
        code=error.code,
        message=error.message,
        hint=str(error.facts.get("hint", "")),
        label=label,
        line=line if isinstance(line, int) else None,
    )
