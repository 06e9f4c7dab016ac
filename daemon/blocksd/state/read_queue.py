"""Files that wait to be read, each with when it is due."""

from __future__ import annotations

import time
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from blocksd.model.label import clash_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SETTLE_SECONDS = 0.02
"""How long a file that appeared is left alone, unless its writer is seen to close it first."""

_LONGEST_WAIT = 1.0
_PATIENCE = 8  # looks at a file that is being written, each after a longer wait, before it is called a problem


HALF_SECONDS = 1.0
"""How old a save must be before it is believed that it empties a file, or takes its whole frontmatter away."""

_LONGEST_DOUBT = 10.0  # seconds for which a file that is saved again and again is not believed


class _Half(NamedTuple):
    """A file that may hold half of a save: which save, until when that is doubted, and since when any is."""

    saved_at: float
    until: float
    since: float


class ReadQueue:
    """Files by their paths, each of which is in it once. Times are of a monotonic clock, in seconds."""

    def __init__(self, clock: Callable[[], float], wall: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._wall = wall
        self.halves: dict[str, _Half] = {}
        """Files that may hold half of a save."""
        self.ready: dict[str, bool] = {}  # path → whether its writer was seen to close it
        self.known: dict[str, None] = {}  # those of them that are not new: a folder may have very many that are
        self.later: dict[str, float] = {}
        self.looks: dict[str, int] = {}  # at files that are being written
        self._blocked: dict[str, set[str]] = {}  # clash key → files whose label another has

    def __contains__(self, path: str) -> bool:
        """Return True if reading this file is due."""
        return path in self.ready

    def hint(self, path: str, *, closed: bool) -> None:
        """Note that something happened to this file; `closed` if its writer was seen to be done."""
        if closed:
            self.later.pop(path, None)
            self.looks.pop(path, None)  # if it is being written again, that is another save
            self.add(path, closed=True)
        elif path not in self.ready:
            self.later.setdefault(path, self._clock() + SETTLE_SECONDS)

    def add(self, path: str, *, closed: bool = False) -> None:
        """Read a file as soon as can be."""
        self.known[path] = None
        if closed:
            self.ready[path] = True
        else:
            self.ready.setdefault(path, False)

    def add_all(self, paths: Iterable[str]) -> None:
        """The same, for several files in this order."""
        for path in paths:
            self.add(path)

    def add_new(self, paths: Iterable[str]) -> None:
        """The same, for files that no block in force has."""
        for path in paths:
            self.ready.setdefault(path, False)

    def postpone(self, path: str, seconds: float) -> None:
        """Read a file after so long a time."""
        self.later[path] = self._clock() + seconds

    def block(self, path: str, label: str) -> None:
        """Let a file wait until this label, which another file has, is free."""
        self._blocked.setdefault(clash_key(label), set()).add(path)

    def unblock(self, label: str) -> None:
        """Read the files that waited for this label: one of them may have it now."""
        self.add_all(self._blocked.pop(clash_key(label), ()))

    def wait_for_writer(self, path: str) -> bool:
        """Back off while a file is being written. Returns True once the retry limit is reached."""
        looks = self.looks[path] = self.looks.get(path, 0) + 1
        self.postpone(path, min(SETTLE_SECONDS * 2 ** min(looks, 8), _LONGEST_WAIT))
        return looks > _PATIENCE

    def is_fresh(self, path: str, saved_at: float) -> bool:
        """Return True if a file was saved a moment ago, at this time of day. Of one in doubt, the monotonic clock tells."""
        half = self.halves.get(path)
        if half is not None and half.saved_at == saved_at:
            return self._clock() < half.until
        if half is not None and self._clock() >= half.since + _LONGEST_DOUBT:
            return False
        return self._wall() - saved_at < HALF_SECONDS

    def doubt(self, path: str, saved_at: float) -> None:
        """Read a file, which may hold half of a save, again when it is no longer fresh."""
        half = self.halves.get(path)
        if half is None or half.saved_at != saved_at:
            now, age = self._clock(), max(0.0, self._wall() - saved_at)
            half = _Half(saved_at, now + max(0.0, HALF_SECONDS - age), half.since if half is not None else now)
            self.halves[path] = half
        self.later[path] = half.until

    def believe(self, path: str) -> None:
        """Note that a file is taken as it was read."""
        self.halves.pop(path, None)

    def stop_waiting(self, path: str) -> None:
        """Note that a file is not being written any more."""
        self.looks.pop(path, None)

    def advance(self, now: float) -> None:
        """Make due what waited for this time."""
        for path in [path for path, due in self.later.items() if due <= now]:
            del self.later[path]
            self.add(path)

    def first(self, limit: int) -> list[str]:
        """The files that have been due for longest, at most so many."""
        return list(islice(self.ready, limit))

    def take(self, path: str) -> bool:
        """Take a file that is read now. Returns True if its writer was seen to close it."""
        self.known.pop(path, None)
        return self.ready.pop(path)

    def take_batch(self, now: float, limit: int) -> dict[str, bool]:
        """Take the files that have been due for longest, at most so many; of each, whether its writer closed it."""
        if self.later:
            self.advance(now)
        if len(self.ready) <= limit:  # with its memory, which may have been for very many
            batch, self.ready, self.known = self.ready, {}, {}
            return batch
        return {path: self.take(path) for path in self.first(limit)}

    def clear(self) -> None:
        """Forget what is due; what waits goes on waiting."""
        self.ready.clear()
        self.known.clear()

    @property
    def backlog(self) -> int:
        """How many files are due."""
        return len(self.ready)

    @property
    def due(self) -> float:
        """When the next file is due."""
        return 0.0 if self.ready else min(self.later.values(), default=float("inf"))

    @property
    def is_empty(self) -> bool:
        """Return True if there is nothing to read, now or later."""
        return not (self.ready or self.later)

    @property
    def is_stuck(self) -> bool:
        """Return True if all that is left to read is being written, and was tried often enough."""
        return not self.ready and all(self.looks.get(path, 0) > _PATIENCE for path in self.later)
