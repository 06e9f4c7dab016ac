"""A stream: what one client of the changes is told, as server-sent events, and how much of it may wait."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from blocksd.errors import InvalidField
from blocksd.protocol.attached import Attached

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from blocksd.model.revision import Change

MOST_WAITING = 256 * 1024
"""How many bytes may wait for a client that reads slowly; then it is cut off."""

_RETRY = (500, 3000)
"""The milliseconds after which a client connects again when its stream ends, so that not all come at once."""
_ID = re.compile(r"([0-9A-Za-z]{1,64})-([0-9]{1,16})")


class Place(NamedTuple):
    """A place in the changes: an epoch, and the seq up to which everything was told."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"

    @classmethod
    def of(cls, text: str) -> Place:
        """Return the place that the id of an event names. Raises InvalidField if it is none."""
        found = _ID.fullmatch(text)
        if found is None:
            raise InvalidField("Last-Event-ID must be the id of an event, <epoch>-<seq>", field="last_event_id")
        return cls(found[1], int(found[2]))


def framed(event: str, raw: Mapping[str, Any], place: Place | None) -> bytes:
    """Return a server-sent event. Without a place the client stays where it is."""
    number = "" if place is None else f"id: {place}\n"
    return f"{number}event: {event}\ndata: {json.dumps(raw, ensure_ascii=False)}\n\n".encode("utf-8", "replace")


def place_frame(place: Place) -> bytes:
    """Return what tells a client where it is, and keeps its connection open: no event."""
    return f":\nid: {place}\n\n".encode()


def reset_frame(place: Place) -> bytes:
    """Return the event that says that changes were missed, and where the mirror stands."""
    return framed("reset", {"kind": "reset", "seq": place.seq, "epoch": place.epoch}, place)


