"""Keeps the entries of inboxes: those that wait, those that are under way, and how far each inbox was dealt with."""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter, deque
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from blocksd.requests.request import MAX_BYTES
from blocksd.state.schedule import NEVER, Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from blocksd.journal.database import Database
    from blocksd.requests.request import Entry

REFUSALS = ("dropped", "oversized", "surplus")
"""Why entries are refused without being carried out: `Reading` in `inboxes` explains the words."""

_HELD = 1024
_HELD_CHARS = 8 * MAX_BYTES
_HELD_PER_ACTOR = 128
_HELD_CHARS_PER_ACTOR = 2 * MAX_BYTES

ATTEMPTS = 3
"""How often a request is begun: after that it is taken for what ends the daemon."""

_MOST_SUSPECTS = 1024  # a round has fewer requests; more are of rounds long ago
_MOST_READ = 1024 * 1024
_NOTHING = b"[]\n"

_ID = re.compile("([0-9]{1,20})-([0-9]{1,20})")
_AHEAD_MS = 86_400_000  # an entry's id is made of the server's clock: one that is further ahead was made up
_MOST = 2**63 - 1

Mark = tuple[int, int]


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
        self._begun: list[Entry] = []  # those of them that are carried out
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

    @property
    def entries(self) -> Collection[Entry]:
        """All that were read and are not done."""
        return self._held.keys()

    def add(self, entries: Iterable[Entry]) -> None:
        """Add entries that were read; those that are here already are not added twice."""
        now = self._clock()
        for entry in entries:
            if entry not in self._held:
                self._held[entry] = now
                self._weigh(entry, 1)
                self._waiting.setdefault(entry.actor, deque()).append(entry)
                self._schedule["requests"] = 0.0

    def __len__(self) -> int:
        """How many entries wait, or are under way."""
        return len(self._held)

    def begin(self, limit: int, started: StartedRequests) -> tuple[list[Entry], list[Entry]]:
        """Take at most `limit` entries. Return those that are carried out now, noted as begun, and those that come later."""
        entries = self.take_next(limit)
        alone = started.first_alone(entries)
        self._begun = entries[:alone]
        if self._begun:
            started.begin(self._begun)
        return self._begun, entries[alone:]

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

    def finish(self, answered: Sequence[Entry], started: StartedRequests, handled: Handled) -> list[float]:
        """Note that these entries were replied to, and the others that were begun are taken again. Return when each was added."""
        added = [self._held[entry] for entry in answered]
        handled.note(answered)
        self.remove_done()
        self.end(started)
        return added

    def end(self, started: StartedRequests) -> None:
        """Note that what was begun is over: it was replied to, or is taken again."""
        if self._begun:
            started.end(self._begun)
            self._begun = []

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


class _Key(NamedTuple):
    actor: str
    id: str


class StartedRequests:
    """The requests of the round that is under way, in a file beside the journal.

    It is overwritten in place and never synced: it is to outlive the process, not the machine, and must cost nothing. A
    file system that takes no more of it only costs the daemon its memory of what may have ended it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.counts: dict[_Key, int] = {}
        self._handle: int | None = None
        self._size = 0
        with suppress(OSError):
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            self._read()
            self.end()

    def open_again(self) -> None:
        """Go on in a file that is there: the one so far may have been removed."""
        self.close()
        self._size = 0
        with suppress(OSError):
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            self._size = os.fstat(self._handle).st_size
            self.end()

    def _read(self) -> None:
        """Count one attempt more for each request that was under way."""
        assert self._handle is not None
        self._size = os.fstat(self._handle).st_size
        with suppress(ValueError, TypeError, KeyError, OverflowError, RecursionError):  # damaged: it says nothing
            for actor, entry, count in json.loads(os.pread(self._handle, _MOST_READ, 0))[:_MOST_SUSPECTS]:
                self.counts[_Key(str(actor), str(entry))] = int(count)

    def attempts(self, entry: Entry) -> int:
        """How often the daemon ended while this request was under way."""
        return self.counts.get(_Key(entry.actor, entry.id), 0) if self.counts else 0

    def first_alone(self, entries: Sequence[Entry]) -> int:
        """How many of the entries to begin at once: one that has a last attempt left is begun alone.

        So those that were only in its company are cleared, and the one that ends the daemon is found.
        """
        for place, entry in enumerate(entries):
            if self.attempts(entry) >= ATTEMPTS - 1:
                return max(place, 1)
        return len(entries)

    def begin(self, entries: Iterable[Entry]) -> None:
        """These are under way from now on."""
        counts = {_Key(entry.actor, entry.id): self.attempts(entry) + 1 for entry in entries}
        self._write(self.counts | counts)

    def end(self, entries: Iterable[Entry] = ()) -> None:
        """Nothing is under way any more; these are done, and no longer suspected."""
        for entry in entries if self.counts else ():
            self.counts.pop(_Key(entry.actor, entry.id), None)
        self._write(self.counts)

    def _write(self, counts: dict[_Key, int]) -> None:
        if self._handle is None:
            return
        data = json.dumps([[*key, count] for key, count in counts.items()]).encode() + b"\n" if counts else _NOTHING
        # A shorter text leaves the end of a longer one behind: blanks take its place, and no block is given back.
        with suppress(OSError):
            os.pwrite(self._handle, data.ljust(self._size), 0)
            self._size = max(self._size, len(data))

    def close(self) -> None:
        """Give the file back."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __del__(self) -> None:
        self.close()


