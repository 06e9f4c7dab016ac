"""What the folder says: looks at files, and decides what is in force by them.

Hints say where to look, nothing more. What is in force is in the ledger, what is wrong with the rest in the problems;
nothing here writes anything.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from blocksd.core.deletions import Deletions
from blocksd.core.private_folders import PrivateFolders
from blocksd.core.scanner import Sweeper
from blocksd.errors import BlocksdError, InvalidFile, JournalUnusable
from blocksd.files.document import Parser
from blocksd.files.folder import Absent, Busy, Refused, Text
from blocksd.model.faults import Faults
from blocksd.model.label import (
    CONFIG_MAP,
    PRIVATE,
    clash_key,
    is_block_file,
    is_ignored,
    label_of_path,
    printable,
)
from blocksd.model.problem import Problem, label_conflict, name_conflict, problem_of, warning_of
from blocksd.state.read_queue import LookQueue
from blocksd.state.stale import Writes, origin_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from blocksd.files.folder import Folder, Signature
    from blocksd.journal.journal import Journal
    from blocksd.model.block import Block
    from blocksd.model.problems import Problems
    from blocksd.state.state import Ledger

_SEARCH_SECONDS = 60.0  # between two searches for the processes that write a file


class Intake:
    """The daemon's view of one folder. It owns what finds the files to look at, and what judges those that are missing.

    Times are of a monotonic clock, in seconds.
    """

    def __init__(
        self,
        folder: Folder,
        journal: Journal,
        ledger: Ledger,
        problems: Problems,
        *,
        delete_grace: float,
        stale_window: float,
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
        faults: Faults | None = None,
    ) -> None:
        self._faults = faults or Faults(problems)
        self._folder = folder
        self._journal = journal
        self._ledger = ledger
        self._problems = problems
        self.stale_window = stale_window  # seconds
        self.writes = Writes(journal.seq, clock=clock, wall=wall)
        self._clock = clock
        self.deletions = Deletions(folder, journal, ledger, problems, grace=delete_grace, clock=clock)
        self._reported: set[str] = set()  # files that have a problem, whatever the ledger knows of them
        self._queue = LookQueue(clock)
        self.sweeper = Sweeper(
            folder, ledger, self._queue, problems, known=lambda: self._reported.union(ledger.signatures)
        )
        self._private_folders = PrivateFolders(folder, ledger)
        self._writers: dict[
            str, tuple[str, float]
        ] = {}  # which processes write a file, and when they were searched for
        self._standing_back: dict[str, set[str]] = {}  # clash key → files whose label another has
        self.reset()

    def reset(self) -> None:
        """The ledger begins anew. A sweep under way has compared with what is forgotten now: it is void."""
        self.sweeper.give_up()
        self._files: dict[str, tuple[str, Signature | None]] = {}
        self._names_noted = False
        self._parser = Parser()
        self._links: set[str] = set()
        self._expected: dict[str, Signature] = {}  # of files that were written on request, and not looked at since
        self.stale = set(self._journal.unmerged())  # blocks whose newest revision is a stale save, to be merged

    # --- hints ---

    def hint_file(self, path: str, *, closed: bool) -> None:
        """Something happened to this file; `closed` if its writer was seen to be done."""
        *directories, name = path.split("/")
        if any(is_ignored(directory) or is_block_file(directory) for directory in directories):
            return  # no sweep goes there either
        if is_block_file(name):
            self._queue.hint(path, closed=closed)
        elif name == CONFIG_MAP:  # what the links lead to has changed, all at once
            for link in self._links:
                self._queue.add(link, closed=True)

    def expect(self, signatures: Mapping[str, Signature | None]) -> None:
        """These files were written on request, and say what is in force: hints of that are no news."""
        for path, signature in signatures.items():
            if signature is not None:
                self._expected[path] = signature

    def look_again(self, path: str) -> None:
        """A file is not what the ledger says. If it is known to be missing, that is decided when its grace is over."""
        if path not in self.deletions.missing:
            self.hint_file(path, closed=False)

    def hint_tree(self, path: str) -> None:
        """Something happened to this directory, or to the folder itself (the empty path)."""
        if is_block_file(path.rpartition("/")[2]):  # in the place of a block
            self.hint_file(path, closed=False)
        elif not path or not any(map(is_ignored, path.split("/"))):
            self.sweeper.hint(path)
            if path in self._reported:  # it was a symlink
                self._queue.add(path)

    def hint_all(self) -> None:
        """Something happened somewhere: sweep the folder from the beginning."""
        self.sweeper.begin()

    # --- when ---

    @property
    def backlog(self) -> int:
        """How many files are known to need a look."""
        return self._queue.backlog

    @property
    def due(self) -> float:
        """When the next look is due."""
        if self._is_anothers:
            return float("inf")
        return 0.0 if self.sweeper.is_due else min(self.deletions.due, self._queue.due)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is known to need a look, but what is held back."""
        nothing = self._queue.is_empty and not self.sweeper.is_due
        return nothing and (not self.deletions.missing or self.deletions.has_halted)

    @property
    def is_stuck(self) -> bool:
        """Whether all that is left to look at is being written, and has been waited for in vain."""
        return self._queue.is_stuck and not self.sweeper.is_due

    # --- looking ---

    @property
    def _is_anothers(self) -> bool:
        """Return True if the folder is another daemon's for now: nothing in it is looked at. `check_root` sees that end."""
        return self._folder.directory.refusal is not None

    def look(self, limit: int) -> dict[str, tuple[str, Signature | None]]:
        """Look at what is due, at most `limit` files, and draft what follows from it.

        Returns which file says each label now, and its signature, as far as that changed: for the journal, with what
        was drafted.
        """
        now = self._clock()
        self._ledger.begin()
        if self._is_anothers:
            return {}
        self._queue.advance(now)
        if self._private_folders.look_at(self.sweeper.look_at_trees()):
            self.note_names()
        if now >= self.deletions.due:
            self._decide_deletions()
            if self._is_anothers:
                return {}
        # The first sweep goes first: it tells how much there is to read. Later ones go on when there is nothing to read.
        left = self._look_at_ready(limit) if self.sweeper.sweeps else limit
        if self.sweeper.is_sweeping and left:
            if self.sweeper.step():
                self._see_private_folders()
            if self.sweeper.sweeps:
                self._look_at_ready(left)
        self._ledger.follow_folders()
        if not self._names_noted:
            self._note_refused_names()
        if self.sweeper.sweeps and self._queue.is_empty and not (self.deletions.missing or self.sweeper.is_sweeping):
            self.deletions.end_doubt()
        files, self._files = self._files, {}
        return files

    def _look_at_ready(self, limit: int) -> int:
        """Look at files that are known to need it, at most `limit`; how many more it could have been."""
        batch = sorted(self._queue.first(limit), key=_private_first)
        for path in batch:
            mark = self._ledger.mark
            try:
                self._look_at(path, closed=self._queue.take(path))
            except JournalUnusable:
                raise
            except Exception as error:  # noqa: BLE001  # whatever it is: this file is a problem, and its last good version stays
                self._ledger.back_to(mark)
                self._ledger.signatures[path] = self._folder.signature(path)
                self._report(path, self._faults.note("looking at a file", error))
        return limit - len(batch)

    def check_root(self) -> bool:
        """Look whether the folder is still the one that was opened; False when it is another or gone."""
        root = self.deletions.see_root()
        if root == "back" or root == "another":
            self.hint_all()
        return root != "gone" and root != "another"

    def _see_private_folders(self) -> None:
        """Those that a sweep has seen are all there are, if it has seen the whole of the right folder."""
        is_whole = not self.sweeper.unlisted and not self.deletions.is_in_doubt and self.check_root()
        if is_whole and self._private_folders.set(self.sweeper.directories):
            self.note_names()

    def _look_at(self, path: str, *, closed: bool) -> None:
        expected = self._expected.pop(path, None)
        if expected is not None and expected == self._ledger.signatures.get(path) == self._folder.signature(path):
            self._queue.stop_waiting(path)
            self.deletions.forget(path)
            return
        reading = self._folder.read(path, closed=closed)
        if isinstance(reading, Busy):
            if self._queue.wait_for_writer(path):
                self._report_writer(path, is_open=reading.is_open)
            return
        self._queue.stop_waiting(path)
        self._writers.pop(path, None)
        if isinstance(reading, Absent):
            self._miss(path)
            return
        self.deletions.forget(path)
        if isinstance(reading, Refused):
            self._ledger.signatures[path] = reading.signature
            self._report(path, reading.error)
            return
        try:
            label = label_of_path(path)
            if not self._may_enforce(label, path, reading):
                return
            block, warnings = self._parser.parse(reading.data, label)
        except BlocksdError as error:
            self._ledger.signatures[path] = reading.signature
            self._report(path, error if isinstance(error, InvalidFile) else _unusable_name(error))
            return
        if warnings:
            self._problems.set(warning_of(path, label, warnings))
        else:
            self._clear(path)
        self._accept(path, block, reading, is_odd=bool(warnings))

    def _accept(self, path: str, block: Block, reading: Text, *, is_odd: bool) -> None:
        label, ledger = block.label, self._ledger
        (self._links.add if reading.is_link else self._links.discard)(path)
        known_signature = ledger.signatures.get(path)
        ledger.enforce(label, path)
        ledger.signatures[path] = reading.signature
        changed = self._put(block, reading.saved_at)
        if changed or reading.signature != known_signature:
            # What a file is warned of is not journaled: after a restart it is read again, and warned of again.
            self._files[label] = (path, None if is_odd else reading.signature)
        if changed:
            self._names_noted = False

    def _put(self, block: Block, saved_at: float) -> bool:
        """Draft what a file says; a save of an old text is noted to be merged with what was written since."""
        ledger, label = self._ledger, block.label
        origin = origin_of(
            block,
            ledger.newest(label),
            lambda revision: self.writes.is_within(self.stale_window, revision, saved_at),
            lambda version: ledger.kept(label, version),
        )
        if origin.stale_base is not None:
            self.stale.add(label)
        return ledger.put(block, stale_base=origin.stale_base, reverts=origin.reverts)

    def block_in_file(self, label: str) -> Block | None:
        """What the file of a block in force says right now; None if it cannot be told."""
        path = self._ledger.paths.get(label)
        reading = self._folder.read(path, closed=False) if path is not None else None
        if not isinstance(reading, Text):
            return None
        try:
            return Parser().parse(reading.data, label)[0]
        except BlocksdError:
            return None

    def let_go(self, label: str, path: str) -> None:
        """A block was deleted or renamed on request: what was known of its file is void."""
        self._links.discard(path)
        self._parser.forget(label)
        self._clear(path)
        self._names_noted = False
        # One of the files that had to stand back for this label may have it now.
        for other in self._standing_back.pop(clash_key(label), ()):
            self._queue.add(other)

    def note_names(self) -> None:
        """Names may have been given or taken: see again who cannot have what."""
        self._names_noted = False

    def _delete(self, path: str) -> None:
        label = self._ledger.labels[path]
        self._ledger.delete(label)
        self.let_go(label, path)

    def _may_enforce(self, label: str, path: str, reading: Text) -> bool:
        """Whether this file may say the label: the first file in force keeps it, for as long as it is there."""
        paths = self._ledger.paths
        holder = self._ledger.holder(label)
        if holder is None or paths[holder] == path:
            return True
        other = paths[holder]
        if self._folder.is_absent(other):
            if holder == label:  # the same label in another spelling: the file was renamed
                self.deletions.forget(other)
                return True
            self._miss(other)
            self._queue.postpone(path, self.deletions.grace)
            return False
        self._ledger.signatures[path] = reading.signature
        self._standing_back.setdefault(clash_key(label), set()).add(path)
        self._set_problem_of(path, label_conflict(path, label, other))
        return False

    # --- deletions ---

    def _miss(self, path: str) -> None:
        """The file is not there."""
        if path in self._ledger.labels:
            self.deletions.miss(path)
        else:
            self._ledger.signatures.pop(path, None)
            self._clear(path)

    def _decide_deletions(self) -> None:
        if not self.check_root():
            self.deletions.put_off()
            return
        decision = self.deletions.decide()
        for path in decision.back:
            self._queue.add(path)
        for path in decision.deleted:
            self._delete(path)
        # With the last block its folder may have gone, unseen while the block was in force.
        folders = {"/".join(path.split("/")[:2]) for path in decision.deleted if path.startswith(f"{PRIVATE}/")}
        if self._private_folders.look_at(sorted(folders)):
            self.note_names()

    # --- problems ---

    def _report(self, path: str, error: BlocksdError) -> None:
        self._set_problem_of(path, problem_of(path, error, label=self._ledger.labels.get(path)))

    def _report_writer(self, path: str, *, is_open: bool) -> None:
        """A file has been written for long: say by which process, for which is searched seldom."""
        found, at = self._writers.get(path, ("", -_SEARCH_SECONDS))
        if is_open and self._clock() - at >= _SEARCH_SECONDS:
            found = self._folder.writers(path)
            self._writers[path] = (found, self._clock())
        if is_open:
            message = f"it is open for writing by {found or 'a process that cannot be seen'}"
        else:
            message = "it is being written all the time"
        hint = "the text that was read last stays in force; it is read as soon as it is closed"
        self._report(path, InvalidFile(message, hint=hint))

    def _set_problem_of(self, path: str, problem: Problem) -> None:
        self._reported.add(path)
        self._problems.set(problem)

    def _clear(self, path: str) -> None:
        self._reported.discard(path)
        self._problems.remove(printable(path))

    def _note_refused_names(self) -> None:
        """A block that some agents cannot have, since they see another under its name: a problem under its label."""
        self._names_noted = True
        refused = self._ledger.attachments.refused
        for problem in [p for p in self._problems.values() if p.code == "name_conflict" and p.subject not in refused]:
            self._problems.remove(problem.subject)
        for label, agents in refused.items():
            self._problems.set(name_conflict(label, agents))


def _private_first(path: str) -> tuple[bool, str]:
    return (not path.startswith(f"{PRIVATE}/"), path)


def _unusable_name(error: BlocksdError) -> InvalidFile:
    return InvalidFile(error.message, **error.facts, hint="rename the file")
