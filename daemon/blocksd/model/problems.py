"""What is known to be wrong, whoever found it, and how often that has changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from blocksd.model.revision import timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, KeysView, ValuesView

    from blocksd.model.problem import Problem


class Problems(Mapping[str, "Problem"]):
    """What is wrong by now: subject → problem."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._known: dict[str, Problem] = {}
        self.changes = 0  # counts up whenever anything changes
        self.warnings = 0  # how many of them are

    def __getitem__(self, subject: str) -> Problem:
        return self._known[subject]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, subject: object) -> bool:
        return subject in self._known

    def keys(self) -> KeysView[str]:
        return self._known.keys()

    def values(self) -> ValuesView[Problem]:
        return self._known.values()

    def __repr__(self) -> str:
        return f"Problems({self._known!r})"

    def copy(self) -> dict[str, Problem]:
        """All that is wrong at this moment, to compare with later."""
        return self._known.copy()

    def set(self, problem: Problem) -> None:
        """Something is wrong; saying the same again changes nothing."""
        known = self._known.get(problem.subject)
        if not problem.same_as(known):
            since = known.since if known is not None else timestamp(self._wall())
            self._known[problem.subject] = replace(problem, since=since)
            self.changes += 1
            self.warnings += problem.warning - (known is not None and known.warning)

    def remove(self, subject: str) -> None:
        """It is right again."""
        removed = self._known.pop(subject, None)
        if removed is not None:
            self.changes += 1
            self.warnings -= removed.warning
