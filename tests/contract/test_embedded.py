"""The server of our own: private, durable, and gone when its daemon is."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

from blocksd import embedded
from blocksd.embedded import FLOOR, Address, EmbeddedServer, find_binary
from blocksd.errors import Misconfigured, Unavailable
from support import binary_of, eventually, require, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., EmbeddedServer]]:
    """Servers that are ended with the test, however it ends."""
    made: list[EmbeddedServer] = []

    def new(state: Path = tmp_path) -> EmbeddedServer:
        made.append(EmbeddedServer(str(state)))
        return made[-1]

    yield new
    for server in made:
        server.stop()


@pytest.fixture
def server(make: Callable[..., EmbeddedServer]) -> EmbeddedServer:
    started = make()
    started.start()
    return started


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory for temporary files, as short as the system's own."""
    path = Path(tempfile.mkdtemp(prefix="blocksd-test-"))
    yield path
    shutil.rmtree(path)


def client_of(address: Address | None, *, tcp: bool = False) -> Any:
    assert address is not None
    return redis.Redis.from_url(address.tcp_url if tcp else address.url, decode_responses=True)


def is_gone(pid: int) -> bool:
    """Whether a process that is not our child has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def script(directory: Path, name: str, says: str) -> str:
    """A program that only tells its version."""
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return str(path)


OLD = "Redis server v=6.2.14 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64 build=0"
REDIS = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=0"
VALKEY = "Valkey server v=8.1.4 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=0"


# --- running ---


def test_server_answers_on_socket_and_port(server: EmbeddedServer) -> None:
    """A started server serves at once, on its socket and on a loopback port, the same data."""
    assert server.is_running()
    client_of(server.address).set("key", "value")
    assert client_of(server.address, tcp=True).get("key") == "value"


def test_redis_cli_takes_the_address(server: EmbeddedServer, tmp_path: Path) -> None:
    """What is in the file redis-url is what `redis-cli -u` wants, as the README has it."""
    url = (tmp_path / "redis-url").read_text().strip()
    words = [require("redis-cli"), "--no-auth-warning", "-u", url, "ping"]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "PONG\n"
    assert server.is_running()


def test_only_its_owner_may_come_near(server: EmbeddedServer, tmp_path: Path) -> None:
    """Directory and socket are private, and so is every file with the password in it."""
    directory = tmp_path / "redis"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert server.address is not None
    assert stat.S_IMODE(os.stat(server.address.socket).st_mode) == 0o700
    for name in ("redis/server.json", "redis/redis.conf", "redis-url"):
        path = tmp_path / name
        assert server.address.password in path.read_text()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (tmp_path / "redis-url").read_text() == server.address.tcp_url + "\n"
    assert not list(tmp_path.rglob("*.new"))


def test_open_directory_is_closed(make: Callable[..., EmbeddedServer], tmp_path: Path) -> None:
    """A directory that others could read is made private before anything is put there."""
    (tmp_path / "redis").mkdir(mode=0o755)
    make().start()
    assert stat.S_IMODE((tmp_path / "redis").stat().st_mode) == 0o700


def test_password_is_needed(server: EmbeddedServer) -> None:
    """Without the password, or with another, nothing is served, on the port or the socket."""
    address = server.address
    assert address is not None
    for url in (
        f"redis://127.0.0.1:{address.port}",
        f"redis://:wrong@127.0.0.1:{address.port}",
        f"unix://{address.socket}",
    ):
        with pytest.raises(redis.AuthenticationError):
            redis.Redis.from_url(url).ping()


def test_only_loopback_is_bound(server: EmbeddedServer) -> None:
    """The port is open on 127.0.0.1 alone."""
    assert server.address is not None
    assert client_of(server.address).config_get("bind")["bind"].split() == ["127.0.0.1"]


def test_argument_is_limited(server: EmbeddedServer) -> None:
    """To more than the largest block takes on its way; an entry of an inbox cannot be hundreds of megabytes."""
    assert server.address is not None
    client: Any = redis.Redis.from_url(server.address.url)
    assert client.eval("return #ARGV[1]", 0, "x" * (32 << 20)) == 32 << 20
    with pytest.raises(redis.ConnectionError):
        client.xadd("blocks:inbox:operator", {"request": "x" * (100 << 20)})
    assert client.xlen("blocks:inbox:operator") == 0
    client.close()


def test_password_is_in_no_command_line(server: EmbeddedServer) -> None:
    """Who lists the processes sees no password."""
    assert server.address is not None
    with open(f"/proc/{server.address.pid}/cmdline", "rb") as file:
        assert server.address.password.encode() not in file.read()


def test_data_and_address_are_kept_over_a_stop(make: Callable[..., EmbeddedServer]) -> None:
    """After an orderly stop the next start has the same data, port and password, in another process."""
    first = make()
    before = first.start()
    client_of(before).set("key", "value")
    first.stop()
    assert not first.is_running()
    assert is_gone(before.pid)
    after = make().start()
    assert client_of(after).get("key") == "value"
    assert (after.port, after.password, after.socket) == (before.port, before.password, before.socket)
    assert after.pid != before.pid


def test_data_are_kept_over_a_kill(server: EmbeddedServer) -> None:
    """After kill -9 of the server, what it had acknowledged a second ago is there; the same object can start it again."""
    before = server.address
    assert before is not None
    client = client_of(before)
    client.config_set("appendfsync", "always")
    client.set("key", "value")
    os.kill(before.pid, signal.SIGKILL)
    eventually(lambda: not server.is_running(), "it is seen to be gone")
    after = server.start()
    assert client_of(after).get("key") == "value"
    assert after.port == before.port


def test_taken_port_is_left_to_its_owner(make: Callable[..., EmbeddedServer]) -> None:
    """When another program has the port by now, another is taken."""
    first = make()
    before = first.start()
    first.stop()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", before.port))
        other.listen()
        after = make().start()
        assert after.port != before.port
        assert client_of(after, tcp=True).ping()


def test_running_server_is_taken_over(make: Callable[..., EmbeddedServer]) -> None:
    """A server found running, as a killed daemon may leave it, is used as it is, and ended in the end."""
    first = make()
    before = first.start()
    client_of(before).set("key", "value")
    second = make()
    assert second.start() == before
    assert second.binary is None
    assert second.is_running()
    second.stop()
    eventually(lambda: not first.is_running(), "it has ended")
    assert not second.is_running()


def test_record_of_a_dead_server_is_not_believed(make: Callable[..., EmbeddedServer], tmp_path: Path) -> None:
    """A record without a server behind it, or that is no record, leads to a new server."""
    first = make()
    before = first.start()
    first.stop()
    (tmp_path / "redis" / "server.json").write_text("{}")
    after = make().start()
    assert client_of(after).ping()
    assert after.password != before.password


def test_two_states_have_two_servers(make: Callable[..., EmbeddedServer], tmp_path: Path) -> None:
    """Servers of different state directories have nothing in common."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, two = make(tmp_path / "a").start(), make(tmp_path / "b").start()
    assert (one.port, one.password, one.socket) != (two.port, two.password, two.socket)
    client_of(one).set("key", "one")
    assert client_of(two).get("key") is None


