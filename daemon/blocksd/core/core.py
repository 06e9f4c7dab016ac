"""One round in five stages: collect, read, decide, commit, project. The only module that knows all sides; no threads."""

from __future__ import annotations

from os import sched_yield
from typing import TYPE_CHECKING

from blocksd.core.decide import NOTHING_ASKED, FolderView, decide, decide_on_files
from blocksd.core.executor import Conflict
from blocksd.core.parts import Parts
from blocksd.core.recovery import recover
from blocksd.model.problem import SERVER
from blocksd.model.revision import timestamp
from blocksd.state.observed import Observed
from blocksd.state.schedule import NEVER

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from blocksd.core.decide import Draft
    from blocksd.core.failures import Failures
    from blocksd.core.intake import Intake
    from blocksd.journal.journal import Journal
    from blocksd.model.revision import Revision
    from blocksd.requests.request import Unusable
    from blocksd.state.schedule import Work

BATCH = 256
"""How many files are read in one round."""

SWEEP_PAUSE = 400
"""So many times as long as a sweep of the folder took, the next one waits at least, if there are file events."""

_ROOT_SECONDS = 1.0  # between two looks at where the folder and the sources are
_DOUBT_SECONDS = 5.0  # for which a symlink on the path of a file that was being written is waited for to go
_STAGED: frozenset[Work] = frozenset(("files", "sources", "requests", "merges", "retry", "kept"))
_HOUSEKEEPING: tuple[Work, ...] = ("retention", "scrub")


