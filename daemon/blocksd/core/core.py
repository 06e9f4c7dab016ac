"""One round: what came in → revisions → effects. The only module that knows all sides; it has no threads."""

from __future__ import annotations

import logging
import sqlite3
import time
from typing import TYPE_CHECKING

from blocksd.core.executor import Clerk, Work
from blocksd.core.intake import Intake
from blocksd.core.projector import Projector
from blocksd.core.recovery import recover
from blocksd.core.retention import Limits, Retention
from blocksd.core.scrub import Scrub
from blocksd.errors import BlocksdError, JournalDamaged, JournalUnusable, LeaseLost, ProblemFile, Unavailable
from blocksd.files.writer import Writer
from blocksd.journal.intents import Pending
from blocksd.journal.rescue import HINT, Rescue
from blocksd.journal.results import Outcomes
from blocksd.model.faults import Faults
from blocksd.model.label import printable
from blocksd.model.problem import JOURNAL, LEFT, SERVER, Problem
from blocksd.model.problems import Problems
from blocksd.model.revision import OPERATOR, timestamp
from blocksd.requests.handled import Spent
from blocksd.requests.inbox import Inbox
from blocksd.requests.started import Begun
from blocksd.requests.workspace import Desk
from blocksd.sources.sources import Sources
from blocksd.state.state import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from blocksd.core.projector import Listener
    from blocksd.files.folder import Folder
    from blocksd.journal.journal import Journal
    from blocksd.mirror.mirror import Mirror
    from blocksd.model.faults import Fault
    from blocksd.model.revision import Revision
    from blocksd.requests.reply import Answer
    from blocksd.settings.config import Config

BATCH = 256
OUTCOMES_KEPT_SECONDS = 86_400.0
"""For how long a request that is sent again gets the first outcome, at least; the newest of each actor do for longer."""

_RETRY_SECONDS = 1.0
_DOUBT_SECONDS = 5.0  # for which a symlink on the path of a file that was being written is waited for to go
_CALM_SECONDS = 2.0  # after which a journal that had nothing to take counts as mended
_SPACE_HINT = "free some space, or make the state directory writable; it is retried"
_FOLDER_HINT = "see that the folder is there and can be written; it is retried"

