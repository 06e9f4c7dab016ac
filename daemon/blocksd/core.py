"""One round: what came in → revisions → effects. The only module that knows all sides; it has no threads."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from blocksd.errors import BlocksdError, JournalUnusable, Unavailable
from blocksd.inbox import Answer, Inbox, Unusable, accepted, parse, refused
from blocksd.intake import Intake
from blocksd.journal import Access
from blocksd.label import parse_agent
from blocksd.problem import JOURNAL, Problem
from blocksd.projector import Projector
from blocksd.revision import OPERATOR, timestamp
from blocksd.sources import Sources

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from blocksd.config import Config
    from blocksd.folder import Folder
    from blocksd.inbox import Request
    from blocksd.journal import Journal
    from blocksd.mirror import Mirror
    from blocksd.projector import Listener

BATCH = 256
REQUESTS = 64
"""How many requests are carried out between two looks at the folder: each may have to read a file."""

OUTCOMES_KEPT_SECONDS = 86_400.0
"""For how long a request that is sent again gets the first outcome."""

_RETRY_SECONDS = 1.0
_HISTORY_SECONDS = 86_400.0


class Core:
    """Folder, sources and requests → journal → mirror → replies, one round after the other, all in one thread.

    Invariants, between two rounds:
      1. what a revision says was journaled before the mirror showed it, and shown before it was announced;
      2. `journal.seq` numbers every revision ever returned, without a gap;
      3. a file whose look was not journaled will be looked at again;
      4. a request is in its inbox until its outcome was journaled, shown and replied.
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
        self.sources = Sources(config.sources, self.intake, journal.open_files(), clock=clock)
        self.inbox = Inbox()
        self.projector = Projector(journal, self.intake, self.sources, mirror, listener, clock=clock, wall=wall)
        self.dropped: list[Unusable] = []  # what came in and could not be replied to, for a log
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
        looked = swept and self.sources.is_settled
        return looked and not self._blocked_until and (projector.is_level or projector.last_error is not None)

    def wait_seconds(self) -> float:
        """For how long nothing needs to be done, unless something comes in."""
        if self.inbox.is_waiting:
            due = 0.0
        else:
            due = min(self.intake.due, self.sources.due, self.projector.due, self._sweep_at, self._root_at)
        if self._blocked_until:
            due = max(self._blocked_until, min(self.projector.due, self._blocked_until))
        return max(0.0, due - self._clock())

    def round(self) -> Iterator[str]:
        """Do what is due. Yields the name of each durable effect before it happens."""
        now = self._clock()
        if now >= self._root_at:
            self._root_at = now + _RETRY_SECONDS
            self.intake.check_root()
            self.sources.check_roots()
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
        self.sources.look()
        answers = (yield from self._carry_out()) if self.inbox.is_waiting else []
        if findings.revisions or answers or self.projector.has_aside:
            yield "project"
            self.projector.project(findings.revisions, answers)
            if answers and self.projector.is_level:
                self.inbox.done()
            elif answers:
                self.inbox.begin_again()
        for revision in findings.revisions:
            self._touched.add(revision.label)
            self._listener.on_revision(revision)

    def _carry_out(self) -> Generator[str, None, list[Answer]]:
        """Do what was asked for, and journal it; what to reply."""
        if not self.projector.is_level:  # another daemon may be in charge of the namespace
            self.inbox.begin_again()
            return []
        now = self._wall()
        answers: list[Answer] = []
        outcomes: dict[tuple[str, str], str] = {}
        accesses: list[Access] = []
        try:
            for entry in self.inbox.take(REQUESTS):
                request = parse(entry)
                if isinstance(request, Unusable):
                    answers.append(self._answer_unusable(request))
                    continue
                key = (request.actor, request.id)
                outcome = outcomes.get(key) or self._journal.outcome(*key)
                if outcome is None:
                    try:
                        request.check_deadline(now)
                        access = self._access(request, timestamp(now))
                        accesses.append(access)
                        outcome = accepted(request.id, **access.as_json())
                        outcomes[key] = outcome
                    except BlocksdError as error:
                        outcome = refused(request.id, error)
                        if not isinstance(error, Unavailable):  # which may pass, and is worth another try
                            outcomes[key] = outcome
                answers.append(Answer(entry, request.id, outcome))
            if outcomes:
                yield "requests"
                self._journal.settle(accesses, outcomes, timestamp(now))
        except JournalUnusable as error:
            self._be_blocked(error)
            self.inbox.begin_again()
            return []
        self.sources.apply(accesses)
        return answers

    def _answer_unusable(self, unusable: Unusable) -> Answer:
        if unusable.id is None:
            self.dropped.append(unusable)
            return Answer(unusable.entry, None, None)
        return Answer(unusable.entry, unusable.id, refused(unusable.id, unusable.error))

    def _access(self, request: Request, at: str) -> Access:
        """What a request does to open files, if it may."""
        if request.actor == OPERATOR:
            agent, file = request.texts("agent", "file")
            agent = parse_agent(agent)
        else:
            agent, (file,) = request.actor, request.texts("file")
        if request.op == "close_file":
            self.sources.check_close(agent, file)
            return Access(agent, file, None)
        self.sources.check_open(agent, file)
        return Access(agent, file, at)

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
        self.sources.hint_all()
        self.projector.verify()
        self._journal.forget_requests(timestamp(self._wall() - OUTCOMES_KEPT_SECONDS))
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
