"""Writes and removes files of the copy, so that neither a crash nor a power cut makes a local edit of what was written here."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from blocksd.errors import BlocksdError, Undecided
from blocksd.files.beneath import NOT_THERE
from blocksd.files.folder import packed
from blocksd.files.staging import digest
from blocksd.follow.place import Intent
from blocksd.follow.plan import Written
from blocksd.mirror.file_form import USUAL_MODE
from blocksd.model.label import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from blocksd.files.file_edit import Staged
    from blocksd.files.folder import Signature
    from blocksd.files.root import Root
    from blocksd.files.writer import Writer
    from blocksd.follow.comparison import Comparer, Outcome, Task
    from blocksd.follow.mirrored import Shown
    from blocksd.follow.place import Place


class Copier:
    """Writes the files of a follower. All that is asked for at once shares the waits for the disk.

    The order: the new texts beside the files, the intents, both on disk; then the files; then the note of what became of
    them. After a crash the intents tell which text was written here.
    """

    def __init__(self, root: Root, writer: Writer, place: Place, comparer: Comparer) -> None:
        self._root = root
        self._writer = writer
        self._place = place
        self._comparer = comparer
        self._aside: set[str] = set()  # what was displaced, may hold a late save, and cannot be read for now

    def bring(
        self, shown: Mapping[str, Shown], *, restores: bool, accepted: Mapping[str, str | None] | None = None
    ) -> Outcome:
        """Bring the files of these blocks to what the mirror shows; `restores` and `accepted` are as `compare` has them.

        What is not done is due, so that it is tried again.

        Raises:
            StateUnusable: nothing can be noted for now. What was done is seen at the next comparison.
        """
        outcome = self._comparer.compare(shown, restores=restores, accepted=accepted or {})
        for path, mode in outcome.modes.items():
            with suppress(OSError):  # a file of another user keeps its mode
                self._set_mode(path, mode)
        staged = self._stage(outcome)
        put_in = [(task, one) for task, one in staged if self._put_in(task, one, outcome)]
        over = {task.path for task, _ in staged if not self._is_undecided(task, outcome)}
        signatures: dict[str, Signature | None] = {}
        try:
            signatures = self._writer.settle([one for _, one in put_in])
        except BlocksdError:  # whether the names are on disk is not known: the intents stay, and tell
            over.clear()
        for task, one in put_in:
            if self._is_saved_late(task, one, outcome):
                if one.aside in self._aside:
                    over.discard(task.path)
                continue
            self._note(task, signatures.get(task.path), outcome)
        self._finish(outcome, over)
        for _, one in staged:
            if one.aside not in self._aside:
                self._writer.discard(one)
        self._remove_directories(outcome.removed)
        return outcome

    def _stage(self, outcome: Outcome) -> list[tuple[Task, Staged]]:
        """Lay the new texts beside their files, and record the intents, both on disk."""
        writer, staged = self._writer, list[tuple["Task", "Staged"]]()
        for task in outcome.tasks:
            try:
                staged.append((task, self._stage_one(task)))
            except BlocksdError as error:
                outcome.fail(task.path, task.label, error)
        if not staged:
            return staged
        try:
            writer.start_flush()
            self._place.intend(_intent(task, one) for task, one in staged)
        except BlocksdError:  # on disk the intents may be all the same: they fit a file that was not changed
            self._give_up(staged)
            raise
        try:
            writer.flush()
        except BlocksdError as error:
            for task, _ in staged:
                outcome.fail(task.path, task.label, error)
            self._give_up(staged)
            self._place.finish({}, over=[task.path for task, _ in staged])
            return []
        return staged

    def _stage_one(self, task: Task) -> Staged:
        """Lay one text beside its file. At no moment has a new file more rights than it is to have."""
        if task.mode is None:
            return self._writer.stage(task.edit)
        mask = os.umask(0o777 & ~task.mode)  # of this process, so of all threads: the others make private files only
        try:
            staged = self._writer.stage(task.edit)
        finally:
            os.umask(mask)
        with suppress(OSError):  # a service may be forbidden to
            self._set_mode(staged.aside, task.mode)
        return staged

    def _give_up(self, staged: Iterable[tuple[Task, Staged]]) -> None:
        for _, one in staged:
            self._writer.discard(one)
        self._writer.remove_made()

    def _put_in(self, task: Task, staged: Staged, outcome: Outcome) -> bool:
        try:
            if self._writer.put_in(staged):
                return True
            outcome.is_busy = True  # another process saved first, or is about to
            outcome.due.add(task.label)
        except BlocksdError as error:
            outcome.fail(task.path, task.label, error)
            if isinstance(error, Undecided):
                self._aside.add(staged.aside)
        return False

    def _is_undecided(self, task: Task, outcome: Outcome) -> bool:
        return isinstance(outcome.failed.get(task.path), Undecided)

    def _is_saved_late(self, task: Task, staged: Staged, outcome: Outcome) -> bool:
        """Return True if a process had the displaced file open, and saved to it since: that text is in its place again."""
        try:
            if not self._writer.is_saved_late(staged):
                return False
            self._writer.give_back_save(staged)
            outcome.is_busy = True
            outcome.due.add(task.label)
        except BlocksdError as error:  # it may be all there is of a save: it stays aside, and the intent with it
            outcome.fail(task.path, task.label, error)
            self._aside.add(staged.aside)
        return True

    def _note(self, task: Task, signature: Signature | None, outcome: Outcome) -> None:
        outcome.done.add(task.label)
        outcome.settled.append(task.path)
        (outcome.removed if task.wanted is None else outcome.written).append(task.path)
        new = None
        if task.wanted is not None:
            _, label, version, form, mode, data = task.wanted
            proof = packed(*signature) if signature is not None else None
            new = Written(label, version, form, str(digest(data)), mode, proof)
        outcome.notes[task.path] = new

    def _finish(self, outcome: Outcome, over: set[str]) -> None:
        """Note what became of the files."""
        made, due = list(self._writer.made), outcome.due - self._place.due
        self._writer.keep_made()
        done = (outcome.done & self._place.due) - outcome.due
        if outcome.notes or over or due or done or made:
            self._place.finish(outcome.notes, over=over, due=due, done=done, made=made)

    def _set_mode(self, path: str, mode: int) -> None:
        handle = self._root.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            self._root.set_mode(handle, mode)
        finally:
            self._root.close(handle)

    def _remove_directories(self, removed: Iterable[str]) -> None:
        """Remove the directories of these files that are empty now, if they were made here."""
        gone = []
        for directory in sorted({os.path.dirname(path) for path in removed}, key=len, reverse=True):
            above = directory
            while above and above in self._place.directories and above not in gone:
                try:
                    self._root.remove_directory(above)
                except OSError as error:
                    if error.errno not in NOT_THERE:
                        break
                gone.append(above)
                above = os.path.dirname(above)
        if gone:
            self._place.finish({}, removed=gone)

    def needs(self, aside: str) -> bool:
        """Return True if a temporary is not left behind, but still needed."""
        return aside in self._aside or any(intent.aside == aside for intent in self._place.intents)

    # --- after a crash ---

    def recover(self) -> list[str]:
        """Finish what a crash may have interrupted; return the paths of files beside it that may be saves, and are kept.

        Raises:
            StateUnusable, Undecided: that cannot be done now, and nothing may be written before.
        """
        kept: list[str] = []
        notes: dict[str, Written | None] = {}
        due, over = set[str](), set[str]()
        for intent in self._place.intents:
            try:
                found, beside = self._comparer.read(intent.path), self._comparer.read(intent.aside)
                if found.is_busy or beside.is_busy:
                    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
                if beside.digest in (intent.base, intent.data) and beside.digest is not None:
                    self._writer.remove(intent.aside)
                elif beside.digest is not None:
                    kept.append(intent.aside)
            except OSError as error:
                message = (
                    f"whether {printable(intent.path)} was written cannot be told: {os.strerror(error.errno or 0)}"
                )
                raise Undecided(message, path=intent.path) from None
            if found.digest == intent.data:
                notes[intent.path] = (
                    Written(intent.label, intent.version, intent.form, intent.data, intent.mode)
                    if intent.data is not None
                    else None
                )
            due.add(intent.label)
            over.add(intent.path)
        if over:
            self._place.finish(notes, over=over, due=due)
        self._aside.clear()
        return kept


def _intent(task: Task, staged: Staged) -> Intent:
    wanted = task.wanted
    about = (wanted.version, wanted.form, wanted.mode) if wanted is not None else (0, "", USUAL_MODE)
    return Intent(task.path, staged.aside, staged.base, staged.data, task.label, *about)
