"""Reads the inboxes of actors from Redis, in a thread."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from blocksd.errors import BlocksdError
from blocksd.model.faults import Failed
from blocksd.model.label import printable
from blocksd.model.revision import OPERATOR
from blocksd.requests.inbox import REFUSALS
from blocksd.requests.inboxes import KEPT, READ_PER_INBOX, Inboxes
from blocksd.requests.request import MAX_BYTES, Entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.mirror.keys import Keys
    from blocksd.requests.inboxes import Reading

_INBOXES_AT_ONCE = 64
_FIND_AT_ONCE = 1000
_TICK_SECONDS = 1.0
_TICKS_FOR_ALL = 20
_COOLING_SECONDS = 0.02  # between two readings of an inbox that is flooded
_FLOOD = 32  # entries refused in one reading, or more
_BACK_OFF_SECONDS = (0.05, 1.0)
_RESTART_SECONDS = 0.5  # whatever it was that could not be done, it takes a moment
_POLL_SECONDS = (0.005, 0.05)  # where the server does not tell: while requests come in, and else
_POLL_AT_ONCE = 250
_HOT = 64
_STRANGER_SECONDS = 2.0  # until an agent that is not known is refused: it may be about to become known
_MOST_STRANGERS = 1000
_JOIN_SECONDS = 4.0


class Readable(NamedTuple):
    """Inboxes can be read, or the reason why not."""

    obstacle: str | None


class Refused(NamedTuple):
    """How many entries of one inbox were refused without being passed on; `Reading` says for what."""

    actor: str
    dropped: int = 0
    oversized: int = 0
    surplus: int = 0

    def counts(self) -> dict[str, int]:
        """By reason."""
        return dict(zip(REFUSALS, self[1:], strict=True))

    def added_to(self, other: Refused | None) -> Refused:
        """Both counts together; `other` is of the same actor."""
        if other is None:
            return self
        return Refused(
            self.actor,
            self.dropped + other.dropped,
            self.oversized + other.oversized,
            self.surplus + other.surplus,
        )

    def sentence(self) -> str:
        """One line for a log."""
        reasons = (
            (self.dropped, "that are no requests and have no id to reply to"),
            (self.oversized, f"of over {MAX_BYTES} bytes"),
            (self.surplus, f"beyond the {KEPT} that wait"),
        )
        what = ", ".join(f"{number} {reason}" for number, reason in reasons if number)
        return f"dropped from the inbox of {printable(self.actor)}: {what}"


News = list[Entry] | Readable | Refused | Failed
"""The values that a consumer passes on."""


class _Orders(NamedTuple):
    """Orders for a consumer: a value, so that threads can exchange it."""

    agents: frozenset[str] = frozenset()
    restarts: int = 0
    reconnects: int = 0
    held_back: frozenset[str] = frozenset()
    reads_strangers: bool = False


class Consumer:
    """Reads the inboxes, from a separate thread and connection, and passes what is in them to `sink`.

    What it passes is a list of entries; or, when that has changed, whether they can be read; or how many entries were
    refused. It reads only inboxes that have changed, and now and then looks whether one was missed.
    """

    def __init__(
        self, url: str, keys: Keys, sink: Callable[[News], object], *, lease: Callable[[], str] = lambda: ""
    ) -> None:
        """`lease` is what this daemon's lease says; without it, no entry is refused here."""
        self._url = url
        self._keys = keys
        self._sink = sink
        self._lease = lease
        self._orders = _Orders()
        self._room = threading.Event()
        self._room.set()
        self._wants_room = False  # something is to be read as soon as there is room
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._pipe: tuple[int, int] | None = None
        self._failures = 0
        self._said = ""

    def start(self) -> None:
        """Begin, or begin again if the thread has ended."""
        if not self.is_alive():
            if self._pipe is None:
                self._pipe = os.pipe()
                for end in self._pipe:
                    os.set_blocking(end, False)
            self._thread = threading.Thread(target=self._run, args=(self._pipe[0],), name="inbox", daemon=True)
            self._thread.start()

    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """End, within the time that one reading takes."""
        self._ending.set()
        self._wake()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)
        if self._pipe is not None and not self.is_alive():
            for end in self._pipe:
                with suppress(OSError):
                    os.close(end)
            self._pipe = None

    def follow(self, agents: frozenset[str], restarts: int) -> None:
        """Read the inboxes of these agents, besides the operator's; when `restarts` changes, read again what was read."""
        self._orders = self._orders._replace(agents=agents, restarts=restarts)
        self._wake()

    def read_strangers(self) -> None:
        """From now on read the inboxes of agents that are not known, too, a while after they have changed.

        Until the folder was read, agents may only seem not to be known.
        """
        self._orders = self._orders._replace(reads_strangers=True)
        self._wake()

    def hold_back(self, actors: frozenset[str]) -> None:
        """Pass on nothing more of these actors: enough of their entries wait."""
        self._orders = self._orders._replace(held_back=actors)
        self._wake()

    def resume(self) -> None:
        """Go on: what was passed on has been taken."""
        self._room.set()
        if self._wants_room:
            self._wake()

    def reconnect(self) -> None:
        """Begin anew on another connection: Redis was lost, and may be another server now."""
        self._orders = self._orders._replace(reconnects=self._orders.reconnects + 1)
        self._wake()

    def _wake(self) -> None:
        if self._pipe is not None:
            with suppress(OSError):  # full: it wakes anyway; whatever else it is: it wakes within a tick
                os.write(self._pipe[1], b"\0")

    def _run(self, wake: int) -> None:
        while not self._ending.is_set():
            try:
                orders = self._orders  # before it connects: what is ordered meanwhile concerns this connection, too
                inboxes = Inboxes(self._url, self._keys)
                try:
                    self._serve(inboxes, orders, wake)
                finally:
                    inboxes.close()
            except Exception as error:  # noqa: BLE001  # what is unforeseen is counted; it begins again all the same
                if not isinstance(error, (BlocksdError, OSError)):
                    self._sink(Failed("reading the inboxes", error))
                if self._said != type(error).__name__:
                    self._said = type(error).__name__
                    self._sink(Readable(str(error)))
                first, longest = _BACK_OFF_SECONDS
                self._ending.wait(min(first * 2**self._failures, longest))
                self._failures = min(self._failures + 1, 16)

    def _serve(self, inboxes: Inboxes, orders: _Orders, wake: int) -> None:
        """Read on one connection, until it is to end or another connection is wanted than was when `orders` were given."""
        session = _Session(inboxes, orders, time.monotonic())
        while not self._ending.is_set() and self._orders.reconnects == orders.reconnects:
            now = time.monotonic()
            session.take(self._orders, now)
            session.hear(now)
            session.look(now)
            self._failures = 0
            if self._said:
                self._said = ""
                self._sink(Readable(None))
            self._wants_room = bool(session.rung)  # told before it is seen whether there is room
            has_room = self._room.is_set()
            if has_room and session.is_ready(now):
                for actor, reading in session.read(now, self._lease()).items():
                    if reading.dropped or reading.oversized or reading.surplus:
                        self._sink(Refused(actor, *reading[4:]))
                if session.entries:
                    self._room.clear()
                    entries, session.entries = session.entries, []
                    self._sink(entries)
                continue
            if inboxes.wait(session.wait_seconds(now, has_room=has_room), wake):
                with suppress(OSError):
                    os.read(wake, 4096)


