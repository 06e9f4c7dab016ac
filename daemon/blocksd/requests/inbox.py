"""Where requests wait, the actors in turn."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from blocksd.requests.request import MAX_BYTES
from blocksd.state.schedule import NEVER, Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from blocksd.requests.request import Entry

REFUSALS = ("dropped", "oversized", "surplus")
"""Why entries are refused without being carried out: `Reading` in `inboxes` explains the words."""

_HELD = 1024
_HELD_CHARS = 8 * MAX_BYTES
_HELD_PER_ACTOR = 128
_HELD_CHARS_PER_ACTOR = 2 * MAX_BYTES


class Inbox:
    """Entries that were read and are not done: those that wait, by actor, and those that are under way.

    All of them are still in Redis, and are removed from there when they are done: what is here may be forgotten at any
    time, and is read again.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, schedule: Schedule | None = None) -> None:
        """`schedule` says when there is something to carry out."""
        self._clock = clock
        self._schedule = schedule or Schedule()
        self._waiting: dict[str, deque[Entry]] = {}
        self._held: dict[Entry, float] = {}  # entry → when it was added
        self._under_way: list[Entry] = []
        self._chars = 0
        self._loads: dict[str, tuple[int, int]] = {}  # actor → how many of its entries are here, and their characters
        self.crowded: frozenset[str] = frozenset()
        """Actors of which no more should be read for now, however much room there is for others."""
        self.refused: Counter[str] = Counter()
        """How many entries were refused unseen since the start, by reason."""
        self.restarts = 0  # how often everything must have been read again

    @property
    def is_waiting(self) -> bool:
        """Return True if there is something to take."""
        return bool(self._waiting)

    @property
    def is_full(self) -> bool:
        """Return True if no more should be read for now."""
        return len(self._held) >= _HELD or self._chars >= _HELD_CHARS

    def add(self, entries: Iterable[Entry]) -> None:
        """Add entries that were read; those that are here already are not added twice."""
        now = self._clock()
        for entry in entries:
            if entry not in self._held:
                self._held[entry] = now
                self._weigh(entry, 1)
                self._waiting.setdefault(entry.actor, deque()).append(entry)
                self._schedule["requests"] = 0.0

    def received_at(self, entry: Entry) -> float:
        """When an entry that is here was added."""
        return self._held[entry]

    def __len__(self) -> int:
        """How many entries wait, or are under way."""
        return len(self._held)

    def take_next(self, limit: int) -> list[Entry]:
        """The entries to deal with next, at most `limit`: one of each actor in turn, each actor's in their order."""
        taken: list[Entry] = []
        while self._waiting and len(taken) < limit:
            actor = next(iter(self._waiting))
            entries = self._waiting.pop(actor)
            taken.append(entries.popleft())
            if entries:
                self._waiting[actor] = entries  # behind the others
        self._under_way += taken
        if not self._waiting:
            self._schedule["requests"] = NEVER
        return taken

    def postpone(self, entries: Iterable[Entry], until: float, *, cut: Sequence[Entry] = ()) -> None:
        """These were taken, and cannot be dealt with yet: they are the first of their actors' again.

        `cut` are those of them that waited for nothing but their turn: the turns go on where they ended.
        """
        entries = list(entries)
        for entry in reversed(entries):
            self._under_way.remove(entry)
            self._waiting.setdefault(entry.actor, deque()).appendleft(entry)
        if cut:
            turns = dict.fromkeys(entry.actor for entry in cut)
            self._waiting = {actor: self._waiting[actor] for actor in dict.fromkeys([*turns, *self._waiting])}
        self._schedule["requests"] = NEVER if not self._waiting else until if entries else 0.0

    def remove_done(self) -> None:
        """Remove what was taken: it was replied to, and removed from Redis."""
        for entry in self._under_way:
            del self._held[entry]
            self._weigh(entry, -1)
        self._under_way.clear()

    def forget_all(self) -> None:
        """Forget all: where it is kept, it is read again."""
        self._waiting.clear()
        self._held.clear()
        self._under_way.clear()
        self._loads.clear()
        self.crowded = frozenset()
        self._chars = 0
        self.restarts += 1
        self._schedule["requests"] = NEVER

    def _weigh(self, entry: Entry, sign: int) -> None:
        chars = sign * len(entry.text or "")
        self._chars += chars
        count, held_chars = self._loads.get(entry.actor, (0, 0))
        count, held_chars = self._loads[entry.actor] = (count + sign, held_chars + chars)
        is_crowded = count >= _HELD_PER_ACTOR or held_chars >= _HELD_CHARS_PER_ACTOR
        if is_crowded != (entry.actor in self.crowded):
            self.crowded ^= {entry.actor}
        if not count:
            del self._loads[entry.actor]