_log = logging.getLogger(__name__)


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
        listeners: Sequence[Listener],
        config: Config,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._listeners = listeners
        self._config = config
        self._clock = clock
        self._wall = wall
        self.rescue = Rescue(journal, clock=clock)
        self._sweep_at = 0.0  # the first round begins the first sweep
        self._blocked_until = 0.0
        self._mended_at = 0.0  # when a journal that took nothing counts as mended if nothing is left for it; 0: it is
        self._root_at = 0.0
        self._sent: list[tuple[Answer, float]] = []  # replies, and when what they reply to was received
        self._told: dict[str, Problem] = {}
        self._told_count = 0
        self._must_reload = False  # what is in memory is not what the journal has
        self._doubt_since: float | None = None  # since when it cannot be told what was done to files
        self._stages: dict[str, _Stage] = {}
        self._logged: dict[str, str] = {}  # stage → the error of it that was logged last
        self.unexpected: Exception | None = None  # the last error that nobody foresaw
        try:
            self._make_parts(folder, mirror)
        except JournalDamaged as error:
            self.rescue.note(error)
            self.rescue.attempt()
            mirror.epoch = journal.epoch
            self._make_parts(folder, mirror)

    def _make_parts(self, folder: Folder, mirror: Mirror) -> None:
        """Make what the core consists of, from what the journal holds."""
        journal, config, clock, wall = self._journal, self._config, self._clock, self._wall
        writer = Writer(folder.directory, is_durable=config.durability == "disk")
        pending = Pending(journal)
        blocked: BlocksdError | None = None
        try:
            recover(pending, writer, is_patient=True)
        except JournalDamaged:
            raise
        except (JournalUnusable, Unavailable, ProblemFile) as error:  # it may pass: the first rounds try it again
            blocked = error
        self._pending = pending
        self._outcomes = Outcomes(journal.database)
        self._spent = Spent(journal.database, wall=wall)
        self._writer = writer
        self.ledger = Ledger(journal, wall=wall)
        self.problems = Problems(wall)
        self.faults = Faults(self.problems, self._tell_fault)
        self._begun = Begun(f"{journal.path}-begun")
        self.intake = Intake(
            folder,
            journal,
            self.ledger,
            self.problems,
            delete_grace=config.delete_grace,
            stale_window=config.stale_window,
            clock=clock,
            wall=wall,
            faults=self.faults,
        )
        self.sources = Sources(config.sources, self.ledger, self.problems, self._outcomes.open_files(), clock=clock)
        self.inbox = Inbox(clock)
        self.projector = Projector(
            journal,
            self.ledger,
            self.problems,
            self.sources,
            mirror,
            self._listeners,
            clock=clock,
            wall=wall,
            verify_seconds=config.resync_seconds,
            faults=self.faults,
        )
        self.clerk = Clerk(
            pending,
            self._outcomes,
            self.ledger,
            self.intake,
            self.problems,
            self.sources,
            self.inbox,
            Desk(folder, self.ledger),
            writer,
            self.faults,
            self._begun,
            self._spent,
            is_in_charge=lambda: self.projector.is_in_charge,
            clock=clock,
            wall=wall,
        )
        self.retention = Retention(journal, self.ledger, _limits(config), clock=clock, wall=wall)
        self.scrub = Scrub(journal, self.ledger, self.problems, self.intake, clock=clock, wall=wall)
        if blocked is not None:
            self._be_blocked(_cannot(blocked), is_in_doubt=False)

    def reconfigure(self, config: Config) -> None:
        """What can change while it runs is from now on as in `config`; everything is compared soon."""
        self._config = config
        self._writer.is_durable = config.durability == "disk"
        self.intake.deletions.grace = config.delete_grace
        self.intake.stale_window = config.stale_window
        self.retention.limits = _limits(config)
        self.sources.reconfigure(config.sources)
        self.projector.verifier.seconds = config.resync_seconds
        self.projector.verifier.begin()
        self.intake.hint_all()
        self._sweep_at = 0.0

    def compare_soon(self) -> None:
        """Compare everything as soon as may be: something that was hinted at is lost."""
        self._sweep_at = 0.0

    @property
    def is_settled(self) -> bool:
        """Whether the folder has been swept and read, and the mirror shows it (or cannot, and that was said)."""
        intake, projector = self.intake, self.projector
        swept = intake.sweeper.sweeps > 0 and not intake.sweeper.is_sweeping and not intake.backlog
        looked = swept and self.sources.is_settled
        is_shown = projector.is_level or projector.is_said_to_be_away or (projector.is_held and SERVER in self.problems)
        return looked and not self._blocked_until and is_shown

    @property
    def _may_keep_house(self) -> bool:
        """Return True if nothing else is known to be done: old content and checks can wait."""
        has_work = self.intake.backlog or self.inbox.is_waiting
        return bool(self.intake.sweeper.sweeps) and not self._blocked_until and not has_work

    def wait_seconds(self) -> float:
        """For how long nothing needs to be done, unless something comes in."""
        due = min(self.inbox.due, self.intake.due, self.sources.due, self.projector.due, self._sweep_at, self._root_at)
        due = min(due, self.clerk.due, self.clerk.tidy_due)
        if self._blocked_until:
            due = min(self._blocked_until, self.projector.due)  # the mirror is rebuilt meanwhile
        elif self._mended_at > self._clock():
            due = min(due, self._mended_at)
        if self._may_keep_house:
            due = min(due, self.retention.due, self.scrub.due)
        return max(0.0, due - self._clock())

    def round(self) -> Iterator[str]:
        """Do what is due. Yields the name of each durable effect before it happens."""
        now = self._clock()
        if now >= self._root_at:
            self._root_at = now + _RETRY_SECONDS
            with self._stage("look at the roots"):
                self.intake.check_root()
                self.sources.check_roots()
            if not self._blocked_until:
                with self._stage("find the journal in its place", is_blocking=True):
                    self._journal.check_in_place()
        if now >= self._sweep_at:
            with self._stage("begin a sweep"):
                self._begin_sweep(now)
            with self._stage("forget what came of requests"):
                self._forget_outcomes()
        if now >= self._blocked_until:
            with self._stage("take in what is new", is_blocking=True):
                yield from self._take_in()
        if self._told_count != self.problems.changes:
            with self._stage("tell of problems"):
                self._tell_problems()
        yield "mirror"
        with self._stage("keep the mirror in sync"):
            self.projector.step(more_follows=self.intake.backlog > 0 and not self._blocked_until)
            if self._sent:
                self._tell_answers()
        if self._clock() >= self.clerk.tidy_due:
            yield "tidy"
            with self._stage("remove what was displaced"):
                self.clerk.tidy()
        with self._stage("move the log into the journal"):
            self._journal.bound_log()
        if self._clock() >= min(self.retention.due, self.scrub.due) and self._may_keep_house:
            with self._stage("forget what is old"):
                self.retention.step(self._config.sweep_seconds)
            with self._stage("check what is kept"):
                self.scrub.step()

    def _stage(self, name: str, *, is_blocking: bool = False) -> _Stage:
        """One stage of a round: an error ends the stage, never the daemon. It is logged once, and the stage is retried.

        After an error of a stage that `is_blocking`, memory may be ahead of the journal: all begins again from there.
        """
        stage = self._stages.get(name)
        if stage is None:
            stage = self._stages[name] = _Stage(self, name, is_blocking=is_blocking)
        return stage

    def stage_failed(self, name: str, error: Exception, *, is_blocking: bool) -> None:
        """A stage was ended by this error."""
        if isinstance(error, LeaseLost):
            if is_blocking:
                self._begin_again()
                self._sweep_at = self._clock()
            self._log_once(name, error.message)
        elif isinstance(error, BlocksdError):
            if self.rescue.note(error):
                hint = str(error.facts.get("hint") or HINT)
                self._be_blocked(Problem(JOURNAL, JournalUnusable.code, error.message, hint), is_in_doubt=True)
                self._blocked_until = self._clock()
                self._tell_problems()  # it may be over before the next time
            elif is_blocking:
                self._be_blocked(_cannot(error), is_in_doubt=False)
            self._log_once(name, error.message)
        elif isinstance(error, sqlite3.Error):
            if is_blocking:
                problem = Problem(JOURNAL, JournalUnusable.code, f"the journal fails: {error}", _SPACE_HINT)
                self._be_blocked(problem, is_in_doubt=True)
            self._log_once(name, str(error))
        else:  # whatever it is, the daemon goes on; it is logged with its traceback
            self.unexpected = error
            failure = self.faults.note(f"to {name}", error)
            if is_blocking:
                hint = "report the traceback, which is in the log; it is retried"
                self._be_blocked(Problem(JOURNAL, failure.code, failure.message, hint), is_in_doubt=True)

    def stage_succeeded(self, name: str) -> None:
        """A stage came to its end."""
        if self._logged:
            self._logged.pop(name, None)

    def _log_once(self, stage: str, message: str) -> None:
        """Log an error of a stage, unless it is the one that was logged last."""
        if self._logged.get(stage) != message:
            self._logged[stage] = message
            _log.warning("could not %s: %s; it is retried", stage, message)

    def _take_in(self) -> Iterator[str]:
        if self._blocked_until or self._must_reload:
            self._recover()
        if self.clerk.has_displaced:  # an error has ended the round before: nothing is done on top of a late save
            yield "clear away"
            self.clerk.clear_away()
        is_news_due = self.intake.due <= self._clock()
        has_taken, revisions = yield from self._look()
        self.sources.look()
        work = yield from self._carry_out(try_again=is_news_due)
        if work.revisions:
            _, more = yield from self._look()  # at what they have set free: labels, names, folders
            revisions += [*work.revisions, *more]
        self._blocked_until = 0.0
        self.intake.writes.note(revisions)
        self._spent.note((), work.postponed)
        has_taken = bool(has_taken or revisions or work.settled or work.accesses)
        if self._mended_at and (has_taken or (self._clock() >= self._mended_at and self.intake.is_idle)):
            self._mended_at = 0.0
            self.problems.remove(JOURNAL)
        if revisions or work.answers or self.projector.has_aside:
            yield "project"
            self.projector.project(revisions, work.answers, work.agents_gone)
            if work.answers and self.projector.is_level:
                self._sent = [(answer, self.inbox.received_at(answer.entry)) for answer in work.answers]
                self._spent.note((answer.entry for answer in work.answers), ())
                self.inbox.done()
            elif work.answers:
                self.inbox.begin_again()
        self.clerk.end()
        if self.clerk.has_free:
            yield "clear away"
            self.clerk.clear_away()
        for revision in revisions:
            self.retention.touch(revision.label, revision.version)
            for listener in self._listeners:
                listener.on_revision(revision)

    def _look(self) -> Generator[str, None, tuple[bool, list[Revision]]]:
        """Look at files, and journal what follows from it: whether there was anything to journal, and its revisions."""
        files = self.intake.look(BATCH)
        has_news = bool(files or self.ledger.drafted)
        if has_news:
            yield "journal"
            self._journal.append(self.ledger.drafted, files)
        revisions = self.ledger.settle()
        self._remove_left()
        return has_news, revisions

    def _carry_out(self, *, try_again: bool) -> Generator[str, None, Work]:
        """Do what was asked for, and journal it; what to reply. `try_again` also what waits for news of a file."""
        if self.inbox.is_waiting and not self.projector.confirm():  # another daemon may be in charge of the namespace
            self.inbox.begin_again()
        is_due = self.inbox.due <= self._clock() or (try_again and self.inbox.is_waiting)
        if not is_due and self.clerk.due > self._clock():
            return Work()
        work = yield from self.clerk.carry_out()
        return work

    def _remove_left(self) -> None:
        """Remove temporaries of ours that a crash has left, as far as that can be done: they harm nobody."""
        left, self.intake.sweeper.left = self.intake.sweeper.left, []
        for path in left:
            # In a folder that has taken the place of ours they may be another daemon's.
            if not (self.clerk.keeps(path) or self.intake.deletions.is_in_doubt):
                self._writer.remove(path)
        if self._writer.left:
            self._tell_left()
        elif LEFT in self.problems:
            self.problems.remove(LEFT)

    def _tell_left(self) -> None:
        """Say of temporaries that cannot be removed, for as long as that is so."""
        left = self._writer.left
        path, why = min(left.items())
        message = f"{len(left)} temporary files cannot be removed: {printable(path)} ({why})"
        hint = "see that the daemon's user may write there; it is tried again at every resync"
        self.problems.set(Problem(LEFT, "left", message, hint, warning=True))

    def _recover(self) -> None:
        """What was prepared when the journal took no more is finished, or taken back, before the folder is looked at."""
        if self.rescue.attempt():
            self._must_reload = True
            self._begun.open_again()
            self._pending.write_again()
            self.retention.begin_again()
            self.scrub.begin_again()
            self.projector.begin_epoch()
        # Told before it is tried: whatever fails half-way, memory is not what the journal has.
        self._must_reload = self._must_reload or self._pending.prepared() is not None
        is_patient = self._doubt_since is None or self._clock() < self._doubt_since + _DOUBT_SECONDS
        if self._doubt_since is None:
            self._doubt_since = self._clock()
        recover(self._pending, self._writer, is_patient=is_patient)
        self._doubt_since = None
        if self._must_reload:
            self.ledger.reload()
            self.intake.reset()
            self.intake.hint_all()
            self._must_reload = False

    def _be_blocked(self, problem: Problem, *, is_in_doubt: bool) -> None:
        """Nothing can be journaled for now, so nothing is taken in: begin again from what the journal has.

        `is_in_doubt`: it is not known how far the journal came. Then memory is made anew, as soon as it can be read.
        """
        now = self._clock()
        self._blocked_until = now + _RETRY_SECONDS
        self._mended_at = now + _CALM_SECONDS
        self._sweep_at = self._blocked_until
        self._must_reload = self._must_reload or is_in_doubt
        self.problems.set(problem)
        self._begin_again()

    def _begin_again(self) -> None:
        """Forget what is in memory only: it is read again."""
        self.clerk.end()
        self.inbox.begin_again()
        self.ledger.begin_again()
        try:
            self.intake.reset()
        except (JournalUnusable, sqlite3.Error):
            self._must_reload = True

    def _begin_sweep(self, now: float) -> None:
        self._sweep_at = now + self._config.sweep_seconds
        for path in list(self._writer.left):
            self._writer.remove(path)
        if not self.intake.sweeper.is_sweeping:
            self.intake.hint_all()
        self.sources.hint_all()

    def _forget_outcomes(self) -> None:
        """Forget outcomes that are a day old, as far as it is known what time it is; never before marks tell of them."""
        if self.intake.sweeper.sweeps:
            self._spent.write(self.ledger.attachments.known | {OPERATOR})
            if self.retention.is_steady:
                self._outcomes.forget(timestamp(self._wall() - OUTCOMES_KEPT_SECONDS))

    def idle(self) -> None:
        """Use a moment in which nothing is due."""
        with self._stage("move the log into the journal"):
            self._journal.checkpoint()

    def _tell_answers(self) -> None:
        """Tell of the replies that were sent; of those that were lost with Redis, once they have been made again."""
        sent, self._sent = self._sent, []
        if self.projector.is_level:
            now = self._clock()
            for answer, received_at in sent:
                for listener in self._listeners:
                    listener.on_request(answer, now - received_at)

    def _tell_fault(self, fault: Fault, is_new: bool) -> None:  # as the listener has it
        for listener in self._listeners:
            listener.on_fault(fault, is_new)

    def _tell_problems(self) -> None:
        self._told_count = self.problems.changes
        told, self._told = self._told, self.problems.copy()
        for subject in sorted(told.keys() | self._told.keys()):
            problem = self._told.get(subject)
            for listener in self._listeners:
                if problem is None:
                    listener.on_cleared(told[subject])
                elif problem != told.get(subject):
                    listener.on_problem(problem)

    def close(self) -> None:
        """Stop in good order: the lease given up, the journal closed."""
        with self._stage("give the lease up"):
            self.projector.close()
        with self._stage("remove what was displaced"):  # what is left lies there until the next start
            self.clerk.tidy()
        self._begun.close()
        with self._stage("close the journal"):  # where that fails, the next start doubts it
            self._journal.close()


class _Stage:
    """A context in which one stage of a round is done. Several are entered in every round, so it is no generator."""

    __slots__ = ("_core", "_is_blocking", "_name")

    def __init__(self, core: Core, name: str, *, is_blocking: bool) -> None:
        self._core = core
        self._name = name
        self._is_blocking = is_blocking

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> bool:
        if error is None:
            self._core.stage_succeeded(self._name)
        elif isinstance(error, Exception):
            self._core.stage_failed(self._name, error, is_blocking=self._is_blocking)
        return isinstance(error, Exception)


def _cannot(error: BlocksdError) -> Problem:
    """Why nothing can be taken in."""
    hint = error.facts.get("hint") or (_SPACE_HINT if isinstance(error, JournalUnusable) else _FOLDER_HINT)
    return Problem(JOURNAL, error.code, error.message, str(hint))


def _limits(config: Config) -> Limits:
    return Limits(config.history_versions, config.history_days, config.departed_days)