class Frame:
    """Bytes on their way to many clients, and the same as one chunk of an answer, made when it is first wanted."""

    __slots__ = ("_chunk", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._chunk = b""

    @property
    def chunk(self) -> bytes:
        """The bytes as HTTP/1.1 sends them in an answer of unknown length."""
        if not self._chunk:
            self._chunk = b"%x\r\n%b\r\n" % (len(self.data), self.data)
        return self._chunk


@dataclass(slots=True)
class Told:
    """A change on its way to all clients, made into bytes once; `change` None is a reset."""

    change: Change | None
    place: Place | None
    frame: Frame
    _for_agents: dict[str, Frame] = field(default_factory=dict)

    @classmethod
    def of(cls, change: Change, place: Place | None) -> Told:
        return cls(change, place, Frame(framed("change", change.raw, place)))

    def frame_for(self, agent: str) -> Frame:
        """Return the event for an agent, which is told of no other agent that came or went."""
        change = self.change
        if change is None or not {*change.attached, *change.detached, *change.raw.get("agents", ())} - {agent}:
            return self.frame
        if agent not in self._for_agents:
            raw = dict(change.raw)
            for key in ("attached", "detached", "agents"):
                if key in raw:
                    raw[key] = [one for one in raw[key] if one == agent]
            self._for_agents[agent] = Frame(framed("change", raw, self.place))
        return self._for_agents[agent]


class Wanted:
    """The changes that a client wants, and may know: of everything, of one block, or of what one agent has."""

    def __init__(self, *, label: str | None = None, agent: str | None = None, is_agent: bool = False) -> None:
        """`is_agent`: the client is the agent itself, and is told of no other one."""
        self._label = label
        self.attached = None if agent is None else Attached(agent)
        self._is_agent = is_agent

    def frame_of(self, told: Told) -> Frame | None:
        """Return the event for the client; None: it is not told. Each revision must pass here once, in order."""
        change = told.change
        if change is not None and not self._concerns(change):
            return None
        return told.frame_for(self.attached.agent) if self._is_agent and self.attached is not None else told.frame

    def _concerns(self, change: Change) -> bool:
        if change.kind == "repaired":
            is_agents = self.attached is None or self.attached.is_in(change)
            return is_agents and (self._label is None or self._label in change.labels)
        if change.seq is None:
            if self.attached is not None:
                return self._label is None and change.raw.get("agent") == self.attached.agent
            return self._label is None or self._label == change.label
        is_agents = self.attached is None or self.attached.follow(change)
        return is_agents and (self._label is None or self._label in (change.label, change.renamed_from))

    def is_lost_by(self, told: Told) -> bool:
        """Return True if what the agent has must be read anew after this: the client connects again."""
        if self.attached is None:
            return False
        change = told.change
        return change is None or (change.kind == "repaired" and self.attached.agent in change.raw.get("agents", ()))


class Direct(Protocol):
    """A connection to which chunks may be written as they are."""

    def write_now(self, data: bytes) -> None: ...
    def get_write_buffer_size(self) -> int: ...
    def is_closing(self) -> bool: ...


class Stream:
    """The events that wait for one client.

    Invariants:
      1. at most `MOST_WAITING` bytes wait, or one event that is larger; of what waits nothing was left out before;
      2. what is written past the queue finds it empty, and all that came from it written: so the order stays.
    """

    __slots__ = (
        "_early",
        "_frames",
        "_size",
        "_waiter",
        "abort",
        "direct",
        "is_cut",
        "is_ended",
        "joined_at",
        "last",
        "wanted",
    )

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.joined_at: Place | None = None
        self.last = 0
        """The seq up to which the client was told everything when it began."""
        self.abort: Callable[[], object] | None = None
        """Cuts the connection at once, though the client does not read."""
        self.direct: Direct | None = None
        """The connection, if chunks may be written to it as they are: to wake a task for each client costs three times that."""
        self.is_ended = False
        self.is_cut = False
        self._frames: deque[bytes] = deque()
        self._early: deque[Told] | None = deque()  # told before it is known what the client has had
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None

    def tell(self, told: Told) -> None:
        """Have the client told, if it wants to know."""
        if self.is_ended:
            return
        if self._early is not None:
            self._early.append(told)
            self._count(len(told.frame.data))
            return
        if told.change is not None and told.change.seq is not None and told.change.seq <= self.last:
            return
        frame = self.wanted.frame_of(told)
        if frame is not None:
            self.put(frame)
        if self.wanted.is_lost_by(told):
            self.end()

    def go_live(self, last: int) -> None:
        """Tell what came while the client caught up to `last`, and what comes from now on."""
        early, self._early = self._early or (), None
        self._size, self.last = sum(map(len, self._frames)), last
        for told in early:
            self.tell(told)

    @property
    def is_live(self) -> bool:
        """True once the client has caught up."""
        return self._early is None

    def put(self, frame: Frame) -> None:
        """Have these bytes sent. A client for which too much waits is cut off."""
        direct, waiter = self.direct, self._waiter
        is_idle = waiter is not None and not self._frames and not waiter.done()
        if is_idle and direct is not None and not direct.get_write_buffer_size() and not direct.is_closing():
            direct.write_now(frame.chunk)
            return
        self._frames.append(frame.data)
        self._count(len(frame.data))
        self._wake()

    def _count(self, size: int) -> None:
        is_too_much = self._size and self._size + size > MOST_WAITING
        self._size += size
        if is_too_much:
            self.cut()

    def cut(self) -> None:
        """End the stream at once: what waits is dropped, and the client goes on after the last event that it had."""
        self.is_ended = self.is_cut = True
        self._frames.clear()
        self._early = deque() if self._early is not None else None
        self._wake()
        if self.abort is not None:
            self.abort()

    def end(self) -> None:
        """End the stream when what waits is sent; the client connects again a moment later."""
        if not self.is_ended:
            self._frames.append(f"retry: {random.randint(*_RETRY)}\n\n".encode())
            self.is_ended = True
            self._wake()

    def leave(self) -> None:
        """Note that the client is gone."""
        self.is_ended = True
        self._frames.clear()
        self._wake()

    async def next(self) -> bytes:
        """Return what is to be sent next, once there is something; empty: the stream has ended."""
        while not self._frames and not self.is_ended:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        frames = b"".join(self._frames)
        self._frames.clear()
        self._size = 0
        return frames

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
