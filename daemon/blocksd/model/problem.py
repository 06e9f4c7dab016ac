"""`Problem`: why a file is not in force, in words a person can act on, and its JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from blocksd.model.label import name_for_agent, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from blocksd.errors import BlocksdError


@dataclass(frozen=True, slots=True)
class Warned:
    """Something odd in a file that is in force all the same."""

    message: str
    line: int | None
    hint: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with one file, or with the folder as a whole.

    `subject` is what it is about and the key it is stored under: a path below the folder, or one of the words in
    angle brackets that no file can be called (`<config>`, `<folder>`, `<journal>`, `<history>`, `<watcher>`, `<inbox>`,
    `<server>`, `<internal>`, `<temporaries>`, `<kept>`).
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
HISTORY = "<history>"
WATCHER = "<watcher>"
INBOX = "<inbox>"
SERVER = "<server>"
INTERNAL = "<internal>"
LEFT = "<temporaries>"
KEPT = "<kept>"


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


def warning_of(path: str, label: str, warnings: Sequence[Warned]) -> Problem:
    """What is odd in a file that is in force all the same: at least one thing."""
    first = warnings[0]
    message = "; ".join(warning.message for warning in warnings[:5])
    return Problem(printable(path), "warning", message, first.hint, label, first.line, warning=True)


def label_conflict(path: str, label: str, holder: str) -> Problem:
    """A file that would say a label which another file says."""
    message = f"its label {label!r} is taken by {printable(holder)}"
    return Problem(printable(path), "label_conflict", message, "rename one of the two", label)


def name_conflict(label: str, agents: Iterable[str]) -> Problem:
    """A block that these agents cannot have, since they see another under its name: a problem under its label."""
    names = sorted(agents)
    some = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    message = (
        f"not attached to {some}: another block is attached there as {name_for_agent(label)!r} (unique constraint)"
    )
    hint = "rename one of the two blocks, or take the agent out of 'agents'"
    return Problem(label, "name_conflict", message, hint, label, warning=True)


def unmerged_subject(label: str) -> str:
    """Under which word it is shown that a save of a block waits to be merged."""
    return f"merge {printable(label)}"


def unmerged(label: str, error: BlocksdError) -> Problem:
    """A save of an old text that cannot be put together with what was written before it: its file cannot be written."""
    return Problem(
        unmerged_subject(label),
        "unmerged",
        f"a save of {label!r} took away what was written before it, and cannot be merged with it yet: {error.message}",
        "let the daemon write the file; it is tried again, less and less often",
        label,
        warning=True,
    )
