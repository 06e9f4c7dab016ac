"""One round in five stages: collect, read, decide, commit, project. The only module that knows all sides; no threads."""

from __future__ import annotations

import logging
import sqlite3
import time
from typing import TYPE_CHECKING

from blocksd.core.decide import Asked, FolderView, decide, decide_on_files
from blocksd.core.executor import Conflict, Executor
from blocksd.core.intake import Intake, Observed
from blocksd.core.projector import Projector
from blocksd.core.recovery import recover
from blocksd.core.retention import Limits, Retention
from blocksd.core.scrub import Scrub
from blocksd.errors import BlocksdError, JournalDamaged, JournalUnusable, LeaseLost, ProblemFile, Unavailable
from blocksd.files.writer import Writer
from blocksd.journal.intents import Intents
from blocksd.journal.rescue import HINT, Rescue
from blocksd.journal.results import Results
from blocksd.model.faults import Faults
from blocksd.model.label import printable
from blocksd.model.problem import JOURNAL, LEFT, SERVER, Problem
from blocksd.model.problems import Problems
from blocksd.model.revision import OPERATOR, timestamp
from blocksd.requests.answers import PAUSE_SECONDS, Answers, RequestView
from blocksd.requests.handled import Handled
from blocksd.requests.inbox import Inbox
from blocksd.requests.started import StartedRequests
from blocksd.sources.sources import Sources
from blocksd.state.schedule import NEVER, Schedule
from blocksd.state.stale import Writes
from blocksd.state.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from blocksd.core.decide import Draft
    from blocksd.core.projector import Listener
    from blocksd.files.folder import Folder
    from blocksd.journal.journal import Journal
    from blocksd.mirror.mirror import Mirror
    from blocksd.model.faults import Fault
    from blocksd.model.revision import Revision
    from blocksd.requests.reply import Answer
    from blocksd.requests.request import Entry, Unusable
    from blocksd.settings.config import Config
    from blocksd.state.schedule import Work

BATCH = 256
"""How many files are read in one round."""

REQUESTS = 64
"""How many requests are carried out in one round: each may have to read a file."""

OUTCOMES_KEPT_SECONDS = 86_400.0
"""For how long a request that is sent again gets the first outcome, at least; the newest of each actor do for longer."""

_RETRY_SECONDS = 1.0
_DOUBT_SECONDS = 5.0  # for which a symlink on the path of a file that was being written is waited for to go
_CALM_SECONDS = 2.0  # after which a journal that had nothing to take counts as repaired
_SPACE_HINT = "free some space, or make the state directory writable; it is retried"
_FOLDER_HINT = "see that the folder is there and can be written; it is retried"
_AT_ONCE = (0.0, 0.0)
_STAGED: frozenset[Work] = frozenset(("files", "sources", "requests", "merges", "retry", "kept"))
_HOUSEKEEPING: tuple[Work, ...] = ("retention", "scrub")

_log = logging.getLogger(__name__)