def test_long_state_path_has_its_socket_elsewhere(
    make: Callable[..., EmbeddedServer], tmp_path: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A socket path longer than the kernel takes is put into a private directory of the temporary ones, always the same."""
    monkeypatch.setattr(tempfile, "tempdir", str(short_path))
    deep = tmp_path.joinpath(*["x" * 60] * 3)
    deep.mkdir(parents=True)
    server = make(deep)
    address = server.start()
    assert len(address.socket) < 108
    assert address.socket.startswith(f"{short_path}/")
    assert stat.S_IMODE(os.stat(os.path.dirname(address.socket)).st_mode) == 0o700
    assert client_of(address).ping()
    server.stop()
    assert make(deep).start().socket == address.socket


def test_directory_of_someone_else_is_refused(
    make: Callable[..., EmbeddedServer], tmp_path: Path, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A place for the socket that others can enter, or that is a link, is not used."""
    monkeypatch.setattr(tempfile, "tempdir", str(short_path))
    deep = tmp_path.joinpath(*["x" * 60] * 3)
    deep.mkdir(parents=True)
    server = make(deep)
    place = Path(os.path.dirname(server.start().socket))
    server.stop()
    place.chmod(0o755)
    with pytest.raises(Misconfigured, match="not a private directory"):
        server.start()
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Misconfigured, match="not a private directory"):
        server.start()


