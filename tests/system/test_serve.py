"""`blocksd serve` in a process: how it starts, what it refuses, and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateways import Served
from support import DEADLINE, Daemon, RedisServer, certified, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow

TOKEN = "a-token-of-an-operator"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start a gateway; all are ended with the test."""
    begun: list[Served] = []

    def start(*options: str, **environ: str) -> Served:
        begun.append(Served(tmp_path / f"serve-{len(begun)}.log", *options, **environ))
        return begun[-1]

    yield start
    for one in begun:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait(10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serves_until_a_signal(
    run_daemon: Callable[..., Daemon], folder: Path, tmp_path: Path, serve: Callable[..., Served], number: int
) -> None:
    """It finds the daemon by its state directory, answers, and ends by a signal with 0 and no traceback."""
    (folder / "persona.md").write_text("I am Sam.\n")
    run_daemon()
    gateway = serve("--state-dir", str(tmp_path / "state")).ready()
    assert gateway.get("/v1/health/")["status"] == "ok"
    assert gateway.get("/v1/blocks/persona")["value"] == "I am Sam."
    gateway.process.send_signal(number)
    assert gateway.process.wait(15) == 0
    assert "Traceback" not in gateway.said()
    assert gateway.said().endswith("stopped\n")


def test_two_signals_end_it_at_once(server: RedisServer, serve: Callable[..., Served]) -> None:
    """The second one does not wait for requests in hand, and is no fault either."""
    gateway = serve("--redis", server.url).ready()
    gateway.process.send_signal(signal.SIGTERM)
    gateway.process.send_signal(signal.SIGINT)
    assert gateway.process.wait(15) == 0
    assert "Traceback" not in gateway.said()


def test_follows_a_server_that_was_restarted(
    run_daemon: Callable[..., Daemon], server: RedisServer, folder: Path, serve: Callable[..., Served]
) -> None:
    """While Redis does not serve, the answer is 503; then it is right again, without a restart of the gateway."""
    (folder / "persona.md").write_text("I am Sam.\n")
    run_daemon()
    gateway = serve("--redis", server.url).ready()
    assert gateway.get("/v1/blocks/persona")["value"] == "I am Sam."
    server.kill()
    with pytest.raises(urllib.error.HTTPError, match="503"):
        gateway.get("/v1/blocks/persona")
    server.start()

    def answers() -> bool:
        try:
            return bool(gateway.get("/v1/blocks/persona")["value"] == "I am Sam.")
        except urllib.error.HTTPError as error:
            return error.code != 503 and pytest.fail(str(error))

    eventually(answers, "the block is read again")


def test_ends_though_a_request_waits(
    run_daemon: Callable[..., Daemon], server: RedisServer, folder: Path, serve: Callable[..., Served]
) -> None:
    """The daemon does not reply: after two seconds the caller is told so, and the gateway ends in order."""
    (folder / "persona.md").write_text("I am Sam.\n")
    daemon = run_daemon()
    gateway = serve("--redis", server.url).ready()
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGSTOP)
    try:
        with socket.create_connection(("127.0.0.1", gateway.port)) as caller:
            head = b"DELETE /v1/blocks/persona HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
            caller.sendall(head)
            with server.client() as client:
                eventually(lambda: client.xlen("blocks:inbox:operator"), "the daemon is asked")
            gateway.process.terminate()
            assert gateway.process.wait(15) == 0
            answer = caller.recv(65536)
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"whether this was done is not known" in answer
    finally:
        daemon.process.send_signal(signal.SIGCONT)
    assert "Traceback" not in gateway.said()


GARBAGE = Path(__file__).parents[1] / "benchmarks" / "garbage.py"


def test_flood_of_garbage(
    run_daemon: Callable[..., Daemon], server: RedisServer, folder: Path, serve: Callable[..., Served]
) -> None:
    """A thousand wrong requests a second: no answer is 5xx, other callers are served, and it keeps no memory of them."""
    (folder / "persona.md").write_text("I am Sam.\n")
    run_daemon()
    gateway = serve("--redis", server.url).ready()

    def flood() -> dict[str, int]:
        words = [sys.executable, str(GARBAGE), str(gateway.port), "1"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as sender:
            while sender.poll() is None:
                assert gateway.get("/v1/blocks/persona")["value"] == "I am Sam."
            assert sender.stdout is not None
            statuses: dict[str, int] = json.load(sender.stdout)
        return statuses

    def resident() -> int:
        text = Path(f"/proc/{gateway.process.pid}/status").read_text(encoding="ascii")
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmRSS:"))

    flood()
    before = resident()
    statuses = flood()
    assert statuses["404"] > 20
    assert [status for status in statuses if not status.startswith(("2", "4"))] in ([], ["none"])
    assert resident() < before + 16 * 1024
    assert "Traceback" not in gateway.said()
    gateway.end()
    assert gateway.process.returncode == 0


def test_many_idle_connections(
    server: RedisServer, run_daemon: Callable[..., Daemon], serve: Callable[..., Served]
) -> None:
    """More than there are file descriptors for: others are served, and the log stays short."""
    run_daemon()
    gateway = serve("--redis", server.url).ready()
    resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, (256, 256))
    with ExitStack() as idle:
        for number in range(600):
            address = "127.0.0.1", gateway.port
            idle.enter_context(socket.create_connection(address)).sendall(b"GET / HTTP/1.1\r\n" * (number % 2))
            if number % 50 == 0:
                assert gateway.get("/v1/blocks/") == []
        assert gateway.get("/v1/blocks/") == []
    assert "Traceback" not in gateway.said()
    gateway.end()
    assert gateway.process.returncode == 0


