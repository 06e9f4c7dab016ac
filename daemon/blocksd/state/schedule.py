"""When each kind of work is due."""

from __future__ import annotations

from typing import Literal, get_args

Work = Literal[
    "retry",  # after a failure of the journal or the folder
    "roots",  # see whether the folder and the sources are still where they were
    "sweep",  # compare the whole folder with what is known of it
    "files",  # read files
    "sources",  # read files of sources
    "requests",  # carry requests out
    "merges",  # merge stale saves
    "kept",  # put back saves that lie aside and could not be read
    "mirror",  # heartbeat, resynchronization and verification
    "tidy",  # sync the last commit and remove what it displaced
    "retention",  # forget old history
    "scrub",  # check what the journal holds
]

NEVER = float("inf")


class Schedule(dict[Work, float]):
    """One time for each kind of work, on a monotonic clock in seconds: 0.0 is at once. Each part that knows a time sets it."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(get_args(Work), NEVER))

    def hasten(self, work: Work, at: float) -> None:
        """Note that a kind of work is due at this time, unless it is due earlier."""
        if at < self[work]:
            self[work] = at

    def next(self, *, but: tuple[Work, ...] = (), only: tuple[Work, ...] = ()) -> float:
        """When anything is due next; `but` for some kinds, or `only` of some."""
        return min((at for work, at in self.items() if work not in but and (not only or work in only)), default=NEVER)
