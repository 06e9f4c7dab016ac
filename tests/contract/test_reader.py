"""Inboxes are read from real servers, whatever becomes of those."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
from typing import TYPE_CHECKING, Any

import fakeredis
import pytest
import redis

from blocksd.mirror.keys import Keys
from blocksd.requests.consumer import Consumer, News, Readable, Refused
from blocksd.requests.inboxes import Inboxes
from blocksd.requests.request import Entry
from support import DEADLINE, RedisServer, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator


pytestmark = pytest.mark.every_backend


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


@pytest.fixture
def no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that begins now never looks for what it may have missed."""
    monkeypatch.setattr("blocksd.requests.inbox_session._TICK_SECONDS", 3600.0)


class Desk:
    """Where a reader puts what it reads."""

    def __init__(self, server: RedisServer, *, url: str = "", lease: str = "") -> None:
        self.queue: queue.SimpleQueue[News] = queue.SimpleQueue()
        self.refused: list[Refused] = []
        self.reader = Consumer(url or server.url, Keys("blocks"), self.queue.put, lease=lambda: lease)
        self.reader.start()

    def next(self) -> News:
        return self.queue.get(timeout=DEADLINE)

    def entries(self, count: int) -> list[Entry]:
        """The next entries, each handed over as it is taken."""
        found: list[Entry] = []
        while len(found) < count:
            news = self.next()
            if isinstance(news, Refused):
                self.refused.append(news)
            elif isinstance(news, list):
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


LEASE = "epoch token"


@pytest.fixture
def ruling(server: RedisServer, raw: Any) -> Iterator[Desk]:
    """A reader of the daemon that holds the lease."""
    raw.set("blocks:lease", LEASE)
    opened = Desk(server, lease=LEASE)
    yield opened
    opened.close()


def fill(raw: Any, actor: str, *entries: dict[str, Any]) -> None:
    pipeline = raw.pipeline(transaction=False)
    for entry in entries:
        pipeline.xadd(f"blocks:inbox:{actor}", entry)
    pipeline.execute()


def request(number: object, **more: Any) -> dict[str, str]:
    """An entry that reads like a request."""
    return {"request": json.dumps({"id": f"r-{number}", "op": "append", **more})}


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


@pytest.mark.usefixtures("no_looks")
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


@pytest.mark.usefixtures("no_looks")
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


