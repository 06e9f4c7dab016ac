"""The doctor at real servers, sound and in bad states."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from blocksd import Client
from blocksd.doctor import server_checks as checks
from blocksd.doctor.server import Listening, look
from blocksd.errors import Misconfigured, Unavailable
from blocksd.mirror.acl import daemon_commands, users
from blocksd.mirror.keys import Keys
from blocksd.settings.config import Config
from support import BACKENDS, Daemon, RedisServer, advises, binary_of, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow


KEYS = Keys("blocks")


@pytest.fixture(params=BACKENDS)
def serve(request: pytest.FixtureRequest) -> Iterator[Callable[..., RedisServer]]:
    """Start a server of each kind with options."""
    started: list[RedisServer] = []

    def start(*options: str) -> RedisServer:
        server = RedisServer(binary_of(request.param))
        started.append(server)
        server.start(*options)
        return server

    yield start
    for server in started:
        server.remove()


def make_user(server: RedisServer, name: str, *rules: str) -> str:
    """A user with these rights; the URL to be it."""
    raw = server.client()
    raw.execute_command("ACL", "SETUSER", name, "on", ">secret", *rules)
    raw.close()
    return f"unix://{name}:secret@{server.socket}"


def daemon_rules() -> list[str]:
    """What `blocksd acl` prints for the daemon, for ACL SETUSER."""
    line = users(KEYS, [])[0]
    return line.replace("PASSWORD", ">secret").split()[3:]


# --- what a server is ---


def test_sound_server(serve: Callable[..., RedisServer]) -> None:
    """One that keeps its data and evicts nothing has all that a daemon needs."""
    server = serve("--appendonly", "yes")
    seen = look(server.url, KEYS)
    assert (seen.kind, seen.mode, seen.role, seen.lacking) in [
        (kind, "standalone", "master", ()) for kind in ("Valkey", "Redis")
    ]
    assert seen.version.startswith("9." if seen.kind == "Valkey" else "7.0")
    assert (seen.hosts, seen.user, seen.has_login) == ((), "default", False)
    assert seen.offset is not None
    assert abs(seen.offset) < 1
    advises(checks.version(seen.kind, seen.version), "ok")
    advises(checks.memory(seen.user, seen.memory), "ok")
    advises(checks.persistence(seen.user, seen.persistence), "ok")
    advises(checks.exposure(seen), "ok")


def test_nothing_is_written(serve: Callable[..., RedisServer]) -> None:
    """Asking what a user may do leaves no trace."""
    server = serve()
    look(server.url, KEYS)
    raw = server.client()
    assert raw.dbsize() == 0
    assert raw.execute_command("SCRIPT", "EXISTS", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db") == [0]  # `return 1`
    raw.close()


def test_evicting_server(serve: Callable[..., RedisServer]) -> None:
    """One that throws keys away when its memory is used up is wrong; without a limit it never does."""
    server = serve("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
    advises(checks.memory("default", look(server.url, KEYS).memory), "wrong", "allkeys-lru", "100.0 MiB")
    raw = server.client()
    raw.config_set("maxmemory-policy", "noeviction")
    advises(checks.memory("default", look(server.url, KEYS).memory), "ok", "100.0 MiB")
    raw.config_set("maxmemory", "0")
    raw.config_set("maxmemory-policy", "allkeys-lru")
    advises(checks.memory("default", look(server.url, KEYS).memory), "ok", "no limit")
    raw.close()


def test_server_without_persistence(serve: Callable[..., RedisServer]) -> None:
    """What is lost when it ends is said, as a fact: with nothing on disk, and with snapshots alone."""
    server = serve()
    advises(checks.persistence("default", look(server.url, KEYS).persistence), "ok", "nothing on disk")
    raw = server.client()
    raw.config_set("save", "3600 1")
    advises(checks.persistence("default", look(server.url, KEYS).persistence), "ok", "snapshots")
    raw.close()


def test_server_that_cannot_write_to_disk(serve: Callable[..., RedisServer]) -> None:
    """A snapshot that failed is told of: the server refuses to be written."""
    server = serve()
    raw = server.client()
    raw.set("x", "y")
    raw.config_set("save", "3600 1")
    (server.directory / "dump.rdb").mkdir()
    (server.directory / "dump.rdb" / "in-the-way").touch()
    raw.bgsave()
    eventually(lambda: raw.info("persistence")["rdb_last_bgsave_status"] == "err", "the snapshot fails")
    seen = look(server.url, KEYS)
    advises(checks.persistence("default", seen.persistence), "wrong", "has failed")
    assert seen.lacking == ()  # that it refuses to be written is no matter of rights
    raw.close()


def test_replica(serve: Callable[..., RedisServer]) -> None:
    """A replica is told from its primary."""
    primary = serve("--port", "0")
    replica = serve("--replicaof", "127.0.0.1", "1")
    assert look(primary.url, KEYS).role == "master"
    seen = look(replica.url, KEYS)
    assert seen.role == "replica"
    (found,) = checks.mode(seen, Config(redis=replica.url))
    advises(found, "wrong", "refuses writes")


def test_cluster(serve: Callable[..., RedisServer], free_port: int) -> None:
    """A cluster is asked as one, and told of when it is named as if it were one server."""
    server = serve("--port", str(free_port), "--cluster-enabled", "yes")
    raw = server.client()
    raw.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
    eventually(lambda: "cluster_state:ok" in str(raw.execute_command("CLUSTER", "INFO")), "its slots are served")
    (found,) = checks.mode(look(server.url, KEYS), Config(redis=server.url))
    advises(found, "wrong", "redis+cluster://")
    config = Config(redis=f"redis+cluster://127.0.0.1:{free_port}", namespace="{blocks}")
    assert config.redis is not None
    seen = look(config.redis, Keys(config.namespace))
    assert (seen.mode, seen.lacking, seen.hosts) == ("cluster", (), ("127.0.0.1",))
    assert list(checks.mode(seen, config)) == []
    raw.close()


def test_where_it_listens(serve: Callable[..., RedisServer], free_port: int) -> None:
    """A server that lets in everyone who is on its machine is told from one that lets in everyone."""
    server = serve("--port", str(free_port), "--bind", "127.0.0.1")
    url = f"redis://127.0.0.1:{free_port}"
    seen = look(url, KEYS)
    assert (seen.hosts, seen.listening) == (("127.0.0.1",), Listening("127.0.0.1", free_port, is_protected=True))
    advises(checks.exposure(seen), "ok")
    raw = server.client()
    raw.config_set("protected-mode", "no")
    advises(checks.exposure(look(url, KEYS)), "ok")
    advises(
        checks.exposure(replace(look(url, KEYS), listening=Listening("*", free_port, is_protected=False))), "warning"
    )
    raw.close()


def test_dead_server(serve: Callable[..., RedisServer]) -> None:
    """That nobody answers is said; so is that somebody holds the connection open and says nothing."""
    server = serve()
    server.pause()
    with pytest.raises(Unavailable):
        look(server.url, KEYS)
    server.resume()
    server.kill()
    with pytest.raises(Unavailable):
        look(server.url, KEYS)


# --- what its user may do ---


def test_daemon_user_of_blocksd_acl(serve: Callable[..., RedisServer]) -> None:
    """It may do all that a daemon does, and is told apart from a default user that may as well."""
    server = serve()
    seen = look(make_user(server, "blocks-daemon", *daemon_rules()), KEYS)
    assert (seen.user, seen.lacking) == ("blocks-daemon", ())
    advises(checks.rights(seen.user, seen.lacking), "ok")
    advises(checks.exposure(seen), "warning", "default user")
    raw = server.client()
    raw.execute_command("ACL", "SETUSER", "default", "resetpass", ">other")
    raw.close()
    advises(checks.exposure(look(f"unix://blocks-daemon:secret@{server.socket}", KEYS)), "ok", "asks for a password")


@pytest.mark.parametrize(
    ("rules", "lacking"),
    [
        (("-hset",), ("+hset",)),
        (("-publish", "-xadd"), ("+xadd", "+publish")),
        (("-eval",), ("+eval",)),
        (("-client|tracking",), ("+client|tracking",)),
        (("-@scripting",), ("+evalsha", "+eval")),
        (("resetkeys", "~blocks:block:*"), ("~blocks:*",)),
        (("resetkeys", "~other:*"), ("~blocks:*",)),
        (("resetkeys", "%R~blocks:*"), ("~blocks:*",)),
        (("resetchannels", "&blocks:changes"), ("&blocks:*",)),
    ],
    ids=" ".join,
)
def test_user_that_lacks_a_right(
    serve: Callable[..., RedisServer], rules: tuple[str, ...], lacking: tuple[str, ...]
) -> None:
    """Which right is missing is said as the rule that gives it; with that rule nothing is missing."""
    server = serve()
    url = make_user(server, "weak", *daemon_rules(), *rules)
    seen = look(url, KEYS)
    assert seen.lacking == lacking
    advises(checks.rights(seen.user, seen.lacking), "wrong", *lacking, "ACL SETUSER weak")
    make_user(server, "weak", *lacking)
    assert look(url, KEYS).lacking == ()


def test_user_that_may_not_ask(serve: Callable[..., RedisServer]) -> None:
    """What cannot be asked is unknown, not wrong."""
    server = serve()
    url = make_user(server, "mute", "~*", "&*", "+@all", "-@dangerous", "-@transaction", "-time", "-acl")
    seen = look(url, KEYS)
    assert (seen.lacking, seen.memory, seen.persistence, seen.listening, seen.offset) == (None,) * 5
    assert seen.user == "mute"
    advises(checks.rights(seen.user, seen.lacking), "unknown")
    advises(checks.memory(seen.user, seen.memory), "unknown")


def test_server_without_a_command(serve: Callable[..., RedisServer]) -> None:
    """Hosted servers do not know CONFIG: what it would tell is unknown, and the rest is checked."""
    server = serve("--rename-command", "CONFIG", "no-config")
    seen = look(server.url, Keys("blocks"))
    assert seen.role == "master"
    assert seen.listening is None


def test_wrong_password(serve: Callable[..., RedisServer]) -> None:
    """A login that is refused is told from a server that is away."""
    server = serve()
    make_user(server, "ann", "~*", "+@all")
    with pytest.raises(Misconfigured, match="refuses the login"):
        look(f"unix://ann:wrong@{server.socket}", KEYS)


def test_commands_a_daemon_sends(serve: Callable[..., RedisServer], tmp_path: Path, folder: Path) -> None:
    """A user who may send the commands that are asked about, and no others, can be the daemon: in all it does."""
    server = serve()
    allowed = {_rule(words) for words in daemon_commands(KEYS)}
    url = make_user(server, "narrow", "~blocks:*", "&blocks:*", "-@all", "+@connection", *sorted(allowed))
    manuals = tmp_path / "manuals"
    manuals.mkdir()
    (manuals / "returns.txt").write_text("within 30 days\n")
    settings = tmp_path / "blocksd.toml"
    settings.write_text(f'[sources.manuals]\npath = "{manuals}"\nagents = ["ann"]\n')
    (folder / "notes.md").write_text("---\ndescription: x\nagents: [ann, bob]\n---\none\n")
    (folder / "kept.md").write_text("---\nagents: [ann]\n---\nkept\n")
    (folder / "bad.md").write_text("---\n")
    options = ("--resync-seconds", "0.2", "--delete-grace", "0.1", "--config", str(settings))
    daemon = Daemon(folder, tmp_path / "state", "--redis", url, *options)
    raw: Any = server.client()
    raw.config_resetstat()
    daemon.start()
    try:
        with Client(server.url) as operator:
            operator.blocks.update("notes", description=None, tags=["a"])
            operator.blocks.detach("notes", ["bob"])
            operator.blocks.attach("notes", ["bob"])
            operator.blocks.rename("notes", "memo")
            operator.agents.create(name="cleo", memory_blocks=[{"label": "persona", "value": "new"}])
            operator.agents.delete("cleo")
            opened = ("operator", "open_file", {"agent": "ann", "file": "manuals/returns.txt"})
            _request(raw, *opened)
            operator.blocks.delete("memo")
        (folder / "bad.md").unlink()
        eventually(lambda: not raw.exists("blocks:problems"), "the problem is cleared")
        raw.set("blocks:inbox:ann", "no stream")
        raw.delete("blocks:block:kept")
        eventually(lambda: raw.hget("blocks:block:kept", "value"), "what was missing is back")
        raw.delete("blocks:meta")
        eventually(lambda: raw.hget("blocks:meta", "seq"), "the mirror is built anew")
    finally:
        daemon.stop()
    refused = [entry for entry in raw.acl_log() if entry["username"] == "narrow"]
    assert refused == []
    used = {name.removeprefix("cmdstat_") for name in raw.info("commandstats")}
    seldom = {"scard", "zlexcount", "xrevrange"}  # of more blocks than are read in full; when a daemon comes back
    assert {rule.removeprefix("+") for rule in allowed} - used == seldom
    raw.close()


def _request(raw: Any, actor: str, op: str, args: dict[str, Any]) -> None:
    raw.xadd(f"blocks:inbox:{actor}", {"request": json.dumps({"id": "1", "op": op, "args": args})})
    found = raw.blpop([f"blocks:reply:{actor}:1"], timeout=20)
    assert found
    assert json.loads(found[1])["ok"], found


def _rule(words: tuple[str | int, ...]) -> str:
    command = str(words[0]).lower()
    has_subcommand = command in ("client", "memory", "pubsub", "script", "xinfo")
    return f"+{command}|{str(words[1]).lower()}" if has_subcommand else f"+{command}"
