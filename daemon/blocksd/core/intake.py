"""Finds out what the folder says: which files to read, and what each of them says.

Hints say where to look, nothing more. Nothing here decides what is in force, and nothing is written.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from blocksd.core.deletions import Deletions
from blocksd.core.scanner import Scanner, is_config_map, is_read, look_at_all, look_at_some
from blocksd.errors import BlocksdError, InvalidFile
from blocksd.files.document import Parser
from blocksd.files.folder import Busy, Refused, Text, packed
from blocksd.model.label import (
    CONFIG_MAP,
    PRIVATE,
    SUFFIX,
    is_block_file,
    is_conflict_copy,
    is_ignored,
    is_properties,
    label_of_path,
    merged_from,
    printable,
)
from blocksd.model.problem import name_conflict
from blocksd.model.proposal import remedy
from blocksd.state.links import Links
from blocksd.state.observed import FileRead, Observed
from blocksd.state.part import Part
from blocksd.state.read_queue import ReadQueue
from blocksd.state.schedule import NEVER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blocksd.files.folder import Folder
    from blocksd.state.observed import FileNews
    from blocksd.state.part import Shared

_MANY = 16  # files that are read at once
_SEARCH_SECONDS = 60.0  # between two searches for the processes that write a file


class Intake(Part):
    """The daemon's view of one folder. It owns what finds the files to read, and what judges those that are missing.

    Times are of a monotonic clock, in seconds.
    """

    def __init__(self, shared: Shared, folder: Folder, *, delete_grace: float) -> None:
        super().__init__(shared)
        self._folder = folder
        self.deletions = Deletions(shared, folder, grace=delete_grace)
        self._reported: set[str] = set()  # files that have a problem, whatever the state knows of them
        self._queue = ReadQueue(shared.clock, shared.wall)
        self.scanner = Scanner(shared, folder, self._queue, self._reported)
        self._writers: dict[str, tuple[str, float]] = {}  # file → its writers, and when they were searched for
        self.has_caught_up = False
        """True once all was read that was saved before the start."""
        self.reset()

    def reset(self) -> None:
        """Forget what was read, and a sweep under way, which has compared with that."""
        self.scanner.give_up()
        self.parser = Parser()
        self.links = Links()
        self._state.written.clear()
        self.has_checked_names = False
        self._schedule["files"] = self.due

    # --- hints ---

    def hint_file(self, path: str, *, closed: bool) -> None:
        """Note that something happened to this file; `closed` if its writer was seen to be done."""
        if is_read(path) or path in self._state.signatures:
            self._queue.hint(path, closed=closed)
        elif path.endswith(CONFIG_MAP) and is_config_map(path):
            for link in self.links.ways:  # what the links lead to has changed, all at once
                self._queue.add(link, closed=True)
        for other in self.links.followers.get(path, ()):
            self._queue.hint(other, closed=closed)
        self._schedule["files"] = self.due

    def reread(self, path: str) -> None:
        """Read a file again that is not what the state says; if it is missing, that is decided when its grace is over."""
        if path not in self.deletions.missing:
            self.hint_file(path, closed=False)

    def hint_tree(self, path: str) -> None:
        """Note that something happened to this directory, or to the folder itself (the empty path)."""
        if is_block_file(path.rpartition("/")[2]) or is_properties(path):  # in the place of a file that is read
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
        waiting = (self.deletions.missing, self.deletions.heirs.values(), self._queue.known, self._queue.later)
        return [path for paths in waiting for path in paths if path in labels]

    @property
    def due(self) -> float:
        """When there is something to read or to decide."""
        if self._folder.directory.refusal is not None:  # it is another daemon's for now, until `check_root` sees an end
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

    # --- collect and read ---

    def collect(self, limit: int) -> tuple[Observed, dict[str, bool]]:
        """Find out which files to read, at most `limit`; return them, each with whether its writer was seen to close it.

        What the directories tell is observed on the way: which files are gone for good, and which private folders there are.
        """
        now, scanner, observed = self._clock(), self.scanner, Observed(has_looked=True)
        if self._folder.directory.refusal is not None:
            return observed, {}
        trees = scanner.look_at_trees() if scanner.is_due else set()
        if now >= self.deletions.due and self.deletions.may_decide(self._queue.backlog, limit):
            observed.deleted = self._gone_for_good()
            if self._folder.directory.refusal is not None:
                return observed, {}
            # With the last block its folder may have gone, unseen while the block was in force.
            trees |= {"/".join(path.split("/")[:2]) for path in observed.deleted if path.startswith(f"{PRIVATE}/")}
        if trees:
            observed.folders = look_at_some(self._folder, sorted(trees))
        # The first sweep goes first: it tells how much there is to read. Later ones go on when there is nothing to read.
        has_swept = scanner.is_due and (not scanner.sweeps or self._queue.backlog < limit) and scanner.step()
        if has_swept and not (scanner.unlisted or self.deletions.is_in_doubt) and self.check_root():
            owners = self._state.attachments.owners
            observed.all_folders = look_at_all(self._folder, scanner.directories, owners)
        return observed, self._queue.take_batch(now, limit) if scanner.sweeps else {}

    def read(self, batch: Mapping[str, bool]) -> list[FileRead]:
        """Read these files, each once: the shared ones after the private ones."""
        files, are_few, directory = [], len(batch) < _MANY, self._folder.directory
        directory.stays = True
        try:
            for path in batch if len(batch) == 1 else sorted(batch, key=_private_first):
                try:
                    found = self._read(path, closed=batch[path], is_one_of_few=are_few)
                except Exception as error:  # noqa: BLE001  # whatever it is: this file is a problem, and its last good version stays
                    found = self.failed(path, error)
                if found is not None:
                    files.append(found)
        finally:
            directory.stays = False
            if directory.kept >= 0:
                directory.leave_directories()
        return files

    def failed(self, path: str, error: Exception) -> FileRead:
        """Return what is known of a file on which the daemon failed."""
        failure = self._faults.count_error("looking at a file", error)
        return FileRead(path, Refused(failure, self._folder.signature(path)), error=failure)

    def _read(self, path: str, *, closed: bool, is_one_of_few: bool) -> FileRead | None:
        state = self._state
        if path in state.written:
            state.written.discard(path)
            signature = self._folder.signature(path)
            if signature is not None and packed(*signature) == state.signatures.get(path):
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
        if not isinstance(reading, Text):
            return FileRead(path, reading, error=reading.error if isinstance(reading, Refused) else None)
        known: str | None = path.removesuffix(SUFFIX)  # most are named as their blocks are
        if known not in state.versions or known in state.paths.odd or known == path:
            known = state.labels.get(path)
        label = known
        try:
            if known is None or (_is_copy(path) and not state.signatures.get(path)):
                label = None  # until it is known that it has one
                label = self._new_label(path)
            block, warnings = self.parser.parse(reading.data, label or "", remember=is_one_of_few)
        except BlocksdError as error:
            is_told = isinstance(error, InvalidFile)
            wrong = error if is_told else InvalidFile(error.message, **error.facts, hint=remedy(path))
            return FileRead(path, reading, label, error=wrong, is_known=known is not None)
        if reading.names > 1 and not reading.way:
            warning = self.links.warning(path, reading.signature[3], self._folder.signature)
            warnings = (*warnings, warning) if warning is not None else warnings
        return FileRead(path, reading, label, block, warnings, is_known=known is not None)

    def is_fresh(self, path: str, saved_at: float) -> bool:
        """Return True if a file was saved a moment ago: programs save in two steps, and it may be half of a save."""
        return self._queue.is_fresh(path, saved_at)

    def _new_label(self, path: str) -> str:
        """Return the label of a file that none in force has, or one that copies of conflicts still could have."""
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
        by = f"it is open for writing by {found or 'a process that cannot be seen'}"
        hint = "the text that was read last stays in force; it is read as soon as it is closed"
        return InvalidFile(by if is_open else "it is being written all the time", hint=hint)

    def check_root(self) -> bool:
        """Check whether the folder is still the one that was opened; False when it is another or gone."""
        root = self.deletions.see_root()
        self._schedule.hasten("files", self.due)
        if root == "back" or root == "another":
            self.hint_all()
        return root != "gone" and root != "another"

    def _gone_for_good(self) -> list[str]:
        if not self.check_root():
            self.deletions.put_off()
            return []
        decision = self.deletions.decide()
        self._queue.add_all(decision.back)
        return decision.deleted

    # --- after a decision ---

    def follow(self, observed: Observed, news: FileNews) -> None:
        """Take note of what follows from what was observed, once that is journaled."""
        for path, is_missing in news.missing.items():
            if is_missing:
                self.deletions.miss(path)
            elif path in self.deletions.missing or self.deletions.heirs:
                self.deletions.forget(path)
        for path, seconds in news.later.items():
            self._queue.postpone(path, seconds)
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
            self._queue.block(path, label)
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
        if not self.has_caught_up:
            self.has_caught_up = bool(self.scanner.sweeps) and not self.scanner.is_sweeping and not self.backlog
        self._schedule["files"] = self.due

    def release(self, released: Mapping[str, str]) -> None:
        """Forget what is known of files whose labels are free now, and read files that waited for such a label."""
        for label, path in released.items():
            self._queue.add_all(self.links.forget(path))
            self.parser.forget(label)
            self._clear(path)
            self._queue.unblock(label)
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


@lru_cache(maxsize=4096)
def _is_copy(path: str) -> bool:
    # As `is_conflict_copy` begins, which most saves do without.
    return ("(" in path or "onflict" in path) and is_conflict_copy(path.rpartition("/")[2])


def _private_first(path: str) -> tuple[bool, str]:
    return (not path.startswith(f"{PRIVATE}/"), path)
