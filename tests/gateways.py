"""A gateway in this process, over a daemon and a server in other processes."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from starlette.testclient import TestClient

from blocksd.http.app import application
from blocksd.http.places import Places
from blocksd.http.tokens import Tokens, parse
from support import Daemon, RedisServer, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TOKENS = {
    "kim": "operator-of-the-name-kim",
    "reader": "reader-without-a-name",
    "ann": "token-of-the-agent-ann",
    "bob": "token-of-the-agent-bob",
}
FILE = f"""
operator:kim {TOKENS["kim"]}   # a comment
reader {TOKENS["reader"]}
agent:ann {TOKENS["ann"]}
agent:bob {TOKENS["bob"]}
"""


@contextmanager
def daemon(directory: Path) -> Iterator[tuple[RedisServer, Path]]:
    """A running server and daemon; the server and the folder."""
    server = RedisServer(valkey_binary())
    server.start()
    folder = directory / "blocks.d"
    folder.mkdir()
    running = Daemon(folder, directory / "state", "--redis", server.url, "--delete-grace", "0.05")
    try:
        running.start()
        yield server, folder
        running.stop()
    finally:
        server.remove()


@contextmanager
def gateway(
    url: str, *, tokens: str = "", hosts: str | None = None, base: str = "http://127.0.0.1:8283"
) -> Iterator[TestClient]:
    """A client of a gateway over the mirror at this URL."""
    callers = Tokens(parse(tokens, "tokens"))
    app = application(url, "blocks", tokens=callers, places=Places(hosts, has_tokens=bool(callers)))
    with TestClient(app, base_url=base) as client:
        yield client
