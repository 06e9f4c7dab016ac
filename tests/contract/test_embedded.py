"""The server of our own: private, durable, and gone when its daemon is."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

from blocksd.embedded import binary, probe
from blocksd.embedded import server as embedded
from blocksd.embedded.binary import FLOOR, Binary, find_binary, version_of
from blocksd.embedded.endpoint import Address, Endpoint
from blocksd.embedded.server import EmbeddedServer
from blocksd.errors import Misconfigured, Unavailable
from support import DEADLINE, binary_of, eventually, require, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow


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


def test_answer_of_any_kind_is_a_sign_of_life(server: EmbeddedServer, short_path: Path) -> None:
    """Also that it loads, or has too many clients; a server that takes connections and says nothing does not answer."""
    assert server.answers(DEADLINE)
    address = server.address
    assert address is not None
    client_of(address).config_set("maxclients", 1)
    keeper = client_of(address)
    keeper.ping()
    assert server.answers(DEADLINE)
    os.kill(address.pid, signal.SIGSTOP)
    assert not server.answers(0.1)
    os.kill(address.pid, signal.SIGCONT)
    place = str(short_path / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen()

        def load() -> None:
            connection, _ = listener.accept()
            connection.sendall(b"-LOADING the dataset in memory\r\n")
            connection.close()

        loading = threading.Thread(target=load)
        loading.start()
        server.address = replace(address, socket=place)
        assert server.answers(DEADLINE)
        loading.join()
        server.address = replace(address, socket=place + "-gone")
        assert not server.answers(1.0)
        server.address = address


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


def test_place_that_is_told_before_the_start_is_the_place(make: Callable[..., EmbeddedServer]) -> None:
    """What is logged while the server is not up yet must lead to it later."""
    server = make()
    told = server.prepare()
    started = server.start()
    assert (told.port, told.socket, told.password) == (started.port, started.socket, started.password)


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
    assert after.password == before.password


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


# --- its data ---


def asides(state: Path) -> list[str]:
    return sorted(path.name for path in (state / "redis").glob("set-aside-*"))


@pytest.mark.parametrize(("before", "after"), [("valkey", "redis"), ("redis", "valkey")])
def test_data_of_another_kind_of_server_are_set_aside(
    make: Callable[..., EmbeddedServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str
) -> None:
    """As after `apt install redis-server`: the new server begins empty, at the same place, with the same password."""

    def use(backend: str) -> None:
        path = binary_of(backend)
        monkeypatch.setattr(embedded, "find_binary", lambda: Binary(path, version_of(path)[0]))

    use(before)
    first = make()
    there = first.start()
    client_of(there).set("key", "value")
    first.stop()
    use(after)
    second = make()
    here = second.start()
    assert client_of(here).get("key") is None
    assert (here.socket, here.password) == (there.socket, there.password)
    (said,) = second.messages
    assert f"the server is {second.binary.name} now" in said  # type: ignore[union-attr]  # it was started
    (aside,) = asides(tmp_path)
    assert f"kept in {tmp_path}/redis/{aside}" in said
    assert list((tmp_path / "redis" / aside / "appendonlydir").iterdir())
    client_of(here).set("key", "other")
    second.stop()
    third = make()
    assert client_of(third.start()).get("key") == "other"
    assert third.messages == []


def spoil(state: Path) -> None:
    """Make the data such that no server loads them."""
    for path in (state / "redis" / "appendonlydir").iterdir():
        path.write_bytes(b"nonsense")


def test_data_that_cannot_be_loaded_are_set_aside(make: Callable[..., EmbeddedServer], tmp_path: Path) -> None:
    """Whatever is wrong with them: they are kept, with the server's last words, and at most the newest two."""
    server = make()
    password = server.start().password
    for number in range(3):
        server.stop()
        spoil(tmp_path)
        assert server.start().password == password
        assert client_of(server.address).ping()
        assert len(server.messages) == number + 1
        assert "cannot be loaded: " in server.messages[-1]
    assert len(asides(tmp_path)) == 2
    newest = tmp_path / "redis" / asides(tmp_path)[-1]
    assert next((newest / "appendonlydir").iterdir()).read_bytes() == b"nonsense"


