"""When each kind of work is due."""

from __future__ import annotations

from typing import Literal

Work = Literal[
    "retry",  # after a failure of the journal or the folder
    "roots",  # see whether the folder and the sources are still where they were
    "sweep",  # compare the whole folder with what is known of it
    "files",  # read files
    "sources",  # read files of sources
    "requests",  # carry requests out
    "merges",  # merge stale saves
    "mirror",  # heartbeat, resynchronisation and verification
    "kept",  # put back saves that lie aside and could not be read
    "tidy",  # sync the last commit and remove what it displaced
    "retention",  # forget old history
    "scrub",  # check what the journal holds
]

NEVER = float("inf")


class Schedule:
    """One time for each kind of work, on a monotonic clock in seconds. 0.0 is at once."""

    def __init__(self) -> None:
        self._times: dict[Work, float] = {}

    def set_due(self, work: Work, at: float) -> None:
        """Note when a kind of work is due next; `NEVER` if it is not."""
        self._times[work] = at

    def hasten(self, work: Work, at: float) -> None:
        """Note that a kind of work is due at this time, unless it is due earlier."""
        if at < self._times.get(work, NEVER):
            self._times[work] = at

    def at(self, work: Work) -> float:
        """When a kind of work is due next."""
        return self._times.get(work, NEVER)

    def due(self, now: float) -> set[Work]:
        """The kinds of work that are due."""
        return {work for work, at in self._times.items() if at <= now}

    def next(self, *, but: tuple[Work, ...] = (), only: tuple[Work, ...] = ()) -> float:
        """When anything is due next; `but` for some kinds, or `only` of some."""
        times = self._times
        return min((times[work] for work in times if work not in but and (not only or work in only)), default=NEVER)
