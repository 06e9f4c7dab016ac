"""Commits requests: records the intent in the journal, exchanges the files, and journals the revisions."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from blocksd.core.recovery import give_back_kept, remove_folders
from blocksd.errors import BlocksdError, JournalUnusable, LeaseLost, ProblemFile, Unavailable, Undecided
from blocksd.files.folder import unpacked
from blocksd.files.writer import saved_over
from blocksd.journal.intents import Prepared
from blocksd.model.label import PRIVATE, printable
from blocksd.model.problem import KEPT, LEFT, kept_aside, left_behind
from blocksd.state.part import Part
from blocksd.state.schedule import NEVER

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from blocksd.core.decide import Draft
    from blocksd.core.intake import Intake
    from blocksd.files.file_edit import Staged
    from blocksd.files.folder import Signature
    from blocksd.files.writer import Writer
    from blocksd.journal.intents import Intents
    from blocksd.journal.results import Results
    from blocksd.model.revision import Revision
    from blocksd.sources.sources import Sources
    from blocksd.state.part import Shared

_TRIES = 3  # of a file that cannot be written just now
# After which what was done last is synced, if no request has done that; what is kept is tried again.
_REST_SECONDS = 1.0


class Conflict(Exception):  # no error: the draft is thrown away
    """A request could not be written to its file; nothing of the draft was done. `why` is None if a person saved first."""

    def __init__(self, path: str, why: BlocksdError | None = None) -> None:
        super().__init__(path)
        self.path = path
        self.why = why


class Executor(Part):
    """Brings a draft into force, all of whose requests share the waits for the disk.

    Invariants:
      1. a request is answered when its file is on disk and its revision prepared, or when it changed nothing;
      2. a crash at any moment leaves all of a round's edits or none, and what was prepared tells which;
      3. what a person saves meanwhile stays: then the round is taken back, and its requests are done on top;
      4. what tells that a file was changed lies beside it until the journal's word that it was is on disk.
    """

    def __init__(
        self, shared: Shared, intents: Intents, results: Results, intake: Intake, sources: Sources, writer: Writer
    ) -> None:
        super().__init__(shared)
        self._intents = intents
        self._results = results
        self._intake = intake
        self._sources = sources
        self._writer = writer
        self.displaced: dict[str, Staged] = {}  # by `aside`: what was put in, and what it displaced not read again
        self._retired: dict[str, Staged] = {}  # by `aside`: what is over, and not known to be on disk
        self.has_left = False  # temporaries that cannot be removed were reported
        self.free: list[Staged] = []  # what was retired, and is known to be on disk
        # What was put in and is to be journaled, with the signatures of the files.
        self.unfinished: tuple[Draft, Prepared, dict[str, Signature | None]] | None = None

    def carry_out(self, draft: Draft, until: float) -> Generator[str, None, list[Revision]]:
        """Do what was asked for: in the files, then in the journal. Yields the name of each durable effect before it happens.

        Requests are done if that can begin before the time `until`: later another daemon may do them. `finish` is left to do.

        Raises:
            Conflict: nothing was done, but what files said is in force.
            JournalUnusable: nothing was done; the state is to be loaded anew.
            LeaseLost: nothing was done; what was taken is another daemon's to do.
        """
        revisions = draft.requested.revisions
        answers, settled = draft.answers, draft.answers.settled
        staged = (yield from self._stage(draft)) if draft.edits or draft.folders_made else []
        if revisions or draft.edits or draft.folders_gone:
            yield from self._write(draft, staged, until)
        else:
            settled = settled | answers.edited
            if draft.requested:
                draft.requested.apply()
        if settled or answers.accesses:
            yield from self.finish()  # outcomes are counted by the revisions in force
            yield "settle"
            self._results.write(answers.accesses, settled, draft.requested.at)
            if answers.accesses:
                self._sources.apply(answers.accesses)
        return revisions

    def _stage(self, draft: Draft) -> Generator[str, None, list[Staged]]:
        """Lay the new texts beside their files, on their way to disk; where recovery needs their names, those are there."""
        staged: list[Staged] = []
        writer, path = self._writer, ""
        if writer.made:
            writer.keep_made()
        try:
            for agent in draft.folders_made:
                path = os.path.join(PRIVATE, agent)
                yield "make folder"
                writer.make_directory(path)
            for edit in draft.edits:
                path = edit.path
                yield "stage"
                staged.append(writer.stage(edit))
            if staged and writer.is_durable:
                writer.start_flush()
                if named := _to_be_found(draft, staged):
                    yield "flush"
                    writer.flush(named)
        except BlocksdError as error:
            self._give_up(staged)
            raise Conflict(str(error.facts.get("path", path)), error) from None
        return staged

    def _write(self, draft: Draft, staged: list[Staged], until: float) -> Generator[str, None, None]:
        """Record the intent while the new texts get to disk, and put them in."""
        writer, intents = self._writer, self._intents
        folders_gone = [os.path.join(PRIVATE, agent) for agent in draft.folders_gone]
        prepared = Prepared(
            draft.requested.revisions,
            draft.gone | draft.paths,
            staged,
            draft.answers.edited,
            draft.requested.at,
            folders_gone,
        )
        try:
            yield "prepare"
            if draft.asked.entries and self._clock() >= until:
                message = "the lease may have passed to another daemon: its requests are not done here"
                raise LeaseLost(message, holder={})
            intents.prepare(prepared, is_durable=writer.is_durable)
            self._all_is_on_disk()
        except LeaseLost:
            self._give_up(staged)
            raise
        except JournalUnusable:
            self._retire(staged)  # the disk may have it all the same
            writer.remove_made()
            raise
        put_in: list[Staged] = []
        try:
            if staged:
                yield "flush"
                if writer.is_durable:
                    writer.flush()  # what is put in must be whole after a power cut
            for one in staged:
                yield "put in"
                if not self._put_in(one):
                    self._take_back(put_in, staged)
                    raise Conflict(one.path)
                put_in.append(one)
            edited, known = {edit.path for edit in draft.edits}, draft.requested.state.signatures
            paths = [path for path in draft.paths.values() if path not in edited]
            signatures = {path: unpacked(its) if (its := known.get(path)) else None for path in paths}
            signatures |= writer.settle(staged)  # the others are as they were
        except Undecided:
            raise  # what is prepared stays so, until `recover` can tell
        except (Unavailable, ProblemFile) as error:
            self._take_back(put_in, staged)
            raise Conflict(str(error.facts["path"]), error) from None
        reported, told = self._problems.subjects, {draft.paths.get(one.label) for one in draft.requested.revisions}
        for path in [one for one in signatures if one in edited - told or (reported and printable(one) in reported)]:
            del signatures[path]  # it is read again: it may be in order now, or say the same in another form
            self._intake.hint_file(path, closed=True)
        self.unfinished = draft, prepared, signatures
        if folders_gone or draft.requested.has_attachments:  # the mirror is shown what is in force of them
            yield from self.finish()
        if folders_gone:
            self._discard(self._read_displaced())
            yield "remove folders"
            for folder in remove_folders(intents, writer):
                self._intake.hint_tree(folder)

    def finish(self) -> Generator[str, None, None]:
        """Journal that what was put in is in force, if that is not done, and put it into force.

        No reader waits for it: what was prepared is on disk, so is what was put in, and `recover` does the same.
        """
        if self.unfinished is None:
            return
        (draft, prepared, signatures), self.unfinished = self.unfinished, None
        yield "finish"
        self._intents.finish(prepared, signatures, is_durable=bool(prepared.folders_gone))
        self.displaced.update((one.aside, one) for one in prepared.staged)
        # Into force before anything that may fail: the journal has it.
        draft.requested.apply({path: signatures.get(path) for path in draft.paths.values()})
        if draft.gone:
            self._intake.release(draft.gone)

    def _put_in(self, staged: Staged) -> bool:
        """Put a new text in; try several times, since the others of the round are seen by readers already.

        Return False if another process has saved. Raises as `Writer.put_in` does.
        """
        for _ in range(_TRIES - 1):
            try:
                return self._writer.put_in(staged)
            except Undecided:
                raise
            except Unavailable:  # nothing was changed
                continue
        return self._writer.put_in(staged)

    # --- what was displaced ---

    def clear_away(self) -> None:
        """Remove what was displaced, as far as it is no longer needed; what a crash leaves, the next start looks at.

        After a power cut the journal may say only that the files of the last round were about to be changed. What they
        displaced tells that they were, so it stays until that is on disk: the next `prepare` takes it along, or `tidy`.
        """
        if self._schedule["kept"] < NEVER:
            for path in give_back_kept(self._intents, self._writer):
                self._intake.hint_file(path, closed=False)
        read = self._read_displaced()
        if self._schedule["kept"] < NEVER:
            self._report_kept()
            self._schedule["kept"] = self._clock() + _REST_SECONDS if self._intents.kept else NEVER
        self._discard(self.free)
        self.free = []
        self._retire(read)

    def _read_displaced(self) -> list[Staged]:
        """Look once more at what was displaced, and put back what was saved to it; those that nothing is kept aside of."""
        read, unread = [], []
        for one in self.displaced.values():
            try:
                if self._writer.is_saved_late(one):
                    self._intents.sync()
                    self._intake.hint_file(one.path, closed=False)
                    self._writer.give_back_save(one)
            except (Unavailable, ProblemFile):  # it cannot be read or put back now, and may be all there is of a save
                unread.append(one)
            else:
                read.append(one)
        self.displaced = {}
        if unread:
            self._schedule["kept"] = 0.0
            self._intents.set_kept([*self._intents.kept, *self._intents.of_this_boot(unread)])
        return read

    def tidy(self) -> None:
        """Have what was finished on disk, and remove what was displaced by it.

        Raises:
            JournalUnusable: that cannot be done now.
        """
        if self._retired:
            self._schedule["tidy"] = self._clock() + _REST_SECONDS
            self._intents.sync()
            self._all_is_on_disk()
        self._discard(self.free)
        self.free = []

    def needs(self, path: str) -> bool:
        """Return True if a temporary of ours is not left behind by a crash, but still needed."""
        return (
            path in self._retired
            or path in self.displaced
            or any(kept.staged.aside == path for kept in self._intents.kept)
        )

    def remove_left(self) -> None:
        """Remove temporaries of ours that a crash has left, as far as that can be done: they harm nobody."""
        scanner, left = self._intake.scanner, self._writer.left
        found, scanner.left = scanner.left, []
        for path in found:
            # In a folder that has taken the place of ours they may be another daemon's.
            if not (self.needs(path) or self._intake.deletions.is_in_doubt):
                self._writer.remove(path)
        self.has_left = bool(left)
        if not left:
            self._problems.remove(LEFT)
            return
        self._problems.set(left_behind(left))

    def _report_kept(self) -> None:
        """Report which files lie aside that may be saves, for as long as they do."""
        all_kept = self._intents.kept
        if not all_kept:
            self._problems.remove(KEPT)
            return
        self._problems.set(kept_aside([(one.staged.aside, one.staged.path) for one in all_kept]))

    def _retire(self, staged: Sequence[Staged]) -> None:
        """Keep what lies aside until what the journal says of it is on disk."""
        if not self._writer.is_durable:
            self._discard(staged)
            return
        self._retired.update((one.aside, one) for one in staged)
        if self._retired:
            self._schedule["tidy"] = self._clock() + _REST_SECONDS

    def _all_is_on_disk(self) -> None:
        """Note that all that was committed is on disk: what is retired is free."""
        self.free += self._retired.values()
        self._retired = {}
        self._schedule["tidy"] = NEVER

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
        self._intents.give_up()
        self._all_is_on_disk()
        self._give_up(staged)

    def _give_up(self, staged: Sequence[Staged]) -> None:
        self._discard(staged)
        self._writer.remove_made()

    def _discard(self, staged: Sequence[Staged]) -> None:
        for one in staged:
            self._writer.discard(one)


def _to_be_found(draft: Draft, staged: Sequence[Staged]) -> list[Staged]:
    """Those whose names aside must be on disk before they are prepared.

    A new file has displaced nothing: it is in if its name aside is gone, so that name must have been there. What one
    request does to several files is done to all of them, if to any: so their new texts must be there.
    """
    labels: dict[str | None, set[str]] = {}
    for one in draft.requested.revisions:
        labels.setdefault(one.request_id, set()).add(one.label)
    if any(len(some) > 1 for request_id, some in labels.items() if request_id is not None):
        return [one for one in staged if one.data is not None]
    return [one for one in staged if one.base is None]
