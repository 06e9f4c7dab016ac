"""Gateways for tests: in this process or in another, over a daemon and a server in other processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from starlette.testclient import TestClient

from blocksd.http.app import application
from blocksd.http.places import Places
from blocksd.http.tokens import Tokens, parse
from support import Daemon, RedisServer, eventually, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from blocksd.http.app import Part
    from blocksd.http.call import Gateway

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


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Served:
    """A gateway in a process."""

    def __init__(self, log: Path, *options: str, **environ: str) -> None:
        self.port = free_port()
        self.redis = options[options.index("--redis") + 1] if "--redis" in options else ""
        self._log = log
        words = [sys.executable, "-m", "blocksd", "serve", "--listen", str(self.port), *options]
        with log.open("wb") as said:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                env={**os.environ, "BLOCKSD_CONFIG": os.devnull, **environ},
            )

    def said(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def ready(self) -> Served:
        def is_ready() -> bool:
            assert self.process.poll() is None, self.said()
            return "serving at" in self.said()

        eventually(is_ready, "the gateway serves")
        return self

    def get(self, path: str, *, scheme: str = "http", token: str | None = None, **how: Any) -> Any:
        request = urllib.request.Request(f"{scheme}://127.0.0.1:{self.port}{path}")
        if token is not None:
            request.add_header("authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=10, **how) as answer:
            return json.load(answer)

    def end(self) -> None:
        """End it in order."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(15)


@contextmanager
def daemon(directory: Path, files: Mapping[str, str] | None = None) -> Iterator[tuple[RedisServer, Path]]:
    """A running server and daemon; the server and the folder. What is in `files` is in the mirror from the start."""
    server = RedisServer(valkey_binary())
    server.start()
    folder = directory / "blocks.d"
    folder.mkdir()
    for path, text in (files or {}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    running = Daemon(folder, directory / "state", "--redis", server.url, "--delete-grace", "0.05")
    try:
        running.start()
        yield server, folder
        running.stop()
    finally:
        server.remove()


@contextmanager
def gateway(
    url: str,
    *,
    tokens: str = "",
    hosts: str | None = None,
    base: str = "http://127.0.0.1:8283",
    raises: bool = True,
    by: str | None = None,
    parts: Iterable[Callable[[Gateway], Part]] = (),
) -> Iterator[TestClient]:
    """A client of a gateway over the mirror at this URL; it `raises` what the gateway fails with."""
    callers = Tokens(parse(tokens, "tokens"))
    app = application(url, "blocks", tokens=callers, places=Places(hosts, has_tokens=bool(callers)), by=by, parts=parts)
    with TestClient(app, base_url=base, raise_server_exceptions=raises) as client:
        yield client
