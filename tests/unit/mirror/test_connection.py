from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import redis

from blocksd import AsyncClient, Client
from blocksd.errors import BlocksdError, Damaged, Misconfigured, Unavailable
from blocksd.mirror.clients import LazyCluster
from blocksd.mirror.connection import check_namespace, connect, masked, translated
from blocksd.mirror.script import packed
from blocksd.protocol import wire

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET = "hunter2"


def settings_of(url: str) -> dict[str, Any]:
    client = connect(url)
    try:
        return dict(client.connection_pool.connection_kwargs)
    finally:
        client.close()


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("redis://example.org:6380/2", {"host": "example.org", "port": 6380, "db": 2}),
        ("redis://u:p%40ss@example.org", {"host": "example.org", "username": "u", "password": "p@ss"}),
        ("rediss://example.org", {"host": "example.org"}),
        ("unix:///run/redis.sock", {"path": "/run/redis.sock"}),
        ("unix://:secret@/run/redis.sock", {"path": "/run/redis.sock", "password": "secret"}),
        ("redis+sentinel://u:p%40ss@one:26379,two:26380/main/3", {"username": "u", "password": "p@ss", "db": 3}),
        ("redis+sentinel://one:26379/main", {"db": 0}),
        ("rediss+sentinel://one:26379/main?ssl_ca_certs=/ca.pem", {"db": 0, "ssl_ca_certs": "/ca.pem"}),
        ("redis+sentinel://[::1]:26379,[fe80::2]:26380,one:1/main/2", {"db": 2}),
    ],
)
def test_url_forms(url: str, wanted: dict[str, Any]) -> None:
    """Each form leads where it says; logins may be percent-encoded; nothing is sent yet."""
    settings = settings_of(url)
    assert {key: settings[key] for key in wanted} == wanted
    assert settings["decode_responses"] is True


def test_daemon_waits_two_seconds_and_sends_once() -> None:
    """A reply is waited for a little while, a connection less, and no command is sent a second time."""
    settings = settings_of("redis://example.org")
    assert (settings["socket_timeout"], settings["socket_connect_timeout"]) == (2.0, 1.0)
    assert settings["retry"].get_retries() == 0
    patient = connect("redis://example.org", reply_seconds=10.0)
    assert patient.connection_pool.connection_kwargs["socket_timeout"] == 10.0


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("url", ["redis://one", "unix:///one", "redis+sentinel://one:1/main"])
def test_calls_at_once_are_as_many_as_a_server_takes(url: str, *, asynchronous: bool) -> None:
    """Each call that waits for a reply needs a connection; a URL may say that there are fewer."""
    assert connect(url, asynchronous=asynchronous).connection_pool.max_connections == 10_000
    if url == "redis://one":
        few = connect(f"{url}?max_connections=5", asynchronous=asynchronous)
        assert few.connection_pool.max_connections == 5


@pytest.mark.parametrize("asynchronous", [False, True])
def test_master_that_hangs_is_not_waited_for(*, asynchronous: bool) -> None:
    """However patient a client is: the sentinels may name another. It waits longer than a request waits at a time."""
    client = connect("redis+sentinel://one:26379/main", reply_seconds=10.0, asynchronous=asynchronous)
    pool = client.connection_pool
    assert wire.WAIT_SECONDS < pool.connection_kwargs["socket_timeout"] == 2.0
    [one] = pool.sentinel_manager.sentinels
    assert one.connection_pool.connection_kwargs["socket_timeout"] == 1.0


def test_cluster_is_asked_when_it_is_needed() -> None:
    """What is made while the cluster is unreachable goes on when it is there."""
    with connect("redis+cluster://127.0.0.1:1") as client:
        assert hasattr(client, "get_node_from_key")
        assert not hasattr(client, "connection_pool")
        for _ in range(2):
            with pytest.raises(Unavailable, match="Connection refused"):
                client.ping()
    made: list[Any] = []

    def make() -> Any:
        made.append(SimpleNamespace(ping=lambda: True, close=lambda: made.append("closed")))
        if len(made) == 1:
            raise Unavailable("it is down")
        return made[-1]

    lazy = LazyCluster(make)
    lazy.close()
    with pytest.raises(Unavailable):
        lazy.ping()
    assert lazy.ping()
    assert lazy.ping()
    lazy.close()
    assert made[2:] == ["closed"], "one client was made"


