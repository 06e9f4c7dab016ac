"""A gateway in a process, and a caller that costs little, for the benchmarks."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def gateway(url: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A gateway over this server."""
    words = [sys.executable, "-m", "blocksd", "serve", "--redis", url, "--listen", str(port)]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, env={**os.environ, "BLOCKSD_CONFIG": os.devnull})
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


class Caller:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        for _ in range(1000):  # it starts
            try:
                self._connection.connect()
                break
            except ConnectionRefusedError:
                time.sleep(0.01)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self, path: str) -> bytes:
        return self._ask("GET", path, None)

    def patch(self, path: str, body: dict[str, Any]) -> bytes:
        return self._ask("PATCH", path, json.dumps(body))

    def _ask(self, method: str, path: str, body: str | None) -> bytes:
        data = b"" if body is None else body.encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        self._connection.send(f"{head}\r\n".encode() + data)  # at once: http.client would wake the gateway twice
        answer = http.client.HTTPResponse(self._connection.sock, method=method)
        answer.begin()
        data = answer.read()
        assert answer.status == 200, data
        return data