def test_data_are_kept_where_they_are_if_they_are_not_to_blame(
    make: Callable[..., EmbeddedServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that does not start on an empty directory either says why, the same each time, and leaves the data be."""
    server = make()
    client_of(server.start()).set("key", "value")
    server.stop()
    write = Endpoint.write_settings

    def with_nonsense(self: Endpoint, address: Address) -> str:
        path = write(self, address)
        with open(path, "a", encoding="utf-8") as settings:
            settings.write("logfile redis.log\nno-such-setting yes\n")
        return path

    said = set()
    with monkeypatch.context() as patch:
        patch.setattr(Endpoint, "write_settings", with_nonsense)
        for _ in range(2):
            with pytest.raises(Unavailable, match=r"does not start: .*\w") as refused:
                server.start()
            said.add(str(refused.value))
    assert len(said) == 1, "it is the same each time, without a time or a pid"
    assert not server.is_running()
    assert asides(tmp_path) == []
    assert client_of(server.start()).get("key") == "value"


def test_password_outlives_the_data(make: Callable[..., EmbeddedServer], tmp_path: Path) -> None:
    """Who removes the server's directory, as the last resort, gets another server at the same place, for the same clients."""
    first = make()
    before = first.start()
    first.stop()
    shutil.rmtree(tmp_path / "redis")
    after = make().start()
    assert (after.socket, after.password) == (before.socket, before.password)
    assert stat.S_IMODE((tmp_path / "redis-password").stat().st_mode) == 0o600


def test_password_of_an_older_version_is_kept(make: Callable[..., EmbeddedServer], tmp_path: Path) -> None:
    """It was in the record of the server alone."""
    first = make()
    before = first.start()
    first.stop()
    (tmp_path / "redis-password").unlink()
    assert make().start().password == before.password


def test_files_are_private_under_any_umask(make: Callable[..., EmbeddedServer], tmp_path: Path) -> None:
    """Their directory keeps others out; they have modes of their own all the same."""
    before = os.umask(0)
    try:
        server = make()
        client_of(server.start()).set("key", "value")
        server.stop()
        spoil(tmp_path)
        server.start()
    finally:
        os.umask(before)
    shared = [path for path in tmp_path.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o077]
    assert shared == []


# --- waiting ---


class Slow:
    """A server that says of itself what a test wants, on top of a real one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *states: str | None) -> None:
        self.states = list(states)
        self.real = probe.state_of
        monkeypatch.setattr(probe, "state_of", self.state_of)

    def state_of(self, address: Address) -> str | None:
        return self.states.pop(0) if self.states else self.real(address)


def test_server_that_loads_is_waited_for(make: Callable[..., EmbeddedServer], monkeypatch: pytest.MonkeyPatch) -> None:
    """For as long as it loads, and how far it has come is said; it is never ended for that."""
    monkeypatch.setattr(embedded, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(embedded, "_LOADING_SECONDS", 0.001)
    Slow(monkeypatch, *[f"it loads its data: {percent} %" for percent in range(100)])
    said: list[str] = []
    server = make()
    server.on_progress = said.append
    address = server.start()
    assert said == [f"it loads its data: {percent} %" for percent in range(100)]
    assert client_of(address).ping()


def test_real_loading_is_seen(make: Callable[..., EmbeddedServer], monkeypatch: pytest.MonkeyPatch) -> None:
    """What a server says while it loads is understood."""
    server = make()
    client = client_of(server.start())
    pipeline = client.pipeline(transaction=False)
    for number in range(2000):
        pipeline.set(f"key-{number}", "x" * 50)
    pipeline.execute()
    client.bgrewriteaof()  # what it loads key by key, and so may load slowly
    eventually(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
    server.stop()
    write = Endpoint.write_settings

    def slow(self: Endpoint, address: Address) -> str:
        path = write(self, address)
        with open(path, "a", encoding="utf-8") as settings:
            settings.write("key-load-delay 200\nloading-process-events-interval-bytes 1024\n")
        return path

    monkeypatch.setattr(Endpoint, "write_settings", slow)
    said: list[str] = []
    server.on_progress = said.append
    assert client_of(server.start()).dbsize() == 2000
    assert any(text.startswith("it loads its data: ") and text.endswith(" %") for text in said), said


def test_server_that_hangs_at_its_start_is_ended(
    make: Callable[..., EmbeddedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it neither answers nor works; with data or without, none is left."""
    monkeypatch.setattr(embedded, "SILENT_SECONDS", 0.05)
    monkeypatch.setattr(probe, "work_of", lambda _: 0)
    monkeypatch.setattr(probe, "state_of", lambda _: None)
    server = make()
    with pytest.raises(Unavailable, match="does not start"):
        server.start()
    assert not server.is_running()


def test_server_that_works_is_not_ended(make: Callable[..., EmbeddedServer], monkeypatch: pytest.MonkeyPatch) -> None:
    """Though it does not answer: it may be busy with one large piece."""
    monkeypatch.setattr(embedded, "SILENT_SECONDS", 0.0)
    ticks = itertools.count()
    monkeypatch.setattr(probe, "work_of", lambda _: next(ticks))
    Slow(monkeypatch, *[None] * 50)
    assert client_of(make().start()).ping()


def test_work_of_a_process_grows(server: EmbeddedServer) -> None:
    """As it reads, or uses the processor."""
    assert server.address is not None
    before = probe.work_of(server.address.pid)
    client = client_of(server.address)
    eventually(lambda: client.set("key", "x" * 100_000) and probe.work_of(server.address.pid) > before)  # type: ignore[union-attr]  # it runs


def test_hung_server_of_a_dead_daemon_is_replaced(
    make: Callable[..., EmbeddedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers on the same data would spoil them: the one that hangs is ended first."""
    monkeypatch.setattr(embedded, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(embedded, "STOP_SECONDS", 0.1)
    first = make()
    before = first.start()
    os.kill(before.pid, signal.SIGSTOP)
    second = make()
    after = second.start()
    assert after.pid != before.pid
    eventually(lambda: not first.is_running(), "the first has ended")
    assert client_of(after).ping()


def test_stop_of_a_hung_server_is_bounded(make: Callable[..., EmbeddedServer]) -> None:
    """It is killed when its time is over."""
    server = make()
    address = server.start()
    os.kill(address.pid, signal.SIGSTOP)
    server.stop(grace=0.1)
    assert is_gone(address.pid)


def test_start_is_given_up_for_a_stop(make: Callable[..., EmbeddedServer], monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the server would still load."""
    monkeypatch.setattr(probe, "state_of", lambda _: "it loads its data")
    server = make()
    progress = threading.Event()
    server.on_progress = lambda _: progress.set()
    failures: list[Exception] = []

    def start() -> None:
        try:
            server.start()
        except Unavailable as error:
            failures.append(error)

    starting = threading.Thread(target=start)
    starting.start()
    assert progress.wait(20)
    server.stop()
    starting.join(20)
    assert not starting.is_alive()
    assert len(failures) == 1
    assert not server.is_running()


# --- its daemon ---

PARENT = """
import sys
from blocksd.embedded.server import EmbeddedServer
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
    assert find_binary({"PATH": str(tmp_path / "bin")}) == Binary(path, "Valkey 8.1.4")


def test_redis_on_path_goes_before_the_bundled(tmp_path: Path) -> None:
    """What the system's administrator has installed is taken, if it is new enough."""
    path = script(tmp_path / "bin", "redis-server", REDIS)
    assert find_binary({"PATH": str(tmp_path / "bin")}) == Binary(path, "Redis 7.0.15")


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
    assert version_of(found.path)[1] >= FLOOR


def test_floor_is_what_debian_has() -> None:
    """Debian's redis-server is new enough."""
    assert version_of(binary_of("redis"))[1] >= FLOOR == (7, 0)


def test_no_server_is_a_matter_of_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With none at all, or only old ones, that is said, naming them and what to do."""
    monkeypatch.setattr(binary, "_bundled", lambda: None)
    with pytest.raises(Misconfigured, match="give --redis URL") as refusal:
        find_binary({"PATH": str(tmp_path)})
    assert refusal.value.facts["key"] == "redis"
    old = script(tmp_path / "bin", "redis-server", OLD)
    with pytest.raises(Misconfigured, match=r"is Redis 6\.2\.14, older than 7\.0") as refusal:
        find_binary({"PATH": str(tmp_path / "bin")})
    assert old in refusal.value.message