def test_cluster_is_asked_by_several_threads_at_once() -> None:
    """None of them waits until the others have failed; one client stays."""
    together = threading.Barrier(3)
    closed: list[object] = []

    def make() -> Any:
        together.wait(10)
        made = SimpleNamespace()
        made.close = lambda: closed.append(made)
        made.ping = lambda: made
        return made

    lazy = LazyCluster(make)
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: lazy.ping(), range(3)))
    assert all(one is answers[0] for one in answers)
    assert len(closed) == 2
    assert answers[0] not in closed


def test_namespace_of_a_cluster_is_in_braces() -> None:
    """Else its keys would be spread over the nodes."""
    for url in ("redis://one", "redis+sentinel://one:1/main", "unix:///one"):
        check_namespace(url, "blocks")
    check_namespace("redis+cluster://one:1", "{blocks}")
    for kind in (Client, AsyncClient):
        for scheme in ("redis+cluster", "rediss+cluster"):
            with pytest.raises(Misconfigured, match="in braces"):
                kind(f"{scheme}://one:1", "blocks")


def test_sentinels_are_all_asked() -> None:
    """The service is looked up at every sentinel named."""
    client = connect("redis+sentinel://one:26379,two:26380/main")
    pool = client.connection_pool
    assert pool.service_name == "main"
    hosts = [
        (sentinel.connection_pool.connection_kwargs["host"], sentinel.connection_pool.connection_kwargs["port"])
        for sentinel in pool.sentinel_manager.sentinels
    ]
    assert hosts == [("one", 26379), ("two", 26380)]


class Silent:
    """A sentinel that does not answer."""

    def __init__(self, asked: list[int], number: int) -> None:
        self._asked = asked
        self._number = number

    def execute_command(self, *_words: str) -> Any:
        self._asked.append(self._number)
        raise redis.TimeoutError("silent")


class AsyncSilent(Silent):
    """The same, for asyncio code."""

    async def execute_command(self, *words: str) -> Any:
        super().execute_command(*words)


