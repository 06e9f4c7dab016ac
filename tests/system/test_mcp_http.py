"""The route /mcp of a gateway: both eras over HTTP, whose memory a caller gets, and what is refused."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from blocksd.http.tokens import Caller
from blocksd.mcp.over_http import OverHTTP, agent_of
from gateways import FILE, TOKENS, Served, daemon, gateway
from mcp_clients import ERAS, Ear, done, over_http, refused, run, soon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mcp import Client

    from support import RedisServer

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:resources/(un)?subscribe is removed")]

JSON = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
OF_2026 = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, Path, Served]]:
    """A daemon with the agents ann and bob, and a gateway with their tokens."""
    directory = tmp_path_factory.mktemp("mcp")
    files = {f"agents/{agent}/human.md": f"The human of {agent}.\n" for agent in ("ann", "bob")}
    files["team.md"] = "---\nagents: [ann, bob]\n---\nWe meet on Mondays.\n"
    with daemon(directory, files) as (server, folder):
        (directory / "tokens").write_text(FILE)
        served = Served(directory / "serve.log", "--redis", server.url, "--tokens-file", str(directory / "tokens"))
        yield server, folder, served.ready()
        served.end()
        assert "Traceback" not in served.said()


@pytest.fixture
def url(place: tuple[RedisServer, Path, Served]) -> str:
    return f"http://127.0.0.1:{place[2].port}/mcp"


@pytest.mark.parametrize("era", ERAS)
def test_an_agents_token_gives_its_memory(url: str, era: str) -> None:
    """Instructions, tools, resources and the prompt are of the agent whose token it is."""

    async def work() -> None:
        async with over_http(url, era, TOKENS["ann"]) as client:
            assert client.protocol_version == era
            assert "The human of ann." in (client.instructions or "")
            assert (await done(client, "memory_view", label="human"))["value"] == "The human of ann."
            labels = {block["label"] for block in (await done(client, "memory_list"))["blocks"]}
            assert labels == {"human", "team"}
            assert "of ann" in str((await client.read_resource("blocks://ann/human")).contents)
            assert "of ann" in str((await client.get_prompt("memory")).messages)
            await refused(client, "memory_view", label="agents/bob/human")

    run(work())


@pytest.mark.parametrize(
    ("more", "headers"), [("?agent=ann", {}), ("", {"blocksd-agent": "ann"}), ("?agent=ann", {"blocksd-agent": "ann"})]
)
def test_an_operator_names_the_agent(url: str, more: str, headers: dict[str, str]) -> None:
    """In the address, or in a header; what is written has the agent for its author."""

    async def work() -> None:
        async with over_http(url + more, "2026-07-28", TOKENS["kim"], headers) as client:
            await done(client, "memory_create", label="plan", value="x")
            assert (await done(client, "memory_view", label="plan"))["updated_by"] == "ann"
            await done(client, "memory_delete", label="plan")

    run(work())


@pytest.mark.parametrize(
    ("token", "more", "headers", "status", "words"),
    [
        (None, "", {}, 401, "Unauthorized"),
        ("wrong-token-of-nobody", "?agent=ann", {}, 401, "Unauthorized"),
        (TOKENS["reader"], "?agent=ann", {}, 403, "a reader's"),
        (TOKENS["kim"], "", {}, 400, "/mcp?agent=ID"),
        (TOKENS["kim"], "?agent=a/b", {}, 422, "agent id"),
        (TOKENS["kim"], "?agent=ann", {"blocksd-agent": "bob"}, 400, "two agents"),
        (TOKENS["ann"], "?agent=bob", {}, 403, "of the agent ann"),
        (TOKENS["ann"], "", {"blocksd-agent": "bob"}, 403, "of the agent ann"),
        (TOKENS["ann"], "", {"origin": "https://evil.example"}, 403, "other origins"),
    ],
)
def test_who_is_refused(
    url: str, token: str | None, more: str, headers: dict[str, str], status: int, words: str
) -> None:
    """With the status that clients decide by, and the reason."""
    given = {**JSON, **headers, **({} if token is None else {"authorization": f"Bearer {token}"})}
    answer = httpx2.post(url + more, json=HELLO, headers=given)
    assert answer.status_code == status
    assert words in answer.json()["detail"]


def test_places_and_tokens_are_those_of_the_gateway() -> None:
    """A foreign host is refused; without tokens each program of this machine is an operator."""
    with gateway("redis://127.0.0.1:1", parts=[OverHTTP]) as client:
        assert client.post("/mcp", json=HELLO, headers={**JSON, "host": "evil.example"}).status_code == 403
    scope: dict[str, Any] = {"headers": [(b"blocksd-agent", b"bj%C3%B6rn")], "query_string": b""}
    assert agent_of(Caller("operator"), scope)[0] == "björn"


def test_sessions_are_of_one_caller(url: str, place: tuple[RedisServer, Path, Served]) -> None:
    """Another agent, and an operator, do not find a session of before 2026; nor does the log fill with their attempts."""

    def hello(token: str, more: str = "", **headers: str) -> httpx2.Response:
        given = {**JSON, "authorization": f"Bearer {token}", **headers}
        return httpx2.post(url + more, json=HELLO if not headers else {**HELLO, "method": "ping"}, headers=given)

    session = hello(TOKENS["ann"]).headers["mcp-session-id"]
    assert hello(TOKENS["ann"], **{"mcp-session-id": session}).status_code == 200
    for token, more in ((TOKENS["bob"], ""), (TOKENS["kim"], "?agent=ann"), (TOKENS["kim"], "?agent=bob")):
        assert hello(token, more, **{"mcp-session-id": session}).status_code == 404
    assert len(place[2].said().splitlines()) == 1


def test_sessions_that_are_never_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cost those room who begin them: the oldest of theirs ends, and others begin and go on as ever."""
    monkeypatch.setattr("blocksd.mcp.hosted.MOST_SESSIONS", 4)
    with gateway("redis://127.0.0.1:1", tokens=FILE, parts=[OverHTTP]) as client:

        def post(who: str, body: dict[str, Any], **headers: str) -> Any:
            return client.post("/mcp", json=body, headers={**JSON, **headers, "authorization": f"Bearer {TOKENS[who]}"})

        def begun(who: str) -> str:
            answer = post(who, HELLO)
            assert answer.status_code == 200
            return str(answer.headers["mcp-session-id"])

        def is_there(who: str, session: str) -> bool:
            status = post(who, {**HELLO, "method": "ping"}, **{"mcp-session-id": session}).status_code
            assert status in (200, 404)
            return bool(status == 200)

        bobs = begun("bob")
        anns = [begun("ann") for _ in range(3)]
        assert is_there("ann", anns[0])  # it is the newest now
        anns.append(begun("ann"))
        assert [is_there("ann", one) for one in anns] == [True, False, True, True]
        assert is_there("bob", bobs)
        anns += [begun("ann") for _ in range(4)]
        assert [is_there("ann", one) for one in anns] == [False] * 5 + [True] * 3
        assert is_there("bob", bobs)
        assert is_there("bob", begun("bob"))