class Handled:
    """The newest entry of each actor up to which all were dealt with: ids only grow as long as a stream lives.

    An entry up to there comes in again when Redis is restored from a snapshot. Usually its outcome is known. If that is
    forgotten, the mark tells that the entry must not be dealt with again. So marks are written before outcomes are
    forgotten. If an inbox is made anew while the server's clock is behind, entries are refused until that has caught up.
    """

    def __init__(self, database: Database, *, wall: Callable[[], float]) -> None:
        self._database = database
        self._wall = wall
        self._done: dict[str, Mark] = {}  # since marks were last written
        with database.reading:
            self.marks: dict[str, Mark] = {
                actor: (ms, number) for actor, ms, number in database.execute("SELECT actor, ms, number FROM spent")
            }

    def note(self, done: Iterable[Entry]) -> None:
        """Note that these entries were dealt with."""
        for entry in done:
            mark = _mark_of(entry)
            if mark is not None and mark > self._done.get(entry.actor, (0, 0)):
                self._done[entry.actor] = mark

    def end_before(self, waiting: Iterable[Entry]) -> bool:
        """Note that these entries still wait. Return True if newer ones have been dealt with, or one of them before."""
        is_changed = False
        for entry in waiting:
            mark = _mark_of(entry)
            if mark is not None and mark <= self._done.get(entry.actor, (0, 0)):
                self._done[entry.actor], is_changed = _before(mark), True
        return is_changed

    def has(self, entry: Entry) -> bool:
        """Return True if this entry was dealt with before the last time that marks were written."""
        mark = self.marks.get(entry.actor)
        if mark is None:
            return False
        its = _mark_of(entry)
        return its is not None and its <= mark

    def write(self, known: Collection[str], waiting: Iterable[Entry]) -> bool:
        """Write the marks of what was dealt with; those of actors that are not `known` any more are forgotten.

        `waiting` are the entries that were read and not dealt with. Return True if the marks tell of all that was.

        Raises:
            JournalUnusable: they could not be written: outcomes must not be forgotten.
        """
        is_all = not self.end_before(waiting)
        latest = int(self._wall() * 1000) + _AHEAD_MS
        new = {
            actor: mark
            for actor, mark in self._done.items()
            if mark > self.marks.get(actor, (0, 0)) and mark[0] <= latest
        }
        gone = [actor for actor in self.marks if actor not in known and actor not in new]
        if new or gone:
            with self._database.writing:
                self._database.executemany(
                    "INSERT OR REPLACE INTO spent VALUES (?, ?, ?)", ((actor, *mark) for actor, mark in new.items())
                )
                self._database.executemany("DELETE FROM spent WHERE actor = ?", ((actor,) for actor in gone))
            self.marks.update(new)
            for actor in gone:
                del self.marks[actor]
        self._done = {}
        return is_all


def _mark_of(entry: Entry) -> Mark | None:
    found = _ID.fullmatch(entry.id)
    return (min(int(found[1]), _MOST), min(int(found[2]), _MOST)) if found else None


def _before(mark: Mark) -> Mark:
    ms, number = mark
    return (ms, number - 1) if number else (ms - 1, _MOST)
