"""Garbage for a gateway: 1,000 requests a second that are wrong in many ways, and the statuses that they got.

    python tests/benchmarks/garbage.py PORT SECONDS

Prints how often each status came, as JSON; `none` is a connection that was closed without an answer.
"""

from __future__ import annotations

import json
import random
import socket
import sys
import threading
import time
from collections import Counter

_PER_SECOND = 1000
_CONNECTIONS = 8

_METHODS = ("GET", "POST", "PATCH", "DELETE", "PUT", "OPTIONS", "BREW")
_PATHS = (
    *("/", "//", "/v1", "/v1/nothing", "/latest/blocks/../..", "/%00", "/v1/blocks/%ff%fe", "/v1/blocks/" + "a" * 5000),
    *("/v1/blocks/block-00000000-0000-5000-8000-000000000000", "/v1/blocks/?limit=-1", "/v1/blocks/?limit=x&order=up"),
    *(
        "/v1/agents/nobody",
        "/v1/agents/no%20body/core-memory/blocks",
        "/v1/agents/x/tools/none/run",
        "/v1/tags?limit=1e9",
    ),
    *("/api/blocks?limit=no", "/api/version/none?version=-1", "/api/diff/none?from=a&to=b", "/api/merge/none"),
    *(
        "/api/changes?last_event_id=%0a",
        "/api/batch",
        "/api/versions/%2e%2e",
        "/api/prompt/nobody?style=none",
        "/metrics/x",
    ),
)
_BODIES = (
    *(b"", b"{", b"null", b"[1]", b"\xff\xfe", b'"\\ud800"', b"[" * 20_000, b'{"label": 1}', b'{"label": "a/../b"}'),
    *(
        b'{"value": {}}',
        b'{"label": "x", "limit": -1}',
        b'{"requests": [{"op": "none"}]}',
        b'{"version": "x"}',
        b"x" * 100_000,
    ),
)
_RAW = (
    *(b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"),
    b"POST /v1/blocks HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n",
    b"POST /v1/blocks HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET / HTTP/1.1\r\nHost: evil.example.com\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
)


def made(dice: random.Random) -> bytes:
    """Return the bytes of a request that cannot be right."""
    if dice.random() < 0.1:
        return dice.choice((*_RAW, dice.randbytes(200) + b"\r\n\r\n"))
    body = dice.choice(_BODIES)
    head = (
        f"{dice.choice(_METHODS)} {dice.choice(_PATHS)} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
    )
    return head.encode() + b"Content-Type: application/json\r\nAuthorization: Bearer wrong\r\n\r\n" + body


class _Sender:
    """One connection, made anew when the gateway closes it."""

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._dice = random.Random(seed)
        self._socket: socket.socket | None = None
        self.statuses: Counter[str] = Counter()

    def send(self) -> None:
        """Send one request, and read its answer."""
        try:
            if self._socket is None:
                self._socket = socket.create_connection(("127.0.0.1", self._port), 30)
            self._socket.sendall(made(self._dice))
            self.statuses[self._answer(self._socket)] += 1
        except OSError:
            self.statuses["none"] += 1
            self._close()

    def _answer(self, connection: socket.socket) -> str:
        data = b""
        while b"\r\n\r\n" not in data:
            some = connection.recv(65536)
            if not some:
                self._close()
                return data[9:12].decode("ascii", "replace") or "none"
            data += some
        head, _, body = data.partition(b"\r\n\r\n")
        length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0)
        while len(body) < length and (some := connection.recv(65536)):
            body += some
        if b"\r\nconnection: close" in head.lower():
            self._close()
        return head[9:12].decode("ascii", "replace")

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def flood(port: int, seconds: float, *, per_second: int = _PER_SECOND) -> Counter[str]:
    """Send garbage, evenly: what could not be sent in time is sent later. Return the statuses."""
    senders = [_Sender(port, seed) for seed in range(_CONNECTIONS)]
    begin = time.monotonic()

    def work(sender: _Sender) -> None:
        sent = 0
        while (now := time.monotonic()) < begin + seconds:
            time.sleep(max(0.0, begin + sent * _CONNECTIONS / per_second - now))
            sender.send()
            sent += 1
        sender._close()

    threads = [threading.Thread(target=work, args=[sender]) for sender in senders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum((sender.statuses for sender in senders), Counter())


if __name__ == "__main__":
    print(json.dumps(flood(int(sys.argv[1]), float(sys.argv[2]))))