def test_resources_that_a_client_may_listen_to(
    monkeypatch: pytest.MonkeyPatch, place: tuple[RedisServer, Path, Served]
) -> None:
    """Are not arbitrarily many: their number is time in which others wait, and memory."""
    monkeypatch.setattr("blocksd.mcp.updates.MOST_URIS", 2)
    uris = [f"blocks://ann/{number}" for number in range(3)]
    listen = {"_meta": OF_2026, "notifications": {"resourceSubscriptions": uris}}
    with gateway(place[0].url, tokens=FILE, parts=[OverHTTP]) as client:
        ann = {**JSON, "authorization": f"Bearer {TOKENS['ann']}"}

        def post(method: str, params: dict[str, Any], **headers: str) -> Any:
            sent = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            return client.post("/mcp", json=sent, headers={**ann, **headers})

        asked = {"mcp-protocol-version": "2026-07-28", "mcp-method": "subscriptions/listen"}
        assert "listen to 2 resources" in post("subscriptions/listen", listen, **asked).text
        session = {"mcp-session-id": client.post("/mcp", json=HELLO, headers=ann).headers["mcp-session-id"]}
        answers = [post("resources/subscribe", {"uri": uri}, **session).json() for uri in uris]
        assert ["error" in answer for answer in answers] == [False, False, True]
        assert "listen to 2 resources" in answers[2]["error"]["message"]


