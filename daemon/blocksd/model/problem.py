"""Problems: why a file, or part of the system, is not in force, in words a person can act on; and all that are known."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from blocksd.model.label import name_for_agent, printable
from blocksd.model.proposal import proposed_path
from blocksd.model.revision import MERGE, timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from blocksd.errors import BlocksdError
    from blocksd.model.revision import Revision


_MOST_TOLD = 8  # things that are told of one file

CONFIG = "<config>"
FOLDER = "<folder>"
NAMES = "<names>"
JOURNAL = "<journal>"
HISTORY = "<history>"
WATCHER = "<watcher>"
INBOX = "<inbox>"
SERVER = "<server>"
GATEWAY = "<gateway>"
INTERNAL = "<internal>"
LEFT = "<temporaries>"
KEPT = "<kept>"


@dataclass(frozen=True, slots=True)
class Warned:
    """One thing that is told of a file, and what to do about it: a warning, or an error among others."""

    message: str
    line: int | None
    hint: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with one file, or with the folder as a whole.

    `subject` is its key: a path below the folder, or one of the words in angle brackets below, which no file can have.
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
        """Return True if nothing but the time is different: the same problem is not announced again."""
        return other is not None and replace(self, since=other.since) == other

    def as_json(self) -> dict[str, Any]:
        """Return the problem as it stands in the mirror and travels on the channel."""
        return asdict(self)

    def dumps(self) -> str:
        return json.dumps(self.as_json(), ensure_ascii=False)

    def sentence(self) -> str:
        """Return one line for a log or a terminal."""
        place = f"{self.subject}:{self.line}" if self.line else self.subject
        return f"{place}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class Tally(NamedTuple):
    """The number of problems and of warnings, as every command, log line and metric counts them.

    A problem keeps a file, or a part of the system, from being in force; a warning does not. What stands under one subject
    counts once: all errors of one file, and all files of one kind that are told together.
    """

    problems: int
    warnings: int


def tally(are_warnings: Iterable[bool]) -> Tally:
    """Count things that are wrong, each of which is a warning or a problem."""
    found = list(are_warnings)
    warnings = sum(found)
    return Tally(len(found) - warnings, warnings)


class Problems(Mapping[str, Problem]):
    """The problems that are known, by subject, and how often that has changed."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._known: dict[str, Problem] = {}
        self.subjects = self._known.keys()
        self.changes = 0  # how often anything has changed
        self._tally: Tally | None = None

    def __getitem__(self, subject: str) -> Problem:
        return self._known[subject]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def __repr__(self) -> str:
        return f"Problems({self._known!r})"

    @property
    def tally(self) -> Tally:
        """How many there are."""
        if self._tally is None:
            self._tally = tally(problem.warning for problem in self._known.values())
        return self._tally

    def copy(self) -> dict[str, Problem]:
        """Return the problems of this moment, to compare with later."""
        return self._known.copy()

    def set(self, problem: Problem) -> None:
        """Add or replace a problem; the same again changes nothing."""
        known = self._known.get(problem.subject)
        if not problem.same_as(known):
            since = known.since if known is not None else timestamp(self._wall())
            self._known[problem.subject] = replace(problem, since=since)
            self._note_change()

    def remove(self, subject: str) -> None:
        """Remove the problem with this subject, if there is one."""
        removed = self._known.pop(subject, None)
        if removed is not None:
            self._note_change()

    def _note_change(self) -> None:
        self.changes += 1
        self._tally = None


def problem_of(path: str, error: BlocksdError, *, label: str | None = None) -> Problem:
    """Return the problem for an error in reading a file."""
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
    """Return the problem for warnings, at least one, about a file that is in force."""
    told = together(warnings)
    return Problem(printable(path), "warning", told.message, told.hint, label, told.line, warning=True)


def together(parts: Sequence[Warned]) -> Warned:
    """Return what is said of a file, at least one thing, as one: each with its line and hint, so that a sentence reads well."""
    *shown, last = parts[:_MOST_TOLD]
    if len(parts) > _MOST_TOLD:
        shown, last = [*shown, last], Warned(f"and {len(parts) - _MOST_TOLD} more", None, "correct these first")
    message = ""
    for part in shown:
        message += f"{_place(part, message)}{part.message}" + (f" ({part.hint}); " if part.hint else "; ")
    return Warned(f"{message}{_place(last, message)}{last.message}", parts[0].line, last.hint)


