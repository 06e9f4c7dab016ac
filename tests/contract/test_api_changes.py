"""The stream of changes: each once and in order, resumed by id, filtered, and bounded for those that do not read."""

from __future__ import annotations

import json
import re
import signal
import socket
import urllib.error
from typing import TYPE_CHECKING

import pytest

import blocksd
from events import Events
from gateways import FILE, TOKENS, Served, daemon
from support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support import RedisServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with daemon(tmp_path_factory.mktemp("changes")) as (running, _):
        yield running


@pytest.fixture(scope="module")
def client(server: RedisServer) -> Iterator[blocksd.Client]:
    with blocksd.connect(server.url, "blocks") as connected:
        yield connected


@pytest.fixture(scope="module")
def served(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway with tokens."""
    directory = tmp_path_factory.mktemp("gateway")
    (directory / "tokens").write_text(FILE)
    gateway = Served(directory / "log", "--redis", server.url, "--tokens-file", str(directory / "tokens"))
    yield gateway.ready()
    gateway.end()


_opened: list[Events] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """What a test opens is closed after it."""
    yield
    while _opened:
        _opened.pop().close()


def asked(served: Served, query: str = "", *, since: str | None = None, who: str = "kim") -> Events:
    _opened.append(Events(served, query, since=since, token=TOKENS[who]))
    return _opened[-1]


def of(served: Served, query: str = "", *, since: str | None = None, who: str = "kim") -> Events:
    """A client that begins where the mirror is, and hears nothing from before, unless it goes on from a place."""

    def there() -> Events | None:
        events = asked(served, query, since=since, who=who)
        assert events.answer.status == 200, events.answer.read()
        if since is not None or "last_event_id" in query:
            return events
        with blocksd.connect(served.redis, "blocks") as client:
            meta = client.meta()
        return events if events.place().id == f"{meta['epoch']}-{meta['seq']}" else None

    found: Events = eventually(there, "the gateway has heard of all changes")
    return found.place()


def test_change_is_told_once_it_is_made(served: Served, client: blocksd.Client) -> None:
    """With the change's JSON, and its place as the id; the headers keep proxies from collecting it."""
    with of(served) as events:
        assert events.answer.headers["content-type"].startswith("text/event-stream")
        assert events.answer.headers["cache-control"] == "no-store"
        assert events.answer.headers["x-accel-buffering"] == "no"
        client.blocks.create(label="told", value="one", tags=["ü\u2028"])
        event = events.event()
        assert (event.kind, event.label, event.data["kind"]) == ("change", "told", "created")
        assert event.id == f"{event.data['epoch']}-{event.data['seq']}"


def test_head_of_a_stream(served: Served) -> None:
    """Is a head, and nothing: what followed would be taken for the beginning of the next answer."""
    request = f"HEAD /api/changes HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKENS['kim']}\r\n"
    with socket.create_connection(("127.0.0.1", served.port)) as connection:
        connection.sendall(f"{request}\r\n{request}Connection: close\r\n\r\n".encode())
        with connection.makefile("rb") as answers:
            heads = answers.read().split(b"\r\n\r\n")
    assert [head[:15] for head in heads] == [b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK", b""]


def test_resumes_where_it_was(served: Served, client: blocksd.Client) -> None:
    """What came meanwhile is told, each once, before what comes; by the header or in the query."""
    with of(served) as events:
        block = client.blocks.create(label="resumed", value="0")
        first = events.event()
    for number in range(1, 30):
        client.blocks.update(block.id, value=str(number))
    for since, query in ((first.id, ""), (None, f"?last_event_id={first.id}")):
        with of(served, query, since=since) as events:
            versions = [event.data["version"] for event in events.some(29)]
            client.blocks.update(block.id, value="last")
            newest = events.event()
            assert versions == list(range(2, newest.data["version"]))[:29]
            assert newest.data["version"] >= 31


def test_clients_that_come_while_changes_do(served: Served, client: blocksd.Client) -> None:
    """However the catching up and what comes fall together: no number is left out, none comes twice."""
    block = client.blocks.create(label="joined", value="0")
    with of(served) as watcher:
        since = watcher.id
    joined = []
    for number in range(40):
        client.blocks.update(block.id, value=f"text {number}")
        if number % 4 == 0:
            joined.append(of(served, since=since))
    last = client.blocks.update(block.id, value="the end").version
    for events in joined:
        seqs = []
        while True:
            event = events.event()
            seqs.append(event.data["seq"])
            if event.data["version"] == last:
                break
        assert seqs == list(range(seqs[0], seqs[0] + 41))


@pytest.mark.parametrize("since", ["0123456789abcdef0123456789abcdef-1", "{epoch}-999999999"])
def test_reset_where_the_place_is_unknown(served: Served, client: blocksd.Client, since: str) -> None:
    """Of another epoch, or of a time that is lost: the client reads everything again, and goes on from there."""
    with of(served) as events:
        here = events.id
    with of(served, since=since.format(epoch=here.rpartition("-")[0])) as events:
        event = events.event()
        assert (event.kind, event.id) == ("reset", here)
        client.blocks.create(label=f"after/{len(since)}")
        event = events.event()
        assert event.kind == "change"


def test_reset_where_the_stream_was_trimmed(served: Served, client: blocksd.Client, server: RedisServer) -> None:
    """What is not kept cannot be told."""
    with of(served) as events:
        block = client.blocks.create(label="trimmed")
        since = events.id
        first = events.event()
    for number in range(5):
        client.blocks.update(block.id, value=f"text {number}")
    with server.client() as redis:
        redis.xtrim("blocks:changes", minid=f"{first.data['seq'] + 3}-0", approximate=False)
    with of(served, since=since) as events:
        event = events.event()
        assert (event.kind, event.data["seq"]) == ("reset", first.data["seq"] + 5)
    with of(served, since=f"{first.data['epoch']}-{first.data['seq'] + 2}") as events:
        assert [event.kind for event in events.some(3)] == ["change"] * 3


def test_filters(served: Served, client: blocksd.Client) -> None:
    """By a block, under both labels of a renaming; by an agent, as what it has changes; by both."""
    client.agents.create(name="fay", memory_blocks=[{"label": "own", "value": "x"}])
    client.blocks.create(label="filtered/a", value="a")
    client.blocks.create(label="filtered/b", value="b")
    by_block, by_agent = of(served, "?block=filtered/a"), of(served, "?agent=fay")
    by_both = of(served, "?agent=fay&block=filtered/a")
    since = by_agent.id
    client.blocks.append("filtered/a", "not yet")
    client.blocks.append("filtered/b", "b")
    client.blocks.attach("filtered/a", "fay")
    client.blocks.append("filtered/a", "seen")
    client.memory("fay").append("own", "y")
    client.blocks.rename("filtered/a", "filtered/c")
    client.blocks.append("filtered/c", "also seen")
    client.blocks.detach("filtered/c", "fay")
    client.blocks.append("filtered/c", "not any more")
    client.blocks.delete("agents/fay/own")
    told = [event.label for event in by_agent.some(7)]
    assert told == ["filtered/a", "filtered/a", "agents/fay/own", *["filtered/c"] * 3, "agents/fay/own"]
    assert [event.label for event in by_block.some(4)] == [*["filtered/a"] * 3, "filtered/c"]
    assert [event.label for event in by_both.some(3)] == ["filtered/a", "filtered/a", "filtered/c"]
    with of(served, "?agent=fay", since=since) as again:
        assert [event.label for event in again.some(7)] == told


def test_properties_of_one_agent(served: Served, client: blocksd.Client) -> None:
    """By the label of their file."""
    for agent in ("gil", "hal"):
        client.agents.create(name=agent, memory_blocks=[{"label": "own", "value": "x"}])
    events = of(served, "?block=agents/gil/agent.yaml")
    client.agents.update("hal", name="Hal")
    client.memory("gil").append("own", "y")
    client.agents.update("gil", name="Gil")
    client.agents.update("gil", name="G")
    client.agents.undo("gil")
    told = events.some(3)
    assert {event.label for event in told} == {"agents/gil/agent.yaml"}
    assert [event.data["fields"] for event in told] == [["name"]] * 3


def test_agent_is_told_of_its_own(served: Served, client: blocksd.Client) -> None:
    """And of no other agent: neither their blocks, nor that they come and go."""
    for agent in ("ann", "bob"):
        client.agents.create(name=agent, memory_blocks=[{"label": "own", "value": "x"}])
    client.blocks.create(label="common", agents=["ann"])
    with of(served, who="ann") as events:
        client.blocks.append("agents/bob/own", "secret")
        client.blocks.attach("common", "bob")
        client.blocks.append("agents/ann/own", "y")
        attached, own = events.some(2)
        assert (attached.label, attached.data["attached"]) == ("common", [])
        assert own.label == "agents/ann/own"
        since = events.id
    with of(served, since=since, who="ann") as events:
        client.blocks.append("common", "z")
        event = events.event()
        assert event.label == "common"
    answer = asked(served, "?agent=bob", who="ann").answer
    assert (answer.status, b"no agent" in answer.read()) == (404, True)


def test_problems_are_told(served: Served, client: blocksd.Client, server: RedisServer) -> None:
    """Without a place: they are not in the stream."""
    with of(served) as events, server.client() as redis:
        here, epoch = events.id, client.meta()["epoch"]
        redis.publish("blocks:changes", f'{{"kind": "cleared", "subject": "x.md", "epoch": "{epoch}"}}')
        event = events.event()
        assert (event.data["kind"], event.id) == ("cleared", here)


@pytest.mark.parametrize(
    ("query", "since", "status"),
    [
        ("", "x", 422),
        ("", "a-b", 422),
        ("?agent=nobody", None, 404),
        ("?agent=a/b", None, 422),
        ("?block=..", None, 422),
    ],
)
def test_wrong_questions(served: Served, query: str, since: str | None, status: int) -> None:
    """Are answered with a sentence, and no stream begins."""
    answer = asked(served, query, since=since).answer
    assert (answer.status, b'"detail"' in answer.read()) == (status, True)


def test_without_a_token(served: Served) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        served.get("/api/changes")


def connections(server: RedisServer) -> int:
    """How many clients of Redis listen."""
    with server.client() as redis:
        return sum(int(one["sub"]) > 0 for one in redis.client_list())


def test_one_subscription_for_all(served: Served, client: blocksd.Client, server: RedisServer) -> None:
    """However many clients there are."""
    client.agents.create(name="crowd")
    with of(served):
        before = connections(server)
        many = [of(served, query) for query in ("", "?block=x", "?agent=crowd", "", "", "")]
        assert connections(server) == before
        client.blocks.create(label="for/all")
        for events in (many[0], *many[3:]):
            assert [event.label for event in events.some(1)] == ["for/all"]


def test_slow_reader_is_cut_off(served: Served, client: blocksd.Client, server: RedisServer) -> None:
    """One that does not read costs others nothing; it goes on by the id of the last event that it got, without a gap."""
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", served.port))
    request = f"GET /api/changes HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {TOKENS['kim']}\r\n\r\n"
    slow.sendall(request.encode())
    assert b"200" in slow.recv(64)
    block = client.blocks.create(label="slow", value="x")
    large = json.dumps({"kind": "cleared", "subject": "x" * 100_000, "epoch": client.meta()["epoch"]})
    with of(served) as quick, server.client() as redis:

        def is_cut() -> bool:
            version = client.blocks.append(block.id, "y").version
            for _ in range(10):
                redis.publish("blocks:changes", large)
            while quick.event().data.get("version") != version:
                pass
            return is_closed(served, slow)

        eventually(is_cut, "it is cut off", seconds=60)
        end = quick.id
    slow.settimeout(10)
    got = b""
    while part := _received(slow):
        got += part
    slow.close()
    ids = re.findall(rb"^id: (\S+)\n(?:event: .*\ndata: .*\n)?\n", got, re.MULTILINE)
    assert ids
    with of(served, since=ids[-1].decode()) as again:
        seqs = []
        while again.id != end:
            event = again.event()
            seqs.append(event.data["seq"])
        assert seqs == list(range(int(ids[-1].rpartition(b"-")[2]) + 1, int(end.rpartition("-")[2]) + 1))


def _received(one: socket.socket) -> bytes:
    try:
        return one.recv(1 << 20)
    except ConnectionResetError:
        return b""


def is_closed(served: Served, one: socket.socket) -> bool:
    """True if the gateway holds this connection no more."""
    port = one.getsockname()[1]
    with open(f"/proc/{served.process.pid}/net/tcp") as table:
        for line in table:
            words = line.split()
            if words[1].endswith(f":{served.port:04X}") and words[2].endswith(f":{port:04X}"):
                return words[9] == "0" or words[3] != "01"
    return True


# --- a gateway of its own ---


@pytest.fixture
def other(server: RedisServer, tmp_path: Path) -> Iterator[Served]:
    gateway = Served(tmp_path / "log", "--redis", server.url)
    yield gateway.ready()
    gateway.end()


def test_ends_with_a_hint(other: Served, client: blocksd.Client) -> None:
    """When the gateway stops, clients are told when to come again; nothing waits for them."""
    with Events(other).place() as events:
        client.blocks.create(label="before/the/end")
        assert [event.label for event in events.some(1)] == ["before/the/end"]
        other.process.send_signal(signal.SIGTERM)
        assert events.next() is None
        assert events.retry is not None
        assert 500 <= events.retry <= 3000
        assert other.process.wait(10) == 0
    assert "Traceback" not in other.said()


def test_survives_a_lost_redis(tmp_path: Path) -> None:
    """Clients stay connected, and are told what came meanwhile."""
    with daemon(tmp_path) as (server, folder):
        gateway = Served(tmp_path / "log", "--redis", server.url)
        try:
            with Events(gateway.ready()).place() as events, Events(gateway, "?block=lost/1").place() as one:
                (folder / "lost").mkdir()
                server.kill()
                (folder / "lost/1.md").write_text("one\n")
                (folder / "lost/2.md").write_text("two\n")
                server.start()
                kinds = {event.kind for event in events.some(1)}
                # The mirror was lost as well: it is built anew, which is a reset.
                assert kinds <= {"reset", "change"}
                event = one.event()
                with blocksd.connect(server.url, "blocks") as client:
                    eventually(lambda: len(client.blocks.list(label_search="lost/")) == 2, "the files are seen")
                    client.blocks.append("lost/1", "more")
                while True:
                    event = one.event()
                    if event.data.get("version") == 2:
                        break
        finally:
            gateway.end()
        assert "Traceback" not in gateway.said()


def test_ends_when_tokens_are_read_again(server: RedisServer, tmp_path: Path) -> None:
    """A caller whose token is gone hears nothing more."""
    tokens = tmp_path / "tokens"
    tokens.write_text(FILE)
    gateway = Served(tmp_path / "log", "--redis", server.url, "--tokens-file", str(tokens)).ready()
    try:
        events, others = of(gateway, who="reader"), of(gateway)
        tokens.write_text(FILE.replace(TOKENS["reader"], "another-token-of-the-reader"))
        gateway.process.send_signal(signal.SIGHUP)
        assert events.next() is None
        assert others.next() is None
        assert asked(gateway, since=others.id, who="reader").answer.status == 401
        assert of(gateway, since=others.id).answer.status == 200
    finally:
        gateway.end()
