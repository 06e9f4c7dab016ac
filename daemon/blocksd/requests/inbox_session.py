"""The inboxes as one connection knows them: which there are, which have changed, and which to read next."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from blocksd.model.revision import OPERATOR
from blocksd.requests.inboxes import READ_PER_INBOX

if TYPE_CHECKING:
    from blocksd.requests.inboxes import Inboxes, Reading
    from blocksd.requests.request import Entry

_INBOXES_AT_ONCE = 64
_FIND_AT_ONCE = 1000
_TICK_SECONDS = 1.0
_TICKS_FOR_ALL = 20
_COOLING_SECONDS = 0.02  # between two readings of an inbox that is flooded
_FLOOD = 32  # entries refused in one reading, or more
_RESTART_SECONDS = 0.5  # whatever it was that could not be done, it takes a moment
_OWN_SECONDS = 0.002  # for which a reading is put off that may only find what was removed on replying
_POLL_SECONDS = (0.005, 0.05)  # where the server does not tell: while requests come in, and else
_POLL_AT_ONCE = 250
_HOT = 64
_STRANGER_SECONDS = 2.0  # until an agent that is not known is refused: it may be about to become known
_MOST_STRANGERS = 1000


class Orders(NamedTuple):
    """Orders for a consumer: a value, so that threads can exchange it."""

    agents: frozenset[str] = frozenset()
    restarts: int = 0
    reconnects: int = 0
    held_back: frozenset[str] = frozenset()
    reads_strangers: bool = False


@dataclass
class Session:
    """The inboxes as known for as long as one connection lasts, and which of them to read next.

    No entry is missed:
      1. everything is looked at after the server was told to tell of changes, and so is each agent that becomes known;
      2. from then on each change puts its inbox into `rung`; it leaves `rung` only by being read, before which nothing
         is heard that came after the reading: a change during a reading is heard after it;
      3. an inbox that holds more than was read goes back into `rung`, or into `held_back`, from where `take` brings it;
      4. an inbox in which only entries before the cursor are left is read again from its beginning a tick later: they
         are under way, or were forgotten, or the stream is another;
      5. all inboxes are looked at again every twenty ticks, should 1 to 4 be wrong, or the server not tell.

    The first change of an inbox whose entries are under way is in most cases their removal, after which there is nothing to
    read. So such a reading is `put_off` for a moment, or until the next change.
    RACE: a request that the server takes in the same moment is told of by the same message, and read that moment later.
    """

    inboxes: Inboxes
    orders: Orders
    now: float
    entries: list[Entry] = field(default_factory=list)
    known: frozenset[str] = frozenset()
    cursors: dict[str, str] = field(default_factory=dict)  # of inboxes that hold entries which were read
    rung: dict[str, None] = field(default_factory=dict)  # in the order in which they are read
    cooling: dict[str, float] = field(default_factory=dict)  # flooded → when they may be read again
    put_off: dict[str, float] = field(
        default_factory=dict
    )  # rung, perhaps by ourselves → when they are read at the latest
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

    def take(self, orders: Orders, now: float) -> None:
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
            self.put_off.clear()
        if self.held_back - orders.held_back:
            self.rung.update(dict.fromkeys(self.held_back - orders.held_back))
            self.held_back &= orders.held_back
        self.orders = orders

    def _forget(self, actor: str) -> None:
        for place in (self.cursors, self.rung, self.cooling, self.put_off, self.hot):
            place.pop(actor, None)
        self.held_back.discard(actor)
        self.doubtful.discard(actor)

    def hear(self, now: float) -> None:
        """Put the inboxes that have changed into `rung`; those of agents that are not known, a while later."""
        for actor, count in self.inboxes.changed().items():
            if actor in self.known:
                if count == 1 and actor in self.cursors and actor not in self.rung:
                    self.put_off[actor] = now + _OWN_SECONDS
                else:
                    self.put_off.pop(actor, None)
                self.rung[actor] = None
            elif len(self.strangers) < _MOST_STRANGERS:
                self.strangers.setdefault(actor, now + _STRANGER_SECONDS)

    def look(self, now: float) -> None:
        """Look for inboxes that hold something, as far as that is due. This also shows that the server is there."""
        while self._to_find:
            some = [self._to_find.popleft() for _ in range(min(_FIND_AT_ONCE, len(self._to_find)))]
            self._ring(self.inboxes.find(some, thorough=True))
        for held in (self.cooling, self.put_off):
            for actor in [actor for actor, due in held.items() if due <= now]:
                del held[actor]
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

    @property
    def wants_room(self) -> bool:
        """True if there is something to read that is not put off."""
        return len(self.rung) > len(self.put_off)

    def is_ready(self, now: float) -> bool:
        """Return True if there is something to read now."""
        return self.wants_room and now >= self._rest_until and any(map(self._may_be_read, self.rung))

    def _may_be_read(self, actor: str) -> bool:
        return actor not in self.cooling and actor not in self.put_off

    def wait_seconds(self, now: float, *, has_room: bool) -> float:
        """For how long there is nothing to do, unless something is heard."""
        due = min(self._tick_at, *self.cooling.values(), *self.put_off.values(), self._tick_at)
        if not self.inboxes.is_told:
            due = min(due, self._poll_at)
        if self.rung and has_room and self._rest_until > now:
            due = min(due, self._rest_until)
        return due - now

    def read(self, now: float, lease: str) -> dict[str, Reading]:
        """Read a part of the inboxes that were rung; what came of it is in `entries`, too."""
        actors = list(islice(filter(self._may_be_read, self.rung), _INBOXES_AT_ONCE))
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
