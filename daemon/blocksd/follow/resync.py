"""Compares the whole copy with the mirror, a part at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.errors import Unavailable
from blocksd.files.staging import digest
from blocksd.follow.comparison import Outcome
from blocksd.follow.mirrored import PAGE
from blocksd.follow.opening import differing
from blocksd.follow.plan import Wanted, removes_too_much
from blocksd.model.problem import Problem, count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blocksd.follow.mirrored import Mirrored
    from blocksd.follow.opening import Copy
    from blocksd.follow.report import Report

DELETIONS = "<deletions>"
"""The subject of the problem that removals are held back."""


class Resync:
    """One comparison, after which the copy has every change up to `goal`: an epoch and a seq.

    What changes meanwhile is heard, and brought afterwards.
    """

    def __init__(
        self, copy: Copy, mirrored: Mirrored, goal: tuple[str, int], report: Report, *, accepts_deletions: bool = False
    ) -> None:
        """`accepts_deletions`: files that the leader has no longer are removed, however many they are."""
        self.goal = goal
        self.done, self.left = 0, 0
        self._copy = copy
        self._mirrored = mirrored
        self._report = report
        self._accepts_deletions = accepts_deletions
        self._steps = self._compare()

    def anew(self) -> Resync:
        """Return the same from its beginning: files that are as they must be cost little."""
        return Resync(self._copy, self._mirrored, self.goal, self._report, accepts_deletions=self._accepts_deletions)

    def go_on(self) -> Outcome | None:
        """Compare the next files; return what became of them, and None once it is over.

        Raises:
            Unavailable, StateUnusable: it cannot go on now.
            Misconfigured: the folder was never a copy, and has other files.
        """
        return next(self._steps, None)

    def _compare(self) -> Iterator[Outcome]:
        copy, mirrored = self._copy, self._mirrored
        self._check_leader()
        epoch, labels = mirrored.labels()
        self._check(epoch)
        self.left = len(labels)
        if not copy.is_marked:
            copy.check_place()
            if not copy.adopts:
                yield from self._check_equal(labels)
            copy.mark(epoch)
        for looked, shown in mirrored.differing(labels, self._known()):
            self.done, self.left = self.done + looked, self.left - looked
            yield copy.copier.bring(shown, restores=copy.is_read_only)
        there = set(labels)
        gone = [label for label in (*copy.place.paths, *copy.place.due) if label not in there]
        if self._may_remove(gone):
            for first in range(0, len(gone), PAGE):
                yield copy.copier.bring(mirrored.read(gone[first : first + PAGE]), restores=copy.is_read_only)
        self._check(mirrored.stand().epoch)

    def _check_leader(self) -> None:
        """Raise Unavailable if the mirror is of a leader before the one that was followed last: its texts are old."""
        stand, place = self._mirrored.stand(), self._copy.place
        if stand.generation < place.generation:
            message = (
                f"the leader on {stand.host} is of generation {stand.generation}, and this copy is of generation "
                f"{place.generation}: it is not followed back"
            )
            hint = "start the newer leader, which takes over by itself; if it is lost for good: --promote there or here"
            raise Unavailable(message, hint=hint)
        place.note_generation(stand.generation)

    def _known(self) -> dict[str, tuple[int, str]]:
        """Return the versions and forms of the files that need no look, if the leader has the same: sweeps look at them."""
        place, edits = self._copy.place, self._report.edits
        return {
            one.label: (one.version, one.form)
            for path, one in place.files.items()
            if one.signature is not None and one.label not in place.due and path not in edits
        }

    def _check(self, epoch: str | None) -> None:
        """Raise Unavailable if the mirror is of another journal now; a reset is on its way then."""
        if epoch != self.goal[0]:
            raise Unavailable("the mirror was built anew while the files were compared")

    def _may_remove(self, gone: Sequence[str]) -> bool:
        """Return True if so many files may be removed; else report that it is held back."""
        place = self._copy.place
        removed = sum(label in place.paths for label in gone)
        if self._accepts_deletions or not removes_too_much(place.files, removed):
            self._report.clear(DELETIONS)
            return True
        message = f"the leader has {count(removed, 'file')} of {len(place.files)} no longer: they are not removed here"
        hint = "see whether the leader serves the right folder; if so, run 'blocksd resume --accept-deletions' here"
        self._report.set(Problem(DELETIONS, "halted", message, hint))
        self._report.held = removed
        return False

    def _check_equal(self, labels: Sequence[str]) -> Iterator[Outcome]:
        """Check that all that is in the folder is the leader's, before anything is written there."""
        copy = self._copy
        others = set(copy.files())
        if not others:
            return
        for _, shown in self._mirrored.differing(labels, {}):
            read = {one.path: one.data for one in shown.values() if isinstance(one, Wanted)}
            for path in others.intersection(read):
                if copy.comparer.read(path).digest == digest(read[path]):
                    others.discard(path)
            yield Outcome()
        if others:
            raise differing(sorted(others), copy.root.path)