class Core:
    """Folder, sources and requests → journal → mirror → replies, one round after the other, all in one thread.

    Invariants, between two rounds:
      1. what a revision says was journaled before the mirror showed it, and shown before it was announced;
      2. `journal.seq` numbers every revision ever returned, without a gap;
      3. a file that was read and whose revision was not journaled will be read again;
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
        self.schedule = Schedule()
        self.schedule["sweep"] = 0.0  # the first round begins the first sweep
        self.schedule["roots"] = 0.0
        self.schedule["mirror"] = 0.0
        self.schedule["kept"] = 0.0  # what the run before may have left
        self._blocked_until = 0.0
        self._mended_at = 0.0  # when a journal that failed counts as repaired if nothing is left for it; 0: it is
        self._sent: list[tuple[Answer, float]] = []  # replies, and when what they reply to was received
        self._taken: list[Entry] = []  # requests that are under way
        self._unwritable: dict[str, BlocksdError] = {}  # files that could not be written to in the last rounds, and why
        self._merge_at: dict[
            str, tuple[float, float]
        ] = {}  # label → when a merge is tried again, and after how long then
        self._waiting: dict[Entry, float] = {}  # requests that wait for an open file: since when
        self.dropped: list[Unusable] = []  # entries that could not be replied to, for a log
        self._told: dict[str, Problem] = {}
        self._told_count = 0
        self._has_left = False  # temporaries that cannot be removed were reported
        self._must_reload = False  # what is in memory is not what the journal has
        self._doubt_since: float | None = None  # since when it cannot be told what was done to files
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
        journal, config, schedule, clock, wall = self._journal, self._config, self.schedule, self._clock, self._wall
        writer = Writer(folder.directory, is_durable=config.durability == "disk")
        intents = Intents(journal)
        blocked: BlocksdError | None = None
        try:
            recover(intents, writer, is_patient=True)
        except JournalDamaged:
            raise
        except (JournalUnusable, Unavailable, ProblemFile) as error:  # it may pass: the first rounds try it again
            blocked = error
        self._intents = intents
        self._results = Results(journal.database)
        self._handled = Handled(journal.database, wall=wall)
        self._writer = writer
        self.state = State(journal)
        self.problems = Problems(wall)
        self.faults = Faults(self.problems, self._tell_fault)
        self._started = StartedRequests(f"{journal.path}-begun")
        self.writes = Writes(journal.seq, clock=clock, wall=wall)
        self.intake = Intake(
            folder,
            journal,
            self.state,
            self.problems,
            self.faults,
            schedule,
            delete_grace=config.delete_grace,
            clock=clock,
        )
        self._folder_view = FolderView(self.state, folder, self.intake, self._is_recent)
        self.sources = Sources(
            config.sources, self.state, self.problems, self._results.open_files(), schedule, clock=clock
        )
        self.inbox = Inbox(clock, schedule)
        self.projector = Projector(
            journal,
            self.state,
            self.problems,
            self.sources,
            mirror,
            self._listeners,
            self.faults,
            schedule,
            clock=clock,
            wall=wall,
            verify_seconds=config.resync_seconds,
        )
        self.executor = Executor(
            intents,
            self._results,
            self.intake,
            self.problems,
            self.sources,
            writer,
            schedule,
            is_in_charge=lambda: self.projector.is_in_charge,
            clock=clock,
        )
        self.retention = Retention(journal, self.state, _limits(config), schedule, clock=clock, wall=wall)
        self.scrub = Scrub(journal, self.state, self.problems, self.intake, schedule, clock=clock, wall=wall)
        self._set_merges_due()
        if blocked is not None:
            self._be_blocked(_cannot(blocked), is_in_doubt=False)

    def _is_recent(self, revision: Revision, saved_at: float) -> bool:
        """Return True if a revision was written so short before a file was saved that its text may be the older one."""
        return self.writes.is_within(self._config.stale_window, revision, saved_at)

    def reconfigure(self, config: Config) -> None:
        """Take over what can change at run time; everything is compared soon."""
        self._config = config
        self._writer.is_durable = config.durability == "disk"
        self.intake.deletions.grace = config.delete_grace
        self.retention.limits = _limits(config)
        self.sources.reconfigure(config.sources)
        self.projector.verifier.seconds = config.resync_seconds
        self.projector.verifier.begin()
        self.intake.hint_all()
        self.compare_soon()

    def compare_soon(self) -> None:
        """Compare everything as soon as may be: something that was hinted at is lost."""
        self.schedule["sweep"] = 0.0

    @property
    def is_settled(self) -> bool:
        """Return True if the folder has been swept and read, and the mirror shows it (or cannot, and that was said)."""
        intake, projector = self.intake, self.projector
        swept = intake.scanner.sweeps > 0 and not intake.scanner.is_sweeping and not intake.backlog
        read = swept and self.sources.is_settled
        is_shown = (
            projector.is_in_sync
            or projector.is_said_to_be_unreachable
            or (projector.is_held and SERVER in self.problems)
        )
        return read and not self._blocked_until and is_shown

    @property
    def _may_keep_house(self) -> bool:
        """Return True if nothing else is known to be done: old content and checks can wait."""
        has_work = self.schedule["files"] <= self._clock() or self.inbox.is_waiting
        return bool(self.intake.scanner.sweeps) and not self._blocked_until and not has_work

    def wait_seconds(self) -> float:
        """For how long nothing needs to be done, unless something comes in."""
        if self._blocked_until:
            due = self.schedule.next(only=("retry", "mirror"))  # the mirror is rebuilt meanwhile
        elif self._may_keep_house:
            due = self.schedule.next()
        else:
            due = self.schedule.next(but=_HOUSEKEEPING)
        return max(0.0, due - self._clock())

    def round(self) -> Iterator[str]:
        """Do what is due, and nothing else. Yields the name of each durable effect before it happens."""
        now = self._clock()
        due = {work for work, at in self.schedule.items() if at <= now}
        if "roots" in due:
            self._check_roots(now)
        if "sweep" in due:
            self._begin_sweep(now)
        if not due.isdisjoint(("roots", "sweep")):
            due = {work for work, at in self.schedule.items() if at <= now}  # with what they have found
        has_worked = False
        if now >= self._blocked_until and not due.isdisjoint(_STAGED):
            has_worked = True
            with self._stage("take in what is new", is_blocking=True):
                yield from self._stages(due)
        if self._told_count != self.problems.changes:
            has_worked = True
            with self._stage("tell of problems"):
                self._tell_problems()
        if has_worked or "mirror" in due:
            yield "mirror"
            with self._stage("keep the mirror in sync"):
                self.projector.step(more_follows=not self.schedule["files"] and not self._blocked_until)
                if self._sent:
                    self._tell_answers()
        if self.schedule["tidy"] <= self._clock():  # the round may have done it on the way
            yield "tidy"
            with self._stage("remove what was displaced"):
                self.executor.tidy()
        if has_worked:
            with self._stage("move the log into the journal"):
                self._journal.bound_log()
        if not due.isdisjoint(_HOUSEKEEPING) and self._may_keep_house:
            self._keep_house(due)

    def _stages(self, due: set[Work]) -> Iterator[str]:
        """The way of a change, from the folder and the inboxes to the journal, the mirror and the replies.

        Each stage is entered once, and hands values to the next one.
        """
        if self._blocked_until or self._must_reload:
            self._recover()
        if self.executor.displaced:  # an error has ended the round before: nothing is done on top of a late save
            yield "clear away"
            self.executor.clear_away()
        # 1. Collect: which files to read, and which requests to carry out.
        seen, batch = self.intake.collect(BATCH) if "files" in due else (Observed(), {})
        if "sources" in due:
            self.sources.look()
        asked = self._collect_requests(due)
        # 2. Read: each file once.
        seen.files = self.intake.read(batch) if batch else []
        # 3. Decide: what follows from that. Nothing has changed after this.
        draft = decide(self._folder_view, self._request_view(), seen, asked, timestamp(self._wall()))
        # 4. Commit: intents, files, journal. What cannot be done is thrown away with its part of the draft.
        revisions = yield from self._commit(draft)
        # 5. Project: one call of the server, with the replies.
        yield from self._project(draft, revisions)
        for revision in revisions:
            if revision.version > 1:
                self.retention.touched.add(revision.label)
            for listener in self._listeners:
                listener.on_revision(revision)

    def _collect_requests(self, due: set[Work]) -> Asked:
        """The requests to carry out now, noted as begun, and the stale saves to merge."""
        inbox, now, times = self.inbox, self._clock(), self.schedule
        if (
            times["requests"] < NEVER and not self.projector.confirm()
        ):  # another daemon may be in charge of the namespace
            inbox.forget_all()
        merges = frozenset(label for label in self.state.unmerged if self._merge_at.get(label, _AT_ONCE)[0] <= now)
        # News of a file may be what a request waits for.
        is_due = "requests" in due or "files" in due
        if not merges and (times["requests"] == NEVER or not is_due):
            return Asked()
        entries = inbox.take_next(REQUESTS)
        alone = self._started.first_alone(entries) if entries else 0
        self._taken = entries[:alone]
        if self._taken:
            self._started.begin(self._taken)
        return Asked(self._taken, entries[alone:], merges, self._unwritable)

    def _request_view(self) -> RequestView:
        deletions = self.intake.deletions
        return RequestView(
            self._results,
            self._handled,
            self._started,
            self.sources,
            self.problems,
            self.faults,
            self._waiting,
            deletions.is_held_back,
            deletions.is_in_doubt,
            self._clock(),
            self._wall(),
        )

    def _commit(self, draft: Draft) -> Generator[str, None, list[Revision]]:
        """Bring a draft into force; what was asked for may come to nothing, and is decided on anew in the next round."""
        if draft.files or draft.observed.revisions:
            yield "journal"
        revisions = journal_files(draft, self._journal, self.intake)
        if draft.requested is not draft.observed:
            try:
                revisions = revisions + (yield from self.executor.carry_out(draft))
            except Conflict as conflict:
                self._throw_away(draft, conflict)
            else:
                self._unwritable = {}
                self._follow_answers(draft)
        self._set_merges_due()
        have_changed = draft.observed.has_attachments or draft.requested.has_attachments
        if have_changed or not self.intake.has_checked_names:
            self.intake.check_names()
        if have_changed:
            self.schedule["sources"] = 0.0  # who sees them may have changed
        self._remove_left()
        self._blocked_until = 0.0
        if draft.requested is not draft.observed:
            self.writes.note(revisions)
        elif revisions:
            self.writes.noted = revisions[-1].seq
        if self._mended_at:
            self._be_mended(has_journaled=bool(revisions or draft.files or draft.answers.settled))
        return revisions

    def _throw_away(self, draft: Draft, conflict: Conflict) -> None:
        """Nothing of what was asked for was done; all of it is decided anew, since refusals may have been for its sake."""
        asked, draft.answers = draft.asked, Answers()
        until = 0.0
        if conflict.why is not None:
            self._unwritable = {**self._unwritable, conflict.path: conflict.why}
        else:
            self.intake.hint_file(conflict.path, closed=False)
            until = self._try_again_at()
        entries = [*asked.entries, *asked.later]
        if entries:
            self.inbox.postpone(entries, until)

    def _follow_answers(self, draft: Draft) -> None:
        """Take note of what follows from requests, once they are done."""
        answers, now = draft.answers, self._clock()
        for label in answers.merged:
            self.state.unmerged.discard(label)
            self._merge_at.pop(label, None)
        for label, (shortest, longest) in answers.unmerged.items():
            _, wait = self._merge_at.get(label, _AT_ONCE)
            wait = min(max(2 * wait, shortest), longest)
            self._merge_at[label] = now + wait, wait
        for subject, problem in answers.problems.items():
            if problem is not None:
                self.problems.set(problem)
            else:
                self.problems.remove(subject)
        for path in answers.reread:
            self.intake.reread(path)
        if answers.waiting or self._waiting:
            decided = {answer.entry for answer in answers.answers}
            self._waiting = {
                entry: since for entry, since in (self._waiting | answers.waiting).items() if entry not in decided
            }
        self.dropped += answers.dropped
        if answers.postponed:
            self.inbox.postpone(answers.postponed, 0.0 if answers.cut else self._try_again_at(), cut=answers.cut)
            self._handled.note((), answers.postponed)

    def _set_merges_due(self) -> None:
        at = min((self._merge_at.get(label, _AT_ONCE)[0] for label in self.state.unmerged), default=NEVER)
        self.schedule["merges"] = at

    def _try_again_at(self) -> float:
        """When postponed requests are tried again: soon if others wait, else when there may be news of a file."""
        now = self._clock()
        shortest, longest = PAUSE_SECONDS
        return now + shortest if self.inbox.is_waiting else min(max(now + shortest, self.intake.due), now + longest)

    def _project(self, draft: Draft, revisions: list[Revision]) -> Iterator[str]:
        """Show what was committed, reply, and remove what was displaced in files."""
        answers = draft.answers.answers
        if revisions or answers:
            yield "project"
            known = self.state.attachments.is_known
            self.projector.project(revisions, answers, {agent for agent in draft.agents_gone if not known(agent)})
        if answers and self.projector.is_in_sync:
            self._sent = [(answer, self.inbox.received_at(answer.entry)) for answer in answers]
            self._handled.note([answer.entry for answer in answers], ())
            self.inbox.remove_done()
        elif answers:
            self.inbox.forget_all()
        self._end_taken()
        if self.executor.displaced or self.executor.free or self.schedule["kept"] <= self._clock():
            yield "clear away"
            self.executor.clear_away()

    def _end_taken(self) -> None:
        """What was taken is over: it was replied to, or is taken again."""
        if self._taken:
            self._started.end(self._taken)
            self._taken = []

    def _check_roots(self, now: float) -> None:
        self.schedule["roots"] = now + _RETRY_SECONDS
        with self._stage("look at the roots"):
            self.intake.check_root()
            self.sources.check_roots()
        if not self._blocked_until:
            with self._stage("find the journal in its place", is_blocking=True):
                self._journal.check_in_place()

    def _begin_sweep(self, now: float) -> None:
        self.schedule["sweep"] = now + self._config.sweep_seconds
        with self._stage("begin a sweep"):
            for path in list(self._writer.left):
                self._writer.remove(path)
            if not self.intake.scanner.is_sweeping:
                self.intake.hint_all()
            self.sources.hint_all()
        with self._stage("forget what came of requests"):
            self._forget_results()

    def _keep_house(self, due: set[Work]) -> None:
        if "retention" in due:
            with self._stage("forget what is old"):
                self.retention.step(self._config.sweep_seconds)
        if "scrub" in due:
            with self._stage("check what is kept"):
                self.scrub.step()

    def _stage(self, name: str, *, is_blocking: bool = False) -> _Stage:
        """A part of a round: an error ends the part, never the daemon. It is logged once, and the part is retried.

        After an error of a part that `is_blocking`, memory may be ahead of the journal: all begins again from there.
        """
        return _Stage(self, name, is_blocking=is_blocking)

    def stage_failed(self, name: str, error: Exception, *, is_blocking: bool) -> None:
        """A part of a round was ended by this error."""
        if isinstance(error, LeaseLost):
            if is_blocking:
                self._begin_again()
                self.schedule["sweep"] = self._clock()
            self._log_once(name, error.message)
        elif isinstance(error, BlocksdError):
            if self.rescue.note(error):
                hint = str(error.facts.get("hint") or HINT)
                self._be_blocked(Problem(JOURNAL, JournalUnusable.code, error.message, hint), is_in_doubt=True)
                self._blocked_until = self._clock()
                self.schedule["retry"] = 0.0
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
        """A part of a round came to its end."""
        if self._logged:
            self._logged.pop(name, None)

    def _log_once(self, stage: str, message: str) -> None:
        """Log an error of a stage, unless it is the one that was logged last."""
        if self._logged.get(stage) != message:
            self._logged[stage] = message
            _log.warning("could not %s: %s; it is retried", stage, message)

    def _remove_left(self) -> None:
        """Remove temporaries of ours that a crash has left, as far as that can be done: they harm nobody."""
        left, self.intake.scanner.left = self.intake.scanner.left, []
        for path in left:
            # In a folder that has taken the place of ours they may be another daemon's.
            if not (self.executor.needs(path) or self.intake.deletions.is_in_doubt):
                self._writer.remove(path)
        if self._writer.left:
            self._report_left()
        elif self._has_left:
            self.problems.remove(LEFT)
        self._has_left = bool(self._writer.left)

    def _report_left(self) -> None:
        """Report temporaries that cannot be removed, for as long as that is so."""
        left = self._writer.left
        path, why = min(left.items())
        message = f"{len(left)} temporary files cannot be removed: {printable(path)} ({why})"
        hint = "see that the daemon's user may write there; it is tried again at every resync"
        self.problems.set(Problem(LEFT, "left", message, hint, warning=True))

    def _recover(self) -> None:
        """Finish or take back what was prepared when the journal took no more, before the folder is looked at."""
        if self.rescue.attempt():
            self._must_reload = True
            self._started.open_again()
            self._intents.write_again()
            self.retention.restart()
            self.scrub.restart()
            self.projector.begin_epoch()
        # Noted before it is tried: whatever fails half-way, memory is not what the journal has.
        self._must_reload = self._must_reload or self._intents.prepared() is not None
        is_patient = self._doubt_since is None or self._clock() < self._doubt_since + _DOUBT_SECONDS
        if self._doubt_since is None:
            self._doubt_since = self._clock()
        recover(self._intents, self._writer, is_patient=is_patient)
        self._doubt_since = None
        self.schedule["kept"] = 0.0  # it may have left something
        if self._must_reload:
            self.state.reload()
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
        self.schedule["retry"] = self._blocked_until
        self.schedule["sweep"] = self._blocked_until
        self._must_reload = self._must_reload or is_in_doubt
        self.problems.set(problem)
        self._begin_again()

    def _be_mended(self, *, has_journaled: bool) -> None:
        """See whether a journal that failed works again: it took something, or there is nothing left for it."""
        if has_journaled or (self._clock() >= self._mended_at and self.intake.is_idle):
            self._mended_at = 0.0
            self.problems.remove(JOURNAL)
        is_ahead = self._mended_at > self._clock()
        self.schedule["retry"] = self._mended_at if is_ahead else NEVER

    def _begin_again(self) -> None:
        """Forget what is in memory only: it is read again."""
        self._end_taken()
        self.inbox.forget_all()
        self.intake.reset()

    def _forget_results(self) -> None:
        """Forget outcomes that are a day old, as far as it is known what time it is; never before marks tell of them."""
        if self.intake.scanner.sweeps:
            self._handled.write(self.state.attachments.known | {OPERATOR})
            if self.retention.is_steady:
                self._results.forget(timestamp(self._wall() - OUTCOMES_KEPT_SECONDS))

    def idle(self) -> None:
        """Use a moment in which nothing is due."""
        with self._stage("move the log into the journal"):
            self._journal.checkpoint()

    def _tell_answers(self) -> None:
        """Tell of the replies that were sent; of those that were lost with Redis, once they have been made again."""
        sent, self._sent = self._sent, []
        if self.projector.is_in_sync:
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
            self.executor.tidy()
        self._started.close()
        with self._stage("close the journal"):  # where that fails, the next start doubts it
            self._journal.close()


class _Stage:
    """A context in which one part of a round is done. Several are entered in a round, so it is no generator."""

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


def journal_files(draft: Draft, journal: Journal, intake: Intake) -> list[Revision]:
    """Journal the revisions of what the folder says, and put them into force."""
    observed, seen = draft.observed, draft.seen
    revisions, released = observed.revisions, observed.released
    if revisions or draft.files:
        journal.append(revisions, draft.files)
    if revisions or seen.has_looked:
        observed.apply()
    if seen.has_looked:
        intake.follow(seen, draft.news)
    if released:
        intake.release(released)
    return revisions


def look_once(view: FolderView, journal: Journal, limit: int, at: str) -> list[Revision]:
    """Do the part of a round that is about the folder: for checks of a folder without a daemon."""
    intake = view.intake
    seen, batch = intake.collect(limit)
    seen.files = intake.read(batch)
    draft = decide_on_files(view, seen, Asked(), at)
    revisions = journal_files(draft, journal, intake)
    intake.check_names()
    return revisions


def _limits(config: Config) -> Limits:
    return Limits(config.history_versions, config.history_days, config.departed_days)
