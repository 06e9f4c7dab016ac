"""Inboxes are read from real servers, whatever becomes of those."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.keys import Keys
from blocksd.reader import Readable, Reader
from blocksd.request import Entry
from support import DEADLINE, RedisServer, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server(any_server: RedisServer) -> RedisServer:
    """All of this must hold on every kind of server."""
    return any_server


@pytest.fixture
def raw(server: RedisServer) -> Iterator[Any]:
    """A client that sends, and breaks what it can."""
    client: Any = server.client()
    yield client
    client.close()


class Desk:
    """Where a reader puts what it reads."""

    def __init__(self, server: RedisServer) -> None:
        self.queue: queue.SimpleQueue[list[Entry] | Readable] = queue.SimpleQueue()
        self.reader = Reader(server.url, Keys("blocks"), self.queue.put)
        self.reader.start()

    def next(self) -> list[Entry] | Readable:
        return self.queue.get(timeout=DEADLINE)

    def entries(self, count: int) -> list[Entry]:
        """The next entries, each handed over as it is taken."""
        found: list[Entry] = []
        while len(found) < count:
            news = self.next()
            if not isinstance(news, Readable):
                found += news
                self.reader.resume()
        return found

    def close(self) -> None:
        self.reader.stop()
        self.reader.join()


@pytest.fixture
def desk(server: RedisServer) -> Iterator[Desk]:
    opened = Desk(server)
    yield opened
    opened.close()


def test_reader_reads_the_inboxes_it_follows(desk: Desk, raw: Any) -> None:
    """The operator's always; an agent's from when it is known, from its beginning; of strangers, nothing."""
    raw.xadd("blocks:inbox:ann", {"request": "1"})
    raw.xadd("blocks:inbox:stranger", {"request": "x"})
    first = raw.xadd("blocks:inbox:operator", {"request": "2"})
    assert desk.entries(1) == [Entry("operator", first, "2")]
    desk.reader.follow(frozenset({"ann"}), 0)
    assert [(one.actor, one.text) for one in desk.entries(1)] == [("ann", "1")]
    raw.xadd("blocks:inbox:ann", {"other": "3"})
    assert [(one.actor, one.text) for one in desk.entries(1)] == [("ann", None)]


def test_reader_goes_on_when_told(desk: Desk, raw: Any) -> None:
    """What it read has room before it reads more; of a full inbox it takes a bounded part at a time."""
    pipeline = raw.pipeline()
    for number in range(1000):
        pipeline.xadd("blocks:inbox:operator", {"request": str(number)})
    pipeline.execute()
    first = desk.next()
    assert isinstance(first, list)
    assert len(first) < 100
    assert desk.queue.empty()
    desk.reader.resume()
    rest = desk.entries(1000 - len(first))
    assert [one.text for one in [*first, *rest]] == [str(number) for number in range(1000)]


def test_reader_begins_again_when_told(desk: Desk, raw: Any) -> None:
    """What was forgotten is still there."""
    raw.xadd("blocks:inbox:operator", {"request": "1"})
    one = desk.entries(1)
    desk.reader.follow(frozenset(), 1)
    assert desk.entries(1) == one


def test_reader_survives_the_server(desk: Desk, raw: Any, server: RedisServer) -> None:
    """It is killed and comes back empty: what is sent then is read."""
    raw.xadd("blocks:inbox:operator", {"request": "1"})
    desk.entries(1)
    server.kill()
    server.start()
    raw.xadd("blocks:inbox:operator", {"request": "2"})
    assert [one.text for one in desk.entries(1)] == ["2"]


def test_inbox_of_another_type_keeps_nobody_else_out(desk: Desk, raw: Any) -> None:
    """An actor may do to its inbox what it likes."""
    raw.set("blocks:inbox:ann", "mine")
    desk.reader.follow(frozenset({"ann", "bob"}), 0)
    raw.xadd("blocks:inbox:bob", {"request": "1"})
    assert [(one.actor, one.text) for one in desk.entries(1)] == [("bob", "1")]
    raw.delete("blocks:inbox:ann")
    raw.xadd("blocks:inbox:ann", {"request": "2"})
    # Bob's is still there, and so is read again now and then.
    while not (found := [one.text for one in desk.entries(1) if one.actor == "ann"]):
        pass
    assert found == ["2"]


def test_text_that_is_no_utf_8_is_read(desk: Desk, raw: Any) -> None:
    """What it is, is not the reader's to say."""
    raw.xadd("blocks:inbox:operator", {"request": b"\xff\xfe"})
    assert desk.entries(1)[0].text == "\udcff\udcfe"


def test_reader_that_is_refused_says_so_once(desk: Desk, raw: Any) -> None:
    """Why inboxes cannot be read is passed on when that begins, and that it is over."""
    raw.execute_command("ACL", "SETUSER", "default", "-xread")
    raw.client_kill_filter(_type="normal", skipme=True)
    while "refuses the login" not in str(desk.next()):  # at first the connection is lost
        pass
    raw.execute_command("ACL", "SETUSER", "default", "+xread")
    assert desk.next() == Readable(None)
    raw.xadd("blocks:inbox:operator", {"request": "1"})
    assert [one.text for one in desk.entries(1)] == ["1"]


def test_reader_ends_soon(server: RedisServer) -> None:
    """Also while it waits for room."""
    desk = Desk(server)
    client = server.client()
    client.xadd("blocks:inbox:operator", {"request": "1"})
    desk.next()
    desk.close()
    client.close()
    eventually(lambda: not desk.reader._thread.is_alive())  # type: ignore[union-attr]  # it was started