class Core(Parts):
    """Folder, sources and requests → journal → mirror → replies, one round after the other, all in one thread.

    Invariants, between two rounds:
      1. what a revision says was journaled, at least as prepared, before the mirror showed it, and shown before announced;
      2. `journal.seq` numbers every revision ever returned, without a gap;
      3. a file that was read and whose revision was not journaled will be read again;
      4. a request is in its inbox until its outcome was journaled, shown and replied.
    """

    def compare_soon(self) -> None:
        """Compare everything as soon as may be: something that was hinted at is lost."""
        self.schedule["sweep"] = 0.0

    @property
    def is_settled(self) -> bool:
        """Return True if the folder has been swept and read, and the mirror shows it (or cannot, and that was said)."""
        intake, projector = self.intake, self.projector
        swept = intake.scanner.sweeps > 0 and not intake.scanner.is_sweeping and not intake.backlog
        read = swept and self.sources.is_settled
        is_held = projector.is_held and SERVER in self.problems
        is_shown = projector.is_in_sync or projector.is_said_to_be_unreachable or is_held
        return read and not self.failures.blocked_until and is_shown

    @property
    def _may_keep_house(self) -> bool:
        """Return True if nothing else is known to be done: old content and checks can wait."""
        has_work = self.schedule["files"] <= self._clock() or self.inbox.is_waiting
        return bool(self.intake.scanner.sweeps) and not self.failures.blocked_until and not has_work

    def wait_seconds(self) -> float:
        """For how long nothing needs to be done, unless something comes in."""
        if self.failures.blocked_until:
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
        has_worked = now >= self.failures.blocked_until and not due.isdisjoint(_STAGED)
        if has_worked:
            with self._guard("take in what is new", is_blocking=True):
                yield from self._stages(due)
        if has_worked or "mirror" in due or self._news.count != self.problems.changes:
            yield "mirror"
            is_shown = False
            with self._guard("keep the mirror in sync"):
                self.projector.step(more_follows=not self.schedule["files"] and not self.failures.blocked_until)
                is_shown = True
            with self._guard("tell of what has changed"):
                self._tell(with_answers=is_shown)
        if self.schedule["tidy"] <= self._clock():  # the round may have done it on the way
            yield "tidy"
            with self._guard("remove what was displaced"):
                self.executor.tidy()
        if has_worked:
            with self._guard("move the log into the journal"):
                self._journal.bound_log()
        if not due.isdisjoint(_HOUSEKEEPING) and self._may_keep_house:
            self._keep_house(due)

    def _stages(self, due: set[Work]) -> Iterator[str]:
        """The way of a change, from the folder and the inboxes to the journal, the mirror and the replies.

        Each stage is entered once, and hands values to the next one.
        """
        if self.failures.blocked_until or self.failures.must_reload:
            self._recover()
        if self.executor.displaced:  # an error has ended the round before: nothing is done on top of a late save
            yield "clear away"
            self.executor.clear_away()
        # 1. Collect: which files to read, and which requests to carry out.
        seen, batch = self.intake.collect(BATCH) if "files" in due else (Observed(), {})
        if "sources" in due:
            self.sources.look()
        until = self.projector.confirm() if self.schedule["requests"] < NEVER else 0.0
        if self.schedule["requests"] < NEVER and until <= self._clock():
            self.requests.begin_again()  # another daemon may serve the namespace
        has_requests = self.state.unmerged or self.schedule["requests"] < NEVER
        asked = self.requests.collect(due) if has_requests else NOTHING_ASKED
        # 2. Read: each file once.
        seen.files = self.intake.read(batch) if batch else []
        # 3. Decide: what follows from that. Nothing has changed after this.
        draft = decide(self._folder_view, self.requests.view, seen, asked, timestamp(self._wall()))
        # 4. Commit: intents, files, journal. What cannot be done is thrown away with its part of the draft.
        revisions = yield from self._commit(draft, until)
        # 5. Project: one call of the server, with the replies.
        yield from self._project(draft, revisions)
        for revision in revisions:
            if revision.reverts or self._reverts.since:
                self._reverts.note(revision)
            if revision.version > 1:
                self.retention.touched.add(revision.label)
        self._made += revisions
        for loss in draft.answers.losses:
            self._reverts.note(loss)

    def _commit(self, draft: Draft, until: float) -> Generator[str, None, list[Revision]]:
        """Bring a draft into force; what was asked for may come to nothing, and is decided on anew in the next round."""
        if draft.files or draft.observed.revisions:
            yield "journal"
        revisions = journal_files(draft, self._journal, self.intake)
        if draft.requested is not draft.observed:
            try:
                revisions = revisions + (yield from self.executor.carry_out(draft, until))
            except Conflict as conflict:
                self.requests.throw_away(draft, conflict)
            else:
                self.requests.follow(draft)
        if self.state.attachments.turned or not self.state.agent_times.is_settled:
            yield from self.state.note_agents(revisions)
        if self.state.unmerged or self.schedule["merges"] < NEVER:
            self.requests.set_merges_due()
        if have_changed := draft.observed.has_attachments or draft.requested.has_attachments:
            self.schedule["sources"] = 0.0  # who sees them may have changed
        if have_changed or not self.intake.has_checked_names:
            self.intake.check_names()
        if self.intake.scanner.left or self._writer.left or self.executor.has_left:
            self.executor.remove_left()
        self.failures.blocked_until = 0.0
        if self.failures.calm_at:
            has_journaled = bool(revisions or draft.files or draft.answers.settled)
            self.failures.check_repaired(has_journaled=has_journaled, is_idle=self.intake.is_idle)
        return revisions

    def _project(self, draft: Draft, revisions: list[Revision]) -> Iterator[str]:
        """Show what was committed, reply, and then journal that it is in force, and remove what was displaced in files."""
        answers = draft.answers.answers
        if revisions or answers:
            yield "project"
            known = self.state.attachments.is_known
            gone = {agent for agent in draft.agents_gone if not known(agent)}
            if not self.projector.project(revisions, answers, gone, are_in_force=self.executor.unfinished is None):
                yield from self.executor.finish()  # what the mirror lacks is read from the journal
                self.projector.project(revisions, answers, gone)
        if answers and self.projector.is_in_sync:
            received = self.inbox.finish([answer.entry for answer in answers], self._started, self._handled)
            self._sent += zip(answers, received, strict=True)
        elif answers:
            self.requests.begin_again()
        elif draft.asked.entries:
            self.requests.end()
        if self.executor.unfinished:
            yield from self.executor.finish()
        if self.executor.displaced or self.executor.free or self.schedule["kept"] <= self._clock():
            yield "clear away"
            self.executor.clear_away()

    def _check_roots(self, now: float) -> None:
        self.schedule["roots"] = now + _ROOT_SECONDS
        with self._guard("look at the roots"):
            self.intake.check_root()
            self.sources.check_roots()
        if not self.failures.blocked_until:
            with self._guard("find the journal in its place", is_blocking=True):
                self._journal.check_in_place()

    def _begin_sweep(self, now: float) -> None:
        pause = 0.0 if self._config.poll else self.intake.scanner.seconds * SWEEP_PAUSE
        self.schedule["sweep"] = now + max(pause, self._config.sweep_seconds)
        with self._guard("begin a sweep"):
            for path in list(self._writer.left):
                self._writer.remove(path)
            if not self.intake.scanner.is_sweeping:
                self.intake.hint_all()
            self.sources.hint_all()
            self._reverts.expire()
        if self.intake.scanner.sweeps and not self._sent:
            with self._guard("forget what came of requests"):
                self.requests.forget_results(is_steady=self.retention.is_steady)

    def _keep_house(self, due: set[Work]) -> None:
        if "retention" in due:
            with self._guard("forget what is old"):
                self.retention.step(self._config.sweep_seconds)
        if "scrub" in due:
            with self._guard("check what is kept"):
                self.scrub.step()

    def _guard(self, name: str, *, is_blocking: bool = False) -> _Guarded:
        """Guard a part of a round: an error ends the part, never the daemon. It is logged once, and the part is retried.

        After an error of a part that `is_blocking`, requests and files are taken anew, and, if it is not known what the
        journal took, so is the state.
        """
        return _Guarded(self.failures, name, is_blocking=is_blocking)

    def _recover(self) -> None:
        """Finish or take back what was prepared when the journal took no more, before the folder is looked at."""
        failures, self.executor.unfinished = self.failures, None  # what was prepared is finished here
        if self.rescue.repair_if_needed():
            failures.must_reload = True
            self._started.open_again()
            self._intents.write_again()
            self.retention.restart()
            self.scrub.restart()
            self.projector.begin_epoch()
        # Noted before it is tried: whatever fails half-way, memory is not what the journal has.
        failures.must_reload = failures.must_reload or self._intents.prepared() is not None
        is_patient = self._doubt_since is None or self._clock() < self._doubt_since + _DOUBT_SECONDS
        if self._doubt_since is None:
            self._doubt_since = self._clock()
        recover(self._intents, self._writer, is_patient=is_patient)
        self._doubt_since = None
        self.schedule["kept"] = 0.0  # it may have left something
        if failures.must_reload:
            self.state.reload()
            self.requests.set_merges_due()
            self.intake.reset()
            self.intake.hint_all()
            failures.must_reload = False

    def idle(self) -> None:
        """Use a moment in which nothing is due."""
        with self._guard("move the log into the journal"):
            self._journal.checkpoint()

    @property
    def dropped(self) -> list[Unusable]:
        """Entries that could not be replied to, for a log."""
        return self.requests.dropped

    def _tell(self, *, with_answers: bool) -> None:
        """Tell of the revisions that were made, of problems, and of the replies that were sent. Subscribers were first.

        An entry whose reply may be lost with Redis comes in again; one that was refused for the moment is decided anew.
        """
        made, self._made = self._made, []
        if made:
            sched_yield()  # the server answers subscribers after the daemon: they need a processor first
        for revision in made:
            for listener in self._listeners:
                listener.on_revision(revision)
        if self._news.count != self.problems.changes:
            self._news.tell()
        if not with_answers or not self._sent:
            return
        sent, self._sent = self._sent, []
        if not self.projector.is_in_sync:
            self._handled.end_before(answer.entry for answer, _ in sent)
            return
        now = self._clock()
        for answer, received_at in sent:
            for listener in self._listeners:
                listener.on_request(answer, now - received_at)

    def close(self) -> None:
        """Stop in good order: the lease given up, the journal closed."""
        with self._guard("give the lease up"):
            self.projector.close()
        with self._guard("remove what was displaced"):  # what is left lies there until the next start
            self.executor.tidy()
        self._started.close()
        with self._guard("close the journal"):  # where that fails, the next start doubts it
            self._journal.close()