def _place(part: Warned, before: str) -> str:
    """Return the line of a part, unless it is the first: that is the line of all."""
    return f"line {part.line}: " if part.line and before else ""


def count(number: int, noun: str) -> str:
    """Return a number with what it counts: `1 file`, `2 files`, `2 directories`."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("ry") else f"{number} {noun}s"


def misnamed(paths: Collection[str]) -> Problem:
    """Return the problem of Markdown files, at least one, that are no blocks for their names alone."""
    few = sorted(paths)[:3]
    some = ", ".join(map(printable, few)) + (", …" if len(paths) > len(few) else "")
    what = "1 Markdown file is no block" if len(paths) == 1 else f"{len(paths)} Markdown files are no blocks"
    message = f"{what}, since only names that end in '.md' are: {some}"
    proposed = next(filter(None, map(proposed_path, few)), None)
    hint = f"rename what is a block, for example to '{printable(proposed)}'" if proposed else "rename what is a block"
    return Problem(NAMES, "warning", message, hint, warning=True)


def label_conflict(path: str, label: str, holder: str) -> Problem:
    """Return the problem of a file whose label another file has."""
    message = f"its label {label!r} is taken by {printable(holder)}"
    return Problem(printable(path), "label_conflict", message, "rename one of the two", label)


def name_conflict(label: str, agents: Iterable[str]) -> Problem:
    """Return the problem of a block that these agents cannot have, since they see another one under its name."""
    names = sorted(agents)
    some = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
    message = f"Unique constraint violation: not attached to {some}, which has another block {name_for_agent(label)!r} already"
    hint = "rename one of the two blocks, or take the agent out of 'agents'"
    return Problem(label, "name_conflict", message, hint, label, warning=True)


def unmerged_subject(label: str) -> str:
    """Return the subject of the problem that a save of a block waits to be merged."""
    return f"merge {printable(label)}"


def unmerged(label: str, error: BlocksdError) -> Problem:
    """Return the problem of a stale save that cannot be merged with what was written before it, for want of its file."""
    return Problem(
        unmerged_subject(label),
        "unmerged",
        f"a save of {label!r} took away what was written before it, and cannot be merged with it yet: {error.message}",
        "let the daemon write the file; it is tried again, less and less often",
        label,
        warning=True,
    )


def left_behind(left: Mapping[str, str]) -> Problem:
    """Return the problem of temporaries of ours, at least one, that cannot be removed: path → why."""
    path, why = min(left.items())
    message = f"{count(len(left), 'temporary file')} cannot be removed: {printable(path)} ({why})"
    hint = "see that the daemon's user may write there; it is tried again at every resync"
    return Problem(LEFT, "left", message, hint, warning=True)


def kept_aside(files: Sequence[tuple[str, str]]) -> Problem:
    """Return the problem of files, at least one, that lie aside and may be saves: path, and that of the block's file."""
    where, place = map(printable, files[0])
    message = f"{where} may be a save to {place} that came late, and cannot be put back for now"
    if len(files) > 1:
        message = f"{message}; there are {len(files)} such files"
    hint = "it is kept, and tried again; take from it what is wanted, and remove it"
    return Problem(KEPT, "kept", message, hint, warning=True)


def reverted(revision: Revision) -> Problem:
    """Return the problem that a save, which stands or was merged, took away what others had written on request.

    The change of a stale save, which was to be merged, names no versions: then the command must.
    """
    label, version, reverts = revision.label, revision.version, revision.reverts
    command = f"blocksd merge {shlex.quote(label)}" + (f" {reverts[-1]}" if revision.stale_base is not None else "")
    names = f"version {reverts[0]}" if len(reverts) == 1 else f"versions {', '.join(map(str, reverts))}"
    return Problem(
        unmerged_subject(label),
        "reverted",
        f"{'a merge' if revision.author == MERGE else 'a save'}, version {version} of {label!r}, took away text of {names}",
        f"to bring it back: {command}",
        label,
        warning=True,
    )
