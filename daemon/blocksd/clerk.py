"""Carries requests out: first on paper, then in the files, then in the journal."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blocksd.errors import BlocksdError, JournalUnusable, Misconfigured, ProblemFile, Unavailable
from blocksd.label import PRIVATE, parse_agent, printable
from blocksd.outcomes import Access
from blocksd.pending import Prepared
from blocksd.problem import FOLDER
from blocksd.reply import Answer, accepted, refused
from blocksd.request import Unusable, parse
from blocksd.revision import OPERATOR, timestamp
from blocksd.sheet import Postponed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from blocksd.desk import Desk
    from blocksd.inbox import Inbox
    from blocksd.intake import Intake
    from blocksd.ledger import Ledger
    from blocksd.outcomes import Outcomes
    from blocksd.pending import Pending, Staged
    from blocksd.problems import Problems
    from blocksd.request import Entry, Request
    from blocksd.revision import Revision
    from blocksd.sources import Sources
    from blocksd.writer import Writer

REQUESTS = 64
"""How many requests are carried out between two looks at the folder: each may have to read a file."""

_PAUSE_SECONDS = (0.01, 1.0)  # until a request to a file that somebody is changing is tried again, at least and at most


@dataclass(slots=True)
class Work:
    """What one round of requests comes to.

    `settled` are outcomes that wait for no file, `edited` those that stand as soon as the files say so. `displaced` is
    what was put in: what it took the place of lies beside it until `clear_away`.
    """

    answers: list[Answer] = field(default_factory=list)
    settled: dict[tuple[str, str], str] = field(default_factory=dict)
    edited: dict[tuple[str, str], str] = field(default_factory=dict)
    accesses: list[Access] = field(default_factory=list)
    postponed: list[Entry] = field(default_factory=list)
    revisions: list[Revision] = field(default_factory=list)
    displaced: list[Staged] = field(default_factory=list)


class _Unwritable(Exception):  # never leaves this module
    def __init__(self, path: str, error: BlocksdError) -> None:
        super().__init__(path)
        self.path = path
        self.error = error


class Clerk:
    """Does what is asked for, a bounded number of requests at a time, all of which share the waits for the disk.

    Invariants:
      1. a request is answered when its file is on disk and its revision journaled, or when it changed nothing;
      2. a crash at any moment leaves all of a round's edits or none, and what was prepared tells which;
      3. what a person saves meanwhile stays: then the round is taken back, and its requests are done on top.
    """

    def __init__(
        self,
        pending: Pending,
        outcomes: Outcomes,
        ledger: Ledger,
        intake: Intake,
        problems: Problems,
        sources: Sources,
        inbox: Inbox,
        desk: Desk,
        writer: Writer,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._pending = pending
        self._outcomes = outcomes
        self._ledger = ledger
        self._intake = intake
        self._problems = problems
        self._sources = sources
        self._inbox = inbox
        self._desk = desk
        self._writer = writer
        self._clock = clock
        self._wall = wall
        self.dropped: list[Unusable] = []  # what came in and could not be replied to, for a log

    def carry_out(self) -> Generator[str, None, Work]:
        """Do what is waiting. Yields the name of each durable effect before it happens.

        Raises:
            JournalUnusable: nothing was done; the ledger is to be loaded anew.
        """
        entries = self._inbox.take(REQUESTS)
        merges, self._intake.stale = self._intake.stale, set()
        unwritable: dict[str, BlocksdError] = {}
        while True:
            work = self._decide(entries, merges, unwritable)
            staged: list[Staged] = []
            try:
                yield from self._stage(staged)
                if self._ledger.drafted or self._desk.folders_gone:
                    yield from self._write(work, staged, entries, merges)
                else:
                    work.settled |= work.edited
            except _Unwritable as error:
                self._give_up(staged)
                self._ledger.begin_again()
                unwritable[error.path] = error.error
                continue
            break
        if work.settled or work.accesses:
            yield "settle"
            self._outcomes.settle(work.accesses, work.settled, timestamp(self._wall()))
            self._sources.apply(work.accesses)
        self._inbox.postpone(work.postponed, self._try_again_at())
        return work

    def clear_away(self, work: Work) -> None:
        """Remove what was displaced. Nobody need wait for it: what a crash leaves, the next sweep removes."""
        for one in work.displaced:
            if self._writer.give_back_save(one):
                self._intake.hint_file(one.path, closed=False)
        self._discard(work.displaced)

    def _try_again_at(self) -> float:
        """When postponed requests are tried again: soon if others wait, else when there may be news of a file."""
        now = self._clock()
        shortest, longest = _PAUSE_SECONDS
        return now + shortest if self._inbox.is_waiting else min(max(now + shortest, self._intake.due), now + longest)

    # --- on paper ---

    def _decide(self, entries: Sequence[Entry], merges: set[str], unwritable: dict[str, BlocksdError]) -> Work:
        work = Work()
        self._desk.begin(unwritable)
        for label in sorted(merges):
            self._merge(label)
        for entry in entries:
            request = parse(entry)
            if isinstance(request, Unusable):
                work.answers.append(self._answer_unusable(request))
                continue
            key = (request.actor, request.id)
            outcome = work.settled.get(key) or work.edited.get(key) or self._outcomes.of(*key)
            if outcome is None:
                try:
                    outcome = self._do(request, work)
                except Postponed as postponed:
                    if not self._intake.deletions.is_held_back(postponed.path):
                        self._intake.look_again(postponed.path)
                        work.postponed.append(entry)
                        continue
                    outcome = refused(request.id, Unavailable(self._problems[FOLDER].message))
                except BlocksdError as error:
                    outcome = refused(request.id, error)
                    if not isinstance(error, Unavailable):  # which may pass, and is worth another try
                        work.settled[key] = outcome
            work.answers.append(Answer(entry, request.id, outcome, request.op))
        return work

    def _do(self, request: Request, work: Work) -> str:
        """The reply to a request, once it is done.

        Raises:
            Postponed: it cannot be done yet.
            BlocksdError: it is refused.
        """
        request.check_deadline(self._wall())
        key = (request.actor, request.id)
        if request.op in ("open_file", "close_file"):
            access = self._access(request)
            work.accesses.append(access)
            work.settled[key] = accepted(request.id, **access.as_json())
            return work.settled[key]
        problem = self._problems.get(FOLDER)
        if problem is not None and self._intake.deletions.is_folder_gone:
            raise Unavailable(f"{problem.message}; nothing can be written until it is back")
        work.edited[key] = accepted(request.id, **self._desk.carry_out(request))
        return work.edited[key]

    def _merge(self, label: str) -> None:
        """Put a stale save and what came before it together; what cannot be merged any more stays as it was saved."""
        try:
            self._desk.merge_stale(label)
        except Postponed as postponed:
            self._intake.look_again(postponed.path)
            self._intake.stale.add(label)
        except Unavailable:
            self._intake.stale.add(label)
        except BlocksdError:
            return

    def _access(self, request: Request) -> Access:
        """What a request does to open files, if it may."""
        if request.actor == OPERATOR:
            agent, file = request.texts("agent", "file")
            agent = parse_agent(agent)
        else:
            agent, (file,) = request.actor, request.texts("file")
        if request.op == "close_file":
            self._sources.check_close(agent, file)
            return Access(agent, file, None)
        self._sources.check_open(agent, file)
        return Access(agent, file, timestamp(self._wall()))

    def _answer_unusable(self, unusable: Unusable) -> Answer:
        if unusable.id is None:
            self.dropped.append(unusable)
            return Answer(unusable.entry, None, None)
        return Answer(unusable.entry, unusable.id, refused(unusable.id, unusable.error))

    # --- in the files ---

    def _stage(self, staged: list[Staged]) -> Generator[str, None, None]:
        self._writer.keep_made()
        for agent in self._desk.folders_made:
            folder = os.path.join(PRIVATE, agent)
            yield "make folder"
            try:
                self._writer.make_directory(folder)
            except BlocksdError as error:
                raise _Unwritable(folder, error) from None
        for edit in self._desk.edits():
            yield "stage"
            try:
                staged.append(self._writer.stage(edit))
            except BlocksdError as error:
                raise _Unwritable(str(error.facts.get("path", edit.path)), error) from None
        if staged:
            yield "flush"
            try:
                self._writer.flush()
            except BlocksdError as error:
                raise _Unwritable(str(error.facts["path"]), error) from None

    def _write(
        self, work: Work, staged: list[Staged], entries: Sequence[Entry], merges: set[str]
    ) -> Generator[str, None, None]:
        at = timestamp(self._wall())
        folders_gone = [os.path.join(PRIVATE, agent) for agent in self._desk.folders_gone]
        prepared = Prepared(self._ledger.drafted, self._desk.paths, staged, work.edited, at, folders_gone)
        try:
            yield "prepare"
            self._pending.prepare(prepared, is_durable=self._writer.is_durable)
        except JournalUnusable:
            self._give_up(staged)
            raise
        put_in: list[Staged] = []
        try:
            for one in staged:
                yield "put in"
                if not self._writer.put_in(one):
                    self._take_back(put_in)
                    self._give_up(staged[len(put_in) + 1 :])
                    self._start_over(work, one.path, entries, merges)
                    return
                put_in.append(one)
            self._writer.sync(one.path for one in staged)
        except (Unavailable, ProblemFile) as error:
            self._take_back(put_in)
            self._pending.give_up()
            raise _Unwritable(str(error.facts["path"]), error) from None
        yield "finish"
        signatures = {
            one.path: self._writer.signature(one) for one in staged if printable(one.path) not in self._problems
        }
        self._pending.finish(prepared, signatures)
        work.revisions = self._ledger.settle()
        if folders_gone:
            self._discard(staged)
            yield "remove folders"
            for folder in _remove_folders(self._pending, self._writer):
                self._intake.hint_tree(folder)
        else:
            work.displaced = staged
        for label, path in self._desk.gone.items():
            self._intake.let_go(label, path)
        for path in self._desk.paths.values():
            self._ledger.signatures[path] = signatures.get(path)
        self._intake.expect(signatures)
        self._intake.note_names()

    def _take_back(self, staged: Sequence[Staged]) -> None:
        for one in reversed(staged):
            self._writer.take_back(one)

    def _give_up(self, staged: Sequence[Staged]) -> None:
        self._discard(staged)
        self._writer.remove_made()

    def _discard(self, staged: Sequence[Staged]) -> None:
        for one in staged:
            self._writer.discard(one)

    def _start_over(self, work: Work, path: str, entries: Sequence[Entry], merges: set[str]) -> None:
        """A person saved a file before we could: look at it, and do what was asked on top of it."""
        self._pending.give_up()
        self._ledger.begin_again()
        self._intake.hint_file(path, closed=False)
        self._intake.stale |= merges
        # What was refused may have been so for the sake of what is taken back now: all of it is decided anew.
        work.answers, work.accesses, work.postponed = [], [], list(entries)
        work.edited.clear()
        work.settled.clear()


def recover(pending: Pending, writer: Writer) -> bool:
    """Finish, or take back, what a crash, or a journal that took no more, has interrupted; whether there was anything.

    Raises:
        Misconfigured: the folder cannot be the one that was written to.
        JournalUnusable: the journal still takes no more.
    """
    prepared = pending.prepared()
    if prepared is not None:
        _finish_or_take_back(prepared, pending, writer)
    _remove_folders(pending, writer)
    return prepared is not None


def _finish_or_take_back(prepared: Prepared, pending: Pending, writer: Writer) -> None:
    """What is aside tells whether an edit is in its file, whoever has saved there since."""
    if prepared.staged and writer.is_empty:
        raise Misconfigured("the folder is empty, but files in it were being written: is it mounted?", key="folder")
    put_in = [one for one in prepared.staged if writer.is_in(one)]
    interrupted = [one for one in prepared.staged if writer.has_displaced(one)]
    is_done = (bool(put_in) or not prepared.staged) and not interrupted
    if is_done:  # some of it: the rest follows, if it can
        for one in prepared.staged:
            if one not in put_in:
                is_done = is_done and writer.put_in(one)
                put_in += [one] if is_done else []
    if is_done:
        writer.sync(one.path for one in prepared.staged)
        pending.finish(prepared)
    else:
        for one in reversed([*put_in, *interrupted]):
            writer.take_back(one)
        pending.give_up()
    for one in prepared.staged:
        writer.discard(one)
    if not is_done:
        writer.remove_made()


def _remove_folders(pending: Pending, writer: Writer) -> list[str]:
    """Remove the directories of deleted agents, but for those in which somebody has put something: which these are."""
    folders = pending.folders_gone()
    left = [folder for folder in folders if not writer.remove_directory(folder)]
    if folders:
        pending.forget_folders()
    return left
