"""Carries requests out: first on paper, then in the files, then in the journal."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from blocksd.core.recovery import give_back_kept, remove_folders
from blocksd.errors import (
    BlocksdError,
    InvalidRequest,
    JournalDamaged,
    JournalUnusable,
    LeaseLost,
    Misconfigured,
    NotFound,
    ProblemFile,
    Unavailable,
    Undecided,
)
from blocksd.files.file_edit import Postponed
from blocksd.files.writer import saved_over
from blocksd.journal.intents import Prepared
from blocksd.journal.results import Access
from blocksd.mirror.view import shown
from blocksd.model.faults import Fault
from blocksd.model.label import PRIVATE, parse_agent, printable
from blocksd.model.problem import FOLDER, KEPT, Problem, unmerged, unmerged_subject
from blocksd.model.revision import OPERATOR, timestamp
from blocksd.requests.execution import decide
from blocksd.requests.reply import Answer, accepted, kept, kept_refusal, refused, repeated
from blocksd.requests.request import Request, Unusable, parse
from blocksd.requests.started import ATTEMPTS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from blocksd.core.intake import Intake
    from blocksd.files.file_edit import Staged
    from blocksd.files.writer import Writer
    from blocksd.journal.intents import Pending
    from blocksd.journal.results import Outcomes
    from blocksd.model.faults import Faults
    from blocksd.model.problems import Problems
    from blocksd.model.revision import Revision
    from blocksd.requests.handled import Spent
    from blocksd.requests.inbox import Inbox
    from blocksd.requests.request import Entry
    from blocksd.requests.started import Begun
    from blocksd.requests.workspace import Desk
    from blocksd.sources.sources import Sources
    from blocksd.state.state import Ledger

REQUESTS = 64
"""How many requests are carried out between two looks at the folder: each may have to read a file."""

ROUND = 8 * 1024 * 1024
"""How many characters a round takes requests for, of revisions to write and of texts to search: what goes over it waits
for the next, so that a round takes a fraction of the time after which the daemon counts as hung."""

_MERGE_SECONDS = (1.0, 300.0)
"""Until a stale save whose file could not be written is merged again, the first time and at most."""

WRITER_PATIENCE_SECONDS = 10.0
"""For how long a request waits for a file that another program has open for writing."""

_REST_SECONDS = 1.0  # after which what was done last is synced, if no request has come that does that on the way
_PAUSE_SECONDS = (0.01, 1.0)  # until a request to a file that somebody is changing is tried again, at least and at most


@dataclass(slots=True)
class Work:
    """What one round of requests comes to.

    `replies` are those of all its requests. Outcomes, as they are kept, are `settled` if they wait for no file, else
    `edited`: they stand as soon as the files say so.
    """

    answers: list[Answer] = field(default_factory=list)
    replies: dict[tuple[str, str], str] = field(default_factory=dict)
    settled: dict[tuple[str, str], str] = field(default_factory=dict)
    edited: dict[tuple[str, str], str] = field(default_factory=dict)
    accesses: list[Access] = field(default_factory=list)
    postponed: list[Entry] = field(default_factory=list)
    revisions: list[Revision] = field(default_factory=list)
    agents_gone: set[str] = field(default_factory=set)
    cut: Sequence[Entry] = ()  # those of the postponed that wait for nothing but the next round


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
      3. what a person saves meanwhile stays: then the round is taken back, and its requests are done on top;
      4. what tells that a file was changed lies beside it until the journal's word that it was is on disk.
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
        faults: Faults,
        begun: Begun,
        spent: Spent,
        *,
        is_in_charge: Callable[[], bool],
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        """`is_in_charge` tells whether no other daemon can be doing the same requests."""
        self._pending = pending
        self._outcomes = outcomes
        self._ledger = ledger
        self._intake = intake
        self._problems = problems
        self._sources = sources
        self._inbox = inbox
        self._desk = desk
        self._writer = writer
        self._faults = faults
        self._begun = begun
        self._spent = spent
        self._taken: list[Entry] = []  # and not known to be over
        self._unmerged: dict[str, tuple[float, float]] = {}  # label → when it is tried again, and after how long then
        self._is_in_charge = is_in_charge
        self._clock = clock
        self._wall = wall
        self._waiting: dict[Entry, float] = {}  # requests that wait for an open file: since when
        self.dropped: list[Unusable] = []  # what came in and could not be replied to, for a log
        self._displaced: dict[str, Staged] = {}  # by `aside`: what was put in, and what it displaced not read again
        self._retired: dict[str, Staged] = {}  # by `aside`: what is over, and not known to be on disk
        self._free: list[Staged] = []  # what was retired, and is known to be on disk
        self.tidy_due = float("inf")  # when what is retired is to be synced

    def carry_out(self) -> Generator[str, None, Work]:
        """Do what is waiting. Yields the name of each durable effect before it happens.

        Raises:
            JournalUnusable: nothing was done; the ledger is to be loaded anew.
            LeaseLost: nothing was done; what was taken is another daemon's to do.
        """
        entries = self._inbox.take(REQUESTS)
        merges = self._due_merges()
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
        for label in merges - self._intake.stale:
            self._unmerged.pop(label, None)
            self._problems.remove(unmerged_subject(label))
        if work.settled or work.accesses:
            yield "settle"
            self._outcomes.settle(work.accesses, work.settled, timestamp(self._wall()))
            self._sources.apply(work.accesses)
        self._inbox.postpone(work.postponed, 0.0 if work.cut else self._try_again_at(), cut=work.cut)
        return work

    def end(self) -> None:
        """What was taken is over: it was replied to, or is taken again."""
        if self._taken:
            self._begun.end(self._taken)
            self._taken = []

    @property
    def due(self) -> float:
        """When a stale save is to be merged, if there is one."""
        stale = self._intake.stale
        return min([self._unmerged.get(label, (0.0, 0.0))[0] for label in stale]) if stale else float("inf")

    def _due_merges(self) -> set[str]:
        """The blocks whose stale saves are to be merged now; they are taken off the list of those that wait."""
        now, stale = self._clock(), self._intake.stale
        due = {label for label in stale if self._unmerged.get(label, (0.0, 0.0))[0] <= now}
        self._intake.stale = stale - due
        return due

    def clear_away(self) -> None:
        """Remove what was displaced, as far as it is no longer needed; what a crash leaves, the next start looks at.

        After a power cut the journal may say only that the files of the last round were about to be changed. What they
        displaced tells that they were, so it stays until that is on disk: the next `prepare` takes it along, or `tidy`.
        """
        for path in give_back_kept(self._pending, self._writer):
            self._intake.hint_file(path, closed=False)
        read = self._read_displaced()
        self._tell_kept()
        self._discard(self._free)
        self._free = []
        self._retire(read)

    def _read_displaced(self) -> list[Staged]:
        """Look once more at what was displaced, and put back what was saved to it; those that nothing is kept aside of."""
        read, unread = [], []
        for one in self._displaced.values():
            try:
                if self._writer.is_saved_late(one):
                    self._pending.sync()
                    self._intake.hint_file(one.path, closed=False)
                    self._writer.give_back_save(one)
            except (Unavailable, ProblemFile):  # it cannot be read or put back now, and may be all there is of a save
                unread.append(one)
            else:
                read.append(one)
        self._displaced = {}
        if unread:
            self._pending.keep([*self._pending.kept, *self._pending.keep_aside(unread)])
        return read

    @property
    def has_displaced(self) -> bool:
        """Return True if there is what was displaced, and has not been looked at again."""
        return bool(self._displaced)

    @property
    def has_free(self) -> bool:
        """Return True if `clear_away` has something to do."""
        return bool(self._displaced or self._free or self._pending.kept or KEPT in self._problems)

    def tidy(self) -> None:
        """Have what was finished on disk, and remove what was displaced by it.

        Raises:
            JournalUnusable: that cannot be done now.
        """
        if self._retired:
            self.tidy_due = self._clock() + _REST_SECONDS
            self._journal_is_on_disk(self._pending.sync)
        self._discard(self._free)
        self._free = []

    def keeps(self, path: str) -> bool:
        """Return True if a temporary of ours is not left behind by a crash, but still needed."""
        return (
            path in self._retired
            or path in self._displaced
            or any(kept.staged.aside == path for kept in self._pending.kept)
        )

    def _tell_kept(self) -> None:
        """Say which files lie aside that may be saves, for as long as they do."""
        if not self._pending.kept:
            if KEPT in self._problems:
                self._problems.remove(KEPT)
            return
        kept = self._pending.kept[0]
        where, place = printable(kept.staged.aside), printable(kept.staged.path)
        message = f"{where} may be a save to {place} that came late, and cannot be put back for now"
        if len(self._pending.kept) > 1:
            message = f"{message}; there are {len(self._pending.kept)} such files"
        hint = "it is kept, and tried again; take from it what is wanted, and remove it"
        self._problems.set(Problem(KEPT, "kept", message, hint, warning=True))

    def _retire(self, staged: Sequence[Staged]) -> None:
        """Keep what lies aside until what the journal says of it is on disk."""
        if not self._writer.is_durable:
            self._discard(staged)
            return
        self._retired.update((one.aside, one) for one in staged)
        if self._retired:
            self.tidy_due = self._clock() + _REST_SECONDS

    def _journal_is_on_disk(self, commit: Callable[[], None]) -> None:
        """Commit so that all that was committed before is on disk, too: then what is retired is free."""
        commit()
        self._free += self._retired.values()
        self._retired = {}
        self.tidy_due = float("inf")

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
        alone = self._begun.first_alone(entries)
        self._taken = list(entries[:alone])
        if self._taken:
            self._begun.begin(self._taken)
        for place, entry in enumerate(entries):
            if place >= alone or self._desk.load > ROUND:
                work.cut = entries[place:]
                if place >= alone:
                    # One that waits for a file must not be taken again and again in the place of one to be done alone.
                    work.postponed = [*work.cut, *work.postponed]
                else:
                    work.postponed += work.cut
                break
            answer = self._answer(entry, work)
            if answer is not None:
                work.answers.append(answer)
        return work

    def _answer(self, entry: Entry, work: Work) -> Answer | None:
        """What an entry comes to, whatever goes wrong with it; None: it cannot be told yet."""
        mark, request = self._desk.mark, None
        try:
            request = parse(entry)
            if isinstance(request, Unusable):
                return self._answer_unusable(request)
            return self._answer_request(request, work)
        except (JournalUnusable, Misconfigured):
            raise
        except Exception as error:  # noqa: BLE001  # a fault of ours: this request ends by it, and nothing else
            self._desk.back_to(mark)
            key = entry.actor, getattr(request, "id", None) or ""
            work.edited.pop(key, None)
            work.replies.pop(key, None)
            failure = self._faults.note("carrying a request out", error)
            if request is None or request.id is None:
                self.dropped.append(Unusable(entry, None, failure))
                return Answer(entry, None, None)
            outcome = refused(request.id, failure)
            if isinstance(request, Request):
                work.settled[key] = work.replies[key] = outcome
            return Answer(entry, request.id, outcome, getattr(request, "op", None))

    def _answer_request(self, request: Request, work: Work) -> Answer | None:
        entry, key = request.entry, (request.actor, request.id)
        outcome = work.replies.get(key) or self._repeated(key)
        if outcome is None:
            try:
                self._check_spent(entry)
                self._check_attempts(entry)
                outcome = self._do(request, work)
            except Postponed as postponed:
                error = self._why_not_wait(postponed, entry)
                if error is None:
                    self._intake.look_again(postponed.path)
                    work.postponed.append(entry)
                    return None
                outcome = refused(request.id, error)
            except JournalDamaged:
                raise
            except JournalUnusable as error:  # a version that is wanted for this, and cannot be read
                outcome = refused(request.id, Unavailable(error.message))
            except BlocksdError as error:
                outcome = refused(request.id, error)
                if not isinstance(error, Unavailable):  # which may pass, and is worth another try
                    label = error.facts.get("label")
                    in_it = self._ledger.newest(label) if "block" in error.facts and isinstance(label, str) else None
                    work.settled[key] = kept_refusal(request.id, error, in_it)
                    work.replies[key] = outcome
        return Answer(entry, request.id, outcome, request.op)

    def _why_not_wait(self, postponed: Postponed, entry: Entry) -> Unavailable | None:
        """Why a request is refused that waits for a file; None while it may wait."""
        path = printable(postponed.path)
        if self._intake.deletions.is_held_back(postponed.path):
            return Unavailable(self._problems[FOLDER].message)
        now = self._clock()
        if not postponed.is_open:
            self._waiting.pop(entry, None)
            return None
        if now - self._waiting.setdefault(entry, now) < WRITER_PATIENCE_SECONDS:
            return None
        self._waiting = {
            one: since for one, since in self._waiting.items() if now - since < 2 * WRITER_PATIENCE_SECONDS
        }
        del self._waiting[entry]
        problem = self._problems.get(path)
        why = problem.message if problem is not None else "it is open for writing by another program"
        return Unavailable(f"{path}: {why}; nothing is written to it until it is closed", path=path)

    def _check_spent(self, entry: Entry) -> None:
        """Raises InvalidRequest when an entry was dealt with so long ago that its outcome is forgotten."""
        if self._spent.has(entry):
            raise InvalidRequest(
                f"the entry {entry.id} is not newer than others of this inbox that were dealt with long ago: nothing was done; "
                "read the block, and send the request again if it is still wanted",
                field="id",
            )

    def _check_attempts(self, entry: Entry) -> None:
        """Raises InternalError when the daemon ended each time it began this request."""
        attempts = self._begun.attempts(entry)
        if attempts >= ATTEMPTS:
            text = f"the request {entry.id} in the inbox of {printable(entry.actor)} was begun {attempts} times"
            fault = Fault("each time it began a request", "Unfinished", f"inbox of {printable(entry.actor)}", text)
            raise self._faults.add(fault)

    def _do(self, request: Request, work: Work) -> str:
        """The reply to a request, once it is done.

        Raises:
            Postponed: it cannot be done yet.
            BlocksdError: it is refused.
        """
        request.check_deadline(self._wall())
        key = (request.actor, request.id)
        if request.op in ("open_file", "close_file"):
            access = access_of(request, self._sources, self._check_known, timestamp(self._wall()))
            work.accesses.append(access)
            work.settled[key] = work.replies[key] = accepted(request.id, **access.as_json())
            return work.settled[key]
        problem = self._problems.get(FOLDER)
        if problem is not None and self._intake.deletions.is_in_doubt:
            raise Unavailable(f"{problem.message}; nothing can be written until it is back", path="")
        self._check_known(request.actor)
        before = self._desk.agents_gone
        facts = decide(self._desk, request)
        edited, reply = accepted(request.id, **kept(facts)), accepted(request.id, **facts)
        for agent in self._desk.agents_gone - before:
            opened = {*self._sources.opened_by(agent), *(one.file for one in work.accesses if one.agent == agent)}
            work.accesses += [Access(agent, file, None) for file in sorted(opened)]
        work.edited[key], work.replies[key] = edited, reply
        return reply

    def _check_known(self, agent: str) -> None:
        """Raises NotFound when there is no such agent any more: what it had asked for would bring it back."""
        if agent != OPERATOR and not self._ledger.attachments.is_known(agent):
            raise NotFound(f"there is no agent {printable(agent)!r}", agent=printable(agent))

    def _repeated(self, key: tuple[str, str]) -> str | None:
        """The reply to a request that was done before, made again; None when it was not, or too long ago."""
        outcome = self._outcomes.of(*key)
        return repeated(outcome, self._block_of) if outcome is not None else None

    def _block_of(self, seq: int) -> dict[str, Any] | None:
        revision = self._ledger.revision(seq)
        return shown(revision) if revision is not None else None

    def _merge(self, label: str) -> None:
        """Put a stale save and what came before it together; what cannot be merged any more stays as it was saved."""
        mark = self._desk.mark
        shortest, longest = _PAUSE_SECONDS
        try:
            self._desk.merge_stale(label)
        except Postponed as postponed:
            self._intake.look_again(postponed.path)
            self._merge_later(label, shortest, longest)
            return
        except JournalDamaged:
            raise
        except (Unavailable, JournalUnusable) as error:
            self._merge_later(label, *_MERGE_SECONDS)
            self._problems.set(unmerged(label, error))
            return
        except BlocksdError:
            pass
        except Exception as error:  # noqa: BLE001  # a fault of ours: the save stays as it is
            self._desk.back_to(mark)
            self._faults.note("merging a save", error)

    def _merge_later(self, label: str, shortest: float, longest: float) -> None:
        """Try again after a while, which doubles each time."""
        _, wait = self._unmerged.get(label, (0.0, 0.0))
        wait = min(max(2 * wait, shortest), longest)
        self._unmerged[label] = self._clock() + wait, wait
        self._intake.stale.add(label)

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
                self._writer.sync(self._to_be_found(staged))
            except BlocksdError as error:
                raise _Unwritable(str(error.facts["path"]), error) from None

    def _to_be_found(self, staged: Sequence[Staged]) -> list[Staged]:
        """Those whose names aside must be on disk before they are prepared.

        A new file has displaced nothing: it is in if its name aside is gone, so that name must have been there. What one
        request does to several files is done to all of them, if to any: so their new texts must be there.
        """
        labels: dict[str | None, set[str]] = {}
        for one in self._ledger.drafted:
            labels.setdefault(one.request_id, set()).add(one.label)
        if any(len(some) > 1 for request_id, some in labels.items() if request_id is not None):
            return [one for one in staged if one.data is not None]
        return [one for one in staged if one.base is None]

    def _write(
        self, work: Work, staged: list[Staged], entries: Sequence[Entry], merges: set[str]
    ) -> Generator[str, None, None]:
        at = timestamp(self._wall())
        folders_gone = [os.path.join(PRIVATE, agent) for agent in self._desk.folders_gone]
        paths = self._desk.gone | self._desk.paths
        prepared = Prepared(self._ledger.drafted, paths, staged, work.edited, at, folders_gone)
        try:
            yield "prepare"
            if entries and not self._is_in_charge():
                message = "the lease may have passed to another daemon: its requests are not done here"
                raise LeaseLost(message, holder={})
            self._journal_is_on_disk(lambda: self._pending.prepare(prepared, is_durable=self._writer.is_durable))
        except LeaseLost:
            self._give_up(staged)
            raise
        except JournalUnusable:
            self._retire(staged)  # the disk may have it all the same
            self._writer.remove_made()
            raise
        put_in: list[Staged] = []
        try:
            for one in staged:
                yield "put in"
                if not self._writer.put_in(one):
                    self._take_back(put_in, staged)
                    self._start_over(work, one.path, entries, merges)
                    return
                put_in.append(one)
            self._writer.sync(staged)
        except Undecided:
            raise  # what is prepared stays so, until `recover` can tell
        except (Unavailable, ProblemFile) as error:
            self._take_back(put_in, staged)
            raise _Unwritable(str(error.facts["path"]), error) from None
        yield "finish"
        signatures = {
            one.path: self._writer.signature(one) for one in staged if printable(one.path) not in self._problems
        }
        self._pending.finish(prepared, signatures, is_durable=bool(folders_gone))
        self._outcomes.count(work.edited)
        work.revisions = self._ledger.settle()
        work.agents_gone = {agent for agent in self._desk.agents_gone if not self._ledger.attachments.is_known(agent)}
        self._displaced.update((one.aside, one) for one in staged)
        if folders_gone:
            self._discard(self._read_displaced())
            yield "remove folders"
            for folder in remove_folders(self._pending, self._writer):
                self._intake.hint_tree(folder)
        for label, path in self._desk.gone.items():
            self._intake.let_go(label, path)
        for path in self._desk.paths.values():
            self._ledger.signatures[path] = signatures.get(path)
        self._intake.expect(signatures)
        self._intake.note_names()

    def _take_back(self, put_in: Sequence[Staged], staged: Sequence[Staged]) -> None:
        """Take back what was put in, and give up the whole round: first in the files, then in the journal, on disk both.

        An edit over which a person has saved since is not taken back: their text may have been made of it, so that doing it
        once more would double it. `recover` finishes it.

        Raises:
            JournalUnusable, Undecided: that could not be done; `recover` does it.
        """
        for one in reversed(put_in):
            if not self._writer.take_back(one):
                raise saved_over(one)
        with suppress(Unavailable, ProblemFile):  # that may be why: nothing more can be done
            self._writer.sync(staged)
        self._journal_is_on_disk(self._pending.give_up)
        self._give_up(staged)

    def _give_up(self, staged: Sequence[Staged]) -> None:
        self._discard(staged)
        self._writer.remove_made()

    def _discard(self, staged: Sequence[Staged]) -> None:
        for one in staged:
            self._writer.discard(one)

    def _start_over(self, work: Work, path: str, entries: Sequence[Entry], merges: set[str]) -> None:
        """A person saved a file before we could: look at it, and do what was asked on top of it."""
        self._ledger.begin_again()
        self._intake.hint_file(path, closed=False)
        self._intake.stale |= merges
        # What was refused may have been so for the sake of what is taken back now: all of it is decided anew.
        work.answers, work.accesses, work.postponed = [], [], list(entries)
        work.replies.clear()
        work.edited.clear()
        work.settled.clear()


def access_of(request: Request, sources: Sources, check_known: Callable[[str], None], at: str) -> Access:
    """Return what a request to open or close a file comes to, at this time.

    Raises:
        BlocksdError: it may not, or there is no such agent or file.
    """
    if request.actor == OPERATOR:
        agent, file = request.texts("agent", "file")
        agent = parse_agent(agent)
    else:
        agent, (file,) = request.actor, request.texts("file")
    check_known(agent)
    if request.op == "close_file":
        sources.check_close(agent, file)
        return Access(agent, file, None)
    sources.check_open(agent, file)
    return Access(agent, file, at)