def test_server_that_does_not_start_says_why(make: Callable[..., EmbeddedServer], tmp_path: Path) -> None:
    """Data it cannot read, say: its last words are in the message, and no process is left."""
    server = make()
    server.start()
    server.stop()
    for path in (tmp_path / "redis" / "appendonlydir").iterdir():
        path.write_bytes(b"nonsense")
    said = set()
    for _ in range(2):
        with pytest.raises(Unavailable, match=r"does not start: .*\w") as refused:
            server.start()
        said.add(str(refused.value))
    assert len(said) == 1, "it is the same each time, without a time or a pid"
    assert not server.is_running()


# --- its daemon ---

PARENT = """
import sys
from blocksd.embedded import EmbeddedServer
address = EmbeddedServer(sys.argv[1]).start()
print(address.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_server_ends_with_its_daemon(tmp_path: Path, how: signal.Signals) -> None:
    """However the daemon ends, kill -9 included, its server ends too, with its data on disk."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not is_gone(pid)
        parent.send_signal(how)
    eventually(lambda: is_gone(pid), "the server has ended")


# --- which program ---


def test_valkey_is_preferred(tmp_path: Path) -> None:
    """On PATH, valkey-server goes before redis-server."""
    script(tmp_path / "bin", "redis-server", REDIS)
    path = script(tmp_path / "bin", "valkey-server", VALKEY)
    assert find_binary({"PATH": str(tmp_path / "bin")}) == embedded.Binary(path, "Valkey 8.1.4")


def test_redis_on_path_goes_before_the_bundled(tmp_path: Path) -> None:
    """What the system's administrator has installed is taken, if it is new enough."""
    path = script(tmp_path / "bin", "redis-server", REDIS)
    assert find_binary({"PATH": str(tmp_path / "bin")}) == embedded.Binary(path, "Redis 7.0.15")


@pytest.mark.parametrize("says", [OLD, "Redis server version 2.8", "", "v=x.y"])
def test_older_server_is_passed_over(tmp_path: Path, says: str) -> None:
    """One below the floor, or that does not tell its version, is passed over for the next."""
    script(tmp_path / "bin", "valkey-server", says)
    path = script(tmp_path / "bin", "redis-server", REDIS)
    assert find_binary({"PATH": str(tmp_path / "bin")}).path == path
    script(tmp_path / "bin", "redis-server", says)
    assert find_binary({"PATH": str(tmp_path / "bin")}).path == valkey_binary()


@pytest.mark.parametrize(
    "content", ["", "\x7fELF of another machine", "#!/no/such/interpreter\n", "#!/bin/sh\nexit 127\n"]
)
def test_broken_program_is_passed_over(tmp_path: Path, content: str) -> None:
    """A program that cannot be run is no server."""
    path = tmp_path / "valkey-server"
    path.write_text(content)
    path.chmod(0o755)
    assert find_binary({"PATH": str(tmp_path)}).path == valkey_binary()


def test_bundled_server_needs_no_path(tmp_path: Path) -> None:
    """With nothing on PATH, the one of the `embedded` extra is taken; it is new enough."""
    found = find_binary({"PATH": str(tmp_path)})
    assert found.path == valkey_binary()
    assert found.name.startswith("Valkey ")
    assert embedded._version(found.path)[1] >= FLOOR


def test_floor_is_what_debian_has() -> None:
    """Debian's redis-server is new enough."""
    assert embedded._version(binary_of("redis"))[1] >= FLOOR == (7, 0)


def test_no_server_is_a_matter_of_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With none at all, or only old ones, that is said, naming them and what to do."""
    monkeypatch.setattr(embedded, "_bundled", lambda: None)
    with pytest.raises(Misconfigured, match="give --redis URL") as refusal:
        find_binary({"PATH": str(tmp_path)})
    assert refusal.value.facts["key"] == "redis"
    old = script(tmp_path / "bin", "redis-server", OLD)
    with pytest.raises(Misconfigured, match=r"is Redis 6\.2\.14, older than 7\.0") as refusal:
        find_binary({"PATH": str(tmp_path / "bin")})
    assert old in refusal.value.message