class _Guarded:
    """A context in which one part of a round is done. Several are entered in a round, so it is no generator."""

    __slots__ = ("_failures", "_is_blocking", "_name")

    def __init__(self, failures: Failures, name: str, *, is_blocking: bool) -> None:
        self._failures = failures
        self._name = name
        self._is_blocking = is_blocking

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> bool:
        if error is None:
            self._failures.logged.pop(self._name, None)
        elif isinstance(error, Exception):
            self._failures.ended_by(self._name, error, is_blocking=self._is_blocking)
        return isinstance(error, Exception)


def journal_files(draft: Draft, journal: Journal, intake: Intake) -> list[Revision]:
    """Journal the revisions of what the folder says, and put them into force."""
    observed, seen = draft.observed, draft.seen
    revisions, released = observed.revisions, observed.released
    if revisions or draft.files:
        journal.append(revisions, draft.files, observed.reformed)
    if revisions or seen.has_looked:
        observed.apply()
    if seen.has_looked:
        intake.follow(seen, draft.news)
    if released:
        intake.release(released)
    return revisions


def look_once(view: FolderView, journal: Journal, limit: int, at: str) -> list[Revision]:
    """Do the part of a round that is about the folder: for checks of a folder without a daemon."""
    seen, batch = view.intake.collect(limit)
    seen.files = view.intake.read(batch)
    revisions = journal_files(decide_on_files(view, seen, NOTHING_ASKED, at), journal, view.intake)
    view.intake.check_names()
    return revisions