def test_connections_that_do_not_begin_to_speak_tls(
    server: RedisServer, run_daemon: Callable[..., Daemon], tmp_path: Path, serve: Callable[..., Served]
) -> None:
    """Leave the gateway the descriptors that it needs itself: who is connected is served, and the log stays short."""
    key, certificate = certified(tmp_path)
    run_daemon()
    gateway = serve("--redis", server.url, "--certificate", str(certificate), "--certificate-key", str(key)).ready()
    trust = ssl.create_default_context(cafile=str(certificate))
    with closing(http.client.HTTPSConnection("127.0.0.1", gateway.port, context=trust)) as early, ExitStack() as idle:
        early.connect()
        resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, (128, 128))
        for _ in range(300):
            idle.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))
        for _ in range(3):
            early.request("GET", "/v1/blocks/")
            assert early.getresponse().read() == b"[]"
    eventually(lambda: answers(gateway, trust), "others are served when the idle ones are gone")
    assert "Traceback" not in gateway.said()


def answers(gateway: Served, trust: ssl.SSLContext) -> bool:
    try:
        return bool(gateway.get("/v1/blocks/", scheme="https", context=trust) == [])
    except OSError:
        return False


@pytest.mark.parametrize(
    ("options", "environ", "words"),
    [
        (["--listen", "0.0.0.0:8283"], {}, ["without tokens", "set tokens or tokens_file"]),
        (["--listen", "99999"], {}, ["listen must be a port"]),
        (["--tokens-file", "/nowhere/tokens"], {}, ["/nowhere/tokens cannot be read"]),
        ([], {"BLOCKSD_TOKENS": "reader short"}, ["tokens:1", "at least 16"]),
        (["--certificate", "/nowhere/tls.pem"], {}, ["/nowhere/tls.pem", "cannot be used for TLS"]),
        (["--certificate-key", "/nowhere/tls.key"], {}, ["without certificate"]),
        (["--redis", "http://x"], {}, ["is not a Redis URL"]),
    ],
)
def test_what_it_refuses(
    serve: Callable[..., Served], options: list[str], environ: dict[str, str], words: list[str]
) -> None:
    """Exit code 2, and a sentence that names what to change; no traceback."""
    gateway = serve("--redis", "redis://127.0.0.1:1", *options, **environ)
    assert gateway.process.wait(15) == 2, gateway.said()
    for some in words:
        assert some in gateway.said()
    assert "Traceback" not in gateway.said()


def test_address_that_is_taken(serve: Callable[..., Served]) -> None:
    """The sentence says so."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        gateway = serve("--redis", "redis://127.0.0.1:1", "--listen", str(other.getsockname()[1]))
        assert gateway.process.wait(15) == 2
    assert "Address already in use" in gateway.said()


def test_without_a_daemon(tmp_path: Path, serve: Callable[..., Served]) -> None:
    """No URL and no daemon that runs: exit code 3."""
    gateway = serve("--state-dir", str(tmp_path / "none"))
    assert gateway.process.wait(15) == 3
    assert "no daemon is running" in gateway.said()


def test_tls_and_tokens(
    run_daemon: Callable[..., Daemon], server: RedisServer, tmp_path: Path, serve: Callable[..., Served]
) -> None:
    """With a certificate it speaks TLS alone; the log has no token, right or wrong."""
    key, certificate = certified(tmp_path)
    run_daemon()
    gateway = serve(
        *("--redis", server.url, "--certificate", str(certificate), "--certificate-key", str(key)),
        *("--log-level", "debug"),
        BLOCKSD_TOKENS=f"operator:kim {TOKEN}",
    ).ready()
    trust = ssl.create_default_context(cafile=str(certificate))
    assert gateway.get("/v1/blocks/", scheme="https", token=TOKEN, context=trust) == []
    with pytest.raises(urllib.error.HTTPError, match="401"):
        gateway.get("/v1/blocks/", scheme="https", token="a-token-of-nobody", context=trust)
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        gateway.get("/v1/health/")
    gateway.process.terminate()
    gateway.process.wait(15)
    assert "token-of" not in gateway.said()
    assert "with a token" in gateway.said()


_PASSING = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.executable, [sys.executable, "-m", "blocksd", "serve", *sys.argv[2:]])
"""


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_socket_that_systemd_passes(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: socket.AddressFamily
) -> None:
    """Connections wait for a gateway, also while it is started anew; who may call is the same."""
    monkeypatch.setenv("BLOCKSD_CONFIG", os.devnull)
    with socket.socket(family) as listening:
        listening.bind(("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "http"))
        listening.listen()
        words = [sys.executable, "-c", _PASSING, str(listening.fileno()), "--redis", server.url]
        for host, status in (("localhost", b" 503 "), ("evil.example", b" 403 ")):  # 503: there is no mirror
            with socket.socket(family) as caller:
                caller.connect(listening.getsockname())
                caller.sendall(f"GET /v1/blocks/x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                caller.settimeout(DEADLINE)
                with subprocess.Popen(words, pass_fds=[listening.fileno()], stderr=subprocess.PIPE) as gateway:
                    assert status in caller.recv(1000)
                    gateway.terminate()
                    said = gateway.communicate(timeout=DEADLINE)[1]
                assert gateway.returncode == 0, said
                place = "http+unix:" if family == socket.AF_UNIX else "http://"
                assert f"serving at {place}".encode() in said
