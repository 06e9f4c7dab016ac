"""A gateway in a process, and a caller that costs little, for the benchmarks."""

from __future__ import annotations

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
    """One connection that is kept. It reads of an answer what it must: http.client would take a tenth of a request's time."""

    def __init__(self, port: int) -> None:
        for _ in range(1000):  # it starts
            try:
                self._socket = socket.create_connection(("127.0.0.1", port))
                break
            except ConnectionRefusedError:
                time.sleep(0.01)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def get(self, path: str) -> bytes:
        return self._ask("GET", path, None)

    def patch(self, path: str, body: dict[str, Any]) -> bytes:
        return self._ask("PATCH", path, json.dumps(body))

    def _ask(self, method: str, path: str, body: str | None) -> bytes:
        data = b"" if body is None else body.encode()
        asked = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        if body is not None:
            asked += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        self._socket.sendall(f"{asked}\r\n".encode() + data)
        answer = self._socket.recv(65536)
        while b"\r\n\r\n" not in answer:
            answer += self._more()
        head, _, data = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), answer
        length = int(head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
        while len(data) < length:
            data += self._more()
        return data

    def _more(self) -> bytes:
        some = self._socket.recv(65536)
        assert some, "the connection was closed"
        return some
