"""Fixtures of the contract tests: each kind of server started once, and emptied between two tests."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from bench import Bench
from blocksd.mirror.connection import connect
from support import BACKENDS, RedisServer, Spares, binary_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that uses `backend` or `any_server` runs on one, and, with the mark `every_backend`, on each that it can use."""
    is_on_every = metafunc.definition.get_closest_marker("every_backend") is not None
    if "backend" in metafunc.fixturenames:
        backends = (*BACKENDS, "fakeredis") if "library_url" in metafunc.fixturenames else BACKENDS
        metafunc.parametrize("backend", backends if is_on_every else BACKENDS[:1], indirect=True, scope="session")
    if "any_server" in metafunc.fixturenames:
        metafunc.parametrize("any_server", BACKENDS if is_on_every else BACKENDS[:1], indirect=True)


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> str:
    """The name of a backend."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def standing_server() -> Iterator[Callable[[str], RedisServer]]:
    """The one server of a backend for the whole session, emptied."""
    running: dict[str, RedisServer] = {}

    def get(backend: str) -> RedisServer:
        if backend not in running:
            running[backend] = RedisServer(binary_of(backend))
            running[backend].start()
        client: Any = running[backend].client()
        client.flushall()
        client.close()
        return running[backend]

    yield get
    for server in running.values():
        server.remove()


@pytest.fixture
def any_server(request: pytest.FixtureRequest, spares: Spares) -> Iterator[RedisServer]:
    """A running server of each kind, empty, that a test may kill, pause, restart and set up in another way."""
    with spares.lend(binary_of(request.param)) as lent:
        yield lent


@pytest.fixture(params=(*BACKENDS, "fakeredis"))
def bench(request: pytest.FixtureRequest, standing_server: Callable[[str], RedisServer]) -> Iterator[Bench]:
    """The server of each backend, emptied, and a fake one."""
    if request.param == "fakeredis":
        import fakeredis

        fake = fakeredis.FakeServer()
        options: dict[str, Any] = {
            "decode_responses": True,
            "encoding_errors": "surrogateescape",
            "legacy_responses": False,
        }
        made = Bench("fakeredis", "redis://fake", lambda: fakeredis.FakeRedis(server=fake, **options))
    else:
        url = standing_server(request.param).url
        made = Bench(request.param, url, lambda: connect(url, reply_seconds=20.0))
    yield made
    made.close()


@pytest.fixture
def free_port() -> int:
    """A port of the loopback interface, and its cluster bus port, that nobody uses."""
    while True:
        with socket.socket() as probe, socket.socket() as bus:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            if port < 55_000:
                with suppress(OSError):
                    bus.bind(("127.0.0.1", port + 10_000))
                    return port
