"""Compares the folder with what is known of it: what differs is to be looked at."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from blocksd.files.folder import unreadable_directory
from blocksd.model.problem import problem_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from blocksd.files.folder import Folder, FolderEntry
    from blocksd.model.problem import Problems
    from blocksd.state.read_queue import ReadQueue
    from blocksd.state.state import State

_MOST_TREES = 16  # are compared one by one


class Scanner:
    """Sweeps of the whole folder, a slice at a time, and looks into single trees of it. No file is opened.

    What is below a directory that cannot be listed does not count as missing.
    """

    def __init__(
        self,
        folder: Folder,
        state: State,
        queue: ReadQueue,
        problems: Problems,
        known: Callable[[], set[str]],
    ) -> None:
        """`queue` is where files wait to be looked at; `known` makes a set of the files that are to be there."""
        self._folder = folder
        self._state = state
        self._queue = queue
        self._problems = problems
        self._known = known
        self._trees: set[str] = set()
        self._sweep: Iterator[None] | None = None
        self.is_due = False  # there is something to compare
        self.sweeps = 0  # that have come to their end
        self.directories: set[str] = set()  # as of the last sweep
        self.unlisted: set[str] = set()  # those that it could not list
        self.left: list[str] = []  # temporaries of ours that a crash has left

    def hint(self, tree: str) -> None:
        """Something happened to this directory, or to the folder itself (the empty path)."""
        self._trees.add(tree)
        self.is_due = True

    def begin(self) -> None:
        """Sweep from the beginning."""
        self._sweep = self._sweeping()
        self.is_due = True

    def give_up(self) -> None:
        """What a sweep under way has been compared with is void, and so is the sweep."""
        self._sweep = None
        self.is_due = bool(self._trees)

    @property
    def is_sweeping(self) -> bool:
        return self._sweep is not None

    def look_at_trees(self) -> set[str]:
        """Compare the trees that were hinted at: these. If they are too many, a sweep is begun in their place."""
        trees, self._trees = self._trees, set()
        self.is_due = self._sweep is not None
        if "" in trees or len(trees) > _MOST_TREES:
            self.begin()
            return set()
        for tree in trees:
            below = f"{tree}/"
            for path in [path for path in self._state.signatures if path.startswith(below)]:
                self._queue.add(path)
            for found in self._folder.sweep(tree):
                self._compare(found, set(), set(), set())
        return trees

    def step(self) -> bool:
        """Go on with the sweep that is under way; whether that was the end of it."""
        if self._sweep is None or next(self._sweep, _OVER) is not _OVER:
            return False
        self._sweep = None
        self.is_due = bool(self._trees)
        return True

    def _sweeping(self) -> Iterator[None]:
        """Compare the whole folder, a slice at a time."""
        unseen = self._known()
        unlisted: set[str] = set()
        directories: set[str] = set()
        for number, found in enumerate(self._folder.sweep()):
            if number:
                yield
            self._compare(found, unseen, directories, unlisted)
        for directory in unlisted:
            below = f"{directory}/" if directory else ""
            unseen = {path for path in unseen if not path.startswith(below)}
        for problem in list(self._problems.values()):
            if problem.code == "unreadable_directory" and problem.subject.rstrip("/") not in unlisted:
                self._problems.remove(problem.subject)
        for path in unseen:
            self._queue.add(path)
        self.directories, self.unlisted = directories, unlisted
        self.sweeps += 1

    def _compare(
        self, found: Sequence[FolderEntry], unseen: set[str], directories: set[str], unlisted: set[str]
    ) -> None:
        signatures, queue = self._state.signatures, self._queue
        for path, kind, signature, error in found:
            if kind == "file":
                unseen.discard(path)
                if signatures.get(path) != signature:
                    queue.add(path)
            elif kind == "directory":
                directories.add(path)
            elif kind == "left":
                self.left.append(path)
            elif kind == "unreadable":
                assert error is not None
                unlisted.add(path)
                problem = problem_of(f"{path}/", unreadable_directory(error))
                self._problems.set(replace(problem, code="unreadable_directory"))
            else:
                unseen.discard(path)
                queue.add(path)


_OVER = object()