@pytest.mark.parametrize("era", ERAS)
def test_two_agents_share_a_block(url: str, place: tuple[RedisServer, Path, Served], era: str) -> None:
    """An append of one is in the other's next read, and in its update; so is a save of a person."""

    async def work() -> None:
        ear, uri = Ear(), "blocks://bob/team"
        ann, bob = (
            over_http(url, era, TOKENS[name], **more) for name, more in (("ann", {}), ("bob", ear.options(era)))
        )
        async with ann as first, bob as second, ear.listening(second, era, uri):
            await done(first, "memory_append", label="team", content=f"In room 4 ({era}).")
            assert f"In room 4 ({era})." in (await done(second, "memory_view", label="team"))["value"]
            await ear.until(uri)
            ear.heard.clear()
            file = place[1] / "team.md"
            file.write_text(f"{file.read_text()}At noon ({era}).\n")
            await ear.until(uri)
            assert f"At noon ({era})." in str((await second.read_resource(uri)).contents)

    run(work())


def test_clients_of_one_agent_hear_what_they_asked_for(url: str, place: tuple[RedisServer, Path, Served]) -> None:
    """Each session of before 2026 its own resources, though they share the watch."""
    (place[1] / "agents/ann/plan.md").write_text("x\n")

    async def work() -> None:
        era, ears = "2025-11-25", (Ear(), Ear())
        uris = ("blocks://ann/human", "blocks://ann/plan")
        async with (
            over_http(url, era, TOKENS["ann"], **ears[0].options(era)) as one,
            over_http(url, era, TOKENS["ann"], **ears[1].options(era)) as other,
            ears[0].listening(one, era, uris[0]),
            ears[1].listening(other, era, uris[1]),
        ):
            await soon(lambda: is_there(one, "plan"))
            await done(one, "memory_append", label="plan", content="y")
            await ears[1].until(uris[1])
            await done(one, "memory_append", label="human", content="y")
            await ears[0].until(uris[0])
            assert uris[1] not in ears[0].heard
            assert uris[0] not in ears[1].heard

    run(work())


async def is_there(client: Client, label: str) -> bool:
    return not (await client.call_tool("memory_view", {"label": label})).is_error


GARBAGE: list[bytes] = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"jsonrpc": "2.0", "id": 1}',
    b'{"jsonrpc": "2.0", "id": {}, "method": "ping"}',
    b'{"jsonrpc": "2.0", "id": 1, "method": "nope"}',
    b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": []}',
    b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": 3}}',
    b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "memory_view", "arguments": {"label": "\\ud800"}}}',
    b'{"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": "\\ud800"}}',
    b'{"jsonrpc": "2.0", "id": 1, "method": "prompts/get", "params": {"name": "\\ud800"}}',
    b'{"jsonrpc": "2.0", "id": 1e400, "method": "ping"}',
]


@pytest.mark.parametrize("version", [None, "2026-07-28", "2025-11-25", "1999-01-01", "x" * 5000])
def test_garbage(url: str, place: tuple[RedisServer, Path, Served], version: str | None) -> None:
    """Is refused without a fault, in whatever version it claims to be; others are served."""
    headers = {**JSON, "authorization": f"Bearer {TOKENS['ann']}"} | (
        {} if version is None else {"mcp-protocol-version": version}
    )
    with httpx2.Client(headers=headers, timeout=20) as client:
        for body in GARBAGE:
            assert client.post(url, content=body).status_code < 500, body[:80]
            if body.startswith(b'{"jsonrpc"') and b'"params": {' in body:
                whole = body.replace(b'"params": {', b'"params": {"_meta": ' + json.dumps(OF_2026).encode() + b", ")
                name = json.loads(body)["method"]
                assert client.post(url, content=whole, headers={"mcp-method": name}).status_code < 500, body[:80]
        for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"):
            assert client.request(method, url, headers={"accept": "text/html"}).status_code < 500

        def chunks() -> Iterator[bytes]:
            yield from [b" " * 100_000] * 60

        assert client.post(url, content=b" " * 6_000_000).status_code == 413
        with suppress(httpx2.HTTPError):  # it may be cut while it is sent
            assert client.post(url, content=chunks()).status_code == 413
    assert place[2].get("/v1/health/")["status"] == "ok"
    assert "Traceback" not in place[2].said()


