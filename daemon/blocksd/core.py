"""One round: what came in → revisions → effects. The only module that knows all sides; it has no threads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from blocksd.errors import JournalUnusable
from blocksd.intake import Intake
from blocksd.problem import JOURNAL, Problem
from blocksd.projector import Projector
from blocksd.revision import timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blocksd.config import Config
    from blocksd.folder import Folder
    from blocksd.journal import Journal
    from blocksd.mirror import Mirror
    from blocksd.projector import Listener

BATCH = 256
_RETRY_SECONDS = 1.0
_HISTORY_SECONDS = 86_400.0


class Core:
    """Folder → journal → mirror, one round after the other, all in one thread.

    Invariants, between two rounds:
      1. what a revision says was journaled before the mirror showed it, and shown before it was announced;
      2. `journal.seq` numbers every revision ever returned, without a gap;
      3. a file whose look was not journaled will be looked at again.
    """

    def __init__(
        self,
        folder: Folder,
        journal: Journal,
        mirror: Mirror,
        listener: Listener,
        config: Config,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._listener = listener
        self._config = config
        self._clock = clock
        self._wall = wall
        self.intake = Intake(folder, journal, delete_grace=config.delete_grace, clock=clock, wall=wall)
        self.projector = Projector(journal, self.intake, mirror, listener, clock=clock, wall=wall)
        self._sweep_at = 0.0  # the first round begins the first sweep
        self._blocked_until = 0.0
        self._root_at = 0.0
        self._touched: set[str] = set()
        self._told: dict[str, Problem] = {}
        self._told_count = 0

    @property
    def is_settled(self) -> bool:
        """Whether the folder has been swept and read, and the mirror shows it (or cannot, and that was said)."""
        intake, projector = self.intake, self.projector
        swept = intake.sweeps > 0 and not intake.is_sweeping and not intake.backlog
        return swept and not self._blocked_until and (projector.is_level or projector.last_error is not None)

    def wait_seconds(self) -> float:
        """For how long nothing needs to be done, unless something comes in."""
        due = min(self.intake.due, self.projector.due, self._sweep_at, self._root_at)
        if self._blocked_until:
            due = max(self._blocked_until, min(self.projector.due, self._blocked_until))
        return max(0.0, due - self._clock())

    def round(self) -> Iterator[str]:
        """Do what is due. Yields the name of each durable effect before it happens."""
        now = self._clock()
        if now >= self._root_at:
            self._root_at = now + _RETRY_SECONDS
            self.intake.check_root()
        if now >= self._sweep_at:
            self._begin_sweep(now)
        if now >= self._blocked_until:
            yield from self._take_in()
        self._tell_problems()
        yield "mirror"
        self.projector.step(more_follows=self.intake.backlog > 0)

    def _take_in(self) -> Iterator[str]:
        try:
            findings = self.intake.look(BATCH)
            if findings:
                yield "journal"
                self._journal.append(findings.revisions, findings.files)
        except JournalUnusable as error:
            self._be_blocked(error)
            return
        if self._blocked_until:
            self._blocked_until = 0.0
            self.intake.remove_problem(JOURNAL)
        if findings.revisions or self.projector.has_aside:
            yield "project"
            self.projector.project(findings.revisions)
        for revision in findings.revisions:
            self._touched.add(revision.label)
            self._listener.on_revision(revision)

    def _be_blocked(self, error: JournalUnusable) -> None:
        """Nothing can be journaled for now, so nothing is taken in: begin again from what the journal has."""
        now = self._clock()
        self._blocked_until = now + _RETRY_SECONDS
        self._sweep_at = self._blocked_until
        self.intake.load()
        self.intake.set_problem(
            Problem(
                JOURNAL, error.code, error.message, "free some space, or mend the state directory; it is tried again"
            )
        )

    def _begin_sweep(self, now: float) -> None:
        self._sweep_at = now + self._config.resync_seconds
        if not self.intake.is_sweeping:
            self.intake.hint_all()
        self.projector.verify()
        if self._touched:
            days = self._config.history_days
            before = timestamp(self._wall() - days * _HISTORY_SECONDS) if days else None
            self._journal.prune(self._touched, versions=self._config.history_versions, before=before)
            self._touched.clear()

    def idle(self) -> None:
        """Use a moment in which nothing is due."""
        self._journal.checkpoint()

    def _tell_problems(self) -> None:
        if self._told_count == self.intake.problem_changes:
            return
        self._told_count = self.intake.problem_changes
        told, self._told = self._told, dict(self.intake.problems)
        for subject in sorted(told.keys() | self._told.keys()):
            problem = self._told.get(subject)
            if problem is None:
                self._listener.on_cleared(told[subject])
            elif problem != told.get(subject):
                self._listener.on_problem(problem)

    def close(self) -> None:
        """Stop in good order: the lease given up, the journal closed."""
        self.projector.close()
        self._journal.close()
