"""Thousands of bare subscribers in one process: when the first and when the last of them has each message.

python tests/benchmarks/crowd.py SOCKET CHANNEL COUNT    subscribers of a channel of Redis
python tests/benchmarks/crowd.py PORT PATH COUNT         clients of a stream of server-sent events
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time

_PATIENCE = 60.0


def listen(place: str, channel: str, count: int) -> None:
    """Subscribe `count` connections to a channel; print, of each message, when the first and the last has it.

    Times are of the monotonic clock, which is the same in every process.
    """
    is_http = place.isdigit()
    request = f"GET {channel} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" if is_http else f"SUBSCRIBE {channel}\r\n"
    confirmed = b"\n\n\r\n" if is_http else b":1\r\n"
    poll = select.epoll()
    connections = []
    for _ in range(count):
        connection = socket.socket(socket.AF_INET if is_http else socket.AF_UNIX)
        connection.connect(("127.0.0.1", int(place)) if is_http else place)
        connection.sendall(request.encode())
        answer = b""
        while not answer.endswith(confirmed):
            answer += connection.recv(1024)
        connection.setblocking(False)
        poll.register(connection, select.EPOLLIN)
        connections.append(connection)
    print("ready", flush=True)
    while True:
        first, last = _one_message(poll, count)
        print(first, last, flush=True)


def _one_message(poll: select.epoll, count: int) -> tuple[float, float]:
    first, waiting = 0.0, count
    while waiting:
        ready = poll.poll(_PATIENCE)
        if not ready:
            raise TimeoutError(f"{waiting} of {count} subscribers have heard nothing for a minute")
        for handle, _ in ready:
            data = os.read(handle, 65536)
            first = first or time.monotonic()
            waiting -= data.rstrip().endswith(b"}")  # a change is one JSON object: with its brace the message is whole
    return first, time.monotonic()


if __name__ == "__main__":
    listen(sys.argv[1], sys.argv[2], int(sys.argv[3]))
