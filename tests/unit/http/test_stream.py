"""The events that wait for one client: their order, their bound, and who is told what."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from blocksd.errors import InvalidField
from blocksd.http.api import feed as feeds
from blocksd.http.api.feed import Feed
from blocksd.http.api.stream import MOST_WAITING, Frame, Place, Stream, Told, Wanted, framed, reset_frame
from blocksd.model.revision import Change

EPOCH = "e" * 32


def change(seq: int | None, label: str | None = "a", kind: str = "updated", **more: Any) -> Change:
    raw = {"kind": kind, "seq": seq, "epoch": EPOCH, "label": label, **more}
    return Change.loads(json.dumps({key: value for key, value in raw.items() if value is not None}))


def told(seq: int | None, label: str | None = "a", kind: str = "updated", **more: Any) -> Told:
    return Told.of(change(seq, label, kind, **more), None if seq is None else Place(EPOCH, seq))


def live(wanted: Wanted | None = None, last: int = 0) -> Stream:
    stream = Stream(wanted or Wanted())
    stream.go_live(last)
    return stream


def sent(stream: Stream) -> bytes:
    """All that waits, and ends it."""
    stream.end()

    async def read() -> bytes:
        parts = []
        while part := await stream.next():
            parts.append(part)
        return b"".join(parts)

    return asyncio.run(read())


def seqs(data: bytes) -> list[int]:
    return [int(one) for one in re.findall(rb'"seq": ([0-9]+)', data)]


class Connection:
    """A connection that takes what is written, or holds it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.held = 0
        self.closing = False

    def write_now(self, data: bytes) -> None:
        self.written.append(data)

    def get_write_buffer_size(self) -> int:
        return self.held

    def is_closing(self) -> bool:
        return self.closing


def test_ids() -> None:
    """An id is an epoch and a seq; any other text is refused with a sentence."""
    assert Place.of(f"{EPOCH}-12") == Place(EPOCH, 12)
    assert str(Place(EPOCH, 12)) == f"{EPOCH}-12"
    for text in ("", "-", "12", "e-", "-12", "e-1-2", "e-x", f"{'e' * 65}-1", f"e-{'9' * 17}", "e-1\n", "é-1"):
        with pytest.raises(InvalidField, match="id of an event"):
            Place.of(text)


def test_frames() -> None:
    """One line of data, whatever is in it; the id only where there is a place."""
    data = framed("change", {"label": "a\nb\r\u2028"}, Place("e", 1))
    assert data.count(b"\n") == 4
    assert data.startswith(b"id: e-1\nevent: change\ndata: {")
    assert b"id:" not in framed("change", {}, None)
    assert Frame(b"x" * 17).chunk == b"11\r\n" + b"x" * 17 + b"\r\n"


