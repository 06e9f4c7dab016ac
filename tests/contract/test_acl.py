"""The users that `blocksd acl` prints can do what they have to, and nothing else."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import redis

from blocksd import Client
from blocksd.errors import Misconfigured, ReadOnly
from blocksd.mirror.acl import users
from blocksd.mirror.keys import Keys
from gateways import gateway
from support import BACKENDS, Daemon, RedisServer, binary_of, eventually, require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=BACKENDS)
def guarded(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server with these users, and nobody else who may do anything."""
    server = RedisServer(binary_of(request.param))
    server.start()
    raw = server.client()
    for line in users(Keys("blocks"), ["ann", "bob"]):
        _, user, *rules = line.replace("PASSWORD", ">secret").split()
        raw.execute_command("ACL", "SETUSER", user, *rules)
    raw.close()
    yield server
    server.remove()


def url_of(server: RedisServer, user: str) -> str:
    return f"unix://{user}:secret@{server.socket}"


@pytest.fixture
def daemon(guarded: RedisServer, tmp_path: Path, folder: Path) -> Iterator[Daemon]:
    (folder / "notes.md").write_text("---\nagents: [ann, bob]\n---\none\n")
    (folder / "policy.md").write_text("---\nagents: [ann]\nread_only: true\n---\nmust\n")
    url = url_of(guarded, "blocks-daemon")
    running = Daemon(folder, tmp_path / "state", "--redis", url, "--resync-seconds", "0.2")
    yield running.start()
    running.kill()


def test_daemon_keeps_the_mirror(daemon: Daemon, guarded: RedisServer) -> None:
    """Its user is enough for all it does: the first mirror, the comparison of everything, a mirror that was lost."""
    assert "ready: 2 blocks, 2 agents, 0 problems, 0 warnings" in daemon.said()
    raw: Any = guarded.client()
    raw.delete("blocks:block:notes")
    eventually(lambda: raw.hget("blocks:block:notes", "value") == "one", "what was missing is back")
    raw.flushall()
    eventually(lambda: raw.hget("blocks:block:notes", "value") == "one", "the mirror is back")
    raw.close()
    assert "refuse" not in daemon.said()


@pytest.mark.usefixtures("daemon")
def test_operator_and_agents_read_write_and_watch(guarded: RedisServer) -> None:
    """Each with its own user, through the client."""
    with Client(url_of(guarded, "blocks-operator")) as operator, Client(url_of(guarded, "blocks-agent-ann")) as ann:
        with operator.watch(label="notes") as changes, ann.memory("ann") as memory:
            assert "one" in memory.compile()
            memory.append("notes", "two")
            assert next(changes).kind == "updated"
            with pytest.raises(ReadOnly):
                memory.append("policy", "x")
        assert operator.blocks.append("notes", "three").value == "one\ntwo\nthree"
        assert operator.blocks.agents.count("notes") == 2


@pytest.mark.usefixtures("daemon")
def test_reader_reads_and_cannot_ask(guarded: RedisServer) -> None:
    """It sees blocks, agents and changes."""
    with Client(url_of(guarded, "blocks-reader")) as reader:
        assert reader.blocks.retrieve("notes").value == "one"
        assert [agent.id for agent in reader.agents.list()] == ["ann", "bob"]
        reader.watch().close()
        with pytest.raises(Misconfigured, match="does not permit this to its user"):
            reader.blocks.append("notes", "x")


@pytest.mark.usefixtures("daemon")
def test_gateway_asks_for_all(guarded: RedisServer) -> None:
    """Its user is enough for operators, and for any agent that has a token."""
    tokens = "operator:kim operator-token-00\nagent:ann agent-token-00000\nagent:bob agent-token-00001\n"
    with gateway(url_of(guarded, "blocks-gateway"), tokens=tokens) as http:
        for token, author in (
            ("operator-token-00", "operator"),
            ("agent-token-00000", "ann"),
            ("agent-token-00001", "bob"),
        ):
            headers = {"authorization": f"Bearer {token}"}
            answer = http.patch("/v1/blocks/notes", json={"value": author}, headers=headers)
            assert (answer.status_code, answer.json()["last_updated_by_id"]) == (200, author), answer.text


READING = frozenset(
    (
        *("hello", "auth", "ping", "echo", "reset", "quit", "multi", "exec"),
        *("client|setname", "client|getname", "client|id"),
        *("get", "exists", "type", "hget", "hmget", "hgetall", "hkeys", "hlen", "smembers", "sismember", "scard"),
        *("zrange", "zrangebylex", "zrevrangebylex", "zscore", "zmscore", "zcard", "zscan", "zcount"),
        *("zrank", "zrevrank"),
        *("xrange", "xrevrange", "xread"),
        *("subscribe", "unsubscribe"),
    )
)
ALLOWED = {
    "blocks-reader": READING,
    "blocks-operator": READING | {"xadd", "blpop", "eval_ro"},
    "blocks-gateway": READING | {"xadd", "blpop", "eval_ro"},
    "blocks-agent-ann": READING | {"xadd", "blpop"},
}
ALWAYS = frozenset(("auth", "hello", "quit", "reset"))
"""What a server lets everyone send, whatever the rules say."""


