"""Receives what happens in the core: a log, metrics, a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.model.problem import reverted, unmerged_subject

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blocksd.errors import BlocksdError
    from blocksd.model.faults import Fault
    from blocksd.model.problem import Problem, Problems
    from blocksd.model.revision import Revision
    from blocksd.requests.reply import Answer

REVERT_SECONDS = 3600.0
"""For how long a save that took away what others wrote is warned of, if the block stays as it is."""


class Listener:
    """Receives what happens. Every method is a no-op by default."""

    def on_revision(self, revision: Revision) -> None: ...
    def on_request(self, answer: Answer, seconds: float) -> None:
        """A request was replied to, so many seconds after it was received."""

    def on_fault(self, fault: Fault, is_new: bool) -> None:  # passed on as it comes
        """The daemon failed on one request or one file; `is_new`: for the first time in this way."""

    def on_problem(self, problem: Problem) -> None: ...
    def on_cleared(self, problem: Problem) -> None: ...
    def on_mirror_unreachable(self, error: BlocksdError) -> None: ...
    def on_mirror_in_sync(self, how: str) -> None: ...
    def on_repaired(self, count: int) -> None: ...


class ProblemNews:
    """Tells listeners which problems came and went since they were told last."""

    def __init__(self, problems: Problems, listeners: Sequence[Listener]) -> None:
        self._problems = problems
        self._listeners = listeners
        self._told: dict[str, Problem] = {}
        self.count = 0
        """How many changes of problems there had been when they were told last."""

    def tell(self) -> None:
        """Tell what has changed."""
        self.count = self._problems.changes
        told, self._told = self._told, self._problems.copy()
        for subject in sorted(told.keys() | self._told.keys()):
            problem = self._told.get(subject)
            for listener in self._listeners:
                if problem is None:
                    listener.on_cleared(told[subject])
                elif problem != told.get(subject):
                    listener.on_problem(problem)


class RevertWarnings:
    """Keeps a warning of each save that took away what others wrote, until the block changes again, or for a time."""

    def __init__(self, problems: Problems, clock: Callable[[], float]) -> None:
        self._problems = problems
        self._clock = clock
        self.since: dict[str, float] = {}
        """When each of the warnings began."""

    def note(self, revision: Revision) -> None:
        """Take note of a revision that is in force."""
        if revision.reverts:
            problem = reverted(revision)
            self._problems.remove(problem.subject)  # another save, another time
            self._problems.set(problem)
            self.since[problem.subject] = self._clock()
        elif revision.is_edit:
            for label in filter(None, (revision.label, revision.renamed_from)):
                self._end(unmerged_subject(label))

    def expire(self) -> None:
        """Remove the warnings that are older than `REVERT_SECONDS`."""
        for subject in [one for one, since in self.since.items() if self._clock() - since >= REVERT_SECONDS]:
            self._end(subject)

    def _end(self, subject: str) -> None:
        if self.since.pop(subject, None) is not None:
            self._problems.remove(subject)