@dataclass
class _Session:
    """The inboxes as known for as long as one connection lasts, and which of them to read next.

    No entry is missed:
      1. everything is looked at after the server was told to tell of changes, and so is each agent that becomes known;
      2. from then on each change puts its inbox into `rung`; it leaves `rung` only by being read, before which nothing
         is heard that came after the reading: a change during a reading is heard after it;
      3. an inbox that holds more than was read goes back into `rung`, or into `held_back`, from where `take` brings it;
      4. an inbox in which only entries before the cursor are left is read again from its beginning a tick later: they
         are under way, or were forgotten, or the stream is another;
      5. all inboxes are looked at again every twenty ticks, should 1 to 4 be wrong, or the server not tell.
    """

    inboxes: Inboxes
    orders: _Orders
    now: float
    entries: list[Entry] = field(default_factory=list)
    known: frozenset[str] = frozenset()
    cursors: dict[str, str] = field(default_factory=dict)  # of inboxes that hold entries which were read
    rung: dict[str, None] = field(default_factory=dict)  # in the order in which they are read
    cooling: dict[str, float] = field(default_factory=dict)  # flooded → when they may be read again
    held_back: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    strangers: dict[str, float] = field(default_factory=dict)  # not known, and have sent something → when to read that
    hot: dict[str, None] = field(default_factory=dict)  # read last, the latest at the end
    heard_at: float = 0.0  # when something was last read

    def __post_init__(self) -> None:
        self._to_find: deque[str] = deque()  # to be looked at thoroughly
        self._all: list[str] = []
        self._at = 0  # how far the look at all inboxes has come
        self._tick_at = self.now + _TICK_SECONDS
        self._poll_at = self.now
        self._rest_until = 0.0

    def take(self, orders: _Orders, now: float) -> None:
        """Do as told: other agents, everything once more, other actors to hold back."""
        if orders.agents is not self.orders.agents or not self.known:
            known = orders.agents | {OPERATOR}
            self._to_find.extend(known - self.known)
            for actor in self.known - known:
                self._forget(actor)
            self.known = known
            self._all = list(known)
        if orders.restarts != self.orders.restarts:
            # What was read was forgotten. Each of these inboxes has a cursor: it is kept until the inbox is empty.
            self._rest_until = now + _RESTART_SECONDS
            self.rung.update(dict.fromkeys(self.cursors))
            self.cursors.clear()
        if self.held_back - orders.held_back:
            self.rung.update(dict.fromkeys(self.held_back - orders.held_back))
            self.held_back &= orders.held_back
        self.orders = orders

    def _forget(self, actor: str) -> None:
        for place in (self.cursors, self.rung, self.cooling, self.hot):
            place.pop(actor, None)
        self.held_back.discard(actor)
        self.doubtful.discard(actor)

    def hear(self, now: float) -> None:
        """Put the inboxes that have changed into `rung`; those of agents that are not known, a while later."""
        for actor in self.inboxes.changed():
            if actor in self.known:
                self.rung[actor] = None
            elif len(self.strangers) < _MOST_STRANGERS:
                self.strangers.setdefault(actor, now + _STRANGER_SECONDS)

    def look(self, now: float) -> None:
        """Look for inboxes that hold something, as far as that is due. This also shows that the server is there."""
        while self._to_find:
            some = [self._to_find.popleft() for _ in range(min(_FIND_AT_ONCE, len(self._to_find)))]
            self._ring(self.inboxes.find(some, thorough=True))
        for actor in [actor for actor, due in self.cooling.items() if due <= now]:
            del self.cooling[actor]
        if self.orders.reads_strangers:
            for actor in [actor for actor, due in self.strangers.items() if due <= now]:
                del self.strangers[actor]
                self.rung[actor] = None
        if now >= self._tick_at:
            self._tick_at = now + _TICK_SECONDS
            self._ring(self.inboxes.find(self._next(1 + len(self._all) // _TICKS_FOR_ALL), thorough=False))
            for actor in self.doubtful:
                self.cursors.pop(actor, None)
                self.rung[actor] = None
            self.doubtful.clear()
        if not self.inboxes.is_told and now >= self._poll_at:
            busy, quiet = _POLL_SECONDS
            self._poll_at = now + (busy if now < self.heard_at + _TICK_SECONDS else quiet)
            some = list(dict.fromkeys((OPERATOR, *self.hot, *self._next(_POLL_AT_ONCE))))
            self._ring(self.inboxes.find(some, thorough=False))

    def _ring(self, actors: list[str]) -> None:
        self.rung.update(dict.fromkeys(actor for actor in actors if actor in self.known))

    def _next(self, count: int) -> list[str]:
        """The next so many of all actors, over and over."""
        if self._at >= len(self._all):
            self._at = 0
        some = self._all[self._at : self._at + count]
        self._at += count
        return some

    def is_ready(self, now: float) -> bool:
        """Return True if there is something to read now."""
        return now >= self._rest_until and any(actor not in self.cooling for actor in self.rung)

    def wait_seconds(self, now: float, *, has_room: bool) -> float:
        """For how long there is nothing to do, unless something is heard."""
        due = min(self._tick_at, *self.cooling.values(), self._tick_at)
        if not self.inboxes.is_told:
            due = min(due, self._poll_at)
        if self.rung and has_room and self._rest_until > now:
            due = min(due, self._rest_until)
        return due - now

    def read(self, now: float, lease: str) -> dict[str, Reading]:
        """Read a part of the inboxes that were rung; what came of it is in `entries`, too."""
        actors = list(islice((actor for actor in self.rung if actor not in self.cooling), _INBOXES_AT_ONCE))
        for actor in actors:
            del self.rung[actor]
        enough = self.orders.held_back
        wanted = [(actor, self.cursors.get(actor, "0"), 0 if actor in enough else READ_PER_INBOX) for actor in actors]
        readings = self.inboxes.read(wanted, lease=lease)
        # Who comes first in the next reading: those of whom nothing was read, since others had used up its bytes.
        for actor, reading in sorted(readings.items(), key=lambda item: item[1].is_used):
            self._note(actor, reading, now)
        return readings

    def _note(self, actor: str, reading: Reading, now: float) -> None:
        if reading.left:
            self.cursors[actor] = reading.cursor
        else:
            self.cursors.pop(actor, None)
        if reading.entries:
            self.entries += reading.entries
            self.heard_at = now
            self.hot.pop(actor, None)
            self.hot[actor] = None
            if len(self.hot) > _HOT:
                del self.hot[next(iter(self.hot))]
        self.doubtful.discard(actor)
        is_flooded = reading.dropped + reading.surplus >= _FLOOD
        if is_flooded:
            self.cooling[actor] = now + _COOLING_SECONDS
            self.rung[actor] = None
        elif actor in self.orders.held_back and reading.left:
            self.cooling[actor] = now + _COOLING_SECONDS  # if it is rung, it is only kept from growing without bound
            self.held_back.add(actor)
        elif reading.is_more:
            self.rung[actor] = None
        elif reading.left and not reading.entries:
            self.doubtful.add(actor)
