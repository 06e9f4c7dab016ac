"""The intake in this process, over a real folder and journal, on a clock that moves only when a test moves it."""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING

from blocksd.core.core import look_once
from blocksd.core.decide import FolderView
from blocksd.core.intake import Intake
from blocksd.files.folder import Folder, Reading
from blocksd.journal.journal import Journal
from blocksd.model.faults import Faults
from blocksd.model.problem import Problems
from blocksd.model.revision import timestamp
from blocksd.state.part import Shared
from blocksd.state.schedule import Schedule
from blocksd.state.stale import is_within
from blocksd.state.state import State

if TYPE_CHECKING:
    from pathlib import Path

    from blocksd.model.problem import Problem
    from blocksd.model.revision import Revision

GRACE = 1.0
WINDOW = 5.0


class Fickle(Folder):
    """A folder that says of some files what a test wants it to."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.answers: dict[str, Reading] = {}
        self.reads: list[str] = []
        self.is_unknown = False

    def read(self, path: str, *, closed: bool) -> Reading:
        self.reads.append(path)
        return self.answers.get(path) or super().read(path, closed=closed)

    def identity(self) -> tuple[int, int] | None:
        if self.is_unknown:
            raise OSError(errno.EIO, "Input/output error")
        return super().identity()


class Looking:
    """A folder that is looked at when a test says so; what is found is journaled, as the core does."""

    def __init__(self, home: Path, kind: type[Folder] = Folder) -> None:
        self.home = home
        self.root = home / "blocks.d"
        self.root.mkdir(exist_ok=True)
        self.folder = kind(str(self.root))
        self.now = 1000.0
        self.wall = 1_800_000_000.0
        self.open()

    def open(self) -> None:
        """Start, or start again: nothing is known but what the journal holds."""
        self.journal = Journal(str(self.home / "journal.db"), boot_id="one boot")
        self.state = State(self.journal, clock=lambda: self.now)
        self.problems = Problems(lambda: self.wall)
        self.schedule = Schedule()
        faults, clock = Faults(self.problems), self.state.clock
        shared = Shared(self.journal, self.state, self.problems, faults, self.schedule, clock, time.time)
        self.intake = Intake(shared, self.folder, delete_grace=GRACE)
        self.view = FolderView(
            self.state,
            self.folder,
            self.intake,
            lambda revision, saved_at, share: is_within(WINDOW * share, revision, saved_at, self.state, time.time()),
        )

    def close(self) -> None:
        self.journal.close()

    def write(self, label: str, data: bytes | str) -> None:
        """Save a file, without a word to anyone."""
        path = self.root / f"{label}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)

    def save(self, label: str, data: bytes | str) -> list[Revision]:
        """Save a file, tell of it, and see what comes of it."""
        self.write(label, data)
        self.intake.hint_file(f"{label}.md", closed=True)
        return self.look()

    def remove(self, label: str) -> list[Revision]:
        (self.root / f"{label}.md").unlink()
        self.intake.hint_file(f"{label}.md", closed=False)
        return self.wait(GRACE * 2)

    def look(self) -> list[Revision]:
        """All that is due at this moment."""
        revisions: list[Revision] = []
        while self.intake.due <= self.now:
            revisions += self.look_once(256)
        return revisions

    def look_once(self, limit: int) -> list[Revision]:
        """Read at most so many files, and journal what they say."""
        return look_once(self.view, self.journal, limit, timestamp(self.wall))

    def wait(self, seconds: float) -> list[Revision]:
        """All that becomes due in this time."""
        revisions, end = self.look(), self.now + seconds
        while self.intake.due <= end:
            self.now = self.intake.due
            revisions += self.look()
        self.now = end
        return revisions

    def sweep(self, seconds: float = GRACE * 2) -> list[Revision]:
        """Compare the whole folder, and wait for what follows."""
        self.intake.hint_all()
        return self.wait(seconds)

    def problem(self, subject: str = "notes.md") -> Problem:
        return self.problems[subject]

    def value(self, label: str = "notes") -> str | None:
        """What is in force; None for nothing."""
        head = self.journal.head(label)
        return head.block.value if head is not None and head.block is not None else None


def happened(revisions: list[Revision]) -> list[tuple[str, str]]:
    return [(revision.kind, revision.label) for revision in revisions]


def fickle(looking: Looking) -> Fickle:
    assert isinstance(looking.folder, Fickle)
    return looking.folder


def fill(looking: Looking, count: int) -> list[str]:
    """So many blocks in force."""
    labels = [f"block-{number:03}" for number in range(count)]
    for label in labels:
        looking.write(label, f"{label}\n")
    assert happened(looking.sweep()) == [("created", label) for label in labels]
    return labels


def drop(looking: Looking, labels: list[str]) -> None:
    for label in labels:
        (looking.root / f"{label}.md").unlink()
