"""Finds out what the folder says: which files to read, and what each of them says.

Hints say where to look, nothing more. Nothing here decides what is in force, and nothing is written.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from blocksd.core.deletions import Deletions
from blocksd.core.scanner import Scanner, look_at_all, look_at_some
from blocksd.errors import BlocksdError, InvalidFile
from blocksd.files.document import Parser
from blocksd.files.folder import Absent, Busy, Refused, Text
from blocksd.model.label import (
    CONFIG_MAP,
    PRIVATE,
    clash_key,
    is_block_file,
    is_conflict_copy,
    is_ignored,
    label_of_path,
    merged_from,
    printable,
)
from blocksd.model.problem import name_conflict
from blocksd.model.proposal import remedy
from blocksd.state.links import Links
from blocksd.state.read_queue import SETTLE_SECONDS, ReadQueue
from blocksd.state.schedule import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from blocksd.files.folder import Folder, Reading, Signature
    from blocksd.journal.journal import Journal
    from blocksd.model.block import Block
    from blocksd.model.faults import Faults
    from blocksd.model.problem import Problem, Problems, Warned
    from blocksd.state.schedule import Schedule
    from blocksd.state.state import State

_SEARCH_SECONDS = 60.0  # between two searches for the processes that write a file


class FileRead(NamedTuple):
    """One file as it was read. A text that is no block has an `error`, and so has a file whose writer never ends."""

    path: str
    reading: Reading
    label: str | None = None
    block: Block | None = None
    warnings: tuple[Warned, ...] = ()
    error: BlocksdError | None = None


@dataclass(slots=True)
class Observed:
    """The folder as it was seen in one round: values that nothing follows from yet.

    `deleted` are files that have been missing for long enough; `folders` tells of some agents whether they have a private
    folder, `all_folders` names all that have one, if a whole folder was seen.
    """

    files: list[FileRead] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    folders: dict[str, bool] = field(default_factory=dict)
    all_folders: set[str] | None = None
    has_looked: bool = False
    """True if anything was looked at; else nothing follows from it."""


@dataclass(slots=True)
class FileNews:
    """Consequences of a round besides revisions: problems, and which files to read again. All of it is by path."""

    reports: dict[str, Problem | None] = field(default_factory=dict)
    """The problem that a file has now, or that it has none."""
    missing: dict[str, bool] = field(default_factory=dict)
    """Of files of blocks in force: that they are not there, or are there (again)."""
    later: list[str] = field(default_factory=list)
    """Files whose label another one has that is missing: to be read when its grace is over."""
    blocked: dict[str, str] = field(default_factory=dict)
    """Files whose label another one has, with that label."""
    settling: list[str] = field(default_factory=list)
    """New files that seem to be moved ones: to be read again once it was seen for a while that the old name is gone."""
    halves: dict[str, float] = field(default_factory=dict)
    """Files of blocks in force that may hold half of a save, and when they were saved: to be read again in a moment."""
    moved: list[str] = field(default_factory=list)
    """The names that moved files had."""
    heirs: dict[str, str] = field(default_factory=dict)
    """Moved files that are in force under their old names, since they have problems under the new ones: new → old."""
    links: dict[str, tuple[tuple[str, ...], int | None]] = field(default_factory=dict)
    """Where files lead, and their inodes if they have several names: what `Links.note` takes."""
    named_anew: set[str] = field(default_factory=set)
    """New files that have another name somewhere."""


class Intake:
    """The daemon's view of one folder. It owns what finds the files to read, and what judges those that are missing.

    Times are of a monotonic clock, in seconds.
    """

    def __init__(
        self,
        folder: Folder,
        journal: Journal,
        state: State,
        problems: Problems,
        faults: Faults,
        schedule: Schedule,
        *,
        delete_grace: float,
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._state = state
        self._problems = problems
        self._faults = faults
        self._schedule = schedule
        self._clock = clock
        self.deletions = Deletions(folder, journal, state, problems, schedule, grace=delete_grace, clock=clock)
        self._reported: set[str] = set()  # files that have a problem, whatever the state knows of them
        self._queue = ReadQueue(clock, wall)
        self.scanner = Scanner(
            folder, state, self._queue, problems, known=lambda: self._reported.union(state.signatures), clock=clock
        )
        self._writers: dict[
            str, tuple[str, float]
        ] = {}  # file → which processes write it, and when they were searched for
        self._blocked: dict[str, set[str]] = {}  # clash key → files whose label another has
        self.reset()

    def reset(self) -> None:
        """Forget what was read, and a sweep under way, which has compared with that."""
        self.scanner.give_up()
        self.parser = Parser()
        self.links = Links()
        self._expected: dict[str, Signature] = {}  # of files that were written on request, and not read since
        self.has_checked_names = False
        self._schedule["files"] = self.due

    # --- hints ---

    def hint_file(self, path: str, *, closed: bool) -> None:
        """Note that something happened to this file; `closed` if its writer was seen to be done."""
        directories, _, name = path.rpartition("/")
        if path in self._state.signatures or (is_block_file(name) and not _is_out_of_sight(directories)):
            self._queue.hint(path, closed=closed)
        elif name == CONFIG_MAP and not _is_out_of_sight(directories):
            for link in self.links.ways:  # what the links lead to has changed, all at once
                self._queue.add(link, closed=True)
        for other in self.links.followers.get(path, ()):
            self._queue.hint(other, closed=closed)
        self._schedule["files"] = self.due

    def expect(self, signatures: Mapping[str, Signature | None]) -> None:
        """Expect hints of these files, which were written on request and say what is in force: they are no news."""
        for path, signature in signatures.items():
            if signature is not None:
                self._expected[path] = signature

    def reread(self, path: str) -> None:
        """Read a file again that is not what the state says; if it is missing, that is decided when its grace is over."""
        if path not in self.deletions.missing:
            self.hint_file(path, closed=False)

    def hint_tree(self, path: str) -> None:
        """Note that something happened to this directory, or to the folder itself (the empty path)."""
        if is_block_file(path.rpartition("/")[2]):  # in the place of a block
            self.hint_file(path, closed=False)
        elif not path or not any(map(is_ignored, path.split("/"))):
            self.scanner.hint(path)
            if path in self._reported:  # it was a symlink
                self._queue.add(path)
            self._queue.add_all(self.links.below(path))
            self._schedule.hasten("files", 0.0)

    def hint_all(self) -> None:
        """Sweep the folder from the beginning: something happened somewhere."""
        self.scanner.begin()
        self._schedule.hasten("files", 0.0)

    # --- when ---

    @property
    def backlog(self) -> int:
        """How many files are known to need reading."""
        return self._queue.backlog

    @property
    def suspects(self) -> list[str]:
        """The files of blocks in force that may have been moved: missing ones, and those that are known to need reading."""
        labels = self._state.labels
        waiting = (self.deletions.missing, self.deletions.heirs.values(), self._queue.ready, self._queue.later)
        return [path for paths in waiting for path in paths if path in labels]

    @property
    def due(self) -> float:
        """When there is something to read or to decide."""
        if self._is_anothers:
            return NEVER
        if self.scanner.is_due or self._queue.ready:
            return 0.0
        return min(self.deletions.due, self._queue.due) if self._queue.later else self.deletions.due

    @property
    def is_idle(self) -> bool:
        """Return True if nothing is known to need reading, but what is held back."""
        nothing = self._queue.is_empty and not self.scanner.is_due
        return nothing and (not self.deletions.missing or self.deletions.has_halted)

    @property
    def is_stuck(self) -> bool:
        """Return True if all that is left to read is being written, and was tried often enough."""
        return self._queue.is_stuck and not self.scanner.is_due

    @property
    def _is_anothers(self) -> bool:
        """Return True if the folder is another daemon's for now: nothing in it is looked at. `check_root` sees that end."""
        return self._folder.directory.refusal is not None

    # --- collect and read ---

    def collect(self, limit: int) -> tuple[Observed, dict[str, bool]]:
        """Find out which files to read, at most `limit`; return them, each with whether its writer was seen to close it.

        What the directories tell is observed on the way: which files are gone for good, and which private folders there are.
        """
        now, scanner, observed = self._clock(), self.scanner, Observed(has_looked=True)
        if self._is_anothers:
            return observed, {}
        trees = scanner.look_at_trees() if scanner.is_due else set()
        if now >= self.deletions.due and self.deletions.may_decide(self._queue.backlog, limit):
            observed.deleted = self._gone_for_good()
            if self._is_anothers:
                return observed, {}
            # With the last block its folder may have gone, unseen while the block was in force.
            trees |= {"/".join(path.split("/")[:2]) for path in observed.deleted if path.startswith(f"{PRIVATE}/")}
        if trees:
            observed.folders = look_at_some(self._folder, sorted(trees))
        # The first sweep goes first: it tells how much there is to read. Later ones go on when there is nothing to read.
        if scanner.is_due and (not scanner.sweeps or self._queue.backlog < limit) and scanner.step():
            observed.all_folders = self._all_private_folders()
        return observed, self._queue.take_batch(now, limit) if scanner.sweeps else {}

    def read(self, batch: Mapping[str, bool]) -> list[FileRead]:
        """Read these files, each once: the shared ones after the private ones."""
        files = []
        for path in sorted(batch, key=_private_first):
            try:
                found = self._read(path, closed=batch[path])
            except Exception as error:  # noqa: BLE001  # whatever it is: this file is a problem, and its last good version stays
                found = self.failed(path, error)
            if found is not None:
                files.append(found)
        return files

    def failed(self, path: str, error: Exception) -> FileRead:
        """Return what is known of a file on which the daemon failed."""
        failure = self._faults.count_error("looking at a file", error)
        return FileRead(path, Refused(failure, self._folder.signature(path)), error=failure)

    def _read(self, path: str, *, closed: bool) -> FileRead | None:
        expected = self._expected.pop(path, None)
        if expected is not None and expected == self._state.signatures.get(path) == self._folder.signature(path):
            self._queue.stop_waiting(path)
            self.deletions.forget(path)
            return None
        reading = self._folder.read(path, closed=closed)
        if isinstance(reading, Busy):
            if self._queue.wait_for_writer(path):
                return FileRead(path, reading, error=self._still_written(path, is_open=reading.is_open))
            return None
        if path in self._queue.looks:
            self._queue.stop_waiting(path)
            self._writers.pop(path, None)
        if isinstance(reading, Refused):
            return FileRead(path, reading, error=reading.error)
        if isinstance(reading, Absent):
            return FileRead(path, reading)
        label = None
        try:
            label = self._label_of(path)
            block, warnings = self.parser.parse(reading.data, label)
        except InvalidFile as error:
            return FileRead(path, reading, label, error=error)
        except BlocksdError as error:
            return FileRead(path, reading, label, error=InvalidFile(error.message, **error.facts, hint=remedy(path)))
        if reading.names > 1 and not reading.way:
            inode = reading.signature[3]
            warning = self.links.warning(path, inode, lambda other: self._is_named(other, inode))
            warnings = (*warnings, warning) if warning is not None else warnings
        return FileRead(path, reading, label, block, warnings)

    def _is_named(self, path: str, inode: int) -> bool:
        signature = self._folder.signature(path)
        return signature is not None and signature[3] == inode

    def is_fresh(self, path: str, saved_at: float) -> bool:
        """Return True if a file was saved a moment ago: programs save in two steps, and it may be half of a save."""
        return self._queue.is_fresh(path, saved_at)

    def _label_of(self, path: str) -> str:
        """Return the label of a file. One that is in force keeps its label.

        One that came into force when copies of conflicts still could, and was not read since, does not.
        """
        known = self._state.labels.get(path)
        if known is not None and (self._state.signatures.get(path) or not is_conflict_copy(path.rpartition("/")[2])):
            return known
        merged = merged_from(path)
        if merged is not None and self._folder.signature(merged) is not None:
            hint = "finish the merge, then delete this file"
            raise InvalidFile(f"it is named like a file that a merge tool made of {printable(merged)}", hint=hint)
        return label_of_path(path)

    def _still_written(self, path: str, *, is_open: bool) -> InvalidFile:
        """Say that a file has been written for long, and by which process, for which is searched seldom."""
        found, at = self._writers.get(path, ("", -_SEARCH_SECONDS))
        if is_open and self._clock() - at >= _SEARCH_SECONDS:
            found = self._folder.writers(path)
            self._writers[path] = (found, self._clock())
        if is_open:
            message = f"it is open for writing by {found or 'a process that cannot be seen'}"
        else:
            message = "it is being written all the time"
        hint = "the text that was read last stays in force; it is read as soon as it is closed"
        return InvalidFile(message, hint=hint)

    def check_root(self) -> bool:
        """Check whether the folder is still the one that was opened; False when it is another or gone."""
        root = self.deletions.see_root()
        self._schedule.hasten("files", self.due)
        if root == "back" or root == "another":
            self.hint_all()
        return root != "gone" and root != "another"

    def _all_private_folders(self) -> set[str] | None:
        """The agents with a private folder, if a sweep has seen the whole of the right folder."""
        if self.scanner.unlisted or self.deletions.is_in_doubt or not self.check_root():
            return None
        return look_at_all(self._folder, self.scanner.directories, self._state.attachments.owners)

    def _gone_for_good(self) -> list[str]:
        if not self.check_root():
            self.deletions.put_off()
            return []
        decision = self.deletions.decide()
        for path in decision.back:
            self._queue.add(path)
        return decision.deleted

    # --- after a decision ---

    def follow(self, observed: Observed, news: FileNews) -> None:
        """Take note of what follows from what was observed, once that is journaled."""
        for path, is_missing in news.missing.items():
            if is_missing:
                self.deletions.miss(path)
            elif path in self.deletions.missing or self.deletions.heirs:
                self.deletions.forget(path)
        for path in news.later:
            self._queue.postpone(path, self.deletions.grace)
        for path in news.settling:
            self._queue.postpone(path, SETTLE_SECONDS)
        for one in observed.files if self._queue.halves else ():
            if one.path not in news.halves:
                self._queue.believe(one.path)
        for path, saved_at in news.halves.items():
            self._queue.doubt(path, saved_at)
        for heir, path in news.heirs.items():
            self.deletions.inherit(path, heir)
        for path in news.moved:
            if path.startswith(f"{PRIVATE}/"):  # with the last block of an agent its folder may have gone
                self.scanner.hint("/".join(path.split("/")[:2]))
        for path, label in news.blocked.items():
            self._blocked.setdefault(clash_key(label), set()).add(path)
        # Those that are gone come first: a moved file is not one with what it was.
        for path, (way, inode) in sorted(news.links.items(), key=lambda one: one[1][1] is not None):
            same = self.links.note(path, way, inode)
            self._queue.add_all(same)
            if path in news.named_anew and not same:
                self.hint_all()  # nothing tells of the other name, if it is in the folder
        for path, problem in news.reports.items():
            if problem is None and self.deletions.heirs:
                self.deletions.disown(path)
            if problem is not None:
                self._reported.add(path)
                self._problems.set(problem)
            elif path in self._reported:
                self._clear(path)
        if observed.all_folders is not None:
            self._state.has_seen_folders = True
        is_open = self.deletions.is_open and not self.deletions.missing
        if is_open and self.scanner.sweeps and self._queue.is_empty and not self.scanner.is_sweeping:
            self.deletions.end_doubt()
        self._schedule["files"] = self.due

    def release(self, released: Mapping[str, str]) -> None:
        """Forget what is known of files whose labels are free now, and read files that waited for such a label."""
        for label, path in released.items():
            self._queue.add_all(self.links.forget(path))
            self.parser.forget(label)
            self._clear(path)
            # One of the files that had to wait for this label may have it now.
            for other in self._blocked.pop(clash_key(label), ()):
                self._queue.add(other)
        self._schedule.hasten("files", self._queue.due)

    def check_names(self) -> None:
        """Report a block that some agents cannot have, since they see another under its name: under its label."""
        self.has_checked_names = True
        refused = self._state.attachments.refused
        for problem in [p for p in self._problems.values() if p.code == "name_conflict" and p.subject not in refused]:
            self._problems.remove(problem.subject)
        for label, agents in refused.items():
            self._problems.set(name_conflict(label, agents))

    def _clear(self, path: str) -> None:
        self._reported.discard(path)
        self._problems.remove(printable(path))

    def block_in_file(self, label: str) -> Block | None:
        """The block that the file of a block in force says right now; None if it cannot be told."""
        path = self._state.paths.get(label)
        reading = self._folder.read(path, closed=False) if path is not None else None
        if not isinstance(reading, Text):
            return None
        try:
            return Parser().parse(reading.data, label)[0]
        except BlocksdError:
            return None


def _is_out_of_sight(directories: str) -> bool:
    """Return True if no sweep goes into these directories, either."""
    return bool(directories) and any(is_ignored(one) or is_block_file(one) for one in directories.split("/"))


def _private_first(path: str) -> tuple[bool, str]:
    return (not path.startswith(f"{PRIVATE}/"), path)