def test_bound() -> None:
    """Too much for a client that does not read: it is cut off, and nothing more waits for it."""
    stream, cuts = live(), list[int]()
    stream.abort = lambda: cuts.append(1)
    frame = Frame(b"x" * (MOST_WAITING // 4))
    for _ in range(4):
        stream.put(frame)
    assert (stream.is_ended, cuts) == (False, [])
    stream.put(frame)
    assert (stream.is_ended, cuts) == (True, [1])
    stream.tell(told(9))
    stream.end()
    assert asyncio.run(stream.next()) == b""


def test_bound_while_it_catches_up() -> None:
    """What comes meanwhile waits, too."""
    stream, cuts = Stream(Wanted()), list[int]()
    stream.abort = lambda: cuts.append(1)
    for seq in range(1, 50):
        stream.tell(told(seq, value="x" * 10_000))
    assert (stream.is_ended, cuts) == (True, [1])


def test_one_large_event_is_sent() -> None:
    """A bound that no event passes would end every client of a large block, again and again."""
    stream = live()
    stream.tell(told(1, value="x" * 2 * MOST_WAITING))
    assert not stream.is_ended
    assert seqs(sent(stream)) == [1]


def test_what_comes_while_it_catches_up() -> None:
    """What the client has had by then is left out; the rest comes once."""
    stream = Stream(Wanted())
    for seq in range(1, 6):
        stream.tell(told(seq))
    stream.go_live(3)
    stream.tell(told(2))
    stream.tell(told(6))
    assert seqs(sent(stream)) == [4, 5, 6]


def test_end() -> None:
    """After what waits, with a hint when to come again; then nothing."""
    stream = live()
    stream.tell(told(1))
    stream.end()
    stream.tell(told(2))
    data = sent(stream)
    assert seqs(data) == [1]
    assert re.search(rb"retry: [0-9]+\n\n$", data)


def test_order_of_both_ways() -> None:
    """Chunks go past the queue only where nothing is in it, and where the connection holds nothing."""
    stream, connection = live(), Connection()
    stream.direct = connection

    async def run() -> list[bytes]:
        queued = []

        async def send() -> None:
            while part := await stream.next():
                queued.append(part)
                await asyncio.sleep(0)  # as a server does, in which the part is under way
                connection.written.append(part)

        sender = asyncio.create_task(send())
        for seq in range(1, 200):
            connection.held = 1 if seq % 7 == 0 else 0
            stream.tell(told(seq))
            if seq % 5 == 0:
                await asyncio.sleep(0)
            if seq % 11 == 0:
                await asyncio.sleep(0.001)
        connection.closing = True
        stream.tell(told(200))
        stream.end()
        await sender
        return queued

    queued = asyncio.run(run())
    assert seqs(b"".join(connection.written)) == list(range(1, 201))
    assert 0 < len(seqs(b"".join(queued))) < 200


def test_connection_that_holds_too_much() -> None:
    """The bound is also of what would go past the queue."""
    stream, connection = live(), Connection()
    stream.direct = connection
    connection.held = 1

    async def run() -> None:
        waiting = asyncio.create_task(stream.next())
        await asyncio.sleep(0)
        stream.put(Frame(b"x"))
        assert await waiting == b"x"

    asyncio.run(run())
    assert connection.written == []


# --- who is told what ---


def heard(wanted: Wanted, *events: Told) -> list[bool]:
    return [wanted.frame_of(one) is not None for one in events]


def test_everything() -> None:
    assert all(heard(Wanted(), told(1), told(None, kind="cleared"), told(None, kind="repaired", labels=["x"])))


def test_one_block() -> None:
    """Under both labels of a renaming; its problems; repairs of it; resets."""
    wanted = Wanted(label="a")
    renamed = Told.of(change(2, "b", "renamed", **{"from": "a"}), None)
    others = told(1, "b"), told(None, "b", kind="rejected"), told(None, None, kind="repaired", labels=["b"])
    assert heard(wanted, told(1), renamed, told(None, "a", kind="rejected")) == [True] * 3
    assert heard(wanted, told(None, None, kind="repaired", labels=["a"])) == [True]
    assert heard(wanted, *others, told(None, None, kind="cleared")) == [False] * 4
    assert heard(wanted, Told(None, Place(EPOCH, 1), Frame(reset_frame(Place(EPOCH, 1))))) == [True]


def test_one_agent() -> None:
    """What it has, as that changes; files that it opens; not what another opens, nor problems."""
    wanted = Wanted(agent="ann")
    assert wanted.attached is not None
    wanted.attached.labels = {"mine"}
    came, went = told(2, "new", attached=["ann"]), told(4, "new", detached=["ann"])
    assert heard(wanted, told(1, "mine"), told(1, "new"), came, told(3, "new"), went, told(5, "new")) == [
        *(True, False, True, True, True, False)
    ]
    assert heard(wanted, told(None, None, "opened", agent="ann"), told(None, None, "opened", agent="bob")) == [
        *(True, False)
    ]
    assert heard(wanted, told(None, "mine", "rejected"), told(None, None, "source")) == [False, False]


def test_agents_hear_of_no_other() -> None:
    """The agents that came and went are left out, but for itself; operators see all of them."""
    event = told(1, "mine", attached=["bob", "ann"], detached=["eve"])
    for is_agent, attached, detached in ((True, ["ann"], []), (False, ["bob", "ann"], ["eve"])):
        frame = Wanted(agent="ann", is_agent=is_agent).frame_of(event)
        assert frame is not None
        data = json.loads(frame.data.partition(b"data: ")[2])
        assert (data["attached"], data["detached"]) == (attached, detached)
    repaired = told(None, None, "repaired", labels=["mine"], agents=["ann", "bob"])
    frame = Wanted(agent="ann", is_agent=True).frame_of(repaired)
    assert frame is not None
    assert b"bob" not in frame.data


def test_ends_where_what_an_agent_has_must_be_read_anew() -> None:
    """After a reset, and a repair of the agent: the client comes again."""
    for event in (
        Told(None, Place(EPOCH, 1), Frame(reset_frame(Place(EPOCH, 1)))),
        told(None, None, "repaired", labels=[], agents=["ann"]),
    ):
        for wanted, ends in ((Wanted(agent="ann"), True), (Wanted(), False)):
            stream = live(wanted)
            stream.tell(event)
            assert stream.is_ended == ends


# --- the feed ---


def test_no_client_is_told_of_a_place_before_the_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat in the midst of telling many clients waits: else some would resume after a change that they never had."""
    monkeypatch.setattr(feeds, "HEARTBEAT_SECONDS", 0)
    monkeypatch.setattr(feeds, "_AT_ONCE", 1)

    async def run() -> list[Stream]:
        nothing: Any = None
        feed = Feed(nothing, nothing, asyncio.Event())
        streams = [live() for _ in range(20)]
        feed._streams = dict.fromkeys(streams)
        beating = asyncio.create_task(feed._beat())
        for seq in range(1, 30):
            await feed._hear(change(seq))
            await asyncio.sleep(0)
        await feed._hear(change(3))
        beating.cancel()
        return streams

    for stream in asyncio.run(run()):
        place = 0
        beats = 0
        for block in sent(stream).decode().split("\n\n"):
            found = re.search(r"^id: e+-([0-9]+)$", block, re.MULTILINE)
            if found is None:
                continue
            is_event = "event: change" in block
            assert int(found[1]) == place + is_event
            place, beats = int(found[1]), beats + (not is_event)
        assert place == 29
        assert beats
