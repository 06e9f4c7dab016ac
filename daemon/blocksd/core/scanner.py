"""Compares the folder with what is known of it: which files are to be read, and which agents have a private folder."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from blocksd.errors import InvalidFile, InvalidLabel
from blocksd.model.label import CONFIG_MAP, PRIVATE, is_block_file, is_ignored, is_properties, parse_agent, printable
from blocksd.model.problem import NAMES, misnamed, problem_of
from blocksd.state.part import Part
from blocksd.state.sweep import SLICE, Sweep

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from blocksd.files.folder import Folder
    from blocksd.model.attachment import Attachments
    from blocksd.state.part import Shared
    from blocksd.state.read_queue import ReadQueue
    from blocksd.state.sweep import FolderEntry

_MOST_TREES = 16  # are compared one by one
_FIRST_SLICE = 4096  # directory entries of the first sweep, while nobody is served yet
_MOST_FILES = 1000  # are looked at, in a folder without a block in force, to find a block among them


class Scanner(Part):
    """Sweeps of the whole folder, a slice at a time, and looks into single trees of it. No file is opened.

    What is below a directory that cannot be listed does not count as missing.
    """

    def __init__(self, shared: Shared, folder: Folder, queue: ReadQueue, reported: AbstractSet[str]) -> None:
        """`queue` is where files wait to be looked at; `reported` are files that have a problem, known or not."""
        super().__init__(shared)
        self._spent = 0.0
        self._folder = folder
        self._queue = queue
        self._reported = reported
        self._trees: set[str] = set()
        self._sweep: Iterator[None] | None = None
        self.is_due = False  # there is something to compare
        self.sweeps = 0  # that have come to their end
        self.seconds = 0.0  # that the last of them took, all slices together
        self.directories: set[str] = set()  # as of the last sweep
        self.unlisted: set[str] = set()  # those that it could not list
        self._misnamed: set[str] = set()  # Markdown that is no block for its name alone
        self.left: list[str] = []  # temporaries of ours that a crash has left

    def hint(self, tree: str) -> None:
        """Note that something happened to this directory, or to the folder itself (the empty path)."""
        self._trees.add(tree)
        self.is_due = True

    def begin(self) -> None:
        """Sweep from the beginning."""
        self._sweep, self._spent = self._sweeping(), 0.0
        self.is_due = True

    def give_up(self) -> None:
        """End a sweep under way: what it was compared with is void."""
        self._sweep = None
        self.is_due = bool(self._trees)

    @property
    def is_sweeping(self) -> bool:
        return self._sweep is not None

    def look_at_trees(self) -> set[str]:
        """Compare the trees that were hinted at, and return them with the directories that are or were below them.

        If they are too many, begin a sweep in their place.
        """
        trees, self._trees = self._trees, set()
        self.is_due = self._sweep is not None
        if not trees:  # a sweep is under way
            return set()
        if "" in trees or len(trees) > _MOST_TREES:
            self.begin()
            return set()
        directories = set(trees)
        if PRIVATE in trees:  # one that is gone is found by its name alone
            directories |= {f"{PRIVATE}/{agent}" for agent in self._state.attachments.folders}
        below = tuple(f"{tree}/" for tree in trees)
        known = set[str]().union(*map(self._state.signatures.directories, trees))
        unseen = {path for path in self._unknown() if path.startswith(below)}
        unlisted: set[str] = set()
        new: list[str] = []
        for tree in trees:
            sweep = Sweep(self._folder, self._state.signatures)
            for found in sweep.walk(tree):
                self._compare(found, unseen, directories, unlisted, new, self._misnamed)
            known -= sweep.listed
        unseen |= self._files_in(known)
        self._note_unlisted(unlisted, below)
        self._queue.add_all(_without(unseen, unlisted))
        for path in new:  # by then it is known what is gone from elsewhere: a new file may be one that was there
            self._queue.hint(path, closed=False)
        self._tell_misnamed()
        return directories

    def step(self) -> bool:
        """Go on with the sweep that is under way; whether that was the end of it."""
        if self._sweep is None:
            return False
        begin = self._clock()
        is_over = next(self._sweep, _OVER) is _OVER
        self._spent += self._clock() - begin
        if not is_over:
            return False
        self._sweep, self.seconds = None, self._spent
        self.is_due = bool(self._trees)
        return True

    def _sweeping(self) -> Iterator[None]:
        """Compare the whole folder, a slice at a time."""
        signatures = self._state.signatures
        new_directories = signatures.new_directories()
        unseen = self._unknown()
        unlisted: set[str] = set()
        directories: set[str] = set()
        new: list[str] = []
        misnamed: set[str] = set()
        sweep = Sweep(self._folder, signatures, at_once=SLICE if self.sweeps else _FIRST_SLICE)
        for number, found in enumerate(sweep.walk()):
            if number:
                yield
            self._compare(found, unseen, directories, unlisted, new, misnamed)
        self._misnamed = misnamed
        self._tell_misnamed()
        self._note_unlisted(unlisted, ("",))
        if sweep.covered != len(signatures):  # else each known file is or was in a directory that was listed
            known = signatures.directories() - (signatures.new_directories() - new_directories)
            unseen |= self._files_in(known - sweep.listed)
        labels = self._state.labels
        self._queue.add_all([*_without(unseen, unlisted), *(path for path in new if path in labels)])
        self._queue.add_new(path for path in new if path not in labels)  # it may be one that is missing: after those
        self.directories = directories
        self.sweeps += 1

    def _unknown(self) -> set[str]:
        """Return the files that have a problem and no signature: a sweep does not tell which of them are missing."""
        return {path for path in self._reported if path not in self._state.signatures}

    def _files_in(self, directories: Iterable[str]) -> set[str]:
        """Return the known files in directories that were not listed: they are gone, or cannot be seen."""
        return {
            f"{directory}/{name}" if directory else name
            for directory in directories
            for name in self._state.signatures.names(directory)
        }

    def _note_unlisted(self, unlisted: set[str], below: tuple[str, ...]) -> None:
        """Note which directories could not be listed, of all whose paths begin so, and forget the problems of the others."""
        self.unlisted = {path for path in self.unlisted if not f"{path}/".startswith(below)} | unlisted
        subjects = set(map(_subject_of, unlisted))
        for problem in list(self._problems.values()):
            is_below = problem.subject.startswith(tuple(map(printable, below)))
            if problem.code == "unreadable_directory" and is_below and problem.subject not in subjects:
                self._problems.remove(problem.subject)

    def _tell_misnamed(self) -> None:
        """Warn of all Markdown that is no block for its name, at once."""
        if self._misnamed:
            self._problems.set(misnamed(self._misnamed))
        else:
            self._problems.remove(NAMES)

    def _compare(
        self,
        found: Sequence[FolderEntry],
        unseen: set[str],
        directories: set[str],
        unlisted: set[str],
        new: list[str],
        misnamed: set[str],
    ) -> None:
        signatures, queue = self._state.signatures, self._queue
        for path, kind, _, error in found:
            if kind == "file":
                unseen.discard(path)
                if path in signatures:
                    queue.add(path)
                else:
                    new.append(path)
            elif kind == "directory":
                directories.add(path)
            elif kind == "left":
                self.left.append(path)
            elif kind == "misnamed":
                misnamed.add(path)
            elif kind == "missing":
                unseen.add(path)
            elif kind == "unreadable":
                assert error is not None
                unlisted.add(path)
                message = f"the directory cannot be listed: {os.strerror(error.errno or 0)}"
                right = f"the right to list and enter {printable(path) or 'the folder'}"
                hint = f"give the daemon's user {right}; what is below stays as it was"
                problem = problem_of(_subject_of(path), InvalidFile(message, hint=hint))
                self._problems.set(replace(problem, code="unreadable_directory"))
            else:
                unseen.discard(path)
                new.append(path)


def _subject_of(directory: str) -> str:
    """Return the subject of the problem that a directory cannot be listed."""
    return f"{printable(directory) or '.'}/"


_OVER = object()


def is_out_of_sight(directories: str) -> bool:
    """Return True if no sweep goes into these directories, either."""
    segments = directories.split("/")
    return bool(directories) and (
        is_properties("/".join(segments[:3])) or any(is_ignored(one) or is_block_file(one) for one in segments)
    )


@lru_cache(maxsize=4096)
def is_read(path: str) -> bool:
    """Return True if a file is read for its path alone."""
    directories, _, name = path.rpartition("/")
    return (is_block_file(name) or is_properties(path)) and not is_out_of_sight(directories)


def is_config_map(path: str) -> bool:
    """Return True if this is the name by which a mounted ConfigMap is switched, in sight."""
    directories, _, name = path.rpartition("/")
    return name == CONFIG_MAP and not is_out_of_sight(directories)


def _without(paths: set[str], directories: set[str]) -> set[str]:
    """Return the paths that are in none of these directories."""
    below = tuple(f"{directory}/" if directory else "" for directory in directories)
    return {path for path in paths if not path.startswith(below)} if below else paths


# --- private folders ---


def look_at_some(folder: Folder, directories: Iterable[str]) -> dict[str, bool]:
    """Return which agents have a private folder, of the directories that something happened to; a path is below the folder."""
    found: dict[str, bool] = {}
    for directory in filter(_is_private, directories):
        is_there = folder.is_directory(directory)
        if is_there is not None:
            found[_agent_of(directory)] = is_there and _is_home(folder, directory)
    return found


def look_at_all(folder: Folder, directories: Iterable[str], owners: set[str]) -> set[str]:
    """Return the agents that have a private folder, if these are all the directories there are.

    In the folders of the `owners` are blocks in force: they need not be looked into.
    """
    return {
        _agent_of(directory)
        for directory in directories
        if _is_private(directory) and (_agent_of(directory) in owners or _is_home(folder, directory))
    }


def private_folders(attachments: Attachments, some: Mapping[str, bool], every: set[str] | None) -> set[str]:
    """Return which agents have a private folder, by what was seen of some of them, or of all.

    One whose blocks are still in force is still there, as far as anyone is told.
    """
    names = (
        set(every)
        if every is not None
        else {*attachments.folders, *(name for name, is_there in some.items() if is_there)}
    )
    if every is None:
        names -= {name for name, is_there in some.items() if not is_there}
    agents = attachments.owners
    for name in names:
        try:
            agents.add(parse_agent(name))
        except InvalidLabel:
            continue  # the files in it are reported, each with its own path
    return agents


def _is_home(folder: Folder, directory: str) -> bool:
    """Return True if there is a block in a private folder, or the agent's properties, or nothing: other files alone make nobody known.

    So a client that deletes an agent is rid of it, though files of other programs stay where it was.
    """
    is_empty = True
    for path in islice(folder.content(directory), _MOST_FILES):
        if is_block_file(path.rpartition("/")[2]) or is_properties(path):
            return True
        is_empty = False
    return is_empty


def _agent_of(directory: str) -> str:
    return directory.partition("/")[2]


def _is_private(path: str) -> bool:
    return path.startswith(f"{PRIVATE}/") and path.count("/") == 1