@pytest.mark.parametrize("version", [None, *ERAS])
def test_client_that_hangs_up(url: str, place: tuple[RedisServer, Path, Served], version: str | None) -> None:
    """In the middle of its body, before the answer, and in the middle of a stream: no fault is logged, others are served."""
    served, token = place[2], TOKENS["ann"]
    claimed = "" if version is None else f"MCP-Protocol-Version: {version}\r\n"
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {"_meta": OF_2026}}
    listen = {**call, "method": "subscriptions/listen"}
    listen["params"] = {"_meta": OF_2026, "notifications": {"resourcesListChanged": True}}
    for body in (json.dumps(HELLO), json.dumps(call), json.dumps(listen)):
        method = f"Mcp-Method: {json.loads(body)['method']}\r\n"
        head = (
            f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nAuthorization: Bearer {token}\r\n{claimed}{method}"
            f"Content-Type: application/json\r\nAccept: {JSON['accept']}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        for sent in (head, head + body[:20], head + body):
            with socket.create_connection(("127.0.0.1", served.port)) as connection:
                connection.sendall(sent.encode())
        with socket.create_connection(("127.0.0.1", served.port)) as connection:
            connection.sendall((head + body).encode())
            assert connection.recv(12).startswith(b"HTTP/1.1 ")
    for _ in range(3):
        assert httpx2.post(url, json=HELLO, headers={**JSON, "authorization": f"Bearer {token}"}).status_code == 200
    assert "Traceback" not in served.said()


def test_stop_ends_streams_and_sessions(place: tuple[RedisServer, Path, Served], tmp_path: Path) -> None:
    """Of clients that listen; the gateway ends in order, and in time."""
    served = Served(tmp_path / "serve.log", "--redis", place[0].url).ready()
    url = f"http://127.0.0.1:{served.port}/mcp?agent=ann"

    async def work() -> None:
        async with over_http(url, "2026-07-28") as modern, modern.listen(resources_list_changed=True) as events:
            served.process.send_signal(signal.SIGTERM)
            assert [event async for event in events] == []  # an end in order, and no error
        await asyncio.to_thread(served.process.wait, 15)

    run(work())
    assert served.process.returncode == 0
    assert "Traceback" not in served.said()


def test_reload_ends_sessions_of_tokens_that_are_gone(place: tuple[RedisServer, Path, Served], tmp_path: Path) -> None:
    """All streams end, and a client whose token is still there begins anew."""
    tokens = tmp_path / "tokens"
    tokens.write_text(FILE)
    served = Served(tmp_path / "serve.log", "--redis", place[0].url, "--tokens-file", str(tokens)).ready()
    url = f"http://127.0.0.1:{served.port}/mcp"

    async def work() -> None:
        async with (
            over_http(url, "2026-07-28", TOKENS["bob"]) as bob,
            over_http(url, "2026-07-28", TOKENS["ann"]) as ann,
        ):
            async with bob.listen(resources_list_changed=True) as events:
                tokens.write_text(FILE.replace(TOKENS["bob"], "another-token-of-the-agent-bob"))
                served.process.send_signal(signal.SIGHUP)
                assert [event async for event in events] == []
            assert (await done(ann, "memory_view", label="human"))["value"]
            assert (
                httpx2.post(url, json=HELLO, headers={**JSON, "authorization": f"Bearer {TOKENS['bob']}"}).status_code
                == 401
            )

    try:
        run(work())
    finally:
        served.end()
    assert "Traceback" not in served.said()


def test_lost_server(tmp_path: Path) -> None:
    """A gateway without Redis answers the handshake, and each tool says what is wrong, without addresses."""
    served = Served(tmp_path / "serve.log", "--redis", "redis://127.0.0.1:1").ready()

    async def work() -> None:
        async with over_http(f"http://127.0.0.1:{served.port}/mcp?agent=ann", "2025-11-25") as client:
            assert "cannot be read for now" in (client.instructions or "")
            said = await refused(client, "memory_list")
            assert "Redis does not serve" in said
            assert "127.0.0.1" not in said

    try:
        run(work())
    finally:
        served.end()
    assert "Traceback" not in served.said()


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer says how to install it."""
    monkeypatch.setattr("blocksd.mcp.over_http.find_spec", lambda _name: None)
    with gateway("redis://127.0.0.1:1", parts=[OverHTTP]) as client:
        answer = client.post("/mcp?agent=ann", json=HELLO, headers=JSON)
    assert answer.status_code == 501
    assert "pip install 'blocksd[mcp]'" in answer.json()["detail"]


def test_sdk_is_loaded_by_the_first_request_alone() -> None:
    """A gateway that nobody uses for MCP starts as fast as before."""
    check = "import sys, blocksd.mcp.over_http, blocksd.http.app; sys.exit('mcp' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