def test_unknown_agent_is_read_a_while_later(desk: Desk, raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an agent sends that is not known is read, once that may be told, so that it gets a reply."""
    monkeypatch.setattr("blocksd.requests.inbox_session._STRANGER_SECONDS", 0.01)
    raw.xadd("blocks:inbox:operator", {"request": "0"})  # the reader listens when it has read this
    desk.entries(1)
    raw.xadd("blocks:inbox:ghost", {"request": "1"})
    raw.xadd("blocks:inbox:operator", {"request": "2"})
    assert [one.text for one in desk.entries(1)] == ["2"]
    desk.reader.read_strangers()
    assert [(one.actor, one.text) for one in desk.entries(1)] == [("ghost", "1")]


def test_text_that_is_no_utf_8_is_read(desk: Desk, raw: Any) -> None:
    """What it is, is not the reader's to say."""
    raw.xadd("blocks:inbox:operator", {"request": b"\xff\xfe"})
    assert desk.entries(1)[0].text == "\udcff\udcfe"


def test_reader_that_is_refused_says_so_once(desk: Desk, raw: Any) -> None:
    """Why inboxes cannot be read is passed on when that begins, and that it is over."""
    raw.execute_command("ACL", "SETUSER", "default", "-xlen")
    raw.client_kill_filter(_type="normal", skipme=True)
    while "does not permit this" not in str(desk.next()):  # at first the connection is lost
        pass
    raw.execute_command("ACL", "SETUSER", "default", "+xlen")
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


def test_request_costs_the_same_however_many_agents_there_are(desk: Desk, raw: Any) -> None:
    """What is sent to the server for it does not name them all."""
    agents = frozenset(f"agent-{number:04}" for number in range(2000))
    desk.reader.follow(agents, 0)
    raw.xadd("blocks:inbox:agent-0007", {"request": "begin"})
    desk.entries(1)
    before = raw.info("stats")["total_net_input_bytes"]
    for number in range(50):
        raw.xadd(f"blocks:inbox:agent-{number:04}", {"request": str(number)})
        assert [one.text for one in desk.entries(1)] == [str(number)]
    spent = raw.info("stats")["total_net_input_bytes"] - before
    assert spent < 50 * 4000, "one name of each agent is 60,000 bytes"


@pytest.mark.usefixtures("no_looks")
def test_agent_is_read_as_soon_as_it_is_known(desk: Desk, raw: Any) -> None:
    """Nothing that comes at regular times is waited for."""
    for number in range(20):
        raw.xadd(f"blocks:inbox:agent-{number}", {"request": str(number)})
        desk.reader.follow(frozenset(f"agent-{one}" for one in range(number + 1)), 0)
        assert [one.text for one in desk.entries(1)] == [str(number)]


def test_change_that_was_not_heard_is_found(desk: Desk, raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All inboxes are looked at now and then."""
    monkeypatch.setattr("blocksd.requests.inbox_session._TICK_SECONDS", 0.02)
    monkeypatch.setattr("blocksd.requests.inboxes.Inboxes._hear", lambda *_: None)
    desk.reader.reconnect()
    desk.reader.follow(frozenset(f"agent-{number}" for number in range(50)), 0)
    raw.xadd("blocks:inbox:agent-33", {"request": "1"})
    assert [one.text for one in desk.entries(1)] == ["1"]
    raw.xadd("blocks:inbox:operator", {"request": "2"})
    while "2" not in [one.text for one in desk.entries(1)]:
        pass


def test_inbox_that_was_made_anew_is_read(desk: Desk, raw: Any) -> None:
    """Its ids may be lower than those that were read."""
    raw.xadd("blocks:inbox:operator", {"request": "1"}, id="5000000000000-0")
    desk.entries(1)
    raw.delete("blocks:inbox:operator")
    raw.xadd("blocks:inbox:operator", {"request": "2"}, id="7-0")
    assert [one.text for one in desk.entries(1)] == ["2"]


def test_lost_connection_loses_no_change(desk: Desk, raw: Any) -> None:
    """Whatever was sent while there was none is found afterwards."""
    for number in range(10):
        raw.client_kill_filter(_type="normal", skipme=True)
        raw.xadd("blocks:inbox:operator", {"request": str(number)})
        raw.client_kill_filter(_type="normal", skipme=True)
        while str(number) not in [one.text for one in desk.entries(1)]:
            pass


def test_server_that_is_silent_is_given_up(desk: Desk, raw: Any, server: RedisServer) -> None:
    """It holds the connection and answers nothing: that is noticed while nobody asks for anything."""
    raw.xadd("blocks:inbox:operator", {"request": "1"})
    desk.entries(1)
    server.pause()
    try:
        while not isinstance(desk.next(), Readable):
            pass
    finally:
        server.resume()
    raw.xadd("blocks:inbox:operator", {"request": "2"})
    while "2" not in [one.text for one in desk.entries(1)]:
        pass


@pytest.mark.usefixtures("no_looks")
def test_actor_with_enough_is_held_back(desk: Desk, raw: Any) -> None:
    """Others are read meanwhile, and it goes on when it may."""
    desk.reader.follow(frozenset({"ann", "bob"}), 0)
    desk.reader.hold_back(frozenset({"ann"}))
    fill(raw, "ann", *(request(number) for number in range(20)))
    for number in range(10):
        raw.xadd("blocks:inbox:bob", {"request": str(number)})
        assert {one.actor for one in desk.entries(1)} == {"bob"}
    desk.reader.hold_back(frozenset())
    found = [one for one in desk.entries(20) if one.actor == "ann"]
    assert [one.text for one in found[:16]] == [request(number)["request"] for number in range(16)]


@pytest.mark.parametrize("how", ["acl", "unknown"])
def test_server_that_does_not_tell_is_asked(
    server: RedisServer, raw: Any, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where client-side caching is not allowed, or not there, inboxes are looked at all the time."""
    if how == "acl":
        raw.execute_command("ACL", "SETUSER", "default", "-client|tracking")
    else:
        monkeypatch.delattr("redis._parsers.base.PushNotificationsParser.set_invalidation_push_handler")
    with contextlib.closing(Inboxes(server.url, Keys("blocks"))) as inboxes:
        assert not inboxes.is_told
    desk = Desk(server)
    try:
        agents = frozenset(f"agent-{number}" for number in range(600))
        desk.reader.follow(agents, 0)
        for number in range(0, 600, 100):
            raw.xadd(f"blocks:inbox:agent-{number}", {"request": str(number)})
            while str(number) not in [one.text for one in desk.entries(1)]:
                pass
    finally:
        desk.close()


def test_inboxes_are_read_on_a_server_without_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not tell of changes, nor how large a key is: fakeredis is one."""
    fake = fakeredis.FakeServer()
    options: dict[str, Any] = {"decode_responses": True, "legacy_responses": False}
    monkeypatch.setattr(
        "blocksd.requests.inboxes.connect", lambda *_, **__: fakeredis.FakeRedis(server=fake, **options)
    )
    raw: Any = fakeredis.FakeRedis(server=fake, **options)
    raw.set("blocks:lease", LEASE)
    raw.set("blocks:inbox:bob", "no stream")
    fill(raw, "ann", request(1), {"request": "x"}, request(2, args={"content": "x" * 1_100_000}), request(3))
    with contextlib.closing(Inboxes("redis://fake", Keys("blocks"))) as inboxes:
        assert not inboxes.is_told
        assert inboxes.find(["ann", "bob", "operator"], thorough=True) == ["ann", "bob"]
        readings = inboxes.read([("ann", "0", 16), ("bob", "0", 16)], lease=LEASE)
    assert [one.text for one in readings["ann"].entries] == [request(1)["request"], request(3)["request"]]
    assert readings["ann"][4:] == (1, 1, 0)
    assert readings["bob"].entries == []
    assert readings["bob"].dropped == 1
    assert not raw.exists("blocks:inbox:bob")
    assert json.loads(raw.lpop("blocks:reply:ann:r-2"))["error"]["code"] == "invalid_request"


@pytest.mark.parametrize("holds_lease", [True, False])
def test_inbox_that_is_no_stream_is_made_anew(server: RedisServer, raw: Any, *, holds_lease: bool) -> None:
    """A key of another type would lock its actor out; a daemon that does not hold the lease leaves it alone."""
    raw.set("blocks:inbox:bob", "no stream")
    raw.set("blocks:lease", LEASE if holds_lease else "another's")
    with contextlib.closing(Inboxes(server.url, Keys("blocks"))) as inboxes:
        assert inboxes.find(["ann", "bob"], thorough=False) == ["bob"]
        reading = inboxes.read([("bob", "0", 16)], lease=LEASE)["bob"]
    assert (reading.entries, reading.dropped) == ([], int(holds_lease))
    assert raw.exists("blocks:inbox:bob") == (not holds_lease)


USELESS: list[dict[str, Any]] = [
    {"other": "x"},
    {"request": ""},
    {"request": "not JSON"},
    {"request": "[1]"},
    {"request": '{"op": "append", "label": "notes"}'},
    {"request": '{"op": "app'},
    {"request": b"\xff\xfe"},
]


@pytest.mark.usefixtures("no_looks")
def test_what_asks_for_nothing_is_dropped_on_the_server(ruling: Desk, raw: Any) -> None:
    """Thousands of them, without passing any on; what could be a request, or has an id to reply to, is passed on."""
    ruling.reader.follow(frozenset({"loud"}), 0)
    odd: list[dict[str, Any]] = [
        {"request": '  {"\\u0069d": "r-1"}'},
        {"request": '{"args": {}, "id": "r-2"}'},
        {"request": 'x "id": "r-3"'},
        {"request": '{"id": 5}'},
    ]
    fill(raw, "loud", *USELESS * 300, *odd, *USELESS)
    assert [one.text for one in ruling.entries(4)] == [one["request"] for one in odd]
    eventually(lambda: raw.xlen("blocks:inbox:loud") == len(odd), "the others are gone")
    raw.xadd("blocks:inbox:operator", {"request": '{"id": "x"}'})
    ruling.entries(1)
    assert sum(one.dropped for one in ruling.refused) == 301 * len(USELESS)


@pytest.mark.parametrize("holder", ["", "epoch another"])
def test_who_does_not_hold_the_lease_removes_nothing(server: RedisServer, raw: Any, holder: str) -> None:
    """Another daemon may be in charge of the namespace."""
    raw.set("blocks:lease", holder)
    fill(raw, "operator", *USELESS, request(1, args={"content": "x" * 2_000_000}), request(2))
    desk = Desk(server, lease=LEASE)
    try:
        assert len(desk.entries(len(USELESS) + 1)) == len(USELESS) + 1
        assert desk.refused == []
        assert raw.xlen("blocks:inbox:operator") == len(USELESS) + 2
        assert list(raw.scan_iter("blocks:reply:*")) == []
    finally:
        desk.close()


def test_entry_that_is_too_long_never_leaves_the_server(ruling: Desk, raw: Any) -> None:
    """It is refused under its id, and told how long it is; what comes before and after is read."""
    before = raw.info("stats")["total_net_output_bytes"]
    long = {"request": request("long")["request"][:-1] + ' "' + "x" * 20_000_000}
    fill(raw, "operator", request(1), long, {"request": "y" * 20_000_000}, request(2))
    assert [one.text for one in ruling.entries(2)] == [request(1)["request"], request(2)["request"]]
    assert sum(one.oversized for one in ruling.refused) == 2
    _, text = raw.blpop(["blocks:reply:operator:r-long"], timeout=DEADLINE)
    size = len(long["request"])
    message = f"the request is {size} bytes, over the 1048576 allowed"
    refusal = {"code": "invalid_request", "message": message, "field": "request"}
    assert json.loads(text) == {"id": "r-long", "ok": False, "error": refusal}
    assert raw.xlen("blocks:inbox:operator") == 2
    assert raw.info("stats")["total_net_output_bytes"] - before < 1_000_000


def test_reading_is_bounded_in_bytes(server: RedisServer, raw: Any) -> None:
    """Long requests of many actors come in parts; none of them is left out."""
    actors = [f"agent-{number}" for number in range(8)]
    for actor in actors:
        fill(raw, actor, *(request(number, args={"content": "x" * 900_000}) for number in range(2)))
    with contextlib.closing(Inboxes(server.url, Keys("blocks"))) as inboxes:
        readings = inboxes.read([(actor, "0", 16) for actor in actors], lease="")
    sizes = [sum(len(one.text or "") for one in reading.entries) for reading in readings.values()]
    assert 1_000_000 < sum(sizes) < 4_000_000
    assert all(reading.is_more for reading in readings.values() if len(reading.entries) < 2)


@pytest.mark.parametrize("where", ["value", "name", "many"])
def test_long_entry_whose_request_is_short(server: RedisServer, raw: Any, where: str) -> None:
    """It is too long, too, wherever its bytes are: a script copies all of them. One reading comes to one of them."""
    raw.set("blocks:lease", LEASE)
    long = "x" * 3_000_000
    more = {"value": {"more": long}, "name": {long: ""}, "many": {f"{number:020}": "" for number in range(110_000)}}
    fill(raw, "ann", *({**request(number), **more[where]} for number in range(3)), request("short"), {"more": long})
    cursor, seen = "0", []
    with contextlib.closing(Inboxes(server.url, Keys("blocks"))) as inboxes:
        for _ in range(4):
            reading = inboxes.read([("ann", cursor, 16)], lease=LEASE)["ann"]
            seen.append((reading.oversized, [entry.text for entry in reading.entries], reading.dropped))
            cursor = reading.cursor
    assert seen == [(1, [], 0)] * 3 + [(0, [request("short")["request"]], 1)]
    reply = json.loads(raw.lindex("blocks:reply:ann:r-2", 0))
    assert "over the 1048576 allowed" in reply["error"]["message"]


def test_long_entries_do_not_keep_others_waiting(ruling: Desk, raw: Any) -> None:
    """One is a whole reading. Those who got nothing of it are the first in the next."""
    quiet = [f"quiet-{number}" for number in range(8)]
    fill(raw, "loud", *({"request": "x" * 3_000_000} for _ in range(12)))
    for actor in quiet:
        fill(raw, actor, request(1))
    ruling.reader.follow(frozenset({"loud", *quiet}), 0)
    assert {entry.actor for entry in ruling.entries(len(quiet))} == set(quiet)
    assert sum(one.oversized for one in ruling.refused) <= 2


@pytest.mark.usefixtures("no_looks")
def test_inbox_is_bounded(ruling: Desk, raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest beyond what it may hold are refused, with a reply where there is an id; the oldest stay."""
    monkeypatch.setattr("blocksd.requests.inboxes.KEPT", 100)
    ruling.reader.reconnect()
    ruling.reader.follow(frozenset({"ann"}), 0)
    ruling.reader.hold_back(frozenset({"ann"}))
    fill(raw, "ann", *(request(number) for number in range(1200)), *({"request": f"x {n}"} for n in range(50)))

    def is_trimmed() -> bool:
        ruling.reader.resume()  # some may have been read before it was held back
        return bool(raw.xlen("blocks:inbox:ann") == 100)

    eventually(is_trimmed, "it holds as many as it may")
    kept = [json.loads(fields["request"])["id"] for _, fields in raw.xrange("blocks:inbox:ann")]
    assert kept == [f"r-{number}" for number in range(100)]
    refused = {key.rpartition(":")[2] for key in raw.scan_iter("blocks:reply:ann:*", count=5000)}
    assert refused == {f"r-{number}" for number in range(100, 1200)}
    reply = json.loads(raw.lpop("blocks:reply:ann:r-1199"))
    assert (reply["id"], reply["ok"], reply["error"]["code"]) == ("r-1199", False, "unavailable")
    assert 0 < raw.ttl("blocks:reply:ann:r-1198") <= 60


HIGHEST = "18446744073709551615-18446744073709551615"


def test_entry_with_the_highest_id_does_not_lock_an_inbox(ruling: Desk, raw: Any) -> None:
    """When it is done, the inbox is made anew; entries before it are not lost."""
    raw.xadd("blocks:inbox:operator", request(1), id="1-0")
    raw.xadd("blocks:inbox:operator", request(2), id=HIGHEST)
    with pytest.raises(redis.ResponseError):
        raw.xadd("blocks:inbox:operator", request(3))
    assert len(ruling.entries(2)) == 2
    raw.xdel("blocks:inbox:operator", HIGHEST)
    raw.xdel("blocks:inbox:operator", "1-0")
    eventually(lambda: not raw.exists("blocks:inbox:operator"), "it is made anew")
    raw.xadd("blocks:inbox:operator", request(3))
    assert [one.text for one in ruling.entries(1)] == [request(3)["request"]]


def test_inbox_that_is_locked_at_the_start_is_made_anew(server: RedisServer, raw: Any) -> None:
    """The daemon may have been killed in between."""
    raw.set("blocks:lease", LEASE)
    raw.xadd("blocks:inbox:operator", request(1), id=HIGHEST)
    raw.xdel("blocks:inbox:operator", HIGHEST)
    raw.xadd("blocks:inbox:ann", request(1))
    raw.xtrim("blocks:inbox:ann", maxlen=0)
    desk = Desk(server, lease=LEASE)
    try:
        desk.reader.follow(frozenset({"ann"}), 0)
        eventually(lambda: not raw.exists("blocks:inbox:operator"), "it is made anew")
        assert raw.exists("blocks:inbox:ann"), "where more can be sent, ids go on"
    finally:
        desk.close()


def test_inboxes_of_a_cluster(server: RedisServer, free_port: int) -> None:
    """They are read on the node that has the namespace, which tells of changes."""
    server.kill()
    server.start("--port", str(free_port), "--cluster-enabled", "yes")
    raw: Any = server.client()
    raw.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
    eventually(lambda: raw.cluster("info")["cluster_state"] == "ok")
    keys = Keys("{blocks}")
    with contextlib.closing(Inboxes(f"redis+cluster://127.0.0.1:{free_port}", keys)) as inboxes:
        assert inboxes.is_told
        raw.xadd(keys.inbox("ann"), request(1))
        assert eventually(inboxes.changed) == {"ann": 1}
        assert len(inboxes.read([("ann", "0", 16)], lease="")["ann"].entries) == 1
    raw.close()


def test_wake_pipe_that_fails_ends_nobody(desk: Desk, raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's own thread writes to it: an error there loses a moment, not the daemon."""

    def fails(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("blocksd.requests.consumer.os.write", fails)
    desk.reader.follow(frozenset({"ann"}), 0)
    raw.xadd("blocks:inbox:operator", {"request": "1"})
    assert [one.text for one in desk.entries(1)] == ["1"]
    monkeypatch.setattr("blocksd.requests.consumer.os.close", fails)
    desk.reader.stop()
    desk.reader.join()
    assert not desk.reader.is_alive()
