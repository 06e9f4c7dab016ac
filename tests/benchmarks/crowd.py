"""Thousands of bare subscribers in one process: when the first and when the last of them has each message."""

from __future__ import annotations

import os
import select
import socket
import sys
import time

_PATIENCE = 60.0


def listen(path: str, channel: str, count: int) -> None:
    """Subscribe `count` connections to a channel; print, of each message, when the first and the last has it.

    Times are of the monotonic clock, which is the same in every process.
    """
    request = f"SUBSCRIBE {channel}\r\n".encode()
    poll = select.epoll()
    connections = []
    for _ in range(count):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        connection.sendall(request)
        answer = b""
        while not answer.endswith(b":1\r\n"):
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
            waiting -= data.endswith(b"}\r\n")  # a change is one JSON object: with its brace the message is whole
    return first, time.monotonic()


if __name__ == "__main__":
    listen(sys.argv[1], sys.argv[2], int(sys.argv[3]))
