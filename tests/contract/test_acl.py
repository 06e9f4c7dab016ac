"""The users that `blocksd acl` prints can do what they have to, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import redis

from blocksd.acl import users
from blocksd.client import Client
from blocksd.errors import Misconfigured, ReadOnly
from blocksd.keys import Keys
from support import BACKENDS, Daemon, RedisServer, binary_of, eventually

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
    assert "ready: 2 blocks, 2 agents, 0 problems" in daemon.said()
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
        with pytest.raises(Misconfigured, match="refuses the login"):
            reader.blocks.append("notes", "x")


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