def arities(server: RedisServer) -> dict[str, int]:
    """Every command and subcommand this server knows, with its arity."""
    raw: Any = redis.Redis.from_url(server.url, decode_responses=True, protocol=2)
    connection = raw.connection_pool.get_connection()

    def ask(*words: str) -> Any:
        connection.send_command(*words)
        return connection.read_response()

    found: dict[str, int] = {}

    def note(info: Any) -> None:
        found[info[0]] = info[1]
        for sub in info[9] if len(info) > 9 else ():
            note(sub)

    for info in ask("COMMAND"):
        note(info)
    listed = {command for category in ask("ACL", "CAT") for command in ask("ACL", "CAT", category)}
    assert listed <= set(found)
    connection.disconnect()
    raw.close()
    return found


@pytest.mark.parametrize("user", ALLOWED)
def test_user_may_send_what_is_listed_and_nothing_else(guarded: RedisServer, user: str) -> None:
    """Of all the commands and subcommands that the server knows, those its user needs; the rest is refused by name."""
    raw: Any = redis.Redis.from_url(guarded.url, decode_responses=True, protocol=2)
    commands = arities(guarded)
    containers = {name.partition("|")[0] for name in commands if "|" in name}
    permitted = set()
    for name, arity in commands.items():
        words = name.split("|")
        if name in containers:
            continue  # it is sent with one of its subcommands
        words += ["1"] * (abs(arity) - len(words))
        try:
            answer = str(raw.execute_command("ACL", "DRYRUN", user, *words))
        except redis.ResponseError as error:
            pytest.fail(f"{words}: {error}")
        if "to run the" not in answer:
            permitted.add(name)
    raw.close()
    assert permitted - ALWAYS == (ALLOWED[user] & set(commands)) - ALWAYS
    assert {
        "client|list",
        "client|kill",
        "client|unblock",
        "client|unpause",
        "client|no-evict",
        "client|tracking",
        "select",
    } <= (set(commands) - permitted)


@pytest.mark.usefixtures("daemon")
@pytest.mark.parametrize("protocol", [2, 3])
def test_other_clients_get_by(guarded: RedisServer, protocol: int) -> None:
    """redis-cli and a bare redis-py, with what they send on their own, do what the documents show."""
    url = url_of(guarded, "blocks-agent-ann")
    bare: Any = redis.Redis.from_url(url, decode_responses=True, protocol=protocol, client_name="mine")
    assert bare.hget("blocks:block:notes", "value") == "one"
    with bare.pipeline() as together:
        together.hmget("blocks:meta", "epoch", "seq").xrevrange("blocks:changes", count=1).execute()
    bare.xread({"blocks:changes": "0"}, count=1, block=1)
    bare.xadd(
        "blocks:inbox:ann", {"request": '{"id": "r-1", "op": "append", "name": "notes", "args": {"content": "x"}}'}
    )
    assert bare.blpop(["blocks:reply:ann:r-1"], 20)
    pubsub = bare.pubsub()
    pubsub.subscribe("blocks:changes", "blocks:changes:reset", "blocks:changes:block:notes")
    pubsub.ping()
    pubsub.close()
    bare.close()
    words = [
        require("redis-cli"),
        "-s",
        str(guarded.socket),
        "--user",
        "blocks-agent-ann",
        "--pass",
        "secret",
        "--no-auth-warning",
    ]
    said = subprocess.run(
        [*words, "HGET", "blocks:block:notes", "value"], capture_output=True, text=True, check=True, timeout=20
    )
    assert (said.stdout, said.stderr) == ("one\nx\n", "")


def test_database_and_cluster() -> None:
    """A namespace in another database needs SELECT of that one, one on a cluster the map of it and the channels of shards."""
    for line in users(Keys("blocks"), ["ann"], database=3)[1:]:
        assert "+select|3" in line.split()
    for line in users(Keys("{blocks}"), ["ann"])[1:]:
        assert {"+cluster|slots", "+command", "+ssubscribe", "+sunsubscribe"} <= set(line.split())
    assert not any("select" in line or "cluster" in line for line in users(Keys("blocks"), ["ann"]))


def test_only_its_database_may_be_selected(guarded: RedisServer) -> None:
    """On every server."""
    raw: Any = guarded.client()
    for line in users(Keys("blocks"), [], database=3):
        _, user, *rules = line.replace("PASSWORD", ">secret").split()
        raw.execute_command("ACL", "SETUSER", user, *rules)
    raw.close()
    with Client(url_of(guarded, "blocks-reader") + "?db=3") as reader:
        assert reader.meta() == {}
    with Client(url_of(guarded, "blocks-reader") + "?db=4") as reader, pytest.raises(Misconfigured):
        reader.meta()


@pytest.mark.parametrize(
    "command",
    [
        ("XADD", "blocks:inbox:bob", "*", "request", "{}"),
        ("XADD", "blocks:inbox:operator", "*", "request", "{}"),
        ("XRANGE", "blocks:inbox:bob", "-", "+"),
        ("BLPOP", "blocks:reply:bob:1", "1"),
        ("HSET", "blocks:block:notes", "value", "x"),
        ("DEL", "blocks:lease"),
        ("PUBLISH", "blocks:changes", "{}"),
        ("EVAL", "return 1", "0"),
        ("KEYS", "*"),
        ("GET", "other:key"),
        ("CONFIG", "GET", "*"),
        ("FLUSHALL",),
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_agent_may_do_nothing_else(guarded: RedisServer, command: tuple[str, ...]) -> None:
    """Neither for another, nor to the mirror, nor to the server."""
    raw: Any = redis.Redis.from_url(url_of(guarded, "blocks-agent-ann"))
    with pytest.raises(redis.exceptions.NoPermissionError):
        raw.execute_command(*command)
    raw.close()