@pytest.mark.parametrize("kind", [Silent, AsyncSilent])
def test_silent_sentinels_cost_a_client_in_use_one_wait_at_a_time(
    kind: type[Silent], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each check asks the next one; after the last there is a longer pause. To connect, all of them are asked."""
    monkeypatch.setattr("blocksd.mirror.sentinel.time", SimpleNamespace(monotonic=lambda: 100.0))
    asked: list[int] = []
    is_async = kind is AsyncSilent
    pool = connect("redis+sentinel://a:1,b:1,c:1/main", asynchronous=is_async).connection_pool
    pool.sentinel_manager.sentinels = [kind(asked, number) for number in range(3)]
    (pool if is_async else pool.proxy).master_address = ("master", 1)

    def call(method: Callable[[], Any]) -> None:
        if is_async:
            asyncio.run(method())
        else:
            method()

    pauses = []
    for _ in range(4):
        pool._checked_at = 0.0
        call(pool.check_master)
        pauses.append(pool._checked_at - 100.0)
    assert asked == [0, 1, 2, 0]
    assert pauses == [1, 1, 5, 5]
    call(pool.check_master)
    assert len(asked) == 4, "none is due"
    with pytest.raises(redis.sentinel.MasterNotFoundError, match="silent"):
        call(pool.get_master_address)
    assert sorted(asked[4:]) == [0, 1, 2]


def test_sentinels_have_a_login_and_addresses_of_their_own() -> None:
    """Their login is not the server's; IPv6 addresses are in brackets; TLS is for both."""
    client = connect(
        "rediss+sentinel://u:hunter2@[::1]:26379,two:26380/main/3?sentinel_username=s&sentinel_password=p%40ss"
        "&ssl_check_hostname=no"
    )
    pool = client.connection_pool
    settings = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
    assert [(one["host"], one["port"]) for one in settings] == [("::1", 26379), ("two", 26380)]
    assert {(one["username"], one["password"], one["db"]) for one in settings} == {("s", "p@ss", 0)}
    assert {one["ssl_check_hostname"] for one in settings} == {False}
    assert issubclass(pool.connection_class, redis.SSLConnection)
    assert all(
        issubclass(one.connection_pool.connection_class, redis.SSLConnection) for one in pool.sentinel_manager.sentinels
    )
    assert (pool.connection_kwargs["username"], pool.connection_kwargs["password"]) == ("u", "hunter2")


def test_cluster_by_tls_and_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each node is named, with its options."""
    made_of: dict[str, Any] = {}

    def made(**options: Any) -> Any:
        made_of.update(options)
        return SimpleNamespace(ping=lambda: True)

    monkeypatch.setattr(redis.cluster, "RedisCluster", made)
    connect("rediss+cluster://u:hunter2@[::1]:7000,one:7001?ssl_cert_reqs=none").ping()
    assert [(node.host, node.port) for node in made_of["startup_nodes"]] == [("::1", 7000), ("one", 7001)]
    assert (made_of["ssl"], made_of["ssl_cert_reqs"], made_of["username"], made_of["password"]) == (
        *(True, "none", "u", "hunter2"),
    )


WRONG = (
    "http://u:hunter2@example.org",
    "example.org:6379",
    "",
    "redis://u:hunter2@example.org:port",
    "redis://u:hunter2@example.org:99999999",
    "redis://[::1",
    "redis://u:hunter2@[::1",
    "redis://u:hunter2@example.org?socket_timeout=soon",
    "redis+sentinel://u:hunter2@one/main",
    "redis+sentinel://u:hunter2@one:x/main/0",
    "redis+sentinel://u:hunter2@one:1/main/x",
    "redis+sentinel://u:hunter2@one:1/",
    "redis+sentinel://u:hunter2@one:1",
    "redis+cluster://u:hunter2@one:x",
    "redis+cluster://u:hunter2@::1:7000",
    "redis+cluster://u:hunter2@[::1:7000",
    "redis+cluster://u:hunter2@one:99999",
    "redis+cluster://u:hunter2@one:1,",
    "redis+sentinel://u:hunter2@one:1/main?sentinel_pasword=hunter2",
    "redis+sentinel://u:hunter2@one:1/main?socket_timeout=5",
    "redis+sentinel://u:hunter2/rest@one:1/main",
    "rediss+unix://u:hunter2@one:1/main",
    "redis://u:hunter2/rest@example.org:6379",
    "redis://u:99/hunter2@example.org:x",
    "redis://:hunter2#@example.org",
)


@pytest.mark.parametrize("url", WRONG)
def test_wrong_url_is_a_matter_of_configuration(url: str) -> None:
    """What is no URL of these forms is refused at once, in words, and without the password."""
    with pytest.raises(Misconfigured, match="is not a Redis URL") as refusal:
        connect(url)
    error = refusal.value
    assert SECRET not in f"{error.message} {error.facts}"
    assert error.__suppress_context__ or error.__context__ is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://example.org:6379/0", "redis://example.org:6379/0"),
        ("redis://u:hunter2@example.org:6379/0", "redis://u:***@example.org:6379/0"),
        ("redis://:hunter2@example.org", "redis://:***@example.org"),
        ("unix://:hunter2@/run/a.sock?db=1", "unix://:***@/run/a.sock?db=1"),
        ("unix:///run/a@b.sock", "unix:///run/a@b.sock"),
        ("redis+sentinel://u:hunter2@one:1,two:2/main", "redis+sentinel://u:***@one:1,two:2/main"),
        ("redis://example.org?password=hunter2", "redis://example.org?password=***"),
        ("redis+sentinel://o:1/m?sentinel_password=hunter2&a=1", "redis+sentinel://o:1/m?sentinel_password=***&a=1"),
        ("unix:///a.sock?db=1&password=hunter2&username=u", "unix:///a.sock?db=1&password=***&username=u"),
        ("redis://u:hunter2@x@example.org", "redis://u:***@example.org"),
        ("redis://u:a/hunter2@example.org", "redis://u:***@example.org"),
        ("redis://u:a#hunter2@example.org", "redis://u:***@example.org"),
        ("redis://u:?hunter2@example.org", "redis://u:***@example.org"),
        ("redis://example.org:1?password=a@hunter2", "redis://example.org:1?password=***"),
        ("redis://u:hunter2@[::1", "redis://u:***@[::1"),
        ("nonsense", "nonsense"),
        ("u:hunter2@example.org", "u:***@example.org"),
        ("redis://u:a://hunter2@example.org", "redis://u:***@example.org"),
    ],
)
def test_password_is_masked(url: str, shown: str) -> None:
    """A URL for messages has no password, wherever and however badly it was written."""
    assert masked(url) == shown


UNAVAILABLE = [
    redis.ConnectionError("Error 111 connecting"),
    redis.TimeoutError("Timeout reading from socket"),
    redis.BusyLoadingError("Redis is loading the dataset in memory"),
    redis.ReadOnlyError("You can't write against a read only replica."),
    redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
    redis.exceptions.MasterDownError("Link with MASTER is down"),
    redis.exceptions.ClusterDownError("CLUSTERDOWN The cluster is down"),
    redis.sentinel.MasterNotFoundError("No master found for 'main'"),
    *(
        redis.ResponseError(text)
        for text in (
            "LOADING Redis is loading the dataset in memory",
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
            "OOM command not allowed",
            "READONLY You can't write against a read only replica.",
            "CLUSTERDOWN Hash slot not served",
            "TRYAGAIN Multiple keys request during rehashing of slot",
            "MASTERDOWN Link with MASTER is down",
            "NOREPLICAS Not enough good replicas to write.",
            "BUSY Redis is busy running a script.",
        )
    ),
]
LOGINS = [
    redis.AuthenticationError("invalid username-password pair or user is disabled."),
    redis.exceptions.AuthorizationError("no"),
    redis.ResponseError("NOAUTH Authentication required."),
    redis.ResponseError("WRONGPASS invalid username-password pair or user is disabled."),
]
MISCONFIGURED = [
    *LOGINS,
    redis.exceptions.NoPermissionError("User d has no permissions to run the 'hset' command"),
    redis.ResponseError("NOPERM this user has no permissions"),
    redis.ResponseError("ACL failure in script: User d has no permissions to run the 'hset' command script: x"),
    redis.ResponseError("The user executing the script can't run this command or subcommand script: x"),
    redis.ResponseError("The user executing the script can't access at least one of the keys mentioned in the command"),
]


@pytest.mark.parametrize(
    ("error", "wanted"),
    [*((error, Unavailable) for error in UNAVAILABLE), *((error, Misconfigured) for error in MISCONFIGURED)],
    ids=str,
)
def test_error_is_translated(error: redis.RedisError, wanted: type[BlocksdError]) -> None:
    """What may pass by itself is Unavailable, what will not is Misconfigured; both say where, and why."""
    with pytest.raises(wanted) as found, translated(f"redis://u:{SECRET}@example.org"):
        raise error
    assert "redis://u:***@example.org" in found.value.message
    assert str(error) in found.value.message
    assert found.value.facts["url"] == "redis://u:***@example.org"
    lacks = found.value.facts.get("lacks")
    assert lacks == ({True: "login", False: "right"}[error in LOGINS] if wanted is Misconfigured else None)
    assert ("refuses the login" in found.value.message) == (lacks == "login")
    assert type(found.value) is wanted


def test_login_without_a_password_is_told_in_plain_words() -> None:
    """Redis answers a HELLO without a login with a long sentence about its protocol."""
    error = redis.AuthenticationError("HELLO must be called with the client already authenticated, otherwise the …")
    with (
        pytest.raises(Misconfigured, match="it needs a password, and the URL has none") as found,
        translated("redis://example.org"),
    ):
        raise error
    assert found.value.facts["lacks"] == "login"


CLASSES = sorted(
    (
        kind
        for kind in {**vars(redis.exceptions), **vars(redis.sentinel)}.values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ),
    key=lambda kind: kind.__name__,
)


def made(kind: type[Exception], text: str) -> Exception:
    """An exception of this class, whatever its constructor wants."""
    for arguments in ((text,), (), (text, text), ("12182 127.0.0.1:7000",)):
        with suppress(Exception):
            return kind(*arguments)
    error = kind.__new__(kind)
    error.args = (text,)
    return error


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "text", ["", "WRONGTYPE Operation", "ERR unknown command", "LOADING", "\ud800 \x00", "é" * 5000]
)
def test_every_error_of_redis_py_is_translated(kind: type[Exception], text: str) -> None:
    """No exception class of redis-py passes, whatever its text; the message is short."""
    with pytest.raises((Unavailable, Misconfigured)) as found, translated(f"redis://u:{SECRET}@example.org"):
        raise made(kind, text)
    assert len(found.value.message) <= 600
    assert SECRET not in found.value.message
    assert {name: fact for name, fact in found.value.facts.items() if name != "lacks"} == {
        "url": "redis://u:***@example.org"
    }


@pytest.mark.parametrize(
    "error",
    [
        OSError(5, "Input/output error"),
        MemoryError(),
        ValueError("invalid literal for int()"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
        AttributeError("'str' object has no attribute 'get'"),
        TypeError("'int' object is not iterable"),
        IndexError("list index out of range"),
        KeyError("x"),
        RecursionError("maximum recursion depth exceeded"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_parsing_stumbles_on_is_unavailable(error: Exception) -> None:
    """Bytes that are no reply make redis-py raise anything; that is a server that does not serve."""
    with pytest.raises(Unavailable) as found, translated("redis://example.org"):
        raise error
    assert type(found.value) is Unavailable
    assert found.value.__cause__ is error


@pytest.mark.parametrize("text", ["WRONGTYPE Operation against a key", "ERR unknown command"])
def test_refused_command_is_damage(text: str) -> None:
    """What stands at a key is not what it should be, so only a rebuild helps."""
    with pytest.raises(Damaged, match="refuses a command"), translated("redis://example.org"):
        raise redis.ResponseError(text)


@pytest.mark.parametrize("command", ["HMGET", "HGETALL", "EVALSHA", "ZRANGEBYLEX", "CLUSTER"])
def test_sentinel_that_is_named_as_a_server(command: str) -> None:
    """It knows no command for keys, and will not learn them."""
    with pytest.raises(Misconfigured, match=r"redis\+sentinel://"), translated("redis://example.org"):
        raise redis.ResponseError(f"unknown command '{command}', with args beginning with: 'blocks:meta' ")


def test_error_of_ours_passes() -> None:
    """An error that is already ours is not touched."""
    error = Damaged("x")
    with pytest.raises(Damaged) as found, translated("redis://example.org"):
        raise error
    assert found.value is error


def test_what_is_no_redis_is_said_so() -> None:
    """A port where something else answers."""
    said = r"what answers at redis://example\.org is not Redis: Protocol"
    with pytest.raises(Unavailable, match=said), translated("redis://example.org"):
        raise redis.InvalidResponse("Protocol Error: b'HTTP/1.1 400 Bad Request'")


def test_commands_are_packed_as_redis_py_packs_them() -> None:
    words = ("EVALSHA", "sha", 2, "caf\u00e9", "", "a line\r\nand another")
    make: Any = redis.Connection
    assert b"".join(packed(*words)) == b"".join(make().pack_command(*words))
